"""Oracles: what a search asks for the value of a network (a benchmark table, a surrogate, any function).

An oracle is a callable ``genome -> float``, or several numbers by name; ``describe()`` names it in the history, so that a
run is not continued with another one. Raising, or returning a number that is not finite, means "this network failed". This
file must not know how candidates are chosen, and must not cache: counting each query once is the history's work.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from cg.errors import CGError, StorageError

if TYPE_CHECKING:
    import onnxruntime

    from evo_search.spaces._base import SearchSpace
    from evo_search.tables import Table


class OracleError(CGError):
    """An oracle cannot answer (unknown metric, unreadable genome, missing file)."""


class EvaluationFailed(CGError):
    """The evaluation of one network failed (crash, time limit, NaN); the search records it as failed and goes on.

    Attributes:
        log: the end of what the evaluation wrote, or the empty string.
    """

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(message)
        self.log = log


@runtime_checkable
class Oracle(Protocol):
    """What ``evolve`` and ``random_search`` need of an oracle."""

    def __call__(self, genome: Any) -> float | Mapping[str, float]:
        """Value of one network in the oracle's own unit, or several by name."""
        ...

    def describe(self) -> dict[str, Any]:
        """JSON values that tell this oracle from another."""
        ...


class CallableOracle:
    """Any function ``genome -> float`` or ``genome -> {name: float}``, for instance one that trains the network.

    Args:
        fn: the function; it may raise.
        name: how the history calls it, by default the function's qualified name.
    """

    def __init__(self, fn: Callable[[Any], float | Mapping[str, float]], name: str | None = None) -> None:
        self._fn = fn
        self.name = name or getattr(fn, "__qualname__", type(fn).__qualname__)

    def __call__(self, genome: Any) -> float | Mapping[str, float]:
        value = self._fn(genome)
        return value if isinstance(value, Mapping) else float(value)

    def describe(self) -> dict[str, Any]:
        return {"kind": "callable", "name": self.name}


class TableOracle:
    """A benchmark table of this package: what training that network really gave.

    A genome without a row, or without a value of this metric in it, raises and so is a failed query.

    Args:
        space_name: a table of ``evo_search.tables`` (``nasbench101``, ``nasbench201-cifar100``, …).
        metric: one of the table's metrics, by default the table's own choice; accuracies are in percent.

    Raises:
        OracleError: the table has no such metric; the message lists those it has.
    """

    def __init__(self, space_name: str, metric: str | None = None) -> None:
        from evo_search import tables

        self.space_name = space_name
        self._table: Table = tables.load(space_name)
        self.metric = metric or self._table.default_metric
        if self.metric not in self._table.metrics:
            raise OracleError(f"table {space_name!r} has no metric {metric!r}; it has "
                              f"{', '.join(sorted(self._table.metrics))}")

    def __call__(self, genome: Any) -> float:
        return float(self._table.lookup(_encoded(self.space_name, genome), self.metric))

    def describe(self) -> dict[str, Any]:
        return {"kind": "table", "space": self.space_name, "metric": self.metric}

    @property
    def best_possible(self) -> float:
        """Largest value in the table (rows without a value left out)."""
        return float(np.nanmax(self._table.metrics[self.metric]))


DARTS_OPS = ("max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3",
             "dil_conv_5x5")
_FIRST_EDGE = (0, 2, 5, 9)  # number of the first edge that enters intermediate node 0..3 of a DARTS cell
_INACTIVE = "#na#"


def darts_columns() -> tuple[str, ...]:
    """The 34 input columns of the surrogate in the order its network expects.

    The order is numeric (edge 2 before edge 10), unlike the alphabetical order of the encoding file; with the
    alphabetical one the answers look plausible and correlate only 0.85 with the right ones.
    """
    edges = [f"edge_{cell}_{i}" for cell in ("normal", "reduce") for i in range(14)]
    return (*edges, *(f"inputs_node_{cell}_{n}" for cell in ("normal", "reduce") for n in (3, 4, 5)))


def darts_settings(tokens: str) -> dict[str, str]:
    """Active columns of a genotype of 16 ``input:op`` tokens (8 normal, then 8 reduce; two per node, four nodes).

    Inactive edges are left out. Raises ``OracleError`` on another number of tokens, an input that does not exist yet
    or one input twice in a node.
    """
    pairs = [(int(i), int(op)) for i, op in re.findall(r"(\d+):(\d+)", tokens)]
    if len(pairs) != 16:
        raise OracleError(f"a DARTS genotype has 16 input:op tokens, {tokens!r} has {len(pairs)}")
    active = {}
    for c, cell in enumerate(("normal", "reduce")):
        for node in range(4):
            at = 8 * c + 2 * node
            (a, op_a), (b, op_b) = sorted(pairs[at:at + 2])
            if a == b or b >= node + 2 or max(op_a, op_b) >= len(DARTS_OPS):
                raise OracleError(f"{cell} node {node} of {tokens!r} needs two different inputs below {node + 2} and "
                                  f"ops below {len(DARTS_OPS)}")
            active[f"edge_{cell}_{_FIRST_EDGE[node] + a}"] = DARTS_OPS[op_a]
            active[f"edge_{cell}_{_FIRST_EDGE[node] + b}"] = DARTS_OPS[op_b]
            if node:
                active[f"inputs_node_{cell}_{node + 2}"] = f"{a}_{b}"
    return active


class SurrogateOracle:
    """The live surrogate of NAS-Bench-301 that YAHPO Gym trained: predicted validation accuracy in percent.

    A *surrogate*: a neural network fitted to real trainings, about one point above NAS-Bench-301's own XGB surrogate;
    use it for ranking and search, not as a measured accuracy.

    Source: slds-lmu/yahpo_data (Apache-2.0), scenario nb301, after 98 epochs.

    Args:
        folder: where ``surrogate_yahpo.onnx`` and ``surrogate_encoding.json`` lie; by default ``data/nasbench301``
            in ``$CGTRANSFER_SHARED``, else in the folder ``shared`` beside the repository.
        epoch: training length in epochs, 1 to 98.

    Raises:
        StorageError: a file is missing or unreadable.
        OracleError: onnxruntime is not installed.
    """

    def __init__(self, folder: str | Path | None = None, epoch: float = 98.0) -> None:
        if not 1 <= epoch <= 98:
            raise OracleError(f"epoch must be 1 to 98, got {epoch}")
        self.folder = Path(folder) if folder is not None else shared_folder() / "data" / "nasbench301"
        self.epoch = float(epoch)
        self._session = _open_onnx(self.folder / "surrogate_yahpo.onnx")
        try:
            text = (self.folder / "surrogate_encoding.json").read_text(encoding="utf-8")
            codes = {name.rsplit("COLON_", 1)[-1]: levels for name, levels in json.loads(text).items()}
            self._codes = [codes[c] for c in darts_columns()]
        except (OSError, ValueError, KeyError) as e:
            raise StorageError(f"cannot read {self.folder / 'surrogate_encoding.json'}: {e}") from e

    def __call__(self, genome: Any) -> float:
        active = darts_settings(_encoded("nasbench301", genome))
        row = [levels[active.get(name, _INACTIVE)] for name, levels in zip(darts_columns(), self._codes, strict=True)]
        out = self._session.run(None, {"x_cat": np.array([row], np.int32),
                                       "x_cont": np.array([[self.epoch]], np.float32)})[0]
        return float(np.asarray(out)[0, 0])

    def describe(self) -> dict[str, Any]:
        return {"kind": "surrogate", "name": "yahpo-nb301", "epoch": self.epoch}


def oracle_from_options(space: SearchSpace[Any] | str, *, command: str | None = None, train: str | Path | None = None,
                        folder: str | Path | None = None, metric: str | None = None, seed: int = 0,
                        timeout_s: float | None = None, regex: str | None = None, retries: int | None = None,
                        shell: bool = False, epochs: int | None = None, batch: int | None = None, lr: float | None = None,
                        budget_s: float | None = None, device: str | None = None, workers: int = 1) -> Oracle:
    """The oracle of the options of ``cg search``: a ``CommandOracle`` for ``command``, a ``TrainingOracle`` for ``train``.

    ``None`` means the oracle's own default; of a training, ``metric`` then is ``val_acc``. With several ``workers``, threads
    that will ask, each training has a process and its share of the processors. Raises ``OracleError`` unless exactly one of
    ``command`` and ``train`` is given, and for an option that belongs to the other.
    """
    if (command is None) == (train is None):
        raise OracleError("give either --oracle-cmd or --train")
    of_command: dict[str, Any] = {"timeout_s": timeout_s, "regex": regex, "retries": retries, "shell": shell or None}
    of_training: dict[str, Any] = {"epochs": epochs, "batch": batch, "lr": lr, "budget_s": budget_s, "device": device}
    mine, others, owner = ((of_command, of_training, "--train") if command is not None
                           else (of_training, of_command, "--oracle-cmd"))
    stray = next((name for name, value in others.items() if value is not None), None)
    if stray is not None:
        flag = {"timeout_s": "timeout", "budget_s": "train-budget"}.get(stray, stray)
        raise OracleError(f"--{flag} belongs to {owner}, which was not given")
    given = {name: value for name, value in mine.items() if value is not None}
    if command is not None:
        from evo_search.command import CommandOracle

        return CommandOracle(command, space=space, folder=folder, metric=metric, seed=seed, **given)
    from evo_search.training import TrainingOracle

    if workers > 1:
        given |= {"own_process": True, "threads": max(1, (os.cpu_count() or 1) // workers)}
    return TrainingOracle(train, space=space, folder=folder, metric=metric or "val_acc", seed=seed, **given)


def _encoded(space_name: str, genome: Any) -> str:
    """The genome as text; text passes through."""
    if isinstance(genome, str):
        return genome
    from evo_search.spaces import get_space

    return get_space(space_name).encode(genome)


def shared_folder() -> Path:
    """``$CGTRANSFER_SHARED``, else ``shared`` beside the repository; it need not exist."""
    named = os.environ.get("CGTRANSFER_SHARED")
    return Path(named) if named else Path(__file__).resolve().parents[2] / "shared"


def _open_onnx(path: Path) -> onnxruntime.InferenceSession:
    if not path.is_file():
        raise StorageError(f"no surrogate at {path}; set CGTRANSFER_SHARED to the folder that holds "
                           "data/nasbench301, or pass folder=")
    try:
        import onnxruntime
    except ImportError as e:
        raise OracleError("the NAS-Bench-301 surrogate needs onnxruntime: pip install 'cgtransfer[onnx]'") from e
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # one row at a time: threads only cost
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as e:
        raise StorageError(f"cannot read {path}: {e}") from e
