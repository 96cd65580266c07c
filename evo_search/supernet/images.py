"""Folders of labelled images as batches of network inputs, scaled as in the training of the official weights.

Transforms: ``ofa/imagenet_classification/data_providers/imagenet.py`` and ``ofa/tutorial/imagenet_eval_helper.py`` of
mit-han-lab/once-for-all, which use torchvision's; this file needs Pillow alone.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cg.errors import CGError, StorageError
from evo_search._images import SUFFIXES, class_folders, image_files, open_image

if TYPE_CHECKING:
    from PIL import Image

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the colours of ImageNet, on a scale from 0 to 1."""
CROP = 0.875  # side of the middle that is kept, of the scaled shorter side
AREA, RATIO, BRIGHTNESS, SATURATION = (0.08, 1.0), (3 / 4, 4 / 3), 32 / 255, 0.5  # of training images


class ImageFolder:
    """Images in one folder for each class, at any depth, read when they are needed.

    Args:
        folder: holds the folders of the classes.
        classes: names of the folders in the order of the network's outputs; a name without a folder is a class without images.
            By default all folders in alphabetical order, which for ImageNet is the order of the official weights.

    Attributes:
        folder: as given.
        classes: names in the order of the outputs.
        files: (file, class) of every image, sorted by class and name.

    Raises:
        StorageError: there are fewer than two classes, or no images.
        CGError: a folder is not among ``classes``.
    """

    def __init__(self, folder: str | Path, classes: Sequence[str] | None = None) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise StorageError(f"{self.folder} is no folder of images")
        found = class_folders(self.folder)
        self.classes = tuple(found if classes is None else classes)
        number = {name: i for i, name in enumerate(self.classes)}
        strange = [name for name in found if name not in number]
        if strange or len(number) != len(self.classes):
            raise CGError(f"classes must name every folder of {self.folder} once; "
                          + (f"{strange[0]!r} is not among them" if strange else "one is there twice"))
        self.files: tuple[tuple[Path, int], ...] = tuple(
            (file, c) for name, c in number.items() if name in found for file in image_files(self.folder / name))
        if not self.files:
            raise StorageError(f"{self.folder} holds no images ({', '.join(sorted(SUFFIXES))})")

    def __len__(self) -> int:
        return len(self.files)

    def part(self, rows: Sequence[int]) -> ImageFolder:
        """Some of the images, by their numbers, in this order."""
        other = object.__new__(ImageFolder)
        other.folder, other.classes, other.files = self.folder, self.classes, tuple(self.files[i] for i in rows)
        return other

    def drawn(self, n: int, seed: int) -> tuple[ImageFolder, ImageFolder]:
        """``n`` random images, and the others, both in the order of ``files``. ``CGError`` if there are fewer than ``n``."""
        if not 0 <= n <= len(self):
            raise CGError(f"{self.folder} holds {len(self)} images, not {n}")
        order = np.random.default_rng((seed, 7)).permutation(len(self))
        return self.part(sorted(order[:n].tolist())), self.part(sorted(order[n:].tolist()))

    def digest(self) -> str:
        """16 hex digits: a hash of classes, names and sizes in bytes of the images; their content is not read."""
        hashed = hashlib.blake2b("\n".join(self.classes).encode("utf-8", "surrogatepass"), digest_size=8)
        for file, c in self.files:
            text = f"{file.relative_to(self.folder).as_posix()} {c} {file.stat().st_size}\n"
            hashed.update(text.encode("utf-8", "surrogatepass"))
        return hashed.hexdigest()

    def batches(self, size: int, batch: int = 100, *, train: bool = False, seed: int = 0, workers: int = 0,
                device: torch.device | str = "cpu") -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs float32 ``[B, 3, size, size]`` and classes int64 ``[B]``; the last batch may be smaller.

        Args:
            size: side in pixels.
            batch: B.
            train: False: in order; the shorter side is scaled to ``size / 0.875`` pixels, rounded up, and the middle is cut
                out. True: in random order, each image a random crop (8 to 100 % of the area, sides 3:4 to 4:3), perhaps
                mirrored, with other brightness and saturation, as the official code measures batch-norm statistics.
            seed: of what is random; an image's crop does not depend on the number of workers.
            workers: threads that read images, one batch ahead; 0 reads them in this one.
            device: where the tensors go.

        Raises ``StorageError`` naming an image that cannot be read.
        """
        if size < 1 or batch < 1 or workers < 0:
            raise CGError(f"size and batch must be 1 or more and workers 0 or more, got {size}, {batch} and {workers}")
        order = np.random.default_rng((seed, 8)).permutation(len(self)).tolist() if train else list(range(len(self)))
        groups = [order[i:i + batch] for i in range(0, len(order), batch)]
        mean, std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (MEAN, STD))

        def read(i: int) -> np.ndarray:
            return _read(self.files[i][0], size, np.random.default_rng((seed, 9, i)) if train else None)

        def ready(rows: list[int], images: list[np.ndarray]) -> tuple[Tensor, Tensor]:
            x = torch.from_numpy(np.stack(images)).to(device).permute(0, 3, 1, 2).float().div_(255)
            return (x - mean) / std, torch.tensor([self.files[i][1] for i in rows], device=device)

        if not workers:
            for rows in groups:
                yield ready(rows, [read(i) for i in rows])
            return
        pool = ThreadPoolExecutor(workers)
        try:
            ahead = [[pool.submit(read, i) for i in rows] for rows in groups[:1]]
            for n, rows in enumerate(groups):
                ahead += [[pool.submit(read, i) for i in later] for later in groups[n + 1:n + 2]]
                yield ready(rows, [job.result() for job in ahead.pop(0)])
        finally:
            pool.shutdown(cancel_futures=True)


def _read(file: Path, size: int, rng: np.random.Generator | None) -> np.ndarray:
    """One image as uint8 ``[size, size, 3]``; with ``rng`` as a training image."""
    image = open_image(file)
    return np.asarray(_middle(image, size) if rng is None else _random_view(image, size, rng))


def _middle(image: Image.Image, size: int) -> Image.Image:
    from PIL import Image as Pil

    short = math.ceil(size / CROP)
    width, height = image.size
    scaled = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
    left, top = (round((side - size) / 2) for side in scaled)
    return image.resize(scaled, Pil.Resampling.BILINEAR).crop((left, top, left + size, top + size))


def _random_view(image: Image.Image, size: int, rng: np.random.Generator) -> Image.Image:
    from PIL import Image as Pil
    from PIL import ImageEnhance

    out = image.crop(_random_box(*image.size, rng)).resize((size, size), Pil.Resampling.BILINEAR)
    if rng.random() < 0.5:
        out = out.transpose(Pil.Transpose.FLIP_LEFT_RIGHT)
    changes = [(ImageEnhance.Brightness, BRIGHTNESS), (ImageEnhance.Color, SATURATION)]
    for i in rng.permutation(2):
        kind, most = changes[i]
        out = kind(out).enhance(float(rng.uniform(1 - most, 1 + most)))
    return out


def _random_box(width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of a random part; the largest middle of an allowed ratio if ten draws do not fit."""
    for _ in range(10):
        area, ratio = width * height * rng.uniform(*AREA), math.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    w = min(width, max(1, round(height * RATIO[1])))
    h = min(height, max(1, round(width / RATIO[0])))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h
