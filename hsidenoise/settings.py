"""Options, each defined once.

The fields here are the command line's parameters, the keyword arguments of the public functions and the
record written into reports. ``help`` metadata is the text ``--help`` shows.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


def option(default: Any, help: str, *, names: tuple[str, ...] = (), metavar: str = "") -> Any:
    """A dataclass field that carries its help text and its short option names."""
    metadata = {"help": help, "names": names, "metavar": metavar}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How a scene is to be understood where its file leaves that open."""

    variable: str = option("", "The array that holds the cube, where a file has several.", metavar="NAME")
    axes: str = option("", "Its axes in order: b bands, y rows, x columns, a digit for one of many, as in yxb or 0byx.")
    shape: str = option("", "Rows and columns of pixels that are stored along one axis.", metavar="ROWSxCOLS")
    header: Path | None = option(None, "The ENVI header of a raw file that has none beside it.")
    wavelengths_from: Path | None = option(None, "Take the bands' wavelengths from this scene, header or table.")
    nodata: str = option("", "Override the input's nodata: a number, nan, or null for none.", metavar="NUMBER|nan|null")
    allow_large: bool = option(False, "Open a scene whose header announces far more than its file holds.")


@dataclass(frozen=True, kw_only=True)
class DenoiseOptions(ReadOptions):
    """How scenes are denoised and written, one or thousands."""

    model: str = option("auto", "Weights: a name from `hsidenoise models`, or a .safetensors file.")
    device: str = option("auto", "auto, cpu, cuda or cuda:N.")
    tile: int = option(0, "Tile edge in pixels; 0 chooses by memory.", metavar="PIXELS")
    shifts: int = option(1, "Average over this many shifts of the code grid: better, and slower in proportion.")
    bidx: str = option("", "Denoise only these bands, 1-based: 1,5..40. The others pass through.", names=("-b",))
    dtype: str = option("", "Output data type; the input's by default.", names=("-t",))
    of: str = option("", "Output format: GTiff, COG, ENVI, netCDF or copy; else by the output's suffix.", names=("-f",))
    co: tuple[str, ...] = option((), "Creation option NAME=VALUE, passed to GDAL; repeatable.", metavar="NAME=VALUE")
    config: tuple[str, ...] = option((), "GDAL configuration NAME=VALUE; repeatable.", metavar="NAME=VALUE")
    overwrite: bool = option(False, "Replace outputs that exist.")
    fail_on: tuple[str, ...] = option(
        (), "A gate such as sam>2deg: exit with 3 where it is met; repeatable.", metavar="GATE"
    )


@dataclass(frozen=True, kw_only=True)
class RunOptions(DenoiseOptions):
    """What ``run`` can be told, beyond the scene and the output."""

    residual: Path | None = option(None, "Write what was removed (input minus output, float32) here.")
    reference: Path | None = option(None, "A cleaner scene of the same grid; PSNR, SSIM and SAM go to the report.")
    report: Path | None = option(None, "Write a self-contained HTML report here, its numbers to the same name .json.")
    stac: Path | None = option(None, "Write a STAC 1.1 Item of the output here.")
    measure: bool = option(False, "Measure the output as for a report, for --json, without writing one.")
    dry_run: bool = option(False, "Print the plan (tiles, memory, device, output profile, weights) and stop.")


@dataclass(frozen=True, kw_only=True)
class BatchOptions(DenoiseOptions):
    """What ``batch`` can be told, beyond the scenes and the folder."""

    suffix: str = option("", "Added to the names of outputs, before their suffix.", metavar="TEXT")
    jobs: int = option(0, "Scenes at a time, a process each; 0 chooses by cores, GPUs and memory.")
    shard: str = option("", "Only part K of N of the scenes, as for job arrays.", metavar="K/N")
    reports: bool = option(False, "Write a report beside each output.")
    scheduler: str = option("", "Run on a Dask cluster: its scheduler's address, or local.", metavar="ADDRESS|local")
    split: float = option(4.0, "GiB beyond which several workers of a Dask cluster share a scene; 0 is no limit.")
    retries: int = option(1, "Times that a scene is tried again after its process died or ran out of time.")
    timeout: float = option(0.0, "Minutes after which a scene is given up; 0 is no limit.")
    max_memory: float = option(0.0, "GiB that all processes together may take; 0 is what is free.")
    checksum: bool = option(False, "Tell inputs apart by sha256, not by size and time alone.")
    quick: bool = option(False, "Do not measure outputs, nor draw their pictures: faster by a quarter.")
    fail_fast: bool = option(False, "Stop at the first scene that fails.")
    log_file: Path | None = option(None, "Append what happens to this file, as JSON lines.")
    dry_run: bool = option(False, "Print what would be done, its size and about how long it takes, and stop.")


@dataclass(frozen=True, kw_only=True)
class SimulateOptions(ReadOptions):
    """What ``simulate`` can be told, beyond the scene and the output."""

    pattern: str = option("g55", "g15, g55, g95, mixture or corr (docs/method.md).", names=("-p",))
    seed: int = option(0, "Seed of everything random: the same seed gives the same noise.")
    dtype: str = option("", "Output data type; the input's by default, to which noise is rounded.", names=("-t",))
    of: str = option("", "Output format: GTiff, COG, ENVI, netCDF or copy; else by the output's suffix.", names=("-f",))
    co: tuple[str, ...] = option((), "Creation option NAME=VALUE, passed to GDAL; repeatable.", metavar="NAME=VALUE")
    config: tuple[str, ...] = option((), "GDAL configuration NAME=VALUE; repeatable.", metavar="NAME=VALUE")
    overwrite: bool = option(False, "Replace an output that exists.")


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """What ``evaluate`` can be told, beyond the cubes."""

    models: str = option("auto,dct", "Models to compare: names from `hsidenoise models`, or .safetensors files.")
    patterns: str = option("g15,g55,g95,mixture,corr", "Noise patterns to add.")
    seed: int = option(0, "Seed of the noise.")
    device: str = option("auto", "auto, cpu, cuda or cuda:N.")
    tile: int = option(0, "Tile edge in pixels; 0 chooses by memory.", metavar="PIXELS")
    shifts: int = option(1, "Average over this many shifts of the code grid.")
    profiles: Path | None = option(None, "Draw row-mean profiles of the band that is worst after denoising, as PNG.")
    overwrite: bool = option(False, "Replace a figure that exists.")


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What ``train`` can be told, beyond the data and the output."""

    arch: str = option("compact", "Network: compact, decsc (the paper's), shrinkage.")
    init: str = option("frame", "Start from a tight DCT frame, or from the paper's draw: frame or kaiming.")
    start: str = option("", "Begin with these weights, a name or a .safetensors file, in place of --init.")
    device: str = option("auto", "auto, cpu, cuda or cuda:N.")
    val: Path | None = option(None, "Cubes to validate on (.h5); never trained on.")
    photos: Path | None = option(None, "Photographs to synthesise cubes from, too: a folder, a .zip or an .h5 file.")
    photo_share: float = option(0.3, "Share of the patches that are synthesised, where there are photographs.")
    steps: int = option(5_000, "Optimiser steps of the whole schedule.")
    minutes: float = option(0.0, "Pause, with a checkpoint, after this many minutes; 0 is no limit.")
    batch: int = option(4, "Patches per step.")
    patch: int = option(64, "Patch edge in pixels.")
    lr: float = option(5e-4, "Peak learning rate of Adam.")
    loss: str = option("log", "log: mean logarithm of each patch's squared error, as PSNR weighs it; mse: the paper's.")
    unrolled: int = option(3, "Steps of the phantom gradient; the paper's 5 costs more.")
    evaluations: int = option(0, "Evaluations of f in all; 0 is as many as the network is given later.")
    drift: float = option(3.0, "Weight of the solver's residual in the loss log: more has it come to rest sooner.")
    unfiltered: bool = option(False, "Judge what guides the network's last filter, not its result: faster.")
    patterns: str = option("g15,g55,g95,mixture,corr", "Noise patterns, drawn with equal chance.")
    seed: int = option(0, "Seed of everything random.")
    validate_every: int = option(500, "Steps between validations.")
    checkpoint_every: float = option(3.0, "Minutes between checkpoints.")
    bf16: bool = option(False, "bfloat16 autocast: pays on CUDA; measure on a CPU.")
    overwrite: bool = option(False, "Replace weights that exist.")


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions(ReadOptions):
    """What ``finetune`` can be told, beyond the scenes and the output."""

    model: str = option("shrinkage", "Weights to start from: a name from `hsidenoise models`, or a .safetensors file.")
    reference: Path | None = option(None, "A cleaner scene of the same grid to learn from.")
    clean_bands: bool = option(False, "Learn from the scene's clean bands with its noise added, not from noisy ones.")
    device: str = option("auto", "auto, cpu, cuda or cuda:N.")
    steps: int = option(400, "Optimiser steps of the whole schedule.")
    minutes: float = option(15.0, "Stop after this many minutes; 0 is no limit.")
    batch: int = option(4, "Patches per step.")
    patch: int = option(48, "Patch edge in pixels.")
    lr: float = option(0.0, "Peak learning rate of Adam; 0 is 1e-3 for eigen-images, 2e-4 for windows.")
    seed: int = option(0, "Seed of everything random.")
    force: bool = option(False, "Write weights that are no better, too.")
    overwrite: bool = option(False, "Replace weights that exist.")


def with_changes(options: Any, changes: dict[str, Any]) -> Any:
    """The options with some fields changed; paths may be given as strings."""
    paths = {f.name for f in dataclasses.fields(options) if "Path" in str(f.type)}
    return dataclasses.replace(options, **{k: Path(v) if k in paths and v else v for k, v in changes.items()})


def to_dict(options: Any) -> dict[str, Any]:
    """A JSON-ready record of an options dataclass, paths as strings."""
    return {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(options).items()}
