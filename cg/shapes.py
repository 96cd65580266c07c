"""Shape rules: output and weight shape of an operator from its input shapes and attributes, ONNX layout, batch first."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from cg.errors import GraphError
from cg.spec import Shape


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    """``3`` -> ``(3, 3)``; a sequence of two is taken as it is."""
    if isinstance(value, int):
        return value, value
    a, b = value
    return a, b


def window(size: int, kernel: int, stride: int, pad_begin: int, pad_end: int, dilation: int = 1,
           ceil_mode: bool = False) -> int:
    """Output length of a sliding window. Source: ONNX operator specification, Conv and MaxPool."""
    free = size + pad_begin + pad_end - dilation * (kernel - 1) - 1
    if free < 0:
        raise GraphError(f"a window of {kernel} (dilation {dilation}) does not fit into {size} + padding")
    steps = -(-free // stride) if ceil_mode else free // stride
    if ceil_mode and steps * stride >= size + pad_begin:  # the last window must start inside the input or its left pad
        steps -= 1
    return steps + 1


def conv2d(shape: Shape, out_channels: int, kernel: tuple[int, int], strides: tuple[int, int],
           pads: tuple[int, int, int, int], dilations: tuple[int, int], group: int) -> tuple[Shape, Shape]:
    """Output shape ``(N, out, H', W')`` and weight shape ``(out, in / group, kh, kw)``."""
    if len(shape) != 4:
        raise GraphError(f"conv2d needs a shape (N, C, H, W), got {shape}")
    n, channels, height, width = shape
    if channels % group or out_channels % group:
        raise GraphError(f"conv2d: {channels} input and {out_channels} output channels are not multiples of {group} groups")
    out = (n, out_channels, window(height, kernel[0], strides[0], pads[0], pads[2], dilations[0]),
           window(width, kernel[1], strides[1], pads[1], pads[3], dilations[1]))
    return out, (out_channels, channels // group, *kernel)


def pool2d(shape: Shape, kernel: tuple[int, int], strides: tuple[int, int], pads: tuple[int, int, int, int],
           ceil_mode: bool) -> Shape:
    """Output shape ``(N, C, H', W')``."""
    if len(shape) != 4:
        raise GraphError(f"pooling needs a shape (N, C, H, W), got {shape}")
    n, channels, height, width = shape
    return (n, channels, window(height, kernel[0], strides[0], pads[0], pads[2], 1, ceil_mode),
            window(width, kernel[1], strides[1], pads[1], pads[3], 1, ceil_mode))


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """Common shape under numpy rules; raises ``GraphError`` showing the shapes."""
    rank = max(map(len, shapes))
    out = []
    for axis in range(rank):
        sizes = {s[axis - rank + len(s)] for s in shapes if axis - rank + len(s) >= 0} - {1}
        if len(sizes) > 1:
            raise GraphError(f"shapes {list(shapes)} do not broadcast")
        out.append(sizes.pop() if sizes else 1)
    return tuple(out)


def concat(shapes: Sequence[Shape], axis: int) -> Shape:
    """Shapes joined along ``axis``."""
    first = shapes[0]
    axis %= len(first)
    if any(len(s) != len(first) or any(a != b for i, (a, b) in enumerate(zip(s, first, strict=True)) if i != axis)
           for s in shapes):
        raise GraphError(f"shapes {list(shapes)} cannot be joined along axis {axis}")
    return (*first[:axis], sum(s[axis] for s in shapes), *first[axis + 1:])


def linear(shape: Shape, out_features: int) -> tuple[Shape, Shape, Shape]:
    """Flattened input shape, output shape and weight shape ``(out, in)``; ``(N, C, 1, 1)`` counts as ``(N, C)``."""
    if len(shape) == 4:
        shape = (shape[0], prod(shape[1:]))
    return shape, (*shape[:-1], out_features), (out_features, shape[-1])
