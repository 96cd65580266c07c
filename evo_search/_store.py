"""Where a history lives on disk: four tables in SQLite or PostgreSQL, through SQLAlchemy Core.

Every ``write`` is one transaction that is on disk when it returns. It also counts up the study's revision, and is refused where
the revision is not the one this process knows, so two writers can never mix their records. This file must not know what a
search is; it keeps rows. SQLAlchemy is imported with it, so it is itself imported only for a history that has a file or a URL.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy import exc
from sqlalchemy.engine import URL, Connection, make_url

from cg.errors import CGError, StorageError
from evo_search._process import _start_time
from evo_search.history import HistoryError

FORMAT_VERSION = 3
_LOCKS = 20231  # first half of our PostgreSQL advisory locks; the second is the study's id, 0 for the schema

_tables = sql.MetaData()
meta = sql.Table(
    "cg_meta", _tables, sql.Column("key", sql.Text, primary_key=True), sql.Column("value", sql.Text, nullable=False))
studies = sql.Table(
    "cg_studies", _tables, sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("name", sql.Text, nullable=False, unique=True), sql.Column("config", sql.Text),
    sql.Column("revision", sql.Integer, nullable=False), sql.Column("writer", sql.Text))
plans = sql.Table(
    "cg_plans", _tables, sql.Column("study", sql.ForeignKey("cg_studies.id"), primary_key=True),
    sql.Column("number", sql.Integer, primary_key=True), sql.Column("rng_state", sql.Text, nullable=False),
    sql.Column("wall_s", sql.Double, nullable=False))
trials = sql.Table(
    "cg_trials", _tables, sql.Column("study", sql.ForeignKey("cg_studies.id"), primary_key=True),
    sql.Column("step", sql.Integer, primary_key=True), sql.Column("generation", sql.Integer, nullable=False),
    sql.Column("genome", sql.Text, nullable=False), sql.Column("key", sql.Text, nullable=False),
    sql.Column("source", sql.Text, nullable=False), sql.Column("origin", sql.Text, nullable=False),
    sql.Column("status", sql.Text, sql.CheckConstraint("status IN ('planned', 'ok', 'failed')"), nullable=False),
    sql.Column("value", sql.Double), sql.Column("measured", sql.Text), sql.Column("wall_s", sql.Double),
    sql.Column("error", sql.Text), sql.Column("log", sql.Text), sql.UniqueConstraint("study", "key"),
    sql.CheckConstraint("(value IS NULL) = (status <> 'ok')"))
_study: sql.BindParameter[int] = sql.bindparam("_study")
_revision: sql.BindParameter[int] = sql.bindparam("_revision")
_COUNT_UP = sql.update(studies).where((studies.c.id == _study) & (studies.c.revision == _revision)).values(
    revision=studies.c.revision + 1)
_SET = {name: sql.update(studies).where(studies.c.id == _study).values({name: sql.bindparam("_value")})
        for name in ("config", "writer")}
_ANSWER = sql.update(trials).where((trials.c.study == _study) & (trials.c.step == sql.bindparam("_step"))).values(
    {name: sql.bindparam(name) for name in ("status", "value", "measured", "wall_s", "error", "log")})


@dataclass(frozen=True)
class Loaded:
    """What a study's rows said: settings, newest generation ``(number, generator state)``, rows of all its trials by step, and
    the seconds that all generations took to plan."""

    config: dict[str, Any] | None
    plan: tuple[int, dict[str, Any]] | None
    trials: Sequence[Any]
    plan_s: float


class Store:
    """One study's rows in a database.

    Args:
        where: a file (SQLite; its folder must exist) or a URL of SQLAlchemy (``postgresql+psycopg://user@host/database``).
        name: the study.
        create: make file, tables and study where they are not there; else they must be.

    Raises:
        StorageError: no such file or study, not a history, damaged, another format version, no connection, no driver.
    """

    def __init__(self, where: str | Path, name: str, create: bool = True) -> None:
        self._study, self._revision, self._claimed = 0, 0, False
        self._is_sqlite, self.text, engine = _engine(where, create)
        self._engine = engine
        try:
            self.connection: Connection = engine.connect()
        except exc.DBAPIError as e:
            what = "is not a usable search history" if self._is_sqlite else "cannot be reached"
            raise StorageError(f"{self.text} {what} ({_reason(e)}); use another one") from e
        try:
            self._open_tables(create)
            self._open_study(name, create)
        except exc.DBAPIError as e:
            self.close()
            raise StorageError(f"{self.text} is not a usable search history ({_reason(e)}); use another one") from e
        except BaseException:
            self.close()
            raise

    def _open_tables(self, create: bool) -> None:
        with self.connection.begin():
            if not self._is_sqlite:
                self.connection.execute(sql.select(sql.func.pg_advisory_xact_lock(_LOCKS, 0)))
            found = set(sql.inspect(self.connection).get_table_names())
            ours = set(_tables.tables)
            if not found & ours:
                if self._is_sqlite and {"meta", "plans", "queries"} <= found:
                    raise StorageError(f"{self.text} has format version 1, this program reads {FORMAT_VERSION}; "
                                       "start again in a new file")
                if self._is_sqlite and found:
                    raise StorageError(f"{self.text} is a database of something else (tables {sorted(found)}); "
                                       "use another file")
                if not create:
                    raise StorageError(f"{self.text} holds no search history")
                _tables.create_all(self.connection, checkfirst=False)
                self.connection.execute(sql.insert(meta).values(key="format_version", value=str(FORMAT_VERSION)))
                return
            if not ours <= found:
                raise StorageError(f"{self.text} lacks the tables {sorted(ours - found)}; use another one")
            version = self.connection.execute(sql.select(meta.c.value).where(meta.c.key == "format_version")).scalar()
            if version != str(FORMAT_VERSION):
                raise StorageError(f"{self.text} has format version {version}, this program reads {FORMAT_VERSION}; "
                                   "start again in a new one")

    def _open_study(self, name: str, create: bool) -> None:
        with self.connection.begin():
            by_name = sql.select(studies.c.id, studies.c.revision).where(studies.c.name == name)
            row = self.connection.execute(by_name).first()
            if row is None and create:
                self.connection.execute(sql.insert(studies).values(name=name, revision=0))
                row = self.connection.execute(by_name).first()
            if row is None:
                names = self.connection.execute(sql.select(studies.c.name).order_by(studies.c.name)).scalars().all()
                raise StorageError(f"{self.text} has no study {name!r}; it has {', '.join(names) or 'none'}")
            self._study, self._revision = int(row.id), int(row.revision)

    # -- reading -------------------------------------------------------------------------------------------------

    def load(self) -> Loaded:
        """Everything that the study holds. Raises ``StorageError`` where the database is damaged."""
        try:
            with self.connection.begin():
                row = self.connection.execute(sql.select(studies.c.config, studies.c.revision)
                                              .where(studies.c.id == self._study)).one()
                plan = self.connection.execute(sql.select(plans.c.number, plans.c.rng_state).where(
                    plans.c.study == self._study).order_by(plans.c.number.desc()).limit(1)).first()
                plan_s = self.connection.execute(sql.select(sql.func.sum(plans.c.wall_s)).where(
                    plans.c.study == self._study)).scalar()
                rows = self.connection.execute(sql.select(trials).where(
                    trials.c.study == self._study).order_by(trials.c.step)).mappings().all()
            self._revision = int(row.revision)
            return Loaded(None if row.config is None else json.loads(row.config),
                          None if plan is None else (int(plan.number), json.loads(plan.rng_state)), rows, float(plan_s or 0.0))
        except (exc.SQLAlchemyError, ValueError) as e:
            raise StorageError(f"{self.text} is not a usable search history ({_reason(e)}); use another one") from e

    # -- writing -------------------------------------------------------------------------------------------------

    def write(self, *statements: tuple[Any, Any]) -> None:
        """Execute ``(statement, values or rows)``, all or nothing, on disk at the return.

        Raises:
            HistoryError: another process writes, or wrote since this one read; or a rule of the tables is broken.
            StorageError: the disk or the server refuses.
        """
        self.claim()
        try:
            with self.connection.begin():
                known = {"_study": self._study, "_revision": self._revision}
                if self.connection.execute(_COUNT_UP, known).rowcount != 1:
                    raise HistoryError(f"{self.text} was written by another process since this one read it; only one process "
                                       "may write a history at a time")
                for statement, values in statements:
                    self.connection.execute(statement, values)
        except exc.IntegrityError as e:
            raise HistoryError(f"{self.text} refused a record ({_reason(e)}); a network is recorded once, and only one process "
                               "may write a history") from e
        except exc.SQLAlchemyError as e:
            raise StorageError(f"cannot write {self.text}: {_reason(e)}") from e
        self._revision += 1

    def save_plan(self, number: int, rng_state: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], wall_s: float) -> None:
        """Write a generation: its number, generator state, seconds, and a planned trial for each row (``step, genome, key,
        source, origin``)."""
        new = [{"study": self._study, "generation": number, "status": "planned", **row} for row in rows]
        self.write((sql.insert(plans), {"study": self._study, "number": number, "rng_state": json.dumps(rng_state),
                                         "wall_s": wall_s}),
                   *([(sql.insert(trials), new)] if new else []))

    def set(self, column: str, value: str | None) -> None:
        """Write ``config`` or ``writer`` of the study."""
        self.write((_SET[column], {"_study": self._study, "_value": value}))

    def answer(self, step: int, **columns: Any) -> None:
        """Write the answer of one planned trial: ``status, value, measured, wall_s, error, log``."""
        self.write((_ANSWER, {"_study": self._study, "_step": step, **columns}))

    def claim(self) -> None:
        """Become the one writer. Raises ``HistoryError`` where another living process is."""
        if self._claimed:
            return
        if not self._is_sqlite:
            lock = sql.select(sql.func.pg_try_advisory_lock(_LOCKS, self._study))
            for _ in range(20):  # a server needs a moment to notice that a killed process is gone
                with self.connection.begin():
                    mine = self.connection.execute(lock).scalar()
                if mine:
                    break
                time.sleep(0.1)
            else:
                raise HistoryError(f"{self.text} is being written by another process; only one may write a history")
        else:
            with self.connection.begin():
                writer = self.connection.execute(sql.select(studies.c.writer).where(studies.c.id == self._study)).scalar()
            if writer is not None and (pid := _alive(json.loads(writer))):
                raise HistoryError(f"{self.text} is being written by process {pid}; only one may write a history")
        self._claimed = True
        try:
            self.set("writer", json.dumps(_me()))
        except BaseException:
            self._claimed = False
            raise

    def close(self) -> None:
        """Release the claim and the connection."""
        if self._claimed and not self.connection.closed:
            with contextlib.suppress(CGError):  # a full disk or another writer: the claim ends with this process in any case
                self.set("writer", None)
            self._claimed = False
        self.connection.close()
        self._engine.dispose()


def settings(where: str | Path) -> dict[str, dict[str, Any] | None]:
    """``config`` of every study in a database, ``None`` before it was begun. Raises ``StorageError`` as ``Store`` does."""
    _, text, engine = _engine(where, create=False)
    try:
        with engine.connect() as connection:
            rows = connection.execute(sql.select(studies.c.name, studies.c.config)).all()
        return {row.name: None if row.config is None else json.loads(row.config) for row in rows}
    except (exc.DBAPIError, ValueError) as e:
        raise StorageError(f"{text} is not a usable search history ({_reason(e)})") from e
    finally:
        engine.dispose()


def _engine(where: str | Path, create: bool) -> tuple[bool, str, sql.Engine]:
    """Whether it is SQLite, how messages call it (without a password), and the engine."""
    if isinstance(where, str) and "://" in where:
        try:
            url = make_url(where)
        except exc.ArgumentError as e:
            raise StorageError(f"cannot read the database URL: {e}") from e
        if url.drivername == "postgresql":
            url = url.set(drivername="postgresql+psycopg")
    else:
        url = URL.create("sqlite", database=str(where))
    kind = url.get_backend_name()
    if kind not in ("sqlite", "postgresql"):
        raise StorageError(f"a history lives in SQLite or PostgreSQL, not in {kind!r}")
    if kind == "sqlite" and url.database:
        path = Path(url.database)
        if not create and not path.is_file():
            raise StorageError(f"no search history at {path}")
        if not path.parent.is_dir():
            raise StorageError(f"cannot create history {path}: folder {path.parent} does not exist")
    text = f"history {url.database if kind == 'sqlite' else url.render_as_string(hide_password=True)}"
    try:
        # SQLite: how long a write waits for a reader that holds the file
        engine = sql.create_engine(url, poolclass=sql.NullPool, connect_args={"timeout": 60.0} if kind == "sqlite" else {})
    except ImportError as e:
        raise StorageError(f"{text} needs a driver: pip install 'cgtransfer[postgres]' ({e})") from e
    first = "PRAGMA synchronous=FULL" if kind == "sqlite" else "SET synchronous_commit = on"

    @sql.event.listens_for(engine, "connect")
    def configure(connection: Any, _: Any) -> None:
        if kind == "sqlite":
            connection.isolation_level = None  # the driver's own BEGIN leaves table definitions outside of transactions
        cursor = connection.cursor()
        cursor.execute(first)
        cursor.close()
        if kind != "sqlite":
            connection.commit()

    if kind == "sqlite":
        @sql.event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            connection.connection.driver_connection.execute("BEGIN")  # type: ignore[union-attr]

    return kind == "sqlite", text, engine


def _reason(error: BaseException) -> str:
    """The driver's own words, on one line."""
    return " ".join(str(getattr(error, "orig", None) or error).split())


def _me() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "start": _start_time(os.getpid())}


def _alive(writer: Mapping[str, Any]) -> int:
    """The process number of ``writer`` if it is another process of this machine that lives, else 0."""
    pid = int(writer["pid"])
    if writer["host"] != socket.gethostname() or pid == os.getpid():
        return 0
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return 0
    except OSError:
        pass  # it lives and belongs to another user
    return pid if _start_time(pid) == writer["start"] else 0
