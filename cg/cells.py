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
