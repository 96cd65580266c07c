"""``suggest``: better labels than random ones, each network once, labelled ones never."""

from __future__ import annotations

import numpy as np
import pytest

from cg.errors import CGError
from cg.global_statistics import statistics
from evo_search import targets
from finetune import CGPredictor, metrics, suggest
from finetune.gp import Standardizer
from finetune.suggestion import LINE, covariance
from finetune.views import COLUMN_WEIGHTS, scales


def test_twenty_suggested_labels_rank_better_than_random_ones() -> None:
    data = targets.pool("nasbench301")
    y, found = data.label(), []
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(data))
        pool, test = order[:500], order[500:]
        graphs = [data.graphs[i] for i in pool]
        rest = [data.graphs[i] for i in test]
        for rows in (pool[suggest(graphs, 20)], pool[:20]):
            model = CGPredictor(None, ()).fit([data.graphs[i] for i in rows], y[rows])
            found.append(metrics.spearman(y[test], model.predict(rest)))
    assert np.mean(found[::2]) > np.mean(found[1::2]) + 0.01


def test_first_choices_cover_what_later_ones_refine() -> None:
    """Choices do not depend on how many are asked for, and twins and labelled networks are never chosen."""
    data = targets.pool("nasbench201").take(np.arange(0, 4096, 20))
    graphs = [*data.graphs, *data.graphs[:50]]
    many, few = suggest(graphs, 30), suggest(graphs, 10)
    np.testing.assert_array_equal(many[:10], few)
    assert len({graphs[i].digest for i in many}) == 30
    assert many.max() < len(data)
    known = [graphs[i] for i in few]
    more = suggest(graphs, 20, labelled=known)
    np.testing.assert_array_equal(more, many[10:])
    model = CGPredictor(None, ()).fit(known, data.label()[few])
    np.testing.assert_array_equal(model.suggest(graphs, 20), more)
    assert len(suggest(graphs, 0)) == 0
    with pytest.raises(CGError, match=r"only \d+ of the \d+ candidates"):
        suggest(graphs, len(graphs))


def test_more_is_expected_of_extremes_and_like_networks_go_together() -> None:
    """A valid covariance over both views; uncertainty grows with a network's distance from the middle, on the natural scale."""
    data = targets.pool("nasbench301").take(np.arange(0, 1218, 8))
    rows = statistics(data.graphs)
    c = covariance(rows)
    np.testing.assert_allclose(c, c.T, atol=1e-9)
    assert np.linalg.eigvalsh(c).min() > -1e-9
    natural = scales(rows)["natural"]
    views = [Standardizer(natural, w)(natural) for w in COLUMN_WEIGHTS.values()]
    out = sum((x * x).mean(1) for x in views) / len(views)
    np.testing.assert_allclose(np.diag(c), 1.0 + LINE * out, rtol=1e-9)
    near = np.argsort(((views[0][0] - views[0]) ** 2).sum(1))
    assert c[0, near[1]] > c[0, near[-1]]
