"""Cubes inside files of named arrays (HDF5, netCDF, HDF4, MATLAB): which axis is which."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..cube import Window

#: An array of a file by its name; anything with ``shape`` that is read and assigned by tuples of slices and numbers.
Arrays = Callable[[str], Any]


class Slot(NamedTuple):
    """Consecutive bands of a cube, and where they are stored.

    Parameters
    ----------
    name
        Of the array, as the file knows it.
    axes
        The stored axes of bands, rows and columns; -1 for bands where the array is a single band.
    fixed
        ``(axis, index)`` of every other axis.
    bands
        Bands it holds.
    """

    name: str
    axes: tuple[int, int, int]
    bands: int
    fixed: tuple[tuple[int, int], ...] = ()

    def key(self, bands: slice, rows: slice, cols: slice) -> tuple[Any, ...]:
        """What to index the stored array with."""
        at: dict[int, Any] = dict(zip(self.axes, (bands, rows, cols), strict=True)) | dict(self.fixed)
        return tuple(at[axis] for axis in sorted(at) if axis >= 0)

    def kept(self) -> list[int]:
        """The axes of bands, rows and columns among those that `key` leaves, in cube order."""
        left = sorted(axis for axis in self.axes if axis >= 0)
        return [left.index(axis) for axis in self.axes if axis >= 0]


def read(arrays: Arrays, slots: Sequence[Slot], window: Window, bands: Sequence[int]) -> NDArray[Any]:
    """Pixels ``(bands, rows, cols)`` in native byte order; `bands` in the cube's count, in any order."""
    rows, cols = slice(window.row_start, window.row_stop), slice(window.col_start, window.col_stop)
    out: NDArray[Any] | None = None
    first = 0
    for slot in slots:
        wanted = [(i, b - first) for i, b in enumerate(bands) if first <= b < first + slot.bands]
        first += slot.bands
        if not wanted:
            continue
        local = [b for _, b in wanted]
        low, high = min(local), max(local) + 1
        part = np.asarray(arrays(slot.name)[slot.key(slice(low, high), rows, cols)])
        part = part.transpose(slot.kept())
        part = part if slot.axes[0] >= 0 else part[None]
        if out is None:
            out = np.empty((len(bands), *window.shape), part.dtype.newbyteorder("="))
        out[[i for i, _ in wanted]] = part[[b - low for b in local]]
    assert out is not None, "no band was asked for"
    return out


def write(arrays: Arrays, slots: Sequence[Slot], row_start: int, block: NDArray[Any]) -> None:
    """The opposite of `read`: full-width rows ``(bands, rows, cols)`` of all bands into their arrays."""
    rows = slice(row_start, row_start + block.shape[1])
    first = 0
    for slot in slots:
        part = block[first : first + slot.bands]
        part = part if slot.axes[0] >= 0 else part[0]
        key = slot.key(slice(0, slot.bands), rows, slice(0, block.shape[2]))
        arrays(slot.name)[key] = part.transpose(np.argsort(slot.kept()))
        first += slot.bands


class Copy(Protocol):
    """A copy of an input file, open to receive other pixels; what ``layout["copy"]`` of a cube makes of a path."""

    def write(self, row_start: int, block: NDArray[Any]) -> None:
        """Take the next full-width rows, ``(bands, rows, cols)``."""

    def close(self, provenance: Mapping[str, str] | None) -> None:
        """Write what is left, and where it came from; ``None`` when the copy is to be thrown away."""


class SlotCopy:
    """A `Copy` of a file whose arrays can be assigned to in place.

    Parameters
    ----------
    arrays, slots
        Of the copy.
    rows
        In all.
    align
        Rows of a stored chunk: blocks are gathered until such are complete, so that none is packed twice.
    finish
        Called with the provenance (``None`` to throw the copy away); closes the file.
    """

    def __init__(
        self, arrays: Arrays, slots: Sequence[Slot], rows: int, align: int,
        finish: Callable[[Mapping[str, str] | None], None],
    ) -> None:  # fmt: skip
        self._arrays, self._slots, self._rows, self._align, self._finish = arrays, slots, rows, max(align, 1), finish
        self._waiting: NDArray[Any] | None = None
        self._row = 0

    def write(self, row_start: int, block: NDArray[Any]) -> None:
        """Gather rows and write those whose chunks are complete."""
        if self._waiting is not None:
            block = np.concatenate([self._waiting, block], axis=1)
        count = block.shape[1]
        ready = count if self._row + count == self._rows else count // self._align * self._align
        if ready:
            write(self._arrays, self._slots, self._row, block[:, :ready])
        self._row += ready
        self._waiting = block[:, ready:].copy() if ready < count else None

    def close(self, provenance: Mapping[str, str] | None) -> None:
        """See `Copy`."""
        self._finish(provenance)
