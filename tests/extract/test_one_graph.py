"""Law 1: one architecture, one graph. Written as modules or spelled out; through PyTorch's and ONNX's ways."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from cg import Graph  # noqa: E402
from extract import Extraction, from_torch  # noqa: E402
from extract.comparison import difference  # noqa: E402

Function = Callable[[Any, Any], Any]
TOKENS, IMAGE = (1, 5, 16), (1, 8, 6, 6)


class Written(nn.Module):
    """A function of itself and of a value that is read by nothing else, with parts by name."""

    def __init__(self, function: Function, **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.function = function

    def forward(self, x: Any) -> Any:
        return torch.exp(self.function(self, torch.relu(x)))


def graph(function: Function, shape: tuple[int, ...] = TOKENS, **parts: Any) -> Graph:
    return from_torch(Written(function, **parts), shape).graph


def weights(*shape: int) -> dict[str, Any]:
    return {"w": nn.Parameter(torch.ones(shape)), "b": nn.Parameter(torch.zeros(shape))}


# ---- spelled out against the layer ------------------------------------------------------------------------------------

ROOT = math.sqrt(2 / math.pi)
ACTIVATIONS: dict[str, tuple[Function, list[Function]]] = {
    "silu": (lambda m, x: F.silu(x), [lambda m, x: x * torch.sigmoid(x), lambda m, x: x.sigmoid().mul_(x)]),
    "mish": (lambda m, x: F.mish(x), [lambda m, x: x * torch.tanh(F.softplus(x))]),
    "gelu": (lambda m, x: F.gelu(x), [
        lambda m, x: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0))), lambda m, x: 0.5 * (x * (1 + torch.erf(x * 0.70710678))),
        lambda m, x: x * ((torch.erf(x / 1.4142135) + 1) / 2), lambda m, x: 0.5 * x + 0.5 * x * torch.erf(x / math.sqrt(2))]),
    "gelu by tanh": (lambda m, x: F.gelu(x, approximate="tanh"), [
        lambda m, x: 0.5 * x * (1 + torch.tanh(ROOT * (x + 0.044715 * torch.pow(x, 3)))),
        lambda m, x: 0.5 * x * (1 + torch.tanh(ROOT * (x + 0.044715 * x * x * x))),
        lambda m, x: 0.5 * x * (1 + torch.tanh(x * 0.7978845608 * (1 + 0.044715 * x * x)))]),
    "hard swish": (lambda m, x: F.hardswish(x), [
        lambda m, x: x * F.relu6(x + 3) / 6, lambda m, x: x * (F.relu6(x + 3) / 6), lambda m, x: x * F.hardsigmoid(x),
        lambda m, x: x * torch.clamp(x + 3, 0, 6) * (1 / 6), lambda m, x: x * torch.clamp(x / 6 + 0.5, 0, 1)]),
    "hard sigmoid": (lambda m, x: F.hardsigmoid(x), [lambda m, x: F.relu6(x + 3) / 6, lambda m, x: (x + 3).clamp(0, 6) / 6]),
    "relu6": (lambda m, x: F.relu6(x.tanh()), [
        lambda m, x: x.tanh().clamp(min=0).clamp(max=6), lambda m, x: torch.minimum(F.relu(x.tanh()), torch.tensor(6.0))]),
    "2 - x": (lambda m, x: 2 - x, [lambda m, x: -x + 2]),
    "x - y": (lambda m, x: x - x.tanh(), [lambda m, x: -x.tanh() + x, lambda m, x: x + x.tanh() * -1]),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_spelled_out(name: str) -> None:
    layer, others = ACTIVATIONS[name]
    for other in others:
        assert difference(graph(layer), graph(other)) is None


def test_quick_gelu_is_not_silu() -> None:
    assert graph(lambda m, x: x * torch.sigmoid(1.702 * x)).op_counts["Swish"] == 0


def moments(x: Any, dim: Any) -> tuple[Any, Any]:
    mean = x.mean(dim, keepdim=True)
    return x - mean, (x - mean).pow(2).mean(dim, keepdim=True)


def by_moments(m: Any, x: Any) -> Any:
    centred, variance = moments(x, -1)
    return m.w * (centred / torch.sqrt(variance + 1e-6)) + m.b


def by_var_mean(m: Any, x: Any) -> Any:
    variance, mean = torch.var_mean(x, -1, keepdim=True, unbiased=False)
    return (x - mean) * torch.rsqrt(variance + 1e-6) * m.w + m.b


def by_squares(m: Any, x: Any) -> Any:
    mean = x.mean(-1, keepdim=True)
    return (x - mean) / ((x * x).mean(-1, keepdim=True) - mean * mean + 1e-6) ** 0.5 * m.w + m.b


def over_channels(m: Any, x: Any) -> Any:
    centred, variance = moments(x, 1)
    return m.w[:, None, None] * (centred / torch.sqrt(variance + 1e-6)) + m.b[:, None, None]


def over_pixels(m: Any, x: Any) -> Any:
    centred, variance = moments(x, (2, 3))
    return centred / torch.sqrt(variance + 1e-5) * m.w[:, None, None] + m.b[:, None, None]


def in_groups(m: Any, x: Any) -> Any:
    return F.instance_norm(x.reshape(1, 2, -1)).reshape(x.shape) * m.w[:, None, None] + m.b[:, None, None]


@pytest.mark.parametrize(("layer", "spelled", "shape"), [
    (nn.LayerNorm(16), by_moments, TOKENS), (nn.LayerNorm(16), by_var_mean, TOKENS), (nn.LayerNorm(16), by_squares, TOKENS),
    (nn.InstanceNorm2d(8, affine=True), over_pixels, IMAGE), (nn.GroupNorm(2, 8), in_groups, IMAGE),
], ids=["moments", "var_mean", "squares", "over pixels", "in groups"])
def test_norm_spelled_out(layer: nn.Module, spelled: Function, shape: tuple[int, ...]) -> None:
    expected = graph(lambda m, x: m.layer(x), shape, layer=layer)
    found = graph(spelled, shape, **weights(shape[-1] if shape is TOKENS else shape[1]))
    assert difference(expected, found) is None
    assert found.params == sum(p.numel() for p in layer.parameters())


def test_norm_over_channels_is_the_layer_between_permutations() -> None:
    expected = graph(lambda m, x: m.layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), IMAGE, layer=nn.LayerNorm(8))
    assert difference(expected, graph(over_channels, IMAGE, **weights(8))) is None


@pytest.mark.parametrize("spelled", [
    lambda m, x: m.w * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)),
    lambda m, x: x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-6) * (1 + m.w)], ids=["weight first", "1 + weight"])
def test_rms_norm_spelled_out(spelled: Function) -> None:
    expected = graph(lambda m, x: m.layer(x), layer=nn.RMSNorm(16))
    assert difference(expected, graph(spelled, w=nn.Parameter(torch.ones(16)))) is None


def test_attention_scaled_anywhere() -> None:
    def written(scaled: Callable[[Any, Any], Any]) -> Function:
        return lambda m, x: torch.softmax(scaled(x, x.sigmoid().transpose(-1, -2)), -1) @ x.tanh()

    expected = graph(lambda m, x: F.scaled_dot_product_attention(x, x.sigmoid(), x.tanh()))
    for scaled in (lambda q, k: (q * 16**-0.5) @ k, lambda q, k: q @ k / 4, lambda q, k: (q * 16**-0.25) @ (k * 16**-0.25)):
        assert difference(expected, graph(written(scaled))) is None


def test_offset_behind_a_layer_is_its_bias() -> None:
    expected = graph(lambda m, x: m.layer(x), layer=nn.Linear(16, 4))
    for spelled in (lambda m, x: x @ m.w.t() + m.b, lambda m, x: m.b + F.linear(x, m.w)):
        found = graph(spelled, w=nn.Parameter(torch.ones(4, 16)), b=nn.Parameter(torch.ones(4)))
        assert difference(expected, found) is None


def test_a_shared_layer_counts_where_its_argument_is_largest_whatever_runs_first() -> None:
    def both(first: int) -> Function:
        def run(m: Any, x: Any) -> Any:
            parts = {0: x, 1: x.narrow(1, 0, 2)}
            done = {k: m.layer(parts[k]) for k in (first, 1 - first)}
            return torch.cat([done[0], done[1]], 1)

        return run

    expected = graph(both(0), layer=nn.Linear(16, 4))
    assert difference(expected, graph(both(1), layer=nn.Linear(16, 4))) is None
    assert sorted((n.in_shapes[0], n.extra_params) for n in expected.nodes if n.op == "Gemm") == [
        ((1, 2, 16), -68), ((1, 5, 16), 0)]


def test_a_constant_seen_with_one_more_axis_is_one_node() -> None:
    def table(m: Any, x: Any) -> Any:
        values = torch.arange(16.0).cos()
        return (x * values[None]) + (x.tanh() * values[None, None])

    assert graph(table).op_counts["Constant"] == 1


# ---- ways through PyTorch and ONNX ---------------------------------------------------------------------------------------


class Convolutional(nn.Module):
    """Norms of three kinds, a gate over channels, hard and soft activations, two ways of pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.Hardswish(),
                                  nn.MaxPool2d(3, 2, 1))
        self.body = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.GroupNorm(4, 16), nn.SiLU(), nn.Conv2d(16, 16, 1))
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 4, 1), nn.ReLU(), nn.Conv2d(4, 16, 1),
                                  nn.Hardsigmoid())
        self.norm = nn.InstanceNorm2d(16, affine=True)
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = F.mish(self.body(x))
        x = self.norm(x + y * self.gate(y))
        return self.head(torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1))


class Attention(nn.Module):
    """Patches, two kinds of attention, a gated network behind LayerNorm and RMSNorm, a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 8, 8)
        self.token, self.place = nn.Parameter(torch.zeros(1, 1, 32)), nn.Parameter(torch.zeros(1, 17, 32))
        self.block = nn.TransformerEncoderLayer(32, 4, 64, activation="gelu", batch_first=True, norm_first=True)
        self.scale, self.qkv, self.out = nn.Parameter(torch.ones(32)), nn.Linear(32, 96, bias=False), nn.Linear(32, 32)
        self.wide, self.narrow, self.last = nn.Linear(32, 128), nn.Linear(64, 32), nn.LayerNorm(32)
        self.head = nn.Linear(32, 10)

    def norm(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.scale  # the old exporter has no rms_norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.place
        x = self.block(x)
        q, k, v = self.qkv(self.norm(x)).reshape(1, 17, 3, 4, 8).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.out((((q * 8**-0.5) @ k.transpose(-1, -2)).softmax(-1) @ v).transpose(1, 2).reshape(1, 17, 32))
        a, b = self.wide(x).chunk(2, -1)
        x = x + self.narrow(F.gelu(a, approximate="tanh") * torch.sigmoid(b))
        return self.head(self.last(x)[:, 0])


class Mixed(nn.Module):
    """Slices, padding, resizing, a transposed convolution, shuffled pixels, a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.up = nn.Conv2d(3, 8, 3, padding=1), nn.ConvTranspose2d(4, 8, 2, 2)
        self.activation, self.rnn, self.head = nn.PReLU(8), nn.LSTM(16, 12, 2, batch_first=True), nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.leaky_relu(self.enter(F.pad(x, (1, 1, 1, 1))), 0.2)
        a, b = x.split(4, 1)
        x = self.activation(self.up(a)[:, :, ::2, ::2] + torch.cat([b, b], 1))
        x = F.interpolate(F.avg_pool2d(x, 2), size=(16, 16), mode="bilinear")
        x = F.pixel_shuffle(x, 2).clamp(-1, 1).flatten(2).mean(1).reshape(1, 64, 16)
        return self.head(self.rnn(F.elu(x))[0][:, -1])


SIZES = {Convolutional: (1, 3, 32, 32), Attention: (1, 3, 32, 32), Mixed: (1, 3, 32, 32)}


def exported(model: nn.Module, shape: tuple[int, ...], path: Path, dynamo: bool) -> Path:
    settings: dict[str, Any] = {"dynamo": True, "optimize": False} if dynamo else {  # the defaults fold batch norms
        "dynamo": False, "training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False, "opset_version": 18}
    torch.backends.mha.set_fastpath_enabled(False)  # one operator that the old exporter does not know
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        for p in model.parameters():  # exporters keep one copy of weights that are equal, as they are before training
            p.copy_(torch.rand(p.shape))
        torch.onnx.export(model.eval(), (torch.zeros(shape),), str(path), verbose=False, **settings)
    torch.backends.mha.set_fastpath_enabled(True)
    return path


def check(way: str, model: nn.Module, shape: tuple[int, ...], folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.export and of the exporters
        expected, found = both(way, model, shape, folder)
    assert difference(expected.graph, found.graph) is None
    assert not found.unknown


def both(way: str, model: nn.Module, shape: tuple[int, ...], folder: Path) -> tuple[Extraction, Extraction]:
    expected = from_torch(model, shape)
    if way == "fx":
        found = from_torch(torch.fx.symbolic_trace(model.eval()), shape)
    elif way == "export":
        found = from_torch(torch.export.export(model.eval(), (torch.zeros(shape),), strict=False), shape)
    else:
        pytest.importorskip("onnx")
        from extract import from_onnx

        if way == "dynamo":
            pytest.importorskip("onnxscript")
        found = from_onnx(exported(model, shape, folder / "model.onnx", way == "dynamo"))
    return expected, found


@pytest.mark.parametrize("way", ["fx", "export", "legacy", "dynamo"])
@pytest.mark.parametrize("model", SIZES, ids=lambda m: m.__name__)
def test_every_way_gives_one_graph(model: type[nn.Module], way: str, tmp_path: Path) -> None:
    check(way, model(), SIZES[model], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["export", "legacy", "dynamo"])
@pytest.mark.parametrize("name", [
    "resnet18", "mobilenetv3_small_100", "ghostnet_100", "regnety_002", "convnext_atto", "skresnet18", "resnetv2_50",
    "vit_tiny_patch16_224", "cait_xxs24_224", "pvt_v2_b0", "mobilevit_xxs", "gmlp_ti16_224"])
def test_models_of_timm_give_one_graph_every_way(name: str, way: str, tmp_path: Path) -> None:
    if find_spec("timm") is None:
        pytest.skip("timm is not installed")
    from extract import zoo

    model = zoo.load(f"timm:{name}")
    check(way, model.factory(), model.inputs, tmp_path)


def test_the_law_can_fail() -> None:
    assert graph(lambda m, x: F.gelu(x)) != graph(lambda m, x: F.gelu(x, approximate="tanh"))
    other = Convolutional()
    other.stem[3] = nn.MaxPool2d(3, 2, 1, ceil_mode=True)
    traced = from_torch(torch.fx.symbolic_trace(other), SIZES[Convolutional]).graph
    assert difference(from_torch(Convolutional(), SIZES[Convolutional]).graph, traced) is not None
