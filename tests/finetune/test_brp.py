"""BRP-NAS predictors and the latency rivals, on NAS-Bench-201 with a latency that is a known sum over operations."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

from cg import Cell, Graph, GraphBuilder
from cg.cells import pruned
from cg.errors import CGError
from evo_search import get_space
from finetune.baselines import BRPBinaryRelation, BRPLatencyGCN, FlopsLatency, LayerwiseLatency
from finetune.baselines._inputs import Reader
from finetune.baselines._training import Dropout
from finetune.baselines.brp import GlobalGCN
from finetune.metrics import spearman, within_error_bound

SPACE = get_space("nasbench201")
MILLISECONDS = {"input": 2.0, "output": 1.0, "nor_conv_1x1": 1.0, "nor_conv_3x3": 3.0, "avg_pool_3x3": 0.7}
SMALL = {"width": 64, "epochs": 50, "learning_rate": 4e-3}


@pytest.fixture(scope="module")
def genomes() -> list[tuple[int, ...]]:
    rng = np.random.default_rng(0)
    return [SPACE.sample(rng) for _ in range(400)]


@pytest.fixture(scope="module")
def cells(genomes: list[tuple[int, ...]]) -> list[Cell]:
    return [SPACE.cell(a) for a in genomes]


@pytest.fixture(scope="module")
def latency(cells: list[Cell]) -> np.ndarray:
    return np.array([sum(MILLISECONDS[op] for op in pruned(c).ops) for c in cells])


@pytest.fixture(scope="module")
def fitted(cells: list[Cell], latency: np.ndarray) -> BRPLatencyGCN:
    return BRPLatencyGCN(**SMALL).fit(cells[:200], latency[:200])


def test_pruned_removes_what_no_signal_passes() -> None:
    cell = Cell(("input", "none", "skip_connect", "nor_conv_3x3", "nor_conv_1x1", "output"),
                ((0, 1), (0, 2), (1, 3), (2, 3), (2, 4), (3, 5)), "x")  # the last convolution feeds nothing
    assert pruned(cell) == Cell(("input", "nor_conv_3x3", "output"), ((0, 1), (1, 2)), "x")
    assert pruned(Cell(("input", "none", "output"), ((0, 1), (1, 2)))).edges == ()
    ends = ("normal input", "reduce input"), ("normal output", "reduce output")
    two = Cell((*ends[0], "skip_connect", "conv", "conv", *ends[1]), ((0, 2), (0, 4), (1, 3), (2, 5), (3, 6)))
    assert pruned(two) == Cell((*ends[0], "conv", *ends[1]), ((0, 3), (1, 2), (2, 4)))


def test_convolution_is_the_formula_of_the_paper(cells: list[Cell]) -> None:
    """Dense ``A V W`` with self-loops, an edge i -> j as A[i, j], and a first row of ones for the global node."""
    torch.manual_seed(0)
    reader = Reader(cells)
    item = reader.read(cells[:1])[0]
    gcn = GlobalGCN(reader.width, 5, 2, 0.0)
    n = len(item.token) + 1
    a, v = torch.eye(n), torch.zeros(n, reader.width)
    a[0] = 1
    a[item.edges[0] + 1, item.edges[1] + 1] = 1
    v[torch.arange(1, n), torch.from_numpy(item.token) + 0] = 1
    for linear, bias, norm in zip(gcn.linear, gcn.bias, gcn.norm, strict=True):
        v = torch.relu(norm(a @ linear(v) + bias))
    both = gcn(reader.batch([item, *reader.read(cells[1:2])], global_node=True))
    torch.testing.assert_close(both[0], v[0])


@pytest.mark.parametrize("share", [0.002, 0.2, 0.9])
def test_dropout_misses_each_entry_alone(share: float) -> None:
    """As many zeros as a coin for each entry would give, no pairs of them, and the same mean."""
    torch.manual_seed(0)
    rows, columns = 2000, 200
    zero = (kept := Dropout(share)(torch.ones(rows, columns))) == 0
    assert float(zero.float().mean()) == pytest.approx(share, abs=5 * (share * (1 - share) / rows / columns) ** 0.5)
    assert torch.allclose(kept[~zero], torch.tensor(1 / (1 - share)))
    by_row = zero.sum(1).float()
    assert float(by_row.var()) == pytest.approx(columns * share * (1 - share), rel=0.2)
    both = (zero[:, 1:] & zero[:, :-1]).float().mean()
    assert float(both) == pytest.approx(share ** 2, rel=0.1, abs=1e-4)
    with pytest.raises(CGError, match="dropout"):
        BRPLatencyGCN(width=8, dropout=1.0).fit([SPACE.cell((1, 1, 1, 1, 1, 1))] * 2, [1, 2])


def test_dropout_rests_when_predicting(cells: list[Cell], latency: np.ndarray) -> None:
    model = BRPLatencyGCN(width=16, epochs=3, dropout=0.5).fit(cells[:40], latency[:40])
    assert (model.predict(cells[:40]) == model.predict(cells[:40])).all()
    assert (model.predict(cells[:40]) != clone(model).set_params(dropout=0.0).fit(cells[:40], latency[:40])
            .predict(cells[:40])).any()


def test_latency_is_predicted_in_its_unit(fitted: BRPLatencyGCN, cells: list[Cell], latency: np.ndarray) -> None:
    assert within_error_bound(latency[200:], fitted.predict(cells[200:]), 0.1) > 0.8
    guess = np.full(200, latency[:200].mean())
    assert within_error_bound(latency[200:], guess, 0.1) < 0.4


def test_seed_decides_and_refits_agree(fitted: BRPLatencyGCN, cells: list[Cell], latency: np.ndarray) -> None:
    short = BRPLatencyGCN(width=16, epochs=2)
    first = short.fit(cells[:40], latency[:40]).predict(cells[:40])
    assert (clone(short).fit(cells[:40], latency[:40]).predict(cells[:40]) == first).all()
    assert (clone(short).set_params(random_state=1).fit(cells[:40], latency[:40]).predict(cells[:40]) != first).any()


def test_transfer_starts_from_the_learned_convolutions(fitted: BRPLatencyGCN, cells: list[Cell],
                                                       latency: np.ndarray) -> None:
    few = slice(0, 12)
    again = {"epochs": 0, "warm_up": 150, "learning_rate": 1e-2, "batch": 12}
    moved = BRPLatencyGCN(pretrained=FrozenEstimator(fitted), **again)
    for model in (moved, clone(moved)):
        model.fit(cells[few], -3 * latency[few])
        assert model.net_.gcn.width == 64
        for new, old in zip(model.net_.gcn.parameters(), fitted.net_.gcn.parameters(), strict=True):
            assert (new == old).all()
            assert new is not old
    assert spearman(-latency[200:], moved.predict(cells[200:])) > 0.9
    relation = BRPBinaryRelation(pretrained=fitted, epochs=5, warm_up=5).fit(cells[:40], latency[:40])
    assert relation.reader_ is fitted.reader_
    with pytest.raises(CGError, match="FrozenEstimator"):
        clone(BRPLatencyGCN(pretrained=fitted)).fit(cells[few], latency[few])


@pytest.fixture(scope="module")
def relation(cells: list[Cell], latency: np.ndarray) -> BRPBinaryRelation:
    return BRPBinaryRelation(**{**SMALL, "epochs": 30}).fit(cells[:80], latency[:80])


def test_relation_beats_chance(relation: BRPBinaryRelation, cells: list[Cell], latency: np.ndarray) -> None:
    test = cells[200:]
    assert spearman(latency[200:], relation.predict(test)) > 0.7
    pairs = [(i, j) for i, j in zip(range(200, 260), range(300, 360), strict=True) if abs(latency[i] - latency[j]) > 1]
    right = [(relation.prefers(cells[i], cells[j]) > 0.5) == (latency[i] > latency[j]) for i, j in pairs]
    assert np.mean(right) > 0.8


def test_relation_contradicts_itself_little(relation: BRPBinaryRelation, cells: list[Cell]) -> None:
    some = cells[200:206]
    p = np.array([[relation.prefers(a, b) for b in some] for a in some])
    wanted = np.mean([abs(p[i, j] + p[j, i] - 1) for i in range(6) for j in range(6) if i != j])
    assert relation.antisymmetry(some) == pytest.approx(wanted, abs=1e-5)
    assert 0 < relation.antisymmetry(cells[200:]) < 0.2
    untrained = BRPBinaryRelation(width=32, epochs=0).fit(cells[:10], np.arange(10.0))
    assert relation.antisymmetry(cells[200:]) < untrained.antisymmetry(cells[200:]) <= 1
    with pytest.raises(CGError, match="two networks"):
        relation.antisymmetry(some[:1])


def test_orders_of_the_relation(relation: BRPBinaryRelation, cells: list[Cell], latency: np.ndarray) -> None:
    wins = relation.predict(cells[200:])
    assert 0 <= wins.min() < wins.max() <= 1
    assert relation.predict(cells[200:201])[0] == pytest.approx(wins[0], abs=1e-6)  # of itself alone
    by_hand = np.mean([(relation.prefers(cells[200], c) + 1 - relation.prefers(c, cells[200])) / 2 for c in cells[:80]])
    assert wins[0] == pytest.approx(by_hand, abs=1e-5)
    places = clone(relation).set_params(order="sort").fit(cells[:80], latency[:80]).predict(cells[200:])
    assert sorted(places) == pytest.approx(np.arange(200) / 199)
    assert spearman(wins, places) > 0.98
    with pytest.raises(CGError, match="wins, sort"):
        BRPBinaryRelation(order="best").fit(cells[:4], [1, 2, 3, 4])


def test_hard_and_soft_labels(cells: list[Cell], latency: np.ndarray) -> None:
    """Soft targets lie between sigmoid(-1) and sigmoid(1), so no pair is as sure as with hard ones."""
    spread = []
    for soft in (True, False):
        model = BRPBinaryRelation(soft=soft, **{**SMALL, "epochs": 30}).fit(cells[:60], latency[:60])
        spread.append(np.ptp(model.predict(cells[:60])))
    assert spread[0] < 0.55 < spread[1]


@pytest.fixture(scope="module")
def graphs(genomes: list[tuple[int, ...]]) -> list[Graph]:
    return [SPACE.to_graph(a) for a in genomes[:90]]


def test_graphs_are_read_too(graphs: list[Graph]) -> None:
    y = np.array([g.macs for g in graphs]) / 1e6
    model = BRPLatencyGCN(width=48, epochs=25, learning_rate=3e-3).fit(graphs[:50], y[:50])
    assert spearman(y[50:], model.predict(graphs[50:])) > 0.7
    with pytest.raises(CGError, match="use one kind"):
        model.predict([SPACE.cell((0, 1, 2, 3, 4, 3))])


def test_layerwise_is_exact_on_sums(graphs: list[Graph]) -> None:
    specs = sorted({s for g in graphs for s in g.nodes if s.op != "Input"}, key=lambda s: s.to_json())
    time = dict(zip(specs, np.random.default_rng(0).random(len(specs)), strict=True))
    y = np.array([sum(time.get(s, 0.0) for s in g.nodes) for g in graphs])
    model = LayerwiseLatency().fit(graphs[:60], y[:60])
    np.testing.assert_allclose(model.predict(graphs[60:]), y[60:], rtol=1e-6)
    assert min(model.table_.values()) >= 0
    table = LayerwiseLatency({s.to_json(): t for s, t in time.items()}).fit(graphs[:2], [0, 0])
    np.testing.assert_allclose(table.predict(graphs), y)
    assert LayerwiseLatency({specs[0]: 2.0}, missing=0.0).fit(graphs, y).predict(graphs).max() > 0
    with pytest.raises(CGError, match="no latency is known"):
        LayerwiseLatency({specs[0]: 2.0}).fit(graphs, y).predict(graphs)
    with pytest.raises(CGError, match="no latency is known for input"):
        model.predict([SPACE.cell((0, 1, 2, 3, 4, 3))])


def test_layerwise_counts_operations_of_cells(cells: list[Cell]) -> None:
    y = np.array([sum(MILLISECONDS.get(op, 0.0) for op in c.ops) for c in cells])
    model = LayerwiseLatency().fit(cells[:60], y[:60])
    np.testing.assert_allclose(model.predict(cells[60:]), y[60:], rtol=1e-6)
    of = model.table_  # every cell has six operations, so only differences of their costs can be told
    assert of["nor_conv_3x3"] - of["nor_conv_1x1"] == pytest.approx(2.0)
    assert LayerwiseLatency(MILLISECONDS, missing=0.0).fit(cells, y).predict(cells) == pytest.approx(y)


def test_flops_is_a_line(graphs: list[Graph]) -> None:
    y = np.array([3e-6 * g.macs + 2 for g in graphs])
    model = FlopsLatency().fit(graphs[:40], y[:40])
    np.testing.assert_allclose(model.predict(graphs[40:]), y[40:])
    b = GraphBuilder()
    one = b.build(b.linear(b.input((1, 4)), 2))
    assert FlopsLatency().fit([one, one], [1, 3]).predict([one])[0] == 2  # no slope can be told


@pytest.mark.slow
def test_measured_latencies_of_a_processor(shared: Path) -> None:
    """Needs the public data: HELP's Gold 6240, which ran all operations; a line in MACs gets 42 % within 10 %."""
    file = shared / "data" / "latency" / "nb201_help_latency.csv.gz"
    if not file.is_file():
        pytest.skip(f"no latencies at {file}")
    with gzip.open(file, "rt", encoding="utf-8") as text:
        table = list(csv.DictReader(text))
    genomes = [SPACE.decode(row["arch_str"]) for row in table]
    rows = np.random.default_rng(0).permutation([i for i, a in enumerate(genomes) if not SPACE.why_invalid(a)])[:1000]
    found, y = [SPACE.cell(genomes[i]) for i in rows], np.array([float(table[i]["gold_6240"]) for i in rows])
    graphs = [SPACE.to_graph(genomes[i]) for i in rows]
    model = BRPLatencyGCN(width=128, epochs=80, learning_rate=2e-3, prune=False).fit(found[:500], y[:500])
    gcn = model.predict(found[500:])
    line = FlopsLatency().fit(graphs[:500], y[:500]).predict(graphs[500:])
    assert within_error_bound(y[500:], gcn, 0.1) > within_error_bound(y[500:], line, 0.1) + 0.1
