"""How fast the parts are, each beside a named peer in the same run.

    python benchmarks/speed.py                      # everything -> results/speed.json
    python benchmarks/speed.py --part build --part predict

Parts (what is inside the clock): ``build`` genome -> graph + features + spectrum, one core, fresh networks (peer: tracing
the torch module); ``spectrum`` (peer: numpy's dense solver); ``statistics`` of ready graphs, one core; ``predict``
CGPredictor.predict on ready graphs, 2 threads; ``few`` a fit on 50 labels and a prediction of 5,000, by default and ``fast``;
``score`` 100,000 Once-for-All networks from genome to score in chunks of 5,000, 2 threads;
``pretrain`` optimiser steps of both configurations after a warm-up step, 2 threads; ``import`` a fresh
interpreter's ``import cg``; ``memory`` peak RSS of preparing and training on 60,000 graphs, in a process of its own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import _record
import numpy as np

from cg import GraphSet, features, spectrum
from cg.recent_statistics import forget
from cg.spectra import dense_spectrum
from evo_search import get_space

SPACES = ("nasbench201", "nasbench101", "nasbench301")
SCORED = 100_000


def best_of(times: int, work: Callable[[], None]) -> float:
    """Shortest wall time in seconds of ``times`` runs."""
    spent = []
    for _ in range(times):
        t = time.perf_counter()
        work()
        spent.append(time.perf_counter() - t)
    return min(spent)


def build() -> dict[str, Any]:
    """Graphs per second of builder + features + spectrum, and of tracing."""
    from cg import spectra
    from extract import from_torch

    out: dict[str, Any] = {}
    for name in SPACES:
        space, rng = get_space(name), np.random.default_rng(0)
        genomes = [space.sample(rng) for _ in range(1000)]
        traced = [space.to_torch(a) for a in genomes[:10]]
        for a in genomes[:20]:
            features(space.to_graph(a))
            spectrum(space.to_graph(a))
        from_torch(traced[0], (1, 3, 32, 32))

        def all_parts(space: Any = space, genomes: Any = genomes) -> None:
            spectra._cache.clear()
            for a in genomes:
                g = space.to_graph(a)
                features(g)
                spectrum(g)

        seconds = best_of(3, all_parts)
        trace = best_of(3, partial(_trace, traced))
        out[name] = {"graphs_per_s": len(genomes) / seconds, "traced_per_s": len(traced) / trace,
                     "ratio": len(genomes) / seconds * trace / len(traced)}
    return out


def solver() -> dict[str, Any]:
    """Spectra per second, ours and numpy's."""
    from cg import spectra

    out: dict[str, Any] = {}
    for name in SPACES:
        space, rng = get_space(name), np.random.default_rng(1)
        graphs = [space.to_graph(space.sample(rng)) for _ in range(200)]

        def ours(graphs: Any = graphs) -> None:
            spectra._cache.clear()
            for g in graphs:
                spectrum(g)

        dense = best_of(2, partial(_dense, graphs))
        mine = best_of(3, ours)
        out[name] = {"per_s": len(graphs) / mine, "dense_per_s": len(graphs) / dense, "ratio": dense / mine}
    return out


def statistic() -> dict[str, Any]:
    """Graphs per second of ``cg.statistics`` on random networks of a space, and on real models."""
    from cg import statistics

    out: dict[str, Any] = {}
    for name in (*SPACES, "ofa-mbv3"):
        space, rng = get_space(name), np.random.default_rng(4)
        graphs = [space.to_graph(space.sample(rng)) for _ in range(1000)]
        statistics(graphs[:10])
        seconds = best_of(3, partial(statistics, graphs))
        out[name] = {"graphs_per_s": len(graphs) / seconds, "nodes": float(np.mean([g.n_nodes for g in graphs]))}
    return out


def few() -> dict[str, Any]:
    """Seconds of a fit on 50 labels and a prediction of 5,000 networks, everything included."""
    from evo_search import targets
    from finetune.protocol import draw

    out: dict[str, Any] = {}
    for name in ("nasbench201-all", "nasbench101"):
        graphs = targets.pool(name)
        labelled, test = draw(graphs, 50, 0, 5000)
        sources = [f for f in targets.FAMILIES if f != targets.get_target(name).family]
        known, y = [graphs.graphs[i] for i in labelled], graphs.label()[labelled]
        chosen = [graphs.graphs[i] for i in test]
        for kind, settings in (("default", {"sources": sources}), ("fast", {"fast": True})):
            work = partial(_fit_and_predict, settings, known, y, chosen)
            work()
            out[f"{name}, {kind}"] = {"seconds": best_of(2, work), "graphs": len(chosen)}
    return out


def predict() -> dict[str, Any]:
    """Graphs per second of ``CGPredictor.predict``."""
    import torch

    from evo_search import targets
    from finetune import CGPredictor
    from finetune.protocol import draw

    torch.set_num_threads(2)
    out: dict[str, Any] = {}
    for name in ("nasbench201-all", "nasbench101", "nasbench301"):
        target, graphs = targets.get_target(name), targets.pool(name)
        labelled, test = draw(graphs, target.n_labels, 0, 5000)
        sources = [f for f in targets.FAMILIES if f != target.family]
        for label, encoder in (("default", None), ("with encoder", f"default-without-{target.family}")):
            CGPredictor(encoder, ()).fit(graphs.graphs[:5], graphs.label()[:5])  # compiles, imports
            model = CGPredictor(encoder, sources, 0)
            forget()
            t = time.perf_counter()
            model.fit([graphs.graphs[i] for i in labelled], graphs.label()[labelled])
            fit_s = time.perf_counter() - t
            chosen = [graphs.graphs[i] for i in test]
            model.predict(chosen[:50])
            seconds = best_of(2, partial(_drop, model, chosen))
            out[f"{name}, {label}"] = {"graphs_per_s": len(chosen) / seconds, "graphs": len(chosen), "fit_s": fit_s}
    return out


def score() -> dict[str, Any]:
    """Seconds from genome to score, with and without the encoder, and how well both order networks that are not labelled."""
    import torch

    from evo_search.ofa import AutoBuildOracle
    from evo_search.spaces.ofa import OFAMobileNetV3Wide
    from finetune import CGPredictor
    from finetune.metrics import spearman

    torch.set_num_threads(2)
    space, rng = OFAMobileNetV3Wide(resolutions=AutoBuildOracle.resolutions), np.random.default_rng(0)
    genomes, oracle = [space.sample(rng) for _ in range(SCORED + 50)], AutoBuildOracle("mbv3")
    labels = np.array([oracle(a) for a in genomes[:1050]])
    out: dict[str, Any] = {"networks": SCORED}
    for name, encoder in (("seconds", None), ("seconds_with_encoder", "default")):
        model = CGPredictor(encoder).fit([space.to_graph(a) for a in genomes[:50]], labels[:50])
        model.predict([space.to_graph(a) for a in genomes[:100]])
        began, scores = time.perf_counter(), []
        for start in range(50, SCORED + 50, 5000):
            scores.append(model.predict([space.to_graph(a) for a in genomes[start:start + 5000]]))
        out[name] = time.perf_counter() - began
        out[name.replace("seconds", "spearman")] = spearman(labels[50:], np.concatenate(scores)[:1000])
    return out


def _trace(models: Any) -> None:
    from extract import from_torch

    for m in models:
        from_torch(m, (1, 3, 32, 32))


def _dense(graphs: Any) -> None:
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # faster on matrices of this size than two threads
        for g in graphs:
            dense_spectrum(g.n_nodes, g.src, g.dst)


def _fit_and_predict(settings: Any, known: Any, y: Any, chosen: Any) -> None:
    from finetune import CGPredictor

    forget()
    CGPredictor(**settings).fit(known, y).predict(chosen)


def _drop(model: Any, graphs: Any) -> None:
    forget()
    model.predict(graphs)


def training() -> dict[str, Any]:
    """Graphs per second of optimiser steps, with one and with two threads."""
    import torch

    from contrastive import EncoderConfig
    from contrastive.corpus import Corpus
    from contrastive.training import _Run

    out: dict[str, Any] = {}
    sets = {f: sample(f, 1000) for f in SPACES}
    for config in ("default", "paper"):
        for families in (SPACES, ("nasbench101", "nasbench201")):
            run = _Run(Corpus([sets[f] for f in families]), EncoderConfig.named(config), 0)
            rates = []
            for threads in (1, 2):
                torch.set_num_threads(threads)
                run.step(0)
                t = time.perf_counter()
                for step in range(1, 9):
                    run.step(step)
                rates.append(8 * run.config.batch_graphs / (time.perf_counter() - t))
            out[f"{config}: {' + '.join(families)}"] = {"graphs_per_s": rates[1], "one_thread": rates[0]}
    return out


def sample(family: str, n: int) -> GraphSet:
    """``n`` random networks of a space."""
    space, rng = get_space(family), np.random.default_rng(2)
    return GraphSet([space.to_graph(space.sample(rng)) for _ in range(n)])


def imports() -> dict[str, Any]:
    """Seconds of ``import cg`` in a fresh interpreter, interpreter start left out."""
    code = "import time; t = time.perf_counter(); import cg; print(time.perf_counter() - t)"
    command = [sys.executable, "-c", code]
    runs = [float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(5)]
    return {"import_cg_s": min(runs)}


def memory() -> dict[str, Any]:
    """Peak RSS in GB of a process that prepares 60,000 graphs and takes 3 steps."""
    code = ("import sys, resource; sys.path.insert(0, sys.argv[1]); import speed\n"
            "from contrastive import EncoderConfig\n"
            "from contrastive.corpus import Corpus\nfrom contrastive.training import _Run\n"
            "run = _Run(Corpus([speed.sample(f, 20000) for f in speed.SPACES]), EncoderConfig.named(sys.argv[2]), 0)\n"
            "[run.step(i) for i in range(3)]\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)")
    out = {}
    for config in ("default", "paper"):
        done = subprocess.run([sys.executable, "-c", code, str(_record.ROOT / "benchmarks"), config], capture_output=True,
                              text=True, check=True)
        out[f"{config}: peak_rss_gb"] = float(done.stdout.split()[-1])
    return out


PARTS = {"build": build, "spectrum": solver, "statistics": statistic, "predict": predict, "few": few, "score": score,
         "pretrain": training, "import": imports, "memory": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=tuple(PARTS), action="append")
    parser.add_argument("--name", default="speed")
    args = parser.parse_args()
    results: dict[str, Any] = {}
    for part in args.part or PARTS:
        results[part] = PARTS[part]()
        print(part, results[part], flush=True)
        _record.write(args.name, {"seed": 0, "load_average": list(os.getloadavg()), "parts": results})


if __name__ == "__main__":
    main()
