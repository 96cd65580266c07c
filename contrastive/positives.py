"""Spectral nearest neighbours: which graphs are positives of which."""

from __future__ import annotations

import numpy as np


def spectral_neighbours(spectra: np.ndarray, family: np.ndarray, k: int) -> np.ndarray:
    """Row numbers of the ``k`` nearest graphs of the same family, int64 ``[B, k]``; never the row itself.

    ``spectra`` float ``[B, 11]``; ``family`` int ``[B]``. Exact search with faiss (L2). A family of m <= k graphs repeats its
    members; one that has a single graph points to itself.
    """
    import faiss

    out = np.empty((len(spectra), k), np.int64)
    for f in np.unique(family):
        rows = np.flatnonzero(family == f)
        if len(rows) == 1:
            out[rows] = rows[0]
            continue
        points = np.ascontiguousarray(spectra[rows], np.float32)
        index = faiss.IndexFlatL2(points.shape[1])
        index.add(points)
        take = min(k, len(rows) - 1)
        _, found = index.search(points, take + 1)
        for i in range(len(rows)):
            others = found[i][found[i] != i][:take]
            out[rows[i]] = rows[np.resize(others, k)]
    return out
