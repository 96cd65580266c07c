"""Edits of the graph: repeat or leave out a block, add a skip connection or a parallel convolution, remove a branch.

The same pairs of functions as in ``layer_edits``. Every one keeps the shapes of the tensors that are left.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from cg.spec import NodeSpec
from evo_search.cgspace.layer_edits import Arguments, number, one_of, window_of, with_window
from evo_search.cgspace.net import Net, Refused, is_source
from evo_search.cgspace.regions import Regions

BRANCH_KERNELS: Final = (1, 3, 5)
_NORMS: Final = frozenset({"BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization"})


def regions(net: Net) -> Regions:
    """Kept with ``net``, which never changes."""
    kept = net.__dict__.get("_regions")
    if kept is None:
        kept = net.__dict__["_regions"] = Regions(net)
    return kept


# ---- depth --------------------------------------------------------------------------------------------------------


def propose_block(net: Net, rng: np.random.Generator) -> Arguments | None:
    kept = net.__dict__.get("_blocks")
    if kept is None:
        kept = net.__dict__["_blocks"] = regions(net).blocks()
    found: Arguments | None = one_of(kept, rng)
    return found


def repeat(net: Net, edit: str, entry: str, exit_: str) -> Net:
    """The part behind ``entry`` up to ``exit_`` stands twice in a row, with weights of its own each time."""
    members = regions(net).members(entry, exit_)
    copies = {k: net.new_label(edit, k) for k in members}
    copies[entry] = exit_  # the copy reads what the part gives
    specs = {copies[k]: net.specs[k] for k in members}
    inputs = {copies[k]: tuple(copies.get(s, s) for s in net.inputs[k]) for k in members}
    return net.edit(specs, inputs, {exit_: copies[exit_]})


def drop(net: Net, edit: str, entry: str, exit_: str) -> Net:
    """The part behind ``entry`` up to ``exit_`` is left out."""
    regions(net).members(entry, exit_)
    return net.edit({}, None, {exit_: entry})


# ---- branches -----------------------------------------------------------------------------------------------------


def _add(spec: NodeSpec) -> NodeSpec:
    return NodeSpec("Add", (spec.out_shape, spec.out_shape), spec.out_shape)


def propose_skip(net: Net, rng: np.random.Generator) -> Arguments | None:
    inner = [k for k in net.order if k in net.reached and k not in net.outputs and not is_source(net.specs[k])]
    end = one_of(inner, rng)
    if end is None:
        return None
    shape, behind = net.specs[end].out_shape, inner[:inner.index(end)]
    start = one_of([k for k in behind if net.specs[k].out_shape == shape and k not in net.inputs[end]], rng)
    return None if start is None else (start, end)


def skip(net: Net, edit: str, start: str, end: str) -> Net:
    """The output of ``start`` is added to that of ``end``, which comes later and has the same shape."""
    first, last, label = net.spec(start), net.spec(end), net.new_label(edit, "add")
    if first.out_shape != last.out_shape:
        raise Refused(f"nodes {start} and {end} give {first.out_shape} and {last.out_shape}, which cannot be added as they are")
    if start == end or end in net.outputs or not {start, end} <= net.reached:
        raise Refused(f"no skip connection from {start} to {end}: they must be two nodes inside the network")
    return net.edit({label: _add(last)}, {label: (end, start)}, {end: label})


def _end_of_branch(net: Net, label: str) -> str:
    """The normalisation that alone reads the convolution ``label``, or itself."""
    reader = net.sole_reader(label)
    if reader is None:
        return label
    spec = net.specs[reader]
    fits = spec.op in _NORMS and spec.extra_params == 0 and spec.in_shapes == (net.specs[label].out_shape,) == (spec.out_shape,)
    return reader if fits else label


def propose_parallel(net: Net, rng: np.random.Generator) -> Arguments | None:
    label = one_of([k for k in net.order if (w := window_of(net.specs[k])) and w[0] <= 7 and k not in net.outputs], rng)
    if label is None:
        return None
    return label, str(one_of([k for k in BRANCH_KERNELS if k != net.specs[label].weight_shape[2]], rng))


def parallel(net: Net, edit: str, label: str, size: str) -> Net:
    """A convolution with kernel ``size`` stands beside the convolution ``label``, with its normalisation if it has one."""
    spec, kernel = net.spec(label), number(size, "kernel")
    if window_of(spec) is None or kernel not in BRANCH_KERNELS:
        raise Refused(f"no branch with kernel {size} beside node {label} ({spec.op})")
    end, conv, norm, total = _end_of_branch(net, label), *(net.new_label(edit, part) for part in ("conv", "norm", "add"))
    if end in net.outputs:
        raise Refused(f"node {label} leaves the network")
    specs = {conv: with_window(spec, kernel, 1), total: _add(net.specs[end])}
    inputs = {conv: net.inputs[label], total: (end, conv)}
    if end != label:
        specs[norm] = net.specs[end]
        inputs |= {norm: (conv,), total: (end, norm)}
    return net.edit(specs, inputs, {end: total})


def _arguments_to_drop(net: Net, label: str) -> list[str]:
    """Arguments of a sum or product without which the other one is the result."""
    spec, sources = net.specs[label], net.inputs[label]
    if spec.op not in ("Add", "Mul") or len(sources) != 2 or sources[0] == sources[1]:
        return []
    return [str(i) for i in (0, 1) if sources[1 - i] in net.reached and net.specs[sources[1 - i]].out_shape == spec.out_shape
            and spec.in_shapes[1 - i] == spec.out_shape and not is_source(net.specs[sources[1 - i]])]


def propose_cut(net: Net, rng: np.random.Generator) -> Arguments | None:
    found: Arguments | None = one_of([(k, i) for k in net.order for i in _arguments_to_drop(net, k)], rng)
    return found


def cut(net: Net, edit: str, label: str, argument: str) -> Net:
    """The sum or product ``label`` loses its argument number ``argument`` and what only that needs; the other one stays."""
    spec = net.spec(label)
    if argument not in _arguments_to_drop(net, label):
        raise Refused(f"node {label} ({spec.op}) cannot lose argument {argument}")
    return net.edit({}, None, {label: net.inputs[label][1 - int(argument)]})
