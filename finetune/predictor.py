"""``CGPredictor``: the one front door. A scikit-learn regressor from graphs and a few labels to scores, with uncertainty.

Four Gaussian processes look at a network: at its statistics on a logarithmic and on a natural scale, each once alone and
once together with what the best source family says and with the learned embedding. Leave-one-out evidence on the user's labels
decides how much each one counts, so that a source or an encoder that does not help is faded out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin

from cg.errors import CGError, LeakageError, StorageError
from cg.files import atomic_path
from cg.global_statistics import GROUPS, STATISTICS, statistics
from cg.graph import Graph
from cg.graphset import GraphSet
from finetune.gp import GaussianProcess, Standardizer
from finetune.metrics import spearman
from finetune.sources import SHARED, resolve
from finetune.targets import LabelScale, check_labels, normal_scores

# Columns that hold log(1 + n) and have a natural scale to go back to.
_LOGARITHMIC = np.isin(GROUPS, ("path", "kind", "count", "back", "front", "pair", "hop", "flow", "visit")) & np.array(
    ["_share" not in name for name in STATISTICS])
# How much a group of statistics counts in a distance. Chosen once for all families on development draws (docs/protocol.md).
GROUP_WEIGHTS = {"path": 2.0, "rf": 4.0, "pair": 2.0, "hop": 2.0, "signal": 3.0, "back": 2.0, "kind.back": 1.5,
                 "kind.longest": 0.7, "front": 0.7, "kind.nodes_share": 0.5, "count": 0.5, "shape": 0.5, "stage": 0.5,
                 "total": 0.5}
_COLUMN_WEIGHTS = np.sqrt([GROUP_WEIGHTS.get(".".join(name.split(".")[:2]), GROUP_WEIGHTS.get(group, 1.0))
                           for name, group in zip(STATISTICS, GROUPS, strict=True)])
EVIDENCE_TEMPERATURE = 8.0
PRIOR_SHARE, EMBEDDING_SHARE = 0.25, 1 / 6
_FORMAT = 1


class CGPredictor(RegressorMixin, BaseEstimator):
    """Ranks networks of any family from a few labels.

    Args:
        encoder: name of a shipped encoder, a folder, an ``Encoder``, or None to use graph statistics alone.
        sources: labelled families to learn from: None for the shipped ones (the target's own is left out), a sequence of
            names, Parquet files or ``GraphSet``s, or ``()`` for none.
        random_state: kept and saved for scikit-learn's sake; nothing that is drawn at random depends on it (the Gaussian
            processes draw nothing, the trees of a source have a fixed seed).

    Higher labels are better by convention, but nothing depends on it except the order of ``rank``.
    """

    def __init__(self, encoder: Any = "default", sources: Any = None, random_state: int = 0) -> None:
        self.encoder = encoder
        self.sources = sources
        self.random_state = random_state

    def fit(self, graphs: Sequence[Graph], y: Any) -> CGPredictor:
        """Learn from ``B >= 2`` graphs and their labels ``[B]``. Raises ``LabelError`` on labels that cannot be used."""
        graphs = _graphs(graphs)
        labels = check_labels(graphs, y)
        self.graphs_, self.labels_ = graphs, labels
        self.scale_ = LabelScale(labels)
        z = normal_scores(labels)
        if self.sources is None or getattr(self, "_resolved", None) is not self.sources:
            self.sources_ = resolve(self.sources, graphs)
            self._resolved = self.sources  # a search fits again and again: the trees of its sources are grown once
        self.encoder_ = _load(self.encoder)
        raw = self._inputs(graphs)
        self.standard_ = {k: Standardizer(v, _COLUMN_WEIGHTS if k in ("log", "natural") else None) for k, v in raw.items()}
        self.prior_share_ = self._judge_sources(raw.get("prior"), z)
        inputs = self._views(raw)
        self.members_, evidence = {}, {}
        for name, x in inputs.items():
            self.members_[name] = GaussianProcess().fit(x, z)
            evidence[name] = self.members_[name].leave_one_out()[1]
        best = max(evidence.values())
        weight = {k: np.exp((v - best) * len(z) / EVIDENCE_TEMPERATURE) for k, v in evidence.items()}
        total = sum(weight.values())
        self.weights_ = {k: float(w / total) for k, w in weight.items()}
        self.evidence_ = evidence
        return self

    def predict(self, graphs: Sequence[Graph], return_std: bool = False) -> Any:
        """Scores ``[B]`` in label units; with ``return_std`` also their standard deviation ``[B]``, label noise included."""
        mean, std = self.predict_normal(graphs)
        out = self.scale_.to_labels(mean)
        if not return_std:
            return out
        return out, np.abs(self.scale_.to_labels(mean + std) - self.scale_.to_labels(mean - std)) / 2

    def predict_normal(self, graphs: Sequence[Graph]) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation ``[B]`` on the scale of normal scores, before the map to label units."""
        if not hasattr(self, "members_"):
            raise CGError("this predictor has not been fitted; call fit(graphs, y) first")
        graphs = _graphs(graphs)
        if not graphs:
            return np.zeros(0), np.zeros(0)
        inputs = self._views(self._inputs(graphs))
        mean, second = np.zeros(len(graphs)), np.zeros(len(graphs))
        for name, x in inputs.items():
            m, s = self.members_[name].predict(x)
            mean += self.weights_[name] * m
            second += self.weights_[name] * (m * m + s * s)  # mixture of the members
        return mean, np.sqrt(np.maximum(second - mean * mean, 1e-12))

    def rank(self, graphs: Sequence[Graph]) -> np.ndarray:
        """Positions of the graphs from best to worst, int64 ``[B]``."""
        return np.argsort(-self.predict_normal(graphs)[0], kind="stable")

    def check_unseen(self, graphs: Sequence[Graph]) -> None:
        """Raise ``LeakageError`` if any of the graphs, by fingerprint, is among the labelled ones."""
        seen = {g.digest for g in self.graphs_}
        twice = [i for i, g in enumerate(graphs) if g.digest in seen]
        if twice:
            raise LeakageError(f"{len(twice)} of {len(graphs)} test graphs are among the labelled ones (first: number "
                               f"{twice[0]}, {graphs[twice[0]].name!r}); leave them out of the test")

    def _inputs(self, graphs: Sequence[Graph]) -> dict[str, np.ndarray]:
        """Unscaled input blocks, each ``[B, ...]``."""
        log = statistics(graphs).astype(np.float64)
        natural = log.copy()
        natural[:, _LOGARITHMIC] = np.expm1(natural[:, _LOGARITHMIC])
        blocks = {"log": log, "natural": natural}
        if self.sources_:
            shared = log[:, SHARED]
            blocks["prior"] = np.stack([s.prior(shared) for s in self.sources_], 1)
        if self.encoder_ is not None:
            blocks["embedding"] = self.encoder_.embed(graphs).astype(np.float64)
        return blocks

    def _views(self, raw: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Unscaled blocks to the standardised inputs of the members.

        What joins the statistics counts as a fixed share of their squared distance: the prior of the best source
        ``PRIOR_SHARE`` times its squared correlation with the labels, the embedding ``EMBEDDING_SHARE``.
        """
        block = {k: self.standard_[k](v) for k, v in raw.items()}
        out = {"log": block["log"], "natural": block["natural"]}
        extra = []
        if self.prior_share_.any():
            extra.append(block["prior"] * np.sqrt(self.prior_share_[self.standard_["prior"].used]))
        if "embedding" in block and block["embedding"].shape[1]:
            extra.append(block["embedding"] * np.sqrt(EMBEDDING_SHARE / block["embedding"].shape[1]))
        if extra:
            for name in ("log", "natural"):
                out[f"{name}+"] = np.hstack([block[name], *(e * np.sqrt(block[name].shape[1]) for e in extra)])
        return out

    def _judge_sources(self, priors: np.ndarray | None, z: np.ndarray) -> np.ndarray:
        """Share of every source ``[S]``: zero but for the one whose prior orders the labelled networks best."""
        if priors is None:
            return np.zeros(0)
        agreement = np.array([max(spearman(z, p), 0.0) for p in priors.T])
        share = np.zeros(len(agreement))
        share[agreement.argmax()] = PRIOR_SHARE * agreement.max() ** 2
        return share

    def save(self, path: str | Path) -> Path:
        """Write a folder with the labelled graphs, the sources and the encoder; ``load`` fits again, in a second or so."""
        if not hasattr(self, "members_"):
            raise CGError("this predictor has not been fitted; there is nothing to save")
        path = Path(path)
        with atomic_path(path) as folder:
            folder.mkdir()
            unique = [f"{i}" for i in range(len(self.graphs_))]
            GraphSet(self.graphs_, unique, {"y": self.labels_}).write(folder / "labelled.parquet")
            for i, source in enumerate(self.sources_):
                g = source.graphs
                GraphSet(g.graphs, g.ids, {"score": source.scores}).write(folder / f"source-{i}.parquet")
            if self.encoder_ is not None:
                self.encoder_.save(folder / "encoder")
            (folder / "predictor.json").write_text(json.dumps({
                "format": _FORMAT, "random_state": self.random_state, "sources": len(self.sources_),
                "encoder": self.encoder_ is not None, "weights": self.weights_}, indent=1) + "\n")
        return path

    @classmethod
    def load(cls, path: str | Path) -> CGPredictor:
        """Read a folder of ``save``. Raises ``StorageError`` naming the file that is missing or corrupt."""
        path = Path(path)
        try:
            record = json.loads((path / "predictor.json").read_text())
            version, n_sources, has_encoder = record["format"], int(record["sources"]), record["encoder"]
        except (OSError, json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise StorageError(f"{path} is not a predictor folder (predictor.json: {error!r})") from None
        if version != _FORMAT:
            raise StorageError(f"{path} has format {version}, this version reads {_FORMAT}; fit the predictor again")
        sources = [GraphSet.read(path / f"source-{i}.parquet") for i in range(n_sources)]
        labelled = GraphSet.read(path / "labelled.parquet")
        model = cls(path / "encoder" if has_encoder else None, sources, record["random_state"])
        return model.fit(labelled.graphs, labelled.label("y"))


def _graphs(graphs: Sequence[Graph]) -> tuple[Graph, ...]:
    out = tuple(graphs)
    for i, g in enumerate(out):
        if not isinstance(g, Graph):
            raise CGError(f"item {i} is a {type(g).__name__}, not a Graph; extract.from_torch(model, shape).graph makes one")
        g.refuse_unknown(f"graph {i} ({g.name!r})")
    return out


def _load(encoder: Any) -> Any:
    if encoder is None or hasattr(encoder, "embed"):
        return encoder
    from contrastive import load_encoder

    return load_encoder(encoder)
