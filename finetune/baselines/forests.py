"""Forests as rivals: a random forest on the flat encoding of cells (on statistics for graphs), and extremely randomised
trees on zero-cost proxies."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin

from cg.cells import Cell
from cg.errors import CGError
from cg.global_statistics import statistics
from cg.graph import Graph
from finetune.baselines._inputs import Network, Reader
from finetune.targets import check_labels, normal_scores


class RandomForestPredictor(RegressorMixin, BaseEstimator):
    """Random forest of regression trees, normal scores of the labels as targets. Source: Ning et al., arXiv 2008.03064,
    section 5 (there on cells).

    Cells are read as one-hot operations beside the upper triangle of the adjacency matrix, padded to the largest labelled
    cell; graphs as ``cg.statistics``, because a padded matrix of hundreds of nodes drowns in 100 labels.
    """

    label_units = False

    def __init__(self, n_estimators: int = 300, max_features: float = 1 / 3, random_state: int = 0) -> None:
        self.n_estimators = n_estimators
        self.max_features = max_features
        self.random_state = random_state

    def fit(self, networks: Sequence[Network], y: Any) -> RandomForestPredictor:
        """Learn from labels ``[B]``."""
        from sklearn.ensemble import RandomForestRegressor

        y = check_labels(networks, y)
        self.reader_ = Reader(networks)
        self.length_ = max(len(n.ops) if isinstance(n, Cell) else n.n_nodes for n in networks)
        self.model_ = RandomForestRegressor(self.n_estimators, max_features=self.max_features, random_state=self.random_state)
        self.model_.fit(self._rows(networks), normal_scores(y))
        return self

    def predict(self, networks: Sequence[Network]) -> np.ndarray:
        """Scores ``[B]`` on the scale of normal scores."""
        return np.asarray(self.model_.predict(self._rows(networks))) if len(networks) else np.zeros(0)

    def _rows(self, networks: Sequence[Network]) -> np.ndarray:
        if self.reader_.cells:
            from finetune.baselines.pairs import flat

            return np.stack([flat(i, self.reader_, self.length_) for i in self.reader_.read(networks)])
        for n in networks:
            if not isinstance(n, Graph):
                raise CGError(f"{n.name!r} is a {type(n).__name__}, and what was learned from is not; use one kind for both")
        return statistics([n for n in networks if isinstance(n, Graph)])


class ProxyForest(RegressorMixin, BaseEstimator):
    """Extremely randomised trees on zero-cost proxies (``finetune.proxies``), normal scores of the labels as targets.

    A proxy that a network does not have (no rectifier, say) or that is not finite counts as less than any number. Values are
    kept by fingerprint for the life of the process and, with ``cache``, in a file of JSON lines: computing them
    (``finetune.proxies.measure``) takes from a second to tens of seconds a network.

    Args:
        proxies: names from ``finetune.proxies.PROXIES``; None for all.
        batch: random images in a batch.
        cache: file to keep values in; made when first written to.
        seed: of weights and images; the same for every network.

    Attributes:
        saved_s_: processor seconds that the last ``fit`` or ``predict`` did not have to spend because values were kept.
    """

    label_units = False

    def __init__(self, proxies: Sequence[str] | None = None, batch: int = 16, cache: str | Path | None = None,
                 n_estimators: int = 300, seed: int = 0, random_state: int = 0) -> None:
        self.proxies = proxies
        self.batch = batch
        self.cache = cache
        self.n_estimators = n_estimators
        self.seed = seed
        self.random_state = random_state

    def fit(self, graphs: Sequence[Graph], y: Any) -> ProxyForest:
        """Learn from labels ``[B]``."""
        from sklearn.ensemble import ExtraTreesRegressor

        z = normal_scores(check_labels(graphs, y))
        x = self.vectors(graphs)
        self.model_ = ExtraTreesRegressor(self.n_estimators, random_state=self.random_state).fit(x, z)
        return self

    def predict(self, graphs: Sequence[Graph]) -> np.ndarray:
        """Scores ``[B]`` on the scale of normal scores."""
        return np.asarray(self.model_.predict(self.vectors(graphs))) if len(graphs) else np.zeros(0)

    def vectors(self, graphs: Sequence[Graph]) -> np.ndarray:
        """What the trees read, float64 ``[B, proxies]``: signed logarithms, -1000 where there is no value."""
        from finetune.proxies import PROXIES

        names = tuple(PROXIES) if self.proxies is None else tuple(self.proxies)
        unknown = [n for n in names if n not in PROXIES]
        if unknown:
            raise CGError(f"there is no proxy {unknown[0]!r}; there are {', '.join(PROXIES)}")
        for i, g in enumerate(graphs):
            if not isinstance(g, Graph):
                raise CGError(f"item {i} is a {type(g).__name__}; proxies need a cg.Graph that can be built and run")
        kept, self.saved_s_ = _kept(self.cache), 0.0
        rows = []
        for g in graphs:
            keys = {name: f"{g.digest} {name} {self.batch} {self.seed}" for name in names}
            new = [name for name, key in keys.items() if key not in kept]
            self.saved_s_ += sum(kept[keys[name]][1] for name in names if name not in new)
            for name, found in _values(g, new, self.batch, self.seed).items():
                kept[keys[name]] = found
                _append(self.cache, keys[name], found)
            rows.append([kept[keys[name]][0] for name in names])
        x = np.array(rows, np.float64).reshape(len(rows), len(names))
        return np.where(np.isfinite(x), np.sign(x) * np.log1p(np.abs(np.nan_to_num(x))), -1000.0)


_MEMORY: dict[str, dict[str, tuple[float, float]]] = {}


def _kept(cache: str | Path | None) -> dict[str, tuple[float, float]]:
    """Values and their seconds that are known: those of this process and, once, those of the file."""
    where = str(cache or "")
    if where not in _MEMORY:
        _MEMORY[where] = {}
        if cache is not None and Path(cache).exists():
            for line in Path(cache).read_text(encoding="utf-8").splitlines():
                try:
                    key, value, seconds = json.loads(line)
                except ValueError:
                    continue  # the line that was being written when the process was killed
                _MEMORY[where][key] = (math.nan if value is None else float(value), float(seconds))
    return _MEMORY[where]


def _append(cache: str | Path | None, key: str, found: tuple[float, float]) -> None:
    if cache is not None:
        value = found[0] if math.isfinite(found[0]) else None
        with Path(cache).open("a", encoding="utf-8") as file:
            file.write(json.dumps([key, value, round(found[1], 4)]) + "\n")


def _values(graph: Graph, names: Sequence[str], batch: int, seed: int) -> dict[str, tuple[float, float]]:
    """Proxies, NaN where the network has none, and for each its share of the processor seconds that all of them took."""
    from finetune.proxies import measure

    if not names:
        return {}
    began = time.process_time()
    try:
        found = measure(graph, names, seed=seed, batch=batch)
    except CGError:  # it cannot be built or run; what needs neither is still there
        found = {**dict.fromkeys(names, math.nan), **measure(graph, [n for n in names if n in ("params", "macs")])}
    seconds = (time.process_time() - began) / len(names)
    return {name: (found[name], seconds) for name in names}
