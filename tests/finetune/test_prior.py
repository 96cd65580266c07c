"""``finetune.prior``: what source families and size say where there are no labels, or few."""

from __future__ import annotations

import numpy as np
import pytest

from cg import GraphSet
from cg.global_statistics import statistics
from evo_search import get_space
from finetune.metrics import spearman
from finetune.prior import ALIKE, CROWD, FEW, LENGTH, NOISE, RIDGE, Prior, _Common, _Line, _Process, _Quantiles, distances
from finetune.sources import Apart, Source, load_source, size


@pytest.fixture(scope="module")
def chains() -> tuple[np.ndarray, np.ndarray]:
    """Statistics and size of 200 Once-for-All networks, a family that resembles none of the shipped ones."""
    space, rng = get_space("ofa-mbv3"), np.random.default_rng(3)
    graphs = [space.to_graph(space.sample(rng)) for _ in range(200)]
    return statistics(graphs), np.array([np.log(float(g.macs)) + np.log(float(g.params)) for g in graphs])


@pytest.fixture(scope="module")
def sources() -> dict[str, GraphSet]:
    return {n: load_source(n).take(range(400)) for n in ("nasbench101", "nasbench201", "nasbench301")}


def test_process_is_the_textbook_one() -> None:
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import Matern

    rng = np.random.default_rng(0)
    x, y, new = rng.normal(size=(40, 5)), rng.normal(size=40), rng.normal(size=(7, 5))
    kernel = Matern(LENGTH * np.sqrt(5), length_scale_bounds="fixed", nu=1.5)
    expected = GaussianProcessRegressor(kernel, alpha=NOISE, optimizer=None).fit(x, y).predict(new)
    np.testing.assert_allclose(_Process(x, y)(new), expected, atol=1e-9)


def test_line_is_ridge_regression() -> None:
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(1)
    x, y, new = rng.normal(size=(40, 5)), rng.normal(size=40), rng.normal(size=(7, 5))
    expected = Ridge(RIDGE * 40, fit_intercept=False).fit(x, y).predict(new)
    np.testing.assert_allclose(_Line(x, y)(new), expected, atol=1e-12)


def test_quantiles_say_where_a_network_stands_in_its_own_family() -> None:
    rng = np.random.default_rng(2)
    source = rng.normal(size=(300, 3))
    target = np.exp(2.0 * source + 1.0)  # other values, the same places
    one = _Quantiles(np.array([2, 0]), source)
    other = one.among(target)
    place = (np.argsort(np.argsort(source[:, 2])) + 0.5) / 300
    np.testing.assert_allclose(one(source)[:, 0], (place - place.mean()) / place.std())
    assert spearman(one(source)[:, 1], other(target)[:, 1]) == pytest.approx(1.0)
    few = _Quantiles(np.array([0]), source).among(target[:1])  # one network says little about its family
    u = few(source)[:, 0] * few.spread[0] + few.mean[0]
    np.testing.assert_allclose(u, (FEW * (np.argsort(np.argsort(source[:, 0])) + 0.5) / 300 + (source[:, 0] > target[0, 0]))
                               / (FEW + 1), atol=2e-3)


def test_equal_networks_share_their_quantile() -> None:
    from scipy.stats import rankdata

    source = np.random.default_rng(3).choice([0.0, 1.0, 5.0], p=[0.5, 0.25, 0.25], size=(200, 1))
    place = (rankdata(source[:, 0]) - 0.5) / 200
    np.testing.assert_allclose(_Quantiles(np.array([0]), source)(source)[:, 0], (place - place.mean()) / place.std())


def test_size_is_that_of_the_graphs(chains: tuple[np.ndarray, np.ndarray]) -> None:
    from finetune.views import SHARED

    np.testing.assert_allclose(size(chains[0][:, SHARED]), chains[1], atol=1e-4)


def test_size_decides_where_no_source_resembles_the_target(chains: tuple[np.ndarray, np.ndarray],
                                                           sources: dict[str, GraphSet]) -> None:
    """NAS-Bench-301 ranks such chains against their size when it is asked alone."""
    x, large = chains
    prior = Prior([Source(s) for s in sources.values()], x[:100])
    assert (prior.overlaps < 0.25).all()
    assert spearman(large[100:], prior.combine(prior.scores(x[100:]))) > 0.8
    against = prior.scores(x)[:, 2]
    assert spearman(large, against) < 0
    assert prior.weights[2] < 0.1 * prior.weights[-1]


def test_size_is_turned_round_where_the_labels_of_the_sources_are_errors(chains: tuple[np.ndarray, np.ndarray],
                                                                          sources: dict[str, GraphSet]) -> None:
    x, large = chains
    errors = [Source(GraphSet(s.graphs, s.ids, {"error": -s.label()})) for s in sources.values()]
    prior = Prior(errors, x[:100])
    assert all(s.follows_size < 0 for s in errors)
    assert spearman(large[100:], prior.combine(prior.scores(x[100:]))) < -0.8


def test_size_counts_little_where_a_source_is_near(sources: dict[str, GraphSet]) -> None:
    x = statistics(load_source("nasbench101").graphs[400:600])
    prior = Prior([Source(sources["nasbench101"])], x)
    assert prior.overlaps[0] > 0.5  # the columns that never vary are none that overlap
    assert prior.weights[-1] < 0.1 * prior.weights[0]


def test_labels_against_size_silence_it(chains: tuple[np.ndarray, np.ndarray], sources: dict[str, GraphSet]) -> None:
    x, large = chains
    prior = Prior([Source(sources["nasbench101"])], x[:100])
    before = prior.weights[-1]
    prior.judge(prior.scores(x[100:130]), -large[100:130])
    assert before > 0
    assert prior.weights[-1] == 0


def test_labelled_networks_that_are_not_like_the_reference_do_not_blow_the_opinion_up(
        chains: tuple[np.ndarray, np.ndarray], sources: dict[str, GraphSet]) -> None:
    """Four reference networks of nearly one size, then one of another size: an opinion stays within a few deviations."""
    x, large = chains
    order = np.argsort(large)
    prior = Prior([Source(s) for s in sources.values()], x[order[100:104]])
    known = x[[*order[100:104], order[-1]]]
    prior.judge(prior.scores(known), np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert np.ptp(prior.combine(prior.scores(known))) < 4


def test_scores_do_not_depend_on_company(chains: tuple[np.ndarray, np.ndarray], sources: dict[str, GraphSet]) -> None:
    prior = Prior([Source(sources["nasbench101"])], chains[0][:100])
    together = prior.scores(chains[0])
    np.testing.assert_allclose(prior.scores(chains[0][50:51])[0], together[50], atol=1e-9)
    assert prior.scores(chains[0][:0]).shape == (0, 2)


def test_overlap_is_the_share_of_columns_that_are_alike(chains: tuple[np.ndarray, np.ndarray],
                                                        sources: dict[str, GraphSet]) -> None:
    from finetune.views import SHARED

    source = Source(sources["nasbench201"])
    distance = distances(source.statistics, chains[0][:100, SHARED].astype(np.float64))
    expected = ((distance < ALIKE) & (source.statistics.std(0) >= 1e-6)).mean()
    assert Prior([source], chains[0][:100]).overlaps[0] == pytest.approx(expected)


def test_sources_of_one_kind_speak_with_one_voice_where_none_is_near(chains: tuple[np.ndarray, np.ndarray],
                                                                     sources: dict[str, GraphSet]) -> None:
    """NAS-Bench-101 says in the common way what holds for DARTS cells better than by the few columns that overlap."""
    target = load_source("nasbench301")
    x, y = statistics(target.graphs), target.label()
    cells = [Source(sources["nasbench101"]), Source(sources["nasbench201"])]
    prior = Prior(cells, x[:500])
    assert isinstance(prior.voices[-1], _Common)
    rho = [spearman(y[500:], p) for p in prior.scores(x[500:]).T]
    assert rho[2] > max(rho[0], rho[1])
    assert spearman(y[500:], prior.combine(prior.scores(x[500:]))) > max(rho[1], rho[3])  # than the other source, than size
    assert len(Prior(cells, x[:CROWD - 1]).voices) == 2  # too few networks to know the kind
    assert len(Prior(cells, chains[0]).voices) == 2  # chains are no cells
    assert len(Prior(cells[:1], statistics(load_source("nasbench201").graphs[:500])).voices) == 1  # one is near


def test_common_voice_is_one_ridge_regression_on_places_in_each_family(sources: dict[str, GraphSet]) -> None:
    from sklearn.linear_model import Ridge

    from finetune.prior import COMMON_RIDGE
    from finetune.views import SHARED

    x = statistics(load_source("nasbench301").graphs[:300])
    cells = [Source(sources["nasbench101"]), Source(sources["nasbench201"])]
    prior = Prior(cells, x)
    columns = np.unique(np.concatenate([o.known for o in prior.opinions]))
    rows = x[:, SHARED].astype(np.float64)
    places = np.vstack([_Quantiles(columns, s.statistics)(s.statistics) for s in cells])
    line = Ridge(COMMON_RIDGE * len(places), fit_intercept=False).fit(places, np.concatenate([s.scores for s in cells]))
    np.testing.assert_allclose(prior.voices[-1](rows), line.predict(_Quantiles(columns, rows)(rows)), atol=1e-8)


@pytest.fixture(scope="module")
def mixed() -> Source:
    """Eight families in one source: cells of NAS-Bench-201 by their number of parameters."""
    data = load_source("nasbench201").take(range(480))
    part = np.argsort(np.argsort([g.params for g in data])) // 60
    graphs = [g.with_(family=f"family {i}") for g, i in zip(data.graphs, part, strict=True)]
    return Source(GraphSet(graphs, data.ids, {"acc": data.label()}))


def test_a_source_of_several_families_is_not_believed_where_nothing_is_like_them(
        mixed: Source, chains: tuple[np.ndarray, np.ndarray], sources: dict[str, GraphSet]) -> None:
    x, _ = chains
    alone, beside = Prior([Source(sources["nasbench101"])], x[:100]), Prior([Source(sources["nasbench101"]), mixed], x[:100])
    assert beside.opinions[1].trust == beside.weights[1] == 0
    assert beside.weights[0] == alone.weights[0]
    own = statistics(load_source("nasbench201").graphs[480:580])
    near, single = Prior([mixed], own), Prior([Source(load_source("nasbench201").take(range(480)))], own)
    assert near.opinions[0].trust > 0.5
    assert near.weights[0] > near.weights[1]
    assert near.weights[1] > 10 * single.weights[1]  # between families size carries as far as such a source does


def test_a_source_is_of_several_families_where_its_graphs_name_them(mixed: Source, sources: dict[str, GraphSet]) -> None:
    assert mixed.apart is not None
    assert Source(sources["nasbench201"]).apart is None  # one family
    nameless = [g.with_(family="" if i else g.family) for i, g in enumerate(mixed.graphs)]
    assert Source(GraphSet(nameless, mixed.graphs.ids, {"acc": mixed.scores})).apart is None


def test_networks_are_believed_up_to_the_distance_of_the_farthest_family() -> None:
    """Six families on a line, one apart; a seventh is believed as long as it is no farther from all than that one."""
    families = np.repeat(list("abcdef"), 10)
    rows = np.repeat([0.0, 1.0, 2.0, 3.0, 4.0, 10.0], 10)[:, None]
    apart = Apart(rows, families)
    assert apart.believed(np.array([[7.0]])) == 1  # 3 of the 6 that f is from e
    assert apart.believed(np.array([[15.0]])) == 1
    assert apart.believed(np.array([[10.0 + 0.95 * 6]])) == pytest.approx(0.5)
    assert apart.believed(np.array([[17.0]])) == 0
