"""Remove what no output needs."""

from __future__ import annotations

from cg.graph import Graph
from cg.transforms._draft import Draft


def drop_dead_nodes(graph: Graph) -> Graph:
    """Contract: the result holds exactly the nodes from which an output can be reached; outputs are unchanged."""
    draft = Draft.open(graph)
    reached, stack = set(draft.outputs), list(draft.outputs)
    while stack:
        for s in draft.inputs[stack.pop()]:
            if s not in reached:
                reached.add(s)
                stack.append(s)
    return graph if len(reached) == graph.n_nodes else draft.close()
