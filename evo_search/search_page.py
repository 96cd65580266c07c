"""``search_report``: a search as one self-contained page. Drawn from ``SearchSummary``; computes no result.

    search_report(study, "page.html")
    search_report(History.read("run.sqlite"), "page.html")
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evo_search import family_tree
from evo_search._page import document, text
from evo_search._records import Query
from evo_search.history import History
from evo_search.search_figures import curve_figure, described, front_figures, number, outside, predicted_figure
from evo_search.search_summary import SearchSummary, summarise

if TYPE_CHECKING:
    from evo_search.objectives import Objective
    from evo_search.spaces._base import SearchSpace
    from evo_search.study import Study

_ROWS = 30  # of the table of a front
_ERRORS = 8


def search_report(run: Study | History, path: str | Path, *, space: SearchSpace[Any] | None = None,
                  best_possible: float | None = None) -> Path:
    """Write the page of a search to ``path`` (complete or not there) and return it. Asks no oracle.

    Args:
        run: a study or a history, closed or not; of one in memory the page has no other seeds.
        path: the HTML file; its folder is made.
        space: of a history whose space is not registered.
        best_possible: see ``summarise``.

    Raises:
        SearchError, CGError: see ``summarise``.
        StorageError: the file cannot be written, or the database cannot be read.
    """
    from cg.files import write_text

    write_text(path, page(summarise(run, space=space, best_possible=best_possible)))
    return Path(path)


def page(data: SearchSummary) -> str:
    """The page as HTML that needs nothing but a browser (plotly.js is inside)."""
    figures: dict[str, dict[str, Any]] = {}
    first = data.objectives[0]
    best = "nothing found" if data.best is None else f"{data.label(first)} {number(data.best.value)}"
    title = f"{data.space}: {best} after {len(data.queries):,} {'query' if len(data.queries) == 1 else 'queries'}"
    parts = [f'<p class="dim">{text(_version())}, study {text(data.name)}, seed {data.seed}</p><h1>{text(title)}</h1>',
             f"<p>Strategy <b>{text(data.strategy)}</b>, searching for {_wanted(data)}.</p>", _cards(data)]
    if any(q.value is not None for q in data.queries):
        parts += [_curve(data, figures), _fronts(data, figures), _predictions(data, figures), _pictures(data), _tree(data)]
    else:
        parts.append("<p>No evaluation succeeded, so there is nothing to draw.</p>" if data.queries else
                     "<p>Nothing was asked yet.</p>")
    return document(title, "\n".join([*filter(None, parts), _costs(data), _failures(data), _settings(data)]), figures)


def _version() -> str:
    from cg._version import __version__

    return f"cgtransfer {__version__}"


def _wanted(data: SearchSummary) -> str:
    return " and ".join(f"{'large' if o.maximize else 'small'} {text(data.label(o))}" for o in data.objectives)


def _cards(data: SearchSummary) -> str:
    drawn, several = _drawn_best(data), len(data.objectives) > 1
    cards = [(number(data.best.value if data.best else None), f"best {data.label(data.objectives[0])}"),
             (f"{len(data.queries):,}", "queries" + (f", {len(data.failed):,} failed" if data.failed else ""))]
    if several:
        cards.append((f"{len(data.front):,}", "networks in the front"))
    elif drawn:
        cards.append((f"{drawn.params / 1e6:,.3g} M", "parameters of the best"))
    cards.append((duration(sum(q.wall_s for q in data.queries)), "of evaluations"))
    return '<div class="cards">' + "".join(f"<div><b>{text(a)}</b>{text(b)}</div>" for a, b in cards) + "</div>"


def _drawn_best(data: SearchSummary) -> Any:
    return next((d for d in data.drawn if data.best is not None and d.query.step == data.best.step), None)


def _curve(data: SearchSummary, figures: dict[str, dict[str, Any]]) -> str:
    figures["fig-curve"] = shown = curve_figure(data)
    said = [f"Best {text(data.label(data.objectives[0]))} so far; every network asked about counts once, a failed one too."]
    if data.seeds:
        lengths = [len(data.curve), *(len(s.values) for s in data.seeds)]
        others = ", ".join(f"{text(s.name)} (seed {s.seed}, {len(s.values):,} queries)" for s in data.seeds)
        are = "other one is" if len(data.seeds) == 1 else "others are"
        said.append(f"Band: worst to best of {len(lengths)} seeds of the same settings; the {are} {others}.")
        if min(lengths) < max(lengths):
            said.append(f"The band ends with the shortest of them, after {min(lengths):,} queries.")
    elif data.stored:
        said.append("One seed, so there is no band: further ones in the same <code>--history</code>, with <code>--study NAME "
                    "--seed N</code>, are drawn together.")
    else:
        said.append("One seed, so there is no band: with <code>--history FILE</code>, further ones with <code>--study NAME "
                    "--seed N</code> are drawn together.")
    return _figures("Best so far", ["fig-curve"], " ".join(said) + _hidden([shown]))


def _hidden(figures: Sequence[dict[str, Any]]) -> str:
    n = max(map(outside, figures))
    frame = "the frame" if len(figures) == 1 else "a frame"
    return f" {n:,} {'network lies' if n == 1 else 'networks lie'} outside of {frame}." if n else ""


def _fronts(data: SearchSummary, figures: dict[str, dict[str, Any]]) -> str:
    if len(data.objectives) == 1:
        return ""
    names = []
    for i, shown in enumerate(front_figures(data)):
        figures[f"fig-front-{i}"] = shown
        names.append(f"fig-front-{i}")
    what = "network" if len(data.front) == 1 else f"{len(data.front):,} networks"
    said = (f"Orange: the {what} that no other one dominates (is nowhere worse and somewhere better). Point at or touch one to "
            "see which it is." + _hidden([figures[name] for name in names]))
    return _figures("Pareto front", names, said) + _front_table(data)


def _front_table(data: SearchSummary) -> str:
    rows = [q for q in data.queries if q.step in set(data.front)]
    first = data.objectives[0]
    rows.sort(key=lambda q: (first.key(q.values[first.name]), q.step))
    head = "".join(f"<th>{text(data.label(o))}</th>" for o in data.objectives)
    lines = "".join("<tr><td>" + f"{q.step + 1}</td>" + "".join(f"<td>{number(q.values[o.name])}</td>" for o in data.objectives)
                    + f"<td class=name><code>{text(q.genome)}</code></td></tr>" for q in rows[:_ROWS])
    more = f"<p class=dim>{len(rows) - _ROWS:,} further ones are left out.</p>" if len(rows) > _ROWS else ""
    return (f"<details><summary>The {len(rows):,} networks of the front</summary><div class=wide><table><tr><th>query</th>"
            f"{head}<th class=name>network</th></tr>{lines}</table></div>{more}</details>") if rows else ""


def _predictions(data: SearchSummary, figures: dict[str, dict[str, Any]]) -> str:
    told = [o for o in data.objectives if data.predicted(o)]
    if not told:
        why = ("its predictor never came to choose a network that was measured" if "predictor.kind" in data.settings
               and data.settings["predictor.kind"] != "none" else f"{text(data.strategy)} uses none")
        return f"<h2>Predicted and measured</h2><p>There are no predictions to compare: {why}.</p>"
    names, said = [], []
    for i, objective in enumerate(told):
        figures[f"fig-predicted-{i}"] = shown = predicted_figure(data, objective)
        names.append(f"fig-predicted-{i}")
        said.append(f"{_agreement(data, objective)}.{_hidden([shown])}")
    kind = ("A score only orders, it is not in the unit of the measurement." if data.predicts_score else
            "On the dotted line both agree; bars: one standard deviation, where the predictor knows one.")
    lost = sum(1 for q in data.failed if q.predicted)
    return _figures("Predicted and measured", names, " ".join(
        [*said, kind, "Each prediction was made before the network was asked about, by a predictor fitted on the answers so "
         "far; these are the networks that it chose, so all of them look good to it."
         + (f" {lost:,} chosen ones failed." if lost else "")]))


def _agreement(data: SearchSummary, objective: Objective) -> str:
    from finetune import metrics

    rows = data.predicted(objective)
    pairs = [(q.values[objective.name], *q.predicted[objective.name]) for q in rows]
    said = f"{text(data.label(objective))}: {len(pairs):,} {'network' if len(pairs) == 1 else 'networks'}"
    if len({v for v, _, _ in pairs}) > 1 and len({m for _, m, _ in pairs}) > 1:
        said += f", Spearman ρ {metrics.spearman([v for v, _, _ in pairs], [m for _, m, _ in pairs]):.2f}"
    sure = [(v, m, s) for v, m, s in pairs if s is not None]
    if sure and not data.predicts_score:
        said += f", {sum(abs(v - m) <= s for v, m, s in sure):,} of {len(sure):,} within one standard deviation"
    return said


def _figures(title: str, names: Sequence[str], caption: str) -> str:
    return (f"<h2>{title}</h2><figure>" + "".join(f'<div id="{name}"></div>' for name in names)
            + f"<figcaption>{caption}</figcaption></figure>")


def _pictures(data: SearchSummary) -> str:
    if not data.drawn:
        return "<h2>The best networks</h2><p>No network keeps all constraints.</p>"
    out = ["<h2>The best networks</h2>"]
    for i, d in enumerate(data.drawn):
        values = ", ".join(f"{text(data.label(o))} {number(d.query.values[o.name])}" for o in data.objectives)
        facts = (f"{values}; {d.macs / 1e6:,.4g} M MACs, {d.params / 1e6:,.3g} M parameters, {d.nodes:,} nodes")
        width = float(re.findall(r'width="(\d+)"', d.svg)[0])  # a wide picture stays readable and scrolls, a small one small
        picture = (f'<p><code>{text(d.query.genome)}</code></p><figure><div class="picture">'
                   f'<div style="min-width:{0.72 * width:.0f}px;max-width:{1.2 * width:.0f}px">{d.svg}</div></div>'
                   '<figcaption class="tip">Frames are drawn once, ×5 means five in a row. Point at or touch a node to see its '
                   "shapes and costs.</figcaption></figure>")
        head = f"{text(d.why)} (query {d.query.step + 1}): {facts}"
        out.append(f"<details{' open' if i == 0 else ''}><summary>{head}</summary>{picture}</details>")
    return "\n".join(out)


def _tree(data: SearchSummary) -> str:
    if data.best is None:
        return ""
    first, title = data.objectives[0], "<h2>Where the best one comes from</h2>"
    tree = family_tree.family(data.queries, data.best, first)
    if len(tree.members) == 1:
        return f"{title}<p>It has no ancestors: it was not made from another network (source: {text(data.best.source)}).</p>"
    left = (f" {tree.left_out:,} further ancestors are left out; shown are those reached through the best parents."
            if tree.left_out else "")
    picture, x = family_tree.svg(tree, first, lambda q: "\n".join(described(data, q)), number, data.feasible)
    return (f'{title}<figure><div class="tall" data-x="{x:.0f}">{picture}</div><figcaption class="tip">On top the best network'
            f"{' by ' + text(data.label(first)) if len(data.objectives) > 1 else ''}; below each network those it was made "
            f"from by mutation or crossover, newest generation first. Value, number of the query and source; the darker, the "
            f"better among these.{left} Point at or touch one to see it.</figcaption></figure>")


def _costs(data: SearchSummary) -> str:
    n, asked = len(data.queries), sum(q.wall_s for q in data.queries)
    rows = [("queries", f"{n:,}"), ("failed", f"{len(data.failed):,}")]
    broken = n - len(data.failed) - len(data.feasible)
    if broken or any(name.startswith("constraints.") for name in data.settings):
        rows.append(("measured, but break a constraint", f"{broken:,}"))
    rows += [("generations", f"{len({q.generation for q in data.queries}):,}"), ("evaluations, total", duration(asked)),
             ("evaluations, mean of one", duration(asked / n) if n else "–"), ("the search itself", duration(data.plan_s))]
    drawn = _drawn_best(data)
    if drawn:
        rows += [("MACs of the best", f"{drawn.macs:,}"), ("parameters of the best", f"{drawn.params:,}"),
                 ("nodes of the best", f"{drawn.nodes:,}")]
    table = "".join(f"<tr><td>{a}</td><td>{b}</td></tr>" for a, b in rows)
    sources = "".join(f"<tr><td>{text(r['source'])}</td><td>{r['queries']:,}</td><td>{r['failed']:,}</td>"
                      f"<td>{number(r['best'])}</td></tr>" for r in data.sources())
    return (f'<h2>What it cost</h2><div class="wide"><table>{table}</table></div><p class=dim>The search itself: choosing '
            "networks, fits of predictors included. One multiply-add is one MAC.</p>"
            f'<div class="wide"><table><tr><th>source</th><th>queries</th><th>failed</th>'
            f"<th>best {text(data.label(data.objectives[0]))}</th></tr>{sources}</table></div>")


def _failures(data: SearchSummary) -> str:
    if not data.failed:
        return ""
    kinds = Counter(q.error for q in data.failed)
    example: dict[str, Query] = {}
    for q in data.failed:
        example.setdefault(q.error, q)
    rows = "".join(f"<tr><td>{count:,}</td><td>{text(error[:600])}<br><span class=dim>first: query "
                   f"{example[error].step + 1}, <code>{text(example[error].genome)}</code></span>"
                   f"{_log_end(example[error].log)}</td></tr>"
                   for error, count in kinds.most_common(_ERRORS))
    more = f"<p class=dim>{len(kinds) - _ERRORS:,} further kinds are left out.</p>" if len(kinds) > _ERRORS else ""
    return f'<h2>What failed</h2><table class="text">{rows}</table>{more}'


def _log_end(log: str) -> str:
    lines = [line for line in log.splitlines() if line.strip()][-4:]
    return f'<br><code>{"<br>".join(text(line[:300]) for line in lines)}</code>' if lines else ""


def _settings(data: SearchSummary) -> str:
    rows = "".join(f"<tr><td>{text(name)}</td><td>{'–' if value is None or value == {} else text(value)}</td></tr>"
                   for name, value in data.settings.items())
    return f'<details><summary>Settings</summary><table class="text">{rows}</table></details>'


def duration(seconds: float) -> str:
    """Seconds for people: two or three digits, minutes and hours where there are many."""
    if seconds < 0.01:
        return "< 0.01 s" if seconds else "0 s"
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
