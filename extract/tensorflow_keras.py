"""Keras models as a ``Source``: built without weights, traced with their variables as arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from extract.extraction import ExtractionError, first_line
from extract.tensorflow_consts import dtype_of
from extract.tensorflow_sources import Source, concrete_source, hollow, merged, traced
from extract.tensorflow_values import Variable


def built(factory: Callable[[], Any]) -> Any:
    """The Keras model that a function builds, without memory for its weights."""
    import keras

    _check_backend()
    try:
        with no_weights():
            model = factory()
    except Exception as error:
        raise ExtractionError(f"{getattr(factory, '__qualname__', factory)!s}() failed while it was built without weights: "
                              f"{first_line(error)}; build the model yourself and pass it") from error
    if not isinstance(model, keras.layers.Layer):
        raise ExtractionError(f"{getattr(factory, '__qualname__', factory)!s}() returned {type(model).__name__}, not a Keras "
                              "model")
    return model


@contextmanager
def no_weights() -> Iterator[None]:
    """Layers built here have variables with a shape and no value, and Keras forgets that they wait for one."""
    import keras

    with keras.StatelessScope(initialize_variables=False):
        try:
            yield
        finally:
            with suppress(ImportError, AttributeError, TypeError):
                from keras.src.backend.common import global_state

                global_state.set_global_attribute("uninitialized_variables", [])


def _check_backend() -> None:
    import keras

    if keras.backend.backend() != "tensorflow":
        raise ExtractionError(f"Keras runs on {keras.backend.backend()}; set KERAS_BACKEND=tensorflow, or pass the model to "
                              "from_torch if it is torch")


def keras_source(model: Any, input_shapes: Any, own_code: bool = True) -> Source:
    """Trace a Keras model; its variables are arguments of the trace, so they need no values."""
    import keras
    import tensorflow as tf

    from extract.tensorflow_frontend import named_shapes

    _check_backend()
    specs, names, structure = _keras_inputs(model, input_shapes)
    for known_name, given in named_shapes(input_shapes, names).items():
        place = names.index(known_name)
        old = specs[place]
        specs[place] = tf.TensorSpec(merged(known_name, old.shape, given), old.dtype, old.name)
    notes = []
    for i, spec in enumerate(specs):
        if spec.shape.rank and spec.shape[0] is None and all(d is not None for d in spec.shape[1:]):
            notes.append(f"the batch axis of input {names[i]!r} is dynamic; it was taken as 1")
            specs[i] = tf.TensorSpec((1, *spec.shape[1:]), spec.dtype, spec.name)
        elif any(d is None for d in spec.shape):
            shape = tuple("?" if d is None else d for d in spec.shape)
            raise ExtractionError(f"input {names[i]!r} has dynamic axes, ({', '.join(map(str, shape))}); give "
                                  f"input_shapes={{{names[i]!r}: (1, ...)}}")
    trained = {id(v) for v in model.trainable_variables}
    variables = list(model.variables)
    weights = [tf.TensorSpec(v.shape, v.dtype) for v in variables]

    def run(weights: list[Any], inputs: list[Any]) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(variables, weights, strict=True)), initialize_variables=False):
            arguments = keras.tree.pack_sequence_as(structure, inputs) if structure is not None else inputs[0]
            return model(arguments, training=False)

    concrete = traced(run, (weights, specs), model.name, own_code)
    found = dict(zip((t.op.name for t in concrete.graph.inputs), [*variables, *specs], strict=False))
    table: dict[str, Variable] = {}
    for node, v in list(found.items())[:len(variables)]:
        dtype = dtype_of(tf.as_dtype(v.dtype).as_datatype_enum, f"variable {v.path!r}")
        table[node] = Variable(v.path, hollow(tuple(v.shape), dtype, id(v) in trained, v.path))
    nodes = [t.op.name for t in concrete.graph.inputs[len(variables):len(variables) + len(specs)]]
    source = concrete_source(concrete, model.name, table, nodes, names)
    source.notes = notes
    return source


def _keras_inputs(model: Any, input_shapes: Any) -> tuple[list[Any], list[str], Any]:
    import keras
    import tensorflow as tf

    from extract.tensorflow_frontend import named_shapes

    inputs = getattr(model, "inputs", None)
    if inputs:
        structure = getattr(model, "_inputs_struct", None)
        names = [t.name for t in inputs]
        specs = [tf.TensorSpec(t.shape, t.dtype) for t in inputs]
        return specs, names, structure
    given = named_shapes(input_shapes, [])
    if not given:
        raise ExtractionError(f"{model.name!r} does not know its inputs yet; give input_shapes=(1, height, width, channels), "
                              "or whatever it takes")
    shapes = list(given.values())
    specs = [tf.TensorSpec(tuple(s), tf.float32) for s in shapes]
    if not model.built:
        try:
            keras_in = [keras.KerasTensor(tuple(s)) for s in shapes]
            model(keras_in[0] if len(keras_in) == 1 else keras_in)
        except Exception as error:
            raise ExtractionError(f"{model.name!r} cannot be built for inputs {shapes}: {first_line(error)}") from error
    return specs, list(given), list(range(len(specs))) if len(specs) > 1 else None
