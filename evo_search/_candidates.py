"""Candidates of a search: new valid networks by random sampling, mutation and crossover, none of them seen before.

Every retry loop here is bounded; a caller gets fewer networks than it asked for when the space has no more to give.
This file must not know about oracles, histories or predictors.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import cg

if TYPE_CHECKING:
    from cg import Graph
    from evo_search.spaces._base import SearchSpace

TRIES_PER_CANDIDATE = 30


class GraphCache:
    """Graphs and identities of genomes, the least recently used forgotten first.

    Args:
        space: where ``to_graph`` comes from.
        key: identity of a genome; by default the fingerprint of its graph, so isomorphic genomes are one network.
        size: how many graphs to keep; one of 150 nodes takes about 10 kB.
    """

    def __init__(self, space: SearchSpace[Any], key: Callable[[Any], str] | None = None, size: int = 20_000) -> None:
        self._space, self._key, self._size = space, key, size
        self._graphs: OrderedDict[Any, Graph] = OrderedDict()

    def graph(self, genome: Any) -> Graph:
        """The genome's graph, built at most once while it is remembered."""
        if genome in self._graphs:
            self._graphs.move_to_end(genome)
            return self._graphs[genome]
        graph = self._space.to_graph(genome)
        self._graphs[genome] = graph
        if len(self._graphs) > self._size:
            self._graphs.popitem(last=False)
        return graph

    def key(self, genome: Any) -> str:
        """The genome's identity."""
        return cg.fingerprint(self.graph(genome)) if self._key is None else self._key(genome)


class CandidateMaker:
    """Makes networks that are valid and not yet taken.

    Args:
        space: sampling, mutation, crossover and validity.
        cache: identities of genomes.
        accept: ``valid genome -> bool``; others are left out. By default all are taken.
        asked: keys of networks that were asked about; what a parent that was not was made from takes its place in ``parents``.
    """

    def __init__(self, space: SearchSpace[Any], cache: GraphCache, accept: Callable[[Any], bool] | None = None,
                 asked: Collection[str] = ()) -> None:
        self._space, self._cache, self._accept, self._asked = space, cache, accept, asked
        self._made: dict[str, tuple[Any, ...]] = {}  # key of a network made here -> its parents

    def random(self, n: int, taken: set[str], rng: np.random.Generator) -> dict[str, Any]:
        """Up to ``n`` random networks, key -> genome, in the order they were found; adds their keys to ``taken``."""
        return self._collect(n, taken, lambda: (self._space.sample(rng), ()))

    def children(self, parents: Sequence[Any], n: int, taken: set[str], rng: np.random.Generator, *,
                 crossover_rate: float, max_edits: int) -> dict[str, Any]:
        """Up to ``n`` children of ``parents``, key -> genome; adds their keys to ``taken``.

        A child is a crossover of two different parents with probability ``crossover_rate``, else a parent after 1 to
        ``max_edits`` one-edit mutations, small numbers of edits being likelier (each further edit with probability ½).
        """
        def make() -> tuple[Any, tuple[Any, ...]]:
            if len(parents) > 1 and rng.random() < crossover_rate:
                a, b = rng.choice(len(parents), 2, replace=False)
                return self._space.crossover(parents[a], parents[b], rng), (parents[a], parents[b])
            parent = child = parents[int(rng.integers(len(parents)))]
            for _ in range(min(int(rng.geometric(0.5)), max_edits)):
                child = self._space.mutate(child, rng)
            return child, (parent,)

        return self._collect(n, taken, make) if parents else {}

    def parents(self, key: str) -> tuple[Any, ...]:
        """Genomes that a network made here was made from; empty for a random one and for one made elsewhere."""
        return self._made.get(key, ())

    def asked_parents(self, parents: Sequence[Any]) -> tuple[Any, ...]:
        """``parents``, each that was made here and not asked about replaced by its own parents; each once."""
        found: dict[str, Any] = {}
        for genome in parents:
            key = self._cache.key(genome)
            for origin in (genome,) if key in self._asked else self._made.get(key, (genome,)):
                found.setdefault(self._cache.key(origin), origin)
        return tuple(found.values())

    def _collect(self, n: int, taken: set[str], make: Callable[[], tuple[Any, tuple[Any, ...]]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        tried: set[Any] = set()
        for _ in range(TRIES_PER_CANDIDATE * n):
            if len(found) >= n:
                break
            genome, parents = make()
            if genome in tried:
                continue
            tried.add(genome)
            if not self._space.is_valid(genome) or (self._accept is not None and not self._accept(genome)):
                continue
            key = self._cache.key(genome)
            if key not in taken:
                taken.add(key)
                found[key] = genome
                self._made[key] = self.asked_parents(parents)  # now, while nothing else was made under the parents' keys
        return found
