"""Every operator that ONNX tests itself: the results have the shapes that its test cases expect."""

from __future__ import annotations

import warnings
from collections import Counter
from math import prod
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("torch")

from onnx import numpy_helper  # noqa: E402

from extract import ExtractionError, ExtractionWarning, from_onnx  # noqa: E402

pytestmark = pytest.mark.slow
FLOATS = (1, 10, 11, 16)
# Operators whose result is as long as values tell (the graph holds the most there can be), or a sequence.
VALUES_TELL = {"NonMaxSuppression", "NonZero", "SplitToSequence", "Compress", "Unique", "QuantizeLinear",
               "DynamicQuantizeLinear"}
# Errors that name a reason: version 8 of Scan; results without any input; sizes that are inputs.
REFUSED = ("Scan before version 9", "depends on its inputs", "depends on the values", "has no inputs", "input_shapes gives",
           "do not use")


def static(case: Any) -> tuple[Any, dict[str, Any]] | None:
    """The model of a case with all inputs but the first float one (and other float matrices) as initializers."""
    model, (inputs, _) = onnx.ModelProto.FromString(case.model.SerializeToString()), case.data_sets[0]
    kinds = [i.type.tensor_type.elem_type if i.type.HasField("tensor_type") else 8 for i in model.graph.input]
    if 8 in kinds or any(isinstance(v, onnx.TensorProto) for v in inputs):
        return None
    first = next((k for k, kind in enumerate(kinds) if kind in FLOATS), 0)
    recurrent = any(n.op_type in ("LSTM", "GRU", "RNN") for n in model.graph.node)  # whose weights are never inputs
    shapes = {}
    for k, (info, value) in enumerate(zip(model.graph.input, inputs, strict=False)):
        array = np.asarray(value)
        if k == first or (kinds[k] in FLOATS and array.ndim > 1 and not recurrent):
            shapes[info.name] = array.shape
        else:
            model.graph.initializer.append(numpy_helper.from_array(array, info.name))
    return model, shapes


def test_results_have_the_shapes_that_onnx_expects() -> None:
    """More than 1,400 cases; each extracted, or refused for one of the reasons above."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        cases = [c for c in collect_testcases(None) if c.model is not None and c.data_sets]
    seen: Counter[str] = Counter()
    wrong: list[str] = []
    for case in cases:
        made = static(case)
        if made is None:
            continue
        ops = {n.op_type for n in made[0].graph.node}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExtractionWarning)
                found = from_onnx(made[0], made[1], not_trained=["*"])
        except ExtractionError as error:
            seen["refused"] += 1
            if not any(reason in str(error) for reason in REFUSED):
                wrong.append(f"{case.name}: {error}")
            continue
        if ops & VALUES_TELL or found.unknown:
            continue
        seen["same"] += 1
        expected = [prod(np.asarray(o).shape) for o in case.data_sets[0][1] if not isinstance(o, list)]
        sizes = [prod(found.graph.nodes[int(o)].out_shape) for o in found.graph.outputs]
        if expected and not set(sizes) <= set(expected):
            wrong.append(f"{case.name}: sizes {sizes} instead of {expected}")
    assert not wrong, "\n".join(wrong[:20])
    assert seen["same"] > 1_400
