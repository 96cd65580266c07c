"""Side by side instead of inside: on matrices as small as a graph's, one length bucket a thread is several times as fast as
torch's own threads inside an operator. Results do not depend on the number of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

A = TypeVar("A")
B = TypeVar("B")


def side_by_side(work: Callable[[A], B], items: Iterable[A]) -> list[B]:
    """``[work(x) for x in items]`` on ``torch.get_num_threads()`` threads, each of which computes with one."""
    threads = torch.get_num_threads()

    def alone(item: A) -> B:
        torch.set_num_threads(1)
        return work(item)

    try:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(alone, items))
    finally:
        torch.set_num_threads(threads)
