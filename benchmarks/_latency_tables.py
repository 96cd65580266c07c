"""Tables of docs/results.md from ``results/latency.json``, which ``benchmarks/latency.py`` writes.

Each function takes the folder of results and gives a header and lines; a file that is not there gives no line.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _published_tables
import numpy as np
from _spread import spread

Table = tuple[tuple[str, ...], list[tuple[Any, ...]]]
METHODS = {"BRPLatencyGCN": "`BRPLatencyGCN`", "BRPLatencyGCN-all": "`BRPLatencyGCN`, all six",
           "LayerwiseLatency": "`LayerwiseLatency`", "LayerwiseLatency-all": "`LayerwiseLatency`, all six",
           "FlopsLatency": "`FlopsLatency`", "CGPredictor": "`CGPredictor`",
           "CGPredictor-devices": "`CGPredictor`, other devices as sources"}


def _rows(results: Path) -> list[dict[str, Any]]:
    path = results / "latency.json"
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    return found


def published(results: Path) -> Table:
    """Spearman's rho of predicted and measured latency, ours ± standard deviation (n - 1) beside published figures."""
    theirs = _published_tables.load(_published_tables.PUBLISHED)["latency"]
    rows = [r for r in _rows(results) if r["labels"] == theirs["labels"] and (r["width"] == 200 or r["method"][:3] != "BRP")]
    header, lines = [f"{theirs['labels']} labels"], []
    for method in theirs["methods"]:
        header += [f"{METHODS[method]}, ours", f"[{theirs['source']}]"]
    for device in theirs["methods"]["FlopsLatency"]:
        line = [f"`{device}`"]
        for method, figures in theirs["methods"].items():
            ours = np.array([r["spearman"] for r in rows if (r["device"], r["method"]) == (device, method)])
            line += [spread(ours) if len(ours) else "–", f"{figures[device]:.3f}" if device in figures else "–"]
        lines.append(tuple(line))
    return tuple(header), lines if rows else []


def devices(results: Path) -> Table:
    """Shares within 1, 5 (± standard deviation, n - 1) and 10 % for each device, one column a predictor and width."""
    rows = _rows(results)

    def column(r: dict[str, Any]) -> tuple[int, int]:
        return list(METHODS).index(r["method"]), r["width"] if r["method"].startswith("BRP") else 0

    columns = sorted({column(r) for r in rows})
    titles = list(METHODS.values())
    header = ("labels", "device", *(titles[i] + (f", width {width}" if width else "") for i, width in columns))
    lines = []
    for labels, device in sorted({(r["labels"], r["device"]) for r in rows}, key=lambda key: (-key[0], key[1])):
        cells = []
        for wanted in columns:
            group = [r for r in rows if (r["labels"], r["device"], column(r)) == (labels, device, wanted)]
            one, five, ten = (100 * np.array([r[f"within_{n}"] for r in group]) for n in (1, 5, 10))
            cells.append(f"{one.mean():.1f} / {spread(five, 1)} / {ten.mean():.1f}" if group else "–")
        lines.append((labels, f"`{device}`", *cells))
    return header, lines


TABLES: dict[str, Callable[[Path], Table]] = {"latency": devices, "latency_published": published}
