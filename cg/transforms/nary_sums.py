"""Write n-ary sums as chains of two-argument additions."""

from __future__ import annotations

from cg import shapes
from cg.graph import Graph
from cg.spec import NodeSpec
from cg.transforms._draft import Draft
from cg.transforms._pattern import Presence


def _is_plain_sum(spec: NodeSpec) -> bool:
    return spec.op == "Sum" and len(spec.in_shapes) >= 2 and not spec.attrs and not spec.params


_SUMS = Presence(_is_plain_sum)


def split_sums(graph: Graph) -> Graph:
    """Contract: each ``Sum`` of n >= 2 arguments becomes n - 1 ``Add`` nodes, from the first argument to the last, as
    ``a + b + c`` is in every framework; its value is unchanged. A ``Sum`` with attributes or parameters stays.
    """
    if not _SUMS(graph):
        return graph
    draft = Draft.open(graph)
    replaced: dict[int, int] = {}
    for i, spec in enumerate(list(draft.specs)):
        if not _is_plain_sum(spec):
            continue
        total, shape = draft.inputs[i][0], spec.in_shapes[0]
        for source, other in zip(draft.inputs[i][1:], spec.in_shapes[1:], strict=True):
            out = shapes.broadcast((shape, other))
            total = draft.add(NodeSpec("Add", (shape, other), out), (total, source))
            shape = out
        replaced[i] = total
    draft.redirect(replaced)
    return draft.close()
