"""``Cell``: a network as its search space writes it, a small graph of named operations without shapes.

Predictors of single search spaces read cells; a cell means something only beside cells of the same space.
"""

from __future__ import annotations

from dataclasses import dataclass

from cg.errors import GraphError


@dataclass(frozen=True, slots=True)
class Cell:
    """Named operations and the arrows between them.

    Attributes:
        ops: name of every node, in topological order.
        edges: ``(source, target)`` with source < target.
        name: text for messages, such as the encoded genome.
    """

    ops: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    name: str = ""

    def __post_init__(self) -> None:
        if not self.ops:
            raise GraphError(f"cell {self.name!r} has no node")
        for s, t in self.edges:
            if not 0 <= s < t < len(self.ops):
                raise GraphError(f"cell {self.name!r}: edge {s} -> {t} must go from a lower to a higher node")


def pruned(cell: Cell) -> Cell:
    """``cell`` without what computes nothing: ``none`` nodes gone, ``skip_connect`` nodes replaced by the edges through them,
    and only what lies on a way from an input to an output. These always stay: nodes with ``input`` or ``output`` in their
    name, or the first and the last.
    """
    inputs = {i for i, op in enumerate(cell.ops) if "input" in op} or {0}
    outputs = {i for i, op in enumerate(cell.ops) if "output" in op} or {len(cell.ops) - 1}
    edges = {(s, t) for s, t in cell.edges if "none" not in (cell.ops[s], cell.ops[t])}
    for node in (i for i, op in enumerate(cell.ops) if op == "skip_connect"):
        sources, targets = [s for s, t in edges if t == node], [t for s, t in edges if s == node]
        edges = {e for e in edges if node not in e} | {(s, t) for s in sources for t in targets}
    ahead, behind = set(inputs), set(outputs)
    for s, t in sorted(edges):
        if s in ahead:
            ahead.add(t)
    for s, t in sorted(edges, key=lambda e: -e[1]):
        if t in behind:
            behind.add(s)
    kept = sorted((ahead & behind) | inputs | outputs)
    number = {node: i for i, node in enumerate(kept)}
    return Cell(tuple(cell.ops[i] for i in kept),
                tuple(sorted((number[s], number[t]) for s, t in edges if s in number and t in number)), cell.name)
