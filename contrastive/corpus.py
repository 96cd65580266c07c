"""``Corpus``: what pre-training knows of its graphs, computed once and shared by runs with different objectives."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from cg.errors import CGError
from cg.global_statistics import statistics
from cg.graph import Graph
from cg.graphset import GraphSet
from cg.spectra import spectra
from contrastive.config import EncoderConfig
from contrastive.positives import spectral_neighbours
from contrastive.views import GraphView, views


class Corpus:
    """B graphs of several families.

    Args:
        sets: graph sets; their graphs' ``family`` tells which graphs may be positives of each other. The label of a
            ``GraphSet`` that has a single one orders its graphs where a ranking is learned.

    Attributes:
        family: int ``[B]``; ``members``: the rows of each family; ``families``: their names.
        label: float64 ``[B]``, NaN where there is none; only labels of one ``group``, int ``[B]``, compare.

    Raises ``CGError`` on fewer than 4 graphs.
    """

    def __init__(self, sets: Sequence[Sequence[Graph]]) -> None:
        self.graphs = [g for s in sets for g in s]
        if len(self.graphs) < 4:
            raise CGError(f"pre-training needs at least 4 graphs, got {len(self.graphs)}")
        self.families, self.family = np.unique([g.family for g in self.graphs], return_inverse=True)
        self.members = [np.flatnonzero(self.family == f) for f in range(len(self.families))]
        self.label = np.concatenate([
            s.label() if isinstance(s, GraphSet) and len(s.labels) == 1 else np.full(len(s), np.nan) for s in sets])
        self.group = np.repeat(np.arange(len(sets)), [len(s) for s in sets])
        self._views: dict[tuple[bool, int], list[GraphView]] = {}

    def __len__(self) -> int:
        return len(self.graphs)

    @cached_property
    def spectra(self) -> np.ndarray:
        """Float32 ``[B, 11]``."""
        return spectra(self.graphs).astype(np.float32)

    @cached_property
    def targets(self) -> np.ndarray:
        """Standardised statistics that differ between graphs, float32 ``[B, F]``, within 5 deviations."""
        raw = statistics(self.graphs)
        spread = raw.std(0)
        used = spread > 1e-6
        return np.clip(((raw - raw.mean(0)) / np.maximum(spread, 1e-6))[:, used], -5, 5)

    @cached_property
    def labelled(self) -> int:
        """How many graphs have a label."""
        return int(np.isfinite(self.label).sum())

    @cached_property
    def hash(self) -> str:
        """Of all graphs and labels."""
        rows = [(g.digest, g.family) for g in self.graphs]
        labels = self.label.tobytes() if self.labelled else b""
        return hashlib.blake2b(json.dumps(rows).encode() + labels, digest_size=8).hexdigest()

    def neighbours(self, k: int) -> np.ndarray:
        """Rows of the ``k`` nearest graphs by spectrum, of the same family, int64 ``[B, k]``."""
        return spectral_neighbours(self.spectra, self.family, k)

    def views(self, config: EncoderConfig) -> list[GraphView]:
        """What an encoder of this configuration reads of every graph."""
        key = config.context, config.positions
        if key not in self._views:
            self._views = {key: views(self.graphs, config)}
        return self._views[key]
