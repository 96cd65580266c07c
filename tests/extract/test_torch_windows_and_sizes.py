"""Operators that ONNX writes in other words (windows, Fourier transforms), and those whose results depend on values."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from test_torch_operators import IMAGE, TOKENS, Of, graph_of  # noqa: E402
from torch import nn  # noqa: E402

from extract import from_torch  # noqa: E402


def test_unfold_is_two_gathers_with_the_shapes_that_onnx_exporters_write() -> None:
    graph = graph_of(nn.Unfold((3, 2), dilation=2, padding=1, stride=(2, 1)), IMAGE)
    pad, rows, columns = graph.nodes[1:]
    assert dict(pad.attrs) == {"pads": (0, 0, 1, 1, 0, 0, 1, 1)}
    # rows: (8 - 2 * 2 - 1) // 2 + 1 = 2; columns: 8 - 2 - 1 + 1 = 6
    assert (rows.in_shapes, rows.out_shape, rows.attrs) == (((1, 8, 8, 8),), (1, 8, 3, 2, 8), (("axis", 2),))
    assert (columns.in_shapes, columns.out_shape, columns.attrs) == ((rows.out_shape,), (1, 8, 3, 2, 2, 6), (("axis", 4),))


def test_fourier_transform_has_an_axis_of_two_and_the_scale_of_onnx() -> None:
    """The inverse of ONNX divides by the number of values, so only other norms need a factor."""
    nodes = graph_of(lambda x: torch.fft.irfft2(torch.fft.rfft2(x)), (1, 4, 6)).nodes[1:]
    assert [(n.op, n.in_shapes[0], n.out_shape, dict(n.attrs)) for n in nodes] == [
        ("DFT", (1, 4, 6, 1), (1, 4, 4, 2), {"axis": 2, "onesided": 1}),
        ("DFT", (1, 4, 4, 2), (1, 4, 4, 2), {"axis": 1}),
        ("DFT", (1, 4, 4, 2), (1, 4, 4, 2), {"axis": 1, "inverse": 1}),
        ("DFT", (1, 4, 4, 2), (1, 4, 6, 1), {"axis": 2, "inverse": 1, "onesided": 1})]
    scaled = graph_of(lambda x: torch.fft.fft(x, norm="ortho").abs(), (1, 4, 16)).nodes
    assert [n.attr("scalar") for n in scaled if n.op == "Mul"] == [0.25]
    scaled = graph_of(lambda x: torch.fft.ifft(x.to(torch.complex64), norm="ortho").abs(), (1, 4, 16)).nodes
    assert [n.attr("scalar") for n in scaled if n.op == "Mul"] == [4.0]


def test_a_trained_filter_in_the_frequency_domain_counts_its_parameters() -> None:
    class Filter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(4, 4, 2))

        def forward(self, x: Any) -> Any:
            return torch.fft.irfft2(torch.fft.rfft2(x) * torch.view_as_complex(self.weight))

    graph = graph_of(Filter(), (1, 4, 6))
    assert sorted(n.extra_params for n in graph.nodes if n.op == "Constant") == [0, 32]


@pytest.mark.parametrize(("function", "shape", "note", "found"), [
    (lambda x: x[x > 0], TOKENS, "a mask in", (40,)), (lambda x: x[x.sum(-1) > 0], TOKENS, "a mask in", (5, 8)),
    (lambda x: torch.nonzero(x) * 2, TOKENS, "nonzero in", (40, 3)), (lambda x: x.unique(), TOKENS, "unique in", (40,)),
    (lambda x: x.masked_select(x > 0), TOKENS, "a mask in", (40,)),
])
def test_sizes_that_depend_on_values_are_the_largest_and_noted(function: Any, shape: tuple[int, ...], note: str,
                                                               found: tuple[int, ...]) -> None:
    result = from_torch(Of(function), shape)
    assert result.graph.nodes[result.graph.outputs[0]].out_shape == found
    assert any(n.startswith(note) for n in result.notes)


def test_repetitions_of_a_constant_table_are_counted() -> None:
    graph = graph_of(lambda x: x.repeat_interleave(torch.tensor([1, 0, 3, 1, 1]), 1).relu(), TOKENS)
    assert graph.nodes[-1].out_shape == (1, 6, 8)


def test_median_is_the_last_of_the_lower_half() -> None:
    top, last = graph_of(lambda x: x.median(1).values, (1, 6, 8)).nodes[1:]
    assert (dict(top.attrs), top.out_shape) == ({"axis": 1, "k": 3, "largest": False}, (1, 3, 8))
    assert dict(last.attrs) == {"axes": (1,), "starts": (2,), "ends": (3,)}
