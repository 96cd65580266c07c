"""``fingerprint``: a hash of the architecture alone."""

from __future__ import annotations

from cg.graph import Graph


def fingerprint(graph: Graph) -> str:
    """32 hex digits, equal for equal architectures on every machine and in every run.

    Blind to node order, to names and to the order of arguments of commutative operators; sensitive to every shape,
    attribute, edge, argument position and output. A 128-bit Weisfeiler-Lehman hash: see ``cg._hashing``.
    """
    return graph.digest
