"""Little scenes for the tests, written with rasterio or as raw bytes, never with the package's own writers."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

from hsidenoise.cube import Cube, Window
from hsidenoise.io import create_cube, open_cube

ENVI_CODES = {
    "uint8": 1, "int16": 2, "int32": 3, "float32": 4, "float64": 5, "uint16": 12, "uint32": 13, "int64": 14,
    "uint64": 15, "complex64": 6, "complex128": 9,
}  # fmt: skip
AXES = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (1, 2, 0)}


def pixels(shape: tuple[int, int, int] = (5, 8, 10), dtype: str = "int16", seed: int = 0) -> NDArray[Any]:
    """Random pixels (bands, rows, cols) over most of the type's range."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(0, 1e3, shape).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


def write_envi(
    path: Path,
    cube: NDArray[Any],
    *,
    interleave: str = "bsq",
    byte_order: int = 0,
    offset: int = 0,
    keys: Mapping[str, str] | None = None,
    header: str | bytes | None = None,
    header_path: Path | None = None,
) -> Path:
    """An ENVI file from raw bytes; `header` replaces the whole header text. Returns the data file."""
    order = "><"[byte_order == 0]
    body = np.ascontiguousarray(cube.transpose(AXES[interleave]), cube.dtype.newbyteorder(order)).tobytes()
    path.write_bytes(b"\xa5" * offset + body)
    if header is None:
        header = envi_header(cube, interleave, byte_order, offset) + "".join(
            f"{k} = {v}\n" for k, v in (keys or {}).items()
        )
    where = header_path or path.with_suffix(".hdr")
    where.write_bytes(header if isinstance(header, bytes) else header.encode())
    return path


def envi_header(cube: NDArray[Any], interleave: str = "bsq", byte_order: int = 0, offset: int = 0) -> str:
    """The keys every header has."""
    bands, rows, cols = cube.shape
    return (
        f"ENVI\nsamples = {cols}\nlines = {rows}\nbands = {bands}\nheader offset = {offset}\n"
        f"file type = ENVI Standard\ndata type = {ENVI_CODES[cube.dtype.name]}\ninterleave = {interleave}\n"
        f"byte order = {byte_order}\n"
    )


def header_keys(path: Path) -> dict[str, str]:
    """An independent, naive reading of a header: good enough for headers without comments."""
    keys: dict[str, str] = {}
    text = path.read_text(encoding="latin-1").replace("\r\n", "\n").removeprefix("ENVI\n")
    while "=" in text:
        key, _, text = text.partition("=")
        text = text.lstrip(" ")
        end = "}" if text.startswith("{") else "\n"
        value, _, text = text.partition(end)
        keys[key.strip()] = value + end if end == "}" else value
        text = text.removeprefix("\n")
    return keys


def write_tiff(path: Path, cube: NDArray[Any], *, tags: Mapping[str, Any] | None = None, **profile: Any) -> Path:
    """A GeoTIFF with UTM georeferencing unless told otherwise; `tags` by namespace."""
    count, height, width = cube.shape
    profile = {
        "driver": "GTiff", "crs": "EPSG:32633", "transform": rasterio.Affine(30, 0, 500000, 0, -30, 4000000),
        "count": count, "height": height, "width": width, "dtype": cube.dtype.name,
    } | profile  # fmt: skip
    with quiet(), rasterio.open(path, "w", **profile) as target:
        target.write(cube)
        for namespace, items in (tags or {}).items():
            target.update_tags(ns=namespace, **items)
    return path


class quiet(warnings.catch_warnings):
    """Rasterio's remark that a test file has no georeferencing is no failure of the test."""

    def __enter__(self) -> None:  # type: ignore[override]
        super().__enter__()
        warnings.simplefilter("ignore", NotGeoreferencedWarning)


def copy(source: Path | str, target: Path | str, *, step: int = 3, **options: Any) -> str:
    """Raw pixels through `open_cube` and `create_cube`, a few rows at a time; returns the path written."""
    with open_cube(source) as cube, create_cube(target, cube, **options) as writer:
        for start in range(0, cube.shape[1], step):
            block = cube.raw(Window(start, min(start + step, cube.shape[1]), 0, cube.shape[2]), options.get("bands"))
            writer.write(start, block.astype(writer.dtype))
    return writer.path


def facts(cube: Cube) -> dict[str, Any]:
    """Everything a copy must keep, comparable; NaN equals NaN."""
    return {
        "shape": cube.shape, "dtype": cube.dtype, "bands": repr(cube.bands), "geo": repr(cube.geo),
        "nodata": repr(cube.nodata), "scale": cube.scale, "offset": cube.offset,
        "tags": {ns: dict(items) for ns, items in cube.tags.items()},
        "band_tags": [{ns: dict(items) for ns, items in band.items()} for band in cube.band_tags],
        "pixels": cube.raw().tobytes(),
    }  # fmt: skip


def everything(path: Path) -> dict[str, Any]:
    """What rasterio, not the package, finds in a file."""
    with quiet(), rasterio.open(path) as d:
        derived = ("IMAGE_STRUCTURE", "DERIVED_SUBDATASETS", "HSIDENOISE")
        return {
            "crs": d.crs and d.crs.to_wkt(), "transform": d.transform, "gcps": [p.asdict() for p in d.gcps[0]],
            "rpcs": d.tags(ns="RPC"), "nodata": repr(d.nodatavals), "dtypes": d.dtypes, "scales": d.scales,
            "offsets": d.offsets, "units": d.units, "descriptions": d.descriptions, "colours": d.colorinterp,
            "flags": d.mask_flag_enums, "mask": d.dataset_mask().tobytes(), "pixels": d.read().tobytes(),
            "tags": {ns: d.tags(ns=ns) for ns in ["", *d.tag_namespaces()] if ns not in derived},
            "bands": [{ns: d.tags(i, ns=ns) for ns in ["", *d.tag_namespaces(i)]} for i in d.indexes],
        }  # fmt: skip
