"""A search space of 625 genomes (375 networks) with a known optimum, and a program that runs and kills a search on it.

Used by the tests of the search; not a test itself.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import numpy as np

from cg import Graph, GraphBuilder
from evo_search.algorithm1 import EvolveConfig, evolve, random_search

Genome = tuple[int, int, int, int]
BEST: Genome = (3, 3, 3, 1)
N_NETWORKS = 375  # 15 unordered pairs of branches x 5 x 5
CONFIG = EvolveConfig(n_initial=6, batch_size=4, n_parents=5, pool_size=30, rounds=2, kappa=0.3, explore_rate=0.25)


def value(a: Genome) -> float:
    """Largest, 0, at ``BEST`` alone; equal for the two orders of the branches."""
    return -(a[0] + a[1] - 6.0) ** 2 - 0.1 * (a[0] - a[1]) ** 2 - (a[2] - 3.0) ** 2 - 0.5 * (a[3] - 1.0) ** 2


class ToySpace:
    """Two parallel convolutions (genes 0 and 1, interchangeable), one after them (gene 2), and 0 to 4 ReLUs (gene 3)."""

    name = family = "toy"

    def __init__(self) -> None:
        self.built: list[Genome] = []

    def sample(self, rng: np.random.Generator) -> Genome:
        return tuple(int(v) for v in rng.integers(5, size=4))  # type: ignore[return-value]

    def mutate(self, a: Genome, rng: np.random.Generator) -> Genome:
        i = int(rng.integers(4))
        return (*a[:i], (a[i] + int(rng.integers(1, 5))) % 5, *a[i + 1:])  # type: ignore[return-value]

    def crossover(self, a: Genome, b: Genome, rng: np.random.Generator) -> Genome:
        return tuple(x if p else y for x, y, p in zip(a, b, rng.random(4) < 0.5, strict=True))  # type: ignore[return-value]

    def is_valid(self, a: Genome) -> bool:
        return len(a) == 4 and all(0 <= v < 5 for v in a)

    def encode(self, a: Genome) -> str:
        return "-".join(map(str, a))

    def decode(self, text: str) -> Genome:
        return tuple(map(int, text.split("-")))  # type: ignore[return-value]

    def to_graph(self, a: Genome) -> Graph:
        self.built.append(a)
        b = GraphBuilder(name=self.encode(a), family="toy")
        x = b.conv2d(b.input((1, 3, 16, 16)), 8, kernel=3)
        x = b.add(b.conv2d(x, 8, kernel=2 * a[0] + 1), b.conv2d(x, 8, kernel=2 * a[1] + 1))
        x = b.conv2d(x, 8, kernel=2 * a[2] + 1)
        for _ in range(a[3]):
            x = b.relu(x)
        return b.build(b.linear(b.global_avg_pool(x), 10))


def genes(graphs: list[Graph]) -> np.ndarray:
    """Numbers that tell the networks apart, float64 ``[n, 9]``; blind to the order of the branches."""
    g = np.array([[int(v) for v in graph.name.split("-")] for graph in graphs], np.float64)
    x = np.stack([g[:, 0] + g[:, 1], (g[:, 0] - g[:, 1]) ** 2, g[:, 2], g[:, 3]], 1)
    return np.concatenate([np.ones((len(g), 1)), x, x ** 2], 1)


class RidgePredictor:
    """Ridge regression on ``genes``: what it learns depends on everything it is given."""

    def __init__(self, alpha: float = 1e-3, die_at_fit: int = 0) -> None:
        self.alpha, self._die_at_fit, self.fitted_on = alpha, die_at_fit, []

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return {"alpha": self.alpha}

    def fit(self, graphs: list[Graph], y: np.ndarray) -> RidgePredictor:
        self.fitted_on.append(len(y))
        if len(self.fitted_on) == self._die_at_fit:
            os.kill(os.getpid(), signal.SIGKILL)
        x = genes(graphs)
        self._w = np.linalg.solve(x.T @ x + self.alpha * np.eye(x.shape[1]), x.T @ y)
        return self

    def predict(self, graphs: list[Graph], return_std: bool = False) -> Any:
        mean = genes(graphs) @ self._w
        return (mean, np.abs(np.sin(mean))) if return_std else mean


class PerfectPredictor:
    """Knows the oracle."""

    def fit(self, graphs: list[Graph], y: np.ndarray) -> None:
        pass

    def predict(self, graphs: list[Graph]) -> np.ndarray:
        return np.array([value(ToySpace().decode(g.name)) for g in graphs])


class MortalOracle:
    """The values, some of them failing; kills its own process with SIGKILL in the middle of call ``die_at``."""

    def __init__(self, die_at: int = 0) -> None:
        self.die_at, self.calls = die_at, []

    def __call__(self, genome: Genome) -> float:
        self.calls.append(genome)
        if len(self.calls) == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if sum(genome) % 7 == 0:
            raise RuntimeError("out of memory")
        return value(genome)

    def describe(self) -> dict[str, Any]:
        return {"kind": "toy"}


def main(path: str, method: str, budget: str, die_at_call: str = "0", die_at_fit: str = "0") -> None:
    """Run one search into ``path``; die where told."""
    oracle = MortalOracle(int(die_at_call))
    if method == "random":
        random_search(ToySpace(), oracle, int(budget), seed=3, history=path)
    else:
        evolve(ToySpace(), oracle, RidgePredictor(die_at_fit=int(die_at_fit)), budget=int(budget), seed=3,
               history=path, config=CONFIG)


if __name__ == "__main__":
    main(*sys.argv[1:])
