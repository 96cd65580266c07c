"""Handlers of operators without weights that compute: element-wise functions, products, attention, reductions.

Conventions (reasons in docs/adr/0003-tracing.md): see ``torch_layers`` for what a handler is. A number is an attribute
``scalar`` rounded to six digits, not an argument. ``x - 2`` is ``Add`` with scalar -2 and ``x / 4`` is ``Mul`` with
scalar 0.25; ``x + 0``, ``x * 1`` and ``x ** 1`` make no node. A reduction is recorded with its axes kept, whether or not the
call keeps them. Attributes that equal the default of the ONNX operator are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod, sqrt
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
    axis, half = dim % x.ndim, x.shape[dim] // 2
    gate = r.node("Sigmoid", [r.cut(x, axis, half, 2 * half)], out.shape)
    return r.node("Mul", [r.cut(x, axis, 0, half), gate], out.shape)


def combine(r: Recorder, op: str, out_shape: Sequence[int], x: Operand, y: Operand) -> Ref:
    """``op(x, y)`` where at most one of the two is a number."""
    x, y = _plain(r, x), _plain(r, y)
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
    return r.node(op, [x, y], out_shape)


def _plain(r: Recorder, x: Any) -> Any:
    """A zero-dimensional constant whose value is known is a number like any other."""
    if isinstance(x, Tensor) and x.ndim == 0 and not x.is_meta and not r.is_live(x) and not r.params_in(x):
        return x.item()
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


def then_scalar(op: str, scalar: float, after: str) -> Callable[..., Ref]:
    """``after(op(x, scalar))``, e.g. log1p; with ``after`` first where it is 'Exp' (expm1)."""

    def handler(r: Recorder, out: Tensor, x: Tensor) -> Ref:
        if after == "Exp":
            return combine(r, op, out.shape, r.node("Exp", [x], out.shape), scalar)
        return r.node(after, [combine(r, op, out.shape, x, scalar)], out.shape)

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


# ---- products ---------------------------------------------------------------------------------------------------


def matmul(r: Recorder, out: Tensor, x: Tensor, y: Tensor) -> Ref:
    """A trained matrix on the right is a linear layer (``Gemm``), however it is written."""
    if y.ndim == 2 and not r.is_live(y) and r.params_in(y) and x.ndim >= 2:
        return r.node("Gemm", [x], out.shape, [y], (y.shape[1], y.shape[0]))
    return r.node("MatMul", [x, y], out.shape)


def add_matmul(r: Recorder, out: Tensor, bias: Tensor, x: Tensor, y: Tensor, beta: float = 1, alpha: float = 1) -> Ref:
    """``beta * bias + alpha * x @ y`` (addmm, baddbmm)."""
    trained = y.ndim == 2 and not r.is_live(y) and r.params_in(y)
    if trained and beta == alpha == 1 and bias.ndim == 1 and not r.is_live(bias):
        return r.node("Gemm", [x], out.shape, [y, bias], (y.shape[1], y.shape[0]), True)
    product = combine(r, "Mul", out.shape, matmul(r, out, x, y), alpha)
    return product if beta == 0 else r.node("Add", [product, combine(r, "Mul", bias.shape, bias, beta)], out.shape)


def einsum(r: Recorder, out: Tensor, equation: str, operands: Sequence[Tensor], path: Any = None) -> Ref:
    """One node with its multiply-adds: the product of the sizes of all letters (one contraction, no better order)."""
    sizes: dict[str, int] = {}
    for term, x in zip(equation.replace(" ", "").split("->")[0].split(","), operands, strict=True):
        letters = term.replace("...", "")
        dots = x.ndim - len(letters)
        axes = [*letters] if "..." not in term else [
            *term.split("...")[0], *(f".{dots - i}" for i in range(dots)), *term.split("...")[1]]
        for letter, size in zip(axes, x.shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    macs = prod(sizes.values()) if len(operands) > 1 else 0
    return r.node("Einsum", list(operands), out.shape, equation=equation.replace(" ", ""), macs=macs)


def attention(r: Recorder, out: Tensor, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
              dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
              enable_gqa: bool = False) -> Ref:
    """scaled_dot_product_attention as MatMul, Mul, (mask,) Softmax, MatMul. Source: arXiv 1706.03762, Eq. 1.

    A boolean mask is a ``Where`` between scores and minus infinity; any other mask, and the causal one, is an ``Add``.
    """
    keys = Ref(r.ref(key).node, (*key.shape[:-2], key.shape[-1], key.shape[-2]))
    shape = (*query.shape[:-1], key.shape[-2])
    scores = r.node("MatMul", [query, keys], shape)
    scores = combine(r, "Mul", shape, scores, 1 / sqrt(query.shape[-1]) if scale is None else scale)
    if attn_mask is not None:
        boolean = attn_mask.dtype.is_floating_point is False
        scores = r.node("Where", [attn_mask, scores], shape) if boolean else r.node("Add", [scores, attn_mask], shape)
    if is_causal:
        mask = query.new_empty(shape[-2:])
        scores = r.node("Add", [scores, mask], shape)
    weights = r.node("Softmax", [scores], shape, axis=len(shape) - 1)
    return r.node("MatMul", [weights, value], out.shape)


def softmax(op: str) -> Callable[..., Ref]:
    def handler(r: Recorder, out: Tensor, x: Tensor, dim: int, *rest: Any, **more: Any) -> Ref:
        return r.node(op, [x], out.shape, axis=dim % x.ndim)

    return handler


# ---- reductions -------------------------------------------------------------------------------------------------


def axes_of(x: Tensor, dim: Any) -> tuple[int, ...]:
    """Sorted, counted from the front; all axes for ``None`` and for an empty list."""
    if dim is None or (isinstance(dim, list | tuple) and not dim):
        return tuple(range(x.ndim))
    return tuple(sorted(d % x.ndim for d in ((dim,) if isinstance(dim, int) else dim)))


def reduced(x: Tensor | Ref, axes: Sequence[int]) -> Shape:
    return tuple(1 if i in axes else d for i, d in enumerate(x.shape))


def reduction(op: str) -> Callable[..., Ref]:
    def handler(r: Recorder, out: Tensor, x: Tensor, dim: Any = None, *rest: Any, **more: Any) -> Ref:
        axes = axes_of(x, dim)
        return r.node(op, [x], reduced(x, axes), axes=axes)

    return handler


def mean(r: Recorder, out: Tensor, x: Tensor, dim: Any = None, *rest: Any, **more: Any) -> Ref:
    """Over all axes behind the channels of a batch of images (or volumes) it is ``GlobalAveragePool``."""
    axes = axes_of(x, dim)
    if x.ndim >= 4 and axes == tuple(range(2, x.ndim)):
        return r.node("GlobalAveragePool", [x], reduced(x, axes))
    return r.node("ReduceMean", [x], reduced(x, axes), axes=axes)


def vector_norm(r: Recorder, out: Tensor, x: Tensor, ord: Any = 2, dim: Any = None, *rest: Any, **more: Any) -> Ref:
    """Orders 1, 2 and infinity have an operator; another one is Abs, Pow, ReduceSum, Pow."""
    axes = axes_of(x, dim)
    if ord in (1, 2):
        return r.node(f"ReduceL{int(ord)}", [x], reduced(x, axes), axes=axes)
    y = r.node("Abs", [x], x.shape)
    if ord == float("inf"):
        return r.node("ReduceMax", [y], reduced(x, axes), axes=axes)
    y = r.node("Pow", [y], x.shape, scalar=number(ord))
    y = r.node("ReduceSum", [y], reduced(x, axes), axes=axes)
    return r.node("Pow", [y], reduced(x, axes), scalar=number(1 / ord))


def spread(root: bool, with_mean: bool = False) -> Callable[..., Any]:
    """Variance or standard deviation: ReduceMean, Sub, Pow, ReduceMean (, Sqrt)."""

    def handler(r: Recorder, out: Any, x: Tensor, dim: Any = None, *rest: Any, **more: Any) -> Any:
        axes = axes_of(x, None if isinstance(dim, bool) else dim)
        shape = reduced(x, axes)
        centre = r.node("ReduceMean", [x], shape, axes=axes)
        squares = r.node("Pow", [r.node("Sub", [x, centre], x.shape)], x.shape, scalar=2.0)
        value = r.node("ReduceMean", [squares], shape, axes=axes)
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
        return [value, r.node(f"Arg{word}", [x], reduced(x, axes), axis=axes[0])]

    return handler


def arg_extreme(op: str) -> Callable[..., Ref]:
    def handler(r: Recorder, out: Tensor, x: Tensor, dim: int | None = None, keepdim: bool = False) -> Ref:
        axes = axes_of(x, dim)
        return r.node(op, [x], reduced(x, axes), attrs=({"axis": axes[0]} if dim is not None else {}))

    return handler


def top_k(r: Recorder, out: Sequence[Tensor], x: Tensor, k: int, dim: int = -1, largest: bool = True,
          *rest: Any) -> list[Ref]:
    """Values and positions are two nodes, because a node has one output."""
    attrs = {"axis": dim % x.ndim, "k": k, **({} if largest else {"largest": False})}
    return [r.node("TopK", [x], out[0].shape, attrs=attrs), r.node("TopK", [x], out[1].shape, output=1, attrs=attrs)]


def sort(r: Recorder, out: Sequence[Tensor], x: Tensor, dim: int = -1, descending: bool = False, *rest: Any,
         **more: Any) -> list[Ref]:
    """All values in order: the greatest or least ``n`` of them."""
    return top_k(r, out, x, x.shape[dim] if x.ndim else 1, dim, descending)


def cumulative(r: Recorder, out: Tensor, x: Tensor, dim: int, *rest: Any, **more: Any) -> Ref:
    return r.node("CumSum", [x], out.shape, axis=dim % x.ndim)
