"""Loops that are recurrent layers. Keras writes an LSTM, GRU or simple RNN as a ``While`` over time whose body is one cell.

A body that is exactly such a cell, perhaps with a mask of its time steps, is run as the layer of PyTorch: one node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
from torch import Tensor

from extract.tensorflow_graph import Net, Node, Out
from extract.tensorflow_lists import Rows
from extract.tensorflow_values import TensorList, Value, Variable, known

if TYPE_CHECKING:
    from extract.tensorflow_program import Call



class _Cell(NamedTuple):
    """What a loop body that is one recurrent cell reads and writes; numbers are places among the loop's arguments."""

    op: str
    rows: int  # the list of inputs
    written: int  # the list of outputs
    hidden: int
    memory: int | None
    matrices: tuple[int, int]  # for the input, for the state
    others: list[int]  # biases
    counter: int
    masked: list[int]  # the last output that a mask keeps

_GATES: Final = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrent(call: Call, body: str, changing: list[bool]) -> list[Any] | None:
    """The results of the loop if its body is the cell of an LSTM, GRU or simple RNN of Keras; ``None`` otherwise."""
    live = [isinstance(a, TensorList) or c for a, c in zip(call.args, changing, strict=True)]
    net, _ = call.program.function(body, live)
    cell = _cell(net, call.args)
    if cell is None:
        return None
    rows = call.args[cell.rows]
    if not isinstance(rows, Rows) or rows.whole.rank != 3 or not rows.items:
        return None
    state = call.args[cell.hidden]
    width = state.shape[-1]
    gates = _GATES[cell.op]
    w, u = (call.args[i].tensor for i in cell.matrices)
    x = rows.whole.transposed([1, 0, 2]).plain()  # (batch, time, features)
    if tuple(w.shape) != (x.shape[-1], gates * width) or tuple(u.shape) != (width, gates * width):
        return None
    biases = [call.args[i].tensor for i in cell.others]
    if any(b.numel() not in (gates * width, 2 * gates * width) for b in biases):
        return None
    y = _run_layer(cell.op, x, w, u, biases, state, None if cell.memory is None else call.args[cell.memory])
    steps = len(rows.items)
    last = Value.of(y.select(1, steps - 1))
    results = list(call.args)
    reserved = call.args[cell.written].items
    whole = Value(y, (1, 0, 2))
    results[cell.written] = TensorList([last]) if len(reserved) == 1 and steps > 1 else Rows(
        [None] * steps, whole)
    results[cell.hidden] = last
    for i in cell.masked:
        results[i] = last
        call.note(f"{call.node} is a recurrent layer with a mask of its time steps; the mask is not recorded")
    if cell.memory is not None:
        results[cell.memory] = last
    for i in (cell.counter, *(i for i, a in enumerate(call.args) if i != cell.counter and isinstance(a, Value)
                              and a.rank == 0 and known(a.tensor) == 0)):
        results[i] = Value.of(torch.tensor(steps, dtype=torch.int32))
    return results


def _run_layer(op: str, x: Tensor, w: Tensor, u: Tensor, biases: list[Tensor], state: Value, memory: Value | None) -> Tensor:
    """Keras keeps one bias (two joined ones in a GRU), torch two: a second one of zeros is no parameter."""
    size = u.shape[1]
    flat = [b.reshape(-1, size) for b in biases]
    halves = [h for b in flat for h in b.unbind(0)]
    weights = [w.t(), u.t()]
    if halves:
        weights += halves if len(halves) == 2 else [halves[0], torch.zeros(size, dtype=w.dtype, device="meta")]
    start = state.plain().unsqueeze(0)
    start = start if start.is_meta else start.to("meta")
    if start.shape[1] != x.shape[0]:
        start = start.expand(1, x.shape[0], start.shape[2])
    settings = (bool(halves), 1, 0.0, False, False, True)
    if op == "LSTM":
        assert memory is not None
        cell = memory.plain().unsqueeze(0)
        cell = cell if cell.is_meta else cell.to("meta")
        return torch.lstm(x, [start, cell.expand_as(start)], weights, *settings)[0]
    run = torch.gru if op == "GRU" else torch.rnn_tanh
    return run(x, start, weights, *settings)[0]


def _cell(net: Net, args: list[Any]) -> _Cell | None:
    """Whether the body of a loop is one cell: operators, their number, and who is read and written."""
    ops: dict[str, list[Node]] = {}
    for node in net.nodes:
        ops.setdefault(node.op, []).append(node)
    reads, writes = ops.get("TensorListGetItem", []), ops.get("TensorListSetItem", [])
    products = ops.get("MatMul", [])
    if not 1 <= len(reads) <= 2 or len(writes) != 1 or len(products) != 2 or len(args) != len(net.args):
        return None
    sigmoids, tanhs = len(ops.get("Sigmoid", ())), len(ops.get("Tanh", ()))
    op = {(3, 2): "LSTM", (2, 1): "GRU", (0, 1): "RNN"}.get((sigmoids, tanhs))
    known_ops = {"Arg", "TensorListGetItem", "TensorListSetItem", "MatMul", "Sigmoid", "Tanh", "Add", "AddV2", "Mul",
                 "Sub", "BiasAdd", "Split", "StridedSlice", "Squeeze", "Const", "ReadVariableOp", "Cast",
                 "ExpandDims", "Reshape", "Pack"}
    known_ops |= {"SelectV2", "Select", "Tile"} if len(reads) == 2 else set()  # a mask, which keeps the state of a step
    if op is None or not ops.keys() <= known_ops:
        return None
    place = {node: i for i, node in enumerate(net.args)}
    read = next((r for r in reads if any(p.inputs[0].node is r for p in products)), None)
    if read is None:
        return None
    rows = _argument(read.inputs[0], place)
    written, counter = _argument(writes[0].inputs[0], place), _argument(read.inputs[1], place)
    states = [i for i, a in enumerate(args) if isinstance(a, Value) and a.rank == 2 and a.tensor.is_floating_point()
              and i < len(net.outputs) and net.outputs[i].node is not net.args[i]]
    if rows is None or written is None or counter is None or len(states) != (2 if op == "LSTM" else 1) + len(reads) - 1:
        return None
    matrices: dict[str, int] = {}
    hidden = None
    for product in products:
        weight = _argument(product.inputs[1], place)
        source = product.inputs[0]
        if weight is None:
            return None
        if source.node is read:
            matrices["input"] = weight
        else:
            hidden = _argument(source, place)
            matrices["state"] = weight
    if len(matrices) != 2 or hidden not in states:
        return None
    if not all(isinstance(args[i], Variable | Value) for i in matrices.values()):
        return None
    others = [i for i, a in enumerate(args) if i not in matrices.values() and (isinstance(a, Variable) or (
        isinstance(a, Value) and a.rank and a.tensor.is_floating_point() and net.outputs[i].node is net.args[i]))]
    factors = {_argument(o, place) for n in ops.get("Mul", ()) for o in n.inputs}
    memory = next((i for i in states if i != hidden and i in factors), None) if op == "LSTM" else None
    if op == "LSTM" and memory is None:
        return None
    args[:] = [Value.of(a.tensor) if isinstance(a, Variable) and i in (*matrices.values(), *others) else a
               for i, a in enumerate(args)]
    return _Cell(op, rows, written, hidden, memory, (matrices["input"], matrices["state"]), others, counter,
                 [i for i in states if i not in (hidden, memory)])


def _argument(out: Out, place: dict[Node, int]) -> int | None:
    """Number of the argument that ``out`` is, through reads and casts."""
    while out.node.op in ("ReadVariableOp", "Cast") and out.node.inputs:
        out = out.node.inputs[0]
    return place.get(out.node)
