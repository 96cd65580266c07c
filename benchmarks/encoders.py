"""What pre-training an encoder is worth beside statistics: objectives at equal time, on families that they never saw.

    python benchmarks/encoders.py                             # -> results/encoders.json, about 4 hours of a core
    python benchmarks/encoders.py --fold cells --part train   # one half of the encoders, into runs/encoders/

Two folds: ``cells`` pre-trains on everything of ``_corpus.py`` but NAS-Bench-201 and -301 and is tested on these, ``others``
leaves out NAS-Bench-101 and Once-for-All MobileNetV3. Every objective trains for the same processor time (``SECONDS``) with the
same graphs, batch size and architecture; ``untrained`` has random weights; ``paper`` is the contrastive loss with the published
architecture, and ``with a transformer`` adds the published transformer and its positions to the k-GNN. ``ranking`` learns from
the labels of the other families (for the fold ``cells`` those of NAS-Bench-101 and of surrogates of Once-for-All), the others
from no label.

``few``   50 labels (40 of NAS-Bench-201), 10 draws, tested on up to 3,000 others. ``frozen``: Gaussian processes on the
          embedding alone; ``beside``: ``CGPredictor`` with the encoder, statistics and no sources; ``fine-tuned``:
          ``TransferNet`` from the encoder (5 draws). For the objective ``none``: ``beside`` is ``CGPredictor`` without encoder
          and sources.
``zero``  no label of the target: ``embedding``: ridge regression on the embeddings of 2,000 labelled networks of each other
          family, averaged; ``sources``: what ``CGPredictor`` says with the same networks as sources and 1,000 unlabelled ones.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import re
import time
from collections.abc import Iterator, Sequence
from functools import cache, partial
from pathlib import Path

import _record
import numpy as np
from _corpus import corpus, printing
from _parts import Kept, Row, run
from sklearn.linear_model import RidgeCV
from transfer import OFA, networks

from cg import Graph, GraphSet
from contrastive import EncoderConfig, load_encoder, pretrain
from contrastive.corpus import Corpus
from contrastive.encoder import Encoder
from contrastive.remembered import Remembered
from evo_search.targets import TARGETS
from finetune import CGPredictor
from finetune.gp import Standardizer
from finetune.metrics import spearman
from finetune.mixture import Mixture
from finetune.protocol import draw
from finetune.targets import fit_on_scores, normal_scores
from finetune.transfer_net import TransferNet

SECONDS, WARM, SEED, DRAWS, TUNED_DRAWS, MOST = 300, 12, 1000, 10, 5, 3000
SOURCE_ROWS, UNLABELLED = 2000, 1000
FOLDS = {"cells": (("nasbench201", "nasbench301"), ("nasbench201", "nasbench201-all", "nasbench301")),
         "others": (("nasbench101", "ofa-mbv3"), ("nasbench101", OFA))}  # left out, targets
ALONE = EncoderConfig(name="contrastive", statistics_weight=0.0)
OBJECTIVES = {
    "contrastive": ALONE,
    "statistics": dataclasses.replace(ALONE, name="statistics", contrastive_weight=0.0, statistics_weight=1.0),
    "masked": dataclasses.replace(ALONE, name="masked", contrastive_weight=0.0, masked_weight=1.0),
    "ranking": dataclasses.replace(ALONE, name="ranking", contrastive_weight=0.0, ranking_weight=1.0),
    "contrastive + statistics": dataclasses.replace(ALONE, name="contrastive + statistics", statistics_weight=1.0),
    "ranking + statistics + masked": dataclasses.replace(
        ALONE, name="ranking + statistics + masked", contrastive_weight=0.0, ranking_weight=1.0, statistics_weight=1.0,
        masked_weight=1.0),
    "paper": EncoderConfig.paper(),
}
TOGETHER = "ranking + statistics + masked"
OBJECTIVES[f"{TOGETHER}, with a transformer"] = dataclasses.replace(
    OBJECTIVES[TOGETHER], name=f"{TOGETHER}, with a transformer", transformer_layers=2, positions=10)
KEYS = {"few": ("target", "objective", "method"), "zero": ("target", "objective", "method")}
FOLDER = _record.ROOT / "runs" / "encoders"


def train(folds: tuple[str, ...], objectives: tuple[str, ...], share: float, seconds: float) -> None:
    """Every encoder that is not there yet; an encoder that was killed goes on."""
    for fold in folds:
        missing = {name: config for name, config in OBJECTIVES.items()
                   if name in objectives and not (place(fold, name) / "config.json").exists()}
        if not missing:
            continue
        data = Corpus(corpus(FOLDS[fold][0], share))
        for name, config in missing.items():
            out = place(fold, name)
            steps_file = out / "steps"
            if not steps_file.exists():
                out.mkdir(parents=True, exist_ok=True)
                steps_file.write_text(str(max(int(seconds / per_step(data, config, out / "warm")), WARM)))
            pretrain(data, out, config, steps=int(steps_file.read_text()), progress=printing(f"{fold}, {name}"))


def per_step(data: Corpus, config: EncoderConfig, folder: Path) -> float:
    """Processor seconds of a training step."""
    ticks: list[float] = []
    pretrain(data, folder, config, steps=WARM, progress=lambda *_: ticks.append(time.process_time()))
    return float(np.median(np.diff(ticks)))


def place(fold: str, objective: str) -> Path:
    return FOLDER / re.sub(r"\W+", "-", f"{fold} {objective}")


@cache
def encoder(fold: str, objective: str) -> Remembered:
    if objective == "untrained":
        import torch

        torch.manual_seed(0)
        return Remembered(Encoder(ALONE))
    return Remembered(load_encoder(place(fold, objective)))


class Frozen:
    """Gaussian processes on an embedding alone."""

    def __init__(self, embedding: Remembered) -> None:
        self.embedding = embedding

    def fit(self, graphs: list[Graph], y: np.ndarray) -> Frozen:
        x = self.embedding.embed(graphs).astype(np.float64)
        self.standard = Standardizer(x)
        views = {"embedding": self.standard(x)}

        def learned(scores: Sequence[np.ndarray]) -> list[tuple[Mixture, np.ndarray]]:
            return [(mixture, mixture.left_out) for mixture in Mixture.fit(views, scores)]

        self.mixture, _ = fit_on_scores(y, learned)
        return self

    def predict_normal(self, graphs: list[Graph]) -> tuple[np.ndarray, np.ndarray]:
        return self.mixture.predict({"embedding": self.standard(self.embedding.embed(graphs).astype(np.float64))})[:2]


def few(folds: tuple[str, ...], objectives: tuple[str, ...], kept: Kept) -> Iterator[Row]:
    for fold, method, objective in itertools.product(folds, ("beside", "frozen", "fine-tuned"), objectives):
        if objective == "none" and method != "beside":
            continue
        for target in FOLDS[fold][1]:
            labels = TARGETS[target].n_labels if target in TARGETS else 50
            for seed in range(SEED, SEED + (TUNED_DRAWS if method == "fine-tuned" else DRAWS)):
                row: Row = {"part": "few", "target": target, "objective": objective, "method": method, "seed": seed}
                if kept(row):
                    continue
                data, y, _ = networks(target)
                known, test = draw(data, labels, seed, MOST)
                fit, rest = [data.graphs[i] for i in known], [data.graphs[i] for i in test]
                embedding = None if objective == "none" else encoder(fold, objective)
                began = time.process_time()
                if method == "fine-tuned":
                    assert embedding is not None
                    net = TransferNet(embedding.encoder, sources=(), random_state=seed).fit(fit, y[known])
                    scores = net.predict_normal(rest)
                elif method == "frozen":
                    assert embedding is not None
                    scores = Frozen(embedding).fit(fit, y[known]).predict_normal(rest)[0]
                else:
                    scores = CGPredictor(embedding, ()).fit(fit, y[known]).predict_normal(rest)[0]
                yield {**row, "rho": spearman(y[test], scores), "labels": labels, "tested": len(test),
                       "cpu_seconds": time.process_time() - began}


@cache
def labelled(fold: str) -> list[GraphSet]:
    """``SOURCE_ROWS`` labelled networks of each family that the fold knows and that has labels."""
    share = 2 * SOURCE_ROWS / 25_000
    sets = [s for s in corpus((*FOLDS[fold][0], "random", "edited", "ofa-resnet50", "nats-size", "proxylessnas"), share, seed=1)
            if s.labels]
    return [s.take(np.arange(min(len(s), SOURCE_ROWS))) for s in sets]


def zero(folds: tuple[str, ...], objectives: tuple[str, ...], kept: Kept) -> Iterator[Row]:
    for fold, objective in itertools.product(folds, objectives):
        for target, seed in itertools.product(FOLDS[fold][1], range(SEED, SEED + 5)):
            row: Row = {"part": "zero", "target": target, "objective": objective,
                        "method": "sources" if objective == "none" else "embedding", "seed": seed}
            if kept(row):
                continue
            data, y, _ = networks(target)
            order = np.random.default_rng(seed).permutation(len(data))
            cut = min(UNLABELLED, len(data) // 3)
            test = order[cut:][:MOST]
            rest = [data.graphs[i] for i in test]
            if objective == "none":
                model = CGPredictor(None, labelled(fold)).fit([], [], unlabelled=[data.graphs[i] for i in order[:cut]])
                scores = model.predict(rest)
            else:
                embedding = encoder(fold, objective)
                x, opinions = embedding.embed(rest), []
                for s in labelled(fold):
                    known = embedding.embed(s.graphs)
                    standard = Standardizer(known.astype(np.float64))
                    ridge = RidgeCV(10.0 ** np.arange(-2, 5)).fit(standard(known), normal_scores(s.label()))
                    opinions.append(normal_scores(ridge.predict(standard(x))))
                scores = np.mean(opinions, 0)
            yield {**row, "rho": spearman(y[test], scores), "tested": len(test)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("train", "few", "zero"), action="append", help="several times for several; else all")
    parser.add_argument("--fold", choices=tuple(FOLDS), action="append")
    parser.add_argument("--objective", choices=("none", "untrained", *OBJECTIVES), action="append")
    parser.add_argument("--share", type=float, default=1.0, help="of the corpus")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--name", default="encoders")
    args = parser.parse_args()
    folds = tuple(args.fold or FOLDS)
    objectives = tuple(args.objective or ("none", "untrained", *OBJECTIVES))
    parts = args.part or ["train", "few", "zero"]
    if "train" in parts:
        train(folds, objectives, args.share, args.seconds)
    config = {"seconds": args.seconds, "share": args.share, "draws": DRAWS, "tuned_draws": TUNED_DRAWS, "most": MOST,
              "source_rows": SOURCE_ROWS, "unlabelled": UNLABELLED}
    computed = {"few": partial(few, folds, objectives), "zero": partial(zero, folds, objectives)}
    if chosen := {p: computed[p] for p in parts if p in computed}:
        run(args.name, config, KEYS, chosen)


if __name__ == "__main__":
    main()
