"""What learning sees of labels: a power of them of normal shape, or normal scores of their ranks; users see label units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from cg.cells import Cell
from cg.errors import LabelError
from cg.graph import Graph
from finetune.metrics import spearman

MIN_LABELS = 2
TAIL, POWERS = 2.0, (-20.0, 20.0)
RANKS_BETTER = 0.03
STRAIGHT_ODDS = -3.0  # logarithm of how much less likely it is, before the labels, that they are best as they are

T = TypeVar("T")


def check_labels(graphs: Sequence[Graph | Cell], y: Any) -> np.ndarray:
    """Labels as float64 ``[B]``. Raises ``LabelError`` naming the first bad one; at least two networks are needed."""
    try:
        values = np.asarray(y, np.float64)
    except (TypeError, ValueError):
        raise LabelError("labels must be numbers") from None
    if values.shape != (len(graphs),):
        raise LabelError(f"{len(graphs)} graphs need {len(graphs)} labels in a vector, got shape {values.shape}")
    if len(values) < MIN_LABELS:
        raise LabelError(f"learning needs at least {MIN_LABELS} labels, got {len(values)}")
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise LabelError(f"label {int(bad[0])} (graph {graphs[int(bad[0])].name!r}) is {values[bad[0]]}; every label must be "
                         "a finite number: leave networks without a label out")
    return values


def contradictions(graphs: Sequence[Graph], y: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of positions of isomorphic graphs whose labels are more than one standard deviation of all labels apart."""
    by_digest: dict[str, list[int]] = {}
    for i, g in enumerate(graphs):
        by_digest.setdefault(g.digest, []).append(i)
    found = []
    for same in by_digest.values():
        low, high = min(same, key=lambda i: y[i]), max(same, key=lambda i: y[i])
        if y[high] - y[low] > y.std():
            found.append((low, high))
    return found


def normal_scores(y: np.ndarray) -> np.ndarray:
    """Standard-normal quantiles of the ranks, float64 ``[B]``; ties share their mean rank (van der Waerden scores).

    Benchmark accuracies have long lower tails; a regression on raw values spends itself on a few failures.
    """
    from scipy.special import ndtri
    from scipy.stats import rankdata

    return np.asarray(ndtri((rankdata(y) - 0.5) / len(y)))


def power_scores(y: np.ndarray) -> np.ndarray:
    """Labels bent into the shape of a normal distribution, mean 0 and deviation 1, float64 ``[B]``; the order stays.

    In units of the quartiles' distance from the median, what is more than ``TAIL`` away goes on as a logarithm, so that no
    failed training decides; then the Yeo-Johnson power of most likelihood (Biometrika 87, 2000). As ``normal_scores`` it pulls
    in long tails, yet it keeps the distances between labels, and few labels say little more than these
    (docs/adr/0004-gaussian-processes.md).
    """
    return _power(y)[0]


def _power(y: np.ndarray) -> tuple[np.ndarray, float]:
    """``power_scores`` and the mean logarithm of their slope over the labels."""
    from scipy.optimize import minimize_scalar
    from scipy.stats import yeojohnson, yeojohnson_llf

    low, middle, high = np.percentile(y, (25, 50, 75))
    spread = high - low or y.std()
    if not spread:
        return np.zeros(len(y)), 0.0
    u = (y - middle) / spread
    beyond = np.maximum(np.abs(u) - TAIL, 0.0)
    u = np.where(beyond > 0, np.sign(u) * (TAIL + np.log1p(beyond)), u)
    power = minimize_scalar(lambda p: -yeojohnson_llf(p, u), bounds=POWERS, method="bounded").x
    z = yeojohnson(u, power)
    slope = (power - 1.0) * np.sign(u) * np.log1p(np.abs(u)) - np.log1p(beyond)
    return np.asarray((z - z.mean()) / z.std()), float(slope.mean() - np.log(spread * z.std()))


def _standard(y: np.ndarray) -> tuple[np.ndarray, float]:
    """Labels less their mean over their standard deviation, and the logarithm of that scale's slope."""
    spread = float(y.std()) or 1.0
    return (y - y.mean()) / spread, -float(np.log(spread))


def agreement(y: np.ndarray, p: np.ndarray) -> float:
    """Spearman's rho of labels and predictions, each ``[B]``; 0 where there is none: fewer than three, or all equal."""
    return spearman(y, p) if len(y) > 2 and np.ptp(p) > 0 and np.ptp(y) > 0 else 0.0


def fit_on_scores(y: np.ndarray, fit: Callable[[Sequence[np.ndarray]], Sequence[tuple[T, np.ndarray]]],
                  density: Callable[[T], float] | None = None) -> tuple[T, np.ndarray]:
    """What ``fit`` made of ``power_scores(y)``, and these; or of ``normal_scores(y)``, where it is clearly better on them.

    ``fit`` returns for each of several scores a model and its leave-one-out predictions ``[B]``. Ranks are better where their
    order agrees with the labels' by ``RANKS_BETTER`` more: where labels span orders of magnitude, or some of them are mistakes.
    With ``density``, the mean logarithm of a model's leave-one-out density of its scores, labels that are only scaled are
    learned where they are likelier than powers of them, densities being those of the labels: a sum over operators is one in its
    own unit.
    """
    (z, slope), (straight, straight_slope), ranks = _power(y), _standard(y), normal_scores(y)
    (model, left_out), (ranked, ranked_left_out), *unbent = fit([z, ranks, straight] if density else [z, ranks])
    if density and len(y) * (density(unbent[0][0]) + straight_slope) + STRAIGHT_ODDS > len(y) * (density(model) + slope):
        [(model, left_out)], z = unbent, straight
    if agreement(y, ranked_left_out) > agreement(y, left_out) + RANKS_BETTER:
        return ranked, ranks
    return model, z


class LabelScale:
    """Monotone map from scores to label units, fixed by labels ``y [B]`` and their scores ``z [B]``."""

    def __init__(self, y: np.ndarray, z: np.ndarray) -> None:
        self.y, index = np.unique(y, return_index=True)
        self.z = z[index]

    def to_labels(self, z: np.ndarray) -> np.ndarray:
        """Scores to label units: linear between the labels, and on beyond them with the slope of the outer quarter."""
        y, s = self.y, self.z
        return _along(z, s, y)

    def to_scores(self, y: np.ndarray) -> np.ndarray:
        """The inverse of ``to_labels``; where all labels are equal their score."""
        return _along(y, self.y, self.z)


def _along(x: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """From ``a`` to ``b``, both rising: linear between these, and on beyond them with the slope of the outer quarter."""
    if len(a) == 1:
        return np.full(np.shape(x), b[0])
    q = max(1, len(a) // 4)
    low = (b[q] - b[0]) / (a[q] - a[0])
    high = (b[-1] - b[-1 - q]) / (a[-1] - a[-1 - q])
    out = np.where(x < a[0], b[0] + (x - a[0]) * low, np.interp(x, a, b))
    return np.asarray(np.where(x > a[-1], b[-1] + (x - a[-1]) * high, out))
