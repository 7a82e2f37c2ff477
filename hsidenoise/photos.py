"""Photographs that lend synthesised training cubes their textures: decoded, and known by their digests."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import TrainingError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
#: Least edge in pixels of a photograph.
SMALLEST = 32


@dataclass(frozen=True)
class Photo:
    """A photograph in memory.

    Parameters
    ----------
    name
        Its path within what was opened.
    pixels
        (3, rows, cols) uint8, sRGB.
    digest
        First 16 hex digits of the sha256 of the decoded pixels (rows, cols, 3), to prove what was trained on.
    """

    name: str
    pixels: NDArray[np.uint8]
    digest: str


def load_photos(path: Path) -> list[Photo]:
    """Every photograph of a folder or ``.zip`` (sub-folders too), or every uint8 dataset of an ``.h5`` file.

    Image files are decoded by Pillow, ``.h5`` datasets (rows, cols, 3) need h5py only.

    Raises
    ------
    TrainingError
        Nothing there, something damaged or smaller than 32 pixels, or image files and no Pillow.
    """
    photos = []
    for name, pixels in _from_h5(path) if path.suffix.lower() in (".h5", ".hdf5") else _from_files(path):
        if min(pixels.shape[:2]) < SMALLEST:
            rows, cols = pixels.shape[:2]
            raise TrainingError(f"{path}: {name} has {rows} x {cols} pixels; a photograph takes {SMALLEST} at least")
        digest = hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()[:16]
        photos.append(Photo(name, np.ascontiguousarray(pixels.transpose(2, 0, 1)), digest))
    if not photos:
        raise TrainingError(f"{path}: holds no photograph ({' '.join(SUFFIXES)}, or uint8 datasets row, column, 3)")
    return photos


def _from_h5(path: Path) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    import h5py

    names: list[str] = []

    def collect(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype == np.uint8 and item.ndim == 3 and item.shape[2] == 3:
            names.append(name)

    try:
        with h5py.File(path) as file:
            file.visititems(collect)
            for name in sorted(names):
                yield name, file[name][()]
    except OSError as error:
        raise TrainingError(f"{path}: not a readable HDF5 file of photographs ({error})") from error


def _from_files(path: Path) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise TrainingError(f"{path}: reading image files takes Pillow (pip install pillow), or give an .h5") from error
    for name, data in _files(path):
        try:
            with Image.open(io.BytesIO(data)) as image:
                yield name, np.asarray(image.convert("RGB"))
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise TrainingError(f"{path}: {name} is not a readable photograph ({error})") from error


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names, in order, and contents."""
    try:
        if path.is_dir():
            for file in sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES):
                yield file.relative_to(path).as_posix(), file.read_bytes()
            return
        if path.suffix.lower() in SUFFIXES:
            yield path.name, path.read_bytes()
            return
        with zipfile.ZipFile(path) as archive:
            for name in sorted(n for n in archive.namelist() if n.lower().endswith(SUFFIXES)):
                yield name, archive.read(name)
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise TrainingError(f"{path}: not a folder, .zip or .h5 of photographs that can be read ({error})") from error
