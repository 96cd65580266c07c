"""Handlers of products: MatMul, and Einsum as a matrix product wherever it is one."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from extract.extraction import ExtractionError
from extract.tensorflow_values import Value

if TYPE_CHECKING:
    from extract.tensorflow_graph import Node
    from extract.tensorflow_program import Call


def matmul(call: Call) -> Value:
    """MatMul and BatchMatMul of two tensors that depend on the input, or of two constants."""
    node = call.node
    a, b = call.value(0).plain(), call.value(1).plain()
    if node.attr("transpose_a") or node.attr("adj_x"):
        a = a.transpose(-1, -2)
    if node.attr("transpose_b") or node.attr("adj_y"):
        b = b.transpose(-1, -2)
    return Value.of(torch.matmul(a, b))


def _terms(node: Node, ranks: list[int]) -> tuple[list[str], str]:
    """The letters of each operand and of the result, ``…`` written out."""
    left, arrow, right = str(node.attr("equation", "")).replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow or len(terms) != len(ranks):
        raise ExtractionError(f"{node}: field 'equation' is {node.attr('equation')!r} for {len(ranks)} operands")
    free = [c for c in "zyxwvutsrqponmlkjihgfedcbaZYXWVUTSRQPONMLKJIHGFEDCBA" if c not in left]
    dots = max([r - len(t.replace("...", "")) for t, r in zip(terms, ranks, strict=True) if "..." in t], default=0)
    if dots > len(free):
        raise ExtractionError(f"{node}: field 'equation' has too many axes")
    filler = "".join(free[:dots])
    written = []
    for term, rank in zip(terms, ranks, strict=True):
        mine = rank - len(term.replace("...", ""))
        written.append(term.replace("...", filler[dots - mine:] if mine > 0 else ""))
    if any(len(t) != r for t, r in zip(written, ranks, strict=True)):
        raise ExtractionError(f"{node}: field 'equation' does not fit operands of ranks {ranks}")
    return written, right.replace("...", filler)


def einsum(call: Call) -> Value:
    """Two operands: a matrix product with the axes in groups (batch, rows, columns), as in attention. Else einsum."""
    values = [call.value(i) for i in range(len(call))]
    terms, out = _terms(call.node, [v.rank for v in values])
    if len(values) == 1 and sorted(terms[0]) == sorted(out) and len(set(out)) == len(out):
        return values[0].transposed([terms[0].index(c) for c in out])
    simple = len(values) == 2 and all(len(set(t)) == len(t) for t in (*terms, out))
    simple = simple and set(out) <= set(terms[0]) | set(terms[1])
    if simple:
        a, b = terms
        batch = [c for c in out if c in a and c in b]
        inner = [c for c in a if c in b and c not in out]
        rows, columns = ([c for c in out if c in t and c not in batch] for t in (a, b))
        if inner and all(c in b or c in out for c in a) and all(c in a or c in out for c in b):
            x, y = values
            if rows and columns and out.index(columns[0]) < out.index(rows[0]):
                x, y, a, b, rows, columns = y, x, b, a, columns, rows
            return _product(x, y, a, b, out, batch, rows, columns, inner)
    equation = ",".join(terms) + "->" + out
    return Value.of(torch.einsum(equation, *[v.plain() for v in values]))


def _product(x: Value, y: Value, a: str, b: str, out: str, batch: list[str], rows: list[str], columns: list[str],
             inner: list[str]) -> Value:
    size = {c: d for term, v in ((a, x), (b, y)) for c, d in zip(term, v.shape, strict=True)}

    def count(letters: list[str]) -> int:
        return prod(size[c] for c in letters)

    left = x.plain().permute([a.index(c) for c in (*batch, *rows, *inner)])
    right = y.plain().permute([b.index(c) for c in (*batch, *inner, *columns)])
    outer = [size[c] for c in batch]
    if len(rows) != 1 or len(inner) != 1:
        left = left.reshape(*outer, count(rows), count(inner))
    if len(columns) != 1 or len(inner) != 1:
        right = right.reshape(*outer, count(inner), count(columns))
    result = torch.matmul(left, right)
    made = [*batch, *rows, *columns]
    if len(rows) != 1 or len(columns) != 1:
        result = result.reshape([size[c] for c in made])
    return Value(result, tuple(made.index(c) for c in out))


def dense_einsum(call: Call, node: Node, x: Value, w: Value) -> Value:
    """``EinsumDense``: a product with a trained tensor is a linear layer on the axes that are summed."""
    (a, b), out = _terms(node, [x.rank, w.rank])
    inner = [c for c in a if c in b and c not in out]
    columns = [c for c in b if c not in a]
    rows = [c for c in a if c not in b]
    fits = (inner and columns and not set(a) & set(b) & set(out) and out == "".join([*rows, *columns])
            and a == "".join([*rows, *inner]) and all(len(set(t)) == len(t) for t in (a, b, out)))
    bias = call.maybe("bias")
    if fits:
        size = dict(zip(b, w.shape, strict=True))
        width = prod(size[c] for c in columns)
        matrix = w.plain().permute([b.index(c) for c in (*columns, *inner)]).reshape(width, -1)
        t = x.plain()
        t = t if len(inner) == 1 else t.reshape(*t.shape[:len(rows)], -1)
        vector = bias.plain().reshape(-1) if bias is not None and bias.tensor.numel() == width else None
        y = F.linear(t, matrix, vector)
        value = Value.of(y if len(columns) == 1 else y.reshape(*y.shape[:-1], *(size[c] for c in columns)))
        if bias is None or vector is not None:
            return value
    else:
        call.node, kept = node, call.node
        value = einsum(call)
        call.node = kept
    if bias is None:
        return value
    tensors, order = call.aligned(value, bias)
    return Value(torch.add(*tensors), order)
