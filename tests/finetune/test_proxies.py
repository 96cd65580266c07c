"""Zero-cost proxies against closed forms and plain gradients; the network is left as it was."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from cg import Graph, GraphBuilder
from cg.errors import CGError
from finetune import proxies


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 5))


def graph(depth: int = 2, width: int = 8) -> Graph:
    b = GraphBuilder(name="chain")
    x = b.input((1, 3, 8, 8))
    for _ in range(depth):
        x = b.relu(b.batch_norm(b.conv2d(x, width, kernel=3)))
    return b.build(b.linear(b.global_avg_pool(x), 10))


IMAGES = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(1))
CLASSES = torch.tensor([0, 1, 2, 3, 4, 0])


def test_gradient_proxies_are_sums_over_layer_weights() -> None:
    model = net().train()
    nn.functional.cross_entropy(model(IMAGES), CLASSES).backward()
    weights = [model[0].weight, model[4].weight]  # type: ignore[union-attr]
    norm = sum(w.grad.norm().item() for w in weights)  # type: ignore[union-attr]
    sensitivity = sum((w * w.grad).abs().sum().item() for w in weights)  # type: ignore[operator]
    assert proxies.grad_norm(net(), IMAGES, CLASSES) == pytest.approx(norm, rel=1e-5)
    assert proxies.snip(net(), IMAGES, CLASSES) == pytest.approx(sensitivity, rel=1e-5)


def test_grasp_is_minus_weight_times_hessian_times_gradient() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 4, bias=False).double()
    x, y = IMAGES[:, :, 0, 0].double(), CLASSES % 4

    def loss(w: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(x @ w.reshape(4, 3).T, y)

    w = model.weight.detach().reshape(-1)
    hessian = torch.autograd.functional.hessian(loss, w)
    gradient = torch.autograd.functional.jacobian(loss, w)
    assert proxies.grasp(model, x, y) == pytest.approx(float(-w @ hessian @ gradient), rel=1e-6)


def test_synflow_of_linear_layers_is_layers_times_flow() -> None:
    b = GraphBuilder()
    g = b.build(b.linear(b.linear(b.input((1, 6)), 5, bias=False), 3, bias=False))
    from extract import to_torch

    first, second = [p.detach().abs().double() for p in to_torch(g, seed=3).parameters()]
    flow = float((second @ first).sum())
    assert proxies.synflow(g, seed=3) == pytest.approx(math.log(2 * flow), rel=1e-6)


def test_synflow_of_a_deep_wide_network_does_not_overflow() -> None:
    value = proxies.synflow(graph(depth=60, width=64))
    assert 60 * 2 < value < 60 * 6  # the flow itself is far beyond float32: e^88
    assert value > 89


def test_fisher_by_hand_for_one_linear_layer() -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(3, 4), IMAGES[:, :, 0, 0]
    out = model(x)
    out.retain_grad()
    nn.functional.cross_entropy(out, CLASSES % 4).backward()
    expected = ((out * out.grad) ** 2).mean(0).sum().item() / 2  # type: ignore[operator]
    assert proxies.fisher(model, x, CLASSES % 4) == pytest.approx(expected, rel=1e-5)


def test_naswot_counts_agreeing_rectifiers() -> None:
    model = nn.Sequential(nn.Linear(3, 7, bias=False), nn.ReLU())
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(2))
    on = (model(x) > 0).numpy()
    kernel = np.array([[(a == b).sum() for b in on] for a in on], float)
    with np.errstate(divide="ignore"):
        assert proxies.naswot(model, x) == pytest.approx(np.linalg.slogdet(kernel)[1])
    with pytest.raises(CGError, match="none"):
        proxies.naswot(nn.Linear(3, 2), x)


def test_jacov_prefers_inputs_that_are_told_apart() -> None:
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(2))
    torch.manual_seed(0)
    bent = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 1))
    straight = nn.Sequential(nn.Linear(3, 64), nn.Linear(64, 1))  # the same gradient for every input
    assert proxies.jacov(bent, x) > proxies.jacov(straight, x)


@pytest.mark.parametrize("name", list(proxies.PROXIES))
def test_every_proxy_is_seeded_and_leaves_a_module_as_it_was(name: str) -> None:
    proxy = proxies.PROXIES[name]
    assert proxy(graph()) == proxy(graph())
    assert math.isfinite(proxy(graph()))
    if name == "macs":  # needs the graph
        return
    model = net().eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    proxy(model) if name in ("params", "l2_norm") else proxy(model, IMAGES)
    assert not model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_a_module_needs_inputs() -> None:
    with pytest.raises(CGError, match="pass a batch"):
        proxies.snip(net())


# -- many at once -----------------------------------------------------------------------------------------------------


def varied(rectified: bool = True) -> Graph:
    """Convolutions of every kind: dilated and strided depthwise, grouped, with bias; branches; 2 x 2 at the end."""
    b = GraphBuilder(name="varied")
    x = b.batch_norm(b.conv2d(b.input((1, 3, 8, 8)), 8, kernel=3))
    x = b.relu(x) if rectified else x
    y = b.batch_norm(b.conv2d(b.conv2d(x, 8, kernel=3, dilation=2, groups=8, padding=2), 8, bias=True))
    z = b.batch_norm(b.conv2d(b.conv2d(x, 8, kernel=5, groups=8), 8, groups=2))
    x = b.add(y, z)
    x = b.conv2d(b.relu(x) if rectified else x, 12, kernel=3, stride=2)
    return b.build(b.linear(b.global_avg_pool(x), 10))


PICTURES = torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(3))
LABELS = torch.tensor([0, 1, 2] * 4)
WITH_BATCH = {"grad_norm", "snip", "plain", "grasp", "fisher", "zen", "jacov", "epe_nas", "naswot"}
WITH_LABELS = {"grad_norm", "snip", "plain", "grasp", "fisher", "epe_nas"}


@pytest.mark.parametrize("data", [False, True])
def test_measure_gives_what_the_functions_give(data: bool) -> None:
    found = proxies.measure(varied(), None, *((PICTURES, LABELS) if data else ()), seed=4, batch=12)
    assert tuple(found) == tuple(proxies.PROXIES)
    assert len(found) == 13
    for name, function in proxies.PROXIES.items():
        given = {} if name in ("params", "macs") else {"seed": 4}
        if name in WITH_BATCH:
            given |= {"batch": 12}
        if data and name in WITH_BATCH | {"synflow"}:
            given |= {"inputs": PICTURES, **({"targets": LABELS} if name in WITH_LABELS else {})}
        assert function(varied(), **given) == found[name], name
    assert proxies.measure(varied(), ["zen", "params"], seed=4, batch=12)["zen"] == proxies.zen(varied(), seed=4, batch=12)


def test_a_network_is_built_once_and_no_random_state_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    import extract

    built, real = [], extract.to_torch
    monkeypatch.setattr(extract, "to_torch", lambda g, **k: built.append(g.name) or real(g, **k))
    state = torch.get_rng_state()
    proxies.measure(varied(), batch=4)
    assert built == ["varied"]
    assert torch.equal(torch.get_rng_state(), state)


def test_measure_gives_nan_where_a_function_raises() -> None:
    found = proxies.measure(varied(rectified=False), ["naswot", "snip"], batch=4)
    assert math.isnan(found["naswot"])
    assert math.isfinite(found["snip"])
    with pytest.raises(CGError, match="this network has none"):
        proxies.naswot(varied(rectified=False))
    flat = nn.Sequential(nn.Flatten(), nn.Linear(48, 5))
    nn.init.zeros_(flat[1].weight)  # type: ignore[arg-type]
    found = proxies.measure(flat, None, IMAGES, CLASSES)
    assert {k for k, v in found.items() if math.isnan(v)} == {"macs", "synflow", "jacov", "epe_nas", "naswot"}
    for name, why in (("synflow", "not finite"), ("jacov", "eigenvalues|not finite"), ("epe_nas", "not finite")):
        with pytest.raises(CGError, match=why):
            proxies.PROXIES[name](flat, IMAGES)
    with pytest.raises(CGError, match="macs needs a graph"):
        proxies.macs(flat)
    found = proxies.measure(net(), None, IMAGES, torch.zeros(6, 2, dtype=torch.long))  # two answers an image, one expected
    assert {k for k, v in found.items() if math.isnan(v)} == {"macs", *WITH_LABELS}
    with pytest.raises(CGError, match=r"scores \(6, 5\) do not fit classes \(6, 2\)"):
        proxies.snip(net(), IMAGES, torch.zeros(6, 2, dtype=torch.long))
    with pytest.raises(CGError, match="no proxy 'flops'"):
        proxies.measure(net(), ["flops"], IMAGES)


def test_grasp_of_convolutions_is_the_hessian_product_that_torch_finds() -> None:
    from extract import to_torch

    model, x = to_torch(varied(), seed=1).double(), PICTURES.double()
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    first = torch.autograd.grad(nn.functional.cross_entropy(model(x), LABELS), weights, create_graph=True)
    product = sum((g * g.detach()).sum() for g in first)
    second = torch.autograd.grad(product, weights)
    expected = -sum(float((w * h).detach().sum()) for w, h in zip(weights, second, strict=True))
    assert proxies.grasp(to_torch(varied(), seed=1).double(), x, LABELS) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("dims", "groups", "stride", "dilation", "padding"), [
    (1, 6, 1, 2, 2), (2, 6, 1, 2, 2), (2, 6, 1, 2, 5), (2, 6, 2, 2, 2), (2, 1, 2, 1, 1), (3, 6, 1, 2, 1), (2, 3, 1, 2, 0)])
def test_convolutions_have_the_derivatives_of_torch(dims: int, groups: int, stride: int, dilation: int, padding: int) -> None:
    from finetune.proxies._convolution import twice_differentiable

    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    torch.manual_seed(0)
    layer = kind(6, 6, 3, stride, padding, dilation, groups).double()
    x = torch.randn(2, 6, *[9] * dims, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        expected = layer(x)
    with twice_differentiable(layer):
        torch.testing.assert_close(layer(x), expected)
        for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
            assert check(lambda x, w, b: layer(x), (x, layer.weight, layer.bias), fast_mode=True)
    assert "forward" not in layer.__dict__


def test_plain_and_l2_norm_by_hand() -> None:
    model = net().train()
    nn.functional.cross_entropy(model(IMAGES), CLASSES).backward()
    weights = [model[0].weight, model[4].weight]  # type: ignore[union-attr]
    assert proxies.plain(net(), IMAGES, CLASSES) == pytest.approx(sum((w * w.grad).sum().item() for w in weights), rel=1e-4)
    assert proxies.l2_norm(net()) == pytest.approx(sum((w ** 2).sum().item() ** 0.5 for w in weights), rel=1e-6)


@pytest.mark.parametrize("classes", [5, 101])
def test_epe_nas_by_hand(classes: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.Tanh(), nn.Linear(16, classes))
    x = IMAGES.clone().requires_grad_()
    (g,) = torch.autograd.grad(model(x).sum(), x)
    jacobian, sums = g.flatten(1).double().numpy(), []
    for c in range(5):
        rows = jacobian[CLASSES.numpy() == c]
        s = sum(math.log(abs(np.corrcoef(a, b)[0, 1]) + 1e-5) for a in rows for b in rows)
        sums.append(s / len(rows) if classes > 100 else s)
    expected = (sum(abs(a - b) for a in sums for b in sums) / len(sums) if classes > 100 else sum(abs(s) for s in sums))
    assert proxies.epe_nas(model, IMAGES, CLASSES) == pytest.approx(expected, rel=1e-4)
    with pytest.raises(CGError, match="one class for each of the 6 inputs"):
        proxies.epe_nas(model, IMAGES, CLASSES[:4])


def test_zen_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 1, bias=False),
                          nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))
    generator = torch.Generator().manual_seed(7)
    first, second, _ = (torch.randn(shape, generator=generator) for shape in ((4, 3, 3, 3), (6, 4, 1, 1), (5, 6)))
    clean, noise = (torch.randn(IMAGES.shape, generator=generator) for _ in range(2))
    maps = []
    for x in (clean, clean + 0.01 * noise):
        x = nn.functional.conv2d(x, first, padding=1)
        variance, mean = x.var((0, 2, 3), unbiased=False), x.mean((0, 2, 3))
        if not maps:
            scale = 0.5 * math.log(variance.mean())
        x = ((x - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()).relu()
        maps.append(nn.functional.conv2d(x, second))
    change = ((maps[0] - maps[1]) ** 2).sum((1, 2, 3)).sqrt().mean().item()
    assert proxies.zen(model, IMAGES, seed=7) == pytest.approx(math.log(change) + scale, rel=1e-4)


def test_naswot_sees_rectifiers_of_calls_and_sums_over_layers() -> None:
    class Called(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Conv2d(3, 8, 3), nn.Linear(32, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(nn.functional.relu6(torch.relu_(self.layer(x)) - 0.2).flatten(1))

    torch.manual_seed(0)
    model = Called()
    first = torch.relu(model.layer(IMAGES))
    states = [(a > 0).flatten(1).numpy() for a in (first, first - 0.2)]
    kernel = sum(np.array([[(a == b).sum() for b in on] for a in on], float) for on in states)
    assert proxies.naswot(model, IMAGES) == pytest.approx(np.linalg.slogdet(kernel)[1], rel=1e-9)


def test_no_pass_of_measure_sees_what_another_did_to_the_values() -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.shift = nn.Conv2d(3, 4, 3), nn.Parameter(torch.full((4, 1, 1), -0.5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (self.layer(x) * self.shift.exp() + self.shift).relu().mean((2, 3))

    torch.manual_seed(0)
    model = Shifted()
    found = proxies.measure(model, None, IMAGES, CLASSES % 4)
    assert found["zen"] == proxies.zen(model, IMAGES)
    assert found["l2_norm"] == proxies.l2_norm(model)
