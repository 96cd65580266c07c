"""Labelled families to learn from: the shipped samples of the benchmarks, a user's own graph sets, and their priors.

A *prior* is what source families say about networks of a target family that has no labels, or few. Trees on graph statistics
carry over only where the two families look alike, so each source is asked through the columns whose distributions overlap
(Kolmogorov-Smirnov distance to a sample of target networks, which needs no labels), and counts by how many those are and by how
well its order agrees with the labels there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from cg.errors import CGError
from cg.global_statistics import GROUPS, statistics
from cg.graph import Graph
from cg.graphset import GraphSet
from finetune.targets import agreement, check_labels, normal_scores

FOLDER = Path(__file__).parent / "sources"
# Statistics that mean the same in any family; visits per stage and pairs of operators do not carry over.
SHARED = np.flatnonzero(~np.isin(GROUPS, ("back", "front", "pair", "hop")))
LIMITS = (0.5, 0.7, 0.9)  # distances up to which a column is used, one forest each
ALIKE, NEAR = 0.6, 0.25  # a column overlaps; a family is near if that share of the columns does
TREES = 25
# An agreement of min(3 overlap, .85) with the labels is expected before there are any, and believed like EXPECTED labels.
EXPECTED, TRUST, MOST = 10.0, 3.0, 0.85
REFERENCE = 512  # networks that stand for the target


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
    """One labelled family: its graphs, scores (normal scores of the labels) and statistics."""

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


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Kolmogorov-Smirnov distance of every column of ``a [A, F]`` and ``b [B, F]``, ``[F]`` from 0 to 1."""
    x = np.vstack([a, b])
    order = np.argsort(x, 0, kind="stable")
    ordered = np.take_along_axis(x, order, 0)
    steps = np.where(order < len(a), 1 / len(a), -1 / len(b)).cumsum(0)
    last = np.vstack([np.diff(ordered, axis=0) != 0, np.ones((1, x.shape[1]), bool)])  # of equal values only the last counts
    return np.asarray(np.abs(np.where(last, steps, 0.0)).max(0))


class _Forests:
    """One source as seen from a sample of target networks ``[R, len(SHARED)]``."""

    def __init__(self, source: Source, reference: np.ndarray) -> None:
        x = source.statistics
        distance = distances(x, reference)
        distance[x.std(0) < 1e-6] = 1.0
        self.overlap = float((distance < ALIKE).mean())
        self.parts = []
        for limit in LIMITS:
            columns = np.flatnonzero(distance < limit)
            if len(columns) < 3:
                columns = np.argsort(distance)[:3]
            self.parts.append((columns, grow(x[:, columns], source.scores, TREES)))
        self.scaled: Any = None
        said = raw = self._raw(reference)
        if self.overlap < NEAR and len(reference) > 1:  # far: where a network stands within its own family counts as well
            mean, std = x.mean(0), np.maximum(x.std(0), 1e-6)
            self.shift = (reference.mean(0), np.maximum(reference.std(0), 1e-6))
            varies = (x.std(0) > 1e-5) & (reference.std(0) > 1e-5)
            z = (x - mean) / std
            self.columns = np.flatnonzero(varies & (distances(z, self._own(reference)) < 0.8))
            if len(self.columns) > 2:
                self.scaled = grow(z[:, self.columns], source.scores, 2 * TREES)
                own = self._scaled(reference)
                self.balance = max(raw.std(), 1e-9) / max(own.std(), 1e-9)
                said = raw + self.balance * own
        self.centre, self.spread = said.mean(), max(said.std(), 1e-9)
        self.reference_scores = (said - self.centre) / self.spread

    def _own(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(np.clip((x - self.shift[0]) / self.shift[1], -4.0, 4.0))

    def _raw(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(sum(forest.predict(x[:, columns]) for columns, forest in self.parts)) / len(self.parts)

    def _scaled(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.scaled.predict(self._own(x)[:, self.columns]))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Scores ``[B]`` of networks ``[B, len(SHARED)]``, standardised over the reference."""
        said = self._raw(x)
        if self.scaled is not None:
            said = said + self.balance * self._scaled(x)
        return np.asarray((said - self.centre) / self.spread)


def grow(x: np.ndarray, y: np.ndarray, n: int) -> Any:
    """``n`` extremely randomised trees on rows ``x [B, F]``, fitted to ``y [B]``; the same rows give the same trees."""
    from sklearn.ensemble import ExtraTreesRegressor

    # one job: threads add trees up in any order, and scikit-learn's swap the process's warning filters under each other
    return ExtraTreesRegressor(n, min_samples_leaf=2, max_features=0.3, random_state=0, n_jobs=1).fit(x, y)


class Prior:
    """What several sources say together about a target family. ``reference``: statistics ``[R, F]`` of networks of it."""

    def __init__(self, sources: Sequence[Source], reference: np.ndarray) -> None:
        step = max(-(-len(reference) // REFERENCE), 1)
        shared = reference[::step][:, SHARED].astype(np.float64)
        self.forests = [_Forests(s, shared) for s in sources]
        self.overlaps = np.array([f.overlap for f in self.forests])
        self._expected = np.minimum(TRUST * self.overlaps, MOST)
        self._over = np.stack([f.reference_scores for f in self.forests], 1)
        self.judge(np.zeros((0, len(self.forests))), np.zeros(0))

    def scores(self, x: np.ndarray) -> np.ndarray:
        """Scores ``[B, sources]`` of networks with statistics ``[B, F]``."""
        if not len(x):
            return np.zeros((0, len(self.forests)))
        shared = x[:, SHARED].astype(np.float64)
        return np.stack([f(shared) for f in self.forests], 1)

    def judge(self, scores: np.ndarray, z: np.ndarray) -> None:
        """Weigh the sources by their scores ``[B, sources]`` for networks with labels ``z [B]``."""
        each = np.array([self._agreement(e, p, z) for e, p in zip(self._expected, scores.T, strict=True)])
        self.weights = each**2 / (1.0 - each**2)
        self.scale = max(float((self._over @ self.weights).std()), 1e-9)
        self.agreement = self._agreement(self._expected.max(), scores @ self.weights, z) if self.weights.any() else 0.0

    @staticmethod
    def _agreement(expected: float, p: np.ndarray, z: np.ndarray) -> float:
        """Estimated correlation of a prior with the labels, 0 to .95."""
        found, n = agreement(z, p), len(z)
        return float(np.clip((EXPECTED * expected + n * found) / (EXPECTED + n), 0.0, 0.95))

    def combine(self, scores: np.ndarray) -> np.ndarray:
        """Normal scores ``[B]``: one opinion of all sources, shrunk by how far it can be trusted."""
        return np.asarray(self.agreement * (scores @ self.weights) / self.scale)


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
