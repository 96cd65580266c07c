"""The command ``cg``: collects the sub-commands that packages register, and turns expected errors into one line.

A package adds commands with an entry point in the group ``cg.commands`` whose value is a function ``register(app)``.
This file must import none of the other packages and nothing slow: command bodies import what they need.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cg._version import __version__
from cg.errors import CGError

GROUP = "cg.commands"
Register = Callable[[typer.Typer], None]
_PANELS = ("Graphs", "Learning", "Search")


class _Commands(TyperGroup):
    """Runs a sub-command; bad input gives one line on stderr and exit code 2, everything unexpected a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # the reader of a pipe went away; typer ends quietly
        except (CGError, OSError) as error:
            if os.environ.get("CG_DEBUG") == "1":
                raise
            print(f"error: {_one_line(error)}", file=sys.stderr)
            raise typer.Exit(2) from None


def build(registers: Iterable[EntryPoint | Register] | None = None) -> typer.Typer:
    """The application with the given commands, by default those of every installed package.

    A plug-in that cannot be loaded, fails, or takes a name that exists is reported in one line on stderr and left out.
    """
    app = typer.Typer(name="cg", cls=_Commands, no_args_is_help=True, pretty_exceptions_enable=False,
                      help="Computation graphs of neural networks: extract, pre-train, predict, search.",
                      epilog="Example: cg demo -o report")

    @app.callback()
    def root(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.",
                                                   callback=_version, is_eager=True)] = False) -> None:
        pass

    if registers is None:
        registers = [e for _, e in sorted((e.name, e) for e in entry_points(group=GROUP))]
    for item in registers:
        before = len(app.registered_commands)
        try:
            register: Register = item.load() if isinstance(item, EntryPoint) else item
            register(app)
        except Exception as error:
            del app.registered_commands[before:]
            value = item.value if isinstance(item, EntryPoint) else getattr(item, "__module__", repr(item))
            print(f"warning: no commands of {value}: {type(error).__name__}: {_one_line(error)}", file=sys.stderr)
        _refuse_taken_names(app, before)
    app.registered_commands.sort(key=lambda c: _PANELS.index(c.rich_help_panel)
                                 if c.rich_help_panel in _PANELS else len(_PANELS))
    return app


def main(registers: Iterable[Register] | None = None, prog: str = "cg") -> None:
    """Entry point of ``cg``; with ``registers`` of ``python -m <package>``, which shows the package's commands only."""
    # Threads that wait by spinning make torch several times slower where another program uses the same cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    build(registers)(prog_name=prog)


def _version(asked: bool) -> None:
    if asked:
        print(f"cgtransfer {__version__}")
        raise typer.Exit


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def _refuse_taken_names(app: typer.Typer, before: int) -> None:
    taken = {_name(c) for c in app.registered_commands[:before]}
    for command in app.registered_commands[before:]:
        if _name(command) in taken:
            print(f"warning: command {_name(command)!r} exists already; the one of "
                  f"{getattr(command.callback, '__module__', '?')} is left out", file=sys.stderr)
            app.registered_commands.remove(command)
        taken.add(_name(command))


def _name(command: Any) -> str:
    return command.name or command.callback.__name__.replace("_", "-")
