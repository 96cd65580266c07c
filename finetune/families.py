"""Labels of several families at once: what carries over to the next family is judged by leaving whole families out.

Networks of one family are alike, so the leave-one-out evidence of a Gaussian process, which always has the siblings at hand,
says little about a family that is not there. Where the labelled networks name several families, predictions for another one are
those of the processes and of trees, added with the non-negative weights that would have served best when each family in turn
was left out (stacking: Breiman, Machine Learning 24, 1996). A family with a few labels of its own among those of others is
predicted from these few alone, with the others as a source: where processes learn all labels at once, the others outvote them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from finetune.gp import GaussianProcess

ENOUGH_FAMILIES = 5
FEW = range(3, 10)  # different labels of its own that make a family one with a few
FOLDS, TREES = 10, 200


def grow(x: np.ndarray, y: np.ndarray, n: int) -> Any:
    """``n`` extremely randomised trees on rows ``x [B, F]``, fitted to ``y [B]``; the same rows give the same trees."""
    from sklearn.ensemble import ExtraTreesRegressor

    # one job: threads add trees up in any order, and scikit-learn's swap the process's warning filters under each other
    return ExtraTreesRegressor(n, min_samples_leaf=2, max_features=0.3, random_state=0, n_jobs=1).fit(x, y)


class Stack:
    """Weights of the processes and of trees by leave-one-family-out predictions, learned when they are first asked for.

    Args:
        members: fitted processes by name, all on the same networks and labels.
        x: statistics ``[B, F]`` that the trees read.
        z: what was learned, ``[B]``.
        families: of each labelled network ``[B]``.
    """

    def __init__(self, members: Mapping[Any, GaussianProcess], x: np.ndarray, z: np.ndarray, families: np.ndarray) -> None:
        self._members, self._x, self._z, self._families = dict(members), x, z, families

    @cached_property
    def _learned(self) -> tuple[np.ndarray, float]:
        """Weights ``[members + 1]``, the last one of the trees, and the standard deviation of what they leave."""
        from scipy.optimize import nnls
        from sklearn.model_selection import GroupKFold

        out = np.zeros(len(self._z))
        for rest, left in GroupKFold(min(FOLDS, len(set(self._families)))).split(self._x, self._z, self._families):
            out[left] = grow(self._x[rest], self._z[rest], TREES).predict(self._x[left])
        found = np.stack([*(leave_families_out(p, self._families) for p in self._members.values()), out], 1)
        weights, _ = nnls(found, self._z)
        return weights, float((found @ weights - self._z).std())

    @cached_property
    def _trees(self) -> Any:
        return grow(self._x, self._z, TREES)

    @property
    def weights(self) -> dict[Any, float]:
        """Of the processes, by name."""
        return dict(zip(self._members, self._learned[0], strict=False))

    @property
    def share(self) -> float:
        """Weight of the trees."""
        return float(self._learned[0][-1])

    @property
    def std(self) -> float:
        """Standard deviation of the error about a family that was left out."""
        return self._learned[1]

    def predict(self, means: Mapping[Any, np.ndarray], x: np.ndarray) -> np.ndarray:
        """Scores ``[B]`` from those of the members and the statistics ``[B, F]``."""
        said = self.share * self._trees.predict(x)
        for name, weight in self.weights.items():
            said = said + weight * means[name]
        return np.asarray(said)


class Few:
    """Families with a few labels among others, each with a predictor of its own that is made when it is asked for.

    Args:
        families, y: of each labelled network ``[B]``, and its label.
        make: from the positions of a family's networks and of all others to a fitted predictor.
    """

    def __init__(self, families: np.ndarray, y: np.ndarray, make: Callable[[np.ndarray, np.ndarray], Any]) -> None:
        self._families, self._make, self._made = families, make, dict[str, Any]()
        self._names = {str(name) for name in np.unique(families) if len(set(y[families == name])) in FEW}

    def among(self, families: np.ndarray) -> list[tuple[np.ndarray, Any]]:
        """Positions in ``families [B]`` of each family with a few labels, and its predictor."""
        found = []
        for name in sorted(self._names & set(map(str, families))):
            if name not in self._made:
                own = self._families == name
                self._made[name] = self._make(np.flatnonzero(own), np.flatnonzero(~own))
            found.append((np.flatnonzero(families == name), self._made[name]))
        return found


def leave_families_out(process: GaussianProcess, families: np.ndarray) -> np.ndarray:
    """Means ``[B]``, each from the labels of the other families alone, hyper-parameters as fitted on all.

    Source: the block form of Rasmussen and Williams (2006), Eq. 5.12: z - inverse(K^-1 of the block) (K^-1 z of the block).
    """
    out = np.zeros(len(process.z))
    for family in np.unique(families):
        i = np.flatnonzero(families == family)
        out[i] = process.z[i] - np.linalg.solve(process.inverse[np.ix_(i, i)], process.weights[i])
    return out
