"""NAS-Bench-101 (arXiv 1902.09635): genome, edits, validity and direct graph builder. Must not import torch.

A cell is a directed acyclic graph of at most 7 vertices and 9 edges; vertex 0 is the input, the last one the output,
and each vertex between them holds one of 3 operations. Macro-architecture: stem conv3x3-bn-relu (128), three stacks of
3 cells with 128, 256 and 512 channels, a 2x2 max-pool before the second and third stack, global mean, linear layer.
The output's channels are divided over the vertices joined there, the first ones taking the remainder; the other
vertices are as wide as the widest vertex they feed, and a wider input is cut to its first channels (no parameters).
The cell's input passes a 1x1 projection (conv-bn-relu) on each of its edges.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from cg.cells import Cell
from cg.errors import CGError
from evo_search.spaces._base import SearchSpace, nodes_of, one_of

if TYPE_CHECKING:
    import torch

    from cg.builder import GraphBuilder
    from cg.graph import Graph

OPS = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")
CONV3, CONV1, POOL = range(3)
MAX_VERTICES, MAX_EDGES = 7, 9
STACK_CHANNELS = (128, 256, 512)
CELLS_PER_STACK = 3


class Genome101(NamedTuple):
    """One cell. ``adjacency`` has bit ``x + y (y - 1) / 2`` set where there is an edge x -> y (x < y)."""

    vertices: int
    adjacency: int
    ops: tuple[int, ...]
    """Operation index (into ``OPS``) of the vertices 1 .. vertices - 2."""


def bit(x: int, y: int) -> int:
    """Mask of the edge x -> y, x < y."""
    return 1 << (x + y * (y - 1) // 2)


@lru_cache(maxsize=2**17)
def sources(vertices: int, adjacency: int) -> tuple[tuple[int, ...], ...]:
    """For every vertex the vertices that feed it, ascending."""
    return tuple(tuple(x for x in range(y) if adjacency & bit(x, y)) for y in range(vertices))


def prune(a: Genome101) -> Genome101 | None:
    """``a`` without the vertices that are on no path from input to output; None if there is no such path."""
    ins, last = sources(a.vertices, a.adjacency), a.vertices - 1
    fed, read = {0}, {last}
    for y in range(1, a.vertices):
        if fed.intersection(ins[y]):
            fed.add(y)
    for y in range(last, 0, -1):
        if y in read:
            read.update(ins[y])
    keep = sorted(fed & read)
    if not keep or keep[0] != 0 or keep[-1] != last:
        return None
    place = {v: i for i, v in enumerate(keep)}
    adjacency = sum(bit(place[x], place[y]) for y in keep for x in ins[y] if x in place)
    return Genome101(len(keep), adjacency, tuple(a.ops[v - 1] for v in keep[1:-1]))


@lru_cache(maxsize=2**17)
def vertex_channels(vertices: int, adjacency: int, c_out: int) -> tuple[int, ...]:
    """Channels of every vertex of a pruned cell; entry 0 (the cell's input) is 0, it is set by the layer before."""
    ins, last = sources(vertices, adjacency), vertices - 1
    channels = [0] * last + [c_out]
    joined = [v for v in ins[last] if v > 0]
    for i, v in enumerate(joined):
        channels[v] = c_out // len(joined) + (i < c_out % len(joined))
    for v in range(last - 1, 0, -1):
        if v not in joined:
            channels[v] = max(channels[y] for y in range(v + 1, last) if v in ins[y])
    return tuple(channels)


@lru_cache(maxsize=2**16)
def module_hash(a: Genome101) -> str:
    """The benchmark's hash of a cell, 32 hex digits: equal for isomorphic cells, and the order of its tables."""
    ins = sources(a.vertices, a.adjacency)
    outs = [[y for y in range(a.vertices) if x in ins[y]] for x in range(a.vertices)]
    labels = [-1, *a.ops, -2]
    digest = [_md5(str((len(outs[v]), len(ins[v]), labels[v]))) for v in range(a.vertices)]
    for _ in range(a.vertices):
        digest = [_md5("|".join(["".join(sorted(digest[w] for w in ins[v])),
                                 "".join(sorted(digest[w] for w in outs[v])), digest[v]])) for v in range(a.vertices)]
    return _md5(str(sorted(digest)))


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


@lru_cache
def _all_adjacencies(vertices: int) -> np.ndarray:
    """int64, ascending: every adjacency of at most 9 edges in which all vertices lie on a path from input to output."""
    n_bits = vertices * (vertices - 1) // 2
    code = np.arange(2**n_bits, dtype=np.int64)
    keep = sum((code >> i) & 1 for i in range(n_bits)) <= MAX_EDGES
    for v in range(vertices):  # in an acyclic graph it is enough that each vertex has an edge in and an edge out
        if v > 0:
            keep &= (code & sum(bit(x, v) for x in range(v))) != 0
        if v < vertices - 1:
            keep &= (code & sum(bit(v, y) for y in range(v + 1, vertices))) != 0
    return code[keep]


class NASBench101(SearchSpace[Genome101]):
    """The cells of NAS-Bench-101: 423,624 up to isomorphism, all of them valid here in every vertex order.

    Genomes are pruned: every vertex lies on a path from input to output. Sampling is uniform over the genomes, so a
    network's chance is proportional to the number of vertex orders that write it.

    A mutation picks one kind of edit uniformly among the possible kinds, then one edit of that kind uniformly: change
    one operation, add an edge, remove an edge, split an edge by a new vertex, or the reverse of the last. Crossover
    pads both parents to 7 vertices (output last), takes each vertex (its operation and incoming edges) from either
    parent with equal chance, and prunes.
    """

    name: ClassVar[str] = "nasbench101"
    family: ClassVar[str] = "nasbench101"

    def why_invalid(self, a: Genome101) -> str:
        if not isinstance(a, Genome101):
            return "a genome is a Genome101"
        n = a.vertices
        if not 2 <= n <= MAX_VERTICES:
            return f"{n} vertices; allowed are 2 to {MAX_VERTICES}"
        if len(a.ops) != n - 2 or any(op not in range(len(OPS)) for op in a.ops):
            return f"operations {a.ops}; {n} vertices need {n - 2} indices 0..{len(OPS) - 1}"
        if not 0 <= a.adjacency < 2 ** (n * (n - 1) // 2):
            return f"adjacency {a.adjacency:#x} has bits beyond {n} vertices"
        if a.adjacency.bit_count() > MAX_EDGES:
            return f"{a.adjacency.bit_count()} edges; at most {MAX_EDGES} are allowed"
        ins = sources(n, a.adjacency)
        read = {x for y in ins for x in y}
        dangling = [v for v in range(n) if (v > 0 and not ins[v]) or (v < n - 1 and v not in read)]
        return f"vertices {dangling} are on no path from input to output (see prune)" if dangling else ""

    def sample(self, rng: np.random.Generator) -> Genome101:
        weights = np.array([len(_all_adjacencies(n)) * len(OPS) ** (n - 2) for n in range(2, MAX_VERTICES + 1)])
        n = 2 + int(np.searchsorted(np.cumsum(weights), rng.integers(weights.sum()), side="right"))
        codes = _all_adjacencies(n)
        ops = tuple(int(v) for v in rng.integers(len(OPS), size=n - 2))
        return Genome101(n, int(codes[rng.integers(len(codes))]), ops)

    def mutate(self, a: Genome101, rng: np.random.Generator) -> Genome101:
        self.check(a)
        return one_of(one_of([edits for edits in self.edits(a).values() if edits], rng), rng)

    def edits(self, a: Genome101) -> dict[str, list[Genome101]]:
        """All valid genomes one edit away from ``a``, by kind of edit."""
        n, adjacency, ops = a
        pairs = [(x, y) for y in range(1, n) for x in range(y)]
        full = adjacency.bit_count() >= MAX_EDGES
        found: dict[str, list[Genome101]] = {
            "operation": [Genome101(n, adjacency, (*ops[:v], op, *ops[v + 1:]))
                          for v in range(n - 2) for op in range(len(OPS)) if op != ops[v]],
            "add edge": [] if full else [Genome101(n, adjacency | bit(x, y), ops)
                                         for x, y in pairs if not adjacency & bit(x, y)],
            "remove edge": [Genome101(n, adjacency & ~bit(x, y), ops) for x, y in pairs if adjacency & bit(x, y)],
            "split edge": [], "merge edges": [],
        }
        if n < MAX_VERTICES and not full:
            for x, y in pairs:
                if adjacency & bit(x, y):  # the new vertex takes place y, the vertices from y on move up by one
                    place = [v + (v >= y) for v in range(n)]
                    moved = sum(bit(place[s], place[t]) for s, t in pairs if adjacency & bit(s, t) and (s, t) != (x, y))
                    moved |= bit(x, y) | bit(y, y + 1)
                    found["split edge"] += [Genome101(n + 1, moved, (*ops[:y - 1], op, *ops[y - 1:]))
                                            for op in range(len(OPS))]
        ins = sources(n, adjacency)
        for v in range(1, n - 1):
            outs = [y for y in range(v + 1, n) if v in ins[y]]
            if len(ins[v]) == 1 and len(outs) == 1 and not adjacency & bit(ins[v][0], outs[0]):
                place = [w - (w > v) for w in range(n)]
                moved = sum(bit(place[s], place[t]) for s, t in pairs if adjacency & bit(s, t) and v not in (s, t))
                moved |= bit(place[ins[v][0]], place[outs[0]])
                found["merge edges"].append(Genome101(n - 1, moved, (*ops[:v - 1], *ops[v:])))
        return {kind: [b for b in edits if self.is_valid(b)] for kind, edits in found.items()}

    def crossover(self, a: Genome101, b: Genome101, rng: np.random.Generator, tries: int = 20) -> Genome101:
        self.check(a)
        self.check(b)
        first, second = _padded(a), _padded(b)
        for _ in range(tries):
            pick = rng.random(MAX_VERTICES) < 0.5
            columns = [(first if p else second)[v] for v, p in enumerate(pick)]
            adjacency = sum(bit(x, y) for y, (ins, _) in enumerate(columns) for x in ins)
            child = prune(Genome101(MAX_VERTICES, adjacency, tuple(op for _, op in columns[1:-1])))
            if child is not None and self.is_valid(child) and child not in (a, b):
                return child
        return a

    def encode(self, a: Genome101) -> str:
        """``<vertices>:<adjacency, hexadecimal>:<operation digits>``, e.g. ``4:2f:02``."""
        return f"{a.vertices}:{a.adjacency:x}:{''.join(map(str, a.ops))}"

    def decode(self, text: str) -> Genome101:
        parts = text.strip().split(":")
        if len(parts) != 3:
            raise CGError(f"nasbench101: {text!r} is not '<vertices>:<hex adjacency>:<operation digits>'")
        try:
            n, adjacency = int(parts[0]), int(parts[1], 16)
        except ValueError:
            raise CGError(f"nasbench101: {text!r}: {parts[0]!r} must be a decimal and {parts[1]!r} a hexadecimal "
                          "number") from None
        if not all(c in "012" for c in parts[2]) or len(parts[2]) != max(n - 2, 0):
            raise CGError(f"nasbench101: {text!r}: {parts[2]!r} must be {max(n - 2, 0)} digits 0, 1 or 2, one for each "
                          f"vertex between input and output ({', '.join(f'{i} = {op}' for i, op in enumerate(OPS))})")
        if n < 2 or not 0 <= adjacency < 2 ** (n * (n - 1) // 2):
            raise CGError(f"nasbench101: {text!r}: adjacency {parts[1]!r} does not fit {n} vertices")
        return Genome101(n, adjacency, tuple(int(c) for c in parts[2]))

    def from_matrix(self, matrix: np.ndarray, ops: Sequence[str]) -> Genome101:
        """Pruned genome of the benchmark's own form: upper-triangular 0/1 matrix ``[V, V]``, and V labels of which the
        first is ``input`` and the last ``output``. Raises ``CGError`` for another form or without a path.
        """
        m = np.asarray(matrix)
        n = len(ops)
        if n < 2 or m.shape != (n, n) or np.tril(m).any() or not np.isin(m, (0, 1)).all():
            raise CGError(f"nasbench101: need an upper-triangular 0/1 matrix with one row for each of the {n} ops, "
                          f"got {m.tolist()}")
        unknown = [op for op in ops[1:-1] if op not in OPS]
        if unknown:
            raise CGError(f"nasbench101: unknown operation {unknown[0]!r}; known: {', '.join(OPS)}")
        adjacency = sum(bit(int(x), int(y)) for x, y in zip(*np.nonzero(m), strict=True))
        cell = prune(Genome101(n, adjacency, tuple(OPS.index(op) for op in ops[1:-1])))
        if cell is None:
            raise CGError("nasbench101: the matrix has no path from input to output")
        return cell

    def key(self, a: Genome101) -> str:
        """The benchmark's own hash: isomorphic cells are one network."""
        return module_hash(a)

    def native(self, a: Genome101) -> np.ndarray:
        """Adjacency (21, ``bit`` order) and one-hot operations (5 x 3), padded to 7 vertices: float32 ``[36]``."""
        out = np.zeros(MAX_VERTICES * (MAX_VERTICES - 1) // 2 + (MAX_VERTICES - 2) * len(OPS), np.float32)
        for y, (ins, _) in enumerate(_padded(a)):
            for x in ins:
                out[x + y * (y - 1) // 2] = 1
        for v, op in enumerate(a.ops):
            out[21 + v * len(OPS) + op] = 1
        return out

    def choices(self) -> tuple[int, ...]:
        """Whether each of the 21 edges of 7 vertices is there (``bit`` order), then the operations of the inner vertices."""
        return (2,) * (MAX_VERTICES * (MAX_VERTICES - 1) // 2) + (len(OPS),) * (MAX_VERTICES - 2)

    def from_choices(self, options: Sequence[int]) -> Genome101:
        """The pruned cell; invalid if it has too many edges, or no path from input to output."""
        n_ops = MAX_VERTICES - 2
        adjacency = sum(int(there) << i for i, there in enumerate(options[:-n_ops]))
        a = Genome101(MAX_VERTICES, adjacency, tuple(map(int, options[-n_ops:])))
        return prune(a) or a

    def to_choices(self, a: Genome101) -> tuple[int, ...]:
        """The cell with its vertices first and the output last; the other vertices have no edges and no operation."""
        native = self.native(a)[:MAX_VERTICES * (MAX_VERTICES - 1) // 2]
        return (*(int(v) for v in native), *a.ops, *(-1,) * (MAX_VERTICES - a.vertices))

    def cell(self, a: Genome101) -> Cell:
        """Vertices as published: input, operations, output."""
        arrows = tuple((x, y) for y, feeds in enumerate(sources(a.vertices, a.adjacency)) for x in feeds)
        return Cell(("input", *(OPS[op] for op in a.ops), "output"), arrows, self.encode(a))

    def count_params(self, a: Genome101) -> int:
        fixed, by_op = _param_terms(a.vertices, a.adjacency)
        return fixed + sum(by_op[v][op] for v, op in enumerate(a.ops))

    def node_counts(self) -> dict[str, int]:
        counts = {OPS[op]: nodes_of(_apply, op, 16) for op in range(len(OPS))}
        return {**counts, "projection": nodes_of(_conv_bn_relu, 16, 1)}

    def to_graph(self, a: Genome101) -> Graph:
        self.check(a)
        return _build(self, a)

    def to_torch(self, a: Genome101) -> torch.nn.Module:
        from evo_search.spaces._nets.nasbench101 import Network101

        self.check(a)
        return Network101(a, self.num_classes)


def _padded(a: Genome101) -> list[tuple[tuple[int, ...], int]]:
    """For each of 7 vertices its sources and its operation; unused vertices stand before the output, without edges."""
    ins = sources(a.vertices, a.adjacency)
    columns = [(ins[v], a.ops[v - 1] if v > 0 else 0) for v in range(a.vertices - 1)]
    unused: list[tuple[tuple[int, ...], int]] = [((), 0)] * (MAX_VERTICES - a.vertices)
    return columns + unused + [(ins[-1], 0)]


def _conv_bn_params(c_in: int, c_out: int, kernel: int) -> int:
    return c_in * c_out * kernel * kernel + 2 * c_out


@lru_cache(maxsize=2**17)
def _param_terms(vertices: int, adjacency: int) -> tuple[int, tuple[tuple[int, int, int], ...]]:
    """Parameters of stem, projections and head; and for each inner vertex those of each operation, over all cells."""
    ins, last = sources(vertices, adjacency), vertices - 1
    fixed = _conv_bn_params(3, STACK_CHANNELS[0], 3) + (STACK_CHANNELS[-1] + 1) * NASBench101.num_classes
    conv3, conv1 = [0] * vertices, [0] * vertices
    for stack, c in enumerate(STACK_CHANNELS):
        channels = vertex_channels(vertices, adjacency, c)
        c_first = STACK_CHANNELS[max(stack - 1, 0)]
        for v in range(1, vertices):
            if 0 in ins[v]:
                fixed += _conv_bn_params(c_first, channels[v], 1)
                fixed += (CELLS_PER_STACK - 1) * _conv_bn_params(c, channels[v], 1)
            conv3[v] += CELLS_PER_STACK * _conv_bn_params(channels[v], channels[v], 3)
            conv1[v] += CELLS_PER_STACK * _conv_bn_params(channels[v], channels[v], 1)
    return fixed, tuple((conv3[v], conv1[v], 0) for v in range(1, last))


def _conv_bn_relu(b: GraphBuilder, x: int, channels: int, kernel: int) -> int:
    return b.relu(b.batch_norm(b.conv2d(x, channels, kernel=kernel)))


def _apply(b: GraphBuilder, x: int, op: int, channels: int) -> int:
    if op == POOL:
        return b.max_pool(x, kernel=3, stride=1, padding=1)
    return _conv_bn_relu(b, x, channels, 3 if op == CONV3 else 1)


def _cut(b: GraphBuilder, x: int, channels: int) -> int:
    """The first ``channels`` channels of ``x``; no node where there are no others."""
    n, c, h, w = b.shape(x)
    if c == channels:
        return x
    return b.op("Slice", [x], out_shape=(n, channels, h, w), axes=(1,), ends=(channels,), starts=(0,))


def _cell(b: GraphBuilder, x: int, a: Genome101, c_out: int) -> int:
    ins, last = sources(a.vertices, a.adjacency), a.vertices - 1
    channels = vertex_channels(a.vertices, a.adjacency, c_out)
    value = [x]
    for v in range(1, last):
        parts = [_cut(b, value[s], channels[v]) for s in ins[v] if s > 0]
        if ins[v][0] == 0:
            parts.append(_conv_bn_relu(b, x, channels[v], 1))
        total = parts[0] if len(parts) == 1 else b.add(*parts)
        value.append(_apply(b, total, a.ops[v - 1], channels[v]))
    joined = [value[s] for s in ins[last] if s > 0]
    projected = [_conv_bn_relu(b, x, c_out, 1)] if ins[last][0] == 0 else []
    if not joined:
        return projected[0]
    return b.add(b.concat(joined), *projected) if projected else b.concat(joined)


def _build(space: NASBench101, a: Genome101) -> Graph:
    from cg.builder import GraphBuilder

    b = GraphBuilder(name=space.encode(a), family=space.family)
    x = _conv_bn_relu(b, b.input(space.input_shape), STACK_CHANNELS[0], 3)
    for stack, c in enumerate(STACK_CHANNELS):
        if stack:
            x = b.max_pool(x, kernel=2, stride=2)
        x = b.repeat(partial(_cell, b, a=a, c_out=c), x, times=CELLS_PER_STACK)
    return b.build(b.linear(b.global_avg_pool(x), space.num_classes))
