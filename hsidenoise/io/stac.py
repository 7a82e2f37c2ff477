"""STAC 1.1 Items of outputs: where, when, which bands, and what was done.

Extensions: eo 2.0, projection 2.0, raster 2.0 and processing 1.2 (https://stac-extensions.github.io).
"""

from __future__ import annotations

import json
import math
import os
import re
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.transform import Affine, from_gcps
from rasterio.warp import transform_geom

from .. import __version__
from ..cube import Cube
from ..errors import MetadataWarning, WriteError
from . import gdal, plan, targets

_EXTENSION = "https://stac-extensions.github.io/{}/schema.json"
_MEDIA = {
    "GTiff": "image/tiff; application=geotiff",
    "COG": "image/tiff; application=geotiff; profile=cloud-optimized",
    "netCDF": "application/netcdf",
    "HDF5": "application/x-hdf5",
    "HDF4": "application/x-hdf",
    "MATLAB": "application/x-matlab-data",
}
# Tags that tell when a scene was taken, in lower case without signs, the best first.
_STARTS = ("acquisitiondatetime", "acquisitiontime", "acquisitionstarttime", "timecoveragestart", "startdatetime",
           "rangebeginningdatetime", "sensingtime", "sensingstart", "starttime", "datetime",
           "acquisitiondate")  # fmt: skip
_ENDS = ("acquisitionendtime", "timecoverageend", "enddatetime", "rangeendingdatetime", "sensingstop", "endtime")
_LEVELS = ("processinglevel", "productlevel", "processinglevelid")
_EDGE = 4  # points an edge of the footprint gets: edges of map projections are curves on the globe


def write(
    path: Path, output: Cube, driver: str, *, tags: Mapping[str, Mapping[str, str]], scene: str,
    provenance: Mapping[str, str],
) -> None:  # fmt: skip
    """Write the Item of an output, complete or not at all; see `item`.

    Raises
    ------
    WriteError
        It cannot be written.
    """
    text = json.dumps(item(path, output, driver, tags=tags, scene=scene, provenance=provenance), indent=2) + "\n"
    temporary = plan.temporary(os.fspath(path))
    try:
        with open(temporary, "x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(FileNotFoundError):
            os.remove(temporary)
        raise WriteError(f"{path}: cannot be written ({error.strerror or error})") from error


def item(
    path: Path, output: Cube, driver: str, *, tags: Mapping[str, Mapping[str, str]], scene: str,
    provenance: Mapping[str, str],
) -> dict[str, Any]:  # fmt: skip
    """A STAC 1.1 Item, JSON-ready.

    Parameters
    ----------
    path
        Where it will lie; its asset is named from there.
    output
        The denoised scene, open.
    driver
        Its format, as `hsidenoise.io.describe_output` calls it.
    tags
        Of the input, for the time it was taken.
    scene
        The input's name, whose file time stands in where no tag tells.
    provenance
        As given to `hsidenoise.io.create_cube`.
    """
    footprint = _footprint(output)
    kind = output.layout.get("driver", driver) if driver == "copy" else driver
    grid, extensions = _projection(output), ["projection/v2.0.0", "raster/v2.0.0", "processing/v1.2.0"]
    bands = _bands(output)
    if any("eo:center_wavelength" in band or "eo:full_width_half_max" in band for band in bands):
        extensions.append("eo/v2.0.0")
    made = provenance.get("date") or _utc(datetime.fromtimestamp(time.time(), UTC))
    lineage = f"Denoised from {provenance.get('source', os.path.basename(scene))}"
    details = [provenance[key] for key in ("bands", "model") if key in provenance]
    level = _first(tags, _LEVELS)
    properties = {
        **_when(tags, scene),
        "created": made,
        **grid,
        "processing:software": {"hsidenoise": __version__},
        "processing:lineage": f"{lineage} ({', '.join(details)})" if details else lineage,
        "processing:datetime": made,
        **({"processing:level": level} if level else {}),
    }
    assets = {"data": _asset(path, output.name, _MEDIA.get(kind, ""), "data")}
    assets["data"]["bands"] = bands
    if driver == "ENVI":
        assets["header"] = _asset(path, targets.header_path(output.name), "text/plain", "metadata")
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [_EXTENSION.format(name) for name in sorted(extensions)],
        "id": Path(output.name).stem,
        "geometry": footprint,
        **({"bbox": _bbox(footprint)} if footprint else {}),
        "properties": properties,
        "links": [],
        "assets": assets,
    }


def _asset(path: Path, name: str, media: str, role: str) -> dict[str, Any]:
    href = os.path.relpath(name, os.path.dirname(os.path.abspath(path))).replace(os.sep, "/")
    kind = {"type": media} if media else {}
    return {"href": href if href.startswith(".") else f"./{href}", **kind, "roles": [role]}


#: Of the common band metadata, where complex types have names of their own.
_COMPLEX = {"complex_int16": "cint16", "complex64": "cfloat32", "complex128": "cfloat64"}


def _bands(output: Cube) -> list[dict[str, Any]]:
    found = []
    output = output.layout.get("complex", output)
    stored = output.layout.get("stored", output.dtype)
    names = output.bands.names or ("",) * output.shape[0]
    for i, said in enumerate(names):
        name = said if names.count(said) == 1 and said else f"B{i + 1}"  # unique, as the specification asks
        band: dict[str, Any] = {"name": name, "data_type": _COMPLEX.get(stored, stored)}
        for key, values in (("center_wavelength", output.bands.wavelength), ("full_width_half_max", output.bands.fwhm)):
            if values and math.isfinite(values[i]) and values[i] > 0:
                band[f"eo:{key}"] = float(Decimal(repr(values[i])) / 1000)
        nodata = output.nodata[i]
        if nodata is not None:
            band["nodata"] = nodata if math.isfinite(nodata) else str(float(nodata))
        for key, number in (("scale", output.scale[i]), ("offset", output.offset[i])):
            if math.isfinite(number):
                band[f"raster:{key}"] = number
        found.append(band)
    return found


def _projection(output: Cube) -> dict[str, Any]:
    """Fields of the projection extension; a code of ``null`` says that there is no code, or no system at all."""
    geo = output.geo
    out: dict[str, Any] = {"proj:code": None, "proj:shape": list(output.shape[1:])}
    if geo.crs:
        authority = CRS.from_wkt(geo.crs).to_authority()
        out["proj:code"] = ":".join(authority) if authority else None
        if not authority:
            out["proj:wkt2"] = geo.crs
    if geo.transform:
        out["proj:transform"] = list(geo.transform)
        if geo.crs:
            ring = _corners(Affine(*geo.transform), output.shape[1:], 1)
            xs, ys = [p[0] for p in ring], [p[1] for p in ring]
            out["proj:bbox"] = [min(xs), min(ys), max(xs), max(ys)]
    return out


def _footprint(output: Cube) -> dict[str, Any] | None:
    """The outline in WGS 84, cut at the antimeridian; ``None`` where nothing ties the scene to the ground."""
    geo = output.geo
    try:
        with gdal.environment():
            if geo.transform and geo.crs:
                grid, crs = Affine(*geo.transform), CRS.from_wkt(geo.crs)
            elif geo.gcps and geo.gcps_crs:
                points = [GroundControlPoint(*p[:4], z=p[4]) for p in geo.gcps]
                grid, crs = from_gcps(points), CRS.from_wkt(geo.gcps_crs)
            else:
                return None
            ring = _corners(grid, output.shape[1:], _EDGE)
            shape = transform_geom(crs, CRS.from_epsg(4326), {"type": "Polygon", "coordinates": [ring]})
    except (*gdal.FAILURES, RasterioError) as error:
        text = f"its outline in longitude and latitude is not known ({gdal.cause(error)})"
        warnings.warn(f"{output.name}: {text}", MetadataWarning, stacklevel=4)
        return None
    polygons = shape["coordinates"] if shape["type"] == "MultiPolygon" else [shape["coordinates"]]
    polygons = [[_oriented(ring)] for polygon in polygons for ring in _wrapped(polygon[0])]
    if not all(math.isfinite(v) for polygon in polygons for ring in polygon for p in ring for v in p):
        text = "its outline in longitude and latitude is not known (it lies beyond the projection's reach)"
        warnings.warn(f"{output.name}: {text}", MetadataWarning, stacklevel=4)
        return None
    if len(polygons) == 1:
        return {"type": "Polygon", "coordinates": polygons[0]}
    return {"type": "MultiPolygon", "coordinates": polygons}


def _corners(grid: Affine, shape: Sequence[int], steps: int) -> list[tuple[float, float]]:
    """A closed ring around the pixels, `steps` points to an edge."""
    rows, cols = shape
    ends = [(0, 0), (0, rows), (cols, rows), (cols, 0), (0, 0)]
    ring = [
        (a[0] + (b[0] - a[0]) * i / steps, a[1] + (b[1] - a[1]) * i / steps)
        for a, b in pairwise(ends)
        for i in range(steps)
    ]
    return [(float(x), float(y)) for x, y in (grid @ point for point in [*ring, ring[0]])]


def _wrapped(ring: Sequence[Sequence[float]]) -> list[list[Sequence[float]]]:
    """A ring cut at the antimeridian where it reaches beyond, as grids in degrees do."""
    if all(-180 <= p[0] <= 180 or not math.isfinite(p[0]) for p in ring):
        return [list(ring)]
    turned = ([(p[0] + turn, *p[1:]) for p in ring] for turn in (0, -360, 360))
    parts = [_clipped(_clipped(part, 180, 1), -180, -1) for part in turned]
    return [part for part in parts if len({p[0] for p in part}) > 1]


def _clipped(ring: Sequence[Sequence[float]], edge: float, sign: int) -> list[Sequence[float]]:
    """The part of a closed ring where ``sign * (x - edge)`` is not positive."""
    kept: list[Sequence[float]] = []
    for a, b in pairwise(ring):
        inside = [sign * (p[0] - edge) <= 0 for p in (a, b)]
        if inside[0]:
            kept.append(a)
        if inside[0] != inside[1]:
            kept.append((edge, a[1] + (edge - a[0]) / (b[0] - a[0]) * (b[1] - a[1])))
    return kept + kept[:1]


def _oriented(ring: Sequence[Sequence[float]]) -> list[list[float]]:
    """A ring as GeoJSON wants outlines: counterclockwise."""
    points = [[float(p[0]), float(p[1])] for p in ring]
    area = sum(a[0] * b[1] - b[0] * a[1] for a, b in pairwise(points))
    return points if area >= 0 else points[::-1]


def _bbox(footprint: Mapping[str, Any]) -> list[float]:
    """West, south, east, north; west is the larger number across the antimeridian (RFC 7946, section 5.2)."""
    polygons = footprint["coordinates"] if footprint["type"] == "MultiPolygon" else [footprint["coordinates"]]
    points = [p for polygon in polygons for p in polygon[0]]
    west, east = min(p[0] for p in points), max(p[0] for p in points)
    if len(polygons) > 1:
        longitudes = [[p[0] for p in polygon[0]] for polygon in polygons]
        west = min(min(x) for x in longitudes if max(x) == east)
        east = max(max(x) for x in longitudes if max(x) != east)
    return [west, min(p[1] for p in points), east, max(p[1] for p in points)]


def _when(tags: Mapping[str, Mapping[str, str]], scene: str) -> dict[str, str]:
    """When the scene was taken, by its tags; else the time of its file, and a word that it is that."""
    start, end = _time(_first(tags, _STARTS)), _time(_first(tags, _ENDS))
    if start and end and start <= end:
        return {"datetime": _utc(start), "start_datetime": _utc(start), "end_datetime": _utc(end)}
    if start:
        return {"datetime": _utc(start)}
    seconds = os.path.getmtime(scene) if os.path.exists(scene) else time.time()
    note = "The scene does not tell when it was taken: datetime is the time of its file."
    return {"datetime": _utc(datetime.fromtimestamp(int(seconds), UTC)), "description": note}


def _first(tags: Mapping[str, Mapping[str, str]], keys: Sequence[str]) -> str:
    plain = {re.sub(r"[^a-z0-9]", "", k.lower()): v.strip() for items in tags.values() for k, v in items.items()}
    return next((plain[key] for key in keys if plain.get(key)), "")


def _time(text: str) -> datetime | None:
    """A date and time of ISO 8601, or with colons in the date as TIFF has it; UTC unless it says another zone."""
    text = re.sub(r"^(\d{4}):(\d\d):(\d\d)", r"\1-\2-\3", text.strip("{} "))
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def _utc(when: datetime) -> str:
    return when.isoformat().replace("+00:00", "Z")
