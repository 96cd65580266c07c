"""The page of a search: its numbers, its figures, its family tree, what it escapes; and what a browser makes of it."""

from __future__ import annotations

import html
import itertools
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
import toy_search_space as toy
from typer.testing import CliRunner

from cg.cli import build
from evo_search import Proposal, Strategy, Study, search_report
from evo_search._evolve_config import SearchError
from evo_search._records import Query
from evo_search.family_tree import HEIGHT, LIMIT, WIDTH, family, places
from evo_search.history import History
from evo_search.objectives import Constraint, Objective
from evo_search.search_figures import curve_figure, fenced, front_figures, number, outside, predicted_figure
from evo_search.search_page import duration, page
from evo_search.search_summary import SearchSummary, summarise
from evo_search.strategies import State
from evo_search.strategies.algorithm1 import Algorithm1
from evo_search.strategies.npenas import NPENAS, NPENASConfig
from evo_search.strategies.nsga2 import NSGA2, NSGA2Config
from evo_search.strategies.random import RandomConfig, RandomSearch

EVIL = '"><img src=x onerror=alert(1)></script><script>evil()</script><!--<b>&amp;'
SPACE = toy.ToySpace()


def oracle(a: toy.Genome) -> dict[str, float]:
    """Some failing, with a hostile error; three objectives of several scales."""
    if sum(a) % 7 == 0:
        raise RuntimeError(EVIL)
    return {"acc": toy.value(a), "size": float(sum(a)), "ms": 1e7 * (1.0 + a[3])}


def toy_study(strategy: Strategy | None = None, budget: int = 40, seed: int = 1, **arguments: Any) -> Study:
    arguments = {"objectives": {"acc": "max"}, **arguments}
    study = Study(toy.ToySpace(), strategy or Algorithm1(toy.RidgePredictor(), toy.CONFIG), seed=seed, **arguments)
    study.run(oracle, budget)
    study.close()
    return study


def body(data: SearchSummary) -> str:
    """The page without plotly.js."""
    return re.sub(r"<script>/\*.*?</script>", "", page(data), count=1, flags=re.S)


# -- the numbers ---------------------------------------------------------------------------------------------------

def test_a_study_and_its_history_say_the_same(tmp_path: Path) -> None:
    study = toy_study(constraints=[Constraint("size", at_most=7.0), Constraint("macs", at_most=1e12),
                                   Constraint(lambda g: 1.0, at_most=2.0)], history=tmp_path / "a.sqlite")
    with History.read(tmp_path / "a.sqlite") as h:
        one, two = summarise(study), summarise(h, space=SPACE)
    for data in (one, two):
        assert data.best == study.best()
        assert data.feasible == {q.step for q in study.history.queries if study.is_feasible(q)}
        assert 0 < len(data.feasible) < len(data.queries) - len(data.failed)
        assert set(data.front) == {q.step for q in study.front()}
        np.testing.assert_array_equal(data.curve, study.curve())
        assert data.plan_s > 0
        assert data.drawn[0].query == study.best()
        assert data.drawn[0].macs == SPACE.to_graph(SPACE.decode(data.drawn[0].query.genome)).macs
    assert [d.svg for d in one.drawn] == [d.svg for d in two.drawn]
    sources = {row["source"]: row for row in one.sources()}
    assert sum(row["queries"] for row in sources.values()) == 40
    assert sum(row["failed"] for row in sources.values()) == len(one.failed) > 0
    assert max(row["best"] for row in sources.values()) == one.best.value  # type: ignore[union-attr]


def test_a_history_without_a_search_is_refused() -> None:
    with pytest.raises(SearchError, match="holds no search"):
        summarise(History())


@pytest.mark.parametrize("direction", ["max", "min"])
def test_seeds_of_one_database_are_one_band(tmp_path: Path, direction: str) -> None:
    path, sign = tmp_path / "a.sqlite", 1.0 if direction == "max" else -1.0

    def run(name: str, seed: int, budget: int, batch: int = 5, worse: float = 0.0) -> Study:
        study = Study(toy.ToySpace(), RandomSearch(RandomConfig(batch)), objectives={"y": direction}, seed=seed, history=path,
                      name=name)
        study.run(lambda a: sign * (toy.value(a) - worse), budget)
        study.close()
        return study

    mine, longer, shorter = run("mine", 3, 30), run("longer", 1, 40), run("shorter", 2, 20)
    run("another batch", 4, 30, 6)
    Study(toy.ToySpace(), RandomSearch(RandomConfig(5)), objectives={"y": direction}, seed=9, history=path, name="no").close()
    data = summarise(mine)
    assert [(s.name, s.seed) for s in data.seeds] == [("longer", 1), ("shorter", 2)]
    values = np.array([s.curve()[:20] for s in (mine, longer, shorter)])
    mean, worst, best = data.band() or ()
    np.testing.assert_allclose(mean, values.mean(0))
    np.testing.assert_allclose(worst, (sign * values).min(0) * sign)
    np.testing.assert_allclose(best, (sign * values).max(0) * sign)
    names = [t.get("name") for t in curve_figure(data)["data"]]
    assert "worst to best of 3 seeds" in names
    assert "this search (seed 3)" in names
    text = body(data)
    assert "the others are longer (seed 1, 40 queries), shorter (seed 2, 20 queries)" in text
    assert "ends with the shortest of them, after 20 queries" in text


def test_one_seed_has_no_band_and_the_page_says_how_to_get_one(tmp_path: Path) -> None:
    stored, memory = toy_study(history=tmp_path / "a.sqlite"), toy_study()
    for study, words in ((stored, "further ones in the same <code>--history</code>"),
                         (memory, "with <code>--history FILE</code>")):
        data = summarise(study)
        assert data.band() is None
        assert words in body(data)
        assert "--study NAME --seed N" in body(data)


def test_a_failure_at_the_start_leaves_a_gap_in_the_band() -> None:
    data = replace(summarise(toy_study()), curve=np.array([np.nan, 1.0, 2.0]), seeds=())
    seeds = (replace_curve("b", (3.0, 3.0)),)
    mean, worst, best = replace(data, seeds=seeds).band() or ()
    np.testing.assert_array_equal([mean, worst, best], [[np.nan, 2], [np.nan, 1], [np.nan, 3]])


def replace_curve(name: str, values: tuple[float, ...]) -> Any:
    from evo_search.search_summary import SeedCurve

    return SeedCurve(name, 7, values)


def test_numbers_and_durations_for_people() -> None:
    assert [number(v) for v in (94.3733, 1e7, 0.000123456, -3.0, -0.0, None, float("nan"))] == [
        "94.373", "10,000,000", "0.00012346", "-3", "0", "–", "–"]
    assert [duration(s) for s in (0.0, 0.004, 0.25, 12.3, 240.0, 9000.0)] == [
        "0 s", "< 0.01 s", "0.25 s", "12 s", "4 min", "2.5 h"]


# -- the figures ---------------------------------------------------------------------------------------------------

THREE = {"acc": "max", "size": "min", "ms": "min"}
CASES: dict[str, Any] = {
    "guided": lambda: toy_study(),
    "minimised": lambda: toy_study(objectives={"size": "min"}),
    "single": lambda: toy_study(budget=1, seed=0),
    "random": lambda: toy_study(RandomSearch()),
    "two": lambda: toy_study(RandomSearch(), objectives={"acc": "max", "size": "min"}, constraints=[Constraint("size", 9.0)]),
    "three": lambda: toy_study(RandomSearch(), objectives=THREE),
    "four": lambda: toy_study(RandomSearch(), objectives={**THREE, "acc2": "max"}),
    "nothing feasible": lambda: toy_study(constraints=[Constraint("size", at_most=-1.0)]),
    "scores": lambda: toy_study(NPENAS(type("Orders", (toy.RidgePredictor,), {"label_units": False})(),
                                       NPENASConfig(10, 8, 5, 30))),
}


@pytest.mark.parametrize("case", sorted(CASES))
def test_figures_are_valid_and_the_page_is_whole(case: str) -> None:
    data = summarise(CASES[case]())
    text = body(data)
    figures = json.loads(re.search(r"const FIGURES=(\{.*\});\n", text).group(1))  # type: ignore[union-attr]
    for name, figure in figures.items():
        go.Figure(figure)  # raises on a property that does not exist
        assert f'id="{name}"' in text
    fronts = {"two": 1, "three": 3}.get(case, 0)
    assert sum(name.startswith("fig-front") for name in figures) == fronts
    assert "<script>evil()" not in text
    assert "<img" not in text
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)
    assert text.count("<details") == text.count("</details>")
    if case == "four":  # every answer lacks a value
        assert "nothing found" in text
    if case == "random":
        assert "It has no ancestors" in text
        assert "no predictions to compare: random uses none" in text
    if case == "nothing feasible":
        assert "No network keeps all constraints" in text


def test_predictions_against_measurements() -> None:
    data = summarise(toy_study())
    line, dots = predicted_figure(data, data.objectives[0])["data"]
    chosen = [q for q in data.queries if q.predicted and q.value is not None]
    assert dots["x"] == [q.value for q in chosen]
    assert dots["y"] == [q.predicted["acc"][0] for q in chosen]
    assert dots["error_y"]["array"] == [q.predicted["acc"][1] for q in chosen]
    assert line["x"] == line["y"]
    lost = sum(1 for q in data.failed if q.predicted)
    assert f"{lost} chosen ones failed" in body(data)
    inside = sum(abs(q.value - q.predicted["acc"][0]) <= q.predicted["acc"][1] for q in chosen)  # type: ignore[operator]
    assert f"{inside} of {len(chosen)} within one standard deviation" in body(data)
    scores = summarise(CASES["scores"]())
    shown = predicted_figure(scores, scores.objectives[0])
    assert shown["layout"]["yaxis"]["title"]["text"] == "score of the predictor"
    assert len(shown["data"]) == 1
    assert "within one standard deviation" not in body(scores)


@pytest.mark.parametrize(("directions", "shape"), [(("max", "min"), "hv"), (("max", "max"), "vh"), (("min", "min"), "hv"),
                                                   (("min", "max"), "vh")])
def test_the_step_between_two_networks_of_a_front_is_not_better_than_both(directions: Any, shape: str) -> None:
    study = toy_study(RandomSearch(), objectives=dict(zip(("acc", "size"), directions, strict=True)))
    data = summarise(study)
    front = next(t for t in front_figures(data)[0]["data"] if t["name"] == "front")
    assert set(zip(front["y"], front["x"], strict=True)) == {(q.values["acc"], q.values["size"]) for q in study.front()}
    if len(front["x"]) > 1:
        assert front["line"]["shape"] == shape
        (x0, y0), (x1, y1) = zip(front["x"][:2], front["y"][:2], strict=True)
        corner = (x1, y0) if shape == "hv" else (x0, y1)
        up, across = (1 if d == "max" else -1 for d in directions)
        for x, y in ((x0, y0), (x1, y1)):
            assert across * corner[0] <= across * x
            assert up * corner[1] <= up * y


def test_what_breaks_a_constraint_is_grey_in_curve_and_front() -> None:
    data = summarise(CASES["two"]())
    broken = [q for q in data.queries if q.value is not None and q.values["size"] > 9]
    assert broken
    for shown in (curve_figure(data), front_figures(data)[0]):
        grey = next(t for t in shown["data"] if t["name"] == "breaks a constraint")
        assert len(grey["x"]) == len(broken)
        dots = [t for t in shown["data"] if "markers" in t["mode"]]
        assert sum(len(t["x"]) for t in dots) == sum(q.value is not None for q in data.queries)


def test_frames_hold_what_matters() -> None:
    assert fenced([0.0, 1.0, 2.0, 3.0, 100.0], [])[1] < 4
    assert fenced([0.0, 1.0, 2.0, 3.0, 100.0], [100.0])[1] > 100
    assert fenced([5.0], [])[0] < 5 < fenced([5.0], [])[1]
    for direction in ("max", "min"):
        data = summarise(toy_study(objectives={"acc": direction}))
        shown = curve_figure(data)
        low, high = shown["layout"]["yaxis"]["range"]
        curve = data.curve[np.isfinite(data.curve)]
        assert (curve[9:] >= low).all()
        assert (curve[9:] <= high).all()
        values = [q.value for q in data.queries if q.value is not None]
        assert outside(shown) == sum(not low <= v <= high for v in values)


# -- the family ----------------------------------------------------------------------------------------------------

def made_up(n: int, per_generation: int, rng: np.random.Generator) -> list[Query]:
    """Queries with two random parents each from the four generations before."""
    found: list[Query] = []
    for step in range(n):
        generation = step // per_generation
        earlier = [q.step for q in found if generation - 4 <= q.generation < generation]
        parents = tuple(int(p) for p in rng.choice(earlier, 2, replace=False)) if len(earlier) > 1 else ()
        value = float(rng.random())
        found.append(Query(step, f"g{step}", str(step), value, "ok", "child", 0.0, values={"acc": value}, generation=generation,
                           parents=parents))
    return found


def test_a_family_is_all_ancestors() -> None:
    queries = made_up(30, 5, np.random.default_rng(0))
    tree = family(queries, queries[-1], Objective("acc"), limit=1000)
    expected, todo = set(), [29]
    while todo:
        step = todo.pop()
        expected.add(step)
        todo += queries[step].parents
    assert set(tree.members) == expected
    assert tree.left_out == 0
    assert family(queries, queries[0], Objective("acc")).members.keys() == {0}


@pytest.mark.parametrize("maximize", [True, False])
def test_of_many_ancestors_the_best_valued_are_followed(maximize: bool) -> None:
    queries = made_up(600, 10, np.random.default_rng(1))
    winner = queries[-1]
    whole, tree = (family(queries, winner, Objective("acc", maximize), limit) for limit in (10 ** 6, LIMIT))
    assert len(tree.members) == LIMIT
    assert tree.left_out == len(whole.members) - LIMIT > 100
    linked = {winner.step} | {p for q in tree.members.values() for p in q.parents}
    assert set(tree.members) <= linked, "each one has a child that is shown"
    best = (max if maximize else min)(winner.parents, key=lambda p: queries[p].value or 0.0)
    assert best in tree.members
    inside = np.mean([q.value for q in tree.members.values() if q is not winner])
    outside_ = np.mean([q.value for q in whole.members.values() if q.step not in tree.members])
    assert bool(inside > outside_) is maximize


@pytest.mark.parametrize("seed", range(4))
def test_nothing_overlaps_in_the_tree_and_rows_are_generations(seed: int) -> None:
    queries = made_up(120, 6, np.random.default_rng(seed))
    tree = family(queries, queries[-1], Objective("acc"))
    where = places(tree)
    for (a, (ax, ay)), (b, (bx, by)) in itertools.combinations(where.centres.items(), 2):
        assert abs(ax - bx) >= WIDTH or abs(ay - by) >= HEIGHT + 8, (a, b)
        assert (ay < by) == (tree.members[a].generation > tree.members[b].generation)
    for x, y in where.centres.values():
        assert WIDTH / 2 <= x <= where.width - WIDTH / 2
        assert HEIGHT / 2 <= y <= where.height - HEIGHT / 2
    assert set(where.edges) == {(s, p) for s, q in tree.members.items() for p in q.parents if p in tree.members}
    for (child, parent), points in where.edges.items():
        assert points[0] == where.centres[child]
        assert points[-1] == where.centres[parent]
        for x, y in points[1:-1]:
            assert all(abs(x - cx) > WIDTH / 2 or abs(y - cy) > HEIGHT / 2 for cx, cy in where.centres.values()), "under a box"


def test_the_tree_of_a_real_search_is_drawn() -> None:
    data = summarise(toy_study(budget=60))
    text = body(data)
    tree = family(data.queries, data.best, data.objectives[0])  # type: ignore[arg-type]
    assert len(tree.members) > 3
    assert text.count('<rect class="r"') == len(tree.members)
    assert f"#{data.best.step + 1} evolved" in text  # type: ignore[union-attr]


# -- hostile text --------------------------------------------------------------------------------------------------

class Evil(toy.ToySpace):
    """Genomes that are markup; they stand in texts, in attributes and in the script."""

    name = family = f"toy {EVIL}"

    def encode(self, a: toy.Genome) -> str:
        return f"{super().encode(a)}{EVIL}"

    def decode(self, text: str) -> toy.Genome:
        return super().decode(text.removesuffix(EVIL))


class EvilStrategy(Strategy):
    """Children of everything, with predictions."""

    name = f"evil {EVIL}"

    def propose(self, state: State, rng: np.random.Generator) -> list[Proposal]:
        parents = [state.genome(q) for q in state.ranked[:3]]
        new = state.maker.children(parents, 4, set(state.taken), rng, crossover_rate=0.5, max_edits=2)
        new = new or state.maker.random(4, set(state.taken), rng)
        return [Proposal(g, EVIL, predicted={EVIL: (toy.value(g) + 0.1, 0.5)}) for g in new.values()]


def evil_study() -> Study:
    study = Study(Evil(), EvilStrategy(), objectives={EVIL: "max", "size": "min"}, name=EVIL,
                  constraints=[Constraint("size", at_most=9.0)])

    def named(a: toy.Genome) -> dict[str, float]:
        values = oracle(a)
        return {EVIL: values["acc"], "size": values["size"]}

    study.run(named, 40)
    return study


def test_everything_is_escaped() -> None:
    text = body(summarise(evil_study()))
    assert EVIL not in text
    for bad in ("<img", "<script>evil", "<!--", "onerror=alert(1)>"):
        assert bad not in text, bad
    assert html.escape(EVIL) in text
    figures = re.search(r"const FIGURES=(\{.*\});\n", text).group(1)  # type: ignore[union-attr]
    assert "<" not in figures
    shown = json.loads(figures)["fig-front-0"]
    assert all("<img" not in t for trace in shown["data"] for t in trace["text"])


# -- the command ---------------------------------------------------------------------------------------------------

def search(*args: Any) -> Any:
    done = CliRunner().invoke(build(), ["search", *map(str, args)], env={"COLUMNS": "200", "TERM": "dumb"})
    assert done.exit_code == 0, f"{done.stderr}\n{done.stdout}"
    return done


def test_a_finished_search_is_reported_without_asking_anything(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    (tmp_path / "train.py").write_text(f"import sys; open({str(calls)!r}, 'a').write('x'); print(len(sys.argv[1]))")
    args = ["nasbench201", "--budget", 5, "--random", "--oracle-cmd", f"{sys.executable} {tmp_path / 'train.py'} {{arch}}",
            "--history", tmp_path / "a.sqlite"]
    search(*args)
    assert calls.read_text() == "xxxxx"
    record = (tmp_path / "a.sqlite").read_bytes()
    done = search(*args, "--report", tmp_path / "new" / "page.html", "--json")
    assert calls.read_text() == "xxxxx"
    assert (tmp_path / "a.sqlite").read_bytes() == record
    assert "page.html" in done.stderr
    assert json.loads(done.stdout)["queries"] == 5
    text = (tmp_path / "new" / "page.html").read_text()
    assert "after 5 queries" in text
    with History.read(tmp_path / "a.sqlite") as h:
        assert search_report(h, tmp_path / "again.html").read_text() == text


def test_the_page_of_a_table_knows_the_best_and_the_metric(tmp_path: Path) -> None:
    search("nasbench201", "--budget", 12, "--random", "--report", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert '"best possible"' in text
    assert "best test_acc" in text


def test_a_search_in_which_all_fails_has_a_page(tmp_path: Path) -> None:
    search("nasbench201", "--budget", 2, "--oracle-cmd", f"{sys.executable} -c 1/0", "--report", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "No evaluation succeeded" in text
    assert "exit status 1" in text


# -- a browser -----------------------------------------------------------------------------------------------------

PROBE = """<script>
window.bad=[];addEventListener("error",e=>bad.push(String(e.message)));
addEventListener("load",()=>setTimeout(()=>{
 const plots=[...document.querySelectorAll(".main-svg")],node=document.querySelector("figure .n[data-tip]");
 if(node)node.dispatchEvent(new MouseEvent("click",{bubbles:true}));
 const wide=[...document.querySelectorAll("body *")].filter(e=>!e.closest("svg,.wide,.picture,.tall,.js-plotly-plot")
  &&e.getBoundingClientRect().right>innerWidth+1).map(e=>e.tagName+"."+e.className);
 parent.postMessage(JSON.stringify({bad,plots:plots.length,wide,over:document.documentElement.scrollWidth-document.documentElement.clientWidth,
  width:innerWidth,points:document.querySelectorAll(".point").length,images:document.images.length,evil:typeof window.evil,
  tip:node?node.closest("figure").querySelector(".tip").textContent==node.dataset.tip:null,page:getComputedStyle(document.body).backgroundColor,
  axis:(document.querySelector(".ytitle")||{}).textContent}),"*")},400));
</script>"""


def look(text: str, folder: Path, width: int, dark: bool) -> dict[str, Any]:
    """What a browser shows of a page in a frame of that width."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here")
    (folder / "page.html").write_text(text.replace("<head>", f"<head>{PROBE}"), encoding="utf-8")
    (folder / "frame.html").write_text(
        f'<body style="margin:0"><iframe src="page.html" style="border:0;width:{width}px;height:900px"></iframe><script>'
        'addEventListener("message",e=>document.body.dataset.out=e.data)</script></body>')
    done = subprocess.run(
        [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         f"--user-data-dir={folder / 'profile'}", f"--window-size={max(width, 600)},900", "--virtual-time-budget=8000",
         f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--dump-dom", (folder / "frame.html").as_uri()],
        capture_output=True, text=True, timeout=120)
    found = re.search(r'data-out="([^"]*)"', done.stdout)
    assert found is not None, f"the page said nothing\n{done.stderr[-2000:]}"
    return dict(json.loads(html.unescape(found[1])))


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (390, True)])
def test_a_browser_shows_all_of_it(tmp_path: Path, width: int, dark: bool) -> None:
    pytest.importorskip("pymoo")
    data = summarise(toy_study(NSGA2(NSGA2Config(8)), objectives={"acc": "max", "size": "min"}, budget=60))
    seen = look(page(data), tmp_path, width, dark)
    assert seen["bad"] == []
    assert seen["width"] == width
    assert (seen["over"], seen["wide"]) == (0, []), "nothing sticks out of the page"
    assert seen["plots"] == 2 * 3, "curve and front; three layers each"
    assert seen["points"] == 2 * sum(q.value is not None for q in data.queries), "each answer in the curve and in the front"
    assert seen["page"] == ("rgb(18, 23, 28)" if dark else "rgb(255, 255, 255)")
    assert seen["tip"] is True, "touching a node shows what it is"


def test_a_browser_runs_nothing_of_what_users_wrote(tmp_path: Path) -> None:
    data = summarise(evil_study())
    seen = look(page(data), tmp_path, 800, False)
    assert (seen["bad"], seen["images"], seen["evil"]) == ([], 0, "undefined")
    assert seen["axis"].startswith(EVIL[:20]), "shown as it was written"
    assert seen["over"] == 0
