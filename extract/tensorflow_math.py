"""Handlers of TensorFlow operators that compute without weights: element-wise, reductions, softmax."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from extract.extraction import ExtractionError
from extract.tensorflow_consts import MOST_VALUES, dtype_of
from extract.tensorflow_values import Value, known

if TYPE_CHECKING:
    from extract.tensorflow_program import Call


def unary(function: Callable[[Tensor], Tensor]) -> Callable[[Call], Value]:
    """Element by element, in whatever order the axes are kept."""

    def handler(call: Call) -> Value:
        x = call.value(0)
        return Value(function(x.tensor), x.order)

    return handler


def with_attr(function: Callable[..., Tensor], attr: str, default: float) -> Callable[[Call], Value]:
    def handler(call: Call) -> Value:
        x = call.value(0)
        return Value(function(x.tensor, call.attr(attr, default)), x.order)

    return handler


def binary(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Call], Value]:
    def handler(call: Call) -> Value:
        x, y = call.value(0), call.value(1)
        tensors, order = call.aligned(x, y)
        small = all(not t.is_meta for t in tensors)
        if small and prod(torch.broadcast_shapes(*(t.shape for t in tensors))) > MOST_VALUES:
            tensors = [t.to("meta") for t in tensors]
        return Value(function(tensors[0], tensors[1]), order)

    return handler


def divide(call: Call) -> Value:
    """``Div`` of integers cuts towards zero, any other division is true."""
    whole = not call.value(0).tensor.is_floating_point() and call.node.op in ("Div", "TruncateDiv")
    return binary((lambda a, b: torch.div(a, b, rounding_mode="trunc")) if whole else torch.div)(call)


def add_n(call: Call) -> Value:
    values = [call.value(i) for i in range(len(call))]
    tensors, order = call.aligned(*values)
    total = tensors[0]
    for t in tensors[1:]:
        total = total + t
    return Value(total, order)


def clip_by_value(call: Call) -> Value:
    x = call.value(0)
    low, high = known(call.value(1).tensor), known(call.value(2).tensor)
    if isinstance(low, list) or isinstance(high, list) or low is None or high is None:
        tensors, order = call.aligned(x, call.value(1), call.value(2))
        return Value(torch.minimum(torch.maximum(tensors[0], tensors[1]), tensors[2]), order)
    return Value(torch.clamp(x.tensor, low, high), x.order)


def bounded(smallest: bool) -> Callable[[Call], Value]:
    """Minimum or Maximum: of a tensor and a known number it is a clip."""

    def handler(call: Call) -> Value:
        for i in (0, 1):
            x, bound = call.value(i), call.value(1 - i)
            number = known(bound.tensor) if bound.rank == 0 else None
            if isinstance(number, int | float) and x.tensor.is_meta:
                y = torch.clamp(x.tensor, max=number) if smallest else torch.clamp(x.tensor, min=number)
                return Value(y, x.order)
        return binary(torch.minimum if smallest else torch.maximum)(call)

    return handler


def cast(call: Call) -> Value:
    x = call.value(0)
    dtype = dtype_of(call.attr("DstT", call.attr("type", 1)), repr(call.node))
    return x if x.tensor.dtype == dtype else Value(x.tensor.to(dtype), x.order)


def softmax(function: Callable[..., Tensor]) -> Callable[[Call], Value]:
    def handler(call: Call) -> Value:
        x = call.value(0)
        return Value(function(x.tensor, dim=x.order[-1]), x.order)

    return handler


# ---- reductions -------------------------------------------------------------------------------------------------


def reduction(function: Callable[..., Tensor]) -> Callable[[Call], Value]:
    """``function(tensor, axes, keepdim)`` over the axes given as second argument."""

    def handler(call: Call) -> Value:
        x = call.value(0)
        given = call.ints(1)
        if x.rank and not all(-x.rank <= a < x.rank for a in given):
            raise ExtractionError(f"{call.node}: axes {given[:9]} are not all among the {x.rank} axes of its argument")
        axes = {a % x.rank for a in given} if x.rank else set()
        keep = bool(call.attr("keep_dims", call.attr("keepdims", False)))
        if not axes:
            return x
        physical = sorted(x.order[a] for a in axes)
        y = function(x.tensor, physical, keep)
        return Value(y, x.order if keep else x.without(axes))

    return handler


def product_over(t: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in reversed(axes):
        t = torch.prod(t, axis, keepdim=keep)
    return t


def all_over(t: Tensor, axes: list[int], keep: bool) -> Tensor:
    return torch.amin(t.to(torch.uint8), axes, keep).to(torch.bool)


def any_over(t: Tensor, axes: list[int], keep: bool) -> Tensor:
    return torch.amax(t.to(torch.uint8), axes, keep).to(torch.bool)


def max_over(t: Tensor, axes: list[int], keep: bool) -> Tensor:
    """Over all pixels of an image batch it is the global pool of PyTorch."""
    if t.is_meta and t.ndim in (4, 5) and axes == list(range(2, t.ndim)):
        pool = F.adaptive_max_pool2d(t, 1) if t.ndim == 4 else F.adaptive_max_pool3d(t, 1)
        return pool if keep else pool.flatten(1)
    return torch.amax(t, axes, keep)


def arg_extreme(function: Callable[..., Tensor]) -> Callable[[Call], Value]:
    def handler(call: Call) -> Value:
        x = call.value(0)
        axis = call.axis(1, x.rank)
        return Value(function(x.tensor, x.order[axis]), x.without({axis}))

    return handler


def top_k(call: Call) -> list[Value]:
    x = call.value(0)
    values, places = torch.topk(x.plain(), call.int_(1))
    return [Value.of(values), Value.of(places.to(torch.int32))]


def log_sum_exp(call: Call) -> Value:
    x, keep = call.value(0), bool(call.named["total"].attr("keep_dims"))
    axes = {a % x.rank for a in call.ints(1)}
    y = torch.logsumexp(x.tensor, sorted(x.order[a] for a in axes), keep)
    return Value(y, x.order if keep else x.without(axes))


def complex_(call: Call) -> Value:
    tensors, order = call.aligned(call.value(0), call.value(1))
    return Value(torch.complex(*tensors), order)


def fourier(function: Callable[..., Tensor], axes: int) -> Callable[[Call], Value]:
    """FFT, RFFT, …: over the last axes, with the lengths given as second argument if there is one."""

    def handler(call: Call) -> Value:
        sizes = call.ints(1) if len(call) > 1 else None
        return Value.of(function(call.value(0).plain(), sizes, tuple(range(-axes, 0))))

    return handler


def cumulative(call: Call) -> Value:
    x = call.value(0)
    return Value(torch.cumsum(x.tensor, x.order[call.axis(1, x.rank)]), x.order)


def l2_loss(call: Call) -> Value:
    return Value.of((call.value(0).plain() ** 2).sum() * 0.5)


def select(call: Call) -> Value:
    """``Select`` and ``SelectV2``: the condition of the older one may have fewer axes, counted from the front."""
    condition, x, y = (call.value(i) for i in range(3))
    if call.node.op == "Select" and 0 < condition.rank < x.rank:
        condition = Value.of(condition.plain().reshape(*condition.shape, *(1,) * (x.rank - condition.rank)))
    tensors, order = call.aligned(condition, x, y)
    c = known(tensors[0]) if tensors[0].ndim == 0 else None
    if isinstance(c, bool):
        return x if c else y
    a, b = (known(t) if t.ndim == 0 and not t.is_meta and tensors[0].is_meta else t for t in tensors[1:])
    return Value(torch.where(tensors[0].to(torch.bool), a, b), order)
