"""Scenes in HDF4 files: EO-1 Hyperion L1R, and any other scientific data set by --variable and --axes."""

from __future__ import annotations

import os
import re
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bands import Bands
from ..cube import Cube, Window
from ..errors import MetadataWarning, ReadError, SceneTooLargeError, UnsupportedError, UsageError, WriteError
from ..settings import ReadOptions
from . import hdf4_probe, hdf_axes, hdfeos2, hyperion, nodata, slots
from .hdf4_file import Array, File, failing, require

_INTERLEAVE = {(0, 1, 2): "band", (1, 0, 2): "line", (2, 0, 1): "pixel"}
_SUFFIXES = (".hdf", ".hdf4", ".h4", ".he4", ".l1", ".l1a", ".l1_a", ".l1b", ".l1_b", ".l1r")
_LISTED = 8
_RATIO, _CREDIBLE = 50_000, 2**30  # as for TIFF: what no real scene shrinks beyond, and sizes that need no doubt
_KEY = "hsidenoise"


def open_hdf4(name: str, options: ReadOptions) -> Cube:
    """Open a scientific data set (SDS) of an HDF4 file.

    Parameters
    ----------
    name
        Path of the file.
    options
        ``variable``, ``axes``, ``shape`` and ``allow_large`` count.

    Raises
    ------
    ReadError
        Damaged or truncated.
    UnsupportedError
        No SDS that could be a scene, or pyhdf is not installed.
    SceneTooLargeError
        The directory announces more than is credible.
    UsageError
        Several data sets could be the scene, or its axes are not certain.
    """
    require(name)
    hdf4_probe.check(name)
    file = File(name)
    try:
        return _describe(name, file, options)
    except BaseException:
        file.close()
        raise


def _describe(name: str, file: File, options: ReadOptions) -> Cube:
    stored = file.arrays()
    array = _choose(name, stored, options)
    if not options.allow_large:
        _check_size(name, stored, array)
    product = not options.axes and not options.shape and _is_hyperion(name, array)
    axes, shape, folded = ("ybx", array.shape, None) if product else _axes(name, array, options)
    slot = hdf_axes.slot(name, array.name, shape, axes)
    count = slot.bands
    numbers = range(1, count + 1)
    own = array.attributes
    ignored = _nodata(name, own, array.dtype)
    general = file.attributes()
    tags = {k: t for k, t in (("", _texts(own)), ("HDF4", _texts(general))) if t}

    def cube_of(values: Any) -> Any:
        return hdf_axes.Folded(values, *folded) if folded else values

    def read_raw(window: Window, bands: Sequence[int]) -> NDArray[Any]:
        return slots.read(lambda _: cube_of(file.values(array)), [slot], window, bands)

    rows, cols = shape[slot.axes[1]], shape[slot.axes[2]]
    suffix = os.path.splitext(name)[1].lower()
    return Cube(
        name=name,
        format="HDF4",
        shape=(count, rows, cols),
        dtype=array.dtype,
        bands=hyperion.bands(numbers) if product else Bands(count),
        geo=hdfeos2.geo(name, general, array.name, rows, cols),
        nodata=(ignored,) * count,
        scale=hyperion.scale(numbers, array.dtype == "int16") if product else (1.0,) * count,
        offset=(0.0,) * count,
        read_raw=read_raw,
        tags=tags,
        band_tags=({},) * count,
        layout={
            "driver": "HDF4",
            "variable": array.name,
            "interleave": _INTERLEAVE.get(slot.axes, ""),
            "files": (name,),
            "suffixes": tuple(dict.fromkeys((*_SUFFIXES, *([suffix] if suffix else [])))),
            "copy": lambda path: _copy(name, path, array, slot, cube_of, rows),
        },
        on_close=file.close,
    )


def _choose(name: str, stored: Sequence[Array], options: ReadOptions) -> Array:
    """The data set that ``--variable`` names, else the only one of three axes, else of two."""
    if options.variable:
        found = next((a for a in stored if a.name == options.variable), None)
        if found is None:
            raise UsageError(f"{name}: --variable {options.variable}: no such SDS; there are {_listed(stored)}")
        if found.flaw:
            raise UnsupportedError(f"{name}: {found.name} holds {found.flaw}")
        return found
    able = [a for a in stored if not a.flaw]
    for rank in (2,) if options.shape else (3, 2, 4):
        fitting = [a for a in able if len(a.shape) == rank]
        if len(fitting) > 1:
            raise UsageError(f"{name}: holds several data sets: {_listed(fitting)}; choose one with --variable")
        if fitting:
            return fitting[0]
    flawed = next((a for a in stored if a.flaw and len(a.shape) > 1), None)
    why = f"; {flawed.name} holds {flawed.flaw}" if flawed else "; raster images (GR) and tables (Vdata) are not read"
    raise UnsupportedError(f"{name}: an HDF4 file without a scientific data set (SDS) that could be a scene{why}")


def _listed(found: Sequence[Array]) -> str:
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return (", ".join(map(str, found[:_LISTED])) or "none") + more


def _check_size(name: str, stored: Sequence[Array], array: Array) -> None:
    """Uncompressed values need as many bytes in the file; the library itself would return what is not there."""
    size = os.path.getsize(name)
    plain = sum(a.nbytes for a in stored if not a.flaw and not a.compressed)
    if not array.compressed and plain > size:
        raise ReadError(
            f"{name}: truncated: {size} bytes where its data sets announce {plain}; fetch it again, or give "
            "--allow-large if parts of it were never written"
        )
    if array.nbytes > _CREDIBLE and array.nbytes > _RATIO * size:
        raise SceneTooLargeError(
            f"{name}: {array} would take {array.nbytes / 2**30:.1f} GiB, the file has {size} bytes; the directory is "
            "damaged, or give --allow-large"
        )


def _is_hyperion(name: str, array: Array) -> bool:
    """242 bands between lines and samples of 16 bits, called a Hyperion scene or as wide as one."""
    called = re.compile(r"EO1H?\d|EO12|\.L1(_?[ABR])?(\.|$)", re.IGNORECASE)
    if len(array.shape) != 3 or array.shape[1] != hyperion.BANDS or array.dtype not in ("int16", "uint16"):
        return False
    return array.shape[2] == 256 or any(called.search(text) for text in (os.path.basename(name), array.name))


def _axes(
    name: str, array: Array, options: ReadOptions
) -> tuple[str, tuple[int, ...], tuple[int, tuple[int, int]] | None]:
    """Axes and shape of the cube, and how a table of spectra is folded into it."""
    if options.shape:
        size = hdf_axes.parse_shape(options.shape)
        axes, axis = hdf_axes.fold(name, array.name, array.shape, options.axes, size)
        sizes = size if axes.index("y") < axes.index("x") else size[::-1]
        shape = (*array.shape[:axis], *sizes, *array.shape[axis + 1 :])
        return axes, shape, (axis, sizes)
    axes = options.axes or _guess(array)
    if not axes:
        raise UsageError(
            f"{name}: which axis of {array} is which is not said; give --axes, such as byx (bands, rows, columns), "
            "ybx or yxb, with a digit for each further axis"
        )
    return axes, array.shape, None


def _guess(array: Array) -> str:
    """Axes as the dimensions' names tell, or where one of three has a single place; else empty."""
    if len(array.shape) == 2:
        return "yx"
    if len(array.shape) == 3 and array.shape.count(1) == 1:
        return hdf_axes.from_band(array.shape.index(1))
    return hdf_axes.from_labels([label.partition(":")[0] for label in array.labels])


def _nodata(name: str, attributes: Mapping[str, Any], dtype: str) -> float | None:
    """``_FillValue``, where values of this type can equal it.

    ``scale_factor`` and ``add_offset`` are not interpreted: MODIS divides by what others multiply with.
    """
    value = attributes.get("_FillValue")
    if not isinstance(value, int | float):
        return None
    fitted = nodata.fit(value, dtype)
    if fitted is None:
        warnings.warn(f"{name}: _FillValue {value:g} is no {dtype}; not used", MetadataWarning, stacklevel=5)
    return fitted


def _texts(attributes: Mapping[str, Any]) -> dict[str, str]:
    """Attributes as tags; lists as numbers with blanks between."""

    def text(value: Any) -> str:
        return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value).rstrip("\0")

    return {k.replace("=", "_"): text(v) for k, v in attributes.items()}


def _copy(
    name: str, path: str, array: Array, slot: slots.Slot, cube_of: Callable[[Any], Any], rows: int
) -> slots.Copy:  # fmt: skip
    """A copy of the file in which this data set is written anew; nothing else in it is touched.

    The library changes compressed values only as a whole, so these wait in memory until all rows are there.
    """
    shutil.copyfile(name, path)
    try:
        copy = File(path, writable=True)
    except ReadError as error:
        raise WriteError(f"{name}: the HDF4 library opens it only for reading; write .tif or .img instead") from error
    stored = copy.values(array)
    everything = tuple(slice(0, n) for n in array.shape)
    whole = np.empty(array.shape, array.dtype) if array.compressed else None
    if whole is not None and slot.fixed:  # what else it holds
        whole[...] = stored[everything]

    def finish(provenance: Mapping[str, str] | None) -> None:
        try:
            if provenance is None:
                return
            with failing(path, "its values cannot be written", WriteError):
                if whole is not None:
                    stored[everything] = whole
                if provenance:
                    copy.annotate(_KEY, ", ".join(f"{k}: {v}" for k, v in provenance.items()))
        finally:
            copy.close()

    target = cube_of(stored if whole is None else whole)
    return slots.SlotCopy(lambda _: target, [slot], rows, 1, finish)
