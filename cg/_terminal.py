"""What every sub-command needs to talk: results on stdout, progress and notes on stderr, one JSON value for machines.

Command bodies import it; it imports rich only when something is shown, and knows no command.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value on stdout and nothing else there.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of every random choice.")]
Step = Callable[..., None]
_COMPILING = "compiling kernels, once on a machine"


def console() -> Console:
    """For people: tables and messages on stdout."""
    from rich.console import Console

    return Console(highlight=False, markup=False)


def note(text: str) -> None:
    """One line on stderr, which never mixes with results."""
    print(text, file=sys.stderr, flush=True)


def emit(value: Any) -> None:
    """``value`` as JSON on stdout (NaN becomes null)."""
    from cg.files import plain

    print(json.dumps(plain(value), indent=2, allow_nan=False, ensure_ascii=False))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], left: int = 1) -> None:
    """A table on stdout; the first ``left`` columns are aligned left, the others (numbers) right."""
    from rich.table import Table

    t = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        t.add_column(column, justify="left" if i < left else "right", overflow="fold")
    for row in rows:
        t.add_row(*(cell if isinstance(cell, str) else show(cell) for cell in row))
    console().print(t)


def show(value: Any) -> str:
    """A number for people: thousands separators, four digits after the point where it is small."""
    if isinstance(value, float):
        return f"{value:,.4f}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


@contextmanager
def progress(description: str, total: float | None = None) -> Iterator[Step]:
    """A bar on stderr. Yields ``step(n=1, *, note="", done=None, total=None)``: advance by n, or to ``done``."""
    with _bars() as bar:
        task = bar.add_task(description, total=total, note="")

        def step(n: float = 1, *, note: str = "", done: float | None = None, total: float | None = None) -> None:
            changes: dict[str, Any] = {"advance": n} if done is None else {"completed": done}
            if note or bar.tasks[task].fields["note"] == _COMPILING:
                changes["note"] = note
            if total is not None:
                changes["total"] = total
            bar.update(task, **changes)

        with _on_compiling(lambda: bar.update(task, note=_COMPILING)):
            yield step


def _bars() -> Progress:
    """Bars on stderr, each with a description and a note."""
    from rich import progress as p
    from rich.console import Console

    columns = (p.TextColumn("{task.description}"), p.BarColumn(), p.MofNCompleteColumn(), p.TimeElapsedColumn(),
               p.TimeRemainingColumn(), p.TextColumn("{task.fields[note]}"))
    return p.Progress(*columns, console=Console(stderr=True))


@contextmanager
def _on_compiling(tell: Callable[[], None]) -> Iterator[None]:
    """Tell when a kernel has to be compiled: on its first use a machine does nothing else for half a minute."""
    from numba.core import event

    class Compiling(event.Listener):
        def on_start(self, _: Any) -> None:
            tell()

        def on_end(self, _: Any) -> None:
            pass

    with event.install_listener("numba:compile", Compiling()):
        yield


@contextmanager
def stages() -> Iterator[Callable[[str, int, int], None]]:
    """Several bars on stderr, one for each stage. Yields ``tell(stage, done, total)``; a stage appears when it is told."""
    tasks: dict[str, Any] = {}
    with _bars() as bars:
        def tell(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total, note="")
            bars.update(tasks[stage], completed=done, total=total, note="")

        def compiling() -> None:
            if tasks:
                bars.update(list(tasks.values())[-1], note=_COMPILING)

        with _on_compiling(compiling):
            yield tell
