"""Graph nodes that no single torch operator records: other frameworks' operators, and results whose size depends on values.

On the meta device, where only shapes matter, they are ``primitive`` operators, so that the recorder sees the node itself; on
real tensors they are computed as closely as torch can. ``NonMaxSuppression``, ``RoiAlign``, ``DeformConv`` and ``STFT`` have
no computation here, and a graph with them can be built on the meta device only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional as F

from extract.torch_build_ops import Call, Operator, as_float
from extract.torch_primitive import primitive


def recorded(function: Callable[..., Tensor] | None) -> Operator:
    """``function`` on real tensors, the node itself on meta tensors."""

    def run(call: Call, times: int, *xs: Tensor) -> Tensor:
        if function is None or any(x.is_meta for x in xs):
            return primitive(call.spec.op, xs, call.shape(times), **dict(call.spec.attrs))
        return function(call, times, *xs)

    return run


def non_zero(call: Call, times: int, x: Tensor) -> Tensor:
    """``(axes, places)``; the graph has room for every place, and the rest is filled with the first."""
    found, (axes, room) = torch.nonzero(x).T, call.spec.out_shape
    return F.pad(found[:, :room], (0, room - min(found.shape[1], room))) if found.shape[0] == axes else found


def dft(call: Call, times: int, x: Tensor) -> Tensor:
    """Along ``axis``; the last axis holds real and imaginary parts, or the real part alone."""
    axis, inverse, onesided = call.attr("axis", 1), bool(call.attr("inverse")), bool(call.attr("onesided"))
    size = call.spec.out_shape[axis]
    value = torch.view_as_complex(as_float(x).contiguous()) if x.shape[-1] == 2 else as_float(x)[..., 0]
    if onesided and inverse:
        return torch.fft.irfft(value, n=size, dim=axis)[..., None]
    if onesided:
        return torch.view_as_real(torch.fft.rfft(value.real if value.is_complex() else value, dim=axis))
    return torch.view_as_real((torch.fft.ifft if inverse else torch.fft.fft)(value, n=size, dim=axis))


def hardmax(call: Call, times: int, x: Tensor) -> Tensor:
    axis = call.attr("axis", -1)
    return F.one_hot(x.argmax(axis), x.shape[axis]).movedim(-1, axis).to(x.dtype)


def lp_pool(call: Call, times: int, x: Tensor) -> Tensor:
    return F.lp_pool2d(x, call.attr("p", 2), call.attr("kernel_shape"), call.attr("strides"))


def lp_normalised(call: Call, times: int, x: Tensor) -> Tensor:
    return F.normalize(x, p=call.attr("p", 2), dim=call.attr("axis", -1))


def local_response(call: Call, times: int, x: Tensor) -> Tensor:
    return F.local_response_norm(x, call.attr("size", 5), call.attr("alpha", 1e-4), call.attr("beta", 0.75),
                                 call.attr("bias", 1.0))


def counted_range(call: Call, times: int, *xs: Tensor) -> Tensor:
    return torch.arange(call.spec.out_shape[0], device=xs[0].device if xs else None)


def gather_nd(plain: Operator) -> Operator:
    """``x[i, j]`` with positions joined in one argument: ``(places, axes)`` or ``(axes, places)``."""

    def run(call: Call, times: int, x: Tensor, index: Tensor | None = None) -> Tensor:
        axes = call.attr("axes", (0,))
        if index is None or len(axes) == 1:
            return plain(call, times, x, index)
        along = index.ndim - 1 if index.shape[-1] == len(axes) else 0
        if index.ndim < 2 or index.shape[along] != len(axes):
            return plain(call, times, x, index)
        places: list[Any] = [slice(None)] * x.ndim
        for axis, part in zip(axes, index.unbind(along), strict=True):
            places[axis] = part.to(torch.int64).clamp(0, x.shape[axis] - 1)
        return x[tuple(places)]

    return run


def affine_grid(call: Call, times: int, theta: Tensor) -> Tensor:
    shape = call.shape(times)
    return F.affine_grid(theta, [shape[0], 1, *shape[1:-1]], align_corners=False)


RARE: Final[dict[str, Operator]] = {
    "NonZero": recorded(non_zero), "DFT": recorded(dft), "Hardmax": recorded(hardmax), "LpPool": recorded(lp_pool),
    "LpNormalization": recorded(lp_normalised), "LRN": recorded(local_response), "Range": recorded(counted_range),
    "AffineGrid": affine_grid,
}
META_ONLY: Final[dict[str, Operator]] = {
    op: recorded(None) for op in ("NonMaxSuppression", "RoiAlign", "DeformConv", "STFT")}
