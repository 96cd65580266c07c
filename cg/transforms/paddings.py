"""Take zeros that are put around an image into the window that reads it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from cg.graph import Graph
from cg.spec import NodeSpec
from cg.transforms._pattern import Pattern, Presence, with_attrs

_WINDOWS: Final = frozenset({"Conv", "AveragePool"})


def _margins(spec: NodeSpec) -> tuple[int, ...] | None:
    """Zeros that a ``Pad`` puts around the axes behind the channels: all begins, then all ends. ``None`` for other padding."""
    attrs = dict(spec.attrs)
    pads = attrs.pop("pads", None)
    if spec.op != "Pad" or attrs or pads is None or len(spec.in_shapes) != 1:
        return None
    rank = len(pads) // 2
    if rank < 3 or min(pads) < 0 or any(pads[i] or pads[rank + i] for i in (0, 1)):
        return None
    return (*pads[2:rank], *pads[rank + 2:])


_MARGINS: Final = Presence(lambda s: _margins(s) is not None)


def absorb_paddings(graph: Graph) -> Graph:
    """Contract: ``Pad`` with zeros around the axes behind the channels, read by one ``Conv`` alone, becomes the ``pads`` of
    that; before an ``AveragePool`` (without ceil_mode) likewise, whose padding then counts as values. Values, outputs
    and ``params`` are unchanged.
    """
    if not _MARGINS(graph):
        return graph
    p = Pattern(graph)
    for node in range(graph.n_nodes):
        spec = p.specs[node]
        if spec.op not in _WINDOWS or not p.inputs[node]:
            continue
        pad = p.inputs[node][0]
        margins = _margins(p.specs[pad])
        own = spec.attr("pads")
        if margins is None or own is None or len(own) != len(margins) or p.sole_reader(pad) != node:
            continue
        if p.inputs[node].count(pad) != 1 or spec.in_shapes[0] != p.specs[pad].out_shape:
            continue
        changes: dict[str, Any] = {"pads": tuple(a + b for a, b in zip(own, margins, strict=True))}
        if spec.op == "AveragePool":
            if spec.attr("ceil_mode") or spec.attr("divisor_override") or (any(own) and not spec.attr("count_include_pad")):
                continue
            changes["count_include_pad"] = True
        shapes = (p.specs[pad].in_shapes[0], *spec.in_shapes[1:])
        p.replace(node, replace(spec, in_shapes=shapes, attrs=with_attrs(spec, **changes)),
                  [p.inputs[pad][0], *p.inputs[node][1:]], {pad})
    return p.close()
