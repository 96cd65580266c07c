"""Which of a rebuilt layer's tensors are trained, so that the layer counts exactly the parameters its node counts.

A node says ``weight_shape``, ``bias`` and ``extra_params``, a correction. Four forms come back from it:

* no correction: a plain layer of torch;
* minus the weight (or bias, or both): that tensor is a buffer. It was fixed (a blur kernel), or it is a weight that
  another layer counts, which then shares its parameter with this one if it can be told by its shape;
* any other negative number: the weight is assembled from ``held``, a parameter with as many values as the node counts,
  and a buffer ``rest``;
* a positive number: a parameter ``gain`` beside the weight, one factor for each output if the number says so (weight
  standardisation), otherwise an offset that starts at zero (re-parametrised sums).
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cg.spec import NodeSpec


def stretched(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A vector as a tensor of ``shape``: repeated if it is too short; if too long, folded into sums, so that all count."""
    size, n = prod(shape), values.numel()
    if n == size:
        return values.reshape(shape)
    if n < size:
        return values.repeat(-(-size // max(n, 1)))[:size].reshape(shape)
    rows = -(-n // size)
    return nn.functional.pad(values, (0, rows * size - n)).reshape(rows, size).sum(0).reshape(shape)


class Assembled(nn.Module):
    """``layer`` with a weight that is put together in each call from trained and fixed values."""

    def __init__(self, layer: nn.Module, trained: int, extra: int) -> None:
        super().__init__()
        weight = layer.weight
        assert isinstance(weight, Tensor)
        self.shape = tuple(weight.shape)
        self.layer = layer
        self.per_output = extra > 0 and extra == self.shape[0]
        if extra > 0:
            self.base = nn.Parameter(weight.detach())
            self.gain = nn.Parameter((torch.ones if self.per_output else torch.zeros)(extra))
        else:
            flat = weight.detach().reshape(-1)
            self.held = nn.Parameter(flat[:trained].clone() if trained <= flat.numel() else stretched(flat, (trained,)))
            self.rest: Tensor
            self.register_buffer("rest", flat[trained:].clone())
        del layer._parameters["weight"]

    def assembled_weight(self) -> Tensor:
        """The weight of the inner layer."""
        if hasattr(self, "held"):
            return torch.cat([self.held, self.rest]).reshape(self.shape)
        if self.per_output:
            return self.base * self.gain.reshape(-1, *(1,) * (len(self.shape) - 1))
        return self.base + stretched(self.gain, self.shape)

    def forward(self, *args: Tensor) -> Tensor:
        self.layer.__dict__["weight"] = self.assembled_weight()
        try:
            out: Tensor = self.layer(*args)
        finally:
            del self.layer.__dict__["weight"]  # the graph of autograd should not live on in the module
        return out


def fixed(layer: nn.Module, name: str) -> None:
    """Turn the parameter ``name`` of ``layer`` into a buffer."""
    value = layer._parameters.pop(name, None)
    if value is not None:
        layer.register_buffer(name, value.detach())


class Use(NamedTuple):
    """One layer's weight: its node, the size of the node's first argument, and whether the bias goes with it."""

    node: int
    size: int
    layer: nn.Module
    bias: bool


class Sharing:
    """Which layers count their weight, and which use one that another layer counts.

    The recorder lets a shared parameter count in the node with the largest argument, the first of those; a layer is joined
    only with one that would count it by that rule, so that the module gives the same graph again.
    """

    def __init__(self) -> None:
        self.node = 0  # of the layer that is being made
        self._owners: dict[tuple[object, ...], list[Use]] = {}
        self._users: list[Use] = []

    def own(self, layer: nn.Module, spec: NodeSpec) -> None:
        """``layer`` counts its weight."""
        weight = layer._parameters.get("weight")
        if weight is not None:
            use = Use(self.node, _argument(spec), layer, layer._parameters.get("bias") is not None)
            for key in _keys(layer, weight):
                self._owners.setdefault(key, []).append(use)

    def borrow(self, layer: nn.Module, spec: NodeSpec, bias: bool) -> None:
        """``layer`` uses a weight (and a bias) that it does not count."""
        self._users.append(Use(self.node, _argument(spec), layer, bias))

    def join(self) -> None:
        """Give every borrower the parameters of the nearest layer of its shape, before it if there is one."""
        for user in self._users:
            weight = user.layer._buffers["weight"]
            assert weight is not None
            for key in _keys(user.layer, weight):
                fit = [o for o in self._owners.get(key, ()) if (o.size, -o.node) > (user.size, -user.node)
                       and (o.bias or not user.bias)]
                if fit:
                    owner = min(fit, key=lambda o: (o.node > user.node, abs(o.node - user.node))).layer
                    for name in ("weight", "bias") if user.bias else ("weight",):
                        del user.layer._buffers[name]
                        user.layer.register_parameter(name, owner._parameters[name])
                    break


def _argument(spec: NodeSpec) -> int:
    return prod(spec.in_shapes[0]) if spec.in_shapes else 0


def _keys(layer: nn.Module, weight: Tensor) -> list[tuple[object, ...]]:
    """Of the same class if possible; a matrix may also serve a layer of another class (token table and last layer)."""
    shape = tuple(weight.shape)
    return [(type(layer), shape), *([(shape,)] if len(shape) == 2 else [])]


def settle(layer: nn.Module, spec: NodeSpec, sharing: Sharing) -> nn.Module:
    """``layer``, whose ``weight`` and ``bias`` are what the node's fields say, with the node's number of parameters."""
    weight, bias = layer._parameters.get("weight"), layer._parameters.get("bias")
    n_weight = 0 if weight is None else weight.numel()
    n_bias = 0 if bias is None else bias.numel()
    extra = spec.params - n_weight - n_bias
    if extra == 0:
        sharing.own(layer, spec)
        return layer
    if weight is None:
        return layer
    if extra == -n_bias:
        fixed(layer, "bias")
        return layer
    if extra in (-n_weight, -n_weight - n_bias):
        # a kernel for each channel without a bias, which nobody trains, is a filter (blur) and no shared weight
        blur = weight.ndim > 2 and weight.shape[1] == 1 and not n_bias
        fixed(layer, "weight")
        if extra != -n_weight:
            fixed(layer, "bias")
        if blur:
            layer.weight.fill_(1 / prod(weight.shape[2:]))  # type: ignore[operator]
        else:
            sharing.borrow(layer, spec, extra != -n_weight and n_bias > 0)
        return layer
    if extra < 0 and n_bias and extra < -n_weight:
        fixed(layer, "bias")
        n_bias = 0
        extra = spec.params - n_weight
    return Assembled(layer, spec.params - n_bias, extra)
