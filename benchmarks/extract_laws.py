"""One architecture, one graph: 60 models, each through every way that PyTorch and ONNX offer; and the way back.

    python benchmarks/extract_laws.py                                     # all; about an hour on one core the first time
    python benchmarks/extract_laws.py --models timm:resnet18 --ways legacy dynamo        # prints, writes no result
    python benchmarks/extract_laws.py --again                             # only what was not equal before

The reference is the graph of ``from_torch(module)``. Ways: ``fx`` (``torch.fx.symbolic_trace``; where it cannot trace, the
``torch.fx.GraphModule`` that ``torch.export`` makes, listed as ``fx_by_export``), ``export`` (``torch.export``),
``legacy`` and ``dynamo`` (the two ONNX exporters), ``round_trip`` (``from_torch(to_torch(graph))``), and for every registered
search space ``builder`` (200 random genomes: the direct builder against a trace of the network). A result is ``equal``, or
the first difference between the graphs, or why the way itself gives nothing (an exporter that fails).

The legacy exporter runs with ``training=PRESERVE`` on a model in evaluation mode and without constant folding, the other one
with ``optimize=False``: by default both fold batch norms into convolutions and compute with weights, which is another
network with other parameters. The legacy exporter also merges equal computations, which no option forbids and search
spaces count twice: that pass is taken out. Weights have random values before the export,
because exporters keep one copy of tensors that are equal. Exports are kept in ``runs/laws``; answers in
``runs/extract_laws.jsonl``, so that a killed run goes on where it stopped, and measures again what was measured with other
code (``--keep``: not). Writes ``benchmarks/results/extract_laws.json``.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import _record
from _workers import RUNS, Answer, Worker, one_line, serve, sweep

FOLDER = RUNS / "laws"
TIMM = (
    # convolutional
    "resnet18", "seresnet33ts", "resnext26ts", "densenet121", "vgg11_bn", "mobilenetv2_100", "mobilenetv3_small_100",
    "tf_efficientnet_b0", "ghostnet_100", "regnety_002", "rexnet_100", "inception_v3", "dla34", "dpn48b", "hrnet_w18_small",
    "res2net50_26w_4s", "resnest14d", "skresnet18", "ese_vovnet19b_dw", "cspresnet50", "repvgg_a0", "mobileone_s0",
    "nf_resnet26", "resnetv2_50", "convnext_atto", "convnextv2_atto", "convmixer_768_32", "inception_next_atto", "starnet_s1",
    # with attention, or mixers
    "vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "cait_xxs24_224", "xcit_nano_12_p16_224", "convit_tiny",
    "swin_tiny_patch4_window7_224", "pvt_v2_b0", "levit_128s", "pit_ti_224", "coat_tiny", "mobilevit_xxs", "mobilevitv2_050",
    "efficientformer_l1", "efficientvit_b0", "poolformer_s12", "edgenext_xx_small", "eva02_tiny_patch14_224",
    "mixer_s32_224", "resmlp_12_224", "gmlp_ti16_224")
TORCHVISION = ("alexnet", "googlenet", "shufflenet_v2_x0_5", "squeezenet1_1", "mobilenet_v3_small", "swin_t", "vit_b_16")
TRANSFORMERS = ("distilbert?n_layers=2", "bert?num_hidden_layers=2", "gpt2?n_layer=2", "llama?small")
MODELS: tuple[str, ...] = (*(f"timm:{m}" for m in TIMM), *(f"torchvision:{m}" for m in TORCHVISION),
                           *(f"hf:{m}" for m in TRANSFORMERS))
WAYS = ("fx", "export", "legacy", "dynamo", "round_trip")
_SMALL = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
          "num_key_value_heads": 2, "vocab_size": 1000}
GENOMES = 200
MOST_BYTES = 8_000_000_000


# ---- in the worker -----------------------------------------------------------------------------------------------


def load(spec: str) -> tuple[Any, Any]:
    """A function that builds the model, and its example inputs."""
    from extract import zoo

    name, _, changes = spec.partition("?")
    if not changes:
        model = zoo.load(spec)
        return model.factory, model.inputs
    from extract.zoo_transformers import build, inputs_of, model_class

    config = zoo.read_config(name.removeprefix("hf:"))
    wanted = _SMALL if changes == "small" else {k: int(v) for k, v in (c.split("=") for c in changes.split("&"))}
    for key, value in wanted.items():
        setattr(config, key, value)
    config._attn_implementation = "eager"  # the others leave a mask out if its values allow, but not while they are exported
    cls = model_class(config)
    return (lambda: build(cls, config)), inputs_of(config, cls)


def arguments(inputs: Any, device: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Tensors for ``inputs``: shapes become floats, token numbers stay."""
    import torch

    def made(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.to(device)
        if not isinstance(value, tuple):
            return value
        return torch.rand(value, device=device) if device != "meta" else torch.empty(value, device=device)

    if isinstance(inputs, dict):
        return (), {k: made(v) for k, v in inputs.items()}
    if isinstance(inputs, list):
        return tuple(made(v) for v in inputs), {}
    return (made(inputs),), {}


def on_meta(factory: Any) -> Any:
    import torch

    try:
        with torch.device("meta"):
            return factory().eval()
    except (NotImplementedError, RuntimeError):
        return factory().eval().to("meta")


def through_fx(factory: Any, inputs: Any, path: Path) -> Any:
    import torch

    from extract import from_torch

    try:
        traced = torch.fx.symbolic_trace(on_meta(factory))
    except Exception as error:  # control flow; the graph module that torch.export makes is one of torch.fx as well
        found = from_torch(program_of(factory, inputs).module(), inputs)
        found.notes.append(f"torch.fx.symbolic_trace: {one_line(error, 120)}")
        return found
    return from_torch(traced, inputs)


def through_export(factory: Any, inputs: Any, path: Path) -> Any:
    from extract import from_torch

    return from_torch(program_of(factory, inputs), inputs)


def program_of(factory: Any, inputs: Any) -> Any:
    """The exported program; without weights, where the model can be exported on meta tensors."""
    import torch

    args, kwargs = arguments(inputs, "meta")
    try:
        if kwargs:
            raise NotImplementedError("transformers leaves a mask out if its values allow; on meta tensors it cannot")
        return torch.export.export(on_meta(factory), args, kwargs, strict=False)
    except Exception:
        args, kwargs = arguments(inputs, "cpu")
        try:
            return torch.export.export(factory().eval(), args, kwargs, strict=False)
        except Exception as error:
            raise NoSuchWay(f"torch.export fails: {one_line(error, 120)}") from error


def through_onnx(dynamo: bool) -> Any:
    def way(factory: Any, inputs: Any, path: Path) -> Any:
        from extract import from_onnx

        if not path.exists():
            try:
                write_onnx(factory, inputs, path, dynamo)
            except Exception as error:
                if not (isinstance(error, TypeError) and "is_causal" in str(error)):
                    exporter = "dynamo" if dynamo else "legacy"
                    raise NoSuchWay(f"the {exporter} exporter fails: {one_line(error, 160)}") from error
                from timm.layers import set_fused_attn

                set_fused_attn(False)  # timm's own spelling of attention, for which the old exporter has rules
                try:
                    write_onnx(factory, inputs, path, dynamo)
                finally:
                    set_fused_attn(True)
        return from_onnx(path)

    return way


def write_onnx(factory: Any, inputs: Any, path: Path, dynamo: bool) -> None:
    import torch

    args, kwargs = arguments(inputs, "cpu")
    module = trained(factory().eval())
    if kwargs:
        module, args = by_position(module, kwargs)
    path.parent.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {"dynamo": True, "optimize": False}
    if not dynamo:
        settings = {"dynamo": False, "training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False,
                    "opset_version": 18}
        torch.onnx.register_custom_op_symbolic("aten::diff", difference_of_neighbours, 18)
        torch._C._jit_pass_cse = lambda graph: False
    part = path.with_suffix(f".{os.getpid()}.onnx")
    torch.onnx.export(module, args, str(part), verbose=False, **settings)
    data = Path(f"{part}.data")
    if data.exists():
        data.unlink()  # external weights; they are never read
    part.replace(path)


def difference_of_neighbours(g: Any, x: Any, n: Any, dim: Any, prepend: Any, append: Any) -> Any:
    """``torch.diff`` along the last axis for the old exporter, which has no rule for it; decoders look for packed texts so."""
    import torch

    def number(value: int) -> Any:
        return g.op("Constant", value_t=torch.tensor([value]))

    whole = g.op("Concat", prepend, x, axis_i=-1)
    after = g.op("Slice", whole, number(1), number(2**31), number(-1))
    return g.op("Sub", after, g.op("Slice", whole, number(0), number(-1), number(-1)))


def by_position(module: Any, kwargs: dict[str, Any]) -> tuple[Any, tuple[Any, ...]]:
    """The same model with tensors by position, which is how exporters name them, and plain tensors as results."""
    import torch

    names = [k for k, v in kwargs.items() if isinstance(v, torch.Tensor)]
    others = {k: v for k, v in kwargs.items() if k not in names}

    class ByPosition(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, *tensors: Any) -> Any:
            return tuple(self.inner(**dict(zip(names, tensors, strict=True)), **others).to_tuple())

    return ByPosition(), tuple(kwargs[n] for n in names)


def trained(module: Any) -> Any:
    """Other values in every weight, as training leaves them: exporters keep one copy of weights that are equal."""
    import torch

    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.rand(p.shape, generator=random))
        for name, b in module.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                b.copy_(torch.rand(b.shape, generator=random) + 0.5)
    return module


def round_trip(factory: Any, inputs: Any, path: Path) -> Any:
    from extract import from_torch, to_torch

    graph = from_torch(factory, inputs).graph
    return from_torch(to_torch(graph), [n.out_shape for n in graph.nodes if n.op == "Input"])


class NoSuchWay(Exception):
    """The model cannot go this way, for a reason outside this package."""


CALLS = {"fx": through_fx, "export": through_export, "legacy": through_onnx(False), "dynamo": through_onnx(True),
         "round_trip": round_trip}


def compare(request: Answer) -> Answer:
    """One model, one way."""
    from extract import from_torch
    from extract.comparison import difference

    way, _, spec = request["key"].partition("/")
    if way == "builder":
        return builder_against_trace(spec)
    begin = time.perf_counter()
    factory, inputs = load(spec)
    path = FOLDER / f"{spec.replace(':', '-').replace('?', '-')}.{way}.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = from_torch(factory, inputs)
        try:
            other = CALLS[way](factory, inputs, path)
        except NoSuchWay as error:
            return {"no_way": str(error), "seconds": time.perf_counter() - begin}
    said = difference(reference.graph, other.graph)
    by_export = any(note.startswith("torch.fx.symbolic_trace: ") for note in other.notes)
    return {"result": "equal" if said is None else said, "nodes": reference.graph.n_nodes, "by_export": by_export,
            "unknown": sum(reference.unknown.values()), "seconds": time.perf_counter() - begin}


def builder_against_trace(name: str) -> Answer:
    """The direct builder of a search space against traces of its networks."""
    import numpy as np

    from evo_search import get_space
    from extract import from_torch
    from extract.comparison import difference

    begin, space, rng = time.perf_counter(), get_space(name), np.random.default_rng(0)
    for i in range(GENOMES):
        genome = space.sample(rng)
        said = difference(space.to_graph(genome), from_torch(space.to_torch(genome), space.input_shape_of(genome)).graph)
        if said is not None:
            return {"result": f"genome {i}: {said}", "seconds": time.perf_counter() - begin}
    return {"result": "equal", "nodes": GENOMES, "seconds": time.perf_counter() - begin}


def start() -> Answer:
    import torch

    torch.set_num_threads(1)
    from extract import zoo

    zoo.import_torchvision()
    return {}


# ---- in the script -----------------------------------------------------------------------------------------------


def spaces() -> list[str]:
    from evo_search import list_spaces

    return list(list_spaces())


def verdict(row: Answer) -> str:
    return str(row.get("result") or f"no way: {row.get('no_way') or row.get('error')}")


def summary(rows: dict[str, Answer]) -> Answer:
    """Result for each model and way, and counts for each way."""
    totals: dict[str, Counter[str]] = {}
    table: dict[str, dict[str, str]] = {}
    for key, row in rows.items():
        way, _, spec = key.partition("/")
        kind = "equal" if row.get("result") == "equal" else "different" if row.get("result") else (
            "no_way" if row.get("no_way") else "error")
        totals.setdefault(way, Counter())[kind] += 1
        table.setdefault(spec, {})[way] = verdict(row)
    plain = [spec for spec, ways in table.items() if all(v == "equal" for v in ways.values())]
    packages = {p: version(p) for p in ("timm", "torchvision", "transformers", "onnx", "onnxscript")}
    return {"models": len(MODELS), "packages": packages,
            "totals": {way: dict(counts) for way, counts in totals.items()}, "equal_in_every_way": plain,
            "fx_by_export": [k.partition("/")[2] for k, r in rows.items() if r.get("by_export")],
            "others": {spec: {w: v for w, v in ways.items() if v != "equal"} for spec, ways in table.items()
                       if spec not in plain},
            "columns": "way/model nodes seconds",
            "rows": [f"{k} {r.get('nodes', '-')} {r.get('seconds', 0):.2f}" for k, r in rows.items()]}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", help="only these; writes no result")
    parser.add_argument("--ways", nargs="+", choices=(*WAYS, "builder"), help="only these; writes no result")
    parser.add_argument("--limit", type=int, help="only so many models; writes no result")
    parser.add_argument("--keep", action="store_true", help="keep answers that were given by other code")
    parser.add_argument("--again", action="store_true", help="ask again where the graphs were not equal")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(compare, start)
        return
    models = args.models or MODELS[:args.limit]
    ways = args.ways or (*WAYS, "builder")
    keys = [f"{way}/{spec}" for spec in models for way in WAYS if way in ways]
    if "builder" in ways and not args.models:
        keys += [f"builder/{name}" for name in spaces()]
    with Worker(["benchmarks/extract_laws.py", "--serve"], timeout_s=900, most_bytes=MOST_BYTES) as worker:

        def measure(key: str) -> Answer:
            row = worker.ask({"key": key})
            if row.get("result") != "equal":
                print(f"  {key}: {verdict(row)}", flush=True)
            return row

        rows = sweep(RUNS / "extract_laws.jsonl", keys, measure, keep=args.keep,
                     again=(lambda row: row.get("result") != "equal") if args.again else lambda row: False)
    body = summary(rows)
    print(body["totals"])
    if not (args.models or args.limit or args.ways):
        print("wrote", _record.write("extract_laws", body))


if __name__ == "__main__":
    main()
