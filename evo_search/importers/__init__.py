"""Official benchmark files -> tables: NAS-Bench-101 (TFRecord), 201 / NATS-Bench (pickles), 301 (JSON runs).

    from evo_search.importers import import_nasbench101
    import_nasbench101("nasbench_only108.tfrecord").write("nasbench101.npz")

and from the shell ``python -m evo_search.importers nasbench101 nasbench_only108.tfrecord -o nasbench101.npz``. They
need numpy only: no TensorFlow, no torch, and no pickle is executed (see ``_safe_pickle``). Each is loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evo_search.importers.nasbench101 import import_nasbench101
    from evo_search.importers.nasbench201 import import_nasbench201
    from evo_search.importers.nasbench301 import import_nasbench301

__all__ = ["import_nasbench101", "import_nasbench201", "import_nasbench301"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{name.removeprefix('import_')}"), name)
