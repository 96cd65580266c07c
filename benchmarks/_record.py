"""What every committed result carries: commit, host, versions, seed; and one place that writes it."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cg.files import write_json

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads slow each other down on a shared machine
ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
_PACKAGES = ("cgtransfer", "numpy", "scipy", "torch", "torch-geometric", "scikit-learn", "numba", "faiss-cpu")


def write(name: str, body: dict[str, Any]) -> Path:
    """``benchmarks/results/<name>.json`` with the record of this run beside ``body``."""
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    dirty = subprocess.run(["git", "-C", ROOT, "status", "--porcelain", "--", "cg", "extract", "contrastive", "finetune",
                            "evo_search"], capture_output=True, text=True, check=False)
    record = {"commit": commit.stdout.strip() or "unknown", "uncommitted_changes": bool(dirty.stdout.strip()),
              "host": {"machine": platform.machine(), "cores": os.cpu_count(), "system": platform.system()},
              "python": platform.python_version(), "versions": {p: version(p) for p in _PACKAGES}}
    path = RESULTS / f"{name}.json"
    write_json(path, {"record": record, **body})
    return path
