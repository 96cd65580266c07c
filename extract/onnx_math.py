"""ONNX operators that compute without weights, as torch calls: arithmetic, activations, reductions.

See ``onnx_layers`` for what a handler is. A known tensor of one value is a number, as it would be in a PyTorch program.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from extract.onnx_node import Call, scalar, uniform
from extract.torch_primitive import primitive


def unary(run: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    def handler(call: Call, x: Tensor) -> Tensor:
        return run(x)

    return handler


def vocabulary(op: str) -> Callable[..., Tensor]:
    """An element-wise operator of the vocabulary that torch does not have."""

    def handler(call: Call, x: Tensor) -> Tensor:
        return primitive(op, [x], x.shape)

    return handler


def _operands(call: Call, x: Tensor, y: Tensor) -> tuple[Any, Any]:
    """Both tensors, or a tensor and a number; before version 7 the second is aligned by an attribute ``axis``."""
    if call.opset < 7 and call.integer("broadcast", 0) and y.ndim < x.ndim:
        axis = call.integer("axis", x.ndim - y.ndim) % max(x.ndim, 1)
        y = y.reshape(*y.shape, *[1] * (x.ndim - axis - y.ndim))
    if x.is_meta and not y.is_meta and y.numel() == 1:
        return _of_rank(x, y.ndim), scalar(y)
    if y.is_meta and not x.is_meta and x.numel() == 1:
        return scalar(x), _of_rank(y, x.ndim)
    return x, y


def _of_rank(x: Tensor, rank: int) -> Tensor:
    """``x`` with as many axes of one in front as the rank of the other argument asks for."""
    return x if x.ndim >= rank else x.reshape(*[1] * (rank - x.ndim), *x.shape)


def binary(run: Callable[[Any, Any], Tensor], neutral: float | None = None) -> Callable[..., Tensor]:
    """Two arguments that broadcast; torch and ONNX agree on how. Known tensors full of ``neutral`` change nothing (masks)."""

    def handler(call: Call, x: Tensor, y: Tensor) -> Tensor:
        for a, b in ((x, y), (y, x)):
            if neutral is not None and a.is_meta and not b.is_meta and b.numel() > 1 and uniform(b) == neutral and (
                    torch.broadcast_shapes(a.shape, b.shape) == a.shape):
                return a
        return run(*_operands(call, x, y))

    return handler


def divide(call: Call, x: Tensor, y: Tensor) -> Tensor:
    """Integers are divided without a rest."""
    whole = not x.is_floating_point() and not x.is_complex()
    a, b = _operands(call, x, y)
    return torch.div(a, b, rounding_mode="trunc") if whole and isinstance(a, Tensor) else a / b


def power(call: Call, x: Tensor, y: Tensor) -> Tensor:
    a, b = _operands(call, x, y)
    if isinstance(b, float) and b.is_integer():
        b = int(b)
    return torch.pow(a, b)


def modulo(call: Call, x: Tensor, y: Tensor) -> Tensor:
    a, b = _operands(call, x, y)
    return torch.fmod(a, b) if call.integer("fmod", 0) else torch.remainder(a, b)


def logical(run: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """Of two tensors; numbers stay tensors."""

    def handler(call: Call, x: Tensor, y: Tensor) -> Tensor:
        return run(x, y)

    return handler


def never(call: Call, x: Tensor) -> Tensor:
    """IsNaN, IsInf: guards against what numbers of a trained network are not."""
    if not x.is_meta:
        return (torch.isnan if call.op == "IsNaN" else torch.isinf)(x)
    return torch.zeros((), dtype=torch.bool).expand(x.shape)


def shift(call: Call, x: Tensor, y: Tensor) -> Tensor:
    return (torch.bitwise_left_shift if call.text("direction") == "LEFT" else torch.bitwise_right_shift)(x, y)


def variadic(run: Callable[[Any, Any], Tensor], average: bool = False) -> Callable[..., Tensor]:
    """Sum, Max, Min, Mean of any number of arguments, one after the other."""

    def handler(call: Call, *values: Tensor) -> Tensor:
        if not values:
            raise call.fail("it has no input")
        total = values[0]
        for v in values[1:]:
            a, b = _operands(call, total, v)
            if run is not torch.add:  # maximum and minimum take tensors only
                a, b = (torch.tensor(t) if not isinstance(t, Tensor) else t for t in (a, b))
            total = run(a, b)
        return total / len(values) if average else total

    return handler


def limit(call: Call, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """Clip; before version 11 its limits are attributes. Limits at the ends of the number format are none."""
    bounds = []
    for name, value in (("min", low), ("max", high)):
        bound = call.get(name) if value is None else scalar(value)
        bounds.append(None if isinstance(bound, float) and abs(bound) > 3.4e38 else bound)
    if bounds == [None, None]:
        return x
    tensors = [torch.tensor(b, dtype=x.dtype) if b is not None and not isinstance(b, Tensor) else b for b in bounds]
    if any(isinstance(b, Tensor) for b in bounds):
        return torch.clamp(x, *tensors)
    return torch.clamp(x, *bounds)


def where(call: Call, condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """A number in the place of one branch is masking, as ``masked_fill`` does it."""
    if condition.dtype is not torch.bool:
        condition = condition.to(torch.bool)
    shape = torch.broadcast_shapes(condition.shape, x.shape, y.shape)
    always = uniform(condition)
    if always is not None:
        return (x if always else y).expand(shape)
    a, b = scalar(x), scalar(y)
    if not isinstance(a, Tensor) and isinstance(b, Tensor) and tuple(b.shape) == tuple(shape):
        return b.masked_fill(condition, a)
    if not isinstance(b, Tensor) and isinstance(a, Tensor):
        return torch.where(condition, a, b)
    if not isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.where(condition, a, b)
    return torch.where(condition, x, y)


# ---- activations ------------------------------------------------------------------------------------------------


def hard_sigmoid(call: Call, x: Tensor) -> Tensor:
    """``max(0, min(1, alpha * x + beta))``; the version of PyTorch has alpha 1/6."""
    alpha, beta = call.real("alpha", 0.2), call.real("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-5 and beta == 0.5:
        return F.hardsigmoid(x)
    more: dict[str, Any] = {} if beta == 0.5 else {"beta": float(f"{beta:.6g}")}
    if abs(alpha - 0.2) > 1e-6:
        more["alpha"] = float(f"{alpha:.6g}")
    return primitive("HardSigmoid", [x], x.shape, **more)


def gelu(call: Call, x: Tensor) -> Tensor:
    return F.gelu(x, approximate=call.text("approximate", "none"))


def swish(call: Call, x: Tensor) -> Tensor:
    alpha = call.real("alpha", 1.0)
    return F.silu(x) if alpha == 1 else x * torch.sigmoid(x * alpha)


def swiglu(call: Call, x: Tensor, gate: Tensor | None = None) -> Tensor:
    if gate is None:
        x, gate = x.chunk(2, call.integer("axis", -1))
    return F.silu(x) * gate


def thresholded_relu(call: Call, x: Tensor) -> Tensor:
    return F.threshold(x, call.real("alpha", 1.0), 0.0)


def softmax(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Before version 13 all axes from ``axis`` on are one."""

    def handler(call: Call, x: Tensor) -> Tensor:
        axis = call.axis(call.integer("axis", -1 if call.opset >= 13 else 1), x.ndim)
        if call.opset >= 13 or all(d == 1 for d in x.shape[axis + 1:]):
            return run(x, axis)
        return run(x.reshape(prod(x.shape[:axis]), -1), 1).reshape(x.shape)

    return handler


def hardmax(call: Call, x: Tensor) -> Tensor:
    return primitive("Hardmax", [x], x.shape, axis=call.axis(call.integer("axis", -1 if call.opset >= 13 else 1), x.ndim))


# ---- reductions -------------------------------------------------------------------------------------------------


def reduction(run: Callable[[Tensor, list[int], bool], Tensor]) -> Callable[..., Tensor]:
    """``run(x, axes, keepdims)``; the axes are an attribute or (13, 18 and later) an input."""

    def handler(call: Call, x: Tensor, axes_input: Tensor | None = None) -> Tensor:
        axes = call.attribute_or_input("axes", axes_input)
        if not axes and call.integer("noop_with_empty_axes", 0):
            return x
        chosen = sorted({call.axis(a, x.ndim) for a in axes}) if axes else list(range(x.ndim))
        return run(x, chosen, bool(call.integer("keepdims", 1)))

    return handler


def extreme(run: Callable[..., Tensor]) -> Callable[[Tensor, list[int], bool], Tensor]:
    """Greatest or least value; of no values it is a constant."""
    def handler(x: Tensor, axes: list[int], keep: bool) -> Tensor:
        if x.numel():
            return run(x.to(torch.uint8) if x.dtype is torch.bool else x, axes, keep).to(x.dtype)
        shape = [1 if i in axes else d for i, d in enumerate(x.shape) if keep or i not in axes]
        return torch.zeros(shape, dtype=x.dtype, device="meta")

    return handler


def product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """torch reduces one axis at a time; it is one node."""
    if x.is_meta and len(axes) > 1:
        y = primitive("ReduceProd", [x], [1 if i in axes else d for i, d in enumerate(x.shape)], axes=axes)
        return y if keep else y.reshape([d for i, d in enumerate(x.shape) if i not in axes])
    for axis in reversed(axes):
        x = x.prod(axis, keep)
    return x


def reduce_sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return x.sum(axes, keep, dtype=x.dtype)


def mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return x.mean(axes, keep) if x.is_floating_point() else x.float().mean(axes, keep).to(x.dtype)


def norm(order: int) -> Callable[[Tensor, list[int], bool], Tensor]:
    return lambda x, axes, keep: torch.linalg.vector_norm(x if x.is_floating_point() else x.float(), order, axes, keep)


def arg_extreme(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def handler(call: Call, x: Tensor) -> Tensor:
        return run(x, call.axis(call.integer("axis", 0), x.ndim), bool(call.integer("keepdims", 1)))

    return handler


def top_k(call: Call, x: Tensor, k_input: Tensor | None = None) -> Any:
    """The number of values is an attribute before version 10."""
    k = call.integer("k") if k_input is None else int(call.number(k_input, "k"))
    axis = call.axis(call.integer("axis", -1), x.ndim)
    if not 0 <= k <= x.shape[axis]:
        raise call.fail(f"k is {k}, but axis {axis} has {x.shape[axis]} entries")
    return tuple(torch.topk(x, k, axis, bool(call.integer("largest", 1)), bool(call.integer("sorted", 1))))


def cumulative(call: Call, x: Tensor, axis: Tensor) -> Tensor:
    dim = call.axis(int(call.number(axis, "axis")), x.ndim)
    x = x.long() if x.dtype == torch.bool else x  # not in the specification, but exporters write it
    if x.is_meta or not (call.integer("exclusive", 0) or call.integer("reverse", 0)):
        return torch.cumsum(x, dim, dtype=x.dtype)
    y = x.flip(dim) if call.integer("reverse", 0) else x
    total = torch.cumsum(y, dim, dtype=x.dtype)
    total = total - y if call.integer("exclusive", 0) else total
    return total.flip(dim) if call.integer("reverse", 0) else total


def einsum(call: Call, *values: Tensor) -> Tensor:
    return torch.einsum(call.text("equation"), *values)


def determinant(call: Call, x: Tensor) -> Tensor:
    return torch.linalg.det(x)
