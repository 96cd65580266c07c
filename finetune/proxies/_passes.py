"""The passes behind the proxies: one forward pass with its gradients on data, one with positive weights, two with random ones.

``compute`` runs those that the asked names need, so that a proxy costs the same and gives the same alone and in company.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.linalg import LinAlgError

from cg.errors import CGError
from cg.graph import Graph
from finetune.proxies import _nets as nets
from finetune.proxies._convolution import twice_differentiable
from finetune.proxies._nets import BATCH_NORMS, LAYERS, NORMS, Net, first_tensor, scores_and_targets, weights_of

Values = dict[str, "float | CGError"]
_OF_LOSS = frozenset({"grad_norm", "snip", "plain", "grasp", "fisher"})
_OF_JACOBIAN = frozenset({"jacov", "epe_nas"})
_OF_DATA = _OF_LOSS | _OF_JACOBIAN | {"naswot"}


def compute(net: Net, names: Collection[str], inputs: Tensor | None, targets: Tensor | None, seed: int, batch: int) -> Values:
    """Value of each proxy, or the error that says why there is none."""
    asked, found = set(names), Values()
    if "params" in asked:
        found["params"] = float(net.params if isinstance(net, Graph) else sum(p.numel() for p in net.parameters()))
    if "macs" in asked:
        found["macs"] = (float(net.macs) if isinstance(net, Graph) else
                         CGError("macs needs a graph: a module does not know how many multiply-adds it takes"))
    if "l2_norm" in asked and isinstance(net, nn.Module):
        _keep(found, "l2_norm", lambda: _l2_norm(net))
    if not asked - set(found):
        return found
    with nets.ready(net, inputs, seed, batch) as (model, x, one):
        if asked & _OF_DATA:
            torch.manual_seed(seed)
            _data_pass(found, asked, model, x, targets, seed)
        if "l2_norm" in asked:
            _keep(found, "l2_norm", lambda: _l2_norm(model))
        if "synflow" in asked:
            torch.manual_seed(seed)
            _keep(found, "synflow", lambda: _synflow(model, one))
        if "zen" in asked:  # last: it writes new weights
            torch.manual_seed(seed)
            _keep(found, "zen", lambda: _zen(model, x, seed))
    return found


def _keep(found: Values, name: str, value: Callable[[], float]) -> None:
    try:
        number = value()
        found[name] = number if math.isfinite(number) else CGError(f"{name} of this network is not finite ({number})")
    except CGError as error:
        found[name] = error
    except LinAlgError:
        found[name] = CGError(f"{name}: a matrix of this network has no eigenvalues")


def _l2_norm(model: nn.Module) -> float:
    return sum(float(w.detach().norm()) for w in weights_of(model))


# -- on data ----------------------------------------------------------------------------------------------------------


def _data_pass(found: Values, asked: set[str], model: nn.Module, x: list[Tensor], targets: Tensor | None, seed: int) -> None:
    of_loss, of_jacobian, first, seen = asked & _OF_LOSS, asked & _OF_JACOBIAN, x[0].detach(), list[Tensor]()
    watch = nets.Rectifiers(len(first))
    with ExitStack() as stack:
        if of_jacobian and first.is_floating_point():
            first = first.clone().requires_grad_()
        if "fisher" in asked:
            for m in model.modules():
                if isinstance(m, LAYERS):
                    stack.callback(m.register_forward_hook(lambda m, a, out: seen.append(out)).remove)
        if "naswot" in asked:
            stack.enter_context(watch)
        stack.enter_context(twice_differentiable(model))
        stack.enter_context(torch.set_grad_enabled(bool(of_loss or of_jacobian)))
        out = model(first, *x[1:])
    if "naswot" in asked:
        _keep(found, "naswot", lambda: _naswot(watch))
    if of_jacobian:
        jacobian = _attempt(lambda: _jacobian(out, first, bool(of_loss)))
        if "jacov" in asked:
            _keep(found, "jacov", lambda: _jacov(_good(jacobian)))
        if "epe_nas" in asked:
            _keep(found, "epe_nas", lambda: _epe_nas(_good(jacobian), *scores_and_targets(out, targets, seed)))
    if of_loss:
        weights = _attempt(lambda: weights_of(model))
        if isinstance(weights, CGError):
            found.update(dict.fromkeys(of_loss, weights))
            return
        scores, classes = scores_and_targets(out, targets, seed)
        if classes.shape != scores.shape[:1] or not scores.requires_grad:
            error = CGError(f"no loss: scores {tuple(scores.shape)} do not fit classes {tuple(classes.shape)}")
            found.update(dict.fromkeys(of_loss, error))
            return
        loss = nn.functional.cross_entropy(scores, classes)
        gradients = torch.autograd.grad(loss, [*weights, *seen], create_graph="grasp" in asked, allow_unused=True)
        pairs = [(w, g) for w, g in zip(weights, gradients, strict=False) if g is not None]
        flows = [(a.detach(), g.detach()) for a, g in zip(seen, gradients[len(weights):], strict=True) if g is not None]
        formulas: dict[str, Callable[[], float]] = {
            "grad_norm": lambda: sum(float(g.detach().norm()) for _, g in pairs),
            "snip": lambda: sum(float((w.detach() * g.detach()).abs().sum()) for w, g in pairs),
            "plain": lambda: sum(float((w.detach() * g.detach()).sum()) for w, g in pairs),
            "fisher": lambda: sum(_fisher(a, g) for a, g in flows), "grasp": lambda: _grasp(pairs)}
        for name in formulas.keys() & of_loss:
            _keep(found, name, formulas[name])


def _attempt(what: Callable[[], Any]) -> Any:
    try:
        return what()
    except CGError as error:
        return error


def _good(value: Any) -> Any:
    if isinstance(value, CGError):
        raise value
    return value


def _grasp(pairs: list[tuple[Tensor, Tensor]]) -> float:
    weights = [w for w, _ in pairs]
    product = torch.stack([(g * g.detach()).sum() for _, g in pairs]).sum()
    second = torch.autograd.grad(product, weights, allow_unused=True)
    return sum(float((-w.detach() * h).sum()) for w, h in zip(weights, second, strict=True) if h is not None)


def _fisher(act: Tensor, grad: Tensor) -> float:
    flow = act * grad
    flow = flow.flatten(2).sum(2) if act.ndim > 3 else flow
    return float((flow ** 2).mean(0).sum()) / 2


def _naswot(watch: nets.Rectifiers) -> float:
    if not watch.count:
        raise CGError("naswot counts rectifiers that agree, and this network has none")
    return float(torch.linalg.slogdet(watch.kernel)[1])


def _jacobian(out: Any, first: Tensor, keep_graph: bool) -> Tensor:
    """Gradient of the sum of all outputs with respect to each input, float64 ``[B, values]``."""
    if not first.is_floating_point():
        raise CGError("jacov and epe_nas need a network whose first input is not a table of numbers (tokens have no gradient)")
    (g,) = torch.autograd.grad(first_tensor(out).sum(), first, retain_graph=keep_graph)
    return g.detach().flatten(1).double()


def _jacov(jacobian: Tensor) -> float:
    values = torch.linalg.eigvalsh(torch.corrcoef(jacobian)) + 1e-5
    return float(-(values.log() + 1 / values).sum())


def _epe_nas(jacobian: Tensor, scores: Tensor, targets: Tensor) -> float:
    if targets.shape != (len(jacobian),) or len(scores) != len(jacobian):
        raise CGError(f"epe_nas needs one class for each of the {len(jacobian)} inputs, got targets {tuple(targets.shape)}")
    sums = []
    for c in targets.unique():
        rows = jacobian[targets == c]
        logs = (torch.corrcoef(rows).abs() + 1e-5).log()
        sums.append(logs.sum() / (len(rows) if scores.shape[-1] > 100 else 1))
    s = torch.stack(sums)
    return float(s.abs().sum() if scores.shape[-1] <= 100 else (s[:, None] - s[None, :]).abs().sum() / len(s))


# -- without data -----------------------------------------------------------------------------------------------------


def _synflow(model: nn.Module, x: list[Tensor]) -> float:
    with nets.norms_off(model), nets.positive(model):
        ones = [torch.ones_like(v, dtype=torch.float64) if v.is_floating_point() else v for v in x]
        weights = weights_of(model)
        gradients = torch.autograd.grad(first_tensor(model(*ones)).sum(), weights, allow_unused=True)
        total = sum(float((w.detach() * g).abs().sum()) for w, g in zip(weights, gradients, strict=True) if g is not None)
    if not math.isfinite(total):
        raise CGError("synflow: the flow through this network is not finite even in float64; its weights are not usable")
    return math.log(total) if total > 0 else -math.inf


@torch.no_grad()
def _zen(model: nn.Module, x: list[Tensor], seed: int) -> float:
    if not x[0].is_floating_point():
        raise CGError("zen needs a network whose first input is not a table of numbers (tokens cannot be changed a little)")
    generator = torch.Generator().manual_seed(seed)
    for m in model.modules():
        if isinstance(m, (*LAYERS, *NORMS)):
            for name, p in m.named_parameters(recurse=False):
                if name == "weight" and isinstance(m, LAYERS):
                    p.normal_(generator=generator)
                else:
                    p.fill_(1.0 if name == "weight" else 0.0)
    clean = torch.randn(x[0].shape, dtype=x[0].dtype, generator=generator)
    noisy = clean + 0.01 * torch.randn(x[0].shape, dtype=x[0].dtype, generator=generator)
    logs: list[float] = []

    def note(m: nn.Module, args: tuple[Tensor, ...]) -> None:
        axes = [a for a in range(args[0].ndim) if a != 1]
        logs.append(math.log(max(float(args[0].var(axes, unbiased=False).mean()), 1e-300)) / 2)

    hooks = [m.register_forward_pre_hook(note) for m in model.modules() if isinstance(m, BATCH_NORMS)]
    try:
        before = _features(model, [clean, *x[1:]])
    finally:
        for hook in hooks:
            hook.remove()
    after = _features(model, [noisy, *x[1:]])
    change = float((before - after).double().flatten(1).norm(dim=1).mean())
    return math.log(change) + sum(logs) if change > 0 else -math.inf


def _features(model: nn.Module, x: list[Tensor]) -> Tensor:
    watch = nets.Features(len(x[0]))
    with watch:
        out = first_tensor(model(*x))
    return out if watch.last is None else watch.last
