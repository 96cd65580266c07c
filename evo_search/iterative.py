"""Iterative data selection: networks to train are chosen in rounds, each by a predictor that learned from the rounds before.

    chosen = iterative_selection(cells, oracle, lambda: BRPBinaryRelation(), budget=150, learn=100, iterations=5, rng=0)
    chosen.best, chosen.best_so_far()

Source: Dudziak et al., arXiv 2007.08668, section 4 and Figure 5; where the paper leaves a number open it is that of the
authors' program (repository SamsungLabs/eagle, option ``--sample_best2``): the random part of round r is drawn from the best
``1 / 2**r`` of all networks. Different from them: every round trains a fresh predictor, theirs is trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cg.errors import CGError
from finetune.targets import MIN_LABELS


@dataclass(frozen=True)
class Selection:
    """What was asked, in order.

    Attributes:
        order: positions in the given networks, int64 ``[Q]``, no one twice.
        values: what the oracle said, float64 ``[Q]``, NaN where it failed.
        rounds: round that each query belongs to, int64 ``[Q]``: 0 is random, ``iterations`` is the final ranking.
    """

    order: np.ndarray
    values: np.ndarray
    rounds: np.ndarray

    @property
    def best(self) -> int | None:
        """Position of the network with the largest value; None if every query failed."""
        return None if np.isnan(self.values).all() else int(self.order[np.nanargmax(self.values)])

    def best_so_far(self) -> np.ndarray:
        """Largest value after each query, float64 ``[Q]``; NaN before the first that did not fail."""
        return np.fmax.accumulate(self.values) if len(self.values) else self.values


def iterative_selection(networks: Sequence[Any], oracle: Callable[[Any], float], make_predictor: Callable[[], Any], *,
                        budget: int, iterations: int = 5, learn: int | None = None, alpha: float = 0.5,
                        rng: np.random.Generator | int = 0, cost: Sequence[float] | np.ndarray | None = None,
                        limit: float | None = None) -> Selection:
    """Ask about up to ``budget`` of the networks, looking for the largest value.

    The first round is random. Every later one fits a predictor to all values known and asks about the best by score and about
    random good ones: see ``next_batch``. What is left of the budget after ``learn`` queries goes to the best by score of a last
    predictor. One iteration with ``learn < budget`` is the usual search by predictor: random networks, then the best.

    Args:
        networks: candidates; whatever oracle and predictor understand.
        oracle: network -> value, larger is better. Raising, or a number that is not finite, is a failed query; it counts.
        make_predictor: gives a fresh object with ``fit(networks, values)`` and ``predict(networks) -> scores``.
        budget: most queries; fewer if the candidates run out.
        iterations: rounds.
        learn: queries that the rounds share, all of ``budget`` if None.
        alpha: share of a round that is taken from the top.
        rng: generator or seed.
        cost: known or predicted cost of each network, such as its latency ``[B]``; with ``limit``, in the same unit, only
            networks of at most that cost are asked about. A NaN cost is over every limit.
        limit: see ``cost``.

    Raises:
        CGError: naming the argument that is out of range.
    """
    n, learn = len(networks), budget if learn is None else learn
    if not (1 <= iterations <= learn <= budget):
        raise CGError(f"need 1 <= iterations <= learn <= budget, got {iterations}, {learn} and {budget}")
    if not 0 <= alpha <= 1:
        raise CGError(f"alpha must be a share from 0 to 1, got {alpha}")
    if cost is None and limit is None:
        allowed = np.ones(n, np.bool_)
    elif cost is None or limit is None:
        raise CGError("cost and limit belong together; give both or none")
    else:
        allowed = np.asarray(cost, np.float64) <= limit
    if allowed.shape != (n,):
        raise CGError(f"cost must have one number for each of {n} networks, got shape {allowed.shape}")
    rng = np.random.default_rng(rng)
    order: list[int] = []
    values: list[float] = []
    rounds: list[int] = []
    sizes = [learn // iterations + (r < learn % iterations) for r in range(iterations)] + [budget - learn]
    for number, size in enumerate(sizes):
        open_ = np.flatnonzero(allowed)
        asked = np.isin(open_, order)
        scores = np.zeros(len(open_))
        known = [(i, v) for i, v in zip(order, values, strict=True) if np.isfinite(v)]
        learned = bool(number and size and len(known) >= MIN_LABELS and not asked.all())
        if learned:
            model = make_predictor()
            model.fit([networks[i] for i, _ in known], np.array([v for _, v in known]))
            scores = np.asarray(model.predict([networks[i] for i in open_.tolist()]), np.float64)
        share = 1.0 if number == iterations else alpha if learned else 0.0
        batch = next_batch(scores, asked, size, rng, alpha=share, among=0.5 ** number if learned else 1.0)
        for i in open_[batch].tolist():
            order.append(i)
            values.append(_ask(oracle, networks[i]))
            rounds.append(number)
    return Selection(np.array(order, np.int64), np.array(values, np.float64), np.array(rounds, np.int64))


def next_batch(scores: np.ndarray, asked: np.ndarray, size: int, rng: np.random.Generator, *, alpha: float = 0.5,
               among: float = 0.5) -> np.ndarray:
    """Positions of up to ``size`` networks to ask about next.

    ``floor(alpha * size)`` are the best by score, best first; the others are drawn from the best share ``among`` of all
    networks. Neither takes one that was asked about. Where that share has too few left, the next best fill the batch. Equal
    scores come in random order, those that are NaN last.

    Args:
        scores: of all networks ``[B]``, larger is better.
        asked: which were asked about ``[B]``.
    """
    ranking = np.lexsort((rng.random(len(scores)), -scores))
    top = ranking[~asked[ranking]][:int(alpha * size)]
    free = ~asked
    free[top] = False
    good = ranking[:int(np.ceil(among * len(ranking)))]
    good = good[free[good]]
    drawn = rng.permutation(good)[:size - len(top)]
    free[drawn] = False
    rest = ranking[free[ranking]][:size - len(top) - len(drawn)]
    return np.concatenate([top, drawn, rest])


def _ask(oracle: Callable[[Any], float], network: Any) -> float:
    try:
        value = float(oracle(network))
    except Exception:  # as everywhere in a search, an oracle that raises has failed for this network
        return float("nan")
    return value if np.isfinite(value) else float("nan")
