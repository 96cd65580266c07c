"""The benchmark of zero-cost proxies: its networks, images and criteria; its tables are what the results say."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import _proxies_tables  # noqa: E402  (a script, not a package)
import _record  # noqa: E402
import proxies as benchmark  # noqa: E402

from finetune.proxies import PROXIES  # noqa: E402


def test_networks_are_valid_labelled_and_a_smaller_number_is_a_prefix() -> None:
    from evo_search import get_space, tables

    encoded, y, metric = benchmark.networks("nasbench201", 40)
    assert metric == "test_acc"
    assert len(set(encoded)) == 40
    assert all(get_space("nasbench201").is_valid(get_space("nasbench201").decode(e)) for e in encoded)
    assert [tables.load("nasbench201").lookup(e) for e in encoded] == list(y)
    assert benchmark.networks("nasbench201", 10)[0] == encoded[:10]


def test_images_are_normalised_and_small_ones_are_means_of_four_pixels(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CGTRANSFER_SHARED", str(shared))
    large, classes = benchmark.images(32, 64)
    small, again = benchmark.images(16, 64)
    assert large.shape == (64, 3, 32, 32)
    assert small.shape == (64, 3, 16, 16)
    assert abs(float(large.mean())) < 0.3
    assert 0.8 < float(large.std()) < 1.2
    assert classes.tolist() == again.tolist()
    np.testing.assert_allclose(small[5, 2, 3, 7], large[5, 2, 6:8, 14:16].mean(), rtol=1e-5)


def test_a_run_goes_on_and_reads_back_what_it_wrote(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from finetune import proxies

    monkeypatch.setenv("CGTRANSFER_SHARED", str(shared))
    monkeypatch.setattr(_record, "ROOT", tmp_path)
    monkeypatch.setattr(_record, "RESULTS", tmp_path)
    calls = []
    monkeypatch.setattr(proxies, "measure", lambda g, names, x, y, **k: calls.append(x.shape) or {
        n: float("nan") if n == "naswot" else g.n_nodes + i for i, n in enumerate(PROXIES)})
    benchmark.measure_all("nasbench101", 16, 3)
    with (tmp_path / "runs" / "proxies-nasbench101-16.jsonl").open("a") as file:
        file.write('{"netw\n')
    benchmark.measure_all("nasbench101", 16, 5)
    assert calls == [(16, 3, 16, 16)] * 5
    encoded, y, values = benchmark.read("nasbench101")  # type: ignore[misc]
    expected = benchmark.networks("nasbench101", 5)
    assert encoded == expected[0]
    np.testing.assert_allclose(y, expected[1], rtol=1e-5)
    assert np.isnan(values["naswot"]).all()
    np.testing.assert_array_equal(values["macs"] - values["params"], 1)
    assert list(values) == [*PROXIES, "seconds"]
    assert gzip.decompress((tmp_path / "proxies-nasbench101.csv.gz").read_bytes()).count(b"\n") == 6
    assert benchmark.read("nasbench201") is None


def test_criteria_and_missing_values() -> None:
    y, rng = np.arange(100.0), np.random.default_rng(0)
    found = benchmark.correlations(y[rng.permutation(100)], np.zeros(100))
    assert found["spearman"] == found["kendall_std"] == 0
    found = benchmark.correlations(y, np.r_[y[:80], -y[80:]])
    assert found["spearman_mean"] == pytest.approx(0.6)  # four fifths in order, one in reverse
    assert found["spearman_std"] == pytest.approx(np.std([1, 1, 1, 1, -1], ddof=1))
    assert list(benchmark.ranked(np.array([3.0, np.nan, -2.0]))) == [3.0, -3.0, -2.0]
    assert list(benchmark.ranked(np.array([np.nan]))) == [-1.0]


@pytest.mark.parametrize("name", list(_proxies_tables.TABLES))
def test_no_results_no_lines(name: str, tmp_path: Path) -> None:
    assert _proxies_tables.TABLES[name](tmp_path)[1] == []


def test_lines_are_what_the_results_say(tmp_path: Path) -> None:
    def figure(value: float) -> dict[str, float]:
        return {"spearman": value, "spearman_std": 0.01, "kendall": -value, "kendall_std": 0.02}

    def row(name: str, n: int, value: float | None) -> dict[str, Any]:
        return {"predictor": name, "n_labels": n, "spearman": value, "spearman_std": None if value is None else 0.1}

    at_32 = {"params": {"agreement": 1, "spearman_16": 1, "spearman_32": 1},
             "zen": {"agreement": 0.9, "spearman_16": 0.5, "spearman_32": 0.6}}
    spaces = {"nasbench201": {"proxies": {"zen": figure(0.3), "snip": figure(0.8)}, "few_labels": []},
              "nasbench101": {"proxies": {"zen": figure(0.9), "snip": figure(0.1)}, "at_32": {"proxies": at_32}, "few_labels": [
                  row("trees", 20, 0.5), row("trees", 50, None), row("default", 20, 0.4), row("default", 50, 0.6)]}}
    (tmp_path / "proxies.json").write_text(json.dumps({"spaces": spaces}))
    tables = {k: f(tmp_path) for k, f in _proxies_tables.TABLES.items()}
    assert tables["proxies_spearman"] == (("proxy", "NAS-Bench-101", "NAS-Bench-201"), [
        ("`zen`", "0.90 ± 0.01", "0.30 ± 0.01"), ("`snip`", "0.10 ± 0.01", "0.80 ± 0.01")])
    assert tables["proxies_kendall"][1][0] == ("`snip`", "-0.10 ± 0.02", "-0.80 ± 0.02")
    assert tables["proxies_sizes"][1] == [("NAS-Bench-101", "`zen`", "0.90", "0.50", "0.60")]
    assert tables["proxies_labels_nasbench101"] == (("predictor", "20 labels", "50 labels"), [
        ("`default`", "0.400 ± 0.100", "0.600 ± 0.100"), ("`trees`", "0.500 ± 0.100", "fails")])
    assert tables["proxies_labels_nasbench201"][1] == []
