"""The importer of NAS-Bench-101, on small TFRecord files of exactly the official format, and on damaged ones.

The writers below are made from the format's description and share no code with the reader: CRC-32C has its published check
value, protobuf and TFRecord bytes are laid out by hand.
"""

from __future__ import annotations

import base64
import json
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cg.errors import StorageError
from evo_search import tables
from evo_search.importers import import_nasbench101
from evo_search.importers._tfrecord import _fast_crc32c, crc32c, proto_fields

# The first module of the official file, in its own vertex order, and two more with hand-made results.
OFFICIAL_HASH = "00005c142e6f48ac74fdcf73e3439874"
OPS101 = ["conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3"]


def _bitwise_crc32c(data: bytes) -> int:
    """CRC-32C one bit at a time, from its definition."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ 0x82F63B78 if crc & 1 else crc >> 1
    return crc ^ 0xFFFFFFFF


def _masked(data: bytes) -> bytes:
    crc = _bitwise_crc32c(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) % 2**32)


def _tfrecord(records: list[bytes]) -> bytes:
    out = b""
    for data in records:
        length = struct.pack("<Q", len(data))
        out += length + _masked(length) + data + _masked(data)
    return out


def _varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def _evaluation(epoch: float, time: float, train: float, val: float, test: float) -> bytes:
    values = (epoch, time, train, val, test)
    fields = b"".join(bytes([n << 3 | 1]) + struct.pack("<d", v) for n, v in enumerate(values, 1))
    return fields + b"\x32" + _varint(12) + b"model.ckpt-1"


def _model_metrics(time: float, train: float, val: float, test: float, params: int) -> bytes:
    evaluations = [_evaluation(0, 0, 0.1, 0.1, 0.1), _evaluation(54, time / 2, 0.8, 0.7, 0.6),
                   _evaluation(108, time, train, val, test)]  # fmt: skip
    message = b"".join(b"\x0a" + _varint(len(e)) + e for e in evaluations)
    return message + b"\x10" + _varint(params) + b"\x19" + struct.pack("<d", 2 * time)


def _record101(row: int, epochs: int, val: float, test: float, module_hash: str | None = None) -> list[Any]:
    """A record of the shipped table's row ``row``."""
    from evo_search._cells101 import module_hash as official

    genomes: Any = tables.load("nasbench101").genomes
    n, bits, ops = int(genomes.n_vertices[row]), int(genomes.adj_bits[row]), genomes.ops[row].tolist()
    matrix = "".join(
        "1" if x < y and bits >> (x + y * (y - 1) // 2) & 1 else "0" for x in range(n) for y in range(n)
    )
    names = ",".join(["input", *(OPS101[o] for o in ops[: n - 2]), "output"])
    params = int(tables.load("nasbench101").metrics["params"][row])
    metrics = base64.b64encode(_model_metrics(1000.0 + epochs, 1.0, val, test, params)).decode()
    return [module_hash or official(n, bits, ops), epochs, matrix, names, metrics]


def _file101(path: Path, records: list[list[Any]]) -> Path:
    path.write_bytes(_tfrecord([json.dumps(r).encode() for r in records]))
    return path


def test_crc32c_has_its_published_check_value() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"") == 0
    data = np.random.default_rng(0).integers(0, 256, 1000, dtype=np.uint8).tobytes()
    assert crc32c(data) == _bitwise_crc32c(data)


@pytest.mark.slow
def test_compiled_crc32c_equals_the_plain_one() -> None:
    pytest.importorskip("numba")
    data = np.random.default_rng(0).integers(0, 256, 1000, dtype=np.uint8).tobytes()
    assert _fast_crc32c()(data) == crc32c(data)


def test_protobuf_wire_types() -> None:
    message = b"\x08\x96\x01" + b"\x11" + struct.pack("<d", 1.5) + b"\x1a\x02ab" + b"\x25" + b"\0\0\0\0" + b"\x28\x05"
    assert list(proto_fields(message)) == [(1, 150), (2, 1.5), (3, b"ab"), (5, 5)]
    for bad in (b"\x11\0\0", b"\x1a\x05ab", b"\x08\x80", b"\x0b", b"\x08" + b"\xff" * 11):
        with pytest.raises((ValueError, IndexError)):
            list(proto_fields(bad))


def test_nasbench101_full_file_gives_means_in_hash_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = []
    for row, shift in ((5, 0.01), (0, 0.0), (300_000, 0.02)):  # not in hash order
        for epochs in (4, 108):
            records += [_record101(row, epochs, v + shift - epochs / 1e4, v + shift) for v in (0.90, 0.91, 0.95)]
    seen: list[int] = []
    monkeypatch.setattr("evo_search.importers.nasbench101._PROGRESS_EVERY", 7)
    table = import_nasbench101(_file101(tmp_path / "nasbench_full.tfrecord", records), progress=seen.append)
    assert seen == [7, 14]
    shipped = tables.load("nasbench101")
    assert table.n == 3
    assert [table.encoded(i) for i in range(3)] == [shipped.encoded(i) for i in (0, 5, 300_000)]
    assert table.metrics["test_acc"] == pytest.approx([92.0, 93.0, 94.0])
    assert table.metrics["val_acc"] == pytest.approx([92.0 - 1.08, 93.0 - 1.08, 94.0 - 1.08])
    assert table.metrics["val_acc_e4"] == pytest.approx([92.0 - 0.04, 93.0 - 0.04, 94.0 - 0.04])
    assert table.metrics["train_time_s"] == pytest.approx([1108.0] * 3)
    assert table.metrics["params"].tolist() == shipped.metrics["params"][[0, 5, 300_000]].tolist()
    table.write(tmp_path / "t.npz")
    assert tables.read(tmp_path / "t.npz").lookup(shipped.encoded(5)) == pytest.approx(93.0)


def test_nasbench101_official_first_module_is_accepted(tmp_path: Path) -> None:
    ops = "input,conv3x3-bn-relu,maxpool3x3,conv3x3-bn-relu,conv3x3-bn-relu,conv1x1-bn-relu,output"
    matrix = "0100110" + "0010000" + "0001001" + "0000010" + "0000010" + "0000001" + "0000000"
    metrics = base64.b64encode(_model_metrics(1768.78, 1.0, 0.9264155824979147, 0.9206063151359558, 8555530)).decode()
    table = import_nasbench101(_file101(tmp_path / "a.tfrecord", [[OFFICIAL_HASH, 108, matrix, ops, metrics]]))
    shipped = tables.load("nasbench101")
    assert table.encoded(0) == shipped.encoded(0)
    assert table.metrics["test_acc"][0] == pytest.approx(shipped.metrics["test_acc"][0], abs=1e-5)
    assert table.metrics["params"][0] == shipped.metrics["params"][0] == 8_555_530


def test_nasbench101_module_missing_a_budget_is_nan(tmp_path: Path) -> None:
    records = [_record101(0, 108, 0.9, 0.9), _record101(5, 4, 0.5, 0.5), _record101(5, 108, 0.9, 0.8)]
    table = import_nasbench101(_file101(tmp_path / "a.tfrecord", records))
    assert np.isnan(table.metrics["val_acc_e4"][0])
    assert table.metrics["val_acc_e4"][1] == pytest.approx(50.0)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        (0, "f" * 32, "does not have the module hash f"),
        (1, "108", "epochs is not a int"),
        (2, "0101", "raw_operations"),
        (2, "01x1", "not a square"),
        (3, "input,conv9x9,output", "raw_operations"),
        (4, "!!!", "record 1"),
        (4, base64.b64encode(b"\x08\x01").decode(), "0 evaluations"),
        (4, base64.b64encode(_model_metrics(1.0, 1.0, 0.9, 93.0, 5)).decode(), "test_acc is 93.0, not a fraction"),
        (4, base64.b64encode(_model_metrics(1.0, 1.0, 0.9, float("nan"), 5)).decode(), "no test_acc"),
        (4, base64.b64encode(_model_metrics(1.0, 1.0, 0.9, 0.9, 5)[:40]).decode(), "ends inside"),
    ],
)
def test_nasbench101_damaged_record_is_named(field: int, value: Any, reason: str, tmp_path: Path) -> None:
    records = [_record101(0, 108, 0.9, 0.9), _record101(5, 108, 0.9, 0.9)]
    records[1][field] = value
    path = _file101(tmp_path / "bad.tfrecord", records)
    with pytest.raises(StorageError, match=re.escape(reason)) as caught:
        import_nasbench101(path)
    assert f"{path}: record 1" in str(caught.value)


def test_nasbench101_damaged_file_is_named(tmp_path: Path) -> None:
    path = _file101(tmp_path / "a.tfrecord", [_record101(0, 108, 0.9, 0.9), _record101(5, 108, 0.9, 0.9)])
    raw = path.read_bytes()
    second = 16 + struct.unpack("<Q", raw[:8])[0]
    cases = {
        "ends inside": [raw[:-5], raw[: second + 7], raw[: second + 30]],
        "wrong checksum of the length": [raw[:second] + b"\1" + raw[second + 1 :]],
        "wrong checksum of the data": [raw[: second + 40] + b"~" + raw[second + 41 :]],
    }
    for reason, contents in cases.items():
        for content in contents:
            path.write_bytes(content)
            with pytest.raises(StorageError, match=f"record 1.*{reason}"):
                import_nasbench101(path)
    path.write_bytes(b"")
    with pytest.raises(StorageError, match="no record"):
        import_nasbench101(path)
    with pytest.raises(StorageError, match="no such file"):
        import_nasbench101(tmp_path / "absent")
    path.write_bytes(_tfrecord([b"[1, 2]"]))
    with pytest.raises(StorageError, match="record 0: expected a JSON list of 5 fields"):
        import_nasbench101(path)
    path.write_bytes(_tfrecord([b"\xff{"]))
    with pytest.raises(StorageError, match="record 0"):
        import_nasbench101(path)
