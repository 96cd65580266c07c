"""Hand-made TensorFlow and Keras files, sound and harmful, written as bytes: this file needs no TensorFlow."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from hostile_mutations import Field, serialise

FLOAT, INT32, STRING, BOOL = 1, 3, 7, 10
BIG = 2**62


def fields(*pairs: tuple[int, Any]) -> list[Field]:
    """A protobuf message from field numbers and values; a list is a message."""
    out: list[Field] = []
    for number, value in pairs:
        if isinstance(value, float):
            out.append([number, 5, struct.pack("<f", value)])
        else:
            out.append([number, 0 if isinstance(value, int) else 2, value.encode() if isinstance(value, str) else value])
    return out


def shape(sizes: Iterable[int]) -> list[Field]:
    return fields(*((2, fields((1, size))) for size in sizes))


def tensor(sizes: Iterable[int], content: bytes | None = None, dtype: int = FLOAT) -> list[Field]:
    sizes = list(sizes)
    if content is None:
        n = 1
        for s in sizes:
            n *= s
        content = b"\0\0\0\x3f" * n
    return fields((1, dtype), (2, shape(sizes)), (4, content))


def int_tensor(*values: int) -> list[Field]:
    return tensor([len(values)], struct.pack(f"<{len(values)}i", *values), INT32)


# Kinds of attribute: number of the field in AttrValue.
LIST, S, I, F, B, TYPE, SHAPE, TENSOR, FUNC = 1, 2, 3, 4, 5, 6, 7, 8, 10  # noqa: E741


def node(name: str, op: str, inputs: str = "", **attributes: tuple[int, Any]) -> tuple[int, list[Field]]:
    """A NodeDef as field 1 of a GraphDef; inputs parted by blanks."""
    given = [(5, fields((1, key.rstrip("_")), (2, fields(value)))) for key, value in attributes.items()]
    return 1, fields((1, name), (2, op), *((3, i) for i in inputs.split()), *given)


def const(name: str, value: list[Field], dtype: int = FLOAT) -> tuple[int, list[Field]]:
    return node(name, "Const", dtype=(TYPE, dtype), value=(TENSOR, value))


def placeholder(*sizes: int, name: str = "x") -> tuple[int, list[Field]]:
    return node(name, "Placeholder", dtype=(TYPE, FLOAT), shape=(SHAPE, shape(sizes)))


def ints(*values: int) -> tuple[int, list[Field]]:
    return LIST, fields(*((3, v) for v in values))


T = (TYPE, FLOAT)
X = placeholder(1, 16, 16, 3)


def graph(*nodes: tuple[int, list[Field]], functions: Iterable[list[Field]] = ()) -> list[Field]:
    return fields(*nodes, *((2, fields((1, f))) for f in functions))


def function(name: str, *nodes: tuple[int, list[Field]], result: str) -> list[Field]:
    """One float argument ``p``, one float result ``r``."""
    signature = fields((1, name), (2, fields((1, "p"), (3, FLOAT))), (3, fields((1, "r"), (3, FLOAT))))
    return fields((1, signature), *((3, n) for _, n in nodes), (4, fields((1, "r"), (2, result))))


def call(name: str, to: str, argument: str, op: str = "PartitionedCall") -> tuple[int, list[Field]]:
    one = (LIST, fields((6, FLOAT)))
    return node(name, op, argument, f=(FUNC, fields((1, to))), Tin=one, Tout=one)


def saved(g: list[Field], inputs: dict[str, str], outputs: dict[str, str]) -> list[Field]:
    def infos(names: dict[str, str], number: int, sizes: tuple[int, ...]) -> list[tuple[int, Any]]:
        return [(number, fields((1, key), (2, fields((1, t), (2, FLOAT), (3, shape(sizes)))))) for key, t in names.items()]

    signature = fields(*infos(inputs, 1, (1, 16, 16, 3)), *infos(outputs, 2, (1, 4)), (3, "tensorflow/serving/predict"))
    meta = fields((1, fields((4, "serve"))), (2, g), (5, fields((1, "serving_default"), (2, signature))))
    return fields((1, 1), (2, meta))


# ---- sound ones to damage -----------------------------------------------------------------------------------------


def convnet(weights: str = "Const") -> list[Field]:
    def weight(name: str, *sizes: int) -> list[tuple[int, list[Field]]]:
        if weights == "Const":
            return [const(name, tensor(sizes))]
        return [node(f"{name}_handle", "VarHandleOp", dtype=T, shape=(SHAPE, shape(sizes)), shared_name=(S, name)),
                node(name, "ReadVariableOp", f"{name}_handle", dtype=T)]

    same = {"data_format": (S, "NHWC"), "padding": (S, "SAME"), "T": T}
    return graph(
        X, *weight("w", 3, 3, 3, 8), *weight("s", 8), *weight("fc", 8, 4), *weight("b", 4),
            const("axes", int_tensor(1, 2), INT32),
        node("conv", "Conv2D", "x w", strides=ints(1, 2, 2, 1), dilations=ints(1, 1, 1, 1), **same),
        node("norm", "FusedBatchNormV3", "conv s s s s", T=T, U=T, epsilon=(F, 0.001), is_training=(B, 0),
            data_format=(S, "NHWC")),
        node("relu", "Relu", "norm", T=T), node("pool", "MaxPool", "relu", ksize=ints(1, 2, 2, 1), strides=ints(1, 2, 2, 1),
            **same),
        node("mean", "Mean", "pool axes", T=T, Tidx=(TYPE, INT32), keep_dims=(B, 0)), node("fc2", "MatMul", "mean fc", T=T),
        node("bias", "BiasAdd", "fc2 b", T=T), node("y", "Softmax", "bias", T=T))


def control() -> list[Field]:
    """Shape arithmetic, functions, a conditional of TensorFlow 1 and one of TensorFlow 2."""
    i = (TYPE, INT32)
    double = function("double", node("a", "AddV2", "p p", T=T), node("t", "Tanh", "a:z:0", T=T), result="t:y:0")
    keep = function("keep", node("k", "Sigmoid", "p", T=T), result="k:y:0")
    one = (LIST, fields((6, FLOAT)))
    return graph(
        X, node("shape", "Shape", "x", T=T, out_type=i), const("zero", int_tensor(0), INT32),
            const("one", int_tensor(1), INT32),
        const("yes", tensor([], b"\1", BOOL), BOOL),
        node("n", "StridedSlice", "shape zero one one", T=i, Index=i, shrink_axis_mask=(I, 1)),
        const("rest", tensor([], struct.pack("<i", 48), INT32), INT32),
            const("many", tensor([], struct.pack("<i", 16), INT32), INT32),
        node("to", "Pack", "n many rest", T=i, N=(I, 3), axis=(I, 0)), node("flat", "Reshape", "x to", T=T, Tshape=i),
        call("twice", "double", "flat"), node("sw", "Switch", "twice yes", T=T), node("left", "Relu", "sw", T=T),
        node("right", "Elu", "sw:1", T=T), node("both", "Merge", "left right", T=T, N=(I, 2)),
        node("if", "StatelessIf", "yes both", then_branch=(FUNC, fields((1, "double"))),
            else_branch=(FUNC, fields((1, "keep"))),
             Tcond=(TYPE, BOOL), Tin=one, Tout=one),
        node("cat", "ConcatV2", "if if one", T=T, N=(I, 2), Tidx=i), node("y", "Square", "cat", T=T), functions=[double, keep])


def layer(kind: str, name: str = "evil", module: str = "keras.layers", **config: Any) -> dict[str, Any]:
    return {"module": module, "class_name": kind, "config": {"name": name, "trainable": True, "dtype": "float32", **config},
            "registered_name": None}


def sequential(*layers: Any, size: Any = (None, 16, 16, 3)) -> dict[str, Any]:
    first = {"module": "keras.layers", "class_name": "InputLayer", "registered_name": None,
             "config": {"batch_shape": list(size), "dtype": "float32", "sparse": False, "name": "x"}}
    return layer("Sequential", "net", "keras", layers=[first, *layers])


def functional(*layers: tuple[dict[str, Any], str], out: str) -> dict[str, Any]:
    """Layers, each with the names of the layers that it reads."""
    done = []
    for spec, reads in layers:
        sources = [{"class_name": "__keras_tensor__", "config": {"shape": [None, 8, 8, 4], "dtype": "float32",
                                                                 "keras_history": [r, 0, 0]}} for r in reads.split()]
        args = [sources] if len(sources) > 1 else sources
        done.append({**spec, "name": spec["config"]["name"], "inbound_nodes": [{"args": args,
            "kwargs": {}}] if sources else []})
    return layer("Functional", "net", "keras.src.models.functional", layers=done, input_layers=[["x", 0, 0]],
        output_layers=[[out, 0, 0]])


def small_functional() -> dict[str, Any]:
    source = {"module": "keras.layers", "class_name": "InputLayer", "registered_name": None,
              "config": {"batch_shape": [None, 8, 8, 4], "dtype": "float32", "sparse": False, "name": "x"}}
    return functional(
        (source, ""), (layer("Conv2D", "conv", filters=4, kernel_size=[3, 3], padding="same", activation="relu"), "x"),
        (layer("BatchNormalization", "norm"), "conv"), (layer("Add", "add"), "norm x"),
        (layer("DepthwiseConv2D", "dw", kernel_size=[3, 3]), "add"), (layer("GlobalAveragePooling2D", "gap"), "dw"),
        (layer("Dense", "fc", units=5, activation="softmax"), "gap"), out="fc")


def archive(config: Any, **more: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
        text = config if isinstance(config, str | bytes) else json.dumps(config)
        for name, data in {"metadata.json": b'{"keras_version": "3.15.1"}', "config.json": text, **more}.items():
            z.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


SEEDS: dict[str, Callable[[], bytes]] = {
    "convnet.pb": lambda: serialise(convnet()), "control.pb": lambda: serialise(control()),
    "saved/saved_model.pb": lambda: serialise(saved(convnet("VarHandleOp"), {"x": "x:0"}, {"y": "y:0"})),
    "small.keras": lambda: archive(small_functional(), **{"model.weights.h5": b"\x89HDF\r\n\x1a\n"}),
    "lstm.keras": lambda: archive(sequential(layer("LSTM", "lstm", units=3, return_sequences=True), layer("Flatten", "flat"),
                                             layer("LayerNormalization", "norm"), layer("Dense", "fc", units=2),
                                                 size=(None, 6, 5)))}


def write_seeds(folder: Path) -> list[Path]:
    """The sound models as files; a SavedModel is named by its folder."""
    paths = []
    for name, make in SEEDS.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(make())
        paths.append(path.parent if path.name == "saved_model.pb" else path)
    return paths
