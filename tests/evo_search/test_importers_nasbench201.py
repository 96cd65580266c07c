"""The importer of NAS-Bench-201 and NATS-Bench, on small pickles of the official layouts, and on damaged and malicious ones.

The files are written by ``pickle`` and ``torch.save``, and share no code with the reader.
"""

from __future__ import annotations

import bz2
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

from cg.errors import StorageError
from evo_search import tables
from evo_search.importers import import_nasbench201
from evo_search.importers._safe_pickle import SKIPPED, RefusedPickle, load_file

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
