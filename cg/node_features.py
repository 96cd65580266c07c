"""Features of single nodes, as the paper has them, and the bundle of everything a model may look at."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from cg._table_arrays import Column
from cg.global_statistics import statistics
from cg.graph import Graph
from cg.spec import NodeSpec, Shape
from cg.vocabulary import OP_INDEX

NODE_COLUMNS: Final = ("in_h", "in_w", "in_c", "out_h", "out_w", "out_c", "weight_out", "weight_in", "weight_h", "weight_w",
                       "has_bias", "stride", "dilation", "group")


class Features(NamedTuple):
    """What a model may look at. ``op`` int64 ``[N]`` (index into ``cg.vocabulary.OPS``); ``node`` float32 ``[N, 14]`` (columns
    ``NODE_COLUMNS``, all but the bias flag as log2(1 + value)); ``statistics`` float32 ``[S]`` (``STATISTICS``)."""

    op: np.ndarray
    node: np.ndarray
    statistics: np.ndarray


def features(graph: Graph) -> Features:
    """Operator indices, node features and global statistics of one graph.

    Source of the node features: arXiv 2302.10835 §4 (operator type; height, width and channels of input and output;
    weight dimensions; bias). Stride, dilation and groups are added: two different networks must not look the same.
    """
    return Features(op_index(graph), node_matrix(graph), statistics([graph])[0])


def op_index(graph: Graph) -> np.ndarray:
    """int64 ``[N]``, index of every node's operator."""
    return op_rows(graph.spec)


def node_matrix(graph: Graph) -> np.ndarray:
    """float32 ``[N, 14]``, see ``Features.node``."""
    return node_rows(graph.spec)


def op_rows(spec: np.ndarray) -> np.ndarray:
    """Operator indices of rows of the spec table, int64 ``[len(spec)]``."""
    return np.asarray(_OP.get()[spec])


def node_rows(spec: np.ndarray) -> np.ndarray:
    """Node features of rows of the spec table, float32 ``[len(spec), 14]``."""
    return np.asarray(_NODE.get()[spec])


def hwc(shape: Shape) -> tuple[int, int, int]:
    """Height, width, channels of a tensor: ``(N, C, H, W)`` images, ``(N, T, C)`` sequences (H = T), ``(N, C)`` vectors."""
    if len(shape) >= 4:
        return shape[-2], shape[-1], shape[1]
    if len(shape) == 3:
        return shape[1], 1, shape[2]
    return 1, 1, shape[-1] if shape else 1


def _row(_: int, spec: NodeSpec) -> np.ndarray:
    h, w, c = hwc(spec.in_shapes[0]) if spec.in_shapes else (0, 0, 0)
    if spec.op == "Concat":
        c = sum(hwc(s)[2] for s in spec.in_shapes)
    weight = (*spec.weight_shape, 0, 0, 0, 0)[:4]
    stride = max(spec.attr("strides", (0,)))
    values = [h, w, c, *hwc(spec.out_shape), *weight, spec.bias, stride, max(spec.attr("dilations", (0,))),
              spec.attr("group", 0)]
    row = np.log2(1.0 + np.array(values, np.float64))
    row[10] = float(spec.bias)
    return row.astype(np.float32)


_OP = Column(lambda i, s: OP_INDEX[s.op], np.int64)
_NODE = Column(_row, np.float32, len(NODE_COLUMNS))
