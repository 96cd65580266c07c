"""ONNX layers with weights as the torch calls a user would write: convolution, dense, norms.

A handler is ``handler(call, *inputs)``: ``call`` is the node (``onnx_node.Call``), an input that was left out is ``None``.
It returns a tensor, or a tuple with one entry for each output. Specification: https://onnx.ai/onnx/operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from extract.onnx_node import Call, scalar, uniform
from extract.torch_primitive import primitive

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def windows(call: Call, x: Tensor, kernel: Sequence[int], dilations: Sequence[int] | None = None) -> tuple[
        list[int], list[int], list[int], list[int]]:
    """``(strides, dilations, pads before, pads after)``, one for each axis behind the channels; auto_pad is worked out."""
    n = len(kernel)
    if x.ndim != n + 2:
        raise call.fail(f"a window of {n} axes needs an input of {n + 2} axes, got {list(x.shape)}")
    strides = call.ints("strides", [1] * n)
    dilated = call.ints("dilations", [1] * n) if dilations is None else list(dilations)
    pads = call.ints("pads", [0] * (2 * n))
    if len(strides) != n or len(dilated) != n or len(pads) != 2 * n:
        raise call.fail(f"strides, dilations and pads must fit a window of {n} axes")
    if min((*strides, *dilated, *kernel)) < 1:
        raise call.fail("strides, dilations and kernel_shape must be positive")
    auto = call.text("auto_pad", "NOTSET")
    if auto == "VALID":
        pads = [0] * (2 * n)
    elif auto in ("SAME_UPPER", "SAME_LOWER"):
        before, after = [], []
        for size, k, s, d in zip(x.shape[2:], kernel, strides, dilated, strict=True):
            total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
            less, more = total // 2, total - total // 2
            before.append(less if auto == "SAME_UPPER" else more)
            after.append(more if auto == "SAME_UPPER" else less)
        pads = before + after
    return strides, dilated, pads[:n], pads[n:]


def pad_spatial(x: Tensor, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> Tensor:
    """Constant padding of the axes behind the channels."""
    flat = [p for b, a in zip(reversed(before), reversed(after), strict=True) for p in (b, a)]
    return F.pad(x, flat, value=value)


def without(t: Tensor | None, neutral: int) -> Tensor | None:
    """``None`` for a tensor that an exporter made up to change nothing."""
    return None if t is not None and uniform(t) == neutral else t


def conv(call: Call, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """Uneven padding is a Pad before the convolution, as a PyTorch user has to write it."""
    kernel = list(w.shape[2:])
    strides, dilations, before, after = windows(call, x, kernel)
    if call.ints("kernel_shape", kernel) != kernel:
        raise call.fail(f"kernel_shape {call.ints('kernel_shape')} is not that of its weight {list(w.shape)}")
    padding: Any = before
    if before != after:
        totals = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
        same = [t // 2 for t in totals] == before and [t - t // 2 for t in totals] == after
        if same and set(strides) == {1}:
            padding = "same"
        else:
            x, padding = pad_spatial(x, before, after), [0] * len(kernel)
    run = _CONV.get(len(kernel))
    if run is None:
        raise call.fail(f"convolution over {len(kernel)} axes is not known to torch")
    return run(x, w, without(b, 0), strides, padding, dilations, call.integer("group", 1))


def conv_transpose(call: Call, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """``output_shape`` and auto_pad decide the padding; where it is uneven the result is cut."""
    kernel = list(w.shape[2:])
    n, b = len(kernel), without(b, 0)
    strides, dilations, before, after = windows(call, x, kernel)
    extra = call.ints("output_padding", [0] * n)
    full = [(x.shape[2 + i] - 1) * strides[i] + dilations[i] * (kernel[i] - 1) + 1 + extra[i] for i in range(n)]
    auto = call.text("auto_pad", "NOTSET")
    wanted = call.ints("output_shape", [])[-n:]
    if not wanted and auto.startswith("SAME"):
        wanted = [x.shape[2 + i] * strides[i] for i in range(n)]
    if wanted:
        totals = [max(f - o, 0) for f, o in zip(full, wanted, strict=True)]
        extra = [e + max(o - f, 0) for e, f, o in zip(extra, full, wanted, strict=True)]
        small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
        before, after = (small, large) if auto == "SAME_UPPER" else (large, small)
    if before != after:  # torch pads both ends alike; less padding at the end is more output padding
        more = [e + b - a for e, b, a in zip(extra, before, after, strict=True)]
        if all(0 <= m < max(s, d) for m, s, d in zip(more, strides, dilations, strict=True)):
            extra = more
        else:
            y = _CONV_TRANSPOSE[n](x, w, b, strides, 0, extra, call.integer("group", 1), dilations)
            for i in range(n):
                y = y.narrow(2 + i, before[i], y.shape[2 + i] - before[i] - after[i])
            return y
    return _CONV_TRANSPOSE[n](x, w, b, strides, before, extra, call.integer("group", 1), dilations)


def deform_conv(call: Call, x: Tensor, w: Tensor, offset: Tensor, b: Tensor | None = None,
                mask: Tensor | None = None) -> Tensor:
    strides, dilations, before, after = windows(call, x, list(w.shape[2:]))
    inputs = [x, offset] + ([] if mask is None else [mask])
    return primitive("DeformConv", inputs, (x.shape[0], w.shape[0], *offset.shape[2:]), [w, b], w.shape, b is not None,
                     dilations=dilations, group=call.integer("group", 1), kernel_shape=list(w.shape[2:]), pads=before + after,
                     strides=strides)


# ---- dense ------------------------------------------------------------------------------------------------------


def gemm(call: Call, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """``alpha * A' @ B' + beta * C``; with a bias vector it is a linear layer."""
    a = a.reshape(a.shape[0], -1) if call.opset < 11 and a.ndim > 2 else a
    a = a.t() if call.integer("transA", 0) else a
    w = b if call.integer("transB", 0) else b.t()
    alpha, beta, c = call.real("alpha", 1.0), call.real("beta", 1.0), without(c, 0)
    if c is not None and beta == 1 and alpha == 1 and c.numel() == w.shape[0] and c.ndim <= 2 and (
            c.ndim == 1 or c.shape[-1] == w.shape[0]):
        return F.linear(a, w, c.reshape(-1))
    y = F.linear(a, w)
    if alpha != 1:
        y = y * alpha
    if c is None or beta == 0:
        return y
    offset = scalar(c)
    return y + (offset * beta if beta != 1 else offset)


def matmul(call: Call, a: Tensor, b: Tensor) -> Tensor:
    return torch.matmul(a, b)


def prelu(call: Call, x: Tensor, slope: Tensor) -> Tensor:
    """The slopes are one, one for each channel (as C or C×1×1), or of any shape that broadcasts."""
    channels = x.shape[1] if x.ndim > 1 else 1
    if slope.numel() == 1 or (slope.numel() == channels and (slope.ndim == 1 or slope.shape[0] in (1, channels))):
        return F.prelu(x, slope.reshape(-1))
    return F.relu(x) - slope * F.relu(-x)


# ---- norms ------------------------------------------------------------------------------------------------------


def _affine(scale: Tensor | None, bias: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """Scales of ones and offsets of zeros that are not trained are none."""
    return without(scale, 1), without(bias, 0)


def batch_norm(call: Call, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor, *rest: Any) -> Any:
    scale_, bias_ = _affine(scale, bias)
    y = F.batch_norm(x, mean, var, scale_, bias_, False, 0.1, call.real("epsilon", 1e-5))
    return (y, mean, var, mean, var)


def instance_norm(call: Call, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    scale_, bias_ = _affine(scale, bias)
    return F.instance_norm(x, None, None, scale_, bias_, True, 0.1, call.real("epsilon", 1e-5))


def layer_norm(call: Call, x: Tensor, scale: Tensor | None = None, bias: Tensor | None = None, *rest: Any) -> Any:
    axis = call.axis(call.integer("axis", -1), x.ndim)
    shape = list(x.shape[axis:])
    scale_, bias_ = _affine(scale, bias)
    epsilon = call.real("epsilon", 1e-5)
    fits = [t is None or t.numel() == int(torch.Size(shape).numel()) for t in (scale_, bias_)]
    if not all(fits):
        y = F.layer_norm(x, shape, None, None, epsilon)
        y = y if scale_ is None else y * scale_
        y = y if bias_ is None else y + bias_
    else:
        y = F.layer_norm(x, shape, None if scale_ is None else scale_.reshape(shape),
                         None if bias_ is None else bias_.reshape(shape), epsilon)
    return (y, *_statistics(call, x, axis))


def _statistics(call: Call, x: Tensor, axis: int) -> list[Tensor]:
    """Mean and inverse deviation, outputs that only training reads."""
    shape = (*x.shape[:axis], *[1] * (x.ndim - axis))
    return [x.new_empty(shape) for _ in range(call.n_outputs - 1)]


def rms_norm(call: Call, x: Tensor, scale: Tensor, *rest: Any) -> Any:
    axis = call.axis(call.integer("axis", -1), x.ndim)
    shape = list(x.shape[axis:])
    epsilon = call.real("epsilon", 1e-5)
    if scale.numel() != torch.Size(shape).numel():
        return (F.rms_norm(x, shape, None, epsilon) * scale, *_statistics(call, x, axis))
    return (F.rms_norm(x, shape, scale.reshape(shape), epsilon), *_statistics(call, x, axis))


def group_norm(call: Call, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Before version 21 there is one scale for each group, afterwards one for each channel."""
    groups = call.integer("num_groups")
    scale_, bias_ = _affine(scale, bias)
    if all(t is None or t.numel() == x.shape[1] for t in (scale_, bias_)):
        return F.group_norm(x, groups, scale_, bias_, call.real("epsilon", 1e-5))
    y = F.group_norm(x, groups, None, None, call.real("epsilon", 1e-5))
    rank = x.ndim - 2
    for t, times in ((scale_, True), (bias_, False)):
        if t is not None:
            spread = t.reshape(groups, 1).expand(groups, x.shape[1] // groups).reshape(x.shape[1], *[1] * rank)
            y = y * spread if times else y + spread
    return y


def local_response_norm(call: Call, x: Tensor) -> Tensor:
    return primitive("LRN", [x], x.shape, size=call.integer("size"))


def lp_norm(call: Call, x: Tensor) -> Tensor:
    return primitive("LpNormalization", [x], x.shape, axis=call.axis(call.integer("axis", -1), x.ndim), p=call.integer("p", 2))
