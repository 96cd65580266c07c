"""What labelled source families say about networks of a target family that has no labels, or few.

A source speaks through a Gaussian process and a straight line on the columns whose distributions overlap (Kolmogorov-Smirnov
distance to a sample of target networks, which needs no labels), and counts by how many those are and by how well its order
agrees with the labels there are. The line reads where in its own family a network stands, column by column: what is above most
of them there is taken for what is above most of them here. Where no source is near, those that are at least networks of the
same kind also speak with one voice. *Size* is one more opinion: in every family larger networks tend to be better, so it
carries where no source resembles the target, and a source that speaks against it is believed less. A source of five families
or more overlaps with anything, and is believed where the target is not farther from these than they are from each other, but
does not take the place of size. What is said here is the mean of ``CGPredictor``'s processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy

import numpy as np

from finetune.gp import CLIP, matern
from finetune.sources import Source, size
from finetune.targets import agreement
from finetune.views import SHARED

ALIKE, NEAR = 0.6, 0.25  # distance up to which a column overlaps; a family is near if that share of the columns does
KIND, SAME_KIND = 0.95, 0.33  # families are of one kind if that share of the columns is closer than the former
AWAY = 0.18  # overlap of the nearest source up to which the common voice counts in full; from NEAR on it does not
COMMON, COMMON_RIDGE = 0.65, 1.0  # its expected agreement with labels, and the penalty of its line
CROWD = 100  # networks of the target without which no family can be told to be of its kind
STANDARDISED = 0.8  # distance up to which a column of a far family overlaps after each family is standardised by itself
ROWS = 700  # networks of a source that its processes know: all 2,000 rank the same and cost three times as much
LENGTH, NOISE = 6.0, 0.1
RIDGE = 0.03  # penalty of the line, for a network
LINE, LINE_NEAR = 1.0, 2.0  # how much it counts beside a process, in a far family and in a near one
FEW = 8.0  # networks of the target say where the others stand like so many of the source's
REFERENCE = 512  # networks that stand for the target
# Before there are labels a source is expected to agree with them by min(3 overlap, .85), less where it agrees with size by less
# than CONSENT; that is believed like EXPECTED labels.
EXPECTED, TRUST, MOST, CONSENT = 15.0, 3.0, 0.85, 0.5
# Size is expected to agree by .8 with labels if it agrees by ENOUGH with those of the sources (it is turned round where theirs
# fall with it), and counts the less the more the best source of one family is expected to: times (1 - that) to the power
# DISCOUNT.
SIZE, ENOUGH, DISCOUNT = 0.8, 0.4, 1.5
# Agreement of a source with size before it is seen, believed like so many networks.
USUAL, NETWORKS = 0.6, 8.0
CHUNK = 256  # networks at a time: the arrays stay in the cache


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Kolmogorov-Smirnov distance of every column of ``a [A, F]`` and ``b [B, F]``, ``[F]`` from 0 to 1."""
    x = np.vstack([a, b])
    order = np.argsort(x, 0, kind="stable")
    ordered = np.take_along_axis(x, order, 0)
    steps = np.where(order < len(a), 1 / len(a), -1 / len(b)).cumsum(0)
    last = np.vstack([np.diff(ordered, axis=0) != 0, np.ones((1, x.shape[1]), bool)])  # of equal values only the last counts
    return np.asarray(np.abs(np.where(last, steps, 0.0)).max(0))


class _Scale:
    """Some columns in units of one family's mean and spread, clipped."""

    def __init__(self, rows: np.ndarray, columns: np.ndarray | None = None) -> None:
        rows = rows if columns is None else rows[:, columns]
        self.columns, self.mean, self.spread = columns, rows.mean(0), np.maximum(rows.std(0), 1e-6)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        out = (x if self.columns is None else x[:, self.columns]) - self.mean
        out /= self.spread
        return np.clip(out, -CLIP, CLIP, out=out)


class _Process:
    """A Gaussian process with fixed hyper-parameters, mean only: rows ``x [n, F]`` with scores ``y [n]``."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.x, self.squares = x, (x * x).sum(1)
        self.weights = np.linalg.solve(self._kernel(x) + NOISE * np.eye(len(x)), y)

    def _kernel(self, x: np.ndarray) -> np.ndarray:
        square = x @ (-2.0 * self.x.T)
        square += (x * x).sum(1)[:, None]
        square += self.squares
        square *= 1.0 / (x.shape[1] * LENGTH**2)
        return matern(np.sqrt(np.maximum(square, 0.0, out=square), out=square))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self._kernel(x) @ self.weights)


class _Quantiles:
    """Some columns as the share of the source's networks ``[S, F]`` below, less the mean of that and over its spread."""

    def __init__(self, columns: np.ndarray, source: np.ndarray) -> None:
        self.columns, self.source = columns, source
        self.steps = self._steps(source, np.full(len(source), 1.0 / len(source)))
        self.mean, self.spread = 0.0, 1.0
        own = self(source)
        self.mean, self.spread = own.mean(0), np.maximum(own.std(0), 1e-6)

    def among(self, target: np.ndarray) -> _Quantiles:
        """The same with shares among the target's networks ``[R, F]`` and, like ``FEW`` more of them, the source's."""
        found = copy(self)
        each = np.repeat([FEW / len(self.source), 1.0], [len(self.source), len(target)]) / (FEW + len(target))
        found.steps = self._steps(np.vstack([self.source, target]), each)
        return found

    def _steps(self, rows: np.ndarray, each: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """By column its values, and the share of what is below them, half of what equals them included."""
        found = []
        for column in self.columns:
            values, place = np.unique(rows[:, column], return_inverse=True)
            weight = np.bincount(place, each)
            found.append((values, weight.cumsum() - weight / 2))
        return found

    def __call__(self, x: np.ndarray) -> np.ndarray:
        shares = [np.interp(x[:, c], *steps) for c, steps in zip(self.columns, self.steps, strict=True)]
        return np.asarray((np.stack(shares, 1) - self.mean) / self.spread)


class _Line:
    """Ridge regression: rows ``x [n, F]``, scores ``y [n]``, both with mean about 0."""

    def __init__(self, x: np.ndarray, y: np.ndarray, ridge: float = RIDGE) -> None:
        self.slopes = np.linalg.solve(x.T @ x / len(x) + ridge * np.eye(x.shape[1]), x.T @ y / len(x))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(x @ self.slopes)


class _Opinion:
    """One source as seen from a sample of target networks ``[R, len(SHARED)]``.

    Attributes:
        overlap: share of the columns that overlap.
        single: whether the source is one family.
        trust: agreement with labels that is expected.
        known, kind: columns that are not all different, and the share of those that say that the families are of one kind.
    """

    def __init__(self, source: Source, reference: np.ndarray) -> None:
        x = source.statistics
        distance = distances(x, reference)
        distance[x.std(0) < 1e-6] = 1.0
        varies = reference.std(0) > 1e-6
        apart = source.apart
        self.source, self.single = source, apart is None
        self.known = np.flatnonzero(varies & (distance < 1.0))
        self.kind = float((varies & (distance < KIND)).mean())
        self.overlap = float((distance < ALIKE).mean())
        self.trust = min(TRUST * self.overlap, MOST) * (1.0 if apart is None else apart.believed(reference))
        rows = np.random.default_rng(0).permutation(len(x))[:ROWS]
        known, y = _Scale(x)(x[rows]), source.scores[rows]
        columns = np.flatnonzero(distance < ALIKE)
        if len(columns) < 3:
            columns = np.argsort(distance)[:3]
        quantiles = _Quantiles(columns, x)
        self.parts: list[tuple[Callable[..., np.ndarray], Callable[..., np.ndarray]]] = [
            (quantiles.among(reference), _Line(quantiles(x), source.scores)),
            (_Scale(x, columns), _Process(known[:, columns], y))]
        if self.overlap < NEAR and len(reference) > 1:  # far: where a network stands within its own family counts as much
            varies = (x.std(0) > 1e-5) & (reference.std(0) > 1e-5)
            columns = np.flatnonzero(varies & (distances(known, _Scale(reference)(reference)) < STANDARDISED))
            if len(columns) > 2:
                self.parts.append((_Scale(reference, columns), _Process(known[:, columns], y)))
        self.balance = [1.0 / max(float(p.std()), 1e-9) for p in self._each(reference)]
        self.balance[0] *= LINE if self.overlap < NEAR else LINE_NEAR

    def _each(self, x: np.ndarray) -> list[np.ndarray]:
        return [process(scale(x)) for scale, process in self.parts]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Scores ``[B]`` of networks ``[B, len(SHARED)]``, in no unit."""
        return np.asarray(sum(b * p for b, p in zip(self.balance, self._each(x), strict=True)))


class _Common:
    """One line for all of some sources, ``[R, len(SHARED)]`` being a sample of target networks.

    It reads all columns that vary, as the share of its own family's networks that lie below: where these families are far from
    the target, what holds in each of them holds further than what one teaches about the few columns that overlap. ``trust``:
    agreement with labels that is expected.
    """

    single = True

    def __init__(self, opinions: Sequence[_Opinion], reference: np.ndarray, trust: float) -> None:
        self.trust = trust
        columns = np.unique(np.concatenate([o.known for o in opinions]))
        rows = [_Quantiles(columns, o.source.statistics)(o.source.statistics) for o in opinions]
        self._line = _Line(np.vstack(rows), np.concatenate([o.source.scores for o in opinions]), COMMON_RIDGE)
        self._quantiles = _Quantiles(columns, reference)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Scores ``[B]`` of networks ``[B, len(SHARED)]``, in no unit."""
        return self._line(self._quantiles(x))


class Prior:
    """What several sources say together about a target family. ``reference``: statistics ``[R, F]`` of networks of it.

    Attributes:
        overlaps: share of the columns that overlap, ``[sources]``.
        voices: the opinions of the sources and, where none is near but some are of the target's kind, what these say in common.
        weights: of the voices and, last, of size, ``[voices + 1]``.
        agreement: estimated correlation of the common opinion with the labels.
    """

    def __init__(self, sources: Sequence[Source], reference: np.ndarray) -> None:
        step = max(-(-len(reference) // REFERENCE), 1)
        reference = reference[::step].astype(np.float64)
        shared = reference[:, SHARED]
        self.opinions = [_Opinion(s, shared) for s in sources]
        self.overlaps = np.array([o.overlap for o in self.opinions])
        self.voices: list[_Opinion | _Common] = [*self.opinions]
        single = [o for o in self.opinions if o.single]
        nearest = max((o.overlap for o in single), default=0.0)
        trust = COMMON * float(np.clip((NEAR - nearest) / (NEAR - AWAY), 0.0, 1.0))
        kin = [o for o in single if o.kind > SAME_KIND]
        if kin and trust and len(reference) >= CROWD:
            self.voices.append(_Common(kin, shared, trust))
        follows = float(np.mean([s.follows_size for s in sources]))
        self._size = SIZE * float(np.clip(follows / ENOUGH, -1.0, 1.0))
        self._over = self.scores(reference)
        self.judge(self._over[:0], np.zeros(0))

    def scores(self, x: np.ndarray) -> np.ndarray:
        """Opinions ``[B, voices + 1]`` on networks with statistics ``[B, F]``: of each voice, and size with its sign."""
        out = np.zeros((len(x), len(self.voices) + 1))
        for i in range(0, len(x), CHUNK):
            rows = x[i:i + CHUNK, SHARED].astype(np.float64)
            for j, voice in enumerate(self.voices):
                out[i:i + CHUNK, j] = voice(rows)
            out[i:i + CHUNK, -1] = np.copysign(1.0, self._size) * size(rows)
        return out

    def judge(self, scores: np.ndarray, z: np.ndarray) -> None:
        """Weigh the opinions by their scores ``[B, voices + 1]`` for networks with labels ``z [B]``."""
        seen = np.vstack([self._over, scores])  # a handful of networks may lie close together by chance
        self._centre, self._spread = seen.mean(0), np.maximum(seen.std(0), 1e-6)
        seen, own = self._standard(seen), self._standard(scores)
        n = len(seen)
        consent = np.array([(n * agreement(seen[:, -1], p) + NETWORKS * USUAL) / (n + NETWORKS) for p in seen.T[:-1]])
        expected = np.array([v.trust for v in self.voices]) * np.clip(1.0 + consent - CONSENT, 0.0, 1.0)
        each = np.array([self._agreement(e, p, z) for e, p in zip([*expected, abs(self._size)], own.T, strict=True)])
        self.weights = each**2 / (1.0 - each**2)
        single = np.array([v.single for v in self.voices])
        self.weights[-1] *= (1.0 - each[:-1][single].max(initial=0.0)) ** DISCOUNT
        self.scale = max(float((seen @ self.weights).std()), 1e-9)
        best = max(expected.max(initial=0.0), abs(self._size) * np.sqrt(1.0 - expected[single].max(initial=0.0)))
        self.agreement = self._agreement(best, own @ self.weights, z) if self.weights.any() else 0.0

    def _standard(self, scores: np.ndarray) -> np.ndarray:
        return np.asarray((scores - self._centre) / self._spread)

    @staticmethod
    def _agreement(expected: float, p: np.ndarray, z: np.ndarray) -> float:
        """Estimated correlation of an opinion with the labels, 0 to .95."""
        found, n = agreement(z, p), len(z)
        return float(np.clip((EXPECTED * expected + n * found) / (EXPECTED + n), 0.0, 0.95))

    def combine(self, scores: np.ndarray) -> np.ndarray:
        """Normal scores ``[B]``: one opinion of all, shrunk by how far it can be trusted."""
        return np.asarray(self.agreement * (self._standard(scores) @ self.weights) / self.scale)
