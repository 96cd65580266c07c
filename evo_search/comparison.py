"""Many predictors on the same label draws and test sets of one search space, each reading the view of a network it is made for.

    result = compare("nasbench201", "cheap", labels=(40, 100), seeds=5, out="compare")
    result.summary()

A row is written to ``<out>/rows.jsonl`` after every fit, so a run that was killed goes on where it stopped, and one with more
predictors, label counts or seeds computes only what is new. Drawing and writing tables: ``evo_search.comparison_report``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cg.cells import pruned
from cg.errors import CGError
from cg.graphset import GraphSet
from cg.row_file import RowFile
from evo_search.rivals import Rival, choose

Progress = Callable[[str, int, int], None]
Row = dict[str, Any]
MAX_POOL, FIRST_SEED, N_TEST = 16_000, 1000, 1000
_KEY = ("space", "metric", "pool", "n_test_asked", "n_labels", "seed", "predictor")
CRITERIA = ("spearman", "kendall")
_TIMES = ("fit_s", "predict_s")


@dataclass(frozen=True)
class Comparison:
    """Settings and rows; a row with ``error`` has no figures."""

    config: dict[str, Any]
    rows: tuple[Row, ...]

    def summary(self) -> list[Row]:
        """One row a predictor and label count, in the order asked for: mean and standard deviation (n - 1) over the draws that
        worked, how many did, and the first error."""
        groups: dict[tuple[int, str], list[Row]] = {}
        for r in self.rows:
            groups.setdefault((r["n_labels"], r["predictor"]), []).append(r)
        out = []
        for (n_labels, name), members in groups.items():
            good = [m for m in members if "error" not in m]
            line: Row = {"predictor": name, "n_labels": n_labels, "draws": len(good), "failed": len(members) - len(good)}
            for key in (*CRITERIA, *_TIMES):
                values = np.array([m[key] for m in good], np.float64)
                line[key] = float(values.mean()) if len(values) else None
                line[f"{key}_std"] = float(values.std(ddof=1)) if len(values) > 1 else None
            line["error"] = next((m["error"] for m in members if "error" in m), None)
            out.append(line)
        return out


def load_pool(space: str, metric: str | None = None, size: int = MAX_POOL) -> tuple[GraphSet, str]:
    """Labelled networks of a space and the name of their label: all valid rows of its benchmark table, or ``size`` random ones.

    Raises ``CGError`` for a space without a table, and for an unknown metric.
    """
    from evo_search import tables
    from evo_search.spaces import get_space

    where = get_space(space)
    if space not in tables.names():
        raise CGError(f"space {space!r} has no benchmark table to take labels from; tables: {', '.join(tables.names())}")
    table = tables.load(space)
    metric = metric or table.default_metric
    if metric not in table.metrics:
        raise CGError(f"table {space!r} has no metric {metric!r}; it has {', '.join(table.metrics)}")
    y = table.metrics[metric]
    rows = np.flatnonzero(np.isfinite(y))
    if len(rows) > size:
        rows = np.sort(np.random.default_rng(0).choice(rows, size, replace=False))
    genomes = [(int(row), where.decode(table.encoded(int(row)))) for row in rows]
    kept = [(row, a) for row, a in genomes if where.is_valid(a)]
    return GraphSet([where.to_graph(a) for _, a in kept], [table.encoded(row) for row, _ in kept],
                    {metric: y[[row for row, _ in kept]]}, {"space": space, "size": size}), metric


def compare(space: str, predictors: str | Sequence[str | Rival] = "all", labels: Sequence[int] = (40, 100, 400),
            seeds: int = 5, *, n_test: int | None = N_TEST, metric: str | None = None, first_seed: int = FIRST_SEED,
            pool_size: int = MAX_POOL, pool: GraphSet | None = None, out: str | Path | None = None,
            progress: Progress | None = None) -> Comparison:
    """Fit and test every predictor on every draw.

    Args:
        space: name of a search space; one that has a benchmark table unless ``pool`` is given.
        predictors: names or groups of ``evo_search.rivals``, or ``Rival``s.
        labels: label counts.
        seeds: label draws for each count; draw d uses the seed ``first_seed + d`` for labels, test set and predictor.
        n_test: random test networks, none isomorphic to a labelled one; None for all that are left.
        metric: label; the default metric of the table if None.
        pool_size: most networks that labels and test sets are drawn from.
        pool: these networks instead, their genomes as ids, with the label ``metric`` (its only label if None) known for all.
        out: folder for ``rows.jsonl``; rows that are there are not computed again, except those that failed.
        progress: told what runs next, how many are done and how many there are.

    An exception in a predictor is caught and kept as the ``error`` of its row. Times are processor seconds of ``fit`` and
    ``predict`` over all threads, with all that they compute of a network; making graphs, cells and encodings is not in them.
    """
    rivals = _rivals(predictors)
    labels = list(dict.fromkeys(int(n) for n in labels))
    if not labels or seeds < 1 or (n_test is not None and n_test < 2):
        raise CGError(f"need at least one label count, one seed and two test networks, got {labels}, {seeds}, {n_test}")
    store = RowFile(None if out is None else Path(out) / "rows.jsonl", _key, "a comparison; use another folder")
    pool, metric = load_pool(space, metric, pool_size) if pool is None else (pool, _label_of(pool, metric))
    if max(labels) >= len(pool) or min(labels) < 2:
        raise CGError(f"label counts must be from 2 to {len(pool) - 1}, the networks of {space} with {metric!r}; got {labels}")
    config = {"space": space, "metric": metric, "pool": len(pool), "labels": labels, "seeds": seeds, "first_seed": first_seed,
              "n_test": n_test, "predictors": [r.name for r in rivals]}
    jobs = [(n, first_seed + d, rival) for n in labels for d in range(seeds) for rival in rivals]
    views, rows = _Views(space, pool), []
    for done, (n, seed, rival) in enumerate(jobs):
        head = {"space": space, "metric": metric, "pool": len(pool), "n_test_asked": n_test, "n_labels": n, "seed": seed,
                "predictor": rival.name}
        row = store.get(head)
        if row is None or "error" in row:
            if progress:
                progress(f"{rival.name}, {n} labels", done, len(jobs))
            cache = None if out is None else Path(out) / f"{rival.name}.cache"
            row = {**head, **_measure(rival, views, metric, n, seed, n_test, cache)}
            store.add(row)
        rows.append(row)
    if progress:
        progress("", len(jobs), len(jobs))
    order = {(n, r.name): i for i, (r, n) in enumerate((r, n) for r in rivals for n in labels)}
    return Comparison(config, tuple(sorted(rows, key=lambda r: (order[r["n_labels"], r["predictor"]], r["seed"]))))


def _label_of(pool: GraphSet, metric: str | None) -> str:
    if metric is None and len(pool.labels) != 1:
        raise CGError(f"pool has labels {', '.join(pool.labels) or 'none'}; say which one with metric")
    metric = metric or next(iter(pool.labels))
    if not np.isfinite(pool.label(metric)).all():
        raise CGError(f"pool: label {metric!r} is missing for some networks; leave them out")
    return metric


def _rivals(predictors: str | Sequence[str | Rival]) -> list[Rival]:
    if isinstance(predictors, str):
        return choose(predictors)
    found: dict[str, Rival] = {}
    for p in predictors:
        for rival in [p] if isinstance(p, Rival) else choose(p):
            if found.setdefault(rival.name, rival) is not rival:
                raise CGError(f"two predictors are called {rival.name!r}")
    if not found:
        raise CGError("name at least one predictor")
    return list(found.values())


class _Views:
    """The pool as graphs, cells and one-hot rows, and its draws; cells and rows are made when asked for."""

    def __init__(self, space: str, pool: GraphSet) -> None:
        from evo_search.spaces import get_space

        self.space, self.pool = get_space(space), pool
        self._last: tuple[Any, Any] = (None, None)

    def draw(self, n_labels: int, seed: int, n_test: int | None) -> tuple[np.ndarray, np.ndarray]:
        from finetune.protocol import draw

        key = (n_labels, seed, n_test)
        if self._last[0] != key:
            self._last = (key, draw(self.pool, n_labels, seed, n_test))
        found: tuple[np.ndarray, np.ndarray] = self._last[1]
        return found

    def read(self, view: str, rows: np.ndarray) -> Any:
        if view == "graph":
            return [self.pool.graphs[i] for i in rows]
        genomes = [self.space.decode(self.pool.ids[i]) for i in rows]
        if view in ("cell", "pruned"):
            cells = [self.space.cell(a) for a in genomes]
            return cells if view == "cell" else [pruned(c) for c in cells]
        return np.stack([self.space.native(a) for a in genomes])


def _measure(rival: Rival, views: _Views, metric: str, n_labels: int, seed: int, n_test: int | None, cache: Path | None) -> Row:
    """Figures of one fit, or its error. A predictor with a parameter ``cache`` that is None is given the file ``cache``."""
    from finetune import metrics

    y = views.pool.label(metric)
    labelled, test = views.draw(n_labels, seed, n_test)
    try:
        fit_on, test_on = views.read(rival.view, labelled), views.read(rival.view, test)
        model = rival.make(seed, views.space.family)
        if cache is not None and getattr(model, "cache", cache) is None:
            model.set_params(cache=cache)
        t0 = time.process_time()
        model.fit(fit_on, y[labelled])
        t1 = time.process_time()
        fit_s = t1 - t0 + getattr(model, "saved_s_", 0.0)
        t1 = time.process_time()
        scores = model.predict(test_on)
        predict_s = time.process_time() - t1 + getattr(model, "saved_s_", 0.0)
        return {"n_test": len(test), "spearman": metrics.spearman(y[test], scores),
                "kendall": metrics.kendall(y[test], scores), "fit_s": fit_s, "predict_s": predict_s}
    except Exception as error:
        text = " ".join(str(error).split())
        return {"n_test": len(test), "error": f"{type(error).__name__}: {text}"[:500]}


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[k] for k in _KEY)
