"""Graph nodes without trained weights that compute -> calls of torch operators.

Each function takes the call (spec, and where the batch is), the batch factor and the tensors, and gives back a tensor; the
interpreter brings it into the recorded shape. Number formats are not in a graph: truth values become numbers where a
computation needs them, which makes no node when the module is extracted again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from cg.spec import NodeSpec, Shape
from extract.torch_build_views import grown
from extract.torch_primitive import primitive


class Call(NamedTuple):
    """A node as an operator sees it: its spec, and the axis of its output that carries the batch."""

    spec: NodeSpec
    batch: int | None

    def shape(self, times: int) -> Shape:
        """Shape of the output for a batch ``times`` as large as the recorded one."""
        return grown(self.spec.out_shape, self.batch, times)

    def attr(self, name: str, default: Any = None) -> Any:
        return self.spec.attr(name, default)


Operator = Callable[..., Tensor]


def as_number(x: Tensor) -> Tensor:
    """Truth values as 0 and 1."""
    return x.to(torch.float32) if x.dtype == torch.bool else x


def as_float(x: Tensor) -> Tensor:
    """Integers and truth values as floating point numbers."""
    return x if x.is_floating_point() else x.to(torch.float32)


def unary(function: Callable[..., Tensor], **names: tuple[str, float]) -> Operator:
    """An element-wise function; ``argument = (attribute, default of the attribute)``."""

    def run(call: Call, times: int, x: Tensor) -> Tensor:
        return function(as_float(x), **{name: call.attr(*attr) for name, attr in names.items()})

    return run


def binary(function: Callable[..., Tensor], convert: Callable[[Tensor], Tensor] = as_number) -> Operator:
    """Of two tensors, or of one and the attribute ``scalar`` (on the left if ``scalar_first``)."""

    def run(call: Call, times: int, x: Tensor, y: Tensor | None = None) -> Tensor:
        x = convert(x)
        if y is not None:
            return function(x, convert(y))
        scalar = call.attr("scalar")
        if scalar is None:
            return x
        return function(scalar, x) if call.attr("scalar_first") else function(x, scalar)

    return run


def of_two_tensors(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """A function that takes no numbers gets them as tensors without axes."""

    def run(x: Any, y: Any) -> Tensor:
        return function(*(v if isinstance(v, Tensor) else torch.tensor(v, device="cpu") for v in (x, y)))

    return run


def either(function: Callable[..., Tensor]) -> Operator:
    """Max, Min, Mean and Sum of any number of tensors, pair by pair."""
    pairwise = binary(of_two_tensors(function))

    def run(call: Call, times: int, *xs: Tensor) -> Tensor:
        if len(xs) == 1:
            return pairwise(call, times, *xs)
        total = as_number(xs[0])
        for x in xs[1:]:
            total = function(total, as_number(x))
        return total

    return run


def mean_of(call: Call, times: int, *xs: Tensor) -> Tensor:
    return either(torch.add)(call, times, *xs) / len(xs)


def clip(call: Call, times: int, x: Tensor, *bounds: Tensor) -> Tensor:
    low, high = call.attr("min"), call.attr("max")
    if not bounds:
        return torch.clamp(as_number(x), low, high)
    if len(bounds) == 2:
        return torch.clamp(x, *bounds)
    if low is not None or high is not None:  # one bound is a number, the other a tensor
        number = torch.tensor(low if high is None else high, device="cpu")
        return torch.clamp(x, number, bounds[0]) if high is None else torch.clamp(x, bounds[0], number)
    return torch.clamp(x, min=bounds[0])


def hard_sigmoid(call: Call, times: int, x: Tensor) -> Tensor:
    alpha, beta = call.attr("alpha", 0.2), call.attr("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-4 and beta == 0.5:
        return F.hardsigmoid(x)
    return torch.clamp(x * alpha + beta, 0, 1)


def thresholded(call: Call, times: int, x: Tensor) -> Tensor:
    return F.threshold(x, call.attr("alpha", 1.0), 0.0)


def prelu(call: Call, times: int, x: Tensor, slope: Tensor) -> Tensor:
    return F.prelu(x, slope.reshape(-1))


def softmax(function: Callable[..., Tensor]) -> Operator:
    def run(call: Call, times: int, x: Tensor) -> Tensor:
        return function(as_float(x), dim=call.attr("axis", -1))

    return run


def matmul(call: Call, times: int, x: Tensor, y: Tensor) -> Tensor:
    """Also of more query heads than key heads: each key head serves a group of query heads."""
    if x.ndim == y.ndim > 3 and x.shape[-3] != y.shape[-3] and min(x.shape[-3], y.shape[-3]) > 1:
        if x.is_meta:  # repeated heads would be a node
            return primitive("MatMul", [x, y], call.shape(times))
        y = y.repeat_interleave(x.shape[-3] // y.shape[-3], dim=-3)
    return torch.matmul(as_float(x), as_float(y))


def einsum(call: Call, times: int, *xs: Tensor) -> Tensor:
    return torch.einsum(call.attr("equation"), *map(as_float, xs))


def where(call: Call, times: int, condition: Tensor, *values: Tensor) -> Tensor:
    """Numbers are attributes; scores without an alternative are masked attention, where it is minus infinity."""
    then, otherwise, condition = call.attr("then"), call.attr("otherwise"), condition.to(torch.bool)
    if len(values) == 2:
        return torch.where(condition, *values)
    if not values:
        return torch.where(condition, then, otherwise)
    value = values[0]
    if then is not None:
        return torch.where(condition, then, value)
    return torch.where(condition, value, float("-inf") if otherwise is None else otherwise)


# ---- reductions -------------------------------------------------------------------------------------------------


def axes_of(call: Call) -> tuple[int, ...]:
    return tuple(call.attr("axes", range(len(call.spec.in_shapes[0]))))


def reduction(function: Callable[..., Tensor], **settings: Any) -> Operator:
    """Along ``axes``, which stay with one value each."""

    def run(call: Call, times: int, x: Tensor) -> Tensor:
        return function(as_float(x), dim=axes_of(call), keepdim=True, **settings)

    return run


def product(call: Call, times: int, x: Tensor) -> Tensor:
    axes = axes_of(call)
    return as_float(x).prod(axes[0], keepdim=True) if len(axes) == 1 else as_float(x).prod()


def norm_of(order: int) -> Operator:
    def run(call: Call, times: int, x: Tensor) -> Tensor:
        return torch.linalg.vector_norm(as_float(x), order, axes_of(call), keepdim=True)

    return run


def arg(function: Callable[..., Tensor]) -> Operator:
    def run(call: Call, times: int, x: Tensor) -> Tensor:
        axis = call.attr("axis")
        return function(as_number(x)) if axis is None else function(as_number(x), dim=axis, keepdim=True)

    return run


def top_k(call: Call, times: int, x: Tensor) -> Tensor:
    axis = call.attr("axis", -1)
    found: Tensor = torch.topk(as_number(x), call.attr("k"), axis, call.attr("largest", True))[call.attr("output", 0)]
    return found


def cumulative(call: Call, times: int, x: Tensor) -> Tensor:
    return torch.cumsum(as_number(x), call.attr("axis", 0))


# ---- pooling ----------------------------------------------------------------------------------------------------

_MAX: Final[tuple[Any, ...]] = (F.max_pool1d, F.max_pool2d, F.max_pool3d)
_AVERAGE: Final[tuple[Any, ...]] = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
_CELLS: Final[dict[str, tuple[Any, ...]]] = {
    "MaxPool": (F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d),
    "AveragePool": (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)}


def pool(call: Call, times: int, x: Tensor) -> Tensor:
    """By window, or to ``output_size`` cells."""
    op, cells = call.spec.op, call.attr("output_size")
    if cells is not None:
        pooled: Tensor = _CELLS[op][len(cells) - 1](x, cells)
        return pooled
    kernel = call.attr("kernel_shape")
    n = len(kernel)
    strides, pads = call.attr("strides", (1,) * n), call.attr("pads", (0,) * (2 * n))
    begins = pads[:n]
    if begins != pads[n:]:
        value = float("-inf") if op == "MaxPool" else 0.0
        x = F.pad(x, tuple(p for i in reversed(range(n)) for p in (pads[i], pads[n + i])), value=value)
        begins = (0,) * n
    ceil = bool(call.attr("ceil_mode", False))
    if op == "MaxPool":
        settings = kernel, strides, begins, call.attr("dilations", (1,) * n), ceil
        most: Tensor = _MAX[n - 1](x, *settings, True)[1] if call.attr("output") else _MAX[n - 1](x, *settings)
        return most
    counted = bool(call.attr("count_include_pad", False))
    divisor = () if n == 1 else (call.attr("divisor_override"),)
    average: Tensor = _AVERAGE[n - 1](x, kernel, strides, begins, ceil, counted, *divisor)
    return average


def global_pool(op: str) -> Operator:
    """Over every axis that the output keeps one value of."""

    def run(call: Call, times: int, x: Tensor) -> Tensor:
        n = min(max(len(call.spec.out_shape) - 2, 1), 3)
        pooled: Tensor = _CELLS[op][n - 1](as_float(x), 1)
        return pooled

    return run


OPERATORS: Final[dict[str, Operator]] = {
    "Relu": unary(F.relu), "LeakyRelu": unary(F.leaky_relu, negative_slope=("alpha", 0.01)),
    "Elu": unary(F.elu, alpha=("alpha", 1.0)), "Celu": unary(F.celu, alpha=("alpha", 1.0)), "Selu": unary(F.selu),
    "Gelu": unary(F.gelu, approximate=("approximate", "none")),  # type: ignore[arg-type]
    "Mish": unary(F.mish), "Swish": unary(F.silu), "HardSwish": unary(F.hardswish), "HardSigmoid": hard_sigmoid,
    "Sigmoid": unary(torch.sigmoid), "Tanh": unary(torch.tanh), "Softplus": unary(F.softplus, beta=("beta", 1.0)),
    "Softsign": unary(F.softsign), "Clip": clip, "ThresholdedRelu": thresholded, "Erf": unary(torch.erf), "PRelu": prelu,
    "Softmax": softmax(torch.softmax), "LogSoftmax": softmax(torch.log_softmax),
    "MatMul": matmul, "Einsum": einsum,
    "Add": binary(torch.add), "Sub": binary(torch.sub), "Mul": binary(torch.mul), "Div": binary(torch.div, as_float),
    "Pow": binary(torch.pow), "Mod": binary(torch.remainder), "Max": either(torch.maximum), "Min": either(torch.minimum),
    "Sum": either(torch.add), "Mean": mean_of,
    "Equal": binary(torch.eq), "Greater": binary(torch.gt), "Less": binary(torch.lt),
    "And": binary(torch.logical_and), "Or": binary(torch.logical_or),
    "Not": lambda call, times, x: torch.logical_not(x), "Where": where,
    **{name: unary(function) for name, function in {
        "Sqrt": torch.sqrt, "Exp": torch.exp, "Log": torch.log, "Abs": torch.abs, "Neg": torch.neg, "Sin": torch.sin,
        "Reciprocal": torch.reciprocal, "Floor": torch.floor, "Ceil": torch.ceil, "Round": torch.round,
        "Sign": torch.sign, "Cos": torch.cos}.items()},
    "ReduceMean": reduction(torch.mean), "ReduceSum": reduction(torch.sum), "ReduceMax": reduction(torch.amax),
    "ReduceMin": reduction(torch.amin), "ReduceLogSumExp": reduction(torch.logsumexp), "ReduceProd": product,
    "ReduceL1": norm_of(1), "ReduceL2": norm_of(2), "ArgMax": arg(torch.argmax), "ArgMin": arg(torch.argmin),
    "TopK": top_k, "CumSum": cumulative,
    "MaxPool": pool, "AveragePool": pool, "GlobalAveragePool": global_pool("AveragePool"),
    "GlobalMaxPool": global_pool("MaxPool"),
}
