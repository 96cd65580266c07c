"""``statistics``: small networks by hand, and random ones against a plain enumeration of all their paths."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from cg import Graph, GraphBuilder, NodeSpec, statistics
from cg.errors import GraphError
from cg.global_statistics import GROUPS, HOPS, KINDS, STATISTICS, _kind, node_context

S = (1, 4, 8, 8)


def named(g: Graph) -> dict[str, float]:
    return dict(zip(STATISTICS, statistics([g])[0].astype(float).tolist(), strict=True))


def layers(b: GraphBuilder, x: int) -> int:
    return b.relu(b.batch_norm(b.conv2d(x, 8, kernel=3, stride=2)))


def test_columns_have_unique_names_and_groups() -> None:
    assert len(set(STATISTICS)) == len(STATISTICS) == len(GROUPS)
    assert set(GROUPS) == {"total", "path", "rf", "shape", "signal", "stage", "kind", "count", "back", "front", "pair", "hop",
                           "field", "flow", "visit"}


def test_a_chain_by_hand() -> None:
    """Input 3x32x32, conv3x3/2 to 8, norm, relu, global pool, linear to 10."""
    b = GraphBuilder()
    s = named(b.build(b.linear(b.global_avg_pool(layers(b, b.input((1, 3, 32, 32)))), 10)))
    macs, params = 8 * 16 * 16 * 27 + 80, 8 * 27 + 16 + 90
    values = 3 * 1024 + 3 * 8 * 256 + 8 + 10
    expected = {
        "total.nodes": math.log(6), "total.edges": math.log1p(5), "total.macs": math.log1p(macs),
        "total.params": math.log1p(params), "total.activations": math.log1p(values),
        "total.macs_per_param": math.log1p(macs) - math.log1p(params),
        "total.activations_per_mac": math.log1p(values) - math.log1p(macs), "total.layers": math.log1p(2),
        "total.levels": math.log(6),
        "path.nodes_longest": math.log1p(6), "path.nodes_shortest": math.log1p(6), "path.nodes_mean": math.log1p(6),
        "path.nodes_std": 0, "path.layers_mean": math.log1p(2), "path.spatial_longest": math.log1p(1),
        "path.acts_whole_mean": math.log1p(1), "path.pools_longest": 0,
        "rf.max": math.log2(3), "rf.min": math.log2(3), "rf.mean": math.log2(3),
        "shape.channels_mean": (3 + math.log2(10)) / 2, "shape.channels_max": math.log2(10), "shape.channels_min": 3,
        "shape.ratio_mean": (math.log2(8 / 3) + math.log2(10 / 8)) / 2, "shape.kernel_mean": math.log2(3) / 2,
        "shape.fan_in_mean": 0, "shape.fan_out_max": math.log1p(1), "shape.fan_out_mean": math.log(5 / 6),
        "shape.width_mean": 0, "shape.skips": 0, "shape.last_channels": 3,
        "signal.paths": 0, "stage0.macs": 0, "stage1.macs": math.log1p(8 * 256 * 27),
        "stage1.macs_share": 8 * 256 * 27 / macs, "stage5.params": math.log1p(90), "stage0.activations": math.log1p(3 * 1024),
        "kind.nodes_share.conv3": 1 / 6, "kind.nodes_share.dense": 1 / 6, "kind.nodes_share.other": 1 / 6,
        "kind.macs_share.dense": 80 / macs, "kind.params_share.norm": 16 / params, "kind.back.conv3": math.log1p(1),
        "count.conv3.1": math.log1p(1), "count.conv3.0": 0, "count.dense.5": math.log1p(1), "count.avgpool.5": math.log1p(1),
        "pair.conv3.norm": math.log1p(1), "pair.norm.act": math.log1p(1), "pair.act.avgpool": math.log1p(1),
        "pair.avgpool.dense": math.log1p(1), "pair.other.conv3": math.log1p(1), "pair.conv3.act": 0,
    }
    for name, value in expected.items():
        assert s[name] == pytest.approx(value, abs=2e-6), name


def test_a_residual_block_by_hand() -> None:
    """x = relu(input); add(conv(x), x), 3 x 3 convolution: two paths, one of them skips the convolution."""
    b = GraphBuilder()
    x = b.relu(b.input(S))
    s = named(b.build(b.add(b.conv2d(x, 4), x)))
    expected = {
        "path.nodes_longest": math.log1p(4), "path.nodes_shortest": math.log1p(3), "path.nodes_mean": math.log1p(3.5),
        "path.nodes_std": math.log1p(0.5), "path.layers_whole_mean": math.log1p(0.5), "signal.paths": math.log(2),
        "rf.max": math.log2(3), "rf.min": 0, "rf.mean": math.log2(2), "shape.fan_in_mean": 2,
        "shape.fan_out_max": math.log1p(2), "shape.span_mean": math.log1p(2), "shape.span_max": math.log1p(2),
        "shape.skips": math.log1p(1), "kind.back.conv3": math.log1p(0.5), "kind.front.conv3": math.log1p(0.5),
        "kind.longest.conv3": math.log1p(1), "pair.act.add": math.log1p(1), "pair.conv3.add": math.log1p(1),
        # variance: input 1, relu 1/2, conv 1/2, add 1; gradient: add 1, conv 1, relu 2
        "signal.var_add_mean": 0, "signal.var_add_max": 0, "signal.grad_first": 0, "signal.grad_min": 0,
    }
    for name, value in expected.items():
        assert s[name] == pytest.approx(value, abs=2e-6), name


def test_signal_rules_by_hand() -> None:
    """Four values of one source added: variance 4; normalisation brings it to 1 and divides the gradient by 4."""
    b = GraphBuilder()
    x = b.input(S)
    y = b.add(*[b.conv2d(x, 4, kernel=1) for _ in range(4)])
    g = b.build(b.avg_pool(b.relu(b.batch_norm(y)), 2))
    s = named(g)
    assert s["signal.var_norm_mean"] == pytest.approx(math.log(4), abs=1e-6)
    assert s["signal.var_add_max"] == pytest.approx(math.log(4), abs=1e-6)
    assert s["signal.var_add_mean"] == pytest.approx((math.log(2) + math.log(3) + math.log(4)) / 3, abs=1e-6)
    assert s["signal.grad_mean"] == pytest.approx(math.log(0.5 / 2 / 4), abs=1e-6)
    assert s["signal.paths"] == pytest.approx(math.log(4), abs=1e-6)
    context = node_context(g)
    assert context[-1, 2] == pytest.approx(math.log(1 / 2 / 2), abs=1e-6)  # relu halves, a pool of side 2 halves
    assert context[:, 0] == pytest.approx([0, *[1 / 7] * 4, 2 / 7, 3 / 7, 4 / 7, 5 / 7, 6 / 7, 1])


def test_receptive_field_follows_kernels_strides_and_dilations() -> None:
    b = GraphBuilder()
    x = b.conv2d(b.input((1, 3, 64, 64)), 4, kernel=7, stride=2)  # 7, step 2
    x = b.max_pool(x, 3, 2, 1)  # 7 + 2 * 2 = 11, step 4
    x = b.conv2d(x, 4, kernel=3, dilation=2)  # 11 + 2 * 2 * 4 = 27
    s = named(b.build(b.conv2d(x, 4, kernel=1)))
    assert s["rf.max"] == s["rf.min"] == s["rf.mean"] == pytest.approx(math.log2(27), abs=1e-6)


def random_net(rng: np.random.Generator) -> Graph:
    b = GraphBuilder()
    values = [b.input(S) for _ in range(rng.integers(1, 3))]
    for _ in range(rng.integers(3, 12)):
        x, y = (values[int(rng.integers(max(0, len(values) - 4), len(values)))] for _ in range(2))
        kind = int(rng.integers(7))
        values.append((lambda: b.conv2d(x, 4, kernel=1), lambda: b.conv2d(x, 4, kernel=3), lambda: b.relu(x),  # noqa: B023
                       lambda: b.batch_norm(x), lambda: b.max_pool(x, 3, 1, 1), lambda: b.add(x, y),  # noqa: B023
                       lambda: b.conv2d(b.concat([x, y]), 4, kernel=1))[kind]())  # noqa: B023
    outputs = [values[-1], *([values[-2]] if rng.random() < 0.3 else [])]
    return b.build(*outputs)


def backward_paths(g: Graph) -> list[tuple[float, list[int]]]:
    """Every walk from an output to a source with its chance, when each step goes to a random argument's producer."""
    done, todo = [], [(1 / len(g.outputs), [int(o)]) for o in g.outputs]
    while todo:
        chance, walk = todo.pop()
        ins = g.inputs_of(walk[-1])
        todo += [(chance / len(ins), [*walk, s]) for s in ins]
        if not ins:
            done.append((chance, walk))
    return done


def forward_visits(g: Graph) -> np.ndarray:
    """Expected visits of walks that start at each source and step to a random consumer."""
    consumers: list[list[int]] = [[] for _ in range(g.n_nodes)]
    for s, d in zip(g.src, g.dst, strict=True):
        consumers[s].append(int(d))
    visits = np.zeros(g.n_nodes)
    todo = [(1.0, i) for i in range(g.n_nodes) if not g.inputs_of(i)]
    while todo:
        chance, i = todo.pop()
        visits[i] += chance
        todo += [(chance / len(consumers[i]), j) for j in consumers[i]]
    return visits


def is_layer(n: NodeSpec) -> bool:
    return n.op in ("Conv", "Gemm")


@pytest.mark.parametrize("case", range(40))
def test_walks_against_enumeration(case: int) -> None:
    g = random_net(np.random.default_rng(case))
    s = named(g)
    walks = backward_paths(g)
    assert sum(c for c, _ in walks) == pytest.approx(1.0)
    weights = {
        "nodes": [1.0] * g.n_nodes, "layers": [float(is_layer(n)) for n in g.nodes],
        "spatial": [float(n.op == "Conv" and n.weight_shape[2] > 1) for n in g.nodes],
        "acts": [float(n.op == "Relu") for n in g.nodes], "pools": [float(n.op == "MaxPool") for n in g.nodes],
    }
    for name, weight in weights.items():
        sums = np.array([sum(weight[i] for i in walk) for _, walk in walks])
        chance = np.array([c for c, _ in walks])
        mean = (chance * sums).sum()
        expected = {"longest": sums.max(), "shortest": sums.min(), "mean": mean,
                    "std": math.sqrt(max((chance * sums ** 2).sum() - mean ** 2, 0)),
                    "whole_mean": sums.mean(), "whole_std": sums.std()}
        for m, value in expected.items():
            assert math.expm1(s[f"path.{name}_{m}"]) == pytest.approx(value, rel=1e-4, abs=2e-3), (name, m)
    assert s["signal.paths"] == pytest.approx(
        math.log(max(sum(walk[0] == o for _, walk in walks) for o in g.outputs)), abs=1e-5)

    kinds = [KINDS[_kind(n)] for n in g.nodes]
    front = forward_visits(g)
    for kind in KINDS:
        members = {i for i in range(g.n_nodes) if kinds[i] == kind}
        per_walk = np.array([sum(i in members for i in walk) for _, walk in walks])
        expected = {"back": sum(c * k for (c, _), k in zip(walks, per_walk, strict=True)), "whole": per_walk.mean(),
                    "longest": per_walk.max(), "front": front[list(members)].sum()}
        for m, value in expected.items():
            assert math.expm1(s[f"kind.{m}.{kind}"]) == pytest.approx(value, rel=1e-4, abs=1e-5), (kind, m)
        assert s[f"kind.nodes_share.{kind}"] == pytest.approx(len(members) / g.n_nodes, rel=1e-5)
        assert math.expm1(s[f"count.{kind}.0"]) == pytest.approx(len(members), abs=1e-4)
        assert math.expm1(s[f"back.{kind}.0"]) == pytest.approx(expected["back"], rel=1e-4, abs=1e-5)
        assert math.expm1(s[f"front.{kind}.0"]) == pytest.approx(expected["front"], rel=1e-4, abs=1e-5)
    pairs = Counter((kinds[a], kinds[c]) for a, c in zip(g.src, g.dst, strict=True))
    for a in KINDS:
        for c in KINDS:
            assert math.expm1(s[f"pair.{a}.{c}"]) == pytest.approx(pairs[a, c], abs=1e-4)


def what_is_read(g: Graph, node: int, kinds: list[str]) -> Counter[str]:
    """Kinds of computing operators that the arguments of ``node`` come from, each merge on the way splitting evenly."""
    out: Counter[str] = Counter()
    ins = g.inputs_of(node)
    for s in ins:
        found = Counter({kinds[s]: 1.0}) if kinds[s] in HOPS else what_is_read(g, s, kinds)
        if not g.inputs_of(s):
            found = Counter({"input": 1.0})
        for kind, share in found.items():
            out[kind] += share / len(ins)  # type: ignore[assignment]
    return out


@pytest.mark.parametrize("case", range(15))
def test_hops_against_a_plain_walk(case: int) -> None:
    g = random_net(np.random.default_rng(200 + case))
    s = named(g)
    kinds = [KINDS[_kind(n)] for n in g.nodes]
    expected: Counter[tuple[str, str]] = Counter()
    for i in range(g.n_nodes):
        if kinds[i] in HOPS:
            for kind, share in what_is_read(g, i, kinds).items():
                expected[kinds[i], kind] += share
    for a in HOPS:
        for c in (*HOPS, "input"):
            assert math.expm1(s[f"hop.{a}.{c}"]) == pytest.approx(expected[a, c], rel=1e-4, abs=1e-5), (a, c)


@pytest.mark.parametrize("case", range(10))
def test_receptive_field_against_enumeration(case: int) -> None:
    """Without strides the field of a walk is 1 plus the growth of its kernels."""
    g = random_net(np.random.default_rng(100 + case))
    grow = [n.attr("kernel_shape", (1,))[0] - 1 for n in g.nodes]
    walks = backward_paths(g)
    fields = np.array([1 + sum(grow[i] for i in walk) for _, walk in walks])
    s = named(g)
    assert 2 ** s["rf.max"] == pytest.approx(fields.max(), rel=1e-5)
    assert 2 ** s["rf.min"] == pytest.approx(fields.min(), rel=1e-5)
    assert 2 ** s["rf.mean"] == pytest.approx(sum(c * f for (c, _), f in zip(walks, fields, strict=True)), rel=1e-5)


def test_moves_of_data_are_looked_through() -> None:
    b = GraphBuilder()
    x = b.relu(b.input(S))
    x = b.slice(b.slice(x, (2,), (1,)), (3,), (1,))
    s = named(b.build(b.conv2d(x, 4)))
    assert s["pair.act.conv3"] == pytest.approx(math.log(2), abs=1e-6)
    assert s["pair.other.conv3"] == s["pair.act.other"] == 0


@pytest.mark.parametrize(("op", "weight", "attrs", "kind"), [
    ("Conv", (8, 8, 3, 3), {}, "conv3"), ("Conv", (8, 8, 1, 1), {}, "conv1"), ("Conv", (8, 8, 5, 5), {}, "conv5"),
    ("Conv", (8, 8, 1, 7), {}, "conv5"), ("Conv", (8, 1, 3, 3), {"group": 8}, "dw3"),
    ("Conv", (8, 1, 5, 5), {"group": 8}, "dw5"),
    ("Conv", (8, 1, 3, 3), {"group": 8, "dilations": (2, 2)}, "dwdil"), ("ConvTranspose", (8, 8, 2, 2), {}, "conv3"),
    ("Gemm", (8, 8), {}, "dense"), ("LSTM", (), {}, "dense"), ("LayerNormalization", (), {}, "norm"),
    ("Softmax", (), {}, "act"),
    ("ReduceSum", (), {}, "avgpool"), ("ReduceMean", (), {}, "avgpool"), ("MaxPool", (), {}, "maxpool"),
    ("Add", (), {}, "add"), ("Mul", (), {}, "mul"), ("Concat", (), {}, "concat"), ("Slice", (), {}, "other"),
    ("Resize", (), {}, "other"), ("Unknown", (), {}, "other"),
])
def test_kinds(op: str, weight: tuple[int, ...], attrs: dict, kind: str) -> None:
    spec = NodeSpec(op, ((1, 8, 8, 8),), (1, 8, 8, 8), weight, attrs=tuple(sorted(attrs.items())))
    assert KINDS[_kind(spec)] == kind


def test_node_order_does_not_matter(nas_graphs: list[Graph]) -> None:
    rng = np.random.default_rng(2)
    some = nas_graphs[::3]
    moved = [g.permuted(rng.permutation(g.n_nodes)) for g in some]
    assert statistics(moved) == pytest.approx(statistics(some), rel=1e-6, abs=1e-6)
    assert statistics(some).dtype == np.float32


def test_rows_do_not_depend_on_each_other(nas_graphs: list[Graph]) -> None:
    some = nas_graphs[::7]
    assert np.array_equal(statistics(some), np.concatenate([statistics([g]) for g in some]))
    assert statistics([]).shape == (0, len(STATISTICS))


def test_different_networks_get_different_rows(nas_graphs: list[Graph]) -> None:
    assert len(np.unique(statistics(nas_graphs), axis=0)) == len({g.digest for g in nas_graphs})


def odd() -> dict[str, Graph]:
    out = {"one input": Graph.make([NodeSpec("Input", (), (1,))], []),
           "scalar": Graph.make([NodeSpec("Input", (), ()), NodeSpec("Exp", ((),), ())], [(0, 1, 0)]),
           "constant": Graph.make([NodeSpec("Constant", (), (1, 3)), NodeSpec("Relu", ((1, 3),), (1, 3))], [(0, 1, 0)]),
           "video": Graph.make([NodeSpec("Input", (), (1, 3, 4, 8, 8)), NodeSpec("Relu", ((1, 3, 4, 8, 8),), (1, 3, 4, 8, 8))],
                               [(0, 1, 0)]),
           "empty image": Graph.make([NodeSpec("Input", (), (1, 3, 0, 8)), NodeSpec("Relu", ((1, 3, 0, 8),), (1, 3, 0, 8))],
                                     [(0, 1, 0)])}
    b = GraphBuilder()
    out["tokens"] = b.build(b.op("Softmax", [b.linear(b.input((1, 197, 64)), 64)]))
    b = GraphBuilder()
    x = b.input((1, 4))
    for _ in range(200):  # 2 ** 200 paths
        x = b.op("Add", [x, x])
    out["many paths"] = b.build(x)
    b = GraphBuilder()
    out["very deep"] = b.build(b.repeat(lambda v: b.batch_norm(b.relu(v)), b.input(S), 1000))
    b = GraphBuilder()
    out["activations only"] = b.build(b.repeat(b.relu, b.input(S), 3000))
    return out


@pytest.mark.parametrize("name", list(odd()))
def test_odd_networks_get_finite_values(name: str) -> None:
    g = odd()[name]
    row = statistics([g])
    assert np.isfinite(row).all()
    context = node_context(g)
    assert context.shape == (g.n_nodes, 6)
    assert np.isfinite(context.astype(np.float16)).all()


def test_a_value_that_is_not_finite_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from cg import _flow

    def broken(*args: np.ndarray) -> None:
        args[-1][3] = np.inf
    monkeypatch.setattr(_flow, "statistics_kernel", broken)
    with pytest.raises(GraphError, match=r"graph 'g': statistic total\.params is not finite"):
        statistics([Graph.make([NodeSpec("Input", (), S)], [], name="g")])
