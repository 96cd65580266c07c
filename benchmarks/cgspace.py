"""``CGSpace`` around 20 models of timm: how many of 100 random edits give a distinct valid network, and what they cost.

    python benchmarks/cgspace.py                    # about 3 minutes on one core
    python benchmarks/cgspace.py --models resnet18  # prints, writes no result

A try draws a kind of edit uniformly from all 12, then a place in the network. It gives nothing where no place admits the kind
(``absent``), is refused where shapes cannot be repaired (``refused``), or gives a network; networks are counted by fingerprint,
the base left out (``distinct``). 100 tries with each of 5 seeds, mean and standard deviation (n - 1) over the seeds.
``samples`` are networks with 1 to 5 edits (``CGSpace.sample``, seed 0), each checked: it is its own canonical form, and
extracting the module built from it gives it back (on the meta device). ``mutants_per_s``: ``CGSpace.mutate`` along a chain of
100 mutations that starts at a sample, by processor time. ``widths``: how many widths may change on their own, of how many
layers.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections import Counter
from statistics import mean, stdev
from typing import Any

import _record
import numpy as np

MODELS = ("resnet18", "resnext50_32x4d", "densenet121", "vgg11_bn", "inception_v3", "dla34", "hrnet_w18_small", "repvgg_a0",
          "mobilenetv2_100", "mobilenetv3_small_100", "efficientnet_b0", "ghostnet_100", "regnety_002", "convnext_atto",
          "poolformer_s12", "mixer_s16_224", "mobilevit_xxs", "levit_128s", "vit_tiny_patch16_224",
          "swin_tiny_patch4_window7_224")
SEEDS, TRIES, SAMPLES, CHAIN = 5, 100, 10, 100


def base(name: str) -> Any:
    """The graph of a model of timm, extracted without weights."""
    import timm
    import torch

    from extract import from_torch

    def make() -> torch.nn.Module:
        with torch.device("meta"):
            return timm.create_model(name)

    size = timm.models.get_pretrained_cfg(name).input_size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return from_torch(make, (1, *size), name=name).graph


def tries(space: Any, seed: int) -> dict[str, int]:
    """What comes out of 100 random edits of the base."""
    from evo_search.cgspace.edits import EDITS, apply, propose
    from evo_search.cgspace.net import Net, Refused

    rng, net, found, count = np.random.default_rng(seed), Net.of(space.base), set(), Counter[str]()
    for _ in range(TRIES):
        edit = propose(net, EDITS, rng)
        if edit is None:
            count["absent"] += 1
            continue
        try:
            graph = apply(net, edit).graph
        except Refused:
            count["refused"] += 1
            continue
        if graph == space.base:
            count["base"] += 1
        else:
            found.add(graph.digest)
    return {"distinct": len(found), **{k: count[k] for k in ("absent", "refused", "base")}}


def measure(name: str) -> dict[str, Any]:
    """One row."""
    from cg import canonicalize
    from evo_search.cgspace import CGSpace
    from evo_search.cgspace.layer_edits import Width
    from evo_search.cgspace.net import Net
    from extract.torch_build import round_trip

    space = CGSpace(base(name))
    runs = [tries(space, seed) for seed in range(SEEDS)]
    rng = np.random.default_rng(0)
    genomes = [space.sample(rng) for _ in range(SAMPLES)]
    graphs = [space.to_graph(a) for a in genomes]
    back = [round_trip(g) for g in graphs]
    a, begin = genomes[0], time.process_time()
    for _ in range(CHAIN):
        a = space.mutate(a, rng)
    seconds = time.process_time() - begin
    return {"model": name, "nodes": space.base.n_nodes, "widths": len(Width.of(Net.of(space.base)).layers),
            "layers": sum(op in ("Conv", "ConvTranspose", "Gemm") for op in space.base.ops),
            **{k: {"mean": mean(r[k] for r in runs), "std": stdev(r[k] for r in runs)} for k in runs[0]},
            "samples": {"n": SAMPLES, "canonical": sum(canonicalize(g) == g for g in graphs), "round_trip": back.count(None),
                        "differences": [f"{space.encode(x)}: {said}" for x, said in zip(genomes, back, strict=True) if said]},
            "mutants_per_s": CHAIN / seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--models", nargs="+", help="names of timm; prints, writes no result")
    args = parser.parse_args()
    from extract.zoo import import_torchvision

    import_torchvision()
    rows = []
    for name in args.models or MODELS:
        row = measure(name)
        rows.append(row)
        print(f"{name:30s} {row['nodes']:5d} nodes, {row['widths']:3d} widths of {row['layers']:3d} layers, distinct "
              f"{row['distinct']['mean']:5.1f} ± {row['distinct']['std']:.1f} (absent {row['absent']['mean']:.1f}, refused "
              f"{row['refused']['mean']:.1f}), back {row['samples']['round_trip']}/{SAMPLES}, "
              f"{row['mutants_per_s']:.0f} mutants/s", flush=True)
        for said in row["samples"]["differences"]:
            print("   ", said[:300])
    if not args.models:
        _record.write("cgspace", {"seeds": SEEDS, "tries": TRIES, "rows": rows})


if __name__ == "__main__":
    main()
