"""Pre-training: batches of graphs with their spectral neighbours, resumable to the bit after a kill.

Nothing random lives outside a step: the generator of step t is seeded with (seed, t), so weights, optimiser state and the step
number are the whole state of a run.
"""

from __future__ import annotations

import dataclasses
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
from cg.graph import Graph
from contrastive._threads import side_by_side
from contrastive.checkpoint import save_encoder
from contrastive.config import EncoderConfig
from contrastive.corpus import Corpus
from contrastive.encoder import Encoder
from contrastive.objectives import Contrastive, Masked, Ranking, Statistics
from contrastive.views import GraphView, collate

Progress = Callable[[int, int, float], None]
_STATE = "training.safetensors"


def pretrain(sets: Sequence[Sequence[Graph]] | Corpus, out: str | Path, config: str | EncoderConfig = "default", *,
             steps: int | None = None, seed: int = 0, resume: bool = True, progress: Progress | None = None,
             log_dir: str | Path | None = None, checkpoint_every: int = 100) -> Encoder:
    """Pre-train an encoder and write it to the folder ``out``. Labels teach only a ranking, where ``ranking_weight`` counts.

    Args:
        sets: graph sets (``Corpus``), or the ``Corpus`` of them, which several runs may share.
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
    corpus = sets if isinstance(sets, Corpus) else Corpus(sets)
    out = Path(out)
    run = _Run(corpus, config, seed)
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
        "graphs": len(corpus), "labelled": corpus.labelled, "families": [str(f) for f in corpus.families],
        "seed": seed, "data": corpus.hash, "seconds": round(seconds, 1),
        "threads": torch.get_num_threads(), "torch": torch.__version__,
        "graphs_per_second": round((config.steps - first) * config.batch_graphs / max(seconds, 1e-9), 1)})
    (out / _STATE).unlink(missing_ok=True)
    return run.encoder.eval()


class _Run:
    """The moving parts of one training run."""

    def __init__(self, corpus: Corpus, config: EncoderConfig, seed: int) -> None:
        self.corpus, self.config, self.seed = corpus, config, seed
        self.views = corpus.views(config)
        self.neighbours = corpus.neighbours(config.neighbours)
        torch.manual_seed(seed)
        self.encoder = Encoder(config)
        self.objectives = nn.ModuleDict()  # of whole graphs
        for name, kind, weight in (("contrastive", Contrastive, config.contrastive_weight),
                                   ("statistics", Statistics, config.statistics_weight),
                                   ("ranking", Ranking, corpus.labelled and config.ranking_weight)):
            if weight:
                self.objectives[name] = kind(config, corpus)
        self.masked = Masked(self.encoder) if config.masked_weight else None
        if not (self.objectives or self.masked):
            raise CGError("ranking_weight alone needs labels: graph sets with one label each")
        self.modules = nn.ModuleDict({"encoder": self.encoder, "objectives": self.objectives})
        if self.masked:
            self.modules["masked"] = self.masked
        self.optimizer = torch.optim.AdamW(self.modules.parameters(), config.learning_rate,
                                           weight_decay=config.weight_decay)

    def _learning_rate(self, step: int) -> float:
        c = self.config
        warm = min(1.0, (step + 1) / max(c.warmup_steps, 1))
        return c.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / max(c.steps, 1)))

    def batch(self, step: int) -> np.ndarray:
        """Row numbers ``[batch_graphs]``: anchors, balanced over families, then one spectral neighbour of each."""
        rng = np.random.default_rng((self.seed, step))
        members = self.corpus.members
        families = np.resize(rng.permutation(len(members)), self.config.batch_graphs // 2)
        anchors = np.array([rng.choice(members[f]) for f in families])
        partners = self.neighbours[anchors, rng.integers(0, self.neighbours.shape[1], len(anchors))]
        return np.concatenate([anchors, partners])

    def step(self, step: int) -> dict[str, float]:
        """One optimiser step; returns the losses."""
        rows = self.batch(step)
        self.modules.train()
        items = [self.views[i] for i in rows]
        parts = self.encoder.split(items)
        hidden = self._hidden(items, step)
        outputs = side_by_side(
            lambda part: self._forward([items[i] for i in part], hidden and [hidden[i] for i in part]), parts)
        leaves = [torch.cat([o[k].detach() for o in outputs]).requires_grad_() for k in range(len(outputs[0]))]
        embedding = leaves[0][torch.from_numpy(np.argsort(np.concatenate(parts), kind="stable"))]
        losses = {name: objective(embedding, rows) for name, objective in self.objectives.items()}
        if self.masked and hidden:
            batch = collate([items[i] for part in parts for i in part])
            at = torch.from_numpy(np.concatenate([hidden[i] for part in parts for i in part]))
            losses["masked"] = self.masked(leaves[1], batch.op[at], batch.features[at][:, :self.masked.features.out_features])
        total = torch.stack([getattr(self.config, f"{name}_weight") * loss for name, loss in losses.items()]).sum()
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(step)
        self.optimizer.zero_grad()
        total.backward()
        self._encoder_gradients(outputs, leaves)
        nn.utils.clip_grad_norm_(self.modules.parameters(), 1.0)
        self.optimizer.step()
        values = {k: float(v.detach()) for k, v in losses.items()}
        if not math.isfinite(float(total.detach())):
            raise CGError(f"loss is not finite at step {step}: {values}; lower learning_rate")
        return {**values, "total": float(total.detach())}

    def _hidden(self, items: Sequence[GraphView], step: int) -> list[np.ndarray] | None:
        """Which nodes of each graph are hidden, bool ``[n]``; ``None`` if that is no objective."""
        if not self.masked:
            return None
        rng = np.random.default_rng((self.seed, step, 1))
        return [rng.random(len(v.spec)) < self.config.masked_share for v in items]

    def _forward(self, items: Sequence[GraphView], hidden: list[np.ndarray] | None) -> tuple[torch.Tensor, ...]:
        """Embeddings ``[b, m]`` and, where nodes are hidden, what is said of these."""
        batch = collate(items)
        if hidden is None:
            return (self.encoder(batch),)
        mask = torch.from_numpy(np.concatenate(hidden))
        nodes = self.encoder.nodes(batch, mask)
        return self.encoder.pool(nodes, batch), nodes[mask]

    def _encoder_gradients(self, outputs: list[tuple[torch.Tensor, ...]], leaves: list[torch.Tensor]) -> None:
        """Chain the loss's gradient through every bucket, and add up in the order of the buckets: the same sum every time."""
        parameters = list(self.encoder.parameters())
        used = [k for k, leaf in enumerate(leaves) if leaf.grad is not None]
        shares = [leaves[k].grad.split([len(o[k]) for o in outputs]) for k in used]  # type: ignore[union-attr]
        upstream = [([o[k] for k in used], list(share)) for o, share in zip(outputs, zip(*shares, strict=True), strict=True)]
        gradients = side_by_side(lambda pair: torch.autograd.grad(pair[0], parameters, pair[1], allow_unused=True), upstream)
        for parameter, parts in zip(parameters, zip(*gradients, strict=True), strict=True):
            found = [g for g in parts if g is not None]
            parameter.grad = torch.stack(found).sum(0) if found else None

    def _identity(self) -> dict[str, str]:
        return {"config": json.dumps(dataclasses.asdict(self.config)), "seed": str(self.seed), "data": self.corpus.hash}

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
