"""Genomes of the benchmarks' spaces: sampling, edits, text forms, native encodings; and spaces by name."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import space_contract as contract

import evo_search._registry as registry
import evo_search.spaces as spaces_module
from cg.errors import CGError
from evo_search.spaces import get_space, list_spaces
from evo_search.spaces.darts import NASBench301
from evo_search.spaces.nasbench101 import OPS as OPS101
from evo_search.spaces.nasbench101 import Genome101, NASBench101, _all_adjacencies, bit, module_hash, prune
from evo_search.spaces.nasbench201 import NASBench201

ALL = ["nasbench101", "nasbench201", "nasbench201-cifar100", "nasbench201-imagenet16", "nasbench301"]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


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
