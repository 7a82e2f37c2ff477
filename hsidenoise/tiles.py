"""Tile geometry: where to read, what to keep, and with which weight. No pixel is touched before it is planned.

Neighbouring tiles overlap. The seam lies in the middle of the overlap, `halo` pixels of context are discarded on
either side of it, and only `feather` pixels around it are blended, so that image borders keep weight 1 and every
pixel's weights sum to exactly 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise

import numpy as np
from numpy.typing import NDArray

from .errors import UsageError

Box = tuple[int, int, int, int]
"""``(row_start, row_stop, col_start, col_stop)``, zero-based, stops exclusive."""

# Weights are whole multiples of 1/4096. The product of a row and a column weight then needs 24 bits, which is what
# float32 has: products and sums are exact, and a sum of weights is 1 and not nearly 1.
_LEVELS = 4096


@dataclass(frozen=True)
class Span:
    """A tile along one axis.

    Parameters
    ----------
    start, stop
        What to read.
    core_start, core_stop
        What to keep, the feathers included.
    weights
        Blend weights over the core, float32, read-only.
    """

    start: int
    stop: int
    core_start: int
    core_stop: int
    weights: NDArray[np.float32] = field(compare=False, repr=False)


@dataclass(frozen=True)
class Tile:
    """A rectangle to denoise.

    Parameters
    ----------
    source
        What to read.
    core
        What to keep of it, half of each feather beyond the seam included.
    row_weights, col_weights
        Blend weights over the core, float32; the weight of a pixel is their product.
    """

    source: Box
    core: Box
    row_weights: NDArray[np.float32] = field(compare=False, repr=False)
    col_weights: NDArray[np.float32] = field(compare=False, repr=False)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns to read; the same for all tiles of a plan, so that batches stack."""
        return self.source[1] - self.source[0], self.source[3] - self.source[2]

    def crop(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """View of the core in a block ``(..., rows, cols)`` that covers the source."""
        top, left = self.source[0], self.source[2]
        return block[..., self.core[0] - top : self.core[1] - top, self.core[2] - left : self.core[3] - left]


@dataclass(frozen=True)
class Strip:
    """One row of tiles; once all are added, scene rows ``row_start:row_stop`` are complete."""

    tiles: tuple[Tile, ...]
    row_start: int
    row_stop: int


def smallest_size(halo: int, feather: int, align: int = 1) -> int:
    """Smallest tile edge that can cover a scene of any size larger than itself.

    An overlap of ``2 * halo + feather``, one step of `align`, and what rounding to `align` may take away.
    """
    return 2 * halo + feather + 2 * align - 1


def spans(length: int, size: int, *, halo: int, feather: int, align: int = 1) -> list[Span]:
    """Cover an axis with evenly spaced, overlapping spans of one common size.

    Parameters
    ----------
    length
        Samples along the axis. A `length` of at most `size` is one span.
    size
        Largest span. The spans take the largest size below it that is congruent to `length` modulo `align`: then
        all starts are multiples of `align`, all spans are equally long, and the last one ends at the border.
    halo
        Samples of context to discard on each side of a seam, at least.
    feather
        Samples to blend around a seam.
    align
        Starts are multiples of this.

    Raises
    ------
    ValueError
        Negative or zero lengths, or a `size` below `smallest_size` where several spans are needed.
    """
    if min(length, size, align) < 1 or min(halo, feather) < 0:
        raise ValueError(f"length {length}, size {size}, align {align}, halo {halo}, feather {feather} is no geometry")
    if length <= size:
        starts, size = [0], length
    elif size < smallest_size(halo, feather, align):
        raise ValueError(f"size {size} is below the minimum of {smallest_size(halo, feather, align)}")
    else:
        size -= (size - length) % align
        steps = (length - size) // align
        largest_step = (size - 2 * halo - feather) // align
        gaps = -(-steps // largest_step)
        starts = [align * (i * steps // gaps) for i in range(gaps + 1)]

    # First sample of each feather. Rounding down leaves the odd sample of context on the right.
    seams = [(a + b + size - feather) // 2 for a, b in pairwise(starts)]
    result = []
    for i, start in enumerate(starts):
        core_start = seams[i - 1] if i else 0
        core_stop = seams[i] + feather if i < len(seams) else length
        x = np.arange(core_start, core_stop)
        rise = _ramp(x - seams[i - 1], feather) if i else np.ones(x.size)
        fall = _ramp(x - seams[i], feather) if i < len(seams) else np.zeros(x.size)
        # Differences of successive ramps telescope to 1, even where short steps let three feathers overlap.
        weights = (rise - fall).astype(np.float32)
        weights.flags.writeable = False
        result.append(Span(start, start + size, core_start, core_stop, weights))
    return result


def _ramp(offset: NDArray[np.int_], feather: int) -> NDArray[np.float64]:
    """Raised cosine from 0 (`offset` < 0) to 1 (`offset` >= `feather`), in steps of 1 / _LEVELS."""
    phase = np.clip((offset + 0.5) / max(feather, 1), 0.0, 1.0)
    phase[offset < 0], phase[offset >= feather] = 0.0, 1.0
    ramp: NDArray[np.float64] = np.rint(_LEVELS * np.sin(np.pi / 2 * phase) ** 2) / _LEVELS
    return ramp


def plan(rows: int, cols: int, size: int, *, halo: int, feather: int, align: int = 1) -> list[Tile]:
    """Tiles that cover a scene, row by row of tiles.

    Parameters
    ----------
    rows, cols
        Size of the scene.
    size
        Tile edge in pixels, an upper limit; a side of the scene that is not longer is not divided.
    halo
        Pixels of context to discard on each side of a seam; the model's card states it.
    feather
        Pixels to blend around a seam.
    align
        Period of the network in pixels: the stride of its code grid, times the attention window where tile-wise
        windows are to coincide with those of the whole scene.

    Returns
    -------
    list of Tile
        All of the same shape.

    Raises
    ------
    UsageError
        `size` leaves nothing once halo and feather are taken away, or the scene is empty.
    """
    if rows < 1 or cols < 1:
        raise UsageError(f"a scene of {rows} rows and {cols} columns has no pixels to denoise; give another scene")
    minimum = smallest_size(halo, feather, align)
    if size < 1 or (max(rows, cols) > size and size < minimum):
        raise UsageError(
            f"--tile {size} is too small for this model (halo {halo}, feather {feather}, grid {align}); "
            f"use --tile {minimum} or more, or 0 to choose by memory"
        )
    across = spans(cols, size, halo=halo, feather=feather, align=align)
    return [
        Tile(
            source=(r.start, r.stop, c.start, c.stop),
            core=(r.core_start, r.core_stop, c.core_start, c.core_stop),
            row_weights=r.weights,
            col_weights=c.weights,
        )
        for r in spans(rows, size, halo=halo, feather=feather, align=align)
        for c in across
    ]


def strips(tiles: Sequence[Tile]) -> list[Strip]:
    """Group a plan by rows of tiles, with the scene rows that each completes."""
    grouped = [tuple(group) for _, group in groupby(tiles, key=lambda tile: tile.core[:2])]
    stops = [group[0].core[0] for group in grouped[1:]] + [grouped[-1][0].core[1]]
    return [Strip(group, group[0].core[0], stop) for group, stop in zip(grouped, stops, strict=True)]


def strip_bytes(tiles: Sequence[Tile], bands: int) -> int:
    """Bytes of the largest strip a `StripBuffer` hands out, pending feather rows included."""
    height = max(tile.core[1] - tile.core[0] for tile in tiles)
    return 4 * bands * height * max(tile.core[3] for tile in tiles)


class StripBuffer:
    """Blend tiles into the scene and hand out its rows as they are completed.

    It holds the strip in work, one row of tiles high, and after it only the feather rows of the next seam:
    memory does not grow with the height of the scene.

    Parameters
    ----------
    tiles
        The plan, whole and in order.
    bands
        Bands of the result.
    """

    def __init__(self, tiles: Sequence[Tile], bands: int) -> None:
        self._todo = [(strip, tile) for strip in strips(tiles) for tile in strip.tiles][::-1]
        self._bands = bands
        self._cols = max(tile.core[3] for tile in tiles)
        self._pending = np.zeros((bands, 0, self._cols), np.float32)
        self._strip: NDArray[np.float32] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        return self._pending.nbytes + (0 if self._strip is None else self._strip.nbytes)

    def add(self, tile: Tile, core: NDArray[np.float32]) -> tuple[int, NDArray[np.float32]] | None:
        """Add the next tile of the plan.

        Parameters
        ----------
        tile
            The next tile, in the order of the plan: sums are then the same in every run.
        core
            ``(bands, rows, cols)``, what `Tile.crop` leaves of the denoised tile.

        Returns
        -------
        tuple or None
            ``(row_start, block)`` when the tile completes rows: `block` is ``(bands, rows, all columns)`` and the
            caller's own. Blocks come in ascending order without gaps. Let go of it before the next tile is
            added, or two strips are in memory at a time.

        Raises
        ------
        ValueError
            Another tile was due, or `core` does not have its shape.
        """
        if not self._todo or self._todo[-1][1] != tile:
            due = self._todo[-1][1].source if self._todo else "none"
            raise ValueError(f"tile {tile.source} added, but {due} is due")
        row_start, row_stop, col_start, col_stop = tile.core
        if core.shape != (self._bands, row_stop - row_start, col_stop - col_start):
            raise ValueError(f"core of shape {core.shape} for tile {tile.core} and {self._bands} bands")
        strip, _ = self._todo.pop()
        if self._strip is None:
            self._strip = np.zeros((self._bands, row_stop - row_start, self._cols), np.float32)
            self._strip[:, : self._pending.shape[1]] = self._pending
        self._strip[:, :, col_start:col_stop] += core * np.multiply.outer(tile.row_weights, tile.col_weights)
        if tile != strip.tiles[-1]:
            return None
        complete = strip.row_stop - strip.row_start
        block, self._pending = self._strip[:, :complete], self._strip[:, complete:].copy()
        self._strip = None
        return strip.row_start, block
