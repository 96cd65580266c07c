"""Once-for-All on ResNet-50-D (arXiv 1908.09791, arXiv 1812.01187): genome, edits, direct graph builder. Must not import torch.

Stem: conv3x3 of stride 2 (half of the stem's channels), a residual conv3x3 that may be left out, conv3x3 (64 channels), max
pooling. Four stages of bottlenecks with 256 512 1024 2048 channels: at least 2, 2, 4 and 2 blocks, and up to two more; the
middle of a block has 0.2, 0.25 or 0.35 of the stage's channels. The first block of a stage has stride 1 2 2 2 and a shortcut of
average pooling, 1x1 convolution and normalisation. Then pooling and classifier. The channels of the first stem convolution, of
the stem and of every stage are multiplied by 0.65, 0.8 or 1, each on its own, and made divisible by 8.

These are the networks of the published weights ``ofa_resnet50_d0-1-2_e0.2-0.25-0.35_w0.65-0.8-1.0``. The first stem convolution
has 24, 24 or 32 channels, so that its first two choices are the same network: see ``key``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from cg.cells import Cell
from cg.errors import CGError
from evo_search.spaces._base import SearchSpace, T, nodes_of, one_of
from evo_search.spaces._mbconv import make_divisible

if TYPE_CHECKING:
    import torch

    from cg.builder import GraphBuilder
    from cg.graph import Graph

DEPTHS, EXPANDS, WIDTHS = (0, 1, 2), (0.2, 0.25, 0.35), (0.65, 0.8, 1.0)
BASE_DEPTH, STAGE_CHANNELS, STRIDES, STEM = (2, 2, 4, 2), (256, 512, 1024, 2048), (1, 2, 2, 2), 64
RESOLUTIONS = (128, 144, 160, 176, 192, 224, 240, 256)
"""Sides of the input image, pixels, that the published accuracy predictor of these networks knows."""
_MOST = tuple(base + DEPTHS[-1] for base in BASE_DEPTH)  # blocks of a stage at most
_PLACES = tuple((s, j) for s, most in enumerate(_MOST) for j in range(most))


class GenomeResNet(NamedTuple):
    """One sub-network.

    Attributes:
        d: 2 or 0 for a stem with or without its residual convolution; blocks of each stage above the least number, 0 to 2.
        e: ratio of middle to output channels, 0.2, 0.25 or 0.35, at each of the 4 + 4 + 6 + 4 places; 0 where no block is.
        w: index into ``WIDTHS`` for the first stem convolution, the stem and the four stages.
        r: side of the input image, pixels.
    """

    d: tuple[int, ...]
    e: tuple[float, ...]
    w: tuple[int, ...]
    r: int


class Bottleneck(NamedTuple):
    """One block: channels in, in the middle and out, stride of the middle convolution."""

    c_in: int
    mid: int
    c_out: int
    stride: int

    @property
    def projects(self) -> bool:
        """Whether the shortcut has a convolution."""
        return self.stride != 1 or self.c_in != self.c_out


class ResNetPlan(NamedTuple):
    """A network: channels of the first stem convolution and of the stem, whether the residual one is there, the blocks."""

    first: int
    stem: int
    deep: bool
    blocks: tuple[Bottleneck, ...]


@lru_cache
def stem_channels() -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Channels of the first stem convolution and of the stem for each index of width."""
    stem = tuple(make_divisible(STEM * w) for w in WIDTHS)
    return tuple(make_divisible(c // 2) for c in stem), stem


@lru_cache(maxsize=256)
def _channels(stage: int, width: int, expand: float) -> tuple[int, int]:
    """Output and middle channels of a block."""
    out = make_divisible(STAGE_CHANNELS[stage] * WIDTHS[width])
    return out, make_divisible(round(out * expand))


def there(d: tuple[int, ...]) -> list[bool]:
    """Whether a block is at each of the 18 places."""
    return [j < BASE_DEPTH[s] + d[s + 1] for s, j in _PLACES]


class OFAResNet50(SearchSpace[GenomeResNet]):
    """Sub-networks of Once-for-All on ResNet-50-D.

    Sampling as the official code does: every gene uniform and independent (the residual stem convolution is there or not; three
    values for depth, ratio and width; eight resolutions). A mutation picks one of the genes that are there and gives it another
    value, both uniformly, among those that make another network; blocks that appear are sampled. Crossover takes the stem (its
    residual convolution and two widths), each stage (depth, ratios, width) and the resolution from either parent with equal
    chance.

    Args:
        resolutions: sides of the input image to choose from; all of ``RESOLUTIONS`` if None.
    """

    name: ClassVar[str] = "ofa-resnet50"
    family: ClassVar[str] = "ofa-resnet50"
    input_shape: ClassVar[tuple[int, int, int, int]] = (1, 3, 256, 256)
    num_classes: ClassVar[int] = 1000

    def __init__(self, resolutions: tuple[int, ...] | None = None) -> None:
        self.resolutions = RESOLUTIONS if resolutions is None else tuple(resolutions)
        if not self.resolutions or any(r not in RESOLUTIONS for r in self.resolutions):
            raise CGError(f"{self.name}: resolutions = {self.resolutions}; they must be some of {RESOLUTIONS}")

    def why_invalid(self, a: GenomeResNet) -> str:
        if not (isinstance(a, GenomeResNet) and all(isinstance(part, tuple) for part in a[:3])):
            return "a genome is a GenomeResNet of three tuples and the resolution"
        for name, part, n in zip("dew", a[:3], (5, len(_PLACES), 6), strict=True):
            if len(part) != n:
                return f"{name} has {len(part)} entries; it must have {n}"
        for i, depth in enumerate(a.d):
            if depth not in (DEPTHS if i else (0, 2)):
                return f"d[{i}] = {depth}; allowed are {DEPTHS if i else (0, 2)}"
        for i, (e, present) in enumerate(zip(a.e, there(a.d), strict=True)):
            if e not in (EXPANDS if present else (0,)):
                return f"e[{i}] = {e}; allowed are {EXPANDS if present else (0,)}"
        bad = next((i for i, w in enumerate(a.w) if w not in range(len(WIDTHS))), None)
        if bad is not None:
            return f"w[{bad}] = {a.w[bad]}; allowed are 0..{len(WIDTHS) - 1}"
        return "" if a.r in self.resolutions else f"r = {a.r} is none of this space's resolutions {self.resolutions}"

    def sample(self, rng: np.random.Generator) -> GenomeResNet:
        d = (one_of([0, 2], rng), *(one_of(list(DEPTHS), rng) for _ in BASE_DEPTH))
        draws = rng.integers(len(EXPANDS), size=len(_PLACES))
        e = tuple(EXPANDS[i] if present else 0.0 for i, present in zip(draws, there(d), strict=True))
        w = tuple(int(i) for i in rng.integers(len(WIDTHS), size=6))
        return GenomeResNet(d, e, w, one_of(list(self.resolutions), rng))

    def mutate(self, a: GenomeResNet, rng: np.random.Generator) -> GenomeResNet:
        self.check(a)
        genes = [("d", i) for i in range(len(a.d))] + [("e", i) for i, present in enumerate(there(a.d)) if present]
        genes += [("w", i) for i in range(len(a.w))] + ([("r", 0)] if len(self.resolutions) > 1 else [])
        name, i = one_of(genes, rng)
        if name == "r":
            return a._replace(r=one_of([r for r in self.resolutions if r != a.r], rng))
        if name == "e":
            return a._replace(e=_with(a.e, i, one_of([v for v in EXPANDS if v != a.e[i]], rng)))
        if name == "w":
            first = stem_channels()[0]
            others = [v for v in range(len(WIDTHS)) if (v != a.w[i] if i else first[v] != first[a.w[0]])]
            return a._replace(w=_with(a.w, i, one_of(others, rng)))
        d = _with(a.d, i, one_of([v for v in (DEPTHS if i else (0, 2)) if v != a.d[i]], rng))
        e = tuple((v or one_of(list(EXPANDS), rng)) if present else 0.0 for v, present in zip(a.e, there(d), strict=True))
        return a._replace(d=d, e=e)

    def crossover(self, a: GenomeResNet, b: GenomeResNet, rng: np.random.Generator, tries: int = 20) -> GenomeResNet:
        self.check(a)
        self.check(b)
        child, known = a, (self.key(a), self.key(b))
        for _ in range(tries):
            pick = [a if p else b for p in rng.random(6) < 0.5]  # stem, stages, resolution
            child = GenomeResNet(tuple(p.d[i] for i, p in enumerate(pick[:5])),
                                 tuple(pick[s + 1].e[i] for i, (s, _) in enumerate(_PLACES)),
                                 (*pick[0].w[:2], *(pick[s + 1].w[s + 2] for s in range(4))), pick[5].r)
            if self.key(child) not in known:
                return child
        return child

    def encode(self, a: GenomeResNet) -> str:
        """``<d>,<e>,<w>,<r>`` with ``-`` between the numbers of a list."""
        return ",".join(["-".join(f"{v:g}" for v in part) for part in a[:3]] + [str(a.r)])

    def decode(self, text: str) -> GenomeResNet:
        try:
            d, e, w, r = text.strip().split(",")
            depths, widths = (tuple(map(int, part.split("-"))) for part in (d, w))
            return GenomeResNet(depths, tuple(map(float, e.split("-"))), widths, int(r))
        except ValueError:
            raise CGError(f"ofa-resnet50: {text!r} is not '<d>,<e>,<w>,<r>' with '-' between the numbers of a list") from None

    def key(self, a: GenomeResNet) -> str:
        """``encode`` with the least index of those that give the first stem convolution its channels."""
        return self.encode(_least_width(a))

    def native(self, a: GenomeResNet) -> np.ndarray:
        """Residual stem convolution or not, one-hot width of stem and stages (6 x 3) and ratio of every place (18 x 3, zero
        where no block is), one-hot resolution, of the network that ``key`` names: float32 ``[81]`` with all resolutions."""
        a = _least_width(a)
        e, w = np.zeros((len(_PLACES), 3)), np.eye(3)[list(a.w)]
        for i, value in enumerate(a.e):
            if value:
                e[i, EXPANDS.index(value)] = 1
        return np.concatenate([[a.d[0] > 0], w.ravel(), e.ravel(), np.array(self.resolutions) == a.r]).astype(np.float32)

    def choices(self) -> tuple[int, ...]:
        """Stem and depths, widths, ratio of every place, resolution."""
        depths = (2, *(len(DEPTHS),) * len(BASE_DEPTH))
        return (*depths, *(len(WIDTHS),) * 6, *(len(EXPANDS),) * len(_PLACES), len(self.resolutions))

    def from_choices(self, options: Sequence[int]) -> GenomeResNet:
        options = [int(i) for i in options]
        d = (2 * options[0], *(DEPTHS[i] for i in options[1:5]))
        e = tuple(EXPANDS[i] if present else 0.0 for i, present in zip(options[11:-1], there(d), strict=True))
        return GenomeResNet(d, e, tuple(options[5:11]), self.resolutions[options[-1]])

    def to_choices(self, a: GenomeResNet) -> tuple[int, ...]:
        ratios = (EXPANDS.index(e) if e else -1 for e in a.e)
        return (a.d[0] // 2, *map(DEPTHS.index, a.d[1:]), *a.w, *ratios, self.resolutions.index(a.r))

    def cell(self, a: GenomeResNet) -> Cell:
        """The chain of stem and blocks, each with its channels, the input with its resolution."""
        plan = self.plan(a)
        ops = (f"input_r{a.r}", f"stem_c{plan.first}" + ("_deep" if plan.deep else ""), f"stem_c{plan.stem}",
               *(f"bottleneck_c{b.c_out}_m{b.mid}" for b in plan.blocks), "output")
        return Cell(ops, tuple((i, i + 1) for i in range(len(ops) - 1)), self.encode(a))

    def plan(self, a: GenomeResNet) -> ResNetPlan:
        """Channels and strides of the valid genome ``a``."""
        first, stem = (options[w] for options, w in zip(stem_channels(), a.w[:2], strict=True))
        blocks, c = [], stem
        for (s, j), e in zip(_PLACES, a.e, strict=True):
            if e:
                out, mid = _channels(s, a.w[s + 2], e)
                blocks.append(Bottleneck(c, mid, out, 1 if j else STRIDES[s]))
                c = out
        return ResNetPlan(first, stem, a.d[0] > 0, tuple(blocks))

    def count_params(self, a: GenomeResNet) -> int:
        plan = self.plan(a)
        total = 27 * plan.first + 9 * plan.first * plan.stem + 2 * (plan.first + plan.stem)
        total += 9 * plan.first**2 + 2 * plan.first if plan.deep else 0
        for b in plan.blocks:
            total += b.mid * (b.c_in + 9 * b.mid + b.c_out) + 4 * b.mid + 2 * b.c_out
            total += b.c_in * b.c_out + 2 * b.c_out if b.projects else 0
        return total + (plan.blocks[-1].c_out + 1) * self.num_classes

    def node_counts(self) -> dict[str, int]:
        """Of a bottleneck, its addition left out; ``/2`` with stride 2, ``+projection`` with another number of channels."""
        blocks = {"bottleneck": Bottleneck(16, 8, 16, 1), "bottleneck+projection": Bottleneck(16, 8, 32, 1),
                  "bottleneck/2": Bottleneck(16, 8, 32, 2)}
        return {name: nodes_of(_bottleneck, block) - 1 for name, block in blocks.items()}

    def input_shape_of(self, a: GenomeResNet) -> tuple[int, int, int, int]:
        return 1, 3, a.r, a.r

    def to_graph(self, a: GenomeResNet) -> Graph:
        self.check(a)
        return _build(self, a)

    def to_torch(self, a: GenomeResNet) -> torch.nn.Module:
        from evo_search.spaces._nets.ofa_resnet import NetworkResNet

        self.check(a)
        return NetworkResNet(self.plan(a), self.num_classes)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({'' if self.resolutions == RESOLUTIONS else f'resolutions={self.resolutions}'})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.resolutions,)


def _with(values: tuple[T, ...], i: int, value: T) -> tuple[T, ...]:
    return (*values[:i], value, *values[i + 1:])


def _least_width(a: GenomeResNet) -> GenomeResNet:
    first = stem_channels()[0]
    return a._replace(w=(first.index(first[a.w[0]]), *a.w[1:]))


def _conv_bn_relu(b: GraphBuilder, x: int, channels: int, kernel: int = 3, stride: int = 1) -> int:
    return b.relu(b.batch_norm(b.conv2d(x, channels, kernel, stride)))


def _bottleneck(b: GraphBuilder, x: int, block: Bottleneck) -> int:
    y = _conv_bn_relu(b, _conv_bn_relu(b, x, block.mid, 1), block.mid, 3, block.stride)
    y = b.batch_norm(b.conv2d(y, block.c_out, 1))
    if block.projects:
        if block.stride > 1:
            x = b.avg_pool(x, block.stride, ceil_mode=True)
        x = b.batch_norm(b.conv2d(x, block.c_out, 1))
    return b.relu(b.add(y, x))


def _build(space: OFAResNet50, a: GenomeResNet) -> Graph:
    from cg.builder import GraphBuilder

    plan, b = space.plan(a), GraphBuilder(name=space.encode(a), family=space.family)
    x = _conv_bn_relu(b, b.input(space.input_shape_of(a)), plan.first, stride=2)
    if plan.deep:
        x = b.add(_conv_bn_relu(b, x, plan.first), x)
    x = b.max_pool(_conv_bn_relu(b, x, plan.stem), kernel=3, stride=2, padding=1)
    for block in plan.blocks:
        x = _bottleneck(b, x, block)
    return b.build(b.linear(b.global_avg_pool(x), space.num_classes))
