"""Search spaces by name: the built-in ones, and those that other distributions register as entry points.

A third party adds a space with an entry point in the group ``cg.spaces`` whose value is a class that needs no
arguments, e.g. ``my-space = "my_package.space:MySpace"``. Built-in names cannot be taken over.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from cg.errors import CGError
from evo_search._registry import Registry
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
_SPACES: Registry[SearchSpace[Any]] = Registry("search space", ENTRY_POINT_GROUP, BUILT_IN, SearchSpace, CGError)
__all__ = ["BUILT_IN", "ENTRY_POINT_GROUP", "SearchSpace", "get_space", "list_spaces"]


def list_spaces() -> list[str]:
    """Sorted names that ``get_space`` accepts."""
    return _SPACES.names()


@cache
def _built_in(name: str) -> SearchSpace[Any]:
    return _SPACES.make(name)


def get_space(name: str) -> SearchSpace[Any]:
    """The search space called ``name``. Spaces are immutable, so built-in ones are shared within the process.

    Raises ``CGError`` for an unknown name, and for a registered one that cannot be loaded or is not a ``SearchSpace``.
    """
    return _built_in(name) if name in BUILT_IN else _SPACES.make(name)
