"""``NSGA2``: the elitist evolution of Deb et al. for several objectives.

Source: Deb, Pratap, Agarwal, Meyarivan, IEEE Transactions on Evolutionary Computation 6(2), 2002: non-dominated sorting,
crowding distance, binary tournaments, and constrained domination (section VI: what keeps the constraints beats what does not,
among those that do not the smaller violation wins). Sorting and crowding distance are pymoo's. The population is computed again
from the record, generation by generation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar

import numpy as np

from evo_search._candidates import TRIES_PER_CANDIDATE
from evo_search._evolve_config import SearchError, positive_integers, rates
from evo_search._records import Query
from evo_search.objectives import points
from evo_search.strategies._base import Proposal, State, Strategy, proposals


@dataclass(frozen=True)
class NSGA2Config:
    """Settings of ``NSGA2``.

    Attributes:
        population_size: networks that survive, and queries of one generation; random ones at first.
        crossover_rate: probability that a child has two parents; else it is a copy of one, before it is mutated.
        mutation_rate: probability that a child is edited once; one that is a copy always is.
    """

    population_size: int = 20
    crossover_rate: float = 0.9
    mutation_rate: float = 0.5

    def __post_init__(self) -> None:
        positive_integers(self, "population_size")
        rates(self, "crossover_rate", "mutation_rate")


class NSGA2(Strategy):
    """Any number of objectives, by their measured values. Needs pymoo (``cgtransfer[search]``)."""

    name: ClassVar[str] = "nsga2"

    def __init__(self, settings: NSGA2Config | None = None) -> None:
        self.settings: NSGA2Config = settings or NSGA2Config()

    def propose(self, state: State, rng: np.random.Generator) -> list[Proposal]:
        c, taken = self.settings, set(state.taken)
        members: list[Query] = []
        for _, queries in groupby(state.ok, key=lambda q: q.generation):
            members = survivors([*members, *queries], state, c.population_size)
        if not members:
            return proposals(state.maker.random(c.population_size, taken, rng), "initial")
        genomes = [state.genome(q) for q in members]
        found: dict[str, Proposal] = {}
        for _ in range(TRIES_PER_CANDIDATE * c.population_size):
            if len(found) == c.population_size:
                break
            child, parents = self._child(state, genomes, rng)
            if state.is_new(child):
                found.setdefault(state.key(child), Proposal(child, "child", parents))
        taken |= found.keys()
        # the fallback for a population whose children are all known
        rest = state.maker.random(c.population_size - len(found), taken, rng)
        return [*found.values(), *proposals(rest, "random")]

    def _child(self, state: State, genomes: Sequence[Any], rng: np.random.Generator) -> tuple[Any, tuple[Any, ...]]:
        """A child of the winners of binary tournaments, and who they are; ``genomes`` are ordered best first, so the lower
        place wins."""
        a, b = (genomes[int(rng.integers(len(genomes), size=2).min())] for _ in range(2))
        crossed = a != b and rng.random() < self.settings.crossover_rate
        child = state.space.crossover(a, b, rng) if crossed else a
        if not crossed or rng.random() < self.settings.mutation_rate:
            child = state.space.mutate(child, rng)
        return child, (a, b) if crossed else (a,)


def survivors(queries: Sequence[Query], state: State, n: int) -> list[Query]:
    """The ``n`` best of successful ``queries``, best first: by front and, within one, by crowding distance, largest first; then
    those that break a measured constraint, by violation. The earlier of equals first.

    Raises:
        SearchError: pymoo is not installed.
    """
    try:
        from pymoo.operators.survival.rank_and_crowding.metrics import calc_crowding_distance
        from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting
    except ImportError as e:
        raise SearchError("nsga2 needs pymoo: pip install 'cgtransfer[search]'") from e
    good = [q for q in queries if state.violation(q) == 0]
    best: list[Query] = []
    values = points(good, state.objectives)
    for front in NonDominatedSorting().do(values) if good else ():
        if len(best) >= n:
            break
        rows = np.sort(front)
        distance = calc_crowding_distance(values[rows]) if len(rows) > 2 else np.full(len(rows), np.inf)
        best += [good[rows[i]] for i in np.argsort(-distance, kind="stable")]
    bad = sorted((q for q in queries if state.violation(q) > 0), key=lambda q: (state.violation(q), q.step))
    return [*best, *bad][:n]
