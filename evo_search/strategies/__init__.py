"""Strategies by name: the built-in ones, and those that other distributions register as entry points.

A third party adds a strategy with an entry point in the group ``cg.strategies`` whose value is a ``Strategy`` class that can be
made without arguments, e.g. ``my-strategy = "my_package.search:MyStrategy"``. Built-in names cannot be taken over.
"""

from __future__ import annotations

from typing import Any

from evo_search._evolve_config import SearchError
from evo_search._registry import Registry
from evo_search.strategies._base import Proposal, State, Strategy

ENTRY_POINT_GROUP = "cg.strategies"
BUILT_IN = {
    "aging": "evo_search.strategies.aging:AgingEvolution",
    "algorithm1": "evo_search.strategies.algorithm1:Algorithm1",
    "brp": "evo_search.strategies.brp:BRPSearch",
    "cg": "evo_search.strategies.ours:CGSearch",
    "local": "evo_search.strategies.local_search:LocalSearch",
    "neural-predictor": "evo_search.strategies.neural_predictor:NeuralPredictorSearch",
    "npenas": "evo_search.strategies.npenas:NPENAS",
    "nsga2": "evo_search.strategies.nsga2:NSGA2",
    "random": "evo_search.strategies.random:RandomSearch",
    "reinforce": "evo_search.strategies.reinforce:Reinforce",
}
_STRATEGIES: Registry[Strategy] = Registry("strategy", ENTRY_POINT_GROUP, BUILT_IN, Strategy, SearchError)
__all__ = ["BUILT_IN", "ENTRY_POINT_GROUP", "Proposal", "State", "Strategy", "get_strategy", "list_strategies"]


def list_strategies() -> list[str]:
    """Sorted names that ``get_strategy`` accepts."""
    return _STRATEGIES.names()


def get_strategy(name: str, **arguments: Any) -> Strategy:
    """A new strategy called ``name``; ``arguments`` go to its class.

    Raises ``SearchError`` for an unknown name, and for a registered one that cannot be loaded or is not a ``Strategy``.
    """
    return _STRATEGIES.make(name, **arguments)
