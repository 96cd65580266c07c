"""Convolutions whose first and second derivatives are convolutions again, for Hessian-vector products on a CPU.

torch writes the second derivative with one small convolution a group, and runs the input gradient of dilated depthwise
convolutions without vector instructions. Here, with y = x * w: the derivative of the gradients (gx, gw) along (ggx, ggw) is
``ggx * w + x * ggw`` with respect to gy, and the two gradients with one factor replaced with respect to x and w.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

_conv = torch.ops.aten.convolution.default
_back = torch.ops.aten.convolution_backward.default
How = tuple[list[int], list[int], list[int], bool, list[int], int]  # stride, padding, dilation, transposed, its padding, groups


class _Convolution(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, how: How) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.how = how
        out: Tensor = _conv(x, w, None, *how)
        return out

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        return *_Gradients.apply(gy, *ctx.saved_tensors, ctx.how, *ctx.needs_input_grad[:2]), None


class _Gradients(Function):
    @staticmethod
    def forward(ctx: Any, gy: Tensor, x: Tensor, w: Tensor, how: How, for_x: bool, for_w: bool) -> Any:
        ctx.save_for_backward(gy, x, w)
        ctx.how = how
        ctx.set_materialize_grads(False)
        return _input_gradient(gy, x, w, how) if for_x else None, _weight_gradient(gy, x, w, how) if for_w else None

    @staticmethod
    def backward(ctx: Any, ggx: Tensor | None, ggw: Tensor | None) -> Any:
        (gy, x, w), how, (for_gy, for_x, for_w, *_) = ctx.saved_tensors, ctx.how, ctx.needs_input_grad
        parts = [_conv(a, b, None, *how) for a, b in ((ggx, w), (x, ggw)) if a is not None and b is not None] if for_gy else []
        return (parts[0] + parts[1] if len(parts) > 1 else parts[0] if parts else None,
                _input_gradient(gy, x, ggw, how) if for_x and ggw is not None else None,
                _weight_gradient(gy, ggx, w, how) if for_w and ggx is not None else None, None, None, None)


def _input_gradient(gy: Tensor, x: Tensor, w: Tensor, how: How) -> Tensor:
    stride, padding, dilation, _, _, groups = how
    turned = [d * (k - 1) - p for d, k, p in zip(dilation, w.shape[2:], padding, strict=True)]
    if groups == w.shape[0] == x.shape[1] > 1 and max(stride) == 1 and max(dilation) > 1 and min(turned) >= 0:
        out: Tensor = _conv(gy, w.flip(tuple(range(2, w.ndim))), None, stride, turned, dilation, False, [0], groups)
        return out
    out = _back(gy, x, w, None, *how, [True, False, False])[0]
    return out


def _weight_gradient(gy: Tensor, x: Tensor, w: Tensor, how: How) -> Tensor:
    out: Tensor = _back(gy, x, w, None, *how, [False, True, False])[1]
    return out


@contextmanager
def twice_differentiable(model: nn.Module) -> Iterator[None]:
    """While it lasts, the plain convolutions of ``model`` run as above; their hooks still run."""
    changed = [m for m in model.modules() if type(m) in (nn.Conv1d, nn.Conv2d, nn.Conv3d) and m.padding_mode == "zeros"
               and not isinstance(m.padding, str) and "forward" not in m.__dict__]
    for m in changed:
        m.forward = _forward(m)
    try:
        yield
    finally:
        for m in changed:
            del m.forward


def _forward(m: Any) -> Any:
    how: How = (list(m.stride), list(m.padding), list(m.dilation), False, [0] * len(m.stride), m.groups)

    def forward(x: Tensor) -> Tensor:
        batched = x if x.ndim == m.weight.ndim else x[None]
        y: Tensor = _Convolution.apply(batched, m.weight, how)
        y = y if x.ndim == m.weight.ndim else y[0]
        return y if m.bias is None else y + m.bias.view(-1, *[1] * len(m.stride))

    return forward
