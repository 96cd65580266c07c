"""The few-shot table (the paper's Table 1): how well a few labels rank an unseen family, beside the cheap rivals.

    python benchmarks/few_shot.py                     # every target, 5 label draws -> results/few_shot-<target>.json
    python benchmarks/few_shot.py --target nasbench201 --method default --method trees --draws 10

    python benchmarks/few_shot.py --method default --draws 10 --replace    # measures it again, keeps the rows of the others

Label draws use the seeds 1000, 1001, ...; settings were chosen on draws with other seeds (docs/protocol.md). Results are
written after every target.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

import _record

from evo_search.targets import METHODS, MORE_METHODS, TARGETS, get_target, make_methods, pool
from finetune.protocol import evaluate, summarize


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", choices=tuple(TARGETS), action="append")
    parser.add_argument("--method", action="append")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--name", default="few_shot")
    parser.add_argument("--replace", action="store_true", help="keep the result's rows of all other methods")
    args = parser.parse_args()
    for name in args.target or TARGETS:
        target, graphs = get_target(name), pool(name)
        began = time.perf_counter()

        def report(method: str, done: int, total: int, name: str = name, began: float = began) -> None:
            print(f"{name}: {done}/{total} {method} {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)

        rows = evaluate(graphs, target.metric, make_methods(name, args.method or (*METHODS, *MORE_METHODS)),
                        n_labels=target.n_labels, draws=args.draws, seed=args.seed, n_test=target.n_test, target=name,
                        progress=report)
        for line in summarize(rows):
            print(f"{name:16} {line['method']:14} rho {line['spearman']:.3f} ± {line['spearman_std']:.3f}  tau "
                  f"{line['kendall']:.3f}  ({line['n_labels']} labels, {line['n_test']} tested)", flush=True)
        path, about = _record.RESULTS / f"{args.name}-{name}.json", {}
        if args.replace and path.exists():
            earlier = json.loads(path.read_text())
            rows = [r for r in earlier["rows"] if r["method"] not in (args.method or ())] + rows
            about = {"before": earlier["record"]}  # of the rows of the other methods
        _record.write(f"{args.name}-{name}", {**about, "seed": args.seed, "draws": args.draws,
                                               "summary": summarize(rows), "rows": rows})


if __name__ == "__main__":
    main()
