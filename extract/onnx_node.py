"""``Call``: one ONNX node as its handler sees it (attributes, version, number of outputs), and small helpers of handlers.

Values that handlers get are torch tensors. One on the CPU is *known*: it depends on no input and its values may be read.
One on the meta device is not. ``None`` is an input that was left out, a list is a sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from torch import Tensor

from extract.extraction import ExtractionError
from extract.onnx_file import DTYPES, MOST_KNOWN, check_dims

_KINDS = onnx.AttributeProto


class NeedsValue(ExtractionError):
    """An operator needs a value that a run on shapes does not have."""


@dataclass
class Call:
    """One node. ``run_graph(graph, values of its inputs)`` evaluates a graph in an attribute (If, Loop, Scan)."""

    op: str
    where: str
    opset: int
    attributes: dict[str, onnx.AttributeProto]
    n_outputs: int
    run_graph: Callable[[onnx.GraphProto, Sequence[Any]], list[Any]]
    note: Callable[[str], None]

    def fail(self, text: str) -> ExtractionError:
        """An error that names this node."""
        return ExtractionError(f"{self.where}: {text}")

    def get(self, name: str, default: Any = None) -> Any:
        """The attribute as a Python value (text decoded, tensors and graphs as protos), or ``default``."""
        a = self.attributes.get(name)
        if a is None:
            return default
        try:
            return _VALUES[a.type](a)
        except KeyError:
            raise self.fail(f"attribute {name!r} has the type {a.type}, which networks of numbers do not use") from None
        except UnicodeDecodeError:
            raise self.fail(f"attribute {name!r} is not valid text") from None

    def integer(self, name: str, default: int | None = None) -> int:
        value = self.get(name, default)
        if not isinstance(value, int | float):
            raise self.fail(f"attribute {name!r} must be a number" if name in self.attributes
                            else f"attribute {name!r} is missing")
        return int(value)

    def real(self, name: str, default: float | None = None) -> float:
        value = self.get(name, default)
        if not isinstance(value, int | float):
            raise self.fail(f"attribute {name!r} must be a number" if name in self.attributes
                            else f"attribute {name!r} is missing")
        return float(value)

    def ints(self, name: str, default: Sequence[int] | None = None) -> list[int]:
        value = self.get(name)
        if value is None:
            if default is None:
                raise self.fail(f"attribute {name!r} is missing")
            return list(default)
        if not isinstance(value, list) or not all(isinstance(v, int) for v in value):
            raise self.fail(f"attribute {name!r} must be a list of integers")
        return value

    def text(self, name: str, default: str = "") -> str:
        value = self.get(name, default)
        if not isinstance(value, str):
            raise self.fail(f"attribute {name!r} must be text")
        return value

    def known(self, value: Any, what: str) -> Tensor:
        """``value`` if its values may be read."""
        if not isinstance(value, Tensor):
            raise self.fail(f"{what} is missing")
        if value.is_meta:
            raise NeedsValue(f"{self.where}: {what} depends on the values of the network's inputs or of its weights, and a run "
                             "on shapes does not have these; export the model with static shapes, or run "
                             "onnx.shape_inference on it")
        return value

    def list_of(self, value: Any, what: str) -> list[int]:
        """The integers of a known tensor."""
        known = self.known(value, what)
        if known.numel() > MOST_KNOWN:
            raise self.fail(f"{what} has {known.numel()} entries")
        with unseen():
            return [int(v) for v in known.reshape(-1).tolist()]

    def number(self, value: Any, what: str) -> Any:
        """The one number in a known tensor, as a Python number."""
        known = self.known(value, what)
        if known.numel() != 1:
            raise self.fail(f"{what} must be one number, and has {known.numel()} entries")
        return scalar(known)

    def axis(self, axis: int, rank: int) -> int:
        """``axis`` counted from the front."""
        if not -rank <= axis < max(rank, 1):
            raise self.fail(f"axis {axis} does not exist in a tensor of {rank} axes")
        return axis % rank if rank else 0

    def attribute_or_input(self, name: str, value: Any, default: Sequence[int] | None = None) -> list[int] | None:
        """A list of integers that old versions have as an attribute and new ones as an input."""
        if value is not None:
            return self.list_of(value, f"input {name!r}")
        return self.ints(name) if name in self.attributes else (None if default is None else list(default))

    def shape(self, dims: Sequence[int]) -> tuple[int, ...]:
        return check_dims(dims, f"{self.where}: its result")

    def dtype(self, number: int) -> torch.dtype:
        if number not in DTYPES:
            raise self.fail(f"number format {number} is not one that networks of numbers use")
        return DTYPES[number]

    def device(self, shape: Sequence[int]) -> str:
        """Where a constant of this shape is made: its values are known if it is small."""
        size = 1
        for d in self.shape(shape):
            size *= d
        return "cpu" if size <= MOST_KNOWN else "meta"


_VALUES: dict[int, Callable[[onnx.AttributeProto], Any]] = {
    _KINDS.FLOAT: lambda a: a.f, _KINDS.INT: lambda a: a.i, _KINDS.STRING: lambda a: a.s.decode(),
    _KINDS.TENSOR: lambda a: a.t, _KINDS.GRAPH: lambda a: a.g, _KINDS.FLOATS: lambda a: list(a.floats),
    _KINDS.INTS: lambda a: list(a.ints), _KINDS.STRINGS: lambda a: [s.decode() for s in a.strings],
    _KINDS.GRAPHS: lambda a: list(a.graphs), _KINDS.TENSORS: lambda a: list(a.tensors),
}


def unseen() -> Any:
    """While it is open, the recorder sees nothing: for looking at known values, which is no part of the network."""
    return torch._C._DisableTorchDispatch()


def is_known(value: Any) -> bool:
    """Whether all tensors in ``value`` (a tensor, ``None`` or a sequence) can be read."""
    if isinstance(value, list):
        return all(is_known(v) for v in value)
    return value is None or (isinstance(value, Tensor) and not value.is_meta)


def scalar(value: Any) -> Any:
    """A known tensor of one value as a Python number; anything else as it is."""
    if isinstance(value, Tensor) and not value.is_meta and value.numel() == 1:
        with unseen():
            return value.item()
    return value


def uniform(value: Any) -> Any:
    """The one value of all entries of a known tensor, or ``None``."""
    if not isinstance(value, Tensor) or value.is_meta or not value.numel():
        return None
    with unseen():
        flat = value.as_strided((1,), (1,)) if not any(value.stride()) else value.reshape(-1)
        first = flat[0]
        return first.item() if bool((flat == first).all()) else None


def nth(output: int) -> dict[str, Any]:
    """Attributes that tell the results of one operator apart."""
    return {"output": output} if output else {}


def meta(value: Tensor) -> Tensor:
    """``value`` on the meta device: shape and format stay, values are given up."""
    return value if value.is_meta else torch.empty(value.shape, dtype=value.dtype, device="meta")
