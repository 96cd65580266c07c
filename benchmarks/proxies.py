"""Zero-cost proxies of 1,000 random networks of each benchmark space on real CIFAR-10 images, and what their ranking is worth.

    python benchmarks/proxies.py --space nasbench201                          # -> results/proxies-nasbench201.csv.gz
    python benchmarks/proxies.py --space nasbench101 --size 32 --networks 60  # -> results/proxies-nasbench101-32.csv.gz
    python benchmarks/proxies.py --analyse                                    # -> results/proxies.json, from the tables

``proxies.json`` holds, for every proxy, Spearman's rho and Kendall's tau over all networks and over five disjoint fifths of
them, and what a few labels make of the 13 values: trees on them beside the predictors that read graphs or encodings, on the
same draws of the same networks. A network without a value ranks last.

A network is measured once: one draw of weights, one batch of 16 images. NAS-Bench-201 runs on images of 32 x 32; the other
two, whose networks are 10 to 60 times as dear, on the same images halved to 16 x 16 (``--size 32`` for a sample of them, which
shows how far that changes the ranking). Rows are kept in ``runs/`` as soon as they are there, so a run that was killed goes on.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import sys
import time
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import _record
import numpy as np

from cg.errors import StorageError
from cg.files import atomic_path
from cg.row_file import RowFile
from evo_search.oracles import shared_folder

LABELS, DRAWS = (20, 50, 100, 400), 5
SPACES, SIZE, BATCH, NETWORKS = ("nasbench201", "nasbench301", "nasbench101"), {"nasbench201": 32}, 16, 1000
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of CIFAR-10's training images, by channel


def networks(space: str, count: int) -> tuple[list[str], np.ndarray, str]:
    """Random networks with a label: encoded genomes, labels ``[count]``, name of the label. Smaller counts are prefixes."""
    from evo_search import get_space, tables

    table, where = tables.load(space), get_space(space)
    y = table.metrics[table.default_metric]
    found: list[int] = []
    for row in np.random.default_rng(0).permutation(np.flatnonzero(np.isfinite(y))):
        if len(found) == count:
            break
        if where.is_valid(where.decode(table.encoded(int(row)))):
            found.append(int(row))
    return [table.encoded(row) for row in found], y[found], table.default_metric


def images(size: int, batch: int = BATCH) -> tuple[Any, Any]:
    """Random CIFAR-10 training images, normalised, float32 ``[batch, 3, size, size]`` (size 32 or 16), and classes."""
    import torch

    path = shared_folder() / "data" / "images" / "cifar10_subset.npz"
    if not path.exists():
        raise StorageError(f"{path} is not there; set CGTRANSFER_SHARED to the folder that holds data/images")
    with np.load(path) as file:
        chosen = np.random.default_rng(0).permutation(len(file["x_train"]))[:batch]
        x, y = file["x_train"][chosen], file["y_train"][chosen]
    x = (x / 255 - np.array(MEAN)) / np.array(STD)
    if size == 16:
        x = x.reshape(batch, 16, 2, 16, 2, 3).mean((2, 4))
    return torch.tensor(x.transpose(0, 3, 1, 2), dtype=torch.float32).contiguous(), torch.tensor(y, dtype=torch.int64)


def at_size(space: str, size: int) -> Any:
    """The search space with inputs of another size."""
    from evo_search import get_space

    return type(space, (type(get_space(space)),), {"input_shape": (1, 3, size, size)})()


def measure_all(space: str, size: int, count: int) -> None:
    """Fill ``runs/proxies-<space>-<size>.jsonl`` and write the table."""
    import torch

    from finetune.proxies import PROXIES, measure

    torch.set_num_threads(1)
    (encoded, y, metric), (x, classes), where = networks(space, count), images(size), at_size(space, size)
    store = RowFile(_record.ROOT / "runs" / f"proxies-{space}-{size}.jsonl", itemgetter("network"), "this benchmark; remove it")
    for done, name in enumerate(encoded):
        if store.get({"network": name}):
            continue
        began = time.process_time()
        values = measure(where.to_graph(where.decode(name)), None, x, classes, seed=0)
        row = store.add({"network": name, "values": values, "seconds": round(time.process_time() - began, 3)})
        if done % 50 == 0:
            print(f"{space} {size}: {done}/{count}, {row['seconds']} s", file=sys.stderr, flush=True)
    rows = [store.found[name] for name in encoded]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("network", "label", *PROXIES, "seconds"))
    for row, label in zip(rows, y, strict=True):
        found = [row["values"].get(k) for k in PROXIES]
        table.writerow((row["network"], f"{label:.6g}", *("" if v is None else f"{v:.9g}" for v in found), row["seconds"]))
    stem = f"proxies-{space}" + ("" if size == SIZE.get(space, 16) else f"-{size}")
    with atomic_path(_record.RESULTS / f"{stem}.csv.gz") as path:
        path.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))
    seconds = [row["seconds"] for row in rows]
    _record.write(f"record-{stem}", {"config": {
        "space": space, "label": metric, "networks": count, "image_size": size, "batch": BATCH, "seed": 0, "images": "CIFAR-10",
        "cpu_seconds_mean": round(float(np.mean(seconds)), 3), "cpu_seconds_max": max(seconds)}})


def read(space: str, size: int | None = None) -> tuple[list[str], np.ndarray, dict[str, np.ndarray]] | None:
    """Genomes, labels and values (NaN where there is none) of a table; None if it is not there."""
    file = _record.RESULTS / (f"proxies-{space}" + (f"-{size}" if size else "") + ".csv.gz")
    if not file.exists():
        return None
    rows = list(csv.DictReader(io.StringIO(gzip.decompress(file.read_bytes()).decode())))
    values = {k: np.array([float(r[k] or "nan") for r in rows]) for k in rows[0] if k not in ("network", "label")}
    return [r["network"] for r in rows], np.array([float(r["label"]) for r in rows]), values


def ranked(values: np.ndarray) -> np.ndarray:
    """Scores with what is missing below all others."""
    present = values[np.isfinite(values)]
    return np.where(np.isfinite(values), values, (present.min() if len(present) else 0.0) - 1)


def correlations(y: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
    """Criteria over all networks, and mean and standard deviation (n - 1) over five disjoint fifths in their random order."""
    from finetune import metrics

    found: dict[str, Any] = {}
    for name, criterion in (("spearman", metrics.spearman), ("kendall", metrics.kendall)):
        fifths = np.array([criterion(a, b) for a, b in zip(np.array_split(y, 5), np.array_split(scores, 5), strict=True)])
        found |= {name: criterion(y, scores), f"{name}_mean": float(fifths.mean()), f"{name}_std": float(fifths.std(ddof=1))}
    return found


class OfTable:
    """Predictor that looks a network's proxies up by name: trees on all of them (with ``both`` also on ``cg.statistics``), or
    one of them as the score."""

    def __init__(self, table: dict[str, np.ndarray], seed: int, column: int | None = None, both: bool = False) -> None:
        self.table, self.seed, self.column, self.both = table, seed, column, both

    def rows(self, graphs: Sequence[Any]) -> np.ndarray:
        from cg.global_statistics import statistics

        rows = np.stack([self.table[g.name] for g in graphs])
        return np.concatenate([rows, statistics(graphs)], 1) if self.both else rows

    def fit(self, graphs: Sequence[Any], y: np.ndarray) -> OfTable:
        from sklearn.ensemble import ExtraTreesRegressor

        from finetune.targets import normal_scores

        if self.column is None:
            trees = ExtraTreesRegressor(300, max_features=0.3 if self.both else 1.0, random_state=self.seed)
            self.model = trees.fit(self.rows(graphs), normal_scores(y))
        return self

    def predict(self, graphs: Sequence[Any]) -> np.ndarray:
        rows = self.rows(graphs)
        return np.asarray(self.model.predict(rows) if self.column is None else rows[:, self.column])


def few_labels(space: str, encoded: list[str], y: np.ndarray, x: np.ndarray, names: list[str]) -> list[dict[str, Any]]:
    """Trees on the proxies ``x [B, proxies]`` and their rivals on the same draws: one row a predictor and label count."""
    from cg.graphset import GraphSet
    from evo_search import get_space
    from evo_search.comparison import compare
    from evo_search.rivals import Rival

    where = get_space(space)
    pool = GraphSet([where.to_graph(where.decode(e)) for e in encoded], encoded, {"label": y})
    table = {g.name: row for g, row in zip(pool.graphs, x, strict=True)}
    ours = [Rival("trees on proxies", "graph", lambda seed, family: OfTable(table, seed)),
            Rival("trees on proxies and statistics", "graph", lambda seed, family: OfTable(table, seed, both=True)),
            Rival("synflow", "graph", lambda seed, family: OfTable(table, seed, names.index("synflow")))]
    result = compare(space, [*ours, "macs", "trees", "native-ridge", "native-gp", "default"], LABELS, DRAWS, n_test=None,
                     pool=pool, out=_record.ROOT / "runs" / f"proxies-few-{space}",
                     progress=lambda what, done, total: print(f"{space}: {done}/{total} {what}", file=sys.stderr, flush=True))
    return result.summary()


def analyse() -> None:
    """Write ``proxies.json`` from the tables that are there."""
    from finetune.proxies import PROXIES

    body: dict[str, Any] = {"labels": LABELS, "draws": DRAWS, "fifths": 5, "spaces": {}}
    for space in SPACES:
        found = read(space)
        if found is None:
            print(f"{space}: no table", file=sys.stderr)
            continue
        encoded, y, values = found
        x = np.stack([ranked(values[k]) for k in PROXIES], 1)
        here: dict[str, Any] = {"networks": len(y), "cpu_seconds_mean": float(values["seconds"].mean()),
                                "missing": {k: n for k in PROXIES if (n := int(np.isnan(values[k]).sum()))}}
        here["proxies"] = {k: correlations(y, x[:, i]) for i, k in enumerate(PROXIES)}
        large = read(space, 32)
        if large is not None:  # a prefix of the same networks
            count, at_32 = len(large[1]), {k: ranked(large[2][k]) for k in PROXIES}
            here["at_32"] = {"networks": count, "cpu_seconds_mean": float(large[2]["seconds"].mean()), "proxies": {
                k: {"agreement": _rho(x[:count, i], at_32[k]), "spearman_16": _rho(y[:count], x[:count, i]),
                    "spearman_32": _rho(y[:count], at_32[k])} for i, k in enumerate(PROXIES)}}
        here["few_labels"] = few_labels(space, encoded, y, x, list(PROXIES))
        body["spaces"][space] = here
        _record.write("proxies", body)


def _rho(a: np.ndarray, b: np.ndarray) -> float:
    from finetune import metrics

    return metrics.spearman(a, b)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--space", choices=SPACES, action="append")
    parser.add_argument("--size", type=int, choices=(16, 32), help="of the images; default: what is said above")
    parser.add_argument("--networks", type=int, default=NETWORKS)
    parser.add_argument("--analyse", action="store_true", help="only read the tables")
    args = parser.parse_args(argv)
    if args.analyse:
        analyse()
    else:
        for space in args.space or SPACES:
            measure_all(space, args.size or SIZE.get(space, 16), args.networks)


if __name__ == "__main__":
    main()
