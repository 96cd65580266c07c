"""The report as one self-contained page, drawn from ``ReportData`` and nothing else. Computes no result.

The figures are plain JSON values for plotly.js, so they can be tested and reused without a browser.
"""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np

from evo_search._page import GREEN, GREY, INK, ORANGE, document, figure, padded
from evo_search.report import ReportData


def scatter_figure(data: ReportData) -> dict[str, Any]:
    """Predicted score against measured value."""
    p = data.points
    traces = []
    for labelled, name, colour, size in ((False, "not seen", INK, 4), (True, "labelled", ORANGE, 9)):
        rows = [i for i, flag in enumerate(p.labelled) if flag is labelled]
        traces.append({
            "type": "scatter", "mode": "markers", "name": name, "x": [p.true[i] for i in rows],
            "y": [p.predicted[i] for i in rows], "text": [p.ids[i] for i in rows],
            "marker": {"color": colour, "size": size, "opacity": 0.9 if labelled else 0.45},
            "hovertemplate": f"%{{text}}<br>{data.metric} %{{x:.2f}}<br>score %{{y:.3f}}<extra></extra>"})
    low, high = np.nanpercentile(p.true, [2, 100])
    return figure(traces, data.metric, "predicted score", x_range=[float(low) - 0.3, float(high) + 0.2],
                  y_range=padded([y for x, y in zip(p.true, p.predicted, strict=True) if x >= low]))


def score_figure(data: ReportData) -> dict[str, Any]:
    """Spearman correlation of every method, one dot a draw."""
    rows = data.summary()[::-1]
    traces = [{
        "type": "scatter", "mode": "markers", "name": row["method"], "showlegend": False,
        "x": [s.spearman for s in data.scores if s.method == row["method"]],
        "y": [row["method"]] * row["draws"],
        "marker": {"size": 11, "opacity": 0.75, "color": INK if i == len(rows) - 1 else GREY},
        "hovertemplate": "%{y}: ρ = %{x:.4f}<extra></extra>"} for i, row in enumerate(rows)]
    found = figure(traces, "Spearman ρ on networks not seen", "")
    found["layout"]["height"] = 90 + 42 * len(rows)
    found["layout"]["margin"]["l"] = 150
    return found


def search_figure(data: ReportData) -> dict[str, Any]:
    """Best value so far against the number of queries."""
    traces: list[dict[str, Any]] = []
    for strategy, colour in zip(dict.fromkeys(c.strategy for c in data.curves), (INK, GREY, GREEN), strict=False):
        mean, worst, best = data.band(strategy)
        x = list(range(1, len(mean) + 1))
        traces.append({"type": "scatter", "x": x + x[::-1], "y": [*best, *worst[::-1]], "fill": "toself",
                       "mode": "lines", "fillcolor": f"{colour}33", "line": {"width": 0}, "hoverinfo": "skip",
                       "showlegend": False})
        traces.append({"type": "scatter", "mode": "lines", "name": strategy, "x": x, "y": list(mean),
                       "line": {"color": colour, "width": 2.5},
                       "hovertemplate": f"{strategy}<br>%{{x}} queries: %{{y:.3f}}<extra></extra>"})
    n = max(len(c.values) for c in data.curves)
    traces.append({"type": "scatter", "mode": "lines", "name": "best in the table", "x": [1, n],
                   "y": [data.best_possible] * 2, "line": {"color": GREEN, "dash": "dot", "width": 1.5},
                   "hoverinfo": "skip"})
    floor = min(float(data.band(c.strategy)[0][min(9, len(c.values) - 1)]) for c in data.curves)
    gap = data.best_possible - floor
    return figure(traces, "networks asked about", f"best {data.metric} so far",
                  y_range=[floor - 0.35 * gap, data.best_possible + 0.1 * gap] if gap > 0 else None)


def map_figure(data: ReportData) -> dict[str, Any]:
    """Embeddings in two dimensions, coloured by the rank of the measured value."""
    p = data.points
    rank = np.argsort(np.argsort(p.true)) / max(len(p.true) - 1, 1) * 100
    marks = {"size": 5, "opacity": 0.85, "color": list(rank), "colorscale": "Viridis",
             "colorbar": {"title": {"text": "rank, %"}, "thickness": 10, "len": 0.8}}
    trace = {"type": "scatter", "mode": "markers", "x": list(p.map_x), "y": list(p.map_y), "marker": marks,
             "text": list(p.ids), "customdata": list(p.true), "showlegend": False,
             "hovertemplate": f"%{{text}}<br>{data.metric} %{{customdata:.2f}}<extra></extra>"}
    found = figure([trace], "", "")
    for axis in ("xaxis", "yaxis"):
        found["layout"][axis]["visible"] = False
    return found


def page(data: ReportData) -> str:
    """The report as one HTML page that needs nothing but a browser (plotly.js is inside)."""
    rows, config = data.summary(), data.config
    ours, draws = rows[0], max(r["draws"] for r in rows)
    ours = next((r for r in rows if r["method"] == config.get("method")), ours)
    figures = {"fig-scores": score_figure(data), "fig-scatter": scatter_figure(data), "fig-search": search_figure(data),
               "fig-map": map_figure(data)}
    unseen = int(np.mean(data.unseen))
    table = "".join(
        f"<tr{' class=first' if r is ours else ''}><td>{escape(r['method'])}</td>"
        f"<td>{_pm(r, 'spearman')}</td><td>{_pm(r, 'kendall')}</td><td>{r['draws']}</td><td>{r['fit_s']:.1f}</td>"
        f"<td>{r['predict_s']:.1f}</td></tr>" for r in rows)
    found = "".join(
        f"<tr><td>{escape(s['strategy'])}</td><td>{s['mean']:.3f} ± {s['std']:.3f}</td><td>{s['worst']:.3f}</td>"
        f"<td>{s['best']:.3f}</td><td>{s['optimum_found']} of {s['seeds']}</td></tr>" for s in data.searches())
    guided = data.searches()[0]
    best, n_points = data.best, len(data.points.ids)
    spread = "one draw, no error bar" if draws == 1 else f"± is the standard deviation over {draws} draws"
    settings = "".join(f"<tr><td>{escape(str(k))}</td><td style='white-space:normal'>{escape(_words(v))}</td></tr>"
                       for k, v in {**config, **{f"{k}, s": round(v, 1) for k, v in data.seconds.items()},
                                    "from the cache": ", ".join(data.reused) or "nothing", **data.versions}.items())
    body = f"""<p class="dim">cgtransfer {escape(data.versions.get('cgtransfer', ''))}, seed {config['seed']}</p>
<h1>{config['n_labels']} labels rank {unseen:,} unseen networks</h1>
<p>Target: {escape(str(config['target']))}, {escape(data.metric)}. The encoder was pre-trained on other families of
networks, the prior knowledge comes from labels of {escape(' and '.join(config['sources']) or 'no other family')}.</p>
<div class="cards"><div><b>{ours['spearman']:.3f}</b>Spearman ρ</div><div><b>{ours['kendall']:.3f}</b>Kendall τ</div>
<div><b>{guided['mean']:.2f} %</b>best found in {config['budget']} queries</div>
<div><b>{guided['optimum_found']} of {guided['seeds']}</b>searches found the optimum</div></div>
<h2>How well each way ranks</h2>
<div class="wide"><table><tr><th>method</th><th>Spearman ρ</th><th>Kendall τ</th><th>draws</th><th>fit, s</th>
<th>predict, s</th></tr>{table}</table></div>
<figure><div id="fig-scores"></div><figcaption>One dot is one draw of {config['n_labels']} labels among {data.networks:,} valid
networks (seed {config['seed']}); {spread}. Tested on all {unseen:,} networks whose graph is not among the labelled
ones. Parameters and MACs need no labels. Isomorphic networks are scored once, embeddings are computed beforehand: the
seconds are without them.</figcaption></figure>
<h2>Predicted and true</h2>
<figure><div id="fig-scatter"></div><figcaption>First draw; {n_points:,} networks drawn at random of {data.networks:,} (the
numbers above use all). The lowest 2 % of accuracies lie outside the frame. The score is on the scale of the
labels, but its order is what counts.</figcaption></figure>
<h2>Search</h2>
<figure><div id="fig-search"></div><figcaption>Mean of {guided['seeds']} seeds, band: worst to best seed. Every
network asked about counts once; dotted: the best of the table, {data.best_possible:.3f}.</figcaption></figure>
<div class="wide"><table><tr><th>strategy</th><th>best after {config['budget']}</th><th>worst seed</th><th>best seed</th>
<th>optimum found</th></tr>{found}</table></div>
<h2>Map of the embeddings</h2>
<figure><div id="fig-map"></div><figcaption>{escape(data.map_method)} of the encoder's {n_points:,} embeddings; it has seen no
network of this family. Colour: rank of the measured value among them.</figcaption></figure>
<h2>The best network found</h2>
<p><code>{escape(str(best['id']))}</code><br>{escape(data.metric)}: {best['value']:.3f}; {best['macs'] / 1e6:,.1f} M MACs,
{best['params'] / 1e6:,.3f} M parameters, {best['nodes']} nodes</p>
<figure><div class="picture">{data.best_svg}</div><figcaption class="tip">Frames are drawn once, ×5 means five in a row.
Point at or touch a node to see its shapes and costs.</figcaption></figure>
<h2>How this came to be</h2><div class="wide"><table>{settings}</table></div>"""
    return document(f"{config['target']}: ranked from {config['n_labels']} labels", body, figures)


def _words(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value)) or "none"
    return "all" if value is None else str(value)


def _pm(row: dict[str, Any], name: str) -> str:
    return f"{row[name]:.3f}" + (f" ± {row[name + '_std']:.3f}" if row["draws"] > 1 else "")
