"""``SupernetOracle``: the value of a sub-network is its accuracy on the user's images with weights of the supernet.

    oracle = SupernetOracle("ofa_mbv3_d234_e346_k357_w1.0", "imagenet", n_images=10_000, device="cuda:0")
    oracle(genome)          # {"top1": ..., "top5": ..., "loss": ..., "eval_s": ...}

Nothing is trained: weights are cut out, batch-norm statistics are measured anew, images are classified.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from cg.errors import CGError
from evo_search.ofa import SubNet
from evo_search.oracles import EvaluationFailed, OracleError
from evo_search.supernet.evaluation import evaluate, recalibrate
from evo_search.supernet.images import ImageFolder
from evo_search.supernet.mobilenetv3 import SPACES, OFAMobileNetV3Supernet

VALUES = ("top1", "top5", "loss", "eval_s")
_LOADING = threading.Lock()


class SupernetOracle:
    """Accuracy of sub-networks of ``ofa-mbv3`` or ``ofa-mbv3-w12`` without training.

    Args:
        checkpoint: file of the supernet's weights; see ``OFAMobileNetV3Supernet.from_checkpoint``.
        folder: images: folders ``val`` (to classify) and ``train`` (for batch-norm statistics) of one folder a class each; or
            the class folders themselves, or ``val`` alone: statistics and accuracy are then measured on different images of
            these. What is classified here steers the search, so it must not be the test set of the final claim.
        n_images: images to classify, drawn by ``seed``; all that are not needed for the statistics if None.
        recalibrate_with: images for batch-norm statistics; 0 keeps those of the supernet, which do not fit sub-networks.
        device: such as ``"cuda:0"``.
        classes: names of all class folders in the order of the network's outputs, for folders that hold only some of them.
        batch: images at a time; the statistics depend on it a little.
        workers: threads that read images.
        seed: of the draws and of the random crops for the statistics; the same for all networks.
        metric: return this value of ``VALUES`` alone; by default all are returned.

    Calling it with a ``SubNet`` or its text returns ``top1`` and ``top5`` in percent, ``loss`` in nats and ``eval_s``, the
    seconds it took; the resolution is the genome's. A failure (an unreadable image, memory, outputs that are not finite) raises
    ``EvaluationFailed``; a genome of another space raises ``OracleError``. Threads may share it, and it can be pickled (weights
    are read again where it arrives). On one kind of device with one number of threads the values of a genome are the same each
    time.

    Raises:
        StorageError: checkpoint or images cannot be read.
        CGError: a setting is wrong, or there are fewer images than asked for.
    """

    def __init__(self, checkpoint: str | Path, folder: str | Path, n_images: int | None = None, recalibrate_with: int = 2000,
                 device: str = "cpu", *, classes: Sequence[str] | None = None, batch: int = 100, workers: int = 0,
                 seed: int = 0, metric: str | None = None) -> None:
        if (n_images is not None and n_images < 1) or recalibrate_with < 0 or batch < 1 or workers < 0 or seed < 0:
            raise CGError("n_images and batch must be 1 or more, recalibrate_with, workers and seed 0 or more, got "
                          f"{n_images}, {batch}, {recalibrate_with}, {workers} and {seed}")
        if metric is not None and metric not in VALUES:
            raise CGError(f"metric must be one of {', '.join(VALUES)}, got {metric!r}")
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise CGError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from None
        self.checkpoint, self.folder = Path(checkpoint).absolute(), Path(folder).absolute()
        self.n_images, self.recalibrate_with, self.batch, self.workers = n_images, recalibrate_with, batch, workers
        self.device, self.seed, self.metric = str(device), seed, metric
        self.images, self.calibration = _parts(self.folder, classes, n_images, recalibrate_with, seed)
        self._supernet: OFAMobileNetV3Supernet | None = None
        net = self.supernet
        if len(self.images.classes) != net.num_classes:
            raise CGError(f"{folder} has {len(self.images.classes)} classes, the supernet {net.num_classes} outputs; give the "
                          "names of all class folders in the order of the outputs as classes=")
        self._about = {"kind": "supernet", "name": net.space.name, "weights": net.digest(), "images": self.images.digest(),
                       "n_images": len(self.images), "calibration": self.calibration.digest() if recalibrate_with else None,
                       "recalibrate_with": recalibrate_with, "batch": batch, "seed": seed}

    @property
    def supernet(self) -> OFAMobileNetV3Supernet:
        """The supernet on ``device``, read when first needed in a process."""
        with _LOADING:
            if self._supernet is None:
                self._supernet = OFAMobileNetV3Supernet.from_checkpoint(self.checkpoint).to(self.device)
            return self._supernet

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_supernet": None}

    def describe(self) -> dict[str, Any]:
        """Everything that decides a value: hashes of weights and images (names and sizes) among it; not the device."""
        return {**self._about, "metric": self.metric}

    def __call__(self, genome: SubNet | str) -> float | dict[str, float]:
        start = time.perf_counter()
        try:
            a = SubNet.parse(genome) if isinstance(genome, str) else genome
            self.supernet.space.check(a)
        except CGError as error:
            raise OracleError(f"this oracle knows genomes of {self._about['name']} only: {error}") from None
        try:
            net = self.supernet.subnet(a)
            if self.recalibrate_with:
                recalibrate(net, self.calibration, self.recalibrate_with, size=a.r, batch=self.batch, seed=self.seed,
                            workers=self.workers)
            values = evaluate(net, self.images, a.r, batch=self.batch, workers=self.workers)
        except Exception as error:
            message = str(error) if isinstance(error, CGError) else f"{type(error).__name__}: {error}"
            raise EvaluationFailed(message) from error
        values["eval_s"] = time.perf_counter() - start
        return values[self.metric] if self.metric else {name: values[name] for name in VALUES}


def supernet_oracle(space: str, checkpoint: str | Path, images: str | Path, **options: Any) -> SupernetOracle:
    """A ``SupernetOracle`` whose supernet is of this space (``ofa-mbv3`` or ``ofa-mbv3-w12``); ``OracleError`` if it is not."""
    names = [kind.name for kind in SPACES.values()]
    if space not in names:
        raise OracleError(f"there is no supernet of space {space!r}; there are those of {', '.join(names)}")
    oracle = SupernetOracle(checkpoint, images, **options)
    if oracle.supernet.space.name != space:
        raise OracleError(f"checkpoint {checkpoint} is a supernet of {oracle.supernet.space.name}, not of {space}")
    return oracle


def _parts(folder: Path, classes: Sequence[str] | None, n_images: int | None, n_calibration: int, seed: int
           ) -> tuple[ImageFolder, ImageFolder]:
    """Images to classify and images for statistics, never one image for both."""
    has_val = (folder / "val").is_dir()
    images = ImageFolder(folder / "val" if has_val else folder, classes)
    if has_val and (folder / "train").is_dir():
        train = ImageFolder(folder / "train", images.classes)
        if n_images is not None:
            images = images.drawn(n_images, seed)[0]
        return images, train.drawn(n_calibration, seed)[0]
    wanted = (n_images or 1) + n_calibration
    if wanted > len(images):
        raise CGError(f"{images.folder} holds {len(images)} images; {n_calibration} for statistics and {n_images or 1} others "
                      "to classify are more")
    calibration, rest = images.drawn(n_calibration, seed)
    return rest if n_images is None else rest.drawn(n_images, seed)[0], calibration
