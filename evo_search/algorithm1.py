"""``evolve``: predictor-guided evolutionary search after Algorithm 1 of arXiv 2302.10835, and ``random_search``.

One generation: make children of the best networks found (mutation, crossover) and random ones, let the predictor
choose among those never asked about, commit the choice, ask the oracle, commit each answer. All state is the history
plus the generator's state, both on disk before the next step, so a killed run resumes to the identical sequence.

This file must not know a particular space, oracle or predictor, and must not import a deep-learning framework.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from evo_search._candidates import CandidateMaker, GraphCache
from evo_search._evolve_config import PAPER_BUDGET, EvolveConfig, SearchError
from evo_search.history import History, PlanItem, Query
from evo_search.oracles import CallableOracle, Oracle

if TYPE_CHECKING:
    from cg import Graph
    from evo_search.spaces._base import SearchSpace

__all__ = ["PAPER_BUDGET", "EvolveConfig", "Predictor", "SearchError", "SearchResult", "evolve", "random_search"]
Progress = Callable[[Query, "Query | None"], None]


class Predictor(Protocol):
    """A scikit-learn-like regressor over graphs. ``fit`` must depend on its arguments and settings alone."""

    def fit(self, graphs: Sequence[Graph], y: np.ndarray) -> Any:
        """Learn from ``n`` graphs and values ``[n]``, forgetting earlier ones."""
        ...

    def predict(self, graphs: Sequence[Graph]) -> np.ndarray:
        """Scores ``[n]`` on the scale or at least in the order of ``y``; may offer ``return_std=True``.

        Where the predictor also has ``predict_normal(graphs) -> (mean [n], standard deviation [n])``, in the order of ``y``
        on the scale of normal scores, that is used instead. In label units a deviation grows with the long tail of bad
        networks (one that will reach 60 or 80 % is less certain than one near 93 %), and mean plus deviations sends the
        search there; on the scale of normal scores it does not.
        """
        ...


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        best_genome, best_encoded, best_value: the best successful query; ``None`` where every query failed.
        queries: networks asked about, failures included.
        curve: best value after each query, float64 ``[queries]``; NaN until the first success.
        stopped: ``budget``, or ``exhausted`` where the space gave no network that was not asked about yet.
        history: everything that was asked.
    """

    best_genome: Any
    best_encoded: str | None
    best_value: float | None
    queries: int
    curve: np.ndarray
    stopped: str
    history: History


def evolve(space: SearchSpace[Any], oracle: Oracle | Callable[[Any], float], predictor: Predictor | None = None, *,
           budget: int, seed: int = 0, history: History | str | Path | None = None,
           config: EvolveConfig | Mapping[str, Any] | None = None, progress: Progress | None = None,
           key: Callable[[Any], str] | None = None) -> SearchResult:
    """Search ``space`` for the network with the best oracle value.

    Args:
        space: a search space (``get_space``).
        oracle: ``genome -> float``; raising or returning a number that is not finite is a failed query, which counts.
        predictor: fitted on the graphs and values asked so far; ``None`` asks children of the best unfiltered.
        budget: queries in all, those of an earlier, interrupted run of the same history included.
        seed: of the one random generator.
        history: where the run is recorded, or the file for it; one that this call opens is closed at the end.
            A history with queries is continued, and gives the run that an uninterrupted one would have given.
        config: settings; a mapping is checked for unknown names.
        progress: called after every query with it and the best so far.
        key: identity of a genome, each identity being asked about once; by default the fingerprint of the graph.

    Raises:
        SearchError: a setting is wrong.
        HistoryError: the history belongs to a run with other settings; the message names the field.
        Whatever the predictor raises: the history is kept, and the run can be continued.
    """
    if config is None:
        config = EvolveConfig()
    elif not isinstance(config, EvolveConfig):
        config = EvolveConfig.from_dict(config)
    for name in ("fit", "predict"):
        if predictor is not None and not callable(getattr(predictor, name, None)):
            raise SearchError(f"a predictor needs fit(graphs, y) and predict(graphs); {predictor!r} has no {name}")
    cache = GraphCache(space, key)
    chooser = _Chooser(space, cache, config, predictor)
    settings = {"kind": "evolve", "predictor": _describe(predictor), "config": asdict(config)}
    return _run(space, oracle, cache, chooser.choose, settings, budget=budget, seed=seed, history=history,
                maximize=config.maximize, progress=progress, key=key)


def random_search(space: SearchSpace[Any], oracle: Oracle | Callable[[Any], float], budget: int, seed: int = 0, *,
                  history: History | str | Path | None = None, maximize: bool = True,
                  progress: Progress | None = None, key: Callable[[Any], str] | None = None) -> SearchResult:
    """Ask about random networks, each once: the baseline of every search. Arguments and errors as in ``evolve``."""
    cache = GraphCache(space, key)
    maker = CandidateMaker(space, cache)

    def choose(number: int, queries: Sequence[Query], rng: np.random.Generator) -> list[PlanItem]:
        found = maker.random(20, {q.key for q in queries}, rng)
        return [PlanItem(space.encode(genome), name, "random") for name, genome in found.items()]

    return _run(space, oracle, cache, choose, {"kind": "random_search", "maximize": maximize}, budget=budget,
                seed=seed, history=history, maximize=maximize, progress=progress, key=key)


class _Chooser:
    """Decides what the next generation asks about, from what was asked so far and the generator alone."""

    def __init__(self, space: SearchSpace[Any], cache: GraphCache, config: EvolveConfig,
                 predictor: Predictor | None) -> None:
        self._space, self._cache, self._config, self._predictor = space, cache, config, predictor
        self._maker = CandidateMaker(space, cache)
        self._fitted = False
        self._normal: Callable[[Sequence[Graph]], Any] | None = getattr(predictor, "predict_normal", None)
        self._with_std = (predictor is not None and config.kappa != 0
                          and "return_std" in inspect.signature(predictor.predict).parameters)

    def choose(self, number: int, queries: Sequence[Query], rng: np.random.Generator) -> list[PlanItem]:
        """Generation ``number``; empty where the space has nothing new to offer."""
        c = self._config
        taken = {q.key for q in queries}
        if number == 0:
            return self._items(self._maker.random(c.n_initial, taken, rng), "initial")
        sign = 1.0 if c.maximize else -1.0
        ok = sorted((q for q in queries if q.value is not None), key=lambda q: (-sign * float(q.value or 0), q.step))
        parents = [self._space.decode(q.genome) for q in ok[:c.n_parents]]
        n_explore = round(c.explore_rate * c.batch_size)
        n_evolved = c.batch_size - n_explore
        n_chosen = n_evolved - min(round(c.breed_rate * c.batch_size), n_evolved)
        evolved: dict[str, Any] = {}
        if n_chosen and self._predictor is not None and self._fit(queries):
            evolved = self._predicted_best(parents, n_chosen, taken, rng)
        taken |= evolved.keys()
        evolved |= self._children(parents, n_evolved - len(evolved), taken, rng)
        # the fallback for a space in which breeding finds nothing new: fill the batch at random
        explored = self._maker.random(c.batch_size - len(evolved), taken, rng)
        return self._items(evolved, "evolved") + self._items(explored, "random")

    def _items(self, found: Mapping[str, Any], source: str) -> list[PlanItem]:
        return [PlanItem(self._space.encode(genome), key, source) for key, genome in found.items()]

    def _children(self, parents: Sequence[Any], n: int, taken: set[str], rng: np.random.Generator) -> dict[str, Any]:
        return self._maker.children(parents, n, taken, rng, crossover_rate=self._config.crossover_rate,
                                    max_edits=self._config.max_edits)

    def _fit(self, queries: Sequence[Query]) -> bool:
        """Fit the predictor; ``False`` while the values cannot teach anything (fewer than two different ones)."""
        assert self._predictor is not None
        if self._fitted and not self._config.refit:
            return True
        rows = [q for q in queries if q.value is not None and (self._config.refit or q.source == "initial")]
        y = np.array([q.value for q in rows], np.float64)
        if len(np.unique(y)) < 2:
            return False
        self._predictor.fit([self._cache.graph(self._space.decode(q.genome)) for q in rows], y)
        self._fitted = True
        return True

    def _predicted_best(self, parents: Sequence[Any], n: int, taken: set[str],
                        rng: np.random.Generator) -> dict[str, Any]:
        """The ``n`` networks of the highest score among ``rounds`` pools, key -> genome."""
        c = self._config
        pool: dict[str, Any] = {}
        scores: dict[str, float] = {}
        seen = set(taken)
        for _ in range(c.rounds):
            n_random = round(c.random_rate * c.pool_size)
            new = self._children(parents, c.pool_size - n_random, seen, rng)
            new |= self._maker.random(n_random, seen, rng)
            if not new:
                break
            scores.update(zip(new, self._score(list(new.values())), strict=True))
            pool |= new
            best = sorted(pool, key=lambda key: -scores[key])  # stable: equals stay in the order they were found
            parents = [pool[key] for key in best[:c.n_parents]]
        return {key: pool[key] for key in sorted(pool, key=lambda key: -scores[key])[:n]}

    def _score(self, genomes: Sequence[Any]) -> list[float]:
        """Larger is better; a prediction that is not a number comes last."""
        assert self._predictor is not None
        graphs = [self._cache.graph(g) for g in genomes]
        sign = 1.0 if self._config.maximize else -1.0
        std: Any = 0.0
        if self._normal is not None:
            mean, std = self._normal(graphs)
        elif self._with_std:
            mean, std = self._predictor.predict(graphs, return_std=True)  # type: ignore[call-arg]
        else:
            mean = self._predictor.predict(graphs)
        score = sign * np.asarray(mean, np.float64) + self._config.kappa * np.asarray(std, np.float64)
        if score.shape != (len(graphs),):
            raise SearchError(f"the predictor gave scores of shape {score.shape} for {len(graphs)} graphs")
        return [float(s) for s in np.where(np.isnan(score), -np.inf, score)]


def _run(space: SearchSpace[Any], oracle: Oracle | Callable[[Any], float], cache: GraphCache,
         choose: Callable[[int, Sequence[Query], np.random.Generator], list[PlanItem]], settings: dict[str, Any], *,
         budget: int, seed: int, history: History | str | Path | None, maximize: bool, progress: Progress | None,
         key: Callable[[Any], str] | None) -> SearchResult:
    """The loop of both searches: commit a plan, ask it, commit each answer."""
    if isinstance(budget, bool) or not isinstance(budget, (int, np.integer)) or budget < 1:
        raise SearchError(f"budget must be an integer of at least 1 query, got {budget!r}")
    ask = oracle if isinstance(oracle, Oracle) else CallableOracle(oracle)
    log = history if isinstance(history, History) else History(history)
    try:
        log.begin({**settings, "space": space.name, "seed": int(seed), "oracle": ask.describe(),
                   "key": "fingerprint" if key is None else getattr(key, "__qualname__", type(key).__qualname__)})
        rng = np.random.default_rng(seed)
        plan = log.plan
        if plan is not None:
            rng.bit_generator.state = plan.rng_state
        stopped = "budget"
        while True:
            for item in plan.items if plan is not None else ():
                if len(log) >= budget:
                    break
                if log.lookup(item.key) is None:
                    query = _ask(space, ask, log, item)
                    if progress is not None:
                        progress(query, log.best(maximize))
            if len(log) >= budget:
                break
            number = 0 if plan is None else plan.number + 1
            items = choose(number, log.queries, rng)
            if not items:
                stopped = "exhausted"
                break
            plan = log.save_plan(number, items, rng.bit_generator.state)
        best = log.best(maximize)
        return SearchResult(None if best is None else space.decode(best.genome), best.genome if best else None,
                            best.value if best else None, len(log), log.curve(maximize), stopped, log)
    finally:
        if log is not history:
            log.close()


def _ask(space: SearchSpace[Any], oracle: Oracle, log: History, item: PlanItem) -> Query:
    start = time.perf_counter()
    value, error = None, ""
    try:
        value = float(oracle(space.decode(item.genome)))
    except Exception as e:  # any failure of a user's training is data, not the end of the search
        error = f"{type(e).__name__}: {e}"
    return log.record(item, value, wall_s=time.perf_counter() - start, error=error)


def _describe(predictor: Predictor | None) -> dict[str, Any]:
    """JSON values that tell one predictor from another: its class and its plain parameters."""
    if predictor is None:
        return {"kind": "none"}
    params = predictor.get_params(deep=False) if hasattr(predictor, "get_params") else {}
    plain = {k: v for k, v in params.items() if v is None or isinstance(v, (bool, int, float, str))}
    return {"kind": type(predictor).__qualname__, **plain}
