"""Reading files: SavedModel folders and frozen graphs. They are parsed, never executed.

This file must not call ``tf.saved_model.load``, and reads exactly one file of a model: the
description of its graph. Weights and assets are not opened.
"""

from __future__ import annotations

import os
from typing import Any, Final

from extract.extraction import ExtractionError, first_line
from extract.tensorflow_consts import LARGEST, dtype_of
from extract.tensorflow_sources import Input, Source, hollow
from extract.tensorflow_values import RESOURCE, Variable

_MOST_BYTES: Final = 2**31 - 1  # of a protocol buffer
_VARIANT: Final = 21  # the type of lists


def read(path: str, input_shapes: Any) -> Source:
    """The network in a file or folder, told by its name."""
    if not os.path.exists(path):
        raise ExtractionError(f"{path!r} does not exist")
    lower = path.lower()
    if os.path.isdir(path):
        inner = os.path.join(path, "saved_model.pb")
        if not os.path.isfile(inner):
            raise ExtractionError(f"folder {path!r} holds no saved_model.pb; give the folder of a SavedModel")
        return saved_model(_bytes(inner), os.path.basename(os.path.normpath(path)))
    if lower.endswith(".keras"):
        from extract.tensorflow_keras_file import keras_file

        return keras_file(path, input_shapes)
    if lower.endswith((".h5", ".hdf5")):
        raise ExtractionError(f"{path!r} is an HDF5 file, which may hold code and which Keras reads together with its weights; "
                              "load it where you trust it and save it with model.save('model.keras')")
    if lower.endswith(".pbtxt"):
        raise ExtractionError(f"{path!r} is a graph as text; save it with tf.io.write_graph(..., as_text=False)")
    if lower.endswith(".tflite"):
        raise ExtractionError(f"{path!r} is a TensorFlow Lite file; give the SavedModel it was made from")
    name = os.path.splitext(os.path.basename(path))[0]
    if os.path.basename(lower) == "saved_model.pb":
        return saved_model(_bytes(path), os.path.basename(os.path.dirname(os.path.abspath(path))))
    return graph_bytes(_bytes(path), name)


def _bytes(path: str) -> bytes:
    size = os.path.getsize(path)
    if size > _MOST_BYTES:
        raise ExtractionError(f"{path!r} has {size} bytes; a graph has at most {_MOST_BYTES}")
    with open(path, "rb") as file:
        return file.read()


# ---- protocol buffers -------------------------------------------------------------------------------------------


def _parsed(message: Any, data: bytes, what: str) -> Any:
    try:
        message.ParseFromString(data)
    except Exception as error:
        raise ExtractionError(f"{what} is not a {type(message).__name__} ({first_line(error)}); the file is damaged or of "
                              "another kind") from error
    return message


def graph_bytes(data: bytes, what: str) -> Source:
    """A frozen ``GraphDef``, or a ``SavedModel`` without its folder."""
    from tensorflow.core.framework.graph_pb2 import GraphDef
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    try:
        graph = _parsed(GraphDef(), data, what)
    except ExtractionError:
        model = SavedModel()
        try:
            model.ParseFromString(data)
        except Exception:
            model.Clear()
        if not model.meta_graphs:
            raise
        return saved_model(data, what)
    return frozen(graph, what)


_NO_RESULT: Final = frozenset({"NoOp", "Const", "Placeholder", "Assert", "Print", "SaveV2", "RestoreV2", "VarHandleOp",
                               "AssignVariableOp", "MergeV2Checkpoints", "Assign", "VariableV2"})


def frozen(graph: Any, name: str) -> Source:
    """A ``GraphDef`` whose weights are constants: placeholders are inputs, nodes that nobody reads are outputs."""
    if not graph.node:
        raise ExtractionError(f"{name}: field 'node' is empty; this is no GraphDef, or an empty one")
    inputs = []
    for node in graph.node:
        if node.op == "Placeholder" and node.attr["dtype"].type not in (RESOURCE, _VARIANT):
            where = f"node {node.name!r} (Placeholder), field 'dtype'"
            inputs.append(Input(node.name, node.name, _sizes(node.attr["shape"].shape if "shape" in node.attr else None),
                                dtype_of(node.attr["dtype"].type, where)))
    read_by = {t.lstrip("^").split(":")[0] for node in graph.node for t in node.input}
    unread = [n for n in graph.node if n.name not in read_by and n.op not in _NO_RESULT]
    outputs = [n.name for n in unread if n.op != "Exit"] or [n.name for n in unread]  # counters of loops are unread too
    if not inputs:
        raise ExtractionError(f"{name}: the graph has no Placeholder, so it has no input")
    if not outputs:
        raise ExtractionError(f"{name}: every node is read by another one, so the graph has no output; it has a cycle")
    notes = ["a frozen graph does not say which constants were trained; all floating-point constants with axes count as such"]
    return Source(name, graph.node, graph.library.function, inputs, outputs, {}, True, notes)


def _sizes(shape: Any) -> list[int | None] | None:
    if shape is None or shape.unknown_rank:
        return None
    return [int(d.size) if d.size >= 0 else None for d in shape.dim]


def saved_model(data: bytes, name: str) -> Source:
    """The serving signature of a SavedModel. Variables keep only their shape."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    model = _parsed(SavedModel(), data, f"SavedModel {name!r}")
    if not model.meta_graphs:
        raise ExtractionError(f"SavedModel {name!r}: field 'meta_graphs' is empty")
    meta = next((m for m in model.meta_graphs if "serve" in m.meta_info_def.tags), model.meta_graphs[0])
    keys = [k for k in meta.signature_def if k != "__saved_model_init_op" and meta.signature_def[k].inputs]
    if not keys:
        raise ExtractionError(f"SavedModel {name!r} has no signature with inputs (field 'signature_def'); save it with "
                              "signatures=, or export it with model.export")
    signature = meta.signature_def["serving_default" if "serving_default" in keys else sorted(keys)[0]]
    inputs = []
    for key in sorted(signature.inputs):
        info = signature.inputs[key]
        where = f"input {key!r} of SavedModel {name!r}"
        inputs.append(Input(info.name.split(":")[0], key, _sizes(info.tensor_shape), dtype_of(info.dtype, where)))
    outputs = [signature.outputs[key].name for key in sorted(signature.outputs)]
    trained = _trained(meta)
    variables = {}
    notes = []
    for node in meta.graph_def.node:
        if node.op in ("VarHandleOp", "VariableV2", "Variable"):
            found = _variable(node, trained.get(node.name, trained.get(_shared_name(node))))
            if found is not None:
                variables[node.name] = found
    if not trained and variables:
        notes.append("the SavedModel does not say which variables are trained; all floating-point variables count as such")
    graph = meta.graph_def
    return Source(name, graph.node, graph.library.function, inputs, outputs, variables, notes=notes)


def _shared_name(node: Any) -> str:
    return node.attr["shared_name"].s.decode("utf-8", "replace") if "shared_name" in node.attr else ""


def _variable(node: Any, trained: bool | None) -> Variable | None:
    """``trained`` is ``None`` where the file does not say."""
    where = f"node {node.name!r} ({node.op})"
    sizes = _sizes(node.attr["shape"].shape if "shape" in node.attr else None)
    if sizes is None or any(d is None for d in sizes):
        return None
    if any(d > LARGEST for d in sizes if d is not None):
        raise ExtractionError(f"{where}: field 'shape' is {sizes}, which is not possible")
    dtype = dtype_of(node.attr["dtype"].type, f"{where}, field 'dtype'")
    counted = dtype.is_floating_point and trained is not False
    return Variable(node.name, hollow(tuple(d for d in sizes if d is not None), dtype, counted, node.name))


def _trained(meta: Any) -> dict[str, bool]:
    """Node of a variable (or its shared name) -> whether it is trained, as far as the file says.

    TensorFlow 2 keeps that with objects, which functions are bound to: the last arguments of a call in the main graph are
    the nodes of the objects that the called function is bound to. TensorFlow 1 keeps a list of names.
    """
    objects = meta.object_graph_def.nodes
    found: dict[str, bool] = {}
    for o in objects:
        if o.WhichOneof("kind") == "variable" and o.variable.name:
            found[o.variable.name] = o.variable.trainable
    functions = meta.object_graph_def.concrete_functions
    for node in meta.graph_def.node:
        name = node.attr["f"].func.name if "f" in node.attr else ""
        if name not in functions:
            continue
        bound = list(functions[name].bound_inputs)
        given = [t.split(":")[0] for t in node.input if not t.startswith("^")]
        for text, number in zip(reversed(given), reversed(bound), strict=False):
            if 0 <= number < len(objects) and objects[number].WhichOneof("kind") == "variable":
                found[text] = objects[number].variable.trainable
    if "trainable_variables" in meta.collection_def:
        from tensorflow.core.framework.variable_pb2 import VariableDef

        for node in meta.graph_def.node:
            if node.op in ("VarHandleOp", "VariableV2", "Variable"):
                found.setdefault(node.name, False)
        for text in meta.collection_def["trainable_variables"].bytes_list.value:
            name = _parsed(VariableDef(), text, "collection 'trainable_variables'").variable_name
            found[name.split(":")[0]] = True
    return found
