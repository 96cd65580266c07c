"""Labels of several families at once: what carries over to the next family is judged by leaving whole families out.

Networks of one family are alike, so the leave-one-out evidence of a Gaussian process, which always has the siblings at hand,
says little about a family that is not there. Where the labelled networks name several families, predictions for another one are
those of the processes and of trees, added with the non-negative weights that would have served best when each family in turn
was left out (stacking: Breiman, Machine Learning 24, 1996).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from finetune.gp import GaussianProcess

ENOUGH_FAMILIES = 5
FOLDS, TREES = 10, 200


def grow(x: np.ndarray, y: np.ndarray, n: int) -> Any:
    """``n`` extremely randomised trees on rows ``x [B, F]``, fitted to ``y [B]``; the same rows give the same trees."""
    from sklearn.ensemble import ExtraTreesRegressor

    # one job: threads add trees up in any order, and scikit-learn's swap the process's warning filters under each other
    return ExtraTreesRegressor(n, min_samples_leaf=2, max_features=0.3, random_state=0, n_jobs=1).fit(x, y)


class Stack:
    """Weights of the processes and of trees by leave-one-family-out predictions.

    Args:
        members: fitted processes by name, all on the same networks and labels.
        x: statistics ``[B, F]`` that the trees read.
        z: what was learned, ``[B]``.
        families: of each labelled network ``[B]``.
    """

    def __init__(self, members: Mapping[Any, GaussianProcess], x: np.ndarray, z: np.ndarray, families: np.ndarray) -> None:
        from scipy.optimize import nnls
        from sklearn.model_selection import GroupKFold

        out = np.zeros(len(z))
        for rest, left in GroupKFold(min(FOLDS, len(set(families)))).split(x, z, families):
            out[left] = grow(x[rest], z[rest], TREES).predict(x[left])
        found = np.stack([*(leave_families_out(process, families) for process in members.values()), out], 1)
        weights, _ = nnls(found, z)
        self.weights, self.share = dict(zip(members, weights[:-1], strict=True)), float(weights[-1])
        self.std = float((found @ weights - z).std())
        self.trees = grow(x, z, TREES)

    def predict(self, means: Mapping[Any, np.ndarray], x: np.ndarray) -> np.ndarray:
        """Scores ``[B]`` from those of the members and the statistics ``[B, F]``."""
        said = self.share * self.trees.predict(x)
        for name, weight in self.weights.items():
            said = said + weight * means[name]
        return np.asarray(said)


def leave_families_out(process: GaussianProcess, families: np.ndarray) -> np.ndarray:
    """Means ``[B]``, each from the labels of the other families alone, hyper-parameters as fitted on all.

    Source: the block form of Rasmussen and Williams (2006), Eq. 5.12: z - inverse(K^-1 of the block) (K^-1 z of the block).
    """
    out = np.zeros(len(process.z))
    for family in np.unique(families):
        i = np.flatnonzero(families == family)
        out[i] = process.z[i] - np.linalg.solve(process.inverse[np.ix_(i, i)], process.weights[i])
    return out
