"""ONNX operators that pad, resize and rearrange images, as torch calls. See ``onnx_layers`` for what a handler is."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, prod
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from extract.onnx_node import Call, meta
from extract.torch_primitive import primitive


def pad(call: Call, x: Tensor, pads_input: Tensor | None = None, value: Tensor | None = None,
        axes: Tensor | None = None) -> Tensor:
    """Attributes before version 11. Torch lists pairs from the last axis backwards."""
    mode = call.text("mode", "constant")
    given = call.attribute_or_input("pads", pads_input, call.ints("paddings", []))
    assert given is not None
    along = list(range(x.ndim)) if axes is None else [call.axis(a, x.ndim) for a in call.list_of(axes, "axes")]
    n = len(along)
    if len(given) != 2 * n:
        raise call.fail(f"pads {given[:12]} do not fit {n} axes")
    before, after = [0] * x.ndim, [0] * x.ndim
    for i, a in enumerate(along):
        before[a], after[a] = given[i], given[n + i]
    shape = call.shape([b + d + a for b, d, a in zip(before, x.shape, after, strict=True)])
    if not any(given):
        return x
    if call.device(shape) == "meta":
        x = meta(x)
    padded = [i for i in range(x.ndim) if before[i] or after[i]]
    first = padded[0]
    if mode == "constant":
        number = float(call.real("value", 0.0) if value is None or value.numel() == 0 else call.number(value, "the value"))
        flat = [p for i in reversed(range(first, x.ndim)) for p in (before[i], after[i])]
        return F.pad(x, flat, value=number)
    modes = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}
    if mode not in modes:
        raise call.fail(f"there is no mode {mode!r}")
    rank = x.ndim - 2
    if 3 <= x.ndim <= 5 and first >= 2 and min(given) >= 0 and x.is_floating_point():
        flat = [p for i in reversed(range(2, 2 + rank)) for p in (before[i], after[i])]
        return F.pad(x, flat, mode=modes[mode])
    return primitive("Pad", [meta(x)], shape, mode=mode, pads=before + after)


def resize(call: Call, x: Tensor, *rest: Tensor | None) -> Tensor:
    """Resize and Upsample of all versions: the size is worked out and a torch interpolation to that size called."""
    scales, sizes = _resize_inputs(call, rest)
    axes = [call.axis(a, x.ndim) for a in call.ints("axes", list(range(x.ndim)))]
    if len(axes) != len(sizes or scales or []):
        raise call.fail(f"neither scales nor sizes fit the {len(axes)} axes of its input {list(x.shape)}")
    shape = list(x.shape)
    policy = call.text("keep_aspect_ratio_policy", "stretch")
    if sizes:
        if policy != "stretch":
            ratios = [s / x.shape[a] for a, s in zip(axes, sizes, strict=True)]
            ratio = min(ratios) if policy == "not_larger" else max(ratios)
            sizes = [round(ratio * x.shape[a]) for a in axes]
        for a, s in zip(axes, sizes, strict=True):
            shape[a] = s
    else:
        for a, f in zip(axes, scales or [], strict=True):
            shape[a] = floor(x.shape[a] * f + 1e-6)
    shape = list(call.shape(shape))
    if shape == list(x.shape):
        return x
    mode = call.text("mode", "nearest")
    aligned = call.text("coordinate_transformation_mode", "half_pixel") == "align_corners"
    return interpolate(call, x, shape, {"bilinear": "linear", "trilinear": "linear"}.get(mode, mode), aligned)


def interpolate(call: Call, x: Tensor, shape: Sequence[int], mode: str, aligned: bool) -> Tensor:
    """``mode`` is nearest, linear or cubic. What torch cannot do (other axes, other ranks) is the operator itself."""
    rank = x.ndim - 2
    kind = {"nearest": "nearest", "linear": {1: "linear", 2: "bilinear", 3: "trilinear"}.get(rank),
            "cubic": "bicubic" if rank == 2 else None}.get(mode)
    if mode not in ("nearest", "linear", "cubic"):
        raise call.fail(f"there is no mode {mode!r}")
    if kind is None or list(shape[:2]) != list(x.shape[:2]) or not 1 <= rank <= 3 or min(shape) == 0:
        more: dict[str, Any] = {"coordinate_transformation_mode": "align_corners"} if aligned and mode != "nearest" else {}
        return primitive("Resize", [meta(x)], shape, mode=mode, **more)
    x = meta(x) if x.is_floating_point() else meta(x).float()
    return F.interpolate(x, size=list(shape[2:]), mode=kind, align_corners=aligned if kind != "nearest" else None)


def _resize_inputs(call: Call, rest: Sequence[Tensor | None]) -> tuple[list[float] | None, list[int] | None]:
    """Scales and sizes: Upsample has scales only, Resize of version 10 too, later ones a region of interest before them."""
    if call.op == "Upsample" or call.opset < 11:
        if not rest:
            scales = call.get("scales")
            if scales is None:
                scales = [1.0, 1.0, call.real("height_scale"), call.real("width_scale")]
            return [float(s) for s in scales], None
        return _floats(call, rest[0]), None
    scales_input, sizes_input = (*rest, None, None, None)[1:3]
    if sizes_input is not None and sizes_input.numel():
        return None, call.list_of(sizes_input, "sizes")
    return (None if scales_input is None else _floats(call, scales_input)), None


def _floats(call: Call, value: Tensor | None) -> list[float]:
    known = call.known(value, "scales")
    if known.numel() > 16:
        raise call.fail(f"scales has {known.numel()} entries")
    values = [float(v) for v in known.reshape(-1).tolist()]
    if any(not 0 < v < 2**40 for v in values):
        raise call.fail(f"scales {values} must be positive")
    return values


def depth_to_space(call: Call, x: Tensor) -> Tensor:
    """Mode CRD is the channel order of ``pixel_shuffle``."""
    b = call.integer("blocksize")
    if b < 1 or x.ndim != 4 or x.shape[1] % (b * b):
        raise call.fail(f"blocksize {b} does not fit an input of shape {list(x.shape)}")
    if call.text("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, b)
    n, c, h, w = x.shape
    return primitive("DepthToSpace", [x], (n, c // (b * b), h * b, w * b), blocksize=b)


def space_to_depth(call: Call, x: Tensor) -> Tensor:
    return F.pixel_unshuffle(x, call.integer("blocksize"))


def fold(call: Call, x: Tensor, image: Tensor, block: Tensor) -> Tensor:
    """Col2Im."""
    size, kernel = call.list_of(image, "image_shape"), call.list_of(block, "block_shape")
    n = len(kernel)
    pads, window = call.ints("pads", [0] * 2 * n), prod(kernel)
    strides, dilations = call.ints("strides", [1] * n), call.ints("dilations", [1] * n)
    if n == 2 and pads[:2] == pads[2:]:
        return F.fold(x, tuple(size), tuple(kernel), tuple(dilations), tuple(pads[:2]), tuple(strides))
    return primitive("ScatterElements", [x], call.shape([x.shape[0], x.shape[1] // max(window, 1), *size]), dilations=dilations,
                     kernel_shape=kernel, pads=pads, reduction="add", strides=strides)


def grid_sample(call: Call, x: Tensor, grid: Tensor) -> Tensor:
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(call.text("mode", "bilinear"), call.text("mode", "bilinear"))
    return F.grid_sample(x, grid, mode, call.text("padding_mode", "zeros"), bool(call.integer("align_corners", 0)))
