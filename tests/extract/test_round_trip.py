"""Law 2: a graph becomes a module that trains, and the module's graph is the graph again."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from test_torch_operators import SEVERAL, SINGLE, Of  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from cg import Graph, GraphBuilder  # noqa: E402
from cg.spec import NodeSpec  # noqa: E402
from evo_search import get_space  # noqa: E402
from extract import ExtractionError, from_torch, to_torch  # noqa: E402
from extract.torch_build import round_trip  # noqa: E402
from extract.zoo import import_torchvision  # noqa: E402


def trains(graph: Graph, batch: int = 2) -> float:
    """Share of the parameters of the rebuilt module that one backward pass reaches with finite gradients."""
    module = to_torch(graph)
    assert sum(p.numel() for p in module.parameters()) == graph.params
    outputs = module(*module.example_inputs(batch))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    loss = sum(y.float().sin().mean() for y in outputs)
    assert torch.isfinite(loss)
    loss.backward()
    parameters = list(module.parameters())
    return sum(p.grad is not None and bool(p.grad.isfinite().all()) for p in parameters) / len(parameters)


pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'", "ignore:LSTM with projections")

# ---- single operators -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*SINGLE, *SEVERAL])
def test_each_kind_of_operator_comes_back(name: str) -> None:
    model, shapes = SINGLE[name][:2] if name in SINGLE else SEVERAL[name][:2]
    module = model if isinstance(model, nn.Module) else Of(model)
    graph = from_torch(module, [shapes] if name in SINGLE else list(shapes)).graph
    assert round_trip(graph) is None
    built = to_torch(graph).eval()
    outputs = built(*built.example_inputs())
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    assert [tuple(y.shape) for y in outputs] == [graph.nodes[i].out_shape for i in graph.outputs]


MORE: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "same pads at one end": (lambda: nn.Conv2d(3, 4, 4, padding="same"), (1, 3, 9, 9)),
    "attention with a boolean mask": (lambda: Of(lambda x, m: F.scaled_dot_product_attention(x, x, x, m > 0)),
                                      [(1, 2, 5, 8), (5, 5)]),
    "masked scores": (lambda: Of(lambda x, m: F.softmax(x.masked_fill(m > 0, float("-inf")), -1)), [(1, 5, 5), (5, 5)]),
    "more query heads than key heads": (
        lambda: Of(lambda q, k: F.scaled_dot_product_attention(q, k, k, enable_gqa=True)), [(1, 4, 5, 8), (1, 2, 5, 8)]),
    "recurrent, time first": (lambda: nn.LSTM(8, 6, 2, bidirectional=True), (7, 1, 8)),
    "recurrent, projected, no bias": (lambda: nn.LSTM(8, 6, proj_size=4, bias=False, batch_first=True), (1, 7, 8)),
    "gated recurrent with a state": (lambda: nn.GRU(8, 6, batch_first=True), [(1, 7, 8), (1, 1, 6)]),
    "multi-head attention": (lambda: Of(lambda m, x: m.a(x, x, x)[0], a=nn.MultiheadAttention(8, 2, batch_first=True)),
                             (1, 5, 8)),
    "weight normalisation": (lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), (1, 3, 6, 6)),
    "norm without scale but with offset": (
        lambda: Of(lambda m, x: F.layer_norm(x, (8,), None, m.o.bias), o=nn.Linear(1, 8)), (1, 5, 8)),
    "pool that divides otherwise": (lambda: nn.AvgPool2d(2, divisor_override=3), (1, 3, 6, 6)),
    "windows of an image": (lambda: nn.Unfold(3, stride=2), (1, 3, 9, 9)),
    "a write": (lambda: Of(_write), (1, 5, 8)),
}


def _write(x: Any) -> Any:
    y = x * 2
    y[:, 1:3] = x[:, :2]
    return y


@pytest.mark.parametrize("name", MORE)
def test_more_operators_come_back(name: str) -> None:
    make, shapes = MORE[name]
    graph = from_torch(make(), shapes).graph
    assert round_trip(graph) is None
    built = to_torch(graph)
    built(*built.example_inputs())


# ---- networks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nasbench101", "nasbench201", "nasbench301"])
def test_networks_of_the_search_spaces_come_back(name: str) -> None:
    space, rng = get_space(name), np.random.default_rng(0)
    graphs = [space.to_graph(space.sample(rng)) for _ in range(4)]
    assert [round_trip(g) for g in graphs] == [None] * 4
    assert trains(graphs[0]) == 1


SMALL = ("resnet18", "vit_tiny_patch16_224", "convnext_atto", "mobilenetv3_small_050", "swin_tiny_patch4_window7_224",
         "efficientnet_b0", "levit_128s", "xcit_nano_12_p8_224", "coat_lite_tiny", "nf_regnet_b0", "sequencer2d_s",
         "volo_d1_224", "test_efficientnet_evos", "tf_efficientnet_cc_b0_4e")
TRAINED = SMALL[:5]


def timm_graph(name: str) -> Graph:
    timm = timm_module()
    config = timm.models.get_pretrained_cfg(name)
    shape = (1, *(config.input_size if config else (3, 224, 224)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return from_torch(lambda: timm.create_model(name), shape).graph


def timm_module() -> Any:
    if find_spec("timm") is None or find_spec("torchvision") is None:
        pytest.skip("needs timm")
    import_torchvision()
    import timm

    return timm


@pytest.mark.parametrize("name", SMALL)
def test_networks_of_timm_come_back(name: str) -> None:
    timm_module()
    graph = timm_graph(name)
    assert round_trip(graph) is None
    if name in TRAINED:
        assert trains(graph) == 1


@pytest.mark.slow
def test_one_network_of_each_module_of_timm_comes_back() -> None:
    timm = timm_module()
    failed = {}
    for module in timm.list_modules():
        names = timm.list_models(module=module)
        if not names:
            continue
        graph = timm_graph(min(names, key=len))
        if not graph.unknown and (said := round_trip(graph)):
            failed[module] = said
    assert not failed


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bert", "gpt2", "t5", "roberta"])
def test_networks_on_tokens_come_back_and_train(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    if find_spec("torchvision"):
        import_torchvision()  # transformers imports it
    ids = torch.zeros(1, 16, dtype=torch.int64)
    make, inputs = {
        "bert": (lambda: transformers.BertModel(transformers.BertConfig(num_hidden_layers=2)), {"input_ids": ids}),
        "gpt2": (lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=2, use_cache=False)), {"input_ids": ids}),
        "t5": (lambda: transformers.T5Model(transformers.T5Config(num_layers=2, use_cache=False)),
               {"input_ids": ids, "decoder_input_ids": ids}),
        "roberta": (lambda: transformers.RobertaModel(transformers.RobertaConfig(num_hidden_layers=2)), {"input_ids": ids}),
    }[name]
    graph = from_torch(make, inputs).graph
    assert round_trip(graph) is None
    assert trains(graph) == 1


# ---- the same function: weights copied from the model give its outputs ---------------------------------------------


@pytest.mark.parametrize(("name", "close"), [
    ("resnet18", 1e-6), ("mobilenetv3_small_050", 1e-6), ("levit_128s", 1e-5),
    ("vit_tiny_patch16_224", 1e-4),  # from here on the network has an epsilon of its own, which no graph keeps
    ("convnext_atto", 1e-4), ("swin_tiny_patch4_window7_224", 1e-4), ("twins_svt_small", 1e-4)])
def test_with_copied_weights_the_module_computes_what_the_network_does(
        name: str, close: float, monkeypatch: pytest.MonkeyPatch) -> None:
    from copied_weights import copy_weights, watched

    timm = timm_module()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model(name).eval()
        images = torch.randn(2, *model.default_cfg["input_size"])
        with torch.no_grad():
            for key, p in model.named_parameters():
                if "bias_table" in key or "attention_biases" in key:
                    p.zero_()  # gathered by positions that a graph does not keep
                elif p.ndim == 1:
                    p.add_(torch.randn_like(p) * 0.2)
            for key, mask in model.named_buffers():
                if "mask" in key:
                    mask.zero_()  # values of constants are not kept either
    graph, used = watched(model, (1, *images.shape[1:]), monkeypatch)
    built = to_torch(graph, seed=3).eval()
    before = built(images).detach()
    assert copy_weights(model, built, used) == len(list(model.parameters()))
    with torch.no_grad():
        expected, got = model(images), built(images)
    assert not torch.allclose(before, expected, atol=100 * close)
    assert torch.allclose(got, expected, atol=close)


# ---- what the module promises -----------------------------------------------------------------------------------


def small(shape: tuple[int, ...] = (1, 3, 8, 8)) -> Graph:
    b = GraphBuilder(name="small")
    x = b.input(shape)
    return b.build(b.linear(b.global_avg_pool(b.relu(b.batch_norm(b.conv2d(x, 4)))), 3))


def test_layers_have_names_and_the_classes_of_torch() -> None:
    assert [(name, type(m)) for name, m in to_torch(small()).named_children()] == [
        ("conv_0", nn.Conv2d), ("batch_norm_0", nn.BatchNorm2d), ("linear_0", nn.Linear)]


def test_weights_depend_on_the_seed_alone_and_leave_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, again, other = to_torch(small(), seed=1), to_torch(small(), seed=1), to_torch(small(), seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.conv_0.weight, again.conv_0.weight)
    assert not torch.equal(first.conv_0.weight, other.conv_0.weight)
    assert first.training


def test_on_the_meta_device_no_weight_is_made() -> None:
    assert all(p.is_meta for p in to_torch(small(), device="meta").parameters())


def test_a_batch_of_any_size_is_several_single_images() -> None:
    module = to_torch(small()).eval()
    images, = module.example_inputs(batch=5)
    assert torch.allclose(module(images), torch.cat([module(i[None]) for i in images]), atol=1e-6)


def test_batches_run_through_attention_and_windows() -> None:
    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.out = nn.Linear(6, 18), nn.Linear(6, 6)
            self.mask = nn.Buffer(torch.randn(4, 1, 9, 9))

        def forward(self, x: Any) -> Any:  # (B, 6, 6, 6) in four windows of nine
            b = x.shape[0]
            x = x.reshape(b, 2, 3, 2, 3, 6).transpose(2, 3).reshape(b * 4, 9, 6)
            q, k, v = self.qkv(x).reshape(b * 4, 9, 3, 2, 3).permute(2, 0, 3, 1, 4).unbind(0)
            scores = (q @ k.transpose(-2, -1)).reshape(b, 4, 2, 9, 9) + self.mask
            x = self.out((scores.reshape(b * 4, 2, 9, 9).softmax(-1) @ v).transpose(1, 2).reshape(b * 4, 9, 6))
            return x.reshape(b, 2, 2, 3, 3, 6).transpose(2, 3).reshape(b, 6, 6, 6).mean((1, 2))

    graph = from_torch(Windows(), (1, 6, 6, 6)).graph
    module = to_torch(graph).eval()
    x, = module.example_inputs(batch=3)
    assert torch.allclose(module(x), torch.cat([module(i[None]) for i in x]), atol=1e-6)
    assert round_trip(graph) is None


def test_a_constant_for_each_window_is_repeated_for_a_larger_batch() -> None:
    model = Of(lambda m, x: m.layer(x).reshape(-1, 9, 6) + m.offset.weight, layer=nn.Linear(6, 6),
               offset=Of(lambda x: x))
    model.offset.weight = nn.Parameter(torch.randn(4, 9, 6))
    module = to_torch(from_torch(model, (1, 36, 6)).graph).eval()
    x, = module.example_inputs(batch=3)
    assert torch.allclose(module(x), torch.cat([module(i[None]) for i in x]), atol=1e-6)


def test_keys_of_square_shape_are_transposed(monkeypatch: pytest.MonkeyPatch) -> None:
    from copied_weights import copy_weights, watched

    model = Of(lambda m, x: F.scaled_dot_product_attention(m.q(x), m.k(x), x), q=nn.Linear(8, 8), k=nn.Linear(8, 8))
    graph, used = watched(model, (1, 8, 8), monkeypatch)
    module = to_torch(graph)
    assert copy_weights(model, module, used) == 4
    x, = module.example_inputs()
    assert torch.allclose(module(x), model(x), atol=1e-6)


def test_tokens_and_masks_get_values_in_range() -> None:
    model = Of(lambda m, ids, mask: m.table(ids) * mask[..., None], table=nn.Embedding(7, 4))
    graph = from_torch(model, [torch.zeros(1, 50, dtype=torch.int64), torch.ones(1, 50)]).graph
    examples = to_torch(graph).example_inputs(batch=2)
    tokens = next(x for x in examples if not x.is_floating_point())
    assert tokens.shape == (2, 50)
    assert set(tokens.unique().tolist()) == set(range(7))
    assert any(bool((x == 1).all()) for x in examples if x.is_floating_point())


def test_a_copy_and_a_pickle_of_the_module_compute_the_same() -> None:
    module = to_torch(small()).eval()
    x = module.example_inputs()
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(twin(*x), module(*x))
        with torch.no_grad():
            twin.conv_0.weight.zero_()
        assert not torch.equal(twin(*x), module(*x))


# ---- parameters: shared, fixed, partly trained --------------------------------------------------------------------


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(11, 4), nn.Linear(4, 11, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids: Any) -> Any:
        return self.head(self.table(ids))


def test_a_tied_weight_is_tied_again() -> None:
    graph = from_torch(Tied(), torch.zeros(1, 5, dtype=torch.int64)).graph
    module = to_torch(graph)
    assert module.linear_0.weight is module.embedding_0.weight
    assert sum(p.numel() for p in module.parameters()) == 44
    assert round_trip(graph) is None


def conv_with(extra: int) -> Graph:
    b = GraphBuilder()
    x = b.input((1, 4, 6, 6))
    attrs = (("dilations", (1, 1)), ("group", 4), ("kernel_shape", (3, 3)), ("pads", (1, 1, 1, 1)), ("strides", (1, 1)))
    return b.build(b.add_node(NodeSpec("Conv", ((1, 4, 6, 6),), (1, 4, 6, 6), (4, 1, 3, 3), False, attrs, extra), [x]))


@pytest.mark.parametrize(("extra", "trained"), [(0, 36), (-36, 0), (-30, 6), (4, 40), (7, 43), (100, 136)])
def test_a_layer_trains_as_many_scalars_as_its_node_counts(extra: int, trained: int) -> None:
    module = to_torch(conv_with(extra))
    assert sum(p.numel() for p in module.parameters()) == trained
    assert round_trip(conv_with(extra)) is None
    if trained:
        module(*module.example_inputs()).sin().sum().backward()
        assert all(bool((p.grad != 0).all()) for p in module.parameters())


def test_a_fixed_filter_is_a_buffer_that_averages() -> None:
    assert torch.equal(to_torch(conv_with(-36)).conv_0.weight, torch.full((4, 1, 3, 3), 1 / 9))


# ---- refusals ---------------------------------------------------------------------------------------------------


def single(op: str, shape: tuple[int, ...], out: tuple[int, ...], **attrs: Any) -> Graph:
    b = GraphBuilder(name="net")
    return b.build(b.op(op, [b.input(shape)], out, **attrs))


def test_unknown_nodes_are_refused_by_name() -> None:
    with pytest.raises(ExtractionError, match=r"net.*Unknown.*strange"):
        to_torch(single("Unknown", (1, 4), (1, 4), name="strange"))


def test_an_operator_that_torch_lacks_is_refused_by_node() -> None:
    graph = single("STFT", (1, 64), (1, 4, 9, 2))
    with pytest.raises(ExtractionError, match=r"node 1.*STFT"):
        to_torch(graph)
    assert round_trip(graph) is None  # which needs shapes alone


def test_wrong_inputs_are_refused() -> None:
    module = to_torch(small())
    with pytest.raises(ExtractionError, match=r"input 0 must have shape \(1, 3, 8, 8\) \(any batch size\), got \(1, 3, 9, 8\)"):
        module(torch.zeros(1, 3, 9, 8))
    with pytest.raises(ExtractionError, match="takes 1 inputs"):
        module()


def test_a_graph_that_mixes_its_batch_runs_with_the_recorded_size_only() -> None:
    module = to_torch(from_torch(nn.Sequential(nn.Linear(4, 4), Of(lambda x: x.sum(0, keepdim=True))), (1, 4)).graph)
    module(torch.zeros(1, 4))
    with pytest.raises(ExtractionError, match=r"batch size 1 only, got 2.*ReduceSum"):
        module(torch.zeros(2, 4))


def test_a_node_that_fails_is_named() -> None:
    with pytest.raises(ExtractionError, match=r"'net', node 1 .Einsum"):
        to_torch(single("Einsum", (1, 4), (1, 4), equation="abc->ab", macs=0))(torch.zeros(1, 4))
