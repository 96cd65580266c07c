"""Latency without the graph's shape: a sum over layers, and a line in multiply-adds. The rivals in Table 1 of BRP-NAS
(Dudziak et al., arXiv 2007.08668, section 3).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin

from cg.cells import Cell
from cg.errors import CGError
from cg.graph import Graph
from cg.spec import NodeSpec
from finetune.targets import check_labels

Layer = NodeSpec | str


class LayerwiseLatency(RegressorMixin, BaseEstimator):
    """The latency of a graph is the sum of the latencies of its nodes, which depend on the ``NodeSpec`` alone.

    Of a ``cg.Cell`` the layers are the names of its operations, which is right where one operation means one cost (in
    NAS-Bench-201 all operations of a cell have the same shapes).

    Args:
        table: latency by ``NodeSpec``, or its JSON text, or name of an operation, measured one layer at a time
            (``cg latency --layers``); ``fit`` then only keeps it. ``None``: ``fit`` finds latencies that are not negative and
            explain the labels best (least squares on how often each layer occurs), for where nobody measured layers.
        missing: latency of a layer that the table has not; ``None`` makes it an error.

    Attributes:
        table_: latency by layer, in the unit of table or labels.
    """

    def __init__(self, table: Mapping[Layer, float] | None = None, missing: float | None = None) -> None:
        self.table = table
        self.missing = missing

    def fit(self, networks: Sequence[Graph | Cell], y: Any) -> LayerwiseLatency:
        """Learn from labels ``[B]``."""
        from scipy.optimize import nnls

        counts = [_counts(n) for n in networks]
        if self.table is not None:
            self.table_ = {NodeSpec.from_json(k) if isinstance(k, str) and k.startswith("{") else k: float(v)
                           for k, v in self.table.items()}
            return self
        y = check_labels(networks, y)
        layers = list(dict.fromkeys(layer for c in counts for layer in c))
        number = {layer: i for i, layer in enumerate(layers)}
        a = np.zeros((len(counts), len(layers)))
        for row, c in enumerate(counts):
            a[row, [number[s] for s in c]] = list(c.values())
        columns, which = np.unique(a, axis=1, return_inverse=True)  # layers that always come together share what they cost
        shared, _ = nnls(columns, y, maxiter=30 * columns.shape[1])
        which = which.reshape(-1)
        times = shared[which] / np.bincount(which)[which]
        self.table_ = {layer: float(t) for layer, t in zip(layers, times, strict=True)}
        return self

    def predict(self, networks: Sequence[Graph | Cell]) -> np.ndarray:
        """Latencies ``[B]``. Raises ``CGError`` naming a layer that the table has not, unless ``missing`` is set."""
        return np.array([sum(self._time(layer, net) * n for layer, n in _counts(net).items()) for net in networks], np.float64)

    def _time(self, layer: Layer, net: Graph | Cell) -> float:
        found = self.table_.get(layer, self.missing)
        if found is None:
            text = layer if isinstance(layer, str) else layer.to_json()
            raise CGError(f"{net.name!r}: no latency is known for {text}; measure it or set missing=")
        return found


def _counts(net: Graph | Cell) -> Counter[Layer]:
    """How often each layer occurs. Inputs of a graph cost nothing."""
    if isinstance(net, Cell):
        return Counter(net.ops)
    return Counter(spec for spec in net.nodes if spec.op != "Input")


class FlopsLatency(RegressorMixin, BaseEstimator):
    """Latency as ``slope * MACs + intercept``, by least squares."""

    def fit(self, graphs: Sequence[Graph], y: Any) -> FlopsLatency:
        """Learn from labels ``[B]``."""
        y = check_labels(graphs, y)
        x = np.array([g.macs for g in graphs], np.float64)
        spread = ((x - x.mean()) ** 2).sum()
        self.slope_ = float(((x - x.mean()) * (y - y.mean())).sum() / spread) if spread else 0.0
        self.intercept_ = float(y.mean() - self.slope_ * x.mean())
        return self

    def predict(self, graphs: Sequence[Graph]) -> np.ndarray:
        """Latencies ``[B]`` in label units."""
        return np.array([g.macs for g in graphs], np.float64) * self.slope_ + self.intercept_
