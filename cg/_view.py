"""What a picture of a graph shows: nodes in boxes, edges between boxes, and which stretches stand for several equal ones.

Decides nothing about places (see ``cg._layout``) or looks (see ``cg.draw``).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cg.graph import Graph
from cg.vocabulary import SOURCES

_MAX_BARS = 6
_ALONE = frozenset({"Input", "Constant", "Add", "Mul", "Concat"})  # nothing stands on these in one box


@dataclass(frozen=True)
class View:
    """What is drawn: chains of nodes, the edges between them, and which chains are repeated.

    Attributes:
        chains: node numbers of the graph, top to bottom, for each box.
        edges: ``(source, target)`` box numbers, source < target.
        group: number of the repeated stretch that a box belongs to, or -1.
        times: how often each repeated stretch stands in a row.
        shown: for every node of the graph the drawn node that stands for it (itself where nothing is folded).
    """

    chains: tuple[tuple[int, ...], ...]
    edges: tuple[tuple[int, int], ...]
    group: tuple[int, ...]
    times: tuple[int, ...]
    shown: tuple[int, ...]


class _Drawn(NamedTuple):
    node: list[int]  # numbers in the graph, rising
    group: list[int]
    times: list[int]
    pairs: list[tuple[int, int]]  # by position in ``node``
    shown: list[int]


def view(graph: Graph, collapse: bool = True) -> View:
    """Boxes and edges of the picture; ``collapse`` draws a run of equal blocks once."""
    if collapse:
        d = _folded(graph)
    else:
        every = list(range(graph.n_nodes))
        d = _Drawn(every, [-1] * len(every), [], list(zip(graph.src.tolist(), graph.dst.tolist(), strict=True)), every)
    before: list[list[int]] = [[] for _ in d.node]
    after: list[list[int]] = [[] for _ in d.node]
    for s, t in dict.fromkeys(d.pairs):
        before[t].append(s)
        after[s].append(t)
    ops = [graph.nodes[i].op for i in d.node]
    chain_of, chains = [-1] * len(d.node), list[list[int]]()
    for i in range(len(d.node)):
        p = before[i][0] if len(before[i]) == 1 else -1
        joins = (p >= 0 and len(after[p]) == 1 and d.group[p] == d.group[i]
                 and ops[chains[chain_of[p]][0]] not in _ALONE
                 and len(chains[chain_of[p]]) < _MAX_BARS and ops[i] != ops[chains[chain_of[p]][0]])
        if joins:
            chain_of[i] = chain_of[p]
            chains[chain_of[i]].append(i)
        else:
            chain_of[i] = len(chains)
            chains.append([i])
    edges = sorted({(chain_of[s], chain_of[t]) for s, t in d.pairs if chain_of[s] != chain_of[t]})
    return View(tuple(tuple(d.node[i] for i in c) for c in chains), tuple(edges),
                tuple(d.group[c[0]] for c in chains), tuple(d.times), tuple(d.shown))


def _folded(graph: Graph) -> _Drawn:
    """Runs of equal blocks once. Constants and side inputs are set aside first: they would hide where a block ends."""
    from cg import _table_arrays
    from cg.collapse import _collapse

    sources = [i for i, n in enumerate(graph.nodes) if n.op in SOURCES]
    main = next((i for i in sources if graph.nodes[i].op == "Input"), sources[0])
    leaving = set(graph.outputs.tolist())
    side = [i for i in sources if i != main and i not in leaving]
    rest = np.setdiff1d(np.arange(graph.n_nodes), side)
    number = np.full(graph.n_nodes, -1)
    number[rest] = np.arange(len(rest))
    inner = number[graph.src] >= 0
    src, dst = number[graph.src[inner]].astype(np.int32), number[graph.dst[inner]].astype(np.int32)
    hashes, symmetry = _table_arrays.hashes()
    node_a, count_a, src_a, dst_a = _collapse(graph.spec[rest], src, dst, graph.arg[inner],
                                              number[graph.outputs].astype(np.int32), hashes, symmetry)
    kept, count = [int(v) for v in node_a], [int(v) for v in count_a]
    group, times = _groups(kept, count)
    shown = [-1] * graph.n_nodes
    for i, twin in enumerate(_stand_ins(graph.spec[rest].tolist(), kept, group, times)):
        shown[int(rest[i])] = int(rest[twin])
    node = [int(rest[i]) for i in kept]
    edges = {(node[s], node[t]) for s, t in zip(src_a.tolist(), dst_a.tolist(), strict=True)}
    of = dict(zip(node, group, strict=True))
    first = {i for i in node if of[i] >= 0} - {t for s, t in edges if of[s] == of[t]}
    uses: dict[int, list[tuple[int, int]]] = defaultdict(list)
    args: dict[tuple[int, int], int] = {}
    for s, t, a in zip(graph.src.tolist(), graph.dst.tolist(), graph.arg.tolist(), strict=True):
        if number[s] < 0:
            uses[s].append((t, a))
            args[t, a] = s
    for s in side:
        here = [t for t, _ in uses[s] if t in of]
        groups = {of[t] for t in here}
        if here:
            shown[s] = s
            edges |= {(s, t) for t in here}
            inside = len(here) == len(uses[s]) and len(groups) == 1 and not first.intersection(here)
            of[s] = groups.pop() if inside else -1
    for s in side:
        if shown[s] < 0:  # feeds a block that is not drawn: its twin feeds the one that is
            twins = [args.get((shown[t], a), -1) for t, a in uses[s]]
            shown[s] = next((p for p in twins if p in of), shown[uses[s][0][0]] if uses[s] else main)
    drawn = sorted(of)
    place = {i: k for k, i in enumerate(drawn)}
    return _Drawn(drawn, [of[i] for i in drawn], times, sorted((place[s], place[t]) for s, t in edges), shown)


def _stand_ins(spec: list[int], kept: list[int], group: list[int], times: list[int]) -> list[int]:
    """For every node the kept node that is drawn for it: same spec, same occurrence of that spec within its block."""
    shown, k = list(range(len(spec))), 0
    while k < len(kept):
        end = k
        while group[k] >= 0 and end < len(kept) and group[end] == group[k]:
            end += 1
        if group[k] < 0:
            k += 1
            continue
        block = kept[k:end]
        for copy in range(1, times[group[k]]):
            twins: dict[int, list[int]] = defaultdict(list)
            for i in reversed(block):
                twins[spec[i]].append(i)
            for i in range(block[0] + copy * len(block), block[0] + (copy + 1) * len(block)):
                shown[i] = twins[spec[i]].pop() if twins[spec[i]] else block[-1]
        k = end
    return shown


def _groups(node: list[int], count: list[int]) -> tuple[list[int], list[int]]:
    """Group number of each kept node, and repeats of each group. A repeated stretch ends where node numbers jump."""
    group, times = [-1] * len(node), list[int]()
    for i, times_here in enumerate(count):
        if times_here > 1:
            if i == 0 or count[i - 1] != times_here or node[i] != node[i - 1] + 1:
                times.append(times_here)
            group[i] = len(times) - 1
    return group, times
