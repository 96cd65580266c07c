"""Replace a computation on constants by one constant."""

from __future__ import annotations

from cg.graph import Graph
from cg.spec import NodeSpec
from cg.transforms._draft import Draft
from cg.transforms._pattern import Presence

_CONSTANTS = Presence(lambda s: s.op == "Constant")


def fold_constants(graph: Graph) -> Graph:
    """Contract: a node whose arguments are all ``Constant`` becomes a ``Constant`` of its output shape that holds its
    parameters and theirs, provided that nothing else reads those (they would be counted twice). Repeated until nothing
    folds. ``params`` is unchanged. An output node and an ``Unknown`` node are not folded.
    """
    if not _CONSTANTS(graph):
        return graph
    draft = Draft.open(graph)
    readers = [set(r) for r in draft.consumers()]
    outputs, changed = set(draft.outputs), False
    for i, spec in enumerate(draft.specs):  # in topological order
        sources = set(draft.inputs[i])
        if not sources or spec.op == "Unknown" or i in outputs or outputs & sources:
            continue
        if any(draft.specs[s].op != "Constant" or readers[s] != {i} for s in sources):
            continue
        held = spec.params + sum(draft.specs[s].params for s in sources)
        draft.specs[i] = NodeSpec("Constant", (), spec.out_shape, extra_params=held)
        draft.inputs[i] = []
        changed = True
    return draft.close() if changed else graph
