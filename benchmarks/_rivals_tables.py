"""Tables and figures of docs/results.md from ``results/rivals-<space>.csv``, which ``benchmarks/compare.py`` writes.

A table function takes the folder of results and gives a header and lines, a figure function the text of an SVG; a file that
is not there gives no line and no figure.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _figure
import numpy as np

Table = tuple[tuple[str, ...], list[tuple[Any, ...]]]
Rows = dict[str, dict[int, list[dict[str, str]]]]
SPACES = {"nasbench201": "NAS-Bench-201", "nasbench101": "NAS-Bench-101", "nasbench301": "NAS-Bench-301"}
OURS = "default"


def read(results: Path, space: str) -> Rows:
    """Rows by predictor and label count."""
    path, found = results / f"rivals-{space}.csv", dict[str, dict[int, list[dict[str, str]]]]()
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                found.setdefault(row["predictor"], {}).setdefault(int(row["n_labels"]), []).append(row)
    return found


def values(rows: list[dict[str, str]], key: str) -> np.ndarray:
    """A column, without the rows that failed."""
    return np.array([float(r[key]) for r in rows if not r["error"]])


def criterion(results: Path, space: str, key: str) -> Table:
    """Mean ± standard deviation over the draws, one column a label count, best mean over them first. Bold: the best of the
    column; ``≈``: not further below it than its standard deviation. Times are medians (the first fit of a process also loads
    libraries and compiles), at the fewest and at the most labels."""
    data = read(results, space)
    counts = sorted({n for by_count in data.values() for n in by_count})
    cells: dict[str, list[np.ndarray]] = {
        name: [values(by_count.get(n, []), key) for n in counts] for name, by_count in data.items()}
    best = [max((x[i] for x in cells.values() if len(x[i])), key=np.mean, default=np.zeros(0)) for i in range(len(counts))]
    lines = []
    for name, by_count in data.items():
        means = [x.mean() for x in cells[name] if len(x)]
        draws = sorted({len(values(rows, key)) for rows in by_count.values()})
        first, last = (by_count.get(n, []) for n in (counts[0], counts[-1]))
        lines.append((-float(np.mean(means)) if means else 1.0, (
            f"**`{name}`** (this package)" if name == OURS else f"`{name}`",
            *(_cell(x, top, n in by_count) for n, x, top in zip(counts, cells[name], best, strict=True)),
            "–".join(map(str, dict.fromkeys((draws[0], draws[-1])))),
            f"{_seconds(first, 'fit_s')} / {_seconds(last, 'fit_s')}", _seconds(last, "predict_s"))))
    times = (f"fit, CPU s, {counts[0]} / {counts[-1]} labels", f"predict, CPU s, {_tested(data)} networks") if counts else ()
    return ("predictor", *(f"{n} labels" for n in counts), "draws", *times), [x for _, x in sorted(lines)]


def _cell(x: np.ndarray, best: np.ndarray, tried: bool) -> str:
    if not len(x):
        return "fails" if tried else "–"
    text = f"{x.mean():.3f}" + (f" ± {x.std(ddof=1):.3f}" if len(x) > 1 else "")
    if x.mean() == best.mean():
        return f"**{text}**"
    return f"{text} ≈" if len(best) > 1 and x.mean() >= best.mean() - best.std(ddof=1) else text


def _seconds(rows: list[dict[str, str]], key: str) -> str:
    found = values(rows, key)
    if not len(found):
        return "–"
    middle = float(np.median(found))
    return f"{middle:.0f}" if middle >= 10 else f"{middle:.2g}" if middle >= 0.01 else "< 0.01"


def _tested(data: Rows) -> str:
    found = sorted({int(r["n_test"]) for by_count in data.values() for rows in by_count.values() for r in rows})
    return "–".join(f"{n:,}" for n in dict.fromkeys((found[0], found[-1])))


def figure(results: Path, space: str) -> str:
    """Spearman's rho against the number of labels; chance, which is 0, is left out. Empty without results."""
    data = read(results, space)
    lines = []
    for name, by_count in data.items():
        points = [(n, x.mean(), x.std(ddof=1) if len(x) > 1 else 0.0)
                  for n, x in ((n, values(rows, "spearman")) for n, rows in sorted(by_count.items())) if len(x)]
        if points and name != "random":
            lines.append(_figure.Line(name, points, strong=name == OURS))
    return _figure.svg(lines, f"{SPACES[space]}: ranking networks that are not labelled", "labelled networks",
                       "Spearman ρ, mean of the draws") if lines else ""


def _table(space: str, key: str) -> Callable[[Path], Table]:
    return lambda results: criterion(results, space, key)


def _drawing(space: str) -> Callable[[Path], str]:
    return lambda results: figure(results, space)


TABLES: dict[str, Callable[[Path], Table]] = {
    f"rivals_{key}_{space}": _table(space, key) for key in ("spearman", "kendall") for space in SPACES}
# name -> (what a screen reader says, drawing); a page shows it by <!-- results:figure_NAME -->
FIGURES: dict[str, tuple[str, Callable[[Path], str]]] = {
    f"rivals_{space}": (f"Spearman ρ against labels, {title}; the table below has the numbers", _drawing(space))
    for space, title in SPACES.items()}
