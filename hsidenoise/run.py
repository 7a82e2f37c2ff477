"""Denoise a scene: survey it, plan, denoise tile by tile, write rows as they are finished."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import __version__, gates, progress
from .cube import Cube, Window
from .errors import NoiseKindWarning, UsageError
from .outputs import check_targets, describe_outputs, differences, layout
from .samples import compose
from .settings import RunOptions, to_dict, with_changes
from .survey import row_blocks
from .tiles import StripBuffer, strip_bytes

if TYPE_CHECKING:
    from .engine import Engine
    from .job import Job
    from .model.weights import WeightFile


def run(
    scene: str | os.PathLike[str], output: str | os.PathLike[str], options: RunOptions | None = None, *,
    quiet: bool = False, **changes: Any,
) -> dict[str, Any]:  # fmt: skip
    """Denoise a scene into a file that keeps everything else.

    Parameters
    ----------
    scene
        A file `hsidenoise.io.open_cube` knows.
    output
        Where the result goes; its suffix chooses the format unless ``of`` does.
    options
        See `RunOptions`; `changes` are applied to it.
    quiet
        No progress.

    Returns
    -------
    dict
        The record of the run: options, model, bands, tiles, seconds, and with a report or a reference the measured
        numbers and the gates of ``fail_on`` that were met. With ``dry_run`` the plan alone.

    Raises
    ------
    HSIDenoiseError
        As drawn in `hsidenoise.errors`; then no output exists.
    """
    from .io import create_cube, gdal_env, open_cube

    options = with_changes(options or RunOptions(), changes)
    checks = gates.parse(options.fail_on)
    started = time.time()
    check_targets(scene, output, options)
    # Only now what takes seconds to import: a slip in a file name is told at once.
    from .device import pick
    from .engine import Engine
    from .job import check_numbers, prepare, select_bands
    from .model.weights import find, load

    file = find(options.model)
    device = pick(options.device)
    model, card = load(file)
    engine = Engine(model, card, device, options.shifts)
    with gdal_env(options.config), np.errstate(over="ignore"), ExitStack() as stack:
        cube = stack.enter_context(open_cube(scene, options))
        if "complex" in cube.layout:
            warnings.warn(
                f"{cube.name}: its real and imaginary parts are denoised; speckle, whose strength goes with the "
                "signal, is not the noise that is looked for",
                NoiseKindWarning, stacklevel=2,
            )  # fmt: skip
        if options.reference:
            with open_cube(options.reference) as reference:
                if reference.shape != cube.shape:
                    raise UsageError(
                        f"{options.reference}: has {reference.shape} bands, rows and columns, the scene {cube.shape}; "
                        "--reference must show the same grid"
                    )
        chosen = select_bands(options.bidx, cube)
        decided = describe_outputs(cube, output, options)
        job = prepare(cube, chosen, engine, options.tile)
        check_numbers(cube, job, decided["dtype"])
        record = describe(scene, output, options, engine, job) | {
            "model": describe_model(engine, file), "started": _utc(started)
        }  # fmt: skip
        if options.dry_run:
            return record | {"plan": describe_plan(cube, job, engine) | {"output": decided}}
        provenance = {
            "software": f"hsidenoise {__version__}",
            "model": f"{card.name} sha256:{record['model']['sha256'][:12] or 'none'}",
            "source": os.path.basename(os.path.normpath(scene)),
            "bands": f"{len(job.denoised)} of {cube.shape[0]} denoised",
            "date": _stamp(),
        }
        writer = stack.enter_context(
            create_cube(output, cube, overwrite=options.overwrite, provenance=provenance, **layout(options))
        )
        residual = None
        if options.residual:
            like = differences(cube)
            residual = stack.enter_context(
                create_cube(options.residual, like, dtype="float32", overwrite=options.overwrite, provenance=provenance)
            )
        record |= {"tiles": [], "samples_passed": 0}
        tags = cube.tags
        for rows in output_rows(cube, job, engine, writer.dtype, record["tiles"], quiet=quiet):
            record["samples_passed"] += rows.unusual
            writer.write(rows.start, rows.block)
            if residual is not None:
                # In float64: the difference of two large numbers would lose its digits in float32.
                removed = np.full(rows.raw.shape, np.nan)
                np.subtract(rows.raw, rows.block, dtype=np.float64, where=rows.valid, out=removed)
                residual.write(rows.start, removed.astype(np.float32))
    if options.stac:
        _stac(scene, output, options, decided["driver"], tags, provenance)
    record["seconds"] = round(time.time() - started, 2)
    if options.report or options.reference or options.measure or checks:
        record["measured"] = _report(scene, output, options, record, copied=decided["driver"] == "copy")
        record["gates_met"] = gates.met(checks, record["measured"])
    return record


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
    cube: Cube, job: Job, engine: Engine, dtype: str, records: list[dict[str, Any]], *, quiet: bool = True
) -> Iterator[Rows]:
    """The output, top to bottom: denoised where that is to be done, the input's own samples elsewhere."""
    for start, denoised in denoise_rows(cube, job, engine, records, quiet=quiet):
        window = Window(start, start + denoised.shape[1], 0, cube.shape[2])
        raw = cube.raw(window)
        valid = cube.validity(raw, window, range(cube.shape[0]))
        usual = np.zeros_like(valid)
        usual[job.front.bands] = job.front.usual(raw[job.front.bands].astype(np.float32), 0)
        usual &= valid
        block = compose(raw, valid, usual, denoised, job.denoised, dtype, cube.nodata)
        yield Rows(start, block, raw, valid, int(np.count_nonzero(valid[job.denoised] & ~usual[job.denoised])))


def denoise_rows(
    cube: Cube, job: Job, engine: Engine, records: list[dict[str, Any]], *, quiet: bool = True
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Finished rows ``(row_start, (bands denoised, rows, cols))`` in raw units, top to bottom.

    The convergence of each tile is appended to `records`.
    """
    from .engine import merge

    if not job.denoised:
        for rows in row_blocks(cube):
            yield rows.row_start, np.empty((0, *rows.shape), np.float32)
        return
    buffer = StripBuffer(job.tiles, len(job.denoised))
    needed = job.front.bands
    keep = [needed.index(b) for b in job.denoised]
    steps = len(job.tiles) * max(job.front.runs, 1)
    with progress.track(steps, "denoise", quiet=quiet, unit="window") as bar:
        for tile in job.tiles:
            values, valid = cube.read(Window(*tile.source), needed)
            valid &= job.front.usual(values, tile.source[2])
            if valid.any():
                total, found = job.front.denoise(engine, values, valid, tile.source[2], bar)
            else:
                total, found = np.zeros_like(values), []
                bar.advance(job.front.runs)
            row, row_stop, col, col_stop = tile.core
            where = {"row": row, "col": col, "rows": row_stop - row, "cols": col_stop - col}
            records.append(where | (merge(found) if found else {"iterations": 0, "residual": 0.0, "converged": True}))
            done = buffer.add(tile, tile.crop(total[keep]))
            if done is not None:
                yield done


def describe(
    scene: str | os.PathLike[str], output: str | os.PathLike[str], options: RunOptions, engine: Engine, job: Job
) -> dict[str, Any]:
    """The record of a run before it starts; bands are zero-based."""
    return {
        "scene": os.fspath(scene),
        "output": os.fspath(output),
        "options": to_dict(options),
        "device": str(engine.device),
        "normalisation": {"method": engine.card.normalisation} | job.front.describe(),
        "bands_denoised": job.denoised,
        "bands_passed": {str(b): why for b, why in job.passed.items()},
        "sigma_before": [float(s) for s in job.sigma],
        "limits": [[float(a), float(b)] if a <= b else None for a, b in job.limits.T],
        "versions": versions(),
    }


def describe_model(engine: Engine, file: WeightFile) -> dict[str, Any]:
    """What of the weights' card belongs in the record of a run."""
    from .model.weights import digest

    card = engine.card
    return {
        "name": card.name,
        "file": file.path.name if file.path else "",
        "sha256": file.sha256 or (digest(file.path) if file.path else ""),
        "arch": card.arch,
        "parameters": sum(p.numel() for p in engine.model.parameters()),
        "halo": card.halo,
        "floor": card.floor,
        "noise": list(card.noise),
        "licence": card.licence,
        "training": {k: v for k, v in card.training.items() if k not in ("scenes", "options")},
    }


def describe_plan(cube: Cube, job: Job, engine: Engine) -> dict[str, Any]:
    """What ``--dry-run`` prints of the work."""
    from .engine import tile_bytes

    rows, cols = job.tiles[0].shape
    return {
        "tiles": len(job.tiles),
        "tile": [rows, cols],
        "halo": engine.card.halo,
        "band_windows": job.front.runs,
        "network_runs": len(job.tiles) * job.front.runs * len(engine.shifts),
        "memory_bytes": tile_bytes(engine, cube.shape[0], max(rows, cols)) + 2 * strip_bytes(job.tiles, cube.shape[0]),
    }


def versions() -> dict[str, str]:
    """Of everything that shapes the numbers."""
    import rasterio
    import torch

    return {
        "hsidenoise": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "rasterio": rasterio.__version__,
        "gdal": rasterio.__gdal_version__,
    }


def _stac(
    scene: str | os.PathLike[str], output: str | os.PathLike[str], options: RunOptions, driver: str,
    tags: Mapping[str, Mapping[str, str]], provenance: Mapping[str, str],
) -> None:  # fmt: skip
    from .io import open_cube, stac

    assert options.stac is not None
    with open_cube(output, options if driver == "copy" else None) as written:
        stac.write(options.stac, written, driver, tags=tags, scene=os.fspath(scene), provenance=provenance)


def _report(
    scene: str | os.PathLike[str], output: str | os.PathLike[str], options: RunOptions, record: Mapping[str, Any], *,
    copied: bool,
) -> dict[str, Any]:  # fmt: skip
    from .io import open_cube
    from .report import collect

    with ExitStack() as stack:
        before = stack.enter_context(open_cube(scene, options))
        # Only a copy of the input needs to be told again which of its arrays is the scene.
        after = stack.enter_context(open_cube(output, options if copied else None))
        reference = stack.enter_context(open_cube(options.reference)) if options.reference else None
        report = collect(before, after, reference=reference, run=record)
    if options.report:
        report.write(options.report)
    kept = ("quality", "summary", "verdict", "sam_to_input", "convergence")
    return {k: v for k, v in report.to_json().items() if k in kept}


def _stamp() -> str:
    """UTC now, or SOURCE_DATE_EPOCH, so that archives can make the same bytes twice."""
    return _utc(int(os.environ.get("SOURCE_DATE_EPOCH", time.time())))


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
