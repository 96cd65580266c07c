"""Bring normalisations that are written out in means, squares and roots to their one node.

The form of that node is the one that a layer of a framework gives: no epsilon, ``axis = -k`` for the last k axes, the scale
as ``weight_shape``. A norm over the channels of (N, C, …) is one over the last axis of the permuted value: permutations are
contracted, and a reader says how it sees its argument.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Final, NamedTuple

from cg.graph import Graph
from cg.spec import NodeSpec, Shape
from cg.transforms._pattern import Pattern, Presence

NORMS: Final = frozenset({"LayerNormalization", "RMSNormalization", "InstanceNormalization", "GroupNormalization"})
_CANDIDATES: Final = Presence(lambda s: s.op == "Sqrt" or (s.op in NORMS and not (s.weight_shape and s.bias)))
_GREATEST_EPSILON: Final = 0.02


def fuse_norms(graph: Graph) -> Graph:
    """Contract: (x - mean) / sqrt(var + eps) becomes ``LayerNormalization`` or, over all pixels, ``InstanceNormalization``;
    x / sqrt(mean(x^2) + eps) becomes ``RMSNormalization``; instance normalisation of a value seen as (N, groups, rest)
    whose result is seen as (N, C, …) becomes ``GroupNormalization``. A trained ``Constant`` of the right size that
    scales or shifts the result of such a node without scale or offset becomes its ``weight_shape`` or ``bias``. Nothing
    else may read a value inside. Values (but for epsilon), outputs and ``params`` are unchanged.
    """
    if not _CANDIDATES(graph):
        return graph
    p = Pattern(graph)
    for node in range(graph.n_nodes):
        if node in p.dead:
            continue
        if p.op(node) in ("Div", "Mul") and len(p.inputs[node]) == 2:
            _written_out(p, node)
        if p.op(node) in NORMS and len(p.inputs[node]) == 1:
            _as_groups(p, node)
            _absorb(p, node)
    return p.close()


class _Spread(NamedTuple):
    """A root of a mean of squares."""

    source: int  # the x that is normalised
    centred: bool  # whether its mean is taken away
    shape: Shape  # how it sees x
    axes: tuple[int, ...]
    inside: set[int]


def _written_out(p: Pattern, node: int) -> None:
    spec, (top, bottom) = p.specs[node], p.inputs[node]
    if spec.params or spec.attrs:
        return
    pairs = [(top, bottom)]
    if spec.op == "Mul":
        pairs = [(a, p.inputs[b][0]) for a, b in ((top, bottom), (bottom, top)) if p.op(b) == "Reciprocal"]
    for value, root in pairs:
        spread = _spread(p, root)
        if spread is None or set(spec.in_shapes) != {spread.shape, _reduced(spread.shape, spread.axes)}:
            continue
        inside = set(spread.inside) | ({top, bottom} - {value} if spec.op == "Mul" else set())
        if spread.centred:
            centre = _centre(p, value)
            if centre is None or centre[0] != spread.source or centre[1] != spread.axes:
                continue
            inside |= {value, *centre[2]}
        elif value != spread.source:
            continue
        made = _norm_spec(spread)
        if made is not None and p.private(inside, node):
            p.replace(node, made, [spread.source], inside)
            return


def _spread(p: Pattern, root: int) -> _Spread | None:
    if p.op(root) != "Sqrt":
        return None
    shifted = p.inputs[root][0]
    epsilon = p.scalar(shifted, "Add")
    if epsilon is None or not 0 < epsilon <= _GREATEST_EPSILON:
        return None
    variance = p.inputs[shifted][0]
    inside = {root, shifted, variance}
    if p.op(variance) == "Sub":  # E[x^2] - E[x]^2
        return _difference_of_means(p, variance, inside)
    mean = _mean(p, variance)
    if mean is None:
        return None
    squares, axes = mean
    base = _squared(p, squares)
    if base is None:
        return None
    inside.add(squares)
    shape = p.specs[squares].out_shape
    centre = _centre(p, base)
    if centre is not None and centre[1] == axes and p.specs[base].out_shape == shape:
        return _Spread(centre[0], True, shape, axes, inside | {base, *centre[2]})
    return _Spread(base, False, shape, axes, inside)


def _difference_of_means(p: Pattern, variance: int, inside: set[int]) -> _Spread | None:
    if len(p.inputs[variance]) != 2:
        return None
    of_squares, square = p.inputs[variance]
    outer, centre = _mean(p, of_squares), _squared(p, square)
    if outer is None or centre is None:
        return None
    base, inner = _squared(p, outer[0]), _mean(p, centre)
    if base is None or inner is None or inner != (base, outer[1]):
        return None
    shape = p.specs[of_squares].in_shapes[0]
    return _Spread(base, True, shape, outer[1], inside | {of_squares, square, outer[0], centre})


def _mean(p: Pattern, node: int) -> tuple[int, tuple[int, ...]] | None:
    """Argument and axes of a mean."""
    spec = p.specs[node]
    if spec.op == "GlobalAveragePool":
        return p.inputs[node][0], tuple(range(2, len(spec.in_shapes[0])))
    if spec.op == "ReduceMean":
        axes = spec.attr("axes")
        return None if axes is None else (p.inputs[node][0], tuple(axes))
    return None


def _squared(p: Pattern, node: int) -> int | None:
    if p.scalar(node, "Pow") == 2:
        return p.inputs[node][0]
    if p.op(node) == "Mul" and len(p.inputs[node]) == 2 and len(set(p.inputs[node])) == 1:
        return p.inputs[node][0] if len(set(p.specs[node].in_shapes)) == 1 else None
    return None


def _centre(p: Pattern, node: int) -> tuple[int, tuple[int, ...], set[int]] | None:
    """``x - mean(x)``: x, the axes, and the nodes between."""
    spec = p.specs[node]
    if spec.op != "Sub" or len(p.inputs[node]) != 2:
        return None
    x, middle = p.inputs[node]
    mean = _mean(p, middle)
    if mean is None or mean[0] != x or spec.in_shapes != (spec.out_shape, _reduced(spec.out_shape, mean[1])):
        return None
    return x, mean[1], {middle}


def _reduced(shape: Shape, axes: tuple[int, ...]) -> Shape:
    return tuple(1 if i in axes else d for i, d in enumerate(shape))


def _norm_spec(spread: _Spread) -> NodeSpec | None:
    shape, axes, rank = spread.shape, spread.axes, len(spread.shape)
    op = "LayerNormalization" if spread.centred else "RMSNormalization"
    if rank >= 4 and axes == tuple(range(2, rank)):
        return NodeSpec("InstanceNormalization", (shape,), shape) if spread.centred else None
    if rank >= 2 and axes == tuple(range(rank - len(axes), rank)):
        return NodeSpec(op, (shape,), shape, attrs=(("axis", -len(axes)),))
    if axes == (1,):
        seen = (shape[0], *shape[2:], shape[1])
        return NodeSpec(op, (seen,), seen, attrs=(("axis", -1),))
    return None


# ---- groups, scale and offset ---------------------------------------------------------------------------------------


def _seen_as(p: Pattern, node: int) -> Shape | None:
    """The shape under which all readers see ``node``; ``None`` if they differ or there are none."""
    shapes = {p.specs[r].in_shapes[i] for r in p.readers[node] for i, s in enumerate(p.inputs[r]) if s == node}
    return shapes.pop() if len(shapes) == 1 else None


def _as_groups(p: Pattern, node: int) -> None:
    spec = p.specs[node]
    shape = spec.in_shapes[0]
    if spec.op != "InstanceNormalization" or spec.params or len(shape) != 3 or node in p.outputs:
        return
    seen, groups = _seen_as(p, node), shape[1]
    if seen is None or len(seen) < 3 or seen[0] != shape[0] or seen[1] <= groups or seen[1] % groups:
        return
    p.replace(node, NodeSpec("GroupNormalization", (seen,), seen, attrs=(("num_groups", groups),)), p.inputs[node])


def _absorb(p: Pattern, node: int) -> None:
    """Trained scale, then trained offset, of a norm that has none."""
    for op in ("Mul", "Add"):
        spec = p.specs[node]
        if spec.bias or (op == "Mul" and spec.weight_shape) or (op == "Add" and not spec.weight_shape):
            continue
        if op == "Add" and spec.op == "RMSNormalization":
            return
        reader = p.sole_reader(node)
        if reader < 0 or p.op(reader) != op or len(p.inputs[reader]) != 2 or p.specs[reader].attrs:
            return
        place = p.inputs[reader].index(node)
        constant = p.inputs[reader][1 - place]
        wanted = _scale_shape(spec, p.specs[reader].in_shapes[place], p.specs[reader].in_shapes[1 - place])
        if wanted is None or p.op(constant) != "Constant" or p.sole_reader(constant) != reader:
            return
        if p.specs[constant].extra_params != prod(wanted) or prod(p.specs[reader].out_shape) != prod(spec.out_shape):
            return
        if op == "Mul":
            made = replace(spec, weight_shape=wanted)
        else:
            made = replace(spec, bias=True)
            if made.params != spec.params + prod(wanted):  # a bias counts one for each row of the weight
                made = replace(made, extra_params=made.extra_params + spec.params + prod(wanted) - made.params)
        p.replace(reader, made, p.inputs[node], {node, constant})
        node = reader


def _scale_shape(spec: NodeSpec, seen: Shape, constant: Shape) -> Shape | None:
    """Shape of the scale that a factor of shape ``constant`` on the norm's value, seen as ``seen``, amounts to."""
    shape = spec.in_shapes[0]
    stripped = constant
    while stripped and stripped[0] == 1 and len(stripped) > 1:
        stripped = stripped[1:]
    if spec.op in ("LayerNormalization", "RMSNormalization"):
        k = -int(spec.attr("axis", -1))
        if k < 1:
            return None
        last = shape[len(shape) - k:]
        if seen == shape and stripped == last:
            return last
        channels_first = (shape[0], shape[-1], *shape[1:-1])
        if k == 1 and seen == channels_first and stripped == (shape[-1], *(1,) * (len(shape) - 2)):
            return last
        return None
    if seen == shape and stripped == (shape[1], *(1,) * (len(shape) - 2)):
        return (shape[1],)
    return None
