"""Handlers of TensorFlow operators that make constants, tell shapes, or see a tensor under another shape."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from extract.extraction import ExtractionError
from extract.tensorflow_consts import MOST_VALUES, dtype_of
from extract.tensorflow_values import Value, Variable, known

if TYPE_CHECKING:
    from extract.tensorflow_program import Call


def const(call: Call) -> Any:
    return call.program.constant(call.node)


def handle(call: Call) -> Variable:
    return call.program.variable(call.node)


def read(call: Call) -> Any:
    found = call.args[0]
    return Value.of(found.tensor) if isinstance(found, Variable) else found


def placeholder_default(call: Call) -> Any:
    return call.args[0]


def fill(call: Call) -> Value:
    shape = call.shape(0)
    return _filled(call, shape, call.value(1).tensor)


def _filled(call: Call, shape: list[int], value: Tensor) -> Value:
    number = known(value)
    if number is None or prod(shape) > MOST_VALUES:
        return Value.of(torch.empty(shape, dtype=value.dtype, device="meta"))
    return Value.of(torch.full(shape, number, dtype=value.dtype))


def like(number: int) -> Callable[[Call], Value]:
    """ZerosLike, OnesLike."""

    def handler(call: Call) -> Value:
        x = call.value(0)
        if x.tensor.numel() > MOST_VALUES:
            return Value(torch.empty(x.tensor.shape, dtype=x.tensor.dtype, device="meta"), x.order)
        return Value(torch.full(tuple(x.tensor.shape), number, dtype=x.tensor.dtype), x.order)

    return handler


def range_(call: Call) -> Value:
    start, stop, step = (call.numbers(i) for i in range(3))
    if not step or (stop - start) / step > MOST_VALUES:
        raise ExtractionError(f"{call.node}: a range from {start} to {stop} by {step} is empty or too long")
    return Value.of(torch.arange(start, stop, step, dtype=call.value(0).tensor.dtype))


def line(call: Call) -> Value:
    """LinSpace."""
    start, stop, count = call.numbers(0), call.numbers(1), call.int_(2)
    if not 0 <= count <= MOST_VALUES:
        raise ExtractionError(f"{call.node}: {count} numbers are asked for")
    return Value.of(torch.linspace(start, stop, count))


def random(call: Call) -> Value:
    """Random numbers are constants; nobody knows their values."""
    dtype = dtype_of(call.attr("dtype", 1), repr(call.node))
    call.note(f"{call.node} draws random numbers, which are recorded as a constant")
    return Value.of(torch.empty(call.shape(0), dtype=dtype, device="meta"))


def _integers(call: Call, values: Any) -> Value:
    return Value.of(torch.tensor(values, dtype=dtype_of(call.attr("out_type", 3), repr(call.node))))


def shape(call: Call) -> Value:
    return _integers(call, list(call.value(0).shape))


def shapes(call: Call) -> list[Value]:
    return [_integers(call, list(call.value(i).shape)) for i in range(len(call))]


def rank(call: Call) -> Value:
    return Value.of(torch.tensor(call.value(0).rank, dtype=torch.int32))


def size(call: Call) -> Value:
    return _integers(call, call.value(0).tensor.numel())


def broadcast_args(call: Call) -> Value:
    return Value.of(torch.tensor(list(torch.broadcast_shapes(call.ints(0), call.ints(1))), dtype=torch.int32))


def reshape(call: Call) -> Value:
    """To the shape it has, nothing; a (N, …, C) image keeps its channels first where only ones come or go."""
    x, to = call.value(0), call.shape(1)
    total = x.tensor.numel()
    if to.count(-1) == 1:
        rest = prod(s for s in to if s != -1)
        if rest and total % rest == 0:
            to = [total // rest if s == -1 else s for s in to]
    if list(x.shape) == to:
        return x
    if prod(to) != total or any(s < 0 for s in to):
        raise ExtractionError(f"{call.node}: shape {x.shape} cannot become {call.ints(1)}; check input_shapes")
    return Value.of(x.plain().reshape(to))


def squeeze(call: Call) -> Value:
    x = call.value(0)
    axes = {a % max(x.rank, 1) for a in call.node.ints("squeeze_dims") or call.node.ints("axis")}
    axes = axes or {a for a, d in enumerate(x.shape) if d == 1}
    if not axes:
        return x
    if any(x.shape[a] != 1 for a in axes):
        raise ExtractionError(f"{call.node}: field 'squeeze_dims' names an axis of shape {x.shape} that is not one")
    t = x.tensor
    for place in sorted((x.order[a] for a in axes), reverse=True):
        t = t.squeeze(place)
    return Value(t, x.without(axes))


def expand_dims(call: Call) -> Value:
    x = call.value(0)
    y = Value.of(x.plain().unsqueeze(call.axis(1, x.rank + 1)))
    return Value.first(y.channels_first()) if x.is_first else y


def transpose(call: Call) -> Value:
    x = call.value(0)
    axes = call.ints(1)
    if sorted(a % max(x.rank, 1) for a in axes) != list(range(x.rank)):
        raise ExtractionError(f"{call.node}: {axes} is no order of the axes of shape {x.shape}")
    return x.transposed([a % x.rank for a in axes])


def invert_permutation(call: Call) -> Value:
    places = call.ints(0)
    return Value.of(torch.tensor([places.index(i) for i in range(len(places))], dtype=torch.int32))
