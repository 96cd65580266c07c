"""Handlers of element-wise operators without weights.

Conventions (reasons in docs/adr/0003-tracing.md): see ``torch_layers`` for what a handler is. A number is an attribute
``scalar`` rounded to six digits, not an argument. ``x - 2`` is ``Add`` with scalar -2 and ``x / 4`` is ``Mul`` with
scalar 0.25; ``x + 0``, ``x * 1`` and ``x ** 1`` make no node. Attributes that equal the default of the ONNX operator are left
out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Number
from typing import Any

from torch import Tensor

from cg.spec import Shape
from extract.torch_recorder import Recorder, Ref

Operand = Tensor | Ref | float


def number(value: Any) -> float:
    """A scalar as it is stored: six significant digits, so that float32 and float64 frameworks agree."""
    return float(f"{float(value):.6g}")


def shape_of(x: Tensor | Ref) -> Shape:
    return tuple(x.shape)


def axis_of(x: Tensor, dim: int) -> int:
    """An axis counted from the front; a tensor without axes has one of length one."""
    return dim % x.ndim if x.ndim else 0


def unary(*ops: str) -> Callable[..., Ref]:
    """Operators applied one after the other to a tensor, no attributes kept."""

    def handler(r: Recorder, out: Tensor, x: Tensor, *rest: Any, **more: Any) -> Ref:
        y = r.ref(x)
        for op in ops:
            y = r.node(op, [y], out.shape)
        return y

    return handler


def activation(op: str, **defaults: tuple[float, float]) -> Callable[..., Ref]:
    """Activation with numeric settings; ``name=(default of torch, default of ONNX)`` in the order of the arguments."""

    def handler(r: Recorder, out: Tensor, x: Tensor, *settings: Any, **named: Any) -> Ref:
        attrs = {}
        for i, (name, (torch_default, onnx_default)) in enumerate(defaults.items()):
            value = named.get(name, settings[i] if i < len(settings) else torch_default)
            if value is not None and number(value) != number(onnx_default):
                attrs[name] = number(value)
        return r.node(op, [x], out.shape, attrs=attrs)

    return handler


def gelu(r: Recorder, out: Tensor, x: Tensor, approximate: str = "none") -> Ref:
    return r.node("Gelu", [x], out.shape, attrs=({} if approximate == "none" else {"approximate": approximate}))


def clip(r: Recorder, out: Tensor, x: Tensor, min: Any = None, max: Any = None) -> Ref:
    bounds = {"min": min, "max": max}
    tensors = [b for b in bounds.values() if isinstance(b, Tensor)]
    attrs = {k: number(b) for k, b in bounds.items() if b is not None and not isinstance(b, Tensor)}
    return r.node("Clip", [x, *tensors], out.shape, attrs=attrs)


def clip_to(low: float, high: float) -> Callable[..., Ref]:
    def handler(r: Recorder, out: Tensor, x: Tensor, min: Any = low, max: Any = high) -> Ref:
        return clip(r, out, x, min, max)

    return handler


def glu(r: Recorder, out: Tensor, x: Tensor, dim: int = -1) -> Ref:
    axis, half = axis_of(x, dim), x.shape[dim] // 2
    gate = r.node("Sigmoid", [r.cut(x, axis, half, 2 * half)], out.shape)
    return r.node("Mul", [r.cut(x, axis, 0, half), gate], out.shape)


def combine(r: Recorder, op: str, out_shape: Sequence[int], x: Operand, y: Operand) -> Ref:
    """``op(x, y)`` where at most one of the two is a number."""
    x, y = plain(r, x), plain(r, y)
    if isinstance(x, Number) and op in ("Add", "Mul", "Max", "Min"):
        x, y = y, x
    if isinstance(y, Number):
        assert not isinstance(x, Number)
        if op == "Sub":
            op, y = "Add", -y
        elif op == "Div" and y:
            op, y = "Mul", 1 / y
        neutral = 0 if op == "Add" else 1
        if op in ("Add", "Mul", "Pow") and y == neutral and shape_of(x) == tuple(out_shape):
            return x if isinstance(x, Ref) else r.ref(x)
        return r.node(op, [x], out_shape, scalar=number(y))
    if isinstance(x, Number):
        if op == "Div":
            y = r.node("Reciprocal", [y], shape_of(y))
            return combine(r, "Mul", out_shape, y, x)
        return r.node(op, [y], out_shape, scalar=number(x), scalar_first=True)
    assert not isinstance(x, float)
    assert not isinstance(y, float)
    for kept, other in ((x, y), (y, x)):
        if op in ("Add", "Mul") and shape_of(kept) == tuple(out_shape) and _full_of(r, other, 0 if op == "Add" else 1):
            return kept if isinstance(kept, Ref) else r.ref(kept)
    return r.node(op, [x, y], out_shape)


def _full_of(r: Recorder, x: Operand, neutral: int) -> bool:
    """Whether ``x`` is a constant of known values that are all ``neutral``: a mask that masks nothing."""
    if not isinstance(x, Tensor) or r.is_live(x) or r.params_in(x):
        return False
    values = r.value_of(x) if x.is_meta else x
    return values is not None and values.numel() > 0 and bool((values == neutral).all())


def plain(r: Recorder, x: Any) -> Any:
    """A zero-dimensional constant whose value is known is a number like any other."""
    if isinstance(x, Tensor) and x.ndim == 0 and not r.is_live(x) and not r.params_in(x):
        return r.scalars.get(id(x), x) if x.is_meta else x.item()
    return x


def binary(op: str) -> Callable[..., Ref]:
    """``op(x, alpha * y)``; ``rounding_mode`` adds ``Floor`` (truncation is taken as floor)."""

    def handler(r: Recorder, out: Tensor, x: Operand, y: Operand, alpha: float = 1,
                rounding_mode: str | None = None) -> Ref:
        if alpha != 1:
            y = y * alpha if isinstance(y, Number) else combine(r, "Mul", shape_of(y), y, alpha)  # type: ignore
        value = combine(r, op, out.shape, x, y)
        return value if rounding_mode is None else r.node("Floor", [value], out.shape)

    return handler


def reverse_sub(r: Recorder, out: Tensor, x: Operand, y: Operand, alpha: float = 1) -> Ref:
    return binary("Sub")(r, out, y, x, alpha)


def compare(op: str, negate: bool = False) -> Callable[..., Ref]:
    def handler(r: Recorder, out: Tensor, x: Operand, y: Operand) -> Ref:
        value = combine(r, op, out.shape, x, y)
        return r.node("Not", [value], out.shape) if negate else value

    return handler


def power(exponent: float) -> Callable[..., Ref]:
    def handler(r: Recorder, out: Tensor, x: Tensor) -> Ref:
        return r.node("Pow", [x], out.shape, scalar=number(exponent))

    return handler


def multiply_add(op: str) -> Callable[..., Ref]:
    """addcmul and addcdiv: ``x + value * op(y, z)``."""

    def handler(r: Recorder, out: Tensor, x: Tensor, y: Tensor, z: Tensor, value: float = 1) -> Ref:
        inner = r.node(op, [y, z], out.shape)
        return r.node("Add", [x, combine(r, "Mul", out.shape, inner, value)], out.shape)

    return handler


def lerp(r: Recorder, out: Tensor, x: Tensor, end: Tensor, weight: Any) -> Ref:
    difference = r.node("Sub", [end, x], out.shape)
    return r.node("Add", [x, combine(r, "Mul", out.shape, difference, weight)], out.shape)
