"""NAS-Bench-301: the JSON files of the real trainings (not the surrogate) -> a table.

The released data are folders of runs, ``<optimizer>/results_<i>.json`` or
``run_<r>/results_fidelity_<f>/results_<i>.json``. A run has ``optimized_hyperparamater_config`` (spelt so) with the
architecture under the prefix ``NetworkSelectorDatasetInfo:darts:``: ``edge_{normal,reduce}_<e>`` = op and
``inputs_node_{normal,reduce}_<3..5>`` = the two inputs as ``a_b`` (node 2 always has 0 and 1), where edge ``e`` counts
the pairs (node, input) in order: node 2 has edges 0-1, node 3 2-4, node 4 5-8, node 5 9-13. Results:
``info[0].val_accuracy``, ``test_accuracy`` (percent), ``info[0].model_parameters``, ``runtime`` (seconds).

Metrics: ``val_acc``, ``test_acc``, ``params``, ``runtime_s``, means over runs of one genotype. The fidelity of a run is
(layers, initial channels, epochs); a table has one fidelity, since accuracies of different ones do not compare.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cg.errors import CGError, StorageError
from evo_search._genomes import OPS301, Genomes301
from evo_search.tables import Table

_PREFIX = "NetworkSelectorDatasetInfo:darts:"
_FIRST_EDGE = (0, 2, 5, 9)  # of nodes 2, 3, 4, 5
_EPOCHS = "SimpleLearningrateSchedulerSelector:cosine_annealing:T_max"
_METRICS = ("val_acc", "test_acc", "params", "runtime_s")
Fidelity = tuple[int, int, int]


def import_nasbench301(path: str | Path, *, fidelity: Fidelity | None = None) -> Table:
    """Read all ``results*.json`` below a folder (or one such file).

    Args:
        path: the folder.
        fidelity: (layers, initial channels, epochs) of the runs to take; needed when the folder has several.

    Raises:
        StorageError: a file is damaged or of another format; the message names it and the field.
        CGError: several fidelities and none chosen (the message lists them), or none of the chosen.
    """
    path = Path(path)
    files = [path] if path.is_file() else sorted(path.rglob("results*.json"))
    if not files:
        raise StorageError(f"{path}: no results*.json in it; unpack the archive of runs first")
    runs: dict[Fidelity, dict[str, list[tuple[float, ...]]]] = defaultdict(lambda: defaultdict(list))
    for file in files:
        genome, kind, values = _run(file)
        runs[kind][genome].append(values)
    found = Counter({kind: sum(map(len, by_genome.values())) for kind, by_genome in runs.items()})
    if (fidelity is None and len(runs) > 1) or (fidelity is not None and fidelity not in runs):
        listed = ", ".join(f"{kind}: {count:,} runs" for kind, count in found.most_common(8))
        raise CGError(f"{path}: choose a fidelity (layers, initial channels, epochs) of these: {listed}")
    chosen = runs[fidelity or next(iter(runs))]
    means = np.array([np.mean(values, axis=0) for values in chosen.values()])
    genomes = Genomes301(Genomes301.text_keys(list(chosen)))
    metrics = {name: means[:, k].copy() for k, name in enumerate(_METRICS)}
    meta = {"source": path.name, "fidelity": list(fidelity or next(iter(runs))), "surrogate": False}
    return Table("nasbench301", genomes, metrics, "val_acc", meta)


def _run(file: Path) -> tuple[str, Fidelity, tuple[float, ...]]:
    """Genome, fidelity and values of one file."""
    try:
        run = json.loads(file.read_text("utf-8"))
        config, info = run["optimized_hyperparamater_config"], run["info"][0]
        genome = _genome(config)
        fidelity = (
            int(config[f"{_PREFIX}layers"]),
            int(config[f"{_PREFIX}init_channels"]),
            int(config.get(_EPOCHS, run["budget"])),
        )
        values = tuple(float(v) for v in (info["val_accuracy"], run["test_accuracy"], info["model_parameters"],
                                          run["runtime"]))  # fmt: skip
        if not all(0.0 <= v <= 100.0 for v in values[:2]):
            raise CGError(f"accuracies {values[:2]} are not percentages")
        if not all(np.isfinite(values)):
            raise CGError(f"parameters {values[2]} or runtime {values[3]} is not a number")
    except KeyError as error:
        raise StorageError(f"{file}: no field {error}; not a run of NAS-Bench-301, or a damaged one") from None
    except (OSError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise StorageError(f"{file}: {error}") from None
    return genome, fidelity, values


def _genome(config: Mapping[str, Any]) -> str:
    """16 ``input:op`` tokens."""
    tokens = []
    for cell in ("normal", "reduce"):
        used = set()
        for node in range(4):
            text = "0_1" if node == 0 else str(config[f"{_PREFIX}inputs_node_{cell}_{node + 2}"])
            inputs = [int(x) for x in text.split("_")]
            if len(inputs) != 2 or not 0 <= inputs[0] < inputs[1] < node + 2:
                raise CGError(f"inputs_node_{cell}_{node + 2} is {text!r}, expected two inputs below {node + 2}")
            for x in inputs:
                edge = f"{_PREFIX}edge_{cell}_{_FIRST_EDGE[node] + x}"
                if config[edge] not in OPS301:
                    raise CGError(f"edge {edge} has the unknown op {config[edge]!r}")
                used.add(edge)
                tokens.append(f"{x}:{OPS301.index(config[edge])}")
        extra = {key for key in config if key.startswith(f"{_PREFIX}edge_{cell}_")} - used
        if extra:
            raise CGError(f"{sorted(extra)[0]} is set, but no node uses that edge")
    return " ".join(tokens)
