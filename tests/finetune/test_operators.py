"""Sums over operators: covariances against naive sums, and what they learn that statistics do not."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest

from cg import Graph
from cg.node_features import node_matrix
from evo_search import get_space
from finetune import CGPredictor, metrics
from finetune import operators as module
from finetune.mixture import SUM_ODDS, Mixture
from finetune.operators import LENGTHS, SUM_LABELS, OperatorReader, SumProcess, count
from finetune.targets import fit_on_scores


@cache
def graphs(n: int = 60, name: str = "ofa-mbv3") -> tuple[Graph, ...]:
    space, rng = get_space(name), np.random.default_rng(0)
    return tuple(space.to_graph(space.sample(rng)) for _ in range(n))


def alike(a: Graph, b: Graph, length: float) -> float:
    """Pair by pair; the networks of this space have no pooling with a window of its own."""
    total = 0.0
    x, y = node_matrix(a).astype(np.float64), node_matrix(b).astype(np.float64)
    for i, p in enumerate(a.ops):
        for j, q in enumerate(b.ops):
            if p == q:
                total += np.exp(-((x[i] - y[j]) ** 2).sum() / (2 * length**2))
    return total


def test_covariances_are_sums_over_pairs_of_operators() -> None:
    known, other = graphs()[:4], graphs()[4]
    found = OperatorReader(known)([*known, other])
    for number, length in enumerate(LENGTHS):
        k = np.array([[alike(a, b, length) for b in known] for a in (*known, other)])
        centred = k - k.mean(1, keepdims=True) - k[:4].mean(0) + k[:4].mean()
        scale = np.diag(centred[:4]).mean()
        np.testing.assert_allclose(found.cross[number][:4], centred[:4] / scale, rtol=1e-3, atol=1e-3)
        own = alike(other, other, length) - 2 * k[4].mean() + k[:4].mean()
        assert found.own[number][:4] == pytest.approx(np.diag(centred[:4]) / scale, rel=1e-3)
        # what labelled operators cannot tell of a new one is variance of its own, whatever it shares with another new one
        assert found.own[number][4] <= own / scale * 1.001
        assert found.own[number][4] > found.cross[number][4].max()


def test_what_no_labelled_operator_tells_is_variance_of_its_own() -> None:
    known, stranger = graphs()[:4], graphs(1, "nasbench201")[0]
    reader, length = OperatorReader(known), LENGTHS[0]
    k = np.array([[alike(a, b, length) for b in known] for a in known])
    scale = np.diag(k - k.mean(1, keepdims=True) - k.mean(0) + k.mean()).mean()
    cross = np.array([alike(stranger, b, length) for b in known])
    found = reader([stranger]).own[0][0] * scale
    assert found == pytest.approx(alike(stranger, stranger, length) - 2 * cross.mean() + k.mean(), rel=0.02)
    counts, rows = reader._rows([stranger])
    missed = counts.power(2) @ (1.0 - (reader._lengths[0]._each[rows] ** 2).sum(1))
    assert missed[0] > 0.05 * found


def test_operators_are_summed_in_an_order_that_no_process_decides() -> None:
    from cg._table_arrays import hashes

    specs = count(graphs()[:4])[1]
    assert (np.diff(hashes()[0][specs].astype(object)) > 0).all()
    assert (np.diff(specs) < 0).any()  # which is another order than that of the table


def test_few_operators_can_stand_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    full = OperatorReader(graphs()[:30])(graphs()[30:])
    monkeypatch.setattr(module, "MOST", 120)
    assert count(graphs()[:30])[0].shape[1] > 120
    some = OperatorReader(graphs()[:30])(graphs()[30:])
    assert np.corrcoef(some.cross[2].ravel(), full.cross[2].ravel())[0, 1] > 0.95
    assert not np.allclose(some.cross[0], full.cross[0])


def test_a_sum_over_operators_is_learned_where_statistics_learn_less() -> None:
    """A cost that depends on each operator alone, in no simple way, as a latency does."""
    all_graphs = graphs(200)
    rows = [node_matrix(g) for g in all_graphs]
    costs = np.array([(np.sin(3 * x[:, 5]) * x[:, 3] + (x[:, 8] > 2)).sum() for x in rows])
    known, rest = all_graphs[:50], all_graphs[50:]
    model = CGPredictor(None, ()).fit(known, costs[:50])
    assert model.mixture_ is not None
    assert sum(w for (view, _), w in model.mixture_.weights.items() if view == "operators") > 0.9
    without = Mixture.fit({k: v for k, v in model._views(model._inputs(known)).items() if k != "operators"},
                          [(costs[:50] - costs.mean()) / costs.std()])[0]
    stats = without.predict({k: v for k, v in model._views(model._inputs(rest)).items() if k != "operators"})[0]
    assert metrics.spearman(costs[50:], model.predict(rest)) > metrics.spearman(costs[50:], stats) + 0.02
    np.testing.assert_allclose(model.predict(rest), model.predict(rest, return_std=True)[0], rtol=1e-12)
    said = model.explain(rest[0])
    assert any(e.name == "operators" for e in said.groups)


def test_a_sum_has_to_be_shown_by_enough_labels() -> None:
    known = graphs(40)
    costs = np.array([g.macs for g in known], np.float64)
    for n, asked in ((SUM_LABELS - 1, False), (SUM_LABELS, True)):
        model = CGPredictor(None, ()).fit(known[:n], costs[:n])
        assert model.mixture_ is not None
        assert any(view == "operators" for view, _ in model.mixture_.members) == asked


def test_sum_process_leaves_one_out_as_a_refit_does() -> None:
    known = graphs()[:20]
    z = np.random.default_rng(1).normal(size=20)
    reader = OperatorReader(known)
    x = reader(known)._replace(near=np.random.default_rng(2).normal(size=(20, 3)))
    process = SumProcess(0.3).fit(x, z)
    kernel = np.tensordot(process.setting, x.cross, 1) + process._also(x.near) + process.noise * np.eye(20)
    keep = np.arange(20) != 7
    expected = kernel[7, keep] @ np.linalg.solve(kernel[np.ix_(keep, keep)], z[keep])
    assert process.leave_one_out()[0][7] == pytest.approx(expected)
    mean, std = process.predict(x)
    np.testing.assert_allclose(mean, (kernel - process.noise * np.eye(20)) @ np.linalg.solve(kernel, z))
    assert (std > 0).all()


def test_accuracy_that_is_no_sum_is_left_to_the_statistics() -> None:
    from evo_search.export import export

    pool = export("nasbench101", n=120, seed=3, labels=True)
    model = CGPredictor(None, ()).fit(pool.graphs[:60], pool.label("test_acc")[:60])
    assert model.mixture_ is not None
    assert sum(w for (view, _), w in model.mixture_.weights.items() if view == "operators") < 0.1
    assert SUM_ODDS < 0


def test_labels_are_learned_as_they_are_where_that_is_likelier() -> None:
    rng = np.random.default_rng(3)
    y = np.exp(rng.normal(size=200))  # not normal, but said without error in its own unit

    def fit(targets: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        straight = [np.corrcoef(scores, y)[0, 1] > 0.9999 for scores in targets]
        noise = [(0.001 if s else 0.3) * rng.normal(size=len(y)) for s in straight]
        return [(scores, scores + e) for scores, e in zip(targets, noise, strict=True)]

    def density(scores: np.ndarray) -> float:
        straight = np.corrcoef(scores, y)[0, 1] > 0.9999
        return 5.0 if straight == helped else -1.0

    helped = True
    _, z = fit_on_scores(y, fit, density)
    np.testing.assert_allclose(z, (y - y.mean()) / y.std())
    helped = False
    _, z = fit_on_scores(y, fit, density)
    assert np.corrcoef(z, y)[0, 1] < 0.99


def test_density_of_powers_is_that_of_the_labels() -> None:
    """The slope makes densities of differently bent labels comparable: of a normal fit to each, the likelier is the better."""
    from scipy import stats

    from finetune.targets import _power, _standard

    y = np.exp(np.random.default_rng(4).normal(size=4000))  # a tenth of them lies where the tail is a logarithm
    for shape in (_power, _standard):
        z, slope = shape(y)
        step = 1e-5
        order = np.argsort(y)
        numeric = np.interp(y + step, y[order], z[order]) - np.interp(y - step, y[order], z[order])
        inside = (y > y.min() + step) & (y < y.max() - step)
        assert np.mean(np.log(numeric[inside] / (2 * step))) == pytest.approx(slope, abs=0.03)
        likelihood = stats.norm.logpdf(z).mean() + slope
        assert likelihood <= stats.lognorm(1.0).logpdf(y).mean() + 0.02
