"""The elements of MATLAB 5 (to 7) files: variables in a row, each compressed or not, structs with elements inside.

Source: MathWorks, MAT-File Format, chapter "Level 5 MAT-Files". An element is a tag (type and bytes, four each, or two
each and the data in the same eight bytes), its data, and padding to a multiple of eight.
"""

from __future__ import annotations

import math
import os
import struct
from typing import NamedTuple

import numpy as np

from ..errors import ReadError
from .mat_file import CLASSES, DEEPEST, MOST, Variable, printable
from .mat_place import Body, Place

HEADER = 128
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
PACKED = 15
_MATRIX = 14
_LETTERS = {1: "u1", 2: "u1", 4: "u2", 16: "u1", 17: "u2"}
_KINDS = ("", "cell", "struct", "object", "char", "sparse", "double", "single", "int8", "uint8", "int16", "uint16",
          "int32", "uint32", "int64", "uint64", "function", "object")  # fmt: skip
_OPAQUE = 17
_LOGICAL, _COMPLEX = 0x200, 0x800
_DEFLATE_LIMIT = 1040  # no deflate stream expands further
_MOST_AXES = 32
_LONGEST = 2**16  # bytes of names


def type_of(dtype: str) -> int:
    """The number by which elements name a NumPy type."""
    return next(number for number, code in _TYPES.items() if np.dtype(code) == np.dtype(dtype))


def order_of(header: bytes) -> str:
    """``<`` or ``>`` from the mark at the end of a file's header; empty where there is none."""
    return {b"\0\1IM": "<", b"\1\0MI": ">"}.get(header[124:128], "")


class _Tag(NamedTuple):
    type: int
    size: int
    data: bytes | None  # of an element that fits into its tag


class _Walk:
    """Reads what is told of one outermost element and of all inside it, without their numbers."""

    def __init__(self, name: str, body: Body, order: str, start: int, stop: int, packed: bool) -> None:
        self._name, self._body, self._order = name, body, order
        self._element = (start, stop, packed)
        self._visited = 0
        self.found: list[Variable] = []

    def _fault(self, what: str) -> ReadError:
        return ReadError(f"{self._name}: damaged: {what}; fetch it again")

    def _tag(self) -> _Tag:
        data = self._body.read(8)
        first, second = struct.unpack(f"{self._order}2I", data)
        if not first >> 16:
            return _Tag(first, second, None)
        if first >> 16 > 4:
            raise self._fault(f"{first >> 16} bytes inside the tag of an element")
        return _Tag(first & 0xFFFF, first >> 16, data[4 : 4 + (first >> 16)])

    def _part(self, types: tuple[int, ...], most: int, what: str) -> bytes:
        """The data of a short element."""
        tag = self._tag()
        if tag.type not in types or tag.size > most:
            raise self._fault(f"the {what} of a variable is an element of type {tag.type} and {tag.size} bytes")
        if tag.data is not None:
            return tag.data
        data = self._body.read(tag.size)
        self._body.skip(-tag.size % 8)
        return data

    def matrix(self, path: str, parents: tuple[int, ...], limit: int, last: bool) -> None:
        """One matrix element, of which no more than `limit` bytes can be there; its rest is passed over unless `last`.

        `path` names a field; an outermost element has a name of its own.
        """
        self._visited += 1
        at = self._body.at
        tag = self._tag()
        if tag.type != _MATRIX or tag.data is not None:
            raise self._fault(f"an element of type {tag.type} where a variable should begin")
        stop = self._body.at + tag.size
        if stop > limit:
            raise self._fault(f"a variable of {tag.size} bytes in one that is smaller")
        if tag.size:
            self._inside(path, (*parents, at + 4), stop, len(parents))
        if self._body.at > stop:
            raise self._fault("parts of a variable lie beyond its end")
        if not last:
            self._body.skip(stop - self._body.at)

    def _inside(self, path: str, parents: tuple[int, ...], stop: int, depth: int) -> None:
        part = self._part((6,), 8, "kind")
        flags = struct.unpack(f"{self._order}I", part[:4])[0] if len(part) == 8 else 0
        number = flags & 0xFF
        if not 0 < number < len(_KINDS):
            raise self._fault(f"a variable of class {number}, which there is not")
        kind = _KINDS[number]
        if number == _OPAQUE:
            return
        part = self._part((5, 6), 4 * _MOST_AXES, "size")
        shape = struct.unpack(f"{self._order}{len(part) // 4}i", part[: len(part) // 4 * 4])
        if len(shape) < 2 or min(shape) < 0:
            raise self._fault(f"a variable of size {shape}")
        own = self._part((1, 2, 16), _LONGEST, "name").rstrip(b"\0").decode("utf-8", "replace")
        path = path or printable(own)
        place = None
        if kind in CLASSES:
            place = self._numbers(shape, kind, parents, path, stop)
            kind = "complex" if flags & _COMPLEX else "logical" if flags & _LOGICAL else kind
        elif kind == "char":
            place = self._text(shape, parents, stop)
        if path:  # without a name it is MATLAB's own, about objects and function handles
            self.found.append(Variable(path, shape, kind, place))
        if kind == "struct" and math.prod(shape) == 1 and depth < DEEPEST:
            self._fields(path, parents, stop)

    def _numbers(self, shape: tuple[int, ...], kind: str, parents: tuple[int, ...], path: str, stop: int) -> Place:
        at = self._body.at
        tag = self._tag()
        stored = np.dtype(self._order + _TYPES[tag.type]) if tag.type in _TYPES else None
        if stored is None or (stored.kind == "f" and np.dtype(CLASSES[kind]).kind != "f"):
            raise self._fault(f"{path} is {kind}, stored as type {tag.type}")
        if tag.size != math.prod(shape) * stored.itemsize:
            size = "x".join(map(str, shape))
            raise self._fault(f"{path} is {size} {stored.name}, stored in {tag.size} bytes")
        small = tag.data is not None
        data = at + (4 if small else 8)
        if not small and data + tag.size > stop:
            raise self._fault(f"the numbers of {path} lie beyond its end")
        end = at + 8 if small else min(data + tag.size + -tag.size % 8, stop)
        return Place(*self._element, at, data, end, parents, stored.str, tag.size)

    def _text(self, shape: tuple[int, ...], parents: tuple[int, ...], stop: int) -> Place | None:
        """Where letters are, in UTF-8 or UTF-16, if they are there and no more than announced."""
        at = self._body.at
        if at + 8 > stop:
            return None
        tag = self._tag()
        data = at + (8 if tag.data is None else 4)
        if tag.type not in _LETTERS or data + tag.size > stop or tag.size > 4 * math.prod(shape):
            return None
        stored = np.dtype(self._order + _LETTERS[tag.type])
        size = tag.size // stored.itemsize * stored.itemsize
        return Place(*self._element, at, data, stop, parents, stored.str, size)

    def _fields(self, path: str, parents: tuple[int, ...], stop: int) -> None:
        part = self._part((5,), 4, "length of field names")
        length = struct.unpack(f"{self._order}i", part)[0] if len(part) == 4 else 0
        names = self._part((1, 2), _LONGEST, "field names")
        if length < 1 or len(names) % length:
            raise self._fault(f"{len(names)} bytes of field names of {length} bytes each")
        for i in range(0, len(names), length):
            if self._visited >= MOST:
                return
            field = names[i : i + length].partition(b"\0")[0].decode("utf-8", "replace")
            self.matrix(f"{path}.{printable(field)}", parents, stop, last=False)


def variables(name: str) -> tuple[list[Variable], list[str]]:
    """All variables of a file, and messages about those that cannot be understood.

    Raises
    ------
    ReadError
        Cut short, or no MATLAB 5 file after all.
    """
    found: list[Variable] = []
    faults: list[str] = []
    size = os.path.getsize(name)
    with open(name, "rb") as file:
        order = order_of(file.read(HEADER))
        if not order:
            raise ReadError(f"{name}: damaged: the header of a MATLAB 5 file is incomplete; fetch it again")
        at = HEADER
        for _ in range(MOST):
            if at + 8 > size:
                break
            file.seek(at)
            type_, bytes_ = struct.unpack(f"{order}2I", file.read(8))
            stop = at + 8 + bytes_
            if stop > size:
                raise ReadError(
                    f"{name}: truncated: a variable ends at byte {stop}, the file has {size}; fetch it again"
                )
            if type_ not in (_MATRIX, PACKED):
                faults.append(f"{name}: damaged: an element of type {type_} at byte {at}; fetch it again")
                break
            packed = type_ == PACKED
            limit = bytes_ * _DEFLATE_LIMIT if packed else stop - at
            walk = _Walk(name, Body(name, file, at, stop, packed), order, at, stop, packed)
            try:
                walk.matrix("", (), limit, last=True)
            except ReadError as error:
                faults.append(str(error))
            found += walk.found
            at = stop
    return found, faults
