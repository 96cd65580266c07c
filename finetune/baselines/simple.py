"""The cheap rivals that every result stands beside: chance, parameters, multiply-adds, trees on graph statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin

from cg.global_statistics import statistics
from cg.graph import Graph
from finetune.targets import check_labels, normal_scores


class RandomScore(RegressorMixin, BaseEstimator):
    """Uniform random scores; the floor."""

    label_units = False

    def __init__(self, random_state: int = 0) -> None:
        self.random_state = random_state

    def fit(self, graphs: Sequence[Graph], y: Any) -> RandomScore:
        """Learns nothing."""
        return self

    def predict(self, graphs: Sequence[Graph]) -> np.ndarray:
        """Scores ``[B]`` in [0, 1)."""
        return np.random.default_rng(self.random_state).random(len(graphs))


class CostScore(RegressorMixin, BaseEstimator):
    """A cost as the score: ``"params"``, ``"macs"`` or ``"activation_bytes"``; more is taken to be better."""

    label_units = False

    def __init__(self, cost: str = "params") -> None:
        self.cost = cost

    def fit(self, graphs: Sequence[Graph], y: Any) -> CostScore:
        """Learns nothing."""
        return self

    def predict(self, graphs: Sequence[Graph]) -> np.ndarray:
        """Scores ``[B]``."""
        return np.array([float(getattr(g, self.cost)) for g in graphs])


class TreesOnStatistics(RegressorMixin, BaseEstimator):
    """Extremely randomised trees on ``cg.statistics``, with normal scores as targets; sees the target's labels only."""

    label_units = False

    def __init__(self, n_estimators: int = 300, random_state: int = 0) -> None:
        self.n_estimators = n_estimators
        self.random_state = random_state

    def fit(self, graphs: Sequence[Graph], y: Any) -> TreesOnStatistics:
        """Learn from labels ``[B]``."""
        from sklearn.ensemble import ExtraTreesRegressor

        self.model_ = ExtraTreesRegressor(self.n_estimators, max_features=0.3, random_state=self.random_state, n_jobs=1)
        self.model_.fit(statistics(graphs), normal_scores(check_labels(graphs, y)))
        return self

    def predict(self, graphs: Sequence[Graph]) -> np.ndarray:
        """Scores ``[B]`` on the scale of normal scores."""
        return np.asarray(self.model_.predict(statistics(graphs)))
