"""MATLAB 4 and 5 files, open: numbers through memory maps, and copies in which those of one variable are others."""

from __future__ import annotations

import errno
import math
import os
import struct
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ReadError, UsageError
from . import mat4, mat5
from .mat_file import CLASSES, Contents, Target, Variable
from .mat_place import Body, Place
from .scratch import ScratchCopy
from .slots import Copy

_PIECE = 2**22
# MATLAB 5 files are read by programs that count the bytes of a variable in 32 bits with a sign.
_LARGEST = 2**31 - 1
# Denoised numbers hardly shrink; higher levels would only cost time.
_LEVEL = 3
_TEXT = 116  # bytes of free text at the head of a MATLAB 5 file; where the subsystem's data are follows
_MARK = "; hsidenoise"


def open_contents(name: str, version: str) -> Contents:
    """Open a MATLAB 4 or 5 file.

    Raises
    ------
    ReadError
        Cut short or damaged as a whole.
    """
    faults: list[str] = []
    try:
        if version == "4":
            found = mat4.variables(name)
        else:
            found, faults = mat5.variables(name)
    except OSError as error:
        if isinstance(error, ReadError):
            raise
        raise ReadError(f"{name}: cannot be read ({error.strerror or error})") from error
    numbers = _Numbers(name)

    def copy(target: Target, rows: int, path: str) -> Copy:
        return _copy(name, version, target, numbers.array, path)

    return Contents(
        version, tuple(found), numbers.values, numbers.array, copy, lambda v: v.place.packed, numbers.close,
        tuple(faults),
    )  # fmt: skip


def _copy(name: str, version: str, target: Target, array: Callable[[Target], Any], path: str) -> ScratchCopy:
    variable = target.variable
    size = math.prod(variable.shape) * np.dtype(variable.dtype).itemsize
    if size > _LARGEST:
        raise UsageError(
            f"{path}: {variable.name} takes {size / 2**30:.1f} GiB as {variable.kind}, and MATLAB files before 7.3 "
            "hold 2 GiB a variable; write .tif or .img, or save the input with -v7.3 first"
        )

    def finish(values: NDArray[Any], provenance: Mapping[str, str]) -> None:
        write_copy(name, version, variable, values, path, provenance)

    start = array(target) if target.slot.fixed else None  # what is no part of the cube stays
    return ScratchCopy(path, start, variable.shape[::-1], variable.dtype, target.slot, target.view, finish)


class _Numbers:
    """Reads variables; packed ones are unpacked once, into an unnamed temporary file, when first asked for."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._unpacked: dict[Place, IO[bytes]] = {}
        self._lock = threading.Lock()

    def values(self, variable: Variable) -> NDArray[Any]:
        place: Place = variable.place
        with open(self._name, "rb") as file:
            body = Body(self._name, file, place.start, place.stop, place.packed)
            body.skip(place.data)
            return np.frombuffer(body.read(place.size), place.stored)

    def array(self, target: Target) -> NDArray[Any]:
        place: Place = target.variable.place
        shape = target.variable.shape[::-1]
        try:
            if place.packed:
                with self._lock:
                    return np.memmap(self._unpack(place), place.stored, "r", 0, shape)
            # A map of a file that shrank meanwhile would end the process with SIGBUS, so look first.
            if os.path.getsize(self._name) < place.stop:
                raise ReadError(f"{self._name}: shrank while it was being read")
            return np.memmap(self._name, place.stored, "r", place.start + place.data, shape)
        except OSError as error:
            if isinstance(error, ReadError):
                raise
            raise ReadError(f"{self._name}: cannot be read ({error.strerror or error})") from error

    def _unpack(self, place: Place) -> IO[bytes]:
        if place in self._unpacked:
            return self._unpacked[place]
        with open(self._name, "rb") as file:
            body = Body(self._name, file, place.start, place.stop, place.packed)
            body.skip(place.data)
            target = tempfile.TemporaryFile(prefix="hsidenoise-")  # noqa: SIM115 - open until the scene is closed
            try:
                for piece in body.pieces(place.size):
                    target.write(piece)
                target.flush()
            except BaseException as error:
                target.close()
                if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                    raise ReadError(
                        f"{self._name}: there is no room to unpack {place.size / 2**20:,.0f} MiB in "
                        f"{tempfile.gettempdir()}; name a larger folder by the environment variable TMPDIR"
                    ) from error
                raise
        self._unpacked[place] = target
        return target

    def close(self) -> None:
        for file in self._unpacked.values():
            file.close()
        self._unpacked.clear()


def write_copy(
    name: str, version: str, variable: Variable, values: NDArray[Any], path: str, provenance: Mapping[str, str]
) -> None:
    """Write the file to `path` with other numbers in one variable, stored as its class; other elements byte by byte.

    Parameters
    ----------
    values
        In C order with the axes reversed, which is how files store them.
    """
    place: Place = variable.place
    size = os.path.getsize(name)
    with open(name, "rb") as source, open(path, "wb") as target:
        head = source.read(mat5.HEADER) if version == "5" else b""
        order = mat5.order_of(head) if head else place.stored[0].replace("|", "<")
        target.write(head)
        _pour(source, target, place.start - len(head))
        body = Body(name, source, place.start, place.stop, place.packed)
        new = np.dtype(order + np.dtype(CLASSES[variable.kind]).str[1:])
        pieces = _element(body, place, order, values, new)
        if place.packed:
            pieces = _deflate(pieces)
            target.write(bytes(8))
        for piece in pieces:
            target.write(piece)
        stop = target.tell()
        if place.packed:
            target.seek(place.start)
            target.write(struct.pack(f"{order}2I", mat5.PACKED, stop - place.start - 8))
            target.seek(stop)
        source.seek(place.stop)
        _pour(source, target, size - place.stop)
        if head:
            target.seek(0)
            at = struct.unpack(f"{order}Q", head[_TEXT : _TEXT + 8])[0]
            moved = at + stop - place.stop if place.stop <= at < size else at
            target.write(_text(head, provenance) + struct.pack(f"{order}Q", moved) + head[_TEXT + 8 :])


def _pour(source: IO[bytes], target: IO[bytes], count: int) -> None:
    while count and (piece := source.read(min(count, _PIECE))):
        target.write(piece)
        count -= len(piece)


def _element(body: Body, place: Place, order: str, values: NDArray[Any], stored: np.dtype[Any]) -> Iterator[bytes]:
    """The bytes of an outermost element with other numbers: sizes around them follow, the rest is as it was."""
    tag = struct.pack(f"{order}2I", mat5.type_of(stored.newbyteorder("=").str), values.size * stored.itemsize)
    padding = bytes(-values.size * stored.itemsize % 8)
    if not place.parents:  # version 4 has neither
        tag = padding = b""
    grown = len(tag) + values.size * stored.itemsize + len(padding) - (place.end - place.tag)
    stop = place.stop - place.start
    for i, at in enumerate(place.parents):
        yield from body.pieces(at - body.at)
        size = struct.unpack(f"{order}I", body.read(4))[0]
        stop = at + 4 + size if i == 0 else stop
        yield struct.pack(f"{order}I", size + grown)
    yield from body.pieces(place.tag - body.at)
    yield tag
    flat = values.reshape(-1)
    step = _PIECE // stored.itemsize
    for start in range(0, flat.size, step):
        yield flat[start : start + step].astype(stored).tobytes()
    yield padding
    body.skip(place.end - body.at)
    yield from body.pieces(stop - body.at)


def _deflate(pieces: Iterator[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(_LEVEL)
    for piece in pieces:
        yield packer.compress(piece)
    yield packer.flush()


def _text(head: bytes, provenance: Mapping[str, str]) -> bytes:
    """The free text of the file's header; what made the file is added, in place of what a run before added."""
    said = " ".join(f"{provenance.get('software', '')} {provenance.get('model', '')}".split())
    if not said:
        return head[:_TEXT]
    text = head[:_TEXT].decode("latin-1").rstrip(" \0").partition(_MARK)[0]
    mark = f"{_MARK} {said.removeprefix('hsidenoise ')}".encode("ascii", "replace")[: _TEXT // 2]
    return (text.encode("latin-1")[: _TEXT - len(mark)] + mark).ljust(_TEXT)
