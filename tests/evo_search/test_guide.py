"""The guide of a search: an uncertain bad network must not look better than a good one."""

import numpy as np

from evo_search._guide import Guide
from evo_search.export import export
from finetune import CGPredictor


def test_guide_gives_normal_scores_and_fits_through() -> None:
    data = export("nasbench201", 60, seed=0, labels=True)
    y = data.labels["test_acc"]
    model = CGPredictor(None, ())
    guide = Guide(model).fit(data.graphs[:30], y[:30])
    mean, std = guide.predict(data.graphs[30:], return_std=True)
    np.testing.assert_array_equal(mean, model.predict_normal(data.graphs[30:])[0])
    np.testing.assert_array_equal(mean, guide.predict(data.graphs[30:]))
    assert (std > 0).all()
    assert guide.get_params()["random_state"] == 0


def test_optimism_does_not_chase_the_tail_of_bad_networks() -> None:
    """Mean plus two deviations still ranks by quality; in label units it is below 0.6 on these networks."""
    from scipy.stats import spearmanr

    data = export("nasbench201", 400, seed=1, labels=True)
    y = data.labels["test_acc"]
    model = CGPredictor(None, ()).fit(data.graphs[:40], y[:40])
    rest, truth = data.graphs[40:], y[40:]
    mean, std = Guide(model).predict(rest, return_std=True)
    assert spearmanr(truth, mean + 2 * std).statistic > 0.8
