"""NAS-Bench-101: ``nasbench_only108.tfrecord`` or ``nasbench_full.tfrecord`` -> a table.

A record is a JSON list ``[module_hash, epochs, raw_adjacency, raw_operations, raw_metrics]``: the row-major 0/1 matrix
as one string, the ops separated by commas, and base64 of a ``ModelMetrics`` message (field 1 ``evaluation_data``: at
the start, half-way and at the end of the training; 2 ``trainable_parameters``; 3 ``total_time``). In ``EvaluationData``
the doubles 1 to 5 are ``current_epoch``, ``training_time``, ``train_accuracy``, ``validation_accuracy`` and
``test_accuracy`` (fractions).

Metrics of the table, means over the repeats, at the end of training: ``test_acc``, ``val_acc``, ``train_acc`` (percent)
and ``train_time_s`` for 108 epochs, with ``_e4``, ``_e12``, ``_e36`` for the shorter trainings of the full file, and
``params``. Rows are in the order of the module hash, as in the shipped table.
"""

from __future__ import annotations

import base64
import json
from array import array
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cg.errors import CGError, StorageError
from evo_search._cells101 import MAX_VERTICES, OP_NAMES, module_hash
from evo_search._genomes import Genomes101
from evo_search.importers._tfrecord import proto_fields, read_records
from evo_search.tables import Table

_EVALUATION = {2: "train_time_s", 3: "train_acc", 4: "val_acc", 5: "test_acc"}
_FULL_EPOCHS = 108
_PROGRESS_EVERY = 10_000


def import_nasbench101(
    path: str | Path, *, verify: bool = True, progress: Callable[[int], None] | None = None
) -> Table:
    """Read an official TFRecord file.

    Args:
        path: ``nasbench_only108.tfrecord`` or ``nasbench_full.tfrecord``.
        verify: check the CRC of every record and that every cell has the module hash that its record states
            (measured on one core: 0.1 ms a record with, 0.03 ms without; the 108-epoch file has 1.27 million).
        progress: called with the number of records read, every 10,000.

    Raises:
        StorageError: the message names the file and the record.
    """
    path = Path(path)
    index: dict[str, int] = {}
    cells: list[tuple[int, int, list[int]]] = []
    params = array("q")
    sums: dict[tuple[str, int], array[float]] = defaultdict(lambda: array("d"))
    counts: dict[int, array[int]] = defaultdict(lambda: array("q"))
    for number, record in enumerate(read_records(path, check_data=verify)):
        try:
            stated, epochs, adjacency, operations, raw = _record(record)
            values, param_count = _metrics(raw)
            if stated not in index:
                cell = _cell(adjacency, operations)
                if verify and module_hash(*cell) != stated:
                    raise StorageError(f"the cell does not have the module hash {stated} that the record states")
                index[stated] = len(cells)
                cells.append(cell)
                params.append(param_count)
            row = index[stated]
            if params[row] != param_count:
                raise StorageError(f"{param_count} parameters, but {params[row]} in an earlier record of the module")
        except (ValueError, IndexError) as error:  # CGError and json's and base64's errors are ValueErrors
            raise StorageError(f"{path}: record {number}: {error}") from None
        if progress is not None and (number + 1) % _PROGRESS_EVERY == 0:
            progress(number + 1)
        _add(counts[epochs], row, 1)
        for name, value in values.items():
            _add(sums[name, epochs], row, value)
    if not cells:
        raise StorageError(f"{path}: no record in it")

    order = np.argsort(np.array(list(index)))
    ops = np.full((len(cells), MAX_VERTICES - 2), -1, np.int8)
    for i, (_, _, interior) in enumerate(cells):
        ops[i, : len(interior)] = interior
    genomes = Genomes101(np.array([c[0] for c in cells])[order], np.array([c[1] for c in cells])[order], ops[order])
    metrics = {}
    for epochs in sorted(counts, reverse=True):
        runs = np.zeros(len(cells))
        runs[: len(counts[epochs])] = counts[epochs]
        for name in ("test_acc", "val_acc", "train_acc", "train_time_s"):
            total = np.zeros(len(cells))
            total[: len(sums[name, epochs])] = sums[name, epochs]
            with np.errstate(invalid="ignore"):
                mean = total[order] / runs[order]
            metrics[name if epochs == _FULL_EPOCHS else f"{name}_e{epochs}"] = mean
    metrics["params"] = np.array(params, np.float64)[order]
    default = "test_acc" if "test_acc" in metrics else next(iter(metrics))
    return Table("nasbench101", genomes, metrics, default, {"source": path.name})


def _add(column: array[Any], row: int, value: float) -> None:
    """Add to ``column[row]``, which grows with zeros."""
    if row >= len(column):
        column.extend([0] * (row + 1 - len(column)))
    column[row] += value


def _record(record: bytes) -> tuple[str, int, str, str, str]:
    fields = json.loads(record.decode("utf-8"))
    kinds = (str, int, str, str, str)
    if not isinstance(fields, list) or len(fields) != 5:
        raise CGError("expected a JSON list of 5 fields")
    names = ("module_hash", "epochs", "raw_adjacency", "raw_operations", "raw_metrics")
    for name, field, kind in zip(names, fields, kinds, strict=True):
        if not isinstance(field, kind) or isinstance(field, bool):
            raise CGError(f"field {name} is not a {kind.__name__}")
    return fields[0], fields[1], fields[2], fields[3], fields[4]


def _cell(adjacency: str, operations: str) -> tuple[int, int, list[int]]:
    """``(V, adj_bits, interior ops)``."""
    ops, n = operations.split(","), round(len(adjacency) ** 0.5)
    if not 2 <= n <= MAX_VERTICES or n * n != len(adjacency) or set(adjacency) - {"0", "1"}:
        raise CGError(f"raw_adjacency {adjacency[:60]!r} is not a square 0/1 matrix of 2 to {MAX_VERTICES} vertices")
    if len(ops) != n or ops[0] != "input" or ops[-1] != "output" or any(op not in OP_NAMES for op in ops[1:-1]):
        raise CGError(f"raw_operations {operations[:80]!r} are not {n} known ops from input to output")
    bits = 0
    for x in range(n):
        for y in range(n):
            if adjacency[x * n + y] == "1":
                if x >= y:
                    raise CGError("raw_adjacency is not strictly upper triangular")
                bits |= 1 << (x + y * (y - 1) // 2)
    return n, bits, [OP_NAMES.index(op) for op in ops[1:-1]]


def _metrics(raw: str) -> tuple[dict[str, float], int]:
    """Values at the end of training (percent, seconds) and the parameter count."""
    evaluations: list[bytes] = []
    param_count = -1
    for number, value in proto_fields(base64.b64decode(raw, validate=True)):
        if number == 1 and isinstance(value, bytes):
            evaluations.append(value)
        elif number == 2 and isinstance(value, int):
            param_count = value
    if len(evaluations) < 3 or param_count < 0:
        raise CGError(f"raw_metrics: {len(evaluations)} evaluations (3 expected), parameters {param_count}")
    fields = {n: v for n, v in proto_fields(evaluations[2]) if n in _EVALUATION}
    values = {}
    for number, name in _EVALUATION.items():
        value = fields.get(number, np.nan)
        if not isinstance(value, float) or not np.isfinite(value):
            raise CGError(f"raw_metrics: no {name} at the end of training")
        if number > 2 and not 0.0 <= value <= 1.0:
            raise CGError(f"raw_metrics: {name} is {value}, not a fraction")
        values[name] = value if number == 2 else 100.0 * value
    return values, param_count
