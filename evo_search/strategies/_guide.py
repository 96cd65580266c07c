"""``Guide``: a predictor as strategies use it: what it reads of a network, fitted on answers, larger scores are better.

This file must not know a particular strategy, space or oracle, and must not import a deep-learning framework.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from cg.cells import pruned
from evo_search._evolve_config import SearchError
from evo_search._records import Predicted, Query
from evo_search.objectives import Objective
from evo_search.rivals import Rival, choose
from evo_search.strategies._base import Proposal, State, Strategy, describe_predictor, predictions

if TYPE_CHECKING:
    from cg import Graph

VIEWS = ("graph", "cell", "pruned", "native", "graph+native")


def utilities(state: State, objective: Objective) -> np.ndarray:
    """Values of ``state.ok``, turned so that larger is better, float64 ``[len(ok)]``."""
    return (1.0 if objective.maximize else -1.0) * state.values(objective.name)


class Guide:
    """A regressor, and what it reads of a network.

    Args:
        predictor: any object with ``fit(networks, y)`` and ``predict(networks)``; ``fit`` must depend on its arguments and
            settings alone. It always learns that larger is better: values to be minimised change their sign. The name of one
            that ``cg compare`` knows (``evo_search.rivals``), or a ``Rival`` of one's own, makes that one, with seed 0.
        view: what it reads: ``"graph"`` (``cg.Graph``), ``"cell"`` (``space.cell``), ``"pruned"`` (``cg.cells.pruned`` of
            it), ``"native"`` (``space.native``) or ``"graph+native"`` (graphs, and ``space.native`` as their embedding: for
            predictors with an ``encoder``, as ``CGPredictor``); of a predictor by name what it reads there, or graphs in a
            space without cells; else ``"graph"``.

    Raises:
        SearchError: the predictor lacks a method, or the view is unknown.
    """

    def __init__(self, predictor: Any, view: str | None = None) -> None:
        for name in ("fit", "predict"):
            if not (isinstance(predictor, (str, Rival)) or callable(getattr(predictor, name, None))):
                raise SearchError(f"a predictor needs fit(networks, y) and predict(networks); {predictor!r} has no {name}")
        if view not in (None, *VIEWS):
            raise SearchError(f"view must be one of {', '.join(VIEWS)}, got {view!r}")
        named = choose(predictor)[0] if isinstance(predictor, str) else predictor
        self._rival = named if isinstance(named, Rival) else None
        self._given, self._asked_view = predictor, view
        self._family: str | None = None  # of the space that a predictor by name was made for
        self._model: Any = None
        self._view = view or "graph"
        self._rows = NativeRows()
        self._taught: tuple[Any, ...] = ()  # what the predictor has learned from; spares a fit, decides nothing

    def describe(self) -> dict[str, Any]:
        """JSON values that tell one guide from another; ``predicts: score`` where predictions only order."""
        rival = self._rival
        in_label_units = rival.label_units if rival else getattr(self._given, "label_units", True)
        return {"predictor": {"kind": rival.name} if rival else describe_predictor(self._given), "view": self._asked_view,
                **({} if in_label_units else {"predicts": "score"})}

    def another(self) -> Guide:
        """A guide of the same kind that shares nothing that is fitted."""
        return Guide(copy.deepcopy(self._given), self._asked_view)

    @property
    def in_units(self) -> bool:
        """Whether predictions are in the unit of what was learned."""
        return "predicts" not in self.describe()

    @property
    def model(self) -> Any:
        """The predictor, after ``fit``."""
        return self._model

    def fit(self, state: State, rows: Sequence[Query], y: np.ndarray) -> bool:
        """Learn ``y`` ``[len(rows)]``, larger being better; ``False`` while there are fewer than two different values."""
        if len(np.unique(y)) < 2:
            return False
        self._prepare(state)
        taught = (*(q.key for q in rows), y.tobytes())
        if taught != self._taught:
            self._taught = ()
            self._model.fit(self.read(state, [state.genome(q) for q in rows]), y)
            self._taught = taught
        return True

    def scores(self, state: State, genomes: Sequence[Any]) -> np.ndarray:
        """Predictions ``[n]``, larger is better; what is not a number is ``-inf``."""
        if not len(genomes):
            return np.zeros(0)
        return _checked(self._model.predict(self.read(state, genomes)), len(genomes))

    def predicted(self, state: State, genomes: Sequence[Any], objective: Objective,
                  scores: np.ndarray | None = None) -> list[Predicted]:
        """What the record keeps of chosen networks: ``predict``, turned back from "larger is better", with its deviation.

        Args:
            scores: what ``scores`` gave for them ``[n]``; used where the predictor has no ``return_std``, to ask it once only.
        """
        if not len(genomes):
            return []
        sign, std = 1.0 if objective.maximize else -1.0, None
        if "return_std" in inspect.signature(self._model.predict).parameters:
            scores, std = self._model.predict(self.read(state, genomes), return_std=True)
        elif scores is None:
            scores = self._model.predict(self.read(state, genomes))
        return predictions(objective, sign * np.asarray(scores, np.float64), std)

    def proposals(self, state: State, genomes: Sequence[Any], source: str, objective: Objective,
                  scores: np.ndarray) -> list[Proposal]:
        """Networks that were chosen by their ``scores`` ``[n]``, with what was predicted."""
        said = self.predicted(state, genomes, objective, scores)
        return [Proposal(g, source, predicted=p) for g, p in zip(genomes, said, strict=True)]

    def with_std(self, state: State, genomes: Sequence[Any], y: np.ndarray,
                 in_units: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation ``[n]`` of predictions, on a scale where the learned values ``y`` deviate by about 1.

        From ``predict_normal`` where the predictor has it; else from ``predict(return_std=True)`` or, without
        an uncertainty, ``predict``, relative to mean and deviation of ``y``. ``in_units``: the latter as they are, with
        the deviation upwards where the predictor has ``predict_bounds``.
        """
        if not len(genomes):
            return np.zeros(0), np.zeros(0)
        networks = self.read(state, genomes)
        if not in_units and callable(getattr(self._model, "predict_normal", None)):
            mean, std = self._model.predict_normal(networks)
            return _checked(mean, len(genomes)), np.nan_to_num(np.asarray(std, np.float64))
        if in_units and callable(getattr(self._model, "predict_bounds", None)):
            _, mean, above = self._model.predict_bounds(networks)
            return _checked(mean, len(genomes)), np.nan_to_num(above - mean)
        centre, scale = (0.0, 1.0) if in_units else (float(y.mean()), float(y.std()))
        if "return_std" in inspect.signature(self._model.predict).parameters:
            mean, std = self._model.predict(networks, return_std=True)
        else:
            mean, std = self._model.predict(networks), np.zeros(len(genomes))
        return (_checked(mean, len(genomes)) - centre) / scale, np.nan_to_num(np.asarray(std, np.float64)) / scale

    def read(self, state: State, genomes: Sequence[Any]) -> list[Any]:
        """What the predictor reads of each network."""
        if self._view.startswith("graph"):
            graphs = [state.graph(g) for g in genomes]
            if self._view == "graph+native":
                self._rows.remember(state, graphs, genomes)
            return graphs
        if self._view == "native":
            return [state.space.native(g) for g in genomes]
        cells = [state.space.cell(g) for g in genomes]
        return cells if self._view == "cell" else [pruned(c) for c in cells]

    def _prepare(self, state: State) -> None:
        family = state.space.family
        if self._rival is None:
            self._model = self._given
        elif self._family != family:
            self._make(state, self._rival, family)
        if self._view == "graph+native":
            if not hasattr(self._model, "encoder"):
                raise SearchError(f"the view 'graph+native' needs a predictor with an encoder; {self._model!r} has none")
            self._model.encoder = self._rows

    def _make(self, state: State, rival: Rival, family: str) -> None:
        """The predictor that was named."""
        view = self._asked_view or rival.view
        if self._asked_view is None and view in ("cell", "pruned") and not _has_cells(state):
            rival, view = choose(rival.without_cells)[0] if rival.without_cells else rival, "graph"
        self._family, self._model, self._view, self._taught = family, rival.make(0, family), view, ()


class NativeRows:
    """The space's own encoding of networks in the place of an encoder's embedding."""

    share = 1.0  # of the squared distance of statistics

    def __init__(self) -> None:
        self._known: dict[str, np.ndarray] = {}

    def remember(self, state: State, graphs: Sequence[Graph], genomes: Sequence[Any]) -> None:
        """What the encoding of each graph is; of isomorphic genomes the first one's."""
        for graph, genome in zip(graphs, genomes, strict=True):
            if graph.digest not in self._known:
                self._known[graph.digest] = np.asarray(state.space.native(genome), np.float32)

    def embed(self, graphs: Sequence[Graph]) -> np.ndarray:
        """Float32 ``[n, width]``; of graphs that were remembered."""
        return np.stack([self._known[g.digest] for g in graphs])


class GuidedStrategy(Strategy):
    """A strategy that asks ``self._guide``; another predictor or view makes another description.

    Attributes:
        config: class of its settings, made without arguments where none are given.
        learner: the predictor that is used where none is given, or its name.
    """

    config: ClassVar[type]
    learner: ClassVar[str | Rival]

    def __init__(self, predictor: Any = None, settings: Any = None, view: str | None = None) -> None:
        self.settings = settings or self.config()
        self._guide = Guide(self.learner if predictor is None else predictor, view)

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), **self._guide.describe()}


def _has_cells(state: State) -> bool:
    from evo_search.spaces._base import SearchSpace

    own = getattr(type(state.space), "cell", None)
    return own is not None and own is not SearchSpace.cell


def _checked(found: Any, n: int) -> np.ndarray:
    scores = np.asarray(found, np.float64)
    if scores.shape != (n,):
        raise SearchError(f"the predictor gave scores of shape {scores.shape} for {n} networks")
    return np.where(np.isnan(scores), -np.inf, scores)
