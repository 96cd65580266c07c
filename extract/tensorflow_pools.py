"""Handlers of TensorFlow operators on images without weights: pooling, resizing, local response normalisation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.nn import functional as F

from extract.extraction import ExtractionError
from extract.tensorflow_layers import (
    filled,
    image,
    is_last,
    on_line,
    only_pixels,
    out_image,
    pad_pixels,
    pads_of,
    spatial,
    split_pads,
)
from extract.tensorflow_values import Value

if TYPE_CHECKING:
    from extract.tensorflow_program import Call


def pool(call: Call) -> Value:
    """MaxPool, AvgPool and their 3-D forms. Uneven 'SAME' at the far side is what torch calls ``ceil_mode``."""
    node = call.node
    x = call.value(0)
    n = x.rank - 2
    t = image(call, x, node, 5 if node.op.endswith("3D") else 4)
    kernel, strides = spatial(node, "ksize", n), spatial(node, "strides", n)
    largest = node.op.startswith("Max")
    pads = pads_of(node, list(t.shape[2:]), kernel, strides, [1] * n)
    own = list(pads)
    if "pads" in call.named:
        table = call.pairs("pads")
        inner = table[1:-1] if is_last(node) else table[2:]
        fits = (only_pixels(table, node) and not any(p for pair in pads for p in pair) and node.attr("padding") == "VALID"
                and all(a == b and a <= k // 2 for (a, b), k in zip(inner, kernel, strict=True)))
        if fits:
            pads = inner
        else:
            t = pad_pixels(t, inner)
            pads = own = pads_of(node, list(t.shape[2:]), kernel, strides, [1] * n)
    one_d = n == 2 and kernel[0] == strides[0] == 1 and on_line(node, t)
    if one_d:
        t, kernel, strides, pads, n = t.squeeze(2), kernel[1:], strides[1:], pads[1:], 1
    wanted = [(s + a + b - k) // st + 1 for s, (a, b), k, st in zip(t.shape[2:], pads, kernel, strides, strict=True)]
    before = tuple(a for a, _ in pads)
    ceil = any(a != b for a, b in pads)
    if ceil:
        up = [-(-(s + 2 * a - k) // st) + 1 for s, a, k, st in zip(t.shape[2:], before, kernel, strides, strict=True)]
        last = [(u - 1) * st < s + a for u, s, a, st in zip(up, t.shape[2:], before, strides, strict=True)]
        if up != wanted or not all(last):
            t, before = split_pads(t, pads, call, node, float("-inf") if largest else 0.0)
            ceil = False
    if largest:
        y = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[n](t, kernel, strides, before, 1, ceil)
    else:
        include = "pads" in call.named and own != pads
        y = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[n](t, kernel, strides, before, ceil, include)
    return out_image(y.unsqueeze(2) if one_d else y, node)


def resize(mode: str) -> Any:
    """ResizeBilinear, … with ``(images, new height and width)``."""

    def handler(call: Call) -> Value:
        t = call.value(0).channels_first()
        size = tuple(call.shape(1))
        aligned = bool(call.attr("align_corners"))
        if mode == "nearest":
            return Value.first(F.interpolate(t, size, mode="nearest"))
        return Value.first(F.interpolate(t, size, mode=mode, align_corners=aligned))

    return handler


def upsample(call: Call) -> Value:
    """Every value repeated along axes; over both image axes it is a nearest-neighbour resize."""
    x = call.value(0)
    shape = list(x.shape)
    factors: dict[int, int] = {}
    for i in range(sum(1 for name in call.named if name.startswith("axis"))):
        axis = call.int_(f"axis{i}")
        axis = (axis if axis >= 0 else axis + len(shape) + 1) - 1
        multiples = call.ints(f"multiples{i}")
        if not 0 <= axis < len(shape) or len(multiples) != len(shape) + 1 or any(
                m != 1 for a, m in enumerate(multiples) if a != axis + 1):
            raise ExtractionError(f"{call.node}: a tiling by {multiples} that is no repetition along an axis")
        shape[axis] *= multiples[axis + 1]
        factors[axis] = factors.get(axis, 1) * multiples[axis + 1]
    if filled(call.ints("to"), x.tensor.numel()) != shape and call.ints("to") != shape:
        y = x.plain()
        for axis, factor in factors.items():
            y = y.repeat_interleave(factor, axis)
        return Value.of(y.reshape(call.ints("to")))
    if x.rank in (3, 4, 5) and [*sorted(factors)] == list(range(1, x.rank - 1)) and max(x.shape[1:-1]) > 1:
        return Value.first(F.interpolate(x.channels_first(), tuple(shape[1:-1]), mode="nearest"))
    y = x.plain()
    if all(x.shape[axis] == 1 for axis in factors):
        return Value.of(y.expand(shape))
    for axis, factor in factors.items():
        y = y.repeat_interleave(factor, axis)
    return Value.of(y)


def lrn(call: Call) -> Value:
    """Local response normalisation over channels, with the attribute names of ONNX (alpha there is per window)."""
    radius = call.attr("depth_radius", 5)
    size = 2 * radius + 1
    t = call.value(0).channels_first()
    attrs = {"alpha": float(f"{(call.attr('alpha', 1.0)) * size:.6g}"), "beta": float(f"{call.attr('beta', 0.5):.6g}"),
             "bias": float(f"{call.attr('bias', 1.0):.6g}"), "size": size}
    return Value.first(call.emit("LRN", [t], t.shape, t.dtype, **attrs))
