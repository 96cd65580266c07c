"""Graph nodes that move values -> calls of torch operators. See ``torch_build_ops`` for what a function takes.

A graph keeps that a ``Gather`` reads through constant positions, but not the positions: they are counted up from zero,
wrapped at the size of the axis. The same is true of writes (``ScatterND``): a block of the shape of what is written is
overwritten at the start of the target.
"""

from __future__ import annotations

from math import prod
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional as F

from extract.torch_build_layers import as_index
from extract.torch_build_ops import Call, Operator, as_float, as_number


def slice_(call: Call, times: int, x: Tensor) -> Tensor:
    """One slice for each axis; one that runs backwards is a flip."""
    axes, starts, ends = call.attr("axes"), call.attr("starts"), call.attr("ends")
    steps = call.attr("steps", (1,) * len(axes))
    if all(step == -1 for step in steps):
        return torch.flip(x, axes)
    cut: list[slice] = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step < 0:
            raise NotImplementedError(f"a slice with step {step}")
        cut[axis] = slice(start, end, step)
    return x[tuple(cut)]


def concat(call: Call, times: int, *xs: Tensor) -> Tensor:
    return torch.cat([as_number(x) for x in xs] if any(x.dtype != torch.bool for x in xs) else list(xs), call.attr("axis"))


def pad(call: Call, times: int, x: Tensor) -> Tensor:
    pads, mode = call.attr("pads"), call.attr("mode", "constant")
    n = x.ndim
    pairs = [(pads[i], pads[n + i]) for i in range(n)]
    while len(pairs) > 1 and pairs[0] == (0, 0):
        pairs.pop(0)
    flat = [p for pair in reversed(pairs) for p in pair]
    if mode == "constant":
        return F.pad(x, flat, value=call.attr("value", 0.0))
    return F.pad(x, flat, mode={"edge": "replicate", "wrap": "circular"}.get(mode, mode))


def resize(call: Call, times: int, x: Tensor) -> Tensor:
    mode, n = call.attr("mode", "nearest"), x.ndim - 2
    name = {"linear": ("linear", "bilinear", "trilinear")[n - 1], "cubic": "bicubic"}.get(mode, "nearest")
    more: dict[str, Any] = {}
    if call.attr("coordinate_transformation_mode") == "align_corners":
        more["align_corners"] = True
    return F.interpolate(as_float(x), size=call.spec.out_shape[2:], mode=name, **more)


def expand(call: Call, times: int, x: Tensor, *shape: Tensor) -> Tensor:
    return x.expand(call.shape(times))


def tile(call: Call, times: int, x: Tensor) -> Tensor:
    """``repeats`` for each axis, or one number: every value repeated in place."""
    repeats, before, after = call.attr("repeats", ()), call.spec.in_shapes[0], call.spec.out_shape
    padded = (1,) * (len(repeats) - len(before)) + before
    if len(repeats) >= len(before) and tuple(r * d for r, d in zip(repeats, padded, strict=True)) == after:
        return x.repeat(repeats)
    if len(repeats) == 1 and len(before) == len(after):
        axes = [i for i, (d, e) in enumerate(zip(before, after, strict=True)) if e == repeats[0] * d != d]
        return x.repeat_interleave(repeats[0], dim=axes[0])
    if len(repeats) == 1:
        return x.repeat_interleave(repeats[0])
    axes = [i for i, (d, e) in enumerate(zip(before, after, strict=True)) if d != e]
    index = torch.arange(after[axes[0]], device=x.device) * before[axes[0]] // after[axes[0]]
    return x.index_select(axes[0], index)


def counted(shape: tuple[int, ...], size: int, device: torch.device) -> Tensor:
    """Valid positions on an axis of ``size``: 0, 1, 2, … and again from 0."""
    return (torch.arange(prod(shape), device=device) % size).reshape(shape)


def gather(call: Call, times: int, x: Tensor, index: Tensor | None = None) -> Tensor:
    axis = call.attr("axis", 0)
    if index is None:
        out = call.shape(times)
        index = counted(out[axis:len(out) - (x.ndim - 1 - axis)], x.shape[axis], x.device)
        index = _windows(index, x.shape[axis])
    if index.ndim == 1:
        return x.index_select(axis, as_index(index, x.shape[axis]))
    return x[(*(slice(None),) * axis, as_index(index, x.shape[axis]))]


def _windows(index: Tensor, size: int) -> Tensor:
    """Positions of two axes are those of sliding windows, ``(offset, window)`` or ``(window, offset)``, if they fit."""
    if index.ndim != 2 or min(index.shape) < 2:
        return index
    for offsets in sorted((0, 1), key=lambda a: index.shape[a]):  # windows are mostly more than they are wide
        width, windows = index.shape[offsets], index.shape[1 - offsets]
        step = (size - width) // (windows - 1)
        if step > 0 and step * (windows - 1) + width <= size < step * windows + width:
            line = [torch.arange(n, device=index.device) for n in index.shape]
            return line[0][:, None] * (1 if offsets == 0 else step) + line[1][None] * (step if offsets == 0 else 1)
    return index


def gather_elements(call: Call, times: int, x: Tensor, index: Tensor | None = None) -> Tensor:
    axis, size = call.attr("axis", 0), x.shape[call.attr("axis", 0)]
    if index is None:
        out = call.shape(times)
        line = torch.arange(out[axis], device=x.device) % size
        index = line.reshape(-1, *(1,) * (x.ndim - 1 - axis)).expand(out)
    return torch.gather(x, axis, as_index(index, size))


def gather_nd(call: Call, times: int, x: Tensor, index: Tensor | None = None) -> Tensor:
    """``x[…]`` with one position tensor for each of ``axes``; the argument is the first of them."""
    axes, out = call.attr("axes", (0,)), call.shape(times)
    n = len(out) - (x.ndim - len(axes))
    start = axes[0] if axes == tuple(range(axes[0], axes[-1] + 1)) else 0
    shape = out[start:start + n]
    linear = torch.arange(prod(shape), device=x.device)
    places: list[Any] = [slice(None)] * x.ndim
    for axis in reversed(axes):
        places[axis] = (linear % x.shape[axis]).reshape(shape)
        linear = linear // x.shape[axis]
    if index is not None:
        places[axes[0]] = as_index(index, x.shape[axes[0]])
    return x[tuple(places)]


def scatter_nd(call: Call, times: int, x: Tensor, *more: Tensor) -> Tensor:
    """``x`` with a block overwritten by the last argument; an argument in between tells the positions on the first axis."""
    if not more:
        return x.index_put((torch.zeros(1, dtype=torch.int64, device=x.device),), x.new_zeros(()))
    value, add = more[-1].to(x.dtype), call.attr("reduction") == "add"
    if len(more) == 2:
        return x.index_put((as_index(more[0], x.shape[0]),), value, add)
    shape = value.shape
    block = None if add else _block(tuple(x.shape), tuple(shape))
    if block is not None:
        written = x.clone()
        written[block].copy_(value)
        return written
    linear, found = torch.arange(value.numel(), device=x.device), []
    for size in reversed(x.shape):
        found.append((linear % size).reshape(shape))
        linear = linear // size
    return x.index_put(tuple(reversed(found)), value, add)


def _block(whole: tuple[int, ...], part: tuple[int, ...]) -> tuple[Any, ...] | None:
    """An index into a tensor of shape ``whole`` that shows a block of shape ``part``, axes left out from the front on."""
    spare, block, rest = len(whole) - len(part), list[Any](), list(part)
    for size in whole:
        if (rest and rest[0] == size) or (rest and rest[0] < size and not spare):
            block.append(slice(0, rest.pop(0)))
        elif spare:
            spare -= 1
            block.append(0)
        else:
            return None
    return tuple(block) if not rest else None


def scatter_elements(call: Call, times: int, x: Tensor, *more: Tensor) -> Tensor:
    """Arguments: target, [positions,] values. With a ``kernel_shape`` it is ``F.fold``: sums of windows at their places."""
    kernel = call.attr("kernel_shape")
    if kernel is not None:
        return F.fold(x, call.spec.out_shape[-2:], kernel, call.attr("dilations"), call.attr("pads")[:2], call.attr("strides"))
    axis = call.attr("axis")
    if axis is None:
        other = more[-1].shape if more else x.shape
        axis = next((i for i in range(x.ndim) if i < len(other) and other[i] != x.shape[i]), x.ndim - 1)
    if not more:
        index = torch.zeros((1,) * x.ndim, dtype=torch.int64, device=x.device)
        return x.scatter(axis, index, x.new_zeros(index.shape))
    value = as_number(more[-1]).to(x.dtype)
    if len(more) == 2:
        index = as_index(more[0], x.shape[axis])
    else:
        line = torch.arange(value.shape[axis], device=x.device) % x.shape[axis]
        index = line.reshape(-1, *(1,) * (x.ndim - 1 - axis)).expand(value.shape)
    return x.scatter(axis, index, value)


def roll(call: Call, times: int, x: Tensor) -> Tensor:
    return torch.roll(x, call.attr("shifts"), call.attr("axes", ()))


def trilu(call: Call, times: int, x: Tensor) -> Tensor:
    return (torch.triu if call.attr("upper", True) else torch.tril)(x, call.attr("k", 0))


def one_hot(call: Call, times: int, x: Tensor) -> Tensor:
    depth = call.attr("depth", call.spec.out_shape[-1])
    return F.one_hot(as_index(x, depth), depth)


def depth_to_space(call: Call, times: int, x: Tensor) -> Tensor:
    return F.pixel_shuffle(x, call.attr("blocksize"))


def space_to_depth(call: Call, times: int, x: Tensor) -> Tensor:
    return F.pixel_unshuffle(x, call.attr("blocksize"))


def grid_sample(call: Call, times: int, x: Tensor, grid: Tensor) -> Tensor:
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(call.attr("mode", "linear"), "nearest")
    return F.grid_sample(x, grid.to(x.dtype), mode=mode, align_corners=bool(call.attr("align_corners", False)))


def transpose(call: Call, times: int, x: Tensor) -> Tensor:
    return x.permute(call.attr("perm", tuple(reversed(range(x.ndim)))))


MOVES: Final[dict[str, Operator]] = {
    "Slice": slice_, "Concat": concat, "Pad": pad, "Resize": resize, "Expand": expand, "Tile": tile, "Gather": gather,
    "GatherElements": gather_elements, "GatherND": gather_nd, "ScatterND": scatter_nd,
    "ScatterElements": scatter_elements, "Roll": roll, "Trilu": trilu, "OneHot": one_hot,
    "DepthToSpace": depth_to_space, "SpaceToDepth": space_to_depth, "GridSample": grid_sample,
    "Reshape": lambda call, times, x: x, "Transpose": transpose,
}
