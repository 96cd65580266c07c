"""The ``.npz`` form of a benchmark table: small, exact, without pickles, written whole or not at all.

Members: ``meta`` (JSON text), the arrays of the genomes, and one member per metric. Multi-byte integers are stored as
byte planes ``[bytes, rows]`` (low byte first), because a plane of high bytes compresses and a plane of low bytes does
not spoil it. A metric column is stored in one of three ways, chosen by :func:`_pack_column`:

- ``grid``: an accuracy is a count of images over (images x runs), so value = integer x numerator / denominator;
- ``levels``: few different values: the sorted values and one index per row (parameter counts);
- ``float``: float32 or float64 as it is.

A missing value is an integer with all bits set, and NaN in memory. A column of a subset also stores its row numbers.
This file must not know what the columns mean.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cg.errors import CGError, StorageError
from evo_search._genomes import GENOMES, Genomes

FORMAT = "cgtransfer-table/1"
_READ_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, IndexError, TypeError, OSError, ValueError)


def write_npz(
    path: str | Path,
    genomes: Genomes,
    metrics: Mapping[str, NDArray[np.float64]],
    *,
    units: Mapping[str, tuple[int, int]] | None = None,
    meta: Mapping[str, Any] | None = None,
) -> None:
    """Write a table; the same input gives the same bytes.

    Args:
        path: the new file; it appears only when it is complete.
        genomes: N genomes.
        metrics: name -> values ``[N]``, NaN = missing.
        units: name -> (numerator, denominator) for columns to store as ``grid``; CGError where a value is more than
            5e-5 off the grid (sources round to four decimals).
        meta: anything JSON can hold, stored beside the columns (``default_metric``, provenance, …).
    """
    members: dict[str, NDArray[Any]] = {}
    header: dict[str, Any] = {"format": FORMAT, "family": genomes.family, "rows": genomes.n, **(meta or {})}
    header["genome"] = {}
    for name, values in genomes.arrays().items():
        members[f"genome.{name}"] = _to_planes(values)
        header["genome"][name] = values.dtype.str
    header["columns"] = {}
    for name, column in metrics.items():
        if np.shape(column) != (genomes.n,):
            raise CGError(f"metric {name!r} has shape {np.shape(column)}, expected ({genomes.n},)")
        header["columns"][name], packed = _pack_column(name, np.asarray(column, np.float64), (units or {}).get(name))
        members.update({f"metric.{name}{suffix}": a for suffix, a in packed.items()})
    members["meta"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    _write_zip(Path(path), members)


def read_npz(path: str | Path) -> tuple[Genomes, dict[str, NDArray[np.float64]], dict[str, Any]]:
    """Genomes, metrics (float64 ``[N]``) and the header of a table file; StorageError where the file is not whole."""
    path = Path(path)
    if not path.is_file():
        raise StorageError(f"benchmark table {path}: no such file")
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as npz:
            members = {name: npz[name] for name in npz.files}
        header = json.loads(members["meta"].tobytes())
        if header["format"] != FORMAT:
            raise StorageError(f"benchmark table {path}: format {header['format']!r}, this version reads {FORMAT!r}")
        n = int(header["rows"])
        arrays = {k: _from_planes(members[f"genome.{k}"], dtype, n) for k, dtype in header["genome"].items()}
        genomes = GENOMES[header["family"]].from_arrays(arrays)
        metrics = {k: _unpack_column(spec, members, f"metric.{k}", n) for k, spec in header["columns"].items()}
        return genomes, metrics, header
    except CGError as error:
        raise StorageError(str(error) if str(path) in str(error) else f"benchmark table {path}: {error}") from None
    except _READ_ERRORS as error:
        raise StorageError(
            f"benchmark table {path}: truncated, corrupt or not a table ({type(error).__name__}: {error}); "
            "reinstall the package or write the table again"
        ) from None


def _pack_column(
    name: str, values: NDArray[np.float64], unit: tuple[int, int] | None
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Header entry and members of one column."""
    if np.isinf(values).any():
        raise CGError(f"metric {name!r}: row {int(np.flatnonzero(np.isinf(values))[0])} is infinite")
    members: dict[str, NDArray[Any]] = {}
    spec: dict[str, Any] = {}
    present = np.flatnonzero(~np.isnan(values))
    if len(present) * 4 < len(values):  # a small subset: keep only its rows
        members[".rows"] = _to_planes(present.astype(np.uint32))
        spec["subset"], values = len(present), values[present]
    missing = np.isnan(values)
    levels, index = np.unique(np.where(missing, 0.0, values), return_inverse=True)
    if unit is not None:
        steps = np.round(np.where(missing, 0.0, values) * unit[1] / unit[0])
        error = np.abs(np.where(missing, 0.0, values) - steps * unit[0] / unit[1])
        if (steps < 0).any() or (steps >= 2**32 - 1).any() or error.max(initial=0.0) > 5e-5:
            raise CGError(f"metric {name!r}: not a multiple of {unit[0]}/{unit[1]} (off by up to {error.max():.3g})")
        spec |= {"kind": "grid", "unit": list(unit)}
        members[""] = _code_planes(steps.astype(np.uint64), missing)
    elif len(levels) * 8 < len(values):
        spec["kind"] = "levels"
        members |= {"": _code_planes(index.astype(np.uint64), missing), ".levels": levels}
    else:
        spec["kind"] = "float"
        same = np.array_equal(values.astype(np.float32).astype(np.float64), values, equal_nan=True)
        members[""] = _to_planes(values.astype(np.float32).view(np.uint32) if same else values.view(np.uint64))
        spec["dtype"] = "<f4" if same else "<f8"
    if spec["kind"] != "float":
        spec["dtype"] = f"<u{len(members[''])}"
    return spec, members


def _unpack_column(
    spec: Mapping[str, Any], members: Mapping[str, NDArray[Any]], name: str, n: int
) -> NDArray[np.float64]:
    """Inverse of :func:`_pack_column`: float64 ``[n]``."""
    size = int(spec.get("subset", n))
    if spec["kind"] == "float":
        raw = _from_planes(members[name], "<u" + spec["dtype"][-1], size)
        values = raw.view(spec["dtype"]).astype(np.float64)
    else:
        width = int(spec["dtype"][-1])
        codes = _from_planes(members[name], "<u8", size)
        missing = codes == np.uint64((1 << 8 * width) - 1)
        codes = np.where(missing, 0, codes).astype(np.int64)
        if spec["kind"] == "grid":
            values = codes * float(spec["unit"][0]) / float(spec["unit"][1])
        else:
            values = members[f"{name}.levels"].astype(np.float64)[codes]
        values[missing] = np.nan
    if "subset" in spec:
        full = np.full(n, np.nan)
        full[_from_planes(members[f"{name}.rows"], "<u4", size)] = values
        values = full
    return values


def _code_planes(codes: NDArray[np.uint64], missing: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Byte planes of codes, with a width that keeps "all bits set" free for the missing ones."""
    width = ((int(codes.max(initial=0)) + 1).bit_length() + 7) // 8
    return _to_planes(np.where(missing, np.uint64((1 << 8 * width) - 1), codes), width)


def _to_planes(values: NDArray[Any], width: int | None = None) -> NDArray[np.uint8]:
    """Byte planes ``[bytes, N]`` of integers, low byte first; by default without high planes that are all zero."""
    planes = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<")).view(np.uint8)
    planes = planes.reshape(len(values), values.dtype.itemsize).T
    used = max([i + 1 for i in range(len(planes)) if planes[i].any()], default=1)
    return np.ascontiguousarray(planes[: width or used])


def _from_planes(planes: NDArray[np.uint8], dtype: str, n: int) -> NDArray[Any]:
    """Inverse of :func:`_to_planes`; a ValueError says that the shape is not ``[<= bytes, n]``."""
    width = np.dtype(dtype).itemsize
    if planes.dtype != np.uint8 or planes.ndim != 2 or planes.shape[1] != n or len(planes) > width:
        raise ValueError(f"a column has shape {planes.shape}, expected at most {width} planes of {n} bytes")
    full = np.zeros((n, width), np.uint8)
    full[:, : len(planes)] = planes.T
    return full.reshape(-1).view(np.dtype(dtype).newbyteorder("<")).astype(np.dtype(dtype))


def _write_zip(path: Path, members: Mapping[str, NDArray[Any]]) -> None:
    """An ``.npz`` with fixed time stamps, moved to its place when complete."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with zipfile.ZipFile(temporary, "w") as archive:
            for name, values in members.items():
                info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
                info.compress_type = zipfile.ZIP_DEFLATED
                with archive.open(info, "w", force_zip64=False) as stream:
                    np.lib.format.write_array(stream, values, allow_pickle=False)
        os.replace(temporary, path)
    except OSError as error:
        raise StorageError(f"benchmark table {path}: cannot be written ({error.strerror or error})") from error
    finally:
        temporary.unlink(missing_ok=True)
