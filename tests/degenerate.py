"""Scenes at the edge of what a scene can be: each with its truth, where noise was added to one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tiny
from numpy.typing import NDArray

SIGMA = 0.03


@dataclass(frozen=True)
class Scene:
    """Pixels as they are stored, what they are without noise, and where the two can be compared."""

    pixels: NDArray[Any]
    truth: NDArray[np.float64]
    judged: NDArray[np.bool_]
    nodata: float | None = None


def scene(bands: int = 40, rows: int = 36, cols: int = 44, *, sigma: float = SIGMA) -> Scene:
    """Smooth materials and white noise, float32."""
    pixels = tiny.cube(bands, rows, cols, sigma=sigma).astype(np.float32)
    return Scene(pixels, tiny.clean(bands, rows, cols), np.ones(pixels.shape, bool))


def spoilt(value: float, **size: int) -> Scene:
    """Some samples, one row of a band and one whole pixel hold this value."""
    made = scene(**size)
    made.pixels[3, ::7, ::5] = value
    made.pixels[5, 10] = value
    made.pixels[:, 20, 20] = value
    return Scene(made.pixels, made.truth, ~np.isin(made.pixels, np.float32(value)) & np.isfinite(made.pixels))


def one_sample(value: float) -> Scene:
    made = scene()
    made.pixels[7, 11, 13] = value
    return Scene(made.pixels, made.truth, made.pixels != np.float32(value))


def filled(value: float, nodata: float | None = None, *, bands: int = 5) -> Scene:
    pixels = np.full((bands, 12, 14), value, np.float32)
    return Scene(pixels, np.zeros(pixels.shape), np.zeros(pixels.shape, bool), nodata)


def constant_bands() -> Scene:
    made = scene()
    made.pixels[[0, 8, 39]] = 0.25
    made.truth[[0, 8, 39]] = 0.25
    return made


def typed(dtype: str, factor: float, offset: float = 0.0) -> Scene:
    made = scene(20, 20, 24)
    scaled = made.pixels.astype(np.float64) * factor + offset
    pixels = np.rint(scaled).astype(dtype) if np.dtype(dtype).kind in "iu" else scaled.astype(dtype)
    return Scene(pixels, made.truth * factor + offset, made.judged)


def one_valid() -> Scene:
    made = scene(6, 12, 14)
    judged = np.zeros(made.pixels.shape, bool)
    judged[:, 5, 6] = True
    made.pixels[~judged] = -9999
    return Scene(made.pixels, made.truth, judged, -9999)


def half_dead(value: float) -> Scene:
    made = scene()
    made.pixels[12, :, :22] = made.truth[12, :, :22] = value
    return made


def everything() -> Scene:
    """Inf, rows of NaN, one huge sample and a half-dead band at once."""
    made = half_dead(1e-30)
    made.pixels[2, 4, 4] = np.inf
    made.pixels[6, 30:32] = np.nan
    made.pixels[9, 15, 15] = 1e30
    return Scene(made.pixels, made.truth, np.isfinite(made.pixels) & (made.pixels < 1e30))


def nearly_constant() -> Scene:
    """Bands of one value but for one sample, of two values, and of one row."""
    made = scene()
    for pixels in (made.pixels, made.truth):
        pixels[[4, 9, 14, 19, 24]] = 0
        pixels[4, 11, 13] = 1
        pixels[9] = 0.25
        pixels[14, :, 30:] = 1
        pixels[19, 7] = 1e-3 * np.arange(44)
        pixels[24, 30, 30] = 1e-38
    made.pixels[9, 11, 13] = 1e30
    made.judged[9, 11, 13] = False
    return made


def copied() -> Scene:
    made = scene()
    made.pixels[21], made.truth[21] = made.pixels[20], made.truth[20]
    return made


def streaks() -> Scene:
    """One band has no difference from column to column at all."""
    made = scene()
    made.pixels[17] = made.pixels[17, :, :1]
    made.truth[17] = made.pixels[17]
    return made


def checkerboard() -> Scene:
    made = scene()
    judged = np.broadcast_to(np.indices((36, 44)).sum(0) % 2 == 0, made.pixels.shape)
    made.pixels[~judged] = -1
    return Scene(made.pixels, made.truth, judged, -1)


def two_nodata() -> Scene:
    """One nodata value is declared; a second one nobody declared fills a corner."""
    made = scene()
    made.pixels[:, :8, :8] = -9999
    made.pixels[:, -8:, -8:] = -32768
    return Scene(made.pixels, made.truth, made.pixels > -100, -9999)


def striped() -> Scene:
    """An offset of its own for each column of each band, twice the noise."""
    made = scene()
    made.pixels[:] += 2 * SIGMA * np.random.default_rng(5).standard_normal((40, 1, 44)).astype(np.float32)
    return made


SCENES: dict[str, Callable[[], Scene]] = {
    "nan": lambda: spoilt(np.nan),
    "inf": lambda: spoilt(np.inf),
    "minus_inf": lambda: spoilt(-np.inf),
    "1e30": lambda: spoilt(1e30),
    "3e38": lambda: spoilt(3e38),
    "minus_3e38": lambda: spoilt(-3e38),
    "one_1e30": lambda: one_sample(1e30),
    "one_3e38": lambda: one_sample(3e38),
    "all_1e30": lambda: typed("float32", 1e30),
    "all_3e38": lambda: typed("float32", 2.2e38),
    "all_tiny": lambda: typed("float32", 1e-35),
    "constant_bands": constant_bands,
    "nearly_constant": nearly_constant,
    "constant": lambda: filled(7.0),
    "zero": lambda: filled(0.0),
    "all_nodata": lambda: filled(-9999, -9999),
    "all_nan": lambda: filled(np.nan),
    "all_inf": lambda: filled(np.inf),
    "one_pixel": lambda: scene(40, 1, 1),
    "one_row": lambda: scene(40, 1, 44),
    "one_column": lambda: scene(40, 36, 1),
    "two_by_two": lambda: scene(40, 2, 2),
    "three_by_three": lambda: scene(10, 3, 3),
    "two_rows": lambda: scene(12, 2, 60),
    "below_a_patch": lambda: scene(20, 5, 6),
    "below_a_halo": lambda: scene(20, 9, 70),
    "one_band": lambda: scene(1),
    "one_band_one_pixel": lambda: scene(1, 1, 1),
    "two_bands": lambda: scene(2),
    "three_bands": lambda: scene(3),
    "1000_bands": lambda: scene(1000, 16, 16),
    "int8": lambda: typed("int8", 100),
    "uint8": lambda: typed("uint8", 200),
    "int16": lambda: typed("int16", 10_000),
    "uint16": lambda: typed("uint16", 50_000),
    "int32": lambda: typed("int32", 2_000_000_000),
    "uint32": lambda: typed("uint32", 4_000_000_000),
    "int64": lambda: typed("int64", 1e17, -(2.0**60)),
    "uint64": lambda: typed("uint64", 1e18, 2.0**63),
    "float64": lambda: typed("float64", 1.0),
    "float64_1e300": lambda: typed("float64", 1e300),
    "one_valid": one_valid,
    "half_dead": lambda: half_dead(1e-30),
    "half_zero": lambda: half_dead(0.0),
    "half_saturated": lambda: half_dead(1.5),
    "everything": everything,
    "copy": copied,
    "noise_free": lambda: scene(sigma=0.0),
    "checkerboard": checkerboard,
    "two_nodata": two_nodata,
    "striped": striped,
    "streaks": streaks,
}
