"""Zero-cost proxies: scores of an untrained network from one batch of data, noise if there is none. Higher is better.

    measure(graph)                                            # all of them, sharing passes: name -> value, NaN if there is none
    synflow(graph), snip(graph, images, labels), naswot(module, images)

Each takes a graph (built with ``extract.to_torch``) or a module, and leaves a module as it was. They are the 13 that
Krishnakumar et al. (NAS-Bench-Suite-Zero, arXiv 2210.03230, Table 1) compare; ``macs`` is called flops there and ``naswot``
nwot. Sources of the formulas: Abdelfattah et al., arXiv 2101.08134, section 3 (grad_norm, snip, grasp, synflow, fisher, jacov,
plain as they use them) and those named below. Layers counted are convolutions and linear layers; a network runs in training
mode (batch statistics). Where a network has no such value (no rectifier, say) or it is not finite, a function raises
``CGError``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Final

from torch import Tensor

from cg.errors import CGError
from finetune.proxies._nets import Net
from finetune.proxies._passes import compute


def params(net: Net) -> float:
    """Number of trained scalars."""
    return _one("params", net)


def macs(net: Net) -> float:
    """Multiply-adds of one forward pass; a module does not know its own."""
    return _one("macs", net)


def grad_norm(net: Net, inputs: Tensor | None = None, targets: Tensor | None = None, *, seed: int = 0,
              batch: int = 16) -> float:
    """Sum over layers of the Euclidean norm of the weight's gradient."""
    return _one("grad_norm", net, inputs, targets, seed, batch)


def snip(net: Net, inputs: Tensor | None = None, targets: Tensor | None = None, *, seed: int = 0, batch: int = 16) -> float:
    """Sum of ``|weight * gradient|`` (Lee et al., arXiv 1810.02340)."""
    return _one("snip", net, inputs, targets, seed, batch)


def plain(net: Net, inputs: Tensor | None = None, targets: Tensor | None = None, *, seed: int = 0, batch: int = 16) -> float:
    """Sum of ``weight * gradient`` with its sign (arXiv 2101.08134)."""
    return _one("plain", net, inputs, targets, seed, batch)


def grasp(net: Net, inputs: Tensor | None = None, targets: Tensor | None = None, *, seed: int = 0,
          batch: int = 16) -> float:
    """Sum of ``-weight * (Hessian @ gradient)`` (Wang et al., arXiv 2002.07376)."""
    return _one("grasp", net, inputs, targets, seed, batch)


def fisher(net: Net, inputs: Tensor | None = None, targets: Tensor | None = None, *, seed: int = 0,
           batch: int = 16) -> float:
    """Sum over layers and channels of ``mean over the batch of (sum over space of activation * gradient)^2 / 2``.

    Source: Turner et al., arXiv 1906.04113, Eq. 2.
    """
    return _one("fisher", net, inputs, targets, seed, batch)


def l2_norm(net: Net, *, seed: int = 0) -> float:
    """Sum over layers of the Euclidean norm of the weight (arXiv 2101.08134)."""
    return _one("l2_norm", net, seed=seed)


def synflow(net: Net, inputs: Tensor | None = None, *, seed: int = 0) -> float:
    """Logarithm of the sum of ``|weight| * gradient`` for an input of ones, weights made positive, norms switched off.

    In float64 and as a logarithm (the ranking is the same), so that deep networks do not overflow. Of ``inputs`` only the
    shape is read. Source: Tanaka et al., arXiv 2006.05467, Eq. 1.
    """
    return _one("synflow", net, inputs, seed=seed)


def zen(net: Net, inputs: Tensor | None = None, *, seed: int = 0, batch: int = 16) -> float:
    """Zen-score: ``log E|f(x) - f(x + 0.01 e)|`` plus, for every batch norm, ``log sqrt(mean over channels of the variance)``.

    ``x``, ``e`` and all weights are standard normal; ``f`` ends with the last values that have positions (before global
    pooling), or with the output if there are none. Of ``inputs`` only the shape is read. Residual connections stay, as in
    NAS-Bench-Suite-Zero; the authors of the score leave them out. Source: Lin et al., arXiv 2102.01063, Algorithm 1.
    """
    return _one("zen", net, inputs, None, seed, batch)


def jacov(net: Net, inputs: Tensor | None = None, *, seed: int = 0, batch: int = 64) -> float:
    """How different the gradients with respect to the inputs are: ``-sum(log(v + k) + 1 / (v + k))``, k = 1e-5, over the
    eigenvalues v of their correlation matrix (batch, batch). Source: Mellor et al., arXiv 2006.04647, version 1."""
    return _one("jacov", net, inputs, None, seed, batch)


def epe_nas(net: Net, inputs: Tensor | None = None, targets: Tensor | None = None, *, seed: int = 0,
            batch: int = 64) -> float:
    """How alike the gradients with respect to inputs of one class are: ``sum over classes of |s|``, where s is the sum of
    ``log(|correlation| + 1e-5)`` over pairs of inputs of the class.

    With more than 100 classes s is divided by their number of inputs, and the mean of ``|s - s'|`` over pairs of classes,
    times the number of classes, is given. Source: Lopes et al., arXiv 2102.08099, section 3.
    """
    return _one("epe_nas", net, inputs, targets, seed, batch)


def naswot(net: Net, inputs: Tensor | None = None, *, seed: int = 0, batch: int = 64) -> float:
    """Log-determinant of the kernel that counts, for every pair of inputs, the rectifiers that agree (arXiv 2006.04647, Eq. 2).

    Every ``relu`` counts, and every clipped one (relu6). Raises ``CGError`` if the network has none.
    """
    return _one("naswot", net, inputs, None, seed, batch)


PROXIES: Final[dict[str, Callable[..., float]]] = {
    "params": params, "macs": macs, "grad_norm": grad_norm, "snip": snip, "plain": plain, "grasp": grasp, "fisher": fisher,
    "l2_norm": l2_norm, "synflow": synflow, "zen": zen, "jacov": jacov, "epe_nas": epe_nas, "naswot": naswot}


def measure(net: Net, names: Iterable[str] | None = None, inputs: Tensor | None = None, targets: Tensor | None = None, *,
            seed: int = 0, batch: int = 16) -> dict[str, float]:
    """Many proxies of one network, which is built once; passes are shared. The same numbers as the functions give.

    Args:
        net: a graph or a module; a module needs ``inputs``.
        names: of ``PROXIES``; None for all.
        inputs: first input ``[B, ...]``; random if None, and then of size ``batch``.
        targets: classes ``[B]``; random if None.
        seed: of weights (of a graph) and of whatever is random.

    NaN stands where a network has no such value or it is not finite. Raises ``CGError`` for an unknown name and for a graph
    that cannot be built.
    """
    asked = tuple(PROXIES) if names is None else tuple(names)
    unknown = [n for n in asked if n not in PROXIES]
    if unknown:
        raise CGError(f"there is no proxy {unknown[0]!r}; there are {', '.join(PROXIES)}")
    found = compute(net, asked, inputs, targets, seed, batch)
    return {n: math.nan if isinstance(v, CGError) else v for n, v in ((n, found[n]) for n in asked)}


def _one(name: str, net: Net, inputs: Tensor | None = None, targets: Tensor | None = None, seed: int = 0,
         batch: int = 1) -> float:
    value = compute(net, (name,), inputs, targets, seed, batch)[name]
    if isinstance(value, CGError):
        raise value
    return value
