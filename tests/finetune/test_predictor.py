"""``CGPredictor`` on real benchmark networks: it ranks, it is calibrated enough to be used, and it refuses bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone

from cg import GraphBuilder, GraphSet
from cg.errors import CGError, LabelError, LeakageError, StorageError, UnknownOpError
from evo_search import targets
from finetune import CGPredictor, metrics
from finetune.baselines import CostScore
from finetune.prior import distances
from finetune.protocol import draw, evaluate, summarize


@pytest.fixture(scope="module")
def pool() -> GraphSet:
    """600 NAS-Bench-201 networks with their accuracy, no two isomorphic."""
    full = targets.pool("nasbench201")
    rows, seen = [], set()
    for i in np.random.default_rng(5).permutation(len(full)):
        if full.graphs[i].digest not in seen:
            seen.add(full.graphs[i].digest)
            rows.append(i)
        if len(rows) == 600:
            break
    return full.take(rows)


@pytest.fixture(scope="module")
def fitted(pool: GraphSet) -> CGPredictor:
    return CGPredictor("default-without-nasbench201", ["nasbench101"], 0).fit(pool.graphs[:40], pool.label()[:40])


def test_forty_labels_rank_far_better_than_cost(pool: GraphSet, fitted: CGPredictor) -> None:
    y, rest = pool.label()[40:], pool.graphs[40:]
    rho = metrics.spearman(y, fitted.predict(rest))
    assert rho > 0.9
    assert rho > metrics.spearman(y, CostScore("macs").fit(rest, y).predict(rest)) + 0.1


def test_scores_are_in_label_units_and_rank_agrees_with_them(pool: GraphSet, fitted: CGPredictor) -> None:
    rest, y = pool.graphs[40:], pool.label()[40:]
    scores = fitted.predict(rest)
    assert np.abs(scores - y).mean() < np.abs(y - np.median(y)).mean()
    order = fitted.rank(rest)
    assert sorted(order) == list(range(len(rest)))
    assert (np.diff(scores[order]) <= 1e-9).all()


def test_ninety_percent_intervals_cover(pool: GraphSet, fitted: CGPredictor) -> None:
    mean, std = fitted.predict(pool.graphs[40:], return_std=True)
    assert (std > 0).all()
    covered = (np.abs(pool.label()[40:] - mean) < 1.645 * std).mean()
    assert 0.75 < covered <= 1.0


def test_prediction_ignores_node_order_and_company(pool: GraphSet, fitted: CGPredictor) -> None:
    graphs = pool.graphs[50:56]
    shuffled = [g.permuted(np.random.default_rng(i).permutation(g.n_nodes)) for i, g in enumerate(graphs)]
    together = fitted.predict(graphs)
    np.testing.assert_allclose(fitted.predict(shuffled), together, rtol=0, atol=1e-9)
    np.testing.assert_allclose([fitted.predict([g])[0] for g in graphs], together, rtol=0, atol=1e-3)


def test_same_seed_same_prediction(pool: GraphSet, fitted: CGPredictor) -> None:
    again = clone(fitted).fit(pool.graphs[:40], pool.label()[:40])
    np.testing.assert_allclose(again.predict(pool.graphs[40:60]), fitted.predict(pool.graphs[40:60]), atol=1e-9)


def test_saved_predictor_predicts_the_same(pool: GraphSet, fitted: CGPredictor, tmp_path: object) -> None:
    folder = fitted.save(f"{tmp_path}/predictor")
    loaded = CGPredictor.load(folder)
    np.testing.assert_allclose(loaded.predict(pool.graphs[40:80]), fitted.predict(pool.graphs[40:80]), atol=1e-6)
    (folder / "labelled.parquet").write_bytes((folder / "labelled.parquet").read_bytes()[:500])
    with pytest.raises(StorageError, match=r"labelled\.parquet"):
        CGPredictor.load(folder)
    with pytest.raises(StorageError, match=r"predictor\.json"):
        CGPredictor.load(f"{tmp_path}/nowhere")


def test_the_targets_own_family_is_no_source_by_default(pool: GraphSet) -> None:
    model = CGPredictor(None).fit(pool.graphs[:10], pool.label()[:10])
    assert sorted(f for s in model.sources_ for f in s.families) == ["nasbench101", "nasbench301"]
    renamed = [g.with_(family="mine") for g in pool.graphs]  # the same networks under another name
    own = targets.get_target("nasbench201").family
    model = CGPredictor(None).fit(renamed[:200], pool.label()[:200])
    assert own not in {f for s in model.sources_ for f in s.families}


def test_a_misleading_source_is_faded_out(pool: GraphSet) -> None:
    """A source that says the opposite of the truth must hardly change the ranking."""
    other = pool.take(range(300, 600))
    wrong = GraphSet([g.with_(family="wrong") for g in other.graphs], None, {"acc": -other.label()})
    y, rest = pool.label()[40:300], pool.graphs[40:300]
    plain = CGPredictor(None, ()).fit(pool.graphs[:40], pool.label()[:40])
    misled = CGPredictor(None, [wrong]).fit(pool.graphs[:40], pool.label()[:40])
    assert metrics.spearman(y, misled.predict(rest)) > metrics.spearman(y, plain.predict(rest)) - 0.01


def test_fitting_again_keeps_the_sources_and_changes_nothing(pool: GraphSet) -> None:
    parts = [pool.take(np.arange(i, i + 30)) for i in (0, 30, 60)]
    graphs, y = pool.graphs[90:130], pool.label("test_acc")[90:130]
    model = CGPredictor(None, parts[:2])
    before = model.fit(graphs[:20], y[:20]).sources_
    assert model.fit(graphs, y).sources_ is before
    np.testing.assert_array_equal(model.predict(pool.graphs[130:]), CGPredictor(None, parts[:2]).fit(graphs, y).predict(
        pool.graphs[130:]))
    model.set_params(sources=parts[2:]).fit(graphs, y)
    assert [s.digests for s in model.sources_] == [{g.digest for g in parts[2]}]


@pytest.mark.parametrize(("labels", "message"), [
    ([1.0, float("nan"), 2.0], "label 1"), ([1.0, float("inf"), 2.0], "label 1"), ([1.0, 2.0], "3 graphs need 3 labels"),
    (["a", "b", "c"], "must be numbers"),
])
def test_bad_labels_are_refused(pool: GraphSet, labels: list[object], message: str) -> None:
    with pytest.raises(LabelError, match=message):
        CGPredictor(None, ()).fit(pool.graphs[:3], labels)


def test_one_label_is_refused_and_two_are_enough(pool: GraphSet) -> None:
    with pytest.raises(LabelError, match="at least 2 labels"):
        CGPredictor(None, ()).fit(pool.graphs[:1], [1.0])
    assert np.isfinite(CGPredictor(None, ()).fit(pool.graphs[:2], [1.0, 2.0]).predict(pool.graphs[2:9])).all()


def test_equal_labels_give_a_constant(pool: GraphSet) -> None:
    np.testing.assert_allclose(CGPredictor(None, ()).fit(pool.graphs[:5], [3.0] * 5).predict(pool.graphs[5:9]), 3.0)


def test_unknown_operators_are_refused(pool: GraphSet) -> None:
    b = GraphBuilder(name="odd")
    odd = b.build(b.op("Unknown", [b.input((1, 3, 8, 8))], name="aten.fft"))
    with pytest.raises(UnknownOpError, match=r"aten\.fft"):
        CGPredictor(None, ()).fit([odd, pool.graphs[0]], [1.0, 2.0])


def test_labelled_graphs_in_the_test_are_found(pool: GraphSet, fitted: CGPredictor) -> None:
    fitted.check_unseen(pool.graphs[40:])
    with pytest.raises(LeakageError, match=r"1 of 2 .* number 1"):
        fitted.check_unseen([pool.graphs[100], pool.graphs[3]])


def test_unfitted_predictor_says_so(pool: GraphSet) -> None:
    with pytest.raises(CGError, match="call fit"):
        CGPredictor(None).predict(pool.graphs[:1])


def test_protocol_keeps_labels_and_test_apart(pool: GraphSet) -> None:
    labelled, test = draw(pool, 40, 3)
    assert len(set(labelled) & set(test)) == 0
    assert len(labelled) + len(test) == len(pool)
    twins = GraphSet([*pool.graphs, *pool.graphs], None, {"acc": np.tile(pool.label(), 2)})
    labelled, test = draw(twins, 40, 3)
    assert not {twins.graphs[i].digest for i in labelled} & {twins.graphs[i].digest for i in test}


def test_protocol_rows_and_summary(pool: GraphSet) -> None:
    rows = evaluate(pool, "test_acc", {"params": lambda d: CostScore("params")}, n_labels=40, draws=3, target="t")
    assert len(rows) == 3
    line, = summarize(rows)
    assert line["spearman"] == pytest.approx(np.mean([r["spearman"] for r in rows]))
    assert line["spearman_std"] == pytest.approx(np.std([r["spearman"] for r in rows], ddof=1))
    y = pool.label().copy()
    y[7] = np.nan
    with pytest.raises(CGError, match="missing for 1"):
        evaluate(GraphSet(pool.graphs, None, {"acc": y}), "acc", {}, n_labels=4)


def test_without_labels_other_families_rank(pool: GraphSet, tmp_path: Path) -> None:
    """What NAS-Bench-101 says about NAS-Bench-201, through the statistics that overlap."""
    y, graphs = pool.label(), pool.graphs
    model = CGPredictor(None, ["nasbench101"]).fit([], [], unlabelled=graphs[:200])
    scores, std = model.predict(graphs[200:], return_std=True)
    assert metrics.spearman(y[200:], scores) > 0.85
    assert (std > 0).all()
    loaded = CGPredictor.load(model.save(tmp_path / "p"))
    np.testing.assert_allclose(loaded.predict(graphs[200:220]), scores[:20], atol=1e-9)
    with pytest.raises(LabelError, match="other families"):
        CGPredictor(None, ()).fit([], [], unlabelled=graphs[:20])
    with pytest.raises(LabelError, match="at least 2 labels"):
        CGPredictor(None, ["nasbench101"]).fit([], [])


def test_unlabelled_networks_make_a_handful_of_labels_worth_more(pool: GraphSet, tmp_path: Path) -> None:
    def rho(sources: tuple[str, ...], others: bool) -> float:
        found = []
        for i in range(0, 40, 5):
            model = CGPredictor(None, sources).fit(pool.graphs[i:i + 5], pool.label()[i:i + 5],
                                                   unlabelled=pool.graphs[300:] if others else ())
            found.append(metrics.spearman(pool.label()[40:300], model.predict(pool.graphs[40:300])))
        return float(np.mean(found))

    alone, told = rho((), False), rho(("nasbench101",), True)
    assert told > 0.85
    assert told > alone + 0.03
    model = CGPredictor(None, ["nasbench101"]).fit(pool.graphs[:5], pool.label()[:5], unlabelled=pool.graphs[300:])
    loaded = CGPredictor.load(model.save(tmp_path / "p"))
    np.testing.assert_allclose(loaded.predict(pool.graphs[40:60]), model.predict(pool.graphs[40:60]), atol=1e-6)


def test_distance_of_columns_is_that_of_scipy() -> None:
    from scipy.stats import ks_2samp

    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, (40, 3)).astype(float), rng.normal(2, 1, (25, 3)).round(1)
    expected = [ks_2samp(a[:, i], b[:, i]).statistic for i in range(3)]
    np.testing.assert_allclose(distances(a, b), expected, atol=1e-12)
