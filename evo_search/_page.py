"""What the pages of this package share: style, script, plotly figures as plain values, and the frame around them.

Knows nothing of what a page is about. A page is one file that asks nobody for anything (plotly.js is inside) and follows the
browser's light or dark theme; a figure is JSON values, so it can be tested without a browser.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from cg.draw import clean
from cg.files import plain

INK, GREY, ORANGE, GREEN = "#3b82d6", "#94a0ad", "#e08a1e", "#3fa267"


def text(value: Any) -> str:
    """Any text as HTML that shows it: escaped, and without what no file can hold."""
    return escape(clean(str(value)))


def label(value: Any) -> str:
    """Any text as plotly's HTML, which knows fewer escapes: quotes stay as they are, and mean nothing outside of tags."""
    return escape(clean(str(value)), quote=False)


def figure(traces: Sequence[dict[str, Any]], x: str, y: str, x_range: list[float] | None = None,
           y_range: list[float] | None = None) -> dict[str, Any]:
    """Plotly figure as plain JSON values; the page's script sets colours for light and dark."""
    axes = [{"title": {"text": t}, "automargin": True, **({"range": r} if r else {})}
            for t, r in ((x, x_range), (y, y_range))]
    layout = {"height": 440, "margin": {"l": 60, "r": 12, "t": 12, "b": 50}, "hovermode": "closest", "xaxis": axes[0],
              "yaxis": axes[1], "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
              "dragmode": False}
    return {"data": plain(list(traces)), "layout": layout}


def padded(values: Sequence[float]) -> list[float]:
    """Range of an axis that shows all values ``[n]``, n > 0, with a margin of 5 %."""
    low, high = float(np.min(values)), float(np.max(values))
    return [low - 0.05 * (high - low + 1e-9), high + 0.05 * (high - low + 1e-9)]


def document(title: str, body: str, figures: Mapping[str, Mapping[str, Any]]) -> str:
    """The whole page.

    Args:
        title: plain text.
        body: HTML; an empty ``<div id=NAME>`` for each figure; a ``<figcaption class=tip>`` in a figure with a picture is where
            the text of a node (``<g class="n" data-tip=...>``) is shown.
            A ``<div class=tall data-x=PIXELS>`` around a picture scrolls, and shows that place of it first.
        figures: plotly figures (``figure``) by name.
    """
    from plotly.offline import get_plotlyjs

    values = json.dumps(plain(figures), allow_nan=False, ensure_ascii=False).replace("<", "\\u003c")  # nothing ends the element
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{text(title)}</title><style>{_STYLE}</style></head>
<body><main>
{body}
</main><script>{get_plotlyjs()}</script><script>const FIGURES={values};{_SCRIPT}</script></body></html>
"""


_STYLE = """
:root{color-scheme:light dark;--line:#d6dce2;--soft:#f3f5f8;--ink:#1d242c;--dim:#5a6672;--page:#fff}
@media (prefers-color-scheme:dark){:root{--line:#353e48;--soft:#1c232a;--ink:#e6ebf0;--dim:#9aa7b4;--page:#12171c}}
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 system-ui,sans-serif}
main{max-width:940px;margin:0 auto;padding:1.2rem clamp(.8rem,4vw,2rem) 4rem}
h1{font-size:clamp(1.4rem,5vw,2rem);line-height:1.2;margin:.6rem 0}h2{font-size:1.2rem;margin:2.4rem 0 .4rem}
p{margin:.5rem 0}.dim,figcaption{color:var(--dim);font-size:.88rem}figure{margin:.4rem 0}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(140px,1fr));gap:.7rem;margin:1.1rem 0}
.cards div{background:var(--soft);border:1px solid var(--line);border-radius:10px;padding:.7rem .9rem}
.cards b{display:block;font-size:1.35rem;line-height:1.3}.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
td,th{padding:.4rem .7rem .4rem 0;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
td:first-child,th:first-child{text-align:left}th{font-weight:600;color:var(--dim);font-size:.85rem}
tr.first td{font-weight:650}code{font-size:.85em;overflow-wrap:anywhere}
.picture{overflow-x:auto;border:1px solid var(--line);border-radius:10px}
.picture svg{display:block;width:100%;height:auto}.picture>svg{min-width:720px}
.picture>div{margin:0 auto}
.tip{white-space:pre-line;min-height:5em;overflow-wrap:anywhere}
.tall{max-height:75vh;overflow:auto;border:1px solid var(--line);border-radius:10px}.tall svg{display:block;margin:0 auto}
.text td{text-align:left;white-space:normal;overflow-wrap:anywhere}.text td:first-child{white-space:nowrap;padding-right:1.2rem}
details{margin:.6rem 0}summary{cursor:pointer;overflow-wrap:anywhere}
"""
_SCRIPT = """
const dark=matchMedia("(prefers-color-scheme: dark)");
function themed(layout){const ink=dark.matches?"#c8d2dc":"#38424d",grid=dark.matches?"#2c353e":"#e4e8ec";
 const axis=a=>({...a,gridcolor:grid,zerolinecolor:grid,linecolor:grid});
 return {...layout,paper_bgcolor:"rgba(0,0,0,0)",plot_bgcolor:"rgba(0,0,0,0)",font:{color:ink,family:"system-ui"},
 xaxis:axis(layout.xaxis),yaxis:axis(layout.yaxis)}}
function draw(){for(const [id,f] of Object.entries(FIGURES))
 Plotly.react(id,f.data,themed(f.layout),{responsive:true,displaylogo:false,displayModeBar:false})}
draw();dark.addEventListener("change",draw);
for(const n of document.querySelectorAll("figure .n[data-tip]"))for(const e of ["click","mouseenter"])
 n.addEventListener(e,()=>n.closest("figure").querySelector(".tip").textContent=n.dataset.tip);
for(const t of document.querySelectorAll(".tall[data-x]"))t.scrollLeft=t.dataset.x-t.clientWidth/2;
"""
