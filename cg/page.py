"""``html``: a graph as one web page to explore: zoom, pan, search, a table of nodes, details. Opens without a network.

The page is the pictures of ``cg.draw`` (as markup), the facts of every node (as JSON) and the script and style sheet in
``page_assets``. A content security policy in it forbids every request and every script but that one, so nothing that a
file of graphs says can run. This file must not decide what is drawn where.
"""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from cg._view import View, view
from cg.costs import node_activation_bytes, node_macs
from cg.draw import COLOURS, clean, draw, label, si
from cg.graph import Graph
from cg.spec import TABLE, NodeSpec, Shape
from cg.vocabulary import CATEGORIES


def html(graph: Graph, *, collapse: bool = True, aspect: float = 2.2) -> str:
    """The page. Repeated blocks are drawn once at first, or in full; a button changes between the two.

    Args:
        graph: the network.
        collapse: which picture is shown first.
        aspect: wanted width / height of the pictures.
    """
    views = {"full": view(graph, collapse=False), "folded": view(graph)}
    if not views["folded"].times:
        del views["folded"]
    first = "folded" if collapse and "folded" in views else "full"
    pictures = []
    for name, v in views.items():
        p = draw(graph, v, aspect, _node)
        pictures.append(f'<svg class="cgd" id="{name}" data-w="{p.width:.0f}" data-h="{p.height:.0f}" aria-hidden="true"'
                        f'{"" if name == first else " hidden"}><g class="world">{"".join(p.marks)}</g></svg>')
    title = escape(clean(graph.name or "network"))
    script, style = _asset("page.js"), _asset("page.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
content="default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="referrer" content="no-referrer">
<title>{title}</title><style>{style}</style></head><body>
<header><div class="name"><h1 title="{title}">{title}</h1><span>{escape(clean(graph.family))}</span></div>
<dl>{_totals(graph)}</dl>{_unknown(graph)}</header>
{_TOOLS}
<main><div id="stage" tabindex="0" role="application"
aria-label="Picture of the network: arrow keys move, + and - zoom, f fits">
{"".join(pictures)}<div id="tip" hidden></div><div id="legend"></div></div>
<aside id="details" aria-live="polite" aria-label="Details"></aside></main>
<div id="split" role="separator" aria-orientation="horizontal" aria-label="Height of the table" tabindex="0"></div>
<section id="table" tabindex="0" aria-label="Nodes"><table><thead></thead><tbody></tbody></table></section>
{_HELP}
<noscript>Searching, zooming and the table need JavaScript.</noscript>
<script type="application/json" id="data">{_json(_facts(graph, views))}</script>
<script>{script}</script></body></html>
"""


# Attributes that people look for stand first.
_TELLING = {"kernel_shape": 0, "strides": 1, "pads": 2, "group": 3, "dilations": 4}
_TOOLS = """<nav aria-label="Tools"><input id="search" type="search" autocomplete="off" spellcheck="false"
aria-label="Search nodes" placeholder="Search: conv, 64×56×56, #12, macs&gt;100M"><output id="found"></output>
<button id="prev" title="Previous match (Shift+N)">‹</button><button id="next" title="Next match (N or Enter)">›</button>
<span class="gap"></span>
<button id="out" title="Zoom out (-)">−</button><button id="in" title="Zoom in (+)">+</button>
<button id="fit" title="Show everything (F)">Fit</button>
<button id="fold" title="Draw repeated blocks once, or as often as they occur (R)" hidden></button>
<button id="theme" title="Light or dark (T)">◐</button><button id="help" title="Keys and search terms (?)">?</button></nav>"""
_HELP = """<dialog id="keys"><h2>Keys</h2><dl><dt>/</dt><dd>search</dd><dt>Enter, N, Shift+N</dt><dd>next, previous match</dd>
<dt>+ − F</dt><dd>zoom in, zoom out, show everything</dd><dt>arrows</dt><dd>move the picture, or the row in the table</dd>
<dt>[ ]</dt><dd>first input, first consumer of the chosen node</dd><dt>R</dt><dd>repeated blocks once, or in full</dd>
<dt>T</dt><dd>light, dark</dd><dt>Esc</dt><dd>clear the choice, then the search</dd></dl><h2>Search terms, all must hold</h2>
<dl><dt>conv</dt><dd>part of an operator, attribute or label</dd><dt>64×56×56</dt>
<dd>part of a shape; 64x56x56 and 64,56,56 too</dd>
<dt>#12</dt><dd>node number</dd><dt>macs&gt;10M params&lt;1k bytes&gt;1M</dt><dd>limits</dd>
<dt>in:64 out:64 w:3×3</dt><dd>part of an input, output or weight shape</dd></dl>
<form method="dialog"><button>Close</button></form></dialog>"""


def _node(number: int, spec: NodeSpec, marks: str) -> str:
    return f'<g class="n{" u" if spec.op == "Unknown" else ""}" data-i="{number}">{marks}</g>'


def _totals(graph: Graph) -> str:
    items = [("nodes", f"{graph.n_nodes:,}", f"{graph.n_edges:,} edges"),
             ("MACs", si(graph.macs), f"{graph.macs:,}; one multiply-add counts 1"),
             ("parameters", si(graph.params), f"{graph.params:,}"),
             ("activations", f"{si(graph.activation_bytes)}B", f"{graph.activation_bytes:,} bytes, all outputs in float32"),
             ("fingerprint", graph.digest[:12], graph.digest)]
    return "".join(f'<div title="{escape(more, quote=True)}"><dt>{name}</dt><dd>{escape(value)}</dd></div>'
                   for name, value, more in items)


def _unknown(graph: Graph) -> str:
    """Operators outside the vocabulary, in a box that cannot be overlooked; pressing it shows their nodes."""
    found = graph.unknown
    if not found:
        return ""
    names = ", ".join(f"{clean(name)} ({count})" for name, count in found.most_common())
    return (f'<button id="unknown" title="{escape(names, quote=True)}">{sum(found.values())} Unknown: '
            f"{escape(names if len(names) < 80 else names[:79] + '…')}</button>")


def _facts(graph: Graph, views: dict[str, View]) -> dict[str, Any]:
    """Everything the script reads. Distinct node specs stand once; shapes and attributes are text already."""
    order: dict[int, int] = {}
    for i in graph.spec.tolist():
        order.setdefault(i, len(order))
    return {
        "specs": [_spec(TABLE.specs[i]) for i in order],
        "nodes": [order[i] for i in graph.spec.tolist()],
        "src": graph.src.tolist(), "dst": graph.dst.tolist(), "outputs": graph.outputs.tolist(),
        "categories": [COLOURS[c] for c in CATEGORIES],
        "meta": {clean(str(k)): clean(str(v))[:2000] for k, v in graph.meta.items()},
        "views": {name: {"chains": v.chains, "edges": v.edges, "shown": v.shown, "group": v.group, "times": v.times}
                  for name, v in views.items()}}


def _spec(spec: NodeSpec) -> dict[str, Any]:
    return {"op": clean(f"Unknown: {spec.attr('name', '?')}" if spec.op == "Unknown" else spec.op), "label": clean(label(spec)),
            "cat": spec.category, "in": [_shape(s) for s in spec.in_shapes], "out": _shape(spec.out_shape),
            "w": _shape(spec.weight_shape) if spec.weight_shape else "", "bias": spec.bias,
            "attrs": [[clean(k), _value(v)] for k, v in sorted(spec.attrs, key=lambda a: _TELLING.get(a[0], 9))],
            "macs": node_macs(spec), "params": spec.params, "bytes": node_activation_bytes(spec)}


def _shape(shape: Shape) -> str:
    return "×".join(map(str, shape)) or "scalar"


def _value(value: Any) -> str:
    if isinstance(value, tuple) and value and all(isinstance(v, int) for v in value):
        return " ".join(map(str, value))
    return clean(str(value))[:2000]


def _json(value: Any) -> str:
    """JSON that may stand in a ``script`` element: nothing in it can end the element."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def _asset(name: str) -> str:
    text = (files("cg") / "page_assets" / name).read_text(encoding="utf-8").strip()
    if "</" in text:
        raise ValueError(f"page_assets/{name} must not hold '</': it would end its element")
    return text
