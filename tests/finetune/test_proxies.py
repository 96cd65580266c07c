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
    if name in ("macs", "synflow"):  # need the graph
        return
    model = net().eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    proxy(model) if name == "params" else proxy(model, IMAGES)
    assert not model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_a_module_needs_inputs() -> None:
    with pytest.raises(CGError, match="pass a batch"):
        proxies.snip(net())
