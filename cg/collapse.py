"""Collapse of repeated structure: a stack of equal blocks becomes one block that carries a repeat count.

Nothing is lost: the kept nodes with their counts determine the graph. Learned encoders read the collapsed view, which is
three to five times smaller for cell-based networks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from cg import _table_arrays
from cg._hashing import _K1, _K3, _csr, _mix
from cg.graph import Graph

_TAP = np.uint64(0xD6E8FEB86659FD93)


class Collapsed(NamedTuple):
    """``node [n]`` kept nodes of the graph in order; ``count [n]`` how often each stands in a row; ``src, dst [e]`` edges
    between kept nodes, by position in ``node``."""

    node: np.ndarray
    count: np.ndarray  # type: ignore[assignment]  # hides tuple.count
    src: np.ndarray
    dst: np.ndarray


def collapse(graph: Graph) -> Collapsed:
    """The collapsed view of a graph.

    Blocks are the stretches between cut nodes (nodes that every path passes); a run of equal blocks, or of equal sequences
    of blocks, is kept once. Kept neighbours of one count above 1 are one run: two runs of equal length never meet, so that
    ``aabb`` and ``abab`` differ. A node whose tensor leaves the network is unlike one whose tensor does not. Networks
    without cut nodes, such as DARTS cells with two inputs, stay as they are.
    """
    hashes, symmetry = _table_arrays.hashes()
    return Collapsed(*_collapse(graph.spec, graph.src, graph.dst, graph.arg, graph.outputs, hashes, symmetry))


@njit(cache=True)
def _collapse(spec, src, dst, arg, outputs, spec_hash, symmetry):  # type: ignore[no-untyped-def]
    n = len(spec)
    start_in, edge_in = _csr(n, dst)
    start_out, edge_out = _csr(n, src)
    cuts = np.empty(n, np.int64)
    n_cuts, reach = 0, -1
    for i in range(n):
        if reach <= i and (i == 0 or start_in[i + 1] > start_in[i]):
            cuts[n_cuts] = i
            n_cuts += 1
        elif start_in[i + 1] == start_in[i]:
            reach = n  # a second source: no single node separates what follows
        for p in range(start_out[i], start_out[i + 1]):
            reach = max(reach, dst[edge_out[p]])

    own = spec_hash[spec]
    for o in outputs:
        if start_out[o + 1] > start_out[o]:  # sinks are outputs anyway
            own[o] = _mix(own[o] + _TAP)

    # a hash of every block, seen from inside the block only: what feeds a node, and what it feeds
    mark = np.zeros(n, np.uint64)
    below = np.zeros(n, np.uint64)
    signature = np.zeros(n_cuts, np.uint64)
    for b in range(1, n_cuts):
        low, high = cuts[b - 1], cuts[b]
        total = np.uint64(high - low)
        for i in range(low + 1, high + 1):
            acc = own[i]
            for p in range(start_in[i], start_in[i + 1]):
                e = edge_in[p]
                inner = mark[src[e]] if src[e] > low else np.uint64(7)
                position = np.uint64(0) if symmetry[spec[i]] else np.uint64(arg[e] + 1)
                acc += _mix(inner + position * _K1)
            mark[i] = _mix(acc)
        for i in range(high, low, -1):
            acc = own[i] * _K3
            for p in range(start_out[i], start_out[i + 1] if i < high else start_out[i]):
                e = edge_out[p]
                position = np.uint64(0) if symmetry[spec[dst[e]]] else np.uint64(arg[e] + 1)
                acc += _mix(below[dst[e]] + position * _K1)
            below[i] = _mix(acc)
            total += _mix(mark[i] * _K1 + below[i])
        signature[b] = _mix(total)

    keep = np.zeros(n, np.int64)  # repeat count of kept nodes, 0 for dropped ones
    stand_in = np.arange(n)
    for i in range(cuts[0] + 1 if n_cuts else n):
        keep[i] = 1
    b, before = 1, 1
    while b < n_cuts:
        best_gain, best_period, best_times = 0, 1, 1
        for period in range(1, (n_cuts - b) // 2 + 1):
            times = 1
            while b + (times + 1) * period <= n_cuts:
                same = True
                for q in range(period):
                    if signature[b + times * period + q] != signature[b + q]:
                        same = False
                        break
                if not same:
                    break
                times += 1
            gain = (times - 1) * (cuts[b + period - 1] - cuts[b - 1])
            if gain > best_gain:
                best_gain, best_period, best_times = gain, period, times
        if best_times == before:
            best_times = 1
        before = best_times
        low, first_end = cuts[b - 1], cuts[b + best_period - 1]
        for i in range(low + 1, first_end + 1):
            keep[i] = best_times
        last_end = cuts[b + best_times * best_period - 1]
        stand_in[last_end] = first_end
        b += best_times * best_period
    for i in range(cuts[n_cuts - 1] + 1 if n_cuts else n, n):
        keep[i] = 1

    position = np.full(n, -1, np.int64)
    kept = np.empty(n, np.int32)
    m = 0
    for i in range(n):
        if keep[i] > 0:
            position[i] = m
            kept[m] = i
            m += 1
    new_src, new_dst = np.empty(len(src), np.int32), np.empty(len(src), np.int32)
    k = 0
    for e in range(len(src)):
        if keep[dst[e]] > 0:
            s = stand_in[src[e]]
            if position[s] >= 0:
                new_src[k] = position[s]
                new_dst[k] = position[dst[e]]
                k += 1
    return kept[:m].copy(), keep[kept[:m]], new_src[:k].copy(), new_dst[:k].copy()
