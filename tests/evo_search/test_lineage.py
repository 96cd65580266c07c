"""What the record keeps of where a network comes from: its parents among the queries, and what a predictor said of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_search_space as toy
from toy_study import SlowOracle, sequence

from cg.errors import StorageError
from evo_search import Proposal, Strategy, Study
from evo_search._candidates import CandidateMaker, GraphCache
from evo_search.history import History, PlanItem
from evo_search.rivals import RIVALS
from evo_search.strategies import State
from evo_search.strategies.aging import AgingConfig, AgingEvolution
from evo_search.strategies.algorithm1 import Algorithm1
from evo_search.strategies.brp import BRPConfig, BRPSearch
from evo_search.strategies.local_search import LocalConfig, LocalSearch
from evo_search.strategies.neural_predictor import NeuralPredictorConfig, NeuralPredictorSearch
from evo_search.strategies.npenas import NPENAS, NPENASConfig
from evo_search.strategies.nsga2 import NSGA2, NSGA2Config
from evo_search.strategies.ours import CGConfig, CGSearch
from evo_search.strategies.random import RandomSearch

SPACE = toy.ToySpace()
CG = CGConfig(n_initial=12, batch_size=8, n_parents=6, pool_size=60)


def identity(a: toy.Genome) -> str:
    """The order of the branches does not matter; spares the graph."""
    return "-".join(map(str, (*sorted(a[:2]), *a[2:])))


def start(strategy: Strategy, seed: int = 0, **arguments: Any) -> Study:
    return Study(toy.ToySpace(), strategy, seed=seed, key=identity, **arguments)


def edits(a: str, b: str) -> int:
    """Genes that differ, the two orders of the branches being one network."""
    x, y = SPACE.decode(a), SPACE.decode(b)
    return min(sum(p != q for p, q in zip(x, twin, strict=True)) for twin in (y, (y[1], y[0], *y[2:])))


# -- the candidates ------------------------------------------------------------------------------------------------

def maker(asked: set[str]) -> CandidateMaker:
    return CandidateMaker(SPACE, GraphCache(SPACE, identity), asked=asked)


def test_the_parents_of_children_are_networks_that_were_asked_about() -> None:
    a, b = (0, 0, 0, 0), (4, 4, 4, 4)
    asked = {identity(a), identity(b)}
    m, rng, taken = maker(asked), np.random.default_rng(0), set(asked)
    first = m.children([a, b], 6, taken, rng, crossover_rate=0.0, max_edits=1)
    near = {key: a if edits(SPACE.encode(g), SPACE.encode(a)) == 1 else b for key, g in first.items()}
    assert {key: m.parents(key) for key in first} == {key: (p,) for key, p in near.items()}
    one = next(key for key, p in near.items() if p == a)
    second = m.children([first[one]], 6, taken, rng, crossover_rate=0.0, max_edits=3)
    assert {m.parents(key) for key in second} == {(a,)}, "the parent was bred and not asked about: its own parent stands for it"
    other = next(key for key, p in near.items() if p == b)
    crossed = m.children([first[one], first[other]], 3, taken, rng, crossover_rate=1.0, max_edits=1)
    assert crossed
    assert all(set(m.parents(key)) == {a, b} for key in crossed)


def test_a_network_made_again_has_its_newest_parents_and_its_children_keep_the_old_ones() -> None:
    a, b = (0, 0, 0, 0), (0, 1, 0, 0)
    asked = {identity(a), identity(b)}
    m, rng = maker(asked), np.random.default_rng(0)
    pool = m.children([a], 40, set(asked), rng, crossover_rate=0.0, max_edits=1)
    x = next(key for key in pool if key == "0-2-0-0")
    below = m.children([pool[x]], 5, {*asked, *pool}, rng, crossover_rate=0.0, max_edits=1)
    again = m.children([b], 40, set(asked), rng, crossover_rate=0.0, max_edits=1)
    assert x in again
    assert m.parents(x) == (b,)
    assert {m.parents(key) for key in below} == {(a,)}


def test_children_of_random_networks_that_were_not_asked_about_have_no_parents() -> None:
    m, rng, taken = maker(set()), np.random.default_rng(0), set[str]()
    new = m.random(3, taken, rng)
    children = m.children(list(new.values()), 5, taken, rng, crossover_rate=0.5, max_edits=2)
    assert {m.parents(key) for key in (*new, *children)} == {()}


# -- strategies ----------------------------------------------------------------------------------------------------

MADE: dict[str, Callable[[], Strategy]] = {
    "algorithm1": lambda: Algorithm1(toy.RidgePredictor(), toy.CONFIG),
    "aging": lambda: AgingEvolution(AgingConfig(12, 4, 3)),
    "local": lambda: LocalSearch(LocalConfig(4, 5, 10)),
    "npenas": lambda: NPENAS(toy.RidgePredictor(), NPENASConfig(10, 8, 5, 30)),
    "nsga2": lambda: NSGA2(NSGA2Config(10)),
    "cg": lambda: CGSearch(toy.RidgePredictor(), CG),
}


@pytest.mark.parametrize("name", sorted(MADE))
def test_parents_are_good_answers_of_earlier_generations(name: str) -> None:
    study = start(MADE[name](), 3, objectives={"acc": "max"})
    study.run(SlowOracle(), 60)
    by_step = {q.step: q for q in study.history.queries}
    children = [q for q in by_step.values() if q.parents]
    assert len(children) >= 25
    for q in children:
        assert all(by_step[p].generation < q.generation and by_step[p].value is not None for p in q.parents)
        assert len(set(q.parents)) == len(q.parents)
        if name in ("aging", "local", "npenas"):
            assert [edits(q.genome, by_step[p].genome) for p in q.parents] == [1]
    assert not any(q.parents for q in by_step.values() if q.source in ("initial", "random", "start"))
    assert {q.source for q in children} >= {"aging": {"child"}, "local": {"neighbour"}, "npenas": {"child"}, "nsga2": {"child"},
                                            "algorithm1": {"evolved"}, "cg": {"chosen", "bred"}}[name]


def test_crossed_children_have_the_genes_of_both_recorded_parents() -> None:
    study = start(NSGA2(NSGA2Config(10, crossover_rate=1.0, mutation_rate=0.0)), 5)
    study.run(toy.value, 60)
    genome = {q.step: SPACE.decode(q.genome) for q in study.history.queries}
    pairs = [q for q in study.history.queries if len(q.parents) == 2]
    assert len(pairs) > 15
    for q in pairs:
        assert all(g in (genome[q.parents[0]][i], genome[q.parents[1]][i]) for i, g in enumerate(genome[q.step]))


def test_the_whole_front_has_children() -> None:
    """Also what came late: with several objectives nothing on the front ranks above the rest of it."""
    study = start(CGSearch(toy.RidgePredictor(), replace(CG, n_parents=1)), 3, objectives={"acc": "max", "size": "min"})
    study.run(lambda a: {"acc": toy.value(a), "size": float(sum(a))}, 60)
    known = [q for q in study.history.queries if q.generation < 5]
    front = {q.step for q in known if not any(
        o.values != q.values and o.values["acc"] >= q.values["acc"] and o.values["size"] <= q.values["size"] for o in known)}
    bred = [q for q in study.history.queries if q.generation == 5 and q.source == "bred"]
    assert len({p for q in bred for p in q.parents} & front) > 1


def test_random_networks_have_neither_parents_nor_predictions() -> None:
    study = start(RandomSearch())
    study.run(toy.value, 30)
    assert not any(q.parents or q.predicted for q in study.history.queries)


def test_strategies_of_ones_own_may_name_parents_and_predictions() -> None:
    class Mine(Strategy):
        name = "mine"

        def propose(self, state: State, rng: np.random.Generator) -> list[Proposal]:
            old = [state.genome(q) for q in state.queries]
            stranger = (4, 4, 4, 4)
            said = {"value": (1.5, float("nan")), "other": (float("nan"), 1.0), "third": (2, 0.5)}
            new = state.maker.random(2, set(state.taken), rng).values()
            return [Proposal(g, "x", (*old, stranger, *old), said) for g in new]

    study = start(Mine())
    study.run(toy.value, 4)
    assert [q.parents for q in study.history.queries] == [(), (), (0, 1), (0, 1)], "known ones, each once"
    assert [dict(q.predicted) for q in study.history.queries] == [{"value": (1.5, None), "third": (2.0, 0.5)}] * 4


# -- predictions ---------------------------------------------------------------------------------------------------

class Exact(toy.PerfectPredictor):
    """Knows the value, times a sign that it learns; says the number of ReLUs as its deviation."""

    def fit(self, graphs: list[Any], y: np.ndarray) -> None:
        self.sign = 1.0 if y.mean() < 0 else -1.0

    def predict(self, graphs: list[Any], return_std: bool = False) -> Any:
        mean = self.sign * super().predict(graphs)
        return (mean, np.array([float(g.name[-1]) for g in graphs])) if return_std else mean


GUIDED: dict[str, Callable[[Any], Strategy]] = {
    "algorithm1": lambda p: Algorithm1(p, toy.CONFIG),
    "brp": lambda p: BRPSearch(p, BRPConfig(32, 4, 0.5, 100, 8)),
    "cg": lambda p: CGSearch(p, CG),
    "neural-predictor": lambda p: NeuralPredictorSearch(p, NeuralPredictorConfig(20, 10, 150)),
    "npenas": lambda p: NPENAS(p, NPENASConfig(10, 8, 5, 30)),
}
CHOSEN = {"algorithm1": "evolved", "brp": "predicted", "cg": "chosen", "neural-predictor": "predicted", "npenas": "child"}


@pytest.mark.parametrize("name", sorted(GUIDED))
@pytest.mark.parametrize("direction", ["max", "min"])
def test_predictions_are_recorded_in_the_unit_of_the_objective(name: str, direction: str) -> None:
    sign = 1.0 if direction == "max" else -1.0
    study = start(GUIDED[name](Exact()), objectives={"y": direction})
    study.run(lambda a: sign * toy.value(a), 50)
    chosen = [q for q in study.history.queries if q.predicted]
    assert len(chosen) >= 15
    assert {q.source for q in chosen} == {CHOSEN[name]}
    for q in chosen:
        assert dict(q.predicted) == {"y": (q.value, float(q.genome[-1]))}


def test_each_objective_has_its_own_prediction() -> None:
    study = start(CGSearch(toy.RidgePredictor(), CG), objectives={"acc": "max", "relus": "min"})
    study.run(lambda a: {"acc": toy.value(a), "relus": float(a[3])}, 60)
    late = [q for q in study.history.queries if q.source == "chosen" and q.generation > 3]
    assert late
    for q in late:
        assert set(q.predicted) == {"acc", "relus"}
        assert q.predicted["relus"][0] == pytest.approx(q.values["relus"], abs=0.05)


def test_what_is_chosen_is_not_predicted_twice_where_there_is_no_deviation() -> None:
    class Counting(toy.PerfectPredictor):
        sizes: list[int]

        def predict(self, graphs: list[Any]) -> np.ndarray:
            self.sizes.append(len(graphs))
            return super().predict(graphs)

    for name, pool in (("npenas", 30), ("neural-predictor", 150)):
        predictor = Counting()
        predictor.sizes = []
        study = start(GUIDED[name](predictor))
        study.run(toy.value, 29)
        assert set(predictor.sizes) == {pool}
        said = [q for q in study.history.queries if q.predicted]
        assert [q.predicted["value"] for q in said] == [(q.value, None) for q in said]
        assert said


def test_scores_that_only_order_are_called_so() -> None:
    class Orders(toy.RidgePredictor):
        label_units = False

    assert BRPSearch().describe()["predicts"] == NPENAS("gates").describe()["predicts"] == "score"
    for made in (NPENAS(Orders()), Algorithm1(Orders())):
        assert made.describe()["predicts"] == "score"
    for made in (NPENAS(), CGSearch(), NeuralPredictorSearch(), NPENAS(toy.RidgePredictor()), Algorithm1()):
        assert "predicts" not in made.describe()


@pytest.mark.parametrize("name", sorted(set(RIVALS) - {"default"}))
def test_a_predictor_by_name_speaks_the_unit_of_its_class(name: str) -> None:
    assert RIVALS[name].label_units == getattr(RIVALS[name].make(0, "toy"), "label_units", True)


# -- the record ----------------------------------------------------------------------------------------------------

def test_parents_predictions_and_planning_times_are_read_back(tmp_path: Path) -> None:
    item = PlanItem("g", "k", "x", (0,), {"acc": (0.1 + 0.2, 1e-300), "µ": (-5.0, None)})
    with History(tmp_path / "a.sqlite") as h:
        h.save_plan(0, [PlanItem("first", "0", "x")], {}, 0.5)
        h.record(PlanItem("first", "0", "x"), 1.0, wall_s=0.0)
        h.save_plan(1, [item], {}, 0.25)
    with History(tmp_path / "a.sqlite") as h:
        assert h.plan_s == 0.75
        assert h.pending == [(1, item)]
        query = h.record(PlanItem("g", "k", "x"), 1.0, wall_s=0.0)
        assert (query.parents, query.predicted) == (item.parents, item.predicted), "as planned, whoever answers"
    with History.read(tmp_path / "a.sqlite") as h:
        assert h.queries[1] == query
        assert h.plan is not None
        assert h.plan.items == (item,)


@pytest.mark.parametrize("name", ["algorithm1", "nsga2", "cg"])
def test_a_run_that_was_stopped_has_the_record_of_one_that_was_not(name: str, tmp_path: Path) -> None:
    whole = start(MADE[name](), 3, objectives={"acc": "max"})
    whole.run(SlowOracle(), 50)
    for stop in (7, 23, 31, 50):
        with start(MADE[name](), 3, objectives={"acc": "max"}, history=tmp_path / "a.sqlite") as study:
            study.run(SlowOracle(), stop)
    with History.read(tmp_path / "a.sqlite") as h:
        read = [(q.step, q.genome, q.parents, dict(q.predicted)) for q in h.queries]
    assert read == [(q.step, q.genome, q.parents, dict(q.predicted)) for q in whole.history.queries]
    assert sum(bool(q[2]) for q in read) > 15
    assert len(sequence(whole)[0]) == 11, "the comparisons of the other tests see them too"


def test_histories_without_parents_are_refused_by_name(tmp_path: Path) -> None:
    History(tmp_path / "a.sqlite").close()
    with sqlite3.connect(tmp_path / "a.sqlite") as db:
        db.execute("UPDATE cg_meta SET value = '2' WHERE key = 'format_version'")
    db.close()
    with pytest.raises(StorageError, match=r"a\.sqlite has format version 2, this program reads 3; start again in a new one"):
        History(tmp_path / "a.sqlite")
