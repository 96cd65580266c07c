"""``Study``: one search as ask and tell. A strategy proposes, somebody evaluates, the history keeps both.

    study = Study(space, RandomSearch(), objectives={"acc": "max"}, history="run.sqlite")
    for trial in study.ask():
        study.tell(trial, train(trial.genome))

A generation is asked and told as a whole before the strategy is called again, and strategies see answers in the order of the
plan, so the run is the same with any number of workers and after any interruption. This file must not know a particular
strategy, space or oracle.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from evo_search import _workers
from evo_search._candidates import GraphCache
from evo_search._evolve_config import SearchError
from evo_search._records import PlanItem, Query
from evo_search.history import History
from evo_search.objectives import Constraint, hypervolume, keeps, non_dominated, parse_objectives, points
from evo_search.oracles import CallableOracle, Oracle
from evo_search.strategies._base import Proposal, State, Strategy

if TYPE_CHECKING:
    from evo_search.spaces._base import SearchSpace

Values = float | Mapping[str, float]
Progress = Callable[[Query, "Query | None"], None]
_ATTEMPTS = 20  # times a strategy is asked again after it proposed nothing but known networks


@dataclass(frozen=True)
class Trial:
    """A network to evaluate: its genome, the genome as text, where it came from, and its place in the run."""

    step: int
    genome: Any
    encoded: str
    source: str
    generation: int
    item: PlanItem = field(repr=False)
    asked_at: float = field(default=0.0, repr=False, compare=False)


class Study:
    """One search.

    Args:
        space: a search space (``get_space``).
        strategy: what proposes networks (``evo_search.strategies``).
        objectives: ``{"acc": "max", "latency_ms": "min"}``, or names to be maximised. One objective may be told as a float.
        constraints: bounds of costs of the graph, known before a network is asked about, and of measured values.
        seed: of the one random generator.
        history: where the run is recorded: ``None`` for memory, an SQLite file, the URL of a database, or a ``History``. One
            with queries is continued, and gives the run that an uninterrupted one would have given.
        name: of this study in a database that holds several.
        key: identity of a genome, each identity being asked about once; by default the fingerprint of the graph.

    Methods may be called from several threads.

    Raises:
        SearchError: a setting is wrong.
        HistoryError: the history belongs to a run with other settings (the message names the field), or another process writes.
    """

    def __init__(self, space: SearchSpace[Any], strategy: Strategy, *,
                 objectives: str | Sequence[str] | Mapping[str, str] = "value", constraints: Sequence[Constraint] = (),
                 seed: int = 0, history: History | str | Path | None = None, name: str = "search",
                 key: Callable[[Any], str] | None = None) -> None:
        self.space, self.strategy, self.seed = space, strategy, int(seed)
        self.objectives, self.constraints = parse_objectives(objectives), tuple(constraints)
        self._costs = [c for c in self.constraints if c.of_graph]
        self._needed = tuple(dict.fromkeys([*(o.name for o in self.objectives),
                                            *(c.name for c in self.constraints if not c.of_graph)]))
        self._cache = GraphCache(space, key)
        self._lock = threading.RLock()
        self._owned = not isinstance(history, History)
        self.history = history if isinstance(history, History) else History(history, name)
        self.exhausted = False
        self._handed: set[int] = set()
        try:
            self.history.begin({
                **strategy.describe(), "space": space.name, "seed": self.seed,
                "objectives": {o.name: "max" if o.maximize else "min" for o in self.objectives},
                "constraints": {str(i): c.describe() for i, c in enumerate(self.constraints)},
                "key": "fingerprint" if key is None else getattr(key, "__qualname__", type(key).__qualname__)})
        except BaseException:
            self.close()
            raise
        self._rng = np.random.default_rng(self.seed)
        if self.history.plan is not None:
            self._rng.bit_generator.state = self.history.plan.rng_state

    # -- ask and tell --------------------------------------------------------------------------------------------

    def ask(self, n: int | None = None, *, budget: int | None = None) -> list[Trial]:
        """Networks to evaluate: up to ``n`` (default: all) of the current generation that were not handed out yet.

        The next generation is made, and on disk, when every answer of the current one is told. An empty list means that answers
        of others are being waited for, or that the space has nothing new (``exhausted``). What was handed out and lost is in
        ``pending``, and is handed out again by a study that is opened anew.

        Args:
            budget: queries in all, for strategies that look at ``budget_left``.
        """
        if n is not None and (isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1):
            raise SearchError(f"ask: n must be an integer of at least 1, got {n!r}")
        with self._lock:
            self.history.claim()
            if not self.history.pending:
                self._next_generation(budget)
            given = [t for t in self.pending if t.step not in self._handed][:n]
            self._handed |= {t.step for t in given}
            return given

    @property
    def pending(self) -> list[Trial]:
        """Every network of the current generation without an answer, handed out or not, in plan order."""
        plan, now = self.history.plan, time.perf_counter()
        return [Trial(step, self.space.decode(item.genome), item.genome, item.source, plan.number if plan else 0, item, now)
                for step, item in self.history.pending]

    def tell(self, trial: Trial, values: Values, *, wall_s: float | None = None) -> Query:
        """Record the answer of a network; it is on disk when this returns.

        Args:
            values: a float where one value is needed, else values by name: all objectives and measured constraints, and
                whatever else is worth keeping. Where a needed one is missing or not finite, the query is recorded as failed.
            wall_s: seconds that the evaluation took; default: since ``ask``.

        Raises:
            SearchError: a lone float where several values are needed.
            HistoryError: this network was told already, or another process writes the history.
        """
        found, problem = self._named(values)
        if problem:
            return self.fail(trial, problem, wall_s=wall_s)
        with self._lock:
            return self.history.record(trial.item, found[self.objectives[0].name], values=found,
                                       wall_s=self._seconds(trial, wall_s))

    def fail(self, trial: Trial, error: str | BaseException, log: str = "", *, wall_s: float | None = None) -> Query:
        """Record that an evaluation failed, with its error and what it printed; it counts as a query and the search goes on."""
        if isinstance(error, BaseException):
            log = log or str(getattr(error, "log", ""))
            error = f"{type(error).__name__}: {error}"
        with self._lock:
            return self.history.record(trial.item, None, error=error or "failed", log=log, wall_s=self._seconds(trial, wall_s))

    def run(self, oracle: Oracle | Callable[[Any], Values], budget: int, workers: int = 1,
            progress: Progress | None = None) -> str:
        """Evaluate until ``budget`` queries are answered, those of earlier runs included; ``"budget"`` or ``"exhausted"``.

        Args:
            oracle: ``genome -> float | {name: float}``; raising, or a value that is not finite, is a failed query; it counts.
            workers: evaluations at a time, each in a thread (an oracle that needs a process starts one). At the end of a
                generation some wait; the networks asked about are those of one worker.
            progress: called after every answer with it and the best so far.

        Raises:
            SearchError: budget or workers are wrong, or the oracle gives a lone float where several values are needed.
            HistoryError: the history was begun with another oracle.
        """
        for what, value in (("budget", budget), ("workers", workers)):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
                raise SearchError(f"{what} must be an integer of at least 1, got {value!r}")
        ask = oracle if isinstance(oracle, Oracle) else CallableOracle(oracle)
        self.history.bind("oracle", ask.describe())
        while (left := budget - len(self.history)) > 0:
            self._handed.clear()  # whoever asked before has left; what they did not tell is evaluated again
            trials = self.ask(left, budget=budget)
            if not trials:
                return "exhausted"
            for trial, answer, seconds in _workers.evaluate(ask, trials, workers):
                query = (self.fail(trial, answer, wall_s=seconds) if isinstance(answer, Exception)
                         else self.tell(trial, answer, wall_s=seconds))
                if progress is not None:
                    progress(query, self.best())
        return "budget"

    def _next_generation(self, budget: int | None) -> None:
        queries, plan, start = self.history.queries, self.history.plan, time.perf_counter()
        state = State(self.space, self._cache, queries, generation=0 if plan is None else plan.number + 1,
                      budget_left=None if budget is None else budget - len(queries), objectives=self.objectives,
                      constraints=self.constraints, accept=self._keeps_costs if self._costs else None)
        items: dict[str, PlanItem] = {}
        for _ in range(_ATTEMPTS):
            proposals = self.strategy.propose(state, self._rng)
            for p in proposals:
                if state.is_new(p.genome):
                    items.setdefault(self._cache.key(p.genome), self._item(p, state))
            if items or not proposals:
                break
        self.exhausted = not items
        if items:
            self._handed.clear()
            self.history.save_plan(state.generation, items.values(), self._rng.bit_generator.state,
                                   time.perf_counter() - start)

    def _item(self, proposal: Proposal, state: State) -> PlanItem:
        """A proposal as the record keeps it: of its parents the steps of those that were asked about, in order."""
        key = self._cache.key(proposal.genome)
        made_from = state.maker.asked_parents(proposal.parents) or state.maker.parents(key)
        steps = (self.history.step_of(self._cache.key(genome)) for genome in made_from)
        predicted = {str(name): (float(mean), None if std is None or not math.isfinite(std) else float(std))
                     for name, (mean, std) in proposal.predicted.items() if math.isfinite(mean)}
        return PlanItem(self.space.encode(proposal.genome), key, proposal.source,
                        tuple(step for step in steps if step is not None), predicted)

    def _keeps_costs(self, genome: Any) -> bool:
        graph = self._cache.graph(genome)
        return all(c.violation(c.cost(graph)) == 0 for c in self._costs)

    def _named(self, values: Values) -> tuple[dict[str, float], str]:
        """Values by name, and what is wrong with them."""
        if not isinstance(values, Mapping):
            if len(self._needed) != 1:
                raise SearchError(f"this study needs values by name ({', '.join(self._needed)}), got {values!r}")
            values = {self._needed[0]: values}
        try:
            found = {str(name): float(value) for name, value in values.items()}
        except (TypeError, ValueError):
            return {}, f"the oracle returned {values!r}, wanted numbers"
        for name in self._needed:
            if name not in found:
                return {}, f"the oracle gave no {name!r}; it gave {', '.join(found) or 'nothing'}"
            if not math.isfinite(found[name]):
                return {}, f"the oracle returned {found[name]}" + (f" for {name!r}" if len(self._needed) > 1 else "")
        return {name: value for name, value in found.items() if math.isfinite(value)}, ""

    @staticmethod
    def _seconds(trial: Trial, wall_s: float | None) -> float:
        return time.perf_counter() - trial.asked_at if wall_s is None else wall_s

    # -- what was found ------------------------------------------------------------------------------------------

    def is_feasible(self, query: Query) -> bool:
        """Whether a query succeeded and keeps the measured constraints (those of the graph are kept by all)."""
        return keeps(query, [c for c in self.constraints if not c.of_graph])

    def best(self) -> Query | None:
        """The feasible query with the best first objective, the earliest of equals; ``None`` where there is none."""
        return self.history.best(self.objectives[0].maximize, self.is_feasible)

    def front(self) -> list[Query]:
        """The feasible queries that no other one dominates, in the order of the plan."""
        feasible = [q for q in self.history.queries if self.is_feasible(q)]
        return [q for q, keep in zip(feasible, non_dominated(points(feasible, self.objectives)), strict=True) if keep]

    def hypervolume(self, reference: Sequence[float] | Mapping[str, float]) -> float:
        """Hypervolume of ``front()`` against ``reference``: for each objective the worst value that still counts.

        In the objectives' own units, by name or in their order. Needs pymoo (``cgtransfer[search]``).
        """
        names = [o.name for o in self.objectives]
        if isinstance(reference, Mapping):
            if set(reference) != set(names):
                raise SearchError(f"hypervolume: the reference needs {', '.join(names)}, got {', '.join(reference)}")
            reference = [reference[name] for name in names]
        if len(reference) != len(names) or not np.isfinite(np.asarray(reference, np.float64)).all():
            raise SearchError(f"hypervolume: the reference needs a finite number for each of {', '.join(names)}")
        worst = np.array([o.key(float(r)) for o, r in zip(self.objectives, reference, strict=True)])
        return hypervolume(points(self.front(), self.objectives), worst)

    def curve(self) -> np.ndarray:
        """Best feasible first objective after each query, float64 ``[queries]``; NaN until there is one."""
        return self.history.curve(self.objectives[0].maximize, self.is_feasible)

    # -- life ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the history if this study opened it; what was found stays readable."""
        if self._owned:
            self.history.close()

    def __enter__(self) -> Study:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.history)
