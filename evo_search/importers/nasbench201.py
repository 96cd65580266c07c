"""NAS-Bench-201 ``.pth`` and NATS-Bench (topology) ``.pickle.pbz2``, as one file or a folder -> a table.

One file: a dict with ``meta_archs`` (architecture strings), ``evaluated_indexes`` and ``arch2infos``: index ->
training schedule -> results; the schedules are ``less`` / ``full`` in ``.pth`` files and ``12`` / ``200`` in
NATS-Bench. A folder (``NATS-tss-v1_0-*-simple``, ``NAS-Bench-201-v1_1-archive``) has one file per index,
``000123.pickle.pbz2`` or ``000123-FULL.pth``, with the schedules on top. Results hold ``arch_index``, ``arch_str``,
``dataset_seed`` (data set -> seeds) and ``all_results``: (data set, seed) -> a trial with ``params`` (millions),
``epochs``, ``eval_names`` and ``eval_acc1es`` (``<set>@<epoch>`` -> percent).

Metrics: the mean over all seeds after the last epoch, ``c10_test_e200`` (trained on ``cifar10``, ``ori-test``),
``c10_val_e200`` (``cifar10-valid``, ``x-valid``), ``c100_`` and ``in16_`` (``x-test``, ``x-valid``), the same with
``_e12``, and ``params_c10``. NaN where a set was not evaluated. A whole file needs its unpickled size in memory (many
GB for the official ones); a folder needs one network at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cg.errors import CGError, StorageError
from evo_search._genomes import Genomes201
from evo_search.importers._safe_pickle import load_file
from evo_search.tables import Table, _for_dataset

_SCHEDULES = {"12": "e12", "less": "e12", "200": "e200", "full": "e200"}
_SETS = {
    "c10_test": ("cifar10", "ori-test"),
    "c10_val": ("cifar10-valid", "x-valid"),
    "c100_test": ("cifar100", "x-test"),
    "c100_val": ("cifar100", "x-valid"),
    "in16_test": ("ImageNet16-120", "x-test"),
    "in16_val": ("ImageNet16-120", "x-valid"),
}
_COLUMNS = [f"{name}_{schedule}" for schedule in ("e200", "e12") for name in _SETS]
_MEMBER = re.compile(r"^0*(\d+)(-FULL)?\.(pth|pickle\.pbz2)$")


def import_nasbench201(path: str | Path) -> Table:
    """Read an official file or folder; see above for the formats.

    Raises:
        RefusedPickle: a pickle asks for a name that such a file does not need; nothing of it was run.
        StorageError: damaged or of another format; the message names the file and the record.
    """
    path = Path(path)
    rows: dict[int, tuple[str, dict[str, float]]] = {}
    for index, source, schedules, stated in _records(path):
        where = f"{source}: architecture {index}"
        try:
            arch, values = _network(schedules)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"missing {error}" if isinstance(error, KeyError) else str(error)
            raise StorageError(f"{where}: {reason}") from None
        if stated is not None and stated != arch:
            raise StorageError(f"{where}: results of {arch!r}, but meta_archs has {stated!r}")
        rows[index] = arch, values
    if not rows:
        raise StorageError(f"{path}: no architecture in it")
    order = sorted(rows)
    try:
        genomes = Genomes201(Genomes201.text_keys([rows[i][0] for i in order]))
    except CGError as error:
        raise StorageError(f"{path}: {error} (only the topology space of NATS-Bench fits)") from None
    columns = {}
    for name in ["params_c10", *_COLUMNS]:
        column = np.array([rows[i][1].get(name, np.nan) for i in order])
        if not np.isnan(column).all():
            columns[name] = column
    metrics = _for_dataset(columns, "c10")
    default = "test_acc" if "test_acc" in metrics else next(iter(metrics))
    return Table("nasbench201", genomes, metrics, default, {"source": path.name})


def _records(path: Path) -> Iterator[tuple[int, Path, Mapping[str, Any], str | None]]:
    """``(index, file, schedules, architecture string that the file's list states)``."""
    if path.is_dir():
        for member in sorted(path.iterdir()):
            if match := _MEMBER.match(member.name):
                content = load_file(member)
                if not isinstance(content, Mapping):
                    raise StorageError(f"{member}: a {type(content).__name__}, expected a dict of training schedules")
                yield int(match[1]), member, content, None
        return
    content = load_file(path)
    keys = ("meta_archs", "arch2infos", "evaluated_indexes")
    if not isinstance(content, Mapping) or any(k not in content for k in keys):
        raise StorageError(f"{path}: not a NAS-Bench-201 or NATS-Bench file, which has {', '.join(keys)}")
    archs, infos = content["meta_archs"], content["arch2infos"]
    if not isinstance(archs, list) or not isinstance(infos, Mapping):
        raise StorageError(f"{path}: meta_archs is not a list or arch2infos not a dict")
    for index, schedules in infos.items():
        if not isinstance(index, int) or not 0 <= index < len(archs) or not isinstance(schedules, Mapping):
            raise StorageError(f"{path}: architecture {index!r}: not in meta_archs, or its results are not a dict")
        yield index, path, schedules, str(archs[index])


def _network(schedules: Mapping[str, Any]) -> tuple[str, dict[str, float]]:
    """Architecture string and the columns of one network."""
    arch, values = "", {}
    for schedule, results in schedules.items():
        if schedule not in _SCHEDULES:
            raise CGError(f"unknown training schedule {schedule!r}, expected {', '.join(_SCHEDULES)} (topology space)")
        if arch and results["arch_str"] != arch:
            raise CGError("its two training schedules are of different architectures")
        arch = str(results["arch_str"])
        for name, (dataset, split) in _SETS.items():
            trials = [results["all_results"][dataset, seed] for seed in results["dataset_seed"].get(dataset, ())]
            accuracies = [_last_accuracy(t, dataset, split) for t in trials if split in t["eval_names"]]
            if accuracies:
                values[f"{name}_{_SCHEDULES[schedule]}"] = float(np.mean(accuracies))
            if name == "c10_test" and trials:
                values["params_c10"] = round(1e6 * float(trials[0]["params"]))
    if not arch:
        raise CGError("no training schedule")
    return arch, values


def _last_accuracy(trial: Mapping[str, Any], dataset: str, split: str) -> float:
    """Top-1 in percent after the last epoch."""
    value = trial["eval_acc1es"][f"{split}@{int(trial['epochs']) - 1}"]
    if not isinstance(value, (int, float)) or not 0.0 <= value <= 100.0:
        raise CGError(f"accuracy on {dataset} {split} is {value!r}, not a percentage")
    return float(value)
