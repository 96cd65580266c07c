"""Compiled kernel of the global statistics: a handful of sweeps over a graph in topological order. Raw arrays only."""

from __future__ import annotations

import numpy as np
from numba import njit

from cg._context import ADD as _ADD
from cg._context import NORM as _NORM
from cg._context import receptive_field, signal
from cg._field import N_FIELD, propagate, signal_chance, summarise
from cg._hashing import _csr

N_KINDS, N_STAGES, N_HOPS = 15, 6, 9
HOP_OF_KIND = np.array([0, 1, 2, 3, 4, 5, 6, -1, -1, 7, 8, -1, -1, -1, -1])


@njit(cache=True)
def _mean_std(values, mask):  # type: ignore[no-untyped-def]
    total, square, n = 0.0, 0.0, 0
    for i in range(len(values)):
        if mask[i]:
            total += values[i]
            square += values[i] * values[i]
            n += 1
    if n == 0:
        return 0.0, 0.0
    mean = total / n
    return mean, np.sqrt(max(square / n - mean * mean, 0.0))


@njit(cache=True)
def _walk(n, start_in, edge_in, src, weight, outputs, chance, out_chance):  # type: ignore[no-untyped-def]
    """Longest, shortest, mean and std of the weight on a walk that goes from an output back to a producer over edge e with
    probability ``chance[e]``."""
    longest, shortest = np.zeros(n), np.zeros(n)
    mean, second = np.zeros(n), np.zeros(n)
    for i in range(n):
        hi, lo, m, m2 = 0.0, 0.0, 0.0, 0.0
        for p in range(start_in[i], start_in[i + 1]):
            e = edge_in[p]
            s = src[e]
            hi = max(hi, longest[s])
            lo = shortest[s] if p == start_in[i] else min(lo, shortest[s])
            m += mean[s] * chance[e]
            m2 += second[s] * chance[e]
        w = weight[i]
        longest[i], shortest[i], mean[i] = hi + w, lo + w, m + w
        second[i] = m2 + 2 * w * m + w * w
    a, b, c, d = 0.0, 1e30, 0.0, 0.0
    for k in range(len(outputs)):
        o = outputs[k]
        a = max(a, longest[o])
        b = min(b, shortest[o])
        c += mean[o] * out_chance[k]
        d += second[o] * out_chance[k]
    return a, b, c, np.sqrt(max(d - c * c, 0.0))


@njit(cache=True)
def _visits(n, start_in, edge_in, src, outputs, chance, out_chance):  # type: ignore[no-untyped-def]
    """Expected visits of every node by that walk, ``[n]``."""
    visits = np.zeros(n)
    for k in range(len(outputs)):
        visits[outputs[k]] += out_chance[k]
    for i in range(n - 1, -1, -1):
        for p in range(start_in[i], start_in[i + 1]):
            e = edge_in[p]
            visits[src[e]] += visits[i] * chance[e]
    return visits


@njit(cache=True)
def statistics_kernel(spec, src, dst, outputs, kind_of, profile, cost, norm_of, out):  # type: ignore[no-untyped-def]
    """Fill ``out`` (order of ``cg.global_statistics.STATISTICS``); nodes must be in topological order."""
    n, n_edges = len(spec), len(src)
    start_in, edge_in = _csr(n, dst)
    start_out, edge_out = _csr(n, src)
    kind = kind_of[spec]
    prof = profile[spec]
    c = cost[spec]
    is_layer = prof[:, 7] > 0

    side0 = 1.0
    level = np.zeros(n, np.int64)
    for i in range(n):
        if prof[i, 12] > 0:
            side0 = max(side0, prof[i, 0])
        for p in range(start_in[i], start_in[i + 1]):
            level[i] = max(level[i], level[src[edge_in[p]]] + 1)
    stage = np.zeros(n, np.int64)
    for i in range(n):
        stage[i] = min(max(np.int64(np.round(np.log2(side0 / prof[i, 0]))), 0), N_STAGES - 1)

    # total
    macs, params, act, layers = 0.0, 0.0, 0.0, 0.0
    for i in range(n):
        macs += c[i, 0]
        params += c[i, 1]
        act += c[i, 2] / 4.0
        layers += prof[i, 7]
    depth = level.max() + 1
    k = 0
    for v in (np.log(n), np.log1p(n_edges), np.log1p(macs), np.log1p(params), np.log1p(act),
              np.log1p(macs) - np.log1p(params), np.log1p(act) - np.log1p(macs), np.log1p(layers), np.log(depth)):
        out[k] = v
        k += 1

    # path: step to any producer alike, and every whole path alike
    var, grad, paths = signal(n, start_in, edge_in, start_out, edge_out, src, dst, outputs, kind, prof)
    local, whole = np.empty(n_edges), np.empty(n_edges)
    for e in range(n_edges):
        local[e] = 1.0 / (start_in[dst[e] + 1] - start_in[dst[e]])
        whole[e] = np.exp(paths[src[e]] - paths[dst[e]])
    out_local, out_whole = np.empty(len(outputs)), np.empty(len(outputs))
    top = -1e30
    for o in outputs:
        top = max(top, paths[o])
    for q in range(len(outputs)):
        out_local[q] = 1.0 / len(outputs)
        out_whole[q] = np.exp(paths[outputs[q]] - top)
    out_whole /= out_whole.sum()
    weight = np.ones(n)
    for w in range(5):
        if w > 0:
            weight = prof[:, 6 + w].copy()
        a, b, m, s = _walk(n, start_in, edge_in, src, weight, outputs, local, out_local)
        _, _, m2, s2 = _walk(n, start_in, edge_in, src, weight, outputs, whole, out_whole)
        for v in (a, b, m, s, m2, s2):
            out[k] = np.log1p(v)
            k += 1

    # receptive field
    rf = receptive_field(n, start_in, edge_in, src, prof)
    hi, lo, mean = 1.0, 1e30, 0.0
    for o in outputs:
        hi, lo, mean = max(hi, rf[o, 0]), min(lo, rf[o, 1]), mean + rf[o, 2] / len(outputs)
    out[k], out[k + 1], out[k + 2] = np.log2(hi), np.log2(lo), np.log2(mean)
    k += 3

    # shape
    channels = np.log2(np.maximum(prof[:, 3], 1.0))
    ratio = np.log2(np.maximum(prof[:, 3], 1.0) / np.maximum(prof[:, 2], 1.0))
    mean_c, std_c = _mean_std(channels, is_layer)
    mean_r, std_r = _mean_std(ratio, is_layer)
    mean_k, _ = _mean_std(np.log2(prof[:, 4]), is_layer)
    max_c, min_c, last_c = 0.0, 1e30, 0.0
    for i in range(n):
        if is_layer[i]:
            max_c, min_c = max(max_c, channels[i]), min(min_c, channels[i])
            if prof[i, 0] > 1:
                last_c = channels[i]
    min_c = min_c if min_c < 1e29 else 0.0
    fan_out_max, merges, span_sum, span_max, skips = 0, 0, 0.0, 0.0, 0
    fan_in_sum = 0.0
    for i in range(n):
        fan_out_max = max(fan_out_max, start_out[i + 1] - start_out[i])
        d = start_in[i + 1] - start_in[i]
        if d > 1:
            merges += 1
            fan_in_sum += d
        for p in range(start_in[i], start_in[i + 1]):
            span = level[i] - level[src[edge_in[p]]]
            span_max = max(span_max, span)
            if span > 1:
                span_sum += span
                skips += 1
    widths = np.zeros(depth)
    for i in range(n):
        widths[level[i]] += 1
    for v in (mean_c, max_c, min_c, std_c, mean_r, std_r, mean_k, fan_in_sum / max(merges, 1),
              np.log(max(n_edges, 1) / n), np.log1p(fan_out_max), np.log(n / depth), np.log(widths.max()),
              np.log1p(span_sum / max(skips, 1)), np.log1p(span_max), np.log1p(skips), last_c):
        out[k] = v
        k += 1

    # signal
    log_var, log_grad = np.log(var), np.log(grad)
    add_mean, _ = _mean_std(log_var, kind == _ADD)
    add_max = 0.0
    norm_sum, norms = 0.0, 0
    first, g_min, g_max = 0.0, 1e30, -1e30
    first_seen = False
    for i in range(n):
        if kind[i] == _ADD:
            add_max = max(add_max, log_var[i])
        elif kind[i] == _NORM and start_in[i + 1] > start_in[i]:
            norm_sum += log_var[src[edge_in[start_in[i]]]]
            norms += 1
        if is_layer[i]:
            if not first_seen:
                first, first_seen = log_grad[i], True
            g_min, g_max = min(g_min, log_grad[i]), max(g_max, log_grad[i])
    g_mean, g_std = _mean_std(log_grad, is_layer)
    if not first_seen:
        g_min, g_max = 0.0, 0.0
    most = 0.0
    for o in outputs:
        most = max(most, paths[o])
    for v in (add_mean, add_max, norm_sum / max(norms, 1), first, g_mean, g_std, g_min, g_max, most):
        out[k] = v
        k += 1

    # stage
    per_stage = np.zeros((N_STAGES, 5))
    for i in range(n):
        s = stage[i]
        per_stage[s, 0] += c[i, 0]
        per_stage[s, 1] += c[i, 1]
        per_stage[s, 2] += c[i, 2] / 4.0
        if is_layer[i]:
            per_stage[s, 3] += 1
            per_stage[s, 4] += channels[i]
    for s in range(N_STAGES):
        out[k] = np.log1p(per_stage[s, 0])
        out[k + 1] = np.log1p(per_stage[s, 1])
        out[k + 2] = np.log1p(per_stage[s, 2])
        out[k + 3] = per_stage[s, 0] / max(macs, 1.0)
        out[k + 4] = per_stage[s, 4] / max(per_stage[s, 3], 1.0)
        k += 5

    # per kind, then per kind and stage
    visits_back = _visits(n, start_in, edge_in, src, outputs, local, out_local)
    visits_whole = _visits(n, start_in, edge_in, src, outputs, whole, out_whole)
    visits_front = np.zeros(n)
    for i in range(n):
        if start_in[i + 1] == start_in[i]:
            visits_front[i] += 1.0
        d = start_out[i + 1] - start_out[i]
        for p in range(start_out[i], start_out[i + 1]):
            visits_front[dst[edge_out[p]]] += visits_front[i] / d
    for i in range(n):
        out[k + kind[i]] += 1.0 / n
        out[k + N_KINDS + kind[i]] += c[i, 0] / max(macs, 1.0)
        out[k + 2 * N_KINDS + kind[i]] += c[i, 1] / max(params, 1.0)
        out[k + 3 * N_KINDS + kind[i]] += visits_back[i]
        out[k + 4 * N_KINDS + kind[i]] += visits_front[i]
        out[k + 5 * N_KINDS + kind[i]] += visits_whole[i]
    for q in range(N_KINDS):
        weight = (kind == q).astype(np.float64)
        if out[k + q] > 0:
            out[k + 6 * N_KINDS + q], _, _, _ = _walk(n, start_in, edge_in, src, weight, outputs, local, out_local)
    for i in range(k + 3 * N_KINDS, k + 7 * N_KINDS):
        out[i] = np.log1p(out[i])
    k += 7 * N_KINDS
    block = N_KINDS * N_STAGES
    for i in range(n):
        at = k + kind[i] * N_STAGES + stage[i]
        out[at] += 1.0
        out[at + block] += visits_back[i]
        out[at + 2 * block] += visits_front[i]
    for i in range(k, k + 3 * block):
        out[i] = np.log1p(out[i])
    k += 3 * block

    # pairs, looking through nodes that only move data
    through = np.arange(n)
    for i in range(n):
        if prof[i, 11] > 0 and start_in[i + 1] > start_in[i]:
            through[i] = through[src[edge_in[start_in[i]]]]
    for e in range(n_edges):
        if prof[dst[e], 11] == 0:
            out[k + kind[through[src[e]]] * N_KINDS + kind[dst[e]]] += 1.0
    for i in range(k, k + N_KINDS * N_KINDS):
        out[i] = np.log1p(out[i])
    k += N_KINDS * N_KINDS

    # hops: which computing operators a computing operator reads, through norms, activations, additions and moves
    reads = np.zeros((n, N_HOPS + 1))
    for i in range(n):
        d = start_in[i + 1] - start_in[i]
        mine = HOP_OF_KIND[kind[i]]
        if d == 0:
            reads[i, N_HOPS] = 1.0
            continue
        for q in range(N_HOPS + 1):
            total = 0.0
            for p in range(start_in[i], start_in[i + 1]):
                total += reads[src[edge_in[p]], q]
            if mine >= 0:
                out[k + mine * (N_HOPS + 1) + q] += total / d
            else:
                reads[i, q] = total / d
        if mine >= 0:
            reads[i, :] = 0.0
            reads[i, mine] = 1.0
    for i in range(k, k + N_HOPS * (N_HOPS + 1)):
        out[i] = np.log1p(out[i])
    k += N_HOPS * (N_HOPS + 1)

    # mean field, and walks that go where the signal comes from
    norm = norm_of[spec]
    K, G, both = propagate(n, start_in, edge_in, src, outputs, kind, prof, norm, c[:, 1])
    summarise(n, start_in, edge_in, src, outputs, kind, prof, norm, c[:, 1], stage, K, G, both, out[k:k + N_FIELD])
    k += N_FIELD
    chance = signal_chance(n, start_in, edge_in, src, kind, prof, K)
    for w in range(5):
        weight = np.ones(n) if w == 0 else prof[:, 6 + w].copy()
        _, _, m, s = _walk(n, start_in, edge_in, src, weight, outputs, chance, out_local)
        out[k], out[k + 1] = np.log1p(m), np.log1p(s)
        k += 2
    visits = _visits(n, start_in, edge_in, src, outputs, chance, out_local)
    for i in range(n):
        out[k + kind[i]] += visits[i]
    for i in range(k, k + N_KINDS):
        out[i] = np.log1p(out[i])
