"""One pass over a scene before it is denoised: ranges for the normalisation, noise, and what is not worth touching."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .cube import Cube, Window
from .noise import NoiseAccumulator

#: Pixels of a block of rows, all bands together, that is read at a time.
BLOCK_SAMPLES = 8_000_000
#: Edge of the blocks that are averaged before percentiles are taken: noise must not widen a scene's range.
MEAN_EDGE = 4
#: Block means kept for the percentiles.
MOST_MEANS = 20_000


@dataclass(frozen=True)
class Survey:
    """What one pass found, per band and in raw units.

    Parameters
    ----------
    low, high
        0.1 and 99.9 percentiles of 4 x 4 block means of valid pixels; NaN without any.
    sigma
        Noise standard deviation (`hsidenoise.noise.NoiseAccumulator`).
    constant
        Whether all valid pixels have one value.
    valid
        Fraction of valid pixels.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    sigma: NDArray[np.float64]
    constant: NDArray[np.bool_]
    valid: NDArray[np.float64]


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
    means: list[NDArray[np.float32]] = []
    thin = max(rows * cols // MEAN_EDGE**2 // MOST_MEANS, 1)
    for window in row_blocks(cube, MEAN_EDGE):
        block, valid = cube.read(window)
        block[~valid] = 0
        noise.add(block, valid)
        count += valid.sum((1, 2))
        least = np.minimum(least, np.where(valid, block, np.inf).min((1, 2)))
        most = np.maximum(most, np.where(valid, block, -np.inf).max((1, 2)))
        means.append(block_means(block, valid)[:, ::thin])
    sampled = np.concatenate(means, 1)
    low, high = np.full(bands, np.nan), np.full(bands, np.nan)
    for b in range(bands):
        values = sampled[b][np.isfinite(sampled[b])]
        if values.size:
            low[b], high[b] = np.percentile(values, [0.1, 99.9])
        elif count[b]:
            low[b], high[b] = least[b], most[b]
    return Survey(low, high, noise.sigma(), ~(most > least), count / (rows * cols))


def block_means(block: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Means of the valid samples of 4 x 4 blocks, (bands, blocks); NaN where fewer than half are valid."""
    bands, rows, cols = block.shape
    edges = min(MEAN_EDGE, rows), min(MEAN_EDGE, cols)
    rows, cols = rows // edges[0] * edges[0], cols // edges[1] * edges[1]
    shape = (bands, rows // edges[0], edges[0], cols // edges[1], edges[1])
    count = valid[:, :rows, :cols].reshape(shape).sum((2, 4))
    total = block[:, :rows, :cols].reshape(shape).sum((2, 4), dtype=np.float32)
    enough = 2 * count >= edges[0] * edges[1]
    return np.where(enough, total / np.maximum(count, 1), np.float32(np.nan)).reshape(bands, -1).astype(np.float32)
