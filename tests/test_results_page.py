"""The results page: its tables and drawings are what the committed results give, and say of them what they should."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import _figure  # noqa: E402  (scripts, not a package)
import _latency_tables  # noqa: E402
import _published_tables  # noqa: E402
import _rivals_tables  # noqa: E402
import readme_tables  # noqa: E402

HEADER = "predictor,n_labels,seed,n_test,spearman,kendall,fit_s,predict_s,error\n"
ROWS = """\
a,20,0,1000,0.9,0.7,60,0.5,
a,20,1,1000,0.7,0.6,3,0.7,
a,20,2,1000,0.8,0.6,2,0.7,
default,20,0,1000,0.74,0.5,20,0.001,
default,20,1,1000,0.74,0.5,30,0.001,
b,20,0,1000,0.71,0.4,1,1,
b,20,1,1000,0.71,0.4,1,1,
random,20,0,1000,0.01,0,0,0,
a,80,0,990,,,,,boom
default,80,0,990,0.9,0.8,0.5,0.004,
b,80,0,990,0.899,0.8,0.5,0.004,
"""


@pytest.fixture
def results(tmp_path: Path) -> Path:
    (tmp_path / "rivals-nasbench201.csv").write_text(HEADER + ROWS, encoding="utf-8")
    return tmp_path


def test_table_marks_the_best_and_what_is_near(results: Path) -> None:
    header, lines = _rivals_tables.criterion(results, "nasbench201", "spearman")
    assert header == ("predictor", "20 labels", "80 labels", "draws", "fit, CPU s, 20 / 80 labels",
                      "predict, CPU s, 990–1,000 networks")
    # by hand: a is best at 20 with .8 and deviation sqrt(.02 / 2) = .1, so .7 is the limit; one draw has no deviation
    assert lines == [
        ("**`default`** (this package)", "0.740 ± 0.000 ≈", "**0.900**", "1–2", "25 / 0.5", "< 0.01"),
        ("`b`", "0.710 ± 0.000 ≈", "0.899", "1–2", "1 / 0.5", "< 0.01"),
        ("`a`", "**0.800 ± 0.100**", "fails", "0–3", "3 / –", "–"),
        ("`random`", "0.010", "–", "1", "< 0.01 / –", "–")]
    assert _rivals_tables.criterion(results, "nasbench101", "spearman") == (("predictor", "draws"), [])


def test_a_predictor_too_far_below_has_no_mark(results: Path) -> None:
    path = results / "rivals-nasbench201.csv"
    path.write_text(path.read_text().replace("0.71,0.4", "0.69,0.4"))
    lines = {line[0]: line for line in _rivals_tables.criterion(results, "nasbench201", "spearman")[1]}
    assert lines["`b`"][1] == "0.690 ± 0.000"


def test_drawing_has_every_predictor_but_chance(results: Path) -> None:
    drawn = _rivals_tables.figure(results, "nasbench201")
    assert re.findall(r">([\w-]+)</text>", drawn)[-3:] == ["a", "b", "default"]  # the strong one last, on top
    assert "random" not in drawn
    assert _rivals_tables.figure(results, "nasbench101") == ""


def test_drawing_puts_points_where_they_belong() -> None:
    drawn = _figure.svg([_figure.Line("x<y", [(10, 0.2, 0.0), (100, 0.55, 0.1), (1000, 0.9, 0.0)], strong=True)], "t", "x", "y")
    left, right, top, bottom = 62, 860 - 225, 40, 520 - 52
    # seven steps of .1 from .2 to .9; 100 lies half way between 10 and 1,000
    lo, hi = 0.2, 0.9
    points = [(left, 0.2), ((left + right) / 2, 0.55), (right, 0.9)]
    wanted = " ".join(f"{x:.1f},{top + (bottom - top) * (hi - y) / (hi - lo):.1f}" for x, y in points)
    assert f'<polyline points="{wanted}"' in drawn
    assert "x&lt;y, 100: 0.550 ± 0.100" in drawn
    assert re.findall(r'text-anchor="end">(.*?)<', drawn) == [f"{k / 10:.1f}" for k in range(2, 10)]
    assert "x<y" not in drawn


@pytest.mark.parametrize(("values", "ticks"), [
    ((90.2, 94.37), "90 91 92 93 94 95"), ((93.93, 94.05), "93.92 93.94 93.96 93.98 94.00 94.02 94.04 94.06"),
    ((0.5, 0.5), "0.5000 0.5001"), ((-0.1, 0.71), "-0.2 0.0 0.2 0.4 0.6 0.8")])
def test_ticks(values: tuple[float, float], ticks: str) -> None:
    drawn = _figure.svg([_figure.Line("a", [(1, values[0], 0.0), (2, values[1], 0.0)])], "t", "x", "y")
    assert re.findall(r'text-anchor="end">(.*?)<', drawn) == ticks.split()


def test_labels_do_not_touch() -> None:
    rng = np.random.default_rng(0)
    for n in (1, 5, 20):
        wanted = [float(y) for y in rng.choice([50.0, 60.0, 300.0], n) + rng.random(n)]
        places = _figure.spread(wanted, 40, 460)
        order = np.argsort(wanted)
        assert (np.diff(np.array(places)[order]) >= _figure.LABEL_HEIGHT - 1e-9).all()
        assert min(places) >= 40
        assert max(places) <= 460
    assert _figure.spread([100.0, 200.0, 202.0], 0, 500) == [100.0, 193.0, 209.0]  # the two move by as much each
    assert _figure.spread([10.0, 499.0], 20, 490) == [20.0, 490.0]


@pytest.mark.parametrize("name", readme_tables.FIGURES)
def test_drawings_are_current(name: str) -> None:
    path = ROOT / readme_tables.FIGURES_IN / f"{name}.svg"
    made = readme_tables.FIGURES[name](ROOT / "benchmarks" / "results")
    assert made == (path.read_text(encoding="utf-8") if path.exists() else ""), "run make docs"


def test_every_table_is_on_a_page() -> None:
    pages = "".join((ROOT / page).read_text(encoding="utf-8") for page in readme_tables.PAGES)
    assert set(readme_tables.TABLES) - set(re.findall(r"<!-- results:(\w+) -->", pages)) == set()


def test_check_sees_new_results(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    for page in readme_tables.PAGES:
        (root / page).parent.mkdir(parents=True, exist_ok=True)
        (root / page).write_text("<!-- results:figure_rivals_nasbench201 -->\n<!-- /results:figure_rivals_nasbench201 -->\n")
    monkeypatch.setattr(readme_tables, "ROOT", root)

    def run(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["readme_tables.py", "--results", str(results), *words])
        return readme_tables.main()

    drawing = root / "docs" / "figures" / "rivals_nasbench201.svg"
    assert run("--check") == 1
    assert not drawing.exists()
    assert run() == 0
    assert drawing.read_text(encoding="utf-8").startswith("<svg ")
    assert "(figures/rivals_nasbench201.svg)" in (root / "docs" / "results.md").read_text(encoding="utf-8")
    assert run("--check") == 0
    (results / "rivals-nasbench201.csv").write_text(HEADER + ROWS.replace("0.899", "0.8"))
    assert run("--check") == 1


def test_latency_table(tmp_path: Path) -> None:
    def row(seed: int, share: float, method: str, labels: int = 100, width: int = 200) -> dict[str, object]:
        return {"labels": labels, "method": method, "epochs": 0, "width": width, "seed": seed, "device": "x", "spearman": 0.5,
                "within_1": share / 10, "within_5": share / 2, "within_10": share, "fit_s": 2.0 + seed}

    gcn, line = "BRPLatencyGCN-all", "FlopsLatency"
    rows = [row(0, 0.2, line), row(1, 0.4, line, width=600), row(0, 0.8, gcn), row(0, 1.0, gcn, width=600),
            row(0, 0.6, line, 900)]
    (tmp_path / "latency.json").write_text(json.dumps({"rows": rows}))
    # by hand: only the network has a width; shares .1 and .2 within 5 % have a deviation of .0707
    assert _latency_tables.devices(tmp_path) == (
        ("labels", "device", "`BRPLatencyGCN`, all six, width 200", "`BRPLatencyGCN`, all six, width 600", "`FlopsLatency`"),
        [(900, "`x`", "–", "–", "6.0 / 30.0 / 60.0"),
         (100, "`x`", "8.0 / 40.0 / 80.0", "10.0 / 50.0 / 100.0", "3.0 / 15.0 ± 7.1 / 30.0")])
    assert _latency_tables.devices(tmp_path / "absent") == (("labels", "device"), [])


# -- published figures -------------------------------------------------------------------------------------------


def published(path: Path, **changed: object) -> Path:
    figure = {"method": "m", "source": "S", "space": "nasbench201", "criterion": "spearman", "labels": 40, "value": 0.82,
              "std": 0.01, "ours": ["default", "absent"]} | changed
    path.write_text(json.dumps({"sources": {"S": {"paper": "p", "read": "r", "setting": "s"}},
                                "figures": [{k: v for k, v in figure.items() if v is not None}]}))
    return path


def test_gap_between_two_counts(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_published_tables, "PUBLISHED", published(results / "p.json"))
    _, lines = _published_tables.beside(results, "nasbench201")
    assert lines == [
        ("m [S]", 40, "ρ 0.820 ± 0.010", "`default`: 0.740 ± 0.000 (20 labels); 0.900 (80 labels)", "−0.080 to +0.080"),
        ("m [S]", 40, "ρ 0.820 ± 0.010", "`absent`: not measured yet", "–")]
    monkeypatch.setattr(_published_tables, "PUBLISHED", published(results / "p.json", labels=20, ours=["default"], std=None))
    assert _published_tables.beside(results, "nasbench201")[1] == [
        ("m [S]", 20, "ρ 0.820", "`default`: 0.740 ± 0.000", "**−0.080**")]
    monkeypatch.setattr(_published_tables, "PUBLISHED", published(results / "p.json", value=0.95, ours=["default"]))
    assert _published_tables.beside(results, "nasbench201")[1][0][-1] == "**−0.210 to −0.050**"
    assert _published_tables.beside(results, "nasbench101")[1] == []


def test_neighbours() -> None:
    assert _published_tables.neighbours([100, 20, 50], 50) == [50]
    assert _published_tables.neighbours([100, 20, 50], 60) == [50, 100]
    assert _published_tables.neighbours([100, 20, 50], 8) == [20]
    assert _published_tables.neighbours([100, 20, 50], 900) == [100]
    assert _published_tables.neighbours([], 900) == []


@pytest.mark.parametrize(("field", "value"), [("space", "nasbench9"), ("criterion", "mse"), ("source", "T"), ("value", None)])
def test_bad_published_figure(field: str, value: object, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"figure 0 \(m\).*{field}"):
        _published_tables.load(published(tmp_path / "p.json", **{field: value}))


def test_published_figures_name_what_exists() -> None:
    from evo_search.rivals import RIVALS
    from finetune.proxies import PROXIES

    found = _published_tables.load(_published_tables.PUBLISHED)
    measured = {r["method"] for r in readme_tables.rows(ROOT / "benchmarks" / "results", "few_shot")}
    others = {*found["proxies"], found["proxy_trees"]["source"], found["latency"]["source"]}
    assert {p["source"] for p in found["figures"]} | others == set(found["sources"])
    assert {name for figures in found["proxies"].values() for name in figures} == set(PROXIES)
    assert set(found["latency"]["methods"]) <= set(_latency_tables.METHODS)
    for p in found["figures"]:
        assert set(p["ours"]) <= (measured if "few_shot" in p else set(RIVALS)), p
        assert -1 <= p["value"] <= 1
    for source in found["sources"].values():
        assert set(source) == {"paper", "read", "setting"}
