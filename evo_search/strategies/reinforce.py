"""``Reinforce``: a policy writes networks choice by choice and is taught by the policy gradient.

Source: Zoph, Le, arXiv 1611.01578, section 3: an LSTM controller, REINFORCE with an exponential moving average of earlier
rewards as baseline (section 3.2). The public program of NAS-Bench-101 (arXiv 1902.09635) uses one categorical distribution for
each choice instead: ``controller="softmax"``. The entropy bonus is that of later controllers (Pham et al., arXiv 1802.03268).
Ours: rewards are divided by their moving deviation, so that units do not matter; and a network that was asked about is not
asked about again, so where a policy always writes the same, the batch is filled at random.

Needs a space with ``choices`` and torch. The policy is computed again from the record: one step of Adam for each generation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from cg.errors import CGError
from evo_search._candidates import TRIES_PER_CANDIDATE
from evo_search._evolve_config import SearchError, positive_integers
from evo_search._records import Query
from evo_search.strategies._base import Proposal, State, Strategy, one_objective, proposals

if TYPE_CHECKING:
    from evo_search.strategies._controllers import Learner

CONTROLLERS = ("lstm", "softmax")
CLIP = 3.0  # deviations from the baseline that count


@dataclass(frozen=True)
class ReinforceConfig:
    """Settings of ``Reinforce``.

    Attributes:
        controller: ``"lstm"``, or ``"softmax"``: one distribution for each choice, which knows nothing of the others.
        batch_size: networks of one generation, which is one step of the policy.
        hidden: width of the LSTM.
        learning_rate: of Adam; by default 0.01 for the LSTM, 0.2 for the distributions.
        entropy_weight: of the policy's entropy, nats for each choice, beside advantages in deviations.
        momentum: of the moving averages.
        seed: of the policy's first weights.
    """

    controller: str = "lstm"
    batch_size: int = 10
    hidden: int = 64
    learning_rate: float | None = None
    entropy_weight: float = 0.02
    momentum: float = 0.9
    seed: int = 0

    def __post_init__(self) -> None:
        if self.controller not in CONTROLLERS:
            raise SearchError(f"ReinforceConfig.controller must be one of {', '.join(CONTROLLERS)}, got {self.controller!r}")
        positive_integers(self, "batch_size", "hidden")
        for name, top in (("learning_rate", np.inf), ("entropy_weight", np.inf), ("momentum", 1.0)):
            value = getattr(self, name)
            if value is None and name == "learning_rate":
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < top:
                raise SearchError(f"ReinforceConfig.{name} must be at least 0" + (" and below 1" if top == 1 else ", finite")
                                  + f", got {value!r}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise SearchError(f"ReinforceConfig.seed must be an integer, got {self.seed!r}")


class Reinforce(Strategy):
    """Policy gradient on the choices of a space."""

    name: ClassVar[str] = "reinforce"

    def __init__(self, settings: ReinforceConfig | None = None) -> None:
        self.settings: ReinforceConfig = settings or ReinforceConfig()
        self._learner: Learner | None = None  # after the generations in _taught; spares their replay, decides nothing
        self._taught: tuple[Any, ...] = ()

    def propose(self, state: State, rng: np.random.Generator) -> list[Proposal]:
        c, taken = self.settings, set(state.taken)
        one_objective(state, self.name)
        policy = self._replay(state)
        found: dict[str, Any] = {}
        for _ in range(TRIES_PER_CANDIDATE):
            missing = c.batch_size - len(found)
            if not missing:
                break
            for options in policy.sample(missing, rng):
                genome = state.space.from_choices(options)
                if state.is_new(genome):
                    found.setdefault(state.key(genome), genome)
        taken |= found.keys()
        rest = state.maker.random(c.batch_size - len(found), taken, rng)
        return proposals(found, "policy") + proposals(rest, "random")

    def _replay(self, state: State) -> Learner:
        """The policy after all answers; it learns from networks that it wrote itself."""
        from evo_search.strategies._controllers import Learner

        if not hasattr(state.space, "choices"):
            raise CGError(f"{state.space.name} has no choices, which reinforce writes; see SearchSpace.choices")
        options = tuple(state.space.choices())
        wrote = [(q, state.violation(q)) for q in state.ok if q.source == "policy"]
        generations = [list(rows) for _, rows in groupby(wrote, key=lambda row: row[0].generation)]
        maximize = state.objectives[0].maximize
        lessons = [(options, maximize)] + [tuple((q.genome, q.value, v > 0) for q, v in rows) for rows in generations]
        if self._learner is None or tuple(lessons[:len(self._taught)]) != self._taught:
            self._learner, self._taught = Learner(options, self.settings), (lessons[0],)
        for lesson, rows in list(zip(lessons[1:], generations, strict=True))[len(self._taught) - 1:]:
            actions = [state.space.to_choices(state.genome(q)) for q, _ in rows]
            self._learner.learn(np.array(actions, np.int64), *self._rewards(rows, maximize))
            self._taught = (*self._taught, lesson)
        return self._learner

    @staticmethod
    def _rewards(rows: Sequence[tuple[Query, float]], maximize: bool) -> tuple[np.ndarray, np.ndarray]:
        """Rewards ``[n]``, and whether the measured constraints were kept ``[n]``."""
        values = np.array([q.value for q, _ in rows], np.float64)
        return values if maximize else -values, np.array([v == 0 for _, v in rows])
