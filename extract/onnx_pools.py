"""ONNX pooling and recurrent layers as torch calls. See ``onnx_layers`` for what a handler is."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from extract.onnx_layers import pad_spatial, windows
from extract.onnx_node import Call, meta
from extract.torch_primitive import primitive

_MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def max_pool(call: Call, x: Tensor) -> Any:
    kernel = call.ints("kernel_shape")
    strides, dilations, before, after = windows(call, x, kernel)
    ceil = bool(call.integer("ceil_mode", 0))
    if before != after or any(2 * p > k for p, k in zip(before, kernel, strict=True)):
        x, before = pad_spatial(x, before, after, float("-inf") if x.is_floating_point() else 0), [0] * len(kernel)
    if call.n_outputs > 1:
        return torch.ops.aten.max_pool2d_with_indices(x, kernel, strides, before, dilations, ceil) if len(kernel) == 2 else (
            _MAX[len(kernel)](x, kernel, strides, before, dilations, ceil, True))
    return _MAX[len(kernel)](x, kernel, strides, before, dilations, ceil)


def average_pool(call: Call, x: Tensor) -> Tensor:
    kernel = call.ints("kernel_shape")
    n = len(kernel)
    strides, dilations, before, after = windows(call, x, kernel)
    ceil, whole = bool(call.integer("ceil_mode", 0)), bool(call.integer("count_include_pad", 0))
    uneven = before != after or any(2 * p > k for p, k in zip(before, kernel, strict=True))
    if uneven and whole and not ceil and set(dilations) == {1}:
        x, before, uneven = pad_spatial(x, before, after), [0] * n, False
    if uneven or set(dilations) != {1}:
        sizes = []
        for i in range(n):
            span = x.shape[2 + i] + before[i] + after[i] - dilations[i] * (kernel[i] - 1) - 1
            sizes.append((-(-span // strides[i]) if ceil else span // strides[i]) + 1)
        more: dict[str, Any] = {} if set(dilations) == {1} else {"dilations": dilations}
        return primitive("AveragePool", [x], (*x.shape[:2], *sizes), ceil_mode=ceil, count_include_pad=whole,
                         kernel_shape=kernel, pads=before + list(after), strides=strides, **more)
    return _AVERAGE[n](x, kernel, strides, before, ceil, whole)


def lp_pool(call: Call, x: Tensor) -> Tensor:
    kernel = call.ints("kernel_shape")
    strides, dilations, before, after = windows(call, x, kernel)
    ceil = bool(call.integer("ceil_mode", 0))
    sizes = []
    for i, k in enumerate(kernel):
        span = x.shape[2 + i] + before[i] + after[i] - dilations[i] * (k - 1) - 1
        sizes.append((-(-span // strides[i]) if ceil else span // strides[i]) + 1)
    return primitive("LpPool", [x], (*x.shape[:2], *sizes), kernel_shape=kernel, p=call.integer("p", 2), pads=before + after,
                     strides=strides)


def global_pool(kind: str) -> Any:
    """Over all axes behind the channels, as the adaptive pool to one cell."""
    runs = {3: getattr(F, f"adaptive_{kind}_pool1d"), 4: getattr(F, f"adaptive_{kind}_pool2d"),
            5: getattr(F, f"adaptive_{kind}_pool3d")}

    def handler(call: Call, x: Tensor) -> Tensor:
        if x.ndim not in runs:
            raise call.fail(f"needs an input of 3 to 5 axes, got {list(x.shape)}")
        return runs[x.ndim](x, 1)

    return handler


def global_lp_pool(call: Call, x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, call.integer("p", 2), tuple(range(2, x.ndim)), keepdim=True)


def max_unpool(call: Call, x: Tensor, indices: Tensor, output_shape: Tensor | None = None) -> Tensor:
    """Values go back to where the maxima were: a scatter into zeros."""
    kernel = call.ints("kernel_shape")
    strides, _, before, after = windows(call, x, kernel)
    if output_shape is not None:
        shape = call.list_of(output_shape, "output_shape")
    else:
        shape = [*x.shape[:2], *((x.shape[2 + i] - 1) * strides[i] + k - before[i] - after[i] for i, k in enumerate(kernel))]
    return primitive("ScatterElements", [x, indices], call.shape(shape))


# ---- recurrent --------------------------------------------------------------------------------------------------


def recurrent(op: str) -> Any:
    """LSTM, GRU or RNN: one torch layer. Gates are in another order than in torch, which no shape shows."""
    gates: int = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    run: Any = {"LSTM": torch.lstm, "GRU": torch.gru, "RNN": torch.rnn_tanh}[op]

    def handler(call: Call, x: Tensor, w: Tensor, r: Tensor, b: Tensor | None = None, lengths: Tensor | None = None,
                h: Tensor | None = None, c: Tensor | None = None, peepholes: Tensor | None = None) -> Any:
        if x.ndim != 3 or w.ndim != 3 or r.ndim != 3:
            raise call.fail(f"X, W and R must have three axes each, they are {list(x.shape)}, {list(w.shape)}, {list(r.shape)}")
        directions, hidden = r.shape[0], r.shape[-1]
        if directions not in (1, 2) or w.shape[1] != gates * hidden:
            raise call.fail(f"its weights {list(w.shape)} and {list(r.shape)} do not belong to an {op}")
        if peepholes is not None:
            call.note(f"{call.where}: peephole connections are not in the graph")
        first = bool(call.integer("layout", 0))
        x = x.transpose(0, 1) if first else x
        states = [s.transpose(0, 1) if first else s for s in (h, c) if s is not None]
        needed = 2 if op == "LSTM" else 1
        while len(states) < needed:
            states.append(torch.zeros(directions, x.shape[1], hidden, device="meta"))
        weights: list[Tensor] = []
        w, r, b = meta(w), meta(r), None if b is None else meta(b)
        for d in range(directions):
            weights += [w[d], r[d]]
            if b is not None:
                weights += [b[d][:gates * hidden], b[d][gates * hidden:]]
        layer: Any = run if op != "RNN" or "Relu" not in call.get("activations", []) else torch.rnn_relu
        out, *last = layer(x, states if op == "LSTM" else states[0], weights, b is not None, 1, 0.0, False,
                           directions == 2, False)
        y = out.reshape(*x.shape[:2], directions, hidden)
        if first:
            return (y.transpose(0, 1), *(s.transpose(0, 1) for s in last))
        return (y.transpose(1, 2), *last)

    return handler
