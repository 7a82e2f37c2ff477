"""One pass over a scene before it is denoised: ranges for the normalisation, noise, and what is not worth touching."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .cube import Cube, Window
from .noise import NoiseAccumulator
from .samples import inside

#: Pixels of a block of rows, all bands together, that is read at a time.
BLOCK_SAMPLES = 8_000_000
#: Samples of the rows that are kept, all bands together.
SAMPLE = 8_000_000
#: Edge of the blocks whose medians are taken before percentiles: noise must not widen a scene's range.
EDGE = 4
#: Block medians kept for the percentiles at most; and as many as it takes, or blocks are smaller.
MOST_BLOCKS, LEAST_BLOCKS = 20_000, 64
#: How many ranges outside of its band's range a sample is no measurement to go by, but a fill value nobody declared, a
#: broken pixel, or a glint. Noise as networks are trained on stays within 2 (five sigmas of 95/255).
FAR = 3.0


@dataclass(frozen=True)
class Survey:
    """What one pass found, per band and in raw units.

    Parameters
    ----------
    low, high
        0.1 and 99.9 percentiles of 4 x 4 block medians of valid pixels, in a small scene of smaller blocks; NaN
        without any. A fill value that nobody declared does not count, if it is the least or greatest value and lies
        far from the rest.
    sigma
        Noise standard deviation (`hsidenoise.noise.NoiseAccumulator`).
    constant
        Whether all valid pixels have one value.
    valid
        Fraction of valid pixels.
    sample, sample_valid
        Whole rows spread evenly over the scene, (bands, some rows, cols), zero where not valid; and where they are.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    sigma: NDArray[np.float64]
    constant: NDArray[np.bool_]
    valid: NDArray[np.float64]
    sample: NDArray[np.float32] = field(repr=False, compare=False)
    sample_valid: NDArray[np.bool_] = field(repr=False, compare=False)


def row_blocks(cube: Cube, step: int = 1) -> Iterator[Window]:
    """Full-width windows that cover the scene from top to bottom, a multiple of `step` rows each."""
    bands, rows, cols = cube.shape
    height = max(BLOCK_SAMPLES // (bands * cols) // step, 1) * step
    for start in range(0, rows, height):
        yield Window(start, min(start + height, rows), 0, cols)


def survey(cube: Cube) -> Survey:
    """Read the scene once, in blocks of rows; memory does not grow with its height."""
    bands, rows, cols = cube.shape
    noise = NoiseAccumulator(bands)
    least = np.full(bands, np.inf)
    most = np.full(bands, -np.inf)
    count = np.zeros(bands)
    low, high = np.full(bands, np.inf), np.full(bands, -np.inf)
    medians: list[NDArray[np.float32]] = []
    thin = max(rows * cols // EDGE**2 // MOST_BLOCKS, 1)
    edge = next((e for e in (EDGE, 2) if rows * cols >= LEAST_BLOCKS * e**2), 1)
    some = np.unique(np.linspace(0, rows - 1, min(rows, max(SAMPLE // (bands * cols), 1))).astype(int))
    sample = np.empty((bands, some.size, cols), np.float32)
    sample_valid = np.empty(sample.shape, bool)
    for window in row_blocks(cube, EDGE):
        block, valid = cube.read(window)
        kept = (some >= window.row_start) & (some < window.row_stop)
        taken = some[kept] - window.row_start
        sample_valid[:, kept] = valid[:, taken]
        sample[:, kept] = np.where(valid[:, taken], block[:, taken], 0)  # what is no measurement may be no number
        count += valid.sum((1, 2))
        least = np.minimum(least, np.where(valid, block, np.inf).min((1, 2)))
        most = np.maximum(most, np.where(valid, block, -np.inf).max((1, 2)))
        medians.append(block_medians(block, valid, thin, edge))
        here = ranges(medians[-1], least, most)
        low, high = np.fmin(low, here[0]), np.fmax(high, here[1])
        reach = FAR * (high - low)
        limits = np.where(high > low, [low - reach, high + reach], [[-np.inf], [np.inf]])
        valid &= inside(block, limits)  # one broken pixel of 1e20 would be all the noise there is
        block[~valid] = 0
        noise.add(block, valid)
    low, high = ranges(np.concatenate(medians, 1), least, most)
    return Survey(low, high, noise.sigma(), ~(most > least), count / (rows * cols), sample, sample_valid)


def ranges(medians: NDArray[np.float32], least: NDArray[np.float64], most: NDArray[np.float64]) -> NDArray[np.float64]:
    """Low and high of each band as `Survey` has them, (2, bands), from block medians and extreme values."""
    return np.array([_range(*band) for band in zip(medians, least, most, strict=True)]).reshape(-1, 2).T


def _range(medians: NDArray[np.float32], least: float, most: float) -> tuple[float, float]:
    values = medians[np.isfinite(medians)]
    if not values.size:
        return (least, most) if least <= most else (np.nan, np.nan)
    inner = values[(values > least) & (values < most)]
    if inner.size:
        low, high = np.percentile(inner, [0.1, 99.9])
        reach = FAR * (high - low)
        if reach > 0 and least < low - reach:
            values = values[values > least]
        if reach > 0 and most > high + reach:
            values = values[values < most]
    low, high = np.percentile(values.astype(np.float64), [0.1, 99.9])
    return float(low), float(high)


def block_medians(
    block: NDArray[np.float32], valid: NDArray[np.bool_], thin: int = 1, edge: int = EDGE
) -> NDArray[np.float32]:
    """Medians of the valid samples of every `thin`-th block of `edge` x `edge` pixels, (bands, blocks).

    Of an even number the lower one: a sample that was measured. NaN where fewer than half are valid.
    """
    bands, rows, cols = block.shape
    edges = min(edge, rows), min(edge, cols)
    down, across = rows // edges[0], cols // edges[1]
    inner = np.where(valid, block, np.float32(np.nan))[:, : down * edges[0], : across * edges[1]]
    cells = inner.reshape(bands, down, edges[0], across, edges[1]).transpose(0, 1, 3, 2, 4)
    cells = np.sort(cells.reshape(bands, down * across, -1)[:, ::thin], axis=2)  # NaN goes last
    count = np.isfinite(cells).sum(2)
    middle = np.take_along_axis(cells, np.maximum(count - 1, 0)[..., None] // 2, 2)[..., 0]
    medians: NDArray[np.float32] = np.where(2 * count >= edges[0] * edges[1], middle, np.float32(np.nan))
    return medians
