"""The ProxylessNAS space (arXiv 1812.00332) as Wen et al. search it (arXiv 1912.00848). Must not import torch.

22 layers in a chain. The first is an inverted bottleneck without expansion whose kernel, 3, 5 or 7, is chosen. Then come six
stages of 4, 4, 4, 4, 4 and 1 layers with strides 2 2 2 1 2 1, each layer an inverted bottleneck with kernel 3, 5 or 7 and
expand ratio 3 or 6, or, unless it is the first of its stage, left out. Channels are those of ProxylessNAS-Mobile: stem 32,
first layer 16, stages 32 40 80 96 192 320, then a 1x1 convolution to 1280, pooling and classifier; ReLU6, no squeeze and
excitation, images of 224 x 224.

The kernel of the first layer is fixed in the original space and chosen in that of Bender et al. (CVPR 2020, TuNAS), which this
one follows in its choices; the activation there is ReLU. A layer that is left out leaves no trace, so ``0626`` and ``0266`` are
the same stage: see ``key``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from cg.cells import Cell
from cg.errors import CGError
from evo_search.spaces._base import SearchSpace, nodes_of, one_of
from evo_search.spaces._mbconv import RELU6, Block, Plan, add_block, build_plan, plan_params

if TYPE_CHECKING:
    import torch

    from cg.graph import Graph

STAGE_LAYERS = (1, 4, 4, 4, 4, 4, 1)  # the first layer is a stage of its own here
STRIDES = (1, 2, 2, 2, 1, 2, 1)
KERNELS, EXPANDS = (3, 5, 7), (3, 6)
OPS = (*(f"mbconv_k{k}_e{e}" for e in EXPANDS for k in KERNELS), "skip")
SKIP = len(OPS) - 1
LAYERS = sum(STAGE_LAYERS)
_STARTS = (0, *accumulate(STAGE_LAYERS))
_CHOICES = tuple(len(KERNELS) if i == 0 else SKIP if i in _STARTS else SKIP + 1 for i in range(LAYERS))

GenomePN = tuple[int, ...]
"""One number for each of the 22 layers: index of the first layer's kernel, then indices into ``OPS``."""


class ProxylessNAS(SearchSpace[GenomePN]):
    """3 * 6^6 * 7^15 = 6.6 * 10^17 genomes, which are 1.6 * 10^17 networks.

    Sampling is uniform over genomes. A mutation gives one layer another choice, both uniformly; that is always another network.
    Crossover takes each layer from either parent with equal chance.
    """

    name: ClassVar[str] = "proxylessnas"
    family: ClassVar[str] = "proxylessnas"
    input_shape: ClassVar[tuple[int, int, int, int]] = (1, 3, 224, 224)
    num_classes: ClassVar[int] = 1000
    widths: ClassVar[tuple[int, ...]] = (32, 16, 32, 40, 80, 96, 192, 320, 1280)
    """Channels of stem, first layer, six stages and the layer before the classifier."""

    def why_invalid(self, a: GenomePN) -> str:
        if not (isinstance(a, tuple) and len(a) == LAYERS):
            return f"a genome is a tuple of {LAYERS} numbers"
        bad = next((i for i, (op, n) in enumerate(zip(a, _CHOICES, strict=True)) if op not in range(n)), None)
        return "" if bad is None else f"layer {bad} has choice {a[bad]}; allowed are 0..{_CHOICES[bad] - 1}"

    def sample(self, rng: np.random.Generator) -> GenomePN:
        return tuple(int(v) for v in rng.integers(_CHOICES))

    def mutate(self, a: GenomePN, rng: np.random.Generator) -> GenomePN:
        self.check(a)
        i = int(rng.integers(LAYERS))
        return (*a[:i], one_of([op for op in range(_CHOICES[i]) if op != a[i]], rng), *a[i + 1:])

    def crossover(self, a: GenomePN, b: GenomePN, rng: np.random.Generator, tries: int = 20) -> GenomePN:
        self.check(a)
        self.check(b)
        child, known = a, (_skips_last(a), _skips_last(b))
        for _ in range(tries):
            child = tuple(x if p else y for x, y, p in zip(a, b, rng.random(LAYERS) < 0.5, strict=True))
            if _skips_last(child) not in known:
                return child
        return child

    def encode(self, a: GenomePN) -> str:
        """One digit a layer, stages joined by ``:``; ProxylessNAS-Mobile is ``0:1066:2011:5111:4111:5522:5``."""
        return ":".join("".join(map(str, a[i:j])) for i, j in pairwise(_STARTS))

    def decode(self, text: str) -> GenomePN:
        stages = text.strip().split(":")
        if tuple(map(len, stages)) != STAGE_LAYERS:
            raise CGError(f"proxylessnas: {text!r} must have {len(STAGE_LAYERS)} stages of "
                          f"{', '.join(map(str, STAGE_LAYERS))} digits, joined by ':'")
        digits = "".join(stages)
        bad = next((i for i, c in enumerate(digits) if c not in "0123456"), None)
        if bad is not None:
            raise CGError(f"proxylessnas: layer {bad} of {text!r} is {digits[bad]!r}; a choice is a digit 0..{SKIP}")
        return tuple(map(int, digits))

    def key(self, a: GenomePN) -> str:
        """``encode`` with the layers that are left out at the end of their stage."""
        return self.encode(_skips_last(a))

    def native(self, a: GenomePN) -> np.ndarray:
        """One-hot choice of every layer, 3, 6 or 7 wide, ordered as in ``key``: float32 ``[144]``."""
        return np.concatenate([np.arange(n) == op for op, n in zip(_skips_last(a), _CHOICES, strict=True)]).astype(np.float32)

    def choices(self) -> tuple[int, ...]:
        return _CHOICES

    def from_choices(self, options: Sequence[int]) -> GenomePN:
        return tuple(map(int, options))

    def to_choices(self, a: GenomePN) -> tuple[int, ...]:
        return a

    def cell(self, a: GenomePN) -> Cell:
        """A chain of 22 layers between input and output, ordered as in ``key``; ``skip`` is a node of its own."""
        first, *rest = _skips_last(a)
        ops = ("input", f"mbconv_k{KERNELS[first]}_e1", *(OPS[op] for op in rest), "output")
        return Cell(ops, tuple((i, i + 1) for i in range(len(ops) - 1)), self.encode(a))

    def _plan(self, a: GenomePN) -> Plan:
        stem, *widths, features = self.widths
        blocks, c = [], stem
        for stage, (i, j) in enumerate(pairwise(_STARTS)):
            for layer in range(i, j):
                if a[layer] != SKIP:
                    kernel, expand = KERNELS[a[layer] % 3], EXPANDS[a[layer] // 3] if layer else 1
                    blocks.append(Block(c, widths[stage], kernel, expand, STRIDES[stage] if layer == i else 1, RELU6))
                    c = widths[stage]
        return Plan(stem, tuple(blocks), 0, features, RELU6, self.num_classes, 1e-3)

    def count_params(self, a: GenomePN) -> int:
        return plan_params(self._plan(a))

    def node_counts(self) -> dict[str, int]:
        return {"skip": 0, **{f"mbconv_k{k}_e{e}": nodes_of(add_block, Block(16, 24, k, e, 1, RELU6))
                              for e in (1, *EXPANDS) for k in KERNELS}}

    def to_graph(self, a: GenomePN) -> Graph:
        self.check(a)
        return build_plan(self._plan(a), self.input_shape[-1], self.encode(a), self.family)

    def to_torch(self, a: GenomePN) -> torch.nn.Module:
        from evo_search.spaces._nets.mbconv import MBConvNet

        self.check(a)
        return MBConvNet(self._plan(a))


def _skips_last(a: GenomePN) -> GenomePN:
    """The same network with the left out layers of every stage at its end."""
    return tuple(op for i, j in pairwise(_STARTS) for op in sorted(a[i:j], key=lambda op: op == SKIP))
