"""Handlers of operators with trained weights, and of pooling: ATen call -> nodes in the form ``GraphBuilder`` makes.

A handler is called after the operator ran, as ``handler(recorder, output, *arguments of the operator)``, and returns the
value of the output, or a list with one entry for each output. Parameter names and defaults are those of the operator.
Norms keep no epsilon and no running statistics: neither is trained, and no search space varies them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from extract.torch_recorder import Recorder, Ref

Ints = int | Sequence[int]


def many(value: Ints, n: int) -> tuple[int, ...]:
    """An integer, or a list of one, repeated ``n`` times; a list of ``n`` is taken as it is."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * n if len(values) == 1 else values


def conv(r: Recorder, out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Ints = 1,
         padding: Ints | str = 0, dilation: Ints = 1, groups: int = 1) -> Ref:
    """1-, 2- and 3-D. ``pads`` lists all begins, then all ends; 'same' puts the odd value at the end."""
    kernel = tuple(weight.shape[2:])
    n = len(kernel)
    d = many(dilation, n)
    if padding == "same":
        totals = [d[i] * (kernel[i] - 1) for i in range(n)]
        pads = (*(t // 2 for t in totals), *(t - t // 2 for t in totals))
    else:
        pads = many(0 if isinstance(padding, str) else padding, n) * 2
    attrs = {"dilations": d, "group": groups, "kernel_shape": kernel, "pads": pads, "strides": many(stride, n)}
    return _weighted(r, "Conv", out, x, weight, bias, attrs)


def conv_transpose(r: Recorder, out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Ints = 1,
                   padding: Ints = 0, output_padding: Ints = 0, groups: int = 1, dilation: Ints = 1) -> Ref:
    kernel = tuple(weight.shape[2:])
    n = len(kernel)
    attrs: dict[str, Any] = {"dilations": many(dilation, n), "group": groups, "kernel_shape": kernel,
                             "pads": many(padding, n) * 2, "strides": many(stride, n)}
    if any(many(output_padding, n)):
        attrs["output_padding"] = many(output_padding, n)
    return _weighted(r, "ConvTranspose", out, x, weight, bias, attrs)


def convolution(r: Recorder, out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Ints, padding: Ints,
                dilation: Ints, transposed: bool, output_padding: Ints, groups: int, *backend: bool) -> Ref:
    """The general form of both, seen where a model leaves inference mode and in models from ``torch.jit.trace``."""
    if transposed:
        return conv_transpose(r, out, x, weight, bias, stride, padding, output_padding, groups, dilation)
    return conv(r, out, x, weight, bias, stride, padding, dilation, groups)


def _weighted(r: Recorder, op: str, out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None,
              attrs: dict[str, Any]) -> Ref:
    """A weight that depends on the input (a dynamic convolution) is the second argument and counts no parameters.

    If only the weight does, ``x`` is a constant and gets its ``Constant`` node like any other argument.
    """
    shape = tuple(weight.shape)
    live = r.is_live(weight)
    if bias is not None and r.is_live(bias):
        y = r.node(op, [x, weight] if live else [x], out.shape, [] if live else [weight], shape, **attrs)
        return r.node("Add", [y, Ref(r.ref(bias).node, (bias.numel(), *(1,) * (out.ndim - 2)))], out.shape)
    inputs, weights = ([x, weight], [bias]) if live else ([x], [weight, bias])
    return r.node(op, inputs, out.shape, weights, shape, bias is not None, **attrs)


def norm(op: str) -> Callable[..., Ref]:
    """Normalisation ``(x, weight, bias, …)`` without attributes: batch and instance normalisation."""

    def handler(r: Recorder, out: Any, x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None,
                *rest: Any, **more: Any) -> Ref:
        return _normalised(r, op, x, weight, bias)

    return handler


def layer_norm(r: Recorder, out: Any, x: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None,
               bias: Tensor | None = None, *rest: Any) -> Ref:
    return _normalised(r, "LayerNormalization", x, weight, bias, axis=-len(normalized_shape))


def rms_norm(r: Recorder, out: Tensor, x: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None,
             eps: float | None = None) -> Ref:
    return _normalised(r, "RMSNormalization", x, weight, None, axis=-len(normalized_shape))


def group_norm(r: Recorder, out: Tensor, x: Tensor, num_groups: int, weight: Tensor | None = None,
               bias: Tensor | None = None, *rest: Any) -> Ref:
    return _normalised(r, "GroupNormalization", x, weight, bias, num_groups=num_groups)


def _normalised(r: Recorder, op: str, x: Tensor, weight: Tensor | None, bias: Tensor | None, **attrs: Any) -> Ref:
    """A scale or offset that depends on the input (adaptive normalisation) becomes ``Mul`` and ``Add``."""
    shape = tuple(x.shape)
    dynamic = [w for w in (weight, bias) if w is not None and r.is_live(w)]
    if not dynamic:
        scale = () if weight is None else tuple(weight.shape)
        return r.node(op, [x], shape, [weight, bias], scale, bool(scale) and bias is not None, **attrs)
    y = r.node(op, [x], shape, **attrs)
    for step, w in (("Mul", weight), ("Add", bias)):
        if w is not None:
            y = r.node(step, [y, w], shape)
    return y


def linear(r: Recorder, out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Ref:
    if r.is_live(weight):
        y = r.node("MatMul", [x, Ref(r.ref(weight).node, tuple(weight.shape[::-1]))], out.shape)
        return y if bias is None else r.node("Add", [y, bias], out.shape)
    if bias is not None and r.is_live(bias):
        return r.node("Add", [linear(r, out, x, weight), bias], out.shape)
    return r.node("Gemm", [x], out.shape, [weight, bias], tuple(weight.shape), bias is not None)


def embedding(r: Recorder, out: Tensor, weight: Tensor, indices: Tensor, *rest: Any) -> Ref:
    if r.is_live(weight):
        return r.node("Gather", [weight, indices], out.shape, axis=0)
    return r.node("Embedding", [indices], out.shape, [weight], tuple(weight.shape))


def embedding_bag(r: Recorder, out: Any, weight: Tensor, indices: Tensor, offsets: Tensor, scale_grad: bool = False,
                  mode: int = 0, sparse: bool = False, per_sample_weights: Tensor | None = None,
                  include_last_offset: bool = False, *rest: Any) -> list[Ref | None]:
    """Rows of the table, and their sum, mean or maximum in each bag. Bags of unknown lengths are taken to be equal."""
    n, bags, width = indices.numel(), out[0].shape[0], out[0].shape[1]
    if n % max(bags, 1):
        r.note(f"bags of different lengths in {r.where()} are recorded as if each held all")
        return [r.node("Embedding", [indices], (bags, width), [weight], tuple(weight.shape)), None, None, None]
    rows = (r.node("Gather", [weight, indices], (n, width), axis=0) if r.is_live(weight)
            else r.node("Embedding", [indices], (n, width), [weight], tuple(weight.shape)))
    if per_sample_weights is not None:
        rows = r.node("Mul", [rows, Ref(r.ref(per_sample_weights).node, (n, 1))], (n, width))
    op = ("ReduceSum", "ReduceMean", "ReduceMax")[mode]
    bagged = Ref(rows.node, (bags, n // bags, width))
    return [r.node(op, [bagged], (bags, 1, width), axes=(1,)), None, None, None]


def random_leaky_relu(r: Recorder, out: Tensor, x: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, *rest: Any) -> Ref:
    """At inference the slope is the middle of its range."""
    return r.node("LeakyRelu", [x], out.shape, alpha=float(f"{(lower + upper) / 2:.6g}"))


def prelu(r: Recorder, out: Tensor, x: Tensor, weight: Tensor) -> Ref:
    if r.is_live(weight):
        return r.node("PRelu", [x, weight], out.shape)
    return r.node("PRelu", [x], out.shape, [weight], tuple(weight.shape))


def recurrent(op: str, gates: int, n_states: int) -> Callable[..., list[Ref]]:
    """LSTM, GRU or RNN: one node per layer, both directions inside it, whatever the number of time steps.

    The final states are slices of the output sequences (joined over layers). ONNX has them as outputs of their own; one
    tensor per node cannot say that, and the cell state of an LSTM is shown as its hidden state, which has its shape.
    """

    def handler(r: Recorder, out: Any, x: Tensor, hx: Any, params: Sequence[Tensor], has_biases: bool, num_layers: int,
                dropout: float, train: bool, bidirectional: bool, batch_first: bool) -> list[Ref]:
        directions = 2 if bidirectional else 1
        states = [h for h in (hx if isinstance(hx, list | tuple) else [hx]) if r.is_live(h)]
        per_layer = len(params) // num_layers
        value, time = r.ref(x), x.ndim - 2
        if x.ndim == 3 and not batch_first:  # permutations are contracted: both layouts are (batch, time, features)
            value = Ref(value.node, (x.shape[1], x.shape[0], x.shape[2]))
        last: list[Ref] = []
        for layer in range(num_layers):
            weights = list(params[layer * per_layer:(layer + 1) * per_layer])
            hidden = weights[0].shape[0] // gates
            matrices = [w for w in weights if w.ndim == 2]
            attrs: dict[str, Any] = {"hidden_size": hidden, "macs_per_step": sum(w.numel() for w in matrices)}
            if bidirectional:
                attrs["direction"] = "bidirectional"
            width = directions * (matrices[-1].shape[0] if len(matrices) == 3 * directions else hidden)
            shape = (*value.shape[:-1], width)
            value = r.node(op, [value, *states], shape, weights, **attrs)
            last.append(r.cut(value, time, shape[time] - 1, shape[time]))
        state = last[0]
        if len(last) > 1:
            joined = (*state.shape[:-1], sum(s.shape[-1] for s in last))
            state = r.node("Concat", last, joined, axis=len(joined) - 1)
        return [value] + [state] * n_states

    return handler


def max_pool(r: Recorder, out: Any, x: Tensor, kernel_size: Ints, stride: Ints = (), padding: Ints = 0,
             dilation: Ints = 1, ceil_mode: bool = False) -> list[Ref]:
    """With the positions of the maxima, if the call returns them: a node of its own, as for ``TopK``."""
    n = len(many(kernel_size, x.ndim - 2))
    more: dict[str, Any] = {"dilations": many(dilation, n)} if any(d != 1 for d in many(dilation, n)) else {}
    outputs: list[dict[str, Any]] = [{}] if isinstance(out, Tensor) else [{}, {"output": 1}]
    return [_pool(r, "MaxPool", out, x, kernel_size, stride, padding, ceil_mode, more | output) for output in outputs]


def max_unpool(r: Recorder, out: Tensor, x: Tensor, indices: Tensor, *rest: Any) -> Ref:
    """Values go to where they were the greatest; the rest is zero."""
    return r.node("ScatterElements", [r.constant(out.shape), indices, x], out.shape)


def fractional_pool(r: Recorder, out: Any, x: Tensor, kernel_size: Ints, output_size: Ints, samples: Tensor) -> list[Ref]:
    """Windows at random places: as an adaptive pool whose windows overlap, without strides."""
    n = x.ndim - 2
    attrs: dict[str, Any] = {"kernel_shape": many(kernel_size, n), "output_size": many(output_size, n)}
    return [r.node("MaxPool", [x], out[0].shape, attrs=attrs), r.node("MaxPool", [x], out[0].shape, attrs=attrs, output=1)]


def avg_pool(r: Recorder, out: Tensor, x: Tensor, kernel_size: Ints, stride: Ints = (), padding: Ints = 0,
             ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None) -> Ref:
    n = len(many(kernel_size, x.ndim - 2))
    more: dict[str, Any] = {"count_include_pad": bool(count_include_pad and any(many(padding, n)))}
    if divisor_override is not None:
        more["divisor_override"] = divisor_override
    return _pool(r, "AveragePool", out, x, kernel_size, stride, padding, ceil_mode, more)


def _pool(r: Recorder, op: str, out: Any, x: Tensor, kernel_size: Ints, stride: Ints, padding: Ints, ceil_mode: bool,
          more: dict[str, Any]) -> Ref:
    n = x.ndim - 2
    kernel = many(kernel_size, n)
    strides = kernel if stride is None or stride == [] or stride == () else many(stride, n)
    result = out if isinstance(out, Tensor) else out[0]
    return r.node(op, [x], result.shape, ceil_mode=bool(ceil_mode), kernel_shape=kernel, pads=many(padding, n) * 2,
                  strides=strides, **more)


def adaptive_pool(kind: str) -> Callable[..., list[Ref | None]]:
    """One output cell: ``Global…Pool``. Output as large as the input: nothing. Sizes that divide: the plain pool of that
    window. Otherwise the windows differ in size, and the plain pool keeps ``output_size`` instead of a window.
    """

    def handler(r: Recorder, out: Any, x: Tensor, output_size: Ints, *rest: Any) -> list[Ref | None]:
        result = out if isinstance(out, Tensor) else out[0]
        n = len(many(output_size, _adaptive_rank(x, output_size)))
        size, cells = tuple(x.shape[-n:]), tuple(result.shape[-n:])
        op = "AveragePool" if kind == "Average" else "MaxPool"
        if all(c == 1 for c in cells):
            return [r.node(f"Global{op}", [x], result.shape), None]
        if size == cells:
            return [r.ref(x), None]
        if any(s % c for s, c in zip(size, cells, strict=True)):
            return [r.node(op, [x], result.shape, output_size=cells), None]
        window = tuple(s // c for s, c in zip(size, cells, strict=True))
        more = {"count_include_pad": False} if kind == "Average" else {}
        return [r.node(op, [x], result.shape, ceil_mode=False, kernel_shape=window, pads=(0,) * (2 * n),
                       strides=window, attrs=more), None]

    return handler


def _adaptive_rank(x: torch.Tensor, output_size: Ints) -> int:
    """Number of pooled axes; the operator always gets a list, except in one dimension."""
    return 1 if isinstance(output_size, int) else len(output_size)
