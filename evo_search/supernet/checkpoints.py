"""Files of weights: reading them without running code from them, and fitting the official names to ours.

Spellings of one tensor, all read: ``blocks.1.mobile_inverted_conv.depth_conv...`` (the released supernets),
``blocks.1.conv.depth_conv...`` (saved by later versions of the official code), either with ``module.`` in front (DataParallel).
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cg.errors import CGError, StorageError

_OLD, _NEW = ".mobile_inverted_conv.", ".conv."
_SHOWN = 5  # names in an error
_COUNTER = "num_batches_tracked"  # absent in files of torch before 0.4.1; it decides nothing


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a file, on the CPU.

    Args:
        path: a safetensors file (any name; recognised by its content), or what ``torch.save`` wrote, in the old format or the
            new one: a state dict, or a dict with one under ``state_dict``. Pickles are read with ``weights_only=True``: they
            cannot run code.

    Raises:
        StorageError: the file is missing or unreadable, holds more than tensors and plain values, or no state dict.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise StorageError(f"cannot read checkpoint {path}: {error.strerror or error}") from None
    if path.suffix == ".safetensors" or (head[8:9] == b"{" and not head.startswith((b"PK", b"\x80"))):
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise StorageError(f"cannot read checkpoint {path}: {error}") from None
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        why = str(error).strip().splitlines()[0]
        raise StorageError(f"checkpoint {path} holds more than tensors and plain values, or is damaged; it was not loaded, "
                           f"since that could run code: {why}") from None
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise StorageError(f"cannot read checkpoint {path}: {error or type(error).__name__}") from None
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not found or not all(isinstance(v, Tensor) for v in found.values()):
        raise StorageError(f"checkpoint {path} holds no state dict: it must be one, or a dict with one under 'state_dict'")
    return {str(k): v.detach() for k, v in found.items()}


def fitted(state: Mapping[str, Tensor], sizes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """``state`` under the names of ``sizes``, floating-point tensors as float32 copies.

    Args:
        state: name -> tensor, in any of the spellings above.
        sizes: every wanted name -> shape.

    Raises ``CGError`` naming tensors that are missing, not wanted, there twice, of another shape or not finite.
    """
    old = any(_OLD in name for name in state)
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        ours = name.removeprefix("module.").replace(_OLD, _NEW)
        if ours in renamed:
            raise CGError(f"{ours} is in the state dict twice, in two spellings")
        renamed[ours] = tensor
    for name in sizes:
        if name.endswith(_COUNTER) and name not in renamed:
            renamed[name] = torch.tensor(0)

    def spelt(name: str) -> str:
        return _as_in_file(name) if old else name

    def said(names: list[str]) -> str:
        return f"{len(names)} ({', '.join(map(spelt, names[:_SHOWN]))}{', ...' if len(names) > _SHOWN else ''})"

    missing, unexpected = [n for n in sizes if n not in renamed], [n for n in renamed if n not in sizes]
    if missing or unexpected:
        parts = [f"{what} {said(names)}" for what, names in (("missing:", missing), ("unexpected:", unexpected)) if names]
        raise CGError(f"tensors do not fit this supernet; {'; '.join(parts)}")
    for name, wanted in sizes.items():
        got = tuple(renamed[name].shape)
        if got != wanted:
            raise CGError(f"{spelt(name)} has shape {list(got)}, must be {list(wanted)}")
    out = {}
    for name, t in renamed.items():
        if name.endswith(_COUNTER):
            out[name] = t.to(torch.int64, copy=True)
            continue
        if not t.is_floating_point():
            raise CGError(f"{spelt(name)} is {t.dtype}, must be floating point")
        out[name] = t.to(torch.float32, copy=True)
        if not torch.isfinite(out[name]).all():
            raise CGError(f"{spelt(name)} holds values that are not finite")
    return out


def _as_in_file(name: str) -> str:
    """Our name as the released supernets spell it."""
    first, number, *rest = name.split(".")
    return ".".join([first, number, "mobile_inverted_conv", *rest[1:]]) if first == "blocks" and rest[:1] == ["conv"] else name
