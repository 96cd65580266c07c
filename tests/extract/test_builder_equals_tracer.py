"""Law 3: a search space's direct builder and a trace of its real network give the same graph."""

from __future__ import annotations

import numpy as np
import pytest

from cg import fingerprint
from cg.graph import Graph

spaces = pytest.importorskip("evo_search", reason="the search spaces are not there yet")
pytest.importorskip("torch", reason="tracing needs torch")

NAMES = ("nasbench101", "nasbench201", "nasbench201-cifar100", "nasbench201-imagenet16", "nasbench301")


def difference(direct: Graph, traced: Graph) -> str:
    """What differs, for people: operators first, then the first specs that only one side has."""
    only_direct = {n.to_json() for n in direct.nodes} - {n.to_json() for n in traced.nodes}
    only_traced = {n.to_json() for n in traced.nodes} - {n.to_json() for n in direct.nodes}
    return (f"{direct} against {traced}; more in the builder: {direct.op_counts - traced.op_counts}, more in the trace: "
            f"{traced.op_counts - direct.op_counts}; specs only built: {sorted(only_direct)[:3]}, only traced: "
            f"{sorted(only_traced)[:3]}")


def check(name: str, count: int, seed: int) -> None:
    from extract import from_torch

    space = spaces.get_space(name)
    rng = np.random.default_rng(seed)
    for _ in range(count):
        genome = space.sample(rng)
        direct = space.to_graph(genome)
        result = from_torch(lambda genome=genome: space.to_torch(genome), space.input_shape)
        assert fingerprint(result.graph) == fingerprint(direct), (
            f"{space.encode(genome)}: {difference(direct, result.graph)}")
        assert not result.unknown


@pytest.mark.parametrize("name", NAMES)
def test_trace_of_real_network_equals_direct_graph(name: str) -> None:
    check(name, 20 if name == "nasbench101" else 10, seed=0)  # some cells of it cut the same channels twice


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_trace_of_real_network_equals_direct_graph_on_200_genomes(name: str) -> None:
    check(name, 200, seed=1)


def test_a_factory_and_a_module_with_weights_give_the_same_graph() -> None:
    from extract import from_torch

    space = spaces.get_space("nasbench201")
    genome = space.sample(np.random.default_rng(2))
    assert from_torch(space.to_torch(genome), space.input_shape).graph == space.to_graph(genome)


def test_the_law_can_fail() -> None:
    """The same network with one stride, one attribute or one operation changed is another graph."""
    from extract import from_torch

    space = spaces.get_space("nasbench201")
    genome = space.decode("|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_1x1~1|nor_conv_3x3~2|")
    direct = space.to_graph(genome)
    network = space.to_torch(genome)
    pool = next(m for m in network.modules() if type(m).__name__ == "AvgPool2d" and m.kernel_size == 3)
    pool.count_include_pad = True
    assert from_torch(network, space.input_shape).graph != direct
