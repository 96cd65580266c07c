"""Batches along a front: gains that are only recomputed where they can win are those of computing all of them."""

from __future__ import annotations

import numpy as np
import pytest

from evo_search.strategies import _batches as module
from evo_search.strategies._batches import Front, Surer, improvement, upper


def naive(front: Front, means: np.ndarray, stds: np.ndarray, near: np.ndarray | None, n: int, kappa: float) -> list[int]:
    """Every gain after every choice."""
    surer, chosen, points = Surer(near, len(means), n), list[int](), front.points
    means, stds = (means - front.low) / front.extent, kappa * stds / front.extent
    for _ in range(n):
        gain = improvement(means, stds * np.sqrt(surer.left)[:, None], points, front.reference)
        gain[chosen] = -np.inf
        chosen.append(int(gain.argmax()))
        surer.choose(chosen[-1])
        points = upper(np.vstack([points, means[chosen[-1]]]))
    return chosen


@pytest.mark.parametrize("near", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_choices_are_those_of_computing_every_gain(seed: int, near: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOKED_AT", 8)
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, np.pi / 2, 60)
    front = Front(np.stack([np.cos(angle), np.sin(angle)], 1) * rng.uniform(0.7, 1.0, (60, 1)))
    means = rng.uniform(0.2, 1.05, (200, 2))
    stds = rng.uniform(0.01, 0.2, (200, 2))
    places = rng.normal(size=(200, 3)) if near else None
    assert front.batch(means, stds, places, 20, 0.7) == naive(front, means, stds, places, 20, 0.7)


def test_more_is_asked_for_than_there_is() -> None:
    front = Front(np.array([[0.0, 1.0], [1.0, 0.0]]))
    means = np.array([[0.9, 0.9], [0.8, 0.95], [0.1, 0.1]])
    assert sorted(front.batch(means, np.full((3, 2), 0.1), None, 9, 1.0)) == [0, 1, 2]
