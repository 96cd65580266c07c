"""``cg`` on a toy space: batches, expected improvement, what objectives are learned from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import toy_search_space as toy
from toy_strategies import STRATEGIES, start, two

from evo_search import get_space
from evo_search._evolve_config import SearchError
from evo_search.objectives import Constraint, hypervolume
from evo_search.strategies import State
from evo_search.strategies._batches import Front, batch, improvement, upper
from evo_search.strategies.ours import CGConfig, CGSearch
from evo_search.study import Study
from finetune import CGPredictor


def test_a_batch_is_that_of_a_gaussian_process() -> None:
    """Deviations shrink as those of a noise-free Gaussian process that is told about each choice."""
    rng = np.random.default_rng(0)
    x, mean, std = rng.normal(size=(30, 2)), rng.normal(size=30) * 0.2, rng.random(30) + 0.5
    chosen: list[int] = []
    kernel = np.exp(-((x[:, None] - x[None]) ** 2).sum(2) / 2)
    for _ in range(8):
        inverse = np.linalg.inv(kernel[np.ix_(chosen, chosen)]) if chosen else np.zeros((0, 0))
        left = np.maximum(1 - np.einsum("ij,jk,ik->i", kernel[:, chosen], inverse, kernel[:, chosen]), 0)
        score = mean + 2.0 * std * np.sqrt(left)
        score[chosen] = -np.inf
        chosen.append(int(score.argmax()))
    assert batch(mean[:, None], std[:, None], x, 8, 2.0, rng) == chosen
    alone = batch(mean[:, None], std[:, None], None, 8, 2.0, rng)
    assert alone == np.argsort(-(mean + 2.0 * std))[:8].tolist() != chosen


def test_a_batch_leaves_copies_out() -> None:
    x = np.array([[0.0], [0.0], [0.01], [3.0]])
    assert batch(np.array([[1.0], [0.9], [0.9], [0.0]]), np.ones((4, 1)), x, 2, 2.0, np.random.default_rng(0)) == [0, 3]
    assert batch(np.array([[1.0], [0.9], [0.9], [0.0]]), np.ones((4, 1)), x, 9, 0.0, np.random.default_rng(0)) == [0, 1, 2, 3]


def test_directions_cover_the_front() -> None:
    angle = np.linspace(0, np.pi / 2, 21)
    means = np.vstack([np.stack([np.cos(angle), np.sin(angle)], 1), np.full((20, 2), 0.3)])
    chosen = batch(means, np.zeros_like(means), None, 12, 0.0, np.random.default_rng(0))
    assert max(chosen) < 21, "nothing that is dominated"
    assert len(set(chosen)) == 12
    first = [batch(means, np.zeros_like(means), None, 1, 0.0, np.random.default_rng(seed))[0] for seed in range(20)]
    assert min(first) < 8
    assert 12 < max(first) < 21


def test_improvement_of_the_hypervolume_is_its_expectation() -> None:
    pytest.importorskip("pymoo")
    rng = np.random.default_rng(3)
    front = upper(rng.random((12, 2)))
    assert (np.diff(front[:, 0]) > 0).all()
    assert (np.diff(front[:, 1]) < 0).all()
    reference = np.array([-0.1, 0.05])
    means, stds = rng.random((5, 2)), rng.random((5, 2)) * 0.3
    drawn = means[:, None] + stds[:, None] * rng.standard_normal((5, 4000, 2))

    def area(points: np.ndarray) -> float:
        return hypervolume(-points, -reference)  # of what is to be minimised

    before = area(front)
    sampled = [np.mean([area(np.vstack([front, p])) - before for p in drawn[i]]) for i in range(5)]
    assert improvement(means, stds, front, reference) == pytest.approx(sampled, rel=0.1, abs=2e-3)
    sure = improvement(means, np.zeros((5, 2)), front, reference)
    assert sure == pytest.approx([area(np.vstack([front, m])) - before for m in means], abs=1e-6)


def test_front_prefers_what_extends_it_and_does_not_choose_alike() -> None:
    front = Front(np.array([[0.0, 10.0], [5.0, 5.0], [10.0, 0.0], [1.0, 1.0]]))
    means = np.array([[4.0, 4.0], [8.0, 8.0], [8.0, 8.01], [2.0, 9.0]])
    assert front.batch(means, np.zeros((4, 2)), None, 2, 1.0) == [2, 3]  # 1 adds nothing to 2
    unsure = np.array([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [9.0, 9.0]])
    assert front.batch(means, unsure, None, 1, 1.0) == [3]
    assert front.batch(means, unsure, None, 1, 0.0) == [2]


def test_the_unit_of_an_objective_does_not_matter() -> None:
    small, large = (start(CGSearch(CGPredictor(fast=True), CGConfig(12, 8, pool_size=60)), 2,
                          objectives={"acc": "max", "size": "min"}) for _ in range(2))
    small.run(two, 40)
    large.run(lambda a: {**two(a), "size": 2.0**30 * two(a)["size"]}, 40)
    assert [q.genome for q in small.history.queries] == [q.genome for q in large.history.queries]


def test_objectives_are_learned_from_the_better_share_and_the_last_batches() -> None:
    search = CGSearch(settings=CGConfig(8, 4, pool_size=20, learn_share=0.5, learn_recent=2))
    study = start(search, objectives={"acc": "max", "size": "min"})
    study.run(two, 40)

    def after(n: int) -> State:
        return State(study.space, study._cache, study.history.queries[:n], generation=9, budget_left=None,
                     objectives=study.objectives, constraints=(), accept=None)

    state = after(40)
    taught = search._taught(state)
    assert {state.ok[i].step for i in taught} == {q.step for q in (*state.ranked[:20], *state.ok[-8:])}
    assert 20 < len(taught) < 28, "some of the last were not good"
    known = after(36)  # when the last batch was chosen
    better = {q.step for q in (*known.ranked[:18], *known.ok[-8:])}
    assert len(search._guides["acc"].model.graphs_) == len(better)


def test_graphs_and_the_encoding_of_the_space_are_read_together() -> None:
    space = get_space("nasbench201")
    study = Study(space, CGSearch(settings=CGConfig(12, 4, pool_size=20), view="graph+native"), seed=1)
    study.run(lambda a: float(a.count(3)), 24)
    model = study.strategy._guide.model  # type: ignore[attr-defined]
    assert any("embedding" in view for view, _ in model.mixture_.members)
    rows = model.encoder_.embed(model.graphs_)
    genomes = [space.decode(q.genome) for q in study.history.queries[:12]]
    assert {space.native(g).tobytes() for g in genomes} <= {r.tobytes() for r in rows}
    with pytest.raises(SearchError, match="needs a predictor with an encoder"):
        start(CGSearch(toy.PerfectPredictor(), view="graph+native")).run(toy.value, 40)


def test_each_objective_has_a_predictor_of_its_own() -> None:
    search = STRATEGIES["cg"]()
    study = start(search, objectives={"acc": "max", "size": "min"}, constraints=[Constraint("ms", at_most=3.0)])
    study.run(lambda a: {**two(a), "ms": float(a[2])}, 60)
    guides = search._guides  # type: ignore[attr-defined]
    assert set(guides) == {"acc", "size", "limit ms"}
    assert len({id(g.model) for g in guides.values()}) == 3
    genomes = [study.space.sample(np.random.default_rng(i)) for i in range(30)]
    graphs = [study.space.to_graph(a) for a in genomes]
    np.testing.assert_allclose(guides["size"].model.predict(graphs), [-a[3] for a in genomes], atol=0.05)
    np.testing.assert_allclose(guides["limit ms"].model.predict(graphs), [a[2] for a in genomes], atol=0.05)
    chosen = [q for q in study.history.queries if q.source == "chosen" and q.generation > 2]
    assert np.mean([q.values["ms"] <= 3 for q in chosen]) > 0.9, "a predicted violation costs"


def test_the_uncertainty_counts() -> None:
    class Unsure(toy.PerfectPredictor):
        """Knows the values, and is unsure where gene 3 is 4."""

        def predict(self, graphs: list[Any], return_std: bool = False) -> Any:
            return (super().predict(graphs), np.array([99.0 * (g.name[-1] == "4") for g in graphs]))

    for kappa, share in ((0.0, 0.0), (2.0, 1.0)):
        study = start(CGSearch(Unsure(), CGConfig(kappa=kappa, breed_rate=0.0, similarity=0.0)))
        study.run(toy.value, 30)
        assert np.mean([q.genome[-1] == "4" for q in study.history.queries[20:]]) == share


def test_proposals_know_where_they_come_from() -> None:
    study = start("cg")
    study.run(toy.value, 40)
    assert {q.source for q in study.history.queries} == {"initial", "chosen", "bred"}
    assert {q.source for q in study.history.queries[12:20]} == {"chosen", "bred"}
