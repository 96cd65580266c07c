"""Copy the weights of a model into the module that ``to_torch`` built from its graph, so that outputs can be compared.

A graph keeps no names, so the extraction is watched: which node used which parameter, and where that node stands in the
graph as it was recorded, before any rewrite.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import cg._hashing
import extract.torch_frontend
from cg import Graph
from extract import from_torch
from extract.torch_recorder import Recorder


def watched(model: nn.Module, inputs: Any, patch: pytest.MonkeyPatch) -> tuple[Graph, dict[int, list[str]]]:
    """The graph of ``model``, and for each node with parameters their names in the order in which the node takes them."""
    used: dict[int, list[str]] = {}
    live: list[Any] = []
    ranks: list[Any] = []
    node, ref = Recorder.node, Recorder.ref
    find_live, order = cg._hashing.live_nodes, cg._hashing.canonical_order

    def names_of(r: Recorder, tensors: Any) -> list[str]:
        return [r._parameters[p][0] for t in tensors if t is not None for p in sorted(r.params_in(t))]

    def watch_node(r: Recorder, op: str, inputs: Any, out_shape: Any, weights: Any = (), *rest: Any, **more: Any) -> Any:
        made = node(r, op, inputs, out_shape, weights, *rest, **more)
        if weights:
            used[made.node] = names_of(r, weights)
        return made

    def watch_ref(r: Recorder, tensor: torch.Tensor) -> Any:
        made = ref(r, tensor)
        if not r.is_live(tensor) and made.node not in used:
            used[made.node] = names_of(r, [tensor])
        return made

    def watch_live(*args: Any) -> Any:
        live.append(find_live(*args))
        return live[-1]

    def watch_order(*args: Any) -> Any:
        result = order(*args)
        ranks.append(result[1])
        return result

    with patch.context() as p:
        p.setattr(Recorder, "node", watch_node)
        p.setattr(Recorder, "ref", watch_ref)
        p.setattr(extract.torch_frontend, "canonicalize", lambda graph: graph)
        p.setattr(cg._hashing, "live_nodes", watch_live)
        p.setattr(cg._hashing, "canonical_order", watch_order)
        graph = from_torch(model, inputs).graph
    place = {int(old): int(ranks[0][new]) for new, old in enumerate(live[0].nonzero()[0])}
    assert len(place) == graph.n_nodes
    return graph, {place[n]: names for n, names in used.items() if n in place}


def copy_weights(model: nn.Module, built: Any, used: dict[int, list[str]]) -> int:
    """Number of parameters copied; those whose shapes do not agree are left."""
    source, copied = dict(model.named_parameters()), 0
    with torch.no_grad():
        for node, names in used.items():
            layer = built._modules[built.program.names[node]]
            targets = [t for t in (layer._parameters.get("weight"), layer._parameters.get("bias")) if t is not None]
            for name, target in zip(names, targets, strict=False):
                if source[name].numel() == target.numel():
                    target.copy_(source[name].reshape(target.shape))
                    copied += 1
    return copied
