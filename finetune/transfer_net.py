"""The paper's way to transfer: an encoder with a head, trained on source labels, then fine-tuned on a few target labels.

With a contrastively pre-trained encoder this is CL-fine-tune of arXiv 2302.10835 (Table 1), with a fresh k-GNN GNN-fine-tune.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, RegressorMixin
from torch import nn

from cg.errors import CGError
from cg.graph import Graph
from contrastive.checkpoint import load_encoder
from contrastive.config import EncoderConfig
from contrastive.encoder import Encoder
from contrastive.views import GraphView, views
from finetune.sources import resolve
from finetune.targets import LabelScale, check_labels, normal_scores

Progress = Callable[[int, int], None]


class _Regressor(nn.Module):
    """Encoder and head; graph views to scores ``[B]``."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        m = encoder.config.embedding
        self.encoder = encoder
        self.head = nn.Sequential(nn.Linear(m, m), nn.ReLU(), nn.Linear(m, 1))

    def forward(self, items: Sequence[GraphView]) -> torch.Tensor:
        out: torch.Tensor = self.head(self.encoder.encode_views(items))[:, 0]
        return out


class TransferNet(RegressorMixin, BaseEstimator):
    """Encoder plus a two-layer head.

    Args:
        encoder: shipped name or folder of a pre-trained encoder, or an ``EncoderConfig`` for fresh weights.
        sources: as in ``CGPredictor``; their labels train the network first.
        source_epochs, epochs: passes over the source graphs and over the target's labelled graphs.
        source_learning_rate, learning_rate: AdamW; the encoder moves at a tenth of the head's rate on the target.
        batch_graphs: graphs in a step.
        random_state: seed of weights and batches.
    """

    def __init__(self, encoder: Any = "paper", sources: Any = None, source_epochs: int = 3, epochs: int = 40,
                 source_learning_rate: float = 1e-3, learning_rate: float = 2e-3, batch_graphs: int = 64,
                 random_state: int = 0) -> None:
        self.encoder = encoder
        self.sources = sources
        self.source_epochs = source_epochs
        self.epochs = epochs
        self.source_learning_rate = source_learning_rate
        self.learning_rate = learning_rate
        self.batch_graphs = batch_graphs
        self.random_state = random_state

    def fit_sources(self, target: Sequence[Graph] = (), progress: Progress | None = None) -> TransferNet:
        """The first stage alone; ``fit`` then starts from it, so that many label draws share it."""
        torch.manual_seed(self.random_state)
        if isinstance(self.encoder, EncoderConfig):
            net: Encoder = Encoder(self.encoder)
        else:
            net = self.encoder if isinstance(self.encoder, Encoder) else load_encoder(self.encoder)
        self.source_net_ = _Regressor(copy.deepcopy(net))
        sources = resolve(self.sources, target)
        if sources and self.source_epochs:
            items = [v for s in sources for v in views(s.graphs.graphs, net.config)]
            scores = np.concatenate([s.scores for s in sources])
            self._train(self.source_net_, items, scores, self.source_epochs, self.source_learning_rate,
                        self.source_learning_rate, self.random_state, progress)
        return self

    def fit(self, graphs: Sequence[Graph], y: Any) -> TransferNet:
        """Fine-tune on the target's labels ``[B]``; runs the first stage if that has not been done."""
        labels = check_labels(graphs, y)
        if not hasattr(self, "source_net_"):
            self.fit_sources(graphs)
        self.scale_ = LabelScale(labels, normal_scores(labels))
        self.net_ = copy.deepcopy(self.source_net_)
        items = views(graphs, self.net_.encoder.config)
        self._train(self.net_, items, normal_scores(labels), self.epochs, self.learning_rate / 10, self.learning_rate,
                    self.random_state + 1)
        return self

    def _train(self, net: _Regressor, items: Sequence[GraphView], z: np.ndarray, epochs: int, encoder_rate: float,
               head_rate: float, seed: int, progress: Progress | None = None) -> None:
        optimizer = torch.optim.AdamW([{"params": net.encoder.parameters(), "lr": encoder_rate},
                                       {"params": net.head.parameters(), "lr": head_rate}], weight_decay=1e-3)
        rng = np.random.default_rng(seed)
        batches = -(-len(items) // self.batch_graphs)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [encoder_rate, head_rate], max(epochs * batches, 2),
                                                       pct_start=0.1)
        net.train()
        for epoch in range(epochs):
            order = rng.permutation(len(items))
            for i in range(batches):
                rows = order[i * self.batch_graphs:(i + 1) * self.batch_graphs]
                out = net([items[r] for r in rows])
                loss = nn.functional.mse_loss(out, torch.from_numpy(z[rows]).float())
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(net.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                if progress:
                    progress(epoch * batches + i + 1, epochs * batches)
        net.eval()

    @torch.inference_mode()
    def predict_normal(self, graphs: Sequence[Graph]) -> np.ndarray:
        """Scores ``[B]`` on the scale of normal scores; without ``fit``, those of the source stage (zero-shot)."""
        net: _Regressor | None = getattr(self, "net_", getattr(self, "source_net_", None))
        if net is None:
            raise CGError("this network has not been fitted; call fit(graphs, y) first")
        out: np.ndarray = net(views(graphs, net.encoder.config)).numpy()
        return out

    def predict(self, graphs: Sequence[Graph]) -> np.ndarray:
        """Scores ``[B]`` in label units."""
        return self.scale_.to_labels(self.predict_normal(graphs).astype(np.float64))
