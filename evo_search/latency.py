"""Latency measured for real: how long a graph, built as a module with fresh weights, takes on this machine.

    latency = measure(graph, runs=1000, threads=1)          # Latency(mean_ms=3.1, ...)
    measure_set(GraphSet.read("graphs.parquet"), "latency.csv")

Runs outside the quartiles are left out before the mean is taken. Source: Dudziak et al., arXiv 2007.08668, section 6.
"""

from __future__ import annotations

import csv
import gc
import io
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from cg.errors import CGError, StorageError
from cg.files import write_text
from cg.graph import Graph
from cg.graphset import GraphSet
from cg.label_file import write_table
from cg.spec import NodeSpec

BACKENDS = ("torch", "onnxruntime")
LEAST_RUNS = 8
COLUMNS = ("id", "mean_ms", "median_ms", "std_ms", "runs", "kept", "backend", "threads")


@dataclass(frozen=True, slots=True)
class Latency:
    """One measurement.

    Attributes:
        mean_ms, std_ms: of the runs between the quartiles.
        median_ms: of all runs.
        runs, kept: how many were timed, and how many lie between the quartiles.
        backend, threads: how it was measured.
    """

    mean_ms: float
    median_ms: float
    std_ms: float
    runs: int
    kept: int
    backend: str = "torch"
    threads: int = 1


def measure(graph: Graph, runs: int = 1000, warmup: int = 50, backend: str = "torch", threads: int = 1, *,
            max_seconds: float | None = None, seed: int = 0) -> Latency:
    """Time forward passes of ``graph`` with its recorded batch (1 where it is free), in inference mode.

    Args:
        graph: any graph that ``extract.to_torch`` can build.
        runs: timed passes; the input is the same random one in all.
        warmup: passes before these.
        backend: ``"torch"``, or ``"onnxruntime"`` (the module exported to ONNX; needs onnx and onnxruntime).
        threads: of the computation.
        max_seconds: stop early, after at least 8 runs; a fifth of it is the most that the warm-up takes.
        seed: of weights and input.

    Weights are the initial ones, so numbers too small for the format are flushed to zero: deep networks without training make
    them, trained ones do not, and processors are slow on them. Raises ``CGError`` for a graph that cannot run, an unknown
    backend and numbers out of range.
    """
    _check(runs, warmup, backend, threads, max_seconds)
    with (_torch_run if backend == "torch" else _onnx_run)(graph, threads, seed) as run:
        times = _timed(run, runs, warmup, max_seconds)
    kept = between_quartiles(times)
    return Latency(float(kept.mean()), float(np.median(times)), float(kept.std()), len(times), len(kept), backend, threads)


def between_quartiles(times: np.ndarray) -> np.ndarray:
    """The entries from the first to the third quartile, both included."""
    low, high = np.percentile(times, (25, 75))
    kept: np.ndarray = times[(times >= low) & (times <= high)]
    return kept if len(kept) else np.median(times, keepdims=True)


def layer_graphs(graphs: Sequence[Graph]) -> GraphSet:
    """One graph for each distinct node in ``graphs``: its inputs and itself. Ids are the JSON texts of the ``NodeSpec``, so a
    table of their latencies is what ``finetune.baselines.LayerwiseLatency`` takes.
    """
    specs = list(dict.fromkeys(spec for g in graphs for spec in g.nodes if spec.op != "Input"))
    return GraphSet([_alone(spec) for spec in specs], ids=[s.to_json() for s in specs], provenance={"source": "layers"})


def _alone(spec: NodeSpec) -> Graph:
    n = len(spec.in_shapes)
    return Graph.make([*(NodeSpec("Input", (), shape) for shape in spec.in_shapes), spec], [(i, n, i) for i in range(n)],
                      name=spec.op, family="layer")


def measure_set(graphs: GraphSet, path: str | Path, runs: int = 1000, warmup: int = 50, backend: str = "torch",
                threads: int = 1, *, max_seconds: float | None = None, seed: int = 0,
                progress: Callable[[int, int, str], None] = lambda done, total, note: None) -> tuple[int, dict[str, str]]:
    """Measure every graph that the CSV at ``path`` has no line for, and append a line (``COLUMNS``) for each.

    A line is written as a whole and reaches the disk before the next graph is begun, so an interrupted run goes on where it
    was; what a crash left of a line is removed. ``progress(done, total, id)``.

    Returns how many were measured, and a message by id for graphs that cannot run. Raises ``StorageError`` if the file is no
    such table or was measured with another backend or number of threads.
    """
    _check(runs, warmup, backend, threads, max_seconds)
    path = Path(path)
    known = _resume(path, backend, threads)
    todo = [i for i, key in enumerate(graphs.ids) if key not in known]
    there = len(graphs) - len(todo)
    failed: dict[str, str] = {}
    for done, i in enumerate(todo):
        key = graphs.ids[i]
        progress(there + done, len(graphs), key)
        try:
            found = measure(graphs[i], runs, warmup, backend, threads, max_seconds=max_seconds, seed=seed)
        except CGError as error:
            failed[key] = str(error)
            continue
        _append(path, key, found)
    progress(len(graphs), len(graphs), "")
    return len(todo) - len(failed), failed


def _check(runs: int, warmup: int, backend: str, threads: int, max_seconds: float | None) -> None:
    if backend not in BACKENDS:
        raise CGError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if runs < 1 or warmup < 0 or threads < 1:
        raise CGError(f"runs and threads must be 1 or more and warmup 0 or more, got {runs}, {threads} and {warmup}")
    if max_seconds is not None and not max_seconds > 0:
        raise CGError(f"max_seconds must be positive, got {max_seconds}")
    if backend == "onnxruntime":
        absent = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
        if absent:
            raise CGError(f"backend onnxruntime needs {' and '.join(absent)}: pip install 'cgtransfer[onnx]'")


def _timed(run: Callable[[], object], runs: int, warmup: int, max_seconds: float | None) -> np.ndarray:
    """Milliseconds of each pass, without the collector of garbage."""
    end = float("inf") if max_seconds is None else time.perf_counter() + max_seconds
    pause = float("inf") if max_seconds is None else time.perf_counter() + max_seconds / 5
    for _ in range(warmup):
        run()
        if time.perf_counter() > pause:
            break
    times: list[int] = []
    enabled = gc.isenabled()
    gc.disable()
    try:
        while len(times) < runs and (len(times) < LEAST_RUNS or time.perf_counter() < end):
            began = time.perf_counter_ns()
            run()
            times.append(time.perf_counter_ns() - began)
    finally:
        if enabled:
            gc.enable()
    return np.array(times) / 1e6


@contextmanager
def _torch_run(graph: Graph, threads: int, seed: int) -> Iterator[Callable[[], object]]:
    import torch

    from extract import to_torch

    module = to_torch(graph, seed).eval()
    inputs = module.example_inputs(1, seed)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    try:
        with torch.inference_mode():
            yield lambda: module(*inputs)
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)


@contextmanager
def _onnx_run(graph: Graph, threads: int, seed: int) -> Iterator[Callable[[], object]]:
    import onnxruntime
    import torch

    from extract import to_torch

    module = to_torch(graph, seed).eval()
    inputs = module.example_inputs(1, seed)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    names = [f"x{i}" for i in range(len(inputs))]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = Path(folder) / "model.onnx"
        try:
            torch.onnx.export(module, inputs, str(file), dynamo=False, input_names=names, opset_version=17, verbose=False)
            session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # each step has error classes of its own, without a common base
            text = " ".join(str(error).split())[:300]
            raise CGError(f"graph {graph.name!r} does not run in onnxruntime ({type(error).__name__}: {text}); measure it with "
                          "backend torch") from error
    read = {i.name for i in session.get_inputs()}
    feed = {name: x.numpy() for name, x in zip(names, inputs, strict=True) if name in read}
    yield lambda: session.run(None, feed)


def _resume(path: Path, backend: str, threads: int) -> set[str]:
    """Ids that have a line; makes the file where there is none and cuts off half a line at its end."""
    if not path.exists():
        write_table(path, COLUMNS, [])
        return set()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"cannot read {path}: {error}") from None
    whole = text[:text.rfind("\n") + 1]
    rows = list(csv.reader(io.StringIO(whole)))
    if not rows or tuple(rows[0]) != COLUMNS:
        raise StorageError(f"{path} is no table of latencies (its first line is not {','.join(COLUMNS)}); choose another file")
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(COLUMNS):
            raise StorageError(f"{path}, line {number}: {len(row)} columns where the header has {len(COLUMNS)}")
        if row[-2:] != [backend, str(threads)]:
            raise StorageError(f"{path} was measured with {row[-2]} on {row[-1]} threads, not with {backend} on {threads}; "
                               "choose another file")
    if whole != text:
        write_text(path, whole)
    return {row[0] for row in rows[1:]}


def _append(path: Path, key: str, found: Latency) -> None:
    """One line, in one write."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow([key, *(f"{v:.6g}" if isinstance(v, float) else v for v in astuple(found))])
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, line.getvalue().encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from None
