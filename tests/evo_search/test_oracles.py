"""Oracles: tables against rows read independently, the NAS-Bench-301 surrogate against its published outputs."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cg.errors import CGError, StorageError
from evo_search import get_space, random_search
from evo_search.oracles import (
    CallableOracle,
    Oracle,
    OracleError,
    SurrogateOracle,
    TableOracle,
    darts_columns,
    darts_settings,
    shared_folder,
)

NB301 = shared_folder() / "data" / "nasbench301"
needs_surrogate = pytest.mark.skipif(not (NB301 / "surrogate_yahpo.onnx").is_file(),
                                     reason=f"needs the NAS-Bench-301 surrogate in {NB301} (CGTRANSFER_SHARED)")
BEST201 = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_1x1~1|nor_conv_3x3~2|"
# the normal and reduction cell of DARTS V2 (arXiv 1806.09055), by hand
DARTS_V2 = "0:3 1:3 0:3 1:3 0:2 1:3 0:2 2:5 0:0 1:0 1:0 2:2 0:0 2:2 1:0 2:2"


def test_a_callable_is_named_and_may_fail() -> None:
    def fails(genome: Any) -> float:
        raise RuntimeError("no memory")

    assert CallableOracle(len)([1, 2]) == 2.0
    assert isinstance(CallableOracle(len), Oracle)
    assert not isinstance(len, Oracle)
    assert CallableOracle(len).describe() == {"kind": "callable", "name": "len"}
    assert CallableOracle(len, "length").describe()["name"] == "length"
    with pytest.raises(RuntimeError, match="no memory"):
        CallableOracle(fails)(0)


# -- tables --------------------------------------------------------------------------------------------------------

def test_the_best_network_of_nasbench201() -> None:
    oracle = TableOracle("nasbench201")
    assert oracle.describe() == {"kind": "table", "space": "nasbench201", "metric": "test_acc"}
    assert oracle(BEST201) == pytest.approx(94.3733, abs=1e-3), "published best CIFAR-10 test accuracy"
    assert oracle.best_possible == oracle(BEST201)
    assert oracle(get_space("nasbench201").decode(BEST201)) == oracle(BEST201), "a genome or its text"


def test_the_data_sets_of_nasbench201_differ() -> None:
    values = {name: TableOracle(name)(BEST201) for name in
              ("nasbench201", "nasbench201-cifar100", "nasbench201-imagenet16")}
    assert values["nasbench201"] > 94 > 75 > values["nasbench201-cifar100"] > 70
    assert 50 > values["nasbench201-imagenet16"] > 40


def test_a_cell_of_nasbench101_is_found_in_any_vertex_order() -> None:
    space, oracle = get_space("nasbench101"), TableOracle("nasbench101")
    rng = np.random.default_rng(0)
    values = [oracle(space.sample(rng)) for _ in range(50)]
    assert all(9 < v < 94.4 for v in values)
    assert oracle.best_possible == pytest.approx(94.3176, abs=1e-3)


def test_unknown_metrics_and_tables_are_named() -> None:
    with pytest.raises(OracleError, match=r"no metric 'accuracy'; it has .*test_acc"):
        TableOracle("nasbench201", "accuracy")
    with pytest.raises(CGError, match="nasbench999"):
        TableOracle("nasbench999")


def test_a_network_outside_the_table_is_a_failed_query() -> None:
    r = random_search(get_space("nasbench301"), TableOracle("nasbench301"), budget=5)
    assert [q.status for q in r.history.queries] == ["failed"] * 5
    assert "NotInTableError" in r.history.queries[0].error


# -- the surrogate of NAS-Bench-301 --------------------------------------------------------------------------------

def test_darts_v2_in_the_columns_of_the_surrogate() -> None:
    active = darts_settings(DARTS_V2)
    assert {k: v for k, v in active.items() if k.startswith("edge_normal")} == {
        "edge_normal_0": "sep_conv_3x3", "edge_normal_1": "sep_conv_3x3", "edge_normal_2": "sep_conv_3x3",
        "edge_normal_3": "sep_conv_3x3", "edge_normal_5": "skip_connect", "edge_normal_6": "sep_conv_3x3",
        "edge_normal_9": "skip_connect", "edge_normal_11": "dil_conv_3x3"}
    assert {k: v for k, v in active.items() if k.startswith("inputs")} == {
        "inputs_node_normal_3": "0_1", "inputs_node_normal_4": "0_1", "inputs_node_normal_5": "0_2",
        "inputs_node_reduce_3": "1_2", "inputs_node_reduce_4": "0_2", "inputs_node_reduce_5": "1_2"}
    assert active.keys() <= set(darts_columns())
    swapped = "1:3 0:3" + DARTS_V2[7:]
    assert darts_settings(swapped) == active, "the order of a node's edges means nothing"


def test_the_columns_are_in_numeric_order() -> None:
    columns = darts_columns()
    assert len(columns) == len(set(columns)) == 34
    assert columns[:3] == ("edge_normal_0", "edge_normal_1", "edge_normal_2")
    assert columns[14] == "edge_reduce_0"
    assert columns[28] == "inputs_node_normal_3"


@pytest.mark.parametrize(("text", "message"), [
    ("0:1 1:2", "has 16 input:op tokens"), (DARTS_V2.replace("0:3 1:3", "0:3 0:3", 1), "two different inputs"),
    (DARTS_V2.replace("1:3", "2:3", 1), "inputs below 2"), (DARTS_V2.replace("0:3", "0:7", 1), "ops below 7")])
def test_genotypes_that_are_none_are_refused(text: str, message: str) -> None:
    with pytest.raises(OracleError, match=message):
        darts_settings(text)


@needs_surrogate
def test_the_surrogate_gives_its_published_outputs() -> None:
    pytest.importorskip("onnxruntime")
    oracle = SurrogateOracle()
    with gzip.open(NB301 / "nasbench301.csv.gz", "rt", newline="") as f:
        rows = list(csv.DictReader(f))[::100]
    assert len(rows) > 100
    off = [abs(oracle(r["genotype"]) - float(r["val_acc_yahpo_e98"])) for r in rows]
    assert max(off) < 1e-4, "the file is rounded to four decimals"
    assert oracle.describe() == {"kind": "surrogate", "name": "yahpo-nb301", "epoch": 98.0}
    genome = get_space("nasbench301").decode(rows[0]["genotype"])
    assert oracle(genome) == oracle(rows[0]["genotype"])


@needs_surrogate
def test_shorter_training_gives_a_lower_accuracy() -> None:
    pytest.importorskip("onnxruntime")
    assert SurrogateOracle(epoch=10)(DARTS_V2) < SurrogateOracle(epoch=98)(DARTS_V2) - 1
    with pytest.raises(OracleError, match="epoch must be 1 to 98"):
        SurrogateOracle(epoch=99)


def test_an_absent_surrogate_says_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CGTRANSFER_SHARED", str(tmp_path))
    with pytest.raises(StorageError, match=r"no surrogate at .*surrogate_yahpo\.onnx; set CGTRANSFER_SHARED"):
        SurrogateOracle()


def test_a_damaged_surrogate_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "surrogate_yahpo.onnx").write_bytes(b"not a model")
    (tmp_path / "surrogate_encoding.json").write_text(json.dumps({}))
    with pytest.raises(StorageError, match=r"cannot read .*surrogate_yahpo\.onnx"):
        SurrogateOracle(tmp_path)


@needs_surrogate
def test_a_damaged_encoding_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    shutil.copy(NB301 / "surrogate_yahpo.onnx", tmp_path)
    for text in ("{", "{}"):
        (tmp_path / "surrogate_encoding.json").write_text(text)
        with pytest.raises(StorageError, match=r"cannot read .*surrogate_encoding\.json"):
            SurrogateOracle(tmp_path)


def test_a_missing_onnxruntime_names_the_install_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "surrogate_yahpo.onnx").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(OracleError, match=r"pip install 'cgtransfer\[onnx\]'"):
        SurrogateOracle(tmp_path)
