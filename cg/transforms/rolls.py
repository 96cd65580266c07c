"""Write cyclic shifts in one way, whoever cut them out and joined them."""

from __future__ import annotations

from typing import Final

from cg.graph import Graph
from cg.spec import NodeSpec
from cg.transforms._pattern import Pattern, Presence

_ROLLS: Final = Presence(lambda s: s.op == "Roll")
_HALVES: Final = Presence(lambda s: s.op == "Concat" and len(s.in_shapes) == 2)
_SLICES: Final = Presence(lambda s: s.op == "Slice")


def unite_rolls(graph: Graph) -> Graph:
    """Contract: a join of the last part of a value and the rest before it, along one axis, is ``Roll``; two ``Roll`` in a row
    are one; its ``axes`` rise and its ``shifts`` lie between 0 and the size. No value that something else reads is lost;
    values, outputs and ``params`` are unchanged.
    """
    if not ((_HALVES(graph) and _SLICES(graph)) or _ROLLS(graph)):
        return graph
    p = Pattern(graph)
    for node in range(graph.n_nodes):
        if node in p.dead:
            continue
        if p.op(node) == "Concat":
            _from_halves(p, node)
        if p.op(node) == "Roll":
            _united(p, node)
    return p.close()


def _from_halves(p: Pattern, node: int) -> None:
    spec, parts = p.specs[node], p.inputs[node]
    if len(parts) != 2 or parts[0] == parts[1] or any(p.op(s) != "Slice" or p.sole_reader(s) != node for s in parts):
        return
    axis, shape = spec.attr("axis"), spec.out_shape
    ranges = []
    for s in parts:
        attrs = dict(p.specs[s].attrs)
        if p.specs[s].in_shapes != (shape,) or attrs.get("axes") != (axis,) or attrs.get("steps", (1,)) != (1,):
            return
        ranges.append((attrs["starts"][0], attrs["ends"][0]))
    source = p.inputs[parts[0]][0]
    (begin, end), rest = ranges
    if p.inputs[parts[1]] != [source] or end != shape[axis] or rest != (0, begin) or not 0 < begin < end:
        return
    p.replace(node, _roll(shape, {axis: end - begin}), [source], parts)


def _united(p: Pattern, node: int) -> None:
    spec = p.specs[node]
    shifts = _shifts(spec)
    if shifts is None:
        return
    source = p.inputs[node][0]
    inside: set[int] = set()
    if p.op(source) == "Roll" and p.sole_reader(source) == node and p.specs[source].out_shape == spec.in_shapes[0]:
        before = _shifts(p.specs[source])
        if before is not None:
            inside = {source}
            for axis, shift in before.items():
                shifts[axis] = shifts.get(axis, 0) + shift
            source = p.inputs[source][0]
    made = _roll(spec.out_shape, shifts)
    if made != spec or inside:
        p.replace(node, made, [source], inside)


def _shifts(spec: NodeSpec) -> dict[int, int] | None:
    axes, shifts = spec.attr("axes", ()), spec.attr("shifts", ())
    if not axes or len(axes) != len(shifts) or spec.in_shapes != (spec.out_shape,):
        return None
    total: dict[int, int] = {}
    for axis, shift in zip(axes, shifts, strict=True):
        total[axis] = total.get(axis, 0) + shift
    return total


def _roll(shape: tuple[int, ...], shifts: dict[int, int]) -> NodeSpec:
    kept = {a: s % shape[a] for a, s in sorted(shifts.items()) if s % shape[a]}
    if not kept:  # back where it was; drop_identities takes it away
        return NodeSpec("Mul", (shape,), shape, attrs=(("scalar", 1.0),))
    return NodeSpec("Roll", (shape,), shape, attrs=(("axes", tuple(kept)), ("shifts", tuple(kept.values()))))
