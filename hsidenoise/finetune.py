"""Finetuning: a network's weights adapted to one sensor, from its own scenes, and judged on what was held back."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import metrics, progress
from .device import pick
from .engine import Engine
from .errors import TrainingError, UsageError
from .evaluate import denoise_array
from .io import open_cube
from .model.decsc import DECSC, rebanded
from .model.networks import Network
from .model.weights import BUILT_IN, Card, check_target, find, load, save
from .ownpatches import OwnImages, OwnWindows
from .patches import Draws, Prefetch
from .recorruption import TARGET_NOISE, recorrupt
from .scenepatches import OwnScene, own_scene, usable_bands
from .settings import FinetuneOptions, TrainOptions, to_dict, with_changes
from .train import Run

#: Scenes that are judged, at most.
JUDGED = 4
#: Shares of the steps after which weights are judged, and kept if they are the best so far: a small scene is soon
#: known by heart.
CHECKS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)
#: Peak learning rate, by front-end, unless it is given.
RATES = {"eigen": 1e-3, "windows": 2e-4}


def finetune(
    scenes: Sequence[str], output: Path, options: FinetuneOptions | None = None, *, quiet: bool = False, **changes: Any
) -> Card:
    """Adapt weights to scenes and write them, if they are better on parts of the scenes that were held back.

    Parameters
    ----------
    scenes
        Of one sensor; any format `run` reads.
    output
        The weight file.
    options
        Everything else; or its fields as keywords.
    quiet
        No progress.

    Returns
    -------
    Card
        Of the new weights; ``training["held_back"]`` has the measure (`judge`) before, after, and of ``dct``.

    Raises
    ------
    UsageError, OutputExistsError
        Options that do not fit together; `output` exists.
    TrainingError
        Scenes that cannot be used, or weights that got no better.
    """
    options = with_changes(options or FinetuneOptions(), changes)
    _check(scenes, output, options)
    device = pick(options.device)
    torch.manual_seed(options.seed)
    file = find(options.model)
    base, card = load(file)
    if not isinstance(base, Network):
        raise UsageError(f"--model {options.model}: has no weights to adapt")
    with ExitStack() as stack:
        cubes = [stack.enter_context(open_cube(s, options)) for s in scenes]
        reference = stack.enter_context(open_cube(options.reference)) if options.reference else None
        if reference is not None and reference.shape != cubes[0].shape:
            raise UsageError(f"{options.reference}: is {reference.shape}, the scene {cubes[0].shape}")
        most = max(usable_bands(c) for c in cubes)
        own = [own_scene(c, Path(s).name, reference) for c, s in zip(cubes, scenes, strict=True)]
    model = fitted(base, most).to(device).requires_grad_(True)
    recipe = TrainOptions(
        arch=card.arch, steps=options.steps, batch=options.batch, patch=options.patch, patterns="",
        lr=options.lr or RATES[model.frontend], seed=options.seed, device=options.device,
    )  # fmt: skip
    run = Run(model, recipe, output, {s.name: s.digest for s in own}, {})
    sign = 1 if supervised_by(own) else -1
    before = judge(own, Engine(run.averaged(), card, device, 1))
    # The floor was measured on other scenes; on these the trial before each run says what would be harmed.
    trained, card = card.training.get("steps", 0), replace(card, floor=0.0)
    draws = OwnImages if model.frontend == "eigen" else OwnWindows
    sampler = draws(own, bands=model.bands, edge=options.patch, seed=options.seed, clean_bands=options.clean_bands)
    scored = [
        (judge(own, Engine(network, card, device, 1)), step, network)
        for step, network in learn(run, sampler, options, quiet=quiet)
    ]
    after, step, network = max(scored, key=lambda found: sign * found[0])
    card = replace(card, name=output.stem, config=asdict(model.config), noise=(), validation={})
    held_back = {"measure": measure(own), "before": before, "after": after}
    held_back["dct"] = judge(own, Engine(*load(BUILT_IN), device, 1))
    if not (sign * after > sign * before or options.force):
        raise TrainingError(
            f"{output}: not written, the weights got no better on what was held back ({measure(own)} {before:.4g} "
            f"before, {after:.4g} after); give more or larger scenes or --steps, or --force"
        )
    card = replace(
        card,
        training={
            "from": {"name": file.name, "sha256": file.sha256, "steps": trained},
            "steps": step,
            "hours": round(run.seconds / 3600, 3),
            "device": device.type,
            "options": to_dict(options),
            "scenes": run.scenes,
            "held_back": held_back,
        },
    )
    save(network, card, output)
    return card


def _check(scenes: Sequence[str], output: Path, options: FinetuneOptions) -> None:
    check_target(output, overwrite=options.overwrite)
    if options.reference and len(scenes) > 1:
        raise UsageError("--reference belongs to one scene; name one")
    if options.reference and options.clean_bands:
        raise UsageError("--reference and --clean-bands are two ways to learn; give one")


def fitted(base: Network, most: int) -> Network:
    """The network for scenes of `most` bands: fewer than a window has need a smaller one, eigen-images may be few."""
    if isinstance(base, DECSC) and base.frontend == "windows":
        return rebanded(base, min(most, base.bands))
    return base


def learn(run: Run, sampler: Draws, options: FinetuneOptions, *, quiet: bool) -> Iterator[tuple[int, Network]]:
    """All steps, or as many as the time allows; steps done and averaged weights at each of `CHECKS`, and at the end."""
    device = next(run.model.parameters()).device
    started = time.monotonic()
    marks = {round(share * options.steps) for share in CHECKS}
    with progress.track(options.steps, "finetune", quiet=quiet, unit="step") as bar:
        for batch in Prefetch(sampler, 0, options.steps, options.batch):
            record = run.advance([torch.from_numpy(part).to(device) for part in batch])
            bar.advance(1, loss=f"{record['loss']:.3f}")
            late = 0 < 60 * options.minutes < time.monotonic() - started
            if late or run.step in marks:
                yield run.step, run.averaged()
            if late:
                break


def supervised_by(scenes: Sequence[OwnScene]) -> bool:
    """Whether there is a reference to judge by."""
    return scenes[0].area.clean is not None


def measure(scenes: Sequence[OwnScene]) -> str:
    """What `judge` gives."""
    return "MPSNR, dB" if supervised_by(scenes) else "error left, of the noise's energy"


def judge(scenes: Sequence[OwnScene], engine: Engine) -> float:
    """How well what was held back is denoised, as `run` would.

    With a reference the mean PSNR over bands (dB; range as surveyed). Without, an unbiased estimate of the mean squared
    error over the noise variance, mean over bands: the scene is recorrupted, and the result is compared with the
    target, whose noise is independent and known.
    """
    scores = []
    for index, scene in enumerate(scenes[:JUDGED]):
        noisy, clean = scene.area.noisy, scene.area.clean
        if clean is None:
            strength = scene.strength.at(noisy)
            noisy, target = recorrupt(noisy, strength, np.random.default_rng([5, index]))
        else:
            target = clean
        denoised = denoise_array(noisy, engine)
        for here in scene.held_back:
            result, truth = denoised[:, *here].astype(np.float64), target[:, *here]
            if clean is None:
                error = np.square(result - truth) - TARGET_NOISE * np.square(strength[:, *here])
                scores.append(float((error.mean((1, 2)) / scene.sigma**2).mean()))
            else:
                scale = scene.scale[:, None, None]
                scores.append(float(metrics.psnr(truth / scale, result / scale)))
    return float(np.mean(scores))
