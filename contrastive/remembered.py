"""An encoder that embeds each graph once, for whoever asks about the same graphs again and again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cg.graph import Graph
from contrastive.encoder import Encoder

_CHUNK = 4096  # new graphs at a time


class Remembered:
    """``embed`` of the encoder; ``known``: embeddings that are there already, by fingerprint."""

    def __init__(self, encoder: Encoder, known: Mapping[str, np.ndarray] | None = None) -> None:
        self.encoder, self._known = encoder, dict(known or {})

    def embed(self, graphs: Sequence[Graph]) -> np.ndarray:
        """Embeddings float32 ``[B, m]``."""
        new = list({g.digest: g for g in graphs if g.digest not in self._known}.values())
        for k in range(0, len(new), _CHUNK):
            part = new[k:k + _CHUNK]
            self._known.update(zip([g.digest for g in part], self.encoder.embed(part), strict=True))
        return np.stack([self._known[g.digest] for g in graphs])
