"""One scene for many workers: its statistics are found once, its tiles denoised in strips, its file made by one.

Strips are tiles that follow each other in the plan, so that nothing is computed twice and no sum in another order: the
output is that of one process, bit for bit. Their tiles go through files in a folder beside the output, in the machine's
own float32 and nothing else; what of that is done is not done again when a worker is lost.
"""

from __future__ import annotations

import json
import math
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import progress
from ..errors import ReadError, WriteError
from ..job import Job
from ..outputs import check_targets, describe_outputs
from ..rows import Core, denoise_tiles
from ..run import Elsewhere, opened
from ..run import prepared as job_of
from ..tiles import Tile
from .workers import Answer, GivenUpError, Task, attempt, guarded


class Start(NamedTuple):
    """What the strips of a scene have in common: its job, when that was begun, and a name for just this one."""

    name: str
    job: Job
    started: float

    def tiles(self, number: int, count: int) -> Sequence[Tile]:
        """Those of strip `number` of `count`, counted from zero."""
        tiles = self.job.tiles if self.job.denoised else []
        return tiles[number * len(tiles) // count : (number + 1) * len(tiles) // count]


class Part(NamedTuple):
    """A strip that is done: for which `Start`, and the convergence of each tile."""

    name: str
    convergence: list[dict[str, Any]]


def too_large(task: Task, limit: float) -> bool:
    """Whether a scene has more bytes of samples than that."""
    from ..io import gdal_env, open_cube

    with gdal_env(task.options.config), open_cube(task.source, task.options) as cube:
        return math.prod(cube.shape) * np.dtype(cube.dtype).itemsize > limit


def prepared(task: Task, folder: Path) -> Answer:
    """Survey the scene: a `Start`."""

    def work() -> Start:
        started = time.time()
        check_targets(task.source, task.output, task.options)
        with opened(task.source, task.options) as (cube, engine, _):
            decided = describe_outputs(cube, task.output, task.options)
            job = job_of(cube, engine, task.options, decided["dtype"])
        _room(folder, job, decided["bytes"])
        return Start(secrets.token_hex(8), job, started)

    return guarded(task.source, work)


def _room(folder: Path, job: Job, size: int) -> None:
    need = size + sum(4 * math.prod(_shape(job, tile)) for tile in job.tiles)
    free = shutil.disk_usage(folder).free
    if need > free:
        raise WriteError(
            f"{folder.parent}: needs {need / 2**30:,.2f} GiB for a scene and its strips, the disk has "
            f"{free / 2**30:,.2f} GiB left; make room, or take one worker for it (--split 0)"
        )


def _shape(job: Job, tile: Tile) -> tuple[int, int, int]:
    row, row_stop, col, col_stop = tile.core
    return len(job.denoised), row_stop - row, col_stop - col


def strip(task: Task, before: Answer, folder: Path, number: int, count: int) -> Answer:
    """Denoise one strip into the folder: a `Part`."""
    status, start = before
    if status != "done":
        return before

    def work() -> Part:
        tiles = start.tiles(number, count)
        pixels, record = _files(folder, start, number)
        if record.exists():  # done by a worker that was lost since
            return Part(start.name, json.loads(record.read_text()))
        convergence: list[dict[str, Any]] = []
        if not tiles:
            return Part(start.name, convergence)
        temporary = pixels.with_suffix(f".{secrets.token_hex(4)}")
        try:
            with opened(task.source, task.options) as (cube, engine, _):
                for core, found in denoise_tiles(cube, start.job, engine, tiles):
                    convergence.append(found)
                    with _writing(folder), temporary.open("ab") as file:
                        file.write(np.ascontiguousarray(core).data)
            with _writing(folder):
                temporary.rename(pixels)
                temporary.write_text(json.dumps(convergence))
                temporary.rename(record)
        finally:
            with suppress(OSError):
                temporary.unlink()
        return Part(start.name, convergence)

    return guarded(task.source, work)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise GivenUpError("its strips were dropped") from error
    except OSError as error:
        raise WriteError(f"{folder}: cannot be written ({error.strerror or error})") from error


def _files(folder: Path, start: Start, number: int) -> tuple[Path, Path]:
    """Where the tiles of a strip go, and their convergence: that is written last."""
    return folder / f"{start.name}-{number}.f32", folder / f"{start.name}-{number}.json"


def assembled(task: Task, before: Answer, folder: Path, parts: Sequence[Answer]) -> Answer:
    """Make the output of the strips."""
    for status, detail in (before, *parts):
        if status != "done":
            return status, detail
    start: Start = before[1]
    if any(part.name != start.name for _, part in parts):
        return "died", {"error": f"{task.source}: the workers that knew its statistics were lost"}
    elsewhere = Elsewhere(start.job, _cores(start, folder, [part.convergence for _, part in parts]), start.started)
    status, detail = attempt(task, elsewhere)
    return status, detail | ({"strips": len(parts)} if status == "done" else {})


def _cores(start: Start, folder: Path, convergence: Sequence[list[dict[str, Any]]]) -> Iterator[Core]:
    """The tiles of all strips, in order."""
    with progress.track(len(start.job.tiles), "assemble", quiet=True) as bar:
        for number, found in enumerate(convergence):
            if not found:
                continue
            with _files(folder, start, number)[0].open("rb") as file:
                for tile, record in zip(start.tiles(number, len(convergence)), found, strict=True):
                    shape = _shape(start.job, tile)
                    core = np.fromfile(file, np.float32, math.prod(shape))
                    if core.size != math.prod(shape):
                        raise ReadError(f"{file.name}: is cut short; repeat the command")
                    yield core.reshape(shape), record
                    bar.advance()
