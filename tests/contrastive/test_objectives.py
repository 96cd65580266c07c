"""What pre-training can be for: each objective lowers its own loss, masks hide, labels order, and a wrong setting is named."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from cg import Graph, GraphSet
from cg.errors import CGError
from contrastive import EncoderConfig, load_encoder, pretrain
from contrastive.corpus import Corpus
from contrastive.encoder import Encoder
from contrastive.training import _Run
from contrastive.views import collate, views

CONFIG = EncoderConfig(hidden=16, gnn_layers=2, embedding=12, projection=8, steps=80, warmup_steps=2, batch_graphs=16,
                       neighbours=4, statistics_weight=0.0, learning_rate=5e-3)


def only(**weights: float) -> EncoderConfig:
    """``CONFIG`` with these weights and no others."""
    return dataclasses.replace(CONFIG, **{"contrastive_weight": 0.0, **weights})


@pytest.fixture
def labelled(small_graphs: list[Graph]) -> GraphSet:
    graphs = list(small_graphs)
    return GraphSet(graphs, [str(i) for i in range(len(graphs))], {"macs": np.array([float(g.macs) for g in graphs])})


@pytest.mark.parametrize("objective", ["contrastive", "statistics", "masked", "ranking"])
def test_each_objective_learns(objective: str, tmp_path: Path, labelled: GraphSet) -> None:
    config = only(**{f"{objective}_weight": 1.0})
    losses: list[float] = []
    pretrain([labelled], tmp_path, config, progress=lambda step, steps, loss: losses.append(loss))
    assert np.mean(losses[-8:]) < 0.92 * np.mean(losses[:4])
    assert getattr(load_encoder(tmp_path).config, f"{objective}_weight") == 1.0


def test_mixed_objectives_and_weights(labelled: GraphSet) -> None:
    config = only(statistics_weight=1.0, masked_weight=0.5, ranking_weight=2.0)
    losses = _Run(Corpus([labelled]), config, 0).step(0)
    assert set(losses) == {"statistics", "masked", "ranking", "total"}
    assert losses["total"] == pytest.approx(losses["statistics"] + 0.5 * losses["masked"] + 2 * losses["ranking"], rel=1e-5)


def test_without_labels_the_other_objectives_are_learned(small_graphs: list[Graph], labelled: GraphSet) -> None:
    config = only(masked_weight=1.0, ranking_weight=1.0)
    assert set(_Run(Corpus([small_graphs]), config, 0).step(0)) == {"masked", "total"}
    assert set(_Run(Corpus([labelled]), config, 0).step(0)) == {"masked", "ranking", "total"}


def test_ranking_orders_what_it_has_learned_from(tmp_path: Path, labelled: GraphSet) -> None:
    run = _Run(Corpus([labelled]), only(ranking_weight=1.0), 0)
    for step in range(CONFIG.steps):
        run.step(step)
    with torch.no_grad():
        score = run.objectives["ranking"].head(run.encoder.encode_views(run.views))[:, 0].numpy()
    assert np.corrcoef(np.argsort(np.argsort(score)), np.argsort(np.argsort(labelled.label())))[0, 1] > 0.9


def test_labels_of_different_sets_do_not_compare(labelled: GraphSet) -> None:
    half = len(labelled) // 2
    corpus = Corpus([labelled.take(np.arange(half)), labelled.take(np.arange(half, len(labelled))), labelled.graphs])
    assert np.isnan(corpus.label[len(labelled):]).all()
    ranking = _Run(corpus, only(ranking_weight=1.0), 0).objectives["ranking"]
    across = np.array([0, half])
    assert ranking(torch.randn(2, 12), across).item() == 0.0
    assert ranking(torch.randn(2, 12), np.array([0, 1])).item() > 0.0


def test_hidden_nodes_are_not_read(small_graphs: list[Graph]) -> None:
    torch.manual_seed(0)
    encoder = Encoder(CONFIG).eval()
    batch = collate(views(small_graphs[:2], CONFIG))
    hidden = torch.zeros(len(batch.op), dtype=torch.bool)
    hidden[3] = True
    other = batch._replace(op=batch.op.clone(), features=batch.features.clone())
    other.op[3] += 1
    other.features[3] += 1.0
    with torch.no_grad():
        assert torch.equal(encoder.nodes(batch, hidden), encoder.nodes(other, hidden))
        assert not torch.equal(encoder.nodes(batch), encoder.nodes(other))


def test_masks_differ_from_step_to_step_and_come_again(labelled: GraphSet) -> None:
    run = _Run(Corpus([labelled]), dataclasses.replace(only(masked_weight=1.0), masked_share=0.3), 0)
    items = [run.views[i] for i in range(8)]
    first, again, next_ = (np.concatenate(run._hidden(items, step) or []) for step in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, next_)
    assert 0.15 < first.mean() < 0.45


def test_wrong_settings_are_named(tmp_path: Path, small_graphs: list[Graph]) -> None:
    with pytest.raises(CGError, match="needs an objective"):
        EncoderConfig(contrastive_weight=0.0, statistics_weight=0.0)
    with pytest.raises(CGError, match="masked_share"):
        EncoderConfig(masked_share=1.0)
    with pytest.raises(CGError, match="ranking_weight alone needs labels"):
        pretrain([small_graphs], tmp_path, only(ranking_weight=1.0))
