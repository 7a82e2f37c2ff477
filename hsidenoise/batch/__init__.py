"""Thousands of scenes, one command: each is denoised once, and a failure is its own."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .. import gates
from ..errors import UsageError
from ..settings import BatchOptions, with_changes
from .client import PER_JOB, Client, cores
from .scenes import BOOKS, find

__all__ = ["batch"]


def batch(
    names: Iterable[str], folder: str | os.PathLike[str], options: BatchOptions | None = None, *, quiet: bool = False,
    **changes: Any,
) -> dict[str, Any]:  # fmt: skip
    """Denoise many scenes into a folder; what is done already, with the same options and weights, is skipped.

    Parameters
    ----------
    names
        Files, patterns, folders, or ``-`` for names on standard input (`hsidenoise.batch.scenes.find`).
    folder
        Where outputs go, sub-folders mirrored; the manifest is ``.hsidenoise/manifest.jsonl`` in it.
    options
        See `BatchOptions`; `changes` are applied to it.
    quiet
        No progress.

    Returns
    -------
    dict
        Counts by outcome (``done``, ``skipped``, ``failed``, ``elsewhere``), ``gates_met`` and the failures. With
        ``dry_run`` what would be done.

    Raises
    ------
    UsageError, WeightsError
        Before any scene is touched.
    KeyboardInterrupt
        Scenes in work were dropped; the same call goes on from there.
    """
    options = with_changes(options or BatchOptions(), changes)
    gates.parse(options.fail_on)
    _check(options)
    from ..device import count
    from ..model.weights import digest, read_card
    from ..model.weights import find as find_weights

    file = find_weights(options.model)
    read_card(file)
    gpus = count(options.device)
    top = Path(folder)
    scenes = find(names, top, options)
    weights = {"name": file.name, "sha256": file.sha256 or (digest(file.path) if file.path else "")}
    client = Client(top, options, weights, quiet=quiet)
    if options.dry_run:
        return client.estimate(scenes, jobs=_jobs(options, gpus))
    _make(top)
    return client.run(scenes, jobs=_jobs(options, gpus), gpus=gpus if options.device == "auto" else 0)


def _check(options: BatchOptions) -> None:
    if "/" in options.suffix or "\0" in options.suffix:
        raise UsageError(f"--suffix {options.suffix}: cannot hold a slash")
    for name in ("jobs", "retries", "timeout", "max_memory", "split"):
        if getattr(options, name) < 0:
            raise UsageError(f"--{name.replace('_', '-')} {getattr(options, name)}: cannot be negative")
    if options.scheduler and options.max_memory:
        raise UsageError("--max-memory: is the cluster's own affair with --scheduler; leave it out")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / BOOKS).mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be made or written ({error.strerror}); choose another folder") from error


def _jobs(options: BatchOptions, gpus: int) -> int:
    """Processes: as asked for, else one for each GPU, or for each core that there is memory for."""
    if options.jobs:
        return options.jobs
    if gpus:
        return gpus
    from ..device import machine_memory

    memory = options.max_memory * 2**30 or machine_memory()
    return max(1, min(cores(), int(memory // PER_JOB)))
