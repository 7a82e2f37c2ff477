"""Everything decided about an output before its first byte: driver, type, nodata, options."""

from __future__ import annotations

import os
import secrets
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..cube import Cube
from ..errors import MetadataWarning, UsageError
from . import nodata as nodata_
from . import targets


class Plan(NamedTuple):
    """Everything decided about an output before its first byte."""

    path: str
    driver: str
    bands: tuple[int, ...]
    dtype: str
    nodata: tuple[float | None, ...]
    nodata_asked: bool
    co: dict[str, str]

    @property
    def header(self) -> str:
        """The header's path, for ENVI."""
        return targets.header_path(self.path)


def temporary(path: str) -> str:
    """A hidden name in the target's folder, so that the final rename stays within one file system."""
    folder, base = os.path.split(path)
    return os.path.join(folder, f".{base}.{secrets.token_hex(4)}.part")


def decide(
    path: str | os.PathLike[str], like: Cube, dtype: str, nodata: str, of: str, co: Sequence[str],
    bands: Sequence[int] | None,
) -> Plan:  # fmt: skip
    """Decide driver, data type, nodata and options; see `create_cube` for the arguments and errors."""
    from . import gdal

    driver = targets.output_driver(path, of, like)
    chosen = tuple(range(like.shape[0]) if bands is None else bands)
    try:
        kind = np.dtype(dtype or like.dtype)
    except TypeError:
        kind = np.dtype(object)
    # float16 only where the GDAL at hand read it as such (from 3.11 on), so that it can write it too.
    if kind.kind not in ("iuf" if dtype else "iufc") or (kind.name == "float16" and like.dtype != "float16"):
        raise UsageError(f"--dtype {dtype}: choose uint8, int8, uint16, int16, uint32, int32, float32 or float64")
    asked = kind.name != like.dtype or co or chosen != tuple(range(like.shape[0]))
    if driver == "copy" and not of and asked:
        driver = targets.plain_driver(path) or driver
    if driver == "ENVI" and kind.name in ("int8", "float16"):
        wider = {"int8": "int16", "float16": "float32"}[kind.name]
        raise UsageError(f"{os.fspath(path)}: ENVI has no {kind.name}; choose --dtype {wider} or --of GTiff")
    if kind.name == "float16" and driver in ("GTiff", "COG") and not gdal.writes_float16():
        raise UsageError(f"{os.fspath(path)}: this GDAL writes no float16; choose --dtype float32")
    if driver == "netCDF" and kind.name == "float16":
        raise UsageError(f"{os.fspath(path)}: netCDF has no float16; choose --dtype float32 or --of GTiff")
    if driver == "copy":
        _check_copy(os.fspath(path), like, kind, chosen, co)
    if nodata:
        values: tuple[float | None, ...] = (nodata_.override(nodata, kind.name),) * len(chosen)
    else:
        given = [like.nodata[i] for i in chosen]
        values = tuple(None if v is None else nodata_.fit(v, kind.name) for v in given)
        if any(a is not None and b is None for a, b in zip(given, values, strict=True)):
            raise UsageError(f"--dtype {kind.name}: cannot hold the nodata value; give another with --nodata")
    text = targets.data_path(os.fspath(path), driver)
    return Plan(text, driver, chosen, kind.name, values, bool(nodata), gdal.pairs(co, "co"))


def _check_copy(path: str, like: Cube, kind: np.dtype[Any], bands: Sequence[int], co: Sequence[str]) -> None:
    """A copy keeps the layout of its original, so nothing of that can be asked for."""
    if kind.name != like.dtype:
        raise UsageError(f"{path}: a copy of the input keeps its {like.dtype}; write another format for --dtype")
    if like.layout.get("spectrum"):
        text = f"{path}: a copy of the input; the wavelengths of {like.layout['spectrum']} are not written into it"
        warnings.warn(text, MetadataWarning, stacklevel=5)
    if co:
        raise UsageError(f"{path}: a copy of the input takes no --co; write another format for that")
    if bands != tuple(range(like.shape[0])):
        raise UsageError(f"{path}: a copy of the input has all its bands; write another format for some of them")
