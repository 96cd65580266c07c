"""What the rival networks read: graphs or cells as tokens, node features and edges, many of them joined into one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cg.cells import Cell
from cg.errors import CGError
from cg.graph import Graph
from cg.node_features import node_matrix, op_index
from cg.vocabulary import OPS

Network = Graph | Cell


class Nodes(NamedTuple):
    """One network: ``token [n]`` (operation number), ``extra [n, f]`` (f = 0 for cells), ``edges [2, e]`` source, target."""

    token: np.ndarray
    extra: np.ndarray
    edges: np.ndarray


class Batch(NamedTuple):
    """Networks side by side as one graph.

    Attributes:
        x: one-hot operation beside the node features, float32 ``[N, width]``.
        token: operation numbers ``[N]``.
        src, dst: edges ``[E]``.
        owner: which network a node belongs to ``[N]``.
        first: number of each network's first node ``[B]``.
        size: how many networks, B.
    """

    x: Tensor
    token: Tensor
    src: Tensor
    dst: Tensor
    owner: Tensor
    first: Tensor
    size: int

    def mean_nodes(self, values: Tensor) -> Tensor:
        """Mean over the nodes of each network: ``[N, d]`` -> ``[B, d]``."""
        total = values.new_zeros(self.size, values.shape[1]).index_add_(0, self.owner, values)
        return total / torch.bincount(self.owner, minlength=self.size)[:, None]


class Dense(NamedTuple):
    """Small networks padded to one length, for convolutions as matrix products.

    Attributes:
        x: one-hot operation beside the node features, float32 ``[B, n, width]``.
        mean: ``[B, 2, n, n]``; row i of the first matrix averages node i and its sources, of the second node i and its targets.
        weight: ``[B, n]``, 1 / size of the network on its nodes, 0 on padding; rows and columns of ``mean`` are 0 there, too.
    """

    x: Tensor
    mean: Tensor
    weight: Tensor

    def take(self, rows: np.ndarray) -> Dense:
        """The networks ``rows``."""
        index = torch.from_numpy(rows)
        return Dense(self.x[index], self.mean[index], self.weight[index])


class Pack:
    """Networks joined once, of which a mini-batch takes some: what ``Reader.batch`` makes of the same list, edge for edge, in
    another order of edges that leaves the order of the edges into each node as it is.
    """

    def __init__(self, whole: Batch) -> None:
        self._x, self._token = whole.x.numpy(), whole.token.numpy()
        owner = whole.owner.numpy()
        self._sizes, self._first = np.bincount(owner, minlength=whole.size), whole.first.numpy()
        edges = np.stack([whole.src.numpy(), whole.dst.numpy()])
        whose = owner[edges[0]]
        order = np.argsort(whose, kind="stable")
        self._edges = (edges - self._first[whose])[:, order]  # numbers inside each network
        self._counts = np.bincount(whose, minlength=whole.size)
        self._at = np.cumsum(self._counts) - self._counts

    def take(self, rows: np.ndarray) -> Batch:
        """The networks ``rows``, in this order."""
        sizes, counts, t = self._sizes[rows], self._counts[rows], torch.from_numpy
        first = np.cumsum(sizes) - sizes
        owner = np.repeat(np.arange(len(rows)), sizes)
        node = np.arange(len(owner)) + (self._first[rows] - first)[owner]
        edge = np.arange(counts.sum()) + np.repeat(self._at[rows] - (np.cumsum(counts) - counts), counts)
        src, dst = self._edges[:, edge] + np.repeat(first, counts)
        return Batch(t(self._x[node]), t(self._token[node]), t(src), t(dst), t(owner), t(first), len(rows))


class Reader:
    """Turns networks into ``Nodes``. What an operation's number is, and the scale of the features, is fixed by the networks
    that it is made from; later ones must be of the same kind.

    Args:
        blank: read a new operation of a later cell as a node without operation, an all-zero row of ``x``; for networks that
            read ``x`` alone. Else a new operation is refused.
    """

    def __init__(self, networks: Sequence[Network], blank: bool = False) -> None:
        self.blank = blank
        kinds = {type(n) for n in networks}
        if kinds == {Cell}:
            self.cells = True
            names = sorted({op for n in networks if isinstance(n, Cell) for op in n.ops})
        elif kinds == {Graph}:
            self.cells = False
            names = list(OPS)
        else:
            raise CGError(f"networks must be all cg.Graph or all cg.Cell, got {sorted(k.__name__ for k in kinds) or 'none'}")
        self.number = {name: i for i, name in enumerate(names)}
        rows = np.zeros((1, 0)) if self.cells else np.concatenate([node_matrix(n) for n in networks if isinstance(n, Graph)])
        self.mean, self.std = rows.mean(0), rows.std(0) + 1e-6

    @property
    def tokens(self) -> int:
        """How many operations there are."""
        return len(self.number)

    @property
    def width(self) -> int:
        """Columns of ``Batch.x``."""
        return self.tokens + len(self.mean)

    def read(self, networks: Sequence[Network]) -> list[Nodes]:
        """One ``Nodes`` for each network. ``CGError`` names the first one of another kind, or with a refused operation."""
        return [self._one(n) for n in networks]

    def _one(self, n: Network) -> Nodes:
        if isinstance(n, Graph) and not self.cells:
            extra = ((node_matrix(n) - self.mean) / self.std).astype(np.float32)
            return Nodes(op_index(n), extra, np.stack([n.src, n.dst]).astype(np.int64))
        if not (isinstance(n, Cell) and self.cells):
            raise CGError(f"{n.name!r} is a {type(n).__name__}, and what was learned from is not; use one kind for both")
        new = next((op for op in n.ops if op not in self.number), None)
        if new is not None and not self.blank:
            raise CGError(f"cell {n.name!r} has the operation {new!r}, which no labelled cell has")
        token = np.array([self.number.get(op, self.tokens) for op in n.ops], np.int64)
        return Nodes(token, np.zeros((len(token), 0), np.float32), np.array(n.edges, np.int64).reshape(-1, 2).T)

    def batch(self, items: Sequence[Nodes], global_node: bool = False) -> Batch:
        """``items`` joined. ``global_node`` puts one more node in front of each network, to which all others send, with an
        all-zero row of ``x`` (Dudziak et al., arXiv 2007.08668, section 3.2)."""
        lead = int(global_node)
        sizes = np.array([len(i.token) + lead for i in items])
        first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        owner = np.repeat(np.arange(len(items)), sizes)
        x = np.zeros((sizes.sum(), self.width), np.float32)
        token = np.concatenate([np.concatenate([np.full(lead, -1), i.token]) for i in items])
        real = token >= 0
        known = np.flatnonzero(real & (token < self.tokens))
        x[known, token[known]] = 1
        if self.width > self.tokens:
            x[real, self.tokens:] = np.concatenate([i.extra for i in items])
        src = [i.edges[0] + f + lead for i, f in zip(items, first, strict=True)]
        dst = [i.edges[1] + f + lead for i, f in zip(items, first, strict=True)]
        if global_node:
            src.append(np.flatnonzero(real))
            dst.append(first[owner[real]])
        t = torch.from_numpy
        return Batch(t(x), t(token.astype(np.int64)), t(np.concatenate(src).astype(np.int64)),
                     t(np.concatenate(dst).astype(np.int64)), t(owner.astype(np.int64)), t(first.astype(np.int64)), len(items))

    def pack(self, items: Sequence[Nodes], global_node: bool = False) -> Pack:
        """``items``, to take batches of."""
        return Pack(self.batch(items, global_node))

    def dense(self, items: Sequence[Nodes]) -> Dense:
        """``items`` side by side, padded to the longest; memory grows with its square."""
        sizes = np.array([len(i.token) for i in items])
        n = int(sizes.max())
        x = np.zeros((len(items), n, self.width), np.float32)
        owner = np.repeat(np.arange(len(items)), sizes)
        node = np.concatenate([np.arange(size) for size in sizes])
        token = np.concatenate([i.token for i in items])
        known = np.flatnonzero(token < self.tokens)
        x[owner[known], node[known], token[known]] = 1
        x[owner, node, self.tokens:] = np.concatenate([i.extra for i in items])
        source, target = np.concatenate([i.edges for i in items], 1)
        whose = np.repeat(np.arange(len(items)), [i.edges.shape[1] for i in items])
        cells = [((2 * b + way) * n + to) * n + at for b, way, to, at in (
            (whose, 0, target, source), (whose, 1, source, target), (owner, 0, node, node), (owner, 1, node, node))]
        mean = np.bincount(np.concatenate(cells), minlength=2 * len(items) * n * n).reshape(len(items), 2, n, n)
        mean = mean / np.maximum(mean.sum(-1, keepdims=True), 1)
        weight = (np.arange(n) < sizes[:, None]) / sizes[:, None]
        return Dense(torch.from_numpy(x), *(torch.from_numpy(a.astype(np.float32)) for a in (mean, weight)))
