"""Headers of classic netCDF files (CDF-1, 2 and 5), checked before the library sees them.

It crashes on some damaged ones, and reads zeros where a file was cut short. The layout is that of the file format
specifications in the NetCDF User's Guide.
"""

from __future__ import annotations

import math
import os
from typing import Any, BinaryIO, NamedTuple

from ..errors import ReadError

_DIMENSION, _VARIABLE, _ATTRIBUTE = 10, 11, 12
# Bytes of a value of each type; those from 7 on are in CDF-5 only.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}
_MOST = 2**62  # bytes of an array: more overflows in the library


class _Header:
    """What follows in the header, number by number; raises `ValueError` where it cannot be."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self.version = self._take(4)[3]

    def _take(self, count: int) -> bytes:
        if count > self._size - self._file.tell():
            raise ValueError("its header ends beyond the file")
        return self._file.read(count)

    def number(self, wide: bool | None = None) -> int:
        """A count or size: 8 bytes in CDF-5, else 4."""
        return int.from_bytes(self._take(8 if (self.version == 5 if wide is None else wide) else 4), "big")

    def padded(self, count: int) -> bytes:
        """So many bytes, and what fills them up to a multiple of four."""
        return self._take(count + -count % 4)[:count]

    def name(self, seen: set[bytes]) -> None:
        """A name that is not taken yet."""
        text = self.padded(self.number())
        text.decode()
        if not text or b"\0" in text or b"/" in text or text in seen:
            raise ValueError("a name in its header is none")
        seen.add(text)

    def type(self) -> int:
        """Bytes of a value."""
        code = self.number(wide=False)
        if code not in _SIZES or (code > 6 and self.version != 5):
            raise ValueError("a type in its header is unknown")
        return _SIZES[code]

    def entries(self, tag: int) -> range:
        """The entries of a list that begins here."""
        said, count = self.number(wide=False), self.number()
        if said not in (tag, 0) or (count and not said) or count > self._size:
            raise ValueError("a list in its header is none")
        return range(count)

    def attributes(self) -> None:
        """A list of attributes."""
        seen: set[bytes] = set()
        for _ in self.entries(_ATTRIBUTE):
            self.name(seen)
            size = self.type()
            self.padded(self.number() * size)

    def tell(self) -> int:
        """How far it was read."""
        return self._file.tell()


def check(name: str) -> None:
    """Walk through a classic header; does nothing for other files.

    Raises
    ------
    ReadError
        It contradicts itself, or the file ends before its header or its values do.
    """
    size = os.path.getsize(name)
    try:
        with open(name, "rb") as file:
            if file.read(3) != b"CDF":
                return
            file.seek(0)
            end = _end(_Header(file, size))
    except (ValueError, OSError) as error:
        said: Any = error.strerror if isinstance(error, OSError) else error
        reason = "a name in its header is no text" if isinstance(error, UnicodeDecodeError) else said
        raise ReadError(f"{name}: damaged or truncated; fetch it again (netCDF: {reason})") from error
    if end > size:  # the library gives zeros for what is not there
        raise ReadError(f"{name}: truncated: {size} bytes where its header says {end}; fetch it again")


class _Variable(NamedTuple):
    begin: int
    size: int  # bytes, of one record where it has records
    records: bool


def _end(header: _Header) -> int:
    """Where the values end."""
    records = header.number()
    lengths = _dimensions(header)
    header.attributes()
    names: set[bytes] = set()
    variables = [_variable(header, names, lengths) for _ in header.entries(_VARIABLE)]
    if any(variable.begin < header.tell() for variable in variables):
        raise ValueError("the values of a variable begin within its header")
    listed = [variable.size for variable in variables if variable.records]
    step = listed[0] if len(listed) == 1 else sum(size + -size % 4 for size in listed)
    if records == 256 ** (8 if header.version == 5 else 4) - 1:  # written as a stream: as many as there are
        records = 0
    stored = [v for v in variables if records or not v.records]
    return max((v.begin + v.size + ((records - 1) * step if v.records else 0) for v in stored), default=0)


def _dimensions(header: _Header) -> list[int]:
    names: set[bytes] = set()
    lengths = []
    for _ in header.entries(_DIMENSION):
        header.name(names)
        lengths.append(header.number())
    if lengths.count(0) > 1:
        raise ValueError("two dimensions in its header are unlimited")
    return lengths


def _variable(header: _Header, names: set[bytes], lengths: list[int]) -> _Variable:
    header.name(names)
    count = header.number()
    if count > 1024:  # the library's limit
        raise ValueError("a variable in its header has too many dimensions")
    dimensions = [header.number() for _ in range(count)]
    if any(d >= len(lengths) for d in dimensions):
        raise ValueError("a variable in its header has a dimension that is not there")
    sizes = [lengths[d] for d in dimensions]
    if 0 in sizes[1:]:
        raise ValueError("an unlimited dimension in its header is not the first")
    header.attributes()
    records = 0 in sizes
    size = math.prod(sizes[1:] if records else sizes) * header.type()
    if size > _MOST:
        raise ValueError("a variable in its header is larger than any file")
    header.number()  # its size, which the dimensions say as well
    return _Variable(header.number(wide=header.version != 1), size, records)
