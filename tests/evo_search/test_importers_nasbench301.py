"""The importer of NAS-Bench-301, on small folders of runs of the official layout and on damaged ones; and the command."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from cg.errors import CGError, StorageError
from evo_search import tables
from evo_search.importers import import_nasbench301
from evo_search.importers.__main__ import main

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



def test_command_writes_a_table_or_says_why_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = _folder301(tmp_path / "runs", [_run301(94.0, 93.0)]), tmp_path / "t.npz"
    assert main(["nasbench301", str(folder), "-o", str(out), "--fidelity", "8", "32", "100"]) == 0
    assert tables.read(out).lookup(GENOME301) == 94.0
    assert "1 rows" in capsys.readouterr().out
    assert main(["nasbench101", str(tmp_path / "absent"), "-o", str(tmp_path / "no.npz")]) == 1
    assert "no such file" in capsys.readouterr().err
    assert not (tmp_path / "no.npz").exists()
