"""Neural Predictor, BRP-NAS and NPENAS on a toy space: what their predictors are given, and each one's own rule, computed a
second time."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import toy_search_space as toy
from toy_strategies import GUIDED, STRATEGIES, Space, identity, relus, start
from toy_study import sequence

from evo_search import get_space
from evo_search._evolve_config import SearchError
from evo_search.rivals import Rival
from evo_search.strategies import State, Strategy, get_strategy
from evo_search.strategies.brp import BRPConfig, BRPSearch
from evo_search.strategies.neural_predictor import NeuralPredictorConfig, NeuralPredictorSearch, along_front, dominating
from evo_search.strategies.npenas import NPENAS, NPENASConfig
from evo_search.strategies.ours import CGConfig, CGSearch
from evo_search.study import Study


class Spy(toy.RidgePredictor):
    """Remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[tuple[list[Any], np.ndarray]] = []
        self.asked: list[list[Any]] = []
        self.said: list[np.ndarray] = []

    def fit(self, graphs: list[Any], y: np.ndarray) -> Any:
        self.given.append((list(graphs), y))
        return super().fit(graphs, y) if hasattr(graphs[0], "name") else self

    def predict(self, graphs: list[Any]) -> np.ndarray:
        self.asked.append(list(graphs))
        self.said.append(super().predict(graphs) if hasattr(graphs[0], "name") else np.array([float(g[3]) for g in graphs]))
        return self.said[-1]


def make_guided(name: str, predictor: Any, view: str | None = None) -> Strategy:
    """As in ``STRATEGIES``, with another predictor."""
    made = STRATEGIES[name]()
    return type(made)(predictor, made.settings, view)  # type: ignore[call-arg]


@pytest.mark.parametrize("name", GUIDED)
def test_predictors_learn_that_larger_is_better(name: str) -> None:
    spy = Spy()
    study = start(make_guided(name, spy), objectives={"loss": "min"})
    study.run(lambda a: 5.0 if a[3] else -1.0, 30)
    graphs, y = spy.given[0]
    np.testing.assert_array_equal(y, [-5.0 if g.name[-1] != "0" else 1.0 for g in graphs])


@pytest.mark.parametrize("name", GUIDED)
def test_predictors_may_read_the_encoding_of_the_space(name: str) -> None:
    space, spy = get_space("nats-size"), Spy()
    made = STRATEGIES[name]()
    settings = replace(made.settings, similarity=0.0) if name == "cg" else made.settings  # else cg builds graphs too
    study = Study(space, type(made)(spy, settings, "native"), seed=0, key=space.encode)  # type: ignore[call-arg]
    study.run(lambda a: float(sum(a)), 30)
    rows, y = spy.given[0]
    assert np.stack(rows).shape == (len(y), 40)
    np.testing.assert_array_equal(np.stack(rows) @ np.tile(np.arange(8, 65, 8), 5), y)


def test_predictors_by_name_read_what_they_were_made_for() -> None:
    space = get_space("nasbench201")
    for view, kind in ((None, "cell"), ("graph", "graph"), ("pruned", "pruned")):
        search = NPENAS("random-forest", view=view)
        study = Study(space, search, seed=1)
        study.run(lambda a: float(sum(a)), 11)
        seen = search._guide.read(State(space, study._cache, [], generation=0, budget_left=None, objectives=study.objectives,
                                        constraints=(), accept=None), [(0, 1, 2, 3, 0, 4)])
        assert hasattr(seen[0], "macs") == (kind == "graph")
        assert kind == "graph" or ("none" in seen[0].ops) == (kind == "cell")
        assert type(search._guide.model).__name__ == "RandomForestPredictor"
    search = NPENAS("random-forest", NPENASConfig(6, 2, 2, 4))
    start(search).run(toy.value, 8)
    assert search._guide._view == "graph", "a space without cells"
    search = NPENAS(settings=NPENASConfig(6, 2, 2, 4))
    start(search).run(toy.value, 8)
    assert (search._guide._view, type(search._guide.model).__name__) == ("graph", "GNNPredictor")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cg", "brp", "npenas", "neural-predictor"])
def test_default_predictors_run_on_a_benchmark(name: str) -> None:
    space = get_space("nasbench201")
    small = {"cg": CGConfig(n_initial=10, pool_size=60), "brp": BRPConfig(15, 2, 0.5, 60, 5),
             "npenas": NPENASConfig(10, 5, 5, 30),
             "neural-predictor": NeuralPredictorConfig(15, 5, 60, two_stage=True)}
    runs = []
    for _ in range(2):
        study = Study(space, get_strategy(name, settings=small[name]), seed=0)
        study.run(lambda a: float(a.count(3) - a.count(0)), 25)
        runs.append(sequence(study))
    assert runs[0] == runs[1]
    values = [row[4] for row in runs[0]]
    assert np.mean(values[15:]) > np.mean(values[:10])


def test_a_rival_of_ones_own_guides_a_search() -> None:
    ridge = Rival("ridge", "graph", lambda seed, family: toy.RidgePredictor(), label_units=False)
    by_rival, by_object = NPENAS(ridge, NPENASConfig(10, 5, 5, 30)), NPENAS(toy.RidgePredictor(), NPENASConfig(10, 5, 5, 30))
    assert by_rival.describe() == {**by_object.describe(), "predictor": {"kind": "ridge"}, "predicts": "score"}
    runs = []
    for search in (by_rival, by_object):
        study = start(search)
        study.run(toy.value, 25)
        runs.append([q.genome for q in study.history.queries])
    assert runs[0] == runs[1]


def test_scores_that_are_no_numbers_come_last_and_wrong_shapes_are_refused() -> None:
    class Sick(toy.RidgePredictor):
        def predict(self, graphs: list[Any]) -> Any:
            return np.array([np.nan if g.name[-1] != "2" else 1.0 for g in graphs])

    for search in (NPENAS(Sick(), NPENASConfig(10, 3, 5, 50)), CGSearch(Sick(), CGConfig(10, 3, breed_rate=0.0))):
        study = start(search)
        study.run(toy.value, 13)
        assert [q.genome[-1] for q in study.history.queries[10:]] == ["2"] * 3

    class Wide(toy.RidgePredictor):
        def predict(self, graphs: list[Any]) -> Any:
            return np.zeros((len(graphs), 2))

    with pytest.raises(SearchError, match=r"scores of shape \(50, 2\) for 50 networks"):
        start(NPENAS(Wide(), NPENASConfig(10, 3, 5, 50))).run(toy.value, 13)


def test_neural_predictor_fits_once_and_asks_about_the_top() -> None:
    spy = Spy()
    study = start(NeuralPredictorSearch(spy, NeuralPredictorConfig(20, 10, 60)))
    study.run(toy.value, 40)
    assert len(spy.given) == 1
    assert len(spy.given[0][1]) == 20
    for pool, scores, first in zip(spy.asked, spy.said, (20, 30), strict=True):
        asked = study.history.queries[first:first + 10]
        np.testing.assert_array_equal([q.genome for q in asked], [pool[i].name for i in np.argsort(-scores)[:10]])


def test_two_stages_leave_out_what_the_classifier_refuses() -> None:
    class Strict(toy.RidgePredictor):
        allowed = "01"

        def passes(self, graphs: list[Any]) -> np.ndarray:
            return np.array([g.name[-1] in self.allowed for g in graphs])

    config = NeuralPredictorConfig(20, 10, 100, two_stage=True)
    study = start(NeuralPredictorSearch(Strict(), config))
    study.run(toy.value, 30)
    assert {q.genome[-1] for q in study.history.queries[20:]} <= {"0", "1"}
    study = start(NeuralPredictorSearch(type("None_", (Strict,), {"allowed": ""})(), config))
    assert study.run(toy.value, 30) == "budget", "a classifier that refuses everything is not heard"


def brute_dominating(scores: np.ndarray, costs: np.ndarray) -> list[int]:
    return [sum(t >= s and d <= c and (t > s or d < c) for t, d in zip(scores, costs, strict=True))
            for s, c in zip(scores, costs, strict=True)]


def test_soft_pareto_sets_are_those_of_brute_force() -> None:
    rng = np.random.default_rng(0)
    for n in (0, 1, 60):
        scores, costs = rng.integers(8, size=(2, n)).astype(float)  # with ties
        assert dominating(scores, costs).tolist() == brute_dominating(scores, costs)
    scores, costs = rng.random((2, 200))
    numbers = np.array(brute_dominating(scores, costs))
    for j in (1, 6):
        near = np.flatnonzero(numbers < j)
        chosen = along_front(scores, costs, len(near) // 2, j)
        assert len(set(chosen.tolist())) == len(near) // 2
        assert numbers[chosen].max() < j
        assert np.corrcoef(costs[chosen], np.arange(len(chosen)))[0, 1] > 0.9, "one from each part of the costs"
        parts = np.array_split(near[np.argsort(costs[near])], len(chosen))
        assert chosen.tolist() == [p[scores[p].argmax()] for p in parts]
        assert set(near) <= set(along_front(scores, costs, len(near) + 5, j).tolist()), "too few: the least dominated fill up"


def test_a_soft_pareto_search_covers_the_costs() -> None:
    def found(j: int | None) -> set[str]:
        search = NeuralPredictorSearch(toy.RidgePredictor(), NeuralPredictorConfig(30, 20, 300, soft_pareto=j), cost=relus)
        study = start(search, objectives="acc")
        study.run(lambda a: {"acc": toy.value(a) + 2.0 * a[3]}, 50)
        return {q.genome[-1] for q in study.history.queries[30:]}

    assert found(6) == set("01234")
    assert found(None) < set("01234"), "the top alone leaves the cheap ones out"


def test_brp_rounds_follow_the_rule_of_the_paper() -> None:
    spy = Spy()
    study = start(BRPSearch(spy, BRPConfig(33, 4, 0.5, 100, 6)))
    study.run(toy.value, 45)
    generations = [list(rows) for _, rows in itertools.groupby(study.history.queries, key=lambda q: q.generation)]
    assert [len(g) for g in generations] == [9, 8, 8, 8, 6, 6]
    assert {q.source for q in generations[0]} == {"initial"}
    assert [len(y) for _, y in spy.given] == [9, 17, 25, 33], "what comes after the rounds is not learned from"
    drawn = 0
    for number, (networks, scores, asked) in enumerate(zip(spy.asked, spy.said, generations[1:], strict=True), start=1):
        known = sum(len(g) for g in generations[:number])
        names = [g.name for g in networks]
        assert names[:known] == [q.genome for g in generations[:number] for q in g]
        assert len(names) == known + 100
        order = np.argsort(-scores)
        n_top = len(asked) if number >= 4 else len(asked) // 2
        assert [q.genome for q in asked[:n_top]] == [names[i] for i in order if i >= known][:n_top]
        good = {names[i] for i in order[:int(np.ceil(0.5 ** number * len(names)))]}
        if len(good - set(names[:known])) >= len(asked):
            assert {q.genome for q in asked} <= good, "the others are drawn from the best half, quarter, ..."
            drawn += number < 4 and [q.genome for q in asked] != [names[i] for i in order if i >= known][:len(asked)]
        else:
            assert {q.genome for q in asked} == {names[i] for i in order[order >= known][:len(asked)]}, "and the next best"
    assert drawn


def test_brp_ends_with_the_top_of_its_ranking() -> None:
    spy = Spy()
    study = start(BRPSearch(spy, BRPConfig(12, 1, 0.0, 100, 6)))
    study.run(toy.value, 18)
    names, scores = [g.name for g in spy.asked[0]], spy.said[0]
    assert [q.genome for q in study.history.queries[12:]] == [names[i] for i in np.argsort(-scores) if i >= 12][:6]


def test_brp_learns_from_later_answers_where_the_rounds_gave_none() -> None:
    spy, answers = Spy(), itertools.count()
    study = start(BRPSearch(spy, BRPConfig(4, 2, 0.5, 50, 6)))
    study.run(lambda a: toy.value(a) if next(answers) > 5 else float("nan"), 30)
    assert spy.given
    assert all(len(y) > 2 for _, y in spy.given)


def test_npenas_asks_about_the_best_predicted_children_of_the_best() -> None:
    spy = Spy()
    study = start(NPENAS(spy, NPENASConfig(10, 6, 4, 40)), 2)
    study.run(toy.value, 40)
    for number, pool in enumerate(spy.asked):
        before, asked = study.history.queries[:10 + 6 * number], study.history.queries[10 + 6 * number:16 + 6 * number]
        parents = [Space().decode(q.genome) for q in sorted(before, key=lambda q: (-(q.value or 0.0), q.step))]
        children = [Space().decode(g.name) for g in pool]
        assert len(children) == 40
        shares = [sum(sum(x != y for x, y in zip(a, p, strict=True)) == 1 for a in children) for p in parents[:4]]
        assert min(shares) >= 5, "each parent has its share"
        assert all(any(sum(x != y for x, y in zip(a, p, strict=True)) == 1 for p in parents) for a in children)
        assert not {identity(a) for a in children} & {q.key for q in before}
        scores = np.array([toy.value(a) for a in children])  # this late the ridge is nearly perfect
        if number > 1:
            assert [q.value for q in asked] == pytest.approx(np.sort(scores)[::-1][:6].tolist(), abs=1.5)
    assert len(spy.given) == len(spy.asked) == 5, "fitted again for every generation"
