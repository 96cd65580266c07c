"""Labelled families to learn from: the shipped samples of the benchmarks, and a user's own graph sets.

What they say about networks of another family is in ``finetune.prior``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cg.errors import CGError
from cg.global_statistics import STATISTICS, statistics
from cg.graph import Graph
from cg.graphset import GraphSet
from finetune.families import ENOUGH_FAMILIES
from finetune.gp import Standardizer, distances
from finetune.targets import agreement, check_labels, normal_scores
from finetune.views import SHARED

FOLDER = Path(__file__).parent / "sources"
LIKE = 0.9  # share of the distance of a source's farthest family up to which networks may be another family of that kind
MOST = 2000  # networks of a source that distances are taken to
_SIZE = [int(np.flatnonzero(STATISTICS.index(f"total.{c}") == SHARED)[0]) for c in ("macs", "params")]


def list_sources() -> list[str]:
    """Names of the shipped labelled families."""
    return sorted(p.stem for p in FOLDER.glob("*.parquet"))


@cache
def load_source(name: str) -> GraphSet:
    """A shipped labelled sample by name. Raises ``CGError`` naming what there is."""
    path = FOLDER / f"{name}.parquet"
    if not path.exists():
        raise CGError(f"no source {name!r}; shipped are: {', '.join(list_sources()) or 'none'}; or give a GraphSet or a file")
    return GraphSet.read(path)


class Source:
    """One labelled family, or several: graphs, scores (normal scores of the labels) and statistics."""

    def __init__(self, graphs: GraphSet) -> None:
        if not graphs.labels:
            raise CGError("a source needs labels, this graph set has none")
        y = graphs.label(next(iter(graphs.labels)))
        known = np.flatnonzero(np.isfinite(y))
        self.graphs = graphs.take(known)
        self.scores = normal_scores(check_labels(self.graphs.graphs, y[known]))
        self.families = {g.family for g in self.graphs}
        self.digests = {g.digest for g in self.graphs}
        self._statistics: np.ndarray | None = None

    @property
    def statistics(self) -> np.ndarray:
        """float64 ``[B, len(SHARED)]``."""
        if self._statistics is None:
            self._statistics = statistics(self.graphs.graphs)[:, SHARED].astype(np.float64)
        return self._statistics

    @cached_property
    def follows_size(self) -> float:
        """Spearman's rho of the labels and the networks' size; below 0 where small labels are the good ones, errors say."""
        return agreement(self.scores, size(self.statistics))

    @cached_property
    def apart(self) -> Apart | None:
        """How far its families are from each other; None where there are too few, or some network names none."""
        if "" in self.families or len(self.families) < ENOUGH_FAMILIES:
            return None
        return Apart(self.statistics, np.array([g.family for g in self.graphs]))


class Apart:
    """How far the families of a source are from each other: statistics ``rows [B, len(SHARED)]``, ``families [B]``."""

    def __init__(self, rows: np.ndarray, families: np.ndarray) -> None:
        some = np.random.default_rng(0).permutation(len(rows))[:MOST]
        families = families[some]
        self._standard = Standardizer(rows)
        self._places = self._standard(rows[some])
        between = distances(self._places, self._places)
        between[families[:, None] == families] = np.inf
        self._farthest = max(float(np.median(between[families == f].min(1))) for f in np.unique(families))

    def believed(self, rows: np.ndarray) -> float:
        """Whether networks ``[R, len(SHARED)]`` may be another family of that kind, 0 to 1: 0 where they are as far from all
        families as the one that is farthest from the others."""
        far = float(np.median(distances(self._standard(rows), self._places).min(1))) / max(self._farthest, 1e-9)
        return float(np.clip((1.0 - far) / (1.0 - LIKE), 0.0, 1.0))


def size(rows: np.ndarray) -> np.ndarray:
    """Log multiply-adds + log parameters ``[B]`` of rows ``[B, len(SHARED)]``; the sum orders networks better than either."""
    return np.asarray(rows[:, _SIZE].sum(1))


@cache
def _shipped(name: str) -> Source:
    return Source(load_source(name))


def resolve(sources: Any, target: Sequence[Graph]) -> list[Source]:
    """Sources to use for a target family.

    ``sources`` is None (every shipped one), or a sequence of names, files and ``GraphSet``s. A shipped family taken by default
    is left out where it is the target's own: where the families' names meet, or where it holds one of the target's graphs.
    Named sources are used as asked.
    """
    if sources is None:
        families, digests = {g.family for g in target}, {g.digest for g in target}
        candidates = [_shipped(n) for n in list_sources()]
        return [s for s in candidates if not (s.families & families or s.digests & digests)]
    if isinstance(sources, str | Path | GraphSet):
        sources = [sources]
    out = []
    for s in sources:
        if isinstance(s, Source):
            out.append(s)
        elif isinstance(s, GraphSet):
            out.append(Source(s))
        elif str(s) in list_sources():
            out.append(_shipped(str(s)))
        else:
            out.append(Source(GraphSet.read(s)))
    return out
