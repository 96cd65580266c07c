"""Says which tensors of an ONNX file are trained parameters; the rule in words is in ``onnx_frontend.from_onnx``."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping
from math import prod
from typing import Any, Final

import onnx
import torch

from extract.onnx_file import DTYPES, MOST_KNOWN, subgraphs, tensor_of

_T = onnx.TensorProto

# Inputs that hold settings or statistics, by operator: a float tensor that is read nowhere else is not a trained parameter.
SETTINGS: Final[dict[str, frozenset[int]]] = {
    "BatchNormalization": frozenset({3, 4}), "Clip": frozenset({1, 2}), "Pad": frozenset({1, 2, 3}),
    "Resize": frozenset({1, 2, 3}), "Upsample": frozenset({1}), "Pow": frozenset({1}), "OneHot": frozenset({1, 2}),
    "Range": frozenset({0, 1, 2}), "QuantizeLinear": frozenset({1, 2}), "DequantizeLinear": frozenset({1, 2}),
    "NonMaxSuppression": frozenset({2, 3, 4}), "Dropout": frozenset({1}), "CumSum": frozenset({1}),
    "LSTM": frozenset({4, 5, 6}), "GRU": frozenset({4, 5}), "RNN": frozenset({4, 5}), "Equal": frozenset({0, 1}),
    "Greater": frozenset({0, 1}), "Less": frozenset({0, 1}), "GreaterOrEqual": frozenset({0, 1}),
    "LessOrEqual": frozenset({0, 1}), "QLinearConv": frozenset({1, 2, 4, 5, 6, 7}),
    "QLinearMatMul": frozenset({1, 2, 4, 5, 6, 7}), "ConvInteger": frozenset({2, 3}), "MatMulInteger": frozenset({2, 3}),
    "Mod": frozenset({1}), "STFT": frozenset({2}),
}
# Inputs that are weights of a layer, whatever their number format (quantised weights are integers).
WEIGHTS: Final[dict[str, frozenset[int]]] = {
    "Conv": frozenset({1, 2}), "ConvTranspose": frozenset({1, 2}), "Gemm": frozenset({1, 2}), "MatMul": frozenset({1}),
    "BatchNormalization": frozenset({1, 2}), "InstanceNormalization": frozenset({1, 2}), "PRelu": frozenset({1}),
    "LayerNormalization": frozenset({1, 2}), "GroupNormalization": frozenset({1, 2}), "RMSNormalization": frozenset({1}),
    "LSTM": frozenset({1, 2, 3, 7}), "GRU": frozenset({1, 2, 3}), "RNN": frozenset({1, 2, 3}),
    "DequantizeLinear": frozenset({0}), "QLinearConv": frozenset({3, 8}), "QLinearMatMul": frozenset({3}),
    "ConvInteger": frozenset({1}), "MatMulInteger": frozenset({1}), "DeformConv": frozenset({1, 3}),
    "FusedConv": frozenset({1, 2}), "QGemm": frozenset({3, 6}), "FusedMatMul": frozenset({1}),
    "DynamicQuantizeMatMul": frozenset({1, 4}), "MatMulIntegerToFloat": frozenset({1, 6}), "MatMulNBits": frozenset({1}),
}
_KERNELS: Final = frozenset({("Conv", 1), ("ConvTranspose", 1), ("Gemm", 1), ("MatMul", 1), ("LSTM", 1), ("GRU", 1)})
# Last word of the name of a float tensor that is known not to be trained: buffers of common PyTorch models.
BUFFERS: Final = frozenset({
    "running_mean", "running_var", "num_batches_tracked", "attn_mask", "relative_coords_table", "relative_position_index",
    "inv_freq", "cos_cached", "sin_cached", "filt", "pixel_mean", "pixel_std", "image_mean", "image_std", "freqs", "mask",
    "causal_mask", "anchors", "rope_cache", "original_inv_freq", "bias_mask"})
_MADE_UP: Final = re.compile(r"^(val_\d+|_?const.*|.*(^|[/_])Constant.*|onnx::.*|\d+)$")


def trained_tensors(proto: onnx.ModelProto, not_trained: tuple[str, ...]) -> frozenset[str]:
    """Names of the tensors of the main graph that are trained parameters; the rule is in ``from_onnx``."""
    slots = _slots(proto)
    said = _said_by_exporter(proto)
    chosen: set[str] = set()
    for t in proto.graph.initializer:
        uses = slots.get(t.name, ())
        if any(fnmatch.fnmatchcase(t.name, pattern) for pattern in not_trained):
            continue
        if t.name in said:
            if said[t.name]:
                chosen.add(t.name)
            continue
        if re.split(r"[./]", t.name)[-1] in BUFFERS:
            continue
        if any(index in WEIGHTS.get(op, ()) and op != "InstanceNormalization" for op, index in uses):
            chosen.add(t.name)
            continue
        if not DTYPES.get(t.data_type, torch.int64).is_floating_point:
            continue
        if all(index in SETTINGS.get(op, ()) for op, index in uses):
            continue
        made_up = bool(_MADE_UP.match(t.name))
        if made_up and (prod(t.dims) == 1 or _flat_norm(t, uses)):
            continue
        chosen.add(t.name)
    return frozenset(chosen | _in_nodes(proto, slots, chosen) | _split_again(proto, slots))


def _split_again(proto: onnx.ModelProto, slots: Mapping[str, set[tuple[str, int]]]) -> set[str]:
    """Parameters that ``torch.onnx.export(dynamo=False)`` wrote as ``Identity`` of another tensor because their values are
    equal (all zero or one in a fresh model). Weights that are really shared have more than one axis and are not flat.
    """
    tensors = {t.name: t for t in proto.graph.initializer if DTYPES.get(t.data_type, torch.int64).is_floating_point}
    found = set()
    for n in proto.graph.node:
        if n.op_type != "Identity" or len(n.input) != 1 or len(n.output) != 1 or n.input[0] not in tensors:
            continue
        name, t = n.output[0], tensors[n.input[0]]
        if "." not in name or "/" in name or ":" in name or name.rsplit(".", 1)[1] in BUFFERS:
            continue
        if all(index in SETTINGS.get(op, ()) for op, index in slots.get(name, ())):
            continue
        if len(t.dims) <= 1 or _is_flat(t):
            found.add(name)
    return found


def _is_flat(t: onnx.TensorProto) -> bool:
    """Whether all values are one; of long data there is a sample (``onnx_wire``)."""
    data, width = t.raw_data[:2**20], 8 if t.data_type == _T.DOUBLE else 4 if t.data_type == _T.FLOAT else 2
    return len(data) >= width and data == data[:width] * (len(data) // width)


def _in_nodes(proto: onnx.ModelProto, slots: Mapping[str, set[tuple[str, int]]], chosen: Iterable[str]) -> set[str]:
    """Trained tensors that are results of nodes: ``ConstantOfShape`` of an initializer, written where values were left out,
    and ``Constant`` in the files of exporters that keep all weights there.
    """
    fixed = {t.name for t in proto.graph.initializer}
    everything = not any((op, index) in _KERNELS for name in chosen for op, index in slots.get(name, ()))
    found = set()
    for n in proto.graph.node:
        uses = slots.get(n.output[0], ()) if len(n.output) == 1 else ()
        if n.op_type not in ("Constant", "ConstantOfShape") or not uses:
            continue
        value = next((a.t for a in n.attribute if a.name == "value"), None)
        if n.op_type == "Constant":
            fits = everything and value is not None and prod(value.dims) > 1
        else:
            fits = len(n.input) == 1 and n.input[0] in fixed
        floating = DTYPES.get(_T.FLOAT if value is None else value.data_type, torch.int64).is_floating_point
        if fits and floating and any(index not in SETTINGS.get(op, ()) for op, index in uses):
            found.add(n.output[0])
    kernels = any((op, index) in _KERNELS for name in found for op, index in slots[name])
    return found if kernels else set()


def _flat_norm(t: onnx.TensorProto, uses: Iterable[tuple[str, int]]) -> bool:
    """A scale of ones or an offset of zeros that an exporter made up for a normalisation without any."""
    if t.data_location == _T.EXTERNAL or prod(t.dims) > MOST_KNOWN:
        return False
    if not any(op == "InstanceNormalization" for op, _ in uses):
        return False
    values = tensor_of(t, t.name)
    return bool((values == 1).all() or (values == 0).all())


_HAND_ON: Final = frozenset({"Identity", "Cast", "CastLike", "Transpose", "Reshape", "Unsqueeze", "Squeeze", "Expand",
                             "QuantizeLinear"})


def _slots(proto: onnx.ModelProto) -> dict[str, set[tuple[str, int]]]:
    """Name of a value -> the operators that read it and at which place, seen through nodes that only hand it on."""
    uses: dict[str, set[tuple[str, int]]] = {}
    graphs: list[Any] = [proto.graph]
    nodes: list[onnx.NodeProto] = []
    while graphs:
        g = graphs.pop()
        nodes += g.node
        graphs += [s for n in g.node if n.attribute for s in subgraphs(n)]
    for n in reversed(nodes):  # readers before what they read, in files that are sorted
        op = n.op_type
        for i, name in enumerate(n.input):
            if not name:
                continue
            places = uses.setdefault(name, set())
            through = i == 0 and op in _HAND_ON and any(uses.get(out) for out in n.output)
            if not through:
                places.add((op, i) if i < 16 else (op, 16))
            else:
                places.update(*(uses.get(out, ()) for out in n.output))
    return uses


def _said_by_exporter(proto: onnx.ModelProto) -> dict[str, bool]:
    """Name -> whether it is a parameter, in files whose exporter wrote that down (``torch.onnx`` with ``dynamo=True``)."""
    said: dict[str, bool] = {}
    for p in proto.graph.metadata_props:
        if p.key.endswith("graph_signature"):
            for kind, name in re.findall(r": (PARAMETER|BUFFER|CONSTANT_TENSOR) target='([^']*)'", p.value):
                said[name] = kind == "PARAMETER"
    return said
