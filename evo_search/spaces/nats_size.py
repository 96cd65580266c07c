"""The size space of NATS-Bench (arXiv 2009.00437): channels of five layers on CIFAR-10. Must not import torch.

Macro-architecture: stem conv3x3-bn (c1), cell (c1), residual block with stride 2 (c2), cell (c3), residual block with stride 2
(c4), cell (c5), bn-relu, global average pooling, linear layer; the stem takes the first channel number. The cell is one of
NAS-Bench-201, always the same: five 3x3 convolutions beside a skip connection,
``|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|``. The edges that leave its
input change the number of channels; the skip connection then is a 1x1 convolution and a normalisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from cg.cells import Cell
from cg.errors import CGError
from evo_search.spaces._base import SearchSpace, nodes_of, one_of

if TYPE_CHECKING:
    import torch

    from cg.builder import GraphBuilder
    from cg.graph import Graph

CHANNELS = (8, 16, 24, 32, 40, 48, 56, 64)
LAYERS = 5
REDUCTIONS = (1, 3)  # the layers that halve the size
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))  # (source, target) of the cell's edges
SKIP_EDGE = (0, 3)  # the one that is no convolution

GenomeNATS = tuple[int, int, int, int, int]
"""Channels of the five layers."""


class NATSBenchSize(SearchSpace[GenomeNATS]):
    """The 32,768 networks of the size space, with 10 classes.

    Sampling is uniform. A mutation gives one layer another number of channels, both uniformly. Crossover takes each layer's
    channels from either parent with equal chance.
    """

    name: ClassVar[str] = "nats-size"
    family: ClassVar[str] = "nats-size"

    def why_invalid(self, a: GenomeNATS) -> str:
        if not (isinstance(a, tuple) and len(a) == LAYERS):
            return f"a genome is a tuple of {LAYERS} channel numbers"
        bad = next((i for i, c in enumerate(a) if c not in CHANNELS), None)
        return "" if bad is None else f"layer {bad} has {a[bad]} channels; allowed are {', '.join(map(str, CHANNELS))}"

    def all_genomes(self) -> list[GenomeNATS]:
        """The 32,768 genomes, the last layer's channels changing fastest."""
        return list(product(CHANNELS, repeat=LAYERS))  # type: ignore[arg-type]

    def sample(self, rng: np.random.Generator) -> GenomeNATS:
        return tuple(CHANNELS[i] for i in rng.integers(len(CHANNELS), size=LAYERS))  # type: ignore[return-value]

    def mutate(self, a: GenomeNATS, rng: np.random.Generator) -> GenomeNATS:
        self.check(a)
        i = int(rng.integers(LAYERS))
        return (*a[:i], one_of([c for c in CHANNELS if c != a[i]], rng), *a[i + 1:])  # type: ignore[return-value]

    def crossover(self, a: GenomeNATS, b: GenomeNATS, rng: np.random.Generator, tries: int = 20) -> GenomeNATS:
        self.check(a)
        self.check(b)
        child = a
        for _ in range(tries):
            pick = rng.random(LAYERS) < 0.5
            child = tuple(x if p else y for x, y, p in zip(a, b, pick, strict=True))  # type: ignore[assignment]
            if child not in (a, b):
                return child
        return child

    def encode(self, a: GenomeNATS) -> str:
        """The official string, e.g. ``8:16:24:32:64``."""
        return ":".join(map(str, a))

    def decode(self, text: str) -> GenomeNATS:
        numbers = text.strip().split(":")
        if len(numbers) != LAYERS:
            raise CGError(f"nats-size: {text!r} has {len(numbers)} numbers joined by ':'; a genome has {LAYERS}")
        bad = next((i for i, n in enumerate(numbers) if not (n.isascii() and n.isdecimal())), None)
        if bad is not None:
            raise CGError(f"nats-size: layer {bad} of {text!r} is {numbers[bad]!r}, not a number of channels")
        return tuple(map(int, numbers))  # type: ignore[return-value]

    def native(self, a: GenomeNATS) -> np.ndarray:
        """One-hot channels of each layer, float32 ``[40]``."""
        return np.concatenate([np.array(CHANNELS) == c for c in a]).astype(np.float32)

    def choices(self) -> tuple[int, ...]:
        return (len(CHANNELS),) * LAYERS

    def from_choices(self, options: Sequence[int]) -> GenomeNATS:
        return tuple(CHANNELS[i] for i in options)  # type: ignore[return-value]

    def to_choices(self, a: GenomeNATS) -> tuple[int, ...]:
        return tuple(map(CHANNELS.index, a))

    def cell(self, a: GenomeNATS) -> Cell:
        """The chain of the five layers with their channels, between input and output."""
        ops = ("input", *(f"{'reduction' if i in REDUCTIONS else 'cell'}_c{c}" for i, c in enumerate(a)), "output")
        return Cell(ops, tuple((i, i + 1) for i in range(len(ops) - 1)), self.encode(a))

    def count_params(self, a: GenomeNATS) -> int:
        total, before = 27 * a[0] + 2 * a[0], a[0]
        for i, c in enumerate(a):
            if i in REDUCTIONS:  # two 3x3 convolutions with normalisation, a 1x1 convolution without
                total += 9 * (before + c) * c + 4 * c + before * c
            else:  # edges 0-1 and 0-2 from the input, three inner ones, the skip connection
                total += 2 * 9 * before * c + 3 * 9 * c * c + 5 * 2 * c
                total += 0 if before == c else before * c + 2 * c
            before = c
        return total + 2 * before + (before + 1) * self.num_classes

    def node_counts(self) -> dict[str, int]:
        """Of a layer, without its additions (three in a cell, one in a reduction)."""
        return {"cell": nodes_of(_cell, 16) - 3, "cell, other channels": nodes_of(_cell, 24) - 3,
                "reduction": nodes_of(_reduction, 24) - 1}

    def to_graph(self, a: GenomeNATS) -> Graph:
        self.check(a)
        return _build(self, a)

    def to_torch(self, a: GenomeNATS) -> torch.nn.Module:
        from evo_search.spaces._nets.nats_size import NetworkNATS

        self.check(a)
        return NetworkNATS(a, self.num_classes)


def _relu_conv_bn(b: GraphBuilder, x: int, channels: int, stride: int = 1) -> int:
    return b.batch_norm(b.conv2d(b.relu(x), channels, kernel=3, stride=stride))


def _cell(b: GraphBuilder, x: int, channels: int) -> int:
    value = {0: x}
    for s, t in EDGES:
        if (s, t) != SKIP_EDGE:
            v = _relu_conv_bn(b, value[s], channels)
        elif b.shape(x)[1] == channels:
            v = x
        else:
            v = b.batch_norm(b.conv2d(x, channels, kernel=1))
        value[t] = b.add(value[t], v) if t in value else v
    return value[3]


def _reduction(b: GraphBuilder, x: int, channels: int) -> int:
    y = _relu_conv_bn(b, _relu_conv_bn(b, x, channels, stride=2), channels)
    return b.add(b.conv2d(b.avg_pool(x, kernel=2), channels, kernel=1), y)


def _build(space: NATSBenchSize, a: GenomeNATS) -> Graph:
    from cg.builder import GraphBuilder

    b = GraphBuilder(name=space.encode(a), family=space.family)
    x = b.batch_norm(b.conv2d(b.input(space.input_shape), a[0], kernel=3))
    for i, c in enumerate(a):
        x = _reduction(b, x, c) if i in REDUCTIONS else _cell(b, x, c)
    return b.build(b.linear(b.global_avg_pool(b.relu(b.batch_norm(x))), space.num_classes))
