"""Neural Predictor: a graph convolutional network that reads a cell both ways. Source: Wen et al., arXiv 1912.00848."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, RegressorMixin
from torch import Tensor, nn

from cg.errors import CGError
from finetune.baselines._inputs import Batch, Network, Nodes, Reader
from finetune.baselines._training import predict, seeded, train
from finetune.targets import check_labels


class TwoWayGCN(nn.Module):
    """Layers of ``(ReLU(A V W+) + ReLU(A^T V W-)) / 2``, A with self-loops and rows that sum to one. Source: Eq. 1 and the
    mean that follows it. ``Batch`` -> node states ``[N, width]``.
    """

    def __init__(self, inputs: int, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        sizes = [inputs] + [width] * layers
        self.forth = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in pairwise(sizes))
        self.back = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in pairwise(sizes))
        for layer in (*self.forth, *self.back):
            nn.init.xavier_uniform_(layer.weight)
        self.dropout = nn.Dropout(dropout)

    def forward(self, batch: Batch) -> Tensor:
        v = batch.x
        for forth, back in zip(self.forth, self.back, strict=True):
            a, b = _mean(v, batch.dst, batch.src), _mean(v, batch.src, batch.dst)
            v = self.dropout((torch.relu(forth(a)) + torch.relu(back(b))) / 2)
        return v


def _mean(v: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Each node's mean over itself and the nodes that send to it."""
    total = v.index_add(0, target, v[source])
    return total / (1 + torch.bincount(target, minlength=len(v)))[:, None]


class _Net(nn.Module):
    def __init__(self, inputs: int, width: int, layers: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.gcn = TwoWayGCN(inputs, width, layers, dropout)
        self.head = nn.Sequential(nn.Linear(width, hidden, bias=False), nn.Dropout(dropout), nn.Linear(hidden, 1))

    def forward(self, batch: Batch) -> Tensor:
        """Logits ``[B]``."""
        out: Tensor = self.head(batch.mean_nodes(self.gcn(batch)))[:, 0]
        return out


class _Flat(nn.Module):
    """The ablation without convolution: the same head on the mean of the input rows and two hidden layers."""

    def __init__(self, inputs: int, width: int, layers: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, width), nn.ReLU(),
                                  nn.Dropout(dropout), nn.Linear(width, 1))

    def forward(self, batch: Batch) -> Tensor:
        out: Tensor = self.body(batch.mean_nodes(batch.x))[:, 0]
        return out


class NeuralPredictor(RegressorMixin, BaseEstimator):
    """Predicts an accuracy between ``low`` and ``high`` as a scaled sigmoid; with ``two_stage``, a classifier first tells
    networks above ``threshold`` from those below, and the regressor learns from the good ones only.

    Args:
        layers: graph convolutions (3 for cells, 18 for a chain of 22 blocks).
        width: node state; ``None`` chooses by the number of labels (see ``width_for``).
        two_stage: the cascade of section 3.2. Networks that it refuses rank below all that it lets pass, by its logit.
        threshold: label that parts good from bad, in label units (91 % in the paper); ``None`` is the median.
        low, high: range of labels, in label units; ``None`` takes a tenth of the scale below the least and above the largest.
        convolution: False is the paper's ablation, a perceptron without edges.
    """

    def __init__(self, layers: int = 3, width: int | None = None, hidden: int = 128, dropout: float = 0.1,
                 two_stage: bool = False, threshold: float | None = None, low: float | None = None, high: float | None = None,
                 convolution: bool = True, epochs: int = 300, batch: int = 10, learning_rate: float = 2e-3,
                 weight_decay: float = 1e-5, random_state: int = 0) -> None:
        self.layers = layers
        self.width = width
        self.hidden = hidden
        self.dropout = dropout
        self.two_stage = two_stage
        self.threshold = threshold
        self.low = low
        self.high = high
        self.convolution = convolution
        self.epochs = epochs
        self.batch = batch
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.random_state = random_state

    def fit(self, networks: Sequence[Network], y: Any) -> NeuralPredictor:
        """Learn from labels ``[B]``. Raises ``CGError`` if the cascade has fewer than two networks on either side."""
        y = check_labels(networks, y)
        self.reader_ = Reader(networks)
        items = self.reader_.read(networks)
        spread = float(y.max() - y.min()) or 1.0
        self.low_ = float(y.min()) - spread / 10 if self.low is None else self.low
        self.high_ = float(y.max()) + spread / 10 if self.high is None else self.high
        if y.min() < self.low_ or y.max() > self.high_:
            raise CGError(f"labels from {y.min():g} to {y.max():g} are not all between low = {self.low_:g} and "
                          f"high = {self.high_:g}")
        self.classifier_: nn.Module | None = None
        if self.two_stage:
            limit = float(np.median(y)) if self.threshold is None else self.threshold
            good = y > limit
            if min(good.sum(), (~good).sum()) < 2:
                raise CGError(f"{int(good.sum())} of {len(y)} labels are above {limit:g}; the cascade needs two on either side")
            self.classifier_ = self._train(items, good.astype(np.float64), classify=True)
            items, y = [i for i, g in zip(items, good, strict=True) if g], y[good]
        self.regressor_ = self._train(items, y, classify=False)
        return self

    def predict(self, networks: Sequence[Network]) -> np.ndarray:
        """Scores ``[B]`` in label units; what the classifier refuses lies below ``low``."""
        items = self.reader_.read(networks)
        scores = self._scale(predict(lambda part: self._forward(self.regressor_, part), items))
        if self.classifier_ is not None:
            logit = self._pass_logits(items)
            scores = np.where(logit > 0, scores, self.low_ + np.minimum(logit, 0))
        return scores

    def passes(self, networks: Sequence[Network]) -> np.ndarray:
        """Whether the first stage lets each network pass, bool ``[B]``; all of them without ``two_stage``."""
        items = self.reader_.read(networks)
        return np.ones(len(items), bool) if self.classifier_ is None else self._pass_logits(items) > 0

    def _pass_logits(self, items: Sequence[Nodes]) -> np.ndarray:
        net = self.classifier_
        assert net is not None
        return predict(lambda part: self._forward(net, part), items)

    def _forward(self, net: nn.Module, items: Sequence[Any]) -> Tensor:
        out: Tensor = net(self.reader_.batch(items))
        return out

    def _scale(self, logits: np.ndarray) -> np.ndarray:
        return self.low_ + (self.high_ - self.low_) / (1 + np.exp(-logits))

    def _train(self, items: Sequence[Nodes], y: np.ndarray, classify: bool) -> nn.Module:
        with seeded(self.random_state):
            kind = _Net if self.convolution else _Flat
            net = kind(self.reader_.width, self.width or width_for(len(y)), self.layers, self.hidden, self.dropout)
            goal = torch.tensor(y if classify else (y - self.low_) / (self.high_ - self.low_), dtype=torch.float32)

            def loss(rows: np.ndarray) -> Tensor:
                logits = self._forward(net, [items[i] for i in rows])
                if classify:
                    return nn.functional.binary_cross_entropy_with_logits(logits, goal[rows])
                return nn.functional.mse_loss(torch.sigmoid(logits), goal[rows])

            self.history_ = train(net, len(items), loss, epochs=self.epochs, batch=self.batch, seed=self.random_state,
                                  learning_rate=self.learning_rate, weight_decay=self.weight_decay)
        return net


def width_for(labels: int) -> int:
    """Node state by number of labels; more labels feed a wider network (the paper's Table 1 does so; 144 at 172 labels)."""
    return next((width for n, width in ((50, 48), (100, 96), (200, 144), (400, 192)) if labels <= n), 256)
