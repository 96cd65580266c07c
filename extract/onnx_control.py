"""ONNX control flow and sequences: conditions and trip counts that are known are plain Python, bodies are run again and again.

See ``onnx_layers`` for what a handler is. A sequence is a Python list.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

from extract.onnx_node import Call, is_known

MOST_TRIPS: Final = 4096


def if_(call: Call, condition: Any) -> Any:
    """The branch that a known condition takes. If it depends on the input, the larger one, with a note."""
    branches = call.get("then_branch"), call.get("else_branch")
    if any(b is None for b in branches):
        raise call.fail("attribute 'then_branch' or 'else_branch' is missing")
    if isinstance(condition, Tensor) and is_known(condition):
        chosen = branches[0] if bool(call.number(condition, "the condition")) else branches[1]
    else:
        chosen = max(branches, key=lambda g: len(g.node))
        word = "then" if chosen is branches[0] else "else"
        call.note(f"{call.where}: its condition depends on the input; the {word} branch, which has more nodes, was recorded")
    return tuple(call.run_graph(chosen, []))


def loop(call: Call, trips: Any, condition: Any, *carried: Any) -> Any:
    """A counted loop, a while loop with a known condition, or both."""
    body = _body(call)
    count = None if trips is None else int(call.number(trips, "the trip count"))
    go_on = condition is None or bool(call.number(condition, "the condition"))
    if count is not None and count > MOST_TRIPS:
        raise call.fail(f"it runs {count} times; more than {MOST_TRIPS} are refused")
    values, step = list(carried), 0
    rows: list[list[Any]] = [[] for _ in range(max(0, len(body.output) - 1 - len(carried)))]
    while go_on and (count is None or step < count):
        if step >= MOST_TRIPS:
            raise call.fail(f"it still runs after {MOST_TRIPS} steps")
        result = call.run_graph(body, [torch.tensor(step), torch.tensor(True), *values])
        step += 1
        if result[0] is None or not isinstance(result[0], Tensor):
            raise call.fail("its body gives no condition")
        if is_known(result[0]):
            go_on = bool(call.number(result[0], "the condition"))
        elif count is not None:
            call.note(f"{call.where}: whether it ends early depends on the input; it was recorded with all {count} steps")
        else:
            raise call.fail("how often it runs depends on the input")
        values = list(result[1:1 + len(carried)])
        for row, part in zip(rows, result[1 + len(carried):], strict=True):
            row.append(part)
    return (*values, *(_stacked(call, row) for row in rows))


def _body(call: Call) -> Any:
    body = call.get("body")
    if body is None or not hasattr(body, "node"):
        raise call.fail("attribute 'body' is missing")
    return body


def _stacked(call: Call, row: list[Tensor], axis: int = 0) -> Tensor:
    return torch.stack(row, axis) if row else torch.zeros(0)


def scan(call: Call, *inputs: Any) -> Any:
    """The body for each slice of the scanned inputs; version 8 has a batch axis in front and is not known."""
    if call.opset < 9:
        raise call.fail("Scan before version 9 is not known; convert the model to a newer opset")
    body, m = _body(call), call.integer("num_scan_inputs")
    n_states = len(inputs) - m
    if m < 1 or n_states < 0:
        raise call.fail(f"num_scan_inputs {m} does not fit its {len(inputs)} inputs")
    states, scanned = list(inputs[:n_states]), list(inputs[n_states:])
    axes = [call.axis(a, s.ndim) for a, s in zip(call.ints("scan_input_axes", [0] * m), scanned, strict=True)]
    backwards = call.ints("scan_input_directions", [0] * m)
    length = scanned[0].shape[axes[0]]
    if length > MOST_TRIPS:
        raise call.fail(f"it runs {length} times; more than {MOST_TRIPS} are refused")
    k = len(body.output) - n_states
    rows: list[list[Tensor]] = [[] for _ in range(k)]
    for step in range(length):
        parts = [s.select(a, length - 1 - step if back else step)
                 for s, a, back in zip(scanned, axes, backwards, strict=True)]
        result = call.run_graph(body, [*states, *parts])
        states = list(result[:n_states])
        for row, part in zip(rows, result[n_states:], strict=True):
            row.append(part)
    reverse = call.ints("scan_output_directions", [0] * k)
    along = call.ints("scan_output_axes", [0] * k)
    return (*states, *(_stacked(call, row[::-1] if back else row, axis)
                       for row, back, axis in zip(rows, reverse, along, strict=True)))


# ---- sequences --------------------------------------------------------------------------------------------------


def _list(call: Call, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise call.fail("its first input is not a sequence")
    return value


def _place(call: Call, position: Any, size: int, default: int) -> int:
    i = default if position is None else int(call.number(position, "the position"))
    if not -size <= i <= size:
        raise call.fail(f"position {i} is outside a sequence of {size}")
    return i + size if i < 0 else i


def sequence_construct(call: Call, *values: Any) -> Any:
    return ([*values],)


def sequence_empty(call: Call) -> Any:
    return ([],)


def sequence_at(call: Call, values: Any, position: Any) -> Any:
    items = _list(call, values)
    i = _place(call, position, len(items), 0)
    if i >= len(items):
        raise call.fail(f"position {i} is outside a sequence of {len(items)}")
    return items[i]


def sequence_insert(call: Call, values: Any, value: Any, position: Any = None) -> Any:
    items = _list(call, values)
    i = _place(call, position, len(items), len(items))
    return ([*items[:i], value, *items[i:]],)


def sequence_erase(call: Call, values: Any, position: Any = None) -> Any:
    items = _list(call, values)
    i = _place(call, position, len(items), len(items) - 1)
    return ([*items[:i], *items[i + 1:]],)


def sequence_length(call: Call, values: Any) -> Tensor:
    return torch.tensor(len(_list(call, values)))


def concat_from_sequence(call: Call, values: Any) -> Tensor:
    items = _list(call, values)
    if not items:
        raise call.fail("its sequence is empty")
    axis = call.integer("axis")
    return torch.stack(items, axis) if call.integer("new_axis", 0) else torch.cat(items, axis)


def split_to_sequence(call: Call, x: Tensor, sizes: Any = None) -> Any:
    axis = call.axis(call.integer("axis", 0), x.ndim)
    length = x.shape[axis]
    if sizes is None:
        parts = [1] * min(length, MOST_TRIPS + 1)
    else:
        given = call.list_of(sizes, "split")
        if sizes.ndim == 0:
            if given[0] < 1:
                raise call.fail(f"split {given[0]} must be positive")
            parts = [min(given[0], length - i) for i in range(0, min(length, given[0] * (MOST_TRIPS + 1)), given[0])]
        else:
            parts = given
    if len(parts) > MOST_TRIPS or sum(parts) != length or min(parts, default=0) < 0:
        raise call.fail(f"parts {parts[:8]} do not make up axis {axis} of {list(x.shape)}, or are too many")
    pieces = list(x.split(parts, axis))
    if sizes is None and not call.integer("keepdims", 1):
        pieces = [p.squeeze(axis) for p in pieces]
    return (pieces,)


def sequence_map(call: Call, values: Any, *others: Any) -> Any:
    items, body = _list(call, values), _body(call)
    if len(items) > MOST_TRIPS:
        raise call.fail(f"it runs {len(items)} times; more than {MOST_TRIPS} are refused")
    results = [call.run_graph(body, [item, *(o[i] if isinstance(o, list) else o for o in others)])
               for i, item in enumerate(items)]
    return tuple([r[k] for r in results] for k in range(call.n_outputs))


def optional(call: Call, value: Any = None) -> Any:
    return (value,)


def optional_has_element(call: Call, value: Any = None) -> Tensor:
    return torch.tensor(value is not None)
