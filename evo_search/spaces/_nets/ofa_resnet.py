"""Sub-networks of Once-for-All on ResNet-50-D as torch modules.

Submodules carry the names of the Once-for-All code (``input_stem.1.conv.bn``, ``blocks.3.downsample.conv``,
``classifier.linear``), so that a state dict of an official sub-network fits.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from evo_search.spaces._mbconv import RELU
from evo_search.spaces._nets.mbconv import conv_bn_act
from evo_search.spaces.ofa_resnet import Bottleneck, ResNetPlan


class ResidualConv(nn.Module):
    """[B, C, H, W] -> [B, C, H, W]: 3x3 convolution, normalisation, ReLU, plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv_bn_act(channels, channels, 3, act=RELU)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(x)
        return y + x


class BottleneckBlock(nn.Module):
    """[B, c_in, H, W] -> [B, c_out, H / stride, W / stride]."""

    def __init__(self, block: Bottleneck) -> None:
        super().__init__()
        self.conv1 = conv_bn_act(block.c_in, block.mid, act=RELU)
        self.conv2 = conv_bn_act(block.mid, block.mid, 3, block.stride, act=RELU)
        self.conv3 = conv_bn_act(block.mid, block.c_out)
        self.downsample: nn.Module = nn.Identity()
        if block.projects:
            pool = nn.AvgPool2d(block.stride, block.stride, ceil_mode=True)
            self.downsample = nn.Sequential(OrderedDict([("avg_pool", pool),
                                                         *conv_bn_act(block.c_in, block.c_out).named_children()]))
        self.final_act = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = self.downsample(x)
        out: torch.Tensor = self.final_act(self.conv3(self.conv2(self.conv1(x))) + shortcut)
        return out


class NetworkResNet(nn.Module):
    """[B, 3, r, r] -> logits [B, num_classes], for any r of at least 32."""

    def __init__(self, plan: ResNetPlan, num_classes: int = 1000) -> None:
        super().__init__()
        stem: list[nn.Module] = [conv_bn_act(3, plan.first, 3, 2, act=RELU)]
        stem += [ResidualConv(plan.first)] if plan.deep else []
        self.input_stem = nn.ModuleList([*stem, conv_bn_act(plan.first, plan.stem, 3, act=RELU)])
        self.max_pooling = nn.MaxPool2d(3, stride=2, padding=1)
        self.blocks = nn.ModuleList(BottleneckBlock(block) for block in plan.blocks)
        self.global_avg_pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(OrderedDict(linear=nn.Linear(plan.blocks[-1].c_out, num_classes)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.input_stem:
            x = layer(x)
        x = self.max_pooling(x)
        for block in self.blocks:
            x = block(x)
        out: torch.Tensor = self.classifier(self.global_avg_pool(x).flatten(1))
        return out
