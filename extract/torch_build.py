"""``to_torch``: any graph back to a ``torch.nn.Module`` that runs forward and backward, with fresh weights.

What a node becomes is in ``torch_build_layers`` (with weights), ``torch_build_ops`` and ``torch_build_moves``; in which order,
and how values are seen between nodes, in ``torch_build_program``; how parameters are counted in ``torch_build_weights``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from cg.errors import UnknownOpError
from cg.graph import Graph
from cg.spec import NodeSpec, Shape
from extract.comparison import difference
from extract.extraction import ExtractionError
from extract.torch_build_layers import LAYERS, Held
from extract.torch_build_moves import MOVES
from extract.torch_build_ops import OPERATORS, Operator
from extract.torch_build_program import Program, Step, seen_as, write_program
from extract.torch_build_rare import META_ONLY, RARE, gather_nd, recorded
from extract.torch_build_views import grown
from extract.torch_build_weights import Sharing

_FUNCTIONS: Final[dict[str, Operator]] = {
    **OPERATORS, **MOVES, **RARE, **META_ONLY, "GatherND": recorded(gather_nd(MOVES["GatherND"]))}
_NAMES: Final = {"BatchNormalization": "batch_norm", "LayerNormalization": "layer_norm", "Gemm": "linear",
                 "GroupNormalization": "group_norm", "InstanceNormalization": "instance_norm",
                 "RMSNormalization": "rms_norm", "ConvTranspose": "conv_transpose"}


def to_torch(graph: Graph, seed: int = 0, *, device: str | torch.device = "cpu") -> BuiltModule:
    """A module that computes ``graph``, in training mode, with the initial weights that torch gives its layers.

    Args:
        graph: any graph without ``Unknown`` nodes, from whatever framework.
        seed: of the weights; equal seeds give equal weights, and no global random state is touched.
        device: where the weights are made; on "meta" none are allocated, which is enough to extract the module again.

    ``from_torch(to_torch(graph), shapes).graph == graph`` for graphs that ``from_torch`` can make. What a graph does not
    keep cannot come back: weights, dropout, number formats, positions of constant gathers, and data movement between equal
    shapes. Movement between other shapes is the most plausible one (see ``torch_build_views``).

    Raises ``ExtractionError`` naming the node if there is one that torch cannot run, such as ``Unknown``.

    Example:
        >>> from cg import GraphBuilder
        >>> b = GraphBuilder()
        >>> module = to_torch(b.build(b.linear(b.input((1, 8)), 2)))
        >>> module(*module.example_inputs(batch=4)).shape
        torch.Size([4, 2])
    """
    try:
        graph.refuse_unknown()
    except UnknownOpError as error:
        raise ExtractionError(f"cannot build a module: {error}") from None
    for i, spec in enumerate(graph.nodes):
        if spec.op in META_ONLY and torch.device(device).type != "meta":
            raise ExtractionError(f"cannot build a module: graph {graph.name!r}, node {i}: torch has no operator {spec.op}; "
                                  "replace the node in the graph")
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(seed)
        return BuiltModule(graph)


class BuiltModule(nn.Module):
    """The module that ``to_torch`` returns: one sub-module for each node with weights, ``program`` for the rest.

    ``forward`` takes one tensor for each Input node, in the graph's order, and returns a tensor, or a tuple of them where
    the graph has several outputs. The leading axis of an input is the batch if it is 1 in the graph, and may then have
    another size in every call; a graph that mixes values of its batch runs with the recorded size only.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph_name = graph.name
        self.program: Program = write_program(graph)
        self.input_shapes: list[Shape] = [graph.nodes[i].out_shape for i in self.program.inputs]
        self.input_ranges = [_index_range(graph, i) for i in self.program.inputs]
        sharing, counts = Sharing(), dict[str, int]()
        for i, spec in enumerate(graph.nodes):
            if spec.op == "Constant":
                self._name(i, spec, Held(spec, _start_of(graph, i)), counts)
            elif spec.op in LAYERS and not (spec.op == "PRelu" and len(spec.in_shapes) > 1):
                sharing.node = i
                try:
                    layer = LAYERS[spec.op](spec, sharing)
                except (ValueError, RuntimeError, TypeError, IndexError) as error:
                    raise ExtractionError(f"cannot build a module: graph {graph.name!r}, node {i} ({spec.op} {spec.in_shapes} "
                                          f"-> {spec.out_shape}, weight {spec.weight_shape}): {error}") from error
                self._name(i, spec, layer, counts)
        sharing.join()

    def _name(self, node: int, spec: NodeSpec, layer: nn.Module, counts: dict[str, int]) -> None:
        kind = _NAMES.get(spec.op, spec.op.lower())
        counts[kind] = counts.get(kind, -1) + 1
        self.program.names[node] = f"{kind}_{counts[kind]}"
        self.add_module(self.program.names[node], layer)

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """See the class."""
        program = self.program
        times = self._batch(inputs)
        values: dict[int, Tensor] = dict(zip(program.inputs, inputs, strict=True))
        for step in program.steps:
            spec = step.call.spec
            if spec.op == "Input":
                continue
            args = []
            for (source, view), repeat in zip(step.sources, step.repeats, strict=True):
                x = seen_as(values[source], view, times)
                if repeat is not None and times > 1:
                    x = x.repeat([times if axis == repeat else 1 for axis in range(x.ndim)])
                args.append(x)
            values[step.node] = self._run(step, times, args)
            for node in step.done_with:
                del values[node]
        made = tuple(values[node] for node in program.outputs)
        return made[0] if len(made) == 1 else made

    def _run(self, step: Step, times: int, args: list[Tensor]) -> Tensor:
        spec, name = step.call.spec, self.program.names.get(step.node)
        try:
            out: Tensor = (_FUNCTIONS[spec.op](step.call, times, *args) if name is None
                           else self._modules[name](*args))  # type: ignore[misc]
            shape = step.call.shape(times)
            return out if tuple(out.shape) == shape else out.reshape(shape)
        except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError) as error:
            raise ExtractionError(
                f"graph {self.graph_name!r}, node {step.node} ({spec.op} {spec.in_shapes} -> {spec.out_shape}) failed on "
                f"tensors of shapes {[tuple(x.shape) for x in args]}: {error}") from error

    def _batch(self, inputs: Sequence[Tensor]) -> int:
        """How many times the recorded batch the inputs hold."""
        if len(inputs) != len(self.input_shapes):
            raise ExtractionError(f"graph {self.graph_name!r} takes {len(self.input_shapes)} inputs of shapes "
                                  f"{self.input_shapes}, got {len(inputs)}")
        found = set()
        for number, (x, shape) in enumerate(zip(inputs, self.input_shapes, strict=True)):
            free = bool(shape) and shape[0] == 1
            if x.ndim != len(shape) or tuple(x.shape[free:]) != shape[free:]:
                raise ExtractionError(f"graph {self.graph_name!r}: input {number} must have shape {shape}"
                                      f"{' (any batch size)' if free else ''}, got {tuple(x.shape)}")
            if free:
                found.add(x.shape[0])
        if len(found) > 1:
            raise ExtractionError(f"graph {self.graph_name!r}: its inputs have different batch sizes {sorted(found)}")
        times = found.pop() if found else 1
        if times != 1 and self.program.only_recorded_batch:
            raise ExtractionError(f"graph {self.graph_name!r} runs with batch size 1 only, got {times}: its "
                                  f"{self.program.only_recorded_batch} mixes or moves the batch axis")
        return times

    def example_inputs(self, batch: int = 1, seed: int = 0) -> tuple[Tensor, ...]:
        """Random inputs: normal values; whole numbers in range where an input is read as positions (tokens); ones where
        an input stands beside tokens and has their shape (masks).
        """
        generator = torch.Generator().manual_seed(seed)
        tokens = {shape for shape, size in zip(self.input_shapes, self.input_ranges, strict=True) if size}
        made = []
        for shape, size in zip(self.input_shapes, self.input_ranges, strict=True):
            full = grown(shape, 0 if shape and shape[0] == 1 else None, batch)
            if size:
                made.append(torch.randint(size, full, generator=generator))
            elif shape in tokens:
                made.append(torch.ones(full))
            else:
                made.append(torch.randn(full, generator=generator))
        return tuple(made)


def _readers(graph: Graph, node: int) -> list[tuple[NodeSpec, int]]:
    """Who reads ``node``, and as which argument."""
    return [(graph.nodes[graph.dst[e]], int(graph.arg[e])) for e in np.flatnonzero(graph.src == node)]


_TAKES_POSITIONS: Final = frozenset({"Gather", "GatherElements", "GatherND"})


def _index_range(graph: Graph, node: int) -> int:
    """Number of positions that an input may name; 0 if it is not read as positions."""
    sizes = []
    for spec, arg in _readers(graph, node):
        if spec.op == "Embedding":
            sizes.append(spec.weight_shape[0])
        elif spec.op in _TAKES_POSITIONS and arg == 1:
            axis = spec.attr("axis", spec.attr("axes", (0,))[0])
            sizes.append(spec.in_shapes[0][axis])
        elif spec.op == "OneHot":
            sizes.append(spec.attr("depth", spec.out_shape[-1]))
    return min(sizes) if sizes else 0


def _start_of(graph: Graph, node: int) -> str:
    """First values of a constant, by what reads it: neutral for scales and masks, small for what is added or joined."""
    spec, arg = (_readers(graph, node) or [(graph.nodes[node], 0)])[0]
    trained = graph.nodes[node].params > 0
    if spec.op == "Where" and arg == 0:
        return "zero" if spec.attr("then") is not None else "one"
    if spec.op in ("Mul", "Div", "Pow", "Min"):
        return "one"
    if spec.op in _TAKES_POSITIONS and arg == 1:
        return "zero"
    if spec.op in ("Add", "Sub", "Concat", "Max", "Expand"):
        return "small" if trained else "zero"
    return "fan"


def round_trip(graph: Graph) -> str | None:
    """``None`` if ``graph`` comes back equal from a module that was built from it, else the first difference."""
    from extract.torch_frontend import from_torch

    shapes = [spec.out_shape for spec in graph.nodes if spec.op == "Input"]
    tensors = [torch.empty(shape, device="meta") for shape in shapes]
    again: Any = from_torch(lambda: to_torch(graph, device="meta"), tensors, name=graph.name, family=graph.family)
    return difference(graph, again.graph)
