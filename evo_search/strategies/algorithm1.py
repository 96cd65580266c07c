"""``Algorithm1``: predictor-guided evolution after Algorithm 1 of arXiv 2302.10835.

One generation: make children of the best networks found (mutation, crossover) and random ones, and let the predictor choose
among those never asked about. This file must not know a particular space, oracle or predictor, and must not import a
deep-learning framework.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from evo_search._evolve_config import EvolveConfig, SearchError
from evo_search._records import Predicted
from evo_search.strategies._base import (
    Proposal,
    State,
    Strategy,
    bred,
    candidates,
    describe_predictor,
    one_objective,
    predictions,
    proposals,
)

if TYPE_CHECKING:
    from cg import Graph


class Predictor(Protocol):
    """A scikit-learn-like regressor over graphs. ``fit`` must depend on its arguments and settings alone."""

    def fit(self, graphs: Sequence[Graph], y: np.ndarray) -> Any:
        """Learn from ``n`` graphs and values ``[n]``, forgetting earlier ones."""
        ...

    def predict(self, graphs: Sequence[Graph]) -> np.ndarray:
        """Scores ``[n]`` on the scale or at least in the order of ``y``; may offer ``return_std=True``.

        Where the predictor also has ``predict_normal(graphs) -> (mean [n], standard deviation [n])``, in the order of ``y``
        on a scale of normal shape, that is used instead. In label units a deviation grows with the long tail of bad
        networks (one that will reach 60 or 80 % is less certain than one near 93 %), and mean plus deviations sends the
        search there; on such a scale it does not.
        """
        ...


class Algorithm1(Strategy):
    """Evolution that asks about what a predictor likes among the children of the best networks.

    Args:
        predictor: fitted on the graphs and values asked so far; ``None`` asks about children of the best, unfiltered.
        settings: see ``EvolveConfig``; its ``maximize`` is for ``evolve`` alone, a study's objectives say it here.

    Raises:
        SearchError: the predictor cannot fit or predict. Whatever the predictor raises passes through ``propose``.
    """

    name: ClassVar[str] = "algorithm1"

    def __init__(self, predictor: Predictor | None = None, settings: EvolveConfig | None = None) -> None:
        for name in ("fit", "predict"):
            if predictor is not None and not callable(getattr(predictor, name, None)):
                raise SearchError(f"a predictor needs fit(graphs, y) and predict(graphs); {predictor!r} has no {name}")
        self.settings: EvolveConfig = settings or EvolveConfig()
        self._predictor = predictor
        self._taught: tuple[str, ...] = ()  # the networks that the predictor has learned from; spares a fit, decides nothing
        self._normal: Callable[[Sequence[Graph]], Any] | None = getattr(predictor, "predict_normal", None)
        self._with_std = (predictor is not None and self.settings.kappa != 0
                          and "return_std" in inspect.signature(predictor.predict).parameters)

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "predictor": describe_predictor(self._predictor),
                **({} if getattr(self._predictor, "label_units", True) else {"predicts": "score"})}

    def propose(self, state: State, rng: np.random.Generator) -> list[Proposal]:
        one_objective(state, self.name)
        c = self.settings
        taken = set(state.taken)
        if state.generation == 0:
            return proposals(state.maker.random(c.n_initial, taken, rng), "initial")
        parents = [state.genome(q) for q in state.ranked[:c.n_parents]]
        n_explore = round(c.explore_rate * c.batch_size)
        n_evolved = c.batch_size - n_explore
        n_chosen = n_evolved - min(round(c.breed_rate * c.batch_size), n_evolved)
        evolved: dict[str, Any] = {}
        if n_chosen and self._predictor is not None and self._fit(state):
            evolved = self._predicted_best(state, parents, n_chosen, taken, rng)
        taken |= evolved.keys()
        said = self._predicted(state, evolved)
        evolved |= bred(state, c, parents, n_evolved - len(evolved), taken, rng)
        # the fallback for a space in which breeding finds nothing new: fill the batch at random
        explored = state.maker.random(c.batch_size - len(evolved), taken, rng)
        return proposals(evolved, "evolved", said) + proposals(explored, "random")

    def _fit(self, state: State) -> bool:
        """Fit the predictor; ``False`` while the values cannot teach anything (fewer than two different ones)."""
        assert self._predictor is not None
        rows = [q for q in state.ok if self.settings.refit or q.source == "initial"]
        y = np.array([q.value for q in rows], np.float64)
        if len(np.unique(y)) < 2:
            return False
        keys = tuple(q.key for q in rows)
        if self.settings.refit or keys != self._taught:
            self._predictor.fit([state.graph(state.genome(q)) for q in rows], y)
        self._taught = keys
        return True

    def _predicted_best(self, state: State, parents: Sequence[Any], n: int, taken: set[str],
                        rng: np.random.Generator) -> dict[str, Any]:
        """The ``n`` networks of the highest score among ``rounds`` pools, key -> genome."""
        c = self.settings
        pool: dict[str, Any] = {}
        scores: dict[str, float] = {}
        seen = set(taken)
        for _ in range(c.rounds):
            new = candidates(state, c, parents, seen, rng)
            if not new:
                break
            scores.update(zip(new, self._score(state, list(new.values())), strict=True))
            pool |= new
            best = sorted(pool, key=lambda key: -scores[key])  # stable: equals stay in the order they were found
            parents = [pool[key] for key in best[:c.n_parents]]
        return {key: pool[key] for key in sorted(pool, key=lambda key: -scores[key])[:n]}

    def _predicted(self, state: State, chosen: Mapping[str, Any]) -> dict[str, Predicted]:
        """By key, what ``predict`` says of the chosen networks, in label units; the deviation where it counted."""
        if not chosen or self._predictor is None:
            return {}
        graphs, std = [state.graph(g) for g in chosen.values()], None
        if self._with_std:
            mean, std = self._predictor.predict(graphs, return_std=True)  # type: ignore[call-arg]
        else:
            mean = self._predictor.predict(graphs)
        return dict(zip(chosen, predictions(state.objectives[0], mean, std), strict=True))

    def _score(self, state: State, genomes: Sequence[Any]) -> list[float]:
        """Larger is better; a prediction that is not a number comes last."""
        assert self._predictor is not None
        graphs = [state.graph(g) for g in genomes]
        sign = 1.0 if state.objectives[0].maximize else -1.0
        std: Any = 0.0
        if self._normal is not None:
            mean, std = self._normal(graphs)
        elif self._with_std:
            mean, std = self._predictor.predict(graphs, return_std=True)  # type: ignore[call-arg]
        else:
            mean = self._predictor.predict(graphs)
        score = sign * np.asarray(mean, np.float64) + self.settings.kappa * np.asarray(std, np.float64)
        if score.shape != (len(graphs),):
            raise SearchError(f"the predictor gave scores of shape {score.shape} for {len(graphs)} graphs")
        return [float(s) for s in np.where(np.isnan(score), -np.inf, score)]
