"""Latency measured on the machine that runs the tests; only large differences are asserted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cg import Graph, GraphBuilder, GraphSet
from cg.cli import build
from cg.errors import CGError, StorageError
from cg.label_file import read_labels
from cg.spec import NodeSpec
from evo_search import cli
from evo_search import latency as lib
from finetune.baselines import LayerwiseLatency


def chain(depth: int, width: int) -> Graph:
    b = GraphBuilder(name=f"{depth}x{width}")
    x = b.input((1, 3, 16, 16))
    for _ in range(depth):
        x = b.relu(b.conv2d(x, width, kernel=3))
    return b.build(b.linear(b.global_avg_pool(x), 10))


def broken() -> Graph:
    shape = (1, 4)
    odd = NodeSpec("Unknown", (shape,), shape, attrs=(("name", "what"),))
    return Graph.make([NodeSpec("Input", (), shape), odd], [(0, 1, 0)], name="strange")


@pytest.fixture(scope="module")
def pair() -> tuple[Graph, Graph]:
    small, large = chain(2, 16), chain(6, 64)
    assert large.macs > 30 * small.macs
    return small, large


@pytest.mark.parametrize("backend", lib.BACKENDS)
def test_larger_networks_take_longer(pair: tuple[Graph, Graph], backend: str) -> None:
    if backend == "onnxruntime":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
    before = torch.get_num_threads()
    small, large = (lib.measure(g, 30, 3, backend) for g in pair)
    assert 0 < 2 * small.median_ms < large.median_ms
    assert small.runs == 30
    assert 12 <= small.kept <= 18
    assert small.backend == backend
    assert torch.get_num_threads() == before


def test_between_quartiles() -> None:
    times = np.array([5.0, 1.0, 3.0, 2.0, 4.0])
    assert lib.between_quartiles(times).tolist() == [3.0, 2.0, 4.0]
    assert lib.between_quartiles(np.array([1.0, 1000.0])).tolist() == [500.5]
    assert lib.between_quartiles(np.array([7.0])).tolist() == [7.0]


def test_outliers_do_not_count(monkeypatch: pytest.MonkeyPatch, pair: tuple[Graph, Graph]) -> None:
    fixed = np.array([2.0] * 6 + [900.0, 1.0])
    monkeypatch.setattr(lib, "_timed", lambda *_: fixed)
    found = lib.measure(pair[0])
    assert (found.mean_ms, found.median_ms, found.std_ms, found.runs, found.kept) == (2.0, 2.0, 0.0, 8, 6)


def test_time_cap(pair: tuple[Graph, Graph]) -> None:
    assert lib.measure(pair[1], 10**6, 10**6, max_seconds=0.01).runs < 1000
    assert lib.measure(pair[1], 10**6, max_seconds=1e-9).runs == lib.LEAST_RUNS
    assert lib.measure(pair[0], 2).runs == 2


def test_mistakes_are_named(pair: tuple[Graph, Graph]) -> None:
    with pytest.raises(CGError, match="torch, onnxruntime"):
        lib.measure(pair[0], backend="tvm")
    with pytest.raises(CGError, match="runs"):
        lib.measure(pair[0], runs=0)
    with pytest.raises(CGError, match="max_seconds"):
        lib.measure(pair[0], max_seconds=0)
    with pytest.raises(CGError, match="strange"):
        lib.measure(broken())


def test_resume_measures_only_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fake(graph: Graph, *_: object, **__: object) -> lib.Latency:
        if graph.name == "broken":
            raise CGError("no way")
        asked.append(graph.name)
        return lib.Latency(len(asked) + 0.5, 1.0, 0.1, 10, 5)

    monkeypatch.setattr(lib, "measure", fake)
    path = tmp_path / "latency.csv"
    graphs = GraphSet([chain(1, w).with_(name=n) for w, n in ((4, "a"), (5, "broken"), (6, "c,d"))], ids=["a", "broken", "c,d"])
    told: list[tuple[int, int, str]] = []
    assert lib.measure_set(graphs.take([0]), path, 10) == (1, {})
    assert lib.measure_set(graphs, path, 10, progress=lambda *a: told.append(a)) == (1, {"broken": "no way"})
    assert asked == ["a", "c,d"]
    assert told == [(1, 3, "broken"), (2, 3, "c,d"), (3, 3, "")]
    assert read_labels(path, graphs.ids, "mean_ms") == {"a": 1.5, "c,d": 2.5}
    whole = path.read_text()
    path.write_text(whole[:-9])  # a crash in the middle of the last line
    assert lib.measure_set(graphs, path, 10)[0] == 1
    assert asked == ["a", "c,d", "c,d"]
    assert read_labels(path, graphs.ids, "mean_ms") == {"a": 1.5, "c,d": 3.5}
    with pytest.raises(StorageError, match="another file"):
        lib.measure_set(graphs, path, 10, threads=2)
    path.write_text("id,accuracy\na,1\n")
    with pytest.raises(StorageError, match="no table of latencies"):
        lib.measure_set(graphs, path, 10)
    assert path.read_text() == "id,accuracy\na,1\n"


def test_layers_measured_alone_make_a_table(tmp_path: Path, pair: tuple[Graph, Graph]) -> None:
    layers = lib.layer_graphs(pair)
    nodes = {s for g in pair for s in g.nodes if s.op != "Input"}
    assert set(layers.ids) == {s.to_json() for s in nodes}
    done, failed = lib.measure_set(layers, tmp_path / "layers.csv", 8, 1)
    assert (done, failed) == (len(nodes), {})
    model = LayerwiseLatency(read_labels(tmp_path / "layers.csv", metric="mean_ms")).fit(pair, [0.0, 0.0])  # type: ignore[arg-type]
    small, large = model.predict(pair)
    assert 0 < small < large


def test_command(tmp_path: Path, pair: tuple[Graph, Graph]) -> None:
    graphs, out = tmp_path / "g.parquet", tmp_path / "latency.csv"
    GraphSet(pair, ids=["small", "large"]).write(graphs)
    arguments = ["latency", str(graphs), "-o", str(out), "--runs", "8", "--warmup", "1", "--json"]
    run = CliRunner().invoke(build([cli.register]), arguments)
    assert run.exit_code == 0, run.output
    assert json.loads(run.stdout)["measured"] == 2
    first = out.read_text()
    assert json.loads(CliRunner().invoke(build([cli.register]), arguments).stdout)["measured"] == 0
    assert out.read_text() == first
    GraphSet([*pair, broken()], ids=["small", "large", "odd"]).write(graphs)
    again = CliRunner().invoke(build([cli.register]), arguments)
    assert again.exit_code == 1
    assert "strange" in json.loads(again.stdout)["failed"]["odd"]
