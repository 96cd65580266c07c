"""Search spaces: published parameter counts on every row, and builder against torch module.

Expected values come from the benchmark tables, from torch itself (parameters, gradients, dispatched operators, FLOP
counter) or from public records named beside them, never from the code under test.
"""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import space_contract as contract
from space_contract import meta_net, n_params

from cg.errors import CGError
from evo_search.oracles import shared_folder
from evo_search.spaces import get_space
from evo_search.spaces.darts import NASBench301
from evo_search.spaces.nasbench101 import Genome101, NASBench101, _all_adjacencies, bit, module_hash
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
