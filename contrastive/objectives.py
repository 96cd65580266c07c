"""What an encoder can be pre-trained for: telling spectral neighbours, statistics, hidden nodes, or which network is better.

Each objective is a module with a head of its own, thrown away afterwards. Those of whole graphs see the embeddings ``[B, m]``;
``Masked`` sees what the encoder says of the nodes that were hidden from it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from cg.node_features import NODE_COLUMNS
from cg.vocabulary import OPS
from contrastive.config import EncoderConfig
from contrastive.corpus import Corpus
from contrastive.encoder import Encoder, projection_head
from contrastive.loss import spectral_weights, supcon_loss

_HIDDEN = 256


class Contrastive(nn.Module):
    """Spectrally weighted contrast of projections. Source: arXiv 2302.10835 section 4.3."""

    def __init__(self, config: EncoderConfig, corpus: Corpus) -> None:
        super().__init__()
        self.config, self.spectra, self.family = config, corpus.spectra, corpus.family
        self.projection = projection_head(config)

    def forward(self, embedding: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        weights = spectral_weights(torch.from_numpy(self.spectra[rows]), torch.from_numpy(self.family[rows]),
                                   self.config.spectral_temperature)
        return supcon_loss(self.projection(embedding), weights, self.config.temperature)


class Statistics(nn.Module):
    """Squared error of the graph's standardised statistics: costs, spectrum, paths, receptive fields, signal propagation."""

    def __init__(self, config: EncoderConfig, corpus: Corpus) -> None:
        super().__init__()
        self.targets = corpus.targets
        self.head = nn.Sequential(nn.Linear(config.embedding, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, self.targets.shape[1]))

    def forward(self, embedding: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        return F.mse_loss(self.head(embedding), torch.from_numpy(self.targets[rows]))


class Ranking(nn.Module):
    """Logistic loss of all pairs of labelled graphs whose labels compare and differ (RankNet: Burges et al., ICML 2005)."""

    def __init__(self, config: EncoderConfig, corpus: Corpus) -> None:
        super().__init__()
        self.label, self.group = corpus.label, corpus.group
        self.head = nn.Sequential(nn.Linear(config.embedding, config.embedding), nn.ReLU(), nn.Linear(config.embedding, 1))

    def forward(self, embedding: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        y, group = self.label[rows], self.group[rows]
        better, worse = np.nonzero((y[:, None] > y[None]) & (group[:, None] == group[None]))  # never true of NaN
        score = self.head(embedding)[:, 0]
        if not len(better):
            return score.sum() * 0.0
        return F.softplus(score[worse] - score[better]).mean()


class Masked(nn.Module):
    """Operator and sizes of nodes from those around them: cross-entropy, and squared error of the node's features."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.op = nn.Linear(encoder.node_width, len(OPS))
        self.features = nn.Linear(encoder.node_width, len(NODE_COLUMNS))

    def forward(self, said: torch.Tensor, op: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        if not len(op):
            return said.sum() * 0.0
        return F.cross_entropy(self.op(said), op) + F.mse_loss(self.features(said), features)
