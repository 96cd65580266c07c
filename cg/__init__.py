"""The computation graph: data structure, operator vocabulary, builder, rewrites, features, spectrum, storage.

Imports none of the other packages, no deep-learning framework, and nothing slow until it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cg._version import __version__

_LAZY = {
    "Cell": "cg.cells", "Graph": "cg.graph", "GraphBuilder": "cg.builder", "GraphSet": "cg.graphset", "NodeSpec": "cg.spec",
    "canonicalize": "cg.transforms", "fingerprint": "cg.fingerprints", "features": "cg.node_features",
    "statistics": "cg.global_statistics", "spectrum": "cg.spectra", "CGError": "cg.errors",
}
# Modules are never named like the things they export: importing a module binds its name in the package.
__all__ = [*_LAZY, "__version__"]

if TYPE_CHECKING:
    from cg.builder import GraphBuilder
    from cg.cells import Cell
    from cg.errors import CGError
    from cg.fingerprints import fingerprint
    from cg.global_statistics import statistics
    from cg.graph import Graph
    from cg.graphset import GraphSet
    from cg.node_features import features
    from cg.spec import NodeSpec
    from cg.spectra import spectrum
    from cg.transforms import canonicalize


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'cg' has no attribute {name!r}")
    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
