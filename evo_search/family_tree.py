"""The family tree of a network of a search: which ancestors to show, where, and the picture (SVG, one row a generation).

The winner stands on top; an edge leads from a network down to what it was made from. This file must not know what a search is:
it reads steps, generations, parents and values of queries.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from evo_search._page import text
from evo_search._records import Query
from evo_search.objectives import Objective

LIMIT = 40  # networks in a picture
WIDTH, HEIGHT, GAP, ROW, LEFT = 96.0, 38.0, 12.0, 74.0, 62.0
_SHADES = ("#e3e8ee", "#d3e3f6", "#bcd6f4", "#a3c8f1", "#8ab9ee")  # dark text is readable on every one
_WINNER = "#f8c27a"
_SWEEPS = 12
_STYLE = """.fam{font-family:system-ui,sans-serif;font-size:11px;color:#5a6672}
.fam text{fill:#15181c;text-anchor:middle;pointer-events:none}.fam .g{fill:currentColor;text-anchor:start}
.fam .v{font-size:13px;font-weight:650}.fam .e{fill:none;stroke:currentColor;stroke-width:1.2;opacity:.6}
.fam .r{stroke:currentColor;stroke-width:.8}.fam .broken .r{stroke-dasharray:4 3}
.fam .n:hover .r{stroke-width:2.2}
@media (prefers-color-scheme: dark){.fam{color:#9aa7b4}}"""


@dataclass(frozen=True)
class Family:
    """A network, those of its ancestors that are shown, by step, and how many are not."""

    winner: int
    members: Mapping[int, Query]
    left_out: int


def family(queries: Sequence[Query], winner: Query, objective: Objective, limit: int = LIMIT) -> Family:
    """The ancestors of ``winner`` among ``queries``; of more than ``limit`` networks those that are reached through the parents
    with the best value of ``objective``, best first, so that each one shown has a child that is shown."""
    by_step = {q.step: q for q in queries}
    found: set[int] = {winner.step}
    todo = [winner.step]
    while todo:
        new = [p for p in by_step[todo.pop()].parents if p in by_step and p not in found]
        found.update(new)
        todo += new
    if len(found) <= limit:
        return Family(winner.step, {s: by_step[s] for s in sorted(found)}, 0)

    def worth(step: int) -> tuple[float, int]:
        value = by_step[step].values.get(objective.name, np.nan)
        return (objective.key(value) if np.isfinite(value) else np.inf), step

    kept: set[int] = set()
    heap = [(-np.inf, winner.step)]
    seen = {winner.step}
    while heap and len(kept) < limit:
        step = heapq.heappop(heap)[1]
        kept.add(step)
        for parent in by_step[step].parents:
            if parent in by_step and parent not in seen:
                seen.add(parent)
                heapq.heappush(heap, worth(parent))
    return Family(winner.step, {s: by_step[s] for s in sorted(kept)}, len(found) - len(kept))


@dataclass(frozen=True)
class Places:
    """Where everything stands: the centre of each network, the points of each edge ``(child, parent)``, rows, the size."""

    centres: Mapping[int, tuple[float, float]]
    edges: Mapping[tuple[int, int], tuple[tuple[float, float], ...]]
    rows: Mapping[int, float]
    width: float
    height: float


def places(tree: Family) -> Places:
    """Rows by generation, the newest on top. Edges over several rows keep a place in each of them, and rows are sorted again
    and again by the mean place of their neighbours, which leaves few crossings."""
    levels = sorted({q.generation for q in tree.members.values()}, reverse=True)
    row_of = {s: levels.index(q.generation) for s, q in tree.members.items()}
    rows: list[list[tuple[int, ...]]] = [[] for _ in levels]  # a network is (step,), a bend of an edge (child, parent, row)
    neighbours: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    chains: dict[tuple[int, int], list[tuple[int, ...]]] = {}
    for step in sorted(tree.members):
        rows[row_of[step]].append((step,))
    for step, q in sorted(tree.members.items()):
        for parent in dict.fromkeys(q.parents):
            if parent not in tree.members or row_of[parent] <= row_of[step]:
                continue
            bends: list[tuple[int, ...]] = [(step, parent, r) for r in range(row_of[step] + 1, row_of[parent])]
            for bend in bends:
                rows[bend[2]].append(bend)
            chain = [(step,), *bends, (parent,)]
            chains[step, parent] = chain
            for a, b in pairwise(chain):
                neighbours.setdefault(a, []).append(b)
                neighbours.setdefault(b, []).append(a)
    x = {mark: 0.0 for row in rows for mark in row}
    for row in rows:
        _place(row, [float(i) for i in range(len(row))], x)
    for sweep in range(_SWEEPS):
        for row in rows if sweep % 2 else rows[::-1]:
            wanted = [float(np.mean([x[m] for m in neighbours[mark]])) if mark in neighbours else x[mark] for mark in row]
            _place(row, wanted, x)
    left = min(x[m] - _half(m) for row in rows for m in row)
    right = max(x[m] + _half(m) for row in rows for m in row)

    def at(mark: tuple[int, ...], row: int) -> tuple[float, float]:
        return x[mark] - left + LEFT, row * ROW + HEIGHT / 2 + 8

    return Places({s: at((s,), row_of[s]) for s in tree.members},
                  {edge: tuple(at(m, row_of[edge[0]] + i) for i, m in enumerate(chain)) for edge, chain in chains.items()},
                  {g: i * ROW + HEIGHT / 2 + 8 for i, g in enumerate(levels)},
                  right - left + LEFT + 10, (len(levels) - 1) * ROW + HEIGHT + 16)


def _half(mark: tuple[int, ...]) -> float:
    return WIDTH / 2 if len(mark) == 1 else 4.0


def _place(row: list[tuple[int, ...]], wanted: Sequence[float], x: dict[tuple[int, ...], float]) -> None:
    """Sort a row by the wanted places and set it as near to them as the widths allow."""
    pairs = sorted(zip(wanted, row, strict=True))
    row[:] = [mark for _, mark in pairs]
    at: list[float] = []
    for i, (want, mark) in enumerate(pairs):
        at.append(want if not i else max(want, at[-1] + _half(row[i - 1]) + GAP + _half(mark)))
    shift = float(np.mean([w - a for (w, _), a in zip(pairs, at, strict=True)])) if at else 0.0
    for mark, a in zip(row, at, strict=True):
        x[mark] = a + shift


def svg(tree: Family, objective: Objective, tip: Callable[[Query], str], number: Callable[[float], str],
        feasible: frozenset[int]) -> tuple[str, float]:
    """The picture, and where in it the winner stands (pixels from the left).

    ``tip(query)`` is the text under the pointer; the better the value, the darker; dashed: infeasible.
    """
    where = places(tree)
    order = sorted(tree.members, key=lambda s: objective.key(tree.members[s].values.get(objective.name, np.nan)), reverse=True)
    shade = {s: _SHADES[i * len(_SHADES) // len(order)] for i, s in enumerate(order)} | {tree.winner: _WINNER}
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" class="fam" width="{where.width:.0f}" height="{where.height:.0f}" '
           f'viewBox="0 0 {where.width:.0f} {where.height:.0f}" role="img" aria-label="family tree of {len(order)} networks">',
           f"<style>{_STYLE}</style>"]
    out += [f'<text class="g" x="8" y="{y + 4:.1f}">gen. {generation}</text>' for generation, y in where.rows.items()]
    out += [f'<path class="e" d="{_path(points)}"/>' for points in where.edges.values()]
    for step, (x, y) in where.centres.items():
        q = tree.members[step]
        name = q.source if len(q.source) <= 10 else q.source[:9] + "…"
        told = text(tip(q))
        out.append(f'<g class="n{"" if step in feasible else " broken"}" data-tip="{told}"><title>{told}</title>'
                   f'<rect class="r" x="{x - WIDTH / 2:.1f}" y="{y - HEIGHT / 2:.1f}" width="{WIDTH:.0f}" '
                   f'height="{HEIGHT:.0f}" rx="6" fill="{shade[step]}"/><text class="v" x="{x:.1f}" y="{y - 2:.1f}">'
                   f'{text(number(q.values.get(objective.name, np.nan)))}</text>'
                   f'<text x="{x:.1f}" y="{y + 13:.1f}">#{step + 1} {text(name)}</text></g>')
    return "\n".join([*out, "</svg>"]), where.centres[tree.winner][0]


def _path(points: Sequence[tuple[float, float]]) -> str:
    """From the lower edge of the child through the bends to the upper edge of the parent."""
    points = [(points[0][0], points[0][1] + HEIGHT / 2), *points[1:-1], (points[-1][0], points[-1][1] - HEIGHT / 2)]
    d = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for (ax, ay), (bx, by) in pairwise(points):
        d += f"C{ax:.1f} {(ay + by) / 2:.1f} {bx:.1f} {(ay + by) / 2:.1f} {bx:.1f} {by:.1f}"
    return d
