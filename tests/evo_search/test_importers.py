"""Importers, on small files of exactly the official formats, and on damaged and malicious ones.

The writers below are made from the formats' descriptions and share no code with the readers: CRC-32C has its published
check value, protobuf and TFRecord bytes are laid out by hand, pickles come from ``pickle`` and ``torch.save``.
"""

from __future__ import annotations

import base64
import bz2
import json
import os
import pickle
import re
import struct
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cg.errors import CGError, StorageError
from evo_search import tables
from evo_search.importers import import_nasbench101, import_nasbench201, import_nasbench301
from evo_search.importers.__main__ import main
from evo_search.importers._safe_pickle import SKIPPED, RefusedPickle, load_file
from evo_search.importers._tfrecord import _fast_crc32c, crc32c, proto_fields

# --- NAS-Bench-101 ---------------------------------------------------------------------------------------------------

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


# --- NAS-Bench-201 and NATS-Bench ------------------------------------------------------------------------------------

ARCHS = [
    "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|",
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|",
]
SPLITS = {
    "cifar10-valid": ["x-valid", "ori-test"],
    "cifar10": ["ori-test"],
    "cifar100": ["x-valid", "x-test", "ori-test"],
    "ImageNet16-120": ["x-valid", "x-test", "ori-test"],
}


def _trial(dataset: str, seed: int, arch: str, epochs: int, accuracy: float, weights: Any) -> dict[str, Any]:
    """State of one training, with the fields of the official ones; ``accuracy`` is that of the last epoch."""
    keys = [f"{split}@{e}" for split in SPLITS[dataset] for e in range(epochs)]
    return {
        "name": "results",
        "net_state_dict": weights,
        "train_acc1es": dict.fromkeys(range(epochs), 50.0),
        "train_acc5es": dict.fromkeys(range(epochs), 90.0),
        "train_losses": dict.fromkeys(range(epochs), 1.0),
        "train_times": OrderedDict((e, 10.0) for e in range(epochs)),
        "arch_config": {"channel": 16, "num_cells": 5, "arch_str": arch, "class_num": 10},
        "params": 0.802426,
        "flop": 113.95,
        "seed": seed,
        "epochs": epochs,
        "latency": [0.013],
        "eval_names": SPLITS[dataset],
        "eval_acc1es": {k: np.float64(accuracy if k.endswith(f"@{epochs - 1}") else 1.0) for k in keys},
        "eval_times": dict.fromkeys(keys, 1.0),
        "eval_losses": dict.fromkeys(keys, 0.5),
    }


def _results(index: int, epochs: int, base: float, seeds: tuple[int, ...], weights: Any = None) -> dict[str, Any]:
    all_results = {
        (dataset, seed): _trial(dataset, seed, ARCHS[index], epochs, base + k + seed / 1000, weights)
        for k, dataset in enumerate(SPLITS)
        for seed in seeds
    }
    return {
        "arch_index": index,
        "arch_str": ARCHS[index],
        "all_results": all_results,
        "dataset_seed": {dataset: list(seeds) for dataset in SPLITS},
        "clear_net_done": True,
    }


def _benchmark(hps: tuple[str, str], weights: Any = None) -> dict[str, Any]:
    infos = {
        i: {hps[0]: _results(i, 12, 60 + 10 * i, (777,), weights), hps[1]: _results(i, 200, 70 + 10 * i, (777, 888))}
        for i in range(2)
    }
    return {"meta_archs": ARCHS, "arch2infos": infos, "evaluated_indexes": {0, 1}, "total_archs": 2}


def _check201(table: tables.Table) -> None:
    mean = (0.777 + 0.888) / 2
    assert [table.encoded(i) for i in range(table.n)] == ARCHS
    assert table.metrics["c10_val_e200"] == pytest.approx([70 + mean, 80 + mean])
    assert table.metrics["c10_test_e200"] == pytest.approx([71 + mean, 81 + mean])
    assert table.metrics["c100_test_e200"] == pytest.approx([72 + mean, 82 + mean])
    assert table.metrics["in16_val_e12"] == pytest.approx([63.777, 73.777])
    assert table.lookup(ARCHS[1]) == pytest.approx(81 + mean)
    assert table.metrics["params"].tolist() == [802_426, 802_426]


@pytest.mark.parametrize("protocol", [2, 4])
def test_nats_bench_file(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "NATS-tss-v1_0-3ffb9.pickle.pbz2"
    path.write_bytes(bz2.compress(pickle.dumps(_benchmark(("12", "200")), protocol)))
    table = import_nasbench201(path)
    _check201(table)
    table.write(tmp_path / "t.npz")
    _check201(tables.read(tmp_path / "t.npz"))
    assert tables.read(tmp_path / "t.npz", "c100").lookup(ARCHS[0]) == pytest.approx(72.8325)


def test_nats_bench_folder(tmp_path: Path) -> None:
    content = _benchmark(("12", "200"))
    for i, schedules in content["arch2infos"].items():
        (tmp_path / f"{i:06d}.pickle.pbz2").write_bytes(bz2.compress(pickle.dumps(schedules, 4)))
    (tmp_path / "meta.pickle.pbz2").write_bytes(bz2.compress(pickle.dumps({"meta_archs": ARCHS}, 4)))
    _check201(import_nasbench201(tmp_path))


@pytest.mark.parametrize("new_zip_layout", [True, False])
def test_nasbench201_pth_file_and_its_weights(new_zip_layout: bool, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    half = torch.zeros(2).half()
    weights = OrderedDict([("stem.0.weight", torch.zeros(2, 3)), ("n", torch.tensor(3)), ("half", half)])
    path = tmp_path / "NAS-Bench-201-v1_1-096897.pth"
    content = _benchmark(("less", "full"), weights)
    torch.save(content, path, _use_new_zipfile_serialization=new_zip_layout)
    _check201(import_nasbench201(path))
    loaded = load_file(path)["arch2infos"][0]["less"]["all_results"]["cifar10", 777]["net_state_dict"]
    assert list(loaded) == ["stem.0.weight", "n", "half"]
    assert all(value is SKIPPED for value in loaded.values())
    for i, schedules in content["arch2infos"].items():
        (tmp_path / "archive").mkdir(exist_ok=True)
        torch.save(schedules, tmp_path / f"archive/{i:06d}-FULL.pth")
    _check201(import_nasbench201(tmp_path / "archive"))


class _Bomb:
    """Pickles as a call of ``function``."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("container", ["pbz2", "pth", "legacy", "nested"])
def test_malicious_pickle_is_refused_and_runs_nothing(container: str, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    bomb: Any = _Bomb(os.mkdir, str(flag))
    path = tmp_path / "evil.pth"
    if container == "pbz2":
        path.write_bytes(bz2.compress(pickle.dumps(bomb)))
    elif container == "nested":
        content = _benchmark(("12", "200"))
        content["arch2infos"][1]["200"]["all_results"]["cifar10", 777]["latency"] = bomb
        path.write_bytes(pickle.dumps(content))
    else:
        torch = pytest.importorskip("torch")
        torch.save({"meta_archs": bomb}, path, _use_new_zipfile_serialization=container == "pth")
    with pytest.raises(RefusedPickle, match=re.escape(str(path))) as caught:
        import_nasbench201(path)
    assert "posix.mkdir" in str(caught.value) or "nt.mkdir" in str(caught.value)
    assert "nothing in it was run" in str(caught.value)
    assert not flag.exists()
    if container == "pbz2":  # the flag works: plain pickle does run it
        pickle.loads(pickle.dumps(bomb))
        assert flag.exists()


@pytest.mark.parametrize(
    "call",
    [
        _Bomb(eval, "1"),
        _Bomb(getattr, {}, "keys"),
        _Bomb(__import__, "os"),
        _Bomb(bytearray, 10),
        _Bomb(np.load, "x"),
        _Bomb(pickle.loads, b"N."),
        _Bomb(sys.exit),
    ],
)
def test_names_that_are_not_listed_are_refused(call: Any, tmp_path: Path) -> None:
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps({"x": call}))
    with pytest.raises(RefusedPickle, match="which a benchmark file does not need"):
        load_file(path)


@pytest.mark.parametrize(
    "program",
    [
        b"cnumpy.core.multiarray\nscalar\n}X\x01\x00\x00\x00aK\x01sb.",  # set an attribute on an allowed name
        b"cnumpy.core.multiarray\nscalar\nN}X\x09\x00\x00\x00_functionK\x01s\x86b.",
        b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00rot13tR.",
        b"ccollections\nOrderedDict.fromkeys\n.",
        b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93.",
    ],
)
def test_tricks_with_listed_names_are_refused(program: bytes, tmp_path: Path) -> None:
    path = tmp_path / "evil.pkl"
    path.write_bytes(program)
    with pytest.raises(StorageError, match=re.escape(str(path))):
        load_file(path)


def test_numpy_values_are_read_without_numpy_unpickling(tmp_path: Path) -> None:
    values = {
        "f4": np.float32(1.5),
        "big": _Bomb(np.int64(0).__reduce__()[0], np.dtype(">f8"), struct.pack(">d", 2.5)),
        "i": np.int64(-7),
        "b": np.bool_(True),
        "text": np.str_("abc"),
        "array": np.arange(3),
        "objects": np.array([{}], dtype=object),
    }
    for protocol in (2, 4):
        path = tmp_path / "v.pkl"
        path.write_bytes(pickle.dumps(values, protocol))
        read = load_file(path)
        assert (read["f4"], read["big"], read["i"], read["b"]) == (1.5, 2.5, -7, True)
        assert read["text"] is SKIPPED
        assert not isinstance(read["array"], np.ndarray)


def test_nasbench201_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.pickle.pbz2"
    whole = bz2.compress(pickle.dumps(_benchmark(("12", "200")), 4))
    plain = pickle.dumps(_benchmark(("12", "200")), 4)
    for content in (whole[: len(whole) // 2], plain[: len(plain) // 2], b"", b"hello", whole[:50] + b"\0" + whole[51:]):
        path.write_bytes(content)
        with pytest.raises(StorageError, match=re.escape(str(path))):
            import_nasbench201(path)
    with pytest.raises(StorageError, match="no such file"):
        import_nasbench201(tmp_path / "absent.pth")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StorageError, match="no architecture"):
        import_nasbench201(tmp_path / "empty")


def _break(content: dict[str, Any], what: str) -> str:
    """Damage architecture 1 and say what the message must contain."""
    results = content["arch2infos"][1]["200"]
    trial = results["all_results"]["cifar100", 888]
    if what == "accuracy":
        trial["eval_acc1es"]["x-test@199"] = 120.0
        return "cifar100 x-test is 120.0"
    if what == "epoch":
        del trial["eval_acc1es"]["x-test@199"]
        return "x-test@199"
    if what == "seed":
        del results["all_results"]["cifar10", 888]
        return "cifar10"
    if what == "arch":
        content["meta_archs"] = [ARCHS[0], "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"]
        return "meta_archs has"
    content["arch2infos"][1]["90"] = content["arch2infos"][1].pop("200")
    return "unknown training schedule '90'"


@pytest.mark.parametrize("what", ["accuracy", "epoch", "seed", "arch", "schedule"])
def test_nasbench201_damaged_record_is_named(what: str, tmp_path: Path) -> None:
    content = _benchmark(("12", "200"))
    reason = _break(content, what)
    path = tmp_path / "a.pickle.pbz2"
    path.write_bytes(bz2.compress(pickle.dumps(content, 4)))
    with pytest.raises(StorageError, match=re.escape(reason)) as caught:
        import_nasbench201(path)
    assert f"{path}: architecture 1" in str(caught.value)


def test_other_pickles_and_the_size_space_are_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "a.pickle.pbz2"
    path.write_bytes(bz2.compress(pickle.dumps({"weights": 1}, 4)))
    with pytest.raises(StorageError, match="not a NAS-Bench-201 or NATS-Bench file"):
        import_nasbench201(path)
    content = _benchmark(("12", "200"))
    content["meta_archs"] = ["8:8:8:8:8", "8:8:8:8:16"]
    for i, schedules in content["arch2infos"].items():
        for results in schedules.values():
            results["arch_str"] = content["meta_archs"][i]
    path.write_bytes(bz2.compress(pickle.dumps(content, 4)))
    with pytest.raises(StorageError, match="only the topology space"):
        import_nasbench201(path)


# --- NAS-Bench-301 ---------------------------------------------------------------------------------------------------

PREFIX = "NetworkSelectorDatasetInfo:darts:"


def _run301(val: float, test: float, layers: int = 8, normal_5: str = "2_3") -> dict[str, Any]:
    """A run with the released fields; the architecture is written out edge by edge."""
    config: dict[str, Any] = {
        f"{PREFIX}layers": layers,
        f"{PREFIX}init_channels": 32,
        f"{PREFIX}drop_path_prob": 0.2,
        f"{PREFIX}auxiliary": "True",
        "NetworkSelectorDatasetInfo:network": "darts",
        "SimpleLearningrateSchedulerSelector:cosine_annealing:T_max": 100,
        "OptimizerSelector:sgd:learning_rate": 0.025,
    }
    edges = {
        "normal": {0: "max_pool_3x3", 1: "avg_pool_3x3", 2: "skip_connect", 4: "sep_conv_3x3", 5: "sep_conv_5x5",
                   6: "dil_conv_3x3"},
        "reduce": {0: "dil_conv_5x5", 1: "skip_connect", 3: "skip_connect", 4: "max_pool_3x3", 7: "sep_conv_3x3",
                   8: "sep_conv_3x3", 9: "avg_pool_3x3", 13: "sep_conv_5x5"},
    }  # fmt: skip
    a, b = (int(x) for x in normal_5.split("_"))
    edges["normal"] |= {9 + a: "dil_conv_5x5", 9 + b: "skip_connect"}
    inputs = {"normal": ("0_2", "0_1", normal_5), "reduce": ("1_2", "2_3", "0_4")}
    for cell in ("normal", "reduce"):
        config |= {f"{PREFIX}edge_{cell}_{e}": op for e, op in edges[cell].items()}
        config |= {f"{PREFIX}inputs_node_{cell}_{k + 3}": text for k, text in enumerate(inputs[cell])}
    info = {"train_accuracy": 99.0, "val_accuracy": val, "epochs": 98, "model_parameters": 1_234_567, "dataset_id": 0}
    return {
        "final_metric_score": -val,
        "optimized_hyperparamater_config": config,
        "budget": 100,
        "info": [info],
        "test_accuracy": test,
        "runtime": 5400.5,
    }


GENOME301 = "0:0 1:1 0:2 2:3 0:4 1:5 2:6 3:2 0:6 1:2 1:2 2:0 2:3 3:3 0:1 4:4"


def _folder301(folder: Path, runs: list[dict[str, Any]]) -> Path:
    for i, run in enumerate(runs):
        file = folder / ("rs", "de")[i % 2] / f"results_{i}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(run))
    return folder


def test_nasbench301_runs(tmp_path: Path) -> None:
    runs = [_run301(94.0, 93.0), _run301(94.5, 93.5), _run301(90.0, 89.0, normal_5="0_4")]
    table = import_nasbench301(_folder301(tmp_path / "nb_301_v13", runs))
    assert table.n == 2
    assert table.lookup(GENOME301) == pytest.approx(94.25)
    assert table.lookup(GENOME301, "test_acc") == pytest.approx(93.25)
    other = GENOME301.replace("2:6 3:2", "0:6 4:2")
    assert table.lookup(other) == pytest.approx(90.0)
    assert table.lookup(other, "params") == 1_234_567
    assert table.meta["fidelity"] == [8, 32, 100]
    table.write(tmp_path / "t.npz")
    assert tables.read(tmp_path / "t.npz").lookup(GENOME301, "runtime_s") == 5400.5


def test_nasbench301_several_fidelities_need_a_choice(tmp_path: Path) -> None:
    folder = _folder301(tmp_path / "runs", [_run301(94.0, 93.0), _run301(97.0, 96.0, layers=20)])
    with pytest.raises(CGError, match=r"choose a fidelity.*\(8, 32, 100\): 1 runs"):
        import_nasbench301(folder)
    assert import_nasbench301(folder, fidelity=(20, 32, 100)).lookup(GENOME301) == 97.0
    with pytest.raises(CGError, match="choose a fidelity"):
        import_nasbench301(folder, fidelity=(8, 16, 100))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("truncated", "results_1.json"),
        ("config", "no field 'optimized_hyperparamater_config'"),
        ("edge", "edge_reduce_3"),
        ("op", "unknown op 'conv'"),
        ("inputs", "inputs_node_normal_4 is '1_0'"),
        ("unused", "edge_normal_3 is set, but no node uses that edge"),
        ("accuracy", "not percentages"),
        ("runtime", "runtime inf is not a number"),
        ("info", "results_1.json"),
        ("list", "results_1.json"),
    ],
)
def test_nasbench301_damaged_run_is_named(damage: str, reason: str, tmp_path: Path) -> None:
    run = _run301(94.0, 93.0)
    config = run["optimized_hyperparamater_config"]
    if damage == "config":
        del run["optimized_hyperparamater_config"]
    elif damage == "edge":
        del config[f"{PREFIX}edge_reduce_3"]
    elif damage == "op":
        config[f"{PREFIX}edge_reduce_3"] = "conv"
    elif damage == "inputs":
        config[f"{PREFIX}inputs_node_normal_4"] = "1_0"
    elif damage == "unused":
        config[f"{PREFIX}edge_normal_3"] = "skip_connect"
    elif damage == "accuracy":
        run["test_accuracy"] = float("nan")
    elif damage == "runtime":
        run["runtime"] = float("inf")
    elif damage == "info":
        run["info"] = []
    folder = _folder301(tmp_path / "runs", [_run301(94.0, 93.0), run])
    bad = folder / "de/results_1.json"
    if damage == "truncated":
        bad.write_text(bad.read_text()[:500])
    elif damage == "list":
        bad.write_text("[]")
    with pytest.raises(StorageError, match=re.escape(reason)) as caught:
        import_nasbench301(folder)
    assert str(bad) in str(caught.value)


def test_nasbench301_folder_without_runs_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"no results\*.json"):
        import_nasbench301(tmp_path)


# --- the command -----------------------------------------------------------------------------------------------------


def test_command_writes_a_table_or_says_why_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = _folder301(tmp_path / "runs", [_run301(94.0, 93.0)]), tmp_path / "t.npz"
    assert main(["nasbench301", str(folder), "-o", str(out), "--fidelity", "8", "32", "100"]) == 0
    assert tables.read(out).lookup(GENOME301) == 94.0
    assert "1 rows" in capsys.readouterr().out
    assert main(["nasbench101", str(tmp_path / "absent"), "-o", str(tmp_path / "no.npz")]) == 1
    assert "no such file" in capsys.readouterr().err
    assert not (tmp_path / "no.npz").exists()
