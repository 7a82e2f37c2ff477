"""A user's own scene, as finetuning sees it: squares to learn from, and others that are held back."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .cube import Cube, Window
from .errors import TrainingError
from .job import left_alone
from .recorruption import Strength
from .samples import fill
from .survey import survey

#: Edge of the largest squares a scene is cut into, of the smallest, and how many are learned from.
LARGEST, SMALLEST, MOST = 128, 16, 64
#: Edge of the area in the middle of a scene in which one square in four is held back.
AREA = 256
HELD = 4


@dataclass(frozen=True)
class Part:
    """A part of a scene.

    Parameters
    ----------
    noisy
        (bands, rows, cols), raw units, filled where there are no data.
    clean
        The same part of the reference, or None.
    """

    noisy: NDArray[np.float32]
    clean: NDArray[np.float32] | None


@dataclass(frozen=True)
class OwnScene:
    """What finetuning knows of a scene; all bands are its usable ones, in the scene's order.

    Parameters
    ----------
    name, digest
        Of the scene, and the first 16 hex digits of the sha256 of the training squares.
    groups
        Bands that are neighbours on the sensor.
    sigma
        Noise of each band, raw units.
    low, high
        Range of each band, raw units.
    strength
        How that noise varies with the signal.
    training
        Squares to learn from.
    area, held_back
        What is denoised to judge by, and the squares of it (rows, columns) that count: none of them in `training`.
    """

    name: str
    digest: str
    groups: Sequence[Sequence[int]]
    sigma: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    strength: Strength
    training: Sequence[Part]
    area: Part
    held_back: Sequence[tuple[slice, slice]]

    @property
    def scale(self) -> NDArray[np.float64]:
        """Range of each band, above zero."""
        return np.maximum(self.high - self.low, 1e-12)


def usable_bands(cube: Cube) -> int:
    """Bands in the cube's largest group that are measurements: a network need not have more."""
    passed = {b for b, good in enumerate(cube.bands.usable()) if not good}
    return max((len([b for b in g if b not in passed]) for g in cube.bands.groups()), default=0)


def own_scene(cube: Cube, name: str, reference: Cube | None = None) -> OwnScene:
    """Read a scene for finetuning.

    Parameters
    ----------
    cube
        The scene; squares spread evenly over it are kept in memory.
    reference
        A cleaner scene of the same grid.

    Raises
    ------
    TrainingError
        Too small, or without bands whose noise can be told.
    """
    rows, cols = cube.shape[1:]
    if (rows // SMALLEST) * (cols // SMALLEST) < 2:
        raise TrainingError(f"{name}: too small, {rows} x {cols}: it takes two squares of {SMALLEST} pixels at least")
    found = survey(cube)
    passed = set(left_alone(cube, found)) | set(np.flatnonzero(~(found.sigma > 0)).tolist())
    bands = [b for b in range(cube.shape[0]) if b not in passed]
    if not bands:
        raise TrainingError(f"{name}: has no band whose noise can be estimated")
    place = {b: i for i, b in enumerate(bands)}
    groups = [[place[b] for b in group if b in place] for group in cube.bands.groups()]
    low, high, sigma = (x[bands] for x in (found.low, found.high, found.sigma))
    area, held_back, others = divide(rows, cols)

    def part(window: Window) -> Part | None:
        values, valid = cube.read(window, bands)
        if valid.mean() < 0.9:
            return None
        fill(values, valid, low)
        if reference is None:
            return Part(values, None)
        clean, known = reference.read(window, bands)
        fill(clean, known, low)
        return Part(values, clean) if known[valid].all() else None

    training = [p for p in map(part, others) if p is not None]
    whole = part(area)
    if whole is None or not training:
        raise TrainingError(f"{name}: has too many pixels without data in the middle; crop it to where there are some")
    digest = hashlib.sha256(b"".join(p.noisy.tobytes() for p in training)).hexdigest()[:16]
    return OwnScene(
        name, digest, [g for g in groups if g], sigma, low, high, Strength.of(whole.noisy, sigma), training, whole,
        held_back,
    )  # fmt: skip


def divide(rows: int, cols: int) -> tuple[Window, list[tuple[slice, slice]], list[Window]]:
    """The area to judge in, the squares held back (relative to it), and squares to learn from, spread evenly."""
    edge = int(np.clip(min(rows, cols) // 2, SMALLEST, LARGEST))
    down, across = rows // edge, cols // edge
    high, wide = (min(n, max(AREA // edge, 1)) for n in (down, across))
    top, left = (down - high) // 2, (across - wide) // 2
    area = Window(top * edge, (top + high) * edge, left * edge, (left + wide) * edge)
    inner = [(i, j) for i in range(high) for j in range(wide)]
    held = inner[HELD - 1 :: HELD] or inner[-1:]
    apart = {(top + i, left + j) for i, j in held}
    cells = [(i, j) for i in range(down) for j in range(across) if (i, j) not in apart]
    count = min(len(cells), MOST)
    chosen = [cells[n * len(cells) // count] for n in range(count)]
    squares = [Window(i * edge, (i + 1) * edge, j * edge, (j + 1) * edge) for i, j in chosen]
    return area, [(np.s_[i * edge : (i + 1) * edge], np.s_[j * edge : (j + 1) * edge]) for i, j in held], squares
