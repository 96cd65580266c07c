"""A fitted ``CGPredictor`` as a folder: what it was fitted on, from which it is fitted again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cg.errors import StorageError
from cg.files import atomic_path
from cg.graph import Graph
from cg.graphset import GraphSet

if TYPE_CHECKING:
    from finetune.predictor import CGPredictor

_FORMAT = 2


@dataclass(frozen=True)
class Stored:
    """What a folder holds. ``others``: statistics ``[R, F]`` of unlabelled networks, if there were any."""

    graphs: tuple[Graph, ...]
    labels: np.ndarray
    others: np.ndarray | None
    sources: list[GraphSet]
    encoder: Path | None
    random_state: int


def save(predictor: CGPredictor, path: Path) -> Path:
    """Write the folder ``path``, all of it or nothing."""
    with atomic_path(path) as folder:
        folder.mkdir()
        unique = [f"{i}" for i in range(len(predictor.graphs_))]
        if unique:
            GraphSet(predictor.graphs_, unique, {"y": predictor.labels_}).write(folder / "labelled.parquet")
        if predictor.others_ is not None:
            np.save(folder / "unlabelled.npy", predictor.others_.astype(np.float32))
        for i, source in enumerate(predictor.sources_):
            g = source.graphs
            GraphSet(g.graphs, g.ids, {"score": source.scores}).write(folder / f"source-{i}.parquet")
        if predictor.encoder_ is not None:
            predictor.encoder_.save(folder / "encoder")
        weights = predictor.mixture_.weights if predictor.mixture_ is not None else {}
        (folder / "predictor.json").write_text(json.dumps({
            "format": _FORMAT, "labels": len(unique), "unlabelled": predictor.others_ is not None,
            "random_state": predictor.random_state, "sources": len(predictor.sources_),
            "encoder": predictor.encoder_ is not None, "weights": {", ".join(k): w for k, w in weights.items()}},
            indent=1) + "\n")
    return path


def read(path: Path) -> Stored:
    """What ``save`` wrote. Raises ``StorageError`` naming the file that is missing or corrupt."""
    try:
        record = json.loads((path / "predictor.json").read_text())
        if (version := record["format"]) != _FORMAT:
            raise StorageError(f"{path} has format {version}, this version reads {_FORMAT}; fit the predictor again")
        n_sources, n_labels = int(record["sources"]), int(record["labels"])
        has_encoder, has_others, random_state = record["encoder"], record["unlabelled"], record["random_state"]
    except (OSError, json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{path} is not a predictor folder (predictor.json: {error!r})") from None
    sources = [GraphSet.read(path / f"source-{i}.parquet") for i in range(n_sources)]
    labelled = GraphSet.read(path / "labelled.parquet") if n_labels else None
    try:
        others = np.load(path / "unlabelled.npy", allow_pickle=False) if has_others else None
    except (OSError, ValueError) as error:
        raise StorageError(f"{path / 'unlabelled.npy'} cannot be read: {error}") from None
    return Stored(labelled.graphs if labelled else (), labelled.label("y") if labelled else np.zeros(0), others, sources,
                  path / "encoder" if has_encoder else None, random_state)
