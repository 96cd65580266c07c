"""Latency prediction on NAS-Bench-201 (Table 1 and S2 of BRP-NAS): share of unseen networks within 1, 5 and 10 % of the
measured latency, for 900 and 100 training networks, beside a sum over layers and a line in multiply-adds.

    python benchmarks/latency.py                                             # all devices, 5 seeds -> results/latency.json
    python benchmarks/latency.py --space ofa-mbv3 --device titan_rtx_1 --device v100_1
    python benchmarks/latency.py --device gold_6240 --seeds 1 --labels 100 --epochs 20 --name latency-check

Latencies: HELP (HayeonLee/HELP, from HW-NAS-Bench), 27 devices and batch sizes, the 15,284 networks in which a signal arrives;
and with ``--space ofa-mbv3`` 5,000 networks of Once-for-All MobileNetV3 on four devices with three batch sizes, named
``ofa-mbv3/<device>``, in which every operation counts. The paper measured six devices of its own, so figures compare in kind,
not device by device. Every network that is not among the first 1,000 of a seed's order is tested, as there. Rows are written
one by one, and those in the file are not run again.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import _record
import numpy as np

from cg import GraphSet
from evo_search import get_space
from evo_search.ofa import SubNet
from evo_search.oracles import shared_folder
from finetune import CGPredictor
from finetune.baselines import BRPLatencyGCN, FlopsLatency, LayerwiseLatency
from finetune.metrics import spearman, within_error_bound

BOUNDS = (0.01, 0.05, 0.1)
HELD_BACK = 1000  # training and validation networks of the paper
# On cells, "all" means all six operations of a cell, also those that no signal passes: HELP's networks ran them. Rows without
# it see the network that is left without them, as published.
# ``CGPredictor`` reads graphs, which have nothing that no signal passes; ``CGPredictor-devices`` has the other makes of devices
# as sources, with the latencies there of 500 of the networks that are held back.
ALONE = ("BRPLatencyGCN", "BRPLatencyGCN-all", "LayerwiseLatency", "LayerwiseLatency-all", "FlopsLatency", "CGPredictor")
METHODS = {900: ALONE, 100: ALONE, 10: ("LayerwiseLatency", "LayerwiseLatency-all", "CGPredictor", "CGPredictor-devices")}
GRAPHS = ("LayerwiseLatency", "FlopsLatency", "CGPredictor")  # that read Once-for-All, for 100 and 900 labels
REFERENCES = 500
KEY = ("device", "labels", "seed", "method", "epochs", "width")
FOLDER = shared_folder() / "data" / "latency"
FILES = {"nasbench201": "nb201_help_latency.csv.gz", "ofa-mbv3": "ofa_mbv3_help_latency.csv.gz"}


def read(space_name: str) -> tuple[list[Any], list[Any], list[dict[str, str]], list[str]]:
    """Cells and graphs of the networks in which a signal arrives, their rows of the table, and its devices."""
    with gzip.open(FOLDER / FILES[space_name], "rt", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    space = get_space(space_name)
    if space_name == "nasbench201":
        genomes = [space.decode(row["arch_str"]) for row in table]
    else:
        genomes = [SubNet.parse(",".join(row[k] for k in ("ks", "e", "d", "r"))) for row in table]
    valid = [i for i, a in enumerate(genomes) if not space.why_invalid(a)]
    devices = [c for c in table[0] if c not in ("index", "arch_str", "ks", "e", "d", "r")]
    return ([space.cell(genomes[i]) for i in valid], [space.to_graph(genomes[i]) for i in valid], [table[i] for i in valid],
            devices)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--space", choices=tuple(FILES), default="nasbench201")
    parser.add_argument("--device", action="append", help="column of the table; several times for several; else all")
    parser.add_argument("--method", action="append", choices=sorted(set(sum(METHODS.values(), ()))))
    parser.add_argument("--labels", type=int, action="append", help="else 900, 100 and 10")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=250)
    parser.add_argument("--width", type=int, default=600)
    parser.add_argument("--name", default="latency")
    args = parser.parse_args()
    if not (FOLDER / FILES[args.space]).exists():
        parser.error(f"no latencies at {FOLDER / FILES[args.space]}; set CGTRANSFER_SHARED to the folder of the public data")
    cells, graphs, table, columns = read(args.space)
    prefix = "" if args.space == "nasbench201" else f"{args.space}/"
    devices = args.device or columns
    unknown = sorted(set(devices) - set(columns))
    if unknown:
        parser.error(f"no device {unknown[0]!r}; there are {', '.join(columns)}")
    rows = previous(args.name)
    done = {tuple(r[k] for k in KEY) for r in rows}
    for seed in range(args.seeds):  # every device with one seed first: a stopped run has whole columns
        order = np.random.default_rng(1000 + seed).permutation(len(table))
        for device in devices:
            y, title = np.array([float(row[device]) for row in table]), prefix + device
            for labels in args.labels or (METHODS if not prefix else (100, 900)):
                for method in args.method or (METHODS.get(labels, ALONE) if not prefix else GRAPHS):
                    gcn = method.startswith("BRP")
                    about = dict(zip(KEY, (title, labels, seed, method, args.epochs * gcn, args.width * gcn), strict=True))
                    if tuple(about.values()) in done:
                        continue
                    began = time.perf_counter()
                    if method == "CGPredictor-devices":
                        held = order[HELD_BACK - REFERENCES:HELD_BACK]
                        model: Any = CGPredictor(None, [
                            GraphSet([graphs[i] for i in held], [str(i) for i in held],
                                     {c: np.array([float(table[i][c]) for i in held])})
                            for c in columns if make_of(c) != make_of(device)])
                    else:
                        model = makers(args.epochs, args.width, seed)[method]()
                    networks: list[Any] = cells if gcn or method == "LayerwiseLatency-all" else graphs
                    model.fit([networks[i] for i in order[:labels]], y[order[:labels]])
                    fit_s = time.perf_counter() - began
                    test = order[max(HELD_BACK, labels):]
                    p = model.predict([networks[i] for i in test])
                    rows.append(about | {f"within_{round(100 * b)}": within_error_bound(y[test], p, b) for b in BOUNDS} | {
                        "spearman": spearman(y[test], p), "tested": len(test), "fit_s": fit_s,
                        "predict_s": time.perf_counter() - began - fit_s})
                    r = rows[-1]
                    print(f"{title:14} {labels:4} labels, seed {seed}, {method:20} within 1 / 5 / 10 %: {r['within_1']:.3f} "
                          f"{r['within_5']:.3f} {r['within_10']:.3f}  {fit_s:.0f} s", file=sys.stderr, flush=True)
                    _record.write(args.name, {"summary": summary(rows), "rows": rows})
    for line in summary(rows):
        print(f"{line['device']:14} {line['labels']:4} {line['method']:20} "
              + "  ".join(f"±{k.split('_')[1]} %: {line[k]:.3f} ± {line[k + '_std']:.3f}" for k in shares()))


def makers(epochs: int, width: int, seed: int) -> dict[str, Callable[[], Any]]:
    def gcn(prune: bool) -> Callable[[], Any]:
        return lambda: BRPLatencyGCN(width=width, epochs=epochs, prune=prune, random_state=seed)

    return {"BRPLatencyGCN": gcn(True), "BRPLatencyGCN-all": gcn(False), "LayerwiseLatency-all": LayerwiseLatency,
            "LayerwiseLatency": lambda: LayerwiseLatency(missing=0.0), "FlopsLatency": FlopsLatency,
            "CGPredictor": lambda: CGPredictor(None, ())}


def make_of(device: str) -> str:
    """``titan`` of ``titan_rtx_32``, ``titanx_1`` and ``titanxp_1``: columns of one make differ by batch size or model."""
    make = device.partition("_")[0]
    return "titan" if make.startswith("titan") else make.rstrip("0123456789")


def shares() -> list[str]:
    return [f"within_{round(100 * b)}" for b in BOUNDS]


def previous(name: str) -> list[dict[str, Any]]:
    """Rows of an earlier run."""
    path = _record.RESULTS / f"{name}.json"
    return json.loads(path.read_text())["rows"] if path.exists() else []


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and deviation over seeds, by device and over all of them (device "all")."""
    measured = (*shares(), "spearman", "fit_s", "predict_s")
    found: dict[tuple[Any, ...], dict[int, list[list[float]]]] = {}
    for r in rows:
        for device in (r["device"], "all"):
            seeds = found.setdefault((device, r["labels"], r["method"], r["epochs"], r["width"]), {})
            seeds.setdefault(r["seed"], []).append([r[k] for k in measured])
    out = []
    for key, seeds in sorted(found.items()):
        means = np.array([np.mean(lines, axis=0) for lines in seeds.values()])
        line: dict[str, Any] = dict(zip([k for k in KEY if k != "seed"], key, strict=True)) | {"seeds": len(seeds)}
        for column, mean, std in zip(measured, means.mean(0), means.std(0), strict=True):
            line[column], line[f"{column}_std"] = float(mean), float(std)
        out.append(line)
    return out


if __name__ == "__main__":
    main()
