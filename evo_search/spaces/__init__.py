"""Search spaces by name: the built-in ones, and those that other distributions register as entry points.

A third party adds a space with an entry point in the group ``cg.spaces`` whose value is a class that needs no
arguments, e.g. ``my-space = "my_package.space:MySpace"``. Built-in names cannot be taken over.
"""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from cg.errors import CGError
from evo_search.spaces._base import SearchSpace

ENTRY_POINT_GROUP = "cg.spaces"
BUILT_IN = {
    "nasbench101": "evo_search.spaces.nasbench101:NASBench101",
    "nasbench201": "evo_search.spaces.nasbench201:NASBench201",
    "nasbench201-cifar100": "evo_search.spaces.nasbench201:cifar100",
    "nasbench201-imagenet16": "evo_search.spaces.nasbench201:imagenet16",
    "nasbench301": "evo_search.spaces.darts:NASBench301",
    "ofa-mbv3": "evo_search.spaces.ofa:OFAMobileNetV3",
    "ofa-mbv3-w12": "evo_search.spaces.ofa:OFAMobileNetV3Wide",
    "ofa-proxyless": "evo_search.spaces.ofa:OFAProxylessNAS",
    "ofa-resnet50": "evo_search.spaces.ofa_resnet:OFAResNet50",
    "proxylessnas": "evo_search.spaces.proxylessnas:ProxylessNAS",
    "nats-size": "evo_search.spaces.nats_size:NATSBenchSize",
}
__all__ = ["BUILT_IN", "ENTRY_POINT_GROUP", "SearchSpace", "get_space", "list_spaces"]


def _registered() -> dict[str, EntryPoint]:
    return {e.name: e for e in entry_points(group=ENTRY_POINT_GROUP)}


def list_spaces() -> list[str]:
    """Sorted names that ``get_space`` accepts."""
    return sorted({*BUILT_IN, *_registered()})


@cache
def _built_in(name: str) -> SearchSpace[Any]:
    module, _, attribute = BUILT_IN[name].partition(":")
    space: SearchSpace[Any] = getattr(import_module(module), attribute)()
    return space


def get_space(name: str) -> SearchSpace[Any]:
    """The search space called ``name``. Spaces are immutable, so built-in ones are shared within the process.

    Raises ``CGError`` for an unknown name, and for a registered one that cannot be loaded or is not a ``SearchSpace``.
    """
    if name in BUILT_IN:
        return _built_in(name)
    entry = _registered().get(name)
    if entry is None:
        close = get_close_matches(name, list_spaces(), n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise CGError(f"there is no search space {name!r}{hint}. Known: {', '.join(list_spaces())}")
    try:
        space = entry.load()()
    except Exception as error:
        raise CGError(f"search space {name!r} ({entry.value!r}) cannot be loaded: {error!r}") from error
    if not isinstance(space, SearchSpace):
        raise CGError(f"search space {name!r} ({entry.value!r}) gives a {type(space).__name__}, not a SearchSpace")
    return space
