"""Every strategy on four spaces: the best value found against the number of networks asked about, 20 seeds.

    python benchmarks/search.py                                     # everything -> results/search.json, 2.5 hours of a core
    python benchmarks/search.py --task nasbench201 --strategy cg --strategy random --seeds 5 --name trial

Tasks: NAS-Bench-101 and -201 by their tables (CIFAR-10 test accuracy, mean of the benchmark's runs: a search sees what the
published ones see of validation), NAS-Bench-301 by its live surrogate, and Once-for-All MobileNetV3 of width 1.2 at 192, 208
and 224 pixels by the AutoBuild surrogate of top-1. What guides a search was pre-trained and taught on the other benchmarks
only. ``algorithm1, published`` is the search of arXiv 2302.10835 (``EvolveConfig.paper``; on Once-for-All, of which the paper
gives no settings, those of NAS-Bench-101): its predictor is fitted once, on the random networks it begins with. ``evolution``
is the same without a predictor. ``algorithm1, label units`` predicts in the unit of the labels instead of normal scores, and
``algorithm1, breed_rate 0`` asks only about what the predictor chose. Once-for-All has two references of 20,000 queries.

One query is one network that nobody asked about before, isomorphic ones being one. Once-for-All and NAS-Bench-301 need files
that are not shipped and are left out where these are not found. A row is kept in ``runs/<name>.jsonl`` as soon as it is there,
so a run that was killed goes on.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from _parts import Kept, Row, run

from cg.errors import CGError
from evo_search import Strategy, Study, get_space, get_strategy
from evo_search._evolve_config import EvolveConfig
from evo_search.ofa import AutoBuildOracle
from evo_search.oracles import SurrogateOracle, TableOracle
from evo_search.rivals import choose
from evo_search.spaces.ofa import OFAMobileNetV3Wide
from evo_search.strategies.ours import CGConfig

OFA, REFERENCE, REFERENCE_SEEDS = "ofa-mbv3-w12", 20_000, 3
LABELS = 50  # random networks that a predictor for Once-for-All begins with
LARGE = {"n_initial": 200, "batch_size": 200, "n_parents": 50}  # evolution of 20,000 queries


@dataclass(frozen=True)
class Task:
    """One space: its oracle, and the queries of a run, of strategies that cost next to nothing and of the others."""

    oracle: Callable[[], Any]
    cheap: int
    dear: int

    @staticmethod
    def space(name: str) -> Any:
        """The search space; Once-for-All with the resolutions that its oracle knows."""
        return OFAMobileNetV3Wide(resolutions=AutoBuildOracle.resolutions) if name == OFA else get_space(name)


TASKS = {"nasbench201": Task(lambda: TableOracle("nasbench201"), 300, 100),
         "nasbench101": Task(lambda: TableOracle("nasbench101"), 700, 150),
         "nasbench301": Task(SurrogateOracle, 800, 200),
         OFA: Task(lambda: AutoBuildOracle("mbv3"), 300, 300)}
CHEAP = ("random", "aging", "local", "reinforce", "nsga2", "evolution")
DEAR = ("cg", "algorithm1", "algorithm1, published", "neural-predictor", "npenas", "brp")
VARIANTS = {"nasbench201": ("algorithm1, label units",), "nasbench101": ("algorithm1, breed_rate 0",)}
REFERENCES = ("random, 20,000 queries", "evolution, 20,000 queries")


def strategy(task: str, name: str) -> Strategy:
    """A strategy as the task has it; settings are the strategies' own where nothing is said here."""
    published = EvolveConfig.paper(task if task != OFA else "nasbench101")
    if name in ("evolution", "algorithm1, published"):
        settings = published if task != OFA else replace(published, batch_size=10)
        return get_strategy("algorithm1", predictor=default(task) if name != "evolution" else None, settings=settings)
    if name == REFERENCES[1]:
        return get_strategy("algorithm1", predictor=None, settings=EvolveConfig(**LARGE))
    if name.startswith("algorithm1"):
        settings = replace(EvolveConfig(), n_initial=LABELS if task == OFA else EvolveConfig().n_initial)
        if name == "algorithm1, breed_rate 0":
            settings = replace(settings, breed_rate=0.0)
        predictor = LabelUnits(default(task)) if name == "algorithm1, label units" else default(task)
        return get_strategy("algorithm1", predictor=predictor, settings=settings)
    if name == "cg":
        return get_strategy(name, settings=CGConfig(n_initial=LABELS) if task == OFA else CGConfig())
    return get_strategy(name.split(",")[0])


class LabelUnits:
    """A predictor that offers a search ``predict`` alone."""

    def __init__(self, predictor: Any) -> None:
        self.fit, self.predict = predictor.fit, predictor.predict


def default(task: str) -> Any:
    """``CGPredictor`` that has seen nothing of the space's own family."""
    return choose("default")[0].make(0, Task.space(task).family)


def budget(task: str, name: str) -> int:
    """Queries of one run."""
    if name in REFERENCES:
        return REFERENCE
    return TASKS[task].cheap if name in (*CHEAP, "algorithm1, published") else TASKS[task].dear


def runs(task: str, names: tuple[str, ...], seeds: int, kept: Kept) -> Iterator[Row]:
    """Rows of one task; ``best_so_far``: the queries (from 1) after which the best rose, and to what."""
    try:
        oracle = TASKS[task].oracle()
    except CGError as error:
        print(f"{task} is left out: {error}", file=sys.stderr)
        return
    for name in names:
        for seed in range(min(seeds, REFERENCE_SEEDS) if name in REFERENCES else seeds):
            row: Row = {"part": task, "strategy": name, "seed": seed}
            if kept(row):
                continue
            began = time.process_time()
            study = Study(Task.space(task), strategy(task, name), seed=seed)
            study.run(oracle, budget(task, name))
            curve, best = study.curve(), study.best()
            rises = np.flatnonzero(np.diff(curve, prepend=-np.inf) > 0)
            yield {**row, "queries": len(study), "best_value": float(curve[-1]), "cpu_seconds": time.process_time() - began,
                   "optimum": getattr(oracle, "best_possible", None), "best": best.genome if best else None,
                   "best_so_far": [[int(i) + 1, round(float(curve[i]), 5)] for i in rises]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=tuple(TASKS), action="append", help="several times for several; else all")
    parser.add_argument("--strategy", choices=(*CHEAP, *DEAR, *sum(VARIANTS.values(), ()), *REFERENCES), action="append")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--name", default="search")
    args = parser.parse_args()
    parts = {}
    for task in args.task or TASKS:
        names = tuple(args.strategy or (*CHEAP, *(REFERENCES if task == OFA else ()), *DEAR, *VARIANTS.get(task, ())))
        parts[task] = partial(runs, task, names, args.seeds)
    run(args.name, {"tasks": {t: {"cheap": k.cheap, "dear": k.dear} for t, k in TASKS.items()}, "reference": REFERENCE,
                    "labels": LABELS, "large": LARGE}, dict.fromkeys(TASKS, ("strategy",)), parts)


if __name__ == "__main__":
    main()
