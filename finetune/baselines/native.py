"""The space's own encoding as a rival: one-hot genome, labels of normal shape, ridge regression or a Gaussian process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin

from cg.errors import CGError
from finetune.targets import check_labels, fit_on_scores

MODELS = ("ridge", "gp")
_STRENGTHS = np.logspace(-2, 4, 25)


class NativeEncoding(RegressorMixin, BaseEstimator):
    """Linear ridge or Gaussian process on a fixed-length encoding, as ``SearchSpace.native`` gives it.

    Networks are rows ``[B, width]``, or, with ``encode``, whatever it turns into rows of one width. Knows nothing but the
    labels of this one space, and cannot be carried to another.

    Args:
        model: ``"ridge"``: strength by the closed-form leave-one-out error; ``"gp"``: Matern 3/2, length scale and noise by
            marginal likelihood (``finetune.gp``).
        encode: network -> row ``[width]``; None if networks are rows already.
        random_state: kept for scikit-learn's sake; nothing here is random.
    """

    label_units = False

    def __init__(self, model: str = "ridge", encode: Callable[[Any], np.ndarray] | None = None, random_state: int = 0) -> None:
        self.model = model
        self.encode = encode
        self.random_state = random_state

    def fit(self, networks: Sequence[Any] | np.ndarray, y: Any) -> NativeEncoding:
        """Learn from labels ``[B]``. Raises ``CGError`` on rows of several widths or values that are not finite."""
        x = self._rows(networks)
        labels = check_labels(list(networks), y)
        self.width_ = x.shape[1]
        self.mean_ = x.mean(0)
        self.scale_ = float(np.sqrt((x.var(0)).mean())) or 1.0  # one for all columns: a rare operation must not count more
        if self.model not in MODELS:
            raise CGError(f"model must be one of {', '.join(MODELS)}, got {self.model!r}")
        make = _ridge if self.model == "ridge" else _process
        scaled = self._scaled(x)
        self.model_: Any = fit_on_scores(labels, lambda scores: make(scaled, scores))[0]
        return self

    def predict(self, networks: Sequence[Any] | np.ndarray) -> np.ndarray:
        """Scores ``[B]`` on the scale of ``power_scores``."""
        if not hasattr(self, "model_"):
            raise CGError("this predictor has not been fitted; call fit(networks, y) first")
        if not len(networks):
            return np.zeros(0)
        x = self._rows(networks)
        if x.shape[1] != self.width_:
            raise CGError(f"encodings are {x.shape[1]} wide, those learned from were {self.width_}; use one space for both")
        found = self.model_.predict(self._scaled(x))
        return np.asarray(found[0] if self.model == "gp" else found)

    def _scaled(self, x: np.ndarray) -> np.ndarray:
        return np.asarray((x - self.mean_) / self.scale_)

    def _rows(self, networks: Sequence[Any] | np.ndarray) -> np.ndarray:
        items = networks if self.encode is None else [self.encode(n) for n in networks]
        try:
            x = np.asarray(items, np.float64)
        except (TypeError, ValueError):
            raise CGError(f"{type(self).__name__} reads rows of numbers of one width, such as space.native(genome); "
                          "give encode=... for other networks") from None
        if x.ndim != 2:
            raise CGError(f"encodings must be a table (networks, width), got shape {x.shape}")
        bad = np.flatnonzero(~np.isfinite(x).all(1))
        if len(bad):
            raise CGError(f"encoding {int(bad[0])} holds a value that is not finite")
        return x


def _ridge(x: np.ndarray, targets: Sequence[np.ndarray]) -> list[tuple[Any, np.ndarray]]:
    from sklearn.linear_model import Ridge, RidgeCV
    from sklearn.model_selection import LeaveOneOut, cross_val_predict

    models = [(RidgeCV(_STRENGTHS).fit(x, z), z) for z in targets]
    return [(model, cross_val_predict(Ridge(model.alpha_), x, z, cv=LeaveOneOut())) for model, z in models]


def _process(x: np.ndarray, targets: Sequence[np.ndarray]) -> list[tuple[Any, np.ndarray]]:
    from finetune.gp import GaussianProcess

    return [(model, model.leave_one_out()[0]) for model in GaussianProcess().fit_each(x, targets)]
