"""NAS-Bench-101 networks (arXiv 1902.09635) as torch modules.

The order of operations inside ``forward`` is the order in which the graph builder makes its nodes.
"""

from __future__ import annotations

import torch
from torch import nn

from evo_search.spaces.nasbench101 import (
    CELLS_PER_STACK,
    CONV3,
    POOL,
    STACK_CHANNELS,
    Genome101,
    sources,
    vertex_channels,
)


def conv_bn_relu(c_in: int, c_out: int, kernel: int) -> nn.Sequential:
    conv = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out, eps=1e-5, momentum=0.003), nn.ReLU())


class Cell101(nn.Module):
    """[B, C_in, H, W] -> [B, C_out, H, W]."""

    def __init__(self, a: Genome101, c_in: int, c_out: int) -> None:
        super().__init__()
        self.sources = sources(a.vertices, a.adjacency)
        self.channels = vertex_channels(a.vertices, a.adjacency, c_out)
        self.last = a.vertices - 1
        self.projections = nn.ModuleDict(
            {str(v): conv_bn_relu(c_in, self.channels[v], 1) for v in range(1, a.vertices) if 0 in self.sources[v]})
        self.ops = nn.ModuleList()
        for v, op in enumerate(a.ops, start=1):
            c = self.channels[v]
            self.ops.append(nn.MaxPool2d(3, stride=1, padding=1) if op == POOL
                            else conv_bn_relu(c, c, 3 if op == CONV3 else 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value = [x]
        for v in range(1, self.last):
            c = self.channels[v]
            parts = [value[s] if value[s].shape[1] == c else value[s][:, :c] for s in self.sources[v] if s > 0]
            if str(v) in self.projections:
                parts.append(self.projections[str(v)](x))
            total = parts[0]
            for part in parts[1:]:
                total = total + part
            value.append(self.ops[v - 1](total))
        joined = [value[s] for s in self.sources[self.last] if s > 0]
        projected = self.projections[str(self.last)](x) if str(self.last) in self.projections else None
        if not joined:
            assert projected is not None
            return projected
        out = joined[0] if len(joined) == 1 else torch.cat(joined, dim=1)
        return out if projected is None else out + projected


class Network101(nn.Module):
    """[B, 3, H, W] -> logits [B, num_classes]."""

    def __init__(self, a: Genome101, num_classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv_bn_relu(3, STACK_CHANNELS[0], 3)]
        c_in = STACK_CHANNELS[0]
        for stack, c in enumerate(STACK_CHANNELS):
            if stack:
                layers.append(nn.MaxPool2d(2, stride=2))
            for _ in range(CELLS_PER_STACK):
                layers.append(Cell101(a, c_in, c))
                c_in = c
        self.body = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(c_in, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.classifier(self.pool(self.body(x)).flatten(1))
        return out
