"""Tables and figures of searches, from ``results/search.json``, ``search_fronts.json`` and ``speed*.json``.

What was aimed at stands beside what was measured; a file that is not there gives no line and no figure.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _figure
import numpy as np
from _spread import spread

from evo_search import objectives

Table = tuple[tuple[str, ...], list[tuple[Any, ...]]]
Runs = dict[str, list[dict[str, Any]]]
TASKS = {"nasbench201": ("NAS-Bench-201, CIFAR-10", "test accuracy, %"), "nasbench101": ("NAS-Bench-101", "test accuracy, %"),
         "nasbench301": ("NAS-Bench-301, live surrogate", "accuracy, %"),
         "ofa-mbv3-w12": ("Once-for-All MobileNetV3, AutoBuild surrogate", "top-1, %")}
GOALS = {"nasbench201": 94.37, "nasbench101": 94.2}
MARKS = (10, 20, 50, 100, 150, 200, 300, 500, 700, 800)
OURS, PUBLISHED = "cg", "algorithm1, published"
RANDOM_20K, EVOLUTION_20K = "random, 20,000 queries", "evolution, 20,000 queries"
DEVICES = {"latency_cpu": "CPU", "latency_gpu": "GPU", "latency_npu": "NPU"}


def load(results: Path, name: str) -> list[dict[str, Any]]:
    """Rows of a file, none where it is not there."""
    path = results / f"{name}.json"
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    return found


def runs(results: Path, task: str) -> Runs:
    """Runs of one task by strategy."""
    found: Runs = {}
    for r in load(results, "search"):
        if r["part"] == task:
            found.setdefault(r["strategy"], []).append(r)
    return found


def best_after(run: dict[str, Any], n: int) -> float:
    """Best value of the first ``n`` queries; NaN where all of them failed."""
    return float(max((v for q, v in run["best_so_far"] if q <= n), default=np.nan))


def needed(run: dict[str, Any], goal: float) -> float:
    """Queries until the best is at least ``goal``; infinite where it never is."""
    return next((float(q) for q, v in run["best_so_far"] if v >= goal), np.inf)


def mean_needed(group: list[dict[str, Any]], goal: float) -> int | None:
    """Queries after which the mean over the runs of the best so far is at least ``goal``."""
    for n in range(1, min(r["queries"] for r in group) + 1):
        if np.mean([best_after(r, n) for r in group]) >= goal:
            return n
    return None


def goal_of(task: str, data: Runs) -> float | None:
    """What counts as found: the task's goal, on Once-for-All the best of all random networks of the reference."""
    if task in GOALS:
        return GOALS[task]
    random = data.get(RANDOM_20K, [])
    return max(r["best_value"] for r in random) if random else None


def strategies(results: Path, task: str) -> Table:
    """Every strategy: mean ± standard deviation of the best after some queries, best first by the last common mark."""
    data = runs(results, task)
    goal = goal_of(task, data)
    if not data:
        return ("strategy",), []
    last = min(r["queries"] for group in data.values() for r in group)
    marks = [m for m in (20, 50, 100, 150, 200, 300, 700, 800) if m <= max(r["queries"] for g in data.values() for r in g)]
    lines = []
    for name, group in data.items():
        shown = []
        for m in marks:
            values = np.array([best_after(r, m) for r in group if r["queries"] >= m])
            shown.append(spread(values) if len(values) == len(group) else "–")
        to_goal = [needed(r, goal) for r in group] if goal is not None else []
        middle = float(np.median(to_goal)) if to_goal else np.inf
        hits = f"{sum(np.isfinite(to_goal))} of {len(group)}" + (f", {middle:.0f}" if np.isfinite(middle) else "")
        title = f"**`{name}`**" if name == OURS else f"`{name}`"
        lines.append((-float(np.mean([best_after(r, last) for r in group])), (
            title, *shown, hits if to_goal else "–",
            f"{np.mean([r['cpu_seconds'] for r in group]):.1f}")))
    header = ("strategy", *(f"best after {m}" for m in marks),
              "reached, median queries" if goal is None else f"reached {goal:.2f}, median queries", "CPU s a run")
    return header, [line for _, line in sorted(lines)]


def figure(results: Path, task: str) -> str:
    """Mean of the best so far against queries, one line a strategy; empty without results."""
    lines = []
    for name, group in runs(results, task).items():
        if name in (RANDOM_20K, EVOLUTION_20K):
            continue
        end = min(r["queries"] for r in group)
        marks = sorted({*(m for m in MARKS if m <= end), end})
        at = {m: np.array([best_after(r, m) for r in group]) for m in marks}
        lines.append(_figure.Line(name, [(m, float(v.mean()), float(v.std(ddof=1)) if len(v) > 1 else 0.0)
                                         for m, v in at.items() if np.isfinite(v).all()], strong=name == OURS))
    title, unit = TASKS[task]
    return _figure.svg(lines, f"{title}: best network so far", "networks asked about", f"best {unit}, mean") if lines else ""


def hypervolume(front: list[list[float]], reference: tuple[float, float]) -> float:
    """Area that ``[latency, accuracy]`` points dominate, up to ``reference`` (latency, accuracy)."""
    latency, accuracy = reference
    return objectives.hypervolume(np.array([[t, -a] for t, a in front]).reshape(-1, 2), np.array([latency, -accuracy]))


def fronts(results: Path) -> Table:
    """Hypervolume of 300 queries as a share of that of the front of both references together.

    The reference point is a tenth of the front's extent beyond its worst latency and its worst accuracy.
    """
    header = ("device", "strategy", "hypervolume, % of the front of 20,000 random networks and NSGA-II with 20,000 queries",
              "runs", "CPU s a run")
    rows, lines = load(results, "search_fronts"), []
    for device, title in DEVICES.items():
        here = [r for r in rows if r["device"] == device]
        front = best_of([p for r in here if r["part"] == "reference" for p in r["front"]])
        if not front:
            continue
        (first, low), (last, high) = front[0], front[-1]
        point = (last + 0.1 * (last - first), low - 0.1 * (high - low))
        whole = hypervolume(front, point)
        for part in ("reference", "front"):
            for name in dict.fromkeys(r["strategy"] for r in here if r["part"] == part):
                group = [r for r in here if (r["part"], r["strategy"]) == (part, name)]
                share = np.array([100 * hypervolume(r["front"], point) / whole for r in group])
                lines.append((title, f"`{name}`, {group[0]['queries']:,} queries", spread(share, 1), len(group),
                              f"{np.mean([r['cpu_seconds'] for r in group]):.0f}"))
    return header, lines


def best_of(points: list[list[float]]) -> list[list[float]]:
    """The points that no other dominates, by latency."""
    distinct = sorted({(t, a) for t, a in points})
    keep = objectives.non_dominated(np.array([[t, -a] for t, a in distinct]).reshape(-1, 2))
    return [list(p) for p, kept in zip(distinct, keep, strict=True) if kept]


def accuracy_at(front: list[list[float]], latency: float) -> float:
    """Best accuracy within a latency; NaN where nothing is as fast."""
    return max((a for t, a in front if t <= latency), default=np.nan)


def band(results: Path) -> Table:
    """Best top-1 within a latency, mean ± standard deviation, at latencies spread over what random networks cover."""
    rows = [r for r in load(results, "search_fronts") if r["part"] == "band"]
    random = [r["front"] for r in rows if r["strategy"] == "random"]
    if not random:
        return ("latency, ms",), []
    # from where every random run has a network, to where the last one ends
    low, high = max(f[0][0] for f in random), max(f[-1][0] for f in random)
    names = list(dict.fromkeys(r["strategy"] for r in rows))
    lines = []
    for latency in np.linspace(low, high, 9):
        cells = []
        for name in names:
            found = np.array([accuracy_at(r["front"], float(latency)) for r in rows if r["strategy"] == name])
            missing = int(np.isnan(found).sum())
            cells.append(f"nothing in {missing} of {len(found)}" if missing else spread(found, 2))
        lines.append((f"≤ {latency:.1f}", *cells))
    return ("latency, ms", *(f"`{n}`" for n in names)), lines


def reach(results: Path) -> Table:
    """What was aimed at, beside what was measured and the best that was published."""
    data, lines = {task: runs(results, task) for task in TASKS}, []

    def add(what: str, measured: str, aim: str, reached: bool, known: str) -> None:
        lines.append((what, measured, aim, "yes" if reached else "**no**", known))

    if group := data["nasbench101"].get(OURS):
        n = mean_needed(group, 94.2)
        add("NAS-Bench-101: queries until the mean best is ≥ 94.20 %", "never" if n is None else str(n), "≤ 100",
            n is not None and n <= 100, "BRP-NAS 94.22 with 140, Neural Predictor 94.17 with 256, EA + CL 94.23 with 700")
    if group := data["nasbench101"].get(PUBLISHED):
        best = np.array([best_after(r, 700) for r in group])
        add("NAS-Bench-101, Algorithm 1 as published, 700 queries", f"{spread(best)} %", "≥ 94.23", best.mean() >= 94.23,
            "94.23")
    if group := data["nasbench201"].get(OURS):
        middle = float(np.median([needed(r, 94.37) for r in group]))
        add("NAS-Bench-201: queries to the best network, median", f"{middle:.0f}", "≤ 50", middle <= 50, "≤ 90")
    groups = [data["nasbench301"].get(name, []) for name in (PUBLISHED, "random", "evolution")]
    if all(groups):
        ours, random, blind = (np.array([best_after(r, 800) for r in g]) for g in groups)
        add("NAS-Bench-301, 800 queries, Algorithm 1 as published, above random / above the same without a predictor",
            f"{ours.mean() - random.mean():+.3f} / {ours.mean() - blind.mean():+.3f} points", "≥ +0.1 / > 0",
            ours.mean() - random.mean() >= 0.1 and ours.mean() > blind.mean(), "94.83 beside 94.75")
    groups = [data["nasbench301"].get(name, []) for name in (OURS, "random", "evolution")]
    if all(groups):
        n = min(r["queries"] for r in groups[0])
        ours, random, blind = (np.array([best_after(r, m) for r in g]) for g, m in zip(groups, (n, 800, 800), strict=True))
        add(f"NAS-Bench-301, `cg` with {n} queries, above random / above the same evolution without a predictor, both with 800",
            f"{ours.mean() - random.mean():+.3f} / {ours.mean() - blind.mean():+.3f} points", "≥ +0.1 / > 0",
            ours.mean() - random.mean() >= 0.1 and ours.mean() > blind.mean(), "94.83 beside 94.75, with 800")
    groups = [data["ofa-mbv3-w12"].get(name, []) for name in (OURS, RANDOM_20K, EVOLUTION_20K)]
    if all(groups):
        ours, random, blind = (np.array([r["best_value"] for r in g]) for g in groups)
        add("Once-for-All MobileNetV3, 300 queries: best; of 20,000 random; of evolution with 20,000 queries",
            f"{spread(ours, 2)}; {random.max():.2f}; {blind.max():.2f}", "≥ the second, ≥ the third - 0.1",
            ours.mean() >= random.max() and ours.mean() >= blind.max() - 0.1, "OFA-MBv3-CL 79.2 (measured, other networks)")
    for device, strategy, share, *_ in fronts(results)[1]:
        if strategy.startswith(f"`{OURS}`"):
            add(f"Once-for-All MobileNetV3, 300 queries, hypervolume of accuracy and latency, {device}", f"{share} %", "≥ 98 %",
                float(share.split()[0]) >= 98, "–")
    rows, (header, table) = load(results, "search_fronts"), band(results)
    if table and "`neural-predictor`" in header:
        place, random_at = header.index("`neural-predictor`"), header.index("`random`")
        wins = sum(not line[place].startswith("nothing") and float(line[place].split()[0]) > float(line[random_at].split()[0])
                   for line in table)
        add("ProxylessNAS, 119 + 137 networks along the predicted front: above 256 random ones",
            f"at {wins} of {len(table)} latencies, {len({r['seed'] for r in rows if r['part'] == 'band'})} runs", "everywhere",
            wins == len(table), "Neural Predictor, Figure 8")
    for path in sorted(results.glob("speed*.json")):
        if scored := json.loads(path.read_text(encoding="utf-8"))["parts"].get("score"):
            add(f"scoring {scored['networks']:,} Once-for-All networks, 2 cores, without / with the encoder",
                f"{scored['seconds']:.0f} / {scored['seconds_with_encoder']:.0f} s", "≤ 60 s", scored["seconds"] <= 60, "–")
    return ("what", "measured", "aimed at", "reached", "best published"), lines


def _of(make: Callable[[Path, str], Any], task: str) -> Callable[[Path], Any]:
    return lambda results: make(results, task)


def cgspace(results: Path) -> Table:
    """Random edits of real models, by model."""
    lines = []
    for r in load(results, "cgspace"):
        distinct = f"{r['distinct']['mean']:.1f} ± {r['distinct']['std']:.1f}"
        lines.append((r["model"], r["nodes"], distinct, *(f"{r[k]['mean']:.1f}" for k in ("absent", "refused")),
                      f"{r['samples']['round_trip']} of {r['samples']['n']}", f"{r['mutants_per_s']:.0f}"))
    return ("model", "nodes", "distinct networks of 100 edits", "absent", "refused", "back", "mutants/s"), lines


TABLES: dict[str, Callable[[Path], Table]] = {
    "cgspace": cgspace, "search": reach, "search_fronts": fronts, "search_band": band,
    **{f"search_{task.replace('-', '_')}": _of(strategies, task) for task in TASKS}}
FIGURES: dict[str, tuple[str, Callable[[Path], str]]] = {
    f"search_{task.replace('-', '_')}": (f"Best so far against queries, {title}; the table below has the numbers",
                                         _of(figure, task)) for task, (title, _) in TASKS.items()}
