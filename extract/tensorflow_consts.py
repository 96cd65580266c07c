"""Reading ``Const`` nodes: small ones as real values, so that shape arithmetic computes, large ones as a shape only."""

from __future__ import annotations

from math import prod
from typing import Any, Final

import numpy as np
import torch

from extract.extraction import ExtractionError
from extract.tensorflow_graph import Node
from extract.tensorflow_values import DTYPES

MOST_VALUES: Final = 4_096  # of a constant that is kept with its values; what follows from two such ones still fits
LARGEST: Final = 2**40  # elements of any tensor
_STRING: Final = 7


def shape_of(proto: Any, where: str) -> tuple[int, ...]:
    """Sizes in a ``TensorShapeProto``; all must be known and not absurd."""
    if proto.unknown_rank:
        raise ExtractionError(f"{where}: the shape has no known rank")
    shape = tuple(int(d.size) for d in proto.dim)
    if len(shape) > 16 or any(d < 0 or d > LARGEST for d in shape) or prod(shape) > LARGEST:
        raise ExtractionError(f"{where}: shape {shape} is not a possible tensor shape")
    return shape


def dtype_of(number: int, where: str) -> torch.dtype:
    dtype = DTYPES.get(number % 100)
    if dtype is None:
        raise ExtractionError(f"{where}: field 'dtype' is {number}, a type of tensor that this package does not read")
    return dtype


def constant(node: Node) -> torch.Tensor | None:
    """The tensor of a ``Const``; on the meta device if it is large. ``None`` for strings."""
    proto = node.attrs["value"].tensor if "value" in node.attrs else None
    if proto is None:
        raise ExtractionError(f"{node}: field 'value' is missing")
    if proto.dtype == _STRING:
        return None
    shape, dtype = shape_of(proto.tensor_shape, f"{node}, field 'value'"), dtype_of(proto.dtype, repr(node))
    if prod(shape) > MOST_VALUES:
        return torch.empty(shape, dtype=dtype, device="meta")
    return torch.tensor(_values(proto, shape, node)).to(dtype).reshape(shape)


def _values(proto: Any, shape: tuple[int, ...], node: Node) -> np.ndarray:
    from tensorflow import make_ndarray

    try:
        array = np.array(make_ndarray(proto))
    except Exception as error:
        raise ExtractionError(f"{node}: field 'value' cannot be read ({type(error).__name__}: {str(error)[:120]})") from error
    if array.size != prod(shape):
        raise ExtractionError(f"{node}: field 'value' holds {array.size} numbers for shape {shape}")
    return array.astype(np.float32) if array.dtype.kind == "V" or array.dtype.name == "bfloat16" else array


def small_numbers(node: Node) -> list[float] | None:
    """Up to eight numbers of a constant, flat; ``None`` for anything else."""
    if node.op != "Const" or "value" not in node.attrs:
        return None
    proto = node.attrs["value"].tensor
    if proto.dtype % 100 not in DTYPES or proto.tensor_shape.unknown_rank:
        return None
    if prod(d.size for d in proto.tensor_shape.dim) not in range(1, 9):
        return None
    value = constant(node)
    return None if value is None else value.flatten().tolist()
