"""Compiled sweeps that give every node its context: receptive field, signal scale, depth. Raw arrays only.

``prof`` is the profile table of ``cg.global_statistics`` gathered per node, ``kind`` its node kinds.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from cg._hashing import _csr

NORM, ACT, AVGPOOL, ADD = 7, 8, 10, 11
N_CONTEXT = 6


@njit(cache=True)
def receptive_field(n, start_in, edge_in, src, prof):  # type: ignore[no-untyped-def]
    """``[n, 3]``: pixels of the input that one value sees along the widest, the narrowest and the mean walk."""
    jump = np.ones(n)
    rf = np.ones((n, 3))
    for i in range(n):
        d = start_in[i + 1] - start_in[i]
        if d == 0:
            continue
        hi, lo, mean, step = 0.0, 1e30, 0.0, 1.0
        for p in range(start_in[i], start_in[i + 1]):
            s = src[edge_in[p]]
            hi, lo, mean = max(hi, rf[s, 0]), min(lo, rf[s, 1]), mean + rf[s, 2] / d
            step = max(step, jump[s])
        grow = (prof[i, 4] - 1) * prof[i, 6] * step
        rf[i, 0], rf[i, 1], rf[i, 2] = hi + grow, lo + grow, mean + grow
        jump[i] = step * prof[i, 5]
    return rf


@njit(cache=True)
def signal(n, start_in, edge_in, start_out, edge_out, src, dst, outputs, kind, prof):  # type: ignore[no-untyped-def]
    """Variance forward, gradient scale backward (both at initialisation), and log of the number of walks from a source.

    Rules: normalisation gives variance 1 and divides gradients by the incoming variance; an activation and its gradient
    halve; additions sum; average pooling divides by its kernel side; everything else averages its arguments.
    """
    var = np.ones(n)
    paths = np.zeros(n)  # natural log of the number of walks from the sources
    for i in range(n):
        d = start_in[i + 1] - start_in[i]
        if d == 0:
            continue
        total, top = 0.0, -1e30
        for p in range(start_in[i], start_in[i + 1]):
            s = src[edge_in[p]]
            total += var[s]
            top = max(top, paths[s])
        many = 0.0
        for p in range(start_in[i], start_in[i + 1]):
            many += np.exp(paths[src[edge_in[p]]] - top)
        paths[i] = top + np.log(many)
        if kind[i] == ADD:
            var[i] = total
        elif kind[i] == NORM:
            var[i] = 1.0
        elif kind[i] == ACT:
            var[i] = 0.5 * total / d
        elif kind[i] == AVGPOOL:
            var[i] = total / d / prof[i, 4]
        else:
            var[i] = total / d
        var[i] = max(min(var[i], 1e30), 1e-30)
    grad = np.zeros(n)
    for o in outputs:
        grad[o] = 1.0
    for i in range(n - 1, -1, -1):
        g = grad[i]
        for p in range(start_out[i], start_out[i + 1]):
            j = dst[edge_out[p]]
            back = grad[j]
            if kind[j] == NORM:
                back /= var[i]
            elif kind[j] == ACT:
                back *= 0.5
            elif kind[j] == AVGPOOL:
                back /= prof[j, 4]
            g += back
        grad[i] = max(min(g, 1e30), 1e-30)
    return var, grad, paths


@njit(cache=True)
def node_context(spec, src, dst, outputs, kind_of, profile):  # type: ignore[no-untyped-def]
    """``[n, 6]``: relative depth, log2 receptive field / 8, log variance, log gradient, backward and forward visits."""
    n = len(spec)
    start_in, edge_in = _csr(n, dst)
    start_out, edge_out = _csr(n, src)
    kind, prof = kind_of[spec], profile[spec]
    rf = receptive_field(n, start_in, edge_in, src, prof)
    var, grad, _ = signal(n, start_in, edge_in, start_out, edge_out, src, dst, outputs, kind, prof)
    out = np.zeros((n, N_CONTEXT))
    level = np.zeros(n)
    top = 1.0
    for i in range(n):
        for p in range(start_in[i], start_in[i + 1]):
            level[i] = max(level[i], level[src[edge_in[p]]] + 1)
        top = max(top, level[i])
    for o in outputs:
        out[o, 4] += 1.0 / len(outputs)
    for i in range(n - 1, -1, -1):
        d = start_in[i + 1] - start_in[i]
        for p in range(start_in[i], start_in[i + 1]):
            out[src[edge_in[p]], 4] += out[i, 4] / d
    for i in range(n):
        d = start_out[i + 1] - start_out[i]
        if start_in[i + 1] == start_in[i]:
            out[i, 5] += 1.0
        for p in range(start_out[i], start_out[i + 1]):
            out[dst[edge_out[p]], 5] += out[i, 5] / d
        out[i, 0] = level[i] / top
        out[i, 1] = np.log2(rf[i, 2]) / 8.0
        out[i, 2] = min(max(np.log(var[i]), -10.0), 10.0)
        out[i, 3] = min(max(np.log(grad[i]) / 4.0, -10.0), 10.0)
    return out
