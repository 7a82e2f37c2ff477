"""ENVI rasters: header and data file found, checked against each other, and read through a memory map.

GDAL is not asked for the pixels: it never compares the data file's size with the header (missing parts read as 0),
trusts a stale ``.aux.xml`` more than the header, and refuses headers that begin with a blank line.
"""

from __future__ import annotations

import gzip
import math
import os
import sys
import tempfile
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..bands import from_envi, split_list
from ..cube import Cube, Window
from ..errors import MetadataWarning, ReadError, SceneTooLargeError, UnsupportedError, UsageError
from . import georef, header, nodata

DTYPES = {1: "uint8", 2: "int16", 3: "int32", 4: "float32", 5: "float64", 12: "uint16", 13: "uint32", 14: "int64",
          15: "uint64", 6: "complex64", 9: "complex128"}  # fmt: skip
DATA_SUFFIXES = (".img", ".dat", ".bsq", ".bil", ".bip", ".raw", ".bin", ".hyspex", ".cube")
_ORDERS = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (1, 2, 0)}
_MOST_BANDS = 65_536  # what GDAL and TIFF can count, far beyond any spectrometer
_DEFLATE_LIMIT = 1040  # no deflate stream expands further


def header_of(data: str) -> str | None:
    """The ENVI header that belongs to a data file, ``x.img.hdr`` before ``x.hdr``; ``None`` without one."""
    stem = os.path.splitext(data)[0]
    for candidate in (data + ".hdr", data + ".HDR", stem + ".hdr", stem + ".HDR"):
        if candidate != data and os.path.isfile(candidate):
            with open(candidate, "rb") as file:
                if header.is_header(file.read(4096)):
                    return candidate
    return None


def data_of(path: str) -> str:
    """The data file that belongs to a header.

    Raises
    ------
    ReadError
        None is there, or two fit equally well.
    """
    stem = path[: -len(".hdr")]
    if os.path.isfile(stem):
        return stem
    found = [p for p in (stem + s for x in DATA_SUFFIXES for s in (x, x.upper())) if os.path.isfile(p)]
    size = announced(path)
    if not found:
        # Any other suffix will do if its size is right to the byte; a TIFF beside its own sidecar header always does.
        folder, base = os.path.split(stem)
        others = [e for e in os.scandir(folder or ".") if os.path.splitext(e.name)[0] == base and e.is_file()]
        tiffs = [e.path for e in others if e.name.lower().endswith((".tif", ".tiff"))]
        found = tiffs or [e.path for e in others if e.stat().st_size == size and not e.name.lower().endswith(".hdr")]
    if not found:
        raise ReadError(f"{path}: there is no data file beside this header ({os.path.basename(stem)}, .img, .dat ...)")
    fitting = [p for p in found if os.path.getsize(p) == size]
    if len(found) > 1 and len(fitting) != 1:
        names = ", ".join(os.path.basename(p) for p in found)
        raise ReadError(f"{path}: several data files could belong to this header ({names}); give the data file itself")
    return (fitting or found)[0]


def announced(path: str) -> int | None:
    """Bytes of data that a header announces; ``None`` where it is not understood."""
    keys = header.read(path).keys()
    try:
        shape, dtype, offset = _layout(keys, path)[:3]
    except (ReadError, SceneTooLargeError):
        return None
    return offset + math.prod(shape) * np.dtype(dtype).itemsize


def _integer(keys: Mapping[str, str], key: str, name: str, least: int) -> int:
    text = keys.get(key, "").strip("{} ")
    try:
        value = float(text)
        if value != int(value) or value < least:
            raise ValueError
    except (ValueError, OverflowError):
        said = f"says '{key} = {text}'" if text else f"lacks '{key}'"
        raise ReadError(f"{name}: the ENVI header {said}; set it to a whole number from {least} up") from None
    return int(value)


def _layout(keys: Mapping[str, str], name: str) -> tuple[tuple[int, int, int], str, int, str, int]:
    """Shape, dtype, offset, interleave and byte order; raises `ReadError` on what cannot be guessed."""
    code = _integer(keys, "data type", name, 1)
    if code not in DTYPES:
        raise ReadError(f"{name}: ENVI data type {code} is not one of {', '.join(map(str, DTYPES))}")
    bands, rows, cols = (_integer(keys, key, name, 1) for key in ("bands", "lines", "samples"))
    if bands > _MOST_BANDS:
        raise SceneTooLargeError(f"{name}: the ENVI header announces {bands} bands, more than {_MOST_BANDS} are none")
    offset = _integer(keys, "header offset", name, 0) if keys.get("header offset") else 0
    interleave = keys.get("interleave", "").strip("{} ").lower()
    if interleave and interleave not in _ORDERS:
        raise ReadError(f"{name}: 'interleave = {interleave}' in the ENVI header is none of bsq, bil, bip")
    order = _integer(keys, "byte order", name, 0) if keys.get("byte order") else -1
    if order > 1:
        raise ReadError(f"{name}: 'byte order = {order}' in the ENVI header is neither 0 (little) nor 1 (big endian)")
    return (bands, rows, cols), DTYPES[code], offset, interleave, order


def open_envi(name: str, data: str, header_path: str) -> Cube:
    """Open an ENVI raster whose files are known; `name` is what the user called it.

    Raises
    ------
    ReadError
        The header lacks something, or the data file is shorter than it says.
    SceneTooLargeError
        More bands than there can be.
    UnsupportedError
        Spectral libraries, classifications.
    """
    return describe(name, data, header.read(header_path), header_path)


def describe(name: str, data: str, head: header.Header, header_path: str) -> Cube:
    """The same with the header at hand, be it read or made up from other files; `header_path` names it in messages."""
    keys = head.keys()
    kind = keys.get("file type", "").lower()
    if "spectral library" in kind:
        raise UnsupportedError(f"{name}: an ENVI spectral library holds spectra, not an image; nothing to denoise")
    if "classification" in kind or "classes" in keys:
        raise UnsupportedError(f"{name}: an ENVI classification holds class numbers, not measurements")
    shape, dtype, offset, interleave, order = _layout(keys, header_path)
    for key in ("major frame offsets", "minor frame offsets"):
        if any(item not in ("", "0") for item in split_list(keys.get(key, ""))):
            raise UnsupportedError(f"{name}: ENVI '{key}' other than 0 are not supported")
    for key, value, guess in (("interleave", interleave, "bsq"), ("byte order", order >= 0, sys.byteorder)):
        if not value:
            warnings.warn(f"{header_path}: lacks '{key}'; taken as {guess}", MetadataWarning, stacklevel=3)
    interleave = interleave or "bsq"
    order = int(sys.byteorder == "big") if order < 0 else order
    path, unpacked = _plain_file(data, keys, shape, np.dtype(dtype).itemsize, offset)
    stored = np.dtype(dtype).newbyteorder(">" if order else "<")
    geo = georef.from_header(keys, header_path)
    if not geo.transform and not geo.gcps:
        side = georef.from_sidecar(data)
        geo = replace(geo, gcps=side.gcps, gcps_crs=side.gcps_crs)
    bands = from_envi(keys, shape[0], header_path)
    ignored = _nodata(keys, dtype, header_path)
    return Cube(
        name=name,
        format="ENVI",
        shape=shape,
        dtype=dtype,
        bands=bands,
        geo=geo,
        nodata=(ignored,) * shape[0],
        scale=factors(keys, "data gain values", shape[0], 1.0, header_path),
        offset=factors(keys, "data offset values", shape[0], 0.0, header_path),
        read_raw=_reader(name, path, shape, stored, offset, interleave),
        tags={"ENVI": head.tags()},
        band_tags=({},) * shape[0],
        layout={
            "driver": "ENVI",
            "interleave": interleave,
            "byte_order": order,
            "header_offset": 0 if unpacked else offset,
            "header": head,
            "header_nodata": ignored,
            "files": (data, header_path),
            "descriptions": bands.names,
        },
        on_close=unpacked.close if unpacked else None,
    )


def _plain_file(
    data: str, keys: Mapping[str, str], shape: tuple[int, ...], itemsize: int, offset: int
) -> tuple[str, IO[bytes] | None]:
    """The file to map, after comparing its size with the header; gzip data are unpacked into a temporary file."""
    expected = offset + math.prod(shape) * itemsize
    size = os.path.getsize(data)
    with open(data, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    said = keys.get("file compression", "0").strip() == "1"
    if said and not packed and size >= expected:
        warnings.warn(f"{data}: not compressed, as the header says; read as it is", MetadataWarning, stacklevel=4)
    if packed and said:
        if expected > size * _DEFLATE_LIMIT:
            raise ReadError(f"{data}: {size} bytes of gzip cannot hold the {expected} bytes the header announces")
        # Open until the cube is closed; the name goes with it.
        temporary = tempfile.NamedTemporaryFile(prefix="hsidenoise-")  # noqa: SIM115
        try:
            _unpack(data, temporary, expected)
        except BaseException:
            temporary.close()
            raise
        return temporary.name, temporary
    if offset >= size and offset:
        raise ReadError(f"{data}: the header's 'header offset = {offset}' lies beyond the file's {size} bytes")
    if size < expected:
        hint = "; it is gzip data, and the header does not say 'file compression = 1'" if packed else ""
        raise ReadError(f"{data}: truncated: {size} bytes where the header announces {expected}{hint}")
    if size > expected:
        warnings.warn(f"{data}: {size - expected} bytes more than the header announces", MetadataWarning, stacklevel=4)
    return data, None


def _unpack(data: str, target: IO[bytes], expected: int) -> None:
    left = expected
    try:
        with gzip.open(data) as source:
            while left and (chunk := source.read(min(left, 2**22))):
                target.write(chunk)
                left -= len(chunk)
    except (OSError, EOFError, zlib.error) as error:
        raise ReadError(f"{data}: the gzip data are damaged ({error})") from error
    if left:
        raise ReadError(f"{data}: truncated: unpacks to {expected - left} bytes where the header announces {expected}")
    target.flush()


def _reader(
    name: str, path: str, shape: tuple[int, int, int], dtype: np.dtype[Any], offset: int, interleave: str
) -> Callable[[Window, Sequence[int]], NDArray[Any]]:
    stored = tuple(shape[axis] for axis in _ORDERS[interleave])
    back = np.argsort(_ORDERS[interleave])
    need = offset + math.prod(shape) * dtype.itemsize

    def read_raw(window: Window, bands: Sequence[int]) -> NDArray[Any]:
        try:
            # A map of a file that shrank meanwhile would end the process with SIGBUS, so look first. Mapping anew
            # for each window keeps pages of earlier windows out of this process' memory.
            if os.path.getsize(path) < need:
                raise ReadError(f"{name}: the data file shrank while it was being read")
            pixels = np.memmap(path, dtype, "r", offset, stored).transpose(back)
        except OSError as error:
            raise ReadError(f"{name}: cannot be read ({error.strerror or error})") from error
        part = pixels[:, window.row_start : window.row_stop, window.col_start : window.col_stop]
        whole = isinstance(bands, range) and bands.step == 1
        part = part[bands.start : bands.stop] if whole else part[list(bands)]  # type: ignore[attr-defined]
        return np.array(part, dtype.newbyteorder("="), order="C", subok=False)

    return read_raw


def _nodata(keys: Mapping[str, str], dtype: str, name: str) -> float | None:
    text = keys.get("data ignore value", "").strip("{} ")
    if not text:
        return None
    try:
        value = nodata.parse(text)
    except UsageError:
        value = None
    fitted = None if value is None else nodata.fit(value, dtype)
    if fitted is None:
        warnings.warn(f"{name}: 'data ignore value = {text}' is no {dtype}; not used", MetadataWarning, stacklevel=3)
    return fitted


def factors(keys: Mapping[str, str], key: str, count: int, default: float, name: str) -> tuple[float, ...]:
    """Numbers of a header's list, one for each of `count` bands; `default` where there is none, or none that fits."""
    items = split_list(keys.get(key, ""))
    if not items:
        return (default,) * count
    try:
        values = [float(item) for item in items]
    except ValueError:
        values = []
    if len(values) not in (1, count):
        warnings.warn(f"{name}: '{key}' does not fit {count} bands; not used", MetadataWarning, stacklevel=3)
        return (default,) * count
    return tuple(values) * (count if len(values) == 1 else 1)
