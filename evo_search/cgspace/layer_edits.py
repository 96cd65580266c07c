"""Edits of one layer: another activation, pooling, kernel, dilation, separable or dense convolution, other width.

Each edit is a pair of pure functions: ``propose(net, rng)`` gives arguments that it may be made with, or ``None``, and
``apply(net, edit, *arguments)`` the network after it; ``edit`` is its text, from which new labels are made. Shapes between
layers stay as they are, except after ``width``, which brings all tied layers to the new width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from cg.spec import NodeSpec
from evo_search.cgspace.dims import Widths, is_depthwise
from evo_search.cgspace.net import Net, Refused

Arguments = tuple[str, ...]
# Activations as the extractors write them. A gate is swapped for a gate: its values stay between 0 and 1.
ACTIVATIONS: Final[dict[str, tuple[str, tuple[tuple[str, Any], ...]]]] = {
    "Relu": ("Relu", ()), "Relu6": ("Clip", (("max", 6.0), ("min", 0.0))), "LeakyRelu": ("LeakyRelu", ()),
    "Elu": ("Elu", ()), "Gelu": ("Gelu", ()), "Swish": ("Swish", ()), "HardSwish": ("HardSwish", ()), "Mish": ("Mish", ())}
GATES: Final[dict[str, tuple[str, tuple[tuple[str, Any], ...]]]] = {
    "Sigmoid": ("Sigmoid", ()), "HardSigmoid": ("HardSigmoid", (("alpha", 0.166667),))}
KERNELS: Final = (3, 5, 7)
DILATIONS: Final = (1, 2)
FACTORS: Final = (0.5, 0.625, 0.75, 0.875, 1.125, 1.25, 1.5, 1.75, 2.0)


def one_of(options: list[Any], rng: np.random.Generator) -> Any:
    """One of ``options``, uniformly; ``None`` if there is none."""
    return options[int(rng.integers(len(options)))] if options else None


def number(text: str, what: str, least: int = 1) -> int:
    """``text`` as a whole number; ``Refused`` naming ``what``."""
    if not (text.isascii() and text.isdecimal()) or int(text) < least:
        raise Refused(f"{what} must be a whole number of at least {least}, got {text!r}")
    return int(text)


# ---- activations and pools ----------------------------------------------------------------------------------------


def _family(spec: NodeSpec) -> dict[str, tuple[str, tuple[tuple[str, Any], ...]]] | None:
    """The activations that ``spec`` may be swapped for, its own kind among them."""
    if len(spec.in_shapes) != 1 or spec.params or spec.in_shapes[0] != spec.out_shape:
        return None
    for family in (ACTIVATIONS, GATES):
        if any(spec.op == op and (op != "Clip" or spec.attrs == attrs) for op, attrs in family.values()):
            return family
    return None


def propose_activation(net: Net, rng: np.random.Generator) -> Arguments | None:
    label = one_of([k for k in net.order if _family(net.specs[k])], rng)
    if label is None:
        return None
    return label, one_of([n for n, (op, _) in (_family(net.specs[label]) or {}).items() if op != net.specs[label].op], rng)


def activation(net: Net, edit: str, label: str, name: str) -> Net:
    """The activation of node ``label`` becomes ``name``."""
    spec = net.spec(label)
    family = _family(spec)
    if family is None or name not in family:
        raise Refused(f"node {label} ({spec.op}) is no activation that {name} could take the place of")
    op, attrs = family[name]
    if op == spec.op:
        raise Refused(f"node {label} is {name} already")
    return net.edit({label: replace(spec, op=op, attrs=attrs)})


_POOLS: Final = {"MaxPool": "AveragePool", "AveragePool": "MaxPool", "GlobalMaxPool": "GlobalAveragePool",
                 "GlobalAveragePool": "GlobalMaxPool"}
_POOL_ATTRS: Final = frozenset({"ceil_mode", "kernel_shape", "pads", "strides", "count_include_pad"})


def _is_pool(spec: NodeSpec) -> bool:
    return spec.op in _POOLS and {k for k, _ in spec.attrs} <= _POOL_ATTRS


def propose_pool(net: Net, rng: np.random.Generator) -> Arguments | None:
    label = one_of([k for k in net.order if _is_pool(net.specs[k])], rng)
    return None if label is None else (label, _POOLS[net.specs[label].op])


def pool(net: Net, edit: str, label: str, name: str) -> Net:
    """Node ``label`` takes means instead of maxima, or the reverse: it becomes the operator ``name``."""
    spec = net.spec(label)
    if not _is_pool(spec) or _POOLS[spec.op] != name:
        raise Refused(f"node {label} ({spec.op}) cannot become {name}")
    attrs = {k: v for k, v in spec.attrs if k != "count_include_pad"}
    if name == "AveragePool":
        attrs["count_include_pad"] = any(attrs["pads"])
    return net.edit({label: replace(spec, op=name, attrs=tuple(sorted(attrs.items())))})


# ---- convolutions -------------------------------------------------------------------------------------------------


def with_window(spec: NodeSpec, kernel: int, dilation: int) -> NodeSpec:
    """A convolution with another window; padding grows or shrinks on both sides so that the output keeps its shape."""
    n = len(spec.weight_shape) - 2
    old, d = spec.weight_shape[2:], spec.attr("dilations", (1,) * n)
    pads = list(spec.attr("pads", (0,) * (2 * n)))
    for axis in range(n):
        grown = dilation * (kernel - 1) - d[axis] * (old[axis] - 1)
        if grown % 2 or min(pads[axis], pads[axis + n]) + grown // 2 < 0:
            raise Refused(f"a {spec.op} with kernel {old} and pads {tuple(pads)} cannot have kernel {kernel} with dilation "
                          f"{dilation} and keep its shape")
        pads[axis] += grown // 2
        pads[axis + n] += grown // 2
    attrs = {**dict(spec.attrs), "kernel_shape": (kernel,) * n, "dilations": (dilation,) * n, "pads": tuple(pads)}
    return replace(spec, weight_shape=(*spec.weight_shape[:2], *(kernel,) * n), attrs=tuple(sorted(attrs.items())))


def window_of(spec: NodeSpec) -> tuple[int, int] | None:
    """``(kernel, dilation)`` of a convolution that has one of each, odd and trained; else ``None``."""
    if spec.op != "Conv" or len(spec.in_shapes) != 1 or spec.extra_params or len(spec.weight_shape) < 3:
        return None
    kernels, dilations = set(spec.weight_shape[2:]), set(spec.attr("dilations", (1,)))
    kernel = next(iter(kernels))
    return (kernel, dilations.pop()) if len(kernels) == 1 and len(dilations) == 1 and kernel % 2 else None


def _windows(net: Net) -> list[str]:
    return [k for k in net.order if (w := window_of(net.specs[k])) and w[0] in KERNELS]


def propose_kernel(net: Net, rng: np.random.Generator) -> Arguments | None:
    label = one_of(_windows(net), rng)
    if label is None:
        return None
    return label, str(one_of([k for k in KERNELS if k != net.specs[label].weight_shape[2]], rng))


def propose_dilation(net: Net, rng: np.random.Generator) -> Arguments | None:
    label = one_of(_windows(net), rng)
    if label is None:
        return None
    return label, str(one_of([d for d in DILATIONS if (d,) != (window_of(net.specs[label]) or (0, 0))[1:]], rng))


def _window(net: Net, label: str) -> tuple[NodeSpec, int, int]:
    spec = net.spec(label)
    found = window_of(spec)
    if found is None or found[0] not in KERNELS:
        raise Refused(f"node {label} ({spec.op}) is no convolution with a kernel of {', '.join(map(str, KERNELS))}")
    return spec, *found


def kernel(net: Net, edit: str, label: str, size: str) -> Net:
    """The kernel of the convolution ``label`` becomes ``size`` (3, 5 or 7) along every axis."""
    spec, old, dilation = _window(net, label)
    new = number(size, "kernel")
    if new not in KERNELS or new == old:
        raise Refused(f"kernel {size} of node {label}: allowed are {', '.join(str(k) for k in KERNELS if k != old)}")
    return net.edit({label: with_window(spec, new, dilation)})


def dilation(net: Net, edit: str, label: str, rate: str) -> Net:
    """The dilation of the convolution ``label`` becomes ``rate`` (1 or 2)."""
    spec, size, old = _window(net, label)
    new = number(rate, "dilation")
    if new not in DILATIONS or new == old:
        raise Refused(f"dilation {rate} of node {label}: allowed are {', '.join(str(d) for d in DILATIONS if d != old)}")
    return net.edit({label: with_window(spec, size, new)})


def _is_dense(spec: NodeSpec) -> bool:
    return bool(window_of(spec)) and spec.attr("group", 1) == 1 and spec.weight_shape[2] > 1 and spec.weight_shape[1] > 1


def _is_single_depthwise(spec: NodeSpec) -> bool:
    return bool(window_of(spec)) and is_depthwise(spec) and spec.out_shape[1] == spec.in_shapes[0][1]


def propose_separable(net: Net, rng: np.random.Generator) -> Arguments | None:
    label = one_of([k for k in net.order if _is_dense(net.specs[k])], rng)
    return None if label is None else (label,)


def separable(net: Net, edit: str, label: str) -> Net:
    """The convolution ``label`` becomes a depthwise one of its window and a pointwise one behind it, which keeps the label."""
    spec = net.spec(label)
    if not _is_dense(spec):
        raise Refused(f"node {label} ({spec.op}) is no dense convolution with a window")
    channels, n, first = spec.in_shapes[0][1], len(spec.weight_shape) - 2, net.new_label(edit, "depthwise")
    middle = (spec.in_shapes[0][0], channels, *spec.out_shape[2:])
    attrs = {**dict(spec.attrs), "group": channels}
    deep = replace(spec, out_shape=middle, weight_shape=(channels, 1, *spec.weight_shape[2:]), bias=False,
                   attrs=tuple(sorted(attrs.items())))
    ones = {"dilations": (1,) * n, "group": 1, "kernel_shape": (1,) * n, "pads": (0,) * (2 * n), "strides": (1,) * n}
    point = replace(spec, in_shapes=(middle,), weight_shape=(*spec.weight_shape[:2], *(1,) * n),
                    attrs=tuple(sorted(ones.items())))
    return net.edit({first: deep, label: point}, {first: net.inputs[label], label: (first,)})


def _depthwise_in_front(net: Net, label: str) -> str | None:
    """The depthwise convolution without bias that only the pointwise convolution ``label`` reads."""
    spec = net.specs[label]
    if not (window_of(spec) == (1, 1) and spec.attr("group", 1) == 1 and set(spec.attr("strides")) == {1}
            and not any(spec.attr("pads"))):
        return None
    before = net.inputs[label][0]
    deep = net.specs[before]
    fits = _is_single_depthwise(deep) and not deep.bias and deep.out_shape == spec.in_shapes[0]
    return before if fits and net.sole_reader(before) == label else None


def propose_dense(net: Net, rng: np.random.Generator) -> Arguments | None:
    label = one_of([k for k in net.order if _is_single_depthwise(net.specs[k])
                    or (net.specs[k].op == "Conv" and _depthwise_in_front(net, k))], rng)
    return None if label is None else (label,)


def dense(net: Net, edit: str, label: str) -> Net:
    """A depthwise convolution becomes a dense one; a pointwise one right behind a depthwise one takes over its window."""
    spec = net.spec(label)
    if _is_single_depthwise(spec):
        channels = spec.in_shapes[0][1]
        attrs = tuple((k, 1 if k == "group" else v) for k, v in spec.attrs)
        return net.edit({label: replace(spec, weight_shape=(channels, channels, *spec.weight_shape[2:]), attrs=attrs)})
    before = _depthwise_in_front(net, label) if spec.op == "Conv" else None
    if before is None:
        raise Refused(f"node {label} ({spec.op}) is neither depthwise nor a pointwise convolution right behind such a one")
    deep = net.specs[before]
    attrs = tuple((k, 1 if k == "group" else v) for k, v in deep.attrs)
    weight = (*spec.weight_shape[:2], *deep.weight_shape[2:])
    return net.edit({label: replace(spec, in_shapes=deep.in_shapes, weight_shape=weight, attrs=attrs)},
                    {label: net.inputs[before]})


# ---- width --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Width:
    """Widths that may change: ``layers[i]`` is the first layer whose number of output channels is the i-th of them."""

    layers: tuple[str, ...]
    widths: Widths

    @classmethod
    def of(cls, net: Net) -> Width:
        """Kept with ``net``, which never changes."""
        kept = net.__dict__.get("_width")
        if kept is None:
            widths, first = Widths(net), dict[int, str]()
            for k in net.order:
                if (found := widths.width_of(k)) is not None:
                    first.setdefault(found[0], k)
            kept = net.__dict__["_width"] = cls(tuple(first.values()), widths)
        return kept


def propose_width(net: Net, rng: np.random.Generator) -> Arguments | None:
    known = Width.of(net)
    label = one_of(list(known.layers), rng)
    if label is None:
        return None
    spec = net.specs[label]
    size = spec.out_shape[-1 if spec.op == "Gemm" else 1]
    step = next(n for n in (8, 4, 2, 1) if size % n == 0)
    new = max(step, round(size * one_of(list(FACTORS), rng) / step) * step)
    return None if new == size else (label, str(new))


def width(net: Net, edit: str, label: str, channels: str) -> Net:
    """The layer ``label`` gets ``channels`` output channels, and so does everything whose width is tied to it."""
    spec, size = net.spec(label), number(channels, "width")
    found = Width.of(net).widths.width_of(label)
    if found is None:
        raise Refused(f"the width of node {label} ({spec.op}) cannot change: it is no layer's own, or leaves the network, or "
                      "is split, as heads are")
    variable, c = found
    new = size / c
    if new != int(new):
        raise Refused(f"node {label} cannot have {size} channels: they are {c} times another width")
    return Width.of(net).widths.resized({variable: int(new)})
