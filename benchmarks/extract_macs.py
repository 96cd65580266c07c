"""Multiply-adds of our graphs beside ``torch.utils.flop_counter``, on the 120 models of ``_sample.py``.

    python benchmarks/extract_macs.py                     # minutes on one core; a killed run goes on where it stopped
    python benchmarks/extract_macs.py --models timm:resnet50

Both count convolutions and matrix products, so only those are compared, in two groups: ``conv`` (Conv, ConvTranspose,
DeformConv) and ``product`` (Gemm, MatMul, Einsum, recurrent layers). PyTorch's counter runs the module on meta tensors and
counts two operations a multiply-add; its total is halved. A second dispatch mode underneath follows which tensors depend on
the input, by storage: what the counter adds for products of constants alone (position tables made by a small network) is
work that a graph of the inference does not hold, and is listed as ``constant``.

A gap of more than 0.5 % comes with both groups and the counter's operators, and the reason that follows from them.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from collections import Counter
from importlib.metadata import version
from typing import Any

import _record
from _sample import MODELS, on_meta
from _workers import RUNS, Answer, Worker, serve, sweep

GAP_PERCENT = 0.5
CONV = ("Conv", "ConvTranspose", "DeformConv")
PRODUCT = ("Gemm", "MatMul", "Einsum", "LSTM", "GRU", "RNN")


def measure(spec: str) -> Answer:
    """Both counts of one model, by group and operator."""
    from cg.costs import node_macs
    from extract import from_torch

    module, args = on_meta(spec)
    module.requires_grad_(False)  # the counter's hooks for the backward pass stumble over some modules
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = from_torch(module, list(args))
        theirs, constant = counted(module, args)
    macs: Counter[str] = Counter()
    for node in found.graph.nodes:
        macs[node.op] += node_macs(node)
    ops = {op: n for op, n in macs.items() if n}
    return {"ours": sum(ops.values()), "ours_by_operator": ops, "torch_by_operator": theirs, "torch": sum(theirs.values()),
            "constant_by_operator": constant, "unknown": dict(found.unknown), "seconds": 0.0}


def counted(module: Any, args: tuple[Any, ...]) -> tuple[dict[str, int], dict[str, int]]:
    """Multiply-adds by ATen operator as ``FlopCounterMode`` counts them, and the part of it that depends on no input."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves
    from torch.utils.flop_counter import FlopCounterMode, flop_registry

    live: set[int] = {t.untyped_storage()._cdata for t in args}
    keep: list[Any] = list(args)
    total: Counter[str] = Counter()
    constant: Counter[str] = Counter()

    class Follow(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            tensors = [t for t in tree_leaves((args, kwargs or {})) if isinstance(t, torch.Tensor)]
            results = [t for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
            keep.extend(results)  # a storage that is freed could come back under the same number
            depends = any(t.untyped_storage()._cdata in live for t in tensors)
            if depends:
                live.update(t.untyped_storage()._cdata for t in results)
                written = func._schema.is_mutable and tensors
                live.update([tensors[0].untyped_storage()._cdata] if written else [])
            packet = func._overloadpacket
            if packet in flop_registry:
                flops = flop_registry[packet](*args, **(kwargs or {}), out_val=out)
                total[str(packet).removeprefix("aten.")] += flops
                if not depends:
                    constant[str(packet).removeprefix("aten.")] += flops
            return out

    # the counter is entered last and so sees operators first: it splits composite ones, and what is left arrives below
    with torch.no_grad(), Follow(), FlopCounterMode(display=False) as counter:
        module(*args)
    official = {str(op).removeprefix("aten."): n for op, n in counter.get_flop_counts()["Global"].items()}
    if official != dict(total):
        raise ValueError(f"the counter says {official}, its formulas give {dict(total)}")
    return {op: n // 2 for op, n in official.items()}, {op: n // 2 for op, n in constant.items()}


def gap_percent(row: Answer) -> float:
    """By how much our count is above (or below) the counter's without constant products."""
    wanted = row["torch"] - sum(row["constant_by_operator"].values())
    return 100 * (row["ours"] - wanted) / wanted if wanted else 0.0


def raw_gap_percent(row: Answer) -> float:
    return 100 * (row["ours"] - row["torch"]) / row["torch"] if row["torch"] else 0.0


def groups(row: Answer) -> dict[str, tuple[int, int]]:
    """Group -> (ours, the counter's), in multiply-adds; constant products left out."""
    theirs = Counter(row["torch_by_operator"])
    theirs.subtract(row["constant_by_operator"])
    conv = sum(n for op, n in theirs.items() if "conv" in op)
    return {"conv": (sum(row["ours_by_operator"].get(op, 0) for op in CONV), conv),
            "product": (sum(row["ours_by_operator"].get(op, 0) for op in PRODUCT), sum(theirs.values()) - conv)}


def reason(row: Answer) -> str:
    """What the operators say about a gap."""
    parts = []
    if sum(row["constant_by_operator"].values()):
        named = ", ".join(f"{op} {n:,}" for op, n in row["constant_by_operator"].items())
        parts.append(f"torch counts products that depend on no input ({named})")
    for name, (ours, theirs) in groups(row).items():
        if abs(ours - theirs) > GAP_PERCENT / 100 * max(row["torch"], 1):
            parts.append(f"{name}: ours {ours:,}, torch {theirs:,}")
    if row["unknown"]:
        parts.append(f"Unknown nodes: {', '.join(row['unknown'])}")
    return "; ".join(parts)


def summary(rows: dict[str, Answer]) -> Answer:
    """What is committed."""
    done = {k: r for k, r in rows.items() if "error" not in r}
    raw = {k: raw_gap_percent(r) for k, r in done.items()}
    gaps = {k: gap_percent(r) for k, r in done.items()}
    listed = [{"model": k, "ours": r["ours"], "torch": r["torch"], "gap_percent": round(raw[k], 3),
               "gap_percent_without_constants": round(gaps[k], 3), "reason": reason(r),
               "ours_by_operator": r["ours_by_operator"], "torch_by_operator": r["torch_by_operator"]}
              for k, r in done.items() if abs(raw[k]) > GAP_PERCENT]
    return {"frameworks": {p: version(p) for p in ("torch", "timm", "torchvision")},
            "code_versions": len({r["code"] for r in rows.values()}),
            "totals": {"models": len(rows), "compared": len(done),
                       "exactly_equal": sum(r["ours"] == r["torch"] for r in done.values()),
                       "within_half_a_percent": sum(abs(g) <= GAP_PERCENT for g in raw.values()),
                       "within_half_a_percent_without_constants": sum(abs(g) <= GAP_PERCENT for g in gaps.values()),
                       "median_gap_percent": round(statistics.median(map(abs, raw.values())), 4) if raw else None,
                       "largest_gap_percent": round(max(map(abs, raw.values()), default=0), 3)},
            "gaps": listed,
            "smaller_gaps": [f"{k} {raw[k]:.3f} %: {reason(r)}" for k, r in done.items() if 0 < abs(raw[k]) <= GAP_PERCENT],
            "not_compared": {k: r["error"] for k, r in rows.items() if "error" in r},
            "columns": "model ours torch constant",
            "rows": [f"{k} {r['ours']} {r['torch']} {sum(r['constant_by_operator'].values())}" for k, r in done.items()]}


def start() -> Answer:
    import torch

    from extract import from_torch

    torch.set_num_threads(1)
    from_torch(torch.nn.Linear(2, 2), (1, 2))
    return {}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", help="only these; writes no result")
    parser.add_argument("--limit", type=int, help="only the first models; writes no result")
    parser.add_argument("--keep", action="store_true", help="keep rows that were measured with other code")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(lambda request: measure(request["spec"]), start)
        return
    models = args.models or MODELS[:args.limit]
    with Worker(["benchmarks/extract_macs.py", "--serve"], timeout_s=300, most_bytes=6_000_000_000) as worker:
        rows = sweep(RUNS / "extract_macs.jsonl", models, lambda spec: worker.ask({"spec": spec}), keep=args.keep)
    body = summary(rows)
    for k in ("totals", "gaps", "not_compared"):
        print(k, body[k])
    if not (args.models or args.limit):
        print("wrote", _record.write("extract_macs", body))


if __name__ == "__main__":
    main()
