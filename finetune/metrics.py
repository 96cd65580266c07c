"""Ranking criteria: how well predicted scores order networks by their true labels."""

from __future__ import annotations

from typing import NamedTuple

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


def mse(y: ArrayLike, p: ArrayLike) -> float:
    """Mean squared error, in the square of the labels' unit."""
    a, b = _pair(y, p)
    return float(np.mean((a - b) ** 2))


def within_error_bound(y: ArrayLike, p: ArrayLike, bound: float) -> float:
    """Share of networks whose prediction is off by at most ``bound`` of the true value (0.1: ±10 %).

    Source: Dudziak et al., arXiv 2007.08668, Table 1. Raises ``LabelError`` for a label of 0, of which there is no share.
    """
    a, b = _pair(y, p)
    if not (bound >= 0 and np.isfinite(bound)):
        raise LabelError(f"bound must be a share such as 0.1, got {bound}")
    if (a == 0).any():
        raise LabelError(f"label {int(np.flatnonzero(a == 0)[0])} is 0, so a relative error does not exist; drop that network")
    return float(np.mean(np.abs(b - a) <= bound * np.abs(a)))


def precision_at_k(y: ArrayLike, p: ArrayLike, k: float) -> float:
    """Share of the truly best ``k`` (a count, or a fraction below 1) among the ``k`` best by score.

    Where equal labels or equal scores leave open who is among the ``k``, this is the mean over all ways of breaking the
    ties, exactly. Source: Ning et al., arXiv 2008.03064, P@K.
    """
    a, b = _pair(y, p)
    n = _count(k, len(a))
    return float((_chance_among_best(a, n) * _chance_among_best(b, n)).sum() / n)


def best_ranking_at_k(y: ArrayLike, p: ArrayLike, k: float) -> float:
    """Best true rank, as a share of all networks (1 / B is perfect), among the ``k`` best by score.

    Equal labels share the best of their ranks; over ways of breaking ties between scores it is the mean, exactly.
    Source: Ning et al., arXiv 2008.03064, BR@K; there, too, ranks are divided by the number of networks.
    """
    from scipy.stats import rankdata

    a, b = _pair(y, p)
    n = _count(k, len(a))
    rank = rankdata(-a, method="min")
    last = -np.sort(-b)[n - 1]  # the score of the last one chosen
    sure, tied = rank[b > last], np.sort(rank[b == last])
    draws = n - len(sure)
    best, open_chance, expected = (float(sure.min()) if len(sure) else np.inf), 1.0, 0.0
    for i, r in enumerate(tied):
        hit = min(1.0, draws / (len(tied) - i))  # that this one is drawn, none before it was
        expected += open_chance * hit * min(best, float(r))
        open_chance *= 1 - hit
    return expected / len(a)


def complexity_groups(complexity: ArrayLike, n: int) -> np.ndarray:
    """Group number 0..n-1 of each network, int64 ``[B]``: ``n`` groups of as equal a size as ties allow, cheapest first.

    Networks of equal complexity are always in one group, so a group may be empty. ``complexity [B]``: such as multiply-adds.
    Source: Ning et al., arXiv 2008.03064, which compares estimators within and between groups of FLOPs.
    """
    from scipy.stats import rankdata

    c = np.asarray(complexity, np.float64)
    if c.ndim != 1 or not len(c) or not np.isfinite(c).all():
        raise LabelError(f"complexity must be a vector of finite numbers, got shape {c.shape}")
    if not 1 <= n <= len(c):
        raise LabelError(f"cannot make {n} groups of {len(c)} networks")
    return ((rankdata(c) - 0.5) * n / len(c)).astype(np.int64)


def rank_difference(y: ArrayLike, p: ArrayLike) -> np.ndarray:
    """True rank minus predicted rank of each network (rank 1 is best), float64 ``[B]``: above 0 is over-estimated.

    Ties share the mean of their ranks, which is the mean over all ways of breaking them. The sum is 0. Source: Ning et al.,
    arXiv 2008.03064, which averages it over groups of FLOPs to see whether small or large networks are favoured.
    """
    from scipy.stats import rankdata

    a, b = _pair(y, p)
    return np.asarray(rankdata(-a) - rankdata(-b))


class Group(NamedTuple):
    """One group of networks: its number, size, Kendall's tau inside it (None: fewer than 2 networks, or all labels equal),
    mean of the rank difference and of its absolute value, both ranks among *all* networks, in ranks."""

    number: int
    size: int
    kendall: float | None
    rank_difference: float
    absolute_rank_difference: float


def by_group(y: ArrayLike, p: ArrayLike, groups: ArrayLike) -> list[Group]:
    """How well each group of networks is ordered and whether it is over- or under-estimated, in the order of its numbers.

    Args:
        y: labels ``[B]``.
        p: scores ``[B]``.
        groups: integers ``[B]``: equal ones are a group. From :func:`complexity_groups`, or the complexity itself.
    """
    a, b = _pair(y, p)
    g = np.asarray(groups)
    if g.shape != a.shape or not np.issubdtype(g.dtype, np.integer):
        raise LabelError(f"groups must be {len(a)} integers, got shape {g.shape} of {g.dtype}")
    difference, found = rank_difference(a, b), []
    for number in np.unique(g):
        inside = g == number
        ordered = (a[inside] != a[inside][0]).any()
        found.append(Group(int(number), int(inside.sum()), kendall(a[inside], b[inside]) if ordered else None,
                           float(difference[inside].mean()), float(np.abs(difference[inside]).mean())))
    return found


def within_group_kendall(y: ArrayLike, p: ArrayLike, groups: ArrayLike) -> float:
    """Mean of Kendall's tau over the groups that have one, each group counted once; 0 if none has.

    Tells whether scores know more than the complexity that made the groups: complexity itself gets 0 where each group is
    of one complexity. Arguments as in :func:`by_group`.
    """
    taus = [g.kendall for g in by_group(y, p, groups) if g.kendall is not None]
    return float(np.mean(taus)) if taus else 0.0


def _count(k: float, n: int) -> int:
    count = max(1, round(k * n)) if k < 1 else int(k)
    if not 1 <= count <= n:
        raise LabelError(f"k = {k} asks for {count} of {n} networks")
    return count


def _chance_among_best(values: np.ndarray, n: int) -> np.ndarray:
    """Chance ``[B]`` of each entry to be one of the ``n`` largest when ties are broken at random."""
    last = -np.sort(-values)[n - 1]
    above, tied = values > last, values == last
    return above + tied * ((n - above.sum()) / tied.sum())
