"""Reads an ONNX file without its weights and checks its size.

Nothing but the given file is opened: tensors that live in other files (external data) are known by shape and number format.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Final

import onnx
import torch

from extract.extraction import ExtractionError
from extract.onnx_wire import read_without_weights, without_weights

MOST_NODES: Final = 200_000
MOST_INPUTS: Final = 10_000  # of one node
MOST_BYTES: Final = 2**31
MOST_KNOWN: Final = 4096  # tensors with more values than this are known by shape only
MOST_AXES: Final = 64
LONGEST_AXIS: Final = 2**40
_T = onnx.TensorProto

# Number formats of ONNX -> torch. Precision is not recorded, so short floats become float32 and odd integers int64.
DTYPES: Final[dict[int, torch.dtype]] = {
    _T.FLOAT: torch.float32, _T.FLOAT16: torch.float32, _T.BFLOAT16: torch.float32, _T.DOUBLE: torch.float64,
    _T.INT64: torch.int64, _T.INT32: torch.int32, _T.INT16: torch.int16, _T.INT8: torch.int8, _T.UINT8: torch.uint8,
    _T.UINT16: torch.int32, _T.UINT32: torch.int64, _T.UINT64: torch.int64, _T.BOOL: torch.bool,
    _T.COMPLEX64: torch.complex64, _T.COMPLEX128: torch.complex128,
    **{value: torch.float32 if name.startswith("FLOAT") else torch.int8
       for name, value in _T.DataType.items() if name.startswith(("FLOAT8", "FLOAT4", "INT4", "UINT4", "INT2", "UINT2"))},
}


@dataclass
class OnnxFile:
    """A checked model: its proto, and what was decided about its tensors.

    ``source`` names it in messages; ``trained`` are the names of initializers and constants that are trained.
    """

    proto: onnx.ModelProto
    source: str
    trained: frozenset[str]
    opsets: dict[str, int]
    functions: dict[tuple[str, str], onnx.FunctionProto] = field(default_factory=dict)


def read(model: Any, not_trained: Iterable[str] = ()) -> OnnxFile:
    """``model`` is a path, bytes or a ModelProto. Raises ``ExtractionError`` if it is none, too large, or not sound."""
    proto, source = _proto(model)
    if not proto.HasField("graph") or not proto.graph.output:
        raise ExtractionError(f"{source} holds no ONNX graph with outputs; is it an ONNX model?")
    for g in (proto.graph, *proto.functions):
        _check_text((g.name, *(getattr(v, "name", v) for v in (*g.input, *g.output))), f"{source}: graph {g.name[:200]!r}")
    for f in proto.functions:
        _check_text((f.domain, *f.attribute, *(o.domain for o in f.opset_import)), f"{source}: function {f.name[:200]!r}")
    for t in proto.graph.initializer:
        _check_text((t.name,), f"{source}: initializer {t.name[:200]!r}")
    _check_text([o.domain for o in proto.opset_import], f"{source}: opset_import")
    _check_text([text for p in proto.graph.metadata_props for text in (p.key, p.value)], f"{source}: metadata_props")
    nodes = _count_nodes(proto, source)
    if nodes > MOST_NODES:
        raise ExtractionError(f"{source} has {nodes} nodes; more than {MOST_NODES} are refused")
    from extract.onnx_trained import trained_tensors

    opsets = {("" if o.domain == "ai.onnx" else o.domain): int(o.version) for o in proto.opset_import}
    newest = onnx.defs.onnx_opset_version()
    opsets.setdefault("", newest if proto.ir_version >= 3 else 1)
    if not 1 <= opsets[""] <= max(newest, 99):
        raise ExtractionError(f"{source}: opset_import names version {opsets['']} of the standard operators, which does not "
                              f"exist; the newest known is {newest}")
    functions = {(f.domain, f.name): f for f in proto.functions}
    return OnnxFile(proto, source, trained_tensors(proto, tuple(not_trained)), opsets, functions)


def _proto(model: Any) -> tuple[onnx.ModelProto, str]:
    if isinstance(model, onnx.ModelProto):
        return model, "the ONNX model"
    if isinstance(model, bytes | bytearray | memoryview):
        data, source = without_weights(memoryview(model)), "the ONNX model"
    elif isinstance(model, str | os.PathLike):
        path = Path(model)
        source = str(path)
        if not path.is_file():
            raise ExtractionError(f"{source}: there is no such file")
        if path.stat().st_size > MOST_BYTES:
            raise ExtractionError(f"{source} is larger than 2 GiB, which no ONNX file may be; weights of large models belong "
                                  "into external data, which is not read")
        data = read_without_weights(path)
    else:
        raise ExtractionError(f"from_onnx needs a path, bytes or an onnx.ModelProto, got {type(model).__name__}")
    try:
        return onnx.ModelProto.FromString(data), source
    except Exception as error:
        raise ExtractionError(f"{source} is not an ONNX model: it cannot be parsed ({type(error).__name__}); it may be cut "
                              "short or of another format") from None


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs in the attributes of a node."""
    for a in node.attribute:
        if a.type == onnx.AttributeProto.GRAPH or a.HasField("g"):
            yield a.g
        yield from a.graphs


def _count_nodes(proto: onnx.ModelProto, source: str) -> int:
    total, todo = 0, [(proto.graph.node, 0), *((f.node, 0) for f in proto.functions)]
    while todo:
        nodes, depth = todo.pop()
        total += len(nodes)
        for n in nodes:
            if len(n.input) > MOST_INPUTS:
                raise ExtractionError(f"{source}: node {n.name[:200]!r} ({n.op_type[:80]}) has {len(n.input)} inputs; more "
                                      f"than {MOST_INPUTS} are refused")
            _check_text((n.name, n.op_type, n.domain, *n.input, *n.output), f"{source}: node {n.name[:200]!r}")
            for a in n.attribute:
                _check_text((a.name, a.ref_attr_name), f"{source}: node {n.name[:200]!r}, attribute {a.name[:200]!r}")
        if depth > 30:
            raise ExtractionError(f"{source}: graphs in attributes are nested more than 30 deep")
        if total > MOST_NODES:
            break
        todo += [(list(g.node), depth + 1) for n in nodes if n.attribute for g in subgraphs(n)]
    return total


def _check_text(names: Iterable[Any], what: str) -> None:
    """The parser hands on bytes where text is not UTF-8."""
    for name in names:
        if type(name) is not str:
            raise ExtractionError(f"{what}: the name {name[:80]!r} is not text in UTF-8; the file is damaged")


def check_dims(dims: Iterable[int], what: str) -> tuple[int, ...]:
    """``dims`` as a tuple. Raises ``ExtractionError`` if an axis is negative or absurdly long."""
    shape = tuple(int(d) for d in dims)
    if len(shape) > MOST_AXES:
        raise ExtractionError(f"{what} has {len(shape)} axes; more than {MOST_AXES} are refused")
    if any(d < 0 or d > LONGEST_AXIS for d in shape) or prod(shape) > 2**50:
        raise ExtractionError(f"{what} has the impossible shape {list(shape)[:12]}")
    return shape


def tensor_of(t: onnx.TensorProto, what: str) -> torch.Tensor:
    """The value of a small tensor, or a meta tensor of its shape and format if it is large or in another file.

    Raises ``ExtractionError`` if shape, format and data do not go together.
    """
    shape = check_dims(t.dims, what)
    if t.data_type not in DTYPES:
        kind = _T.DataType.Name(t.data_type) if t.data_type in _T.DataType.values() else str(t.data_type)
        raise ExtractionError(f"{what} holds values of the format {kind}, which networks of numbers do not use")
    if t.data_location == _T.EXTERNAL or prod(shape) > MOST_KNOWN:
        return torch.empty(shape, dtype=DTYPES[t.data_type], device="meta")
    try:
        array = onnx.numpy_helper.to_array(t)
        if array.shape != shape:
            raise ValueError(f"{array.size} values")
        if array.dtype.isbuiltin != 1 or str(array.dtype) in ("float16", "uint16", "uint32", "uint64"):
            array = array.astype(str(DTYPES[t.data_type]).removeprefix("torch."))
        return torch.tensor(array, device="cpu").reshape(shape)
    except ExtractionError:
        raise
    except Exception as error:
        raise ExtractionError(f"{what}: its data do not fit its shape {list(shape)} ({str(error)[:100]})") from None
