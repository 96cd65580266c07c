"""Tables of the README and docs/extracting.md on extraction, from the results of the ``extract_*.py`` scripts.

Each function takes the folder of results and gives a header and lines; a file that is not there gives no line.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Table = tuple[tuple[str, ...], list[tuple[Any, ...]]]
SETS = {
    "timm": "timm, every architecture", "torchvision": "torchvision", "transformers": "transformers, from configurations",
    "keras": "keras.applications", "onnx": "ONNX"}
GROUPS = {
    "light": "networks of the onnx package's tests", "legacy": "exports, legacy exporter", "dynamo": "exports, dynamo exporter",
    "pytorch-converted": "layers of the onnx package's tests", "pytorch-operator": "operators of the onnx package's tests",
    "optical_flow": "optical flow", "quantization": "quantizable, before quantization"}
TOOLS = {
    "ours": "`extract.from_torch`", "fx": "`torch.fx` + ShapeProp", "export": "`torch.export`",
    "export_core": "`torch.export` + core ATen decompositions", "torchlens": "TorchLens", "torchview": "torchview"}
WAYS = {
    "fx": "PyTorch ↔ torch.fx", "export": "PyTorch ↔ torch.export", "legacy": "PyTorch ↔ ONNX, legacy exporter",
    "dynamo": "PyTorch ↔ ONNX, dynamo exporter", "round_trip": "PyTorch ↔ `to_torch` of its graph",
    "builder": "direct builder ↔ trace, search spaces"}
_STEP = "… and a step forward and backward runs"


def _read(results: Path, name: str) -> dict[str, Any]:
    path = results / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def _of(part: int, whole: int) -> str:
    share = f"{100 * part / whole:.1f}".removesuffix(".0") if whole else "–"
    return f"{part:,} of {whole:,} ({share} %)"


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}" if value < 10 else f"{value:.0f}"


def reach(results: Path) -> Table:
    """One line a set and, below it, one for each of its groups."""
    header = ("models", "extracted", "no `Unknown`", "parameters equal", "seconds, median", "95 %", "largest",
              "CPU seconds, median")
    lines: list[tuple[Any, ...]] = []
    for name, title in SETS.items():
        found = _read(results, f"extract_reach-{name}")
        if found:
            lines.append((title, *_reach_cells(found["totals"])))
            for group, totals in found.get("groups", {}).items():
                lines.append((f"… {GROUPS.get(group, group)}", *_reach_cells(totals)))
    return header, lines


def _reach_cells(t: dict[str, Any]) -> tuple[str, ...]:
    params = _of(t["params_equal"], t["params_compared"]) if "params_equal" in t else "–"
    times = t.get("seconds", {})
    return (_of(t["extracted"], t["models"]), _of(t["without_unknown"], t["models"]), params,
            *(_seconds(times.get(k)) for k in ("median", "p95", "max")), _seconds(t.get("cpu_seconds", {}).get("median")))


def speed(results: Path) -> Table:
    """The tools side by side."""
    header = ("tool", "covers", "seconds, median", "longest", "times ours, median", "CPU time, times ours",
              "memory over import, median", "largest")
    lines: list[tuple[Any, ...]] = []
    for tool, r in _read(results, "extract_speed").get("tools", {}).items():
        if "skipped" in r:
            lines.append((TOOLS.get(tool, tool), r["skipped"], *["–"] * 6))
            continue
        ratios, peak = r["times_ours"], r["peak_rss_over_import_mb"]
        lines.append((TOOLS.get(tool, tool), f"{r['covered']} of {r['models']}", _seconds(r["median_s"]), _seconds(r["max_s"]),
                      *("–" if ratios[k] is None else f"{ratios[k]:.1f}" for k in ("median", "median_of_cpu_time")),
                      f"{peak['median']:,.0f} MB", f"{peak['max']:,.0f} MB"))
    return header, lines


def macs(results: Path) -> Table:
    """Agreement with PyTorch's counter."""
    header = ("models compared", "exactly equal", "within 0.5 %", "within 0.5 %, without products of constants", "largest gap")
    t = _read(results, "extract_macs").get("totals")
    if not t:
        return header, []
    n = t["compared"]
    return header, [(f"{n} of {t['models']}", t["exactly_equal"], t["within_half_a_percent"],
                     t["within_half_a_percent_without_constants"], f"{t['largest_gap_percent']:.2f} %")]


def laws(results: Path) -> Table:
    """How many graphs are equal, for each way."""
    header = ("law", "equal", "different", "the way itself fails")
    lines: list[tuple[Any, ...]] = []
    for way, counts in _read(results, "extract_laws").get("totals", {}).items():
        n = sum(counts.values()) - counts.get("no_way", 0)
        lines.append((WAYS.get(way, way), _of(counts.get("equal", 0), n), counts.get("different", 0) + counts.get("error", 0),
                      counts.get("no_way", 0)))
    trip = _read(results, "extract_reach-round_trip")
    if trip:
        t = trip["totals"]
        lines.append(("`from_torch(to_torch(g))`, timm graphs without `Unknown`", _of(t["equal"], t["round_trips"]),
                      t["round_trips"] - t["equal"], 0))
        lines.append((_STEP, _of(t["ran"], t["round_trips"]),
                      t["round_trips"] - t["ran"], 0))
    return header, lines


def goals(results: Path) -> Table:
    """What was aimed at, beside what was measured."""
    header = ("what", "measured", "aimed at", "reached")
    lines: list[tuple[Any, ...]] = []

    def line(what: str, value: float, shown: str, least: float, aim: str, most: bool = False) -> None:
        reached = value <= least if most else value >= least
        lines.append((what, shown, aim, "yes" if reached else "**no**"))

    def share(what: str, part: int, whole: int, least: float, aim: str = "") -> None:
        line(what, 100 * part / max(whole, 1), _of(part, whole), least, aim or (f"≥ {least:g} %" if least < 100 else "100 %"))

    sets = {name: _read(results, f"extract_reach-{name}") for name in (*SETS, "largest", "round_trip")}
    totals = {name: found["totals"] for name, found in sets.items() if found}
    if "timm" in totals:
        t = totals["timm"]
        share("timm, extracted", t["extracted"], t["models"], 99.5)
        share("timm, no `Unknown`", t["without_unknown"], t["models"], 98)
    if "torchvision" in totals:
        groups = dict(sets["torchvision"]["groups"])
        t = groups.pop("classification", {"extracted": 0, "models": 0})
        share("torchvision, classification", t["extracted"], t["models"], 100)
        share("torchvision, the rest", sum(g["extracted"] for g in groups.values()),
              sum(g["models"] for g in groups.values()), 90)
    for name, least, aim in (("transformers", 95, "≥ 95 % of ≥ 60"), ("keras", 100, "100 %"), ("onnx", 100, "100 %")):
        if name in totals:
            share(SETS[name], totals[name]["extracted"], totals[name]["models"], least, aim)
    compared = [t for name, t in totals.items() if "params_equal" in t and name != "largest"]
    if compared:
        share("parameters as the framework counts", sum(t["params_equal"] for t in compared),
              sum(t["params_compared"] for t in compared), 100)
    for what, equal, bad, _ in laws(results)[1]:
        if what == _STEP:
            t = totals["round_trip"]
            share(f"{what.removeprefix('… and ')} on `to_torch` of timm's graphs", t["ran"], t["round_trips"], 95)
        else:
            lines.append((what, equal, "100 %", "**no**" if bad else "yes"))
    counts = _read(results, "extract_macs").get("totals")
    if counts:
        share("multiply-adds within 0.5 % of `torch.utils.flop_counter`, products of constants apart",
              counts["within_half_a_percent_without_constants"], counts["compared"], 100)
    if "timm" in totals:
        median = totals["timm"]["seconds"]["median"]
        cpu = totals["timm"].get("cpu_seconds", {}).get("median")
        line("seconds to build and extract, timm, median, one core", median, f"{_seconds(median)} (CPU {_seconds(cpu)})", 0.3,
             "≤ 0.3", True)
    core = _read(results, "extract_speed").get("tools", {}).get("export_core", {}).get("times_ours")
    if core and core["median"]:
        line("`torch.export` with decompositions, times our time, median", core["median"], f"{core['median']:.0f} ×", 8,
             "≥ 8 ×")
    if sets["largest"]:
        most = max(sets["largest"]["rss_over_import_gb"].values())
        line("peak memory over the bare import, timm's largest", most, f"{most:.2f} GB", 2, "≤ 2 GB", True)
    return header, lines


TABLES: dict[str, Callable[[Path], Table]] = {
    "extract_goals": goals, "extract_reach": reach, "extract_speed": speed, "extract_macs": macs, "extract_laws": laws}
