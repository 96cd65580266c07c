"""BRP-NAS (Dudziak et al., arXiv 2007.08668) on NAS-Bench-201, shown as its paper shows it, in four parts.

    python benchmarks/brp.py                                    # all parts, about 45 minutes on one core
    python benchmarks/brp.py --part relation --seeds 1 --name brp-check --width 64 --epochs 50

``transfer``   (Table 2) a regression of accuracy that starts from a predictor of latency or of multiply-adds, trained on 900
               other networks, one such predictor for each seed; 50, 100, 200 accuracies; Spearman on 2,000 networks.
``relation``   (section 4) the binary relation with soft and hard labels, in both orders, beside plain regression.
``iterative``  (Figure 5) best network after 25 to 150 trainings: rounds of selection, one round, random networks.
``oracle``     (S1.3) the best network under a latency limit where accuracy is known and latency is predicted.

Latencies: HELP (HayeonLee/HELP, from HW-NAS-Bench). Networks are fewer units wide than in the paper (200, not 600) where that
is not said otherwise. A row is kept in ``runs/<name>.jsonl`` as soon as it is there, so a run that was killed goes on; rows and
their summary go to ``results/<name>.json``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from _brp_data import CHEAP, FILE, Data, OnRows, Remembering, Row, at, measured
from _parts import Kept, run

from evo_search.comparison import FIRST_SEED
from evo_search.iterative import iterative_selection
from finetune.baselines import BRPBinaryRelation, BRPLatencyGCN, FlopsLatency, LayerwiseLatency
from finetune.metrics import kendall, spearman
from finetune.protocol import draw

LABELS, PRETRAINING, N_TEST = (50, 100, 200), 900, 2000
SOURCE_DEVICE = "1080ti_1"
DEVICES, LIMITS, LATENCIES = ("gold_6240", "1080ti_1", "raspi4"), (0.1, 0.25, 0.5, 0.75), 100
BUDGET, LEARN, MARKS = 150, 100, (25, 50, 75, 100, 125, 150)
# name -> (iterations, queries that they share, alpha)
STRATEGIES = {"random": (1, BUDGET, 0.5), "one round of 25": (1, 25, 0.5), "one round of 50": (1, 50, 0.5),
              "1 iteration": (1, LEARN, 0.5), "5 iterations": (5, LEARN, 0.5), "10 iterations": (10, LEARN, 0.5),
              "5 iterations, alpha 0": (5, LEARN, 0.0)}
# Half as many steps for what is trained often or long. Tried on CIFAR-100 labels only, where the relation ranks as well.
QUICK = {"batch": 32, "learning_rate": 7e-4}
ACCURACY = {"dropout": 0.2, "learning_rate": 3.5e-4}  # acc_gcn_nasbench201.yaml of the authors, for plain regression
# what tells rows of a part apart, beside their seed
KEYS = {"transfer": ("method", "width", "labels"), "relation": ("method", "width", "labels"),
        "iterative": ("predictor", "method"), "oracle": ("device", "limit", "method", "width")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", action="append", choices=tuple(KEYS), help="several times for several; else all")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--search-seeds", type=int, default=10, help="of iterative with the binary relation; others have twice")
    parser.add_argument("--epochs", type=int, default=250)
    parser.add_argument("--width", type=int, default=200)
    parser.add_argument("--wide", type=int, default=600, help="second width in transfer")
    parser.add_argument("--wide-seeds", type=int, default=1)
    parser.add_argument("--name", default="brp")
    args = parser.parse_args()
    if not FILE.exists():
        parser.error(f"no latencies at {FILE}; set CGTRANSFER_SHARED to the folder of the public data")
    config = {k: getattr(args, k) for k in ("epochs", "width", "wide")} | {"labels": LABELS, "pretraining": PRETRAINING}
    config |= {"source": SOURCE_DEVICE, "latencies": LATENCIES, "quick": QUICK, "accuracy": ACCURACY, "strategies": STRATEGIES}
    data = Data()
    run(args.name, config, KEYS, {part: partial(PARTS[part], data, args) for part in args.part or KEYS})


def transfer(data: Data, args: argparse.Namespace, kept: Kept) -> Iterator[Row]:
    """``method`` none, latency or macs: what the convolutions learned first."""
    y = data.pool.label("test_acc")
    for width, seeds, sources in ((args.width, args.seeds, ("none", "latency", "macs", "native-gp", "random-forest")),
                                  (args.wide, args.wide_seeds, ("none", "latency"))):
        for seed in range(FIRST_SEED, FIRST_SEED + seeds):
            labelled, test = draw(data.pool, max(LABELS) + PRETRAINING, seed, N_TEST)
            before = labelled[max(LABELS):]
            for source in sources:
                heads = [{"part": "transfer", "method": source, "width": width if source in ("none", "latency", "macs") else 0,
                          "labels": n, "seed": seed} for n in LABELS]
                if all(kept(h) for h in heads):
                    continue
                first, about = None, dict[str, Any]()
                if source in ("latency", "macs"):
                    values = data.latency[SOURCE_DEVICE] if source == "latency" else data.macs / 1e6
                    began = time.process_time()
                    first = BRPLatencyGCN(width=width, epochs=args.epochs, random_state=seed, **QUICK)
                    first.fit(at(data.cells, before), values[before])
                    about = {"pretraining_s": time.process_time() - began,
                             "pretraining_spearman": spearman(values[test], first.predict(at(data.cells, test)))}
                for head in heads:
                    rows = labelled[:head["labels"]]
                    if source in CHEAP:
                        model, view = CHEAP[source](seed), data.native if source == "native-gp" else data.cells
                    else:
                        model, view = BRPLatencyGCN(width=width, epochs=args.epochs, pretrained=first, random_state=seed,
                                                    **ACCURACY), data.cells
                    yield head | measured(model, view, y, rows, test) | about


def relation(data: Data, args: argparse.Namespace, kept: Kept) -> Iterator[Row]:
    """``method`` soft, hard or regression, and both orders of the first two."""
    y, width = data.pool.label("test_acc"), args.width
    for seed in range(FIRST_SEED, FIRST_SEED + args.seeds):
        for n in LABELS[:2]:
            labelled, test = draw(data.pool, n, seed, N_TEST)
            for name in ("soft", "hard", "regression", *CHEAP):
                head = {"part": "relation", "method": name, "width": 0 if name in CHEAP else width, "labels": n, "seed": seed}
                if kept(head):
                    continue
                view: Any = data.native if name == "native-gp" else data.cells
                if name in CHEAP:
                    model = CHEAP[name](seed)
                elif name == "regression":
                    model = BRPLatencyGCN(width=width, epochs=args.epochs, random_state=seed, **ACCURACY)
                else:
                    model = BRPBinaryRelation(width=width, epochs=args.epochs, soft=name == "soft", random_state=seed)
                row = head | measured(model, view, y, labelled, test)
                if isinstance(model, BRPBinaryRelation):
                    seen = at(data.cells, test)
                    places = model.set_params(order="sort").predict(seen)
                    row |= {"spearman_sort": spearman(y[test], places), "kendall_sort": kendall(y[test], places),
                            "antisymmetry": model.antisymmetry(seen)}
                yield row


def iterative(data: Data, args: argparse.Namespace, kept: Kept) -> Iterator[Row]:
    """Search among one network of each kind, by validation accuracy; the test accuracy is that of the best so far.

    ``reached``, ``queries_to_best``: whether the network with the best validation accuracy of all was found, and when.
    """
    rows, test = data.distinct, data.pool.label("test_acc")
    value = data.validation[rows]
    views: dict[str, Callable[[], tuple[Any, Any]]] = {
        "native-gp": lambda: (CHEAP["native-gp"](0), data.native), "default": lambda: (Remembering.of(data), data.graphs),
        "random-forest": lambda: (CHEAP["random-forest"](0), data.cells),
        "brp": lambda: (BRPBinaryRelation(width=args.width, epochs=args.epochs, **QUICK), data.cells)}
    for predictor, opened in views.items():
        jobs = [{"part": "iterative", "method": name, "predictor": "none" if name == "random" else predictor, "seed": seed}
                for seed in range(args.search_seeds if predictor == "brp" else 2 * args.search_seeds) for name in STRATEGIES
                if predictor in ("native-gp", "default") or name != "5 iterations, alpha 0"]
        jobs = [h for h in jobs if not kept(h) and (h["method"] != "random" or predictor == "default")]
        if not jobs:
            continue
        base, view = opened()
        items = at(view, rows)
        for head in jobs:
            iterations, learn, alpha = STRATEGIES[head["method"]]
            began = time.process_time()
            found = iterative_selection(range(len(rows)), lambda i: value[i], lambda base=base, items=items, seed=head["seed"]:
                                        OnRows(base, items, seed), budget=BUDGET, learn=learn, iterations=iterations,
                                        alpha=alpha, rng=FIRST_SEED + head["seed"])
            best = [found.order[np.nanargmax(found.values[:m])] for m in MARKS]
            at_best = np.flatnonzero(found.values == value.max()) + 1
            yield head | {"networks": len(rows), "seconds": time.process_time() - began, "reached": float(len(at_best) > 0),
                          "queries_to_best": int(at_best[0]) if len(at_best) else None} | {
                f"validation_{m}": value[b] for m, b in zip(MARKS, best, strict=True)} | {
                f"test_{m}": test[rows[b]] for m, b in zip(MARKS, best, strict=True)}


def oracle(data: Data, args: argparse.Namespace, kept: Kept) -> Iterator[Row]:
    """All networks but the labelled ones, by true accuracy; ``limit`` is a quantile of the measured latencies.

    ``chosen``: the best network that is predicted to keep the limit. ``found``: the best that is and does, which takes
    ``tries`` measurements. Shares of false positives and negatives are of all networks.
    """
    accuracy = data.pool.label("test_acc")
    for seed in range(FIRST_SEED, FIRST_SEED + args.seeds):
        labelled, _ = draw(data.pool, LATENCIES, seed, 2)
        rest = np.setdiff1d(np.arange(len(data.pool)), labelled)
        rest = rest[np.argsort(-accuracy[rest], kind="stable")]
        for device in DEVICES:
            ms = data.latency[device]
            for name, (make, cells) in _latency_methods(args, seed).items():
                heads = [{"part": "oracle", "method": name, "device": device, "limit": q, "seed": seed,
                          "width": args.width if name.startswith("BRP") else 0} for q in LIMITS]
                if all(kept(h) for h in heads):
                    continue
                view: Any = data.cells if cells else data.graphs
                predicted = make().fit(at(view, labelled), ms[labelled]).predict(at(view, rest))
                for head in heads:
                    limit = float(np.quantile(ms, head["limit"]))
                    said, true = predicted <= limit, ms[rest] <= limit
                    both = np.flatnonzero(said & true)
                    row = {"limit_ms": limit, "best": float(accuracy[rest[true]].max()), "feasible": float(true.mean()),
                           "false_positives": float((said & ~true).mean()), "false_negatives": float((~said & true).mean()),
                           "answered": float(len(both) > 0), "tries": int(said[:both[0] + 1].sum()) if len(both) else None,
                           "found": float(accuracy[rest[both[0]]]) if len(both) else None}
                    if said.any():
                        first = rest[np.flatnonzero(said)[0]]
                        row |= {"chosen": float(accuracy[first]), "chosen_over_limit": float(ms[first] / limit - 1)}
                    yield head | row


def _latency_methods(args: argparse.Namespace, seed: int) -> dict[str, tuple[Callable[[], Any], bool]]:
    """Name -> (maker, reads cells). "all": sees all six operations of a cell, also those that no signal passes."""
    def gcn(prune: bool) -> Callable[[], Any]:
        return lambda: BRPLatencyGCN(width=args.width, epochs=args.epochs, prune=prune, random_state=seed)

    return {"BRPLatencyGCN": (gcn(True), True), "BRPLatencyGCN-all": (gcn(False), True),
            "LayerwiseLatency": (lambda: LayerwiseLatency(missing=0.0), False),
            "LayerwiseLatency-all": (LayerwiseLatency, True), "FlopsLatency": (FlopsLatency, False)}


PARTS: dict[str, Callable[[Data, argparse.Namespace, Kept], Iterator[Row]]] = {
    "transfer": transfer, "relation": relation, "iterative": iterative, "oracle": oracle}


if __name__ == "__main__":
    main()
