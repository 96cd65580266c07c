"""What the page of a search says, as typed data: queries, curves of the seeds, the best networks, where they came from.

``summarise`` takes it from a study or a history and asks no oracle. Pictures of networks are ``cg.draw``'s; this file must not
draw anything else (see ``evo_search.search_figures``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from evo_search._evolve_config import SearchError
from evo_search._records import Query, flat
from evo_search.history import History
from evo_search.objectives import GRAPH_COSTS, Constraint, Objective, keeps, non_dominated, parse_objectives, points

if TYPE_CHECKING:
    from evo_search.spaces._base import SearchSpace
    from evo_search.study import Study

PICTURES = 4


@dataclass(frozen=True)
class SeedCurve:
    """Another study of the same settings: its name, its seed, and its best value after each query ``[queries]`` (NaN: none)."""

    name: str
    seed: int
    values: tuple[float, ...]


@dataclass(frozen=True)
class Drawn:
    """A network that the page draws: why, its query, its picture, and what its graph costs (``macs, params`` counts)."""

    why: str
    query: Query
    svg: str = field(repr=False)
    macs: int
    params: int
    nodes: int


@dataclass(frozen=True)
class SearchSummary:
    """Everything the page says.

    Attributes:
        space, strategy, name, seed: of the study.
        objectives: as searched for; ``units``: what else is known of a value's name, such as the metric of a table.
        queries: all answered ones in the order of the plan; ``feasible``: the steps of those that succeeded and keep the
            measured constraints; ``front``: the steps of those of them that no other one dominates.
        curve: best feasible first objective after each query, float64 ``[queries]``, NaN until there is one.
        seeds: other studies of the same database that differ by seed (and name) alone.
        stored: whether the record lives in a database.
        best: the feasible query with the best first objective.
        best_possible: largest value that the first objective can have, where that is known.
        drawn: the networks to draw, the best first.
        plan_s: seconds that choosing networks took, predictors included.
        predicts_score: predictions only order, they are not in the unit of the objective.
        settings: what the study was begun with, names dotted.
    """

    space: str
    strategy: str
    name: str
    seed: int
    objectives: tuple[Objective, ...]
    units: Mapping[str, str]
    queries: tuple[Query, ...]
    feasible: frozenset[int]
    front: tuple[int, ...]
    curve: np.ndarray
    seeds: tuple[SeedCurve, ...]
    stored: bool
    best: Query | None
    best_possible: float | None
    drawn: tuple[Drawn, ...]
    plan_s: float
    predicts_score: bool
    settings: Mapping[str, Any]

    @property
    def failed(self) -> tuple[Query, ...]:
        """The queries that gave no value."""
        return tuple(q for q in self.queries if q.value is None)

    def label(self, objective: Objective) -> str:
        """Name of an objective for people."""
        return self.units.get(objective.name, objective.name)

    def band(self) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Mean, worst and best over all seeds of the best value after each query, ``[queries of the shortest study]`` each.

        NaN where one of them has no value yet; ``None`` where there is one seed.
        """
        if not self.seeds:
            return None
        n = min(len(self.curve), *(len(s.values) for s in self.seeds))
        values = np.array([self.curve[:n], *(s.values[:n] for s in self.seeds)], np.float64)
        low, high = values.min(0), values.max(0)
        return (values.mean(0), low, high) if self.objectives[0].maximize else (values.mean(0), high, low)

    def predicted(self, objective: Objective) -> list[Query]:
        """Queries that a predictor said a value of ``objective`` for, and that gave one."""
        return [q for q in self.queries if objective.name in q.predicted and objective.name in q.values]

    def sources(self) -> list[dict[str, Any]]:
        """One row for each source: ``source, queries, failed``, and the best feasible first objective of them or ``None``."""
        rows, first = [], self.objectives[0]
        for source in dict.fromkeys(q.source for q in self.queries):
            mine = [q for q in self.queries if q.source == source]
            values = [q.values[first.name] for q in mine if q.step in self.feasible]
            rows.append({"source": source, "queries": len(mine), "failed": sum(q.value is None for q in mine),
                         "best": (max(values) if first.maximize else min(values)) if values else None})
        return rows


def summarise(run: Study | History, *, space: SearchSpace[Any] | None = None,
              best_possible: float | None = None) -> SearchSummary:
    """What the page of ``run`` says.

    Args:
        run: a study, or the history of one (``History.read("run.sqlite")``, ``evolve(…).history``), closed or not.
        space: where the networks come from; of a history by default the registered space that it names.
        best_possible: largest (or smallest) value that the first objective can have, such as ``TableOracle.best_possible``.

    Raises:
        SearchError: the history was never begun by a study.
        CGError: the space is not registered, or does not know a genome of the record.
    """
    history = run if isinstance(run, History) else run.history
    config = history.config
    if config is None or not {"objectives", "constraints", "space"} <= config.keys():
        raise SearchError("this history holds no search: no study was begun in it")
    if isinstance(run, History):
        from evo_search.spaces import get_space

        objectives = parse_objectives(config["objectives"])
        space = space or get_space(config["space"])
    else:
        objectives, space = run.objectives, space or run.space
    return _summary(history, config, objectives, space, best_possible)


def _summary(history: History, config: Mapping[str, Any], objectives: tuple[Objective, ...], space: SearchSpace[Any],
             best_possible: float | None) -> SearchSummary:
    limits, first = _limits(config, history.queries), objectives[0]
    feasible = [q for q in history.queries if keeps(q, limits)]
    front = [q for q, keep in zip(feasible, non_dominated(points(feasible, objectives)), strict=True) if keep]
    best = history.best(first.maximize, lambda q: keeps(q, limits))
    oracle = history.bound.get("oracle") or {}
    metric = oracle.get("metric")
    return SearchSummary(
        space=str(config["space"]), strategy=str(config.get("kind", "?")), name=history.name, seed=int(config.get("seed", 0)),
        objectives=objectives, units={"value": str(metric)} if metric and len(objectives) == 1 else {},
        queries=history.queries, feasible=frozenset(q.step for q in feasible), front=tuple(q.step for q in front),
        curve=history.curve(first.maximize, lambda q: keeps(q, limits)), seeds=_seeds(history, config, first),
        stored=history.where is not None, best=best, best_possible=best_possible,
        drawn=_drawn(front, feasible, objectives, space), plan_s=history.plan_s,
        predicts_score=config.get("predicts") == "score", settings=dict(flat({**config, "oracle": oracle})))


def _limits(config: Mapping[str, Any], queries: Sequence[Query]) -> list[Constraint]:
    """Measured constraints. What no answer holds is a function of the graph, which every query keeps."""
    measured = {name for q in queries for name in q.values}
    return [Constraint(c["of"], c["at_most"], c["at_least"]) for c in config["constraints"].values()
            if c["of"] not in GRAPH_COSTS and c["of"] in measured]


def _seeds(history: History, config: Mapping[str, Any], first: Objective) -> tuple[SeedCurve, ...]:
    """Studies beside this one that differ by seed alone, by seed; those without an answer are left out."""
    if history.where is None:
        return ()
    from evo_search import _store

    found = []
    wanted = _without_seed(config, history.bound)
    for name, stored in _store.settings(history.where).items():
        if name != history.name and stored and stored["begun"] and _without_seed(stored["begun"], stored["bound"]) == wanted:
            with History.read(history.where, name) as other:
                limits = _limits(config, other.queries)
                values = other.curve(first.maximize, lambda q, limits=limits: keeps(q, limits))  # type: ignore[misc]
                found.append(SeedCurve(name, int(stored["begun"].get("seed", 0)), tuple(values.tolist())))
    return tuple(sorted((s for s in found if s.values), key=lambda s: (s.seed, s.name)))


def _without_seed(config: Mapping[str, Any], bound: Mapping[str, Any]) -> Any:
    oracle = bound.get("oracle") or {}
    return [{k: v for k, v in part.items() if k != "seed"} for part in (config, oracle)]


def _drawn(front: Sequence[Query], feasible: Sequence[Query], objectives: Sequence[Objective],
           space: SearchSpace[Any]) -> tuple[Drawn, ...]:
    """One objective: the best ones; several: some of the front, from the best first objective to the worst."""
    from cg import draw

    several, first = len(objectives) > 1 and len(front) > 1, objectives[0]
    ranked = sorted(front if several else feasible, key=lambda q: (first.key(q.values[first.name]), q.step))
    if several:
        places = np.unique(np.linspace(0, len(ranked) - 1, min(PICTURES, len(ranked))).round().astype(int))
        chosen = [(f"front, {i + 1} of {len(ranked)}", ranked[i]) for i in places]
    else:
        chosen = [(f"number {i + 1}", q) for i, q in enumerate(ranked[:PICTURES - 1])]
    found = []
    for why, query in chosen:
        graph = space.to_graph(space.decode(query.genome))
        found.append(Drawn(why, query, draw.svg(graph, title=""), int(graph.macs), int(graph.params), graph.n_nodes))
    return tuple(found)
