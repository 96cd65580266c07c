"""Write docs/statistics.md: every column of ``cg.statistics``, generated from the names in the code.

    python docs/make_statistics.py            # writes the page
    python docs/make_statistics.py --check    # exits with 1 if it is not current
"""

from __future__ import annotations

import argparse
import sys
from itertools import groupby
from pathlib import Path

from cg.global_statistics import GROUPS, HOPS, KINDS, N_STAGES, STATISTICS

PAGE = Path(__file__).with_name("statistics.md")

KIND_MEANING = {
    "conv3": "convolution with one group, largest kernel side 2 or 3", "conv5": "the same, kernel larger than 3",
    "conv1": "the same, kernel 1", "dw3": "grouped (depthwise) convolution, kernel up to 3",
    "dw5": "grouped convolution, larger kernel", "dwdil": "grouped convolution with dilation",
    "dense": "Gemm, MatMul, Einsum, Embedding, recurrent layers", "norm": "normalisation of any kind",
    "act": "activation, softmax", "maxpool": "maximum pooling, global too",
    "avgpool": "average pooling, global too, and reductions", "add": "Add, Sub, Sum",
    "mul": "element-wise products and functions",
    "concat": "Concat", "other": "everything else: sources, data movement, resizing, comparisons",
}
GROUP_MEANING = {
    "total": "Size and cost of the whole network.",
    "path": "How much of something lies on the paths from input to output, as ln(1 + x). `<m>` is `longest` or `shortest` over "
            "all paths; `mean` and `std` of a walk that starts at the output and steps to any producer alike; `whole_mean` "
            "and `whole_std` with every whole path alike.",
    "rf": "Receptive field of the output, log2 pixels.",
    "shape": "Channels, kernels and wiring.",
    "signal": "Signal propagation at initialisation by simple rules: a normalisation gives variance 1, an activation halves, "
              "an addition sums, average pooling divides by its kernel side, anything else averages its arguments.",
    "stage": "Per stage: stage s holds the nodes whose output is 2^s times smaller than the input image; the last stage "
             f"({N_STAGES - 1}) takes everything smaller.",
    "kind": "Per kind of node.",
    "count": "Per kind and stage.",
    "back": "Per kind and stage.",
    "front": "Per kind and stage.",
    "pair": "Per pair of kinds; operators that only move data are looked through.",
    "hop": f"What computing operators read from each other ({', '.join(HOPS)}, and `input`: the network's input), seen through "
           "everything that stands between them; a node with several arguments splits evenly.",
    "field": "Signal propagation at initialisation as a mean field, `cg/_field.py`: what random weights do to the signal of an "
             "image, of a similar one (correlation 0.5) and of a far place of the same image, and to a gradient from the "
             "output back, in expectation over the weights. These are zero-cost proxies without a batch and without noise; "
             "`field<s>` is the same for the nodes of stage s, the last one taking everything smaller.",
    "flow": "Along a walk from the output that steps to each producer with the share of the signal's variance that comes from "
            "it, as ln(1 + x).",
    "visit": "That walk, per kind of node.",
}
# "Layers" are operators with a weight matrix or kernel: convolutions, Gemm, MatMul and the like, recurrent layers.
COLUMN_MEANING = {
    "total.nodes": "ln of the number of nodes", "total.edges": "ln(1 + edges)", "total.macs": "ln(1 + multiply-adds)",
    "total.params": "ln(1 + trained scalars)", "total.activations": "ln(1 + values of all outputs)",
    "total.macs_per_param": "total.macs - total.params", "total.activations_per_mac": "total.activations - total.macs",
    "total.layers": "ln(1 + layers)", "total.levels": "ln of the number of levels (longest path in nodes)",
    "rf.max": "widest walk", "rf.min": "narrowest walk", "rf.mean": "mean walk",
    "shape.channels_mean": "mean over layers of log2 output channels", "shape.channels_max": "largest of them",
    "shape.channels_min": "smallest of them", "shape.channels_std": "their standard deviation",
    "shape.ratio_mean": "mean over layers of log2(output channels / input channels)",
    "shape.ratio_std": "its standard deviation", "shape.kernel_mean": "mean over layers of log2 of the kernel side",
    "shape.fan_in_mean": "mean number of arguments of the nodes that have more than one",
    "shape.fan_out_mean": "ln(edges / nodes)", "shape.fan_out_max": "ln(1 + most consumers of one node)",
    "shape.width_mean": "ln(nodes / levels)", "shape.width_max": "ln of the most nodes on one level",
    "shape.span_mean": "ln(1 + mean length in levels of the edges that skip a level)",
    "shape.span_max": "ln(1 + longest edge in levels)", "shape.skips": "ln(1 + edges that skip a level)",
    "shape.last_channels": "log2 channels of the last layer whose output is larger than one pixel",
    "signal.var_add_mean": "mean ln variance after additions", "signal.var_add_max": "largest of them, at least 0",
    "signal.var_norm_mean": "mean ln variance that enters a normalisation",
    "signal.grad_first": "ln gradient scale at the first layer", "signal.grad_mean": "its mean over layers",
    "signal.grad_std": "its standard deviation", "signal.grad_min": "its smallest value",
    "signal.grad_max": "its largest value",
    "signal.paths": "ln of the number of paths from a source to an output",
    "stage<s>.macs": "ln(1 + multiply-adds)", "stage<s>.params": "ln(1 + trained scalars)",
    "stage<s>.activations": "ln(1 + values of outputs)", "stage<s>.macs_share": "share of the network's multiply-adds",
    "stage<s>.channels": "mean over layers of log2 output channels",
    "path.nodes_<m>": "all nodes", "path.layers_<m>": "layers", "path.spatial_<m>": "convolutions with a kernel above 1",
    "path.acts_<m>": "activations", "path.pools_<m>": "pooling windows (global pooling does not count)",
    "kind.nodes_share.<kind>": "share of all nodes", "kind.macs_share.<kind>": "share of all multiply-adds",
    "kind.params_share.<kind>": "share of all trained scalars",
    "kind.back.<kind>": "ln(1 + expected visits) of a walk from the output, each step to any producer alike",
    "kind.front.<kind>": "ln(1 + expected visits) of a walk from the input, each step to any consumer alike",
    "kind.whole.<kind>": "ln(1 + expected visits) of a path chosen uniformly",
    "kind.longest.<kind>": "ln(1 + most nodes of the kind on one path)",
    "count.<kind>.<s>": "ln(1 + nodes)", "back.<kind>.<s>": "ln(1 + expected visits), walk from the output",
    "front.<kind>.<s>": "ln(1 + expected visits), walk from the input",
    "pair.<kind>.<kind>": "ln(1 + edges from the first kind to the second)",
    "hop.<kind>.<kind>": "ln(1 + sum over operators of the first kind of the share they read from the second)",
    "field.out_scale": "ln second moment of the output", "field.out_like": "correlation of the outputs for two similar images",
    "field.act_far": "mean over activations of the correlation, at their input, of two far places",
    "field.act_near": "the same of neighbours", "field.act_like": "the same of two similar images",
    "field.act_like_min": "its smallest value", "field.zen": "sum over layers of ln(fan-in x second moment) / 2: Zen-NAS",
    "field.norm_mean": "mean ln variance that enters a normalisation", "field.norm_min": "its smallest value",
    "field.norm_std": "its standard deviation",
    "field.add_share": "mean over additions of the largest argument's share of the variance",
    "field.grad_norm": "ln squared norm of the gradient of all weights", "field.fisher": "ln of the Fisher score",
    "field.snip": "ln of the SNIP score", "field.grad_in": "ln squared norm of the gradient of one channel of the input",
    "field.layer_mean": "mean over layers of ln squared norm of a layer's weight gradient",
    "field.layer_std": "its standard deviation", "field.layer_min": "its smallest value",
    "field.layer_max": "its largest value",
    "field.layer_slope": "its slope from layer to layer",
    "field.node_std": "standard deviation over nodes of ln squared norm of the gradient of a node's values",
    "field.node_max": "its largest value",
    "field.codes": "share of rectifiers in which two similar images differ (NASWOT)",
    "field<s>.layer": "mean over layers of ln squared norm of a layer's weight gradient",
    "field<s>.like": "mean over activations of the correlation, at their input, of two similar images",
    "field<s>.far": "the same of two far places", "field<s>.near": "the same of neighbours",
    "field<s>.grad": "mean over activations of ln squared norm of their gradient",
    "flow.nodes_<m>": "all nodes", "flow.layers_<m>": "layers", "flow.spatial_<m>": "convolutions with a kernel above 1",
    "flow.acts_<m>": "activations", "flow.pools_<m>": "pooling windows", "visit.<kind>": "ln(1 + expected visits)",
}


def page() -> str:
    """The whole page. Raises ``KeyError`` if the code has a group, a kind or a column that is not described here."""
    out = ["<!-- Generated by docs/make_statistics.py from cg/global_statistics.py; do not edit. -->",
           "# Global statistics", "",
           f"`cg.statistics(graphs)` gives float32 `[B, {len(STATISTICS)}]`. Values depend on the architecture alone: neither "
           "node order nor names change them. Column names are `cg.global_statistics.STATISTICS`, their groups "
           "`cg.global_statistics.GROUPS`. The definitions in code are two compiled kernels, `cg/_flow.py` and "
           "`cg/_field.py`. What each group is worth: [transfer.md](transfer.md#what-each-group-of-statistics-is-worth).", "",
           "## Kinds of nodes", "", "| kind | which operators |", "|---|---|",
           *(f"| `{kind}` | {KIND_MEANING[kind]} |" for kind in KINDS), "", "## Columns", ""]
    at = 0
    for group, members in groupby(GROUPS.tolist()):
        n = len(list(members))
        out += [f"### {group} ({n})", "", f"Columns {at} to {at + n - 1}. {GROUP_MEANING[group]}", "",
                _listing(STATISTICS[at:at + n]), ""]
        at += n
    return "\n".join(out)


def _listing(names: tuple[str, ...]) -> str:
    """A table with one line for each column; columns that differ by kind, stage or measure only share a line."""
    patterns: dict[str, int] = {}
    for name in names:
        key = _pattern(name)
        patterns[key] = patterns.get(key, 0) + 1
    lines = ["| column | number | meaning |", "|---|---|---|"]
    return "\n".join(lines + [f"| `{p}` | {n} | {COLUMN_MEANING[p]} |" for p, n in patterns.items()])


def _pattern(name: str) -> str:
    head, rest = name.split(".", 1)
    if head.startswith("stage"):
        return f"stage<s>.{rest}"
    if head != "field" and head.startswith("field"):
        return f"field<s>.{rest}"
    if head in ("path", "flow"):
        return f"{head}.{rest.split('_', 1)[0]}_<m>"
    if head == "visit":
        return "visit.<kind>"
    if head == "kind":
        return f"kind.{rest.split('.')[0]}.<kind>"
    if head in ("pair", "hop"):
        return f"{head}.<kind>.<kind>"
    return f"{head}.<kind>.<s>" if head in ("count", "back", "front") else name


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the page is not current")
    args = parser.parse_args()
    current = PAGE.exists() and PAGE.read_text(encoding="utf-8") == page()
    if not args.check and not current:
        PAGE.write_text(page(), encoding="utf-8")
    print("statistics.md is current" if current else "statistics.md is not current" if args.check else "wrote statistics.md")
    return int(args.check and not current)


if __name__ == "__main__":
    sys.exit(main())
