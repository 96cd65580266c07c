"""Iterative data selection: which networks are asked about in which round, and what happens when things fail."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cg.errors import CGError
from evo_search import get_space
from evo_search.iterative import Selection, iterative_selection, next_batch
from finetune.baselines import NativeEncoding


class Knows:
    """Predicts the truth, or what ``of`` makes of it, and keeps what it was fitted on."""

    fits: list[tuple[list[int], np.ndarray]]

    def __init__(self, fits: list[Any], of: Any = float) -> None:
        self.fits, self.of = fits, of

    def fit(self, networks: list[int], y: np.ndarray) -> None:
        assert len(networks) == len(y)
        self.fits.append((list(networks), y))

    def predict(self, networks: list[int]) -> np.ndarray:
        return np.array([self.of(n) for n in networks])


def run(n: int = 1000, oracle: Any = float, of: Any = float, **settings: Any) -> tuple[Selection, list[Any]]:
    fits: list[Any] = []
    return iterative_selection(range(n), oracle, lambda: Knows(fits, of), **settings), fits


def test_rounds_learn_from_all_before_and_take_the_best() -> None:
    found, fits = run(budget=60, learn=40, iterations=4, alpha=0.5, rng=3)
    assert len(found.order) == len(set(found.order.tolist())) == 60
    assert found.rounds.tolist() == [0] * 10 + [1] * 10 + [2] * 10 + [3] * 10 + [4] * 20
    assert (found.values == found.order).all()
    assert [len(networks) for networks, _ in fits] == [10, 20, 30, 40]
    for (networks, y), known in zip(fits, (10, 20, 30, 40), strict=True):
        assert (np.array(networks) == found.order[:known]).all()
        assert (y == found.values[:known]).all()
    for r in (1, 2, 3):
        batch, before = found.order[found.rounds == r], found.order[found.rounds < r]
        assert batch[:5].tolist() == [i for i in range(999, -1, -1) if i not in before][:5]
        assert batch[5:].min() >= 1000 - 1000 // 2 ** r
        assert batch[5:].max() < batch[4]
    last, before = found.order[found.rounds == 4], found.order[found.rounds < 4]
    assert last.tolist() == [i for i in range(999, -1, -1) if i not in before][:20]
    assert found.best == 999
    assert found.best_so_far()[-1] == 999


def test_alpha_one_is_greedy_and_alpha_zero_draws() -> None:
    greedy, _ = run(budget=40, iterations=2, alpha=1.0, rng=0)
    assert (np.diff(greedy.order[20:]) < 0).all()
    drawn, _ = run(budget=40, iterations=2, alpha=0.0, rng=0)
    assert drawn.order[20:].min() >= 500
    assert 999 not in drawn.order[20:]
    assert not (np.diff(drawn.order[20:]) < 0).all()
    assert (drawn.order[:20] == greedy.order[:20]).all()


def test_one_iteration_is_random_then_the_best() -> None:
    found, fits = run(budget=30, learn=20, iterations=1, rng=5)
    assert len(fits) == 1
    assert found.order[:20].mean() < 800
    assert found.order[20:].min() > 950
    random, fits = run(budget=30, iterations=1, rng=5)
    assert not fits
    assert (random.order[:20] == found.order[:20]).all()


def test_seed_decides() -> None:
    same = [run(budget=30, iterations=3, rng=1)[0].order for _ in range(2)]
    assert (same[0] == same[1]).all()
    assert (run(budget=30, iterations=3, rng=np.random.default_rng(1))[0].order == same[0]).all()
    assert (run(budget=30, iterations=3, rng=2)[0].order != same[0]).any()


def test_failed_queries_cost_and_teach_nothing() -> None:
    def half(i: int) -> float:
        if i % 4 == 1:
            raise ValueError("out of memory")
        return float("inf") if i % 4 == 3 else float(i)

    found, fits = run(oracle=half, budget=60, iterations=3, rng=0)
    assert len(found.order) == 60
    assert (np.isnan(found.values) == (found.order % 2 == 1)).all()
    assert all((np.array(networks) % 2 == 0).all() for networks, _ in fits)
    assert found.best == 998
    best = found.best_so_far()
    at = int(np.flatnonzero(np.isfinite(found.values))[0])
    assert np.isnan(best[:at]).all()
    assert best[at:].tolist() == [np.nanmax(found.values[:i + 1]) for i in range(at, 60)]
    none, fits = run(oracle=lambda i: float("nan"), budget=60, iterations=3, rng=0)
    assert not fits
    assert none.best is None
    assert np.isnan(none.best_so_far()).all()
    assert len(set(none.order.tolist())) == 60


def test_limit_holds_in_every_round() -> None:
    cost = np.arange(1000) / 10.0
    cost[40] = np.nan
    found, _ = run(budget=40, learn=30, iterations=3, rng=0, cost=cost, limit=50.0)
    assert found.order.max() <= 500
    assert 40 not in found.order
    assert found.best == 500
    few, _ = run(budget=40, iterations=3, rng=0, cost=cost, limit=1.0)
    assert sorted(few.order) == list(range(11))  # all there are


def test_scores_that_are_not_numbers_come_last_and_ties_are_drawn() -> None:
    scores = np.array([np.nan, 1.0, np.nan, 3.0, 2.0])
    asked = np.zeros(5, np.bool_)
    assert next_batch(scores, asked, 3, np.random.default_rng(0), alpha=1.0).tolist() == [3, 4, 1]
    asked[3] = True
    assert next_batch(scores, asked, 2, np.random.default_rng(0), alpha=1.0).tolist() == [4, 1]
    zeros, none = np.zeros(50), np.zeros(50, np.bool_)
    firsts = {int(next_batch(zeros, none, 1, np.random.default_rng(s), alpha=1.0)[0]) for s in range(30)}
    assert len(firsts) > 10


def test_batch_is_filled_where_the_best_share_is_used_up() -> None:
    scores, asked = np.arange(100.0), np.zeros(100, np.bool_)
    asked[92:] = True
    batch = next_batch(scores, asked, 10, np.random.default_rng(0), alpha=0.3, among=0.1)
    assert batch[:3].tolist() == [91, 90, 89]
    assert sorted(batch[3:], reverse=True) == [88, 87, 86, 85, 84, 83, 82]
    asked[:] = True
    assert not len(next_batch(scores, asked, 10, np.random.default_rng(0)))


@pytest.mark.parametrize(("settings", "names"), [
    ({"budget": 5, "iterations": 6}, "iterations <= learn"), ({"budget": 5, "learn": 6, "iterations": 1}, "learn <= budget"),
    ({"budget": 5, "alpha": 1.5}, "alpha"), ({"budget": 5, "limit": 1.0}, "cost and limit"),
    ({"budget": 5, "cost": [1.0], "limit": 1.0}, "cost must have one number")])
def test_bad_arguments_are_named(settings: dict[str, Any], names: str) -> None:
    with pytest.raises(CGError, match=names):
        run(n=10, **settings)


def test_real_predictor_beats_random_networks() -> None:
    space, rng = get_space("nasbench201"), np.random.default_rng(0)
    rows = np.stack([space.native(space.sample(rng)) for _ in range(600)])
    weights = np.random.default_rng(1).standard_normal(rows.shape[1])
    y = rows @ weights
    for seed in range(3):
        found = iterative_selection(rows, lambda row: row @ weights, lambda: NativeEncoding("ridge"), budget=40, iterations=4,
                                    alpha=1.0, rng=seed)
        assert found.values == pytest.approx(y[found.order])
        assert found.values[30:].mean() > np.quantile(y, 0.85)
        assert found.values[:10].mean() < np.quantile(y, 0.75)
