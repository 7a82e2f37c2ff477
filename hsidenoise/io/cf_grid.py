"""Grids and coordinate systems by the CF conventions (1.11, section 5.6 and appendix F), and as GDAL writes them."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import RasterioError

from ..cube import Geo
from ..errors import MetadataWarning, ReadError
from . import gdal, georef, ncvars
from .slots import Slot

Transform = tuple[float, ...]

#: A grid that only counts pixels, downwards: that of an image without georeferencing.
PIXELS = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)

# Methods of WKT2 and PROJJSON: the CF name, the attribute for the longitude of origin, that for the scale.
_METHODS = {
    "Transverse Mercator": (
        "transverse_mercator", "longitude_of_central_meridian", "scale_factor_at_central_meridian"
    ),
    "Lambert Azimuthal Equal Area": ("lambert_azimuthal_equal_area", "longitude_of_projection_origin", ""),
    "Albers Equal Area": ("albers_conical_equal_area", "longitude_of_central_meridian", ""),
    "Lambert Conic Conformal (2SP)": ("lambert_conformal_conic", "longitude_of_central_meridian", ""),
    "Mercator (variant A)": ("mercator", "longitude_of_projection_origin", "scale_factor_at_projection_origin"),
}  # fmt: skip
_PARAMETERS = {
    "Latitude of natural origin": "latitude_of_projection_origin",
    "Latitude of false origin": "latitude_of_projection_origin",
    "False easting": "false_easting",
    "False northing": "false_northing",
    "Easting at false origin": "false_easting",
    "Northing at false origin": "false_northing",
}
_PARALLELS = ("Latitude of 1st standard parallel", "Latitude of 2nd standard parallel")


def from_cf(name: str, dataset: Any, variable: Any, slot: Slot) -> Geo:
    """Coordinate system and grid of a variable; rows keep the order of the file, be it south-up."""
    attrs = _mapping(dataset, variable)
    y, x = (_centres(variable, axis) for axis in slot.axes[1:])
    shape = variable.shape[slot.axes[1]], variable.shape[slot.axes[2]]
    said = _numbers(attrs.get("GeoTransform"))
    grid = (said[1], said[2], said[0], said[4], said[5], said[3]) if len(said) == 6 else None
    transform = _transform(grid, y, x, shape)
    if transform is None and (y is not None or x is not None or grid is not None):
        text = "coordinates of rows and columns are not evenly spaced; no grid is taken from them"
        warnings.warn(f"{name}: {text}", MetadataWarning, stacklevel=2)
    no_grid = transform in (PIXELS, (1, 0, 0, 0, 1, 0))
    return Geo(crs=_crs(name, variable, attrs), transform=None if no_grid else transform)


def _mapping(dataset: Any, variable: Any) -> dict[str, Any]:
    """Attributes of the grid mapping: of the variable's own, else of the only one there is."""
    said = str(ncvars.attributes(variable).get("grid_mapping", "")).split()
    names = [item.strip(":") for item in said[:1]]
    every = dict(ncvars.walk(dataset))
    group: Any = variable.group()
    while names and group is not None:
        if names[0] in group.variables:
            return ncvars.attributes(group.variables[names[0]])
        group = group.parent
    keys = {"grid_mapping_name", "crs_wkt", "spatial_ref"}
    found = [a for a in (ncvars.attributes(v) for v in every.values() if v.ndim == 0) if keys & set(a)]
    return found[0] if len(found) == 1 else {}


def _crs(name: str, variable: Any, attrs: Mapping[str, Any]) -> str | None:
    for key in ("crs_wkt", "spatial_ref"):
        if isinstance(attrs.get(key), str) and attrs[key].strip():
            try:
                return georef.wkt(CRS.from_user_input(attrs[key]))
            except (RasterioError, ValueError):
                continue
    if "grid_mapping_name" not in attrs:
        return None
    # Only parameters: GDAL knows what they mean.
    group = variable.group().path.rstrip("/")
    try:
        inside = f'NETCDF:"{os.path.abspath(name)}":{group}/{variable.name}' if group else (
            f'NETCDF:"{os.path.abspath(name)}":{variable.name}')  # fmt: skip
        with gdal.environment(), gdal.reading(name), rasterio.open(inside) as source:
            found = georef.wkt(source.crs)
    except ReadError:
        found = None
    if found is None:
        text = f"the grid mapping {attrs['grid_mapping_name']} is not understood; no coordinate system"
        warnings.warn(f"{name}: {text}", MetadataWarning, stacklevel=3)
    return found


def _numbers(value: Any) -> list[float]:
    try:
        found = [float(v) for v in (value.split() if isinstance(value, str) else np.ravel(value).tolist())]
    except (TypeError, ValueError):
        return []
    return found if all(map(math.isfinite, found)) else []


def _centres(variable: Any, axis: int) -> NDArray[np.float64] | None:
    """The coordinate of an axis, where it says a place on the ground."""
    found = ncvars.coordinate(variable, axis)
    if found is None or not ncvars.numeric(found):
        return None
    values = np.asarray(found[:])
    attrs = ncvars.attributes(found)
    try:
        values = values * np.float64(attrs.get("scale_factor", 1)) + np.float64(attrs.get("add_offset", 0))
    except (TypeError, ValueError):
        return None
    return values.astype(np.float64)


def _transform(
    grid: Transform | None, y: NDArray[np.float64] | None, x: NDArray[np.float64] | None, shape: tuple[int, int]
) -> Transform | None:
    """The grid the file states, turned to the order of its rows, unless the coordinates say another one.

    Stale GeoTransforms are common: programs that cut files keep the attribute and change the coordinates.
    """
    if y is None or x is None or y.shape != shape[:1] or x.shape != shape[1:]:
        return grid
    if grid:
        a, b, c, d, e, f = grid
        for candidate in (grid, (a, b, c, d, -e, f + e * shape[0])):
            if _same(candidate, y, x):
                return candidate
    steps = [_step(values) for values in (x, y)]
    if steps[0] is None or steps[1] is None:
        return None
    return steps[0], 0.0, float(x[0]) - steps[0] / 2, 0.0, steps[1], float(y[0]) - steps[1] / 2


def _same(grid: Transform, y: NDArray[np.float64], x: NDArray[np.float64]) -> bool:
    a, b, c, d, e, f = grid
    cols, rows = np.arange(len(x)) + 0.5, np.arange(len(y)) + 0.5
    return b == d == 0 and bool(
        np.all(np.abs(c + a * cols - x) <= 0.01 * abs(a) + _grain(x))
        and np.all(np.abs(f + e * rows - y) <= 0.01 * abs(e) + _grain(y))
    )


def _grain(values: NDArray[np.float64]) -> float:
    """What coordinates stored as float32 may be off."""
    return float(np.max(np.abs(values), initial=0.0)) * 2.0**-22


def _step(values: NDArray[np.float64]) -> float | None:
    """The spacing of even coordinates; ``None`` for others, and for a single one, which tells none."""
    if len(values) < 2 or not np.all(np.isfinite(values)):
        return None
    step = float(values[-1] - values[0]) / (len(values) - 1)
    off = np.abs(values[0] + step * np.arange(len(values)) - values)
    return step if step and np.all(off <= 0.01 * abs(step) + _grain(values)) else None


def to_cf(geo: Geo) -> dict[str, Any]:
    """Attributes of a grid mapping variable: CF's own where simple, and those GDAL and rioxarray look for."""
    out: dict[str, Any] = {}
    if geo.crs:
        crs = CRS.from_wkt(geo.crs)
        out |= _parameters(crs.to_dict(projjson=True))
        out |= {"crs_wkt": geo.crs, "spatial_ref": geo.crs}
    if geo.transform:
        a, b, c, d, e, f = geo.transform
        out["GeoTransform"] = " ".join(repr(float(v)) for v in (c, a, b, f, d, e))
    return out


def _parameters(system: Mapping[str, Any]) -> dict[str, Any]:
    """CF attributes of a PROJJSON coordinate system; empty for those that are not simple."""
    if system.get("type") == "CompoundCRS":
        return _parameters(system["components"][0])
    if system.get("type") == "BoundCRS":
        return _parameters(system["source_crs"])
    base = system.get("base_crs", system)
    datum = base.get("datum") or base.get("datum_ensemble") or {}
    ellipsoid = datum.get("ellipsoid", {})
    out: dict[str, Any] = {}
    if isinstance(ellipsoid.get("semi_major_axis"), int | float):
        out["semi_major_axis"] = float(ellipsoid["semi_major_axis"])
        if "inverse_flattening" in ellipsoid:
            out["inverse_flattening"] = float(ellipsoid["inverse_flattening"])
        elif isinstance(ellipsoid.get("semi_minor_axis"), int | float):
            out["semi_minor_axis"] = float(ellipsoid["semi_minor_axis"])
    if system.get("type") == "GeographicCRS":
        return {"grid_mapping_name": "latitude_longitude"} | out
    conversion = system.get("conversion", {})
    method = _METHODS.get(conversion.get("method", {}).get("name", ""))
    if method is None:
        return {}
    name, longitude, scale = method
    out["grid_mapping_name"] = name
    parallels = []
    for item in conversion.get("parameters", ()):
        if isinstance(item.get("unit"), Mapping):  # feet, grads: not what CF's attributes are in
            return {}
        if item["name"].startswith("Longitude of"):
            out[longitude] = float(item["value"])
        elif item["name"].startswith("Scale factor") and scale:
            out[scale] = float(item["value"])
        elif item["name"] in _PARALLELS:
            parallels.append(float(item["value"]))
        elif item["name"] in _PARAMETERS and not (name == "mercator" and "Latitude" in item["name"]):
            out[_PARAMETERS[item["name"]]] = float(item["value"])
    if parallels:
        out["standard_parallel"] = parallels
    return out


def axis_attributes(geo: Geo) -> tuple[dict[str, str], dict[str, str]]:
    """Attributes of the coordinates of rows and columns."""
    y, x = {"axis": "Y"}, {"axis": "X"}
    crs = CRS.from_wkt(geo.crs) if geo.crs else None
    if crs is not None and crs.is_geographic:
        return (
            y | {"standard_name": "latitude", "long_name": "latitude", "units": "degrees_north"},
            x | {"standard_name": "longitude", "long_name": "longitude", "units": "degrees_east"},
        )
    if crs is not None and crs.is_projected:
        units = {"metre": "m", "meter": "m"}.get(crs.linear_units.lower(), crs.linear_units)
        y |= {"standard_name": "projection_y_coordinate", "units": units}
        x |= {"standard_name": "projection_x_coordinate", "units": units}
    words = "coordinate of projection" if geo.transform else "pixels: no georeferencing"
    return y | {"long_name": f"y {words}"}, x | {"long_name": f"x {words}"}
