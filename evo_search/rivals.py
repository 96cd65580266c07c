"""The predictors that ``cg compare`` knows by name: what each reads of a network and how a fresh one is made.

What each one is: ``docs/rivals.md``. A third party's predictor is a ``Rival`` of one's own, given to ``compare``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cg.errors import CGError

VIEWS = ("graph", "cell", "pruned", "native")
FAMILIES = ("nasbench101", "nasbench201", "nasbench301")


@dataclass(frozen=True)
class Rival:
    """One row of a comparison.

    Attributes:
        name: how it is asked for.
        view: what it reads of a network: ``"graph"`` (``cg.Graph``), ``"cell"`` (``cg.Cell``),
            ``"pruned"`` (a cell without what computes nothing, ``cg.cells.pruned``), ``"native"`` (one-hot rows).
        make: ``(seed, family of the target) -> a fresh regressor``.
        group: ``"cheap"`` (a second at most), ``"learned"`` (trains a network or reads others' labels) or ``"dear"`` (runs
            every network that it scores).
        label_units: whether it predicts in the unit of the labels; else scores that only order (the same attribute of the
            regressor's class says so to a search).
        without_cells: name of the one that a search takes instead where the space has no cells; ``None`` reads graphs there.
    """

    name: str
    view: str
    make: Callable[[int, str], Any]
    group: str = "learned"
    label_units: bool = True
    without_cells: str | None = None

    def __post_init__(self) -> None:
        if self.view not in VIEWS:
            raise CGError(f"rival {self.name!r}: view must be one of {', '.join(VIEWS)}, got {self.view!r}")


def baseline(name: str, seed: str | None = "random_state", **settings: Any) -> Callable[[int, str], Any]:
    """Maker of ``finetune.baselines.<name>``, imported when it is called."""
    def make(number: int, family: str) -> Any:
        from finetune import baselines

        return getattr(baselines, name)(**settings, **({seed: number} if seed else {}))

    return make


def _default(number: int, family: str) -> Any:
    """``CGPredictor`` that has seen nothing of the target's family."""
    from finetune import CGPredictor

    if family in FAMILIES:
        return CGPredictor(None, [f for f in FAMILIES if f != family], number)
    return CGPredictor(random_state=number)


RIVALS: dict[str, Rival] = {r.name: r for r in (
    Rival("random", "graph", baseline("RandomScore"), "cheap", label_units=False),
    Rival("params", "graph", baseline("CostScore", None, cost="params"), "cheap", label_units=False),
    Rival("macs", "graph", baseline("CostScore", None, cost="macs"), "cheap", label_units=False),
    Rival("trees", "graph", baseline("TreesOnStatistics"), "cheap", label_units=False),
    Rival("native-ridge", "native", baseline("NativeEncoding", model="ridge"), "cheap", label_units=False),
    Rival("native-gp", "native", baseline("NativeEncoding", model="gp"), "cheap", label_units=False),
    Rival("random-forest", "cell", baseline("RandomForestPredictor"), "cheap", label_units=False),
    Rival("mlp", "cell", baseline("MLPPredictor"), label_units=False),
    Rival("lstm", "pruned", baseline("LSTMPredictor"), label_units=False),
    Rival("gates", "pruned", baseline("GATES"), label_units=False),
    Rival("neural-predictor", "pruned", baseline("NeuralPredictor", blank_new=True)),
    Rival("neural-predictor-2stage", "pruned", baseline("NeuralPredictor", two_stage=True, blank_new=True)),
    Rival("brp", "pruned", baseline("BRPBinaryRelation", blank_new=True), label_units=False),
    Rival("gnn", "graph", baseline("GNNPredictor")),
    Rival("default", "graph", _default),
    Rival("proxies", "graph", baseline("ProxyForest"), "dear", label_units=False),
)}


def groups() -> dict[str, tuple[str, ...]]:
    """Names of the groups and what is in them; ``all`` leaves the dear ones out."""
    found = {kind: tuple(n for n, r in RIVALS.items() if r.group == kind) for kind in ("cheap", "learned", "dear")}
    return {"all": tuple(n for n, r in RIVALS.items() if r.group != "dear"), **found}


def choose(names: str | Sequence[str]) -> list[Rival]:
    """Rivals by name or group, in the order asked for, each once. Raises ``CGError`` listing what there is."""
    words = [w.strip() for w in names.split(",")] if isinstance(names, str) else list(names)
    known, found = groups(), dict[str, Rival]()
    for word in filter(None, words):
        if word not in known and word not in RIVALS:
            raise CGError(f"there is no predictor {word!r}; groups: {', '.join(known)}; predictors: {', '.join(RIVALS)}")
        for name in known.get(word, (word,)):
            found[name] = RIVALS[name]
    if not found:
        raise CGError(f"name at least one predictor; groups: {', '.join(known)}; predictors: {', '.join(RIVALS)}")
    return list(found.values())
