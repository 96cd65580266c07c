"""Spaces of Once-for-All, ProxylessNAS and NATS-Bench size: published counts, edits, texts, and builder against torch module.

Expected values come from the measured table of sub-networks, from torch itself, from timm, or from public records named beside
them, never from the code under test. That genomes survive text and pickle and follow a seed is checked in
test_space_genomes.py.
"""

from __future__ import annotations

import csv
import gzip
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import space_contract as contract
from space_contract import meta_net, n_params

from cg.errors import CGError
from evo_search.ofa import SubNet
from evo_search.oracles import shared_folder
from evo_search.spaces import get_space, list_spaces
from evo_search.spaces._mbconv import make_divisible
from evo_search.spaces.nats_size import CHANNELS
from evo_search.spaces.ofa import OFAMobileNetV3, OFAMobileNetV3Wide, OFAProxylessNAS
from evo_search.spaces.ofa_resnet import GenomeResNet, OFAResNet50
from evo_search.spaces.proxylessnas import ProxylessNAS

SHARED = shared_folder() / "data"
OFA = ["ofa-mbv3", "ofa-mbv3-w12", "ofa-proxyless"]
ALL = [*OFA, "ofa-resnet50", "proxylessnas", "nats-size"]
NATIVE_WIDTH = dict(zip(ALL, (145, 145, 151, 81, 144, 40), strict=True))
MOBILE = "0:1066:2011:5111:4111:5522:5"  # ProxylessNAS-Mobile


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


# ---- published numbers -------------------------------------------------------------------------------------------


@pytest.mark.skipif(not SHARED.is_dir(), reason="the measured sub-networks (CGTRANSFER_SHARED) are not here")
def test_parameters_and_macs_equal_the_measured_table_on_every_row() -> None:
    space = get_space("ofa-mbv3")
    with gzip.open(SHARED / "ofa" / "ofa_mbv3_measured_top1.csv.gz", "rt") as f:
        rows = list(csv.DictReader(f))
    assert len(rows) == 2_373
    for row in rows:
        a = SubNet.parse(",".join(row[k] for k in ("ks", "e", "d", "r")))
        graph = space.to_graph(a)
        expected = int(row["params"]), int(row["macs"])
        assert (space.count_params(a), graph.macs) == expected, str(a)
        assert graph.params == expected[0]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the sub-networks with surrogate values (CGTRANSFER_SHARED) are not here")
@pytest.mark.parametrize(("name", "file"), [("ofa-mbv3-w12", "mbv3"), ("ofa-proxyless", "pn")])
def test_rows_of_the_surrogate_tables_are_networks_of_the_spaces(name: str, file: str) -> None:
    space = get_space(name)
    with gzip.open(SHARED / "ofa" / f"ofa_{file}_oracle_20k.csv.gz", "rt") as f:
        texts = [",".join((row["ks"], row["e"], row["d"], row["r"])) for row in csv.DictReader(f)]
    assert len(texts) == 20_000
    assert all(space.encode(space.decode(text)) == text and space.is_valid(space.decode(text)) for text in texts[::20])


@pytest.mark.parametrize(("widths", "text", "params", "mega_macs"), [
    # parameters: tests of pytorchcv (osmr/imgclsmob, proxylessnas.py); choices and channels: TuNAS in tensorflow/models;
    # multiply-adds of the first and the last: README of mit-han-lab/proxylessnas, Table 2 of the paper
    (ProxylessNAS.widths, MOBILE, 4_080_512, 320),
    ((48, 24, 40, 56, 112, 136, 256, 448, 1792), MOBILE, 6_857_568, 581),
    ((40, 24, 32, 56, 112, 128, 256, 432, 1728), "0:1666:2660:5661:4601:5554:5", 7_119_848, 465),
    ((40, 24, 32, 48, 88, 104, 216, 360, 1432), "0:3000:3001:3660:4000:4110:4", 4_361_648, 439),
])
def test_published_proxylessnas_networks(widths, text: str, params: int, mega_macs: int) -> None:
    space = type("Scaled", (ProxylessNAS,), {"widths": widths})()
    a = space.decode(text)
    assert space.count_params(a) == params == n_params(meta_net(space, a))
    assert round(space.to_graph(a).macs / 1e6) == mega_macs


@pytest.mark.parametrize(("text", "params"), [("8:8:8:8:8", 11_714), ("8:8:16:40:40", 107_826), ("64:64:64:64:64", 713_674)])
def test_nats_size_parameters_are_those_of_the_benchmark(text: str, params: int) -> None:
    """The benchmark's files give 0.011714, 0.107826 and 0.713674 million."""
    space = get_space("nats-size")
    a = space.decode(text)
    assert space.count_params(a) == params == space.to_graph(a).params


def test_the_cell_of_nats_size_has_its_skip_connection_from_input_to_output() -> None:
    space = get_space("nats-size")
    narrow, graph = (space.to_graph(space.decode(t)) for t in ("8:16:16:24:24", "8:16:24:24:24"))
    assert (narrow.op_counts["Conv"], graph.op_counts["Conv"]) == (22, 23)  # a change of channels costs one convolution
    at = next(i for i, n in enumerate(graph.nodes) if n.op == "Conv" and n.attr("kernel_shape") == (1, 1)
              and n.weight_shape[:2] == (24, 16) and n.in_shapes[0][2] == 16)  # the one on the input of the middle cell
    assert graph.nodes[graph.inputs_of(at)[0]].op == "Add"  # the end of the reduction before, without a ReLU
    norm = next(i for i in range(graph.n_nodes) if at in graph.inputs_of(i))
    assert [n.op for i, n in enumerate(graph.nodes) if norm in graph.inputs_of(i)] == ["Add"]


RATIOS50 = "-".join([*["0.25"] * 3, "0", *["0.25"] * 13, "0"])
RESNET50D = f"2-1-2-2-1,{RATIOS50},2-2-2-2-2-2,224"  # 3, 4, 6 and 3 blocks


def test_ofa_resnet50_holds_a_network_with_the_parameters_of_resnet50d() -> None:
    space = get_space("ofa-resnet50")
    assert space.count_params(space.decode(RESNET50D)) == 25_576_264  # timm's table of models: 25.58 million


@pytest.mark.slow
def test_ofa_resnet50_holds_resnet50d() -> None:
    import torch

    from extract import from_torch, zoo

    zoo.import_torchvision()
    timm = pytest.importorskip("timm")
    space = get_space("ofa-resnet50")
    a = space.decode(RESNET50D)
    with torch.device("meta"):
        net = timm.create_model("resnet50d").eval()
    theirs, ours = from_torch(net, torch.empty(1, 3, 224, 224, device="meta")).graph, space.to_graph(a)
    assert (ours.params, ours.macs) == (theirs.params, theirs.macs)
    # ResNet-50-D has no residual connection in its stem
    assert ours.op_counts - theirs.op_counts == Counter({"Add": 1})
    assert not theirs.op_counts - ours.op_counts


def test_channels_are_made_divisible_as_published() -> None:
    # 64 x 0.65 = 41.6, 16 x 1.2 = 19.2 (16 would lose above a tenth, as for 18), 192 x 1.3 = 249.6, 320 x 1.3 = 416
    assert [make_divisible(v) for v in (41.6, 19.2, 249.6, 416, 18, 3)] == [40, 24, 248, 416, 24, 8]


def widths_of(name: str) -> list[int]:
    """Output channels of the blocks that end a stage of the deepest network, and of the layers around them."""
    space = get_space(name)
    stages = space.stages
    a = SubNet.of([3] * 4 * stages, [3] * 4 * stages, [4] * 5 + [1] * (stages - 5), 224)
    return [n.out_shape[1] for n in space.to_graph(a).nodes if n.op == "Conv" and n.attr("group") == 1]


def test_width_multiplies_the_channels() -> None:
    # an official sub-network of width 1.2 starts with 24 channels and ends with 192, 1152 and 1536; 1.3: 40, 24 and 416, 1664
    wide, proxyless = widths_of("ofa-mbv3-w12"), widths_of("ofa-proxyless")
    assert wide[:2] == [24, 24]
    assert wide[-3:] == [192, 1152, 1536]
    assert proxyless[:2] == [40, 24]
    assert proxyless[-2:] == [416, 1664]
    assert widths_of("ofa-mbv3")[-3:] == [160, 960, 1280]


def test_activations_and_gates_stand_where_mobilenetv3_has_them() -> None:
    """once-for-all, ofa_mbv3.py: activations relu relu relu h_swish h_swish h_swish, SE no no yes no yes yes, where the first
    entry is the first block."""
    space = get_space("ofa-mbv3")
    net = meta_net(space, SubNet.of([3] * 20, [3] * 20, [2] * 5, 224))
    acts = [type(block.conv.depth_conv.act).__name__ for block in net.blocks]
    assert acts == ["ReLU"] * 5 + ["Hardswish"] * 6
    assert [hasattr(block.conv.depth_conv, "se") for block in net.blocks] == [False] * 3 + [True] * 2 + [False] * 2 + [True] * 4
    assert [block.residual for block in net.blocks] == [True] + [False, True] * 5


def test_ofa_proxyless_has_the_blocks_of_the_official_network() -> None:
    """once-for-all, ofa_proxyless.py: ReLU6 everywhere, strides 2 2 2 1 2 1 for widths 24 40 80 96 192 320 (here times 1.3)."""
    space = get_space("ofa-proxyless")
    a = SubNet.of([5] * 24, [4] * 24, [2] * 5 + [1], 224)
    net, graph = meta_net(space, a), space.to_graph(a)
    assert {type(block.conv.depth_conv.act).__name__ for block in net.blocks} == {"ReLU6"}
    assert graph.op_counts["Clip"] == 1 + 1 + 2 * 11 + 1
    assert "Relu" not in graph.op_counts
    depthwise = [(n.out_shape[1], n.out_shape[2]) for n in graph.nodes if n.op == "Conv" and n.attr("group") > 1]
    inputs = [24, 32, 32, 56, 56, 104, 104, 128, 128, 248, 248]
    assert depthwise == [(40, 112), *zip([4 * c for c in inputs], (56, 56, 28, 28, 14, 14, 14, 14, 7, 7, 7), strict=True)]


# ---- graph against torch module ----------------------------------------------------------------------------------


def trace_equals_build(name: str, count: int, rng: np.random.Generator) -> None:
    import torch

    from extract import from_torch

    space = get_space(name)
    for _ in range(count):
        a = space.sample(rng)
        net = meta_net(space, a)
        graph = space.to_graph(a)
        assert from_torch(net, torch.empty(space.input_shape_of(a), device="meta")).graph == graph, space.encode(a)
        assert graph.params == space.count_params(a) == n_params(net)


@pytest.mark.parametrize("name", ALL)
def test_builder_equals_tracer(name: str, rng) -> None:
    trace_equals_build(name, 4, rng)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_builder_equals_tracer_on_two_hundred(name: str, rng) -> None:
    trace_equals_build(name, 200, rng)


@pytest.mark.parametrize("name", ALL)
def test_macs_are_those_that_torch_counts(name: str, rng) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    space = get_space(name)
    for _ in range(2):
        a = space.sample(rng)
        net, x = meta_net(space, a), torch.empty(space.input_shape_of(a), device="meta")
        with torch.no_grad(), FlopCounterMode(display=False) as flops:
            assert net(x).shape == (1, space.num_classes)
        assert flops.get_total_flops() == 2 * space.to_graph(a).macs  # torch counts a multiply-add as two


@pytest.mark.parametrize("name", ALL)
def test_every_weight_gets_a_gradient(name: str, rng) -> None:
    import torch

    space = get_space(name)
    a = space.sample(rng)
    torch.manual_seed(0)
    net = space.to_torch(a)
    net(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


@pytest.mark.parametrize(("name", "text", "expected"), [
    ("ofa-mbv3", "3-3-0-0-" * 4 + "3-3-0-0,3-3-0-0-" + "3-3-0-0-" * 3 + "3-3-0-0,2-2-2-2-2,224", [
        "first_conv.conv.weight", "first_conv.bn.running_mean", "blocks.0.conv.depth_conv.conv.weight",
        "blocks.3.conv.inverted_bottleneck.conv.weight", "blocks.3.conv.depth_conv.se.fc.reduce.bias",
        "blocks.4.conv.depth_conv.se.fc.expand.weight", "blocks.10.conv.point_linear.bn.weight", "final_expand_layer.bn.bias",
        "feature_mix_layer.conv.weight", "classifier.linear.weight"]),
    ("ofa-proxyless", "3-3-0-0-" * 5 + "3-0-0-0," + "3-3-0-0-" * 5 + "3-0-0-0,2-2-2-2-2-1,224", [
        "first_conv.bn.weight", "blocks.11.conv.point_linear.conv.weight", "feature_mix_layer.bn.weight",
        "classifier.linear.bias"]),
    ("ofa-resnet50", "2-0-0-0-0,0.2-0.2-0-0-0.2-0.2-0-0-0.2-0.2-0.2-0.2-0-0-0.2-0.2-0-0,2-2-2-2-2-2,224", [
        "input_stem.0.conv.weight", "input_stem.1.conv.bn.weight", "input_stem.2.bn.bias", "blocks.0.downsample.conv.weight",
        "blocks.9.conv3.bn.running_var", "blocks.2.conv2.conv.weight", "classifier.linear.weight"]),
])
def test_modules_carry_the_names_of_the_official_state_dicts(name: str, text: str, expected: list[str]) -> None:
    space = get_space(name)
    found = meta_net(space, space.decode(text)).state_dict()
    assert set(expected) <= set(found)
    assert not any(key.startswith("feature_mix_layer.bn") for key in found) or name != "ofa-mbv3"


# Derived from the published blocks (BatchNormalization is a node); joins are not counted.
def test_nodes_per_operation() -> None:
    for name in OFA:
        counts = get_space(name).node_counts()
        assert {k: v for k, v in counts.items() if not k.endswith("+se")} == {f"mbconv_k{k}_e{e}": 8 for k in (3, 5, 7)
                                                                             for e in (3, 4, 6)}
        assert {v for k, v in counts.items() if k.endswith("+se")} == (set() if name == "ofa-proxyless" else {14})
    assert get_space("proxylessnas").node_counts() == {
        "skip": 0, **{f"mbconv_k{k}_e1": 5 for k in (3, 5, 7)}, **{f"mbconv_k{k}_e{e}": 8 for k in (3, 5, 7) for e in (3, 6)}}
    assert get_space("ofa-resnet50").node_counts() == {"bottleneck": 9, "bottleneck+projection": 11, "bottleneck/2": 12}
    assert get_space("nats-size").node_counts() == {"cell": 15, "cell, other channels": 17, "reduction": 8}


def test_nodes_per_operation_explain_the_size_of_every_ofa_mobilenetv3(rng) -> None:
    space = get_space("ofa-mbv3")
    counts = space.node_counts()
    for _ in range(20):
        a = space.sample(rng)
        # input, stem (3), first block (5, addition), head (3, pooling, 2, linear); later blocks of a stage add their input
        expected = 1 + 3 + 6 + 7 + sum(counts[f"mbconv_k{k}_e{e}" + ("+se" if s in (1, 3, 4) else "")] + (j > 0)
                                       for s, j, k, e in a.blocks())
        assert space.to_graph(a).n_nodes == expected


# ---- genomes -----------------------------------------------------------------------------------------------------


def genes(name: str, a) -> dict[tuple, object]:
    """The choices of a genome by name; blocks that are absent have none."""
    if isinstance(a, SubNet):
        found = {("k", s, j): k for s, j, k, _ in a.blocks()} | {("e", s, j): e for s, j, _, e in a.blocks()}
        return found | {("d", s): d for s, d in enumerate(a.d[:5])} | {("r",): a.r}
    if isinstance(a, GenomeResNet):
        found = {(part, i): v for part in "dew" for i, v in enumerate(getattr(a, part)) if part != "e" or v}
        return found | {("r",): a.r}
    return dict(enumerate(a)) if name == "nats-size" else {(i,): v for i, v in enumerate(a)}


# how many values a gene has, where it is there
VALUES = {"ofa-mbv3": {"k": 3, "e": 3, "d": 3, "r": 25}, "ofa-mbv3-w12": {"k": 3, "e": 3, "d": 3, "r": 25},
          "ofa-proxyless": {"k": 3, "e": 3, "d": 3, "r": 25}, "ofa-resnet50": {"d": 3, "e": 3, "w": 3, "r": 8},
          "proxylessnas": {}, "nats-size": {}}


@pytest.mark.parametrize("name", ALL)
def test_every_gene_is_sampled_uniformly(name: str, rng) -> None:
    space = get_space(name)
    n = 3000
    seen: dict[object, Counter] = {}
    for _ in range(n):
        for gene, value in genes(name, space.sample(rng)).items():
            seen.setdefault(gene, Counter())[value] += 1
    for gene, counts in seen.items():
        total = sum(counts.values())
        if name == "proxylessnas":
            expected = 3 if gene == (0,) else 6 if gene[0] in (1, 5, 9, 13, 17, 21) else 7
        elif name == "nats-size":
            expected = 8
        else:
            expected = 2 if (name, gene) == ("ofa-resnet50", ("d", 0)) else VALUES[name][gene[0]]
        assert len(counts) == expected, gene
        p = 1 / expected
        assert all(abs(v - total * p) < 4.8 * np.sqrt(total * p * (1 - p)) for v in counts.values()), (gene, counts)


@pytest.mark.parametrize("name", ALL)
def test_mutation_is_one_edit_and_another_network(name: str, rng) -> None:
    space = get_space(name)
    for i in range(300):
        a = space.sample(rng)
        b = space.mutate(a, rng)
        assert space.is_valid(b)
        assert space.key(a) != space.key(b)
        x, y = genes(name, a), genes(name, b)
        changed = [g for g in x.keys() & y.keys() if x[g] != y[g]]
        assert len(changed) == 1
        if x.keys() != y.keys():  # a depth: the blocks that stay are the same
            assert changed[0][0] == "d"
        if i < 15:
            assert space.to_graph(a) != space.to_graph(b)


@pytest.mark.parametrize("name", ALL)
def test_mutation_reaches_every_gene(name: str, rng) -> None:
    space = get_space(name)
    a = space.sample(rng)
    x = genes(name, a)
    changed = set()
    for _ in range(2500):
        y = genes(name, space.mutate(a, rng))
        changed |= {(g, y[g]) for g in x.keys() & y.keys() if x[g] != y[g]}
    assert {g for g, _ in changed} == set(x)
    if name == "nats-size":
        assert len(changed) == 5 * 7
    elif name == "proxylessnas":
        assert len(changed) == 2 + 6 * 5 + 15 * 6


@pytest.mark.parametrize("name", ALL)
def test_crossover_takes_every_part_from_a_parent(name: str, rng) -> None:
    space = get_space(name)
    new = 0
    for _ in range(200):
        a, b = space.sample(rng), space.sample(rng)
        c = space.crossover(a, b, rng)
        assert space.is_valid(c)
        parts = [_parts(v) for v in (a, b, c)]
        assert all(z in (x, y) for x, y, z in zip(*parts, strict=True))
        new += space.key(c) not in (space.key(a), space.key(b))
    assert new > 185
    assert space.crossover(a, a, rng) == a


def _parts(a) -> list[object]:
    if isinstance(a, SubNet):
        return [(a.ks[4 * s:4 * s + 4], a.e[4 * s:4 * s + 4], d) for s, d in enumerate(a.d)] + [a.r]
    if isinstance(a, GenomeResNet):
        cuts = (0, 4, 8, 14, 18)
        stages = [(a.d[s + 1], a.e[cuts[s]:cuts[s + 1]], a.w[s + 2]) for s in range(4)]
        return [(a.d[0], a.w[:2]), *stages, a.r]
    return list(a)


@pytest.mark.parametrize("name", ALL)
def test_native_encoding_has_fixed_width_and_tells_networks_apart(name: str, rng) -> None:
    space = get_space(name)
    genomes = list({space.sample(rng) for _ in range(200)})
    genomes += [space.mutate(a, rng) for a in genomes[:50]]
    rows = np.stack([space.native(a) for a in genomes])
    assert rows.shape == (len(genomes), NATIVE_WIDTH[name])
    assert rows.dtype == np.float32
    assert set(np.unique(rows)) == {0.0, 1.0}
    assert len(np.unique(rows, axis=0)) == len({space.key(a) for a in genomes})


@pytest.mark.parametrize("name", ALL)
def test_cells_are_chains_that_tell_networks_apart(name: str, rng) -> None:
    space = get_space(name)
    genomes = [space.sample(rng) for _ in range(100)]
    genomes += [space.mutate(a, rng) for a in genomes[:50]]
    cells = [space.cell(a) for a in genomes]
    assert all(c.edges == tuple((i, i + 1) for i in range(len(c.ops) - 1)) for c in cells)
    assert len({c.ops for c in cells}) == len({space.key(a) for a in genomes})


def test_skipped_layers_may_stand_anywhere_in_a_stage() -> None:
    space = get_space("proxylessnas")
    a, b, c = (space.decode(f"0:{stage}:2011:5111:4111:5522:5") for stage in ("1602", "1026", "1206"))
    assert a != b
    assert space.key(a) == space.key(b) == space.encode(b)
    assert space.to_graph(a) == space.to_graph(b)
    assert (space.native(a) == space.native(b)).all()
    assert space.cell(a).ops == space.cell(b).ops
    assert space.key(a) != space.key(c)
    assert space.to_graph(a) != space.to_graph(c)


def test_the_two_narrow_stems_of_ofa_resnet50_are_one_network(rng) -> None:
    space = get_space("ofa-resnet50")
    a = space.sample(rng)
    same = [a._replace(w=(i, *a.w[1:])) for i in range(3)]
    graphs = [space.to_graph(b) for b in same]
    assert graphs[0] == graphs[1] != graphs[2]
    assert space.key(same[0]) == space.key(same[1]) != space.key(same[2])
    for start, ends in ((0, {2}), (1, {2}), (2, {0, 1})):
        met = {space.mutate(same[start], rng).w[0] for _ in range(600)} - {start}
        assert met == ends


def test_nats_size_lists_all_its_networks() -> None:
    every = get_space("nats-size").all_genomes()
    assert len(set(every)) == 32_768 == len(CHANNELS) ** 5


def test_spaces_can_be_held_to_some_resolutions(rng) -> None:
    for cls, some in ((OFAMobileNetV3Wide, (192, 208, 224)), (OFAProxylessNAS, (224,)), (OFAResNet50, (160, 224))):
        space = cls(resolutions=some)
        genomes = [space.sample(rng) for _ in range(60)]
        genomes += [space.mutate(a, rng) for a in genomes] + [space.crossover(*genomes[i:i + 2], rng) for i in range(30)]
        assert {a.r for a in genomes} == set(some)
        assert {space.input_shape_of(a)[-1] for a in genomes} == set(some)
        again = pickle.loads(pickle.dumps(space))
        assert again.resolutions == some
        assert repr(again) == f"{cls.__name__}(resolutions={some})"
        assert space.native(genomes[0]).shape == (NATIVE_WIDTH[space.name] - len(cls().resolutions) + len(some),)
        other = genomes[0]
        other = other._replace(r=128) if isinstance(other, GenomeResNet) else SubNet(other.ks, other.e, other.d, 128)
        with pytest.raises(CGError, match="r = 128 is none of this space's resolutions"):
            space.to_graph(other)
    assert repr(OFAMobileNetV3()) == "OFAMobileNetV3()"
    for cls in (OFAMobileNetV3, OFAResNet50):
        for bad in ((), (224, 100)):
            with pytest.raises(CGError, match="resolutions"):
                cls(resolutions=bad)


D = "2-0-0-0-0,0.2-0.2-0-0-0.2-0.2-0-0-0.2-0.2-0.2-0.2-0-0-0.2-0.2-0-0,2-2-2-2-2-2,224"


@pytest.mark.parametrize(("name", "text", "message"), [
    ("ofa-mbv3", "3-3,3-3,2", "is not '<ks>,<e>,<d>,<r>'"),
    ("ofa-resnet50", "2-0-0-0-0,0.2,224", "is not '<d>,<e>,<w>,<r>'"),
    ("ofa-resnet50", D.replace("224", "x"), "is not '<d>,<e>,<w>,<r>'"),
    ("proxylessnas", "0:1066:2011:5111:4111:5522", "7 stages of 1, 4, 4, 4, 4, 4, 1 digits"),
    ("proxylessnas", "0:1066:2011:5171:4111:5522:5", "layer 11 .* is '7'"),
    ("nats-size", "8:8:8:8", "4 numbers"),
    ("nats-size", "8:8:-8:8:8", "layer 2 .* is '-8'"),
])
def test_bad_text_is_refused_with_the_bad_part(name: str, text: str, message: str) -> None:
    with pytest.raises(CGError, match=message):
        get_space(name).decode(text)


@pytest.mark.parametrize(("name", "genome", "message"), [
    ("ofa-mbv3", (3, 3), "SubNet"),
    ("ofa-mbv3", SubNet.of([3] * 24, [3] * 24, [2] * 5 + [1], 224), "6 stages; networks of this space have 5"),
    ("ofa-proxyless", SubNet.of([3] * 20, [3] * 20, [2] * 5, 224), "5 stages; networks of this space have 6"),
    ("ofa-resnet50", ((2, 0, 0, 0, 0), (), (), 224), "GenomeResNet"),
    ("ofa-resnet50", "1-0-0-0-0" + D[9:], r"d\[0\] = 1; allowed are \(0, 2\)"),
    ("ofa-resnet50", "2-0-0-3-0" + D[9:], r"d\[3\] = 3"),
    ("ofa-resnet50", "2-0-0-0" + D[9:], "d has 4 entries; it must have 5"),
    ("ofa-resnet50", D.replace("0-0,2-", "0-0.35,2-"), r"e\[17\] = 0.35; allowed are \(0,\)"),
    ("ofa-resnet50", D.replace(",0.2-", ",0.3-"), r"e\[0\] = 0.3"),
    ("ofa-resnet50", D.replace("2-2,224", "2-3,224"), r"w\[5\] = 3"),
    ("ofa-resnet50", D.replace("224", "208"), "r = 208"),
    ("proxylessnas", (0,) * 21, "22 numbers"),
    ("proxylessnas", (3, *(0,) * 21), "layer 0 has choice 3; allowed are 0..2"),
    ("proxylessnas", (0, 6, *(0,) * 20), "layer 1 has choice 6; allowed are 0..5"),
    ("proxylessnas", (*(0,) * 21, 6), "layer 21 has choice 6"),
    ("nats-size", (8, 8, 8, 8), "5 channel numbers"),
    ("nats-size", (8, 8, 12, 8, 8), "layer 2 has 12 channels"),
])
def test_invalid_genomes_are_refused_with_the_broken_rule(name: str, genome: object, message: str) -> None:
    space = get_space(name)
    contract.refuses(space, space.decode(genome) if isinstance(genome, str) else genome, message)


def test_spaces_are_known_by_name_and_build_graphs_without_importing_torch() -> None:
    assert set(ALL) <= set(list_spaces())
    assert [get_space(n).name for n in ALL] == ALL
    code = ("import sys, numpy as np, evo_search\n"
            f"for name in {ALL}:\n"
            "    s = evo_search.get_space(name); s.to_graph(s.sample(np.random.default_rng(0)))\n"
            "assert 'torch' not in sys.modules, 'torch was imported'\n")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
