"""``cg extract``: a model on the import path to a Parquet file; one clear line for each mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")

import extract  # noqa: E402
from cg import CGError, GraphSet  # noqa: E402
from cg.cli import build  # noqa: E402
from extract.cli import parse_inputs, register  # noqa: E402
from extract.zoo import import_torchvision  # noqa: E402

MODEL = """
from torch import nn, special
def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(9, 4)
    def forward(self, x):
        return self.embed(x).sort(1).indices, special.bessel_j0(self.embed(x))
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
    assert "warning: 1 nodes are Unknown: bessel_j0" in result.stderr
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


def run(*arguments: str) -> Any:
    return CliRunner().invoke(build([register]), ["extract", *arguments])


def test_several_models_go_into_one_file_and_a_bad_one_is_told(folder: Path) -> None:
    result = run("model_for_command:build", "model_for_command:nothing", "torch.nn:ReLU", "-o", "g.parquet", "-i", "1,3,8,8")
    assert result.exit_code == 1
    assert [g.name for g in GraphSet.read(folder / "g.parquet")] == ["model_for_command:build", "torch.nn:ReLU"]
    assert "[2/3] error: model_for_command:nothing: model_for_command has no 'nothing'" in result.stderr
    assert "[3/3] torch.nn:ReLU: 2 nodes" in result.stderr
    assert result.stdout == "wrote 2 of 3 graphs to g.parquet\n"


def test_several_models_as_json(folder: Path) -> None:
    result = run("model_for_command:build", "no_such:x", "-o", "g.parquet", "--input", "1,3,8,8", "--json")
    told = json.loads(result.stdout)
    assert result.exit_code == 1
    assert [(g["model"], g["nodes"], g["way"]) for g in told["graphs"]] == [("model_for_command:build", 4, "dispatch")]
    assert told["failed"] == [{"model": "no_such:x", "error": "cannot import 'no_such': No module named 'no_such'"}]
    result = run("no_such:x", "no_such:y", "-o", "h.parquet", "--input", "1,3,8,8", "--json")
    assert result.exit_code == 2
    assert json.loads(result.stdout)["graphs"] == []
    assert not (folder / "h.parquet").exists()


def test_inputs_by_name_and_number_format(folder: Path) -> None:
    assert run("model_for_command:build", "-o", "g.parquet", "--input", "input=2,3,8,8").exit_code == 0
    assert GraphSet.read(folder / "g.parquet")[0].nodes[0].out_shape == (2, 3, 8, 8)
    assert parse_inputs(["1,3", "1,4"]) == [(1, 3), (1, 4)]
    by_name = parse_inputs(["x=1,3:float16", "y:0=2,4:int64"])
    assert (by_name["x"].dtype, by_name["x"].is_meta) == (torch.float16, True)
    assert (by_name["y:0"].dtype, tuple(by_name["y:0"].shape)) == (torch.int64, (2, 4))
    assert not by_name["y:0"].is_meta  # its values may be read
    for inputs, message in ((["1,3", "x=1,3"], "name every --input once"), (["x=1,3", "x=1,4"], "name every --input once")):
        with pytest.raises(CGError, match=message):
            parse_inputs(inputs)


@pytest.mark.parametrize(("arguments", "message"), [
    (["model_for_command:build"], "does not tell its inputs; give them, e.g. --input 1,3,224,224"),
    (["a", "b", "--name", "n"], "--name is for one graph"), (["model.onnx"], "model.onnx: no such file"),
    (["model.pt"], "can run any code"), (["model.keras"], "model.keras: no such file"),
    (["timm:nothing*"], "timm has no model 'nothing*'"), (["hf:none/config.json"], "Nothing is downloaded")])
def test_more_mistakes(folder: Path, arguments: list[str], message: str) -> None:
    if arguments[0].startswith(("timm", "hf")):
        import_torchvision()
        pytest.importorskip("timm")
        pytest.importorskip("transformers")
    result = run(*arguments, "-o", "g.parquet")
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (folder / "g.parquet").exists()


def test_a_model_of_a_collection_knows_its_inputs(folder: Path) -> None:
    import_torchvision()
    pytest.importorskip("timm")
    result = run("timm:resnet10t", "torchvision:alexnet", "-o", "g.parquet")
    assert result.exit_code == 0, result.output
    graphs = GraphSet.read(folder / "g.parquet")
    assert [g.name for g in graphs] == ["timm:resnet10t", "torchvision:alexnet"]
    assert graphs[1].params == 61_100_840


def test_an_onnx_file(folder: Path) -> None:
    onnx = pytest.importorskip("onnx")
    x, y = (onnx.helper.make_tensor_value_info(n, 1, ["batch", 3, "h", "w"]) for n in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    onnx.save(onnx.helper.make_model(graph), "net.onnx")
    result = run("net.onnx", "-o", "g.parquet", "--input", "x=1,3,8,8")
    assert result.exit_code == 0, result.output
    found = GraphSet.read(folder / "g.parquet")[0]
    assert (found.name, found.ops, found.nodes[1].out_shape) == ("net", ["Input", "Relu"], (1, 3, 8, 8))
    result = run("net.onnx", "-o", "h.parquet", "--input", "1,3,8,8")
    assert "say which one has the shape, e.g. --input x=1,3,8,8" in result.stderr


def test_a_frozen_tensorflow_graph_is_handed_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def from_tensorflow(model: Any, input_shapes: Any = None, *, name: str = "", family: str = "") -> Any:
        asked.append((model, input_shapes, name, family))
        return extract.from_torch(torch.nn.ReLU(), (1, 2), name=name)

    monkeypatch.setattr(extract, "from_tensorflow", from_tensorflow, raising=False)
    (folder / "frozen.pb").write_bytes(b"")
    (folder / "saved").mkdir()
    (folder / "saved/saved_model.pb").write_bytes(b"")
    assert run("frozen.pb", "saved", "-o", "g.parquet", "--input", "x:0=1,4", "--family", "f").exit_code == 0
    assert asked == [("frozen.pb", {"x:0": (1, 4)}, "frozen", "f"), ("saved", {"x:0": (1, 4)}, "saved", "f")]
