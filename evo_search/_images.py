"""Folders of images: the classes in one, the image files of a class, one image opened. Neither scaled nor cut here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cg.errors import CGError, StorageError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".webp", ".tif", ".tiff"}


def class_folders(path: Path) -> list[str]:
    """Sorted names of the folders in ``path``, one for each class. ``StorageError`` if there are fewer than two."""
    found = sorted(p.name for p in path.iterdir() if p.is_dir())
    if len(found) < 2:
        raise StorageError(f"{path} must hold one folder of images for each of at least 2 classes, it has {len(found)}")
    return found


def image_files(path: Path) -> list[Path]:
    """Sorted image files in ``path``, at any depth, by their suffixes."""
    return [file for file in sorted(path.rglob("*")) if file.suffix.lower() in SUFFIXES]


def open_image(file: Path) -> Image.Image:
    """The image in colour (RGB). ``StorageError`` names a file that cannot be read."""
    try:
        from PIL import Image
    except ImportError:
        raise CGError("reading images needs Pillow: pip install pillow") from None
    try:
        with Image.open(file) as opened:
            return opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise StorageError(f"cannot read image {file}: {error}") from None
