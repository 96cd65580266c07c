"""Networks that are a chain of inverted bottlenecks (MBConv), as one value, and their graph and parameters from it.

``Plan`` says all there is to know; ``build_plan`` writes its graph, ``plan_params`` counts its parameters in closed form and
``_nets.mbconv.MBConvNet`` is its torch module. Must not import torch.

A block (arXiv 1801.04381, 1905.02244): 1x1 convolution to ``expand`` times the input channels (absent where ``expand`` is 1),
depthwise convolution, squeeze and excitation where asked for, 1x1 convolution; normalisation after each convolution, activation
after the first two; the input is added where the shape stays.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cg.builder import GraphBuilder
    from cg.graph import Graph

RELU, RELU6, HSWISH = "relu", "relu6", "h_swish"


class Block(NamedTuple):
    """One inverted bottleneck: channels in and out, depthwise kernel and stride, expand ratio, activation, SE or not."""

    c_in: int
    c_out: int
    kernel: int
    expand: int
    stride: int
    act: str
    se: bool = False

    @property
    def residual(self) -> bool:
        """Whether the input is added to the output."""
        return self.stride == 1 and self.c_in == self.c_out


class Plan(NamedTuple):
    """A network on ``[B, 3, r, r]``.

    Attributes:
        stem: channels of the 3x3 convolution of stride 2 in front.
        blocks: the blocks that are there, in order.
        expand: 0 for the head of MobileNetV2 (1x1 convolution to ``features``, normalisation, activation, pooling); for that
            of MobileNetV3 its channels before the pooling (1x1 convolution to ``expand``, normalisation, activation, pooling,
            1x1 convolution to ``features`` without normalisation, activation).
        features: width of the layer before the classifier.
        act: activation of stem and head.
        num_classes: width of the classifier.
        bn_eps: epsilon of the normalisation of the official weights; it is not in the graph.
    """

    stem: int
    blocks: tuple[Block, ...]
    expand: int
    features: int
    act: str
    num_classes: int
    bn_eps: float


def make_divisible(value: float, divisor: int = 8) -> int:
    """Channels: the multiple of ``divisor`` nearest to ``value``, one more where that would lose above a tenth."""
    near = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return near + divisor if near < 0.9 * value else near


def se_width(channels: int) -> int:
    """Hidden channels of squeeze and excitation on ``channels``: a quarter, made divisible by 8."""
    return make_divisible(channels // 4)


@lru_cache(maxsize=4096)
def block_params(block: Block) -> int:
    """Trained scalars of one block."""
    mid = block.c_in * block.expand
    total = mid * (block.kernel**2 + 2) + mid * block.c_out + 2 * block.c_out
    if block.expand != 1:
        total += block.c_in * mid + 2 * mid
    if block.se:
        hidden = se_width(mid)
        total += 2 * mid * hidden + hidden + mid
    return total


def plan_params(plan: Plan) -> int:
    """Trained scalars of the network."""
    last = plan.blocks[-1].c_out
    total = 27 * plan.stem + 2 * plan.stem + sum(map(block_params, plan.blocks))
    if plan.expand:
        total += last * plan.expand + 2 * plan.expand + plan.expand * plan.features
    else:
        total += last * plan.features + 2 * plan.features
    return total + (plan.features + 1) * plan.num_classes


def _act(b: GraphBuilder, x: int, act: str) -> int:
    return b.relu6(x) if act == RELU6 else b.hard_swish(x) if act == HSWISH else b.relu(x)


def add_block(b: GraphBuilder, x: int, block: Block) -> int:
    """The block's nodes, the addition of its input included."""
    return b.memo(block, lambda b, x: _trace_block(b, x, block), x)


def _trace_block(b: GraphBuilder, x: int, block: Block) -> int:
    mid, y = block.c_in * block.expand, x
    if block.expand != 1:
        y = _act(b, b.batch_norm(b.conv2d(y, mid, 1)), block.act)
    y = _act(b, b.batch_norm(b.conv2d(y, mid, block.kernel, block.stride, groups=mid)), block.act)
    if block.se:
        gate = b.relu(b.conv2d(b.global_avg_pool(y), se_width(mid), 1, bias=True))
        y = b.mul(y, b.hard_sigmoid(b.conv2d(gate, mid, 1, bias=True)))
    y = b.batch_norm(b.conv2d(y, block.c_out, 1))
    return b.add(y, x) if block.residual else y


def build_plan(plan: Plan, resolution: int, name: str, family: str) -> Graph:
    """The graph of the network on one image of ``resolution`` pixels a side."""
    from cg.builder import GraphBuilder

    b = GraphBuilder(name=name, family=family)
    x = b.conv2d(b.input((1, 3, resolution, resolution)), plan.stem, 3, 2)
    x = _act(b, b.batch_norm(x), plan.act)
    for block in plan.blocks:
        x = add_block(b, x, block)
    if plan.expand:
        x = b.global_avg_pool(_act(b, b.batch_norm(b.conv2d(x, plan.expand, 1)), plan.act))
        x = _act(b, b.conv2d(x, plan.features, 1), plan.act)
    else:
        x = b.global_avg_pool(_act(b, b.batch_norm(b.conv2d(x, plan.features, 1)), plan.act))
    return b.build(b.linear(x, plan.num_classes))
