"""Tables of docs/results.md from ``results/latency.json``, which ``benchmarks/latency.py`` writes.

Each function takes the folder of results and gives a header and lines; a file that is not there gives no line.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Table = tuple[tuple[str, ...], list[tuple[Any, ...]]]
Rows = list[dict[str, Any]]
SHARES = {"within_1": "within 1 %", "within_5": "within 5 %", "within_10": "within 10 %"}
METHODS = {"BRPLatencyGCN": "`BRPLatencyGCN`", "BRPLatencyGCN-all": "`BRPLatencyGCN`, all six operations",
           "LayerwiseLatency": "`LayerwiseLatency`", "LayerwiseLatency-all": "`LayerwiseLatency`, all six operations",
           "FlopsLatency": "`FlopsLatency`"}


def _groups(results: Path) -> dict[tuple[int, str], Rows]:
    """Rows by labels and method, most labels first, the methods in the order of ``METHODS``. Settings of a network that differ
    from the first row's are another method and left out."""
    path = results / "latency.json"
    rows: Rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    found: dict[tuple[int, str], Rows] = {}
    for r in rows:
        group = found.setdefault((r["labels"], r["method"]), [])
        if not group or (r["epochs"], r["width"]) == (group[0]["epochs"], group[0]["width"]):
            group.append(r)
    return dict(sorted(found.items(), key=lambda item: (-item[0][0], list(METHODS).index(item[0][1]))))


def overall(results: Path) -> Table:
    """Mean over the devices, then mean ± standard deviation (n - 1) over the seeds that have all devices."""
    lines = []
    for (labels, method), rows in _groups(results).items():
        by_seed: dict[int, Rows] = {}
        for r in rows:
            by_seed.setdefault(r["seed"], []).append(r)
        devices = max(map(len, by_seed.values()))
        full = [group for group in by_seed.values() if len(group) == devices]

        def spread(key: str, scale: float, digits: int, full: list[Rows] = full) -> str:
            means = np.array([scale * np.mean([r[key] for r in group]) for group in full])
            return f"{means.mean():.{digits}f}" + (f" ± {means.std(ddof=1):.{digits}f}" if len(means) > 1 else "")

        fit = np.median([r["fit_s"] for r in rows])
        lines.append((labels, METHODS[method], *(f"{spread(key, 100, 1)} %" for key in SHARES), spread("spearman", 1, 3),
                      devices, len(full), f"{fit:.0f}" if fit >= 10 else f"{fit:.2g}"))
    return ("labels", "predictor", *SHARES.values(), "Spearman ρ", "devices", "seeds", "fit, s"), lines


def devices(results: Path) -> Table:
    """Share within 10 % for each device at the most labels: mean over the seeds."""
    groups = _groups(results)
    most = max((labels for labels, _ in groups), default=0)
    columns = {method: rows for (labels, method), rows in groups.items() if labels == most}
    names = sorted({r["device"] for rows in columns.values() for r in rows})

    def cell(rows: Rows, name: str) -> str:
        shares = [100 * r["within_10"] for r in rows if r["device"] == name]
        return f"{np.mean(shares):.1f}" if shares else "–"

    return (f"within 10 %, {most} labels", *(METHODS[m] for m in columns)), [
        (f"`{name}`", *(cell(rows, name) for rows in columns.values())) for name in names]


TABLES: dict[str, Callable[[Path], Table]] = {"latency": overall, "latency_devices": devices}
