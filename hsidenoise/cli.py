"""The command line: parse, one call, print. Options come from `hsidenoise.settings`."""

from __future__ import annotations

import dataclasses
import inspect
import json as json_
import math
import os
import signal
import sys
import typing
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from . import __version__
from .errors import HSIDenoiseError, HSIDenoiseWarning, printable
from .settings import (
    BatchOptions,
    EvaluateOptions,
    FinetuneOptions,
    ReadOptions,
    RunOptions,
    SimulateOptions,
    TrainOptions,
)

app = typer.Typer(
    name="hsidenoise",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no talk; errors still show.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say what is decided, and why, for each band.")]


def from_options(options: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command, whose last parameter is ``**fields``, one parameter for each field of a dataclass."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = typing.get_type_hints(options)
        signature = inspect.signature(command, eval_str=True)
        parameters = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        for field in dataclasses.fields(options):
            repeatable = typing.get_origin(hints[field.name]) is tuple
            kind = list[str] if repeatable else hints[field.name]
            flag = "--" + field.name.replace("_", "-")
            option = typer.Option(
                flag, *field.metadata["names"], help=field.metadata["help"], metavar=field.metadata["metavar"] or None
            )
            default: Any = field.default
            parameters.append(
                inspect.Parameter(
                    field.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=list(default) if repeatable else default,
                    annotation=Annotated[kind, option],
                )
            )
        command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return decorate


def build(options: type[Any], fields: dict[str, Any]) -> Any:
    """The options dataclass from parsed parameters."""
    return options(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})


@contextmanager
def failing_in_one_line(quiet: bool = False) -> Iterator[None]:
    """Turn deliberate failures into one line on stderr and their exit code."""

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if not (quiet and issubclass(category, HSIDenoiseWarning)):
            talk(f"warning: {message}")

    try:
        with warnings.catch_warnings():
            warnings.showwarning = show
            yield
    except HSIDenoiseError as error:
        talk(f"error: {error}")
        raise typer.Exit(error.exit_code) from None
    except MemoryError as error:
        talk(f"error: not enough memory ({error}); give a smaller --tile")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        talk("interrupted; nothing unfinished is left")
        raise typer.Exit(130) from None


def talk(line: str) -> None:
    """One line on stderr."""
    print(f"hsidenoise: {printable(' '.join(line.split()))}", file=sys.stderr)


def answer(value: Any) -> None:
    """One JSON document on stdout; JSON has no NaN, so what is not known is null."""
    print(json_.dumps(_known(value), indent=2, default=str, allow_nan=False))


def _known(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _known(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_known(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@app.callback(invoke_without_command=True)
def entry(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Denoise hyperspectral and multispectral scenes; everything but the noise stays."""
    if version:
        print(f"hsidenoise {__version__}")
        raise typer.Exit


@app.command()
@from_options(RunOptions)
def run(
    scene: Annotated[str, typer.Argument(help="A scene of any format, or a folder of one image per band.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="The denoised scene.")],
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **fields: Any,
) -> None:
    """Denoise one scene."""
    with failing_in_one_line(quiet):
        from . import run as run_
        from .summary import describe_plan, describe_run

        options = build(RunOptions, fields)
        record = run_.run(scene, output, options, quiet=quiet)
        if json:
            answer(record)
        elif options.dry_run:
            print("\n".join(describe_plan(record)))
        elif not quiet:
            for line in describe_run(record, verbose):
                talk(line)
        for gate in record.get("gates_met", ()):
            talk(f"{output}: gate met: {gate}")
        if record.get("gates_met"):
            raise typer.Exit(3)


@app.command()
@from_options(BatchOptions)
def batch(
    scenes: Annotated[list[str], typer.Argument(help="Files, patterns or folders; - reads names from standard input.")],
    *,
    folder: Annotated[Path, typer.Option("--directory", "-d", help="Where outputs go, sub-folders mirrored.")],
    json: Json = False,
    quiet: Quiet = False,
    **fields: Any,
) -> None:
    """Denoise many scenes; repeat the command to go on where it stopped."""
    with failing_in_one_line(quiet):
        from .batch import batch as batch_
        from .summary import describe_batch, describe_trouble

        found = batch_(scenes, folder, build(BatchOptions, fields), quiet=quiet)
        if json:
            answer(found)
        elif "todo" in found:
            print("\n".join(describe_batch(found)))
        else:
            for line in describe_trouble(found) if quiet else describe_batch(found):
                talk(line)
        if found.get("failures"):
            raise typer.Exit(1)
        if found.get("gates_met"):
            raise typer.Exit(3)


@app.command()
@from_options(ReadOptions)
def info(
    scene: Annotated[str | None, typer.Argument(help="A scene; or none, with --system.")] = None,
    noise: Annotated[bool, typer.Option("--noise", help="Estimate the noise of each band (reads the scene).")] = False,
    system: Annotated[bool, typer.Option("--system", help="Versions and devices, for bug reports.")] = False,
    json: Json = False,
    **fields: Any,
) -> None:
    """Say what a file is: shape, bands, wavelengths, georeferencing, nodata, noise."""
    with failing_in_one_line():
        from . import info as info_
        from .errors import UsageError
        from .summary import describe_info, describe_system

        if system:
            found = info_.system()
            answer(found) if json else print("\n".join(describe_system(found)))
        elif scene is None:
            raise UsageError("name a scene, or give --system")
        else:
            found = info_.describe(scene, build(ReadOptions, fields), noise=noise)
            answer(found) if json else print("\n".join(describe_info(found)))


@app.command()
def models(json: Json = False) -> None:
    """List the weights that are installed, verified against their sha256."""
    with failing_in_one_line():
        from .model.weights import available, read_card
        from .summary import describe_models

        cards = {name: (file, read_card(file)) for name, file in available().items()}
        if json:
            answer({name: dataclasses.asdict(card) | {"sha256": file.sha256} for name, (file, card) in cards.items()})
        else:
            print("\n".join(describe_models(cards)))


@app.command()
@from_options(TrainOptions)
def train(
    data: Annotated[list[Path], typer.Argument(help="HDF5 files of clean cubes, axes row, column, band.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="The weights, .safetensors; repeat to resume.")],
    json: Json = False,
    quiet: Quiet = False,
    **fields: Any,
) -> None:
    """Train a network; the same command resumes from its checkpoint."""
    with failing_in_one_line(quiet):
        from .train import train as train_

        card = train_(data, output, build(TrainOptions, fields), quiet=quiet)
        if json:
            answer(dataclasses.asdict(card))
        elif not quiet:
            for pattern, scores in card.validation.items():
                psnr, ssim, sam = scores["mean"]
                talk(f"{pattern}: PSNR {psnr:.2f} dB, SSIM {ssim:.4f}, SAM {sam:.4f} rad")
            talk(f"weights: {output}")


@app.command()
@from_options(FinetuneOptions)
def finetune(
    scenes: Annotated[list[str], typer.Argument(help="Scenes of one sensor, of any format `run` reads.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="The weights, .safetensors.")],
    json: Json = False,
    quiet: Quiet = False,
    **fields: Any,
) -> None:
    """Adapt weights to a sensor from its own scenes; written only if they are better on held-back parts."""
    with failing_in_one_line(quiet):
        from .finetune import finetune as finetune_

        card = finetune_(scenes, output, build(FinetuneOptions, fields), quiet=quiet)
        if json:
            answer(dataclasses.asdict(card))
        elif not quiet:
            found = card.training["held_back"]
            talk(f"held back: {found['measure']} {found['before']:.4g} before, {found['after']:.4g} after, "
                 f"{found['dct']:.4g} with dct")  # fmt: skip
            talk(f"weights: {output}")


@app.command()
@from_options(SimulateOptions)
def simulate(
    scene: Annotated[str, typer.Argument(help="A clean scene, of any format `run` reads.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="The noisy scene.")],
    json: Json = False,
    quiet: Quiet = False,
    **fields: Any,
) -> None:
    """Add noise of a known pattern to a clean scene."""
    with failing_in_one_line(quiet):
        from .simulate import simulate as simulate_

        record = simulate_(scene, output, build(SimulateOptions, fields), quiet=quiet)
        if json:
            answer(record)
        elif not quiet:
            talk(f"{output}: noise {record['pattern']}, seed {record['seed']}")


@app.command()
@from_options(EvaluateOptions)
def evaluate(
    cubes: Annotated[list[Path], typer.Argument(help="Clean cubes: scenes, or .h5 files of cubes.")],
    json: Json = False,
    **fields: Any,
) -> None:
    """Measure models: add noise to clean cubes, denoise them, compare."""
    with failing_in_one_line():
        from .evaluate import evaluate as evaluate_
        from .summary import describe_evaluation

        found = evaluate_(cubes, build(EvaluateOptions, fields))
        answer(found) if json else print("\n".join(describe_evaluation(found)))


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where scene.tif and truth.tif go.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    json: Json = False,
) -> None:
    """Make a georeferenced scene with realistic noise and known truth, to try the other commands on."""
    with failing_in_one_line():
        from .demo import demo as demo_

        made = demo_(folder, overwrite=overwrite)
        answer(made) if json else print(f"{made['scene']}\n{made['truth']}")


def main() -> None:
    """Entry point of the ``hsidenoise`` command."""

    def stop(*_: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not interrupt the tidying up
        raise KeyboardInterrupt

    # SIGTERM is how batch systems end a job: leave as cleanly as on Ctrl-C.
    signal.signal(signal.SIGTERM, stop)
    # One HDF5 lock on a network file system would hang a read-only job.
    os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")
    app()
