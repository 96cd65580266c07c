"""Tables of docs/results.md from ``results/surgery.json``, which ``benchmarks/surgery.py`` writes.

Each function takes the folder of results and gives a header and lines; a file that is not there gives no line. Every figure
is a mean over the seeds, with the standard deviation (n - 1) where there is room. Unless a table says ``all``, networks tested
are those with a path that are isomorphic to no labelled one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Table = tuple[tuple[str, ...], list[tuple[Any, ...]]]
SHARES = ("0.001", "0.01", "0.05")
LABELS = (39, 78, 390, 781)
Entry = dict[str, Any]


def _read(results: Path, part: str) -> dict[str, dict[int, Entry]]:
    """Entries of the summary by predictor and label count."""
    path, found = results / "surgery.json", dict[str, dict[int, Entry]]()
    for entry in json.loads(path.read_text(encoding="utf-8"))["summary"] if path.exists() else ():
        if entry["part"] == part:
            found.setdefault(entry["predictor"], {})[entry["n_labels"]] = entry
    return found


def _spread(value: list[float] | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value[0]:.{digits}f} ± {value[1]:.{digits}f}"


def _mean(value: list[float] | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value[0]:.{digits}f}"


def _percent(value: list[float]) -> str:
    """Share as a percentage with three digits."""
    return f"{100 * value[0]:.3g}"


def _seconds(value: list[float]) -> str:
    mean = value[0]
    return f"{mean:.0f}" if mean >= 10 else f"{mean:.2g}" if mean >= 0.01 else "< 0.01"


def _table(header: tuple[str, ...], lines: list[tuple[float, tuple[Any, ...]]]) -> Table:
    """Largest first value first."""
    return header, [line for _, line in sorted(lines, key=lambda x: -x[0])]


def kendall(results: Path, tested: str, key: str = "kendall") -> Table:
    """Rank correlation by label count, times at the largest."""
    data, lines = _read(results, "labels"), []
    counts = sorted({n for by_count in data.values() for n in by_count})
    for name, by_count in data.items():
        found = {n: e[tested][key] for n, e in by_count.items() if tested in e}
        if found:
            last = by_count[max(found)]
            times = (_seconds(last["fit_s"]), _seconds(last["predict_s"])) if last["fit_s"][0] else ("–", "–")
            lines.append((sum(v[0] for v in found.values()) / len(found),
                          (f"`{name}`", *(_spread(found.get(n)) for n in counts), *times)))
    return _table(("predictor", *(f"{n} labels" for n in counts), "fit, CPU s", "predict, CPU s"), lines)


def top(results: Path, n_labels: int) -> Table:
    """P@K and BR@K at one label count, both in percent."""
    header = ("predictor", *(f"P@{float(s) * 100:g} %" for s in SHARES), *(f"BR@{float(s) * 100:g} %" for s in SHARES), "τ")
    lines = []
    for name, by_count in _read(results, "labels").items():
        if n_labels in by_count:
            e = by_count[n_labels]["valid"]
            lines.append((e["p@0.05"][0], (f"`{name}`", *(_percent(e[f"{what}@{s}"]) for what in ("p", "br") for s in SHARES),
                                           _mean(e["kendall"]))))
    return _table(header, lines)


def groups(results: Path, n_labels: int = 390) -> Table:
    """Kendall's tau inside groups of multiply-adds, and the mean rank difference of each group in percent of all networks."""
    data, lines, n = _read(results, "labels"), [], 0
    for name, by_count in data.items():
        if n_labels in by_count:
            e = by_count[n_labels]
            n = len(e["groups"])
            cells = (f"{_mean(g['kendall'], 2)}, {100 * g['rank_difference'][0]:+.1f}" for g in e["groups"])
            lines.append((e["valid"]["kendall_equal_macs"][0],
                          (f"`{name}`", *cells, _spread(e["valid"]["kendall_equal_macs"]), _mean(e["valid"]["kendall"]))))
    names = [f"group {i + 1}" for i in range(n)]
    if names:
        names[0], names[-1] = "group 1 (cheapest)", f"group {n} (dearest)"
    return _table(("predictor", *names, "τ, equal MACs", "τ"), lines)


def stages(results: Path) -> Table:
    """Best accuracy found after each stage, and how the last predictor ranks beside one that learned random labels."""
    plain, lines, n = _read(results, "labels"), [], 0
    for name, by_count in _read(results, "stages").items():
        for count, e in by_count.items():
            n = len(e["stages"])
            beside = plain.get(name, {}).get(count)
            lines.append((-1e6 * count + e["stages"][-1]["best_accuracy"][0],
                          (count, f"`{name}`", *(_mean(s["best_accuracy"], 2) for s in e["stages"][:-1]),
                           _spread(e["stages"][-1]["best_accuracy"], 2), f"{e['stages'][-1]['best_rank'][0]:,.0f}",
                           _mean(e["valid"]["kendall"]), _mean(beside["valid"]["kendall"]) if beside else "–",
                           _percent(e["valid"]["p@0.05"]), _percent(beside["valid"]["p@0.05"]) if beside else "–")))
    return _table(("labels", "predictor", *(f"stage {k + 1}" for k in range(n)), "its rank", "τ, stages", "τ, random",
                   "P@5 %, stages", "P@5 %, random"), lines)


def _one(make: Callable[..., Table], *arguments: Any) -> Callable[[Path], Table]:
    return lambda results: make(results, *arguments)


TABLES: dict[str, Callable[[Path], Table]] = {
    "surgery_kendall": _one(kendall, "valid"), "surgery_kendall_all": _one(kendall, "all"),
    "surgery_spearman": _one(kendall, "valid", "spearman"), **{f"surgery_top_{n}": _one(top, n) for n in LABELS},
    "surgery_groups": groups, "surgery_stages": stages}
