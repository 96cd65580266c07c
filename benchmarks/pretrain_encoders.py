"""Pre-train every shipped encoder: two configurations x (all families, or all but one benchmark).

    python benchmarks/pretrain_encoders.py                     # everything, into contrastive/encoders/: some 4 hours of a core
    python benchmarks/pretrain_encoders.py --config paper --without nasbench201

An encoder called ``<config>-without-<family>`` has never seen a graph of that family. ``default`` sees all of ``_corpus.py``
and learns, beside what needs no label, the order of those that are labelled; ``paper`` sees the benchmarks' graphs alone, as
published. Interrupt and run again: each encoder resumes. Speed, seed and data hash end up in the encoder's config.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import _record
from _corpus import FAMILIES, corpus, printing

from contrastive import pretrain
from evo_search import targets

WITHOUT = {"nasbench201": ("nasbench201", "nats-size"), "nasbench101": ("nasbench101",), "nasbench301": ("nasbench301",),
           "none": ()}  # NATS-Bench's sizes are NAS-Bench-201's skeleton


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", choices=("default", "paper"), action="append")
    parser.add_argument("--without", choices=tuple(WITHOUT), action="append")
    parser.add_argument("--share", type=float, default=1.0, help="of the corpus")
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, default=_record.ROOT / "contrastive" / "encoders")
    args = parser.parse_args()
    for without in args.without or WITHOUT:
        for config in args.config or ("default", "paper"):
            name = config if without == "none" else f"{config}-without-{without}"
            families = targets.FAMILIES if config == "paper" else tuple(FAMILIES)
            left_out = tuple(f for f in FAMILIES if f not in families or f in WITHOUT[without])
            pretrain(corpus(left_out, args.share), args.out / name, config, steps=args.steps, seed=args.seed,
                     progress=printing(name), log_dir=_record.ROOT / "runs" / name)


if __name__ == "__main__":
    main()
