"""Handlers of TensorFlow operators that move values: joins, parts, padding, gathering, blocks of pixels."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from extract.extraction import ExtractionError
from extract.tensorflow_consts import MOST_VALUES
from extract.tensorflow_values import Value, known

if TYPE_CHECKING:
    from extract.tensorflow_program import Call

def depth_space(inverse: bool) -> Callable[[Call], Value]:
    """DepthToSpace (DCR order) and SpaceToDepth."""

    def handler(call: Call) -> Value:
        t = call.value(0).channels_first()
        b = call.attr("block_size", 2)
        n, c, h, w = t.shape
        if inverse:
            return Value.first(call.emit("SpaceToDepth", [t], (n, c * b * b, h // b, w // b), t.dtype, blocksize=b))
        return Value.first(call.emit("DepthToSpace", [t], (n, c // (b * b), h * b, w * b), t.dtype, blocksize=b))

    return handler


def space_to_batch(call: Call) -> Value:
    """SpaceToBatchND: padding, then blocks of pixels become batches. Only reshapes remain in the graph."""
    x, blocks, pads = call.value(0).plain(), call.ints(1), call.pairs(2)
    m = len(blocks)
    flat = [p for pair in reversed([*pads, *[(0, 0)] * (x.ndim - m - 1)]) for p in pair]
    x = F.pad(x, flat) if any(flat) else x
    shape = [x.shape[0]]
    for d, b in zip(x.shape[1:m + 1], blocks, strict=True):
        shape += [d // b, b]
    rest = list(x.shape[m + 1:])
    t = x.reshape([*shape, *rest])
    moves = [*range(2, 2 * m + 1, 2), 0, *range(1, 2 * m, 2), *range(2 * m + 1, t.ndim)]
    return Value.of(t.permute(moves).reshape([x.shape[0] * prod(blocks), *shape[1::2], *rest]))


def batch_to_space(call: Call) -> Value:
    x, blocks, crops = call.value(0).plain(), call.ints(1), call.pairs(2)
    m = len(blocks)
    rest = list(x.shape[m + 1:])
    t = x.reshape([*blocks, x.shape[0] // prod(blocks), *x.shape[1:m + 1], *rest])
    moves = [m]
    for i in range(m):
        moves += [m + 1 + i, i]
    t = t.permute([*moves, *range(2 * m + 1, t.ndim)])
    t = t.reshape([t.shape[0], *[d * b for d, b in zip(x.shape[1:m + 1], blocks, strict=True)], *rest])
    for i, (a, b) in enumerate(crops):
        if a or b:
            t = t.narrow(i + 1, a, t.shape[i + 1] - a - b)
    return Value.of(t)


def concat(call: Call) -> Value:
    """ConcatV2 has the axis last, Concat first."""
    first = call.node.op == "Concat"
    places = range(1, len(call)) if first else range(len(call) - 1)
    values = [call.value(i) for i in places]
    rank_ = max(v.rank for v in values)
    axis = call.axis(0 if first else len(call) - 1, rank_)
    order = next((v.order for v in values if not v.is_plain), values[0].order)
    tensors = [v.in_order(order) for v in values]
    return Value(tensors[0] if len(tensors) == 1 else torch.cat(tensors, order[axis]), order)


def pack(call: Call) -> Value:
    values = [call.value(i) for i in range(len(call))]
    axis = call.attr("axis", 0) % (values[0].rank + 1)
    return Value.of(torch.stack([v.plain() for v in values], axis))


def unpack(call: Call) -> list[Value]:
    x = call.value(0)
    axis = call.attr("axis", 0) % x.rank
    return [Value(t, x.without({axis})) for t in x.tensor.unbind(x.order[axis])]


def split(call: Call) -> list[Value]:
    """Split ``(axis, x)`` and SplitV ``(x, sizes, axis)``."""
    if call.node.op == "Split":
        x = call.value(1)
        axis = call.axis(0, x.rank)
        parts = call.attr("num_split", 1)
        if parts < 1 or x.shape[axis] % parts:
            raise ExtractionError(f"{call.node}: field 'num_split' is {parts} for shape {x.shape}")
        sizes = [x.shape[axis] // parts] * parts
    else:
        x = call.value(0)
        axis = call.axis(2, x.rank)
        sizes = call.ints(1)
        rest = x.shape[axis] - sum(s for s in sizes if s >= 0)
        sizes = [s if s >= 0 else rest for s in sizes]
    return [Value(t, x.order) for t in torch.split(x.tensor, sizes, x.order[axis])]


def pad(call: Call) -> Value:
    """Pad, PadV2 with a value, MirrorPad. Negative sizes are refused."""
    x, pairs = call.value(0), call.pairs(1)
    if len(pairs) != x.rank or any(p < 0 or p > 2**31 for pair in pairs for p in pair):
        raise ExtractionError(f"{call.node}: paddings {pairs[:17]} do not fit shape {x.shape}")
    placed: list[tuple[int, int]] = [(0, 0)] * x.rank
    for a, pair in enumerate(pairs):
        placed[x.order[a]] = pair
    flat = [p for pair in reversed(placed) for p in pair]
    if call.node.op == "MirrorPad":
        while flat and flat[-2:] == [0, 0]:
            flat = flat[:-2]
        if call.attr("mode") == "REFLECT" and len(flat) // 2 in (1, 2, 3) and x.rank >= len(flat) // 2 + 1:
            return Value(F.pad(x.tensor, flat, mode="reflect"), x.order)
        begins, ends = tuple(p for p, _ in placed), tuple(p for _, p in placed)
        shape_ = [d + a + b for d, a, b in zip(x.tensor.shape, begins, ends, strict=True)]
        made = call.emit("Pad", [x.tensor], shape_, x.tensor.dtype, pads=(*begins, *ends), mode=str(call.attr("mode")).lower())
        return Value(made, x.order)
    value = known(call.value(2).tensor) if len(call) > 2 else 0.0
    if not isinstance(value, int | float):
        raise ExtractionError(f"{call.node}: the number to pad with must be known")
    sizes = [d + a + b for d, (a, b) in zip(x.tensor.shape, placed, strict=True)]
    return Value(F.pad(_large(call, x.tensor, sizes), flat, value=value), x.order) if any(flat) else x


def slice_(call: Call) -> Value:
    x, begins, sizes = call.value(0), call.ints(1), call.ints(2)
    t = x.tensor
    for a, (b, s) in enumerate(zip(begins, sizes, strict=True)):
        s = x.shape[a] - b if s == -1 else s
        if s != x.shape[a]:
            t = t.narrow(x.order[a], b, s)
    return Value(t, x.order)


def strided_slice(call: Call) -> Value:
    """NumPy slicing with its masks. Backwards steps flip."""
    x = call.value(0)
    begins, ends, steps = (call.ints(i) for i in (1, 2, 3))
    masks = {name: int(call.attr(f"{name}_mask", 0)) for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}
    entries = len(begins)
    consumed = sum(1 for i in range(entries) if not masks["new_axis"] >> i & 1 and not masks["ellipsis"] >> i & 1)
    t, order, axis = x.tensor, x.order, 0
    gone: set[int] = set()
    new: list[int] = []
    out_axis = 0
    for i in range(entries):
        if masks["ellipsis"] >> i & 1:
            skipped = x.rank - consumed
            axis, out_axis = axis + skipped, out_axis + skipped
        elif masks["new_axis"] >> i & 1:
            new.append(out_axis)
            out_axis += 1
        elif masks["shrink_axis"] >> i & 1:
            n = x.shape[axis]
            if not -n <= begins[i] < n:
                raise ExtractionError(f"{call.node}: index {begins[i]} is outside an axis of {n}")
            t = t.narrow(order[axis], begins[i] % n, 1)
            gone.add(axis)
            axis += 1
        else:
            begin = None if masks["begin"] >> i & 1 else begins[i]
            end = None if masks["end"] >> i & 1 else ends[i]
            t = _stride(t, order[axis], slice(begin, end, steps[i]).indices(x.shape[axis]))
            axis, out_axis = axis + 1, out_axis + 1
    value = Value(t, order)
    if gone:
        for place in sorted((order[a] for a in gone), reverse=True):
            t = t.squeeze(place)
        value = Value(t, value.without(gone))
    for a in new:
        value = Value.of(value.plain().unsqueeze(a))
    return value


def _stride(t: Tensor, axis: int, indices: tuple[int, int, int]) -> Tensor:
    begin, end, step = indices
    if step > 0:
        if (begin, step) == (0, 1) and end == t.shape[axis]:
            return t
        return torch.ops.aten.slice(t, axis, begin, max(begin, end), step)
    t = torch.flip(t, [axis])
    n = t.shape[axis]
    if (begin, end, step) == (n - 1, -1, -1):
        return t
    return torch.ops.aten.slice(t, axis, n - 1 - begin, max(n - 1 - begin, n - 1 - end), -step)


def reverse(call: Call) -> Value:
    x = call.value(0)
    axes = [x.order[a % x.rank] for a in call.ints(1)]
    return Value(torch.flip(x.tensor, axes), x.order) if axes else x


def tile(call: Call) -> Value:
    x, multiples = call.value(0), call.ints(1)
    if len(multiples) != x.rank:
        raise ExtractionError(f"{call.node}: {len(multiples)} multiples for shape {x.shape}")
    t = _large(call, x.plain(), [d * m for d, m in zip(x.shape, multiples, strict=True)])
    return x if all(m == 1 for m in multiples) else Value.of(t.repeat(multiples))


def _large(call: Call, t: Tensor, sizes: list[int]) -> Tensor:
    """``t`` without its values if the result would be large."""
    return t.to("meta") if not t.is_meta and prod(sizes) > MOST_VALUES else t


def broadcast_to(call: Call) -> Value:
    x, to = call.value(0), call.shape(1)
    return x if list(x.shape) == to else Value.of(x.plain().expand(to))


def gather(call: Call) -> Value:
    """GatherV2 ``(x, indices, axis)``, Gather and ResourceGather ``(x, indices)``: rows of a trained table are an Embedding."""
    table, indices = call.value(0), call.value(1)
    axis = call.axis(2, table.rank) if len(call) > 2 else 0
    batch = call.attr("batch_dims", 0)
    t, places = table.plain(), indices.plain()
    if batch:
        raise NotImplementedError(f"batch_dims = {batch}")
    numbers = known(places) if places.ndim == 0 else None
    if isinstance(numbers, int):
        return Value.of(t.select(axis, numbers))
    if axis == 0 and t.ndim == 2 and t.is_floating_point() and t.is_meta and places.is_meta:
        return Value.of(F.embedding(places.to(torch.int64), t))
    if places.ndim == 1:
        return Value.of(torch.index_select(t, axis, places.to(torch.int64)))
    flat = torch.index_select(t, axis, places.reshape(-1).to(torch.int64))
    return Value.of(flat.reshape(*t.shape[:axis], *places.shape, *t.shape[axis + 1:]))


def gather_nd(call: Call) -> Value:
    x, places = call.value(0).plain(), call.value(1).plain()
    depth = places.shape[-1]
    return Value.of(x[tuple(places[..., i].to(torch.int64) for i in range(depth))])


def one_hot(call: Call) -> Value:
    x, depth = call.value(0).plain(), call.int_(1)
    if not 0 < depth < 2**31:
        raise ExtractionError(f"{call.node}: argument 'depth' is {depth}")
    return Value.of(call.emit("OneHot", [x], (*x.shape, depth), depth=depth))


def scatter_nd(call: Call) -> Value:
    places, updates = call.value(0).plain(), call.value(1).plain()
    return Value.of(call.emit("ScatterND", [t for t in (places, updates) if t.is_meta], call.shape(2), updates.dtype))


def update_slice(call: Call) -> Value:
    """XlaDynamicUpdateSlice ``(x, part, starts)``."""
    x, part = call.value(0).plain(), call.value(1).plain()
    y = x.clone()
    y[tuple(slice(a, a + n) for a, n in zip(call.ints(2), part.shape, strict=True))] = part
    return Value.of(y)


def update_rows(call: Call) -> Value:
    """TensorScatterUpdate, TensorScatterAdd ``(x, places, parts)``."""
    x, places, parts = (call.value(i).plain() for i in range(3))
    inputs = [x, *(t for t in (places, parts) if t.is_meta)]
    return Value.of(call.emit("ScatterND", inputs, x.shape, x.dtype))


def triangle(call: Call) -> Value:
    """MatrixBandPart keeps a band; a half of the matrix is ``Trilu``."""
    x, low, high = call.value(0).plain(), call.int_(1), call.int_(2)
    x = torch.tril(x, high) if high >= 0 else x
    return Value.of(torch.triu(x, -low) if low >= 0 else x)


def roll(call: Call) -> Value:
    x = call.value(0)
    return Value(torch.roll(x.tensor, call.ints(1), [x.order[a % x.rank] for a in call.ints(2)]), x.order)


