"""``EvolveConfig``: the settings of ``evolve``, checked when they are made; and the checks that other settings share.

This file must not know how the settings are used.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from cg.errors import CGError


class SearchError(CGError):
    """A search cannot start: a wrong setting, budget, predictor or space."""


def positive_integers(settings: Any, *names: str) -> None:
    """Raise ``SearchError`` unless these fields are integers of at least 1."""
    for name in names:
        value = getattr(settings, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise SearchError(f"{type(settings).__name__}.{name} must be an integer of at least 1, got {value!r}")


def rates(settings: Any, *names: str) -> None:
    """Raise ``SearchError`` unless these fields are numbers from 0 to 1."""
    for name in names:
        value = getattr(settings, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise SearchError(f"{type(settings).__name__}.{name} must be between 0 and 1, got {value!r}")


@dataclass(frozen=True)
class EvolveConfig:
    """Settings of ``evolve``; all counts are networks.

    Attributes:
        n_initial: random networks asked about before the first generation.
        batch_size: networks asked about in one generation.
        n_parents: the best networks so far, from which children are made.
        pool_size: candidates that the predictor looks at in one round.
        rounds: how often the pool is bred again from its own best predictions before anything is asked.
        crossover_rate: probability that a child has two parents.
        max_edits: largest number of one-edit mutations in one child.
        random_rate: share of the pool that is sampled at random instead of bred.
        explore_rate: share of each batch that is sampled at random and not chosen by the predictor.
        breed_rate: share of each batch that are children of the best networks, not chosen by the predictor either. Among
            the very best a predictor orders little but noise, and alone it stays where it is sure (docs/search.md).
        kappa: weight of the predictor's standard deviation in the score (upper confidence bound); acts where
            the predictor has ``predict_normal`` (then of its scores) or its ``predict`` takes ``return_std``.
        refit: fit again on everything known before each generation; else once, on the initial networks.
        maximize: whether larger values are better.
    """

    n_initial: int = 20
    batch_size: int = 10
    n_parents: int = 20
    pool_size: int = 400
    rounds: int = 2
    crossover_rate: float = 0.3
    max_edits: int = 3
    random_rate: float = 0.25
    explore_rate: float = 0.0
    breed_rate: float = 0.3
    kappa: float = 2.0
    refit: bool = True
    maximize: bool = True

    def __post_init__(self) -> None:
        positive_integers(self, "n_initial", "batch_size", "n_parents", "pool_size", "rounds", "max_edits")
        rates(self, "crossover_rate", "random_rate", "explore_rate", "breed_rate")
        if isinstance(self.kappa, bool) or not isinstance(self.kappa, (int, float)) or not np.isfinite(self.kappa):
            raise SearchError(f"EvolveConfig.kappa must be a finite number, got {self.kappa!r}")
        for name in ("refit", "maximize"):
            if not isinstance(getattr(self, name), bool):
                raise SearchError(f"EvolveConfig.{name} must be true or false, got {getattr(self, name)!r}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EvolveConfig:
        """Settings from a mapping; an unknown name raises ``SearchError`` with the nearest known one."""
        _refuse_unknown(cls, values)
        return cls(**values)

    @classmethod
    def paper(cls, space_name: str, **changes: Any) -> EvolveConfig:
        """The search of arXiv 2302.10835 as far as its settings are known to us; ``changes`` override single ones.

        Reported: predictors fine-tuned on 50 / 40 / 50 labels of NAS-Bench-101 / 201 / 301, and 700 and 90 queries
        in all on the first two (``PAPER_BUDGET``), children by mutation and crossover of the top networks.
        Our reading: those labels are the random initial population, and the predictor stays as it is afterwards.
        Our choice, not checked against the paper's Table 6: numbers of parents, pool and batch, equal shares of
        crossover and one-edit mutation.
        """
        initial = {"nasbench101": 50, "nasbench201": 40, "nasbench301": 50}
        base = _base_name(space_name)
        if base not in initial:
            raise SearchError(f"the paper has no search on {space_name!r}; it has {', '.join(initial)}")
        _refuse_unknown(cls, changes)
        config = cls(n_initial=initial[base], batch_size=50 if base == "nasbench101" else 10, n_parents=20,
                     pool_size=200, rounds=1, crossover_rate=0.5, max_edits=1, random_rate=0.0, breed_rate=0.0,
                     kappa=0.0, refit=False)
        return replace(config, **changes)


PAPER_BUDGET = {"nasbench101": 700, "nasbench201": 90}
"""Queries that the paper reports for its searches (none is known to us for NAS-Bench-301)."""


def _base_name(space_name: str) -> str:
    """``nasbench201-cifar100`` -> ``nasbench201``."""
    return space_name.split("-")[0]


def _refuse_unknown(cls: type[EvolveConfig], values: Mapping[str, Any]) -> None:
    known = [f.name for f in fields(cls)]
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            raise SearchError(f"EvolveConfig has no setting {name!r}"
                              + (f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(known)}"))
