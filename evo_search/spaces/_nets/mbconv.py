"""Chains of inverted bottlenecks as torch modules, from the same ``Plan`` as their graphs.

Submodules carry the names of the Once-for-All code (``blocks.3.conv.inverted_bottleneck.conv``, ``depth_conv.se.fc.reduce``,
``classifier.linear``), so that a state dict of an official sub-network fits.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from evo_search.spaces._mbconv import HSWISH, RELU6, Block, Plan, se_width


def activation(name: str) -> nn.Module:
    return nn.ReLU6(inplace=True) if name == RELU6 else nn.Hardswish(inplace=True) if name == HSWISH else nn.ReLU(inplace=True)


def conv_bn_act(c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: str | None = None,
                bn: bool = True, eps: float = 1e-5) -> nn.Sequential:
    """Convolution ``conv``, normalisation ``bn`` and activation ``act``, those that are asked for."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv"] = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    if bn:
        layers["bn"] = nn.BatchNorm2d(c_out, eps=eps)
    if act is not None:
        layers["act"] = activation(act)
    return nn.Sequential(layers)


class SqueezeExcite(nn.Module):
    """[B, C, H, W] -> [B, C, H, W]: channels scaled by a gate that sees their means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = se_width(channels)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(OrderedDict(reduce=nn.Conv2d(channels, hidden, 1), relu=nn.ReLU(inplace=True),
                                            expand=nn.Conv2d(hidden, channels, 1), h_sigmoid=nn.Hardsigmoid(inplace=True)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = x * self.fc(self.pool(x))
        return out


class MBConv(nn.Module):
    """[B, c_in, H, W] -> [B, c_out, H / stride, W / stride]."""

    def __init__(self, block: Block, eps: float) -> None:
        super().__init__()
        mid = block.c_in * block.expand
        self.inverted_bottleneck = conv_bn_act(block.c_in, mid, act=block.act, eps=eps) if block.expand != 1 else None
        self.depth_conv = conv_bn_act(mid, mid, block.kernel, block.stride, groups=mid, act=block.act, eps=eps)
        if block.se:
            self.depth_conv.add_module("se", SqueezeExcite(mid))
        self.point_linear = conv_bn_act(mid, block.c_out, eps=eps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.inverted_bottleneck is not None:
            x = self.inverted_bottleneck(x)
        out: torch.Tensor = self.point_linear(self.depth_conv(x))
        return out


class ResidualBlock(nn.Module):
    """An inverted bottleneck ``conv``, with its input added where the shape stays."""

    def __init__(self, block: Block, eps: float) -> None:
        super().__init__()
        self.conv = MBConv(block, eps)
        self.residual = block.residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(x)
        return y + x if self.residual else y


class MBConvNet(nn.Module):
    """[B, 3, r, r] -> logits [B, num_classes], for any r of at least 32."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        eps, last = plan.bn_eps, plan.blocks[-1].c_out
        self.first_conv = conv_bn_act(3, plan.stem, 3, 2, act=plan.act, eps=eps)
        self.blocks = nn.ModuleList(ResidualBlock(block, eps) for block in plan.blocks)
        self.final_expand_layer = conv_bn_act(last, plan.expand, act=plan.act, eps=eps) if plan.expand else None
        self.global_avg_pool = nn.AdaptiveAvgPool2d(1)
        self.feature_mix_layer = conv_bn_act(plan.expand or last, plan.features, act=plan.act, bn=not plan.expand, eps=eps)
        self.classifier = nn.Sequential(OrderedDict(linear=nn.Linear(plan.features, plan.num_classes)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first_conv(x)
        for block in self.blocks:
            x = block(x)
        if self.final_expand_layer is not None:
            x = self.feature_mix_layer(self.global_avg_pool(self.final_expand_layer(x)))
        else:
            x = self.global_avg_pool(self.feature_mix_layer(x))
        out: torch.Tensor = self.classifier(x.flatten(1))
        return out
