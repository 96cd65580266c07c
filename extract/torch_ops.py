"""The one table that says what each PyTorch operator becomes: handled, ignored on purpose (with the reason), unsupported.

Keys are ATen names without ``aten::``; ``name.overload`` wins over ``name``. An in-place operator (``relu_``) is found under
its plain name. A composite operator that is in no list is split into its parts, and what then still is in no list becomes
``Unknown``: counted, reported, never dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from extract import torch_layers as layers
from extract import torch_math as maths
from extract import torch_moves as moves
from extract.torch_math import activation, binary, compare, reduction, softmax, unary
from extract.torch_recorder import NO_PARAMS, Ref, shows_all

if TYPE_CHECKING:
    from extract.torch_recorder import Recorder

HANDLED: Final[dict[str, Callable[..., Any]]] = {
    # convolution, dense
    "conv1d": layers.conv, "conv2d": layers.conv, "conv3d": layers.conv, "convolution": layers.convolution,
    "_convolution": layers.convolution,
    "conv_transpose1d": layers.conv_transpose, "conv_transpose2d": layers.conv_transpose,
    "conv_transpose3d": layers.conv_transpose,
    "linear": layers.linear, "embedding": layers.embedding,
    "matmul": maths.matmul, "mm": maths.matmul, "bmm": maths.matmul, "mv": maths.matmul, "dot": maths.matmul,
    "addmm": maths.add_matmul, "baddbmm": maths.add_matmul, "einsum": maths.einsum,
    "scaled_dot_product_attention": maths.attention,
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
    "threshold": activation("ThresholdedRelu", alpha=(1.0, 1.0)),
    "clamp": maths.clip, "clamp_min": maths.clip, "relu6": maths.clip_to(0, 6), "hardtanh": maths.clip_to(-1, 1),
    "clamp_max": lambda r, out, x, limit: maths.clip(r, out, x, None, limit),
    "softmax": softmax("Softmax"), "_softmax": softmax("Softmax"),
    "log_softmax": softmax("LogSoftmax"), "_log_softmax": softmax("LogSoftmax"),
    # pooling
    "max_pool1d": layers.max_pool, "max_pool2d": layers.max_pool, "max_pool3d": layers.max_pool,
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
    "log1p": maths.then_scalar("Add", 1, "Log"), "expm1": maths.then_scalar("Add", -1, "Exp"),
    "eq": compare("Equal"), "ne": compare("Equal", negate=True), "gt": compare("Greater"), "lt": compare("Less"),
    "ge": compare("Less", negate=True), "le": compare("Greater", negate=True),
    "logical_and": binary("And"), "bitwise_and": binary("And"), "logical_or": binary("Or"), "bitwise_or": binary("Or"),
    "logical_not": unary("Not"), "bitwise_not": unary("Not"),
    "where": moves.where, "masked_fill": moves.masked_fill,
    # reductions
    "mean": maths.mean, "sum": reduction("ReduceSum"), "prod": reduction("ReduceProd"),
    "amax": reduction("ReduceMax"), "amin": reduction("ReduceMin"), "logsumexp": reduction("ReduceLogSumExp"),
    "linalg_vector_norm": maths.vector_norm, "norm.ScalarOpt_dim": maths.vector_norm, "norm.Scalar": maths.vector_norm,
    "var": maths.spread(root=False), "std": maths.spread(root=True), "var_mean": maths.spread(False, with_mean=True),
    "std_mean": maths.spread(True, with_mean=True), "max": maths.extreme(True), "min": maths.extreme(False),
    "argmax": maths.arg_extreme("ArgMax"), "argmin": maths.arg_extreme("ArgMin"), "topk": maths.top_k, "sort": maths.sort,
    "cumsum": maths.cumulative,
    # moving values
    "slice": moves.slice_, "select": moves.select, "chunk": moves.split, "split": moves.split,
    "split_with_sizes": moves.split, "unsafe_chunk": moves.split, "unsafe_split": moves.split,
    "unsafe_split_with_sizes": moves.split, "tensor_split": moves.split, "unbind": moves.unbind, "flip": moves.flip,
    "cat": moves.concat, "stack": moves.stack, "pad": moves.pad, "constant_pad_nd": moves.pad, "expand": moves.expand,
    "expand_as": moves.expand, "broadcast_to": moves.expand, "repeat": moves.tile, "tile": moves.tile,
    "repeat_interleave": moves.tile, "roll": moves.roll, "tril": moves.trilu(False), "triu": moves.trilu(True),
    "index": moves.index, "index_select": moves.gather("Gather"), "gather": moves.gather("GatherElements"),
    "scatter": moves.scatter("ScatterElements"), "scatter_add": moves.scatter("ScatterElements"),
    "index_put": moves.scatter("ScatterND"), "index_add": moves.scatter("ScatterND"),
    "masked_scatter": moves.scatter("ScatterND"), "one_hot": moves.one_hot, "grid_sampler": moves.grid_sample,
    "pixel_shuffle": moves.shuffle("DepthToSpace"), "pixel_unshuffle": moves.shuffle("SpaceToDepth"),
    **{f"{name}{overload}": moves.resize(mode) for name, mode in {
        "upsample_nearest1d": "nearest", "upsample_nearest2d": "nearest", "upsample_nearest3d": "nearest",
        "_upsample_nearest_exact1d": "nearest", "_upsample_nearest_exact2d": "nearest", "upsample_linear1d": "linear",
        "upsample_bilinear2d": "linear", "_upsample_bilinear2d_aa": "linear", "upsample_trilinear3d": "linear",
        "upsample_bicubic2d": "cubic", "_upsample_bicubic2d_aa": "cubic"}.items() for overload in ("", ".vec")},
    # recurrent: one node per layer
    "lstm.input": layers.recurrent("LSTM", 4, 2), "gru.input": layers.recurrent("GRU", 3, 1),
    "rnn_tanh.input": layers.recurrent("RNN", 1, 1), "rnn_relu.input": layers.recurrent("RNN", 1, 1),
}

_SAME = "holds every value of its argument exactly once; data movement that computes nothing is contracted"
_CAST = "changes the number format only; shapes and work are recorded, not precision"
_EVAL = "does nothing at inference, and networks are recorded as at inference"
IGNORED: Final[dict[str, str]] = {
    **dict.fromkeys(("view", "_unsafe_view", "view_as", "reshape", "reshape_as", "flatten", "unflatten", "ravel",
                     "squeeze", "unsqueeze", "transpose", "t", "permute", "numpy_T", "mT", "swapaxes", "swapdims",
                     "movedim", "moveaxis", "contiguous", "clone", "alias", "detach", "lift_fresh", "lift",
                     "resolve_conj", "resolve_neg", "positive", "requires_grad", "atleast_2d", "atleast_3d",
                     "channel_shuffle", "native_channel_shuffle"), _SAME),
    **dict.fromkeys(("to", "_to_copy", "type_as", "float", "half", "int", "long", "cpu", "cuda"), _CAST),
    **dict.fromkeys(("dropout", "native_dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"), _EVAL),
}

# The result has the shape of the argument, or of a part of it, but none of its values: a constant.
SHAPE_ONLY: Final = frozenset({
    "zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "new_zeros", "new_ones", "new_full",
    "new_empty", "new_tensor", "sym_size", "size", "is_floating_point", "fill", "zero"})

UNSUPPORTED: Final[dict[str, str]] = {
    "lstm.data": "packed sequences have no static length; pass a padded tensor",
    "gru.data": "packed sequences have no static length; pass a padded tensor",
    "nonzero": "the number of results depends on values", "unique": "the number of results depends on values",
    "masked_select": "the number of results depends on values", "im2col": "ONNX has no operator for it",
    "col2im": "ONNX has no operator for it", "as_strided": "an arbitrary view cannot be told from its shape",
    "view_as_real": "complex numbers have no place in the graph", "view_as_complex": "as view_as_real",
}


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors in nested lists, tuples and dicts, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for v in value:
            yield from tensors_in(v)
    elif isinstance(value, dict):
        for v in value.values():
            yield from tensors_in(v)


def plain_name(func: Any) -> tuple[str, str, bool]:
    """``(name, name.overload, writes into its first argument)``; other namespaces keep theirs: ``torchvision::nms``."""
    name = func._schema.name.removeprefix("aten::")
    in_place = name.endswith("_") and not name.endswith("__")
    name = name[:-1] if in_place else {"__and__": "logical_and", "__or__": "logical_or"}.get(name, name)
    return name, f"{name}.{func._overloadname}", in_place


def record(r: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run one operator, and write down what it is."""
    tensors = list(tensors_in((args, kwargs)))
    original = args
    args, kwargs = r.on_one_device(tensors, args, kwargs)
    if args is not original:
        tensors = list(tensors_in((args, kwargs)))
    name, full_name, in_place = plain_name(func)
    if not any(r.is_live(t) for t in tensors):
        out = func(*args, **kwargs)
        params = NO_PARAMS.union(*(r.params_in(t) for t in tensors)) if name not in SHAPE_ONLY else NO_PARAMS
        for t in tensors_in(out):
            for same in [t, *r.on_storage(t)] if in_place else [t]:
                r.make_constant(same, params | r.params_in(same) if in_place else params)
        return out
    if name == "copy":
        return _copy(r, func, args, kwargs)
    if name in SHAPE_ONLY:
        out = func(*args, **kwargs)
        return _write_constant(r, out) if in_place else _all_constant(r, out)
    if name in IGNORED and full_name not in HANDLED:
        source = r.ref(tensors[0])
        out = func(*args, **kwargs)
        r.ignored[name] += 1
        for t in tensors_in(out):
            r.make_live(t, source.node)
        return out
    handler = HANDLED.get(full_name) or HANDLED.get(name)
    if handler is None and full_name not in UNSUPPORTED and name not in UNSUPPORTED and func._can_decompose():
        with r:
            out = func.decompose(*args, **kwargs)
        if out is not NotImplemented:
            return out
    out = run(func, args, kwargs, tensors)
    refs = _unknown(r, func, tensors, out) if handler is None else handler(r, out, *args, **kwargs)
    if in_place:
        _write(r, out, refs if isinstance(refs, Ref) else refs[0])
        return out
    values = [refs] if isinstance(refs, Ref) else refs
    for i, t in enumerate(tensors_in(out)):
        value = values[i] if i < len(values) else None
        if value is None:  # an output that ONNX does not know (positions of a maximum); it is pruned if nobody reads it
            value = r.node("Unknown", tensors[:1], t.shape, name=name, output=i)
        r.make_live(t, value.node)
    return out


# call -> (whether it returns a tuple, shape, strides and dtype of each result); for the whole process
_RESULTS: dict[Any, tuple[bool, list[tuple[Any, ...]]]] = {}
_MANY: Final = 50_000


def run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: list[Tensor]) -> Any:
    """``func(*args, **kwargs)``; on meta tensors an equal earlier call tells the result (networks repeat themselves).

    Meta kernels are written in Python and take up to milliseconds. Only results that are new, dense tensors are
    remembered: not views, not in-place operators, not lists of parts.
    """
    if not all(t.is_meta for t in tensors):
        return func(*args, **kwargs)
    try:
        key = (func, _call_key(args), _call_key(kwargs))
        known = _RESULTS.get(key)
    except TypeError:  # an argument that cannot be hashed
        return func(*args, **kwargs)
    if known is not None:
        made = tuple(torch.empty_strided(shape, stride, dtype=dtype, device="meta") for shape, stride, dtype in known[1])
        return made if known[0] else made[0]
    out = func(*args, **kwargs)
    outs = out if isinstance(out, tuple) else (out,)
    if all(isinstance(t, Tensor) and shows_all(t) for t in outs):
        storages = [t.untyped_storage()._cdata for t in (*outs, *tensors)]
        if len({*storages[:len(outs)]}) == len(outs) and not {*storages[:len(outs)]} & {*storages[len(outs):]}:
            if len(_RESULTS) >= _MANY:
                _RESULTS.clear()
            _RESULTS[key] = isinstance(out, tuple), [(tuple(t.shape), t.stride(), t.dtype) for t in outs]
    return out


def _call_key(value: Any) -> Any:
    if isinstance(value, Tensor):
        return Tensor, value.shape, value.stride(), value.dtype
    if isinstance(value, list | tuple):
        return tuple(map(_call_key, value))
    if isinstance(value, dict):
        return tuple((k, _call_key(v)) for k, v in value.items())
    return type(value), value  # 1 == 1.0 == True


def _unknown(r: Recorder, func: Any, tensors: list[Tensor], out: Any) -> list[Ref]:
    """One ``Unknown`` node for each output, fed by every tensor of the call that is live or holds parameters."""
    name, full_name, _ = plain_name(func)
    reason = UNSUPPORTED.get(full_name) or UNSUPPORTED.get(name) or "it is not in the table of operators"
    r.note(f"{name} in {r.where()} became an Unknown node: {reason}")
    inputs = [t for t in tensors if r.is_live(t) or r.params_in(t)]
    return [r.node("Unknown", inputs, t.shape, name=name, attrs=({"output": i} if i else {}))
            for i, t in enumerate(tensors_in(out))]


def _all_constant(r: Recorder, out: Any) -> Any:
    for t in tensors_in(out):
        r.make_constant(t, NO_PARAMS)
    return out


def _write(r: Recorder, target: Tensor, value: Ref) -> None:
    """``target`` now is ``value``, and so is, in part or in full, every other tensor on its storage."""
    others = r.on_storage(target)
    r.forget_parts(target)
    if shows_all(target):
        r.make_live(target, value.node)
        for t in others:
            if shows_all(t):
                r.make_live(t, value.node)
        return
    whole = [t for t in others if shows_all(t)]
    if not whole:
        r.make_live(target, value.node)
        r.note(f"{r.where()} writes into a part of a tensor that was never seen as a whole; other parts keep the old values")
        return
    written = r.node("ScatterND", [whole[0], value], whole[0].shape)
    for t in whole:
        r.make_live(t, written.node)
    r.make_live(target, value.node)


def _write_constant(r: Recorder, target: Tensor) -> Tensor:
    """``target.zero_()`` and ``fill_``: a constant if all of it is overwritten."""
    if shows_all(target):
        for t in [target, *r.on_storage(target)]:
            r.make_constant(t, NO_PARAMS)
    else:
        r.make_constant(target, NO_PARAMS)
        _write(r, target, r.ref(target))
    return target


def _copy(r: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``target.copy_(source)``, which is also ``target[…] = source``."""
    target, source = args[0], args[1]
    value = r.ref(source)
    out = func(*args, **kwargs)
    if target.numel() != source.numel():
        value = r.node("Expand", [value], target.shape)
    _write(r, target, Ref(value.node, tuple(target.shape)))
    return out
