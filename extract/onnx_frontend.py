"""``from_onnx``: an ONNX file to a graph, without reading its weights.

How the file is read is in ``onnx_file``, how it is walked in ``onnx_program``, what each operator becomes in ``onnx_ops``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from extract.extraction import Extraction, ExtractionError, unforeseen
from extract.onnx_file import DTYPES, OnnxFile, check_dims, read
from extract.onnx_program import OnnxProgram
from extract.torch_frontend import from_torch


def from_onnx(model: Any, input_shapes: Mapping[str, Sequence[int]] | None = None, *, name: str = "", family: str = "",
              not_trained: Iterable[str] = ()) -> Extraction:
    """The computation graph of an ONNX model.

    Args:
        model: a path, the bytes of a file, or an ``onnx.ModelProto``. No other file is opened: weights in external data are
            known by their shape only, and weights inside the file are not decoded.
        input_shapes: shape of each input whose axes are dynamic, by name: ``{"x": (1, 3, 224, 224)}``. A dynamic first axis
            is taken as a batch of 1 if nothing is given, and a note says so.
        name, family: kept in the graph; ``name`` defaults to the name in the file.
        not_trained: names (or patterns such as ``"*.mask"``) of tensors that are not trained parameters.

    Which tensors are trained: exporters that say so (``torch.onnx.export(dynamo=True)``) are believed. In other files it is
    every initializer of floating point numbers that is a weight of a layer or takes part in the computation otherwise,
    except settings (limits, scales, running statistics: ``onnx_trained.SETTINGS``), names that PyTorch models use for buffers
    (``onnx_trained.BUFFERS``), and single numbers with a made-up name. Quantised weights count although they are integers.
    Values of ``Constant`` nodes are trained only in files that keep all their weights there.

    Raises ``ExtractionError`` naming the file, the node (name and operator) and what to do. Warns with ``ExtractionWarning`` if
    the graph holds ``Unknown`` nodes.

    Example:
        >>> from extract import from_onnx
        >>> from_onnx("resnet50.onnx", {"x": (1, 3, 224, 224)}).graph.macs  # doctest: +SKIP
    """
    notes: list[str] = []
    with unforeseen(model):
        file = read(model, not_trained)
        inputs = _inputs(file, dict(input_shapes or {}), notes)
        program = OnnxProgram(file)
        program.trained_results()
    try:
        found = from_torch(lambda: program, inputs, name=name or file.proto.graph.name or "onnx", family=family)
    except ExtractionError as error:
        text = str(error).replace(OnnxProgram.__name__, file.source)
        raise ExtractionError(text if len(text) < 2000 else text[:2000] + "…") from error
    found.notes[:0] = notes + program.notes
    found.ignored.update(program.ignored)
    return found


def _inputs(file: OnnxFile, shapes: dict[str, Sequence[int]], notes: list[str]) -> dict[str, torch.Tensor]:
    """A meta tensor for each input of the graph that is not an initializer."""
    graph = file.proto.graph
    given = {t.name for t in graph.initializer} | {s.values.name for s in graph.sparse_initializer}
    made = {out for n in graph.node for out in n.output}
    wanted = [i for i in graph.input if i.name not in given and i.name not in made]
    strangers = sorted(set(shapes) - {i.name for i in wanted})
    if strangers:
        raise ExtractionError(f"{file.source} has no input {strangers[0]!r}; its inputs are "
                              f"{', '.join(repr(i.name) for i in wanted[:20]) or 'none'}")
    missing: list[str] = []
    found: dict[str, torch.Tensor] = {}
    for i in wanted:
        if i.name in found:
            raise ExtractionError(f"{file.source}: two inputs are named {i.name!r}")
        if not i.type.HasField("tensor_type"):
            raise ExtractionError(f"{file.source}: input {i.name!r} is a sequence, a map or optional; inputs must be tensors")
        kind = i.type.tensor_type.elem_type
        if kind not in DTYPES:
            raise ExtractionError(f"{file.source}: input {i.name!r} holds values of a format ({kind}) that networks of numbers "
                                  "do not use")
        shape = _shape(file, i, shapes.get(i.name), missing, notes)
        found[i.name] = torch.empty(check_dims(shape, f"{file.source}: input {i.name!r}"), dtype=DTYPES[kind], device="meta")
    if missing:
        example = missing[0].split("'")[1]
        raise ExtractionError(f"{file.source} has dynamic axes: {'; '.join(missing[:20])}. Give their sizes: "
                              f"input_shapes={{{example!r}: (…)}}")
    if not found:
        raise ExtractionError(f"{file.source} has no inputs, so nothing in it is a network")
    return found


def _shape(file: OnnxFile, value: Any, given: Sequence[int] | None, missing: list[str], notes: list[str]) -> tuple[int, ...]:
    what = f"{file.source}: input {value.name!r}"
    tensor_type = value.type.tensor_type
    dims = list(tensor_type.shape.dim) if tensor_type.HasField("shape") else None
    if given is not None:
        sizes = tuple(given)
        if any(not isinstance(d, int) or d < 0 for d in sizes):
            raise ExtractionError(f"{what}: input_shapes gives {sizes}; sizes must be integers that are not negative")
        if dims is not None and len(dims) != len(sizes):
            raise ExtractionError(f"{what} has {len(dims)} axes, and input_shapes gives {len(sizes)}: {sizes}")
        fixed = [d.dim_value if d.HasField("dim_value") else s for d, s in zip(dims or [], sizes, strict=False)]
        if dims is not None and list(sizes) != fixed:
            notes.append(f"input {value.name!r} is declared as {fixed} and was taken as {list(sizes)}")
        return sizes
    if dims is None:
        missing.append(f"input '{value.name}' has no declared shape")
        return ()
    sizes_: list[int] = []
    unknown = []
    for k, d in enumerate(dims):
        if d.HasField("dim_value") and d.dim_value != 0:
            sizes_.append(d.dim_value)
        elif k == 0 and len(dims) > 1 and (d.dim_value == 0):
            sizes_.append(1)
            notes.append(f"the first axis of input {value.name!r} ({d.dim_param or 'dynamic'}) was taken as a batch of 1")
        else:
            unknown.append(f"{k} ({d.dim_param or 'unnamed'})")
            sizes_.append(1)
    if unknown:
        missing.append(f"input '{value.name}' axis {', '.join(unknown)}")
    return tuple(sizes_)
