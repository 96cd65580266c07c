"""Graphs of a search space as a ``GraphSet``: rows of its benchmark table with their labels, or random networks.

This file must not know how labels are used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from cg.errors import CGError
from evo_search import tables
from evo_search.spaces import get_space

if TYPE_CHECKING:
    from cg.graphset import GraphSet

Progress = Callable[[int, int], None]


def export(name: str, n: int = 2000, seed: int = 0, *, labels: bool = False,
           progress: Progress | None = None) -> GraphSet:
    """``n`` different networks of the space ``name``; their ids are the encoded genomes.

    From the space's table where it has one (uniformly, valid networks only, fewer than ``n`` where the table has no more),
    else by ``space.sample``.

    Args:
        labels: keep the table's metrics (NaN where nobody measured), and take only rows with the default metric.
        progress: called with (done, n).

    Raises ``CGError``: unknown space, ``n`` below 1, no table to take labels from, or a space that gives no new networks.
    """
    from cg.graphset import GraphSet

    space = get_space(name)
    if n < 1:
        raise CGError(f"the number of graphs must be at least 1, got {n}")
    rng = np.random.default_rng(seed)
    provenance: dict[str, Any] = {"space": name, "seed": seed, "kind": "random"}
    columns: dict[str, np.ndarray] = {}
    if name in tables.names():
        table = tables.load(name)
        rows = np.arange(table.n)
        if labels:
            rows = rows[~np.isnan(table.metrics[table.default_metric])]
            provenance["default_metric"] = table.default_metric
        provenance |= {"kind": "table", "table": dict(table.meta)}
        chosen: list[int] = []
        genomes = []
        for row in rng.permutation(rows):
            genome = space.decode(table.encoded(int(row)))
            if space.is_valid(genome):
                chosen.append(int(row))
                genomes.append(genome)
                if len(genomes) == n:
                    break
        ids = [table.encoded(i) for i in chosen]
        if labels:
            columns = {k: v[chosen] for k, v in table.metrics.items() if not np.isnan(v[chosen]).all()}
    elif labels:
        raise CGError(f"space {name!r} has no benchmark table to take labels from; tables: {', '.join(tables.names())}")
    else:
        found: dict[str, Any] = {}
        for _ in range(50 * n + 1000):
            genome = space.sample(rng)
            found.setdefault(space.key(genome), genome)
            if len(found) == n:
                break
        else:
            raise CGError(f"space {name!r} gave only {len(found)} different networks in {50 * n + 1000} draws; ask for fewer")
        genomes = list(found.values())
        ids = [space.encode(g) for g in genomes]
    graphs = []
    for i, genome in enumerate(genomes, 1):
        graphs.append(space.to_graph(genome).with_(name=ids[i - 1]))
        if progress is not None and (i % 100 == 0 or i == len(genomes)):
            progress(i, len(genomes))
    return GraphSet(graphs, ids, columns, provenance)
