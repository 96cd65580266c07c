"""Constraints and several objectives: what a study asks and what it calls best, against brute force."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pytest
import toy_search_space as toy
import toy_study
from toy_study import SlowOracle, random_study

import cg
from evo_search._evolve_config import SearchError
from evo_search.objectives import Constraint, front_numbers, hypervolume, non_dominated
from evo_search.strategies import Proposal, State, Strategy
from evo_search.strategies.algorithm1 import Algorithm1
from evo_search.study import Study

SPACE = toy.ToySpace()


@cache
def graph_of(a: toy.Genome) -> cg.Graph:
    return SPACE.to_graph(a)


@cache
def everything() -> dict[str, toy.Genome]:
    """One genome of every network of the space, by identity."""
    return {cg.fingerprint(graph_of(a)): a for a in itertools.product(range(5), repeat=4)}  # type: ignore[misc]


def relus(graph: cg.Graph) -> float:
    return float(graph.name[-1])


@pytest.mark.parametrize("strategy", sorted(toy_study.STRATEGIES))
def test_what_breaks_a_constraint_of_the_graph_is_never_asked(strategy: str) -> None:
    macs = {key: graph_of(a).macs for key, a in everything().items()}
    limit = float(np.median(list(macs.values())))
    constraints = [Constraint("macs", at_most=limit), Constraint(relus, at_least=2, at_most=3)]
    study = Study(toy.ToySpace(), toy_study.STRATEGIES[strategy](), constraints=constraints)
    assert limit in macs.values(), "the bound itself is inside"
    allowed = {key for key, a in everything().items() if macs[key] <= limit and a[3] in (2, 3)}
    study.run(toy.value, 1000)
    assert {q.key for q in study.history.queries} <= allowed
    assert study.exhausted
    assert 0.9 * len(allowed) < len(study) <= len(allowed)
    best = study.best()
    assert best is not None
    assert best.value == max(toy.value(everything()[key]) for key in allowed)


def test_measured_constraints_decide_after_the_query() -> None:
    study = random_study(20, objectives=("acc",), constraints=[Constraint("size", at_most=7.0)])
    study.run(SlowOracle(), 150)
    asked = study.history.queries
    good = [q for q in asked if q.value is not None and sum(SPACE.decode(q.genome)) <= 7]
    assert 0 < len(good) < len(asked)
    best = study.best()
    assert best is not None
    assert best.value == max(q.value for q in good if q.value is not None)
    assert max(q.value for q in asked if q.value is not None) > best.value, "the constraint binds"
    expected = [max((q.value for q in good if q.value is not None and q.step <= i), default=np.nan) for i in range(len(asked))]
    np.testing.assert_array_equal(study.curve(), expected)


def test_parents_keep_the_measured_constraints() -> None:
    class Parents(Strategy):
        name = "parents"

        def propose(self, state: State, rng: np.random.Generator) -> list[Proposal]:
            if state.generation == 1:
                sizes = [sum(state.genome(q)) for q in state.ranked]
                violations = [max(0, s - 7) for s in sizes]
                n_good = violations.count(0)
                assert 0 < n_good < len(sizes)
                assert violations[:n_good] == [0] * n_good, "first those that keep it"
                assert violations == sorted(violations), "then by how far they are off"
                values = [q.value for q in state.ranked[:n_good]]
                assert values == sorted(values, reverse=True)  # type: ignore[type-var]
                assert len(state.ok) + len(state.failed) == len(state.queries) == 60
                np.testing.assert_array_equal(state.values("size"), [sum(state.genome(q)) for q in state.ok])
                assert state.budget_left == 1
                seen.append(True)
            return [Proposal(a, "x") for a in state.maker.random(60, set(state.taken), rng).values()]

    seen: list[bool] = []
    study = Study(toy.ToySpace(), Parents(), objectives=("acc",), constraints=[Constraint("size", at_most=7.0)])
    study.run(SlowOracle(), 61)
    assert seen == [True]


def brute_front(points: np.ndarray) -> list[bool]:
    """Smaller is better."""
    return [not any(all(a <= b for a, b in zip(q, p, strict=True)) and any(a < b for a, b in zip(q, p, strict=True))
                    for q in points) for p in points]


@pytest.mark.parametrize("n_objectives", [1, 2, 3])
def test_fronts_are_those_of_brute_force(n_objectives: int) -> None:
    rng = np.random.default_rng(n_objectives)
    for n in (0, 1, 40):
        points = rng.integers(6, size=(n, n_objectives)).astype(float)  # with ties
        assert non_dominated(points).tolist() == brute_front(points)
        left, numbers = np.arange(n), np.zeros(n, int)
        for front in itertools.count():
            if not len(left):
                break
            first = np.array(brute_front(points[left]))
            numbers[left[first]] = front
            left = left[~first]
        assert front_numbers(points).tolist() == numbers.tolist()


def test_the_front_and_its_hypervolume() -> None:
    pytest.importorskip("pymoo")
    study = random_study(20, objectives={"acc": "max", "size": "min"}, constraints=[Constraint("size", at_least=4.0)])
    study.run(SlowOracle(), 200)
    ok = [q for q in study.history.queries if q.value is not None and q.values["size"] >= 4]
    points = np.array([[-q.values["acc"], q.values["size"]] for q in ok])
    assert study.front() == [q for q, keep in zip(ok, brute_front(points), strict=True) if keep]
    assert len({q.values["size"] for q in study.front()}) > 2
    # two objectives: the area is a staircase
    worst = (-30.0, 14.0)
    stairs, volume, before = sorted({(q.values["size"], q.values["acc"]) for q in study.front()}), 0.0, worst[0]
    for size, acc in stairs:
        if size < worst[1] and acc > before:
            volume += (worst[1] - size) * (acc - before)
            before = acc
    assert study.hypervolume({"size": worst[1], "acc": worst[0]}) == pytest.approx(volume)
    assert study.hypervolume(worst) == pytest.approx(volume)
    assert study.hypervolume((1.0, 14.0)) == 0.0
    assert random_study(objectives=("acc", "size")).hypervolume(worst) == 0.0
    for bad in ({"acc": 1.0}, (1.0,), (1.0, float("inf"))):
        with pytest.raises(SearchError, match="the reference needs"):
            study.hypervolume(bad)


def test_a_hypervolume_of_three_objectives() -> None:
    pytest.importorskip("pymoo")
    points = np.random.default_rng(0).random((12, 3))
    grid = (np.indices((40, 40, 40)).reshape(3, -1).T + 0.5) / 40
    share = (points[:, None] <= grid[None]).all(2).any(0).mean()
    assert hypervolume(points, np.ones(3)) == pytest.approx(share, abs=0.01)


def test_one_objective_is_all_that_algorithm_1_takes() -> None:
    study = Study(toy.ToySpace(), Algorithm1(), objectives=("acc", "size"))
    with pytest.raises(SearchError, match="one objective, this study has 2"):
        study.ask()
