"""Variables of a netCDF file: which of them is the cube, and which of its axes is which, told by the CF conventions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import netCDF4
import numpy as np

from ..errors import UnsupportedError, UsageError
from ..settings import ReadOptions
from . import hdf_axes

_NAMES = {  # CF standard names of coordinates
    "b": "radiation_wavelength sensor_band_central_radiation_wavelength radiation_wavenumber sensor_band_identifier "
    "sensor_band_central_radiation_wavenumber",
    "y": "projection_y_coordinate latitude grid_latitude",
    "x": "projection_x_coordinate longitude grid_longitude",
    "t": "time forecast_reference_time",
}
_LETTER = hdf_axes.LETTER | {"t": "t"} | {word: letter for letter, words in _NAMES.items() for word in words.split()}
_LENGTHS = {"nm", "um", "µm", "μm", "micron", "microns"} | {
    p + m for p in ("nano", "micro") for m in ("meter", "meters", "metre", "metres")
}
_WAVELENGTHS = re.compile(r"(wavelengths?(_?3d)?|wl|wvl|lambda|(band_|cent(er|re)_|central_)(wavelengths?|wl))$")


class Found(NamedTuple):
    """A variable that may be the cube; `axes` holds a letter or digit for each axis, or nothing if that is open."""

    path: str
    variable: Any
    axes: str

    def __str__(self) -> str:
        sizes = zip(self.variable.dimensions, self.variable.shape, strict=True)
        return f"{self.path} ({', '.join(f'{name} {size}' for name, size in sizes)})"


def walk(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every variable with its path, those of groups after those of their parent."""
    for name, variable in group.variables.items():
        yield prefix + name, variable
    for name, inner in group.groups.items():
        yield from walk(inner, f"{prefix}{name}/")


def numeric(variable: Any) -> bool:
    """Whether it holds plain numbers."""
    dtype = variable.dtype
    plain = isinstance(dtype, np.dtype) and dtype.kind in "iuf" and dtype.names is None
    return plain and not isinstance(variable.datatype, netCDF4.EnumType)


def attributes(variable: Any) -> dict[str, Any]:
    """Attributes of a variable, group or file; texts that are no UTF-8 are left out."""
    found = {}
    for name in variable.ncattrs():
        try:
            found[name] = variable.getncattr(name)
        except (UnicodeDecodeError, KeyError, AttributeError):  # a type netCDF4 does not know
            continue
    return found


def word(attrs: Mapping[str, Any], name: str) -> str:
    """A text attribute in lower case, empty where there is none."""
    value = attrs.get(name, "")
    return value.strip().lower() if isinstance(value, str) else ""


def coordinate(variable: Any, axis: int) -> Any:
    """The coordinate variable of an axis, from the variable's group or the nearest above; ``None`` without one."""
    dimension, group = variable.dimensions[axis], variable.group()
    while group is not None:
        found = group.variables.get(dimension)
        if found is not None and found.dimensions == (dimension,):
            return found
        group = group.parent
    return None


def letter(variable: Any, axis: int) -> str:
    """``b``, ``y``, ``x`` or ``t`` (time) where coordinate or dimension says so, else empty."""
    found = coordinate(variable, axis)
    attrs = attributes(found) if found is not None else {}
    units = word(attrs, "units")
    said = _LETTER.get(word(attrs, "standard_name"), "")
    if not said and units in _LENGTHS:
        said = "b"
    if not said and re.match(r"degrees?_?(n|north|e|east)$", units):
        said = "y" if "n" in units.rpartition("degree")[2] else "x"
    if not said and (" since " in units or word(attrs, "axis") == "t"):
        said = "t"
    said = said or (word(attrs, "axis") if word(attrs, "axis") in ("x", "y") else "")
    return said or _LETTER.get(hdf_axes.plain(variable.dimensions[axis]), "")


def is_wavelength(path: str, variable: Any) -> bool:
    """Whether a variable lists wavelengths, by its standard name, unit or own name."""
    if variable.ndim != 1 or not numeric(variable):
        return False
    attrs = attributes(variable)
    name = path.rpartition("/")[2].lower()
    widths = "fwhm" in name or "width" in name or "standard_deviation" in name
    said = word(attrs, "standard_name") in ("radiation_wavelength", "sensor_band_central_radiation_wavelength")
    said = said or (variable.dimensions == (variable.name,) and word(attrs, "units") in _LENGTHS)
    return not widths and (said or bool(_WAVELENGTHS.match(name)))


def axes_of(variable: Any, lists: Sequence[int] = ()) -> str:
    """A letter for each axis, ``0`` for one of a single place that is no part of the cube; empty where it is open.

    Parameters
    ----------
    lists
        Lengths of the lists of wavelengths in the file, for arrays whose axes have no names.
    """
    raw = [letter(variable, i) for i in range(variable.ndim)]
    letters = [c if c in ("b", "y", "x") and raw.count(c) == 1 else "" for c in raw]
    if "b" not in letters:
        fitting = [i for i, c in enumerate(letters) if not c and variable.shape[i] in lists]
        if len(fitting) == 1:
            letters[fitting[0]] = "b"
    missing = [c for c in "byx" if c not in letters]
    blank = [i for i, c in enumerate(letters) if not c]
    single = sorted((i for i in blank if variable.shape[i] == 1), key=lambda i: raw[i] != "t")
    for i in single[: max(len(blank) - len(missing), 0)]:
        letters[i] = "0"
        blank.remove(i)
    if len(blank) == len(missing) and (len(missing) < 2 or missing == ["y", "x"]):
        for i, c in zip(blank, missing, strict=True):
            letters[i] = c
    elif blank or missing != ["b"]:
        return ""
    return "".join(letters)


def find(name: str, dataset: Any, options: ReadOptions) -> list[Found]:
    """The variable that holds the cube, or those that hold a band each, as GDAL writes them.

    Raises
    ------
    UnsupportedError
        None does.
    UsageError
        Several could, which axis is which is not certain, or ``--variable`` or ``--axes`` name nothing there is.
    """
    every = dict(walk(dataset))
    lists = {v.shape[0] for path, v in every.items() if is_wavelength(path, v)}
    helpers = _helpers(every)
    arrays = [
        Found(path, v, options.axes or axes_of(v, sorted(lists)))
        for path, v in every.items()
        if numeric(v) and v.ndim >= 2 and path not in helpers
    ]
    if options.variable:
        wanted = options.variable.strip("/")
        chosen = [f for f in arrays if f.path == wanted] or [f for f in arrays if f.path.endswith("/" + wanted)]
        if not chosen:
            raise UsageError(f"{name}: --variable {options.variable}: not there; it holds {_list(arrays) or 'none'}")
    elif options.axes:
        chosen = [f for f in arrays if f.variable.ndim == len(options.axes)]
        if not chosen:
            raise UsageError(f"{name}: --axes {options.axes}: no array has as many axes; it holds {_list(arrays)}")
    else:
        chosen = _likely(arrays)
    if not chosen:
        raise UnsupportedError(f"{name}: holds no array of bands, rows and columns; {_list(arrays) or 'none'} is there")
    if len(chosen) > 1 and not _gdal_bands(chosen):
        raise UsageError(f"{name}: holds several arrays: {_list(chosen)}; choose one with --variable")
    if not chosen[0].axes:
        raise UsageError(
            f"{name}: which axis of {chosen[0]} is which is not said; give --axes, such as byx (bands, rows, columns), "
            "with a digit for each further axis"
        )
    if 0 in chosen[0].variable.shape:
        raise UnsupportedError(f"{name}: {chosen[0]} is empty")
    return chosen


def _likely(arrays: Sequence[Found]) -> list[Found]:
    """Cubes before single bands; among several cubes the one whose band axis has a name."""
    cubes = [f for f in arrays if "b" in f.axes]
    named = [f for f in cubes if letter(f.variable, f.axes.index("b")) == "b"]
    if len(named) == 1:
        return named
    return cubes or [f for f in arrays if f.axes] or [f for f in arrays if f.variable.ndim >= 3]


def _gdal_bands(found: Sequence[Found]) -> bool:
    """Whether these are the variables ``Band1``, ``Band2``... that GDAL makes of one raster."""
    same = {(f.variable.dimensions, f.variable.dtype.str, f.axes) for f in found}
    return len(same) == 1 and [f.path for f in found] == [f"Band{i}" for i in range(1, len(found) + 1)]


def _list(found: Sequence[Found]) -> str:
    return ", ".join(map(str, found[:8])) + (" ..." if len(found) > 8 else "")


def _helpers(every: Mapping[str, Any]) -> set[str]:
    """Variables that only describe others: coordinates, bounds, quality, grid mappings."""
    helpers = set()
    for path, variable in every.items():
        attrs = attributes(variable)
        group = path.rpartition("/")[0]
        for key in ("coordinates", "bounds", "ancillary_variables", "grid_mapping", "cell_measures"):
            for item in str(attrs.get(key, "")).split():
                helpers |= {item.strip("/"), f"{group}/{item}" if group else item}
        places = {word(attrs, "standard_name"), path.rpartition("/")[2].lower()}
        if places & {"latitude", "longitude", "lat", "lon"}:
            helpers.add(path)
    return helpers
