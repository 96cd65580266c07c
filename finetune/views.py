"""How statistics are seen before anything is learned from them: on two scales, with two sets of weights for their groups."""

from __future__ import annotations

import numpy as np

from cg.global_statistics import GROUPS, STATISTICS

# Statistics that mean the same in any family; visits per stage and pairs of operators do not carry over.
SHARED = np.flatnonzero(~np.isin(GROUPS, ("back", "front", "pair", "hop")))
# Columns that hold log(1 + n) and have a natural scale to go back to.
_LOGARITHMIC = np.isin(GROUPS, ("path", "kind", "count", "back", "front", "pair", "hop", "flow", "visit")) & np.array(
    ["_share" not in name for name in STATISTICS])
# How much a group of statistics counts in a squared distance, a line for each view; a group that is not named counts 1. Chosen
# once for all families on development draws, the first line on cell spaces, the second on chains of blocks (docs/protocol.md).
_BOTH = {"path": 2.0, "signal": 3.0, "kind.params_share": 4.0, "kind.back": 1.5, "kind.longest": 0.7, "kind.nodes_share": 0.5,
         "shape": 0.5, "total": 0.5}
VIEWS = {
    "wiring": _BOTH | {"rf": 4.0, "pair": 2.0, "back": 2.0, "front": 0.7, "count": 0.5, "stage": 0.5, "field": 3.0,
                       "field_stage": 6.0, "flow": 12.0, "visit": 12.0},
    "size": _BOTH | {"pair": 0.5, "hop": 0.5, "back": 0.5, "front": 0.2, "count": 0.1, "stage": 2.0, "field": 6.0,
                     "field_stage": 1.5, "flow": 1.5, "visit": 6.0},
}


def scales(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics ``[B, F]`` on a logarithmic and on a natural scale."""
    log = rows.astype(np.float64)
    natural = log.copy()
    natural[:, _LOGARITHMIC] = np.expm1(natural[:, _LOGARITHMIC])
    return {"log": log, "natural": natural}


def _column_weights(view: str) -> np.ndarray:
    """Factors ``[F]`` of the standardised statistics in one view."""
    groups = []
    for name, group in zip(STATISTICS, GROUPS, strict=True):
        stage = name.startswith("field") and not name.startswith("field.")
        groups.append(("field_stage" if stage else ".".join(name.split(".")[:2]), group))
    return np.sqrt([VIEWS[view].get(fine, VIEWS[view].get(str(group), 1.0)) for fine, group in groups])


COLUMN_WEIGHTS = {view: _column_weights(view) for view in VIEWS}
