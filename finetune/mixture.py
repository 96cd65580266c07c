"""Several Gaussian processes on several views of the same networks, mixed by their leave-one-out evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from finetune.gp import GaussianProcess
from finetune.operators import Operators, SumProcess

KERNELS = {"local": 0.0, "line": 1.0}  # variance of the linear part of a member's kernel
SUMS = {"sum": 0.0, "sum and local": 0.3}  # and of the part of sums over operators that is none
EVIDENCE_TEMPERATURE = 2.0
LEAST = 1e-4  # share of a member that counts
# Logarithm of how much less likely a sum is before the labels, and more so below so many: few labels make it look right by
# chance.
SUM_ODDS, MANY = -3.0, 40

Member = tuple[str, str]  # view and kernel


class Mixture:
    """A process for every view and kernel, fitted to the same ``B`` labels.

    Attributes:
        members, evidence, weights: by view and kernel: the processes, their mean leave-one-out log densities, their shares.
        left_out: mean of the mixture about each network without its own label, ``[B]``.
    """

    def __init__(self, members: Mapping[Member, GaussianProcess]) -> None:
        self.members = dict(members)
        found = {k: g.leave_one_out() for k, g in self.members.items()}
        self.evidence = {k: density for k, (_, density) in found.items()}
        n = len(next(iter(self.members.values())).z)
        odds = SUM_ODDS * max(1.0, MANY / n)
        logs = {k: (v * n + odds * (k[1] in SUMS)) / EVIDENCE_TEMPERATURE for k, v in self.evidence.items()}
        weight = {k: np.exp(v - max(logs.values())) for k, v in logs.items()}
        total = sum(weight.values())
        weight = {k: w if w >= LEAST * total else 0.0 for k, w in weight.items()}
        total = sum(weight.values())
        self.weights: dict[Member, float] = {k: float(w / total) for k, w in weight.items()}
        self.left_out = np.asarray(sum(self.weights[k] * means for k, (means, _) in found.items()))

    @classmethod
    def fit(cls, views: Mapping[str, np.ndarray | Operators], targets: Sequence[np.ndarray]) -> list[Mixture]:
        """A mixture for each of several targets ``[B]`` with mean about 0.

        ``views``: by name standardised inputs ``[B, F]``, or ``Operators``.
        """
        members: list[dict[Member, GaussianProcess]] = [{} for _ in targets]
        for view, x in views.items():
            sums = isinstance(x, Operators)
            for name, setting in (SUMS if sums else KERNELS).items():
                process: Any = SumProcess(setting) if sums else GaussianProcess(setting)
                for found, fitted in zip(members, process.fit_each(x, targets), strict=True):
                    found[view, name] = fitted
        return [cls(found) for found in members]

    def means(self, views: Mapping[str, Any], every: bool = False) -> dict[Member, np.ndarray]:
        """The means ``[B]`` of members that count, or of ``every`` one."""
        return {k: g.mean(views[k[0]]) for k, g in self.members.items() if every or self.weights[k]}

    def mean(self, means: Mapping[Member, np.ndarray]) -> np.ndarray:
        """Mean ``[B]`` of the mixture, given those of its members."""
        return np.asarray(sum(w * means[k] for k, w in self.weights.items() if w))

    def predict(self, views: Mapping[str, Any], every: bool = False,
                ) -> tuple[np.ndarray, np.ndarray, dict[Member, np.ndarray]]:
        """Mean and standard deviation of the mixture, each ``[B]``; the means of members that count, or of ``every`` one."""
        found = {k: g.predict(views[k[0]]) for k, g in self.members.items() if every or self.weights[k]}
        means = {k: m for k, (m, _) in found.items()}
        mean = self.mean(means)
        second = sum(self.weights[k] * (m * m + s * s) for k, (m, s) in found.items())
        return mean, np.sqrt(np.maximum(second - mean * mean, 1e-12)), means
