"""``from_torch``: any PyTorch model to a graph, by watching one forward pass on the meta device.

How operators are mapped is in ``torch_ops``, how values are followed in ``torch_recorder``; docs/adr/0003-tracing.md says why.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from traceback import walk_tb
from typing import Any

import torch
from torch import nn

from cg.builder import GraphBuilder
from cg.errors import GraphError
from cg.transforms import canonicalize
from extract.extraction import Extraction, ExtractionError, ExtractionWarning, first_line
from extract.torch_exported import exported, opened
from extract.torch_model import inputs_on_meta, on_meta
from extract.torch_recorder import Recorder, tensors_in
from extract.torch_values import PythonReads, Values


def from_torch(model: Any, example_inputs: Any = None, *, name: str = "", family: str = "") -> Extraction:
    """The computation graph of ``model`` as it is at inference.

    Args:
        model: a module, which is neither run nor changed (a copy without weights is), or a function without arguments
            that builds one; then no weight is ever allocated. A module class is such a function. Also a
            ``torch.fx.GraphModule``, a ``torch.export.ExportedProgram`` and a ``torch.jit.ScriptModule``.
        example_inputs: a tensor, a shape such as ``(1, 3, 224, 224)``, a list of those, or a dict by argument name. An
            exported program has its own. Give small tensors of integers as real tensors if the model reads their values.
        name, family: kept in the graph; ``name`` defaults to the class name.

    ``Extraction.way`` says which way it went. A model that reads values of tensors (``.item()``, ``if mask.all():``) is run
    again with the values of small tensors worked out; if one of those it reads follows from a weight, it goes through
    ``torch.export``. ``Extraction.notes`` tells both.

    Raises ``ExtractionError`` naming the module where the run failed: the model reads values that cannot be known, or it
    does not accept these inputs. Warns with ``ExtractionWarning`` if the graph holds ``Unknown`` nodes.

    Safe to call from several threads. The graph counts each trained scalar once, so ``graph.params`` is the number of
    parameters that the outputs depend on.

    Example:
        >>> from extract import from_torch
        >>> from_torch(lambda: nn.Linear(8, 2), (1, 8)).graph.ops
        ['Input', 'Gemm']
    """
    model, example_inputs, way = opened(model, example_inputs)
    extraction = _first_way_that_works(model, example_inputs, way, name, family)
    if extraction.unknown:
        listed = ", ".join(f"{op} ({count})" for op, count in extraction.unknown.most_common())
        warnings.warn(f"{extraction.graph.name}: operators outside the vocabulary became Unknown nodes: {listed}",
                      ExtractionWarning, stacklevel=2)
    return extraction


def _first_way_that_works(model: Any, example_inputs: Any, way: str, name: str, family: str) -> Extraction:
    """Plain run; run with values, if values are read or sizes depend on them; ``torch.export``, if that is not enough."""
    first: Extraction | None = None
    try:
        # what a traced program computes on constants (a mask that masks nothing), its model may have read when it was run
        values = Values() if way in ("exported program", "fx") else None
        first, has_guessed = _run(model, example_inputs, way, name, family, values)
        if not has_guessed:
            return first
        why = "the size of a tensor depends on values"
    except _Failed as error:
        if not error.reads_values and not error.has_guessed:
            raise
        why, failed = error.short, error
    try:
        found, _ = _run(model, example_inputs, way, name, family, Values())
        found.notes.insert(0, f"run with the values of small tensors, because {why}")
        return found
    except ExtractionError as error:
        if first is not None:
            return first
        if not isinstance(error, _Failed) or not error.reads_values or not error.may_be_exported or way != "dispatch":
            raise
        failed = error
    try:
        found, _ = _run(exported(model, example_inputs), example_inputs, "export", name, family, Values())
    except ExtractionError as error:
        raise ExtractionError(f"{failed}. torch.export, tried next, says: {error}") from failed
    found.notes.insert(0, f"traced through torch.export, because {failed.short}")
    return found


def _run(model: Any, example_inputs: Any, way: str, name: str, family: str, values: Values | None = None
         ) -> tuple[Extraction, bool]:
    """One forward pass under the recorder, and whether a size was guessed because it depends on values."""
    notes: list[str] = list(getattr(model, "notes", ()))
    twin = on_meta(model, notes, values)
    args, kwargs = inputs_on_meta(example_inputs, values)
    builder = GraphBuilder(name=name or type(twin).__name__, family=family)
    recorder = Recorder(builder, twin)
    for tensor in tensors_in((args, kwargs)):
        recorder.make_live(tensor, builder.input(tuple(tensor.shape)))
    try:
        with torch.inference_mode(), ExitStack() as modes:
            if values is not None:
                recorder.use_values(values)
                modes.enter_context(PythonReads(values))
            modes.enter_context(recorder)
            result = twin(*args, **kwargs)
    except Exception as error:
        raise _explained(error, recorder, twin) from error
    nodes = _live_outputs(result, recorder)
    if not nodes:
        raise ExtractionError(f"no output of {type(twin).__name__} depends on its inputs; {_tensor_count(result)}")
    try:
        recorder.settle_shared()
        graph = canonicalize(builder.build(*nodes))
    except GraphError as error:
        raise ExtractionError(f"{type(twin).__name__}: the recorded graph is not sound ({error}); this is a fault of the "
                              "extractor, please report the model") from error
    return Extraction(graph, graph.unknown, notes + recorder.notes, recorder.ignored, way), recorder.has_guessed


def _live_outputs(result: Any, recorder: Recorder) -> list[int]:
    """Nodes of all tensors in the model's result, each once, in order."""
    nodes: list[int] = []
    for tensor in _result_tensors(result):
        node = recorder.node_of(tensor)
        if node is None:
            recorder.note(f"an output of shape {tuple(tensor.shape)} does not depend on the inputs and was left out")
        elif node not in nodes:
            nodes.append(node)
    return nodes


def _result_tensors(result: Any, depth: int = 0) -> Iterator[torch.Tensor]:
    """Tensors in nested lists, dicts and dataclasses (the outputs of transformers are both)."""
    if isinstance(result, torch.Tensor):
        yield result
    elif depth < 8:
        if isinstance(result, Mapping):
            inside: Any = result.values()
        elif isinstance(result, list | tuple | set):
            inside = result
        elif dataclasses.is_dataclass(result) and not isinstance(result, type):
            inside = [getattr(result, f.name) for f in dataclasses.fields(result)]
        else:
            inside = ()
        for value in inside:
            yield from _result_tensors(value, depth + 1)


def _tensor_count(result: Any) -> str:
    n = sum(1 for _ in _result_tensors(result))
    return f"its result holds {n} tensors" if n else f"its result ({type(result).__name__}) holds no tensor"


class _Failed(ExtractionError):
    """A run that failed: whether it did for want of a value, with ``short`` saying so without advice, and what may help."""

    short = ""
    reads_values = has_guessed = False
    may_be_exported = True


# What torch and others say when they want the value of a meta tensor.
_VALUE_ERRORS = ("_local_scalar_dense", "meta tensor", "Tensor.item()", "data-dependent", "is_nonzero", "to numpy",
                 "no data", "no fake impl or Meta kernel", "meta device", "unallocated storage", "device='meta'",
                 "on same device")


def _explained(error: Exception, recorder: Recorder, model: nn.Module) -> ExtractionError:
    """What went wrong, in which module of the model, and what to do about it."""
    if isinstance(error, ExtractionError):
        return error
    paths = {id(m): path.removeprefix("inner").removeprefix(".") for path, m in model.named_modules()}
    path, kind = "", type(model).__name__
    for frame, _ in walk_tb(error.__traceback__):
        module = frame.f_locals.get("self")
        if paths.get(id(module)):
            path, kind = paths[id(module)], type(module).__name__
    place = f"in module {path!r} ({kind})" if path else f"in {kind}"
    reads_values = any(sign in str(error) for sign in _VALUE_ERRORS)
    *_, (innermost, _) = walk_tb(error.__traceback__)
    if reads_values:
        advice = ("it needs the value of a tensor (.item(), int(t), `if t:`, .numpy()), which a run without weights does not "
                  "have; give small integer inputs as real tensors, take the decision from shapes or settings instead, or "
                  "pass the part of the model without it")
    elif innermost.f_globals.get("__name__", "").startswith("extract."):
        advice = "this is a fault of the extractor, not of the model; please report it"
    elif isinstance(error, TypeError):
        advice = "check that example_inputs are the arguments of the model's forward"
    else:
        advice = "check the shapes and number formats of example_inputs, and that the model runs on them in eval mode"
    failed = _Failed(f"cannot extract a graph: {place}: {first_line(error)}; {advice}")
    failed.short = f"the model reads the value of a tensor {place} ({first_line(error)})" if reads_values else \
        "the size of a tensor depends on values"
    failed.reads_values, failed.has_guessed = reads_values, recorder.has_guessed
    failed.may_be_exported = getattr(model, "may_be_exported", True)  # no use for an interpreter of another framework's graph
    return failed
