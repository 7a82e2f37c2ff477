"""Tiles denoised one by one, and put together into the rows of the output as they are finished."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import progress
from .cube import Cube, Window
from .samples import compose
from .survey import row_blocks
from .tiles import StripBuffer, Tile

if TYPE_CHECKING:
    from .engine import Engine
    from .job import Job

#: A denoised tile's core (bands denoised, rows, cols) in raw units, and its convergence.
Core = tuple[NDArray[np.float32], dict[str, Any]]


class Rows(NamedTuple):
    """Finished rows of a scene.

    Parameters
    ----------
    start
        The first row.
    block
        The output's, (bands, rows, cols).
    raw, valid
        The input's, and which of its samples are measurements.
    unusual
        How many of those were left alone all the same.
    """

    start: int
    block: NDArray[Any]
    raw: NDArray[Any]
    valid: NDArray[np.bool_]
    unusual: int


def output_rows(
    cube: Cube, job: Job, engine: Engine, dtype: str, records: list[dict[str, Any]],
    cores: Iterable[Core] | None = None, *, quiet: bool = True,
) -> Iterator[Rows]:  # fmt: skip
    """The output, top to bottom: denoised where that is to be done, the input's own samples elsewhere."""
    for start, denoised in denoise_rows(cube, job, engine, records, cores, quiet=quiet):
        window = Window(start, start + denoised.shape[1], 0, cube.shape[2])
        raw = cube.raw(window)
        valid = cube.validity(raw, window, range(cube.shape[0]))
        usual = np.zeros_like(valid)
        usual[job.front.bands] = job.front.usual(raw[job.front.bands].astype(np.float32), 0)
        usual &= valid
        block = compose(raw, valid, usual, denoised, job.denoised, dtype, cube.nodata)
        yield Rows(start, block, raw, valid, int(np.count_nonzero(valid[job.denoised] & ~usual[job.denoised])))


def denoise_rows(
    cube: Cube, job: Job, engine: Engine, records: list[dict[str, Any]], cores: Iterable[Core] | None = None, *,
    quiet: bool = True,
) -> Iterator[tuple[int, NDArray[np.float32]]]:  # fmt: skip
    """Finished rows ``(row_start, (bands denoised, rows, cols))`` in raw units, top to bottom.

    The convergence of each tile is appended to `records`. `cores` are those of `denoise_tiles`, if they are there
    already.
    """
    if not job.denoised:
        for rows in row_blocks(cube):
            yield rows.row_start, np.empty((0, *rows.shape), np.float32)
        return
    buffer = StripBuffer(job.tiles, len(job.denoised))
    if cores is None:
        cores = denoise_tiles(cube, job, engine, job.tiles, quiet=quiet)
    for tile, (core, convergence) in zip(job.tiles, cores, strict=True):
        row, row_stop, col, col_stop = tile.core
        records.append({"row": row, "col": col, "rows": row_stop - row, "cols": col_stop - col} | convergence)
        done = buffer.add(tile, core)
        if done is not None:
            yield done


def denoise_tiles(cube: Cube, job: Job, engine: Engine, tiles: Sequence[Tile], *, quiet: bool = True) -> Iterator[Core]:
    """Each of some tiles of a job denoised, to itself: seams are blended by who puts them together."""
    from .engine import merge

    needed = job.front.bands
    keep = [needed.index(b) for b in job.denoised]
    with progress.track(len(tiles) * max(job.front.runs, 1), "denoise", quiet=quiet, unit="window") as bar:
        for tile in tiles:
            values, valid = cube.read(Window(*tile.source), needed)
            valid &= job.front.usual(values, tile.source[2])
            if valid.any():
                total, found = job.front.denoise(engine, values, valid, tile.source[2], bar)
            else:
                total, found = np.zeros_like(values), []
                bar.advance(job.front.runs)
            yield (
                tile.crop(total[keep]),
                merge(found) if found else {"iterations": 0, "residual": 0.0, "converged": True},
            )
