"""The encoder: a graph transformer joined with a k-GNN, pooled to one embedding per graph.

Source: arXiv 2302.10835 §4; k-GNN is PyG's ``GraphConv`` (Morris et al., arXiv 1810.02244, Eq. 2). Labels reach it only
where a ranking is among the objectives of its pre-training.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch_geometric.nn import DirGNNConv, GraphConv
from torch_geometric.utils import scatter, to_dense_batch

from cg.graph import Graph
from cg.node_features import NODE_COLUMNS
from cg.vocabulary import OPS
from contrastive._threads import side_by_side
from contrastive.config import EncoderConfig
from contrastive.views import GraphBatch, GraphView, buckets, collate, views

_OP_WIDTH = 32
_N_CONTEXT = 6


class Encoder(nn.Module):
    """Graphs to embeddings of size ``config.embedding``.

    ``forward`` takes a ``GraphBatch`` of B graphs and gives ``[B, m]``; ``embed`` takes graphs and gives a numpy array.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        d = config.hidden
        width = len(NODE_COLUMNS) + 1 + (_N_CONTEXT if config.context else 0)
        self.op = nn.Embedding(len(OPS), _OP_WIDTH)
        self.input = nn.Linear(_OP_WIDTH + width, d)
        self.position = nn.Linear(config.positions, d, bias=False) if config.positions else None
        layer = lambda: nn.TransformerEncoderLayer(d, config.heads, 2 * d, dropout=0.0, batch_first=True,  # noqa: E731
                                                   norm_first=True)
        self.transformer = nn.ModuleList(layer() for _ in range(config.transformer_layers))
        self.convs = nn.ModuleList(
            DirGNNConv(GraphConv(d, d, aggr="mean")) if config.directed else GraphConv(d, d, aggr="mean")
            for _ in range(config.gnn_layers))
        self.norms = nn.ModuleList(nn.LayerNorm(d) for _ in range(config.gnn_layers))
        branches = bool(config.transformer_layers) + bool(config.gnn_layers)
        pools = 1 + (config.pooling == "mean+max")
        self.node_width = d * branches
        self.output = nn.Linear(self.node_width * pools, config.embedding)

    def forward(self, batch: GraphBatch) -> torch.Tensor:
        """Embeddings float32 ``[B, m]``; every mean over nodes counts a collapsed block as often as it stands there."""
        return self.pool(self.nodes(batch), batch)

    def nodes(self, batch: GraphBatch, hidden: torch.Tensor | None = None) -> torch.Tensor:
        """What the branches say of every node, float32 ``[N, D * branches]``; ``hidden`` ones, bool ``[N]``, are not read."""
        read = torch.cat([self.op(batch.op), batch.features], 1)
        if hidden is not None:
            read = read.masked_fill(hidden[:, None], 0.0)
        h = self.input(read)
        branches = []
        if self.transformer:
            x = h if self.position is None else h + self.position(batch.positions)
            dense, mask = to_dense_batch(x, batch.graph)
            padding = None if bool(mask.all()) else ~mask
            for block in self.transformer:
                dense = block(dense, src_key_padding_mask=padding)
            branches.append(dense[mask])
        if self.convs:
            edges = batch.edges if self.config.directed else torch.cat([batch.edges, batch.edges.flip(0)], 1)
            x = h
            for conv, norm in zip(self.convs, self.norms, strict=True):
                x = x + torch.relu(norm(conv(x, edges)))
            branches.append(x)
        return torch.cat(branches, 1)

    def pool(self, nodes: torch.Tensor, batch: GraphBatch) -> torch.Tensor:
        """Embeddings ``[B, m]`` from what ``nodes`` gave."""
        n = len(batch.sizes)
        weight = batch.count[:, None]
        total = scatter(batch.count, batch.graph, 0, n, reduce="sum")[:, None]
        pooled = [scatter(nodes * weight, batch.graph, 0, n, reduce="sum") / total]
        if self.config.pooling == "mean+max":
            pooled.append(scatter(nodes, batch.graph, 0, n, reduce="max"))
        out: torch.Tensor = self.output(torch.cat(pooled, 1))
        return out

    def encode_views(self, items: Sequence[GraphView]) -> torch.Tensor:
        """Embeddings ``[B, m]`` in the given order, computed in length buckets; differentiable."""
        parts = buckets(np.array([len(v.spec) for v in items]), self.config.padded_tokens)
        out = torch.cat([self(collate([items[i] for i in rows])) for rows in parts])
        order = np.argsort(np.concatenate(parts), kind="stable")
        return out[torch.from_numpy(order)]

    def embed(self, graphs: Iterable[Graph]) -> np.ndarray:
        """Embeddings float32 ``[B, m]``. Raises ``UnknownOpError`` on graphs with ``Unknown`` nodes."""
        items = views(graphs, self.config)
        if not items:
            return np.zeros((0, self.config.embedding), np.float32)
        distinct = {id(v): v for v in items}  # equal graphs share a view: each is computed once
        row = {key: i for i, key in enumerate(distinct)}
        training = self.training
        self.eval()
        try:
            out = self._embed_views(list(distinct.values()))
        finally:
            self.train(training)
        return out[[row[id(v)] for v in items]]

    def _embed_views(self, items: Sequence[GraphView]) -> np.ndarray:
        """Embeddings ``[B, m]`` without gradients."""
        parts = self.split(items)

        def embed(rows: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                result: np.ndarray = self(collate([items[i] for i in rows])).numpy()
            return result

        done = np.concatenate(side_by_side(embed, parts))
        out = np.empty_like(done)
        out[np.concatenate(parts)] = done
        return out

    def split(self, items: Sequence[GraphView]) -> list[np.ndarray]:
        """Rows of the views in length buckets, small enough that two threads have something to do."""
        return buckets(np.array([len(v.spec) for v in items]), self.config.padded_tokens // 2)

    def save(self, path: str | Path) -> Path:
        """Write weights (safetensors), configuration and vocabulary version to a folder, atomically."""
        from contrastive.checkpoint import save_encoder

        return save_encoder(self, path)


def projection_head(config: EncoderConfig) -> nn.Sequential:
    """The multi-layer head from ``m`` to ``config.projection`` that the contrastive loss sees; thrown away afterwards."""
    layers: list[nn.Module] = []
    for _ in range(config.projection_layers - 1):
        layers += [nn.Linear(config.embedding, config.embedding), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(config.embedding, config.projection))
