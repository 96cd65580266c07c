"""The shipped benchmark tables and their file format: published facts, the sources, lookups, damaged files."""

from __future__ import annotations

import csv
import gzip
import hashlib
import os
import pickle
import re
import subprocess
import sys
import zipfile
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cg.errors import CGError, StorageError
from evo_search import _cells101, tables
from evo_search._genomes import Genomes201, Genomes301
from evo_search._table_file import read_npz, write_npz

DATA = Path(str(resources.files("evo_search") / "data"))
SHARED = Path(os.environ.get("CGTRANSFER_SHARED", Path(__file__).parents[3] / "shared")) / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the source tables (../shared/data) are not here")


def _genomes(name: str) -> Any:
    """The genome arrays of a shipped table (each benchmark has other arrays)."""
    return tables.load(name).genomes


def _permuted(encoded: str, rng: np.random.Generator, extra: int = 0) -> str:
    """The same NAS-Bench-101 cell in a random other topological order, with up to ``extra`` dead vertices added."""
    n, bits, ops = _cells101.parse_cell(encoded)
    extra = min(extra, 7 - n)
    edges = [(x, y) for y in range(n) for x in range(y) if bits >> (x + y * (y - 1) // 2) & 1]
    label: dict[int, int] = dict(zip(range(1, n - 1), ops, strict=True))
    for v in range(100, 100 + extra):  # hangs on the input, leads nowhere
        label[v] = int(rng.integers(3))
        edges.append((0, v))
    place, left = {0: 0}, set(label)
    while left:
        ready = [v for v in sorted(left) if all(x in place for x, y in edges if y == v)]
        pick = int(rng.choice(ready))
        place[pick] = len(place)
        left.remove(pick)
    place[n - 1] = len(place)
    bits = sum(1 << (place[x] + place[y] * (place[y] - 1) // 2) for x, y in edges)
    interior = "".join(str(label[v]) for v in sorted(label, key=place.__getitem__))
    return f"{n + extra}:{bits:x}:{interior}"


# --- the shipped data ------------------------------------------------------------------------------------------------


def test_shipped_tables_are_small_unpickled_and_match_the_card() -> None:
    card = (DATA / "DATACARD.md").read_text("utf-8")
    files = sorted(DATA.glob("*.npz"))
    assert [f.name for f in files] == ["nasbench101.npz", "nasbench201.npz", "nasbench301.npz"]
    assert sum(f.stat().st_size for f in files) < 6_000_000
    for file in files:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        assert re.search(rf"{file.name}.*{digest}", card), f"{file.name}: the card has another checksum than {digest}"
        with np.load(file, allow_pickle=False) as npz:
            assert all(npz[name].dtype != object for name in npz.files)


def test_nasbench101_has_the_published_facts() -> None:
    table = tables.load("nasbench101")
    assert table.n == 423_624
    sizes, counts = np.unique(_genomes("nasbench101").n_vertices, return_counts=True)
    assert dict(zip(sizes.tolist(), counts.tolist(), strict=True)) == {2: 1, 3: 6, 4: 84, 5: 2441, 6: 62010, 7: 359082}
    assert table.metrics["test_acc"].max() == pytest.approx(94.3176, abs=5e-5)
    assert table.metrics["test_acc"].mean() == pytest.approx(89.680, abs=5e-4)
    assert np.isfinite(table.metrics["test_acc"]).all()
    assert np.isfinite(table.metrics["val_acc"]).sum() == 30_001
    best = int(np.argmax(table.metrics["test_acc"]))
    assert table.lookup(table.encoded(best)) == table.metrics["test_acc"].max()


def test_nasbench101_rows_are_in_the_order_of_the_official_hash() -> None:
    genomes = _genomes("nasbench101")
    sample = np.unique(np.concatenate([np.arange(40), np.linspace(0, genomes.n - 1, 400).astype(int)]))
    hashes = [
        _cells101.module_hash(int(genomes.n_vertices[i]), int(genomes.adj_bits[i]), genomes.ops[i].tolist())
        for i in sample
    ]
    assert all(a < b for a, b in pairwise(hashes))
    assert hashes[0] == "00005c142e6f48ac74fdcf73e3439874"  # the first module of the official file


def test_cell_hash_tells_all_nasbench101_cells_apart() -> None:
    genomes = _genomes("nasbench101")
    keys, edges = _cells101.cell_hashes(genomes.n_vertices, genomes.adj_bits, genomes.ops)
    assert len(np.unique(keys)) == 423_624
    assert edges.min() == 1
    assert edges.max() == 9


def test_reordered_and_padded_cells_find_their_nasbench101_row() -> None:
    table, rng = tables.load("nasbench101"), np.random.default_rng(0)
    rows = rng.choice(table.n, 300, replace=False)
    texts = [_permuted(table.encoded(i), rng) for i in rows]
    assert sum(a != table.encoded(i) for a, i in zip(texts, rows, strict=True)) > 80  # really other orders
    assert np.array_equal(table.rows(texts), rows)
    small = np.flatnonzero(_genomes("nasbench101").n_vertices <= 5)
    rows = rng.choice(small, 100, replace=False)
    texts = [_permuted(table.encoded(i), rng, extra=1 + k % 2) for k, i in enumerate(rows)]
    assert [table.row(a) for a in texts] == rows.tolist()


def test_changing_one_op_or_edge_finds_another_nasbench101_row() -> None:
    table = tables.load("nasbench101")
    row = table.row("5:231:012")
    assert table.row("5:231:021") != row
    assert table.row("5:271:012") != row


def test_nasbench201_has_the_published_facts() -> None:
    table = tables.load("nasbench201")
    assert table.n == 15_625
    assert sorted(_genomes("nasbench201").code.tolist()) == list(range(15_625))
    official = "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|"
    assert table.encoded(1) == official
    assert table.row(official) == 1
    assert table.lookup(official) == pytest.approx(93.66)
    best = {"": (94.3733, 0), "-cifar100": (73.5133, 5850), "-imagenet16": (47.3111, 7150)}
    for suffix, (accuracy, more) in best.items():
        one = tables.load(f"nasbench201{suffix}")
        assert one.metrics["test_acc"].max() == pytest.approx(accuracy, abs=5e-5)
        assert one.metrics["params"][1] == 802_426 + more
    assert np.isfinite(table.metrics["val_acc"]).sum() == 9_445
    assert "val_acc" not in tables.load("nasbench201-cifar100").metrics


def test_nasbench301_holds_both_surrogates() -> None:
    table = tables.load("nasbench301")
    assert (table.n, table.default_metric) == (12_439, "val_acc_xgb_v1")
    assert np.isfinite(table.metrics["val_acc_xgb_v1"]).sum() == 1_218
    assert np.isfinite(table.metrics["val_acc_yahpo_e98"]).all()
    assert len(np.unique(_genomes("nasbench301").code)) == table.n


@pytest.mark.parametrize("name", tables.names())
def test_every_row_finds_itself(name: str) -> None:
    table = tables.load(name)
    rows = np.arange(0, table.n, max(1, table.n // 2000))
    assert np.array_equal(table.rows([table.encoded(int(i)) for i in rows]), rows)


def test_tables_are_read_only_and_loaded_once() -> None:
    table = tables.load("nasbench301")
    assert tables.load("nasbench301") is table
    with pytest.raises(ValueError, match="read-only"):
        table.metrics["val_acc_xgb_v1"][0] = 1.0
    with pytest.raises(TypeError):
        table.metrics["new"] = np.zeros(table.n)  # type: ignore[index]


def test_tables_and_importers_do_not_import_torch() -> None:
    code = (
        "import sys\nfrom evo_search import importers, tables\nt = tables.load('nasbench201')\nt.row(t.encoded(7))\n"
        "importers.import_nasbench201\nprint('torch' in sys.modules)\nimport torch\nprint('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout.split() == ["False", "True"], run.stderr  # the second: the probe does see torch


def test_table_can_be_sent_to_another_process() -> None:
    table = tables.load("nasbench201-cifar100")
    again = pickle.loads(pickle.dumps(table))
    assert again.lookup(table.encoded(9)) == table.lookup(table.encoded(9))


# --- the sources -----------------------------------------------------------------------------------------------------


@needs_shared
def test_nasbench101_reproduces_the_source_in_shared() -> None:
    table = tables.load("nasbench101")
    with np.load(SHARED / "nasbench101/nasbench101.npz") as source:
        for name in ("n_vertices", "adj_bits", "ops"):
            assert np.array_equal(getattr(_genomes("nasbench101"), name), source[name]), name
        assert np.array_equal(table.metrics["params"], source["params"])
        # float32 in the source: one unit in the last place is 6e-6 percent, one image of the 29,952 is 3e-3
        assert np.abs(table.metrics["test_acc"] - 100.0 * source["test_acc"].astype(np.float64)).max() < 1e-5
    with np.load(SHARED / "nasbench101/val30k.npz") as source:
        rows = source["row"]
        for name, column in {"val_acc": "val_acc_e108", **{k: k for k in ("val_acc_e4", "val_acc_e36")}}.items():
            assert np.abs(table.metrics[name][rows] - 100.0 * source[column].astype(np.float64)).max() < 1e-5
        assert np.array_equal(table.metrics["train_time_s"][rows], source["train_time_s"].astype(np.float64))


@needs_shared
def test_nasbench201_reproduces_the_source_in_shared() -> None:
    table = tables.load("nasbench201")
    with gzip.open(SHARED / "nasbench201/nasbench201.csv.gz", "rt", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [table.encoded(i) for i in range(table.n)] == [row["arch_str"] for row in rows]
    for name in [n for n in rows[0] if n not in ("index", "arch_str")]:
        expected = np.array([float(row[name]) if row[name] else np.nan for row in rows])
        assert np.array_equal(np.round(table.metrics[name], 4), expected, equal_nan=True), name


@needs_shared
def test_nasbench301_reproduces_the_source_in_shared() -> None:
    table = tables.load("nasbench301")
    with gzip.open(SHARED / "nasbench301/nasbench301.csv.gz", "rt", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert np.array_equal(table.rows([row["genotype"] for row in rows]), np.arange(table.n))
    for i in range(0, table.n, 501):  # the same 16 edges, whichever order the two of a node have
        tokens, ours = rows[i]["genotype"].split(), table.encoded(i).split()
        assert all(sorted(tokens[k : k + 2]) == sorted(ours[k : k + 2]) for k in range(0, 16, 2))
    for name in ("val_acc_xgb_v1", "val_acc_yahpo_e98", "runtime_yahpo_s"):
        expected = np.array([float(row[name]) if row[name] else np.nan for row in rows])
        assert np.array_equal(np.round(table.metrics[name], 4), expected, equal_nan=True), name


# --- lookups that must fail ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "genome", "reason"),
    [
        ("nasbench101", "3:5", "expected"),
        ("nasbench101", "3:zz:0", "not a number"),
        ("nasbench101", "8:1:000000", "8 vertices"),
        ("nasbench101", "3:8:0", "beyond"),
        ("nasbench101", "3:5:3", "op digits"),
        ("nasbench101", "3:1:0", "no path"),
        ("nasbench101", "7:1fffff:00000", "at most 9"),
        ("nasbench201", "|none~0|+|none~0|none~1|", "expected"),
        ("nasbench201", "|conv~0|+|none~0|none~1|+|none~0|none~1|none~2|", "unknown op 'conv'"),
        ("nasbench201", "|none~0|+|none~1|none~0|+|none~0|none~1|none~2|", "expected"),
        ("nasbench301", "0:0 1:1", "2 tokens"),
        ("nasbench301", " ".join(["0:0 0:1"] * 8), "two different inputs"),
        ("nasbench301", " ".join(["0:0 1:7"] * 8), "ops 0 to 6"),
        ("nasbench301", "a:b", "input:op"),
    ],
)
def test_malformed_genome_is_named(name: str, genome: str, reason: str) -> None:
    with pytest.raises(CGError, match=reason) as caught:
        tables.load(name).row(genome)
    assert genome in str(caught.value)


def test_absent_genome_and_missing_value_are_named() -> None:
    table = tables.load("nasbench301")
    absent = " ".join(["0:0 1:0"] * 8)
    with pytest.raises(tables.NotInTableError, match=f"no row for '{absent}'") as caught:
        table.lookup(absent)
    assert isinstance(caught.value, KeyError)
    assert isinstance(caught.value, CGError)
    unlabelled = table.encoded(int(np.flatnonzero(np.isnan(table.metrics["val_acc_xgb_v1"]))[0]))
    with pytest.raises(tables.NotInTableError, match=f"no 'val_acc_xgb_v1' for '{unlabelled}'"):
        table.lookup(unlabelled)
    with pytest.raises(CGError, match="no metric 'accuracy'; it has val_acc_xgb_v1"):
        table.lookup(unlabelled, "accuracy")
    with pytest.raises(CGError, match="there are nasbench101"):
        tables.load("nasbench102")
    with pytest.raises(CGError, match="rows 0 to 12438"):
        table.encoded(12_439)


# --- the file format -------------------------------------------------------------------------------------------------


def _small() -> tables.Table:
    genomes = Genomes201(np.arange(1000))
    rng = np.random.default_rng(1)
    accuracy = rng.integers(0, 10_000, 1000) / 100
    accuracy[3] = np.nan
    few = np.full(1000, np.nan)
    few[[5, 999]] = 1.5, -2.25
    metrics = {"a": accuracy, "few": few, "level": rng.integers(0, 3, 1000) * 7.0, "real": rng.normal(size=1000)}
    return tables.Table("nasbench201", genomes, metrics, "a", {"note": "x"})


def test_written_table_reads_back_exactly(tmp_path: Path) -> None:
    table = _small()
    table.write(tmp_path / "t.npz")
    again = tables.read(tmp_path / "t.npz")
    assert list(again.metrics) == ["a", "few", "level", "real"]
    for name, values in table.metrics.items():
        assert np.array_equal(again.metrics[name], values, equal_nan=True), name
    assert (again.default_metric, again.meta["note"]) == ("a", "x")
    assert [again.encoded(i) for i in range(5)] == [table.encoded(i) for i in range(5)]
    first = (tmp_path / "t.npz").read_bytes()
    table.write(tmp_path / "t.npz")
    assert (tmp_path / "t.npz").read_bytes() == first
    assert list(tmp_path.iterdir()) == [tmp_path / "t.npz"]


@pytest.mark.parametrize("largest", [0, 1, 253, 254, 255, 256, 65_534, 65_535, 65_536, 2**24 - 2, 2**24 - 1])
def test_grid_keeps_its_largest_value_apart_from_missing(largest: int, tmp_path: Path) -> None:
    values = np.array([0.0, largest, np.nan, largest])
    write_npz(tmp_path / "t.npz", Genomes201(np.arange(4)), {"m": values}, units={"m": (1, 1)})
    assert np.array_equal(read_npz(tmp_path / "t.npz")[1]["m"], values, equal_nan=True)


def test_value_off_its_grid_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CGError, match="'m': not a multiple of 1/100"):
        write_npz(tmp_path / "t.npz", Genomes201(np.arange(2)), {"m": np.array([0.5, 0.123])}, units={"m": (1, 100)})
    assert not list(tmp_path.iterdir())


def test_nasbench301_codes_cover_their_range() -> None:
    rng = np.random.default_rng(2)
    for _ in range(200):
        tokens: list[str] = []
        for node in range(8):
            a, b = sorted(rng.choice(node % 4 + 2, 2, replace=False))
            tokens += [f"{a}:{rng.integers(7)}", f"{b}:{rng.integers(7)}"]
        text = " ".join(tokens)
        assert Genomes301(Genomes301.text_keys([text])).encoded(0) == text
    last = "0:6 1:6 1:6 2:6 2:6 3:6 3:6 4:6"
    codes = Genomes301.text_keys([f"{last} {last}"])
    assert int(codes[0]) == (1 * 3 * 6 * 10) ** 2 * 7**16 - 1
    with pytest.raises(CGError, match="out of range"):
        Genomes301.from_arrays({"code": codes + np.uint64(1)})


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "text", "member", "shape", "format", "missing"])
def test_damaged_table_gives_one_clear_error(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    _small().write(path)
    raw = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(raw[: len(raw) // 2])
    elif damage == "flipped":
        middle = len(raw) // 3
        path.write_bytes(raw[:middle] + bytes([raw[middle] ^ 0x55]) + raw[middle + 1 :])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_bytes(b"not a zip at all")
    elif damage == "missing":
        path.unlink()
    else:
        with np.load(path) as npz:
            members = {name: npz[name] for name in npz.files}
        if damage == "member":
            del members["metric.few.rows"]
        elif damage == "shape":
            members["metric.a"] = members["metric.a"][:, :-1]
        else:
            members["meta"] = np.frombuffer(members["meta"].tobytes().replace(b"-table/1", b"-table/9"), np.uint8)
        np.savez(path, **members)
    with pytest.raises(StorageError, match=re.escape(str(path))):
        tables.read(path)


def test_table_with_pickled_member_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    _small().write(path)
    with zipfile.ZipFile(path, "a") as archive, archive.open("evil.npy", "w") as stream:
        np.lib.format.write_array(stream, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(StorageError, match="allow_pickle"):
        tables.read(path)


def test_table_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written"):
        _small().write(tmp_path / "no such folder" / "t.npz")
    assert not list(tmp_path.iterdir())
