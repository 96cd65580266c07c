"""Commands of this package: ``cg pretrain``. Bodies import what they need, when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cg._terminal import Json, Seed


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.command("pretrain", rich_help_panel="Learning", no_args_is_help=True,
                epilog="Example: cg pretrain graphs.parquet -o encoder --steps 300 --seed 0")(pretrain)


def pretrain(
    graphs: Annotated[list[Path], typer.Argument(help="Parquet files of graphs; a label is used where a file has one.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the encoder.")],
    config: Annotated[str, typer.Option("--config", help="'default', or 'paper': contrast alone, as published.")] = "default",
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Training steps, else the configuration's.")] = None,
    seed: Seed = 0,
    resume: Annotated[bool, typer.Option("--resume/--no-resume", help="Go on where an earlier run stopped.")] = True,
    log_dir: Annotated[Path | None, typer.Option("--log-dir", help="Folder for TensorBoard loss curves.")] = None,
    json: Json = False,
) -> None:
    """Pre-train an encoder: it learns statistics and hidden nodes of graphs, and their order where they have a label; with
    '--config paper' it learns by contrast of spectrally similar and other graphs."""
    from cg import _terminal as terminal
    from cg.graphset import GraphSet
    from contrastive.config import EncoderConfig

    settings = EncoderConfig.named(config)
    sets = [GraphSet.read(p) for p in graphs]

    from contrastive.training import pretrain as run

    last = {"step": 0, "loss": float("nan")}
    with terminal.progress(f"pre-training on {sum(map(len, sets)):,} graphs", steps or settings.steps) as advance:
        def report(step: int, total: int, loss: float) -> None:
            if not last["step"] and step > 1:
                terminal.note(f"resumed at step {step - 1}")
            last.update(step=step, loss=loss)
            advance(done=step, total=total, note=f"loss {loss:.4f}")

        run(sets, out, settings, steps=steps, seed=seed, resume=resume, progress=report, log_dir=log_dir)
    if json:
        terminal.emit({"encoder": out, "config": settings.name, "graphs": sum(map(len, sets)), "steps": last["step"],
                       "loss": last["loss"], "seed": seed})
    else:
        terminal.console().print(f"wrote {out} after {int(last['step'])} steps, loss {last['loss']:.4f}")
