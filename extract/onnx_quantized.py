"""Quantised ONNX operators as the float operators that they stand for: scales and zero points are not in the graph.

QuantizeLinear and DequantizeLinear vanish (see ``onnx_ops.IGNORED``); what lies between them runs on float tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from extract import onnx_layers as layers
from extract import onnx_math as maths
from extract.onnx_node import Call


def _float(x: Tensor) -> Tensor:
    return x if x.is_floating_point() else x.to(torch.float32)


def conv(call: Call, x: Tensor, x_scale: Any, x_zero: Any, w: Tensor, w_scale: Any, w_zero: Any, y_scale: Any, y_zero: Any,
         b: Tensor | None = None) -> Tensor:
    return layers.conv(call, _float(x), _float(w), None if b is None else _float(b))


def conv_integer(call: Call, x: Tensor, w: Tensor, *zeros: Any) -> Tensor:
    return layers.conv(call, _float(x), _float(w))


def matmul(call: Call, a: Tensor, a_scale: Any, a_zero: Any, b: Tensor, *rest: Any) -> Tensor:
    return torch.matmul(_float(a), _float(b))


def matmul_integer(call: Call, a: Tensor, b: Tensor, *zeros: Any) -> Tensor:
    return torch.matmul(_float(a), _float(b))


def dynamic_quantize(call: Call, x: Tensor) -> Any:
    """The value itself, a scale of one and a zero point of zero."""
    return (x, torch.tensor(1.0), torch.tensor(0, dtype=torch.uint8))


def gemm(call: Call, a: Tensor, a_scale: Any, a_zero: Any, b: Tensor, b_scale: Any, b_zero: Any, c: Tensor | None = None,
         *rest: Any) -> Tensor:
    return layers.gemm(call, _float(a), _float(b), c)


def binary(run: Callable[[Any, Any], Tensor]) -> Callable[..., Tensor]:
    """QLinearAdd, QLinearMul: ``(a, scale, zero, b, scale, zero, …)``."""

    def handler(call: Call, a: Tensor, a_scale: Any, a_zero: Any, b: Tensor, *rest: Any) -> Tensor:
        return maths.binary(run)(call, _float(a), _float(b))

    return handler


def first_of(handler: Callable[..., Any]) -> Callable[..., Any]:
    """An operator of one tensor that is followed by scales and zero points."""

    def run(call: Call, x: Tensor, *rest: Any) -> Any:
        return handler(call, _float(x))

    return run


def concat(call: Call, y_scale: Any, y_zero: Any, *values: Any) -> Tensor:
    """QLinearConcat: each value is followed by its scale and zero point."""
    return torch.cat([_float(v) for v in values[0::3]], call.integer("axis"))


def matmul_to_float(call: Call, a: Tensor, b: Tensor, a_scale: Any = None, b_scale: Any = None, a_zero: Any = None,
                    b_zero: Any = None, bias: Tensor | None = None) -> Tensor:
    """MatMulIntegerToFloat."""
    y = torch.matmul(_float(a), _float(b))
    return y if bias is None else y + bias


def dynamic_matmul(call: Call, a: Tensor, b: Tensor, b_scale: Any = None, b_zero: Any = None,
                   bias: Tensor | None = None) -> Tensor:
    """DynamicQuantizeMatMul."""
    return F.linear(_float(a), _float(b).t(), bias) if b.ndim == 2 else matmul_to_float(call, a, b, bias=bias)


def matmul_bits(call: Call, a: Tensor, b: Tensor, *rest: Any) -> Tensor:
    """MatMulNBits: the weight is packed; its sizes are the attributes K and N."""
    out, width = call.integer("N"), call.integer("K")
    if out < 1 or a.shape[-1] != width:
        raise call.fail(f"attributes K {width} and N {out} do not fit its input {list(a.shape)}")
    from extract.torch_primitive import primitive

    return primitive("Gemm", [a], (*a.shape[:-1], out), [b], (out, width))
