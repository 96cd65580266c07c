"""Keras archives and pickles that are made to harm."""

from __future__ import annotations

import base64
import io
import json
import marshal
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hostile import Case
from hostile_tensorflow import BIG, SEEDS, archive, functional, layer, sequential, small_functional
from hostile_tensorflow_cases import Make, file


def payload(secrets: Path) -> str:
    return f"open({str(secrets / 'executed')!r}, 'w').write('x')"


def lambda_layer(secrets: Path) -> Any:
    code = marshal.dumps(compile(f"lambda x: {payload(secrets)}", "evil", "eval").co_consts[0])
    value = {"class_name": "__lambda__", "config": {"code": base64.b64encode(code).decode(), "defaults": None, "closure": None}}
    return sequential(layer("Lambda", function=value, arguments={}))


def named(module: str, what: str, **config: Any) -> Make:
    return lambda secrets: sequential(layer("Activation", activation={
        "module": module, "class_name": "function", "config": what, "registered_name": "function"}, **config))


def of_class(module: str, kind: str, **config: Any) -> Make:
    return lambda secrets: sequential({**layer(kind, **config), "module": module})


def reader(kind: str, field: str) -> Make:
    return lambda secrets: sequential(layer(kind, **{field: str(secrets / "passwd")}), size=(None, 4))


_KERAS: list[tuple[str, Make, str | None]] = [
    ("not a zip", lambda s: b"PK but not really" * 50, "not a readable"),
    ("half a zip", lambda s: SEEDS["small.keras"]()[:700], "not a readable"),
    ("no config", lambda s: archive("{}"), "class_name"),
    ("config is no JSON", lambda s: archive("{'a': 1"), "readable|config"),
    ("config 100,000 deep", lambda s: archive("[" * 100_000 + "]" * 100_000), "readable|config"),
    ("layers 500 deep", lambda s: archive('{"class_name": "Sequential", "config": ' * 500 + "1" + "}" * 500), "nested|layer"),
    ("zip bomb for a config", lambda s: archive(b'"' + b" " * 200_000_000 + b'"'), "config.json"),
    ("zip bomb for weights", lambda s: archive(small_functional(), **{"model.weights.h5": b"\0" * 300_000_000}), None),
    ("member with an absolute path", lambda s: archive(small_functional(), **{str(s / "executed"): b"x"}), "outside"),
    ("member above the archive", lambda s: archive(small_functional(), **{"../../executed": b"x"}), "outside"),
    ("Lambda layer with code", lambda_layer, "'evil'.*Lambda"),
    ("registered class", lambda s: sequential({**layer("Evil"), "module": None, "registered_name": "my>Evil"}), "my>Evil"),
    ("class of os", of_class("os", "system", command="id"), "'os'"),
    ("class of a module that is on the path", of_class("hostile_worker", "main"), "hostile_worker"),
    ("function of builtins", named("builtins", "eval"), "eval|evil"),
    ("function os.system", named("os", "system"), "'os'"),
    ("function that fetches a file", named("keras.utils", "get_file"), "keras.utils"),
    ("function that loads a model", named("keras.models", "load_model"), "load_model|evil"),
    ("switch for unsafe loading", named("keras.config", "enable_unsafe_deserialization"), "keras.config"),
    ("unsafe loading by another road", named("keras.src.saving.serialization_lib", "enable_unsafe_deserialization"), "module"),
    ("layer that loads a SavedModel", lambda s: sequential(layer("TFSMLayer", filepath=str(s))), "TFSMLayer"),
    ("layer of pickled torch", lambda s: sequential(layer("TorchModuleWrapper", module={
        "class_name": "__bytes__", "config": {"value": "gASVAAAA"}})), "TorchModuleWrapper"),
    ("vocabulary from a file", reader("StringLookup", "vocabulary"), "evil|StringLookup|vocabulary"),
    ("integers from a file", reader("IntegerLookup", "vocabulary"), "evil|IntegerLookup|vocabulary"),
    ("text vocabulary from a file", reader("TextVectorization", "vocabulary"), "evil|TextVectorization|vocabulary"),
    ("weights from a file", lambda s: sequential(layer("Dense", units=3, kernel_initializer={
        "module": "keras.initializers", "class_name": "LoadFile", "config": {"path": str(s / "weights.bin")}})), "."),
    ("compile_config with code", lambda s: {**small_functional(), "compile_config": {"optimizer": {
        "class_name": "__lambda__", "config": {"code": "aGVsbG8="}}}}, None),
    ("units of 2^62", lambda s: sequential(layer("Dense", units=BIG)), "'evil'"),
    ("units of -1", lambda s: sequential(layer("Dense", units=-1)), "evil|units"),
    ("units of 2^39", lambda s: sequential(layer("Dense", units=2**39)), None),
    ("kernel of 10^9", lambda s: sequential(layer("Conv2D", filters=4, kernel_size=[10**9, 10**9])), "evil|kernel"),
    ("input of 2^62", lambda s: sequential(layer("ReLU"), size=(None, BIG, 3)), "."),
    ("negative input", lambda s: sequential(layer("ReLU"), size=(None, -5, 3)), "."),
    ("three thousand layers", lambda s: sequential(*[layer("ReLU", f"r{i}") for i in range(3000)]), None),
    ("a million layers", lambda s: archive(json.dumps(sequential("LAYERS")).replace('"LAYERS"', ",".join(
        [json.dumps(layer("ReLU"))] * 10**5))), "layers|evil|name"),
    ("cycle of layers", lambda s: functional((sequential()["config"]["layers"][0], ""), (layer("Add", "evil"), "x b"),
                                             (layer("ReLU", "b"), "evil"), out="b"), "."),
    ("layer that reads nobody", lambda s: functional((sequential()["config"]["layers"][0], ""), (layer("ReLU"), "nobody"),
                                                     out="evil"), "."),
    ("model in model in model", lambda s: _nested_models(60), None),
]


def _nested_models(depth: int) -> Any:
    model = sequential(layer("ReLU"), size=(None, 4))
    for i in range(depth):
        model = sequential({**model, "config": {**model["config"], "name": f"n{i}"}}, size=(None, 4))
    return model


class Bomb:
    """Unpickling it runs code."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (self.code,)


def _pickled(zipped: bool) -> Callable[[Path, Path], Path]:
    def write(folder: Path, secrets: Path) -> Path:
        path = folder / ("model.pt" if zipped else "model.pth")
        data = pickle.dumps(Bomb(payload(secrets)))
        if zipped:
            out = io.BytesIO()
            with zipfile.ZipFile(out, "w") as z:
                z.writestr("model/data.pkl", data)
                z.writestr("model/version", "3")
            data = out.getvalue()
        path.write_bytes(data)
        return path

    return write


CASES = [*(Case(f"keras: {name}", file("model.keras", make), says) for name, make, says in _KERAS),
         Case("keras: HDF5", file("model.h5", lambda s: b"\x89HDF\r\n\x1a\n" + b"\0" * 500), "HDF5")]
PICKLES = [Case("pickle", _pickled(False), "pickle.*weights_only|weights_only.*pickle"),
           Case("pickle in a zip", _pickled(True), "pickle.*weights_only|weights_only.*pickle")]
