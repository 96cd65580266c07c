"""A comparison as JSON, CSV and one self-contained page. Computes no result."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from cg.files import write_json, write_text
from evo_search import _page
from evo_search.comparison import Comparison

COLUMNS = ("predictor", "n_labels", "draws", "failed", "spearman", "spearman_std", "kendall", "kendall_std", "fit_s",
           "fit_s_std", "predict_s", "predict_s_std", "error")
HEADER = ("labels", "predictor", "Spearman ρ", "Kendall τ", "draws", "fit, CPU s", "predict, CPU s", "error")
OURS = "default"
_COLOURS = ("#3b82d6", "#e08a1e", "#3fa267", "#c94f4f", "#8d63c4", "#8a6552", "#d572ab", "#5f6b78", "#a5a02c", "#2fa7b5")
_DASHES = ("solid", "dash", "dot")


def write(result: Comparison, folder: str | Path) -> list[Path]:
    """``compare.json`` (settings, summary, rows), ``compare.csv`` (summary) and ``compare.html`` (table and figure)."""
    from cg._version import __version__

    folder = Path(folder)
    summary = result.summary()
    paths = [folder / f"compare.{kind}" for kind in ("json", "csv", "html")]
    write_json(paths[0], {"version": __version__, "config": result.config, "summary": summary, "rows": result.rows})
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows([["" if line[c] is None else line[c] for c in COLUMNS] for line in summary])
    write_text(paths[1], text.getvalue())
    write_text(paths[2], page(result))
    return paths


def lines(summary: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The table for people under ``HEADER``: by label count, best Spearman first, those that failed last."""
    order = sorted(summary, key=lambda s: (s["n_labels"], s["spearman"] is None, -(s["spearman"] or 0.0)))
    return [(str(s["n_labels"]), s["predictor"], spread(s, "spearman"), spread(s, "kendall"),
             str(s["draws"]) if not s["failed"] else f"{s['draws']} of {s['draws'] + s['failed']}",
             seconds(s["fit_s"]), seconds(s["predict_s"]), s["error"] or "") for s in order]


def spread(line: dict[str, Any], key: str) -> str:
    """Mean ± standard deviation, or a dash."""
    if line[key] is None:
        return "–"
    std = line[f"{key}_std"]
    return f"{line[key]:.3f}" + ("" if std is None else f" ± {std:.3f}")


def seconds(value: float | None) -> str:
    """Two significant digits below 10 s."""
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}" if value >= 0.01 else "< 0.01"


def figure(summary: Sequence[dict[str, Any]], criterion: str) -> dict[str, Any]:
    """A criterion against the number of labels: one line a predictor, bars of one standard deviation; plotly, plain JSON."""
    axis = {"spearman": "Spearman ρ on networks not seen", "kendall": "Kendall τ on networks not seen"}[criterion]
    traces = []
    for i, name in enumerate(dict.fromkeys(s["predictor"] for s in summary)):
        mine = [s for s in summary if s["predictor"] == name and s[criterion] is not None]
        if not mine:
            continue
        colour = _COLOURS[i % len(_COLOURS)]
        traces.append({
            "type": "scatter", "mode": "lines+markers", "name": name, "x": [s["n_labels"] for s in mine],
            "y": [s[criterion] for s in mine], "marker": {"size": 7, "color": colour},
            "line": {"color": colour, "dash": _DASHES[i // len(_COLOURS) % len(_DASHES)], "width": 4 if name == OURS else 2},
            "error_y": {"type": "data", "array": [s[f"{criterion}_std"] or 0.0 for s in mine], "thickness": 1, "width": 3},
            "hovertemplate": f"{name}<br>%{{x}} labels: %{{y:.3f}}<extra></extra>"})
    found = _page.figure(traces, "labelled networks", axis)
    counts = sorted({s["n_labels"] for s in summary})
    found["layout"]["xaxis"] |= {"type": "log", "tickvals": counts, "ticktext": [str(c) for c in counts]}
    found["layout"]["height"] = 560
    return found


def page(result: Comparison) -> str:
    """Table and figures as one HTML page that needs nothing but a browser (plotly.js is inside)."""
    c, summary = result.config, result.summary()
    figures = {"fig-spearman": figure(summary, "spearman"), "fig-kendall": figure(summary, "kendall")}
    head = "".join(f"<th>{escape(h)}</th>" for h in HEADER)
    body = "".join("<tr>" + "".join(f"<td>{escape(v)}</td>" for v in line) + "</tr>" for line in lines(summary))
    tested = "all other networks" if c["n_test"] is None else f"{c['n_test']:,} other networks"
    content = f"""<h1>{escape(c['space'])}: {len(c['predictors'])} predictors compared</h1>
<p>Label: {escape(c['metric'])}. {c['seeds']} draws of each number of labels out of {c['pool']:,} networks (seeds from
{c['first_seed']}), the same for every predictor; tested on {tested}, none isomorphic to a labelled one. ± is the standard
deviation over the draws.</p>
<figure><div id="fig-spearman"></div></figure><figure><div id="fig-kendall"></div></figure>
<div class="wide"><table><tr>{head}</tr>{body}</table></div>"""
    return _page.document(f"{c['space']}: predictors compared", content, figures)
