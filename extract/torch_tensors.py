"""Which tensors are which values while a model runs. It knows tensors, storages and the names of modules, not operators.

A tensor is in one of two states. *Live*: it depends on a network input, and a graph node produces it. *Constant*: it
does not, so the computation that made it is folded away (a cast mask, a position table, a normalised weight); all that
is kept is which trained parameters went into it. A constant becomes a ``Constant`` node when it meets a live tensor.

Data movement is contracted by knowing storages: a tensor that shows all values of a storage is the same value as any
other tensor that does. Views of a part (slices) make nodes of their own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from math import prod
from typing import Any, NamedTuple

import torch

from cg.spec import Shape

NO_PARAMS: frozenset[int] = frozenset()


class Ref(NamedTuple):
    """A live value: the node that makes it and the shape under which it is used here."""

    node: int
    shape: Shape


class KnownTensors:
    """All tensors seen are kept alive as long as this object, so that identities stay unique."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._modules: dict[int, str] = {}  # dotted name
        self._parameters: dict[int, tuple[str, int]] = {}  # dotted name and size
        self._node_of: dict[int, int] = {}  # id of a live tensor -> node
        self._params_of: dict[int, frozenset[int]] = {}  # id of a constant tensor -> ids of the parameters in it
        self._by_storage: dict[int, list[torch.Tensor]] = {}  # storage -> tensors seen on it
        self._constants: dict[int, int] = {}  # id of a constant tensor -> its Constant node
        self._stale: set[int] = set()  # views of a part, made before their base was written to

    def make_live(self, tensor: torch.Tensor, node: int) -> None:
        """From now on ``tensor`` is the value of ``node``."""
        key = id(tensor)
        self._stale.discard(key)
        self._node_of[key] = node
        self._params_of.pop(key, None)
        self._remember(tensor)

    def make_constant(self, tensor: torch.Tensor, params: frozenset[int]) -> None:
        """From now on ``tensor`` depends on no input, only on ``params``."""
        key = id(tensor)
        self._node_of.pop(key, None)
        self._constants.pop(key, None)
        self._params_of[key] = params
        self._remember(tensor)

    def _remember(self, tensor: torch.Tensor) -> None:
        seen = self._by_storage.setdefault(tensor.untyped_storage()._cdata, [])
        if not any(t is tensor for t in seen):
            seen.append(tensor)

    def node_of(self, tensor: torch.Tensor) -> int | None:
        """Node of a live tensor, ``None`` for a constant."""
        key = id(tensor)
        node = self._node_of.get(key)
        if key in self._stale:
            self.note(f"{self.where()} reads a view of a tensor that was written to after the view was taken; "
                      "the graph holds the old values")
        if node is None and key not in self._params_of:
            twin = self._twin(tensor)  # e.g. ``x.data``, which no dispatch sees
            node = None if twin is None else self._node_of.get(id(twin))
        return node

    def params_in(self, tensor: torch.Tensor) -> frozenset[int]:
        """Ids of the trained parameters that went into a constant tensor."""
        key = id(tensor)
        if key in self._parameters:
            return frozenset((key,))
        params = self._params_of.get(key)
        if params is None:
            twin = self._twin(tensor)
            params = NO_PARAMS if twin is None else self.params_in(twin)
        return params

    def _twin(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """A known tensor with the values of ``tensor``: both show all of one storage, or both the same part of it."""
        known = [t for t in self.on_storage(tensor) if id(t) in self._node_of or id(t) in self._params_of
                 or id(t) in self._parameters]
        if not known:
            return None
        whole = shows_all(tensor)
        for t in reversed(known):
            if (whole and shows_all(t)) or _view(t) == _view(tensor):
                return t
        if any(id(t) in self._node_of for t in known):
            self.note(f"{self.where()} uses a view that was made behind the dispatcher (.data of a part); it counts as a "
                      "constant")
        return None

    def on_storage(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """All other tensors seen so far that share memory with ``tensor``."""
        return [t for t in self._by_storage.get(tensor.untyped_storage()._cdata, ()) if t is not tensor]

    def is_live(self, tensor: torch.Tensor) -> bool:
        return self.node_of(tensor) is not None

    def forget_parts(self, tensor: torch.Tensor) -> None:
        """The storage of ``tensor`` was written to: other views of a part of it no longer show what was recorded."""
        self._stale.update(id(t) for t in self.on_storage(tensor) if not shows_all(t))

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def where(self) -> str:
        """Dotted name of the innermost module of the model that is running."""
        frame = sys._getframe(1)
        while frame is not None:
            name = self._modules.get(id(frame.f_locals.get("self")))
            if name is not None:
                return name or "the model itself"
            frame = frame.f_back  # type: ignore[assignment]
        return "the model itself"


def _view(tensor: torch.Tensor) -> tuple[object, ...]:
    """Which part of its storage a tensor shows."""
    return tensor.shape, tensor.stride(), tensor.storage_offset()


def shows_all(tensor: torch.Tensor) -> bool:
    """Whether every value of the storage appears exactly once in ``tensor`` (a reshape or permutation of it)."""
    if prod(tensor.shape) * tensor.element_size() != tensor.untyped_storage().nbytes():
        return False
    # expanded dimensions have stride 0: they would count one value several times
    return all(s != 0 or d == 1 for s, d in zip(tensor.stride(), tensor.shape, strict=True))


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """All tensors in nested lists, tuples and dicts, in order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for v in value:
            yield from tensors_in(v)
    elif isinstance(value, dict):
        for v in value.values():
            yield from tensors_in(v)
