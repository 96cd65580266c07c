"""What every adapter returns and raises. This file must not import a framework."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from cg.errors import CGError
from cg.graph import Graph


class ExtractionError(CGError):
    """A model cannot be turned into a graph; the message names the module where it happened and what to do."""


class ExtractionWarning(UserWarning):
    """The graph holds ``Unknown`` nodes."""


def first_line(error: BaseException) -> str:
    """Kind of the error and the first line of its message, for a message of ours."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:200]}" if text else type(error).__name__


@contextmanager
def unforeseen(source: object) -> Iterator[None]:
    """An error that a damaged file causes where nobody foresaw one becomes an ``ExtractionError`` that names the file.

    Only for files, whose content can be anything: ``source`` is a path or bytes. Errors about live objects stay as they are.
    """
    try:
        yield
    except CGError:
        raise
    except (TypeError, AttributeError, LookupError, ValueError, ArithmeticError, RuntimeError, AssertionError) as error:
        if not isinstance(source, str | os.PathLike | bytes | bytearray | memoryview):
            raise
        name = os.fspath(source) if isinstance(source, str | os.PathLike) else "the model"
        raise ExtractionError(f"{name} is damaged in a way that this package did not foresee ({first_line(error)}); if other "
                              "programs can read it, this is a fault of the extractor, please report it") from error


@dataclass(frozen=True)
class Extraction:
    """A graph and everything that a careful user should know about how it came about.

    Attributes:
        graph: the network, validated, in canonical order.
        unknown: framework name of each operator outside the vocabulary -> number of its ``Unknown`` nodes in ``graph``.
        notes: sentences on decisions that were taken for this model (a shared weight, an output left out, …).
        ignored: operators that make no node on purpose (dropout, reshape, cast, …) -> number of calls.
        way: how the model was read. From PyTorch: "dispatch" (run on meta tensors), "export" (through ``torch.export``), or
            the form it came in, "fx", "exported program", "script". Empty where there is only one way.
    """

    graph: Graph
    unknown: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    way: str = ""
