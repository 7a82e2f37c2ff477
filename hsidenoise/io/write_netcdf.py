"""netCDF-4 output by the CF conventions 1.11: one variable (wavelength or band, y, x) and what describes it."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import netCDF4
import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..cube import Cube
from ..errors import MetadataWarning, UsageError
from . import cf_grid, ncattrs, slots
from .netcdf import FAULTS, writing
from .plan import Plan, temporary

_HELD = 32 * 2**20  # bytes of rows that wait until their chunks are complete
_CHUNK = 2**20  # bytes, small enough for one band, one spectrum or a part of the scene to be read fast
_EDGE = 64  # rows of a chunk, at most
_LONGEST = 60_000  # bytes; HDF5 attributes end at 64 KiB


def options(plan: Plan, like: Cube) -> dict[str, Any]:
    """How the pixels are stored: ``compress``, ``zlevel``, ``chunks`` and ``interleave``.

    Raises
    ------
    UsageError
        A creation option other than ``COMPRESS`` (``DEFLATE`` or ``NONE``) and ``ZLEVEL`` (1 to 9).
    """
    compress, level = plan.co.get("COMPRESS", "DEFLATE").upper(), plan.co.get("ZLEVEL", "1")
    unknown = set(plan.co) - {"COMPRESS", "ZLEVEL"}
    if unknown or compress not in ("DEFLATE", "NONE") or level not in map(str, range(1, 10)):
        raise UsageError(
            f"--co {next(iter(unknown), 'COMPRESS, ZLEVEL')}: netCDF output knows COMPRESS=DEFLATE or NONE, and "
            "ZLEVEL=1 to 9"
        )
    bands, (rows, cols) = len(plan.bands), like.shape[1:]
    item = np.dtype(plan.dtype).itemsize
    height = max(1, min(rows, _EDGE, _HELD // (bands * cols * item)))
    width = min(cols, 256)
    depth = max(1, min(bands, _CHUNK // (height * width * item)))
    return {
        "interleave": "bsq",
        "compress": "" if compress == "NONE" else compress,
        "zlevel": int(level),
        "chunks": (depth, height, width),
    }


class NetcdfSink:
    """Rows into a temporary netCDF-4 file, a row of chunks at a time."""

    def __init__(self, plan: Plan, like: Cube, provenance: Mapping[str, str]) -> None:
        self._plan, self._like, self._provenance = plan, like, provenance
        self._options = options(plan, like)
        self._temporary = temporary(plan.path)
        self._file: Any = None
        self._rows: slots.SlotCopy | None = None

    def open(self) -> None:
        """Create the file and write all but the pixels."""
        plan, like = self._plan, self._like
        with writing():
            self._file = netCDF4.Dataset(self._temporary, "x", format="NETCDF4")
            spectral = _spectral_axis(self._file, plan, like)
            _grid(self._file, like)
            variable = self._create(spectral)
            _globals(self._file, plan, like, self._provenance)
        chunk_rows = self._options["chunks"][1]
        slot = slots.Slot("", (0, 1, 2), len(plan.bands))
        self._rows = slots.SlotCopy(lambda _: variable, [slot], like.shape[1], chunk_rows, lambda _: None)

    def _create(self, spectral: str) -> Any:
        plan, like, chosen = self._plan, self._like, self._options
        name = like.layout.get("variable", "") or "data"
        if name in self._file.variables or name in self._file.dimensions:
            name = "data"
        nodata = next((v for v in plan.nodata if v is not None), None)
        _warn(plan, "netCDF has one fill value for all bands; the first is kept", len(set(map(repr, plan.nodata))) > 1)
        variable = self._file.createVariable(
            name, plan.dtype, (spectral, "y", "x"), chunksizes=chosen["chunks"], shuffle=True,
            compression="zlib" if chosen["compress"] else None, complevel=chosen["zlevel"],
            fill_value=False if nodata is None else np.array(nodata, plan.dtype),
        )  # fmt: skip
        variable.set_auto_maskandscale(False)  # the file's setting reaches only variables that were there
        for key, value in like.tags.get("VARIABLE", {}).items():
            if key in ("long_name", "standard_name", "cell_methods", "comment", "description"):
                variable.setncattr(key, value)
        units = {like.layout["units"][b] for b in plan.bands} if like.layout.get("units") else set()
        if len(units) == 1 and units != {None}:
            variable.setncattr("units", units.pop())
        _gains(self._file, variable, plan, like, spectral)
        variable.setncattr("grid_mapping", "crs")
        listed = [n for n, v in self._file.variables.items() if v.dimensions == (spectral,) and n != spectral]
        listed = [n for n in listed if n != "band_tags"]
        if listed:
            variable.setncattr("coordinates", " ".join(listed))
        return variable

    def write(self, row_start: int, block: NDArray[Any]) -> None:
        """Queue rows and write those whose chunks are complete."""
        assert self._rows is not None
        with writing():
            self._rows.write(row_start, block)

    def finish(self) -> list[tuple[str, str]]:
        """Close."""
        file, self._file = self._file, None
        with writing():
            file.close()
        return [(self._temporary, self._plan.path)]

    def discard(self) -> None:
        """Close, and remove what was not renamed."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(*FAULTS):  # it may be unwritable because the disk is full
                file.close()
        with contextlib.suppress(FileNotFoundError):
            os.remove(self._temporary)


def _spectral_axis(file: Any, plan: Plan, like: Cube) -> str:
    """The dimension of the bands and all variables along it; returns its name.

    A coordinate variable must be monotonic and complete: detectors that overlap and bands of unknown wavelength are
    therefore numbered, their wavelengths a second coordinate.
    """
    bands, count = like.bands.select(plan.bands), len(plan.bands)
    steps = np.diff(bands.wavelength)
    whole = bool(bands.wavelength) and all(map(math.isfinite, bands.wavelength))
    name = "wavelength" if whole and (np.all(steps > 0) or np.all(steps < 0)) else "band"
    file.createDimension(name, count)
    if name == "band":
        number = file.createVariable("band", "i4", (name,))
        number.setncattr("long_name", "band number")
        number[:] = np.arange(1, count + 1)
    for key, values, standard, words in (
        ("wavelength", bands.wavelength, "radiation_wavelength", "wavelength of the band's centre"),
        ("fwhm", bands.fwhm, "", "full width at half maximum of the band"),
    ):
        if values:
            variable = file.createVariable(key, "f8", (name,), fill_value=False if key == name else np.nan)
            variable.setncatts({"long_name": words, "units": "nm"} | ({"standard_name": standard} if standard else {}))
            variable[:] = np.array(values)
    if bands.good:
        variable = file.createVariable("good_band", "i1", (name,))
        flags = {"flag_values": np.array([0, 1], "i1"), "flag_meanings": "bad good"}
        variable.setncatts({"long_name": "whether the band is good"} | flags)
        variable[:] = np.array(bands.good, np.int8)
    names = bands.names or _names(plan, like)
    tags = [_tags(like, band) for band in plan.bands]
    for key, texts in (
        ("band_name", names), ("band_role", bands.roles if any(bands.roles) else ()),
        ("band_tags", [json.dumps(t, ensure_ascii=False) for t in tags] if any(tags) else ()),
    ):  # fmt: skip
        if texts:
            variable = file.createVariable(key, str, (name,))
            variable[:] = np.array(texts, object)
    return name


def _names(plan: Plan, like: Cube) -> list[str]:
    names = like.layout.get("descriptions") or ()
    return [names[band] or "" for band in plan.bands] if any(names) else []


def _tags(like: Cube, band: int) -> dict[str, dict[str, str]]:
    """A band's tags but for the statistics of its noisy pixels."""
    items = like.band_tags[band] if like.band_tags else {}
    kept = {ns: {k: v for k, v in t.items() if not k.startswith("STATISTICS_")} for ns, t in items.items()}
    return {ns: t for ns, t in kept.items() if t}


def _grid(file: Any, like: Cube) -> None:
    rows, cols = like.shape[1:]
    file.createDimension("y", rows)
    file.createDimension("x", cols)
    # Without any grid GDAL takes the first row for the southernmost and turns the image over, so pixels are counted.
    geo = like.geo if like.geo.transform else replace(like.geo, transform=cf_grid.PIXELS)
    file.createVariable("crs", "i4", (), fill_value=False).setncatts(cf_grid.to_cf(geo))
    a, b, c, d, e, f = geo.transform or cf_grid.PIXELS
    if b or d:  # rotated or sheared: no coordinate belongs to a row alone, GeoTransform has the grid
        return
    words = cf_grid.axis_attributes(like.geo)
    centres = f + e * (np.arange(rows) + 0.5), c + a * (np.arange(cols) + 0.5)
    for name, values, attributes in zip(("y", "x"), centres, words, strict=True):
        variable = file.createVariable(name, "f8", (name,), fill_value=False)
        variable.setncatts(attributes)
        variable[:] = values


def _gains(file: Any, variable: Any, plan: Plan, like: Cube, spectral: str) -> None:
    """CF knows one scale and offset for all; where bands differ they stand in variables of their own."""
    for key, values, plain in (("scale_factor", like.scale, 1.0), ("add_offset", like.offset, 0.0)):
        chosen = [float(values[b]) for b in plan.bands]
        if len(set(chosen)) > 1:
            listed = file.createVariable(f"band_{key}", "f8", (spectral,), fill_value=False)
            listed[:] = chosen
            text = f"CF has one {key} for all bands; theirs stand in band_{key}, which other programs do not apply"
            _warn(plan, text, True)
        elif chosen[0] != plain:
            variable.setncattr(key, chosen[0])


def _globals(file: Any, plan: Plan, like: Cube, provenance: Mapping[str, str]) -> None:
    geo = like.geo
    tags = {ns: dict(items) for ns, items in like.tags.items() if ns != "VARIABLE"}
    if provenance:
        tags.pop("HSIDENOISE", None)
    if geo.rpcs:
        tags["RPC"] = dict(geo.rpcs)
    if geo.area_or_point:
        tags[""] = tags.get("", {}) | {"AREA_OR_POINT": geo.area_or_point}
    if geo.gcps:
        tags["GCPS"] = {"points": json.dumps(geo.gcps)} | ({"crs": geo.gcps_crs} if geo.gcps_crs else {})
    lost = "control points and RPCs are kept as attributes that only hsidenoise reads; GTiff keeps them for all"
    _warn(plan, lost, bool(geo.gcps or geo.rpcs))
    masked = like.layout.get("mask", "") not in ("", "tag")
    _warn(plan, "netCDF has no masks; which pixels the input masks is not carried, GTiff keeps it", masked)
    history = [line for line in tags.get("", {}).pop("history", "").splitlines() if ": hsidenoise " not in line]
    attrs = {"Conventions": "CF-1.11"}
    if provenance:
        attrs["hsidenoise"] = ncattrs.provenance(provenance)
        stamp = provenance.get("date") or time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        history.append(f"{stamp}: hsidenoise {__version__}: denoised {provenance.get('source', '')}".rstrip())
    if history:
        attrs["history"] = "\n".join(history)
    attrs |= ncattrs.to_attributes(tags)
    long = sorted(name for name, value in attrs.items() if len(value.encode()) > _LONGEST)
    _warn(plan, f"too long for an attribute and left out: {', '.join(long)}", bool(long))
    file.setncatts({name: value for name, value in attrs.items() if name not in long})


def _warn(plan: Plan, text: str, when: bool) -> None:
    if when:
        warnings.warn(f"{plan.path}: {text}", MetadataWarning, stacklevel=6)
