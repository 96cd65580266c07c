"""Compiled mean-field signal propagation: what random weights do to a signal and to a gradient, without making any weight.

A node is described by second moments of its values, averaged over channels, positions and weights: ``K[:, 0]`` of one value
with itself, 1 with its neighbour in the image, 2 with a far position of the same image, 3 with the same position of a similar
image, 4 with any other image. Weights are normal with variance 2 / fan-in and independent, so layers scale moments, additions
add them, normalisation takes away what all images share (batch), what all positions share (instance) or nothing (others),
rectifiers follow the arc-cosine kernel (Cho and Saul 2009, Eq. 6 with n = 0 and 1), and pooling averages moments that fall
geometrically with distance. ``G`` holds the same of gradients, backward: 0 of one value, 1 of far positions. Poole et al.
(2016) and Schoenholz et al. (2017) for chains, Yang et al. (2019) for batch normalisation.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from cg._context import ACT, ADD, AVGPOOL, NORM
from cg._hashing import _csr

MAXPOOL, MUL, CONCAT = 9, 12, 13
PER_IMAGE, PER_BATCH = 1, 2
LIKE = 0.5  # correlation of two similar images
FIELD_STAGES = 5
FIELD = ("out_scale", "out_like", "act_far", "act_near", "act_like", "act_like_min", "zen", "norm_mean", "norm_min", "norm_std",
         "add_share", "grad_norm", "fisher", "snip", "grad_in", "layer_mean", "layer_std", "layer_min", "layer_max",
         "layer_slope", "node_std", "node_max", "codes")
FIELD_STAGE = ("layer", "like", "far", "near", "grad")
N_FIELD = len(FIELD) + FIELD_STAGES * len(FIELD_STAGE)
_TINY, _HUGE = 1e-30, 1e30


@njit(cache=True)
def _rectified(k0, kx):  # type: ignore[no-untyped-def]
    """Moment of two rectified values, and the probability that both are positive."""
    c = min(max(kx / k0, -1.0), 1.0)
    t = np.pi - np.arccos(c)
    return k0 * (np.sqrt(1.0 - c * c) + t * c) / (2 * np.pi), t / (2 * np.pi)


@njit(cache=True)
def _scale(k, by):  # type: ignore[no-untyped-def]
    for q in range(5):
        k[q] *= by


@njit(cache=True)
def _shared(k, norm):  # type: ignore[no-untyped-def]
    """What a normalisation takes away from moments ``k``."""
    return k[4] if norm == PER_BATCH else (k[2] if norm == PER_IMAGE else 0.0)


@njit(cache=True)
def _whole(profile):  # type: ignore[no-untyped-def]
    """Whether pooling is over the whole image."""
    return profile[0] <= 1.0 and profile[1] > 1.0 and profile[4] <= 1.0


@njit(cache=True)
def _local(k):  # type: ignore[no-untyped-def]
    """Moment beyond what the whole image shares, and its correlation between neighbours."""
    local = max(k[0] - k[2], _TINY)
    return local, min(max((k[1] - k[2]) / local, 0.0), 0.999)


@njit(cache=True)
def _window(rho, side, shift):  # type: ignore[no-untyped-def]
    """Mean of rho ** distance over pairs from two windows of one row, ``shift`` apart."""
    total = 0.0
    for lag in range(1 - side, side):
        total += (side - abs(lag)) * rho ** abs(lag + shift)
    return total / (side * side)


@njit(cache=True)
def _pool(k, maximum, side, stride, n_positions):  # type: ignore[no-untyped-def]
    """Moments after pooling, in place; ``n_positions`` above 0: over the whole image."""
    local, rho = _local(k)
    before = max(k[0], _TINY)
    if n_positions > 0:
        new = k[2] + local * min((1.0 + 4.0 * rho / (1.0 - rho)) / n_positions, 1.0)
        k[3] *= new / before
        k[0] = k[1] = k[2] = new
        k[4] = min(k[4], new)
    elif maximum:
        many = side > 2
        mean, spread = (1.485, 0.357) if many else (1.029, 0.492)  # of the largest of 9 and of 4 normal values
        iid = local * (1.0 - rho)
        new, lift = k[2] + local * rho + iid * spread, mean * mean * iid
        k[1] = k[2] + 0.9 * (k[1] - k[2]) + 0.5 * iid * spread + lift
        k[3] = k[3] * new / before + lift
        k[0], k[2], k[4] = new + lift, k[2] + lift, k[4] + lift
    else:
        same, next_to = _window(rho, side, 0), _window(rho, side, stride)
        new = k[2] + local * same * same
        k[1] = k[2] + local * same * next_to
        k[3] *= new / before
        k[0] = new


@njit(cache=True)
def propagate(n, start_in, edge_in, src, outputs, kind, prof, norm, params):  # type: ignore[no-untyped-def]
    """``K [n, 5]``, ``G [n, 2]`` and, for rectifiers, the probabilities ``[n, 2]`` that two far positions and two similar
    images are both positive."""
    K, both = np.zeros((n, 5)), np.zeros((n, 2))
    for i in range(n):
        a, b = start_in[i], start_in[i + 1]
        k = kind[i]
        if a == b:
            K[i, 0], K[i, 1], K[i, 2], K[i, 3] = 1.0, 0.9, 0.2, LIKE
            continue
        x = K[i]
        largest, weight = 0.0, 0.0
        for p in range(a, b):
            s = src[edge_in[p]]
            largest = max(largest, prof[s, 0] ** 2 * prof[s, 3])
        for p in range(a, b):
            s = src[edge_in[p]]
            w = prof[s, 3] if k == CONCAT else 1.0
            if k == MUL and prof[s, 0] ** 2 * prof[s, 3] < 0.999 * largest:
                continue  # a gate: one value for a channel
            for q in range(5):
                x[q] += w * K[s, q]
            weight += w
        if k != ADD:
            for q in range(5):
                x[q] /= max(weight, _TINY)
        stride = prof[i, 5]
        if k == MUL:
            _scale(x, 0.25)
        elif k == NORM:
            shared = _shared(x, norm[i])
            for q in range(5):
                x[q] -= shared
            _scale(x, 1.0 / max(x[0], _TINY))
        elif k == ACT:
            k0 = max(x[0], _TINY)
            for q in range(1, 5):
                x[q], chance = _rectified(k0, x[q])
                if q in (2, 3):
                    both[i, q - 2] = chance
            x[0] = 0.5 * k0
        elif k in (AVGPOOL, MAXPOOL):
            positions = prof[i, 1] ** 2 if _whole(prof[i]) else 0.0
            _pool(x, k == MAXPOOL, max(int(prof[i, 4]), 1), max(int(stride), 1), positions)
        elif params[i] > 0:
            _scale(x, 2.0)
        if stride > 1 and k != AVGPOOL:
            local, rho = _local(x)
            x[1] = x[2] + local * rho**stride
        scale = min(max(x[0], _TINY), _HUGE) / max(x[0], _TINY * _TINY)
        if scale != 1.0:
            _scale(x, scale)
    G = np.zeros((n, 2))
    for o in outputs:
        G[o] = 1.0 / len(outputs)
    for i in range(n - 1, -1, -1):
        k = kind[i]
        G[i, 0], G[i, 1] = min(G[i, 0], 1e250), min(G[i, 1], 1e250)
        for p in range(start_in[i], start_in[i + 1]):
            s = src[edge_in[p]]
            g, far = G[i, 0], G[i, 1]
            stride = max(prof[i, 5], 1.0) ** 2
            if k == MUL:
                g, far = 0.25 * g, 0.25 * far
            elif k == NORM:
                v = max(K[s, 0] - _shared(K[s], norm[i]), _TINY)
                g, far = g / v, far / v
            elif k == ACT:
                g, far = 0.5 * g, both[i, 0] * far
            elif k == AVGPOOL:
                if _whole(prof[i]):
                    g /= prof[i, 1] ** 4
                    far = g
                else:
                    area = max(prof[i, 4], 1.0) ** 2
                    windows = max(area / stride, 1.0)
                    g, far = (windows * g + windows * (windows - 1.0) * far) / area**2, windows**2 * far / area**2
            elif k == MAXPOOL:
                g, far = g / stride, far / stride**2
            elif params[i] > 0:
                fan = 2.0 * prof[i, 3] / max(prof[i, 2], 1.0)
                g, far = fan * g / stride, fan * far / stride**2
            G[s, 0] += g
            G[s, 1] += far
    return K, G, both


@njit(cache=True)
def _ln(x):  # type: ignore[no-untyped-def]
    return np.log(min(max(x, 1e-300), 1e300))


@njit(cache=True)
def _moments(total, square, n):  # type: ignore[no-untyped-def]
    """Mean and standard deviation from sums; zeros if there was nothing."""
    mean = total / max(n, 1)
    return mean, np.sqrt(max(square / max(n, 1) - mean * mean, 0.0))


@njit(cache=True)
def summarise(n, start_in, edge_in, src, outputs, kind, prof, norm, params, stage, K, G, both, out):  # type: ignore[no-untyped-def]
    """Fill ``out [N_FIELD]``: ``FIELD``, then ``FIELD_STAGE`` per stage."""
    per_stage = np.zeros((FIELD_STAGES, 7))
    far = near = like = zen = share = 0.0
    lowest, n_acts, n_adds = 1.0, 0, 0
    norms, norms2, norm_min, n_norms = 0.0, 0.0, 0.0, 0
    energy = fisher = snip = 0.0
    layers, layers2, low, high, ramp, n_layers = 0.0, 0.0, 0.0, 0.0, 0.0, 0
    codes = units = grads = grads2 = grad_max = 0.0
    for i in range(n):
        values = prof[i, 0] ** 2 * prof[i, 3]
        here = _ln(G[i, 0] * values)
        grads += here
        grads2 += here * here
        grad_max = max(grad_max, here) if i else here
        if start_in[i] == start_in[i + 1]:
            continue
        s, k = src[edge_in[start_in[i]]], kind[i]
        at = per_stage[min(stage[i], FIELD_STAGES - 1)]
        if k == NORM:
            v = np.log(max(K[s, 0] - _shared(K[s], norm[i]), _TINY))
            norms += v
            norms2 += v * v
            norm_min = min(norm_min, v) if n_norms else v
            n_norms += 1
        elif k == ACT:
            k0 = K[s, 0]
            far, near, like, lowest = far + K[s, 2] / k0, near + K[s, 1] / k0, like + K[s, 3] / k0, min(lowest, K[s, 3] / k0)
            n_acts += 1
            codes += values * (1.0 - 2.0 * both[i, 1])
            units += values
            at[1] += K[s, 3] / k0
            at[2] += K[s, 2] / k0
            at[3] += K[s, 1] / k0
            at[4] += here
            at[5] += 1
        elif k == ADD:
            top = total = 0.0
            for p in range(start_in[i], start_in[i + 1]):
                v = K[src[edge_in[p]], 0]
                top, total = max(top, v), total + v
            share += top / total
            n_adds += 1
        elif params[i] > 0 and prof[i, 7] > 0:
            positions, fan = prof[i, 0] ** 2, max(params[i] / max(prof[i, 3], 1.0), 1.0)
            pairs = positions * (positions - 1.0)
            e = params[i] * (positions * K[s, 0] * G[i, 0] + pairs * K[s, 2] * G[i, 1])
            energy += e
            fisher += prof[i, 3] * (positions * K[i, 0] * G[i, 0] + pairs * K[i, 2] * G[i, 1])
            snip += np.sqrt(min(e, 1e290)) * np.sqrt(2.0 * params[i] / fan)
            zen += 0.5 * np.log(fan * K[s, 0])
            v = _ln(e)
            low, high = (min(low, v), max(high, v)) if n_layers else (v, v)
            layers += v
            layers2 += v * v
            ramp += n_layers * v
            n_layers += 1
            at[0] += v
            at[6] += 1
    mean, std = _moments(layers, layers2, n_layers)
    centre, spread = (n_layers - 1) / 2.0, n_layers * (n_layers * n_layers - 1) / 12.0
    norm_mean, norm_std = _moments(norms, norms2, n_norms)
    _, node_std = _moments(grads, grads2, n)
    o, first = outputs[0], 0
    for v in (_ln(K[o, 0]), K[o, 3] / K[o, 0], far / max(n_acts, 1), near / max(n_acts, 1), like / max(n_acts, 1), lowest, zen,
              norm_mean, norm_min, norm_std, share / max(n_adds, 1), _ln(energy), _ln(fisher), _ln(snip),
              _ln(G[0, 0] * prof[0, 0] ** 2), mean, std, low, high, (ramp - n_layers * centre * mean) / max(spread, 1.0),
              node_std, grad_max, codes / max(units, 1.0)):
        out[first] = v
        first += 1
    for q in range(FIELD_STAGES):
        out[first] = per_stage[q, 0] / max(per_stage[q, 6], 1.0)
        for c in range(1, 5):
            out[first + c] = per_stage[q, c] / max(per_stage[q, 5], 1.0)
        first += 5


@njit(cache=True)
def signal_chance(n, start_in, edge_in, src, kind, prof, K):  # type: ignore[no-untyped-def]
    """For every edge the share of its node's signal that comes over it, ``[edges]``."""
    chance = np.empty(len(src))
    for i in range(n):
        total = 0.0
        for p in range(start_in[i], start_in[i + 1]):
            s = src[edge_in[p]]
            w = 1.0
            if kind[i] == ADD:
                w = K[s, 0]
            elif kind[i] == CONCAT:
                w = K[s, 0] * prof[s, 3]
            elif kind[i] == MUL:
                w = prof[s, 0] ** 2
            chance[edge_in[p]] = max(w, 1e-12)
            total += max(w, 1e-12)
        for p in range(start_in[i], start_in[i + 1]):
            chance[edge_in[p]] /= total
    return chance


@njit(cache=True)
def moments_of(spec, src, dst, outputs, kind_of, profile, cost, norm_of):  # type: ignore[no-untyped-def]
    """``K`` and ``G`` of a graph, for tests and for a look."""
    n = len(spec)
    start_in, edge_in = _csr(n, dst)
    K, G, _ = propagate(n, start_in, edge_in, src, outputs, kind_of[spec], profile[spec], norm_of[spec], cost[spec][:, 1])
    return K, G
