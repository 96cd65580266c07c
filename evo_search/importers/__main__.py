"""Turn an official benchmark file into a table file.

    python -m evo_search.importers nasbench101 nasbench_only108.tfrecord -o nasbench101.npz
    python -m evo_search.importers nasbench201 NATS-tss-v1_0-3ffb9-simple -o nasbench201.npz
    python -m evo_search.importers nasbench301 nb_301_v13 -o nasbench301.npz --fidelity 8 32 100
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cg.errors import CGError
from evo_search import importers


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0, or 1 with one line on the standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m evo_search.importers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("benchmark", choices=["nasbench101", "nasbench201", "nasbench301"])
    parser.add_argument("source", type=Path, help="the official file or folder")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the table to write (.npz)")
    fidelity = ("LAYERS", "CHANNELS", "EPOCHS")
    parser.add_argument("--fidelity", type=int, nargs=3, metavar=fidelity, help="nasbench301 only: which runs to take")
    args = parser.parse_args(argv)
    try:
        if args.benchmark == "nasbench301":
            table = importers.import_nasbench301(args.source, fidelity=tuple(args.fidelity) if args.fidelity else None)
        elif args.fidelity:
            parser.error("--fidelity is for nasbench301")
        elif args.benchmark == "nasbench201":
            table = importers.import_nasbench201(args.source)
        else:
            table = importers.import_nasbench101(args.source, progress=_say)
        table.write(args.output)
    except CGError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{args.output}: {table!r}")
    return 0


def _say(records: int) -> None:
    if records % 100_000 == 0:
        print(f"{records:,} records read", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
