"""Command of this package: ``cg extract``. Bodies import what they need; a framework is imported when a model needs it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cg._terminal import Json
from cg.errors import CGError

if TYPE_CHECKING:
    from extract.extraction import Extraction


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("extract", rich_help_panel="Graphs", no_args_is_help=True,
                epilog="Example: cg extract timm:resnet50 hf:bert model.onnx -o graphs.parquet")(extract)


def extract(
    models: Annotated[list[str], typer.Argument(
        metavar="MODEL...", show_default=False,
        help="timm:resnet50, torchvision:resnet50, timm:'resnet*' (all of that name), hf:config.json or hf:bert, model.onnx, "
             "saved_model/, model.keras, frozen.pb, or package.module:name of a function without arguments that builds a "
             "model, of a module class, or of a model.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Parquet file to write.")],
    inputs: Annotated[list[str] | None, typer.Option(
        "--input", "-i", "--input-shape", metavar="[NAME=]SHAPE[:TYPE]", show_default=False,
        help="An input with the batch first, e.g. 1,3,224,224 or x=1,16:int64; once for each input. Not needed where the model "
             "tells its inputs: timm, torchvision, hf, files without dynamic axes.")] = None,
    name: Annotated[str, typer.Option("--name", help="Name of the graph; by default the model as given.")] = "",
    family: Annotated[str, typer.Option("--family", help="Family of the graphs.")] = "",
    json: Json = False,
) -> None:
    """Write the computation graphs of models. Nothing is downloaded and no weight is needed.

    The current directory is on the import path. A model that fails among several is reported, and the others are written;
    the exit code then is 1.
    """
    from cg import GraphSet
    from cg import _terminal as terminal

    specs = [spec for model in models for spec in expanded(model)]
    if name and len(specs) > 1:
        raise CGError("--name is for one graph; several are named after their models")
    parse_inputs(inputs or [])  # a mistake in them is no fault of a model
    found, failed = _all(specs, inputs or [], name, family, alone=len(specs) == 1)
    if found:
        GraphSet([e.graph for e in found.values()],
                 provenance={"source": " ".join(models), "input_shape": inputs or []}).write(out)
    told = [{"model": spec, **_told(e)} for spec, e in found.items()]
    if json and len(specs) == 1:
        terminal.emit({"out": out, **told[0]})
    elif json:
        terminal.emit({"out": out if found else None, "graphs": told,
                       "failed": [{"model": spec, "error": text} for spec, text in failed.items()]})
    elif len(specs) == 1:
        terminal.console().print(f"wrote {out}: {next(iter(found.values())).graph!r}")
    else:
        terminal.console().print(f"wrote {len(found)} of {len(specs)} graphs" + (f" to {out}" if found else ""))
    if failed:
        raise typer.Exit(1 if found else 2)


def _all(specs: list[str], inputs: list[str], name: str, family: str,
         alone: bool) -> tuple[dict[str, Extraction], dict[str, str]]:
    """Graphs and error messages by model. A single model raises its error."""
    from cg import _terminal as terminal
    from extract.extraction import ExtractionWarning

    found: dict[str, Extraction] = {}
    failed: dict[str, str] = {}
    for i, spec in enumerate(specs):
        before = "" if alone else f"{spec}: "
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExtractionWarning)  # said below
                found[spec] = e = one(spec, inputs, name or graph_name(spec), family)
        except Exception as error:
            if alone:
                raise
            failed[spec] = " ".join(str(error).split()) if isinstance(error, CGError) else f"{type(error).__name__}: {error}"
            terminal.note(f"[{i + 1}/{len(specs)}] error: {spec}: {failed[spec]}")
            continue
        if not alone:
            terminal.note(f"[{i + 1}/{len(specs)}] {spec}: {e.graph.n_nodes} nodes")
        for text in e.notes:
            terminal.note(f"note: {before}{text}")
        for op, count in e.unknown.most_common():
            terminal.note(f"warning: {before}{count} nodes are Unknown: {op} is outside the vocabulary")
    return found, failed


def _told(e: Extraction) -> dict[str, Any]:
    g = e.graph
    return {"name": g.name, "way": e.way, "nodes": g.n_nodes, "edges": g.n_edges, "macs": g.macs, "params": g.params,
            "fingerprint": g.digest, "unknown": dict(e.unknown), "notes": e.notes}


def expanded(model: str) -> list[str]:
    """``timm:resnet*`` as all models of that name; anything else as it is."""
    if not model.startswith(("timm:", "torchvision:")) or not set("*?[") & set(model):
        return [model]
    from extract.zoo import matching

    return matching(model)


def graph_name(spec: str) -> str:
    """What a graph is called by default: a file's name without folder and ending, anything else as it is."""
    return Path(spec).stem if file_kind(spec) else spec


def file_kind(spec: str) -> str:
    """"onnx", "tensorflow" or "torch" for the path of a model file (or of a SavedModel folder), "" for anything else."""
    path = Path(spec)
    if path.suffix == ".onnx":
        return "onnx"
    if path.suffix in (".keras", ".h5", ".pb", ".pbtxt") or (path / "saved_model.pb").is_file():
        return "tensorflow"
    return "torch" if path.suffix in (".pt", ".pth", ".pt2", ".ckpt") else ""


def one(spec: str, inputs: list[str], name: str, family: str) -> Extraction:
    """The graph of one model. Raises ``CGError`` for every mistake in ``spec`` and ``inputs``."""
    import extract

    kind = file_kind(spec)
    if kind in ("onnx", "tensorflow"):
        if not Path(spec).exists():
            raise CGError(f"{spec}: no such file")
        read: Any = extract.from_onnx if kind == "onnx" else extract.from_tensorflow
        return read(spec, input_shapes=shapes_by_name(spec, inputs), name=name, family=family)
    if kind == "torch":
        return extract.from_torch(spec, (1,))  # says why not
    from extract.zoo import load

    model = load(spec)
    if any(base.__module__.split(".")[0] in ("keras", "tensorflow") for base in type(model.factory).__mro__):
        return extract.from_tensorflow(model.factory, input_shapes=shapes_by_name(spec, inputs), name=name, family=family)
    given = parse_inputs(inputs) if inputs else model.inputs
    if given is None:
        raise CGError(f"{spec} does not tell its inputs; give them, e.g. --input 1,3,224,224")
    return extract.from_torch(model.factory, given, name=name, family=family)


def shapes_by_name(spec: str, inputs: list[str]) -> dict[str, tuple[int, ...]] | None:
    """``x=1,3,224,224`` for a model that knows its inputs and their number formats; ``None`` for no inputs."""
    shapes: dict[str, tuple[int, ...]] = {}
    for text in inputs:
        name, shape, _ = split_input(text)
        if not name:
            raise CGError(f"{spec} names its inputs; say which one has the shape, e.g. --input x={text}")
        shapes[name] = shape
    return shapes or None


def parse_inputs(inputs: list[str]) -> Any:
    """Shapes and tensors in a list, or by name in a dict. Raises ``CGError`` if some have a name and some have not."""
    parsed = [split_input(text) for text in inputs]
    named = {name: _tensor(shape, dtype) for name, shape, dtype in parsed if name}
    if not named:
        return [_tensor(shape, dtype) for _, shape, dtype in parsed]
    if len(named) < len(parsed):
        raise CGError("name every --input once, or none of them")
    return named


def split_input(text: str) -> tuple[str, tuple[int, ...], str]:
    """``x=1,16:int64`` -> name, shape, number format; the first and the last may be empty. Raises ``CGError``."""
    name, _, value = text.rpartition("=")
    sizes, _, dtype = value.partition(":")
    try:
        return name, tuple(int(size) for size in sizes.split(",")), dtype
    except ValueError:
        raise CGError(f"input shape {text!r} must be integers joined by commas, e.g. 1,3,224,224") from None


def _tensor(shape: tuple[int, ...], dtype: str) -> Any:
    if not dtype:
        return shape
    import torch

    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype):
        raise CGError(f"input of shape {shape}: torch has no number format {dtype!r}; try float32 or int64")
    if min(shape) < 1:
        raise CGError(f"input shape {shape} must have positive sizes; give the batch size too (1)")
    if kind.is_floating_point or kind.is_complex:
        return torch.empty(shape, dtype=kind, device="meta")
    return torch.ones((), dtype=kind).expand(shape)  # some models read the values of integers
