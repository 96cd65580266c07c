"""``spectrum``: closed forms, a dense solver as oracle, multiplicities, padding, and that the fast solver is really used."""

from __future__ import annotations

import numpy as np
import pytest

from cg import Graph, GraphBuilder, NodeSpec, spectrum
from cg import spectra as module
from cg.spectra import laplacian_positions, spectra

S = (1, 4)


def build(n: int, edges: list[tuple[int, int]]) -> Graph:
    """Any DAG (source < target) as a graph of Input and Sum nodes."""
    args: dict[int, list[int]] = {i: [] for i in range(n)}
    for s, d in edges:
        args[d].append(s)
    nodes = [NodeSpec("Sum", (S,) * len(a), S) if a else NodeSpec("Input", (), S) for a in args.values()]
    return Graph.make(nodes, [(s, d, k) for d, a in args.items() for k, s in enumerate(a)])


def dense(g: Graph) -> np.ndarray:
    """All eigenvalues of I - D^-1/2 A D^-1/2, written down entry by entry."""
    pairs = {frozenset((int(s), int(d))) for s, d in zip(g.src, g.dst, strict=True)}
    degree = [sum(i in p for p in pairs) for i in range(g.n_nodes)]
    laplacian = np.zeros((g.n_nodes, g.n_nodes))
    for i, d in enumerate(degree):
        laplacian[i, i] = 1.0 if d else 0.0
    for i, j in map(tuple, pairs):
        laplacian[i, j] = laplacian[j, i] = -1.0 / np.sqrt(degree[i] * degree[j])
    return np.linalg.eigvalsh(laplacian)


def path(n: int) -> list[tuple[int, int]]:
    return [(i, i + 1) for i in range(n - 1)]


def cycle(n: int) -> list[tuple[int, int]]:
    """Two branches that join again."""
    return [*path(n), (0, n - 1)] if n < 4 else [(0, 1), (0, 2), *((i, i + 2) for i in range(1, n - 2)), (n - 2, n - 1)]


@pytest.mark.parametrize("n", [2, 3, 11, 12, 39, 40, 41, 200, 1000])
def test_path(n: int) -> None:
    expected = 1 - np.cos(np.pi * np.arange(n) / (n - 1))
    assert spectrum(build(n, path(n)), 11)[:n] == pytest.approx(expected[:11], abs=1e-10)


@pytest.mark.parametrize("n", [3, 4, 11, 12, 41, 200, 600])
def test_cycle_has_double_eigenvalues(n: int) -> None:
    expected = np.sort(1 - np.cos(2 * np.pi * np.arange(n) / n))
    assert spectrum(build(n, cycle(n)), 11)[:n] == pytest.approx(expected[:11], abs=1e-10)


@pytest.mark.parametrize("n", [2, 5, 12, 30, 60])
def test_complete_graph(n: int) -> None:
    found = spectrum(build(n, [(i, j) for j in range(n) for i in range(j)]), 11)[:n]
    assert found == pytest.approx(np.array([0.0, *[n / (n - 1)] * (n - 1)])[:11], abs=1e-10)


@pytest.mark.parametrize("leaves", [1, 4, 11, 80])
def test_star(leaves: int) -> None:
    found = spectrum(build(leaves + 1, [(0, i) for i in range(1, leaves + 1)]), 11)[: leaves + 1]
    assert found == pytest.approx(np.array([0.0, *[1.0] * (leaves - 1), 2.0])[:11], abs=1e-10)


def test_complete_bipartite_graph() -> None:
    g = build(8, [(i, j) for i in range(3) for j in range(3, 8)])
    assert spectrum(g, 8) == pytest.approx([0, 1, 1, 1, 1, 1, 1, 2], abs=1e-10)


@pytest.mark.parametrize("copies", [2, 5, 13])
def test_every_component_adds_its_own_eigenvalues(copies: int) -> None:
    """Eigenvalues of multiplicity ``copies``, which a Lanczos iteration alone cannot see."""
    n = 30
    g = build(n * copies, [(i * copies + c, (i + 1) * copies + c) for i in range(n - 1) for c in range(copies)])
    expected = np.repeat(1 - np.cos(np.pi * np.arange(n) / (n - 1)), copies)
    assert spectrum(g, 11) == pytest.approx(expected[:11], abs=1e-9)


def test_networks_agree_with_the_dense_solver(nas_graphs: list[Graph]) -> None:
    assert sum(module._narrow(g.n_nodes, g.src, g.dst, 11) for g in nas_graphs) > 40
    for g in nas_graphs:
        assert spectrum(g) == pytest.approx(dense(g)[:11], abs=1e-9)


def test_random_graphs_agree_with_the_dense_solver() -> None:
    rng = np.random.default_rng(0)
    narrow = 0
    for case in range(60):
        n, reach = int(rng.integers(2, 160)), int(rng.integers(1, 12))
        edges = {(int(max(0, j - rng.integers(1, reach + 1))), j) for j in range(1, n) for _ in range(rng.integers(0, 4))}
        parallel = [e for e in edges if rng.random() < 0.1]
        g = build(n, sorted([*edges, *parallel]))
        k = int(rng.choice([1, 5, 11, 20]))
        narrow += module._narrow(g.n_nodes, g.src, g.dst, k)
        found = spectrum(g, k)
        assert found.shape == (k,)
        assert found[:n] == pytest.approx(dense(g)[:k], abs=1e-8), case
    assert narrow > 20  # the fast solver had its share


def test_the_fast_solver_knows_when_it_missed_something(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the fallback to the dense solver, a graph of 13 equal components must be noticed as incomplete."""
    from cg._eigen import smallest

    copies, n = 13, 30
    g = build(n * copies, [(i * copies + c, (i + 1) * copies + c) for i in range(n - 1) for c in range(copies)])
    values, _, complete = smallest(g.n_nodes, g.src.astype(np.int64), g.dst.astype(np.int64), 11, False)
    assert not complete or np.allclose(values, 0.0, atol=1e-9)
    chain = build(300, path(300))
    values, _, complete = smallest(300, chain.src.astype(np.int64), chain.dst.astype(np.int64), 11, False)
    assert complete


def test_small_graphs_are_padded_with_two() -> None:
    assert spectrum(build(3, path(3)), 6) == pytest.approx([0, 1, 2, 2, 2, 2])
    assert spectrum(build(1, []), 3).tolist() == [0.0, 2.0, 2.0]


def test_isolated_nodes_count_as_zero() -> None:
    assert spectrum(build(4, [(0, 1)]), 4) == pytest.approx([0, 0, 0, 2])


def test_parallel_edges_count_once() -> None:
    b, c = GraphBuilder(), GraphBuilder()
    x, y = b.input(S), c.input(S)
    doubled = b.build(b.relu(b.op("Add", [x, x])))
    single = c.build(c.relu(c.relu(y)))
    assert doubled.n_edges == 3
    assert np.array_equal(spectrum(doubled), spectrum(single))
    long = build(300, sorted([*path(300), *path(300)[::7]]))
    assert spectrum(long) == pytest.approx(spectrum(build(300, path(300))), abs=1e-10)


def test_direction_operators_and_shapes_do_not_matter() -> None:
    b = GraphBuilder()
    x = b.input((1, 3, 8, 8))
    fork = b.build(b.relu(x), b.batch_norm(x))
    join = build(3, [(0, 2), (1, 2)])
    assert spectrum(fork) == pytest.approx(spectrum(join), abs=1e-12)


def test_values_are_ascending_and_in_range(nas_graphs: list[Graph]) -> None:
    values = spectra(nas_graphs)
    assert values.shape == (len(nas_graphs), 11)
    assert (np.diff(values, axis=1) >= -1e-12).all()
    assert values.min() >= 0.0
    assert values.max() <= 2.0
    assert values[:, 0] == pytest.approx(0.0, abs=1e-12)
    assert (values[:, 1] > 0).all()  # networks are connected
    assert spectra([]).shape == (0, 11)


def test_node_order_does_not_matter(nas_graphs: list[Graph]) -> None:
    rng = np.random.default_rng(5)
    for g in nas_graphs[::4]:
        assert spectrum(g.permuted(rng.permutation(g.n_nodes))) == pytest.approx(spectrum(g), abs=1e-9)


def test_remembered_values_cannot_be_spoiled() -> None:
    g = build(5, path(5))
    with pytest.raises(ValueError, match="read-only"):
        spectrum(g)[0] = 7.0
    assert len(spectrum(g, 3)) == 3
    assert len(spectrum(g, 4)) == 4


@pytest.mark.parametrize("n", [12, 150])
def test_positions_are_eigenvectors(n: int) -> None:
    """A path has simple eigenvalues, so each column is determined up to its sign, which the first node decides."""
    g = build(n, path(n))
    found = laplacian_positions(n, g.src, g.dst, 4).astype(float)
    degree = np.array([1.0, *[2.0] * (n - 2), 1.0])
    for k in range(1, 5):
        v = np.sqrt(degree) * np.cos(np.pi * k * np.arange(n) / (n - 1))
        assert found[:, k - 1] == pytest.approx(v / np.sqrt((v ** 2).mean()), abs=2e-4)


def test_positions_of_small_graphs_are_padded() -> None:
    g = build(3, path(3))
    found = laplacian_positions(3, g.src, g.dst, 5)
    assert found.shape == (3, 5)
    assert not found[:, 2:].any()
    assert (found[0, :2] > 0).all()
    assert not laplacian_positions(1, np.zeros(0, int), np.zeros(0, int), 2).any()
