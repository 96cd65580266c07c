"""Handlers of TensorFlow operators with weights: a ``Call`` -> the torch operators that do it.

Filters of TensorFlow are (height, width, in, out); images are kept as (N, C, H, W). Padding 'SAME' is computed from the
sizes. Where it is equal on both sides it becomes padding of the operator; where it is not (even sizes at stride 2) it is a
``Pad`` before it, which is what PyTorch ports of TensorFlow networks do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from extract.extraction import ExtractionError
from extract.tensorflow_values import Value, first_order

if TYPE_CHECKING:
    from extract.tensorflow_graph import Node
    from extract.tensorflow_program import Call

Pairs = list[tuple[int, int]]


def is_last(node: Node) -> bool:
    """Whether the node has its channels last."""
    return not str(node.attr("data_format", "NHWC") or "NHWC").startswith("NC")


def spatial(node: Node, name: str, n: int) -> list[int]:
    """An attribute with one number for each axis, without batch and channels; ones if it is missing."""
    values = node.ints(name)
    if not values:
        if name in node.attrs and node.attrs[name].WhichOneof("value") != "list":
            raise ExtractionError(f"{node}: field {name!r} must be a list of integers")
        return [1] * n
    if len(values) != n + 2:
        raise ExtractionError(f"{node}: field {name!r} has {len(values)} numbers for {n + 2} axes")
    values = values[1:-1] if is_last(node) else values[2:]
    if any(not 0 < v < 2**31 for v in values):
        raise ExtractionError(f"{node}: field {name!r} is {values}; the numbers must be positive")
    return values


def same(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Zeros before and after under 'SAME'. Source: the notes on padding in the documentation of ``tf.nn.convolution``."""
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def pads_of(node: Node, sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int],
            dilations: Sequence[int]) -> Pairs:
    padding = node.attr("padding", "VALID")
    if padding == "SAME":
        return [same(*values) for values in zip(sizes, kernel, strides, dilations, strict=True)]
    if padding == "EXPLICIT":
        explicit = node.ints("explicit_paddings")
        pairs = list(zip(explicit[::2], explicit[1::2], strict=True))
        return pairs[1:-1] if is_last(node) else pairs[2:]
    if padding != "VALID":
        raise ExtractionError(f"{node}: field 'padding' is {str(padding)[:80]!r}; it must be 'SAME', 'VALID' or 'EXPLICIT'")
    return [(0, 0)] * len(sizes)


def with_pads(pads: Pairs, more: Pairs | None, node: Node) -> Pairs:
    """``pads`` plus the spatial part of a table of paddings for all axes."""
    if more is None:
        return pads
    inner = more[1:-1] if is_last(node) else more[2:]
    return [(a + c, b + d) for (a, b), (c, d) in zip(pads, inner, strict=True)]


def only_pixels(pads: Pairs, node: Node) -> bool:
    outer = (pads[0], pads[-1]) if is_last(node) else (pads[0], pads[1])
    return not any(p for pair in outer for p in pair) and all(p >= 0 for pair in pads for p in pair)


def pad_pixels(x: Tensor, pads: Pairs, value: float = 0.0) -> Tensor:
    flat = [p for pair in reversed(pads) for p in pair]
    return F.pad(x, flat, value=value) if any(flat) else x


def split_pads(x: Tensor, pads: Pairs, call: Call, node: Node, value: float = 0.0) -> tuple[Tensor, tuple[int, ...]]:
    """Equal pads for the operator itself; unequal ones are padded here."""
    if all(a == b for a, b in pads):
        return x, tuple(a for a, _ in pads)
    call.note(f"{node.op} pads one side more than the other ('SAME' at stride 2, 'causal', or a Pad of its own); layers of "
              "PyTorch pad both sides alike")
    return pad_pixels(x, pads, value), (0,) * len(pads)


def image(call: Call, x: Value, node: Node, rank: int) -> Tensor:
    if x.rank != rank:
        raise ExtractionError(f"{call.node}: an input of {rank} axes is needed, it has shape {x.shape}")
    return x.channels_first() if is_last(node) else x.plain()


def out_image(y: Tensor, node: Node) -> Value:
    return Value.first(y) if is_last(node) else Value.of(y)


def conv(call: Call) -> Value:
    """Conv2D, Conv3D, DepthwiseConv2dNative, with the padding, blocks and bias that belong to it (``tensorflow_fusion``)."""
    node: Node = call.named.get("conv", call.node)
    x, w = call.value(0), call.value(1)
    one_d = bool(call.named.get("one_d"))
    n = (3 if node.op == "Conv3D" else 2)
    if w.rank != n + 2:
        raise ExtractionError(f"{node}: the filter has shape {w.shape}, {n + 2} axes are needed")
    if one_d and (x.rank != 3 or w.shape[0] != 1 or not is_last(node)):
        axis = -3 if is_last(node) else -2
        plain = x.plain().unsqueeze(axis)  # height is not one: a 2-D convolution after all
        x, one_d = Value.of(plain), False
    strides, dilations = spatial(node, "strides", n), spatial(node, "dilations", n)
    kernel = list(w.shape[:n])
    if one_d:
        strides, dilations, kernel = strides[1:], dilations[1:], kernel[1:]
        t = x.channels_first()
    else:
        t = image(call, x, node, n + 2)
    line = not one_d and n == 2 and kernel[0] == strides[0] == 1 and "pads" not in call.named and on_line(node, t)
    if line:
        strides, dilations, kernel, t, one_d = strides[1:], dilations[1:], kernel[1:], t.squeeze(2), True
    extra: Pairs = [(0, 0)] * len(kernel)
    if "block" in call.named:
        blocks, crops = call.ints("block"), call.pairs("crops")
        block_pads = call.pairs("block_pads")
        if strides != [1] * len(kernel) or len(blocks) != len(kernel):
            raise ExtractionError(f"{node}: SpaceToBatchND with blocks {blocks} around strides {strides} is not a dilation")
        dilations = [d * b for d, b in zip(dilations, blocks, strict=True)]
        extra = [(p0 - c0, p1 - c1) for (p0, p1), (c0, c1) in zip(block_pads, crops, strict=True)]
    pads = pads_of(node, list(t.shape[2:]), kernel, strides, dilations)
    pads = [(a + c, b + d) for (a, b), (c, d) in zip(pads, extra, strict=True)]
    if "pads" in call.named:
        table = call.pairs("pads")
        if only_pixels(table, node) and node.attr("padding") != "SAME":
            pads = with_pads(pads, table, node)
        else:  # padded channels, or 'SAME' computed after the padding
            t = pad_pixels(t, [table[0], table[-1], *table[1:-1]] if is_last(node) else table)
            pads = pads_of(node, list(t.shape[2:]), kernel, strides, dilations)
    weight, groups = _filter(node, w, t.shape[1], one_d)
    bias = call.maybe("bias")
    whole: Node = call.named.get("whole", call.node)
    fits = bias is not None and _is_bias(bias, weight.shape[0], whole, is_last(node))
    vector = bias.plain().reshape(-1) if bias is not None and fits else None
    t, padding = split_pads(t, pads, call, node)
    run = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(kernel)]
    y = run(t, weight, vector, tuple(strides), padding, tuple(dilations), groups)
    value = out_image(y.unsqueeze(2) if line else y, node)
    if "squeeze" in call.named and value.rank == n + 2:
        value = _squeezed(value, call.named["squeeze"])
    return value if bias is None or fits else Value(*_sum(call, value, bias))


def _squeezed(value: Value, dims: Sequence[int]) -> Value:
    axes = {d % value.rank for d in dims}
    t = value.tensor
    for place in sorted((value.order[a] for a in axes), reverse=True):
        t = t.squeeze(place)
    return Value(t, value.without(axes))


def on_line(node: Node, t: Tensor) -> bool:
    """Whether the image is a line that was given a height of one, perhaps some convolutions ago."""
    for _ in range(20):
        if t.shape[2] != 1 or not node.inputs or not is_last(node):
            return False
        place = 2 if node.op == "Conv2DBackpropInput" else 0
        node = node.inputs[min(place, len(node.inputs) - 1)].node
        if node.op == "ExpandDims":
            return True
        if node.op not in ("Conv2D", "DepthwiseConv2dNative", "Conv2DBackpropInput"):
            return False
    return False


def _sum(call: Call, x: Value, y: Value) -> tuple[Tensor, tuple[int, ...]]:
    tensors, order = call.aligned(x, y)
    return torch.add(*tensors), order


def _filter(node: Node, w: Value, channels: int, one_d: bool) -> tuple[Tensor, int]:
    """The filter as torch has it (out, in / groups, …), and the number of groups."""
    t = w.plain()
    if one_d:
        t = t.squeeze(0)
    n = t.ndim - 2
    if node.op == "DepthwiseConv2dNative":
        multiplier = t.shape[-1]
        t = t.permute(n, n + 1, *range(n)).reshape(channels * multiplier, 1, *t.shape[:n])
        return t, channels
    inner = t.shape[n]
    if not inner or channels % inner:
        raise ExtractionError(f"{node}: {channels} channels do not fit a filter of shape {w.shape}")
    return t.permute(n + 1, n, *range(n)), channels // inner


def _is_bias(bias: Value, channels: int, node: Node, last: bool) -> bool:
    """Whether a constant that is added holds one number for each channel."""
    if bias.tensor.numel() != channels:
        return False
    if bias.rank <= 1:
        return last if node.op != "BiasAdd" else True
    shape = bias.shape
    return shape[-1] == channels if last else bias.rank > 2 and shape[-3] == channels


def conv_transpose(call: Call) -> Value:
    """Conv2DBackpropInput, Conv3DBackpropInputV2 with ``(output sizes, filter, x)``: a transposed convolution.

    Where 'SAME' cuts one side more than the other, a ``Slice`` of the far side stands behind it.
    """
    node: Node = call.named.get("conv", call.node)
    sizes, w, x = call.ints(0), call.value(1), call.value(2)
    n = w.rank - 2
    t = image(call, x, node, n + 2)
    strides, dilations, kernel = spatial(node, "strides", n), spatial(node, "dilations", n), list(w.shape[:n])
    wanted = sizes[1:-1] if is_last(node) else sizes[2:]
    squeeze = call.named.get("squeeze", ())
    line = n == 2 and kernel[0] == strides[0] == 1 and on_line(node, t)
    if len(sizes) == n:  # newer graphs give the spatial sizes only
        wanted = sizes
    if line:
        t, n, kernel, strides, dilations, wanted = t.squeeze(2), 1, kernel[1:], strides[1:], dilations[1:], wanted[1:]
        w = Value.of(w.plain().squeeze(0))
    pads = pads_of(node, wanted, kernel, strides, dilations)
    before = [a for a, _ in pads]
    weight = w.plain().permute(n + 1, n, *range(n))
    bias = call.maybe("bias")
    fits = bias is not None and _is_bias(bias, weight.shape[1], call.named.get("whole", node), is_last(node))
    vector = bias.plain().reshape(-1) if bias is not None and fits else None
    full = [(i - 1) * s + (k - 1) * d + 1 - a
            for i, s, k, d, a in zip(t.shape[2:], strides, kernel, dilations, before, strict=True)]
    even = all(f - b == size for f, (_, b), size in zip(full, pads, wanted, strict=True)) and all(a == b for a, b in pads)
    run = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}[n]
    if even:
        y = run(t, weight, vector, tuple(strides), tuple(before), 0, 1, tuple(dilations))
        value = _squeezed(out_image(y.unsqueeze(2) if line else y, node), squeeze)
        return value if bias is None or fits else Value(*_sum(call, value, bias))
    missing = [max(0, size - f) for f, size in zip(full, wanted, strict=True)]
    y = run(t, weight, vector, tuple(strides), 0, tuple(missing), 1, tuple(dilations))
    for axis, (a, size) in enumerate(zip(before, wanted, strict=True)):
        y = y.narrow(axis + 2, a, size) if y.shape[axis + 2] != size else y
    value = _squeezed(out_image(y.unsqueeze(2) if line else y, node), squeeze)
    return value if bias is None or fits else Value(*_sum(call, value, bias))


def linear(call: Call) -> Value:
    """A product with a constant matrix: (…, in) @ (in, out) + bias, whatever reshapes stand around it."""
    node: Node = call.named.get("product", call.node)
    x, w = call.value(0), call.value(1)
    if node.op == "Einsum":
        from extract.tensorflow_products import dense_einsum

        return dense_einsum(call, node, x, w)
    to = call.ints("to") if "to" in call.named else None
    bias = call.maybe("bias")
    t = x.plain()
    if node.attr("transpose_a") or node.attr("adj_x"):
        t = t.transpose(-1, -2)
    if w.rank != 2:  # a stack of matrices
        y = torch.matmul(t, _turned(w, node))
        value = Value.of(y if to is None else y.reshape(to))
        return value if bias is None else Value(*_sum(call, value, bias))
    matrix = w.plain() if node.attr("transpose_b") or node.attr("adj_y") else w.plain().t()
    if "flat" in call.named:
        rows = call.ints("flat")
        kept = t.shape[-1] == matrix.shape[1] and to is not None and filled(to, t.numel() // t.shape[-1] * matrix.shape[0]) == [
            *t.shape[:-1], matrix.shape[0]]
        if kept:
            to = None
        else:
            t = t.reshape(rows)
    vector = bias.plain().reshape(-1) if bias is not None and bias.tensor.numel() == matrix.shape[0] else None
    y = F.linear(t, matrix, vector)
    value = Value.of(y if to is None else y.reshape(to))
    return value if bias is None or vector is not None else Value(*_sum(call, value, bias))


def _turned(w: Value, node: Node) -> Tensor:
    return w.plain().transpose(-1, -2) if node.attr("transpose_b") or node.attr("adj_y") else w.plain()


def filled(sizes: Sequence[int], total: int) -> list[int]:
    """A shape with its one -1 filled in."""
    rest = 1
    for s in sizes:
        rest *= s if s > 0 else 1
    return [total // max(rest, 1) if s < 0 else s for s in sizes]


def bias_add(call: Call) -> Value:
    x, b = call.value(0), call.value(1)
    if not is_last(call.node) and x.rank > 2:
        return Value.of(x.plain() + b.plain().reshape(-1, *(1,) * (x.rank - 2)))
    return Value(*_sum(call, x, b))


def gelu(call: Call) -> Value:
    x = call.value(0)
    return Value(F.gelu(x.tensor), x.order)


def prelu(call: Call) -> Value:
    x, alpha = call.value(0), call.value(1)
    if alpha.tensor.numel() == alpha.shape[-1] == x.shape[-1] and x.rank > 1:
        order = x.order if x.order[-1] == 1 else first_order(x.rank)
        return Value(F.prelu(x.in_order(order), alpha.plain().reshape(-1)), order)
    tensors, order = call.aligned(x, alpha)
    return Value(call.emit("PRelu", tensors, x.in_order(order).shape, x.tensor.dtype), order)
