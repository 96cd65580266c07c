"""Patterns of TensorFlow nodes that are one operator of PyTorch. A matcher gets a node and says what it is the end of.

A ``Match`` names the handler that runs the whole pattern and the tensors that go into it. Normalisation is in
``tensorflow_norm_patterns``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from extract import tensorflow_layers as layers
from extract import tensorflow_math as maths
from extract import tensorflow_moves as moves
from extract import tensorflow_pools as pools
from extract.tensorflow_graph import Net, Node, Out

CONVS: Final = ("Conv2D", "Conv3D", "DepthwiseConv2dNative")
_TRANSPOSED: Final = ("Conv2DBackpropInput", "Conv3DBackpropInputV2")
PRODUCTS: Final = ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")
ADDS: Final = ("Add", "AddV2")
_POSITIVE: Final = frozenset({"Relu", "Relu6", "Sigmoid", "Softmax", "Abs", "Square", "Softplus"})


class Match(NamedTuple):
    """``inputs`` in the order that ``handler`` expects, and tensors or values by name."""

    handler: Callable[..., Any]
    inputs: list[Out]
    named: dict[str, Any] = {}  # noqa: RUF012


@dataclass
class View:
    """What matchers see of a net."""

    net: Net

    def only(self, out: Out, *ops: str) -> Node | None:
        """The node of ``out`` if it is one of ``ops``, and nobody else reads it."""
        while out.node.op == "Cast" and self.net.uses.get(out) == 1 and out.node.inputs:
            out = out.node.inputs[0]
        return out.node if out.node.op in ops and self.net.uses.get(out) == 1 else None


def pairs(node: Node) -> Iterator[tuple[Out, Out]]:
    """Both orders of the arguments of a commutative operator."""
    if len(node.inputs) == 2:
        a, b = node.inputs
        yield a, b
        if node.op != "BiasAdd":
            yield b, a


def _conv_parts(view: View, node: Node) -> Match | None:
    """A convolution with what TensorFlow puts around it: zero padding, the axis of height one of a 1-D convolution, and
    the splitting into blocks that stands for a dilation.
    """
    named: dict[str, Any] = {}
    inner: Node | None = node
    if node.op == "BatchToSpaceND" and len(node.inputs) == 3:
        named["block"], named["crops"] = node.inputs[1:3]
        inner = view.only(node.inputs[0], "Squeeze", *CONVS)
    if inner is not None and inner.op == "Squeeze":
        conv = view.only(inner.inputs[0], *CONVS) if inner.inputs else None
        if conv is None or len(conv.inputs) != 2:
            return None
        x = conv.inputs[0]
        if x.node.op == "ExpandDims":
            named["one_d"] = True
            x = x.node.inputs[0]
        elif "block" in named or not {*inner.ints("squeeze_dims")} or {*inner.ints("squeeze_dims")} & {0, 3, -1, -4}:
            return None
        named["squeeze"] = inner.ints("squeeze_dims")
        inner = conv
    elif inner is not None and inner.op in CONVS and len(inner.inputs) == 2:
        x = inner.inputs[0]
    else:
        return None
    if "block" in named:
        split = view.only(x, "SpaceToBatchND")
        if split is None or len(split.inputs) != 3 or split.inputs[1].node.op != "Const":
            return None
        x, named["block_pads"] = split.inputs[0], split.inputs[2]
    pad = view.only(x, "Pad")
    if pad is not None and len(pad.inputs) == 2:
        x, named["pads"] = pad.inputs
    if not x.node.live and not inner.inputs[1].node.live:
        return None
    return Match(layers.conv, [x, inner.inputs[1]], {**named, "conv": inner})


def conv(view: View, node: Node) -> Match | None:
    found = _conv_parts(view, node)
    return found if found is not None and (len(found.named) > 1 or found.named["conv"] is not node) else None


def conv_bias(view: View, node: Node) -> Match | None:
    for x, bias in pairs(node):
        inner = None if bias.node.live else view.only(x, "BatchToSpaceND", "Squeeze", *CONVS)
        found = None if inner is None else _conv_parts(view, inner)
        if found is not None:
            return Match(layers.conv, found.inputs, {**found.named, "bias": bias, "whole": node})
    return None


def transpose_bias(view: View, node: Node) -> Match | None:
    for x, bias in pairs(node):
        inner = None if bias.node.live else view.only(x, "Squeeze", *_TRANSPOSED)
        found = None if inner is None else transpose(view, inner, True)
        if found is not None:
            return Match(layers.conv_transpose, found.inputs, {**found.named, "bias": bias, "whole": node})
    return None


def transpose(view: View, node: Node, alone: bool = False) -> Match | None:
    """A transposed convolution, with the axis of height one of a 1-D one."""
    if node.op in _TRANSPOSED:
        return Match(layers.conv_transpose, node.inputs, {"conv": node}) if alone and len(node.inputs) == 3 else None
    inner = view.only(node.inputs[0], *_TRANSPOSED) if node.inputs else None
    dims = node.ints("squeeze_dims")
    if inner is None or len(inner.inputs) != 3 or not dims or {*dims} & {0, 3, -1, -4}:
        return None
    return Match(layers.conv_transpose, inner.inputs, {"conv": inner, "squeeze": dims})


def _linear_parts(view: View, node: Node | None) -> Match | None:
    """A product with a constant matrix, perhaps between two reshapes, as ``tf.tensordot`` writes it."""
    named: dict[str, Any] = {}
    if node is not None and node.op == "Reshape" and len(node.inputs) == 2:
        named["to"] = node.inputs[1]
        node = view.only(node.inputs[0], *PRODUCTS)
    if node is None or node.op not in (*PRODUCTS, "Einsum") or len(node.inputs) != 2:
        return None
    x, w = node.inputs
    if w.node.live or not x.node.live:
        return None
    flat = view.only(x, "Reshape")
    if node.op == "MatMul" and flat is not None and len(flat.inputs) == 2 and "to" in named:
        x, named["flat"] = flat.inputs
    return Match(layers.linear, [x, w], {**named, "product": node})


def linear(view: View, node: Node) -> Match | None:
    return _linear_parts(view, node)


def linear_bias(view: View, node: Node) -> Match | None:
    for x, bias in pairs(node):
        inner = None if bias.node.live else view.only(x, "Reshape", "Einsum", *PRODUCTS)
        found = _linear_parts(view, inner)
        if found is not None:
            return Match(layers.linear, found.inputs, {**found.named, "bias": bias})
    return None


def gelu(view: View, node: Node) -> Match | None:
    """``0.5 * x * erfc(-x / sqrt(2))``."""
    from extract.tensorflow_consts import small_numbers

    for half, tail in pairs(node):
        erfc = view.only(tail, "Erfc")
        arg = None if erfc is None else view.only(erfc.inputs[0], "Mul")
        for minus, root in pairs(arg) if arg is not None else ():
            if minus.node.op != "Neg" or not _near(small_numbers(root.node), 0.70710678) or half.node.op != "Mul":
                continue
            for number, x in pairs(half.node):
                if x == minus.node.inputs[0] and _near(small_numbers(number.node), 0.5):
                    return Match(layers.gelu, [x])
    return None


def _near(values: Any, wanted: float) -> bool:
    return isinstance(values, list) and len(values) == 1 and abs(values[0] - wanted) < 1e-3


def prelu(view: View, node: Node) -> Match | None:
    """``relu(x) + -alpha * relu(-x)``."""
    for p, q in pairs(node):
        positive, product = view.only(p, "Relu"), view.only(q, "Mul")
        for minus_alpha, right in pairs(product) if positive is not None and product is not None else ():
            negative = view.only(right, "Relu")
            if negative is None or negative.inputs[0].node.op != "Neg" or minus_alpha.node.op != "Neg":
                continue
            x, alpha = negative.inputs[0].node.inputs[0], minus_alpha.node.inputs[0]
            if positive is not None and positive.inputs[0] == x and not alpha.node.live:
                return Match(layers.prelu, [x, alpha])
    return None


def pool_pad(view: View, node: Node) -> Match | None:
    """Zero padding before a pool; before a maximum only where no value is negative."""
    pad = view.only(node.inputs[0], "Pad") if node.inputs else None
    if pad is None or len(pad.inputs) != 2 or (node.op == "MaxPool" and pad.inputs[0].node.op not in _POSITIVE):
        return None
    return Match(pools.pool, [pad.inputs[0]], {"pads": pad.inputs[1]})


def upsample(view: View, node: Node) -> Match | None:
    """``tf.repeat`` along an axis (or one axis after the other): reshape(tile(expand_dims(x)))."""
    repeats: list[tuple[Out, Out]] = []
    named: dict[str, Any] = {"to": node.inputs[1]} if len(node.inputs) == 2 else {}
    here: Node | None = node
    x = None
    while here is not None and here.op == "Reshape" and len(here.inputs) == 2:
        tile = view.only(here.inputs[0], "Tile")
        grown = None if tile is None else view.only(tile.inputs[0], "ExpandDims")
        if tile is None or grown is None:
            break
        repeats.append((grown.inputs[1], tile.inputs[1]))
        x = grown.inputs[0]
        here = view.only(x, "Reshape")
    if x is None:
        return None
    for i, (axis, multiples) in enumerate(reversed(repeats)):
        named[f"axis{i}"], named[f"multiples{i}"] = axis, multiples
    return Match(pools.upsample, [x], named)


def take(view: View, node: Node) -> Match | None:
    """Rows of a table by numbers that may count from the end: ``where(i < 0, i + size, i)``."""
    if len(node.inputs) < 2 or node.attr("batch_dims"):
        return None
    chosen = view.only(node.inputs[1], "SelectV2", "Select")
    if chosen is None or len(chosen.inputs) != 3 or chosen.inputs[0].node.op != "Less":
        return None
    index = chosen.inputs[2]
    less, moved = chosen.inputs[0].node, chosen.inputs[1].node
    if less.inputs[0] != index or moved.op not in ADDS or index not in moved.inputs:
        return None
    return Match(moves.gather, [node.inputs[0], index, *node.inputs[2:]])


def log_sum_exp(view: View, node: Node) -> Match | None:
    """``log(sum(exp(x - m))) + m`` with the maximum ``m`` of ``x`` where it is finite."""
    for p, q in pairs(node):
        log = p.node if p.node.op == "Log" else None  # its shape may be read too
        total = None if log is None else view.only(log.inputs[0], "Sum")
        power = None if total is None else view.only(total.inputs[0], "Exp")
        minus = None if power is None else view.only(power.inputs[0], "Sub")
        if total is None or minus is None:
            continue
        m = minus.inputs[1]
        base = q.node.inputs[0] if q.node.op in ("Reshape", "Squeeze") and q.node.inputs else q
        if base == m and (m.node.op == "Max" or (m.node.op in ("SelectV2", "Select") and m.node.inputs[1].node.op == "Max")):
            return Match(maths.log_sum_exp, [minus.inputs[0], total.inputs[1]], {"total": total})
    return None
