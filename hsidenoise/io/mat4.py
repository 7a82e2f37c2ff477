"""MATLAB 4 files: matrices one after the other, each a header of five numbers, a name, and plain numbers.

Source: MathWorks, MAT-File Format, chapter "Level 4 MAT-Files".
"""

from __future__ import annotations

import os
import re
import struct
from typing import NamedTuple

import numpy as np

from ..errors import ReadError
from .mat_file import MOST, Variable
from .mat_place import Place

_TYPES = {0: ("f8", "double"), 1: ("f4", "single"), 2: ("i4", "int32"), 3: ("i2", "int16"), 4: ("u2", "uint16"),
          5: ("u1", "uint8")}  # fmt: skip
_NAME = re.compile(rb"[A-Za-z_]\w*\0+", re.ASCII)
_LONGEST_NAME = 256


class Head(NamedTuple):
    """A matrix header: byte order, element type 0 to 5, 0 for numbers (1 text, 2 sparse), sizes and name."""

    order: str
    type: int
    role: int
    rows: int
    cols: int
    complex: bool
    name: bytes


def head(data: bytes) -> Head | None:
    """The matrix header these bytes begin with, which is also how a file of this version is known; ``None`` if none."""
    for order, machine in (("<", 0), (">", 1)):
        if len(data) < 20:
            return None
        mopt, rows, cols, imaginary, length = struct.unpack(f"{order}5i", data[:20])
        name = data[20 : 20 + max(0, length)]
        if (
            mopt // 100 == machine * 10 and mopt // 10 % 10 in _TYPES and mopt % 10 in (0, 1, 2)
            and rows >= 0 and cols >= 0 and imaginary in (0, 1) and 2 <= length <= _LONGEST_NAME
            and _NAME.fullmatch(name)
        ):  # fmt: skip
            return Head(order, mopt // 10 % 10, mopt % 10, rows, cols, bool(imaginary), name.rstrip(b"\0"))
    return None


def variables(name: str) -> list[Variable]:
    """All variables of a file.

    Raises
    ------
    ReadError
        Cut short, or no MATLAB 4 file after all.
    """
    found: list[Variable] = []
    size = os.path.getsize(name)
    at = 0
    with open(name, "rb") as file:
        while at < size and len(found) < MOST:
            file.seek(at)
            start = file.read(20 + _LONGEST_NAME)
            matrix = head(start)
            if matrix is None:
                raise ReadError(f"{name}: damaged: no MATLAB 4 variable begins at byte {at}; fetch it again")
            code, kind = _TYPES[matrix.type]
            stored = np.dtype(matrix.order + code)
            data = at + 20 + struct.unpack(f"{matrix.order}i", start[16:20])[0]
            bytes_ = matrix.rows * matrix.cols * stored.itemsize
            stop = data + bytes_ * (2 if matrix.complex else 1)
            text = matrix.name.decode("ascii")
            if stop > size:
                raise ReadError(f"{name}: truncated: {text} ends at byte {stop}, the file has {size}; fetch it again")
            kind = {1: "char", 2: "sparse"}.get(matrix.role, "complex" if matrix.complex else kind)
            place = Place(at, stop, False, data - at, data - at, stop - at, (), stored.str, bytes_)
            found.append(Variable(text, (matrix.rows, matrix.cols), kind, place))
            at = stop
    return found
