"""Numbers of seven bits a byte, as protocol buffers write them."""

from __future__ import annotations


def read_varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """The number that starts at ``data[at]``, lowest bits first, and the position behind it.

    Raises ``IndexError`` if the data ends inside it, ``ValueError`` if it is longer than 10 bytes.
    """
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a varint is longer than 10 bytes")
