"""Copies of files that can only be written in one go: rows wait in an unnamed temporary file."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import slots


class ScratchCopy:
    """A `slots.Copy` that gathers all rows as they will be stored, and hands them over at the end.

    Parameters
    ----------
    path
        Of the copy; the temporary file lies in its folder, on the disk the user chose.
    start
        What the array holds where the cube does not cover it; ``None`` where it covers all.
    shape, dtype
        Of the stored array.
    slot
        How the cube lies in `view` of the gathered array.
    finish
        Called with the gathered array and the provenance, unless the copy is thrown away.
    """

    def __init__(
        self, path: str, start: Any, shape: tuple[int, ...], dtype: str, slot: slots.Slot,
        view: Callable[[NDArray[Any]], Any], finish: Callable[[NDArray[Any], Mapping[str, str]], None],
    ) -> None:  # fmt: skip
        self._slot, self._finish = slot, finish
        self._file = tempfile.TemporaryFile(dir=os.path.dirname(path) or None)  # noqa: SIM115 - closed in `close`
        try:
            size = math.prod(shape) * np.dtype(dtype).itemsize
            if hasattr(os, "posix_fallocate"):  # a full disk is an error here; later, in a map, it would be a signal
                os.posix_fallocate(self._file.fileno(), 0, size)
            else:
                self._file.truncate(size)
            self._all: NDArray[Any] = np.memmap(self._file, dtype, "r+", 0, shape)
            if start is not None:
                for i in range(shape[0]):
                    self._all[i] = start[i]
        except BaseException:
            self._file.close()
            raise
        self._view = view(self._all)

    def write(self, row_start: int, block: NDArray[Any]) -> None:
        """See `slots.Copy`."""
        slots.write(lambda _: self._view, [self._slot], row_start, block)

    def close(self, provenance: Mapping[str, str] | None) -> None:
        """See `slots.Copy`."""
        try:
            if provenance is not None:
                self._finish(self._all, provenance)
        finally:
            del self._all, self._view
            self._file.close()
