"""``canonicalize``: the chain of rewrites after which equal networks from different sources are equal graphs.

Each rewrite is a pure function ``Graph -> Graph`` in a file of its own, with its contract in its docstring; it returns its
argument itself if there is nothing to do. ``GraphBuilder`` already writes canonical graphs; every extraction ends here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cg.errors import GraphError
from cg.graph import Graph
from cg.transforms.activations import fuse_activations
from cg.transforms.argument_order import sort_arguments
from cg.transforms.biases import absorb_biases
from cg.transforms.constants import fold_constants
from cg.transforms.dead_nodes import drop_dead_nodes
from cg.transforms.identities import drop_identities
from cg.transforms.leading_ones import strip_leading_ones
from cg.transforms.nary_sums import split_sums
from cg.transforms.nested_concats import flatten_concats
from cg.transforms.norms import fuse_norms
from cg.transforms.paddings import absorb_paddings
from cg.transforms.products import simplify_products
from cg.transforms.reshapes import drop_reshapes
from cg.transforms.rolls import unite_rolls

CHAIN: Final[tuple[Callable[[Graph], Graph], ...]] = (
    drop_dead_nodes, drop_identities, drop_reshapes, fold_constants, split_sums, flatten_concats, fuse_activations,
    simplify_products, fuse_norms, absorb_biases, absorb_paddings, unite_rolls, strip_leading_ones,
    sort_arguments)
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


__all__ = ["CHAIN", "absorb_biases", "absorb_paddings", "canonicalize", "drop_dead_nodes", "drop_identities",
           "drop_reshapes", "flatten_concats", "fold_constants", "fuse_activations", "fuse_norms",
           "simplify_products", "sort_arguments", "split_sums", "strip_leading_ones", "unite_rolls"]
