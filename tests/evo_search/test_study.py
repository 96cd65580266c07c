"""Ask and tell: what a study hands out and takes back, constraints and fronts against brute force, workers, kills."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_search_space as toy
import toy_study
from toy_study import SlowOracle, open_study, sequence

import cg
from evo_search._evolve_config import SearchError
from evo_search.history import History, HistoryError
from evo_search.objectives import Constraint, front_numbers, hypervolume, non_dominated
from evo_search.strategies import Proposal, State, Strategy, get_strategy, list_strategies
from evo_search.strategies.algorithm1 import Algorithm1
from evo_search.strategies.random import RandomConfig, RandomSearch
from evo_search.study import Study, Trial

ROOT = Path(__file__).parents[2]
SPACE = toy.ToySpace()


def random_study(batch: int = 5, **arguments: Any) -> Study:
    return Study(toy.ToySpace(), RandomSearch(RandomConfig(batch)), **arguments)


@cache
def graph_of(a: toy.Genome) -> cg.Graph:
    return SPACE.to_graph(a)


@cache
def everything() -> dict[str, toy.Genome]:
    """One genome of every network of the space, by identity."""
    return {cg.fingerprint(graph_of(a)): a for a in itertools.product(range(5), repeat=4)}  # type: ignore[misc]


# -- ask and tell --------------------------------------------------------------------------------------------------

def test_a_loop_by_hand_is_the_run(tmp_path: Path) -> None:
    by_hand = random_study(seed=4, history=tmp_path / "a.sqlite")
    while len(by_hand) < 20:
        for trial in by_hand.ask():
            by_hand.tell(trial, toy.value(trial.genome))
    run = random_study(seed=4)
    assert run.run(toy.value, 20) == "budget"
    assert sequence(by_hand) == sequence(run)
    by_hand.close()


def test_each_network_is_handed_out_once() -> None:
    study = random_study()
    first, rest = study.ask(2), study.ask()
    assert [t.step for t in first + rest] == [0, 1, 2, 3, 4]
    assert study.ask() == study.ask(1) == []
    assert study.pending == first + rest
    study.tell(rest[1], -1.0)
    assert study.ask() == []
    for trial in study.pending:
        study.tell(trial, 0.0)
    assert [t.generation for t in study.ask()] == [1] * 5, "the next generation, once all of the last one is told"
    assert [q.step for q in study.history.queries] == [0, 1, 2, 3, 4]
    with pytest.raises(HistoryError, match="recorded already"):
        study.tell(first[0], 1.0)
    with pytest.raises(SearchError, match="n must be"):
        study.ask(0)


def test_what_was_handed_out_and_lost_is_handed_out_again(tmp_path: Path) -> None:
    with random_study(history=tmp_path / "a.sqlite") as study:
        trials = study.ask()
        study.tell(trials[3], 1.0)
    with random_study(history=tmp_path / "a.sqlite") as study:
        assert study.ask() == [trials[i] for i in (0, 1, 2, 4)]


@pytest.mark.parametrize(("told", "error"), [
    ({"acc": 1.0}, "the oracle gave no 'ms'; it gave acc"), ({}, "the oracle gave no 'acc'; it gave nothing"),
    ({"acc": 1.0, "ms": float("nan")}, "the oracle returned nan for 'ms'"), ({"acc": "much", "ms": 1.0}, "wanted numbers"),
    ({"acc": None, "ms": 1.0}, "wanted numbers")])
def test_an_answer_that_lacks_what_is_needed_is_a_failure(told: Any, error: str) -> None:
    study = random_study(objectives=("acc",), constraints=[Constraint("ms", at_most=2.0)])
    query = study.tell(study.ask(1)[0], told)
    assert query.status == "failed"
    assert error in query.error
    assert study.best() is None
    assert len(study) == 1


def test_a_lone_number_needs_a_lone_name() -> None:
    study = random_study(objectives=("acc", "ms"))
    with pytest.raises(SearchError, match=r"values by name \(acc, ms\), got 1.0"):
        study.tell(study.ask(1)[0], 1.0)
    assert len(study) == 0


def test_other_values_are_kept(tmp_path: Path) -> None:
    study = random_study(objectives={"acc": "max"})
    query = study.tell(study.ask(1)[0], {"acc": 0.5, "loss": 2, "nothing": float("nan")})
    assert dict(query.values) == {"acc": 0.5, "loss": 2.0}


def test_failures_bring_their_log_and_the_search_goes_on() -> None:
    study = open_study("random")
    study.run(SlowOracle(), 60)
    failed = [q for q in study.history.queries if q.status == "failed"]
    sums = {q.step: sum(SPACE.decode(q.genome)) for q in study.history.queries}
    assert [q.step for q in failed] == [step for step, s in sums.items() if s % 7 == 0 or s % 11 == 0]
    assert {q.error for q in failed} == {"EvaluationFailed: out of memory", "the oracle returned nan"}
    assert all((q.log == f"epoch 1 of {SPACE.decode(q.genome)}") == ("memory" in q.error) for q in failed)
    trial = study.ask(1)[0]
    assert study.fail(trial, "killed", "the log").log == "the log"


def test_a_history_of_another_study_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    begun: dict[str, Any] = {"history": path, "objectives": ("acc",), "constraints": [Constraint("macs", at_most=5.0)]}
    changes: list[tuple[dict[str, Any], str]] = [
        ({"objectives": {"acc": "min"}}, r"objectives\.acc"), ({"batch": 6}, r"config\.batch_size"), ({"seed": 1}, "seed"),
        ({"constraints": [Constraint("macs", at_most=6.0)]}, r"constraints\.0\.at_most")]
    random_study(**begun).close()
    for change, field in changes:
        with pytest.raises(HistoryError, match=f"begun with {field} ="):
            random_study(**{**begun, **change})
    random_study(history=path, name="another", seed=1).close()


@pytest.mark.parametrize(("arguments", "text"), [
    ({"objectives": {"acc": "largest"}}, "'max' or 'min', got 'largest'"), ({"objectives": ()}, "at least one"),
    ({"objectives": ("a", 3)}, "3 must be a name")])
def test_bad_objectives_are_named(arguments: Any, text: str) -> None:
    with pytest.raises(SearchError, match=text):
        random_study(**arguments)


@pytest.mark.parametrize(("of", "bounds", "text"), [
    ("ms", {}, "needs at_most or at_least"), ("ms", {"at_most": float("nan")}, "finite"), ("ms", {"at_least": True}, "finite"),
    ("", {"at_most": 1.0}, "must be a name"), (3, {"at_most": 1.0}, "must be a name")])
def test_bad_constraints_are_named(of: Any, bounds: Any, text: str) -> None:
    with pytest.raises(SearchError, match=text):
        Constraint(of, **bounds)


@pytest.mark.parametrize(("budget", "workers"), [(0, 1), (1.5, 1), (True, 1), (5, 0), (5, "two")])
def test_bad_runs_are_refused(budget: Any, workers: Any) -> None:
    with pytest.raises(SearchError, match="must be an integer of at least 1"):
        random_study().run(toy.value, budget, workers)


# -- constraints and objectives against brute force -----------------------------------------------------------------

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


# -- strategies ----------------------------------------------------------------------------------------------------

def test_strategies_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    import evo_search._registry as registry

    assert list_strategies() == ["aging", "algorithm1", "brp", "cg", "local", "neural-predictor", "npenas", "nsga2", "random",
                                 "reinforce"]
    assert all(get_strategy(name).name == name for name in list_strategies())
    with pytest.raises(SearchError, match=r"no strategy 'randon' \(did you mean 'random'\?\)"):
        get_strategy("randon")
    entries = {"mine": "evo_search.strategies.random:RandomSearch", "broken": "no.such:Thing", "wrong": "builtins:dict"}
    monkeypatch.setattr(registry, "entry_points", lambda group: [
        EntryPoint(name, value, group) for name, value in entries.items() if group == "cg.strategies"])
    assert isinstance(get_strategy("mine", settings=RandomConfig(3)), RandomSearch)
    assert "mine" in list_strategies()
    for name, text in (("broken", "cannot be loaded"), ("wrong", "gives a dict, not a Strategy")):
        with pytest.raises(SearchError, match=text):
            get_strategy(name)


def test_known_and_invalid_proposals_are_dropped() -> None:
    class Stubborn(Strategy):
        """Proposes one network twice, an invalid one and an asked one; half of the time something new."""

        name = "stubborn"
        calls = 0

        def propose(self, state: State, rng: np.random.Generator) -> list[Proposal]:
            type(self).calls += 1
            new = SPACE.sample(rng) if rng.random() < 0.5 else (1, 2, 0, 0)
            return [Proposal(a, "x") for a in ((1, 2, 0, 0), (2, 1, 0, 0), (9, 9, 9, 9), new)]

    study = Study(toy.ToySpace(), Stubborn())
    assert [t.genome for t in study.ask()] == [(1, 2, 0, 0)]
    study.tell(study.pending[0], 0.0)
    assert study.run(toy.value, 5) == "budget"
    assert Stubborn.calls > 6

    class Silent(Strategy):
        name = "silent"

        def propose(self, state: State, rng: np.random.Generator) -> list[Proposal]:
            return [Proposal((0, 0, 0, 0), "x")]

    study = Study(toy.ToySpace(), Silent())
    assert study.run(toy.value, 5) == "exhausted"
    assert len(study) == 1


@pytest.mark.parametrize("strategy", ["local", "aging"])
def test_walks_beat_random_search_on_average(strategy: str) -> None:
    def mean(make: Any) -> float:
        found = []
        for seed in range(8):
            study = Study(toy.ToySpace(), make(), seed=seed)
            study.run(toy.value, 60)
            found.append(study.curve()[-1])
        return float(np.mean(found))

    assert mean(toy_study.STRATEGIES[strategy]) > mean(RandomSearch)


def test_local_search_walks_from_the_best_and_starts_again() -> None:
    study = open_study("local")
    study.run(lambda a: {"acc": toy.value(a)}, 100)
    generations = [[q for q in study.history.queries if q.generation == g] for g in range(study.history.queries[-1].generation)]
    walk: list[Any] = []
    restarts = 0
    for queries in generations:
        if queries[0].source == "start":
            if walk:
                best = max(walk, key=lambda q: (q.value, -q.step))
                assert sum(q.generation > best.generation for q in walk) == 10, "patience"
                restarts += 1
            walk = list(queries)
            continue
        best = SPACE.decode(max(walk, key=lambda q: (q.value, -q.step)).genome)
        for q in queries:
            assert q.source == "neighbour"
            twin = (best[1], best[0], *best[2:])
            assert 1 in [sum(x != y for x, y in zip(SPACE.decode(q.genome), a, strict=True)) for a in (best, twin)]
        walk += queries
    assert restarts > 1


def test_aging_evolution_forgets_the_oldest() -> None:
    study = open_study("aging")
    study.run(SlowOracle(), 80)
    ok: list[Any] = []
    for q in study.history.queries:
        if q.source == "child":
            before = [p for p in ok if p.generation < q.generation][-12:]
            near = [sum(x != y for x, y in zip(SPACE.decode(q.genome), SPACE.decode(p.genome), strict=True)) for p in before]
            assert 1 in near, "a child of one of the twelve youngest"
        if q.value is not None:
            ok.append(q)
    assert {q.source for q in ok[:12]} == {"initial"}
    assert sum(q.source == "child" for q in ok) > 30


def test_the_examples_of_the_documentation_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    pytest.importorskip("pymoo")
    text = (ROOT / "docs/search.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        exec(compile(block, "docs/search.md", "exec", dont_inherit=True), {"__name__": "example"})
    printed = capsys.readouterr().out.splitlines()
    assert float(printed[-2]) > 0, "the hypervolume"
    best, last = printed[-1].split()
    assert best == last
    with History.read("run.sqlite") as h:
        assert len(h) == 60


# -- workers -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("strategy", sorted(toy_study.STRATEGIES))
def test_four_workers_ask_what_one_asks(strategy: str) -> None:
    one, four = open_study(strategy), open_study(strategy)
    arrived: list[int] = []
    one.run(SlowOracle(), 50)
    four.run(SlowOracle(0.002), 50, 4, lambda query, best: arrived.append(query.step))
    assert sequence(one) == sequence(four)
    assert sorted(arrived) == list(range(50))
    if strategy != "aging":  # with its small batches the order may be kept by chance
        assert arrived != list(range(50))


def test_workers_really_work_at_the_same_time() -> None:
    barrier = threading.Barrier(3, timeout=20)

    def oracle(a: toy.Genome) -> float:
        barrier.wait()
        return toy.value(a)

    study = random_study(6)
    study.run(oracle, 6, 3)
    assert all(q.status == "ok" for q in study.history.queries)


def test_an_interrupt_of_a_worker_ends_the_run(tmp_path: Path) -> None:
    def oracle(a: toy.Genome) -> float:
        if a[3] == 2:
            raise KeyboardInterrupt
        return toy.value(a)

    with random_study(20, history=tmp_path / "a.sqlite") as study, pytest.raises(KeyboardInterrupt):
        study.run(oracle, 20, 3)
    with History.read(tmp_path / "a.sqlite") as h:
        assert len(h) < 20
        assert all(q.status == "ok" for q in h.queries)
        assert len(h) + len(h.pending) == 20


def test_threads_may_ask_and_tell(tmp_path: Path) -> None:
    study = random_study(8, history=tmp_path / "a.sqlite")
    told: list[Trial] = []

    def work() -> None:
        while len(told) < 40:
            for trial in study.ask(1):
                study.tell(trial, toy.value(trial.genome))
                told.append(trial)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len({t.step for t in told}) == len(told) == len(study) >= 40
    alone = random_study(8)
    alone.run(toy.value, len(told))
    assert sequence(study) == sequence(alone)
    study.close()


# -- kill -9 -------------------------------------------------------------------------------------------------------

def kill_at(moment: float, arguments: list[str]) -> set[int]:
    """Run ``toy_study`` and kill it ``moment`` seconds after its first answer; the steps that it had printed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, toy_study.__file__, *arguments], env=environment, stdout=subprocess.PIPE,
                          text=True) as run:
        assert run.stdout is not None
        lines = [run.stdout.readline()]
        time.sleep(moment)
        run.send_signal(signal.SIGKILL)
        lines += run.stdout.readlines()
    return {int(line) for line in lines if line.endswith("\n") and line.strip().isdigit()}


def kills(moments: list[float], where: str, strategy: str, workers: int, budget: int) -> None:
    """Kill a run at every moment, one after the other, then let it finish: nothing is lost, and the run is the same."""
    arguments = [where, "killed", strategy, str(workers), str(budget), str(0.004 * workers)]
    answered: dict[int, tuple[Any, ...]] = {}
    unfinished = 0
    for moment in moments:
        printed = kill_at(moment, arguments)
        with History.read(where, "killed") as h:
            now = {q.step: (q.genome, q.value, q.wall_s) for q in h.queries}
        assert printed <= now.keys(), "what was said to be answered is on disk"
        assert {step: now[step] for step in answered} == answered, "what was answered once is never asked again"
        answered = now
        unfinished += len(now) < budget
    assert unfinished >= len(moments) / 2, "the kills came too late to say anything"
    with open_study(strategy, where, "killed") as study:
        study.run(SlowOracle(), budget, workers)
        whole = open_study(strategy)
        whole.run(SlowOracle(), budget)
        assert sequence(study) == sequence(whole)


def moments(n: int, seed: int) -> list[float]:
    return np.random.default_rng(seed).uniform(0, 0.25, n).tolist()


@pytest.mark.parametrize(("strategy", "workers", "n"), [("algorithm1", 1, 3), ("random", 4, 2)])
def test_kills_at_random_moments(tmp_path: Path, strategy: str, workers: int, n: int) -> None:
    kills(moments(n, workers), str(tmp_path / "a.sqlite"), strategy, workers, 150)


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "workers"), [("algorithm1", 1), ("algorithm1", 4), ("random", 1), ("local", 4),
                                                   ("aging", 1)])
def test_kills_at_fifty_random_moments(tmp_path: Path, strategy: str, workers: int) -> None:
    kills(moments(10, 10 + workers), str(tmp_path / "a.sqlite"), strategy, workers, 300)
