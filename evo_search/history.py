"""``History``: the record of one search run, from which a killed run goes on as if nothing happened.

It lives in memory, in an SQLite file, or in a PostgreSQL database that holds many studies. What a generation will ask is on
disk before it is asked, and an answer before the next step. This file must not know how candidates are chosen nor what an
oracle is; it keeps what happened and refuses what would make the record untrue (a second answer, another configuration).
"""

from __future__ import annotations

import bisect
import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from cg.errors import CGError, StorageError
from evo_search._records import Plan, PlanItem, Query, flat

if TYPE_CHECKING:
    from evo_search._store import Store

__all__ = ["History", "HistoryError", "Plan", "PlanItem", "Query", "study_names"]
LOG_CHARACTERS = 100_000


class HistoryError(CGError):
    """A history cannot be used for this run (other settings, a network recorded twice, already in use)."""


class History:
    """The queries, plans, settings and generator state of one run.

    Every write is one committed transaction (SQLite: ``synchronous=FULL``; PostgreSQL: ``synchronous_commit=on``), so the
    record is complete up to the last finished step after ``kill -9``, and a full disk leaves the previous step as the last
    one. One process writes; others may read meanwhile.

    Args:
        where: the SQLite file, created if absent (its folder must exist), or the URL of a database
            (``postgresql+psycopg://user@host/database``, which needs ``cgtransfer[postgres]``); ``None``: in memory.
        name: the study; one database holds many.

    Attributes:
        where, name: as given.
        plan_s: seconds that choosing networks took, all generations together.

    Raises:
        StorageError: ``where`` is not a history, is damaged, has another format version, or cannot be reached.
    """

    def __init__(self, where: str | Path | None = None, name: str = "search") -> None:
        self._start(where, name, create=True)

    @classmethod
    def read(cls, where: str | Path, name: str = "search") -> History:
        """Open a history that must already exist."""
        made = cls.__new__(cls)
        made._start(where, name, create=False)
        return made

    def _start(self, where: str | Path | None, name: str, create: bool) -> None:
        self.name, self.where = name, where
        self.path = None if where is None or "://" in str(where) else Path(where)
        self._store: Store | None = None
        self._config: dict[str, Any] | None = None
        self._bound: dict[str, Any] = {}
        self._items: list[PlanItem] = []  # every planned network, by step
        self._generations: list[int] = []  # and the plan it came with
        self._steps: dict[str, int] = {}
        self._queries: list[Query] = []  # answered ones, by step
        self._by_key: dict[str, Query] = {}
        self._plan: Plan | None = None
        self.plan_s = 0.0
        if where is None:
            return
        from evo_search._store import Store

        self._store = Store(where, name, create)
        try:
            self._load(self._store)
        except BaseException:
            self._store.close()
            raise

    def _load(self, store: Store) -> None:
        loaded = store.load()
        try:
            if loaded.config is not None:
                self._config, self._bound = loaded.config["begun"], loaded.config["bound"]
            for row in loaded.trials:
                if row["step"] != len(self._items):
                    raise ValueError(f"step {len(self._items)} is missing")
                origin = json.loads(row["origin"])
                item = PlanItem(row["genome"], row["key"], row["source"], tuple(origin["parents"]),
                                {name: (mean, std) for name, (mean, std) in origin["predicted"].items()})
                self._planned(item, row["generation"])
                if row["status"] != "planned":
                    self._answered(Query(row["step"], row["genome"], row["key"], row["value"], row["status"], row["source"],
                                         row["wall_s"], row["error"], json.loads(row["measured"]), row["log"],
                                         row["generation"], item.parents, item.predicted))
        except (ValueError, TypeError, KeyError, AttributeError) as e:
            raise StorageError(f"{self._where} is not a usable search history ({e}); use another one") from e
        self.plan_s = loaded.plan_s
        if loaded.plan is not None:
            first = bisect.bisect_left(self._generations, loaded.plan[0])
            self._plan = Plan(loaded.plan[0], tuple(self._items[first:]), loaded.plan[1], first)

    @property
    def _where(self) -> str:
        return "the in-memory history" if self._store is None else self._store.text

    # -- settings ------------------------------------------------------------------------------------------------

    @property
    def config(self) -> dict[str, Any] | None:
        """The settings the run began with, or ``None`` before ``begin``."""
        return self._config

    @property
    def bound(self) -> dict[str, Any]:
        """Settings that became known after ``begin``, such as the oracle."""
        return self._bound

    def begin(self, config: Mapping[str, Any]) -> bool:
        """Bind the history to the settings of a run; ``True`` where an earlier run is being continued.

        ``config`` holds JSON values and may be nested. Raises ``HistoryError`` naming the first field that differs from the
        settings already stored.
        """
        new = json.loads(json.dumps(config))
        if self._config is None:
            self._save_config(new, {})
            return False
        self._refuse(self._config, new)
        return True

    def bind(self, name: str, value: Any) -> None:
        """Add a setting that becomes known after ``begin``, such as the oracle; refused by field where it had another value."""
        new = json.loads(json.dumps(value))
        if name in self._bound:
            self._refuse({name: self._bound[name]}, {name: new})
        else:
            self._save_config(self._config, {**self._bound, name: new})

    def _save_config(self, config: dict[str, Any] | None, bound: dict[str, Any]) -> None:
        if self._store is not None:
            self._store.set("config", json.dumps({"begun": config, "bound": bound}, sort_keys=True))
        self._config, self._bound = config, bound

    def _refuse(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        before, now = dict(flat(old)), dict(flat(new))
        for name in sorted(before.keys() | now.keys()):
            a, b = before.get(name, "(absent)"), now.get(name, "(absent)")
            if a != b:
                raise HistoryError(f"{self._where} was begun with {name} = {a!r}, this run has {b!r}; "
                                   "use the same settings to go on, or another file or name for a new run")

    def claim(self) -> None:
        """Become the one writer, as the first write does. Raises ``HistoryError`` where another living process is."""
        if self._store is not None:
            self._store.claim()

    # -- generations ---------------------------------------------------------------------------------------------

    def save_plan(self, number: int, items: Iterable[PlanItem], rng_state: Mapping[str, Any], wall_s: float = 0.0) -> Plan:
        """Commit what generation ``number`` will ask, before it asks.

        ``rng_state`` as numpy's PCG64 gives it, ``wall_s`` as in ``Plan``; parents of items are steps of earlier generations.

        Raises ``HistoryError`` where a network is planned already or the number is not the next one.
        """
        plan = Plan(number, tuple(items), dict(rng_state), len(self._items), wall_s)
        expected = 0 if self._plan is None else self._plan.number + 1
        if number != expected:
            raise HistoryError(f"{self._where} expects generation {expected}, got {number}")
        seen = set(self._steps)
        for item in plan.items:
            if item.key in seen:
                raise HistoryError(f"{self._where}: network {item.genome!r} is planned already; a network is recorded once")
            seen.add(item.key)
        if self._store is not None:
            self._store.save_plan(number, plan.rng_state, [
                {"step": plan.first_step + i, "genome": item.genome, "key": item.key, "source": item.source,
                 "origin": json.dumps({"parents": item.parents, "predicted": dict(item.predicted)}, allow_nan=False)}
                for i, item in enumerate(plan.items)], wall_s)
        for item in plan.items:
            self._planned(item, number)
        self._plan = plan
        self.plan_s += wall_s
        return plan

    @property
    def plan(self) -> Plan | None:
        """The newest generation, or ``None`` before the first."""
        return self._plan

    @property
    def pending(self) -> list[tuple[int, PlanItem]]:
        """Steps and networks of the newest generation that have no answer yet, in plan order."""
        plan = self._plan
        return [] if plan is None else [(plan.first_step + i, item) for i, item in enumerate(plan.items)
                                        if item.key not in self._by_key]

    # -- queries -------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._queries)

    @property
    def queries(self) -> tuple[Query, ...]:
        """All answered queries in the order of the plan."""
        return tuple(self._queries)

    def step_of(self, key: str) -> int | None:
        """The step of this network, if it was planned."""
        return self._steps.get(key)

    def lookup(self, key: str) -> Query | None:
        """The query of this network, if it was answered."""
        return self._by_key.get(key)

    def record(self, item: PlanItem, value: float | None, *, wall_s: float, error: str = "", log: str = "",
               values: Mapping[str, float] | None = None) -> Query:
        """Commit the answer for a planned ``item``; a value that is ``None`` or not finite is a failure and still a query.

        ``values`` are all values by name, where there are more than ``value``. Raises ``HistoryError`` if the network is
        recorded already or was not planned, ``StorageError`` if the disk refuses.
        """
        step = self._steps.get(item.key)
        if step is None:
            raise HistoryError(f"{self._where}: network {item.genome!r} was not planned")
        if item.key in self._by_key:
            raise HistoryError(f"{self._where}: network {item.genome!r} is recorded already; a network is recorded once")
        ok = value is not None and math.isfinite(value)
        if not ok and not error:
            error = f"the oracle returned {value}"
        query = Query(step, item.genome, item.key, float(value) if ok and value is not None else None,
                      "ok" if ok else "failed", item.source, float(wall_s), "" if ok else _text(error),
                      {str(k): float(v) for k, v in (values or {}).items()} if ok else {}, "" if ok else _text(log),
                      self._generations[step], self._items[step].parents, self._items[step].predicted)
        if self._store is not None:
            try:
                self._store.answer(step, status=query.status, value=query.value, measured=json.dumps(query.values),
                                   wall_s=query.wall_s, error=query.error, log=query.log)
            except StorageError as e:
                raise StorageError(f"{e}; the {len(self)} finished queries are kept") from e
        self._answered(query)
        return query

    def _planned(self, item: PlanItem, generation: int) -> None:
        self._steps[item.key] = len(self._items)
        self._items.append(item)
        self._generations.append(generation)

    def _answered(self, query: Query) -> None:
        bisect.insort(self._queries, query, key=lambda q: q.step)
        self._by_key[query.key] = query

    def best(self, maximize: bool = True, among: Callable[[Query], bool] | None = None) -> Query | None:
        """The best successful query (of those that ``among`` accepts), the earliest of equals; ``None`` where there is none."""
        ok = [q for q in self._queries if q.value is not None and (among is None or among(q))]
        sign = 1.0 if maximize else -1.0
        return max(ok, key=lambda q: (sign * float(q.value or 0.0), -q.step), default=None)

    def curve(self, maximize: bool = True, among: Callable[[Query], bool] | None = None) -> np.ndarray:
        """Best value after each query, float64 ``[n_queries]``; NaN until the first success (that ``among`` accepts)."""
        values = np.array([np.nan if q.value is None or (among is not None and not among(q)) else q.value
                           for q in self._queries], np.float64)
        return (np.fmax if maximize else np.fmin).accumulate(values) if len(values) else values

    # -- life ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Release the file or the connection; what was read stays readable."""
        if self._store is not None:
            self._store.close()

    def __enter__(self) -> History:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"History({self._where!r}, name={self.name!r}, queries={len(self)})"


def study_names(where: str | Path) -> list[str]:
    """Names of the studies that a file or database holds, sorted. Raises ``StorageError`` where it is not a history."""
    from evo_search import _store

    return sorted(_store.settings(where))


def _text(text: str) -> str:
    """What a database can keep: no NUL, valid UTF-8, the end of what is too long."""
    return text[-LOG_CHARACTERS:].replace("\0", "\\0").encode("utf-8", "replace").decode()
