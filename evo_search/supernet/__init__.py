"""The Once-for-All supernet on MobileNetV3: official weights, sub-networks cut out of it, their accuracy on the user's images.

Everything here is loaded on first use; only then is torch imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evo_search.supernet.checkpoints import read_checkpoint
    from evo_search.supernet.evaluation import evaluate, recalibrate, top1
    from evo_search.supernet.images import ImageFolder
    from evo_search.supernet.mobilenetv3 import OFAMobileNetV3Supernet
    from evo_search.supernet.oracle import SupernetOracle, supernet_oracle

_HOME = {
    "ImageFolder": "images",
    "OFAMobileNetV3Supernet": "mobilenetv3",
    "SupernetOracle": "oracle",
    "evaluate": "evaluation",
    "read_checkpoint": "checkpoints",
    "recalibrate": "evaluation",
    "supernet_oracle": "oracle",
    "top1": "evaluation",
}
__all__ = ["ImageFolder", "OFAMobileNetV3Supernet", "SupernetOracle", "evaluate", "read_checkpoint", "recalibrate",
           "supernet_oracle", "top1"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
