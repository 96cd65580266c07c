"""Operators of torchvision: regions, suppression of boxes, deformable convolution. This file must not import torchvision.

They are not run (a CPU build may lack them): ``SIZES`` gives the shape of their result, as ``BOUNDS`` in ``torch_bounds``.
``PREPARE`` takes from a copy of a model what cannot be recorded because shapes in it follow from values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn

from extract.torch_math import number
from extract.torch_recorder import Recorder, Ref

# What a torchvision without its compiled part does not know; to be declared before it is imported.
_REGIONS: Final = "Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width"
SCHEMAS: Final = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    f"roi_align({_REGIONS}, int sampling_ratio, bool aligned) -> Tensor",
    f"roi_pool({_REGIONS}) -> (Tensor, Tensor)",
    f"ps_roi_align({_REGIONS}, int sampling_ratio) -> (Tensor, Tensor)",
    f"ps_roi_pool({_REGIONS}) -> (Tensor, Tensor)",
    "deform_conv2d(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, SymInt stride_h, SymInt stride_w, "
    "SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w, SymInt groups, SymInt offset_groups, bool use_mask) "
    "-> Tensor",
)


def _kept(r: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    boxes = args[0]
    if not boxes.is_meta:
        return None
    r.note(f"nms in {r.where()} keeps as many boxes as values tell; the graph keeps all")
    return torch.empty(len(boxes), dtype=torch.long, device="meta")


def _pooled(divide: bool, outputs: int) -> Callable[..., Any]:
    def sizes(r: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        x, rois, _, height, width = args[:5]
        if not x.is_meta:
            return None
        shape = (len(rois), x.shape[1] // (height * width if divide else 1), height, width)
        made = tuple(torch.empty(shape, device="meta", dtype=x.dtype) for _ in range(outputs))
        return made if outputs > 1 else made[0]

    return sizes


def _deformed(r: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, weight, offset = args[:3]
    if not x.is_meta:
        return None
    return torch.empty((len(x), len(weight), *offset.shape[2:]), device="meta", dtype=x.dtype)


SIZES: Final[dict[str, Callable[[Recorder, tuple[Any, ...], dict[str, Any]], Any]]] = {
    "torchvision::nms": _kept, "torchvision::roi_align": _pooled(False, 1), "torchvision::roi_pool": _pooled(False, 2),
    "torchvision::ps_roi_align": _pooled(True, 2), "torchvision::ps_roi_pool": _pooled(True, 2),
    "torchvision::deform_conv2d": _deformed,
}


def nms(r: Recorder, out: Tensor, boxes: Tensor, scores: Tensor, iou_threshold: float) -> Ref:
    """As in ONNX: boxes ``(1, n, 4)`` and scores ``(1, 1, n)`` to rows of batch, class and box; the last is the result."""
    n = len(boxes)
    rows = r.node("NonMaxSuppression", [Ref(r.ref(boxes).node, (1, n, 4)), Ref(r.ref(scores).node, (1, 1, n))], (n, 3),
                  iou_threshold=number(iou_threshold))
    return r.cut(rows, 1, 2, 3)


def roi(mode: str = "avg", sensitive: bool = False) -> Callable[..., Any]:
    """Pooling of regions; the five numbers of a region are its image and its corners, two arguments in ONNX."""

    def handler(r: Recorder, out: Any, x: Tensor, rois: Tensor, spatial_scale: float, height: int, width: int,
                sampling_ratio: int = 0, aligned: bool = False) -> Any:
        attrs: dict[str, Any] = {"output_height": height, "output_width": width, "sampling_ratio": max(sampling_ratio, 0),
                                 "spatial_scale": number(spatial_scale)}
        if not aligned:
            attrs["coordinate_transformation_mode"] = "output_half_pixel"
        if mode != "avg":
            attrs["mode"] = mode
        if sensitive:
            attrs["position_sensitive"] = True
        pooled = out if isinstance(out, Tensor) else out[0]
        value = r.node("RoiAlign", [x, r.cut(rois, 1, 1, 5), r.cut(rois, 1, 0, 1)], pooled.shape, attrs=attrs)
        return value if out is pooled else [value, None]

    return handler


def deform_conv(r: Recorder, out: Tensor, x: Tensor, weight: Tensor, offset: Tensor, mask: Tensor, bias: Tensor,
                stride_h: int, stride_w: int, pad_h: int, pad_w: int, dilation_h: int, dilation_w: int, groups: int,
                offset_groups: int, use_mask: bool) -> Ref:
    """torchvision passes zeros where the layer has no bias."""
    trained = bool(r.params_in(bias))
    attrs = {"dilations": (dilation_h, dilation_w), "group": groups, "kernel_shape": tuple(weight.shape[2:]),
             "offset_group": offset_groups, "pads": (pad_h, pad_w) * 2, "strides": (stride_h, stride_w)}
    return r.node("DeformConv", [x, offset, mask] if use_mask else [x, offset], out.shape,
                  [weight, bias] if trained else [weight], tuple(weight.shape), trained, attrs)


HANDLERS: Final[dict[str, Callable[..., Any]]] = {
    "torchvision::nms": nms, "torchvision::roi_align": roi(), "torchvision::roi_pool": roi("max"),
    "torchvision::ps_roi_align": roi(sensitive=True), "torchvision::ps_roi_pool": roi(sensitive=True),
    "torchvision::deform_conv2d": deform_conv,
}


def _leave_masks_small(transform: Any, notes: list[str]) -> None:
    """The last step of Mask R-CNN resizes each mask to the values of its box; the masks stay as the network makes them."""
    original = transform.postprocess

    def postprocess(result: list[dict[str, Tensor]], *sizes: Any) -> Any:
        masks = [image.pop("masks", None) for image in result]
        done = original(result, *sizes)
        for image, mask in zip(done, masks, strict=True):
            if mask is not None:
                image["masks"] = mask
                notes.append("pasting masks into the image is left out: sizes follow from the values of boxes")
        return done

    transform.postprocess = postprocess


def _leave_heat_maps(heads: Any, notes: list[str]) -> None:
    """Keypoint R-CNN resizes each heat map to the values of its box to find its peaks; the result is the heat maps."""
    pool = heads.keypoint_roi_pool
    if pool is None:
        return
    original = heads.forward
    heads.keypoint_roi_pool = None  # leaves the branch out

    def forward(features: Any, proposals: Any, image_shapes: Any, targets: Any = None) -> Any:
        result, losses = original(features, proposals, image_shapes, targets)
        regions = pool(features, [image["boxes"] for image in result], image_shapes)
        heat = heads.keypoint_predictor(heads.keypoint_head(regions))
        for image, maps in zip(result, heat.split([len(image["boxes"]) for image in result]), strict=True):
            image["heat_maps"] = maps
        notes.append("finding the peaks of the heat maps of keypoints is left out: sizes follow from the values of boxes")
        return result, losses

    heads.forward = forward


PREPARE: Final[dict[str, Callable[[nn.Module, list[str]], None]]] = {
    "torchvision.models.detection.transform.GeneralizedRCNNTransform": _leave_masks_small,
    "torchvision.models.detection.roi_heads.RoIHeads": _leave_heat_maps,
}


def prepare(module: nn.Module, notes: list[str]) -> None:
    """Applied by the recorder to every module of the copy that it is going to run."""
    kind = type(module)
    if kind.__module__.startswith("torchvision.models.detection"):
        change = PREPARE.get(f"{kind.__module__}.{kind.__name__}")
        if change is not None:
            change(module, notes)
