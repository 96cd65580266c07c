"""The one table that says what each PyTorch operator becomes: handled, ignored on purpose (with the reason), unsupported.

Keys are ATen names without ``aten::``; ``name.overload`` wins over ``name``. An in-place operator (``relu_``) is found under
its plain name. A composite operator that is in no list is split into its parts, and what then still is in no list becomes
``Unknown``: counted, reported, never dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from extract import torch_bounds as bounds
from extract import torch_complex as complexes
from extract import torch_detection as detection
from extract import torch_formulas as formulas
from extract import torch_layers as layers
from extract import torch_math as maths
from extract import torch_moves as moves
from extract import torch_products as products
from extract import torch_reductions as reductions
from extract import torch_windows as windows
from extract.torch_math import activation, binary, compare, unary
from extract.torch_primitive import primitive_node
from extract.torch_reductions import reduction, softmax

HANDLED: Final[dict[str, Callable[..., Any]]] = {
    # convolution, dense
    "conv1d": layers.conv, "conv2d": layers.conv, "conv3d": layers.conv, "convolution": layers.convolution,
    "_convolution": layers.convolution,
    "conv_transpose1d": layers.conv_transpose, "conv_transpose2d": layers.conv_transpose,
    "conv_transpose3d": layers.conv_transpose,
    "linear": layers.linear, "embedding": layers.embedding,
    "_embedding_bag": layers.embedding_bag, "_embedding_bag_forward_only": layers.embedding_bag,
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot"), products.matmul),
    "vdot": products.matmul, "inner": products.inner, "addmm": products.add_matmul, "addmv": products.add_matmul,
    "baddbmm": products.add_matmul, "einsum": products.einsum, "bilinear": products.bilinear,
    "scaled_dot_product_attention": products.attention,
    # normalisation
    "batch_norm": layers.norm("BatchNormalization"), "instance_norm": layers.norm("InstanceNormalization"),
    "native_batch_norm": layers.norm("BatchNormalization"),
    "_native_batch_norm_legit_no_training": layers.norm("BatchNormalization"),
    "layer_norm": layers.layer_norm, "native_layer_norm": layers.layer_norm, "rms_norm": layers.rms_norm,
    "group_norm": layers.group_norm,
    # activations
    "relu": unary("Relu"), "sigmoid": unary("Sigmoid"), "tanh": unary("Tanh"), "silu": unary("Swish"),
    "gelu": maths.gelu, "hardswish": unary("HardSwish"), "mish": unary("Mish"), "selu": unary("Selu"),
    "erf": unary("Erf"), "log_sigmoid": unary("Sigmoid", "Log"), "prelu": layers.prelu, "glu": maths.glu,
    "leaky_relu": activation("LeakyRelu", alpha=(0.01, 0.01)), "elu": activation("Elu", alpha=(1.0, 1.0)),
    "celu": activation("Celu", alpha=(1.0, 1.0)), "softplus": activation("Softplus", beta=(1.0, 1.0)),
    "hardsigmoid": lambda r, out, x: r.node("HardSigmoid", [x], out.shape, alpha=maths.number(1 / 6)),
    "rrelu": layers.random_leaky_relu, "threshold": activation("ThresholdedRelu", alpha=(1.0, 1.0)),
    "clamp": maths.clip, "clamp_min": maths.clip, "relu6": maths.clip_to(0, 6), "hardtanh": maths.clip_to(-1, 1),
    "clamp_max": lambda r, out, x, limit: maths.clip(r, out, x, None, limit),
    "softmax": softmax("Softmax"), "_softmax": softmax("Softmax"),
    "log_softmax": softmax("LogSoftmax"), "_log_softmax": softmax("LogSoftmax"),
    # pooling
    "max_pool1d": layers.max_pool, "max_pool2d": layers.max_pool, "max_pool3d": layers.max_pool,
    "max_unpool2d": layers.max_unpool, "max_unpool3d": layers.max_unpool,
    "fractional_max_pool2d": layers.fractional_pool, "fractional_max_pool3d": layers.fractional_pool,
    "max_pool2d_with_indices": layers.max_pool, "max_pool3d_with_indices": layers.max_pool,
    "avg_pool1d": layers.avg_pool, "avg_pool2d": layers.avg_pool, "avg_pool3d": layers.avg_pool,
    "adaptive_avg_pool1d": layers.adaptive_pool("Average"), "adaptive_avg_pool2d": layers.adaptive_pool("Average"),
    "adaptive_avg_pool3d": layers.adaptive_pool("Average"), "_adaptive_avg_pool2d": layers.adaptive_pool("Average"),
    "adaptive_max_pool1d": layers.adaptive_pool("Max"), "adaptive_max_pool2d": layers.adaptive_pool("Max"),
    "adaptive_max_pool3d": layers.adaptive_pool("Max"),
    # arithmetic
    "add": binary("Add"), "sub": binary("Sub"), "rsub": maths.reverse_sub, "mul": binary("Mul"), "div": binary("Div"),
    "floor_divide": lambda r, out, x, y: binary("Div")(r, out, x, y, rounding_mode="floor"),
    "remainder": binary("Mod"), "fmod": binary("Mod"), "pow": binary("Pow"),
    "maximum": binary("Max"), "minimum": binary("Min"), "square": maths.power(2), "addcmul": maths.multiply_add("Mul"),
    "addcdiv": maths.multiply_add("Div"), "lerp": maths.lerp,
    "sqrt": unary("Sqrt"), "rsqrt": unary("Sqrt", "Reciprocal"), "reciprocal": unary("Reciprocal"), "exp": unary("Exp"),
    "log": unary("Log"), "abs": unary("Abs"), "neg": unary("Neg"), "floor": unary("Floor"), "ceil": unary("Ceil"),
    "round": unary("Round"), "sign": unary("Sign"), "sin": unary("Sin"), "cos": unary("Cos"),
    **formulas.HANDLERS,
    "eq": compare("Equal"), "ne": compare("Equal", negate=True), "gt": compare("Greater"), "lt": compare("Less"),
    "ge": compare("Less", negate=True), "le": compare("Greater", negate=True),
    "logical_and": binary("And"), "bitwise_and": binary("And"), "logical_or": binary("Or"), "bitwise_or": binary("Or"),
    "logical_not": unary("Not"), "bitwise_not": unary("Not"),
    **dict.fromkeys(("where.self", "where.ScalarOther", "where.ScalarSelf", "where.Scalar"), moves.where),
    "masked_fill": moves.masked_fill,
    # reductions
    "mean": reductions.mean, "sum": reduction("ReduceSum"), "prod": reduction("ReduceProd"),
    "amax": reduction("ReduceMax"), "amin": reduction("ReduceMin"), "logsumexp": reduction("ReduceLogSumExp"),
    **dict.fromkeys(("linalg_vector_norm", "norm.ScalarOpt_dim", "norm.Scalar"), reductions.vector_norm),
    "var": reductions.spread(root=False), "std": reductions.spread(root=True),
    "var_mean": reductions.spread(root=False, with_mean=True), "std_mean": reductions.spread(root=True, with_mean=True),
    "max": reductions.extreme(True), "min": reductions.extreme(False), "argmax": reductions.arg_extreme("ArgMax"),
    "argmin": reductions.arg_extreme("ArgMin"), "topk": reductions.top_k, "sort": reductions.sort,
    "any": reduction("ReduceMax"), "all": reduction("ReduceMin"), "count_nonzero": reductions.count,
    "aminmax": reductions.both_extremes, "nansum": reductions.sum_without_nan, "kthvalue": reductions.kth_value,
    "median": reductions.median, "nanmedian": reductions.median, "cumsum": reductions.cumulative,
    "logcumsumexp": reductions.log_of_running_sum, "cdist": reductions.distances, "_cdist_forward": reductions.distances,
    "dist": reductions.distance, "bucketize.Tensor": reductions.bucketize,
    "searchsorted.Tensor": reductions.search_sorted,
    # moving values
    "slice": moves.slice_, "select": moves.select, "chunk": moves.split, "split": moves.split,
    "split_with_sizes": moves.split, "unsafe_chunk": moves.split, "unsafe_split": moves.split,
    "unsafe_split_with_sizes": moves.split, "tensor_split": moves.split, "unbind": moves.unbind, "flip": moves.flip,
    "diagonal": moves.diagonal, "cat": moves.concat, "stack": moves.stack, "pad": moves.pad,
    "constant_pad_nd": moves.pad, "expand": moves.expand, "expand_as": moves.expand, "broadcast_to": moves.expand,
    "repeat": moves.tile, "tile": moves.tile, "repeat_interleave": moves.tile, "roll": moves.roll,
    "tril": moves.trilu(False), "triu": moves.trilu(True),
    "index": moves.index, "_unsafe_index": moves.index, "take": moves.take, "index_select": moves.gather("Gather"),
    "gather": moves.gather("GatherElements"),
    "scatter": moves.scatter("ScatterElements"), "scatter_add": moves.scatter("ScatterElements"),
    "index_put": moves.index_put, "index_add": moves.scatter("ScatterND"),
    **dict.fromkeys(("masked_scatter", "index_copy", "slice_scatter", "select_scatter", "diagonal_scatter",
                     "as_strided_scatter", "index_reduce", "put"), moves.scatter("ScatterND")),
    "scatter_reduce": moves.scatter("ScatterElements"),
    "one_hot": moves.one_hot, **dict.fromkeys(("grid_sampler", "grid_sampler_2d", "grid_sampler_3d"), moves.grid_sample),
    "affine_grid_generator": lambda r, out, theta, *rest: r.node("AffineGrid", [theta], out.shape),
    "pixel_shuffle": moves.shuffle("DepthToSpace"), "pixel_unshuffle": moves.shuffle("SpaceToDepth"),
    **{f"{name}{overload}": moves.resize(mode) for name, mode in {
        "upsample_nearest1d": "nearest", "upsample_nearest2d": "nearest", "upsample_nearest3d": "nearest",
        "_upsample_nearest_exact1d": "nearest", "_upsample_nearest_exact2d": "nearest", "upsample_linear1d": "linear",
        "upsample_bilinear2d": "linear", "_upsample_bilinear2d_aa": "linear", "upsample_trilinear3d": "linear",
        "upsample_bicubic2d": "cubic", "_upsample_bicubic2d_aa": "cubic"}.items() for overload in ("", ".vec")},
    # complex numbers; operators on them are in torch_complex
    **complexes.HANDLERS,
    # windows and strided views
    "unfold": windows.unfold, "im2col": windows.im2col, "col2im": windows.col2im, "as_strided": windows.as_strided,
    # sizes that depend on values, at their largest; regions
    **dict.fromkeys(("nonzero", "nonzero_static", "argwhere"), bounds.nonzero),
    "where.default": bounds.where, "nonzero_numpy": bounds.where, "masked_select": bounds.masked_select,
    "_unique2": bounds.unique, "unique_consecutive": bounds.unique, **detection.HANDLERS,
    # recurrent: one node per layer
    "lstm.input": layers.recurrent("LSTM", 4, 2), "gru.input": layers.recurrent("GRU", 3, 1),
    "rnn_tanh.input": layers.recurrent("RNN", 1, 1), "rnn_relu.input": layers.recurrent("RNN", 1, 1),
    # parts of operators that torch describes in its own primitives
    "prims::broadcast_in_dim": moves.broadcast, "prims::where": moves.where, "prims::rev": moves.flip,
    "prims::slice": moves.slice_all,
    # any operator of the vocabulary, by name
    "cgtransfer::primitive": primitive_node,
}

_SAME = "holds every value of its argument exactly once; data movement that computes nothing is contracted"
_CAST = "changes the number format only; shapes and work are recorded, not precision"
_EVAL = "does nothing at inference, and networks are recorded as at inference"
IGNORED: Final[dict[str, str]] = {
    **dict.fromkeys(("view", "_unsafe_view", "view_as", "reshape", "reshape_as", "flatten", "unflatten", "ravel",
                     "squeeze", "unsqueeze", "transpose", "t", "permute", "numpy_T", "mT", "swapaxes", "swapdims",
                     "movedim", "moveaxis", "contiguous", "clone", "alias", "detach", "lift_fresh", "lift",
                     "resolve_conj", "resolve_neg", "positive", "requires_grad", "atleast_2d", "atleast_3d",
                     "channel_shuffle", "native_channel_shuffle", "prims::split_dim", "prims::collapse",
                     "prims::collapse_view", "prims::view_of"), _SAME),
    **dict.fromkeys(("to", "_to_copy", "type_as", "float", "half", "int", "long", "cpu", "cuda",
                     "prims::convert_element_type"), _CAST),
    **dict.fromkeys(("dropout", "native_dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"), _EVAL),
}

# Asked for the results of an operator before it runs; ``None``: it can run.
BOUNDS: Final = {**bounds.BOUNDS, **detection.SIZES}

# The result has the shape of the argument, or of a part of it, but none of its values: a constant.
SHAPE_ONLY: Final = frozenset({
    "zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "new_zeros", "new_ones", "new_full",
    "new_empty", "new_empty_strided", "new_tensor", "randint_like", "normal", "uniform", "exponential", "cauchy",
    "log_normal", "geometric", "random", "sym_size", "size", "is_floating_point", "fill", "zero"})

UNSUPPORTED: Final[dict[str, str]] = {
    "lstm.data": "packed sequences have no static length; pass a padded tensor",
    "gru.data": "packed sequences have no static length; pass a padded tensor",
}
