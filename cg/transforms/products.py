"""One spelling for arithmetic that people and exporters write in several ways: numbers, signs, powers, quotients, limits."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Final

from cg.graph import Graph
from cg.spec import NodeSpec
from cg.transforms._pattern import Pattern, Presence, number, with_attrs

_NUMBERED: Final = frozenset({"Add", "Sub", "Mul", "Pow", "Max", "Min"})


def _is_candidate(spec: NodeSpec) -> bool:
    if spec.op in ("Reciprocal", "Neg", "Not"):
        return True
    if spec.op == "Clip":
        return len(spec.in_shapes) == 1
    if len(spec.in_shapes) == 1:
        return spec.op in _NUMBERED
    return spec.op == "Mul" and spec.in_shapes[0] == spec.in_shapes[1]


_CANDIDATES: Final = Presence(_is_candidate)


def simplify_products(graph: Graph) -> Graph:
    """Contract: nodes are replaced by equal ones, and no value that something else reads is lost.

    Numbers: two factors (or a sign and a factor) in a row are one, two summands in a row are one; factors on the arguments
    of ``MatMul`` stand once, behind it; ``x * -1`` is ``Neg``. Sums: ``x + -y`` is ``Sub``, ``x - -y`` is ``Add``, ``-x + 2``
    is ``2 - x``. Powers: ``x * x`` is ``Pow`` 2, ``x * x^n`` is ``Pow`` n + 1, powers 0.5 and -1 are ``Sqrt`` and
    ``Reciprocal``. Quotients: ``x * Reciprocal(y)`` is ``Div``. Limits: ``Max`` and ``Min`` with a number are ``Clip``, a
    ``Clip`` of a ``Clip`` is one, a ``Clip`` from 0 is ``Relu``. Two ``Not`` vanish. ``params`` and outputs are unchanged.
    """
    if not _CANDIDATES(graph):
        return graph
    p = Pattern(graph)
    for node in range(graph.n_nodes):
        if node in p.dead or p.specs[node].params:
            continue
        op, count = p.op(node), len(p.inputs[node])
        if op == "MatMul" and count == 2:
            _scale_behind(p, node)
        elif op in ("Max", "Min", "Clip") and count == 1:
            _limit(p, node)
        elif op == "Not":
            _double_negation(p, node)
        elif op == "Pow" and count == 1:
            _root(p, node)
        elif op in ("Mul", "Neg") and count == 1:
            _factor(p, node)
        elif op == "Add" and count == 1:
            _summand(p, node)
        elif op == "Mul" and count == 2:
            _power(p, node)
            _quotient(p, node)
        elif op in ("Add", "Sub") and count == 2:
            _sign(p, node)
    return p.close()


def _sole(p: Pattern, node: int, place: int = 0) -> int:
    """Producer of an argument if ``node`` alone reads it and it holds as many values as the argument, else -1."""
    source = p.inputs[node][place]
    if p.sole_reader(source) != node or p.inputs[node].count(source) != 1:
        return -1
    if prod(p.specs[source].out_shape) != prod(p.specs[node].in_shapes[place]):
        return -1
    return source


def _factor_of(p: Pattern, node: int) -> float | None:
    """``a`` where ``node`` is ``a x`` and as large as x."""
    spec = p.specs[node]
    factor = -1.0 if spec.op == "Neg" else p.scalar(node, "Mul")
    return factor if factor is not None and prod(spec.in_shapes[0]) == prod(spec.out_shape) else None


def _scaled(spec: NodeSpec, factor: float) -> NodeSpec:
    """``factor * x`` in the shapes of ``spec``; exactly 1 stays for ``drop_identities``."""
    if factor == -1:
        return NodeSpec("Neg", spec.in_shapes, spec.out_shape)
    return NodeSpec("Mul", spec.in_shapes, spec.out_shape, attrs=(("scalar", factor),))


def _factor(p: Pattern, node: int) -> None:
    factor = _factor_of(p, node)
    if factor is None:
        return
    above = _sole(p, node)
    first = _factor_of(p, above) if above >= 0 and not p.specs[above].params else None
    if first is not None:
        p.replace(node, _scaled(p.specs[node], number(first * factor)), p.inputs[above], {above})
    elif factor == -1 and p.op(node) == "Mul":
        p.replace(node, _scaled(p.specs[node], factor), p.inputs[node])


def _summand(p: Pattern, node: int) -> None:
    value, above = p.scalar(node, "Add"), _sole(p, node)
    if value is None or above < 0 or p.specs[above].params:
        return
    spec = p.specs[node]
    if prod(spec.in_shapes[0]) != prod(spec.out_shape):
        return
    first = p.scalar(above, "Add")
    if first is not None and prod(p.specs[above].in_shapes[0]) == prod(p.specs[above].out_shape):
        p.replace(node, replace(spec, attrs=(("scalar", number(first + value)),)), p.inputs[above], {above})
    elif p.op(above) == "Neg":
        made = NodeSpec("Sub", spec.in_shapes, spec.out_shape, attrs=(("scalar", value), ("scalar_first", True)))
        p.replace(node, made, p.inputs[above], {above})


def _scale_behind(p: Pattern, node: int) -> None:
    spec, factor, inside, sources = p.specs[node], 1.0, set(), []
    for place, source in enumerate(p.inputs[node]):
        above = _sole(p, node, place)
        here = _factor_of(p, above) if above >= 0 and not p.specs[above].params else None
        if here is None:
            sources.append(source)
        else:
            factor *= here
            inside.add(above)
            sources.append(p.inputs[above][0])
    if not inside:
        return
    product = p.append(spec, sources)
    shape = spec.out_shape
    p.replace(node, _scaled(NodeSpec("Mul", (shape,), shape), number(factor)), [product], inside)


def _power(p: Pattern, node: int) -> None:
    spec, (x, y) = p.specs[node], p.inputs[node]
    if spec.attrs or len({*spec.in_shapes, spec.out_shape}) != 1:
        return
    shape = spec.out_shape
    if x == y:
        p.replace(node, NodeSpec("Pow", (shape,), shape, attrs=(("scalar", 2.0),)), [x])
        return
    for base, power in ((x, y), (y, x)):
        exponent = p.scalar(power, "Pow")
        if (exponent is not None and exponent in (2, 3) and p.inputs[power] == [base] and p.sole_reader(power) == node
                and p.specs[power].in_shapes == (shape,)):
            p.replace(node, NodeSpec("Pow", (shape,), shape, attrs=(("scalar", exponent + 1),)), [base], {power})
            return


def _root(p: Pattern, node: int) -> None:
    exponent, spec = p.scalar(node, "Pow"), p.specs[node]
    if spec.in_shapes != (spec.out_shape,):
        return
    if exponent in (0.5, -1):
        p.replace(node, NodeSpec("Sqrt" if exponent == 0.5 else "Reciprocal", spec.in_shapes, spec.out_shape), p.inputs[node])
    elif exponent == -0.5:
        root = p.append(NodeSpec("Sqrt", spec.in_shapes, spec.out_shape), p.inputs[node])
        p.replace(node, NodeSpec("Reciprocal", spec.in_shapes, spec.out_shape), [root])


def _quotient(p: Pattern, node: int) -> None:
    if node in p.dead or p.op(node) != "Mul" or len(p.inputs[node]) != 2 or p.specs[node].attrs:
        return
    inverse = [place for place in (0, 1) if p.op(p.inputs[node][place]) == "Reciprocal"]
    if len(inverse) != 1:
        return
    place = inverse[0]
    above = _sole(p, node, place)
    if above < 0:
        return
    spec = p.specs[node]
    other = 1 - place
    made = NodeSpec("Div", (spec.in_shapes[other], spec.in_shapes[place]), spec.out_shape)
    p.replace(node, made, [p.inputs[node][other], p.inputs[above][0]], {above})


def _sign(p: Pattern, node: int) -> None:
    """``x + -y`` and ``x - -y``; if both summands have a sign, they keep it."""
    spec = p.specs[node]
    if spec.attrs:
        return
    signed = [place for place in (0, 1) if p.op(p.inputs[node][place]) == "Neg"]
    if spec.op == "Sub":
        signed = [place for place in signed if place == 1]
    if len(signed) != 1:
        return
    place = signed[0]
    above = _sole(p, node, place)
    if above < 0:
        return
    other = 1 - place
    shapes = (spec.in_shapes[other], spec.in_shapes[place])
    made = NodeSpec("Add" if spec.op == "Sub" else "Sub", shapes, spec.out_shape)
    p.replace(node, made, [p.inputs[node][other], p.inputs[above][0]], {above})


def _limit(p: Pattern, node: int) -> None:
    spec = p.specs[node]
    low, high = _bounds(p, node)
    if (low is None and high is None) or prod(spec.in_shapes[0]) != prod(spec.out_shape):
        return
    inside, sources = set(), p.inputs[node]
    above = _sole(p, node)
    if above >= 0 and not p.specs[above].params:
        first_low, first_high = _bounds(p, above)
        if first_low is not None or first_high is not None:
            lows, highs = [v for v in (first_low, low) if v is not None], [v for v in (first_high, high) if v is not None]
            new_low, new_high = max(lows, default=None), min(highs, default=None)
            if new_low is None or new_high is None or new_low <= new_high:  # limits that cross are left alone
                low, high, inside, sources = new_low, new_high, {above}, p.inputs[above]
    if low == 0 and high is None:
        made = NodeSpec("Relu", spec.in_shapes, spec.out_shape)
    else:
        made = NodeSpec("Clip", spec.in_shapes, spec.out_shape, attrs=with_attrs(NodeSpec(
            "Clip", spec.in_shapes, spec.out_shape), min=low, max=high))
    if made != spec or inside:
        p.replace(node, made, sources, inside)


def _bounds(p: Pattern, node: int) -> tuple[float | None, float | None]:
    """Least and greatest value of a ``Clip`` by numbers, of its kin ``Relu``, ``Max`` and ``Min``; twice ``None`` otherwise."""
    spec = p.specs[node]
    if spec.op == "Relu":
        return 0.0, None
    if spec.op == "Max":
        return p.scalar(node, "Max"), None
    if spec.op == "Min":
        return None, p.scalar(node, "Min")
    if spec.op != "Clip" or len(spec.in_shapes) != 1:
        return None, None
    attrs = dict(spec.attrs)
    return attrs.get("min"), attrs.get("max")


def _double_negation(p: Pattern, node: int) -> None:
    above = _sole(p, node)
    if above >= 0 and p.op(above) == "Not":
        spec = p.specs[node]
        p.replace(node, NodeSpec("Mul", spec.in_shapes, spec.out_shape, attrs=(("scalar", 1.0),)), p.inputs[above], {above})
