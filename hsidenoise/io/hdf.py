"""Cubes in HDF5 files: sensor products by the table in `products`, any other array by its name and axes."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import partial
from importlib import import_module
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ..bands import Bands, from_envi
from ..cube import Cube, Geo, Window
from ..errors import SceneTooLargeError, UnsupportedError
from ..settings import ReadOptions
from . import hdf_axes, hdf_copy, hdf_file, hdf_generic, hdf_geo, nodata, products, slots
from .hdf_file import text, warn
from .products import Part, Values

_SUFFIXES = (".h5", ".hdf5", ".he5", ".hdf")
# No real file shrinks further, unless most of it was never written.
_CREDIBLE, _RATIO = 2**30, 50_000


def open_hdf5(name: str, options: ReadOptions) -> Cube:
    """Open a cube in an HDF5 file: a known product, a netCDF-4 file, or the array that the options name.

    Raises
    ------
    ReadError
        Truncated or damaged.
    UnsupportedError
        No array that holds measurements, values in other files, or a filter that is not installed.
    UsageError
        Several arrays could be the scene, or its axes are not certain.
    """
    file = hdf_file.open_file(name)
    try:
        with hdf_file.reading(name):
            stored = hdf_file.arrays(file)
            meant = hdf_generic.meant(stored, options.variable)
            only = meant[0].path if len(meant) == 1 else ""
            found = products.identify(file, stored, only) if only or not options.variable else None
            if found:
                return _cube(name, file, found[0].name, _with_axes(found[1], options), found[0].geo, options)
            if not hdf_file.is_netcdf(file):
                part = hdf_generic.scene(name, file, stored, options)
                return _cube(name, file, "", [part], hdf_geo.any_grid, options)
    except BaseException:
        file.close()
        raise
    file.close()
    opener: Callable[[str, ReadOptions], Cube] = import_module(".netcdf", __package__).open_netcdf
    return opener(name, options)


def _with_axes(parts: list[Part], options: ReadOptions) -> list[Part]:
    return [part._replace(axes=options.axes) for part in parts] if options.axes else parts


def _cube(
    name: str, file: h5py.File, product: str, parts: Sequence[Part], geo: Callable[..., Geo], options: ReadOptions
) -> Cube:
    """The cube of a product's or file's parts, stacked as bands."""
    for part in parts:
        hdf_file.check(name, file, part.path)
    views, placed = _place(name, file, parts, options)
    prepare = _preparer(placed, views)
    found = prepare(file)
    first = file[parts[0].path]
    dtypes = {file[p.path].dtype.newbyteorder("=").name for p in parts}
    sizes = {tuple(_size(found(s.name).shape, s)) for s in placed}
    if len(dtypes) > 1 or len(sizes) > 1:
        said = ", ".join(sorted([*dtypes, *(f"{r} x {c}" for r, c in sizes)]))
        raise UnsupportedError(f"{name}: its detectors differ ({said}); take one with --variable")
    dtype, (rows, cols) = dtypes.pop(), sizes.pop()
    shape = (sum(s.bands for s in placed), rows, cols)
    _credible(name, file, shape, dtype, options)
    counts = [s.bands for s in placed]
    return Cube(
        name=name,
        format=f"HDF5 ({product})" if product else "HDF5",
        shape=shape,
        dtype=dtype,
        bands=_bands(name, parts, counts),
        geo=geo(file, first, (rows, cols)),
        nodata=_spread(counts, [_nodata(name, p.values, dtype) for p in parts]),
        scale=_spread(counts, [p.values.scale for p in parts]),
        offset=_spread(counts, [p.values.offset for p in parts]),
        read_raw=_reader(name, found, placed),
        tags={"": tags} if (tags := _tags(file)) else {},
        band_tags=({},) * shape[0],
        layout={
            "driver": "HDF5",
            "interleave": ("bsq", "bil", "bip")[sum(axis < placed[0].axes[0] for axis in placed[0].axes[1:])],
            "block": first.chunks or (),
            "compress": (first.compression or "").upper(),
            "files": (name,),
            "copy": lambda path: hdf_copy.copy(hdf_copy.Source(name, tuple(placed), rows, prepare), path),
            "suffixes": (*_SUFFIXES, ".nc", ".nc4") if hdf_file.is_netcdf(file) else _SUFFIXES,
        },
        on_close=file.close,
    )


def _place(
    name: str, file: h5py.File, parts: Sequence[Part], options: ReadOptions
) -> tuple[dict[str, Callable[[Any], Any]], list[slots.Slot]]:
    """The slots of the parts, and for those of two axes how they are seen as cubes."""
    views: dict[str, Callable[[Any], Any]] = {}
    placed = []
    for part in parts:
        shape, axes = file[part.path].shape, part.axes
        if 0 in shape:
            raise UnsupportedError(f"{name}: {part.path} is empty")
        if options.shape:
            size = hdf_axes.parse_shape(options.shape)
            axes, axis = hdf_axes.fold(name, part.path, shape, options.axes, size)
            sizes = size if axes.index("y") < axes.index("x") else size[::-1]
            views[part.path] = partial(hdf_axes.Folded, axis=axis, sizes=sizes)
            shape = (*shape[:axis], *sizes, *shape[axis + 1 :])
        placed.append(hdf_axes.slot(name, part.path, shape, axes))
    return views, placed


def _preparer(
    placed: Sequence[slots.Slot], views: Mapping[str, Callable[[Any], Any]]
) -> Callable[[h5py.File], slots.Arrays]:
    def prepare(file: h5py.File) -> slots.Arrays:
        opened = {}
        for slot in placed:
            axes = (0, -1, 1) if slot.name in views else slot.axes
            item = hdf_file.dataset(file, slot.name, axes)
            opened[slot.name] = views[slot.name](item) if slot.name in views else item
        return opened.__getitem__

    return prepare


def _size(shape: Sequence[int], slot: slots.Slot) -> tuple[int, int]:
    return shape[slot.axes[1]], shape[slot.axes[2]]


def _spread(counts: Sequence[int], values: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(v for n, v in zip(counts, values, strict=True) for _ in range(n))


def _credible(name: str, file: h5py.File, shape: tuple[int, ...], dtype: str, options: ReadOptions) -> None:
    announced, size = math.prod(shape) * np.dtype(dtype).itemsize, os.path.getsize(name)
    if announced > _CREDIBLE and announced > _RATIO * size and not options.allow_large:
        raise SceneTooLargeError(
            f"{name}: announces {shape[0]} bands of {shape[1]} x {shape[2]} pixels, {announced / 2**30:.1f} GiB, in a "
            f"file of {size} bytes; give --allow-large if most of it is really empty"
        )


def _bands(name: str, parts: Sequence[Part], counts: Sequence[int]) -> Bands:
    """Spectral lists of all parts; a list that does not fit its part is dropped with a warning."""
    keys: dict[str, str] = {}
    for key, field in (("wavelength", "wavelength"), ("fwhm", "fwhm"), ("bbl", "good")):
        lists: list[list[str]] = [getattr(part, field) for part in parts]
        for i, (items, count) in enumerate(zip(lists, counts, strict=True)):
            if items and len(items) != count:
                warn(name, f"{len(items)} numbers of {key} for {count} bands; not used")
                lists[i] = []
        if any(lists):
            blank = "1" if key == "bbl" else "nan"
            keys[key] = ", ".join(v for v_, n in zip(lists, counts, strict=True) for v in v_ or [blank] * n)
    keys["wavelength units"] = parts[0].unit
    found = from_envi(keys, sum(counts), name)
    names = _spread(counts, [part.path for part in parts]) if len(counts) > 1 else ()
    return replace(found, good=() if all(found.good) else found.good, detectors=names)


def _nodata(name: str, values: Values, dtype: str) -> float | None:
    if not values.nodata or values.nodata.lower() in ("none", "null"):
        return None
    try:
        number = float(values.nodata) if np.dtype(dtype).kind == "f" else _whole(values.nodata)
    except (ValueError, ArithmeticError):
        number = math.nan if np.dtype(dtype).kind != "f" else math.inf
    fitted = nodata.fit(number, dtype)
    if fitted is None:
        warn(name, f"nodata {values.nodata} is no {dtype}; not used")
    return fitted


def _whole(said: str) -> float:
    """Exact where it is a whole number: int64 and uint64 hold more digits than a float."""
    number = Decimal(said)
    return int(number) if number == number.to_integral_value() else float(number)


def _tags(file: h5py.File) -> dict[str, str]:
    """Texts and single numbers among the root's attributes; lists and what the library wrote for itself stay behind."""
    found = {}
    for key in file.attrs:
        try:
            value = file.attrs[key]
        except hdf_file.FAULTS:  # of a type h5py does not know
            continue
        if np.size(value) == 1 and np.asarray(value).dtype.kind in "iufSUO" and not key.startswith("_"):
            found[key] = text(value)
    return {k: v for k, v in found.items() if v and k != "hsidenoise"}


def _reader(
    name: str, arrays: slots.Arrays, placed: Sequence[slots.Slot]
) -> Callable[[Window, Sequence[int]], NDArray[Any]]:
    def read_raw(window: Window, bands: Sequence[int]) -> NDArray[Any]:
        with hdf_file.reading(name, "damaged, its pixels cannot be read"):
            return slots.read(arrays, placed, window, bands)

    return read_raw
