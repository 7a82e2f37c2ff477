"""Is a TIFF whole, and is its size credible? Asked before any output is opened; GDAL itself only notices on reading."""

from __future__ import annotations

import math
import os

import numpy as np
import rasterio

from ..errors import ReadError, SceneTooLargeError

# No real scene shrinks further: a file that is sparse but for one block in ten thousand still stays below.
RATIO = 50_000
CREDIBLE = 2**30
_LARGEST_BLOCK = 2 * 2**30
_MOST_BLOCKS = 20_000
_SPLIT = 2_000  # rows beyond which GDAL shows a single strip as blocks of one row, of which only the first is stored


def check(name: str, source: rasterio.DatasetReader, *, sparse: bool = True, allow_large: bool = False) -> None:
    """Compare what the header announces with the file; blocks may be missing, and mean nodata, where it is `sparse`.

    Raises
    ------
    ReadError
        A strip or tile lies beyond the end of the file, or is missing.
    SceneTooLargeError
        More than 1 GiB announced and more than 50,000 times the size of the file (of a VRT: of all local files it
        names), unless `allow_large`; or single blocks above 2 GiB.
    """
    if not os.path.isfile(name):
        return
    size = os.path.getsize(name)
    itemsize = 4 if source.dtypes[0] == "complex_int16" else np.dtype(source.dtypes[0]).itemsize  # NumPy has none
    announced = math.prod((source.count, *source.shape)) * itemsize
    text = f"{source.count} bands of {source.height} x {source.width}"
    held = _vrt_bytes(source) if source.driver == "VRT" and announced > CREDIBLE else size
    if not allow_large and announced > CREDIBLE and held is not None and announced > RATIO * held:
        raise SceneTooLargeError(
            f"{name}: announces {text} pixels, {announced / 2**30:.1f} GiB, in {held} bytes; more than {RATIO} times "
            "its size is not credible; the header is damaged, or give --allow-large if most of it is really empty"
        )
    pixel = source.tags(ns="IMAGE_STRUCTURE").get("INTERLEAVE") == "PIXEL"
    block = math.prod(source.block_shapes[0]) * itemsize * (source.count if pixel else 1)
    if block > _LARGEST_BLOCK:
        raise SceneTooLargeError(
            f"{name}: one block takes {block / 2**30:.1f} GiB of memory; rewrite it in smaller tiles "
            "(gdal_translate -co TILED=YES)"
        )
    if source.driver == "GTiff":
        _blocks(name, source, size, pixel, sparse)
    elif source.driver == "EHdr":  # plain pixels, of which GDAL fills in what is missing
        bits = int(source.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", itemsize * 8))
        if size < announced // itemsize * bits // 8:
            raise ReadError(f"{name}: truncated: {size} bytes where the header announces {announced}")


def _vrt_bytes(source: rasterio.DatasetReader) -> int | None:
    """Bytes of a VRT and the files it is made of; ``None`` where some are not on this machine's disks."""
    if any(not os.path.isfile(file) for file in source.files):
        return None
    return sum(os.path.getsize(file) for file in source.files)


def _blocks(name: str, source: rasterio.DatasetReader, size: int, pixel: bool, sparse: bool) -> None:
    """Every block that is stored must end inside the file; of very many, look at an even sample and the last ones."""
    height, width = source.block_shapes[0]
    down, across = math.ceil(source.height / height), math.ceil(source.width / width)
    if height == 1 and down > _SPLIT and not source.get_tag_item("BLOCK_OFFSET_0_1", "TIFF", bidx=1):
        down = 1
    planes = 1 if pixel else source.count
    total = down * across * planes
    step = max(1, total // _MOST_BLOCKS)
    for index in {*range(0, total, step), *range(max(0, total - 100), total)}:
        band, place = divmod(index, down * across)
        row, col = divmod(place, across)
        offset = source.get_tag_item(f"BLOCK_OFFSET_{col}_{row}", "TIFF", bidx=band + 1)
        length = source.get_tag_item(f"BLOCK_SIZE_{col}_{row}", "TIFF", bidx=band + 1)
        if not sparse and not offset:
            raise ReadError(f"{name}: a block of band {band + 1} is missing")
        if offset and length and int(offset) + int(length) > size:
            raise ReadError(
                f"{name}: truncated: a block of band {band + 1} ends at byte {int(offset) + int(length)}, "
                f"the file has {size}; fetch it again"
            )
