"""Statistics that are remembered are those of the same graph object, and of no other."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import numpy as np
import pytest

from cg import Graph
from cg import recent_statistics as module
from cg.global_statistics import statistics
from evo_search import get_space


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    module.forget()
    yield
    module.forget()


def graphs(n: int, seed: int = 0) -> list[Graph]:
    space, rng = get_space("nasbench201"), np.random.default_rng(seed)
    return [space.to_graph(space.decode(space.encode(space.sample(rng)))) for _ in range(n)]


def test_a_graph_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def counted(some: list[Graph]) -> np.ndarray:
        asked.append(len(some))
        return statistics(some)

    monkeypatch.setattr(module, "statistics", counted)
    known = graphs(5)
    expected = statistics(known)
    np.testing.assert_array_equal(module.recent_statistics(known[:3]), expected[:3])
    np.testing.assert_array_equal(module.recent_statistics(known[::-1]), expected[::-1])
    assert asked == [3, 2]
    module.forget()
    module.recent_statistics(known)
    assert asked == [3, 2, 5]
    found = module.recent_statistics(known)
    found[:] = 0  # the caller's own
    np.testing.assert_array_equal(module.recent_statistics(known), expected)


def test_an_address_that_is_used_again_is_another_graph() -> None:
    old = graphs(1)[0]
    module.recent_statistics([old])
    new = graphs(2, seed=1)[1]
    module._rows[id(new)] = module._rows.pop(id(old))  # as if the new one lay where the old one was
    del old
    gc.collect()
    np.testing.assert_array_equal(module.recent_statistics([new]), statistics([new]))


def test_only_the_last_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 4)
    known = graphs(6)
    module.recent_statistics(known[:3])
    module.recent_statistics(known[3:])
    assert set(module._rows) == {id(g) for g in known[2:]}
    np.testing.assert_array_equal(module.recent_statistics(known), statistics(known))  # more than are remembered at once
