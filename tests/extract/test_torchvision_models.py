"""Networks of torchvision, above all those whose results have sizes that depend on values; and its own operators."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec

import pytest

from extract import Extraction, from_torch
from extract.zoo import import_torchvision, load

torch = pytest.importorskip("torch")
if find_spec("torchvision") is None:
    pytest.skip("needs torchvision", allow_module_level=True)
tv = import_torchvision()

from torch import nn  # noqa: E402


def extracted(name: str) -> Extraction:
    model = load(f"torchvision:{name}")
    result = from_torch(model.factory, model.inputs)
    assert not result.unknown
    assert result.way == "dispatch"
    with torch.device("meta"):
        assert result.graph.params == sum(p.numel() for p in model.factory().parameters())
    return result


def test_faster_rcnn_keeps_every_box() -> None:
    result = extracted("fasterrcnn_mobilenet_v3_large_320_fpn")
    ops = Counter(result.graph.ops)
    # proposals once, the boxes of 91 classes once; regions from two levels
    assert (ops["NonMaxSuppression"], ops["RoiAlign"]) == (2, 2)
    assert any(note.startswith("nms in rpn keeps") for note in result.notes)
    region = next(n for n in result.graph.nodes if n.op == "RoiAlign")
    assert region.out_shape[1:] == (256, 7, 7)
    assert len(region.in_shapes) == 3
    assert len(result.graph.outputs) == 3  # boxes, classes, scores


def test_retina_net_suppresses_once_for_each_image() -> None:
    ops = Counter(extracted("retinanet_resnet50_fpn").graph.ops)
    assert ops["NonMaxSuppression"] == 1
    assert ops["TopK"] == 2 * 5  # values and positions for each level


@pytest.mark.parametrize(("name", "op", "count"), [
    ("lraspp_mobilenet_v3_large", "Resize", 2), ("r3d_18", "Conv", 20), ("swin3d_t", "Softmax", 12),
])
def test_numbers_of_operators(name: str, op: str, count: int) -> None:
    assert extracted(name).graph.ops.count(op) == count


def test_steps_that_depend_on_values_are_left_out_and_said() -> None:
    mask = extracted("maskrcnn_resnet50_fpn")
    assert any("pasting masks" in note for note in mask.notes)
    assert (100, 28, 28) in {n.out_shape for n in mask.graph.nodes}
    points = extracted("keypointrcnn_resnet50_fpn")
    assert any("heat maps" in note for note in points.notes)
    assert (100, 17, 56, 56) in {n.out_shape for n in points.graph.nodes}


class _Deformed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Conv2d(8, 2 * 9 * 2, 3, padding=1)
        self.conv = tv.ops.DeformConv2d(8, 6, 3, padding=1, groups=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x, self.offset(x))


def test_deformable_convolution() -> None:
    graph = from_torch(_Deformed, (1, 8, 5, 5)).graph
    assert graph.ops == ["Input", "Conv", "DeformConv"]
    node = graph.nodes[2]
    assert node.attrs == (("dilations", (1, 1)), ("group", 2), ("kernel_shape", (3, 3)), ("offset_group", 2),
                          ("pads", (1, 1, 1, 1)), ("strides", (1, 1)))
    assert (node.weight_shape, node.params) == ((6, 4, 3, 3), 6 * 4 * 9 + 6)
    assert graph.macs == 25 * 36 * 8 * 9 + 25 * 6 * 4 * 9


class _Regions(nn.Module):
    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor, rois: torch.Tensor) -> torch.Tensor:
        return self.function(x, rois)  # type: ignore[operator]


@pytest.mark.parametrize(("function", "attrs", "channels"), [
    (lambda x, r: tv.ops.roi_align(x, r, 2, 0.5, aligned=True), {"sampling_ratio": 0}, 8),
    (lambda x, r: tv.ops.roi_align(x, r, 2, 0.5, 3), {"sampling_ratio": 3,
                                                      "coordinate_transformation_mode": "output_half_pixel"}, 8),
    (lambda x, r: tv.ops.roi_pool(x, r, 2, 0.5), {"mode": "max", "sampling_ratio": 0,
                                                  "coordinate_transformation_mode": "output_half_pixel"}, 8),
    (lambda x, r: tv.ops.ps_roi_align(x, r, 2, 0.5), {"position_sensitive": True, "sampling_ratio": 0,
                                                      "coordinate_transformation_mode": "output_half_pixel"}, 2),
])
def test_regions(function: object, attrs: dict[str, object], channels: int) -> None:
    graph = from_torch(_Regions(function), [(1, 8, 12, 12), (7, 5)]).graph
    assert sorted(graph.ops) == ["Input", "Input", "RoiAlign", "Slice", "Slice"]
    node = next(n for n in graph.nodes if n.op == "RoiAlign")
    assert dict(node.attrs) == {**attrs, "output_height": 2, "output_width": 2, "spatial_scale": 0.5}
    assert (node.in_shapes, node.out_shape) == (((1, 8, 12, 12), (7, 4), (7, 1)), (7, channels, 2, 2))


def test_suppression_of_boxes_has_the_shapes_of_onnx() -> None:
    class Suppressed(nn.Module):
        def forward(self, boxes: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            return boxes[tv.ops.nms(boxes, scores, 0.5)]

    graph = from_torch(Suppressed, [(9, 4), (9,)]).graph
    assert sorted(graph.ops) == ["Gather", "Input", "Input", "NonMaxSuppression", "Slice"]
    node = next(n for n in graph.nodes if n.op == "NonMaxSuppression")
    assert (node.in_shapes, node.out_shape) == (((1, 9, 4), (1, 1, 9)), (9, 3))


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for kind in (tv.models.detection, tv.models.segmentation, tv.models.video)
                                  for n in tv.models.list_models(module=kind)])
def test_everything_but_classification(name: str) -> None:
    assert extracted(name).graph.macs > 1e8
