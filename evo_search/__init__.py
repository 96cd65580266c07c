"""Search: spaces of networks, oracles that label them, and the strategies that look for the best one.

Everything here is loaded on first use. Importing this package must not import torch (spaces build graphs without it;
only ``space.to_torch`` needs it).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evo_search.algorithm1 import evolve, random_search
    from evo_search.spaces import get_space, list_spaces

_HOME = {
    "evolve": "evo_search.algorithm1",
    "random_search": "evo_search.algorithm1",
    "get_space": "evo_search.spaces",
    "list_spaces": "evo_search.spaces",
}
__all__ = ["evolve", "get_space", "list_spaces", "random_search"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
