"""What the parts of ``benchmarks/brp.py`` share: the table, its views and latencies, cheap predictors, one measured fit."""

from __future__ import annotations

import csv
import gzip
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from cg.cells import Cell
from cg.graph import Graph
from cg.graphset import GraphSet
from evo_search.comparison import load_pool
from evo_search.oracles import shared_folder
from evo_search.spaces import get_space
from evo_search.tables import load
from finetune.baselines import NativeEncoding, RandomForestPredictor
from finetune.metrics import kendall, spearman
from finetune.predictor import CGPredictor

FILE = shared_folder() / "data" / "latency" / "nb201_help_latency.csv.gz"
Row = dict[str, Any]


class Data:
    """The table, its views and HELP's latencies; each is made when a part asks for it."""

    def __init__(self) -> None:
        self.space = get_space("nasbench201")

    @cached_property
    def pool(self) -> GraphSet:
        """All valid networks with their CIFAR-10 test accuracy."""
        return load_pool("nasbench201", "test_acc")[0]

    @cached_property
    def cells(self) -> list[Cell]:
        return [self.space.cell(self.space.decode(i)) for i in self.pool.ids]

    @cached_property
    def native(self) -> np.ndarray:
        return np.stack([self.space.native(self.space.decode(i)) for i in self.pool.ids])

    @property
    def graphs(self) -> Sequence[Graph]:
        return self.pool.graphs

    @cached_property
    def latency(self) -> dict[str, np.ndarray]:
        """Milliseconds of the pool's networks on each device."""
        with gzip.open(FILE, "rt", encoding="utf-8") as file:
            rows = {self.space.encode(self.space.decode(r["arch_str"])): r for r in csv.DictReader(file)}
        columns = list(next(iter(rows.values())))[2:]
        return {c: np.array([float(rows[i][c]) for i in self.pool.ids]) for c in columns}

    @cached_property
    def macs(self) -> np.ndarray:
        return np.array([g.macs for g in self.graphs], np.float64)

    @cached_property
    def distinct(self) -> np.ndarray:
        """Rows of one network of each kind that isomorphic ones make, the first that has a validation accuracy."""
        found: dict[str, int] = {}
        for i in np.flatnonzero(np.isfinite(self.validation)):
            found.setdefault(self.graphs[i].digest, int(i))
        return np.array(sorted(found.values()))

    @cached_property
    def validation(self) -> np.ndarray:
        table = load("nasbench201")
        return table.metrics["val_acc"][table.rows(self.pool.ids)]


CHEAP: dict[str, Callable[[int], Any]] = {"native-gp": lambda seed: NativeEncoding("gp"),
                                          "random-forest": lambda seed: RandomForestPredictor(random_state=seed)}


def at(items: Any, rows: np.ndarray) -> Any:
    return items[rows] if isinstance(items, np.ndarray) else [items[i] for i in rows]


def measured(model: Any, view: Any, y: np.ndarray, labelled: np.ndarray, test: np.ndarray) -> Row:
    began = time.process_time()
    model.fit(at(view, labelled), y[labelled])
    fit_s = time.process_time() - began
    scores = model.predict(at(view, test))
    return {"tested": len(test), "spearman": spearman(y[test], scores), "kendall": kendall(y[test], scores), "fit_s": fit_s}


class OnRows:
    """A predictor of row numbers."""

    def __init__(self, base: Any, items: Any, seed: int) -> None:
        self.model, self.items = base, items
        base.set_params(random_state=seed)

    def fit(self, rows: Sequence[int], y: np.ndarray) -> None:
        self.model.fit(at(self.items, np.array(rows)), y)

    def predict(self, rows: Sequence[int]) -> np.ndarray:
        return np.asarray(self.model.predict(at(self.items, np.array(rows))))


class Remembering(CGPredictor):
    """``CGPredictor`` that has seen nothing of NAS-Bench-201 and reads each of the pool's graphs once."""

    @classmethod
    def of(cls, data: Data) -> Remembering:
        graphs = at(data.graphs, data.distinct)
        model = cls("default-without-nasbench201", ["nasbench101", "nasbench301"])
        model.fit(graphs[:10], np.arange(10.0))
        kept = model._inputs(graphs)
        model.kept = kept
        model.number = {g.digest: i for i, g in enumerate(graphs)}
        return model

    def _inputs(self, graphs: Sequence[Graph]) -> dict[str, np.ndarray]:
        if not hasattr(self, "kept"):
            return super()._inputs(graphs)
        rows = [self.number[g.digest] for g in graphs]
        return {name: block[rows] for name, block in self.kept.items()}
