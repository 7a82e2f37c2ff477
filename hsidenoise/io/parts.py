"""Complex scenes as twice as many real bands: of each band the real part, then the imaginary part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bands import PARTS
from ..cube import Cube, Window
from .plan import Plan
from .sink import Sink

#: Drivers that write complex pixels.
DRIVERS = ("GTiff", "COG", "ENVI", "copy")
# Of a layout, what there is one of for each band.
_PER_BAND = ("descriptions", "units", "colorinterp")
# What is right for the complex pixels only.
_OF_THE_FILE = ("stored", "header", "copy", "suffixes")


def kind(cube: Cube) -> str:
    """Data type of the parts of complex pixels: float32, float64, or int16 of complex integers; of others their own.

    NumPy has no complex integers: such a file is read as complex64, and its layout says ``stored``.
    """
    if cube.layout.get("stored") == "complex_int16":
        return "int16"
    return np.empty(0, cube.dtype).real.dtype.name


def split(cube: Cube) -> Cube:
    """A complex cube of B bands as a real one of 2 B; ``layout["complex"]`` keeps the cube itself.

    A sample is invalid where its whole pixel is: not finite in either part, or the nodata value with no imaginary part.
    """
    twice = [b for b in range(cube.shape[0]) for _ in PARTS]
    names = cube.bands.names or tuple(f"band {b + 1}" for b in range(cube.shape[0]))
    named = tuple(f"{names[b]} {PARTS[i % 2]}".strip() for i, b in enumerate(twice))

    def twofold(values: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(values[b] for b in twice) if values else ()

    layout = {k: twofold(v) if k in _PER_BAND else v for k, v in cube.layout.items() if k not in _OF_THE_FILE}
    if "descriptions" in layout:
        layout["descriptions"] = named
    return replace(
        cube,
        shape=(len(twice), *cube.shape[1:]),
        dtype=kind(cube),
        bands=replace(cube.bands.select(twice), names=named),
        nodata=(None,) * len(twice),
        scale=twofold(cube.scale),
        offset=twofold(cube.offset),
        band_tags=twofold(cube.band_tags),
        read_raw=_reader(cube, kind(cube)),
        read_mask=_mask_reader(cube),
        layout=layout | {"complex": cube},
    )


def _reader(cube: Cube, dtype: str) -> Callable[[Window, Sequence[int]], NDArray[Any]]:
    def read_raw(window: Window, bands: Sequence[int]) -> NDArray[Any]:
        needed = sorted({b // 2 for b in bands})
        pixels = cube.read_raw(window, needed)
        part = [pixels[needed.index(b // 2)] for b in bands]
        halves = [p.imag if b % 2 else p.real for p, b in zip(part, bands, strict=True)]
        return np.array(halves, dtype).reshape(len(halves), *window.shape)

    return read_raw


def _mask_reader(cube: Cube) -> Callable[[Window, Sequence[int]], NDArray[np.bool_]]:
    def read_mask(window: Window, bands: Sequence[int]) -> NDArray[np.bool_]:
        needed = sorted({b // 2 for b in bands})
        pixels = cube.read_raw(window, needed)
        valid: NDArray[np.bool_] = np.isfinite(pixels)
        for i, band in enumerate(needed):
            nodata = cube.nodata[band]
            if nodata is not None and np.isfinite(nodata):
                valid[i] &= pixels[i] != pixels.dtype.type(nodata)
        if cube.read_mask is not None:
            valid &= cube.read_mask(window, needed)
        return valid[[needed.index(b // 2) for b in bands]]

    return read_mask


def whole(like: Cube, driver: str, dtype: str, bands: Sequence[int] | None) -> tuple[Cube, list[int] | None] | None:
    """The complex cube and its bands that an output takes, where `like` are its parts and the output can be complex."""
    cube: Cube | None = like.layout.get("complex")
    if cube is None or dtype or driver not in DRIVERS:
        return None
    if bands is None:
        return cube, None
    firsts = list(bands[::2])
    paired = list(bands[1::2]) == [b + 1 for b in firsts] and not any(b % 2 for b in firsts)
    return (cube, [b // 2 for b in firsts]) if paired else None


class Joined:
    """Takes rows of real and imaginary parts and hands complex ones on to a sink."""

    def __init__(self, sink: Sink, plan: Plan, like: Cube) -> None:
        self._sink, self._plan, self._like = sink, plan, like
        self.open, self.finish, self.discard = sink.open, sink.finish, sink.discard

    def write(self, row_start: int, block: NDArray[Any]) -> None:
        """See `hsidenoise.io.sink.Sink`."""
        pixels = np.empty((len(block) // 2, *block.shape[1:]), self._plan.dtype)
        pixels.real, pixels.imag = block[::2], block[1::2]
        step = 1 if block.dtype.kind == "i" else np.nextafter(block.dtype.type(0), block.dtype.type(1))
        for pixel, band, nodata in zip(pixels, self._plan.bands, self._plan.nodata, strict=True):
            hit = pixel == (np.nan if nodata is None else pixel.dtype.type(nodata))
            if hit.any():  # a measurement that lands on the nodata value moves one step off it
                window = Window(row_start, row_start + block.shape[1], 0, block.shape[2])
                _, valid = self._like.read(window, [2 * band])
                pixel.imag[hit & valid[0]] = step
        self._sink.write(row_start, pixels)
