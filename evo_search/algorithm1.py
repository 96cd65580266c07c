"""``evolve`` (Algorithm 1 of arXiv 2302.10835) and ``random_search``: a whole search in one call.

Each is a ``Study`` with one objective and its strategy. This file must not know a particular space, oracle or predictor, and
must not import a deep-learning framework.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evo_search._evolve_config import PAPER_BUDGET, EvolveConfig, SearchError
from evo_search.history import History
from evo_search.oracles import Oracle
from evo_search.strategies import Strategy
from evo_search.strategies.algorithm1 import Algorithm1, Predictor
from evo_search.strategies.random import RandomSearch
from evo_search.study import Progress, Study

if TYPE_CHECKING:
    from evo_search.spaces._base import SearchSpace

__all__ = ["PAPER_BUDGET", "EvolveConfig", "Predictor", "SearchError", "SearchResult", "evolve", "random_search"]


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        best_genome, best_encoded, best_value: the best successful query; ``None`` where every query failed.
        queries: networks asked about, failures included.
        curve: best value after each query, float64 ``[queries]``; NaN until the first success.
        stopped: ``budget``, or ``exhausted`` where the space gave no network that was not asked about yet.
        history: everything that was asked.
    """

    best_genome: Any
    best_encoded: str | None
    best_value: float | None
    queries: int
    curve: np.ndarray
    stopped: str
    history: History


def evolve(space: SearchSpace[Any], oracle: Oracle | Callable[[Any], float], predictor: Predictor | None = None, *,
           budget: int, seed: int = 0, history: History | str | Path | None = None,
           config: EvolveConfig | Mapping[str, Any] | None = None, progress: Progress | None = None,
           key: Callable[[Any], str] | None = None) -> SearchResult:
    """Search ``space`` for the network with the best oracle value.

    Args:
        space: a search space (``get_space``).
        oracle: ``genome -> float``; raising or returning a number that is not finite is a failed query, which counts.
        predictor: fitted on the graphs and values asked so far; ``None`` asks children of the best unfiltered.
        budget: queries in all, those of an earlier, interrupted run of the same history included.
        seed: of the one random generator.
        history: where the run is recorded, or the file or database URL for it; one that this call opens is closed at the end.
            A history with queries is continued, and gives the run that an uninterrupted one would have given.
        config: settings; a mapping is checked for unknown names.
        progress: called after every query with it and the best so far.
        key: identity of a genome, each identity being asked about once; by default the fingerprint of the graph.

    Raises:
        SearchError: a setting is wrong.
        HistoryError: the history belongs to a run with other settings; the message names the field.
        Whatever the predictor raises: the history is kept, and the run can be continued.
    """
    if config is None:
        config = EvolveConfig()
    elif not isinstance(config, EvolveConfig):
        config = EvolveConfig.from_dict(config)
    return _run(space, oracle, Algorithm1(predictor, config), config.maximize, budget, seed, history, progress, key)


def random_search(space: SearchSpace[Any], oracle: Oracle | Callable[[Any], float], budget: int, seed: int = 0, *,
                  history: History | str | Path | None = None, maximize: bool = True,
                  progress: Progress | None = None, key: Callable[[Any], str] | None = None) -> SearchResult:
    """Ask about random networks, each once: the baseline of every search. Arguments and errors as in ``evolve``."""
    return _run(space, oracle, RandomSearch(), maximize, budget, seed, history, progress, key)


def _run(space: SearchSpace[Any], oracle: Oracle | Callable[[Any], float], strategy: Strategy, maximize: bool, budget: int,
         seed: int, history: History | str | Path | None, progress: Progress | None,
         key: Callable[[Any], str] | None) -> SearchResult:
    objectives = {"value": "max" if maximize else "min"}
    with Study(space, strategy, objectives=objectives, seed=seed, history=history, key=key) as study:
        stopped = study.run(oracle, budget, progress=progress)
        best = study.best()
        return SearchResult(None if best is None else space.decode(best.genome), best.genome if best else None,
                            best.value if best else None, len(study), study.curve(), stopped, study.history)
