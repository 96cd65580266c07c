"""Policies of ``reinforce``, an LSTM over choices or one distribution for each, and their learner. Imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from evo_search.strategies.reinforce import ReinforceConfig


class Softmax(nn.Module):
    """One distribution for each choice.

    Methods: ``start(rows)`` is the state before the first choice. ``step`` takes a place, the choices ``before`` ``[B]`` of the
    place before it (-1: none) and the state; it gives logits ``[B, options[place]]`` and the next state.
    """

    def __init__(self, options: Sequence[int], hidden: int) -> None:
        super().__init__()
        self.options = tuple(options)
        self.logits = nn.ParameterList(torch.zeros(n) for n in self.options)

    def start(self, rows: int) -> Any:
        return None

    def step(self, place: int, before: Tensor, state: Any) -> tuple[Tensor, Any]:
        return self.logits[place].expand(len(before), -1), state


class LSTM(nn.Module):
    """An LSTM that reads its last choice and has an output layer for each place (Zoph and Le, Figure 2); as ``Softmax``."""

    def __init__(self, options: Sequence[int], hidden: int) -> None:
        super().__init__()
        self.options = tuple(options)
        self.starts = np.concatenate([[0], np.cumsum(self.options)]).tolist()
        self.embedding = nn.Embedding(self.starts[-1] + 1, hidden)  # the last one: nothing, or no meaning
        self.cell = nn.LSTMCell(hidden, hidden)
        self.heads = nn.ModuleList(nn.Linear(hidden, n) for n in self.options)
        for head in self.heads:  # a uniform policy at first
            for parameter in head.parameters():
                nn.init.zeros_(parameter)

    def start(self, rows: int) -> Any:
        return torch.zeros(rows, self.cell.hidden_size), torch.zeros(rows, self.cell.hidden_size)

    def step(self, place: int, before: Tensor, state: Any) -> tuple[Tensor, Any]:
        token = torch.where(before >= 0, before + (self.starts[place - 1] if place else 0), self.starts[-1])
        state = self.cell(self.embedding(token), state)
        return self.heads[place](state[0]), state


class Learner:
    """A policy, its optimiser, and the moving averages of its rewards."""

    def __init__(self, options: Sequence[int], settings: ReinforceConfig) -> None:
        self.settings, self.options = settings, tuple(options)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.policy: Softmax | LSTM = (LSTM if settings.controller == "lstm" else Softmax)(options, settings.hidden)
        rate = settings.learning_rate
        if rate is None:
            rate = 0.01 if settings.controller == "lstm" else 0.2
        self.optimizer = torch.optim.Adam(self.policy.parameters(), rate)
        self.total, self.square, self.weight = 0.0, 0.0, 0.0

    def sample(self, rows: int, rng: np.random.Generator) -> np.ndarray:
        """Choices that the policy makes, int64 ``[rows, places]``; every random choice is taken from ``rng``."""
        made = np.zeros((rows, len(self.options)), np.int64)
        with torch.no_grad():
            state, before = self.policy.start(rows), torch.full((rows,), -1)
            for place in range(len(self.options)):
                logits, state = self.policy.step(place, before, state)
                shares = torch.softmax(logits.double(), 1).cumsum(1).numpy()
                made[:, place] = (rng.random((rows, 1)) > shares[:, :-1]).sum(1)
                before = torch.from_numpy(made[:, place].copy())
        return made

    def learn(self, actions: np.ndarray, rewards: np.ndarray, kept: np.ndarray) -> None:
        """One step on ``actions`` ``[B, places]`` (-1: no meaning) and ``rewards`` ``[B]``, larger is better; what did not keep
        the constraints (``kept`` ``[B]``) is as bad as a reward can be."""
        advantage = torch.tensor(self._advantage(rewards, kept), dtype=torch.float32)
        logs, entropies = self._score(torch.from_numpy(actions))
        loss = -(advantage * logs).mean() - self.settings.entropy_weight * entropies.mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def _score(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Log probability and entropy of each row, summed over the places that have a meaning, ``[B]`` each."""
        state, before = self.policy.start(len(actions)), torch.full((len(actions),), -1)
        logs = entropies = torch.zeros(len(actions))
        for place in range(len(self.options)):
            logits, state = self.policy.step(place, before, state)
            before = actions[:, place]
            spread, there = torch.log_softmax(logits, 1), (before >= 0).float()
            logs = logs + there * spread.gather(1, before.clamp(min=0)[:, None])[:, 0]
            entropies = entropies - there * (spread.exp() * spread).sum(1)
        return logs, entropies

    def _advantage(self, rewards: np.ndarray, kept: np.ndarray) -> np.ndarray:
        """Rewards above the baseline in moving deviations, clipped; the averages then take these rewards in."""
        from evo_search.strategies.reinforce import CLIP

        good = rewards[kept]
        if not self.weight and len(good):  # nothing to compare with yet: the batch itself
            self.total, self.square, self.weight = float(good.mean()), float((good ** 2).mean()), 1.0
        baseline = self.total / (self.weight or 1.0)
        deviation = max(self.square / (self.weight or 1.0) - baseline ** 2, 0.0) ** 0.5
        advantage = np.clip((rewards - baseline) / (deviation or 1.0), -CLIP, CLIP)
        m = self.settings.momentum ** (1 / self.settings.batch_size)  # of one network
        for reward in good.tolist():
            self.total, self.square = m * self.total + (1 - m) * reward, m * self.square + (1 - m) * reward ** 2
            self.weight = m * self.weight + 1 - m
        return np.where(kept, advantage, -CLIP)
