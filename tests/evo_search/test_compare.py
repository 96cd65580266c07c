"""``cg compare``: same draws for all, goes on after a kill, survives a failing predictor, writes what it measured."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cg.cells import pruned
from cg.errors import CGError, StorageError
from evo_search import comparison, comparison_report, rivals
from evo_search.comparison import compare
from evo_search.rivals import Rival
from finetune import metrics

SMALL: dict[str, Any] = {"labels": (10, 20), "seeds": 2, "n_test": 50, "pool_size": 300}


class Spy:
    """Keeps what it is given; scores are the lengths of the networks' names, or of the rows."""

    log: list[tuple[str, Any, Any]]

    def __init__(self, log: list[Any], name: str = "") -> None:
        self.log, self.name = log, name

    def fit(self, networks: Any, y: np.ndarray) -> Spy:
        self.log.append(("fit", networks, y))
        return self

    def predict(self, networks: Any) -> np.ndarray:
        self.log.append(("predict", networks, None))
        return np.arange(len(networks), dtype=float)


class Broken(Spy):
    def predict(self, networks: Any) -> np.ndarray:
        raise ZeroDivisionError("no\nscore")


class Silent(Spy):
    def predict(self, networks: Any) -> np.ndarray:
        return np.full(len(networks), np.nan)


def spy(name: str, view: str, log: list[Any], kind: type[Spy] = Spy) -> Rival:
    return Rival(name, view, lambda seed, family: kind(log))


def test_every_predictor_gets_the_same_networks_in_its_own_view() -> None:
    logs: dict[str, list[Any]] = {"graph": [], "cell": [], "pruned": [], "native": []}
    result = compare("nasbench201", [spy(v, v, log) for v, log in logs.items()], **SMALL)
    from evo_search import get_space

    space = get_space("nasbench201")
    assert len(result.rows) == 16
    assert [len(log) for log in logs.values()] == [8, 8, 8, 8]
    for (what, graphs, y), (_, cells, y2), (_, small, _), (_, native, y3) in zip(*logs.values(), strict=True):
        assert [g.name for g in graphs] == [c.name for c in cells]
        assert cells == [space.cell(space.decode(g.name)) for g in graphs]
        assert small == [pruned(c) for c in cells]
        assert not {"none", "skip_connect"} & {op for c in small for op in c.ops}
        np.testing.assert_array_equal(native, [space.native(space.decode(g.name)) for g in graphs])
        assert (y is None) == (what == "predict")
        if y is not None:
            np.testing.assert_array_equal(y, y2)
            np.testing.assert_array_equal(y, y3)
    for fit, test in zip(logs["graph"][::2], logs["graph"][1::2], strict=True):
        assert len(test[1]) == 50
        assert not {g.digest for g in fit[1]} & {g.digest for g in test[1]}
    assert [len(x[1]) for x in logs["graph"][::2]] == [10, 10, 20, 20]
    assert logs["graph"][0][1][0].name != logs["graph"][2][1][0].name  # another seed, another draw


def test_figures_are_those_of_the_test_set() -> None:
    from evo_search import tables
    from finetune.baselines import CostScore

    log: list[Any] = []
    result = compare("nasbench201", [spy("spy", "graph", log), "params"], **SMALL)
    table = tables.load("nasbench201")
    tests = [graphs for what, graphs, _ in log if what == "predict"]
    rows = [r for r in result.rows if r["predictor"] == "params"]
    for graphs, row in zip(tests, rows, strict=True):
        y = np.array([table.lookup(g.name) for g in graphs])
        assert row["spearman"] == metrics.spearman(y, CostScore().predict(graphs))
        assert row["kendall"] == metrics.kendall(y, CostScore().predict(graphs))
        assert row["n_test"] == 50
    line = next(s for s in result.summary() if s["predictor"] == "params" and s["n_labels"] == 20)
    values = [r["spearman"] for r in rows if r["n_labels"] == 20]
    assert line["spearman"] == pytest.approx(np.mean(values))
    assert line["spearman_std"] == pytest.approx(np.std(values, ddof=1))
    assert (line["draws"], line["failed"]) == (2, 0)


class Killed(BaseException):
    """What no ``except Exception`` catches."""


@pytest.mark.parametrize("cut", [False, True])
def test_goes_on_where_it_was_killed(tmp_path: Path, cut: bool) -> None:
    whole = compare("nasbench201", ["random", "params", "macs"], **SMALL)

    def kill(what: str, done: int, total: int) -> None:
        if done == 7:
            raise Killed

    with pytest.raises(Killed):
        compare("nasbench201", ["random", "params", "macs"], **SMALL, out=tmp_path, progress=kill)
    file = tmp_path / "rows.jsonl"
    assert len(file.read_text().splitlines()) == 7
    if cut:  # killed while it wrote the seventh
        file.write_text(file.read_text()[:-20])
    told: list[int] = []
    found = compare("nasbench201", ["random", "params", "macs"], **SMALL, out=tmp_path,
                    progress=lambda what, done, total: told.append(done))
    assert told == [*range(6 if cut else 7, 12), 12]
    assert [json.loads(line)["predictor"] for line in file.read_text().splitlines()] == ["random", "params", "macs"] * 4
    figures = [[(r["predictor"], r["n_labels"], r["seed"], r["spearman"]) for r in c.rows] for c in (whole, found)]
    assert figures[0] == figures[1]


def test_a_second_run_computes_only_what_is_new(tmp_path: Path) -> None:
    log: list[Any] = []
    compare("nasbench201", [spy("a", "graph", log)], **SMALL, out=tmp_path)
    assert len(log) == 8
    more = compare("nasbench201", [spy("a", "graph", log), spy("b", "cell", log)], **{**SMALL, "seeds": 3}, out=tmp_path)
    assert len(log) == 8 + 2 * (2 + 6)
    assert len(more.rows) == 12
    other = compare("nasbench201", [spy("a", "graph", log)], **{**SMALL, "n_test": 40}, out=tmp_path)  # nothing is mixed up
    assert {r["n_test"] for r in other.rows} == {40}


def test_a_failing_predictor_is_reported_and_the_rest_goes_on(tmp_path: Path) -> None:
    log: list[Any] = []
    crew = [spy("broken", "graph", log, Broken), spy("silent", "cell", log, Silent), "params"]
    result = compare("nasbench201", crew, **SMALL, out=tmp_path)
    line = {(s["predictor"], s["n_labels"]): s for s in result.summary()}
    assert line["broken", 10]["error"] == "ZeroDivisionError: no score"
    assert (line["broken", 10]["draws"], line["broken", 10]["failed"], line["broken", 10]["spearman"]) == (0, 2, None)
    assert line["silent", 20]["error"].startswith("LabelError: score 0 is not finite")
    assert line["params", 20]["draws"] == 2
    comparison_report.write(result, tmp_path)
    rows = list(csv.DictReader((tmp_path / "compare.csv").read_text().splitlines()))
    assert [r["spearman"] == "" for r in rows] == [True] * 4 + [False] * 2
    assert comparison_report.lines(result.summary())[2][-1] in ("ZeroDivisionError: no score", line["silent", 10]["error"])
    log.clear()
    mended = [spy("broken", "graph", log), spy("silent", "cell", log), "params"]
    assert all("error" not in r for r in compare("nasbench201", mended, **SMALL, out=tmp_path).rows)  # failures are tried again


def test_an_interrupt_in_a_predictor_ends_the_run(tmp_path: Path) -> None:
    class Interrupted(Spy):
        def fit(self, networks: Any, y: np.ndarray) -> Spy:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare("nasbench201", ["params", spy("stop", "cell", [], Interrupted)], **SMALL, out=tmp_path)
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 1


def test_the_files_hold_the_table_and_the_figure(tmp_path: Path) -> None:
    result = compare("nasbench201", ["params", "native-ridge"], **SMALL)
    comparison_report.write(result, tmp_path)
    data = json.loads((tmp_path / "compare.json").read_text())
    assert data["config"]["predictors"] == ["params", "native-ridge"]
    assert len(data["rows"]) == 8
    assert [(s["predictor"], s["n_labels"]) for s in data["summary"]] == [
        ("params", 10), ("params", 20), ("native-ridge", 10), ("native-ridge", 20)]
    chart = comparison_report.figure(data["summary"], "kendall")
    assert [t["name"] for t in chart["data"]] == ["params", "native-ridge"]
    assert chart["data"][1]["y"] == [s["kendall"] for s in data["summary"][2:]]
    assert chart["data"][1]["error_y"]["array"] == [s["kendall_std"] for s in data["summary"][2:]]
    text = (tmp_path / "compare.html").read_text()
    assert "<td>native-ridge</td>" in text
    assert "src=" not in text[:text.index("<script>")]  # nothing is fetched
    assert f"{data['summary'][0]['spearman']:.3f} ± " in text


def test_groups_and_names() -> None:
    known = rivals.groups()
    assert {"random", "params", "macs", "trees", "native-ridge", "native-gp", "random-forest"} == set(known["cheap"])
    assert set(known["all"]) == set(known["cheap"]) | set(known["learned"])
    assert "proxies" in known["dear"]
    assert [r.name for r in rivals.choose("gates, cheap ,params")][:3] == ["gates", "random", "params"]
    assert len(rivals.choose("cheap,params")) == len(known["cheap"])
    with pytest.raises(CGError, match="no predictor 'gate'"):
        rivals.choose("params,gate")
    with pytest.raises(CGError, match="at least one"):
        rivals.choose(" , ")
    for r in rivals.RIVALS.values():
        if r.name != "default":
            model = r.make(3, "nasbench201")
            assert hasattr(model, "fit")
            assert getattr(model, "random_state", 3) == 3
    assert rivals.RIVALS["default"].make(3, "nasbench201").sources == ["nasbench101", "nasbench301"]  # not its own


@pytest.mark.parametrize(("change", "match"), [
    ({"labels": ()}, "at least one label count"), ({"labels": (1,)}, "from 2 to"), ({"labels": (5000,)}, "from 2 to"),
    ({"metric": "loss"}, "no metric 'loss'"), ({"seeds": 0}, "one seed")])
def test_bad_settings_are_one_clear_error(change: dict[str, Any], match: str) -> None:
    with pytest.raises(CGError, match=match):
        compare("nasbench201", "params", **{**SMALL, **change})


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n{"b": 2}\n')
    with pytest.raises(StorageError, match="line 1 is not a row"):
        compare("nasbench201", "params", **SMALL, out=tmp_path)
    with pytest.raises(CGError, match="two predictors are called 'params'"):
        compare("nasbench201", [spy("params", "graph", []), "params"], **SMALL)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cg.cli import build

    real = comparison.load_pool
    monkeypatch.setattr(comparison, "load_pool", lambda space, metric, size: real(space, metric, 300))
    words = ["compare", "--space", "nasbench201", "--predictors", "params,trees", "--labels", "10,20", "--seeds", "2",
             "--n-test", "50", "-o", str(tmp_path / "c")]
    run = CliRunner().invoke(build(), words, env={"COLUMNS": "200", "TERM": "dumb"})
    assert run.exit_code == 0, run.output
    assert "trees" in run.stdout
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["compare.csv", "compare.html", "compare.json", "rows.jsonl"]
    again = CliRunner().invoke(build(), [*words, "--json"])
    found = json.loads(again.stdout)
    assert len(found["summary"]) == 4
    assert {r["n_test"] for r in found["rows"]} == {50}
    bad = CliRunner().invoke(build(), ["compare", "--space", "nasbench201", "--labels", "ten", "-o", str(tmp_path / "d")])
    assert bad.exit_code == 2
    assert "--labels is a list of whole numbers" in bad.stderr
    assert not (tmp_path / "d").exists()


def test_a_pool_of_ones_own_is_drawn_from_and_its_label_is_used() -> None:
    from cg.graphset import GraphSet
    from evo_search import get_space

    space, log = get_space("nasbench201"), list[Any]()
    genomes = [g for g in space.all_genomes() if g[0] == 3][:60]  # type: ignore[attr-defined]
    pool = GraphSet([space.to_graph(a) for a in genomes], [space.encode(a) for a in genomes], {"mine": np.arange(60.0)})
    settings: dict[str, Any] = {"labels": (10,), "seeds": 2, "n_test": None}
    result = compare("nasbench201", [spy("a", "graph", log)], pool=pool, **settings)
    assert result.config["metric"] == "mine"
    assert result.config["pool"] == 60
    names = {g.name: y for g, y in zip(pool.graphs, pool.label("mine"), strict=True)}
    for _, graphs, y in log[::2]:
        np.testing.assert_array_equal(y, [names[g.name] for g in graphs])
    assert {g.name for _, graphs, _ in log[:2] for g in graphs} <= set(names)
    with pytest.raises(CGError, match="a, b; say which"):
        compare("nasbench201", [spy("a", "graph", log)], pool=GraphSet(pool.graphs, pool.ids, {
            "a": np.arange(60.0), "b": np.arange(60.0)}), **settings)
    with pytest.raises(CGError, match="'mine' is missing for some"):
        compare("nasbench201", [spy("a", "graph", log)], pool=GraphSet(pool.graphs, pool.ids, {
            "mine": np.full(60, np.nan)}), **settings)
