"""A trial on a few places of the scene: does the network help each band, or would it add more error than it removes?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .cube import Cube, Window
from .engine import Engine
from .frontends import Windows

#: Edge of a place, in pixels, and how many there are.
EDGE = 96
PLACES = 3
#: Removed energy over noise energy beyond which a band is left alone. What is removed is the noise minus the error
#: made; an error as large as the noise was shows as a ratio of 2, less what noise is left in the result.
HARMFUL = 1.5


def removed_energy(cube: Cube, front: Windows, sigma: NDArray[np.float64], engine: Engine) -> NDArray[np.float64]:
    """Mean square of what the network removes, over the noise's (`sigma`, raw units); per band, NaN where not tried.

    Removing exactly the noise gives 1. Much more means that image goes with it, whatever the reason: a sensor unlike
    the training data, a band whose noise is far below its neighbours', a level that drifts. What defects add is not
    counted.
    """
    if not front.runs:
        return np.full(cube.shape[0], np.nan)
    removed = np.zeros(cube.shape[0])
    count = np.zeros(cube.shape[0])
    bands = front.bands
    for window in places(*cube.shape[1:]):
        values, valid = cube.read(window, bands)
        valid &= front.usual(values, window.col_start)
        if not valid.any():
            continue
        noisy = front.mended(values, valid, window.col_start)
        clean, _ = front.denoise(engine, values, valid, window.col_start)
        difference = np.where(valid, noisy.astype(np.float64) - clean, 0)
        removed[bands] += np.square(difference).sum((1, 2))
        count[bands] += valid.sum((1, 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: NDArray[np.float64] = removed / count / sigma**2
    return ratio


def places(rows: int, cols: int) -> list[Window]:
    """Squares along the scene's diagonal, without repeats; a small scene is one."""
    found = []
    for at in np.linspace(0, 1, PLACES + 2)[1:-1]:
        row, col = (int(at * max(n - EDGE, 0)) for n in (rows, cols))
        window = Window(row, min(row + EDGE, rows), col, min(col + EDGE, cols))
        if window not in found:
            found.append(window)
    return found
