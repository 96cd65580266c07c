"""What a strategy is: one method that looks at the record and says what to ask about next.

A strategy has no memory of its own. It sees everything as a ``State``, takes every random choice from the generator it is
given, and so makes the same proposals again after a resume. This file must not know a particular strategy, space or oracle.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from evo_search._candidates import CandidateMaker, GraphCache
from evo_search._evolve_config import SearchError
from evo_search._records import Predicted, Query
from evo_search.objectives import Constraint, Objective, front_numbers, points

if TYPE_CHECKING:
    from cg import Graph
    from evo_search.spaces._base import SearchSpace


@dataclass(frozen=True)
class Proposal:
    """A genome to ask about, and where it came from in one word of the strategy's choice.

    Attributes:
        parents: genomes it was made from, for the record; of what ``state.maker`` made the study knows them without.
        predicted: ``{objective: (mean, standard deviation or None)}`` that a predictor said of it, in the unit of the
            objective or, where ``describe()`` has ``"predicts": "score"``, as a score that only orders; for the record.
    """

    genome: Any
    source: str
    parents: Sequence[Any] = ()
    predicted: Predicted = field(default_factory=dict, hash=False)


class Strategy(ABC):
    """Decides what a search asks about next.

    Attributes:
        name: what the history calls it, and the name in ``list_strategies()`` of a registered one.
        settings: a frozen dataclass of JSON values, or ``None``; a history is not continued with other settings.
    """

    name: ClassVar[str]
    settings: Any = None

    @abstractmethod
    def propose(self, state: State, rng: np.random.Generator) -> list[Proposal]:
        """The next generation, best first; an empty list where there is nothing left to ask.

        Must depend on ``state`` and ``rng`` alone. Networks that are invalid, break a constraint of the graph or were asked
        about are dropped from the list, as are repeats; ``state.maker`` makes none of them. Where all are dropped, the method
        is called again, 20 times at most, before the search ends.
        """

    def describe(self) -> dict[str, Any]:
        """JSON values that tell this strategy from another."""
        return {"kind": self.name, **({} if self.settings is None else {"config": asdict(self.settings)})}


class State:
    """A read-only view of a search between two generations.

    Attributes:
        space: the search space.
        generation: number of the generation to propose, from 0.
        budget_left: queries left, or ``None`` where nobody set a budget.
        objectives, constraints: of the study.
        queries: every query so far, failed ones included, in the order of the plan (never of arrival).
        maker: makes random networks and children that are valid, keep the constraints of the graph and are not in ``taken``.
    """

    def __init__(self, space: SearchSpace[Any], cache: GraphCache, queries: Sequence[Query], *, generation: int,
                 budget_left: int | None, objectives: Sequence[Objective], constraints: Sequence[Constraint],
                 accept: Callable[[Any], bool] | None) -> None:
        self.space, self.queries, self.generation, self.budget_left = space, tuple(queries), generation, budget_left
        self.objectives, self.constraints = tuple(objectives), tuple(constraints)
        self.maker = CandidateMaker(space, cache, accept, self.taken)
        self._cache, self._accept = cache, accept

    @cached_property
    def ok(self) -> tuple[Query, ...]:
        """The queries that gave a value."""
        return tuple(q for q in self.queries if q.value is not None)

    @cached_property
    def failed(self) -> tuple[Query, ...]:
        """The queries that did not."""
        return tuple(q for q in self.queries if q.value is None)

    @cached_property
    def taken(self) -> frozenset[str]:
        """Keys of all networks asked about; ``set(state.taken)`` is what ``maker`` adds to."""
        return frozenset(q.key for q in self.queries)

    def genome(self, query: Query) -> Any:
        """The genome of a query."""
        return self.space.decode(query.genome)

    def graph(self, genome: Any) -> Graph:
        """The graph of a genome, built at most once while it is remembered."""
        return self._cache.graph(genome)

    def key(self, genome: Any) -> str:
        """The identity of a genome: isomorphic genomes share it."""
        return self._cache.key(genome)

    def values(self, name: str | None = None) -> np.ndarray:
        """Values of ``ok`` by name, by default of the first objective, float64 ``[len(ok)]``; NaN where one is missing."""
        name = name or self.objectives[0].name
        return np.array([q.values.get(name, np.nan) for q in self.ok], np.float64)

    def is_new(self, genome: Any) -> bool:
        """Whether a genome is valid, keeps the constraints of the graph and was not asked about."""
        return (self.space.is_valid(genome) and (self._accept is None or self._accept(genome))
                and self.key(genome) not in self.taken)

    def violation(self, query: Query) -> float:
        """How far measured values are outside of their bounds, 0 where all are kept."""
        return sum(c.violation(query.values.get(c.name, np.nan)) for c in self.constraints if not c.of_graph)

    @cached_property
    def _by_front(self) -> tuple[list[Query], np.ndarray]:
        """The queries of ``ok`` that keep the constraints, and the number of the front of each."""
        good = [q for q in self.ok if self.violation(q) == 0]
        return good, front_numbers(points(good, self.objectives))

    @cached_property
    def front(self) -> tuple[Query, ...]:
        """The first of ``ranked``: those that no other dominates; with one objective, the best and its equals."""
        good, fronts = self._by_front
        return tuple(good[i] for i in np.flatnonzero(fronts == 0))

    @cached_property
    def ranked(self) -> tuple[Query, ...]:
        """``ok`` from best to worst: those that keep the constraints by front (one objective: by value), then the others by
        violation; the earlier of equals first."""
        good, fronts = self._by_front
        bad = sorted((q for q in self.ok if self.violation(q) > 0), key=lambda q: (self.violation(q), q.step))
        return (*(good[i] for i in np.argsort(fronts, kind="stable")), *bad)


def proposals(found: Mapping[str, Any], source: str, predicted: Mapping[str, Predicted] | None = None) -> list[Proposal]:
    """Networks of ``state.maker``, key -> genome, as proposals; ``predicted`` by key, where there are predictions."""
    return [Proposal(genome, source, predicted=(predicted or {}).get(key, {})) for key, genome in found.items()]


def predictions(objective: Objective, mean: Sequence[float] | np.ndarray,
                std: Sequence[float] | np.ndarray | None = None) -> list[Predicted]:
    """``predicted`` of ``[n]`` networks for one objective; empty where the mean is no number."""
    spread = np.full(len(mean), np.nan) if std is None else np.asarray(std, np.float64)
    return [{objective.name: (float(m), float(s) if np.isfinite(s) else None)} if np.isfinite(m) else {}
            for m, s in zip(np.asarray(mean, np.float64), spread, strict=True)]


def one_objective(state: State, strategy: str) -> Objective:
    """The objective of the study. Raises ``SearchError`` where it has several."""
    if len(state.objectives) != 1:
        raise SearchError(f"{strategy} searches for one objective, this study has {len(state.objectives)}; use nsga2 or cg, or "
                          "bound all but one by constraints")
    return state.objectives[0]


def bred(state: State, settings: Any, parents: Sequence[Any], n: int, taken: set[str],
         rng: np.random.Generator) -> dict[str, Any]:
    """Up to ``n`` new children of ``parents`` with ``crossover_rate`` and ``max_edits`` of ``settings``, key -> genome."""
    return state.maker.children(parents, n, taken, rng, crossover_rate=settings.crossover_rate, max_edits=settings.max_edits)


def candidates(state: State, settings: Any, parents: Sequence[Any], taken: set[str],
               rng: np.random.Generator) -> dict[str, Any]:
    """``pool_size`` new networks, key -> genome: children of ``parents`` and, for ``random_rate`` of them, random ones."""
    n_random = round(settings.random_rate * settings.pool_size)
    new = bred(state, settings, parents, settings.pool_size - n_random, taken, rng)
    return new | state.maker.random(n_random, taken, rng)


def describe_predictor(predictor: Any) -> dict[str, Any]:
    """JSON values that tell one predictor from another: its class and its plain parameters."""
    if predictor is None:
        return {"kind": "none"}
    params = predictor.get_params(deep=False) if hasattr(predictor, "get_params") else {}
    plain = {k: v for k, v in params.items() if v is None or isinstance(v, (bool, int, float, str))}
    return {"kind": type(predictor).__qualname__, **plain}
