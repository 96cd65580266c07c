"""``from_torch``: any ``torch.nn.Module`` to a graph, by watching one forward pass on the meta device.

How operators are mapped is in ``torch_ops``, how values are followed in ``torch_recorder``; docs/adr/0003-tracing.md says why.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping
from traceback import walk_tb
from typing import Any

import torch
from torch import nn

from cg.builder import GraphBuilder
from cg.errors import GraphError
from extract.extraction import Extraction, ExtractionError, ExtractionWarning
from extract.torch_model import first_line, inputs_on_meta, on_meta
from extract.torch_ops import tensors_in
from extract.torch_recorder import Recorder


def from_torch(model: nn.Module | Callable[[], nn.Module], example_inputs: Any, *, name: str = "",
               family: str = "") -> Extraction:
    """The computation graph of ``model`` as it is at inference.

    Args:
        model: a module, which is neither run nor changed (a copy without weights is), or a function without arguments
            that builds one; then no weight is ever allocated. A module class is such a function.
        example_inputs: a tensor, a shape such as ``(1, 3, 224, 224)``, a list of those, or a dict by argument name.
        name, family: kept in the graph; ``name`` defaults to the class name.

    Raises ``ExtractionError`` naming the module where the run failed: the model reads values (``.item()``, a branch on a
    tensor), or it does not accept these inputs. Warns with ``ExtractionWarning`` if the graph holds ``Unknown`` nodes.

    Safe to call from several threads. The graph counts each trained scalar once, so ``graph.params`` is the number of
    parameters that the outputs depend on.

    Example:
        >>> from extract import from_torch
        >>> from_torch(lambda: nn.Linear(8, 2), (1, 8)).graph.ops
        ['Input', 'Gemm']
    """
    notes: list[str] = []
    twin = on_meta(model, notes)
    args, kwargs = inputs_on_meta(example_inputs)
    builder = GraphBuilder(name=name or type(twin).__name__, family=family)
    recorder = Recorder(builder, twin)
    for tensor in tensors_in((args, kwargs)):
        recorder.make_live(tensor, builder.input(tuple(tensor.shape)))
    try:
        with torch.inference_mode(), recorder:
            result = twin(*args, **kwargs)
    except Exception as error:
        raise _explained(error, recorder, twin) from error
    nodes = _live_outputs(result, recorder)
    if not nodes:
        raise ExtractionError(f"no output of {type(twin).__name__} depends on its inputs; {_tensor_count(result)}")
    try:
        graph = builder.build(*nodes)
    except GraphError as error:
        raise ExtractionError(f"{type(twin).__name__}: the recorded graph is not sound ({error}); this is a fault of the "
                              "extractor, please report the model") from error
    unknown = graph.unknown
    if unknown:
        listed = ", ".join(f"{op} ({count})" for op, count in unknown.most_common())
        warnings.warn(f"{graph.name}: operators outside the vocabulary became Unknown nodes: {listed}",
                      ExtractionWarning, stacklevel=2)
    return Extraction(graph, unknown, notes + recorder.notes, recorder.ignored)


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


_VALUE_ERRORS = ("_local_scalar_dense", "meta tensor", "Tensor.item()", "data-dependent", "is_nonzero", "to numpy",
                 "no data", "no fake impl or Meta kernel")


def _explained(error: Exception, recorder: Recorder, model: nn.Module) -> ExtractionError:
    """What went wrong, in which module of the model, and what to do about it."""
    if isinstance(error, ExtractionError):
        return error
    paths = {id(m): path for path, m in model.named_modules()}
    path = ""
    for frame, _ in walk_tb(error.__traceback__):
        path = paths.get(id(frame.f_locals.get("self")), path)
    place = f"in module {path!r} ({type(model.get_submodule(path)).__name__})" if path else f"in {type(model).__name__}"
    text = str(error)
    *_, (innermost, _) = walk_tb(error.__traceback__)
    if innermost.f_globals.get("__name__", "").startswith("extract."):
        advice = "this is a fault of the extractor, not of the model; please report it"
    elif any(sign in text for sign in _VALUE_ERRORS):
        advice = ("it needs the value of a tensor (.item(), int(t), `if t:`, .numpy()), which a run without weights does "
                  "not have; take the decision from shapes or settings instead, or pass the part of the model without it")
    elif isinstance(error, TypeError):
        advice = "check that example_inputs are the arguments of the model's forward"
    else:
        advice = "check the shapes and number formats of example_inputs, and that the model runs on them in eval mode"
    return ExtractionError(f"cannot extract a graph: {place}: {first_line(error)}; {advice}")
