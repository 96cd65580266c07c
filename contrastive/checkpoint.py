"""Encoders on disk: a folder with ``encoder.safetensors`` and ``config.json``; and the encoders that the package ships."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from cg.errors import CGError, StorageError
from cg.files import atomic_path, write_text
from cg.vocabulary import OPS, VERSION
from contrastive.config import EncoderConfig
from contrastive.encoder import Encoder

WEIGHTS, CONFIG = "encoder.safetensors", "config.json"
SHIPPED = Path(__file__).parent / "encoders"


def list_encoders() -> list[str]:
    """Names of the shipped encoders."""
    return sorted(p.name for p in SHIPPED.iterdir() if (p / CONFIG).exists()) if SHIPPED.is_dir() else []


def save_encoder(encoder: Encoder, path: str | Path, provenance: dict[str, Any] | None = None) -> Path:
    """Write the folder ``path``. ``provenance`` says how the weights came to be.

    The description, written last, holds a checksum of the weights, so that half of a save is never loaded.
    """
    from safetensors.torch import save

    path = Path(path)
    weights = save({k: v.contiguous() for k, v in encoder.state_dict().items()})
    record = {"format": 1, "vocabulary": VERSION, "operators": len(OPS), "config": dataclasses.asdict(encoder.config),
              "sha256": hashlib.sha256(weights).hexdigest(), "provenance": provenance or {}}
    with atomic_path(path / WEIGHTS) as temporary:
        temporary.write_bytes(weights)
    write_text(path / CONFIG, json.dumps(record, indent=1) + "\n")
    return path


def load_encoder(name_or_path: str | Path = "default") -> Encoder:
    """A shipped encoder by name (see ``list_encoders``), or the folder that ``save_encoder`` wrote.

    Raises ``CGError`` on an unknown name, ``StorageError`` naming the file if it is corrupt or of another vocabulary version.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = SHIPPED / str(name_or_path)
    if not (path / CONFIG).exists():
        path = Path(name_or_path)
    if not (path / CONFIG).exists():
        raise CGError(f"no encoder {str(name_or_path)!r}: not a folder with {CONFIG}, and not one of the shipped ones "
                      f"({', '.join(list_encoders()) or 'none'})")
    try:
        record = json.loads((path / CONFIG).read_text())
        vocabulary, config = record["vocabulary"], EncoderConfig.from_dict(record["config"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(f"{path / CONFIG} is not an encoder description: {error!r}") from None
    if vocabulary != VERSION or record.get("operators") != len(OPS):
        raise StorageError(f"{path} was trained with operator vocabulary {vocabulary} ({record.get('operators')} operators), "
                           f"this version has {VERSION} ({len(OPS)}); train it again with `cg pretrain`")
    encoder = Encoder(config)
    try:
        weights = (path / WEIGHTS).read_bytes()
        if record.get("sha256") not in (None, hashlib.sha256(weights).hexdigest()):
            raise StorageError(f"{path / WEIGHTS} is corrupt or of another save than {CONFIG} (wrong sha256); restore it")
        encoder.load_state_dict(load(weights))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise StorageError(f"{path / WEIGHTS} is missing, truncated or does not fit its configuration: "
                           f"{str(error).splitlines()[0]}") from None
    return encoder.eval()
