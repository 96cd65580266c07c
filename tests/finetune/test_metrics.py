"""Criteria against brute force and closed forms, ties included."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from cg.errors import LabelError
from finetune import metrics
from finetune.targets import LabelScale, normal_scores


def _tau_b(a: np.ndarray, b: np.ndarray) -> float:
    pairs = list(itertools.combinations(range(len(a)), 2))
    s = sum(np.sign(a[i] - a[j]) * np.sign(b[i] - b[j]) for i, j in pairs)
    return float(s / np.sqrt(sum(a[i] != a[j] for i, j in pairs) * sum(b[i] != b[j] for i, j in pairs)))


def _ranks(a: np.ndarray) -> np.ndarray:
    return np.array([(a < v).sum() + ((a == v).sum() + 1) / 2 for v in a])


@pytest.mark.parametrize("seed", range(5))
def test_correlations_equal_brute_force_with_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 6, 25).astype(float), rng.integers(0, 6, 25).astype(float)
    assert metrics.kendall(a, b) == pytest.approx(_tau_b(a, b))
    assert metrics.spearman(a, b) == pytest.approx(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def test_extremes() -> None:
    y = np.array([1.0, 2.0, 3.0, 10.0])
    assert metrics.spearman(y, y**3) == pytest.approx(1.0)
    assert metrics.kendall(y, -y) == pytest.approx(-1.0)
    assert metrics.spearman(y, np.ones(4)) == 0.0
    assert metrics.kendall(y, np.ones(4)) == 0.0


def test_top_k_criteria_by_hand() -> None:
    y = np.array([10.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    p = np.array([0.0, 9.0, 1.0, 8.0, 7.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert metrics.precision_at_k(y, p, 3) == pytest.approx(1 / 3)  # chosen 1, 3, 4; best 0, 1, 2
    assert metrics.precision_at_k(y, p, 0.5) == pytest.approx(3 / 5)  # chosen 1, 3, 4, 9, 8; best 0..4
    assert metrics.best_ranking_at_k(y, p, 1) == pytest.approx(0.2)
    assert metrics.best_ranking_at_k(y, -p, 1) == pytest.approx(0.1)


@pytest.mark.parametrize("seed", range(6))
def test_top_k_criteria_are_the_mean_over_all_ways_of_breaking_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, p = rng.integers(0, 4, 6).astype(float), rng.integers(0, 3, 6).astype(float)
    rank = np.array([1 + (y > v).sum() for v in y])
    orders = [np.array(o) for o in itertools.permutations(range(6))]
    by_score = [o[np.argsort(-p[o], kind="stable")] for o in orders]
    by_label = [o[np.argsort(-y[o], kind="stable")] for o in orders[::7]]
    for k in (1, 2, 3, 5, 6):
        chosen = [set(o[:k].tolist()) for o in by_score]
        shares = [len(c & set(b[:k].tolist())) / k for c in chosen[::7] for b in by_label]
        every = np.array([[i in c for i in range(6)] for c in chosen]).mean(0) * np.array(
            [[i in set(o[np.argsort(-y[o], kind="stable")][:k].tolist()) for i in range(6)] for o in orders]).mean(0)
        assert metrics.precision_at_k(y, p, k) == pytest.approx(every.sum() / k)
        assert abs(metrics.precision_at_k(y, p, k) - np.mean(shares)) < 0.1
        assert metrics.best_ranking_at_k(y, p, k) == pytest.approx(np.mean([rank[o[:k]].min() for o in by_score]) / 6)


def test_error_criteria_by_hand() -> None:
    y, p = np.array([100.0, 200.0, -50.0, 10.0]), np.array([101.0, 180.0, -50.0, 12.0])
    assert metrics.mse(y, p) == pytest.approx((1 + 400 + 0 + 4) / 4)
    assert [metrics.within_error_bound(y, p, b) for b in (0, 0.01, 0.1, 0.2)] == [0.25, 0.5, 0.75, 1.0]


# -- groups of complexity ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_rank_difference_is_the_mean_over_all_ways_of_breaking_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, p = rng.integers(0, 3, 6).astype(float), rng.integers(0, 3, 6).astype(float)
    orders = [np.array(o) for o in itertools.permutations(range(6))]

    def mean_rank(v: np.ndarray) -> np.ndarray:
        total = np.zeros(6)
        for o in orders:
            total[o[np.argsort(-v[o], kind="stable")]] += np.arange(1, 7)
        return total / len(orders)

    found = metrics.rank_difference(y, p)
    np.testing.assert_allclose(found, mean_rank(y) - mean_rank(p))
    assert found.sum() == pytest.approx(0)


def test_rank_difference_says_what_is_over_estimated() -> None:
    y, p = [4.0, 3.0, 2.0, 1.0], [0.0, 1.0, 2.0, 3.0]
    np.testing.assert_array_equal(metrics.rank_difference(y, p), [-3, -1, 1, 3])


def test_complexity_groups_are_of_equal_size_and_keep_ties_together() -> None:
    c = np.array([7, 3, 9, 1, 5, 11, 13, 15, 17, 19])
    np.testing.assert_array_equal(metrics.complexity_groups(c, 5), [1, 0, 2, 0, 1, 2, 3, 3, 4, 4])
    np.testing.assert_array_equal(metrics.complexity_groups([2, 2, 2, 2], 3), [1, 1, 1, 1])
    rng = np.random.default_rng(0)
    tied = rng.integers(0, 8, 300)
    found = metrics.complexity_groups(tied, 4)
    assert all(len(set(found[tied == v])) == 1 for v in range(8))
    assert (np.diff(found[np.argsort(tied, kind="stable")]) >= 0).all()
    assert {*found} == {0, 1, 2, 3}


@pytest.mark.parametrize("seed", range(4))
def test_group_criteria_equal_brute_force_with_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, p = rng.integers(0, 5, 40).astype(float), rng.integers(0, 5, 40).astype(float)
    groups = rng.integers(0, 4, 40)
    groups[0], y[groups == 3] = 9, 2.0  # a group of one; a group of equal labels
    difference, taus = (_ranks(-y) - _ranks(-p)), []
    found = metrics.by_group(y, p, groups)
    assert [g.number for g in found] == sorted({*groups.tolist()})
    for g in found:
        inside = groups == g.number
        assert g.size == inside.sum()
        assert g.rank_difference == pytest.approx(difference[inside].mean())
        assert g.absolute_rank_difference == pytest.approx(np.abs(difference[inside]).mean())
        if g.number in (3, 9):
            assert g.kendall is None
        else:
            taus.append(_tau_b(y[inside], p[inside]))
            assert g.kendall == pytest.approx(taus[-1])
    assert len(taus) == 3
    assert metrics.within_group_kendall(y, p, groups) == pytest.approx(np.mean(taus))


def test_complexity_itself_knows_nothing_within_groups_of_one_complexity() -> None:
    rng = np.random.default_rng(1)
    c = rng.integers(0, 5, 100)
    y = c + rng.normal(size=100)
    assert metrics.kendall(y, c) > 0.5
    assert metrics.within_group_kendall(y, c, c) == 0
    assert metrics.within_group_kendall(y, y, c) == 1
    assert metrics.within_group_kendall(y[:5], y[:5], np.arange(5)) == 0


def test_bad_groups_are_named() -> None:
    with pytest.raises(LabelError, match=r"groups must be 2 integers, got shape \(3,\)"):
        metrics.by_group([1.0, 2.0], [1.0, 2.0], [0, 0, 1])
    with pytest.raises(LabelError, match="of float64"):
        metrics.within_group_kendall([1.0, 2.0], [1.0, 2.0], [0.0, 0.5])
    with pytest.raises(LabelError, match="cannot make 3 groups of 2 networks"):
        metrics.complexity_groups([1.0, 2.0], 3)
    with pytest.raises(LabelError, match="finite"):
        metrics.complexity_groups([1.0, np.nan], 2)


def test_bad_input_is_named() -> None:
    with pytest.raises(LabelError, match="score 1"):
        metrics.spearman([1.0, 2.0], [1.0, float("nan")])
    with pytest.raises(LabelError, match="shapes"):
        metrics.spearman([1.0, 2.0], [1.0])
    with pytest.raises(LabelError, match="at least 2"):
        metrics.kendall([1.0], [1.0])


def test_normal_scores_follow_ranks_and_share_ties() -> None:
    z = normal_scores(np.array([0.1, 93.0, 94.0, 94.0, 12.0]))
    assert z[2] == z[3]
    assert z[0] < z[4] < z[1] < z[2]
    np.testing.assert_allclose(normal_scores(np.array([1.0, 2.0, 3.0])), [-0.967421566101701, 0.0, 0.967421566101701])


def test_label_scale_inverts_on_the_labels_and_stays_monotone_beyond() -> None:
    y = np.array([10.0, 50.0, 90.0, 91.0, 92.0, 93.0, 93.5, 94.0])
    scale = LabelScale(y, normal_scores(y))
    np.testing.assert_allclose(scale.to_labels(normal_scores(y)), y)
    line = scale.to_labels(np.linspace(-4, 4, 200))
    assert (np.diff(line) > 0).all()
    assert line[-1] > 94.0
    assert line[0] < 10.0
