"""What a network is worth: a table of validation, the least noise it helps against, the context its tiles need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from . import metrics
from .eigen import Eigen, learn
from .eigenpatches import mended
from .model.dct import Dct
from .model.networks import Network
from .model.weights import Model
from .noise import PATTERNS, NoiseAccumulator, add_noise
from .patches import Scene


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
    """Denoise one patch (bands, rows, cols) whole, its noise estimated from itself unless given.

    Of eigen-images defects are mended too, as in a run, where the noise is not given.
    """
    if model.frontend == "eigen":
        if sigma is None:
            noisy, sigma = mended(noisy)
        return _apply_eigen(model, noisy, np.maximum(sigma, 1e-4))
    if sigma is None:
        accumulator = NoiseAccumulator(len(noisy))
        accumulator.add(noisy, np.ones(noisy.shape, bool))
        sigma = accumulator.sigma()
    return _network(model, noisy, sigma)


def _apply_eigen(model: Model, noisy: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    eigen = _learn(noisy, sigma)
    return eigen.restore(_images(model, eigen.project(noisy)))


def _learn(noisy: np.ndarray, sigma: np.ndarray) -> Eigen:
    return learn(noisy, sigma, lambda images: _images(Dct(), images))


def _images(model: Model, images: np.ndarray) -> np.ndarray:
    """Eigen-images denoised, group by group."""
    groups = [images[i : i + model.bands] for i in range(0, len(images), model.bands)]
    return np.concatenate([_network(model, group, np.ones(len(group))) for group in groups])


@torch.no_grad()
def _network(model: Model, noisy: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    y = torch.from_numpy(np.ascontiguousarray(noisy))[None].to(device)
    x, _ = model(y, torch.from_numpy(sigma.astype(np.float32))[None].to(device))
    return np.asarray(x[0].cpu().numpy())


def measure_floor(model: Network, scenes: Sequence[Scene]) -> float:
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


def measure_halo(model: Network, scenes: Sequence[Scene]) -> int:
    """Context a tile needs: pixels from a cut, in steps of 4, where the cut's effect is under a tenth of the error.

    Compares whole windows with the same windows cut in two; rms over rows and bands against the network's own. A solver
    that stops short of the fixed point does so elsewhere in another patch: twice what that makes far from the cut
    is no effect of the cut. Nor is what another grid of codes makes: the cut is where the network repeats itself.
    """
    worst = 0
    at = max(32 // model.period, 1) * model.period
    for _, clean in val_windows([s for s in scenes if min(s.cube.shape[1:]) >= 96][:4], judged(model)[0]):
        noisy = add_noise(clean, "g55", np.random.default_rng(0))
        sigma = (noisy - clean).std((1, 2))
        if model.frontend == "eigen":
            eigen = _learn(noisy, sigma)
            noisy, clean = (eigen.project(x)[: model.bands] for x in (noisy, clean))
            sigma = np.ones(len(noisy))
        whole = _network(model, noisy, sigma)[:, :, at:]
        cut = _network(model, np.ascontiguousarray(noisy[:, :, at:]), sigma)
        error = np.sqrt(np.square(whole - clean[:, :, at:]).mean())
        effect = np.sqrt(np.square(whole - cut).mean((0, 1)))
        beyond = np.flatnonzero(effect > max(0.1 * error, 2 * np.median(effect[len(effect) // 2 :])))
        worst = max(worst, int(beyond.max()) + 1 if beyond.size else 0)
    return -(-worst // 4) * 4
