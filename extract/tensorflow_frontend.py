"""``from_tensorflow``: a Keras model, TensorFlow function, SavedModel or GraphDef to a graph.

The graph of TensorFlow's own operators is fetched without its weights (``tensorflow_sources``, ``tensorflow_files``), inlined
(``tensorflow_graph``) and run once by ``TensorFlowProgram`` under the recorder of ``from_torch``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch

from extract.extraction import Extraction, ExtractionError, unforeseen
from extract.tensorflow_graph import Library
from extract.tensorflow_values import first_order

InputShapes = Mapping[str, Sequence[int]] | Sequence[int] | Sequence[Sequence[int]] | None


def from_tensorflow(obj: Any, input_shapes: InputShapes = None, *, name: str = "", family: str = "") -> Extraction:
    """The computation graph of a TensorFlow network as it is at inference.

    Args:
        obj: a Keras 3 model or layer, or a function without arguments that builds one (then no weight is ever allocated); the
            path of a ``.keras`` file; a ``tf.Module``, ``tf.function`` or concrete function; the folder of a SavedModel; a
            frozen ``GraphDef`` (message, bytes, or path of a ``.pb`` file).
        input_shapes: shapes in TensorFlow's layout, (N, H, W, C): a dict by input name, a list, or one shape. Needed for every
            dynamic axis; a dynamic batch axis is one by default (noted).
        name, family: kept in the graph; ``name`` defaults to the name of the model.

    Images are recorded as (N, C, H, W), as those of PyTorch. Trained variables count as parameters; no weight is read. In
    a frozen graph every floating-point constant with axes counts, because the file does not say which were trained.

    Files are only parsed: nothing that they contain is executed, no other file is read. Raises ``ExtractionError`` naming
    node and field, or the input whose shape is missing.

    Example:
        >>> from extract import from_tensorflow
        >>> from_tensorflow(lambda: keras.applications.VGG16(weights=None)).graph.params  # doctest: +SKIP
        138357544
    """
    try:
        import tensorflow  # noqa: F401
    except ImportError as error:
        raise ExtractionError("from_tensorflow needs TensorFlow; install it with pip install tensorflow") from error
    from extract.tensorflow_fusion import channels_first
    from extract.tensorflow_ops import HANDLED
    from extract.tensorflow_program import TensorFlowProgram
    from extract.tensorflow_sources import Source, library_for, source_of
    from extract.torch_frontend import from_torch

    with unforeseen(obj):
        source: Source = source_of(obj, input_shapes)
        library: Library = library_for(source)
        net = library.main(source.nodes, source.outputs, [i.node for i in source.inputs])
        used = {n.name for n in net.nodes}
        unused = [i.name for i in source.inputs if i.node not in used]
        source.inputs = [i for i in source.inputs if i.node in used]
        if not source.inputs:
            raise ExtractionError(f"no output of {source.name or 'the network'} depends on its inputs")
        if isinstance(input_shapes, Mapping):
            input_shapes = {n: s for n, s in input_shapes.items() if n not in unused}
        shapes = _shapes(source, input_shapes)
        wishes = {n.name for n in channels_first(net)}
        inputs = list(zip(source.inputs, shapes, strict=True))
        layouts = [i.node in wishes and len(s) > 2 for i, s in inputs]
        examples = []
        for (i, shape), first in zip(inputs, layouts, strict=True):
            places = first_order(len(shape)) if first else tuple(range(len(shape)))
            sizes = [0] * len(shape)
            for axis, place in enumerate(places):
                sizes[place] = shape[axis]
            examples.append(torch.empty(sizes, dtype=i.dtype, device="meta"))
        program = TensorFlowProgram(net, library, [i.node for i, _ in inputs], layouts, source.variables, HANDLED,
                                    source.trained_constants)
    result = from_torch(lambda: program, tuple(examples), name=name or source.name, family=family)
    return dataclasses.replace(result, notes=[*source.notes, *result.notes], way="")


def _shapes(source: Any, given: InputShapes) -> list[tuple[int, ...]]:
    """A full shape for each input, from the graph and from the user."""
    wanted = dict.fromkeys(i.name for i in source.inputs)
    by_name = named_shapes(given, list(wanted))
    shapes = []
    for i in source.inputs:
        sizes = list(by_name[i.name]) if i.name in by_name else list(i.shape or [])
        if i.shape is None and i.name not in by_name:
            raise ExtractionError(f"the shape of input {i.name!r} is not known; give input_shapes={{{i.name!r}: (...)}}")
        if i.shape is not None:
            if len(sizes) != len(i.shape) or any(a is not None and a != b for a, b in zip(i.shape, sizes, strict=True)
                                                 if b is not None):
                raise ExtractionError(f"input_shapes: {i.name!r} is {tuple(sizes)}, the network has {_text(i.shape)}")
            sizes = [b if a is None else a for a, b in zip(i.shape, sizes, strict=True)]
        if sizes and sizes[0] is None:
            sizes[0] = 1
            source.notes.append(f"the batch axis of input {i.name!r} is dynamic; it was taken as 1")
        if any(s is None for s in sizes):
            example = tuple(s if s is not None else "size" for s in sizes)
            raise ExtractionError(f"input {i.name!r} has dynamic axes, {_text(i.shape)}; give "
                                  f"input_shapes={{{i.name!r}: {example}}}")
        if any(not isinstance(s, int) or not 0 < s < 2**31 for s in sizes):
            raise ExtractionError(f"input {i.name!r} has shape {tuple(sizes[:16])}; sizes must be positive, and below 2^31")
        if len(sizes) > 16 or prod(sizes) > 2**40:
            raise ExtractionError(f"input {i.name!r} has shape {tuple(sizes[:16])}, {len(sizes)} axes; no network takes such")
        shapes.append(tuple(sizes))
    return shapes


def _text(shape: Sequence[int | None]) -> str:
    return "(" + ", ".join("?" if d is None else str(d) for d in shape) + ")"


def named_shapes(given: InputShapes, names: Sequence[str]) -> dict[str, Sequence[int]]:
    """The user's shapes by input name; refuses names that no input has."""
    if given is None:
        return {}
    if isinstance(given, Mapping):
        strange = [n for n in given if n not in names]
        if strange and names:
            raise ExtractionError(f"input_shapes names {strange[0]!r}; the inputs are {', '.join(map(repr, names))}")
        return {n: tuple(s) for n, s in given.items()}
    shapes: list[Any] = list(given)
    if shapes and all(d is None or isinstance(d, int) for d in shapes):
        shapes = [tuple(shapes)]
    if names and len(shapes) != len(names):
        raise ExtractionError(f"input_shapes gives {len(shapes)} shapes; the inputs are {', '.join(map(repr, names))}")
    return {n: tuple(s) for n, s in zip(names or map(str, range(len(shapes))), shapes, strict=False)}
