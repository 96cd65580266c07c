"""``Pattern``: a draft with reader lists that stay right while nodes are fused. The ground of all fusing rewrites.

A fused node takes the place of the last node of its pattern, so whoever reads that reads the new one; the nodes inside the
pattern are left without arguments and vanish when the draft is closed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from cg._table_arrays import Column
from cg.graph import Graph
from cg.spec import NodeSpec
from cg.transforms._draft import Draft

TOLERANCE: Final = 1e-4  # relative; scalars are stored with six digits, and people write sqrt(2 / pi) with as few as four


class Presence:
    """Which nodes of a graph have a spec that fits a predicate; the predicate runs once for each spec of the process."""

    def __init__(self, fits: Callable[[NodeSpec], bool]) -> None:
        self._column = Column(lambda _, spec: fits(spec), bool)

    def __call__(self, graph: Graph) -> bool:
        return bool(self._column.get()[graph.spec].any())


class Pattern:
    """Nodes of a draft with ``readers[i]``: the nodes that read node ``i``, once per argument."""

    def __init__(self, graph: Graph) -> None:
        self.draft = Draft.open(graph)
        self.specs, self.inputs = self.draft.specs, self.draft.inputs
        self.readers = self.draft.consumers()
        self.outputs = set(self.draft.outputs)
        self.dead: set[int] = set()
        self.changed = False

    def close(self) -> Graph:
        """The graph after all fusions; the very graph that was opened if there were none."""
        return self.draft.close() if self.changed else self.draft.origin

    def sole_reader(self, node: int) -> int:
        """The one node that reads ``node`` (maybe twice), -1 if there are several or if it leaves the network."""
        readers = self.readers[node]
        if not readers or node in self.outputs or any(r != readers[0] for r in readers):
            return -1
        return readers[0]

    def private(self, inside: Iterable[int], root: int) -> bool:
        """Whether nobody but ``root`` and the nodes inside read the nodes inside."""
        nodes = {*inside, root}
        return all(n == root or (n not in self.outputs and nodes.issuperset(self.readers[n])) for n in nodes)

    def replace(self, root: int, spec: NodeSpec, inputs: Sequence[int], inside: Iterable[int] = ()) -> None:
        """``root`` becomes ``spec`` of ``inputs``; the nodes inside lose their arguments."""
        gone = {*inside} - {root}
        for node in (root, *gone):
            for s in set(self.inputs[node]):
                self.readers[s] = [r for r in self.readers[s] if r != node]
            self.inputs[node] = []
        self.dead |= gone
        self.specs[root], self.inputs[root] = spec, list(inputs)
        for s in inputs:
            self.readers[s].append(root)
        self.changed = True

    def append(self, spec: NodeSpec, inputs: Sequence[int]) -> int:
        """A new node behind all others."""
        node = self.draft.add(spec, inputs)
        self.readers.append([])
        for s in inputs:
            self.readers[s].append(node)
        self.changed = True
        return node

    def op(self, node: int) -> str:
        return self.specs[node].op

    def scalar(self, node: int, op: str) -> float | None:
        """The number of ``op(x, number)``, ``None`` for any other node and for ``op(number, x)``."""
        spec = self.specs[node]
        if spec.op != op or len(spec.in_shapes) != 1 or spec.params:
            return None
        attrs = dict(spec.attrs)
        value = attrs.get("scalar")
        return None if value is None or attrs.get("scalar_first") else float(value)


def close_to(a: float, b: float) -> bool:
    """Equal up to the digits that are stored."""
    return abs(a - b) <= TOLERANCE * max(abs(a), abs(b))


def number(value: float) -> float:
    """A scalar as it is stored: six significant digits. One that is a rounded inverse root, 1 / sqrt(n), is that.

    Products of stored scalars carry their rounding errors; the scale of attention, written as d ** -0.25 on both sides, is
    to be the number that ``1 / sqrt(d)`` gives.
    """
    if value > 0 and 1 <= value**-2 < 5000:
        n = round(value**-2)
        if abs(value**-2 / n - 1) < 4e-5:
            value = n**-0.5
    return float(f"{value:.6g}")


def with_attrs(spec: NodeSpec, **changes: Any) -> tuple[tuple[str, Any], ...]:
    """The attributes of ``spec`` with some changed; ``None`` removes one."""
    return tuple(sorted((k, v) for k, v in {**dict(spec.attrs), **changes}.items() if v is not None))
