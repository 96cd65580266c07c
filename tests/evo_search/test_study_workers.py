"""A study with workers, interrupts and kills: the sequence is that of an undisturbed run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_search_space as toy
import toy_study
from toy_study import SlowOracle, open_study, random_study, sequence

from evo_search.history import History
from evo_search.study import Trial

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("strategy", sorted(toy_study.STRATEGIES))
def test_four_workers_ask_what_one_asks(strategy: str) -> None:
    one, four = open_study(strategy), open_study(strategy)
    arrived: list[int] = []
    one.run(SlowOracle(), 50)
    four.run(SlowOracle(0.002), 50, 4, lambda query, best: arrived.append(query.step))
    assert sequence(one) == sequence(four)
    assert sorted(arrived) == list(range(50))
    if strategy != "aging":  # with its small batches the order may be kept by chance
        assert arrived != list(range(50))


def test_workers_really_work_at_the_same_time() -> None:
    barrier = threading.Barrier(3, timeout=20)

    def oracle(a: toy.Genome) -> float:
        barrier.wait()
        return toy.value(a)

    study = random_study(6)
    study.run(oracle, 6, 3)
    assert all(q.status == "ok" for q in study.history.queries)


def test_an_interrupt_of_a_worker_ends_the_run(tmp_path: Path) -> None:
    def oracle(a: toy.Genome) -> float:
        if a[3] == 2:
            raise KeyboardInterrupt
        return toy.value(a)

    with random_study(20, history=tmp_path / "a.sqlite") as study, pytest.raises(KeyboardInterrupt):
        study.run(oracle, 20, 3)
    with History.read(tmp_path / "a.sqlite") as h:
        assert len(h) < 20
        assert all(q.status == "ok" for q in h.queries)
        assert len(h) + len(h.pending) == 20


def test_threads_may_ask_and_tell(tmp_path: Path) -> None:
    study = random_study(8, history=tmp_path / "a.sqlite")
    told: list[Trial] = []

    def work() -> None:
        while len(told) < 40:
            for trial in study.ask(1):
                study.tell(trial, toy.value(trial.genome))
                told.append(trial)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len({t.step for t in told}) == len(told) == len(study) >= 40
    alone = random_study(8)
    alone.run(toy.value, len(told))
    assert sequence(study) == sequence(alone)
    study.close()


def kill_at(moment: float, arguments: list[str]) -> set[int]:
    """Run ``toy_study`` and kill it ``moment`` seconds after its first answer; the steps that it had printed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, toy_study.__file__, *arguments], env=environment, stdout=subprocess.PIPE,
                          text=True) as run:
        assert run.stdout is not None
        lines = [run.stdout.readline()]
        time.sleep(moment)
        run.send_signal(signal.SIGKILL)
        lines += run.stdout.readlines()
    return {int(line) for line in lines if line.endswith("\n") and line.strip().isdigit()}


def kills(moments: list[float], where: str, strategy: str, workers: int, budget: int) -> None:
    """Kill a run at every moment, one after the other, then let it finish: nothing is lost, and the run is the same."""
    arguments = [where, "killed", strategy, str(workers), str(budget), str(0.004 * workers)]
    answered: dict[int, tuple[Any, ...]] = {}
    unfinished = 0
    for moment in moments:
        printed = kill_at(moment, arguments)
        with History.read(where, "killed") as h:
            now = {q.step: (q.genome, q.value, q.wall_s) for q in h.queries}
        assert printed <= now.keys(), "what was said to be answered is on disk"
        assert {step: now[step] for step in answered} == answered, "what was answered once is never asked again"
        answered = now
        unfinished += len(now) < budget
    assert unfinished >= len(moments) / 2, "the kills came too late to say anything"
    with open_study(strategy, where, "killed") as study:
        study.run(SlowOracle(), budget, workers)
        whole = open_study(strategy)
        whole.run(SlowOracle(), budget)
        assert sequence(study) == sequence(whole)


def moments(n: int, seed: int) -> list[float]:
    return np.random.default_rng(seed).uniform(0, 0.25, n).tolist()


@pytest.mark.parametrize(("strategy", "workers", "n"), [("algorithm1", 1, 3), ("random", 4, 2)])
def test_kills_at_random_moments(tmp_path: Path, strategy: str, workers: int, n: int) -> None:
    kills(moments(n, workers), str(tmp_path / "a.sqlite"), strategy, workers, 150)


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "workers"), [("algorithm1", 1), ("algorithm1", 4), ("random", 1), ("local", 4),
                                                   ("aging", 1)])
def test_kills_at_fifty_random_moments(tmp_path: Path, strategy: str, workers: int) -> None:
    kills(moments(10, 10 + workers), str(tmp_path / "a.sqlite"), strategy, workers, 300)
