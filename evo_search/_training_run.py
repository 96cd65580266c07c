"""The training of one network, epoch by epoch, resumable to the bit: what ``TrainingOracle`` does between its files.

Every epoch seeds torch, numpy and ``random`` with (seed, epoch), so weights, optimiser state and the number of finished epochs
are the whole state of a run.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cg.errors import CGError
from cg.files import atomic_path
from evo_search._training_data import Data
from evo_search.oracles import EvaluationFailed

OPTIMIZERS, SCHEDULES = ("sgd", "adamw"), ("cosine", "linear", "constant")


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; see ``TrainingOracle``."""

    epochs: int = 12
    batch: int = 128
    lr: float = 0.1
    weight_decay: float = 5e-4
    momentum: float = 0.9
    optimizer: str = "sgd"
    schedule: str = "cosine"
    warmup_epochs: float = 0.0
    label_smoothing: float = 0.0
    clip: float | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise CGError(f"{name} must be a whole number of 1 or more, got {getattr(self, name)!r}")
        for name, low, high in (("weight_decay", 0.0, math.inf), ("momentum", 0.0, 1.0), ("label_smoothing", 0.0, 1.0),
                                ("warmup_epochs", 0.0, float(self.epochs))):
            if not low <= getattr(self, name) < high:
                raise CGError(f"{name} must be at least {low:g} and below {high:g}, got {getattr(self, name)!r}")
        if not 0 < self.lr < math.inf or (self.clip is not None and not self.clip > 0):
            raise CGError(f"lr and clip must be positive, got {self.lr!r} and {self.clip!r}")
        for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in known:
                raise CGError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")

    def rate(self, step: int, steps_per_epoch: int) -> float:
        """Learning rate of one step: linear from 0 in the warm-up, then down towards 0 (unless "constant")."""
        warm, total = self.warmup_epochs * steps_per_epoch, self.epochs * steps_per_epoch
        if step < warm:
            return self.lr * (step + 1) / (warm + 1)
        done = (step - warm) / max(total - warm, 1)
        return self.lr * {"cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done, "constant": 1.0}[self.schedule]

    def start(self, module: nn.Module) -> torch.optim.Optimizer:
        """A fresh optimiser."""
        parameters = [p for p in module.parameters() if p.requires_grad]
        if not parameters:
            raise CGError("the network has no parameters to train")
        if self.optimizer == "adamw":
            return torch.optim.AdamW(parameters, self.lr, weight_decay=self.weight_decay)
        return torch.optim.SGD(parameters, self.lr, self.momentum, weight_decay=self.weight_decay, nesterov=self.momentum > 0)


@contextmanager
def own_generators(device: torch.device) -> Iterator[None]:
    """The process's random generators are as before when the block ends."""
    state, plain = np.random.get_state(), random.getstate()  # noqa: NPY002  (a Dataset's transforms may use it)
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
        random.setstate(plain)


def seed_all(seed: int, part: int) -> None:
    """Seed every generator of the process for one part of a run (0: the weights, e + 1: epoch e)."""
    word = int(np.random.SeedSequence((seed, part)).generate_state(1, np.uint32)[0])
    torch.manual_seed(word)
    np.random.seed(word)  # noqa: NPY002
    random.seed(word)


class Run:
    """One network in training.

    Args:
        module: the network, on ``device``.
        data, recipe, seed: what it learns from and how.
        state: file of the state; ``None`` keeps none.
        log: called with every line of progress.
        stop: asked before every step; raises ``KeyboardInterrupt`` if it says yes.
    """

    def __init__(self, module: nn.Module, data: Data, recipe: Recipe, seed: int, device: torch.device, state: Path | None,
                 log: Callable[[str], None], stop: Callable[[], bool] = lambda: False) -> None:
        self.module, self.data, self.recipe, self.seed, self.device = module, data, recipe, seed, device
        self.state, self.log, self.stop = state, log, stop
        self.optimizer = recipe.start(module)
        self.epoch, self.seconds = 0, 0.0
        self.values: dict[str, float] = {}

    def train(self, budget_s: float | None) -> bool:
        """Train to the end and keep the state after each epoch; ``False`` if the budget, validation included, was spent first.

        ``values`` then are those of the last whole epoch. Raises ``EvaluationFailed`` if the loss is not finite.
        """
        while self.epoch < self.recipe.epochs:
            began, before = time.perf_counter(), self.seconds
            seed_all(self.seed, self.epoch + 1)
            loss = self._epoch(None if budget_s is None else began + budget_s - before)
            if loss is None:
                self.seconds = before + time.perf_counter() - began
                return False
            seed_all(self.seed, self.epoch + 1)
            found = self._validate()
            self.seconds = before + time.perf_counter() - began
            self.epoch += 1
            self.values = {**found, "train_loss": loss, "train_s": round(self.seconds, 3), "epochs": float(self.epoch)}
            self.log(f"epoch {self.epoch}/{self.recipe.epochs}: train_loss {loss:.4f}, val_loss {found['val_loss']:.4f}, "
                     f"val_acc {found['val_acc']:.2f} %, {self.seconds:.1f} s")
            if self.state is not None:
                self.save(self.state)
        return True

    def _epoch(self, deadline: float | None) -> float | None:
        """Mean loss of one epoch, or ``None`` at the deadline."""
        r, n = self.recipe, len(self.data.train)
        per_epoch = max(n // r.batch, 1)
        self.module.train()
        total = torch.zeros((), device=self.device)
        count = 0
        for i, (x, y) in enumerate(self.data.batches((self.seed, self.epoch + 1), r.batch, self.device)):
            if self.stop():
                raise KeyboardInterrupt
            if deadline is not None and time.perf_counter() > deadline:
                return None
            for group in self.optimizer.param_groups:
                group["lr"] = r.rate(self.epoch * per_epoch + i, per_epoch)
            loss = nn.functional.cross_entropy(self._logits(x, y), y, label_smoothing=r.label_smoothing)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if r.clip is not None:
                nn.utils.clip_grad_norm_(self.module.parameters(), r.clip)
            self.optimizer.step()
            value = loss.detach()
            if not math.isfinite(float(value)):
                raise EvaluationFailed(f"the loss is {float(value)} in epoch {self.epoch + 1}, step {i + 1}")
            total, count = total + value * len(y), count + len(y)
        return float(total) / count

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Accuracy in percent and mean cross entropy on the validation part."""
        self.module.eval()
        right = n = 0
        loss = 0.0
        for x, y in self.data.validation(max(self.recipe.batch, 256), self.device):
            out = self._logits(x, y)
            right += int((out.argmax(1) == y).sum())
            loss += float(nn.functional.cross_entropy(out, y, reduction="sum"))
            n += len(y)
        if not math.isfinite(loss):
            raise EvaluationFailed(f"the validation loss is {loss} after epoch {self.epoch + 1}")
        return {"val_acc": 100 * right / n, "val_loss": loss / n}

    def _logits(self, x: Tensor, y: Tensor) -> Tensor:
        """``[B, classes]``: the first of the network's outputs."""
        out = self.module(x)
        out = out[0] if isinstance(out, list | tuple) else out
        if not isinstance(out, Tensor) or out.ndim != 2 or len(out) != len(x):
            shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise EvaluationFailed(f"the network gave {shape} for a batch of shape {tuple(x.shape)}; wanted [batch, classes]")
        if int(y.max()) >= out.shape[1]:
            raise EvaluationFailed(f"the data have class {int(y.max())}, the network has {out.shape[1]} outputs")
        return out

    def save(self, path: Path) -> None:
        """Weights, optimiser state, finished epochs and their values in one file, atomically."""
        from safetensors.torch import save

        tensors: dict[str, Tensor] = {}
        for name, value in self.module.state_dict().items():
            if not isinstance(value, Tensor):
                raise EvaluationFailed(f"{name} of the network's state is no tensor, so training cannot be resumed")
            tensors[f"model.{name}"] = value
        for i, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{k}": torch.as_tensor(v) for k, v in state.items() if v is not None}
        tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}  # clone: tied weights share memory
        meta = json.dumps({"recipe": asdict(self.recipe), "seed": self.seed, "epoch": self.epoch, "seconds": self.seconds,
                           "values": self.values})
        with atomic_path(path) as temporary:
            temporary.write_bytes(save(tensors, {"state": meta}))

    def load(self, path: Path) -> bool:
        """Go on from a state of ``save``; ``False`` if it is damaged or of another training, and the run is as it was."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                meta = json.loads((file.metadata() or {})["state"])
                tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118  (not a dict)
            if meta["recipe"] != asdict(self.recipe) or meta["seed"] != self.seed:
                return False
            weights = {k[6:]: v for k, v in tensors.items() if k.startswith("model.")}
            own = self.module.state_dict()
            if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in weights.items()}:
                return False
            state: dict[int, dict[str, Any]] = {}
            for key, tensor in tensors.items():
                if key.startswith("optimizer."):
                    _, index, name = key.split(".")
                    state.setdefault(int(index), {})[name] = tensor
            epoch, seconds, values = int(meta["epoch"]), float(meta["seconds"]), dict(meta["values"])
        except (OSError, SafetensorError, ValueError, KeyError, TypeError):
            return False
        self.module.load_state_dict(weights)
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})
        self.epoch, self.seconds, self.values = epoch, seconds, values
        return True
