"""Command of this package: ``cg extract``. Bodies import what they need; torch is imported when a model is extracted."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from cg._terminal import Json
from cg.errors import CGError


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("extract", rich_help_panel="Graphs", no_args_is_help=True,
                epilog="Example: cg extract torch.nn:Identity -o graph.parquet --input-shape 1,3,224,224")(extract)


def extract(
    model: Annotated[str, typer.Argument(help="package.module:name of a function without arguments that builds a "
                                              "torch.nn.Module, of a module class, or of a module.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Parquet file to write.")],
    input_shape: Annotated[list[str], typer.Option("--input-shape", help="Shape with the batch first, e.g. 1,3,224,224; "
                                                   "once for each input; append :int64 for token numbers.")],
    name: Annotated[str, typer.Option("--name", help="Name of the graph.")] = "",
    family: Annotated[str, typer.Option("--family", help="Family of the graph.")] = "",
    json: Json = False,
) -> None:
    """Write the computation graph of a PyTorch model. The current directory is on the import path."""
    from cg import GraphSet
    from cg import _terminal as terminal
    from extract import ExtractionWarning, from_torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtractionWarning)  # said below
        found = from_torch(find(model), [parse_input(text) for text in input_shape], name=name or model, family=family)
    GraphSet([found.graph], provenance={"source": model, "input_shape": list(input_shape)}).write(out)
    for text in found.notes:
        terminal.note(f"note: {text}")
    for op, count in found.unknown.most_common():
        terminal.note(f"warning: {count} nodes are Unknown: {op} is outside the vocabulary")
    g = found.graph
    if json:
        terminal.emit({"out": out, "nodes": g.n_nodes, "edges": g.n_edges, "macs": g.macs, "params": g.params,
                       "fingerprint": g.digest, "unknown": dict(found.unknown), "notes": found.notes})
    else:
        terminal.console().print(f"wrote {out}: {g!r}")


def find(path: str) -> Any:
    """The object that ``package.module:name`` names. Raises ``CGError`` saying which part does not exist."""
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise CGError(f"{path!r} is not package.module:name, e.g. my_models.vit:build")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        value: Any = import_module(module_name)
    except ImportError as error:
        raise CGError(f"cannot import {module_name!r}: {error}") from error
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise CGError(f"{module_name} has no {attribute!r}")
        value = getattr(value, part)
    return value


def parse_input(text: str) -> Any:
    """``1,3,224,224`` -> a shape; ``1,16:int64`` -> a meta tensor of that dtype. Raises ``CGError`` on anything else."""
    sizes, _, dtype = text.partition(":")
    try:
        shape = tuple(int(size) for size in sizes.split(","))
    except ValueError:
        raise CGError(f"input shape {text!r} must be integers joined by commas, e.g. 1,3,224,224") from None
    if not dtype:
        return shape
    import torch

    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype):
        raise CGError(f"input shape {text!r}: torch has no number format {dtype!r}; try float32 or int64")
    return torch.empty(shape, dtype=kind, device="meta")
