"""The sets of models behind ``extract_reach.py``: their names, and how one model is built, extracted and counted.

Runs in a worker. Every ``measure`` returns the row of one model; the clock is around building and extracting, nothing else.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

from _reach_base import model_of, params_used, row, tensors_of, torch_start
from _reach_onnx import onnx_measure, onnx_names, onnx_node_names, onnx_start
from _workers import Answer, one_line

LARGEST = ("vit_7b_patch16_dinov3", "eva02_enormous_patch14_clip_224", "vit_giant_patch14_dinov2")  # of timm 1.0.31
RUN_PARAMS, RUN_MACS = 50_000_000, 5_000_000_000  # up to here a module made of a graph is run with weights


class ModelSet(NamedTuple):
    """Where the models of a set come from. ``names`` and ``measure`` import their framework when called."""

    names: Callable[[], list[str]]
    measure: Callable[[str], Answer]
    start: Callable[[], object]
    packages: tuple[str, ...]
    timeout_s: float = 120.0
    fresh: bool = False  # a new process for each model


class Stopwatch:
    """``seconds`` spent in the calls of ``work`` so far; keeps the last result."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work, self.seconds, self.result = work, 0.0, None

    def __call__(self) -> Any:
        t = time.perf_counter()
        try:
            self.result = self.work()
        finally:
            self.seconds += time.perf_counter() - t
        return self.result


# ---- PyTorch -----------------------------------------------------------------------------------------------------


def torch_measure(spec: str) -> Answer:
    return torch_row(*model_of(spec))


def torch_row(factory: Callable[[], Any], inputs: Any, **more: Any) -> Answer:
    """Extract what ``factory`` builds, and count its parameters with PyTorch."""
    from extract import ExtractionError, from_torch

    build = Stopwatch(factory)
    t, cpu = time.perf_counter(), time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = from_torch(build, inputs)
    except ExtractionError as error:
        return {"error": one_line(error, 600), "seconds": time.perf_counter() - t, "build_s": build.seconds, **more}
    seconds, cpu = time.perf_counter() - t, time.process_time() - cpu
    out = row(found, seconds, build_s=build.seconds, cpu_s=cpu, **more)
    out["params_framework"] = sum(p.numel() for p in build.result.parameters())
    if out["params"] != out["params_framework"]:
        try:
            out["params_used"] = params_used(build.result, inputs)
        except Exception as error:
            out["params_used_error"] = one_line(error)
    return out


def round_trip_measure(spec: str) -> Answer:
    """The graph of the module that ``to_torch`` makes of the graph, and whether that module trains.

    ``came_back``: true, or the first difference. ``ran_on``: "cpu" with weights, "meta" where the network is large.
    """
    import torch

    from extract import from_torch, to_torch, zoo
    from extract.comparison import difference

    model = zoo.load(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = from_torch(model.factory, model.inputs)
    t = time.perf_counter()
    g = found.graph
    out = row(found, 0.0)
    if found.unknown:
        return {**out, "came_back": "not asked: it has Unknown nodes"}
    shapes = [n.out_shape for n in g.nodes if n.op == "Input"]
    try:
        said = difference(g, from_torch(to_torch(g, device="meta"), shapes).graph)
        out["came_back"] = said is None or said
    except Exception as error:
        out["came_back"] = one_line(error)
    out["seconds"] = time.perf_counter() - t
    out["ran_on"] = device = "cpu" if g.params <= RUN_PARAMS and g.macs <= RUN_MACS else "meta"
    try:
        module: Any = to_torch(g, device=device)
        batch = 1 if module.program.only_recorded_batch else 2  # batch norm of vectors trains on two or more
        with torch.device(device):
            results = list(tensors_of(module(*(torch.rand((batch, *shape[1:])) for shape in shapes))))
            torch.stack([r.float().sum() for r in results if r.requires_grad]).sum().backward()
        without = sum(p.grad is None for p in module.parameters())
        out["ran"] = True if not without else f"{without} parameters got no gradient"
    except Exception as error:
        out["ran"] = one_line(error)
    return out


def timm_names() -> list[str]:
    from extract import zoo

    zoo.import_torchvision()
    import timm

    return [f"timm:{name}" for name in timm.list_models()]


def timm_start() -> None:
    timm_names()
    torch_start()


def torchvision_names() -> list[str]:
    """All of them; those of ``torchvision.models.quantization`` as the float networks that they are until converted."""
    from extract import zoo

    models = zoo.import_torchvision().models
    return [f"torchvision:{name}" for name in models.list_models()]


def torchvision_measure(spec: str) -> Answer:
    from extract import zoo

    models = zoo.import_torchvision().models
    parts = models.get_model_builder(spec.partition(":")[2]).__module__.split(".")
    group = parts[2] if len(parts) > 3 else "classification"
    return {"group": group, **torch_measure(spec)}


def transformers_names() -> list[str]:
    from zoo_transformers import ARCHITECTURES

    return [f"hf:{name}" for name in ARCHITECTURES]


def transformers_measure(spec: str) -> Answer:
    from zoo_transformers import KINDS

    name = spec.partition(":")[2]
    return torch_row(*model_of(spec), group=next(kind for kind, names in KINDS.items() if name in names.split()))


def transformers_start() -> None:
    from extract import zoo

    zoo.import_torchvision()  # without it transformers calls its models missing where torchvision is half installed
    torch_start()


# ---- Keras -------------------------------------------------------------------------------------------------------


def keras_start() -> None:
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras  # noqa: F401
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    torch_start()


def keras_names() -> list[str]:
    """Every function of ``keras.applications`` that builds a network."""
    os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    import keras

    return [f"keras:{name}" for name in dir(keras.applications)
            if name[0].isupper() and callable(getattr(keras.applications, name))]


def keras_measure(spec: str) -> Answer:
    import keras

    from extract import ExtractionError, from_tensorflow

    keras.utils.clear_session()
    name = spec.partition(":")[2]
    # the one family whose images have no size by default; the others' is the size of their reference weights
    size = {"input_shape": (224, 224, 3)} if name.startswith("MobileNetV3") else {}
    build = Stopwatch(lambda: getattr(keras.applications, name)(weights=None, **size))
    t = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = from_tensorflow(build)
    except ExtractionError as error:
        return {"error": one_line(error, 600), "seconds": time.perf_counter() - t, "build_s": build.seconds}
    seconds = time.perf_counter() - t
    count = sum(prod(int(d) for d in w.shape) for w in build.result.trainable_weights)
    return row(found, seconds, build_s=build.seconds, params_framework=count)


def largest_names() -> list[str]:
    """Models of timm with more than a billion parameters."""
    return [f"timm:{name}" for name in LARGEST]


SETS: dict[str, ModelSet] = {
    "timm": ModelSet(timm_names, torch_measure, timm_start, ("timm",)),
    "torchvision": ModelSet(torchvision_names, torchvision_measure, timm_start, ("torchvision",)),
    "transformers": ModelSet(transformers_names, transformers_measure, transformers_start, ("transformers",)),
    "keras": ModelSet(keras_names, keras_measure, keras_start, ("keras", "tensorflow-cpu"), 300.0),
    "onnx": ModelSet(onnx_names, onnx_measure, onnx_start, ("onnx", "onnxscript"), 300.0),
    "onnx_node": ModelSet(onnx_node_names, onnx_measure, onnx_start, ("onnx",)),
    "round_trip": ModelSet(timm_names, round_trip_measure, timm_start, ("timm",)),
    "largest": ModelSet(largest_names, torch_measure, timm_start, ("timm",), fresh=True),
}
