"""Encoders on disk: a folder with ``encoder.safetensors`` and ``config.json``; and the encoders that the package ships."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from cg.errors import CGError, StorageError
from cg.files import atomic_path
from cg.vocabulary import OPS, VERSION
from contrastive.config import EncoderConfig
from contrastive.encoder import Encoder

WEIGHTS, CONFIG = "encoder.safetensors", "config.json"
SHIPPED = Path(__file__).parent / "encoders"


def list_encoders() -> list[str]:
    """Names of the shipped encoders."""
    return sorted(p.name for p in SHIPPED.iterdir() if (p / CONFIG).exists()) if SHIPPED.is_dir() else []


def save_encoder(encoder: Encoder, path: str | Path, provenance: dict[str, Any] | None = None) -> Path:
    """Write the folder ``path``, complete or not at all. ``provenance`` says how the weights came to be."""
    from safetensors.torch import save_file

    path = Path(path)
    record = {"format": 1, "vocabulary": VERSION, "operators": len(OPS), "config": dataclasses.asdict(encoder.config),
              "provenance": provenance or {}}
    path.mkdir(parents=True, exist_ok=True)
    with atomic_path(path / WEIGHTS) as temporary:
        save_file({k: v.contiguous() for k, v in encoder.state_dict().items()}, temporary)
    with atomic_path(path / CONFIG) as temporary:
        Path(temporary).write_text(json.dumps(record, indent=1) + "\n")
    return path


def load_encoder(name_or_path: str | Path = "default") -> Encoder:
    """A shipped encoder by name (see ``list_encoders``), or the folder that ``save_encoder`` wrote.

    Raises ``CGError`` on an unknown name, ``StorageError`` naming the file if it is corrupt or of another vocabulary version.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = SHIPPED / str(name_or_path)
    if not (path / CONFIG).exists():
        path = Path(name_or_path)
    if not (path / CONFIG).exists():
        raise CGError(f"no encoder {str(name_or_path)!r}: not a folder with {CONFIG}, and not one of the shipped ones "
                      f"({', '.join(list_encoders()) or 'none'})")
    try:
        record = json.loads((path / CONFIG).read_text())
        vocabulary, values = record["vocabulary"], record["config"]
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise StorageError(f"{path / CONFIG} is not an encoder description: {error!r}") from None
    if vocabulary != VERSION or record.get("operators") != len(OPS):
        raise StorageError(f"{path} was trained with operator vocabulary {vocabulary} ({record.get('operators')} operators), "
                           f"this version has {VERSION} ({len(OPS)}); train it again with `cg pretrain`")
    encoder = Encoder(EncoderConfig.from_dict(values))
    try:
        encoder.load_state_dict(load_file(path / WEIGHTS))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise StorageError(f"{path / WEIGHTS} is missing, truncated or does not fit its configuration: "
                           f"{str(error).splitlines()[0]}") from None
    return encoder.eval()
