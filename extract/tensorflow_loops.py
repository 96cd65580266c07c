"""Loops of TensorFlow 1 (Enter, Merge, Switch, NextIteration, Exit) rewritten as the ``While`` of TensorFlow 2.

Freezing a graph lowers its loops to that form. Works on ``NodeDef`` messages; computes nothing. Source of the form: Yu et
al., "Dynamic Control Flow in Large-Scale Machine Learning", EuroSys 2018.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from extract.extraction import ExtractionError

_ENTER: Final = ("Enter", "RefEnter")
_MERGE: Final = ("Merge", "RefMerge")
_NEXT: Final = ("NextIteration", "RefNextIteration")
_SWITCH: Final = ("Switch", "RefSwitch")
_EXIT: Final = ("Exit", "RefExit")
_MOST_FRAMES: Final = 1_000


@dataclass
class _Loop:
    """One frame. Lists have an entry for each variable of the loop."""

    name: str
    merges: list[str] = field(default_factory=list)
    starts: list[str] = field(default_factory=list)  # tensors that the variables begin with
    nexts: list[str] = field(default_factory=list)  # tensors that they become
    switches: list[str | None] = field(default_factory=list)
    exits: dict[str, int] = field(default_factory=dict)  # node -> variable
    constant: dict[str, str] = field(default_factory=dict)  # Enter of an invariant -> tensor
    condition: str = ""


def with_while(nodes: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """``(nodes, functions)``: the graph without frames, and the conditions and bodies of its loops."""
    if not any(n.op in _ENTER for n in nodes):
        return list(nodes), []
    table = {n.name: n for n in nodes}
    functions: list[Any] = []
    for _ in range(_MOST_FRAMES):
        frames = sorted({_frame(n) for n in table.values() if n.op in _ENTER})
        if not frames:
            return list(table.values()), functions
        loop = next((found for f in frames if (found := _loop(f, table, set(frames) - {f})) is not None), None)
        if loop is None:
            raise ExtractionError(f"the loops {', '.join(map(repr, frames[:3]))} (field 'frame_name' of Enter nodes) are "
                                  "inside each other")
        functions += _replace(loop, table)
    raise ExtractionError(f"the graph has more than {_MOST_FRAMES} loops")


def _frame(node: Any) -> str:
    return node.attr["frame_name"].s.decode("utf-8", "replace") if "frame_name" in node.attr else ""


def _data(node: Any) -> list[str]:
    return [t for t in node.input if not t.startswith("^")]


def _name(tensor: str) -> str:
    return tensor.split(":")[0]


def _loop(frame: str, table: Mapping[str, Any], others: set[str]) -> _Loop | None:
    """The loop of a frame; ``None`` if another loop is inside it."""
    loop = _Loop(frame)
    enters = {n.name: _data(n)[0] for n in table.values() if n.op in _ENTER and _frame(n) == frame and _data(n)}
    for node in table.values():
        if node.op not in _MERGE:
            continue
        first = [t for t in _data(node) if _name(t) in enters]
        back = [t for t in _data(node) if _name(t) in table and table[_name(t)].op in _NEXT]
        if not first:
            continue
        if not back:
            raise ExtractionError(f"node {node.name!r} ({node.op}): field 'input' names no NextIteration")
        loop.merges.append(node.name)
        loop.starts.append(enters[_name(first[0])])
        loop.nexts.append(_data(table[_name(back[0])])[0])
    variables = {_name(t) for m in loop.merges for t in _data(table[m])}
    loop.constant = {e: t for e, t in enters.items() if e not in variables}
    loop.switches = [None] * len(loop.merges)
    for node in table.values():
        inputs = _data(node)
        if node.op in _SWITCH and len(inputs) == 2 and _name(inputs[0]) in loop.merges:
            loop.switches[loop.merges.index(_name(inputs[0]))] = node.name
            chosen = table.get(_name(inputs[1]))
            if chosen is None or chosen.op != "LoopCond" or not _data(chosen):
                raise ExtractionError(f"node {node.name!r} ({node.op}): field 'input' names no LoopCond")
            loop.condition = _data(chosen)[0]
    if not loop.condition:
        raise ExtractionError(f"the loop {frame!r} has no LoopCond")
    for node in table.values():
        if node.op in _EXIT and _data(node) and _name(_data(node)[0]) in loop.switches:
            loop.exits[node.name] = loop.switches.index(_name(_data(node)[0]))
    for result in (*loop.nexts, loop.condition):
        if any(table[n].op in (*_ENTER, *_EXIT) and n not in enters for n in _inside(result, table, loop)[0]):
            return None
    return loop


def _inside(result: str, table: Mapping[str, Any], loop: _Loop) -> tuple[list[str], set[str]]:
    """Nodes that ``result`` is computed from, back to the variables of the loop; and which of those depend on them."""
    ends = {*loop.merges, *(s for s in loop.switches if s is not None), *loop.constant}
    seen: list[str] = []
    known = set(ends)
    stack = [_name(result)]
    while stack:
        name = stack.pop()
        if name in known:
            continue
        known.add(name)
        if name not in table:
            raise ExtractionError(f"the loop {loop.name!r} reads {name!r}, which is no node")
        seen.append(name)
        stack += [_name(t) for t in _data(table[name])]
    dependent = set(ends)
    changed = True
    readers: dict[str, list[str]] = {}
    for name in seen:
        for t in _data(table[name]):
            readers.setdefault(_name(t), []).append(name)
    frontier = list(ends)
    while changed:
        changed = False
        for name in frontier[:]:
            frontier.remove(name)
            for reader in readers.get(name, ()):
                if reader not in dependent:
                    dependent.add(reader)
                    frontier.append(reader)
                    changed = True
    return seen, dependent


def _replace(loop: _Loop, table: dict[str, Any]) -> list[Any]:
    """Puts a ``While`` in the place of the loop; returns its two functions."""
    from tensorflow.core.framework.node_def_pb2 import NodeDef

    captured: dict[str, int] = {}  # tensor from outside -> argument
    count = len(loop.merges)
    for enter, tensor in loop.constant.items():
        captured.setdefault(tensor, count + len(set(captured.values())))
        captured.setdefault("=" + enter, captured[tensor])
    parts = [_inside(r, table, loop) for r in (*loop.nexts, loop.condition)]
    dependent = set().union(*(d for _, d in parts))
    inner = [n for n in dict.fromkeys(n for seen, _ in parts for n in seen) if n in dependent]
    for name in inner:
        for t in _data(table[name]):
            if _name(t) not in dependent:
                captured.setdefault(t, count + len(set(captured.values())))
    for t in (*loop.nexts, loop.condition):
        if _name(t) not in dependent:
            captured.setdefault(t, count + len(set(captured.values())))
    outside = {v: t for t, v in captured.items() if not t.startswith("=")}
    total = count + len(outside)
    name = f"{loop.name}/loop" if loop.name in table else loop.name or "loop"
    while name in table:
        name += "_"
    tensors = [*loop.starts, *(outside[i] for i in range(count, total))]
    passed = [f"loop argument {i}" for i in range(count, total)]
    condition = _function(name + "_cond", [loop.condition], [], inner, loop, captured, table, total)
    body = _function(name + "_body", loop.nexts, passed, inner, loop, captured, table, total)
    node = NodeDef(name=name, op="While", input=tensors)
    node.attr["cond"].func.name, node.attr["body"].func.name = condition.signature.name, body.signature.name
    gone = {*loop.merges, *(s for s in loop.switches if s), *inner, *loop.constant, *loop.exits}
    gone |= {n.name for n in table.values() if n.op in _ENTER and _frame(n) == loop.name}
    gone |= {n.name for n in table.values() if n.op in (*_NEXT, "LoopCond") and _data(n) and _name(_data(n)[0]) in (
        *inner, *loop.merges, *(s for s in loop.switches if s))}
    readers: dict[str, list[str]] = {}
    for n in table.values():
        for t in _data(n):
            readers.setdefault(_name(t), []).append(n.name)
    stack = [n for n in gone if n not in loop.exits]
    while stack:  # what else reads the inside of the loop only orders it
        for reader in readers.get(stack.pop(), ()):
            if reader not in gone:
                gone.add(reader)
                stack.append(reader)
    for old in gone:
        table.pop(old, None)
    table[name] = node
    for exit_, variable in loop.exits.items():
        table[exit_] = NodeDef(name=exit_, op="Identity", input=[f"{name}:{variable}"])
    return [condition, body]


def _function(name: str, results: Sequence[str], passed: Sequence[str], inner: Sequence[str], loop: _Loop,
              captured: Mapping[str, int], table: Mapping[str, Any], total: int) -> Any:
    """``total`` arguments; computes ``results`` by the nodes ``inner`` and hands the arguments ``passed`` on."""
    from tensorflow.core.framework.function_pb2 import FunctionDef
    from tensorflow.core.framework.node_def_pb2 import NodeDef

    made = FunctionDef()
    made.signature.name = name

    def moved(tensor: str) -> str:
        node = _name(tensor)
        if node in loop.merges:
            return f"loop argument {loop.merges.index(node)}"
        if node in loop.switches:
            return f"loop argument {loop.switches.index(node)}"
        place = captured.get("=" + node, captured.get(tensor))
        return tensor if place is None or node in inner else f"loop argument {place}"

    for i in range(total):
        made.signature.input_arg.add(name=f"loop argument {i}")
    for old in inner:
        node = NodeDef()
        node.CopyFrom(table[old])
        inputs = [moved(t) for t in _data(table[old])]
        del node.input[:]
        node.input.extend(inputs)
        made.node_def.append(node)
    outputs = [*map(moved, results), *passed]
    for i, output in enumerate(outputs):
        made.signature.output_arg.add(name=f"out{i}")
        made.ret[f"out{i}"] = output
    return made
