"""One Gaussian process on standardised inputs, with its leave-one-out evidence."""

from __future__ import annotations

import warnings

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
        self.weights = w / np.sqrt((w * w).mean()) if len(w) else w

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """float64 ``[B, used columns]``, clipped to +-4 before the weights (an unseen extreme must not dominate)."""
        return np.asarray(np.clip((x[:, self.used] - self.mean) / self.scale, -CLIP, CLIP) * self.weights)


class GaussianProcess:
    """Matern 3/2 kernel with one length scale, signal and noise variance by marginal likelihood (scikit-learn)."""

    def __init__(self, random_state: int = 0) -> None:
        self.random_state = random_state

    def fit(self, x: np.ndarray, z: np.ndarray) -> GaussianProcess:
        """``x [B, F]`` standardised inputs, ``z [B]`` targets of about unit variance."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

        unit = max(np.sqrt(x.shape[1]), 1.0)
        kernel = ConstantKernel(1.0, (0.05, 50.0)) * Matern(unit, (0.1 * unit, 20.0 * unit), nu=1.5) + WhiteKernel(0.1, (1e-3, 1.5))
        self.model = GaussianProcessRegressor(kernel, n_restarts_optimizer=1, random_state=self.random_state)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a hyper-parameter at its bound is a valid answer
            self.model.fit(x, z)
        return self

    def predict(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation (label noise included), each ``[B]``."""
        mean, std = self.model.predict(x, return_std=True)
        return mean, std

    def leave_one_out(self) -> tuple[np.ndarray, float]:
        """Leave-one-out means ``[B]`` and mean log density. Source: Rasmussen and Williams (2006), Eq. 5.10 to 5.12."""
        from scipy.linalg import cho_solve

        inverse = cho_solve((self.model.L_, True), np.eye(len(self.model.y_train_)))
        variance = 1.0 / np.diag(inverse)
        residual = np.ravel(self.model.alpha_) * variance
        density = -0.5 * np.log(2 * np.pi * variance) - 0.5 * residual**2 / variance
        return np.ravel(self.model.y_train_) - residual, float(density.mean())
