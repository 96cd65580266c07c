"""Handlers of control flow. Conditions must be known; a loop is unrolled unless it is a recurrent layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

from extract.extraction import ExtractionError
from extract.tensorflow_recurrent import recurrent
from extract.tensorflow_values import DEAD, TensorList, Value, known

if TYPE_CHECKING:
    from extract.tensorflow_program import Call

_MOST_TURNS: Final = 10_000


def if_(call: Call) -> list[Any]:
    """If, StatelessIf, Case with a condition that is known."""
    if call.node.op in ("Case", "StatelessCase"):
        branches = [f.name for f in call.node.attrs["branches"].list.func]
        number = call.int_(0)
        name = branches[number if 0 <= number < len(branches) else -1]
    else:
        condition = call.numbers(0)
        name = call.attr("then_branch" if condition else "else_branch")
    return call.program.call(str(name), call.args[1:])


def while_(call: Call) -> list[Any]:
    """While, StatelessWhile: a recurrent layer, or unrolled while the condition is known."""
    body, condition = str(call.attr("body")), str(call.attr("cond"))
    changing = _changing(call, body)
    layer = recurrent(call, body, changing)
    if layer is not None:
        return layer
    state = list(call.args)
    for _ in range(_MOST_TURNS):
        answer = call.program.call(condition, state, changing)[0]
        go = known(answer.tensor) if isinstance(answer, Value) else None
        if go is None:
            raise ExtractionError(f"{call.node}: whether the loop goes on depends on an input or a variable, so it has no "
                                  "static graph; use a fixed number of turns")
        if not go:
            return state
        state = call.program.call(body, state, changing)
    raise ExtractionError(f"{call.node}: the loop does not end within {_MOST_TURNS} turns")


def _changing(call: Call, body: str) -> list[bool]:
    """Which arguments of a loop its body replaces. Counters that count known numbers are not taken as inputs."""
    live = [isinstance(a, Value | TensorList) for a in call.args]
    net, _ = call.program.function(body, live)
    changing = []
    for i, out in enumerate(net.outputs):
        same = i < len(net.args) and out.node is net.args[i]
        a = call.args[i] if i < len(call.args) else None
        number = isinstance(a, Value) and not a.tensor.is_floating_point()
        changing.append(not same and not number)
    return changing


# ---- switches of TensorFlow 1 -----------------------------------------------------------------------------------


def switch(call: Call) -> list[Any]:
    return [DEAD, call.args[0]] if call.numbers(1) else [call.args[0], DEAD]


def merge(call: Call) -> list[Any]:
    alive = [i for i, a in enumerate(call.args) if a is not DEAD]
    if len(alive) != 1:
        raise ExtractionError(f"{call.node}: {len(alive)} of its inputs are alive, one is expected")
    return [call.args[alive[0]], Value.of(torch.tensor(alive[0], dtype=torch.int32))]
