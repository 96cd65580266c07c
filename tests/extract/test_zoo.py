"""Models by name: timm, torchvision, transformers and the import path; nothing is downloaded, nothing in a file is run."""

from __future__ import annotations

import json
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from extract import ExtractionError, from_torch  # noqa: E402
from extract.zoo import Model, import_torchvision, load, matching  # noqa: E402

needs_torchvision = pytest.mark.skipif(find_spec("torchvision") is None, reason="needs torchvision")
needs_timm = pytest.mark.skipif(find_spec("timm") is None, reason="needs timm")
needs_transformers = pytest.mark.skipif(find_spec("transformers") is None, reason="needs transformers")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a download was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def graph_of(model: Model) -> Any:
    return from_torch(model.factory, model.inputs, name=model.name).graph


@needs_timm
def test_timm() -> None:
    model = load("timm:resnet18")
    assert (model.inputs, model.name) == ((1, 3, 224, 224), "resnet18")
    graph = graph_of(model)
    assert (graph.params, graph.nodes[0].out_shape) == (11_689_512, (1, 3, 224, 224))
    assert load("timm:vit_tiny_patch16_384.augreg_in21k_ft_in1k").inputs == (1, 3, 384, 384)
    assert matching("timm:resnet1?t") == ["timm:resnet10t", "timm:resnet14t"]
    with pytest.raises(ExtractionError, match=r"timm has no model 'resnet5'; near are resnet"):
        load("timm:resnet5")
    with pytest.raises(ExtractionError, match="timm has no model 'hf-hub:a/b'"):
        load("timm:hf-hub:a/b")
    with pytest.raises(ExtractionError, match="timm has no model"):
        matching("timm:nothing*")


@needs_torchvision
@pytest.mark.parametrize(("spec", "inputs", "is_run"), [
    ("resnet18", (1, 3, 224, 224), True), ("efficientnet_b7", (1, 3, 600, 600), False),
    ("segmentation/fcn_resnet50", (1, 3, 520, 520), True), ("fcn_resnet50", (1, 3, 520, 520), False),
    ("video/r3d_18", (1, 3, 16, 112, 112), True), ("ssdlite320_mobilenet_v3_large", [[(3, 320, 320)]], False),
    ("optical_flow/raft_small", [(1, 3, 520, 960)] * 2, False)])
def test_torchvision(spec: str, inputs: Any, is_run: bool) -> None:
    model = load(f"torchvision:{spec}")
    assert (model.inputs, model.name) == (inputs, spec.rpartition("/")[2])
    if is_run:
        with torch.device("meta"):
            params = sum(p.numel() for p in model.factory().parameters())
        assert graph_of(model).params == params


@needs_torchvision
def test_torchvision_models_that_do_not_exist() -> None:
    with pytest.raises(ExtractionError, match=r"'video/resnet18'; resnet18 is torchvision:resnet18"):
        load("torchvision:video/resnet18")
    with pytest.raises(ExtractionError, match=r"torchvision has no model 'resnet19'; near are"):
        load("torchvision:resnet19")


@needs_torchvision
def test_torchvision_is_imported_once() -> None:
    assert import_torchvision() is import_torchvision()
    assert torch.ops.torchvision.nms


BERT = {"model_type": "bert", "num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64,
        "vocab_size": 100, "architectures": ["BertForSequenceClassification"], "num_labels": 3}


@needs_transformers
def test_a_configuration_file_gives_the_model_it_names(tmp_path: Path) -> None:
    import_torchvision()
    (tmp_path / "config.json").write_text(json.dumps(BERT))
    for place in (tmp_path, tmp_path / "config.json"):
        model = load(f"hf:{place}")
        assert model.name == "bert:BertForSequenceClassification"
        graph = graph_of(model)
        assert graph.ops.count("Softmax") == 1
        assert graph.nodes[-1].out_shape == (1, 3)
    with torch.device("cpu"):
        real = model.factory()
    assert graph.params == sum(p.numel() for p in real.parameters())


@needs_transformers
@pytest.mark.parametrize("kind", ["gpt2", "t5", "vit", "wav2vec2", "clip"])
def test_a_model_type_has_its_default_configuration(kind: str) -> None:
    import_torchvision()
    model = load(f"hf:{kind}")
    assert model.name.startswith(f"{kind}:")
    graph = graph_of(model)
    assert graph.ops.count("Softmax") >= 12
    assert not graph.unknown


@needs_transformers
@pytest.mark.parametrize(("text", "message"), [
    ("{", "not a JSON file"), ("[]", "field model_type is None"), ('{"model_type": "my_own"}', "field model_type is 'my_own'"),
    ('{"model_type": ["bert"]}', "field model_type is"), ("[" * 100_000, "not a JSON file"),
    ('{"model_type": "bert", "hidden_size": "x"}', "config.json")])
def test_a_bad_configuration_is_one_clear_error(tmp_path: Path, text: str, message: str) -> None:
    import_torchvision()
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ExtractionError, match=message):
        load(f"hf:{tmp_path}")


@needs_transformers
def test_code_beside_a_configuration_is_not_run(tmp_path: Path) -> None:
    import_torchvision()
    (tmp_path / "modeling_own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    settings = {**BERT, "auto_map": {"AutoModel": "modeling_own.Own", "AutoConfig": "modeling_own.Config"},
                "architectures": ["Own"]}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert load(f"hf:{tmp_path}").name == "bert:BertModel"
    assert not (tmp_path / "ran").exists()


@needs_transformers
def test_what_is_neither_file_nor_type(tmp_path: Path) -> None:
    import_torchvision()
    for what in (f"{tmp_path}/none.json", "google/bert-base"):
        with pytest.raises(ExtractionError, match="Nothing is downloaded"):
            load(f"hf:{what}")
    with pytest.raises(ExtractionError, match=r"transformers has no model 'brt'; near are"):
        load("hf:brt")


def test_the_import_path_and_what_is_not_there() -> None:
    model = load("torch.nn:Identity")
    assert (model.factory, model.inputs, model.name) == (torch.nn.Identity, None, "torch.nn:Identity")
    with pytest.raises(ExtractionError, match="cannot import 'no_such'"):
        load("no_such:build")
    with pytest.raises(ExtractionError, match="names no model"):
        load("timm:")


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ExtractionError, match=r"needs the package 'timm'; pip install timm"):
        load("timm:resnet18")
