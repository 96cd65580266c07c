"""Labelled families to learn from: the shipped samples of the benchmarks, a user's own graph sets, and their priors.

A *prior* is what a source family alone says about any network: trees on its graph statistics at their natural scale, so that
networks of another family stand where they really are.
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
from finetune.targets import check_labels, normal_scores

FOLDER = Path(__file__).parent / "sources"
# Statistics that mean the same in any family; counts per stage and pairs of operators do not carry over (see docs).
SHARED = ~np.isin(GROUPS, ("count", "back", "front", "pair", "hop"))


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
    """One labelled family: its graphs, labels and tree prior."""

    def __init__(self, graphs: GraphSet) -> None:
        if not graphs.labels:
            raise CGError("a source needs labels, this graph set has none")
        y = graphs.label(next(iter(graphs.labels)))
        known = np.flatnonzero(np.isfinite(y))
        self.graphs = graphs.take(known)
        self.scores = normal_scores(check_labels(self.graphs.graphs, y[known]))
        self.families = {g.family for g in self.graphs}
        self.digests = {g.digest for g in self.graphs}
        self._trees: Any = None

    def prior(self, shared: np.ndarray) -> np.ndarray:
        """Prior scores ``[B]`` (normal-score units of this family) from statistics ``[B, SHARED.sum()]``."""
        if self._trees is None:
            from sklearn.ensemble import ExtraTreesRegressor

            self._trees = ExtraTreesRegressor(200, min_samples_leaf=2, max_features=0.3, random_state=0, n_jobs=2)
            self._trees.fit(statistics(self.graphs.graphs)[:, SHARED], self.scores)
            self._trees.n_jobs = 1  # threads add the trees up in any order, and the last bits differ from run to run
        return np.asarray(self._trees.predict(shared))


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
