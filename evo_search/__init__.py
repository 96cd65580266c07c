"""Search: spaces of networks, oracles that label them, and the strategies that look for the best one.

Everything here is loaded on first use. Importing this package must not import torch (spaces build graphs without it;
only ``space.to_torch`` needs it).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evo_search.algorithm1 import evolve, random_search
    from evo_search.cgspace import CGSpace
    from evo_search.objectives import Constraint
    from evo_search.search_page import search_report
    from evo_search.spaces import get_space, list_spaces
    from evo_search.strategies import Proposal, Strategy, get_strategy, list_strategies
    from evo_search.study import Study

_HOME = {
    "CGSpace": "evo_search.cgspace",
    "Constraint": "evo_search.objectives",
    "Proposal": "evo_search.strategies",
    "Strategy": "evo_search.strategies",
    "Study": "evo_search.study",
    "evolve": "evo_search.algorithm1",
    "random_search": "evo_search.algorithm1",
    "get_space": "evo_search.spaces",
    "get_strategy": "evo_search.strategies",
    "list_spaces": "evo_search.spaces",
    "list_strategies": "evo_search.strategies",
    "search_report": "evo_search.search_page",
}
__all__ = ["CGSpace", "Constraint", "Proposal", "Strategy", "Study", "evolve", "get_space", "get_strategy", "list_spaces",
           "list_strategies", "random_search", "search_report"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
