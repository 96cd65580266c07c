"""NAS-Bench-201 (arXiv 2001.00326): genome, edits, validity and direct graph builder. Must not import torch.

A cell has 4 nodes; each of the 6 edges j -> i (j < i) holds one of 5 operations, and a node is the sum of its incoming
edges. Macro-architecture: stem conv3x3-bn (16), three stages of 5 cells with 16, 32 and 64 channels, a residual block
with stride 2 between stages, bn-relu, global average pooling, linear layer.

Which edges are in the graph. ``none`` multiplies by zero, so it is no edge at all. A node without any path from the
cell's input holds a constant, and a node without a path to the cell's output is never read; edges that touch such a
node are left out. Exactly the edges on a path from input to output remain, in the graph and in the module's forward.
The published parameter counts also keep the weights of edges that were left out: see ``count_params``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from itertools import pairwise, product
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from cg.cells import Cell
from cg.errors import CGError
from evo_search.spaces._base import SearchSpace, nodes_of, one_of

if TYPE_CHECKING:
    import torch

    from cg.builder import GraphBuilder
    from cg.graph import Graph

OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
NONE, SKIP, CONV1, CONV3, POOL = range(5)
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))  # (source, target) in the order of the official string
STAGE_CHANNELS = (16, 32, 64)
CELLS_PER_STAGE = 5

Genome201 = tuple[int, int, int, int, int, int]
"""Operation index (into ``OPS``) of each edge of ``EDGES``."""


@lru_cache(maxsize=5**6)
def live_edges(a: Genome201) -> tuple[tuple[int, int, int], ...]:
    """``(source, target, operation)`` of the edges on a path from cell input to cell output, in ``EDGES`` order."""
    real = [(s, t, op) for (s, t), op in zip(EDGES, a, strict=True) if op != NONE]
    fed, read = {0}, {3}
    for s, t, _ in real:  # sorted by target, so one sweep each way is enough
        if s in fed:
            fed.add(t)
    for s, t, _ in reversed(real):
        if t in read:
            read.add(s)
    return tuple(e for e in real if e[0] in fed and e[1] in read)


class NASBench201(SearchSpace[Genome201]):
    """The 15,625 cells of NAS-Bench-201 on CIFAR-10, of which 15,284 connect input and output and so are valid.

    Sampling is uniform over the valid cells. A mutation changes the operation of one edge, uniformly among the changes
    that leave a valid cell. Crossover takes each edge's operation from either parent with equal chance.
    """

    name: ClassVar[str] = "nasbench201"
    family: ClassVar[str] = "nasbench201"

    def why_invalid(self, a: Genome201) -> str:
        if not (isinstance(a, tuple) and len(a) == len(EDGES) and all(op in range(len(OPS)) for op in a)):
            return f"a genome is a tuple of {len(EDGES)} operation indices 0..{len(OPS) - 1}"
        return "" if live_edges(a) else "no path of real edges joins the cell's input to its output"

    def all_genomes(self) -> list[Genome201]:
        """The 15,284 valid genomes in lexicographic order."""
        return [a for a in product(range(len(OPS)), repeat=len(EDGES)) if live_edges(a)]  # type: ignore[misc]

    def sample(self, rng: np.random.Generator) -> Genome201:
        for _ in range(1000):  # one draw in 46 is invalid
            a: Genome201 = tuple(int(v) for v in rng.integers(len(OPS), size=len(EDGES)))  # type: ignore[assignment]
            if live_edges(a):
                return a
        raise CGError("nasbench201: 1,000 draws in a row gave no valid cell; the generator is not random")

    def mutate(self, a: Genome201, rng: np.random.Generator) -> Genome201:
        self.check(a)
        near: list[Genome201] = [(*a[:e], op, *a[e + 1:]) for e in range(len(EDGES))  # type: ignore[misc]
                                 for op in range(len(OPS)) if op != a[e]]
        return one_of([b for b in near if live_edges(b)], rng)

    def crossover(self, a: Genome201, b: Genome201, rng: np.random.Generator, tries: int = 20) -> Genome201:
        self.check(a)
        self.check(b)
        child = a
        for _ in range(tries):
            pick = rng.random(len(EDGES)) < 0.5
            child = tuple(x if p else y for x, y, p in zip(a, b, pick, strict=True))  # type: ignore[assignment]
            if live_edges(child) and child not in (a, b):
                return child
        return child if live_edges(child) else a

    def encode(self, a: Genome201) -> str:
        """The official string, e.g. ``|nor_conv_3x3~0|+|none~0|skip_connect~1|+|…~0|…~1|…~2|``."""
        part = [f"{OPS[op]}~{s}" for (s, _), op in zip(EDGES, a, strict=True)]
        return f"|{part[0]}|+|{part[1]}|{part[2]}|+|{part[3]}|{part[4]}|{part[5]}|"

    def decode(self, text: str) -> Genome201:
        nodes = text.strip().split("+")
        if len(nodes) != 3:
            raise CGError(f"nasbench201: {text!r} has {len(nodes)} parts joined by '+'; a cell has 3")
        ops: list[int] = []
        for t, node in enumerate(nodes, start=1):
            tokens = node.strip().strip("|").split("|")
            if len(tokens) != t:
                raise CGError(f"nasbench201: node {t} in {text!r} has {len(tokens)} edges; it must have {t}")
            for s, token in enumerate(tokens):
                op, _, source = token.partition("~")
                if op not in OPS or source != str(s):
                    raise CGError(f"nasbench201: edge {token!r} of node {t} in {text!r} is not '<op>~{s}' "
                                  f"with op one of {', '.join(OPS)}")
                ops.append(OPS.index(op))
        return tuple(ops)  # type: ignore[return-value]

    def native(self, a: Genome201) -> np.ndarray:
        """One-hot operation of each edge, float32 ``[30]``."""
        return np.eye(len(OPS), dtype=np.float32)[list(a)].ravel()

    def choices(self) -> tuple[int, ...]:
        return (len(OPS),) * len(EDGES)

    def from_choices(self, options: Sequence[int]) -> Genome201:
        return tuple(map(int, options))  # type: ignore[return-value]

    def to_choices(self, a: Genome201) -> tuple[int, ...]:
        return a

    def cell(self, a: Genome201) -> Cell:
        """Operations are nodes: input, those of ``EDGES``, output; an operation feeds all that start where it ends."""
        arrows = [(0, k + 1) for k, (s, _) in enumerate(EDGES) if s == 0]
        arrows += [(j + 1, k + 1) for j, (_, t) in enumerate(EDGES) for k, (s, _) in enumerate(EDGES) if s == t]
        arrows += [(k + 1, len(EDGES) + 1) for k, (_, t) in enumerate(EDGES) if t == 3]
        return Cell(("input", *(OPS[op] for op in a), "output"), tuple(arrows), self.encode(a))

    def count_params(self, a: Genome201, published: bool = True) -> int:
        """Trained scalars. ``published``: with the weights of edges that no signal passes, as the benchmark counts
        (and as ``to_torch`` holds them); otherwise of the pruned network, ``to_graph(a).params``. Needs no validity.
        """
        ops = list(a) if published else [op for _, _, op in live_edges(a)]
        return _fixed_params(self.num_classes) + sum(_edge_params(op) for op in ops)

    def node_counts(self) -> dict[str, int]:
        return {name: 0 if op == NONE else nodes_of(_apply, op, 16) for op, name in enumerate(OPS)}

    def to_graph(self, a: Genome201) -> Graph:
        self.check(a)
        return _build(self, a)

    def to_torch(self, a: Genome201) -> torch.nn.Module:
        from evo_search.spaces._nets.nasbench201 import Network201

        self.check(a)
        return Network201(a, self.num_classes)


class NASBench201Cifar100(NASBench201):
    """The same cells with a 100-class head."""

    name: ClassVar[str] = "nasbench201-cifar100"
    num_classes: ClassVar[int] = 100


class NASBench201ImageNet16(NASBench201):
    """The same cells on 16 x 16 images with a 120-class head (ImageNet16-120)."""

    name: ClassVar[str] = "nasbench201-imagenet16"
    input_shape: ClassVar[tuple[int, int, int, int]] = (1, 3, 16, 16)
    num_classes: ClassVar[int] = 120


cifar100, imagenet16 = NASBench201Cifar100, NASBench201ImageNet16  # the names of the entry points


def _conv_bn(c_in: int, c_out: int, kernel: int) -> int:
    return c_in * c_out * kernel * kernel + 2 * c_out


@lru_cache
def _fixed_params(num_classes: int) -> int:
    """Stem, residual blocks, last normalisation and head."""
    total = _conv_bn(3, STAGE_CHANNELS[0], 3)
    for c_in, c_out in pairwise(STAGE_CHANNELS):
        total += _conv_bn(c_in, c_out, 3) + _conv_bn(c_out, c_out, 3) + c_in * c_out
    last = STAGE_CHANNELS[-1]
    return total + 2 * last + (last + 1) * num_classes


@lru_cache
def _edge_params(op: int) -> int:
    """One edge of the cell, over all cells of the network."""
    kernel = {CONV1: 1, CONV3: 3}.get(op)
    return 0 if kernel is None else CELLS_PER_STAGE * sum(_conv_bn(c, c, kernel) for c in STAGE_CHANNELS)


def _relu_conv_bn(b: GraphBuilder, x: int, channels: int, kernel: int, stride: int = 1) -> int:
    return b.batch_norm(b.conv2d(b.relu(x), channels, kernel=kernel, stride=stride))


def _apply(b: GraphBuilder, x: int, op: int, channels: int) -> int:
    """One edge of a cell; ``skip_connect`` makes no node."""
    if op == POOL:
        return b.avg_pool(x, kernel=3, stride=1, padding=1, count_include_pad=False)
    return x if op == SKIP else _relu_conv_bn(b, x, channels, 1 if op == CONV1 else 3)


def _cell(b: GraphBuilder, x: int, edges: tuple[tuple[int, int, int], ...], channels: int) -> int:
    value = {0: x}
    for s, t, op in edges:
        v = _apply(b, value[s], op, channels)
        value[t] = b.add(value[t], v) if t in value else v
    return value[3]


def _build(space: NASBench201, a: Genome201) -> Graph:
    from cg.builder import GraphBuilder

    b = GraphBuilder(name=space.encode(a), family=space.family)
    edges = live_edges(a)
    x = b.input(space.input_shape)
    x = b.batch_norm(b.conv2d(x, STAGE_CHANNELS[0], kernel=3))
    for stage, c in enumerate(STAGE_CHANNELS):
        if stage:
            y = _relu_conv_bn(b, _relu_conv_bn(b, x, c, 3, stride=2), c, 3)
            shortcut = b.conv2d(b.avg_pool(x, kernel=2, stride=2, padding=0), c, kernel=1)
            x = b.add(shortcut, y)
        x = b.repeat(partial(_cell, b, edges=edges, channels=c), x, times=CELLS_PER_STAGE)
    x = b.global_avg_pool(b.relu(b.batch_norm(x)))
    return b.build(b.linear(x, space.num_classes))
