"""Cube: what every reader returns and every writer accepts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .bands import Bands


class Window(NamedTuple):
    """A rectangle of pixels; all zero-based, stops exclusive."""

    row_start: int
    row_stop: int
    col_start: int
    col_stop: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.row_stop - self.row_start, self.col_stop - self.col_start


@dataclass(frozen=True)
class Geo:
    """Everything that ties pixels to the ground, carried as the file gives it.

    Parameters
    ----------
    crs
        WKT (WKT2 where the file has it) or ``None``.
    transform
        Affine coefficients ``(a, b, c, d, e, f)``; ``None`` when the file has none.
    gcps, gcps_crs
        Ground control points as ``(row, col, x, y, z, id, info)``, and their CRS as WKT.
    rpcs
        Rational polynomial coefficients as the ``RPC`` tag strings, or ``None``.
    area_or_point
        ``"Area"``, ``"Point"`` or ``""`` when unsaid.
    """

    crs: str | None = None
    transform: tuple[float, ...] | None = None
    gcps: tuple[tuple[Any, ...], ...] = ()
    gcps_crs: str | None = None
    rpcs: Mapping[str, str] | None = None
    area_or_point: str = ""


@dataclass(frozen=True)
class Cube:
    """A scene, opened and described, its pixels still on disk.

    Use it as a context manager, or call `close`.

    Parameters
    ----------
    name
        The name it was opened by.
    format
        Driver of the container: ``"GTiff"``, ``"ENVI"``, ``"JP2OpenJPEG"``, ``"VRT"``...
    shape
        ``(bands, rows, cols)``.
    dtype
        NumPy dtype name of the pixels.
    nodata
        Per band, in the file's dtype; ``None`` where none is declared.
    scale, offset
        Per band, physical = raw * scale + offset. Carried, never applied.
    tags
        Dataset tags by namespace; ``""`` is the default namespace.
    band_tags
        The same for each band.
    on_show
        Makes HTML of it, for notebooks.
    layout
        How the file stores its pixels (interleave, blocks, compression, byte order), for the writer.
    """

    name: str
    format: str
    shape: tuple[int, int, int]
    dtype: str
    bands: Bands
    geo: Geo
    nodata: tuple[float | None, ...]
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    read_raw: Callable[[Window, Sequence[int]], NDArray[Any]] = field(repr=False)
    read_mask: Callable[[Window, Sequence[int]], NDArray[np.bool_]] | None = field(default=None, repr=False)
    tags: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    band_tags: tuple[Mapping[str, Mapping[str, str]], ...] = field(default=(), repr=False)
    layout: Mapping[str, Any] = field(default_factory=dict, repr=False)
    on_close: Callable[[], None] | None = field(default=None, repr=False)
    on_show: Callable[[Cube], str] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, pixels: NDArray[Any], nodata: float | None = None) -> Cube:
        """A cube of an array (bands, rows, cols) in memory."""
        bands = len(pixels)

        def read(window: Window, chosen: Sequence[int]) -> NDArray[Any]:
            return pixels[list(chosen), window.row_start : window.row_stop, window.col_start : window.col_stop]

        blank, one, zero = (nodata,) * bands, (1.0,) * bands, (0.0,) * bands
        return cls("array", "memory", pixels.shape, pixels.dtype.name, Bands(bands), Geo(), blank, one, zero, read)

    def __enter__(self) -> Cube:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the file."""
        if self.on_close is not None:
            self.on_close()

    def _repr_html_(self) -> str | None:
        return self.on_show(self) if self.on_show is not None else None

    def window(self) -> Window:
        """The whole scene as a window."""
        return Window(0, self.shape[1], 0, self.shape[2])

    def raw(self, window: Window | None = None, bands: Sequence[int] | None = None) -> NDArray[Any]:
        """Pixels ``(bands, rows, cols)`` in the file's own dtype; `bands` are zero-based.

        Raises
        ------
        ReadError
            The file turned out to be truncated or damaged.
        """
        return self.read_raw(window or self.window(), range(self.shape[0]) if bands is None else bands)

    def read(
        self, window: Window | None = None, bands: Sequence[int] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Pixels as float32 (raw units) and the validity of each sample.

        A sample is invalid when it equals its band's nodata (compared in the file's dtype), is not a finite float32,
        or is masked by the file's own mask or alpha band.
        """
        window = window or self.window()
        bands = range(self.shape[0]) if bands is None else bands
        raw = self.read_raw(window, bands)
        with np.errstate(over="ignore"):
            return raw.astype(np.float32), self.validity(raw, window, bands)

    def validity(self, raw: NDArray[Any], window: Window, bands: Sequence[int]) -> NDArray[np.bool_]:
        """Which samples of `raw`, read from `window` and `bands`, hold a measurement."""
        valid = np.ones(raw.shape, bool)
        if raw.dtype.kind == "f":
            with np.errstate(invalid="ignore"):
                valid = np.abs(raw) <= np.finfo(np.float32).max  # False for NaN too
        for i, band in enumerate(bands):
            nodata = self.nodata[band]
            if nodata is not None and np.isfinite(nodata):
                valid[i] &= raw[i] != np.array(nodata).astype(raw.dtype)
        if self.read_mask is not None:
            valid &= self.read_mask(window, bands)
        return valid
