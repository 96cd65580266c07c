"""Why a network gets its score, how far it is from everything that is known, and what speaks against trusting an order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import ndtr

from cg.errors import CGError
from cg.global_statistics import GROUPS, STATISTICS
from cg.graph import Graph
from cg.recent_statistics import recent_statistics
from finetune.gp import Standardizer
from finetune.targets import contradictions
from finetune.views import SHARED

if TYPE_CHECKING:
    from finetune.predictor import CGPredictor

FAR = 3.0  # in novelty: 95 % of a family are below 2, of another family above 2.5 and mostly far above (docs/transfer.md)
WEAK = 0.5  # agreement below which an order is hardly worth having


@dataclass(frozen=True)
class Neighbour:
    """A known network. ``label``: in its own unit; of a source its normal score. ``distance``: as ``novelty`` counts it, of a
    source's network with the source in the place of the labelled ones."""

    name: str
    family: str
    label: float
    distance: float


@dataclass(frozen=True)
class Effect:
    """What a statistic did: the score less what it would be with the labelled networks' mean ``typical`` in its place."""

    name: str
    value: float
    typical: float
    effect: float


@dataclass(frozen=True)
class Explanation:
    """One network's score, in label units, and where it comes from.

    Attributes:
        labelled, known: the nearest of the labelled networks, and of those of the sources.
        statistics: the single statistics that moved the score most. They go together in real networks, so effects do not
            add up; ``groups`` are those of whole groups of columns (docs/statistics.md), their values not being of use.
        novelty: distance from the labelled networks, 1 being as near as these are to each other (``CGPredictor.novelty``).
    """

    name: str
    score: float
    std: float
    novelty: float
    labelled: tuple[Neighbour, ...]
    known: tuple[Neighbour, ...]
    statistics: tuple[Effect, ...]
    groups: tuple[Effect, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.name or 'network'}: {self.score:.6g} ± {self.std:.3g}",
                 f"novelty {self.novelty:.2f} (far from {FAR:g} on)"]
        if self.labelled:
            lines.append("nearest labelled (label):")
            lines += [f"  {n.label:>12.6g}  distance {n.distance:.2f}  {n.family} {n.name}" for n in self.labelled]
        if self.known:
            lines.append("nearest of other families (share of the family with a lower label):")
            lines += [f"  {100 * ndtr(n.label):>10.0f} %  distance {n.distance:.2f}  {n.family} {n.name}" for n in self.known]
        lines.append("groups of statistics that moved the score:")
        lines += [f"  {e.effect:>+12.4g}  {e.name}" for e in self.groups]
        lines.append("statistics that moved the score (value, and mean of the labelled networks):")
        lines += [f"  {e.effect:>+12.4g}  {e.name}  {e.value:.4g} ({e.typical:.4g})" for e in self.statistics]
        return "\n".join(lines)


class Distances:
    """Distances to labelled networks in units of the usual one between such a network and the next different one.

    Euclidean on the statistics that vary among the labelled ones, standardised, not clipped.
    """

    def __init__(self, rows: np.ndarray) -> None:
        import faiss

        self.standard = Standardizer(rows)
        x = self._scaled(rows)
        self.index = faiss.IndexFlatL2(max(x.shape[1], 1))
        self.index.add(x)
        square = self.index.search(x, min(2, len(x)))[0][:, -1]
        apart = square[square > 1e-6]
        self.unit = float(np.sqrt(np.median(apart))) if len(apart) else 1.0

    def nearest(self, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Distances and positions of the ``k`` nearest labelled networks, each ``[B, k]``."""
        square, found = self.index.search(self._scaled(rows), min(k, self.index.ntotal))
        return np.sqrt(np.maximum(square, 0.0)) / self.unit, found

    def _scaled(self, rows: np.ndarray) -> np.ndarray:
        s = self.standard
        x = (rows[:, s.used] - s.mean) / s.scale
        return np.ascontiguousarray(x if x.shape[1] else np.zeros((len(rows), 1)), np.float32)


def novelty(predictor: CGPredictor, graphs: Sequence[Graph]) -> np.ndarray:
    """Distance of each graph to the nearest labelled one, float64 ``[B]``; see ``CGPredictor.novelty``."""
    if not len(predictor.labels_):
        raise CGError("novelty is a distance to labelled networks, and there are none; without labels, prior_.overlaps says "
                      "how much of each source resembles the networks")
    if not graphs:
        return np.zeros(0)
    known = recent_statistics(predictor.graphs_).astype(np.float64)
    return np.asarray(Distances(known).nearest(recent_statistics(graphs).astype(np.float64), 1)[0][:, 0], np.float64)


def explain(predictor: CGPredictor, graph: Graph, neighbours: int, effects: int) -> Explanation:
    """See ``CGPredictor.explain``."""
    if predictor.scale_ is None:
        raise CGError("there is nothing to explain without labels: the score is the opinion of other families alone")
    known = recent_statistics(predictor.graphs_).astype(np.float64)
    own = recent_statistics([graph]).astype(np.float64)[0]
    typical = known.mean(0)
    group = np.asarray(GROUPS)
    names = sorted(set(group))
    changed = np.flatnonzero(np.abs(own - typical) > 1e-9)
    rows = np.tile(own, (2 + len(names) + len(changed), 1))  # the last one has usual operators
    for i, name in enumerate(names):
        inside = group == name
        rows[1 + i, inside] = typical[inside]
    rows[1 + len(names) + np.arange(len(changed)), changed] = typical[changed]
    scores, std = predictor.in_label_units(*predictor.score_rows(rows, graph, usual=True))
    effect = scores[0] - scores[1:]
    single = [Effect(STATISTICS[c], float(own[c]), float(typical[c]), float(e))
              for c, e in zip(changed, effect[len(names):-1], strict=True)]
    groups = [Effect(n, float("nan"), float("nan"), float(e))
              for n, e in zip((*names, "operators"), (*effect[: len(names)], effect[-1]), strict=True)]
    distance, found = Distances(known).nearest(own[None], neighbours)
    labelled = tuple(Neighbour(predictor.graphs_[i].name, predictor.graphs_[i].family, float(predictor.labels_[i]), float(d))
                     for d, i in zip(distance[0], found[0], strict=True))
    return Explanation(graph.name, float(scores[0]), float(std[0]), float(distance[0, 0]), labelled,
                       _of_sources(predictor, own, neighbours), _largest(single, effects), _largest(groups, effects))


def _largest(effects: list[Effect], n: int) -> tuple[Effect, ...]:
    return tuple(sorted((e for e in effects if e.effect), key=lambda e: -abs(e.effect))[:n])


def _of_sources(predictor: CGPredictor, own: np.ndarray, n: int) -> tuple[Neighbour, ...]:
    found = []
    for source in predictor.sources_:
        distance, positions = Distances(source.statistics).nearest(own[None, SHARED], n)
        for d, i in zip(distance[0], positions[0], strict=True):
            g = source.graphs[int(i)]
            found.append(Neighbour(g.name or source.graphs.ids[int(i)], g.family, float(source.scores[i]), float(d)))
    return tuple(sorted(found, key=lambda f: f.distance)[:n])


def doubts(predictor: CGPredictor, graphs: Sequence[Graph]) -> list[str]:
    """See ``CGPredictor.doubts``."""
    said, n = [], len(predictor.labels_)
    if not n:
        expected = predictor.prior_.agreement if predictor.prior_ is not None else 0.0
        said.append(f"there are no labels: other families alone decide, and an agreement (Spearman) of {expected:.2f} with the "
                    "truth is expected" + ("; that is little more than a guess" if expected < WEAK else ""))
        return said
    agreement = predictor.agreement_
    if agreement < WEAK:
        said.append(f"{n} labels are not enough: predicted without its own label, a network's place agrees with it by "
                    f"{agreement:.2f} (Spearman); label more, 'cg suggest' says which")
    for i, j in contradictions(predictor.graphs_, predictor.labels_):
        a, b = predictor.graphs_[i], predictor.graphs_[j]
        said.append(f"labels contradict each other: {a.name!r} and {b.name!r} are the same network, with "
                    f"{predictor.labels_[i]:.6g} and {predictor.labels_[j]:.6g}")
    far = novelty(predictor, graphs) > FAR if graphs else np.zeros(0, bool)
    if far.any():
        said.append(f"{int(far.sum())} of {len(graphs)} networks (first: {graphs[int(far.argmax())].name!r}) are more than "
                    f"{FAR:g} times as far from every labelled one as these are from each other; their scores are guesses: "
                    "label some of them")
    return said
