"""Neural Predictor: Eq. 1 by hand, padding, cascade, ablation, cross-validation, deep chains, units of the labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV

from cg import Graph
from cg.cells import Cell
from cg.errors import CGError
from finetune.baselines import NeuralPredictor
from finetune.baselines._inputs import Reader
from finetune.baselines.neural_predictor import TwoWayGCN, cross_validated, width_for
from finetune.metrics import spearman

OPS = ("a", "b", "c")


def chain(rng: np.random.Generator, length: int) -> Cell:
    return Cell(tuple(OPS[i] for i in rng.integers(3, size=length)), tuple((i, i + 1) for i in range(length - 1)))


@pytest.fixture(scope="module")
def cells() -> list[Cell]:
    """60 random cells of 3 to 7 nodes."""
    rng, found = np.random.default_rng(3), []
    for n in rng.integers(3, 8, size=60):
        pairs = [(s, t) for t in range(n) for s in range(t)]
        edges = [p for p in pairs if rng.random() < 0.5 or p[1] == p[0] + 1]
        found.append(Cell(tuple(OPS[i] for i in rng.integers(3, size=n)), tuple(edges)))
    return found


@pytest.fixture(scope="module")
def y(cells: list[Cell]) -> np.ndarray:
    """Depends on operations, on edges and on both: percent, from 60 to 95."""
    return np.array([60 + 30 * np.mean([op == "a" for op in c.ops]) + 5 * len(c.edges) / len(c.ops) ** 2
                     - 8 * np.mean([c.ops[s] == "c" for s, _ in c.edges]) for c in cells])


def quick(**settings: object) -> NeuralPredictor:
    return NeuralPredictor(**{"epochs": 30, "width": 24, "hidden": 16, "low": 10, "high": 100, **settings})


@pytest.mark.parametrize("form", ["dense", "batch"])
def test_both_forms_are_equation_1(form: str, cells: list[Cell]) -> None:
    torch.manual_seed(0)
    net = TwoWayGCN(3, 5, 2, 0.5).eval()
    reader = Reader(cells)
    items = reader.read(cells[:9])
    out = net(getattr(reader, form)(items)).detach().numpy()
    states = [out[i, :len(c.ops)] for i, c in enumerate(cells[:9])] if form == "dense" else np.split(
        out, np.cumsum([len(c.ops) for c in cells[:8]]))
    for cell, found in zip(cells[:9], states, strict=True):
        v = np.eye(3)[[OPS.index(op) for op in cell.ops]]
        adjacency = np.eye(len(v))
        for s, t in cell.edges:
            adjacency[t, s] = 1
        for pair in net.weights:
            forth, back = pair.detach().numpy()
            a, b = (m / m.sum(1, keepdims=True) for m in (adjacency, adjacency.T))
            v = (np.maximum(a @ v @ forth, 0) + np.maximum(b @ v @ back, 0)) / 2
        np.testing.assert_allclose(found, v, atol=1e-5)


def test_padding_changes_no_prediction(cells: list[Cell], y: np.ndarray) -> None:
    model = quick(epochs=3).fit(cells, y)
    together = model.predict(cells)
    assert np.ptp(together) > 0.01
    np.testing.assert_allclose([model.predict([c])[0] for c in cells], together, rtol=1e-5)


def test_width_follows_table_1() -> None:
    assert [width_for(n) for n in (43, 44, 86, 129, 172, 334, 344, 860, 5000)] == [48, 72, 72, 96, 144, 210, 210, 320, 320]


def test_steps_are_whole_epochs_of_mini_batches(cells: list[Cell], y: np.ndarray) -> None:
    stepped = quick(steps=7, batch=10).fit(cells[:25], y[:25])  # three batches an epoch
    assert len(stepped.history_) == 3
    np.testing.assert_array_equal(stepped.predict(cells), quick(epochs=3).fit(cells[:25], y[:25]).predict(cells))


def test_unit_of_the_labels_does_not_matter(cells: list[Cell], y: np.ndarray) -> None:
    """With weight decay that would swallow a loss in small units."""
    first = quick(low=None, high=None, weight_decay=1e-3).fit(cells[:40], y[:40]).predict(cells[40:])
    again = quick(low=None, high=None, weight_decay=1e-3).fit(cells[:40], y[:40] / 1000 - 2).predict(cells[40:])
    assert np.ptp(first) > 1
    np.testing.assert_allclose((again + 2) * 1000, first, atol=0.2)


def test_wide_range_of_the_sigmoid_still_learns(cells: list[Cell], y: np.ndarray) -> None:
    """Labels in a fiftieth of the range, as accuracies of ImageNet networks are: weight decay must not win."""
    small = 74 + (y - y.mean()) / 20
    model = quick(epochs=80, dropout=0.0, weight_decay=1e-5).fit(cells[:40], small[:40])
    assert np.mean((model.predict(cells[40:]) - small[40:]) ** 2) < 0.5 * np.var(small[40:])


def test_cascade_ranks_refused_networks_below_and_regress_ignores_it(cells: list[Cell], y: np.ndarray) -> None:
    model = quick(two_stage=True, threshold=float(np.median(y)), epochs=60, dropout=0.0).fit(cells, y)
    passed, score, value = model.passes(cells), model.predict(cells), model.regress(cells)
    assert 10 < passed.sum() < 50
    assert np.mean(passed == (y > np.median(y))) > 0.8
    assert score[~passed].max() < model.low_ < score[passed].min()
    np.testing.assert_array_equal(score[passed], value[passed])
    assert ((value > 10) & (value < 100)).all()
    one = quick().fit(cells, y)
    assert one.passes(cells).all()
    np.testing.assert_array_equal(one.regress(cells), one.predict(cells))


def test_perceptron_reads_edges_and_cells_only(cells: list[Cell], y: np.ndarray, nas_graphs: list[Graph]) -> None:
    model = quick(convolution=False, epochs=60, dropout=0.0).fit(cells[:45], y[:45])
    assert spearman(y[45:], model.predict(cells[45:])) > 0.5
    wired = Cell(("a", "b", "c"), ((0, 1), (1, 2), (0, 2)))
    other = Cell(("a", "b", "c"), ((0, 1), (1, 2)))
    assert abs(np.subtract(*model.predict([wired, other]))) > 1e-4
    with pytest.raises(CGError, match="convolution=False reads cells"):
        quick(convolution=False).fit(nas_graphs[:4], [1.0, 2.0, 3.0, 4.0])


def test_eighteen_layers_learn_a_chain() -> None:
    """With the usual initial weights these fits stay constant."""
    rng = np.random.default_rng(0)
    chains = [chain(rng, 12) for _ in range(70)]
    y = np.array([70 + 5 * np.mean([op == "a" for op in c.ops]) for c in chains])
    for seed in (0, 3, 4):
        model = quick(layers=18, epochs=20, width=72, hidden=128, random_state=seed).fit(chains[:40], y[:40])
        assert spearman(y[40:], model.predict(chains[40:])) > 0.6, seed


def test_cross_validation_takes_the_settings_with_the_least_error(cells: list[Cell], y: np.ndarray) -> None:
    """A learning rate at which nothing moves must lose."""
    grid = {"learning_rate": (1e-9, 1e-2)}
    model = cross_validated(cells[:40], y[:40], quick(), grid, folds=2)
    assert [s["learning_rate"] for s, _ in model.grid_] == [1e-2, 1e-9]
    assert model.grid_[0][1] < model.grid_[1][1]
    expected = quick(learning_rate=1e-2).fit(cells[:40], y[:40]).predict(cells[40:])
    np.testing.assert_array_equal(model.predict(cells[40:]), expected)
    search = GridSearchCV(quick(), {k: list(v) for k, v in grid.items()}, cv=2, scoring="neg_mean_squared_error")
    assert search.fit(cells[:40], y[:40]).best_params_ == {"learning_rate": 1e-2}
    with pytest.raises(CGError, match="folds must be from 2 to the number of labels, 40; got 41"):
        cross_validated(cells[:40], y[:40], folds=41)
