"""TIFF files whose pages are the bands of a cube: page stacks, ImageJ and OME hyperstacks, shaped TIFFs.

tifffile tells which pages belong together and what their axes mean. GDAL, which would show one page as the whole scene,
describes the first page (georeferencing, nodata, tags) and unpacks compressed ones.
"""

from __future__ import annotations

import logging
import math
import os
import struct
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import rasterio
import tifffile
from numpy.typing import NDArray

from ..bands import from_gtiff
from ..cube import Cube, Window
from ..errors import MetadataWarning, ReadError, SceneTooLargeError, UnsupportedError, UsageError
from ..settings import ReadOptions
from . import gdal, raster, sidecars, slots, tiffcheck
from .planes import Planes, dataset, full
from .write_pages import PagesCopy

# tifffile reports what it cannot parse to its logger; without any handler Python would print that.
logging.getLogger("tifffile").addHandler(logging.NullHandler())
_DAMAGE = (tifffile.TiffFileError, OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError,
           ArithmeticError, AssertionError, MemoryError, NotImplementedError, struct.error)  # fmt: skip
# Descriptions that lay out a file's pages; in a file of another layout they would be wrong.
_LAYOUT = ("ImageJ=", '{"shape"', "<?xml", "<OME")
_Tags = dict[str, dict[str, str]]
_PAGE_NAME, _DESCRIPTION, _GDAL_METADATA = 285, 270, 42112


def open_tiff(name: str, options: ReadOptions) -> Cube:
    """Open a TIFF file: a cube stored as pages, or else what `raster.open_raster` makes of it.

    ``options.variable`` names or counts (from 1) one of several stacks, ``options.axes`` tells the meaning of its axes.

    Raises
    ------
    UnsupportedError
        Pages of different sizes, or of several samples.
    UsageError
        There is no such stack, there are several, or which axis holds the bands is not certain.
    ReadError, SceneTooLargeError
        See `raster.open_raster`.
    """
    with gdal.reading(name, "cannot be opened"), rasterio.open(name) as source:
        text = source.tags().get("TIFFTAG_IMAGEDESCRIPTION", "")
        several = source.driver == "GTiff" and len(source.subdatasets) > 1
        # ImageJ and tifffile may write one directory only for pages that follow on each other.
        hidden = source.driver == "GTiff" and source.count == 1 and text.startswith(_LAYOUT[:2])
    if options.shape:
        raise UsageError(f"{name}: --shape is for pixels along one axis; a TIFF has rows and columns, leave it out")
    wrong = False  # whether the description lays out more than is taken
    if several or hidden:
        try:
            with tifffile.TiffFile(name) as tif:
                series = _choose(name, tif, options.variable, several)
                if series is not None:
                    return _open(name, tif, series, options)
                wrong = any(math.prod(s.shape) > math.prod(s.keyframe.shape) for s in tif.series)
        except (ReadError, UsageError, SceneTooLargeError):
            raise
        except _DAMAGE as error:
            raise ReadError(f"{name}: its pages cannot be made out ({gdal.cause(error)}); fetch it again") from error
    for option in ("variable", "axes"):
        if getattr(options, option):
            raise UsageError(f"{name}: --{option} is for files of several arrays or pages; leave it out")
    cube = raster.open_raster(name, allow_large=options.allow_large)
    return replace(cube, tags=_without_layout(cube)) if wrong else cube


def _choose(name: str, tif: Any, wanted: str, several: bool) -> Any:
    """The stack of pages that is the cube; ``None`` where the file is a single page after all."""
    chain: set[int] = set()
    for page in tif.pages:
        if page.offset in chain:
            raise ReadError(f"{name}: its directories run in a circle; the file is damaged, fetch it again")
        chain.add(page.offset)
    found = [s for s in tif.series if s.keyframe.offset in chain and not s.keyframe.subfiletype & 0b101]
    if wanted:
        hits = [s for i, s in enumerate(found, 1) if wanted in (str(i), s.name)]
        if len(hits) != 1:
            raise UsageError(f"{name}: --variable {wanted}: choose one of {_list(found)}")
        return hits[0]
    stacks = [s for s in found if math.prod(s.shape) > math.prod(s.keyframe.shape)]
    if len(stacks) > 1:
        raise UsageError(f"{name}: several stacks of pages; choose one with --variable: {_list(stacks, found)}")
    if not stacks and several and len(found) > 1:
        raise UnsupportedError(
            f"{name}: a TIFF of pages of different sizes or types ({_list(found)}), which are no bands of one scene; "
            f"name one to take it: GTIFF_DIR:1:{name}"
        )
    if stacks and len(found) > 1:
        text = f"{name}: pages that do not fit the stack are left out ({_list([s for s in found if s not in stacks])})"
        warnings.warn(text, MetadataWarning, stacklevel=4)
    return stacks[0] if stacks else None


def _list(some: Sequence[Any], among: Sequence[Any] = ()) -> str:
    """``1: 31 x 512 x 512 uint16, 2: ...``, counted as ``--variable`` does."""
    every = list(among or some)
    texts = [f"{every.index(s) + 1}: {' x '.join(map(str, s.shape))} {s.dtype}" for s in some[:5]]
    return ", ".join(texts) + (", ..." if len(some) > 5 else "")


def _open(name: str, tif: Any, series: Any, options: ReadOptions) -> Cube:
    page = series.keyframe
    if page.samplesperpixel > 1 or len(page.shape) != 2 or series.axes[-2:] != "YX":
        raise UnsupportedError(
            f"{name}: a stack of pages of shape {' x '.join(map(str, page.shape))} ({series.axes}), pictures rather "
            f"than bands; name one to take it alone: GTIFF_DIR:{_number(page)}:{name}"
        )
    slot = _slot(name, series, options.axes)
    _check(name, tif, series, options.allow_large)
    first = raster.open_raster(name, dataset(name, page.offset), allow_large=options.allow_large)
    try:
        planes = Planes(name, series, first.dtype)
        return _cube(name, tif, series, slot, first, planes)
    except BaseException:
        first.close()
        raise


def _number(page: Any) -> int:
    return int(page.index if isinstance(page.index, int) else page.index[0]) + 1


def _slot(name: str, series: Any, axes: str) -> slots.Slot:
    """Where the cube's axes are among the stack's: the one axis before rows and columns are the bands, unless told."""
    shape, ndim = series.shape, len(series.shape)
    if not axes:
        if ndim != 3:
            raise UsageError(
                f"{name}: a stack with axes {series.axes} ({' x '.join(map(str, shape))}); tell which are the bands "
                f"with --axes, a letter or digit each: {'0' * (ndim - 3)}byx"
            )
        axes = "byx"
    letters = axes.lower()
    if len(letters) != ndim or sorted(c for c in letters if not c.isdecimal()) != ["b", "x", "y"]:
        raise UsageError(f"{name}: --axes {axes} does not fit the stack's {ndim} axes {series.axes}; as in 'byx'")
    fixed = tuple((i, int(c)) for i, c in enumerate(letters) if c.isdecimal())
    for axis, index in fixed:
        if index >= shape[axis]:
            raise UsageError(f"{name}: --axes {axes}: axis {axis + 1} has only {shape[axis]} (counted from 0)")
    at = letters.index("b"), letters.index("y"), letters.index("x")
    return slots.Slot("", at, shape[at[0]], fixed)


def _check(name: str, tif: Any, series: Any, allow_large: bool) -> None:
    """As `tiffcheck.check`, for all pages of a stack."""
    size = os.path.getsize(name)
    announced = math.prod(series.shape) * series.dtype.itemsize
    if not allow_large and announced > tiffcheck.CREDIBLE and announced > tiffcheck.RATIO * size:
        raise SceneTooLargeError(
            f"{name}: announces {' x '.join(map(str, series.shape))} pixels, {announced / 2**30:.1f} GiB, in a file of "
            f"{size} bytes; the header is damaged, or give --allow-large"
        )
    for number, page in enumerate(series.pages, 1):
        if page is None or page.parent is not tif:
            raise UnsupportedError(f"{name}: page {number} of the stack is missing or in another file")
        end = max((o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=False)), default=0)
        if len(series.pages) == 1:
            end = max(end, page.dataoffsets[0] + announced)
        if end > size:
            raise ReadError(f"{name}: truncated: page {number} ends at byte {end}, the file has {size}; fetch it again")


def _cube(name: str, tif: Any, series: Any, slot: slots.Slot, first: Cube, planes: Planes) -> Cube:
    count, rows, cols = (series.shape[axis] for axis in slot.axes)
    pages = planes.numbers[slot.key(slice(None), slice(None), slice(None))[:-2]].ravel()
    band_tags, scale, offset = ({},) * count, first.scale * count, first.offset * count
    names: tuple[str | None, ...] = (None,) * count
    if len(pages) == count and len(series.pages) >= count:
        chosen = [full(series.pages[i]) for i in pages]
        band_tags, scale, offset = _facts(name, chosen)
        names = _names(tif, chosen, pages)
    tags = _without_layout(first)
    bands = from_gtiff(tags, band_tags, names, name)
    side = None if bands.wavelength else sidecars.find(name, (count, rows, cols), bands)
    mask = first.read_mask

    def read_raw(window: Window, wanted: Sequence[int]) -> NDArray[Any]:
        return slots.read(lambda _: planes, [slot], window, wanted)

    def read_mask(window: Window, wanted: Sequence[int]) -> NDArray[np.bool_]:
        assert mask is not None
        return np.repeat(mask(window, [0]), len(wanted), axis=0)

    def close() -> None:
        first.close()
        planes.close()

    layout = {
        **first.layout,
        "interleave": "band",
        "colorinterp": ("gray", *("undefined",) * (count - 1)),
        "descriptions": names,
        "units": first.layout["units"] * count,
        "files": (name, *([side.path] if side else [])),
        "spectrum": side.path if side else "",
        "pages": len(planes.numbers.ravel()),
    }
    if planes.dtype == series.dtype.newbyteorder("="):
        layout |= {"copy": lambda path: PagesCopy(path, name, planes, slot, rows), "suffixes": (".tif", ".tiff")}
    return replace(
        first,
        shape=(count, rows, cols),
        bands=side.bands if side else bands,
        nodata=first.nodata * count,
        scale=side.scale or scale if side else scale,
        offset=side.offset or offset if side else offset,
        read_raw=read_raw,
        read_mask=read_mask if mask and slot.axes[1:] == (len(series.shape) - 2, len(series.shape) - 1) else None,
        tags=tags,
        band_tags=band_tags,
        layout=layout,
        on_close=close,
    )


def _without_layout(cube: Cube) -> _Tags:
    """Its tags but for a description of how pages are laid out."""
    found = {ns: dict(items) for ns, items in cube.tags.items()}
    if found.get("", {}).get("TIFFTAG_IMAGEDESCRIPTION", "").startswith(_LAYOUT):
        del found[""]["TIFFTAG_IMAGEDESCRIPTION"]
    return {ns: items for ns, items in found.items() if items}


def _facts(name: str, pages: Sequence[Any]) -> tuple[tuple[_Tags, ...], tuple[float, ...], tuple[float, ...]]:
    """Tags, scale and offset that GDAL keeps of each page."""
    tags: list[_Tags] = []
    factors: list[tuple[float, float]] = []
    with gdal.reading(name):
        for page in pages:
            if _GDAL_METADATA not in page.tags:
                tags.append({})
                factors.append((1.0, 0.0))
                continue
            with rasterio.open(dataset(name, page.offset)) as source:
                tags.append(raster.tags(source, 1))
                factors.append((source.scales[0], source.offsets[0]))
    return tuple(tags), tuple(f[0] for f in factors), tuple(f[1] for f in factors)


def _names(tif: Any, pages: Sequence[Any], numbers: NDArray[np.intp]) -> tuple[str | None, ...]:
    """Names of bands: those of the pages, labels of ImageJ, or descriptions where each page has its own."""
    labels = (tif.imagej_metadata or {}).get("Labels", []) if tif.is_imagej else []
    if len(labels) > max(numbers):
        return tuple(_line(labels[i]) for i in numbers)
    for code in (_PAGE_NAME, _DESCRIPTION):
        texts = [str(p.tags[code].value) if code in p.tags else "" for p in pages]
        # One text for all pages, or a layout, is no name of any.
        if len(set(texts)) > 1 and not texts[0].startswith(_LAYOUT):
            return tuple(_line(t) for t in texts)
    return (None,) * len(pages)


def _line(text: Any) -> str | None:
    return " ".join(str(text).split())[:200] or None
