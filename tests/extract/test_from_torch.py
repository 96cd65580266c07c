"""``from_torch``: inputs, parameters and constants, untouched models, errors that name the place, threads."""

from __future__ import annotations

import copy
import subprocess
import sys
import threading
from collections import Counter
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch.overrides import _get_current_function_mode_stack  # noqa: E402
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack  # noqa: E402

from cg import CGError  # noqa: E402
from extract import ExtractionError, ExtractionWarning, from_torch  # noqa: E402


def small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Dropout(), nn.Flatten(),
                         nn.Linear(8 * 6 * 6, 4))


SMALL_OPS = ["Input", "Conv", "BatchNormalization", "Relu", "Gemm"]


@pytest.mark.parametrize("inputs", [
    (1, 3, 8, 8), [1, 3, 8, 8], [(1, 3, 8, 8)], torch.zeros(1, 3, 8, 8), [torch.zeros(1, 3, 8, 8)],
    {"input": (1, 3, 8, 8)}, {"input": torch.zeros(1, 3, 8, 8)}], ids=str)
def test_every_form_of_example_input(inputs: Any) -> None:
    graph = from_torch(small(), inputs, name="n", family="f").graph
    assert graph.ops == SMALL_OPS
    assert graph.nodes[0].out_shape == (1, 3, 8, 8)
    assert (graph.name, graph.family) == ("n", "f")


def test_integer_tokens_and_keyword_arguments() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(50, 8), nn.Linear(8, 50, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, tokens: torch.Tensor, mask: torch.Tensor | None = None, scale: float = 1.0) -> Any:
            x = self.embed(tokens) * scale
            return {"logits": self.head(x if mask is None else x * mask), "scale": scale}

    result = from_torch(Model(), {"tokens": torch.zeros(1, 5, dtype=torch.long), "mask": (1, 5, 1), "scale": 2.0})
    assert sorted(result.graph.ops) == ["Embedding", "Gemm", "Input", "Input", "Mul", "Mul"]
    assert result.graph.params == 400  # the tied weight counts once
    assert any("embed.weight" in note and "again" in note for note in result.notes)
    assert result.graph.macs == 5 * 8 * 50


def test_the_model_is_not_touched_and_not_run() -> None:
    model = small()
    model.train()
    model[4].eval()
    model[0].register_forward_hook(lambda *a: None)
    before = copy.deepcopy(model.state_dict())
    flags = [m.training for m in model.modules()]
    identities = [(name, id(p), p.data_ptr(), p.requires_grad) for name, p in model.named_parameters()]
    from_torch(model, (1, 3, 8, 8))
    assert [m.training for m in model.modules()] == flags
    assert [(name, id(p), p.data_ptr(), p.requires_grad) for name, p in model.named_parameters()] == identities
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[k], before[k]) for k in before)
    out = model(torch.zeros(2, 3, 8, 8))
    assert not out.is_meta
    out.sum().backward()  # no parameter was left in inference mode


def test_training_mode_makes_no_difference() -> None:
    model = small()
    assert from_torch(model.train(), (1, 3, 8, 8)).graph == from_torch(model.eval(), (1, 3, 8, 8)).graph


def test_a_factory_allocates_no_weights() -> None:
    made: list[nn.Module] = []

    def factory() -> nn.Module:
        made.append(nn.Linear(200_000, 200_000))  # 160 GB if it were real
        return made[0]

    graph = from_torch(factory, (1, 200_000)).graph
    assert graph.params == 200_000 ** 2 + 200_000
    assert all(p.is_meta for p in made[0].parameters())


@pytest.mark.parametrize(("reads_weight", "noted"), [(False, False), (True, True)])
def test_a_factory_that_reads_weights_is_built_on_the_cpu_without_moving_the_random_state(reads_weight: bool,
                                                                                          noted: bool) -> None:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, int(torch.linspace(1, 3, 2)[1].item()))
            self.scale = float(self.layer.weight.mean()) if reads_weight else 2.0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x)

    state = torch.random.get_rng_state()
    result = from_torch(Reads, (1, 4))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert result.graph.params == 15
    assert any("built on the CPU" in note for note in result.notes) == noted


class WithConstants(nn.Module):
    """Parameters and buffers that are used without a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(1, 10, 8))
        self.unused = nn.Parameter(torch.zeros(7))
        self.register_buffer("mask", torch.ones(5, 5))
        self.table = [torch.arange(10)]  # registered nowhere

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.position[:, self.table[0][:5]] * 2
        scores = x @ x.transpose(1, 2) * self.mask
        return scores @ (x + self.position[:, 5:])


def test_parameters_used_directly_are_constants_that_count_once() -> None:
    graph = from_torch(WithConstants(), (1, 5, 8)).graph
    assert graph.op_counts == Counter({"Constant": 3, "Add": 2, "MatMul": 2, "Input": 1, "Mul": 1})
    assert graph.params == 80
    shapes = sorted((n.out_shape, n.extra_params) for n in graph.nodes if n.op == "Constant")
    assert [s for s, _ in shapes] == [(5, 5), (5, 8), (5, 8)]
    assert sorted(p for _, p in shapes) == [0, 0, 80]


def test_weights_that_are_computed_or_fixed() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.gain = nn.Parameter(torch.ones(4, 3, 3, 3)), nn.Parameter(torch.ones(4, 1, 1, 1))
            self.register_buffer("blur", torch.ones(4, 1, 3, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            w = self.weight
            w = (w - w.mean((1, 2, 3), keepdim=True)) * self.gain  # weight standardisation
            return F.conv2d(F.conv2d(x, w), self.blur, groups=4)

    graph = from_torch(Model(), (1, 3, 8, 8)).graph
    assert graph.ops == ["Input", "Conv", "Conv"]
    assert [n.weight_shape for n in graph.nodes] == [(), (4, 3, 3, 3), (4, 1, 3, 3)]
    assert [n.params for n in graph.nodes] == [0, 4 * 27 + 4, 0]
    assert graph.macs == 4 * 36 * 27 + 4 * 16 * 9


def test_spectral_and_weight_norm_parametrisations() -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), nn.ReLU())
    graph = from_torch(model, (1, 4)).graph
    assert graph.ops == ["Input", "Gemm", "Relu"]
    assert graph.params == sum(p.numel() for p in model.parameters()) == 3 + 12 + 3


def test_dynamic_weights_are_arguments() -> None:
    graph = from_torch(_Function(lambda x, w: F.conv2d(x, w)), [(1, 3, 8, 8), (4, 3, 3, 3)]).graph
    assert sorted(graph.ops) == ["Conv", "Input", "Input"]
    assert graph.params == 0
    assert graph.macs == 4 * 36 * 27


def test_outputs_of_any_structure_and_pruning() -> None:
    def forward(x: torch.Tensor) -> Any:
        x.exp()  # nobody reads it
        return {"a": [x.relu()], "b": (x.tanh(), None, 3), "same": x.relu_() if False else x.sigmoid(),
                "constant": torch.zeros(2)}

    result = from_torch(_Function(forward), (1, 4))
    assert sorted(result.graph.ops) == ["Input", "Relu", "Sigmoid", "Tanh"]
    assert len(result.graph.outputs) == 3
    assert any("does not depend on the inputs" in note for note in result.notes)


def test_a_view_from_before_a_write_is_noted() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        part = y[:, :2]
        y += 1
        return part * 3

    result = from_torch(_Function(forward), (1, 4))
    assert any("written to after the view was taken" in note for note in result.notes)

    def fresh(x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        y += 1
        return y[:, :2] * 3

    result = from_torch(_Function(fresh), (1, 4))
    assert result.notes == []
    assert result.graph.ops == ["Input", "Add", "Slice", "Mul"]


@pytest.mark.parametrize(("tensor", "expected"), [
    (torch.zeros(4, 3), True), (torch.zeros(4, 3).t(), True), (torch.zeros(4, 3).view(2, 6), True),
    (torch.zeros(4, 3)[1:], False), (torch.zeros(4, 3)[:, :1], False), (torch.zeros(4, 1).expand(4, 3), False),
    (torch.zeros(4, 1).expand(4, 2)[:2], False), (torch.zeros(()), True),
], ids=range(8))
def test_which_views_show_every_value_once(tensor: torch.Tensor, expected: bool) -> None:
    from extract.torch_recorder import shows_all

    assert shows_all(tensor) is expected


def test_results_kept_in_a_model_do_not_hinder_its_copy() -> None:
    """torch refuses to copy a tensor that was computed with gradients."""
    model = small()
    model.kept = [nn.Linear(2, 2)(torch.zeros(1, 2))]
    assert from_torch(model, (1, 3, 8, 8)).graph.ops == SMALL_OPS


class _Function(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


def test_unknown_operator_is_kept_counted_and_warned_about() -> None:
    model = nn.Sequential(nn.ReLU(), _Function(torch.acos), _Function(torch.linalg.pinv))
    with pytest.warns(ExtractionWarning, match=r"acos \(1\), linalg_pinv \(1\)"):
        result = from_torch(model, (1, 2, 5, 4))
    assert result.graph.ops == ["Input", "Relu", "Unknown", "Unknown"]
    assert result.unknown == Counter({"acos": 1, "linalg_pinv": 1}) == result.graph.unknown
    assert any(note.startswith("linalg_pinv in 2 ") for note in result.notes)
    assert result.graph.nodes[3].out_shape == (1, 2, 4, 5)


def test_what_is_ignored_is_counted() -> None:
    assert from_torch(small(), (1, 3, 8, 8)).ignored == Counter({"dropout": 1, "flatten": 1})


class _Branches(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum().item() > 0 else -x


def test_reading_a_value_names_the_module_and_says_what_to_do() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Sequential(nn.Linear(4, 4), _Branches()))
    with pytest.raises(ExtractionError, match=r"module '1\.1' \(_Branches\).*needs the value of a tensor") as caught:
        from_torch(model, (1, 4))
    assert isinstance(caught.value, CGError)
    assert _get_current_dispatch_mode_stack() == []
    assert _get_current_function_mode_stack() == []
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize(("model", "inputs", "message"), [
    (lambda: nn.Sequential(nn.Linear(4, 4), nn.Linear(5, 4)), (1, 4), r"module '1' \(Linear\).*check the shapes"),
    (lambda: nn.Linear(4, 4), [(1, 4), (1, 4)], "arguments of the model's forward"),
    (lambda: nn.Linear(4, 4), (), "give a tensor, a shape such as"),
    (lambda: nn.Linear(4, 4), "1x4", "give a tensor, a shape such as"),
    (lambda: nn.Linear(4, 4), (0, 4), "positive sizes"),
    (lambda: 3, (1, 4), "returned int, not a torch.nn.Module"),
    (nn.Linear, (1, 4), "called without arguments"),
    (3, (1, 4), "needs a torch.nn.Module or a function"),
    (nn.LazyLinear(3), (1, 4), "lazy layers"),
    (_Function(lambda x: torch.zeros(3)), (1, 4), "no output of _Function depends"),
    (_Function(lambda x: 5), (1, 4), r"\(int\) holds no tensor"),
])
def test_bad_input_gives_one_clear_error(model: Any, inputs: Any, message: str) -> None:
    if isinstance(model, nn.Module) and isinstance(model, nn.LazyLinear):
        model = nn.Sequential(model)
    with pytest.raises(ExtractionError, match=message):
        from_torch(model, inputs)


def test_a_model_that_cannot_be_copied_asks_for_a_factory() -> None:
    model = nn.ReLU()
    model.lock = threading.Lock()
    with pytest.raises(ExtractionError, match=r"cannot be copied.*pass a function"):
        from_torch(model, (1, 4))
    assert _get_current_function_mode_stack() == []


def test_threads_do_not_see_each_other() -> None:
    shared, results = small(), {}

    def work(i: int) -> None:
        own = nn.Sequential(*[nn.Linear(4, 4) for _ in range(i + 1)])
        for _ in range(3):
            results[i] = from_torch(own, (1, 4)).graph.n_nodes, from_torch(shared, (1, 3, 8, 8)).graph.ops

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == {i: (i + 2, SMALL_OPS) for i in range(4)}


class _LeavesInferenceMode(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = small()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(False):
            return self.body(x)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # torch about its own wrappers
@pytest.mark.parametrize("wrap", [
    torch.fx.symbolic_trace, torch.compile, torch.jit.script, lambda m: torch.jit.trace(m, torch.zeros(1, 3, 8, 8)),
    nn.DataParallel, lambda m: _LeavesInferenceMode(),
    lambda m: torch.export.export(m, (torch.zeros(1, 3, 8, 8),)).module(),
], ids=["fx", "compile", "script", "trace", "data parallel", "leaves inference mode", "export"])
def test_a_wrapped_model_is_the_same_network(wrap: Any) -> None:
    model = small().eval()
    graph = from_torch(wrap(model), (1, 3, 8, 8)).graph
    assert graph == from_torch(model, (1, 3, 8, 8)).graph
    assert graph.params == sum(p.numel() for p in model.parameters())


class _Residual(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(c, 2 * c, 3, 2, 1), nn.Conv2d(2 * c, 2 * c, 3, padding=1, groups=2)
        self.up, self.shortcut = nn.ConvTranspose2d(2 * c, c, 2, 2), nn.Conv2d(c, 2 * c, 1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.up(F.relu(self.b(F.silu(self.a(x))) + self.shortcut(x)))


@pytest.mark.parametrize(("make", "shape"), [
    (lambda: nn.Sequential(nn.Conv2d(3, 8, 7, 2), _Residual(8), _Residual(8), nn.Flatten(), nn.Linear(8 * 196, 5)),
     (1, 3, 34, 34)),
    (lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), 3, enable_nested_tensor=False),
     (1, 9, 16)),
    (lambda: nn.TransformerDecoderLayer(16, 4, 32), [(7, 1, 16), (5, 1, 16)]),
    (lambda: _Function(lambda a, b: torch.einsum("bhqd,bhkd->bhqk", a, b) @ b), [(2, 3, 7, 4), (2, 3, 6, 4)]),
], ids=["residual", "encoder", "decoder", "einsum"])
def test_macs_are_half_of_what_the_flop_counter_of_torch_counts(make: Any, shape: Any) -> None:
    """An independent oracle: torch.utils.flop_counter counts a multiply-add as two."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    model = make().eval()
    graph = from_torch(model, shape).graph
    inputs = [torch.zeros(s) for s in (shape if isinstance(shape, list) else [shape])]
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # the counter misses the CPU's fused kernel
        model(*inputs)
    assert graph.macs == counter.get_total_flops() // 2 > 0
    assert graph.params == sum(p.numel() for p in model.parameters())


def test_repeated_extraction_gives_the_same_graph() -> None:
    """The second run takes the results of operators from memory."""
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    assert len({from_torch(model, (1, 5, 8)).graph for _ in range(3)}) == 1


def test_import_extract_does_not_import_torch() -> None:
    code = "import sys, extract; extract.Extraction; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert subprocess.run([sys.executable, "-c", code.replace("extract.Extraction", "extract.from_torch")]).returncode == 1
