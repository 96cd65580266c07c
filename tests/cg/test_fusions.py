"""Rewrites that fuse: what must become one node, what must not, and laws over random graphs of fusible pieces."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import pi, sqrt
from typing import Any

import numpy as np
import pytest

from cg import Graph, GraphBuilder, NodeSpec, canonicalize
from cg.spec import Shape
from cg.transforms import (
    CHAIN,
    absorb_biases,
    absorb_paddings,
    drop_reshapes,
    flatten_concats,
    fuse_activations,
    fuse_norms,
    unite_rolls,
)

SHAPE: Shape = (1, 6, 8)
Written = Callable[["Net", int], int]


class Net:
    """A builder with the arithmetic that the patterns are written in; every value has the shape ``SHAPE``."""

    def __init__(self, shape: Shape = SHAPE) -> None:
        self.b, self.shape = GraphBuilder(), shape

    def n(self, op: str, x: int, scalar: float, **attrs: Any) -> int:
        return self.b.op(op, [x], scalar=scalar, **attrs)

    def u(self, op: str, x: int, **attrs: Any) -> int:
        return self.b.op(op, [x], **attrs)

    def two(self, op: str, x: int, y: int) -> int:
        return self.b.op(op, [x, y])

    def mean(self, x: int, axes: tuple[int, ...] = (2,)) -> int:
        shape = self.b.shape(x)
        return self.b.op("ReduceMean", [x], tuple(1 if i in axes else d for i, d in enumerate(shape)), axes=axes)

    def constant(self, *shape: int, params: int | None = None) -> int:
        held = int(np.prod(shape)) if params is None else params
        return self.b.add_node(NodeSpec("Constant", (), shape, extra_params=held), ())


def graph_of(written: Written, shape: Shape = SHAPE) -> Graph:
    """Input, Exp, the pattern, Abs: no end of the pattern is an end of the graph."""
    net = Net(shape)
    return net.b.build(net.u("Abs", written(net, net.u("Exp", net.b.input(shape)))))


def one(op: str, **attrs: Any) -> Graph:
    return graph_of(lambda n, x: n.u(op, x, **attrs))


def erf(n: Net, x: int) -> int:
    return n.n("Add", n.u("Erf", n.n("Mul", x, 0.707107)), 1.0)


def cube(n: Net, x: int) -> int:
    return n.two("Mul", n.two("Mul", x, x), x)


def tanh_gate(n: Net, x: int) -> int:
    inner = n.two("Add", x, n.n("Mul", cube(n, x), 0.044715))
    return n.n("Add", n.u("Tanh", n.n("Mul", inner, sqrt(2 / pi))), 1.0)


def factored_gate(n: Net, x: int) -> int:
    inner = n.n("Add", n.n("Mul", n.n("Pow", x, 2.0), 0.044715), 1.0)
    return n.n("Add", n.u("Tanh", n.two("Mul", n.n("Mul", x, 0.797885), inner)), 1.0)


def relu6(n: Net, x: int) -> int:
    return n.u("Clip", n.n("Add", x, 3.0), min=0.0, max=6.0)


ACTIVATIONS: list[tuple[str, Written, Graph]] = [
    ("swish", lambda n, x: n.two("Mul", x, n.u("Sigmoid", x)), one("Swish")),
    ("swish, gate first", lambda n, x: n.two("Mul", n.u("Sigmoid", x), x), one("Swish")),
    ("mish", lambda n, x: n.two("Mul", x, n.u("Tanh", n.u("Softplus", x))), one("Mish")),
    ("gelu: (x e) / 2", lambda n, x: n.n("Mul", n.two("Mul", x, erf(n, x)), 0.5), one("Gelu")),
    ("gelu: (x / 2) e", lambda n, x: n.two("Mul", n.n("Mul", x, 0.5), erf(n, x)), one("Gelu")),
    ("gelu: x (e / 2)", lambda n, x: n.two("Mul", n.n("Mul", erf(n, x), 0.5), x), one("Gelu")),
    ("gelu: x (1/2 + erf / 2)",
     lambda n, x: n.two("Mul", x, n.n("Add", n.n("Mul", n.u("Erf", n.n("Mul", x, 0.707107)), 0.5), 0.5)), one("Gelu")),
    ("gelu tanh", lambda n, x: n.two("Mul", n.n("Mul", x, 0.5), tanh_gate(n, x)), one("Gelu", approximate="tanh")),
    ("gelu tanh, factored", lambda n, x: n.n("Mul", n.two("Mul", x, factored_gate(n, x)), 0.5),
     one("Gelu", approximate="tanh")),
    ("hard sigmoid", lambda n, x: n.n("Mul", relu6(n, x), 0.166667), one("HardSigmoid", alpha=0.166667)),
    ("hard sigmoid, clipped to 1", lambda n, x: n.u("Clip", n.n("Add", n.n("Mul", x, 0.166667), 0.5), min=0.0, max=1.0),
     one("HardSigmoid", alpha=0.166667)),
    ("hard swish", lambda n, x: n.n("Mul", n.two("Mul", x, relu6(n, x)), 0.166667), one("HardSwish")),
    ("hard swish of hard sigmoid", lambda n, x: n.two("Mul", n.u("HardSigmoid", x, alpha=0.166667), x), one("HardSwish")),
    ("hard swish, divided first", lambda n, x: n.two("Mul", n.n("Mul", relu6(n, x), 0.166667), x), one("HardSwish")),
]


@pytest.mark.parametrize(("name", "written", "expected"), ACTIVATIONS, ids=[a[0] for a in ACTIVATIONS])
def test_written_out_activation_is_one_node(name: str, written: Written, expected: Graph) -> None:
    assert canonicalize(graph_of(written)) == expected
    assert canonicalize(expected) == expected


STAYING: list[tuple[str, Written]] = [
    ("quick gelu", lambda n, x: n.two("Mul", x, n.u("Sigmoid", n.n("Mul", x, 1.702)))),
    ("gate of another value", lambda n, x: n.two("Mul", n.u("Tanh", x), n.u("Sigmoid", x))),
    ("sum instead of product", lambda n, x: n.two("Add", x, n.u("Sigmoid", x))),
    ("erf of x / 2", lambda n, x: n.n("Mul", n.two("Mul", x, n.n("Add", n.u("Erf", n.n("Mul", x, 0.5)), 1.0)), 0.5)),
    ("softplus with a slope", lambda n, x: n.two("Mul", x, n.u("Tanh", n.u("Softplus", x, beta=2.0)))),
    ("shift of 2", lambda n, x: n.n("Mul", n.two("Mul", x, n.u("Clip", n.n("Add", x, 2.0), min=0.0, max=6.0)), 0.166667)),
    ("hard sigmoid of Keras 2", lambda n, x: n.u("Clip", n.n("Add", n.n("Mul", x, 0.2), 0.5), min=0.0, max=1.0)),
]


@pytest.mark.parametrize(("name", "written"), STAYING, ids=[a[0] for a in STAYING])
def test_what_is_another_function_stays(name: str, written: Written) -> None:
    graph = graph_of(written)
    assert fuse_activations(graph) is graph
    assert canonicalize(graph) == graph


def test_a_gate_that_is_read_elsewhere_or_leaves_the_network_is_kept() -> None:
    net = Net()
    x = net.u("Exp", net.b.input(SHAPE))
    gate = net.u("Sigmoid", x)
    twice = net.b.build(net.two("Add", net.two("Mul", x, gate), net.u("Tanh", gate)))
    assert fuse_activations(twice) is twice
    net = Net()
    x = net.u("Exp", net.b.input(SHAPE))
    gate = net.u("Sigmoid", x)
    leaving = net.b.build(net.two("Mul", x, gate), gate)
    assert fuse_activations(leaving) is leaving


def test_a_value_before_the_gate_or_a_factor_that_leaves_the_network_is_kept() -> None:
    net = Net()
    x = net.u("Exp", net.b.input(SHAPE))
    scaled = net.n("Mul", x, 0.707107)
    whole = net.n("Mul", net.two("Mul", x, net.n("Add", net.u("Erf", scaled), 1.0)), 0.5)
    graph = net.b.build(net.two("Add", whole, net.u("Tanh", scaled)))
    assert fuse_activations(graph) is graph
    net = Net()
    half = net.n("Mul", net.b.input(SHAPE), 0.5)
    graph = net.b.build(net.n("Mul", half, 3.0), half)
    assert canonicalize(graph) == graph


def test_values_seen_in_two_shapes_are_not_one_activation() -> None:
    """A contracted transposition stands between the gate and the product."""
    nodes = [NodeSpec("Input", (), (1, 4, 6)), NodeSpec("Sigmoid", ((1, 6, 4),), (1, 6, 4)),
             NodeSpec("Mul", ((1, 4, 6), (1, 4, 6)), (1, 4, 6))]
    graph = Graph.make(nodes, [(0, 1, 0), (0, 2, 0), (1, 2, 1)])
    assert fuse_activations(graph) is graph


def test_a_multiple_of_gelu_keeps_its_factor() -> None:
    graph = canonicalize(graph_of(lambda n, x: n.n("Mul", n.two("Mul", x, erf(n, x)), 1.5)))
    assert graph == graph_of(lambda n, x: n.n("Mul", n.u("Gelu", x), 3.0))


# ---- norms ------------------------------------------------------------------------------------------------------------


def normalised(n: Net, x: int, axes: tuple[int, ...] = (2,), recentred: bool = False, quotient: bool = True) -> int:
    mean = n.mean(x, axes)
    centred = n.two("Sub", x, mean)
    root = n.u("Sqrt", n.n("Add", n.mean(n.n("Pow", centred, 2.0), axes), 1e-6))
    again = n.two("Sub", x, n.mean(x, axes)) if recentred else centred
    return n.two("Div", again, root) if quotient else n.two("Mul", again, n.u("Reciprocal", root))


def affine(n: Net, x: int, *shape: int) -> int:
    return n.two("Add", n.two("Mul", n.constant(*shape), x), n.constant(*shape))


def norm(op: str, shape: Shape, weight: Shape = (), bias: bool = False, **attrs: object) -> Written:
    return lambda n, x: n.b.add_node(NodeSpec(op, (shape,), shape, weight, bias, tuple(attrs.items())), [x])


def rms(n: Net, x: int) -> int:
    root = n.u("Sqrt", n.n("Add", n.mean(n.two("Mul", x, x)), 1e-6))
    return n.two("Mul", x, n.u("Reciprocal", root))


def by_moments(n: Net, x: int) -> int:
    mean = n.mean(x)
    spread = n.two("Sub", n.mean(n.n("Pow", x, 2.0)), n.n("Pow", mean, 2.0))
    return n.two("Div", n.two("Sub", x, n.mean(x)), n.u("Sqrt", n.n("Add", spread, 1e-5)))


LAYER = norm("LayerNormalization", SHAPE, (8,), True, axis=-1)
IMAGE: Shape = (1, 6, 4, 4)
NORMS: list[tuple[str, Shape, Written, Written]] = [
    ("layer norm", SHAPE, lambda n, x: affine(n, normalised(n, x), 8), LAYER),
    ("product with the inverse", SHAPE, lambda n, x: affine(n, normalised(n, x, quotient=False), 8), LAYER),
    ("centred twice", SHAPE, lambda n, x: affine(n, normalised(n, x, recentred=True), 1, 1, 8), LAYER),
    ("by moments", SHAPE, lambda n, x: affine(n, by_moments(n, x), 8), LAYER),
    ("no scale", SHAPE, normalised, norm("LayerNormalization", SHAPE, axis=-1)),
    ("two axes", SHAPE, lambda n, x: affine(n, normalised(n, x, (1, 2)), 6, 8),
     lambda n, x: n.b.add_node(NodeSpec("LayerNormalization", (SHAPE,), SHAPE, (6, 8), True, (("axis", -2),), 42), [x])),
    ("over channels", IMAGE, lambda n, x: affine(n, normalised(n, x, (1,)), 6, 1, 1),
     lambda n, x: n.b.op("Reshape", [norm("LayerNormalization", (1, 4, 4, 6), (6,), True, axis=-1)(n, x)], IMAGE)),
    ("over pixels", IMAGE, lambda n, x: affine(n, normalised(n, x, (2, 3)), 6, 1, 1),
     norm("InstanceNormalization", IMAGE, (6,), True)),
    ("rms", SHAPE, lambda n, x: n.two("Mul", rms(n, x), n.constant(8)), norm("RMSNormalization", SHAPE, (8,), axis=-1)),
    ("scale behind a layer without", SHAPE, lambda n, x: affine(n, norm("LayerNormalization", SHAPE, axis=-1)(n, x), 8), LAYER),
]


@pytest.mark.parametrize(("name", "shape", "written", "expected"), NORMS, ids=[a[0] for a in NORMS])
def test_written_out_norm_is_one_node(name: str, shape: Shape, written: Written, expected: Written) -> None:
    graph = graph_of(written, shape)
    assert canonicalize(graph) == drop_reshapes(graph_of(expected, shape))
    assert canonicalize(graph).params == graph.params


def test_instance_norm_of_groups_is_group_norm() -> None:
    def written(n: Net, x: int) -> int:
        flat = n.b.op("Reshape", [x], (1, 2, 48))
        back = n.b.op("Reshape", [n.u("InstanceNormalization", flat)], IMAGE)
        return affine(n, back, 6, 1, 1)

    assert canonicalize(graph_of(written, IMAGE)) == graph_of(
        norm("GroupNormalization", IMAGE, (6,), True, num_groups=2), IMAGE)


@pytest.mark.parametrize("written", [
    lambda n, x: n.two("Mul", rms(n, x), n.constant(8, params=3)),  # not a number for each feature
    lambda n, x: n.two("Mul", rms(n, x), n.constant(6, 1)),  # for each token
], ids=["partly trained", "per token"])
def test_a_factor_that_is_no_scale_of_the_features_stays(written: Written) -> None:
    counts = canonicalize(graph_of(written)).op_counts
    assert (counts["RMSNormalization"], counts["Mul"], counts["Constant"]) == (1, 1, 1)


def test_a_constant_with_two_readers_stays() -> None:
    def written(n: Net, x: int) -> int:
        scale = n.constant(8)
        return n.two("Mul", n.two("Mul", scale, rms(n, x)), scale)

    graph = graph_of(written)
    assert canonicalize(graph).op_counts["Constant"] == 1
    assert canonicalize(graph).params == graph.params == 8


@pytest.mark.parametrize("written", [
    lambda n, x: n.two("Div", x, n.u("Sqrt", n.n("Add", n.mean(n.n("Pow", x, 2.0)), 1.0))),  # 1 is no epsilon
    lambda n, x: n.two("Div", x, n.u("Sqrt", n.n("Add", n.mean(n.n("Pow", x, 3.0)), 1e-6))),
    lambda n, x: n.two("Div", n.u("Tanh", x), n.u("Sqrt", n.n("Add", n.mean(n.n("Pow", x, 2.0)), 1e-6))),
    lambda n, x: n.two("Div", n.two("Sub", x, n.mean(x, (1,))), n.u("Sqrt", n.n("Add", n.mean(
        n.n("Pow", n.two("Sub", x, n.mean(x)), 2.0)), 1e-6))),
], ids=["epsilon of 1", "third power", "another numerator", "centred along another axis"])
def test_what_is_no_norm_stays(written: Written) -> None:
    graph = graph_of(written)
    assert fuse_norms(graph) is graph


# ---- products and biases ------------------------------------------------------------------------------------------------

PRODUCTS: list[tuple[str, Written, Written]] = [
    ("factors in a row", lambda n, x: n.n("Mul", n.n("Mul", x, 0.5), 3.0), lambda n, x: n.n("Mul", x, 1.5)),
    ("factors that cancel", lambda n, x: n.n("Mul", n.n("Mul", x, 0.5), 2.0), lambda n, x: x),
    ("sign and factor", lambda n, x: n.n("Mul", n.u("Neg", x), 2.0), lambda n, x: n.n("Mul", x, -2.0)),
    ("factor -1", lambda n, x: n.n("Mul", x, -1.0), lambda n, x: n.u("Neg", x)),
    ("summands in a row", lambda n, x: n.n("Add", n.n("Add", x, 0.5), 3.0), lambda n, x: n.n("Add", x, 3.5)),
    ("2 - x", lambda n, x: n.n("Add", n.u("Neg", x), 2.0), lambda n, x: n.n("Sub", x, 2.0, scalar_first=True)),
    ("square", lambda n, x: n.two("Mul", x, x), lambda n, x: n.n("Pow", x, 2.0)),
    ("cube", cube, lambda n, x: n.n("Pow", x, 3.0)),
    ("root", lambda n, x: n.n("Pow", x, 0.5), lambda n, x: n.u("Sqrt", x)),
    ("inverse root", lambda n, x: n.n("Pow", x, -0.5), lambda n, x: n.u("Reciprocal", n.u("Sqrt", x))),
    ("quotient", lambda n, x: n.two("Mul", n.u("Reciprocal", n.u("Tanh", x)), x), lambda n, x: n.two("Div", x, n.u("Tanh", x))),
    ("sum with a sign", lambda n, x: n.two("Add", n.u("Neg", n.u("Tanh", x)), x), lambda n, x: n.two("Sub", x, n.u("Tanh", x))),
    ("difference with a sign", lambda n, x: n.two("Sub", x, n.u("Neg", n.u("Tanh", x))),
     lambda n, x: n.two("Add", x, n.u("Tanh", x))),
    ("limits", lambda n, x: n.n("Min", n.n("Max", x, -1.0), 1.0), lambda n, x: n.u("Clip", x, min=-1.0, max=1.0)),
    ("relu", lambda n, x: n.u("Clip", x, min=0.0), lambda n, x: n.u("Relu", x)),
    ("relu6", lambda n, x: n.u("Clip", n.u("Relu", x), max=6.0), lambda n, x: n.u("Clip", x, min=0.0, max=6.0)),
    ("two negations", lambda n, x: n.u("Not", n.u("Not", x)), lambda n, x: x),
]


@pytest.mark.parametrize(("name", "written", "expected"), PRODUCTS, ids=[a[0] for a in PRODUCTS])
def test_one_spelling_of_arithmetic(name: str, written: Written, expected: Written) -> None:
    assert canonicalize(graph_of(written)) == canonicalize(graph_of(expected))
    if "inverse root" not in name:
        assert canonicalize(graph_of(expected)) == graph_of(expected)


@pytest.mark.parametrize("written", [
    lambda n, x: n.two("Add", n.u("Neg", n.u("Tanh", x)), n.u("Neg", x)), lambda n, x: n.n("Pow", x, 2.0, scalar_first=True),
    lambda n, x: n.u("Clip", n.u("Clip", x, min=3.0), max=1.0), lambda n, x: n.n("Sub", x, 2.0, scalar_first=True),
    lambda n, x: n.two("Mul", n.u("Reciprocal", x), n.u("Reciprocal", n.u("Tanh", x))),
], ids=["two signs", "power of a number", "limits that cross", "number first", "two inverses"])
def test_arithmetic_that_stays(written: Written) -> None:
    graph = graph_of(written)
    assert canonicalize(graph) == graph


@pytest.mark.parametrize(("a", "b", "whole"), [(0.125, None, 0.125), (0.353553, 0.353553, 0.125), (None, 0.5, 0.5),
                                               (0.329878, 0.329878, 0.108819), (4.0, 0.25, None)])
def test_factors_of_a_matrix_product_stand_behind_it(a: float | None, b: float | None, whole: float | None) -> None:
    """0.329878 is 84.4 ** -0.25: its square, rounded, is not an inverse root and stays what it is."""
    square: Shape = (1, 8, 8)

    def written(n: Net, x: int) -> int:
        y = n.u("Tanh", x)
        return n.u("Softmax", n.b.op("MatMul", [n.n("Mul", x, a) if a else x, n.n("Mul", y, b) if b else y], square), axis=2)

    def expected(n: Net, x: int) -> int:
        product = n.b.op("MatMul", [x, n.u("Tanh", x)], square)
        return n.u("Softmax", n.n("Mul", product, whole) if whole else product, axis=2)

    assert canonicalize(graph_of(written, square)) == graph_of(expected, square)


def test_an_offset_becomes_the_bias_of_its_layer() -> None:
    def layer(bias: bool) -> Written:
        return lambda n, x: n.b.add_node(NodeSpec("Gemm", (SHAPE,), (1, 6, 5), (5, 8), bias), [x])

    def with_offset(*shape: int) -> Graph:
        return graph_of(lambda n, x: n.two("Add", n.constant(*shape), layer(False)(n, x)))

    assert canonicalize(with_offset(5)) == canonicalize(with_offset(1, 1, 5)) == graph_of(layer(True))
    for graph in (with_offset(6, 5), with_offset(6, 1), with_offset(1)):  # positions, rows, one number
        assert absorb_biases(graph) is graph
    image: Shape = (1, 3, 6, 6)
    conv = graph_of(lambda n, x: n.two("Add", n.b.conv2d(x, 5), n.constant(5, 1, 1)), image)
    assert canonicalize(conv) == graph_of(lambda n, x: n.b.conv2d(x, 5, bias=True), image)


def test_a_bias_of_layers_that_share_a_weight_counts_where_the_weight_does() -> None:
    net = Net()
    x = net.b.input(SHAPE)
    short = net.b.op("Slice", [x], (1, 3, 8), axes=(1,), starts=(3,), ends=(6,))
    shared, offset = NodeSpec("Gemm", ((1, 3, 8),), (1, 3, 5), (5, 8), extra_params=-40), net.constant(5)
    a = net.two("Add", net.b.add_node(NodeSpec("Gemm", (SHAPE,), (1, 6, 5), (5, 8)), [x]), offset)
    b = net.two("Add", net.b.add_node(shared, [short]), offset)
    graph = canonicalize(net.b.build(a, b))
    assert graph.params == 45
    assert sorted(n.extra_params for n in graph.nodes if n.op == "Gemm") == [-45, 0]
    assert "Add" not in graph.ops


def padded(n: Net, x: int, pads: tuple[int, ...], **attrs: object) -> int:
    shape = tuple(d + pads[i] + pads[len(pads) // 2 + i] for i, d in enumerate(n.b.shape(x)))
    return n.b.op("Pad", [x], shape, pads=pads, **attrs)  # type: ignore[arg-type]


def test_zeros_around_an_image_belong_to_the_window_that_reads_them() -> None:
    image: Shape = (1, 3, 8, 8)
    around = (0, 0, 1, 1, 0, 0, 1, 1)
    conv = graph_of(lambda n, x: n.b.conv2d(padded(n, x, around), 4, kernel=3, padding=0), image)
    assert canonicalize(conv) == graph_of(lambda n, x: n.b.conv2d(x, 4, kernel=3), image)
    pool = graph_of(lambda n, x: n.b.avg_pool(padded(n, x, around), 3, 1), image)
    assert canonicalize(pool) == graph_of(lambda n, x: n.b.avg_pool(x, 3, 1, 1), image)
    one_side = canonicalize(graph_of(lambda n, x: n.b.conv2d(padded(n, x, (0, 0, 0, 0, 0, 0, 1, 1)), 4, 3, 2, 0), image))
    assert one_side.nodes[2].attr("pads") == (0, 0, 1, 1)
    for written in (lambda n, x: n.b.conv2d(padded(n, x, around, value=1.0), 4, padding=0),
                    lambda n, x: n.b.conv2d(padded(n, x, around, mode="reflect"), 4, padding=0),
                    lambda n, x: n.b.conv2d(padded(n, x, (0, 1, 0, 0, 0, 0, 0, 0)), 4, padding=0),
                    lambda n, x: n.b.max_pool(padded(n, x, around), 3, 1),
                    lambda n, x: n.b.avg_pool(padded(n, x, around), 3, 1, 1, count_include_pad=False)):
        graph = graph_of(written, image)
        assert absorb_paddings(graph) is graph


def part(n: Net, x: int, start: int, end: int, axis: int = 1) -> int:
    shape = tuple(end - start if i == axis else d for i, d in enumerate(n.b.shape(x)))
    return n.b.op("Slice", [x], shape, axes=(axis,), starts=(start,), ends=(end,))


def test_a_shift_cut_out_and_joined_is_a_roll() -> None:
    def along(n: Net, x: int, axis: int, cut: int) -> int:
        return n.b.concat([part(n, x, cut, SHAPE[axis], axis), part(n, x, 0, cut, axis)], axis)

    def roll(n: Net, x: int, axes: tuple[int, ...], shifts: tuple[int, ...]) -> int:
        return n.u("Roll", x, axes=axes, shifts=shifts)

    expected = graph_of(lambda n, x: roll(n, x, (1, 2), (4, 3)))
    assert canonicalize(expected) == expected
    for written in (lambda n, x: along(n, along(n, x, 1, 2), 2, 5), lambda n, x: roll(n, x, (2, 1), (-5, -2)),
                    lambda n, x: roll(n, roll(n, x, (2,), (3,)), (1,), (-2,))):
        assert canonicalize(graph_of(written)) == expected
    assert canonicalize(graph_of(lambda n, x: roll(n, roll(n, x, (1,), (2,)), (1,), (4,)))) == graph_of(lambda n, x: x)
    for written in (lambda n, x: n.b.concat([part(n, x, 2, 6), part(n, x, 0, 3)]),  # overlap
                    lambda n, x: n.b.concat([part(n, x, 2, 6), part(n, x, 1, 3)]),
                    lambda n, x: n.b.concat([part(n, x, 0, 2), part(n, x, 2, 6)])):  # nothing moves
        graph = graph_of(written)
        assert unite_rolls(graph) is graph


def test_joins_of_joins_are_one_and_equal_nodes_stay_two() -> None:
    def parts(n: Net, x: int) -> list[int]:
        return [n.u(op, x) for op in ("Relu", "Tanh", "Sin")]

    nested = graph_of(lambda n, x: n.b.concat([n.b.concat(parts(n, x)[:2]), parts(n, x)[2]]))
    assert canonicalize(nested).op_counts["Concat"] == 1
    other_axis = graph_of(lambda n, x: n.b.concat([n.b.concat(parts(n, x)[:2], 2), n.b.concat(parts(n, x)[1:], 2)], 1))
    assert flatten_concats(other_axis) is other_axis
    twice = graph_of(lambda n, x: n.two("Add", n.u("Relu", part(n, x, 1, 3)), n.u("Tanh", part(n, x, 1, 3))))
    assert canonicalize(twice) == twice
    computed = graph_of(lambda n, x: n.two("Add", n.u("Relu", x), n.u("Relu", x)))
    assert canonicalize(computed) == computed  # cells of search spaces count both


def test_a_constant_has_no_leading_ones() -> None:
    def masked(*shape: int) -> Graph:
        return graph_of(lambda n, x: n.two("Sub", x, n.constant(*shape)))

    assert canonicalize(masked(1, 6, 8)) == canonicalize(masked(6, 8)) == masked(6, 8)
    assert canonicalize(masked(1, 6, 1)) == masked(6, 1)
    assert canonicalize(masked(1, 1, 1)).nodes[1].out_shape == ()
    joined = graph_of(lambda n, x: n.b.concat([x, n.constant(1, 2, 8)]))
    assert canonicalize(joined) == joined
    larger = graph_of(lambda n, x: n.two("Add", n.b.op("ReduceMean", [x], (1,), axes=(0, 1, 2)), n.constant(1, 4, 4)), SHAPE)
    assert (1, 4, 4) in [n.out_shape for n in canonicalize(larger).nodes if n.op == "Constant"]  # it gives the sum its axes


# ---- laws -------------------------------------------------------------------------------------------------------------

PIECES: list[Written] = [*(w for _, w, _ in ACTIVATIONS), *(w for _, w in STAYING), *(w for _, w, _ in PRODUCTS), normalised,
                         rms, by_moments, lambda n, x: affine(n, normalised(n, x), 8), lambda n, x: affine(n, rms(n, x), 8)]


def random_graph(rng: np.random.Generator, pieces: int = 12) -> Graph:
    net = Net()
    values = [net.b.input(SHAPE)]
    for _ in range(pieces):
        x = values[int(rng.integers(max(0, len(values) - 3), len(values)))]
        piece = PIECES[int(rng.integers(len(PIECES)))]
        values.append(piece(net, x))
        if rng.random() < 0.3:
            values.append(net.two("Add", values[-1], values[int(rng.integers(len(values)))]))
    return net.b.build(values[-1], values[int(rng.integers(len(values)))])


@pytest.mark.parametrize("seed", range(80))
def test_fusing_is_idempotent_keeps_parameters_and_ignores_node_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = random_graph(rng)
    canonical = canonicalize(graph)
    assert canonicalize(canonical) == canonical
    assert canonical.params == graph.params
    assert len(canonical.outputs) == len(set(graph.outputs.tolist()))
    assert canonicalize(graph.permuted(rng.permutation(graph.n_nodes).tolist())) == canonical


def test_graphs_of_the_search_spaces_are_left_alone() -> None:
    spaces = pytest.importorskip("evo_search", reason="the search spaces are not there yet")
    rng = np.random.default_rng(3)
    for name in ("nasbench101", "nasbench201", "nasbench301"):
        space = spaces.get_space(name)
        for _ in range(40):
            graph = space.to_graph(space.sample(rng))
            assert all(rewrite(graph) is graph for rewrite in CHAIN)


def test_nothing_to_do_takes_no_time_and_ten_times_the_nodes_not_much_more_than_ten_times_as_long() -> None:
    def seconds(graph: Graph) -> float:
        best = np.inf
        for _ in range(7):
            start = time.perf_counter()
            canonicalize(graph)
            best = min(best, time.perf_counter() - start)
        return best

    def spelled_out(blocks: int) -> Graph:
        net = Net()
        y = net.b.input(SHAPE)
        for _ in range(blocks):
            y = net.two("Add", y, ACTIVATIONS[3][1](net, affine(net, normalised(net, y), 8)))
        graph = net.b.build(y)
        assert canonicalize(graph).n_nodes == 1 + 3 * blocks
        return graph

    b = GraphBuilder()
    x = b.input((1, 8, 8, 8))
    for _ in range(700):
        x = b.relu(b.batch_norm(b.conv2d(x, 8)))
    small, large = spelled_out(13), spelled_out(130)
    assert large.n_nodes > 1900
    took = seconds(large)  # 15 ms on an idle machine
    assert seconds(b.build(x)) < took / 10  # 0.1 ms
    assert took < 40 * seconds(small)  # quadratic would be a hundred times


def test_contract_of_every_rewrite_is_written_down() -> None:
    for rewrite in CHAIN:
        assert (rewrite.__doc__ or "").startswith("Contract:")
