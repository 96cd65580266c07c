"""DARTS networks (arXiv 1806.09055) at the size of NAS-Bench-301 as torch modules; no auxiliary head, no drop-path."""

from __future__ import annotations

import torch
from torch import nn

from evo_search.spaces.darts import (
    AVG_POOL,
    CHANNELS,
    DIL3,
    DIL5,
    INNER_NODES,
    LAYERS,
    MAX_POOL,
    SEP3,
    SKIP,
    STEM_MULTIPLIER,
    Edge301,
    Genome301,
    layer_plan,
)


class FactorizedReduce(nn.Module):
    """[B, C_in, H, W] -> [B, C_out, H/2, W/2]: two shifted 1x1 convolutions of stride 2, joined."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.even = nn.Conv2d(c_in, c_out // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(c_in, c_out // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(x)
        out: torch.Tensor = self.norm(torch.cat([self.even(x), self.odd(x[:, :, 1:, 1:])], dim=1))
        return out


def relu_conv_bn(c_in: int, c_out: int) -> nn.Sequential:
    return nn.Sequential(nn.ReLU(), nn.Conv2d(c_in, c_out, 1, bias=False), nn.BatchNorm2d(c_out))


def separable(c: int, kernel: int, stride: int = 1, dilation: int = 1) -> list[nn.Module]:
    depthwise = nn.Conv2d(c, c, kernel, stride, dilation * (kernel // 2), dilation, groups=c, bias=False)
    return [nn.ReLU(), depthwise, nn.Conv2d(c, c, 1, bias=False), nn.BatchNorm2d(c)]


def operation(op: int, c: int, stride: int) -> nn.Module:
    if op == MAX_POOL:
        return nn.MaxPool2d(3, stride, padding=1)
    if op == AVG_POOL:
        return nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
    if op == SKIP:
        return nn.Identity() if stride == 1 else FactorizedReduce(c, c)
    kernel = 3 if op in (SEP3, DIL3) else 5
    if op in (DIL3, DIL5):
        return nn.Sequential(*separable(c, kernel, stride, dilation=2))
    return nn.Sequential(*separable(c, kernel, stride), *separable(c, kernel))


class Cell301(nn.Module):
    """Outputs of the two layers before -> [B, 4 C, H, W] (half the size in a reduction)."""

    def __init__(self, edges: tuple[Edge301, ...], before: int, last: int, c: int, reduces: bool,
                 reduced: bool) -> None:
        super().__init__()
        self.preprocess0 = FactorizedReduce(before, c) if reduced else relu_conv_bn(before, c)
        self.preprocess1 = relu_conv_bn(last, c)
        self.sources = [source for source, _ in edges]
        self.ops = nn.ModuleList(operation(op, c, 2 if reduces and source < 2 else 1) for source, op in edges)

    def forward(self, s0: torch.Tensor, s1: torch.Tensor) -> torch.Tensor:
        value = [self.preprocess0(s0), self.preprocess1(s1)]
        for i in range(0, len(self.sources), 2):
            left = self.ops[i](value[self.sources[i]])
            value.append(left + self.ops[i + 1](value[self.sources[i + 1]]))
        return torch.cat(value[2:], dim=1)


class Network301(nn.Module):
    """[B, 3, H, W] -> logits [B, num_classes]. NAS-Bench-301 uses the default ``layers`` and ``channels``."""

    def __init__(self, a: Genome301, num_classes: int = 10, layers: int = LAYERS, channels: int = CHANNELS) -> None:
        super().__init__()
        plan, stem = layer_plan(layers, channels), STEM_MULTIPLIER * channels
        self.stem = nn.Sequential(nn.Conv2d(3, stem, 3, padding=1, bias=False), nn.BatchNorm2d(stem))
        normal, reduction = a[:2 * INNER_NODES], a[2 * INNER_NODES:]
        self.cells = nn.ModuleList(Cell301(reduction if reduces else normal, before, last, c, reduces, reduced)
                                   for before, last, c, reduces, reduced in plan)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(INNER_NODES * plan[-1][2], num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        s0 = s1 = self.stem(x)
        for cell in self.cells:
            s0, s1 = s1, cell(s0, s1)
        out: torch.Tensor = self.classifier(self.pool(s1).flatten(1))
        return out
