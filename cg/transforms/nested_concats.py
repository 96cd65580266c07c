"""Write a join of joins as one join."""

from __future__ import annotations

from typing import Final

from cg.graph import Graph
from cg.spec import NodeSpec, Shape
from cg.transforms._pattern import Pattern, Presence

_JOINS: Final = Presence(lambda s: s.op == "Concat" and len(s.in_shapes) > 1)


def flatten_concats(graph: Graph) -> Graph:
    """Contract: an argument of ``Concat`` that is itself a ``Concat`` along the same axis, seen in the shape that it has and
    read by nothing else, is replaced by its arguments. Values, outputs and ``params`` are unchanged.
    """
    if not _JOINS(graph):
        return graph
    p = Pattern(graph)
    for node in range(graph.n_nodes):
        spec = p.specs[node]
        if spec.op != "Concat" or spec.params:
            continue
        sources: list[int] = []
        shapes: list[Shape] = []
        inside: set[int] = set()
        for s, shape in zip(p.inputs[node], spec.in_shapes, strict=True):
            above = p.specs[s]
            if (above.op == "Concat" and above.attrs == spec.attrs and above.out_shape == shape and not above.params
                    and p.sole_reader(s) == node and p.inputs[node].count(s) == 1):
                inside.add(s)
                sources += p.inputs[s]
                shapes += above.in_shapes
            else:
                sources.append(s)
                shapes.append(shape)
        if inside:
            p.replace(node, NodeSpec("Concat", tuple(shapes), spec.out_shape, attrs=spec.attrs), sources, inside)
    return p.close()
