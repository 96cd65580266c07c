"""The main job from end to end on NAS-Bench-201: a few labels, a ranking of everything else, a search, a report.

``compute`` gives all numbers as ``ReportData``; ``run`` is what ``cg demo`` calls: it shows progress and writes the report.
"""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cg.errors import CGError
from evo_search._cache import Cache, code_hash
from evo_search.report import Curve, Points, ReportData, Score

if TYPE_CHECKING:
    from cg.graphset import GraphSet
    from contrastive.remembered import Remembered

Progress = Callable[[str, int, int], None]
METHOD = "cgtransfer"


@dataclass(frozen=True)
class DemoConfig:
    """Settings of the demonstration.

    Attributes:
        target: a NAS-Bench-201 table; every valid network of it is ranked.
        n_labels, draws: labels in a draw, and how many draws.
        searches, budget: seeds of each search strategy, and networks one search asks about.
        encoder: pre-trained without the target's family.
        sources: families whose labels give prior knowledge.
        networks: how many of the valid networks, at random; None: all.
        drawn: how many networks the pictures show.
    """

    target: str = "nasbench201"
    n_labels: int = 40
    draws: int = 5
    searches: int = 5
    budget: int = 90
    seed: int = 0
    encoder: str = "default-without-nasbench201"
    sources: tuple[str, ...] = ("nasbench101", "nasbench301")
    networks: int | None = None
    drawn: int = 4000


def compute(config: DemoConfig, cache: Cache, progress: Progress | None = None) -> ReportData:
    """Run the whole job. Raises ``CGError`` where settings do not fit together."""
    from cg import draw

    tell = progress or (lambda stage, done, total: None)
    seconds: dict[str, float] = {}
    data, true = _networks(config, cache, tell, seconds)
    n = len(data)
    if n <= config.n_labels + 1:
        raise CGError(f"{n} networks leave nothing to rank after {config.n_labels} labels")
    encoder = _encoder(config, data, cache, tell, seconds)
    scores, unseen, first = _rankings(config, data, true, encoder, tell, seconds)
    curves, best_possible = _searches(config, encoder, tell, seconds)
    rng = np.random.default_rng((config.seed, 99))
    shown = np.union1d(rng.permutation(n)[: config.drawn], first.labelled)
    with _timed("map", seconds):
        place, how = _map(encoder.embed([data.graphs[i] for i in shown]), config.seed)
    is_labelled = np.isin(shown, first.labelled)
    points = Points(tuple(data.ids[i] for i in shown), tuple(true[shown].tolist()),
                    tuple(first.predicted[shown].tolist()), tuple(place[:, 0].tolist()), tuple(place[:, 1].tolist()),
                    tuple(is_labelled.tolist()))
    winner = max(curves, key=lambda c: (c.strategy.startswith("guided"), c.best_value))
    from evo_search.spaces import get_space

    space = get_space(config.target)
    graph = space.to_graph(space.decode(winner.best))
    best = {"id": winner.best, "value": winner.best_value, "macs": graph.macs, "params": graph.params,
            "nodes": graph.n_nodes, "fingerprint": graph.digest}
    return ReportData(
        config={**asdict(config), "method": METHOD}, metric="test accuracy, %", networks=n, unseen=tuple(unseen),
        scores=tuple(scores), points=points, map_method=how, curves=tuple(curves), best_possible=best_possible, best=best,
        best_svg=draw.svg(graph, title=""), seconds=seconds, reused=tuple(cache.reused), versions=_versions())


@dataclass(frozen=True)
class _Draw:
    """First draw of the labels: rows that have one ``[n_labels]``, and a score for every network ``[n]``."""

    labelled: np.ndarray
    predicted: np.ndarray


def _networks(config: DemoConfig, cache: Cache, tell: Progress, seconds: dict[str, float]) -> tuple[GraphSet, np.ndarray]:
    """Graphs of the valid networks with ids, and their test accuracy in percent ``[n]``."""
    from evo_search import tables
    from evo_search.export import export

    table = tables.load(config.target)
    wanted = table.n if config.networks is None else config.networks
    key = (code_hash("cg", "evo_search.spaces"), table.n, wanted, config.seed)

    def make() -> GraphSet:
        return export(config.target, wanted, config.seed, labels=True, progress=lambda d, t: tell("graphs", d, t))

    with _timed("graphs", seconds):
        data = cache.graphs(f"graphs-{config.target}-{wanted}", key, make)
    tell("graphs", len(data), len(data))
    data = data.take(np.argsort(table.rows(data.ids)))  # the order of the table, as in the protocol
    return data, table.metrics["test_acc"][table.rows(data.ids)]


def _encoder(config: DemoConfig, data: GraphSet, cache: Cache, tell: Progress,
             seconds: dict[str, float]) -> Remembered:
    """The encoder, with the embeddings of all networks in its memory."""
    from contrastive.checkpoint import load_encoder
    from contrastive.remembered import Remembered

    distinct = {g.digest: g for g in data}
    graphs = list(distinct.values())
    with _timed("embeddings", seconds):
        encoder = load_encoder(config.encoder)
        weights = hashlib.blake2b(b"".join(p.detach().numpy().tobytes() for p in encoder.parameters())).hexdigest()

        def make() -> dict[str, np.ndarray]:
            parts = []
            for i in range(0, len(graphs), 512):
                parts.append(encoder.embed(graphs[i:i + 512]))
                tell("embeddings", min(i + 512, len(graphs)), len(graphs))
            return {"x": np.concatenate(parts)}

        key = (code_hash("cg", "contrastive"), "".join(distinct), weights)
        found = cache.arrays(f"embeddings-{config.target}-{len(data)}", key, make)["x"]
    tell("embeddings", len(graphs), len(graphs))
    return Remembered(encoder, dict(zip(distinct, found, strict=True)))


def _rankings(config: DemoConfig, data: GraphSet, true: np.ndarray, encoder: Remembered, tell: Progress,
              seconds: dict[str, float]) -> tuple[list[Score], list[int], _Draw]:
    """Every method on every draw of the labels, tested on the networks whose graph has no label."""
    from finetune import CGPredictor, metrics, protocol
    from finetune.baselines import CostScore, TreesOnStatistics

    distinct = list({g.digest: g for g in data}.values())  # isomorphic networks are scored once
    number = {g.digest: i for i, g in enumerate(distinct)}
    which = np.array([number[g.digest] for g in data])
    scores: list[Score] = []
    unseen_counts: list[int] = []
    first: _Draw | None = None
    for d in range(config.draws):
        labelled, unseen = protocol.draw(data, config.n_labels, 1000 + config.seed + d)
        unseen_counts.append(len(unseen))
        methods: dict[str, Any] = {
            METHOD: CGPredictor(encoder, sources=list(config.sources), random_state=config.seed + d),
            "trees on statistics": TreesOnStatistics(random_state=config.seed + d),
            "parameters": CostScore("params"), "MACs": CostScore("macs")}
        for m, (name, model) in enumerate(methods.items()):
            start = time.perf_counter()
            model.fit([data.graphs[i] for i in labelled], true[labelled])
            fitted = time.perf_counter()
            predicted = np.asarray(model.predict(distinct), np.float64)[which]
            end = time.perf_counter()
            scores.append(Score(name, d, metrics.spearman(true[unseen], predicted[unseen]),
                                metrics.kendall(true[unseen], predicted[unseen]), fitted - start, end - fitted))
            seconds["rankings"] = seconds.get("rankings", 0.0) + end - start
            tell("rankings", d * len(methods) + m + 1, config.draws * len(methods))
            if first is None:
                first = _Draw(labelled, predicted)
    assert first is not None
    return scores, unseen_counts, first


def _searches(config: DemoConfig, encoder: Remembered, tell: Progress,
              seconds: dict[str, float]) -> tuple[list[Curve], float]:
    """Guided evolution and random search with the same seeds and budget."""
    from evo_search.algorithm1 import evolve, random_search
    from evo_search.oracles import TableOracle
    from evo_search.spaces import get_space
    from finetune import CGPredictor

    space, oracle = get_space(config.target), TableOracle(config.target)
    curves = []
    total = 2 * config.searches * config.budget
    done = 0

    def step(*_: Any) -> None:
        nonlocal done
        done += 1
        tell("searches", done, total)

    for strategy in ("guided evolution", "random search"):
        with _timed(strategy, seconds):
            for k in range(config.searches):
                seed = config.seed + k
                if strategy == "random search":
                    found = random_search(space, oracle, config.budget, seed, progress=step)
                else:
                    guide = CGPredictor(encoder, sources=list(config.sources), random_state=seed)
                    found = evolve(space, oracle, guide, budget=config.budget, seed=seed, progress=step)
                assert found.best_encoded is not None
                assert found.best_value is not None
                curves.append(Curve(strategy, seed, tuple(found.curve.tolist()), found.best_encoded, found.best_value))
    return curves, oracle.best_possible


def _map(embeddings: np.ndarray, seed: int) -> tuple[np.ndarray, str]:
    """Two dimensions for people, ``[n, 2]``, and how they were made."""
    from sklearn.decomposition import PCA

    model = PCA(2, random_state=seed)
    scaled = (embeddings - embeddings.mean(0)) / np.maximum(embeddings.std(0), 1e-6)
    place = model.fit_transform(scaled)
    share = 100 * model.explained_variance_ratio_.sum()
    return np.asarray(place, np.float64), f"Principal components ({share:.0f} % of the variance)"


@contextmanager
def _timed(stage: str, seconds: dict[str, float]) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in ("cgtransfer", "numpy", "scipy", "torch", "torch-geometric", "scikit-learn", "plotly"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write(data: ReportData, out: str | Path) -> list[Path]:
    """``report.html`` and ``report.json`` in the folder ``out``, each complete or not there; returns their paths."""
    from cg.files import write_json, write_text
    from evo_search.report_page import page

    paths = [Path(out) / "report.html", Path(out) / "report.json"]
    write_text(paths[0], page(data))
    write_json(paths[1], data.to_json())
    return paths


def run(out: str | Path, *, use_cache: bool = True, json: bool = False, cache: Cache | None = None,
        **settings: Any) -> ReportData:
    """Compute with progress bars on stderr, write the report to ``out``, and print the result."""
    from cg import _terminal as terminal

    config = DemoConfig(**settings)
    cache = cache or Cache(enabled=use_cache)
    start = time.perf_counter()
    with terminal.stages() as tell:
        data = compute(config, cache, tell)
    paths = write(data, out)
    if cache.reused:
        terminal.note(f"reused from {cache.folder}: {', '.join(cache.reused)}")
    if json:
        terminal.emit({**data.to_json(), "written": paths})
        return data
    terminal.table(
        f"{config.n_labels} labels, {int(np.mean(data.unseen)):,} networks never seen, {config.draws} draws of the labels",
        ("method", "Spearman ρ", "Kendall τ", "fit s", "predict s"),
        [(r["method"], f"{r['spearman']:.4f} ± {r['spearman_std']:.4f}", f"{r['kendall']:.4f} ± {r['kendall_std']:.4f}",
          f"{r['fit_s']:.1f}", f"{r['predict_s']:.1f}") for r in data.summary()])
    terminal.table(
        f"search with {config.budget} queries; the best network of all has {data.best_possible:.3f} %",
        ("strategy", "mean of seeds", "worst", "best", "optimum found"),
        [(s["strategy"], f"{s['mean']:.3f} ± {s['std']:.3f}", f"{s['worst']:.3f}", f"{s['best']:.3f}",
          f"{s['optimum_found']} of {s['seeds']}") for s in data.searches()])
    terminal.console().print(f"wrote {paths[0]} and {paths[1]} in {time.perf_counter() - start:.0f} s")
    return data
