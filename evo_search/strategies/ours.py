"""``CGSearch``: a predictor with uncertainty chooses batches that are promising and diverse, and is fitted again after each.

Candidates are bred as in ``algorithm1`` and chosen as in ``strategies._batches``: by upper confidence bounds, or with two
objectives by the expected improvement of the hypervolume. How much a choice says about others is that of a Gaussian process
with a squared exponential kernel on the graph statistics, in place of the predictor's own posterior. With several objectives
one predictor learns each, and the whole front are parents, also where it is larger than ``n_parents``.

This file must not know a particular space or oracle, and must not import a deep-learning framework.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from evo_search._evolve_config import SearchError, positive_integers, rates
from evo_search._records import Predicted
from evo_search.objectives import Constraint
from evo_search.strategies._base import Proposal, State, bred, candidates, proposals
from evo_search.strategies._batches import Front, batch
from evo_search.strategies._guide import Guide, GuidedStrategy, utilities

PENALTY = 10.0  # deviations that a predicted relative violation of 1 costs


@dataclass(frozen=True)
class CGConfig:
    """Settings of ``CGSearch``; all counts are networks.

    Attributes:
        n_initial, batch_size, n_parents, pool_size, rounds, crossover_rate, max_edits, random_rate, breed_rate, kappa: as in
            ``EvolveConfig``.
        front_kappa: with two objectives, in the place of ``kappa``: how many times a deviation counts in the expected
            improvement; below 1, or what is hopeless but uncertain is asked about too often.
        learn_share: share of the answered networks, the best ones, that objectives are learned from, ``n_initial`` at least.
            What is far from any front can obey other rules, and teach these.
        learn_recent: and all of the last so many batches, or what was found not to be good is asked for again.
        similarity: length scale of the kernel, in units of the median distance between candidates; small values only keep
            near copies apart, 0 chooses as if candidates had nothing to do with each other.
    """

    n_initial: int = 20
    batch_size: int = 10
    n_parents: int = 20
    pool_size: int = 400
    rounds: int = 2
    crossover_rate: float = 0.3
    max_edits: int = 3
    random_rate: float = 0.25
    breed_rate: float = 0.3
    kappa: float = 2.0
    front_kappa: float = 0.4
    similarity: float = 0.5
    learn_share: float = 1.0
    learn_recent: int = 3

    def __post_init__(self) -> None:
        positive_integers(self, "n_initial", "batch_size", "n_parents", "pool_size", "rounds", "max_edits", "learn_recent")
        rates(self, "crossover_rate", "random_rate", "breed_rate", "learn_share")
        for name in ("kappa", "front_kappa", "similarity"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value) or value < 0:
                raise SearchError(f"CGConfig.{name} must be a finite number of at least 0, got {value!r}")


class CGSearch(GuidedStrategy):
    """Batches that are promising and diverse, for one objective or several.

    Measured constraints are learned too: a candidate pays for the violation that is predicted.

    Args:
        predictor: see ``Guide``; by default ``CGPredictor`` that has seen nothing of the space's own family.
        settings: see ``CGConfig``.
        view: what the predictor reads (``Guide``).
    """

    name: ClassVar[str] = "cg"
    config: ClassVar[type] = CGConfig
    learner: ClassVar[str] = "default"
    settings: CGConfig

    def __init__(self, predictor: Any = None, settings: CGConfig | None = None, view: str | None = None) -> None:
        super().__init__(predictor, settings, view)
        self._spare = self._guide.another()  # of which nothing is ever fitted
        self._guides: dict[str, Guide] = {}

    def propose(self, state: State, rng: np.random.Generator) -> list[Proposal]:
        c, taken = self.settings, set(state.taken)
        if not state.ok:
            return proposals(state.maker.random(c.n_initial, taken, rng), "initial")
        n_bred = min(round(c.breed_rate * c.batch_size), c.batch_size)
        # of a front all are parents: the first few in the order of the plan would be no fair sample of it
        parents = [state.genome(q) for q in state.ranked[:max(c.n_parents, len(state.front))]]
        chosen = self._chosen(state, parents, c.batch_size - n_bred, taken, rng)
        taken |= chosen.keys()
        children = bred(state, c, parents, c.batch_size - len(chosen), taken, rng)
        # the fallback for a space in which breeding finds nothing new
        rest = state.maker.random(c.batch_size - len(chosen) - len(children), taken, rng)
        return [*proposals(chosen, "chosen", self._predicted(state, chosen)), *proposals(children, "bred"),
                *proposals(rest, "random")]

    def _predicted(self, state: State, chosen: Mapping[str, Any]) -> dict[str, Predicted]:
        """By key, what the predictor of every objective that could be learned says in the objective's unit."""
        found: dict[str, Predicted] = {key: {} for key in chosen}
        rows = self._taught(state)
        for objective in state.objectives:
            if len(np.unique(state.values(objective.name)[rows])) > 1:  # else it was not fitted
                said = self._of(objective.name).predicted(state, list(chosen.values()), objective)
                found = {key: {**found[key], **one} for key, one in zip(chosen, said, strict=True)}
        return found

    def _taught(self, state: State) -> list[int]:
        """Which of ``state.ok`` objectives are learned from."""
        c, n = self.settings, len(state.ok)
        better = {q.step for q in state.ranked[:max(c.n_initial, round(c.learn_share * n))]}
        recent = max(c.n_initial, n - c.learn_recent * c.batch_size)
        return [i for i, q in enumerate(state.ok) if i >= recent or q.step in better]

    def _of(self, name: str) -> Guide:
        if name not in self._guides:
            self._guides[name] = self._spare.another() if self._guides else self._guide
        return self._guides[name]

    def _chosen(self, state: State, parents: Sequence[Any], n: int, taken: set[str],
                rng: np.random.Generator) -> dict[str, Any]:
        """Up to ``n`` candidates, key -> genome; none while the values cannot teach anything."""
        c, known = self.settings, {o.name: utilities(state, o) for o in state.objectives}
        rows = self._taught(state)
        taught = [state.ok[i] for i in rows]
        known = {name: y for name, y in known.items() if self._of(name).fit(state, taught, y[rows])}
        if not n or not known:
            return {}
        limits = self._limits(state)
        front = None
        if len(known) == 2 and self._guide.in_units:
            good = np.array([state.violation(q) == 0 for q in state.ok])
            front = Front(np.stack(list(known.values()), 1)[good if good.any() else ~good])
        unit = front.extent if front else np.ones(len(known))
        least = (front.low if front else 0.0) - 1e6 * unit  # what stands for -inf
        pool: dict[str, Any] = {}
        means, stds = np.zeros((0, len(known))), np.zeros((0, len(known)))
        seen = set(taken)
        for number in range(c.rounds):
            new = candidates(state, c, parents, seen, rng)
            if not new:
                break
            genomes = list(new.values())
            found = [self._of(name).with_std(state, genomes, y, in_units=front is not None) for name, y in known.items()]
            worse = PENALTY * self._violation(state, genomes, limits)[:, None] * unit
            means = np.vstack([means, np.maximum(np.stack([mean for mean, _ in found], 1), least) - worse])
            stds = np.vstack([stds, np.stack([std for _, std in found], 1)])
            pool |= new
            if number < c.rounds - 1:
                keys = list(pool)
                best = self._batch(front, means, stds, None, c.n_parents, rng)
                parents = [pool[keys[i]] for i in best]
        if not pool:
            return {}
        keys = list(pool)
        near = None
        if c.similarity and c.kappa:
            near = places(state, [pool[k] for k in keys], c.similarity)
        return {keys[i]: pool[keys[i]] for i in self._batch(front, means, stds, near, n, rng)}

    def _batch(self, front: Front | None, means: np.ndarray, stds: np.ndarray, near: np.ndarray | None, n: int,
               rng: np.random.Generator) -> list[int]:
        if front is None:
            return batch(means, stds, near, n, self.settings.kappa, rng)
        return front.batch(means, stds, near, n, self.settings.front_kappa)

    def _limits(self, state: State) -> list[Constraint]:
        """The measured constraints whose values can be predicted, their predictors being fitted."""
        found = []
        for limit in state.constraints:
            if not limit.of_graph and self._of(f"limit {limit.name}").fit(state, state.ok, state.values(limit.name)):
                found.append(limit)
        return found

    def _violation(self, state: State, genomes: Sequence[Any], limits: Sequence[Constraint]) -> np.ndarray:
        """Predicted relative violation ``[n]`` of measured constraints."""
        total = np.zeros(len(genomes))
        for limit in limits:
            values = self._of(f"limit {limit.name}").scores(state, genomes)
            total += [limit.violation(float(v)) if np.isfinite(v) else 1.0 for v in values]
        return np.minimum(total, 100.0)


def places(state: State, genomes: Sequence[Any], similarity: float) -> np.ndarray:
    """Standardised graph statistics ``[n, d]``, divided by ``similarity`` times their median distance."""
    from scipy.spatial.distance import pdist

    from cg.recent_statistics import recent_statistics

    x = recent_statistics([state.graph(g) for g in genomes]).astype(np.float64)
    spread = x.std(0)
    used = spread > 1e-6 * np.maximum(1.0, np.abs(x.mean(0)))
    x = np.clip((x[:, used] - x[:, used].mean(0)) / spread[used], -4.0, 4.0)
    some = x[:: max(1, len(x) // 200)]
    middle = float(np.median(pdist(some))) if len(some) > 1 else 1.0
    return x / (similarity * (middle or 1.0))
