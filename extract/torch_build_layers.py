"""Graph nodes with trained weights -> layers of torch with fresh weights. Each maker takes a node's spec.

What a graph does not say is chosen as torch does: epsilons, momentum. Weights are initialised by ``reset_parameters`` of the
layer.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cg.spec import NodeSpec
from extract.torch_build_weights import Sharing, fixed, settle, stretched


def as_index(values: Tensor, size: int) -> Tensor:
    """``values`` as positions in ``0 .. size - 1``; what lies outside is moved to the border.

    Meta tensors have no values, so there is nothing to move.
    """
    index = values.to(torch.int64)
    return index if index.is_meta else index.clamp(0, size - 1)


class WithPads(nn.Module):
    """A convolution behind padding that its own ``padding`` cannot say (more at one end than at the other)."""

    def __init__(self, layer: nn.Module, pads: tuple[int, ...]) -> None:
        super().__init__()
        self.layer, self.pads = layer, pads

    def forward(self, x: Tensor, *weight: Tensor) -> Tensor:
        out: Tensor = self.layer(F.pad(x, self.pads), *weight)
        return out


class DynamicConv(nn.Module):
    """A convolution whose weight is an argument; only the bias is trained."""

    def __init__(self, spec: NodeSpec, function: Callable[..., Tensor], settings: dict[str, Any]) -> None:
        super().__init__()
        self.function, self.settings = function, settings
        outputs = spec.weight_shape[1] * spec.attr("group", 1) if spec.op == "ConvTranspose" else spec.weight_shape[0]
        self.bias = nn.Parameter(torch.zeros(outputs)) if spec.bias else None
        if spec.bias and spec.params == prod(spec.weight_shape) + spec.extra_params:
            fixed(self, "bias")

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return self.function(x, weight, self.bias, **self.settings)


_CONVS: Final[dict[str, tuple[Any, ...]]] = {"Conv": (nn.Conv1d, nn.Conv2d, nn.Conv3d),
                 "ConvTranspose": (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)}
_FUNCTIONS: Final[dict[str, tuple[Any, ...]]] = {"Conv": (F.conv1d, F.conv2d, F.conv3d),
                     "ConvTranspose": (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)}


def conv(spec: NodeSpec, sharing: Sharing) -> nn.Module:
    """Conv and ConvTranspose in 1 to 3 dimensions."""
    kernel = spec.weight_shape[2:]
    n, group = len(kernel), int(spec.attr("group", 1))
    ones = (1,) * n
    strides, dilations = spec.attr("strides", ones), spec.attr("dilations", ones)
    pads = spec.attr("pads", (0,) * (2 * n))
    begins, ends = pads[:n], pads[n:]
    settings: dict[str, Any] = {"stride": strides, "dilation": dilations, "groups": group}
    outer: tuple[int, ...] = ()
    if begins == ends:
        settings["padding"] = begins
    elif spec.op == "Conv" and strides == ones and pads == _same(kernel, dilations):
        settings["padding"] = "same"
    elif spec.op == "Conv":
        settings["padding"] = (0,) * n
        outer = tuple(p for axis in reversed(range(n)) for p in (begins[axis], ends[axis]))
    else:
        least = tuple(map(min, begins, ends))
        settings["padding"] = least
    if spec.op == "ConvTranspose":
        settings["output_padding"] = spec.attr("output_padding", (0,) * n)
    if len(spec.in_shapes) > 1:
        dynamic = DynamicConv(spec, _FUNCTIONS[spec.op][n - 1], settings)
        return WithPads(dynamic, outer) if outer else dynamic
    a, b = spec.weight_shape[:2]
    channels = (a, b * group) if spec.op == "ConvTranspose" else (b * group, a)
    layer = settle(_CONVS[spec.op][n - 1](*channels, kernel, bias=spec.bias, **settings), spec, sharing)
    return WithPads(layer, outer) if outer else layer


def _same(kernel: tuple[int, ...], dilations: tuple[int, ...]) -> tuple[int, ...]:
    """The pads that torch means by ``padding='same'``."""
    totals = [d * (k - 1) for k, d in zip(kernel, dilations, strict=True)]
    return (*(t // 2 for t in totals), *(t - t // 2 for t in totals))


def gemm(spec: NodeSpec, sharing: Sharing) -> nn.Module:
    outputs, inputs = spec.weight_shape
    return settle(nn.Linear(inputs, outputs, bias=spec.bias), spec, sharing)


class Tokens(nn.Embedding):
    """An embedding that accepts any numbers and reads them as positions in its table."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(as_index(input, self.num_embeddings))


def embedding(spec: NodeSpec, sharing: Sharing) -> nn.Module:
    return settle(Tokens(spec.weight_shape[0], spec.weight_shape[1]), spec, sharing)


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation of a tensor of any rank."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass


class InstanceNorm(nn.modules.instancenorm._InstanceNorm):
    """Instance normalisation of a tensor of any rank."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        return self._apply_instance_norm(input)


class Offset(nn.Module):
    """A normalisation without a weight that yet holds trained values: they are its offset, zero at first."""

    def __init__(self, layer: nn.Module, count: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.layer, self.shape = layer, shape
        self.held = nn.Parameter(torch.zeros(count))

    def forward(self, x: Tensor) -> Tensor:
        offset = stretched(self.held, self.shape)
        layer = self.layer
        if isinstance(layer, nn.LayerNorm):
            return F.layer_norm(x, self.shape, None, offset, layer.eps)
        if isinstance(layer, nn.GroupNorm):
            return F.group_norm(x, layer.num_groups, None, offset, layer.eps)
        if isinstance(layer, nn.RMSNorm):
            return F.rms_norm(x, self.shape, 1 + offset, layer.eps)
        if isinstance(layer, InstanceNorm):
            return F.instance_norm(x, bias=offset, eps=layer.eps)
        assert isinstance(layer, BatchNorm)
        return F.batch_norm(x, layer.running_mean, layer.running_var, None, offset, layer.training, 0.1, layer.eps)


def norm(spec: NodeSpec, sharing: Sharing) -> nn.Module:
    """The five normalisations; without a ``weight_shape`` they train nothing."""
    shape, op = spec.in_shapes[0], spec.op
    affine = bool(spec.weight_shape)
    channels = shape[1] if len(shape) > 1 else shape[0]
    inner: tuple[int, ...] = (channels,)
    layer: nn.Module
    if op in ("LayerNormalization", "RMSNormalization"):
        axis = int(spec.attr("axis", -1))
        inner = spec.weight_shape or shape[axis:]
        layer = (nn.LayerNorm(inner, elementwise_affine=affine, bias=spec.bias) if op == "LayerNormalization"
                 else nn.RMSNorm(inner, elementwise_affine=affine))
    elif op == "GroupNormalization":
        layer = nn.GroupNorm(int(spec.attr("num_groups", 1)), channels, affine=affine)
    elif op == "BatchNormalization":
        classes = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
        layer = classes.get(len(shape), BatchNorm)(channels, affine=affine)
    else:
        layer = InstanceNorm(channels, affine=affine)
    if not affine:
        if not spec.params:
            return layer
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer = BatchNorm(channels, affine=False)
        return Offset(layer, spec.params, tuple(inner))
    if not spec.bias and layer._parameters.get("bias") is not None:
        layer.register_parameter("bias", None)
    return settle(layer, spec, sharing)


def prelu(spec: NodeSpec, sharing: Sharing) -> nn.Module:
    return settle(nn.PReLU(prod(spec.weight_shape)), spec, sharing)


_RECURRENT: Final[dict[str, type[nn.LSTM] | type[nn.GRU] | type[nn.RNN]]] = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}


class Recurrent(nn.Module):
    """One recurrent layer that gives back its whole sequence; states come as further arguments."""

    def __init__(self, spec: NodeSpec) -> None:
        super().__init__()
        shape, hidden = spec.in_shapes[0], int(spec.attr("hidden_size"))
        both = spec.attr("direction") == "bidirectional"
        directions = 2 if both else 1
        width = spec.out_shape[-1] // directions
        matrices = int(spec.attr("macs_per_step", 0))
        settings: dict[str, Any] = {"bidirectional": both, "bias": spec.params != matrices}
        if width != hidden:
            settings["proj_size"] = width
        settings["batch_first"] = True  # (batch, time, features), whatever the layout of the recorded call
        self.rnn = _RECURRENT[spec.op](shape[-1], hidden, **settings)
        self._keep(spec.params)

    def _keep(self, count: int) -> None:
        """Make the number of trained scalars ``count``: other weights become buffers, first the biases."""
        rnn = self.rnn
        names = [name for group in rnn.all_weights for p in group for name, q in rnn.named_parameters() if q is p]
        surplus = sum(p.numel() for p in rnn.parameters()) - count
        for name in sorted(names, key=lambda n: not n.startswith("bias")):
            if 0 < getattr(rnn, name).numel() <= surplus:
                surplus -= getattr(rnn, name).numel()
                fixed(rnn, name)
        rnn._flat_weights = [getattr(rnn, name) for name in rnn._flat_weights_names]

    def forward(self, x: Tensor, *states: Tensor) -> Tensor:
        if not states:
            return self.rnn(x)[0]
        if isinstance(self.rnn, nn.LSTM):
            h = states[0]
            c = states[1] if len(states) > 1 else torch.zeros((*h.shape[:-1], self.rnn.hidden_size), dtype=h.dtype,
                                                              device=h.device)
            return self.rnn(x, (h, c))[0]
        return self.rnn(x, states[0])[0]


def recurrent(spec: NodeSpec, sharing: Sharing) -> nn.Module:
    return Recurrent(spec)


class Held(nn.Module):
    """The value of a ``Constant`` node: trained (``weight``), or fixed (``value``)."""

    def __init__(self, spec: NodeSpec, start: str) -> None:
        super().__init__()
        self.shape = spec.out_shape
        count = spec.params
        if count:
            whole = torch.empty(self.shape if count == prod(self.shape) else (count,))
            self.weight = nn.Parameter(_start(whole, start))
        else:
            self.value: Tensor
            self.register_buffer("value", _start(torch.empty(self.shape), start))

    def forward(self) -> Tensor:
        if not hasattr(self, "weight"):
            return self.value
        return self.weight if self.weight.shape == self.shape else stretched(self.weight, self.shape)


def _start(values: Tensor, start: str) -> Tensor:
    """First values: 'one', 'zero', 'small' (normal, 0.02), 'fan' (uniform, by the size of the last axis)."""
    if start in ("one", "zero"):
        return values.fill_(1.0 if start == "one" else 0.0)
    if start == "small":
        return values.normal_(0, 0.02)
    bound = max(values.shape[-1] if values.ndim else 1, 1) ** -0.5
    return values.uniform_(-bound, bound)


LAYERS: Final[dict[str, Callable[[NodeSpec, Sharing], nn.Module]]] = {
    "Conv": conv, "ConvTranspose": conv, "Gemm": gemm, "Embedding": embedding,
    **dict.fromkeys(("BatchNormalization", "LayerNormalization", "GroupNormalization", "InstanceNormalization",
                     "RMSNormalization"), norm),
    "PRelu": prelu, "LSTM": recurrent, "GRU": recurrent, "RNN": recurrent,
}
