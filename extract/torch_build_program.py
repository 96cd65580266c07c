"""From a graph to the steps that a rebuilt module takes: which call, on which earlier values, seen under which shape.

Shapes are recorded for one batch size, nearly always 1. The batch is followed from the inputs through every movement and
operator, so that a step knows which axis of its output grows with it; where that cannot be said, only the recorded size
runs, and the program names the node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from torch import Tensor

from cg.graph import Graph
from cg.spec import NodeSpec, Shape
from extract.torch_build_ops import Call
from extract.torch_build_views import View, find_view, grown

_CHANNELS_FIRST: Final = frozenset({
    "Conv", "ConvTranspose", "BatchNormalization", "GroupNormalization", "InstanceNormalization", "MaxPool", "AveragePool",
    "GlobalAveragePool", "GlobalMaxPool", "Resize", "DepthToSpace", "SpaceToDepth", "GridSample", "LRN"})
_CHANNELS_LAST: Final = frozenset({"Gemm", "LayerNormalization", "RMSNormalization", "MatMul", "Embedding", "LSTM", "GRU"})


@dataclass(frozen=True, slots=True)
class Step:
    """One node: its call, where its arguments come from and how they are seen, and which values nobody needs after it.

    ``repeats[i]`` is the axis along which argument ``i``, which does not know the batch, is repeated for a larger one.
    """

    node: int
    call: Call
    sources: tuple[tuple[int, View | None], ...]
    repeats: tuple[int | None, ...]
    done_with: tuple[int, ...]


@dataclass(frozen=True)
class Program:
    """Steps in order. Immutable, so copies of a module share it."""

    steps: tuple[Step, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    only_recorded_batch: str = ""  # the node that makes other batch sizes impossible, if there is one
    names: dict[int, str] = field(default_factory=dict)  # node -> attribute of the module

    def __deepcopy__(self, memo: dict[int, Any]) -> Program:
        return self


def write_program(graph: Graph) -> Program:
    """The steps of ``graph``, whose nodes are in topological order."""
    specs = graph.nodes
    sources = [graph.inputs_of(i) for i in range(graph.n_nodes)]
    last_use: dict[int, int] = {}
    for i, producers in enumerate(sources):
        for p in producers:
            last_use[p] = i
    kept = set(graph.outputs.tolist())
    keys = _attention_keys(specs, sources)
    batches: list[int | None] = []
    layouts: list[int | None] = []  # axis of the channels: 1, -1 or None
    steps, trouble = [], ""
    for i, spec in enumerate(specs):
        views: list[View | None] = []
        seen: list[int | None] = []
        sound = True
        for arg, (p, shape) in enumerate(zip(sources[i], spec.in_shapes, strict=True)):
            view = _view(specs[p].op, specs[p].out_shape, batches[p], layouts[p], spec, shape, (i, arg) in keys)
            views.append(view)
            seen.append(batches[p] if view is None else view.batch)
            sound = sound and (view is None or view.sound)
        batch, known = (_input_batch(spec), True) if spec.op == "Input" else _batch_after(spec, seen)
        if not (known and sound) and not trouble:
            trouble = f"node {i} ({spec.op} {spec.in_shapes} -> {spec.out_shape})"
        batches.append(batch)
        layouts.append(_layout(spec, [layouts[p] for p in sources[i]], [specs[p].out_shape for p in sources[i]]))
        repeats = tuple(_repeat_axis(spec, shape, k, batch) for shape, k in zip(spec.in_shapes, seen, strict=True))
        done_with = tuple(p for p in dict.fromkeys(sources[i]) if last_use[p] == i and p not in kept)
        steps.append(Step(i, Call(spec, batch), tuple(zip(sources[i], views, strict=True)), repeats, done_with))
    inputs = tuple(i for i, spec in enumerate(specs) if spec.op == "Input")
    return Program(tuple(steps), inputs, tuple(graph.outputs.tolist()), trouble)


def seen_as(x: Tensor, view: View | None, times: int) -> Tensor:
    """``x`` moved as ``view`` says, for a batch ``times`` as large as the recorded one."""
    if view is None:
        return x
    if view.factors is not None and view.order is not None:
        x = x.reshape(grown(view.factors, view.batch_factor, times)).permute(view.order)
    shape = grown(view.shape, view.batch, times)
    return x if tuple(x.shape) == shape else x.reshape(shape)


def _view(producer: str, source: Shape, batch: int | None, layout: int | None, spec: NodeSpec, shape: Shape,
          key: bool) -> View | None:
    """How an argument is seen. Two habits decide what shapes leave open: where channels stand, and keys are transposed."""
    n = len(shape)
    if key and n > 1 and shape[-1] == shape[-2] and layout != 1:
        if source == shape:
            order = (*range(n - 2), n - 1, n - 2)
            return View(shape, order, shape, batch, batch)
        return find_view(source, batch, shape, (len(source) - 1, n - 2))
    if source == shape:
        return None
    prefer = None
    if spec.op == "MatMul" and len(source) in (3, 4) and n == len(source) + 1:
        prefer = len(source) - 1, n - 3  # heads are split off the channels
    elif producer == "MatMul" and n > 2 and len(source) == n + 1:
        prefer = len(source) - 3, n - 1  # and joined to them again
    elif layout is not None and n > 2:
        channels = layout % len(source)
        if spec.op in _CHANNELS_FIRST:
            prefer = channels, 1
        elif spec.op in _CHANNELS_LAST:
            prefer = channels, n - 1
    return find_view(source, batch, shape, prefer)


def _layout(spec: NodeSpec, before: Sequence[int | None], produced: Sequence[Shape]) -> int | None:
    if spec.op in _CHANNELS_FIRST:
        return 1
    if spec.op in _CHANNELS_LAST:
        return -1
    if spec.op == "Input":
        return 1 if len(spec.out_shape) >= 4 else None
    if not before or before[0] is None or not produced[0] or not spec.in_shapes[0]:
        return None
    source, shape = produced[0], spec.in_shapes[0]
    if source == shape:
        return before[0]
    channels = source[before[0] % len(source)]
    if len(shape) > 1 and shape[1] == channels != shape[-1]:
        return 1
    return -1 if shape[-1] == channels else None


def _attention_keys(specs: Sequence[NodeSpec], sources: Sequence[list[int]]) -> set[tuple[int, int]]:
    """``(node, argument)`` of the second arguments of products that a softmax normalises, at most a scale and mask later."""
    found: set[tuple[int, int]] = set()
    for i, spec in enumerate(specs):
        if spec.op != "Softmax":
            continue
        node = i
        for _ in range(6):
            if not sources[node]:
                break
            node = max(sources[node], key=lambda p: (len(specs[p].in_shapes), p))  # a mask has no or fewer arguments
            if specs[node].op == "MatMul" and len(sources[node]) == 2:
                found.add((node, 1))
                break
            if specs[node].op not in ("Mul", "Add", "Where", "Softmax"):
                break
    return found


# ---- the batch --------------------------------------------------------------------------------------------------


def _input_batch(spec: NodeSpec) -> int | None:
    return 0 if spec.out_shape and spec.out_shape[0] == 1 else None


def _batch_after(spec: NodeSpec, seen: Sequence[int | None]) -> tuple[int | None, bool]:
    """Axis of the output that carries the batch, given that of each argument; and whether that is known."""
    if all(k is None for k in seen):
        return None, True
    found = {_carried(spec, arg, k) for arg, k in enumerate(seen) if k is not None}
    if len(found) == 1 and None not in found:
        return found.pop(), True
    return None, False


def _carried(spec: NodeSpec, arg: int, batch: int) -> int | None:
    """Where the batch on axis ``batch`` of argument ``arg`` stands in the output; ``None`` if nowhere as a whole."""
    shape, out, op = spec.in_shapes[arg], spec.out_shape, spec.op
    axis = batch + len(out) - len(shape)
    if op == "Embedding" or (spec.attr("kernel_shape") and len(shape) != len(out)):  # a fold of windows
        axis = batch
    elif op in ("Conv", "ConvTranspose") and arg == 1:
        return None
    elif op == "Gather":
        place = spec.attr("axis", 0)
        rank = len(out) - len(spec.in_shapes[0]) + 1
        axis = place + batch if arg else batch if batch < place else batch + rank - 1
        if not arg and batch == place:
            return None
    elif op == "GatherND":
        places = spec.attr("axes", (0,))
        rank = len(out) - len(spec.in_shapes[0]) + len(places)
        start = places[0] if places == tuple(range(places[0], places[-1] + 1)) else 0
        if arg:
            axis = start + rank - len(shape) + batch
        elif batch in places:
            return None
        else:
            before = sum(1 for p in places if p < batch)
            axis = batch if start and batch < start else batch - before + rank
            axis = batch if batch < start else axis
    elif op == "Einsum":
        terms, _, result = spec.attr("equation").partition("->")
        term = terms.split(",")[arg]
        if "." not in term and "." not in result:
            return result.find(term[batch]) if term[batch] in result else None
    elif _mixes(spec, arg, batch):
        return None
    if op == "OneHot" or op in ("LSTM", "GRU", "RNN"):
        axis = batch if arg == 0 else 0
    return axis if 0 <= axis < len(out) and out[axis] == shape[batch] else None


def _mixes(spec: NodeSpec, arg: int, axis: int) -> bool:
    """Whether the operator computes across ``axis`` of the argument."""
    if spec.op == "MatMul":  # the sum goes over the last axis of the first and the last but one of the second
        return axis == len(spec.in_shapes[arg]) - (1 if arg == 0 else 2)
    if spec.op in ("ArgMax", "ArgMin", "TopK", "CumSum", "Softmax", "LogSoftmax"):
        return spec.attr("axis") in (None, axis)
    return spec.op != "Slice" and axis in spec.attr("axes", ())


def _repeat_axis(spec: NodeSpec, shape: Shape, seen: int | None, batch: int | None) -> int | None:
    """Axis along which a constant argument is repeated to go with a larger batch; ``None`` where broadcasting does it."""
    if seen is not None or batch is None or spec.op in ("Gather", "GatherND", "Conv", "ConvTranspose", "Embedding", "Einsum"):
        return None
    axis = batch - len(spec.out_shape) + len(shape)
    if not 0 <= axis < len(shape) or shape[axis] != spec.out_shape[batch]:
        return None
    needed = shape[axis] > 1 or spec.op in ("Concat", "LSTM", "GRU", "RNN", "ScatterND", "ScatterElements", "GridSample",
                                             "GatherElements")
    return axis if needed else None
