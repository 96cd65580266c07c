"""ONNX models for ``extract_reach.py``: the ``onnx`` package's test data, and exports of PyTorch models in both ways."""

from __future__ import annotations

import os
import time
import warnings
from functools import cache
from pathlib import Path
from typing import Any

from _reach_base import row, torch_start
from _sample import EXPORTED, on_cpu
from _workers import RUNS, Answer, one_line


def onnx_names() -> list[str]:
    """Networks and single layers of the ``onnx`` package's backend tests, and exports of 40 models in both ways.

    Left out: ``real`` (the nine networks of ``light`` with their weights, to be downloaded), ``simple`` and ``node`` (see
    ``onnx_node_names``).
    """
    data = _backend_data()
    found = [f"light/{p.stem}" for p in sorted((data / "light").glob("*.onnx"))]
    for folder in ("pytorch-converted", "pytorch-operator"):
        found += [f"{folder}/{p.name}" for p in sorted((data / folder).iterdir()) if (p / "model.onnx").exists()]
    return [*found, *(f"{way}/{name}" for name in EXPORTED for way in ("legacy", "dynamo"))]


def onnx_node_names() -> list[str]:
    """Tests of single operators and of graph features; many are no network (strings, sequences, training)."""
    simple = sorted((_backend_data() / "simple").iterdir())
    return [*(f"node/{name}" for name in _node_cases()),
            *(f"simple/{p.name}" for p in simple if (p / "model.onnx").exists())]


@cache
def _node_cases() -> dict[str, Any]:
    """Name -> model of every single-operator test; ``onnx`` makes them when asked."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {case.name: case.model for case in collect_testcases(None)}


def _backend_data() -> Path:
    import onnx.backend.test

    return Path(onnx.backend.test.__file__).parent / "data"


def onnx_measure(key: str) -> Answer:
    from extract import ExtractionError, from_onnx

    group, _, name = key.partition("/")
    more: dict[str, Any] = {"group": group}
    path: Any
    if group in ("legacy", "dynamo"):
        path = export_path(key)
    elif group == "node":
        path = _node_cases()[name]
    else:
        path = _backend_data() / group / (f"{name}.onnx" if group == "light" else f"{name}/model.onnx")
    t = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = from_onnx(path)
    except ExtractionError as error:
        return {"error": one_line(error, 600), "seconds": time.perf_counter() - t, **more}
    return row(found, time.perf_counter() - t, **more)


def export_path(key: str) -> Path:
    """Where the export of a model lies, e.g. of ``dynamo/timm:resnet18``."""
    way, _, spec = key.partition("/")
    return RUNS / "onnx" / f"{spec.replace(':', '-')}.{way}.onnx"


def export(key: str) -> Answer:
    """Write that file with the exporter's default settings. In a worker of its own: it needs the weights."""
    import torch

    path = export_path(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    module, args = on_cpu(key.partition("/")[2])
    t = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        part = path.with_suffix(f".{os.getpid()}.onnx")  # a killed exporter leaves no half of a file
        torch.onnx.export(module, args, str(part), dynamo=key.startswith("dynamo"), verbose=False)
    Path(f"{part}.data").unlink(missing_ok=True)  # weights beside the file are never read
    part.replace(path)
    return {"seconds": time.perf_counter() - t}


def onnx_start() -> None:
    import onnx  # noqa: F401

    torch_start()
