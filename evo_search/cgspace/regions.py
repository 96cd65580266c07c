"""Parts of a network that one tensor enters and one tensor of the same shape leaves: blocks to repeat or leave out."""

from __future__ import annotations

from evo_search.cgspace.net import Net, Refused

_BLOCK_ENDS = frozenset({"Add", "Concat"})
_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "LSTM", "GRU", "RNN"})
_ACTS_BEHIND = 2  # ends that are offered for one beginning: a sum, and the activation behind it


class Regions:
    """Dominators of ``net`` in both directions; nodes that no input reaches (constants) are not looked at."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.order = [k for k in net.order if k in net.reached]
        self.place = {k: i for i, k in enumerate(self.order)}
        self.before = [[self.place[s] for s in net.inputs[k] if s in self.place] for k in self.order]
        self.after = [[self.place[r] for r in net.readers[k]] for k in self.order]
        n = len(self.order)
        self._idom = _dominators(self.before)
        ends = [[n - 1 - j for j in self.after[n - 1 - i]] if self.order[n - 1 - i] not in net.outputs else []
                for i in range(n)]
        self._ipdom = [-1 if d < 0 else n - 1 - d for d in _dominators(ends)[::-1]]

    def dominates(self, u: int, v: int) -> bool:
        """Whether every way from an input to ``v`` passes ``u``."""
        while v > u:
            v = self._idom[v]
        return v == u

    def ends_of(self, u: int) -> list[int]:
        """Nodes behind ``u`` that every way from ``u`` passes and that nothing enters but by ``u``, nearest first."""
        found, v = [], self._ipdom[u]
        while v >= 0:
            if self.dominates(u, v):
                found.append(v)
            v = self._ipdom[v]
        return found

    def between(self, u: int, v: int) -> list[int]:
        """Nodes on the ways from ``u`` to ``v``, ``u`` left out, in topological order."""
        found, stack = {v}, [v]
        while stack:
            for s in self.before[stack.pop()]:
                if s != u and s not in found:
                    found.add(s)
                    stack.append(s)
        return sorted(found)

    def blocks(self) -> list[tuple[str, str]]:
        """``(entry, exit)`` of parts with at least one layer that keep the shape and end as blocks of networks do."""
        net, found = self.net, []
        for u, start in enumerate(self.order):
            spec, taken = net.specs[start], 0
            for v in self.ends_of(u):
                end = net.specs[self.order[v]]
                if (end.out_shape == spec.out_shape and (end.op == spec.op or end.op in _BLOCK_ENDS)
                        and any(net.specs[self.order[i]].op in _LAYERS for i in self.between(u, v))):
                    found.append((start, self.order[v]))
                    taken += 1
                    if taken == _ACTS_BEHIND:
                        break
        return found

    def members(self, entry: str, exit_: str) -> list[str]:
        """Nodes of the part behind ``entry`` up to ``exit_``, with the constants that only it reads, producers first.

        Raises ``Refused`` unless one tensor enters, one of the same shape leaves, and nothing inside shares trained values.
        """
        net = self.net
        first, last = net.spec(entry), net.spec(exit_)
        u, v = self.place.get(entry), self.place.get(exit_)
        if u is None or v is None or v <= u or v not in self.ends_of(u):
            raise Refused(f"nodes {entry} and {exit_} are not the ends of one part of the network")
        if first.out_shape != last.out_shape:
            raise Refused(f"between {entry} and {exit_} the shape changes from {first.out_shape} to {last.out_shape}")
        inside = {self.order[i] for i in self.between(u, v)}
        for k in reversed(net.order):
            if k not in self.place and net.readers[k] and all(r in inside for r in net.readers[k]):
                inside.add(k)
        if any(net.specs[k].extra_params < 0 for k in inside):
            raise Refused(f"a layer between {entry} and {exit_} shares its trained values with another")
        return [k for k in net.order if k in inside]


def _dominators(before: list[list[int]]) -> list[int]:
    """Nearest dominator of each node of an acyclic graph in topological order; -1 stands for the common root."""
    idom: list[int] = []
    for sources in before:
        if not sources:
            idom.append(-1)
            continue
        found = sources[0]
        for other in sources[1:]:
            while found != other:
                if found > other:
                    found = idom[found]
                else:
                    other = idom[other]
        idom.append(found)
    return idom
