"""Commands about single graphs: ``cg show``. Search spaces are found through their entry points, never imported."""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from cg._terminal import Json
from cg.errors import CGError, StorageError

if TYPE_CHECKING:
    from cg.graph import Graph


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.command("show", cls=_ShowCommand, rich_help_panel="Graphs", no_args_is_help=True,
                epilog="Example: cg show graphs.parquet:0 --html net.html")(show)


def show(
    graph: Annotated[str, typer.Argument(help="graphs.parquet (first graph), graphs.parquet:ROW, or SPACE:GENOME.")],
    html: Annotated[str | None, typer.Option("--html", metavar="[PATH.html]", help="Write a web page to explore the graph: "
                                             "zoom, search, table. Without a path: NAME.html in this folder.")] = None,
    svg: Annotated[Path | None, typer.Option("--svg", help="Write a picture as SVG.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Draw repeated blocks as often as they occur.")] = False,
    json: Json = False,
) -> None:
    """Show one graph: operators, shapes, MACs and parameters; on request a picture."""
    from cg import _terminal as terminal
    from cg import draw, page
    from cg.files import write_text

    g = find_graph(graph)
    written = []
    for path, make in ((_page_name(g) if html == "" else html, page.html), (svg, draw.svg)):
        if path is not None:
            write_text(path, make(g, collapse=not full))
            written.append(str(path))
    found = draw.summary(g)
    if json:
        terminal.emit({**found, "written": written})
        return
    rows = [(r["op"], r["count"], r["macs"], r["params"], ", ".join(r["shapes"])) for r in found["ops"]]
    terminal.table(g.name or graph, ("operator", "nodes", "MACs", "parameters", "output shapes"), rows)
    out = terminal.console()
    out.print(f"{g.n_nodes:,} nodes, {g.n_edges:,} edges, {g.macs:,} MACs (one multiply-add = 1), {g.params:,} "
              f"parameters, {g.activation_bytes:,} bytes of activations, fingerprint {g.digest}")
    for name in written:
        terminal.note(f"wrote {name}")


class _ShowCommand(TyperCommand):
    """``--html`` with or without a path: what follows is the path only if it ends in .html or .htm (else ``--html=PATH``)."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        words, following = [], [*args[1:], ""]
        for word, then in zip(args, following, strict=True):
            bare = word == "--html" and not then.lower().endswith((".html", ".htm"))
            words.append("--html=" if bare else word)
        return super().parse_args(ctx, words)


def _page_name(graph: Graph) -> str:
    """A plain file name in the current folder, whatever the name of the graph holds."""
    name = re.sub(r"[^\w.+-]+", "_", graph.name).strip("._")[:80]
    return f"{name or graph.digest[:12]}.html"


def find_graph(text: str) -> Graph:
    """The graph that ``file.parquet[:row]`` or ``space:genome`` names. ``CGError`` says which of the two is wrong."""
    head, _, tail = text.partition(":")
    spaces = {e.name: e for e in entry_points(group="cg.spaces")}
    if head in spaces and tail:
        space = spaces[head].load()()
        found: Graph = space.to_graph(space.decode(tail))
        return found
    from cg.graphset import GraphSet

    path, _, row = text.rpartition(":")
    if not (path and row.lstrip("-").isdigit()):
        path, row = text, "0"
    if not Path(path).exists():
        raise StorageError(f"{text!r} is neither a file of graphs nor SPACE:GENOME with one of these spaces: "
                           f"{', '.join(sorted(spaces)) or 'none are installed'}")
    graphs = GraphSet.read(path)
    if not -len(graphs) <= int(row) < len(graphs):
        raise CGError(f"{path} has {len(graphs)} graphs, so no row {row} (rows count from 0)")
    return graphs[int(row)]
