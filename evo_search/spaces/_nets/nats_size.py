"""Networks of the size space of NATS-Bench (arXiv 2009.00437) as torch modules."""

from __future__ import annotations

import torch
from torch import nn

from evo_search.spaces._nets.nasbench201 import Reduction201, relu_conv_bn
from evo_search.spaces.nats_size import EDGES, REDUCTIONS, SKIP_EDGE, GenomeNATS


class CellNATS(nn.Module):
    """[B, c_in, H, W] -> [B, c_out, H, W]."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.ops = nn.ModuleDict()
        for s, t in EDGES:
            op: nn.Module = relu_conv_bn(c_in if s == 0 else c_out, c_out, 3)
            if (s, t) == SKIP_EDGE:
                op = nn.Identity()
                if c_in != c_out:
                    op = nn.Sequential(nn.Conv2d(c_in, c_out, 1, bias=False), nn.BatchNorm2d(c_out))
            self.ops[f"{s}_{t}"] = op

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value = {0: x}
        for s, t in EDGES:
            v = self.ops[f"{s}_{t}"](value[s])
            value[t] = value[t] + v if t in value else v
        return value[3]


class NetworkNATS(nn.Module):
    """[B, 3, H, W] -> logits [B, num_classes]."""

    def __init__(self, a: GenomeNATS, num_classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, a[0], 3, padding=1, bias=False), nn.BatchNorm2d(a[0])]
        before = a[0]
        for i, c in enumerate(a):
            layers.append(Reduction201(before, c) if i in REDUCTIONS else CellNATS(before, c))
            before = c
        self.body = nn.Sequential(*layers, nn.BatchNorm2d(before), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(before, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.classifier(self.pool(self.body(x)).flatten(1))
        return out
