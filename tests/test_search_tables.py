"""The tables and figures of searches, from small results whose figures are computed by hand."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import _search_tables as tables  # noqa: E402  (scripts, not a package)


def run(part: str, strategy: str, seed: int, rises: list[list[float]], queries: int = 800) -> dict[str, object]:
    return {"part": part, "strategy": strategy, "seed": seed, "queries": queries, "best_value": rises[-1][1],
            "best_so_far": rises, "cpu_seconds": 2.0}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    rows = [run("nasbench101", "cg", 0, [[1, 90.0], [40, 94.3]]), run("nasbench101", "cg", 1, [[1, 90.0], [60, 94.15]]),
            run("nasbench201", "cg", 0, [[1, 80.0], [30, 94.37]]), run("nasbench201", "cg", 1, [[3, 94.3]]),
            run("nasbench201", "cg", 2, [[20, 94.38]]), run("nasbench201", "random", 0, [[1, 93.0]], 300)]
    (tmp_path / "search.json").write_text(json.dumps({"rows": rows}))
    return tmp_path


def test_queries_until_a_goal(results: Path) -> None:
    (group,) = [g for name, g in tables.runs(results, "nasbench101").items() if name == "cg"]
    assert [tables.needed(r, 94.2) for r in group] == [40.0, float("inf")]
    # mean of 94.3 and 94.15 from query 60 on, of 94.3 and 90 before
    assert tables.mean_needed(group, 94.2) == 60
    assert tables.mean_needed(group, 94.23) is None
    assert [tables.best_after(group[0], n) for n in (1, 39, 40)] == [90.0, 90.0, 94.3]


def test_reach_says_what_is_reached_and_what_is_not(results: Path) -> None:
    lines = {line[0].split(":")[0]: line[1:4] for line in tables.reach(results)[1]}
    assert lines["NAS-Bench-101"] == ("60", "≤ 100", "yes")
    assert lines["NAS-Bench-201"] == ("30", "≤ 50", "yes")  # of 30, never and 20 the middle one
    assert len(lines) == 2, "nothing of what was not measured"
    (results / "search.json").write_text((results / "search.json").read_text().replace("[30, 94.37]", "[70, 94.37]"))
    assert [line[1:4] for line in tables.reach(results)[1]][1] == ("70", "≤ 50", "**no**")


def test_strategies_best_first(results: Path) -> None:
    header, lines = tables.strategies(results, "nasbench201")
    assert header[0] == "strategy"
    assert header[-2:] == ("reached 94.37, median queries", "CPU s a run")
    assert [line[0] for line in lines] == ["**`cg`**", "`random`"]
    by_name = dict(zip(header, lines[0], strict=True))
    # after 50 queries 94.37, 94.3 and 94.38: mean 94.35, deviation sqrt((.02^2 + .05^2 + .03^2) / 2) = .0436
    assert by_name["best after 50"] == "94.350 ± 0.044"
    assert by_name["reached 94.37, median queries"] == "2 of 3, 30"
    assert dict(zip(header, lines[1], strict=True))["best after 700"] == "–"
    assert tables.strategies(results, "nasbench301") == (("strategy",), [])


def test_figure_has_every_strategy_of_the_task(results: Path) -> None:
    drawn = tables.figure(results, "nasbench201")
    assert drawn.startswith("<svg ")
    assert ">cg<" in drawn
    assert ">random<" in drawn
    assert tables.figure(results, "nasbench301") == ""


def test_hypervolume_by_hand() -> None:
    # up to latency 10 and from accuracy 0: 1 x 8 (to latency 10) + 2 more from latency 5 on; what is dominated adds nothing
    assert tables.hypervolume([[2.0, 1.0], [5.0, 3.0], [6.0, 2.0], [11.0, 9.0]], (10.0, 0.0)) == 8.0 + 2 * 5
    assert tables.hypervolume([], (10.0, 0.0)) == 0.0
    assert tables.best_of([[5.0, 3.0], [2.0, 1.0], [6.0, 2.0], [2.0, 0.5]]) == [[2.0, 1.0], [5.0, 3.0]]


def test_fronts_as_a_share_of_the_references(tmp_path: Path) -> None:
    def row(part: str, strategy: str, front: list[list[float]], device: str = "latency_cpu") -> dict[str, object]:
        return {"part": part, "device": device, "strategy": strategy, "seed": 0, "queries": 300, "cpu_seconds": 1,
                "front": front}

    rows = [row("reference", "random", [[0.0, 0.0]]), row("reference", "nsga2", [[10.0, 10.0]]),
            row("front", "cg", [[5.0, 9.0]])]
    (tmp_path / "search_fronts.json").write_text(json.dumps({"rows": rows}))
    # the point is (11, -1); the front has 11 x 1 + 1 x 10 = 21, nsga2 alone 1 x 11, cg 6 x 10
    shares = {line[1].split("`")[1]: line[2] for line in tables.fronts(tmp_path)[1]}
    assert shares == {"random": "52.4", "nsga2": "52.4", "cg": "285.7"}
    assert [line[:4] for line in tables.reach(tmp_path)[1]] == [
        ("Once-for-All MobileNetV3, 300 queries, hypervolume of accuracy and latency, CPU", "285.7 %", "≥ 98 %", "yes")]


def test_band_by_latency(tmp_path: Path) -> None:
    def row(strategy: str, seed: int, front: list[list[float]]) -> dict[str, object]:
        return {"part": "band", "device": "latency_cpu", "strategy": strategy, "seed": seed, "queries": 256, "cpu_seconds": 1,
                "front": front}

    rows = [row("random", 0, [[1.0, 70.0], [9.0, 75.0]]), row("random", 1, [[2.0, 71.0], [10.0, 76.0]]),
            row("neural-predictor", 0, [[1.5, 72.0], [8.0, 77.0]]), row("neural-predictor", 1, [[3.5, 80.0]])]
    (tmp_path / "search_fronts.json").write_text(json.dumps({"rows": rows}))
    header, lines = tables.band(tmp_path)
    assert header == ("latency, ms", "`random`", "`neural-predictor`")
    assert lines[0] == ("≤ 2.0", "70.50 ± 0.71", "nothing in 1 of 2")
    assert lines[-1] == ("≤ 10.0", "75.50 ± 0.71", "78.50 ± 2.12")
    (line,) = tables.reach(tmp_path)[1]
    assert line[1:4] == ("at 7 of 9 latencies, 2 runs", "everywhere", "**no**")
