"""Labels as normal scores: learning sees ranks, users see label units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cg.cells import Cell
from cg.errors import LabelError
from cg.graph import Graph

MIN_LABELS = 2


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


def normal_scores(y: np.ndarray) -> np.ndarray:
    """Standard-normal quantiles of the ranks, float64 ``[B]``; ties share their mean rank (van der Waerden scores).

    Benchmark accuracies have long lower tails; a regression on raw values spends itself on a few failures.
    """
    from scipy.special import ndtri
    from scipy.stats import rankdata

    return np.asarray(ndtri((rankdata(y) - 0.5) / len(y)))


class LabelScale:
    """Monotone map between label units and normal scores, fixed by the labels it was made from."""

    def __init__(self, y: np.ndarray) -> None:
        self.y, index = np.unique(y, return_index=True)
        self.z = normal_scores(y)[index]

    def to_labels(self, z: np.ndarray) -> np.ndarray:
        """Normal scores to label units: linear between the labels, and on beyond them with the slope of the outer quarter."""
        y, s = self.y, self.z
        if len(y) == 1:
            return np.full(np.shape(z), y[0])
        out = np.interp(z, s, y)
        q = max(1, len(y) // 4)
        low = (y[q] - y[0]) / (s[q] - s[0])
        high = (y[-1] - y[-1 - q]) / (s[-1] - s[-1 - q])
        out = np.where(z < s[0], y[0] + (z - s[0]) * low, out)
        return np.asarray(np.where(z > s[-1], y[-1] + (z - s[-1]) * high, out))
