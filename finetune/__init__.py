"""Embeddings, graph statistics and a few labels to a ranking: the predictor, its parts, the rivals, criteria and protocol."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_LAZY = {
    "CGPredictor": ("finetune.predictor", "CGPredictor"),
    "TransferNet": ("finetune.transfer_net", "TransferNet"),
    "list_sources": ("finetune.sources", "list_sources"),
    "load_source": ("finetune.sources", "load_source"),
    "metrics": ("finetune.metrics", ""),
    "suggest": ("finetune.suggestion", "suggest"),
}
__all__ = ["CGPredictor", "TransferNet", "list_sources", "load_source", "metrics", "suggest"]

if TYPE_CHECKING:
    from finetune import metrics
    from finetune.predictor import CGPredictor
    from finetune.sources import list_sources, load_source
    from finetune.suggestion import suggest
    from finetune.transfer_net import TransferNet


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'finetune' has no attribute {name!r}")
    module, attribute = _LAZY[name]
    value = getattr(import_module(module), attribute) if attribute else import_module(module)
    globals()[name] = value
    return value
