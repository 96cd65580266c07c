"""Models of the usual collections by one word: ``timm:resnet50``, ``torchvision:resnet50``, ``hf:bert``, ``my.module:build``.

Nothing is ever downloaded: only the architecture is built, without trained weights.
"""

from __future__ import annotations

import difflib
import fnmatch
import functools
import inspect
import json
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from extract.extraction import ExtractionError

PREFIXES = ("timm", "torchvision", "hf")
_PACKAGES = {"timm": "timm", "torchvision": "torchvision", "hf": "transformers"}


class Model(NamedTuple):
    """What :func:`load` finds: ``from_torch(factory, inputs, name=name)`` is its graph; ``None`` inputs are not known."""

    factory: Callable[[], Any]
    inputs: Any
    name: str


def load(spec: str) -> Model:
    """The model that ``spec`` names, as a function that builds it, with example inputs and a name.

    Forms: ``timm:NAME``; ``torchvision:NAME`` (also ``torchvision:segmentation/NAME``); ``hf:FILE``, a ``config.json`` or a
    folder that holds one, or ``hf:TYPE``, a model type with its default settings; ``package.module:name``, a function
    without arguments, a module class or a module on the import path, whose inputs are not known (``None``).

    Raises ``ExtractionError`` if there is no such model or its package is not installed.
    """
    prefix, colon, rest = spec.partition(":")
    if prefix in PREFIXES and colon:
        if not rest:
            raise ExtractionError(f"{spec!r} names no model; write e.g. timm:resnet50, torchvision:resnet50 or hf:bert")
        try:
            return {"timm": _timm, "torchvision": _torchvision, "hf": _transformers}[prefix](rest)
        except ModuleNotFoundError as error:
            package = _PACKAGES[prefix]
            if (error.name or "").split(".")[0] != package:
                raise
            raise ExtractionError(f"{spec!r} needs the package {package!r}; pip install {package}") from error
    return Model(find(spec), None, spec)


def find(path: str) -> Any:
    """The object that ``package.module:name`` names. Raises ``ExtractionError`` saying which part does not exist."""
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise ExtractionError(f"{path!r} is not package.module:name, e.g. my_models.vit:build")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        value: Any = import_module(module_name)
    except ImportError as error:
        raise ExtractionError(f"cannot import {module_name!r}: {error}") from error
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise ExtractionError(f"{module_name} has no {attribute!r}")
        value = getattr(value, part)
    return value


_SCHEMAS: list[Any] = []  # libraries of operator schemas; they last as long as the object does


def import_torchvision() -> ModuleType:
    """``import torchvision``, also where its compiled operators do not load (a CUDA build beside a CPU torch).

    There the import fails, because torchvision describes the result of ``nms`` and ``qnms`` without checking that they
    exist. The schemas of its operators are declared first, only then and without an implementation: models can be recorded,
    and a call with values still fails, as it would. To be called before ``import timm`` too, which imports torchvision.
    """
    if "torchvision" not in sys.modules and not _SCHEMAS:
        import torch

        from extract.torch_detection import SCHEMAS

        found = find_spec("torchvision")
        folder = Path(next(iter(found.submodule_search_locations or ()), "")) if found else Path()
        compiled = [f for f in sorted(folder.glob("_C*")) if f.suffix in (".so", ".pyd", ".dylib")]
        try:
            for file in compiled:
                torch.ops.load_library(str(file))
        except OSError:
            pass
        if found and not hasattr(torch.ops.torchvision, "nms"):
            library = torch.library.Library("torchvision", "FRAGMENT")
            for schema in SCHEMAS:
                library.define(schema)
            _SCHEMAS.append(library)
            extension: Any = import_module("torchvision").extension
            extension._has_ops = lambda: True  # so that torchvision hands its operators to the dispatcher
    return import_module("torchvision")


def matching(pattern: str) -> list[str]:
    """All models that ``timm:PATTERN`` or ``torchvision:PATTERN`` (``*`` for any letters) names, in order.

    Raises ``ExtractionError`` if there is none.
    """
    prefix, _, name = pattern.partition(":")
    if prefix == "timm":
        if find_spec("torchvision"):
            import_torchvision()
        known = import_module("timm").list_models()
    else:
        known = import_torchvision().models.list_models()
    found = fnmatch.filter(known, name)
    if not found:
        raise _no_such(prefix, name, known)
    return [f"{prefix}:{n}" for n in found]


def _no_such(kind: str, name: str, known: Iterable[str]) -> ExtractionError:
    near = difflib.get_close_matches(name, list(known), n=3)
    return ExtractionError(f"{kind} has no model {name!r}" + (f"; near are {', '.join(near)}" if near else ""))


def _timm(name: str) -> Model:
    if find_spec("torchvision"):
        import_torchvision()
    import timm

    if not timm.is_model(name):  # also refuses hf-hub: and local-dir: names, which would load files
        raise _no_such("timm", name, timm.list_models())
    settings = timm.models.get_pretrained_cfg(name)
    size = tuple(settings.input_size) if settings is not None else (3, 224, 224)
    return Model(functools.partial(timm.create_model, name, pretrained=False), (1, *size), name)


def _torchvision(path: str) -> Model:
    models = import_torchvision().models
    name = path.rpartition("/")[2]
    try:
        builder = models.get_model_builder(name)
    except (ValueError, KeyError):
        raise _no_such("torchvision", name, models.list_models()) from None
    kind = builder.__module__.removeprefix("torchvision.models").lstrip(".").rpartition(".")[0]
    if "/" in path and path.rpartition("/")[0] != kind:
        raise ExtractionError(f"torchvision has no {path!r}; {name} is torchvision:{kind + '/' if kind else ''}{name}")
    taken = inspect.signature(builder).parameters
    bare = {k: None for k in ("weights", "weights_backbone") if k in taken}  # the default of the second is a download
    return Model(functools.partial(builder, **bare), _torchvision_inputs(models, name, kind), name)


def _torchvision_inputs(models: Any, name: str, kind: str) -> Any:
    """The size that the reference weights are evaluated at."""
    settings: Any = {}
    meta: dict[str, Any] = {}
    try:
        reference = models.get_model_weights(name).DEFAULT
        settings, meta = getattr(reference.transforms, "keywords", {}), reference.meta
    except (ValueError, KeyError, AttributeError):
        pass  # no reference weights
    if kind == "detection":
        side = 320 if "320" in name else 300 if name.startswith("ssd300") else 800
        return [[(3, side, side)]]  # a list of images
    if kind == "optical_flow":
        return [(1, 3, 520, 960)] * 2
    if name.startswith("vit_"):
        return (1, 3, 224, 224)  # the size that the builder fixes, whatever its weights were trained at
    size = settings.get("crop_size", settings.get("resize_size", 520 if kind == "segmentation" else 224))
    height, width = (size, size) if isinstance(size, int) else (size[0], size[-1])
    if kind == "video":
        return (1, 3, max(16, meta.get("min_temporal_size", 0)), height, width)
    return (1, 3, height, width)


def _transformers(what: str) -> Model:
    from extract.zoo_transformers import build, inputs_of, model_class

    config = read_config(what)
    cls = model_class(config)
    return Model(functools.partial(build, cls, config), inputs_of(config, cls), f"{config.model_type}:{cls.__name__}")


def read_config(what: str) -> Any:
    """A transformers configuration from a ``config.json``, a folder that holds one, or a model type (default settings).

    Only JSON is read; classes come from the installed transformers, never from the file's folder.
    """
    from transformers import CONFIG_MAPPING

    path = Path(what)
    if path.is_dir():
        path = path / "config.json"
    if not path.is_file():
        if what in CONFIG_MAPPING:
            return CONFIG_MAPPING[what]()
        if path.suffix == ".json" or len(path.parts) > 1:
            raise ExtractionError(f"hf:{what}: no such file. Nothing is downloaded; give the path of a config.json, or a "
                                  "model type such as hf:bert")
        raise _no_such("transformers", what, CONFIG_MAPPING)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ExtractionError(f"{path}: not a JSON file ({error})") from error
    kind = data.get("model_type") if isinstance(data, dict) else None
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise ExtractionError(f"{path}: field model_type is {kind!r}, which the installed transformers does not know; code "
                              "beside the file is not run")
    try:
        return CONFIG_MAPPING[kind].from_dict(data)
    except Exception as error:
        raise ExtractionError(f"{path}: {type(error).__name__}: {' '.join(str(error).split())[:300]}") from error
