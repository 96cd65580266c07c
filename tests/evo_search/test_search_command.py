"""``cg search`` with strategies, constraints, several objectives, workers and an oracle of one's own."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cg.cli import build
from evo_search import get_space, tables
from evo_search._evolve_config import EvolveConfig, SearchError
from evo_search.history import History
from evo_search.objectives import Constraint
from evo_search.oracles import shared_folder
from evo_search.search_cli import _strategy, parse_constraint, parse_directions

SPACE = get_space("nasbench201")
TRAIN = """
import json, sys
arch = sys.argv[1]
if arch.startswith("|none"):
    sys.exit("no first edge")
print(json.dumps({"acc": arch.count("nor_conv_3x3"), "ms": 1 + arch.count("3x3"), "name": "x"}))
"""


def search(*args: Any, code: int = 0) -> Any:
    done = CliRunner().invoke(build(), ["search", *map(str, args)], env={"COLUMNS": "200", "TERM": "dumb"})
    assert done.exit_code == code, f"{done.stderr}\n{done.stdout}"
    return json.loads(done.stdout) if "--json" in args else done


def test_surrogates_of_once_for_all() -> None:
    if not (shared_folder() / "data/ofa/oracle_autobuild_ofa_mbv3_acc.npz").is_file():
        pytest.skip("the Once-for-All surrogates are not here (CGTRANSFER_SHARED)")
    ofa = ("--oracle", "surrogate", "--strategy", "random", "--budget", 30, "--json")
    found = search("ofa-mbv3", *ofa)
    assert found["failed"] == 0
    assert 70 < found["best_value"] < 80
    found = search("ofa-mbv3-w12", *ofa, "--objective", "top1", "--objective", "latency_npu:min", "--constraint",
                   "latency_npu<=8")
    assert 1 < len(found["front"]) < 30
    assert all(row["latency_npu"] <= 8 for row in found["front"])
    assert [row["top1"] for row in found["front"]] == sorted((row["top1"] for row in found["front"]), reverse=True)


@pytest.mark.parametrize(("args", "match"), [
    (["nasbench101", "--oracle", "surrogate"], "no surrogate of nasbench101"),
    (["ofa-mbv3", "--supernet", "w.pth"], "--supernet and --images go together"),
    (["nasbench201", "--supernet", "w.pth", "--images", "x"], "no supernet of space 'nasbench201'")])
def test_oracles_that_a_space_does_not_have(args: list[str], match: str) -> None:
    assert match in " ".join(search(*args, code=2).stderr.split())


@pytest.mark.parametrize("strategy", ["random", "local", "aging", "algorithm1"])
def test_strategies_and_bounds_of_the_graph(strategy: str, tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    found = search("nasbench201", "--budget", 60, "--strategy", strategy, "--constraint", "macs<=4e7", "--constraint",
                   "params>=1e5", "--workers", 2, "--history", path, "--study", strategy, "--json")
    assert (found["strategy"], found["queries"], found["failed"]) == (strategy, 60, 0)
    with History.read(path, strategy) as h:
        graphs = [SPACE.to_graph(SPACE.decode(q.genome)) for q in h.queries]
        assert all(g.macs <= 4e7 and g.params >= 1e5 for g in graphs)
        assert found["best_value"] == max(tables.load("nasbench201").lookup(q.genome) for q in h.queries)
    more = search("nasbench201", "--budget", 65, "--strategy", strategy, "--constraint", "macs<=4e7", "--constraint",
                  "params>=1e5", "--history", path, "--study", strategy, "--json")
    assert more["curve"][:60] == found["curve"]


def test_a_predictor_guides_where_nobody_says_how_to_search() -> None:
    found = search("nasbench201", "--budget", 40, "--json")
    assert found["strategy"] == "cg"
    assert found["best_value"] > search("nasbench201", "--budget", 40, "--random", "--json")["best_value"]
    for config in ("default", "paper"):
        made = _strategy("algorithm1", SPACE, config, None, ()).describe()
        assert made["predictor"]["kind"] == "CGPredictor"
    published = search("nasbench201", "--budget", 42, "--config", "paper", "--json")
    assert published["strategy"] == "algorithm1"


def test_settings_of_a_strategy() -> None:
    made = _strategy("cg", SPACE, "default", None, ["pool_size=80", "kappa=0.5", "view=graph+native"]).describe()
    assert (made["config"]["pool_size"], made["config"]["kappa"], made["view"]) == (80, 0.5, "graph+native")
    made = _strategy("algorithm1", SPACE, "paper", None, ["refit=true"]).describe()
    assert made["config"] == {**asdict(EvolveConfig.paper("nasbench201")), "refit": True}
    found = search("nasbench201", "--budget", 30, "--strategy", "aging", "--set", "population_size=10", "--set",
                   "sample_size=2", "--json")
    assert found["queries"] == 30
    for name, setting, message in (("aging", "batch_size", "got 'batch_size'; settings of aging: population_size, sample_size"),
                                   ("random", "view=graph", "got 'view=graph'; settings of random: batch_size"),
                                   ("cg", "rounds=none", "CGConfig.rounds must be an integer of at least 1, got 'none'")):
        done = search("nasbench201", "--budget", 2, "--strategy", name, "--set", setting, code=2)
        assert message in " ".join(done.stderr.split())


def test_a_command_with_two_objectives(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(TRAIN)
    command = f"{sys.executable} {tmp_path / 'train.py'} {{arch}}"
    found = search("nasbench201", "--budget", 12, "--random", "--oracle-cmd", command, "--objective", "acc", "--objective",
                   "ms:min", "--constraint", "ms<=4", "--workers", 3, "--history", tmp_path / "a.sqlite", "--json")
    with History.read(tmp_path / "a.sqlite") as h:
        failed = [q for q in h.queries if q.status == "failed"]
        assert len(failed) == found["failed"] > 0
        assert all(q.genome.startswith("|none") and "no first edge" in q.log for q in failed)
        ok = [(q.values["acc"], q.values["ms"]) for q in h.queries if q.value is not None and q.values["ms"] <= 4]
    front = {(f["acc"], f["ms"]) for f in found["front"]}
    assert front == {p for p in ok if not any(o[0] >= p[0] and o[1] <= p[1] and o != p for o in ok)}
    assert found["best_value"] == max(a for a, _ in ok)
    guided = search("nasbench201", "--budget", 25, "--oracle-cmd", command, "--objective", "acc", "--objective", "ms:min",
                    "--json")
    assert guided["strategy"] == "cg"
    assert guided["front"]
    page = search("nasbench201", "--budget", 12, "--random", "--oracle-cmd", command, "--objective", "acc", "--objective",
                  "ms:min", "--constraint", "ms<=4", "--history", tmp_path / "a.sqlite")
    assert "front of nasbench201" in page.stdout


def test_a_search_in_which_all_fails_says_why(tmp_path: Path) -> None:
    done = search("nasbench201", "--budget", 2, "--oracle-cmd", f"{sys.executable} -c 1/0")
    assert "all 2 evaluations failed, the last with: EvaluationFailed" in done.stderr


@pytest.mark.parametrize(("args", "text"), [
    (["--strategy", "clever"], "no strategy 'clever'"), (["--constraint", "macs<4"], "'name<=number' or 'name>=number'"),
    (["--objective", "acc:most"], "'max' or 'min', got 'most'"), (["--epochs", 3], "need --oracle-cmd or --train"),
    (["--random", "--config", "paper"], "of the strategy algorithm1, not of random")])
def test_errors(args: list[Any], text: str) -> None:
    done = search("nasbench201", *args, code=2)
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_texts() -> None:
    assert parse_directions(["acc", "ms:min"]) == {"acc": "max", "ms": "min"}
    assert parse_constraint(" macs <= 3e8 ") == Constraint("macs", at_most=3e8)
    assert parse_constraint("top1>=70.5") == Constraint("top1", at_least=70.5)
    for bad in ("macs", "macs<=", "<=3", "macs<=many", "macs<=nan"):
        with pytest.raises(SearchError, match="--constraint is"):
            parse_constraint(bad)
