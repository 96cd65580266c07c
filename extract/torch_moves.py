"""Handlers of operators that move values: slices, joins, padding, gathering, resizing, and writes into a tensor.

What keeps every value exactly once (reshape, permute, contiguous, …) is no operator here: see ``IGNORED`` in ``torch_ops``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from extract.torch_bounds import MASKS, without_masks
from extract.torch_layers import Ints
from extract.torch_math import axis_of, number, plain
from extract.torch_recorder import Recorder, Ref


def slice_(r: Recorder, out: Tensor, x: Tensor, dim: int = 0, start: int | None = None, end: int | None = None,
           step: int = 1) -> Ref:
    size = x.shape[dim]
    begin, stop, _ = slice(start, end, step).indices(size)
    return r.cut(x, axis_of(x, dim), begin, max(begin, stop), step)


def slice_all(r: Recorder, out: Tensor, x: Tensor, starts: Sequence[int], ends: Sequence[int],
              steps: Sequence[int] | None = None) -> Ref:
    """Every axis at once."""
    value = r.ref(x)
    for axis, (begin, end) in enumerate(zip(starts, ends, strict=True)):
        value = r.cut(value, axis, begin, end, 1 if steps is None else steps[axis])
    return value


def select(r: Recorder, out: Tensor, x: Tensor, dim: int, index: int) -> Ref:
    """A slice of length one."""
    begin = index % x.shape[dim]
    return r.cut(x, axis_of(x, dim), begin, begin + 1)


def split(r: Recorder, out: Sequence[Tensor], x: Tensor, sections: Any = None, dim: int = 0) -> list[Ref]:
    """chunk, split, split_with_sizes, tensor_split: a slice for each part. The parts tell the sizes."""
    axis, begin, refs = axis_of(x, dim), 0, []
    for part in out:
        refs.append(r.cut(x, axis, begin, begin + part.shape[axis]))
        begin += part.shape[axis]
    return refs


def unbind(r: Recorder, out: Sequence[Tensor], x: Tensor, dim: int = 0) -> list[Ref]:
    return [r.cut(x, axis_of(x, dim), i, i + 1) for i in range(len(out))]


def flip(r: Recorder, out: Tensor, x: Tensor, dims: Ints) -> Ref:
    """As in ONNX, a slice that runs backwards."""
    axes = tuple(sorted(axis_of(x, d) for d in ((dims,) if isinstance(dims, int) else dims)))
    n = len(axes)
    return r.node("Slice", [x], out.shape, axes=axes, ends=tuple(-x.shape[a] - 1 for a in axes), starts=(-1,) * n,
                  steps=(-1,) * n)


def concat(r: Recorder, out: Tensor, tensors: Sequence[Tensor], dim: int = 0) -> Ref:
    parts = [t for t in tensors if t.numel()]
    return r.ref(parts[0]) if len(parts) == 1 else r.node("Concat", parts, out.shape, axis=dim % out.ndim)


def stack(r: Recorder, out: Tensor, tensors: Sequence[Tensor], dim: int = 0) -> Ref:
    axis = dim % out.ndim
    parts = [Ref(r.ref(t).node, (*t.shape[:axis], 1, *t.shape[axis:])) for t in tensors]
    return parts[0] if len(parts) == 1 else r.node("Concat", parts, out.shape, axis=axis)


def pad(r: Recorder, out: Tensor, x: Tensor, pad: Sequence[int], mode: Any = "constant",
        value: float | None = None) -> Ref:
    """Torch lists pairs from the last axis backwards; ONNX all begins, then all ends."""
    if not any(pad):
        return r.ref(x)
    if not isinstance(mode, str):  # constant_pad_nd has its value in this place
        mode, value = "constant", mode
    begins, ends = [0] * x.ndim, [0] * x.ndim
    for i in range(len(pad) // 2):
        begins[-1 - i], ends[-1 - i] = pad[2 * i], pad[2 * i + 1]
    attrs: dict[str, Any] = {"pads": (*begins, *ends)}
    if mode != "constant":
        attrs["mode"] = {"replicate": "edge", "circular": "wrap"}.get(mode, mode)
    elif value:
        attrs["value"] = number(value)
    return r.node("Pad", [x], out.shape, **attrs)


def resize(mode: str) -> Callable[..., Ref]:
    """Interpolation to a size; to its own size it is nothing."""

    def handler(r: Recorder, out: Tensor, x: Tensor, output_size: Any = None, *rest: Any, **more: Any) -> Ref:
        if out.shape == x.shape:
            return r.ref(x)
        aligned = mode != "nearest" and bool(rest) and rest[0] is True
        attrs = {"coordinate_transformation_mode": "align_corners"} if aligned else {}
        return r.node("Resize", [x], out.shape, attrs=attrs, mode=mode)

    return handler


def shuffle(op: str) -> Callable[..., Ref]:
    """pixel_shuffle and its inverse (ONNX mode CRD, the channel order of torch)."""

    def handler(r: Recorder, out: Tensor, x: Tensor, factor: int) -> Ref:
        return r.node(op, [x], out.shape, blocksize=factor, attrs=({"mode": "CRD"} if op == "DepthToSpace" else {}))

    return handler


def expand(r: Recorder, out: Tensor, x: Tensor, *rest: Any, **more: Any) -> Ref:
    return r.ref(x) if out.numel() == x.numel() else r.node("Expand", [x], out.shape)


def broadcast(r: Recorder, out: Tensor, x: Tensor, shape: Sequence[int], axes: Sequence[int]) -> Ref:
    """``axes[i]`` is where axis ``i`` goes."""
    if out.numel() == x.numel():
        return r.ref(x)
    placed = [1] * out.ndim
    for size, axis in zip(x.shape, axes, strict=True):
        placed[axis] = size
    return r.node("Expand", [Ref(r.ref(x).node, tuple(placed))], out.shape)


def tile(r: Recorder, out: Tensor, x: Tensor, repeats: Any, *rest: Any, **more: Any) -> Ref:
    if out.numel() == x.numel():
        return r.ref(x)
    counts = (repeats,) if isinstance(repeats, int) else tuple(repeats) if isinstance(repeats, list | tuple) else ()
    return r.node("Tile", [x], out.shape, repeats=counts)


def roll(r: Recorder, out: Tensor, x: Tensor, shifts: Ints, dims: Ints = ()) -> Ref:
    moves = (shifts,) if isinstance(shifts, int) else tuple(shifts)
    axes = (dims,) if isinstance(dims, int) else tuple(dims)
    return r.node("Roll", [x], out.shape, axes=tuple(axis_of(x, a) for a in axes), shifts=moves) if any(moves) else r.ref(x)


def trilu(upper: bool) -> Callable[..., Ref]:
    def handler(r: Recorder, out: Tensor, x: Tensor, diagonal: int = 0) -> Ref:
        return r.node("Trilu", [x], out.shape, k=diagonal, upper=upper)

    return handler


def index(r: Recorder, out: Tensor, x: Tensor, indices: Sequence[Tensor | None]) -> Ref:
    """``x[…]`` with index tensors. A constant index is part of the operator, one that depends on the input an argument."""
    axes = tuple(i for i, t in enumerate(indices) if t is not None)
    places = _places(r, indices)
    if len(axes) == 1:
        return r.node("Gather", [x, *places], out.shape, axis=axes[0])
    return r.node("GatherND", [x, *places], out.shape, axes=axes)


def _places(r: Recorder, indices: Sequence[Tensor | None]) -> list[Ref]:
    """The index tensors that depend on the input as one argument, joined along a new last axis if there are several."""
    given = [t for t in indices if t is not None]
    live = [t for t in given if r.is_live(t)]
    nodes = {r.ref(t).node for t in live}
    if len(live) < 2:
        return [r.ref(t) for t in live]
    if len(nodes) == 1:
        node = nodes.pop()
        if r.builder.shape(node) == (len(live), live[0].numel()):  # the rows of NonZero
            return [Ref(node, r.builder.shape(node))]
    shape = tuple(torch.broadcast_shapes(*(t.shape for t in given)))
    wide = [r.ref(t) if tuple(t.shape) == shape else r.node("Expand", [t], shape) for t in live]
    columns = [Ref(w.node, (*shape, 1)) for w in wide]
    return [r.node("Concat", columns, (*shape, len(columns)), axis=len(shape))]


def index_put(r: Recorder, out: Tensor, x: Tensor, indices: Sequence[Tensor | None], values: Tensor,
              accumulate: bool = False) -> Ref:
    """``x[…] = values``: one value where a mask is true is ``Where``, all else ``ScatterND``."""
    given = [t for t in indices if t is not None]
    if len(given) == 1 and given[0].dtype in MASKS and values.numel() == 1 and not accumulate:
        mask = given[0]
        before = next(i for i, t in enumerate(indices) if t is not None)
        condition = Ref(r.ref(mask).node, (*mask.shape, *(1,) * (x.ndim - before - mask.ndim)))
        value = plain(r, values.reshape(()) if not values.is_meta else values)
        if isinstance(value, Tensor):
            return r.node("Where", [condition, Ref(r.ref(values).node, ()), x], out.shape)
        return r.node("Where", [condition, x], out.shape, then=number(value))
    places = _places(r, without_masks(r, indices))
    attrs = {"reduction": "add"} if accumulate else {}
    return r.node("ScatterND", [x, *places, *([values] if r.is_live(values) else [])], out.shape, attrs=attrs)


def gather(op: str) -> Callable[..., Ref]:
    def handler(r: Recorder, out: Tensor, x: Tensor, dim: int, index: Tensor, *rest: Any, **more: Any) -> Ref:
        return r.node(op, [x, index] if r.is_live(index) else [x], out.shape, axis=axis_of(x, dim))

    return handler


def where(r: Recorder, out: Tensor, condition: Tensor, x: Any = None, y: Any = None) -> Ref:
    """Numbers are attributes ``then`` and ``otherwise``."""
    x, y = plain(r, x), plain(r, y)
    numbers = {k: number(v) for k, v in (("then", x), ("otherwise", y)) if not isinstance(v, Tensor)}
    return r.node("Where", [condition, *(v for v in (x, y) if isinstance(v, Tensor))], out.shape, attrs=numbers)


def diagonal(r: Recorder, out: Tensor, x: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Ref:
    """Constant positions on two axes."""
    return r.node("GatherND", [x], out.shape, axes=tuple(sorted((dim1 % x.ndim, dim2 % x.ndim))))


def take(r: Recorder, out: Tensor, x: Tensor, index: Tensor) -> Ref:
    """From the flat tensor."""
    flat = Ref(r.ref(x).node, (x.numel(),))
    return r.node("Gather", [flat, index] if r.is_live(index) else [flat], out.shape, axis=0)


def masked_fill(r: Recorder, out: Tensor, x: Tensor, mask: Tensor, value: Any) -> Ref:
    value = plain(r, value)
    if isinstance(value, Tensor):
        return r.node("Where", [mask, value, x], out.shape)
    return r.node("Where", [mask, x], out.shape, then=number(value))


def scatter(op: str) -> Callable[..., Ref]:
    """scatter, index_put, index_add, …: the target and every tensor of the call that depends on the input."""

    def handler(r: Recorder, out: Tensor, x: Tensor, *rest: Any, **more: Any) -> Ref:
        flat = [t for v in rest for t in (v if isinstance(v, list | tuple) else [v]) if isinstance(t, Tensor)]
        return r.node(op, [x, *[t for t in flat if r.is_live(t)][-2:]], out.shape)

    return handler


def one_hot(r: Recorder, out: Tensor, x: Tensor, num_classes: int = -1) -> Ref:
    return r.node("OneHot", [x], out.shape, depth=out.shape[-1])


def grid_sample(r: Recorder, out: Tensor, x: Tensor, grid: Tensor, mode: int = 0, padding: int = 0,
                align_corners: bool = False) -> Ref:
    attrs: dict[str, Any] = {"mode": ("linear", "nearest", "cubic")[mode]} if mode else {}
    return r.node("GridSample", [x, grid], out.shape, **attrs)
