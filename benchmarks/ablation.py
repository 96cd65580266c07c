"""What each group of statistics is worth: the ranking without it, and with it alone.

    python benchmarks/ablation.py                    # -> results/ablation.json, about 15 minutes of a core

Targets and test networks of ``transfer.py``, 50 labels, no sources. ``without``: the group's columns count nothing; ``alone``:
no other column does, nor do sums over operators. Groups are those of docs/statistics.md, and ``operators``, the sums.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from _parts import Kept, Row, run
from transfer import SEED, networks, targets

from cg.global_statistics import GROUPS
from finetune import CGPredictor, predictor, views
from finetune.metrics import spearman
from finetune.protocol import draw

LABELS, DRAWS, TESTED = 50, 5, 1000
NAMES, SUMS = tuple(dict.fromkeys(map(str, GROUPS))), "operators"


@contextmanager
def columns(used: np.ndarray, sums: bool) -> Iterator[None]:
    """Only these columns ``[F]`` of the statistics count, and sums over operators or not."""
    whole, least = dict(views.COLUMN_WEIGHTS), predictor.SUM_LABELS
    views.COLUMN_WEIGHTS.update({view: weights * used for view, weights in whole.items()})
    predictor.SUM_LABELS = least if sums else LABELS + 1
    try:
        yield
    finally:
        views.COLUMN_WEIGHTS.update(whole)
        predictor.SUM_LABELS = least


def ablation(kept: Kept) -> Iterator[Row]:
    group = np.asarray(GROUPS)
    cases = [("all", "", np.ones(len(group), bool), True)]
    for n in (*NAMES, SUMS):
        cases += [("without", n, group != n, n != SUMS), ("alone", n, group == n, n == SUMS)]
    for seed, target, (how, name, used, sums) in itertools.product(range(SEED, SEED + DRAWS), targets(), cases):
        row: Row = {"part": "ablation", "target": target, "how": how, "group": name, "seed": seed}
        if kept(row):
            continue
        data, y, _ = networks(target)
        known, test = draw(data, LABELS, seed, TESTED)
        with columns(used, sums):
            model = CGPredictor(None, ()).fit([data.graphs[i] for i in known], y[known])
            scores = model.predict_normal([data.graphs[i] for i in test])[0]
        yield {**row, "columns": int(used.sum()), "rho": spearman(y[test], scores) if np.ptp(scores) else 0.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", default="ablation")
    args = parser.parse_args()
    run(args.name, {"labels": LABELS, "draws": DRAWS, "tested": TESTED}, {"ablation": ("target", "how", "group")},
        {"ablation": ablation})


if __name__ == "__main__":
    main()
