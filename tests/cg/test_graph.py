"""``Graph``: what it refuses (naming the node), what it promises about order, and that it is frozen."""

from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from cg import CGError, Graph, GraphBuilder, NodeSpec, fingerprint
from cg.errors import GraphError

S = (1, 4, 8, 8)
IN = NodeSpec("Input", (), S)
RELU = NodeSpec("Relu", (S,), S)
ADD = NodeSpec("Add", (S, S), S)
SUB = NodeSpec("Sub", (S, S), S)


@pytest.mark.parametrize(("nodes", "edges", "outputs", "message"), [
    ([], [], None, r"graph 'g' has no nodes"),
    ([IN, RELU, ADD, RELU], [(0, 1, 0), (1, 2, 0), (3, 2, 1), (2, 3, 0)], None,
     r"is cyclic: (2:Add -> 3:Relu -> 2:Add|3:Relu -> 2:Add -> 3:Relu);"),
    ([IN, RELU, RELU], [(0, 1, 0), (2, 2, 0)], None, r"is cyclic: 2:Relu -> 2:Relu"),
    ([IN, ADD, RELU, RELU], [(0, 1, 0), (2, 1, 1), (1, 2, 0), (2, 3, 0)], None, r"is cyclic: [12]:\w+ -> [12]:\w+ -> [12]"),
    ([RELU, RELU], [(0, 1, 0)], None, r"no source: no Input or Constant node"),
    ([IN, RELU, NodeSpec("Range", (), S), RELU], [(0, 1, 0), (2, 3, 0)], None,
     r"node 1 \(Range\) is disconnected: no Input or Constant reaches it"),
    ([IN, RELU], [], None, r"node \d \(Relu\): 0 arguments are connected, but its spec lists 1 \(allowed .*: 1 to 1\)"),
    ([IN, ADD], [(0, 1, 0)], None, r"node 1 \(Add\): 1 arguments are connected, but its spec lists 2"),
    ([IN, RELU], [(0, 1, 0), (0, 1, 1)], None, r"node 1 \(Relu\): 2 arguments are connected"),
    ([IN, SUB], [(0, 1, 0), (0, 1, 0)], None, r"node 1 \(Sub\): its arguments must be numbered 0 to 1, got \[0, 0\]"),
    ([IN, SUB], [(0, 1, 1), (0, 1, 2)], None, r"numbered 0 to 1, got \[1, 2\]"),
    ([IN, NodeSpec("Relu", ((1, 4, 8, 9),), (1, 4, 8, 9))], [(0, 1, 0)], None,
     r"node 1 \(Relu\): its producers give shapes \[\(1, 4, 8, 8\)\], but it expects \[\(1, 4, 8, 9\)\]"),
    ([IN, RELU], [(0, 2, 0)], None, r"edge \(0, 2, 0\) names a node outside 0\.\.1"),
    ([IN, RELU], [(-1, 1, 0)], None, r"edge \(-1, 1, 0\) names a node outside"),
    ([IN, RELU], [(0, 1, 65536)], None, r"edge \(0, 1, 65536\) names an argument outside"),
    ([IN, RELU], [(0, 1, -1)], None, r"names an argument outside"),
    ([IN, RELU], [(0, 1, 0)], [2], r"outputs \[2\] name a node outside 0\.\.1"),
    ([IN, RELU], [(0, 1, 0)], [-1], r"outputs \[-1\] name a node outside"),
    ([IN, RELU], [(0, 1, 0)], [], r"has no output"),
])
def test_bad_graph_is_refused_by_name(nodes: list, edges: list, outputs: list | None, message: str) -> None:
    with pytest.raises(GraphError, match=message) as caught:
        Graph.make(nodes, edges, outputs, name="g")
    assert "graph 'g'" in str(caught.value)
    assert isinstance(caught.value, CGError)


def test_cycle_far_from_the_input_is_named_node_by_node() -> None:
    """The nodes behind a cycle cannot be sorted either; the message must show the cycle itself."""
    nodes = [IN, ADD, *[RELU] * 20]
    edges = [(0, 1, 0), (5, 1, 1), *((i, i + 1, 0) for i in range(1, 21))]
    with pytest.raises(GraphError, match="cyclic") as caught:
        Graph.make(nodes, edges)
    text = str(caught.value).split(": ", 1)[1].split(";")[0]
    cycle = [int(part.split(":")[0]) for part in text.split(" -> ")]
    assert cycle[0] == cycle[-1]
    assert set(cycle) == {1, 2, 3, 4, 5}
    assert all((a, b) in {(s, d) for s, d, _ in edges} for a, b in pairwise(cycle))


def test_a_node_behind_a_broken_one_is_not_blamed() -> None:
    wrong = NodeSpec("Relu", ((1, 4, 4, 4),), S)
    with pytest.raises(GraphError, match=r"node 2 \(Relu\)"):
        Graph.make([IN, RELU, wrong, RELU], [(0, 1, 0), (1, 2, 0), (2, 3, 0)])


def test_canonical_form(nas_graphs: list[Graph]) -> None:
    for g in nas_graphs:
        assert (g.src < g.dst).all()
        key = g.dst.astype(np.int64) * 1000 + g.arg
        assert (np.diff(key) > 0).all()
        assert (np.diff(g.outputs) > 0).all()
        level = np.zeros(g.n_nodes, int)
        for s, d in zip(g.src, g.dst, strict=True):
            level[d] = max(level[d], level[s] + 1)
        assert (np.diff(level) >= 0).all()
        assert g.validate() is g


def test_handing_over_the_nodes_in_another_order_changes_nothing(nas_graphs: list[Graph]) -> None:
    rng = np.random.default_rng(1)
    for g in nas_graphs[::3]:
        p = g.permuted(rng.permutation(g.n_nodes))
        assert p == g
        assert hash(p) == hash(g)
        assert (p.name, p.family, p.meta) == (g.name, g.family, g.meta)
        assert np.array_equal(p.spec, g.spec)
        assert (p.macs, p.params, p.activation_bytes, p.n_edges) == (g.macs, g.params, g.activation_bytes, g.n_edges)


def test_argument_order_survives() -> None:
    """Sub(relu(x), x): the producer of argument 0 has the higher number."""
    g = Graph.make([SUB, IN, RELU], [(1, 2, 0), (2, 0, 0), (1, 0, 1)])
    assert g.ops == ["Input", "Relu", "Sub"]
    assert g.inputs_of(2) == [1, 0]
    assert g.inputs_of(0) == []
    assert g.outputs.tolist() == [2]


def test_outputs_default_to_nodes_that_nobody_reads() -> None:
    nodes, edges = [IN, RELU, RELU, ADD], [(0, 1, 0), (0, 2, 0), (1, 3, 0), (1, 3, 1)]
    assert len(Graph.make(nodes, edges).outputs) == 2
    only = Graph.make(nodes, edges, [3])
    assert len(only.outputs) == 1
    assert only != Graph.make(nodes, edges)


def test_a_network_of_one_node_is_a_graph() -> None:
    g = Graph.make([IN], [])
    assert (g.n_nodes, g.n_edges, g.macs, g.params, g.activation_bytes) == (1, 0, 0, 0, 4 * 4 * 8 * 8)
    assert g.outputs.tolist() == [0]


def test_frozen_however_it_came_to_be() -> None:
    g = Graph.make([IN, RELU], [(0, 1, 0)])
    for graph in (g, pickle.loads(pickle.dumps(g)), g.with_(name="n"), g.permuted([1, 0])):
        for field in ("spec", "src", "dst", "arg", "outputs"):
            with pytest.raises(ValueError, match="read-only"):
                getattr(graph, field)[...] = 0
        with pytest.raises(dataclasses.FrozenInstanceError):
            graph.name = "other"  # type: ignore[misc]


def test_name_family_and_notes_are_not_part_of_equality() -> None:
    g = Graph.make([IN, RELU], [(0, 1, 0)], name="a", family="f", meta={"k": [1]})
    other = g.with_(name="b", family="", meta={})
    assert other == g
    assert len({g, other}) == 1
    assert (other.name, other.family, other.meta) == ("b", "", {})
    assert (g.name, g.family, g.meta) == ("a", "f", {"k": [1]})
    assert g != "a graph"


def test_pickle_reads_in_a_process_that_numbers_specs_differently(tmp_path: Path) -> None:
    b = GraphBuilder(name="p", family="f")
    x = b.conv2d(b.input((1, 3, 16, 16)), 8, kernel=5, stride=2)
    g = b.build(b.linear(b.global_avg_pool(b.relu(x)), 7)).with_(meta={"note": 1})
    (tmp_path / "g.pickle").write_bytes(pickle.dumps(g))
    code = ("import pickle, sys\nfrom cg import GraphBuilder\n"
            "b = GraphBuilder(); b.build(b.conv2d(b.input((1, 9, 9, 9)), 11))\n"
            "g = pickle.load(open(sys.argv[1], 'rb')).validate()\n"
            "print(g.digest, g.permuted(range(g.n_nodes)[::-1]).digest, g.macs, g.name, g.family, g.meta, *g.ops)")
    out = subprocess.run([sys.executable, "-c", code, str(tmp_path / "g.pickle")], check=True, capture_output=True, text=True,
                         cwd=Path(__file__).parents[2])
    assert out.stdout.strip() == " ".join([g.digest, g.digest, str(g.macs), "p f {'note': 1}", *g.ops])


def test_unknown_nodes_are_counted_by_name() -> None:
    a, c = (NodeSpec("Unknown", (S,), S, attrs=(("name", n),)) for n in ("fold", "warp"))
    g = Graph.make([IN, a, c, a, RELU], [(i, i + 1, 0) for i in range(4)])
    assert dict(g.unknown) == {"fold": 2, "warp": 1}
    assert g.op_counts == {"Input": 1, "Unknown": 3, "Relu": 1}


def test_repr_says_what_it_is() -> None:
    g = Graph.make([IN, RELU], [(0, 1, 0)], name="tiny")
    assert repr(g) == "Graph('tiny', 2 nodes, 1 edges, 0.0 M MACs, 0.00 M params)"


def test_digest_is_the_fingerprint() -> None:
    g = Graph.make([IN, RELU], [(0, 1, 0)])
    assert fingerprint(g) == g.digest
    assert len(g.digest) == 32
    int(g.digest, 16)
