"""Pictures of graphs: nothing overlaps, nothing is missing, every count is right."""

import re
import xml.etree.ElementTree as ET
from itertools import combinations

import numpy as np
import pytest

from cg import Graph, GraphBuilder
from cg._layout import Box, layout
from cg.draw import describe, label, summary, svg, view
from cg.page import html
from evo_search import get_space

SVG = "{http://www.w3.org/2000/svg}"


def sample(space: str, seed: int = 3) -> Graph:
    s = get_space(space)
    return s.to_graph(s.sample(np.random.default_rng(seed)))


def overlap(a: Box, b: Box) -> bool:
    return a.x < b.x + b.w - 1e-6 and b.x < a.x + a.w - 1e-6 and a.y < b.y + b.h - 1e-6 and b.y < a.y + a.h - 1e-6


@pytest.mark.parametrize("space", ["nasbench101", "nasbench201", "nasbench301"])
def test_boxes_do_not_overlap_and_lie_inside(space: str) -> None:
    v = view(sample(space), collapse=False)
    place = layout([(70.0, 19.0 * len(c)) for c in v.chains], v.edges, v.group)
    assert place.columns > 1
    assert not any(overlap(a, b) for a, b in combinations(place.boxes, 2))
    for b in place.boxes:
        assert b.x >= 0
        assert b.y >= 0
        assert b.x + b.w <= place.width
        assert b.y + b.h <= place.height


def test_edges_join_the_boxes_they_belong_to() -> None:
    v = view(sample("nasbench101"), collapse=False)
    place = layout([(70.0, 19.0 * len(c)) for c in v.chains], v.edges, v.group)
    for (s, t), path in zip(v.edges, place.paths, strict=True):
        assert s < t
        x0, y0 = map(float, re.match(r"M([-\d.]+),([-\d.]+)", path).groups())  # type: ignore[union-attr]
        a, b = place.boxes[s], place.boxes[t]
        assert a.x - 0.1 <= x0 <= a.x + a.w + 0.1
        assert y0 == pytest.approx(a.y + a.h, abs=0.1)
        assert float(re.findall(r"[-\d.]+", path)[-1]) == pytest.approx(b.y, abs=0.1)


def test_chain_of_levels_gets_narrow_columns_near_the_wanted_shape() -> None:
    edges = [(i, i + 1) for i in range(119)]
    wide, tall = (layout([(80.0, 19.0)] * 120, edges, [-1] * 120, aspect=a) for a in (3.0, 0.3))
    assert wide.columns > tall.columns
    assert wide.width / wide.height > tall.width / tall.height


def test_crossing_that_order_can_avoid_is_avoided() -> None:
    """Node 2 is given last, but belongs left of 0, whose two consumers it shares: 2-3, 0-3, 0-5, 1-4 is planar."""
    place = layout([(40.0, 19.0)] * 6, [(0, 3), (0, 5), (1, 4), (2, 3)], [-1] * 6, aspect=0.2)
    x = [b.x for b in place.boxes]
    pairs = [(x[s], x[t]) for s, t in ((0, 3), (0, 5), (1, 4), (2, 3))]
    assert not any((a[0] - b[0]) * (a[1] - b[1]) < 0 for a, b in combinations(pairs, 2))


def test_repeated_cells_are_drawn_once_with_their_count() -> None:
    s = get_space("nasbench201")
    g = s.to_graph(s.decode("|nor_conv_3x3~0|+|none~0|none~1|+|avg_pool_3x3~0|nor_conv_1x1~1|none~2|"))
    v = view(g)
    assert v.times == (5, 5, 5)
    assert sum(len(c) * (v.times[k] if k >= 0 else 1) for c, k in zip(v.chains, v.group, strict=True)) == g.n_nodes
    text = svg(g)
    assert text.count("×5</text>") == 3
    assert len(view(g, collapse=False).chains) > len(v.chains)
    place = layout([(70.0, 19.0 * len(c)) for c in v.chains], v.edges, v.group)
    for box, k in zip(place.boxes, v.group, strict=True):
        if k >= 0:
            f = place.frames[k]
            assert f.x <= box.x
            assert f.y <= box.y
            assert box.x + box.w <= f.x + f.w
            assert box.y + box.h <= f.y + f.h


def test_svg_is_well_formed_and_shows_every_node() -> None:
    g = sample("nasbench301")
    root = ET.fromstring(svg(g, collapse=False))
    bars = [e for e in root.iter(f"{SVG}g") if e.get("class") == "n"]
    assert len(bars) == g.n_nodes
    macs = sum(int(re.search(r"([\d,]+) MACs", e.find(f"{SVG}title").text).group(1).replace(",", ""))  # type: ignore
               for e in bars)
    assert macs == g.macs


def test_names_are_escaped() -> None:
    b = GraphBuilder(name="<script>alert(1)</script>")
    g = b.build(b.relu(b.input((1, 3, 4, 4))))
    assert "<script>alert" not in html(g)
    ET.fromstring(svg(g))


def test_page_needs_no_other_file() -> None:
    text = html(sample("nasbench201"))
    assert "://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "prefers-color-scheme" in text


def test_labels_and_descriptions() -> None:
    b = GraphBuilder()
    x = b.input((1, 3, 32, 32))
    g = b.build(b.linear(b.global_avg_pool(b.max_pool(b.conv2d(x, 6, kernel=3, stride=2, groups=3), kernel=2)), 10))
    assert {label(n) for n in g.nodes} >= {"Input 3×32×32", "DWConv 3×3 /2, 6", "GlobalAvgPool", "Linear 10"}
    gemm = next(n for n in g.nodes if n.op == "Gemm")
    assert "60 MACs, 70 parameters" in describe(gemm)


def test_summary_adds_up() -> None:
    g = sample("nasbench101")
    s = summary(g)
    assert sum(r["count"] for r in s["ops"]) == s["nodes"] == g.n_nodes
    assert sum(r["macs"] for r in s["ops"]) == s["macs"] == g.macs
    assert sum(r["params"] for r in s["ops"]) == s["params"] == g.params
    assert all(sum(r["shapes"].values()) == r["count"] for r in s["ops"])
