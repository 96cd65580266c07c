"""Model -> graph. Each framework has its own adapter and is imported only when that adapter is used.

``import extract`` must not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_LAZY = {
    "from_torch": "extract.torch_frontend",
    "from_onnx": "extract.onnx_frontend",
    "from_tensorflow": "extract.tensorflow_frontend",
    "Extraction": "extract.extraction", "ExtractionError": "extract.extraction",
    "ExtractionWarning": "extract.extraction",
    "to_torch": "extract.torch_build",
}
__all__ = ["Extraction", "ExtractionError", "ExtractionWarning", "from_onnx", "from_tensorflow", "from_torch", "to_torch"]

if TYPE_CHECKING:
    from extract.extraction import Extraction, ExtractionError, ExtractionWarning
    from extract.onnx_frontend import from_onnx
    from extract.tensorflow_frontend import from_tensorflow
    from extract.torch_build import to_torch
    from extract.torch_frontend import from_torch


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'extract' has no attribute {name!r}")
    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
