"""The one table that says what each TensorFlow operator becomes: handled, ignored on purpose (with the reason), unsupported.

An operator in no list becomes an ``Unknown`` node: counted, reported, never dropped. Patterns of several operators (batch
normalisation, a convolution with its bias, …) are in ``tensorflow_fusion``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch.nn import functional as F

from extract import tensorflow_control as control
from extract import tensorflow_layers as layers
from extract import tensorflow_lists as lists
from extract import tensorflow_math as maths
from extract import tensorflow_moves as moves
from extract import tensorflow_norms as norms
from extract import tensorflow_pools as pools
from extract import tensorflow_products as products
from extract import tensorflow_shapes as shapes
from extract.tensorflow_graph import ALIASES, CALLS
from extract.tensorflow_math import binary, fourier, reduction, softmax, unary, with_attr

HANDLED: Final[dict[str, Callable[..., Any]]] = {
    # convolution, dense
    **dict.fromkeys(("Conv2D", "Conv3D", "DepthwiseConv2dNative"), layers.conv),
    **dict.fromkeys(("Conv2DBackpropInput", "Conv3DBackpropInputV2"), layers.conv_transpose),
    **dict.fromkeys(("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"), products.matmul),
    "Einsum": products.einsum, "BiasAdd": layers.bias_add, "BiasAddV1": layers.bias_add,
    # normalisation
    **dict.fromkeys(("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"), norms.fused_batch_norm), "LRN": pools.lrn,
    # activations
    "Relu": unary(F.relu), "Relu6": unary(F.relu6), "Sigmoid": unary(torch.sigmoid), "Tanh": unary(torch.tanh),
    "Softplus": unary(F.softplus), "Softsign": unary(F.softsign), "Selu": unary(F.selu), "Elu": unary(F.elu),
    "Erf": unary(torch.erf), "Erfc": unary(lambda t: 1 - torch.erf(t)), "LeakyRelu": with_attr(F.leaky_relu, "alpha", 0.2),
    "Softmax": softmax(F.softmax), "LogSoftmax": softmax(F.log_softmax), "ClipByValue": maths.clip_by_value,
    # pooling, resizing
    **dict.fromkeys(("MaxPool", "AvgPool", "MaxPool3D", "AvgPool3D"), pools.pool),
    "ResizeBilinear": pools.resize("bilinear"), "ResizeBicubic": pools.resize("bicubic"),
    "ResizeNearestNeighbor": pools.resize("nearest"), "DepthToSpace": moves.depth_space(False),
    "SpaceToDepth": moves.depth_space(True),
    # arithmetic
    **dict.fromkeys(("Add", "AddV2"), binary(torch.add)), "Sub": binary(torch.sub), "Mul": binary(torch.mul),
    **dict.fromkeys(("Div", "RealDiv", "TruncateDiv"), maths.divide), "MulNoNan": binary(torch.mul),
    "DivNoNan": binary(torch.div), "Pow": binary(torch.pow), "Minimum": maths.bounded(True), "Maximum": maths.bounded(False),
    "FloorDiv": binary(lambda a, b: torch.div(a, b, rounding_mode="floor")),
    **dict.fromkeys(("FloorMod", "Mod", "TruncateMod"), binary(torch.remainder)), "AddN": maths.add_n,
    "SquaredDifference": binary(lambda a, b: (a - b) ** 2), "Square": unary(lambda t: t ** 2), "Sqrt": unary(torch.sqrt),
    "Rsqrt": unary(torch.rsqrt), "Exp": unary(torch.exp), "Expm1": unary(torch.expm1), "Log": unary(torch.log),
    "Log1p": unary(torch.log1p), "Neg": unary(torch.neg), "Abs": unary(torch.abs), "Sign": unary(torch.sign),
    "Floor": unary(torch.floor), "Ceil": unary(torch.ceil), "Round": unary(torch.round), "Rint": unary(torch.round),
    "Sin": unary(torch.sin), "Cos": unary(torch.cos), "Inv": unary(torch.reciprocal), "Reciprocal": unary(torch.reciprocal),
    # complex numbers
    "Complex": maths.complex_, "Real": unary(torch.real), "Imag": unary(torch.imag), "ComplexAbs": unary(torch.abs),
    "Conj": unary(torch.conj), "FFT": fourier(torch.fft.fftn, 1), "IFFT": fourier(torch.fft.ifftn, 1),
    "FFT2D": fourier(torch.fft.fftn, 2), "IFFT2D": fourier(torch.fft.ifftn, 2), "RFFT": fourier(torch.fft.rfftn, 1),
    "IRFFT": fourier(torch.fft.irfftn, 1), "RFFT2D": fourier(torch.fft.rfftn, 2), "IRFFT2D": fourier(torch.fft.irfftn, 2),
    # comparison and logic
    "Equal": binary(torch.eq), "NotEqual": binary(torch.ne), "Greater": binary(torch.gt), "GreaterEqual": binary(torch.ge),
    "Less": binary(torch.lt), "LessEqual": binary(torch.le), "LogicalAnd": binary(torch.logical_and),
    "LogicalOr": binary(torch.logical_or), "LogicalNot": unary(torch.logical_not), "BitwiseAnd": binary(torch.bitwise_and),
    "BitwiseOr": binary(torch.bitwise_or), "Invert": unary(torch.bitwise_not), "IsNan": unary(lambda t: t != t),
    "IsFinite": unary(lambda t: t.abs() < float("inf")), "IsInf": unary(lambda t: t.abs() == float("inf")),
    "Select": maths.select, "SelectV2": maths.select,
    # reductions
    "Mean": reduction(lambda t, axes, keep: torch.mean(t, axes, keep)),
    "Sum": reduction(lambda t, axes, keep: torch.sum(t, axes, keep)), "Max": reduction(maths.max_over),
    "Min": reduction(lambda t, axes, keep: torch.amin(t, axes, keep)), "Prod": reduction(maths.product_over),
    "EuclideanNorm": reduction(lambda t, axes, keep: torch.linalg.vector_norm(t, 2, axes, keep)),
    "All": reduction(maths.all_over), "Any": reduction(maths.any_over), "L2Loss": maths.l2_loss,
    "ArgMax": maths.arg_extreme(torch.argmax), "ArgMin": maths.arg_extreme(torch.argmin), "TopKV2": maths.top_k,
    "TopK": maths.top_k, "Cumsum": maths.cumulative,
    # moving values
    "ConcatV2": moves.concat, "Concat": moves.concat, "Pack": moves.pack, "Unpack": moves.unpack, "Split": moves.split,
    "SplitV": moves.split, "Pad": moves.pad, "PadV2": moves.pad, "MirrorPad": moves.pad, "Slice": moves.slice_,
    "StridedSlice": moves.strided_slice, "ReverseV2": moves.reverse, "Tile": moves.tile, "BroadcastTo": moves.broadcast_to,
    "GatherV2": moves.gather, "Gather": moves.gather, "ResourceGather": moves.gather, "GatherNd": moves.gather_nd,
    "XlaDynamicUpdateSlice": moves.update_slice, "TensorScatterUpdate": moves.update_rows, "OneHot": moves.one_hot,
    "TensorScatterAdd": moves.update_rows, "ScatterNd": moves.scatter_nd, "MatrixBandPart": moves.triangle,
    "Roll": moves.roll, "SpaceToBatchND": moves.space_to_batch, "BatchToSpaceND": moves.batch_to_space,
    # sources and shapes: constants, which fold
    "Const": shapes.const, "Placeholder": shapes.handle, "VarHandleOp": shapes.handle, "VariableV2": shapes.handle,
    "Variable": shapes.handle, "ReadVariableOp": shapes.read, "PlaceholderWithDefault": shapes.placeholder_default,
    "Fill": shapes.fill, "ZerosLike": shapes.like(0), "OnesLike": shapes.like(1), "Range": shapes.range_,
    "LinSpace": shapes.line, "Shape": shapes.shape, "ShapeN": shapes.shapes, "Rank": shapes.rank, "Size": shapes.size,
    "BroadcastArgs": shapes.broadcast_args, "InvertPermutation": shapes.invert_permutation,
    **dict.fromkeys(("RandomUniform", "RandomStandardNormal", "TruncatedNormal"), shapes.random),
    # control flow with known conditions, lists of tensors
    **dict.fromkeys(("If", "StatelessIf", "Case", "StatelessCase"), control.if_),
    **dict.fromkeys(("While", "StatelessWhile"), control.while_), "Switch": control.switch, "Merge": control.merge,
    "TensorListReserve": lists.reserve, "EmptyTensorList": lists.empty_list,
    "TensorListFromTensor": lists.from_tensor, "TensorListGetItem": lists.get_item,
    "TensorListSetItem": lists.set_item, "TensorListPushBack": lists.push, "TensorListPopBack": lists.pop,
    "TensorListStack": lists.stack, "TensorListLength": lists.list_length,
    "TensorArrayV3": lists.array, "TensorArrayReadV3": lists.array_read, "TensorArrayWriteV3": lists.array_write,
    "TensorArrayScatterV3": lists.array_scatter, "TensorArrayGatherV3": lists.array_gather,
    "TensorArraySizeV3": lists.array_size,
    # contracted by the recorder
    "Reshape": shapes.reshape, "Squeeze": shapes.squeeze, "ExpandDims": shapes.expand_dims, "Transpose": shapes.transpose,
    "Cast": maths.cast, "Bitcast": maths.cast,
}

_HANDS_ON = "hands its argument on at inference"
IGNORED: Final[dict[str, str]] = {
    **dict.fromkeys(sorted(ALIASES), _HANDS_ON),
    **{op: "quantisation is understood as the float operator it imitates" for op in sorted(ALIASES)
       if op.startswith(("FakeQuant", "QuantizeAndDequantize"))},
    **dict.fromkeys(sorted(CALLS), "the called function is inlined"),
    **dict.fromkeys(("Reshape", "Squeeze", "ExpandDims", "Transpose"), "holds every value of its argument exactly once"),
    **dict.fromkeys(("Enter", "Exit", "NextIteration", "LoopCond"), "a loop of TensorFlow 1 is rewritten as While"),
    **dict.fromkeys(("Cast", "Bitcast", "ReadVariableOp"), "changes the number format, or reads a variable"),
    **dict.fromkeys(("NoOp", "Assert", "Print", "PrintV2", "AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp",
                     "NoOp", "StatsAggregator"), "no result depends on it; it is never run"),
}

UNSUPPORTED: Final[dict[str, str]] = {
    **dict.fromkeys(("PyFunc", "PyFuncStateless", "EagerPyFunc", "NumpyFunction"), "it is Python code, which is never run"),
    **dict.fromkeys(("Where", "Unique", "UniqueV2", "BooleanMask"), "the number of results depends on values"),
    **dict.fromkeys(("ReadFile", "WriteFile", "RestoreV2", "SaveV2", "LookupTableFindV2", "HashTableV2", "DecodeJpeg",
                     "DecodePng", "StringSplitV2", "RegexReplace"), "files, strings and tables are no part of a network"),
    **dict.fromkeys(("NonMaxSuppressionV2", "NonMaxSuppressionV3", "NonMaxSuppressionV4", "NonMaxSuppressionV5",
                     "CombinedNonMaxSuppression"), "the number of results depends on values"),
    "CudnnRNN": "its weights are one opaque vector", "CropAndResize": "ONNX has no operator with its sampling rule",
}
