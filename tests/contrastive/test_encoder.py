"""The encoder: what an embedding depends on, and what it must not depend on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from torch import nn

from cg import Graph, GraphBuilder, NodeSpec
from cg.errors import CGError, UnknownOpError
from contrastive import Encoder, EncoderConfig
from contrastive.encoder import projection_head
from contrastive.remembered import Remembered
from contrastive.views import buckets, collate, view, views

SMALL = EncoderConfig(hidden=16, gnn_layers=2, embedding=12)
CONFIGS = {
    "gnn": SMALL,
    "both": dataclasses.replace(SMALL, transformer_layers=1, positions=4, directed=False, context=False, pooling="mean"),
    "transformer": dataclasses.replace(SMALL, transformer_layers=2, gnn_layers=0, positions=3),
}


@pytest.fixture(params=list(CONFIGS))
def encoder(request: pytest.FixtureRequest) -> Encoder:
    torch.manual_seed(0)
    return Encoder(CONFIGS[request.param]).eval()


def mixed(nas_graphs: list[Graph], small_graphs: list[Graph]) -> list[Graph]:
    return [g for pair in zip(nas_graphs[::4], small_graphs, strict=False) for g in pair]


def test_shape_and_type(encoder: Encoder, small_graphs: list[Graph]) -> None:
    out = encoder.embed(small_graphs)
    assert (out.shape, out.dtype) == ((24, 12), np.float32)
    assert np.isfinite(out).all()
    assert encoder.embed([]).shape == (0, 12)
    assert encoder.embed(iter(small_graphs[:2])).shape == (2, 12)


def test_node_order_does_not_matter(encoder: Encoder, nas_graphs: list[Graph], small_graphs: list[Graph]) -> None:
    rng = np.random.default_rng(1)
    graphs = mixed(nas_graphs, small_graphs)
    moved = [g.permuted(rng.permutation(g.n_nodes)) for g in graphs]
    assert np.abs(encoder.embed(graphs)).max() > 0.1
    for g, p in zip(graphs, moved, strict=True):  # one by one: within a call equal graphs share a view
        assert encoder.embed([p]) == pytest.approx(encoder.embed([g]), abs=1e-5)


def test_company_in_the_batch_does_not_matter(encoder: Encoder, nas_graphs: list[Graph], small_graphs: list[Graph]) -> None:
    graphs = mixed(nas_graphs, small_graphs)
    together = encoder.embed(graphs)
    alone = np.concatenate([encoder.embed([g]) for g in graphs])
    assert alone == pytest.approx(together, abs=1e-5)
    assert encoder.embed(graphs[::-1])[::-1] == pytest.approx(together, abs=1e-5)


def test_length_buckets_do_not_matter(nas_graphs: list[Graph], small_graphs: list[Graph]) -> None:
    graphs = mixed(nas_graphs, small_graphs)
    out = []
    for tokens in (1, 300, 10 ** 9):
        torch.manual_seed(0)
        out.append(Encoder(dataclasses.replace(CONFIGS["both"], padded_tokens=tokens)).embed(graphs))
    assert out[1] == pytest.approx(out[0], abs=1e-5)
    assert out[2] == pytest.approx(out[0], abs=1e-5)


def test_different_networks_get_different_embeddings(encoder: Encoder, nas_graphs: list[Graph]) -> None:
    digests = {g.digest for g in nas_graphs}
    assert len(np.unique(encoder.embed(nas_graphs).round(6), axis=0)) == len(digests)


def test_the_number_of_repeats_is_seen(encoder: Encoder) -> None:
    def net(times: int) -> Graph:
        b = GraphBuilder()
        return b.build(b.global_avg_pool(b.repeat(lambda v: b.relu(b.conv2d(v, 8)), b.input((1, 8, 8, 8)), times)))
    out = encoder.embed([net(t) for t in (2, 3, 9)])
    assert min(np.abs(out[i] - out[j]).max() for i, j in ((0, 1), (1, 2), (0, 2))) > 1e-4


def test_names_and_families_are_not_seen(encoder: Encoder, small_graphs: list[Graph]) -> None:
    g = small_graphs[0]
    assert np.array_equal(encoder.embed([g]), encoder.embed([g.with_(name="x", family="y", meta={"acc": 0.9})]))


def test_direction_is_seen_where_it_should_be() -> None:
    """Reversing every edge of relu -> sigmoid -> relu -> tanh changes nothing that an undirected encoder can see."""
    def line(ops: list[str]) -> Graph:
        b = GraphBuilder()
        x = b.input((1, 4))
        for op in ops:
            x = b.op(op, [x])
        return b.build(x)
    a, c = view(line(["Relu", "Tanh"]), CONFIGS["gnn"]), view(line(["Relu", "Tanh"]), CONFIGS["gnn"])
    backwards = c._replace(src=c.dst, dst=c.src)
    for directed in (True, False):
        torch.manual_seed(0)
        e = Encoder(dataclasses.replace(SMALL, directed=directed)).eval()
        with torch.no_grad():
            out = e(collate([a, backwards]))
        assert torch.allclose(out[0], out[1], atol=1e-6) is not directed


def test_mean_pooling_counts_repeats_by_hand() -> None:
    """One layer that does nothing but pass on: the embedding must be the mean over all copies of all nodes."""
    b = GraphBuilder()
    g = b.build(b.repeat(b.relu, b.input((1, 4)), 5))
    e = Encoder(EncoderConfig(hidden=4, gnn_layers=1, embedding=4, pooling="mean", context=False)).eval()
    with torch.no_grad():
        e.convs[0] = Zero()
        e.output.weight.copy_(torch.eye(4))
        e.output.bias.zero_()
        batch = collate([view(g, e.config)])
        assert batch.count.tolist() == [1, 5]
        h = e.input(torch.cat([e.op(batch.op), batch.features], 1)) + torch.relu(e.norms[0].bias)
        assert torch.allclose(e(batch)[0], (h[0] + 5 * h[1]) / 6, atol=1e-6)


class Zero(nn.Module):
    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x)


def test_unknown_operators_are_refused_by_name(encoder: Encoder, small_graphs: list[Graph]) -> None:
    b = GraphBuilder(name="odd")
    x = b.input((1, 4))
    for name in ("fold", "warp", "fold"):
        x = b.op("Unknown", [x], name=name)
    with pytest.raises(UnknownOpError, match=r"graph 'odd' has Unknown nodes \(2 x fold, 1 x warp\)"):
        encoder.embed([small_graphs[0], b.build(x)])


def test_embedding_leaves_the_mode_as_it_was(small_graphs: list[Graph]) -> None:
    e = Encoder(SMALL)
    for training in (True, False):
        e.train(training)
        e.embed(small_graphs[:2])
        assert e.training is training
        with pytest.raises(UnknownOpError):
            e.embed([Graph.make([NodeSpec("Input", (), (1, 4)), NodeSpec("Unknown", ((1, 4),), (1, 4))], [(0, 1, 0)])])
        assert e.training is training


def test_every_weight_gets_a_gradient(encoder: Encoder, small_graphs: list[Graph]) -> None:
    encoder.encode_views(views(small_graphs, encoder.config)).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() and p.grad.any() for p in encoder.parameters())


def test_same_seed_same_encoder(small_graphs: list[Graph]) -> None:
    out = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        out.append(Encoder(SMALL).embed(small_graphs))
    assert np.array_equal(out[0], out[1])
    assert not np.allclose(out[0], out[2])


def test_graphs_of_one_node_and_without_edges(encoder: Encoder) -> None:
    single = Graph.make([NodeSpec("Input", (), (1, 4))], [])
    pair = Graph.make([NodeSpec("Input", (), (1, 4)), NodeSpec("Input", (), (1, 5))], [])
    assert np.isfinite(encoder.embed([single, pair, single])).all()


def test_equal_graphs_share_one_view(small_graphs: list[Graph]) -> None:
    g = small_graphs[3]
    a, c = views([g, g.permuted(range(g.n_nodes)[::-1])], SMALL)
    assert a is c


def test_buckets_hold_every_graph_once_within_the_limit() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        sizes, limit = rng.integers(1, 60, rng.integers(1, 40)), int(rng.integers(20, 400))
        found = buckets(sizes, limit)
        assert sorted(np.concatenate(found).tolist()) == list(range(len(sizes)))
        for rows in found:
            assert len(rows) == 1 or len(rows) * sizes[rows].max() <= limit


def test_projection_head_has_as_many_layers_as_it_says() -> None:
    head = projection_head(EncoderConfig.paper())
    linear = [m for m in head if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [(128, 128)] * 3 + [(128, 64)]


def test_paper_configuration_is_the_published_one() -> None:
    """arXiv 2302.10835: transformer of 2 layers and 2 heads beside a k-GNN, mean pooling, m = 128, tau 0.1, weights at 0.05."""
    c = EncoderConfig.named("paper")
    assert (c.transformer_layers, c.heads, c.pooling, c.embedding, c.projection, c.projection_layers, c.temperature,
            c.spectral_temperature, c.statistics_weight) == (2, 2, "mean", 128, 64, 4, 0.1, 0.05, 0.0)
    assert c.gnn_layers > 0


@pytest.mark.parametrize(("change", "message"), [
    ({"pooling": "max"}, "pooling must be 'mean' or 'mean\\+max', got 'max'"),
    ({"gnn_layers": 0}, "at least one of transformer_layers and gnn_layers"),
    ({"hidden": 15}, r"hidden \(15\) must be a multiple of heads \(2\)"),
    ({"batch_graphs": 7}, "batch_graphs must be even and at least 4, got 7"),
    ({"batch_graphs": 2}, "batch_graphs must be even"),
])
def test_impossible_configurations_are_refused(change: dict, message: str) -> None:
    with pytest.raises(CGError, match=message):
        EncoderConfig(**change)


def test_configurations_by_name() -> None:
    assert EncoderConfig.named("default") == EncoderConfig.default()
    assert EncoderConfig.named("paper").name == "paper"
    assert EncoderConfig.named(SMALL) is SMALL
    with pytest.raises(CGError, match="unknown encoder configuration 'big'; there are: default, paper"):
        EncoderConfig.named("big")


def test_configurations_survive_as_dictionaries() -> None:
    for c in (SMALL, EncoderConfig.paper()):
        assert EncoderConfig.from_dict(dataclasses.asdict(c)) == c
    assert EncoderConfig.from_dict({"temperature": 1}).temperature == 1
    for values, message in (({"hiden": 3}, "unknown encoder setting 'hiden'"),
                            ({"hidden": "3"}, "'hidden' must be int, got '3'"),
                            ({"hidden": 3.0}, "'hidden' must be int"), ({"name": 3}, "'name' must be str")):
        with pytest.raises(CGError, match=message):
            EncoderConfig.from_dict(values)


def test_a_remembered_graph_is_embedded_once(small_graphs: list[Graph]) -> None:
    asked: list[int] = []

    class Counting(Encoder):
        def embed(self, graphs: Iterable[Graph]) -> np.ndarray:
            graphs = list(graphs)
            asked.append(len(graphs))
            return super().embed(graphs)

    encoder = Counting(SMALL)
    expected = Encoder.embed(encoder, small_graphs)
    remembered = Remembered(encoder, {small_graphs[0].digest: np.full(SMALL.embedding, 7.0, np.float32)})
    first = remembered.embed(small_graphs[:3] + small_graphs[1:2])
    assert (first[0] == 7.0).all()
    np.testing.assert_allclose(first[1:3], expected[1:3], atol=1e-5)
    np.testing.assert_array_equal(first[3], first[1])
    remembered.embed(small_graphs[:4])
    assert asked == [2, 1]
