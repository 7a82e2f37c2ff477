"""Grids of HDF5 products: a transform of pixel corners and a CRS, or nothing where pixels lie on no grid."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np
from rasterio.crs import CRS
from rasterio.errors import CRSError

from ..cube import Geo
from ..errors import MetadataWarning
from . import georef
from .hdf_file import numbers, own, text


def none(file: h5py.File, cube: h5py.Dataset, size: Sequence[int]) -> Geo:
    """Sensor geometry: latitudes and longitudes of each pixel stay in the file's own arrays."""
    return Geo()


def crs(said: Any, name: str) -> str | None:
    """WKT2 of an EPSG code or of a WKT in any of its forms; a warning where it is neither."""
    words = text(said)
    try:
        found = CRS.from_epsg(int(words)) if words.isdigit() else CRS.from_wkt(words)
    except (CRSError, ValueError, OverflowError):
        warnings.warn(f"{name}: coordinate system {words[:60]!r} is not understood", MetadataWarning, stacklevel=2)
        return None
    return georef.wkt(found)


def grid_mapping(file: h5py.File, cube: h5py.Dataset, size: Sequence[int]) -> Geo:
    """The variable that `cube` names as its ``grid_mapping``, else one that has a ``GeoTransform``.

    Without a transform in it, evenly spaced coordinates of pixel centres beside it will do.
    """
    named = text(cube.attrs.get("grid_mapping", ""))
    groups = [cube.parent, file]
    found = [g[named] for g in groups if named and isinstance(g.get(named), h5py.Dataset)]
    for group in groups:
        found += [item for item in own(group) if "GeoTransform" in item.attrs]
    for item in found:
        wkt = next((item.attrs[k] for k in ("crs_wkt", "spatial_ref", "epsg_code") if k in item.attrs), None)
        transform = _gdal(item.attrs.get("GeoTransform", "")) or _centres(groups, size)
        if transform:
            return Geo(crs=None if wkt is None else crs(wkt, file.filename), transform=transform)
    return Geo()


def _centres(groups: Sequence[h5py.Group], size: Sequence[int]) -> tuple[float, ...] | None:
    """A transform from arrays of coordinates, rows and columns, that are evenly spaced."""
    steps = []
    for names, count in ((("y", "northing", "yCoordinates"), size[0]), (("x", "easting", "xCoordinates"), size[1])):
        item = next((g[n] for g in groups for n in names if isinstance(g.get(n), h5py.Dataset)), None)
        if item is None or item.shape != (count,) or count < 2:
            return None
        values = np.asarray(item[()], float)
        step = (values[-1] - values[0]) / (count - 1)
        if not step or not np.allclose(np.diff(values), step, rtol=1e-3, atol=0):
            return None
        steps.append((float(values[0] - step / 2), float(step)))
    (top, down), (left, across) = steps
    return across, 0.0, left, 0.0, down, top


def _gdal(said: Any) -> tuple[float, ...] | None:
    """Six numbers in GDAL's order (corner x, a, b, corner y, d, e), as text or as numbers."""
    words = text(said).split() if np.size(said) == 1 else numbers(said)
    try:
        c, a, b, f, d, e = map(float, words)
    except ValueError:
        return None
    return (a, b, c, d, e, f) if all(map(math.isfinite, (a, b, c, d, e, f))) and a * e != b * d else None


def neon(file: h5py.File, cube: h5py.Dataset, size: Sequence[int]) -> Geo:
    """NEON's ``Map_Info``, an ENVI ``map info``, and its EPSG code."""
    place = cube.parent.get("Metadata/Coordinate_System")
    if not isinstance(place, h5py.Group) or "Map_Info" not in place:
        return Geo()
    geo = georef.from_header({"map info": "{" + text(place["Map_Info"][()]) + "}"}, file.filename)
    code = text(place["EPSG Code"][()]) if "EPSG Code" in place else ""
    return Geo(crs=crs(code, file.filename) or geo.crs if code else geo.crs, transform=geo.transform)


def prisma(file: h5py.File, cube: h5py.Dataset, size: Sequence[int]) -> Geo:
    """L2D: the corner attributes are centres of the corner pixels.

    EnMAP-Box and prismaread read them so, HyperCoast as outer corners. The file itself can tell: the spacing that
    follows from the right reading is a whole number of metres.
    """
    ends = [f"Product_{c}corner_{d}ing" for d in ("east", "north") for c in ("UL", "LR")]
    if "Epsg_Code" not in file.attrs or not all(e in file.attrs for e in ends):
        return Geo()
    left, right, top, bottom = (float(file.attrs[e]) for e in ends)
    rows, cols = size
    centres = ((right - left) / max(cols - 1, 1), (top - bottom) / max(rows - 1, 1))
    corners = ((right - left) / cols, (top - bottom) / rows)
    for across, down, half in ((*centres, 0.5), (*corners, 0.0)):
        if across > 0 and down > 0 and all(abs(s - round(s)) < 0.01 for s in (across, down)):
            a, e = float(round(across)), float(round(down))
            found = (a, 0.0, left - half * a, 0.0, -e, top + half * e)
            return Geo(crs=crs(file.attrs["Epsg_Code"], file.filename), transform=found)
    warnings.warn(
        f"{file.filename}: the corner coordinates do not fit {rows} x {cols} pixels of whole metres; no grid",
        MetadataWarning,
        stacklevel=2,
    )
    return Geo()


def eos_grid(file: h5py.File, cube: h5py.Dataset, size: Sequence[int]) -> Geo:
    """HDF-EOS5 grids in UTM: corners in ``StructMetadata.0``, the EPSG code there or in an attribute of the grid.

    Of Tanager these are the ortho products. In its basic ones ``Planet_Ortho_Framing`` is the grid of a product to be
    made, not that of the swath.
    """
    if "/GRIDS/" not in cube.name or "HDFEOS INFORMATION/StructMetadata.0" not in file:
        return Geo()
    grid = cube.name.partition("/GRIDS/")[2].partition("/")[0]
    said = text(file["HDFEOS INFORMATION/StructMetadata.0"][()]).partition(f'GridName="{grid}"')[2]
    said = said.partition("GridName=")[0]
    number = r"\(\s*([-+.\deE]+)\s*,\s*([-+.\deE]+)\s*\)"
    first, last = (re.search(key + "=" + number, said) for key in ("UpperLeftPointMtrs", "LowerRightMtrs"))
    if not first or not last:
        return Geo()
    left, top, right, bottom = float(first[1]), float(first[2]), float(last[1]), float(last[2])
    rows, cols = size
    code = cube.parent.parent.attrs.get("epsg_code")
    zone = re.search(r"ZoneCode=(-?\d+)", said)
    if code is None and zone and "GCTP_UTM" in said:
        code = (32600 if int(zone[1]) > 0 else 32700) + abs(int(zone[1]))
    transform = ((right - left) / cols, 0.0, left, 0.0, (bottom - top) / rows, top)
    if code is None or transform[0] <= 0 or transform[4] >= 0:  # other projections' numbers are packed degrees
        return Geo()
    return Geo(crs=crs(code, file.filename), transform=transform)


def any_grid(file: h5py.File, cube: h5py.Dataset, size: Sequence[int]) -> Geo:
    """Of an array that is no product's: a grid mapping, else an HDF-EOS5 grid."""
    found = grid_mapping(file, cube, size)
    return found if found.transform else eos_grid(file, cube, size)
