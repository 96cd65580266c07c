"""Networks as sums over their operators: what is known of a network if each operator adds a share, and like ones like shares.

Latency, energy and memory are nearly such sums, parameters and multiply-adds exactly; accuracy is none. The sum over operators
of a function that a Gaussian process draws is a Gaussian process on networks (additive processes: Duvenaud, Nickisch and
Rasmussen, NeurIPS 2011; as a kernel on structures: Haussler, UCSC-CRL-99-10). A few dozen labels teach it what a convolution
of a size costs that no labelled network has. This file must not know a framework.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse

from cg._table_arrays import Column, hashes
from cg.graph import Graph
from cg.node_features import node_rows, op_rows
from cg.spec import NodeSpec
from finetune.gp import GaussianProcess, matern

LENGTHS = (0.3, 1.0, 3.0)  # how far alike reaches from one operator to another, in doublings of a size
MOST = 1024  # operators that stand for all
SUM_LABELS = 20  # fewer labelled networks make a sum look right by chance, and are not read as such
_WINDOW = Column(lambda _, spec: _window(spec), np.float32, 2)


class Operators(NamedTuple):
    """Networks as a ``SumProcess`` sees them; ``L`` kernels, ``n`` labelled networks.

    Attributes:
        cross: covariances with the labelled networks ``[L, B, n]``, of mean 1 on these networks' own variances.
        own: variances ``[L, B]``; ``[L, 0]`` if nobody asks for deviations.
        near: standardised statistics ``[B, F]``.
    """

    cross: np.ndarray
    own: np.ndarray
    near: np.ndarray

    def repeated(self, n: int, usual: bool) -> Operators:
        """One network ``n`` times; with ``usual`` the last one is the mean of the labelled networks."""
        cross, own = np.repeat(self.cross, n, 1), np.repeat(self.own, n, 1)
        if usual:
            cross[:, -1], own[:, -1] = 0.0, 0.0
        return Operators(cross, own, self.near)


class OperatorReader:
    """Covariances of sums over operators with those of ``graphs``, the labelled networks, less their mean.

    Two nodes with the same operator are alike by ``exp(-d^2 / 2 length^2)``, d being the distance of their node features
    (``cg.node_features``, and the window of a pooling: sizes as binary logarithms); others are not. Where there are more than
    ``MOST`` different operators, the most frequent stand for all (Nystroem), and what these do not tell is variance of its own.
    """

    def __init__(self, graphs: Sequence[Graph]) -> None:
        counts, specs = count(graphs)
        if len(specs) > MOST:
            often = np.argsort(-np.asarray(counts.sum(0)).ravel(), kind="stable")
            specs = specs[np.sort(often[:MOST])]
        self._place, self._op = _places(specs), op_rows(specs)
        self._read: dict[int, int] = {}  # row of the tables below by number of an operator
        self._lengths = [_Length(self._alike(specs, length)) for length in LENGTHS]
        counts, rows = self._rows(graphs)
        for of in self._lengths:
            of.teach(counts, rows)

    def __call__(self, graphs: Sequence[Graph], variances: bool = True) -> Operators:
        """What a ``SumProcess`` reads of ``B`` graphs, but for their statistics; ``variances``: also for deviations."""
        counts, rows = self._rows(graphs)
        cross = np.stack([of.cross(counts, rows) for of in self._lengths])
        own = np.stack([of.own(counts, rows) for of in self._lengths]) if variances else np.zeros((len(LENGTHS), 0))
        return Operators(cross, own, np.zeros((len(graphs), 0)))

    def _rows(self, graphs: Sequence[Graph]) -> tuple[sparse.csr_matrix, np.ndarray]:
        """How often operators occur ``[B, U]``, and their rows ``[U]`` in the tables, which learn the new ones."""
        counts, specs = count(graphs)
        new = [int(i) for i in specs if int(i) not in self._read]
        if new:
            self._read |= {i: len(self._read) + n for n, i in enumerate(new)}
            for of, length in zip(self._lengths, LENGTHS, strict=True):
                of.read(self._alike(np.array(new), length))
        return counts, np.array([self._read[int(i)] for i in specs], np.int64)

    def _alike(self, specs: np.ndarray, length: float) -> np.ndarray:
        """Covariance ``[U, M]`` of operators with those that stand for all."""
        from scipy.spatial.distance import cdist

        same = op_rows(specs)[:, None] == self._op
        return np.exp(-cdist(_places(specs), self._place, "sqeuclidean") / (2 * length**2)) * same


class _Length:
    """Sums of one length. An operator has features ``[m]`` whose products are covariances, and a network has their sum.

    ``alike [M, M]``: covariances of the operators that stand for all.
    """

    def __init__(self, alike: np.ndarray) -> None:
        values, vectors = np.linalg.eigh(alike)
        keep = values > 1e-6 * values[-1]
        self._into = vectors[:, keep] / np.sqrt(values[keep])
        self._each = np.zeros((0, self._into.shape[1]))
        self._known = np.zeros((0, self._into.shape[1]))  # less their mean, of the labelled networks
        self._with = np.zeros((0, 0))  # covariances of an operator with these

    def read(self, alike: np.ndarray) -> None:
        """Learn of new operators, by their covariances ``[U, M]``."""
        each = alike @ self._into
        self._each = np.vstack([self._each, each])
        self._with = np.vstack([self._with, each @ self._known.T])

    def teach(self, counts: sparse.csr_matrix, rows: np.ndarray) -> None:
        """Learn which the labelled networks ``[n, U]`` are."""
        features = np.asarray(counts @ self._each[rows])
        self._centre = features.mean(0)
        self._known = features - self._centre
        self._scale = max(float((self._known**2).sum(1).mean()), 1e-12)
        self._with, self._usual = self._each @ self._known.T, self._known @ self._centre

    def cross(self, counts: sparse.csr_matrix, rows: np.ndarray) -> np.ndarray:
        """Covariances ``[B, n]`` of networks with the labelled ones."""
        return np.asarray((counts @ self._with[rows] - self._usual) / self._scale)

    def own(self, counts: sparse.csr_matrix, rows: np.ndarray) -> np.ndarray:
        """Variances ``[B]``, with what the operators that stand for all do not tell."""
        each = self._each[rows]
        missed = np.maximum(1.0 - (each * each).sum(1), 0.0)
        features = np.asarray(counts @ each) - self._centre
        return np.asarray(((features**2).sum(1) + counts.power(2) @ missed) / self._scale)


class SumProcess(GaussianProcess):
    """A Gaussian process of sums over operators: which length counts how much and the noise by evidence on a grid.

    ``local``: variance of a Matern kernel on the statistics that is added, for what is no sum, over that of the sums.
    """

    SHARES = ((0.34, 0.33, 0.33), (0.01, 0.02, 0.97), (0.2, 0.78, 0.02))  # of ``LENGTHS``
    LENGTH = 5.0  # of the Matern kernel

    def __init__(self, local: float = 0.0) -> None:
        super().__init__()
        self.local = local

    def fit_each(self, x: Operators, targets: Sequence[np.ndarray]) -> list[SumProcess]:  # type: ignore[override]
        """As of a ``GaussianProcess``; ``x``: the labelled networks ``[B]``."""
        self.x = x.near
        also = self._also(x.near)
        return self._choose(((shares, np.tensordot(shares, x.cross, 1) + also, 0.0) for shares in self.SHARES), targets)

    def _covariances(self, x: Operators) -> np.ndarray:  # type: ignore[override]
        return np.asarray(np.tensordot(self.setting, x.cross, 1) + self._also(x.near))

    def _variances(self, x: Operators) -> np.ndarray:  # type: ignore[override]
        return np.asarray(np.tensordot(self.setting, x.own, 1) + self.local)

    def _also(self, near: np.ndarray) -> np.ndarray:
        return self.local * matern(self._distance(near) / self.LENGTH) if self.local else np.zeros(1)


def count(graphs: Sequence[Graph]) -> tuple[sparse.csr_matrix, np.ndarray]:
    """How often each distinct operator occurs in each graph ``[B, U]``, and which they are: rows of the spec table ``[U]``.

    In the order of their hashes: numbers in the table differ from process to process, and sums must not.
    """
    nodes = np.concatenate([g.spec for g in graphs]) if len(graphs) else np.zeros(0, np.int64)
    specs, column = np.unique(nodes, return_inverse=True)
    order = np.argsort(hashes()[0][specs], kind="stable")
    place = np.zeros(len(specs), np.int64)
    place[order] = np.arange(len(specs))
    own = np.repeat(np.arange(len(graphs)), [len(g.spec) for g in graphs])
    return sparse.csr_matrix((np.ones(len(nodes)), (own, place[column])), shape=(len(graphs), len(specs))), specs[order]


def _places(specs: np.ndarray) -> np.ndarray:
    return np.hstack([node_rows(specs), _WINDOW.get()[specs]]).astype(np.float64)


def _window(spec: NodeSpec) -> np.ndarray:
    """Binary logarithms of 1 + height and width of a window without weights, as that of a pooling."""
    size = () if spec.weight_shape else spec.attr("kernel_shape", ())
    return np.log2(1.0 + np.array((*size, 0, 0)[:2], np.float64)).astype(np.float32)
