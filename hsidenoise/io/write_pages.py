"""A TIFF of pages written back as one: the same pages and tags, other pixels."""

from __future__ import annotations

import os
import re
import struct
import tempfile
from collections.abc import Mapping
from typing import IO, Any
from xml.sax.saxutils import escape

import numpy as np
import tifffile
from numpy.typing import NDArray

from ..errors import WriteError
from . import gdal, slots
from .planes import Planes

_CLASSIC = 2**32 - 2**25  # bytes of pixels that leave room for directories in a file of 32-bit offsets
_LOSSLESS = {5: "LZW", 8: "DEFLATE", 32773: "PACKBITS", 32946: "DEFLATE", 34925: "LZMA", 50000: "ZSTD"}
_GDAL_METADATA, _DESCRIPTION = 42112, 270
_STALE = re.compile(r'[ \t]*<Item [^>]*(?:domain="HSIDENOISE"|name="STATISTICS_)[^>]*>[^<]*</Item>\n?')
# What describes stored pixels, tables of lossy codecs and other directories; the writer makes or leaves out these.
_OWN = {254, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 282, 283, 284, 296, 317, 320, 322, 323, 324, 325, 330,
        338, 339, 347, 400, 512, 513, 514, 530, 531, 532, 32997, 32998, 34665, 34853, 40965}  # fmt: skip
_POINTERS = (13, 18)
# Where one directory stood for all pages, what it says is said once.
_FIRST = {_DESCRIPTION, _GDAL_METADATA, 50838, 50839}


class PagesCopy:
    """See `slots.Copy`. Rows of all bands arrive together, pages are written singly: between lies a nameless file."""

    def __init__(self, path: str, name: str, planes: Planes, slot: slots.Slot, rows: int) -> None:
        self._path, self._name, self._planes = path, name, planes
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=os.path.dirname(path) or ".")  # noqa: SIM115
        size = int(np.prod(planes.shape, dtype=np.int64)) * planes.dtype.itemsize
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(self._file.fileno(), 0, size)  # a full disk under a map would end the process
            else:
                self._file.truncate(size)
            if slot.fixed:
                self._fill()
        except BaseException:
            self._file.close()
            raise
        self._copy = slots.SlotCopy(lambda _: self._map(), [slot], rows, 1, self._finish)

    def _map(self) -> NDArray[Any]:
        return np.memmap(self._file, self._planes.dtype, "r+", 0, self._planes.shape)

    def _fill(self) -> None:
        """Pages beyond the cube stay as they are."""
        for index in np.ndindex(self._planes.shape[:-2]):
            self._map()[index] = self._planes[(*index, slice(None), slice(None))]

    def write(self, row_start: int, block: NDArray[Any]) -> None:
        """See `slots.Copy`."""
        self._copy.write(row_start, block)

    def close(self, provenance: Mapping[str, str] | None) -> None:
        """See `slots.Copy`."""
        self._copy.close(provenance)

    def _finish(self, provenance: Mapping[str, str] | None) -> None:
        with self._file:
            if provenance is None:
                return
            try:
                self._write(provenance)
            except (LookupError, ArithmeticError, RuntimeError, struct.error, tifffile.TiffFileError) as error:
                raise WriteError(
                    f"{self._name}: tags of its pages are damaged and cannot be copied ({gdal.cause(error)}); "
                    "choose --of GTiff"
                ) from error

    def _write(self, provenance: Mapping[str, str]) -> None:
        pixels = self._map()
        storage: dict[str, Any] = {}
        with tifffile.TiffFile(self._name) as tif:
            large = tif.is_bigtiff or pixels.nbytes > _CLASSIC
            order = tif.byteorder
            with tifffile.TiffWriter(self._path, bigtiff=large, byteorder=order, ome=False, imagej=False) as target:
                for number, index in enumerate(np.ndindex(self._planes.shape[:-2])):
                    tif.filehandle.seek(self._planes.directories[number])
                    page = tifffile.TiffPage(tif, index=number)
                    data = pixels[index].astype(self._planes.dtype.newbyteorder(order))
                    hidden = self._planes.shared and number
                    tags = _tags(tif, page, provenance if not number else {}, skip=_FIRST if hidden else set())
                    storage = storage or _storage(page)  # one way for all, or readers do not see a stack
                    target.write(data, **storage, **_resolution(page), extratags=tags, metadata=None, software=False)


def _storage(page: Any) -> dict[str, Any]:
    """How the pixels of a page are stored, as arguments of tifffile's writer."""
    photometric = int(page.photometric) if 262 in page.tags and page.photometric in (0, 1) else 1
    found: dict[str, Any] = {"photometric": photometric}
    if page.is_tiled:
        found["tile"] = (page.tilelength, page.tilewidth)
    elif 0 < page.rowsperstrip < page.imagelength:
        found["rowsperstrip"] = page.rowsperstrip
    if page.compression == 1:
        return found
    # A lossy codec would put its own noise into what was just denoised.
    found["compression"] = page.compression if _available("COMPRESSORS", page.compression) else 8
    fits = {2: "iu", 3: "f"}.get(int(page.predictor), "")
    if page.dtype.kind in fits and _LOSSLESS.get(int(page.compression)) and _available("PREDICTORS", page.predictor):
        found["predictor"] = int(page.predictor)
    return found


def _resolution(page: Any) -> dict[str, Any]:
    """What else of a page the writer wants as arguments."""
    found: dict[str, Any] = {}
    if 254 in page.tags:
        found["subfiletype"] = int(page.tags[254].value)
    if all(code in page.tags and page.tags[code].dtype == 5 and page.tags[code].count == 1 for code in (282, 283)):
        found["resolution"] = (page.tags[282].value, page.tags[283].value)
        found["resolutionunit"] = int(page.tags[296].value) if 296 in page.tags else 2
    return found


def _available(table: str, code: int) -> bool:
    """Whether tifffile can write this; for some codecs it needs imagecodecs."""
    if table == "COMPRESSORS" and int(code) not in _LOSSLESS:
        return False
    try:
        return getattr(tifffile.TIFF, table)[code] is not None
    except (KeyError, ValueError, ImportError):
        return False


def _tags(tif: Any, page: Any, provenance: Mapping[str, str], skip: set[int]) -> list[tuple[Any, ...]]:
    """The tags of a page that do not describe how it is stored, as their bytes."""
    found = []
    for tag in page.tags:
        if tag.code in _OWN or tag.code in skip or tag.dtype in _POINTERS:
            continue
        tif.filehandle.seek(tag.valueoffset)
        value = tif.filehandle.read(tag.valuebytecount)
        if tag.code == _DESCRIPTION and value.startswith(b'{"shape"'):
            value = value.replace(b'"truncated": true', b'"truncated": false')
        if tag.code == _GDAL_METADATA:
            value = _metadata(value, provenance)
        found.append((tag.code, int(tag.dtype), tag.count, value, False))
    if provenance and _GDAL_METADATA not in page.tags:
        found.append((_GDAL_METADATA, 2, 0, _metadata(b"<GDALMetadata>\n</GDALMetadata>\n", provenance), False))
    return found


def _metadata(xml: bytes, provenance: Mapping[str, str]) -> bytes:
    """GDAL's items without statistics of the noisy pixels, with provenance in the namespace ``HSIDENOISE``."""
    text = _STALE.sub("", xml.rstrip(b"\0").decode("utf-8", "surrogateescape"))
    items = "".join(
        f'  <Item name="{escape(k)}" domain="HSIDENOISE">{escape(" ".join(str(v).split()))}</Item>\n'
        for k, v in provenance.items()
    )
    head, end, tail = text.rpartition("</GDALMetadata>")
    return (head + items + end + tail).encode("utf-8", "surrogateescape") + b"\0" if end else xml
