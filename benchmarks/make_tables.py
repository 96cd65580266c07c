"""Make the shipped tables ``evo_search/data/*.npz`` from the source files, and check each against its source.

    python benchmarks/make_tables.py --source ../shared/data

Sources: ``nasbench101/nasbench101.npz``, ``nasbench101/val30k.npz``, ``nasbench201/nasbench201.csv.gz`` and
``nasbench301/nasbench301.csv.gz`` (rows, columns and licences: ``evo_search/data/DATACARD.md``). The same sources give
the same bytes. Prints sizes and SHA-256 for the card.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evo_search._genomes import Genomes, Genomes101, Genomes201, Genomes301
from evo_search._table_file import read_npz, write_npz

# NAS-Bench-101 evaluates on 39 batches of 256 = 9,984 images; three runs give multiples of 1/29,952.
NB101_IMAGES = 9_984
# The grid of each NAS-Bench-201 column in percent: images of the split and number of runs averaged (1, 2 or 3), found
# by trying; values are published with at most four decimals.
NB201_UNITS = {
    "c10_test_e200": (1, 3000),
    "c100_test_e200": (1, 600),
    "in16_test_e200": (1, 180),
    "c10_val_e200": (1, 100),
    "c10_test_e12": (1, 100),
    "c10_val_e12": (1, 500),
    "c100_test_e12": (1, 50),
    "c100_val_e12": (1, 50),
    "in16_test_e12": (1, 30),
    "in16_val_e12": (1, 30),
}
Columns = dict[str, NDArray[np.float64]]
Made = tuple[Genomes, Columns, dict[str, tuple[int, int]], dict[str, Any]]


def nasbench101(source: Path) -> Made:
    table, some = np.load(source / "nasbench101/nasbench101.npz"), np.load(source / "nasbench101/val30k.npz")
    genomes = Genomes101(table["n_vertices"], table["adj_bits"], table["ops"])

    def spread(values: NDArray[np.floating]) -> NDArray[np.float64]:
        column = np.full(genomes.n, np.nan)
        column[some["row"]] = values.astype(np.float64)
        return column

    columns: Columns = {"test_acc": 100.0 * table["test_acc"].astype(np.float64)}
    columns["params"] = table["params"].astype(np.float64)
    columns["val_acc"] = 100.0 * spread(some["val_acc_e108"])
    for epochs in (4, 12, 36):
        columns[f"val_acc_e{epochs}"] = 100.0 * spread(some[f"val_acc_e{epochs}"])
    columns["train_time_s"] = spread(some["train_time_s"])
    units = {name: (100, NB101_IMAGES) for name in columns if name.startswith("val_acc")}
    units["test_acc"] = (100, 3 * NB101_IMAGES)
    return genomes, columns, units, {"default_metric": "test_acc", "licence": "Apache-2.0"}


def nasbench201(source: Path) -> Made:
    rows = _csv(source / "nasbench201/nasbench201.csv.gz")
    genomes = Genomes201(Genomes201.text_keys([row["arch_str"] for row in rows]))
    columns = {"params_c10": _column(rows, "params_c10"), **{name: _column(rows, name) for name in NB201_UNITS}}
    return genomes, columns, NB201_UNITS, {"default_metric": "test_acc", "licence": "MIT"}


def nasbench301(source: Path) -> Made:
    rows = _csv(source / "nasbench301/nasbench301.csv.gz")
    genomes = Genomes301(Genomes301.text_keys([row["genotype"] for row in rows]))
    units = {"val_acc_xgb_v1": (1, 10_000), "val_acc_yahpo_e98": (1, 10_000), "runtime_yahpo_s": (1, 1)}
    columns = {name: _column(rows, name) for name in units}
    return genomes, columns, units, {"default_metric": "val_acc_xgb_v1", "licence": "Apache-2.0", "surrogate": True}


def _csv(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", newline="") as stream:
        return list(csv.DictReader(stream))


def _column(rows: list[dict[str, str]], name: str) -> NDArray[np.float64]:
    return np.array([float(row[name]) if row[name] else np.nan for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="has nasbench101/, nasbench201/, nasbench301/")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "evo_search/data")
    args = parser.parse_args()
    for make in (nasbench101, nasbench201, nasbench301):
        genomes, columns, units, meta = make(args.source)
        path = args.out / f"{make.__name__}.npz"
        write_npz(path, genomes, columns, units=units, meta={"name": make.__name__, **meta})
        again, read, _ = read_npz(path)
        sample = range(0, genomes.n, 997)
        assert [again.encoded(i) for i in sample] == [genomes.encoded(i) for i in sample]
        worst = {name: float(np.nanmax(np.abs(read[name] - values))) for name, values in columns.items()}
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        print(f"{path.name}: {genomes.n:,} rows, {path.stat().st_size:,} bytes, sha256 {digest}")
        print("  largest difference from the source: " + ", ".join(f"{k} {v:.2g}" for k, v in worst.items()))


if __name__ == "__main__":
    main()
