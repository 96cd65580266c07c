"""``cg extract``: a model on the import path to a Parquet file; one clear line for each mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("torch")

from cg import GraphSet
from cg.cli import build
from extract.cli import register

MODEL = """
from torch import nn
def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(9, 4)
    def forward(self, x):
        return self.embed(x).sort(1).indices, nn.functional.hardshrink(self.embed(x))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "model_for_command.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_extract_writes_a_graph(folder: Path) -> None:
    result = CliRunner().invoke(build([register]), ["extract", "model_for_command:build", "-o", "g.parquet", "--input-shape",
                                                    "1,3,8,8", "--family", "mine", "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    graph = GraphSet.read(folder / "g.parquet")[0]
    assert graph.ops == ["Input", "Conv", "Relu", "Gemm"]
    assert (graph.name, graph.family) == ("model_for_command:build", "mine")
    assert (told["nodes"], told["params"], told["fingerprint"]) == (4, graph.params, graph.digest)


def test_integer_input_and_unknown_operators_are_told(folder: Path) -> None:
    result = CliRunner().invoke(build([register]), ["extract", "model_for_command:Tokens", "-o", "g.parquet",
                                                    "--input-shape", "1,5:int64"])
    assert result.exit_code == 0, result.output
    assert "warning: 1 nodes are Unknown: hardshrink" in result.stderr
    assert sorted(GraphSet.read(folder / "g.parquet")[0].ops) == ["Embedding", "Embedding", "Input", "TopK", "Unknown"]


@pytest.mark.parametrize(("model", "shape", "message"), [
    ("model_for_command", "1,3,8,8", "is not package.module:name"),
    ("no_such_module:build", "1,3,8,8", "cannot import 'no_such_module'"),
    ("model_for_command:nothing", "1,3,8,8", "has no 'nothing'"),
    ("model_for_command:build", "1x3", "must be integers joined by commas"),
    ("model_for_command:Tokens", "1,5:int65", "no number format 'int65'"),
    ("model_for_command:build", "1,4,8,8", "module '0' (Conv2d)"),
])
def test_mistakes_give_one_line_and_write_nothing(folder: Path, model: str, shape: str, message: str) -> None:
    result = CliRunner().invoke(build([register]), ["extract", model, "-o", "g.parquet", "--input-shape", shape])
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (folder / "g.parquet").exists()
