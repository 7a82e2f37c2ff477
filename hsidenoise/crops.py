"""Random squares of cubes and photographs, and their turned and mirrored copies."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def crop(cube: NDArray[np.float32], edge: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """A random square, at half scale for one in four where the scene allows it; small scenes are mirrored."""
    if rng.random() < 0.25 and min(cube.shape[1:]) >= 2 * edge:
        return halve(square(cube, 2 * edge, rng))
    return square(cube, edge, rng)


def square(cube: NDArray[Any], edge: int, rng: np.random.Generator) -> NDArray[Any]:
    """A random square of (bands, rows, cols), mirrored at the ends where the cube is smaller."""
    short = [max(edge - n, 0) for n in cube.shape[1:]]
    if any(short):
        cube = np.pad(cube, ((0, 0), (0, short[0]), (0, short[1])), mode="reflect")
    row = int(rng.integers(cube.shape[1] - edge + 1))
    col = int(rng.integers(cube.shape[2] - edge + 1))
    return cube[:, row : row + edge, col : col + edge]


def halve(cube: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means of 2 x 2 pixels of (bands, rows, cols) of even size."""
    # Sums are ten times faster than a mean over two short axes.
    rows = cube[:, ::2] + cube[:, 1::2]
    return np.asarray((rows[..., ::2] + rows[..., 1::2]) / np.float32(4), np.float32)


def augment(patch: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """A copy turned and mirrored at random."""
    patch = np.rot90(patch, int(rng.integers(4)), (1, 2))
    if rng.random() < 0.5:
        patch = patch[:, :, ::-1]
    return np.array(patch, order="C")
