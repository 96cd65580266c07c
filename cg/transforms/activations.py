"""Bring activations that are written out in simple operators to their one node.

An activation of x with a gate E(x) (an Erf, Tanh, Sigmoid or Clip) is a polynomial in the two values x and E, whatever the
order in which it is written: GELU is x / 2 + x E / 2. So the polynomial is computed and compared, not the tree.
"""

from __future__ import annotations

from math import pi, sqrt
from typing import Any, Final

from cg.graph import Graph
from cg.spec import NodeSpec, Shape
from cg.transforms._pattern import Pattern, Presence, close_to, number

Polynomial = dict[tuple[int, int], float]  # exponents of x and of the gate -> coefficient
_GATES: Final = Presence(lambda s: s.op in ("Erf", "Tanh", "Sigmoid", "HardSigmoid", "Clip"))
_LONGEST: Final = 7  # nodes between a gate and the end of its activation
_HIGHEST: Final = 4  # power
_X: Final = (1, 0)
_GELU: Final[Polynomial] = {(1, 0): 0.5, (1, 1): 0.5}
_GATED: Final[Polynomial] = {(1, 1): 1.0}
_CUBIC: Final[Polynomial] = {(1, 0): sqrt(2 / pi), (3, 0): sqrt(2 / pi) * 0.044715}
# what the gate's argument must be, what the whole must be -> operator and attributes
_HARD_SIGMOID: Final = ("HardSigmoid", {"alpha": number(1 / 6)})
Target = tuple[Polynomial, tuple[str, dict[str, Any]]]


def fuse_activations(graph: Graph) -> Graph:
    """Contract: written-out Swish (x sigmoid x), Mish (x tanh softplus x), Gelu (with erf, or with tanh: ``approximate``),
    HardSigmoid (clip(x + 3, 0, 6) / 6) and HardSwish (x times that) become one node each, if all their nodes see x in one
    shape and nothing else reads a value inside. x sigmoid(1.702 x) is another function and stays. Values, outputs and
    ``params`` are unchanged.
    """
    if not _GATES(graph):
        return graph
    p = Pattern(graph)
    for node in range(graph.n_nodes):
        if node in p.dead or len(p.inputs[node]) != 1:
            continue
        op = p.op(node)
        if op in ("Sigmoid", "HardSigmoid"):
            if op == "Sigmoid":
                _climb(p, node, p.inputs[node][0], (), [(_GATED, ("Swish", {}))])
            elif p.specs[node].attrs == tuple(_HARD_SIGMOID[1].items()):
                _climb(p, node, p.inputs[node][0], (), [(_GATED, ("HardSwish", {}))])
        elif op == "Erf":
            _error_function(p, node)
        elif op == "Tanh":
            _tanh(p, node)
        elif op == "Clip":
            _clip(p, node)
    return p.close()


def _error_function(p: Pattern, gate: int) -> None:
    scaled = p.inputs[gate][0]
    factor = p.scalar(scaled, "Mul")
    if factor is not None and close_to(factor, sqrt(0.5)):
        _climb(p, gate, p.inputs[scaled][0], (scaled,), [(_GELU, ("Gelu", {}))])


def _tanh(p: Pattern, gate: int) -> None:
    argument = p.inputs[gate][0]
    if p.op(argument) == "Softplus" and not p.specs[argument].attrs:
        _climb(p, gate, p.inputs[argument][0], (argument,), [(_GATED, ("Mish", {}))])
        return
    for base in _bases(p, argument):
        inside: set[int] = set()
        inner = _polynomial(p, argument, {base: _X}, p.specs[gate].in_shapes[0], inside)
        if inner is not None and _ratio(inner, _CUBIC) == 1:
            _climb(p, gate, base, inside, [(_GELU, ("Gelu", {"approximate": "tanh"}))])
            return


def _clip(p: Pattern, gate: int) -> None:
    bounds, spec = dict(p.specs[gate].attrs), p.specs[gate]
    argument = p.inputs[gate][0]
    shift = p.scalar(argument, "Add")
    if shift is None or bounds.get("min") != 0 or len(bounds) != 2:
        return
    base = p.inputs[argument][0]
    if bounds.get("max") == 6 and shift == 3:
        _climb(p, gate, base, (argument,), [({(0, 1): 1 / 6}, _HARD_SIGMOID), ({(1, 1): 1 / 6}, ("HardSwish", {}))])
    elif bounds.get("max") == 1 and shift == 0.5:
        factor = p.scalar(base, "Mul")
        inside = {argument, base}
        if factor is not None and close_to(factor, 1 / 6) and p.private(inside, gate) and _one_shape(p, inside | {gate}):
            shape = spec.out_shape
            p.replace(gate, NodeSpec("HardSigmoid", (shape,), shape, attrs=tuple(_HARD_SIGMOID[1].items())),
                      p.inputs[base], inside)
            _climb(p, gate, p.inputs[gate][0], (), [(_GATED, ("HardSwish", {}))])


def _one_shape(p: Pattern, nodes: set[int]) -> bool:
    return len({s for n in nodes for s in (p.specs[n].out_shape, *p.specs[n].in_shapes)}) == 1


def _bases(p: Pattern, argument: int) -> list[int]:
    """Nodes above ``argument`` that could be the x of a cubic: read three times, not far away."""
    found, seen, layer = [], {argument}, [argument]
    for _ in range(_LONGEST):
        layer = [s for n in layer for s in p.inputs[n] if s not in seen][:8]
        seen.update(layer)
        found += [n for n in dict.fromkeys(layer) if len(p.readers[n]) >= 3]
    return found


def _climb(p: Pattern, gate: int, base: int, below: tuple[int, ...] | set[int], targets: list[Target]) -> None:
    """Walk from the gate to the reader where the value is one of the targets, and fuse there.

    ``below`` are the nodes between x and the gate. A multiple of a target is fused too, where the way ends: other
    rewrites may have joined its factor with the next one.
    """
    shape = p.specs[gate].out_shape
    if p.specs[gate].in_shapes != (shape,) or any(p.specs[n].out_shape != shape for n in below):
        return
    node, multiple = gate, None
    for _ in range(_LONGEST):
        node = p.sole_reader(node)
        if node < 0:
            break
        inside = {gate, *below}
        value = _polynomial(p, node, {base: _X, gate: (0, 1)}, shape, inside)
        if value is None:
            break
        for wanted, made in targets:
            ratio = _ratio(value, wanted)
            if ratio is not None and p.private(inside, node):
                if ratio == 1:
                    _fuse(p, node, base, inside, shape, made, 1)
                    return
                if wanted is _GELU:
                    multiple = node, inside, made, ratio
    if multiple is not None:
        _fuse(p, multiple[0], base, multiple[1], shape, multiple[2], multiple[3])


def _fuse(p: Pattern, root: int, base: int, inside: set[int], shape: Shape, made: tuple[str, dict[str, Any]],
          ratio: float) -> None:
    spec = NodeSpec(made[0], (shape,), shape, attrs=tuple(sorted(made[1].items())))
    if ratio == 1:
        p.replace(root, spec, [base], inside)
    else:
        p.replace(root, NodeSpec("Mul", (shape,), shape, attrs=(("scalar", number(ratio)),)), [p.append(spec, [base])], inside)


def _ratio(value: Polynomial, wanted: Polynomial) -> float | None:
    """``value / wanted`` if that is a number (1 where it is near 1), ``None`` otherwise."""
    terms = {k: v for k, v in value.items() if abs(v) > 1e-9}
    if terms.keys() != wanted.keys():
        return None
    ratios = [terms[k] / wanted[k] for k in wanted]
    if not all(close_to(r, ratios[0]) for r in ratios):
        return None
    return 1 if close_to(ratios[0], 1) else ratios[0]


def _polynomial(p: Pattern, node: int, variables: dict[int, tuple[int, int]], shape: Shape, inside: set[int],
                depth: int = 0) -> Polynomial | None:
    """``node`` as a polynomial in the variables; ``None`` if it is none or sees another shape. Collects the nodes used."""
    if node in variables:
        return {variables[node]: 1.0}
    spec = p.specs[node]
    if depth > _LONGEST or spec.op not in ("Add", "Sub", "Mul", "Pow", "Neg") or spec.params:
        return None
    if spec.out_shape != shape or any(s != shape for s in spec.in_shapes):
        return None
    inside.add(node)
    parts = [_polynomial(p, s, variables, shape, inside, depth + 1) for s in p.inputs[node]]
    a = parts[0]
    if a is None:
        return None
    attrs = dict(spec.attrs)
    if len(parts) == 1:
        return _with_number(spec.op, a, attrs)
    b = parts[1]
    if b is None:
        return None
    if spec.op in ("Add", "Sub"):
        sign = 1 if spec.op == "Add" else -1
        return {k: a.get(k, 0.0) + sign * b.get(k, 0.0) for k in {**a, **b}}
    return _product(a, b) if spec.op == "Mul" else None


def _with_number(op: str, a: Polynomial, attrs: dict[str, Any]) -> Polynomial | None:
    if op == "Neg":
        return {k: -v for k, v in a.items()}
    c = attrs.get("scalar")
    if c is None:
        return None
    if op == "Mul":
        return {k: c * v for k, v in a.items()}
    if op == "Add":
        return {**a, (0, 0): a.get((0, 0), 0.0) + c}
    if op == "Sub" and attrs.get("scalar_first"):
        return {(0, 0): 0.0, **{k: -v for k, v in a.items()}} | {(0, 0): c - a.get((0, 0), 0.0)}
    if op == "Pow" and c in (2, 3) and not attrs.get("scalar_first"):
        square = _product(a, a)
        return square if c == 2 or square is None else _product(square, a)
    return None


def _product(a: Polynomial, b: Polynomial) -> Polynomial | None:
    out: Polynomial = {}
    for (i, j), u in a.items():
        for (k, m), v in b.items():
            if i + k > _HIGHEST or j + m > _HIGHEST:
                return None
            out[i + k, j + m] = out.get((i + k, j + m), 0.0) + u * v
    return out
