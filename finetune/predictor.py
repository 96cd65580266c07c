"""``CGPredictor``: the one front door. A scikit-learn regressor from graphs and a few labels to scores, with uncertainty.

Gaussian processes look at the statistics of a network: on a logarithmic and on a natural scale, each with two ideas of what
counts, the wiring or the sizes, and with and without a straight line. Leave-one-out evidence on the user's labels decides how
much each of the eight counts, and from twenty labels on two more that see a network as a sum over its operators
(``finetune.operators``). What other families and the networks' size say is their common mean, firmly with few labels and
hardly at all with many. An encoder's embedding joins eight more.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin

from cg.errors import CGError, LabelError, LeakageError
from cg.graph import Graph
from cg.graphset import GraphSet
from cg.recent_statistics import recent_statistics
from finetune.explanation import Explanation, doubts, explain, novelty
from finetune.families import ENOUGH_FAMILIES, Few, Stack
from finetune.gp import Standardizer
from finetune.mixture import Mixture
from finetune.operators import SUM_LABELS, OperatorReader
from finetune.prior import Prior
from finetune.sources import Source, resolve
from finetune.storage import read, save
from finetune.suggestion import suggest
from finetune.targets import LabelScale, agreement, check_labels, fit_on_scores
from finetune.views import COLUMN_WEIGHTS, scales

NEAR = "size, natural"  # the view of what is no sum over operators
EMBEDDING_SHARE = 1 / 6  # of the squared distance
ENOUGH = 32  # labelled networks show which statistics overlap
DOUBT = 0.6  # of the sources' opinion: how much wider the intervals of scores are where it counts in full
_CHUNK = 8192  # networks that are scored at a time
PRIOR_LABELS = 8.0  # up to so many labels the sources' opinion counts in full, then as 8 / labels


class CGPredictor(RegressorMixin, BaseEstimator):
    """Ranks networks of any family from a few labels.

    Args:
        encoder: None for graph statistics alone (nothing learned has ranked better so far, see docs/protocol.md), name of a
            shipped encoder, a folder, an ``Encoder``, or anything with ``embed(graphs) -> [B, m]`` (its ``share``, if it has
            one, is the share of the embedding in the squared distance).
        sources: labelled families to learn from: None for the shipped ones (the target's own is left out), a sequence of
            names, Parquet files or ``GraphSet``s, or ``()`` for none: then labels alone decide, and size is no opinion either
            (``finetune.prior``). One whose graphs name five families or more is not believed
            of networks that are farther from these than they are from each other.
        random_state: kept and saved for scikit-learn's sake; nothing that is drawn at random depends on it (the Gaussian
            processes draw nothing, the networks of a source are chosen with a fixed seed).
        fast: leave the default sources out, which take most of a fit (about 0.2 s of 0.3 s); from 20 labels on the order is
            nearly the same (docs/transfer.md).

    Higher labels are better by convention, but nothing depends on it except the order of ``rank``.
    """

    def __init__(self, encoder: Any = None, sources: Any = None, random_state: int = 0, fast: bool = False) -> None:
        self.fast = fast
        self.encoder = encoder
        self.sources = sources
        self.random_state = random_state

    def fit(self, graphs: Sequence[Graph], y: Any, unlabelled: Sequence[Graph] = ()) -> CGPredictor:
        """Learn from ``B`` graphs and their labels ``[B]``, two at least, or none at all.

        ``unlabelled``: networks of the same family without labels, the candidates say. They tell which statistics of a source
        carry over; with fewer than twenty labels they help much (docs/transfer.md), and without labels they are needed: the
        order is then the sources' alone, and scores have no unit. If the labelled graphs name at least five families
        (``Graph.family``), networks of yet another one are predicted by what carries over between these, and those of one with
        three to nine labels from its own, with the others as a source (``finetune.families``). Raises ``LabelError`` on
        labels that cannot be used.
        """
        graphs, unlabelled = _graphs(graphs), _graphs(unlabelled)
        labels = check_labels(graphs, y) if graphs or not unlabelled else np.zeros(0)
        if self.sources is None or getattr(self, "_resolved", None) is not self.sources:
            self.sources_ = resolve(() if self.fast and self.sources is None else self.sources, (*graphs, *unlabelled))
            self._resolved = self.sources
        return self._learn(graphs, labels, recent_statistics(unlabelled) if unlabelled else None)

    def _learn(self, graphs: tuple[Graph, ...], labels: np.ndarray, others: np.ndarray | None) -> CGPredictor:
        """``fit`` after its checks; ``others``: statistics ``[R, F]`` of the unlabelled networks, if there are any."""
        self.graphs_, self.labels_ = graphs, labels
        self.encoder_ = _load(self.encoder)
        self.operators_ = OperatorReader(graphs) if len(graphs) >= SUM_LABELS else None
        raw = self._inputs(graphs)
        self._consult(raw["log"], others)
        self.mixture_: Mixture | None = None
        self.stack_: Stack | None = None
        self.standard_: dict[str, Standardizer] = {}
        self.scale_: LabelScale | None = None
        opinion = self._opinion(raw["log"], labels)
        if not len(labels):
            if self.prior_ is None:
                raise LabelError("without labels an order can only come from other families: name some as sources")
            return self
        self.standard_ = {f"{view}, {scale}": Standardizer(raw[scale], w) for view, w in COLUMN_WEIGHTS.items()
                          for scale in ("log", "natural")}
        if "embedding" in raw:
            self.standard_["embedding"] = Standardizer(raw["embedding"])
        views = self._views(raw)

        def learned(scores: Sequence[np.ndarray]) -> list[tuple[Mixture, np.ndarray]]:
            return [(mixture, mixture.left_out + opinion) for mixture in Mixture.fit(views, [z - opinion for z in scores])]

        mixture, z = fit_on_scores(labels, learned, lambda m: max(m.evidence.values()))
        self.mixture_ = mixture
        self.families_ = np.array([g.family for g in graphs])
        if all(self.families_) and len(set(self.families_)) >= ENOUGH_FAMILIES:
            self.stack_ = Stack(mixture.members, raw["log"], z - opinion, self.families_)
            self.few_ = Few(self.families_, labels, self._alone)
        elif not any(weight for (view, _), weight in mixture.weights.items() if view == "operators"):
            self.operators_ = None  # what nobody asks for is not read
        self.scale_ = LabelScale(labels, z)
        self.agreement_ = agreement(labels, mixture.left_out + opinion)
        return self

    def _alone(self, own: np.ndarray, others: np.ndarray) -> CGPredictor:
        """A predictor that knows these labels, and those of the others as a source."""
        known = GraphSet([self.graphs_[i] for i in others], [str(i) for i in others], {"label": self.labels_[others]})
        model = CGPredictor(self.encoder_, [Source(known), *self.sources_], self.random_state)
        return model.fit([self.graphs_[i] for i in own], self.labels_[own])

    def _consult(self, known: np.ndarray, others: np.ndarray | None) -> None:
        """Fit the processes of the sources, unless they are fitted for these networks already.

        What stands for the target are the unlabelled networks or else the first 2^k labelled ones, 32 at most: a search
        that fits again and again asks the sources only when its labels have doubled, and no fit depends on an earlier one.
        """
        self.others_ = others
        if others is None:
            others = known[: min(1 << (len(known).bit_length() - 1), ENOUGH)]
        seen = (tuple(map(id, self.sources_)), others.astype(np.float32).tobytes())
        if getattr(self, "_asked_for", None) != seen:
            self.prior_ = Prior(self.sources_, others) if self.sources_ else None
            self._asked_for = seen

    def _opinion(self, log: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Weigh the sources by the labels; their common opinion ``[B]`` about the labelled networks, mean 0."""
        self._centre, self._share = 0.0, min(PRIOR_LABELS / max(len(labels), 1), 1.0)
        if self.prior_ is None:
            return np.zeros(len(labels))
        scores = self.prior_.scores(log)
        self.prior_.judge(scores, labels)
        said = self._share * self.prior_.combine(scores)
        self._centre = float(said.mean()) if len(labels) else 0.0
        return np.asarray(said - self._centre)

    def predict(self, graphs: Sequence[Graph], return_std: bool = False) -> Any:
        """Scores ``[B]`` in label units; with ``return_std`` also their standard deviation ``[B]``, label noise included."""
        mean, std = self.in_label_units(*self._scores(graphs, return_std))
        return (mean, std) if return_std else mean

    def in_label_units(self, mean: np.ndarray, std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores and deviations of ``predict_normal`` as labels, each ``[B]``; as they are if there was no label."""
        if self.scale_ is None:
            return mean, std
        low, middle, high = self._bounds(mean, std)
        return middle, np.abs(high - low) / 2

    def predict_bounds(self, graphs: Sequence[Graph]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Scores one standard deviation down, scores, and one up, each ``[B]`` in label units: labels can be skewed."""
        return self._bounds(*self.predict_normal(graphs))

    def _bounds(self, mean: np.ndarray, std: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if self.scale_ is None:
            return mean - std, mean, mean + std
        if self.prior_ is not None:
            std = std * (1.0 + DOUBT * self._share)
        low, middle, high = (self.scale_.to_labels(mean + k * std) for k in (-1, 0, 1))
        return low, middle, high

    def predict_normal(self, graphs: Sequence[Graph]) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation ``[B]`` of scores (``finetune.targets.power_scores``), before the map to label units."""
        return self._scores(graphs, True)

    def _scores(self, graphs: Sequence[Graph], deviations: bool) -> tuple[np.ndarray, np.ndarray]:
        """As ``predict_normal``; without ``deviations``, which cost time, these mean nothing."""
        self._fitted()
        graphs = _graphs(graphs)
        found = [np.zeros((2, 0))]
        for first in range(0, len(graphs), _CHUNK):
            part = graphs[first:first + _CHUNK]
            found.append(np.stack(self._score(self._inputs(part, deviations), np.array([g.family for g in part]), deviations)))
        mean, std = np.hstack(found)
        return mean, std

    def score_rows(self, rows: np.ndarray, graph: Graph, usual: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """As ``predict_normal``, of networks that are ``graph`` with other statistics ``[B, F]``; with ``usual`` the last one
        has the operators that are usual among the labelled networks."""
        raw: dict[str, Any] = dict(scales(rows))
        if self.encoder_ is not None:
            raw["embedding"] = np.tile(self.encoder_.embed([graph]).astype(np.float64), (len(rows), 1))
        if self.operators_ is not None:
            raw["operators"] = self.operators_([graph]).repeated(len(rows), usual)
        return self._score(raw, np.full(len(rows), graph.family))

    def _score(self, raw: dict[str, Any], families: np.ndarray, deviations: bool = True) -> tuple[np.ndarray, np.ndarray]:
        mean, std = np.zeros(len(families)), np.ones(len(families))
        if self.mixture_ is not None:
            views, stack = self._views(raw), self.stack_
            new = np.isin(families, self.families_, invert=True) if stack is not None else np.zeros(0, bool)
            every = bool(new.any())
            if deviations:
                mean, std, means = self.mixture_.predict(views, every)
            else:
                means = self.mixture_.means(views, every)
                mean = self.mixture_.mean(means)
            if stack is not None and every:
                mean = np.where(new, stack.predict(means, raw["log"]), mean)
                std = np.where(new, np.maximum(std, stack.std), std)
        if self.prior_ is not None:
            mean = mean + self._share * self.prior_.combine(self.prior_.scores(raw["log"])) - self._centre
            if self.mixture_ is None:
                std *= np.sqrt(1.0 - self.prior_.agreement**2)
        if self.stack_ is not None and self.scale_ is not None:
            for rows, model in self.few_.among(families):
                part = {name: block[rows] for name, block in raw.items() if name != "operators"}
                said = model._bounds(*model._score(part, families[rows]))
                low, mean[rows], high = (self.scale_.to_scores(y) for y in said)
                std[rows] = np.maximum(high - low, 1e-9) / 2
        return mean, std

    def rank(self, graphs: Sequence[Graph]) -> np.ndarray:
        """Positions of the graphs from best to worst, int64 ``[B]``."""
        return np.argsort(-self._scores(graphs, False)[0], kind="stable")

    def suggest(self, graphs: Sequence[Graph], n: int) -> np.ndarray:
        """Positions of the ``n`` candidates whose labels would now teach most, int64 ``[n]`` (``finetune.suggest``)."""
        return suggest(_graphs(graphs), n, getattr(self, "graphs_", ()), self.random_state)

    def explain(self, graph: Graph, neighbours: int = 3, effects: int = 8) -> Explanation:
        """Nearest labelled networks and networks of the sources, and the statistics that moved the score of ``graph``."""
        self._fitted()
        return explain(self, _graphs([graph])[0], neighbours, effects)

    def novelty(self, graphs: Sequence[Graph]) -> np.ndarray:
        """How far each graph is from the nearest labelled one, ``[B]``; 1: as near as the labelled ones are to each other.

        Euclidean distance of the standardised statistics over its median between a labelled network and the next different one.
        Networks of the labelled ones' family have .3 to 2, those of other families 2.5 to thousands (docs/transfer.md).
        """
        self._fitted()
        return novelty(self, _graphs(graphs))

    def doubts(self, graphs: Sequence[Graph] = ()) -> list[str]:
        """Sentences on what speaks against trusting the order of ``graphs``; none if nothing does.

        Labels too few to agree with each other when left out, isomorphic networks with different labels, networks that are far
        from every labelled one, or no labels at all.
        """
        self._fitted()
        return doubts(self, _graphs(graphs))

    def _fitted(self) -> None:
        if not hasattr(self, "mixture_"):
            raise CGError("this predictor has not been fitted; call fit(graphs, y) first")

    def check_unseen(self, graphs: Sequence[Graph]) -> None:
        """Raise ``LeakageError`` if any of the graphs, by fingerprint, is among the labelled ones."""
        seen = {g.digest for g in self.graphs_}
        twice = [i for i, g in enumerate(graphs) if g.digest in seen]
        if twice:
            raise LeakageError(f"{len(twice)} of {len(graphs)} test graphs are among the labelled ones (first: number "
                               f"{twice[0]}, {graphs[twice[0]].name!r}); leave them out of the test")

    def _inputs(self, graphs: Sequence[Graph], deviations: bool = True) -> dict[str, Any]:
        """Unscaled input blocks, each ``[B, ...]``, and the ``Operators``."""
        blocks: dict[str, Any] = dict(scales(recent_statistics(graphs)))
        if self.operators_ is not None:
            blocks["operators"] = self.operators_(graphs, deviations)
        if self.encoder_ is not None:
            blocks["embedding"] = self.encoder_.embed(graphs).astype(np.float64)
        return blocks

    def _views(self, raw: dict[str, Any]) -> dict[str, Any]:
        """Unscaled blocks to the standardised inputs of the members; an embedding joins at ``EMBEDDING_SHARE``."""
        out: dict[str, Any] = {name: standard(raw[name.rpartition(", ")[2]]) for name, standard in self.standard_.items()
                               if name != "embedding"}
        if "embedding" in raw:
            e = self.standard_["embedding"](raw["embedding"])
            if e.shape[1]:
                share = getattr(self.encoder_, "share", EMBEDDING_SHARE)
                for name, x in list(out.items()):
                    out[f"{name}, embedding"] = np.hstack([x, e * np.sqrt(share * x.shape[1] / e.shape[1])])
        if "operators" in raw:
            out["operators"] = raw["operators"]._replace(near=out[NEAR])
        return out

    def save(self, path: str | Path) -> Path:
        """Write a folder with the labelled graphs, the sources and the encoder; ``load`` fits again, in a second or so."""
        self._fitted()
        return save(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> CGPredictor:
        """Read a folder of ``save``. Raises ``StorageError`` naming the file that is missing or corrupt."""
        stored = read(Path(path))
        model = cls(stored.encoder, stored.sources, stored.random_state)
        model.sources_ = resolve(stored.sources, ())
        model._resolved = stored.sources
        return model._learn(stored.graphs, stored.labels, stored.others)


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
