"""Handlers of products of matrices: matmul, einsum, attention. See ``torch_math`` for the conventions."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod, sqrt
from typing import Any

from torch import Tensor

from extract.torch_math import combine
from extract.torch_recorder import Recorder, Ref


def matmul(r: Recorder, out: Tensor, x: Tensor, y: Tensor) -> Ref:
    """A trained matrix on the right is a linear layer (``Gemm``), however it is written."""
    if y.ndim == 2 and not r.is_live(y) and r.params_in(y) and x.ndim >= 2:
        return r.node("Gemm", [x], out.shape, [y], (y.shape[1], y.shape[0]))
    return r.node("MatMul", [x, y], out.shape)


def add_matmul(r: Recorder, out: Tensor, bias: Tensor, x: Tensor, y: Tensor, beta: float = 1, alpha: float = 1) -> Ref:
    """``beta * bias + alpha * x @ y`` (addmm, baddbmm)."""
    trained = y.ndim == 2 and not r.is_live(y) and r.params_in(y)
    if trained and beta == alpha == 1 and bias.ndim == 1 and not r.is_live(bias):
        return r.node("Gemm", [x], out.shape, [y, bias], (y.shape[1], y.shape[0]), True)
    product = combine(r, "Mul", out.shape, matmul(r, out, x, y), alpha)
    return product if beta == 0 else r.node("Add", [product, combine(r, "Mul", bias.shape, bias, beta)], out.shape)


def inner(r: Recorder, out: Tensor, x: Tensor, y: Tensor) -> Ref:
    """Over the last axes of both."""
    if not x.ndim or not y.ndim:
        return combine(r, "Mul", out.shape, x, y)
    columns = r.ref(y).node, (y.shape[-1], y.numel() // max(y.shape[-1], 1))
    rows = (x.numel() // max(x.shape[-1], 1), x.shape[-1])
    return r.node("MatMul", [Ref(r.ref(x).node, rows), Ref(*columns)], (rows[0], columns[1][1]))


def bilinear(r: Recorder, out: Tensor, x: Tensor, y: Tensor, weight: Tensor, bias: Tensor | None = None) -> Ref:
    """``nn.Bilinear``: one contraction of two inputs with a trained cube."""
    value = einsum(r, out, "...i,oij,...j->...o", [x, weight, y])
    return value if bias is None else r.node("Add", [value, bias], out.shape)


def einsum(r: Recorder, out: Tensor, equation: str, operands: Sequence[Tensor], path: Any = None) -> Ref:
    """One node with its multiply-adds: the product of the sizes of all letters (one contraction, no better order)."""
    sizes: dict[str, int] = {}
    for term, x in zip(equation.replace(" ", "").split("->")[0].split(","), operands, strict=True):
        letters = term.replace("...", "")
        dots = x.ndim - len(letters)
        axes = [*letters] if "..." not in term else [
            *term.split("...")[0], *(f".{dots - i}" for i in range(dots)), *term.split("...")[1]]
        for letter, size in zip(axes, x.shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    macs = prod(sizes.values()) if len(operands) > 1 else 0
    return r.node("Einsum", list(operands), out.shape, equation=equation.replace(" ", ""), macs=macs)


def attention(r: Recorder, out: Tensor, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
              dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
              enable_gqa: bool = False) -> Ref:
    """scaled_dot_product_attention as MatMul, Mul, (mask,) Softmax, MatMul. Source: arXiv 1706.03762, Eq. 1.

    A boolean mask is a ``Where`` between scores and minus infinity; any other mask, and the causal one, is an ``Add``.
    """
    keys = Ref(r.ref(key).node, (*key.shape[:-2], key.shape[-1], key.shape[-2]))
    shape = (*query.shape[:-1], key.shape[-2])
    scores = r.node("MatMul", [query, keys], shape)
    scores = combine(r, "Mul", shape, scores, 1 / sqrt(query.shape[-1]) if scale is None else scale)
    if attn_mask is not None:
        boolean = attn_mask.dtype.is_floating_point is False
        scores = (r.node("Where", [attn_mask, scores], shape, otherwise=float("-inf")) if boolean
                  else r.node("Add", [scores, attn_mask], shape))
    if is_causal:
        mask = query.new_empty(shape[-2:])
        scores = r.node("Add", [scores, mask], shape)
    weights = r.node("Softmax", [scores], shape, axis=len(shape) - 1)
    return r.node("MatMul", [weights, value], out.shape)
