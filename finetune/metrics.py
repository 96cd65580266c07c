"""Ranking criteria: how well predicted scores order networks by their true labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from cg.errors import LabelError


def _pair(y: ArrayLike, p: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(y, np.float64), np.asarray(p, np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise LabelError(f"labels and scores must be vectors of one length, got shapes {a.shape} and {b.shape}")
    if len(a) < 2:
        raise LabelError(f"a ranking needs at least 2 networks, got {len(a)}")
    for what, v in (("label", a), ("score", b)):
        if not np.isfinite(v).all():
            raise LabelError(f"{what} {int(np.flatnonzero(~np.isfinite(v))[0])} is not finite; drop that network")
    return a, b


def spearman(y: ArrayLike, p: ArrayLike) -> float:
    """Spearman rank correlation of labels ``y [B]`` and scores ``p [B]``, ties by average rank; 0 if either is constant."""
    from scipy.stats import rankdata

    a, b = _pair(y, p)
    return pearson(rankdata(a), rankdata(b))


def pearson(y: ArrayLike, p: ArrayLike) -> float:
    """Pearson correlation; 0 if either vector is constant."""
    a, b = _pair(y, p)
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum() / norm) if norm > 0 else 0.0


def kendall(y: ArrayLike, p: ArrayLike) -> float:
    """Kendall's tau-b (corrected for ties); 0 if either vector is constant."""
    from scipy.stats import kendalltau

    a, b = _pair(y, p)
    tau = float(kendalltau(a, b).statistic)
    return tau if np.isfinite(tau) else 0.0


def precision_at_k(y: ArrayLike, p: ArrayLike, k: float) -> float:
    """Share of the truly best ``k`` (a count, or a fraction below 1) among the ``k`` best by score.

    Source: Ning et al., arXiv 2008.03064, P@K. Ties are broken by position.
    """
    a, b = _pair(y, p)
    n = max(1, round(k * len(a))) if k < 1 else int(k)
    best = np.argsort(-a, kind="stable")[:n]
    chosen = np.argsort(-b, kind="stable")[:n]
    return len(np.intersect1d(best, chosen)) / n


def best_ranking_at_k(y: ArrayLike, p: ArrayLike, k: float) -> float:
    """Best true rank, as a share of all networks (1 / B is perfect), among the ``k`` best by score.

    Source: Ning et al., arXiv 2008.03064, BR@K; there, too, ranks are divided by the number of networks.
    """
    a, b = _pair(y, p)
    n = max(1, round(k * len(a))) if k < 1 else int(k)
    rank = np.empty(len(a))
    rank[np.argsort(-a, kind="stable")] = np.arange(1, len(a) + 1)
    return float(rank[np.argsort(-b, kind="stable")[:n]].min() / len(a))
