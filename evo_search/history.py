"""``History``: the record of one search run in one SQLite file, from which a killed run goes on as if nothing happened.

This file must not know how candidates are chosen nor what an oracle is; it stores what happened and refuses what
would make the record untrue (a second query of one network, another configuration).
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from cg.errors import CGError, StorageError

FORMAT_VERSION = 1
SOURCES = ("initial", "evolved", "random")
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE plans (number INTEGER PRIMARY KEY, items TEXT NOT NULL, rng_state TEXT NOT NULL);
CREATE TABLE queries (
    step INTEGER PRIMARY KEY, genome TEXT NOT NULL, key TEXT NOT NULL UNIQUE, value REAL,
    status TEXT NOT NULL CHECK (status IN ('ok', 'failed')),
    source TEXT NOT NULL CHECK (source IN ('initial', 'evolved', 'random')),
    wall_s REAL NOT NULL, error TEXT NOT NULL, CHECK ((value IS NULL) = (status = 'failed')));
"""


class HistoryError(CGError):
    """A history cannot be used for this run (other settings, a network recorded twice, already in use)."""


@dataclass(frozen=True)
class Query:
    """One answered question to the oracle.

    Attributes:
        step: 0-based position in the run; every step is one query of the budget.
        genome: the encoded genome (``space.encode``).
        key: identity of the network: isomorphic genomes share it, so they are asked about once.
        value: what the oracle said, or ``None`` where it failed.
        status: ``ok`` or ``failed``.
        source: ``initial``, ``evolved`` or ``random``.
        wall_s: seconds the oracle took.
        error: why it failed, empty where it did not.
    """

    step: int
    genome: str
    key: str
    value: float | None
    status: str
    source: str
    wall_s: float
    error: str = ""


@dataclass(frozen=True)
class PlanItem:
    """A network that the run has decided to ask about."""

    genome: str
    key: str
    source: str


@dataclass(frozen=True)
class Plan:
    """One generation: what to ask, and the state of the random generator after it was chosen."""

    number: int
    items: tuple[PlanItem, ...]
    rng_state: dict[str, Any]


class History:
    """The queries, plans, settings and generator state of one run.

    Every write is one committed transaction (``synchronous=FULL``), so the file is complete up to the last finished
    step after ``kill -9``, and a full disk leaves the previous step as the last one.

    Args:
        path: the file of this run, created if absent (its folder must exist); ``None`` keeps the record in memory.

    Raises:
        StorageError: the file is not a history, is damaged, or has another format version.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = None if path is None else Path(path)
        if self.path is not None and not self.path.parent.is_dir():
            raise StorageError(f"cannot create history {self.path}: folder {self.path.parent} does not exist")
        try:
            self._db = sqlite3.connect(":memory:" if self.path is None else str(self.path), isolation_level=None)
            self._db.execute("PRAGMA synchronous=FULL")
            self._open()
        except sqlite3.DatabaseError as e:
            raise StorageError(f"{self._where} is not a usable search history ({e}); use another file") from e
        self._queries = [Query(*row) for row in self._db.execute(
            "SELECT step, genome, key, value, status, source, wall_s, error FROM queries ORDER BY step")]
        self._by_key = {q.key: q for q in self._queries}
        config = self._meta("config")
        self._config: dict[str, Any] | None = None if config is None else json.loads(config)
        row = self._db.execute("SELECT number, items, rng_state FROM plans ORDER BY number DESC LIMIT 1").fetchone()
        self._plan = None if row is None else Plan(
            int(row[0]), tuple(PlanItem(*i) for i in json.loads(row[1])), json.loads(row[2]))

    @classmethod
    def read(cls, path: str | Path) -> History:
        """Open a history that must already exist."""
        if not Path(path).is_file():
            raise StorageError(f"no search history at {path}")
        return cls(path)

    @property
    def _where(self) -> str:
        return "the in-memory history" if self.path is None else f"history {self.path}"

    def _open(self) -> None:
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type='table'")}
        if not tables:
            self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} "
                                   f"INSERT INTO meta VALUES ('format_version', '{FORMAT_VERSION}'); COMMIT;")
            return
        if not {"meta", "plans", "queries"} <= tables:
            raise StorageError(f"{self._where} is a database of something else (tables {sorted(tables)}); "
                               "use another file")
        version = self._meta("format_version")
        if version != str(FORMAT_VERSION):
            raise StorageError(f"{self._where} has format version {version}, this program reads {FORMAT_VERSION}")

    def _meta(self, key: str) -> str | None:
        row = self._db.execute("SELECT value FROM meta WHERE key=?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def _write(self, sql: str, values: Sequence[Any]) -> None:
        """One statement, one transaction: outside ``BEGIN`` SQLite commits before ``execute`` returns."""
        try:
            self._db.execute(sql, values)
        except sqlite3.IntegrityError as e:
            raise HistoryError(f"{self._where} refused a record ({e}); a network is recorded once, and only one "
                               "process may write a history") from e
        except sqlite3.DatabaseError as e:
            raise StorageError(f"cannot write {self._where}: {e}; the {len(self)} finished queries are kept") from e

    # -- settings ------------------------------------------------------------------------------------------------

    @property
    def config(self) -> dict[str, Any] | None:
        """The settings the run began with, or ``None`` before ``begin``."""
        return self._config

    def begin(self, config: Mapping[str, Any]) -> bool:
        """Bind the history to the settings of a run; ``True`` where an earlier run is being continued.

        ``config`` holds JSON values and may be nested. Raises ``HistoryError`` naming the first field that differs
        from the settings already stored.
        """
        new = json.loads(json.dumps(config))
        old = self.config
        if old is None:
            self._write("INSERT INTO meta VALUES ('config', ?)", (json.dumps(new, sort_keys=True),))
            self._config = new
            return False
        before, now = dict(_flat(old)), dict(_flat(new))
        for name in sorted(before.keys() | now.keys()):
            a, b = before.get(name, "(absent)"), now.get(name, "(absent)")
            if a != b:
                raise HistoryError(f"{self._where} was begun with {name} = {a!r}, this run has {b!r}; "
                                   "use the same settings to go on, or another file for a new run")
        return True

    # -- queries -------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._queries)

    @property
    def queries(self) -> tuple[Query, ...]:
        """All queries in the order they were made."""
        return tuple(self._queries)

    def lookup(self, key: str) -> Query | None:
        """The query of this network, if it was made."""
        return self._by_key.get(key)

    def record(self, item: PlanItem, value: float | None, *, wall_s: float, error: str = "") -> Query:
        """Commit the answer for ``item``; a value that is ``None`` or not finite is a failure and still a query.

        Raises ``HistoryError`` if the network is recorded already, ``StorageError`` if the disk refuses.
        """
        ok = value is not None and math.isfinite(value)
        if not ok and not error:
            error = f"the oracle returned {value}"
        query = Query(len(self), item.genome, item.key, float(value) if ok and value is not None else None,
                      "ok" if ok else "failed", item.source, float(wall_s), "" if ok else error)
        self._write("INSERT INTO queries (step, genome, key, value, status, source, wall_s, error) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (query.step, query.genome, query.key, query.value, query.status, query.source, query.wall_s,
                     query.error))
        self._queries.append(query)
        self._by_key[query.key] = query
        return query

    def best(self, maximize: bool = True) -> Query | None:
        """The best successful query, the earliest of equals; ``None`` where there is none."""
        ok = [q for q in self._queries if q.value is not None]
        sign = 1.0 if maximize else -1.0
        return max(ok, key=lambda q: (sign * float(q.value or 0.0), -q.step), default=None)

    def curve(self, maximize: bool = True) -> np.ndarray:
        """Best value after each query, float64 ``[n_queries]``; NaN until the first success."""
        values = np.array([np.nan if q.value is None else q.value for q in self._queries], np.float64)
        return (np.fmax if maximize else np.fmin).accumulate(values) if len(values) else values

    # -- generations ---------------------------------------------------------------------------------------------

    def save_plan(self, number: int, items: Iterable[PlanItem], rng_state: Mapping[str, Any]) -> Plan:
        """Commit what generation ``number`` will ask, before it asks; ``rng_state`` as numpy's PCG64 gives it."""
        plan = Plan(number, tuple(items), dict(rng_state))
        self._write("INSERT INTO plans VALUES (?, ?, ?)",
                    (number, json.dumps([[i.genome, i.key, i.source] for i in plan.items]),
                     json.dumps(plan.rng_state)))
        self._plan = plan
        return plan

    @property
    def plan(self) -> Plan | None:
        """The newest generation, or ``None`` before the first."""
        return self._plan

    # -- life ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Release the file; what was read stays readable."""
        self._db.close()

    def __enter__(self) -> History:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"History({str(self.path) if self.path else None!r}, queries={len(self)})"


def _flat(value: Any, name: str = "") -> Iterable[tuple[str, Any]]:
    """Leaves of nested mappings with dotted names."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value
