"""Commands of this package: ``cg spaces``, ``export``, ``latency``, ``evaluate``, ``compare``, ``demo``.

``search`` has a file of its own. Bodies import what they need.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cg._terminal import Json, Seed
from evo_search.search_cli import search


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    def add(name: str, body: Any, panel: str, example: str, bare: bool = True) -> None:
        app.command(name, rich_help_panel=panel, no_args_is_help=not bare, epilog=f"Example: {example}")(body)

    add("spaces", spaces, "Graphs", "cg spaces --json")
    add("export", export, "Graphs", "cg export nasbench201 -o graphs.parquet --n 2000 --labels", bare=False)
    add("latency", latency, "Graphs", "cg latency graphs.parquet -o latency.csv --runs 1000 --threads 1", bare=False)
    add("evaluate", evaluate, "Learning", "cg evaluate --target nasbench201 --draws 5 -o results.json", bare=False)
    add("compare", compare, "Learning", "cg compare --space nasbench201 --labels 40,100,400 --seeds 5 -o compare",
        bare=False)
    add("search", search, "Search", "cg search nasbench201 --budget 90 --history run.sqlite --seed 0", bare=False)
    add("demo", demo, "Search", "cg demo -o report")


def spaces(json: Json = False) -> None:
    """List the search spaces, and the benchmark tables that belong to them."""
    from cg import _terminal as terminal
    from evo_search import tables
    from evo_search.spaces import get_space, list_spaces

    found = []
    for name in list_spaces():
        space = get_space(name)
        row: dict[str, Any] = {"name": name, "family": space.family, "input_shape": list(space.input_shape),
                               "classes": space.num_classes, "table_rows": 0, "default_metric": None, "metrics": []}
        if name in tables.names():
            t = tables.load(name)
            row |= {"table_rows": t.n, "default_metric": t.default_metric, "metrics": list(t.metrics)}
        found.append(row)
    if json:
        terminal.emit(found)
        return
    terminal.table("search spaces", ("space", "family", "default metric", "input", "classes", "rows in table"),
                   [(r["name"], r["family"], r["default_metric"] or "–", "×".join(map(str, r["input_shape"][1:])),
                     r["classes"], r["table_rows"]) for r in found], 3)


def export(
    space: Annotated[str, typer.Argument(help="A name that 'cg spaces' lists.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Parquet file to write.")],
    n: Annotated[int, typer.Option("--n", min=1, help="How many different networks.")] = 2000,
    labels: Annotated[bool, typer.Option("--labels", help="Keep the table's metrics; only networks that have one.")] = False,
    labels_csv: Annotated[Path | None, typer.Option(
        "--labels-csv", help="Also write the default metric of the first --n-labels graphs as id,<metric>.")] = None,
    n_labels: Annotated[int, typer.Option("--n-labels", min=1, help="Lines of --labels-csv.")] = 40,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Write graphs of a space: rows of its benchmark table where it has one, random networks else."""
    from cg import _terminal as terminal
    from cg.label_file import write_table
    from evo_search.export import export as run

    with terminal.progress(f"building graphs of {space}", n) as advance:
        found = run(space, n, seed, labels=labels or labels_csv is not None,
                    progress=lambda done, total: advance(done=done, total=total))
        found.write(out)
    if labels_csv is not None:
        metric = found.provenance["default_metric"]
        write_table(labels_csv, ("id", metric),
                    list(zip(found.ids[:n_labels], found.labels[metric][:n_labels].tolist(), strict=True)))
    if json:
        terminal.emit({"out": out, "graphs": len(found), "labels": list(found.labels), "labels_csv": labels_csv,
                       "seed": seed})
    else:
        terminal.console().print(f"wrote {out}: {len(found):,} graphs"
                                 + (f", labels {', '.join(found.labels)}" if found.labels else "")
                                 + (f"; {labels_csv}: {min(n_labels, len(found))} labels" if labels_csv else ""))


def latency(
    graphs: Annotated[Path, typer.Argument(help="Parquet file of graphs, as 'cg extract' and 'cg export' write it.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="CSV table; ids that it has are not measured again.")],
    runs: Annotated[int, typer.Option("--runs", min=1, help="Timed passes of each graph.")] = 1000,
    warmup: Annotated[int, typer.Option("--warmup", min=0, help="Passes before these.")] = 50,
    max_seconds: Annotated[float, typer.Option(
        "--max-seconds", help="Time for one graph; a slow one gets fewer runs, but 8.")] = 60.0,
    backend: Annotated[str, typer.Option("--backend", help="'torch' or 'onnxruntime'.")] = "torch",
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads of the computation.")] = 1,
    layers: Annotated[bool, typer.Option(
        "--layers", help="Measure every distinct layer of the graphs by itself; its id is its description.")] = False,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Measure how long graphs take on this machine, in milliseconds.

    Networks get fresh weights and run one input at a time; the mean is over the runs between the quartiles. An interrupted
    run goes on where it was. Graphs that cannot run are reported, and the others measured; the exit code then is 1.
    """
    from cg import GraphSet
    from cg import _terminal as terminal
    from evo_search.latency import layer_graphs, measure_set

    found = GraphSet.read(graphs)
    if layers:
        found = layer_graphs(found.graphs)
    with terminal.progress("measuring", len(found)) as advance:
        done, failed = measure_set(found, out, runs, warmup, backend, threads, max_seconds=max_seconds, seed=seed,
                                   progress=lambda n, total, key: advance(done=n, total=total, note=key[:40]))
    for key, text in failed.items():
        terminal.note(f"error: {key}: {text}")
    if json:
        terminal.emit({"out": out, "graphs": len(found), "measured": done, "failed": failed, "backend": backend,
                       "threads": threads, "runs": runs, "seed": seed})
    else:
        terminal.console().print(f"wrote {out}: {done:,} of {len(found):,} measured, {len(found) - done - len(failed):,} were "
                                 f"there, {len(failed):,} failed")
    if failed:
        raise typer.Exit(1)


def evaluate(
    target: Annotated[str, typer.Option("--target", help="nasbench101, nasbench201, nasbench201-all or nasbench301.")],
    draws: Annotated[int, typer.Option("--draws", min=1, help="Independent draws of the labels.")] = 5,
    labels: Annotated[int | None, typer.Option("--labels", min=2, help="Labels a draw; else 50, 40, 40, 50 by target.")] = None,
    methods: Annotated[str | None, typer.Option("--methods", help="Rows of the table, joined by commas; else all.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="JSON file for every single result.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Draw d takes its labels with seed + d.")] = 1000,
    json: Json = False,
) -> None:
    """Run the published protocol: few labels of one benchmark, the other two as sources, rank what is unseen."""
    from cg import _terminal as terminal
    from cg._version import __version__
    from cg.files import write_json
    from evo_search import targets

    chosen = targets.METHODS if methods is None else tuple(m.strip() for m in methods.split(",") if m.strip())
    about = targets.get_target(target)
    makers = targets.make_methods(target, chosen)

    from finetune import protocol

    with terminal.progress(f"evaluating on {target}") as advance:
        rows = protocol.evaluate(targets.pool(target), about.metric, makers, n_labels=labels or about.n_labels, draws=draws,
                                 seed=seed, n_test=about.n_test, target=target,
                                 progress=lambda what, done, total: advance(done=done, total=total, note=what))
    summary = protocol.summarize(rows)
    result = {"version": __version__, "config": {"target": target, "metric": about.metric, "draws": draws, "seed": seed,
                                                 "labels": labels or about.n_labels, "methods": chosen},
              "summary": summary, "rows": rows}
    if out is not None:
        write_json(out, result)
    if json:
        terminal.emit(result)
        return
    terminal.table(f"{target}, {labels or about.n_labels} labels, mean ± standard deviation over {draws} draws",
                   ("method", "Spearman ρ", "Kendall τ", "tested", "fit s", "predict s"),
                   [(s["method"], f"{s['spearman']:.4f} ± {s['spearman_std']:.4f}",
                     f"{s['kendall']:.4f} ± {s['kendall_std']:.4f}", s["n_test"], f"{s['fit_s']:.1f}",
                     f"{s['predict_s']:.1f}") for s in summary])
    if out is not None:
        terminal.note(f"wrote {out}")


def compare(
    space: Annotated[str, typer.Option("--space", help="A name that 'cg spaces' lists, with a benchmark table.")],
    predictors: Annotated[str, typer.Option(
        "--predictors", help="Names or groups (all, cheap, learned, dear), joined by commas; see docs/rivals.md.")] = "all",
    labels: Annotated[str, typer.Option("--labels", help="Label counts, joined by commas.")] = "40,100,400",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Label draws for each count.")] = 5,
    n_test: Annotated[int, typer.Option("--n-test", min=0, help="Random test networks of each draw; 0 for all.")] = 1000,
    metric: Annotated[str | None, typer.Option("--metric", help="Label to rank by, else the table's default metric.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder; an unfinished comparison in it goes on.")] = Path("compare"),
    seed: Annotated[int, typer.Option("--seed", help="Draw d takes labels and test networks with seed + d.")] = 1000,
    json: Json = False,
) -> None:
    """Compare predictors on the same label draws and test sets: one table, one figure."""
    from cg import _terminal as terminal
    from cg._version import __version__
    from cg.errors import CGError
    from evo_search import comparison, comparison_report

    try:
        counts = [int(n) for n in labels.split(",") if n.strip()]
    except ValueError:
        raise CGError(f"--labels is a list of whole numbers such as 40,100,400, got {labels!r}") from None
    with terminal.progress(f"comparing on {space}") as advance:
        result = comparison.compare(
            space, predictors, counts, seeds, n_test=n_test or None, metric=metric, first_seed=seed, out=out,
            progress=lambda what, done, total: advance(done=done, total=total, note=what))
    paths = comparison_report.write(result, out)
    summary = result.summary()
    if json:
        terminal.emit({"version": __version__, "config": result.config, "summary": summary, "rows": result.rows})
        return
    width = len(comparison_report.HEADER) - all(s["error"] is None for s in summary)
    terminal.table(f"{space}, {result.config['metric']}: mean ± standard deviation over {seeds} label draws",
                   comparison_report.HEADER[:width], [line[:width] for line in comparison_report.lines(summary)], 2)
    terminal.note(f"wrote {', '.join(map(str, paths))}")


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for report.html and report.json.")] = Path("report"),
    draws: Annotated[int, typer.Option("--draws", min=1, help="Draws of the 40 labels.")] = 5,
    searches: Annotated[int, typer.Option("--searches", min=1, help="Seeds of the searches.")] = 5,
    encoder: Annotated[str, typer.Option("--encoder", help="Shipped name or folder; else one that never saw this family."
                                         )] = "default-without-nasbench201",
    seed: Seed = 0,
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Reuse what earlier runs computed.")] = True,
    json: Json = False,
) -> None:
    """Run the main job on NAS-Bench-201: rank 15,284 networks from 40 labels, search, and write a report."""
    from evo_search.demo import run

    run(out, draws=draws, searches=searches, encoder=encoder, seed=seed, use_cache=cache, json=json)
