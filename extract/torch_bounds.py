"""Operators whose result has a size that depends on values: they get the largest size that is possible.

``nonzero`` finds every position, ``x[mask]`` keeps every row, ``unique`` finds every value different. Each is said in a
note. A function in ``BOUNDS`` is asked before the operator runs, as ``function(recorder, arguments, named arguments)``, and
returns its results, or ``None`` where the size is known and the operator can run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Final

import torch
from torch import Tensor

from extract.torch_recorder import Recorder, Ref

_FEW: Final = 4096
MASKS: Final = (torch.bool, torch.uint8)


def _positions(size: Sequence[int], dtype: torch.dtype = torch.long) -> Tensor:
    return torch.empty(tuple(size), dtype=dtype, device="meta")


def _nonzero(r: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x = args[0]
    if not x.is_meta:
        return None
    if (real := r.value_of(x)) is not None:
        return _positions((int(real.count_nonzero()), x.ndim))
    r.guess(f"nonzero in {r.where()} finds as many positions as values tell; the graph holds the most there can be")
    every = _positions((x.numel(), x.ndim))
    r.know(every, torch.ones(x.shape).nonzero() if x.numel() <= _FEW else None)  # e.g. a loop over the experts that are hit
    return every


def _where(r: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    found = _nonzero(r, args, kwargs)
    return None if found is None else [_positions((len(found),)) for _ in range(args[0].ndim)]


def _masked_select(r: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, mask = args
    known = r.value_of(mask) if mask.is_meta else mask
    if known is not None:
        return None if not x.is_meta else _positions((int(known.expand(_joint(x, mask)).sum()),), x.dtype)
    r.guess(f"a mask in {r.where()} keeps as many values as it holds true; the graph keeps all")
    return _positions((prod(_joint(x, mask)),), x.dtype)


def _joint(x: Tensor, y: Tensor) -> tuple[int, ...]:
    return tuple(torch.broadcast_shapes(x.shape, y.shape))


def _unique(r: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x = args[0]
    if not x.is_meta:
        return None
    if (real := r.value_of(x)) is not None:
        n = int(real.unique().numel())
        return _positions((n,), x.dtype), _positions(x.shape), _positions((n,))
    r.guess(f"unique in {r.where()} finds as many values as differ; the graph holds as many as there are")
    values = _positions((x.numel(),), x.dtype)
    r.distinct.append(values)
    return values, _positions(x.shape), _positions((x.numel(),))


def _unique_in_row(r: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``unique_consecutive``."""
    known = r.value_of(args[0]) if args[0].is_meta else None
    if not args[0].is_meta or len(args) > 3 or kwargs.get("dim") is not None:
        return None
    if known is None:
        return _unique(r, args, kwargs)
    n = int(known.unique_consecutive().numel())
    return _positions((n,), args[0].dtype), _positions(args[0].shape), _positions((n,))


def _unbind(r: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``for value in x.unique()`` runs once: its body is the same for every value."""
    if not any(args[0] is t for t in r.distinct):
        return None
    r.note(f"a loop over the different values of a tensor in {r.where()} is recorded once")
    return list(args[0].unbind(0)[:1])


def _repeat_each(r: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``repeat_interleave`` by a table of counts that is known although the model has no values."""
    x, repeats = args[0], args[1]
    known = r.value_of(repeats) if repeats.is_meta else repeats
    if not x.is_meta or known is None:
        return None
    dim = args[2] if len(args) > 2 else kwargs.get("dim")
    shape = [x.numel()] if dim is None else list(x.shape)
    axis = 0 if dim is None else dim % x.ndim
    shape[axis] = int(known.sum()) * (shape[axis] if repeats.numel() == 1 else 1)
    return _positions(shape, x.dtype)


BOUNDS: Final[dict[str, Callable[[Recorder, tuple[Any, ...], dict[str, Any]], Any]]] = {
    "nonzero": _nonzero, "argwhere": _nonzero, "where.default": _where, "nonzero_numpy": _where,
    "masked_select": _masked_select, "_unique2": _unique, "unique_consecutive": _unique_in_row, "unbind": _unbind,
    "repeat_interleave.self_Tensor": _repeat_each,
}


def without_masks(r: Recorder, indices: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The index tensors of ``x[indices]``, each boolean one replaced by the positions that it holds true."""
    plain: list[Tensor | None] = []
    for t in indices:
        if t is None or t.dtype not in MASKS or not t.ndim:
            plain.append(t)
            continue
        if not t.is_meta:
            plain += t.nonzero().unbind(1)
            continue
        known = r.value_of(t)
        places = known.nonzero().unbind(1) if known is not None else (None,) * t.ndim
        n = t.numel() if places[0] is None else len(places[0])
        if known is None:
            r.guess(f"a mask in {r.where()} keeps as many rows as it holds true; the graph keeps all")
        node = r.node("NonZero", [t], (t.ndim, n)).node if r.is_live(t) else None
        for place in places:
            i = _positions((n,))
            r.know(i, place)
            plain.append(i)
            if node is None:
                r.make_constant(i, r.params_in(t))
            else:
                r.make_live(i, node)
    return plain


def nonzero(r: Recorder, out: Tensor, x: Tensor, *rest: Any, **more: Any) -> Ref:
    """ONNX has one row for each axis, torch one column."""
    return r.node("NonZero", [x], (out.shape[1], out.shape[0]))


def where(r: Recorder, out: Sequence[Tensor], x: Tensor) -> list[Ref]:
    """The positions as one tensor for each axis."""
    rows = r.node("NonZero", [x], (x.ndim, out[0].numel()))
    return [r.cut(rows, 0, i, i + 1) for i in range(x.ndim)]


def masked_select(r: Recorder, out: Tensor, x: Tensor, mask: Tensor) -> Ref:
    shape = _joint(x, mask)
    value = r.ref(x) if x.shape == shape else r.node("Expand", [x], shape)
    if not r.is_live(mask):
        return r.node("GatherND", [value], out.shape, axes=tuple(range(len(shape))))
    wide = r.ref(mask) if mask.shape == shape else r.node("Expand", [mask], shape)
    places = r.node("NonZero", [wide], (len(shape), prod(shape)))
    return r.node("GatherND", [value, places], out.shape, axes=tuple(range(len(shape))))


def unique(r: Recorder, out: Sequence[Tensor], x: Tensor, *rest: Any, **more: Any) -> list[Ref | None]:
    """The values in order; places and counts are ``Unknown`` if somebody reads them."""
    flat = Ref(r.ref(x).node, (x.numel(),))
    return [r.node("TopK", [flat], flat.shape, axis=0, k=x.numel(), largest=False), None, None]
