"""Mean-field statistics: closed forms on chains, real random networks by Monte Carlo, and measured zero-cost proxies."""

from __future__ import annotations

import csv
import gzip
import math
from pathlib import Path

import numpy as np
import pytest

from cg import Graph, GraphBuilder, NodeSpec, statistics
from cg._field import moments_of
from cg._table_arrays import costs
from cg.global_statistics import _KIND, _NORM, _PROFILE, STATISTICS

PROXIES = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


def moments(g: Graph) -> tuple[np.ndarray, np.ndarray]:
    statistics([g])  # fills the tables
    return moments_of(g.spec, g.src, g.dst, g.outputs, _KIND.get(), _PROFILE.get(), costs(), _NORM.get())


def named(g: Graph) -> dict[str, float]:
    return dict(zip(STATISTICS, statistics([g])[0].astype(float).tolist(), strict=True))


def test_batch_norm_and_rectifier_multiply_a_squared_gradient_by_pi_over_pi_minus_one() -> None:
    """Yang et al. (2019): the known rate of explosion of a deep linear, batch norm, rectifier chain."""
    b = GraphBuilder()
    x = b.input((1, 16, 8, 8))
    acts = []
    for _ in range(4):
        x = b.relu(b.batch_norm(b.conv2d(x, 16, kernel=1)))
        acts.append(x)
    g = b.build(x)
    _, grad = moments(g)
    at = [i for i, s in enumerate(g.nodes) if s.op == "Relu"]
    assert grad[at[1], 0] / grad[at[2], 0] == pytest.approx(math.pi / (math.pi - 1), rel=1e-6)


def test_similar_images_stay_similar_with_a_skip() -> None:
    def net(skip: bool) -> Graph:
        b = GraphBuilder()
        x = b.input((1, 8, 8, 8))
        for _ in range(6):
            y = b.batch_norm(b.conv2d(b.relu(x), 8, kernel=3))
            x = b.add(x, y) if skip else y
        return b.build(x)

    plain, residual = named(net(False)), named(net(True))
    assert residual["field.out_like"] > plain["field.out_like"] + 0.05
    assert plain["field.add_share"] == 0 < residual["field.add_share"] < 1


def test_a_signal_takes_the_louder_way() -> None:
    """``flow`` and ``visit`` follow variance: of a sum of x and 3 x 3 pooled noise most comes from x."""
    b = GraphBuilder()
    x = b.batch_norm(b.conv2d(b.input((1, 8, 16, 16)), 8, kernel=3))
    quiet = b.avg_pool(b.conv2d(x, 8, kernel=1), 3, 1, 1)
    s = named(b.build(b.add(b.conv2d(b.conv2d(x, 8, kernel=1), 8, kernel=1), quiet)))
    assert math.expm1(s["kind.back.avgpool"]) == pytest.approx(0.5, abs=1e-6)
    assert math.expm1(s["visit.avgpool"]) < 0.3


@pytest.mark.parametrize("name", ["nasbench101", "nasbench201", "nasbench301"])
def test_moments_are_those_of_real_random_networks(name: str) -> None:
    """Second moments of activations and gradients of a module with random weights, node by node, on 64 random images."""
    torch = pytest.importorskip("torch")
    from evo_search import get_space
    from extract import to_torch

    space = get_space(name)
    genome = space.sample(np.random.default_rng(3))
    g = space.to_graph(genome)
    module = to_torch(g).train()
    torch.manual_seed(0)
    for p in module.parameters():
        if p.dim() > 1:
            torch.nn.init.normal_(p, std=math.sqrt(2 / p[0].numel()))
        else:
            torch.nn.init.constant_(p, 0.0)
    for m in module.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(m.weight)
    seen: list[float] = []
    hooks = [m.register_full_backward_hook(lambda m, gi, go: seen.append(float(go[0].pow(2).sum())))
             for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    x = torch.randn(16, *g.nodes[0].out_shape[1:])
    out = module(x)
    out = out[0] if isinstance(out, (list, tuple)) else out
    (out * torch.randn_like(out)).sum().backward()
    for h in hooks:
        h.remove()
    _, grad = moments(g)
    side = _PROFILE.get()[g.spec]
    at = [i for i, s in enumerate(g.nodes) if s.op.startswith("BatchNorm")]
    expected = np.log([grad[i, 0] * side[i, 0] ** 2 * side[i, 3] for i in at])
    measured = np.log(np.array(seen[::-1]))
    assert len(measured) == len(expected)
    from finetune.metrics import spearman

    assert spearman(np.sort(expected), np.sort(measured)) > 0.9
    assert abs((expected.max() - expected.min()) - (measured.max() - measured.min())) < 0.35 * np.ptp(measured) + 1.0


@pytest.mark.parametrize(("space_name", "reach"), [
    ("nasbench101", {"grad_norm": 0.75, "zen": 0.98}),
    ("nasbench201", {"grad_norm": 0.8, "fisher": 0.65, "zen": 0.9}),
    ("nasbench301", {"grad_norm": 0.85, "fisher": 0.8, "zen": 0.98}),
])
def test_order_networks_as_measured_proxies_do(space_name: str, reach: dict[str, float]) -> None:
    """Against the committed measurements on CIFAR-10 batches, 200 networks a benchmark."""
    from evo_search import get_space
    from finetune.metrics import spearman

    with gzip.open(PROXIES / f"proxies-{space_name}.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))[:200]
    space = get_space(space_name)
    x = statistics([space.to_graph(space.decode(r["network"])) for r in rows])
    for proxy, least in reach.items():
        measured = np.array([float(r[proxy]) for r in rows])
        column = x[:, STATISTICS.index(f"field.{'grad_norm' if proxy == 'fisher' else proxy}")]
        good = np.isfinite(measured)
        assert spearman(column[good], measured[good]) > least, proxy


def test_extremes_stay_finite() -> None:
    """A thousand layers without normalisation, products of products, one pixel, one channel."""
    b = GraphBuilder()
    x = b.input((1, 1, 1, 1))
    for _ in range(1000):
        x = b.conv2d(x, 1, kernel=1)
    assert np.isfinite(statistics([b.build(x)])).all()
    spec = NodeSpec("Input", (), (1, 4, 8, 8))
    assert np.isfinite(statistics([Graph.make([spec], [], name="one")])).all()
