"""Tables of transfer, from ``results/transfer.json``: few labels, none and many, and where nothing was gained."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _search_tables import load
from _spread import spread

Table = tuple[tuple[str, ...], list[tuple[Any, ...]]]
OURS, CANDIDATES, SUGGESTED = "default", "default, candidates", "default, suggested"
TITLES = {"nasbench101": "NAS-Bench-101", "nasbench201": "NAS-Bench-201, no `none`", "nasbench201-all": "NAS-Bench-201, all",
          "nasbench301": "NAS-Bench-301", "ofa-mbv3": "Once-for-All, measured"}
# target, labels, rho aimed at, best published
AIMS = (("nasbench101", 50, 0.92, ".553 (paper), .814 at 32 (FLAN, cells only)"), ("nasbench201", 40, 0.965, ".917 (paper)"),
        ("nasbench201-all", 40, 0.955, "–"), ("nasbench301", 50, 0.91, ".892 (paper, other labels)"),
        ("ofa-mbv3", 50, 0.97, "–"))
ZERO_AIMS = (("nasbench201", "nasbench101", 0.93, ".849"), ("nasbench201-all", "nasbench101", 0.93, "–"),
             ("nasbench101", "nasbench201", 0.83, "–"), ("nasbench301", "nasbench101 + nasbench201", 0.75, "–"))


def rows(results: Path, part: str) -> list[dict[str, Any]]:
    """Rows of one part; none where the file is not there."""
    return [r for r in load(results, "transfer") if r["part"] == part]


def values(found: list[dict[str, Any]], **about: Any) -> np.ndarray:
    """rho of the rows that are about this."""
    return np.array([r["rho"] for r in found if all(r[k] == v for k, v in about.items()) and r["rho"] is not None])


def few(results: Path) -> Table:
    """rho by target, method and labels."""
    found = rows(results, "few")
    labels = sorted({r["labels"] for r in found})
    lines = []
    for target, title in TITLES.items():
        for method in dict.fromkeys(r["method"] for r in found if r["target"] == target):
            cells = [values(found, target=target, method=method, labels=n) for n in labels]
            name = f"**`{method}`**" if method.startswith(OURS) else f"`{method}`"
            lines.append((title, name, *(spread(c) if len(c) else "–" for c in cells)))
    return ("target", "method", *(f"{n} labels" for n in labels)), lines


def suggested(results: Path) -> Table:
    """What chosen labels are worth beside drawn ones, mean over the targets."""
    found, cells = rows(results, "few"), []
    labels = sorted({r["labels"] for r in found})
    for n in labels:
        pairs = [[values(found, target=t, method=m, labels=n) for m in (SUGGESTED, OURS)] for t in TITLES]
        gains = [chosen.mean() - drawn.mean() for chosen, drawn in pairs if len(chosen) and len(drawn)]
        cells.append(f"{np.mean(gains):+.3f} ({len(gains)} targets)" if gains else "–")
    return ("", *(f"{n} labels" for n in labels)), [("suggested − drawn, ρ", *cells)] if found else []


def worst(results: Path) -> Table:
    """What the default lacks to the best other row of the same target and labels, where it lacks something."""
    found, lines = rows(results, "few"), []
    for target, title in TITLES.items():
        for n in sorted({r["labels"] for r in found if r["target"] == target}):
            mean = {m: values(found, target=target, method=m, labels=n).mean()
                    for m in dict.fromkeys(r["method"] for r in found) if len(values(found, target=target, method=m, labels=n))}
            for ours in (OURS, CANDIDATES):
                others = {m: v for m, v in mean.items() if not m.startswith(OURS)}
                if ours in mean and others and max(others.values()) > mean[ours] + 0.01:
                    best = max(others, key=lambda m: others[m])
                    lines.append((title, n, f"`{ours}`", f"{mean[ours]:.3f}", f"`{best}`", f"{others[best]:.3f}"))
    if found and not lines:
        lines.append(("nowhere that was measured", *"–––––"))
    return ("target", "labels", "row", "ρ", "better by more than .01", "ρ"), lines


def zero(results: Path) -> Table:
    """Without a label: what the sources say, how much of the statistics overlaps, what agreement was expected."""
    found = rows(results, "zero")
    lines = []
    for target, title in TITLES.items():
        for sources in dict.fromkeys(r["sources"] for r in found if r["target"] == target):
            group = [r for r in found if (r["target"], r["sources"]) == (target, sources)]
            lines.append((title, sources, spread(values(group)), f"{np.mean([r['overlap'] for r in group]):.2f}",
                          f"{np.mean([r['believed'] for r in group]):.2f}"))
    return ("target", "sources", "ρ, no label", "columns that overlap", "ρ expected"), lines


def timm(results: Path) -> Table:
    """A model family left out."""
    found, lines = rows(results, "timm"), []
    for method, labels in dict.fromkeys((r["method"], r["labels"]) for r in found):
        group = [r for r in found if (r["method"], r["labels"]) == (method, labels)]
        over = [r["rho"] for r in group if r.get("rho") is not None]
        inside = np.array([r["inside"] for r in group])
        share = "–"
        if labels == 0 and method != "macs":
            above, possible, not_below = (group[0][k] for k in ("above_macs", "above_macs_possible", "not_below_macs"))
            share = f"{above:.0%} of {possible:.0%}, {not_below:.0%}"
        method, without, _ = method.partition(", unlabelled")
        lines.append((f"`{method}`", "0, tested as with 5" if without else labels, f"{over[0]:.3f}" if over else "–",
                      spread(inside) if len(inside) > 1 else f"{inside[0]:.3f}", share, group[0]["families"]))
    return ("method", "labels of the family", "ρ over all rows", "ρ inside a family, mean",
            "families above multiply-adds of those where that is possible, not below", "families"), lines


def goals(results: Path) -> Table:
    """What was aimed at, beside what was measured."""
    few_rows, zero_rows, lines = rows(results, "few"), rows(results, "zero"), []

    def add(target: str, labels: int, found: np.ndarray, aim: float, known: str, chosen: np.ndarray | None = None) -> None:
        if len(found):
            other = spread(chosen) if chosen is not None and len(chosen) else "–"
            reached = "**no**" if other == "–" or chosen is None or chosen.mean() < aim else "with suggested labels"
            lines.append((target, labels, spread(found), other, f"≥ {aim}", "yes" if found.mean() >= aim else reached, known))

    for target, labels, aim, known in AIMS:
        drawn, chosen = (values(few_rows, target=target, method=m, labels=labels) for m in (OURS, SUGGESTED))
        add(TITLES[target], labels, drawn, aim, known, chosen)
    for target, sources, aim, known in ZERO_AIMS:
        add(f"{TITLES[target]} from {sources}", 0, values(zero_rows, target=target, sources=sources), aim, known)
    for r in rows(results, "timm"):
        if (r["method"], r["labels"]) == ("default", 0):
            add("timm, a family left out, labels of all others", 0, np.array([r["rho"]]), 0.88, "MACs .78")
            lines.append((f"timm, share of families ordered above multiply-adds ({r['above_macs_possible']:.0%} possible)", 0,
                          f"{r['above_macs']:.2f}", "–", "≥ 0.7", "yes" if r["above_macs"] >= 0.7 else "**no**", "–"))
    ours, *bars = (np.array([r["inside"] for r in rows(results, "timm") if (r["method"], r["labels"]) == (m, 5)])
                   for m in ("default", "macs", "default, unlabelled"))
    if len(ours) and all(map(len, bars)):
        macs, without = (b.mean() for b in bars)
        lines.append(("timm, inside a family, 5 labels of it and those of all others", 5, spread(ours), "–",
                      f"> {macs:.3f} (multiply-adds), > {without:.3f} (without the 5)",
                      "yes" if ours.mean() > max(macs, without) else "**no**", "–"))
    return ("target", "labels", "ρ", "ρ, suggested labels", "aimed at", "reached", "best published"), lines


def intervals(results: Path) -> Table:
    """Share of labels inside 90 % intervals, by target and number of labels."""
    found = [r for r in load(results, "trust") if r["part"] == "intervals"]
    labels = sorted({r["labels"] for r in found})

    def cell(target: str, n: int) -> str:
        covered = 100 * np.array([r["covered"] for r in found if (r["target"], r["labels"]) == (target, n)])
        return f"{spread(covered, 1)} %" if len(covered) else "–"

    lines = [(TITLES[t], *(cell(t, n) for n in labels)) for t in TITLES if any(r["target"] == t for r in found)]
    return ("target", *(f"{n} labels" for n in labels)), lines


def novelty(results: Path) -> Table:
    """Novelty of networks of every family, seen from 50 labels of one."""
    found = [r for r in load(results, "trust") if r["part"] == "novelty" and r["labels"] == 50]
    names = [t for t in TITLES if any(r["target"] == t for r in found)]

    def cell(target: str, seen: str) -> str:
        group = [r for r in found if (r["target"], r["seen"]) == (target, seen)]
        low, middle, high, far = (float(np.mean([r[k] for r in group])) for k in ("low", "median", "high", "far"))
        return f"{middle:.3g} ({low:.3g} to {high:.3g}), {far:.0%} far"

    lines = [(TITLES[t].split(",")[0], *(cell(t, s) for s in names)) for t in names]
    return ("labels of", *(TITLES[s].split(",")[0] for s in names)), lines


def ablation(results: Path) -> Table:
    """What leaving a group of statistics out costs, and what it is worth alone."""
    found = load(results, "ablation")
    names = [t for t in TITLES if any(r["target"] == t for r in found)]
    whole = {t: values(found, target=t, how="all").mean() for t in names}
    lines: list[tuple[Any, ...]] = [("all", *(f"{whole[t]:.3f}" for t in names))] if found else []
    for group in dict.fromkeys(r["group"] for r in found if r["group"]):
        cells = []
        for t in names:
            without, alone = (values(found, target=t, how=how, group=group) for how in ("without", "alone"))
            cells.append(f"{without.mean() - whole[t]:+.3f} / {alone.mean():.3f}" if len(without) and len(alone) else "–")
        lines.append((f"`{group}`", *cells))
    return ("group: without it / alone", *(TITLES[t] for t in names)), lines


def encoders(results: Path, method: str) -> Table:
    """rho by objective of one use of an encoder, with what statistics reach."""
    found = [r for r in load(results, "encoders") if r["part"] == ("zero" if method == "embedding" else "few")]
    names = [t for t in TITLES if any(r["target"] == t for r in found)]
    lines = []
    for objective in sorted(dict.fromkeys(r["objective"] for r in found), key=lambda o: o != "none"):
        uses = {r["method"] for r in found if r["objective"] == objective}
        use = method if objective != "none" else next(iter(uses))
        if use not in uses:
            continue
        cells = [values(found, target=t, objective=objective, method=use) for t in names]
        none = "no encoder: " + ("what the sources' statistics say" if use == "sources" else "statistics")
        name = none if objective == "none" else f"`{objective}`"
        lines.append((name, *(spread(c) if len(c) else "–" for c in cells)))
    return ("pre-trained for", *(TITLES[t] for t in names)), lines


TABLES: dict[str, Callable[[Path], Table]] = {
    "transfer_goals": goals, "transfer_few": few, "transfer_suggested": suggested, "transfer_worst": worst,
    "transfer_zero": zero, "transfer_timm": timm, "trust_intervals": intervals, "trust_novelty": novelty,
    "ablation": ablation,
    **{f"encoders_{name}": partial(encoders, method=method)
       for name, method in (("beside", "beside"), ("frozen", "frozen"), ("tuned", "fine-tuned"), ("zero", "embedding"))}}
FIGURES: dict[str, tuple[str, Callable[[Path], str]]] = {}
