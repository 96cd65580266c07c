"""Rankers compared in *A Surgery of the Neural Architecture Evaluators*: GATES, LSTM and MLP with a pairwise hinge loss or a
regression. Source: Ning et al., arXiv 2008.03064, section 5; GATES itself: Ning et al., arXiv 2004.01899, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, RegressorMixin
from torch import Tensor, nn

from cg.errors import CGError
from finetune.baselines._inputs import Batch, Network, Nodes, Pack, Reader
from finetune.baselines._training import predict, seeded, train
from finetune.targets import check_labels, normal_scores

LOSSES = ("hinge", "regression")


class _Ranker(RegressorMixin, BaseEstimator):
    """What the three share: reading networks, the loss, training. Scores are normal scores of ranks, higher is better.

    Args:
        loss: ``"hinge"``: for every pair in a mini-batch, ``max(0, margin - (better - worse))``; ``"regression"``: squared
            error on normal scores.
        margin: of the hinge loss (0.1 in the paper).
    """

    label_units = False

    def __init__(self, loss: str = "hinge", margin: float = 0.1, epochs: int = 200, batch: int = 64,
                 learning_rate: float = 1e-3, random_state: int = 0) -> None:
        self.loss = loss
        self.margin = margin
        self.epochs = epochs
        self.batch = batch
        self.learning_rate = learning_rate
        self.random_state = random_state

    def fit(self, networks: Sequence[Network], y: Any) -> _Ranker:
        """Learn from labels ``[B]``."""
        y = check_labels(networks, y)
        if self.loss not in LOSSES:
            raise CGError(f"loss must be one of {', '.join(LOSSES)}, got {self.loss!r}")
        self.reader_ = Reader(networks)
        items = self.reader_.read(networks)
        self.length_ = max(len(i.token) for i in items)
        ready = self._prepare(items)
        goal = torch.tensor(normal_scores(y), dtype=torch.float32)
        with seeded(self.random_state):
            self.net_ = self._make()

            def loss(rows: np.ndarray) -> Tensor:
                scores: Tensor = self.net_(self._take(ready, rows))
                if self.loss == "regression":
                    return nn.functional.mse_loss(scores, goal[rows])
                return pair_hinge(scores, goal[rows], self.margin)

            self.history_ = train(self.net_, len(items), loss, epochs=self.epochs, batch=self.batch, seed=self.random_state,
                                  learning_rate=self.learning_rate, clip=5.0)
        return self

    def predict(self, networks: Sequence[Network]) -> np.ndarray:
        """Scores ``[B]``."""
        return predict(self._forward, self.reader_.read(networks))

    def _forward(self, items: Sequence[Any]) -> Tensor:
        out: Tensor = self.net_(self._take(self._prepare(items), np.arange(len(items))))
        return out

    def _make(self) -> nn.Module:
        raise NotImplementedError

    def _prepare(self, items: Sequence[Nodes]) -> Any:
        """What is the same in every epoch."""
        return items

    def _take(self, ready: Any, rows: np.ndarray) -> Any:
        """Input of the network for some of the networks that ``ready`` was made of."""
        raise NotImplementedError


def pair_hinge(scores: Tensor, goal: Tensor, margin: float) -> Tensor:
    """Mean over all pairs with different goals of ``max(0, margin - (score of the better - score of the worse))``."""
    better, worse = torch.nonzero(goal[:, None] > goal[None, :], as_tuple=True)
    if not len(better):
        return scores.sum() * 0
    return torch.relu(margin - (scores[better] - scores[worse])).mean()


class MLPPredictor(_Ranker):
    """A perceptron (512, 2048, 2048, 512) on the flat encoding: operations as one-hot rows beside the upper triangle of the
    adjacency matrix, padded to the largest labelled network; longer networks are cut."""

    def _make(self) -> nn.Module:
        n = self.length_
        sizes = [n * self.reader_.width + n * (n - 1) // 2, 512, 2048, 2048, 512]
        layers: list[nn.Module] = []
        for a, b in pairwise(sizes):
            layers += [nn.Linear(a, b), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(sizes[-1], 1), nn.Flatten(0))

    def _prepare(self, items: Sequence[Nodes]) -> Tensor:
        return torch.from_numpy(np.stack([flat(i, self.reader_, self.length_) for i in items]))

    def _take(self, ready: Tensor, rows: np.ndarray) -> Tensor:
        return ready[rows]


def flat(item: Nodes, reader: Reader, length: int) -> np.ndarray:
    """Operations ``[length * width]`` and upper triangle of the adjacency matrix ``[length (length - 1) / 2]``, float32."""
    n = min(len(item.token), length)
    x = np.zeros((length, reader.width), np.float32)
    known = np.flatnonzero(item.token[:n] < reader.tokens)
    x[known, item.token[known]] = 1
    x[:n, reader.tokens:] = item.extra[:n]
    adjacency = np.zeros((length, length), np.float32)
    inside = (item.edges < length).all(0)
    adjacency[item.edges[0, inside], item.edges[1, inside]] = 1
    return np.concatenate([x.ravel(), adjacency[np.triu_indices(length, 1)]])


class _LastState(nn.Module):
    """Embedding, LSTM, score of the last state."""

    def __init__(self, tokens: int, extra: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens + 1, width, padding_idx=tokens)
        self.lstm = nn.LSTM(width + extra, width, batch_first=True)
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1), nn.Flatten(0))

    def forward(self, inputs: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        token, extra, last = inputs
        states, _ = self.lstm(torch.cat([self.embedding(token), extra], -1))
        out: Tensor = self.head(states[torch.arange(len(last)), last])
        return out


class LSTMPredictor(_Ranker):
    """An LSTM (100 wide) that reads a cell as a sentence: for every node its sources, by position, then its operation."""

    def _make(self) -> nn.Module:
        # words: operations, then "from node i"
        return _LastState(self.reader_.tokens + self.length_, len(self.reader_.mean), 100)

    def _prepare(self, items: Sequence[Nodes]) -> tuple[Tensor, Tensor, Tensor]:
        words, values = zip(*(self._sentence(i) for i in items), strict=True)
        n = max(map(len, words))
        pad = self.reader_.tokens + self.length_
        token = np.full((len(items), n), pad, np.int64)
        extra = np.zeros((len(items), n, len(self.reader_.mean)), np.float32)
        for row, (w, v) in enumerate(zip(words, values, strict=True)):
            token[row, :len(w)], extra[row, :len(w)] = w, v
        return torch.from_numpy(token), torch.from_numpy(extra), torch.tensor([len(w) - 1 for w in words])

    def _take(self, ready: tuple[Tensor, Tensor, Tensor], rows: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        last = ready[2][rows]
        n = int(last.max()) + 1  # no longer than the longest of these
        return ready[0][rows, :n], ready[1][rows, :n], last

    def _sentence(self, item: Nodes) -> tuple[list[int], np.ndarray]:
        order = np.argsort(item.edges[1], kind="stable")
        src, ends = item.edges[0, order], np.searchsorted(item.edges[1, order], np.arange(len(item.token) + 1))
        words: list[int] = []
        rows: list[np.ndarray] = []
        nothing = np.zeros(len(self.reader_.mean), np.float32)
        for node, op in enumerate(item.token.tolist()):
            sources = src[ends[node]:ends[node + 1]]
            words += [self.reader_.tokens + min(int(s), self.length_ - 1) for s in sources] + [op]
            rows += [nothing] * len(sources) + [item.extra[node]]
        return words, np.stack(rows)


class _GatesNet(nn.Module):
    """Information flows from the inputs along the edges; every operation is a gate on what passes it.

    ``state = sigmoid(gate(op)) * message(sum of the states of the sources)``, ``layers`` sweeps of it, with the operation's
    embedding refined by the state of each sweep.
    """

    def __init__(self, tokens: int, extra: int, width: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        self.features = nn.Linear(extra, width) if extra else None
        self.start = nn.Parameter(torch.randn(width) / width ** 0.5)
        self.message = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(layers))
        self.gate = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.norm = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.head = nn.Sequential(nn.Linear(2 * width, 200), nn.ReLU(), nn.Linear(200, 1), nn.Flatten(0))

    def forward(self, b: Batch) -> Tensor:
        op = self.embedding(b.token)
        if self.features is not None:
            op = op + self.features(b.x[:, -self.features.in_features:])
        fed = torch.bincount(b.dst, minlength=len(op))[:, None]
        sources = (fed == 0).to(op)
        state = self.start * sources
        for message, gate, norm in zip(self.message, self.gate, self.norm, strict=True):
            arriving = state.index_add(0, b.dst, state[b.src]) / (1 + fed)
            state = norm(torch.sigmoid(gate(op)) * message(arriving) + state + self.start * sources)
        sinks = torch.bincount(b.src, minlength=len(op)) == 0
        last = state.new_zeros(b.size, state.shape[1]).index_add_(0, b.owner[sinks], state[sinks])
        out: Tensor = self.head(torch.cat([last, b.mean_nodes(state)], 1))
        return out


class GATES(_Ranker):
    """Graph-based neural architecture encoding scheme: operations gate the information that flows along the edges."""

    def __init__(self, loss: str = "hinge", margin: float = 0.1, layers: int = 5, width: int = 96, epochs: int = 200,
                 batch: int = 64, learning_rate: float = 1e-3, random_state: int = 0) -> None:
        super().__init__(loss, margin, epochs, batch, learning_rate, random_state)
        self.layers = layers
        self.width = width

    def _make(self) -> nn.Module:
        return _GatesNet(self.reader_.tokens, len(self.reader_.mean), self.width, self.layers)

    def _prepare(self, items: Sequence[Nodes]) -> Pack:
        return self.reader_.pack(items)

    def _take(self, ready: Pack, rows: np.ndarray) -> Batch:
        return ready.take(rows)
