"""Remove nodes that hand their argument on unchanged."""

from __future__ import annotations

from math import prod
from typing import Final

from cg.graph import Graph
from cg.spec import NodeSpec
from cg.transforms._draft import Draft
from cg.transforms._pattern import Presence

# Operators outside the vocabulary that compute nothing at inference; an importer may keep them as ``Unknown``.
NAMES: Final = frozenset({"Identity", "Dropout", "Cast", "CastLike", "StopGradient", "identity", "dropout", "cast"})
_RESHAPING: Final = frozenset({"Concat", "Sum", "Max", "Min", "Mean"})


def drop_identities(graph: Graph) -> Graph:
    """Contract: nodes are removed, nothing else changes. Removed are, where the number of values stays the same,
    ``Unknown`` nodes named like an identity, joins and n-ary operators of one argument, ``Slice``, ``Pad``, ``Expand``,
    ``Tile``, ``Resize`` and pools that do nothing, ``Gather`` from an axis of one, ``Add`` of 0 and ``Mul`` or ``Pow`` by 1.
    """
    if not _IDENTITIES(graph):
        return graph
    draft = Draft.open(graph)
    replaced = {i: draft.inputs[i][0] for i, spec in enumerate(draft.specs) if is_identity(spec)}
    draft.redirect(replaced)
    return draft.close()


def is_identity(spec: NodeSpec) -> bool:
    """Whether the node gives back the values of its one argument."""
    if len(spec.in_shapes) != 1 or prod(spec.in_shapes[0]) != prod(spec.out_shape) or spec.params:
        return False
    op, scalar = spec.op, spec.attr("scalar")
    if op == "Unknown":
        return str(spec.attr("name")) in NAMES
    if op == "Slice":  # as many values, but maybe backwards
        return all(step > 0 for step in spec.attr("steps", ()))
    if op == "Pad":
        return not any(spec.attr("pads", (1,)))
    if op == "Gather":  # from an axis of one there is but one value to take
        axis = spec.attr("axis")
        return axis is not None and -len(spec.in_shapes[0]) <= axis < len(spec.in_shapes[0]) and spec.in_shapes[0][axis] == 1
    if op in ("Expand", "Tile", "Resize"):
        return spec.in_shapes[0] == spec.out_shape
    if op in ("MaxPool", "AveragePool"):
        kernel = spec.attr("kernel_shape")
        return kernel is not None and all(k == 1 for k in kernel) and not any(spec.attr("pads", ()))
    if op == "Add":
        return scalar == 0
    if op in ("Mul", "Pow"):
        return scalar == 1 and not spec.attr("scalar_first")
    return op in _RESHAPING and scalar is None


_IDENTITIES: Final = Presence(is_identity)
