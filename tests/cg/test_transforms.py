"""``canonicalize`` and its rewrites: each on a graph by hand, then laws over random graphs."""

from __future__ import annotations

import numpy as np
import pytest

from cg import Graph, GraphBuilder, NodeSpec, canonicalize
from cg.transforms import CHAIN, drop_identities, drop_reshapes, split_sums
from cg.transforms.identities import is_identity

SHAPE = (1, 8, 4, 4)


def unary(op: str, out: tuple[int, ...] = SHAPE, shape: tuple[int, ...] = SHAPE, **attrs: object) -> NodeSpec:
    return NodeSpec(op, (shape,), out, attrs=tuple(sorted(attrs.items())))


def chain(*specs: NodeSpec) -> Graph:
    """Input followed by the given nodes in a row."""
    nodes = [NodeSpec("Input", (), specs[0].in_shapes[0]), *specs]
    return Graph.make(nodes, [(i, i + 1, 0) for i in range(len(specs))], name="chain", family="f", meta={"k": 1})


@pytest.mark.parametrize("spec", [
    unary("Unknown", name="Identity"), unary("Unknown", name="Dropout"), unary("Unknown", name="Cast"),
    unary("Concat", axis=1), unary("Sum"), unary("Slice", axes=(2,), starts=(0,), ends=(4,)), unary("Pad", pads=(0,) * 8),
    unary("Expand"), unary("Resize", mode="nearest"), unary("Add", scalar=0.0), unary("Mul", scalar=1.0),
    unary("Pow", scalar=1.0), unary("AveragePool", kernel_shape=(1, 1), pads=(0, 0, 0, 0), strides=(1, 1)),
    unary("Reshape", (1, 128)), unary("Transpose", (1, 4, 8, 4)), unary("Reshape", (1, 8, 4, 4)), unary("Gather", axis=0),
], ids=lambda s: f"{s.op}-{dict(s.attrs)}")
def test_node_that_computes_nothing_vanishes(spec: NodeSpec) -> None:
    flat = unary("Relu", spec.out_shape, spec.out_shape)
    graph = canonicalize(chain(unary("Sigmoid"), spec, flat))
    assert sorted(graph.ops) == ["Input", "Relu", "Sigmoid"]
    assert (graph.name, graph.family, graph.meta) == ("chain", "f", {"k": 1})


@pytest.mark.parametrize("spec", [
    unary("Unknown", name="Fold"), unary("Slice", (1, 8, 4, 2), axes=(3,), starts=(0,), ends=(2,)),
    unary("Slice", axes=(3,), starts=(-1,), ends=(-5,), steps=(-1,)), unary("Pad", (1, 8, 5, 4), pads=(0, 0, 1, 0, 0, 0, 0, 0)),
    unary("Add", scalar=0.5), unary("Mul", scalar=0.0), unary("Pow", scalar=1.0, scalar_first=True), unary("Roll"),
    unary("AveragePool", kernel_shape=(3, 3), pads=(1, 1, 1, 1), strides=(1, 1)), unary("Clip", min=1.0),
    unary("Gather", axis=1), unary("Relu"), unary("Expand", (1, 16, 4, 2)),
], ids=lambda s: f"{s.op}-{dict(s.attrs)}")
def test_node_that_computes_or_selects_stays(spec: NodeSpec) -> None:
    graph = chain(unary("Sigmoid"), spec)
    assert canonicalize(graph) == graph
    assert not is_identity(spec)


def test_trained_scale_of_one_value_is_not_an_identity() -> None:
    assert not is_identity(NodeSpec("Mul", (SHAPE,), SHAPE, attrs=(("scalar", 1.0),), extra_params=1))


def test_reader_of_contracted_reshape_keeps_its_own_view_of_the_shape() -> None:
    graph = canonicalize(chain(unary("Reshape", (1, 16, 8)), unary("Transpose", (1, 8, 16), (1, 16, 8)),
                               unary("Relu", (1, 8, 16), (1, 8, 16))))
    assert [n.in_shapes for n in graph.nodes] == [(), ((1, 8, 16),)]


def test_sum_of_four_becomes_the_chain_that_the_builder_writes() -> None:
    b = GraphBuilder()
    x = b.input(SHAPE)
    parts = [b.op(op, [x]) for op in ("Relu", "Sigmoid", "Tanh", "Abs")]
    total = b.op("Sum", parts)
    graph = canonicalize(b.build(b.op("Sqrt", [total])))
    counts = graph.op_counts
    assert (counts["Add"], counts["Sum"], graph.n_nodes) == (3, 0, 9)
    # each Add joins the running total with one more part: exactly one Add reads no Add
    adds = [i for i, op in enumerate(graph.ops) if op == "Add"]
    assert sorted(sum(graph.ops[s] == "Add" for s in graph.inputs_of(i)) for i in adds) == [0, 1, 1]


def test_sum_that_broadcasts_records_the_shape_so_far() -> None:
    b = GraphBuilder()
    x = b.input(SHAPE)
    pooled = b.global_avg_pool(x)
    graph = split_sums(b.build(b.op("Sum", [pooled, x, b.relu(pooled)])))
    adds = [n.in_shapes for n in graph.nodes if n.op == "Add"]
    assert adds == [((1, 8, 1, 1), SHAPE), (SHAPE, (1, 8, 1, 1))]


def test_one_pass_removes_a_row_of_identities() -> None:
    row = [unary("Unknown", name="Dropout"), unary("Sum"), unary("Unknown", name="Identity"), unary("Relu")]
    assert drop_identities(chain(*row)).ops == ["Input", "Relu"]
    assert drop_reshapes(chain(unary("Reshape", (1, 128)), unary("Reshape", SHAPE, (1, 128)), unary("Relu"))).ops == [
        "Input", "Relu"]


def test_broadcasting_arguments_are_sorted_and_stay_on_their_edges() -> None:
    b = GraphBuilder()
    x = b.input(SHAPE)
    gate = b.op("Sigmoid", [b.global_avg_pool(x)])
    expected = b.build(b.mul(x, gate))
    b = GraphBuilder()
    x = b.input(SHAPE)
    gate = b.op("Sigmoid", [b.global_avg_pool(x)])
    swapped = b.build(b.op("Mul", [gate, x]))
    assert swapped != expected
    assert canonicalize(swapped) == expected
    assert canonicalize(expected) == expected


def test_order_of_arguments_matters_for_sub() -> None:
    specs = [NodeSpec("Input", (), SHAPE), unary("GlobalAveragePool", (1, 8, 1, 1)),
             NodeSpec("Sub", ((1, 8, 1, 1), SHAPE), SHAPE)]
    graph = Graph.make(specs, [(0, 1, 0), (1, 2, 0), (0, 2, 1)])
    assert canonicalize(graph) == graph


def test_constant_branch_is_folded_with_its_parameters() -> None:
    specs = [NodeSpec("Input", (), (1, 4, 6)), NodeSpec("Constant", (), (4, 2), extra_params=8),
             NodeSpec("Gemm", ((4, 2),), (4, 6), (6, 2), True), NodeSpec("Add", ((1, 4, 6), (4, 6)), (1, 4, 6))]
    graph = Graph.make(specs, [(1, 2, 0), (2, 3, 1), (0, 3, 0)])
    folded = canonicalize(graph)
    assert sorted(folded.ops) == ["Add", "Constant", "Input"]
    assert folded.params == graph.params == 8 + 12 + 6


def test_constant_that_others_read_is_not_folded_away_twice() -> None:
    specs = [NodeSpec("Input", (), (4,)), NodeSpec("Constant", (), (4,), extra_params=4),
             NodeSpec("Relu", ((4,),), (4,)), NodeSpec("Add", ((4,), (4,)), (4,)), NodeSpec("Mul", ((4,), (4,)), (4,))]
    graph = Graph.make(specs, [(1, 2, 0), (0, 3, 0), (2, 3, 1), (3, 4, 0), (1, 4, 1)])
    assert canonicalize(graph).params == 4


def test_nodes_that_no_output_needs_are_dropped() -> None:
    specs = [NodeSpec("Input", (), SHAPE), unary("Relu"), unary("Tanh"), NodeSpec("Input", (), (3,))]
    graph = Graph.make(specs, [(0, 1, 0), (0, 2, 0)], outputs=[1])
    assert canonicalize(graph).ops == ["Input", "Relu"]


def test_an_output_that_is_a_reshape_moves_to_its_producer() -> None:
    graph = canonicalize(chain(unary("Relu"), unary("Reshape", (1, 128))))
    assert graph.ops == ["Input", "Relu"]
    assert graph.outputs.tolist() == [1]


def random_graph(rng: np.random.Generator) -> Graph:
    """15 random nodes, many of which ``canonicalize`` removes or rewrites; all values have 128 elements or broadcast."""
    b = GraphBuilder()
    values = [b.input(SHAPE), b.add_node(NodeSpec("Constant", (), SHAPE, extra_params=int(rng.integers(9))), ())]
    for _ in range(15):
        x, y, z = (values[i] for i in rng.integers(len(values), size=3))
        kind = int(rng.integers(7))
        if kind == 0:
            values.append(b.op("Relu", [x]))
        elif kind == 1:
            values.append(b.op("Unknown", [x], name=str(rng.choice(["Dropout", "Fold"]))))
        elif kind == 2:
            flat = b.op("Reshape", [x], out_shape=(1, 128))
            values.append(b.op("Transpose", [flat], out_shape=SHAPE))
        elif kind == 3:
            values.append(b.op("Sum", [x, y, z]))
        elif kind == 4:
            values.append(b.op("Mul", [b.global_avg_pool(x), y]))
        elif kind == 5:
            values.append(b.conv2d(x, 8, kernel=1))
        else:
            values.append(b.op("Add", [x], scalar=float(rng.integers(2))))
    return b.build(b.op("Sum", [values[0], *values[-2:]]))


@pytest.mark.parametrize("seed", range(60))
def test_canonical_form_is_idempotent_keeps_parameters_and_ignores_node_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = random_graph(rng)
    canonical = canonicalize(graph)
    assert canonicalize(canonical) == canonical
    assert canonical.params == graph.params
    assert canonical.macs <= graph.macs
    assert canonicalize(graph.permuted(rng.permutation(graph.n_nodes))) == canonical
    assert not {"Sum", "Reshape", "Transpose"} & set(canonical.ops)


def test_rewrites_return_their_argument_where_there_is_nothing_to_do() -> None:
    b = GraphBuilder()
    x = b.input((1, 3, 8, 8))
    graph = b.build(b.linear(b.global_avg_pool(b.relu(b.conv2d(x, 4))), 2))
    assert all(rewrite(graph) is graph for rewrite in CHAIN)
    assert canonicalize(graph) is graph


def test_the_graphs_of_every_search_space_are_canonical() -> None:
    spaces = pytest.importorskip("evo_search", reason="the search spaces are not there yet")
    rng = np.random.default_rng(0)
    for name in ("nasbench101", "nasbench201", "nasbench301"):
        space = spaces.get_space(name)
        for _ in range(5):
            graph = space.to_graph(space.sample(rng))
            assert canonicalize(graph) == graph
