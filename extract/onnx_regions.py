"""ONNX operators for boxes and regions, signals, and results whose size depends on values. See ``onnx_layers``.

A result as long as values tell gets the greatest length there can be, and a note says so.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from extract.onnx_node import Call, meta, nth
from extract.torch_math import number
from extract.torch_primitive import primitive


def non_max_suppression(call: Call, boxes: Tensor, scores: Tensor, most: Tensor | None = None, iou: Tensor | None = None,
                        least: Tensor | None = None) -> Tensor:
    """Boxes ``(batch, n, 4)`` and scores ``(batch, classes, n)`` -> rows of batch, class and box."""
    if boxes.ndim != 3 or scores.ndim != 3:
        raise call.fail(f"its boxes {list(boxes.shape)} and scores {list(scores.shape)} must have three axes")
    kept = boxes.shape[1]
    if most is not None and not most.is_meta:
        kept = min(int(call.number(most, "the number of boxes")), kept)
    rows = boxes.shape[0] * scores.shape[1] * max(kept, 0)
    call.note(f"{call.where} keeps as many boxes as values tell; the graph keeps all")
    more: dict[str, Any] = {} if iou is None or iou.is_meta else {"iou_threshold": number(call.number(iou, "the threshold"))}
    return primitive("NonMaxSuppression", [boxes, scores], (rows, 3), dtype=torch.int64, **more)


def roi_align(call: Call, x: Tensor, rois: Tensor, batch: Tensor) -> Tensor:
    height, width = call.integer("output_height", 1), call.integer("output_width", 1)
    attrs: dict[str, Any] = {"output_height": height, "output_width": width,
                             "sampling_ratio": call.integer("sampling_ratio", 0),
                             "spatial_scale": number(call.real("spatial_scale", 1.0))}
    mode = call.text("coordinate_transformation_mode", "half_pixel" if call.opset >= 16 else "output_half_pixel")
    if mode != "half_pixel":
        attrs["coordinate_transformation_mode"] = mode
    if call.text("mode", "avg") != "avg":
        attrs["mode"] = call.text("mode")
    return primitive("RoiAlign", [x, rois, batch], call.shape((rois.shape[0], x.shape[1], height, width)), **attrs)


def max_roi_pool(call: Call, x: Tensor, rois: Tensor) -> Tensor:
    """Regions are rows of image number and corners."""
    height, width = call.ints("pooled_shape")
    return primitive("RoiAlign", [x, rois[:, 1:5], rois[:, 0:1]], call.shape((rois.shape[0], x.shape[1], height, width)),
                     coordinate_transformation_mode="output_half_pixel", mode="max", output_height=height, output_width=width,
                     sampling_ratio=0, spatial_scale=number(call.real("spatial_scale", 1.0)))


def nonzero(call: Call, x: Tensor) -> Tensor:
    if not x.is_meta:
        return torch.nonzero(x).t()
    call.note(f"{call.where} finds as many positions as values tell; the graph holds the most there can be")
    return torch.nonzero(x).t()


def compress(call: Call, x: Tensor, condition: Tensor) -> Tensor:
    axis = call.get("axis")
    if axis is None:
        x, axis = x.reshape(-1), 0
    axis = call.axis(int(axis), x.ndim)
    if not condition.is_meta:
        keep = torch.nonzero(condition.reshape(-1)[:x.shape[axis]]).reshape(-1)
        return torch.index_select(x, axis, meta(keep) if x.is_meta else keep)
    call.note(f"{call.where} keeps as many entries as values tell; the graph keeps all")
    return primitive("Gather", [x, condition], x.shape, dtype=x.dtype, axis=axis)


def unique(call: Call, x: Tensor) -> Any:
    if not x.is_meta and "axis" not in call.attributes:
        values, inverse, counts = torch.unique(x, return_inverse=True, return_counts=True)
        return (values, torch.zeros_like(counts), inverse.reshape(-1), counts)
    call.note(f"{call.where} finds as many values as there are different ones; the graph holds the most there can be")
    n = x.shape[call.integer("axis")] if "axis" in call.attributes else x.numel()
    shape = x.shape if "axis" in call.attributes else (x.numel(),)
    return tuple(primitive("Unknown", [meta(x)], s, dtype=d, name="Unique", **nth(i))
                 for i, (s, d) in enumerate(((shape, x.dtype), *(((n,), torch.int64),) * 3)))


def dft(call: Call, x: Tensor, length: Tensor | None = None, axis_input: Tensor | None = None) -> Tensor:
    """The last axis is real and imaginary part."""
    axis = call.integer("axis", 1) if call.opset < 20 else -2 if axis_input is None else int(call.number(axis_input, "axis"))
    axis = call.axis(axis, x.ndim)
    shape = list(x.shape)
    one_sided, inverse = call.integer("onesided", 0), call.integer("inverse", 0)
    whole = 2 * (shape[axis] - 1) if one_sided and inverse else shape[axis]
    n = whole if length is None else int(call.number(length, "dft_length"))
    shape[axis] = n // 2 + 1 if one_sided and not inverse else n
    shape[-1] = 1 if one_sided and inverse else 2
    more: dict[str, Any] = {k: v for k, v in (("inverse", inverse), ("onesided", one_sided)) if v}
    return primitive("DFT", [meta(x)], call.shape(shape), axis=axis, **more)


def stft(call: Call, x: Tensor, step: Tensor, window: Tensor | None = None, length: Tensor | None = None) -> Tensor:
    hop = int(call.number(step, "frame_step"))
    size = window.shape[0] if length is None and window is not None else int(call.number(length, "frame_length"))
    if hop < 1 or size < 1:
        raise call.fail("frame_step and the length of a frame must be positive")
    bins = size // 2 + 1 if call.integer("onesided", 1) else size
    frames = (x.shape[1] - size) // hop + 1
    return primitive("STFT", [meta(x)], call.shape((x.shape[0], frames, bins, 2)), frame_length=size, frame_step=hop)
