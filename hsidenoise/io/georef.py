"""ENVI georeferencing: ``map info``, ``projection info``, ``coordinate system string``, ``rpc info``, ``geo points``.

GDAL knows the projections, so a header of one pixel is given to it in memory, with only these keys in it. That keeps
stale ``.aux.xml`` files, odd encodings and the pixels themselves out of the matter, and allows GDAL's one slip to be
mended: it moves the reference pixel to the corner before it rotates the grid.
"""

from __future__ import annotations

import math
import os
import tempfile
import uuid
import warnings
from collections.abc import Mapping

import rasterio
from rasterio.crs import CRS
from rasterio.io import MemoryFile
from rasterio.transform import Affine

from ..bands import split_list
from ..cube import Geo
from ..errors import MetadataWarning, UsageError
from . import gdal, header

_KEYS = ("map info", "projection info", "coordinate system string", "geo points", "pixel size")
_STUB = "ENVI\nsamples = 1\nlines = 1\nbands = 1\ndata type = 1\ninterleave = bsq\nbyte order = 0\n"
# GDAL wants more than one byte before it believes in an ENVI file.
_PIXELS = b"\0" * 64
_RPC_SCALARS = ("LINE_OFF", "SAMP_OFF", "LAT_OFF", "LONG_OFF", "HEIGHT_OFF",
                "LINE_SCALE", "SAMP_SCALE", "LAT_SCALE", "LONG_SCALE", "HEIGHT_SCALE")  # fmt: skip
_RPC_TAIL = ("TILE_ROW_OFFSET", "TILE_COL_OFFSET", "ENVI_RPC_EMULATION")
_RPC_LISTS = ("LINE_NUM_COEFF", "LINE_DEN_COEFF", "SAMP_NUM_COEFF", "SAMP_DEN_COEFF")


def from_header(keys: Mapping[str, str], name: str) -> Geo:
    """Georeferencing from header keys; what cannot be understood is warned of and left out.

    Returns
    -------
    Geo
        ``crs`` as WKT2 (none for ``Arbitrary`` grids), the transform of the pixel corners, RPC tags, geo points.
    """
    given = {k: keys[k] for k in _KEYS if keys.get(k)}
    shift = (0.0, 0.0)
    arbitrary = False
    if "map info" in given:
        fields = split_list(given["map info"])
        try:
            numbers = [float(f) for f in fields[1:7]]
            if len(numbers) < 6 or not all(map(math.isfinite, numbers)) or 0 in numbers[4:]:
                raise ValueError
        except ValueError:
            warnings.warn(f"{name}: 'map info' is not understood; no georeferencing", MetadataWarning, stacklevel=2)
            del given["map info"]
        else:
            shift = numbers[0] - 1, numbers[1] - 1
            arbitrary = fields[0].lower().startswith("arbitrary")
            given["map info"] = "{" + ", ".join([fields[0], "1", "1", *fields[3:]]) + "}"
    rpcs = _rpcs(keys["rpc info"], name) if keys.get("rpc info") else None
    if not given:
        return Geo(rpcs=rpcs)
    has_grid = "map info" in given
    # GDAL looks at the coordinate system only where there is a grid.
    given.setdefault("map info", "{Arbitrary, 1, 1, 0, 0, 1, 1}" if "coordinate system string" in given else "{}")
    folder = uuid.uuid4().hex
    text = _STUB + "".join(f"{k} = {v}\n" for k, v in given.items())
    with (
        gdal.reading(name, "georeferencing in the header cannot be read"),
        MemoryFile(_PIXELS, dirname=folder, filename="a.img") as image,
        MemoryFile(text.encode(), dirname=folder, filename="a.hdr"),
        rasterio.open(image.name, driver="ENVI") as source,
    ):
        corner = source.transform @ Affine.translation(-shift[0], -shift[1])
        named = "coordinate system string" in given or (has_grid and not arbitrary)
        has_grid = has_grid or ("pixel size" in given and not corner.is_identity)
        return Geo(
            crs=wkt(source.crs) if named else None,
            # Adding 0.0 turns GDAL's negative zeros into zeros.
            transform=tuple(c + 0.0 for c in corner[:6]) if has_grid else None,
            gcps=gcps(source),
            gcps_crs=wkt(source.gcps[1]) if source.gcps[0] else None,
            rpcs=rpcs,
        )


def from_sidecar(data: str) -> Geo:
    """Control points that GDAL keeps in ``.aux.xml`` because an ENVI header has no room for them."""
    if not os.path.exists(data + ".aux.xml"):
        return Geo()
    with gdal.reading(data, "its .aux.xml cannot be read"), rasterio.open(data) as source:
        return Geo(gcps=gcps(source), gcps_crs=wkt(source.gcps[1]) if source.gcps[0] else None)


def gcps(source: rasterio.DatasetReader) -> tuple[tuple[object, ...], ...]:
    """The control points of a GDAL dataset as `Geo` holds them."""
    return tuple((p.row, p.col, p.x, p.y, p.z or 0.0, p.id, p.info) for p in source.gcps[0])


def wkt(crs: CRS | None) -> str | None:
    """WKT2 of a CRS, or ``None``."""
    return crs.to_wkt(version="WKT2_2019") if crs else None


def to_header(geo: Geo, name: str) -> dict[str, str]:
    """Header keys for a grid and RPCs, written by GDAL and read back to be sure of them.

    Raises
    ------
    UsageError
        The grid is sheared, or rotated with pixels that are not square, which an ENVI header cannot say.
    """
    keys: dict[str, str] = {}
    if geo.rpcs:
        keys["rpc info"] = _rpc_info(geo.rpcs)
    if not geo.transform and not geo.crs:
        return keys
    with tempfile.TemporaryDirectory() as folder:
        image = os.path.join(folder, "a.img")
        profile = {"driver": "ENVI", "width": 1, "height": 1, "count": 1, "dtype": "uint8"}
        with gdal.messages(), rasterio.open(image, "w", **profile) as target:
            target.transform = Affine(*(geo.transform or (1, 0, 0, 0, -1, 0)))
            if geo.crs:
                target.crs = CRS.from_wkt(geo.crs)
        written = header.read(os.path.join(folder, "a.hdr")).keys()
    keys |= {k: written[k] for k in ("map info", "projection info", "coordinate system string") if k in written}
    if not geo.crs:
        keys.pop("coordinate system string", None)
    if geo.transform:
        keys["map info"] = _all_digits(keys["map info"], geo.transform)
    else:
        keys.pop("map info")
    back = from_header(keys, name)
    if geo.transform and not _same(back.transform, geo.transform):
        raise UsageError(
            f"{name}: ENVI headers hold no sheared grids, nor rotated ones of oblong pixels; choose --of GTiff"
        )
    if geo.crs and (back.crs is None or CRS.from_wkt(back.crs) != CRS.from_wkt(geo.crs)):
        warnings.warn(
            f"{name}: ENVI keeps the coordinate system only in its ESRI form; GTiff keeps all of it",
            MetadataWarning,
            stacklevel=2,
        )
    return keys


def _all_digits(map_info: str, transform: tuple[float, ...]) -> str:
    """GDAL writes 15 digits; doubles can need 17."""
    a, b, c, d, e, f = transform
    fields = split_list(map_info)
    fields[3:5] = repr(c), repr(f)
    if b == d == 0:
        fields[5:7] = repr(abs(a)), repr(abs(e))
    return "{" + ", ".join(fields) + "}"


def _same(found: tuple[float, ...] | None, wanted: tuple[float, ...]) -> bool:
    scale = max(abs(wanted[i]) for i in (0, 1, 3, 4))
    return found is not None and all(
        abs(a - b) <= 1e-9 * (scale if i % 3 < 2 else max(scale, abs(b)))
        for i, (a, b) in enumerate(zip(found, wanted, strict=True))
    )


def to_sidecar(geo: Geo) -> bytes:
    """The ``.aux.xml`` that holds control points and RPCs for GDAL, as GDAL writes it."""
    from rasterio.control import GroundControlPoint

    with tempfile.TemporaryDirectory() as folder:
        image = os.path.join(folder, "a.img")
        profile = {"driver": "ENVI", "width": 1, "height": 1, "count": 1, "dtype": "uint8"}
        with gdal.messages(), rasterio.Env(GDAL_PAM_ENABLED="YES"), rasterio.open(image, "w", **profile) as target:
            points = [GroundControlPoint(*p[:5], id=p[5], info=p[6]) for p in geo.gcps]
            if points:
                target.gcps = points, CRS.from_wkt(geo.gcps_crs) if geo.gcps_crs else CRS()
            if geo.rpcs:
                target.update_tags(ns="RPC", **geo.rpcs)
        with open(image + ".aux.xml", "rb") as file:
            return file.read()


def _rpcs(text: str, name: str) -> dict[str, str] | None:
    """RPC tags from ``rpc info``; GDAL itself would read them only where there is no ``map info``."""
    values = split_list(text)
    try:
        numbers = len(values) >= 90 and [float(v) for v in values[:90]]
    except ValueError:
        numbers = False
    if not numbers:
        warnings.warn(f"{name}: 'rpc info' is not understood; not used", MetadataWarning, stacklevel=3)
        return None
    lists = {k: " ".join(values[i : i + 20]) for k, i in zip(_RPC_LISTS, range(10, 90, 20), strict=True)}
    return dict(zip(_RPC_SCALARS, values, strict=False)) | lists | dict(zip(_RPC_TAIL, values[90:93], strict=False))


def _rpc_info(rpcs: Mapping[str, str]) -> str:
    """93 numbers, four to a line as ENVI writes them (GDAL loses the end of very long lines), without units."""
    values = [rpcs[k] for k in _RPC_SCALARS]
    for key in _RPC_LISTS:
        values += rpcs[key].split()
    # The last three: row and column offset of this image in the modelled one, and the emulation flag.
    values += [rpcs.get(key, "0") for key in _RPC_TAIL]
    numbers = [repr(float(v.split()[0])) for v in values]
    return "{\n" + ",\n".join(", ".join(numbers[i : i + 4]) for i in range(0, len(numbers), 4)) + "}"
