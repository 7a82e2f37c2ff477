"""Denoise a scene: survey it, plan, denoise tile by tile, write rows as they are finished."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import __version__, gates
from .cube import Cube
from .errors import NoiseKindWarning, UsageError
from .outputs import check_targets, describe_outputs, differences, layout
from .rows import Core, output_rows
from .settings import RunOptions, to_dict, with_changes
from .tiles import strip_bytes

if TYPE_CHECKING:
    from .engine import Engine
    from .job import Job
    from .model.weights import WeightFile


class Elsewhere(NamedTuple):
    """What was made of a scene before, by other processes (`hsidenoise.batch.strips`).

    Parameters
    ----------
    job
        From `prepared`.
    cores
        Of all its tiles, in order.
    started
        When, in seconds since 1970.
    """

    job: Job
    cores: Iterable[Core]
    started: float


def run(
    scene: str | os.PathLike[str], output: str | os.PathLike[str], options: RunOptions | None = None, *,
    quiet: bool = False, elsewhere: Elsewhere | None = None, **changes: Any,
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
    elsewhere
        The scene's job and denoised tiles, where they are there already; what is left is to put them together.

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
    from .io import create_cube, open_cube

    options = with_changes(options or RunOptions(), changes)
    checks = gates.parse(options.fail_on)
    started = elsewhere.started if elsewhere else time.time()
    check_targets(scene, output, options)
    with opened(scene, options) as (cube, engine, file), ExitStack() as stack:
        if options.reference:
            with open_cube(options.reference) as reference:
                if reference.shape != cube.shape:
                    raise UsageError(
                        f"{options.reference}: has {reference.shape} bands, rows and columns, the scene {cube.shape}; "
                        "--reference must show the same grid"
                    )
        decided = describe_outputs(cube, output, options)
        job = elsewhere.job if elsewhere else prepared(cube, engine, options, decided["dtype"])
        cores = elsewhere.cores if elsewhere else None
        record = describe(scene, output, options, engine, job) | {
            "model": describe_model(engine, file), "started": _utc(started)
        }  # fmt: skip
        if options.dry_run:
            return record | {"plan": describe_plan(cube, job, engine) | {"output": decided}}
        provenance = {
            "software": f"hsidenoise {__version__}",
            "model": f"{engine.card.name} sha256:{record['model']['sha256'][:12] or 'none'}",
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
        for rows in output_rows(cube, job, engine, writer.dtype, record["tiles"], cores, quiet=quiet):
            record["samples_passed"] += rows.unusual
            writer.write(rows.start, rows.block)
            if residual is not None:
                # In float64: the difference of two large numbers would lose its digits in float32.
                removed = np.full(rows.raw.shape, np.nan)
                np.subtract(rows.raw, rows.block, dtype=np.float64, where=rows.valid, out=removed)
                residual.write(rows.start, removed.astype(np.float32))
    if options.stac:
        _stac(scene, output, options, decided["driver"], tags, provenance)
    record["seconds"] = round(max(time.time() - started, 0), 2)
    if options.report or options.reference or options.measure or checks:
        record["measured"] = _report(scene, output, options, record, copied=decided["driver"] == "copy")
        record["gates_met"] = gates.met(checks, record["measured"])
    return record


@contextmanager
def opened(scene: str | os.PathLike[str], options: RunOptions) -> Iterator[tuple[Cube, Engine, WeightFile]]:
    """The scene, and the network that is to denoise it on its device."""
    from .device import count
    from .io import gdal_env, open_cube
    from .model.weights import find

    find(options.model)
    count(options.device)
    with gdal_env(options.config), np.errstate(over="ignore"), open_cube(scene, options) as cube:
        # Only now what takes seconds to import: a slip in a name, or a file that is none, is told at once.
        from .device import pick
        from .engine import Engine
        from .model.weights import load

        file = find(options.model, sum(cube.bands.usable()))
        model, card = load(file)
        yield cube, Engine(model, card, pick(options.device), options.shifts), file


def prepared(cube: Cube, engine: Engine, options: RunOptions, dtype: str) -> Job:
    """What is to be done to an open scene whose output has this data type."""
    from .job import check_numbers, prepare, select_bands

    if "complex" in cube.layout:
        warnings.warn(
            f"{cube.name}: its real and imaginary parts are denoised; speckle, whose strength goes with the signal, is "
            "not the noise that is looked for",
            NoiseKindWarning, stacklevel=3,
        )  # fmt: skip
    job = prepare(cube, select_bands(options.bidx, cube), engine, options.tile)
    check_numbers(cube, job, dtype)
    return job


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
