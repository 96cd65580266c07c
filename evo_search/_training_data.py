"""Labelled data for ``TrainingOracle``: arrays, ``.npz`` files, folders of images, torch Datasets; batches of them by seed.

Nothing random is kept here: the order of a batch and its augmentation follow from the generator that the caller gives.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cg.errors import CGError, StorageError
from evo_search._images import class_folders, image_files, open_image

if TYPE_CHECKING:
    from PIL import Image

AUGMENTS = ("auto", "crop-flip", "flip", "none")
SMALL = 64  # the widest image that "auto" crops and flips
_MEMORY = 4 << 30


@dataclass(frozen=True)
class Part:
    """Examples ``[n, …]`` with classes ``int64 [n]``; images are uint8 ``[n, C, H, W]``, other inputs floating point."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)


class Data:
    """A training and a validation part, and how batches are made of them.

    Args:
        source: see ``TrainingOracle``.
        holdout: fraction of the training part that becomes the validation part where the source has none.
        seed: of that choice.
        augment: one of ``AUGMENTS``.
        image_size: height and width that images of a folder get, if ``source`` is one.
        workers: processes that read a torch Dataset.

    Attributes:
        train, val: ``Part`` or a torch Dataset.
        digest: hash of the arrays; ``None`` for torch Datasets.
    """

    def __init__(self, source: Any, holdout: float, seed: int, augment: str, image_size: int, workers: int = 0) -> None:
        train, val = _read(source, image_size)
        self.workers = workers
        self.digest: str | None = None
        if val is None:
            train, val = _split(train, holdout, seed)
        self.train, self.val = train, val
        for name, part in (("training", train), ("validation", val)):
            if len(part) < 1:
                raise CGError(f"data has no {name} examples")
        self.augment = "none"
        if isinstance(train, Part):
            self._prepare(augment)
        elif augment not in ("auto", "none"):
            raise CGError(f"augment {augment!r} is for arrays; a torch Dataset brings its own transforms")

    def _prepare(self, augment: str) -> None:
        assert isinstance(self.val, Part)
        if self.train.x.shape[1:] != self.val.x.shape[1:] or self.train.x.dtype != self.val.x.dtype:
            raise CGError(f"training examples are {self.train.x.dtype} of shape {tuple(self.train.x.shape[1:])}, validation "
                          f"examples {self.val.x.dtype} of shape {tuple(self.val.x.shape[1:])}")
        images = self.train.x.ndim == 4
        small = images and max(self.train.x.shape[2:]) <= SMALL
        self.augment = ("crop-flip" if small else "flip" if images else "none") if augment == "auto" else augment
        if self.augment != "none" and not images:
            raise CGError(f"augment {augment!r} needs images [n, C, H, W], not shape {tuple(self.train.x.shape)}")
        self.mean: Tensor | None = None
        self.scale: Tensor | None = None
        if self.train.x.dtype == torch.uint8:
            count = torch.stack([torch.bincount(self.train.x[:, c].flatten().int(), minlength=256)
                                 for c in range(self.train.x.shape[1])]).double()
            share, values = count / count.sum(1, keepdim=True), torch.arange(256.0, dtype=torch.float64)
            mean = share @ values
            deviation = (share @ values.square() - mean.square()).clamp(min=1.0).sqrt()
            self.mean, self.scale = mean.float().view(-1, 1, 1), deviation.float().view(-1, 1, 1)
        total = hashlib.blake2b(digest_size=10)
        for tensor in (self.train.x, self.train.y, self.val.x, self.val.y):
            total.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode() + tensor.numpy().data)
        self.digest = total.hexdigest()

    def describe(self) -> dict[str, Any]:
        """JSON values that tell these data from others."""
        what = ({"digest": self.digest} if self.digest
                else {"dataset": type(getattr(self.train, "dataset", self.train)).__qualname__})
        return {**what, "train": len(self.train), "val": len(self.val), "augment": self.augment}

    def batches(self, epoch_seed: Sequence[int], batch: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Augmented training batches of one epoch in random order; a last batch that is not full is left out."""
        rng = np.random.default_rng(list(epoch_seed))
        order = rng.permutation(len(self.train))
        order = order[:max(len(order) // batch * batch, min(batch, len(order)))]
        if not isinstance(self.train, Part):
            yield from self._load(self.train, order.tolist(), batch, device, int(rng.integers(2**62)))
            return
        for i in range(0, len(order), batch):
            rows = torch.from_numpy(order[i:i + batch])
            x = self._ready(self.train.x[rows], device)
            yield _augmented(x, self.augment, rng), self.train.y[rows].to(device)

    def validation(self, batch: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """The validation part in its own order."""
        if not isinstance(self.val, Part):
            yield from self._load(self.val, list(range(len(self.val))), batch, device, 0)
            return
        for i in range(0, len(self.val), batch):
            yield self._ready(self.val.x[i:i + batch], device), self.val.y[i:i + batch].to(device)

    def _load(self, dataset: Any, order: list[int], batch: int, device: torch.device, seed: int
              ) -> Iterator[tuple[Tensor, Tensor]]:
        from torch.utils.data import DataLoader

        loader = DataLoader(dataset, batch, sampler=order, num_workers=self.workers,
                            generator=torch.Generator().manual_seed(seed))
        for item in loader:
            if not isinstance(item, list | tuple) or len(item) < 2:
                raise CGError(f"items of the Dataset must be pairs (input, class), got a {type(item).__name__}")
            yield item[0].to(device), torch.as_tensor(item[1]).long().to(device)

    def _ready(self, x: Tensor, device: torch.device) -> Tensor:
        x = x.to(device).float()
        if self.mean is not None and self.scale is not None:
            x = (x - self.mean.to(device)) / self.scale.to(device)
        return x


def _augmented(x: Tensor, how: str, rng: np.random.Generator) -> Tensor:
    """Random mirror images and, for ``crop-flip``, shifts by up to an eighth of the width with zeros at the border."""
    if how == "none":
        return x
    n, _, height, width = x.shape
    if how == "crop-flip":
        pad = max(1, width // 8)
        shift = torch.from_numpy(rng.integers(0, 2 * pad + 1, (2, n))).to(x.device)
        rows = (shift[0, :, None] + torch.arange(height, device=x.device))[:, :, None]
        columns = (shift[1, :, None] + torch.arange(width, device=x.device))[:, None, :]
        padded = torch.nn.functional.pad(x, (pad, pad, pad, pad)).permute(0, 2, 3, 1)
        x = padded[torch.arange(n, device=x.device)[:, None, None], rows, columns].permute(0, 3, 1, 2).contiguous()
    mirror = torch.from_numpy(rng.random(n) < 0.5).to(x.device)
    return torch.where(mirror[:, None, None, None], x.flip(-1), x)


def _read(source: Any, image_size: int) -> tuple[Any, Any]:
    """Training part and validation part, the second one ``None`` where the source has none."""
    if isinstance(source, str | Path):
        path = Path(source)
        if path.is_dir():
            return _read_folder(path, image_size)
        return _read_npz(path)
    if isinstance(source, tuple | list) and len(source) == 2:
        first, second = source
        if all(isinstance(p, tuple | list) and len(p) == 2 for p in source):
            train, val = _part(first[0], first[1], "training"), _part(second[0], second[1], "validation")
            if not np.isin(val.y.numpy(), train.y.numpy()).all():
                raise CGError("validation labels hold classes that the training labels do not have")
            return train, val
        if all(_is_dataset(p) for p in source):
            return first, second
        return _part(first, second, "training"), None
    if _is_dataset(source):
        return source, None
    raise CGError("data must be a .npz file, a folder of images, (images, labels), ((images, labels), (images, labels)), a "
                  f"torch Dataset or two of them, got {type(source).__name__}")


def _is_dataset(value: Any) -> bool:
    return (hasattr(value, "__getitem__") and hasattr(value, "__len__")
            and not isinstance(value, str | bytes | dict | list | tuple | np.ndarray | Tensor))


def _part(x: Any, y: Any, name: str) -> Part:
    a, b = np.asarray(x), np.asarray(y)
    if b.ndim != 1 or len(a) != len(b) or b.dtype.kind not in "iu":
        raise CGError(f"{name} labels must be whole numbers, one for each of the {len(a)} examples, got {b.dtype} of shape "
                      f"{b.shape}")
    if len(b) and b.min() < 0:
        raise CGError(f"{name} labels must be 0 or more, got {b.min()}")
    if a.dtype == np.uint8:
        if a.ndim == 3:
            a = a[:, None]
        elif a.ndim == 4 and a.shape[1] not in (1, 3, 4) and a.shape[3] in (1, 3, 4):
            a = a.transpose(0, 3, 1, 2)
        if a.ndim != 4:
            raise CGError(f"{name} images of type uint8 must be [n, H, W], [n, H, W, C] or [n, C, H, W], got shape {a.shape}")
    elif a.dtype.kind == "f":
        a = a.astype(np.float32)
        if not np.isfinite(a).all():
            raise CGError(f"{name} examples hold values that are not finite")
    else:
        raise CGError(f"{name} examples must be uint8 images or floating-point arrays, got {a.dtype}")
    return Part(torch.from_numpy(np.ascontiguousarray(a)), torch.from_numpy(b.astype(np.int64)))


def _split(train: Any, holdout: float, seed: int) -> tuple[Any, Any]:
    """Part of the training examples as validation examples: the same share of each class, where the classes are known."""
    rng = np.random.default_rng((seed, 1))
    if not isinstance(train, Part):
        from torch.utils.data import Subset

        order = rng.permutation(len(train))
        n_val = round(holdout * len(train))
        return Subset(train, sorted(order[n_val:].tolist())), Subset(train, sorted(order[:n_val].tolist()))
    chosen = np.zeros(len(train), bool)
    y = train.y.numpy()
    for c in np.unique(y):
        rows = np.flatnonzero(y == c)
        chosen[rng.permutation(rows)[:round(holdout * len(rows))]] = True
    keep, out = torch.from_numpy(~chosen), torch.from_numpy(chosen)
    return Part(train.x[keep], train.y[keep]), Part(train.x[out], train.y[out])


def _read_npz(path: Path) -> tuple[Part, Part | None]:
    """``x_train, y_train`` and, if they are there, ``x_val, y_val``. Test arrays are never read: a search must not see them."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {k: file[k] for k in ("x_train", "y_train", "x_val", "y_val") if k in file.files}
            names = file.files
    except (OSError, ValueError, EOFError, AttributeError) as error:
        raise StorageError(f"cannot read data {path}: {error}") from None
    missing = [k for k in ("x_train", "y_train", *(("x_val", "y_val") if {"x_val", "y_val"} & set(names) else ()))
               if k not in arrays]
    if missing:
        raise StorageError(f"data {path} has no array {missing[0]!r}; it has {', '.join(names) or 'none'}")
    val = _part(arrays["x_val"], arrays["y_val"], "validation") if "x_val" in arrays else None
    return _part(arrays["x_train"], arrays["y_train"], "training"), val


def _read_folder(path: Path, size: int) -> tuple[Part, Part | None]:
    """Folders ``train`` and ``val`` of one folder a class, or the class folders themselves."""
    if (path / "train").is_dir():
        classes = class_folders(path / "train")
        val = _read_images(path / "val", classes, size) if (path / "val").is_dir() else None
        return _read_images(path / "train", classes, size), val
    return _read_images(path, class_folders(path), size), None


def _read_images(path: Path, classes: list[str], size: int) -> Part:
    """All images, the shorter side scaled to ``size`` pixels and the middle cut out, in colour."""
    files = [(file, c) for c, name in enumerate(classes) for file in image_files(path / name)]
    if len(files) * 3 * size * size > _MEMORY:
        raise CGError(f"{len(files):,} images of {size} x {size} in {path} are too many for the memory; give a torch Dataset")
    x = np.empty((len(files), 3, size, size), np.uint8)
    for i, (file, _) in enumerate(files):
        x[i] = _fitted(open_image(file), size).transpose(2, 0, 1)
    return _part(x, np.array([c for _, c in files], np.int64), "image")


def _fitted(image: Image.Image, size: int) -> np.ndarray:
    from PIL import Image as Pil
    from PIL import ImageOps

    return np.asarray(ImageOps.fit(image, (size, size), Pil.Resampling.BILINEAR))
