"""``from_onnx``: versions of operators, dynamic axes, weights never read, quantised graphs, errors that name the node."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from torch import nn  # noqa: E402

from extract import ExtractionError, ExtractionWarning, from_onnx, from_torch  # noqa: E402
from extract.comparison import difference  # noqa: E402

F = TensorProto.FLOAT


def model(nodes: Sequence[Any], init: dict[str, Any] | None = None, shape: Sequence[Any] = (1, 4, 8, 8), opset: int = 17,
          outputs: Sequence[str] = ("y",), kind: int = F, **more: Any) -> Any:
    """A model with the input ``x``; ``init`` are its initializers."""
    tensors = [v if isinstance(v, TensorProto) else numpy_helper.from_array(np.asarray(v), k) for k, v in (init or {}).items()]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", kind, shape)],
                              [helper.make_tensor_value_info(o, F, None) for o in outputs], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], **more)


def node(op: str, *inputs: str, out: str = "y", **attrs: Any) -> Any:
    return helper.make_node(op, list(inputs), [out], name=f"the_{op}", **attrs)


def weight(*shape: int) -> Any:
    return np.ones(shape, np.float32) / 3


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


def one(m: Any, **more: Any) -> Any:
    """The single node behind the input."""
    graph = from_onnx(m, **more).graph
    assert len(graph.nodes) == 2, graph.ops
    return graph.nodes[1]


# ---- operators and their versions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("old", "new"), [
    ((node("Slice", "x", axes=[1], starts=[1], ends=[3]), {}, 9),
     (node("Slice", "x", "s", "e", "a"), {"s": ints(1), "e": ints(3), "a": ints(1)}, 13)),
    ((node("Pad", "x", pads=[0, 0, 1, 1, 0, 0, 1, 1]), {}, 9),
     (node("Pad", "x", "p", "", "a"), {"p": ints(1, 1, 1, 1), "a": ints(2, 3)}, 19)),
    ((node("Clip", "x", min=0.0, max=6.0), {}, 9),
     (node("Clip", "x", "l", "h"), {"l": np.float32(0), "h": np.float32(6)}, 13)),
    ((node("ReduceSum", "x", axes=[1], keepdims=0), {}, 11), (node("ReduceSum", "x", "a"), {"a": ints(1)}, 13)),
    ((node("ReduceMax", "x", axes=[1]), {}, 13), (node("ReduceMax", "x", "a"), {"a": ints(1)}, 18)),
    ((node("Upsample", "x", "s", mode="nearest"), {"s": np.array([1, 1, 2, 2], np.float32)}, 9),
     (node("Resize", "x", "", "", "z", mode="nearest"), {"z": ints(1, 4, 16, 16)}, 18)),
    ((node("Softmax", "x", axis=3), {}, 11), (node("Softmax", "x"), {}, 13)),
    ((node("BatchNormalization", "x", "w", "b", "m", "v"), dict.fromkeys("wbmv", weight(4)), 9),
     (node("BatchNormalization", "x", "w", "b", "m", "v"), dict.fromkeys("wbmv", weight(4)), 15)),
    ((node("ReduceMean", "x", axes=[2, 3]), {}, 11), (node("GlobalAveragePool", "x"), {}, 17)),
], ids=lambda side: f"{side[0].op_type}{side[2]}")
def test_versions_of_an_operator_give_one_node(old: Any, new: Any) -> None:
    found = [one(model([n], init, opset=opset)) for n, init, opset in (old, new)]
    assert found[0] == found[1]


@pytest.mark.parametrize(("m", "op", "out_shape", "attrs"), [
    (model([node("Conv", "x", "w", auto_pad="SAME_UPPER", strides=[1, 1])], {"w": weight(5, 4, 3, 3)}), "Conv", (1, 5, 8, 8),
     {"pads": (1, 1, 1, 1), "strides": (1, 1)}),
    (model([node("Conv", "x", "w", "b", auto_pad="VALID", group=2)], {"w": weight(6, 2, 3, 3), "b": weight(6)}), "Conv",
     (1, 6, 6, 6), {"pads": (0, 0, 0, 0), "group": 2}),
    (model([node("ConvTranspose", "x", "w", strides=[2, 2], output_shape=[16, 16])], {"w": weight(4, 5, 3, 3)}),
     "ConvTranspose", (1, 5, 16, 16), {"strides": (2, 2)}),
    (model([node("AveragePool", "x", kernel_shape=[3, 3], pads=[0, 0, 1, 1], strides=[2, 2])]), "AveragePool", (1, 4, 4, 4),
     {"pads": (0, 0, 1, 1), "count_include_pad": False}),
    (model([node("LRN", "x", size=5)]), "LRN", (1, 4, 8, 8), {"size": 5}),
    (model([node("DepthToSpace", "x", blocksize=2)]), "DepthToSpace", (1, 1, 16, 16), {"blocksize": 2}),
    (model([node("TopK", "x", "k")], {"k": ints(3)}), "TopK", (1, 4, 8, 3), {"k": 3, "axis": 3}),
    (model([node("HardSigmoid", "x")]), "HardSigmoid", (1, 4, 8, 8), {}),
    (model([node("Gelu", "x", approximate="tanh")], opset=20), "Gelu", (1, 4, 8, 8), {"approximate": "tanh"}),
    (model([node("Swish", "x")], opset=24), "Swish", (1, 4, 8, 8), {}),
    (model([node("RMSNormalization", "x", "w")], {"w": weight(8)}, opset=23), "RMSNormalization", (1, 4, 8, 8), {"axis": -1}),
    (model([node("GroupNormalization", "x", "w", "b", num_groups=2)], dict.fromkeys("wb", weight(4)), opset=21),
     "GroupNormalization", (1, 4, 8, 8), {"num_groups": 2}),
    (model([node("Einsum", "x", "x", equation="bchw,bdhw->bcd")]), "Einsum", (1, 4, 4), {"equation": "bchw,bdhw->bcd"}),
    (model([node("Gather", "w", "x")], {"w": weight(50, 6)}, shape=(1, 7), kind=TensorProto.INT64), "Embedding", (1, 7, 6), {}),
], ids=lambda v: v if isinstance(v, str) else "")
def test_an_operator(m: Any, op: str, out_shape: Any, attrs: dict[str, Any]) -> None:
    found = one(m)
    assert (found.op, found.out_shape) == (op, out_shape)
    assert {k: found.attr(k) for k in attrs} == attrs


def test_softmax_before_13_flattens() -> None:
    """Version 11 takes axis 1 and all behind it as one: 4·8·8 values sum to one."""
    assert one(model([node("Softmax", "x")], opset=11)).in_shapes == ((1, 256),)
    assert one(model([node("Softmax", "x")], opset=13)).in_shapes == ((1, 4, 8, 8),)


def test_uneven_padding_stays_in_the_convolution() -> None:
    """Size 8 with a window of 3 and step 2 misses one value, at the end or at the beginning."""
    for auto, pads in (("SAME_UPPER", (0, 0, 1, 1)), ("SAME_LOWER", (1, 1, 0, 0))):
        found = one(model([node("Conv", "x", "w", auto_pad=auto, strides=[2, 2])], {"w": weight(5, 4, 3, 3)}))
        assert found.attr("pads") == pads
        assert found.out_shape == (1, 5, 4, 4)


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent_layers(op: str, gates: int) -> None:
    """One node; input 6, hidden 5, both directions; 2 matrices and 2 offsets each."""
    init = {"w": weight(2, gates * 5, 6), "r": weight(2, gates * 5, 5), "b": weight(2, 2 * gates * 5)}
    m = model([helper.make_node(op, ["x", "w", "r", "b"], ["y"], direction="bidirectional", hidden_size=5)], init, (7, 1, 6))
    found = one(m)
    assert (found.op, found.out_shape) == (op, (1, 7, 10))  # recorded with the batch first, as all recurrent layers are
    assert found.params == 2 * gates * 5 * (6 + 5 + 2)


# ---- control flow, functions ----------------------------------------------------------------------------------------


def test_loops_and_conditions_are_unrolled() -> None:
    """Three times ReLU in a loop, one of two branches, and a trip count that is computed from a shape."""
    info = helper.make_tensor_value_info
    body = helper.make_graph([node("Relu", "v", out="w"), node("Identity", "c", out="d")], "body",
                             [info("i", TensorProto.INT64, []), info("c", TensorProto.BOOL, []), info("v", F, None)],
                             [info("d", TensorProto.BOOL, []), info("w", F, None)])
    yes, no = (helper.make_graph([node(op, "z", out="o")], op, [], [info("o", F, None)]) for op in ("Tanh", "Sigmoid"))
    nodes = [node("Shape", "x", out="s"), node("Gather", "s", "one", out="channels"), node("Sub", "channels", "one", out="n"),
             node("Loop", "n", "", "x", out="z", body=body), node("Greater", "n", "one", out="many"),
             node("If", "many", then_branch=yes, else_branch=no)]
    graph = from_onnx(model(nodes, {"one": np.int64(1)})).graph
    assert graph.ops == ["Input", "Relu", "Relu", "Relu", "Tanh"]


def test_a_loop_ends_when_its_condition_does() -> None:
    """At most five times, but only as long as the number of the step is less than two."""
    info = helper.make_tensor_value_info
    body = helper.make_graph([node("Relu", "v", out="w"), node("Less", "i", "two", out="d")], "body",
                             [info("i", TensorProto.INT64, []), info("c", TensorProto.BOOL, []), info("v", F, None)],
                             [info("d", TensorProto.BOOL, []), info("w", F, None)])
    graph = from_onnx(model([node("Loop", "n", "", "x", body=body)], {"n": np.int64(5), "two": np.int64(2)})).graph
    assert graph.ops == ["Input", "Relu", "Relu", "Relu"]


def test_functions_of_the_model_and_of_the_standard() -> None:
    """A function with an attribute of its own; Shrink, which ONNX defines by Less, Where, …"""
    leaky = helper.make_node("LeakyRelu", ["a"], ["b"])
    leaky.attribute.append(onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT))
    function = helper.make_function("mine", "Bend", ["a"], ["b"], [leaky], [helper.make_opsetid("", 17)], ["slope"])
    m = model([helper.make_node("Bend", ["x"], ["z"], domain="mine", slope=0.25), node("Shrink", "z", lambd=0.5)],
              functions=[function])
    graph = from_onnx(m).graph
    assert graph.nodes[1].op == "LeakyRelu"
    assert graph.nodes[1].attr("alpha") == 0.25
    assert "Where" in graph.ops
    assert not graph.unknown


# ---- shapes, parameters, weights ------------------------------------------------------------------------------------


def test_dynamic_axes() -> None:
    """A first axis is a batch of 1 (noted), other axes have to be given and are named with their symbols."""
    m = model([node("Relu", "x")], shape=("batch", 3, "height", "width"))
    with pytest.raises(ExtractionError, match=r"'x' axis 2 \(height\), 3 \(width\).*input_shapes"):
        from_onnx(m)
    assert from_onnx(m, {"x": (2, 3, 32, 48)}).graph.nodes[0].out_shape == (2, 3, 32, 48)
    batch = from_onnx(model([node("Relu", "x")], shape=("N", 5)))
    assert batch.graph.nodes[0].out_shape == (1, 5)
    assert "batch of 1" in batch.notes[0]
    with pytest.raises(ExtractionError, match="no input 'z'; its inputs are 'x'"):
        from_onnx(m, {"z": (1, 3, 8, 8)})


def test_weights_in_other_files_are_never_opened(tmp_path: Path) -> None:
    """Neither inside nor outside the folder: the files do not exist, and the result is that of the whole model."""
    inside = model([node("Conv", "x", "w", "b")], {"w": weight(5, 4, 3, 3), "b": weight(5)})
    path = tmp_path / "m.onnx"
    onnx.save_model(inside, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "weights.bin").unlink()
    found = from_onnx(path).graph
    assert found.digest == from_onnx(inside).graph.digest
    outside = onnx.load(path, load_external_data=False)
    outside.graph.initializer[0].external_data[0].value = "../../../../etc/passwd"
    assert from_onnx(outside).graph.digest == found.digest


def test_long_weights_are_left_out_before_parsing(tmp_path: Path) -> None:
    """The bytes that are parsed are a hundredth of the file, and all but the weights is as before."""
    from extract.onnx_wire import read_without_weights

    whole = model([node("MatMul", "x", "w", out="z"), node("Add", "z", "b")],
                  {"w": weight(512, 2048), "b": weight(2048)}, shape=(1, 512))
    path = tmp_path / "m.onnx"
    path.write_bytes(whole.SerializeToString())
    data = read_without_weights(path)
    assert len(data) * 100 < path.stat().st_size
    short = onnx.ModelProto.FromString(data)
    assert len(short.graph.initializer[0].raw_data) == 128  # a sample
    whole.graph.initializer[0].raw_data = short.graph.initializer[0].raw_data
    assert short.SerializeToString() == whole.SerializeToString()
    assert from_onnx(path).graph.params == 512 * 2048 + 2048


def test_which_tensors_are_trained() -> None:
    """Weight, offset and the vector of the Add are; statistics, buffers, constants and what the user says are not."""
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(weight(4, 8, 8)))
    nodes = [constant, node("BatchNormalization", "x", "w", "o", "m", "v", out="a"), node("Add", "a", "shift", out="b"),
             node("Mul", "b", "layer.attn_mask", out="d"), node("Sub", "d", "c")]
    init = {"w": weight(4), "o": weight(4), "m": weight(4), "v": weight(4), "shift": weight(4, 1, 1),
            "layer.attn_mask": weight(8, 8)}
    assert from_onnx(model(nodes, init)).graph.params == 4 + 4 + 4
    assert from_onnx(model(nodes, init), not_trained=["shi*"]).graph.params == 4 + 4


def test_quantised_graphs_are_their_float_graphs() -> None:
    """QuantizeLinear and DequantizeLinear around an int8 weight, and the fused form, against the plain convolution."""
    plain = from_onnx(model([node("Conv", "x", "w", "b", out="z"), node("Relu", "z")],
                            {"w": weight(5, 4, 3, 3), "b": weight(5)})).graph
    s = {"s": np.float32(0.1), "z0": np.int8(0), "w": np.ones((5, 4, 3, 3), np.int8), "b": np.ones(5, np.int32)}
    nodes = [node("QuantizeLinear", "x", "s", "z0", out="q"), node("DequantizeLinear", "q", "s", "z0", out="xf"),
             node("DequantizeLinear", "w", "s", "z0", out="wf"), node("DequantizeLinear", "b", "s", out="bf"),
             node("Conv", "xf", "wf", "bf", out="c"), node("Relu", "c")]
    assert from_onnx(model(nodes, s)).graph.digest == plain.digest
    fused = [node("QuantizeLinear", "x", "s", "z0", out="q"),
             node("QLinearConv", "q", "s", "z0", "w", "s", "z0", "s", "z0", "b", out="c"),
             node("DequantizeLinear", "c", "s", "z0", out="d"), node("Relu", "d")]
    assert from_onnx(model(fused, s)).graph.digest == plain.digest


# ---- law 1 ----------------------------------------------------------------------------------------------------------


class Block(nn.Module):
    """Convolution, batch norm, attention, layer norm, group norm, an embedding of positions and shape arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 4, 4, bias=False), nn.BatchNorm2d(16), nn.GELU(), nn.GroupNorm(4, 16))
        self.position = nn.Parameter(torch.zeros(1, 16, 16))
        self.norm = nn.LayerNorm(16)
        self.qkv = nn.Linear(16, 48)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        x = x.flatten(2).transpose(1, 2) + self.position
        b, n, c = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, n, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c)
        return self.head(nn.functional.hardswish(x).mean(1))


def recurrent() -> nn.Module:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(6, 5, num_layers=2, bidirectional=True)
            self.out = nn.Linear(10, 3)

        def forward(self, x: Any) -> Any:
            return self.out(self.lstm(x)[0])

    return Net()


def classic() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU(), nn.MaxPool2d(2),
                         nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8), nn.ReLU6(), nn.Upsample(scale_factor=2),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Dropout(), nn.Linear(8, 4))


def exported(net: nn.Module, x: Any, path: Path, opset: int) -> Path:
    """By the exporter that traces, in evaluation mode, without merging batch norms into convolutions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net.eval(), (x,), str(path), dynamo=False, opset_version=opset, do_constant_folding=False,
                          training=torch.onnx.TrainingMode.PRESERVE)
    return path


@pytest.mark.parametrize(("build", "shape", "opset"), [
    (classic, (1, 3, 16, 16), 13), (classic, (1, 3, 16, 16), 17), (Block, (1, 3, 16, 16), 14), (Block, (1, 3, 16, 16), 18),
    (recurrent, (7, 1, 6), 17)], ids=lambda v: getattr(v, "__name__", str(v)))
def test_export_and_module_are_one_graph(build: Any, shape: Any, opset: int, tmp_path: Path) -> None:
    net = build()
    found = from_onnx(exported(net, torch.randn(shape), tmp_path / "m.onnx", opset))
    assert difference(from_torch(net, shape).graph, found.graph) is None
    assert not found.unknown


# ---- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("m", "message"), [
    (lambda: model([node("Relu", "z")]), r"node 'the_Relu' \(Relu\): its input 'z' is neither"),
    (lambda: model([node("Add", "x", "b", out="a"), node("Relu", "a", out="b"), node("Tanh", "b")]),
     r"\((Add|Relu)\): its input '[ab]' depends on its own output \(a cycle\)"),
    (lambda: model([node("Relu", "x"), node("Tanh", "x")]), r"'the_Tanh' \(Tanh\): its output 'y' is made by another"),
    (lambda: model([node("MaxPool", "x")]), r"'the_MaxPool' \(MaxPool\): attribute 'kernel_shape' is missing"),
    (lambda: model([node("Conv", "x", "w")], {"w": weight(5, 7, 3, 3)}), r"'the_Conv' \(Conv\): .*\[5, 7, 3, 3\]"),
    (lambda: model([node("Reshape", "x", "s")], {"s": ints(3, -1, 7)}), r"'the_Reshape' \(Reshape\)"),
    (lambda: model([node("Blub", "x")]), r"'the_Blub' \(Blub\): the operator is not known"),
    (lambda: model([node("Expand", "x", "s")], {"s": ints(2**45, 4, 8, 8)}), r"'the_Expand' \(Expand\).*impossible shape"),
    (lambda: model([node("Relu", "x")], shape=(1, -4)), "impossible shape"),
    (lambda: model([node("Add", "x", "w")], {"w": TensorProto(name="w", dims=[2**62], data_type=1)}), "'w'.*impossible"),
    (lambda: model([node("Reshape", "x", "s")], {"s": TensorProto(name="s", dims=[4], data_type=7, raw_data=b"12")}),
     "initializer 's': its data do not fit"),
    (lambda: b"no model", "cannot be parsed"), (lambda: Path("missing.onnx"), "missing.onnx: there is no such file"),
    (lambda: 7, "needs a path, bytes or an onnx.ModelProto, got int"),
], ids=lambda v: v if isinstance(v, str) else "")
def test_errors_name_the_place(m: Any, message: str) -> None:
    with pytest.raises(ExtractionError, match=message):
        from_onnx(m())


def test_unknown_operators_are_counted() -> None:
    m = model([helper.make_node("Blub", ["x"], ["z"], domain="com.microsoft"), node("Relu", "z")])
    m.graph.value_info.append(helper.make_tensor_value_info("z", F, [1, 4, 8, 8]))
    with pytest.warns(ExtractionWarning, match="com.microsoft.Blub"):
        found = from_onnx(m)
    assert found.unknown == {"com.microsoft.Blub": 1}
    assert found.graph.ops == ["Input", "Unknown", "Relu"]


def test_endless_loops_and_recursion_are_refused() -> None:
    info = helper.make_tensor_value_info
    body = helper.make_graph([node("Relu", "v", out="w"), node("Identity", "c", out="d")], "body",
                             [info("i", TensorProto.INT64, []), info("c", TensorProto.BOOL, []), info("v", F, None)],
                             [info("d", TensorProto.BOOL, []), info("w", F, None)])
    with pytest.raises(ExtractionError, match="runs 1000000000 times"):
        from_onnx(model([node("Loop", "n", "", "x", body=body)], {"n": np.int64(10**9)}))
    itself = helper.make_function("mine", "F", ["a"], ["b"], [helper.make_node("F", ["a"], ["b"], domain="mine")],
                                  [helper.make_opsetid("", 17)])
    with pytest.raises(ExtractionError, match="nested more than"):
        from_onnx(model([helper.make_node("F", ["x"], ["y"], domain="mine")], functions=[itself]))


# ---- the models that come with the package onnx ---------------------------------------------------------------------

DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
NOT_NETWORKS = {"sequence_model6": "its result is a length, which no input decides", "strnorm": "works on text",
                "sequence_model8": "its input has no static shape"}


@pytest.mark.parametrize("folder", ["light", "simple", "pytorch-converted", "pytorch-operator"])
def test_models_of_the_onnx_package(folder: str) -> None:
    paths = sorted((DATA / folder).glob("*.onnx")) + sorted((DATA / folder).glob("*/model.onnx"))
    assert paths
    for path in paths:
        if any(word in str(path) for word in NOT_NETWORKS):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExtractionWarning)
            found = from_onnx(path)
        assert found.graph.n_nodes >= 1, path  # one, if it only moves data
        assert found.unknown.keys() <= {"ai.onnx.preview.training.Gradient"}, path


def test_weights_left_out_of_a_file_still_count() -> None:
    """The light models make their weights by ConstantOfShape; ResNet-50 has 25.56 M parameters and 4.09 G MACs."""
    graph = from_onnx(DATA / "light" / "light_resnet50.onnx").graph
    assert graph.params == 25_557_032
    assert graph.macs == pytest.approx(4.09e9, rel=0.001)
