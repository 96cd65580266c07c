"""Which TensorFlow nodes are run together, because PyTorch has one operator for what TensorFlow spells out.

``plan`` walks a flat graph once from the results to the inputs. At each node that is needed it asks the matchers of that
operator, in order; a match names the handler that runs the whole pattern and the tensors that go into it, and the nodes in
between are never run unless somebody else reads them. Matchers look at operators only; handlers check shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from extract import tensorflow_norm_patterns as norms
from extract import tensorflow_patterns as patterns
from extract.tensorflow_graph import Net, Node, Out
from extract.tensorflow_patterns import ADDS, CONVS, PRODUCTS, Match, View


@dataclass
class Step:
    """One call: the results belong to ``node``."""

    node: Node
    handler: Callable[..., Any] | None
    inputs: list[Out]
    named: dict[str, Any] = field(default_factory=dict)
    channels_first: bool = False  # keep the result as (N, C, …)


def plan(net: Net, table: dict[str, Callable[..., Any]]) -> list[Step]:
    """The calls that compute the results of ``net``, in order. ``handler`` is ``None`` for an operator not in ``table``."""
    view = View(net)
    needed = {o.node for o in net.outputs}
    steps: list[Step] = []
    for node in reversed(net.nodes):
        if node not in needed or node.op == "Arg":
            continue
        match = _match(view, node)
        step = (Step(node, table.get(node.op), node.inputs) if match is None
                else Step(node, match.handler, match.inputs, dict(match.named)))
        steps.append(step)
        needed.update(o.node for o in step.inputs)
        needed.update(v.node for v in step.named.values() if isinstance(v, Out))
    steps.reverse()
    wishes = channels_first(net)
    for step in steps:
        step.channels_first = step.node in wishes
    return steps


# ---- layout -----------------------------------------------------------------------------------------------------

_IMAGE: Final = frozenset({*CONVS, "MaxPool", "AvgPool", "MaxPool3D", "AvgPool3D", "ResizeBilinear", "ResizeNearestNeighbor",
                           "ResizeBicubic", "ResizeArea", "FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3", "LRN",
                           "SpaceToBatchND", "DepthToSpace", "SpaceToDepth", "Dilation2D"})
_FOLLOWS: Final = frozenset({
    *ADDS, "Sub", "Mul", "RealDiv", "Div", "Maximum", "Minimum", "BiasAdd", "Relu", "Relu6", "LeakyRelu", "Elu", "Selu",
    "Sigmoid", "Tanh", "Softplus", "Erf", "Erfc", "Exp", "Neg", "Abs", "Square", "Sqrt", "Rsqrt", "Pow", "Cast", "Pad", "PadV2",
    "MirrorPad", "ConcatV2", "StridedSlice", "Slice", "ExpandDims", "Squeeze", "Softsign", "ClipByValue", "AddN"})


def channels_first(net: Net) -> set[Node]:
    """Nodes whose (N, …, C) result goes, perhaps through element-wise operators, into one on images."""
    wishes: set[Node] = set()
    for node in reversed(net.nodes):
        image = node.op in _IMAGE and not str(node.attr("data_format", "NHWC")).startswith("NC")
        image = image or (node.op in ("Mean", "Max") and _over_pixels(node))
        if node.op in ("Conv2DBackpropInput", "Conv3DBackpropInputV2") and len(node.inputs) == 3:
            wishes.add(node.inputs[2].node)
        elif image and node.inputs:
            wishes.add(node.inputs[0].node)
        elif node.op in _FOLLOWS and node in wishes:
            wishes.update(o.node for o in node.inputs)
    return wishes


def _over_pixels(node: Node) -> bool:
    from extract.tensorflow_consts import small_numbers

    return len(node.inputs) > 1 and small_numbers(node.inputs[1].node) in ([1, 2], [1, 2, 3])


Matcher = Callable[[View, Node], Match | None]
_BIASES: Final = (patterns.conv_bias, patterns.transpose_bias, patterns.linear_bias)
MATCHERS: Final[dict[str, tuple[Matcher, ...]]] = {
    "BiasAdd": _BIASES, **dict.fromkeys(ADDS, (*_BIASES, norms.normalisation, patterns.prelu, patterns.log_sum_exp)),
    **dict.fromkeys((*CONVS, "BatchToSpaceND"), (patterns.conv,)), "Squeeze": (patterns.conv, patterns.transpose),
    **dict.fromkeys((*PRODUCTS, "Einsum"), (patterns.linear,)),
    "Reshape": (patterns.linear, norms.group_norm, patterns.upsample), "Mul": (patterns.gelu, norms.rms_norm),
    **dict.fromkeys(("GatherV2", "Gather", "ResourceGather"), (patterns.take,)),
    **dict.fromkeys(("MaxPool", "AvgPool"), (patterns.pool_pad,)),
}


def _match(view: View, node: Node) -> Match | None:
    """The first pattern that ends in ``node``. A node with too few or too many arguments is part of none."""
    for matcher in MATCHERS.get(node.op, ()):
        try:
            match = matcher(view, node)
        except (ValueError, IndexError):
            continue
        if match is not None:
            return match
    return None
