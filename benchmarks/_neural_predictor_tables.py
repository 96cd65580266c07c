"""Tables from ``results/neural_predictor.json``, which ``benchmarks/neural_predictor.py`` writes.

Each function takes the folder of results and gives a header and lines; a file that is not there gives no line.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Table = tuple[tuple[str, ...], list[tuple[Any, ...]]]
PAPER = "paper (arXiv 1912.00848)"
AGAIN = "reproduction by others"  # github.com/ultmaster/neuralpredictor.pytorch, its README
# MSE in squared percent at 172 labels: (source, method) -> figure; the paper does not say over which networks
PUBLISHED = {(PAPER, "one stage"): {"all": "1.95"}, (PAPER, "two stages"): {"passed": "0.66"},
             (AGAIN, "one stage"): {"all": "3.62", "above_80": "1.90"},
             (AGAIN, "labels above 91 % only, no classifier"): {"above_91": "0.74"}}
SETS = {"all": "all", "above_80": "above 80 %", "above_91": "above 91 %", "passed": "passed by the classifier",
        "passed_80": "passed, above 80 %"}


def _read(results: Path, *parts: str) -> list[dict[str, Any]]:
    path = results / "neural_predictor.json"
    if not path.exists():
        return []
    return [s for s in json.loads(path.read_text(encoding="utf-8"))["summary"] if s["part"] in parts]


def _spread(row: dict[str, Any], key: str, digits: int = 3) -> str:
    if key not in row:
        return "–"
    std = row.get(f"{key}_std")
    return f"{row[key]:.{digits}f}" + (f" ± {std:.{digits}f}" if std is not None else "")


def errors(results: Path) -> Table:
    """MSE at 172 labels beside the published figures."""
    lines: list[tuple[Any, ...]] = []
    for row in _read(results, "nasbench101", "tuned"):
        if row["labels"] == 172:
            shown = [s for s in SETS if "false_negatives" in row or "passed" not in s]
            lines.append((f"`{row['method']}`", *(_spread(row, f"mse_{s}", 2) if s in shown else "–" for s in SETS),
                          _spread(row, "kendall"), row["seeds"]))
    for (source, method), found in PUBLISHED.items():
        if lines:
            lines.insert(0, (f"{method}, {source}", *(found.get(s, "–") for s in SETS), "–", "–"))
    return ("method", *(f"MSE, {s}" for s in SETS.values()), "Kendall τ, all", "draws"), lines


def _by_labels(key: str, digits: int) -> Callable[[Path], Table]:
    def table(results: Path) -> Table:
        rows = _read(results, "nasbench101")
        counts = sorted({r["labels"] for r in rows})
        found = {(r["method"], r["labels"]): r for r in rows}
        lines = []
        for method in dict.fromkeys(r["method"] for r in rows):
            lines.append((f"`{method}`", *(_spread(found.get((method, n), {}), key, digits) for n in counts)))
        return ("method", *(f"{n} labels" for n in counts)), [x for x in lines if set(x[1:]) != {"–"}]

    return table


def classifier(results: Path) -> Table:
    """What the first stage lets pass."""
    lines = []
    for row in _read(results, "nasbench101", "tuned"):
        if "false_negatives" in row:
            shares = [_percent(row, k) for k in ("passed", "false_negatives", "false_positives")]
            lines.append((f"`{row['method']}`", row["labels"], *shares, _spread(row, "mse_passed_91", 2)))
    return ("method", "labels", "passed, %", "good ones refused, %", "bad ones passed, %", "MSE, passed and good"), lines


def _percent(row: dict[str, Any], key: str) -> str:
    std = row.get(f"{key}_std")
    return f"{100 * row[key]:.1f}" + (f" ± {100 * std:.1f}" if std is not None else "")


def best_of(results: Path) -> Table:
    """Test accuracy of the best validated network among the K highest predictions, 172 labels."""
    rows = [r for r in _read(results, "nasbench101") if r["labels"] == 172]
    names = [k for k in (rows[0] if rows else {}) if k.startswith("best_of_") and not k.endswith("_std")]
    heads = ["all tested" if k == "best_of_all" else f"K = {k.removeprefix('best_of_')}" for k in names]
    return ("method", *heads), [(f"`{r['method']}`", *(_spread(r, k, 2) for k in names)) for r in rows]


def chain(results: Path) -> Table:
    """The 18-layer predictor and its rivals on chains of blocks."""
    lines = []
    for row in _read(results, "chain"):
        figures = [_spread(row, f"{k}_{s}") for s in ("40", "others") for k in ("mse", "kendall")]
        lines.append((f"`{row['method']}`", *figures, f"{row['fit_s']:.2g}"))
    return ("method", "MSE, 40", "Kendall τ, 40", "MSE, 2,000 others", "Kendall τ, 2,000 others", "fit, CPU s"), lines


TABLES: dict[str, Callable[[Path], Table]] = {
    "neural_predictor_errors": errors, "neural_predictor_classifier": classifier, "neural_predictor_best_of": best_of,
    "neural_predictor_chain": chain, "neural_predictor_mse_above_91": _by_labels("mse_above_91", 2),
    "neural_predictor_kendall": _by_labels("kendall", 3),
    "neural_predictor_kendall_test_acc": _by_labels("kendall_test_acc", 3),
    "neural_predictor_kendall_above_91": _by_labels("kendall_above_91", 3)}
