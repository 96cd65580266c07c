"""The table of labels that people write: a CSV with a header ``id,<metric>`` and one line for each measured network."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cg.errors import LabelError, StorageError
from cg.files import atomic_path


def read_labels(path: str | Path, ids: Sequence[str] | None = None, metric: str | None = None) -> dict[str, float]:
    """Labels by id, in the order of the file.

    Args:
        path: the CSV; blank lines are skipped.
        ids: the ids that exist; any other one is an error.
        metric: the column to read where there are several.

    Raises:
        StorageError: no such file, or it is not text.
        LabelError: naming line and id: an unknown id, an id that occurs twice, a value that is not a finite number, a
            line of another length, or no labels at all.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = [(reader.line_num, row) for reader in [csv.reader(file, strict=True)] for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise StorageError(f"cannot read labels {path}: {reason}") from None
    header = [c.strip() for c in lines[0][1]] if lines else []
    if len(header) < 2 or header[0] != "id":
        raise LabelError(f"{path}: the first line must be 'id,<metric>', got {','.join(header) or 'nothing'!r}")
    if metric is None and len(header) > 2:
        raise LabelError(f"{path} has the metrics {', '.join(header[1:])}; say which one is meant")
    if metric is not None and metric not in header[1:]:
        raise LabelError(f"{path} has no metric {metric!r}; it has {', '.join(header[1:])}")
    column = header.index(metric) if metric is not None else 1
    known = None if ids is None else set(ids)
    found: dict[str, float] = {}
    for line, row in lines[1:]:
        where = f"{path}, line {line}"
        if len(row) != len(header):
            raise LabelError(f"{where}: {len(row)} columns where the header has {len(header)}")
        key, text = row[0].strip(), row[column].strip()
        if known is not None and key not in known:
            raise LabelError(f"{where}: id {key!r} is not among the {len(known)} graphs")
        if key in found:
            raise LabelError(f"{where}: id {key!r} occurs twice")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise LabelError(f"{where}: the value of id {key!r} is {text!r}, not a finite number; leave unmeasured "
                             "networks out")
        found[key] = value
    if not found:
        raise LabelError(f"{path} has a header but no labels")
    return found


def write_table(path: str | Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A CSV, atomically; floats with all their digits. ``StorageError`` as in ``cg.files.atomic_path``."""
    with atomic_path(path) as tmp, tmp.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([[repr(float(v)) if isinstance(v, float | np.floating) else v for v in row] for row in rows])
