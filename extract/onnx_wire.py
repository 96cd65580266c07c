"""Leaves the weights out of the bytes of an ONNX file before they are parsed, so that no weight is copied into memory.

The format is Protocol Buffers (https://protobuf.dev/programming-guides/encoding): a message is a row of fields, each with a
number and, for text, bytes and messages inside, a length. Data of tensors longer than ``LONGEST`` bytes are skipped but for a
sample; all else is kept as it is. This file must not import a framework.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Final

from cg.varints import read_varint
from extract.extraction import ExtractionError

LONGEST: Final = 2**16
SAMPLE: Final = 64  # bytes that are kept from the beginning and the end of raw data, to tell constant tensors
_SMALL_FILE: Final = 2**20

# Kind of message -> number of a field -> kind of the message inside. Source: onnx/onnx.proto of the onnx package.
_INSIDE: Final[dict[str, dict[int, str]]] = {
    "model": {7: "graph", 25: "function"}, "graph": {1: "node", 5: "tensor", 15: "sparse"}, "function": {7: "node"},
    "node": {5: "attribute"}, "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"}, "tensor": {},
}
_RAW: Final = 9
_DATA: Final = frozenset({4, 5, 6, 7, 9, 10, 11})  # fields of a tensor that hold its values


def read_without_weights(path: Path) -> bytes:
    """The file as ``without_weights`` gives it; large files are not read as a whole."""
    try:
        if path.stat().st_size <= _SMALL_FILE:
            return path.read_bytes()
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
            view = memoryview(memory)
            try:
                return without_weights(view)
            finally:
                view.release()
    except OSError as error:
        raise ExtractionError(f"{path} cannot be read: {error}") from None


def without_weights(data: memoryview) -> bytes:
    """``data`` of a ModelProto without long tensor data. What is not well formed is kept, for the parser to refuse."""
    if len(data) <= _SMALL_FILE:
        return bytes(data)
    try:
        return b"".join(_strip(data, "model", 0))
    except (IndexError, ValueError):
        return bytes(data[:_SMALL_FILE])  # cut short or of another format; the parser says so


def _strip(data: memoryview, kind: str, depth: int) -> list[bytes]:
    if depth > 100:
        raise ValueError("nested too deep")
    kept: list[bytes] = []
    inside, position, start, end = _INSIDE[kind], 0, 0, len(data)  # what lies between start and position is kept as it is
    while position < end:
        begin = position
        key, position = read_varint(data, position)
        number, wire = key >> 3, key & 7
        if wire == 0:
            _, position = read_varint(data, position)
        elif wire in (1, 5):
            position += 8 if wire == 1 else 4
        elif wire == 2:
            length, position = read_varint(data, position)
            if position + length > end:
                raise ValueError("cut short")
            body = position
            position += length
            if length <= LONGEST:
                continue
            if kind == "tensor" and number in _DATA:
                kept.append(bytes(data[start:begin]))
                if number == _RAW:
                    kept += [_encoded(key), _encoded(2 * SAMPLE), bytes(data[body:body + SAMPLE]),
                             bytes(data[position - SAMPLE:position])]
                start = position
            elif number in inside:
                parts = _strip(data[body:position], inside[number], depth + 1)
                kept += [bytes(data[start:begin]), _encoded(key), _encoded(sum(map(len, parts))), *parts]
                start = position
        else:
            raise ValueError(f"field type {wire}")
    if position != end:
        raise ValueError("cut short")
    kept.append(bytes(data[start:end]))
    return kept


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
