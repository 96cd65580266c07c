"""``from_torch`` beside other ways to a graph, side by side on the same 120 models: reach, time and memory.

    pip install torchlens==2.36.1 torchview==0.2.7      # the peers; a tool that is not installed is skipped and named
    python benchmarks/extract_speed.py                  # most of an hour on one core; a killed run goes on where it stopped
    python benchmarks/extract_speed.py --limit 5        # prints, writes no result
    python benchmarks/extract_speed.py --summary        # writes the result from the rows that are there

Tools: ``ours`` (``extract.from_torch``), ``fx`` (``torch.fx.symbolic_trace`` and ``ShapeProp``), ``export``
(``torch.export.export(strict=False)``), ``export_core`` (the same and ``run_decompositions`` to core ATen), ``torchlens``
(no activations kept), ``torchview`` (to the innermost level). All get the same module, built before the clock starts, on
the meta device; TorchLens does not take meta tensors and gets random weights on the CPU, and it runs the network.

Models (``_sample.py``): one of each module of timm and 22 of torchvision, in an order drawn with a seed, all tools on one
model before the next. Every tool has a process that imported everything and worked on a small network once; each model is
measured in a fork of it (TorchLens, which refuses forks: in a new such process), with one thread, once. Inside the clock:
the tool's call; CPU time is kept beside wall time, which a busy machine stretches. Memory: peak RSS, building the model
included, over the RSS before. No result within 120 s or 6 GB counts as not covered. Our own rows are measured again when
our code has changed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import _record
from _sample import MODELS, on_cpu, on_meta
from _workers import RUNS, Answer, Worker, code_version, measured, peak_rss, rss, serve, sweep

TIMEOUT_S, MOST_BYTES = 120.0, 6_000_000_000
PACKAGES = {"torchlens": "torchlens", "torchview": "torchview"}


def ours(module: Any, args: tuple[Any, ...]) -> Answer:
    from extract import from_torch

    found = from_torch(module, list(args))
    return {"nodes": found.graph.n_nodes, "unknown": dict(found.unknown)}


def fx(module: Any, args: tuple[Any, ...]) -> Answer:
    import torch
    from torch.fx.passes.shape_prop import ShapeProp

    traced = torch.fx.symbolic_trace(module)
    ShapeProp(traced).propagate(*args)
    return {"nodes": len(traced.graph.nodes)}


def export(module: Any, args: tuple[Any, ...]) -> Answer:
    import torch

    return {"nodes": len(torch.export.export(module, args, strict=False).graph.nodes)}


def export_core(module: Any, args: tuple[Any, ...]) -> Answer:
    import torch

    return {"nodes": len(torch.export.export(module, args, strict=False).run_decompositions().graph.nodes)}


def torchlens(module: Any, args: tuple[Any, ...]) -> Answer:
    import torchlens as tool

    return {"nodes": len(tool.trace(module, args, capture=tool.options.CaptureOptions(layers_to_save=None)).layer_list)}


def torchview(module: Any, args: tuple[Any, ...]) -> Answer:
    import torchview as tool

    graph = tool.draw_graph(module, input_data=list(args), device="meta", depth=float("inf"), hide_module_functions=False)
    return {"nodes": len(graph.node_set)}


TOOLS: dict[str, Callable[[Any, tuple[Any, ...]], Answer]] = {
    "ours": ours, "fx": fx, "export": export, "export_core": export_core, "torchlens": torchlens, "torchview": torchview}
ON_CPU = ("torchlens",)
UNFORKED = ("torchlens",)  # refuses to work in a forked process; gets a new one for each model


def small(tool: str) -> None:
    """Use the tool once, so that what it imports and sets up is not measured."""
    import torch
    from torch import nn

    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                        nn.Linear(4, 2), nn.LayerNorm(2), nn.GELU()).eval()
    device = "cpu" if tool in ON_CPU else "meta"
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        TOOLS[tool](net.to(device), (torch.zeros(1, 3, 8, 8, device=device),))


def measure(tool: str, spec: str) -> Answer:
    """One tool on one model, in a process of its own."""
    import torch

    small(tool)
    before = rss()
    forget_peak()
    module, args = (on_cpu if tool in ON_CPU else on_meta)(spec)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        t, cpu = time.perf_counter(), time.process_time()
        answer = TOOLS[tool](module, args)
        seconds, cpu = time.perf_counter() - t, time.process_time() - cpu
    return {**answer, "seconds": seconds, "cpu_s": cpu, "rss_over_import": peak_rss_now() - before}


def forget_peak() -> None:
    """Start the count of ``peak_rss_now`` again, where Linux allows it."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_rss_now() -> int:
    """Most resident bytes since ``forget_peak``."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return peak_rss()


def start(tool: str) -> Answer:
    import torch

    from extract import zoo

    zoo.import_torchvision()
    import timm  # noqa: F401

    torch.set_num_threads(1)
    small(tool)
    return {}


def installed() -> tuple[list[str], dict[str, str]]:
    """Tools that can be measured, and why the others cannot."""
    missing = {}
    for tool, package in PACKAGES.items():
        try:
            version(package)
        except PackageNotFoundError:
            missing[tool] = f"{package} is not installed"
    return [t for t in TOOLS if t not in missing], missing


def summary(rows: dict[str, Answer], missing: dict[str, str]) -> Answer:
    """Figures of each tool over the models that every tool was asked about."""
    models = [m for m in MODELS if all(f"{t} {m}" in rows for t in TOOLS if t not in missing)]
    tools: dict[str, Any] = {}
    for tool in TOOLS:
        if tool in missing:
            tools[tool] = {"skipped": missing[tool]}
            continue
        mine = {m: rows[f"{tool} {m}"] for m in models}
        done = {m: r for m, r in mine.items() if "error" not in r}
        seconds = sorted(r["seconds"] for r in done.values())
        both = [(r, rows[f"ours {m}"]) for m, r in done.items() if "error" not in rows[f"ours {m}"]]
        ratios = sorted(r["seconds"] / own["seconds"] for r, own in both)
        cpu_ratios = sorted(r["cpu_s"] / own["cpu_s"] for r, own in both)
        peaks = sorted(r["rss_over_import"] for r in done.values())
        nodes = sorted(r["nodes"] for r in done.values())
        tools[tool] = {
            "device": "cpu" if tool in ON_CPU else "meta", "models": len(models), "covered": len(done),
            "median_s": _median(seconds), "max_s": round(max(seconds, default=0), 3), "total_s": round(sum(seconds), 1),
            "times_ours": {"models": len(ratios), "median": _median(ratios), "p10": _quantile(ratios, 0.1),
                           "p90": _quantile(ratios, 0.9), "median_of_cpu_time": _median(cpu_ratios)},
            "median_cpu_s": _median(sorted(r["cpu_s"] for r in done.values())),
            "peak_rss_over_import_mb": {"median": round((_median(peaks) or 0) / 1e6, 1),
                                        "max": round(max(peaks, default=0) / 1e6, 1)},
            "median_nodes": _median(nodes),
            "not_covered": {m: r["error"] for m, r in mine.items() if "error" in r}}
        if tool == "ours":
            tools[tool]["unknown"] = {m: r["unknown"] for m, r in done.items() if r["unknown"]}
    columns = [t for t in TOOLS if t not in missing]
    lines = [" ".join([m, *(f"{rows[f'{t} {m}'].get('seconds', float('nan')):.3f}" for t in columns)]) for m in models]
    versions = {p: version(p) for p in ("torch", "timm", "torchvision", *(p for t, p in PACKAGES.items() if t not in missing))}
    return {"threads": 1, "load_average": list(os.getloadavg()), "timeout_s": TIMEOUT_S, "most_gb": MOST_BYTES / 1e9,
            "frameworks": versions, "code_versions": len({rows[f"ours {m}"]["code"] for m in models}), "tools": tools,
            "columns": " ".join(["model", *(f"{t}_s" for t in columns)]), "rows": lines}


def _median(values: list[float]) -> float | None:
    return round(statistics.median(values), 4) if values else None


def _quantile(ordered: list[float], q: float) -> float | None:
    return round(ordered[min(len(ordered) - 1, int(q * len(ordered)))], 4) if ordered else None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--limit", type=int, help="only the first models; writes no result")
    parser.add_argument("--summary", action="store_true", help="measure nothing; write the result from what is there")
    parser.add_argument("--tools", nargs="+", choices=tuple(TOOLS), help="measure only these now")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(lambda request: measure(args.serve, request["spec"]), lambda: start(args.serve), fork=args.serve not in UNFORKED)
        return
    there, missing = installed()
    workers = {t: Worker(["benchmarks/extract_speed.py", "--serve", t], timeout_s=TIMEOUT_S, most_bytes=MOST_BYTES,
                         forks=t not in UNFORKED) for t in there}
    models = MODELS[:args.limit] if args.limit else MODELS
    keys = [f"{t} {m}" for m in models for t in there]
    path = RUNS / "extract_speed.jsonl"

    def ask(key: str) -> Answer:
        tool, spec = key.split(" ")
        if tool in UNFORKED:
            workers[tool].close()
        return workers[tool].ask({"spec": spec})

    try:
        todo = [] if args.summary else [k for k in keys if not args.tools or k.split()[0] in args.tools]
        sweep(path, todo, ask, keep=True, again=stale)
    finally:
        for worker in workers.values():
            worker.__exit__()
    body = summary(measured(path), missing)
    for tool, figures in body["tools"].items():
        failed = figures.get("not_covered", {})
        print(tool, {k: v for k, v in figures.items() if k != "not_covered"}, *failed.items(), sep="\n  ")
    if not args.limit:
        print("wrote", _record.write("extract_speed", body))


def stale(row: Answer) -> bool:
    """Whether our own row was measured with other code; what the peers took does not depend on ours."""
    return bool(row["key"].startswith("ours ") and row.get("code") != code_version())


if __name__ == "__main__":
    main()
