"""``collapse``: nothing is lost, which is shown by undoing it."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cg import Graph, GraphBuilder
from cg.collapse import Collapsed, collapse

S = (1, 4, 8, 8)


def expand(graph: Graph, c: Collapsed) -> Graph:
    """The graph that a collapsed view stands for; of ``graph`` only specs and outputs of kept nodes are read.

    Kept neighbours of one count above 1 are a run: copied that often, each copy fed by the last node of the one before.
    """
    specs = graph.spec[c.node]
    ins: list[list[int]] = [[] for _ in specs]
    for s, d in zip(c.src, c.dst, strict=True):
        ins[d].append(int(s))
    spec: list[int] = []
    edges: list[tuple[int, int, int]] = []
    outputs: set[int] = set()
    place: dict[int, int] = {}  # kept node -> its latest copy
    for count, members in groupby(range(len(specs)), key=lambda i: int(c.count[i])):
        run = list(members)
        for _ in range(1) if count == 1 else range(count):
            entry = len(spec) - 1
            for i in run:
                for arg, s in enumerate(ins[i]):
                    edges.append((entry if count > 1 and s < run[0] else place[s], len(spec), arg))
                place[i] = len(spec)
                if c.node[i] in graph.outputs:
                    outputs.add(len(spec))
                spec.append(int(specs[i]))
    outputs |= set(range(len(spec))) - {s for s, _, _ in edges}  # what nobody reads leaves the network
    return Graph.make(np.array(spec, np.int32), edges, sorted(outputs))


def chain(text: str, tapped: tuple[int, ...] = ()) -> Graph:
    """r = Relu, s = Sigmoid, c = residual block, d = another one with the same nodes, t = twins, u = crossed twins."""
    b = GraphBuilder(name=text)
    values = [b.input(S)]
    for letter in text:
        x = values[-1]
        if letter in "rs":
            y = b.op({"r": "Relu", "s": "Sigmoid"}[letter], [x])
        elif letter in "cd":
            y = b.relu(b.conv2d(x, 4))
            y = b.op("Sub", [y, x] if letter == "c" else [x, y])
        else:
            p, q = b.relu(x), b.relu(x)
            g = [b.op("Sigmoid", [p]), b.op("Sigmoid", [q if letter == "t" else p])]
            h = [b.op("Tanh", [p if letter == "t" else q]), b.op("Tanh", [q])]
            y = b.conv2d(b.concat([*g, *h]), 4, kernel=1)
        values.append(y)
    return b.build(values[-1], *(values[i] for i in tapped))


def test_a_run_is_kept_once() -> None:
    c = collapse(chain("ccccc"))
    assert c.count.tolist() == [1, 5, 5, 5]
    assert c.node.tolist() == [0, 1, 2, 3]
    assert sorted(zip(c.src.tolist(), c.dst.tolist(), strict=True)) == [(0, 1), (0, 3), (1, 2), (2, 3)]


def test_a_run_of_sequences_is_kept_once() -> None:
    assert collapse(chain("rsrsrs")).count.tolist() == [1, 3, 3]
    assert collapse(chain("srcrcrcs")).count.tolist() == [1, 1, *[3] * 4, 1]


def test_the_longest_gain_wins() -> None:
    assert collapse(chain("rrsrrs")).count.tolist() == [1, 2, 2, 2]


@pytest.mark.parametrize("text", ["", "r", "rs", "rcs", "rcds", "cdr"])
def test_graphs_without_repeats_stay_as_they_are(text: str) -> None:
    g = chain(text)
    c = collapse(g)
    assert c.node.tolist() == list(range(g.n_nodes))
    assert (c.count == 1).all()
    assert np.array_equal(c.src, g.src)
    assert np.array_equal(c.dst, g.dst)


def view(g: Graph) -> tuple:
    c = collapse(g)
    return tuple(g.spec[c.node].tolist()), tuple(c.count.tolist()), tuple(c.src.tolist()), tuple(c.dst.tolist())


@pytest.mark.parametrize(("a", "b"), [
    ("rr", "rrr"), ("rrss", "rsrs"), ("rrrsss", "rsrsrs"), ("ccdd", "cdcd"), ("rrssrrss", "rrssrsrs"), ("cccd", "ccdd"),
    ("tt", "tu"), ("tu", "uu"), ("ttt", "tut"), ("rsrsrr", "rrsrsr"), ("rrsscc", "rsrscc"),
])
def test_different_repeats_give_different_views(a: str, b: str) -> None:
    assert view(chain(a)) != view(chain(b))


def test_a_tapped_block_is_not_like_its_neighbours() -> None:
    plain, first, second = chain("rrrr"), chain("rrrr", (1,)), chain("rrrr", (2,))
    assert collapse(plain).count.tolist() == [1, 4]
    assert view(first) != view(second)
    assert expand(first, collapse(first)) == first
    assert expand(second, collapse(second)) == second


def test_every_block_tapped() -> None:
    for tapped, count in (((1, 3, 5), 3), ((2, 4), 2), ((1, 3), 2), ((1, 5), 1)):
        g = chain("crcrcr", tapped)
        assert collapse(g).count.max() == count
        assert expand(g, collapse(g)) == g


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.text("rscdtu", max_size=14))
def test_expanding_gives_back_the_graph(text: str) -> None:
    g = chain(text)
    c = collapse(g)
    assert c.count.sum() == g.n_nodes
    assert expand(g, c) == g


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.text("rscd", min_size=1, max_size=3), st.integers(1, 4)), max_size=6))
def test_expanding_gives_back_nested_repeats(parts: list[tuple[str, int]]) -> None:
    g = chain("".join(text * times for text, times in parts))
    assert expand(g, collapse(g)) == g


def test_expanding_gives_back_every_network(nas_graphs: list[Graph]) -> None:
    smaller = 0
    for g in nas_graphs:
        c = collapse(g)
        assert c.count.sum() == g.n_nodes
        assert expand(g, c) == g
        smaller += len(c.node) < 0.7 * g.n_nodes
    assert smaller >= 20  # the cells of two of the three spaces repeat


def test_counts_of_a_nasbench201_network() -> None:
    """Three stages of five equal cells, with reductions between them: 5 is the only count beside 1."""
    from evo_search import get_space

    space = get_space("nasbench201")
    g = space.to_graph(space.decode("|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_3x3~2|"))
    c = collapse(g)
    assert set(c.count.tolist()) == {1, 5}
    assert (c.count == 5).sum() * 5 + (c.count == 1).sum() == g.n_nodes


def test_two_inputs_leave_no_cut() -> None:
    b = GraphBuilder()
    x, y = b.input(S), b.input(S)
    for _ in range(3):
        x, y = b.relu(x), b.relu(y)
    g = b.build(x, y)
    assert (collapse(g).count == 1).all()
    assert expand(g, collapse(g)) == g


def test_a_long_network_is_quick() -> None:
    b = GraphBuilder()
    g = b.build(b.repeat(lambda x: b.relu(b.conv2d(x, 4)), b.input(S), 2000))
    assert collapse(g).count.tolist() == [1, 2000, 2000]
