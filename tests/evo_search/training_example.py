"""Small networks and separable images for the tests of TrainingOracle, and a program that trains one in a process of its own.

Not a test itself.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evo_search.training import TrainingOracle

SETTINGS: dict[str, Any] = {"epochs": 5, "batch": 16, "lr": 0.05, "threads": 1}


def images(n: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Four classes, told apart by the bright quarter of the image and its colour: uint8 ``[n, 16, 16, 3]``, labels ``[n]``."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 4
    x = rng.integers(0, 120, (n, 16, 16, 3))
    for i, c in enumerate(y):
        x[i, 8 * (c // 2):8 * (c // 2) + 8, :, c % 2] += 120
    return x.astype(np.uint8), y


class Small(nn.Module):
    """[B, 3, 16, 16] -> logits [B, 4], with dropout; ``genome`` is the width, or names a way to fail."""

    def __init__(self, genome: Any) -> None:
        super().__init__()
        if "PID_FILE" in os.environ:
            with open(os.environ["PID_FILE"], "w") as file:
                file.write(f"{os.getpid()}\n")
        self.genome = genome
        width = genome if isinstance(genome, int) else 8
        self.body = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(4),
                                  nn.Flatten(), nn.Dropout(0.2), nn.Linear(width * 16, 4))
        self.unused = nn.Linear(3, 3)
        self.steps = 0

    def forward(self, x: Tensor) -> Any:
        self.steps += self.training
        if self.genome == "slow":
            time.sleep(1)
        if self.genome == "raises" and self.steps > 3:
            raise RuntimeError("out of memory, says the test")
        out = self.body(x)
        if self.genome == "nan" and self.steps > 12:
            return out * float("nan")
        if self.genome == "image":
            return x
        if self.genome == "exits" and self.steps > 3:
            os._exit(7)
        return (out, out) if self.genome == "two" else out


class Dying(Small):
    """Kills its process with SIGKILL in training step ``DIE_AT`` of the environment."""

    def forward(self, x: Tensor) -> Any:
        if self.training and self.steps + 1 == int(os.environ.get("DIE_AT", "0")):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)


class Pairs(torch.utils.data.Dataset[Any]):
    """A Dataset whose random transforms use torch's, numpy's and Python's generators."""

    def __init__(self, seed: int) -> None:
        x, self.y = images(96, seed)
        self.x = torch.from_numpy(x.transpose(0, 3, 1, 2) / 255.0).float()

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        noise = 0.01 * torch.randn(1) + 0.01 * np.random.random() + 0.01 * random.random()  # noqa: NPY002
        return self.x[i] + noise, int(self.y[i])


def main(folder: str, apart: str, genome: str = "6") -> None:
    """Train one network and print its values as JSON."""
    oracle = TrainingOracle(images(), Dying, folder=folder, own_process=apart == "apart", **SETTINGS)
    print(json.dumps(oracle(int(genome) if genome.isdigit() else genome)))


if __name__ == "__main__":
    main(*sys.argv[1:])
