"""ONNX files that are made to harm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from hostile import Case
from hostile_onnx_seeds import I64, IMAGE, F, convnet, model, node, tensor
from onnx import TensorProto, helper
from onnx import numpy_helper as numbers

# ---- made to harm -------------------------------------------------------------------------------------------------


def chain(n: int) -> bytes:
    """``n`` Relu in a row, written without the slow helpers: v1000001 from v1000000, and so on."""
    rows = []
    for i in range(n):
        a, b = b"v%07d" % i, b"v%07d" % (i + 1)
        rows.append(b"\x0a\x1a\x0a\x08" + a + b"\x12\x08" + b + b"\x22\x04Relu")
    m = model([node("Relu", "x", "v0000000", "first")], out=f"v{n:07d}")
    nodes, rest = b"".join(rows), m.graph.SerializeToString()
    whole = onnx.ModelProto(ir_version=m.ir_version, opset_import=m.opset_import)
    return whole.SerializeToString() + onnx.ModelProto(graph=onnx.GraphProto.FromString(nodes + rest)).SerializeToString()


def nested(depth: int) -> onnx.ModelProto:
    """If in If in If …"""
    value = helper.make_tensor_value_info("t", F, None)
    inner = helper.make_graph([node("Relu", "x", "t", "deepest")], "g", [], [value])
    for i in range(depth):
        outer = helper.make_graph([], "g", [], [value])
        outer.node.append(node("If", "yes", "t", f"if{i}", then_branch=inner, else_branch=inner) if i < 3 else
                          node("If", "yes", "t", f"if{i}", then_branch=inner))
        inner = outer
    m = model([node("If", "yes", "y", "evil", then_branch=inner)], [numbers.from_array(np.array(True), "yes")])
    return m


def raw_nesting(depth: int) -> bytes:
    """A message in a message … deeper than Python recurses, written as bytes: ModelProto.graph.node.attribute.g.node…"""
    data = b""
    for i in range(depth):
        number = (7, 1, 5, 6)[0 if i == depth - 1 else 1 + (depth - 2 - i) % 3]
        size, length = len(data), bytearray()
        while size > 127:
            length.append(size & 127 | 128)
            size >>= 7
        length.append(size)
        data = bytes([number << 3 | 2]) + bytes(length) + data
    return data


def recursive_function(ring: int) -> onnx.ModelProto:
    functions = [helper.make_function("my", f"F{i}", ["p"], ["r"],
        [node(f"F{(i + 1) % ring}", "p", "r", f"evil{i}", domain="my")],
                                      [helper.make_opsetid("my", 1)]) for i in range(ring)]
    return model([node("F0", "x", "y", "evil", domain="my")], functions=functions)


def doubling_functions(n: int) -> onnx.ModelProto:
    """2^n nodes from n functions that call the next one twice."""
    functions = [helper.make_function("my", f"F{i}", ["p"], ["r"],
                                      [node(f"F{i + 1}", "p", "q", "one", domain="my"),
                                          node(f"F{i + 1}", "q", "r", "two", domain="my")],
                                      [helper.make_opsetid("my", 1), helper.make_opsetid("", 17)]) for i in range(n)]
    functions.append(helper.make_function("my", f"F{n}", ["p"], ["r"], [node("Relu", "p", "r", "end")],
        [helper.make_opsetid("", 17)]))
    return model([node("F0", "x", "y", "evil", domain="my")], functions=functions)


def loop(times: int, grow: bool = False) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    step = node("Concat", "v v", "v2", "evil", axis=0) if grow else node("Relu", "v", "v2", "evil")
    body = helper.make_graph([node("Identity", "go", "go2", "keep"), step], "body",
                             [value("i", I64, ()), value("go", TensorProto.BOOL, ()), value("v", F, None)],
                             [value("go2", TensorProto.BOOL, ()), value("v2", F, None)])
    return model([node("Loop", "times yes x", "y", "loop", body=body)],
                 [numbers.from_array(np.array(times, np.int64), "times"), numbers.from_array(np.array(True), "yes")])


def outside(where: str, secrets: Path, small: bool = False) -> onnx.ModelProto:
    """External data at ``where``; SECRETS in it stands for the folder that must not be read."""
    t = TensorProto(name="w", data_type=F if not small else I64, dims=[10, 3, 1, 1] if not small else [2],
                    data_location=TensorProto.EXTERNAL)
    for key, text in (("location", where.replace("SECRETS", str(secrets))), ("offset", "0"), ("length", "64")):
        t.external_data.add(key=key, value=text)
    if small:  # a shape is needed, so a careless reader would look
        return model([node("Reshape", "x w", "y", "evil")], [t], (1, 4))
    return model([node("Conv", "x w", "y", "evil", kernel_shape=[1, 1])], [t])


def dims(*sizes: int, initializer: bool = False) -> onnx.ModelProto:
    if not initializer:
        return model([node("Relu", "x")], [], sizes)
    t = TensorProto(name="w", data_type=F, dims=sizes)
    return model([node("Add", "x w")], [t])


def const(op: str, inputs: str, values: dict[str, Any], **attributes: Any) -> Callable[[], onnx.ModelProto]:
    """One node with the given constant arguments and attributes."""
    more = {k: v for k, v in attributes.items() if k != "shape"}
    return lambda: model([node(op, inputs, **more)], [numbers.from_array(np.array(v), k) for k, v in values.items()],
                         attributes.get("shape", IMAGE))


def _cut() -> bytes:
    data = convnet().SerializeToString()
    return data[:len(data) // 2]


def _twice() -> onnx.ModelProto:
    return model([node("Relu", "x", "y", "evil"), node("Tanh", "x", "y", "twin")])


def _wrong_data() -> onnx.ModelProto:
    t = TensorProto(name="w", data_type=I64, dims=[4], raw_data=b"\0" * 9)
    return model([node("Reshape", "x w", "y", "evil")], [t])


def _bad_type() -> onnx.ModelProto:
    return model([node("Add", "x w", "y", "evil")], [TensorProto(name="w", data_type=777, dims=[1], raw_data=b"\0" * 4)])


def _many_outputs() -> onnx.ModelProto:
    return model([node("Split", "x", " ".join(["y", *(f"o{i}" for i in range(100_000))]), "evil", axis=1)])


def _graph_without_output() -> onnx.ModelProto:
    m = convnet()
    del m.graph.output[:]
    return m


_BIG = 2**62
_MODELS: list[tuple[str, Callable[[], Any], str | None]] = [
    ("empty file", lambda: b"", "no ONNX graph"),
    ("text file", lambda: b"hello, this is no model\n" * 20, "not an ONNX model"),
    ("cut in half", _cut, "parsed|cut short|model.onnx"),
    ("no output", _graph_without_output, "output"),
    ("cycle of one", lambda: model([node("Add", "x y", "y", "evil")]), "'evil'.*cycle"),
    ("cycle of two", lambda: model([node("Relu", "b", "y", "evil"), node("Relu", "y", "b", "evil2")]), "'evil2?'.*cycle"),
    ("cycle through a branch", lambda: model([node("If", "yes", "y", "evil", then_branch=helper.make_graph(
        [node("Relu", "y", "t", "in")], "t", [], [helper.make_tensor_value_info("t", F, None)]), else_branch=helper.make_graph(
        [node("Relu", "x", "t", "in2")], "t", [], [helper.make_tensor_value_info("t", F, None)]))],
        [numbers.from_array(np.array(True), "yes")]), "'evil'"),
    ("value made twice", _twice, "'twin'|'evil'"),
    ("missing input", lambda: model([node("Relu", "nobody", "y", "evil")]), "'evil'.*'nobody'"),
    ("output of nobody", lambda: model([node("Relu", "x", "z")], out="ghost"), "'ghost'"),
    ("a million nodes", lambda: chain(1_000_000), "1000001 nodes"),
    ("thirty thousand nodes", lambda: chain(30_000), None),
    ("a million inputs to one node", lambda: model([helper.make_node("Sum", ["x"] * 10**6, ["y"], "evil")]), "'evil'|nodes"),
    ("a hundred thousand outputs", _many_outputs, "'evil'"),
    ("negative dimension", lambda: dims(1, -3, 8, 8), "'x'"),
    ("dimension of 2^62", lambda: dims(1, 3, _BIG, 8), "'x'"),
    ("product beyond 2^64", lambda: dims(2**40, 2**40, 2**40, 8), "'x'"),
    ("hundred thousand dimensions", lambda: dims(*[1] * 100_000), "'x'|shape"),
    ("dynamic everything", lambda: dims(*["a", "b", "c", "d"]), "'x'|input_shapes"),  # type: ignore[arg-type]
    ("negative initializer", lambda: dims(-5, initializer=True), "'w'"),
    ("initializer of 2^62", lambda: dims(_BIG, initializer=True), "'w'"),
    ("initializer of 2^50 without data", lambda: dims(2**25, 2**25, initializer=True), "'w'|'evil'"),
    ("initializer of unknown type", _bad_type, "'w'"),
    ("initializer whose data do not fit", _wrong_data, "'w'"),
    ("branches 31 deep", lambda: nested(31), "'evil'|nested|parsed"),
    ("messages 100,000 deep", lambda: raw_nesting(100_000), "parsed"),
    ("function that calls itself", lambda: recursive_function(1), "'evil0?'|nested"),
    ("ring of functions", lambda: recursive_function(50), "evil|nested"),
    ("functions that double", lambda: doubling_functions(30), "nodes have run|node"),
    ("loop of 2^62 steps", lambda: loop(_BIG), "'loop'|'evil'"),
    ("loop of a million steps", lambda: loop(10**6), "'loop'|'evil'"),
    ("loop that doubles a tensor", lambda: loop(70, grow=True), "'loop'|'evil'"),
    ("negative loop", lambda: loop(-1), None),
    ("fill of 2^40", const("ConstantOfShape", "n", {"n": [2**20, 2**20]}), None),
    ("fill of 2^62", const("ConstantOfShape", "n", {"n": [_BIG, 4]}), "'evil'"),
    ("fill of -1", const("ConstantOfShape", "n", {"n": [-1, 4]}), "'evil'"),
    ("range of 2^62", const("Range", "a b c", {"a": 0, "b": _BIG, "c": 1}), "'evil'"),
    ("range of step 0", const("Range", "a b c", {"a": 0, "b": 5, "c": 0}), "'evil'"),
    ("tile 2^40 times", const("Tile", "x r", {"r": [1, 2**40, 2**40, 1]}), "'evil'"),
    ("expand to 2^62", const("Expand", "x s", {"s": [_BIG, 3, 16, 16]}), "'evil'"),
    ("pad by 2^60", const("Pad", "x p", {"p": [0, 0, 2**60, 0, 0, 0, 2**60, 0]}), "'evil'"),
    ("pad by -100", const("Pad", "x p", {"p": [0, 0, -100, 0, 0, 0, 0, 0]}), "'evil'"),
    ("resize to 2^60", const("Resize", "x - - s", {"s": [1, 3, 2**60, 4]}, mode="nearest"), "'evil'"),
    ("resize by nan", const("Resize", "x - s", {"s": np.array([1, 1, np.nan, 1e30], np.float32)}, mode="linear"), "'evil'"),
    ("reshape to 2^62", const("Reshape", "x s", {"s": [_BIG, -1]}), "'evil'"),
    ("reshape with two unknowns", const("Reshape", "x s", {"s": [-1, -1]}), "'evil'"),
    ("one-hot of depth 2^60", const("OneHot", "i d v", {"i": [1, 2], "d": _BIG, "v": np.array([0, 1], np.float32)}), "'evil'"),
    ("eye of 2^20", const("EyeLike", "n", {"n": np.zeros((4, 4), np.float32)}), None),
    ("kernel of 2^31", lambda: model([node("MaxPool", "x", "y", "evil", kernel_shape=[2**31, 2**31])]), "'evil'"),
    ("stride of 0", lambda: model([node("MaxPool", "x", "y", "evil", kernel_shape=[2, 2], strides=[0, 0])]), "'evil'"),
    ("negative stride", lambda: model([node("Conv", "x w", "y", "evil", strides=[-1, -1])], [tensor("w", 4, 3, 3, 3)]),
        "'evil'"),
    ("padding of 2^60", lambda: model([node("Conv", "x w", "y", "evil", pads=[2**60] * 4)], [tensor("w", 4, 3, 3, 3)]),
        "'evil'"),
    ("group of 0", lambda: model([node("Conv", "x w", "y", "evil", group=0)], [tensor("w", 4, 3, 3, 3)]), "'evil'"),
    ("group of 2^62", lambda: model([node("Conv", "x w", "y", "evil", group=_BIG)], [tensor("w", 4, 3, 3, 3)]), "'evil'"),
    ("hidden size of 2^40", lambda: model([node("LSTM", "x w r", "y", "evil", hidden_size=2**40)], [
        tensor("w", 1, 4, 3), tensor("r", 1, 4, 1)], (5, 1, 3)), None),
    ("attribute of the wrong kind", lambda: model([node("Conv", "x w", "y", "evil", strides="two")],
        [tensor("w", 4, 3, 3, 3)]), "'evil'"),
    ("einsum of nonsense", lambda: model([node("Einsum", "x x", "y", "evil", equation="ij,->->k((")]), "'evil'"),
    ("bits of an unknown operator", lambda: model([node("Exec", "x", "y", "evil", domain="my", code="import os; os.abort()")]),
        None),
    ("operator of another domain without a shape", lambda: model([node("PythonOp", "x", "y", "evil",
        domain="ai.onnx.contrib")]), None),
    ("opset 2^62", lambda: model([node("Relu", "x")], opset=_BIG), "opset"),
    ("opset -7", lambda: model([node("Relu", "x")], opset=-7), "opset"),
    ("half a megabyte of name", lambda: model([node("Relu", "nobody", "y", "evil" * 150_000)]), "evil"),
]
_PLACES = ("SECRETS/weights.bin", "../secrets/weights.bin", "../../../../../../../../etc/passwd", "file://SECRETS/weights.bin",
           "weights.bin", "\x00SECRETS/weights.bin", "\\\\server\\share\\w.bin")


def _writer(make: Callable[[], Any]) -> Callable[[Path, Path], Path]:
    def write(folder: Path, secrets: Path) -> Path:
        data = make()
        path = folder / "model.onnx"
        path.write_bytes(data if isinstance(data, bytes) else data.SerializeToString())
        return path

    return write


def _external(where: str, small: bool) -> Callable[[Path, Path], Path]:
    return lambda folder, secrets: _writer(lambda: outside(where, secrets, small))(folder, secrets)


def _linked(folder: Path, secrets: Path) -> Path:
    """The external data are a link, with the right name, to the file that must not be read."""
    (folder / "weights.bin").symlink_to(secrets / "weights.bin")
    return _external("weights.bin", True)(folder, secrets)


CASES = [*(Case(name, _writer(make), says) for name, make, says in _MODELS),
         *(Case(f"external data at {where!r}{', needed' if small else ''}", _external(where, small))
           for where in _PLACES for small in (False, True)),
         Case("external data through a link", _linked)]
