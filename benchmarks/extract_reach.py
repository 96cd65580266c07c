"""How much of each collection of models becomes a graph, how fast, and what is not perfect about it.

    python benchmarks/extract_reach.py                                  # all sets; an hour on one core
    python benchmarks/extract_reach.py --sets timm --again              # only models that were not perfect before
    python benchmarks/extract_reach.py --sets timm --models resnet50 vit_base_patch16_224    # prints, writes no result

Sets: ``timm``, ``torchvision``, ``transformers``, ``keras`` (applications), ``onnx`` (backend test data that are networks or
layers, and exports), ``onnx_node`` (backend tests of single operators, for the record), ``round_trip`` (timm's graphs
through ``to_torch`` and back, and one step forward and backward: with weights up to 50 M parameters and 5 G multiply-adds,
on the meta device beyond), ``largest`` (memory; timm models of more than a billion parameters, each in a fresh process).

Each set runs in one worker process with one thread; the clock is around building and extracting. A model that hangs,
crashes or grows costs one entry and a new worker. Rows are kept in ``runs/extract_reach-<set>.jsonl``: a killed run goes on
where it stopped, and measures again what was measured with other code (``--keep``: not). Writes
``benchmarks/results/extract_reach-<set>.json``.

Parameters are compared with the framework's own count; where a network has parameters that no output depends on (auxiliary
heads), with the count of those in the graph of PyTorch's backward pass, and the model is listed.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections import Counter
from importlib.metadata import version
from typing import Any

import _record
from _reach_base import params_used_with_values, torch_start
from _reach_onnx import export, export_path
from _reach_sets import SETS, transformers_start
from _workers import RUNS, Answer, Worker, peak_rss, rss, serve, sweep

DEFAULT = ("timm", "torchvision", "transformers", "keras", "onnx", "largest", "round_trip")
MOST_BYTES = 8_000_000_000


def perfect(row: Answer) -> bool:
    return not faults(row)


def faults(row: Answer) -> Answer:
    """What is not as it should be, empty if nothing."""
    out: Answer = {}
    if row.get("error"):
        return {"error": row["error"]}
    if row["unknown"]:
        out["unknown"] = row["unknown"]
    if row.get("came_back", True) is not True:
        out["came_back"] = row["came_back"]
    if row.get("ran", True) is not True:
        out |= {"ran_on": row["ran_on"], "ran": row["ran"]}
    if not same_params(row):
        out |= {k: row[k] for k in ("params", "params_framework", "params_used", "params_used_error") if k in row}
    return out


def same_params(row: Answer) -> bool:
    """Whether the graph counts what the framework counts, or has no count to be compared with."""
    return row["params"] in (row.get("params_framework", row["params"]), row.get("params_used"))


def totals(rows: list[Answer]) -> Answer:
    """The figures of a set or of a group of it."""
    n, found = len(rows), [r for r in rows if not r.get("error")]
    compared = [r for r in found if "params_framework" in r]
    out: Answer = {"models": n, "extracted": len(found), "extracted_percent": percent(len(found), n)}
    clean = sum(not r["unknown"] for r in found)
    out |= {"without_unknown": clean, "without_unknown_percent": percent(clean, n)}
    if compared:
        equal = sum(map(same_params, compared))
        out |= {"params_compared": len(compared), "params_equal": equal, "params_equal_percent": percent(equal, len(compared)),
                "with_unused_params": sum(same_params(r) and r["params"] != r["params_framework"] for r in compared)}
    tried = [r for r in found if "ran" in r]
    if tried:
        out |= {"round_trips": len(tried), "equal": sum(r["came_back"] is True for r in tried),
                "ran": sum(r["ran"] is True for r in tried), "ran_with_weights": sum(r["ran_on"] == "cpu" for r in tried)}
    if found:
        out["seconds"] = spread([r["seconds"] for r in found])
        if all("build_s" in r for r in found):
            out["extract_seconds"] = spread([r["seconds"] - r["build_s"] for r in found])
        if all("cpu_s" in r for r in found):
            out["cpu_seconds"] = spread([r["cpu_s"] for r in found])  # of both, where the machine was busy
        out["nodes"] = spread([r["nodes"] for r in found])
    return out


def percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 2) if whole else 0.0


def spread(values: list[float]) -> Answer:
    """Median, 95th percentile (nearest rank) and maximum."""
    ordered = sorted(values)
    return {"median": round(statistics.median(ordered), 4), "p95": round(ordered[-(-len(ordered) * 95 // 100) - 1], 4),
            "max": round(ordered[-1], 4)}


def summary(name: str, rows: dict[str, Answer]) -> Answer:
    """What is committed of a set."""
    all_rows = list(rows.values())
    out: Answer = {"set": name, "threads": 1, "load_average": list(os.getloadavg()),
                 "frameworks": {p: version(p) for p in SETS[name].packages},
                   "code_versions": len({r["code"] for r in all_rows}), "totals": totals(all_rows)}
    if "group" in all_rows[0]:
        groups = sorted({r["group"] for r in all_rows if "group" in r})
        out["groups"] = {g: totals([r for r in all_rows if r.get("group") == g]) for g in groups}
    found = {k: r for k, r in rows.items() if not r.get("error")}
    out["peak_rss_over_import_gb"] = round(max((r["rss_over_import"] for r in found.values()), default=0) / 1e9, 3)
    out["ways"] = dict(Counter(r["way"] for r in found.values()).most_common())
    unknown: Counter[str] = Counter(op for r in found.values() for op in r["unknown"])
    out["unknown_operators"] = dict(unknown.most_common())  # operator -> number of models
    out["not_perfect"] = [{"name": short(k), **faults(r)} for k, r in rows.items() if not perfect(r)]
    out["unused_params"] = [f"{short(k)} {r['params']} of {r['params_framework']}" for k, r in found.items()
                            if same_params(r) and r["params"] != r.get("params_framework", r["params"])]
    out["columns"] = "name nodes macs params seconds"
    out["rows"] = [f"{short(k)} {r['nodes']} {r['macs']} {r['params']} {r['seconds']:.3f}" for k, r in found.items()]
    if SETS[name].fresh:
        out["rss_over_import_gb"] = {short(k): round(r["rss_over_import"] / 1e9, 3) for k, r in found.items()}
    return out


def short(key: str) -> str:
    """The key without the name of its set."""
    prefix, _, rest = key.partition(":")
    return rest if rest and "/" not in prefix else key


def run_set(name: str, args: argparse.Namespace) -> None:
    try:
        keys = SETS[name].names()
    except ImportError as error:
        print(f"{name}: skipped, {error}")
        return
    if args.models:
        keys = [k for k in keys if k in args.models or short(k) in args.models]
    keys = keys[:: max(1, len(keys) // args.limit)][:args.limit] if args.limit else keys
    spec = SETS[name]
    script = "benchmarks/extract_reach.py"
    with Worker([script, "--serve", name], timeout_s=spec.timeout_s, most_bytes=MOST_BYTES) as worker, \
            Worker([script, "--serve", "export"], timeout_s=600, most_bytes=MOST_BYTES) as exporter, \
            Worker([script, "--serve", "params"], timeout_s=300, most_bytes=MOST_BYTES) as counter:

        def measure(key: str) -> Answer:
            if key.startswith(("legacy/", "dynamo/")) and not export_path(key).exists():
                said = exporter.ask({"key": key})
                if "error" in said:
                    return {"error": f"not exported: {said['error']}", "seconds": 0.0, "group": key.partition("/")[0],
                            "code": said["code"]}
            if spec.fresh:
                worker.close()
            answer = worker.ask({"key": key})
            if "params_used_error" in answer:  # it reads values; count again with weights
                counted = counter.ask({"key": key})
                counter.close()  # its memory is wanted elsewhere
                if "error" in counted:
                    answer["params_used_error"] = counted["error"]
                else:
                    answer["params_used"] = counted["params_used"]
            return answer

        rows = sweep(RUNS / f"extract_reach-{name}.jsonl", keys, measure, keep=args.keep,
                     again=(lambda row: not perfect(row)) if args.again else lambda row: False)
    body = summary(name, rows)
    for k in ("totals", "groups", "ways", "unknown_operators", "peak_rss_over_import_gb", "not_perfect"):
        print(k, body.get(k))
    if not (args.models or args.limit):
        print("wrote", _record.write(f"extract_reach-{name}", body))


def handler(name: str) -> Any:
    """What a worker does for one model, and what it does first."""
    helpers = {"export": (export, torch_start), "params": (params_used_with_values, transformers_start)}
    measure, prepare = helpers[name] if name in helpers else (SETS[name].measure, SETS[name].start)
    base = 0

    def handle(request: Answer) -> Answer:
        return {**measure(request["key"]), "rss_over_import": peak_rss() - base}

    def start() -> Answer:
        nonlocal base
        prepare()
        base = rss()
        return {}

    return handle, start


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=tuple(SETS), default=DEFAULT)
    parser.add_argument("--models", nargs="+", help="only these, by name; writes no result")
    parser.add_argument("--limit", type=int, help="only so many of each set, evenly spaced; writes no result")
    parser.add_argument("--keep", action="store_true", help="keep rows that were measured with other code")
    parser.add_argument("--again", action="store_true", help="measure again what was not perfect")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        handle, start = handler(args.serve)
        serve(handle, start)
        return
    for name in args.sets:
        run_set(name, args)


if __name__ == "__main__":
    main()
