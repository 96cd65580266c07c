"""Figures of a search, as plain JSON values for plotly, drawn from ``SearchSummary`` and nothing else. Computes no result.

Every text that comes from a user (genomes, names) is escaped: plotly reads a little HTML in texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from evo_search._page import GREEN, GREY, INK, ORANGE, figure, label, padded
from evo_search._records import Query
from evo_search.objectives import Objective
from evo_search.search_summary import SearchSummary

WIDTH, LINES = 44, 4  # characters and lines of a genome under the pointer
HOVER = "%{text}<extra></extra>"


def curve_figure(data: SearchSummary) -> dict[str, Any]:
    """Best value so far against the number of queries; each answer a dot; the band over seeds where there are several."""
    first, traces = data.objectives[0], list[dict[str, Any]]()
    band = data.band()
    if band is not None:
        mean, worst, best = band
        rows = np.flatnonzero(np.isfinite(mean))
        edge = {"type": "scatter", "mode": "lines", "x": rows + 1, "line": {"width": 0, "shape": "hv"}, "hoverinfo": "skip"}
        traces.append({**edge, "y": worst[rows], "showlegend": False})
        traces.append({**edge, "y": best[rows], "fill": "tonexty", "fillcolor": f"{GREY}44",
                       "name": f"worst to best of {len(data.seeds) + 1} seeds"})
        traces.append({"type": "scatter", "mode": "lines", "name": "mean of the seeds", "x": rows + 1, "y": mean[rows],
                       "line": {"color": GREY, "width": 2, "dash": "dash", "shape": "hv"},
                       "hovertemplate": "mean of the seeds<br>%{x} queries: %{y:.5~g}<extra></extra>"})
    ok = [(place, q) for place, q in enumerate(data.queries, 1) if q.value is not None]
    for keeps, name, colour in ((False, "breaks a constraint", GREY), (True, "one network", INK)):
        mine = [(place, q) for place, q in ok if (q.step in data.feasible) is keeps]
        if mine:
            traces.append({"type": "scatter", "mode": "markers", "name": name, "x": [place for place, _ in mine],
                           "y": [q.values[first.name] for _, q in mine], "text": [hover(data, q) for _, q in mine],
                           "hovertemplate": HOVER,
                           "marker": {"color": colour, "size": 6, "opacity": 0.55, "symbol": "circle" if keeps else "x"}})
    rows = np.flatnonzero(np.isfinite(data.curve))
    traces.append({"type": "scatter", "mode": "lines", "x": rows + 1,
                   "name": "best so far" if band is None else f"this search (seed {data.seed})",
                   "y": data.curve[rows], "line": {"color": INK, "width": 2.5, "shape": "hv"},
                   "hovertemplate": "%{x} queries: %{y:.5~g}<extra></extra>"})
    if data.best_possible is not None:
        traces.append({"type": "scatter", "mode": "lines", "name": "best possible", "x": [1, max(2, len(data.curve))],
                       "y": [data.best_possible] * 2, "line": {"color": GREEN, "dash": "dot", "width": 1.5},
                       "hoverinfo": "skip"})
    return figure(traces, "networks asked about", label(data.label(first)),
                  x_range=[0.5, max(len(data.curve), *(len(s.values) for s in data.seeds), 5) + 0.5],
                  y_range=curve_range(data))


def curve_range(data: SearchSummary) -> list[float] | None:
    """Where the curves of all seeds move after their tenth query, and the better three quarters of the answers as far as that
    does not press the curves flat. ``None``: everything."""
    first = data.objectives[0]
    curves = [np.asarray(v, np.float64) for v in (data.curve, *(s.values for s in data.seeds))]
    sign = 1.0 if first.maximize else -1.0
    found = [sign * c[np.isfinite(c)] for c in curves]
    found = [c for c in found if len(c)]
    if not found:
        return None
    floor = min(float(c[min(9, len(c) - 1)]) for c in found)
    top = max(float(c[-1]) for c in found)
    if data.best_possible is not None:
        top = max(top, sign * data.best_possible)
    if top <= floor:
        return None
    gap = top - floor
    quarter = float(np.percentile([sign * q.values[first.name] for q in data.queries if q.value is not None], 25))
    low = max(min(floor - 0.35 * gap, quarter), floor - gap)
    return sorted([sign * low, sign * (top + 0.1 * gap)])


def predicted_figure(data: SearchSummary, objective: Objective) -> dict[str, Any]:
    """What the predictor said before a network was asked about, against what was measured; bars: one standard deviation."""
    rows = data.predicted(objective)
    measured = [q.values[objective.name] for q in rows]
    said = [q.predicted[objective.name] for q in rows]
    trace = {"type": "scatter", "mode": "markers", "showlegend": False, "x": measured, "y": [mean for mean, _ in said],
             "text": [hover(data, q) for q in rows], "hovertemplate": HOVER,
             "marker": {"size": 8, "opacity": 0.85, "color": [q.step + 1 for q in rows],
                        "colorscale": [[0, ORANGE], [0.5, "#b18f9c"], [1, INK]],
                        "colorbar": {"title": {"text": "query"}, "thickness": 10, "len": 0.8}}}
    if any(std is not None for _, std in said):
        trace["error_y"] = {"type": "data", "array": [std or 0.0 for _, std in said], "thickness": 1, "width": 0,
                            "color": f"{GREY}88"}
    name = label(data.label(objective))
    x_range, y_range = fenced(measured, []), fenced([mean for mean, _ in said], [])
    if data.predicts_score:
        return figure([trace], f"measured {name}", "score of the predictor", x_range, y_range)
    low, high = min(x_range[0], y_range[0]), max(x_range[1], y_range[1])
    line = {"type": "scatter", "mode": "lines", "showlegend": False, "x": [low, high], "y": [low, high], "hoverinfo": "skip",
            "line": {"color": GREY, "width": 1, "dash": "dot"}}
    return figure([line, trace], f"measured {name}", f"predicted {name}", x_range, y_range)


def front_figures(data: SearchSummary) -> list[dict[str, Any]]:
    """Every answer by two objectives, each pair of them (of more than three: the first with each other one)."""
    pairs = list(combinations(data.objectives, 2))
    return [front_figure(data, b, a) for a, b in (pairs if len(data.objectives) <= 3 else pairs[:len(data.objectives) - 1])]


def front_figure(data: SearchSummary, across: Objective, up: Objective) -> dict[str, Any]:
    """Every answer by two objectives; what no other one dominates is marked, what breaks a constraint is grey."""
    ok, traces = [q for q in data.queries if q.value is not None], list[dict[str, Any]]()
    front = set(data.front)

    def add(queries: Sequence[Query], name: str, **look: Any) -> None:
        if queries:
            traces.append({"type": "scatter", "mode": "markers", "name": name, "hovertemplate": HOVER,
                           "x": [q.values[across.name] for q in queries], "y": [q.values[up.name] for q in queries],
                           "text": [hover(data, q) for q in queries], **look})

    add([q for q in ok if q.step not in data.feasible], "breaks a constraint",
        marker={"color": GREY, "size": 7, "opacity": 0.6, "symbol": "x"})
    add([q for q in ok if q.step in data.feasible and q.step not in front], "dominated",
        marker={"color": INK, "size": 7, "opacity": 0.45})
    best = sorted((q for q in ok if q.step in front), key=lambda q: (q.values[across.name], q.values[up.name]))
    line: dict[str, Any] = {}
    if len(data.objectives) == 2 and len(best) > 1:
        line = {"mode": "lines+markers", "line": {"color": ORANGE, "width": 1.5, "shape": "vh" if across.maximize else "hv"}}
    add(best, "front", marker={"color": ORANGE, "size": 10}, **line)
    ranges = [fenced([q.values[o.name] for q in ok], [q.values[o.name] for q in best]) if ok else None for o in (across, up)]
    return figure(traces, axis(data, across), axis(data, up), *ranges)


def axis(data: SearchSummary, objective: Objective) -> str:
    """Name of an objective on an axis, and which way is better."""
    return f"{label(data.label(objective))} ({'larger' if objective.maximize else 'smaller'} is better)"


def fenced(values: Iterable[float], always: Iterable[float]) -> list[float]:
    """Range of an axis for ``values`` ``[n]``, n > 0, without those beyond Tukey's outer fences; ``always`` lies inside."""
    found = np.asarray(list(values), np.float64)
    q1, q3 = np.percentile(found, [25, 75])
    near = found[(found >= q1 - 3 * (q3 - q1)) & (found <= q3 + 3 * (q3 - q1))] if q3 > q1 else found
    return padded([*near.tolist(), *always])


def outside(shown: dict[str, Any]) -> int:
    """How many points of a figure lie outside of the ranges of its axes."""
    ranges = [shown["layout"][a].get("range") or (-np.inf, np.inf) for a in ("xaxis", "yaxis")]
    return sum(any(v is None or not r[0] <= v <= r[1] for v, r in zip(point, ranges, strict=True))
               for trace in shown["data"] if "markers" in trace["mode"] for point in zip(trace["x"], trace["y"], strict=True))


def hover(data: SearchSummary, query: Query) -> str:
    """What the page says of a network under the pointer: plotly's HTML."""
    return "<br>".join(label(line) for line in described(data, query))


def described(data: SearchSummary, query: Query) -> list[str]:
    """Lines of plain text about a query: genome, place in the run, values, predictions."""
    genome = [query.genome[i:i + WIDTH] for i in range(0, len(query.genome), WIDTH)] or [""]
    if len(genome) > LINES:
        genome = [*genome[:LINES - 1], genome[LINES - 1][:-1] + "…"]
    lines = [*genome, f"query {query.step + 1}, generation {query.generation}, {query.source}"]
    for name, value in query.values.items():
        said = query.predicted.get(name)
        word = "score" if data.predicts_score else "predicted"
        lines.append(f"{data.units.get(name, name)} {number(value)}" + ("" if said is None else f", {word} {number(said[0])}"
                                                                     + ("" if said[1] is None else f" ± {number(said[1])}")))
    if query.value is not None and query.step not in data.feasible:
        lines.append("breaks a constraint")
    return lines


def number(value: float | None) -> str:
    """A number for people: five significant digits, thousands separators; a dash for none."""
    if value is None or not np.isfinite(value):
        return "–"
    return f"{value:,.0f}" if 1e5 <= abs(value) < 1e15 else f"{value + 0.0:.5g}"  # + 0.0: no negative zero
