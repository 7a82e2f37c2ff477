"""Where MATLAB 4 and 5 files keep the numbers of a variable, and reading from there, packed or not."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import IO, NamedTuple

from ..errors import ReadError

_PIECE = 2**20


class Place(NamedTuple):
    """Where the numbers of a variable are; offsets but the first two count from the element's beginning, unpacked.

    Parameters
    ----------
    start, stop
        Of the outermost element in the file.
    packed
        Whether that is compressed.
    tag, data, end
        Where the numbers' own tag begins, they themselves, and what follows them.
    parents
        Where the sizes of the elements around them are written, outermost first; none in version 4.
    stored
        NumPy type string of the numbers.
    size
        Their bytes.
    """

    start: int
    stop: int
    packed: bool
    tag: int
    data: int
    end: int
    parents: tuple[int, ...]
    stored: str
    size: int


class Body:
    """The unpacked bytes of one outermost element, read forwards only; of them no more than a piece is in memory."""

    def __init__(self, name: str, file: IO[bytes], start: int, stop: int, packed: bool) -> None:
        self._name, self._file, self._next = name, file, start + 8 if packed else start
        self._stop, self._packed = stop, packed
        self._inflate = zlib.decompressobj()
        self.at = 0

    def pieces(self, count: int) -> Iterator[bytes]:
        """The next bytes, in pieces.

        Raises
        ------
        ReadError
            The element ends before, or its compressed bytes are damaged.
        """
        while count > 0:
            piece = self._piece(min(count, _PIECE))
            if not piece:
                raise ReadError(f"{self._name}: damaged: a variable ends too early; fetch it again")
            self.at += len(piece)
            count -= len(piece)
            yield piece

    def _piece(self, count: int) -> bytes:
        if not self._packed:
            return self._raw(count)
        try:
            while not self._inflate.eof:
                source = self._inflate.unconsumed_tail or self._raw(_PIECE // 16)
                if piece := self._inflate.decompress(source, count):
                    return piece
                if not source:
                    break
        except zlib.error as error:
            raise ReadError(f"{self._name}: damaged: a compressed variable cannot be unpacked ({error})") from error
        return b""

    def _raw(self, count: int) -> bytes:
        self._file.seek(self._next)
        piece = self._file.read(min(count, self._stop - self._next))
        self._next += len(piece)
        return piece

    def read(self, count: int) -> bytes:
        """The next bytes."""
        return b"".join(self.pieces(count))

    def skip(self, count: int) -> None:
        """Pass over bytes."""
        if self._packed:
            for _ in self.pieces(count):
                pass
            return
        if self._next + count > self._stop:
            raise ReadError(f"{self._name}: damaged: a variable ends too early; fetch it again")
        self._next += count
        self.at += count
