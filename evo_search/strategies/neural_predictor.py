"""``NeuralPredictorSearch``: random networks, one fit, then the best predicted of a large random pool.

Source: Wen et al., arXiv 1912.00848, section 3: N random networks are asked about, a regressor is fitted to them, once, and
scores a large random sample, of which the best K are asked about. With ``two_stage`` a classifier filters the sample first
(section 3.2). ``soft_pareto`` looks for a front of accuracy and cost instead of one best network, as they do for ProxylessNAS
with N = 119, K = 137 and J = 6. That J counts the dominating networks, and how K are chosen along the front, is our reading.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from evo_search._evolve_config import SearchError, positive_integers
from evo_search.objectives import GRAPH_COSTS
from evo_search.strategies._base import Proposal, State, one_objective, proposals
from evo_search.strategies._guide import Guide, GuidedStrategy, utilities

if TYPE_CHECKING:
    from cg import Graph


@dataclass(frozen=True)
class NeuralPredictorConfig:
    """Settings of ``NeuralPredictorSearch``; all counts are networks.

    Attributes:
        n_initial: N, random networks that the predictor learns from.
        n_top: K, networks asked about by prediction; after them come further K, of a new pool by the same predictor.
        pool_size: random networks that are scored.
        two_stage: leave out what the predictor's classifier refuses (``passes(networks)``), unless it refuses everything.
        soft_pareto: J: the K networks come from those that fewer than J others of the pool dominate in predicted value and
            cost, 1 being the Pareto front: sorted by cost, they are cut into K parts, and the best predicted of each part is
            taken; where there are fewer than K of them, the least dominated. ``None`` takes the K best predicted.
    """

    n_initial: int = 50
    n_top: int = 20
    pool_size: int = 2000
    two_stage: bool = False
    soft_pareto: int | None = None

    def __post_init__(self) -> None:
        positive_integers(self, "n_initial", "n_top", "pool_size", *(() if self.soft_pareto is None else ("soft_pareto",)))
        if not isinstance(self.two_stage, bool):
            raise SearchError(f"NeuralPredictorConfig.two_stage must be true or false, got {self.two_stage!r}")


class NeuralPredictorSearch(GuidedStrategy):
    """Random sampling, then the top of a predictor that is fitted once.

    Args:
        predictor: see ``Guide``; by default the graph convolutional network of the paper.
        settings: see ``NeuralPredictorConfig``.
        view: what the predictor reads (``Guide``).
        cost: of a graph, for ``soft_pareto``: ``"macs"``, ``"params"`` or a deterministic function ``graph -> float``.

    Raises:
        SearchError: ``two_stage`` with a predictor without ``passes``, or a cost that cannot be computed.
    """

    name: ClassVar[str] = "neural-predictor"

    def __init__(self, predictor: Any = None, settings: NeuralPredictorConfig | None = None, view: str | None = None,
                 cost: str | Callable[[Graph], float] = "macs") -> None:
        self.settings: NeuralPredictorConfig = settings or NeuralPredictorConfig()
        if predictor is None:
            predictor = "neural-predictor-2stage" if self.settings.two_stage else "neural-predictor"
        if self.settings.two_stage and not (isinstance(predictor, str) or hasattr(predictor, "passes")):
            raise SearchError(f"two_stage needs a predictor with passes(networks); {predictor!r} has none")
        if not callable(cost) and cost not in GRAPH_COSTS:
            raise SearchError(f"cost must be one of {', '.join(GRAPH_COSTS)} or a function of a graph, got {cost!r}")
        self._guide, self._cost = Guide(predictor, view), cost

    def describe(self) -> dict[str, Any]:
        cost = self._cost if isinstance(self._cost, str) else getattr(self._cost, "__qualname__", type(self._cost).__qualname__)
        return {**super().describe(), "cost": cost}

    def propose(self, state: State, rng: np.random.Generator) -> list[Proposal]:
        c, taken = self.settings, set(state.taken)
        objective = state.objectives[0] if c.soft_pareto else one_objective(state, self.name)
        first = [i for i, q in enumerate(state.ok) if q.source == "initial"]
        if not self._guide.fit(state, [state.ok[i] for i in first], utilities(state, objective)[first]):
            return proposals(state.maker.random(c.n_initial, taken, rng), "initial")
        pool = list(state.maker.random(c.pool_size, taken, rng).values())
        if c.two_stage and pool:
            passed = np.asarray(self._guide.model.passes(self._guide.read(state, pool)), bool)
            pool = [g for g, good in zip(pool, passed, strict=True) if good or not passed.any()]
        scores = self._guide.scores(state, pool)
        if c.soft_pareto is None:
            chosen = np.argsort(-scores, kind="stable")[:c.n_top]
        else:
            costs = np.array([self._cost_of(state.graph(g)) for g in pool], np.float64)
            chosen = along_front(scores, costs, c.n_top, c.soft_pareto)
        return self._guide.proposals(state, [pool[i] for i in chosen], "predicted", objective, scores[chosen])

    def _cost_of(self, graph: Graph) -> float:
        return float(self._cost(graph) if callable(self._cost) else getattr(graph, self._cost))


def dominating(scores: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """How many others dominate each row: score (larger is better) and cost no worse, one of them better. int64 ``[n]``."""
    rows, which, counts = np.unique(np.stack([costs, -scores], 1), axis=0, return_inverse=True, return_counts=True)
    seen: list[float] = []  # of rows in lexicographic order only earlier ones can dominate
    numbers = np.zeros(len(rows), np.int64)
    for i, (worse, count) in enumerate(zip(rows[:, 1].tolist(), counts.tolist(), strict=True)):
        numbers[i] = bisect.bisect_right(seen, worse)
        for _ in range(count):
            bisect.insort(seen, worse)
    return numbers[which.reshape(-1)]


def along_front(scores: np.ndarray, costs: np.ndarray, n: int, j: int) -> np.ndarray:
    """Positions of up to ``n`` rows that fewer than ``j`` others dominate, spread over the cost; see ``soft_pareto``."""
    numbers = dominating(scores, costs)
    near = np.flatnonzero(numbers < j)
    if len(near) <= n:
        return np.lexsort((-scores, numbers))[:n]
    parts = np.array_split(near[np.lexsort((-scores[near], costs[near]))], n)
    return np.array([part[scores[part].argmax()] for part in parts])
