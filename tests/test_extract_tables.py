"""The tables on extraction are what the results say; a result that is not there leaves its lines out."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import _extract_tables  # noqa: E402  (a script, not a package)
import readme_tables  # noqa: E402


def write(folder: Path, name: str, body: Any) -> None:
    (folder / f"{name}.json").write_text(json.dumps(body))


def group(models: int, extracted: int, **more: Any) -> dict[str, Any]:
    return {"models": models, "extracted": extracted, "without_unknown": extracted - 1, **more}


def lines_of(name: str, folder: Path) -> list[str]:
    text = readme_tables.render(f"<!-- results:{name} -->\n<!-- /results:{name} -->\n", folder)
    return [line for line in text.splitlines() if line.startswith("|")][2:]


@pytest.mark.parametrize("name", list(_extract_tables.TABLES))
def test_no_results_no_table(name: str, tmp_path: Path) -> None:
    assert _extract_tables.TABLES[name](tmp_path)[1] == []
    assert lines_of(name, tmp_path) == []


def test_reach_of_a_set_and_its_groups(tmp_path: Path) -> None:
    seconds = {"median": 0.25, "p95": 0.5, "max": 12.345}
    write(tmp_path, "extract_reach-torchvision", {
        "totals": group(10, 9, params_equal=8, params_compared=9, seconds=seconds),
        "groups": {"classification": group(4, 4, seconds=seconds), "detection": group(6, 5)}})
    first, second, third = lines_of("extract_reach", tmp_path)
    assert first == "| torchvision | 9 of 10 (90 %) | 8 of 10 (80 %) | 8 of 9 (88.9 %) | 0.25 | 0.50 | 12 | – |"
    assert second.startswith("| … classification | 4 of 4 (100 %) | 3 of 4 (75 %) | – |")
    assert third == "| … detection | 5 of 6 (83.3 %) | 4 of 6 (66.7 %) | – | – | – | – | – |"
    goals = lines_of("extract_goals", tmp_path)
    assert "| torchvision, classification | 4 of 4 (100 %) | 100 % | yes |" in goals
    assert "| torchvision, the rest | 5 of 6 (83.3 %) | ≥ 90 % | **no** |" in goals
    assert "| parameters as the framework counts | 8 of 9 (88.9 %) | 100 % | **no** |" in goals


def test_speed_beside_peers(tmp_path: Path) -> None:
    tool = {"models": 120, "covered": 118, "median_s": 2.5, "max_s": 40.1,
            "times_ours": {"median": 25.04, "median_of_cpu_time": 24.0},
            "peak_rss_over_import_mb": {"median": 30.4, "max": 1200.2}}
    write(tmp_path, "extract_speed", {"tools": {"export_core": tool, "torchview": {"skipped": "torchview is not installed"}}})
    assert lines_of("extract_speed", tmp_path) == [
        "| `torch.export` + core ATen decompositions | 118 of 120 | 2.50 | 40 | 25.0 | 24.0 | 30 MB | 1,200 MB |",
        "| torchview | torchview is not installed | – | – | – | – | – | – |"]
    assert "| 25 × | ≥ 8 × | yes |" in lines_of("extract_goals", tmp_path)[0]


def test_laws_leave_out_ways_that_do_not_exist(tmp_path: Path) -> None:
    write(tmp_path, "extract_laws", {"totals": {"fx": {"equal": 50, "no_way": 10}, "legacy": {"equal": 58, "different": 2}}})
    assert lines_of("extract_laws", tmp_path) == [
        "| PyTorch ↔ torch.fx | 50 of 50 (100 %) | 0 | 10 |",
        "| PyTorch ↔ ONNX, legacy exporter | 58 of 60 (96.7 %) | 2 | 0 |"]
    assert [line.rsplit("|", 2)[1].strip() for line in lines_of("extract_goals", tmp_path)] == ["yes", "**no**"]
