"""Rasters GDAL reads: GeoTIFF, BigTIFF, COG, JP2, VRT, EHdr and whatever else its drivers know."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.io import MemoryFile
from rasterio.windows import Window as GdalWindow

from ..bands import from_envi, from_gtiff
from ..cube import Cube, Geo, Window
from ..errors import MetadataWarning, UnsupportedError
from . import gdal, georef, nodata, sidecars, tiffcheck

# Domains GDAL makes up itself, or which describe the container rather than the scene.
_DERIVED = {"IMAGE_STRUCTURE", "DERIVED_SUBDATASETS", "SUBDATASETS", "RPC", "LocationInfo", "TIFF"}
_RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


def open_raster(name: str, dataset: str = "", *, allow_large: bool = False) -> Cube:
    """Open a raster through GDAL; `name` may be a path or any GDAL name, `dataset` GDAL's name of a part of it.

    With `allow_large` its header may announce far more than the file holds.

    Raises
    ------
    ReadError
        GDAL cannot open it, or parts of it lie beyond the end of the file.
    UnsupportedError
        A container without pixels of its own, several pages, complex integers of 32 bits, paletted or mixed pixels.
    SceneTooLargeError
        The header announces absurdly more than the file can hold, and `allow_large` does not say that it may.
    """
    with gdal.environment(), gdal.reading(name, "cannot be opened"):
        source = rasterio.open(dataset or name)
        try:
            _refuse(name, source)
            tiffcheck.check(name, source, allow_large=allow_large)
            return _describe(name, source)
        except BaseException:
            source.close()
            raise


def _describe(name: str, source: rasterio.DatasetReader) -> Cube:
    count = source.count
    structure = source.tags(ns="IMAGE_STRUCTURE")
    stored = source.dtypes[0]
    dtype = "complex64" if stored == "complex_int16" else stored
    own = tags(source, 0)
    band_tags = tuple(tags(source, i) for i in source.indexes)
    descriptions = tuple(source.descriptions)
    scale, offset, files = tuple(source.scales), tuple(source.offsets), tuple(source.files)
    side: sidecars.Sidecar | None = None
    if source.driver == "ENVI":  # inside an archive or another virtual file system
        keys = {" ".join(k.replace("_", " ").lower().split()): v for k, v in own.get("ENVI", {}).items()}
        bands = from_envi(keys, count, name)
        descriptions = bands.names or (None,) * count
    else:
        bands = from_gtiff(own, band_tags, descriptions, name)
        if not bands.wavelength:
            side = sidecars.find(name, (count, *source.shape), bands)
    if side:
        bands, files = side.bands, (*files, side.path)
        if all(s == 1 for s in scale) and not any(offset):
            scale, offset = side.scale or scale, side.offset or offset
    roles = tuple("alpha" if c is ColorInterp.alpha else "" for c in source.colorinterp)
    if any(roles):
        bands = replace(bands, roles=roles)
    mask = _mask_kind(source, any(roles))
    lock = threading.Lock()
    identity = source.transform.is_identity
    return Cube(
        name=name,
        format=source.driver,
        shape=(count, source.height, source.width),
        dtype=dtype,
        bands=bands,
        geo=Geo(
            crs=georef.wkt(source.crs),
            transform=None if identity else tuple(source.transform[:6]),
            gcps=georef.gcps(source),
            gcps_crs=georef.wkt(source.gcps[1]) if source.gcps[0] else None,
            rpcs=dict(source.tags(ns="RPC")) or None,
            area_or_point=own.get("", {}).get("AREA_OR_POINT", ""),
        ),
        nodata=_nodata(name, source, dtype),
        scale=scale,
        offset=offset,
        read_raw=_reader(name, source, lock),
        read_mask=_mask_reader(name, source, lock) if mask else None,
        tags=own,
        band_tags=band_tags,
        layout={
            "driver": source.driver,
            "interleave": structure.get("INTERLEAVE", "").lower(),
            "block": tuple(source.block_shapes[0]),
            "compress": structure.get("COMPRESSION", "").upper(),
            "predictor": structure.get("PREDICTOR", ""),
            "nbits": source.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", ""),
            "rgb": tuple(source.colorinterp[:3]) == _RGB,
            "colorinterp": tuple(c.name for c in source.colorinterp),
            "descriptions": descriptions,
            "units": tuple(source.units),
            "mask": mask,
            "files": files,
            "spectrum": side.path if side else "",
            **({"stored": stored} if stored != dtype else {}),
        },
        on_close=source.close,
    )


def tags(source: rasterio.DatasetReader, band: int) -> dict[str, dict[str, str]]:
    """Tags of a band, or with 0 of the dataset, by namespace; without what GDAL makes up."""
    source.tags(ns="IMAGERY")  # only now GDAL reads a product's side files and can list all domains
    found = {ns: dict(source.tags(band, ns=ns)) for ns in ["", *source.tag_namespaces(band)] if ns not in _DERIVED}
    return {ns: items for ns, items in found.items() if items}


def _refuse(name: str, source: rasterio.DatasetReader) -> None:
    pages = source.subdatasets
    if source.count == 0:
        inside = f"; it holds {', '.join(pages[:3])}{' ...' if len(pages) > 3 else ''}" if pages else ""
        raise UnsupportedError(f"{name}: a {source.driver} container without pixels of its own{inside}")
    if source.driver == "GTiff" and len(pages) > 1:
        raise UnsupportedError(
            f"{name}: a TIFF of {len(pages)} pages inside an archive; unpack it, or name one page: {pages[0]}"
        )
    if "complex64" in source.dtypes and _complex_int32(source):
        raise UnsupportedError(
            f"{name}: complex integers of 32 bits cannot be written back; convert it: gdal_translate -ot CFloat64"
        )
    if len(set(source.dtypes)) > 1:
        raise UnsupportedError(f"{name}: bands of different types ({', '.join(sorted(set(source.dtypes)))})")
    bits = source.tags(1, ns="IMAGE_STRUCTURE").get("NBITS")
    if ColorInterp.palette in source.colorinterp and bits != "1":
        raise UnsupportedError(f"{name}: a colour table turns its pixels into class numbers, not measurements")


def _complex_int32(source: rasterio.DatasetReader) -> bool:
    """rasterio calls them complex64, as it calls complex floats; the scene as a VRT has GDAL's own word for it."""
    with MemoryFile(ext=".vrt") as memory:
        rasterio.shutil.copy(source, memory.name, driver="VRT")
        return b'dataType="CInt32"' in memory.read()


def _mask_kind(source: rasterio.DatasetReader, alpha: bool) -> str:
    """``alpha``, ``dataset``, ``band``, ``tag`` (``NODATA_VALUES``), or ``""`` where nodata alone says everything."""
    plain = ([MaskFlags.nodata], [MaskFlags.all_valid])
    if alpha:
        return "alpha"
    if all(flags in plain for flags in source.mask_flag_enums):
        return ""
    if all(MaskFlags.nodata in flags for flags in source.mask_flag_enums):
        return "tag"
    return "dataset" if all(MaskFlags.per_dataset in flags for flags in source.mask_flag_enums) else "band"


def _nodata(name: str, source: rasterio.DatasetReader, dtype: str) -> tuple[float | None, ...]:
    out = []
    for value in source.nodatavals:
        fitted = None if value is None else nodata.fit(value, dtype)
        if value is not None and fitted is None:
            warnings.warn(f"{name}: nodata {value:g} is no {dtype}; not used", MetadataWarning, stacklevel=4)
        out.append(fitted)
    return tuple(out)


def _window(window: Window) -> GdalWindow:
    rows, cols = window.shape
    return GdalWindow(window.col_start, window.row_start, cols, rows)


def _reader(
    name: str, source: rasterio.DatasetReader, lock: threading.Lock
) -> Callable[[Window, Sequence[int]], NDArray[Any]]:
    def read_raw(window: Window, bands: Sequence[int]) -> NDArray[Any]:
        # A GDAL dataset serves one thread at a time.
        with lock, gdal.environment(), gdal.reading(name, "damaged, its pixels cannot be read"):
            pixels: NDArray[Any] = source.read([b + 1 for b in bands], window=_window(window))
            return pixels

    return read_raw


def _mask_reader(
    name: str, source: rasterio.DatasetReader, lock: threading.Lock
) -> Callable[[Window, Sequence[int]], NDArray[np.bool_]]:
    alphas = [i for i, c in enumerate(source.colorinterp) if c is ColorInterp.alpha]

    def read_mask(window: Window, bands: Sequence[int]) -> NDArray[np.bool_]:
        with lock, gdal.environment(), gdal.reading(name, "damaged, its mask cannot be read"):
            mask: NDArray[np.bool_] = source.read_masks([b + 1 for b in bands], window=_window(window)) != 0
            # GDAL's masks know of an alpha band only where it is the second of two bands or the fourth of four.
            if alphas:
                mask &= (source.read([a + 1 for a in alphas], window=_window(window)) != 0).all(axis=0)
        mask[[band in alphas for band in bands]] = True
        return mask

    return read_mask
