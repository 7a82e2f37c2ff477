"""MATLAB files built byte by byte (version 5) or with h5py (7.3), for what scipy does not write."""

from __future__ import annotations

import struct as packing
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

TYPES = {"i1": 1, "u1": 2, "i2": 3, "u2": 4, "i4": 5, "u4": 6, "f4": 7, "f8": 9, "i8": 12, "u8": 13}
KINDS = {
    "float64": 6, "float32": 7, "int8": 8, "uint8": 9, "int16": 10, "uint16": 11, "int32": 12, "uint32": 13,
    "int64": 14, "uint64": 15,
}  # fmt: skip
MATLAB = {"float64": "double", "float32": "single"}
TEXT = "MATLAB 5.0 MAT-file, Platform: GLNXA64, Created on: Fri Feb 20 15:26:59 2009"


def element(type_: int, data: bytes, order: str = "<") -> bytes:
    """A tag, data and padding; four bytes or less share the tag's eight."""
    if 0 < len(data) <= 4:
        return packing.pack(f"{order}I", len(data) << 16 | type_) + data.ljust(4, b"\0")
    return packing.pack(f"{order}2I", type_, len(data)) + data + bytes(-len(data) % 8)


def _matrix(kind: int, shape: tuple[int, ...], name: str, rest: bytes, order: str, flags: int = 0) -> bytes:
    inner = element(6, packing.pack(f"{order}2I", kind | flags, 0), order)
    inner += element(5, packing.pack(f"{order}{len(shape)}i", *shape), order)
    inner += element(1, name.encode(), order) + rest
    return packing.pack(f"{order}2I", 14, len(inner)) + inner


def matrix(name: str, array: NDArray[Any], *, stored: str = "", order: str = "<", flags: int = 0) -> bytes:
    """A numeric variable of the array's class, its numbers stored as another type where told so."""
    numbers = np.dtype(stored or array.dtype.str[1:])
    data = array.astype(numbers.newbyteorder(order)).tobytes(order="F")
    rest = element(TYPES[numbers.str[1:]], data, order)
    return _matrix(KINDS[array.dtype.name], array.shape, name, rest * (2 if flags & 0x800 else 1), order, flags)


def struct(name: str, fields: Mapping[str, bytes], order: str = "<") -> bytes:
    """A 1x1 struct of nameless elements."""
    names = b"".join(key.encode().ljust(32, b"\0") for key in fields)
    rest = element(5, packing.pack(f"{order}i", 32), order) + element(1, names, order) + b"".join(fields.values())
    return _matrix(2, (1, 1), name, rest, order)


def packed(inner: bytes, order: str = "<") -> bytes:
    """An element compressed."""
    data = zlib.compress(inner)
    return packing.pack(f"{order}2I", 15, len(data)) + data


def header(order: str = "<", text: str = TEXT, subsystem: int | None = None) -> bytes:
    """The 128 bytes before the first element."""
    at = b" " * 8 if subsystem is None else packing.pack(f"{order}Q", subsystem)
    return text.encode().ljust(116) + at + (b"\0\1IM" if order == "<" else b"\1\0MI")


def write5(path: Path, *elements: bytes, order: str = "<", **options: Any) -> Path:
    """A version 5 file of these elements."""
    path.write_bytes(header(order, **options) + b"".join(elements))
    return path


def write73(path: Path, arrays: Mapping[str, Any], *, attributes: bool = True, **options: Any) -> Path:
    """A version 7.3 file; `options` go to the datasets of three axes and more."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            array = np.asarray(array)
            data = file.create_dataset(name, data=array.T, **(options if array.ndim > 2 else {}))
            if attributes:
                data.attrs["MATLAB_class"] = np.bytes_(MATLAB.get(array.dtype.name, array.dtype.name))
    with open(path, "r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(116) + bytes(8) + b"\0\2IM")
    return path
