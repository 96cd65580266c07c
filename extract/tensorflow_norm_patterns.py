"""Normalisation as TensorFlow spells it out: which nodes are one batch, layer, instance, group or RMS normalisation."""

from __future__ import annotations

from typing import Any, NamedTuple

from extract import tensorflow_norms as norms
from extract.tensorflow_graph import Node, Out
from extract.tensorflow_patterns import ADDS, Match, View, pairs


class _Scale(NamedTuple):
    variance: Out
    epsilon: Out
    gamma: Out | None


def _scale(out: Out) -> _Scale | None:
    """``rsqrt(variance + epsilon)``, perhaps times ``gamma``."""
    node, gamma = out.node, None
    if node.op == "Mul":
        for root, factor in pairs(node):
            if root.node.op == "Rsqrt":
                node, gamma = root.node, factor
                break
    if node.op != "Rsqrt" or not node.inputs or node.inputs[0].node.op not in ADDS:
        return None
    variance, epsilon = node.inputs[0].node.inputs
    return _Scale(variance, epsilon, gamma)


def _shift(out: Out, scale: Out) -> tuple[Out, Out | None] | None:
    """``(mean, beta)`` of ``beta - mean * scale`` in its spellings."""
    node = out.node
    if node.op == "Sub":
        mean = _times(node.inputs[1], scale)
        return None if mean is None else (mean, node.inputs[0])
    if node.op in ADDS:
        for part, beta in pairs(node):
            mean = _minus_times(part, scale)
            if mean is not None:
                return mean, beta
        return None
    mean = _minus_times(out, scale)
    return None if mean is None else (mean, None)


def _times(out: Out, scale: Out) -> Out | None:
    """``a`` of ``a * scale``."""
    if out.node.op == "Mul":
        for a, b in pairs(out.node):
            if b == scale:
                return a
    return None


def _minus_times(out: Out, scale: Out) -> Out | None:
    if out.node.op == "Neg":
        return _times(out.node.inputs[0], scale)
    product = _times(out, scale)
    return product.node.inputs[0] if product is not None and product.node.op == "Neg" else None


def normalisation(view: View, node: Node) -> Match | None:
    """``x * s + (beta - mean * s)`` with ``s = gamma * rsqrt(variance + epsilon)``: batch, layer, instance, group norm."""
    for p, q in pairs(node):
        product = view.only(p, "Mul")
        for x, s in pairs(product) if product is not None else ():
            scale = _scale(s)
            shift = None if scale is None else _shift(q, s)
            if scale is None or shift is None:
                continue
            named: dict[str, Any] = {"epsilon": scale.epsilon}
            if scale.gamma is not None:
                named["gamma"] = scale.gamma
            if shift[1] is not None:
                named["beta"] = shift[1]
            if not scale.variance.node.live and not shift[0].node.live:
                return Match(norms.batch_norm, [x, shift[0], scale.variance], named)
            axes = _moments(x, shift[0], scale.variance)
            if axes is not None:
                return Match(norms.moment_norm, [x], {**named, "axes": axes})
    return None


def _moments(x: Out, mean: Out, variance: Out) -> Out | None:
    """The axes of ``mean = Mean(x)`` and ``variance = Mean((x - mean) ** 2)``."""
    if mean.node.op != "Mean" or variance.node.op != "Mean" or not mean.node.attr("keep_dims"):
        return None
    squares = variance.node.inputs[0].node
    if squares.op == "Square":
        squares = squares.inputs[0].node
        right = squares.op == "Sub"
    else:
        right = squares.op == "SquaredDifference"
    if not right or _before_casts(mean.node.inputs[0]) != _before_casts(x):
        return None
    return mean.node.inputs[1] if {*map(_before_casts, squares.inputs)} == {_before_casts(x), mean} else None


def _before_casts(out: Out) -> Out:
    while out.node.op == "Cast" and out.node.inputs:
        out = out.node.inputs[0]
    return out


def group_norm(view: View, node: Node) -> Match | None:
    """Group normalisation: a reshape into groups, normalisation over everything but the groups, a reshape back."""
    inner = view.only(node.inputs[0], *ADDS) if len(node.inputs) == 2 else None
    found = None if inner is None else normalisation(view, inner)
    if found is None or found.handler is not norms.moment_norm or found.inputs[0].node.op != "Reshape":
        return None
    x, groups = found.inputs[0].node.inputs
    return Match(norms.group_norm, [x], {**found.named, "groups": groups, "to": node.inputs[1]})


def rms_norm(view: View, node: Node) -> Match | None:
    for p, gamma in pairs(node):
        inner = None if gamma.node.live else view.only(p, "Mul")
        found = None if inner is None else _rms(inner)
        if found is not None:
            return Match(norms.rms_norm, found.inputs, {**found.named, "gamma": gamma})
    return _rms(node)


def _rms(node: Node) -> Match | None:
    for x, s in pairs(node):
        scale = _scale(s)
        if scale is None or scale.gamma is not None or scale.variance.node.op != "Mean":
            continue
        mean = scale.variance.node
        square = mean.inputs[0].node
        if square.op == "Square" and square.inputs[0] == x and mean.attr("keep_dims"):
            return Match(norms.rms_norm, [x], {"axes": mean.inputs[1], "epsilon": scale.epsilon})
    return None
