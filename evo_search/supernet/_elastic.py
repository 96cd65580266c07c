"""Layers that hold the weights of the largest block and work with a part of them (arXiv 1908.09791, section 3.3).

A part is: the first channels, which training has sorted by importance; and, for depthwise kernels of 5 and 3, the centre of the
next larger kernel after a linear map of its 25 or 9 values. Submodules carry the names of the official state dicts, such as
``depth_conv.conv.conv.weight``, ``depth_conv.conv.7to5_matrix`` and ``depth_conv.bn.bn.weight``.

``part(...)`` of a layer gives the tensors of the plain layer that computes the same, by that layer's names.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evo_search.ofa import KERNELS
from evo_search.spaces._mbconv import Block, se_width
from evo_search.spaces._nets.mbconv import activation

LARGEST = max(KERNELS)


class ElasticPointwise(nn.Module):
    """1x1 convolution: the first channels of its input, and as many of its output as are asked for."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 1, bias=False)

    def part(self, c_in: int, c_out: int) -> dict[str, Tensor]:
        return {"weight": self.conv.weight[:c_out, :c_in].contiguous()}

    def forward(self, x: Tensor, c_out: int) -> Tensor:
        return F.conv2d(x, self.part(x.shape[1], c_out)["weight"])


class ElasticDepthwise(nn.Module):
    """Depthwise convolution with kernel 7, 5 or 3, the smaller ones out of the larger ones."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(channels, channels, LARGEST, stride, LARGEST // 2, groups=channels, bias=False)
        for size in sorted(KERNELS, reverse=True)[1:]:
            identity = torch.zeros(size * size, size * size).fill_diagonal_(1)  # torch.eye on the meta device loads a compiler
            self.register_parameter(f"{size + 2}to{size}_matrix", nn.Parameter(identity))

    def part(self, channels: int, kernel: int) -> dict[str, Tensor]:
        """The kernel ``[channels, 1, kernel, kernel]``: row-major centre, times the matrix's rows, one step at a time."""
        weight = self.conv.weight[:channels]
        for size in range(LARGEST - 2, kernel - 1, -2):
            centre = weight[:, :, 1:-1, 1:-1].reshape(channels, size * size)
            weight = F.linear(centre, self.get_parameter(f"{size + 2}to{size}_matrix")).view(channels, 1, size, size)
        return {"weight": weight.contiguous()}

    def forward(self, x: Tensor, kernel: int) -> Tensor:
        channels = x.shape[1]
        return F.conv2d(x, self.part(channels, kernel)["weight"], None, self.stride, kernel // 2, 1, channels)


class ElasticBatchNorm(nn.Module):
    """Normalisation of the first channels; in training mode it updates the statistics of these."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, eps=eps)

    def part(self, channels: int) -> dict[str, Tensor]:
        tensors = {**dict(self.bn.named_parameters()), **dict(self.bn.named_buffers())}
        return {name: t[:channels] if t.ndim else t for name, t in tensors.items()}

    def forward(self, x: Tensor) -> Tensor:
        p = self.part(x.shape[1])
        if self.training:
            p["num_batches_tracked"].add_(1)
        return F.batch_norm(x, p["running_mean"], p["running_var"], p["weight"], p["bias"], self.training,
                            self.bn.momentum or 0.0, self.bn.eps)


class ElasticSqueezeExcite(nn.Module):
    """Gate of the first channels; its hidden width follows from their number as in a plain block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = se_width(channels)
        self.fc = nn.ModuleDict({"reduce": nn.Conv2d(channels, hidden, 1), "expand": nn.Conv2d(hidden, channels, 1)})

    def part(self, channels: int) -> dict[str, Tensor]:
        hidden = se_width(channels)
        out: dict[str, Tensor] = {}
        for name, n_out, n_in in (("reduce", hidden, channels), ("expand", channels, hidden)):
            weight, bias = self.fc[name].get_parameter("weight"), self.fc[name].get_parameter("bias")
            out |= {f"fc.{name}.weight": weight[:n_out, :n_in].contiguous(), f"fc.{name}.bias": bias[:n_out]}
        return out

    def forward(self, x: Tensor) -> Tensor:
        p = self.part(x.shape[1])
        y = F.relu(F.conv2d(F.adaptive_avg_pool2d(x, 1), p["fc.reduce.weight"], p["fc.reduce.bias"]))
        return x * F.hardsigmoid(F.conv2d(y, p["fc.expand.weight"], p["fc.expand.bias"]))


class ElasticMBConv(nn.Module):
    """``[B, c_in, H, W] -> [B, c_out, H / stride, W / stride]`` with a kernel and an expand ratio of choice.

    Args:
        block: the largest version: kernel 7, expand ratio 6.
        eps: of the normalisation.
    """

    def __init__(self, block: Block, eps: float) -> None:
        super().__init__()
        mid = block.c_in * block.expand
        self.c_in, self.c_out = block.c_in, block.c_out
        self.act = activation(block.act)
        self.inverted_bottleneck = nn.ModuleDict({"conv": ElasticPointwise(block.c_in, mid), "bn": ElasticBatchNorm(mid, eps)})
        self.depth_conv = nn.ModuleDict({"conv": ElasticDepthwise(mid, block.stride), "bn": ElasticBatchNorm(mid, eps)})
        if block.se:
            self.depth_conv["se"] = ElasticSqueezeExcite(mid)
        self.point_linear = nn.ModuleDict({"conv": ElasticPointwise(mid, block.c_out),
                                           "bn": ElasticBatchNorm(block.c_out, eps)})

    def part(self, kernel: int, expand: int) -> dict[str, Tensor]:
        """State of ``evo_search.spaces._nets.mbconv.MBConv`` with this kernel and ratio."""
        mid = self.c_in * expand
        sizes = {"inverted_bottleneck.conv": (self.c_in, mid), "inverted_bottleneck.bn": (mid,),
                 "depth_conv.conv": (mid, kernel), "depth_conv.bn": (mid,), "depth_conv.se": (mid,),
                 "point_linear.conv": (mid, self.c_out), "point_linear.bn": (self.c_out,)}
        out: dict[str, Tensor] = {}
        for group in ("inverted_bottleneck", "depth_conv", "point_linear"):
            for name, layer in getattr(self, group).items():
                out |= {f"{group}.{name}.{k}": v for k, v in layer.part(*sizes[f"{group}.{name}"]).items()}
        return out

    def forward(self, x: Tensor, kernel: int, expand: int) -> Tensor:
        x = self.inverted_bottleneck["conv"](x, self.c_in * expand)
        x = self.act(self.inverted_bottleneck["bn"](x))
        x = self.act(self.depth_conv["bn"](self.depth_conv["conv"](x, kernel)))
        if "se" in self.depth_conv:
            x = self.depth_conv["se"](x)
        out: Tensor = self.point_linear["bn"](self.point_linear["conv"](x, self.c_out))
        return out


class ElasticBlock(nn.Module):
    """An elastic inverted bottleneck ``conv``, with its input added where the shape stays."""

    def __init__(self, block: Block, eps: float) -> None:
        super().__init__()
        self.conv = ElasticMBConv(block, eps)
        self.residual = block.residual

    def forward(self, x: Tensor, kernel: int, expand: int) -> Tensor:
        y: Tensor = self.conv(x, kernel, expand)
        return y + x if self.residual else y
