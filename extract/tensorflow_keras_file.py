"""Reading ``.keras`` archives: the model that ``config.json`` describes, built by classes of Keras alone.

This file must not call ``keras.models.load_model``: nothing but ``config.json`` is opened, and no code of the archive is run.
"""

from __future__ import annotations

import json
import zipfile
from typing import Any, Final

from extract.extraction import ExtractionError, first_line
from extract.tensorflow_consts import LARGEST
from extract.tensorflow_keras import built, keras_source, no_weights
from extract.tensorflow_sources import Source

_MOST_JSON: Final = 64 * 2**20
_MOST_MEMBERS: Final = 10_000
_MOST_LAYERS: Final = 4000
_MOST_IN_SEQUENCE: Final = 200  # Keras takes time that grows with the square
# Where a class or function of a .keras file may come from. Other modules could run any code while the model is built.
_MODULES: Final = ("keras.layers", "keras.models", "keras.initializers", "keras.regularizers", "keras.constraints",
                   "keras.activations", "keras.dtype_policies", "keras.quantizers", "keras.ops", "keras.src.ops",
                   "keras.src.models", "keras.src.layers", "keras.src.initializers", "keras.src.activations",
                   "keras.src.dtype_policies", "builtins")
_REFUSED: Final = {
    "Lambda": "it holds code", "__lambda__": "it holds code", "TFSMLayer": "it loads another file",
    "TorchModuleWrapper": "it holds pickled code", "JaxLayer": "it holds code", "FlaxLayer": "it holds code",
}


def keras_file(path: str, input_shapes: Any) -> Source:
    """The model that ``config.json`` of a .keras archive describes, built without weights by classes of Keras alone."""
    import keras

    config = _config(path)
    _check(config)
    try:
        model = built(lambda: keras.saving.deserialize_keras_object(config, safe_mode=True))
    except ExtractionError as error:
        place, cause = _culprit(config, error.__cause__ or error)
        raise ExtractionError(f"{path!r}, member 'config.json': {place} cannot be built ({cause}); load the file "
                              "with Keras where you trust it, or build the model in Python and pass it") from error
    return keras_source(model, input_shapes, own_code=False)


def _culprit(config: dict[str, Any], error: BaseException) -> tuple[str, str]:
    """The first layer that cannot be built on its own, and why; the whole model if each can."""
    import keras

    layers = config["config"].get("layers") if isinstance(config.get("config"), dict) else None
    for part in layers[:300] if isinstance(layers, list) else ():
        if isinstance(part, dict) and part.get("class_name") not in ("InputLayer", None):
            inner = part.get("config")
            try:
                with no_weights():
                    keras.saving.deserialize_keras_object(part, safe_mode=True)
            except Exception as found:
                named = inner.get("name") if isinstance(inner, dict) else None
                return f"layer {str(named)[:200]!r} ({str(part['class_name'])[:80]})", _reason(found)
    return f"the model ({str(config['class_name'])[:80]})", _reason(error)


def _reason(error: BaseException) -> str:
    """What Keras says went wrong, without the configuration that it repeats."""
    text = str(error)
    _, found, reason = text.rpartition("Exception encountered:")
    return " ".join(reason.split())[:300] if found else first_line(error)


def _config(path: str) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > _MOST_MEMBERS:
                raise ExtractionError(f"{path!r} has {len(members)} members; a .keras file has a few")
            for m in members:
                parts = m.filename.replace("\\", "/").split("/")
                if m.filename.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
                    raise ExtractionError(f"{path!r}: member {m.filename!r} points outside the archive")
            found = next((m for m in members if m.filename == "config.json"), None)
            if found is None:
                raise ExtractionError(f"{path!r} has no member 'config.json'; it is no .keras file of Keras 3")
            if found.file_size > _MOST_JSON:
                raise ExtractionError(f"{path!r}: member 'config.json' unpacks to {found.file_size} bytes; refused")
            with archive.open(found) as stream:
                text = stream.read(_MOST_JSON + 1)
        if len(text) > _MOST_JSON:
            raise ExtractionError(f"{path!r}: member 'config.json' is larger than the archive says; refused")
        config = json.loads(text)
    except ExtractionError:
        raise
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, ValueError, RecursionError,
            UnicodeDecodeError) as error:
        raise ExtractionError(f"{path!r} is not a readable .keras file ({first_line(error)})") from error
    except Exception as error:
        raise ExtractionError(f"{path!r} cannot be unpacked ({first_line(error)})") from error
    if not isinstance(config, dict) or "class_name" not in config:
        raise ExtractionError(f"{path!r}: member 'config.json' has no field 'class_name'")
    config.pop("compile_config", None)
    return config


def _check(config: Any) -> None:
    """Refuses whatever is not a class or function of Keras itself, and sizes that no layer has."""
    stack: list[tuple[Any, str, int]] = [(config, "the model", 0)]
    while stack:
        value, place, depth = stack.pop()
        if depth > 200:
            raise ExtractionError(f"config.json: {place} is nested more than 200 deep; refused")
        if isinstance(value, dict):
            inner = value.get("config")
            named = inner.get("name") if isinstance(inner, dict) else None
            kind = value.get("class_name")
            place = f"layer {named!r} ({kind})" if isinstance(named, str) and kind else place
            if kind is not None:
                _check_class(value, str(kind), place)
            if isinstance(value.get("vocabulary"), str):
                raise ExtractionError(f"config.json: {place}, field 'vocabulary' names a file; no other file is read")
            layers = inner.get("layers") if isinstance(inner, dict) else None
            most = _MOST_IN_SEQUENCE if kind == "Sequential" else _MOST_LAYERS
            if isinstance(layers, list) and len(layers) > most:
                raise ExtractionError(f"config.json: {place}, field 'layers' has {len(layers)} layers; more than {most} are "
                                      "refused: Keras would build it for minutes")
            stack += [(v, place if k == "config" else f"{place}, field {k!r}", depth + 1) for k, v in value.items()
                      if k not in ("compile_config", "shared_object_id")]
        elif isinstance(value, list):
            stack += [(v, place, depth + 1) for v in value]
        elif isinstance(value, int | float) and not isinstance(value, bool) and abs(value) > LARGEST and value == value and (
                isinstance(value, int)):
            raise ExtractionError(f"config.json: {place} is {value}, which is not a possible size")


def _check_class(value: dict[str, Any], kind: str, place: str) -> None:
    if kind in _REFUSED:
        raise ExtractionError(f"config.json: {place} is of class {kind}, which is refused, because {_REFUSED[kind]}; build "
                              "the model in Python and pass it")
    module, registered = value.get("module"), value.get("registered_name")
    if registered and registered != kind:
        raise ExtractionError(f"config.json: {place} is of the custom class {registered!r}; code of a file is not run: build "
                              "the model in Python and pass it")
    if module is not None and module != "keras" and not any(
            module == m or str(module).startswith(m + ".") for m in _MODULES):
        raise ExtractionError(f"config.json: {place} comes from module {module!r}, field 'module'; only classes of Keras are "
                              "built: build the model in Python and pass it")
