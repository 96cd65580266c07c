"""Handlers of normalisation: the spelled-out forms that ``tensorflow_fusion`` finds, and the fused operators."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from extract.tensorflow_layers import is_last
from extract.tensorflow_values import Value

if TYPE_CHECKING:
    from extract.tensorflow_program import Call


def _vector(value: Value | None) -> Tensor | None:
    if value is None:
        return None
    return value.tensor if value.rank == 1 else value.plain().reshape(-1)


def batch_norm(call: Call) -> Value:
    """``(x, mean, variance)``, named ``gamma`` and ``beta``: constants with one number for each channel."""
    x, mean, variance = (call.value(i) for i in range(3))
    gamma, beta = call.maybe("gamma"), call.maybe("beta")
    given = [v for v in (gamma, beta, variance, mean) if v is not None]
    axis = x.rank - 1
    for v in given:
        long = [a - v.rank for a, d in enumerate(v.shape) if d != 1]
        if len(long) == 1:
            axis = x.rank + long[0]
            break
    channels = x.shape[axis]
    if any(v.tensor.numel() != channels for v in given):
        return _spelled_out(call, x, mean, variance, gamma, beta)
    first = axis == x.rank - 1
    t = x.plain() if x.rank == 2 or not first else x.channels_first()
    if not first and axis != 1:
        t = t.movedim(axis, 1)
    weight = None if gamma is None else _vector(gamma)
    offset = None if beta is None else _vector(beta)
    if weight is None and offset is not None:
        weight = torch.ones(channels, device="meta")
    y = F.batch_norm(t, _vector(mean), _vector(variance), weight, offset)
    if not first:
        return Value.of(y if axis == 1 else y.movedim(1, axis))
    return Value.of(y) if x.rank == 2 else Value.first(y)


def fused_batch_norm(call: Call) -> list[Value | None]:
    """FusedBatchNorm, V2, V3 with ``(x, scale, offset, mean, variance)``, at inference."""
    x, scale, offset, mean, variance = (call.value(i) for i in range(5))
    t = x.channels_first() if is_last(call.node) else x.plain()
    empty = mean.tensor.numel() == 0  # statistics of this batch: the node is in training mode
    if empty or call.attr("is_training", False):
        call.note(f"{call.node} is in training mode; it is recorded as at inference")
        mean = variance = Value.of(torch.empty(t.shape[1], device="meta"))
    y = F.batch_norm(t, mean.tensor, variance.tensor, scale.tensor, offset.tensor)
    value = Value.first(y) if is_last(call.node) else Value.of(y)
    return [value, mean, variance, mean, variance, mean]


def _spelled_out(call: Call, x: Value, mean: Value, variance: Value, gamma: Value | None, beta: Value | None) -> Value:
    tensors, order = call.aligned(x, mean, variance, *(v for v in (gamma, beta) if v is not None))
    scale = torch.rsqrt(tensors[2])
    scale = scale if gamma is None else scale * tensors[3]
    shift = tensors[1] * scale
    shift = -shift if beta is None else tensors[-1] - shift
    return Value(tensors[0] * scale + shift, order)


def moment_norm(call: Call) -> Value:
    """``(x)`` normalised by its own mean and variance over ``axes``: layer or instance normalisation."""
    x = call.value(0)
    axes = sorted({a % x.rank for a in call.ints("axes")})
    gamma, beta = call.maybe("gamma"), call.maybe("beta")
    shape = tuple(x.shape[axes[0]:])
    if axes == list(range(axes[0], x.rank)) and axes[0] > 0 and all(
            v is None or v.tensor.numel() == prod(shape) for v in (gamma, beta)):
        weight, bias = (None if v is None else v.plain().reshape(shape) for v in (gamma, beta))
        if weight is None and bias is not None:
            weight = torch.ones(shape, device="meta")
        return Value.of(F.layer_norm(x.plain(), shape, weight, bias))
    if axes == list(range(1, x.rank - 1)) and x.rank > 2 and all(
            v is None or v.tensor.numel() == x.shape[-1] for v in (gamma, beta)):
        y = F.instance_norm(x.channels_first(), None, None, _vector(gamma), _vector(beta))
        return Value.first(y)
    physical = [x.order[a] for a in axes]
    t = x.tensor
    mean = t.mean(physical, keepdim=True)
    centred = t - mean
    y = centred * torch.rsqrt((centred * centred).mean(physical, keepdim=True) + 1e-5)
    value = Value(y, x.order)
    for v, op in ((gamma, torch.mul), (beta, torch.add)):
        if v is not None:
            tensors, order = call.aligned(value, v)
            value = Value(op(*tensors), order)
    return value


def group_norm(call: Call) -> Value:
    """``(x)`` reshaped to ``groups``, normalised, and reshaped ``to`` its own shape again."""
    x = call.value(0)
    gamma, beta = call.maybe("gamma"), call.maybe("beta")
    shape = list(x.plain().shape)
    grouped = call.ints("groups")
    axes = sorted({a % len(grouped) for a in call.ints("axes")})
    channels = shape[-1]
    fits = (len(grouped) == x.rank + 1 and x.rank > 2 and grouped[-1] * grouped[-2] == channels
            and axes == [*range(1, x.rank - 1), x.rank] and grouped[1:-2] == shape[1:-1]
            and all(v is None or v.tensor.numel() == channels for v in (gamma, beta)))
    if fits:
        weight, bias = _vector(gamma), _vector(beta)
        if weight is None and bias is not None:
            weight = torch.ones(channels, device="meta")
        return Value.first(F.group_norm(x.channels_first(), grouped[-2], weight, bias))
    call.args[0] = Value.of(x.plain().reshape(grouped))
    return Value.of(moment_norm(call).plain().reshape(call.ints("to")))


def rms_norm(call: Call) -> Value:
    x = call.value(0)
    axes = sorted({a % x.rank for a in call.ints("axes")})
    gamma = call.maybe("gamma")
    shape = tuple(x.shape[axes[0]:])
    if axes == list(range(axes[0], x.rank)) and (gamma is None or gamma.tensor.numel() == prod(shape)):
        weight = None if gamma is None else gamma.plain().reshape(shape)
        return Value.of(F.rms_norm(x.plain(), shape, weight))
    physical = [x.order[a] for a in axes]
    t = x.tensor
    value = Value(t * torch.rsqrt((t * t).mean(physical, keepdim=True) + 1e-6), x.order)
    if gamma is None:
        return value
    tensors, order = call.aligned(value, gamma)
    return Value(torch.mul(*tensors), order)
