"""Batch-norm statistics of a sub-network on the user's images, and its accuracy there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from cg.errors import CGError
from evo_search.supernet.images import ImageFolder

Images = str | Path | ImageFolder | Tensor | Iterable[Any]


@torch.no_grad()
def recalibrate(net: nn.Module, images: Images, n: int = 2000, *, size: int = 224, batch: int = 100, seed: int = 0,
                workers: int = 0) -> int:
    """Replace the batch-norm statistics of ``net`` by those that it has on ``images``.

    As ``ofa/imagenet_classification/elastic_nn/utils.py`` of mit-han-lab/once-for-all: every batch passes with its own mean and
    (biased) variance, and the new statistics are the averages of these over the batches, weighted by their sizes. So they
    depend a little on ``batch``. Dropout is off. If it fails, the statistics are those of before.

    Args:
        net: a network with batch normalisation, such as ``OFAMobileNetV3Supernet.subnet(genome)``, on any device; not the
            supernet itself.
        images: a folder of class folders or an ``ImageFolder``, of which ``n`` random images are taken as in training
            (``ImageFolder.batches(train=True)``); a tensor ``[N, 3, r, r]``, of which the first ``n`` are taken in their order;
            or batches ``[B, 3, r, r]``, alone or as the first of a pair.
        n: images to use at most.
        size: side of the images of a folder, pixels: the genome's ``r``.
        batch: images at a time, for a folder and a tensor.
        seed: of what is random, for a folder.
        workers: threads that read images, for a folder.

    Returns:
        The number of images that were used.

    Raises:
        CGError: there are no images, or no normalisation layer of ``net`` was called.
        StorageError: an image cannot be read.
    """
    if n < 1:
        raise CGError(f"n must be 1 or more, got {n}")
    norms = [m for m in net.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    before = [(m.running_mean.clone(), m.running_var.clone()) for m in norms]  # type: ignore[union-attr]
    averages: dict[nn.Module, tuple[Tensor, Tensor]] = {}
    seen, modes = 0, {m: m.training for m in net.modules()}

    def measure(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0]
        dims = [i for i in range(x.ndim) if i != 1]
        var, mean = torch.var_mean(x, dims, correction=0)
        norm.running_mean.copy_(mean)  # type: ignore[operator]
        norm.running_var.copy_(var)  # type: ignore[operator]
        old = averages.get(norm, (mean, var))
        share = len(x) / seen
        averages[norm] = old[0] + share * (mean - old[0]), old[1] + share * (var - old[1])

    hooks = [m.register_forward_pre_hook(measure) for m in norms]
    try:
        net.eval()
        for x, _ in _batches(images, size, batch, n, _device(net), train=True, seed=seed, workers=workers):
            seen += len(x)
            net(x.to(_dtype(net)))
        if not averages:
            raise CGError("no batch normalisation of the network was called; of a supernet, recalibrate what subnet(genome) "
                          "gives" if seen else "there are no images to recalibrate with")
        before = [averages.get(m, old) for m, old in zip(norms, before, strict=True)]
    finally:
        for hook in hooks:
            hook.remove()
        for m, (mean, var) in zip(norms, before, strict=True):
            m.running_mean.copy_(mean)  # type: ignore[union-attr]
            m.running_var.copy_(var)  # type: ignore[union-attr]
        for module, mode in modes.items():
            module.training = mode
    return seen


@torch.no_grad()
def evaluate(net: nn.Module, data: Images, size: int = 224, *, batch: int = 100, workers: int = 0) -> dict[str, float]:
    """Accuracy of ``net`` in eval mode on labelled images.

    Args:
        net: gives logits ``[B, classes]``, on any device; its mode is as before afterwards.
        data: a folder of class folders or an ``ImageFolder`` (see ``ImageFolder.batches``); a pair of tensors, images
            ``[N, 3, r, r]`` and classes ``[N]``; or batches of such pairs.
        size, batch, workers: as for ``recalibrate``.

    Returns:
        ``top1`` and ``top5`` in percent (``top5`` of fewer than 5 classes is 100), ``loss`` (mean cross-entropy, nats) and
        ``images`` (their number).

    Raises:
        CGError: there are no images, a class is not among the outputs, or outputs are not finite.
        StorageError: an image cannot be read.
    """
    if isinstance(data, str | Path):
        data = ImageFolder(data)
    modes = {m: m.training for m in net.modules()}
    hits1 = hits5 = images = 0
    loss = 0.0
    try:
        net.eval()
        for x, y in _batches(data, size, batch, None, _device(net), train=False, seed=0, workers=workers):
            if y is None:
                raise CGError("evaluation needs classes: batches must be pairs (images, classes)")
            logits = net(x.to(_dtype(net)))
            outputs = logits.shape[1]
            if isinstance(data, ImageFolder) and len(data.classes) != outputs:
                raise CGError(f"{data.folder} has {len(data.classes)} classes, the network has {outputs} outputs; give the "
                              "names of all outputs in their order as classes=")
            if int(y.min()) < 0 or int(y.max()) >= outputs:
                raise CGError(f"classes are {int(y.min())} to {int(y.max())}, the network has outputs 0 to {outputs - 1}")
            if not torch.isfinite(logits).all():
                raise CGError("outputs of the network are not finite")
            ranked = logits.topk(min(5, outputs), dim=1).indices == y[:, None]
            hits1, hits5, images = hits1 + int(ranked[:, 0].sum()), hits5 + int(ranked.sum()), images + len(y)
            loss += float(F.cross_entropy(logits.float(), y, reduction="sum"))
    finally:
        for m, mode in modes.items():
            m.training = mode
    if not images:
        raise CGError("there are no images to evaluate on")
    return {"top1": 100 * hits1 / images, "top5": 100 * hits5 / images, "loss": loss / images, "images": float(images)}


def top1(net: nn.Module, data: Images, size: int = 224, *, batch: int = 100, workers: int = 0) -> float:
    """``evaluate(...)["top1"]``: percent of the images whose class has the largest output."""
    return evaluate(net, data, size, batch=batch, workers=workers)["top1"]


def _batches(data: Images, size: int, batch: int, n: int | None, device: torch.device, train: bool, seed: int, workers: int
             ) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Batches on ``device``, of ``n`` images at most in all."""
    if isinstance(data, str | Path):
        data = ImageFolder(data)
    if isinstance(data, ImageFolder):
        part = data if n is None or n >= len(data) else data.drawn(n, seed)[0]
        yield from part.batches(size, batch, train=train, seed=seed, workers=workers, device=device)
        return
    if isinstance(data, Tensor):
        items: Iterable[Any] = data.split(batch)
    elif isinstance(data, tuple | list) and len(data) == 2 and all(isinstance(t, Tensor) for t in data) and data[1].ndim == 1:
        items = zip(data[0].split(batch), data[1].split(batch), strict=True)
    else:
        items = data
    left = n
    for item in items:
        x, y = (item[0], item[1]) if isinstance(item, tuple | list) else (item, None)
        if left is not None:
            if left <= 0:
                return
            x, left = x[:left], left - len(x)
        if len(x):
            yield x.to(device), None if y is None else torch.as_tensor(y).to(device).long()


def _device(net: nn.Module) -> torch.device:
    return next((p.device for p in net.parameters()), torch.device("cpu"))


def _dtype(net: nn.Module) -> torch.dtype:
    return next((p.dtype for p in net.parameters() if p.is_floating_point()), torch.float32)
