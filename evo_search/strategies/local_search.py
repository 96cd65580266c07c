"""``LocalSearch``: walk to a better neighbour until there is none, then start again elsewhere.

A neighbour is one edit away (``space.mutate``). White et al., arXiv 2005.02960, ask about every neighbour of a network and go
to the best one; spaces here cannot list neighbours, so some are drawn at a time, and a network counts as a local optimum
after ``patience`` worse ones. With ``batch_size`` 1 the walk goes to the first better neighbour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evo_search._evolve_config import positive_integers
from evo_search.strategies._base import Proposal, State, Strategy, proposals


@dataclass(frozen=True)
class LocalConfig:
    """Settings of ``LocalSearch``; all counts are networks.

    Attributes:
        n_starts: random networks of a start; the walk begins at the best of them.
        batch_size: neighbours asked about at a time.
        patience: neighbours of one network that may be no better before the walk starts again.
    """

    n_starts: int = 10
    batch_size: int = 10
    patience: int = 30

    def __post_init__(self) -> None:
        positive_integers(self, "n_starts", "batch_size", "patience")


class LocalSearch(Strategy):
    """Hill climbing with restarts. A walk is everything since the last query whose source is ``start``."""

    name: ClassVar[str] = "local"

    def __init__(self, settings: LocalConfig | None = None) -> None:
        self.settings: LocalConfig = settings or LocalConfig()

    def propose(self, state: State, rng: np.random.Generator) -> list[Proposal]:
        c = self.settings
        starts = [q.generation for q in state.queries if q.source == "start"]
        walk = [q for q in state.ranked if starts and q.generation >= max(starts)]
        if walk:
            here = walk[0]
            n = min(c.batch_size, c.patience - sum(q.generation > here.generation for q in state.queries))
            found = state.maker.children([state.genome(here)], n, set(state.taken), rng, crossover_rate=0.0, max_edits=1)
            if found:
                return proposals(found, "neighbour")
        return proposals(state.maker.random(c.n_starts, set(state.taken), rng), "start")
