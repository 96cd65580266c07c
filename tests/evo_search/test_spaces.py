"""Search spaces: published parameter counts on every row, edits, text forms, and builder against torch module.

Expected values come from the benchmark tables, from torch itself (parameters, gradients, dispatched operators, FLOP
counter) or from public records named beside them, never from the code under test.
"""

from __future__ import annotations

import csv
import gzip
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import space_contract as contract
from space_contract import meta_net, n_params

import evo_search._registry as registry
import evo_search.spaces as spaces_module
from cg.errors import CGError
from evo_search.oracles import shared_folder
from evo_search.spaces import get_space, list_spaces
from evo_search.spaces.darts import NASBench301
from evo_search.spaces.nasbench101 import OPS as OPS101
from evo_search.spaces.nasbench101 import Genome101, NASBench101, _all_adjacencies, bit, module_hash, prune
from evo_search.spaces.nasbench201 import NASBench201, live_edges

SHARED = shared_folder() / "data"
ALL = ["nasbench101", "nasbench201", "nasbench201-cifar100", "nasbench201-imagenet16", "nasbench301"]
CORE = ["nasbench101", "nasbench201", "nasbench301"]
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the benchmark tables (CGTRANSFER_SHARED) are not here")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture(scope="module")
def table101() -> list[tuple[Genome101, int]]:
    with np.load(SHARED / "nasbench101" / "nasbench101.npz") as f:
        columns = [f[k].tolist() for k in ("n_vertices", "adj_bits", "ops", "params")]
    return [(Genome101(n, adj, tuple(ops[: n - 2])), p) for n, adj, ops, p in zip(*columns, strict=True)]


@pytest.fixture(scope="module")
def table201() -> list[tuple[str, int]]:
    with gzip.open(SHARED / "nasbench201" / "nasbench201.csv.gz", "rt") as f:
        return [(r["arch_str"], int(r["params_c10"])) for r in csv.DictReader(f)]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Tiny convolutions on several threads spend their time waiting for each other when the machine is busy."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# ---- published numbers -------------------------------------------------------------------------------------------


@needs_shared
def test_nasbench101_params_equal_the_published_ones_on_every_row(table101) -> None:
    space = NASBench101()
    assert len(table101) == 423_624
    wrong = [(space.encode(a), space.count_params(a), p) for a, p in table101 if space.count_params(a) != p]
    assert wrong == []


@needs_shared
def test_nasbench101_rows_are_valid_and_in_the_order_of_the_official_hash(table101) -> None:
    space = NASBench101()
    rows = [a for a, _ in table101[::60]]
    assert all(space.is_valid(a) for a in rows)
    hashes = [module_hash(a) for a in rows]
    assert hashes == sorted(hashes)
    assert len(set(hashes)) == len(rows)


@needs_shared
@pytest.mark.slow
def test_nasbench101_every_row_is_valid_and_in_hash_order(table101) -> None:
    space = NASBench101()
    assert all(space.is_valid(a) for a, _ in table101)
    hashes = [module_hash(a) for a, _ in table101]
    assert all(x < y for x, y in pairwise(hashes))


@needs_shared
@pytest.mark.parametrize("vertices", [2, 3, 4, 5, pytest.param(6, marks=pytest.mark.slow)])
def test_nasbench101_enumeration_holds_exactly_the_networks_of_the_table(table101, vertices: int) -> None:
    n_ops = vertices - 2
    every = [tuple(i // 3**k % 3 for k in range(n_ops)) for i in range(3**n_ops)]
    found = {module_hash(Genome101(vertices, int(code), ops)) for code in _all_adjacencies(vertices) for ops in every}
    assert len(found) == sum(a.vertices == vertices for a, _ in table101)


@needs_shared
def test_nasbench201_params_and_strings_on_every_row(table201) -> None:
    space = NASBench201()
    decoded = [space.decode(text) for text, _ in table201]
    assert len(set(decoded)) == 15_625
    assert [space.encode(a) for a in decoded] == [text for text, _ in table201]
    assert [space.count_params(a) for a in decoded] == [p for _, p in table201]
    assert sum(map(space.is_valid, decoded)) == 15_284 == len(space.all_genomes())
    assert sum(0 not in a for a in decoded) == 4_096


def test_nasbench301_params_equal_an_official_run() -> None:
    """automl/nasbench301, surrogate_models/test/results_fidelity_0/results_0.json: 20 layers, 50 channels, with the
    auxiliary head (on 16 x 50 channels: 1x1 to 128, 2x2 to 768, linear to 10), 6,369,358 parameters."""
    import torch

    from evo_search.spaces._nets.darts import Network301

    a = NASBench301().decode("0:2 1:3 0:3 1:2 0:5 2:6 1:3 2:2 0:0 1:1 0:2 1:6 1:3 2:4 2:3 3:5")
    with torch.device("meta"):
        net = Network301(a, layers=20, channels=50)
    auxiliary = 800 * 128 + 2 * 128 + 128 * 768 * 4 + 2 * 768 + 768 * 10 + 10
    assert n_params(net) + auxiliary == 6_369_358


@needs_shared
def test_nasbench301_decodes_every_row_of_the_table() -> None:
    space = NASBench301()
    with gzip.open(SHARED / "nasbench301" / "nasbench301.csv.gz", "rt") as f:
        texts = [r["genotype"] for r in csv.DictReader(f)]
    assert all(space.encode(space.decode(t)) == t and space.is_valid(space.decode(t)) for t in texts)
    assert len({space.key(space.decode(t)) for t in texts}) == len(texts) == 12_439


# ---- graph against torch module ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_params_of_closed_form_module_and_graph_agree(name: str, rng) -> None:
    space = get_space(name)
    for _ in range(25):
        a = space.sample(rng)
        graph = space.to_graph(a)
        pruned = space.count_params(a, published=False) if isinstance(space, NASBench201) else space.count_params(a)
        assert graph.params == pruned
        assert n_params(meta_net(space, a)) == space.count_params(a)


@pytest.mark.parametrize("name", ALL)
def test_graph_has_the_operators_and_macs_that_torch_runs(name: str, rng) -> None:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import FlopCounterMode

    onnx_name = {"convolution": "Conv", "native_batch_norm": "BatchNormalization", "relu": "Relu", "add": "Add",
                 "_native_batch_norm_legit_no_training": "BatchNormalization", "cat": "Concat", "addmm": "Gemm",
                 "max_pool2d_with_indices": "MaxPool", "avg_pool2d": "AveragePool",
                 "_adaptive_avg_pool2d": "GlobalAveragePool", "mean": "GlobalAveragePool"}

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen[onnx_name.get(func.overloadpacket.__name__, "other")] += 1
            return func(*args, **(kwargs or {}))

    space = get_space(name)
    for _ in range(5):
        a = space.sample(rng)
        net, x = meta_net(space, a), torch.empty(space.input_shape, device="meta")
        seen: Counter[str] = Counter()
        with torch.no_grad(), Recorder():
            assert net(x).shape == (1, space.num_classes)
        with torch.no_grad(), FlopCounterMode(display=False) as flops:
            net(x)
        graph = space.to_graph(a)
        expected = Counter({op: n for op, n in graph.op_counts.items() if op not in ("Input", "Slice")})
        del seen["other"]
        assert seen == expected
        assert flops.get_total_flops() == 2 * graph.macs  # torch counts a multiply-add as two


@pytest.mark.parametrize("name", ALL)
def test_builder_equals_tracer(name: str, rng) -> None:
    contract.trace_equals_build(get_space(name), 8 if name in CORE else 3, rng)


@pytest.mark.slow
@pytest.mark.parametrize("name", CORE)
def test_builder_equals_tracer_on_many(name: str, rng) -> None:
    contract.trace_equals_build(get_space(name), 150, rng)


@pytest.mark.parametrize("text", [
    "|skip_connect~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|",  # the cell is its input
    "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|none~0|skip_connect~1|skip_connect~2|",  # x + x, twice
    "|nor_conv_3x3~0|+|none~0|none~1|+|avg_pool_3x3~0|none~1|nor_conv_1x1~2|",  # dead edges at both ends
])
def test_builder_equals_tracer_on_degenerate_nasbench201_cells(text: str) -> None:
    import torch

    from extract import from_torch

    space = get_space("nasbench201")
    a = space.decode(text)
    assert from_torch(meta_net(space, a), torch.empty(1, 3, 32, 32, device="meta")).graph == space.to_graph(a)


@pytest.mark.parametrize(("name", "text"), [
    ("nasbench101", "5:35d:112"),  # input joined to the output, uneven channel split, projections
    ("nasbench201", "|skip_connect~0|+|nor_conv_3x3~0|none~1|+|avg_pool_3x3~0|nor_conv_1x1~1|none~2|"),
    ("nasbench201-imagenet16", "|nor_conv_3x3~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|nor_conv_3x3~2|"),
    ("nasbench301", "0:2 1:3 0:0 1:2 0:5 2:6 1:1 2:2 0:0 1:1 0:2 1:6 1:3 2:4 2:3 3:5"),
])
def test_module_trains_and_gradients_reach_exactly_the_weights_of_the_graph(name: str, text: str, one_thread) -> None:
    import torch

    space = get_space(name)
    a = space.decode(text)
    torch.manual_seed(0)
    net = space.to_torch(a)
    side = space.input_shape[-1] // 2  # the networks take any size; a small one is quick
    loss = net(torch.randn(2, 3, side, side)).square().sum()
    loss.backward()
    fed = sum(p.numel() for p in net.parameters() if p.grad is not None)
    assert fed == space.to_graph(a).params
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_nasbench201_dead_edges_are_in_the_published_count_only() -> None:
    space = NASBench201()
    # node 1 feeds nobody, node 2 is fed by nobody: only the skip 0 -> 3 carries the signal
    a = space.decode("|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|nor_conv_1x1~2|")
    assert live_edges(a) == ((0, 3, 1),)
    conv = 5 * sum(9 * c * c + 2 * c + c * c + 2 * c for c in (16, 32, 64))
    assert space.count_params(a) - space.count_params(a, published=False) == conv
    assert space.to_graph(a).params == 73_306  # the published count of rows whose cell has no weights
    with pytest.raises(CGError, match="no path"):
        space.to_graph(space.decode("|none~0|+|nor_conv_3x3~0|none~1|+|none~0|skip_connect~1|none~2|"))


def test_nasbench101_channels_are_split_as_published() -> None:
    # three vertices joined at the output: 128 = 43 + 43 + 42, and a slice where a wider vertex feeds a narrower one
    space = NASBench101()
    edges = [(0, 1), (1, 2), (2, 3), (1, 4), (2, 4), (3, 4)]
    graph = space.to_graph(Genome101(5, sum(bit(x, y) for x, y in edges), (0, 0, 0)))
    widths = Counter(n.out_shape[1] for n in graph.nodes if n.op == "Conv" and n.attr("kernel_shape") == (3, 3))
    assert widths[43] == 6  # first stack, vertices 1 and 2
    assert widths[42] == 3
    assert [n.out_shape[1] for n in graph.nodes if n.op == "Slice"][:3] == [42, 42, 42]


# Derived from the published cells (BatchNormalization is a node, identity is none); joins are not counted.
NODES = {
    "nasbench101": {"conv3x3-bn-relu": 3, "conv1x1-bn-relu": 3, "maxpool3x3": 1, "projection": 3},
    "nasbench201": {"none": 0, "skip_connect": 0, "nor_conv_1x1": 3, "nor_conv_3x3": 3, "avg_pool_3x3": 1},
    "nasbench301": {"max_pool_3x3": 1, "avg_pool_3x3": 1, "skip_connect": 0, "sep_conv_3x3": 8, "sep_conv_5x5": 8,
                    "dil_conv_3x3": 4, "dil_conv_5x5": 4, "max_pool_3x3/2": 1, "avg_pool_3x3/2": 1, "skip_connect/2": 6,
                    "sep_conv_3x3/2": 8, "sep_conv_5x5/2": 8, "dil_conv_3x3/2": 4, "dil_conv_5x5/2": 4},
}


@pytest.mark.parametrize("name", CORE)
def test_nodes_per_operation(name: str) -> None:
    assert get_space(name).node_counts() == NODES[name]


def test_nodes_per_operation_explain_the_size_of_every_nasbench201_chain() -> None:
    space = NASBench201()
    frame = 1 + 2 + 2 * 9 + 4  # input, stem, two residual blocks (2 x 3 + pool + conv + add), bn-relu-pool-linear
    for op, count in enumerate(NODES["nasbench201"].values()):
        if op > 0:
            assert space.to_graph((0, 0, 0, op, 0, 0)).n_nodes == frame + 15 * count


# ---- genomes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", spaces_module.BUILT_IN)
def test_samples_are_valid_hashable_and_survive_text_and_pickle(name: str, rng) -> None:
    contract.genomes_survive_text_and_pickle(get_space(name), rng)


@pytest.mark.parametrize("name", spaces_module.BUILT_IN)
def test_same_seed_gives_same_genomes(name: str) -> None:
    contract.same_seed_gives_same_genomes(get_space(name))


def test_nasbench201_sampling_is_uniform_over_valid_cells(rng) -> None:
    space = NASBench201()
    draws = np.array([space.sample(rng) for _ in range(8000)])
    every = np.array(space.all_genomes())
    for edge in range(6):
        for op in range(5):
            p = (every[:, edge] == op).mean()
            assert abs((draws[:, edge] == op).mean() - p) < 4.5 * np.sqrt(p * (1 - p) / len(draws))
    assert abs(len(np.unique(draws, axis=0)) - 15_284 * (1 - np.exp(-8000 / 15_284))) < 200


def test_nasbench101_sampling_is_uniform_over_genomes(rng) -> None:
    space = NASBench101()
    sizes = np.array([len(_all_adjacencies(n)) * 3 ** (n - 2) for n in range(2, 8)])
    drawn = np.bincount([space.sample(rng).vertices for _ in range(5000)], minlength=8)[2:]
    p = sizes / sizes.sum()
    assert (np.abs(drawn - 5000 * p) < 4.5 * np.sqrt(5000 * p * (1 - p)) + 1).all()


@needs_shared
def test_nasbench101_samples_and_children_are_rows_of_the_table(table101, rng) -> None:
    space = NASBench101()

    def in_table(a: Genome101) -> bool:
        key, low, high = module_hash(a), 0, len(table101)  # rows are sorted by the hash
        while low < high:
            middle = (low + high) // 2
            if module_hash(table101[middle][0]) < key:
                low = middle + 1
            else:
                high = middle
        return low < len(table101) and module_hash(table101[low][0]) == key

    for _ in range(60):
        a, b = space.sample(rng), space.sample(rng)
        assert in_table(a)
        assert in_table(space.mutate(a, rng))
        assert in_table(space.crossover(a, b, rng))


@pytest.mark.parametrize("name", ["nasbench201", "nasbench301"])
def test_mutation_changes_exactly_one_number(name: str, rng) -> None:
    space = get_space(name)
    for _ in range(500):
        a = space.sample(rng)
        b = space.mutate(a, rng)
        assert space.is_valid(b)
        assert (np.array(a) != np.array(b)).sum() == 1


def test_mutation_of_nasbench301_reaches_every_slot_and_both_kinds(rng) -> None:
    space = NASBench301()
    a = space.sample(rng)
    mutants = [np.array(space.mutate(a, rng)) for _ in range(1500)]
    changed = {tuple(int(i) for i in np.argwhere(np.array(a) != m)[0]) for m in mutants}
    # the first node of either cell must read both inputs, so its sources (slots 0, 1, 8, 9) cannot change
    assert changed == {(s, 1) for s in range(16)} | {(s, 0) for s in range(16) if s % 8 > 1}


def test_mutation_of_nasbench101_is_one_reversible_edit_and_another_network(rng) -> None:
    space = NASBench101()
    steps = Counter()
    for _ in range(300):
        a = space.sample(rng)
        b = space.mutate(a, rng)
        assert space.is_valid(b)
        assert module_hash(a) != module_hash(b)
        back = [c for edits in space.edits(b).values() for c in edits]
        assert module_hash(a) in {module_hash(c) for c in back}
        step = (b.vertices - a.vertices, b.adjacency.bit_count() - a.adjacency.bit_count())
        if step == (0, 0):
            assert a.adjacency == b.adjacency
            assert sum(x != y for x, y in zip(a.ops, b.ops, strict=True)) == 1
        elif step[0] == 0:
            assert a.ops == b.ops
            assert (a.adjacency ^ b.adjacency).bit_count() == 1
        steps[step] += 1
    assert set(steps) == {(0, 0), (0, 1), (0, -1), (1, 1), (-1, -1)}


@pytest.mark.parametrize(("name", "width"), [("nasbench201", 1), ("nasbench301", 2)])
def test_crossover_takes_every_part_from_a_parent(name: str, width: int, rng) -> None:
    space = get_space(name)
    new = 0
    for _ in range(300):
        a, b = space.sample(rng), space.sample(rng)
        c = space.crossover(a, b, rng)
        assert space.is_valid(c)
        for i in range(0, len(c), width):
            assert c[i:i + width] in (a[i:i + width], b[i:i + width])
        new += c not in (a, b)
    assert new > 280
    assert space.crossover(a, a, rng) == a


def test_crossover_of_nasbench101_takes_every_vertex_from_a_parent(rng) -> None:
    space = NASBench101()
    new = whole = 0
    for _ in range(200):
        a, b = space.sample(rng), space.sample(rng)
        c = space.crossover(a, b, rng)
        assert space.is_valid(c)
        new += c not in (a, b)
        if a.vertices == b.vertices == c.vertices == 7:  # nothing was padded or pruned: compare vertex by vertex
            whole += 1
            for v in range(1, 7):
                ins = sum(bit(x, v) for x in range(v))
                genes = [(g.adjacency & ins, g.ops[v - 1] if v < 6 else None) for g in (a, b, c)]
                assert genes[2] in genes[:2]
    assert new > 180
    assert whole > 50
    assert space.crossover(a, a, rng) == a


@pytest.mark.parametrize(("name", "width"), [("nasbench101", 36), ("nasbench201", 30), ("nasbench301", 168)])
def test_native_encoding_has_fixed_width_and_tells_genomes_apart(name: str, width: int, rng) -> None:
    space = get_space(name)
    genomes = list({space.sample(rng) for _ in range(300)})
    rows = np.stack([space.native(a) for a in genomes])
    assert rows.shape == (len(genomes), width)
    assert rows.dtype == np.float32
    assert set(np.unique(rows)) == {0.0, 1.0}
    assert len(np.unique(rows, axis=0)) == len({space.key(a) if name == "nasbench301" else a for a in genomes})


def test_nasbench301_key_is_blind_to_the_order_of_a_nodes_edges() -> None:
    space = NASBench301()
    a = space.decode("0:2 1:3 0:3 1:2 0:5 2:6 1:3 2:2 0:0 1:1 0:2 1:6 1:3 2:4 2:3 3:5")
    b = (a[1], a[0], *a[2:])
    assert a != b
    assert space.key(a) == space.key(b)
    assert space.to_graph(a) == space.to_graph(b)
    assert space.key(a) != space.key((*a[2:4], *a[:2], *a[4:]))


def test_nasbench101_key_is_blind_to_vertex_order_and_sees_operations() -> None:
    space = NASBench101()
    # two parallel branches input -> v -> output, written in both orders
    branches = bit(0, 1) | bit(0, 2) | bit(1, 3) | bit(2, 3)
    a, b = Genome101(4, branches, (0, 2)), Genome101(4, branches, (2, 0))
    assert a != b
    assert space.key(a) == space.key(b)
    assert space.key(a) != space.key(Genome101(4, branches, (0, 1)))


def test_nasbench101_prune_and_matrix() -> None:
    space = NASBench101()
    names = ["input", *OPS101, "conv1x1-bn-relu", "output"]
    matrix = np.zeros((6, 6), int)
    for x, y in [(0, 1), (1, 5), (0, 2), (3, 4), (4, 5)]:  # vertex 2 feeds nobody, vertices 3 and 4 are fed by nobody
        matrix[x, y] = 1
    assert space.from_matrix(matrix, names) == Genome101(3, bit(0, 1) | bit(1, 2), (0,))
    assert prune(Genome101(3, bit(0, 1), (0,))) is None
    with pytest.raises(CGError, match="no path"):
        space.from_matrix(np.zeros((3, 3), int), ["input", "maxpool3x3", "output"])
    with pytest.raises(CGError, match="unknown operation 'conv5x5'"):
        space.from_matrix(np.triu(np.ones((3, 3), int), 1), ["input", "conv5x5", "output"])
    with pytest.raises(CGError, match="upper-triangular"):
        space.from_matrix(np.ones((3, 3), int), ["input", "maxpool3x3", "output"])


@pytest.mark.parametrize(("name", "text", "message"), [
    ("nasbench101", "4:2f", "is not '<vertices>"),
    ("nasbench101", "4:zz:00", "hexadecimal"),
    ("nasbench101", "4:2f:03", "2 digits"),
    ("nasbench101", "4:2f:0", "2 digits"),
    ("nasbench101", "3:ff:0", "does not fit 3 vertices"),
    ("nasbench201", "|none~0|+|none~0|none~1|", "2 parts"),
    ("nasbench201", "|none~0|+|none~0|+|none~0|none~1|none~2|", "node 2 .* has 1 edges"),
    ("nasbench201", "|conv~0|+|none~0|none~1|+|none~0|none~1|none~2|", "'conv~0' of node 1"),
    ("nasbench201", "|none~0|+|none~0|none~0|+|none~0|none~1|none~2|", "'none~0' of node 2"),
    ("nasbench301", "0:1 1:2", "2 tokens"),
    ("nasbench301", " ".join(["0:1"] * 15 + ["0:7"]), "token 15"),
    ("nasbench301", " ".join(["0:1"] * 15 + ["x"]), "token 15"),
])
def test_bad_text_is_refused_with_the_bad_part(name: str, text: str, message: str) -> None:
    with pytest.raises(CGError, match=message):
        get_space(name).decode(text)


@pytest.mark.parametrize(("name", "genome", "message"), [
    ("nasbench101", Genome101(8, 1, (0,) * 6), "8 vertices"),
    ("nasbench101", Genome101(3, 0b111, (3,)), "operations"),
    ("nasbench101", Genome101(3, 0b1111, (0,)), "beyond 3 vertices"),
    ("nasbench101", Genome101(5, 0b1111111111, (0,) * 3), "10 edges"),
    ("nasbench101", Genome101(3, bit(0, 2), (0,)), r"vertices \[1\] are on no path"),
    ("nasbench101", (3, 7, (0,)), "a Genome101"),
    ("nasbench201", (0, 0, 0, 0, 0, 0), "no path"),
    ("nasbench201", (1, 1, 1, 1, 1, 5), "operation indices"),
    ("nasbench301", ((0, 0),) * 16, "same source 0"),
    ("nasbench301", ((0, 0), (2, 0)) * 8, "edge 1 .into node 2 of the normal cell. has source 2"),
    ("nasbench301", ((0, 0), (1, 7)) * 8, "has operation 7"),
    ("nasbench301", ((0, 0), (1, 0)), "a tuple of 16"),
])
def test_invalid_genomes_are_refused_with_the_broken_rule(name: str, genome: object, message: str) -> None:
    contract.refuses(get_space(name), genome, message)


# ---- registry ----------------------------------------------------------------------------------------------------


def test_built_in_names_and_entry_points_agree() -> None:
    assert set(ALL) <= set(list_spaces())
    assert [get_space(n).name for n in ALL] == ALL
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    for name, target in spaces_module.BUILT_IN.items():
        assert f'{name} = "{target}"' in project.replace(f'"{name}"', name)


def test_unknown_space_is_refused_with_a_suggestion() -> None:
    with pytest.raises(CGError, match=r"did you mean 'nasbench201'\?.*nasbench301"):
        get_space("nasbench2001")


class Registered(NASBench201):
    """A third-party space."""

    name = "third-party"


def not_a_space() -> object:
    return object()


def test_registered_spaces_load_and_broken_ones_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(group: str) -> list[EntryPoint]:
        here = __name__
        return [EntryPoint("third-party", f"{here}:Registered", group), EntryPoint("odd", f"{here}:not_a_space", group),
                EntryPoint("gone", "no_such_module_anywhere:Space", group),
                EntryPoint("nasbench201", f"{here}:Registered", group)]

    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    monkeypatch.setattr(registry, "entry_points", fake)
    assert "third-party" in list_spaces()
    assert get_space("third-party").name == "third-party"
    assert get_space("nasbench201").name == "nasbench201"  # a built-in name cannot be taken over
    with pytest.raises(CGError, match="gives a object, not a SearchSpace"):
        get_space("odd")
    with pytest.raises(CGError, match="no_such_module_anywhere"):
        get_space("gone")


def test_spaces_build_graphs_without_importing_torch() -> None:
    code = ("import sys, numpy as np, evo_search\n"
            f"for name in {ALL}:\n"
            "    s = evo_search.get_space(name); s.to_graph(s.sample(np.random.default_rng(0)))\n"
            "assert 'torch' not in sys.modules, 'torch was imported'\n"
            "assert evo_search.list_spaces()\n")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
