"""``Net``: a graph whose nodes keep their names while it is edited.

A ``cg.Graph`` renumbers its nodes whenever something changes; an edit written down as text must still find its node after other
edits, and in another network where some of them are missing. So each node has a label: a node of the base is called by its
number there, a node that an edit makes by a hash of that edit. This file must not know what edits there are.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cg import canonicalize
from cg.errors import CGError, GraphError
from cg.graph import Graph
from cg.spec import TABLE, NodeSpec
from cg.vocabulary import SOURCES


class Refused(CGError):
    """An edit does not apply to this network; the message says why."""


@dataclass(frozen=True, eq=False)
class Net:
    """Nodes by label; never changed in place, ``edit`` gives the successor.

    Attributes:
        specs: spec of each node.
        inputs: labels of the producers of each node's arguments.
        outputs: labels of the nodes whose tensors leave the network.
        name, family: of the graph.
    """

    specs: dict[str, NodeSpec]
    inputs: dict[str, tuple[str, ...]]
    outputs: tuple[str, ...]
    name: str = ""
    family: str = ""

    @classmethod
    def of(cls, graph: Graph) -> Net:
        """The nodes of ``graph``, labelled by their numbers."""
        inputs: list[list[str]] = [[] for _ in range(graph.n_nodes)]
        for s, d in zip(graph.src.tolist(), graph.dst.tolist(), strict=True):  # sorted by (dst, arg)
            inputs[d].append(str(s))
        return cls({str(i): spec for i, spec in enumerate(graph.nodes)}, {str(i): tuple(x) for i, x in enumerate(inputs)},
                   tuple(map(str, graph.outputs.tolist())), graph.name, graph.family)

    def edit(self, specs: dict[str, NodeSpec], inputs: dict[str, tuple[str, ...]] | None = None,
             moved: dict[str, str] | None = None) -> Net:
        """The network with other or new nodes.

        Args:
            specs: new specs of old nodes, and new nodes.
            inputs: new producers of old nodes, and those of new nodes. They are taken as they are.
            moved: whoever read the key, and is not in ``inputs``, reads the value; so do the outputs.

        Nodes that no output needs any more are left out. Raises ``Refused`` if an input of the network is among them.
        """
        inputs, moved = inputs or {}, moved or {}
        links = {**({k: tuple(moved.get(s, s) for s in v) for k, v in self.inputs.items()} if moved else self.inputs), **inputs}
        outputs = tuple(moved.get(o, o) for o in self.outputs)
        order = _order(links, outputs)
        every = {**self.specs, **specs}
        if sum(every[k].op == "Input" for k in order) != sum(s.op == "Input" for s in self.specs.values()):
            raise Refused("an input of the network would not be read any more")
        return Net({k: every[k] for k in order}, {k: links[k] for k in order}, outputs, self.name, self.family)

    def new_label(self, edit: str, part: str) -> str:
        """Label of the node ``part`` that ``edit`` makes: the same in every network that it is made in, never one of the base.

        Raises ``Refused`` if this edit was made already and the node is still there.
        """
        label = "n" + hashlib.blake2b(f"{edit}/{part}".encode(), digest_size=5).hexdigest()
        if label in self.specs:
            raise Refused(f"{edit} was made already")
        return label

    def spec(self, label: str) -> NodeSpec:
        """Spec of a node; ``Refused`` if there is none of this label."""
        if label not in self.specs:
            raise Refused(f"there is no node {label}")
        return self.specs[label]

    @cached_property
    def order(self) -> list[str]:
        """Labels, every producer before its readers."""
        return _order(self.inputs, self.outputs)

    @cached_property
    def readers(self) -> dict[str, list[str]]:
        """Who reads each node, once per argument."""
        found: dict[str, list[str]] = {k: [] for k in self.specs}
        for k, sources in self.inputs.items():
            for s in sources:
                found[s].append(k)
        return found

    @cached_property
    def reached(self) -> frozenset[str]:
        """Nodes whose values depend on an input of the network."""
        found = set()
        for k in self.order:
            if self.specs[k].op == "Input" or any(s in found for s in self.inputs[k]):
                found.add(k)
        return frozenset(found)

    @cached_property
    def graph(self) -> Graph:
        """The canonical, validated graph. Raises ``Refused`` if there is none."""
        place = {k: i for i, k in enumerate(self.order)}
        edges = [(place[s], i, arg) for k, i in place.items() for arg, s in enumerate(self.inputs[k])]
        specs = np.array([TABLE.intern(self.specs[k]) for k in place], np.int32)
        try:
            made = Graph.make(specs, np.array(edges, np.int64).reshape(-1, 3), [place[o] for o in self.outputs],
                              name=self.name, family=self.family)
            return canonicalize(made)
        except GraphError as error:
            raise Refused(f"the result is no valid graph: {error}") from error

    def sole_reader(self, label: str) -> str | None:
        """The one node that reads ``label``, once; ``None`` if others do or it is an output."""
        readers = self.readers[label]
        return readers[0] if len(readers) == 1 and label not in self.outputs else None


def _order(inputs: dict[str, tuple[str, ...]], outputs: tuple[str, ...]) -> list[str]:
    """Labels that ``outputs`` need, producers first; ``Refused`` on a cycle or a producer that is not there."""
    done: dict[str, bool] = {}  # False while its producers are being listed
    order: list[str] = []
    for end in outputs:
        stack = [end]
        while stack:
            k = stack[-1]
            if k in done:
                stack.pop()
                if not done[k]:
                    done[k] = True
                    order.append(k)
                continue
            if k not in inputs:
                raise Refused(f"there is no node {k}")
            done[k] = False
            for s in inputs[k]:
                if s not in done:
                    stack.append(s)
                elif not done[s]:
                    raise Refused(f"node {s} would read itself")
    return order


def is_source(spec: NodeSpec) -> bool:
    """Whether a node reads nothing."""
    return spec.op in SOURCES
