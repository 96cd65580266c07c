"""What ``from_tensorflow`` accepts, as nodes, inputs and variables; functions here, models in ``tensorflow_keras``, files in
``tensorflow_files``.

No weight is read: of a variable only its shape, type and whether it is trained are used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import nn

from extract.extraction import ExtractionError, first_line
from extract.tensorflow_consts import LARGEST, MOST_VALUES, dtype_of
from extract.tensorflow_graph import Library
from extract.tensorflow_values import RESOURCE, Variable


@dataclass(frozen=True)
class Input:
    """An input: its node, the name that a user knows, its shape (``None`` where dynamic or unknown)."""

    node: str
    name: str
    shape: Sequence[int | None] | None
    dtype: torch.dtype


@dataclass
class Source:
    """A network before it is flattened. ``variables``: node name -> what it stands for."""

    name: str
    nodes: Sequence[Any]
    functions: Iterable[Any]
    inputs: list[Input]
    outputs: list[str]
    variables: dict[str, Variable] = field(default_factory=dict)
    trained_constants: bool = False
    notes: list[str] = field(default_factory=list)


def library_for(source: Source) -> Library:
    from tensorflow.python.framework import op_def_registry

    def output_sizes(op: str, attrs: Mapping[str, Any]) -> list[tuple[str, int]]:
        definition = op_def_registry.get(op)
        sizes = []
        for arg in definition.output_arg if definition is not None else ():
            size = 1
            if arg.number_attr:
                size = int(attrs[arg.number_attr].i) if arg.number_attr in attrs else 0
            elif arg.type_list_attr:
                size = len(attrs[arg.type_list_attr].list.type) if arg.type_list_attr in attrs else 0
            sizes.append((arg.name, size))
        return sizes

    return Library(source.functions, output_sizes)


def source_of(obj: Any, input_shapes: Any) -> Source:
    """The network behind whatever the user passed."""
    from extract import tensorflow_files as files

    if isinstance(obj, str | os.PathLike):
        return files.read(os.fspath(obj), input_shapes)
    if isinstance(obj, bytes | bytearray):
        return files.graph_bytes(bytes(obj), "the bytes")
    kind = type(obj).__name__
    if kind == "GraphDef":
        return files.frozen(obj, "graph")
    import keras
    import tensorflow as tf

    from extract.tensorflow_keras import built, keras_source

    if isinstance(obj, keras.layers.Layer):
        return keras_source(obj, input_shapes)
    if hasattr(obj, "structured_input_signature") and hasattr(obj, "graph"):
        return concrete_source(obj, "", {})
    if hasattr(obj, "get_concrete_function"):
        return concrete_source(_concrete(obj, input_shapes), getattr(obj, "__name__", ""), {})
    if isinstance(obj, tf.Module):
        return _module_source(obj, input_shapes)
    if callable(obj):
        return keras_source(built(obj), input_shapes)
    raise ExtractionError(f"from_tensorflow does not know what to do with {kind}; give a Keras model, a tf.Module, a "
                          "tf.function, the path of a .keras file, SavedModel or frozen .pb, or a GraphDef")


def hollow(shape: tuple[int, ...], dtype: torch.dtype, trained: bool, name: str = "") -> torch.Tensor:
    """A variable without values; a trained one is a parameter."""
    if prod(shape) > LARGEST or any(d < 0 for d in shape):
        raise ExtractionError(f"variable {name!r} has shape {shape}, which is not possible")
    empty = torch.empty(shape, dtype=dtype, device="meta")
    return nn.Parameter(empty, requires_grad=False) if trained else empty


def merged(name: str, shape: Any, given: Sequence[int]) -> list[int | None]:
    if shape.rank is None:
        return list(given)
    if shape.rank != len(given) or any(a is not None and b is not None and a != b for a, b in zip(shape, given, strict=True)):
        raise ExtractionError(f"input_shapes: {name!r} is {tuple(given)}, the network has {tuple(shape)}")
    return [a if a is not None else b for a, b in zip(shape, given, strict=True)]


def traced(function: Callable[..., Any], specs: Sequence[Any], name: str, own_code: bool = True) -> Any:
    """A concrete function. Code of the user's own is rewritten by autograph where it branches on tensors; layers from a file
    (``own_code=False``) are the framework's and need none, and autograph writes code into files and runs it."""
    import tensorflow as tf

    try:
        return tf.function(function, autograph=False).get_concrete_function(*specs)
    except Exception as error:
        if own_code:
            with suppress(Exception):
                return tf.function(function).get_concrete_function(*specs)
        raise ExtractionError(f"{name!r} cannot be traced: {first_line(error)}; check input_shapes, and that the model "
                              "runs on them") from error


def _concrete(function: Any, input_shapes: Any) -> Any:
    """A concrete function of a ``tf.function``, for the user's shapes if there are any."""
    import tensorflow as tf

    from extract.tensorflow_frontend import named_shapes

    signature = getattr(function, "input_signature", None)
    try:
        if input_shapes is None and signature is not None:
            return function.get_concrete_function()
        names = [s.name or str(i) for i, s in enumerate(signature)] if signature is not None else []
        shapes = named_shapes(input_shapes, names)
        if not shapes:
            raise ExtractionError(f"{getattr(function, '__name__', 'the function')!r} has no input signature; give "
                                  "input_shapes")
        if signature is None:
            if isinstance(input_shapes, Mapping):
                return function.get_concrete_function(**{n: tf.TensorSpec(s, tf.float32) for n, s in shapes.items()})
            return function.get_concrete_function(*[tf.TensorSpec(s, tf.float32) for s in shapes.values()])
        specs = [tf.TensorSpec(merged(n, s.shape, shapes[n]) if n in shapes else s.shape, s.dtype, s.name)
                 for n, s in zip(names, signature, strict=True)]
        return function.get_concrete_function(*specs)
    except ExtractionError:
        raise
    except Exception as error:
        raise ExtractionError(f"{getattr(function, '__name__', 'the function')!r} cannot be traced: {first_line(error)}; check "
                              "input_shapes") from error


def _module_source(module: Any, input_shapes: Any) -> Source:
    name = type(module).__name__
    call = getattr(module, "__call__", None)  # noqa: B004
    if call is not None and hasattr(call, "get_concrete_function"):
        return concrete_source(_concrete(call, input_shapes), name, {})
    signatures = getattr(module, "signatures", None)
    if signatures:
        key = "serving_default" if "serving_default" in signatures else next(iter(signatures))
        return concrete_source(signatures[key], name, {})
    if call is None:
        raise ExtractionError(f"{name} has no __call__; pass the method that is the network, as a tf.function")
    import tensorflow as tf

    from extract.tensorflow_frontend import named_shapes

    shapes = named_shapes(input_shapes, [])
    if not shapes:
        raise ExtractionError(f"{name} has no input signature; give input_shapes")
    specs = [tf.TensorSpec(s, tf.float32) for s in shapes.values()]
    return concrete_source(traced(lambda *args: module(*args), specs, name), name, {})


def concrete_source(concrete: Any, name: str, variables: dict[str, Variable], inputs: Sequence[str] | None = None,
                    names: Sequence[str] | None = None) -> Source:
    """Nodes of a concrete function. What it captured is a variable, or a constant."""
    graph = concrete.graph
    handles = {id(v.handle): v for v in concrete.variables if getattr(v, "handle", None) is not None}
    captured = {}
    for external, internal in graph.captures:
        captured[internal.op.name] = external
    table = dict(variables)
    for node, external in captured.items():
        found = _captured(external, handles, node)
        if found is not None:
            table[node] = found
    places = [t for t in graph.inputs if t.op.name not in captured and t.op.name not in variables]
    if inputs is not None:
        places = [t for t in graph.inputs if t.op.name in inputs]
    given = []
    for i, t in enumerate(places):
        shape = None if t.shape.rank is None else tuple(t.shape)
        known_name = names[i] if names is not None else t.op.name
        given.append(Input(t.op.name, known_name, shape, dtype_of(t.dtype.as_datatype_enum, f"input {known_name!r}")))
    definition = graph.as_graph_def(add_shapes=True)
    outputs = [t.name for t in graph.outputs if t.dtype.as_datatype_enum != RESOURCE]
    return Source(name or concrete.name, definition.node, definition.library.function, given, outputs, table)


def _captured(external: Any, handles: Mapping[int, Any], node: str) -> Variable | None:
    if external.dtype.as_datatype_enum == RESOURCE:
        v = handles.get(id(external))
        if v is None:
            return None
        dtype = dtype_of(v.dtype.as_datatype_enum, f"variable {v.name!r}")
        return Variable(v.name, hollow(tuple(v.shape), dtype, bool(v.trainable), v.name))
    if external.dtype.as_datatype_enum > RESOURCE or external.dtype.name == "string":
        return None
    dtype = dtype_of(external.dtype.as_datatype_enum, f"constant {node!r}")
    shape = tuple(external.shape)
    if prod(shape) > MOST_VALUES:
        return Variable(node, torch.empty(shape, dtype=dtype, device="meta"))
    return Variable(node, torch.tensor(external.numpy().tolist(), dtype=dtype).reshape(shape))
