"""HDF4 files through pyhdf: their scientific data sets (SDS), read and assigned to piece by piece.

The HDF4 library serves one thread at a time, so one lock guards all of it.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import HSIDenoiseError, ReadError, UnsupportedError, WriteError

# Number types of HDF4 by code; pyhdf gives their values in native byte order.
_TYPES = {3: "uint8", 5: "float32", 6: "float64", 20: "int8", 21: "uint8", 22: "int16", 23: "uint16", 24: "int32",
          25: "uint32"}  # fmt: skip
_LITTLE = 0x4000  # added to the code of numbers stored in little-endian order
LOCK = threading.RLock()


class Array(NamedTuple):
    """A scientific data set as the file's directory describes it; `flaw` says why it cannot be a scene."""

    number: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    labels: tuple[str, ...]
    compressed: bool
    attributes: dict[str, Any]
    flaw: str

    def __str__(self) -> str:
        return f"{self.name} ({' x '.join(map(str, self.shape))} {self.dtype})"

    @property
    def nbytes(self) -> int:
        """Of all its values."""
        return int(np.prod(self.shape, dtype=object)) * np.dtype(self.dtype or "uint8").itemsize


def require(name: str) -> None:
    """Say what to install where pyhdf is not there.

    Raises
    ------
    UnsupportedError
        It is not.
    """
    try:
        import pyhdf.SD  # noqa: F401
    except ImportError as error:
        raise UnsupportedError(
            f"{name}: HDF4 files need the package pyhdf; install it with: pip install 'hsidenoise[hdf4]'"
        ) from error


@contextlib.contextmanager
def failing(name: str, what: str, error_class: type[HSIDenoiseError] = ReadError) -> Iterator[None]:
    """The lock, and whatever pyhdf raises turned into one line about `name`."""
    from pyhdf.error import HDF4Error

    try:
        with LOCK:
            yield
    except (HDF4Error, OSError, ValueError, TypeError, IndexError, OverflowError, MemoryError, SystemError) as error:
        if isinstance(error, HSIDenoiseError):
            raise
        raise error_class(f"{name}: {what} ({' '.join(str(error).split()) or type(error).__name__})") from error


class File:
    """An open HDF4 file.

    Parameters
    ----------
    path
        Of the file.
    writable
        Open it to be changed.

    Raises
    ------
    ReadError
        Truncated or damaged.
    """

    def __init__(self, path: str, *, writable: bool = False) -> None:
        self.path = path
        with failing(path, "damaged or truncated, its HDF4 directory cannot be read"):
            from pyhdf.SD import SD, SDC

            self._file: Any = SD(os.fspath(path), SDC.WRITE if writable else SDC.READ)
        self._open: dict[int, Any] = {}

    def arrays(self) -> list[Array]:
        """All scientific data sets in file order, without the scales of axes."""
        with failing(self.path, "damaged, its HDF4 directory cannot be read"):
            return [a for i in range(self._file.info()[0]) if (a := self._describe(i)) is not None]

    def attributes(self) -> dict[str, Any]:
        """Of the file."""
        with failing(self.path, "damaged, its attributes cannot be read"):
            return dict(self._file.attributes())

    def _describe(self, index: int) -> Array | None:
        from pyhdf.error import HDF4Error

        item = self._select(index)
        if item.iscoordvar():
            return None
        name, rank, shape, code, _ = item.info()
        shape = tuple(shape) if isinstance(shape, list | tuple) else (int(shape),)
        dtype = _TYPES.get(code, "")
        flaw = ""
        if not dtype:
            flaw = "little-endian numbers, which pyhdf does not read" if code & _LITTLE else "no numbers"
        elif 0 in shape or item.checkempty():
            flaw = "no values"
        try:
            item.getcompress()
            compressed = True
        except HDF4Error:  # the library's way to say that it is not
            compressed = False
        labels = tuple(str(item.dim(i).info()[0]) for i in range(rank))
        return Array(index, str(name), shape, dtype, labels, compressed, dict(item.attributes()), flaw)

    def _select(self, index: int) -> Any:
        if index not in self._open:
            self._open[index] = self._file.select(index)
        return self._open[index]

    def values(self, array: Array) -> Values:
        """The values of a data set, still on disk."""
        return Values(self.path, self._select(array.number), array)

    def annotate(self, key: str, text: str) -> None:
        """Set a text attribute of the file."""
        from pyhdf.SD import SDC

        self._file.attr(key).set(SDC.CHAR8, text)

    def close(self) -> None:
        """Release the file; twice does no harm."""
        file, self._file = self._file, None
        if file is None:
            return
        with failing(self.path, "cannot be closed"):
            # Data sets first: the library does not let them go once their file is closed.
            for item in self._open.values():
                item.endaccess()
            self._open.clear()
            file.end()


class Values:
    """A data set that is indexed by one number or slice for each axis, as `slots` does."""

    def __init__(self, path: str, item: Any, array: Array) -> None:
        self._path, self._item, self._array = path, item, array
        self.shape = array.shape

    def _place(self, key: tuple[Any, ...]) -> tuple[list[int], list[int]]:
        """Where to start and how many along each axis; plain numbers, since pyhdf knows none of NumPy's."""
        start = [int(k.start) if isinstance(k, slice) else int(k) for k in key]
        count = [int(k.stop) - int(k.start) if isinstance(k, slice) else 1 for k in key]
        return start, count

    def __getitem__(self, key: tuple[Any, ...]) -> NDArray[Any]:
        start, count = self._place(key)
        what = f"the values of {self._array.name} are damaged, or compressed by a method this HDF4 library lacks"
        with failing(self._path, what):
            part = np.asarray(self._item.get(start, count), self._array.dtype)
        return part.reshape([n for n, k in zip(count, key, strict=True) if isinstance(k, slice)])

    def __setitem__(self, key: tuple[Any, ...], values: NDArray[Any]) -> None:
        start, count = self._place(key)
        with failing(self._path, f"the values of {self._array.name} cannot be written", WriteError):
            self._item.set(np.ascontiguousarray(values.reshape(count), self._array.dtype), start, count)
