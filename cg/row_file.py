"""Rows in a file of JSON lines, each on the disk before the next is computed, so that a run that is killed goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

from cg.errors import StorageError
from cg.files import plain, write_text

Row = dict[str, Any]


class RowFile:
    """Rows by key; of equal keys the last one counts.

    Args:
        path: the file, made with its folder when the first row is added; ``None`` keeps rows in memory.
        key: what tells rows apart; it may raise ``KeyError`` or ``TypeError`` for what is no row of this file.
        what: for messages, what the rows are of, and what to do about a file of others.

    Attributes:
        found: rows by key, in the order of the file.

    Raises:
        StorageError: a line is no row. A last line without an end was being written when a run was killed, and is removed.
    """

    def __init__(self, path: str | Path | None, key: Callable[[Mapping[str, Any]], Hashable], what: str) -> None:
        self.path = None if path is None else Path(path)
        self._key = key
        self.found: dict[Hashable, Row] = {}
        if self.path is None or not self.path.exists():
            return
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        for i, line in enumerate(lines):
            try:
                row = json.loads(line)
                if not line.endswith("\n"):
                    raise ValueError("the line has no end")
                self.found[key(row)] = row
            except (ValueError, KeyError, TypeError):
                if i < len(lines) - 1:
                    raise StorageError(f"{self.path}, line {i + 1} is not a row of {what}") from None
                write_text(self.path, "".join(lines[:-1]))

    def get(self, head: Mapping[str, Any]) -> Row | None:
        """The row with the key of ``head``."""
        return self.found.get(self._key(head))

    def add(self, row: Mapping[str, Any]) -> Row:
        """``plain(row)``, flushed to the disk. Raises ``StorageError`` if it cannot be written; the row is kept in memory."""
        kept: Row = plain(row)
        self.found[self._key(kept)] = kept
        if self.path is not None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(kept, allow_nan=False) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise StorageError(f"cannot write {self.path}: {error.strerror or error}") from error
        return kept
