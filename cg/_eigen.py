"""Compiled eigenvalue solver for the smallest eigenvalues of a normalised Laplacian; raw arrays only.

Networks are long and thin, so in level order the Laplacian has a narrow envelope: a Cholesky factor of ``L + shift`` costs
microseconds, and a shift-inverted Lanczos iteration finds the low end of the spectrum in a few dozen solves. A Sturm
count of a second factorisation proves that nothing was missed (Lanczos cannot see multiplicities); where it disagrees the
caller falls back to a dense solver.
"""

from __future__ import annotations

import numpy as np
from numba import njit

SHIFT = 0.01


@njit(cache=True)
def envelope(n, src, dst):  # type: ignore[no-untyped-def]
    """Row starts ``first [n]``, offsets ``[n + 1]`` and values ``[sum of widths]`` of the normalised Laplacian (lower part).

    Parallel edges count once, direction is ignored. A node without edges gets a zero row.
    """
    first = np.arange(n)
    for e in range(len(src)):
        low, high = min(src[e], dst[e]), max(src[e], dst[e])
        first[high] = min(first[high], low)
    offset = np.zeros(n + 1, np.int64)
    for i in range(n):
        offset[i + 1] = offset[i] + i - first[i] + 1
    value = np.zeros(offset[n])
    degree = np.zeros(n)
    for e in range(len(src)):
        low, high = min(src[e], dst[e]), max(src[e], dst[e])
        at = offset[high] + low - first[high]
        if low != high and value[at] == 0.0:
            value[at] = -1.0
            degree[low] += 1.0
            degree[high] += 1.0
    scale = np.zeros(n)
    for i in range(n):
        scale[i] = 1.0 / np.sqrt(degree[i]) if degree[i] > 0 else 0.0
    for i in range(n):
        for j in range(first[i], i):
            value[offset[i] + j - first[i]] *= scale[i] * scale[j]
        value[offset[i + 1] - 1] = 1.0 if degree[i] > 0 else 0.0
    return first, offset, value


@njit(cache=True)
def _factor(n, first, offset, value, shift):  # type: ignore[no-untyped-def]
    """``L D L^T`` of ``A + shift I`` inside the envelope; returns ``(factor, pivots [n])``."""
    f = value.copy()
    d = np.empty(n)
    for i in range(n):
        row = offset[i] - first[i]
        for j in range(first[i], i):
            start = max(first[i], first[j])
            row_j = offset[j] - first[j]
            total = f[row + j]
            for k in range(start, j):
                total -= f[row + k] * f[row_j + k]
            f[row + j] = total
        pivot = f[row + i] + shift
        for j in range(first[i], i):
            u = f[row + j]
            unit = u / d[j]
            pivot -= u * unit
            f[row + j] = unit
        if pivot == 0.0:
            pivot = 1e-300
        d[i] = pivot
        f[row + i] = 1.0
    return f, d


@njit(cache=True)
def _solve(n, first, offset, f, d, x):  # type: ignore[no-untyped-def]
    """Solve in place with the factor of ``_factor``."""
    for i in range(n):
        row = offset[i] - first[i]
        total = x[i]
        for j in range(first[i], i):
            total -= f[row + j] * x[j]
        x[i] = total
    for i in range(n):
        x[i] /= d[i]
    for i in range(n - 1, -1, -1):
        row = offset[i] - first[i]
        xi = x[i]
        for j in range(first[i], i):
            x[j] -= f[row + j] * xi


@njit(cache=True)
def count_below(n, first, offset, value, bound):  # type: ignore[no-untyped-def]
    """Number of eigenvalues smaller than ``bound`` (Sylvester's law of inertia)."""
    _, d = _factor(n, first, offset, value, -bound)
    count = 0
    for i in range(n):
        if d[i] < 0:
            count += 1
    return count


@njit(cache=True)
def _ritz(d, e, z):  # type: ignore[no-untyped-def]
    """Eigenvalues (into ``d``, unsorted) of a symmetric tridiagonal matrix and one row of its eigenvectors (into ``z``).

    ``d [m]`` diagonal; ``e [m]`` with ``e[i]`` between i and i + 1 and ``e[m - 1] = 0``; ``z`` starts as that row of the
    identity. Implicit QL; source: Golub and Welsch, Math. Comp. 23 (1969), which carries one row in the same way.
    """
    m = len(d)
    for low in range(m):
        for _ in range(80):
            high = low
            while high < m - 1 and abs(e[high]) > 2.3e-16 * (abs(d[high]) + abs(d[high + 1])):
                high += 1
            if high == low:
                break
            g = (d[low + 1] - d[low]) / (2.0 * e[low])
            r = np.sqrt(g * g + 1.0)
            g = d[high] - d[low] + e[low] / (g + (r if g >= 0 else -r))
            s, c, shift = 1.0, 1.0, 0.0
            split = False
            for i in range(high - 1, low - 1, -1):
                f, b = s * e[i], c * e[i]
                r = np.sqrt(f * f + g * g)
                e[i + 1] = r
                if r == 0.0:
                    d[i + 1] -= shift
                    e[high] = 0.0
                    split = True
                    break
                s, c = f / r, g / r
                g = d[i + 1] - shift
                r = (d[i] - g) * s + 2.0 * c * b
                shift = s * r
                d[i + 1] = g + shift
                g = c * r - b
                f = z[i + 1]
                z[i + 1] = s * z[i] + c * f
                z[i] = c * z[i] - s * f
            if not split:
                d[low] -= shift
                e[low] = g
                e[high] = 0.0


@njit(cache=True, fastmath={"reassoc", "contract", "nsz"})
def _project_out(basis, m, w):  # type: ignore[no-untyped-def]
    """Remove from ``w`` its components along ``basis[:m + 1]``; returns the last one and the norm that remains."""
    n = len(w)
    last = 0.0
    for j in range(m + 1):
        row = basis[j]
        dot = 0.0
        for i in range(n):
            dot += row[i] * w[i]
        for i in range(n):
            w[i] -= dot * row[i]
        last = dot
    norm = 0.0
    for i in range(n):
        norm += w[i] * w[i]
    return last, np.sqrt(norm)


@njit(cache=True)
def smallest(n, src, dst, k, with_vectors):  # type: ignore[no-untyped-def]
    """The ``k`` smallest eigenvalues in ascending order, their eigenvectors ``[k, n]`` (zeros unless asked for), and whether
    the values are proven complete; needs ``k < n``."""
    first, offset, value = envelope(n, src, dst)
    f, d = _factor(n, first, offset, value, SHIFT)
    limit = min(n, 90)
    steps = min(limit, 3 * k)
    basis = np.zeros((limit + 1, n))
    alpha, beta = np.zeros(limit), np.zeros(limit + 1)
    state = np.uint64(88172645463325252)
    norm = 0.0
    for i in range(n):  # xorshift: a fixed start vector without symmetry
        state ^= state << np.uint64(13)
        state ^= state >> np.uint64(7)
        state ^= state << np.uint64(17)
        basis[0, i] = np.float64(state >> np.uint64(11)) / 9007199254740992.0 - 0.5
        norm += basis[0, i] ** 2
    basis[0] /= np.sqrt(norm)
    done = 0
    found = np.zeros(k)
    vectors_out = np.zeros((k, n))
    while True:
        for m in range(done, steps):
            w = basis[m].copy()
            _solve(n, first, offset, f, d, w)
            before = 0.0
            for again in range(2):  # full reorthogonalisation; a second pass only where the first cancelled much
                part, rest = _project_out(basis, m, w)
                alpha[m] += part
                beta[m + 1] = rest
                if again == 0:
                    before = np.sqrt(rest * rest + part * part)
                if rest > 0.5 * before:
                    break
            if beta[m + 1] < 1e-11:
                steps = m + 1
                limit = m + 1
                break
            basis[m + 1] = w / beta[m + 1]
        done = steps
        theta, off, tail = alpha[:done].copy(), np.zeros(done), np.zeros(done)
        off[: done - 1] = beta[1:done]
        tail[done - 1] = 1.0
        _ritz(theta, off, tail)
        order = np.argsort(-theta)
        if done >= k:
            converged = True
            for q in range(k):
                found[q] = 1.0 / theta[order[q]] - SHIFT
                if abs(beta[done] * tail[order[q]]) > 1e-7 * theta[order[q]]:
                    converged = False
            if converged:
                break
        if steps >= limit:
            return found, vectors_out, False
        steps = min(limit, steps + 10)
    complete = count_below(n, first, offset, value, found[k - 1] + 1e-7) == k
    if not complete:  # a cluster across the border is fine as long as the k values are right
        complete = count_below(n, first, offset, value, found[k - 1] - 1e-7) == k - 1
    if with_vectors:
        t = np.diag(alpha[:done])
        for i in range(1, done):
            t[i, i - 1] = beta[i]
            t[i - 1, i] = beta[i]
        _, vectors = np.linalg.eigh(t)
        for q in range(k):
            for j in range(done):
                for i in range(n):
                    vectors_out[q, i] += vectors[j, done - 1 - q] * basis[j, i]
    return found, vectors_out, complete
