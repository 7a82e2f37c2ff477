"""netCDF in: classic files (CDF-1, 2 and 5) and netCDF-4, read as stored; nothing is masked or scaled."""

from __future__ import annotations

import json
import math
import os
import shutil
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import netCDF4
import numpy as np
from numpy.typing import NDArray

from ..bands import Bands, from_envi
from ..cube import Cube, Geo, Window
from ..errors import HSIDenoiseError, MetadataWarning, ReadError, SceneTooLargeError, UnsupportedError, UsageError
from ..settings import ReadOptions
from . import cf_grid, hdf_axes, ncattrs, ncclassic, ncvars, slots
from . import nodata as nodata_
from .slots import Slot

#: What the library raises on damaged files.
FAULTS = (OSError, RuntimeError, KeyError, ValueError, TypeError, IndexError, AttributeError)
# The C library serves one thread at a time, whatever the file.
_LOCK = threading.RLock()
_CACHE = 256 * 2**20  # bytes of unpacked chunks held while reading rows
_CREDIBLE, _RATIO = 2**30, 50_000  # as for TIFF: more than both is no scene
_SUFFIXES, _OF_HDF5 = (".nc", ".nc4", ".cdf"), (".h5", ".hdf5", ".he5", ".hdf")
# Attributes that say how values are stored; the others go with the cube.
_STORAGE = {"_FillValue", "units", "missing_value", "scale_factor", "add_offset", "grid_mapping", "coordinates",
            "_Unsigned", "ancillary_variables", "DIMENSION_LIST", "_Netcdf4Coordinates", "_Netcdf4Dimid"}  # fmt: skip


@contextmanager
def reading(name: str, fault: str) -> Iterator[None]:
    """What the library raises becomes one line, and one thread at a time is inside."""
    try:
        with _LOCK:
            yield
    except HSIDenoiseError:
        raise
    except FAULTS as error:
        reason = " ".join(str(error).split())[:200]
        raise ReadError(f"{name}: {fault} (netCDF: {reason})") from error


def open_netcdf(name: str, options: ReadOptions) -> Cube:
    """Open a netCDF file; one in HDF5 must be known to be netCDF-4.

    Raises
    ------
    ReadError
        Damaged or truncated.
    UnsupportedError
        It holds no cube.
    UsageError
        Several arrays could be the cube, its axes are not certain, or an option names what is not there.
    SceneTooLargeError
        It announces more than is credible for its size.
    """
    for option, said in (("shape", options.shape), ("header", options.header)):
        if said:
            raise UsageError(f"{name}: --{option} is not for netCDF files, whose dimensions have names; leave it out")
    ncclassic.check(name)
    with reading(name, "damaged or truncated; fetch it again"):
        dataset = netCDF4.Dataset(name)
        try:
            return _describe(name, dataset, options)
        except BaseException:
            dataset.close()
            raise


def _describe(name: str, dataset: Any, options: ReadOptions) -> Cube:
    dataset.set_auto_maskandscale(False)
    found = ncvars.find(name, dataset, options)
    parts = [hdf_axes.slot(name, f.path, f.variable.shape, f.axes) for f in found]
    variable, slot = found[0].variable, parts[0]
    arrays = _arrays(dataset, parts)
    dtype = arrays(slot.name).dtype.name
    shape = (sum(p.bands for p in parts), *(variable.shape[axis] for axis in slot.axes[1:]))
    if dtype not in ("float32", "float64") and np.dtype(dtype).kind == "f":
        raise UnsupportedError(f"{name}: {slot.name} holds {dtype}, which is not supported")
    _credible(name, shape, dtype, options)
    bands = _bands(name, dataset, variable, slot) if len(found) == 1 else Bands(shape[0])
    names = tuple(_title(f) for f in found) if slot.axes[0] < 0 else bands.names
    bands = replace(bands, names=names if any(names) else ())
    attrs = [ncvars.attributes(f.variable) for f in found for _ in range(shape[0] // len(found))]
    globals_ = ncvars.attributes(dataset)
    geo, tags, band_tags = _tags(name, globals_, attrs, cf_grid.from_cf(name, dataset, variable, slot), dataset)
    order = "".join(c for c in found[0].axes if c in "byx")
    packed = (variable.filters() or {}) if dataset.data_model.startswith("NETCDF4") else {}

    def read_raw(window: Window, chosen: Sequence[int]) -> NDArray[Any]:
        with reading(name, "damaged, its values cannot be read"):
            return slots.read(arrays, parts, window, chosen)

    return Cube(
        name=name,
        format="netCDF",
        shape=shape,
        dtype=dtype,
        bands=bands,
        geo=geo,
        nodata=tuple(_nodata(name, a, dtype) for a in attrs),
        scale=_gains(name, dataset, variable, slot, attrs, "scale_factor", 1.0),
        offset=_gains(name, dataset, variable, slot, attrs, "add_offset", 0.0),
        read_raw=read_raw,
        tags=tags,
        band_tags=band_tags if len(band_tags) == shape[0] else ({},) * shape[0],
        layout={
            "driver": "netCDF",
            "files": (name,),
            "copy": _copier(name, parts, shape[1]),
            "suffixes": (*_SUFFIXES, *_OF_HDF5) if dataset.disk_format == "HDF5" else _SUFFIXES,
            "variable": slot.name.rpartition("/")[2] if len(found) == 1 else "",
            "interleave": {"byx": "bsq", "ybx": "bil", "yxb": "bip"}.get(order, ""),
            "compress": "DEFLATE" if packed.get("zlib") else "other" if any(packed.values()) else "",
            "descriptions": tuple(n or None for n in names) if any(names) else (),
            "units": tuple(ncattrs.text(a.get("units", "")) or None for a in attrs),
        },
        on_close=dataset.close,
    )


class _Stored:
    """A variable seen in the type it means: netCDF-3 has no unsigned integers, and says so in ``_Unsigned``."""

    def __init__(self, variable: Any) -> None:
        self._variable = variable
        self.shape = variable.shape
        native = variable.dtype.newbyteorder("=")
        said = ncvars.word(ncvars.attributes(variable), "_Unsigned")
        kind = {"true": "u", "false": "i"}.get(said, native.kind) if native.kind in "iu" else native.kind
        self.dtype = np.dtype(f"{kind}{native.itemsize}")
        self._native = native

    def __getitem__(self, key: tuple[Any, ...]) -> NDArray[Any]:
        values: NDArray[Any] = np.asarray(self._variable[key]).astype(self._native, copy=False).view(self.dtype)
        return values

    def __setitem__(self, key: tuple[Any, ...], values: NDArray[Any]) -> None:
        self._variable[key] = np.ascontiguousarray(values).view(self._native)


def _arrays(dataset: Any, parts: Sequence[Slot]) -> Callable[[str], _Stored]:
    """The cube's variables by path, their chunk cache wide enough for a row of chunks through all bands."""
    found = {}
    for part in parts:
        variable = dataset[part.name]
        chunks = variable.chunking() if dataset.data_model.startswith("NETCDF4") else "contiguous"
        if isinstance(chunks, list):
            across = [math.ceil(n / c) * c for n, c in zip(variable.shape, chunks, strict=True)]
            across[part.axes[1]] = chunks[part.axes[1]]
            need = math.prod(across) * variable.dtype.itemsize
            if need > variable.get_var_chunk_cache()[0]:
                variable.set_var_chunk_cache(min(need, _CACHE), 10_007, 1.0)
        found[part.name] = _Stored(variable)
    return found.__getitem__


def _credible(name: str, shape: tuple[int, ...], dtype: str, options: ReadOptions) -> None:
    size, announced = os.path.getsize(name), math.prod(shape) * np.dtype(dtype).itemsize
    if announced > _CREDIBLE and announced > _RATIO * size and not options.allow_large:
        raise SceneTooLargeError(
            f"{name}: announces {shape[0]} bands of {shape[1]} x {shape[2]} pixels, {announced / 2**30:.1f} GiB, in a "
            f"file of {size} bytes; open it with --allow-large if that is right"
        )


def _title(found: ncvars.Found) -> str:
    said = ncattrs.text(ncvars.attributes(found.variable).get("long_name", ""))
    return said if said and not said.startswith("GDAL Band Number") else ""


def _bands(name: str, dataset: Any, variable: Any, slot: Slot) -> Bands:
    """Wavelengths, widths, flags and names: variables along the band dimension, else lists of its length."""
    axis = slot.axes[0]
    if axis < 0:
        return Bands(slot.bands)
    dimension = variable.dimensions[axis]
    lists = [(p, v) for p, v in ncvars.walk(dataset) if v.ndim == 1 and v.shape[0] == slot.bands]
    lists.sort(key=lambda item: item[1].dimensions != (dimension,))

    def first(fits: Callable[[str, Any], bool]) -> Any:
        return next((v for p, v in lists if fits(p.rpartition("/")[2].lower(), v)), None)

    def texts(item: Any) -> str:
        return "{" + ", ".join(str(v) for v in np.asarray(item[:])) + "}" if item is not None else ""

    centres = ncvars.coordinate(variable, axis)
    if centres is None or not ncvars.is_wavelength(dimension, centres):  # a running number
        centres = first(ncvars.is_wavelength)
    flags = ("good_band", "good_bands", "good_wavelengths", "good_wavelength", "bbl")
    found = from_envi(
        {
            "wavelength": texts(centres),
            "wavelength units": str(ncvars.attributes(centres).get("units", "")) if centres is not None else "",
            "fwhm": texts(first(lambda n, v: ncvars.numeric(v) and n in ("fwhm", "fwhms", "full_width_half_max"))),
            "bbl": texts(first(lambda n, v: ncvars.numeric(v) and n in flags)),
        },
        slot.bands,
        name,
    )
    titles = first(lambda n, v: v.dtype is str and n in ("band_name", "band_names"))
    roles = first(lambda n, v: v.dtype is str and n == "band_role")
    return replace(
        found,
        names=tuple(map(str, titles[:])) if titles is not None else (),
        roles=tuple(map(str, roles[:])) if roles is not None else (),
    )


def _nodata(name: str, attrs: Mapping[str, Any], dtype: str) -> float | None:
    """``_FillValue``, else ``missing_value``, which may be text, and signed where the values are not."""
    value = attrs.get("_FillValue", attrs.get("missing_value"))
    if value is None:
        return None
    try:
        first = np.ravel(value)[0]
        number = float(str(first).strip().rstrip("fF")) if isinstance(value, str) else first.item()
    except (ValueError, IndexError, AttributeError):
        warnings.warn(f"{name}: the fill value {value!r} is no number; not used", MetadataWarning, stacklevel=4)
        return None
    kind = np.dtype(dtype)
    if kind.kind == "u" and -(2 ** (8 * kind.itemsize - 1)) <= number < 0:
        number += 2 ** (8 * kind.itemsize)
    fitted = nodata_.fit(number, dtype)
    if fitted is None:
        warnings.warn(f"{name}: nodata {number:g} is no {dtype}; not used", MetadataWarning, stacklevel=4)
    return fitted


def _gains(
    name: str, dataset: Any, variable: Any, slot: Slot, attrs: Sequence[Mapping[str, Any]], key: str, plain: float
) -> tuple[float, ...]:
    """Scale or offset of each band: an attribute, or for outputs of hsidenoise a variable along the bands."""
    listed = dataset.variables.get(f"band_{key}")
    if listed is not None and slot.axes[0] >= 0 and listed.dimensions == (variable.dimensions[slot.axes[0]],):
        return tuple(np.asarray(listed[:], np.float64).tolist())
    out = []
    for items in attrs:
        try:
            out.append(float(np.ravel(items.get(key, plain))[0]))
        except (ValueError, TypeError, IndexError):
            warnings.warn(f"{name}: {key} {items[key]!r} is no number; left out", MetadataWarning, stacklevel=4)
            out.append(plain)
    return tuple(out)


def _tags(
    name: str, globals_: Mapping[str, Any], attrs: Sequence[Mapping[str, Any]], geo: Geo, dataset: Any
) -> tuple[Geo, dict[str, dict[str, str]], tuple[dict[str, dict[str, str]], ...]]:
    """Tags of file and bands; those that are georeferencing go to `geo`."""
    tags = ncattrs.to_tags(globals_)
    plain = tags.get("", {})
    area = plain.get("AREA_OR_POINT") or plain.pop("GDAL_AREA_OR_POINT", "")
    gcps = tags.pop("GCPS", {})
    try:
        points = tuple(tuple(p) for p in json.loads(gcps.get("points", "[]")))
    except (ValueError, TypeError):
        warnings.warn(f"{name}: its control points are not understood; left out", MetadataWarning, stacklevel=4)
        points = ()
    geo = replace(
        geo, rpcs=tags.pop("RPC", None), gcps=points, gcps_crs=gcps.get("crs"), area_or_point=area.capitalize()
    )
    kept = [{k: ncattrs.text(v) for k, v in items.items() if k not in _STORAGE} for items in attrs]
    band_tags: tuple[dict[str, dict[str, str]], ...] = tuple({"VARIABLE": items} if items else {} for items in kept)
    if kept and all(items == kept[0] for items in kept):
        tags |= {"VARIABLE": kept[0]} if kept[0] else {}
        band_tags = ({},) * len(kept)
    stored = dataset.variables.get("band_tags")
    if stored is not None and stored.dtype is str:
        try:
            band_tags = tuple(json.loads(str(item)) for item in stored[:])
        except ValueError:
            warnings.warn(f"{name}: its band_tags are not understood; left out", MetadataWarning, stacklevel=4)
    return geo, tags, band_tags


def _copier(name: str, parts: Sequence[Slot], rows: int) -> Callable[[str], slots.SlotCopy]:
    """What ``layout["copy"]`` promises: a copy of the file, open to take other values."""

    def copy(path: str) -> slots.SlotCopy:
        shutil.copyfile(name, path)
        with writing():
            dataset = netCDF4.Dataset(path, "r+")
        try:
            dataset.set_auto_maskandscale(False)
            arrays = _arrays(dataset, parts)
            align = max(_chunk_rows(dataset, part) for part in parts)
        except BaseException:
            dataset.close()
            raise

        def finish(provenance: Mapping[str, str] | None) -> None:
            if provenance is None:
                with suppress(*FAULTS), _LOCK:  # to be thrown away; the disk may be full
                    dataset.close()
                return
            with writing():
                dataset.setncattr("hsidenoise", ncattrs.provenance(provenance))
                dataset.close()

        return _LockedCopy(arrays, parts, rows, align, finish)

    return copy


class _LockedCopy(slots.SlotCopy):
    def write(self, row_start: int, block: NDArray[Any]) -> None:
        with writing():
            super().write(row_start, block)


@contextmanager
def writing() -> Iterator[None]:
    """The library's errors as the writer expects them."""
    try:
        with _LOCK:
            yield
    except (RuntimeError, KeyError, IndexError) as error:
        raise OSError(f"netCDF: {error}") from error


def _chunk_rows(dataset: Any, part: Slot) -> int:
    """Rows of a chunk, where holding back so many rows takes no more than the cache."""
    variable = dataset[part.name]
    chunks = variable.chunking() if dataset.data_model.startswith("NETCDF4") else "contiguous"
    if not isinstance(chunks, list):
        return 1
    rows = int(chunks[part.axes[1]])
    held = math.prod(variable.shape) // variable.shape[part.axes[1]] * rows * variable.dtype.itemsize
    return rows if held <= _CACHE else 1
