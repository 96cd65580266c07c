"""Graphs of many families to pre-train on: the benchmarks' spaces, Once-for-All's, random networks, edits of real models.

``FAMILIES`` says how many of each at most, 206,000 in all (NAS-Bench-201 has 5,932 that are distinct). Drawn with a seed, a few
minutes of a core. What is labelled has one label, larger being better, that compares within its set alone; Once-for-All's come
from surrogates that are not shipped.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from _sample import EXPORTED, on_meta
from make_sources import sample

from cg import Graph, GraphBuilder, GraphSet
from cg.errors import CGError
from evo_search import CGSpace, get_space
from evo_search.ofa import AutoBuildOracle
from evo_search.spaces.ofa import OFAMobileNetV3Wide, OFAProxylessNAS

SURROGATE_PIXELS = (192, 208, 224)  # for which AutoBuild's surrogates were trained


def table(family: str, n: int, rng: np.random.Generator) -> list[GraphSet]:
    """Networks of a shipped table with their labels, none of a test set; and random ones without where these do not suffice."""
    known = sample(family, n, int(rng.integers(2**31)))
    more = n - len(known) if family == "nasbench301" else 0
    return [known, *(sampled(get_space(family), more, rng) if more > 0 else ())]


def sampled(space: Any, n: int, rng: np.random.Generator, oracle: str = "") -> list[GraphSet]:
    """``n`` random networks of a space, with the top-1 that a surrogate of Once-for-All says where it is named."""
    genomes = [space.sample(rng) for _ in range(n)]
    return [numbered([space.to_graph(g) for g in genomes], AutoBuildOracle(oracle).many(genomes) if oracle else None)]


def numbered(graphs: list[Graph], labels: Any = None) -> GraphSet:
    return GraphSet(graphs, [str(i) for i in range(len(graphs))], None if labels is None else {"label": labels})


def wired(rng: np.random.Generator) -> Graph:
    """A random convolutional network: 2 to 4 stages of random blocks, each a random directed graph of random layers."""
    b = GraphBuilder(family="random")
    side, classes = int(rng.choice([32, 64, 96, 224])), int(rng.choice([10, 100, 1000]))
    norm, act = bool(rng.random() < 0.9), str(rng.choice(["relu", "relu6", "hard_swish", "Gelu", "Swish"]))
    joined, width = float(rng.choice([0.0, 0.3, 1.0])), int(rng.choice([8, 16, 24, 32, 48, 64]))

    def active(x: int) -> int:
        return getattr(b, act)(x) if act.islower() else b.op(act, [x])

    def conv(x: int, channels: int, **how: Any) -> int:
        y = b.conv2d(x, channels, bias=not norm, **how)
        return active(b.batch_norm(y) if norm else y)

    def layer(x: int) -> int:
        c, kind = b.shape(x)[1], rng.integers(8)
        if kind == 0:
            return b.max_pool(x, 3, 1, 1)
        if kind == 1:
            return b.avg_pool(x, 3, 1, 1)
        if kind == 2:
            return x
        if kind == 3:
            return conv(conv(x, c, kernel=int(rng.choice([3, 5, 7])), groups=c), c, kernel=1)
        if kind == 4:
            wide = c * int(rng.choice([2, 3, 4, 6]))
            return conv(conv(conv(x, wide, kernel=1), wide, kernel=int(rng.choice([3, 5])), groups=wide), c, kernel=1)
        if kind == 5:
            return conv(x, c, kernel=3, groups=4 if c % 4 == 0 else 1)
        if kind == 6:
            squeezed = active(b.conv2d(b.global_avg_pool(x), max(c // 4, 1), kernel=1, bias=True))
            return b.mul(x, b.op("Sigmoid", [b.conv2d(squeezed, c, kernel=1, bias=True)]))
        return conv(x, c, kernel=int(rng.choice([1, 3, 5])), dilation=1)

    def block(x: int) -> int:
        c, values = b.shape(x)[1], [x]
        for _ in range(int(rng.integers(2, 7))):
            sources = rng.choice(len(values), min(len(values), int(rng.integers(1, 3))), replace=False)
            outs = [layer(values[i]) for i in sources]
            values.append(b.add(*outs) if len(outs) > 1 else outs[0])
        ends = values[-min(len(values), int(rng.integers(1, 4))):]
        if rng.random() < joined and len(ends) > 1:
            return conv(b.concat(ends), c, kernel=1)
        return b.add(*ends) if len(ends) > 1 else ends[0]

    x = conv(b.input((1, 3, side, side)), width, kernel=3, stride=2 if side > 64 else 1)
    for stage in range(int(rng.integers(2, 5))):
        if stage:
            x = conv(x, int(b.shape(x)[1] * rng.choice([1.5, 2.0]) // 4 * 4), kernel=3, stride=2)
        for _ in range(int(rng.integers(1, 5))):
            x = block(x)
    return b.build(b.linear(b.global_avg_pool(x), classes))


def edited(n: int, rng: np.random.Generator) -> list[GraphSet]:
    """Real models of timm and torchvision, and networks a few random edits away from them."""
    from extract import from_torch, zoo

    zoo.import_torchvision()
    graphs: list[Graph] = []
    for i, model in enumerate(EXPORTED):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                base = from_torch(on_meta(model)[0], zoo.load(model).inputs, name=model).graph
                space = CGSpace(base, max_nodes=1500)
            except CGError as error:
                print(f"{model} is left out: {error}", file=sys.stderr)
                continue
        most = (n * (i + 1)) // len(EXPORTED)
        graphs.append(base.with_(family="edited"))
        while len(graphs) < most:
            graphs.append(space.to_graph(space.sample(rng)).with_(family="edited"))
    return [numbered(graphs)]


FAMILIES: dict[str, tuple[int, Callable[[int, np.random.Generator], list[GraphSet]]]] = {
    "nasbench101": (30_000, lambda n, rng: table("nasbench101", n, rng)),
    "nasbench201": (15_000, lambda n, rng: table("nasbench201", n, rng)),
    "nasbench301": (30_000, lambda n, rng: table("nasbench301", n, rng)),
    "ofa-mbv3": (30_000, lambda n, rng: sampled(OFAMobileNetV3Wide(resolutions=SURROGATE_PIXELS), n, rng, "mbv3")),
    "ofa-proxyless": (25_000, lambda n, rng: sampled(OFAProxylessNAS(resolutions=SURROGATE_PIXELS), n, rng, "pn")),
    "proxylessnas": (20_000, lambda n, rng: sampled(get_space("proxylessnas"), n, rng)),
    "ofa-resnet50": (15_000, lambda n, rng: sampled(get_space("ofa-resnet50"), n, rng)),
    "nats-size": (15_000, lambda n, rng: sampled(get_space("nats-size"), n, rng)),
    "random": (25_000, lambda n, rng: [numbered([wired(rng) for _ in range(n)])]),
    "edited": (10_000, edited),
}


def corpus(without: tuple[str, ...], share: float = 1.0, seed: int = 0) -> list[GraphSet]:
    """The sets of all families but some; ``share`` of each."""
    sets = []
    for i, (family, (n, make)) in enumerate(FAMILIES.items()):
        if family not in without:
            sets += make(max(int(n * share), 4), np.random.default_rng((seed, i)))
            print(f"{family}: {sum(map(len, sets)):,} graphs so far", file=sys.stderr, flush=True)
    return sets


def printing(name: str) -> Callable[[int, int, float], None]:
    """Progress of a pre-training: a line every 50 steps."""
    began = time.perf_counter()

    def report(step: int, steps: int, loss: float) -> None:
        if step % 50 == 0 or step == steps:
            print(f"{name}: step {step}/{steps} loss {loss:.4f} {time.perf_counter() - began:.0f} s", flush=True)

    return report
