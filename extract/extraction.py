"""What every adapter returns and raises. This file must not import a framework."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from cg.errors import CGError
from cg.graph import Graph


class ExtractionError(CGError):
    """A model cannot be turned into a graph; the message names the module where it happened and what to do."""


class ExtractionWarning(UserWarning):
    """The graph holds ``Unknown`` nodes."""


@dataclass(frozen=True)
class Extraction:
    """A graph and everything that a careful user should know about how it came about.

    Attributes:
        graph: the network, validated, in canonical order.
        unknown: framework name of each operator outside the vocabulary -> number of its ``Unknown`` nodes in ``graph``.
        notes: sentences on decisions that were taken for this model (a shared weight, an output left out, …).
        ignored: operators that make no node on purpose (dropout, reshape, cast, …) -> number of calls.
    """

    graph: Graph
    unknown: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
