"""Values of small tensors beside a run on meta tensors, for models that read some (``.item()``, ``if mask.all():``).

A meta tensor has no values. Lengths, positions, masks and tables of indices are made of a few numbers, though, and follow
from arguments, settings and shapes alone: each operator on such tensors is done once more on the CPU, where it takes no
time. What follows from a weight or from a large tensor has no value here, and reading it still fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from extract.torch_recorder import tensors_in

LIMIT: Final = 1 << 20  # elements; larger tensors have no value
_SMALL: Final = 16_384  # elements; such tensors take no memory to speak of
_MEMORY: Final = 1 << 28  # bytes for all values of larger tensors
Run = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]
_READS: Final = frozenset({"aten::item", "aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal", "aten::allclose"})
_MOVES: Final = frozenset({"aten::to", "aten::_to_copy", "aten::cpu"})
_CHECKS: Final = frozenset({"aten::_is_all_true", "aten::_is_any_true"})  # of a condition that has to hold
# Operators that look at the shape and number format of an argument only, and which one it is.
_FROM_SHAPE: Final = {**{f"aten::{name}": 0 for name in (
    "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full", "fill_", "zero_")},
    **{f"aten::{name}": 1 for name in ("expand_as", "view_as", "reshape_as", "type_as")}}
_UNDEFINED: Final = ("aten::empty", "aten::new_empty", "aten::resize", "aten::set_")  # results that are what memory held


class _NotKnown(Exception):
    """An argument has no known value."""


class Values:
    """Meta tensors whose values are known, and those values on the CPU. Both are kept, so that identities stay unique."""

    def __init__(self) -> None:
        self.on_read: Callable[[Tensor], None] = lambda tensor: None  # is told each tensor whose value is read
        self._of: dict[int, tuple[Tensor, Tensor]] = {}
        self._by_storage: dict[int, list[Tensor]] = {}
        self._calls = 0
        self._free = _MEMORY

    def know(self, tensor: Tensor, real: Tensor) -> None:
        """From now on ``tensor``, on the meta device, has the values of ``real``, on the CPU. Large ones are left out."""
        if tensor.is_meta and real.device.type == "cpu" and real.numel() <= LIMIT and tensor.shape == real.shape:
            if real.numel() > _SMALL:
                self._free -= real.numel() * real.element_size()
                if self._free < 0:
                    return
            if id(tensor) not in self._of:
                self._by_storage.setdefault(tensor.untyped_storage()._cdata, []).append(tensor)
            self._of[id(tensor)] = (tensor, real)

    def get(self, tensor: Tensor) -> Tensor | None:
        """The values of ``tensor``, or ``None``. A trained parameter has none."""
        if not tensor.is_meta:
            return tensor if tensor.numel() <= LIMIT and tensor.device.type == "cpu" else None
        if isinstance(tensor, nn.Parameter):
            return None
        found = self._of.get(id(tensor))
        if found is not None:
            return found[1]
        for t in self._by_storage.get(tensor.untyped_storage()._cdata, ()):  # ``x.data`` comes by no dispatcher
            if (t.shape, t.stride(), t.storage_offset(), t.dtype) == (
                    tensor.shape, tensor.stride(), tensor.storage_offset(), tensor.dtype):
                return self._of[id(t)][1]
        return None

    def forget(self, tensor: Tensor) -> None:
        """Something unknown was written to ``tensor``: nothing on its storage is known any more."""
        for t in self._by_storage.pop(tensor.untyped_storage()._cdata, ()):
            self._of.pop(id(t), None)

    def read(self, tensor: Tensor) -> Tensor | None:
        """As :meth:`get`, for somebody who is going to look at the numbers."""
        real = self.get(tensor)
        if real is not None:
            self.on_read(tensor)
        return real

    def call(self, run: Run, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """``run(func, args, kwargs)``, and the same on the CPU where all values are known. Reads are answered from there."""
        tensors = list(tensors_in((args, kwargs)))
        name = func._schema.name
        if not any(t.is_meta for t in tensors) and torch.device("meta") not in kwargs.values():
            return run(func, args, kwargs)
        if name in _READS:
            try:
                real = self._real((args, kwargs))
            except _NotKnown:
                return run(func, args, kwargs)  # fails, and torch says why
            for t in tensors:
                self.on_read(t)
            return func(*real[0], **real[1])
        if name in _CHECKS:
            return self._passed(func, args[0])
        if name in _MOVES and tensors[0].is_meta:  # it stays where it is
            args, kwargs = _on_device((args, kwargs), "meta")
        written = _written(func, args, kwargs)
        real = i = None
        if torch.Tag.nondeterministic_seeded not in func.tags and not name.startswith(_UNDEFINED):
            with suppress(_NotKnown):
                i = _FROM_SHAPE.get(name)
                given = args if i is None else (*args[:i], self._blank(args[i], bool(written)), *args[i + 1:])
                real = self._real((given, kwargs), {id(t) for t in written})
        self._calls += 1
        calls = self._calls
        out = run(func, args, kwargs)
        if self._calls != calls:
            return out  # it was split into its parts, which came by here
        if real is None or i == 0:
            for t in written:
                self.forget(t)
        if real is not None and sum(t.numel() for t in tensors_in(out)) <= LIMIT:
            try:
                result = func(*real[0], **real[1])
            except Exception:  # e.g. no kernel for this number format on the CPU
                for t in written:
                    self.forget(t)
                return out
            is_copied = name in _MOVES and not tensors[0].is_meta  # what moves from the CPU to the CPU is not
            self._learn(out, result.clone() if is_copied else result)
        return out

    def _blank(self, tensor: Tensor, is_written: bool) -> Tensor:
        """Something of the shape and number format of ``tensor``, with its values if they are known."""
        known = self.get(tensor) if tensor.is_meta or not is_written else None
        if known is not None:
            return known
        if is_written:
            if tensor.numel() > LIMIT or isinstance(tensor, nn.Parameter):
                raise _NotKnown
            return torch.empty_like(tensor, device="cpu")
        return torch.empty((), dtype=tensor.dtype, device="cpu").expand(tensor.shape)

    def _passed(self, func: Any, tensor: Tensor) -> Tensor:
        """What ``torch._check_tensor_all`` asks: a check of something unknown is taken to pass. It is no part of the graph."""
        known = self.get(tensor)
        out = torch.empty((), dtype=torch.bool, device="meta")
        self.know(out, torch.tensor(True) if known is None else func(known))
        return out

    def _learn(self, out: Any, result: Any) -> None:
        for t, real in zip(tensors_in(out), tensors_in(result), strict=False):
            self.know(t, real)

    def _real(self, value: Any, written: Iterable[int] = ()) -> Any:
        """``value`` with CPU tensors for meta tensors. Raises ``_NotKnown``."""
        if isinstance(value, Tensor):
            real = self.get(value)
            if real is None or (real is value and id(value) in written):  # a real tensor is not to be written to twice
                raise _NotKnown
            return real
        if isinstance(value, list | tuple):
            return type(value)(self._real(v, written) for v in value)
        if isinstance(value, dict):
            return {k: self._real(v, written) for k, v in value.items()}
        return torch.device("cpu") if isinstance(value, torch.device) else value


class Watch(TorchDispatchMode):
    """Learns the values that a constructor computes, e.g. a buffer of positions. Used with :class:`PythonReads`."""

    def __init__(self, values: Values) -> None:
        super().__init__()
        self._values = values

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (),
                           kwargs: dict[str, Any] | None = None) -> Any:
        return self._values.call(lambda f, a, k: f(*a, **k), func, args, kwargs or {})


class PythonReads(TorchFunctionMode):
    """Answers ``.tolist()`` and ``.numpy()``, which the dispatcher does not see, and learns what ``torch.tensor`` is given."""

    def __init__(self, values: Values) -> None:
        super().__init__()
        self._values = values

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (),
                           kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in ("tolist", "numpy", "__array__", "__format__") and isinstance(args[0], Tensor) and args[0].is_meta:
            real = self._values.read(args[0])
            if real is not None:
                return func(real, *args[1:], **kwargs)
        if name in ("__getitem__", "__setitem__") and args[0].is_meta:
            args = (args[0], _indices(args[1]), *args[2:])
        elif name.startswith("masked_fill") and len(args) > 2 and isinstance(args[2], Tensor) and not args[2].is_meta \
                and not args[2].ndim:
            args = (*args[:2], args[2].item())  # the meta kernel refuses a number from another device
        if name in ("tensor", "as_tensor", "asarray", "new_tensor") and "data" not in kwargs:
            place = 1 if name == "new_tensor" else 0
            data = self._numbers(args[place])
            out = func(*args[:place], data, *args[place + 1:], **kwargs)
            if out.is_meta and out.numel() <= LIMIT and not isinstance(data, Tensor):
                self._values.know(out, torch.tensor(data, dtype=out.dtype, device="cpu"))
            return out
        return func(*args, **kwargs)

    def _numbers(self, data: Any) -> Any:
        """Nested lists with numbers for tensors of one number; ``torch.tensor`` looks at them behind the dispatcher."""
        if isinstance(data, list | tuple):
            return [self._numbers(v.item() if isinstance(v, Tensor) and not v.ndim else v) for v in data]
        return data


def _indices(index: Any) -> Any:
    """``index`` with real tensors for lists of numbers, which ``x[…]`` would make meta tensors."""
    if isinstance(index, tuple):
        return tuple(map(_indices, index))
    if isinstance(index, list) and index and all(isinstance(i, int) for i in index):
        return torch.tensor(index, device="cpu")
    return index


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """The tensors that the operator writes to."""
    given = zip(func._schema.arguments, (*args, *([None] * len(func._schema.arguments))), strict=False)
    found = [value if value is not None else kwargs.get(a.name) for a, value in given
             if a.alias_info is not None and a.alias_info.is_write]
    return list(tensors_in(found))


def _on_device(value: Any, device: str) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_on_device(v, device) for v in value)
    if isinstance(value, dict):
        return {k: _on_device(v, device) for k, v in value.items()}
    return torch.device(device) if isinstance(value, torch.device) else value
