"""Writing so that a file is either complete or not there: every file this package leaves behind goes through here.

    with atomic_path("graphs.parquet") as tmp:
        write_everything_to(tmp)        # a file, or a directory that the block makes

Knows nothing of what is written.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from cg.errors import StorageError


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A fresh path beside ``path``; what the block writes there takes the place of ``path`` when the block ends well.

    The block makes a file or a directory (same suffix as ``path``; parents of ``path`` are created). It is flushed to
    the disk and renamed, so that a reader or a crash sees the old content or the new one. An error or an interrupt
    removes what was written and leaves ``path`` as it was. A directory replaces another only where that one holds
    nothing but names which the new one holds too: a folder of other things is never deleted.

    Raises:
        StorageError: the disk is full, the place is not writable, or ``path`` cannot be replaced; names ``path``.
    """
    target = Path(os.path.realpath(path))
    tmp = target.with_name(f".{target.stem[:100]}.{os.getpid()}-{secrets.token_hex(4)}.tmp{target.suffix}")
    try:
        if target.exists() and not (target.is_file() or target.is_dir()):
            raise StorageError(f"cannot write {path}: it is neither a regular file nor a directory")
        target.parent.mkdir(parents=True, exist_ok=True)
        yield tmp
        if not tmp.exists():
            raise StorageError(f"cannot write {path}: nothing was written")
        _flush(tmp)
        _replace(tmp, target, path)
    except OSError as error:
        if error.filename is not None and not _is_ours(os.fspath(error.filename), tmp, target):
            raise  # another file's trouble, inside the block
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        _remove(tmp)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """``text`` as UTF-8, atomically; ``StorageError`` as in ``atomic_path``."""
    with atomic_path(path) as tmp:
        tmp.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """``plain(value)`` as indented JSON, atomically; ``StorageError`` as in ``atomic_path``."""
    write_text(path, json.dumps(plain(value), indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def plain(value: Any) -> Any:
    """What strict JSON can hold: dataclasses as mappings, arrays as lists, paths as text, NaN and infinity as null."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if hasattr(value, "tolist"):  # numpy arrays and scalars
        value = value.tolist()
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _is_ours(filename: str | bytes, tmp: Path, target: Path) -> bool:
    name = os.fsdecode(filename)
    return name.startswith(str(tmp)) or f"{target}{os.sep}".startswith(name.rstrip(os.sep) + os.sep)


def _flush(path: Path) -> None:
    """Hand everything under ``path`` to the disk; a full one says so here at the latest."""
    for entry in (*(sorted(path.rglob("*")) if path.is_dir() else ()), path):
        descriptor = os.open(entry, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _replace(tmp: Path, target: Path, shown: str | os.PathLike[str]) -> None:
    if target.is_dir() != tmp.is_dir() and target.exists():
        what = ("a directory", "a file") if target.is_dir() else ("a file", "a directory")
        raise StorageError(f"cannot write {shown}: it is {what[0]} and would become {what[1]}")
    if not target.is_dir():
        os.replace(tmp, target)
    else:
        foreign = sorted({e.name for e in target.iterdir()} - {e.name for e in tmp.iterdir()})
        if foreign:
            raise StorageError(f"cannot write {shown}: the directory exists and holds other things ({foreign[0]!r}); "
                               "choose another name or remove it")
        aside = target.with_name(f"{tmp.name}.old")
        os.rename(target, aside)
        try:
            os.rename(tmp, target)
        except BaseException:
            os.rename(aside, target)
            raise
        shutil.rmtree(aside, ignore_errors=True)
    with suppress(OSError):  # the new name, too, survives a power cut; not every file system can promise that
        descriptor = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove(tmp: Path) -> None:
    if tmp.is_dir():
        shutil.rmtree(tmp, ignore_errors=True)
    else:
        with suppress(OSError):
            tmp.unlink(missing_ok=True)
