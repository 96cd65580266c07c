"""The history in a real PostgreSQL server, started here in a temporary folder; skipped where there is none on this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import toy_study
from toy_study import SlowOracle, open_study, sequence

from cg.errors import StorageError
from evo_search.history import History, HistoryError, study_names

pytest.importorskip("psycopg")
ROOT = Path(__file__).parents[2]


def _binaries() -> Path:
    """The folder of ``initdb`` and ``pg_ctl``."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    named = [Path(p) for p in (shutil.which("initdb"),) if p] + found[-1:]
    if not named:
        pytest.skip("no PostgreSQL server is installed (initdb is not found)")
    return named[0].resolve().parent


def _as_user() -> list[str]:
    """Words before a command that must not be run by root; PostgreSQL refuses to be."""
    if os.geteuid() != 0:
        return []
    if shutil.which("runuser") is None or subprocess.run(["id", "postgres"], capture_output=True, check=False).returncode:
        pytest.skip("root cannot run PostgreSQL, and there is no user 'postgres' to become")
    return ["runuser", "-u", "postgres", "--"]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """URL of an empty database, reached through a socket in its own folder."""
    binaries, user = _binaries(), _as_user()
    folder = Path(tempfile.mkdtemp(prefix="cg-pg-"))  # a socket's path must be short
    data = folder / "data"
    if user:
        shutil.chown(folder, "postgres")

    def run(*command: object) -> None:
        subprocess.run([*user, *map(str, command)], check=True, cwd=folder, stdout=subprocess.DEVNULL, timeout=120)

    try:
        run(binaries / "initdb", "-D", data, "-A", "trust", "-U", "cg", "--no-sync")
        run(binaries / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", f"-k {folder} -c listen_addresses=''", "start")
        try:
            yield f"postgresql+psycopg://cg@/postgres?host={folder}"
        finally:
            run(binaries / "pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


def test_a_run_is_that_of_memory_and_is_read_back(server: str) -> None:
    with open_study("algorithm1", server, "one") as study:
        study.run(SlowOracle(), 20)
    with open_study("algorithm1", server.replace("+psycopg", ""), "one") as study:
        study.run(SlowOracle(), 37, 3)
    alone = open_study("algorithm1")
    alone.run(SlowOracle(), 37)
    with History.read(server, "one") as h:
        study = open_study("algorithm1", h)
        assert sequence(study) == sequence(alone)
        assert h.plan == alone.history.plan
    with open_study("random", server, "two") as study:
        study.run(SlowOracle(), 3)
    assert {"one", "two"} <= set(study_names(server))
    with pytest.raises(HistoryError, match=r"begun with config\.batch_size = 4, this run has 7"):
        open_study("random", server, "one")
    with pytest.raises(StorageError, match="has no study 'three'"):
        History.read(server, "three")


def test_one_connection_writes(server: str) -> None:
    with open_study("random", server, "contested") as one:
        trial = one.ask(1)[0]
        with open_study("random", server, "contested") as two, pytest.raises(HistoryError, match="is being written by another"):
            two.ask(1)
        one.tell(trial, {"acc": 1.0})
    with open_study("random", server, "contested") as three:
        assert len(three) == 1
        assert len(three.ask()) == 6


def test_a_killed_run_goes_on(server: str) -> None:
    run = subprocess.Popen([sys.executable, toy_study.__file__, server, "killed", "random", "2", "60", "0.004"],
                           env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    printed = {int(run.stdout.readline()) for _ in range(12)}
    run.send_signal(signal.SIGKILL)
    run.communicate()
    with History.read(server, "killed") as h:
        assert printed <= {q.step for q in h.queries}
        assert len(h) < 60
    with open_study("random", server, "killed") as study:
        study.run(SlowOracle(), 60)
        alone = open_study("random")
        alone.run(SlowOracle(), 60)
        assert sequence(study) == sequence(alone)


def test_other_tables_are_left_alone_and_versions_are_compared(server: str) -> None:
    import psycopg

    where = server.replace("+psycopg", "")
    with psycopg.connect(where) as db:
        db.execute("CREATE TABLE meta (people TEXT)")
    History(server, "beside").close()
    with psycopg.connect(where) as db:
        db.execute("UPDATE cg_meta SET value = '99'")
    with pytest.raises(StorageError, match="format version 99, this program reads 2"):
        History(server, "beside")
    with psycopg.connect(where) as db:
        db.execute("UPDATE cg_meta SET value = '2'")


def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    with pytest.raises(StorageError, match="cannot be reached") as caught:
        History("postgresql://me:secret@localhost:1/nothing")
    assert "localhost:1/nothing" in str(caught.value)
    assert "secret" not in str(caught.value)
