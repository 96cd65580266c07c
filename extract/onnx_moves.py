"""ONNX operators that move values or make constants, as torch calls: shapes, slices, joins, gathering, scattering.

See ``onnx_layers`` for what a handler is. Whoever makes a tensor of a size that the file decides asks ``call.shape`` (is the
size possible?) and ``call.device`` (is it small enough to have values?) first.
"""

from __future__ import annotations

from math import floor, prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from extract.onnx_file import tensor_of
from extract.onnx_node import Call, meta, unseen
from extract.torch_primitive import primitive

_END = 2**62


def constant(call: Call) -> Tensor:
    """Its value is a tensor, a number, or a list of numbers."""
    value = call.get("value")
    if value is not None:
        return tensor_of(value, call.where)
    for name, dtype in (("value_float", torch.float32), ("value_floats", torch.float32), ("value_int", torch.int64),
                        ("value_ints", torch.int64)):
        value = call.get(name)
        if value is not None:
            return torch.tensor(value, dtype=dtype)
    raise call.fail("it has no attribute value with numbers (text and sparse constants are not known)")


def constant_of_shape(call: Call, shape: Tensor) -> Tensor:
    sizes = call.shape(call.list_of(shape, "input"))
    t = call.get("value")
    value = torch.zeros(1) if t is None else tensor_of(t, call.where).reshape(-1)[:1]
    device = call.device(sizes)
    return torch.full(sizes, value.item() if not value.is_meta else 0, dtype=value.dtype, device=device)


def shape_of(call: Call, x: Tensor) -> Tensor:
    return torch.tensor(list(x.shape)[slice(call.integer("start", 0), call.get("end"))], dtype=torch.int64)


def size_of(call: Call, x: Tensor) -> Tensor:
    return torch.tensor(x.numel(), dtype=torch.int64)


def arange(call: Call, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    first, last, step = (call.number(v, n) for v, n in ((start, "start"), (limit, "limit"), (delta, "delta")))
    if step == 0:
        raise call.fail("delta is 0")
    count = max(0, -floor(-((last - first) / step)))
    return torch.arange(first, last, step, dtype=start.dtype, device=call.device([count]))


def eye_like(call: Call, x: Tensor) -> Tensor:
    dtype = call.dtype(call.integer("dtype")) if "dtype" in call.attributes else x.dtype
    return torch.zeros(x.shape, dtype=dtype, device="meta")


def random(call: Call, x: Tensor | None = None) -> Tensor:
    """A constant of no known value."""
    return torch.empty(call.shape(call.ints("shape") if x is None else x.shape), device="meta")


def cast(call: Call, x: Tensor) -> Tensor:
    return x.to(call.dtype(call.integer("to")))


def cast_like(call: Call, x: Tensor, other: Tensor) -> Tensor:
    return x.to(other.dtype)


# ---- views ------------------------------------------------------------------------------------------------------


def reshape(call: Call, x: Tensor, shape: Tensor | None = None) -> Tensor:
    sizes = call.attribute_or_input("shape", shape, [])
    assert sizes is not None
    if not call.integer("allowzero", 0):
        if any(s == 0 and i >= x.ndim for i, s in enumerate(sizes)):
            raise call.fail(f"shape {sizes} keeps an axis that its input {list(x.shape)} does not have")
        sizes = [x.shape[i] if s == 0 else s for i, s in enumerate(sizes)]
    return x.reshape(sizes)


def flatten(call: Call, x: Tensor) -> Tensor:
    axis = call.integer("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(prod(x.shape[:axis]), prod(x.shape[axis:]))


def squeeze(call: Call, x: Tensor, axes: Tensor | None = None) -> Tensor:
    given = call.attribute_or_input("axes", axes)
    if given is None:
        return x.reshape([d for d in x.shape if d != 1])
    chosen = {call.axis(a, x.ndim) for a in given}
    if any(x.shape[a] != 1 for a in chosen):
        raise call.fail(f"axes {sorted(chosen)} of {list(x.shape)} do not all have size 1")
    return x.reshape([d for i, d in enumerate(x.shape) if i not in chosen])


def unsqueeze(call: Call, x: Tensor, axes: Tensor | None = None) -> Tensor:
    given = call.attribute_or_input("axes", axes, [])
    assert given is not None
    for axis in sorted(call.axis(a, x.ndim + len(given)) for a in given):
        x = x.unsqueeze(axis)
    return x


def transpose(call: Call, x: Tensor) -> Tensor:
    return x.permute(call.ints("perm", list(reversed(range(x.ndim)))))


def expand(call: Call, x: Tensor, shape: Tensor) -> Tensor:
    return x.expand(call.shape(torch.broadcast_shapes(x.shape, tuple(call.list_of(shape, "shape")))))


def tile(call: Call, x: Tensor, repeats: Tensor, axis: Tensor | None = None) -> Tensor:
    """Version 1 has one axis and one number of copies."""
    counts = call.list_of(repeats, "repeats")
    if axis is not None:
        along = int(call.number(axis, "axis"))
        counts = [counts[0] if i == along else 1 for i in range(x.ndim)]
    if len(counts) != x.ndim:
        raise call.fail(f"repeats {counts} does not fit an input of {x.ndim} axes")
    if call.device([s * c for s, c in zip(x.shape, counts, strict=True)]) == "meta":
        x = meta(x)
    return x.repeat(counts)


# ---- parts ------------------------------------------------------------------------------------------------------


def slice_(call: Call, x: Tensor, starts: Tensor | None = None, ends: Tensor | None = None, axes: Tensor | None = None,
           steps: Tensor | None = None) -> Tensor:
    """Attributes before version 10. A negative step reverses the axis first."""
    begin = call.attribute_or_input("starts", starts, [])
    stop = call.attribute_or_input("ends", ends, [])
    assert begin is not None
    assert stop is not None
    along = call.attribute_or_input("axes", axes, list(range(len(begin)))) or []
    step = [1] * len(begin) if steps is None else call.list_of(steps, "steps")
    if not len(begin) == len(stop) == len(along) == len(step):
        raise call.fail("starts, ends, axes and steps differ in length")
    for b, e, a, s in zip(begin, stop, along, step, strict=True):
        axis = call.axis(a, x.ndim)
        size = x.shape[axis]
        if s == 0:
            raise call.fail("a step is 0")
        if s < 0:
            b, e, _ = slice(b, None if e < -_END else e, s).indices(size)
            x, b, e, s = x.flip(axis), size - 1 - b, size - 1 - e, -s
        b, e, s = slice(b, e, s).indices(size)
        if (b, s) != (0, 1) or e < size:
            x = x[(*[slice(None)] * axis, slice(b, max(b, e), s))]
    return x


def split(call: Call, x: Tensor, sizes_input: Tensor | None = None) -> tuple[Tensor, ...]:
    """Sizes are an attribute before version 13; without any the parts are equal, and the last may be smaller."""
    axis = call.axis(call.integer("axis", 0), x.ndim)
    sizes = call.attribute_or_input("split", sizes_input)
    if sizes is None:
        parts = call.integer("num_outputs", call.n_outputs)
        each = -(-x.shape[axis] // max(parts, 1))
        sizes = [min(each, x.shape[axis] - i * each) for i in range(parts)]
    if len(sizes) != call.n_outputs or min(sizes, default=0) < 0 or sum(sizes) != x.shape[axis]:
        raise call.fail(f"parts {sizes[:12]} do not make up axis {axis} of {list(x.shape)} and {call.n_outputs} outputs")
    return tuple(x.split(sizes, axis))


def concat(call: Call, *values: Tensor) -> Tensor:
    if not values:
        raise call.fail("it has no input")
    return values[0] if len(values) == 1 else torch.cat(values, call.axis(call.integer("axis", 1), values[0].ndim))


def gather(call: Call, x: Tensor, index: Tensor) -> Tensor:
    """One known number selects; a table of trained rows and an index that depends on the input is an embedding."""
    axis = call.axis(call.integer("axis", 0), x.ndim)
    size = x.shape[axis]
    if index.is_floating_point():
        raise call.fail("indices are not integers")
    if not index.is_meta:
        with unseen():
            if index.numel() and (int(index.min()) < -size or int(index.max()) >= size):
                raise call.fail(f"index {index.reshape(-1)[:4].tolist()} is outside axis {axis} of {list(x.shape)}")
            index = torch.where(index < 0, index + size, index)
            flat = index.reshape(-1)
            first, in_order = int(flat[0]) if flat.numel() else 0, flat.numel() > 0 and bool((flat.diff() == 1).all())
        if index.ndim == 0:
            return x.select(axis, first)
        if in_order:  # a slice in the disguise of an index, or all there is
            part = x.narrow(axis, first, index.numel())
            return part if index.ndim == 1 else part.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1:])
    elif axis == 0 and x.ndim == 2 and isinstance(x, torch.nn.Parameter):
        return F.embedding(index.to(torch.int64), x)
    if x.is_meta:
        index = meta(index)
    places: Any = (*[slice(None)] * axis, index.to(torch.int64))
    return x[places]


def gather_elements(call: Call, x: Tensor, index: Tensor) -> Tensor:
    return torch.gather(x, call.axis(call.integer("axis", 0), x.ndim), index.to(torch.int64))


def gather_nd(call: Call, x: Tensor, index: Tensor) -> Tensor:
    batch, depth = call.integer("batch_dims", 0), index.shape[-1]
    if batch + depth > x.ndim:
        raise call.fail(f"indices of {depth} numbers are too many for {list(x.shape)}")
    if not batch and not index.is_meta:
        where = tuple(index[..., i].to(torch.int64) for i in range(depth))
        chosen: Any = tuple(meta(w) for w in where) if x.is_meta else where
        return x[chosen]
    shape = (*index.shape[:-1], *x.shape[batch + depth:])
    return primitive("GatherND", [x, index], shape, dtype=x.dtype, axes=list(range(batch, batch + depth)))


def scatter_elements(call: Call, x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
    axis = call.axis(call.integer("axis", 0), x.ndim)
    kind = call.text("reduction", "none")
    index = index.to(torch.int64)
    if kind == "add":
        return x.scatter_add(axis, index, updates)
    return x.scatter(axis, index, updates)


def scatter_nd(call: Call, x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
    """As ``x[…] = updates``."""
    depth = index.shape[-1]
    if depth > x.ndim:
        raise call.fail(f"indices of {depth} numbers are too many for {list(x.shape)}")
    places = tuple(index[..., i].to(torch.int64) for i in range(depth))
    if x.is_meta or updates.is_meta or index.is_meta:
        places = tuple(meta(p) for p in places)
    return torch.index_put(x, places, updates, call.text("reduction", "none") == "add")


def tensor_scatter(call: Call, x: Tensor, updates: Tensor, places: Tensor | None = None) -> Tensor:
    """New entries written into a cache."""
    return primitive("ScatterND", [x, updates], x.shape, dtype=x.dtype)


def trilu(call: Call, x: Tensor, k: Tensor | None = None) -> Tensor:
    run = torch.triu if call.integer("upper", 1) else torch.tril
    return run(x, 0 if k is None else int(call.number(k, "k")))


def one_hot(call: Call, index: Tensor, depth: Tensor, values: Tensor) -> Tensor:
    n = int(call.number(depth, "depth"))
    axis = call.integer("axis", -1) % (index.ndim + 1)
    shape = call.shape([*index.shape[:axis], n, *index.shape[axis:]])
    if not index.is_meta and call.device(shape) == "cpu" and not values.is_meta:
        hot = (index.remainder(n).unsqueeze(axis) == torch.arange(n).reshape(n, *[1] * (index.ndim - axis)))
        return torch.where(hot, values[1], values[0])
    return primitive("OneHot", [meta(index)], shape, dtype=values.dtype, depth=n)


def reverse_sequence(call: Call, x: Tensor, lengths: Tensor) -> Tensor:
    return x.flip(call.integer("time_axis", 0))
