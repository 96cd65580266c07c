"""Laplacian spectrum of a graph: the structural signature that contrastive pre-training compares."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from cg.graph import Graph

DEFAULT_K = 11
_DENSE_BELOW = 40  # a dense solver is faster for small graphs
_cache: dict[bytes, np.ndarray] = {}
_CACHE_LIMIT = 200_000


def spectrum(graph: Graph, k: int = DEFAULT_K) -> np.ndarray:
    """The ``k`` smallest eigenvalues of the normalised Laplacian of the undirected graph, float64 ``[k]``, ascending.

    Source: arXiv 2302.10835, Eq. 4.4 (k = 11). ``L = I - D^-1/2 A D^-1/2`` with A the 0/1 adjacency matrix without
    directions; values lie in [0, 2] and the first one is 0. A graph with fewer than ``k`` nodes is padded at the end with
    2, the upper bound of the spectrum: it then looks like a small graph with no further slow modes, never like a large
    graph, whose low eigenvalues crowd at 0.
    """
    key = graph.src.tobytes() + graph.dst.tobytes() + bytes(f"|{graph.n_nodes}|{k}", "ascii")
    values = _cache.get(key)
    if values is None:
        if len(_cache) >= _CACHE_LIMIT:
            _cache.clear()
        values = _cache[key] = _spectrum(graph.n_nodes, graph.src, graph.dst, k)
        values.flags.writeable = False
    return values


def spectra(graphs: Iterable[Graph], k: int = DEFAULT_K) -> np.ndarray:
    """``spectrum`` of many graphs, float64 ``[B, k]``; graphs of one topology are solved once."""
    rows = [spectrum(g, k) for g in graphs]
    return np.stack(rows) if rows else np.zeros((0, k))


def laplacian_positions(n: int, src: np.ndarray, dst: np.ndarray, k: int) -> np.ndarray:
    """Laplacian positional encoding: eigenvectors 2 to ``k + 1``, float32 ``[n, k]``, scaled to unit mean square per column.

    Source: Dwivedi and Bresson, arXiv 2012.09699. The sign, which is arbitrary, is chosen so that the first node (an input)
    is not negative; small graphs are padded with zero columns.
    """
    out = np.zeros((n, k), np.float32)
    if n < 2:
        return out
    vectors: np.ndarray | None = None
    if _narrow(n, src, dst, k + 1):
        from cg._eigen import smallest

        _, found, complete = smallest(n, src.astype(np.int64), dst.astype(np.int64), k + 1, True)
        vectors = found[1:].T if complete else None
    if vectors is None:
        vectors = np.linalg.eigh(_dense_laplacian(n, src, dst))[1][:, 1 : k + 1]
    lead = np.where(np.abs(vectors[0]) > 1e-6, vectors[0], vectors.sum(0))
    out[:, : vectors.shape[1]] = vectors * np.where(lead < 0, -1.0, 1.0) * np.sqrt(n)
    return out


def _narrow(n: int, src: np.ndarray, dst: np.ndarray, k: int) -> bool:
    """Whether the envelope solver is the faster one."""
    if n < max(_DENSE_BELOW, 3 * k):
        return False
    widths = np.zeros(n)
    np.maximum.at(widths, dst, (dst - src).astype(np.float64))
    return bool((widths**2).sum() < 0.1 * float(n) ** 3)


def _spectrum(n: int, src: np.ndarray, dst: np.ndarray, k: int) -> np.ndarray:
    out = np.full(k, 2.0)
    if _narrow(n, src, dst, k):
        from cg._eigen import smallest

        values, _, complete = smallest(n, src.astype(np.int64), dst.astype(np.int64), k, False)
        if complete:
            return np.clip(values, 0.0, 2.0)
    values = dense_spectrum(n, src, dst)[:k]
    out[: len(values)] = values
    return np.clip(out, 0.0, 2.0)


def dense_spectrum(n: int, src: np.ndarray, dst: np.ndarray) -> np.ndarray:
    """All eigenvalues by a dense LAPACK solver, float64 ``[n]``; the slow and certain way."""
    return np.asarray(np.linalg.eigvalsh(_dense_laplacian(n, src, dst)))


def _dense_laplacian(n: int, src: np.ndarray, dst: np.ndarray) -> np.ndarray:
    a = np.zeros((n, n))
    a[src, dst] = a[dst, src] = 1.0
    np.fill_diagonal(a, 0.0)
    degree = a.sum(1)
    scale = np.divide(1.0, np.sqrt(degree), out=np.zeros(n), where=degree > 0)
    return np.diag((degree > 0).astype(float)) - a * scale[:, None] * scale[None, :]
