"""Where a width goes when a reader sees a tensor under another shape: the graph keeps both shapes, not the movement.

The movement is the one that ``extract.to_torch`` would make (``torch_build_views``). Where shapes leave open which axis holds
the width (two axes of one size, a width that is split, as heads of an attention are), the width is fixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from cg.spec import Shape
from evo_search.cgspace.ties import Dim, Ties, combine
from extract.torch_build_views import find_view

Run = list[tuple[int, Dim]]  # factors of one axis: size and dimension


def seen_as(ties: Ties, dims: Sequence[Dim], source: Shape, target: Shape) -> tuple[Dim, ...]:
    """The dimensions of ``target``, where ``source`` has ``dims``; both shapes hold as many values."""
    if source == target:
        return tuple(dims)
    long = [(s, d) for s, d in zip(source, dims, strict=True) if s != 1]
    if [s for s, _ in long] == [t for t in target if t != 1]:  # axes of one value come and go
        rest = iter(long)
        return tuple(1 if t == 1 else next(rest)[1] for t in target)
    free = [(s, d) for s, d in long if not isinstance(ties.resolve(d), int)]
    if not free:
        return target
    sizes = [s for s, _ in long]
    if len([t for t in target if t != 1]) > 1:
        ties.fix(*(d for s, d in free if sizes.count(s) > 1 or sum(t == s for t in target) > 1))
    view = find_view(source, None, target)
    if view is None:
        return tuple(dims)
    if view.factors is None or view.order is None:
        return _reshaped(ties, [(s, d) for s, d in zip(source, dims, strict=True)], target)
    moved = _factors(ties, dims, source, view.factors)
    if moved is None:
        ties.fix(*dims)
        return target
    return _reshaped(ties, [moved[i] for i in view.order], target)


def _factors(ties: Ties, dims: Sequence[Dim], source: Shape, factors: Shape) -> Run | None:
    """Dimensions of ``factors``, which are those of the axes of ``source`` one after another."""
    made: Run = []
    rest = [f for f in factors if f != 1]
    for size, dim in zip(source, dims, strict=True):
        run: list[int] = []
        while prod(run) < size and rest:
            run.append(rest.pop(0))
        if prod(run) != size:
            return None
        if len(run) > 1:
            ties.fix(dim)
        made += [(size, dim)] if len(run) == 1 else [(f, f) for f in run]
    if rest:
        return None
    found = iter(made)
    return [(1, 1) if f == 1 else next(found) for f in factors]


def _reshaped(ties: Ties, run: Run, target: Shape) -> tuple[Dim, ...]:
    """Axes of ``target``, cut from ``run`` in order. An axis holds whole factors, or a piece of one that is fixed."""
    out: list[Dim] = []
    rest = [item for item in run if item[0] != 1]
    for size in target:
        taken: Run = []
        while prod(s for s, _ in taken) < size and rest:
            taken.append(rest.pop(0))
        if prod(s for s, _ in taken) == size:
            out.append(_product(ties, taken))
            continue
        ties.fix(*(d for _, d in taken), *(d for _, d in rest))  # an axis is cut: nothing behind it is followed
        return (*out, *target[len(out):])
    return tuple(out)


def _product(ties: Ties, run: Run) -> Dim:
    """Product of the dimensions, of which one may be free."""
    dims = [ties.resolve(d) for _, d in run]
    free = [d for d in dims if not isinstance(d, int)]
    if len(free) > 1:
        ties.fix(*free)
        return prod(s for s, _ in run)
    number = prod(d for d in dims if isinstance(d, int))
    return combine([(free[0], number)]) if free else number
