"""``RandomSearch``: random networks of the space, each once; the baseline of every search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evo_search._evolve_config import positive_integers
from evo_search.strategies._base import Proposal, State, Strategy, proposals


@dataclass(frozen=True)
class RandomConfig:
    """Settings of ``RandomSearch``.

    Attributes:
        batch_size: networks of one generation; no more workers than this can be busy.
    """

    batch_size: int = 20

    def __post_init__(self) -> None:
        positive_integers(self, "batch_size")


class RandomSearch(Strategy):
    """Asks about random networks, distributed as ``space.sample`` says."""

    name: ClassVar[str] = "random"

    def __init__(self, settings: RandomConfig | None = None) -> None:
        self.settings = settings or RandomConfig()

    def propose(self, state: State, rng: np.random.Generator) -> list[Proposal]:
        found = state.maker.random(self.settings.batch_size, set(state.taken), rng)
        return proposals(found, "random")
