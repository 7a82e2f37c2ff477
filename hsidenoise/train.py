"""Training: a loop, a validation table, a checkpoint that resumes exactly.

Needs torch, numpy, scipy, h5py, safetensors and rich only, so that it also runs where no raster library is.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import metrics, progress
from .device import pick
from .eigen import Eigen, Moments, fit
from .errors import TrainingError, UsageError, WeightsError
from .model.decsc import CONFIGS, DECSC, build, config_dict
from .model.weights import EIGEN_NORMALISATION, WINDOWS_NORMALISATION, Card, Model, check_target, find, load, save
from .noise import PATTERNS, NoiseAccumulator, add_noise
from .patches import Prefetch, Scene, load_scenes
from .pipeline import pipeline
from .settings import TrainOptions, to_dict

EMA = 0.998
WARM_UP = 100
#: Weight in the loss of the residual at the fixed point, where codes are damped.
DRIFT = 3.0


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
    sampler, photos = pipeline(scenes, model.config, options)
    run = Run(model, options, output, {s.name: s.digest for s in scenes}, photos)
    run.resume()
    batches = Prefetch(sampler, run.step, options.steps, options.batch)
    log = output.with_suffix(".jsonl")
    started, saved = time.monotonic(), time.monotonic()
    table: dict[str, Any] = {}
    with progress.track(options.steps, f"train {options.arch}", quiet=quiet, unit="step") as bar, log.open("a") as out:
        bar.advance(run.step)
        for batch in batches:
            record = run.advance([torch.from_numpy(part).to(device) for part in batch])
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


def begin(model: DECSC, start: str) -> None:
    """Give a network the weights of that name, or of a file.

    Raises
    ------
    WeightsError
        There are none, or they are of a network of another shape.
    """
    source, _ = load(find(start))
    if not isinstance(source, DECSC):
        raise WeightsError(f"--start {start}: has no weights")
    try:
        model.load_state_dict(source.state_dict())
    except RuntimeError as error:
        raise WeightsError(f"--start {start}: is not a network of this shape") from error


def _check(output: Path, options: TrainOptions) -> None:
    if options.arch not in CONFIGS:
        raise UsageError(f"--arch {options.arch}: not one of {', '.join(CONFIGS)}")
    if options.init not in ("frame", "kaiming"):
        raise UsageError(f"--init {options.init}: not frame or kaiming")
    if options.loss not in ("log", "mse"):
        raise UsageError(f"--loss {options.loss}: not log or mse")
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
        self, model: DECSC, options: TrainOptions, output: Path, scenes: Mapping[str, str], photos: Mapping[str, str]
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
        evaluations = max(model.config.evaluations - options.unrolled, 1)
        # On a CPU parts of the batch go side by side, a thread each: a network this small leaves threads that share
        # one operation waiting for each other.
        parts = [self.pool.submit(self.gradient, evaluations, *part) for part in split(batch, self.threads)]
        done = [part.result() for part in parts]
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
        with self.precision(clean.device):
            found = model.solve(noisy, sigma, evaluations=evaluations, phantom_steps=options.unrolled)
        error = band_error(found.x - clean, back) + rest
        loss = torch.log(error).mean() if options.loss == "log" else error.mean()
        if model.config.shrink < 1:
            loss = loss + DRIFT * found.drift.mean()
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        return gradients, {
            "loss": loss.detach(),
            "error": error.detach(),
            "noisy": band_error(noisy - clean, back) + rest,
            "residual": found.convergence.residual,
        }

    def precision(self, device: torch.device) -> contextlib.AbstractContextManager[Any]:
        """bfloat16 autocast when asked for."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.options.bf16)

    def averaged(self) -> DECSC:
        """The network with the exponentially averaged weights, in evaluation mode."""
        network = DECSC(self.model.config)
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


def band_error(error: Tensor, back: Tensor) -> Tensor:
    """Mean squared error of the judged bands, (N, judged), from the error of a patch (N, bands, H, W)."""
    flat = error.float().flatten(2)
    gram = flat @ flat.transpose(1, 2) / flat.shape[2]
    return torch.einsum("nji,nik,njk->nj", back, gram, back).clamp_min(0)


def learning_rate(step: int, steps: int) -> float:
    """Fraction of the peak rate: linear warm-up, then a cosine down to 2 %."""
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps))


def _log(out: Any, record: dict[str, Any]) -> None:
    out.write(json.dumps(record) + "\n")
    out.flush()


def judged(model: Model) -> tuple[int, int]:
    """Bands and edge of the windows a network is judged on: eigen-images need pixels for their statistics."""
    return (31, 128) if model.frontend == "eigen" else (model.bands, 96)


def val_windows(scenes: Sequence[Scene], bands: int, edge: int = 96) -> Iterator[tuple[str, np.ndarray]]:
    """One central crop of each scene, `bands` neighbours of its longest clean run."""
    for scene in scenes:
        run = max(scene.runs, key=lambda r: r.stop - r.start)
        if run.stop - run.start < bands:
            continue
        first = (run.start + run.stop - bands) // 2
        rows, cols = ((n - min(n, edge)) // 2 for n in scene.cube.shape[1:])
        yield scene.name, scene.cube[first : first + bands, rows : rows + edge, cols : cols + edge]


def validate(model: Model, scenes: Sequence[Scene], patterns: Sequence[str]) -> dict[str, Any]:
    """MPSNR (dB), MSSIM and SAM (rad) by scene and pattern, and their means; noise is seeded."""
    table: dict[str, Any] = {}
    for index, (name, clean) in enumerate(val_windows(scenes, *judged(model))):
        for pattern in patterns:
            noisy = add_noise(clean, pattern, np.random.default_rng([7, index, PATTERNS.index(pattern)]))
            denoised = np.clip(apply(model, noisy), 0, 1)
            scores = [metrics.psnr(clean, denoised), metrics.ssim(clean, denoised), metrics.sam(clean, denoised)]
            table.setdefault(pattern, {})[name] = [round(float(s), 4) for s in scores]
    for by_scene in table.values():
        by_scene["mean"] = [round(float(np.mean(column)), 4) for column in zip(*by_scene.values(), strict=True)]
    return table


def apply(model: Model, noisy: np.ndarray, sigma: np.ndarray | None = None) -> np.ndarray:
    """Denoise one patch (bands, rows, cols) whole, its noise estimated from itself unless given."""
    if sigma is None:
        accumulator = NoiseAccumulator(len(noisy))
        accumulator.add(noisy, np.ones(noisy.shape, bool))
        sigma = accumulator.sigma()
    if model.frontend == "eigen":
        return _apply_eigen(model, noisy, np.maximum(sigma, 1e-4))
    return _network(model, noisy, sigma)


def _apply_eigen(model: Model, noisy: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    eigen = learn(noisy, sigma)
    images = eigen.project(noisy)
    groups = [images[i : i + model.bands] for i in range(0, len(images), model.bands)]
    return eigen.restore(np.concatenate([_network(model, group, np.ones(len(group))) for group in groups]))


def learn(noisy: np.ndarray, sigma: np.ndarray) -> Eigen:
    """The eigen-images of a patch in memory."""
    moments = Moments(len(noisy))
    moments.add(noisy, np.ones(noisy.shape[1:], bool))
    return fit(moments.mean(), moments.covariance(), sigma, moments.pixels)


@torch.no_grad()
def _network(model: Model, noisy: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    y = torch.from_numpy(np.ascontiguousarray(noisy))[None].to(device)
    x, _ = model(y, torch.from_numpy(sigma.astype(np.float32))[None].to(device))
    return np.asarray(x[0].cpu().numpy())


def measure_floor(model: DECSC, scenes: Sequence[Scene]) -> float:
    """The noise below which the network is likelier to harm a band than to help it.

    Windows get noise of every level, band by band; the floor is the lowest sigma from which on, in most bands of
    about that sigma, the error after denoising is less than the noise was. `hsidenoise.probe` looks closer on the
    scene itself.
    """
    sigma: list[float] = []
    error: list[float] = []
    for index, (_, clean) in enumerate(val_windows(scenes[:12], model.config.bands, edge=64)):
        rng = np.random.default_rng([11, index])
        level = np.exp(rng.uniform(np.log(0.0005), np.log(0.1), len(clean))).astype(np.float32)
        noisy = clean + level[:, None, None] * rng.standard_normal(clean.shape, dtype=np.float32)
        sigma.extend(level)
        error.extend(np.sqrt(np.square(apply(model, noisy) - clean).mean((1, 2))))
    helped = np.array(error) < np.array(sigma)
    edges = np.geomspace(0.0005, 0.1, 24)
    floor = edges[-1]
    for low, high in zip(edges[-2::-1], edges[:0:-1], strict=True):
        here = helped[(np.array(sigma) >= low) & (np.array(sigma) < high)]
        if here.size and here.mean() <= 0.5:
            break
        floor = low
    return float(floor)


def measure_halo(model: DECSC, scenes: Sequence[Scene]) -> int:
    """Context a tile needs: pixels from a cut, in steps of 4, where the cut's effect is under a tenth of the error.

    Compares whole windows with the same windows cut in two; rms over rows and bands against the network's own. A solver
    that stops short of the fixed point does so elsewhere in another patch: twice what that makes far from the cut
    is no effect of the cut.
    """
    worst = 0
    for _, clean in val_windows([s for s in scenes if min(s.cube.shape[1:]) >= 96][:4], judged(model)[0]):
        noisy = add_noise(clean, "g55", np.random.default_rng(0))
        sigma = (noisy - clean).std((1, 2))
        if model.frontend == "eigen":
            eigen = learn(noisy, sigma)
            noisy, clean = (eigen.project(x)[: model.bands] for x in (noisy, clean))
            sigma = np.ones(len(noisy))
        whole = _network(model, noisy, sigma)[:, :, 32:]
        cut = _network(model, np.ascontiguousarray(noisy[:, :, 32:]), sigma)
        error = np.sqrt(np.square(whole - clean[:, :, 32:]).mean())
        effect = np.sqrt(np.square(whole - cut).mean((0, 1)))
        beyond = np.flatnonzero(effect > max(0.1 * error, 2 * np.median(effect[len(effect) // 2 :])))
        worst = max(worst, int(beyond.max()) + 1 if beyond.size else 0)
    return -(-worst // 4) * 4


def describe(model: DECSC, judges: Sequence[Scene], run: Run, table: dict[str, Any]) -> Card:
    """The card of freshly trained weights; floor and halo are measured on `judges`."""
    options = run.options
    return Card(
        name=run.path.stem,
        arch=options.arch,
        config=config_dict(model.config),
        normalisation=EIGEN_NORMALISATION if model.frontend == "eigen" else WINDOWS_NORMALISATION,
        noise=tuple(options.patterns.split(",")),
        floor=0.0 if model.frontend == "eigen" else round(measure_floor(model, judges), 5),
        halo=measure_halo(model, judges),
        training={
            "steps": run.step,
            "hours": round(run.seconds / 3600, 2),
            "device": next(model.parameters()).device.type,
            "options": {k: v for k, v in run.identity().items() if k not in run.seen()},
            **run.seen(),
        },
        validation=table,
    )
