"""Strategies by name: the built-in ones, and those that other distributions register as entry points.

A third party adds a strategy with an entry point in the group ``cg.strategies`` whose value is a ``Strategy`` class that can be
made without arguments, e.g. ``my-strategy = "my_package.search:MyStrategy"``. Built-in names cannot be taken over.
"""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from evo_search._evolve_config import SearchError
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
__all__ = ["BUILT_IN", "ENTRY_POINT_GROUP", "Proposal", "State", "Strategy", "get_strategy", "list_strategies"]


def _registered() -> dict[str, EntryPoint]:
    return {e.name: e for e in entry_points(group=ENTRY_POINT_GROUP)}


def list_strategies() -> list[str]:
    """Sorted names that ``get_strategy`` accepts."""
    return sorted({*BUILT_IN, *_registered()})


def get_strategy(name: str, **arguments: Any) -> Strategy:
    """A new strategy called ``name``; ``arguments`` go to its class.

    Raises ``SearchError`` for an unknown name, and for a registered one that cannot be loaded or is not a ``Strategy``.
    """
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        made: Strategy = getattr(import_module(module), attribute)(**arguments)
        return made
    entry = _registered().get(name)
    if entry is None:
        close = get_close_matches(name, list_strategies(), n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise SearchError(f"there is no strategy {name!r}{hint}. Known: {', '.join(list_strategies())}")
    try:
        strategy = entry.load()(**arguments)
    except Exception as error:
        raise SearchError(f"strategy {name!r} ({entry.value!r}) cannot be loaded: {error!r}") from error
    if not isinstance(strategy, Strategy):
        raise SearchError(f"strategy {name!r} ({entry.value!r}) gives a {type(strategy).__name__}, not a Strategy")
    return strategy
