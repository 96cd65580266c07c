"""The operator vocabulary: closed, consistent, and not to be changed without a new version."""

from __future__ import annotations

import hashlib

import pytest

from cg import NodeSpec
from cg.errors import GraphError
from cg.vocabulary import ARITY, CATEGORIES, CATEGORY_OF, COMMUTATIVE, OP_INDEX, OPS, SOURCES, VERSION, arity

# Ours on purpose: frameworks have them as one operator, ONNX only as several or not at all.
NOT_ONNX = {"Input", "Embedding", "Roll", "Unknown"}
CONTENT = {1: "0dde645eb5ac8c56"}


def test_content_belongs_to_the_version() -> None:
    """Encoders store weights by operator index, so any change of order or content must come with a new VERSION."""
    text = ";".join(f"{op}:{CATEGORY_OF[op]}" for op in OPS)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == CONTENT[VERSION]


def test_tables_agree_with_each_other() -> None:
    assert len(OPS) == len(set(OPS)) == len(OP_INDEX) == len(CATEGORY_OF)
    assert [OPS[i] for i in OP_INDEX.values()] == list(OP_INDEX)
    assert len(CATEGORIES) == 16
    assert set(CATEGORY_OF.values()) == set(range(16))
    assert set(ARITY) | COMMUTATIVE | SOURCES <= set(OPS)


def test_arity_fits_the_other_properties() -> None:
    for op in OPS:
        low, high = arity(op)
        assert low >= 0
        assert high is None or high >= low
    for op in COMMUTATIVE:
        assert arity(op)[1] in (2, None), op
    assert all(arity(op) == (0, 0) for op in SOURCES)
    assert {op for op in OPS if arity(op)[0] == 0} == SOURCES | {"Range", "Unknown"}


def test_not_commutative_operators_are_not_listed() -> None:
    assert not COMMUTATIVE & {"Sub", "Div", "Pow", "Mod", "MatMul", "Concat", "Where", "Greater", "Less", "Gather"}


def test_names_are_those_of_onnx() -> None:
    onnx = pytest.importorskip("onnx", reason="needs onnx")
    known = {s.name for s in onnx.defs.get_all_schemas_with_history()}
    newest = {"RMSNormalization", "Swish"} - known  # came with operator sets 23 and 24
    assert set(OPS) - known - newest == NOT_ONNX


def test_operator_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(GraphError, match=r"'Foo' is not in the vocabulary; use 'Unknown'"):
        NodeSpec("Foo", (), (1, 2))


@pytest.mark.parametrize(("op", "n", "message"), [
    ("Relu", 2, "Relu takes 1 tensors, got 2"), ("Add", 3, "Add takes 1 to 2 tensors, got 3"),
    ("Concat", 0, "Concat takes 1 to any number tensors, got 0"), ("Input", 1, "Input takes 0 tensors, got 1"),
])
def test_wrong_number_of_tensors_is_refused(op: str, n: int, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        NodeSpec(op, ((1, 2),) * n, (1, 2))


@pytest.mark.parametrize(("change", "message"), [
    ({"op": "Relu", "out_shape": (1, -1)}, "negative dimension"),
    ({"op": "MaxPool", "attrs": (("kernel_shape", 3),)}, "kernel_shape must be a tuple"),
    ({"op": "MaxPool", "attrs": (("strides", ()),)}, "strides must be a tuple"),
    ({"op": "Gemm"}, "Gemm needs a weight_shape"),
])
def test_specs_that_no_column_could_be_computed_for_are_refused(change: dict, message: str) -> None:
    """Costs and features are columns over all specs of a process: a bad one must never get in."""
    with pytest.raises(GraphError, match=message):
        NodeSpec(**{"in_shapes": ((1, 8),), "out_shape": (1, 8), **change})
