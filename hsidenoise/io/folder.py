"""A folder of one image file for each band, opened as one scene.

Hyperion L1T, Landsat and Sentinel-2 products are known by their files' names (`sensors`). In any other folder all
images must be single bands of one grid and type, and their order is that of the numbers in their names.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..bands import Bands
from ..cube import Cube, Window
from ..errors import MetadataWarning, ReadError, UnsupportedError, UsageError
from ..settings import ReadOptions
from . import sensors

_SUFFIXES = (".tif", ".tiff", ".jp2", ".j2k", ".png", ".pgm", ".bmp", ".img", ".dat", ".bsq", ".bil", ".bip", ".raw")
_KEPT = 200  # files open at a time; systems allow a process 256 or more
_DEPTH = 6  # folders down to look for images to hint at, enough from a .SAFE to its R10m


class Band(NamedTuple):
    """A file, and what it is once opened."""

    path: str
    cube: Cube

    @property
    def grid(self) -> str:
        """Size and type, as ``--variable`` names it."""
        return f"{self.cube.shape[1]}x{self.cube.shape[2]}-{self.cube.dtype}"

    @property
    def place(self) -> tuple[Any, ...]:
        """What all bands of a scene have in common."""
        return self.grid, self.cube.geo.crs, self.cube.geo.transform


def images(folder: str) -> list[str]:
    """Names of the image files of a folder, in the order of the numbers in them; hidden files are no bands.

    Raises
    ------
    ReadError
        The folder cannot be read.
    """
    try:
        entries = [e.name for e in os.scandir(folder) if e.is_file()]
    except OSError as error:
        raise ReadError(f"{folder}: cannot be read ({error.strerror})") from error
    return sorted((n for n in entries if n.lower().endswith(_SUFFIXES) and not n.startswith(".")), key=_natural)


def _natural(name: str) -> tuple[Any, ...]:
    parts = re.split(r"(\d+)", name.lower())
    return (*(int(p) if i % 2 else p for i, p in enumerate(parts)), name)


def open_folder(name: str, options: ReadOptions, open_file: Callable[[str], Cube]) -> Cube:
    """Open a folder, or the metadata file of a product in one.

    Parameters
    ----------
    name
        A folder; or ``..._MTL.txt`` of a Landsat scene, ``..._MTL_L1T.TXT`` of a Hyperion one.
    options
        ``variable`` chooses one of several grids by its size, such as 5490x5490, or 5490x5490-uint16.
    open_file
        Opens one file.

    Raises
    ------
    UnsupportedError
        No scene: no images, or images of several bands.
    UsageError
        Several scenes or several grids.
    ReadError
        A band cannot be read.
    """
    scene = "" if os.path.isdir(name) else sensors.scene_of_metadata(os.path.basename(name))
    folder = os.path.dirname(name) if scene else name
    found = [n for n in images(folder or ".") if n.startswith(scene)]
    if not found:
        raise UnsupportedError(f"{name}: {'no bands of this scene lie beside it' if scene else _nothing(folder)}")
    product = sensors.recognise(found)
    if product and product.name != "Sentinel-2" and len(product.scenes) > 1:
        listed = ", ".join(sorted(product.scenes))
        raise UsageError(f"{name}: holds several scenes ({listed}); name the MTL file of one, or give it a folder")
    files = product.files if product else tuple(found)
    bands = _open_all(name, folder, files, open_file)
    try:
        return _compose(name, folder, found, bands, product, options, open_file)
    except BaseException:
        _close(bands)
        raise


def _nothing(folder: str) -> str:
    """Where the images may be instead."""
    inside = []
    for path, folders, _ in os.walk(folder):
        if path != folder and images(path):
            inside.append(os.path.relpath(path, folder))
        if os.path.relpath(path, folder).count(os.sep) >= _DEPTH or len(inside) > 5:
            folders.clear()
    hint = f"; there are some in {', '.join(sorted(inside)[:5])}: name that folder" if inside else ""
    return f"is a directory without image files of single bands{hint}"


def _open_all(name: str, folder: str, files: Sequence[str], open_file: Callable[[str], Cube]) -> list[Band]:
    """Every file described; those beyond the number that may stay open are closed again."""
    bands: list[Band] = []
    with ExitStack() as failed:
        failed.callback(lambda: _close(bands))
        for file in files:
            path = os.path.join(folder, file)
            cube = open_file(path)
            bands.append(Band(path, cube))
            if "complex" in cube.layout:
                raise UnsupportedError(
                    f"{name}: is a directory, and {file} in it is complex; stack its files: gdalbuildvrt -separate"
                )
            if cube.shape[0] != 1:
                raise UnsupportedError(
                    f"{name}: is a directory, and {file} in it has {cube.shape[0]} bands; a folder is a scene where "
                    "each image is one band; name the image file"
                )
            if len(bands) > _KEPT:
                cube.close()
        failed.pop_all()
    return bands


def _close(bands: Sequence[Band]) -> None:
    for band in bands:
        band.cube.close()


def _one_grid(name: str, bands: Sequence[Band], product: sensors.Product | None, wanted: str) -> list[int]:
    """Places of the bands that lie on the one grid, or on the one that ``--variable`` names."""
    grids: dict[tuple[Any, ...], list[int]] = {}
    for i, band in enumerate(bands):
        grids.setdefault(band.place, []).append(i)
    sizes = [place[0] for place in grids]
    if wanted:
        chosen = [g for g in grids if wanted in (g[0], g[0].partition("-")[0])]
        if len(chosen) != 1:
            raise UsageError(f"{name}: --variable {wanted}: choose one grid of {', '.join(sizes)}")
        return grids[chosen[0]]
    if len(grids) == 1:
        return next(iter(grids.values()))
    listed = "; ".join(f"{place[0]}: {_names(bands[i].path for i in members)}" for place, members in grids.items())
    way = f"choose one with --variable, such as {sizes[-1]}" if sizes.count(sizes[-1]) == 1 else "resample them to one"
    what = f"{product.name} bands" if product else "images"
    raise UsageError(f"{name}: {what} of {len(grids)} grids or types ({listed}); {way}, or give each its own folder")


def _names(paths: Iterable[str]) -> str:
    """File names, not more than a line holds."""
    names = [os.path.basename(path) for path in paths]
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _compose(
    name: str, folder: str, found: Sequence[str], bands: list[Band], product: sensors.Product | None,
    options: ReadOptions, open_file: Callable[[str], Cube],
) -> Cube:  # fmt: skip
    if options.axes or options.shape:
        raise UsageError(f"{name}: --axes and --shape are for files of named arrays; leave them out")
    chosen = _one_grid(name, bands, product, options.variable)
    left = [n for n in found if product and n not in product.files]
    left += [b.path for i, b in enumerate(bands) if i not in chosen]
    if left:
        text = f"{name}: not among its {len(chosen)} bands, left out: {_names(left)}"
        warnings.warn(text, MetadataWarning, stacklevel=5)
    members = [bands[i] for i in chosen]
    first = members[0].cube
    spectral = product.bands.select(chosen) if product else _spectral(members)
    if len(set(spectral.names)) < len(members):
        raise UsageError(f"{name}: has several files for one band; give each scene its own folder")
    fill = product.fill if product else None
    nodata = tuple(b.cube.nodata[0] if b.cube.nodata[0] is not None else fill for b in members)
    scale = tuple(b.cube.scale[0] for b in members)
    closed = {b.path for b in bands[_KEPT:]}
    metadata = [n for n in os.listdir(folder or ".") if sensors.scene_of_metadata(n)]
    return replace(
        first,
        name=name,
        format=f"folder of {first.format}",
        shape=(len(members), *first.shape[1:]),
        bands=spectral,
        nodata=nodata,
        scale=tuple(product.scale[i] for i in chosen) if product and product.scale else scale,
        offset=tuple(b.cube.offset[0] for b in members),
        read_raw=_reader(members, closed, open_file),
        read_mask=_mask_reader(members, closed, open_file) if any(b.cube.read_mask for b in members) else None,
        tags=_common([b.cube for b in members]),
        band_tags=tuple(b.cube.band_tags[0] for b in members),
        layout={
            "driver": "folder",
            "interleave": "band",
            "descriptions": spectral.names,
            "units": tuple((b.cube.layout.get("units") or ("",))[0] for b in members),
            "mask": next((m for b in members if (m := b.cube.layout.get("mask", ""))), ""),
            "files": tuple(dict.fromkeys(f for b in bands for f in b.cube.layout.get("files", (b.path,))))
            + tuple(os.path.join(folder, n) for n in metadata),
        },
        on_close=lambda: _close(bands),
    )


def _spectral(members: Sequence[Band]) -> Bands:
    """What the files say of themselves, each of its one band; names from the files' names."""

    def gather(key: str, missing: Any) -> tuple[Any, ...]:
        values = [getattr(b.cube.bands, key) for b in members]
        return tuple(v[0] if v else missing for v in values) if any(values) else ()

    names = tuple(sensors.stem(os.path.basename(b.path)) for b in members)
    return Bands(
        len(members), gather("wavelength", float("nan")), gather("fwhm", float("nan")), gather("good", True), names
    )


def _common(cubes: Sequence[Cube]) -> dict[str, dict[str, str]]:
    """Tags that all files have, with the same value."""
    first = cubes[0].tags
    found = {
        ns: {k: v for k, v in items.items() if all(c.tags.get(ns, {}).get(k) == v for c in cubes)}
        for ns, items in first.items()
    }
    return {ns: items for ns, items in found.items() if items}


@contextmanager
def _ready(band: Band, closed: Collection[str], open_file: Callable[[str], Cube]) -> Iterator[Cube]:
    """A band's file, opened again where it could not stay open."""
    if band.path not in closed:
        yield band.cube
        return
    with open_file(band.path) as again:
        if again.shape != band.cube.shape or again.dtype != band.cube.dtype:
            raise ReadError(f"{band.path}: changed while it was being read")
        yield again


def _reader(
    members: Sequence[Band], closed: Collection[str], open_file: Callable[[str], Cube]
) -> Callable[[Window, Sequence[int]], NDArray[Any]]:
    def read_raw(window: Window, chosen: Sequence[int]) -> NDArray[Any]:
        out = np.empty((len(chosen), *window.shape), members[0].cube.dtype)
        for i, place in enumerate(chosen):
            with _ready(members[place], closed, open_file) as cube:
                out[i] = cube.read_raw(window, [0])[0]
        return out

    return read_raw


def _mask_reader(
    members: Sequence[Band], closed: Collection[str], open_file: Callable[[str], Cube]
) -> Callable[[Window, Sequence[int]], NDArray[np.bool_]]:
    def read_mask(window: Window, chosen: Sequence[int]) -> NDArray[np.bool_]:
        out = np.ones((len(chosen), *window.shape), bool)
        for i, place in enumerate(chosen):
            with _ready(members[place], closed, open_file) as cube:
                if cube.read_mask is not None:
                    out[i] = cube.read_mask(window, [0])[0]
        return out

    return read_mask
