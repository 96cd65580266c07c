"""Numpy views of the spec table (hashes, costs, arities), extended whenever the table has grown."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from cg.costs import node_activation_bytes, node_macs
from cg.spec import TABLE, NodeSpec
from cg.vocabulary import COMMUTATIVE, SOURCES


class Column:
    """One array with a row per spec, computed on demand for the rows that are new."""

    def __init__(self, row: Callable[[int, NodeSpec], object], dtype: type, width: int = 0) -> None:
        self._row, self._width = row, width
        self._data: np.ndarray = np.zeros((0, width) if width else 0, dtype)
        self._filled = 0

    def get(self) -> np.ndarray:
        n = len(TABLE)
        if self._filled < n:
            if len(self._data) < n:
                size = max(2 * len(self._data), n, 256)
                grown = np.zeros((size, self._width) if self._width else size, self._data.dtype)
                grown[: self._filled] = self._data[: self._filled]
                self._data = grown
            for i in range(self._filled, n):
                self._data[i] = self._row(i, TABLE.specs[i])
            self._filled = n
        return self._data


_HASH = Column(lambda i, s: TABLE.stable_hash(i), np.uint64)
_SYMMETRY = Column(lambda i, s: (s.op in COMMUTATIVE) * (1 + (len(set(s.in_shapes)) == 1)), np.int8)
_COST = Column(lambda i, s: (node_macs(s), s.params, node_activation_bytes(s)), np.int64, 3)
_ARITY = Column(lambda i, s: len(s.in_shapes), np.int32)
_IS_SOURCE = Column(lambda i, s: s.op in SOURCES, np.bool_)
_IS_UNKNOWN = Column(lambda i, s: s.op == "Unknown", np.bool_)
_OUT_SIZE = Column(lambda i, s: prod(s.out_shape), np.int64)
MAX_CHECKED_ARGS = 64
_IN_SIZE = Column(lambda i, s: _pad([prod(x) for x in s.in_shapes]), np.int64, MAX_CHECKED_ARGS)


def _pad(sizes: list[int]) -> np.ndarray:
    row = np.full(MAX_CHECKED_ARGS, -1, np.int64)
    row[: min(len(sizes), MAX_CHECKED_ARGS)] = sizes[:MAX_CHECKED_ARGS]
    return row


def hashes() -> tuple[np.ndarray, np.ndarray]:
    """Stable 64-bit hash ``uint64 [S]``; symmetry of the arguments ``int8 [S]`` (see ``_hashing.canonical_order``)."""
    return _HASH.get(), _SYMMETRY.get()


def costs() -> np.ndarray:
    """``int64 [S, 3]``: MACs, parameters, activation bytes."""
    return _COST.get()


def is_unknown() -> np.ndarray:
    """``bool [S]``: specs of operators outside the vocabulary."""
    return _IS_UNKNOWN.get()


def arity_arrays() -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Number of arguments ``[S]``; output sizes ``[S]`` and input sizes ``[S, 64]`` in values; is-source ``[S]``."""
    return _ARITY.get(), (_OUT_SIZE.get(), _IN_SIZE.get()), _IS_SOURCE.get()
