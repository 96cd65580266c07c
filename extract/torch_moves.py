"""Handlers of operators that move values: slices, joins, padding, gathering, resizing, and writes into a tensor.

What keeps every value exactly once (reshape, permute, contiguous, …) is no operator here: see ``IGNORED`` in ``torch_ops``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from extract.torch_layers import Ints
from extract.torch_math import number
from extract.torch_recorder import Recorder, Ref


def slice_(r: Recorder, out: Tensor, x: Tensor, dim: int = 0, start: int | None = None, end: int | None = None,
           step: int = 1) -> Ref:
    size = x.shape[dim]
    begin, stop, _ = slice(start, end, step).indices(size)
    return r.cut(x, dim % x.ndim, begin, max(begin, stop), step)


def select(r: Recorder, out: Tensor, x: Tensor, dim: int, index: int) -> Ref:
    """A slice of length one."""
    begin = index % x.shape[dim]
    return r.cut(x, dim % x.ndim, begin, begin + 1)


def split(r: Recorder, out: Sequence[Tensor], x: Tensor, sections: Any = None, dim: int = 0) -> list[Ref]:
    """chunk, split, split_with_sizes, tensor_split: a slice for each part. The parts tell the sizes."""
    axis, begin, refs = dim % x.ndim, 0, []
    for part in out:
        refs.append(r.cut(x, axis, begin, begin + part.shape[axis]))
        begin += part.shape[axis]
    return refs


def unbind(r: Recorder, out: Sequence[Tensor], x: Tensor, dim: int = 0) -> list[Ref]:
    return [r.cut(x, dim % x.ndim, i, i + 1) for i in range(len(out))]


def flip(r: Recorder, out: Tensor, x: Tensor, dims: Ints) -> Ref:
    """As in ONNX, a slice that runs backwards."""
    axes = tuple(sorted(d % x.ndim for d in ((dims,) if isinstance(dims, int) else dims)))
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


def tile(r: Recorder, out: Tensor, x: Tensor, repeats: Any, *rest: Any, **more: Any) -> Ref:
    if out.numel() == x.numel():
        return r.ref(x)
    counts = (repeats,) if isinstance(repeats, int) else tuple(repeats) if isinstance(repeats, list | tuple) else ()
    return r.node("Tile", [x], out.shape, repeats=counts)


def roll(r: Recorder, out: Tensor, x: Tensor, shifts: Ints, dims: Ints = ()) -> Ref:
    moves = (shifts,) if isinstance(shifts, int) else tuple(shifts)
    axes = (dims,) if isinstance(dims, int) else tuple(dims)
    return r.node("Roll", [x], out.shape, axes=tuple(a % x.ndim for a in axes), shifts=moves) if any(moves) else r.ref(x)


def trilu(upper: bool) -> Callable[..., Ref]:
    def handler(r: Recorder, out: Tensor, x: Tensor, diagonal: int = 0) -> Ref:
        return r.node("Trilu", [x], out.shape, k=diagonal, upper=upper)

    return handler


def index(r: Recorder, out: Tensor, x: Tensor, indices: Sequence[Tensor | None]) -> Ref:
    """``x[…]`` with index tensors. A constant index is part of the operator, one that depends on the input an argument."""
    axes = tuple(i for i, t in enumerate(indices) if t is not None)
    live = [t for t in indices if t is not None and r.is_live(t)]
    if len(axes) == 1:
        return r.node("Gather", [x, *live], out.shape, axis=axes[0])
    if len(live) > 1:
        r.note(f"an index over axes {axes} has {len(live)} index tensors that depend on the input; the first is kept")
    return r.node("GatherND", [x, *live[:1]], out.shape, axes=axes)


def gather(op: str) -> Callable[..., Ref]:
    def handler(r: Recorder, out: Tensor, x: Tensor, dim: int, index: Tensor, *rest: Any, **more: Any) -> Ref:
        return r.node(op, [x, index] if r.is_live(index) else [x], out.shape, axis=dim % x.ndim)

    return handler


def where(r: Recorder, out: Tensor, condition: Tensor, x: Any = None, y: Any = None) -> Ref:
    """Numbers are attributes ``then`` and ``otherwise``."""
    numbers = {k: number(v) for k, v in (("then", x), ("otherwise", y)) if not isinstance(v, Tensor)}
    return r.node("Where", [condition, *(v for v in (x, y) if isinstance(v, Tensor))], out.shape, attrs=numbers)


def masked_fill(r: Recorder, out: Tensor, x: Tensor, mask: Tensor, value: Any) -> Ref:
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
