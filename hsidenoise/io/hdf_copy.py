"""Copies of HDF5 files that receive other pixels: only the cube's values and one attribute differ in the end."""

from __future__ import annotations

import io
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple

import h5py
from numpy.typing import NDArray

from ..errors import WriteError
from . import slots
from .hdf_file import FAULTS

_HELD = 32 * 2**20  # bytes of rows held back until their chunks are complete; of larger ones the cache takes care


class Source(NamedTuple):
    """What a copy is made of: the file, its slots, and the way to an array of an open file."""

    name: str
    slots: tuple[slots.Slot, ...]
    rows: int
    prepare: Callable[[h5py.File], slots.Arrays]


class Target(io.FileIO):
    """A file for HDF5 to write to that takes everything, and tells afterwards what did not reach the disk.

    HDF5 cannot give up a file it failed to write to: closing it fails too, and freeing it ends the process.
    """

    failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write all, or keep the failure for `check`."""
        view = memoryview(data).cast("B")
        done = 0
        try:
            while done < len(view):
                done += super().write(view[done:]) or 0
        except OSError as error:
            self.failure = self.failure or error
        return len(view)

    def truncate(self, size: int | None = None, /) -> int:
        """Set the file's length, or keep the failure for `check`."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.failure = self.failure or error
            return size or 0

    def check(self) -> None:
        """Raise the first failure.

        Raises
        ------
        OSError
            The disk is full or gone.
        """
        if self.failure is not None:
            raise self.failure


def copy(source: Source, path: str) -> slots.Copy:
    """A copy of the file under `path`, open to take rows.

    Raises
    ------
    WriteError
        It is packed by a filter that can only unpack here.
    """
    shutil.copyfile(source.name, path)
    with ExitStack() as stack:
        target = stack.enter_context(Target(path, "r+"))
        with _writing():
            file = stack.enter_context(h5py.File(target, "r+"))
        found = source.prepare(file)
        align = max(_chunk_rows(source.name, found(slot.name), slot) for slot in source.slots)
        later = stack.pop_all()

    def finish(provenance: Mapping[str, str] | None) -> None:
        if provenance is None:
            with suppress(*FAULTS):  # to be thrown away
                later.close()
            return
        with _writing(), later:
            # One attribute, replaced when a copy of a copy is made.
            file.attrs["hsidenoise"] = ", ".join(f"{k}: {v}" for k, v in provenance.items())
        target.check()

    return _Checked(slots.SlotCopy(found, source.slots, source.rows, align, finish), target)


class _Checked(NamedTuple):
    """A `Copy` that stops at the first row that did not reach the disk."""

    inner: slots.SlotCopy
    target: Target

    def write(self, row_start: int, block: NDArray[Any]) -> None:
        """See `Copy`."""
        with _writing():
            self.inner.write(row_start, block)
        self.target.check()

    def close(self, provenance: Mapping[str, str] | None) -> None:
        """See `Copy`."""
        self.inner.close(provenance)


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError, KeyError) as error:
        raise OSError(f"HDF5: {error}") from error


def _chunk_rows(name: str, item: Any, slot: slots.Slot) -> int:
    """Rows of a chunk, as far as so many rows are few enough to be held back."""
    if not isinstance(item, h5py.Dataset) or not item.chunks:
        return 1
    plan = item.id.get_create_plist()
    for index in range(plan.get_nfilters()):
        code = plan.get_filter(index)[0]
        if not h5py.h5z.get_filter_info(code) & h5py.h5z.FILTER_CONFIG_ENCODE_ENABLED:
            raise WriteError(f"{name}: is packed by the HDF5 filter {code}, which can only be read here; write .tif")
    rows = int(item.chunks[slot.axes[1]])
    held = math.prod(item.shape) // item.shape[slot.axes[1]] * rows * item.dtype.itemsize
    return rows if held <= _HELD else 1
