"""Columns of genomes, one class per benchmark: row -> text, text -> row, and the arrays that a table file stores.

Texts are the official ones, so that a table and a search space need to agree on strings only:

- NAS-Bench-101 ``7:12645d:02001`` (see ``_cells101``); any vertex order of a cell finds its row;
- NAS-Bench-201 ``|nor_conv_3x3~0|+|none~0|skip_connect~1|+|...~0|...~1|...~2|``;
- DARTS / NAS-Bench-301 16 tokens ``input:op``, two per node, 8 of the normal cell and then 8 of the reduction cell;
  the two edges of a node are a set: ``encoded`` gives the smaller input first, ``find`` takes either order.

This file must not know metrics or files.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cg.errors import CGError
from evo_search._cells101 import MAX_EDGES, MAX_VERTICES, cell_hashes, encode_cell, parse_cell

OPS201 = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
INPUTS201 = (0, 0, 1, 0, 1, 2)  # source node of the six edges, in the order of the text
OPS301 = (
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)


class Genomes(ABC):
    """``n`` genomes of one benchmark. ``keys`` of equal genomes are equal integers; lookup is a binary search."""

    family: ClassVar[str]

    def __init__(self) -> None:
        self._index: tuple[NDArray[np.integer], NDArray[np.int64]] | None = None

    @property
    @abstractmethod
    def n(self) -> int:
        """Number of rows."""

    @abstractmethod
    def encoded(self, i: int) -> str:
        """Text of row ``i``."""

    @abstractmethod
    def arrays(self) -> dict[str, NDArray[np.integer]]:
        """What a file stores; the inverse is :meth:`from_arrays`."""

    @classmethod
    @abstractmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.integer]]) -> Genomes:
        """Inverse of :meth:`arrays`; CGError where a value is out of range."""

    @abstractmethod
    def row_keys(self) -> NDArray[np.integer]:
        """Integer key of every row ``[n]``."""

    @classmethod
    @abstractmethod
    def text_keys(cls, encoded: Sequence[str]) -> NDArray[np.integer]:
        """Integer keys of texts; CGError names the text that is malformed or outside the benchmark."""

    def find(self, encoded: Sequence[str]) -> NDArray[np.int64]:
        """Row of each text, -1 where the table has none; CGError where a text is malformed."""
        if self._index is None:
            keys = self.row_keys()
            order = np.argsort(keys, kind="stable")
            if self.n > 1 and (np.diff(keys[order].astype(np.uint64)) == 0).any():
                raise CGError(f"{self.family} table: two rows hold the same genome")
            self._index = keys[order], order
        keys, order = self._index
        want = self.text_keys(encoded).astype(keys.dtype)
        at = np.minimum(np.searchsorted(keys, want), max(self.n - 1, 0))
        if self.n == 0:
            return np.full(len(want), -1, np.int64)
        return np.where(keys[at] == want, order[at], -1).astype(np.int64)


class Genomes101(Genomes):
    """``n_vertices [N]``, ``adj_bits [N]``, ``ops [N, 5]`` (interior vertices, -1 padding) of pruned cells."""

    family = "nasbench101"

    def __init__(
        self, n_vertices: NDArray[np.integer], adj_bits: NDArray[np.integer], ops: NDArray[np.integer]
    ) -> None:
        super().__init__()
        self.n_vertices = np.ascontiguousarray(n_vertices, np.uint8)
        self.adj_bits = np.ascontiguousarray(adj_bits, np.uint32)
        self.ops = np.ascontiguousarray(ops, np.int8)

    @property
    def n(self) -> int:
        return len(self.adj_bits)

    def encoded(self, i: int) -> str:
        return encode_cell(int(self.n_vertices[i]), int(self.adj_bits[i]), self.ops[i])

    def arrays(self) -> dict[str, NDArray[np.integer]]:
        digits = np.maximum(self.ops, 0).astype(np.uint8) @ (3 ** np.arange(4, -1, -1)).astype(np.uint8)
        return {"n_vertices": self.n_vertices, "adj_bits": self.adj_bits, "ops_base3": digits}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.integer]]) -> Genomes101:
        n_vertices, digits = arrays["n_vertices"].astype(np.int64), arrays["ops_base3"].astype(np.int64)
        if not (((n_vertices >= 2) & (n_vertices <= MAX_VERTICES)).all() and (digits < 3**5).all()):
            raise CGError("nasbench101 table: a cell has an impossible number of vertices or op code")
        ops = (digits[:, None] // 3 ** np.arange(4, -1, -1) % 3).astype(np.int8)
        ops[np.arange(5) >= (n_vertices - 2)[:, None]] = -1
        return cls(n_vertices, arrays["adj_bits"], ops)

    def row_keys(self) -> NDArray[np.integer]:
        return cell_hashes(self.n_vertices, self.adj_bits, self.ops)[0]

    @classmethod
    def text_keys(cls, encoded: Sequence[str]) -> NDArray[np.integer]:
        n_vertices, adj_bits = np.zeros(len(encoded), np.uint8), np.zeros(len(encoded), np.uint32)
        ops = np.full((len(encoded), 5), -1, np.int8)
        for i, text in enumerate(encoded):
            n_vertices[i], adj_bits[i], interior = parse_cell(text)
            ops[i, : len(interior)] = interior
        keys, edges = cell_hashes(n_vertices, adj_bits, ops)
        for text, count in zip(encoded, edges, strict=True):
            if not 0 < count <= MAX_EDGES:
                why = f"{count} edges, at most {MAX_EDGES} are allowed" if count else "no path from input to output"
                raise CGError(f"NAS-Bench-101 genome {text!r}: {why}")
        return keys


class Genomes201(Genomes):
    """``code [N]``: the six edge ops as base-5 digits (:data:`OPS201`), first edge most significant."""

    family = "nasbench201"

    def __init__(self, code: NDArray[np.integer]) -> None:
        super().__init__()
        self.code = np.ascontiguousarray(code, np.uint16)

    @property
    def n(self) -> int:
        return len(self.code)

    @property
    def ops(self) -> NDArray[np.int64]:
        """Op numbers ``[N, 6]`` of the edges 0->1, 0->2, 1->2, 0->3, 1->3, 2->3."""
        return self.code.astype(np.int64)[:, None] // 5 ** np.arange(5, -1, -1) % 5

    def encoded(self, i: int) -> str:
        names = [f"{OPS201[int(self.code[i]) // 5 ** (5 - e) % 5]}~{INPUTS201[e]}" for e in range(6)]
        return "+".join("|" + "|".join(names[a:b]) + "|" for a, b in ((0, 1), (1, 3), (3, 6)))

    def arrays(self) -> dict[str, NDArray[np.integer]]:
        return {"code": self.code}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.integer]]) -> Genomes201:
        if not (arrays["code"] < 5**6).all():
            raise CGError("nasbench201 table: a cell code is 15625 or more")
        return cls(arrays["code"])

    def row_keys(self) -> NDArray[np.integer]:
        return self.code

    @classmethod
    def text_keys(cls, encoded: Sequence[str]) -> NDArray[np.integer]:
        return np.array([_code201(text) for text in encoded], np.uint16)


def _code201(encoded: str) -> int:
    """Base-5 code of an official architecture string."""
    nodes = encoded.split("+") if isinstance(encoded, str) else []
    edges = [edge.split("~") for node in nodes for edge in node.strip("|").split("|")]
    sizes = [node.count("~") for node in nodes]
    if sizes != [1, 2, 3] or any(len(e) != 2 for e in edges) or [e[1] for e in edges] != [str(i) for i in INPUTS201]:
        raise CGError(f"NAS-Bench-201 genome {encoded!r}: expected '|op~0|+|op~0|op~1|+|op~0|op~1|op~2|'")
    code = 0
    for name, _ in edges:
        if name not in OPS201:
            raise CGError(f"NAS-Bench-201 genome {encoded!r}: unknown op {name!r}, must be one of {', '.join(OPS201)}")
        code = code * 5 + OPS201.index(name)
    return code


class Genomes301(Genomes):
    """``code [N]``, one 64-bit integer per genotype (mixed radix: per node the pair of inputs, then the two ops)."""

    family = "nasbench301"

    def __init__(self, code: NDArray[np.integer]) -> None:
        super().__init__()
        self.code = np.ascontiguousarray(code, np.uint64)

    @property
    def n(self) -> int:
        return len(self.code)

    def encoded(self, i: int) -> str:
        rest, nodes = int(self.code[i]), []
        for node in reversed(range(8)):
            rest, op_b = divmod(rest, len(OPS301))
            rest, op_a = divmod(rest, len(OPS301))
            rest, pair = divmod(rest, len(_PAIRS301[node % 4]))
            a, b = _PAIRS301[node % 4][pair]
            nodes.append(f"{a}:{op_a} {b}:{op_b}")
        return " ".join(reversed(nodes))

    def arrays(self) -> dict[str, NDArray[np.integer]]:
        return {"code": self.code}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.integer]]) -> Genomes301:
        if not (arrays["code"] < np.uint64((1 * 3 * 6 * 10) ** 2 * 7**16)).all():
            raise CGError("nasbench301 table: a genotype code is out of range")
        return cls(arrays["code"])

    def row_keys(self) -> NDArray[np.integer]:
        return self.code

    @classmethod
    def text_keys(cls, encoded: Sequence[str]) -> NDArray[np.integer]:
        return np.array([_code301(text) for text in encoded], np.uint64)


_PAIRS301 = [[(a, b) for b in range(1, node + 2) for a in range(b)] for node in range(4)]


def _code301(encoded: str) -> int:
    """Integer code of 16 ``input:op`` tokens."""
    try:
        edges = [(int(a), int(b)) for a, b in (token.split(":") for token in encoded.split())]
    except (ValueError, AttributeError):
        raise CGError(f"DARTS genome {encoded!r}: expected 16 tokens 'input:op' separated by spaces") from None
    if len(edges) != 16:
        raise CGError(f"DARTS genome {encoded!r}: {len(edges)} tokens, expected 16")
    code = 0
    for node in range(8):
        (a, op_a), (b, op_b) = sorted(edges[2 * node : 2 * node + 2])
        pairs = _PAIRS301[node % 4]
        if (a, b) not in pairs or not (0 <= op_a < len(OPS301) and 0 <= op_b < len(OPS301)):
            cell = "normal" if node < 4 else "reduction"
            raise CGError(
                f"DARTS genome {encoded!r}: node {node % 4} of the {cell} cell needs two different inputs below "
                f"{node % 4 + 2} and ops 0 to {len(OPS301) - 1}"
            )
        code = ((code * len(pairs) + pairs.index((a, b))) * len(OPS301) + op_a) * len(OPS301) + op_b
    return code


GENOMES: dict[str, type[Genomes]] = {c.family: c for c in (Genomes101, Genomes201, Genomes301)}
