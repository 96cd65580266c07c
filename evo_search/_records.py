"""What a search history is made of: a planned network, a generation of them, an answered query, and settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Predicted = Mapping[str, tuple[float, float | None]]


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
        parents: steps of the earlier queries that it was made from; empty for a random network.
        predicted: what the predictor that chose it said before it was asked about: ``{objective: (mean, standard deviation or
            None)}`` in the unit that the predictor speaks; empty where none chose it.
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
    parents: tuple[int, ...] = ()
    predicted: Predicted = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class PlanItem:
    """A network that the run has decided to ask about; ``parents`` and ``predicted`` as in ``Query``."""

    genome: str
    key: str
    source: str
    parents: tuple[int, ...] = ()
    predicted: Predicted = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Plan:
    """One generation: what to ask, the step of its first item, and the state of the generator after it was chosen.

    ``wall_s`` is how long the strategy took to choose it, in seconds.
    """

    number: int
    items: tuple[PlanItem, ...]
    rng_state: dict[str, Any]
    first_step: int = 0
    wall_s: float = field(default=0.0, compare=False)


def flat(value: Any, name: str = "") -> Iterable[tuple[str, Any]]:
    """Leaves of nested mappings with dotted names."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from flat(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value
