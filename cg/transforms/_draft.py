"""``Draft``: a graph opened for rewriting. The only place where rewrites touch edge arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cg.graph import Graph
from cg.spec import TABLE, NodeSpec


@dataclass
class Draft:
    """Nodes as lists: ``specs[i]`` with the producers ``inputs[i]`` of its arguments, and the output nodes.

    Rewrites append nodes and redirect arguments; nodes that no output needs any more vanish in ``close``.
    """

    specs: list[NodeSpec]
    inputs: list[list[int]]
    outputs: list[int]
    origin: Graph

    @classmethod
    def open(cls, graph: Graph) -> Draft:
        inputs: list[list[int]] = [[] for _ in range(graph.n_nodes)]
        for s, d in zip(graph.src.tolist(), graph.dst.tolist(), strict=True):  # sorted by (dst, arg)
            inputs[d].append(s)
        return cls(list(graph.nodes), inputs, graph.outputs.tolist(), graph)

    def add(self, spec: NodeSpec, inputs: Sequence[int]) -> int:
        """Append a node, return its number."""
        self.specs.append(spec)
        self.inputs.append(list(inputs))
        return len(self.specs) - 1

    def redirect(self, replaced: dict[int, int]) -> None:
        """Whoever read node ``k`` now reads ``replaced[k]``, followed to its end; so do the outputs."""

        def end(node: int) -> int:
            while node in replaced:
                node = replaced[node]
            return node

        self.inputs = [[end(s) for s in sources] for sources in self.inputs]
        self.outputs = [end(o) for o in self.outputs]

    def consumers(self) -> list[list[int]]:
        """For every node the nodes that read it, once per argument."""
        readers: list[list[int]] = [[] for _ in self.specs]
        for node, sources in enumerate(self.inputs):
            for s in sources:
                readers[s].append(node)
        return readers

    def close(self) -> Graph:
        """The validated graph of the nodes that the outputs need."""
        needed, stack = set(self.outputs), list(dict.fromkeys(self.outputs))
        while stack:
            for s in self.inputs[stack.pop()]:
                if s not in needed:
                    needed.add(s)
                    stack.append(s)
        place = {old: new for new, old in enumerate(sorted(needed))}
        edges = [(place[s], place[d], arg) for d in place for arg, s in enumerate(self.inputs[d])]
        outputs = [place[o] for o in dict.fromkeys(self.outputs)]
        g = self.origin
        old = g.spec.tolist()  # a spec that was left alone is in the table already
        specs = np.array([old[i] if i < g.n_nodes and self.specs[i] is g.nodes[i] else TABLE.intern(self.specs[i])
                          for i in place], np.int32)
        return Graph.make(specs, np.array(edges, np.int64).reshape(-1, 3), outputs, name=g.name, family=g.family, meta=g.meta)
