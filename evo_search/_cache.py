"""A small cache on disk for what is dear to compute and follows from its inputs alone. Losing it costs time, nothing else.

An entry is read only if its checksum is right; a damaged or unreadable one is computed again, an unwritable folder is
no error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from cg.errors import CGError, StorageError
from cg.files import atomic_path

T = TypeVar("T")


class Cache:
    """Entries in one folder.

    Args:
        folder: where they lie; default: the user's cache folder. Made when first written to.
        enabled: ``False`` neither reads nor writes.

    Attributes:
        reused, made: names of the entries that were read, and of those that had to be computed.
    """

    def __init__(self, folder: str | Path | None = None, enabled: bool = True) -> None:
        if folder is None:
            from platformdirs import user_cache_dir

            folder = user_cache_dir("cgtransfer")
        self.folder, self.enabled = Path(folder), enabled
        self.reused: list[str] = []
        self.made: list[str] = []

    def arrays(self, name: str, key: tuple[Any, ...], make: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Named arrays, kept as ``.npz``."""
        def read(path: Path) -> dict[str, np.ndarray]:
            with np.load(path, allow_pickle=False) as file:
                return {k: file[k] for k in file.files}

        def write(path: Path, value: Mapping[str, np.ndarray]) -> None:
            np.savez(path, **dict(value))  # type: ignore[arg-type]

        return self._entry(name, ".npz", key, lambda: dict(make()), read, write)

    def graphs(self, name: str, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        """A ``GraphSet``, kept as Parquet."""
        from cg.graphset import GraphSet

        return self._entry(name, ".parquet", key, make, GraphSet.read, lambda path, value: value.write(path))

    def _entry(self, name: str, suffix: str, key: tuple[Any, ...], make: Callable[[], T], read: Callable[[Path], T],
               write: Callable[[Path, T], Any]) -> T:
        digest = hashlib.blake2b(repr(key).encode(), digest_size=10).hexdigest()
        path = self.folder / f"{name}-{digest}{suffix}"
        check = path.with_suffix(f"{suffix}.sum")
        if self.enabled and check.exists():
            try:
                if check.read_text() == _checksum(path):
                    value = read(path)
                    self.reused.append(name)
                    return value
            except (OSError, CGError, ValueError, KeyError):
                pass  # damaged: compute it again
        value = make()
        self.made.append(name)
        if self.enabled:
            try:
                with atomic_path(path) as tmp:
                    write(tmp, value)
                with atomic_path(check) as tmp:
                    tmp.write_text(_checksum(path))
                for old in self.folder.glob(f"{name}-*"):
                    if old not in (path, check):
                        old.unlink(missing_ok=True)
            except (StorageError, OSError):
                pass
        return value


def _checksum(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


@lru_cache
def code_hash(*packages: str) -> str:
    """Hash of the Python sources of packages: what they compute may change whenever one of them does."""
    total = hashlib.blake2b(digest_size=10)
    for package in packages:
        spec = find_spec(package)
        for root in (spec.submodule_search_locations or ()) if spec is not None else ():
            for path in sorted(Path(root).rglob("*.py")):
                total.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()
