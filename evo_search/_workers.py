"""Evaluations of a batch, one after the other or in several threads. This file must not know what a search is."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from evo_search._process import interrupt_all

GRACE_S = 5.0
T = TypeVar("T")  # has a ``genome``
Answer = tuple[T, Any, float]


def evaluate(oracle: Callable[[Any], Any], trials: Sequence[T], workers: int) -> Iterator[Answer[T]]:
    """``(trial, value or the exception it raised, seconds)`` as they come; in order where there is one worker.

    What is not an ``Exception`` (an interrupt) is raised. Leaving the iteration early starts nothing new and ends the commands
    that run; after 5 s other evaluations are left alone, in threads that the end of the program does not wait for.
    """
    if workers == 1 or len(trials) == 1:
        for trial in trials:
            yield _one(oracle, trial)
        return
    todo: queue.SimpleQueue[T | None] = queue.SimpleQueue()
    done: queue.SimpleQueue[Answer[T] | BaseException] = queue.SimpleQueue()
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set() and (trial := todo.get()) is not None:
            try:
                done.put(_one(oracle, trial))
            except BaseException as error:
                done.put(error)
                return

    for trial in trials:
        todo.put(trial)
    threads = [threading.Thread(target=work, name=f"evaluation-{i}", daemon=True) for i in range(min(workers, len(trials)))]
    for thread in threads:
        todo.put(None)
        thread.start()
    finished = False
    try:
        for _ in trials:
            answer = done.get()
            if isinstance(answer, BaseException):
                raise answer
            yield answer
        finished = True
    finally:
        stop.set()
        if not finished:
            interrupt_all()
            end = time.monotonic() + GRACE_S
            for thread in threads:
                thread.join(max(0.0, end - time.monotonic()))


def _one(oracle: Callable[[Any], Any], trial: Any) -> Answer[Any]:
    start = time.perf_counter()
    try:
        value = oracle(trial.genome)
    except Exception as error:  # any failure of a user's training is data, not the end of the search
        value = error
    return trial, value, time.perf_counter() - start
