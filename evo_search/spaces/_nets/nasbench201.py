"""NAS-Bench-201 networks (arXiv 2001.00326) as torch modules.

Every convolution edge owns its weights, as in the benchmark's published counts, but ``forward`` runs only the edges on
a path from input to output (``live_edges``) and adds no zeros, so that tracing it gives what the builder builds.
"""

from __future__ import annotations

import torch
from torch import nn

from evo_search.spaces.nasbench201 import (
    CELLS_PER_STAGE,
    CONV1,
    CONV3,
    EDGES,
    POOL,
    STAGE_CHANNELS,
    Genome201,
    live_edges,
)


def relu_conv_bn(c_in: int, c_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(nn.ReLU(), conv, nn.BatchNorm2d(c_out))


class Cell201(nn.Module):
    """[B, C, H, W] -> [B, C, H, W]."""

    def __init__(self, a: Genome201, channels: int) -> None:
        super().__init__()
        self.live = live_edges(a)
        self.ops = nn.ModuleDict()
        for (s, t), op in zip(EDGES, a, strict=True):
            if op in (CONV1, CONV3):
                self.ops[f"{s}_{t}"] = relu_conv_bn(channels, channels, 1 if op == CONV1 else 3)
            elif op == POOL:
                self.ops[f"{s}_{t}"] = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value = {0: x}
        for s, t, _ in self.live:
            edge = f"{s}_{t}"
            v = self.ops[edge](value[s]) if edge in self.ops else value[s]
            value[t] = value[t] + v if t in value else v
        return value[3]


class Reduction201(nn.Module):
    """Residual block with stride 2: [B, C, H, W] -> [B, C_out, H/2, W/2]."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv_a = relu_conv_bn(c_in, c_out, 3, stride=2)
        self.conv_b = relu_conv_bn(c_out, c_out, 3)
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, stride=2), nn.Conv2d(c_in, c_out, 1, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv_b(self.conv_a(x))
        return self.shortcut(x) + y


class Network201(nn.Module):
    """[B, 3, H, W] -> logits [B, num_classes]."""

    def __init__(self, a: Genome201, num_classes: int = 10) -> None:
        super().__init__()
        first, last = STAGE_CHANNELS[0], STAGE_CHANNELS[-1]
        layers: list[nn.Module] = [nn.Conv2d(3, first, 3, padding=1, bias=False), nn.BatchNorm2d(first)]
        for stage, c in enumerate(STAGE_CHANNELS):
            if stage:
                layers.append(Reduction201(STAGE_CHANNELS[stage - 1], c))
            layers += [Cell201(a, c) for _ in range(CELLS_PER_STAGE)]
        self.body = nn.Sequential(*layers, nn.BatchNorm2d(last), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(last, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.classifier(self.pool(self.body(x)).flatten(1))
        return out
