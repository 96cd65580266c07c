"""Cells of NAS-Bench-101 as integers: text form, pruning, and hashes that do not depend on the vertex order.

A cell has ``V`` vertices, 2 to 7; vertex 0 is the input, ``V - 1`` the output. ``adj_bits`` has bit ``x + y(y-1)/2``
set for an edge ``x -> y`` (``x < y``), the order in which the benchmark enumerates graphs. ``ops`` are the interior
vertices ``1 .. V-2``: 0 conv3x3-bn-relu, 1 conv1x1-bn-relu, 2 maxpool3x3; unused places hold -1. The text form is
``<V>:<adj_bits in hex>:<one digit per interior vertex>``, for example ``3:5:0`` (input -> conv3x3 -> output).

Two hashes: :func:`module_hash` is the benchmark's own (arXiv 1902.09635, appendix; iterated MD5 over neighbours), by
which its rows are sorted; :func:`cell_hashes` is a 64-bit one for many cells at once, by which we look rows up. This
file knows nothing of accuracies and files, and imports numpy only.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from cg.errors import CGError

MAX_VERTICES = 7
MAX_EDGES = 9
OP_NAMES = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")

_SRC, _DST = (np.array([(x, y) for y in range(1, MAX_VERTICES) for x in range(y)]).T).astype(np.int64)
_ROUNDS = 3  # 2 already keep the 423,624 cells of the benchmark apart (tested over all of them); one more as a margin
_CHUNK = 1 << 15
_K = tuple(np.uint64(k) for k in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD6E8FEB86659FD93))


def encode_cell(n_vertices: int, adj_bits: int, ops: NDArray[np.integer] | list[int]) -> str:
    """Text form of one cell."""
    return f"{n_vertices}:{adj_bits:x}:{''.join(str(int(o)) for o in ops[: n_vertices - 2])}"


def parse_cell(encoded: str) -> tuple[int, int, list[int]]:
    """``(V, adj_bits, interior ops)`` of a text form; CGError says which part is wrong."""
    parts = encoded.split(":") if isinstance(encoded, str) else []
    if len(parts) != 3:
        raise CGError(f"NAS-Bench-101 genome {encoded!r}: expected '<vertices>:<hex adjacency bits>:<op digits>'")
    try:
        n, bits, ops = int(parts[0]), int(parts[1], 16), [int(c) for c in parts[2]]
    except ValueError:
        raise CGError(f"NAS-Bench-101 genome {encoded!r}: a part is not a number") from None
    if not 2 <= n <= MAX_VERTICES:
        raise CGError(f"NAS-Bench-101 genome {encoded!r}: {n} vertices, must be 2 to {MAX_VERTICES}")
    if not 0 <= bits < 1 << (n * (n - 1) // 2):
        raise CGError(f"NAS-Bench-101 genome {encoded!r}: adjacency bits beyond the {n} vertices")
    if len(ops) != n - 2 or any(o >= len(OP_NAMES) for o in ops):
        raise CGError(f"NAS-Bench-101 genome {encoded!r}: needs {n - 2} op digits, each 0 to {len(OP_NAMES) - 1}")
    return n, bits, ops


def adjacency(n_vertices: NDArray[np.integer], adj_bits: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Pruned adjacency ``[M, 7, 7]``: only edges on a path from the input to the output ``V - 1`` remain."""
    m = len(adj_bits)
    adj = np.zeros((m, MAX_VERTICES, MAX_VERTICES), np.bool_)
    bit = np.arange(len(_SRC), dtype=np.uint32)
    adj[:, _SRC, _DST] = (adj_bits.astype(np.uint32)[:, None] >> bit) & 1
    below = np.zeros((m, MAX_VERTICES), np.bool_)  # reachable from the input
    below[:, 0] = True
    for v in range(1, MAX_VERTICES):
        below[:, v] = (adj[:, :, v] & below).any(1)
    above = np.arange(MAX_VERTICES) == (n_vertices.astype(np.int64) - 1)[:, None]  # reaches the output
    for v in range(MAX_VERTICES - 2, -1, -1):
        above[:, v] |= (adj[:, v, :] & above).any(1)
    alive = below & above
    adj &= alive[:, :, None] & alive[:, None, :]
    return adj


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64 finaliser, elementwise."""
    x = (x ^ (x >> np.uint64(30))) * _K[1]
    x = (x ^ (x >> np.uint64(27))) * _K[2]
    return x ^ (x >> np.uint64(31))


def cell_hashes(
    n_vertices: NDArray[np.integer], adj_bits: NDArray[np.integer], ops: NDArray[np.integer]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Order-independent 64-bit hashes ``[M]`` and edge counts ``[M]`` of the pruned cells; 0 edges = no path at all.

    Weisfeiler-Lehman colours: a vertex starts from its op (input and output have their own) and takes in, round after
    round, the *sum* of its mixed predecessors and the sum of its mixed successors, so no order enters. Unused vertices
    (found by :func:`adjacency`) do not contribute: a cell and its pruned form hash alike. ``ops`` is ``[M, 5]``.
    """
    m = len(adj_bits)
    out, edges = np.empty(m, np.uint64), np.empty(m, np.int64)
    for lo in range(0, m, _CHUNK):
        part = slice(lo, lo + _CHUNK)
        n, adj = n_vertices[part].astype(np.int64), adjacency(n_vertices[part], adj_bits[part])
        edges[part] = adj.sum((1, 2))
        alive = adj.any(1) | adj.any(2)
        label = np.zeros((len(n), MAX_VERTICES), np.uint64)
        label[:, 1:-1] = (ops[part] + 2).astype(np.uint64)  # -1..2 -> 1..4
        label[:, 0] = 5
        label[np.arange(len(n)), n - 1] = 6
        colour = _mix((label + np.uint64(1)) * _K[0])
        up = adj.astype(np.uint64)
        down = np.ascontiguousarray(up.transpose(0, 2, 1))
        for _ in range(_ROUNDS):
            mixed = _mix(colour + _K[3])[:, :, None]
            before, after = np.matmul(down, mixed)[:, :, 0], np.matmul(up, mixed)[:, :, 0]
            colour = _mix(colour * _K[1] + before * _K[0] + after * _K[2])
        out[part] = _mix((_mix(colour) * alive).sum(1, dtype=np.uint64))
    return out, edges


def module_hash(n_vertices: int, adj_bits: int, ops: list[int]) -> str:
    """The benchmark's own module hash (32 hex digits) of a cell that is already pruned.

    Start: MD5 of the text of ``(out-degree, in-degree, label)`` with label -1 for the input and -2 for the output;
    then ``V`` rounds of MD5 over sorted predecessors, ``|``, sorted successors, ``|``, own; last MD5 over the text of
    the sorted list. The texts are Python's, since the published hashes are.
    """
    n = n_vertices
    edge = [[bool(adj_bits >> (x + y * (y - 1) // 2) & 1) if x < y else False for y in range(n)] for x in range(n)]
    preds = [[x for x in range(n) if edge[x][y]] for y in range(n)]
    succs = [[y for y in range(n) if edge[x][y]] for x in range(n)]
    labels = [-1, *(int(o) for o in ops[: n - 2]), -2]

    def md5(text: str) -> str:
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

    now = [md5(str((len(succs[v]), len(preds[v]), labels[v]))) for v in range(n)]
    for _ in range(n):
        before = ["".join(sorted(now[p] for p in preds[v])) for v in range(n)]
        after = ["".join(sorted(now[s] for s in succs[v])) for v in range(n)]
        now = [md5(f"{before[v]}|{after[v]}|{now[v]}") for v in range(n)]
    return md5(str(sorted(now)))
