"""``from_tensorflow``: Keras, functions, SavedModel, frozen graphs; what is refused; the same networks in PyTorch."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from extract import Extraction, ExtractionError, ExtractionWarning, from_tensorflow, from_torch  # noqa: E402
from extract.comparison import difference  # noqa: E402

L = keras.layers


def same(ours: Any, theirs: Any, shape: Any, input_shapes: Any = None) -> Extraction:
    """Extracts both and compares; returns ours."""
    found = from_tensorflow(ours, input_shapes)
    assert difference(found.graph, from_torch(theirs, shape).graph) is None
    assert not found.unknown
    return found


def trained(model: Any) -> int:
    return sum(v.numpy().size for v in model.trainable_variables)


# ---- Keras and the same in PyTorch ------------------------------------------------------------------------------


def test_convolutions_and_dense() -> None:
    ours = keras.Sequential([
        keras.Input((16, 16, 3)), L.Conv2D(8, 3, padding="same", use_bias=False), L.BatchNormalization(), L.ReLU(),
        L.ZeroPadding2D(1), L.MaxPooling2D(3, 2), L.ZeroPadding2D(1), L.Conv2D(8, 3, strides=2, activation="swish"),
        L.DepthwiseConv2D(3, padding="same"), L.Dropout(0.5), L.AveragePooling2D(2), L.Flatten(), L.Dense(5)])
    theirs = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(8, 8, 3, 2, 1), nn.SiLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(32, 5))
    found = same(ours, theirs, (1, 3, 16, 16))
    assert found.graph.params == trained(ours)
    assert found.graph.nodes[0].out_shape == (1, 3, 16, 16)
    assert "batch axis" in found.notes[0]


class _Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(8, 4, 1)
        self.squeeze, self.excite = nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1)

    def forward(self, x: Any) -> Any:
        y = torch.relu(self.a(x)) + x
        y = self.b(torch.cat([y, x], 1))
        return y * torch.sigmoid(self.excite(torch.relu(self.squeeze(y.mean((2, 3), keepdim=True)))))


def test_branches_and_channel_attention() -> None:
    x = keras.Input((6, 6, 4))
    y = L.Add()([L.Conv2D(4, 3, padding="same", activation="relu")(x), x])
    y = L.Conv2D(4, 1)(L.Concatenate()([y, x]))
    s = L.Reshape((1, 1, 4))(L.GlobalAveragePooling2D()(y))
    s = L.Conv2D(4, 1, activation="sigmoid")(L.Conv2D(2, 1, activation="relu")(s))
    same(keras.Model(x, L.Multiply()([y, s])), _Residual, (1, 4, 6, 6))


class _Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(8, 8) for _ in range(4))
        self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Any) -> Any:
        q, k, v = (f(x).view(1, 5, 2, 4).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(1, 5, 8)
        x = self.norm(x + self.out(y))
        return self.down(nn.functional.gelu(self.up(x)))


def _encoder() -> Any:
    x = keras.Input((5, 8))
    y = L.LayerNormalization()(L.Add()([x, L.MultiHeadAttention(2, 4)(x, x)]))
    return keras.Model(x, L.Dense(8)(L.Dense(16, activation="gelu")(y)))


def test_attention() -> None:
    same(_encoder, _Encoder, (1, 5, 8))


IMAGE, FIRST = (1, 5, 5, 3), (1, 3, 5, 5)


def after_conv(layer: Any) -> Any:
    return keras.Sequential([L.Conv2D(4, 1), layer])


@pytest.mark.parametrize(("ours", "theirs", "shape", "other"), [
    (lambda: L.LayerNormalization(), lambda: nn.LayerNorm(6), (1, 5, 6), (1, 5, 6)),
    (lambda: L.RMSNormalization(), lambda: nn.RMSNorm(6), (1, 5, 6), (1, 5, 6)),
    (lambda: L.Conv1D(4, 3, dilation_rate=2, padding="same"), lambda: nn.Conv1d(6, 4, 3, padding=2, dilation=2),
     (1, 9, 6), (1, 6, 9)),
    (lambda: L.Conv3D(4, 3), lambda: nn.Conv3d(2, 4, 3), (1, 5, 5, 5, 2), (1, 2, 5, 5, 5)),
    (lambda: after_conv(L.Conv2DTranspose(4, 4, strides=2, padding="same")),
     lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.ConvTranspose2d(4, 4, 4, 2, 1)), IMAGE, FIRST),
    (lambda: after_conv(L.GroupNormalization(2)), lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4)), IMAGE, FIRST),
    (lambda: after_conv(L.UpSampling2D(2)), lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.Upsample(scale_factor=2)),
     IMAGE, FIRST),
    (lambda: after_conv(L.PReLU(shared_axes=[1, 2])), lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.PReLU(4)), IMAGE, FIRST),
    (lambda: L.AveragePooling1D(2), lambda: nn.AvgPool1d(2), (1, 8, 3), (1, 3, 8)),
    (lambda: keras.Sequential([L.Conv2D(4, 2, dilation_rate=2), L.GlobalMaxPooling2D()]),
     lambda: nn.Sequential(nn.Conv2d(3, 4, 2, dilation=2), nn.AdaptiveMaxPool2d(1), nn.Flatten()), IMAGE, FIRST),
    (lambda: L.Conv2D(4, 3, strides=2, padding="same"),
     lambda: nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 4, 3, 2)),
     (1, 6, 6, 3), (1, 3, 6, 6)),
    (lambda: L.MaxPooling2D(3, 2, padding="same"), lambda: nn.MaxPool2d(3, 2, ceil_mode=True), (1, 6, 6, 3), (1, 3, 6, 6)),
    (lambda: L.AveragePooling2D(3, 1, padding="same"), lambda: nn.AvgPool2d(3, 1, 1, count_include_pad=False), IMAGE, FIRST),
    (lambda: L.SeparableConv1D(4, 3), lambda: nn.Sequential(nn.Conv1d(6, 6, 3, groups=6, bias=False), nn.Conv1d(6, 4, 1)),
     (1, 9, 6), (1, 6, 9)),
    (lambda: L.EinsumDense("abcd,cde->abe", output_shape=(None, 7), bias_axes="e"),
     lambda: nn.Sequential(nn.Flatten(2), nn.Linear(6, 7)), (1, 5, 2, 3), (1, 5, 2, 3)),
    (lambda: L.Activation("hard_swish"), nn.Hardswish, (1, 4), (1, 4)),
    (lambda: L.Activation("relu6"), nn.ReLU6, (1, 4), (1, 4)),
    (lambda: L.LeakyReLU(0.1), lambda: nn.LeakyReLU(0.1), (1, 4), (1, 4)),
    (lambda: L.Activation("mish"), nn.Mish, (1, 4), (1, 4)),
], ids=["layer", "rms", "conv1d", "conv3d", "transpose", "group", "upsample", "prelu", "pool1d", "dilation",
        "same", "maxpool", "avgpool", "separable1d", "einsum", "hardswish", "relu6", "leaky", "mish"])
def test_one_layer(ours: Callable[[], Any], theirs: Callable[[], Any], shape: tuple[int, ...],
                   other: tuple[int, ...]) -> None:
    layer = ours()
    found = same(layer, theirs, other, shape)
    assert found.graph.params == trained(layer)


@pytest.mark.parametrize(("cls", "op"), [(L.LSTM, "LSTM"), (L.GRU, "GRU"), (L.SimpleRNN, "RNN")])
def test_recurrent_layers_are_one_node(cls: Any, op: str) -> None:
    model = keras.Sequential([keras.Input((7, 3)), cls(4, return_sequences=True), cls(5), L.Dense(2)])
    graph = from_tensorflow(model).graph
    assert graph.ops == ["Input", op, op, "Slice", "Gemm"]
    assert graph.params == trained(model)
    assert [n.attr("hidden_size") for n in graph.nodes if n.op == op] == [4, 5]


@pytest.mark.parametrize(("activation", "op"), [("relu", "Relu"), (lambda x: keras.ops.tanh(keras.ops.sin(x)), "Sin")])
def test_other_loops_are_unrolled(activation: Any, op: str) -> None:
    model = keras.Sequential([keras.Input((3, 2)), L.LSTM(4, activation=activation)])
    graph = from_tensorflow(model).graph
    assert graph.op_counts["LSTM"] == 0
    assert graph.op_counts[op] == 2 * 3
    assert graph.params == trained(model)


def test_mobilenet_v2_without_weights() -> None:
    found = from_tensorflow(lambda: keras.applications.MobileNetV2(weights=None))
    assert found.graph.params == 3_504_872
    assert found.graph.op_counts["Conv"] == 52
    assert found.graph.op_counts["BatchNormalization"] == 52
    assert not found.unknown
    assert any("pads one side more" in n for n in found.notes)


# ---- functions and files ----------------------------------------------------------------------------------------


class _Module(tf.Module):
    """Shape arithmetic, a loop, a condition on a shape, a variable that is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.b = tf.Variable(tf.ones((3, 3, 3, 8))), tf.Variable(tf.ones(8))
        self.frozen = tf.Variable(tf.ones(8), trainable=False)

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32, name="img")])
    def __call__(self, img: Any) -> Any:
        y = tf.nn.relu(tf.nn.conv2d(img, self.w, 1, "SAME") + self.b) * self.frozen
        for _ in tf.range(3):
            y = tf.nn.sigmoid(y)
        y = tf.reshape(y, [tf.shape(y)[0], -1, 8])
        return tf.cond(tf.shape(img)[1] > 10, lambda: tf.nn.softmax(y), lambda: tf.nn.tanh(y))


def test_module_function_and_dynamic_axes() -> None:
    module = _Module()
    graph = from_tensorflow(module, {"img": (1, 16, 16, 3)}).graph
    assert graph.op_counts == {"Constant": 1, "Input": 1, "Conv": 1, "Relu": 1, "Mul": 1, "Sigmoid": 3, "Softmax": 1}
    assert graph.params == 3 * 3 * 3 * 8 + 8
    assert from_tensorflow(module.__call__, (1, 8, 8, 3)).graph.op_counts["Tanh"] == 1
    concrete = module.__call__.get_concrete_function()
    assert difference(from_tensorflow(concrete, (1, 16, 16, 3)).graph, graph) is None
    with pytest.raises(ExtractionError, match=r"input 'img' has dynamic axes.*input_shapes=\{'img'"):
        from_tensorflow(module)
    with pytest.raises(ExtractionError, match=r"input_shapes names 'x'; the inputs are 'img'"):
        from_tensorflow(concrete, {"x": (1, 16, 16, 3)})


def test_saved_model_is_only_parsed(tmp_path: Path) -> None:
    model = _encoder()
    model.export(tmp_path / "sm", verbose=False)
    for file in (tmp_path / "sm").rglob("variables*"):
        if file.is_file():
            file.unlink()  # no weight is read
    assert difference(from_tensorflow(tmp_path / "sm").graph, from_tensorflow(model).graph) is None


def test_keras_file(tmp_path: Path) -> None:
    model = _encoder()
    path = tmp_path / "m.keras"
    model.save(path)
    assert difference(from_tensorflow(path).graph, from_tensorflow(model).graph) is None


def _node(graph: Any, op: str, name: str, *inputs: str, **attrs: Any) -> Any:
    node = graph.node.add(op=op, name=name, input=inputs)
    for key, value in attrs.items():
        if isinstance(value, str):
            node.attr[key].s = value.encode()
        elif isinstance(value, bool):
            node.attr[key].b = value
        elif isinstance(value, int):
            node.attr[key].type = value
        elif isinstance(value, list):
            node.attr[key].list.i.extend(value)
        elif isinstance(value, tf.TensorShape):
            node.attr[key].shape.CopyFrom(value.as_proto())
        else:
            node.attr[key].tensor.CopyFrom(tf.make_tensor_proto(value))
    return node


def _frozen() -> Any:
    import numpy as np

    graph = tf.compat.v1.GraphDef()
    one = np.ones
    _node(graph, "Placeholder", "x", dtype=1, shape=tf.TensorShape([None, 8, 8, 3]))
    _node(graph, "Const", "w", value=one((3, 3, 3, 4), np.float32), dtype=1)
    _node(graph, "Identity", "w/read", "w")
    _node(graph, "Conv2D", "conv", "x", "w/read", strides=[1, 2, 2, 1], padding="VALID", data_format="NHWC")
    for name in ("scale", "offset", "mean", "variance"):
        _node(graph, "Const", name, value=one(4, np.float32), dtype=1)
    _node(graph, "FusedBatchNormV3", "bn", "conv", "scale", "offset", "mean", "variance", is_training=False)
    _node(graph, "Relu", "relu", "bn")
    _node(graph, "Const", "axes", value=np.array([1, 2], np.int32), dtype=3)
    _node(graph, "Mean", "pool", "relu", "axes", keep_dims=False)
    return graph


def test_frozen_graph(tmp_path: Path) -> None:
    graph = _frozen()
    theirs = nn.Sequential(nn.Conv2d(3, 4, 3, 2, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    found = same(graph, theirs, (1, 3, 8, 8))
    assert any("frozen" in n for n in found.notes)
    path = tmp_path / "frozen.pb"
    path.write_bytes(graph.SerializeToString())
    for other in (path, graph.SerializeToString()):
        assert difference(from_tensorflow(other).graph, found.graph) is None


def _freeze(model: Any, shape: tuple[int, ...], **settings: Any) -> Any:
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    @tf.function(autograph=False)
    def run(x: Any) -> Any:
        return model(x, training=False)

    frozen = convert_variables_to_constants_v2(run.get_concrete_function(tf.TensorSpec(shape)), **settings)
    return frozen.graph.as_graph_def()


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_frozen_loops(activation: str) -> None:
    first = L.LSTM(4, activation=activation, return_sequences=True)
    model = keras.Sequential([keras.Input((5, 3)), first, L.GRU(5), L.Dense(2)])
    graph = from_tensorflow(model).graph
    lowered = _freeze(model, (1, 5, 3))
    assert any(n.op == "Enter" for n in lowered.node)
    for frozen in (lowered, _freeze(model, (1, 5, 3), lower_control_flow=False)):
        found = from_tensorflow(frozen).graph
        assert found.op_counts == graph.op_counts
        assert found.params == trained(model)


def test_loops_and_arrays_of_tensorflow_1() -> None:
    graph = tf.Graph()
    was_v2 = tf.compat.v1.control_flow_v2_enabled()
    tf.compat.v1.disable_control_flow_v2()
    try:
        with graph.as_default():
            x = tf.compat.v1.placeholder(tf.float32, (4, 3), name="x")
            rows = tf.TensorArray(tf.float32, 4).unstack(x)
            made = tf.TensorArray(tf.float32, 4)
            loop = tf.compat.v1.while_loop

            def outer(i: Any, made: Any) -> Any:
                row = loop(lambda j, _: j < 2, lambda j, r: (j + 1, tf.nn.relu(r)), [0, tf.sin(rows.read(i))])[1]
                return i + 1, made.write(i, row)

            y = loop(lambda i, _: i < 4, outer, [0, made])[1].stack()
            tf.compat.v1.cond(tf.constant(True), lambda: tf.tanh(y), lambda: tf.exp(y))
    finally:
        if was_v2:
            tf.compat.v1.enable_control_flow_v2()
    counts = from_tensorflow(graph.as_graph_def()).graph.op_counts
    assert counts == {"Input": 1, "Slice": 4, "Sin": 4, "Relu": 8, "Concat": 1, "Tanh": 1}


def test_unknown_operators_are_counted_and_python_is_not_run() -> None:
    @tf.function(input_signature=[tf.TensorSpec([1, 8])])
    def function(x: Any) -> Any:
        return tf.py_function(_fail, [x], tf.float32) + tf.math.betainc(x, x, x)

    with pytest.warns(ExtractionWarning, match="Betainc"):
        found = from_tensorflow(function)
    assert found.unknown == {"EagerPyFunc": 1, "Betainc": 1}
    assert any("Python code" in n for n in found.notes)


def _fail(*args: Any) -> Any:
    raise AssertionError("code of a graph was run")


# ---- refused ----------------------------------------------------------------------------------------------------


def test_lambda_layers_are_refused(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((8,)), L.Lambda(lambda x: x * 2, name="twice")])
    model.save(tmp_path / "m.keras")
    with pytest.raises(ExtractionError, match=r"layer 'twice' \(Lambda\).*holds code"):
        from_tensorflow(tmp_path / "m.keras")


@pytest.mark.parametrize(("change", "message"), [
    ({"module": "os.path"}, "module 'os.path'"), ({"class_name": "TFSMLayer"}, "loads another file"),
    ({"registered_name": "mine>Layer"}, "custom class 'mine>Layer'"), ({"units": 2**62}, "not a possible size"),
])
def test_foreign_classes_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    model = keras.Sequential([keras.Input((8,)), L.Dense(2, name="last")])
    model.save(tmp_path / "m.keras")
    config = json.loads(zipfile.ZipFile(tmp_path / "m.keras").read("config.json"))
    layer = config["config"]["layers"][-1]
    (layer["config"] if "units" in change else layer).update(change)
    with zipfile.ZipFile(tmp_path / "bad.keras", "w") as archive:
        archive.writestr("config.json", json.dumps(config))
    with pytest.raises(ExtractionError, match=message) as error:
        from_tensorflow(tmp_path / "bad.keras")
    assert "'last'" in str(error.value)


def test_archives_that_point_outside_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("../outside", "x")
    with pytest.raises(ExtractionError, match=r"'\.\./outside' points outside"):
        from_tensorflow(tmp_path / "m.keras")
    (tmp_path / "m.h5").write_bytes(b"x")
    with pytest.raises(ExtractionError, match="HDF5"):
        from_tensorflow(tmp_path / "m.h5")


def _cycle(graph: Any) -> None:
    graph.node[3].input[0] = "relu"


def _huge(graph: Any) -> None:
    graph.node[1].attr["value"].tensor.tensor_shape.dim[0].size = 2**62


def _no_input(graph: Any) -> None:
    graph.node[3].input[1] = "nobody"


def _recursive(graph: Any) -> None:
    function = graph.library.function.add()
    function.signature.name = "f"
    function.signature.input_arg.add(name="a", type=1)
    function.signature.output_arg.add(name="b", type=1)
    call = function.node_def.add(op="PartitionedCall", name="inner", input=["a"])
    call.attr["f"].func.name = "f"
    function.ret["b"] = "inner:output:0"
    node = graph.node.add(op="PartitionedCall", name="outer", input=["pool"])
    node.attr["f"].func.name = "f"


def _strides(graph: Any) -> None:
    del graph.node[3].attr["strides"].list.i[2:]


@pytest.mark.parametrize(("damage", "message"), [
    (_cycle, r"node 'conv' \(Conv2D\) is part of.*field 'input'"), (_huge, r"node 'w' \(Const\), field 'value': shape"),
    (_no_input, r"node 'conv' \(Conv2D\): field 'input' names 'nobody'"), (_recursive, "calls itself"),
    (_strides, r"node 'conv' \(Conv2D\): field 'strides'"),
])
def test_damaged_graphs_are_named(damage: Callable[[Any], None], message: str) -> None:
    graph = _frozen()
    damage(graph)
    with pytest.raises(ExtractionError, match=message):
        from_tensorflow(graph)


def test_other_objects_are_refused() -> None:
    with pytest.raises(ExtractionError, match="does not know what to do with int"):
        from_tensorflow(3)
    with pytest.raises(ExtractionError, match="no GraphDef"):
        from_tensorflow(b"")
    with pytest.raises(ExtractionError, match="whether the loop goes on"):
        from_tensorflow(tf.function(_until, input_signature=[tf.TensorSpec([1, 8])]))


def _until(x: Any) -> Any:
    while tf.reduce_sum(x) < 3:
        x = x + 1
    return x


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(n for n in dir(keras.applications) if n[0].isupper()))
def test_all_keras_applications(name: str) -> None:
    builder, built = getattr(keras.applications, name), []
    settings = {"input_shape": (224, 224, 3)} if name.startswith("MobileNetV3") else {}
    found = from_tensorflow(lambda: built.append(builder(weights=None, **settings)) or built[0])
    assert not found.unknown
    sizes = [tuple(v.shape) for v in built[0].trainable_variables]
    assert found.graph.params == sum(torch.Size(s).numel() for s in sizes)
