"""Remove what no output needs."""

from __future__ import annotations

import numpy as np

from cg._hashing import live_nodes
from cg.graph import Graph
from cg.transforms._draft import Draft


def drop_dead_nodes(graph: Graph) -> Graph:
    """Contract: the result holds exactly the nodes from which an output can be reached; outputs are unchanged."""
    live = live_nodes(graph.n_nodes, graph.src.astype(np.int64), graph.dst.astype(np.int64), graph.outputs.astype(np.int64))
    return graph if live.all() else Draft.open(graph).close()
