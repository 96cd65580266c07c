"""Handlers of operators that bring many values together: sums, norms, extremes, softmax, sorting, running sums.

A reduction is recorded with its axes kept, whether or not the call keeps them. See ``torch_math`` for the conventions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Any

import torch
from torch import Tensor

from cg.spec import Shape
from extract.torch_math import axis_of, combine, number
from extract.torch_recorder import Recorder, Ref


def softmax(op: str) -> Callable[..., Ref]:
    def handler(r: Recorder, out: Tensor, x: Tensor, dim: int, *rest: Any, **more: Any) -> Ref:
        return r.node(op, [x], out.shape, axis=axis_of(x, dim))

    return handler


def axes_of(x: Tensor, dim: Any) -> tuple[int, ...]:
    """Sorted, counted from the front; all axes for ``None`` and for an empty list."""
    if dim is None or (isinstance(dim, list | tuple) and not dim):
        return tuple(range(x.ndim))
    return tuple(sorted(axis_of(x, d) for d in ((dim,) if isinstance(dim, int) else dim))) if x.ndim else ()


def reduced(x: Tensor | Ref, axes: Sequence[int]) -> Shape:
    return tuple(1 if i in axes else d for i, d in enumerate(x.shape))


def reduction(op: str) -> Callable[..., Ref]:
    def handler(r: Recorder, out: Tensor, x: Tensor, dim: Any = None, *rest: Any, **more: Any) -> Ref:
        axes = axes_of(x, dim)
        return r.node(op, [x], reduced(x, axes), axes=axes)

    return handler


def mean(r: Recorder, out: Tensor, x: Tensor, dim: Any = None, *rest: Any, **more: Any) -> Ref:
    """Over all axes behind the channels of a batch of images (or volumes) it is ``GlobalAveragePool``."""
    return mean_over(r, x, axes_of(x, dim))


def mean_over(r: Recorder, x: Tensor | Ref, axes: tuple[int, ...]) -> Ref:
    if len(x.shape) >= 4 and axes == tuple(range(2, len(x.shape))):
        return r.node("GlobalAveragePool", [x], reduced(x, axes))
    return r.node("ReduceMean", [x], reduced(x, axes), axes=axes)


def vector_norm(r: Recorder, out: Tensor, x: Tensor, ord: Any = 2, dim: Any = None, *rest: Any, **more: Any) -> Ref:
    return norm_of(r, x, ord, axes_of(x, dim))


def norm_of(r: Recorder, x: Tensor | Ref, order: Any, axes: tuple[int, ...]) -> Ref:
    """Orders 1, 2 (also ``None``) and infinity have an operator; another one is Abs, Pow, ReduceSum, Pow."""
    shape = reduced(x, axes)
    if order in (1, 2, None, "fro"):
        return r.node(f"ReduceL{1 if order == 1 else 2}", [x], shape, axes=axes)
    y = r.node("Abs", [x], x.shape)
    if abs(order) == inf:
        return r.node("ReduceMax" if order > 0 else "ReduceMin", [y], shape, axes=axes)
    if order == 0:
        return r.node("ReduceSum", [r.node("Sign", [y], x.shape)], shape, axes=axes)
    y = r.node("Pow", [y], x.shape, scalar=number(order))
    y = r.node("ReduceSum", [y], shape, axes=axes)
    return r.node("Pow", [y], shape, scalar=number(1 / order))


def spread(root: bool, with_mean: bool = False) -> Callable[..., Any]:
    """Variance or standard deviation: mean, Sub, Pow, mean (, Sqrt)."""

    def handler(r: Recorder, out: Any, x: Tensor, dim: Any = None, *rest: Any, **more: Any) -> Any:
        axes = axes_of(x, None if isinstance(dim, bool) else dim)
        shape = reduced(x, axes)
        centre = mean_over(r, x, axes)
        squares = r.node("Pow", [r.node("Sub", [x, centre], x.shape)], x.shape, scalar=2.0)
        value = mean_over(r, squares, axes)
        value = r.node("Sqrt", [value], shape) if root else value
        return [value, centre] if with_mean else value

    return handler


def extreme(largest: bool) -> Callable[..., Any]:
    """``max``/``min`` in its three forms: of all values, along an axis (with positions), of two tensors."""
    word = "Max" if largest else "Min"

    def handler(r: Recorder, out: Any, x: Tensor, other: Any = None, keepdim: bool = False) -> Any:
        if isinstance(other, Tensor):
            return combine(r, word, out.shape, x, other)
        axes = axes_of(x, other)
        value = r.node(f"Reduce{word}", [x], reduced(x, axes), axes=axes)
        if other is None:
            return value
        return [value, r.node(f"Arg{word}", [x], reduced(x, axes), axis=axis_of(x, other))]

    return handler


def arg_extreme(op: str) -> Callable[..., Ref]:
    def handler(r: Recorder, out: Tensor, x: Tensor, dim: int | None = None, keepdim: bool = False) -> Ref:
        axes = axes_of(x, dim)
        return r.node(op, [x], reduced(x, axes), attrs=({} if dim is None else {"axis": axis_of(x, dim)}))

    return handler


def top_k(r: Recorder, out: Sequence[Tensor], x: Tensor, k: int, dim: int = -1, largest: bool = True,
          *rest: Any) -> list[Ref]:
    """Values and positions are two nodes, because a node has one output."""
    attrs = {"axis": axis_of(x, dim), "k": k, **({} if largest else {"largest": False})}
    return [r.node("TopK", [x], out[0].shape, attrs=attrs), r.node("TopK", [x], out[1].shape, output=1, attrs=attrs)]


def sort(r: Recorder, out: Sequence[Tensor], x: Tensor, dim: int = -1, descending: bool = False, *rest: Any,
         **more: Any) -> list[Ref]:
    """All values in order: the greatest or least ``n`` of them."""
    return top_k(r, out, x, x.shape[dim] if x.ndim else 1, dim, descending)


def cumulative(r: Recorder, out: Tensor, x: Tensor, dim: int, *rest: Any, **more: Any) -> Ref:
    return r.node("CumSum", [x], out.shape, axis=axis_of(x, dim))


def log_of_running_sum(r: Recorder, out: Tensor, x: Tensor, dim: int) -> Ref:
    sums = r.node("CumSum", [r.node("Exp", [x], x.shape)], x.shape, axis=axis_of(x, dim))
    return r.node("Log", [sums], x.shape)


def both_extremes(r: Recorder, out: Any, x: Tensor, *, dim: int | None = None, keepdim: bool = False) -> list[Ref]:
    axes = axes_of(x, dim)
    return [r.node(f"Reduce{word}", [x], reduced(x, axes), axes=axes) for word in ("Min", "Max")]


def sum_without_nan(r: Recorder, out: Tensor, x: Tensor, dim: Any = None, *rest: Any, **more: Any) -> Ref:
    axes = axes_of(x, dim)
    broken = r.node("Not", [r.node("Equal", [x, x], x.shape)], x.shape)
    return r.node("ReduceSum", [r.node("Where", [broken, x], x.shape, then=0.0)], reduced(x, axes), axes=axes)


def count(r: Recorder, out: Tensor, x: Tensor, dim: Any = None) -> Ref:
    """count_nonzero."""
    axes = axes_of(x, dim)
    full = r.node("Not", [r.node("Equal", [x], x.shape, scalar=0.0)], x.shape)
    return r.node("ReduceSum", [full], reduced(x, axes), axes=axes)


def kth_value(r: Recorder, out: Sequence[Tensor], x: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> list[Ref]:
    """The last of the least ``k`` values, and its position."""
    axis = axis_of(x, dim)
    shape = tuple(k if i == axis else d for i, d in enumerate(x.shape)) or (1,)
    source = Ref(r.ref(x).node, tuple(x.shape) or (1,))
    return [r.cut(r.node("TopK", [source], shape, attrs={"axis": axis, "k": k, "largest": False, **position}), axis, k - 1, k)
            for position in ({}, {"output": 1})]


def median(r: Recorder, out: Any, x: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The lower one of the two in the middle."""
    if dim is not None:
        return kth_value(r, out, x, (x.shape[dim] + 1) // 2 if x.ndim else 1, dim)
    n = x.numel()
    k = (n + 1) // 2
    least = r.node("TopK", [Ref(r.ref(x).node, (n,))], (k,), axis=0, k=k, largest=False)
    return r.cut(least, 0, k - 1, k)


def distances(r: Recorder, out: Tensor, x: Tensor, y: Tensor, p: float = 2.0, *rest: Any, **more: Any) -> Ref:
    """``cdist``, rows of ``(…, n, d)`` and ``(…, m, d)`` to ``(…, n, m)``: differences and their norm."""
    left = Ref(r.ref(x).node, (*x.shape[:-1], 1, x.shape[-1]))
    right = Ref(r.ref(y).node, (*y.shape[:-2], 1, *y.shape[-2:]))
    difference = r.node("Sub", [left, right], (*out.shape, x.shape[-1]))
    return norm_of(r, difference, p, (out.ndim,))


def distance(r: Recorder, out: Tensor, x: Tensor, y: Tensor, p: float = 2.0) -> Ref:
    """``dist``, of two tensors as wholes."""
    difference = combine(r, "Sub", tuple(torch.broadcast_shapes(x.shape, y.shape)), x, y)
    return norm_of(r, difference, p, tuple(range(len(difference.shape))))


def place_in_order(r: Recorder, out: Tensor, ordered: Tensor, values: Tensor, right: bool) -> Ref:
    """How many of ``ordered`` come before each value: comparisons and their sum."""
    n = ordered.shape[-1]
    left = Ref(r.ref(values).node, (*values.shape, 1))
    bounds = Ref(r.ref(ordered).node, (*ordered.shape[:-1], *((1,) if ordered.ndim > 1 else ()), n))
    shape = (*values.shape, n)
    if right:
        before = r.node("Not", [r.node("Less", [left, bounds], shape)], shape)
    else:
        before = r.node("Greater", [left, bounds], shape)
    return r.node("ReduceSum", [before], (*values.shape, 1), axes=(values.ndim,))


def bucketize(r: Recorder, out: Tensor, x: Tensor, boundaries: Tensor, *, out_int32: bool = False,
              right: bool = False) -> Ref:
    return place_in_order(r, out, boundaries, x, right)


def search_sorted(r: Recorder, out: Tensor, ordered: Tensor, values: Tensor, *, out_int32: bool = False,
                  right: bool = False, side: str | None = None, **more: Any) -> Ref:
    return place_in_order(r, out, ordered, values, right or side == "right")
