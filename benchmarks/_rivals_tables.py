"""Tables of docs/rivals.md from ``results/rivals-<space>.csv``, which ``benchmarks/compare.py`` writes.

Each function takes the folder of results and gives a header and lines; a file that is not there gives no line.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Table = tuple[tuple[str, ...], list[tuple[Any, ...]]]
SPACES = ("nasbench101", "nasbench201", "nasbench301")


def _read(results: Path, space: str) -> dict[str, dict[int, list[dict[str, str]]]]:
    """Rows by predictor and label count."""
    path, found = results / f"rivals-{space}.csv", dict[str, dict[int, list[dict[str, str]]]]()
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                found.setdefault(row["predictor"], {}).setdefault(int(row["n_labels"]), []).append(row)
    return found


def _values(rows: list[dict[str, str]], key: str) -> np.ndarray:
    return np.array([float(r[key]) for r in rows if not r["error"]])


def _spread(rows: list[dict[str, str]], key: str) -> str:
    values = _values(rows, key)
    if not len(values):
        return "fails" if rows else "–"
    return f"{values.mean():.3f}" + (f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else "")


def _seconds(rows: list[dict[str, str]], key: str) -> str:
    values = _values(rows, key)
    if not len(values):
        return "–"
    mean = values.mean()
    return f"{mean:.0f}" if mean >= 10 else f"{mean:.2g}" if mean >= 0.01 else "< 0.01"


def criterion(results: Path, space: str, key: str) -> Table:
    """Mean ± standard deviation over the draws, one column a label count, best mean over them first; times at the largest."""
    data = _read(results, space)
    counts = sorted({n for by_count in data.values() for n in by_count})
    lines = []
    for name, by_count in data.items():
        means = [_values(by_count.get(n, []), key) for n in counts]
        order = -float(np.mean([m.mean() for m in means if len(m)])) if any(len(m) for m in means) else 1.0
        last = by_count.get(counts[-1], [])
        draws = sorted({len(_values(rows, key)) for rows in by_count.values()})
        lines.append((order, (f"`{name}`", *(_spread(by_count.get(n, []), key) for n in counts),
                              "–".join(map(str, dict.fromkeys((draws[0], draws[-1])))), _seconds(last, "fit_s"),
                              _seconds(last, "predict_s"))))
    times = (f"fit, CPU s, {counts[-1]} labels", f"predict, CPU s, {_tested(data)} networks") if counts else ()
    return ("predictor", *(f"{n} labels" for n in counts), "draws", *times), [x for _, x in sorted(lines)]


def _tested(data: dict[str, dict[int, list[dict[str, str]]]]) -> str:
    found = sorted({int(r["n_test"]) for by_count in data.values() for rows in by_count.values() for r in rows})
    return "–".join(f"{n:,}" for n in dict.fromkeys((found[0], found[-1])))


def _table(space: str, key: str) -> Callable[[Path], Table]:
    return lambda results: criterion(results, space, key)


TABLES: dict[str, Callable[[Path], Table]] = {
    f"rivals_{key}_{space}": _table(space, key) for key in ("spearman", "kendall") for space in SPACES}
