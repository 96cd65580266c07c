"""``canonicalize``: the chain of rewrites after which equal networks from different sources are equal graphs.

Each rewrite is a pure function ``Graph -> Graph`` in a file of its own, with its contract in its docstring; it returns its
argument itself if there is nothing to do. ``GraphBuilder`` and ``extract.from_torch`` already write canonical graphs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cg.errors import GraphError
from cg.graph import Graph
from cg.transforms.argument_order import sort_arguments
from cg.transforms.constants import fold_constants
from cg.transforms.dead_nodes import drop_dead_nodes
from cg.transforms.identities import drop_identities
from cg.transforms.nary_sums import split_sums
from cg.transforms.reshapes import drop_reshapes

CHAIN: Final[tuple[Callable[[Graph], Graph], ...]] = (
    drop_dead_nodes, drop_identities, drop_reshapes, fold_constants, split_sums, sort_arguments)
_MOST_ROUNDS: Final = 100


def canonicalize(graph: Graph) -> Graph:
    """The canonical form of ``graph``: the chain, repeated until it changes nothing.

    Idempotent; keeps name, family, notes, the outputs and ``params``; never adds an operator that computes something.
    Raises ``GraphError`` naming the rewrite if one makes an unsound graph.
    """
    for _ in range(_MOST_ROUNDS):
        before = graph
        for rewrite in CHAIN:
            try:
                graph = rewrite(graph)
            except GraphError as error:
                raise GraphError(f"graph {before.name!r}: rewrite {rewrite.__name__} failed: {error}") from error
        if graph.digest == before.digest:
            return graph
    raise GraphError(f"graph {graph.name!r}: the rewrites do not come to rest after {_MOST_ROUNDS} rounds")


__all__ = ["CHAIN", "canonicalize", "drop_dead_nodes", "drop_identities", "drop_reshapes", "fold_constants",
           "sort_arguments", "split_sums"]
