"""The edits by name, their texts, and edits made one after another.

An edit is written ``name:argument:argument``; arguments are labels of nodes (see ``net``), sizes, and names of operators.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from cg.errors import CGError
from cg.graph import Graph
from evo_search.cgspace import graph_edits, layer_edits
from evo_search.cgspace.layer_edits import Arguments
from evo_search.cgspace.net import Net


@dataclass(frozen=True)
class Edit:
    """One kind of edit: how many arguments, who chooses them, who makes it."""

    arguments: int
    propose: Callable[[Net, np.random.Generator], Arguments | None]
    apply: Callable[..., Net]


EDITS: Final[dict[str, Edit]] = {
    "activation": Edit(2, layer_edits.propose_activation, layer_edits.activation),
    "pool": Edit(2, layer_edits.propose_pool, layer_edits.pool),
    "kernel": Edit(2, layer_edits.propose_kernel, layer_edits.kernel),
    "dilation": Edit(2, layer_edits.propose_dilation, layer_edits.dilation),
    "separable": Edit(1, layer_edits.propose_separable, layer_edits.separable),
    "dense": Edit(1, layer_edits.propose_dense, layer_edits.dense),
    "width": Edit(2, layer_edits.propose_width, layer_edits.width),
    "repeat": Edit(2, graph_edits.propose_block, graph_edits.repeat),
    "drop": Edit(2, graph_edits.propose_block, graph_edits.drop),
    "skip": Edit(2, graph_edits.propose_skip, graph_edits.skip),
    "parallel": Edit(2, graph_edits.propose_parallel, graph_edits.parallel),
    "cut": Edit(2, graph_edits.propose_cut, graph_edits.cut),
}
_ARGUMENT: Final = re.compile(r"[A-Za-z0-9]+")


def parse(edit: str) -> tuple[Edit, Arguments]:
    """The kind and the arguments of an edit; ``CGError`` naming what is wrong with its text."""
    name, *arguments = edit.split(":")
    kind = EDITS.get(name)
    if kind is None:
        raise CGError(f"edit {edit!r}: there is no edit {name!r}; there are {', '.join(EDITS)}")
    if len(arguments) != kind.arguments or not all(_ARGUMENT.fullmatch(a) for a in arguments):
        raise CGError(f"edit {edit!r}: {name} takes {kind.arguments} arguments of letters and digits, each behind a colon")
    return kind, tuple(arguments)


def apply(net: Net, edit: str) -> Net:
    """``net`` after one edit. Raises ``Refused`` if the edit does not apply, ``CGError`` if it is no edit."""
    kind, arguments = parse(edit)
    return kind.apply(net, edit, *arguments)


def propose(net: Net, names: Iterable[str], rng: np.random.Generator) -> str | None:
    """A random edit of a random one of ``names``; ``None`` if none of that name was found. It may still be refused."""
    name = layer_edits.one_of(list(names), rng)
    arguments = EDITS[name].propose(net, rng)
    return None if arguments is None else ":".join((name, *arguments))


def edited(graph: Graph, *edits: str) -> Graph:
    """``graph`` after ``edits``, canonical and valid; labels are the numbers of its nodes, and those that edits make.

    Raises ``Refused`` (a ``CGError``) if an edit does not apply.

    Example:
        >>> from cg import GraphBuilder
        >>> b = GraphBuilder()
        >>> x = b.relu(b.conv2d(b.input((1, 3, 8, 8)), 16))
        >>> g = b.build(b.linear(b.global_avg_pool(x), 10))
        >>> edited(g, "kernel:1:5", "width:1:24").params
        2050
    """
    net = Net.of(graph)
    for edit in edits:
        net = apply(net, edit)
    return net.graph
