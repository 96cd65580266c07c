"""One Gaussian process on standardised inputs, with its leave-one-out evidence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from typing import Any

import numpy as np

CLIP = 4.0


class Standardizer:
    """Columns to zero mean and unit spread, as seen in the rows it was made from; constant columns are dropped.

    ``weights [F]``, if given, then multiply the columns, normalised to a mean square of 1 over the columns in use.
    """

    def __init__(self, x: np.ndarray, weights: np.ndarray | None = None) -> None:
        mean, spread = x.mean(0), x.std(0)
        self.used = spread > 1e-5 * np.maximum(1.0, np.abs(mean))
        self.mean, self.scale = mean[self.used], spread[self.used]
        w = np.ones(int(self.used.sum())) if weights is None else weights[self.used]
        self.weights = w / (np.sqrt((w * w).mean()) or 1.0) if len(w) else w

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """float64 ``[B, used columns]``, clipped to +-4 before the weights (an unseen extreme must not dominate)."""
        return np.asarray(np.clip((x[:, self.used] - self.mean) / self.scale, -CLIP, CLIP) * self.weights)


class GaussianProcess:
    """Matern 3/2 kernel with one length scale: that and the noise by posterior probability on a grid, signal variance exactly.

    ``linear``: variance of a linear kernel that is added, over that of the Matern kernel, 0 for none. Where a label grows with
    size it goes on growing beyond the labelled networks.

    A grid of one eigendecomposition per length scale finds the global optimum in milliseconds; a gradient search from one start
    (scikit-learn) took a third of a second and stopped in worse places, see ``docs/adr/0004-gaussian-processes.md``. The
    prior ``LIKELY`` keeps a handful of labels from choosing an extreme; against fifty it hardly counts.
    """

    LENGTHS = (0.5, 0.7, 1.0, 1.4, 2.0, 3.0, 5.0, 8.0, 12.0)  # in units of the root of the number of columns
    NOISES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.4)  # label noise variance over signal variance
    LIKELY = ((4.0, 1.0), (0.03, 2.0))  # of length and noise: centre and standard deviation of a log-normal prior

    def __init__(self, linear: float = 0.0) -> None:
        self.linear = linear

    def fit(self, x: np.ndarray, z: np.ndarray) -> GaussianProcess:
        """``x [B, F]`` standardised inputs, ``z [B]`` targets with mean about 0."""
        return self.fit_each(x, (z,))[0]

    def fit_each(self, x: np.ndarray, targets: Sequence[np.ndarray]) -> list[GaussianProcess]:
        """A process for each of several targets ``[B]`` of the same rows, which takes hardly longer than one."""
        self.x = x
        distance, line = self._distance(x), self._line(x)
        likely, deviation = self.LIKELY[0]
        return self._choose(((length, matern(distance / length) + line, -0.5 * (np.log(length / likely) / deviation) ** 2)
                             for length in self.LENGTHS), targets)

    def _choose(self, kernels: Iterable[tuple[Any, np.ndarray, float]], targets: Sequence[np.ndarray]) -> list[Any]:
        """Copies with the likeliest setting and noise; ``kernels``: setting, covariance ``[B, B]``, logarithm of its prior."""
        n, likely, deviation = len(targets[0]), *self.LIKELY[1]
        best: list[tuple[Any, ...]] = [(-np.inf,)] * len(targets)
        for setting, kernel, prior in kernels:
            values, vectors = np.linalg.eigh(kernel)
            for i, z in enumerate(targets):
                rotated = vectors.T @ z
                for noise in self.NOISES:
                    total = np.maximum(values, 0.0) + noise
                    signal = max(float((rotated * rotated / total).mean()), 1e-12)
                    evidence = prior - 0.5 * n * np.log(signal) - 0.5 * float(np.log(total).sum())
                    evidence -= 0.5 * (np.log(noise / likely) / deviation) ** 2
                    if evidence > best[i][0]:
                        best[i] = evidence, setting, noise, signal, total, vectors
        return [copy(self)._settle(z, *found) for z, (_, *found) in zip(targets, best, strict=True)]

    def _settle(self, z: np.ndarray, setting: Any, noise: float, signal: float, total: np.ndarray,
                vectors: np.ndarray) -> GaussianProcess:
        self.z, self.setting, self.noise, self.signal = z, setting, noise, signal
        self.inverse = (vectors / total) @ vectors.T
        self.weights = self.inverse @ z
        return self

    def _distance(self, x: np.ndarray) -> np.ndarray:
        """Euclidean distances ``[B, n]`` to the fitted rows, divided by the root of the number of columns."""
        return distances(x, self.x) / max(np.sqrt(x.shape[1]), 1.0)

    def _line(self, x: np.ndarray) -> np.ndarray:
        """The linear kernel's part ``[B, n]`` of the covariance with the fitted rows."""
        return np.asarray(x @ self.x.T) * (self.linear / max(x.shape[1], 1)) if self.linear else np.zeros(1)

    def mean(self, x: np.ndarray) -> np.ndarray:
        """Mean ``[B]``."""
        return np.asarray(self._covariances(x) @ self.weights)

    def predict(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation (label noise included), each ``[B]``."""
        k = self._covariances(x)
        variance = self._variances(x) + self.noise - np.einsum("ij,ij->i", k @ self.inverse, k)
        return k @ self.weights, np.sqrt(self.signal * np.maximum(variance, 1e-9))

    def _covariances(self, x: np.ndarray) -> np.ndarray:
        """Covariances ``[B, n]`` with the fitted rows, in units of the signal's variance."""
        return matern(self._distance(x) / self.setting) + self._line(x)

    def _variances(self, x: np.ndarray) -> np.ndarray:
        """Variances ``[B]`` before there are labels, in the same unit."""
        return np.asarray(1.0 + self.linear * (x * x).sum(1) / max(x.shape[1], 1))

    def leave_one_out(self) -> tuple[np.ndarray, float]:
        """Leave-one-out means ``[B]`` and mean log density. Source: Rasmussen and Williams (2006), Eq. 5.10 to 5.12."""
        diagonal = np.diag(self.inverse)
        residual, variance = self.weights / diagonal, self.signal / diagonal
        density = -0.5 * np.log(2 * np.pi * variance) - 0.5 * residual**2 / variance
        return self.z - residual, float(density.mean())


def distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Euclidean distances ``[B, n]`` of rows ``x [B, F]`` and ``y [n, F]``, by one product of matrices."""
    square = x @ (-2.0 * y.T)
    square += (x * x).sum(1)[:, None]
    square += (y * y).sum(1)
    return np.asarray(np.sqrt(np.maximum(square, 0.0, out=square), out=square))


def matern(r: np.ndarray) -> np.ndarray:
    """Matern 3/2 correlation at distances ``r``. Source: Rasmussen and Williams (2006), Eq. 4.17."""
    a = np.sqrt(3.0) * r
    return np.asarray((1.0 + a) * np.exp(-a))
