"""Contrastive pre-training: batches of graphs with their spectral neighbours, resumable to the bit after a kill.

Nothing random lives outside a step: the generator of step t is seeded with (seed, t), so weights, optimiser state and the step
number are the whole state of a run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cg.errors import CGError, StorageError
from cg.files import atomic_path
from cg.global_statistics import statistics
from cg.graph import Graph
from cg.spectra import spectra
from contrastive._threads import side_by_side
from contrastive.checkpoint import save_encoder
from contrastive.config import EncoderConfig
from contrastive.encoder import Encoder, projection_head
from contrastive.loss import spectral_weights, supcon_loss
from contrastive.positives import spectral_neighbours
from contrastive.views import collate, views

Progress = Callable[[int, int, float], None]
_STATE = "training.safetensors"


def pretrain(sets: Sequence[Sequence[Graph]], out: str | Path, config: str | EncoderConfig = "default", *,
             steps: int | None = None, seed: int = 0, resume: bool = True, progress: Progress | None = None,
             log_dir: str | Path | None = None, checkpoint_every: int = 100) -> Encoder:
    """Pre-train an encoder on unlabelled graphs and write it to the folder ``out``.

    Args:
        sets: graph sets; their graphs' ``family`` tells which graphs may be positives of each other.
        out: folder; holds the encoder at the end, and the training state until then.
        config: ``"default"``, ``"paper"`` or an ``EncoderConfig``.
        steps: overrides ``config.steps``.
        resume: go on from the state in ``out`` if there is one; it must have the same settings, data and seed.
        progress: called with (step, steps, loss).
        log_dir: TensorBoard event folder for the loss curves.

    Raises ``CGError`` on fewer than 4 graphs, ``StorageError`` if the state in ``out`` is corrupt or of another run.
    """
    config = EncoderConfig.named(config)
    if steps is not None:
        config = dataclasses.replace(config, steps=steps)
    graphs = [g for s in sets for g in s]
    if len(graphs) < 4:
        raise CGError(f"pre-training needs at least 4 graphs, got {len(graphs)}")
    out = Path(out)
    run = _Run(graphs, config, seed)
    start = run.load(out / _STATE) if resume and (out / _STATE).exists() else 0
    writer = _writer(log_dir)
    began, first = time.perf_counter(), start
    for step in range(start, config.steps):
        losses = run.step(step)
        if writer:
            for name, value in losses.items():
                writer.add_scalar(f"loss/{name}", value, step)
        if progress:
            progress(step + 1, config.steps, losses["total"])
        if (step + 1) % checkpoint_every == 0 and step + 1 < config.steps:
            run.save(out / _STATE, step + 1)
    if writer:
        writer.close()
    seconds = time.perf_counter() - began
    save_encoder(run.encoder, out, {
        "graphs": len(graphs), "families": sorted({g.family for g in graphs}), "seed": seed, "data": run.data_hash,
        "seconds": round(seconds, 1), "threads": torch.get_num_threads(), "torch": torch.__version__,
        "graphs_per_second": round((config.steps - first) * config.batch_graphs / max(seconds, 1e-9), 1)})
    (out / _STATE).unlink(missing_ok=True)
    return run.encoder.eval()


class _Run:
    """The moving parts of one training run."""

    def __init__(self, graphs: Sequence[Graph], config: EncoderConfig, seed: int) -> None:
        self.config, self.seed = config, seed
        self.data_hash = hashlib.blake2b(json.dumps([(g.digest, g.family) for g in graphs]).encode(), digest_size=8).hexdigest()
        self.views = views(graphs, config)
        names, self.family = np.unique([g.family for g in graphs], return_inverse=True)
        self.members = [np.flatnonzero(self.family == f) for f in range(len(names))]
        self.spectra = spectra(graphs).astype(np.float32)
        self.neighbours = spectral_neighbours(self.spectra, self.family, config.neighbours)
        torch.manual_seed(seed)
        self.encoder = Encoder(config)
        self.modules = nn.ModuleDict({"encoder": self.encoder, "projection": projection_head(config)})
        if config.statistics_weight:
            raw = statistics(graphs)
            spread = raw.std(0)
            used = spread > 1e-6
            self.targets = torch.from_numpy(((raw - raw.mean(0)) / np.maximum(spread, 1e-6))[:, used]).clamp(-5, 5)
            self.modules["statistics"] = nn.Sequential(nn.Linear(config.embedding, 256), nn.ReLU(),
                                                       nn.Linear(256, int(used.sum())))
        self.optimizer = torch.optim.AdamW(self.modules.parameters(), config.learning_rate,
                                           weight_decay=config.weight_decay)

    def _learning_rate(self, step: int) -> float:
        c = self.config
        warm = min(1.0, (step + 1) / max(c.warmup_steps, 1))
        return c.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / max(c.steps, 1)))

    def batch(self, step: int) -> np.ndarray:
        """Row numbers ``[batch_graphs]``: anchors, balanced over families, then one spectral neighbour of each."""
        rng = np.random.default_rng((self.seed, step))
        families = np.resize(rng.permutation(len(self.members)), self.config.batch_graphs // 2)
        anchors = np.array([rng.choice(self.members[f]) for f in families])
        partners = self.neighbours[anchors, rng.integers(0, self.neighbours.shape[1], len(anchors))]
        return np.concatenate([anchors, partners])

    def step(self, step: int) -> dict[str, float]:
        """One optimiser step; returns the losses."""
        rows = self.batch(step)
        self.modules.train()
        items = [self.views[i] for i in rows]
        parts = self.encoder.split(items)
        outputs = side_by_side(lambda part: self.encoder(collate([items[i] for i in part])), parts)
        leaf = torch.cat([o.detach() for o in outputs]).requires_grad_()  # the loss needs all buckets, its gradient only this
        embedding = leaf[torch.from_numpy(np.argsort(np.concatenate(parts), kind="stable"))]
        weights = spectral_weights(torch.from_numpy(self.spectra[rows]), torch.from_numpy(self.family[rows]),
                                   self.config.spectral_temperature)
        losses = {"contrastive": supcon_loss(self.modules["projection"](embedding), weights, self.config.temperature)}
        total = losses["contrastive"]
        if self.config.statistics_weight:
            losses["statistics"] = nn.functional.mse_loss(self.modules["statistics"](embedding), self.targets[rows])
            total = total + self.config.statistics_weight * losses["statistics"]
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(step)
        self.optimizer.zero_grad()
        total.backward()
        self._encoder_gradients(outputs, leaf)
        nn.utils.clip_grad_norm_(self.modules.parameters(), 1.0)
        self.optimizer.step()
        values = {k: float(v.detach()) for k, v in losses.items()}
        if not math.isfinite(float(total.detach())):
            raise CGError(f"loss is not finite at step {step}: {values}; lower learning_rate")
        return {**values, "total": float(total.detach())}

    def _encoder_gradients(self, outputs: list[torch.Tensor], leaf: torch.Tensor) -> None:
        """Chain the loss's gradient through every bucket, and add up in the order of the buckets: the same sum every time."""
        parameters = list(self.encoder.parameters())
        assert leaf.grad is not None
        upstream = leaf.grad.split([len(o) for o in outputs])
        gradients = side_by_side(lambda pair: torch.autograd.grad(pair[0], parameters, pair[1], allow_unused=True),
                                 zip(outputs, upstream, strict=True))
        for parameter, parts in zip(parameters, zip(*gradients, strict=True), strict=True):
            used = [g for g in parts if g is not None]
            parameter.grad = torch.stack(used).sum(0) if used else None

    def _identity(self) -> dict[str, str]:
        return {"config": json.dumps(dataclasses.asdict(self.config)), "seed": str(self.seed), "data": self.data_hash}

    def save(self, path: Path, step: int) -> None:
        """Weights, optimiser state and step number in one file, atomically."""
        from safetensors.torch import save

        tensors = {f"model.{k}": v.contiguous() for k, v in self.modules.state_dict().items()}
        for i, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{k}": torch.as_tensor(v) for k, v in state.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_bytes(save(tensors, {**self._identity(), "step": str(step)}))  # save_file hides a full disk

    def load(self, path: Path) -> int:
        """Restore a state of ``save``; returns the step to go on with."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                meta = file.metadata() or {}
                tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118  (not a dict)
        except (OSError, SafetensorError) as error:
            raise StorageError(f"{path} cannot be read ({error}); delete it or train with resume=False") from None
        for key, value in self._identity().items():
            if meta.get(key) != value:
                raise StorageError(f"{path} belongs to a run with another {key}: {_difference(meta.get(key), value)}; "
                                   "train with resume=False or into another folder")
        try:
            self.modules.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
            state: dict[int, dict[str, Any]] = {}
            for key, tensor in tensors.items():
                if key.startswith("optimizer."):
                    _, index, name = key.split(".")
                    state.setdefault(int(index), {})[name] = tensor
            self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})
            return int(meta["step"])
        except (RuntimeError, KeyError, ValueError) as error:
            raise StorageError(f"{path} is not a complete training state ({str(error).splitlines()[0]}); delete it or train "
                               "with resume=False") from None


def _difference(found: str | None, wanted: str) -> str:
    """What differs, setting by setting where both texts are JSON objects."""
    try:
        a, b = json.loads(found or ""), json.loads(wanted)
        return ", ".join(f"{k} {a.get(k)!r} instead of {b.get(k)!r}" for k in {**a, **b} if a.get(k) != b.get(k))
    except (ValueError, TypeError):
        return f"{found} instead of {wanted}"


def _writer(log_dir: str | Path | None) -> Any:
    if log_dir is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(log_dir))
