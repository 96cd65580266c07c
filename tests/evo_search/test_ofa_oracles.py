"""Once-for-All sub-networks and their surrogates: text, chains, published values, errors."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cg.errors import CGError, StorageError
from evo_search.ofa import FAMILIES, METRICS, AutoBuildOracle, SubNet, TutorialOracle
from evo_search.oracles import Oracle, OracleError, shared_folder
from finetune.metrics import spearman

FOLDER = shared_folder() / "data" / "ofa"
needs_shared = pytest.mark.skipif(not FOLDER.is_dir(), reason="the weights (../shared/data/ofa) are not here")
PN = ("3-5-7-0-3-7-7-0-3-5-7-0-3-7-3-3-5-7-0-0-7-0-0-0,4-4-6-0-6-6-6-0-6-3-3-0-6-3-3-3-4-6-0-0-3-0-0-0,3-3-3-4-2-1,192")


def published(family: str, step: int) -> tuple[list[SubNet], dict[str, np.ndarray]]:
    with gzip.open(FOLDER / f"ofa_{family}_oracle_20k.csv.gz", "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[::step]
    nets = [SubNet.parse(f"{r['ks']},{r['e']},{r['d']},{r['r']}") for r in rows]
    return nets, {k: np.array([float(r[k]) for r in rows]) for k in rows[0] if k not in ("ks", "e", "d", "r")}


@needs_shared
@pytest.mark.parametrize("family", FAMILIES)
def test_oracles_agree_with_the_published_values_in_shared(family: str) -> None:
    nets, expected = published(family, 40)
    for metric in METRICS:
        column = "autobuild_top1" if metric == "top1" else f"autobuild_{metric}_ms"
        np.testing.assert_allclose(AutoBuildOracle(family, metric).many(nets), expected[column], atol=1e-3)
    column = "ofa_tutorial_top1" if family == "mbv3" else "blockprofile_top1"
    np.testing.assert_allclose(TutorialOracle(family).many(nets), expected[column], atol=1e-3)


@needs_shared
def test_many_is_one_by_one_and_reads_text_in_shared() -> None:
    nets, _ = published("pn", 2500)
    oracle = AutoBuildOracle("pn", "latency_gpu")
    together = oracle.many(nets)
    np.testing.assert_allclose([oracle(n) for n in nets], together)
    np.testing.assert_allclose(oracle.many([str(n) for n in nets[::-1]]), together[::-1])
    assert oracle.many([]).shape == (0,)
    assert AutoBuildOracle("pn")(PN) == pytest.approx(74.6253, abs=1e-3)


@needs_shared
def test_surrogates_rank_measured_networks_in_shared() -> None:
    with gzip.open(FOLDER / "ofa_mbv3_measured_top1.csv.gz", "rt", encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if r["r"] == "224"][::10]
    nets = [SubNet.parse(f"{r['ks']},{r['e']},{r['d']},{r['r']}") for r in rows]
    top1 = [float(r["top1"]) for r in rows]
    assert spearman(top1, AutoBuildOracle("mbv3").many(nets)) > 0.98
    assert spearman(top1, TutorialOracle("mbv3").many(nets)) > 0.96


@needs_shared
def test_oracles_say_what_they_cannot_read_in_shared() -> None:
    oracle, net = AutoBuildOracle("pn"), SubNet.parse(PN)
    assert isinstance(oracle, Oracle)
    small = SubNet(net.ks, net.e, net.d, 160)
    with pytest.raises(OracleError, match=r"r = 160 .* 192, 208, 224 only"):
        oracle(small)
    assert 60 < TutorialOracle("pn")(small) < TutorialOracle("pn")(net)
    with pytest.raises(OracleError, match="family mbv3"):
        AutoBuildOracle("mbv3")(net)
    said = [AutoBuildOracle("pn", m).describe() for m in METRICS] + [TutorialOracle("pn").describe()]
    assert len({str(d) for d in said}) == len(said)


def test_missing_weights_and_unknown_names_are_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no surrogate at"):
        AutoBuildOracle("pn", folder=tmp_path)
    (tmp_path / "oracle_ofa_mbv3_acc_mlp.npz").write_bytes(b"no archive")
    with pytest.raises(StorageError, match="cannot read"):
        TutorialOracle(folder=tmp_path)
    with pytest.raises(OracleError, match="no OFA family 'resnet'"):
        AutoBuildOracle("resnet")
    with pytest.raises(OracleError, match="no metric 'energy'"):
        AutoBuildOracle("pn", "energy")


def test_text_is_read_back_and_absent_blocks_do_not_count() -> None:
    net = SubNet.parse(PN)
    assert str(net) == PN
    assert (net.family, net.d, net.r, len(net.blocks())) == ("pn", (3, 3, 3, 4, 2, 1), 192, 16)
    full = SubNet.of([k or 5 for k in net.ks], [e or 4 for e in net.e], net.d, net.r)
    assert full == net
    assert hash(full) == hash(net)


@pytest.mark.parametrize(("field", "value", "message"), [
    ("d", (3, 3, 3, 4, 5, 1), r"d\[4\] = 5, must be one of \(2, 3, 4\)"), ("d", (3, 3, 3, 4, 2, 2), r"d\[5\] = 2"),
    ("d", (3, 3, 3), "3 stages; mbv3 has 5 and pn has 6"), ("ks", (3,) * 20, "ks has 20 entries, 6 stages need 24"),
    ("ks", (4,) * 24, r"ks\[0\] = 4"), ("e", (5,) * 24, r"e\[0\] = 5"), ("r", 225, "r = 225")])
def test_impossible_networks_are_refused(field: str, value: Any, message: str) -> None:
    net = SubNet.parse(PN)
    parts = {"ks": net.ks, "e": net.e, "d": net.d, "r": net.r, field: value}
    with pytest.raises(CGError, match=message):
        SubNet(**parts)


def test_direct_form_refuses_values_of_absent_blocks() -> None:
    net = SubNet.parse(PN)
    with pytest.raises(CGError, match=r"ks\[3\] = 3, must be one of \(0,\)"):
        SubNet((*net.ks[:3], 3, *net.ks[4:]), net.e, net.d, net.r)


@pytest.mark.parametrize("text", ["", "3-5,4-4,3-3", "a-b,1,1,1", PN.replace("192", "big")])
def test_other_text_is_one_clear_error(text: str) -> None:
    with pytest.raises(CGError, match="is not '<ks>,<e>,<d>,<r>'"):
        SubNet.parse(text)


def test_chains_hold_the_blocks_in_order() -> None:
    net = SubNet.parse(PN)
    cell = net.cell()
    assert cell.ops[:3] == ("input", "stage0_mbconv_k3_e4", "stage0_mbconv_k5_e4")
    assert (cell.ops[-2:], len(cell.ops)) == (("stage5_mbconv_k7_e3", "output"), 18)
    fixed = net.positions()
    assert (len(fixed.ops), fixed.ops[2:5]) == (21, ("mbconv_k7_e6", "skip", "mbconv_k3_e6"))
    assert fixed.ops.count("skip") == 5
    assert fixed.edges == tuple((i, i + 1) for i in range(20))
    mobile = SubNet.of(net.ks[:20], net.e[:20], net.d[:5], 224)
    assert (mobile.family, len(mobile.positions().ops)) == ("mbv3", 20)
