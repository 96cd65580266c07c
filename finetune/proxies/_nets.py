"""What a proxy does to a network: makes it ready and gives it back as it was, finds its layers, watches it run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cg.errors import CGError
from cg.graph import Graph

Net = Graph | nn.Module
LAYERS = (nn.modules.conv._ConvNd, nn.Linear)
BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)
NORMS = (*BATCH_NORMS, nn.LayerNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm)


@contextmanager
def ready(net: Net, inputs: Tensor | None, seed: int, batch: int) -> Iterator[tuple[nn.Module, list[Tensor], list[Tensor]]]:
    """The module in training mode (batch statistics, as the sources have it), a batch of inputs and a batch of one; the
    module is restored afterwards, and so is the global random state."""
    with torch.random.fork_rng(devices=[]):
        if isinstance(net, Graph):
            from extract import to_torch

            built = to_torch(net, seed=seed)
            x = [inputs] if inputs is not None else list(built.example_inputs(batch, seed=seed))
            one = [inputs[:1]] if inputs is not None else list(built.example_inputs(1, seed=seed))
            yield built.train(), x, one
            return
        if inputs is None:
            raise CGError("a module does not say what it takes: pass a batch of inputs, or the module's graph")
        state = {k: v.clone() for k, v in net.state_dict().items()}
        modes = {m: m.training for m in net.modules()}
        dtype = next((p.dtype for p in net.parameters()), torch.float32)
        try:
            yield net.train(), [inputs], [inputs[:1]]
        finally:
            net.to(dtype).load_state_dict(state)
            for m, training in modes.items():
                m.training = training


def weights_of(model: nn.Module) -> list[Tensor]:
    """Trained weights of the layers. Raises ``CGError`` if there are none."""
    found = [m.weight for m in model.modules() if isinstance(m, LAYERS) and m.weight.requires_grad]
    if not found:
        raise CGError("the network has no convolution and no linear layer with a trained weight")
    return found


def first_tensor(out: Any) -> Tensor:
    """The first tensor of whatever a network returns."""
    while not isinstance(out, Tensor):
        out = out[0] if isinstance(out, list | tuple) else next(iter(out.values()))
    return out


def scores_and_targets(out: Any, targets: Tensor | None, seed: int) -> tuple[Tensor, Tensor]:
    """Scores ``[rows, classes]``, the last axis of the first output, and their classes ``[rows]``, random if not given."""
    scores = first_tensor(out)
    scores = scores.flatten(0, -2) if scores.ndim > 1 else scores[None]
    if targets is None:
        targets = torch.randint(scores.shape[-1], (len(scores),), generator=torch.Generator().manual_seed(seed))
    return scores, targets


class Rectifiers(TorchDispatchMode):
    """Adds up the agreement kernel over all rectifiers that run while it is active, of modules and of calls alike."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.kernel = torch.zeros(batch, batch, dtype=torch.float64)
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (),
                           kwargs: dict[str, Any] | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::").rstrip("_")
        if name in ("relu", "hardtanh", "relu6", "clamp_min") and len(out) == len(self.kernel):
            on = (out > 0).flatten(1)
            units = on.shape[1]
            on = on.to(torch.float32 if units < 2 ** 24 else torch.float64)  # whole numbers: exact
            active = on.sum(1).double()
            self.kernel += 2 * (on @ on.T).double() + (units - active[:, None] - active[None, :])
            self.count += units
        return out


class Features(TorchDispatchMode):
    """Keeps the last values computed that have several positions: ``[B, ..., ...]`` with more than one along some last axis."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.batch = batch
        self.last: Tensor | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (),
                           kwargs: dict[str, Any] | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if (isinstance(out, Tensor) and out.ndim > 2 and len(out) == self.batch and out.is_floating_point()
                and max(out.shape[2:]) > 1):
            self.last = out
        return out


@contextmanager
def norms_off(model: nn.Module) -> Iterator[None]:
    """Normalisation passes its input through."""
    norms = [m for m in model.modules() if isinstance(m, NORMS)]
    for m in norms:
        m.forward = lambda x, *rest: x  # type: ignore[method-assign]
    try:
        yield
    finally:
        for m in norms:
            del m.forward


@contextmanager
def positive(model: nn.Module) -> Iterator[None]:
    """In float64, and every trained value replaced by its size."""
    dtype = next((p.dtype for p in model.parameters()), torch.float32)
    model.double()
    with torch.no_grad():
        kept = [p.detach().clone() for p in model.parameters()]
        for p in model.parameters():
            p.abs_()
    try:
        yield
    finally:
        with torch.no_grad():
            for p, old in zip(model.parameters(), kept, strict=True):
                p.copy_(old)
        model.to(dtype)
