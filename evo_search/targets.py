"""The targets of the paper's Table 1 as pools of labelled graphs, and the methods that are compared on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from cg.errors import CGError
from cg.graphset import GraphSet


@dataclass(frozen=True)
class Target:
    """One row group of the table.

    Attributes:
        name, family: ``family`` is the benchmark; the other two benchmarks are the sources.
        metric: label column of the table.
        n_labels: labels in a draw.
        n_test: random test networks, None for all that are left.
    """

    name: str
    family: str
    metric: str
    n_labels: int
    n_test: int | None = None


TARGETS = {t.name: t for t in (
    Target("nasbench101", "nasbench101", "test_acc", 50, 5000),
    Target("nasbench201", "nasbench201", "test_acc", 40),
    Target("nasbench201-all", "nasbench201", "test_acc", 40),
    Target("nasbench301", "nasbench301", "val_acc_xgb_v1", 50),
)}
FAMILIES = ("nasbench101", "nasbench201", "nasbench301")
METHODS = ("random", "params", "macs", "trees", "gnn-finetune", "cl-finetune", "default")
MORE_METHODS = ("statistics", "default+encoder")
_POOL_101 = 12_000  # of 423,624: enough for 50 labels and 5,000 test networks in every draw


def get_target(name: str) -> Target:
    """By name; raises ``CGError`` listing the names."""
    if name not in TARGETS:
        raise CGError(f"unknown target {name!r}; there are: {', '.join(TARGETS)}")
    return TARGETS[name]


def pool(name: str, seed: int = 0) -> GraphSet:
    """All networks a target draws from, with labels: NAS-Bench-101 12,000 random ones; NAS-Bench-201 the 4,096 without ``none``
    (``nasbench201``) or all 15,284 valid ones (``nasbench201-all``); NAS-Bench-301 the 1,218 with the XGB surrogate label."""
    from evo_search import get_space, tables

    target = get_target(name)
    space, table = get_space(target.family), tables.load(target.family)
    y = table.metrics[target.metric]
    rows: Any = np.flatnonzero(np.isfinite(y))
    if target.family == "nasbench101":
        rows = np.sort(np.random.default_rng(seed).choice(rows, _POOL_101, replace=False))
    graphs, kept, ids = [], [], []
    for row in rows:
        text = table.encoded(int(row))
        if name == "nasbench201" and "none" in text:
            continue
        a = space.decode(text)
        if space.is_valid(a):
            graphs.append(space.to_graph(a))
            kept.append(row)
            ids.append(text)
    return GraphSet(graphs, ids, {target.metric: y[kept]}, {"target": name, "seed": seed})


def make_methods(name: str, methods: Sequence[str] = METHODS) -> dict[str, Any]:
    """Methods by name for ``finetune.protocol.evaluate``; learned ones know the other two benchmarks only."""
    from finetune import CGPredictor
    from finetune.baselines import CostScore, RandomScore, TreesOnStatistics

    family = get_target(name).family
    sources = [f for f in FAMILIES if f != family]
    known: dict[str, Any] = {
        "random": lambda d: RandomScore(d),
        "params": lambda d: CostScore("params"),
        "macs": lambda d: CostScore("macs"),
        "trees": lambda d: TreesOnStatistics(random_state=d),
        "gnn-finetune": lambda d: _source_net("gnn", family),
        "cl-finetune": lambda d: _source_net("cl", family),
        "statistics": lambda d: CGPredictor(None, (), d),
        "default": lambda d: CGPredictor(None, sources, d),
        "default+encoder": lambda d: CGPredictor(f"default-without-{family}", sources, d),
    }
    for m in methods:
        if m not in known:
            raise CGError(f"unknown method {m!r}; there are: {', '.join(known)}")
    return {m: known[m] for m in methods}


@cache
def _source_net(kind: str, family: str) -> Any:
    """``TransferNet`` after its source stage, shared by all draws and by the targets of one family."""
    from contrastive import EncoderConfig
    from finetune import TransferNet

    gnn = EncoderConfig(name="gnn", directed=False, context=False, pooling="mean", statistics_weight=0.0)
    return TransferNet(gnn if kind == "gnn" else f"paper-without-{family}", [f for f in FAMILIES if f != family]).fit_sources()
