"""Compiled kernels on raw edge arrays: canonical order and hash, edge checks, pruning. No Python objects here.

The hash is a two-round Weisfeiler-Lehman scheme made for DAGs: a forward Merkle pass (a node sees everything above it,
with argument positions), a backward pass (everything below it), both repeated on the combined label. Graphs that this
scheme cannot tell apart hash alike; on the three benchmarks no two different cells do (see the tests).
"""

from __future__ import annotations

import numpy as np
from numba import njit

_K1 = np.uint64(0x9E3779B97F4A7C15)
_K2 = np.uint64(0xBF58476D1CE4E5B9)
_K3 = np.uint64(0x94D049BB133111EB)


@njit(cache=True, inline="always")
def _mix(x):  # type: ignore[no-untyped-def]
    """splitmix64 finaliser."""
    x = (x ^ (x >> np.uint64(30))) * _K2
    x = (x ^ (x >> np.uint64(27))) * _K3
    return x ^ (x >> np.uint64(31))


@njit(cache=True)
def _csr(n, key):  # type: ignore[no-untyped-def]
    """Offsets ``[n + 1]`` and a stable permutation of the edges grouped by ``key``."""
    start = np.zeros(n + 1, np.int64)
    for e in range(len(key)):
        start[key[e] + 1] += 1
    for i in range(n):
        start[i + 1] += start[i]
    fill = start[:-1].copy()
    edge = np.empty(len(key), np.int64)
    for e in range(len(key)):
        edge[fill[key[e]]] = e
        fill[key[e]] += 1
    return start, edge


@njit(cache=True)
def canonical_order(spec, src, dst, arg, outputs, spec_hash, symmetry):  # type: ignore[no-untyped-def]
    """Canonical ranks of the nodes and of the edges, and the 128-bit hash.

    ``symmetry [S]`` is 0 where the order of arguments matters, 1 where it does not, 2 where moreover all arguments have
    one shape, so that argument numbers are handed out anew. Returns ``(n_sorted, rank [N], edge order [E], argument
    numbers in that order [E], high, low)``; ``n_sorted < N`` means that there is a cycle, and ``rank`` is then -1 on
    the nodes that could not be placed.
    """
    n = len(spec)
    start_out, edge_out = _csr(n, src)
    start_in, edge_in = _csr(n, dst)
    degree = np.zeros(n, np.int64)
    for e in range(len(dst)):
        degree[dst[e]] += 1
    topo = np.empty(n, np.int64)
    level = np.zeros(n, np.int64)
    head, tail = 0, 0
    for i in range(n):
        if degree[i] == 0:
            topo[tail] = i
            tail += 1
    while head < tail:
        i = topo[head]
        head += 1
        for p in range(start_out[i], start_out[i + 1]):
            j = dst[edge_out[p]]
            level[j] = max(level[j], level[i] + 1)
            degree[j] -= 1
            if degree[j] == 0:
                topo[tail] = j
                tail += 1
    rank = np.full(n, -1, np.int64)
    if tail < n:
        for t in range(tail):
            rank[topo[t]] = t
        return tail, rank, np.zeros(0, np.int64), np.zeros(0, np.int16), np.uint64(0), np.uint64(0)

    label = np.empty(n, np.uint64)
    for i in range(n):
        label[i] = spec_hash[spec[i]]
    for o in outputs:
        label[o] = _mix(label[o] + _K1)
    forward = np.empty(n, np.uint64)
    backward = np.empty(n, np.uint64)
    for _ in range(2):
        for t in range(n):
            i = topo[t]
            acc = label[i]
            for p in range(start_in[i], start_in[i + 1]):
                e = edge_in[p]
                position = np.uint64(0) if symmetry[spec[i]] else np.uint64(arg[e] + 1)
                acc += _mix(forward[src[e]] * _K1 + position * _K3)
            forward[i] = _mix(acc)
        for t in range(n - 1, -1, -1):
            i = topo[t]
            acc = label[i] * _K3
            for p in range(start_out[i], start_out[i + 1]):
                e = edge_out[p]
                position = np.uint64(0) if symmetry[spec[dst[e]]] else np.uint64(arg[e] + 1)
                acc += _mix(backward[dst[e]] * _K2 + position * _K1)
            backward[i] = _mix(acc)
        for i in range(n):
            label[i] = _mix(forward[i] * _K1 + backward[i])
    high, low = np.uint64(n) * _K2, np.uint64(len(src)) * _K3
    for i in range(n):
        high += _mix(label[i] + _K1)
        low += _mix(label[i] ^ _K3)
    high, low = _mix(high), _mix(low)

    by_label = np.argsort(label)
    by_level = np.argsort(level[by_label], kind="mergesort")
    for r in range(n):
        rank[by_label[by_level[r]]] = r
    key = np.empty(len(src), np.int64)
    for e in range(len(src)):
        second = rank[src[e]] if symmetry[spec[dst[e]]] == 2 else np.int64(arg[e])
        key[e] = rank[dst[e]] * 4_000_000 + second
    order = np.argsort(key, kind="mergesort")
    new_arg = np.empty(len(src), np.int16)
    for p in range(len(order)):
        e = order[p]
        if symmetry[spec[dst[e]]] != 2:
            new_arg[p] = arg[e]
        elif p > 0 and dst[order[p - 1]] == dst[e]:
            new_arg[p] = new_arg[p - 1] + 1
        else:
            new_arg[p] = 0
    return n, rank, order, new_arg, high, low


@njit(cache=True)
def check_edges(spec, src, dst, arg, n_in, out_size, in_size, is_source):  # type: ignore[no-untyped-def]
    """First broken rule as ``(code, node)``: 1 number of arguments, 2 shapes, 3 unreachable, 4 argument numbers; ``(0, -1)``
    if all is well. Edges are sorted by ``(dst, arg)``."""
    n = len(spec)
    seen = np.zeros(n, np.int32)
    reached = np.zeros(n, np.bool_)
    for e in range(len(src)):
        seen[dst[e]] += 1
    for i in range(n):
        if seen[i] != n_in[spec[i]]:
            return 1, i
        reached[i] = is_source[spec[i]]
    expected = 0
    for e in range(len(src)):  # edges are sorted by dst, and src < dst, so one sweep is enough
        s, d, a = spec[src[e]], spec[dst[e]], arg[e]
        expected = expected + 1 if e > 0 and dst[e] == dst[e - 1] else 0
        if a != expected:
            return 4, dst[e]
        if a < in_size.shape[1] and in_size[d, a] != out_size[s]:
            return 2, dst[e]
        if reached[src[e]]:
            reached[dst[e]] = True
    for i in range(n):
        if not reached[i]:
            return 3, i
    return 0, -1


@njit(cache=True)
def live_nodes(n, src, dst, outputs):  # type: ignore[no-untyped-def]
    """Mask ``bool [n]`` of the nodes from which an output can be reached; needs ``src < dst`` on every edge."""
    live = np.zeros(n, np.bool_)
    for o in outputs:
        live[o] = True
    start, edge = _csr(n, dst)
    for i in range(n - 1, -1, -1):
        if live[i]:
            for p in range(start[i], start[i + 1]):
                live[src[edge[p]]] = True
    return live
