"""``difference`` names the node and the field; ``find_view`` finds the movement that people mean."""

from __future__ import annotations

import numpy as np
import pytest

from cg import Graph, GraphBuilder
from extract.comparison import difference
from extract.torch_build_views import find_view


def network(stride: int = 1, channels: int = 4, relus: int = 1, twice: bool = False) -> Graph:
    b = GraphBuilder()
    x = b.batch_norm(b.conv2d(b.input((1, 3, 8, 8)), channels, stride=stride))
    for _ in range(relus):
        x = b.relu(x)
    return b.build(b.linear(b.add(x, x) if twice else x, 10))


def test_equal_graphs_have_no_difference() -> None:
    g = network()
    assert difference(g, network()) is None
    order = np.random.default_rng(0).permutation(g.n_nodes).tolist()
    assert difference(g, g.permuted(order)) is None


@pytest.mark.parametrize(("other", "words"), [
    (network(stride=2), ["node 1", "Conv", "attribute strides (1, 1) against (2, 2)"]),
    (network(channels=5), ["node 1", "Conv", "weight_shape (4, 3, 3, 3) against (5, 3, 3, 3)"]),
    (network(relus=2), ["second has more: 1 Relu"]),
    (network(twice=True), ["second has more: 1 Add"]),
])
def test_the_first_difference_is_named(other: Graph, words: list[str]) -> None:
    said = difference(network(), other)
    assert said is not None
    assert all(word in said for word in words), said


def test_another_wiring_of_the_same_nodes_is_named() -> None:
    def wired(order: tuple[int, int]) -> Graph:
        b = GraphBuilder()
        x = b.input((1, 4))
        values = [x, b.op("Relu", [x]), b.op("Tanh", [x])]
        return b.build(b.op("Sub", [values[order[0]], values[order[1]]]), values[1], values[2])

    said = difference(wired((0, 1)), wired((0, 2)))
    assert said is not None
    assert "Sub" in said
    assert "arguments come from" in said


VIEWS = {
    "heads of keys, queries, values": ((1, 197, 576), (3, 1, 3, 197, 64), (1, 197, 3, 3, 64), (2, 0, 3, 1, 4)),
    "heads joined": ((1, 3, 197, 64), (1, 197, 192), (1, 3, 197, 64), (0, 2, 1, 3)),
    "keys transposed": ((1, 197, 192), (1, 3, 64, 197), (1, 197, 3, 64), (0, 2, 3, 1)),
    "an image to tokens": ((1, 192, 14, 14), (1, 196, 192), (1, 192, 14, 14), (0, 2, 3, 1)),
    "tokens to an image": ((1, 196, 192), (1, 192, 14, 14), (1, 14, 14, 192), (0, 3, 1, 2)),
    "channels last": ((1, 6, 8, 8), (1, 8, 8, 6), (1, 6, 8, 8), (0, 2, 3, 1)),
    "cut into windows": ((1, 56, 56, 96), (64, 49, 96), (1, 8, 7, 8, 7, 96), (0, 1, 3, 2, 4, 5)),
    "windows put together": ((64, 49, 96), (1, 56, 56, 96), (1, 8, 8, 7, 7, 96), (0, 1, 3, 2, 4, 5)),
    "tokens cut into windows": ((1, 3136, 64), (1, 64, 49, 64), (1, 8, 7, 8, 7, 64), (0, 1, 3, 2, 4, 5)),
    "windows put together to tokens": ((64, 49, 96), (1, 3136, 96), (1, 8, 8, 7, 7, 96), (0, 1, 3, 2, 4, 5)),
    "patches to channels, columns first": ((1, 56, 56, 96), (1, 28, 28, 384), (1, 28, 2, 28, 2, 96), (0, 1, 3, 4, 2, 5)),
    "time first": ((1, 197, 768), (197, 1, 768), (1, 197, 768), (1, 0, 2)),
}


@pytest.mark.parametrize("name", VIEWS)
def test_movements_that_networks_are_written_with(name: str) -> None:
    source, target, factors, order = VIEWS[name]
    view = find_view(source, 0, target)
    assert view is not None
    assert (view.factors, view.order, view.shape, view.sound) == (factors, order, target, True)


@pytest.mark.parametrize(("source", "target"), [((1, 512, 7, 7), (1, 25088)), ((1, 6, 4), (1, 3, 8)), ((1, 8, 8), (64,)),
                                                ((4, 9), (6, 6)), ((1, 5, 7), (1, 35)), ((2, 3), (3, 2, 1))])
def test_every_movement_gives_the_right_shape(source: tuple[int, ...], target: tuple[int, ...]) -> None:
    values = np.arange(np.prod(source)).reshape(source)
    view = find_view(source, None, target)
    assert view is not None
    if view.factors is not None and view.order is not None:
        values = values.reshape(view.factors).transpose(view.order)
    assert sorted(values.reshape(target).ravel()) == list(range(values.size))


def test_equal_shapes_need_no_movement() -> None:
    assert find_view((1, 3, 4), 0, (1, 3, 4)) is None
