"""A program that runs a study on the toy space, in a file or database that survives it; used by the tests of the study.

    python toy_study.py WHERE NAME STRATEGY WORKERS BUDGET [SECONDS OF ONE EVALUATION]

Every answered step is printed, so that whoever kills the program knows how far it came. Not a test itself.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import toy_search_space as toy

from evo_search.oracles import EvaluationFailed
from evo_search.strategies import Strategy
from evo_search.strategies.aging import AgingConfig, AgingEvolution
from evo_search.strategies.algorithm1 import Algorithm1
from evo_search.strategies.local_search import LocalConfig, LocalSearch
from evo_search.strategies.random import RandomConfig, RandomSearch
from evo_search.study import Study

STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "algorithm1": lambda: Algorithm1(toy.RidgePredictor(), toy.CONFIG),
    "random": lambda: RandomSearch(RandomConfig(7)),
    "local": lambda: LocalSearch(LocalConfig(4, 5, 10)),
    "aging": lambda: AgingEvolution(AgingConfig(12, 4, 3)),
}
OBJECTIVES = {"acc": "max"}


class SlowOracle:
    """Accuracy and size by name; some evaluations fail, some give NaN. Takes its time."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def __call__(self, genome: toy.Genome) -> dict[str, float]:
        time.sleep(self.seconds * (1 + sum(genome) % 3))  # unequal, so that answers come out of order
        if sum(genome) % 7 == 0:
            raise EvaluationFailed("out of memory", log=f"epoch 1 of {genome}")
        return {"acc": toy.value(genome) if sum(genome) % 11 else float("nan"), "size": float(sum(genome))}

    def describe(self) -> dict[str, Any]:
        return {"kind": "slow"}


def sequence(study: Study) -> list[tuple[Any, ...]]:
    """Everything about a run but the clock."""
    return [(q.step, q.generation, q.genome, q.key, q.value, dict(q.values), q.source, q.error, q.log, q.parents,
             dict(q.predicted))
            for q in study.history.queries]


def open_study(strategy: str, where: Any = None, name: str = "search") -> Study:
    """The study that the tests compare."""
    return Study(toy.ToySpace(), STRATEGIES[strategy](), objectives=OBJECTIVES, seed=3, history=where, name=name)


def random_study(batch: int = 5, **arguments: Any) -> Study:
    """A study by random search."""
    return Study(toy.ToySpace(), RandomSearch(RandomConfig(batch)), **arguments)


def main(where: str, name: str, strategy: str, workers: str, budget: str, seconds: str = "0") -> None:
    with open_study(strategy, where, name) as study:
        study.run(SlowOracle(float(seconds)), int(budget), int(workers), lambda query, best: print(query.step, flush=True))
    print("finished", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
