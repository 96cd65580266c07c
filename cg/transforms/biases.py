"""Take an offset that is added behind a convolution or linear layer into the layer."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from cg.graph import Graph
from cg.spec import NodeSpec
from cg.transforms._pattern import Pattern, Presence

_LAYERS: Final = frozenset({"Gemm", "Conv", "ConvTranspose"})
_OPEN: Final = Presence(lambda s: s.op in _LAYERS and not s.bias)
_OFFSETS: Final = Presence(lambda s: s.op == "Constant" and s.extra_params > 0)


def absorb_biases(graph: Graph) -> Graph:
    """Contract: ``Add`` of a ``Constant`` with one number for each output channel, some of them trained, right behind a
    ``Gemm``, ``Conv`` or ``ConvTranspose`` without bias, becomes the bias of that layer. Nothing else reads the layer. The
    constant may be added behind several layers that share one weight, and to nothing else; it counts in the layer that
    counts the weight. Values, outputs and ``params`` are unchanged.
    """
    if not (_OPEN(graph) and _OFFSETS(graph)):
        return graph
    p = Pattern(graph)
    for constant in range(graph.n_nodes):
        if not _is_offset(p.specs[constant]) or constant in p.outputs:
            continue
        sums = list(dict.fromkeys(p.readers[constant]))
        layers = [_layer(p, node, constant) for node in sums]
        if not sums or min(layers) < 0:
            continue
        counted = max(p.specs[layer].extra_params for layer in layers)
        counting = [layer for layer in layers if p.specs[layer].extra_params == counted]
        if len(counting) > 1 or len({p.specs[layer].weight_shape for layer in layers}) > 1:
            continue
        for node, layer in zip(sums, layers, strict=True):
            spec = p.specs[layer]
            held = p.specs[constant].extra_params if layer == counting[0] else 0
            extra = spec.extra_params + held - _offset_shape(spec)[0]
            p.replace(node, replace(spec, bias=True, extra_params=extra), p.inputs[layer], {layer})
    return p.close()


def _is_offset(spec: NodeSpec) -> bool:
    return spec.op == "Constant" and spec.extra_params > 0


def _layer(p: Pattern, node: int, constant: int) -> int:
    """The layer behind which ``node`` adds the constant, one number for each channel; -1 if it does something else."""
    if p.op(node) != "Add" or len(p.inputs[node]) != 2 or p.inputs[node].count(constant) != 1:
        return -1
    place = p.inputs[node].index(constant)
    layer, shape, offset = p.inputs[node][1 - place], p.specs[node].in_shapes[1 - place], p.specs[node].in_shapes[place]
    spec = p.specs[layer]
    if spec.op not in _LAYERS or spec.bias or len(spec.in_shapes) != 1 or p.sole_reader(layer) != node:
        return -1
    if shape != spec.out_shape or p.specs[node].out_shape != shape:
        return -1
    while len(offset) > 1 and offset[0] == 1:
        offset = offset[1:]
    channels = _offset_shape(spec)
    return layer if offset == channels and p.specs[constant].extra_params <= channels[0] else -1


def _offset_shape(spec: NodeSpec) -> tuple[int, ...]:
    """Shape of an offset for each output channel, without leading ones."""
    if spec.op == "Gemm":
        return (spec.weight_shape[0],)
    channels = spec.weight_shape[0]
    if spec.op == "ConvTranspose":
        channels = spec.weight_shape[1] * int(spec.attr("group", 1))
    return (channels, *(1,) * (len(spec.out_shape) - 2))
