"""MACs, parameters and activation bytes: against torch's operator counter, and by hand where torch has no count."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cg import Graph, GraphBuilder, NodeSpec
from cg.costs import node_activation_bytes, node_macs


def counted(module: nn.Module, x: torch.Tensor) -> int:
    """Multiply-adds that torch counts (it counts 2 operations each)."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(x)
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("case", range(24))
def test_convolutions_cost_what_torch_counts(case: int) -> None:
    rng = np.random.default_rng(case)
    groups = int(rng.choice([1, 2, 4]))
    c_in, c_out = 4 * int(rng.integers(1, 4)), 4 * int(rng.integers(1, 4))
    kernel, stride, bias = int(rng.integers(1, 5)), int(rng.integers(1, 3)), bool(rng.integers(2))
    shape = (1, c_in, int(rng.integers(6, 12)), int(rng.integers(6, 12)))
    kind = nn.ConvTranspose2d if case % 2 else nn.Conv2d
    module = kind(c_in, c_out, kernel, stride, padding=kernel // 2, groups=groups, bias=bias)
    x = torch.zeros(shape)
    out = tuple(module(x).shape)
    spec = NodeSpec(kind.__name__[:-2], (shape,), out, tuple(module.weight.shape), bias, (("group", groups),))
    assert spec.params == sum(p.numel() for p in module.parameters())
    assert node_macs(spec) == counted(module, x)
    assert node_activation_bytes(spec) == 4 * np.prod(out)


@pytest.mark.parametrize(("shape", "bias"), [((1, 7), True), ((1, 7), False), ((1, 11, 7), True), ((3, 5, 2, 7), False)])
def test_linear_layers_cost_what_torch_counts(shape: tuple[int, ...], bias: bool) -> None:
    module = nn.Linear(7, 13, bias=bias)
    spec = NodeSpec("Gemm", (shape,), (*shape[:-1], 13), (13, 7), bias)
    assert node_macs(spec) == counted(module, torch.zeros(shape))
    assert spec.params == sum(p.numel() for p in module.parameters())


def test_product_of_two_computed_matrices() -> None:
    class Product(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ x.transpose(-1, -2)
    spec = NodeSpec("MatMul", ((2, 8, 5, 6), (2, 8, 6, 5)), (2, 8, 5, 5))
    assert node_macs(spec) == counted(Product(), torch.zeros(2, 8, 5, 6)) == 2 * 8 * 5 * 5 * 6
    assert spec.params == 0


def test_product_with_a_trained_matrix() -> None:
    spec = NodeSpec("MatMul", ((1, 10, 6),), (1, 10, 4), (4, 6))
    assert (node_macs(spec), spec.params) == (10 * 4 * 6, 24)


@pytest.mark.parametrize("op", ["Relu", "BatchNormalization", "MaxPool", "AveragePool", "GlobalAveragePool", "Softmax"])
def test_everything_without_a_matrix_is_free(op: str) -> None:
    assert node_macs(NodeSpec(op, ((1, 4, 8, 8),), (1, 4, 8, 8))) == 0


def test_recurrent_and_einsum_carry_their_cost() -> None:
    assert node_macs(NodeSpec("LSTM", ((1, 9, 5),), (1, 9, 4), attrs=(("macs_per_step", 100),))) == 900
    assert node_macs(NodeSpec("Einsum", ((2, 3),), (2,), attrs=(("macs", 77),))) == 77


def test_parameters_are_weight_bias_and_extra() -> None:
    shape = (1, 6, 4, 4)
    assert NodeSpec("BatchNormalization", (shape,), shape, (6,), True).params == 12
    assert NodeSpec("Conv", (shape,), shape, (6, 6, 3, 3), True).params == 6 * 6 * 9 + 6
    assert NodeSpec("PRelu", (shape,), shape, (6,)).params == 6
    assert NodeSpec("LSTM", ((1, 9, 5),), (1, 9, 4), extra_params=160).params == 160
    assert NodeSpec("Relu", (shape,), shape, bias=True).params == 0


def test_a_graph_costs_the_sum_of_its_nodes() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                           nn.Flatten(), nn.Linear(8, 10)).eval()
    b = GraphBuilder()
    x = b.relu(b.batch_norm(b.conv2d(b.input((1, 3, 16, 16)), 8)))
    g = b.build(b.linear(b.global_avg_pool(x), 10))
    assert g.macs == counted(module, torch.zeros(1, 3, 16, 16))
    assert g.params == sum(p.numel() for p in module.parameters())
    assert g.activation_bytes == 4 * (3 * 256 + 3 * 8 * 256 + 8 + 10)


def test_large_networks_do_not_overflow() -> None:
    shape = (1, 8192, 512, 512)
    conv = NodeSpec("Conv", (shape,), shape, (8192, 8192, 3, 3))
    g = Graph.make([NodeSpec("Input", (), shape), *[conv] * 9], [(i, i + 1, 0) for i in range(9)])
    assert g.macs == 9 * 8192 * 8192 * 9 * 512 * 512
    assert g.params == 9 * 8192 * 8192 * 9
