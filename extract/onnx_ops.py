"""The one table that says what each ONNX operator becomes: handled, ignored on purpose (with the reason), unsupported.

Keys are operator names of the standard domain; other domains stand in front: ``com.microsoft.FusedConv``. A standard operator
in no list that ONNX itself defines by simpler ones is replaced by that definition. What then still is in no list becomes
``Unknown``: counted, reported, never dropped. All versions of an operator since 6 share a handler, which looks at the version.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import onnx
import torch
import torch.nn.functional as F
from torch import Tensor

from extract import onnx_attention as attention
from extract import onnx_contrib as contrib
from extract import onnx_control as control
from extract import onnx_layers as layers
from extract import onnx_math as maths
from extract import onnx_moves as moves
from extract import onnx_pools as pools
from extract import onnx_quantized as quantized
from extract import onnx_regions as regions
from extract import onnx_resize as resizing
from extract.onnx_file import DTYPES
from extract.onnx_math import binary, logical, reduction, unary, variadic
from extract.onnx_node import Call, meta, nth
from extract.onnx_program import shape_in, type_of
from extract.torch_primitive import primitive

HANDLED: Final[dict[str, Callable[..., Any]]] = {
    # convolution, dense
    "Conv": layers.conv, "ConvTranspose": layers.conv_transpose, "DeformConv": layers.deform_conv, "Gemm": layers.gemm,
    "MatMul": layers.matmul, "Einsum": maths.einsum, "PRelu": layers.prelu,
    # normalisation
    "BatchNormalization": layers.batch_norm, "InstanceNormalization": layers.instance_norm,
    "LayerNormalization": layers.layer_norm, "GroupNormalization": layers.group_norm, "RMSNormalization": layers.rms_norm,
    "SimplifiedLayerNormalization": layers.rms_norm, "LRN": layers.local_response_norm,
    "LpNormalization": layers.lp_norm,
    # pooling
    "MaxPool": pools.max_pool, "AveragePool": pools.average_pool, "LpPool": pools.lp_pool,
    "GlobalAveragePool": pools.global_pool("avg"), "GlobalMaxPool": pools.global_pool("max"),
    "GlobalLpPool": pools.global_lp_pool, "MaxUnpool": pools.max_unpool, "MaxRoiPool": regions.max_roi_pool,
    "RoiAlign": regions.roi_align,
    # recurrent
    "LSTM": pools.recurrent("LSTM"), "GRU": pools.recurrent("GRU"), "RNN": pools.recurrent("RNN"),
    # attention
    "Attention": attention.attention, "RotaryEmbedding": attention.rotary,
    # activations
    "Relu": unary(F.relu), "Sigmoid": unary(torch.sigmoid), "Tanh": unary(torch.tanh), "Softsign": unary(F.softsign),
    "HardSwish": unary(F.hardswish), "Mish": unary(F.mish), "Softplus": unary(F.softplus), "Erf": unary(torch.erf),
    "HardSigmoid": maths.hard_sigmoid, "Gelu": maths.gelu, "Swish": maths.swish, "SwiGLU": maths.swiglu,
    "Selu": unary(F.selu), "Elu": lambda call, x: F.elu(x, call.real("alpha", 1.0)),
    "Celu": lambda call, x: F.celu(x, call.real("alpha", 1.0)),
    "LeakyRelu": lambda call, x: F.leaky_relu(x, call.real("alpha", 0.01)),
    "ThresholdedRelu": maths.thresholded_relu, "Clip": maths.limit, "Softmax": maths.softmax(torch.softmax),
    "LogSoftmax": maths.softmax(torch.log_softmax), "Hardmax": maths.hardmax,
    # arithmetic
    "Add": binary(operator.add, 0), "Sub": binary(operator.sub), "Mul": binary(operator.mul, 1), "Div": maths.divide,
    "Pow": maths.power, "Mod": maths.modulo, "Sum": variadic(torch.add), "Mean": variadic(torch.add, average=True),
    "Max": variadic(torch.maximum), "Min": variadic(torch.minimum), "Sqrt": unary(torch.sqrt), "Exp": unary(torch.exp),
    "Log": unary(torch.log), "Abs": unary(torch.abs), "Neg": unary(torch.neg), "Reciprocal": unary(torch.reciprocal),
    "Floor": unary(torch.floor), "Ceil": unary(torch.ceil), "Round": unary(torch.round), "Sign": unary(torch.sign),
    "Det": maths.determinant, "BitShift": maths.shift,
    **{name: unary(getattr(torch, name.lower())) for name in (
        "Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh")},
    **dict.fromkeys(("IsNaN", "IsInf"), maths.never),
    # comparison, logic
    "Equal": binary(operator.eq), "Greater": binary(operator.gt), "Less": binary(operator.lt),
    "GreaterOrEqual": binary(operator.ge), "LessOrEqual": binary(operator.le), "And": logical(torch.logical_and),
    "Or": logical(torch.logical_or), "Xor": logical(torch.logical_xor), "Not": unary(torch.logical_not),
    "BitwiseAnd": logical(torch.bitwise_and), "BitwiseOr": logical(torch.bitwise_or),
    "BitwiseXor": logical(torch.bitwise_xor), "BitwiseNot": unary(torch.bitwise_not), "Where": maths.where,
    # reductions
    "ReduceMean": reduction(maths.mean), "ReduceSum": reduction(maths.reduce_sum), "ReduceProd": reduction(maths.product),
    "ReduceMax": reduction(maths.extreme(torch.amax)), "ReduceMin": reduction(maths.extreme(torch.amin)),
    "ReduceL1": reduction(maths.norm(1)),
    "ReduceL2": reduction(maths.norm(2)), "ReduceLogSumExp": reduction(torch.logsumexp),
    "ReduceLogSum": reduction(lambda x, axes, keep: torch.log(x.sum(axes, keep))),
    "ReduceSumSquare": reduction(lambda x, axes, keep: torch.square(x).sum(axes, keep)),
    "ArgMax": maths.arg_extreme(torch.argmax), "ArgMin": maths.arg_extreme(torch.argmin), "TopK": maths.top_k,
    "CumSum": maths.cumulative,
    # constants and shapes
    "Constant": moves.constant, "ConstantOfShape": moves.constant_of_shape, "Shape": moves.shape_of, "Size": moves.size_of,
    "Range": moves.arange, "EyeLike": moves.eye_like, "Cast": moves.cast, "CastLike": moves.cast_like,
    **dict.fromkeys(("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike"), moves.random),
    # moving values
    "Reshape": moves.reshape, "Flatten": moves.flatten, "Squeeze": moves.squeeze, "Unsqueeze": moves.unsqueeze,
    "Transpose": moves.transpose, "Expand": moves.expand, "Tile": moves.tile, "Slice": moves.slice_, "Split": moves.split,
    "Concat": moves.concat, "Gather": moves.gather, "GatherElements": moves.gather_elements, "GatherND": moves.gather_nd,
    "Scatter": moves.scatter_elements, "ScatterElements": moves.scatter_elements, "ScatterND": moves.scatter_nd,
    "TensorScatter": moves.tensor_scatter, "Trilu": moves.trilu,
    "OneHot": moves.one_hot, "ReverseSequence": moves.reverse_sequence, "Pad": resizing.pad,
    "Resize": resizing.resize, "Upsample": resizing.resize, "DepthToSpace": resizing.depth_to_space,
    "SpaceToDepth": resizing.space_to_depth, "Col2Im": resizing.fold, "GridSample": resizing.grid_sample,
    # boxes, signals, results of unknown length
    "NonMaxSuppression": regions.non_max_suppression, "NonZero": regions.nonzero, "Compress": regions.compress,
    "Unique": regions.unique, "DFT": regions.dft, "STFT": regions.stft,
    # control flow and sequences
    "If": control.if_, "Loop": control.loop, "Scan": control.scan, "SequenceConstruct": control.sequence_construct,
    "SequenceEmpty": control.sequence_empty, "SequenceAt": control.sequence_at, "SequenceInsert": control.sequence_insert,
    "SequenceErase": control.sequence_erase, "SequenceLength": control.sequence_length,
    "ConcatFromSequence": control.concat_from_sequence, "SplitToSequence": control.split_to_sequence,
    "SequenceMap": control.sequence_map, "Optional": control.optional, "OptionalHasElement": control.optional_has_element,
    # quantised operators as their float operators
    "QLinearConv": quantized.conv, "QLinearMatMul": quantized.matmul, "ConvInteger": quantized.conv_integer,
    "MatMulInteger": quantized.matmul_integer, "DynamicQuantizeLinear": quantized.dynamic_quantize,
    # what ONNX Runtime's optimiser writes
    **{f"com.microsoft.{name}": handler for name, handler in cast("dict[str, Callable[..., Any]]", {
        "FusedConv": contrib.fused_conv, "FusedGemm": contrib.fused_gemm, "FusedMatMul": contrib.fused_matmul,
        "SkipLayerNormalization": contrib.skip_layer_norm, "SkipSimplifiedLayerNormalization": contrib.skip_rms_norm,
        "LayerNormalization": contrib.layer_norm, "SimplifiedLayerNormalization": layers.rms_norm,
        "EmbedLayerNormalization": contrib.embed_layer_norm, "BiasGelu": contrib.bias_gelu, "FastGelu": contrib.fast_gelu,
        "Gelu": maths.gelu, "QuickGelu": contrib.quick_gelu, "Attention": contrib.attention,
        "MultiHeadAttention": contrib.multi_head_attention, "QLinearAdd": quantized.binary(operator.add),
        "QLinearMul": quantized.binary(operator.mul), "QLinearConcat": quantized.concat, "QGemm": quantized.gemm,
        "QLinearSigmoid": quantized.first_of(unary(torch.sigmoid)),
        "QLinearLeakyRelu": quantized.first_of(lambda call, x: F.leaky_relu(x, call.real("alpha", 0.01))),
        "QLinearGlobalAveragePool": quantized.first_of(pools.global_pool("avg")),
        "QLinearAveragePool": quantized.first_of(pools.average_pool),
        "QLinearSoftmax": quantized.first_of(maths.softmax(torch.softmax)),
        "MatMulIntegerToFloat": quantized.matmul_to_float, "DynamicQuantizeMatMul": quantized.dynamic_matmul,
        "MatMulNBits": quantized.matmul_bits, "Trilu": moves.trilu}).items()},
}

_SAME = "gives back its argument"
_QUANTISED = "changes the number format only; quantised graphs are recorded as the float graphs that they stand for"
IGNORED: Final[dict[str, str]] = {
    "Identity": _SAME, "OptionalGetElement": _SAME, "BitCast": _SAME,
    "QuantizeLinear": _QUANTISED, "DequantizeLinear": _QUANTISED,
    "com.microsoft.QuantizeLinear": _QUANTISED, "com.microsoft.DequantizeLinear": _QUANTISED,
}

UNSUPPORTED: Final[dict[str, str]] = {
    **dict.fromkeys(("StringNormalizer", "StringConcat", "StringSplit", "RegexFullMatch", "TfIdfVectorizer", "ImageDecoder"),
                    "works on text or files, not on tensors of numbers"),
    **dict.fromkeys(("Multinomial", "Bernoulli"), "draws random numbers, for which the vocabulary has no operator"),
    **dict.fromkeys(("Adagrad", "Adam", "Momentum", "Gradient"), "belongs to training; networks are recorded as at inference"),
    "MelWeightMatrix": "makes a table whose values are not needed, but has no place in the vocabulary",
}

# Evaluated by the interpreter itself even if all arguments are known: they have graphs inside.
NEVER_KNOWN: Final = frozenset({"If", "Loop", "Scan", "SequenceMap"})


def dropout(call: Call, x: Tensor, *rest: Any) -> Any:
    """Nothing at inference; its second output says that all is kept."""
    return (x, torch.ones(x.shape, dtype=torch.bool, device="meta"))[:max(call.n_outputs, 1)]


HANDLED["Dropout"] = dropout


def unknown(call: Call, name: str, inputs: Sequence[Any], declared: Sequence[tuple[int, tuple[int, ...]] | None]) -> list[Any]:
    """``Unknown`` nodes, one for each output, whose shapes the file declares or ONNX infers."""
    types = list(declared)
    if any(t is None for t in types):
        for i, found in enumerate(_inferred(call, inputs)):
            if i < len(types) and types[i] is None:
                types[i] = found
    tensors = [meta(v) for v in inputs if isinstance(v, Tensor)]
    reason = UNSUPPORTED.get(name, "it is not in the table of operators")
    results = []
    for i, t in enumerate(types):
        if t is None or t[0] not in DTYPES:
            raise call.fail(f"the operator is not known ({reason}), and the file does not say the shape of its output {i}; "
                            "run onnx.shape_inference on the model, or cut this part off")
        results.append(primitive("Unknown", tensors, t[1], dtype=DTYPES[t[0]], name=name, **nth(i)))
    call.note(f"{call.where} became an Unknown node: {reason}")
    return results


def declared(call: Call, inputs: Sequence[Any], types: Sequence[Any]) -> list[Any]:
    """The operator as it is, where its settings depend on values but the file says the shape of its results."""
    call.note(f"{call.where}: its settings depend on the input; the shape of its result is the one that the file declares")
    x = inputs[0]
    if call.op in ("Reshape", "Squeeze", "Unsqueeze", "Transpose"):
        return [x.reshape(types[0][1])]
    return [primitive(call.op, [meta(x)], shape, dtype=DTYPES.get(kind, torch.float32), **nth(i))
            for i, (kind, shape) in enumerate(types)]


def _inferred(call: Call, inputs: Sequence[Any]) -> list[tuple[int, tuple[int, ...]] | None]:
    try:
        schema = onnx.defs.get_schema(call.op, call.opset, "")
        names = [f"i{k}" if isinstance(v, Tensor) else "" for k, v in enumerate(inputs)]
        node = onnx.helper.make_node(call.op, names, [f"o{k}" for k in range(call.n_outputs)])
        node.attribute.extend(call.attributes.values())
        found = onnx.shape_inference.infer_node_outputs(
            schema, node, {n: type_of(v) for n, v in zip(names, inputs, strict=True) if n})
    except Exception:
        return []
    types: list[tuple[int, tuple[int, ...]] | None] = []
    for k in range(call.n_outputs):
        types.append(shape_in(found.get(f"o{k}"), call.where))
    return types
