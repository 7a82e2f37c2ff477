"""What a scene is, and what this installation is: JSON-ready facts for ``info``."""

from __future__ import annotations

import math
import os
import platform
import re
import sys
from importlib import metadata
from typing import Any

from .cube import Cube, Window
from .settings import ReadOptions

_BLOCK = 32 * 2**20  # bytes of float32 read at a time for the noise estimate
_PACKAGES = ("torch", "numpy", "scipy", "rasterio", "h5py", "netCDF4", "tifffile", "spectral", "safetensors", "pyhdf")


def describe(
    name: str | os.PathLike[str], options: ReadOptions | None = None, *, noise: bool = False, **changes: Any
) -> dict[str, Any]:
    """Describe a scene without reading its pixels, unless `noise` asks for them.

    Parameters
    ----------
    name
        Any name `hsidenoise.io.open_cube` accepts.
    options
        See `ReadOptions`; `changes` are applied to it.
    noise
        Also estimate the standard deviation of the noise of each band, in raw units (reads the whole scene).

    Returns
    -------
    dict
        JSON-ready; unknown things are ``None`` or empty lists, wavelengths and widths are in nm.

    Raises
    ------
    ReadError, UnsupportedError, SceneTooLargeError
        See `hsidenoise.io.open_cube`.
    """
    from .io import gdal_env, open_cube

    with gdal_env(), open_cube(name, options, **changes) as cube:
        found = _describe(cube)
        if noise:
            found["noise"] = _noise(cube)
        return found


def _describe(cube: Cube) -> dict[str, Any]:
    import numpy as np

    size = math.prod(cube.shape) * np.dtype(cube.dtype).itemsize
    cube = cube.layout.get("complex", cube)
    layout = cube.layout
    return {
        "name": cube.name,
        "format": cube.format,
        "bands": cube.shape[0],
        "rows": cube.shape[1],
        "cols": cube.shape[2],
        "dtype": layout.get("stored", cube.dtype),
        "bytes": size,
        "files": [str(f) for f in layout.get("files", ())],
        "interleave": layout.get("interleave", ""),
        "compress": layout.get("compress", ""),
        "byte_order": {0: "little", 1: "big"}.get(layout.get("byte_order", -1), ""),
        "nodata": _same([_plain(v) for v in cube.nodata]),
        "scale": _same(list(cube.scale)),
        "offset": _same(list(cube.offset)),
        "mask": layout.get("mask", ""),
        "spectrum": _spectrum(cube),
        "georeferencing": _georeferencing(cube),
        "tags": {ns or "default": len(items) for ns, items in cube.tags.items()},
        "band_tags": sorted({ns or "default" for band in cube.band_tags for ns in band}),
    }


def _spectrum(cube: Cube) -> dict[str, Any]:
    bands = cube.bands
    known = [w for w in bands.wavelength if math.isfinite(w)]
    widths = [w for w in bands.fwhm if math.isfinite(w)]
    return {
        "wavelengths": len(known),
        "first_nm": min(known, default=None),
        "last_nm": max(known, default=None),
        "fwhm_nm": [min(widths), max(widths)] if widths else [],
        "bad_bands": [i for i, good in enumerate(bands.good, 1) if not good],
        "alpha_bands": [i for i, role in enumerate(bands.roles, 1) if role == "alpha"],
        "names": sum(bool(n) for n in bands.names),
        "groups": [_runs(sorted(group)) for group in bands.groups()],
    }


def _runs(group: list[int]) -> str:
    """One-based bands in the grammar of ``--bidx``: ``1,5..40``."""
    parts: list[list[int]] = []
    for band in group:
        if parts and band == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], band]
        else:
            parts.append([band, band])
    return ",".join(str(a + 1) if a == b else f"{a + 1}..{b + 1}" for a, b in parts)


def _georeferencing(cube: Cube) -> dict[str, Any]:
    geo = cube.geo
    return {
        "crs": _crs_name(geo.crs),
        "transform": list(geo.transform) if geo.transform else None,
        "gcps": len(geo.gcps),
        "gcps_crs": _crs_name(geo.gcps_crs),
        "rpcs": bool(geo.rpcs),
        "area_or_point": geo.area_or_point,
    }


def _crs_name(wkt: str | None) -> str | None:
    """The name at the head of a WKT2, and the EPSG code at its end where it has one."""
    if not wkt:
        return None
    names = wkt.split('"')
    name = names[1] if len(names) > 1 else wkt
    if name.lower() in ("unnamed", "unknown") and 'CONVERSION["' in wkt:  # as ENVI's map info leaves it
        conversion = wkt.partition('CONVERSION["')[2].partition('"')[0]
        name = f"{names[3]} / {conversion}"
    code = re.search(r'ID\["EPSG",(\d+)\]\]$', wkt)  # two brackets: of the whole system, not of a part of it
    return f"{name} (EPSG:{code[1]})" if code else name


def _plain(value: float | None) -> float | str | None:
    """JSON has no NaN."""
    return value if value is None or math.isfinite(value) else str(value)


def _same(values: list[Any]) -> Any:
    """One value where all bands agree, the list where they do not."""
    return values[0] if values and all(v == values[0] for v in values) else values


def _noise(cube: Cube) -> dict[str, Any]:
    from .noise import NoiseAccumulator

    bands, rows, cols = cube.shape
    accumulator = NoiseAccumulator(bands)
    step = max(1, _BLOCK // (bands * cols * 4))
    for start in range(0, rows, step):
        accumulator.add(*cube.read(Window(start, min(start + step, rows), 0, cols)))
    sigma = [float(s) for s in accumulator.sigma()]
    known = sorted(s for s in sigma if math.isfinite(s))
    return {
        "sigma": [s if math.isfinite(s) else None for s in sigma],
        "median": known[len(known) // 2] if known else None,
        "max": known[-1] if known else None,
    }


def system() -> dict[str, Any]:
    """Versions, threads, devices and weights: what a bug report needs."""
    import rasterio
    import torch

    from . import __version__
    from .model.weights import shipped

    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "hsidenoise": __version__,
        "python": sys.version.split()[0],
        **{package: _version(package) for package in _PACKAGES},
        "gdal": rasterio.__gdal_version__,
        "platform": platform.platform(),
        "cpu_threads": torch.get_num_threads(),
        "cuda": devices,
        "weights": sorted(shipped()),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
