"""Handlers of sliding windows and strided views, which ONNX writes as gathers with constant positions.

``F.unfold`` is two ``Gather`` nodes, over rows and over columns, as in both ONNX exporters; ``F.fold`` is one
``ScatterElements`` that adds; ``x.unfold`` is one ``Gather``, or nothing where the windows tile the axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor

from extract.torch_layers import Ints, many
from extract.torch_math import axis_of
from extract.torch_recorder import Recorder, Ref, shows_all


def unfold(r: Recorder, out: Tensor, x: Tensor, dimension: int, size: int, step: int) -> Ref:
    """``(…, D, …)`` -> ``(…, windows, size, …)``; the view that torch makes has ``size`` at the end."""
    if not x.ndim:
        return r.ref(x)
    axis = axis_of(x, dimension)
    windows = out.shape[axis]
    if windows * size == x.shape[axis] and (step == size or windows == 1):
        return r.ref(x)  # every value once, in order
    return r.node("Gather", [x], (*x.shape[:axis], windows, size, *x.shape[axis + 1:]), axis=axis)


def im2col(r: Recorder, out: Tensor, x: Tensor, kernel_size: Ints, dilation: Ints = 1, padding: Ints = 0,
           stride: Ints = 1) -> Ref:
    """``(N, C, H, W)`` -> ``(N, C, kh, rows, kw, columns)``, whose values torch shows as ``(N, C kh kw, rows columns)``."""
    value = Ref(r.ref(x).node, (1,) * (4 - x.ndim) + tuple(x.shape))
    n, channels, height, width = value.shape
    kernel, pads = many(kernel_size, 2), many(padding, 2)
    if any(pads):
        padded = (n, channels, height + 2 * pads[0], width + 2 * pads[1])
        value = r.node("Pad", [value], padded, pads=(0, 0, *pads, 0, 0, *pads))
    rows, columns = _positions(value.shape[2:], kernel, many(dilation, 2), many(stride, 2))
    value = r.node("Gather", [value], (n, channels, kernel[0], rows, value.shape[3]), axis=2)
    return r.node("Gather", [value], (n, channels, kernel[0], rows, kernel[1], columns), axis=4)


def col2im(r: Recorder, out: Tensor, x: Tensor, output_size: Ints, kernel_size: Ints, dilation: Ints = 1,
           padding: Ints = 0, stride: Ints = 1) -> Ref:
    """Sums of the columns at their places. ONNX has ``Col2Im`` since opset 18; it is a scatter into zeros."""
    return r.node("ScatterElements", [x], out.shape, dilations=many(dilation, 2), kernel_shape=many(kernel_size, 2),
                  pads=many(padding, 2) * 2, reduction="add", strides=many(stride, 2))


def as_strided(r: Recorder, out: Tensor, x: Tensor, size: Sequence[int], stride: Sequence[int],
               storage_offset: int | None = None) -> Ref:
    """Any view of the memory of ``x``: nothing if it shows every value once, else a ``Gather`` from the flat tensor."""
    if shows_all(out) and shows_all(x):
        return r.ref(x)
    return r.node("Gather", [Ref(r.ref(x).node, (prod(x.shape),))], out.shape, axis=0)


def _positions(sizes: Sequence[int], kernel: Sequence[int], dilation: Sequence[int],
               stride: Sequence[int]) -> tuple[int, ...]:
    """Number of windows along each axis."""
    return tuple((s - d * (k - 1) - 1) // t + 1 for s, k, d, t in zip(sizes, kernel, dilation, stride, strict=True))
