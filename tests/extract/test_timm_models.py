"""Networks of timm: counts of operators and multiply-adds from their papers, parameters from timm itself."""

from __future__ import annotations

import warnings
from collections import Counter
from importlib.util import find_spec

import pytest

from cg import Graph
from extract import Extraction, from_torch
from extract.zoo import import_torchvision

torch = pytest.importorskip("torch")
if find_spec("timm") is None or find_spec("torchvision") is None:
    pytest.skip("needs timm", allow_module_level=True)
import_torchvision()  # timm imports it
import timm  # noqa: E402


def extracted(name: str) -> Extraction:
    with torch.device("meta"):
        model = timm.create_model(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        result = from_torch(lambda: timm.create_model(name), (1, *model.default_cfg["input_size"]))
    assert result.graph.params == sum(p.numel() for p in model.parameters())
    return result


def graph_of(name: str) -> Graph:
    result = extracted(name)
    assert not result.unknown
    return result.graph


# name: what its paper or its code says of it, as numbers of operators
COUNTS: dict[str, dict[str, int]] = {
    # a stem, 16 blocks of 3 convolutions, 4 projections
    "resnet50": {"Conv": 53, "BatchNormalization": 53, "Relu": 49, "Add": 16, "MaxPool": 1, "GlobalAveragePool": 1, "Gemm": 1},
    # 12 blocks of attention (keys, queries and values in one) and two layers
    "vit_base_patch16_224": {"Conv": 1, "Gemm": 12 * 4 + 1, "MatMul": 24, "Softmax": 12, "LayerNormalization": 25, "Gelu": 12},
    # 2, 2, 6, 2 blocks, three of which halve the resolution by a layer
    "swin_tiny_patch4_window7_224": {"Conv": 1, "Gemm": 12 * 4 + 3 + 1, "MatMul": 24, "Softmax": 12, "Gelu": 12, "Roll": 10,
                                     "LayerNormalization": 12 * 2 + 1 + 3 + 1},
    # 3, 3, 9, 3 blocks with one depthwise convolution each; stem and three reductions
    "convnext_tiny": {"Conv": 18 + 4, "Gemm": 36 + 1, "Gelu": 18, "LayerNormalization": 18 + 4 + 1, "Add": 18},
    # 12 blocks that mix tokens, then channels
    "mixer_s32_224": {"Conv": 1, "Gemm": 8 * 4 + 1, "Gelu": 16, "LayerNormalization": 17, "MatMul": 0},
    # 4, 3, 8, 3 blocks with an LSTM over rows and one over columns
    "sequencer2d_s": {"LSTM": 2 * 18, "LayerNormalization": 2 * 18 + 1, "Concat": 18},
    # four outlookers, each of which folds windows of three times three back
    "volo_d1_224": {"ScatterElements": 4, "Gather": 8, "Pad": 4, "AveragePool": 4, "Softmax": 4 + 14 + 2},
    "tnt_s_patch16_224": {"Gather": 2, "Softmax": 24, "MatMul": 48},
    # attention in three blocks, in two of them with windows that overlap: over rows, then over columns
    "halonet26t": {"Gather": 4, "Softmax": 3, "MatMul": 6},
    # the same convolutions again for each block of a stage
    "coat_tiny": {"Softmax": 4 * 2 + 3 * 6},
    # 4, 5 bottlenecks with squeeze and excitation in the first stage already
    "regnety_002": {"Conv": 1 + 13 * 5 + 4, "Sigmoid": 13, "Mul": 13, "Gemm": 1},
    # 16 blocks: expansion (not in the first), depthwise, two of squeeze and excitation, projection; stem and head
    "efficientnet_b0": {"Conv": 16 * 5 - 1 + 2, "Sigmoid": 16, "Swish": 16 * 3 - 1 + 2, "Add": 9},
    # four blocks, each with attention in windows and in a grid
    "test_maxvit": {"Gemm": 4 * 2 * 4 + 1, "Softmax": 4 * 2, "MatMul": 4 * 2 * 2},
}


@pytest.mark.parametrize("name", COUNTS)
def test_numbers_of_operators(name: str) -> None:
    found = Counter(graph_of(name).ops)
    assert {op: found[op] for op in COUNTS[name]} == COUNTS[name]


def test_macs_of_resnet50_follow_from_its_layers() -> None:
    total, side, width = 112 * 112 * 64 * 3 * 49, 56, 64
    channels = 64
    for blocks, inner in ((3, 64), (4, 128), (6, 256), (3, 512)):
        for block in range(blocks):
            before = side
            side = side // 2 if block == 0 and inner > 64 else side
            total += before * before * channels * inner + side * side * inner * (9 * inner + 4 * inner)
            total += side * side * channels * 4 * inner if block == 0 else 0
            channels = 4 * inner
    total += channels * 1000
    assert graph_of("resnet50").macs == total == 4_089_184_256
    assert width == 64


def test_macs_of_a_vision_transformer_follow_from_its_width() -> None:
    tokens, width = 14 * 14 + 1, 768
    block = 4 * tokens * width ** 2 + 2 * tokens ** 2 * width + 8 * tokens * width ** 2
    assert graph_of("vit_base_patch16_224").macs == 14 * 14 * width * 3 * 16 * 16 + 12 * block + width * 1000


def test_shared_convolutions_count_once_and_are_noted() -> None:
    result = extracted("coat_tiny")
    assert any("cpe1.proj.weight again" in note for note in result.notes)


@pytest.mark.slow
@pytest.mark.parametrize("module", timm.list_modules())
def test_one_model_of_each_module(module: str) -> None:
    """The one with the shortest name among the small ones."""
    names = timm.list_models(module=module)
    if not names:
        pytest.skip("no model of its own")
    small = [n for key in ("test_", "atto", "nano", "tiny", "xxs", "small", "_s", "18", "26", "50") for n in names if key in n]
    graph = graph_of(min(small[:8] or names, key=len))
    assert graph.n_nodes >= 20
    assert graph.macs > 0
