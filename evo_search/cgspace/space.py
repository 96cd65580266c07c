"""``CGSpace``: every network that a few edits make of one given network, as a search space.

    space = CGSpace(my_module, (1, 3, 32, 32), max_params=2e6)
    evolve(space, oracle, budget=100)

Imports torch only where a module comes in or goes out.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from cg.errors import CGError
from cg.graph import Graph
from evo_search.cgspace.edits import EDITS, apply, parse, propose
from evo_search.cgspace.net import Net, Refused
from evo_search.spaces._base import SearchSpace

if TYPE_CHECKING:
    import torch

GenomeCG = tuple[str, ...]
"""Edits of the base, in order (``evo_search.cgspace.edits``); the empty tuple is the base."""
_BASE = "base"
_TRIES = 300
_KEPT = 256  # networks that are remembered; one of 1,000 nodes takes about 1 MB


class CGSpace(SearchSpace[GenomeCG]):
    """The networks around ``base``: up to ``depth`` edits away, within the limits.

    Sampling makes 1 to ``min(depth, 5)`` random edits (kinds uniformly, then places). A mutation makes one more; with
    probability 1/5 each it takes one back, or one back and makes another (always one of the two where ``depth`` is reached).
    Crossover keeps the edits that the parents share and each other one with probability ½, first those of ``a``; edits that do
    not apply are left out.

    Args:
        base: a graph without ``Unknown`` nodes; or a torch module, which is extracted with ``input_shape``.
        input_shape: of the module's input, batch 1 first; only with a module.
        edits: names of the edits that may be made; default all of ``evo_search.cgspace.EDITS``.
        max_params, max_macs, max_nodes: greatest trained scalars, multiply-adds and graph nodes; ``None`` for no limit. The
            base may lie outside.
        depth: most edits in a row.
        accept: further rule, ``graph -> bool``; it is not part of ``name``.

    Attributes:
        base: the canonical graph of the base.
        name: ``cgspace-`` and a hash of base, edits and limits, so that a history of another space is not continued.

    Raises:
        CGError: an argument is wrong (the message names it), or the graph has ``Unknown`` nodes.
    """

    name: ClassVar[str] = "cgspace"
    family: ClassVar[str] = "cgspace"

    def __init__(self, base: Graph | torch.nn.Module, input_shape: Sequence[int] | None = None, *,
                 edits: Sequence[str] | None = None, max_params: float | None = None, max_macs: float | None = None,
                 max_nodes: int | None = None, depth: int = 8, accept: Callable[[Graph], bool] | None = None) -> None:
        self.base = _graph_of(base, input_shape)
        self.base.refuse_unknown("the base")
        self.edits = tuple(EDITS) if edits is None else tuple(dict.fromkeys(edits))
        unknown = [e for e in self.edits if e not in EDITS]
        if unknown or not self.edits:
            raise CGError(f"edits: {', '.join(map(repr, unknown)) or 'none'} given; there are {', '.join(EDITS)}")
        self.limits = {"params": max_params, "macs": max_macs, "nodes": max_nodes}
        for what, most in self.limits.items():
            if most is not None and not most > 0:
                raise CGError(f"max_{what} must be greater than 0 or None, got {most!r}")
        if isinstance(depth, bool) or not isinstance(depth, (int, np.integer)) or depth < 1:
            raise CGError(f"depth must be an integer of at least 1, got {depth!r}")
        self.depth, self.accept = int(depth), accept
        sources = [s.out_shape for s in self.base.nodes if s.op == "Input"]
        if not sources:
            raise CGError("base: the graph has no Input")
        settings = repr((self.base.digest, sorted(self.edits), sorted(self.limits.items(), key=str), self.depth))
        digest = hashlib.blake2b(settings.encode(), digest_size=6).hexdigest()
        vars(self).update(name=f"cgspace-{digest}", input_shape=sources[0],  # class attributes of spaces with one base
                          num_classes=self.base.nodes[self.base.outputs[0]].out_shape[-1])
        self._root = Net.of(self.base)
        self._lock = threading.RLock()
        self._nets: OrderedDict[GenomeCG, Net | str] = OrderedDict()

    # -- networks --------------------------------------------------------------------------------------------------

    def _net(self, a: GenomeCG) -> Net:
        """The network after the edits ``a``; ``Refused`` naming the edit that does not apply."""
        if not a:
            return self._root
        with self._lock:  # oracles ask from several threads
            found = self._nets.get(a)
            if found is None:
                try:
                    parent = self._net(a[:-1])
                    found = apply(parent, a[-1])
                    found.graph  # noqa: B018 (makes and checks it)
                except Refused as error:
                    found = str(error) if str(error).startswith("edit ") else f"edit {len(a)} ({a[-1]}): {error}"
                self._nets[a] = found
                if len(self._nets) > _KEPT:
                    self._nets.popitem(last=False)
            else:
                self._nets.move_to_end(a)
        if isinstance(found, str):
            raise Refused(found)
        return found

    def to_graph(self, a: GenomeCG) -> Graph:
        self._check_texts(a)
        return self._net(a).graph

    def to_torch(self, a: GenomeCG) -> torch.nn.Module:
        """``extract.to_torch`` of the graph: fresh weights, training mode."""
        from extract import to_torch

        return to_torch(self.to_graph(a))

    def why_invalid(self, a: GenomeCG) -> str:
        if not isinstance(a, tuple) or not all(isinstance(e, str) for e in a):
            return "a genome is a tuple of edits"
        if len(a) > self.depth:
            return f"{len(a)} edits, at most {self.depth} are allowed"
        try:
            graph = self.to_graph(a)
        except CGError as error:
            return str(error)
        other = next((e for e in a if e.split(":")[0] not in self.edits), None)
        return f"{other} is not among the edits of this space ({', '.join(self.edits)})" if other else self._outside(graph)

    def _check_texts(self, a: GenomeCG) -> None:
        for edit in a:
            parse(edit)

    def _outside(self, graph: Graph) -> str:
        """Which limit ``graph`` breaks; the empty string if it keeps all."""
        for what, found in (("params", graph.params), ("macs", graph.macs), ("nodes", graph.n_nodes)):
            most = self.limits[what]
            if most is not None and found > most:
                return f"{found:,} {what}, at most {most:,} are allowed"
        return "" if self.accept is None or self.accept(graph) else "accept refuses its graph"

    # -- random choices --------------------------------------------------------------------------------------------

    def _grown(self, a: GenomeCG, rng: np.random.Generator) -> GenomeCG | None:
        """``a`` and one random edit more, which changes the graph; ``None`` if the one that was drawn does not apply."""
        net = self._net(a)
        edit = propose(net, self.edits, rng)
        if edit is None:
            return None
        try:
            child = self._net((*a, edit))
        except Refused:
            return None
        return None if child.graph == net.graph else (*a, edit)

    def sample(self, rng: np.random.Generator) -> GenomeCG:
        """A few random edits of the base. Raises ``CGError`` if no valid network is found."""
        for _ in range(_TRIES):
            a: GenomeCG = ()
            wanted = 1 + int(rng.integers(min(self.depth, 5)))
            for _ in range(20 * wanted):
                if len(a) == wanted:
                    break
                a = self._grown(a, rng) or a
            graph = self._net(a).graph
            if graph != self.base and not self._outside(graph):
                return a
        raise CGError(f"{self.name}: no valid network within {min(self.depth, 5)} edits was found; widen the limits or allow "
                      "other edits")

    def mutate(self, a: GenomeCG, rng: np.random.Generator) -> GenomeCG:
        self.check(a)
        graph = self._net(a).graph
        for _ in range(_TRIES):
            kind = rng.random()  # below 0.2: one less; to 0.4: one for another; else one more
            child = a
            if a and (kind < 0.4 or len(a) == self.depth):
                i = int(rng.integers(len(a)))
                child = (*a[:i], *a[i + 1:])
            try:
                if child == a or kind >= 0.2:
                    child = self._grown(child, rng) or a
                made = self._net(child).graph
            except Refused:
                continue
            if made != graph and not self._outside(made):
                return () if made == self.base else child
        raise CGError(f"{self.name}: no valid network one edit away from {self.encode(a)!r} was found")

    def crossover(self, a: GenomeCG, b: GenomeCG, rng: np.random.Generator, tries: int = 20) -> GenomeCG:
        self.check(a)
        self.check(b)
        parents = (self._net(a).graph, self._net(b).graph)
        every = (*a, *(e for e in b if e not in a))
        for _ in range(tries):
            child: GenomeCG = ()
            for edit in every:
                if len(child) == self.depth or not ((edit in a and edit in b) or rng.random() < 0.5):
                    continue
                try:
                    self._net((*child, edit))
                except Refused:
                    continue
                child = (*child, edit)
            graph = self._net(child).graph
            if graph not in parents and not self._outside(graph):
                return () if graph == self.base else child
        return a

    # -- text and numbers ------------------------------------------------------------------------------------------

    def encode(self, a: GenomeCG) -> str:
        """The edits with a space between them, e.g. ``kernel:12:5 width:30:96``; ``base`` if there are none."""
        return " ".join(a) or _BASE

    def decode(self, text: str) -> GenomeCG:
        edits = tuple(text.split())
        if edits == (_BASE,):
            return ()
        if not edits:
            raise CGError(f"{self.name}: an empty text is no genome; the base is written {_BASE!r}")
        self._check_texts(edits)
        return edits

    def key(self, a: GenomeCG) -> str:
        """Fingerprint of the graph: isomorphic networks are one."""
        return self.to_graph(a).digest

    def native(self, a: GenomeCG) -> np.ndarray:
        """The global statistics of the graph (``cg.statistics``), float32 ``[S]``: edits have no encoding of fixed width."""
        import cg

        return np.asarray(cg.statistics([self.to_graph(a)])[0], np.float32)

    def count_params(self, a: GenomeCG) -> int:
        return self.to_graph(a).params

    def node_counts(self) -> dict[str, int]:
        """Empty: there are no operations that all networks are made of."""
        return {}

    def __repr__(self) -> str:
        return f"CGSpace({self.base!r}, depth={self.depth})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.base, {"edits": self.edits, "depth": self.depth, "accept": self.accept,
                                    **{f"max_{k}": v for k, v in self.limits.items()}})


def _again(base: Graph, settings: dict[str, Any]) -> CGSpace:
    return CGSpace(base, **settings)


def _graph_of(base: Any, input_shape: Sequence[int] | None) -> Graph:
    """The canonical graph of a graph or a module."""
    from cg import canonicalize

    if isinstance(base, Graph):
        if input_shape is not None:
            raise CGError("input_shape belongs to a torch module; a graph knows the shape of its input")
        return canonicalize(base)
    if not hasattr(base, "forward"):
        raise CGError(f"base must be a cg.Graph or a torch module, got {type(base).__name__}")
    if input_shape is None:
        raise CGError("input_shape is needed to extract a torch module, e.g. (1, 3, 32, 32)")
    from extract import from_torch

    return from_torch(base, tuple(input_shape)).graph
