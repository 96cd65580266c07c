"""``NPENAS``: many children of each of the best networks, of which a predictor chooses those to ask about.

Source: Wei et al., arXiv 2003.12857, NPENAS-NP (the one whose predictor gives a value without uncertainty): parents are mutated
one-to-many into 100 candidates, the 10 best predicted are asked about, and the predictor is fitted again. Where the authors'
program (repository auroua/NPENASv1) takes all children of the best parent before it goes on to the next, here each of
``n_parents`` has its share.

Their graph isomorphism network on cells is replaced by the graph convolutional network of Neural Predictor (arXiv 1912.00848),
which ranks better, with 200 steps of at most 64 networks; spaces without cells have the k-GNN of ``finetune.baselines``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from evo_search._evolve_config import positive_integers
from evo_search.rivals import Rival, baseline
from evo_search.strategies._base import Proposal, State, one_objective, proposals
from evo_search.strategies._guide import GuidedStrategy, utilities


@dataclass(frozen=True)
class NPENASConfig:
    """Settings of ``NPENAS``; all counts are networks.

    Attributes:
        n_initial: random networks asked about at first.
        batch_size: networks asked about in one generation.
        n_parents: the best networks so far, which are mutated.
        n_candidates: children that the predictor chooses from; each is one edit away from a parent. Where the parents have
            fewer that are new, the next best networks are mutated too.
    """

    n_initial: int = 10
    batch_size: int = 10
    n_parents: int = 10
    n_candidates: int = 100

    def __post_init__(self) -> None:
        positive_integers(self, "n_initial", "batch_size", "n_parents", "n_candidates")


LEARNER = Rival("neural-predictor, 200 steps", "pruned", baseline("NeuralPredictor", width=64, batch=64, steps=200,
                                                                  learning_rate=1e-2, blank_new=True), without_cells="gnn")
"""What learns by default, from nothing after every batch."""


class NPENAS(GuidedStrategy):
    """Evolution in which a predictor chooses among the children.

    Args:
        predictor: see ``Guide``; by default ``LEARNER``.
        settings: see ``NPENASConfig``.
        view: what the predictor reads (``Guide``).
    """

    name: ClassVar[str] = "npenas"
    config: ClassVar[type] = NPENASConfig
    learner: ClassVar[str | Rival] = LEARNER
    settings: NPENASConfig

    def propose(self, state: State, rng: np.random.Generator) -> list[Proposal]:
        c, taken = self.settings, set(state.taken)
        objective = one_objective(state, self.name)
        if not self._guide.fit(state, state.ok, utilities(state, objective)):
            return proposals(state.maker.random(c.n_initial, taken, rng), "initial")
        share = math.ceil(c.n_candidates / min(c.n_parents, len(state.ranked)))
        found: dict[str, Any] = {}
        for place, parent in enumerate(state.ranked):
            missing = c.n_candidates - len(found)
            if not missing:
                break
            n = min(share, missing) if place < c.n_parents else missing
            found |= state.maker.children([state.genome(parent)], n, taken, rng, crossover_rate=0.0, max_edits=1)
        if not found:  # every neighbour of every network is known: the fallback is a random network
            return proposals(state.maker.random(c.batch_size, taken, rng), "random")
        genomes = list(found.values())
        scores = self._guide.scores(state, genomes)
        order = np.argsort(-scores, kind="stable")[:c.batch_size]
        return self._guide.proposals(state, [genomes[i] for i in order], "child", objective, scores[order])
