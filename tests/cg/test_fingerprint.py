"""``fingerprint``: equal for equal architectures, different for each single ingredient, the same in every process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cg import Graph, GraphBuilder, NodeSpec, fingerprint

S = (1, 4, 8, 8)
Net = Callable[[GraphBuilder, int], int]


def net(f: Net, shape: tuple[int, ...] = S, name: str = "") -> str:
    b = GraphBuilder(name=name)
    return fingerprint(b.build(f(b, b.input(shape))))


def outputs(f: Callable[[GraphBuilder, int], list[int]]) -> str:
    b = GraphBuilder()
    return fingerprint(b.build(*f(b, b.input(S))))


def two(op: str, swap: bool) -> str:
    """``op(relu(x), sigmoid(x))`` or with the arguments exchanged."""
    def f(b: GraphBuilder, x: int) -> int:
        args = [b.relu(x), b.op("Sigmoid", [x])]
        args = args[::-1] if swap else args
        return b.concat(args) if op == "Concat" else b.op(op, args)
    return net(f)


def shared(b: GraphBuilder, x: int) -> int:
    y = b.conv2d(x, 4)
    return b.add(b.relu(y), b.op("Sigmoid", [y]))


def copied(b: GraphBuilder, x: int) -> int:
    return b.add(b.relu(b.conv2d(x, 4)), b.op("Sigmoid", [b.conv2d(x, 4)]))


@pytest.mark.parametrize(("a", "c"), [
    (lambda b, x: b.conv2d(x, 4), lambda b, x: b.conv2d(x, 5)),
    (lambda b, x: b.conv2d(x, 4, kernel=3), lambda b, x: b.conv2d(x, 4, kernel=5)),
    (lambda b, x: b.conv2d(x, 4, stride=1, padding=0), lambda b, x: b.conv2d(x, 4, stride=2, padding=0)),
    (lambda b, x: b.conv2d(x, 4, padding=1), lambda b, x: b.conv2d(x, 4, padding=0)),
    (lambda b, x: b.global_avg_pool(b.conv2d(x, 4, padding=1)), lambda b, x: b.global_avg_pool(b.conv2d(x, 4, padding=0))),
    (lambda b, x: b.conv2d(x, 4, kernel=3, padding=1, dilation=1), lambda b, x: b.conv2d(x, 4, padding=2, dilation=2)),
    (lambda b, x: b.conv2d(x, 4, groups=1), lambda b, x: b.conv2d(x, 4, groups=2)),
    (lambda b, x: b.conv2d(x, 4, bias=False), lambda b, x: b.conv2d(x, 4, bias=True)),
    (lambda b, x: b.conv2d(x, 4, kernel=(1, 3)), lambda b, x: b.conv2d(x, 4, kernel=(3, 1))),
    (lambda b, x: b.linear(x, 5), lambda b, x: b.linear(x, 5, bias=False)),
    (lambda b, x: b.max_pool(x, 3, 1, 1), lambda b, x: b.avg_pool(x, 3, 1, 1)),
    (lambda b, x: b.max_pool(x, 2, 2), lambda b, x: b.max_pool(x, 2, 2, ceil_mode=True)),
    (lambda b, x: b.avg_pool(x, 3, 1, 1), lambda b, x: b.avg_pool(x, 3, 1, 1, count_include_pad=False)),
    (lambda b, x: b.relu(x), lambda b, x: b.op("Sigmoid", [x])),
    (lambda b, x: b.relu(x), lambda b, x: b.relu(b.relu(x))),
    (lambda b, x: b.relu(b.batch_norm(x)), lambda b, x: b.batch_norm(b.relu(x))),
    (lambda b, x: b.concat([x, b.relu(x)], axis=2), lambda b, x: b.concat([x, b.relu(x)], axis=3)),
    (lambda b, x: b.slice(x, (2,), (1,)), lambda b, x: b.slice(x, (3,), (1,))),
    (lambda b, x: b.op("Softmax", [x], axis=1), lambda b, x: b.op("Softmax", [x], axis=2)),
    (lambda b, x: b.op("Unknown", [x], name="a"), lambda b, x: b.op("Unknown", [x], name="b")),
    (lambda b, x: b.add(x, x), lambda b, x: b.add(x, b.relu(x))),
    (lambda b, x: b.op("Sub", [x, x]), lambda b, x: b.add(x, x)),
    (shared, copied),
    (lambda b, x: b.add(b.relu(x), b.relu(x)), lambda b, x: (lambda y: b.add(y, y))(b.relu(x))),
], ids=["channels", "kernel", "stride", "padding", "padding of a middle node", "dilation", "groups", "bias", "orientation",
        "bias of a dense layer", "kind of pooling", "ceil mode", "padding counts", "operator", "one more node",
        "edge direction", "axis", "slice axis", "attribute", "unknown name", "producer", "sub or add", "shared or copied",
        "shared or copied twins"])
def test_each_single_ingredient_counts(a: Net, c: Net) -> None:
    assert net(a) != net(c)


def test_input_shape_counts() -> None:
    pooled: Net = lambda b, x: b.global_avg_pool(x)  # noqa: E731
    assert len({net(pooled, s) for s in ((1, 4, 8, 8), (1, 4, 8, 9), (1, 4, 9, 8), (2, 4, 8, 8), (1, 5, 8, 8))}) == 5


@pytest.mark.parametrize("op", ["Concat", "Sub", "Div", "MatMul", "Pow"])
def test_argument_order_counts(op: str) -> None:
    assert two(op, False) != two(op, True)


@pytest.mark.parametrize("op", ["Add", "Mul", "Max", "Min", "Sum"])
def test_argument_order_of_commutative_operators_does_not(op: str) -> None:
    assert two(op, False) == two(op, True)


def test_argument_order_counts_far_below_too() -> None:
    """Two arguments that differ only three nodes further up."""
    def f(b: GraphBuilder, x: int, swap: bool) -> int:
        left, right = b.relu(b.batch_norm(b.conv2d(x, 4, 3))), b.relu(b.batch_norm(b.conv2d(x, 4, 5)))
        return b.concat([right, left] if swap else [left, right])
    assert net(lambda b, x: f(b, x, False)) != net(lambda b, x: f(b, x, True))


def test_choice_of_outputs_counts() -> None:
    def chain(b: GraphBuilder, x: int) -> list[int]:
        values = [x]
        for _ in range(4):
            values.append(b.relu(values[-1]))
        return values
    assert len({outputs(lambda b, x, k=k: [chain(b, x)[4], *chain(b, x)[k:k]]) for k in range(3)}) == 1

    def tapped(k: int) -> str:
        def f(b: GraphBuilder, x: int) -> list[int]:
            values = chain(b, x)
            return [values[4], values[k]] if k < 4 else [values[4]]
        return outputs(f)
    assert len({tapped(k) for k in range(5)}) == 5


def test_which_of_two_twins_is_read_counts() -> None:
    """The same nodes and the same degrees; only a look both up and down an edge tells the two apart."""
    def f(b: GraphBuilder, x: int, crossed: bool) -> int:
        p, q = b.relu(x), b.relu(x)
        g = [b.op("Sigmoid", [p]), b.op("Sigmoid", [p if crossed else q])]
        h = [b.op("Tanh", [q if crossed else p]), b.op("Tanh", [q])]
        return b.concat([*g, *h])
    assert net(lambda b, x: f(b, x, False)) != net(lambda b, x: f(b, x, True))


def test_names_do_not_count() -> None:
    relu: Net = lambda b, x: b.relu(x)  # noqa: E731
    assert net(relu, name="a") == net(relu, name="b")


OPS = ("Relu", "Sigmoid", "Conv", "Add", "Sub", "Concat")


def random_graph(choices: list[tuple[int, int, int]]) -> Graph:
    """A DAG on (1, 4, 8, 8) values from a list of (operator, first producer, second producer)."""
    b = GraphBuilder()
    values = [b.input(S), b.input(S)]
    for op, i, j in choices:
        x, y = values[i % len(values)], values[j % len(values)]
        name = OPS[op]
        if name == "Conv":
            values.append(b.conv2d(x, 4))
        elif name == "Concat":
            values.append(b.conv2d(b.concat([x, y]), 4, kernel=1))
        elif name in ("Add", "Sub"):
            values.append(b.op(name, [x, y]))
        else:
            values.append(b.op(name, [x]))
    return b.build(*values[-2:])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, len(OPS) - 1), st.integers(0, 30), st.integers(0, 30)), max_size=25),
       st.randoms(use_true_random=False))
def test_node_order_does_not_count(choices: list[tuple[int, int, int]], random) -> None:  # type: ignore[no-untyped-def]
    g = random_graph(choices)
    order = list(range(g.n_nodes))
    random.shuffle(order)
    assert g.permuted(order).digest == g.digest


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, len(OPS) - 1), st.integers(0, 30), st.integers(0, 30)), min_size=3, max_size=25),
       st.integers(0, 10_000))
def test_a_moved_edge_counts(choices: list[tuple[int, int, int]], pick: int) -> None:
    """Moving one edge to another producer gives another fingerprint, unless the graph is isomorphic (tested by search)."""
    g = random_graph(choices)
    edges = np.stack([g.src, g.dst, g.arg], 1).astype(np.int64)
    e = pick % len(edges)
    others = [i for i in range(edges[e, 1]) if i != edges[e, 0] and g.nodes[i].out_shape == g.nodes[edges[e, 0]].out_shape]
    if not others:
        return
    edges[e, 0] = others[pick % len(others)]
    moved = Graph.make(g.spec, edges, g.outputs.tolist())
    assert (moved.digest == g.digest) == isomorphic(moved, g)


def isomorphic(a: Graph, c: Graph) -> bool:
    """Exact test by backtracking over the nodes in topological order: the oracle for small graphs."""
    if sorted(a.spec) != sorted(c.spec) or a.n_edges != c.n_edges or len(a.outputs) != len(c.outputs):
        return False
    commutes = [n.op in ("Add", "Mul") for n in a.nodes]
    out_a, out_c = set(a.outputs.tolist()), set(c.outputs.tolist())

    def extend(mapping: list[int]) -> bool:
        i = len(mapping)
        if i == a.n_nodes:
            return True
        wanted = [mapping[s] for s in a.inputs_of(i)]
        for j in range(c.n_nodes):
            if j in mapping or c.spec[j] != a.spec[i] or (i in out_a) != (j in out_c):
                continue
            got = c.inputs_of(j)
            if (sorted(got) == sorted(wanted) if commutes[i] else got == wanted) and extend([*mapping, j]):
                return True
        return False
    return extend([])


def test_the_oracle_knows_both_answers() -> None:
    g = random_graph([(0, 0, 0), (3, 2, 1), (4, 2, 3), (1, 0, 0)])
    assert isomorphic(g, g.permuted(np.random.default_rng(0).permutation(g.n_nodes)))
    assert not isomorphic(g, random_graph([(0, 0, 0), (3, 2, 1), (4, 3, 2), (1, 0, 0)]))


def test_nasbench101_fingerprints_agree_with_the_official_hashes() -> None:
    """2,000 random cells, half of them with at most 5 vertices, where isomorphic pairs are frequent, and 500 relabelled ones.

    The benchmark itself lets the order of the vertices that feed the output decide on channels (a remainder goes to the
    first ones), on the order of a concatenation and, where there are three, on the order of a sum, and hashes such
    networks alike. Only those may differ here.
    """
    from evo_search import get_space
    from evo_search.spaces.nasbench101 import Genome101, bit, module_hash, prune, sources

    space, rng = get_space("nasbench101"), np.random.default_rng(3)

    def small() -> Genome101:
        while True:
            v = int(rng.integers(3, 6))
            a = Genome101(v, int(rng.integers(1 << (v * (v - 1) // 2))), tuple(int(o) for o in rng.integers(3, size=v - 2)))
            if space.is_valid(a):
                return a

    def relabelled(a: Genome101) -> Genome101:
        """An isomorphic cell in which the vertices whose order the benchmark uses keep it."""
        ins = sources(a.vertices, a.adjacency)
        kept = [ins[-1], *(group for group in ins if len(group) > 2)]
        place = {0: 0}
        while len(place) < a.vertices - 1:
            ready = [v for v in range(1, a.vertices - 1) if v not in place and all(s in place for s in ins[v])]
            for group in kept:
                waiting = [v for v in group if v not in place]
                ready = [v for v in ready if v not in waiting[1:]]
            place[ready[rng.integers(len(ready))]] = len(place)
        place[a.vertices - 1] = a.vertices - 1
        adjacency = sum(bit(place[x], place[y]) for y in range(a.vertices) for x in ins[y])
        ops = sorted(zip(list(place.values())[1:-1], (a.ops[v - 1] for v in list(place)[1:-1]), strict=True))
        return Genome101(a.vertices, adjacency, tuple(op for _, op in ops))

    def pruned(a: Genome101) -> Genome101:
        out = prune(a)
        assert out is not None
        return out

    cells = [pruned(space.sample(rng)) for _ in range(1000)] + [pruned(small()) for _ in range(1000)]
    prints, hashes = [fingerprint(space.to_graph(a)) for a in cells], [module_hash(a) for a in cells]
    by_print, by_hash = defaultdict(set), defaultdict(set)
    for a, p, h in zip(cells, prints, hashes, strict=True):
        by_print[p].add(h)
        by_hash[h].add((p, len(sources(a.vertices, a.adjacency)[-1])))
    assert all(len(found) == 1 for found in by_print.values())  # never equal for different cells
    apart = [found for found in by_hash.values() if len(found) > 1]
    assert len(apart) < 0.1 * len(by_hash)
    assert all(joined >= 2 for found in apart for _, joined in found)
    assert 900 < len(by_hash) < 1700  # there were many isomorphic pairs

    moved = 0
    for a, p in list(zip(cells, prints, strict=True))[:1500:3]:
        other = relabelled(a)
        moved += other != a
        assert module_hash(other) == module_hash(a)
        assert fingerprint(space.to_graph(other)) == p
    assert moved > 100


STABLE = """
from cg import Graph, GraphBuilder, NodeSpec, fingerprint
if {first}:
    for flag in (1, 1.0, True):
        NodeSpec("Softmax", ((1, 5),), (1, 5), attrs=(("axis", flag),))
        b = GraphBuilder()
        b.build(b.op("Softmax", [b.input((1, 5))], axis=flag), b.op("Softmax", [b.linear(b.input((1, 5)), 3)], axis=flag))
b = GraphBuilder(name="stable")
x = b.relu(b.batch_norm(b.conv2d(b.input((1, 3, 32, 32)), 16, kernel=3)))
x = b.add(x, b.avg_pool(b.conv2d(x, 16, kernel=5, groups=4, bias=True), 3, 1, 1))
y = b.linear(b.global_avg_pool(x), 5)
print(fingerprint(b.build(b.op("Softmax", [y], axis=1))), fingerprint(b.build(b.op("Softmax", [y], axis=True))))
"""
EXPECTED = ["fed450274050471d6687678da7dab1aa", "e32cc58052dd9195b79122d88f0ee191"]


@pytest.mark.parametrize("seed", ["0", "123"])
@pytest.mark.parametrize("first", [False, True])
def test_the_same_in_every_process(seed: str, first: bool) -> None:
    """Whatever the hash seed, whichever specs the process met before, and even if Python calls those equal (1 == True)."""
    run = subprocess.run([sys.executable, "-c", STABLE.format(first=first)], env={**os.environ, "PYTHONHASHSEED": seed},
                         cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert run.stdout.split() == EXPECTED


def test_specs_that_python_calls_equal_keep_their_own_text() -> None:
    a, c = (NodeSpec("Softmax", ((1, 6),), (1, 6), attrs=(("axis", v),)) for v in (1, True))
    assert a == c
    source = NodeSpec("Input", (), (1, 6))
    graphs = [Graph.make([source, s], [(0, 1, 0)]) for s in (a, c, a, c)]
    assert [g.nodes[1].attr("axis") is True for g in graphs] == [False, True, False, True]
    assert graphs[0] == graphs[2] != graphs[1] == graphs[3]
