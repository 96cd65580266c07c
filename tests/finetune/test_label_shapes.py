"""What learning sees of labels: their shape, when ranks are better, and what carries over to a family that has no label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from cg import GraphSet
from evo_search import targets
from finetune import CGPredictor, metrics
from finetune.families import Stack, leave_families_out
from finetune.gp import GaussianProcess
from finetune.mixture import Mixture
from finetune.targets import LabelScale, fit_on_scores, normal_scores, power_scores


@pytest.fixture(scope="module")
def pool() -> GraphSet:
    full = targets.pool("nasbench201")
    return full.take(np.random.default_rng(7).permutation(len(full))[:500].tolist())


@pytest.mark.parametrize("y", [
    np.array([1.0, 2.0]), np.array([0.0, 0.0, 0.0, 0.0, 1.0]), np.array([1e12, 1e12 + 1, 1e12 + 5]),
    np.array([1e-12, 2e-12, 4e-12]), np.array([0.1] * 9 + [0.93, 0.94, 0.945] * 10), np.geomspace(1e-6, 1e6, 40),
    np.array([0.94] * 30 + [0.1])])
def test_power_scores_keep_the_order_and_its_ties(y: np.ndarray) -> None:
    z = power_scores(y)
    assert (np.sign(np.subtract.outer(y, y)) == np.sign(np.subtract.outer(z, z))).all()
    assert abs(z.mean()) < 1e-9
    assert z.std() == pytest.approx(1.0)


def test_power_scores_do_not_depend_on_the_unit_and_turn_with_the_sign() -> None:
    y = np.random.default_rng(0).gamma(2.0, size=60)
    np.testing.assert_allclose(power_scores(2.5 * y - 100.0), power_scores(y), atol=1e-6)
    np.testing.assert_allclose(power_scores(-y), -power_scores(y), atol=1e-4)


def test_power_scores_of_equal_labels_are_zero() -> None:
    assert (power_scores(np.full(5, 3.3)) == 0).all()


def test_power_scores_make_a_skewed_sample_symmetric_and_leave_a_normal_one_alone() -> None:
    from scipy.stats import skew

    normal = np.random.default_rng(1).normal(size=400)
    assert abs(skew(power_scores(np.exp(normal)))) < 0.25 < skew(np.exp(normal))
    assert np.corrcoef(power_scores(normal), normal)[0, 1] > 0.999


def test_one_failed_training_does_not_flatten_the_others() -> None:
    y = np.append(np.linspace(70.0, 75.0, 40), 0.1)
    others = power_scores(y)[:-1]
    assert np.ptp(others) > 2.0  # standardised as they are they would share .4


def test_distances_between_labels_are_worth_having(pool: GraphSet) -> None:
    """The reason for power scores: from the same labels, turned into ranks first, the order is worse."""
    y, found = pool.label(), {"labels": [], "ranks": []}  # type: ignore[var-annotated]
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(len(pool))
        known, test = order[:40], order[40:]
        fit, rest = [pool.graphs[i] for i in known], [pool.graphs[i] for i in test]
        for name, labels in (("labels", y[known]), ("ranks", normal_scores(y[known]))):
            found[name].append(metrics.spearman(y[test], CGPredictor(None, ()).fit(fit, labels).predict(rest)))
    assert np.mean(found["labels"]) > np.mean(found["ranks"]) + 0.004


def test_ranks_are_learned_where_labels_span_orders_of_magnitude() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(60, 4))
    z = x @ np.array([1.0, -0.5, 0.3, 0.0])

    def fit(targets: Sequence[np.ndarray]) -> list[tuple[str, np.ndarray]]:
        fitted = GaussianProcess(1.0).fit_each(x, targets)
        return [("ranks" if np.array_equal(scores, normal_scores(y)) else "power", process.leave_one_out()[0])
                for scores, process in zip(targets, fitted, strict=True)]

    y = z
    assert fit_on_scores(y, fit)[0] == "power"
    y = np.exp(8 * z)
    model, scores = fit_on_scores(y, fit)
    assert model == "ranks"
    np.testing.assert_array_equal(scores, normal_scores(y))


def test_label_scale_inverts_power_scores() -> None:
    y = np.random.default_rng(3).gamma(1.0, size=30)
    z = power_scores(y)
    np.testing.assert_allclose(LabelScale(y, z).to_labels(z), y)


def test_a_straight_line_goes_on_beyond_the_labels() -> None:
    x = np.linspace(-1, 1, 12)[:, None]
    ahead = np.array([[3.0]])
    line = GaussianProcess(1.0).fit(x, 2 * x[:, 0]).predict(ahead)[0][0]
    local = GaussianProcess().fit(x, 2 * x[:, 0]).predict(ahead)[0][0]
    assert line == pytest.approx(6.0, abs=0.5)
    assert local < line - 0.5


def test_mixture_is_a_weighted_sum_and_leaves_one_out() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(25, 3))
    z = x[:, 0] + 0.1 * rng.normal(size=25)
    views = {"good": x, "noise": rng.normal(size=(25, 3))}
    mixture, turned = Mixture.fit(views, [z, -z])
    np.testing.assert_allclose(turned.left_out, -mixture.left_out, rtol=1e-9)
    assert sum(mixture.weights.values()) == pytest.approx(1.0)
    assert sum(w for (view, _), w in mixture.weights.items() if view == "good") > 0.99
    mean, std, means = mixture.predict(views)
    np.testing.assert_allclose(mean, sum(mixture.weights[k] * m for k, m in means.items()))
    assert (std > 0).all()
    assert np.abs(mixture.left_out - z).mean() > np.abs(mean - z).mean()


def test_leaving_a_family_out_is_a_fit_without_it() -> None:
    rng = np.random.default_rng(5)
    x, families = rng.normal(size=(30, 3)), np.repeat(list("abcdef"), 5)
    process = GaussianProcess().fit(x, np.sin(x).sum(1))
    found = leave_families_out(process, families)
    rest = families != "c"
    from finetune.gp import matern

    kernel = matern(process._distance(x) / process.setting)
    weights = np.linalg.solve(kernel[np.ix_(rest, rest)] + process.noise * np.eye(rest.sum()), process.z[rest])
    np.testing.assert_allclose(found[~rest], kernel[np.ix_(~rest, rest)] @ weights, atol=1e-8)


def test_stack_trusts_what_survives_in_another_family() -> None:
    """One column says the family, and families differ in level for no reason that another one shares; a second is the law."""
    rng = np.random.default_rng(6)
    number = np.repeat(np.arange(12), 20)
    x = np.stack([number + 0.0, rng.normal(size=240), rng.normal(size=240)], 1)
    level = rng.normal(size=12)
    z = level[number] + x[:, 1]
    far, near = GaussianProcess().fit(x[:, :1] / 3, z), GaussianProcess(1.0).fit(x[:, 1:], z)
    stack = Stack({"far": far, "near": near}, x, z, number.astype(str))
    assert stack.weights["near"] + stack.share > 0.5 > stack.weights["far"]
    new = np.stack([np.full(50, 20.0), rng.normal(size=50), np.zeros(50)], 1)
    said = stack.predict({"far": far.predict(new[:, :1] / 3)[0], "near": near.predict(new[:, 1:])[0]}, new)
    assert metrics.spearman(new[:, 1], said) > 0.95


def test_a_family_without_labels_is_predicted_by_the_stack(pool: GraphSet) -> None:
    names = [f"family {i % 6}" for i in range(120)]
    labelled = [g.with_(family=n) for g, n in zip(pool.graphs[:120], names, strict=True)]
    model = CGPredictor(None, ()).fit(labelled, pool.label()[:120])
    rest, y = pool.graphs[120:], pool.label()[120:]
    inside = model.predict([g.with_(family="family 3") for g in rest])
    new = model.predict([g.with_(family="another") for g in rest])
    assert model.stack_ is not None
    assert not np.allclose(inside, new)
    assert metrics.spearman(y, new) > 0.9
    assert CGPredictor(None, ()).fit(pool.graphs[:120], pool.label()[:120]).stack_ is None


def test_a_family_with_a_few_labels_is_predicted_from_these(pool: GraphSet) -> None:
    """Five families agree, and a sixth has the opposite order: the others would outvote its labels."""
    y = pool.label().copy()
    names = np.array([f"family {i % 6}" for i in range(len(pool))])
    y[names == "family 5"] *= -1.0
    graphs = [g.with_(family=n) for g, n in zip(pool.graphs, names, strict=True)]
    sixth = np.flatnonzero(names == "family 5")
    known = [*np.flatnonzero(names[:120] != "family 5"), *sixth[:8]]
    test, others = sixth[8:], np.setdiff1d(np.arange(120, len(pool)), sixth)
    model = CGPredictor(None, ()).fit([graphs[i] for i in known], y[known])
    score, std = model.predict([graphs[i] for i in test], return_std=True)
    assert metrics.spearman(y[test], score) > 0.4
    assert np.ptp(y[sixth[:8]]) > np.abs(score - y[sixth[:8]].mean()).mean()  # in label units
    assert np.isfinite(std).all()
    assert (std > 0).all()
    mixed = [graphs[test[0]], *(graphs[i] for i in others), graphs[test[1]]]  # each by its own family, alone or in a batch
    np.testing.assert_allclose(model.predict(mixed)[[0, -1]], score[:2])
    assert metrics.spearman(y[others], model.predict([graphs[i] for i in others])) > 0.9
    assert list(model.rank([graphs[i] for i in test])) == list(np.argsort(-score, kind="stable"))
    assert model.explain(graphs[test[0]]).score == pytest.approx(score[0])
    more = [*known, *sixth[8:11]]  # eleven are no few any more
    assert not CGPredictor(None, ()).fit([graphs[i] for i in more], y[more]).few_.among(np.array(["family 5"]))


def test_label_scale_has_an_inverse() -> None:
    y = np.array([1.0, 2.0, 2.0, 5.0, 9.0])
    scale = LabelScale(y, normal_scores(y))
    z = np.linspace(-4, 4, 9)
    np.testing.assert_allclose(scale.to_scores(scale.to_labels(z)), z, atol=1e-12)
    assert LabelScale(np.ones(3), np.zeros(3)).to_scores(np.array([4.0])) == 0.0
