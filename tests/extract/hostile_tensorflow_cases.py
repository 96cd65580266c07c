"""TensorFlow graphs and SavedModels that are made to harm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hostile import Case
from hostile_mutations import Field, serialise
from hostile_tensorflow import (
    BIG,
    BOOL,
    FLOAT,
    FUNC,
    INT32,
    LIST,
    SHAPE,
    STRING,
    TYPE,
    B,
    F,
    I,
    S,
    T,
    X,
    archive,
    call,
    const,
    convnet,
    fields,
    function,
    graph,
    int_tensor,
    ints,
    node,
    placeholder,
    saved,
    shape,
    tensor,
)

Make = Callable[[Path], Any]


def chain(n: int) -> bytes:
    """``n`` Relu in a row, written directly."""
    rows = [b"\x0a\x1a\x0a\x08v%07d\x12\x04Relu\x1a\x08v%07d" % (i + 1, i) for i in range(1, n)]
    return serialise(graph(X, node("v0000001", "Relu", "x", T=T))) + b"".join(rows)


def raw_nesting(depth: int) -> bytes:
    """GraphDef.library.function.node_def.attr.value.func.attr.value.func … deeper than any parser goes."""
    data = b""
    for i in range(depth):
        size, length = len(data), bytearray()
        while size > 127:
            length.append(size & 127 | 128)
            size >>= 7
        length.append(size)
        data = bytes([10 << 3 | 2 if i % 2 else 1 << 3 | 2]) + bytes(length) + data
    return data


def while_loop(cond_true: bool) -> list[Field]:
    i32 = (LIST, fields((6, INT32)))
    cond = fields((1, fields((1, "cond"), (2, fields((1, "p"), (3, INT32))), (3, fields((1, "r"), (3, BOOL))))),
                  (3, const("t", tensor([], bytes([cond_true]), BOOL), BOOL)[1]), (4, fields((1, "r"), (2, "t:output:0"))))
    body = fields((1, fields((1, "body"), (2, fields((1, "p"), (3, INT32))), (3, fields((1, "r"), (3, INT32))))),
                  (3, node("a", "AddV2", "p p", T=(TYPE, INT32))[1]), (4, fields((1, "r"), (2, "a:z:0"))))
    return graph(X, const("c", tensor([], b"\1\0\0\0", INT32), INT32),
                 node("evil", "StatelessWhile", "c", cond=(FUNC, fields((1, "cond"))), body=(FUNC, fields((1, "body"))), T=i32),
                 node("f", "Cast", "evil", SrcT=(TYPE, INT32), DstT=T), node("y", "AddV2", "x f", T=T), functions=[cond, body])


def doubling(n: int) -> list[Field]:
    parts = [function(f"f{i}", call("a", f"f{i + 1}", "p"), call("b", f"f{i + 1}", "a:output:0"),
        result="b:output:0") for i in range(n)]
    return graph(X, call("evil", "f0", "x"), functions=[*parts,
        function(f"f{n}", node("r", "Relu", "p", T=T), result="r:activations:0")])


def ring(n: int) -> list[Field]:
    return graph(X, call("evil", "f0", "x"), functions=[
        function(f"f{i}", call("a", f"f{(i + 1) % n}", "p"), result="a:output:0") for i in range(n)])


def sized(op: str, values: dict[str, Any], inputs: str = "x", **attributes: Any) -> Make:
    """One node whose other arguments are int32 constants."""
    made = [const(k, v if isinstance(v, list) else int_tensor(*v), INT32) for k, v in values.items()]
    return lambda secrets: graph(X, *made, node("evil", op, " ".join([inputs, *values]).strip(), T=T, **attributes))


def conv(**attributes: Any) -> Make:
    given = {"data_format": (S, "NHWC"), "padding": (S, "SAME"), "T": T, "strides": ints(1, 1, 1, 1), **attributes}
    return lambda secrets: graph(X, const("w", tensor([3, 3, 3, 4])), node("evil", "Conv2D", "x w", **given))


def reading(op: str, **attributes: Any) -> Make:
    """An operator that would read a file when it runs."""
    def make(secrets: Path) -> list[Field]:
        name = str(secrets / "secret.txt").encode()
        text = fields((1, STRING), (2, shape([])), (8, name))
        return graph(X, const("name", text, STRING), node("evil", op, "name", **attributes), node("y", "Relu", "x", T=T),
                     node("z", "Join", "y evil", T=T))

    return make


_GRAPHS: list[tuple[str, Make, str | None]] = [
    ("empty file", lambda s: b"", "field 'node'"),
    ("text file", lambda s: b"hello, this is no graph\n" * 9, "damaged|GraphDef"),
    ("cut in half", lambda s: serialise(convnet())[:900], "."),
    ("no placeholder", lambda s: graph(const("w", tensor([3]))), "Placeholder"),
    ("cycle of one", lambda s: graph(X, node("evil", "AddV2", "x evil", T=T), node("y", "Relu", "evil", T=T)), "'evil'"),
    ("cycle of two", lambda s: graph(X, node("evil", "AddV2", "x b", T=T), node("b", "Relu", "evil", T=T),
        node("y", "Relu", "b", T=T)),
     "'evil'|'b'"),
    ("everything a cycle", lambda s: graph(X, node("evil", "AddV2", "x b", T=T), node("b", "Relu", "evil", T=T)), "cycle"),
    ("missing input", lambda s: graph(X, node("evil", "Relu", "nobody", T=T)), "'evil'.*nobody|nobody"),
    ("two nodes of one name", lambda s: graph(X, node("evil", "Relu", "x", T=T), node("evil", "Tanh", "x", T=T)), "'evil'"),
    ("output number that is not there", lambda s: graph(X, node("evil", "Relu", "x:7", T=T)), "'x'|'evil'"),
    ("output number of 2^62", lambda s: graph(X, node("evil", "Relu", f"x:{BIG}", T=T)), "'x'|'evil'"),
    ("a million nodes", lambda s: chain(1_000_000), "1000001 nodes|nodes"),
    ("thirty thousand nodes", lambda s: chain(30_000), None),
    ("node with a million inputs", lambda s: graph(X, node("evil", "AddN", "x " * 10**6, T=T)), "'evil'|inputs"),
    ("negative dimension", lambda s: graph(placeholder(1, -7, 16, 3), node("y", "Relu", "x", T=T)), "'x'"),
    ("dimension of 2^62", lambda s: graph(placeholder(1, BIG, 16, 3), node("y", "Relu", "x", T=T)), "'x'"),
    ("product beyond 2^64", lambda s: graph(placeholder(2**30, 2**30, 2**30, 3), node("y", "Relu", "x", T=T)), "'x'"),
    ("hundred thousand dimensions", lambda s: graph(placeholder(*[1] * 100_000), node("y", "Relu", "x", T=T)), "'x'"),
    ("constant of 2^62", lambda s: graph(X, const("evil", tensor([BIG], b"")), node("y", "AddV2", "x evil", T=T)), "'evil'"),
    ("constant of -4", lambda s: graph(X, const("evil", tensor([-4], b"")), node("y", "AddV2", "x evil", T=T)), "'evil'"),
    ("constant without its data", lambda s: graph(X, const("evil", tensor([2, 2], b"\0")), node("y", "AddV2", "x evil", T=T)),
        "'evil'"),
    ("constant that repeats one value 2^39 times", lambda s: graph(X,
        const("evil", fields((1, FLOAT), (2, shape([2**20, 2**19])), (5, 1.0))),
                                                                 node("y", "AddV2", "x evil", T=T)), "'y'|'evil'"),
    ("constant without a value", lambda s: graph(X, node("evil", "Const", dtype=T), node("y", "AddV2", "x evil", T=T)),
        "'evil'"),
    ("constant of type 99", lambda s: graph(X, const("evil", tensor([1], b"\0\0\0\0", 99), 99),
        node("y", "AddV2", "x evil", T=T)), "'evil'"),
    ("messages 100,000 deep", lambda s: raw_nesting(100_000), "."),
    ("function that calls itself", lambda s: ring(1), "f0|evil|deep"),
    ("ring of functions", lambda s: ring(50), "f0|evil|deep"),
    ("functions that double", lambda s: doubling(40), "nodes|functions|deep"),
    ("call of no function", lambda s: graph(X, call("evil", "nobody", "x")), "nobody"),
    ("endless loop", lambda s: while_loop(True), "'evil'|loop"),
    ("loop of no turn", lambda s: while_loop(False), None),
    ("reshape to 2^62", sized("Reshape", {"s": tensor([2], b"\xff" * 7 + b"\x3f" + b"\xff" * 8, 9)}), "'evil'"),
    ("reshape with two unknowns", sized("Reshape", {"s": (-1, -1)}), "'evil'"),
    ("fill of 2^60", sized("Fill", {"d": (2**30, 2**30), "v": (1,)}, ""), "'evil'|input"),
    ("tile 2^60 times", sized("Tile", {"m": (1, 2**30, 2**30, 1)}), "'evil'"),
    ("pad by -100", sized("Pad", {"p": tensor([4, 2], b"\x9c\xff\xff\xff" * 8, INT32)}), "'evil'"),
    ("transpose by nonsense", sized("Transpose", {"p": (9, 9, 0, -5)}), "'evil'"),
    ("axis of 2^31", sized("Mean", {"a": (2**31 - 1,)}), "'evil'"),
    ("resize to 2^30", sized("ResizeBilinear", {"s": (2**30, 2**30)}), None),
    ("gather of nothing", sized("GatherV2", {"i": (0, 99), "a": (77,)}), "'evil'"),
    ("split into 2^40", lambda s: graph(X, const("axis", int_tensor(1), INT32), node(
        "evil", "Split", "axis x", T=T, num_split=(I, 2**40))), "'evil'"),
    ("range of 2^31 with step 0", lambda s: graph(X, const("a", int_tensor(0), INT32), const("z", int_tensor(0), INT32), node(
        "evil", "Range", "a a z", Tidx=(TYPE, INT32)), node("y", "AddV2", "x evil", T=T)), "'evil'"),
    ("stride of 0", conv(strides=ints(1, 0, 0, 1)), "'evil'"),
    ("stride of -2^62", conv(strides=ints(1, -BIG, 1, 1)), "'evil'"),
    ("three strides", conv(strides=ints(1, 1, 1)), "'evil'"),
    ("dilation of 2^62", conv(dilations=ints(1, BIG, BIG, 1)), "'evil'"),
    ("explicit padding of 2^60", conv(padding=(S, "EXPLICIT"), explicit_paddings=ints(0, 0, 2**60, 2**60, 2**60, 2**60, 0, 0)),
        "'evil'"),
    ("padding of nonsense", conv(padding=(S, "../../etc/passwd")), "'evil'"),
    ("attributes of the wrong kind", conv(strides=(F, 1.5), padding=(B, 1)), "'evil'"),
    ("Python function", lambda s: graph(X, node("evil", "EagerPyFunc", "x", token=(S, "pyfunc_0"),
        Tin=(LIST, fields((6, FLOAT))),
                                                Tout=(LIST, fields((6, FLOAT)))), node("y", "Relu", "evil", T=T)), None),
    ("reads a file", reading("ReadFile"), None),
    ("lists files", reading("MatchingFiles"), None),
    ("restores a checkpoint", reading("RestoreV2", dtypes=(LIST, fields((6, FLOAT)))), None),
    ("operator of no name", lambda s: graph(X, node("evil", "", "x", T=T), node("y", "Relu", "evil", T=T)), None),
    ("loads a library", reading("LoadLibrary", library_filename=(S, "/tmp/evil.so")), None),
]
_SAVED: list[tuple[str, Make, str | None]] = [
    ("empty", lambda s: b"", "meta_graphs"),
    ("without a graph", lambda s: fields((1, 1)), "meta_graphs"),
    ("without a signature", lambda s: fields((1, 1), (2, fields((2, convnet())))), "signature"),
    ("with inputs that are not there", lambda s: saved(convnet(), {"x": "ghost:0"}, {"y": "y:0"}), "ghost|input|placeholder"),
    ("with outputs that are not there", lambda s: saved(convnet(), {"x": "x:0"}, {"y": "ghost:0"}), "ghost"),
    ("with an asset outside", lambda s: [*saved(convnet("VarHandleOp"), {"x": "x:0"}, {"y": "y:0"}), [6, 2, fields(
        (1, fields((1, "asset:0"))), (2, str(s / "secret.txt")))]], None),
    ("with a variable of 2^62", lambda s: saved(graph(X, node("evil", "VarHandleOp", dtype=T, shape=(SHAPE, shape([BIG]))),
        node(
        "r", "ReadVariableOp", "evil", dtype=T), node("y", "AddV2", "x r", T=T)), {"x": "x:0"}, {"y": "y:0"}), "'evil'"),
    ("with a table that reads a file", lambda s: saved(graph(X, const("name", fields((1, STRING), (2, shape([])), (8, str(
        s / "secret.txt"))), STRING), node("t", "HashTableV2", key_dtype=(TYPE, STRING), value_dtype=T), node(
            "evil", "InitializeTableFromTextFileV2", "t name"), node("y", "Relu", "x ^evil", T=T)), {"x": "x:0"},
                {"y": "y:0"}), None),
]


def file(name: str, make: Make) -> Callable[[Path, Path], Path]:
    def write(folder: Path, secrets: Path) -> Path:
        data = make(secrets)
        if name.endswith(".keras") and not isinstance(data, bytes):
            data = archive(data)
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else serialise(data))
        return path.parent if name.endswith("saved_model.pb") else path

    return write


def _links(folder: Path, secrets: Path) -> Path:
    """Variables and assets are links to files that must not be read."""
    path = file("m/saved_model.pb", lambda s: saved(convnet("VarHandleOp"), {"x": "x:0"}, {"y": "y:0"}))(folder, secrets)
    (path / "variables").symlink_to(secrets)
    (path / "assets").symlink_to(secrets)
    return path


CASES = [*(Case(f"graph: {name}", file("graph.pb", make), says) for name, make, says in _GRAPHS),
         *(Case(f"saved model: {name}", file("m/saved_model.pb", make), says) for name, make, says in _SAVED),
         Case("saved model: variables through a link", _links)]
