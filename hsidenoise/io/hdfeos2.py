"""Grids of HDF-EOS2 files (MODIS, VIIRS tiles): coordinate system and corners from the text ``StructMetadata.0``.

Only what is certain is used: projections that GCTP numbers need no guess for, and grids of the data set's own size.
Source: HDF-EOS Library User's Guide, volume 1 (grid structure); GCTP's projection parameters.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

from rasterio.crs import CRS

from ..cube import Geo
from ..errors import MetadataWarning
from . import gdal, georef

_GRID = re.compile(r"GROUP=(GRID_\d+)\s(.*?)END_GROUP=\1", re.DOTALL)


def geo(name: str, attributes: Mapping[str, Any], field: str, rows: int, cols: int) -> Geo:
    """The grid that holds the data set `field`; an empty `Geo` where there is none or it is not understood.

    Parameters
    ----------
    name
        Of the file, for the warning.
    attributes
        Of the file; long metadata goes on in ``StructMetadata.1`` and so forth.
    """
    parts = sorted((k for k in attributes if re.fullmatch(r"StructMetadata\.\d+", k)), key=lambda k: int(k[15:]))
    text = "".join(str(attributes[k]) for k in parts)
    for _, grid in _GRID.findall(text):
        if f'DataFieldName="{field}"' not in grid:
            continue
        try:
            return _geo(dict(re.findall(r"^\s*(\w+)=(.*?)\s*$", grid, re.MULTILINE)), rows, cols)
        except (KeyError, ValueError, IndexError, *gdal.FAILURES) as error:
            why = f"its HDF-EOS grid is not understood ({error}); no georeferencing"
            warnings.warn(f"{name}: {why}", MetadataWarning, stacklevel=6)
    return Geo()


def _geo(keys: Mapping[str, str], rows: int, cols: int) -> Geo:
    if (int(keys["YDim"]), int(keys["XDim"])) != (rows, cols):
        raise ValueError(f"{keys['YDim']} x {keys['XDim']} for {rows} x {cols} pixels")
    if keys.get("GridOrigin", "HDFE_GD_UL") != "HDFE_GD_UL":
        raise ValueError(keys["GridOrigin"])
    left, top = _numbers(keys["UpperLeftPointMtrs"])
    right, bottom = _numbers(keys["LowerRightMtrs"])
    projection = keys["Projection"]
    if projection == "GCTP_GEO":
        left, top, right, bottom = map(_degrees, (left, top, right, bottom))
        crs = CRS.from_epsg(4326)
    elif projection == "GCTP_SNSOID":
        parameters = _numbers(keys["ProjParams"])
        crs = CRS.from_dict(
            proj="sinu", R=parameters[0], lon_0=_degrees(parameters[4]), x_0=parameters[6], y_0=parameters[7], units="m"
        )
    elif projection == "GCTP_UTM" and keys.get("SphereCode") == "12":
        zone = int(keys["ZoneCode"])
        crs = CRS.from_epsg((32600 if zone > 0 else 32700) + abs(zone))
    else:
        raise ValueError(projection)
    transform = ((right - left) / cols, 0.0, left, 0.0, (bottom - top) / rows, top)
    return Geo(crs=georef.wkt(crs), transform=transform)


def _numbers(text: str) -> list[float]:
    return [float(item) for item in text.strip("()").split(",")]


def _degrees(packed: float) -> float:
    """GCTP packs angles as DDDMMMSSS.SS."""
    size = abs(packed)
    value = size // 1e6 + size % 1e6 // 1e3 / 60 + size % 1e3 / 3600
    return -value if packed < 0 else value
