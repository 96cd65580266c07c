"""``GraphSet``: many graphs with ids, labels and provenance, stored as one Parquet table that any data tool can read.

One row is one graph: ``id, name, family, fingerprint, nodes (list of JSON texts, dictionary-encoded), src, dst, arg, outputs,
label.<metric> …``. The file's metadata holds format and vocabulary version, provenance and a checksum of the content; pages
have checksums of their own. Never pickle.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, overload

import numpy as np

from cg._table_arrays import hashes
from cg.errors import CGError, LabelError, StorageError
from cg.files import atomic_path
from cg.graph import Graph
from cg.spec import TABLE
from cg.vocabulary import VERSION

FORMAT = 1
_LABEL = "label."
_CHECKSUM = "cg.checksum"
_ARRAYS = ("spec", "src", "dst", "arg", "outputs")


class GraphSet(Sequence[Graph]):
    """An immutable sequence of graphs with optional labels.

    Args:
        graphs: the graphs.
        ids: unique texts, one a graph; default: fingerprints, numbered where they repeat.
        labels: metric name -> float array ``[B]``, NaN where unknown.
        provenance: where the graphs and labels come from; kept in the file.
    """

    def __init__(self, graphs: Sequence[Graph], ids: Sequence[str] | None = None,
                 labels: Mapping[str, Any] | None = None, provenance: Mapping[str, Any] | None = None) -> None:
        self.graphs = tuple(graphs)
        if ids is None:
            ids = [g.digest for g in self.graphs]
            if len(set(ids)) < len(ids):
                ids = [f"{d}-{i}" for i, d in enumerate(ids)]
        self.ids = tuple(map(str, ids))
        if len(self.ids) != len(self.graphs):
            raise CGError(f"{len(self.graphs)} graphs but {len(self.ids)} ids")
        if len(set(self.ids)) < len(self.ids):
            seen: set[str] = set()
            twice = next(i for i in self.ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
            raise CGError(f"id {twice!r} occurs twice; ids must be unique")
        self.labels = {k: np.asarray(v, np.float64) for k, v in (labels or {}).items()}
        for name, values in self.labels.items():
            if values.shape != (len(self.graphs),):
                raise LabelError(f"label {name!r} has shape {values.shape}, wanted ({len(self.graphs)},)")
        self.provenance = dict(provenance or {})

    @property
    def families(self) -> list[str]:
        """Family of every graph."""
        return [g.family for g in self.graphs]

    def __len__(self) -> int:
        return len(self.graphs)

    def __iter__(self) -> Iterator[Graph]:
        return iter(self.graphs)

    @overload
    def __getitem__(self, index: int) -> Graph: ...
    @overload
    def __getitem__(self, index: slice) -> GraphSet: ...

    def __getitem__(self, index: Any) -> Graph | GraphSet:
        if isinstance(index, int | np.integer):
            return self.graphs[int(index)]
        return self.take(np.arange(len(self))[index])

    def take(self, rows: Any) -> GraphSet:
        """The subset of the given row numbers, in their order, or of a mask ``bool [B]``."""
        rows = np.asarray(rows)
        rows = np.arange(len(self))[rows if rows.size else rows.astype(np.int64)]
        return GraphSet([self.graphs[i] for i in rows], [self.ids[i] for i in rows],
                        {k: v[rows] for k, v in self.labels.items()}, self.provenance)

    def label(self, metric: str | None = None) -> np.ndarray:
        """Values of one metric, float64 ``[B]``; the only one there is if ``metric`` is None."""
        if metric is None and len(self.labels) == 1:
            return next(iter(self.labels.values()))
        if metric not in self.labels:
            raise LabelError(f"no label {metric!r}; there are: {', '.join(self.labels) or 'none'}")
        return self.labels[metric]

    def write(self, path: str | Path) -> Path:
        """Write to Parquet, atomically: the file is complete or it is not there."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = Path(path)
        lengths = np.array([g.n_nodes for g in self.graphs], np.int64)
        all_specs = np.concatenate([g.spec for g in self.graphs]) if self.graphs else np.zeros(0, np.int32)
        unique, codes = np.unique(all_specs, return_inverse=True)
        nodes = pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)),
                                               pa.array([TABLE.texts[i] for i in unique], pa.string()))
        columns: dict[str, Any] = {
            "id": pa.array(self.ids, pa.string()),
            "name": pa.array([g.name for g in self.graphs], pa.string()),
            "family": pa.array([g.family for g in self.graphs], pa.string()),
            "fingerprint": pa.array([g.digest for g in self.graphs], pa.string()),
            "nodes": pa.ListArray.from_arrays(pa.array(_offsets(lengths)), nodes),
        }
        for field in ("src", "dst", "arg", "outputs"):
            arrays = [getattr(g, field) for g in self.graphs]
            flat = np.concatenate(arrays) if arrays else np.zeros(0, np.int32)
            sizes = np.array([len(a) for a in arrays], np.int64)
            columns[field] = pa.ListArray.from_arrays(pa.array(_offsets(sizes)), pa.array(flat.astype(np.int32)))
        for name, values in self.labels.items():
            columns[_LABEL + name] = pa.array(values, pa.float64())
        meta = {"cg.format": str(FORMAT), "cg.vocabulary": str(VERSION), "cg.provenance": json.dumps(self.provenance),
                _CHECKSUM: self._checksum()}
        with atomic_path(path) as temporary:
            pq.write_table(pa.table(columns).replace_schema_metadata(meta), temporary, compression="zstd",
                           compression_level=9, row_group_size=20_000, write_page_checksum=True)
        return path

    def _checksum(self) -> str:
        """32 hex digits over everything that a file keeps; the same in every process."""
        total = hashlib.blake2b(digest_size=16)
        text = [self.ids, [(g.name, g.family, g.digest) for g in self.graphs], list(self.labels), self.provenance]
        total.update(json.dumps(text).encode())
        for field in _ARRAYS:
            arrays = [getattr(g, field) for g in self.graphs]
            flat = np.concatenate(arrays) if arrays else np.zeros(0, np.int32)
            total.update(np.array([len(a) for a in arrays], np.int64).tobytes())
            total.update((hashes()[0][flat] if field == "spec" else flat.astype(np.int32)).tobytes())
        for values in self.labels.values():
            total.update(values.tobytes())
        return total.hexdigest()

    @classmethod
    def read(cls, path: str | Path) -> GraphSet:
        """Read a file of ``write``. Raises ``StorageError`` naming the file if it is missing, corrupt or of another version."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = Path(path)
        if not path.exists():
            raise StorageError(f"no such file: {path}")
        try:
            table = pq.read_table(path, page_checksum_verification=True)
            meta = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
            if meta.get("cg.format") != str(FORMAT):
                raise StorageError(f"{path} is not a graph table of format {FORMAT} (cg.format is "
                                   f"{meta.get('cg.format')!r}); write it again with this version")
            if meta.get("cg.vocabulary") != str(VERSION):
                raise StorageError(f"{path} uses operator vocabulary {meta.get('cg.vocabulary')}, this version has "
                                   f"{VERSION}; export the graphs again")
            found = cls._from_table(table, json.loads(meta.get("cg.provenance", "{}")), path)
            wanted = meta.get(_CHECKSUM)  # None: written by another tool
            if wanted is not None and wanted != found._checksum():
                raise StorageError(f"{path} is corrupt: its content does not match its checksum; restore it from a copy")
            return found
        except StorageError:
            raise
        except (pa.ArrowException, OSError, KeyError, IndexError, TypeError, ValueError) as error:
            raise StorageError(f"{path} cannot be read as a graph table, it may be truncated or corrupt: {error}") from None

    @classmethod
    def _from_table(cls, table: Any, provenance: dict[str, Any], path: Path) -> GraphSet:
        import pyarrow as pa

        spec_lists: list[np.ndarray] = []
        for chunk in table.column("nodes").chunks:
            flat = chunk.flatten()
            if not pa.types.is_dictionary(flat.type):
                flat = flat.dictionary_encode()
            ids = np.array([TABLE.intern_text(t) for t in flat.dictionary.to_pylist()], np.int32)
            specs = ids[flat.indices.to_numpy(zero_copy_only=False)] if len(flat) else np.zeros(0, np.int32)
            spec_lists += _split(specs, chunk)
        for field in ("src", "dst", "arg", "outputs"):
            kind = table.schema.field(field).type
            if not ((pa.types.is_list(kind) or pa.types.is_large_list(kind)) and pa.types.is_integer(kind.value_type)):
                raise StorageError(f"{path}: column {field!r} holds {kind}, wanted lists of integers")
            if any(c.null_count or c.flatten().null_count for c in table.column(field).chunks):
                raise StorageError(f"{path}: column {field!r} has missing values")
        lists = {f: [a for c in table.column(f).chunks for a in _split(c.flatten().to_numpy(zero_copy_only=False), c)]
                 for f in ("src", "dst", "arg", "outputs")}
        text = {f: table.column(f).to_pylist() for f in ("id", "name", "family", "fingerprint")}
        bad = _misfit([len(s) for s in spec_lists], lists)
        if bad is not None:
            raise StorageError(f"{path}, row {bad} (id {text['id'][bad]!r}): edges or outputs do not fit the node list")
        graphs = []
        for i, spec in enumerate(spec_lists):
            src, dst, arg, outputs = (lists[f][i] for f in ("src", "dst", "arg", "outputs"))
            graphs.append(Graph(spec, src.astype(np.int32), dst.astype(np.int32), arg.astype(np.int16),
                                outputs.astype(np.int32), text["fingerprint"][i], text["name"][i], text["family"][i]))
        labels = {c[len(_LABEL):]: table.column(c).to_numpy() for c in table.column_names if c.startswith(_LABEL)}
        return cls(graphs, text["id"], labels, provenance)


def concat(sets: Sequence[GraphSet]) -> GraphSet:
    """All graphs of several sets; a label missing from one of them is NaN there."""
    names = dict.fromkeys(n for s in sets for n in s.labels)
    labels = {n: np.concatenate([s.labels.get(n, np.full(len(s), np.nan)) for s in sets]) for n in names}
    ids = [i for s in sets for i in s.ids]
    if len(set(ids)) < len(ids):
        ids = [f"{k}/{i}" for k, s in enumerate(sets) for i in s.ids]
    return GraphSet([g for s in sets for g in s.graphs], ids, labels, {"parts": [s.provenance for s in sets]})


def _misfit(n_nodes: Sequence[int], lists: Mapping[str, list[np.ndarray]]) -> int | None:
    """First row whose edges or outputs name nodes that it does not have, or are not in topological order."""
    sizes = {f: np.array([len(a) for a in arrays], np.int64) for f, arrays in lists.items()}
    unequal = (sizes["src"] != sizes["dst"]) | (sizes["src"] != sizes["arg"]) | (sizes["outputs"] == 0)
    if unequal.any():
        return int(np.flatnonzero(unequal)[0])
    flat = {f: np.concatenate(arrays) if arrays else np.zeros(0, np.int32) for f, arrays in lists.items()}
    edge_row, output_row = (np.repeat(np.arange(len(n_nodes)), sizes[f]) for f in ("src", "outputs"))
    limit = np.array(n_nodes, np.int64)
    edges = (flat["src"] < 0) | (flat["src"] >= flat["dst"]) | (flat["dst"] >= limit[edge_row])
    outputs = (flat["outputs"] < 0) | (flat["outputs"] >= limit[output_row])
    rows = np.concatenate([edge_row[edges], output_row[outputs]])
    return int(rows.min()) if len(rows) else None


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)


def _split(flat: np.ndarray, chunk: Any) -> list[np.ndarray]:
    offsets = chunk.offsets.to_numpy()
    offsets = offsets - offsets[0]
    return [flat[a:b] for a, b in pairwise(offsets)]
