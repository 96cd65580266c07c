"""What an encoder reads of a graph (``GraphView``, numpy) and of many (``GraphBatch``, torch, flat arrays)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from cg import node_features
from cg.collapse import collapse
from cg.global_statistics import node_context
from cg.graph import Graph
from cg.spectra import laplacian_positions
from contrastive.config import EncoderConfig


class GraphView(NamedTuple):
    """One graph after the collapse of repeated blocks: n nodes, e edges.

    ``spec`` int32 ``[n]``; ``count`` float32 ``[n]``, repeats of the node's block; ``src, dst`` int16 ``[e]``; ``context``
    float16 ``[n, 6]`` and ``positions`` float16 ``[n, P]``, both with zero columns where the encoder does not use them.
    """

    spec: np.ndarray
    count: np.ndarray  # type: ignore[assignment]  # hides tuple.count
    src: np.ndarray
    dst: np.ndarray
    context: np.ndarray
    positions: np.ndarray


class GraphBatch(NamedTuple):
    """B graphs as flat arrays, N nodes and E edges in all.

    ``op`` int64 ``[N]``; ``features`` float32 ``[N, F]`` (node features, log2 repeats, context); ``positions`` float32
    ``[N, P]``; ``count`` float32 ``[N]``; ``edges`` int64 ``[2, E]``; ``graph`` int64 ``[N]``, which graph a node belongs
    to; ``sizes`` int64 ``[B]``, nodes per graph.
    """

    op: torch.Tensor
    features: torch.Tensor
    positions: torch.Tensor
    count: torch.Tensor  # type: ignore[assignment]
    edges: torch.Tensor
    graph: torch.Tensor
    sizes: torch.Tensor


def view(graph: Graph, config: EncoderConfig) -> GraphView:
    """The view that an encoder of this configuration reads. Raises ``UnknownOpError`` naming the unknown operators."""
    graph.refuse_unknown()
    c = collapse(graph)
    context = node_context(graph)[c.node] if config.context else np.zeros((len(c.node), 0))
    if config.positions:
        positions = laplacian_positions(len(c.node), c.src, c.dst, config.positions)
    else:
        positions = np.zeros((len(c.node), 0))
    small = np.int16 if len(c.node) < 32_000 else np.int32
    return GraphView(graph.spec[c.node], c.count.astype(np.float32), c.src.astype(small), c.dst.astype(small),
                     context.astype(np.float16), positions.astype(np.float16))


def views(graphs: Iterable[Graph], config: EncoderConfig) -> list[GraphView]:
    """``view`` of many graphs; equal graphs share one view."""
    seen: dict[str, GraphView] = {}
    out = []
    for g in graphs:
        v = seen.get(g.digest)
        if v is None:
            v = seen[g.digest] = view(g, config)
        out.append(v)
    return out


def collate(items: Sequence[GraphView]) -> GraphBatch:
    """Flat batch of the views, in order."""
    sizes = np.array([len(v.spec) for v in items])
    spec = np.concatenate([v.spec for v in items])
    count = np.concatenate([v.count for v in items])
    shift = np.repeat(np.concatenate([[0], np.cumsum(sizes)[:-1]]), [len(v.src) for v in items])
    edges = np.stack([np.concatenate([v.src for v in items]) + shift, np.concatenate([v.dst for v in items]) + shift])
    node = np.concatenate([node_features.node_rows(spec) / 4.0, np.log2(count)[:, None],
                           np.concatenate([v.context for v in items]).astype(np.float32)], 1)
    return GraphBatch(
        torch.from_numpy(node_features.op_rows(spec)),
        torch.from_numpy(node.astype(np.float32)),
        torch.from_numpy(np.concatenate([v.positions for v in items]).astype(np.float32)),
        torch.from_numpy(count),
        torch.from_numpy(edges.astype(np.int64)),
        torch.from_numpy(np.repeat(np.arange(len(items)), sizes)),
        torch.from_numpy(sizes.astype(np.int64)),
    )


def buckets(sizes: np.ndarray, padded_tokens: int) -> list[np.ndarray]:
    """Rows grouped by similar length, so that ``graphs x longest`` stays within ``padded_tokens`` (or one graph is alone)."""
    order = np.argsort(sizes, kind="stable")
    out: list[np.ndarray] = []
    start = 0
    for i in range(1, len(order) + 1):
        if i == len(order) or (i + 1 - start) * sizes[order[i]] > padded_tokens:
            out.append(order[start:i])
            start = i
    return out
