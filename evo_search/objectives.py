"""What a search wants: objectives to make large or small, constraints to keep, and who dominates whom.

A constraint looks at a cost that the graph has (MACs, parameters, any function of the graph), which is known before a network
is asked about, or at a value that the oracle measures, which is known after. This file must not know a space or an oracle.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evo_search._evolve_config import SearchError

if TYPE_CHECKING:
    from cg import Graph
    from evo_search._records import Query

GRAPH_COSTS = ("macs", "params")


@dataclass(frozen=True)
class Objective:
    """A named value of the oracle, and whether larger is better."""

    name: str
    maximize: bool = True

    def key(self, value: float) -> float:
        """``value`` turned so that smaller is better."""
        return -value if self.maximize else value


@dataclass(frozen=True)
class Constraint:
    """Bounds of one value, both inclusive (ε-constraint).

    Attributes:
        of: ``"macs"`` or ``"params"`` of the graph, any function ``graph -> float`` (deterministic), or the name of a value
            that the oracle gives. A network that breaks a bound of its graph is never asked about. That it breaks a measured
            one is seen afterwards: it counts as a query, but is neither best nor in the front.
        at_most, at_least: the bounds; at least one of them.
    """

    of: str | Callable[[Graph], float]
    at_most: float | None = None
    at_least: float | None = None

    def __post_init__(self) -> None:
        if not (callable(self.of) or (isinstance(self.of, str) and self.of)):
            raise SearchError(f"Constraint.of must be a name or a function of a graph, got {self.of!r}")
        bounds = [b for b in (self.at_most, self.at_least) if b is not None]
        if not bounds or any(isinstance(b, bool) or not isinstance(b, (int, float, np.number)) or not math.isfinite(b)
                             for b in bounds):
            raise SearchError(f"Constraint on {self.name!r} needs at_most or at_least, finite numbers, got {self.at_most!r} "
                              f"and {self.at_least!r}")

    @property
    def name(self) -> str:
        """How messages and the history call it."""
        return self.of if isinstance(self.of, str) else getattr(self.of, "__qualname__", type(self.of).__qualname__)

    @property
    def of_graph(self) -> bool:
        """Whether it is known before a network is asked about."""
        return callable(self.of) or self.of in GRAPH_COSTS

    def cost(self, graph: Graph) -> float:
        """The bounded cost of a graph (``of_graph`` only)."""
        return float(self.of(graph) if callable(self.of) else getattr(graph, self.of))

    def violation(self, value: float) -> float:
        """How far ``value`` is outside of the bounds, relative to the bound; 0 inside, infinite for NaN."""
        if math.isnan(value):
            return math.inf
        over = [(value - self.at_most, self.at_most)] if self.at_most is not None else []
        over += [(self.at_least - value, self.at_least)] if self.at_least is not None else []
        return sum(max(0.0, float(by)) / (abs(float(bound)) or 1.0) for by, bound in over)

    def describe(self) -> dict[str, Any]:
        """JSON values that tell one constraint from another."""
        return {"of": self.name, "at_most": self.at_most, "at_least": self.at_least}


def parse_objectives(objectives: str | Sequence[str] | Mapping[str, str]) -> tuple[Objective, ...]:
    """Objectives from ``{"name": "max" | "min"}``, a name, or names (to be maximised). Raises ``SearchError``."""
    if isinstance(objectives, str):
        objectives = (objectives,)
    if not isinstance(objectives, Mapping):
        objectives = dict.fromkeys(objectives, "max")
    for name, direction in objectives.items():
        if not isinstance(name, str) or not name or direction not in ("max", "min"):
            raise SearchError(f"objectives: {name!r} must be a name with 'max' or 'min', got {direction!r}")
    if not objectives:
        raise SearchError("objectives: a search needs at least one")
    return tuple(Objective(name, direction == "max") for name, direction in objectives.items())


def keeps(query: Query, measured: Sequence[Constraint]) -> bool:
    """Whether a query succeeded and keeps these constraints of measured values."""
    return query.value is not None and all(c.violation(query.values.get(c.name, np.nan)) == 0 for c in measured)


def points(queries: Sequence[Query], objectives: Sequence[Objective]) -> np.ndarray:
    """Values of successful queries turned so that smaller is better, float64 ``[len(queries), len(objectives)]``."""
    return np.array([[o.key(q.values[o.name]) for o in objectives] for q in queries]).reshape(len(queries), len(objectives))


def non_dominated(values: np.ndarray) -> np.ndarray:
    """Which rows of ``values`` ``[n, objectives]`` (smaller is better) no other row dominates, bool ``[n]``.

    A row dominates another if it is nowhere worse and somewhere better; equal rows do not dominate each other.
    """
    return front_numbers(values) == 0


def front_numbers(values: np.ndarray) -> np.ndarray:
    """Number of the front (0 is non-dominated) of each row of ``values`` ``[n, objectives]``, int ``[n]``.

    Rows are taken in lexicographic order, so that only earlier ones can dominate. Two objectives: a row goes to the first front
    whose smallest second value is larger than its own (O(n log n)). More: front after front is peeled off.
    """
    rows, which = np.unique(values, axis=0, return_inverse=True)
    numbers = np.arange(len(rows))
    if values.shape[1] == 2:
        smallest: list[float] = []
        for i, second in enumerate(rows[:, 1].tolist()):
            numbers[i] = bisect.bisect_right(smallest, second)
            smallest[numbers[i]:numbers[i] + 1] = [second]
    elif values.shape[1] > 2:
        numbers[:] = -1
        for front in itertools.count():
            rest = np.flatnonzero(numbers < 0)
            if not len(rest):
                break
            while len(rest):
                numbers[rest[0]] = front
                rest = rest[~(rows[rest[0]] <= rows[rest]).all(1)]
    return numbers[which.reshape(-1)]


def hypervolume(values: np.ndarray, reference: np.ndarray) -> float:
    """Volume that ``values`` ``[n, objectives]`` (smaller is better) dominate below ``reference`` ``[objectives]``.

    Computed by pymoo. A point that is not better than the reference in every objective adds nothing.

    Raises:
        SearchError: pymoo is not installed.
    """
    try:
        from pymoo.indicators.hv import HV
    except ImportError as e:
        raise SearchError("the hypervolume needs pymoo: pip install 'cgtransfer[search]'") from e
    return float(HV(ref_point=reference)(values)) if len(values) else 0.0
