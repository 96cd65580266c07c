"""Write a constant without the leading axes of one that broadcasting adds anyway."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from cg.graph import Graph
from cg.spec import Shape
from cg.transforms._draft import Draft
from cg.transforms._pattern import Presence

_ELEMENTWISE: Final = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "And", "Or", "Equal", "Greater", "Less",
                                 "Where"})
_CONSTANTS: Final = Presence(lambda s: s.op == "Constant")


def strip_leading_ones(graph: Graph) -> Graph:
    """Contract: a ``Constant`` that only element-wise operators read, each with an argument of the full rank beside it, loses
    its leading axes of one, and so do its readers' ``in_shapes``. A mask of (1, 1, T, T) and one of (T, T) are one. Where
    readers see it in several shapes, its own is the least of them. Values, outputs and ``params`` are unchanged.
    """
    if not _CONSTANTS(graph):
        return graph
    draft = Draft.open(graph)
    readers, outputs, changed = draft.consumers(), set(draft.outputs), False
    for node in range(graph.n_nodes):
        if draft.specs[node].op != "Constant" or node in outputs or not readers[node]:
            continue
        places = [(r, k) for r in dict.fromkeys(readers[node]) for k, s in enumerate(draft.inputs[r]) if s == node]
        if not all(_is_broadcast(draft, r, k) for r, k in places):
            continue
        seen = [_stripped(draft.specs[r].in_shapes[k]) for r, k in places]
        own = min(seen, key=lambda shape: (len(shape), shape))
        if own != draft.specs[node].out_shape:
            draft.specs[node] = replace(draft.specs[node], out_shape=own)
            changed = True
        for (r, k), shape in zip(places, seen, strict=True):
            shapes = list(draft.specs[r].in_shapes)
            if shapes[k] != shape:
                shapes[k] = shape
                draft.specs[r] = replace(draft.specs[r], in_shapes=tuple(shapes))
                changed = True
    return draft.close() if changed else graph


def _is_broadcast(draft: Draft, reader: int, place: int) -> bool:
    spec = draft.specs[reader]
    rank = len(spec.out_shape)
    return spec.op in _ELEMENTWISE and any(
        len(shape) == rank and draft.specs[s].op != "Constant"
        for k, (shape, s) in enumerate(zip(spec.in_shapes, draft.inputs[reader], strict=True)) if k != place)


def _stripped(shape: Shape) -> Shape:
    while shape and shape[0] == 1:
        shape = shape[1:]
    return shape
