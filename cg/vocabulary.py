"""The closed, versioned vocabulary of primitive operators: ONNX operator names, and what kind of work each one does.

An operator outside it becomes ``Unknown``: it is counted and reported, never dropped. Changing the order or the content
of ``OPS`` means a new ``VERSION``; encoders record the version they were trained with and refuse another one.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

VERSION: Final = 1

# Category -> operators. The category is what global statistics aggregate over (16 of them; keep the order).
_BY_CATEGORY: Final[dict[str, tuple[str, ...]]] = {
    "source": ("Input", "Constant"),
    "conv": ("Conv", "ConvTranspose"),
    "dense": ("Gemm", "MatMul", "Einsum", "Embedding"),
    "norm": ("BatchNormalization", "LayerNormalization", "GroupNormalization", "InstanceNormalization",
             "RMSNormalization", "LpNormalization", "LRN"),
    "act": ("Relu", "LeakyRelu", "PRelu", "Elu", "Celu", "Selu", "Gelu", "Mish", "Swish", "HardSwish", "HardSigmoid",
            "Sigmoid", "Tanh", "Softplus", "Softsign", "Clip", "ThresholdedRelu", "Erf"),
    "softmax": ("Softmax", "LogSoftmax", "Hardmax"),
    "maxpool": ("MaxPool", "GlobalMaxPool", "LpPool"),
    "avgpool": ("AveragePool", "GlobalAveragePool", "ReduceMean"),
    "add": ("Add", "Sub", "Sum"),
    "mul": ("Mul", "Div", "Pow", "Sqrt", "Exp", "Log", "Abs", "Neg", "Reciprocal", "Max", "Min", "Mean", "Floor", "Ceil",
            "Round", "Sign", "Sin", "Cos", "Mod"),
    "concat": ("Concat",),
    "move": ("Slice", "Pad", "Transpose", "Reshape", "Expand", "Tile", "Gather", "GatherElements", "ScatterElements",
             "ScatterND", "GatherND", "DepthToSpace", "SpaceToDepth", "Roll", "Range", "OneHot", "Trilu"),
    "resize": ("Resize", "GridSample", "AffineGrid"),
    "reduce": ("ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSumExp", "CumSum",
               "ArgMax", "ArgMin", "TopK"),
    "recurrent": ("LSTM", "GRU", "RNN"),
    "other": ("Where", "Equal", "Greater", "Less", "And", "Or", "Not", "NonMaxSuppression", "RoiAlign", "NonZero", "DFT",
              "STFT", "DeformConv", "Unknown"),
}

OPS: Final[tuple[str, ...]] = tuple(op for ops in _BY_CATEGORY.values() for op in ops)
OP_INDEX: Final = MappingProxyType({op: i for i, op in enumerate(OPS)})
CATEGORIES: Final[tuple[str, ...]] = tuple(_BY_CATEGORY)
CATEGORY_OF: Final = MappingProxyType({op: c for c, ops in enumerate(_BY_CATEGORY.values()) for op in ops})

# Operators for which the order of arguments does not change the result.
COMMUTATIVE: Final = frozenset({"Add", "Mul", "Sum", "Max", "Min", "Mean", "And", "Or", "Equal"})
SOURCES: Final = frozenset({"Input", "Constant"})
# Least and greatest number of tensor arguments, where it is not exactly one. None: no upper limit.
ARITY: Final = MappingProxyType({
    "Input": (0, 0), "Constant": (0, 0), "Range": (0, 3),
    "Add": (1, 2), "Sub": (1, 2), "Mul": (1, 2), "Div": (1, 2), "Pow": (1, 2), "Mod": (1, 2), "MatMul": (1, 2),
    "Sum": (1, None), "Max": (1, None), "Min": (1, None), "Mean": (1, None), "Concat": (1, None), "Einsum": (1, None),
    "Where": (1, 3), "Equal": (1, 2), "Greater": (1, 2), "Less": (1, 2), "And": (1, 2), "Or": (1, 2),
    "Gather": (1, 2), "GatherElements": (1, 2), "GatherND": (1, 2), "ScatterElements": (1, 3), "ScatterND": (1, 3),
    "GridSample": (1, 2), "LSTM": (1, 4), "GRU": (1, 3), "RNN": (1, 3), "NonMaxSuppression": (1, 5), "RoiAlign": (1, 3),
    "DeformConv": (1, 3), "Conv": (1, 2), "ConvTranspose": (1, 2), "PRelu": (1, 2), "Expand": (1, 2), "Clip": (1, 3),
    "Unknown": (0, None),
})


def arity(op: str) -> tuple[int, int | None]:
    """Least and greatest number of tensor arguments of ``op`` (weights are not arguments)."""
    return ARITY.get(op, (1, 1))
