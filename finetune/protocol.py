"""The few-shot protocol: draw labels from a pool of networks, fit, rank the rest, repeat. Knows no benchmark by name."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from cg.errors import CGError
from cg.graphset import GraphSet
from finetune import metrics

Progress = Callable[[str, int, int], None]
Method = Callable[[int], Any]  # draw number -> a fresh regressor


def draw(pool: GraphSet, n_labels: int, seed: int, n_test: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the labelled networks ``[n_labels]`` and of the test networks, disjoint as architectures.

    The labelled ones are drawn uniformly. Tested are all others (or ``n_test`` random ones of them), except those isomorphic
    to a labelled one: their answer is known.
    """
    if not 2 <= n_labels < len(pool):
        raise CGError(f"cannot draw {n_labels} labels from {len(pool)} networks and have some left to test")
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(pool))
    labelled, rest = order[:n_labels], order[n_labels:]
    seen = {pool.graphs[i].digest for i in labelled}
    rest = np.array([i for i in rest if pool.graphs[i].digest not in seen], np.int64)
    return labelled, np.sort(rest if n_test is None else rest[:n_test])


def evaluate(pool: GraphSet, metric: str, methods: Mapping[str, Method], *, n_labels: int, draws: int = 5, seed: int = 1000,
             n_test: int | None = None, target: str = "", progress: Progress | None = None) -> list[dict[str, Any]]:
    """One row per method and draw: Spearman rho and Kendall tau on the test networks, times in seconds.

    Draw d uses the seed ``seed + d`` for its labels, the same for every method; ``methods[name](d)`` makes the regressor.
    """
    y = pool.label(metric)
    if not np.isfinite(y).all():
        raise CGError(f"label {metric!r} is missing for {int((~np.isfinite(y)).sum())} networks of the pool; leave them out")
    rows = []
    for d in range(draws):
        labelled, test = draw(pool, n_labels, seed + d, n_test)
        fit_graphs, test_graphs = [pool.graphs[i] for i in labelled], [pool.graphs[i] for i in test]
        for k, (name, make) in enumerate(methods.items()):
            if progress:
                progress(name, d * len(methods) + k, draws * len(methods))
            model = make(d)
            t0 = time.perf_counter()
            model.fit(fit_graphs, y[labelled])
            t1 = time.perf_counter()
            scores = model.predict(test_graphs)
            t2 = time.perf_counter()
            rows.append({"target": target, "method": name, "n_labels": n_labels, "draw": d, "seed": seed + d,
                         "n_test": len(test), "spearman": metrics.spearman(y[test], scores),
                         "kendall": metrics.kendall(y[test], scores), "fit_s": t1 - t0, "predict_s": t2 - t1})
    if progress:
        progress("", draws * len(methods), draws * len(methods))
    return rows


def summarize(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard deviation over draws, one row per target, label count and method, in order of appearance."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for r in rows:
        groups.setdefault((r["target"], r["n_labels"], r["method"]), []).append(r)
    out = []
    for (target, n_labels, method), members in groups.items():
        line: dict[str, Any] = {"target": target, "n_labels": n_labels, "method": method, "draws": len(members),
                                "n_test": members[0]["n_test"]}
        for key in ("spearman", "kendall", "fit_s", "predict_s"):
            values = np.array([m[key] for m in members], np.float64)
            line[key], line[f"{key}_std"] = float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else 0.0
        out.append(line)
    return out
