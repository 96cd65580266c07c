"""The history: what it stores, what it refuses, and what is left after a kill, a full disk or a damaged file."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cg.errors import StorageError
from evo_search.history import History, HistoryError, PlanItem

CONFIG = {"seed": 1, "config": {"batch_size": 5, "maximize": True}}


def item(i: int, source: str = "initial") -> PlanItem:
    return PlanItem(f"genome {i}", f"key {i}", source)


def test_what_was_recorded_is_read_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    rng.random(3)
    with History(tmp_path / "a.sqlite") as h:
        assert h.begin(CONFIG) is False
        h.save_plan(0, [item(0), item(1), item(2, "random")], rng.bit_generator.state)
        h.record(item(0), 0.25, wall_s=1.5)
        h.record(item(1), None, wall_s=0.5, error="ValueError: no")
        h.record(item(2, "random"), 0.75, wall_s=2.0)
        written = h.queries
    with History.read(tmp_path / "a.sqlite") as h:
        assert h.queries == written
        assert [q.step for q in h.queries] == [0, 1, 2]
        assert [q.status for q in h.queries] == ["ok", "failed", "ok"]
        assert [q.value for q in h.queries] == [0.25, None, 0.75]
        assert h.queries[1].error == "ValueError: no"
        assert [q.source for q in h.queries] == ["initial", "initial", "random"]
        assert h.config == CONFIG
        assert h.plan is not None
        assert h.plan.items == (item(0), item(1), item(2, "random"))
        other = np.random.default_rng(0)
        other.bit_generator.state = h.plan.rng_state
        assert other.random() == rng.random()
        assert h.lookup("key 2") == written[2]
        assert h.lookup("key 9") is None
    assert len(h) == 3, "a closed history stays readable"


def test_one_run_is_one_file(tmp_path: Path) -> None:
    h = History(tmp_path / "a.sqlite")
    h.begin(CONFIG)
    h.record(item(0), 1.0, wall_s=0)
    assert [p.name for p in tmp_path.iterdir()] == ["a.sqlite"]
    h.close()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), None])
def test_a_value_that_is_not_a_number_is_a_failed_query(value: float | None) -> None:
    with History() as h:
        q = h.record(item(0), value, wall_s=0)
        assert (q.status, q.value) == ("failed", None)
        assert str(value) in q.error
        assert len(h) == 1
        assert h.best() is None
        assert np.isnan(h.curve()).all()


def test_a_network_is_recorded_once() -> None:
    with History() as h:
        h.record(item(0), 1.0, wall_s=0)
        with pytest.raises(HistoryError, match="recorded once"):
            h.record(PlanItem("another genome", "key 0", "evolved"), 2.0, wall_s=0)
        assert [q.value for q in h.queries] == [1.0]


def test_best_and_curve() -> None:
    with History() as h:
        for i, v in enumerate([None, 2.0, 1.0, 3.0, None, 3.0]):
            h.record(item(i), v, wall_s=0)
        assert h.best() == h.queries[3], "the earliest of equals"
        assert h.best(maximize=False) == h.queries[2]
        np.testing.assert_array_equal(h.curve(), [np.nan, 2, 2, 3, 3, 3])
        np.testing.assert_array_equal(h.curve(maximize=False), [np.nan, 2, 1, 1, 1, 1])


def test_an_empty_history_has_an_empty_curve() -> None:
    with History() as h:
        assert h.curve().shape == (0,)


def test_another_configuration_is_refused_by_field(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    with History(path) as h:
        h.begin(CONFIG)
    with History(path) as h:
        assert h.begin({"config": {"maximize": True, "batch_size": 5}, "seed": 1}) is True
        with pytest.raises(HistoryError, match=r"config\.batch_size = 5, this run has 6"):
            h.begin({"seed": 1, "config": {"batch_size": 6, "maximize": True}})
        with pytest.raises(HistoryError, match=r"extra = '\(absent\)'"):
            h.begin({**CONFIG, "extra": 1})
        assert h.config == CONFIG


def test_files_that_are_not_histories_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no search history at"):
        History.read(tmp_path / "absent.sqlite")
    with pytest.raises(StorageError, match="does not exist"):
        History(tmp_path / "no" / "folder.sqlite")
    text = tmp_path / "text.sqlite"
    text.write_text("step,value\n" * 200)
    with pytest.raises(StorageError, match=r"text\.sqlite is not a usable"):
        History(text)
    assert text.read_text() == "step,value\n" * 200
    foreign = tmp_path / "foreign.sqlite"
    db = sqlite3.connect(foreign)
    db.execute("CREATE TABLE people (name TEXT)")
    db.close()
    with pytest.raises(StorageError, match="something else"):
        History(foreign)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    with History(path) as h:
        h.begin(CONFIG)
        for i in range(400):
            h.record(item(i), 1.0, wall_s=0)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(StorageError, match=r"a\.sqlite"):
        History(path)


def test_another_format_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    History(path).close()
    db = sqlite3.connect(path)
    db.execute("UPDATE meta SET value='99' WHERE key='format_version'")
    db.commit()
    db.close()
    with pytest.raises(StorageError, match="format version 99"):
        History(path)


def test_a_full_disk_loses_nothing_that_was_finished(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    h = History(path)
    h.begin(CONFIG)
    pages = h._db.execute("PRAGMA page_count").fetchone()[0]
    h._db.execute(f"PRAGMA max_page_count={pages + 3}")  # SQLite's own "database or disk is full"
    while h._db.execute("PRAGMA page_count").fetchone()[0] < pages + 3:
        h.record(PlanItem("g" * 500, f"key {len(h)}", "initial"), float(len(h)), wall_s=0)
    done = len(h)
    with pytest.raises(StorageError, match=r"full; the \d+ finished queries are kept"):
        h.record(PlanItem("g" * 50_000, "large", "initial"), 1.0, wall_s=0)
    assert len(h) == done > 0
    assert h.lookup("large") is None
    h.close()
    with History(path) as h:
        assert [q.value for q in h.queries] == list(range(done))
        h.record(item(99_999), 1.0, wall_s=0)


def test_a_second_writer_is_noticed(tmp_path: Path) -> None:
    with History(tmp_path / "a.sqlite") as one, History(tmp_path / "a.sqlite") as two:
        one.record(item(0), 1.0, wall_s=0)
        with pytest.raises(HistoryError, match="only one process"):
            two.record(item(1), 2.0, wall_s=0)
        assert len(two) == 0


def test_every_record_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    code = ("import os, sys; from evo_search.history import History, PlanItem; h = History(sys.argv[1])\n"
            "for i in range(7): h.record(PlanItem(f'g{i}', f'k{i}', 'initial'), i, wall_s=0)\n"
            "os.kill(os.getpid(), 9)")
    run = subprocess.run([sys.executable, "-c", code, str(path)], cwd=Path(__file__).parents[2],
                         env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}, check=False)
    assert run.returncode == -signal.SIGKILL
    with History.read(path) as h:
        assert [q.value for q in h.queries] == list(range(7))
