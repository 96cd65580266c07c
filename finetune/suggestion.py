"""Which networks to label first: those whose answers say most about all the others.

A Gaussian process on the statistics knows, before there is any label, how uncertain it would be about every candidate. Labels
are chosen one by one, each where it takes away most of the variance that is left over all candidates (a greedy A-optimal
design; Krause, Singh and Guestrin, JMLR 9, 2008, discuss it beside mutual information).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cg.errors import CGError
from cg.graph import Graph
from cg.recent_statistics import recent_statistics
from finetune.gp import Standardizer, matern
from finetune.views import COLUMN_WEIGHTS, scales

LENGTH, NOISE = 3.0, 0.05  # of the kernel: in median distances between candidates; over the signal's variance
LINE = 0.5  # variance of its linear part
MOST = 2000  # candidates that are weighed against each other


def suggest(graphs: Sequence[Graph], n: int, labelled: Sequence[Graph] = (), random_state: int = 0) -> np.ndarray:
    """Positions of the ``n`` graphs to label next, int64 ``[n]``, the most telling first.

    Args:
        graphs: the candidates ``[B]``; of isomorphic ones the first is taken, and none that is labelled. Of more than
            ``MOST`` so many are drawn at random.
        labelled: networks whose labels are known already.

    Raises ``CGError`` if there are fewer than ``n`` different candidates.
    """
    seen = {g.digest for g in labelled}
    rows: list[int] = []
    for i, g in enumerate(graphs):
        if g.digest not in seen:
            seen.add(g.digest)
            rows.append(i)
    if n > len(rows):
        raise CGError(f"cannot suggest {n} networks: only {len(rows)} of the {len(graphs)} candidates are different from each "
                      "other and have no label")
    most = max(MOST, n)
    if len(rows) > most:
        rows = sorted(np.random.default_rng(random_state).choice(rows, most, replace=False).tolist())
    if not n:
        return np.zeros(0, np.int64)
    known = list(labelled)
    left = covariance(recent_statistics([*known, *(graphs[i] for i in rows)]))  # given what is chosen
    chosen: list[int] = []
    for step in range(len(known) + n):
        if step < len(known):
            i = step
        else:
            gain = (left**2).sum(0) / (np.diag(left) + NOISE)
            gain[: len(known)] = -np.inf
            gain[chosen] = -np.inf
            i = int(gain.argmax())
            chosen.append(i)
        column = left[:, i] / np.sqrt(left[i, i] + NOISE)
        left = left - np.outer(column, column)
    return np.array([rows[i - len(known)] for i in chosen], np.int64)


def covariance(rows: np.ndarray) -> np.ndarray:
    """What a process expects of networks with statistics ``rows [B, F]`` before there is any label, ``[B, B]``.

    Mean over the two views of the predictor, on the natural scale of the statistics, of a Matern 3/2 kernel, whose length is
    ``LENGTH`` median distances, and ``LINE`` times a linear one. The local kernel spreads the choices, the line asks for
    extremes; what else was tried: docs/adr/0004-gaussian-processes.md.
    """
    natural, total = scales(rows)["natural"], np.zeros((len(rows), len(rows)))
    for weights in COLUMN_WEIGHTS.values():
        x = Standardizer(natural, weights)(natural)
        line = x @ x.T / max(x.shape[1], 1)
        square = np.diag(line)
        distance = np.sqrt(np.maximum(square[:, None] + square - 2 * line, 0.0))
        middle = float(np.median(distance[np.triu_indices(len(x), 1)])) if len(x) > 1 else 1.0
        total += (matern(distance / (LENGTH * (middle or 1.0))) + LINE * line) / len(COLUMN_WEIGHTS)
    return total
