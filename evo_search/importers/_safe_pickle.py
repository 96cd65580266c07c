"""Read the benchmark authors' pickles without running anything that a pickle may ask for.

A pickle is a program that may call any importable function. Here only ``collections.OrderedDict`` and ``set`` are the
real ones; NumPy and torch names get inert stand-ins that are made anew for every file, and every other name is refused
before it is imported. No NumPy or torch code sees the file's bytes: scalars are decoded here, numeric dtypes only;
tensors and arrays become :data:`SKIPPED`, since a table needs no weights. Torch itself is not needed.

Containers: plain pickle, ``.pbz2`` (bz2 of a pickle), and both layouts of ``torch.save`` (zip since 1.6, before that
four pickles in a row followed by raw storages).
"""

from __future__ import annotations

import bz2
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from cg.errors import StorageError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_NUMERIC = re.compile(r"^[<>=|]?(b1|[iu][1248]|f[248])$")


class RefusedPickle(StorageError):
    """The pickle asks for something that a benchmark file does not need; nothing of it was run."""


class _Skipped:
    """What stands for a tensor or an array."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "SKIPPED"


SKIPPED = _Skipped()


class _Sealed:
    """A callable that a pickle can call and not change (no ``__dict__``, no assignment)."""

    __slots__ = ("_function",)
    _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setattr__(self, name: str, value: Any) -> None:
        raise RefusedPickle(f"the pickle tries to set {name!r} on an allowed name")


class _DType:
    """A dtype as the pickle describes it: a code such as ``f8`` and later its byte order."""

    __slots__ = ("code", "order")

    def __init__(self, code: object) -> None:
        self.code, self.order = str(code), "="

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "=", "|"):
            self.order = str(state[1])


class _Array:
    """An array whose content is dropped."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        pass


def _scalar(dtype: object, data: object = b"") -> Any:
    """``numpy.core.multiarray.scalar``: bytes of one number -> Python number; any other scalar is dropped."""
    if not isinstance(dtype, _DType) or not isinstance(data, bytes) or not _NUMERIC.match(dtype.code):
        return SKIPPED
    real = np.dtype(dtype.order + dtype.code.lstrip("<>=|"))
    if len(data) != real.itemsize:
        raise StorageError("a NumPy scalar has the wrong number of bytes")
    return np.frombuffer(data, real)[0].item()


def _latin1(text: object, encoding: object = "latin1") -> bytes:
    """``_codecs.encode``, by which old pickle protocols store bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise RefusedPickle("the pickle uses a codec other than latin1")
    return text.encode("latin1")


_BUILTINS = {("collections", "OrderedDict"): OrderedDict, ("builtins", "set"): set, ("__builtin__", "set"): set}
_STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("_codecs", "encode"): _latin1,
    ("numpy", "dtype"): lambda code="", *_: _DType(code),
    ("numpy", "ndarray"): lambda *_: _Array(),
    **{
        (f"{module}.multiarray", name): function
        for module in ("numpy.core", "numpy._core")
        for name, function in (("scalar", _scalar), ("_reconstruct", lambda *_: _Array()))
    },
    **{
        ("torch._utils", name): lambda *_: SKIPPED
        for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter", "_rebuild_qtensor")
    },
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _BUILTINS:
            return _BUILTINS[module, name]
        if (module, name) in _STAND_INS:
            return _Sealed(_STAND_INS[module, name])
        if module in ("torch", "torch.storage") and re.fullmatch(r"[A-Za-z0-9]*Storage", name):
            return _Sealed(lambda *_: SKIPPED)
        raise RefusedPickle(f"the pickle asks for {module}.{name}, which a benchmark file does not need")

    def persistent_load(self, pid: Any) -> Any:  # a tensor's storage
        return SKIPPED


def _load(stream: IO[bytes] | bz2.BZ2File) -> Any:
    return _Unpickler(stream).load()


def load_file(path: Path) -> Any:
    """Content of a ``.pickle.pbz2``, ``.pkl`` or ``.pth`` file.

    Raises:
        RefusedPickle: the file asks for a name outside the list above; nothing was run.
        StorageError: the file is missing, truncated or not of these formats.
    """
    try:
        with path.open("rb") as raw:
            head = raw.read(4)
            raw.seek(0)
            if head[:3] == b"BZh":
                with bz2.BZ2File(raw) as stream:
                    return _load(stream)
            if head == b"PK\x03\x04":
                return _load_zip(raw)
            first = _load(raw)
            if first != _LEGACY_MAGIC:
                return first
            _load(raw)  # protocol version
            _load(raw)  # system information
            return _load(raw)
    except RefusedPickle as error:
        raise RefusedPickle(f"{path}: {error}; refused, nothing in it was run") from None
    except FileNotFoundError:
        raise StorageError(f"{path}: no such file") from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise StorageError(
            f"{path}: truncated, corrupt or not a pickle of a benchmark ({type(error).__name__}: {error}); "
            "download it again and compare its checksum"
        ) from None


def _load_zip(raw: IO[bytes]) -> Any:
    """The object of a ``torch.save`` zip: its member ``<archive>/data.pkl``."""
    with zipfile.ZipFile(raw) as archive:
        inner = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(inner) != 1:
            raise StorageError("a zip without a torch data.pkl")
        with archive.open(inner[0]) as stream:
            return _load(stream)
