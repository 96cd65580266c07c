"""Ask and tell: what a study hands out and takes back, and the strategies that have no predictor."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_search_space as toy
import toy_study
from toy_study import SlowOracle, open_study, random_study, sequence

from evo_search._evolve_config import SearchError
from evo_search.history import History, HistoryError
from evo_search.objectives import Constraint
from evo_search.strategies import Proposal, State, Strategy, get_strategy, list_strategies
from evo_search.strategies.random import RandomConfig, RandomSearch
from evo_search.study import Study

ROOT = Path(__file__).parents[2]
SPACE = toy.ToySpace()


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
