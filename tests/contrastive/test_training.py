"""Pre-training: resumable to the bit after a kill, honest about whose state it finds, and able to learn."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from cg import Graph, GraphSet
from cg.errors import CGError, StorageError
from contrastive import EncoderConfig, pretrain
from contrastive.corpus import Corpus
from contrastive.training import _STATE, _Run

CONFIG = EncoderConfig(hidden=16, gnn_layers=2, embedding=12, projection=8, steps=30, warmup_steps=5, batch_graphs=8,
                       neighbours=4)
ROOT = Path(__file__).parents[2]

KILLED = """
import json, os, signal, sys
import torch
torch.set_num_threads(1)
from cg import GraphSet
from contrastive import EncoderConfig, pretrain
path, out, config, at = sys.argv[1:]
def progress(step, steps, loss):
    if step == int(at):
        os.kill(os.getpid(), signal.SIGKILL)
pretrain([GraphSet.read(path)], out, EncoderConfig.from_dict(json.loads(config)), seed=3, checkpoint_every=5, progress=progress)
"""


def weights(folder: Path) -> bytes:
    return (folder / "encoder.safetensors").read_bytes()


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, small_graphs: list[Graph]) -> Path:
    """Folder of a run that another process began and that SIGKILL ended at step 13; its last state is of step 10."""
    folder = tmp_path_factory.mktemp("killed")
    GraphSet(small_graphs).write(folder / "graphs.parquet")
    run = subprocess.run([sys.executable, "-c", KILLED, str(folder / "graphs.parquet"), str(folder / "run"),
                          json.dumps(dataclasses.asdict(CONFIG)), "13"], cwd=ROOT, capture_output=True, text=True,
                         env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert os.listdir(folder / "run") == [_STATE]
    return folder / "run"


@pytest.fixture
def state(killed: Path, tmp_path: Path) -> Path:
    """A fresh copy of that folder."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / _STATE).write_bytes((killed / _STATE).read_bytes())
    return tmp_path / "run"


def test_killed_run_ends_as_if_it_had_not_been(state: Path, tmp_path: Path, small_graphs: list[Graph]) -> None:
    steps: list[int] = []
    resumed = pretrain([small_graphs], state, CONFIG, seed=3, checkpoint_every=5, progress=lambda s, n, x: steps.append(s))
    whole = pretrain([small_graphs], tmp_path / "whole", CONFIG, seed=3, checkpoint_every=100)
    assert steps == list(range(11, 31))
    assert weights(state) == weights(tmp_path / "whole")
    assert np.array_equal(resumed.embed(small_graphs), whole.embed(small_graphs))
    assert sorted(os.listdir(state)) == sorted(os.listdir(tmp_path / "whole")) == ["config.json", "encoder.safetensors"]


def test_resume_can_be_declined(state: Path, small_graphs: list[Graph]) -> None:
    steps: list[int] = []
    pretrain([small_graphs], state, CONFIG, seed=3, steps=2, resume=False, progress=lambda s, n, x: steps.append(s))
    assert steps == [1, 2]


def renamed(graphs: list[Graph]) -> list[Graph]:
    return [g.with_(family="c") for g in graphs]


@pytest.mark.parametrize(("change", "message"), [
    ({"seed": 4}, "another seed: 3 instead of 4"),
    ({"steps": 31}, "another config: steps 30 instead of 31;"),
    ({"config": dataclasses.replace(CONFIG, hidden=32, temperature=0.2)},
     "another config: hidden 16 instead of 32, temperature 0.1 instead of 0.2;"),
    ({"graphs": lambda g: g[:-1]}, "another data"),
    ({"graphs": lambda g: g[::-1]}, "another data"),  # rows of a batch are numbers, so the order is part of the data
    ({"graphs": renamed}, "another data"),
])
def test_state_of_another_run_is_refused(state: Path, small_graphs: list[Graph], change: dict, message: str) -> None:
    before = (state / _STATE).read_bytes()
    graphs = change.pop("graphs", list)(small_graphs)
    options = {"config": CONFIG, "seed": 3, **change}
    with pytest.raises(StorageError, match=f"{_STATE} belongs to a run with {message}"):
        pretrain([graphs], state, **options)
    assert (state / _STATE).read_bytes() == before


@pytest.mark.parametrize("keep", [0, 5, 100, 5000, -1])
def test_truncated_state_is_refused(state: Path, small_graphs: list[Graph], keep: int) -> None:
    (state / _STATE).write_bytes((state / _STATE).read_bytes()[:keep])
    with pytest.raises(StorageError, match=rf"{_STATE} cannot be read .*; delete it or train with resume=False"):
        pretrain([small_graphs], state, CONFIG, seed=3)


def test_incomplete_state_is_refused(state: Path, small_graphs: list[Graph]) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(state / _STATE, "pt") as file:
        meta, tensors = file.metadata(), {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    for gone in ("model.encoder.op.weight", "step"):
        save_file({k: v for k, v in tensors.items() if k != gone}, state / _STATE, {k: v for k, v in meta.items() if k != gone})
        with pytest.raises(StorageError, match="not a complete training state"):
            pretrain([small_graphs], state, CONFIG, seed=3)


def test_full_disk_is_reported_and_the_last_state_stays(state: Path, small_graphs: list[Graph]) -> None:
    """Every write beyond 10,000 bytes fails, in a process of its own."""
    before = (state / _STATE).read_bytes()
    GraphSet(small_graphs).write(state.parent / "graphs.parquet")
    code = ("import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
            "from cg.errors import StorageError\ntry:\n    " + KILLED.strip().replace("\n", "\n    ")
            + "\nexcept StorageError as error:\n    print('refused', error)\n")
    run = subprocess.run([sys.executable, "-c", code, str(state.parent / "graphs.parquet"), str(state),
                          json.dumps(dataclasses.asdict(CONFIG)), "99"], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout.startswith(f"refused cannot write {state / _STATE}"), run.stderr
    assert os.listdir(state) == [_STATE]
    assert (state / _STATE).read_bytes() == before


def test_seed_decides_the_result(tmp_path: Path, small_graphs: list[Graph]) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        pretrain([small_graphs], tmp_path / name, CONFIG, steps=3, seed=seed)
    assert weights(tmp_path / "a") == weights(tmp_path / "b") != weights(tmp_path / "c")


def test_state_of_the_random_generators_does_not_matter(tmp_path: Path, small_graphs: list[Graph]) -> None:
    for name, seed in (("a", 11), ("b", 12)):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        pretrain([small_graphs], tmp_path / name, CONFIG, steps=3)
    assert weights(tmp_path / "a") == weights(tmp_path / "b")


def test_loss_falls(tmp_path: Path, small_graphs: list[Graph]) -> None:
    losses: list[float] = []
    pretrain([small_graphs], tmp_path, dataclasses.replace(CONFIG, steps=80, learning_rate=5e-3),
             progress=lambda s, n, x: losses.append(x))
    assert len(losses) == 80
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])


def test_contrast_alone_separates_the_families(tmp_path: Path, small_graphs: list[Graph]) -> None:
    """Families that differ in nothing but their last operator end up apart."""
    from cg import GraphBuilder

    graphs = []
    for i in range(16):
        b = GraphBuilder(family="ab"[i % 2])
        x = b.repeat(lambda v, b=b: b.relu(b.conv2d(v, 4)), b.input((1, 4, 8, 8)), 1 + i // 2)  # type: ignore[misc]
        graphs.append(b.build(b.op(("Sigmoid", "Tanh")[i % 2], [x])))
    config = dataclasses.replace(CONFIG, statistics_weight=0.0, steps=60, learning_rate=1e-2, spectral_temperature=10.0)
    z = pretrain([graphs], tmp_path, config).embed(graphs)
    z = (z - z.mean(0)) / np.linalg.norm(z - z.mean(0), axis=1, keepdims=True)
    cosine, even = z @ z.T, np.arange(16) % 2 == 0
    same = (even[:, None] == even[None, :]) & ~np.eye(16, dtype=bool)
    assert cosine[same].mean() > cosine[even][:, ~even].mean() + 0.3


def test_labels_names_and_ids_are_not_seen(tmp_path: Path, small_graphs: list[Graph]) -> None:
    """The same graphs with labels, other names and ids give the same encoder to the bit."""
    labelled = GraphSet([g.with_(name="other") for g in small_graphs], [f"x{i}" for i in range(24)], {"acc": np.arange(24.0)})
    pretrain([small_graphs], tmp_path / "a", CONFIG, steps=3)
    pretrain([labelled[:12], labelled[12:]], tmp_path / "b", CONFIG, steps=3)
    assert weights(tmp_path / "a") == weights(tmp_path / "b")


def test_batches_are_balanced_over_families_and_paired_with_neighbours(small_graphs: list[Graph]) -> None:
    graphs = [g for g in small_graphs if g.family == "a" or int(g.name[5:]) < 8]  # 12 of a, 4 of b
    run = _Run(Corpus([graphs]), CONFIG, 0)
    family = np.array([g.family for g in graphs])
    seen = set()
    for step in range(40):
        rows = run.batch(step)
        anchors, partners = rows[:4], rows[4:]
        assert sorted(family[anchors]) == ["a", "a", "b", "b"]
        assert (family[anchors] == family[partners]).all()
        assert (anchors != partners).all()
        assert all(p in run.neighbours[a] for a, p in zip(anchors, partners, strict=True))
        assert np.array_equal(rows, run.batch(step))
        seen |= set(rows.tolist())
    assert seen == set(range(len(graphs)))


def test_learning_rate_warms_up_and_decays() -> None:
    run = _Run.__new__(_Run)
    run.config = dataclasses.replace(CONFIG, steps=100, warmup_steps=10, learning_rate=1.0)
    rates = [run._learning_rate(s) for s in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert int(np.argmax(rates)) == 9
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert 0 < rates[-1] < 1e-3
    assert rates[50] == pytest.approx(0.5)


def test_too_few_graphs(tmp_path: Path, small_graphs: list[Graph]) -> None:
    with pytest.raises(CGError, match="at least 4 graphs, got 3"):
        pretrain([small_graphs[:2], small_graphs[:1]], tmp_path / "x", CONFIG)
    assert not (tmp_path / "x").exists()


def test_loss_that_is_not_finite_stops_the_run(tmp_path: Path, small_graphs: list[Graph],
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    from contrastive import objectives

    monkeypatch.setattr(objectives, "supcon_loss", lambda z, w, tau: (z * float("nan")).sum())
    with pytest.raises(CGError, match=r"loss is not finite at step 0: .*lower learning_rate"):
        pretrain([small_graphs], tmp_path / "x", CONFIG)
    assert not (tmp_path / "x" / "encoder.safetensors").exists()


def test_provenance_says_how_the_weights_came_to_be(tmp_path: Path, small_graphs: list[Graph]) -> None:
    pretrain([small_graphs], tmp_path, CONFIG, steps=2, seed=5)
    record = json.loads((tmp_path / "config.json").read_text())["provenance"]
    assert (record["graphs"], record["labelled"], record["families"], record["seed"]) == (24, 0, ["a", "b"], 5)
    assert record["torch"] == torch.__version__


def test_paper_configuration_trains(tmp_path: Path, small_graphs: list[Graph]) -> None:
    small = dataclasses.replace(EncoderConfig.paper(), hidden=16, batch_graphs=8, steps=2)
    assert np.isfinite(pretrain([small_graphs], tmp_path, small).embed(small_graphs)).all()


def test_loss_curves_are_written(tmp_path: Path, small_graphs: list[Graph]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    pretrain([small_graphs], tmp_path / "e", CONFIG, steps=3, log_dir=tmp_path / "log")
    events = EventAccumulator(str(tmp_path / "log")).Reload()
    assert set(events.Tags()["scalars"]) == {"loss/contrastive", "loss/statistics", "loss/total"}
    assert [e.step for e in events.Scalars("loss/total")] == [0, 1, 2]
