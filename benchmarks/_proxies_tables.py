"""Tables about zero-cost proxies from ``results/proxies.json``, which ``benchmarks/proxies.py`` writes.

Each function takes the folder of results and gives a header and lines; a file that is not there gives no line.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _published_tables

Table = tuple[tuple[str, ...], list[tuple[Any, ...]]]
_TITLES = {"nasbench101": "NAS-Bench-101", "nasbench201": "NAS-Bench-201", "nasbench301": "NAS-Bench-301"}


def _spaces(results: Path) -> dict[str, Any]:
    path = results / "proxies.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["spaces"] if path.exists() else {}
    return {space: found[space] for space in _TITLES if space in found}


def by_proxy(results: Path, key: str) -> Table:
    """A proxy a line, best mean over the spaces first; all networks, ± standard deviation over five fifths of them."""
    spaces = _spaces(results)
    lines = []
    for name in next(iter(spaces.values()), {"proxies": {}})["proxies"]:
        figures = [s["proxies"][name] for s in spaces.values()]
        lines.append((-sum(f[key] for f in figures), (
            f"`{name}`", *(f"{f[key]:.2f} ± {f[f'{key}_std']:.2f}" for f in figures))))
    return ("proxy", *(_TITLES[s] for s in spaces)), [line for _, line in sorted(lines)]


def published(results: Path) -> Table:
    """Spearman's rho, ours beside published figures: a proxy a line, in the order of ``by_proxy``."""
    theirs = _published_tables.load(_published_tables.PUBLISHED)["proxies"]
    spaces = _spaces(results)
    beside = {s: {name: f for name, f in theirs.items() if any(s in of_proxy for of_proxy in f.values())} for s in spaces}
    header = ["proxy"]
    for space in spaces:
        header += [f"{_TITLES[space]}, ours", *(f"[{source}]" for source in beside[space])]
    lines = []
    for title, *_ in by_proxy(results, "spearman")[1]:
        name, line = title.strip("`"), [title]
        for space, here in spaces.items():
            values = (figures.get(name, {}).get(space) for figures in beside[space].values())
            line += [f"{here['proxies'][name]['spearman']:.2f}", *("–" if v is None else f"{v:.2f}" for v in values)]
        lines.append(tuple(line))
    return tuple(header), lines


def trees_published(results: Path) -> Table:
    """What trees make of the proxies, ours beside published figures at the same number of labels."""
    theirs, lines = _published_tables.load(_published_tables.PUBLISHED)["proxy_trees"], []
    for space, here in _spaces(results).items():
        ours = {r["predictor"]: r for r in here["few_labels"] if r["n_labels"] == theirs["labels"]}
        shown = (_spread(ours.get(name)) for name in ("trees on proxies", "trees on proxies and statistics"))
        lines.append((_TITLES[space], *shown, *(f"{theirs[what][space]:.3f}" for what in (
            "proxies", "both", "encoding"))))
    source = theirs["source"]
    return (f"{theirs['labels']} labels", "ours, proxies", "ours, proxies and statistics", f"[{source}], proxies",
            f"[{source}], proxies and encoding", f"[{source}], encoding"), lines


def sizes(results: Path) -> Table:
    """Images of 16 x 16 beside 32 x 32 on a sample: do they rank alike, and how well does each rank?"""
    lines: list[tuple[Any, ...]] = []
    for space, here in _spaces(results).items():
        for name, f in here.get("at_32", {"proxies": {}})["proxies"].items():
            if name not in ("params", "l2_norm"):  # no image in them
                figures = (f"{f[k]:.2f}" for k in ("agreement", "spearman_16", "spearman_32"))
                lines.append((_TITLES[space], f"`{name}`", *figures))
    return ("space", "proxy", "rho between sizes", "rho with the label, 16 x 16", "rho with the label, 32 x 32"), lines


def few_labels(results: Path, space: str) -> Table:
    """Spearman's rho, mean ± standard deviation over the draws, one column a label count, best mean over them first."""
    rows = _spaces(results).get(space, {"few_labels": []})["few_labels"]
    counts, found = sorted({r["n_labels"] for r in rows}), dict[str, dict[int, dict[str, Any]]]()
    for r in rows:
        found.setdefault(r["predictor"], {})[r["n_labels"]] = r
    best = sorted(found, key=lambda name: -sum(r["spearman"] or 0.0 for r in found[name].values()))
    return ("predictor", *(f"{n} labels" for n in counts)), [
        (f"`{name}`", *(_spread(found[name].get(n)) for n in counts)) for name in best]


def _spread(row: dict[str, Any] | None) -> str:
    if row is None or row["spearman"] is None:
        return "–" if row is None else "fails"
    return f"{row['spearman']:.3f}" + (f" ± {row['spearman_std']:.3f}" if row["spearman_std"] is not None else "")


def _labels_of(space: str) -> Callable[[Path], Table]:
    return lambda results: few_labels(results, space)


TABLES: dict[str, Callable[[Path], Table]] = {
    "proxies_spearman": lambda results: by_proxy(results, "spearman"),
    "proxies_kendall": lambda results: by_proxy(results, "kendall"),
    "proxies_published": published,
    "proxies_trees_published": trees_published,
    "proxies_sizes": sizes,
    **{f"proxies_labels_{space}": _labels_of(space) for space in _TITLES}}
