"""TFRecord files without TensorFlow: framing with masked CRC-32C, and the few protobuf wire types that we meet.

A record is: length (8 bytes, little endian), masked CRC of these 8 bytes (4), data, masked CRC of the data (4). The
mask is ``rotate_right(crc, 15) + 0xa282ead8`` modulo 2^32. This file must not know what the records mean.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cg.errors import StorageError
from cg.varints import read_varint

_POLYNOMIAL = 0x82F63B78  # CRC-32C (Castagnoli), reflected
_COMPILE_FROM_BYTES = 4 << 20


@lru_cache(maxsize=1)
def _table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
        table.append(crc)
    return table


def crc32c(data: bytes) -> int:
    """CRC-32C of some bytes."""
    table, crc = _table(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def masked_crc32c(data: bytes, crc: Callable[[bytes], int] = crc32c) -> int:
    """The checksum as TFRecord stores it."""
    value = crc(data)
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _fast_crc32c() -> Callable[[bytes], int]:
    """:func:`crc32c` compiled by numba where that is installed; half a gigabyte in Python takes a minute."""
    try:
        from numba import njit
    except ImportError:
        return crc32c
    table = np.array(_table(), np.uint32)

    @njit
    def run(data: NDArray[np.uint8]) -> np.uint32:  # pragma: no cover - compiled
        crc = np.uint32(0xFFFFFFFF)
        for byte in data:
            crc = table[(crc ^ byte) & np.uint32(0xFF)] ^ (crc >> np.uint32(8))
        return crc ^ np.uint32(0xFFFFFFFF)

    return lambda data: int(run(np.frombuffer(data, np.uint8)))


def read_records(path: Path, *, check_data: bool = True) -> Iterator[bytes]:
    """The records of a file, in order; StorageError names the record that is damaged.

    Args:
        path: the TFRecord file (not compressed).
        check_data: also check the CRC of the data (the CRC of the length is always checked).
    """
    if not path.is_file():
        raise StorageError(f"{path}: no such file")
    size = path.stat().st_size
    crc = _fast_crc32c() if size >= _COMPILE_FROM_BYTES else crc32c
    with path.open("rb") as stream:
        number, at = 0, 0
        while head := stream.read(12):
            where = f"{path}: record {number} (at byte {at})"
            if len(head) < 12:
                raise StorageError(f"{where}: the file ends inside the record; download it again")
            length, length_crc = struct.unpack("<QI", head)
            if masked_crc32c(head[:8]) != length_crc:
                raise StorageError(f"{where}: wrong checksum of the length; not a TFRecord file, or a damaged one")
            if at + 16 + length > size:
                raise StorageError(f"{where}: the file ends inside the record; download it again")
            data = stream.read(length)
            (data_crc,) = struct.unpack("<I", stream.read(4))
            if check_data and masked_crc32c(data, crc) != data_crc:
                raise StorageError(f"{where}: wrong checksum of the data; download the file again")
            yield data
            number, at = number + 1, at + 16 + length


def proto_fields(data: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """``(field number, value)`` of one message: varint -> int, 64 bits -> float, length-delimited -> bytes.

    ValueError or IndexError where the message is damaged.
    """
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            whole, at = read_varint(data, at)
            yield number, whole
        elif wire == 1:
            if at + 8 > len(data):
                raise ValueError("the message ends inside a double")
            yield number, struct.unpack_from("<d", data, at)[0]
            at += 8
        elif wire == 2:
            length, at = read_varint(data, at)
            if at + length > len(data):
                raise ValueError("the message ends inside a field")
            yield number, data[at : at + length]
            at += length
        elif wire == 5:
            at += 4
        else:
            raise ValueError(f"wire type {wire} is unknown")
