"""``TrainingOracle``: the value of a network is what training it really gives, on any data that have classes.

    oracle = TrainingOracle("images.npz", space="nasbench201", epochs=3, folder="trained")
    oracle(genome)          # {"val_acc": 40.25, "val_loss": 1.634, "train_loss": 1.765, "train_s": 13.6, "epochs": 3.0, ...}

How the data are read is in ``_training_data``, the training itself in ``_training_run``.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from cg.errors import CGError
from cg.files import atomic_path, write_json
from evo_search._evaluations import RESULT, Evaluations, module_of, name_of, read_result, space_of, tail
from evo_search._process import ProcessEnded, call_apart, interruptible
from evo_search._training_data import AUGMENTS, Data
from evo_search._training_run import Recipe, Run, own_generators, seed_all
from evo_search.oracles import EvaluationFailed

if TYPE_CHECKING:
    from evo_search.spaces._base import SearchSpace

__all__ = ["VALUES", "TrainingOracle"]
VALUES = ("val_acc", "val_loss", "train_loss", "train_s", "epochs", "params", "stopped_early")
STATE, LOG, WEIGHTS = "state.safetensors", "log.txt", "weights.safetensors"
_TURN = threading.Lock()  # torch's generators and number of threads belong to the whole process


class TrainingOracle:
    """Trains the network of a genome and returns the accuracy on validation data that it did not see.

    Args:
        data: one of
            a ``.npz`` file with ``x_train``, ``y_train`` and, optionally, ``x_val``, ``y_val`` (test arrays are never read);
            a folder of images, one folder a class, or ``train`` and ``val`` with such folders (kept in memory as uint8);
            ``(images, labels)``, or two such pairs, for training and validation: uint8 ``[n, H, W]``, ``[n, H, W, C]`` or
            ``[n, C, H, W]``, standardised with the training images' mean and deviation of each channel, or floating point
            ``[n, …]``, used as they are; labels are whole numbers ``[n]`` from 0;
            a torch Dataset of pairs (input, class) with a length, or two.
        make: ``genome -> torch.nn.Module`` that gives logits ``[B, classes]`` (of several outputs the first counts); by default
            the space's ``to_torch``, else ``extract.to_torch`` of the graph. It must be picklable if the oracle is to be.
            Only its name goes into ``describe()``: choose another folder when what it makes has changed.
        space: a search space or its name: tells networks apart and, without ``make``, builds them.
        folder: one folder for each network is made here with log, state and result; ``None`` keeps nothing.
        epochs, batch, lr, weight_decay, momentum, warmup_epochs: of the training. Batches that are not full are left out.
        optimizer: ``"sgd"`` (Nesterov momentum) or ``"adamw"``.
        schedule: of the learning rate, step by step: ``"cosine"``, ``"linear"`` or ``"constant"``.
        label_smoothing: share of the target spread over all classes.
        clip: largest norm of the gradient; ``None`` does not limit it.
        augment: ``"crop-flip"`` (shift by up to an eighth of the width, mirror), ``"flip"``, ``"none"``; ``"auto"`` is
            crop-flip for images of up to 64 pixels, flip for larger ones. A Dataset brings its own transforms.
        holdout: share of the training data, equal in every class, that is the validation part where the data have none.
        image_size: height and width of the images of a folder; default: the space's input, else 32.
        budget_s: seconds for one network, validation and whole epochs of earlier attempts included; looked at between batches.
        on_budget: what happens when they are spent. ``"fail"``: the evaluation fails, since what half a schedule reached says
            little beside whole ones. ``"keep"``: the values after the last whole epoch count, with ``stopped_early`` 1.0;
            without a whole epoch it fails. The state is kept in both cases: with more seconds training goes on from there.
        seed: of the held-out part, weights, order, augmentation and dropout; the same for every network.
        device: where to train, such as ``"cuda:0"``.
        threads: of torch; ``None`` leaves them as they are.
        workers: processes that read a Dataset.
        keep_weights: leave the trained weights in the network's folder.
        own_process: train in a fresh process, so that threads train side by side (give ``threads``, too), a crash is one more
            failure, and a training that hangs is ended a minute after ``budget_s``. Costs seconds to start; the data, ``make``
            and genomes must be picklable, and a script needs its ``if __name__ == "__main__"``.
        metric: return this value alone, such as ``"val_acc"``; by default all are returned.

    Calling it returns ``VALUES`` by name, all floats, accuracy in percent, time in seconds (validation included). A killed
    training goes on after its last whole epoch, and on the CPU with the same number of threads its values are those of a
    training that was not interrupted. A finished one is not repeated. A failure of any kind (NaN, memory, an error in the
    network) raises ``EvaluationFailed`` with the end of the log.

    Any number of processes may use one folder: one network is trained by one of them at a time. Threads of one process take
    turns unless ``own_process``, since random generators belong to the process.

    Raises ``CGError`` naming the setting, ``StorageError`` for data that cannot be read.
    """

    def __init__(self, data: Any, make: Callable[[Any], nn.Module] | None = None, *,
                 space: SearchSpace[Any] | str | None = None, folder: str | Path | None = None, epochs: int = 12,
                 batch: int = 128, lr: float = 0.1, weight_decay: float = 5e-4, momentum: float = 0.9, optimizer: str = "sgd",
                 schedule: str = "cosine", warmup_epochs: float = 0.0, label_smoothing: float = 0.0, clip: float | None = None,
                 augment: str = "auto", holdout: float = 0.2, image_size: int | None = None, budget_s: float | None = None,
                 on_budget: str = "fail", seed: int = 0, device: str = "cpu", threads: int | None = None, workers: int = 0,
                 keep_weights: bool = False, own_process: bool = False, metric: str | None = None) -> None:
        self.recipe = Recipe(epochs, batch, lr, weight_decay, momentum, optimizer, schedule, warmup_epochs, label_smoothing,
                             clip)
        if augment not in AUGMENTS or on_budget not in ("fail", "keep"):
            raise CGError(f"augment must be one of {', '.join(AUGMENTS)} and on_budget fail or keep, got {augment!r} and "
                          f"{on_budget!r}")
        if metric is not None and metric not in VALUES:
            raise CGError(f"metric must be one of {', '.join(VALUES)}, got {metric!r}")
        if not 0 < holdout < 1 or (budget_s is not None and not budget_s > 0):
            raise CGError(f"holdout must be between 0 and 1 and budget_s positive, got {holdout!r} and {budget_s!r}")
        if workers < 0 or (threads is not None and threads < 1) or (image_size is not None and image_size < 1):
            raise CGError("workers must be 0 or more, threads and image_size 1 or more, got "
                          f"{workers}, {threads} and {image_size}")
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise CGError(f"seed must be a whole number of 0 or more, got {seed!r}")
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise CGError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from None
        self.space, self.make = space_of(space), make
        size = image_size or (self.space.input_shape[-1] if hasattr(self.space, "input_shape") else 32)  # type: ignore[union-attr]
        self._source = (Path(data).absolute() if isinstance(data, str | Path) else data, holdout, seed, augment, size, workers)
        self._data: Data | None = None
        self.budget_s, self.on_budget, self.seed, self.keep_weights = budget_s, on_budget, seed, keep_weights
        self.device, self.threads, self.metric, self.own_process = str(device), threads, metric, own_process
        self._about = self.data.describe()
        self.kept = Evaluations(folder, self._identity())

    @property
    def data(self) -> Data:
        """The two parts, read when first needed in a process."""
        if self._data is None:
            self._data = Data(*self._source)
        return self._data

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_data": None}

    def _identity(self) -> dict[str, Any]:
        made = ("default" if self.make is None
                else getattr(self.make, "__qualname__", None) or type(self.make).__qualname__)
        return {"kind": "training", "data": self._about, "space": getattr(self.space, "name", None), "make": made,
                "seed": self.seed, **asdict(self.recipe)}

    def describe(self) -> dict[str, Any]:
        """Everything that decides a value; not the folder, the device and the number of threads."""
        cut = {"budget_s": float(self.budget_s)} if self.on_budget == "keep" and self.budget_s is not None else {}
        return {**self._identity(), "metric": self.metric, **cut}

    def __call__(self, genome: Any) -> float | dict[str, float]:
        arch, key = name_of(genome, self.space)
        with self.kept.locked(arch, key) as folder:
            found = self._finished(folder)
            if found is None:
                if self.own_process:
                    found = self._train_apart(genome, arch, folder)
                else:
                    with _TURN:
                        found = self._train(genome, arch, folder)
            return found if self.metric is None else found[self.metric]

    def _finished(self, folder: Path) -> dict[str, float] | None:
        """Kept values, unless they are of a training that was stopped and may go on now."""
        kept = read_result(folder)
        try:
            values = {str(k): float(v) for k, v in (kept or {})["values"].items()}
            stopped = values["stopped_early"] == 1.0
        except (KeyError, TypeError, ValueError, AttributeError):
            return None
        if stopped and not (self.on_budget == "keep" and self.budget_s == (kept or {}).get("budget_s")):
            return None
        return values

    def _train_apart(self, genome: Any, arch: str, folder: Path) -> dict[str, float]:
        limit = None if self.budget_s is None else self.budget_s + 60
        try:
            values: dict[str, float] = call_apart(self._train, genome, arch, folder, limit_s=limit)
        except ProcessEnded as error:
            raise EvaluationFailed(str(error), log=tail(folder / LOG)) from None
        return values

    def _train(self, genome: Any, arch: str, folder: Path) -> dict[str, float]:
        threads = torch.get_num_threads()
        device = torch.device(self.device)

        def log(line: str) -> None:
            with (folder / LOG).open("a", encoding="utf-8", errors="replace") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")

        try:
            if self.threads is not None:
                torch.set_num_threads(self.threads)
            with own_generators(device), interruptible() as interrupted:
                return self._run(genome, arch, folder, device, log, interrupted.is_set)
        except Exception as error:
            expected = isinstance(error, EvaluationFailed)
            if not expected:
                log(traceback.format_exc())
            log(f"failed: {error}")
            message = str(error) if expected else f"{type(error).__name__}: {error}"
            raise EvaluationFailed(message, log=tail(folder / LOG)) from error
        finally:
            torch.set_num_threads(threads)

    def _run(self, genome: Any, arch: str, folder: Path, device: torch.device, log: Callable[[str], None],
             stop: Callable[[], bool]) -> dict[str, float]:
        seed_all(self.seed, 0)
        module = (self.make(genome) if self.make is not None else module_of(genome, self.space, self.seed)).to(device)
        path = folder / STATE
        run = Run(module, self.data, self.recipe, self.seed, device, path if self.kept.folder else None, log, stop)
        params = sum(p.numel() for p in module.parameters() if p.requires_grad)
        log(f"network {arch}: {params:,} parameters, on {device} with {torch.get_num_threads()} threads")
        if path.exists():
            log(f"went on after epoch {run.epoch}" if run.load(path) else "the kept state cannot be used; training begins anew")
        whole = run.train(self.budget_s)
        if not whole:
            log(f"budget of {self.budget_s:g} s spent in epoch {run.epoch + 1} of {self.recipe.epochs}")
            if self.on_budget == "fail" or not run.epoch:
                raise EvaluationFailed(f"the budget of {self.budget_s:g} s was spent after {run.epoch} of {self.recipe.epochs} "
                                       "epochs")
        values = {**run.values, "params": float(params), "stopped_early": float(not whole)}
        if self.kept.folder is None:
            return values
        if self.keep_weights:
            from safetensors.torch import save

            with atomic_path(folder / WEIGHTS) as temporary:
                temporary.write_bytes(save({k: v.cpu().contiguous().clone() for k, v in module.state_dict().items()}))
        write_json(folder / RESULT, {"values": values, "budget_s": self.budget_s, "arch": arch})
        if whole:
            path.unlink(missing_ok=True)
        return values
