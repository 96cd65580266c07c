"""Small sound ONNX models to damage, and short words to write them with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx import numpy_helper as numbers

F, I64 = TensorProto.FLOAT, TensorProto.INT64
IMAGE = (1, 3, 16, 16)


def tensor(name: str, *shape: int) -> TensorProto:
    return numbers.from_array(np.full(shape, 0.5, np.float32), name)


def ints(name: str, *values: int) -> TensorProto:
    return numbers.from_array(np.array(values, np.int64), name)


def model(nodes: list[Any], weights: Iterable[Any] = (), shape: Any = IMAGE, out: str = "y",
    **more: Any) -> onnx.ModelProto:
    """One float input ``x`` of ``shape``; the output ``out``."""
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", F, shape)],
                              [helper.make_tensor_value_info(out, F, None)], list(weights))
    opsets = [helper.make_opsetid("", more.pop("opset", 17)), helper.make_opsetid("my", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, **more)


def node(op: str, inputs: str, outputs: str = "y", name: str = "evil", **attributes: Any) -> onnx.NodeProto:
    """Names of tensors parted by blanks; ``-`` is an argument left out."""
    return helper.make_node(op, [i.replace("-", "") for i in inputs.split()], outputs.split(), name, **attributes)


def convnet() -> onnx.ModelProto:
    return model([
        node("Conv", "x w b", "a", "conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]),
        node("BatchNormalization", "a s s s s", "c", "norm"), node("Relu", "c", "d", "relu"),
        node("MaxPool", "d", "e", "pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "e w2", "f", "grouped", group=4, kernel_shape=[1, 1], dilations=[1, 1]),
        node("Add", "e f", "h", "add"), node("GlobalAveragePool", "h", "i", "gap"), node("Flatten", "i", "j", "flat"),
        node("Gemm", "j fc fb", "y", "fc", transB=1, alpha=1.0)],
        [tensor("w", 8, 3, 3, 3), tensor("b", 8), tensor("s", 8), tensor("w2", 8, 2, 1, 1), tensor("fc", 10, 8),
            tensor("fb", 10)])


def attention() -> onnx.ModelProto:
    """Shape arithmetic on a dynamic axis, as exporters write it."""
    return model([
        node("Shape", "x", "s", "shape"), node("Gather", "s zero", "n", "gather", axis=0),
        node("Unsqueeze", "n zero1", "n1", "unsqueeze"), node("Concat", "n1 rest", "to", "concat", axis=0),
        node("MatMul", "x wq", "q0", "query"), node("Reshape", "q0 to", "q1", "heads"),
        node("Transpose", "q1", "q", "order", perm=[0, 2, 1, 3]), node("Transpose", "q1", "k", "order2", perm=[0, 2, 3, 1]),
        node("MatMul", "q k", "a", "scores"), node("Mul", "a half", "b", "scale"),
            node("Softmax", "b", "p", "softmax", axis=-1),
        node("MatMul", "p q", "o", "mix"), node("Transpose", "o", "o2", "back", perm=[0, 2, 1, 3]),
        node("Slice", "o2 st en ax", "o3", "slice"),
        node("LayerNormalization", "o3 ls ls", "y", "norm", axis=-1)],
        [ints("zero1", 0), numbers.from_array(np.array(0, np.int64), "zero"), ints("rest", 6, 2, 4), ints("st", 1),
            ints("en", 4),
         ints("ax", 1), tensor("wq", 8, 8), tensor("half"), tensor("ls", 4)], ("batch", 6, 8))


def control() -> onnx.ModelProto:
    """An If with a constant condition, a Loop with a constant count, a function, an LSTM."""
    value = helper.make_tensor_value_info
    then = helper.make_graph([node("Relu", "x", "t1", "then")], "then", [], [value("t1", F, None)])
    other = helper.make_graph([node("Sigmoid", "x", "t2", "else")], "else", [], [value("t2", F, None)])
    body = helper.make_graph([node("Identity", "go", "go2", "keep"), node("Add", "v v", "v2", "twice")], "body",
                             [value("i", I64, ()), value("go", TensorProto.BOOL, ()), value("v", F, None)],
                             [value("go2", TensorProto.BOOL, ()), value("v2", F, None)])
    function = helper.make_function("my", "Double", ["p"], ["r"],
        [node("Add", "p p", "m", "inner"), node("Tanh", "m", "r", "tanh")],
                                    [helper.make_opsetid("", 17)])
    yes = numbers.from_array(np.array(True), "yes")
    times = numbers.from_array(np.array(3, np.int64), "times")
    return model([node("If", "yes", "a", "if", then_branch=then, else_branch=other),
                  node("Loop", "times yes a", "b", "loop", body=body), node("Double", "b", "c", "call", domain="my"),
                  node("LSTM", "c w r", "d", "lstm", hidden_size=5), node("Squeeze", "d one", "e", "squeeze"),
                  node("Pad", "e pads", "f", "pad"), node("Concat", "f f", "y", "concat", axis=2)],
                 [yes, times, tensor("w", 1, 20, 4), tensor("r", 1, 20, 5), ints("one", 1), ints("pads", 0, 0, 1, 0, 0, 1)],
                 (7, 1, 4), functions=[function])


def mixed() -> onnx.ModelProto:
    """Quantised weights, Resize, Split, Tile, Expand, ScatterND, TopK, Einsum, ConstantOfShape, Where."""
    q = numbers.from_array(np.ones((4, 3, 3, 3), np.int8), "q")
    return model([
        node("DequantizeLinear", "q qs", "w", "dequant"), node("Conv", "x w", "a", "conv", kernel_shape=[3, 3],
            auto_pad="SAME_UPPER"),
        node("Resize", "a - up", "b", "resize", mode="nearest"), node("Split", "b halves", "c d", "split", axis=1),
        node("Mul", "c d", "e", "mul"), node("ReduceMean", "e", "f", "mean", axes=[2, 3], keepdims=0),
        node("Tile", "f reps", "g", "tile"), node("TopK", "g two", "h hi", "topk", axis=1),
        node("ConstantOfShape", "two2", "k", "fill", value=helper.make_tensor("v", F, [1], [2.0])),
        node("Einsum", "h k", "l", "einsum", equation="ab,bc->ac"), node("Expand", "l big", "m", "expand"),
        node("ScatterND", "m where up2", "n", "scatter"), node("Clip", "n low", "o", "clip"),
            node("Celu", "o", "y", "celu", alpha=2.0)],
        [q, tensor("qs"), numbers.from_array(np.array([1, 1, 2, 2], np.float32), "up"), ints("halves", 2, 2),
            ints("reps", 1, 3),
         ints("two", 2), ints("two2", 2, 2), ints("big", 3, 2), numbers.from_array(np.array([[0]], np.int64), "where"),
         tensor("up2", 1, 2), tensor("low")])


SEEDS: dict[str, Callable[[], onnx.ModelProto]] = {"convnet": convnet, "attention": attention, "control": control,
    "mixed": mixed}


def fixed(name: str) -> bytes:
    """The model with every axis fixed, so that it needs no ``input_shapes``."""
    m = SEEDS[name]()
    if name == "attention":
        m.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    return m.SerializeToString()


def write_seeds(folder: Path) -> list[Path]:
    """The sound models as files."""
    paths = [folder / f"{name}.onnx" for name in SEEDS]
    for path in paths:
        path.write_bytes(fixed(path.stem))
    return paths
