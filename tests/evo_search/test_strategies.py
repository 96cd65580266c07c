"""The published strategies on a toy space of 375 networks: better than random search, the same run after a stop and with
workers, failures, constraints, an exhausted space; and each one's own rule, computed a second time."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_search_space as toy
from toy_study import SlowOracle, sequence

from cg.errors import CGError
from evo_search import get_space
from evo_search._evolve_config import SearchError
from evo_search._records import Query
from evo_search.objectives import Constraint, hypervolume
from evo_search.rivals import Rival
from evo_search.spaces import SearchSpace
from evo_search.strategies import State, Strategy, get_strategy, list_strategies
from evo_search.strategies._batches import Front, batch, improvement, upper
from evo_search.strategies.brp import BRPConfig, BRPSearch
from evo_search.strategies.neural_predictor import NeuralPredictorConfig, NeuralPredictorSearch, along_front, dominating
from evo_search.strategies.npenas import NPENAS, NPENASConfig
from evo_search.strategies.nsga2 import NSGA2, NSGA2Config
from evo_search.strategies.ours import CGConfig, CGSearch
from evo_search.strategies.random import RandomConfig, RandomSearch
from evo_search.strategies.reinforce import Reinforce, ReinforceConfig
from evo_search.study import Study
from finetune import CGPredictor

pytest.importorskip("pymoo")


class Space(toy.ToySpace):
    """The toy space, written choice by choice."""

    def choices(self) -> tuple[int, ...]:
        return (5, 5, 5, 5)

    def from_choices(self, options: Sequence[int]) -> toy.Genome:
        return tuple(map(int, options))  # type: ignore[return-value]

    def to_choices(self, a: toy.Genome) -> tuple[int, ...]:
        return a


STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "reinforce": lambda: Reinforce(ReinforceConfig(batch_size=8, hidden=16, learning_rate=0.05)),
    "softmax": lambda: Reinforce(ReinforceConfig("softmax", batch_size=8)),
    "neural-predictor": lambda: NeuralPredictorSearch(toy.RidgePredictor(), NeuralPredictorConfig(20, 10, 150)),
    "brp": lambda: BRPSearch(toy.RidgePredictor(), BRPConfig(32, 4, 0.5, 100, 8)),
    "npenas": lambda: NPENAS(toy.RidgePredictor(), NPENASConfig(10, 8, 5, 30)),
    "nsga2": lambda: NSGA2(NSGA2Config(10)),
    "cg": lambda: CGSearch(toy.RidgePredictor(), CGConfig(n_initial=12, batch_size=8, n_parents=6, pool_size=60)),
}
ALL = sorted(STRATEGIES)
GUIDED = ["brp", "cg", "neural-predictor", "npenas"]
BATCH = {"reinforce": 8, "softmax": 8, "neural-predictor": 10, "brp": 8, "npenas": 8, "nsga2": 10, "cg": 8}


def identity(a: toy.Genome) -> str:
    """The order of the branches does not matter; spares the graph."""
    return "-".join(map(str, (*sorted(a[:2]), *a[2:])))


def start(strategy: str | Strategy, seed: int = 0, **arguments: Any) -> Study:
    made = STRATEGIES[strategy]() if isinstance(strategy, str) else strategy
    return Study(Space(), made, seed=seed, key=identity, **arguments)


def last(study: Study, n: int = 20) -> float:
    """Mean of the last values."""
    return float(np.mean([q.value for q in study.history.queries[-n:] if q.value is not None]))


@cache
def random_runs() -> tuple[float, float]:
    """Mean over seeds of the best value of random search after 60 queries, and of the last values."""
    runs = [start(RandomSearch(), seed) for seed in range(5)]
    for study in runs:
        study.run(toy.value, 60)
    return float(np.mean([s.curve()[-1] for s in runs])), float(np.mean([last(s) for s in runs]))


# -- all of them ---------------------------------------------------------------------------------------------------

def test_names_and_settings() -> None:
    assert {"reinforce", "neural-predictor", "brp", "npenas", "nsga2", "cg"} <= set(list_strategies())
    for name in set(ALL) - {"softmax"}:
        made = get_strategy(name)
        assert made.name == name
        assert json.loads(json.dumps(made.describe()))["config"] == asdict(made.settings)
        assert made.describe() == get_strategy(name).describe()
    assert STRATEGIES["cg"]().describe()["predictor"] == {"kind": "RidgePredictor", "alpha": 1e-3}


@pytest.mark.parametrize("name", ALL)
def test_it_beats_random_search(name: str) -> None:
    best, end = [], []
    for seed in range(4):
        study = start(name, seed)
        study.run(toy.value, 60)
        best.append(study.curve()[-1])
        end.append(last(study))
    at_random, end_at_random = random_runs()
    assert np.mean(end) > end_at_random + 3, "it asks about better networks than random ones"
    if name in GUIDED:
        assert np.mean(best) > -0.2, "with a predictor it finds one of the best five networks, mostly the best"
    elif name == "nsga2":
        assert np.mean(best) > at_random + 0.2


@pytest.mark.parametrize("name", ALL)
def test_minimising_is_maximising_the_negative(name: str) -> None:
    up, down = start(name, 2), start(name, 2, objectives={"loss": "min"})
    up.run(toy.value, 50)
    down.run(lambda a: -toy.value(a), 50)
    assert [q.genome for q in up.history.queries] == [q.genome for q in down.history.queries]


@pytest.mark.parametrize("name", ALL)
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(name: str, tmp_path: Path) -> None:
    whole = start(name, 3, objectives={"acc": "max"})
    whole.run(SlowOracle(), 50)
    for stop in (7, 20, 31, 50):
        with start(name, 3, objectives={"acc": "max"}, history=tmp_path / "a.sqlite") as study:
            study.run(SlowOracle(), stop)
    with start(name, 3, objectives={"acc": "max"}, history=tmp_path / "a.sqlite") as study:
        assert sequence(study) == sequence(whole)
    assert 3 < sum(q.status == "failed" for q in whole.history.queries) < 40, "failed and NaN answers are among them"


@pytest.mark.parametrize("name", ALL)
def test_three_workers_ask_what_one_asks(name: str) -> None:
    one, three = (start(name, 4, objectives={"acc": "max"}) for _ in range(2))
    one.run(SlowOracle(), 40)
    assert one.best() is not None
    three.run(SlowOracle(0.001), 40, 3)
    assert sequence(one) == sequence(three)


@pytest.mark.parametrize("name", ALL)
def test_one_object_serves_many_studies(name: str) -> None:
    """What a strategy keeps between generations spares work and decides nothing."""
    made = STRATEGIES[name]()
    apart = [start(name, seed) for seed in (0, 1)]
    mixed = [start(made, seed) for seed in (0, 1)]
    for budget in (15, 30, 45):
        for study in (*apart, *mixed):
            study.run(toy.value, budget)
    assert [sequence(s) for s in mixed] == [sequence(s) for s in apart]
    assert sequence(mixed[0]) != sequence(mixed[1])


@pytest.mark.parametrize("name", ALL)
def test_a_space_that_is_used_up(name: str) -> None:
    study = start(name, constraints=[Constraint(relus, at_most=0)])
    assert study.run(toy.value, 1000) == "exhausted"
    assert all(q.genome[-1] == "0" for q in study.history.queries)
    assert 70 <= len(study) <= 75
    best = study.best()
    assert best is not None
    assert best.value == -0.5


def relus(graph: Any) -> float:
    return float(graph.name[-1])


@pytest.mark.parametrize("name", ALL)
def test_nothing_but_failures(name: str) -> None:
    def oracle(a: toy.Genome) -> float:
        raise RuntimeError("no")

    study = start(name)
    study.run(oracle, 40)
    assert len(study.history.queries) == 40
    assert study.best() is None


@pytest.mark.parametrize("name", ALL)
def test_equal_values_are_no_problem(name: str) -> None:
    study = start(name)
    study.run(lambda a: 1.0, 50)
    assert len({q.key for q in study.history.queries}) == 50


@pytest.mark.parametrize("name", ALL)
def test_generations_are_as_large_as_the_settings_say(name: str) -> None:
    study = start(name)
    study.run(toy.value, 60)
    sizes = [len(list(rows)) for _, rows in itertools.groupby(study.history.queries, key=lambda q: q.generation)]
    assert set(sizes[1:-1]) == {BATCH[name]}


@pytest.mark.parametrize("name", ["reinforce", "brp", "npenas", "neural-predictor"])
def test_one_objective_is_all_they_take(name: str) -> None:
    with pytest.raises(SearchError, match=f"{name} searches for one objective, this study has 2"):
        start(name, objectives=("a", "b")).ask()


@pytest.mark.parametrize(("made", "text"), [
    (lambda: ReinforceConfig("gru"), "controller must be one of lstm, softmax"),
    (lambda: ReinforceConfig(momentum=1.0), "momentum must be at least 0 and below 1"),
    (lambda: ReinforceConfig(learning_rate=-1.0), "learning_rate"), (lambda: ReinforceConfig(seed=0.5), "seed"),  # type: ignore[arg-type]
    (lambda: BRPConfig(learn=3, iterations=4), "iterations must be at most learn, 3"), (lambda: BRPConfig(alpha=2.0), "alpha"),
    (lambda: NeuralPredictorConfig(soft_pareto=0), "soft_pareto"),
    (lambda: NeuralPredictorConfig(two_stage=1), "two_stage must be true or false"),  # type: ignore[arg-type]
    (lambda: NPENASConfig(n_parents=0), "n_parents"), (lambda: NSGA2Config(0), "population_size"),
    (lambda: CGConfig(similarity=-1.0), "similarity"), (lambda: CGConfig(kappa=float("nan")), "kappa"),
    (lambda: NeuralPredictorSearch(toy.RidgePredictor(), NeuralPredictorConfig(two_stage=True)), "passes"),
    (lambda: NeuralPredictorSearch(cost="flops"), "cost must be one of macs, params"), (lambda: CGSearch(3), "has no fit"),
    (lambda: BRPSearch(view="text"), "view must be one of graph, cell, pruned, native"),
    (lambda: NPENAS("gin"), "no predictor 'gin'")])
def test_bad_settings_are_named(made: Callable[[], Any], text: str) -> None:
    with pytest.raises(CGError, match=text):
        made()


# -- predictors ----------------------------------------------------------------------------------------------------

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


# -- Neural Predictor ----------------------------------------------------------------------------------------------

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


# -- BRP-NAS -------------------------------------------------------------------------------------------------------

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


# -- NPENAS --------------------------------------------------------------------------------------------------------

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


# -- REINFORCE -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["reinforce", "softmax"])
def test_the_policy_moves_to_what_pays(name: str) -> None:
    shares = []
    for seed in range(3):
        study = start(name, seed)
        study.run(lambda a: float(a[3] == 2) + 0.01 * a[0], 72)
        shares.append([np.mean([q.genome[-1] == "2" for q in study.history.queries[i:i + 16]]) for i in (0, 56)])
        assert sum(q.source == "policy" for q in study.history.queries) >= 60
    assert np.mean(shares, 0)[0] < 0.35
    assert np.mean(shares, 0)[1] > 0.7


def test_the_gradient_is_that_of_the_definition() -> None:
    """One step of plain REINFORCE on one choice: the gradient of a softmax, by hand."""
    import torch

    from evo_search.strategies._controllers import Learner

    learner = Learner((3, 2), ReinforceConfig("softmax", entropy_weight=0.0, learning_rate=0.1))
    actions, rewards = np.array([[0, 1], [2, -1]]), np.array([3.0, 1.0])  # baseline 2, deviation 1
    taken: list[np.ndarray] = []
    learner.optimizer.step = lambda: taken.extend(p.grad.numpy().copy() for p in learner.policy.parameters())  # type: ignore
    learner.learn(actions, rewards, np.array([True, True]))
    first = -(np.array([1, 0, 0]) - np.array([0, 0, 1])) / 2  # advantages 1 and -1; the uniform parts cancel
    second = -(np.array([0, 1]) - 0.5) / 2
    np.testing.assert_allclose(taken[0], first, atol=1e-6)
    np.testing.assert_allclose(taken[1], second, atol=1e-6)
    entropy = Learner((4,), ReinforceConfig("softmax"))._score(torch.tensor([[1]]))[1]
    assert entropy[0].item() == pytest.approx(np.log(4))


def test_entropy_keeps_the_policy_open() -> None:
    from evo_search.strategies._controllers import Learner

    def entropy(weight: float) -> float:
        learner = Learner((4, 4), ReinforceConfig("softmax", entropy_weight=weight))
        for _ in range(30):
            learner.learn(np.array([[1, 2], [0, 0], [3, 1]]), np.array([1.0, 0.0, 0.0]), np.ones(3, bool))
        rows = learner.sample(400, np.random.default_rng(0))
        shares = np.bincount(rows[:, 0], minlength=4) / 400
        return float(-(shares[shares > 0] * np.log(shares[shares > 0])).sum())

    assert entropy(2.0) > entropy(0.0) + 0.3


@pytest.mark.parametrize("controller", ["lstm", "softmax"])
def test_samples_follow_the_policy(controller: str) -> None:
    import torch

    from evo_search.strategies._controllers import Learner

    learner = Learner((3, 2), ReinforceConfig(controller, hidden=8))
    with torch.no_grad():
        for parameter in learner.policy.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    rows = learner.sample(6000, np.random.default_rng(0))
    grid = np.array(list(itertools.product(range(3), range(2))))
    with torch.no_grad():
        expected = learner._score(torch.from_numpy(grid))[0].exp().numpy()
    assert expected.sum() == pytest.approx(1.0, abs=1e-5)
    shares = np.array([(rows == g).all(1).mean() for g in grid])
    np.testing.assert_allclose(shares, expected, atol=0.03)


def test_the_lstm_sees_its_last_choice() -> None:
    """What pays at the second place depends on the first: the LSTM learns it, separate distributions cannot."""
    import torch

    from evo_search.strategies._controllers import Learner

    grid = np.array(list(itertools.product(range(2), range(2))))
    gaps = {}
    for controller in ("lstm", "softmax"):
        learner = Learner((2, 2), ReinforceConfig(controller, hidden=8, learning_rate=0.05))
        for _ in range(30):
            learner.learn(grid, (grid[:, 0] == grid[:, 1]).astype(float), np.ones(4, bool))
        with torch.no_grad():
            shares = learner._score(torch.from_numpy(grid))[0].exp().numpy().reshape(2, 2)
        gaps[controller] = (shares / shares.sum(1, keepdims=True))[:, 0] @ [1, -1]
    assert gaps["lstm"] > 0.8
    assert gaps["softmax"] == pytest.approx(0.0, abs=1e-5)


def test_the_policy_learns_to_keep_measured_constraints() -> None:
    study = start("softmax", 1, objectives=("acc",), constraints=[Constraint("size", at_most=7.0)])
    study.run(lambda a: {"acc": float(sum(a)), "size": float(sum(a))}, 72)
    kept = [study.is_feasible(q) for q in study.history.queries]
    assert np.mean(kept[-32:]) > np.mean(kept[:16]) + 0.1


def test_a_space_without_choices_is_refused() -> None:
    with pytest.raises(CGError, match="toy has no choices"):
        Study(toy.ToySpace(), STRATEGIES["reinforce"]()).ask()
    space = get_space("nats-size")
    for call in (lambda: SearchSpace.choices(space), lambda: SearchSpace.from_choices(space, ()),
                 lambda: SearchSpace.to_choices(space, ())):
        with pytest.raises(CGError, match="nats-size does not write its genomes as a list of choices"):
            call()


SPACES = ["nasbench101", "nasbench201", "nasbench301", "nats-size", "ofa-mbv3", "ofa-proxyless", "ofa-resnet50", "proxylessnas"]


@pytest.mark.parametrize("name", SPACES)
def test_choices_write_every_genome(name: str) -> None:
    space, rng = get_space(name), np.random.default_rng(3)
    options = np.array(space.choices())
    n_valid = 0
    for _ in range(100):
        a = space.sample(rng)
        choices = np.array(space.to_choices(a))
        assert choices.shape == options.shape
        assert ((choices >= -1) & (choices < options)).all()
        filled = np.where(choices < 0, rng.integers(options), choices)  # what means nothing may be anything
        assert space.key(space.from_choices(filled.tolist())) == space.key(a) or name == "nasbench101"
        if name == "nasbench101" and a.vertices == 7:
            assert space.from_choices(choices.tolist()) == a
        made = space.from_choices(rng.integers(options))
        if space.is_valid(made):
            n_valid += 1
            again = np.array(space.to_choices(made))
            assert space.key(space.from_choices(np.maximum(again, 0).tolist())) == space.key(made)
    assert n_valid > (10 if name == "nasbench101" else 90)


def test_reinforce_runs_on_a_real_space() -> None:
    space = get_space("nasbench201")
    study = Study(space, Reinforce(ReinforceConfig("softmax", batch_size=10)), seed=0, key=space.encode)
    study.run(lambda a: float(a.count(3)), 80)
    assert last(study) > np.mean([q.value for q in study.history.queries[:20] if q.value is not None]) + 0.5


# -- NSGA-II -------------------------------------------------------------------------------------------------------

def two(a: toy.Genome) -> dict[str, float]:
    """A front that is known: all with equal branches of 3, gene 2 = 3, any gene 3 (accuracy against size)."""
    return {"acc": -((a[0] - 3.0) ** 2) - (a[1] - 3.0) ** 2 - (a[2] - 3.0) ** 2 + a[3], "size": float(a[3])}


@pytest.mark.parametrize("name", ["nsga2", "cg"])
def test_the_front_of_a_known_problem(name: str) -> None:
    found, at_random = [], []
    for seed in range(3):
        for search, where in ((name, found), (RandomSearch(RandomConfig(10)), at_random)):
            study = start(search, seed, objectives={"acc": "max", "size": "min"})
            study.run(two, 120)
            where.append(study.hypervolume({"acc": -30.0, "size": 5.0}))
    best = sum(30.0 + k for k in range(5))  # one column of width 1 for each size
    assert np.mean(found) > best - (0.8 if name == "nsga2" else 0.01)
    assert np.mean(found) > np.mean(at_random) + 2.0


def query(step: int, **values: float) -> Query:
    return Query(step, "", str(step), next(iter(values.values())), "ok", "x", 0.0, values=values)


def test_survivors_by_front_crowding_and_violation() -> None:
    from evo_search.strategies.nsga2 import survivors

    study = start("nsga2", objectives={"a": "min", "b": "min"}, constraints=[Constraint("c", at_most=1.0)])
    state = State(study.space, study._cache, [], generation=1, budget_left=None, objectives=study.objectives,
                  constraints=study.constraints, accept=None)
    rows = [(0.0, 10.0, 1.0), (10.0, 0.0, 1.0), (1.0, 9.0, 0.0), (5.0, 5.0, 0.0), (2.0, 8.0, 0.0),  # the front
            (6.0, 6.0, 0.0), (20.0, 20.0, 1.0), (-5.0, -5.0, 3.0), (-9.0, -9.0, 2.0)]  # behind; last two break the constraint
    made = [query(i, a=a, b=b, c=c) for i, (a, b, c) in enumerate(rows)]
    # crowding: ends infinite; of the others 3 has the widest gap (2 to 10), then 4 (1 to 5), then 2 (0 to 2)
    assert [q.step for q in survivors(made, state, 9)] == [0, 1, 3, 4, 2, 5, 6, 8, 7]
    assert [q.step for q in survivors(made, state, 3)] == [0, 1, 3]


def test_nsga2_searches_where_the_constraint_is_kept() -> None:
    study = start("nsga2", 1, objectives={"acc": "max", "size": "min"}, constraints=[Constraint("size", at_least=3.0)])
    study.run(two, 100)
    kept = [study.is_feasible(q) for q in study.history.queries]
    assert np.mean(kept[-40:]) > np.mean(kept[:10]) + 0.2
    assert {q.values["size"] for q in study.front()} == {3.0, 4.0}


def test_a_child_has_the_genes_of_its_parents() -> None:
    study = start(NSGA2(NSGA2Config(10, mutation_rate=0.0)), 5)
    study.run(toy.value, 20)
    first = [Space().decode(q.genome) for q in study.history.queries[:10]]
    for q in study.history.queries[10:]:
        child = Space().decode(q.genome)
        pure = all(any(child[i] == p[i] for p in first) for i in range(4))
        edited = any(sum(x != y for x, y in zip(child, p, strict=True)) == 1 for p in first)
        assert q.source == "random" or pure or edited


def test_nsga2_without_pymoo_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    study = start("nsga2")
    study.run(toy.value, 10)
    monkeypatch.setitem(sys.modules, "pymoo.util.nds.non_dominated_sorting", None)
    with pytest.raises(SearchError, match=r"nsga2 needs pymoo: pip install 'cgtransfer\[search\]'"):
        study.ask()


# -- ours ----------------------------------------------------------------------------------------------------------

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
