"""Which sizes of a network depend on which widths, operator by operator, and every node rewritten for other widths.

A width is born in a Conv, ConvTranspose, Gemm or Constant. It is followed through normalisations, activations, pools, sums,
products, joins, slices and matrix products. Operators without a rule fix all widths that they see, and so do the classifier
(whatever leaves the network), inputs, and layers that share trained values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from math import prod

from cg.spec import NodeSpec
from cg.vocabulary import CATEGORIES
from evo_search.cgspace.net import Net, Refused
from evo_search.cgspace.ties import Dim, Ties, combine, is_free
from evo_search.cgspace.views import seen_as

Dims = tuple[Dim, ...]
_ACT, _SOFTMAX = CATEGORIES.index("act"), CATEGORIES.index("softmax")
_BY_CHANNEL = frozenset({"BatchNormalization", "GroupNormalization", "InstanceNormalization", "LRN"})
_BY_ROW = frozenset({"LayerNormalization", "RMSNormalization", "LpNormalization"})
_ELEMENTWISE = frozenset({"Add", "Sub", "Sum", "Mul", "Div", "Pow", "Max", "Min", "Mean", "Mod", "Where", "Equal", "Greater",
                          "Less", "And", "Or", "Not", "Sqrt", "Exp", "Log", "Abs", "Neg", "Reciprocal", "Floor", "Ceil",
                          "Round", "Sign", "Sin", "Cos"})
_KEEPS_AXES = frozenset({"MaxPool", "AveragePool", "LpPool", "Resize", "Pad", "Roll"})


class Widths:
    """The sizes of ``net`` as forms of free widths.

    Attributes:
        ties: the widths.
        ins, outs: dimensions of every node's arguments, as it sees them, and of its output.
        groups: ``(label, dimension, n)``: the dimension must be a multiple of n.
    """

    def __init__(self, net: Net) -> None:
        self.net, self.ties = net, Ties()
        self.ins: dict[str, tuple[Dims, ...]] = {}
        self.outs: dict[str, Dims] = {}
        self.groups: list[tuple[str, Dim, int]] = []
        for label in net.order:
            spec = net.specs[label]
            seen = []
            for source, shape in zip(net.inputs[label], spec.in_shapes, strict=True):
                seen.append(seen_as(self.ties, self.outs[source], net.specs[source].out_shape, shape))
            self.ins[label] = tuple(seen)
            self.outs[label] = self._out(label, spec, seen)
        for label in net.outputs:
            self.ties.fix(*self.outs[label])

    # -- rules -----------------------------------------------------------------------------------------------------

    def _out(self, label: str, spec: NodeSpec, seen: list[Dims]) -> Dims:
        ties, out, op = self.ties, spec.out_shape, spec.op
        if op == "Constant" and not spec.attrs and spec.extra_params in (0, prod(out)):
            return tuple(ties.fresh(d) for d in out)
        if spec.extra_params == 0 and len(seen) == 1:
            x, shape = seen[0], spec.in_shapes[0]
            if op in ("Conv", "ConvTranspose") and len(shape) == len(spec.weight_shape):
                return (out[0], self._channels(label, spec, x[1]), *self._kept(x[2:], shape[2:], out[2:]))
            if op == "Gemm":
                return (*self._kept(x[:-1], shape[:-1], out[:-1]), ties.fresh(out[-1]))
            if out == shape and (spec.category in (_ACT, _SOFTMAX) or op in _BY_CHANNEL or op in _BY_ROW):
                if op == "GroupNormalization":
                    self.groups.append((label, x[1], int(spec.attr("num_groups", 1))))
                return x
            if op.startswith("Global"):
                return tuple(d if s == t else t for d, s, t in zip(x, shape, out, strict=True))
            if op in _KEEPS_AXES and len(out) == len(shape):
                return self._kept(x, shape, out)
            if op.startswith("Reduce") and "axes" in dict(spec.attrs):
                axes = {a % len(shape) for a in spec.attr("axes")}
                if len(out) == len(shape):
                    return tuple(1 if i in axes else d for i, d in enumerate(x))
                if len(out) == len(shape) - len(axes):
                    return tuple(d for i, d in enumerate(x) if i not in axes)
            if op == "Slice":
                return self._slice(spec, x)
        if op in _ELEMENTWISE and spec.params == 0:
            return self._together(spec, seen)
        if op == "Concat":
            return self._concat(spec, seen)
        if op == "MatMul" and len(seen) == 2 and spec.params == 0 and min(map(len, spec.in_shapes)) > 1:
            return self._matmul(spec, seen)
        for dims in seen:
            ties.fix(*dims)
        return out

    def _channels(self, label: str, spec: NodeSpec, before: Dim) -> Dim:
        """Output channels of a convolution."""
        group, out = int(spec.attr("group", 1)), spec.out_shape[1]
        if group == 1:
            return self.ties.fresh(out)
        if is_depthwise(spec):
            return combine([(before, out // group)])
        made = self.ties.fresh(out)
        self.groups += [(label, before, group), (label, made, group)]
        return made

    def _kept(self, dims: Dims, shape: tuple[int, ...], out: tuple[int, ...]) -> Dims:
        """Axes that keep their size keep their width; the others are fixed."""
        self.ties.fix(*(d for d, s, t in zip(dims, shape, out, strict=True) if s != t))
        return tuple(d if s == t else t for d, s, t in zip(dims, shape, out, strict=True))

    def _together(self, spec: NodeSpec, seen: list[Dims]) -> Dims:
        """Element-wise operators: axes are aligned at the end, axes of one value are repeated."""
        made: list[Dim] = []
        for axis, size in enumerate(spec.out_shape):
            there = [dims[axis - len(spec.out_shape)] for dims, shape in zip(seen, spec.in_shapes, strict=True)
                     if len(shape) >= len(spec.out_shape) - axis and shape[axis - len(spec.out_shape)] == size]
            for other in there[1:]:
                self.ties.tie(there[0], other)
            made.append(there[0] if there else size)
        return tuple(made)

    def _concat(self, spec: NodeSpec, seen: list[Dims]) -> Dims:
        at = int(spec.attr("axis", 1)) % len(spec.out_shape)
        made: list[Dim] = list(seen[0])
        for dims in seen[1:]:
            for axis, dim in enumerate(dims):
                if axis != at:
                    self.ties.tie(made[axis], dim)
        made[at] = combine([(self.ties.resolve(dims[at]), 1) for dims in seen])
        return tuple(made)

    def _slice(self, spec: NodeSpec, x: Dims) -> Dims:
        """A part of a free width grows with it: halves stay halves."""
        made: list[Dim] = list(x)
        for axis, begin, end in zip(*(spec.attr(name, ()) for name in ("axes", "starts", "ends")), strict=True):
            dim, size = self.ties.resolve(x[axis]), spec.in_shapes[0][axis]
            if end - begin != spec.out_shape[axis] or begin < 0:  # by steps, or from the end
                self.ties.fix(dim)
                made[axis] = spec.out_shape[axis]
            else:
                made[axis] = end - begin if isinstance(dim, int) else combine([(dim, Fraction(end - begin, size))])
        return tuple(made)

    def _matmul(self, spec: NodeSpec, seen: list[Dims]) -> Dims:
        a, b = seen
        self.ties.tie(a[-1], b[-2])
        rank = len(spec.out_shape)
        made: list[Dim] = []
        for axis in range(rank - 2):
            there = [dims[axis - rank] for dims, shape in zip(seen, spec.in_shapes, strict=True)
                     if len(shape) >= rank - axis and shape[axis - rank] == spec.out_shape[axis]]
            if len(there) == 2:
                self.ties.tie(*there)
            made.append(there[0] if there else spec.out_shape[axis])
        return (*made, a[-2], b[-1])

    # -- other widths ----------------------------------------------------------------------------------------------

    def width_of(self, label: str) -> tuple[int, Fraction | int] | None:
        """``(variable, c)``: the layer ``label`` has c times the variable as output channels; ``None`` if they are fixed."""
        spec, out = self.net.specs[label], self.outs[label]
        if spec.op in ("Conv", "ConvTranspose") and len(out) > 1:
            return self.ties.variable(out[1])
        return self.ties.variable(out[-1]) if spec.op == "Gemm" else None

    def step(self, variable: int) -> int:
        """What a new size of ``variable`` should be a multiple of: 8 or what of it divides the present size, and groups."""
        size = self.ties.sizes[variable]
        return max((n for n in (8, 4, 2, 1) if size % n == 0), default=1)

    def resized(self, new: Mapping[int, int]) -> Net:
        """The network with other sizes of some variables. Raises ``Refused`` naming the node that cannot have its size."""
        for label, dim, n in self.groups:
            if int(self._size(label, dim, new)) % n:
                raise Refused(f"node {label} ({self.net.specs[label].op}) needs a multiple of {n} channels")
        changed = {}
        for label in self.net.order:
            spec = self.net.specs[label]
            if not (is_free(self.outs[label]) or any(map(is_free, self.ins[label]))):
                continue
            ins = tuple(tuple(self._size(label, d, new) for d in dims) for dims in self.ins[label])
            out = tuple(self._size(label, d, new) for d in self.outs[label])
            if (ins, out) != (spec.in_shapes, spec.out_shape):
                changed[label] = rewritten(spec, ins, out)
        if not changed:
            raise Refused("the width is what it was")
        return self.net.edit(changed)

    def _size(self, label: str, dim: Dim, new: Mapping[int, int]) -> int:
        size = self.ties.value(dim, new)
        if size != int(size) or size < 1:
            raise Refused(f"node {label} ({self.net.specs[label].op}) would have a dimension of {float(size):g}")
        return int(size)


def is_depthwise(spec: NodeSpec) -> bool:
    """Whether each channel is convolved alone."""
    group = int(spec.attr("group", 1))
    return spec.op == "Conv" and group > 1 and group == spec.in_shapes[0][1]


def rewritten(spec: NodeSpec, ins: tuple[tuple[int, ...], ...], out: tuple[int, ...]) -> NodeSpec:
    """``spec`` between tensors of other shapes: its weight, groups and limits follow."""
    op, old, weight, attrs, extra = spec.op, spec.weight_shape, spec.weight_shape, spec.attrs, spec.extra_params
    if op == "Constant":
        extra = prod(out) if extra else 0
    elif op in ("Conv", "ConvTranspose"):
        if is_depthwise(spec):
            attrs = tuple((k, ins[0][1] if k == "group" else v) for k, v in attrs)
            weight = (out[1], 1, *old[2:])
        else:
            group = int(spec.attr("group", 1))
            weight = (out[1], ins[0][1] // group, *old[2:]) if op == "Conv" else (ins[0][1], out[1] // group, *old[2:])
    elif op == "Gemm":
        weight = (out[-1], ins[0][-1])
    elif op in _BY_CHANNEL and old:
        weight = (ins[0][1],)
    elif op in _BY_ROW and old:
        weight = ins[0][-len(old):]
    elif op == "PRelu" and prod(old) > 1:
        weight = (ins[0][1],)
    elif op == "Slice":
        attrs = _limits(spec, ins[0])
    return replace(spec, in_shapes=ins, out_shape=out, weight_shape=weight, attrs=attrs, extra_params=extra)


def _limits(spec: NodeSpec, shape: tuple[int, ...]) -> tuple[tuple[str, object], ...]:
    """Attributes of a Slice of a tensor that now has ``shape``."""
    found = dict(spec.attrs)
    for name in ("starts", "ends"):
        moved = [Fraction(v * shape[a], spec.in_shapes[0][a]) for v, a in zip(found[name], found["axes"], strict=True)]
        if any(v.denominator != 1 for v in moved):
            raise Refused(f"a Slice from {found['starts']} to {found['ends']} has no whole limits in a tensor of shape {shape}")
        found[name] = tuple(map(int, moved))
    return tuple(sorted(found.items()))
