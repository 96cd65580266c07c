"""Every way into ``from_torch`` gives the same graph, and says which way it was."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from extract import Extraction, ExtractionError, from_torch  # noqa: E402
from extract.zoo import import_torchvision  # noqa: E402


def resnet() -> nn.Module:
    return import_torchvision().models.resnet18(weights=None).eval()


def mobilenet() -> nn.Module:
    return import_torchvision().models.mobilenet_v3_small(weights=None).eval()


class Encoder(nn.Module):
    """Tokens, positions from ``arange``, a number that is read, attention."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.position = nn.Embedding(50, 16), nn.Embedding(64, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.embed(tokens) + self.position(places)
        x = self.layer(x * places.max().item())  # a number that depends on no input
        return self.head(x.mean(1))


TOKENS = torch.arange(8)[None]
MODELS: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "resnet18": (resnet, torch.zeros(1, 3, 64, 64)), "mobilenet_v3": (mobilenet, torch.zeros(1, 3, 64, 64)),
    "encoder": (Encoder, TOKENS),
}
WAYS: dict[str, tuple[str, Callable[[nn.Module, Any], Any]]] = {
    "factory": ("dispatch", lambda model, x: lambda: model),
    "compiled": ("dispatch", lambda model, x: torch.compile(model)),
    "fx": ("fx", lambda model, x: torch.export.export(model, (x,)).module()),
    "exported": ("exported program", lambda model, x: torch.export.export(model, (x,))),
    "traced": ("script", lambda model, x: torch.jit.trace(model, x, check_trace=False)),
    "scripted": ("script", lambda model, x: torch.jit.script(model)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore")  # of torch.jit
def test_each_way_gives_the_same_graph(name: str, way: str) -> None:
    if name != "encoder" and find_spec("torchvision") is None:
        pytest.skip("needs torchvision")
    if (name, way) == ("encoder", "scripted"):
        pytest.skip("TorchScript does not compile the layer")
    build, x = MODELS[name]
    model = build().eval()
    expected = from_torch(model, x)
    assert expected.way == "dispatch"
    said, convert = WAYS[way]
    found = from_torch(convert(model, x), x)
    assert found.way == said
    assert found.graph.digest == expected.graph.digest
    assert found.graph.params == expected.graph.params > 0
    assert not found.unknown


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch copies its own modules with something it deprecated
def test_an_exported_program_brings_its_inputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor, *, scale: torch.Tensor) -> torch.Tensor:
            return self.layer(x) * scale

    x, scale = torch.zeros(2, 4), torch.ones(2, 3)
    program = torch.export.export(Two(), (x,), {"scale": scale})
    found = from_torch(program)
    assert found.way == "exported program"
    assert (found.graph.name, sorted(found.graph.ops)) == ("Two", ["Gemm", "Input", "Input", "Mul"])
    batch = torch.export.Dim("batch")
    free = torch.export.export(nn.Linear(4, 3), (x,), dynamic_shapes=({0: batch},))
    assert from_torch(free, (7, 4)).graph.nodes[0].out_shape == (7, 4)
    assert from_torch(free).graph.nodes[0].out_shape == (2, 4)


@pytest.mark.filterwarnings("ignore")
def test_a_script_is_not_touched_and_shares_its_weights_only_with_itself() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    script = torch.jit.script(model)
    before = {k: (v.data_ptr(), v.clone()) for k, v in script.state_dict().items()}
    found = from_torch(script, (2, 4))
    assert found.graph.digest == from_torch(model, (2, 4)).graph.digest
    assert found.graph.params == 16 + 4 + 8 + 4
    assert script.training
    after = script.state_dict()
    assert all(after[k].data_ptr() == place and torch.equal(after[k], value) for k, (place, value) in before.items())
    assert script(torch.zeros(2, 4)).device.type == "cpu"


@pytest.mark.filterwarnings("ignore")
def test_the_constants_of_a_frozen_script_are_its_weights() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)).eval()
    x = torch.zeros(1, 3, 4, 4)
    found = from_torch(torch.jit.freeze(torch.jit.trace(model, x, check_trace=False)), x)
    assert found.graph.digest == from_torch(model, x).graph.digest
    assert "frozen" in found.notes[0]


class Reads(nn.Module):
    """``rule(self, x)`` of a linear layer, where the rule may read values."""

    def __init__(self, rule: Callable[[Any, torch.Tensor], Any]) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("places", torch.arange(4))
        self.register_buffer("flag", torch.tensor([False, True]))
        self.bound = torch.tensor([3, 1])
        self.zeros = nn.Parameter(torch.zeros(4))
        self.rule = rule

    def forward(self, x: torch.Tensor, n: torch.Tensor | None = None) -> torch.Tensor:
        return self.rule(self, x if n is None else n)


def rows(m: Any, x: torch.Tensor, n: int) -> Any:
    return m.layer(torch.cat([x[:1]] * n))


KNOWN: dict[str, Callable[[Any, torch.Tensor], Any]] = {
    "item of a buffer": lambda m, x: rows(m, x, m.places.max().item()),
    "a branch on a buffer": lambda m, x: rows(m, x, 3 if m.flag.any() else 5),
    "int of an attribute": lambda m, x: rows(m, x, int(m.bound[0])),
    "tolist": lambda m, x: rows(m, x, m.bound.tolist()[0]),
    "numpy": lambda m, x: rows(m, x, int(m.bound.numpy()[0])),
    "a tensor of a list": lambda m, x: rows(m, x, int(torch.tensor([7, 3], device=x.device)[1])),
    "a tensor of a list of tensors": lambda m, x: rows(m, x, int(torch.tensor([m.bound[0], 2], device=x.device)[0])),
    "an index that is a list": lambda m, x: rows(m, x, int(m.places[[0, 3]][1])),
    "what a write leaves": lambda m, x: rows(m, x, int(m.places.clone().fill_(3).sum()) // 4),
    "a part of a tensor written to": lambda m, x: rows(m, x, int(_with(m.places.clone(), 3)[:2].sum()) - 1),
    "shape of something unknown": lambda m, x: rows(m, x, int(torch.ones_like(x).sum()) - 1),
    "moved to the CPU": lambda m, x: rows(m, x, int(m.bound.cpu()[0])),
    "a loop over positions": lambda m, x: rows(m, x, 2 + sum(int(i) for i in m.flag.nonzero())),
    "a check": lambda m, x: (torch._check_tensor_all(x > -1), rows(m, x, int(m.bound[0])))[1],
}


def _with(tensor: torch.Tensor, first: int) -> torch.Tensor:
    tensor[0] = first
    return tensor


@pytest.mark.parametrize("build", ["module", "factory"])
@pytest.mark.parametrize("rule", KNOWN)
def test_values_that_follow_from_settings_are_worked_out(rule: str, build: str) -> None:
    found = from_torch(Reads(KNOWN[rule]) if build == "module" else lambda: Reads(KNOWN[rule]), (1, 4))
    assert found.way == "dispatch"
    assert found.graph.digest == from_torch(Reads(lambda m, x: rows(m, x, 3)), (1, 4)).graph.digest
    assert "run with the values of small tensors" in found.notes[0]
    assert not any("depends on the inputs" in note for note in found.notes)


def test_values_of_example_inputs_are_used_and_told() -> None:
    model = Reads(lambda m, n: m.layer(torch.ones(int(n.sum()), 4) * n.float().mean()))
    found = from_torch(model, {"x": (1, 4), "n": torch.tensor([2, 3])})
    assert found.graph.nodes[-1].out_shape == (5, 4)
    assert any("reads the value of a tensor that depends on the inputs" in note for note in found.notes)
    with pytest.raises(ExtractionError, match="give small integer inputs as real tensors"):
        from_torch(model, {"x": (1, 4), "n": torch.empty(2, dtype=torch.long, device="meta")})


def test_a_known_mask_keeps_as_many_rows_as_it_holds_true() -> None:
    def masked(m: Any, x: torch.Tensor) -> Any:
        return m.layer(x)[:, m.places > 1]

    assert from_torch(Reads(masked), (1, 4)).graph.nodes[-1].out_shape == (1, 2)
    assert from_torch(lambda: Reads(masked), (1, 4)).graph.nodes[-1].out_shape == (1, 2)


@pytest.mark.parametrize("rule", [
    lambda m, x: rows(m, x, 3 + int(m.zeros.sum())), lambda m, x: rows(m, x, 3 + int(m.zeros.data.sum())),
    lambda m, x: rows(m, x, 3 + int(m.zeros.detach().sum())), lambda m, x: rows(m, x, int(m.layer(x).sum())),
    lambda m, x: rows(m, x, int(m.places.float().add_(m.zeros).sum()) // 2),
    lambda m, x: rows(m, x, int(torch.rand(3, device=x.device).sum())),
], ids=["weight", "data of a weight", "detached weight", "result", "written with a weight", "random"])
@pytest.mark.parametrize("build", ["module", "factory"])
def test_what_is_not_known_is_not_made_up(rule: Any, build: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ExtractionError, match=r"in Reads: .*needs the value of a tensor.* torch.export, tried next, says"):
        from_torch(Reads(rule) if build == "module" else lambda: Reads(rule), (1, 4))
    assert "def forward" not in capfd.readouterr().err  # torch.export prints what it had so far


def test_what_is_written_to_is_forgotten() -> None:
    def rule(m: Any, x: torch.Tensor) -> Any:
        counts = m.places.float()
        part = counts[1:]
        part.copy_(m.layer(x)[0, 1:])
        return rows(m, x, int(counts.sum()))

    with pytest.raises(ExtractionError, match="needs the value of a tensor"):
        from_torch(Reads(rule), (1, 4))


class Careful(nn.Module):
    """Looks at its weights when it is run, and not when it is compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not torch.compiler.is_compiling() and self.layer.weight.isnan().any():
            raise ValueError
        return F.relu(self.layer(x))


def test_what_dispatch_cannot_do_goes_through_export() -> None:
    for model in (Careful(), Careful):
        found: Extraction = from_torch(model, (1, 4))
        assert found.way == "export"
        assert found.graph.ops == ["Input", "Gemm", "Relu"]
        assert (found.graph.params, found.graph.name) == (20, "Careful")
        assert "traced through torch.export, because the model reads the value of a tensor in Careful" in found.notes[0]


@pytest.mark.parametrize("name", ["m.pt", "m.pth", "m.pt2", "m.ckpt"])
def test_pickles_are_refused_unopened(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    with pytest.raises(ExtractionError, match=r"can run any code.*weights_only=True"):
        from_torch(tmp_path / name, (1, 4))
    assert not (tmp_path / "ran").exists()


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(ExtractionError, match="takes a model, not the text 'resnet50'"):
        from_torch("resnet50", (1, 3, 8, 8))
    with pytest.raises(ExtractionError, match="example_inputs is missing"):
        from_torch(nn.Linear(2, 2))
    script = torch.jit.script(nn.Linear(4, 4))
    stream = io.BytesIO()
    torch.jit.save(script, stream)
    stream.seek(0)
    assert from_torch(torch.jit.load(stream, map_location="meta"), (1, 4)).graph.ops == ["Input", "Gemm"]


def test_an_interpreter_is_not_exported() -> None:
    class Interpreter(Reads):
        may_be_exported = False

    with pytest.raises(ExtractionError) as caught:
        from_torch(Interpreter(lambda m, x: rows(m, x, int(m.layer(x).sum()))), (1, 4))
    assert "needs the value of a tensor" in str(caught.value)
    assert "torch.export" not in str(caught.value)


def test_numbers_of_the_model_are_not_changed_by_working_out_values() -> None:
    def rule(m: Any, x: torch.Tensor) -> Any:
        here = torch.tensor([1, 2])
        there = here.to(x.device)
        there.add_(m.places[:2]).add_(5)
        assert here.tolist() == [1, 2]
        return rows(m, x, int(there[0]) - int(here[0]) - 2)

    model = Reads(rule)
    assert from_torch(model, (1, 4)).graph.nodes[-1].out_shape == (3, 4)
    assert model.places.tolist() == [0, 1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["dispatch", "export"])
def test_a_model_of_a_billion_parameters_takes_no_memory(way: str) -> None:
    pytest.importorskip("resource")
    if find_spec("timm") is None:
        pytest.skip("needs timm")
    code = f"""
import resource, warnings
warnings.simplefilter("ignore")
from extract.zoo import load
model = load("timm:eva02_enormous_patch14_clip_224")
from extract.torch_frontend import _run
from extract.torch_exported import exported
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
build = model.factory if {way!r} == "dispatch" else exported(model.factory, model.inputs)
graph = _run(build, model.inputs, {way!r}, "", "")[0].graph
assert graph.params > 4e9
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2 ** 20)
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=root)
    assert float(done.stdout) < 1, "more than 1 GB over the import"
