"""Every predictor on every benchmark space at several label counts: the tables of docs/results.md.

    python benchmarks/compare.py                                  # 3 spaces x 20, 50, 100, 400 labels x 5 draws
    python benchmarks/compare.py --space nasbench201 --predictors cheap --labels 20 --seeds 2

    python benchmarks/compare.py --predictors default,trees --replace   # measures these again, keeps the rows of the others

Results: ``results/rivals-<space>.csv``, one row a fit, and ``results/record-rivals-<space>.json`` with the settings and the
machine. A row is kept in ``runs/rivals-<space>`` as soon as it is there, so a run that was killed goes on.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
import time

import _record

from cg.files import write_text
from evo_search.comparison import FIRST_SEED, N_TEST, compare

SPACES = ("nasbench201", "nasbench101", "nasbench301")
COLUMNS = ("predictor", "n_labels", "seed", "n_test", "spearman", "kendall", "fit_s", "predict_s", "error")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--space", choices=SPACES, action="append")
    parser.add_argument("--predictors", default="all", help="names or groups of evo_search.rivals, joined by commas")
    parser.add_argument("--labels", default="20,50,100,400")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--n-test", type=int, default=N_TEST)
    parser.add_argument("--name", default="rivals", help="first part of the results' names")
    parser.add_argument("--replace", action="store_true", help="keep the result's rows of all other predictors")
    args = parser.parse_args()
    for space in args.space or SPACES:
        began = time.perf_counter()

        def report(what: str, done: int, total: int, space: str = space, began: float = began) -> None:
            print(f"{space}: {done}/{total} {what} {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)

        result = compare(space, args.predictors, [int(n) for n in args.labels.split(",")], args.seeds, n_test=args.n_test,
                         first_seed=FIRST_SEED, out=_record.ROOT / "runs" / f"{args.name}-{space}", progress=report)
        path, old = _record.RESULTS / f"{args.name}-{space}.csv", []
        about = {"config": result.config}
        if args.replace:
            new = {row["predictor"] for row in result.rows}
            with path.open(encoding="utf-8", newline="") as file:
                old = [[row[c] for c in COLUMNS] for row in csv.DictReader(file) if row["predictor"] not in new]
            before = json.loads(path.with_name(f"record-{path.stem}.json").read_text(encoding="utf-8"))
            about |= {"before": before}  # of the rows of the other predictors
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows([*old, *([_short(row.get(c)) for c in COLUMNS] for row in result.rows)])
        write_text(path, text.getvalue())
        _record.write(f"record-{args.name}-{space}", about)
        for line in result.summary():
            figures = line["error"] or f"rho {line['spearman']:.3f}  tau {line['kendall']:.3f}  fit {line['fit_s']:.2f} s"
            print(f"{space:12} {line['n_labels']:4} {line['predictor']:24} {figures}", flush=True)


def _short(value: object) -> object:
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else value


if __name__ == "__main__":
    main()
