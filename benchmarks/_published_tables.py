"""Published figures beside ours: ``benchmarks/published.json`` against the results of ``compare.py`` and ``few_shot.py``.

The file has ``sources``, name -> ``paper``, ``read`` (the table or file that we read) and ``setting`` (its data, split, epochs
and tested networks where they are not ours), and ``figures``, each with

``method``, ``source``  what it is, and a name from ``sources``
``space``, ``criterion``, ``labels``, ``value``  in the words of our results; ``std`` where given
``ours``                our predictors that stand beside it
``few_shot``            target of ``few_shot.py`` to compare with; without it ``rivals-<space>.csv``

``proxies`` (source -> our name -> space -> Spearman's rho), ``proxy_trees`` and ``latency`` (Spearman's rho by device) stand
beside the results of ``proxies.py`` and ``latency.py`` (``_proxies_tables``, ``_latency_tables``).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _rivals_tables
import numpy as np
from _spread import spread

PUBLISHED = Path(__file__).with_name("published.json")
_FIELDS = {"method", "source", "space", "criterion", "labels", "value", "ours"}
_CRITERIA = {"spearman": "ρ", "kendall": "τ"}


def load(path: Path) -> dict[str, Any]:
    """Sources and figures. Raises ``ValueError`` naming the first figure that lacks a field or has an unknown name in one."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for i, p in enumerate(found["figures"]):
        where = f"{path.name}, figure {i} ({p.get('method')})"
        if _FIELDS - set(p):
            raise ValueError(f"{where} lacks {', '.join(sorted(_FIELDS - set(p)))}")
        for field, known in (("source", found["sources"]), ("space", _rivals_tables.SPACES), ("criterion", _CRITERIA)):
            if p[field] not in known:
                raise ValueError(f"{where}: {field} {p[field]!r} is none of {', '.join(known)}")
    return found


def draws(results: Path, p: dict[str, Any], predictor: str) -> dict[int, np.ndarray]:
    """What we measured with a predictor in the criterion of ``p``, by number of labels; counts without a figure left out."""
    if "few_shot" in p:
        path, found = results / f"few_shot-{p['few_shot']}.json", dict[int, list[float]]()
        for row in json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []:
            if row["method"] == predictor:
                found.setdefault(row["n_labels"], []).append(row[p["criterion"]])
        return {n: np.array(x) for n, x in found.items()}
    rows = _rivals_tables.read(results, p["space"]).get(predictor, {})
    by_count = {n: _rivals_tables.values(r, p["criterion"]) for n, r in rows.items()}
    return {n: x for n, x in by_count.items() if len(x)}


def neighbours(counts: list[int], labels: int) -> list[int]:
    """The count itself, or the nearest below and the nearest above as far as they exist."""
    if labels in counts:
        return [labels]
    below, above = [n for n in counts if n < labels], [n for n in counts if n > labels]
    return ([max(below)] if below else []) + ([min(above)] if above else [])


def beside(results: Path, space: str) -> _rivals_tables.Table:
    """One line for each published figure and predictor of ours beside it. Where we did not measure at the same number of labels
    the next lower and the next higher one stand there; a figure is missed if ours is below it at the higher one, too."""
    lines = []
    figures = [p for p in load(PUBLISHED)["figures"] if p["space"] == space]
    for p in sorted(figures, key=lambda p: (p["criterion"] != "spearman", p["labels"])):
        theirs = f"{p['value']:.3f}" + (f" ± {p['std']:.3f}" if "std" in p else "")
        head = (f"{p['method']} [{p['source']}]", p["labels"], f"{_CRITERIA[p['criterion']]} {theirs}")
        for predictor in p["ours"]:
            found = draws(results, p, predictor)
            near = neighbours(list(found), p["labels"])
            gaps = [round(float(found[n].mean()), 3) - round(p["value"], 3) for n in near]
            shown = "; ".join(_measured(n, found[n], len(near) > 1 or n != p["labels"]) for n in near) or "not measured yet"
            gap = " to ".join(f"{g:+.3f}".replace("-", "−") for g in gaps) or "–"
            lines.append((*head, f"`{predictor}`: {shown}", f"**{gap}**" if gaps and gaps[-1] < 0 else gap))
    return ("published", "labels", "figure", "ours", "gap, ours − published"), lines


def _measured(n: int, x: np.ndarray, name: bool) -> str:
    return f"{spread(x)} ({n} labels)" if name else spread(x)


def sources(_: Path) -> _rivals_tables.Table:
    """Where the published figures were read, and what is not as it is with ours."""
    return ("", "paper", "read in", "what differs from ours"), [
        (f"[{name}]", s["paper"], s["read"], s["setting"]) for name, s in load(PUBLISHED)["sources"].items()]


def _table(space: str) -> Callable[[Path], _rivals_tables.Table]:
    return lambda results: beside(results, space)


TABLES: dict[str, Callable[[Path], _rivals_tables.Table]] = {
    **{f"published_{s}": _table(s) for s in _rivals_tables.SPACES}, "published_sources": sources}
