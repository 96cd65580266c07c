"""All strategies on a toy space: better than random search, the same run after a stop and with workers, failures,
constraints, an exhausted space."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_search_space as toy
from toy_strategies import ALL, GUIDED, STRATEGIES, last, relus, start
from toy_study import SlowOracle, sequence

from cg.errors import CGError
from evo_search._evolve_config import SearchError
from evo_search.objectives import Constraint
from evo_search.strategies import get_strategy, list_strategies
from evo_search.strategies.brp import BRPConfig, BRPSearch
from evo_search.strategies.neural_predictor import NeuralPredictorConfig, NeuralPredictorSearch
from evo_search.strategies.npenas import NPENAS, NPENASConfig
from evo_search.strategies.nsga2 import NSGA2Config
from evo_search.strategies.ours import CGConfig, CGSearch
from evo_search.strategies.random import RandomSearch
from evo_search.strategies.reinforce import ReinforceConfig

pytest.importorskip("pymoo")


BATCH = {"reinforce": 8, "softmax": 8, "neural-predictor": 10, "brp": 8, "npenas": 8, "nsga2": 10, "cg": 8}


@cache
def random_runs() -> tuple[float, float]:
    """Mean over seeds of the best value of random search after 60 queries, and of the last values."""
    runs = [start(RandomSearch(), seed) for seed in range(5)]
    for study in runs:
        study.run(toy.value, 60)
    return float(np.mean([s.curve()[-1] for s in runs])), float(np.mean([last(s) for s in runs]))


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
