"""Node features: rows by hand, and that they follow the architecture alone."""

from __future__ import annotations

import numpy as np
import pytest

from cg import Graph, GraphBuilder, NodeSpec, features
from cg.global_statistics import STATISTICS
from cg.node_features import NODE_COLUMNS, hwc, node_matrix, op_index
from cg.vocabulary import OPS


def row(spec: NodeSpec) -> dict[str, float]:
    """Features with the logarithm undone."""
    from cg.node_features import node_rows
    from cg.spec import TABLE

    values = node_rows(np.array([TABLE.intern(spec)]))[0]
    out = dict(zip(NODE_COLUMNS, (2.0 ** values - 1).tolist(), strict=True))
    return {**out, "has_bias": float(values[10])}


def test_a_convolution_by_hand() -> None:
    attrs = (("dilations", (1, 2)), ("group", 4), ("kernel_shape", (5, 3)), ("strides", (2, 1)))
    found = row(NodeSpec("Conv", ((1, 8, 32, 30),), (1, 16, 14, 26), (16, 2, 5, 3), True, attrs))
    assert found == pytest.approx({
        "in_h": 32, "in_w": 30, "in_c": 8, "out_h": 14, "out_w": 26, "out_c": 16, "weight_out": 16, "weight_in": 2,
        "weight_h": 5, "weight_w": 3, "has_bias": 1, "stride": 2, "dilation": 2, "group": 4}, rel=1e-5)


def test_a_dense_layer_by_hand() -> None:
    found = row(NodeSpec("Gemm", ((1, 64),), (1, 10), (10, 64)))
    assert found == pytest.approx({
        "in_h": 1, "in_w": 1, "in_c": 64, "out_h": 1, "out_w": 1, "out_c": 10, "weight_out": 10, "weight_in": 64,
        "weight_h": 0, "weight_w": 0, "has_bias": 0, "stride": 0, "dilation": 0, "group": 0}, rel=1e-5)


def test_inputs_and_joins() -> None:
    assert row(NodeSpec("Input", (), (1, 3, 8, 9)))["in_c"] == 0
    assert row(NodeSpec("Input", (), (1, 3, 8, 9)))["out_w"] == pytest.approx(9)
    joined = row(NodeSpec("Concat", ((1, 3, 8, 8), (1, 5, 8, 8)), (1, 8, 8, 8), attrs=(("axis", 1),)))
    assert joined["in_c"] == pytest.approx(8)


@pytest.mark.parametrize(("shape", "expected"), [
    ((1, 3, 8, 9), (8, 9, 3)), ((1, 197, 64), (197, 1, 64)), ((1, 10), (1, 1, 10)), ((7,), (1, 1, 7)), ((), (1, 1, 1)),
    ((1, 3, 4, 8, 9), (8, 9, 3)),
])
def test_height_width_channels(shape: tuple[int, ...], expected: tuple[int, int, int]) -> None:
    assert hwc(shape) == expected


def test_bundle(nas_graphs: list[Graph]) -> None:
    g = nas_graphs[0]
    f = features(g)
    assert [OPS[i] for i in f.op] == g.ops
    assert f.node.shape == (g.n_nodes, len(NODE_COLUMNS))
    assert f.statistics.shape == (len(STATISTICS),)
    assert (f.op.dtype, f.node.dtype, f.statistics.dtype) == (np.int64, np.float32, np.float32)
    assert np.isfinite(f.node).all()


def test_node_order_does_not_matter(nas_graphs: list[Graph]) -> None:
    rng = np.random.default_rng(0)
    for g in nas_graphs[::4]:
        p = g.permuted(rng.permutation(g.n_nodes))
        assert np.array_equal(node_matrix(p), node_matrix(g))
        assert np.array_equal(op_index(p), op_index(g))


def test_old_rows_survive_the_growth_of_the_table() -> None:
    """Rows are computed once per spec of the process, in an array that grows."""
    b = GraphBuilder()
    g = b.build(b.conv2d(b.input((1, 3, 19, 19)), 5))
    before = node_matrix(g).copy()
    for width in range(1, 700):
        c = GraphBuilder()
        new = c.build(c.linear(c.input((1, 10_000 + width)), 2))
    assert 2.0 ** node_matrix(new)[1, 2] - 1 == pytest.approx(10_000 + 699, rel=1e-4)
    assert np.array_equal(node_matrix(g), before)
