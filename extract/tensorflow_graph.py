"""A TensorFlow graph as plain nodes: function calls inlined, names resolved, in an order in which it can run.

Reads ``GraphDef`` and ``FunctionDef`` messages only; computes nothing and imports no TensorFlow of its own.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from extract.extraction import ExtractionError

MOST_NODES: Final = 100_000  # in a file, and after inlining
_MOST_INPUTS: Final = 10_000  # of one node
_DEEPEST: Final = 60  # function calls inside each other

# Nodes that hand their arguments on: output i is argument i. Fake quantisation is understood as its float operator.
ALIASES: Final = frozenset({
    "Identity", "IdentityN", "StopGradient", "PreventGradient", "Snapshot", "CheckNumerics", "CheckNumericsV2",
    "EnsureShape", "DebugIdentity", "DebugIdentityV2", "XlaSharding", "OptimizationBarrier", "FakeQuantWithMinMaxVars",
    "FakeQuantWithMinMaxArgs", "FakeQuantWithMinMaxVarsPerChannel", "QuantizeAndDequantizeV2", "QuantizeAndDequantizeV3",
    "QuantizeAndDequantizeV4"})
CALLS: Final = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
# Their result depends on shapes of arguments, not on values.
SHAPE_ONLY: Final = frozenset({"Shape", "ShapeN", "Rank", "Size", "ZerosLike", "OnesLike", "BroadcastGradientArgs"})


class Out(NamedTuple):
    """Output ``number`` of ``node``."""

    node: Node
    number: int


@dataclass(eq=False)
class Node:
    """One operator. ``live``: it depends on an input of the network."""

    name: str
    op: str
    attrs: Mapping[str, Any]
    inputs: list[Out] = field(default_factory=list)
    live: bool = False

    def attr(self, name: str, default: Any = None) -> Any:
        """Attribute as a plain Python value; ``default`` where it is missing or of no simple kind."""
        value = self.attrs.get(name)
        if value is None:
            return default
        kind = value.WhichOneof("value")
        if kind == "s":
            return value.s.decode("utf-8", "replace")
        if kind in ("i", "f", "b", "type"):
            return getattr(value, kind)
        if kind == "list":
            items = value.list
            return [*items.i] or [*items.f] or [s.decode("utf-8", "replace") for s in items.s] or [*items.b]
        if kind == "func":
            return value.func.name
        return default

    def ints(self, name: str) -> list[int]:
        value = self.attr(name)
        return [int(v) for v in value] if isinstance(value, list) else []

    def __repr__(self) -> str:
        return f"node {self.name!r} ({self.op})"


@dataclass(eq=False)
class Net:
    """Nodes in topological order, the nodes that stand for the arguments, and the results."""

    name: str
    nodes: list[Node]
    args: list[Node]
    outputs: list[Out]
    uses: dict[Out, int] = field(default_factory=dict)


class Library:
    """The functions of a graph by name; flattens them on demand.

    ``output_sizes(op, attrs)`` tells name and number of tensors of each output of an operator, from its registration.
    """

    def __init__(self, functions: Iterable[Any],
                 output_sizes: Callable[[str, Mapping[str, Any]], list[tuple[str, int]]]) -> None:
        self.functions = {f.signature.name: f for f in functions}
        self.output_sizes = output_sizes
        self._count = 0

    def main(self, nodes: Sequence[Any], outputs: Sequence[str], live: Iterable[str]) -> Net:
        """The network of a ``GraphDef``: ``outputs`` are tensor names, ``live`` the placeholders that are inputs."""
        if len(nodes) > MOST_NODES:
            raise ExtractionError(f"the graph has {len(nodes)} nodes; more than {MOST_NODES} are refused")
        from extract.tensorflow_loops import with_while

        nodes, functions = with_while(nodes)
        self.functions.update((f.signature.name, f) for f in functions)
        flat = _Flattener(self, "", {}, ())
        flat.live = set(live)
        flat.add_all(nodes)
        outs = [flat.resolve_graph(name, "an output of the network") for name in outputs]
        return _finished("graph", flat.nodes, [], outs)

    def function(self, name: str, live: Sequence[bool]) -> Net:
        """The body of a function; ``live[i]`` tells whether argument ``i`` depends on an input."""
        body = self.find(name, "the graph")
        args = [Node(a.name, "Arg", {}, [], i < len(live) and live[i]) for i, a in enumerate(body.signature.input_arg)]
        flat = _Flattener(self, name + "/", {a.name: Out(a, 0) for a in args}, (name,))
        outs = flat.add_function(body)
        return _finished(name, [*args, *flat.nodes], args, outs)

    def find(self, name: str, where: str) -> Any:
        if name not in self.functions:
            raise ExtractionError(f"{where} calls function {name!r}, which the graph does not define")
        return self.functions[name]

    def count(self) -> None:
        self._count += 1
        if self._count > MOST_NODES:
            raise ExtractionError(f"the graph has more than {MOST_NODES} nodes after inlining its functions; refused")


def _finished(name: str, nodes: list[Node], args: list[Node], outputs: list[Out]) -> Net:
    """Keeps what the outputs need, and counts the readers of each tensor among that."""
    needed: set[Node] = set()
    stack = [o.node for o in outputs]
    while stack:
        node = stack.pop()
        if node not in needed:
            needed.add(node)
            stack.extend(o.node for o in node.inputs if o.node not in needed)
    kept = [n for n in nodes if n in needed]
    uses: dict[Out, int] = {}
    for out in [*outputs, *(o for n in kept for o in n.inputs)]:
        uses[out] = uses.get(out, 0) + 1
    return Net(name, kept, args, outputs, uses)


class _Flattener:
    """Turns the nodes of one graph or function into ``Node`` objects, inlining calls."""

    def __init__(self, library: Library, prefix: str, args: dict[str, Out], stack: tuple[str, ...]) -> None:
        self.library, self.prefix, self.args, self.stack = library, prefix, args, stack
        self.nodes: list[Node] = []
        self.live: set[str] = set()
        self._results: dict[str, list[Out] | Node] = {}
        self._defs: dict[str, Any] = {}

    def add_function(self, body: Any) -> list[Out]:
        self.add_all(body.node_def)
        outs = []
        for arg in body.signature.output_arg:
            if arg.name not in body.ret:
                raise ExtractionError(f"function {body.signature.name!r} says nothing about its output {arg.name!r}")
            outs.append(self.resolve_function(body.ret[arg.name], f"output {arg.name!r} of {body.signature.name!r}"))
        return outs

    def add_all(self, defs: Sequence[Any]) -> None:
        for d in defs:
            if d.name in self._defs:
                raise ExtractionError(f"two nodes are named {self.prefix + d.name!r}")
            if len(d.input) > _MOST_INPUTS:
                raise ExtractionError(f"node {self.prefix + d.name!r} ({d.op}): field 'input' names {len(d.input)} tensors; "
                                      f"more than {_MOST_INPUTS} are refused")
            self._defs[d.name] = d
        for d in _ordered(self._defs, self.prefix):
            self._add(d)

    def _add(self, d: Any) -> None:
        self.library.count()
        where = f"node {self.prefix + d.name!r} ({d.op})"
        resolve = self.resolve_function if self.stack else self.resolve_graph
        inputs = [resolve(text, where) for text in d.input if not text.startswith("^")]
        name = d.attr["f"].func.name if d.op in CALLS and "f" in d.attr else d.op if d.op in self.library.functions else ""
        if name:
            self._results[d.name] = self._inlined(name, inputs, where, d)
        elif d.op in ALIASES and inputs:
            self._results[d.name] = inputs
        else:
            live = d.name in self.live or (d.op not in SHAPE_ONLY and any(o.node.live for o in inputs))
            node = Node(self.prefix + d.name, d.op, d.attr, inputs, live)
            self._results[d.name] = node
            self.nodes.append(node)

    def _inlined(self, name: str, inputs: list[Out], where: str, d: Any) -> list[Out]:
        if name in self.stack:
            raise ExtractionError(f"{where} calls {name!r}, which calls itself; recursion has no static graph")
        if len(self.stack) >= _DEEPEST:
            raise ExtractionError(f"{where}: functions call each other more than {_DEEPEST} deep; refused")
        body = self.library.find(name, where)
        wanted = body.signature.input_arg
        if len(wanted) != len(inputs):
            raise ExtractionError(f"{where}: field 'input' has {len(inputs)} tensors, function {name!r} takes {len(wanted)}")
        inner = _Flattener(self.library, f"{self.prefix}{d.name}/", {a.name: v for a, v in zip(wanted, inputs, strict=True)},
                           (*self.stack, name))
        outs = inner.add_function(body)
        self.nodes += inner.nodes
        return outs

    def resolve_graph(self, text: str, where: str) -> Out:
        """``name`` or ``name:number``."""
        name, _, number = text.partition(":")
        return self._pick(name, int(number) if number.isdigit() else 0, text, where)

    def resolve_function(self, text: str, where: str) -> Out:
        """``argument`` or ``node:output name:number``."""
        parts = text.split(":")
        if parts[0] in self.args and parts[0] not in self._defs:
            return self.args[parts[0]]
        number = int(parts[-1]) if len(parts) > 1 and parts[-1].isdigit() else 0
        if len(parts) == 3 and parts[0] in self._defs:
            d = self._defs[parts[0]]
            for output, size in self.library.output_sizes(d.op, d.attr):
                if output == parts[1]:
                    break
                number += size
        return self._pick(parts[0], number, text, where)

    def _pick(self, name: str, number: int, text: str, where: str) -> Out:
        made = self._results.get(name)
        if made is None:
            raise ExtractionError(f"{where}: field 'input' names {text!r}, which is no node before it")
        if isinstance(made, Node):
            return Out(made, number)
        if number >= len(made):
            raise ExtractionError(f"{where}: field 'input' names {text!r}, but there are only {len(made)} outputs")
        return made[number]


def _ordered(defs: Mapping[str, Any], prefix: str) -> list[Any]:
    """Definitions so that producers come first, otherwise in the order of the file. Raises on a cycle."""
    place = {name: i for i, name in enumerate(defs)}
    names = list(defs)
    waiting: list[int] = []
    readers: list[list[int]] = [[] for _ in names]
    for i, d in enumerate(defs.values()):
        before = {t.split(":")[0] for t in d.input if not t.startswith("^")} & place.keys()
        waiting.append(len(before))
        for b in before:
            readers[place[b]].append(i)
    ready = [i for i, n in enumerate(waiting) if not n]  # sorted, so already a heap
    order: list[Any] = []
    while ready:
        i = heapq.heappop(ready)
        order.append(defs[names[i]])
        for reader in readers[i]:
            waiting[reader] -= 1
            if not waiting[reader]:
                heapq.heappush(ready, reader)
    if len(order) < len(names):
        stuck = next(i for i, n in enumerate(waiting) if n)
        d = defs[names[stuck]]
        raise ExtractionError(f"node {prefix + d.name!r} ({d.op}) is part of, or waits for, a cycle of nodes (field 'input'); "
                              "no order of execution exists")
    return order
