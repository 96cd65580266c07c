"""``Graph``: one network as a frozen struct of numpy arrays, always in canonical node order.

This file must not know how a graph was made (see ``cg.builder``) nor what is learned from it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from cg import _table_arrays
from cg.errors import GraphError, UnknownOpError
from cg.spec import TABLE, NodeSpec
from cg.vocabulary import arity

_MAX_ARG = int(np.iinfo(np.int16).max)


@dataclass(frozen=True, eq=False)
class Graph:
    """A computation graph of N nodes and E edges. Build one with ``GraphBuilder``, an extractor or ``Graph.make``.

    Nodes are in a topological order that depends on the graph alone (longest-path level, then node hash), so two
    isomorphic graphs hold equal arrays up to nodes that no observer can tell apart.

    Attributes:
        spec: int32 ``[N]``, index into the process-wide table of node specs; use ``graph.nodes`` to read them.
        src, dst: int32 ``[E]``, edge ``src[e] -> dst[e]``, sorted by ``(dst, arg)``; always ``src < dst``.
        arg: int16 ``[E]``, which argument of ``dst`` the edge feeds.
        outputs: int32 ``[n_outputs]``, nodes whose tensors leave the network.
        digest: 32 hex digits, the isomorphism-invariant hash (``cg.fingerprint``).
        name, family: for people and for contrastive grouping; not part of equality.
    """

    spec: np.ndarray
    src: np.ndarray
    dst: np.ndarray
    arg: np.ndarray
    outputs: np.ndarray
    digest: str
    name: str = ""
    family: str = ""
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for array in (self.spec, self.src, self.dst, self.arg, self.outputs):
            array.flags.writeable = False

    @classmethod
    def make(cls, nodes: Sequence[NodeSpec] | np.ndarray, edges: Iterable[tuple[int, int, int]] | np.ndarray,
             outputs: Sequence[int] | None = None, *, name: str = "", family: str = "",
             meta: dict[str, Any] | None = None, validate: bool = True) -> Graph:
        """Graph from node specs and ``(source, target, argument)`` triples in any node order.

        ``outputs`` defaults to the nodes without successors. Raises ``GraphError`` naming the node on a cycle, a wrong
        number of arguments, disagreeing shapes, a missing source, a node that no source reaches, or numbers out of range.
        """
        spec = nodes if isinstance(nodes, np.ndarray) else np.array([TABLE.intern(n) for n in nodes], np.int32)
        if len(spec) == 0:
            raise GraphError(f"graph {name!r} has no nodes")
        e = np.asarray(list(edges) if not isinstance(edges, np.ndarray) else edges, np.int64).reshape(-1, 3)
        n = len(spec)
        if len(e) and (e[:, :2].min() < 0 or e[:, :2].max() >= n):
            bad = e[((e[:, :2] < 0) | (e[:, :2] >= n)).any(1)][0]
            raise GraphError(f"graph {name!r}: edge {tuple(int(v) for v in bad)} names a node outside 0..{n - 1}")
        if len(e) and (e[:, 2].min() < 0 or e[:, 2].max() > _MAX_ARG):
            bad = e[(e[:, 2] < 0) | (e[:, 2] > _MAX_ARG)][0]
            raise GraphError(f"graph {name!r}: edge {tuple(int(v) for v in bad)} names an argument outside 0..{_MAX_ARG}")
        out = np.setdiff1d(np.arange(n), e[:, 0]) if outputs is None else np.asarray(outputs, np.int64).reshape(-1)
        if len(out) and (out.min() < 0 or out.max() >= n):
            raise GraphError(f"graph {name!r}: outputs {out.tolist()} name a node outside 0..{n - 1}")
        if outputs is not None and not len(out):
            raise GraphError(f"graph {name!r} has no output")
        return cls._sorted(spec, e[:, 0], e[:, 1], e[:, 2], out, name, family, meta, validate)

    @classmethod
    def _sorted(cls, spec: np.ndarray, src: np.ndarray, dst: np.ndarray, arg: np.ndarray, outputs: np.ndarray,
                name: str, family: str, meta: dict[str, Any] | None = None, validate: bool = True) -> Graph:
        from cg._hashing import canonical_order

        spec, src, dst = spec.astype(np.int32), src.astype(np.int32), dst.astype(np.int32)
        arg, outputs = arg.astype(np.int16), outputs.astype(np.int32)
        hashes, symmetry = _table_arrays.hashes()
        n_sorted, rank, order_e, new_arg, high, low = canonical_order(
            spec, src, dst, arg, outputs, hashes, symmetry)
        if n_sorted < len(spec):
            # rank is -1 on the nodes that a topological sort could not place
            stuck = [int(i) for i in np.flatnonzero(rank < 0)]
            on_cycle = _a_cycle(stuck, src, dst)
            path = " -> ".join(f"{i}:{TABLE.specs[spec[i]].op}" for i in on_cycle)
            raise GraphError(f"graph {name!r} is cyclic: {path}; a computation graph must be acyclic")
        new_spec = np.empty_like(spec)
        new_spec[rank] = spec
        graph = cls(new_spec, rank[src][order_e].astype(np.int32), rank[dst][order_e].astype(np.int32), new_arg,
                    np.sort(rank[outputs]).astype(np.int32), f"{int(high):016x}{int(low):016x}", name, family,
                    dict(meta or {}))
        if validate:
            graph.validate()
        return graph

    @property
    def n_nodes(self) -> int:
        """N."""
        return len(self.spec)

    @property
    def n_edges(self) -> int:
        """E."""
        return len(self.src)

    @cached_property
    def nodes(self) -> tuple[NodeSpec, ...]:
        """The spec of every node, in canonical order."""
        return tuple(TABLE.specs[i] for i in self.spec)

    @property
    def ops(self) -> list[str]:
        """Operator name of every node."""
        return [n.op for n in self.nodes]

    @property
    def op_counts(self) -> Counter[str]:
        """How often each operator occurs."""
        return Counter(self.ops)

    def _cost(self, column: int) -> int:
        return int(_table_arrays.costs()[self.spec, column].sum())

    @property
    def macs(self) -> int:
        """Multiply-adds of one forward pass (one multiply-add = 1)."""
        return self._cost(0)

    @property
    def params(self) -> int:
        """Trained scalars."""
        return self._cost(1)

    @property
    def activation_bytes(self) -> int:
        """Bytes of all node outputs in float32, summed."""
        return self._cost(2)

    def inputs_of(self, node: int) -> list[int]:
        """Producers of the arguments of ``node``, in argument order."""
        low, high = np.searchsorted(self.dst, [node, node + 1])
        return [int(s) for s in self.src[low:high]]

    def validate(self) -> Graph:
        """Check arity, argument positions, shape agreement, sources and reachability; returns the graph itself."""
        from cg._hashing import check_edges

        n_in, sizes, is_source = _table_arrays.arity_arrays()
        if not is_source[self.spec].any():
            raise GraphError(f"graph {self.name!r} has no source: no Input or Constant node")
        code, node = check_edges(self.spec, self.src, self.dst, self.arg, n_in, sizes[0], sizes[1], is_source)
        if code:
            spec = self.nodes[node]
            where = f"graph {self.name!r}, node {node} ({spec.op})"
            if code == 1:
                low, high = arity(spec.op)
                raise GraphError(f"{where}: {len(self.inputs_of(node))} arguments are connected, but its spec lists "
                                 f"{len(spec.in_shapes)} (allowed for this operator: {low} to {high})")
            if code == 4:
                numbers = [int(a) for a in self.arg[self.dst == node]]
                raise GraphError(f"{where}: its arguments must be numbered 0 to {len(numbers) - 1}, got {numbers}")
            if code == 2:
                got = [self.nodes[s].out_shape for s in self.inputs_of(node)]
                raise GraphError(f"{where}: its producers give shapes {got}, but it expects {list(spec.in_shapes)}")
            raise GraphError(f"{where} is disconnected: no Input or Constant reaches it; remove it or connect it")
        return self

    def with_(self, *, name: str | None = None, family: str | None = None, meta: dict[str, Any] | None = None) -> Graph:
        """The same graph under another name, family or with other notes."""
        return Graph(self.spec, self.src, self.dst, self.arg, self.outputs, self.digest,
                     self.name if name is None else name, self.family if family is None else family,
                     dict(self.meta if meta is None else meta))

    def permuted(self, order: Sequence[int]) -> Graph:
        """Rebuild from nodes handed over in another order (``order[i]`` = old index); the result must be the same."""
        order_array = np.asarray(order)
        inverse = np.argsort(order_array)
        edges = np.stack([inverse[self.src], inverse[self.dst], self.arg.astype(np.int64)], 1)
        return Graph.make(self.spec[order_array], edges, inverse[self.outputs].tolist(), name=self.name,
                          family=self.family, meta=self.meta)

    @property
    def unknown(self) -> Counter[str]:
        """``Unknown`` nodes by the name the framework gave them."""
        odd = self.spec[_table_arrays.is_unknown()[self.spec]]
        return Counter(str(TABLE.specs[i].attr("name", "?")) for i in odd)

    def refuse_unknown(self, title: str | None = None) -> None:
        """Raise ``UnknownOpError`` naming the operators if there are ``Unknown`` nodes; for whatever learns or predicts."""
        unknown = self.unknown
        if unknown:
            names = ", ".join(f"{n} x {k}" for k, n in unknown.items())
            raise UnknownOpError(f"{title or f'graph {self.name!r}'} has Unknown nodes ({names}), which carry no meaning for a "
                                 "learned model; extract the model again with a version that knows them, or replace them")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Graph) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        title = f"{self.name!r}, " if self.name else ""
        return (f"Graph({title}{self.n_nodes} nodes, {self.n_edges} edges, {self.macs / 1e6:.1f} M MACs, "
                f"{self.params / 1e6:.2f} M params)")

    def __reduce__(self) -> tuple[Any, ...]:
        unique, index = np.unique(self.spec, return_inverse=True)
        texts = [TABLE.texts[i] for i in unique]
        return _from_texts, (texts, index, self.src, self.dst, self.arg, self.outputs, self.digest, self.name,
                             self.family, self.meta)


def _from_texts(texts: list[str], index: np.ndarray, src: np.ndarray, dst: np.ndarray, arg: np.ndarray,
                outputs: np.ndarray, digest: str, name: str, family: str, meta: dict[str, Any]) -> Graph:
    spec = np.array([TABLE.intern_text(t) for t in texts], np.int32)[index]
    return Graph(spec, src, dst, arg, outputs, digest, name, family, meta)


def _a_cycle(stuck: list[int], src: np.ndarray, dst: np.ndarray) -> list[int]:
    """One cycle among the nodes left over by a topological sort, first node repeated at the end."""
    inside = set(stuck)
    before = {int(d): int(s) for s, d in zip(src, dst, strict=True) if int(s) in inside and int(d) in inside}
    node, seen = stuck[0], []
    while node in before and node not in seen:
        seen.append(node)
        node = before[node]
    start = seen.index(node) if node in seen else 0
    cycle = seen[start:][::-1]
    return [*cycle, cycle[0]]
