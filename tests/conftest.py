"""Shared by all tests: one thread everywhere (results to the bit, and machines with few cores), public data, sample graphs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by OpenMP, MKL, torch and faiss when they are imported

import numpy as np
import pytest

from cg import Graph

SHARED = Path(os.environ.get("CGTRANSFER_SHARED", Path(__file__).parents[2] / "shared"))


def pytest_runtest_setup() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "set_num_threads"):
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of the public files that are too large for the repository; the test is skipped where it is missing."""
    if not SHARED.is_dir():
        pytest.skip(f"no public data at {SHARED}; set CGTRANSFER_SHARED to their folder")
    return SHARED


@pytest.fixture(scope="session")
def nas_graphs() -> list[Graph]:
    """15 random networks from each of the three benchmark spaces, always the same."""
    from evo_search import get_space

    rng = np.random.default_rng(20)
    spaces = [get_space(s) for s in ("nasbench101", "nasbench201", "nasbench301")]
    return [space.to_graph(space.sample(rng)) for space in spaces for _ in range(15)]
