"""Benchmark tables: what training (or a published surrogate) gave for every network of a search space.

    from evo_search import tables
    table = tables.load("nasbench201")
    table.lookup("|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|")

Shipped names and their metrics (accuracies in percent, NaN where nobody measured; ``data/DATACARD.md`` has the rest):

- ``nasbench101``, 423,624 rows in the order of the official module hash: ``test_acc`` (CIFAR-10, 108 epochs, mean of 3
  runs), ``params``, and for 30,001 rows of one run ``val_acc``, ``val_acc_e4``, ``val_acc_e12``, ``val_acc_e36``,
  ``train_time_s``.
- ``nasbench201``, ``nasbench201-cifar100``, ``nasbench201-imagenet16``, 15,625 rows in the official order: one file;
  ``test_acc``, ``val_acc``, ``test_acc_e12``, ``val_acc_e12`` and ``params`` mean the data set of the name. The file's
  own columns ``c10_test_e200``, ``c100_test_e200``, ``in16_test_e200``, ``c10_val_e200`` (9,445 rows), ``*_e12`` are in
  all three. ``val_acc`` after 200 epochs exists for CIFAR-10 only.
- ``nasbench301``, 12,439 genotypes, both *surrogate* labels: ``val_acc_xgb_v1`` (1,218 rows, the default: what papers
  report) and ``val_acc_yahpo_e98`` (all rows; about 1.3 points higher; for ranking only), ``runtime_yahpo_s``.

Own files come from ``evo_search.importers`` or :func:`write` and are read by :func:`read`. Nothing is loaded before it
is asked for; this file must not import torch and must not know how a network is built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cg.errors import CGError
from evo_search._genomes import Genomes
from evo_search._table_file import read_npz, write_npz

_DATASETS = {"": "c10", "-cifar100": "c100", "-imagenet16": "in16"}
# The last layer is Linear(64, classes): the published counts of the three data sets differ by 65 per class only.
_EXTRA_CLASSES = {"c10": 0, "c100": 90, "in16": 110}
_FILES = {
    "nasbench101": "nasbench101.npz",
    **{f"nasbench201{suffix}": "nasbench201.npz" for suffix in _DATASETS},
    "nasbench301": "nasbench301.npz",
}


class NotInTableError(CGError, KeyError):
    """A table has no row for a genome, or no value in that row; the message names both."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would show the repr


class Table:
    """``n`` genomes and their measured metrics. Everything in it is read-only.

    Attributes:
        name: such as ``nasbench201-cifar100``.
        family: such as ``nasbench201``.
        genomes: the genome columns as integer arrays (see ``_genomes``), for code that reads all rows at once.
        metrics: name -> float64 ``[n]``.
        default_metric: what :meth:`lookup` gives when it is not told.
        meta: header of the file: origin, licence, and what else its maker noted.
    """

    def __init__(
        self,
        name: str,
        genomes: Genomes,
        metrics: Mapping[str, NDArray[np.float64]],
        default_metric: str,
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        if default_metric not in metrics:
            raise CGError(f"table {name!r}: default metric {default_metric!r} is not among {', '.join(metrics)}")
        for metric, values in metrics.items():
            if values.shape != (genomes.n,):
                raise CGError(f"table {name!r}: metric {metric!r} has shape {values.shape}, expected ({genomes.n},)")
            values.setflags(write=False)
        self.name, self.family, self.genomes = name, genomes.family, genomes
        self._metrics, self._meta = dict(metrics), dict(meta or {})
        self.default_metric = default_metric

    @property
    def metrics(self) -> Mapping[str, NDArray[np.float64]]:
        """Read-only view of the columns."""
        return MappingProxyType(self._metrics)

    @property
    def meta(self) -> Mapping[str, Any]:
        """Read-only view of the header."""
        return MappingProxyType(self._meta)

    def __repr__(self) -> str:
        return f"Table({self.name!r}, {self.n:,} rows, metrics: {', '.join(self.metrics)})"

    def __len__(self) -> int:
        return self.n

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.genomes.n

    def encoded(self, i: int) -> str:
        """Genome of row ``i`` as text."""
        if not 0 <= i < self.n:
            raise CGError(f"table {self.name!r} has rows 0 to {self.n - 1}, not {i}")
        return self.genomes.encoded(int(i))

    def row(self, encoded: str) -> int:
        """Row of a genome; NotInTableError if the table has none, CGError if the text is no genome.

        On NAS-Bench-101 every cell with the same pruned graph finds the row, whatever its vertex order.
        """
        return int(self.rows([encoded])[0])

    def rows(self, encoded: Sequence[str]) -> NDArray[np.int64]:
        """Rows ``[len(encoded)]`` of many genomes at once; errors as in :meth:`row`."""
        found = self.genomes.find(encoded)
        if (found < 0).any():
            absent = encoded[int(np.argmax(found < 0))]
            raise NotInTableError(f"table {self.name!r} has no row for {absent!r}; it holds {self.n:,} genomes")
        return found

    def lookup(self, encoded: str, metric: str | None = None) -> float:
        """Value of one genome; NotInTableError where it was not measured, CGError for an unknown metric."""
        metric = metric or self.default_metric
        if metric not in self.metrics:
            raise CGError(f"table {self.name!r} has no metric {metric!r}; it has {', '.join(self.metrics)}")
        value = float(self.metrics[metric][self.row(encoded)])
        if np.isnan(value):
            raise NotInTableError(f"table {self.name!r} has no {metric!r} for {encoded!r}")
        return value

    def write(self, path: str | Path) -> None:
        """Write the table to an ``.npz`` that :func:`read` takes; the file appears only when complete."""
        meta = {k: v for k, v in self.meta.items() if k not in ("format", "family", "rows", "genome", "columns")}
        meta |= {"name": self.name, "default_metric": self.default_metric}
        write_npz(path, self.genomes, self.metrics, meta=meta)


def names() -> list[str]:
    """Names that :func:`load` takes."""
    return list(_FILES)


@cache
def load(name: str) -> Table:
    """A shipped table, read once a process. CGError lists the names; StorageError says that a file is damaged."""
    if name not in _FILES:
        raise CGError(f"no benchmark table {name!r}; there are {', '.join(_FILES)}")
    with resources.as_file(resources.files("evo_search") / "data" / _FILES[name]) as path:
        genomes, metrics, meta = read_npz(path)
    if genomes.family == "nasbench201":
        metrics = _for_dataset(metrics, _DATASETS[name.removeprefix("nasbench201")])
    return Table(name, genomes, metrics, meta["default_metric"], meta)


def read(path: str | Path, dataset: str | None = None) -> Table:
    """A table file that :meth:`Table.write` or an importer wrote.

    Args:
        path: the ``.npz``.
        dataset: for a NAS-Bench-201 file ``c10``, ``c100`` or ``in16``: what ``test_acc`` and the like mean; by
            default what the file's name field says.
    """
    genomes, metrics, meta = read_npz(path)
    name, default = str(meta.get("name", genomes.family)), meta.get("default_metric")
    if genomes.family == "nasbench201":
        dataset = dataset or _DATASETS.get(name.removeprefix("nasbench201"), "c10")
        if dataset not in _EXTRA_CLASSES:
            raise CGError(f"no data set {dataset!r} in NAS-Bench-201; there are {', '.join(_EXTRA_CLASSES)}")
        name = "nasbench201" + {v: k for k, v in _DATASETS.items()}[dataset]
        metrics = _for_dataset(metrics, dataset)
    if not isinstance(default, str) or default not in metrics:
        raise CGError(f"benchmark table {path}: no default metric among {', '.join(metrics)}")
    return Table(name, genomes, metrics, default, meta)


def _for_dataset(metrics: Mapping[str, NDArray[np.float64]], dataset: str) -> dict[str, NDArray[np.float64]]:
    """The columns of a NAS-Bench-201 file and the general names, which mean one data set."""
    general = ("test_acc", "val_acc", "test_acc_e12", "val_acc_e12", "params")
    columns = {k: v for k, v in metrics.items() if k not in general}
    found = {}
    for name, column in zip(general, ("test_e200", "val_e200", "test_e12", "val_e12"), strict=False):
        if f"{dataset}_{column}" in columns:
            found[name] = columns[f"{dataset}_{column}"]
    if "params_c10" in columns:
        found["params"] = columns["params_c10"] + 65.0 * _EXTRA_CLASSES[dataset]
    return {**found, **columns}
