"""What a file is, by its first bytes: extensions lie, and a failed download should be called one."""

from __future__ import annotations

import os
import re
from typing import BinaryIO

from ..errors import ReadError
from . import header, mat4

_MAGIC = (
    (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"), (b"II+\0", "TIFF"), (b"MM\0+", "TIFF"),
    (b"\0\0\0\x0cjP  ", "JP2"), (b"\xff\x4f\xff\x51", "JP2"),
    (b"\x0e\x03\x13\x01", "HDF4"),
    (b"CDF\x01", "netCDF"), (b"CDF\x02", "netCDF"), (b"CDF\x05", "netCDF"),
    (b"MATLAB 5.0", "MATLAB"), (b"MATLAB 7.3", "MATLAB"),
    (b"version https://git-lfs", "git-LFS pointer"),
    (b"\x1f\x8b", "gzip"), (b"PK\x03\x04", "zip"),
)  # fmt: skip
_HDF5 = b"\x89HDF\r\n\x1a\n"
_HTML = re.compile(rb"\s*(<!--.*?-->\s*)?<(!doctype\s+html|html|head|body)", re.IGNORECASE | re.DOTALL)
# GDAL names such as /vsizip/a.zip/b.tif, NETCDF:"f.nc":v, https://..., zip+s3://...
_GDAL_NAME = re.compile(r"/vsi|[A-Za-z][A-Za-z0-9+_]+:")


def is_gdal_name(name: str) -> bool:
    """Whether this is no plain path but something only GDAL can resolve."""
    return not os.path.lexists(name) and (bool(_GDAL_NAME.match(name)) or name.lstrip().startswith("<VRTDataset"))


def kind(path: str) -> str:
    """``TIFF``, ``HDF5``, ``folder``, ``ENVI header``, ``HTML page``, ``text`` ... or ``""`` where no magic is known.

    Raises
    ------
    ReadError
        Missing, empty or not readable.
    """
    if os.path.isdir(path):
        return "folder"
    try:
        with open(path, "rb") as file:
            start = file.read(4096)
            if superblock(file) is not None:
                return "MATLAB" if start.startswith(b"MATLAB") else "HDF5"
    except FileNotFoundError:
        raise ReadError(f"{path}: no such file") from None
    except OSError as error:
        raise ReadError(f"{path}: cannot be opened ({error.strerror})") from error
    if not start:
        raise ReadError(f"{path}: the file is empty; fetch it again")
    for magic, what in _MAGIC:
        if start.startswith(magic):
            return what
    if start[257:262] == b"ustar":
        return "tar"
    if start[124:128] in (b"\0\1IM", b"\1\0MI") or mat4.head(start):  # the text before that mark is free
        return "MATLAB"
    if header.is_header(start):
        return "ENVI header"
    if _HTML.match(start):
        return "HTML page"
    if b"<VRTDataset" in start:
        return "VRT"
    return "text" if _is_text(start) else ""


def superblock(file: BinaryIO) -> int | None:
    """Where an HDF5 file's own content begins: behind a user block, whose sizes are powers of two. None in others."""
    for at in (0, *(512 << i for i in range(8))):
        file.seek(at)
        if file.read(8) == _HDF5:
            return at
    return None


def _is_text(start: bytes) -> bool:
    try:
        text = start.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(start) - 3:
            return False
        text = start[: error.start].decode("utf-8")
    return all(c.isprintable() or c in "\r\n\t\f" for c in text.removeprefix("\ufeff"))


def is_utf8(name: str) -> bool:
    """Whether a name is text: names of files may be any bytes, of which the libraries below take UTF-8 only."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(name: str) -> str:
    """A name that is not, with escapes for what is no text: ``caf\\xe9.tif``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
