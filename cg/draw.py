"""Picture of a graph: one self-contained SVG, repeated blocks drawn once with a count (``cg.page``: as a web page).

    Path("network.svg").write_text(svg(graph))

Chains of nodes (Relu, Conv, BatchNormalization) stand on one another as one box with a bar for each node. Colours say
what kind of work a node does; pointing at a bar shows shapes, MACs and parameters. Needs no other program.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any, Final

from cg._layout import layout
from cg._view import View, view
from cg.costs import node_macs
from cg.graph import Graph
from cg.spec import NodeSpec
from cg.vocabulary import CATEGORIES

BAR = 19.0
_UNPRINTABLE: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
# Category -> (legend, colour). Dark text is readable on every one of them, on light and on dark pages.
COLOURS: Final = {
    "source": ("input", "#d5dbe3"), "conv": ("convolution", "#8fc1f0"), "dense": ("linear", "#b3b0f2"),
    "norm": ("normalisation", "#c9e4df"), "act": ("activation", "#fbe08a"), "softmax": ("softmax", "#f8c27a"),
    "maxpool": ("max pooling", "#8fd19a"), "avgpool": ("average pooling", "#bde59c"), "add": ("sum", "#f4a6b7"),
    "mul": ("product", "#f2b8e0"), "concat": ("join", "#d7a8ea"), "move": ("data movement", "#e3ddd0"),
    "resize": ("resize", "#cfd8a0"), "reduce": ("reduction", "#a9d9c4"), "recurrent": ("recurrent", "#9fb4e8"),
    "other": ("other", "#dddddd"),
}
_SHORT: Final = {"BatchNormalization": "BatchNorm", "LayerNormalization": "LayerNorm",
                 "GroupNormalization": "GroupNorm", "InstanceNormalization": "InstanceNorm",
                 "GlobalAveragePool": "GlobalAvgPool", "AveragePool": "AvgPool", "Relu": "ReLU", "Gemm": "Linear"}
STYLE: Final = """
.cgd{font-family:system-ui,sans-serif;font-size:11px;color:#444c56}
.cgd text{fill:#15181c;text-anchor:middle;pointer-events:none}
.cgd .l{text-anchor:start;fill:currentColor}.cgd .t{text-anchor:start;fill:currentColor;font-size:14px;font-weight:600}
.cgd .x{font-size:13px;font-weight:700;fill:currentColor;text-anchor:end}
.cgd .e{fill:none;stroke:currentColor;stroke-width:1.1;opacity:.65}
.cgd .f{fill:#8b98a81a;stroke:#8b98a8;stroke-dasharray:5 4;rx:10px}
.cgd .b{stroke:#00000026;stroke-width:1}.cgd .n:hover .b{stroke:#000;stroke-width:1.6}
@media (prefers-color-scheme: dark){.cgd{color:#b9c4cf}.cgd .n:hover .b{stroke:#fff}}
"""


def svg(graph: Graph, *, collapse: bool = True, aspect: float = 1.4, title: str | None = None) -> str:
    """The picture as one SVG document.

    Args:
        graph: the network.
        collapse: draw a run of equal blocks once, framed, with its count.
        aspect: wanted width / height; long networks are wrapped into columns to come near it.
        title: heading, by default the graph's name; an empty text draws none.
    """
    v = view(graph, collapse)
    picture = draw(graph, v, aspect, _with_tip)
    title = clean(graph.name or "network") if title is None else clean(title)
    head = 44.0 if title else 0.0
    used = [c for c in CATEGORIES if any(CATEGORIES[graph.nodes[i].category] == c for ch in v.chains for i in ch)]
    width = max(picture.width, 420.0)
    keys, legend_h = _legend(used, picture.height + head, width)
    height = picture.height + head + legend_h + 10
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" class="cgd" width="{width:.0f}" height="{height:.0f}" '
           f'viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(clean(str(graph)), quote=True)}">',
           f"<style>{STYLE}</style>"]
    if title:
        shown = title if 7.6 * len(title) < width - 24 else title[: int((width - 24) / 7.6) - 1] + "…"
        out.append(f'<text class="t" x="12" y="20">{escape(shown)}</text><text class="l" x="12" y="37">'
                   f"{graph.n_nodes} nodes, {si(graph.macs)} MACs, {si(graph.params)} parameters</text>")
    out.append(f'<g transform="translate(0,{head:.0f})">')
    out += picture.marks
    out.append("</g>")
    out += keys
    out.append("</svg>")
    return "\n".join(out)


@dataclass(frozen=True)
class Picture:
    """SVG elements of a view: frames of repeated stretches, edges (in the order of ``View.edges``), nodes; and its size."""

    marks: list[str]
    width: float
    height: float


def draw(graph: Graph, v: View, aspect: float, wrap: Callable[[int, NodeSpec, str], str]) -> Picture:
    """Lay out ``v``; ``wrap(node number, spec, its rectangle and text)`` gives the element of a node."""
    labels = [[clean(label(graph.nodes[i])) for i in chain] for chain in v.chains]
    sizes = [(max(58.0, 6.4 * max(map(len, rows)) + 16), BAR * len(rows)) for rows in labels]
    place = layout(sizes, v.edges, v.group, aspect)
    out = []
    for number, f in place.frames.items():
        out.append(f'<rect class="f" x="{f.x:.1f}" y="{f.y:.1f}" width="{f.w:.1f}" height="{f.h:.1f}"/>')
        out.append(f'<text class="x" x="{f.x + f.w + 4:.1f}" y="{f.y - 3:.1f}">×{v.times[number]}</text>')
    out += [f'<path class="e" d="{d}"/>' for d in place.paths]
    for chain, rows, box in zip(v.chains, labels, place.boxes, strict=True):
        for k, (i, text) in enumerate(zip(chain, rows, strict=True)):
            spec, y = graph.nodes[i], box.y + BAR * k
            colour = "#ff9c8f" if spec.op == "Unknown" else COLOURS[CATEGORIES[spec.category]][1]
            out.append(wrap(i, spec, f'<rect class="b" x="{box.x:.1f}" y="{y:.1f}" width="{box.w:.1f}" height="{BAR:.0f}" '
                                     f'rx="3" fill="{colour}"/>'
                                     f'<text x="{box.x + box.w / 2:.1f}" y="{y + 13.5:.1f}">{escape(text)}</text>'))
    return Picture(out, place.width, place.height)


def _with_tip(number: int, spec: NodeSpec, marks: str) -> str:
    tip = escape(clean(describe(spec)), quote=True)
    return f'<g class="n" data-tip="{tip}"><title>{tip}</title>{marks}</g>'


def clean(text: str) -> str:
    """``text`` without what no XML or UTF-8 file can hold: control characters and half characters become U+FFFD."""
    return _UNPRINTABLE.sub("\ufffd", text)


def label(spec: NodeSpec) -> str:
    """A few words for the bar of a node, e.g. ``Conv 3×3 /2, 64``."""
    name = _SHORT.get(spec.op, spec.op)
    if spec.op == "Unknown":
        return f"? {spec.attr('name', '')}"
    if spec.op in ("Input", "Constant"):
        return f"{name} {'×'.join(map(str, spec.out_shape[1:] or spec.out_shape))}"
    parts = name
    kernel = spec.attr("kernel_shape") or (spec.weight_shape[2:] if spec.op.startswith("Conv") else ())
    if kernel:
        parts += f" {'×'.join(map(str, kernel))}"
    if max(spec.attr("dilations", (1,)), default=1) > 1:
        parts += f" dil {max(spec.attr('dilations'))}"
    if max(spec.attr("strides", (1,)), default=1) > 1:
        parts += f" /{max(spec.attr('strides'))}"
    if spec.op.startswith("Conv") and len(spec.out_shape) > 1:
        parts = ("DW" + parts if spec.attr("group", 1) > 1 else parts) + f", {spec.out_shape[1]}"
    elif spec.op == "Gemm":
        parts += f" {spec.out_shape[-1]}"
    return parts


def describe(spec: NodeSpec) -> str:
    """Everything known of a node, in lines."""
    shapes = ", ".join("×".join(map(str, s)) for s in spec.in_shapes) or "–"
    lines = [spec.op, f"{shapes} → {'×'.join(map(str, spec.out_shape))}"]
    if spec.weight_shape:
        lines.append(f"weight {'×'.join(map(str, spec.weight_shape))}{' and bias' if spec.bias else ''}")
    lines += [f"{k} = {v}" for k, v in spec.attrs]
    return "\n".join([*lines, f"{node_macs(spec):,} MACs, {spec.params:,} parameters"])


def summary(graph: Graph) -> dict[str, Any]:
    """Totals and one row per operator (count, MACs, parameters, output shapes), JSON values, dearest operator first."""
    rows: dict[str, dict[str, Any]] = {}
    for spec in graph.nodes:
        row = rows.setdefault(spec.op, {"op": spec.op, "count": 0, "macs": 0, "params": 0, "shapes": {}})
        row["count"] += 1
        row["macs"] += node_macs(spec)
        row["params"] += spec.params
        shape = "×".join(map(str, spec.out_shape[1:]))
        row["shapes"][shape] = row["shapes"].get(shape, 0) + 1
    return {"name": graph.name, "family": graph.family, "fingerprint": graph.digest, "nodes": graph.n_nodes,
            "edges": graph.n_edges, "macs": graph.macs, "params": graph.params,
            "activation_bytes": graph.activation_bytes,
            "ops": sorted(rows.values(), key=lambda r: (-r["macs"], -r["params"], -r["count"], r["op"]))}


def _legend(used: list[str], top: float, width: float) -> tuple[list[str], float]:
    out, x, y = [], 12.0, top + 8
    for category in used:
        text, colour = COLOURS[category]
        step = 30 + 6.2 * len(text)
        if x + step > width:
            x, y = 12.0, y + 20
        out.append(f'<rect class="b" x="{x:.0f}" y="{y:.0f}" width="13" height="13" rx="3" fill="{colour}"/>'
                   f'<text class="l" x="{x + 18:.0f}" y="{y + 10.5:.1f}">{text}</text>')
        x += step
    return out, y + 24 - top


def si(value: float) -> str:
    """Three digits or so with a prefix: ``4.09 G``."""
    for limit, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= limit:
            return f"{value / limit:.2f}{unit}"
    return f"{value:.0f}"
