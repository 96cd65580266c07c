"""Operators of ONNX Runtime (domain com.microsoft), which its optimiser writes in place of several standard ones.

Source: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md. See ``onnx_layers`` for what a handler is.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from extract import onnx_layers as layers
from extract.onnx_node import Call

_ACTIVATIONS: dict[str, Any] = {"Relu": F.relu, "Sigmoid": torch.sigmoid, "Tanh": torch.tanh, "HardSwish": F.hardswish,
                "HardSigmoid": F.hardsigmoid, "LeakyRelu": F.leaky_relu, "Gelu": F.gelu}


def _activated(call: Call, y: Tensor) -> Tensor:
    name = call.text("activation", "")
    if not name:
        return y
    if name == "Clip":
        low, high = (call.get("activation_params") or [0.0, 6.0])[:2]
        return torch.clamp(y, low, high)
    if name == "LeakyRelu":
        return F.leaky_relu(y, (call.get("activation_params") or [0.01])[0])
    if name not in _ACTIVATIONS:
        raise call.fail(f"there is no activation {name!r}")
    return _ACTIVATIONS[name](y)


def fused_conv(call: Call, x: Tensor, w: Tensor, b: Tensor | None = None, z: Tensor | None = None) -> Tensor:
    y = layers.conv(call, x, w, b)
    return _activated(call, y if z is None else y + z)


def fused_gemm(call: Call, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    return _activated(call, layers.gemm(call, a, b, c))


def fused_matmul(call: Call, a: Tensor, b: Tensor) -> Tensor:
    a = a.transpose(-1, -2) if call.integer("transA", 0) else a
    b = b.transpose(-1, -2) if call.integer("transB", 0) else b
    alpha = call.real("alpha", 1.0)
    y = torch.matmul(a, b)
    return y if alpha == 1 else y * alpha


def layer_norm(call: Call, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Any:
    return layers.layer_norm(call, x, scale, bias)


def skip_layer_norm(call: Call, x: Tensor, skip: Tensor, gamma: Tensor, beta: Tensor | None = None,
                    bias: Tensor | None = None) -> Any:
    """Outputs: the normalised sum, two statistics, the sum."""
    total = (x if bias is None else x + bias) + skip
    return (F.layer_norm(total, total.shape[-1:], gamma, beta), None, None, total)


def skip_rms_norm(call: Call, x: Tensor, skip: Tensor, gamma: Tensor, bias: Tensor | None = None) -> Any:
    total = (x if bias is None else x + bias) + skip
    return (F.rms_norm(total, list(total.shape[-1:]), gamma), None, None, total)


def embed_layer_norm(call: Call, ids: Tensor, segments: Tensor | None, words: Tensor, positions: Tensor,
                     segment_table: Tensor | None = None, gamma: Tensor | None = None, beta: Tensor | None = None,
                     *rest: Any) -> Any:
    y = F.embedding(ids, words) + positions[:ids.shape[1]]
    if segments is not None and segment_table is not None:
        y = y + F.embedding(segments, segment_table)
    return (F.layer_norm(y, y.shape[-1:], gamma, beta), None, y)


def bias_gelu(call: Call, x: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.gelu(x if bias is None else x + bias)


def fast_gelu(call: Call, x: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.gelu(x if bias is None else x + bias, approximate="tanh")


def quick_gelu(call: Call, x: Tensor) -> Tensor:
    return x * torch.sigmoid(x * call.real("alpha", 1.702))


def _heads(x: Tensor, n: int) -> Tensor:
    return x.reshape(*x.shape[:2], n, -1).transpose(1, 2)


def _attended(call: Call, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    scale = call.real("scale", 0.0) or 1 / sqrt(q.shape[-1])
    y = F.scaled_dot_product_attention(q, k, v, mask, 0.0, causal, scale=scale)
    return y.transpose(1, 2).flatten(2)


def attention(call: Call, x: Tensor, w: Tensor, b: Tensor | None = None, mask: Tensor | None = None, past: Tensor | None = None,
              bias: Tensor | None = None, *rest: Any) -> Any:
    """One product gives queries, keys and values side by side."""
    n = call.integer("num_heads")
    sizes = call.ints("qkv_hidden_sizes", [w.shape[1] // 3] * 3)
    q, k, v = F.linear(x, w.t(), b).split(sizes, -1)
    if mask is not None:
        call.note(f"{call.where}: its mask of lengths is not in the graph")
    return (_attended(call, _heads(q, n), _heads(k, n), _heads(v, n), bias, bool(call.integer("unidirectional", 0))), past)


def multi_head_attention(call: Call, q: Tensor, k: Tensor | None = None, v: Tensor | None = None, b: Tensor | None = None,
                         mask: Tensor | None = None, bias: Tensor | None = None, past_key: Tensor | None = None,
                         past_value: Tensor | None = None, *rest: Any) -> Any:
    """Separate queries, keys and values of three axes; keys and values may come split into heads already."""
    n = call.integer("num_heads")
    if k is None or v is None or q.ndim != 3:
        raise call.fail("packed queries, keys and values are not known")
    if b is not None:
        width = q.shape[-1]
        q, k, v = q + b[:width], k if k.ndim == 4 else k + b[width:2 * width], v if v.ndim == 4 else v + b[2 * width:]
    if mask is not None:
        call.note(f"{call.where}: its mask of lengths is not in the graph")
    keys, values = (t if t.ndim == 4 else _heads(t, n) for t in (k, v))
    if past_key is not None and past_value is not None:
        keys, values = torch.cat([past_key, keys], 2), torch.cat([past_value, values], 2)
    y = _attended(call, _heads(q, n), keys, values, bias, bool(call.integer("unidirectional", 0)))
    return (y, keys, values)
