"""Put the arguments of commutative operators in one order."""

from __future__ import annotations

from dataclasses import replace

from cg.graph import Graph
from cg.transforms._draft import Draft
from cg.transforms._pattern import Presence
from cg.vocabulary import COMMUTATIVE

_MIXED = Presence(lambda s: s.op in COMMUTATIVE and list(s.in_shapes) != sorted(
    s.in_shapes, key=lambda shape: (len(shape), shape), reverse=True))


def sort_arguments(graph: Graph) -> Graph:
    """Contract: the arguments of every operator in ``cg.vocabulary.COMMUTATIVE`` stand in descending order of (rank,
    shape), as ``GraphBuilder`` writes them; arguments of one shape keep their order, which no fingerprint sees. Nothing
    else changes.
    """
    if not _MIXED(graph):
        return graph
    draft = Draft.open(graph)
    changed = False
    for i, spec in enumerate(draft.specs):
        if spec.op not in COMMUTATIVE or len(set(spec.in_shapes)) < 2:
            continue
        order = sorted(range(len(spec.in_shapes)), key=lambda k: (len(spec.in_shapes[k]), spec.in_shapes[k]), reverse=True)
        if order != list(range(len(order))):
            draft.specs[i] = replace(spec, in_shapes=tuple(spec.in_shapes[k] for k in order))
            draft.inputs[i] = [draft.inputs[i][k] for k in order]
            changed = True
    return draft.close() if changed else graph
