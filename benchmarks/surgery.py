"""NAS-Bench-201 as *A Surgery of the Neural Architecture Evaluators* asks of predictors (Ning et al., arXiv 2008.03064).

    python benchmarks/surgery.py                                    # both parts, 5 seeds -> results/surgery.json
    python benchmarks/surgery.py --part labels --predictor gates-hinge --labels 39,78 --seeds 2 --name trial

``labels``: each predictor learns 39, 78, 390 or 781 labels and ranks all 15,625 architectures. ``stages``: 390 labels are
collected in five stages of 78, the first drawn at random, each later one the best by score among those not labelled yet.
Nothing is trained but predictors: labels are CIFAR-10 test accuracies after 200 epochs, in percent, from the table.

Criteria are computed on three sets: ``all``, the 15,625 with the labelled ones among them, as the authors' released code does;
``new``, without the labelled ones and those isomorphic to one of them; ``valid``, those of ``new`` that have a path from input
to output. GATES and LSTM read cells without what computes nothing (``cg.cells.pruned``), as that code does with ``none``; the
padded encodings of MLP and forest need every operation in its place. The 341 without a path are cells of one class of
isomorphism; as they have no graph, predictors that read graphs learn from and are tested on the rest, where they score one
graph of each of the 5,931 classes. K of P@K and BR@K is the integer part of a share of the set.

FLOPs are the multiply-adds of all six operations, those on no path included, as the benchmark counts: 28 values. A row is kept
in ``runs/<name>.jsonl`` as soon as it is there, so a run that was killed goes on; delete the file after a change of code.

How the paper draws its stages, groups and pairs is not known here (its code and README are: walkerning/aw_nas), so stages and
groups are our reading of it, and the hinge loss takes all pairs of a mini-batch.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from operator import itemgetter
from typing import Any

import _record
import numpy as np
import torch

from cg.cells import pruned
from cg.files import plain
from cg.row_file import RowFile
from evo_search import get_space, tables
from evo_search.rivals import RIVALS
from finetune import baselines, metrics

FIRST_SEED, LABELS, STAGE_LABELS, STAGES = 1000, (39, 78, 390, 781), (390,), 5
SHARES, SETS, N_GROUPS = (0.001, 0.01, 0.05), ("all", "new", "valid"), 5
# A third of the default, for time: on two other draws 200 change tau by less than 0.01 at 39 and 78 labels and add 0.01 at 390.
MLP_EPOCHS = 60
KEY = ("part", "predictor", "n_labels", "seed")
Row = dict[str, Any]
Scores = tuple[np.ndarray, float, float]  # [n], NaN where there is none; processor seconds to fit and to predict


class Space:
    """All architectures of NAS-Bench-201, in the order of the table."""

    def __init__(self) -> None:
        space, table = get_space("nasbench201"), tables.load("nasbench201")
        genomes = [space.decode(table.encoded(i)) for i in range(table.n)]
        self.n, self.y, self.params = table.n, table.metrics["test_acc"], table.metrics["params"]
        self.valid = np.array([space.is_valid(a) for a in genomes])
        self.cells = [space.cell(a) for a in genomes]
        self.pruned = [pruned(c) for c in self.cells]
        self.native = np.stack([space.native(a) for a in genomes])
        self.graphs = [space.to_graph(a) if ok else None for a, ok in zip(genomes, self.valid, strict=True)]
        digests = [g.digest if g else "" for g in self.graphs]
        self.isomorphic = np.unique(digests, return_inverse=True)[1]
        only = [space.to_graph((0, 0, 0, op, 0, 0)).macs if op else 0 for op in range(5)]  # one operation, input to output
        cost = np.array([0] + [v - only[1] for v in only[1:]])  # skip_connect costs nothing
        self.macs = only[1] + cost[np.array(genomes)].sum(1)
        self.groups = metrics.complexity_groups(self.macs, N_GROUPS)

    def draw(self, n: int, seed: int) -> np.ndarray:
        """``n`` random rows; those of a smaller ``n`` and the same seed are among them."""
        return np.random.default_rng(seed).permutation(self.n)[:n]

    def new(self, labelled: np.ndarray) -> np.ndarray:
        """Mask of the architectures that are isomorphic to no labelled one."""
        return ~np.isin(self.isomorphic, self.isomorphic[labelled])


# ---- predictors ----------------------------------------------------------------------------------------------------


def _score(values: str) -> Callable[[Space, np.ndarray, int], Scores]:
    return lambda space, labelled, seed: (np.asarray(getattr(space, values), np.float64), 0.0, 0.0)


def _random(space: Space, labelled: np.ndarray, seed: int) -> Scores:
    return np.random.default_rng([seed, len(labelled)]).random(space.n), 0.0, 0.0


def _learned(view: str, make: Callable[[int], Any]) -> Callable[[Space, np.ndarray, int], Scores]:
    def scores(space: Space, labelled: np.ndarray, seed: int) -> Scores:
        items, model = getattr(space, view), make(seed)
        rows, same, learn = np.arange(space.n), np.arange(space.n), labelled
        if view == "graphs":  # one of each class is scored: equal graphs have equal scores
            _, first, inverse = np.unique(space.isomorphic, return_index=True, return_inverse=True)
            same, learn = first[inverse], labelled[space.valid[labelled]]
            rows = first[space.valid[first]]
        t0 = time.process_time()
        model.fit([items[i] for i in learn], space.y[learn])
        t1 = time.process_time()
        found = np.full(space.n, np.nan)
        found[rows] = model.predict([items[i] for i in rows])
        return found[same], t1 - t0, time.process_time() - t1

    return scores


def _net(name: str, loss: str, view: str, **settings: Any) -> Callable[[Space, np.ndarray, int], Scores]:
    return _learned(view, lambda seed: getattr(baselines, name)(loss=loss, random_state=seed, **settings))


def _rival(name: str, view: str) -> Callable[[Space, np.ndarray, int], Scores]:
    return _learned(view, lambda seed: RIVALS[name].make(seed, "nasbench201"))


PREDICTORS: dict[str, Callable[[Space, np.ndarray, int], Scores]] = {
    "random": _random, "macs": _score("macs"), "params": _score("params"),
    "trees": _rival("trees", "graphs"), "native-ridge": _rival("native-ridge", "native"),
    "random-forest": _rival("random-forest", "cells"),
    **{f"{short}-{loss}": _net(name, loss, "pruned") for short, name in (("gates", "GATES"), ("lstm", "LSTMPredictor"))
       for loss in ("hinge", "regression")},
    **{f"mlp-{loss}": _net("MLPPredictor", loss, "cells", epochs=MLP_EPOCHS) for loss in ("hinge", "regression")},
    "default": _rival("default", "graphs"),
}
STAGED = ("random", "native-ridge", "random-forest", "gates-hinge", "lstm-hinge", "mlp-hinge", "default")


# ---- what is measured ----------------------------------------------------------------------------------------------


def criteria(y: np.ndarray, p: np.ndarray) -> dict[str, float]:
    """Rank correlations, P@K and BR@K (the latter a share of the networks)."""
    found = {"kendall": metrics.kendall(y, p), "spearman": metrics.spearman(y, p)}
    for share in SHARES:
        k = max(1, int(share * len(y)))
        found |= {f"p@{share:g}": metrics.precision_at_k(y, p, k), f"br@{share:g}": metrics.best_ranking_at_k(y, p, k)}
    return found


def judge(space: Space, labelled: np.ndarray, p: np.ndarray) -> Row:
    """All criteria of scores ``[n]`` after ``labelled`` was learned from."""
    new = space.new(labelled)
    sets = dict(zip(SETS, (np.ones(space.n, bool), new, new & space.valid), strict=True))
    found: Row = {}
    for name, inside in sets.items():
        if name == "valid" or np.isfinite(p).all():  # the same sets for every draw
            found[name] = {"n": int(inside.sum()), **criteria(space.y[inside], p[inside])}
    inside = sets["valid"]
    y, q, n = space.y[inside], p[inside], int(inside.sum())
    found["valid"]["kendall_equal_macs"] = metrics.within_group_kendall(y, q, space.macs[inside])
    found["groups"] = [{"group": g.number, "n": g.size, "kendall": g.kendall, "rank_difference": g.rank_difference / n,
                        "absolute_rank_difference": g.absolute_rank_difference / n}
                       for g in metrics.by_group(y, q, space.groups[inside])]
    return found


def by_labels(space: Space, predictor: str, n_labels: int, seed: int) -> Row:
    """One fit on random labels."""
    labelled = space.draw(n_labels, seed)
    p, fit_s, predict_s = PREDICTORS[predictor](space, labelled, seed)
    return {"fit_s": fit_s, "predict_s": predict_s, **judge(space, labelled, p)}


def pick(space: Space, labelled: np.ndarray, p: np.ndarray, n: int) -> np.ndarray:
    """``n`` best rows by score, none isomorphic to a labelled one or to another of them; without a score comes last."""
    open_rows = np.flatnonzero(space.new(labelled))
    order = open_rows[np.argsort(-np.where(np.isnan(p[open_rows]), -np.inf, p[open_rows]), kind="stable")]
    first = np.sort(np.unique(space.isomorphic[order], return_index=True)[1])
    return order[first[:n]]


def by_stages(space: Space, predictor: str, n_labels: int, seed: int) -> Row:
    """Labels collected in five stages; criteria after each, the full set after the last."""
    ends = [round(n_labels * (k + 1) / STAGES) for k in range(STAGES)]
    labelled, stages, fit_s, predict_s = space.draw(ends[0], seed), [], 0.0, 0.0
    found: Row = {}
    for k, end in enumerate(ends):
        p, fit, predict = PREDICTORS[predictor](space, labelled, seed)
        fit_s, predict_s, best = fit_s + fit, predict_s + predict, float(space.y[labelled].max())
        found = judge(space, labelled, p)
        stages.append({"n_labels": end, "best_accuracy": best, "best_rank": float((space.y > best).sum() + 1),
                       "mean_accuracy": float(space.y[labelled[ends[k - 1]:] if k else labelled].mean()),
                       "kendall": found["valid"]["kendall"]})
        if k + 1 < STAGES:
            labelled = np.concatenate([labelled, pick(space, labelled, p, ends[k + 1] - end)])
    return {"fit_s": fit_s, "predict_s": predict_s, **found, "stages": stages}


PARTS: dict[str, tuple[Callable[[Space, str, int, int], Row], tuple[str, ...], tuple[int, ...]]] = {
    "labels": (by_labels, tuple(PREDICTORS), LABELS), "stages": (by_stages, STAGED, STAGE_LABELS)}


# ---- rows ----------------------------------------------------------------------------------------------------------


def summarize(rows: list[Row]) -> list[Row]:
    """Mean and standard deviation (n - 1) over the seeds, one entry a part, predictor and label count, same nesting."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for r in rows:
        groups.setdefault((r["part"], r["predictor"], r["n_labels"]), []).append(r)
    return [{"part": part, "predictor": name, "n_labels": n, "seeds": len(members),
             **_mean([{k: v for k, v in m.items() if k not in ("part", "predictor", "n_labels", "seed")} for m in members])}
            for (part, name, n), members in groups.items()]


def _mean(values: list[Any]) -> Any:
    first = next((v for v in values if v is not None), None)
    if isinstance(first, dict):
        return {k: _mean([v[k] for v in values]) for k in first}
    if isinstance(first, list):
        return [_mean(list(v)) for v in zip(*values, strict=True)]
    numbers = np.array([v for v in values if v is not None], np.float64)
    if not len(numbers):
        return None
    return [float(numbers.mean()), float(numbers.std(ddof=1)) if len(numbers) > 1 else 0.0]


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _short(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_short(v) for v in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=tuple(PARTS), action="append")
    parser.add_argument("--predictor", choices=tuple(PREDICTORS), action="append")
    parser.add_argument("--labels", help="label counts, joined by commas; default: those of the part")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--name", default="surgery")
    args = parser.parse_args()
    torch.set_num_threads(1)
    space, began, rows = Space(), time.perf_counter(), []
    store = RowFile(_record.ROOT / "runs" / f"{args.name}.jsonl", itemgetter(*KEY), "this benchmark; use another --name")
    for part in args.part or PARTS:
        measure, predictors, counts = PARTS[part]
        for n in [int(v) for v in args.labels.split(",")] if args.labels else counts:
            for name in args.predictor or predictors:
                for seed in range(args.first_seed, args.first_seed + args.seeds):
                    head = dict(zip(KEY, (part, name, n, seed), strict=True))
                    rows.append(store.get(head) or store.add(_short(plain(head | measure(space, name, n, seed)))))
                line = summarize(rows[-args.seeds:])[0]
                tau = line["valid"]["kendall"]
                print(f"{part} {n:4} {name:16} tau {tau[0]:.3f} ± {tau[1]:.3f}  P@5% {line['valid']['p@0.05'][0]:.3f}  fit "
                      f"{line['fit_s'][0]:.1f} s  {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    config = {"labels": LABELS, "stage_labels": STAGE_LABELS, "stages": STAGES, "seeds": args.seeds,
              "first_seed": args.first_seed, "shares": SHARES, "mlp_epochs": MLP_EPOCHS,
              "networks": space.n, "valid": int(space.valid.sum()),
              "metric": "CIFAR-10 test accuracy after 200 epochs, percent"}
    _record.write(args.name, {"config": config, "summary": _short(summarize(rows)), "rows": rows})


if __name__ == "__main__":
    main()
