"""Noisy copies of scenes, in any format, by the patterns that networks are trained and judged on."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Any

import numpy as np

from . import __version__, progress
from .cube import Cube
from .errors import UsageError
from .noise import PATTERNS, draw
from .outputs import layout
from .samples import compose
from .settings import SimulateOptions, with_changes
from .survey import row_blocks


def simulate(
    scene: str | os.PathLike[str], output: str | os.PathLike[str], options: SimulateOptions | None = None, *,
    quiet: bool = False, **changes: Any,
) -> dict[str, Any]:  # fmt: skip
    """Add noise to a scene; everything else is kept as `hsidenoise.run.run` keeps it.

    Noise is drawn on the scale of [0, 1] between the least valid value of the scene and its 99.95th percentile.
    The same seed gives the same noise, whatever the memory there is.

    Parameters
    ----------
    scene, output
        As of ``run``.
    options
        See `SimulateOptions`; `changes` are applied to it.
    quiet
        No progress.

    Returns
    -------
    dict
        Pattern, seed, scale, and the Gaussian sigma of each band in raw units.

    Raises
    ------
    HSIDenoiseError
        As drawn in `hsidenoise.errors`; then no output exists.
    """
    from .io import check_output, create_cube, gdal_env, open_cube

    options = with_changes(options or SimulateOptions(), changes)
    if options.pattern not in PATTERNS:
        raise UsageError(f"--pattern {options.pattern}: not one of {', '.join(PATTERNS)}")
    check_output(output, inputs=[scene], overwrite=options.overwrite, of=options.of)
    with gdal_env(options.config), ExitStack() as stack:
        cube = stack.enter_context(open_cube(scene, options))
        low, high = scale(cube)
        bands, rows, cols = cube.shape
        noise = draw(options.pattern, bands, cols, np.random.default_rng(options.seed))
        record = {
            "scene": os.fspath(scene), "output": os.fspath(output), "pattern": options.pattern, "seed": options.seed,
            "low": low, "high": high, "sigma": [float(s) for s in noise.sigma * (high - low)],
        }  # fmt: skip
        provenance = {
            "software": f"hsidenoise {__version__}", "noise": f"{options.pattern}, seed {options.seed}",
            "source": os.path.basename(os.fspath(scene)),
        }  # fmt: skip
        writer = stack.enter_context(
            create_cube(output, cube, overwrite=options.overwrite, provenance=provenance, **layout(options))
        )
        with progress.track(rows, "simulate", quiet=quiet, unit="row") as bar:
            for window in row_blocks(cube):
                raw = cube.raw(window)
                valid = cube.validity(raw, window, range(bands))
                noisy = np.empty(raw.shape, np.float32)
                for row in range(raw.shape[1]):  # a generator for each row: blocks of any height give the same
                    rng = np.random.default_rng([options.seed, window.row_start + row])
                    unit = (raw[:, row : row + 1].astype(np.float64) - low) / (high - low)
                    noisy[:, row : row + 1] = noise.add(unit.astype(np.float32), rng) * (high - low) + low
                    bar.advance(1)
                block = compose(raw, valid, valid, noisy, range(bands), writer.dtype, cube.nodata)
                writer.write(window.row_start, block)
    return record


def scale(cube: Cube) -> tuple[float, float]:
    """Least valid value of a scene, and the 99.95th percentile of some whole rows spread over it.

    Raises
    ------
    UsageError
        The scene has no two values.
    """
    least = np.inf
    most: list[np.ndarray] = []
    for window in row_blocks(cube):
        values, valid = cube.read(window)
        some = values[valid]
        if some.size:
            least = min(least, float(some.min()))
            most.append(some[:: max(some.size // 1_000_000, 1)])
    high = float(np.percentile(np.concatenate(most), 99.95)) if most else -np.inf
    if not high > least:
        raise UsageError(f"{cube.name}: has no two values; there is no scale to add noise on")
    return least, high
