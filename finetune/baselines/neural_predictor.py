"""Neural Predictor: a graph convolutional network that reads a cell both ways. Source: Wen et al., arXiv 1912.00848."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.model_selection import ParameterGrid
from torch import Tensor, nn

from cg.errors import CGError
from finetune.baselines._inputs import Batch, Dense, Network, Nodes, Reader
from finetune.baselines._training import Dropout, predict, seeded, train
from finetune.baselines.pairs import flat
from finetune.targets import check_labels

GRID: Mapping[str, tuple[float, ...]] = MappingProxyType({"learning_rate": (3e-4, 1e-3, 3e-3), "weight_decay": (1e-5, 1e-3)})
"""What ``cross_validated`` chooses from by default."""
WIDTHS = ((43, 48), (86, 72), (129, 96), (172, 144), (344, 210), (860, 320))
"""Number of labels and width of the node states (Table 1)."""


class TwoWayGCN(nn.Module):
    """Layers of ``(ReLU(A V W+) + ReLU(A^T V W-)) / 2``, A with self-loops and rows that sum to one. Source: Eq. 1 and the
    mean that follows it. ``Dense`` -> node states ``[B, n, width]`` (0 on padding); ``Batch`` -> ``[N, width]``.
    """

    def __init__(self, inputs: int, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        sizes = pairwise([inputs] + [width] * layers)
        self.weights = nn.ParameterList(torch.empty(2, a, b) for a, b in sizes)  # W+ and W- of every layer
        for pair in self.weights:
            for weight in pair:
                nn.init.xavier_uniform_(weight, 2 ** 0.5)  # ReLU halves the signal: else many 18-layer fits stay constant
        self.dropout = Dropout(dropout)

    def forward(self, batch: Batch | Dense) -> Tensor:
        if isinstance(batch, Dense):
            b, n, v = *batch.x.shape[:2], batch.x.flatten(0, 1)
            mean = batch.mean.view(b, 2 * n, n)
            for weight in self.weights:
                both = (mean @ v.view(b, n, -1)).view(b, 2, n, -1).transpose(0, 1).reshape(2, b * n, -1)
                v = self._layer(both, weight)
            return v.view(b, n, -1)
        v = batch.x
        counts = [(1 + torch.bincount(t, minlength=len(v)))[:, None] for t in (batch.dst, batch.src)]
        for weight in self.weights:
            forth = v.index_add(0, batch.dst, v[batch.src]) / counts[0]
            back = v.index_add(0, batch.src, v[batch.dst]) / counts[1]
            v = self._layer(torch.stack([forth, back]), weight)
        return v

    def _layer(self, both: Tensor, weight: Tensor) -> Tensor:
        """Averages over sources and over targets ``[2, N, d]`` -> states ``[N, width]``."""
        out: Tensor = self.dropout(torch.relu(both @ weight).sum(0) / 2)
        return out


class _Net(nn.Module):
    def __init__(self, inputs: int, width: int, layers: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.gcn = TwoWayGCN(inputs, width, layers, dropout)
        self.last = nn.Linear(hidden, 1)
        self.head = nn.Sequential(nn.Linear(width, hidden, bias=False), Dropout(dropout), self.last)

    def forward(self, batch: Batch | Dense) -> Tensor:
        """Logits ``[B]``."""
        v = self.gcn(batch)
        pooled = (batch.weight[:, None] @ v)[:, 0] if isinstance(batch, Dense) else batch.mean_nodes(v)
        out: Tensor = self.head(pooled)[:, 0]
        return out


class _Flat(nn.Module):
    """The ablation without convolution: as many hidden layers, and the same head, on the flat encoding of a cell."""

    def __init__(self, inputs: int, width: int, layers: int, hidden: int, dropout: float) -> None:
        super().__init__()
        sizes = pairwise([inputs] + [width] * layers)
        parts = [part for a, b in sizes for part in (nn.Linear(a, b), nn.ReLU(), Dropout(dropout))]
        self.last = nn.Linear(hidden, 1)
        self.body = nn.Sequential(*parts, nn.Linear(width, hidden, bias=False), Dropout(dropout), self.last)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B]``."""
        out: Tensor = self.body(x)[:, 0]
        return out


class NeuralPredictor(RegressorMixin, BaseEstimator):
    """Predicts an accuracy between ``low`` and ``high`` as a scaled sigmoid; with ``two_stage``, a classifier first tells
    networks above ``threshold`` from those below, and the regressor learns from the good ones only.

    Args:
        layers: graph convolutions (3 for cells, 18 for a chain of 22 blocks).
        width: node state; ``None`` chooses by the number of labels (see ``width_for``).
        hidden: width of the linear layer between the mean of the node states and the output.
        two_stage: the cascade of section 3.2. Networks that it refuses rank below all that it lets pass, by its logit.
        threshold: label that parts good from bad, in label units (91 % in the paper); ``None`` is the median.
        low, high: range of labels, in label units; ``None`` takes a tenth of the scale below the least and above the largest.
        convolution: False is the paper's ablation: a perceptron on a cell's one-hot operations and its adjacency, padded to
            the longest labelled cell (longer ones are cut).
        blank_new: read an operation that no labelled cell has as a node without operation; else such a cell is refused.
        steps: mini-batches in all, in whole epochs, in the place of ``epochs``: many labels then take no longer than ``batch``.
    """

    def __init__(self, layers: int = 3, width: int | None = None, hidden: int = 128, dropout: float = 0.1,
                 two_stage: bool = False, threshold: float | None = None, low: float | None = None, high: float | None = None,
                 convolution: bool = True, epochs: int = 300, batch: int = 10, learning_rate: float = 1e-3,
                 weight_decay: float = 1e-5, random_state: int = 0, blank_new: bool = False, steps: int | None = None) -> None:
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
        self.blank_new = blank_new
        self.steps = steps

    def fit(self, networks: Sequence[Network], y: Any) -> NeuralPredictor:
        """Learn from labels ``[B]``. Raises ``CGError`` if the cascade has fewer than two networks on either side."""
        y = check_labels(networks, y)
        self.reader_ = Reader(networks, self.blank_new)
        if not (self.convolution or self.reader_.cells):
            raise CGError("convolution=False reads cells, not graphs: a padded matrix of hundreds of nodes is no small input")
        items = self.reader_.read(networks)
        self.length_ = max(len(i.token) for i in items)
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
        scores = self._regress(items)
        if self.classifier_ is not None:
            logit = self._pass_logits(items)
            scores = np.where(logit > 0, scores, self.low_ + np.minimum(logit, 0))
        return scores

    def regress(self, networks: Sequence[Network]) -> np.ndarray:
        """What the regressor alone says ``[B]``, in label units, also of networks that the classifier refuses."""
        return self._regress(self.reader_.read(networks))

    def _regress(self, items: Sequence[Nodes]) -> np.ndarray:
        logits = predict(lambda part: self._forward(self.regressor_, part), items)
        return self.low_ + (self.high_ - self.low_) / (1 + np.exp(-logits))

    def passes(self, networks: Sequence[Network]) -> np.ndarray:
        """Whether the first stage lets each network pass, bool ``[B]``; all of them without ``two_stage``."""
        items = self.reader_.read(networks)
        return np.ones(len(items), bool) if self.classifier_ is None else self._pass_logits(items) > 0

    def _pass_logits(self, items: Sequence[Nodes]) -> np.ndarray:
        net = self.classifier_
        assert net is not None
        return predict(lambda part: self._forward(net, part), items)

    def _forward(self, net: nn.Module, items: Sequence[Any]) -> Tensor:
        out: Tensor = net(self._inputs(items))
        return out

    def _inputs(self, items: Sequence[Nodes]) -> Tensor | Dense | Batch:
        """What a network reads: flat rows, or cells as padded matrices, or graphs as lists of edges."""
        if not self.convolution:
            return torch.from_numpy(np.stack([flat(i, self.reader_, self.length_) for i in items]))
        return self.reader_.dense(items) if self.reader_.cells else self.reader_.batch(items)

    def _train(self, items: Sequence[Nodes], y: np.ndarray, classify: bool) -> nn.Module:
        with seeded(self.random_state):
            kind = _Net if self.convolution else _Flat
            ready: Any = self._inputs(items) if self.reader_.cells else self.reader_.pack(items)  # once for all epochs
            inputs = ready.shape[1] if isinstance(ready, Tensor) else self.reader_.width
            net = kind(inputs, self.width or width_for(len(y)), self.layers, self.hidden, self.dropout)
            goal = torch.tensor(y if classify else (y - self.low_) / (self.high_ - self.low_), dtype=torch.float32)
            spread = float(goal.var(unbiased=False)) or 1.0  # so that weight decay means the same in every unit of labels
            nn.init.constant_(net.last.bias, float(torch.logit(goal.mean(), 1e-6)))  # start from the mean label

            def loss(rows: np.ndarray) -> Tensor:
                logits = net(ready[rows] if isinstance(ready, Tensor) else ready.take(rows))
                if classify:
                    return nn.functional.binary_cross_entropy_with_logits(logits, goal[rows])
                return nn.functional.mse_loss(torch.sigmoid(logits), goal[rows]) / spread

            epochs = self.epochs if self.steps is None else -(-self.steps // -(-len(items) // self.batch))
            self.history_ = train(net, len(items), loss, epochs=epochs, batch=self.batch, seed=self.random_state,
                                  learning_rate=self.learning_rate, weight_decay=self.weight_decay)
        return net


def width_for(labels: int) -> int:
    """Node state by number of labels: that of the smallest row of Table 1 with as many; 320 beyond the last."""
    return next((width for n, width in WIDTHS if labels <= n), WIDTHS[-1][1])


def cross_validated(networks: Sequence[Network], y: Any, model: NeuralPredictor | None = None,
                    grid: Mapping[str, Sequence[Any]] = GRID, folds: int = 3, seed: int = 0) -> NeuralPredictor:
    """A fitted copy of ``model`` with the settings from ``grid`` that have the least squared error on held-out folds.

    Source: section 4 (hyper-parameters by cross-validation on the labelled networks). ``grid_`` of the result holds a
    ``(settings, mean squared error over the folds)`` for every point, best first; labels of ``fit`` are all that is used.
    Every setting is fitted ``folds`` times. The same can be had from scikit-learn's ``GridSearchCV``.

    Raises ``CGError`` for fewer labels than folds, and whatever ``fit`` raises.
    """
    y = check_labels(networks, y)
    if not 2 <= folds <= len(y):
        raise CGError(f"folds must be from 2 to the number of labels, {len(y)}; got {folds}")
    model = NeuralPredictor(random_state=seed) if model is None else model
    parts = np.array_split(np.random.default_rng(seed).permutation(len(y)), folds)
    found = []
    for settings in ParameterGrid(dict(grid)):
        errors = np.zeros(len(y))
        for part in parts:
            rest = np.setdiff1d(np.arange(len(y)), part)
            trial = clone(model).set_params(**settings).fit([networks[i] for i in rest], y[rest])
            errors[part] = (trial.predict([networks[i] for i in part]) - y[part]) ** 2
        found.append((settings, float(errors.mean())))
    found.sort(key=lambda pair: pair[1])
    best: NeuralPredictor = clone(model).set_params(**found[0][0]).fit(networks, y)
    best.grid_ = found
    return best
