"""What differs between two graphs, in one sentence that names the node and the field. This file must not import a framework.

The laws of this package say "equal fingerprint"; when one fails, a digest against another digest helps nobody.
"""

from __future__ import annotations

import hashlib
from collections import Counter

from cg.graph import Graph
from cg.spec import TABLE, NodeSpec
from cg.vocabulary import COMMUTATIVE


def difference(a: Graph, b: Graph) -> str | None:
    """``None`` if ``a`` and ``b`` have one fingerprint, otherwise the first difference.

    It is looked for in this order: operators that only one graph has or has more often; the first node (in topological
    order) of ``a`` that has no counterpart in ``b``, although all nodes before it have one, with the fields in which the
    most similar node of ``b`` differs; which nodes are outputs.
    """
    if a.digest == b.digest:
        return None
    counts = a.op_counts, b.op_counts
    if counts[0] != counts[1]:
        parts = [f"{sign} {_listed(more)}" for sign, more in (
            ("the first has more:", counts[0] - counts[1]), ("the second has more:", counts[1] - counts[0])) if more]
        first = _first_stranger(a, b)
        return f"operators: {'; '.join(parts)}" + (f"; first: {first}" if first else "")
    return _first_stranger(a, b) or _first_stranger(b, a, swapped=True) or _outputs(a, b)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{n} {op}" for op, n in counts.most_common(6))


def _hashes(g: Graph) -> list[bytes]:
    """For each node a hash of its spec and of everything before it."""
    done: list[bytes] = []
    for i, s in enumerate(g.spec):
        spec = TABLE.specs[s]
        before = [done[p] for p in g.inputs_of(i)]
        if spec.op in COMMUTATIVE:
            before.sort()
        done.append(hashlib.blake2b(TABLE.texts[s].encode() + b"".join(before), digest_size=16).digest())
    return done


def _first_stranger(a: Graph, b: Graph, swapped: bool = False) -> str | None:
    in_a, in_b = _hashes(a), _hashes(b)
    left, free = Counter(in_a), Counter(in_b)
    candidates = Counter(in_b)
    for i, h in enumerate(in_a):
        if candidates[h] > 0:
            candidates[h] -= 1
            continue
        spec = a.nodes[i]
        before = [in_a[p] for p in a.inputs_of(i)]
        alone = [k for k, other in enumerate(in_b) if free[other] > left[other]]  # nodes of b that a has not
        best = max(alone, key=lambda k: _likeness(spec, before, b.nodes[k], [in_b[p] for p in b.inputs_of(k)]), default=None)
        place = f"node {i} of the {'second' if swapped else 'first'} graph, {_short(spec)}"
        if best is None:
            return f"{place}: the other graph has fewer of these"
        fields = _fields(spec, b.nodes[best])
        where = fields or [f"arguments come from {_sources(a, i)} against {_sources(b, best)}"]
        return f"{place}; nearest in the other is node {best}, {b.nodes[best].op}: {'; '.join(where)}"
    return None


def _likeness(spec: NodeSpec, before: list[bytes], other: NodeSpec, other_before: list[bytes]) -> tuple[int, ...]:
    same = sum((Counter(before) & Counter(other_before)).values())
    return (spec.op == other.op, same, spec.in_shapes == other.in_shapes, spec.out_shape == other.out_shape,
            spec.weight_shape == other.weight_shape, -len(_fields(spec, other)))


def _fields(x: NodeSpec, y: NodeSpec) -> list[str]:
    """Fields in which two specs differ, attributes one by one."""
    found = [f"{name} {getattr(x, name)} against {getattr(y, name)}" for name in (
        "op", "in_shapes", "out_shape", "weight_shape", "bias", "extra_params") if getattr(x, name) != getattr(y, name)]
    left, right = dict(x.attrs), dict(y.attrs)
    for name in sorted({*left, *right}):
        if repr(left.get(name)) != repr(right.get(name)):
            found.append(f"attribute {name} {left.get(name)!r} against {right.get(name)!r}")
    return found


def _sources(g: Graph, i: int) -> str:
    return ", ".join(f"{p} ({g.nodes[p].op})" for p in g.inputs_of(i)) or "nowhere"


def _short(spec: NodeSpec) -> str:
    return f"{spec.op} {spec.in_shapes} -> {spec.out_shape}"


def _outputs(a: Graph, b: Graph) -> str:
    ops = [[_short(g.nodes[i]) for i in g.outputs] for g in (a, b)]
    return f"outputs or readers: the nodes agree one by one, but not who reads them (outputs {ops[0][:4]} against {ops[1][:4]})"
