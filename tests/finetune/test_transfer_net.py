"""The papers' transfer by fine-tuning, on small real data: each stage learns, and nothing leaks between draws."""

from __future__ import annotations

import numpy as np
import pytest

from cg import GraphSet
from cg.errors import CGError
from contrastive import EncoderConfig
from evo_search import get_space, tables
from finetune import TransferNet, metrics

SMALL = EncoderConfig(name="small", hidden=16, gnn_layers=3, embedding=32)


def sample(n: int, seed: int) -> GraphSet:
    space, table = get_space("nasbench201"), tables.load("nasbench201")
    graphs, y = [], []
    for row in np.random.default_rng(seed).permutation(table.n):
        a = space.decode(table.encoded(int(row)))
        if space.is_valid(a):
            graphs.append(space.to_graph(a))
            y.append(table.metrics["test_acc"][row])
        if len(graphs) == n:
            break
    return GraphSet([g.with_(family="source") for g in graphs], None, {"acc": np.array(y)})


@pytest.fixture(scope="module")
def data() -> tuple[GraphSet, GraphSet]:
    return sample(240, 1), sample(160, 2)


def test_source_labels_alone_rank_and_few_labels_refine(data: tuple[GraphSet, GraphSet]) -> None:
    source, target = data
    y = target.label()[40:]
    net = TransferNet(SMALL, [source], source_epochs=12, epochs=15).fit_sources()
    zero_shot = metrics.spearman(y, net.predict_normal(target.graphs[40:]))
    assert zero_shot > 0.6
    before = {k: v.clone() for k, v in net.source_net_.state_dict().items()}
    net.fit(target.graphs[:40], target.label()[:40])
    assert metrics.spearman(y, net.predict(target.graphs[40:])) > zero_shot - 0.05
    for k, v in net.source_net_.state_dict().items():  # a draw must not move the shared first stage
        assert (v == before[k]).all()


def test_two_fits_give_the_same_scores(data: tuple[GraphSet, GraphSet]) -> None:
    _, target = data
    runs = [TransferNet(SMALL, (), epochs=3).fit(target.graphs[:20], target.label()[:20]).predict(target.graphs[20:40])
            for _ in range(2)]
    np.testing.assert_array_equal(*runs)


def test_unfitted_network_says_so(data: tuple[GraphSet, GraphSet]) -> None:
    with pytest.raises(CGError, match="call fit"):
        TransferNet(SMALL, ()).predict_normal(data[1].graphs[:2])
