"""Fronts of accuracy and latency on Once-for-All, from few queries, beside fronts from 20,000.

    python benchmarks/search_fronts.py                                  # -> results/search_fronts.json, about 3 hours of a core
    python benchmarks/search_fronts.py --part band --seeds 2 --name fronts-trial

``reference``  20,000 random networks, and NSGA-II with 20,000 queries, for each of three devices.
``front``      MobileNetV3 of width 1.2 at 192, 208 and 224 pixels: ``cg`` (50 random networks first), NSGA-II and random
               networks, 300 queries, for each device.
``band``       ProxylessNAS of width 1.3 at 224 pixels as in Figure 8 of Neural Predictor (arXiv 1912.00848): 119 random
               networks, a fit, 137 more along the predicted front of accuracy and latency, latency being known; 256 random
               networks; and ``cg`` with 256 queries.

Accuracy (ImageNet top-1, percent) and latency (ms, batch 1, of a 2990WX, a 2080 Ti and a Kirin 9000) are those of the AutoBuild
surrogates. Rows hold fronts as ``[latency, top-1]``; hypervolumes are computed from them when the tables are made. A row is
kept in ``runs/<name>.jsonl`` as soon as it is there, so a run that was killed goes on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from typing import Any

from _parts import Kept, Row, run

from evo_search import Strategy, Study, get_strategy
from evo_search.ofa import AutoBuildOracle, AutoBuildValues
from evo_search.spaces.ofa import OFAMobileNetV3Wide, OFAProxylessNAS
from evo_search.strategies.neural_predictor import NeuralPredictorConfig
from evo_search.strategies.nsga2 import NSGA2Config
from evo_search.strategies.ours import CGConfig
from finetune import CGPredictor

DEVICES = ("latency_cpu", "latency_gpu", "latency_npu")
REFERENCE, QUERIES, LABELS = 20_000, 300, 50
BAND_DEVICE, N, K, J = "latency_cpu", 119, 137, 6
KEYS = {"reference": ("device", "strategy"), "front": ("device", "strategy"), "band": ("device", "strategy")}
REFERENCE_POPULATION = 200
# of some twenty settings looked at with seeds 100 and 101
FRONT = CGConfig(n_initial=LABELS, rounds=12, pool_size=200, n_parents=40, breed_rate=0.0, learn_share=0.75)
VIEW = "graph+native"


def mobilenet() -> Any:
    """The space of ``reference`` and ``front``."""
    return OFAMobileNetV3Wide(resolutions=AutoBuildOracle.resolutions)


def proxyless() -> Any:
    """The space of ``band``."""
    return OFAProxylessNAS(resolutions=(224,))


@cache
def values(genomes: str, device: str) -> AutoBuildValues:
    """Top-1 and one latency."""
    return AutoBuildValues(genomes, ("top1", device))


def neural_predictor(space: Any, device: str) -> Strategy:
    """Its soft front, with the latency that the surrogate says."""
    latency = AutoBuildOracle(space.genomes, device)

    def cost(graph: Any) -> float:
        return latency(space.decode(graph.name))

    return get_strategy("neural-predictor", settings=NeuralPredictorConfig(N, K, soft_pareto=J), cost=cost)


def strategy(part: str, name: str, space: Any, device: str) -> Strategy:
    """A strategy as its part has it."""
    if name == "cg":
        settings = FRONT if part == "front" else replace(FRONT, n_initial=N)
        return get_strategy(name, predictor=CGPredictor(fast=True), view=VIEW, settings=settings)
    if name == "nsga2":
        return get_strategy(name, settings=NSGA2Config(REFERENCE_POPULATION) if part == "reference" else None)
    return neural_predictor(space, device) if name == "neural-predictor" else get_strategy(name)


PARTS: dict[str, tuple[Any, tuple[str, ...], tuple[str, ...], int]] = {  # space, devices, strategies, queries
    "reference": (mobilenet, DEVICES, ("random", "nsga2"), REFERENCE),
    "front": (mobilenet, DEVICES, ("random", "nsga2", "cg"), QUERIES),
    "band": (proxyless, (BAND_DEVICE,), ("random", "neural-predictor", "cg"), N + K),
}


def rows(part: str, seeds: int, kept: Kept) -> Iterator[Row]:
    """One row for each device, strategy and seed; of ``reference`` one seed."""
    make, devices, strategies, queries = PARTS[part]
    for seed in range(1 if part == "reference" else seeds):
        for device in devices:
            for name in strategies:
                row: Row = {"part": part, "device": device, "strategy": name, "seed": seed}
                if kept(row):
                    continue
                space, began = make(), time.process_time()
                study = Study(space, strategy(part, name, space, device), objectives={"top1": "max", device: "min"}, seed=seed)
                study.run(values(space.genomes, device), queries)
                front = sorted([round(q.values[device], 5), round(q.values["top1"], 5)] for q in study.front())
                yield {**row, "queries": len(study), "cpu_seconds": time.process_time() - began, "front": front}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", action="append", choices=tuple(PARTS), help="several times for several; else all")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--name", default="search_fronts")
    args = parser.parse_args()
    settings = {"queries": QUERIES, "labels": LABELS, "reference": REFERENCE, "population": REFERENCE_POPULATION,
                "band": {"n": N, "k": K, "j": J, "device": BAND_DEVICE}}
    run(args.name, settings, KEYS, {part: partial(rows, part, args.seeds) for part in args.part or PARTS})


if __name__ == "__main__":
    main()
