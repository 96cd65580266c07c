"""Widths that must agree: unknown sizes, linear forms of them, and equations between them.

A dimension of a tensor is a number that stays as it is, or a sum of coefficients times variables (the widths that may change).
Equations are solved as they come; what cannot be solved this simply is fixed, so that too little changes rather than too much.
Knows nothing of operators.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction

Dim = int | tuple[tuple[int, Fraction | int], ...]
"""A fixed size, or ``sum(coefficient * variable)`` with variables in ascending order; variable 0 is the number one."""
ONE = 0


class Ties:
    """Variables with their present sizes, and what is known of them."""

    def __init__(self) -> None:
        self.sizes: list[int] = [1]  # of variable i
        self._bound: dict[int, Dim] = {}

    def fresh(self, size: int) -> Dim:
        """A new width; a size of one stays, because tensors of one value a row are repeated along it."""
        if size <= 1:
            return size
        self.sizes.append(size)
        return ((len(self.sizes) - 1, 1),)

    def resolve(self, dim: Dim) -> Dim:
        """``dim`` in variables of which nothing is known."""
        if isinstance(dim, int) or not any(v in self._bound for v, _ in dim):
            return dim
        parts: list[tuple[Dim, Fraction | int]] = []
        for v, c in dim:
            if v in self._bound:
                self._bound[v] = self.resolve(self._bound[v])
            parts.append((self._bound.get(v, ((v, 1),)), c))
        return combine(parts)

    def fix(self, *dims: Dim) -> None:
        """These sizes stay as they are."""
        for dim in dims:
            found = self.resolve(dim)
            if not isinstance(found, int):
                self._bound.update((v, self.sizes[v]) for v, _ in found if v != ONE)

    def tie(self, a: Dim, b: Dim) -> None:
        """``a`` and ``b`` are equal."""
        a, b = self.resolve(a), self.resolve(b)
        if a == b:
            return
        for x, y in ((a, b), (b, a)):
            if not isinstance(x, int) and len(x) == 1 and x[0][0] != ONE:
                (v, c), = x
                if isinstance(y, int) or all(w != v for w, _ in y):
                    self._bound[v] = combine([(y, Fraction(1) / c)])
                    return
        self.fix(a, b)

    def value(self, dim: Dim, new: Mapping[int, int]) -> Fraction | int:
        """Size of ``dim`` where variables have the sizes ``new``, and the others their present ones."""
        dim = self.resolve(dim)
        if isinstance(dim, int):
            return dim
        return sum(c * (1 if v == ONE else new.get(v, self.sizes[v])) for v, c in dim)

    def variable(self, dim: Dim) -> tuple[int, Fraction | int] | None:
        """``(v, c)`` where ``dim`` is ``c * v``, else ``None``."""
        dim = self.resolve(dim)
        return dim[0] if not isinstance(dim, int) and len(dim) == 1 and dim[0][0] != ONE else None


def combine(parts: Iterable[tuple[Dim, Fraction | int]]) -> Dim:
    """``sum(factor * dim)``."""
    total: dict[int, Fraction | int] = {}
    for dim, factor in parts:
        for v, c in ((ONE, dim),) if isinstance(dim, int) else dim:
            total[v] = total.get(v, 0) + c * factor
    kept = tuple(sorted((v, int(c) if c == int(c) else c) for v, c in total.items() if c))
    if not kept:
        return 0
    if len(kept) == 1 and kept[0][0] == ONE and isinstance(kept[0][1], int):
        return kept[0][1]
    return kept


def is_free(dims: Iterable[Dim]) -> bool:
    """Whether one of ``dims`` is no number."""
    return any(not isinstance(d, int) for d in dims)
