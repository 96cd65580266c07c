"""``cg suggest``, ``cg finetune``, ``cg predict`` and ``cg explain``. Bodies import what they need, when they run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cg._terminal import Json, Seed

if TYPE_CHECKING:
    from cg import Graph, GraphSet

_GRAPHS = typer.Option("--graphs", help="Parquet file of graphs.")


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    def add(name: str, body: Any, example: str) -> None:
        app.command(name, rich_help_panel="Learning", no_args_is_help=True, epilog=f"Example: {example}")(body)

    add("suggest", suggest, "cg suggest --graphs g.parquet --n 40 -o to_label.csv")
    add("finetune", finetune, "cg finetune --graphs g.parquet --labels labels.csv -o predictor")
    add("predict", predict, "cg predict --predictor predictor --graphs g.parquet -o scores.csv")
    add("explain", explain, "cg explain --predictor predictor --graphs g.parquet --id 17")


def suggest(
    graphs: Annotated[Path, _GRAPHS],
    out: Annotated[Path, typer.Option("--out", "-o", help="CSV for the ids, the most telling network first.")],
    n: Annotated[int, typer.Option("--n", min=1, help="How many networks to label.")] = 40,
    labels: Annotated[Path | None, typer.Option("--labels", help="CSV of the labels that are there already.")] = None,
    metric: Annotated[str | None, typer.Option("--metric", help="Column of the CSV, where it has several.")] = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Say which networks to label first: those whose answers say most about all the others."""
    from cg import _terminal as terminal
    from cg.graphset import GraphSet
    from cg.label_file import write_table

    data = GraphSet.read(graphs)
    _, labelled, rest = _by_label(data, labels, metric)

    from finetune.suggestion import suggest as choose

    with terminal.progress(f"choosing {n} of {len(rest):,} networks", 1) as advance:
        ids = [data.ids[rest[i]] for i in choose([data.graphs[i] for i in rest], n, labelled, seed)]
        advance()
    write_table(out, ("id",), [(key,) for key in ids])
    if json:
        terminal.emit({"out": out, "ids": ids})
    else:
        terminal.console().print(f"wrote {out}: {len(ids)} networks to label, the most telling first")


def finetune(
    graphs: Annotated[Path, _GRAPHS],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the predictor.")],
    labels: Annotated[Path | None, typer.Option(
        "--labels", help="CSV with the header id,<metric>; some of the graphs. Without: other families decide.")] = None,
    encoder: Annotated[str, typer.Option("--encoder", help="Folder of 'cg pretrain', or a shipped name.")] = "none",
    sources: Annotated[str | None, typer.Option(
        "--sources", help="Labelled families to learn from: names and Parquet files joined by commas, or 'none'; "
                          "else all shipped ones but the target's own.")] = None,
    metric: Annotated[str | None, typer.Option("--metric", help="Column of the CSV, where it has several.")] = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Learn to rank a family of networks from a few labels, or from none.

    Graphs without a label tell which part of what other families teach applies to this one.
    """
    from cg import _terminal as terminal
    from cg.graphset import GraphSet

    data = GraphSet.read(graphs)
    known, labelled, rest = _by_label(data, labels, metric)

    from finetune import CGPredictor

    learned = f"learned from {len(known)} labels" if known else "no label yet, the order that other families suggest"
    with terminal.progress(f"learning from {len(known) or 'no'} labels", 1) as advance:
        predictor = CGPredictor(None if encoder == "none" else encoder, sources=parse_sources(sources), random_state=seed)
        predictor.fit(labelled, list(known.values()), unlabelled=[data.graphs[i] for i in rest[::-(-len(rest) // 1000) or 1]])
        predictor.save(out)
        doubts = predictor.doubts([data.graphs[i] for i in rest])
        advance()
    if json:
        terminal.emit({"predictor": out, "labels": len(known), "encoder": encoder, "sources": sources, "seed": seed,
                       "doubts": doubts})
    else:
        terminal.console().print(f"wrote {out}: {learned}")
        for doubt in doubts:
            terminal.note(doubt)


def predict(
    predictor: Annotated[Path, typer.Option("--predictor", help="Folder that 'cg finetune' wrote.")],
    graphs: Annotated[Path, _GRAPHS],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="CSV for id,score in the order of the graphs.")] = None,
    std: Annotated[bool, typer.Option("--std", help="Add the standard deviation of every score.")] = False,
    top: Annotated[int, typer.Option("--top", min=0, help="How many of the best to print.")] = 10,
    json: Json = False,
) -> None:
    """Score graphs with a predictor; larger is better, and the order is what counts."""
    import numpy as np

    from cg import _terminal as terminal
    from cg.graphset import GraphSet
    from cg.label_file import write_table

    data = GraphSet.read(graphs)

    from finetune import CGPredictor

    with terminal.progress(f"scoring {len(data):,} graphs", 1) as advance:
        model = CGPredictor.load(predictor)
        columns = list(model.predict(data.graphs, return_std=True)) if std else [model.predict(data.graphs)]
        doubts = model.doubts(data.graphs)
        advance()
    names = ("id", "score", "std")[: 1 + len(columns)]
    rows = list(zip(data.ids, *(np.asarray(c, np.float64).tolist() for c in columns), strict=True))
    if out is not None:
        write_table(out, names, rows)
    if json:
        terminal.emit({"out": out, "scores": [dict(zip(names, r, strict=True)) for r in rows], "doubts": doubts})
        return
    best = sorted(rows, key=lambda r: -float(r[1]))[:top]
    terminal.table(f"the best {len(best)} of {len(rows):,}", ("rank", *names), [(i, *r) for i, r in enumerate(best, 1)], 2)
    for doubt in doubts:
        terminal.note(doubt)
    if out is not None:
        terminal.note(f"wrote {out}")


def explain(
    predictor: Annotated[Path, typer.Option("--predictor", help="Folder that 'cg finetune' wrote.")],
    graphs: Annotated[Path, _GRAPHS],
    key: Annotated[str, typer.Option("--id", help="Which of the graphs.")],
    json: Json = False,
) -> None:
    """Say where a score comes from: the nearest known networks, and the statistics that moved it."""
    from cg import _terminal as terminal
    from cg.errors import CGError
    from cg.graphset import GraphSet

    data = GraphSet.read(graphs)
    if key not in data.ids:
        raise CGError(f"no graph {key!r} in {graphs}; its {len(data)} ids begin with {', '.join(map(repr, data.ids[:3]))}")

    from finetune import CGPredictor

    found = CGPredictor.load(predictor).explain(data.graphs[data.ids.index(key)])
    if json:
        terminal.emit(found.to_dict())
    else:
        terminal.console().print(str(found), markup=False, highlight=False)


def _by_label(data: GraphSet, labels: Path | None, metric: str | None) -> tuple[dict[str, float], list[Graph], list[int]]:
    """Labels by id, the graphs that have them in the same order, and the rows of those without that can be learned from."""
    from cg.label_file import read_labels

    known = read_labels(labels, data.ids, metric) if labels is not None else {}
    row = {key: i for i, key in enumerate(data.ids)}
    rest = [i for key, i in row.items() if key not in known and not data.graphs[i].unknown]
    return known, [data.graphs[row[key]] for key in known], rest


def parse_sources(text: str | None) -> Any:
    """The ``sources`` of ``CGPredictor``: None for the default, ``()`` for "none", else a list of names and paths."""
    if text is None:
        return None
    names = [t.strip() for t in text.split(",") if t.strip()]
    return () if names == ["none"] or not names else names
