"""How good a model is: noise is added to clean cubes, taken off again, and what is left is measured."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import metrics
from .cube import Cube
from .device import pick
from .engine import Engine
from .errors import OutputExistsError, UsageError
from .job import prepare
from .model.weights import find, load
from .noise import PATTERNS, add_noise
from .settings import EvaluateOptions, with_changes

Pixels = NDArray[np.float32]
SCORES = ("psnr", "ssim", "sam", "ergas")


def evaluate(cubes: Sequence[Path], options: EvaluateOptions | None = None, **changes: Any) -> dict[str, Any]:
    """Measure models on cubes that are taken for clean.

    Cubes are scaled to [0, 1] between their minimum and their 99.95th percentile; results are clipped to that before
    they are scored, as the field does; noise is not clipped. Bands of an ``.h5`` file that are not ``clean_bands`` are
    left out.

    Parameters
    ----------
    cubes
        Scenes of any format, or ``.h5`` files of cubes as for ``train``.
    options
        See `EvaluateOptions`; `changes` are applied to it.

    Returns
    -------
    dict
        ``rows``: one for each cube, pattern and model (and ``noisy``, the input itself) with MPSNR in dB, MSSIM, SAM in
        rad, ERGAS and seconds; ``means`` over cubes.

    Raises
    ------
    HSIDenoiseError
        As drawn in `hsidenoise.errors`.
    """
    options = with_changes(options or EvaluateOptions(), changes)
    patterns, names = options.patterns.split(","), options.models.split(",")
    unknown = set(patterns) - set(PATTERNS)
    if unknown:
        raise UsageError(f"--patterns {','.join(sorted(unknown))}: not among {', '.join(PATTERNS)}")
    if options.profiles and options.profiles.exists() and not options.overwrite:
        raise OutputExistsError(f"{options.profiles}: exists; choose another name or give --overwrite")
    engines = {}
    for name in names:
        model, card = load(find(name))
        engines[card.name] = Engine(model, card, pick(options.device), options.shifts)
    rows: list[dict[str, Any]] = []
    drawn: list[dict[str, Any]] = []
    for index, (name, clean) in enumerate(_clean(cubes)):
        for pattern in patterns:
            noisy = add_noise(clean, pattern, np.random.default_rng([options.seed, index, PATTERNS.index(pattern)]))
            results = {"noisy": noisy}
            seconds = {"noisy": 0.0}
            for label, engine in engines.items():
                began = time.perf_counter()
                results[label] = denoise_array(noisy, engine, options.tile)
                seconds[label] = time.perf_counter() - began
            for label, result in results.items():
                scores = score(clean, result if label == "noisy" else np.clip(result, 0, 1))
                rows.append({"cube": name, "pattern": pattern, "model": label, "seconds": seconds[label]} | scores)
            if options.profiles:
                drawn.append(_worst(name, pattern, clean, results))
    if options.profiles:
        from .profiles import draw

        draw(drawn, options.profiles)
    return {"rows": rows, "means": _means(rows)}


def denoise_array(noisy: Pixels, engine: Engine, tile: int = 0, nodata: float | None = None) -> Pixels:
    """What `hsidenoise.run.run` makes of an array (bands, rows, cols); bands left alone come back as they are."""
    from .rows import output_rows

    cube = Cube.of(noisy, nodata)
    job = prepare(cube, set(range(len(noisy))), engine, tile)
    return np.concatenate([rows.block for rows in output_rows(cube, job, engine, cube.dtype, [])], axis=1)


def score(clean: Pixels, result: Pixels) -> dict[str, float]:
    """MPSNR (dB, range 1), MSSIM, SAM (rad) and ERGAS."""
    return {
        "psnr": float(metrics.psnr(clean, result)),
        "ssim": float(metrics.ssim(clean, result)),
        "sam": float(metrics.sam(clean, result)),
        "ergas": float(metrics.ergas(clean, result)),
    }


def _clean(paths: Sequence[Path]) -> Iterator[tuple[str, Pixels]]:
    for path in paths:
        if path.suffix.lower() in (".h5", ".hdf5"):
            from .patches import load_scenes

            for scene in load_scenes(path):
                yield scene.name, scene.cube
        else:
            yield path.name, _scaled(path)


def _scaled(path: Path) -> Pixels:
    from .io import open_cube

    with open_cube(path) as cube:
        usable = [b for b, good in enumerate(cube.bands.usable()) if good]
        values, valid = cube.read(bands=usable)
    if not valid.all():
        raise UsageError(f"{path}: has pixels without data; crop it to where all bands are valid")
    low, high = float(values.min()), float(np.percentile(values, 99.95))
    if not high > low:
        raise UsageError(f"{path}: has no two values; there is no scale to add noise on")
    unit: Pixels = np.clip((values - low) / (high - low), 0, 1)
    return unit


def _means(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    keys = list(dict.fromkeys((row["pattern"], row["model"]) for row in rows))
    means = []
    for pattern, model in keys:
        same = [row for row in rows if (row["pattern"], row["model"]) == (pattern, model)]
        means.append(
            {"pattern": pattern, "model": model, "cubes": len(same)}
            | {key: float(np.mean([row[key] for row in same])) for key in (*SCORES, "seconds")}
        )
    return means


def _worst(name: str, pattern: str, clean: Pixels, results: dict[str, Pixels]) -> dict[str, Any]:
    """Row means of the band that is worst after the first model."""
    first = next(label for label in results if label != "noisy")
    band = int(np.argmin(metrics.psnr_bands(clean, np.clip(results[first], 0, 1))))
    means = {label: result[band].mean(1) for label, result in {"clean": clean, **results}.items()}
    return {"title": f"{name}, {pattern}, band {band + 1}", "means": means}
