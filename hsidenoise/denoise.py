"""Denoise a scene: survey it, plan, denoise tile by tile, write rows as they are finished."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import __version__, progress
from .cube import Cube, Window
from .errors import OutputExistsError, UsageError
from .samples import compose, fill, inside
from .settings import RunOptions, to_dict, with_changes
from .spectral import BandWindow, Normalisation, windows
from .survey import FAR, Survey, row_blocks, survey
from .tiles import StripBuffer, Tile, plan, strip_bytes

if TYPE_CHECKING:
    from .engine import Engine


@dataclass(frozen=True)
class Job:
    """What will be done to a scene, decided before the first tile.

    Parameters
    ----------
    windows
        Band windows that go through the network.
    normalisations
        One for each window.
    denoised
        Zero-based bands that are replaced.
    passed
        Why each other band is not, by zero-based index.
    tiles
        The tile plan.
    limits
        Least and greatest value of each band that goes through the network, (2, bands), raw units.
    survey
        What the scene's first pass found.
    """

    windows: list[BandWindow]
    normalisations: list[Normalisation]
    denoised: list[int]
    passed: dict[int, str]
    tiles: list[Tile]
    limits: NDArray[np.float64]
    survey: Survey


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
        numbers. With ``dry_run`` the plan alone.

    Raises
    ------
    HSIDenoiseError
        As drawn in `hsidenoise.errors`; then no output exists.
    """
    from .io import create_cube, gdal_env, open_cube

    options = with_changes(options or RunOptions(), changes)
    started = time.time()
    check_targets(scene, output, options)
    # Only now what takes seconds to import: a slip in a file name is told at once.
    from .device import pick
    from .engine import Engine
    from .model.weights import digest, find, load

    file = find(options.model)
    device = pick(options.device)
    model, card = load(file)
    engine = Engine(model, card, device, options.shifts)
    with gdal_env(options.config), np.errstate(over="ignore"), ExitStack() as stack:
        cube = stack.enter_context(open_cube(scene, nodata=options.nodata))
        if options.reference:
            with open_cube(options.reference) as reference:
                if reference.shape != cube.shape:
                    raise UsageError(
                        f"{options.reference}: has {reference.shape} bands, rows and columns, the scene {cube.shape}; "
                        "--reference must show the same grid"
                    )
        chosen = select_bands(options.bidx, cube.shape[0])
        decided = describe_outputs(cube, output, options)
        job = prepare(cube, chosen, engine, options.tile)
        check_numbers(cube, job, decided["dtype"])
        record: dict[str, Any] = {
            "scene": os.fspath(scene),
            "output": os.fspath(output),
            "options": to_dict(options),
            "model": {
                "name": card.name, "file": file.path.name, "sha256": file.sha256 or digest(file.path),
                "arch": card.arch, "parameters": sum(p.numel() for p in model.parameters()),
                "halo": card.halo, "floor": card.floor, "noise": list(card.noise), "licence": card.licence,
                "training": {k: v for k, v in card.training.items() if k not in ("scenes", "options")},
            },
            "device": str(device),
            "normalisation": {
                "method": card.normalisation,
                "windows": [[w.kept[0], w.kept[-1], n.low, n.high]
                            for w, n in zip(job.windows, job.normalisations, strict=True)],
            },
            "bands_denoised": job.denoised,
            "bands_passed": {str(b): why for b, why in job.passed.items()},
            "sigma_before": [float(s) for s in job.survey.sigma],
            "versions": versions(),
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        }  # fmt: skip
        if options.dry_run:
            return record | {"plan": describe_plan(cube, job, engine) | {"output": decided}}
        provenance = {
            "software": f"hsidenoise {__version__}",
            "model": f"{card.name} sha256:{record['model']['sha256'][:12]}",
            "source": os.path.basename(os.fspath(scene)),
            "bands": f"{len(job.denoised)} of {cube.shape[0]} denoised",
            "date": _stamp(),
        }
        writer = stack.enter_context(
            create_cube(output, cube, overwrite=options.overwrite, provenance=provenance, **_layout(options))
        )
        residual = None
        if options.residual:
            like = _differences(cube)
            residual = stack.enter_context(
                create_cube(options.residual, like, dtype="float32", overwrite=options.overwrite, provenance=provenance)
            )
        record |= {"tiles": [], "samples_passed": 0}
        for start, denoised in denoise_rows(cube, job, engine, record["tiles"], quiet=quiet):
            window = Window(start, start + denoised.shape[1], 0, cube.shape[2])
            raw = cube.raw(window)
            valid = cube.validity(raw, window, range(cube.shape[0]))
            usual = valid & inside(raw.astype(np.float32), job.limits)
            record["samples_passed"] += int(np.count_nonzero(valid[job.denoised] & ~usual[job.denoised]))
            block = compose(raw, valid, usual, denoised, job.denoised, writer.dtype, cube.nodata)
            writer.write(start, block)
            if residual is not None:
                # In float64: the difference of two large numbers would lose its digits in float32.
                removed = np.subtract(raw, block, dtype=np.float64, where=valid, out=np.full(raw.shape, np.nan))
                residual.write(start, removed.astype(np.float32))
    record["seconds"] = round(time.time() - started, 2)
    if options.report or options.reference:
        record["measured"] = _report(scene, output, options, record)
    return record


def check_targets(scene: str | os.PathLike[str], output: str | os.PathLike[str], options: RunOptions) -> None:
    """Refuse every output that may not be written, before anything is read."""
    from .io import check_output

    inputs = [scene, *([options.reference] if options.reference else [])]
    check_output(output, inputs=inputs, overwrite=options.overwrite, of=options.of)
    if options.residual:
        check_output(options.residual, inputs=[*inputs], overwrite=options.overwrite)
    report = report_files(options.report)
    if report and report[0].suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--report {report[0]}: name it .html; its numbers go to the same name with .json")
    _all_different([output, options.residual, *report])
    for path in report:
        if not path.parent.is_dir():
            raise UsageError(f"{path}: the folder {path.parent} does not exist; create it first")
        if path.exists() and not options.overwrite:
            raise OutputExistsError(f"{path}: exists; choose another name or give --overwrite")


def describe_outputs(cube: Cube, output: str | os.PathLike[str], options: RunOptions) -> dict[str, Any]:
    """What the output will be, as `hsidenoise.io.describe_output` says it; every option of it is checked by that.

    Raises
    ------
    UsageError
        An option the format cannot honour, or output and residual share a file (such as an ENVI header).
    """
    from .io import describe_output
    from .io.targets import occupied

    decided = describe_output(output, cube, **_layout(options))
    files = list(occupied(decided["path"], decided["driver"]))
    if options.residual:
        residual = describe_output(options.residual, _differences(cube), dtype="float32")
        files += occupied(residual["path"], residual["driver"])
    _all_different([*files, *report_files(options.report)])
    return decided


def check_numbers(cube: Cube, job: Job, dtype: str) -> None:
    """Refuse integers for pixels that are no number, unless there is a nodata value to stand for them."""
    to_integers = np.dtype(cube.dtype).kind == "f" and np.dtype(dtype).kind in "iu"
    if to_integers and cube.read_mask is None and None in cube.nodata and (job.survey.valid < 1).any():
        raise UsageError(f"--dtype {dtype}: the scene holds pixels that are no number; say by --nodata what they are")


def _layout(options: RunOptions) -> dict[str, Any]:
    return {"dtype": options.dtype, "nodata": options.nodata, "of": options.of, "co": options.co}


def _differences(cube: Cube) -> Cube:
    """What the residual has in common with the scene: a difference knows no offset, and NaN is its nodata."""
    return replace(cube, nodata=(float("nan"),) * cube.shape[0], offset=(0.0,) * cube.shape[0])


def _all_different(paths: Sequence[str | os.PathLike[str] | None]) -> None:
    names = [os.path.realpath(os.fspath(p)) for p in paths if p]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{name}: two outputs need this file; give them names that differ before the suffix")


def report_files(path: Path | None) -> list[Path]:
    """The report and its numbers, which share a name."""
    return [path, path.with_suffix(".json")] if path else []


def select_bands(text: str, count: int) -> set[int]:
    """``"1,5..40"`` as zero-based bands; all for an empty text.

    Raises
    ------
    UsageError
        Not such a list, or a band the scene does not have.
    """
    if not text:
        return set(range(count))
    chosen: set[int] = set()
    for part in text.split(","):
        first, dots, last = part.partition("..")
        try:
            low, high = int(first), int(last) if dots else int(first)
        except ValueError:
            raise UsageError(f"--bidx {text}: {part!r} is not a band number or a range a..b") from None
        if not 1 <= low <= high <= count:
            raise UsageError(f"--bidx {text}: {part} is outside of bands 1 to {count}")
        chosen.update(range(low - 1, high))
    return chosen


def prepare(cube: Cube, chosen: set[int], engine: Engine, tile: int) -> Job:
    """Survey the scene and decide what is done to it."""
    from .engine import FEATHER, automatic_tile
    from .probe import HARMFUL, removed_energy

    size = tile or automatic_tile(cube, engine)
    tiles = plan(*cube.shape[1:], size, halo=engine.card.halo, feather=FEATHER, align=engine.align)
    found = survey(cube)
    count = cube.shape[0]
    passed: dict[int, str] = {}
    usable = cube.bands.usable()
    for b in range(count):
        if cube.bands.roles and cube.bands.roles[b]:
            passed[b] = f"{cube.bands.roles[b]} band, no measurement"
        elif not usable[b]:
            passed[b] = "flagged bad"
        elif found.valid[b] == 0:
            passed[b] = "no valid pixel"
        elif found.constant[b]:
            passed[b] = "constant"
    live = [[b for b in group if b not in passed] for group in cube.bands.groups()]
    band_windows = windows([g for g in live if g], engine.model.config.bands)
    normalisations = [Normalisation.of(w, found.low, found.high) for w in band_windows]
    limits = np.stack([np.full(count, np.inf), np.full(count, -np.inf)])
    for window, normal in zip(band_windows, normalisations, strict=True):
        for b in window.kept:
            level = found.sigma[b] / normal.scale
            if np.isnan(level):
                passed[b] = "too few pixels to estimate its noise"
            elif level < engine.card.floor:
                passed[b] = f"noise {level:.2g} of the range, below the model's floor of {engine.card.floor:.2g}"
        bands = list(window.kept)
        limits[0, bands] = np.minimum(limits[0, bands], normal.low - FAR * normal.scale)
        limits[1, bands] = np.maximum(limits[1, bands], normal.low + (1 + FAR) * normal.scale)
    for b in set(range(count)) - chosen:
        passed.setdefault(b, "not selected")
    # Bands left alone still guide the others of their window; windows that hold no other are not needed.
    tried = [i for i, w in enumerate(band_windows) if set(w.kept) - set(passed)]
    removed = removed_energy(
        cube, [band_windows[i] for i in tried], [normalisations[i] for i in tried], limits, found, engine
    )
    for b in np.flatnonzero(removed > HARMFUL).tolist():
        passed.setdefault(b, f"the model would remove {removed[b]:.1f} times the energy of its noise")
    denoised = [b for b in range(count) if b not in passed]
    needed = [i for i in tried if set(band_windows[i].kept) & set(denoised)]
    return Job(
        [band_windows[i] for i in needed], [normalisations[i] for i in needed], denoised, passed, tiles, limits, found
    )


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
    needed = sorted({b for w in job.windows for b in w.bands})
    keep = [needed.index(b) for b in job.denoised]
    steps = len(job.tiles) * max(len(job.windows), 1)
    with progress.track(steps, "denoise", quiet=quiet, unit="window") as bar:
        for tile in job.tiles:
            values, valid = cube.read(Window(*tile.source), needed)
            valid &= inside(values, job.limits[:, needed])
            if valid.any():
                fill(values, valid, job.survey.low[needed])
                total, found = engine.block(values, needed, job.windows, job.normalisations, job.survey.sigma, bar)
            else:
                total, found = np.zeros_like(values), []
                bar.advance(len(job.windows))
            row, row_stop, col, col_stop = tile.core
            where = {"row": row, "col": col, "rows": row_stop - row, "cols": col_stop - col}
            records.append(where | (merge(found) if found else {"iterations": 0, "residual": 0.0, "converged": True}))
            done = buffer.add(tile, tile.crop(total[keep]))
            if done is not None:
                yield done


def describe_plan(cube: Cube, job: Job, engine: Engine) -> dict[str, Any]:
    """What ``--dry-run`` prints of the work."""
    from .engine import tile_bytes

    rows, cols = job.tiles[0].shape
    return {
        "tiles": len(job.tiles),
        "tile": [rows, cols],
        "halo": engine.card.halo,
        "band_windows": len(job.windows),
        "network_runs": len(job.tiles) * len(job.windows) * len(engine.shifts),
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


def _report(
    scene: str | os.PathLike[str], output: str | os.PathLike[str], options: RunOptions, record: Mapping[str, Any]
) -> dict[str, Any]:
    from .io import open_cube
    from .report import collect

    with ExitStack() as stack:
        before = stack.enter_context(open_cube(scene, nodata=options.nodata))
        after = stack.enter_context(open_cube(output))
        reference = stack.enter_context(open_cube(options.reference)) if options.reference else None
        report = collect(before, after, reference=reference, run=record)
    if options.report:
        report.write(options.report)
    return {k: v for k, v in report.to_json().items() if k in ("quality", "summary", "verdict", "sam_to_input")}


def _stamp() -> str:
    """UTC now, or SOURCE_DATE_EPOCH, so that archives can make the same bytes twice."""
    now = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
