"""``CGSpace``: edits against networks that were really written so, tied widths, texts, crossover, limits, whole searches."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cg
from cg import Graph, GraphBuilder, canonicalize
from cg.errors import CGError
from evo_search import Constraint, Study, get_space, get_strategy
from evo_search.cgspace import EDITS, CGSpace, Refused, edited
from evo_search.cgspace.edits import apply, propose
from evo_search.cgspace.net import Net

ROOT = Path(__file__).resolve().parents[2]

# ---- graphs with settings: an edit must give what the same network with other settings is ---------------------------


def residual(width: int = 16, inner: int = 16, blocks: int = 1, kernel: int = 3, dilation: int = 1, act: str = "Relu",
             pool: str = "max", separable: bool = False, end: int = 24) -> Graph:
    """Stem, residual blocks, a pool, a wider layer, a classifier."""
    b = GraphBuilder(name="residual")
    x = b.op(act, [b.batch_norm(b.conv2d(b.input((1, 3, 12, 12)), width))])
    for _ in range(blocks):
        y = b.conv2d(x, inner, kernel=kernel, dilation=dilation) if not separable else (
            b.conv2d(b.conv2d(x, width, groups=width), inner, kernel=1))
        y = b.batch_norm(b.conv2d(b.relu(b.batch_norm(y)), width))
        x = b.relu(b.add(y, x))
    x = b.max_pool(x, 2) if pool == "max" else b.avg_pool(x, 2)
    return b.build(b.linear(b.global_avg_pool(b.relu(b.conv2d(x, end, kernel=1, bias=True))), 10))


def find(graph: Graph, op: str, number: int = 0) -> int:
    """The ``number``-th node of an operator, in the graph's order (negative: from the end)."""
    return [i for i, name in enumerate(graph.ops) if name == op][number]


def conv_to(graph: Graph, channels: int, kernel: int) -> int:
    return next(i for i, s in enumerate(graph.nodes) if s.op == "Conv" and s.weight_shape[::2][:2] == (channels, kernel))


BASE = residual(inner=20)
STEM, INNER, END = find(BASE, "Conv"), conv_to(BASE, 20, 3), conv_to(BASE, 24, 1)
ENTRY, EXIT = find(BASE, "Relu"), BASE.inputs_of(find(BASE, "MaxPool"))[0]


@pytest.mark.parametrize(("edits", "wanted"), [
    ([f"width:{INNER}:32"], {"inner": 32}),
    ([f"width:{STEM}:40"], {"width": 40}),
    ([f"width:{END}:8"], {"end": 8}),
    ([f"kernel:{INNER}:7"], {"kernel": 7}),
    ([f"dilation:{INNER}:2"], {"dilation": 2}),
    ([f"kernel:{INNER}:5", f"dilation:{INNER}:2"], {"kernel": 5, "dilation": 2}),
    ([f"activation:{ENTRY}:Gelu"], {"act": "Gelu"}),
    ([f"pool:{find(BASE, 'MaxPool')}:AveragePool"], {"pool": "avg"}),
    ([f"separable:{INNER}"], {"separable": True}),
    ([f"separable:{INNER}", f"dense:{INNER}"], {}),
    ([f"separable:{INNER}", f"width:{STEM}:24"], {"separable": True, "width": 24}),
    ([f"repeat:{ENTRY}:{EXIT}"], {"blocks": 2}),
    ([f"repeat:{ENTRY}:{EXIT}", f"width:{STEM}:24"], {"blocks": 2, "width": 24}),
    ([f"drop:{ENTRY}:{EXIT}"], {"blocks": 0}),
    ([f"width:{INNER}:32", f"width:{INNER}:20"], {}),
])
def test_an_edit_gives_the_network_that_is_written_so(edits: list[str], wanted: dict[str, Any]) -> None:
    assert edited(BASE, *edits) == residual(**{"inner": 20, **wanted})
    assert len(edits) == 1 or all(edited(BASE, e) != BASE for e in edits[:1])


def branches(size: int = 16, skip: bool = False, parallel: int = 0, gate: bool = True) -> Graph:
    """A convolution with a gate, between a stem and a classifier."""
    b = GraphBuilder()
    x = b.relu(b.conv2d(b.input((1, 3, 8, 8)), size, stride=2))
    y = b.batch_norm(b.conv2d(x, size, kernel=5))
    if parallel:
        y = b.add(y, b.batch_norm(b.conv2d(x, size, kernel=parallel)))
    if gate:
        y = b.mul(y, b.op("Sigmoid", [b.conv2d(b.global_avg_pool(y), size, kernel=1)]))
    if skip:
        y = b.add(y, x)
    return b.build(b.linear(b.global_avg_pool(y), 10))


def test_branches_come_and_go() -> None:
    g = branches()
    mul, relu, conv = find(g, "Mul"), find(g, "Relu"), conv_to(g, 16, 5)
    gate = g.inputs_of(mul).index(find(g, "Sigmoid"))
    assert edited(g, f"skip:{relu}:{mul}") == branches(skip=True)
    assert edited(g, f"parallel:{conv}:1") == branches(parallel=1)
    assert edited(g, f"parallel:{conv}:3", f"skip:{relu}:{mul}") == branches(parallel=3, skip=True)
    assert edited(g, f"cut:{mul}:{gate}") == branches(gate=False)
    assert edited(g, f"skip:{relu}:{mul}", f"width:{find(g, 'Conv')}:24") == branches(24, skip=True)
    joined = branches(skip=True)
    add = find(joined, "Add")
    assert edited(joined, f"cut:{add}:{joined.inputs_of(add).index(find(joined, 'Relu'))}") == g


# ---- widths that are tied: each line names the layer whose width is edited and the network that must come out ---------


def joined(a: int = 8) -> Graph:  # joins add up, and a sum with a join fixes nothing else
    b = GraphBuilder()
    x = b.conv2d(b.input((1, 3, 8, 8)), a)
    y = b.relu(b.batch_norm(b.concat([b.conv2d(x, 12), x])))
    return b.build(b.linear(b.global_avg_pool(b.conv2d(y, 10, kernel=1)), 5))


def halves(a: int = 16) -> Graph:  # a gated linear unit
    b = GraphBuilder()
    x = b.conv2d(b.input((1, 3, 8, 8)), a)
    shape = (1, a // 2, 8, 8)
    low = b.op("Slice", [x], shape, axes=(1,), starts=(0,), ends=(a // 2,))
    high = b.op("Slice", [x], shape, axes=(1,), starts=(a // 2,), ends=(a,))
    return b.build(b.linear(b.global_avg_pool(b.mul(low, b.op("Sigmoid", [high]))), 5))


def flattened(a: int = 8) -> Graph:  # pixels and channels become features
    b = GraphBuilder()
    x = b.relu(b.conv2d(b.input((1, 3, 8, 8)), a, stride=2))
    return b.build(b.linear(b.relu(b.linear(x, 30)), 5))


def grouped(a: int = 32, norm_groups: int = 4) -> Graph:
    b = GraphBuilder()
    x = b.relu(b.conv2d(b.input((1, 3, 8, 8)), a))
    x = b.op("GroupNormalization", [b.conv2d(x, 24, groups=4)], weight_shape=(24,), bias=True,
             num_groups=norm_groups)
    return b.build(b.linear(b.global_avg_pool(x), 5))


def two_inputs() -> Graph:
    b = GraphBuilder()
    return b.build(b.linear(b.add(*(b.relu(b.linear(b.input((1, n)), 8)) for n in (4, 6))), 3))


def tokens(width: int = 24, hidden: int = 40, blocks: int = 1) -> Graph:
    """Transformer blocks on the 9 patches of an image: 2 heads of 8, embedding, layer scale, hidden layer."""
    b = GraphBuilder()

    def norm(x: int) -> int:
        return b.op("LayerNormalization", [x], weight_shape=(width,), bias=True, axis=-1)

    def part(x: int, i: int) -> int:
        attrs = (("axes", (0,)), ("ends", (i + 1,)), ("starts", (i,)))
        return seen("Slice", [x], ((3, 1, 2, 9, 8),), (1, 1, 2, 9, 8), attrs=attrs)

    def trained(*shape: int) -> int:
        return b.add_node(cg.spec.NodeSpec("Constant", (), shape, extra_params=int(np.prod(shape))), [])

    def seen(op: str, inputs: list[int], ins: tuple[tuple[int, ...], ...], out: tuple[int, ...], **more: Any) -> int:
        return b.add_node(cg.spec.NodeSpec(op, ins, out, **more), inputs)

    image = b.conv2d(b.input((1, 3, 12, 12)), width, kernel=4, stride=4, padding=0, bias=True)
    x = seen("Add", [image, trained(1, 9, width)], ((1, 9, width), (1, 9, width)), (1, 9, width))
    for _ in range(blocks):
        qkv = b.linear(norm(x), 48)
        q, k, v = (part(qkv, i) for i in range(3))
        scores = seen("MatMul", [q, k], ((1, 2, 9, 8), (1, 2, 8, 9)), (1, 2, 9, 9))
        heads = seen("MatMul", [b.op("Softmax", [scores], axis=3), v], ((1, 2, 9, 9), (1, 2, 9, 8)), (1, 2, 9, 8))
        out = seen("Gemm", [heads], ((1, 9, 16),), (1, 9, width), weight_shape=(width, 16), bias=True)
        x = b.add(x, b.mul(out, trained(width)))
        x = b.add(x, b.linear(b.op("Gelu", [b.linear(norm(x), hidden)]), width))
    return canonicalize(b.build(b.linear(b.op("ReduceMean", [norm(x)], (1, width), axes=(1,)), 5)))


def gemm_to(graph: Graph, features: int) -> int:
    return next(i for i, s in enumerate(graph.nodes) if s.op == "Gemm" and s.weight_shape[0] == features)


@pytest.mark.parametrize(("make", "layer", "size"), [
    (joined, lambda g: conv_to(g, 8, 3), 24), (halves, lambda g: find(g, "Conv"), 40),
    (flattened, lambda g: find(g, "Conv"), 12), (grouped, lambda g: find(g, "Conv"), 20),
    (tokens, lambda g: find(g, "Conv"), 32), (lambda n=40: tokens(hidden=n), lambda g: gemm_to(g, 40), 64)])
def test_tied_widths_change_together(make: Callable[..., Graph], layer: Callable[[Graph], int], size: int) -> None:
    g = make()
    assert edited(g, f"width:{layer(g)}:{size}") == make(size) != g


def test_a_repeated_block_has_constants_of_its_own() -> None:
    g = tokens()
    adds = [i for i, op in enumerate(g.ops) if op == "Add"]
    assert edited(g, f"repeat:{adds[0]}:{adds[-1]}") == tokens(blocks=2)
    assert edited(g, f"drop:{adds[0]}:{adds[-1]}") == tokens(blocks=0)


@pytest.mark.parametrize(("make", "edit", "why"), [
    (tokens, lambda g: f"width:{gemm_to(g, 48)}:96", "split, as heads are"),
    (tokens, lambda g: f"width:{g.outputs[0]}:6", "leaves the network"),
    (grouped, lambda g: f"width:{find(g, 'Conv')}:34", "multiple of 4"),
    (lambda: grouped(norm_groups=6), lambda g: f"width:{find(g, 'Conv', 1)}:28", "multiple of 6"),
    (halves, lambda g: f"width:{find(g, 'Conv')}:17", "dimension of 8.5"),
    (residual, lambda g: f"width:{find(g, 'Conv')}:0", "at least 1"),
    (residual, lambda g: f"kernel:{find(g, 'Conv')}:4", "allowed are 5, 7"),
    (residual, lambda g: f"kernel:{find(g, 'Relu')}:5", "no convolution"),
    (residual, lambda g: f"skip:{find(g, 'Relu')}:{find(g, 'MaxPool')}", "cannot be added"),
    (residual, lambda g: f"skip:{find(g, 'Add')}:{find(g, 'Relu')}", "would read itself"),
    (residual, lambda g: f"drop:{find(g, 'Conv')}:{find(g, 'Conv', -1)}", "shape changes"),
    (residual, lambda g: f"repeat:{find(g, 'Conv', 1)}:{find(g, 'Add')}", "not the ends of one part"),
    (residual, lambda g: f"cut:{find(g, 'Relu')}:0", "cannot lose"),
    (two_inputs, lambda g: f"cut:{find(g, 'Add')}:0", "an input of the network would not be read"),
    (residual, lambda g: f"activation:{find(g, 'Relu')}:Sigmoid", "no activation"),
    (residual, lambda g: "width:999:8", "no node 999")])
def test_what_does_not_apply_is_refused_with_the_reason(make: Callable[[], Graph], edit: Callable[[Graph], str],
                                                        why: str) -> None:
    g = make()
    with pytest.raises(Refused, match=why):
        edited(g, edit(g))


@pytest.mark.parametrize("text", ["nothing:1", "kernel:1", "kernel:1:3:5", "width:1:-8", "kernel::3", "kernel:1:3;"])
def test_a_text_that_is_no_edit_is_named(text: str) -> None:
    with pytest.raises(CGError, match=re.escape(text)):
        edited(BASE, text)
    for bad in (text, "", f"kernel:1:5 {text}"):
        with pytest.raises(CGError):
            CGSpace(BASE).decode(bad)


# ---- random networks ------------------------------------------------------------------------------------------------


def nb201() -> Graph:
    space = get_space("nasbench201")
    cell = "|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"
    return space.to_graph(space.decode(cell))


def timm_graph(name: str) -> Graph:
    if find_spec("timm") is None or find_spec("torchvision") is None:
        pytest.skip("needs timm")
    from extract import from_torch
    from extract.zoo import import_torchvision

    import_torchvision()
    import timm

    return from_torch(lambda: timm.create_model(name), (1, 3, 224, 224), name=name).graph


# the edits that nothing in the network admits
ABSENT: dict[str, set[str]] = {
    "nasbench201": {"dense"}, "resnet18": {"dense"}, "mobilenetv3_small_100": set(), "convnext_atto": {"separable"},
    "vit_tiny_patch16_224": {"pool", "kernel", "dilation", "separable", "dense", "parallel"}}


@pytest.mark.parametrize("name", ABSENT)
def test_every_random_network_is_canonical_valid_and_comes_back_from_torch(name: str) -> None:
    torch = pytest.importorskip("torch")
    from extract.torch_build import round_trip

    space = CGSpace(nb201() if name == "nasbench201" else timm_graph(name))
    rng = np.random.default_rng(11)
    net, kinds = Net.of(space.base), set()
    for kind in EDITS:  # each kind that applies, alone
        edit = next((e for _ in range(10) if (e := propose(net, [kind], rng)) and not space.why_invalid((e,))), None)
        if edit is None:
            continue
        kinds.add(kind)
        graph = space.to_graph((edit,))
        assert graph != space.base, edit
        assert canonicalize(graph) == graph.validate()
        assert round_trip(graph) is None, edit
    assert set(EDITS) - kinds == ABSENT[name]
    for i in range(6):  # and several together
        a = space.mutate(space.sample(rng), rng)
        graph = space.to_graph(a)
        assert canonicalize(graph) == graph.validate()
        assert round_trip(graph) is None, space.encode(a)
        assert [graph.nodes[o].out_shape for o in graph.outputs] == [space.base.nodes[o].out_shape for o in space.base.outputs]
        if i == 0:
            module = space.to_torch(a)
            with torch.no_grad():
                out = module(*module.example_inputs(batch=2))
            assert out.shape == (2, space.num_classes)
            assert bool(out.isfinite().all())


def test_genomes_obey_the_contract_of_spaces() -> None:
    space, rng = CGSpace(BASE, depth=4), np.random.default_rng(0)
    assert space.input_shape == (1, 3, 12, 12)
    assert space.num_classes == 10
    assert space.to_graph(()) == BASE
    a = space.sample(rng)
    for _ in range(150):
        b = space.mutate(a, rng)
        assert abs(len(b) - len(a)) <= 1 or b == ()
        assert len(set(a) - set(b)) <= 1 >= len(set(b) - set(a)) or b == ()
        assert space.is_valid(b)
        assert space.key(b) != space.key(a)
        assert (space.key(b) == BASE.digest) == (b == ())
        assert space.decode(space.encode(b)) == b
        assert space.encode(b).isprintable()
        c = space.crossover(a, b, rng)
        assert space.is_valid(c)
        assert c in (a, b) or set(c) <= {*a, *b}
        assert hash(b) == hash(space.decode(space.encode(b)))
        a = b
    pools, b = CGSpace(BASE, edits=["pool"]), ()
    for _ in range(30):  # there are but two, so the way back is found soon
        b = pools.mutate(b, rng)
        assert (pools.key(b) == BASE.digest) == (b == ())
    assert space.native(a).shape == space.native(()).shape == (cg.statistics([BASE]).shape[1],)
    assert space.count_params(()) == BASE.params
    assert space.encode(()) == "base"
    twin = pickle.loads(pickle.dumps(space))
    assert (twin.name, twin.depth, twin.to_graph(a)) == (space.name, 4, space.to_graph(a))


def test_crossover_puts_edits_of_both_together() -> None:
    space, rng = CGSpace(BASE), np.random.default_rng(0)
    a = (f"repeat:{ENTRY}:{EXIT}", f"width:{INNER}:32")
    b = (f"repeat:{ENTRY}:{EXIT}", f"kernel:{INNER}:5", f"activation:{ENTRY}:Gelu")
    children = {space.crossover(a, b, rng) for _ in range(200)}
    assert all(f"repeat:{ENTRY}:{EXIT}" in c for c in children)  # shared, so never lost
    assert {frozenset(c) for c in children} == {frozenset({f"repeat:{ENTRY}:{EXIT}", *c}) for c in (
        {f"width:{INNER}:32", f"kernel:{INNER}:5", f"activation:{ENTRY}:Gelu"}, {f"width:{INNER}:32", f"kernel:{INNER}:5"},
        {f"width:{INNER}:32", f"activation:{ENTRY}:Gelu"}, {f"kernel:{INNER}:5"}, {f"activation:{ENTRY}:Gelu"}, set())}
    assert space.crossover(a, a, rng) == a


def test_the_same_generator_gives_the_same_networks() -> None:
    def run(seed: int) -> list[str]:
        space, rng = CGSpace(BASE), np.random.default_rng(seed)
        return [space.encode(space.mutate(space.sample(rng), rng)) for _ in range(20)]

    assert run(3) == run(3) != run(4)


def test_limits_hold() -> None:
    rng = np.random.default_rng(0)
    small = CGSpace(BASE, max_params=BASE.params - 1, max_macs=BASE.macs, max_nodes=BASE.n_nodes + 1, depth=3,
                    edits=["width", "kernel", "repeat", "drop", "skip"], accept=lambda g: "Softmax" not in g.op_counts)
    assert "params" in small.why_invalid(())
    for _ in range(60):
        a = small.mutate(small.sample(rng), rng)
        g = small.to_graph(a)
        assert (g.params < BASE.params, g.macs <= BASE.macs, g.n_nodes <= BASE.n_nodes + 1, len(a) <= 3) == (True,) * 4
        assert {e.split(":")[0] for e in a} <= {"width", "kernel", "repeat", "drop", "skip"}
    assert "not among the edits" in small.why_invalid((f"activation:{ENTRY}:Gelu", f"drop:{ENTRY}:{EXIT}"))
    assert "at most 3" in small.why_invalid((f"kernel:{INNER}:5", f"kernel:{INNER}:3") * 2)
    assert "accept" in CGSpace(BASE, accept=lambda g: g == BASE).why_invalid((f"drop:{ENTRY}:{EXIT}",))
    with pytest.raises(CGError, match="no valid network"):
        CGSpace(BASE, max_params=10).sample(rng)
    names = {CGSpace(BASE).name, CGSpace(BASE, depth=3).name, CGSpace(BASE, max_macs=1e9).name, CGSpace(residual()).name}
    assert len(names) == 4


@pytest.mark.parametrize(("make", "why"), [
    (lambda: CGSpace(BASE, (1, 3, 12, 12)), "input_shape"), (lambda: CGSpace("resnet18"), "torch module"),
    (lambda: CGSpace(BASE, edits=["widht"]), "widht"), (lambda: CGSpace(BASE, edits=[]), "none"),
    (lambda: CGSpace(BASE, depth=0), "depth"), (lambda: CGSpace(BASE, max_nodes=0), "max_nodes")])
def test_wrong_settings_are_named(make: Callable[[], CGSpace], why: str) -> None:
    with pytest.raises(CGError, match=why):
        make()


def test_a_thousand_mutants_take_seconds() -> None:
    """At least 50 a second on a network of the size of ResNet-18, also on a slow and busy core (measured: over 1,000)."""
    g = residual(blocks=9)
    assert g.n_nodes >= 69
    space, rng = CGSpace(g), np.random.default_rng(0)
    a, begin = space.sample(rng), time.process_time()
    for _ in range(100):
        a = space.mutate(a, rng)
    assert time.process_time() - begin < 2


def test_a_study_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Around one network with a bound on its size, aging evolution, a history on disk."""
    def oracle(genome: Any) -> float:
        g = space.to_graph(genome)
        return g.macs / g.params

    space = CGSpace(BASE)

    def run(budget: int, path: Path) -> list[str]:
        with Study(space, get_strategy("aging"), seed=2, history=path,
                   constraints=[Constraint("params", at_most=1.5 * BASE.params)]) as study:
            study.run(oracle, budget)
            asked = study.history.queries
            assert all(space.to_graph(space.decode(q.genome)).params <= 1.5 * BASE.params for q in asked)
            assert len({q.key for q in asked}) == budget
            return [q.genome for q in asked]

    run(23, tmp_path / "a.sqlite")
    assert run(60, tmp_path / "a.sqlite") == run(60, tmp_path / "b.sqlite")


def test_the_example_of_the_documentation_runs(capsys: pytest.CaptureFixture[str]) -> None:
    torch = pytest.importorskip("torch")
    text = (ROOT / "docs/cgspace.md").read_text(encoding="utf-8")
    block, = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert block.count("\n") <= 40
    scope: dict[str, Any] = {"__name__": "example"}
    exec(compile(block, "docs/cgspace.md", "exec", dont_inherit=True), scope)
    value, best = capsys.readouterr().out.split(maxsplit=1)
    assert 0.4 < float(value) <= 1
    assert scope["space"].is_valid(scope["space"].decode(best.strip()))
    assert scope["best"](torch.zeros(3, 1, 8, 8)).shape == (3, 2)
    assert scope["space"].base == canonicalize(scope["space"].base)
    described = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    assert described == set(EDITS)


def test_a_graph_is_edited_without_torch() -> None:
    code = ("import sys; from evo_search.cgspace import CGSpace, edited; from evo_search import get_space; import numpy as np;"
            "s = get_space('nasbench201'); r = np.random.default_rng(0); c = CGSpace(s.to_graph(s.sample(r)));"
            "c.mutate(c.sample(r), r); assert 'torch' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_an_edit_that_was_made_is_not_made_again() -> None:
    net = Net.of(BASE)
    for edit in (f"repeat:{ENTRY}:{EXIT}", f"skip:{ENTRY}:{EXIT}", f"parallel:{INNER}:1"):
        with pytest.raises(Refused, match="made already"):
            apply(apply(net, edit), edit)
