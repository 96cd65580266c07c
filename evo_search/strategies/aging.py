"""``AgingEvolution``: the regularised evolution of Real et al., arXiv 1802.01548.

The population is the newest ``population_size`` networks: every child pushes out the oldest member, however good. A parent is
the best of ``sample_size`` random members, and a child is one edit away from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from evo_search._evolve_config import SearchError, positive_integers
from evo_search.strategies._base import Proposal, State, Strategy, proposals


@dataclass(frozen=True)
class AgingConfig:
    """Settings of ``AgingEvolution``; all counts are networks.

    Attributes:
        population_size: members, random networks at first; failed ones are no members.
        sample_size: members of a tournament; drawn with replacement.
        batch_size: children made from one population; 1 is the published algorithm, more keep as many workers busy.
    """

    population_size: int = 50
    sample_size: int = 10
    batch_size: int = 1

    def __post_init__(self) -> None:
        positive_integers(self, "population_size", "sample_size", "batch_size")
        if self.sample_size > self.population_size:
            raise SearchError(f"AgingConfig.sample_size must be at most population_size, {self.population_size}, "
                              f"got {self.sample_size}")


class AgingEvolution(Strategy):
    """Tournaments among the youngest."""

    name: ClassVar[str] = "aging"

    def __init__(self, settings: AgingConfig | None = None) -> None:
        self.settings: AgingConfig = settings or AgingConfig()

    def propose(self, state: State, rng: np.random.Generator) -> list[Proposal]:
        c = self.settings
        taken = set(state.taken)
        missing = c.population_size - len(state.ok)
        if missing > 0:
            return proposals(state.maker.random(missing, taken, rng), "initial")
        alive = {q.step for q in state.ok[-c.population_size:]}
        members = [q for q in state.ranked if q.step in alive]  # best first
        found: dict[str, Any] = {}
        for _ in range(c.batch_size):
            parent = members[int(rng.integers(len(members), size=c.sample_size).min())]
            found |= state.maker.children([state.genome(parent)], 1, taken, rng, crossover_rate=0.0, max_edits=1)
        if found:
            return proposals(found, "child")
        # a parent whose neighbours are all known: the fallback is a random network
        return proposals(state.maker.random(c.batch_size, taken, rng), "random")
