"""Strategies on the toy space of 375 networks, and what the tests of each of them share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import toy_search_space as toy

from evo_search.strategies import Strategy
from evo_search.strategies.brp import BRPConfig, BRPSearch
from evo_search.strategies.neural_predictor import NeuralPredictorConfig, NeuralPredictorSearch
from evo_search.strategies.npenas import NPENAS, NPENASConfig
from evo_search.strategies.nsga2 import NSGA2, NSGA2Config
from evo_search.strategies.ours import CGConfig, CGSearch
from evo_search.strategies.reinforce import Reinforce, ReinforceConfig
from evo_search.study import Study


class Space(toy.ToySpace):
    """The toy space, written choice by choice."""

    def choices(self) -> tuple[int, ...]:
        return (5, 5, 5, 5)

    def from_choices(self, options: Sequence[int]) -> toy.Genome:
        return tuple(map(int, options))  # type: ignore[return-value]

    def to_choices(self, a: toy.Genome) -> tuple[int, ...]:
        return a


STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "reinforce": lambda: Reinforce(ReinforceConfig(batch_size=8, hidden=16, learning_rate=0.05)),
    "softmax": lambda: Reinforce(ReinforceConfig("softmax", batch_size=8)),
    "neural-predictor": lambda: NeuralPredictorSearch(toy.RidgePredictor(), NeuralPredictorConfig(20, 10, 150)),
    "brp": lambda: BRPSearch(toy.RidgePredictor(), BRPConfig(32, 4, 0.5, 100, 8)),
    "npenas": lambda: NPENAS(toy.RidgePredictor(), NPENASConfig(10, 8, 5, 30)),
    "nsga2": lambda: NSGA2(NSGA2Config(10)),
    "cg": lambda: CGSearch(toy.RidgePredictor(), CGConfig(n_initial=12, batch_size=8, n_parents=6, pool_size=60)),
}
ALL = sorted(STRATEGIES)
GUIDED = ["brp", "cg", "neural-predictor", "npenas"]


def identity(a: toy.Genome) -> str:
    """The order of the branches does not matter; spares the graph."""
    return "-".join(map(str, (*sorted(a[:2]), *a[2:])))


def start(strategy: str | Strategy, seed: int = 0, **arguments: Any) -> Study:
    made = STRATEGIES[strategy]() if isinstance(strategy, str) else strategy
    return Study(Space(), made, seed=seed, key=identity, **arguments)


def last(study: Study, n: int = 20) -> float:
    """Mean of the last values."""
    return float(np.mean([q.value for q in study.history.queries[-n:] if q.value is not None]))


def two(a: toy.Genome) -> dict[str, float]:
    """A front that is known: all with equal branches of 3, gene 2 = 3, any gene 3 (accuracy against size)."""
    return {"acc": -((a[0] - 3.0) ** 2) - (a[1] - 3.0) ** 2 - (a[2] - 3.0) ** 2 + a[3], "size": float(a[3])}


def relus(graph: Any) -> float:
    return float(graph.name[-1])
