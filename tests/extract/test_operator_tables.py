"""docs/operators.md is what the operator tables say, and what it says of a handler is what the handler writes."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("onnx")

from extract import onnx_ops, tensorflow_ops, torch_ops

DOCS = Path(__file__).resolve().parents[2] / "docs"
sys.path.insert(0, str(DOCS))
import make_operators  # noqa: E402  (a script, not a package)


def test_operators_page_is_current() -> None:
    said = (DOCS / "operators.md").read_text(encoding="utf-8")
    assert said == make_operators.page(), "run python docs/make_operators.py"


@pytest.mark.parametrize("table", [torch_ops, onnx_ops, tensorflow_ops])
def test_lists_do_not_overlap_and_every_entry_has_a_reason(table: object) -> None:
    ignored, unsupported = table.IGNORED, table.UNSUPPORTED  # type: ignore[attr-defined]
    assert not set(table.HANDLED) & set(unsupported)  # type: ignore[attr-defined]
    assert not set(ignored) & set(unsupported)
    assert all(len(reason) > 10 for reason in [*ignored.values(), *unsupported.values()])


@pytest.mark.parametrize(("op", "made"), [
    ("conv2d", ["Conv", "Add"]),                    # by a helper that it calls; a bias that depends on the input is added
    ("relu", ["Relu"]), ("rsqrt", ["Sqrt", "Reciprocal"]),  # by the closure of a factory
    ("select", ["Slice"]),                          # by a method of the recorder
    ("adaptive_avg_pool2d", ["AveragePool", "GlobalAveragePool"]),  # said by hand
])
def test_what_a_pytorch_operator_becomes(op: str, made: list[str]) -> None:
    assert set(make_operators.becomes(torch_ops.HANDLED[op])) == set(made)


@pytest.mark.parametrize(("op", "made"), [("Sqrt", "Sqrt"), ("Sub", "Sub"), ("MatMul", "MatMul"), ("DeformConv", "DeformConv")])
def test_an_onnx_operator_becomes_what_its_pytorch_call_becomes(op: str, made: str) -> None:
    assert made in make_operators.becomes(onnx_ops.HANDLED[op])
