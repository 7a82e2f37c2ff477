"""The pages of a TIFF stack as one array that is read piece by piece."""

from __future__ import annotations

import os
import tempfile
import threading
from typing import IO, Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window as GdalWindow

from ..errors import ReadError
from . import gdal

_CHUNK = 64 * 2**20  # bytes unpacked at a time


def dataset(name: str, offset: int) -> str:
    """GDAL's name of the page whose directory is at `offset`."""
    return f"GTIFF_DIR:off:{offset}:{name}"


class Planes:
    """An array of pages ``(..., rows, cols)``, indexed with a number or slice for each axis.

    Pages without compression are mapped. Each other one is unpacked once, when first asked for, into a temporary file
    that has no name and goes with `close`: windows that cross many pages would unpack all of them again and again.

    Parameters
    ----------
    name
        The file.
    series
        tifffile's series of pages.
    dtype
        Of the pixels as GDAL unpacks them.
    """

    def __init__(self, name: str, series: Any, dtype: str) -> None:
        self.name = name
        self.shape: tuple[int, ...] = series.shape
        self.dtype = np.dtype(dtype)
        self.numbers = np.arange(int(np.prod(self.shape[:-2], dtype=np.int64))).reshape(self.shape[:-2])
        self._stored = series.dtype.newbyteorder(series.keyframe.parent.byteorder)
        plane = self.shape[-2] * self.shape[-1]
        #: One directory stands for all pages: they follow on each other.
        self.shared = len(series.pages) == 1 and self.numbers.size > 1
        step = plane * self._stored.itemsize if self.shared else 0
        pages = [full(p) for p in series.pages] * (self.numbers.size if step else 1)
        self._at = [
            int(p.dataoffsets[0]) + i * step if _plain(p, series.keyframe, plane * self._stored.itemsize) else -1
            for i, p in enumerate(pages)
        ]
        self.directories = [int(p.offset) for p in pages]
        if self.shared and -1 in self._at:
            raise ReadError(f"{name}: pages that follow on each other must not be compressed; the header is damaged")
        self._unpacked: set[int] = set()
        self._file: IO[bytes] | None = None
        self._lock = threading.Lock()

    def __getitem__(self, key: tuple[Any, ...]) -> NDArray[Any]:
        chosen = self.numbers[key[:-2]]
        parts = [self._plane(int(i))[key[-2:]] for i in np.ravel(chosen)]
        return np.stack(parts).astype(self.dtype, copy=False).reshape(*np.shape(chosen), *parts[0].shape)

    def _plane(self, number: int) -> NDArray[Any]:
        """A page, still on disk; mapped anew each time, to keep its pixels out of this process' memory."""
        rows, cols = self.shape[-2:]
        if self._at[number] >= 0:
            size = os.path.getsize(self.name)
            if self._at[number] + rows * cols * self._stored.itemsize > size:  # a map beyond the end ends the process
                raise ReadError(f"{self.name}: the file shrank while it was being read")
            return np.memmap(self.name, self._stored, "r", self._at[number], (rows, cols))
        with self._lock:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="hsidenoise-")  # noqa: SIM115 - closed by close
            if number not in self._unpacked:
                self._unpack(number, self._file)
                self._unpacked.add(number)
        return np.memmap(self._file, self.dtype, "r", number * rows * cols * self.dtype.itemsize, (rows, cols))

    def _unpack(self, number: int, file: IO[bytes]) -> None:
        rows, cols = self.shape[-2:]
        name = dataset(self.name, self.directories[number])
        what = f"damaged, page {number + 1} cannot be read"
        with gdal.environment(), gdal.reading(self.name, what), rasterio.open(name) as source:
            if (source.count, *source.shape) != (1, rows, cols) or source.dtypes[0] != self.dtype.name:
                raise ReadError(f"{self.name}: page {number + 1} is of another size or type than the first")
            height = source.block_shapes[0][0]
            step = max(1, _CHUNK // (height * cols * self.dtype.itemsize)) * height
            for row in range(0, rows, step):
                part = source.read(1, window=GdalWindow(0, row, cols, min(step, rows - row)))
                try:
                    file.seek((number * rows + row) * cols * self.dtype.itemsize)
                    file.write(part.tobytes())
                    file.flush()
                except OSError as error:
                    why = error.strerror or error
                    where = tempfile.gettempdir()
                    raise ReadError(
                        f"{self.name}: cannot be unpacked into {where} ({why}); set TMPDIR to a larger disk"
                    ) from error

    def close(self) -> None:
        """Drop the temporary file."""
        if self._file is not None:
            self._file.close()


def full(page: Any) -> Any:
    """A page as its own directory describes it; tifffile takes those of a stack to be like the first one."""
    return page.aspage() if page.is_frame and not page.is_virtual else page


def _plain(page: Any, first: Any, size: int) -> bool:
    """Whether a page is like the first one, and its pixels lie in one piece as they are."""
    offsets, counts = page.dataoffsets, page.databytecounts
    like = first if page.is_frame else page
    if (like.shape, like.dtype) != (first.shape, first.dtype) or not like.is_contiguous or like.fillorder != 1:
        return False
    if not offsets or offsets[0] <= 0 or sum(counts) < size:
        return False
    ends = [o + n for o, n in zip(offsets, counts, strict=False)]
    return len(offsets) == 1 or (sum(counts) == size and ends[:-1] == list(offsets[1:]))
