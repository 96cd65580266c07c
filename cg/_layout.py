"""Layered drawing of a directed acyclic graph of boxes, wrapped into columns: pure geometry in pixels.

Levels by longest path; edges over several levels pass through invisible points; order in a level by barycentre sweeps
(Sugiyama, Tagawa and Toda 1981); places by least squares under the order. Knows nothing of networks or of SVG.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

GAP_X, GAP_Y, GUTTER, LANE = 14.0, 22.0, 42.0, 5.0


@dataclass(frozen=True)
class Box:
    """Place of one box: left, top, width, height."""

    x: float
    y: float
    w: float
    h: float


@dataclass(frozen=True)
class Layout:
    """Where everything goes.

    Attributes:
        boxes: one for each input box, same order.
        paths: one SVG path text for each input edge, same order.
        frames: for each group number the frame around its boxes.
        width, height: size of the drawing.
        columns: how many columns the levels were wrapped into.
    """

    boxes: tuple[Box, ...]
    paths: tuple[str, ...]
    frames: dict[int, Box]
    width: float
    height: float
    columns: int


def levels(n: int, edges: Sequence[tuple[int, int]]) -> np.ndarray:
    """Longest number of edges from a source, int ``[n]``; ``edges`` must go from lower to higher numbers.

    A source itself stands just above the first box that it feeds.
    """
    level = np.zeros(n, int)
    for s, t in sorted(edges, key=lambda e: e[1]):
        level[t] = max(level[t], level[s] + 1)
    fed = {t for _, t in edges}
    highest: dict[int, int] = {}
    for s, t in edges:
        if s not in fed:
            highest[s] = min(highest.get(s, n), int(level[t]) - 1)
    for s, lv in highest.items():
        level[s] = lv
    return level


def layout(sizes: Sequence[tuple[float, float]], edges: Sequence[tuple[int, int]], groups: Sequence[int],
           aspect: float = 1.4) -> Layout:
    """Place ``n`` boxes.

    Args:
        sizes: ``(width, height)`` of each box; numbers follow a topological order.
        edges: ``(source, target)`` with source < target.
        groups: a number >= 0 for boxes that are framed together, -1 for the others.
        aspect: wanted width / height of the whole drawing.
    """
    level = levels(len(sizes), edges)
    g = _Points(sizes, edges, level)
    order = _ordered(g)
    height = np.array([max(g.h[p] for p in row) for row in order])
    width = max(sum(g.w[p] for p in row) + GAP_X * (len(row) - 1) for row in order)
    group_of_level = [max((groups[p] for p in row if p < g.n), default=-1) for row in order]
    crossing = [sum(1 for p in row for q in g.down[p]) for row in order]
    starts = _columns(height, width, group_of_level, crossing, aspect)
    x, y = np.zeros(len(g.w)), np.zeros(len(g.w))
    left, total_h = GUTTER, 0.0
    column_of, sides, bottoms = np.zeros(len(g.w), int), [], []
    top0 = GAP_Y + LANE * max((crossing[a - 1] for a in starts[1:]), default=0)
    for c, (a, b) in enumerate(pairwise([*starts, len(order)])):
        _place(order[a:b], g, x)
        members = [p for row in order[a:b] for p in row]
        x[members] += left - min(x[p] - g.w[p] / 2 for p in members)
        top = top0
        for lv in range(a, b):
            for p in order[lv]:
                y[p] = top + (height[lv] - g.h[p]) / 2 if p < g.n else top
                column_of[p] = c
            top += height[lv] + GAP_Y
        right = max(x[p] + g.w[p] / 2 for p in members)
        sides.append((left, right))
        bottoms.append(top - GAP_Y)
        total_h = max(total_h, top)
        left = right + GUTTER + LANE * (crossing[b - 1] if b < len(order) else 0)
    paths = _routes(g, x, y, height, column_of, sides, bottoms, top0)
    frames = _frames(order, group_of_level, g, x, y, height)
    boxes = tuple(Box(x[i] - g.w[i] / 2, y[i], g.w[i], g.h[i]) for i in range(g.n))
    return Layout(boxes, tuple(paths), frames, sides[-1][1] + GUTTER, total_h + LANE * max(crossing) + 8, len(starts))


class _Points:
    """Boxes 0..n-1 followed by the invisible points of long edges."""

    def __init__(self, sizes: Sequence[tuple[float, float]], edges: Sequence[tuple[int, int]],
                 level: np.ndarray) -> None:
        self.n = len(sizes)
        self.w, self.h = [s[0] for s in sizes], [s[1] for s in sizes]
        self.level = [int(v) for v in level]
        self.up: list[list[int]] = [[] for _ in sizes]
        self.down: list[list[int]] = [[] for _ in sizes]
        self.chains: list[list[int]] = []
        for s, t in edges:
            chain = [s]
            for lv in range(self.level[s] + 1, self.level[t]):
                self.w.append(4.0)
                self.h.append(0.0)
                self.level.append(lv)
                self.up.append([])
                self.down.append([])
                chain.append(len(self.w) - 1)
            chain.append(t)
            for p, q in pairwise(chain):
                self.down[p].append(q)
                self.up[q].append(p)
            self.chains.append(chain)


def _ordered(g: _Points, sweeps: int = 12) -> list[list[int]]:
    """Points of each level from left to right, with few crossings."""
    rows: list[list[int]] = [[] for _ in range(max(g.level) + 1)]
    seen = set()
    stack = [p for p in range(g.n - 1, -1, -1) if not g.up[p]]
    while stack:  # depth first keeps what belongs together side by side
        p = stack.pop()
        if p not in seen:
            seen.add(p)
            rows[g.level[p]].append(p)
            stack += reversed(g.down[p])
    best, fewest = [list(r) for r in rows], _crossings(rows, g)
    for sweep in range(sweeps):
        going_down = sweep % 2 == 0
        for lv in range(1, len(rows)) if going_down else range(len(rows) - 2, -1, -1):
            near = rows[lv - 1] if going_down else rows[lv + 1]
            rank = {p: i for i, p in enumerate(near)}
            links = g.up if going_down else g.down
            here = {p: i for i, p in enumerate(rows[lv])}
            rows[lv].sort(key=lambda p, k=links, r=rank, h=here: (  # type: ignore[misc]
                sum(r[q] for q in k[p]) / len(k[p]) if k[p] else h[p], h[p]))
        count = _crossings(rows, g)
        if count < fewest:
            best, fewest = [list(r) for r in rows], count
    return best


def _crossings(rows: list[list[int]], g: _Points) -> int:
    total = 0
    for upper, lower in pairwise(rows):
        rank = {p: i for i, p in enumerate(lower)}
        ends = [rank[q] for p in upper for q in sorted(g.down[p], key=rank.__getitem__)]
        total += sum(1 for i, a in enumerate(ends) for b in ends[i + 1:] if a > b)
    return total


def _place(rows: list[list[int]], g: _Points, x: np.ndarray, sweeps: int = 10) -> None:
    """Centre of every point: near its neighbours, in order, without overlap; sweeps down and up."""
    inside = {p for row in rows for p in row}
    for row in rows:
        offset = np.cumsum([0.0] + [(g.w[a] + g.w[b]) / 2 + GAP_X for a, b in pairwise(row)])
        x[row] = offset - offset[-1] / 2
    for sweep in range(sweeps):
        for row in rows if sweep % 2 == 0 else rows[::-1]:
            wish, weight = [], []
            for p in row:
                near = [q for q in (g.up if sweep % 2 == 0 else g.down)[p] if q in inside] or \
                       [q for q in (g.down if sweep % 2 == 0 else g.up)[p] if q in inside]
                wish.append(float(np.mean(x[near])) if near else x[p])
                weight.append(1.0 if p < g.n else 4.0)
            offset = np.cumsum([0.0] + [(g.w[a] + g.w[b]) / 2 + GAP_X for a, b in pairwise(row)])
            x[row] = _isotonic(np.array(wish) - offset, np.array(weight)) + offset


def _isotonic(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Least squares fit that never decreases (pool adjacent violators)."""
    blocks: list[list[float]] = []
    for v, w in zip(values, weight, strict=True):
        blocks.append([float(v), float(w), 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            v2, w2, n2 = blocks.pop()
            v1, w1, n1 = blocks[-1]
            blocks[-1] = [(v1 * w1 + v2 * w2) / (w1 + w2), w1 + w2, n1 + n2]
    return np.concatenate([np.full(int(n), v) for v, _, n in blocks])


def _columns(height: np.ndarray, width: float, group: list[int], crossing: list[int], aspect: float) -> list[int]:
    """First level of each column: equal heights, cut where few edges pass and no frame is torn."""
    step = height + GAP_Y
    total = step.sum()
    end = np.concatenate([[0.0], np.cumsum(step)])
    near = round(float(np.sqrt(total * aspect / (width + GUTTER))))
    best: tuple[float, list[int]] = (np.inf, [0])
    for n_columns in range(max(1, near - 4), min(max(near, 1) + 4, len(height)) + 1):
        target = total / n_columns
        got = abs(np.log((width + GUTTER) * n_columns / (target * aspect)))
        cost = np.full((n_columns + 1, len(height) + 1), np.inf)
        back = np.zeros((n_columns + 1, len(height) + 1), int)
        cost[0, 0] = 0.0
        # where a column that ends at level b may begin: no column is much taller than wanted
        lowest = np.minimum(np.searchsorted(end, end - 2.5 * target), np.arange(len(end)) - 1).clip(0)
        for c in range(1, n_columns + 1):  # the column of number c ends near c times the wanted height
            low, high = np.searchsorted(end, [(c - 1.5) * target, (c + 1.5) * target])
            for b in range(max(c, low), min(high, len(height)) + 1) if c < n_columns else (len(height),):
                a = int(lowest[b])
                tear = 0.0 if b == len(height) else 0.1 * (crossing[b - 1] - 1) + 2.0 * (
                    group[b - 1] >= 0 and group[b - 1] == group[b])
                options = cost[c - 1, a:b] + ((end[b] - end[a:b]) / target - 1.0) ** 2 + tear
                back[c, b] = a + int(np.argmin(options))
                cost[c, b] = options[back[c, b] - a]
        if not np.isfinite(cost[n_columns, len(height)]):
            continue
        starts, b = [], len(height)
        for c in range(n_columns, 0, -1):
            b = int(back[c, b])
            starts.append(b)
        score = got + 0.5 * cost[n_columns, len(height)]
        if score < best[0]:
            best = (float(score), starts[::-1])
    return best[1]


def _routes(g: _Points, x: np.ndarray, y: np.ndarray, height: np.ndarray, column: np.ndarray,
            sides: list[tuple[float, float]], bottoms: list[float], top: float) -> list[str]:
    """One path an edge: curves between levels, and a lane around the column where the drawing wraps."""
    port_in, port_out = _ports(g, x)
    lanes: dict[int, int] = {}
    paths = []
    for e, chain in enumerate(g.chains):
        at = x[chain[0]] + port_out[e]
        parts = [f"M{at:.1f},{y[chain[0]] + g.h[chain[0]]:.1f}"]
        low = y[chain[0]] + g.h[chain[0]]
        for p, q in pairwise(chain):
            end = x[q] + (port_in[e] if q == chain[-1] else 0.0)
            if column[p] == column[q]:
                mid = (low + y[q]) / 2
                parts.append(f"C{at:.1f},{mid:.1f} {end:.1f},{mid:.1f} {end:.1f},{y[q]:.1f}")
            else:
                c = int(column[p])
                k = lanes[c] = lanes.get(c, 0) + 1
                floor, side, ceiling = bottoms[c] + 11 + LANE * k, sides[c][1] + 13 + LANE * k, top - 10 - LANE * k
                parts.append(f"V{floor - 4:.1f}Q{at:.1f},{floor:.1f} {at + 4:.1f},{floor:.1f}"
                             f"H{side - 4:.1f}Q{side:.1f},{floor:.1f} {side:.1f},{floor - 4:.1f}"
                             f"V{ceiling + 4:.1f}Q{side:.1f},{ceiling:.1f} {side + 4:.1f},{ceiling:.1f}"
                             f"H{end - 4:.1f}Q{end:.1f},{ceiling:.1f} {end:.1f},{ceiling + 4:.1f}V{y[q]:.1f}")
            if q >= g.n:
                low = y[q] + height[g.level[q]]
                parts.append(f"V{low:.1f}")
            at = end
        paths.append("".join(parts))
    return paths


def _ports(g: _Points, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Offset from the centre of the box at which each edge enters and leaves, in the order of the other ends."""
    inward, outward = np.zeros(len(g.chains)), np.zeros(len(g.chains))
    for ends, other, offsets in ((-1, -2, inward), (0, 1, outward)):
        at: dict[int, list[int]] = {}
        for e, chain in enumerate(g.chains):
            at.setdefault(chain[ends], []).append(e)
        for p, edges in at.items():
            edges.sort(key=lambda e, o=other: x[g.chains[e][o]])  # type: ignore[misc]
            spread = min(g.w[p] * 0.5, 12.0 * (len(edges) - 1))
            offsets[edges] = np.linspace(-spread / 2, spread / 2, len(edges)) if len(edges) > 1 else 0.0
    return inward, outward


def _frames(order: list[list[int]], group: list[int], g: _Points, x: np.ndarray, y: np.ndarray,
            height: np.ndarray) -> dict[int, Box]:
    frames: dict[int, Box] = {}
    for number in sorted({v for v in group if v >= 0}):
        rows = [lv for lv, v in enumerate(group) if v == number]
        points = [p for lv in rows for p in order[lv]]
        left, right = min(x[p] - g.w[p] / 2 for p in points), max(x[p] + g.w[p] / 2 for p in points)
        top = min(y[p] for p in points if p < g.n)
        bottom = max(y[p] + g.h[p] for p in points if p < g.n)
        frames[number] = Box(left - 9, top - 9, right - left + 18, bottom - top + 18)
    return frames
