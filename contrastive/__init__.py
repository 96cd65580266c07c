"""Graphs to embeddings: the encoder, spectral positives and contrastive pre-training. Sees graphs, never a user's model."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_LAZY = {
    "Encoder": "contrastive.encoder", "EncoderConfig": "contrastive.config", "pretrain": "contrastive.training",
    "load_encoder": "contrastive.checkpoint", "list_encoders": "contrastive.checkpoint",
    "supcon_loss": "contrastive.loss",
}
__all__ = [*_LAZY]

if TYPE_CHECKING:
    from contrastive.checkpoint import list_encoders, load_encoder
    from contrastive.config import EncoderConfig
    from contrastive.encoder import Encoder
    from contrastive.loss import supcon_loss
    from contrastive.training import pretrain


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'contrastive' has no attribute {name!r}")
    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value
