"""Which movement of values turns the shape that a node makes into the shape under which a reader sees it.

A graph contracts reshapes and permutations: all that is left of them is a pair of shapes with as many values. This file
finds the most plausible movement between the two: a reshape into factors, a permutation of them, a reshape into the
result. It is arithmetic on shapes and must not import torch.

What cannot be found, because no shape tells it: a movement between two equal shapes (a channel shuffle; the transposition
of a square matrix), and which of two equal factors stands for what (a grid of windows against windows in a grid).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import gcd, isqrt, prod

Shape = tuple[int, ...]
Piece = tuple[int, int, int]  # axis of the source, place within it from the outside in, size


@dataclass(frozen=True, slots=True)
class View:
    """A movement: reshape to ``factors``, permute by ``order``, reshape to ``shape``.

    ``batch_factor`` and ``batch`` are the positions in ``factors`` and ``shape`` that grow with the batch, ``None`` if
    nothing does. ``sound`` is False if the batch cannot be carried through, so that only the recorded size works.
    """

    factors: Shape | None
    order: tuple[int, ...] | None
    shape: Shape
    batch_factor: int | None
    batch: int | None
    sound: bool = True


def grown(shape: Shape, axis: int | None, times: int) -> Shape:
    """``shape`` with ``axis`` multiplied by ``times``."""
    if axis is None or times == 1:
        return shape
    return (*shape[:axis], shape[axis] * times, *shape[axis + 1:])


@lru_cache(maxsize=100_000)
def find_view(source: Shape, batch: int | None, target: Shape, prefer: tuple[int, int] | None = None) -> View | None:
    """The movement from ``source`` to ``target``, ``None`` if they are equal.

    Args:
        source, target: shapes with equally many values.
        batch: axis of ``source`` that carries the batch.
        prefer: ``(i, j)``: among equally simple movements take one that puts axis ``i`` of ``source`` into ``j`` of ``target``.
    """
    if source == target:
        return None
    # axes of one value are dropped, except that the batch is a factor of its own, in front of its axis
    pieces = _assign(source, target, prefer)
    out_batch = None if batch is None else _batch_axis(source, batch, target, pieces)
    if pieces is None:  # no factors fit: rows are cut where they happen to end
        if batch is None:
            return View(None, None, target, None, None)
        before = prod(source[:batch])
        fits = [j for j in range(len(target)) if prod(target[:j]) == before]
        axis = out_batch if out_batch in fits else fits[0] if fits else None
        return View(None, None, target, None, axis, axis is not None)
    labels = [(axis, place) for axis, place, _ in pieces]  # in the order of the target
    sizes = {(axis, place): size for axis, place, size in pieces}
    inside = sorted(labels)  # in the order of the source
    if batch is not None and out_batch is not None:
        mark = (batch, -1)
        sizes[mark] = 1
        inside.append(mark)
        inside.sort()
        at, done = 0, 1  # the batch goes in front of the factors of its axis of the target
        for position, (_, _, size) in enumerate(pieces):
            if done == prod(target[:out_batch]):
                at = position
                break
            done *= size
            at = position + 1
        labels.insert(at, mark)
    order = tuple(inside.index(label) for label in labels)
    factors = tuple(sizes[label] for label in inside)
    batch_factor = inside.index((batch, -1)) if batch is not None and out_batch is not None else None
    if order == tuple(range(len(order))):
        return View(None, None, target, None, out_batch, batch is None or out_batch is not None)
    return View(factors, order, target, batch_factor, out_batch, batch is None or out_batch is not None)


def _batch_axis(source: Shape, batch: int, target: Shape, pieces: list[Piece] | None) -> int | None:
    """Where the batch goes: the first axis if it is one value; with the axis that it is part of; one of the next two axes if
    that is one value; else the first. ``(3, 1, heads, tokens, width)`` and ``(tokens, 1, width)`` keep it apart,
    ``(windows, tokens, width)`` holds it.
    """
    if not target:
        return None
    if target[0] == 1 or len(target) == 1:
        return 0
    if source[batch] > 1 and pieces is not None:
        done, ends = 1, [prod(target[:j + 1]) for j in range(len(target))]
        for axis, _, size in pieces:
            if axis == batch:
                return next(j for j, end in enumerate(ends) if done < end)
            done *= size
    if len(target) > 2 and target[1] == 1:
        return 1
    if source[batch] == 1 and len(target) > 3 and target[2] == 1:
        return 2
    return 0


def _assign(source: Shape, target: Shape, prefer: tuple[int, int] | None) -> list[Piece] | None:
    """Factors ``(axis of source, place within it, size)`` in the order of ``target``; ``None`` if there are none.

    Fewest factors first; then the preferred pair of axes; then most axes of ``target`` made from one axis alone; then
    fewest inversions. Factors of one axis are used from the outside in, as ``(windows, size)`` and ``(heads, width)`` are.
    """
    if 0 in source or 0 in target:
        return None
    axes = [i for i, d in enumerate(source) if d > 1]
    goals = [(j, d) for j, d in enumerate(target) if d > 1]
    best: list[Piece] | None = None
    best_cost = (len(axes) + len(goals) + 6, 0, 0, 0)
    budget = 20_000

    def search(goal: int, left: int, rest: dict[int, int], taken: list[Piece], met: bool, low: int) -> None:
        nonlocal best, best_cost, budget
        budget -= 1
        if budget < 0 or len(taken) > best_cost[0]:
            return
        if left == 1:
            goal += 1
            if goal == len(goals):
                cost = (len(taken), 0 if met or prefer is None else 1, _mixed(taken, target), _inversions(taken))
                if cost < best_cost:
                    best, best_cost = list(taken), cost
                return
            left, low = goals[goal][1], -1
        for axis in axes:
            if axis < low or rest[axis] == 1:
                continue
            size = gcd(rest[axis], left)
            if size == 1:
                continue
            place = sum(1 for a, _, _ in taken if a == axis)
            taken.append((axis, place, size))
            rest[axis] //= size
            search(goal, left // size, rest, taken, met or prefer == (axis, goals[goal][0]), axis)
            rest[axis] *= size
            taken.pop()

    search(-1, 1, {i: source[i] for i in axes}, [], False, -1)
    return None if best is None else _patches_columns_first(_windows_of_tokens(best, source, target), source, target)


def _patches_columns_first(pieces: list[Piece], source: Shape, target: Shape) -> list[Piece]:
    """Where square patches become channels behind two spatial axes, the column within a patch varies slower than the row,
    which is how networks with merged patches (Swin, arXiv 2103.14030) are written.
    """
    if len(pieces) > 2:
        (a, p, m), (b, q, n), (c, r, k) = pieces[-3:]
        spatial = (p == q == 1 and b == a + 1) or (a == b and p == 1 and q == 3)
        if spatial and m == n and (c, r) == (b + 1, 0) and m * n * k == target[-1] and k == source[-1]:
            return [*pieces[:-3], pieces[-2], pieces[-3], pieces[-1]]
    return pieces


def _windows_of_tokens(pieces: list[Piece], source: Shape, target: Shape) -> list[Piece]:
    """Where the tokens of a square image, ``(1, L, C)``, are cut into windows, or windows are put together to such tokens,
    the windows are squares too and no runs of tokens.
    """
    if len(source) == 3:  # cut: axis 1 is (a, c, a, c), and (a, a) or a * a come first, then (c, c) or c * c
        sizes = [size for axis, _, size in pieces if axis == 1]
        outer = 2 if len(sizes) > 2 and sizes[0] == sizes[1] else 1
        grid, block = isqrt(prod(sizes[:outer])), isqrt(prod(sizes[outer:]))
        squares = [grid] * 2 if outer == 2 else [grid * grid], [block] * 2 if len(sizes) - outer == 2 else [block * block]
        if block > 1 and (grid * block) ** 2 == source[1] and sizes == [*squares[0], *squares[1]]:
            split = iter([(1, 0, grid), (1, 2, grid), (1, 1, block), (1, 3, block)])
            made: list[Piece] = []
            for piece in pieces:
                if piece[0] != 1:
                    made.append(piece)
                else:
                    made.append(next(split))
                    if piece[2] != made[-1][2]:  # a square in one piece
                        made.append(next(split))
            return made
    if len(target) == 3 and target[1] > 1:  # put together
        start = next((i for i in range(len(pieces)) if prod(p[2] for p in pieces[:i]) == target[0]), 0)
        stop = next((i for i in range(start, len(pieces) + 1) if prod(p[2] for p in pieces[start:i]) == target[1]), start)
        inside = pieces[start:stop]
        whole = all(size == source[axis] for axis, _, size in inside)
        if whole and len(inside) == 2:
            (i, _, m), (j, _, n) = inside
            a, c = isqrt(m), isqrt(n)
            if a * a == m and c * c == n and a > 1 and c > 1:
                return [*pieces[:start], (i, 0, a), (j, 0, c), (i, 1, a), (j, 1, c), *pieces[stop:]]
        if whole and len(inside) == 3 and inside[1][2] == inside[2][2]:
            (i, _, m), second, third = inside
            a = isqrt(m)
            if a * a == m and a > 1:
                return [*pieces[:start], (i, 0, a), second, (i, 1, a), third, *pieces[stop:]]
    return pieces


def _mixed(taken: list[Piece], target: Shape) -> int:
    """Axes of ``target`` that are made from more than one axis."""
    found, pieces = 0, iter(taken)
    for goal in target:
        done, axes = 1, set()
        while done < goal:
            axis, _, size = next(pieces)
            done *= size
            axes.add(axis)
        found += len(axes) > 1
    return found


def _inversions(taken: list[Piece]) -> int:
    return sum(1 for i, a in enumerate(taken) for b in taken[i + 1:] if b[:2] < a[:2])
