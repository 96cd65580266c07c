"""The one training loop of the rival networks: mini-batches, Adam, cosine schedule, seeded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from cg.errors import CGError

_CHUNK = 512


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random weights and dropout inside come from ``seed``; the generator outside is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def train(net: nn.Module, n: int, loss: Callable[[np.ndarray], Tensor], *, epochs: int, batch: int, learning_rate: float,
          weight_decay: float = 0.0, seed: int = 0, decoupled: bool = False, clip: float | None = None) -> list[float]:
    """Minimise ``loss(rows)`` over mini-batches of ``range(n)``; the learning rate falls to 0 along half a cosine.

    Returns the mean loss of every epoch. ``decoupled`` is AdamW. Raises ``CGError`` if the loss stops being finite.
    """
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    optimizer = kind(net.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True)
    steps = -(-n // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, epochs * steps))
    rng, history = np.random.default_rng(seed), []
    net.train()
    for epoch in range(epochs):
        order, total = rng.permutation(n), 0.0
        for rows in np.array_split(order, steps):
            optimizer.zero_grad(set_to_none=True)
            value = loss(rows)
            value.backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(net.parameters(), clip)
            optimizer.step()
            schedule.step()
            total += float(value.detach()) * len(rows)
        if not np.isfinite(total):
            raise CGError(f"training diverged in epoch {epoch}; use a smaller learning rate")
        history.append(total / n)
    net.eval()
    return history


class Dropout(nn.Module):
    """As ``nn.Dropout``, in half to a quarter of its time on one core, from few random numbers.

    A Poisson count of hits that fall anywhere misses each entry, independently of the others, with chance ``1 - share`` if the
    mean count is ``-n log(1 - share)``.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        if not 0 <= share < 1:
            raise CGError(f"dropout must be a share from 0 to below 1, got {share}")
        self.share = share

    def forward(self, values: Tensor) -> Tensor:
        if not self.training or not self.share:
            return values
        n = values.numel()
        hits = int(torch.poisson(torch.tensor(-n * math.log1p(-self.share))))
        kept = values.new_full((n,), 1 / (1 - self.share)).index_fill_(0, torch.randint(n, (hits,)), 0.0)
        return values * kept.view_as(values)


def predict(net: Callable[[Sequence[object]], Tensor], items: Sequence[object]) -> np.ndarray:
    """``net`` over ``items`` in chunks, without gradients: float64, first axis as long as ``items``."""
    with torch.no_grad():
        parts = [net(items[i:i + _CHUNK]).double().numpy() for i in range(0, len(items), _CHUNK)]
    return np.concatenate(parts) if parts else np.zeros(0)
