"""The files a run will write: checked against each other, the inputs and the disk before anything is read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .cube import Cube
from .errors import OutputExistsError, UsageError
from .settings import RunOptions, SimulateOptions


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
    if options.stac and options.stac.suffix.lower() not in (".json", ".geojson"):
        raise UsageError(f"--stac {options.stac}: name it .json")
    _all_different([output, options.residual, *small_files(options)])
    for path in small_files(options):
        if not path.parent.is_dir():
            raise UsageError(f"{path}: the folder {path.parent} does not exist; create it first")
        if path.exists() and not options.overwrite:
            raise OutputExistsError(f"{path}: exists; choose another name or give --overwrite")
        read = [scene, options.reference, options.header, options.wavelengths_from]
        if path.exists() and any(f and os.path.exists(f) and os.path.samefile(f, path) for f in read):
            raise OutputExistsError(f"{path}: is an input; choose another name")


def describe_outputs(cube: Cube, output: str | os.PathLike[str], options: RunOptions) -> dict[str, Any]:
    """What the output will be, as `hsidenoise.io.describe_output` says it; every option of it is checked by that.

    Raises
    ------
    UsageError
        An option the format cannot honour, or output and residual share a file (such as an ENVI header).
    """
    from .io import describe_output
    from .io.targets import occupied

    decided = describe_output(output, cube, **layout(options))
    files = list(occupied(decided["path"], decided["driver"]))
    if options.residual:
        residual = describe_output(options.residual, differences(cube), dtype="float32")
        files += occupied(residual["path"], residual["driver"])
    _all_different([*files, *small_files(options)])
    return decided


def layout(options: RunOptions | SimulateOptions) -> dict[str, Any]:
    """The options that shape an output, as `hsidenoise.io.create_cube` takes them."""
    return {"dtype": options.dtype, "nodata": options.nodata, "of": options.of, "co": options.co}


def differences(cube: Cube) -> Cube:
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


def small_files(options: RunOptions) -> list[Path]:
    """What a run writes beside rasters: report, numbers, STAC Item."""
    return [*report_files(options.report), *([options.stac] if options.stac else [])]
