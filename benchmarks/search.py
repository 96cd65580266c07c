"""The search table: how many queries find a very good network, beside the published settings and blind searches.

    python benchmarks/search.py                                     # every space, seeds 0 to 4 -> results/search.json
    python benchmarks/search.py --space nasbench201 --strategy guided --seeds 20 --name search-201

Strategies: ``guided`` (our settings, CGPredictor), ``label units`` (the same, but predictions in the unit of the labels instead
of normal scores), ``paper settings`` (EvolveConfig.paper, the same predictor, the published number of queries), ``children
only`` (our settings, no predictor) and ``random search``. The encoder was pre-trained without the space; labels come from the
other two families and the search's own queries. One oracle call is one query. NAS-Bench-301 is searched on its live surrogate
and left out where that is not found.

Results are written after every run; a run that is in the file already is not done again (``--fresh`` starts over).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import _record
import numpy as np

from cg.errors import StorageError
from contrastive import load_encoder
from evo_search import evolve, get_space
from evo_search.algorithm1 import PAPER_BUDGET, EvolveConfig, SearchResult, random_search
from evo_search.oracles import Oracle, SurrogateOracle, TableOracle
from evo_search.targets import FAMILIES
from finetune import CGPredictor


@dataclass(frozen=True)
class Task:
    """One space: what to ask how often, and what counts as reached (percent; None: nothing was published)."""

    oracle: Callable[[], Oracle]
    budget: int
    reach: float | None


TASKS = {"nasbench201": Task(lambda: TableOracle("nasbench201"), 90, 94.37),
         "nasbench101": Task(lambda: TableOracle("nasbench101"), 300, 94.2),
         "nasbench301": Task(SurrogateOracle, 150, None)}
STRATEGIES = ("guided", "label units", "paper settings", "children only", "random search")
MARKS = (20, 40, 60, 90, 150, 200, 300, 500, 700)  # numbers of queries after which the summary looks


class LabelUnits:
    """A predictor that offers a search ``predict`` alone."""

    def __init__(self, predictor: CGPredictor) -> None:
        self.fit, self.predict = predictor.fit, predictor.predict


def budget_of(space: str, strategy: str) -> int:
    """Queries of one run."""
    return PAPER_BUDGET.get(space, TASKS[space].budget) if strategy == "paper settings" else TASKS[space].budget


def search(space: str, strategy: str, seed: int, oracle: Oracle, encoder: Any) -> SearchResult:
    """One run."""
    where, budget = get_space(space), budget_of(space, strategy)
    if strategy == "random search":
        return random_search(where, oracle, budget, seed)
    if strategy == "children only":
        return evolve(where, oracle, None, budget=budget, seed=seed)
    predictor: Any = CGPredictor(encoder, [f for f in FAMILIES if f != space], seed)
    if strategy == "label units":
        predictor = LabelUnits(predictor)
    config = EvolveConfig.paper(space) if strategy == "paper settings" else EvolveConfig()
    return evolve(where, oracle, predictor, budget=budget, seed=seed, config=config)


def row(space: str, strategy: str, seed: int, oracle: Oracle, result: SearchResult, seconds: float) -> dict[str, Any]:
    """What is kept of one run; ``best_so_far`` holds the queries (from 1) after which the best rose, and to what."""
    curve, reach = result.curve, TASKS[space].reach
    rises = np.flatnonzero(np.diff(curve, prepend=-np.inf) > 0)
    reached = np.flatnonzero(curve >= reach) if reach is not None else np.zeros(0, int)
    return {"space": space, "strategy": strategy, "seed": seed, "queries": result.queries, "best_value": result.best_value,
            "optimum": getattr(oracle, "best_possible", None), "best": result.best_encoded,
            "queries_to_reach": int(reached[0]) + 1 if len(reached) else None, "seconds": round(seconds, 1),
            "best_so_far": {int(i) + 1: round(float(curve[i]), 5) for i in rises}}


def summarize(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line per space and strategy, over its seeds."""
    out = []
    for space, task in TASKS.items():
        for strategy in STRATEGIES:
            mine = [r for r in rows if (r["space"], r["strategy"]) == (space, strategy)]
            if not mine:
                continue
            best = np.array([r["best_value"] for r in mine])
            needed = [r["queries_to_reach"] for r in mine if r["queries_to_reach"] is not None]
            budget = min(r["queries"] for r in mine)
            after = {n: round(float(np.mean([max(v for q, v in r["best_so_far"].items() if int(q) <= n) for r in mine])), 4)
                     for n in MARKS if n <= budget}
            out.append({"space": space, "strategy": strategy, "seeds": len(mine), "queries": budget, "reach": task.reach,
                        "reached": len(needed) if task.reach is not None else None,
                        "queries_to_reach": sorted(needed), "best_mean": round(float(best.mean()), 4),
                        "best_std": round(float(best.std(ddof=1)), 4) if len(best) > 1 else None,
                        "best_worst": float(best.min()), "best_best": float(best.max()), "mean_best_after": after,
                        "seconds_mean": round(float(np.mean([r["seconds"] for r in mine])), 1)})
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--space", choices=tuple(TASKS), action="append")
    parser.add_argument("--strategy", choices=STRATEGIES, action="append")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--name", default="search")
    parser.add_argument("--fresh", action="store_true")
    args = parser.parse_args()
    file = _record.RESULTS / f"{args.name}.json"
    rows: list[dict[str, Any]] = []
    if file.exists() and not args.fresh:
        rows = json.loads(file.read_text())["rows"]
    done = {(r["space"], r["strategy"], r["seed"]) for r in rows}
    for space in args.space or TASKS:
        try:
            oracle = TASKS[space].oracle()
        except StorageError as error:
            print(f"{space}: left out, {error}", file=sys.stderr)
            continue
        encoder = load_encoder(f"default-without-{space}")
        for strategy in args.strategy or STRATEGIES:
            for seed in range(args.seeds):
                if (space, strategy, seed) in done:
                    continue
                began = time.perf_counter()
                result = search(space, strategy, seed, oracle, encoder)
                rows.append(row(space, strategy, seed, oracle, result, time.perf_counter() - began))
                settings = {"default": asdict(EvolveConfig()), "paper": {s: asdict(EvolveConfig.paper(s)) for s in TASKS}}
                _record.write(args.name, {"oracles": {s: TASKS[s].oracle().describe() for s in {r["space"] for r in rows}},
                                          "settings": settings, "summary": summarize(rows), "rows": rows})
                print(f"{space:12} {strategy:14} seed {seed}: {result.best_value:.4f} after {result.queries} queries, reached "
                      f"after {rows[-1]['queries_to_reach']}, {rows[-1]['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
