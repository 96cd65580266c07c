"""What a search history is made of: a planned network, a generation of them, and an answered query."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Query:
    """One answered question to the oracle.

    Attributes:
        step: 0-based position in the run's plan, whatever the order in which answers came; one query of the budget.
        genome: the encoded genome (``space.encode``).
        key: identity of the network: isomorphic genomes share it, so they are asked about once.
        value: what the oracle said of the first objective, or ``None`` where it failed.
        status: ``ok`` or ``failed``.
        source: where the network came from, in the strategy's words (``initial``, ``evolved``, ``random``, …).
        wall_s: seconds the oracle took.
        error: why it failed, empty where it did not.
        values: everything the oracle said, by name; empty where it failed.
        log: what a failed evaluation printed, at most the last 100,000 characters.
        generation: number of the plan it belongs to.
    """

    step: int
    genome: str
    key: str
    value: float | None
    status: str
    source: str
    wall_s: float
    error: str = ""
    values: Mapping[str, float] = field(default_factory=dict, hash=False)
    log: str = field(default="", repr=False)
    generation: int = 0


@dataclass(frozen=True)
class PlanItem:
    """A network that the run has decided to ask about."""

    genome: str
    key: str
    source: str


@dataclass(frozen=True)
class Plan:
    """One generation: what to ask, the step of its first item, and the state of the generator after it was chosen."""

    number: int
    items: tuple[PlanItem, ...]
    rng_state: dict[str, Any]
    first_step: int = 0
