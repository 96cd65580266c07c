"""Handlers of complex numbers and of the Fourier transform: a complex tensor is a value with a last axis of two, as in ONNX.

A product is four products of parts; parts are slices of the last axis. A value that was real and only became complex by its
number format keeps its shape, until somebody needs the other half.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod, sqrt
from typing import Any, Final

import torch
from torch import Tensor

from extract import torch_moves as moves
from extract.torch_math import axis_of, combine, number, plain
from extract.torch_recorder import Recorder, Ref
from extract.torch_reductions import axes_of, mean, reduction

Part = Ref | float


def whole(r: Recorder, x: Tensor) -> Ref:
    """``(…, 2)`` for a complex tensor, ``(…, 1)`` for a real one, also if its format is complex."""
    ref = r.ref(x)
    return ref if x.dtype.is_complex else Ref(ref.node, (*ref.shape, 1))


def parts(r: Recorder, x: Any) -> tuple[Part, Part | None]:
    """The real part and the imaginary one, ``None`` if there is none."""
    x = plain(r, x)
    if isinstance(x, complex):
        return x.real, x.imag
    if not isinstance(x, Tensor):
        return float(x), None
    if x.dtype.is_complex and not r.is_live(x):  # two constants; the first counts what was trained
        shape = (*x.shape, 1)
        return r.constant(shape, r.params_in(x)), r.constant(shape)
    value = whole(r, x)
    if value.shape[-1] == 1:
        return value, None
    axis = len(value.shape) - 1
    return r.cut(value, axis, 0, 1), r.cut(value, axis, 1, 2)


def joined(r: Recorder, real: Ref, imaginary: Ref) -> Ref:
    axis = len(real.shape) - 1
    return r.node("Concat", [real, imaginary], (*real.shape[:-1], 2), axis=axis)


def _step(r: Recorder, op: str, x: Part, y: Part) -> Part:
    if isinstance(x, Ref) or isinstance(y, Ref):
        shapes = [v.shape for v in (x, y) if isinstance(v, Ref)]
        return combine(r, op, tuple(torch.broadcast_shapes(*shapes)), x, y)
    return x * y if op == "Mul" else x + y if op == "Add" else x - y


def multiply(r: Recorder, out: Tensor, x: Any, y: Any) -> Ref:
    """``(a + ib)(c + id) = ac - bd + i(ad + bc)``; a real factor multiplies both parts at once."""
    for one, other in ((x, y), (y, x)):
        if not _has_two(r, other) and isinstance(one, Tensor):
            factor = plain(r, other)
            factor = whole(r, factor) if isinstance(factor, Tensor) else float(factor)
            value = whole(r, one)
            return combine(r, "Mul", (*out.shape, value.shape[-1]), value, factor)
    (a, b), (c, d) = parts(r, x), parts(r, y)
    assert b is not None
    assert d is not None
    real = _step(r, "Sub", _step(r, "Mul", a, c), _step(r, "Mul", b, d))
    imaginary = _step(r, "Add", _step(r, "Mul", a, d), _step(r, "Mul", b, c))
    assert isinstance(real, Ref)
    assert isinstance(imaginary, Ref)
    return joined(r, real, imaginary)


def _has_two(r: Recorder, x: Any) -> bool:
    if isinstance(x, Tensor):
        return x.dtype.is_complex and whole(r, x).shape[-1] == 2 if r.is_live(x) else x.dtype.is_complex
    return isinstance(x, complex)


def divide(r: Recorder, out: Tensor, x: Any, y: Any) -> Ref:
    """By a real number, or by the conjugate over the square of the size."""
    if not _has_two(r, y):
        value = whole(r, x)
        divisor = plain(r, y)
        divisor = whole(r, divisor) if isinstance(divisor, Tensor) else float(divisor)
        return combine(r, "Div", (*out.shape, value.shape[-1]), value, divisor)
    c, d = parts(r, y)
    assert d is not None
    size = _step(r, "Add", _step(r, "Mul", c, c), _step(r, "Mul", d, d))
    a, b = parts(r, x)
    b = 0.0 if b is None else b
    real = _step(r, "Add", _step(r, "Mul", a, c), _step(r, "Mul", b, d))
    imaginary = _step(r, "Sub", _step(r, "Mul", b, c), _step(r, "Mul", a, d))
    assert isinstance(real, Ref)
    assert isinstance(imaginary, Ref)
    return combine(r, "Div", (*out.shape, 2), joined(r, real, imaginary), size)


def add(op: str) -> Callable[..., Ref]:
    def handler(r: Recorder, out: Tensor, x: Any, y: Any, alpha: float = 1) -> Ref:
        if alpha != 1:
            y = multiply(r, y, y, alpha) if isinstance(y, Tensor) else y * alpha
        if _has_two(r, x) and _has_two(r, y) and isinstance(x, Tensor) and isinstance(y, Tensor):
            return r.node(op, [whole(r, x), whole(r, y)], (*out.shape, 2))
        (a, b), (c, d) = parts(r, x), parts(r, y)
        real = _step(r, op, a, c)
        assert isinstance(real, Ref)
        if b is None and d is None:
            return real
        other = _step(r, op, 0.0 if b is None else b, 0.0 if d is None else d)
        return joined(r, real, other if isinstance(other, Ref) else r.constant(real.shape))

    return handler


def view_as_real(r: Recorder, out: Tensor, x: Tensor) -> Ref:
    value = whole(r, x)
    if value.shape[-1] == 2:
        return value
    return r.node("Pad", [value], out.shape, pads=(*(0,) * (2 * out.ndim - 1), 1))


def view_as_complex(r: Recorder, out: Tensor, x: Tensor) -> Ref:
    return r.ref(x)


def complex_of(r: Recorder, out: Tensor, real: Tensor, imaginary: Tensor) -> Ref:
    return joined(r, whole(r, real), whole(r, imaginary))


def polar(r: Recorder, out: Tensor, size: Tensor, angle: Tensor) -> Ref:
    turn = whole(r, angle)
    return joined(r, *(r.node("Mul", [whole(r, size), r.node(op, [turn], turn.shape)], (*out.shape, 1))
                       for op in ("Cos", "Sin")))


def conjugate(r: Recorder, out: Tensor, x: Tensor) -> Ref:
    real, imaginary = parts(r, x)
    assert isinstance(real, Ref)
    return real if imaginary is None else joined(r, real, r.node("Neg", [imaginary], real.shape))  # type: ignore[list-item]


def size_of(r: Recorder, out: Tensor, x: Tensor) -> Ref:
    value = whole(r, x)
    if value.shape[-1] == 1:
        return r.node("Abs", [value], value.shape)
    return r.node("ReduceL2", [value], (*out.shape, 1), axes=(out.ndim,))


def fourier(r: Recorder, out: Tensor, x: Tensor, dims: Sequence[int], normalization: int, last: Any) -> Ref:
    """``_fft_r2c``, ``_fft_c2c`` and ``_fft_c2r``: a ``DFT`` for each axis, and its scale. The inverse of ONNX divides by the
    number of values, that of torch only if it is told to.

    ``last`` is whether half of the result is left out (r2c), the direction (c2c), the length of the last axis (c2r).
    """
    value = whole(r, x)
    to_real, from_real = not out.dtype.is_complex, not x.dtype.is_complex
    inverse = to_real or (not from_real and not last)
    axes = [axis_of(x, d) for d in dims]
    for axis in reversed(axes) if from_real else axes:
        ends = axis == axes[-1]
        attrs: dict[str, Any] = {"axis": axis, **({"inverse": 1} if inverse else {})}
        if ends and (to_real or (from_real and last)):
            attrs["onesided"] = 1
        shape = [*value.shape[:-1], 1 if to_real and ends else 2]
        if ends and (to_real or from_real):
            shape[axis] = out.shape[axis]
        value = r.node("DFT", [value], shape, attrs=attrs)
    count = prod((out if to_real else x).shape[a] for a in axes)
    scale = {0: 1.0, 1: 1 / sqrt(count), 2: 1 / count}[normalization] * (count if inverse else 1)
    return combine(r, "Mul", value.shape, value, scale)


def _moved(handler: Callable[..., Any], change: Callable[..., tuple[Any, ...]]) -> Callable[..., Any]:
    """A handler that moves values, on tensors that have the axis of parts."""

    def moved(r: Recorder, out: Any, *args: Any, **kwargs: Any) -> Any:
        return handler(r, _doubles(r, out, False), *change(_doubles(r, args[0], True), *args[1:], **kwargs))

    return moved


def _doubles(r: Recorder, value: Any, known: bool) -> Any:
    if isinstance(value, list | tuple):
        return [_doubles(r, v, known) for v in value]
    double = torch.empty((*value.shape, 2), device="meta")
    if known and r.is_live(value):
        pair = view_as_real(r, double, value)
        r.make_live(double, pair.node)
    elif known:
        r.make_constant(double, r.params_in(value))
    return double


def _first(x: Any) -> Tensor:
    """With the axis of parts; the axes of the operator are those before it."""
    return x[0] if isinstance(x, list) else x


def _axis(x: Any, dim: int, new: int = 0) -> int:
    return dim % (_first(x).ndim - 1 + new)


_SPLIT: Final = _moved(moves.split, lambda x, sections=None, dim=0: (x, sections, _axis(x, dim)))
COMPLEX: Final[dict[str, Callable[..., Any]]] = {
    "mul": multiply, "div": divide, "add": add("Add"), "sub": add("Sub"), "view_as_real": view_as_real, "abs": size_of,
    "_conj": conjugate, "conj_physical": conjugate, "_fft_c2c": fourier, "_fft_c2r": fourier,
    "slice": _moved(moves.slice_, lambda x, dim=0, *rest: (x, _axis(x, dim), *rest)),
    "select": _moved(moves.select, lambda x, dim, index: (x, _axis(x, dim), index)),
    "cat": _moved(moves.concat, lambda x, dim=0: (x, _axis(x, dim))),
    "stack": _moved(moves.stack, lambda x, dim=0: (x, _axis(x, dim, 1))),
    "chunk": _SPLIT, "split": _SPLIT, "split_with_sizes": _SPLIT,
    "unbind": _moved(moves.unbind, lambda x, dim=0: (x, _axis(x, dim))),
    "expand": _moved(moves.expand, lambda x, *rest, **more: (x,)),
    "index": _moved(moves.index, lambda x, indices: (x, indices)),
    "index_select": _moved(moves.gather("Gather"), lambda x, dim, index: (x, _axis(x, dim), index)),
    "flip": _moved(moves.flip, lambda x, dims: (x, [_axis(x, d) for d in dims])),
    "roll": _moved(moves.roll, lambda x, shifts, dims: (x, shifts, [_axis(x, d) for d in dims])),
    "constant_pad_nd": _moved(moves.pad, lambda x, pads, value=0: (x, [0, 0, *pads], "constant", number(value))),
    "sum": _moved(reduction("ReduceSum"), lambda x, dim=None, *rest, **more: (x, _axes(x, dim))),
    "mean": _moved(mean, lambda x, dim=None, *rest, **more: (x, _axes(x, dim))),
}
HANDLERS: Final[dict[str, Callable[..., Any]]] = {
    "view_as_complex": view_as_complex, "complex": complex_of, "polar": polar, "_fft_r2c": fourier,
}


def _axes(x: Tensor, dim: Any) -> tuple[int, ...]:
    return axes_of(x[..., 0], dim)
