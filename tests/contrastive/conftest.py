"""Small networks of two families, quick to build, different in operators, sizes, depth and wiring."""

from __future__ import annotations

import numpy as np
import pytest

from cg import Graph, GraphBuilder


@pytest.fixture(scope="session")
def small_graphs() -> list[Graph]:
    """24 networks of families "a" and "b"."""
    rng = np.random.default_rng(7)
    out = []
    for i in range(24):
        b = GraphBuilder(name=f"small{i}", family="ab"[i % 2])
        x = b.conv2d(b.input((1, 3, 16, 16)), 8, kernel=3)
        for _ in range(rng.integers(1, 5)):
            y = b.relu(b.batch_norm(b.conv2d(x, 8, kernel=int(rng.choice([1, 3, 5])))))
            x = b.add(x, y) if rng.random() < 0.5 else b.repeat(b.relu, y, int(rng.integers(1, 4)))
        out.append(b.build(b.linear(b.global_avg_pool(x), 10)))
    return out
