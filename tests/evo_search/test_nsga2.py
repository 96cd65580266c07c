"""NSGA-II on a toy space: a front that is known, its survivors and its children."""

from __future__ import annotations

import numpy as np
import pytest
import toy_search_space as toy
from toy_strategies import Space, start, two

from evo_search._evolve_config import SearchError
from evo_search._records import Query
from evo_search.objectives import Constraint
from evo_search.strategies import State
from evo_search.strategies.nsga2 import NSGA2, NSGA2Config
from evo_search.strategies.random import RandomConfig, RandomSearch

pytest.importorskip("pymoo")


def query(step: int, **values: float) -> Query:
    return Query(step, "", str(step), next(iter(values.values())), "ok", "x", 0.0, values=values)


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
