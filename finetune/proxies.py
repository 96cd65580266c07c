"""Zero-cost proxies: scores of an untrained network from one batch of data, noise if there is none. Higher is better.

    synflow(graph), snip(graph, images, labels), naswot(module, images)

Each takes a graph (built with ``extract.to_torch``) or a module, and leaves a module as it was. Sources of the formulas:
Abdelfattah et al., arXiv 2101.08134, section 3 (grad_norm, snip, grasp, synflow, fisher, jacov as they use them) and
Mellor et al., arXiv 2006.04647 (naswot; jacov in version 1). Layers counted are convolutions and linear layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cg.errors import CGError
from cg.graph import Graph

Net = Graph | nn.Module
_LAYERS = (nn.modules.conv._ConvNd, nn.Linear)
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm)


def params(net: Net) -> float:
    """Number of trained scalars."""
    return float(net.params if isinstance(net, Graph) else sum(p.numel() for p in net.parameters()))


def macs(net: Graph) -> float:
    """Multiply-adds of one forward pass."""
    return float(net.macs)


def grad_norm(net: Net, inputs: Tensor | None = None, targets: Tensor | None = None, *, seed: int = 0,
              batch: int = 16) -> float:
    """Sum over layers of the Euclidean norm of the weight's gradient."""
    return sum(float(g.norm()) for _, g in _gradients(net, inputs, targets, seed, batch))


def snip(net: Net, inputs: Tensor | None = None, targets: Tensor | None = None, *, seed: int = 0, batch: int = 16) -> float:
    """Sum of ``|weight * gradient|`` (Lee et al., arXiv 1810.02340)."""
    return sum(float((w * g).abs().sum()) for w, g in _gradients(net, inputs, targets, seed, batch))


def grasp(net: Net, inputs: Tensor | None = None, targets: Tensor | None = None, *, seed: int = 0,
          batch: int = 16) -> float:
    """Sum of ``-weight * (Hessian @ gradient)`` (Wang et al., arXiv 2002.07376)."""
    with _ready(net, inputs, seed, batch) as (model, x):
        weights = _weights(model)
        loss = _loss(model(*x), targets, seed)
        first = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
        product = torch.stack([(g * g.detach()).sum() for g in first if g is not None]).sum()
        second = torch.autograd.grad(product, weights, allow_unused=True)
        return sum(float((-w.detach() * h).sum()) for w, h in zip(weights, second, strict=True) if h is not None)


def synflow(net: Net, *, seed: int = 0) -> float:
    """Logarithm of the sum of ``|weight| * gradient`` for an input of ones, weights made positive, norms switched off.

    In float64 and as a logarithm (the ranking is the same), so that deep networks do not overflow. Source: Tanaka et al.,
    arXiv 2006.05467, Eq. 1.
    """
    with _ready(net, None, seed, 1) as (model, x), _norms_off(model), _positive(model.double()):
        ones = [torch.ones_like(v, dtype=torch.float64) if v.is_floating_point() else v for v in x]
        weights = _weights(model)
        gradients = torch.autograd.grad(_tensor(model(*ones)).sum(), weights, allow_unused=True)
        total = sum(float((w.detach() * g).abs().sum()) for w, g in zip(weights, gradients, strict=True) if g is not None)
    if not math.isfinite(total):
        raise CGError("synflow: the flow through this network is not finite even in float64; its weights are not usable")
    return math.log(total) if total > 0 else -math.inf


def fisher(net: Net, inputs: Tensor | None = None, targets: Tensor | None = None, *, seed: int = 0,
           batch: int = 16) -> float:
    """Sum over layers and channels of ``mean over the batch of (sum over space of activation * gradient)^2 / 2``.

    Source: Turner et al., arXiv 1906.04113, Eq. 2.
    """
    with _ready(net, inputs, seed, batch) as (model, x):
        seen: list[Tensor] = []
        hooks = [m.register_forward_hook(lambda m, a, out: seen.append(out)) for m in model.modules() if isinstance(m, _LAYERS)]
        try:
            loss = _loss(model(*x), targets, seed)
        finally:
            for hook in hooks:
                hook.remove()
        total = 0.0
        for act, grad in zip(seen, torch.autograd.grad(loss, seen, allow_unused=True), strict=True):
            if grad is not None:
                flow = (act.detach() * grad)
                flow = flow.flatten(2).sum(2) if act.ndim > 3 else flow
                total += float((flow ** 2).mean(0).sum()) / 2
        return total


def jacov(net: Net, inputs: Tensor | None = None, *, seed: int = 0, batch: int = 64) -> float:
    """How different the gradients with respect to the inputs are: ``-sum(log(v + k) + 1 / (v + k))``, k = 1e-5, over the
    eigenvalues v of their correlation matrix (batch, batch)."""
    with _ready(net, inputs, seed, batch) as (model, x):
        first = x[0].detach().requires_grad_()
        if not first.is_floating_point():
            raise CGError("jacov needs a network whose first input is not a table of numbers (tokens have no gradient)")
        (g,) = torch.autograd.grad(_tensor(model(first, *x[1:])).sum(), first)
        values = torch.linalg.eigvalsh(torch.corrcoef(g.flatten(1).double())) + 1e-5
        return float(-(values.log() + 1 / values).sum())


def naswot(net: Net, inputs: Tensor | None = None, *, seed: int = 0, batch: int = 64) -> float:
    """Log-determinant of the kernel that counts, for every pair of inputs, the rectifiers that agree (arXiv 2006.04647, Eq. 2).

    Every ``relu`` counts, and every clipped one (relu6). Raises ``CGError`` if the network has none.
    """
    with _ready(net, inputs, seed, batch) as (model, x), torch.no_grad():
        watch = _Rectifiers(len(x[0]))
        with watch:
            model(*x)
    if not watch.count:
        raise CGError("naswot counts rectifiers that agree, and this network has none")
    return float(torch.linalg.slogdet(watch.kernel)[1])


PROXIES: Final[dict[str, Callable[..., float]]] = {
    "params": params, "macs": macs, "grad_norm": grad_norm, "snip": snip, "grasp": grasp, "synflow": synflow,
    "fisher": fisher, "jacov": jacov, "naswot": naswot}


class _Rectifiers(TorchDispatchMode):
    """Adds up the agreement kernel over all rectifiers that run while it is active."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.kernel = torch.zeros(batch, batch, dtype=torch.float64)
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (),
                           kwargs: dict[str, Any] | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::").rstrip("_")
        if name in ("relu", "hardtanh", "relu6", "clamp_min") and len(out) == len(self.kernel):
            on = (out > 0).flatten(1).double()
            self.kernel += on @ on.T + (1 - on) @ (1 - on).T
            self.count += on.shape[1]
        return out


@contextmanager
def _ready(net: Net, inputs: Tensor | None, seed: int, batch: int) -> Iterator[tuple[nn.Module, list[Tensor]]]:
    """The module in training mode (batch statistics, as the sources have it) and its inputs; restored afterwards."""
    if isinstance(net, Graph):
        from extract import to_torch

        model: nn.Module = to_torch(net, seed=seed)
        x = [inputs] if inputs is not None else list(model.example_inputs(batch, seed=seed))  # type: ignore[operator]
        yield model.train(), x
        return
    if inputs is None:
        raise CGError("a module does not say what it takes: pass a batch of inputs, or the module's graph")
    state = {k: v.clone() for k, v in net.state_dict().items()}
    modes = {m: m.training for m in net.modules()}
    dtype = next((p.dtype for p in net.parameters()), torch.float32)
    try:
        yield net.train(), [inputs]
    finally:
        net.to(dtype).load_state_dict(state)
        for m, training in modes.items():
            m.training = training


def _weights(model: nn.Module) -> list[Tensor]:
    found = [m.weight for m in model.modules() if isinstance(m, _LAYERS) and m.weight.requires_grad]
    if not found:
        raise CGError("the network has no convolution and no linear layer with a trained weight")
    return found


def _gradients(net: Net, inputs: Tensor | None, targets: Tensor | None, seed: int,
               batch: int) -> list[tuple[Tensor, Tensor]]:
    with _ready(net, inputs, seed, batch) as (model, x):
        weights = _weights(model)
        found = torch.autograd.grad(_loss(model(*x), targets, seed), weights, allow_unused=True)
        return [(w.detach().clone(), g) for w, g in zip(weights, found, strict=True) if g is not None]


def _tensor(out: Any) -> Tensor:
    while not isinstance(out, Tensor):
        out = out[0] if isinstance(out, list | tuple) else next(iter(out.values()))
    return out


def _loss(out: Any, targets: Tensor | None, seed: int) -> Tensor:
    """Cross-entropy over the last axis of the first output; without targets, random classes."""
    scores = _tensor(out)
    scores = scores.flatten(0, -2) if scores.ndim > 1 else scores[None]
    if targets is None:
        targets = torch.randint(scores.shape[-1], (len(scores),), generator=torch.Generator().manual_seed(seed))
    return nn.functional.cross_entropy(scores, targets)


@contextmanager
def _norms_off(model: nn.Module) -> Iterator[None]:
    """Normalisation passes its input through."""
    norms = [m for m in model.modules() if isinstance(m, _NORMS)]
    for m in norms:
        m.forward = lambda x, *rest: x  # type: ignore[method-assign]
    try:
        yield
    finally:
        for m in norms:
            del m.forward


@contextmanager
def _positive(model: nn.Module) -> Iterator[None]:
    """Every trained value replaced by its size."""
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
