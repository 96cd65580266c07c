"""The DARTS space (arXiv 1806.09055) at the size of NAS-Bench-301 (arXiv 2008.09777). Must not import torch.

Two cells, one for normal and one for reduction layers. A cell has two inputs (nodes 0 and 1: the outputs of the two
layers before, brought to one shape) and four inner nodes 2..5; an inner node is the sum of two edges with different
sources among the earlier nodes, each edge holding one of 7 operations; the cell's output joins the four inner nodes.
Macro-architecture: stem conv3x3-bn with 3 x 32 channels, 8 layers from 32 channels on, layers 2 and 5 (one third and
two thirds of 8) are reductions that double the channels, global average pooling, linear layer. The auxiliary head and
drop-path of the training recipe are not part of the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from cg.cells import Cell
from cg.errors import CGError
from evo_search.spaces._base import SearchSpace, nodes_of, one_of

if TYPE_CHECKING:
    import torch

    from cg.builder import GraphBuilder
    from cg.graph import Graph

OPS = ("max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5")
MAX_POOL, AVG_POOL, SKIP, SEP3, SEP5, DIL3, DIL5 = range(7)
INNER_NODES = 4
LAYERS, CHANNELS, STEM_MULTIPLIER = 8, 32, 3
_PAIRS = tuple(tuple(combinations(range(node), 2)) for node in range(2, INNER_NODES + 2))  # sources that a node may have

Edge301 = tuple[int, int]
"""(source node, operation index into ``OPS``)."""
Genome301 = tuple[Edge301, ...]
"""16 edges: two for each inner node of the normal cell, then two for each inner node of the reduction cell."""


class NASBench301(SearchSpace[Genome301]):
    """DARTS cells on CIFAR-10 as in NAS-Bench-301.

    Sampling is uniform: two different sources and two operations for every inner node, sources ascending. A mutation
    picks with equal chance an operation or a source to change, then one such change uniformly. Crossover takes each
    inner node, with both its edges, from either parent with equal chance. The order of a node's two edges is kept as
    written but means nothing: see ``key``.
    """

    name: ClassVar[str] = "nasbench301"
    family: ClassVar[str] = "nasbench301"

    def why_invalid(self, a: Genome301) -> str:
        if not isinstance(a, tuple) or len(a) != 4 * INNER_NODES:
            return f"a genome is a tuple of {4 * INNER_NODES} (source, operation) pairs"
        for slot, (source, op) in enumerate(a):
            node = slot // 2 % INNER_NODES + 2
            where = f"edge {slot} (into node {node} of the {'normal' if slot < 8 else 'reduction'} cell)"
            if op not in range(len(OPS)):
                return f"{where} has operation {op}; allowed are 0..{len(OPS) - 1}"
            if source not in range(node):
                return f"{where} has source {source}; allowed are 0..{node - 1}"
            if slot % 2 and a[slot - 1][0] == source:
                return f"{where} has the same source {source} as the edge before it"
        return ""

    def sample(self, rng: np.random.Generator) -> Genome301:
        edges: list[Edge301] = []
        for slot in range(2 * INNER_NODES):
            pair = sorted(rng.permutation(slot % INNER_NODES + 2)[:2])
            edges += [(int(source), int(rng.integers(len(OPS)))) for source in pair]
        return tuple(edges)

    def mutate(self, a: Genome301, rng: np.random.Generator) -> Genome301:
        self.check(a)
        ops = [(slot, (a[slot][0], op)) for slot in range(len(a)) for op in range(len(OPS)) if op != a[slot][1]]
        wires = [(slot, (source, a[slot][1])) for slot in range(len(a)) for source in range(slot // 2 % INNER_NODES + 2)
                 if source not in (a[slot][0], a[slot ^ 1][0])]
        slot, edge = one_of(one_of([ops, wires], rng), rng)
        return (*a[:slot], edge, *a[slot + 1:])

    def crossover(self, a: Genome301, b: Genome301, rng: np.random.Generator, tries: int = 20) -> Genome301:
        self.check(a)
        self.check(b)
        child = a
        for _ in range(tries):
            pick = np.repeat(rng.random(2 * INNER_NODES) < 0.5, 2)
            child = tuple(x if p else y for x, y, p in zip(a, b, pick, strict=True))
            if child not in (a, b):
                return child
        return child

    def encode(self, a: Genome301) -> str:
        """16 ``source:operation`` tokens, normal cell first."""
        return " ".join(f"{source}:{op}" for source, op in a)

    def decode(self, text: str) -> Genome301:
        tokens = text.split()
        if len(tokens) != 4 * INNER_NODES:
            raise CGError(f"nasbench301: {text!r} has {len(tokens)} tokens; a genome has {4 * INNER_NODES}")
        edges: list[Edge301] = []
        for i, token in enumerate(tokens):
            source, _, op = token.partition(":")
            if not (source.isdecimal() and op.isdecimal()) or int(op) >= len(OPS):
                raise CGError(f"nasbench301: token {i} of {text!r} is {token!r}; it must be '<source>:<op 0..6>'")
            edges.append((int(source), int(op)))
        return tuple(edges)

    def key(self, a: Genome301) -> str:
        """``encode`` with the two edges of every node in ascending order."""
        return self.encode(_sorted_edges(a))

    def native(self, a: Genome301) -> np.ndarray:
        """One-hot source (2..5 wide) and operation (7) of the 16 edges, sorted as in ``key``: float32 ``[168]``."""
        parts = []
        for slot, (source, op) in enumerate(_sorted_edges(a)):
            parts += [np.arange(slot // 2 % INNER_NODES + 2) == source, np.arange(len(OPS)) == op]
        return np.concatenate(parts).astype(np.float32)

    def choices(self) -> tuple[int, ...]:
        """For each node its pair of sources, then the operations of both edges."""
        return tuple(n for pairs in _PAIRS for n in (len(pairs), len(OPS), len(OPS))) * 2

    def from_choices(self, options: Sequence[int]) -> Genome301:
        edges: list[Edge301] = []
        for slot in range(2 * INNER_NODES):
            pair, *ops = map(int, options[3 * slot:3 * slot + 3])
            edges += zip(_PAIRS[slot % INNER_NODES][pair], ops, strict=True)
        return tuple(edges)

    def to_choices(self, a: Genome301) -> tuple[int, ...]:
        found: list[int] = []
        for slot, ((s, op), (t, op2)) in enumerate(_by_node(a)):
            found += [_PAIRS[slot % INNER_NODES].index((s, t)), op, op2]
        return tuple(found)

    def cell(self, a: Genome301) -> Cell:
        """Normal and reduction cell side by side: two inputs, eight operations, four sums and the output of each."""
        ops: list[str] = []
        arrows: list[tuple[int, int]] = []
        for part, edges in (("normal", a[:8]), ("reduce", a[8:])):
            value = [len(ops), len(ops) + 1]  # nodes that hold the inputs and the sums
            ops += [f"{part} input 0", f"{part} input 1"]
            for slot in range(0, 8, 2):
                made = []
                for source, op in edges[slot:slot + 2]:
                    arrows.append((value[source], len(ops)))
                    made.append(len(ops))
                    ops.append(OPS[op])
                arrows += [(m, len(ops)) for m in made]
                value.append(len(ops))
                ops.append("sum")
            arrows += [(v, len(ops)) for v in value[2:]]
            ops.append(f"{part} output")
        return Cell(tuple(ops), tuple(arrows), self.encode(a))

    def count_params(self, a: Genome301) -> int:
        return _fixed_params(self.num_classes) + sum(
            _edge_params(op, slot >= 2 * INNER_NODES, source < 2) for slot, (source, op) in enumerate(a))

    def node_counts(self) -> dict[str, int]:
        """At stride 1, and at stride 2 under the name with ``/2``."""
        return {OPS[op] + ("/2" if stride == 2 else ""): nodes_of(_apply, op, 16, stride)
                for stride in (1, 2) for op in range(len(OPS))}

    def to_graph(self, a: Genome301) -> Graph:
        self.check(a)
        return _build(self, a)

    def to_torch(self, a: Genome301) -> torch.nn.Module:
        from evo_search.spaces._nets.darts import Network301

        self.check(a)
        return Network301(a, self.num_classes)


def _by_node(a: Genome301) -> list[tuple[Edge301, Edge301]]:
    """The two edges of every node, ascending."""
    edges = _sorted_edges(a)
    return list(zip(edges[::2], edges[1::2], strict=True))


def _sorted_edges(a: Genome301) -> Genome301:
    return tuple(edge for slot in range(0, len(a), 2) for edge in sorted(a[slot:slot + 2]))


@lru_cache
def layer_plan(layers: int = LAYERS, channels: int = CHANNELS) -> tuple[tuple[int, int, int, bool, bool], ...]:
    """For each layer: channels of the two inputs, own channels, whether it reduces, whether the layer before did."""
    plan, reduced = [], False
    before = last = STEM_MULTIPLIER * channels
    for layer in range(layers):
        reduces = layer in (layers // 3, 2 * layers // 3)
        channels *= 2 if reduces else 1
        plan.append((before, last, channels, reduces, reduced))
        before, last, reduced = last, INNER_NODES * channels, reduces
    return tuple(plan)


@lru_cache
def _fixed_params(num_classes: int) -> int:
    """Stem, preprocessing of every layer's inputs, head."""
    stem = STEM_MULTIPLIER * CHANNELS
    total = 3 * stem * 9 + 2 * stem
    for before, last, c, _, _ in layer_plan():  # a factorised reduction has as many weights as a 1x1 convolution
        total += (before + last) * c + 4 * c
    return total + (INNER_NODES * layer_plan()[-1][2] + 1) * num_classes


@lru_cache
def _edge_params(op: int, in_reduction: bool, from_input: bool) -> int:
    """One edge, over all layers that use its cell."""
    total = 0
    for _, _, c, reduces, _ in layer_plan():
        if reduces is not in_reduction:
            continue
        kernel = {SEP3: 3, SEP5: 5, DIL3: 3, DIL5: 5}.get(op)
        if kernel is not None:
            total += (2 if op in (SEP3, SEP5) else 1) * (c * kernel * kernel + c * c + 2 * c)
        elif op == SKIP and reduces and from_input:
            total += c * c + 2 * c
    return total


def _factorized_reduce(b: GraphBuilder, x: int, channels: int) -> int:
    """Halve the size: two 1x1 convolutions of stride 2, the second one a pixel further down and right."""
    x = b.relu(x)
    even = b.conv2d(x, channels // 2, kernel=1, stride=2)
    odd = b.conv2d(b.slice(x, axes=(2, 3), starts=(1, 1)), channels // 2, kernel=1, stride=2)
    return b.batch_norm(b.concat([even, odd]))


def _separable(b: GraphBuilder, x: int, kernel: int, stride: int = 1, dilation: int = 1) -> int:
    """ReLU, depthwise and pointwise convolution, normalisation."""
    channels = b.shape(x)[1]
    x = b.conv2d(b.relu(x), channels, kernel=kernel, stride=stride, dilation=dilation, groups=channels)
    return b.batch_norm(b.conv2d(x, channels, kernel=1))


def _apply(b: GraphBuilder, x: int, op: int, channels: int, stride: int) -> int:
    if op == MAX_POOL:
        return b.max_pool(x, kernel=3, stride=stride, padding=1)
    if op == AVG_POOL:
        return b.avg_pool(x, kernel=3, stride=stride, padding=1, count_include_pad=False)
    if op == SKIP:
        return x if stride == 1 else _factorized_reduce(b, x, channels)
    kernel = 3 if op in (SEP3, DIL3) else 5
    if op in (DIL3, DIL5):
        return _separable(b, x, kernel, stride, dilation=2)
    return _separable(b, _separable(b, x, kernel, stride), kernel)


def _build(space: NASBench301, a: Genome301) -> Graph:
    from cg.builder import GraphBuilder

    b = GraphBuilder(name=space.encode(a), family=space.family)
    stem = b.conv2d(b.input(space.input_shape), STEM_MULTIPLIER * CHANNELS, kernel=3)
    s0 = s1 = b.batch_norm(stem)
    for _, _, c, reduces, reduced in layer_plan():
        if reduced:
            first = _factorized_reduce(b, s0, c)
        else:
            first = b.batch_norm(b.conv2d(b.relu(s0), c, kernel=1))
        value = [first, b.batch_norm(b.conv2d(b.relu(s1), c, kernel=1))]
        edges = a[2 * INNER_NODES:] if reduces else a[:2 * INNER_NODES]
        for (s, op), (t, op2) in zip(edges[::2], edges[1::2], strict=True):
            left = _apply(b, value[s], op, c, 2 if reduces and s < 2 else 1)
            right = _apply(b, value[t], op2, c, 2 if reduces and t < 2 else 1)
            value.append(b.add(left, right))
        s0, s1 = s1, b.concat(value[2:])
    return b.build(b.linear(b.global_avg_pool(s1), space.num_classes))
