"""Batches of candidates, chosen one after the other from what is predicted of them; each choice makes what is like it surer.

One objective: the upper confidence bound, mean + ``kappa`` standard deviations, as if the answer of each choice were known
already while the means stay (GP-BUCB: Desautels, Krause, Burdick, JMLR 15, 2014). Two: the expected improvement of the
hypervolume above the front, exactly, for independent normal predictions (EHVI: Emmerich, Giannakoglou, Naujoks, IEEE TEC
10(4), 2006; by strips: Yang et al., J. Global Optimization 75, 2019), each choice joining the front with its mean. More: of
each choice a random direction, and the smallest weighted bound (augmented Tchebycheff scalarisation of ParEGO: Knowles, IEEE
TEC 10(1), 2006; with upper confidence bounds: Paria et al., arXiv 1805.12168, Algorithm 1).

This file must not know a particular space, oracle or predictor.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr

AUGMENTATION = 0.05  # Knowles' rho
LOOKED_AT = 64  # candidates whose expected improvement is computed at a time
MARGIN = 0.3  # of the front's extent, by which the reference of the hypervolume lies below the front


class Surer:
    """How much of the variance of each candidate is left, given the choices; all of it where ``near`` is ``None``.

    Args:
        near: places of the candidates ``[candidates, d]``, whose squared exponential kernel says how alike two are.
        n: choices at most; ``candidates``: how many there are.
    """

    def __init__(self, near: np.ndarray | None, candidates: int, n: int) -> None:
        self.near, self.left, self._k = near, np.ones(candidates), 0
        self._factors = np.zeros((candidates, n))  # columns of the pivoted Cholesky factor of the kernel

    def choose(self, i: int) -> None:
        """Candidate ``i`` is chosen."""
        if self.near is None or self.left[i] <= 1e-9:
            return
        known = self._factors[:, :self._k]
        column = np.exp(-((self.near - self.near[i]) ** 2).sum(1) / 2) - known @ known[i]
        self._factors[:, self._k] = column / np.sqrt(self.left[i])
        self.left = np.clip(self.left - self._factors[:, self._k] ** 2, 0.0, 1.0)
        self._k += 1


def batch(means: np.ndarray, stds: np.ndarray, near: np.ndarray | None, n: int, kappa: float,
          rng: np.random.Generator) -> list[int]:
    """Up to ``n`` rows, chosen one after the other by their upper confidence bound.

    Args:
        means, stds: of each objective, larger means being better, ``[candidates, objectives]``.
        near: see ``Surer``; ``None`` if deviations stay.
        rng: for the directions, with several objectives; not used with one.
    """
    n = min(n, len(means))
    surer, free, chosen = Surer(near, len(means), n), np.ones(len(means), bool), list[int]()
    best = means.max(0) if len(means) else means
    for _ in range(n):
        bound = means + kappa * stds * np.sqrt(surer.left)[:, None]
        if means.shape[1] == 1:
            score = bound[:, 0]
        else:
            weights = rng.dirichlet(np.ones(means.shape[1]))
            weighted = weights * (bound - best)  # 0 is the best mean of all in every objective
            score = weighted.min(1) + AUGMENTATION * weighted.sum(1)
        i = int(np.where(free, score, -np.inf).argmax())
        chosen.append(i)
        free[i] = False
        surer.choose(i)
    return chosen


class Front:
    """What is known of two objectives.

    Args:
        values: of all known networks, larger being better, float64 ``[known, 2]``; improvements are measured above their front,
            down to a reference that lies ``MARGIN`` of its extent below it.
    """

    def __init__(self, values: np.ndarray) -> None:
        front = upper(values)
        self.low = front.min(0)
        extent = front.max(0) - self.low
        self.extent = np.where(extent > 0, extent, np.maximum(np.abs(self.low), 1.0))
        self.points = (front - self.low) / self.extent
        self.reference = np.full(2, -MARGIN)

    def batch(self, means: np.ndarray, stds: np.ndarray, near: np.ndarray | None, n: int, kappa: float) -> list[int]:
        """As ``batch``, of means and deviations in the unit of the values: the greatest expected improvement, where deviations
        count ``kappa`` times."""
        n = min(n, len(means))
        surer, free, chosen, points = Surer(near, len(means), n), np.ones(len(means), bool), list[int](), self.points
        means, stds = (means - self.low) / self.extent, kappa * stds / self.extent
        gain = improvement(means, stds, points, self.reference)
        for _ in range(n):
            # gains only fall as the front grows: what was more than that of any other and still is, is the greatest
            order, best, i = np.argsort(-np.where(free, gain, -np.inf), kind="stable"), -np.inf, -1
            for first in range(0, len(order), LOOKED_AT):
                some = order[first:first + LOOKED_AT]
                some = some[free[some]]
                if not len(some) or (i >= 0 and gain[some[0]] < best):
                    break
                gain[some] = improvement(means[some], stds[some] * np.sqrt(surer.left[some])[:, None], points, self.reference)
                top = some[np.lexsort((some, -gain[some]))[0]]
                if gain[top] > best or (gain[top] == best and top < i):
                    best, i = gain[top], int(top)
            chosen.append(i)
            free[i] = False
            surer.choose(i)
            points = upper(np.vstack([points, means[i]]))
        return chosen


def upper(values: np.ndarray) -> np.ndarray:
    """Rows of ``values [n, 2]`` that no other surpasses in both columns, by their first column, without repeats."""
    order = np.lexsort((values[:, 1], values[:, 0]))[::-1]  # best first column first
    rising = np.maximum.accumulate(values[order, 1])
    keep = np.concatenate([[True], values[order[1:], 1] > rising[:-1]])
    return values[order[keep]][::-1]


def improvement(means: np.ndarray, stds: np.ndarray, front: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Expected improvement of the hypervolume ``[candidates]`` by normal predictions, each ``[candidates, 2]``.

    Above the front the plane is cut into strips between neighbouring points; of a strip with the ceiling y of the front and the
    sides a and b, a candidate (u, v) wins ``((u - a)+ - (u - b)+) (v - y)+``, whose expectation is a product.
    """
    inside = front[(front > reference).all(1)]
    sides = np.concatenate([[reference[0]], inside[:, 0]])
    ceilings = np.concatenate([inside[:, 1], [reference[1]]])
    beyond = _excess(means[:, :1], stds[:, :1], sides)
    width = beyond - np.concatenate([beyond[:, 1:], np.zeros((len(means), 1))], 1)
    return np.asarray((width * _excess(means[:, 1:], stds[:, 1:], ceilings)).sum(1))


def _excess(mean: np.ndarray, std: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """Expectation of ``(x - limit)+`` for normal x."""
    std = np.maximum(std, 1e-9)
    z = (mean - limit) / std
    return np.asarray(std * (z * ndtr(z) + np.exp(-z * z / 2) / np.sqrt(2 * np.pi)))
