"""``EncoderConfig``: everything that defines an encoder and its pre-training, in one frozen value that is saved beside it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from cg.errors import CGError


@dataclass(frozen=True)
class EncoderConfig:
    """Architecture and training settings.

    Attributes:
        name: label of the configuration.
        hidden: width D of both branches.
        transformer_layers, heads: graph transformer; 0 layers leave the branch out.
        gnn_layers: k-GNN layers (PyG ``GraphConv``); 0 leaves the branch out.
        directed: separate weights along and against the edges; otherwise edges lose their direction.
        positions: Laplacian eigenvectors given to the transformer branch.
        context: give nodes their place in the network (depth, receptive field, signal scale; ``cg.global_statistics``).
        pooling: "mean", or "mean+max".
        embedding: size m of the graph embedding.
        projection, projection_layers: head that only the contrastive loss sees.
        temperature: tau of the contrastive loss.
        spectral_temperature: temperature of the softmax that weights positives by spectral similarity.
        neighbours: how many spectral nearest neighbours a positive is drawn from.
        contrastive_weight, statistics_weight, masked_weight, ranking_weight: how much each objective counts
            (``contrastive.objectives``); 0 turns it off. Ranking is learned from graph sets that are labelled and left out
            where none is.
        masked_share: share of the nodes that the encoder does not see where ``masked_weight`` counts.
        batch_graphs: graphs in one step, half of them anchors and half their positives.
        steps, learning_rate, weight_decay, warmup_steps: AdamW with linear warm-up and cosine decay.
        padded_tokens: most nodes, padding included, in one length bucket.
    """

    name: str = "custom"
    hidden: int = 64
    transformer_layers: int = 0
    heads: int = 2
    gnn_layers: int = 4
    directed: bool = True
    positions: int = 0
    context: bool = True
    pooling: str = "mean+max"
    embedding: int = 128
    projection: int = 64
    projection_layers: int = 4
    temperature: float = 0.1
    spectral_temperature: float = 0.05
    neighbours: int = 16
    contrastive_weight: float = 1.0
    statistics_weight: float = 1.0
    masked_weight: float = 0.0
    masked_share: float = 0.15
    ranking_weight: float = 0.0
    batch_graphs: int = 256
    steps: int = 300
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    warmup_steps: int = 20
    padded_tokens: int = 6144

    def __post_init__(self) -> None:
        if self.pooling not in ("mean", "mean+max"):
            raise CGError(f"pooling must be 'mean' or 'mean+max', got {self.pooling!r}")
        if not (self.transformer_layers or self.gnn_layers):
            raise CGError("an encoder needs at least one of transformer_layers and gnn_layers")
        if self.hidden % self.heads:
            raise CGError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")
        if not (self.contrastive_weight or self.statistics_weight or self.masked_weight or self.ranking_weight):
            raise CGError("pre-training needs an objective: one of contrastive_weight, statistics_weight, masked_weight and "
                          "ranking_weight must not be 0")
        if not 0 < self.masked_share < 1:
            raise CGError(f"masked_share must lie between 0 and 1, got {self.masked_share!r}")
        if self.batch_graphs < 4 or self.batch_graphs % 2:
            raise CGError(f"batch_graphs must be even and at least 4, got {self.batch_graphs}")

    @classmethod
    def default(cls) -> EncoderConfig:
        """What this package ships: a directed k-GNN that sees node context and learns to tell the statistics, hidden nodes and,
        where there are labels, which network is better. Of what was compared it carries over best (docs/transfer.md)."""
        return cls(name="default", contrastive_weight=0.0, masked_weight=1.0, ranking_weight=1.0, steps=1500)

    @classmethod
    def paper(cls) -> EncoderConfig:
        """The reference configuration. Source: arXiv 2302.10835 §4 and §7.3 as far as they are public.

        Operation embeddings, Laplacian positions, a graph transformer of 2 layers and 2 heads joined with a k-GNN, mean
        aggregation, m = 128, a 4-layer projection to 64, tau = 0.1, weights at temperature 0.05, contrastive loss alone.
        """
        return cls(name="paper", transformer_layers=2, gnn_layers=4, directed=False, positions=10, context=False,
                   pooling="mean", statistics_weight=0.0, learning_rate=1e-3, steps=400)

    @classmethod
    def named(cls, config: str | EncoderConfig) -> EncoderConfig:
        """``"default"``, ``"paper"``, or a configuration, which is returned as it is."""
        if isinstance(config, EncoderConfig):
            return config
        known = {"default": cls.default, "paper": cls.paper}
        if config not in known:
            raise CGError(f"unknown encoder configuration {config!r}; there are: {', '.join(known)}")
        return known[config]()

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EncoderConfig:
        """Inverse of ``dataclasses.asdict``; raises ``CGError`` on a key that does not exist or a value of another type."""
        fields = {f.name: f for f in dataclasses.fields(cls)}
        for key, value in values.items():
            if key not in fields:
                raise CGError(f"unknown encoder setting {key!r}; there are: {', '.join(fields)}")
            wanted = type(fields[key].default)
            if not isinstance(value, wanted) and not (wanted is float and isinstance(value, int)):
                raise CGError(f"encoder setting {key!r} must be {wanted.__name__}, got {value!r}")
        return cls(**values)
