"""Once-for-All (arXiv 1908.09791) on MobileNetV3 and on ProxylessNAS: edits and direct graph builder. Must not import torch.

Five stages of 2 to 4 inverted bottlenecks, each with kernel 3, 5 or 7 and expand ratio 3, 4 or 6; the first block of a stage
has the stage's stride, the others stride 1. Channels are those of the base network times the width, made divisible by 8.

- MobileNetV3: stem 16, first block 16, stages 24 40 80 112 160 with strides 2 2 2 1 2, squeeze and excitation in the second,
  fourth and fifth, h-swish from the third stage on (ReLU before), head 960 -> pooling -> 1280 -> classes.
- ProxylessNAS: stem 32, first block 16, stages 24 40 80 96 192 with strides 2 2 2 1 2 and a sixth stage of one block with 320
  channels, ReLU6, head 1280 -> pooling -> classes.

The genome (``evo_search.ofa.SubNet``) also chooses the side of the input image: ``input_shape`` is the largest one, and
``input_shape_of(genome)`` its own. These are the networks of the published weights ``ofa_mbv3_d234_e346_k357_w1.0`` and
``_w1.2`` and ``ofa_proxyless_d234_e346_k357_w1.3``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from cg.cells import Cell
from cg.errors import CGError
from evo_search.ofa import DEPTHS, EXPANDS, FAMILIES, KERNELS, LAST_DEPTH, MAX_DEPTH, SubNet
from evo_search.spaces._base import SearchSpace, nodes_of, one_of
from evo_search.spaces._mbconv import HSWISH, RELU, RELU6, Block, Plan, add_block, build_plan, make_divisible, plan_params

if TYPE_CHECKING:
    import torch

    from cg.graph import Graph

RESOLUTIONS = tuple(range(128, 225, 4))
"""Sides of the input image, pixels, that the official weights serve."""


class OFASpace(SearchSpace[SubNet]):
    """What both base networks share.

    Sampling as the official code does: depth of every stage, kernel and expand ratio of every block and the resolution are
    uniform and independent, so a stage is shallow as often as deep, and not all networks are equally likely. A mutation picks
    one of the genes that are there (kernel or expand ratio of a block, depth of one of the first five stages, resolution where
    there is a choice) and gives it another value, both uniformly; blocks that appear are sampled. Crossover takes each stage,
    with its depth and blocks, and the resolution from either parent with equal chance.

    Args:
        resolutions: sides of the input image to choose from; all of ``RESOLUTIONS`` if None. The surrogate oracles of
            ``evo_search.ofa`` know (192, 208, 224) or (160, 176, 192, 208, 224) only.
    """

    input_shape: ClassVar[tuple[int, int, int, int]] = (1, 3, 224, 224)
    num_classes: ClassVar[int] = 1000
    genomes: ClassVar[str]  # family of ``SubNet``
    width: ClassVar[float]

    def __init__(self, resolutions: tuple[int, ...] | None = None) -> None:
        self.resolutions = RESOLUTIONS if resolutions is None else tuple(resolutions)
        bad = [r for r in self.resolutions if r not in RESOLUTIONS]
        if bad or not self.resolutions:
            raise CGError(f"{self.name}: resolutions = {self.resolutions}; they must be some of {RESOLUTIONS[0]}, "
                          f"{RESOLUTIONS[1]}, ..., {RESOLUTIONS[-1]}")

    @property
    def stages(self) -> int:
        """Number of stages that the genome describes."""
        return FAMILIES[self.genomes]

    def _depths(self, stage: int) -> tuple[int, ...]:
        return DEPTHS if stage < 5 else (LAST_DEPTH,)

    def why_invalid(self, a: SubNet) -> str:
        if not isinstance(a, SubNet):
            return "a genome is an evo_search.ofa.SubNet"
        if a.family != self.genomes:
            return f"it has {len(a.d)} stages; networks of this space have {self.stages}"
        return "" if a.r in self.resolutions else f"r = {a.r} is none of this space's resolutions"

    def sample(self, rng: np.random.Generator) -> SubNet:
        places = MAX_DEPTH * self.stages
        ks = [KERNELS[i] for i in rng.integers(len(KERNELS), size=places)]
        e = [EXPANDS[i] for i in rng.integers(len(EXPANDS), size=places)]
        d = [one_of(list(self._depths(s)), rng) for s in range(self.stages)]
        return SubNet.of(ks, e, d, one_of(list(self.resolutions), rng))

    def mutate(self, a: SubNet, rng: np.random.Generator) -> SubNet:
        self.check(a)
        genes = [("block", MAX_DEPTH * s + j, part) for s, j, _, _ in a.blocks() for part in (0, 1)]
        genes += [("depth", s, 0) for s in range(self.stages) if len(self._depths(s)) > 1]
        genes += [("resolution", 0, 0)] if len(self.resolutions) > 1 else []
        kind, i, part = one_of(genes, rng)
        lists, d, r = (list(a.ks), list(a.e)), list(a.d), a.r
        if kind == "block":
            values = (KERNELS, EXPANDS)[part]
            lists[part][i] = one_of([v for v in values if v != lists[part][i]], rng)
        elif kind == "depth":
            d[i] = one_of([v for v in self._depths(i) if v != d[i]], rng)
            for place in range(MAX_DEPTH * i + a.d[i], MAX_DEPTH * i + d[i]):
                lists[0][place], lists[1][place] = one_of(list(KERNELS), rng), one_of(list(EXPANDS), rng)
        else:
            r = one_of([v for v in self.resolutions if v != r], rng)
        return SubNet.of(*lists, d, r)

    def crossover(self, a: SubNet, b: SubNet, rng: np.random.Generator, tries: int = 20) -> SubNet:
        self.check(a)
        self.check(b)
        child = a
        for _ in range(tries):
            pick = [a if p else b for p in rng.random(self.stages + 1) < 0.5]
            ks, e = ([v for s in range(self.stages) for v in getattr(pick[s], part)[MAX_DEPTH * s:MAX_DEPTH * (s + 1)]]
                     for part in ("ks", "e"))
            child = SubNet(tuple(ks), tuple(e), tuple(pick[s].d[s] for s in range(self.stages)), pick[-1].r)
            if child not in (a, b):
                return child
        return child

    def encode(self, a: SubNet) -> str:
        """``<ks>,<e>,<d>,<r>``, numbers of a list joined by ``-`` and 0 where a block is absent."""
        return str(a)

    def decode(self, text: str) -> SubNet:
        return SubNet.parse(text)

    def native(self, a: SubNet) -> np.ndarray:
        """One-hot kernel and expand ratio of every place a block can have (zero where it is absent), then of the resolution:
        float32 ``[6 * 20 + 25]`` for MobileNetV3 and ``[6 * 21 + 25]`` for ProxylessNAS with all resolutions."""
        blocks = np.zeros((MAX_DEPTH * self.stages, 6), np.float32)
        for s, j, k, e in a.blocks():
            blocks[MAX_DEPTH * s + j, [KERNELS.index(k), 3 + EXPANDS.index(e)]] = 1
        return np.concatenate([blocks[:self._places()].ravel(), np.array(self.resolutions) == a.r]).astype(np.float32)

    def _places(self) -> int:
        """Places a block can have."""
        return 5 * MAX_DEPTH + LAST_DEPTH * (self.stages - 5)

    def choices(self) -> tuple[int, ...]:
        """Depth of every stage, kernel and expand ratio of every place, resolution."""
        depths = tuple(len(self._depths(s)) for s in range(self.stages))
        return (*depths, *(len(KERNELS), len(EXPANDS)) * self._places(), len(self.resolutions))

    def from_choices(self, options: Sequence[int]) -> SubNet:
        depths, (*blocks, r) = options[:self.stages], options[self.stages:]
        absent = [0] * (MAX_DEPTH * self.stages - self._places())
        return SubNet.of([KERNELS[i] for i in blocks[::2]] + absent, [EXPANDS[i] for i in blocks[1::2]] + absent,
                         [self._depths(s)[i] for s, i in enumerate(depths)], self.resolutions[r])

    def to_choices(self, a: SubNet) -> tuple[int, ...]:
        blocks = [-1] * (2 * self._places())
        for s, j, k, e in a.blocks():
            place = 2 * (MAX_DEPTH * s + j)
            blocks[place:place + 2] = KERNELS.index(k), EXPANDS.index(e)
        return (*(self._depths(s).index(d) for s, d in enumerate(a.d)), *blocks, self.resolutions.index(a.r))

    def cell(self, a: SubNet) -> Cell:
        """The chain of the blocks that are there, each with its stage; the input's name says the resolution."""
        chain = a.cell()
        return Cell((f"input_r{a.r}", *chain.ops[1:]), chain.edges, chain.name)

    @abstractmethod
    def _plan(self, a: SubNet) -> Plan:
        """Channels, strides and blocks of the valid genome ``a``."""

    def count_params(self, a: SubNet) -> int:
        return plan_params(self._plan(a))

    def node_counts(self) -> dict[str, int]:
        """Of an inverted bottleneck; ``+se`` with squeeze and excitation."""
        kinds = (False, True) if self.genomes == "mbv3" else (False,)
        return {f"mbconv_k{k}_e{e}" + ("+se" if se else ""): nodes_of(add_block, Block(16, 24, k, e, 1, RELU6, se))
                for k in KERNELS for e in EXPANDS for se in kinds}

    def input_shape_of(self, a: SubNet) -> tuple[int, int, int, int]:
        return 1, 3, a.r, a.r

    def to_graph(self, a: SubNet) -> Graph:
        self.check(a)
        return build_plan(self._plan(a), a.r, str(a), self.family)

    def to_torch(self, a: SubNet) -> torch.nn.Module:
        from evo_search.spaces._nets.mbconv import MBConvNet

        self.check(a)
        return MBConvNet(self._plan(a))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({'' if self.resolutions == RESOLUTIONS else f'resolutions={self.resolutions}'})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.resolutions,)


def _scaled(widths: tuple[int, ...], width: float) -> tuple[int, ...]:
    return tuple(make_divisible(c * width) for c in widths)


@lru_cache(maxsize=4096)
def _stage(c_in: int, c_out: int, stride: int, act: str, se: bool, kernels: tuple[int, ...],
           expands: tuple[int, ...]) -> tuple[Block, ...]:
    """Blocks of one stage; a kernel of 0 is no block."""
    return tuple(Block(c_out if j else c_in, c_out, k, e, 1 if j else stride, act, se)
                 for j, (k, e) in enumerate(zip(kernels, expands, strict=True)) if k)


class OFAMobileNetV3(OFASpace):
    """Sub-networks on MobileNetV3, width 1.0; sampling and edits as in ``OFASpace``."""

    name: ClassVar[str] = "ofa-mbv3"
    family: ClassVar[str] = "ofa-mbv3"
    genomes: ClassVar[str] = "mbv3"
    width: ClassVar[float] = 1.0

    def _plan(self, a: SubNet) -> Plan:
        stem, first, *widths, expand, features = _scaled((16, 16, 24, 40, 80, 112, 160, 960, 1280), self.width)
        blocks, c_in = [Block(stem, first, 3, 1, 1, RELU)], first
        for s, c in enumerate(widths):
            part = slice(MAX_DEPTH * s, MAX_DEPTH * (s + 1))
            blocks += _stage(c_in, c, (2, 2, 2, 1, 2)[s], HSWISH if s > 1 else RELU, s in (1, 3, 4), a.ks[part], a.e[part])
            c_in = c
        return Plan(stem, tuple(blocks), expand, features, HSWISH, self.num_classes, 1e-5)


class OFAMobileNetV3Wide(OFAMobileNetV3):
    """Sub-networks on MobileNetV3, width 1.2."""

    name: ClassVar[str] = "ofa-mbv3-w12"
    width: ClassVar[float] = 1.2


class OFAProxylessNAS(OFASpace):
    """Sub-networks on ProxylessNAS, width 1.3; sampling and edits as in ``OFASpace``."""

    name: ClassVar[str] = "ofa-proxyless"
    family: ClassVar[str] = "ofa-proxyless"
    genomes: ClassVar[str] = "pn"
    width: ClassVar[float] = 1.3

    def _plan(self, a: SubNet) -> Plan:
        stem, first, *widths, features = _scaled((32, 16, 24, 40, 80, 96, 192, 320, 1280), self.width)
        blocks, c_in = [Block(stem, first, 3, 1, 1, RELU6)], first
        for s, c in enumerate(widths):
            part = slice(MAX_DEPTH * s, MAX_DEPTH * (s + 1))
            blocks += _stage(c_in, c, (2, 2, 2, 1, 2, 1)[s], RELU6, False, a.ks[part], a.e[part])
            c_in = c
        return Plan(stem, tuple(blocks), 0, features, RELU6, self.num_classes, 1e-3)
