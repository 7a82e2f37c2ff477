"""Training: a loop, a validation table, a checkpoint that resumes exactly.

Needs torch, numpy, scipy, h5py, safetensors and rich only, so that it also runs where no raster library is.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import progress
from .device import pick
from .errors import TrainingError, UsageError, WeightsError
from .model.networks import SHRINKAGE, Network, architectures, build, ends_in_filter
from .model.shrinkage import Shrinkage
from .model.weights import (
    BUILT_IN_CARD,
    EIGEN_NORMALISATION,
    WINDOWS_NORMALISATION,
    Card,
    check_target,
    find,
    load,
    save,
)  # fmt: skip
from .noise import PATTERNS
from .patches import Prefetch, Scene, load_scenes
from .pipeline import pipeline
from .settings import TrainOptions, to_dict
from .validation import measure_floor, measure_halo, validate

EMA = 0.998
WARM_UP = 100
#: Weight of the pilot's own error: a filter that is learned makes up for most of it, and hides it from the codes.
PILOT = 0.3


def train(data: Sequence[Path], output: Path, options: TrainOptions, *, quiet: bool = False) -> Card:
    """Train a network and write its weights.

    Beside ``output`` (``x.safetensors``) a log ``x.jsonl`` and a checkpoint ``x.checkpoint`` are kept; the same call
    resumes from the checkpoint and ends with the weights an uninterrupted run would give.

    Parameters
    ----------
    data
        HDF5 files of clean cubes (`hsidenoise.patches.load_scenes`).
    output
        The weight file to write, at the end of the schedule and at every pause.
    options
        Everything else.
    quiet
        No progress.

    Raises
    ------
    UsageError, OutputExistsError
        Options out of range; `output` exists and no checkpoint says it is ours to go on with.
    TrainingError
        Data that cannot be used, or a checkpoint of another run.
    """
    _check(output, options)
    device = pick(options.device)
    if device.type == "cuda" and options.bf16:  # what is left in float32 may go by tensor cores too
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    torch.manual_seed(options.seed)
    scenes = [scene for path in data for scene in load_scenes(Path(path))]
    val = load_scenes(options.val) if options.val else []
    shared = {s.digest for s in scenes} & {s.digest for s in val}
    if shared:
        raise TrainingError(f"{options.val}: {len(shared)} validation scenes are in the training data too")
    patterns = options.patterns.split(",")
    model = build(options.arch, options.init).to(device)
    if options.start:
        begin(model, options.start)
    sampler, photos = pipeline(scenes, model, options)
    run = Run(model, options, output, {s.name: s.digest for s in scenes}, photos)
    run.resume()
    batches = Prefetch(sampler, run.step, options.steps, options.batch, processes=device.type == "cuda")
    log = output.with_suffix(".jsonl")
    started, saved = time.monotonic(), time.monotonic()
    table: dict[str, Any] = {}
    with progress.track(options.steps, f"train {options.arch}", quiet=quiet, unit="step") as bar, log.open("a") as out:
        bar.advance(run.step)
        for batch in batches:
            record = run.advance([torch.as_tensor(part).to(device, non_blocking=True) for part in batch])
            bar.advance(1, loss=f"{record['psnr']:.2f} dB", residual=f"{record['residual']:.1e}")
            last = run.step == options.steps
            if run.step % 20 == 0:
                _log(out, record | {"waiting": round(batches.waiting, 4)})
            if val and (last or run.step % options.validate_every == 0):
                table = validate(run.averaged(), val, patterns)
                _log(out, {"step": run.step, "validation": table})
            now = time.monotonic()
            paused = options.minutes > 0 and now - started > 60 * options.minutes
            if last or paused or now - saved > 60 * options.checkpoint_every:
                run.checkpoint()
                saved = time.monotonic()
            if paused:
                break
    network = run.averaged()
    if val and not table:
        table = validate(network, val, patterns)
    card = describe(network, val or scenes, run, table)
    save(network, card, output)
    return card


def begin(model: Network, start: str) -> None:
    """Give a network the weights of that name, or of a file; those of another network that is a part of it will do.

    Raises
    ------
    WeightsError
        There are none, or they are of a network of another shape.
    """
    source, _ = load(find(start))
    if not isinstance(source, Network):
        raise WeightsError(f"--start {start}: has no weights")
    try:
        model.load_state_dict(model.state_dict() | source.state_dict())
    except RuntimeError as error:
        raise WeightsError(f"--start {start}: is not a network of this shape") from error


def _check(output: Path, options: TrainOptions) -> None:
    if options.arch not in architectures():
        raise UsageError(f"--arch {options.arch}: not one of {', '.join(architectures())}")
    if options.init not in ("frame", "kaiming"):
        raise UsageError(f"--init {options.init}: not frame or kaiming")
    if options.init != "frame" and options.arch == SHRINKAGE:
        raise UsageError(f"--init {options.init}: {SHRINKAGE} has one way to start, as the model dct")
    if options.loss not in ("log", "mse"):
        raise UsageError(f"--loss {options.loss}: not log or mse")
    if options.evaluations < 0:
        raise UsageError(f"--evaluations {options.evaluations}: 0 or more")
    if not options.drift >= 0:
        raise UsageError(f"--drift {options.drift:g}: 0 or more")
    if options.unfiltered and not ends_in_filter(options.arch):
        raise UsageError(f"--unfiltered: {options.arch} is not a network whose codes lead to a last filter")
    unknown = set(options.patterns.split(",")) - set(PATTERNS)
    if unknown:
        raise UsageError(f"--patterns {','.join(sorted(unknown))}: not among {', '.join(PATTERNS)}")
    check_target(output, overwrite=options.overwrite or output.with_suffix(".checkpoint").exists())


class Run:
    """The state of a training run: network, optimiser, averaged weights, step and time spent.

    Parameters
    ----------
    model
        The network, on its device.
    options
        Of the run.
    output
        The weight file; the checkpoint lies beside it.
    scenes
        Name and digest of every scene trained on; `photos` is the same of photographs.
    """

    def __init__(
        self, model: Network, options: TrainOptions, output: Path, scenes: Mapping[str, str], photos: Mapping[str, str]
    ) -> None:
        self.model, self.options, self.scenes, self.photos = model, options, dict(scenes), dict(photos)
        self.path = output.with_suffix(".checkpoint")
        self.optimizer = torch.optim.Adam(model.parameters(), lr=options.lr)
        self.average = {k: v.detach().clone() for k, v in model.state_dict().items()}
        self.step = 0
        self.seconds = 0.0
        self.threads = torch.get_num_threads() if next(model.parameters()).device.type == "cpu" else 1
        self.pool = ThreadPoolExecutor(self.threads, initializer=lambda: torch.set_num_threads(1))

    def advance(self, batch: Sequence[Tensor]) -> dict[str, Any]:
        """One optimiser step on a `hsidenoise.patches.Batch`; returns its record."""
        began = time.monotonic()
        options, model = self.options, self.model
        model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = options.lr * learning_rate(self.step, options.steps)
        # The unrolled steps come on top: together they are what the solver is given later.
        evaluations = max((options.evaluations or model.config.evaluations) - options.unrolled, 1)
        # On a CPU parts of the batch go side by side, a thread each: a network this small leaves threads that share
        # one operation waiting for each other. Of eigen-images each scene has another number: one patch a part.
        alone = model.frontend == "eigen" and batch[0].device.type == "cpu"
        parts = split(batch, len(batch[0]) if alone else self.threads)
        jobs = [self.pool.submit(self.gradient, evaluations, *part) for part in parts]
        done = [job.result() for job in jobs]
        share = [len(found["error"]) / len(batch[0]) for _, found in done]
        for parameter, *gradients in zip(model.parameters(), *(g for g, _ in done), strict=True):
            parameter.grad = torch.stack([s * g for s, g in zip(share, gradients, strict=True)]).sum(0)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if torch.isfinite(norm):
            self.optimizer.step()
        self.step += 1
        warm = min(EMA, (1 + self.step) / (10 + self.step))
        for key, value in model.state_dict().items():
            self.average[key].lerp_(value, 1 - warm)
        self.seconds += time.monotonic() - began
        error, before, residual = (torch.cat([f[key] for _, f in done]) for key in ("error", "noisy", "residual"))
        return {
            "step": self.step,
            "loss": sum(s * float(found["loss"]) for s, (_, found) in zip(share, done, strict=True)),
            "psnr": float(-10 * torch.log10(error).mean()),
            "noisy": float(-10 * torch.log10(before).mean()),
            "residual": float(residual.mean()),
            "evaluations": evaluations,
            "gradient": norm.item(),
            "lr": self.optimizer.param_groups[0]["lr"],
            "seconds": round(self.seconds, 1),
        }

    def gradient(
        self, evaluations: int, clean: Tensor, noisy: Tensor, sigma: Tensor, back: Tensor, rest: Tensor
    ) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """Of the mean loss of some patches, by parameter; and what to tell of them."""
        options, model = self.options, self.model
        shown = int(back.any(1).sum(1).max())  # images that no scene of these patches has are not worth the time
        noisy, sigma, back = noisy[:, :shown], sigma[:, :shown], back[..., :shown]
        with self.precision(clean.device):
            found = model.solve(
                noisy, sigma, evaluations=evaluations, phantom_steps=options.unrolled, filtered=not options.unfiltered
            )
        error = band_error(found.x, back, clean) + rest
        loss = torch.log(error).mean() if options.loss == "log" else error.mean()
        if model.config.gains:
            loss = loss + PILOT * torch.log(band_error(found.pilot, back, clean) + rest).mean()
        if options.loss == "log":
            loss = loss + options.drift * found.drift.mean()
        gradients = torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)
        return gradients, {
            "loss": loss.detach(),
            "error": error.detach(),
            "noisy": band_error(noisy, back, clean) + rest,
            "residual": found.convergence.residual,
        }

    def precision(self, device: torch.device) -> contextlib.AbstractContextManager[Any]:
        """bfloat16 autocast when asked for."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.options.bf16)

    def averaged(self) -> Network:
        """The network with the exponentially averaged weights, in evaluation mode."""
        network = copy.deepcopy(self.model)
        network.load_state_dict(self.average)
        return network.to(next(self.model.parameters()).device).eval()

    def checkpoint(self) -> None:
        """Write everything a resumed run needs, atomically; safetensors, no pickle."""
        import safetensors.torch

        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        for i, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{i}.{k}": torch.as_tensor(v) for k, v in state.items()}
        metadata = {"step": str(self.step), "seconds": str(self.seconds), "options": json.dumps(self.identity())}
        part = self.path.with_name(f".{self.path.name}.part")
        safetensors.torch.save_file({k: v.contiguous() for k, v in tensors.items()}, part, metadata=metadata)
        os.replace(part, self.path)

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one.

        Raises
        ------
        TrainingError
            The checkpoint belongs to a run with other options, or is damaged.
        """
        import safetensors

        if not self.path.exists():
            return
        try:
            with safetensors.safe_open(self.path, "pt") as file:
                metadata = file.metadata()
                tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 - safe_open is no mapping
        except (OSError, safetensors.SafetensorError) as error:
            raise TrainingError(f"{self.path}: damaged checkpoint ({error}); delete it to start again") from error
        before = json.loads(metadata["options"])
        if before != self.identity():
            now = self.identity()
            differ = ", ".join(sorted(k for k in before | now if before.get(k) != now.get(k)))
            raise TrainingError(f"{self.path}: was made with other options ({differ}); repeat them or delete it")
        self.model.load_state_dict(_part(tensors, "model."))
        for key, value in _part(tensors, "average.").items():
            self.average[key].copy_(value)
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in _part(tensors, "adam.").items():
            index, name = key.split(".")
            state.setdefault(int(index), {})[name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.step, self.seconds = int(metadata["step"]), float(metadata["seconds"])

    def identity(self) -> dict[str, Any]:
        """The options and data that make a run what it is; the other options may change when it resumes."""
        free = {"device", "minutes", "validate_every", "checkpoint_every", "overwrite", "val", "photos"}
        free |= set() if self.photos else {"photo_share"}
        return {k: v for k, v in to_dict(self.options).items() if k not in free} | self.seen()

    def seen(self) -> dict[str, dict[str, str]]:
        """Digests of what was trained on."""
        return {"scenes": self.scenes} | ({"photos": self.photos} if self.photos else {})


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def split(batch: Sequence[Tensor], parts: int) -> list[tuple[Tensor, ...]]:
    """The batch in at most that many parts of about equal size."""
    size = -(-len(batch[0]) // parts)
    return list(zip(*(torch.split(part, size) for part in batch), strict=True))


def band_error(x: Tensor, back: Tensor, clean: Tensor) -> Tensor:
    """Mean squared error of the judged bands, (N, judged), of what a network made of its own; as of `Batch`."""
    error = torch.einsum("njb,nbhw->njhw", back, x.float()) - clean
    return error.square().mean((2, 3))


def learning_rate(step: int, steps: int) -> float:
    """Fraction of the peak rate: linear warm-up, then a cosine down to 2 %."""
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps))


def _log(out: Any, record: dict[str, Any]) -> None:
    out.write(json.dumps(record) + "\n")
    out.flush()


def describe(model: Network, judges: Sequence[Scene], run: Run, table: dict[str, Any]) -> Card:
    """The card of freshly trained weights; floor and halo are measured on `judges`."""
    options = run.options
    told = {k: v for k, v in run.identity().items() if k not in run.seen()}
    # Filters of eigen-images reach as far as the weight-free model's, codes no less far than is measured.
    reach = BUILT_IN_CARD.halo if model.config.gains else 0
    return Card(
        name=run.path.stem,
        arch=options.arch,
        config=asdict(model.config),
        normalisation=EIGEN_NORMALISATION if model.frontend == "eigen" else WINDOWS_NORMALISATION,
        noise=tuple(options.patterns.split(",")),
        floor=0.0 if model.frontend == "eigen" else round(measure_floor(model, judges), 5),
        halo=reach if isinstance(model, Shrinkage) else max(measure_halo(model, judges), reach),
        training={
            "steps": run.step,
            "hours": round(run.seconds / 3600, 2),
            "device": next(model.parameters()).device.type,
            "options": told | {"start": Path(options.start).name},
            **run.seen(),
        },
        validation=table,
    )
