"""``BRPSearch``: rounds of queries, each chosen by a predictor that learned from those before; then the top of the ranking.

Source: Dudziak et al. (BRP-NAS), arXiv 2007.08668, section 4 and Algorithm 1, by the rule of ``iterative.next_batch``: of a
round the share ``alpha`` are the best by prediction, the others are drawn from the best ``1 / 2**round``. After the rounds the
predictor learns once more, from their answers alone, and what is left of the budget goes to the top of its ranking.

Different: they rank all networks of a table; here those that were asked about and ``pool_size`` random ones, new in every
generation. Every round trains a fresh predictor, theirs is trained on. Their latency limit is a ``Constraint`` of the study,
of a function that predicts it from the graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evo_search._evolve_config import SearchError, positive_integers, rates
from evo_search.rivals import Rival, baseline
from evo_search.strategies._base import Proposal, State, one_objective, proposals
from evo_search.strategies._guide import GuidedStrategy, utilities


@dataclass(frozen=True)
class BRPConfig:
    """Settings of ``BRPSearch``; all counts are networks.

    Attributes:
        learn: queries that the rounds share, which are all that the predictor ever learns from.
        iterations: rounds; the first is random.
        alpha: share of a round that is taken from the top.
        pool_size: random networks that are ranked in one round.
        batch_size: queries in one generation after the rounds, all from the top.
    """

    learn: int = 60
    iterations: int = 5
    alpha: float = 0.5
    pool_size: int = 1000
    batch_size: int = 10

    def __post_init__(self) -> None:
        positive_integers(self, "learn", "iterations", "pool_size", "batch_size")
        rates(self, "alpha")
        if self.iterations > self.learn:
            raise SearchError(f"BRPConfig.iterations must be at most learn, {self.learn}, got {self.iterations}")


LEARNER = Rival("brp, 100 epochs", "pruned", baseline("BRPBinaryRelation", width=300, epochs=100, learning_rate=2e-3,
                                                      blank_new=True), label_units=False)
"""What learns by default: the binary relation, half as wide and with fewer, longer steps than in the paper. From 60 labels it
ranks as well, in a quarter of the time."""


class BRPSearch(GuidedStrategy):
    """Iterative data selection.

    Args:
        predictor: see ``Guide``; by default ``LEARNER``; ``"brp"`` is the binary relation as published.
        settings: see ``BRPConfig``.
        view: what the predictor reads (``Guide``).
    """

    name: ClassVar[str] = "brp"
    config: ClassVar[type] = BRPConfig
    learner: ClassVar[str | Rival] = LEARNER
    settings: BRPConfig

    def propose(self, state: State, rng: np.random.Generator) -> list[Proposal]:
        from evo_search.iterative import next_batch

        c, taken, number = self.settings, set(state.taken), state.generation
        objective = one_objective(state, self.name)
        last = number >= c.iterations
        size = c.batch_size if last else c.learn // c.iterations + (number < c.learn % c.iterations)
        y, learned = utilities(state, objective), np.array([q.generation < c.iterations for q in state.ok], bool)
        if len(np.unique(y[learned])) < 2:  # rounds without an answer to learn from: what came later has to do
            learned[:] = True
        rows = [q for q, use in zip(state.ok, learned, strict=True) if use]
        if not number or not self._guide.fit(state, rows, y[learned]):
            return proposals(state.maker.random(size, taken, rng), "initial")
        known = [state.genome(q) for q in state.ok]
        networks = known + list(state.maker.random(c.pool_size, taken, rng).values())
        asked = np.arange(len(networks)) < len(known)
        scores = self._guide.scores(state, networks)
        batch = next_batch(scores, asked, size, rng, alpha=1.0 if last else c.alpha,
                           among=0.5 ** min(number, c.iterations))
        return self._guide.proposals(state, [networks[i] for i in batch], "predicted", objective, scores[batch])
