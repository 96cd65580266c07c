"""BRP-NAS: a graph convolutional network with a global node for latency, and the binary relation of two networks that is
learned on top of it. Source: Dudziak et al., arXiv 2007.08668, sections 3 and 4.

Where the paper leaves a number open it is that of the authors' published configurations (repository SamsungLabs/eagle,
``configs/predictors``): ``lat_gcn_nasbench201_desktop.yaml`` for latency, ``acc_gcn_nasbench201_bin.yaml`` for the relation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cmp_to_key
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, RegressorMixin
from torch import Tensor, nn

from cg.cells import Cell, pruned
from cg.errors import CGError
from finetune.baselines._inputs import Batch, Network, Nodes, Reader
from finetune.baselines._training import Dropout, predict, seeded, train
from finetune.targets import check_labels

ORDERS = ("wins", "sort")


class GlobalGCN(nn.Module):
    """Layers of ``dropout(ReLU(LayerNorm(A V W + b)))``; a network is the last state of its global node.

    A has self-loops, is not normalised, and has a 1 at (i, j) for an edge i -> j: a node sums what it feeds, the global node
    sums all nodes. ``Batch`` with global nodes -> ``[B, width]``.
    """

    def __init__(self, inputs: int, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.width, self.layers = width, layers
        self.linear = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in pairwise([inputs] + [width] * layers))
        self.bias = nn.ParameterList(torch.zeros(width) for _ in range(layers))
        self.norm = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        for values in (*self.linear.parameters(), *self.bias):
            nn.init.uniform_(values, -width ** -0.5, width ** -0.5)
        self.dropout = Dropout(dropout)

    def forward(self, batch: Batch) -> Tensor:
        to_global = batch.token[batch.dst] < 0
        source = torch.where(to_global, batch.src, batch.dst)
        target = torch.where(to_global, batch.dst, batch.src)
        v = batch.x
        for i, (linear, bias, norm) in enumerate(zip(self.linear, self.bias, self.norm, strict=True)):
            if i < self.layers - 1:
                v = v.index_add(0, target, v.index_select(0, source))
            else:  # of the last layer only the global nodes are read: they sum all nodes of their network
                v = v.new_zeros(batch.size, v.shape[1]).index_add(0, batch.owner, v)
            v = self.dropout(torch.relu(norm(linear(v) + bias)))
        return v


class _BRP(BaseEstimator):
    """What both predictors share: reading, the network, a start from another predictor.

    Args:
        layers, width, dropout: of the graph convolutions.
        batch: networks in a mini-batch.
        prune: read cells as ``pruned`` gives them, as the authors do; not where operations without effect ran and took time
            when the labels were measured. Graphs are read as they are.
        blank_new: read an operation that no labelled cell has as a node without operation; else such a cell is refused.
        pretrained: a fitted predictor of this file (or a ``sklearn.frozen.FrozenEstimator`` of one, which
            ``sklearn.base.clone`` leaves fitted). Its convolutions, of ``layers`` and ``width`` of its own, are the start,
            and its operations and feature scale are used on.
        warm_up: epochs in which the last layer learns alone, where there is ``pretrained``.
    """

    net_: _Net
    reader_: Reader

    def __init__(self, layers: int = 4, width: int = 600, dropout: float = 0.0, epochs: int = 250, batch: int = 16,
                 learning_rate: float = 4e-4, weight_decay: float = 5e-4, prune: bool = True, pretrained: Any = None,
                 warm_up: int = 50, random_state: int = 0, blank_new: bool = False) -> None:
        self.layers = layers
        self.width = width
        self.dropout = dropout
        self.epochs = epochs
        self.batch = batch
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.prune = prune
        self.pretrained = pretrained
        self.warm_up = warm_up
        self.random_state = random_state
        self.blank_new = blank_new

    def _start(self, networks: Sequence[Network], outputs: int) -> list[Nodes]:
        """Set ``reader_`` and ``net_``; what the networks are read as. To be called inside ``seeded``."""
        given = getattr(self.pretrained, "estimator", self.pretrained)
        if given is not None and not (isinstance(given, _BRP) and hasattr(given, "net_")):
            raise CGError("pretrained must be a fitted BRPLatencyGCN or BRPBinaryRelation; sklearn.base.clone forgets what was "
                          "learned unless it is wrapped in sklearn.frozen.FrozenEstimator")
        seen = self._seen(networks)
        self.reader_ = Reader(seen, self.blank_new) if given is None else given.reader_
        if given is None:
            gcn = GlobalGCN(self.reader_.width, self.width, self.layers, self.dropout)
        else:
            old = given.net_.gcn
            gcn = GlobalGCN(self.reader_.width, old.width, old.layers, self.dropout)
            gcn.load_state_dict(old.state_dict())
        self.net_ = _Net(gcn, outputs)
        return self.reader_.read(seen)

    def _learn(self, n: int, loss: Callable[[np.ndarray], Tensor]) -> None:
        about: dict[str, Any] = {"batch": self.batch, "learning_rate": self.learning_rate, "decoupled": True,
                                 "seed": self.random_state}
        self.net_.train()
        if self.pretrained is not None and self.warm_up:
            self.net_.gcn.requires_grad_(False)
            train(self.net_.head, n, loss, epochs=self.warm_up, **about)
            self.net_.gcn.requires_grad_(True)
        self.history_ = train(self.net_, n, loss, epochs=self.epochs, weight_decay=self.weight_decay, **about)

    def _seen(self, networks: Sequence[Network]) -> list[Network]:
        return [pruned(n) if self.prune and isinstance(n, Cell) else n for n in networks]

    def _outputs(self, networks: Sequence[Network]) -> np.ndarray:
        return predict(self._forward, self.reader_.read(self._seen(networks)))

    def _forward(self, items: Sequence[Any]) -> Tensor:
        out: Tensor = self.net_(self.reader_.batch(items, global_node=True))
        return out


class _Net(nn.Module):
    def __init__(self, gcn: GlobalGCN, outputs: int) -> None:
        super().__init__()
        self.gcn = gcn
        self.head = nn.Linear(gcn.width, outputs)

    def forward(self, batch: Batch) -> Tensor:
        """``[B, outputs]``."""
        out: Tensor = self.head(self.gcn(batch))
        return out


class BRPLatencyGCN(RegressorMixin, _BRP):
    """Predicts a latency (or any other number, such as MACs or an accuracy) in the unit of its labels.

    4 convolutions of 600, a global node, one linear layer; AdamW, learning rate 4e-4, weight decay 5e-4, dropout 0.002, 250
    epochs, absolute error on labels that are scaled to mean 0 and deviation 1. Different from the authors: mini-batches of
    16, not single networks, and a learning rate that falls along a cosine, not on a plateau of 100 more labelled networks.

    Transfer (Table 2): ``BRPLatencyGCN(pretrained=BRPLatencyGCN().fit(cells, latency)).fit(few_cells, accuracy)``. Other
    arguments: see ``_BRP``.
    """

    def __init__(self, layers: int = 4, width: int = 600, dropout: float = 0.002, epochs: int = 250, batch: int = 16,
                 learning_rate: float = 4e-4, weight_decay: float = 5e-4, prune: bool = True, pretrained: Any = None,
                 warm_up: int = 50, random_state: int = 0, blank_new: bool = False) -> None:
        super().__init__(layers, width, dropout, epochs, batch, learning_rate, weight_decay, prune, pretrained, warm_up,
                         random_state, blank_new)

    def fit(self, networks: Sequence[Network], y: Any) -> BRPLatencyGCN:
        """Learn from labels ``[B]``."""
        y = check_labels(networks, y)
        self.mean_, self.scale_ = float(y.mean()), float(y.std()) or 1.0
        goal = torch.tensor((y - self.mean_) / self.scale_, dtype=torch.float32)
        with seeded(self.random_state):
            items = self._start(networks, 1)
            pack = self.reader_.pack(items, global_node=True)
            self._learn(len(items), lambda rows: nn.functional.l1_loss(self.net_(pack.take(rows))[:, 0], goal[rows]))
        return self

    def predict(self, networks: Sequence[Network]) -> np.ndarray:
        """Predictions ``[B]`` in label units."""
        return self.mean_ + self.scale_ * self._outputs(networks).reshape(-1)


class BRPBinaryRelation(_BRP):
    """Learns which of two networks has the larger label: the states of both global nodes, side by side, into one linear layer
    and a sigmoid. A difference of two outputs is one output, so this is the authors' softmax over two.

    The target for a pair is ``sigmoid(a - b)`` of labels scaled to [0, 1], the softmax of the two; ``soft=False`` takes 1, 1/2
    or 0. AdamW, learning rate 3.5e-4 falling along a cosine, weight decay 5e-4, dropout 0.2, 250 epochs. Different from the
    authors: a mini-batch is 16 networks and all 240 ordered pairs of them, which over the epochs meets all ordered pairs, in
    place of 64 pairs drawn from all; it embeds a network once for 15 pairs. Other arguments: see ``_BRP``.

    Args:
        order: what ``predict`` returns. ``"wins"``: probability to beat a labelled network, mean over them and over both
            ways of asking, so that the score of a network depends on no other candidate. ``"sort"``: place in [0, 1] after a
            comparison sort, as the authors do; where the relation is not transitive it depends on the given order.
    """

    label_units = False

    def __init__(self, layers: int = 4, width: int = 600, dropout: float = 0.2, epochs: int = 250, batch: int = 16,
                 learning_rate: float = 3.5e-4, weight_decay: float = 5e-4, soft: bool = True, order: str = "wins",
                 prune: bool = True, pretrained: Any = None, warm_up: int = 50, random_state: int = 0,
                 blank_new: bool = False) -> None:
        super().__init__(layers, width, dropout, epochs, batch, learning_rate, weight_decay, prune, pretrained, warm_up,
                         random_state, blank_new)
        self.soft = soft
        self.order = order

    def fit(self, networks: Sequence[Network], y: Any) -> BRPBinaryRelation:
        """Learn from labels ``[B]``. Raises ``CGError`` for an unknown ``order`` and for a batch without pairs."""
        y = check_labels(networks, y)
        if self.order not in ORDERS:
            raise CGError(f"order must be one of {', '.join(ORDERS)}, got {self.order!r}")
        if self.batch < 4:
            raise CGError(f"a batch of {self.batch} networks may leave one without a pair; use 4 or more")
        goal = torch.tensor((y - y.min()) / (float(y.max() - y.min()) or 1.0), dtype=torch.float32)
        with seeded(self.random_state):
            items = self._start(networks, 2)
            pack = self.reader_.pack(items, global_node=True)

            def loss(rows: np.ndarray) -> Tensor:
                difference = goal[rows][:, None] - goal[rows][None, :]
                wanted = torch.sigmoid(difference) if self.soft else (difference.sign() + 1) / 2
                halves = self.net_(pack.take(rows))
                pairs = ~torch.eye(len(rows), dtype=torch.bool)
                return nn.functional.binary_cross_entropy_with_logits(_logits(halves, halves)[pairs], wanted[pairs])

            self._learn(len(items), loss)
        self.labelled_ = predict(self._forward, items)
        return self

    def predict(self, networks: Sequence[Network]) -> np.ndarray:
        """Scores ``[B]`` in [0, 1], higher is better; see ``order``."""
        halves = self._outputs(networks)
        if self.order == "wins":
            return np.asarray((_beats(halves, self.labelled_) + 1 - _beats(self.labelled_, halves).T).mean(1) / 2)

        def compare(a: int, b: int) -> int:
            return int(np.sign(halves[a, 0] + halves[b, 1]))

        ranking = sorted(range(len(halves)), key=cmp_to_key(compare))
        places = np.empty(len(halves))
        places[ranking] = np.arange(len(halves)) / max(1, len(halves) - 1)
        return places

    def prefers(self, a: Network, b: Network) -> float:
        """Probability that ``a`` has the larger label of the two."""
        halves = self._outputs([a, b])
        return float(_beats(halves[:1], halves[1:])[0, 0])

    def antisymmetry(self, networks: Sequence[Network]) -> float:
        """Mean of ``|p(a, b) + p(b, a) - 1|`` over pairs of different networks: 0 if the relation never contradicts itself, at
        most 1. Raises ``CGError`` for fewer than two networks."""
        if len(networks) < 2:
            raise CGError(f"a pair needs two networks, got {len(networks)}")
        halves = self._outputs(networks)
        p = _beats(halves, halves)
        return float(np.abs(p + p.T - 1)[np.triu_indices(len(p), 1)].mean())


def _logits(first: Any, second: Any) -> Any:
    """Halves ``[A, 2]`` and ``[B, 2]`` (what a network adds as the first and as the second of a pair) -> logits ``[A, B]``."""
    return first[:, None, 0] + second[None, :, 1]


def _beats(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-_logits(first, second))))
