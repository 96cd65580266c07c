"""A benchmark in parts: rows kept in ``runs/<name>.jsonl`` as they come, then rows and summary in ``results/<name>.json``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import _record
import numpy as np

from cg.files import plain
from cg.row_file import RowFile

Row = dict[str, Any]
Kept = Callable[[Row], bool]
"""Whether the row with these keys is there already."""


def run(name: str, config: Mapping[str, Any], keys: Mapping[str, Sequence[str]],
        parts: Mapping[str, Callable[[Kept], Iterable[Row]]]) -> None:
    """Compute what is missing of ``parts``, and write and print the summary of all rows of the file.

    Args:
        config: settings, the first line of the file; rows of other settings are refused.
        keys: for each part what tells its rows apart, beside ``part`` and ``seed``.
        parts: part -> function that yields its rows and may leave out those that are kept.
    """
    def key(row: Mapping[str, Any]) -> tuple[Any, ...]:
        return (row["part"], *(row[k] for k in keys[row["part"]]), row["seed"])

    settings, path = {"config": plain(config)}, _record.ROOT / "runs" / f"{name}.jsonl"
    store = RowFile(path, lambda row: ("config",) if "config" in row else key(row), f"{name}; remove it")
    before = store.found.pop(("config",), None)
    if before is None and not store.found:
        store.add(settings)
        del store.found["config",]
    elif before != settings:
        sys.exit(f"{path} has rows of other settings; use another --name or remove it")
    began = time.perf_counter()
    for part in parts.values():
        for row in part(lambda head: store.get(head) is not None):
            if store.get(row) is None:
                print(f"{time.perf_counter() - began:5.0f} s {line(store.add(row))}", file=sys.stderr, flush=True)
    rows = list(store.found.values())
    means = summary(rows, keys)
    _record.write(name, {**settings, "summary": means, "rows": rows})
    for s in means:
        print(line(s))


def line(row: Row) -> str:
    """The names and numbers of a row in short."""
    return " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()
                    if not k.endswith("_std") and not isinstance(v, list))


def summary(rows: Sequence[Row], keys: Mapping[str, Sequence[str]]) -> list[Row]:
    """Mean and standard deviation (n - 1) over seeds; of a number that some rows do not have, over those that have it."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for r in rows:
        groups.setdefault(tuple(r[k] for k in ("part", *keys[r["part"]])), []).append(r)
    out = []
    for about, members in groups.items():
        names = ("part", *keys[about[0]])
        found: Row = dict(zip(names, about, strict=True)) | {"seeds": len(members)}
        for name in dict.fromkeys(k for m in members for k in m if k not in (*names, "seed")):
            there = [m[name] for m in members if m.get(name) is not None]
            if all(isinstance(v, (int, float)) for v in there):
                values = np.array(there, np.float64)
                found[name] = float(values.mean()) if there else None
                found[f"{name}_std"] = float(values.std(ddof=1)) if len(there) > 1 else None
        out.append(found)
    return out
