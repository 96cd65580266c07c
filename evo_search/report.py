"""What the report of a few-label ranking and a search says, as typed data with its summaries.

This file must not compute results (see ``evo_search.demo``) nor draw them (see ``evo_search.report_page``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cg.files import plain


@dataclass(frozen=True)
class Score:
    """One method on one draw of the labels.

    Attributes:
        method: row of the table.
        draw: number of the draw, or 0 for methods that use no labels.
        spearman, kendall: rank correlations with the truth on the networks not seen.
        fit_s, predict_s: seconds.
    """

    method: str
    draw: int
    spearman: float
    kendall: float
    fit_s: float
    predict_s: float


@dataclass(frozen=True)
class Curve:
    """One search: best value after each query ``[queries]``, and where it ended."""

    strategy: str
    seed: int
    values: tuple[float, ...]
    best: str
    best_value: float


@dataclass(frozen=True)
class Points:
    """Networks of one picture; all columns have the same length.

    Attributes:
        ids: encoded networks.
        true: measured value.
        predicted: score of the predictor.
        map_x, map_y: place in the map of embeddings.
        labelled: whether the predictor has seen the value.
    """

    ids: tuple[str, ...]
    true: tuple[float, ...]
    predicted: tuple[float, ...]
    map_x: tuple[float, ...]
    map_y: tuple[float, ...]
    labelled: tuple[bool, ...]


@dataclass(frozen=True)
class ReportData:
    """Everything the report says.

    Attributes:
        config: settings of the run.
        metric: name and unit of the values.
        networks: valid networks of the target; ``unseen``: of them not labelled (and not equal to a labelled one), per draw.
        scores: one entry for every method and draw.
        points: a random sample of networks for the pictures, predictions of the first draw.
        map_method: how the map was made.
        curves: the searches.
        best_possible: largest value in the table.
        best: the best network found: ``id, value, macs, params, nodes``.
        best_svg: its picture.
        seconds: wall time of each stage.
        reused: what came from the cache.
        versions: of everything that takes part.
    """

    config: dict[str, Any]
    metric: str
    networks: int
    unseen: tuple[int, ...]
    scores: tuple[Score, ...]
    points: Points
    map_method: str
    curves: tuple[Curve, ...]
    best_possible: float
    best: dict[str, Any]
    best_svg: str = field(repr=False)
    seconds: dict[str, float]
    reused: tuple[str, ...]
    versions: dict[str, str]

    def summary(self) -> list[dict[str, Any]]:
        """One row a method: mean and standard deviation (n - 1) over draws, best first."""
        rows = []
        for method in dict.fromkeys(s.method for s in self.scores):
            mine = [s for s in self.scores if s.method == method]
            row: dict[str, Any] = {"method": method, "draws": len(mine)}
            for name in ("spearman", "kendall", "fit_s", "predict_s"):
                values = np.array([getattr(s, name) for s in mine])
                row[name] = float(values.mean())
                row[f"{name}_std"] = float(values.std(ddof=1)) if len(values) > 1 else 0.0
            rows.append(row)
        return sorted(rows, key=lambda r: -float(r["spearman"]))

    def band(self, strategy: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean, worst and best over seeds of the best value after each query, ``[queries]`` each."""
        curves = [c.values for c in self.curves if c.strategy == strategy]
        n = min(map(len, curves))
        values = np.array([c[:n] for c in curves])
        return values.mean(0), values.min(0), values.max(0)

    def searches(self) -> list[dict[str, Any]]:
        """One row a strategy: best value over seeds, and how many seeds found the best network of all."""
        rows = []
        for strategy in dict.fromkeys(c.strategy for c in self.curves):
            best = np.array([c.best_value for c in self.curves if c.strategy == strategy])
            rows.append({"strategy": strategy, "seeds": len(best), "mean": float(best.mean()),
                         "std": float(best.std(ddof=1)) if len(best) > 1 else 0.0, "worst": float(best.min()),
                         "best": float(best.max()), "optimum_found": int((best >= self.best_possible - 1e-9).sum())})
        return rows

    def to_json(self) -> dict[str, Any]:
        """JSON values: all fields but the picture, with the summaries."""
        found: dict[str, Any] = plain(self)
        del found["best_svg"]
        return {"summary": plain(self.summary()), "searches": plain(self.searches()), **found}
