"""Every rival: learns a real benchmark, is a scikit-learn estimator, refuses mixed or unknown networks, repeats itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone

from cg import Graph, GraphBuilder
from cg.cells import Cell
from cg.errors import CGError, LabelError
from finetune import baselines, proxies
from finetune.baselines import NativeEncoding, ProxyForest, RandomForestPredictor
from finetune.baselines._inputs import Reader
from finetune.metrics import spearman

# tiny settings: enough to beat chance, a second or two each
CELLS: dict[str, Any] = {
    "MLPPredictor": {"epochs": 6}, "LSTMPredictor": {"epochs": 60}, "GATES": {"epochs": 30, "width": 32, "layers": 3},
    "NeuralPredictor": {"epochs": 40, "width": 48}, "RandomForestPredictor": {"n_estimators": 60},
    "BRPBinaryRelation": {"epochs": 20, "width": 48, "layers": 3, "learning_rate": 2e-3, "dropout": 0.0}}
GRAPHS: dict[str, Any] = {
    "GNNPredictor": {"epochs": 12, "layers": 2, "hidden": 32, "learning_rate": 3e-3},
    "RandomForestPredictor": {"n_estimators": 60}, "TreesOnStatistics": {"n_estimators": 60},
    "GATES": {"epochs": 8, "width": 24, "layers": 3},
    "NeuralPredictor": {"epochs": 25, "width": 32}}
LABELLED = 60


@dataclass(frozen=True)
class Data:
    cells: list[Cell]
    graphs: list[Graph]
    native: np.ndarray
    y: np.ndarray


@pytest.fixture(scope="module")
def data() -> Data:
    """160 random networks of NAS-Bench-201."""
    from evo_search import get_space, tables

    space, rng = get_space("nasbench201"), np.random.default_rng(7)
    genomes = [space.sample(rng) for _ in range(160)]
    table = tables.load("nasbench201")
    return Data([space.cell(a) for a in genomes], [space.to_graph(a) for a in genomes],
                np.stack([space.native(a) for a in genomes]), np.array([table.lookup(space.encode(a)) for a in genomes]))


def make(name: str, settings: dict[str, Any], seed: int = 0) -> Any:
    return getattr(baselines, name)(**settings, random_state=seed)


def quality(model: Any, networks: Any, y: np.ndarray) -> float:
    model.fit(networks[:LABELLED], y[:LABELLED])
    return spearman(y[LABELLED:], model.predict(networks[LABELLED:]))


@pytest.mark.parametrize("name", CELLS)
def test_ranks_cells_better_than_chance(name: str, data: Data) -> None:
    """100 test networks: chance stays below .3 in 998 of 1,000 cases."""
    assert quality(make(name, CELLS[name]), data.cells, data.y) > 0.4


@pytest.mark.parametrize("name", GRAPHS)
def test_ranks_graphs_better_than_chance(name: str, data: Data) -> None:
    """More than chance, and more than nothing beside the number of parameters (.8 here) for those that see statistics."""
    bar = 0.8 if name in ("RandomForestPredictor", "TreesOnStatistics") else 0.5
    assert quality(make(name, GRAPHS[name]), data.graphs, data.y) > bar


@pytest.mark.parametrize("model", ["ridge", "gp"])
def test_ranks_the_spaces_own_encoding(model: str, data: Data) -> None:
    assert quality(NativeEncoding(model), data.native, data.y) > 0.7


@pytest.mark.parametrize("name", CELLS)
def test_is_cloned_and_repeats_itself(name: str, data: Data) -> None:
    quick = {**CELLS[name], **({"epochs": 2} if "epochs" in CELLS[name] else {})}
    model = make(name, quick, seed=3)
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    few, y = data.cells[:20], data.y[:20]
    first = model.fit(few, y).predict(data.cells[20:40])
    np.testing.assert_array_equal(copy.fit(few, y).predict(data.cells[20:40]), first)
    np.testing.assert_array_equal(model.fit(few, y).predict(data.cells[20:40]), first)  # nothing is left of the first fit
    assert (make(name, quick, seed=4).fit(few, y).predict(data.cells[20:40]) != first).any()


def test_gnn_repeats_itself_and_leaves_the_global_generator_alone(data: Data) -> None:
    import torch

    def scores(seed: int) -> np.ndarray:
        model = make("GNNPredictor", {"epochs": 1, "layers": 1, "hidden": 8}, seed)
        found: np.ndarray = clone(model).fit(data.graphs[:20], data.y[:20]).predict(data.graphs[20:40])
        return found

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = scores(0)
    assert torch.equal(torch.rand(3), expected)
    np.testing.assert_array_equal(scores(0), first)
    assert (scores(1) != first).any()


@pytest.mark.parametrize("name", CELLS)
def test_mixed_kinds_and_unseen_operations_are_one_clear_error(name: str, data: Data) -> None:
    quick = {**CELLS[name], **({"epochs": 1} if "epochs" in CELLS[name] else {})}
    with pytest.raises(CGError, match=r"all cg.Graph or all cg.Cell, got \['Cell', 'Graph'\]"):
        make(name, quick).fit([*data.cells[:5], data.graphs[5]], data.y[:6])
    model = make(name, quick).fit(data.cells[:20], data.y[:20])
    with pytest.raises(CGError, match="is a Graph"):
        model.predict(data.graphs[:2])
    new = Cell(("input", "sep_conv_9x9", "output"), ((0, 1), (1, 2)), "strange")
    with pytest.raises(CGError, match="'strange' has the operation 'sep_conv_9x9', which no labelled cell has"):
        model.predict([new])
    with pytest.raises(LabelError):
        make(name, quick).fit(data.cells[:3], [1.0, np.nan, 2.0])


@pytest.mark.parametrize("kind", ["cells", "graphs"])
@pytest.mark.parametrize("global_node", [False, True])
def test_a_batch_out_of_a_pack_is_the_batch_of_its_networks(kind: str, global_node: bool, data: Data) -> None:
    networks, rows = getattr(data, kind)[:12], np.array([7, 0, 11, 3])
    reader = Reader(networks)
    items = reader.read(networks)
    got, wanted = reader.pack(items, global_node).take(rows), reader.batch([items[i] for i in rows], global_node)
    for name in ("x", "token", "owner", "first", "size"):
        assert np.array_equal(getattr(got, name), getattr(wanted, name)), name
    for node in range(len(wanted.x)):  # the order of what is summed decides the last bit
        assert got.src[got.dst == node].tolist() == wanted.src[wanted.dst == node].tolist()
        assert got.dst[got.src == node].tolist() == wanted.dst[wanted.src == node].tolist()


@pytest.mark.parametrize(("name", "more"), [("BRPBinaryRelation", {}), ("NeuralPredictor", {}),
                                            ("NeuralPredictor", {"convolution": False})])
def test_new_operations_are_blank_where_that_is_asked_for(name: str, more: dict[str, Any], data: Data) -> None:
    model = make(name, {**CELLS[name], **more, "epochs": 1, "blank_new": True}).fit(data.cells[:20], data.y[:20])
    one, two, known = (Cell(("input", op, "output"), ((0, 1), (1, 2))) for op in ("new a", "new b", "nor_conv_3x3"))
    a, b, c = model.predict([one, two, known])
    assert a == pytest.approx(b, abs=1e-6)
    assert abs(a - c) > 1e-5


def test_forest_and_gnn_on_graphs_refuse_cells(data: Data) -> None:
    forest = RandomForestPredictor(5).fit(data.graphs[:10], data.y[:10])
    with pytest.raises(CGError, match="use one kind for both"):
        forest.predict(data.cells[:2])
    with pytest.raises(CGError, match="item 0 is a Cell"):
        baselines.GNNPredictor().fit(data.cells[:4], data.y[:4])


# -- the space's own encoding ---------------------------------------------------------------------------------------


def test_encode_gives_what_rows_give(data: Data) -> None:
    from evo_search import get_space

    space = get_space("nasbench201")
    by_rows = NativeEncoding().fit(data.native[:40], data.y[:40]).predict(data.native[40:])
    model = NativeEncoding(encode=lambda cell: space.native(space.decode(cell.name)))
    np.testing.assert_array_equal(model.fit(data.cells[:40], data.y[:40]).predict(data.cells[40:]), by_rows)


def test_ridge_finds_an_additive_order_from_ranks_alone(data: Data) -> None:
    """Labels that are a steep function of a sum over the one-hot columns: ranks make the sum linear again."""
    steep = np.exp(3 * (data.native @ np.random.default_rng(0).normal(size=data.native.shape[1])))
    assert quality(NativeEncoding(), data.native, steep) > 0.97


def test_native_encoding_refuses_what_is_no_table(data: Data) -> None:
    model = NativeEncoding().fit(data.native[:10], data.y[:10])
    with pytest.raises(CGError, match="29 wide, those learned from were 30"):
        model.predict(data.native[:3, 1:])
    with pytest.raises(CGError, match="reads rows of numbers"):
        NativeEncoding().fit(data.cells[:4], data.y[:4])
    with pytest.raises(CGError, match="encoding 1 holds a value that is not finite"):
        NativeEncoding().fit([[1.0, 0.0], [np.inf, 1.0]], [1.0, 2.0])
    with pytest.raises(CGError, match="ridge, gp"):
        NativeEncoding("lasso").fit(data.native[:4], data.y[:4])
    assert model.predict(data.native[:0]).shape == (0,)
    with pytest.raises(CGError, match="not been fitted"):
        NativeEncoding().predict(data.native[:3])


# -- proxies --------------------------------------------------------------------------------------------------------


def chain(depth: int, width: int, rectified: bool = True) -> Graph:
    b = GraphBuilder(name=f"chain {depth} {width}")
    x = b.input((1, 3, 8, 8))
    for _ in range(depth):
        x = b.batch_norm(b.conv2d(x, width, kernel=3))
        x = b.relu(x) if rectified else x
    return b.build(b.linear(b.global_avg_pool(x), 10))


def test_proxy_forest_ranks_and_computes_each_network_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from finetune.baselines import forests

    graphs = [chain(d, w) for d in (1, 2, 3, 4) for w in (4, 6, 8, 12, 16)]
    y = np.array([d + w / 8 for d in (1, 2, 3, 4) for w in (4, 6, 8, 12, 16)])
    file, calls = tmp_path / "values.jsonl", []
    real = proxies.measure
    monkeypatch.setattr(proxies, "measure", lambda g, *a, **k: calls.append(g.digest) or real(g, *a, **k))
    model = ProxyForest(("synflow", "params", "grad_norm"), batch=4, cache=file, n_estimators=50)
    model.fit(graphs[::2], y[::2])
    assert model.saved_s_ == 0
    assert spearman(y[1::2], model.predict(graphs[1::2])) > 0.8
    assert len(calls) == len(set(calls)) == 20
    again = clone(model).fit(graphs[::2], y[::2])
    assert len(calls) == 20
    assert again.saved_s_ > 0
    with file.open("a") as out:
        out.write('["cut off')
    monkeypatch.setattr(forests, "_MEMORY", {})  # a new process
    np.testing.assert_array_equal(clone(model).fit(graphs[::2], y[::2]).predict(graphs), again.predict(graphs))
    assert len(calls) == 20
    assert len(file.read_text().splitlines()) == 61
    assert all(len(json.loads(line)) == 3 for line in file.read_text().splitlines()[:60])


def test_a_proxy_that_a_network_has_not_is_less_than_any_number() -> None:
    x = ProxyForest(("naswot", "macs"), batch=4).vectors([chain(2, 4), chain(2, 4, rectified=False)])
    assert x[1, 0] == -1000 < x[0, 0]
    assert x[0, 1] > 0
    with pytest.raises(CGError, match="there is no proxy 'flops'"):
        ProxyForest(("flops",)).vectors([chain(1, 4)])
    with pytest.raises(CGError, match="item 0 is a Cell"):
        ProxyForest().vectors([Cell(("input",), ())])  # type: ignore[list-item]
