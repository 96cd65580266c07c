"""Does any damaged file hang, crash, eat memory, run code or read another file, instead of giving a graph or a refusal?

    python benchmarks/extract_fuzz.py                     # 5,000 mutations; goes on where it stopped
    python benchmarks/extract_fuzz.py --count 20000 --seed 7
    python benchmarks/extract_fuzz.py --show onnx:control.onnx:1234     # one mutation again, with its whole message

Small sound ONNX models, frozen graphs, SavedModels and .keras archives are damaged (bytes, and protobuf messages or JSON
field by field) and extracted, each in a fork of a worker under limits of time, memory and what it may open
(``tests/extract/hostile_worker.py``). Mutation i damages model i mod (number of models) with the seed ``--seed`` + i, so every
result can be had again from its name. The hand-made cases of ``tests/extract/test_hostile.py`` are run too.
Results of single mutations stay in ``runs/extract_fuzz.jsonl``; ``benchmarks/results/extract_fuzz.json`` gets the counts.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import _record

sys.path.insert(0, str(_record.ROOT / "tests" / "extract"))
import hostile_keras_cases
import hostile_onnx
import hostile_onnx_seeds
import hostile_tensorflow
import hostile_tensorflow_cases
from hostile import GOOD, Jail
from hostile_mutations import mutate

RUNS = _record.ROOT / "runs" / "extract_fuzz.jsonl"
_PLACE = re.compile(r"\b(nodes?|initializers?|input|inputs|output|field|variable|layer|function|constant|member|opset_import|"
                    r"attribute|axes|axis|graphs?|metadata_props)\b")
_NO_FILE = re.compile("cannot be parsed|is not a |cannot be unpacked|not a readable|holds no ONNX graph")
_FAULT = re.compile("fault of the extractor")


def seeds() -> dict[str, tuple[str, bytes]]:
    """Name -> adapter and content of the sound models."""
    found = {f"{name}.onnx": ("onnx", hostile_onnx_seeds.fixed(name)) for name in hostile_onnx_seeds.SEEDS}
    if find_spec("tensorflow") is not None:
        found |= {name: ("tensorflow", make()) for name, make in hostile_tensorflow.SEEDS.items()}
    return found


def code_hash() -> str:
    """Of everything that decides the result, so that old rows are not mixed with new code."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted([*(_record.ROOT / "extract").glob("*.py"), *(_record.ROOT / "tests/extract").glob("hostile*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def write_mutation(name: str, content: bytes, seed: int, folder: Path) -> Path:
    """The damaged file, or the folder around it for a SavedModel."""
    data = mutate(content, seed, "keras" if name.endswith(".keras") else "protobuf")
    path = folder / Path(name).name
    path.write_bytes(data)
    return folder if path.name == "saved_model.pb" else path


def warm_up(adapter: str, folder: Path) -> list[Path]:
    if adapter == "onnx":
        return hostile_onnx_seeds.write_seeds(folder)
    return [p for p in hostile_tensorflow.write_seeds(folder) if p.suffix == ".pb"]


def run(count: int, first: int, keep: bool) -> list[dict[str, Any]]:
    """All rows, those of an earlier run of the same code included."""
    code, rows = code_hash(), {}
    RUNS.parent.mkdir(exist_ok=True)
    if RUNS.exists():
        for line in RUNS.read_text().splitlines():
            row = json.loads(line)
            if keep or row["code"] == code:
                rows[row["name"]] = row
    models = seeds()
    start, done = time.monotonic(), 0
    with RUNS.open("a") as log:
        for adapter in dict.fromkeys(kind for kind, _ in models.values()):
            with tempfile.TemporaryDirectory() as seed_folder, Jail(adapter, warm_up(adapter, Path(seed_folder))) as jail:
                for name, path in _todo(adapter, models, count, first, jail, rows):
                    row = {"name": name, "code": code, **asdict(jail.open(path))}
                    rows[name] = row
                    print(json.dumps(row), file=log, flush=True)
                    done += 1
                    if row["kind"] not in GOOD:
                        print(f"{name}: {row['kind']}: {row['text'][:300]}\n{row['trace'][-600:]}", flush=True)
                    if done % 250 == 0:
                        print(f"{done} done, {(time.monotonic() - start) / done * 1000:.0f} ms each", flush=True)
    wanted = set(_names(models, count, first))
    return [row for name, row in rows.items() if name in wanted or name.startswith("case:")]


def _names(models: dict[str, tuple[str, bytes]], count: int, first: int) -> Iterator[str]:
    names = list(models)
    for i in range(count):
        name = names[i % len(names)]
        yield f"{models[name][0]}:{name}:{first + i}"


def _todo(adapter: str, models: dict[str, tuple[str, bytes]], count: int, first: int, jail: Jail,
          rows: dict[str, Any]) -> Iterator[tuple[str, Path]]:
    """Hand-made cases, then mutations, that this adapter has still to open."""
    cases = hostile_onnx.CASES if adapter == "onnx" else [
        *hostile_tensorflow_cases.CASES, *hostile_keras_cases.CASES]
    for case in cases:
        name = f"case:{adapter}:{case.name}"
        if name not in rows:
            with tempfile.TemporaryDirectory() as folder:
                yield name, case.write(Path(folder), jail.secrets)
    for name in _names(models, count, first):
        kind, model, seed = name.split(":")
        if kind == adapter and name not in rows:
            with tempfile.TemporaryDirectory() as folder:
                yield name, write_mutation(model, models[model][1], int(seed), Path(folder))


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    if not rows:
        return {"files": 0}
    refused = [r for r in rows if r["kind"] == "refused"]
    slowest, largest = max(rows, key=lambda r: r["seconds"]), max(rows, key=lambda r: r["rss_mb"])
    return {"files": len(rows), "kinds": dict(Counter(r["kind"] for r in rows).most_common()),
            "refusals": dict(Counter(_says(r["text"]) for r in refused).most_common()),
            "slowest": {"name": slowest["name"], "seconds": slowest["seconds"]},
            "largest": {"name": largest["name"], "mb_beyond_import": largest["rss_mb"]},
            "median_seconds": sorted(r["seconds"] for r in rows)[len(rows) // 2]}


def _says(text: str) -> str:
    """What a refusal says."""
    if _FAULT.search(text):
        return "fault of the extractor"
    if _NO_FILE.search(text):
        return "the file cannot be parsed"
    return "names the place" if _PLACE.search(text) else "names the file only"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=5000, help="mutations")
    parser.add_argument("--seed", type=int, default=0, help="of the first mutation")
    parser.add_argument("--keep", action="store_true", help="keep rows of other code too")
    parser.add_argument("--show", metavar="NAME", help="one mutation again; writes no result")
    args = parser.parse_args()
    if args.show:
        kind, model, seed = args.show.split(":")
        with tempfile.TemporaryDirectory() as folder, Jail(kind) as jail:
            print(jail.open(write_mutation(model, seeds()[model][1], int(seed), Path(folder))))
        return
    rows = run(args.count, args.seed, args.keep)
    mutations = [r for r in rows if not r["name"].startswith("case:")]
    by_model = {m: [r for r in mutations if r["name"].split(":")[1] == m] for m in seeds()}
    body = {"config": {"count": args.count, "seed": args.seed, "limit_seconds": 10, "limit_mb_beyond_import": 2048},
            "mutations": summary(mutations), "cases": summary([r for r in rows if r["name"].startswith("case:")]),
            "by_model": {m: dict(Counter(r["kind"] for r in found)) for m, found in by_model.items()},
            "offenders": [{k: r[k] for k in ("name", "kind", "text")} for r in rows if r["kind"] not in GOOD]}
    path = _record.write("extract_fuzz", body)
    print(json.dumps({k: body[k] for k in ("mutations", "cases", "by_model")}, indent=1))
    print(f"{len(body['offenders'])} offenders; wrote {path}")


if __name__ == "__main__":
    main()
