"""Make the labelled samples that the package ships as default sources: finetune/sources/<family>.parquet.

    python benchmarks/make_sources.py

2,000 random valid networks per benchmark with their published label (NAS-Bench-301: the surrogate that is not the test set's).
NAS-Bench-301's 1,218 test networks are never among them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cg import GraphSet
from evo_search import get_space, tables

METRIC = {"nasbench101": "test_acc", "nasbench201": "test_acc", "nasbench301": "val_acc_yahpo_e98"}
N, SEED = 2000, 2026


def sample(family: str, n: int = N, seed: int = SEED) -> GraphSet:
    """``n`` labelled networks of one benchmark, no two isomorphic."""
    space, table = get_space(family), tables.load(family)
    y = table.metrics[METRIC[family]]
    blocked = np.isfinite(table.metrics["val_acc_xgb_v1"]) if family == "nasbench301" else np.zeros(table.n, bool)
    graphs, labels, ids, seen = [], [], [], set()
    for row in np.random.default_rng(seed).permutation(table.n):
        if blocked[row] or not np.isfinite(y[row]):
            continue
        a = space.decode(table.encoded(int(row)))
        if not space.is_valid(a):
            continue
        g = space.to_graph(a)
        if g.digest in seen:
            continue
        seen.add(g.digest)
        graphs.append(g)
        labels.append(y[row])
        ids.append(table.encoded(int(row)))
        if len(graphs) == n:
            break
    provenance = {"table": family, "metric": METRIC[family], "seed": seed, "licence": "see evo_search/data/DATACARD.md"}
    return GraphSet(graphs, ids, {METRIC[family]: np.array(labels)}, provenance)


def main() -> None:
    folder = Path(__file__).resolve().parents[1] / "finetune" / "sources"
    folder.mkdir(exist_ok=True)
    for family in METRIC:
        path = sample(family).write(folder / f"{family}.parquet")
        print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
