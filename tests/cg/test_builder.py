"""``GraphBuilder``: shapes against torch, repeated blocks against a plain loop, pruning, and what it refuses."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
import torch
from torch import nn

import cg.builder
from cg import Graph, GraphBuilder
from cg.errors import GraphError


def test_example_in_the_docstring_is_true() -> None:
    result = doctest.testmod(cg.builder)
    assert result.attempted >= 5
    assert result.failed == 0


@pytest.mark.parametrize("case", range(60))
def test_window_shapes_are_those_of_torch(case: int) -> None:
    rng = np.random.default_rng(case)
    c, h, w = (int(v) for v in rng.integers([1, 7, 7], [9, 20, 20]))
    kernel, stride, padding = int(rng.integers(1, 6)), int(rng.integers(1, 4)), int(rng.integers(0, 3))
    b = GraphBuilder()
    x = b.input((1, c, h, w))
    data = torch.zeros(1, c, h, w)
    kind = case % 3
    if kind == 0:
        groups = c if rng.random() < 0.5 else 1
        dilation = int(rng.integers(1, 3)) if kernel < 4 else 1
        module: nn.Module = nn.Conv2d(c, 2 * c, kernel, stride, padding, dilation, groups, bias=bool(rng.random() < 0.5))
        y = b.conv2d(x, 2 * c, kernel, stride, padding, dilation, groups, module.bias is not None)
    else:
        padding = min(padding, kernel // 2)
        ceil = bool(rng.random() < 0.5)
        if kind == 1:
            module, y = nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil), b.max_pool(x, kernel, stride, padding, ceil)
        else:
            module = nn.AvgPool2d(kernel, stride, padding, ceil_mode=ceil)
            y = b.avg_pool(x, kernel, stride, padding, ceil)
    assert b.shape(y) == tuple(module(data).shape)
    assert b.build(y).params == sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (3, 1), (5, 1), (3, 2), (7, 1), (5, 3)])
def test_default_padding_keeps_the_size(kernel: int, dilation: int) -> None:
    b = GraphBuilder()
    assert b.shape(b.conv2d(b.input((1, 2, 32, 31)), 4, kernel=kernel, dilation=dilation)) == (1, 4, 32, 31)


def test_rectangles() -> None:
    b = GraphBuilder()
    y = b.conv2d(b.input((1, 3, 20, 30)), 8, kernel=(1, 7), stride=(1, 2), padding=(0, 3))
    assert b.shape(y) == (1, 8, 20, 15)
    assert b.build(y).nodes[1].weight_shape == (8, 3, 1, 7)


def test_shapes_of_the_other_calls() -> None:
    b = GraphBuilder()
    x = b.input((1, 6, 8, 10))
    assert b.shape(b.relu(x)) == b.shape(b.batch_norm(x)) == b.shape(b.op("Sigmoid", [x])) == (1, 6, 8, 10)
    assert b.shape(b.global_avg_pool(x)) == (1, 6, 1, 1)
    assert b.shape(b.linear(b.global_avg_pool(x), 5)) == (1, 5)
    assert b.shape(b.linear(x, 5)) == (1, 5)
    assert b.build(b.linear(x, 5)).params == 6 * 8 * 10 * 5 + 5
    assert b.shape(b.linear(b.input((1, 17, 12)), 5)) == (1, 17, 5)
    assert b.shape(b.concat([x, x, b.relu(x)])) == (1, 18, 8, 10)
    assert b.shape(b.concat([x, x], axis=-1)) == (1, 6, 8, 20)
    assert b.concat([x]) == x
    assert b.shape(b.slice(x, axes=(2, 3), starts=(1, 4))) == (1, 6, 7, 6)
    assert b.shape(b.mul(x, b.global_avg_pool(x))) == (1, 6, 8, 10)
    assert b.shape(b.op("Transpose", [x], out_shape=(1, 8, 10, 6), perm=(0, 2, 3, 1))) == (1, 8, 10, 6)


def test_broadcasting_is_that_of_numpy() -> None:
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        a, c = (tuple(int(v) for v in rng.integers(1, 4, rng.integers(1, 5))) for _ in range(2))
        b = GraphBuilder()
        x, y = b.input(a), b.input(c)
        try:
            expected = np.broadcast_shapes(a, c)
        except ValueError:
            refused += 1
            with pytest.raises(GraphError, match="do not broadcast"):
                b.add(x, y)
        else:
            assert b.shape(b.add(x, y)) == expected
    assert 20 < refused < 180


def test_sum_of_many_is_a_chain_of_binary_sums() -> None:
    b = GraphBuilder()
    x, y, z = (b.input((1, 4)) for _ in range(3))
    many, chain = b.build(b.add(x, y, z)), b.build(b.add(b.add(x, y), z))
    assert many.op_counts["Add"] == 2
    assert many == chain


def test_broadcast_argument_order_of_commutative_calls_does_not_matter() -> None:
    def net(swap: bool, op: str) -> Graph:
        b = GraphBuilder()
        x = b.input((1, 4, 8, 8))
        gate = b.op("Sigmoid", [b.global_avg_pool(x)])
        args = (gate, x) if swap else (x, gate)
        return b.build(getattr(b, op)(*args))
    assert net(False, "mul") == net(True, "mul")
    assert net(False, "add") == net(True, "add")
    assert net(False, "mul") != net(False, "add")


def cell(b: GraphBuilder, x: int) -> int:
    """A residual block with a pooled branch."""
    y = b.relu(b.batch_norm(b.conv2d(x, 8, kernel=3)))
    return b.add(b.concat([b.conv2d(y, 4, kernel=1), b.max_pool(b.slice(x, (1,), (4,)), 3, 1, 1)]), x)


@pytest.mark.parametrize("times", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("channels", [8, 3])
def test_repeat_is_the_loop(times: int, channels: int) -> None:
    """With 8 channels the first application already keeps the shape; from 3 it only does from the second on."""
    def block(b: GraphBuilder, x: int) -> int:
        return cell(b, x if b.shape(x)[1] == 8 else b.conv2d(x, 8, kernel=1))

    b, c = GraphBuilder(), GraphBuilder()
    x, y = b.input((1, channels, 8, 8)), c.input((1, channels, 8, 8))
    traced: list[int] = []
    x = b.repeat(lambda v: (traced.append(v), block(b, v))[1], x, times)
    for _ in range(times):
        y = block(c, y)
    assert b.build(b.relu(x)) == c.build(c.relu(y))
    assert len(traced) <= 2


def test_repeat_of_a_block_that_reads_a_value_from_outside() -> None:
    def nets() -> list[Graph]:
        out = []
        for loop in (False, True):
            b = GraphBuilder()
            outside, x = b.input((1, 4)), b.input((1, 4))
            block = lambda v: b.relu(b.op("Sub", [v, outside]))  # noqa: B023, E731
            if loop:
                for _ in range(5):
                    x = block(x)
            else:
                x = b.repeat(block, x, 5)
            out.append(b.build(x))
        return out
    once, loop = nets()
    assert once == loop
    assert once.n_nodes == 12


def test_repeat_of_a_block_whose_result_is_not_its_last_node() -> None:
    def block(b: GraphBuilder, v: int) -> int:
        y = b.relu(v)
        b.op("Sigmoid", [y])  # dead
        return y
    b = GraphBuilder()
    g = b.build(b.repeat(lambda v: block(b, v), b.input((1, 4)), 6))
    assert g.ops == ["Input", *["Relu"] * 6]


def test_repeat_of_the_identity() -> None:
    b = GraphBuilder()
    x = b.input((1, 4))
    assert b.repeat(lambda v: v, x, 9) == x


@pytest.mark.parametrize("residual", [True, False])
def test_memo_is_the_block_itself(residual: bool) -> None:
    """Traced for the first input of each shape, copied for the others, in this network and in the next ones."""
    def block(b: GraphBuilder, v: int) -> int:
        y = b.relu(b.conv2d(v, 8, kernel=1))
        b.op("Sigmoid", [y])  # dead: the result is not the last node
        return b.add(y, v) if residual and b.shape(v)[1] == 8 else b.conv2d(y, 8)

    def net(use: bool, channels: int) -> Graph:
        b = GraphBuilder()
        x = first = b.input((1, channels, 8, 8))
        for _ in range(4):
            x = b.memo((test_memo_is_the_block_itself, residual), counted, x) if use else block(b, x)
        return b.build(b.concat([x, b.conv2d(first, 8, kernel=1)]))

    traced: list[int] = []

    def counted(b: GraphBuilder, v: int) -> int:
        traced.append(v)
        return block(b, v)

    for channels in (3, 8, 3, 8):
        assert net(True, channels) == net(False, channels)
    assert len(traced) <= 2


def test_memo_of_the_identity_and_of_a_block_that_reads_other_values() -> None:
    b = GraphBuilder()
    outside, x = b.input((1, 4)), b.input((1, 4))
    assert [b.memo("identity", lambda b, v: v, v) for v in (x, outside)] == [x, outside]
    with pytest.raises(GraphError, match=r"'outside'.*neither its argument nor its own"):
        b.memo("outside", lambda b, v: b.op("Sub", [v, outside]), x)
    with pytest.raises(GraphError, match="neither its argument nor its own"):
        b.memo("outside", lambda b, v: outside, x)


def test_build_leaves_out_what_the_outputs_do_not_need() -> None:
    b = GraphBuilder(name="n", family="f")
    x, unused = b.input((1, 4)), b.input((1, 5))
    y = b.relu(x)
    b.op("Sigmoid", [b.relu(unused)])
    b.op("Tanh", [y])
    g = b.build(y)
    assert (g.ops, g.name, g.family) == (["Input", "Relu"], "n", "f")
    assert len(b.build(y, x).outputs) == 2


def test_a_builder_can_go_on_after_build() -> None:
    b = GraphBuilder()
    y = b.relu(b.input((1, 4)))
    first = b.build(y)
    assert b.build(b.relu(y)).n_nodes == 3
    assert b.build(y) == first


@pytest.mark.parametrize(("call", "message"), [
    (lambda b, x: b.conv2d(x, 8, kernel=11, padding=0), r"a window of 11 \(dilation 1\) does not fit into 8"),
    (lambda b, x: b.max_pool(x, 9), "window of 9"),
    (lambda b, x: b.conv2d(x, 8, groups=3), "4 input and 8 output channels are not multiples of 3 groups"),
    (lambda b, x: b.conv2d(b.input((1, 4)), 8), r"conv2d needs a shape \(N, C, H, W\), got \(1, 4\)"),
    (lambda b, x: b.avg_pool(b.input((1, 4)), 2), r"pooling needs a shape"),
    (lambda b, x: b.concat([x, b.input((1, 4, 8, 9))]), r"cannot be joined along axis 1"),
    (lambda b, x: b.concat([x, b.input((1, 4))]), r"cannot be joined"),
    (lambda b, x: b.add(x, b.input((1, 5, 8, 8))), "do not broadcast"),
    (lambda b, x: b.op("NoSuch", [x]), "not in the vocabulary"),
    (lambda b, x: b.slice(x, (2,), (9,)), "negative dimension"),
])
def test_impossible_calls_are_refused_at_once(call, message: str) -> None:  # type: ignore[no-untyped-def]
    b = GraphBuilder()
    with pytest.raises(GraphError, match=message):
        call(b, b.input((1, 4, 8, 8)))


def test_build_refuses_values_of_another_builder() -> None:
    b = GraphBuilder(name="net")
    x = b.relu(b.input((1, 4)))
    for outputs in ((99,), (x, -1)):
        with pytest.raises(GraphError, match=r"graph 'net': outputs .* are not all values of this builder \(0\.\.1\)"):
            b.build(*outputs)
    with pytest.raises(GraphError, match="at least one output"):
        b.build()
    y = b.add_node(b.build(x).nodes[1], [7])
    with pytest.raises(GraphError, match=r"node 2 \(Relu\): argument 0 is value 7, which was not made before it"):
        b.build(y)


def test_add_node_with_a_shape_that_does_not_fit_is_refused_by_build() -> None:
    b = GraphBuilder()
    relu = b.build(b.relu(b.input((1, 4)))).nodes[1]
    with pytest.raises(GraphError, match=r"\(Relu\): its producers give shapes \[\(1, 5\)\]"):
        b.build(b.add_node(relu, [b.input((1, 5))]))
