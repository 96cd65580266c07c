"""Tables and a drawing for docs/results.md from ``results/brp.json``, which ``benchmarks/brp.py`` writes.

Each function takes the folder of results and gives a header and lines; a file that is not there gives no line.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _figure

Table = tuple[tuple[str, ...], list[tuple[Any, ...]]]
Rows = list[dict[str, Any]]
STARTS = {"none": "random weights", "latency": "latency", "macs": "multiply-adds"}
CHEAP = {"native-gp": "`native-gp`", "random-forest": "`random-forest`"}
RELATIONS = {"soft": "relation, soft labels", "hard": "relation, hard labels", "regression": "regression"}
PREDICTORS = {"none": "–", "brp": "`brp`", "default": "`default`"} | CHEAP
DRAWN = ("random", "1 iteration", "5 iterations", "10 iterations")
MARKS = (25, 50, 75, 100, 125, 150)


def _summary(results: Path, part: str) -> Rows:
    path = results / "brp.json"
    rows: Rows = json.loads(path.read_text(encoding="utf-8"))["summary"] if path.exists() else []
    return [r for r in rows if r["part"] == part]


def _spread(row: dict[str, Any] | None, key: str, digits: int = 3, scale: float = 1.0) -> str:
    """Mean ± standard deviation of a column of the summary."""
    if row is None or row.get(key) is None:
        return "–"
    std = row.get(f"{key}_std")
    return f"{scale * row[key]:.{digits}f}" + ("" if std is None else f" ± {scale * std:.{digits}f}")


def _pick(rows: Rows, **wanted: Any) -> dict[str, Any] | None:
    return next((r for r in rows if all(r[k] == v for k, v in wanted.items())), None)


def _seeds(rows: Rows) -> str:
    return "–".join(str(n) for n in dict.fromkeys((min(r["seeds"] for r in rows), max(r["seeds"] for r in rows))))


def transfer(results: Path) -> Table:
    """Spearman on accuracies by what the network learned first."""
    rows = _summary(results, "transfer")
    counts, lines = sorted({r["labels"] for r in rows}), []
    for width in sorted({r["width"] for r in rows}, key=lambda w: (w == 0, w)):
        for method, name in (STARTS | CHEAP).items():
            mine = [r for r in rows if (r["width"], r["method"]) == (width, method)]
            if mine:
                lines.append((name, width or "–", *(_spread(_pick(mine, labels=n), "spearman") for n in counts),
                              _spread(mine[0], "pretraining_spearman"), _seeds(mine)))
    return ("learned first", "width", *(f"{n} accuracies" for n in counts), "ρ of what was learned first", "seeds"), lines


def relation(results: Path) -> Table:
    """Spearman of the relation in both orders, beside plain regression; how far it contradicts itself."""
    rows = _summary(results, "relation")
    counts, lines = sorted({r["labels"] for r in rows}), []
    for method, name in (RELATIONS | CHEAP).items():
        mine = [r for r in rows if r["method"] == method]
        if mine:
            found = [_pick(mine, labels=n) for n in counts]
            lines.append((name, *(_spread(f, key) for f in found for key in ("spearman", "spearman_sort", "kendall")),
                          _spread(found[-1], "antisymmetry", 4), _seeds(mine)))
    header = [f"{what}, {n}" for n in counts for what in ("ρ", "ρ sorted", "τ")]
    return ("predictor", *header, f"contradiction, {counts[-1] if counts else ''}".rstrip(", "), "seeds"), lines


def iterative(results: Path) -> Table:
    """Test accuracy of the network that is best by validation after so many queries; how often the best of all was found."""
    rows = _summary(results, "iterative")
    order = list(dict.fromkeys(r["method"] for r in rows))
    rows.sort(key=lambda r: (list(PREDICTORS).index(r["predictor"]), order.index(r["method"])))
    lines = [(PREDICTORS[r["predictor"]], r["method"], *(_spread(r, f"test_{m}", 2) for m in MARKS),
              f"{100 * r['reached']:.0f} %", _spread(r, "queries_to_best", 0), r["seeds"]) for r in rows]
    return ("predictor", "selection", *(f"{m} queries" for m in MARKS), "best of all found", "queries it took", "seeds"), lines


def oracle(results: Path) -> Table:
    """Wrong answers to "is it fast enough?" and the best network that they let through."""
    rows, lines = _summary(results, "oracle"), []
    for r in sorted(rows, key=lambda r: (r["device"], r["limit"])):
        answer = f"{_spread(r, 'found', 2)}" if r["answered"] else "–"
        lines.append((f"`{r['device']}`", f"{100 * r['limit']:.0f} %", f"`{r['method']}`",
                      _spread(r, "false_positives", 1, 100), _spread(r, "false_negatives", 1, 100), answer,
                      _spread(r, "tries", 0), f"{100 * r['answered']:.0f} %", f"{r['best']:.2f}"))
    return ("device", "fast enough", "latency by", "false positives, %", "false negatives, %", "accuracy found", "tries",
            "found one", "best possible"), lines


def figure(results: Path) -> str:
    """Test accuracy of the best network by validation against queries (Figure 5 of the paper). Empty without results."""
    lines = []
    for r in _summary(results, "iterative"):
        name = "random" if r["predictor"] == "none" else f"{r['predictor']}, {r['method']}"
        if r["method"] in DRAWN and (r["predictor"] == "brp" or r["method"] != "5 iterations"):
            points = [(m, r[f"test_{m}"], r[f"test_{m}_std"] or 0.0) for m in MARKS]
            lines.append(_figure.Line(name, points, strong=name == "brp, 5 iterations"))
    if not lines:
        return ""
    return _figure.svg(lines, "NAS-Bench-201: best network found", "queries", "test accuracy, %, mean of the seeds")


TABLES: dict[str, Callable[[Path], Table]] = {
    "brp_transfer": transfer, "brp_relation": relation, "brp_iterative": iterative, "brp_oracle": oracle}
FIGURES: dict[str, tuple[str, Callable[[Path], str]]] = {
    "brp_iterative": ("test accuracy of the best network against queries; the table below has the numbers", figure)}
