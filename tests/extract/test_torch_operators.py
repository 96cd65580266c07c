"""What each PyTorch operator becomes: small real modules with the list of operators derived by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from cg import Graph, GraphBuilder, canonicalize  # noqa: E402
from extract import from_torch  # noqa: E402

IMAGE, TOKENS = (1, 8, 6, 6), (1, 5, 8)


class Of(nn.Module):
    """A function of its inputs, with modules that it may use."""

    def __init__(self, function: Callable[..., Any], **modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, *args: Any) -> Any:
        return self.function(self, *args) if self._modules else self.function(*args)


def graph_of(model: nn.Module | Callable[..., Any], *shapes: tuple[int, ...]) -> Graph:
    module = model if isinstance(model, nn.Module) else Of(model)
    result = from_torch(module, list(shapes))
    assert not result.unknown
    assert result.graph.params == sum(p.numel() for p in module.parameters())
    assert canonicalize(result.graph) == result.graph
    return result.graph


SINGLE = {
    # name: (model, input shape, operator, attributes, output shape)
    "conv1d": (nn.Conv1d(8, 4, 3, stride=2, padding=1), (1, 8, 9), "Conv", {
        "dilations": (1,), "group": 1, "kernel_shape": (3,), "pads": (1, 1), "strides": (2,)}, (1, 4, 5)),
    "conv2d groups": (nn.Conv2d(8, 8, (3, 1), dilation=2, groups=4), IMAGE, "Conv", {
        "dilations": (2, 2), "group": 4, "kernel_shape": (3, 1), "pads": (0, 0, 0, 0), "strides": (1, 1)}, (1, 8, 2, 6)),
    "conv2d same": (nn.Conv2d(8, 2, 4, padding="same"), IMAGE, "Conv", {
        "dilations": (1, 1), "group": 1, "kernel_shape": (4, 4), "pads": (1, 1, 2, 2), "strides": (1, 1)}, (1, 2, 6, 6)),
    "conv2d valid": (nn.Conv2d(8, 2, 4, padding="valid", bias=False), IMAGE, "Conv", {
        "dilations": (1, 1), "group": 1, "kernel_shape": (4, 4), "pads": (0, 0, 0, 0), "strides": (1, 1)}, (1, 2, 3, 3)),
    "conv3d": (nn.Conv3d(2, 3, 1), (1, 2, 4, 4, 4), "Conv", {
        "dilations": (1,) * 3, "group": 1, "kernel_shape": (1,) * 3, "pads": (0,) * 6, "strides": (1,) * 3}, (1, 3, 4, 4, 4)),
    "transposed": (nn.ConvTranspose2d(8, 6, 3, stride=2, padding=1, output_padding=1, groups=2), IMAGE, "ConvTranspose",
                   {"dilations": (1, 1), "group": 2, "kernel_shape": (3, 3), "output_padding": (1, 1), "pads": (1,) * 4,
                        "strides": (2, 2)}, (1, 6, 12, 12)),
    "batch norm": (nn.BatchNorm2d(8), IMAGE, "BatchNormalization", {}, IMAGE),
    "batch norm without scale": (nn.BatchNorm2d(8, affine=False), IMAGE, "BatchNormalization", {}, IMAGE),
    "batch norm 1d": (nn.BatchNorm1d(8), (1, 8), "BatchNormalization", {}, (1, 8)),
    "layer norm": (nn.LayerNorm(8), TOKENS, "LayerNormalization", {"axis": -1}, TOKENS),
    "layer norm of two axes": (nn.LayerNorm((5, 8)), TOKENS, "LayerNormalization", {"axis": -2}, TOKENS),
    "layer norm without bias": (nn.LayerNorm(8, bias=False), TOKENS, "LayerNormalization", {"axis": -1}, TOKENS),
    "rms norm": (nn.RMSNorm(8), TOKENS, "RMSNormalization", {"axis": -1}, TOKENS),
    "group norm": (nn.GroupNorm(2, 8), IMAGE, "GroupNormalization", {"num_groups": 2}, IMAGE),
    "instance norm": (nn.InstanceNorm2d(8, affine=True), IMAGE, "InstanceNormalization", {}, IMAGE),
    "relu": (nn.ReLU(), IMAGE, "Relu", {}, IMAGE), "relu in place": (nn.ReLU(inplace=True), IMAGE, "Relu", {}, IMAGE),
    "relu6": (nn.ReLU6(), IMAGE, "Clip", {"max": 6.0, "min": 0.0}, IMAGE),
    "leaky relu": (nn.LeakyReLU(0.2), IMAGE, "LeakyRelu", {"alpha": 0.2}, IMAGE),
    "leaky relu, default": (nn.LeakyReLU(), IMAGE, "LeakyRelu", {}, IMAGE),
    "elu": (nn.ELU(), IMAGE, "Elu", {}, IMAGE), "selu": (nn.SELU(), IMAGE, "Selu", {}, IMAGE),
    "prelu": (nn.PReLU(8), IMAGE, "PRelu", {}, IMAGE),
    "gelu": (nn.GELU(), IMAGE, "Gelu", {}, IMAGE),
    "gelu tanh": (nn.GELU("tanh"), IMAGE, "Gelu", {"approximate": "tanh"}, IMAGE),
    "silu": (nn.SiLU(), IMAGE, "Swish", {}, IMAGE), "hardswish": (nn.Hardswish(), IMAGE, "HardSwish", {}, IMAGE),
    "mish": (nn.Mish(), IMAGE, "Mish", {}, IMAGE), "sigmoid": (nn.Sigmoid(), IMAGE, "Sigmoid", {}, IMAGE),
    "hardsigmoid": (nn.Hardsigmoid(), IMAGE, "HardSigmoid", {"alpha": 0.166667}, IMAGE),
    "tanh": (nn.Tanh(), IMAGE, "Tanh", {}, IMAGE), "softplus": (nn.Softplus(), IMAGE, "Softplus", {}, IMAGE),
    "softmax": (nn.Softmax(-1), TOKENS, "Softmax", {"axis": 2}, TOKENS),
    "log softmax": (nn.LogSoftmax(1), TOKENS, "LogSoftmax", {"axis": 1}, TOKENS),
    "max pool": (nn.MaxPool2d(3, 2, 1, ceil_mode=True), IMAGE, "MaxPool", {
        "ceil_mode": True, "kernel_shape": (3, 3), "pads": (1,) * 4, "strides": (2, 2)}, (1, 8, 4, 4)),
    "average pool": (nn.AvgPool2d(2), IMAGE, "AveragePool", {
        "ceil_mode": False, "count_include_pad": False, "kernel_shape": (2, 2), "pads": (0,) * 4, "strides": (2, 2)},
        (1, 8, 3, 3)),
    "average pool with pads": (nn.AvgPool2d(3, 1, 1), IMAGE, "AveragePool", {
        "ceil_mode": False, "count_include_pad": True, "kernel_shape": (3, 3), "pads": (1,) * 4, "strides": (1, 1)}, IMAGE),
    "adaptive to one": (nn.AdaptiveAvgPool2d(1), IMAGE, "GlobalAveragePool", {}, (1, 8, 1, 1)),
    "adaptive max to one": (nn.AdaptiveMaxPool2d(1), IMAGE, "GlobalMaxPool", {}, (1, 8, 1, 1)),
    "adaptive that divides": (nn.AdaptiveAvgPool2d(2), IMAGE, "AveragePool", {
        "ceil_mode": False, "count_include_pad": False, "kernel_shape": (3, 3), "pads": (0,) * 4, "strides": (3, 3)},
        (1, 8, 2, 2)),
    "adaptive that does not divide": (nn.AdaptiveAvgPool2d(4), IMAGE, "AveragePool", {"output_size": (4, 4)}, (1, 8, 4, 4)),
    "mean of image": (lambda x: x.mean((2, 3)), IMAGE, "GlobalAveragePool", {}, (1, 8, 1, 1)),
    "mean of image, kept": (lambda x: x.mean((-1, -2), keepdim=True), IMAGE, "GlobalAveragePool", {}, (1, 8, 1, 1)),
    "mean of tokens": (lambda x: x.mean(1), TOKENS, "ReduceMean", {"axes": (1,)}, (1, 1, 8)),
    "sum": (lambda x: x.sum(), TOKENS, "ReduceSum", {"axes": (0, 1, 2)}, (1, 1, 1)),
    "amax": (lambda x: x.amax(-1), TOKENS, "ReduceMax", {"axes": (2,)}, (1, 5, 1)),
    "argmax": (lambda x: x.argmax(-1), TOKENS, "ArgMax", {"axis": 2}, (1, 5, 1)),
    "norm": (lambda x: x.norm(dim=-1), TOKENS, "ReduceL2", {"axes": (2,)}, (1, 5, 1)),
    "cumsum": (lambda x: x.cumsum(1), TOKENS, "CumSum", {"axis": 1}, TOKENS),
    "linear": (nn.Linear(8, 3), TOKENS, "Gemm", {}, (1, 5, 3)),
    "linear without bias": (nn.Linear(8, 3, bias=False), (1, 8), "Gemm", {}, (1, 3)),
    "add a number": (lambda x: x + 2.5, IMAGE, "Add", {"scalar": 2.5}, IMAGE),
    "subtract a number": (lambda x: x - 2, IMAGE, "Add", {"scalar": -2.0}, IMAGE),
    "multiply by a number": (lambda x: 3 * x, IMAGE, "Mul", {"scalar": 3.0}, IMAGE),
    "divide by a number": (lambda x: x / 3, IMAGE, "Mul", {"scalar": 0.333333}, IMAGE),
    "number minus": (lambda x: 1 - x, IMAGE, "Sub", {"scalar": 1.0, "scalar_first": True}, IMAGE),
    "number from a tensor": (lambda x: x * torch.tensor(0.5), IMAGE, "Mul", {"scalar": 0.5}, IMAGE),
    "power": (lambda x: x ** 2, IMAGE, "Pow", {"scalar": 2.0}, IMAGE),
    "clamp": (lambda x: x.clamp(min=0.1), IMAGE, "Clip", {"min": 0.1}, IMAGE),
    "compare": (lambda x: x > 0.5, IMAGE, "Greater", {"scalar": 0.5}, IMAGE),
    "slice": (lambda x: x[:, :, 1:, 1:], IMAGE, "Slice", {"axes": (2, 3), "ends": (6, 6), "starts": (1, 1)}, (1, 8, 5, 5)),
    "slice of a slice": (lambda x: x[:, 2:][:, 1:4], IMAGE, "Slice", {
        "axes": (1,), "ends": (6,), "starts": (3,)}, (1, 3, 6, 6)),
    "slice with steps": (lambda x: x[:, :, ::2, 1::2], IMAGE, "Slice", {
        "axes": (2, 3), "ends": (6, 6), "starts": (0, 1), "steps": (2, 2)}, (1, 8, 3, 3)),
    "negative slice": (lambda x: x[..., -2:], IMAGE, "Slice", {"axes": (3,), "ends": (6,), "starts": (4,)}, (1, 8, 6, 2)),
    "select": (lambda x: x[:, 0], TOKENS, "Slice", {"axes": (1,), "ends": (1,), "starts": (0,)}, (1, 1, 8)),
    "narrow": (lambda x: x.narrow(1, 2, 3), TOKENS, "Slice", {"axes": (1,), "ends": (5,), "starts": (2,)}, (1, 3, 8)),
    "pad": (lambda x: F.pad(x, (1, 2, 0, 3)), IMAGE, "Pad", {"pads": (0, 0, 0, 1, 0, 0, 3, 2)}, (1, 8, 9, 9)),
    "reflect": (nn.ReflectionPad2d(1), IMAGE, "Pad", {"mode": "reflect", "pads": (0, 0, 1, 1, 0, 0, 1, 1)}, (1, 8, 8, 8)),
    "upsample": (nn.Upsample(scale_factor=2), IMAGE, "Resize", {"mode": "nearest"}, (1, 8, 12, 12)),
    "bilinear": (lambda x: F.interpolate(x, (4, 4), mode="bilinear"), IMAGE, "Resize", {"mode": "linear"}, (1, 8, 4, 4)),
    "bilinear, corners": (lambda x: F.interpolate(x, (4, 4), mode="bilinear", align_corners=True), IMAGE, "Resize",
                          {"mode": "linear", "coordinate_transformation_mode": "align_corners"}, (1, 8, 4, 4)),
    "pixel shuffle": (nn.PixelShuffle(2), IMAGE, "DepthToSpace", {"blocksize": 2, "mode": "CRD"}, (1, 2, 12, 12)),
    "pixel unshuffle": (nn.PixelUnshuffle(2), IMAGE, "SpaceToDepth", {"blocksize": 2}, (1, 32, 3, 3)),
    "expand": (lambda x: x.expand(3, -1, -1), TOKENS, "Expand", {}, (3, 5, 8)),
    "repeat": (lambda x: x.repeat(1, 2, 1), TOKENS, "Tile", {"repeats": (1, 2, 1)}, (1, 10, 8)),
    "roll": (lambda x: x.roll((1, 2), (1, 2)), TOKENS, "Roll", {"axes": (1, 2), "shifts": (1, 2)}, TOKENS),
    "flip": (lambda x: x.flip(1), TOKENS, "Slice", {"axes": (1,), "ends": (-6,), "starts": (-1,), "steps": (-1,)}, TOKENS),
    "windows along an axis": (lambda x: x.unfold(2, 3, 1), IMAGE, "Gather", {"axis": 2}, (1, 8, 4, 3, 6)),
    "strided view": (lambda x: x.as_strided((5, 3), (8, 1)), (40,), "Gather", {"axis": 0}, (5, 3)),
    "fold": (nn.Fold((6, 6), 2, stride=2, padding=1), (1, 32, 16), "ScatterElements", {
        "dilations": (1, 1), "kernel_shape": (2, 2), "pads": (1, 1, 1, 1), "reduction": "add", "strides": (2, 2)}, IMAGE),
    "diagonal": (lambda x: x.diagonal(dim1=2, dim2=1), TOKENS, "GatherND", {"axes": (1, 2)}, (1, 5)),
    "take": (lambda x: x.take(torch.tensor([1, 7])), (40,), "Gather", {"axis": 0}, (2,)),
    "rows of a constant mask": (lambda x: x[:, torch.tensor([True, False, True, False, True])], TOKENS, "Gather",
                                {"axis": 1}, (1, 3, 8)),
    "any": (lambda x: x.any(-1), TOKENS, "ReduceMax", {"axes": (2,)}, (1, 5, 1)),
    "power of two": (lambda x: x.exp2(), TOKENS, "Pow", {"scalar": 2.0, "scalar_first": True}, TOKENS),
    "unique": (lambda x: x.unique(), (40,), "TopK", {"axis": 0, "k": 40, "largest": False}, (40,)),
    "rrelu": (nn.RReLU(0.1, 0.3), IMAGE, "LeakyRelu", {"alpha": 0.2}, IMAGE),
    "affine grid": (lambda x: F.affine_grid(x, (1, 8, 6, 4), False), (1, 2, 3), "AffineGrid", {}, (1, 6, 4, 2)),
    "result given": (lambda x: torch.exp(x, out=torch.empty(1, 5, 8, device="meta")), TOKENS, "Exp", {}, TOKENS),
    "copy of a view": (lambda x: torch.slice_copy(x, 1, 0, 2), TOKENS, "Slice", {
        "axes": (1,), "ends": (2,), "starts": (0,)}, (1, 2, 8)),
    "gather": (lambda x: x[:, torch.tensor([0, 3])], TOKENS, "Gather", {"axis": 1}, (1, 2, 8)),
    "matmul with itself": (lambda x: x @ x.transpose(1, 2), TOKENS, "MatMul", {}, (1, 5, 5)),
    "einsum": (lambda x: torch.einsum("bij,bkj->bik", x, x), TOKENS, "Einsum", {
        "equation": "bij,bkj->bik", "macs": 5 * 5 * 8}, (1, 5, 5)),
}


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")  # torch says that its own kernel may copy
@pytest.mark.parametrize("name", SINGLE)
def test_one_operator(name: str) -> None:
    model, shape, op, attrs, out = SINGLE[name]
    graph = graph_of(model, shape)
    assert graph.ops == ["Input", op]
    node = graph.nodes[1]
    assert (dict(node.attrs), node.out_shape) == (attrs, out)
    assert node.in_shapes[0] == shape


@pytest.mark.parametrize(("model", "shape"), [
    (nn.Dropout(), IMAGE), (nn.Identity(), IMAGE), (nn.Flatten(), IMAGE), (lambda x: x.permute(0, 2, 3, 1), IMAGE),
    (lambda x: x.reshape(2, -1).t(), IMAGE), (lambda x: x.to(torch.float16), IMAGE), (lambda x: x.double(), IMAGE),
    (lambda x: x.contiguous().clone().detach(), IMAGE), (lambda x: 0 + x, IMAGE), (lambda x: sum([x]), IMAGE),
    (lambda x: x * 1, IMAGE), (lambda x: x / 1 - 0, IMAGE), (lambda x: x.transpose(1, 2).contiguous().view(8, 5), TOKENS),
    (lambda x: x.unsqueeze(0).squeeze(), TOKENS), (lambda x: x[:, :], TOKENS), (lambda x: torch.cat([x]), TOKENS),
    (lambda x: x.expand(1, 5, 8), TOKENS), (nn.AdaptiveAvgPool2d(6), IMAGE), (lambda x: F.pad(x, (0, 0)), IMAGE),
    (lambda x: x.unfold(2, 3, 3).unfold(3, 2, 2), IMAGE), (lambda x: x.as_strided((40,), (1,)), TOKENS),
    (lambda x: torch.view_as_real(torch.view_as_complex(x)), (1, 5, 2)), (lambda x: torch.permute_copy(x, (2, 0, 1)), TOKENS),
    (lambda x: x.data, IMAGE), (lambda x: x.chunk(1)[0], TOKENS), (lambda x: F.interpolate(x, (6, 6)), IMAGE),
])
def test_what_computes_nothing_makes_no_node(model: Any, shape: tuple[int, ...]) -> None:
    assert graph_of(model, shape).ops == ["Input"]
    assert graph_of(Of(lambda self, x: self.after(self.model(x)), model=model if isinstance(model, nn.Module) else Of(model),
                       after=nn.ReLU()), shape).ops == ["Input", "Relu"]


SEVERAL = {
    "sum of three": (lambda x: x.relu() + x.tanh() + x.sigmoid(), [IMAGE], "Add Add Input Relu Sigmoid Tanh"),
    "python sum": (lambda x: sum([x.relu(), x.tanh()]), [IMAGE], "Add Input Relu Tanh"),
    "in place add": (lambda x: x.relu().add_(x), [IMAGE], "Add Input Relu"),
    "rsqrt": (lambda x: x.rsqrt(), [IMAGE], "Input Reciprocal Sqrt"),
    "number by": (lambda x: 2 / x, [IMAGE], "Input Mul Reciprocal"),
    "alpha": (lambda x: torch.add(x, x.relu(), alpha=2), [IMAGE], "Add Input Mul Relu"),
    "unfold": (nn.Unfold(3, padding=1), [IMAGE], "Gather Gather Input Pad"),
    "tangent": (lambda x: x.tan(), [IMAGE], "Cos Div Input Sin"),
    "where, with a number in a tensor": (lambda x: torch.where(x > 0, torch.zeros(()), x), [IMAGE], "Greater Input Where"),
    "hard shrink": (nn.Hardshrink(), [IMAGE], "Abs Greater Input Where"),
    "soft shrink": (nn.Softshrink(), [IMAGE], "Abs Add Input Mul Relu Sign"),
    "infinite or not": (lambda x: x.isinf(), [IMAGE], "Abs Equal Input"),
    "logit": (lambda x: x.logit(0.01), [IMAGE], "Clip Div Input Log Sub"),
    "distances": (lambda x, y: torch.cdist(x, y), [TOKENS, (1, 3, 8)], "Input Input ReduceL2 Sub"),
    "median": (lambda x: x.median(1).values, [TOKENS], "Input Slice TopK"),
    "median of all": (lambda x: x.median(), [TOKENS], "Input Slice TopK"),
    "buckets": (lambda x: torch.bucketize(x, torch.tensor([0.0, 1.0])), [TOKENS], "Constant Greater Input ReduceSum"),
    "places in order": (lambda x, y: torch.searchsorted(x, y, right=True), [(4, 9), (4, 2)],
                        "Input Input Less Not ReduceSum"),
    "mask": (lambda x: x[x > 0], [TOKENS], "GatherND Greater Input NonZero"),
    "masked select": (lambda x: x.masked_select(x[..., :1] > 0), [TOKENS],
                      "Expand GatherND Greater Input NonZero Slice"),
    "write where a mask is true": (lambda x: _write_masked(x), [TOKENS], "Constant Greater Input ScatterND Where"),
    "rows that are not zero": (lambda x, y: x[torch.where(y)[0]], [(5, 8), (5,)], "Gather Input Input NonZero"),
    "two index tensors": (lambda x, i: x[:, i.long(), i.long() + 1], [TOKENS, (2,)], "Add Concat GatherND Input Input"),
    "maximum and back": (lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2), [IMAGE],
                         "Constant Input MaxPool MaxPool ScatterElements"),
    "loop over what differs": (lambda x: sum((x == v).float() for v in x.unique()), [(40,)], "Equal Input Slice TopK"),
    "bag": (Of(lambda self, x: self.bag(x.long()), bag=nn.EmbeddingBag(10, 4)), [(3, 2)], "Embedding Input ReduceMean"),
    "weights from the input, transposed": (lambda x, w: F.conv_transpose2d(x, w), [IMAGE, (8, 2, 3, 3)],
                                           "ConvTranspose Input Input"),
    "fourier and back": (lambda x: torch.fft.irfft2(torch.fft.rfft2(x, norm="ortho"), norm="ortho"), [TOKENS],
                         "DFT DFT DFT DFT Input Mul Mul"),
    "fourier and back, other norm": (lambda x: torch.fft.ifft(torch.fft.fft(x)).real, [TOKENS], "DFT DFT Input Slice"),
    "complex product": (lambda x, y: torch.view_as_real(torch.view_as_complex(x) * torch.view_as_complex(y)),
                        [(1, 5, 2)] * 2, "Add Concat Input Input Mul Mul Mul Mul Slice Slice Slice Slice Sub"),
    "complex by real": (lambda x, y: torch.view_as_real(torch.view_as_complex(x) * y), [(1, 5, 2), (1, 5)],
                        "Input Input Mul"),
    "size of a complex number": (lambda x: torch.view_as_complex(x).abs(), [(1, 5, 2)], "Input ReduceL2"),
    "fourier": (lambda x: torch.view_as_real(torch.fft.rfft(x)), [TOKENS], "DFT Input"),
    "polar": (lambda x, y: torch.view_as_real(torch.polar(x, y)), [(5,)] * 2, "Concat Cos Input Input Mul Mul Sin"),
    "outside the table, in place": (lambda x: x.clone().renorm_(2, 1, 1.0), [TOKENS],
                                    "Add Greater Input Mul Reciprocal ReduceL2 Where"),
    "glu": (nn.GLU(1), [IMAGE], "Input Mul Sigmoid Slice Slice"),
    "standard deviation": (lambda x: x.std(1), [TOKENS], "Input Pow ReduceMean ReduceMean Sqrt Sub"),
    "max with position": (lambda x: x.max(1), [TOKENS], "ArgMax Input ReduceMax"),
    "max value only": (lambda x: x.max(1).values, [TOKENS], "Input ReduceMax"),
    "cat of chunks": (lambda x: torch.cat(x.split((2, 5, 1), 1)[::-1], 1), [IMAGE], "Concat Input Slice Slice Slice"),
    "halves changed over": (lambda x: torch.cat(x.chunk(2, 1)[::-1], 1), [IMAGE], "Input Roll"),
    "unused chunk": (lambda x: x.chunk(4, 1)[1], [IMAGE], "Input Slice"),
    "split": (lambda x: [p.relu() for p in x.split([3, 5], 1)], [IMAGE], "Input Relu Relu Slice Slice"),
    "stack": (lambda x: torch.stack([x, x.relu()]), [IMAGE], "Concat Input Relu"),
    "unbind": (lambda x: x.unbind(1)[0] * x.unbind(1)[1], [TOKENS], "Input Mul Slice Slice"),
    "sort": (lambda x: x.sort(1).values, [TOKENS], "Input TopK"),
    "two inputs": (lambda x, y: x @ y, [(1, 2, 3), (1, 3, 4)], "Input Input MatMul"),
    "where": (lambda x: torch.where(x > 0, x, -x), [IMAGE], "Greater Input Neg Where"),
    "greater or equal": (lambda x: x >= 0, [IMAGE], "Input Less Not"),
    "mask made in forward": (lambda x: x.masked_fill(torch.ones(5, 8) > 0, -1.0), [TOKENS], "Constant Input Where"),
    "attention": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v), [(1, 2, 5, 4)] * 3,
                  "Input Input Input MatMul MatMul Mul Softmax"),
    "causal attention": (lambda q: F.scaled_dot_product_attention(q, q, q, is_causal=True), [(1, 2, 5, 4)],
                         "Add Constant Input MatMul MatMul Mul Softmax"),
    "lstm": (nn.LSTM(8, 6, batch_first=True), [TOKENS], "Input LSTM Slice"),
    "lstm, sequence only, two layers": (Of(lambda self, x: self.rnn(x)[0], rnn=nn.LSTM(8, 6, 2, bidirectional=True)),
                                        [TOKENS], "Input LSTM LSTM"),
    "gru": (Of(lambda self, x: self.rnn(x)[0], rnn=nn.GRU(8, 6)), [TOKENS], "GRU Input"),
    "transformer layer": (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True), [TOKENS],
                          "Add Add Gemm Gemm Gemm Gemm Input LayerNormalization LayerNormalization MatMul MatMul Mul Relu "
                          "Slice Slice Slice Softmax"),
    "squeeze and excite": (Of(lambda self, x: x * self.gate(x), gate=nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 2, 1), nn.ReLU(), nn.Conv2d(2, 8, 1), nn.Sigmoid())), [IMAGE],
        "Conv Conv GlobalAveragePool Input Mul Relu Sigmoid"),
    "channel shuffle": (nn.Sequential(nn.ChannelShuffle(2), nn.ReLU()), [IMAGE], "Input Relu"),
    "in place through a view": (lambda x: _in_place_through_a_view(x), [TOKENS], "Input Mul Relu"),
    "data of a part": (lambda x: x[:, :3].data.tanh(), [TOKENS], "Input Slice Tanh"),
    "data of an expanded part": (lambda x: x.expand(8, 2)[:4].data.tanh(), [(8, 1)], "Expand Input Slice Tanh"),
    "written part": (lambda x: _write(x), [TOKENS], "Input Relu ScatterND Slice"),
    "composite outside the table": (lambda x, y: torch.cosine_similarity(x, y, dim=-1), [TOKENS, TOKENS],
                                    "Clip Clip Constant Div Div Input Input Mul ReduceL2 ReduceL2 ReduceSum"),
}


def _in_place_through_a_view(x: Any) -> Any:
    y = x * 2
    y.view(-1).relu_()
    return y


def _write(x: Any) -> Any:
    y = x.clone()
    y[:, 0] = x[:, 1].relu()
    return y


def _write_masked(x: Any) -> Any:
    y = x.clone()
    y[x > 0.5] = 2.0
    y[:, 0] = 3.0
    return y


@pytest.mark.parametrize("name", SEVERAL)
def test_several_operators(name: str) -> None:
    model, shapes, ops = SEVERAL[name]
    assert " ".join(sorted(graph_of(model, *shapes).ops)) == ops


def test_batch_norm_and_conv_agree_with_the_builder_node_by_node() -> None:
    b = GraphBuilder()
    x = b.input((1, 3, 9, 9))
    y = b.max_pool(b.relu(b.batch_norm(b.conv2d(x, 8, kernel=3, stride=2, bias=True))), 3, 2, 1)
    z = b.avg_pool(b.conv2d(y, 8, kernel=3, dilation=2, groups=8), 2, 1, 0)
    direct = b.build(b.linear(b.global_avg_pool(b.add(b.slice(y, (2, 3), (1, 1)), z)), 4))
    body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    branch = nn.Sequential(nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8, bias=False), nn.AvgPool2d(2, 1))
    model = Of(lambda self, x: self.tail(self.body(x)), body=body, tail=Of(
        lambda self, y: self.head((y[:, :, 1:, 1:] + self.branch(y)).mean((2, 3))), branch=branch, head=nn.Linear(8, 4)))
    assert graph_of(model, (1, 3, 9, 9)) == direct


def test_costs_of_attention_and_recurrence_follow_from_the_formulas() -> None:
    heads, length, width = 2, 5, 4
    graph = graph_of(lambda q: F.scaled_dot_product_attention(q, q, q), (1, heads, length, width))
    assert graph.macs == 2 * heads * length * length * width
    scale = next(n for n in graph.nodes if n.op == "Mul")
    assert scale.attr("scalar") == 0.5
    lstm = graph_of(Of(lambda self, x: self.rnn(x)[0], rnn=nn.LSTM(8, 6, batch_first=True, bidirectional=True)), TOKENS)
    assert lstm.macs == 5 * 2 * 4 * 6 * (8 + 6)
    assert lstm.nodes[1].out_shape == (1, 5, 12)


def test_same_graph_whatever_the_spelling() -> None:
    """Spellings of one computation that users mix freely."""
    def spellings(*functions: Callable[..., Any], shape: tuple[int, ...] = TOKENS) -> None:
        assert len({graph_of(f, shape) for f in functions}) == 1

    spellings(lambda x: x / 4, lambda x: x * 0.25, lambda x: 0.25 * x, lambda x: x.mul(0.25))
    spellings(lambda x: x - 1, lambda x: x + -1, lambda x: x.add(-1))
    spellings(lambda x: x[:, 0], lambda x: x[:, :1].squeeze(1), lambda x: x.select(1, 0), lambda x: x.unbind(1)[0])
    spellings(lambda x: x.mean((2, 3)), lambda x: F.adaptive_avg_pool2d(x, 1), lambda x: x.mean((-1, -2), True),
              shape=IMAGE)
    spellings(lambda x: x * x.mean((2, 3), True), lambda x: x.mean((2, 3), True) * x, shape=IMAGE)
    spellings(lambda x: x.relu() + x, lambda x: x + x.relu(), lambda x: x.relu().add_(x))
    weight = nn.Linear(8, 3, bias=False)
    assert graph_of(Of(lambda self, x: x @ self.linear.weight.t(), linear=weight), TOKENS) == graph_of(weight, TOKENS)
