"""Can scores be trusted: do 90 % intervals hold what they say, and does novelty tell another family from one's own?

    python benchmarks/trust.py                       # -> results/trust.json, about 10 minutes of a core

``intervals``  targets and draws of ``transfer.py``: share of up to 1,000 unlabelled networks whose label lies within 1.645
               standard deviations of the score (90 % of a normal distribution), in label units, and Spearman rho of the
               standard deviation with the error's size. With the shipped sources of other families.
``novelty``    novelty (``CGPredictor.novelty``) of 200 networks of every family, seen from labels of each: 5th, 50th, 95th
               percentile, and the share that ``doubts`` calls far.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator

import numpy as np
from _parts import Kept, Row, run
from transfer import SEED, networks, sources_of, targets

from finetune import CGPredictor
from finetune.explanation import FAR
from finetune.metrics import spearman
from finetune.protocol import draw

LABELS, DRAWS, TESTED, SAMPLE = (10, 20, 50, 100), 10, 1000, 200
KEYS = {"intervals": ("target", "labels"), "novelty": ("target", "labels", "seen")}


def intervals(kept: Kept) -> Iterator[Row]:
    for target, n, seed in itertools.product(targets(), LABELS, range(SEED, SEED + DRAWS)):
        row: Row = {"part": "intervals", "target": target, "labels": n, "seed": seed}
        if kept(row):
            continue
        data, y, _ = networks(target)
        known, test = draw(data, n, seed, TESTED)
        model = CGPredictor(None, sources_of(target)).fit([data.graphs[i] for i in known], y[known])
        mean, std = model.predict([data.graphs[i] for i in test], return_std=True)
        error = np.abs(y[test] - mean)
        yield {**row, "covered": float((error < 1.645 * std).mean()), "rho_of_std": spearman(error, std), "tested": len(test)}


def novelty(kept: Kept) -> Iterator[Row]:
    names = [t for t in targets() if t != "nasbench201-all"]
    for target, n, seed in itertools.product(names, (10, 50), range(SEED, SEED + 5)):
        if all(kept({"part": "novelty", "target": target, "labels": n, "seen": s, "seed": seed}) for s in names):
            continue
        data, y, _ = networks(target)
        known, test = draw(data, n, seed, SAMPLE)
        model = CGPredictor(None, ()).fit([data.graphs[i] for i in known], y[known])
        for seen in names:
            others = networks(seen)[0]
            some = test if seen == target else np.random.default_rng(seed).permutation(len(others))[:SAMPLE]
            found = model.novelty([others.graphs[i] for i in some])
            low, middle, high = np.percentile(found, (5, 50, 95))
            yield {"part": "novelty", "target": target, "labels": n, "seen": seen, "seed": seed, "low": float(low),
                   "median": float(middle), "high": float(high), "far": float((found > FAR).mean())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = {"intervals": intervals, "novelty": novelty}
    parser.add_argument("--part", choices=tuple(parts), action="append", help="several times for several; else all")
    parser.add_argument("--name", default="trust")
    args = parser.parse_args()
    run(args.name, {"labels": LABELS, "draws": DRAWS, "tested": TESTED, "sample": SAMPLE}, KEYS,
        {p: parts[p] for p in args.part or parts})


if __name__ == "__main__":
    main()
