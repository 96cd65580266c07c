"""Global statistics of a graph: one documented vector per network, the strongest single ingredient of few-shot ranking.

Every column has a name (``STATISTICS``). Groups, in order; a *kind* is one of 15 roles of a node (``KINDS``), a *stage* is
how often the resolution has been halved since the input (0 to 5):

``total.*``      logarithms of size and cost totals
``path.*``       longest, shortest, mean and standard deviation of what an input-output path passes through, for a walk from the
                 output that steps to any producer alike, and (``whole_``) with every whole path alike
``rf.*``         receptive field at the output, log2 pixels
``shape.*``      channels, kernel sizes, fan-in and fan-out, level widths, length of skip connections
``signal.*``     forward variance and backward gradient scale at initialisation, by simple propagation rules
``stage.*``      costs per stage
``kind.*``       per kind: share of nodes, MACs and parameters; expected visits of the three kinds of walk (``back`` from the
                 output, ``front`` from the input, ``whole``); the most nodes of that kind on one path
``count.*``      nodes per kind and stage, log(1 + n)
``back.*``       expected visits per kind and stage of a walk from the output, each step to a random producer
``front.*``      the same from the input, each step to a random consumer
``pair.*``       edges between kinds, log(1 + n), operators that only move data contracted
``hop.*``        ``hop.a.b``: how much computing operators of kind a read from kind b, seen through norms, activations, merges
                 and moves (each merge splits evenly), log(1 + sum)
``field.*``      mean-field signal propagation (``cg._field``): what zero-cost proxies measure, in expectation over weights; and
``field0-4.*``   the same per stage
``flow.*``       mean and standard deviation along a walk from the output that goes where the signal's variance comes from
``visit.*``      expected visits of that walk per kind
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from cg._field import FIELD, FIELD_STAGE, FIELD_STAGES, PER_BATCH, PER_IMAGE
from cg._table_arrays import Column, costs
from cg.errors import GraphError
from cg.graph import Graph
from cg.spec import NodeSpec, Shape
from cg.vocabulary import CATEGORIES

KINDS: Final = ("conv3", "conv5", "conv1", "dw3", "dw5", "dwdil", "dense", "norm", "act", "maxpool", "avgpool", "add", "mul",
                "concat", "other")
N_STAGES: Final = 6
HOPS: Final = ("conv3", "conv5", "conv1", "dw3", "dw5", "dwdil", "dense", "maxpool", "avgpool")
_WALKS: Final = ("nodes", "layers", "spatial", "acts", "pools")
_TOTAL = ("nodes", "edges", "macs", "params", "activations", "macs_per_param", "activations_per_mac", "layers", "levels")
_SHAPE = ("channels_mean", "channels_max", "channels_min", "channels_std", "ratio_mean", "ratio_std", "kernel_mean",
          "fan_in_mean", "fan_out_mean", "fan_out_max", "width_mean", "width_max", "span_mean", "span_max", "skips",
          "last_channels")
_SIGNAL = ("var_add_mean", "var_add_max", "var_norm_mean", "grad_first", "grad_mean", "grad_std", "grad_min", "grad_max",
           "paths")
STATISTICS: Final[tuple[str, ...]] = (
    *(f"total.{c}" for c in _TOTAL),
    *(f"path.{w}_{m}" for w in _WALKS for m in ("longest", "shortest", "mean", "std", "whole_mean", "whole_std")),
    "rf.max", "rf.min", "rf.mean",
    *(f"shape.{c}" for c in _SHAPE),
    *(f"signal.{c}" for c in _SIGNAL),
    *(f"stage{s}.{c}" for s in range(N_STAGES) for c in ("macs", "params", "activations", "macs_share", "channels")),
    *(f"kind.{m}.{k}" for m in ("nodes_share", "macs_share", "params_share", "back", "front", "whole", "longest")
      for k in KINDS),
    *(f"{group}.{k}.{s}" for group in ("count", "back", "front") for k in KINDS for s in range(N_STAGES)),
    *(f"pair.{a}.{b}" for a in KINDS for b in KINDS),
    *(f"hop.{a}.{b}" for a in HOPS for b in (*HOPS, "input")),
    *(f"field.{c}" for c in FIELD), *(f"field{s}.{c}" for s in range(FIELD_STAGES) for c in FIELD_STAGE),
    *(f"flow.{w}_{m}" for w in _WALKS for m in ("mean", "std")), *(f"visit.{k}" for k in KINDS),
)
GROUPS: Final = np.array([n.split(".")[0].rstrip("0123456789") for n in STATISTICS])


def statistics(graphs: Sequence[Graph]) -> np.ndarray:
    """Global statistics of ``B`` graphs, float32 ``[B, len(STATISTICS)]``.

    Defined for any graph with at least one Input; values depend on the architecture alone, not on node order. Raises
    ``GraphError`` if a value is not finite (an image of zero size, say).
    """
    from cg._flow import statistics_kernel

    out = np.zeros((len(graphs), len(STATISTICS)))
    for row, g in zip(out, graphs, strict=True):
        statistics_kernel(g.spec, g.src, g.dst, g.outputs, _KIND.get(), _PROFILE.get(), costs(), _NORM.get(), row)
        if not np.isfinite(row).all():
            bad = STATISTICS[int(np.flatnonzero(~np.isfinite(row))[0])]
            raise GraphError(f"graph {g.name!r}: statistic {bad} is not finite; check the shapes of its nodes")
    return out.astype(np.float32)


def node_context(graph: Graph) -> np.ndarray:
    """What a node's place in the network says, float32 ``[N, 6]``: relative depth, log2 receptive field / 8, log variance,
    log gradient / 4, expected visits of a backward and of a forward random walk."""
    from cg import _context

    return np.asarray(_context.node_context(graph.spec, graph.src, graph.dst, graph.outputs, _KIND.get(), _PROFILE.get()),
                      np.float32)


def _kind(spec: NodeSpec) -> int:
    if spec.op in ("Conv", "ConvTranspose", "DeformConv"):
        k = max(spec.weight_shape[2:], default=1)
        if spec.attr("group", 1) > 1:
            name = "dwdil" if max(spec.attr("dilations", (1,))) > 1 else ("dw3" if k <= 3 else "dw5")
        else:
            name = "conv1" if k == 1 else ("conv3" if k <= 3 else "conv5")
        return KINDS.index(name)
    category = CATEGORIES[spec.category]
    alias = {"softmax": "act", "reduce": "avgpool", "recurrent": "dense"}
    name = alias.get(category, category)
    return KINDS.index(name) if name in KINDS else KINDS.index("other")


def _image(shape: Shape) -> tuple[int, int]:
    """``(side, channels)`` of a tensor; sequences count their length as a square of that many pixels."""
    if len(shape) >= 4:
        return max(round((shape[-1] * shape[-2]) ** 0.5), 1), shape[1]
    if len(shape) == 3:
        return max(round(shape[1] ** 0.5), 1), shape[2]
    return 1, shape[-1] if shape else 1


def _profile(_: int, spec: NodeSpec) -> np.ndarray:
    """side out, side in, C in, C out, kernel, stride, dilation, is layer, is spatial, is act, is pool, moves data, is input"""
    side_out, c_out = _image(spec.out_shape)
    side_in, c_in = _image(spec.in_shapes[0]) if spec.in_shapes else (side_out, c_out)
    kernel = max(spec.attr("kernel_shape", (1,))) if spec.attr("kernel_shape") else max(spec.weight_shape[2:4], default=1)
    category = CATEGORIES[spec.category]
    layer = category in ("conv", "dense", "recurrent")
    pool = category in ("maxpool", "avgpool") and not spec.op.startswith(("Global", "Reduce"))
    return np.array([side_out, side_in, c_in, c_out, kernel, max(spec.attr("strides", (1,))),
                     max(spec.attr("dilations", (1,))), layer, category == "conv" and kernel > 1, category == "act", pool,
                     category == "move", spec.op == "Input"], np.float64)


def _shares(spec: NodeSpec) -> int:
    """What a normalisation takes away: the mean over a batch, over one image, or neither."""
    if spec.op.startswith("BatchNorm"):
        return PER_BATCH
    return PER_IMAGE if spec.op.startswith("InstanceNorm") else 0


_KIND = Column(lambda i, s: _kind(s), np.int64)
_PROFILE = Column(_profile, np.float64, 13)
_NORM = Column(lambda i, s: _shares(s), np.int64)
