"""Values of a TensorFlow program: tensors with the order of their axes, variables, lists of tensors.

TensorFlow keeps images as (N, H, W, C), this project records them as (N, C, H, W). A ``Value`` therefore holds a torch
tensor in whatever order suits the recording, and says where each axis of the TensorFlow tensor lies in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

Order = tuple[int, ...]


def plain_order(rank: int) -> Order:
    return tuple(range(rank))


def first_order(rank: int) -> Order:
    """Where the axes of a (N, …, C) tensor lie if it is kept as (N, C, …)."""
    return (0, *range(2, rank), 1) if rank > 2 else plain_order(rank)


@dataclass(frozen=True)
class Value:
    """``tensor`` with TensorFlow axis ``i`` at its axis ``order[i]``."""

    tensor: Tensor
    order: Order

    @classmethod
    def of(cls, tensor: Tensor) -> Value:
        """A tensor in TensorFlow's own order."""
        return cls(tensor, plain_order(tensor.ndim))

    @classmethod
    def first(cls, tensor: Tensor) -> Value:
        """A (N, C, …) tensor that stands for (N, …, C)."""
        return cls(tensor, first_order(tensor.ndim))

    @property
    def rank(self) -> int:
        return self.tensor.ndim

    @property
    def shape(self) -> tuple[int, ...]:
        """As TensorFlow sees it."""
        return tuple(self.tensor.shape[a] for a in self.order)

    @property
    def is_plain(self) -> bool:
        return self.order == plain_order(self.rank)

    @property
    def is_first(self) -> bool:
        return self.rank > 2 and self.order == first_order(self.rank)

    def plain(self) -> Tensor:
        """The tensor in TensorFlow's order."""
        return self.tensor if self.is_plain else self.tensor.permute(self.order)

    def in_order(self, order: Order) -> Tensor:
        """The tensor whose axis ``order[i]`` is TensorFlow axis ``i``."""
        if order == self.order:
            return self.tensor
        back = [0] * len(order)
        for axis, place in enumerate(order):
            back[place] = axis
        moves = [self.order[a] for a in back]
        return self.tensor if moves == list(range(self.rank)) else self.tensor.permute(moves)

    def channels_first(self) -> Tensor:
        """(N, C, …) of a (N, …, C) tensor."""
        return self.in_order(first_order(self.rank))

    def transposed(self, axes: Sequence[int]) -> Value:
        return Value(self.tensor, tuple(self.order[a] for a in axes))

    def without(self, axes: set[int]) -> Order:
        """Order of the axes that stay when ``axes`` are removed from tensor and value."""
        kept = [p for a, p in enumerate(self.order) if a not in axes]
        ranks = {p: i for i, p in enumerate(sorted(kept))}
        return tuple(ranks[p] for p in kept)


@dataclass(frozen=True)
class Variable:
    """A variable (or table) that a resource tensor points to; ``tensor`` is on the meta device."""

    name: str
    tensor: Tensor


@dataclass
class TensorList:
    """What ``TensorList…`` operators work on. ``None`` marks a place that was reserved and not written."""

    items: list[Value | None] = field(default_factory=list)


class Dead:
    """What the branch of a TensorFlow 1 ``Switch`` yields that is not taken."""


DEAD: Final = Dead()


def known(tensor: Tensor) -> Any:
    """The values of a CPU tensor as Python numbers in lists; ``None`` for a meta tensor."""
    if tensor.is_meta:
        return None
    with _disable_current_modes():
        return tensor.tolist()


def align(values: Sequence[Value], wish: Order | None = None) -> tuple[list[Tensor], Order]:
    """Tensors of one rank and order, ready for broadcasting; numbers stay without axes.

    The order is ``wish``, or that of the first value of full rank that is not in TensorFlow's order.
    """
    rank = max(v.rank for v in values)
    order = wish or next((v.order for v in values if v.rank == rank and not v.is_plain), plain_order(rank))
    tensors = []
    for v in values:
        t = v.tensor
        if v.rank == 0 or (t.numel() == 1 and not t.is_meta and rank > v.rank):
            tensors.append(t if v.rank == 0 else t.reshape(()))
        elif v.rank == rank:
            tensors.append(v.in_order(order))
        else:
            tensors.append(Value.of(v.plain().reshape((1,) * (rank - v.rank) + v.shape)).in_order(order))
    if all(t.ndim == 0 for t in tensors) and rank:  # only for known constants
        tensors[0] = tensors[0].reshape((1,) * rank)
    return tensors, order


DTYPES: Final[dict[int, torch.dtype]] = {  # numbers of ``DataType`` in tensorflow/core/framework/types.proto
    1: torch.float32, 2: torch.float64, 3: torch.int32, 4: torch.uint8, 5: torch.int16, 6: torch.int8, 8: torch.complex64,
    9: torch.int64, 10: torch.bool, 14: torch.bfloat16, 17: torch.int32, 18: torch.complex128, 19: torch.float16,
    22: torch.int64, 23: torch.int64}
REFERENCE: Final = 100  # a reference type of TensorFlow 1 is its type plus this
RESOURCE: Final = 20
