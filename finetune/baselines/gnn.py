"""A k-GNN on computation graphs that starts from random weights and sees the target's labels alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin

from cg.errors import CGError
from cg.graph import Graph
from finetune.baselines._training import predict, seeded, train
from finetune.targets import LabelScale, check_labels, normal_scores


class GNNPredictor(RegressorMixin, BaseEstimator):
    """The encoder of ``contrastive`` without pre-training, a two-layer head, squared error on normal scores of the labels.

    Layers are those of k-GNN with k = 1 (Morris et al., arXiv 1810.02244), then the mean over nodes. The same network trained
    on source labels first is GNN-fine-tune of arXiv 2302.10835, Table 1: ``finetune.TransferNet``.

    Args:
        layers, hidden: of the encoder.
        context: give nodes their place in the network, as the shipped encoders do; False is the plain k-GNN.
        epochs, batch, learning_rate: AdamW, the rate falls to 0 along half a cosine; encoder and head at the same rate.
    """

    def __init__(self, layers: int = 4, hidden: int = 64, context: bool = False, epochs: int = 100, batch: int = 16,
                 learning_rate: float = 1e-3, random_state: int = 0) -> None:
        self.layers = layers
        self.hidden = hidden
        self.context = context
        self.epochs = epochs
        self.batch = batch
        self.learning_rate = learning_rate
        self.random_state = random_state

    def fit(self, graphs: Sequence[Graph], y: Any) -> GNNPredictor:
        """Learn from labels ``[B]``."""
        import torch
        from torch import nn

        from contrastive.config import EncoderConfig
        from contrastive.encoder import Encoder
        from contrastive.views import views
        from finetune.transfer_net import _Regressor

        labels = check_labels(graphs, y)
        _check(graphs)
        config = EncoderConfig(name="gnn", hidden=self.hidden, gnn_layers=self.layers, directed=False, context=self.context,
                               pooling="mean", statistics_weight=0.0)
        items = views(graphs, config)
        goal = torch.tensor(normal_scores(labels), dtype=torch.float32)
        with seeded(self.random_state):
            self.net_ = net = _Regressor(Encoder(config))

            def loss(rows: np.ndarray) -> torch.Tensor:
                return nn.functional.mse_loss(net([items[i] for i in rows]), goal[rows])

            self.history_ = train(net, len(items), loss, epochs=self.epochs, batch=self.batch, seed=self.random_state,
                                  learning_rate=self.learning_rate, weight_decay=1e-3, decoupled=True, clip=1.0)
        self.scale_ = LabelScale(labels, normal_scores(labels))
        return self

    def predict(self, graphs: Sequence[Graph]) -> np.ndarray:
        """Scores ``[B]`` in label units."""
        if not hasattr(self, "net_"):
            raise CGError("this predictor has not been fitted; call fit(graphs, y) first")
        from contrastive.views import views

        _check(graphs)
        return self.scale_.to_labels(predict(self.net_, views(graphs, self.net_.encoder.config)))


def _check(graphs: Sequence[Graph]) -> None:
    for i, g in enumerate(graphs):
        if not isinstance(g, Graph):
            raise CGError(f"item {i} is a {type(g).__name__}; GNNPredictor reads computation graphs (cg.Graph)")
