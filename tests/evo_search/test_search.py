"""``evolve`` and ``random_search`` on a space with a known optimum: the sequence, what counts, and resuming."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_search_space as toy

import cg
from evo_search import evolve, random_search
from evo_search._candidates import CandidateMaker, GraphCache
from evo_search.algorithm1 import PAPER_BUDGET, EvolveConfig, SearchError
from evo_search.history import History, HistoryError, Query
from evo_search.oracles import CallableOracle

ROOT = Path(__file__).parents[2]


def sequence(h: History) -> list[tuple[Any, ...]]:
    """Everything about a run but the clock."""
    return [(q.step, q.genome, q.key, q.value, q.status, q.source, q.error, q.parents, dict(q.predicted)) for q in h.queries]


def run_toy(path: Path, *args: object) -> int:
    return subprocess.run([sys.executable, str(Path(toy.__file__)), str(path), *map(str, args)], check=False,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE).returncode


# -- finding the optimum -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("seed", range(3))
def test_a_perfect_predictor_finds_the_optimum_at_once(seed: int) -> None:
    config = EvolveConfig(n_initial=5, batch_size=2, n_parents=5, pool_size=60, rounds=4)
    r = evolve(toy.ToySpace(), toy.value, toy.PerfectPredictor(), budget=11, seed=seed, config=config)
    assert r.best_genome == toy.BEST
    assert r.best_encoded == "3-3-3-1"
    assert r.best_value == 0.0
    assert (r.queries, r.stopped) == (11, "budget")


@pytest.mark.parametrize("seed", range(3))
def test_a_learning_predictor_beats_random_search(seed: int) -> None:
    evolved = evolve(toy.ToySpace(), toy.value, toy.RidgePredictor(), budget=40, seed=seed, config=toy.CONFIG)
    blind = random_search(toy.ToySpace(), toy.value, 40, seed)
    assert evolved.curve[-1] > blind.curve[-1]
    assert evolved.best_genome == toy.BEST


def test_evolution_without_a_predictor_beats_random_search_on_average() -> None:
    def mean(search: Any) -> float:
        return float(np.mean([search(seed).best_value for seed in range(8)]))

    config = EvolveConfig(n_initial=12, batch_size=6, n_parents=5)
    assert mean(lambda s: evolve(toy.ToySpace(), toy.value, budget=60, seed=s, config=config)) > mean(
        lambda s: random_search(toy.ToySpace(), toy.value, 60, s))


def test_smaller_can_be_better() -> None:
    def cost(a: toy.Genome) -> float:
        return -toy.value(a)

    r = evolve(toy.ToySpace(), cost, toy.RidgePredictor(), budget=40, config=replace(toy.CONFIG, maximize=False))
    assert r.best_genome == toy.BEST
    assert (np.diff(r.curve) <= 0).all()

    class PerfectCost(toy.PerfectPredictor):
        """Has no ``return_std``."""

        def predict(self, graphs: Any) -> np.ndarray:
            return -super().predict(graphs)

    config = EvolveConfig(n_initial=5, batch_size=2, n_parents=5, pool_size=60, rounds=4, maximize=False)
    assert evolve(toy.ToySpace(), cost, PerfectCost(), budget=11, config=config).best_genome == toy.BEST
    assert random_search(toy.ToySpace(), cost, 30, maximize=False).best_value == min(
        cost(toy.ToySpace().decode(q.genome)) for q in random_search(toy.ToySpace(), cost, 30).history.queries)


def test_the_last_generation_counts() -> None:
    class Late:
        """Predicts the worst networks until the last generation, then the best."""

        fits = 0

        def fit(self, graphs: Any, y: Any) -> None:
            self.fits += 1

        def predict(self, graphs: Any) -> np.ndarray:
            return toy.PerfectPredictor().predict(graphs) * (1 if self.fits == 3 else -1)

    config = EvolveConfig(n_initial=5, batch_size=5, n_parents=9, pool_size=200, rounds=3)
    r = evolve(toy.ToySpace(), toy.value, Late(), budget=20, seed=1, config=config)
    assert r.best_genome == toy.BEST
    assert r.history.best().step >= 15  # type: ignore[union-attr]


# -- what counts as a query ----------------------------------------------------------------------------------------

def test_isomorphic_genomes_are_one_query() -> None:
    asked: list[toy.Genome] = []

    def oracle(a: toy.Genome) -> float:
        asked.append(a)
        return toy.value(a)

    r = random_search(toy.ToySpace(), oracle, budget=1000)
    assert r.stopped == "exhausted"
    assert 0.9 * toy.N_NETWORKS < r.queries <= toy.N_NETWORKS
    assert len(asked) == r.queries
    assert len({(*sorted(a[:2]), *a[2:]) for a in asked}) == r.queries
    assert {q.key for q in r.history.queries} == {cg.fingerprint(toy.ToySpace().to_graph(a)) for a in asked}


def test_the_identity_of_a_network_can_be_chosen() -> None:
    r = random_search(toy.ToySpace(), toy.value, budget=1000, key=toy.ToySpace().encode)
    assert r.queries > toy.N_NETWORKS, "the two orders of the branches now count as two"


def test_evolution_asks_the_whole_space_and_stops() -> None:
    r = evolve(toy.ToySpace(), toy.value, toy.RidgePredictor(), budget=1000, config=replace(toy.CONFIG, batch_size=40))
    assert r.stopped == "exhausted"
    assert 0.9 * toy.N_NETWORKS < r.queries <= toy.N_NETWORKS
    assert r.best_genome == toy.BEST


def test_failures_are_recorded_counted_and_not_asked_again() -> None:
    oracle = toy.MortalOracle()
    predictor = toy.RidgePredictor()
    r = evolve(toy.ToySpace(), oracle, predictor, budget=60, config=toy.CONFIG)
    failed = [q for q in r.history.queries if q.status == "failed"]
    assert failed
    assert {q.error for q in failed} == {"RuntimeError: out of memory"}
    assert len(oracle.calls) == r.queries == 60
    assert predictor.fitted_on[-1] == 58 - sum(q.step < 58 for q in failed), "failures teach nothing"
    assert r.curve.shape == (60,)


def test_an_oracle_that_always_fails_still_ends() -> None:
    r = evolve(toy.ToySpace(), lambda a: float("nan"), toy.RidgePredictor(), budget=25, config=toy.CONFIG)
    assert (r.queries, r.best_genome, r.best_encoded, r.best_value) == (25, None, None, None)
    assert np.isnan(r.curve).all()


def test_equal_values_do_not_reach_the_predictor() -> None:
    predictor = toy.RidgePredictor()
    r = evolve(toy.ToySpace(), lambda a: 1.0, predictor, budget=30, config=toy.CONFIG)
    assert r.queries == 30
    assert predictor.fitted_on == []


def test_an_interrupt_is_not_a_failure(tmp_path: Path) -> None:
    def oracle(a: toy.Genome) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evolve(toy.ToySpace(), oracle, budget=5, history=tmp_path / "a.sqlite")
    with History.read(tmp_path / "a.sqlite") as h:
        assert len(h) == 0
        assert h.plan is not None


# -- the record ----------------------------------------------------------------------------------------------------

def test_the_curve_is_the_running_maximum_of_the_queries() -> None:
    r = random_search(toy.ToySpace(), toy.value, 50, seed=2)
    values = [toy.value(toy.ToySpace().decode(q.genome)) for q in r.history.queries]
    assert r.curve.tolist() == [max(values[: i + 1]) for i in range(50)]
    assert r.best_value == r.curve[-1] == max(values)
    assert {q.source for q in r.history.queries} == {"random"}


def test_sources_say_where_a_network_came_from() -> None:
    r = evolve(toy.ToySpace(), toy.value, toy.RidgePredictor(), budget=46, config=toy.CONFIG)
    sources = [q.source for q in r.history.queries]
    assert sources[:6] == ["initial"] * 6
    assert sources[6:] == ["evolved", "evolved", "evolved", "random"] * 10, "explore_rate 1/4 of batches of 4"


def test_progress_sees_every_query_and_the_best_so_far() -> None:
    seen: list[tuple[Query, Query | None]] = []
    r = evolve(toy.ToySpace(), toy.value, budget=30, progress=lambda q, best: seen.append((q, best)))
    assert [q for q, _ in seen] == list(r.history.queries)
    assert [best.value for _, best in seen if best] == r.curve.tolist()


def test_refit_or_fit_once() -> None:
    for refit, expected in ((True, [6, 10, 14, 18]), (False, [6])):
        predictor = toy.RidgePredictor()
        evolve(toy.ToySpace(), toy.value, predictor, budget=20, config=replace(toy.CONFIG, refit=refit))
        assert predictor.fitted_on == expected


def test_kappa_weighs_the_standard_deviation() -> None:
    class Sure:
        asked_std = 0

        def fit(self, graphs: Any, y: Any) -> None: ...

        def predict(self, graphs: Any, return_std: bool = False) -> Any:
            self.asked_std += return_std
            flat = np.zeros(len(graphs))
            std = np.array([int(g.name[-1]) for g in graphs], float)  # unsure about many ReLUs
            return (flat, std) if return_std else flat

    for kappa, relus in ((1.0, 4), (-1.0, 0)):
        config = EvolveConfig(n_initial=5, batch_size=5, pool_size=200, kappa=kappa, breed_rate=0.0)
        p = Sure()
        r = evolve(toy.ToySpace(), toy.value, p, budget=10, config=config)
        assert {int(q.genome[-1]) for q in r.history.queries[5:]} == {relus}
        assert p.asked_std > 0
    evolve(toy.ToySpace(), toy.value, (p := Sure()), budget=10, config=EvolveConfig(n_initial=5, kappa=0.0))
    assert p.asked_std == 0


@pytest.mark.parametrize(("breed_rate", "bred"), [(0.0, 0), (0.3, 3), (1.0, 10)])
def test_a_share_of_each_batch_is_bred_past_the_predictor(breed_rate: float, bred: int) -> None:
    class Wrong(toy.PerfectPredictor):  # fewest ReLUs first, a wrong advice
        def predict(self, graphs: Any) -> np.ndarray:
            return np.array([-int(g.name[-1]) for g in graphs], float)

    config = EvolveConfig(n_initial=30, batch_size=10, pool_size=200, n_parents=1, max_edits=1, breed_rate=breed_rate)
    r = evolve(toy.ToySpace(), toy.value, Wrong(), budget=40, config=config)
    best = max(r.history.queries[:30], key=lambda q: q.value or -np.inf).genome.split("-")
    chosen, rest = r.history.queries[30:40 - bred], r.history.queries[40 - bred:]
    assert {q.genome[-1] for q in chosen} <= {"0"}
    assert all(sum(a != b for a, b in zip(q.genome.split("-"), best, strict=True)) == 1 for q in rest)
    assert {q.source for q in r.history.queries[30:]} == {"evolved"}


def test_normal_scores_are_asked_for_where_a_predictor_has_them() -> None:
    class Normal:
        def fit(self, graphs: Any, y: Any) -> None: ...

        def predict(self, graphs: Any, return_std: bool = False) -> Any:
            assert len(graphs) <= 5, "label units are for the record of what was chosen, not for the choice"
            relus = np.array([int(g.name[-1]) for g in graphs], float)
            return (100.0 + relus, relus / 2) if return_std else 100.0 + relus

        def predict_normal(self, graphs: Any) -> tuple[np.ndarray, np.ndarray]:
            relus = np.array([int(g.name[-1]) for g in graphs], float)
            return -relus, 2 * relus  # good with few, unsure about many

    for maximize, kappa, relus in ((True, 0.0, 0), (True, 1.0, 4), (False, 0.0, 4), (False, -1.0, 0)):
        config = EvolveConfig(n_initial=5, batch_size=5, pool_size=200, kappa=kappa, maximize=maximize, breed_rate=0.0)
        r = evolve(toy.ToySpace(), toy.value, Normal(), budget=10, config=config)
        assert {int(q.genome[-1]) for q in r.history.queries[5:]} == {relus}, (maximize, kappa)
        said = {"value": (100.0 + relus, relus / 2 if kappa else None)}
        assert [dict(q.predicted) for q in r.history.queries] == [{}] * 5 + [said] * 5


# -- the same run again --------------------------------------------------------------------------------------------

def test_the_seed_decides_the_run() -> None:
    def run(seed: int) -> list[tuple[Any, ...]]:
        return sequence(evolve(toy.ToySpace(), toy.value, toy.RidgePredictor(), budget=30, seed=seed,
                               config=toy.CONFIG).history)

    assert run(1) == run(1)
    assert run(1) != run(2)


def digest(h: History) -> str:
    text = "\n".join(f"{q.genome} {q.source} {q.value!r}" for q in h.queries)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@pytest.mark.parametrize(("seed", "guided", "once", "children", "blind"), [
    (0, "ce6590315e15bb3a", "b645d38391600228", "14d40430ef1c3b6f", "aea13b63007acdf2"),
    (1, "3b8eff045e9f85d0", "56cc69bee1af8241", "c6c31c5c1e6ad3de", "0643e705b71a87a5"),
    (2, "6fb946a4bc9337ce", "7b00e600de87df3d", "2171d62ef4de1402", "92216efbc647cb82"),
    (3, "6374bbc8d479f724", "6aefbc2b3e1f9c3d", "ad56827aad3f76d5", "7c3335f0da9d9028")])
def test_a_seed_asks_what_it_always_asked(seed: int, guided: str, once: str, children: str, blind: str) -> None:
    """Sequences as they were when the published results were made (before there were studies)."""
    space = toy.ToySpace()
    config = replace(toy.CONFIG, refit=False, maximize=False)
    mortal, ridge = toy.MortalOracle(), toy.RidgePredictor()
    assert digest(evolve(space, mortal, ridge, budget=60, seed=seed, config=toy.CONFIG).history) == guided
    assert digest(evolve(space, toy.value, ridge, budget=45, seed=seed, config=config).history) == once
    assert digest(evolve(space, toy.value, budget=60, seed=seed).history) == children
    assert digest(random_search(space, toy.value, 1000, seed).history) == blind


@pytest.mark.parametrize(("method", "die_at_call", "die_at_fit"), [
    ("evolve", 1, 0), ("evolve", 4, 0), ("evolve", 7, 0), ("evolve", 17, 0), ("evolve", 0, 1), ("evolve", 0, 4),
    ("random", 27, 0)])
def test_a_killed_run_resumes_to_the_identical_sequence(tmp_path: Path, method: str, die_at_call: int,
                                                        die_at_fit: int) -> None:
    path, budget = tmp_path / "killed.sqlite", 33
    assert run_toy(path, method, budget, die_at_call, die_at_fit) == -signal.SIGKILL
    with History.read(path) as h:
        done = sequence(h)
    assert len(done) == (die_at_call - 1 if die_at_call else 6 + 4 * (die_at_fit - 1))
    oracle = toy.MortalOracle()
    space = toy.ToySpace()
    if method == "evolve":
        whole = evolve(space, toy.MortalOracle(), toy.RidgePredictor(), budget=budget, seed=3, config=toy.CONFIG)
        resumed = evolve(space, oracle, toy.RidgePredictor(), budget=budget, seed=3, config=toy.CONFIG, history=path)
    else:
        whole = random_search(space, toy.MortalOracle(), budget, 3)
        resumed = random_search(space, oracle, budget, 3, history=path)
    assert sequence(resumed.history) == sequence(whole.history)
    assert sequence(resumed.history)[: len(done)] == done
    assert len(oracle.calls) == budget - len(done), "what was answered before the kill is not asked again"


def test_a_run_killed_again_and_again_is_still_the_same(tmp_path: Path) -> None:
    path = tmp_path / "killed.sqlite"
    for _ in range(5):
        assert run_toy(path, "evolve", 33, 5) == -signal.SIGKILL
    assert run_toy(path, "evolve", 33) == 0
    whole = evolve(toy.ToySpace(), toy.MortalOracle(), toy.RidgePredictor(), budget=33, seed=3, config=toy.CONFIG)
    with History.read(path) as h:
        assert sequence(h) == sequence(whole.history)


def test_a_larger_budget_continues_the_run(tmp_path: Path) -> None:
    def run(budget: int, history: Path | None) -> list[tuple[Any, ...]]:
        return sequence(evolve(toy.ToySpace(), toy.value, toy.RidgePredictor(), budget=budget, config=toy.CONFIG,
                               history=history).history)

    path = tmp_path / "a.sqlite"
    short = run(13, path)  # ends inside a batch
    assert run(31, path) == run(31, None)
    assert run(31, None)[:13] == short
    assert run(5, path) == run(31, None), "a smaller budget asks nothing and forgets nothing"


def test_fitting_once_resumes_to_the_same_run(tmp_path: Path) -> None:
    config = replace(toy.CONFIG, refit=False)
    path = tmp_path / "a.sqlite"
    for budget in (3, 12, 15, 30):
        r = evolve(toy.ToySpace(), toy.value, toy.RidgePredictor(), budget=budget, config=config, history=path)
    whole = evolve(toy.ToySpace(), toy.value, toy.RidgePredictor(), budget=30, config=config)
    assert sequence(r.history) == sequence(whole.history)


@pytest.mark.parametrize(("change", "field"), [
    ({"seed": 1}, "seed"), ({"config": replace(toy.CONFIG, batch_size=5)}, r"config\.batch_size"),
    ({"predictor": toy.RidgePredictor(alpha=2.0)}, r"predictor\.alpha"), ({"predictor": None}, r"predictor\.alpha"),
    ({"oracle": CallableOracle(toy.value, "other")}, r"oracle\.name"), ({"key": toy.ToySpace().encode}, "key")])
def test_another_run_is_not_continued(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    args: dict[str, Any] = {"oracle": toy.value, "predictor": toy.RidgePredictor(), "seed": 0, "config": toy.CONFIG,
                            "history": tmp_path / "a.sqlite", "budget": 8}
    before = sequence(evolve(toy.ToySpace(), **args).history)
    with pytest.raises(HistoryError, match=f"begun with {field} ="):
        evolve(toy.ToySpace(), **{**args, **change, "budget": 12})
    with pytest.raises(HistoryError, match=r"begun with config\.batch_size = 4, this run has 20"):
        random_search(toy.ToySpace(), toy.value, 12, history=tmp_path / "a.sqlite")
    with History.read(tmp_path / "a.sqlite") as h:
        assert sequence(h) == before


# -- settings ------------------------------------------------------------------------------------------------------

def test_unknown_settings_are_refused_with_the_nearest_name() -> None:
    with pytest.raises(SearchError, match="no setting 'batchsize'; did you mean 'batch_size'"):
        evolve(toy.ToySpace(), toy.value, budget=5, config={"batchsize": 3})
    with pytest.raises(SearchError, match="no setting 'zzz'; it has n_initial"):
        EvolveConfig.from_dict({"zzz": 3})
    with pytest.raises(SearchError, match="no setting 'batchsize'"):
        EvolveConfig.paper("nasbench201", batchsize=1)
    assert EvolveConfig.from_dict({"batch_size": 3}) == EvolveConfig(batch_size=3)


@pytest.mark.parametrize("bad", [{"n_initial": 0}, {"batch_size": 2.5}, {"pool_size": True}, {"crossover_rate": 1.2},
                                 {"explore_rate": -0.1}, {"kappa": float("nan")}, {"maximize": "yes"},
                                 {"random_rate": "0.5"}])
def test_bad_settings_are_named(bad: dict[str, Any]) -> None:
    with pytest.raises(SearchError, match=f"EvolveConfig.{next(iter(bad))} must be"):
        EvolveConfig(**bad)


@pytest.mark.parametrize("budget", [0, -1, 2.5, True, "ten"])
def test_bad_budgets_are_refused(budget: Any) -> None:
    with pytest.raises(SearchError, match="budget must be an integer"):
        evolve(toy.ToySpace(), toy.value, budget=budget)


def test_a_predictor_must_predict() -> None:
    with pytest.raises(SearchError, match="has no predict"):
        evolve(toy.ToySpace(), toy.value, type("P", (), {"fit": lambda s, g, y: s})(), budget=5)

    class Column(toy.PerfectPredictor):
        def predict(self, graphs: Any) -> np.ndarray:
            return super().predict(graphs)[:, None]

    with pytest.raises(SearchError, match=r"scores of shape \(\d+, 1\)"):
        evolve(toy.ToySpace(), toy.value, Column(), budget=50)


def test_the_paper_settings() -> None:
    for name, initial, budget in (("nasbench101", 50, 700), ("nasbench201", 40, 90)):
        c = EvolveConfig.paper(name)
        assert c.n_initial == initial
        assert PAPER_BUDGET[name] == budget
        assert (budget - initial) % c.batch_size == 0
        assert c.refit is False
    assert EvolveConfig.paper("nasbench201-cifar100") == EvolveConfig.paper("nasbench201")
    assert EvolveConfig.paper("nasbench301", batch_size=7).batch_size == 7
    with pytest.raises(SearchError, match="no search on 'toy'"):
        EvolveConfig.paper("toy")


# -- candidates ----------------------------------------------------------------------------------------------------

def test_graphs_are_built_once_and_the_cache_is_bounded() -> None:
    space = toy.ToySpace()
    cache = GraphCache(space, size=3)
    for a in [(0, 0, 0, 0), (0, 0, 0, 1), (0, 0, 0, 0), (0, 0, 0, 2), (0, 0, 0, 3), (0, 0, 0, 0)]:
        cache.graph(a)
        cache.key(a)
    assert space.built == [(0, 0, 0, 0), (0, 0, 0, 1), (0, 0, 0, 2), (0, 0, 0, 3)]
    cache.graph((0, 0, 0, 1))
    assert space.built[-1] == (0, 0, 0, 1), "the least recently used one was forgotten"


def test_a_search_builds_each_graph_once() -> None:
    space = toy.ToySpace()
    evolve(space, toy.value, toy.RidgePredictor(), budget=40, config=toy.CONFIG)
    assert len(space.built) == len(set(space.built))


def test_candidates_are_valid_new_and_different() -> None:
    class Half(toy.ToySpace):
        def is_valid(self, a: toy.Genome) -> bool:
            return a[3] < 2

    space = Half()
    cache = GraphCache(space)
    maker = CandidateMaker(space, cache)
    rng = np.random.default_rng(0)
    taken = {cache.key((2, 2, 2, 1))}
    found = maker.children([(2, 2, 2, 0), (2, 2, 3, 1)], 12, taken, rng, crossover_rate=0.5, max_edits=2)
    assert len(found) == 12
    assert all(space.is_valid(a) for a in found.values())
    assert (2, 2, 2, 1) not in found.values()
    assert found.keys() <= taken
    assert all(cache.key(a) == key for key, a in found.items())
    assert maker.children([], 3, taken, rng, crossover_rate=0.5, max_edits=2) == {}


def test_a_space_without_valid_networks_ends() -> None:
    class Empty(toy.ToySpace):
        def is_valid(self, a: toy.Genome) -> bool:
            return False

    r = evolve(Empty(), toy.value, toy.RidgePredictor(), budget=10)
    assert (r.queries, r.stopped) == (0, "exhausted")
    assert r.best_genome is None


def test_one_edit_children_are_one_edit_away() -> None:
    space = toy.ToySpace()
    maker = CandidateMaker(space, GraphCache(space))
    found = maker.children([(2, 2, 2, 2)], 12, set(), np.random.default_rng(0), crossover_rate=0.0, max_edits=1)
    assert {sum(x != 2 for x in a) for a in found.values()} == {1}
