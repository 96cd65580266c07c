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
from evo_search.history import History, HistoryError, PlanItem, study_names

CONFIG = {"seed": 1, "config": {"batch_size": 5, "maximize": True}}


STATE = np.random.default_rng(0).bit_generator.state
ROOT = Path(__file__).parents[2]


def item(i: int, source: str = "initial") -> PlanItem:
    return PlanItem(f"genome {i}", f"key {i}", source)


def plan(h: History, n: int, number: int = 0, first: int = 0) -> History:
    """Plan the next generation: ``n`` networks from ``first``."""
    h.save_plan(number, [item(first + i) for i in range(n)], STATE)
    return h


def sub(code: str, *args: object) -> subprocess.Popen[str]:
    """Python code in a process of its own that finds the repository."""
    return subprocess.Popen([sys.executable, "-c", code, *map(str, args)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


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
        assert h.pending == []
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
    plan(h, 1).record(item(0), 1.0, wall_s=0)
    assert [p.name for p in tmp_path.iterdir()] == ["a.sqlite"]
    h.close()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), None])
def test_a_value_that_is_not_a_number_is_a_failed_query(value: float | None) -> None:
    with History() as h:
        q = plan(h, 1).record(item(0), value, wall_s=0)
        assert (q.status, q.value) == ("failed", None)
        assert str(value) in q.error
        assert len(h) == 1
        assert h.best() is None
        assert np.isnan(h.curve()).all()


def test_a_network_is_recorded_once() -> None:
    with History() as h:
        plan(h, 2).record(item(0), 1.0, wall_s=0)
        with pytest.raises(HistoryError, match="recorded once"):
            h.record(PlanItem("another genome", "key 0", "evolved"), 2.0, wall_s=0)
        with pytest.raises(HistoryError, match="planned already; a network is recorded once"):
            h.save_plan(1, [item(5), item(1)], STATE)
        with pytest.raises(HistoryError, match="'genome 9' was not planned"):
            h.record(item(9), 2.0, wall_s=0)
        with pytest.raises(HistoryError, match="expects generation 1, got 2"):
            h.save_plan(2, [item(5)], STATE)
        assert [q.value for q in h.queries] == [1.0]
        assert h.pending == [(1, item(1))]


def test_best_and_curve() -> None:
    with History() as h:
        plan(h, 6)
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
        plan(h, 400)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(StorageError, match=r"a\.sqlite"):
        History(path)


def test_another_format_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    History(path).close()
    db = sqlite3.connect(path)
    db.execute("UPDATE cg_meta SET value='99' WHERE key='format_version'")
    db.commit()
    db.close()
    with pytest.raises(StorageError, match="format version 99"):
        History(path)


def test_the_first_format_is_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    db = sqlite3.connect(path)
    for name in ("meta", "plans", "queries"):
        db.execute(f"CREATE TABLE {name} (key TEXT, value TEXT)")
    db.execute("INSERT INTO meta VALUES ('format_version', '1')")
    db.commit()
    db.close()
    with pytest.raises(StorageError, match=r"a\.sqlite has format version 1, this program reads 3"):
        History(path)


@pytest.mark.parametrize("harm", ["UPDATE cg_trials SET measured = '{' WHERE step = 1", "DELETE FROM cg_trials WHERE step = 1",
                                  "UPDATE cg_studies SET config = '[]'", "DROP TABLE cg_plans"])
def test_a_damaged_record_is_refused(tmp_path: Path, harm: str) -> None:
    path = tmp_path / "a.sqlite"
    with History(path) as h:
        h.begin(CONFIG)
        plan(h, 3)
        for i in range(3):
            h.record(item(i), 1.0, wall_s=0)
    History.read(path).close()
    db = sqlite3.connect(path)
    db.execute(harm)
    db.commit()
    db.close()
    with pytest.raises(StorageError, match=r"a\.sqlite (is not a usable|lacks)"):
        History(path)


def test_a_full_disk_loses_nothing_that_was_finished(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    h = History(path)
    h.begin(CONFIG)
    plan(h, 200)
    assert h._store is not None
    run = h._store.connection.connection.driver_connection.execute  # type: ignore[union-attr]
    pages = run("PRAGMA page_count").fetchone()[0]
    run(f"PRAGMA max_page_count={pages + 3}")  # SQLite's own "database or disk is full"

    def record_all() -> None:
        for i in range(200):
            h.record(item(i), float(i), wall_s=0, values={"a long name" * 20: 1.0})

    with pytest.raises(StorageError, match=r"full; the \d+ finished queries are kept"):
        record_all()
    done = len(h)
    assert 0 < done < 199
    assert h.lookup(f"key {done}") is None
    h.close()
    with History(path) as h:
        assert [q.value for q in h.queries] == list(range(done))
        assert h.pending[0] == (done, item(done))
        h.record(item(done), 1.0, wall_s=0)


def test_every_record_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    code = ("import os, sys; from evo_search.history import History, PlanItem; h = History(sys.argv[1])\n"
            "items = [PlanItem(f'g{i}', f'k{i}', 'initial') for i in range(9)]; h.save_plan(0, items, {})\n"
            "for i in range(7): h.record(items[i], i, wall_s=0)\n"
            "os.kill(os.getpid(), 9)")
    run = sub(code, path)
    run.communicate()
    assert run.returncode == -signal.SIGKILL
    with History.read(path) as h:
        assert [q.value for q in h.queries] == list(range(7))
        assert [step for step, _ in h.pending] == [7, 8]


# -- order, values, logs -------------------------------------------------------------------------------------------

def test_queries_stand_in_the_order_of_the_plan(tmp_path: Path) -> None:
    with History(tmp_path / "a.sqlite") as h:
        h.begin(CONFIG)
        plan(h, 3)
        for i in (2, 0):
            h.record(item(i), float(i), wall_s=0)
        assert [q.step for q in h.queries] == [0, 2]
        assert h.curve().tolist() == [0, 2]
        h.record(item(1), 5.0, wall_s=0)
        plan(h, 2, number=1, first=3).record(item(4), 1.0, wall_s=0)
    with History(tmp_path / "a.sqlite") as h:
        assert [(q.step, q.value, q.generation) for q in h.queries] == [(0, 0, 0), (1, 5, 0), (2, 2, 0), (4, 1, 1)]
        assert h.plan is not None
        assert (h.plan.number, h.plan.first_step, h.plan.items) == (1, 3, (item(3), item(4)))
        assert h.pending == [(3, item(3))]


def test_values_and_logs_are_kept_to_the_bit(tmp_path: Path) -> None:
    values = {"acc": 0.1 + 0.2, "latency_ms": 1e-300, "µ": -5.0}
    with History(tmp_path / "a.sqlite") as h:
        plan(h, 3).record(item(0), values["acc"], wall_s=0.125, values=values)
        h.record(item(1), None, wall_s=0, error="exit 1\0 \ud800", log="x" * 200_000 + "end")
    with History.read(tmp_path / "a.sqlite") as h:
        good, bad = h.queries
        assert (good.value, dict(good.values), good.wall_s) == (values["acc"], values, 0.125)
        assert bad.error == "exit 1\\0 ?"
        assert len(bad.log) == 100_000
        assert bad.log.endswith("xend")
        assert (bad.value, bad.values) == (None, {})


def test_settings_known_later_are_compared_too(tmp_path: Path) -> None:
    with History(tmp_path / "a.sqlite") as h:
        h.begin(CONFIG)
        h.bind("oracle", {"kind": "table", "metric": "acc"})
    with History(tmp_path / "a.sqlite") as h:
        assert h.begin(CONFIG) is True
        h.bind("oracle", {"kind": "table", "metric": "acc"})
        with pytest.raises(HistoryError, match=r"oracle\.metric = 'acc', this run has 'loss'"):
            h.bind("oracle", {"kind": "table", "metric": "loss"})


# -- several studies, several processes ----------------------------------------------------------------------------

def test_one_file_holds_several_studies(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    with History(path, "one") as one, History(path, "two") as two:
        one.begin(CONFIG)
        two.begin({"seed": 2})
        plan(one, 2).record(item(0), 1.0, wall_s=0)
        plan(two, 2).record(item(0), 2.0, wall_s=0)
        one.record(item(1), 3.0, wall_s=0)
    assert study_names(path) == ["one", "two"]
    with History.read(path, "two") as h:
        assert [q.value for q in h.queries] == [2.0]
        assert h.config == {"seed": 2}
    with pytest.raises(StorageError, match="has no study 'three'; it has one, two"):
        History.read(path, "three")


def test_a_second_writer_is_noticed(tmp_path: Path) -> None:
    with History(tmp_path / "a.sqlite") as h:
        plan(h, 2)
    with History(tmp_path / "a.sqlite") as one, History(tmp_path / "a.sqlite") as two:
        one.record(item(0), 1.0, wall_s=0)
        with pytest.raises(HistoryError, match="only one process"):
            two.record(item(1), 2.0, wall_s=0)
        assert len(two) == 0
        one.record(item(1), 3.0, wall_s=0)
    with History.read(tmp_path / "a.sqlite") as h:
        assert [q.value for q in h.queries] == [1.0, 3.0]


def test_a_living_writer_is_named_and_a_dead_one_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    writer = sub("import sys; from evo_search.history import History, PlanItem; h = History(sys.argv[1]); h.begin({})\n"
                 "h.save_plan(0, [PlanItem('g', 'key 0', 'initial')], {}); print('ready', flush=True); input()", path)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    with History.read(path) as reader:
        assert len(reader.pending) == 1
        reader.begin({})
        with pytest.raises(HistoryError, match=f"being written by process {writer.pid}"):
            reader.claim()
    writer.kill()
    writer.communicate()
    with History(path) as h:
        h.begin({})
        h.record(item(0), 1.0, wall_s=0)
    with History(path) as h:  # a closed history is nobody's
        assert h._store is not None
        with h._store.connection.begin():
            assert h._store.connection.exec_driver_sql("SELECT writer FROM cg_studies").scalar() is None


def test_urls(tmp_path: Path) -> None:
    with History(f"sqlite:///{tmp_path}/a.sqlite") as h:
        plan(h, 1)
    with History.read(tmp_path / "a.sqlite") as h:
        assert len(h.pending) == 1
    for url, text in (("mysql://somewhere/a", "not in 'mysql'"), ("://", "cannot read the database URL")):
        with pytest.raises(StorageError, match=text):
            History(url)


def test_memory_needs_no_database() -> None:
    code = ("import sys; from evo_search import get_space, random_search\n"
            "random_search(get_space('nasbench201'), lambda a: 1.0, 3)\n"
            "print('sqlalchemy' in sys.modules, 'torch' in sys.modules)")
    assert sub(code).communicate()[0] == "False False\n"
