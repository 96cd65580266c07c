"""Pre-train every shipped encoder: two configurations x (all three benchmarks, or all but one).

    python benchmarks/pretrain_encoders.py                     # everything, into contrastive/encoders/
    python benchmarks/pretrain_encoders.py --config paper --without nasbench201

An encoder called ``<config>-without-<family>`` has never seen a graph of that family. Only graphs are used, no labels.
Interrupt and run again: each encoder resumes. Speed, seed and data hash end up in the encoder's config.json.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from cg import GraphSet
from contrastive import EncoderConfig, pretrain
from evo_search import get_space, tables

FAMILIES = ("nasbench101", "nasbench201", "nasbench301")
ROOT = Path(__file__).resolve().parents[1]


def unlabelled(family: str, n: int, seed: int) -> GraphSet:
    """``n`` networks of the shipped table without their labels, drawn without repetition; valid ones only."""
    space, table = get_space(family), tables.load(family)
    graphs = []
    for row in np.random.default_rng(seed).permutation(table.n):
        a = space.decode(table.encoded(int(row)))
        if space.is_valid(a):
            graphs.append(space.to_graph(a))
        if len(graphs) == n:
            break
    return GraphSet(graphs, provenance={"table": family, "seed": seed})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", choices=("default", "paper"), action="append")
    parser.add_argument("--without", choices=(*FAMILIES, "none"), action="append")
    parser.add_argument("--graphs", type=int, default=12_000, help="graphs per family")
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, default=ROOT / "contrastive" / "encoders")
    args = parser.parse_args()
    sets = {f: unlabelled(f, args.graphs, args.seed) for f in FAMILIES}
    for config in args.config or ("default", "paper"):
        for without in args.without or ("nasbench201", "nasbench101", "nasbench301", "none"):
            name = config if without == "none" else f"{config}-without-{without}"
            began = time.perf_counter()
            total = args.steps or EncoderConfig.named(config).steps

            def report(step: int, steps: int, loss: float, name: str = name, began: float = began) -> None:
                if step % 50 == 0 or step == steps:
                    print(f"{name}: step {step}/{steps} loss {loss:.4f} {time.perf_counter() - began:.0f} s", flush=True)

            pretrain([sets[f] for f in FAMILIES if f != without], args.out / name, config, steps=total, seed=args.seed,
                     progress=report, log_dir=ROOT / "runs" / name)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
