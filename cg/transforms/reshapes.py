"""Contract data movement that computes nothing."""

from __future__ import annotations

from math import prod

from cg.graph import Graph
from cg.spec import NodeSpec
from cg.transforms._draft import Draft
from cg.transforms._pattern import Presence

MOVES = frozenset({"Reshape", "Transpose"})


def _moves_all(spec: NodeSpec) -> bool:
    return spec.op in MOVES and len(spec.in_shapes) == 1 and prod(spec.in_shapes[0]) == prod(spec.out_shape)


_MOVES = Presence(_moves_all)


def drop_reshapes(graph: Graph) -> Graph:
    """Contract: ``Reshape`` and ``Transpose`` nodes (flatten, squeeze, permute are such) with as many values behind as
    before are removed, and their readers read the producer; the shape that a reader records is not changed, so it still
    says how the values are seen there. ``Slice``, ``Pad``, ``Gather`` and other selections stay.
    """
    if not _MOVES(graph):
        return graph
    draft = Draft.open(graph)
    replaced = {i: draft.inputs[i][0] for i, spec in enumerate(draft.specs) if _moves_all(spec)}
    draft.redirect(replaced)
    return draft.close()
