"""Training patches of a user's own scenes: against a cleaner one, against its own clean bands, or against itself.

A noisy scene teaches by *recorruption* (`hsidenoise.recorruption`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .crops import augment
from .eigenpatches import LEFT, cut
from .errors import TrainingError
from .patches import LEAST, Batch, drawn
from .recorruption import INPUT_NOISE, recorrupt
from .scenepatches import OwnScene, Part
from .spectral import Normalisation, gather, windows

#: Bands with less noise than this, relative to their window's range, are clean enough to add noise to.
CLEAN = 0.005
#: Pixels that eigen-images are learned from, about, where there are as many.
PIXELS = 128**2
#: Clean bands that it takes to learn from eigen-images of them.
FEWEST = 3


class OwnWindows:
    """Draws windows of bands (`hsidenoise.patches.Draws`).

    Parameters
    ----------
    scenes
        To learn from.
    bands, edge
        Shape of a patch; its edge is smaller where squares are.
    seed
        Of every draw.
    clean_bands
        Learn from windows of clean bands, with the scene's noise added, instead of the noisy ones.

    Raises
    ------
    TrainingError
        No window has clean bands only.
    """

    def __init__(
        self, scenes: Sequence[OwnScene], *, bands: int, edge: int, seed: int, clean_bands: bool = False
    ) -> None:
        self.edge = min(edge, *(s.training[0].noisy.shape[1] for s in scenes))
        self.seed, self.clean_bands = seed, clean_bands
        self.choices = [
            (scene, window, normal)
            for scene in scenes
            for window in windows(scene.groups, bands)
            for normal in (Normalisation.of(window, scene.low, scene.high),)
            if not clean_bands or (scene.sigma[list(window.bands)] < CLEAN * normal.scale).all()
        ]
        if not self.choices:
            raise TrainingError("no window of bands is clean enough to add noise to; leave out --clean-bands")

    def batch(self, step: int, size: int) -> Batch:
        """The batch of this step."""
        return drawn(self.patch, self.seed, step, size)

    def patch(self, rng: np.random.Generator) -> tuple[NDArray[np.float32], ...]:
        """One patch, in the order of `Batch`."""
        scene, window, normal = self.choices[rng.integers(len(self.choices))]
        square = scene.training[int(rng.integers(len(scene.training)))]
        top, left = rng.integers(0, square.noisy.shape[1] - self.edge + 1, 2)
        here = np.s_[:, top : top + self.edge, left : left + self.edge]
        both = [normal.apply(gather(square.noisy[here], window))]
        if square.clean is not None:
            both.append(normal.apply(gather(square.clean[here], window)))
        elif not self.clean_bands:
            both.append(gather(scene.strength.at(square.noisy[here]), window) / np.float32(normal.scale))
        parts = augment(np.concatenate(both), rng)
        noisy, bands = parts[: len(window.bands)], len(window.bands)
        sigma = np.maximum(scene.sigma[list(window.bands)] / normal.scale, 1e-5)
        back, rest = np.eye(bands, dtype=np.float32), np.full(bands, LEAST, np.float32)
        if self.clean_bands:
            clean, sigma = noisy, rng.permutation(scene.sigma / scene.scale)[np.arange(bands) % len(scene.sigma)]
            noise = rng.standard_normal(clean.shape, dtype=np.float32) * sigma.astype(np.float32)[:, None, None]
            noisy = clean + noise
        elif square.clean is not None:
            clean = parts[bands:]
        else:
            noisy, clean = recorrupt(noisy, parts[bands:], rng)
            unit = sigma.astype(np.float32)  # errors count in units of the band's noise
            back, clean = back / unit[:, None], clean / unit[:, None, None]
            sigma = sigma * np.sqrt(INPUT_NOISE)
        return clean, noisy, sigma.astype(np.float32), back, rest


class OwnImages:
    """Draws eigen-images (`hsidenoise.patches.Draws`), learned from the squares that a patch is cut out of.

    Small squares are learned from several at a time, side by side: the more pixels, the more like a run's the images.
    Where two squares meet there is one more edge.

    Parameters
    ----------
    scenes, bands, edge, seed, clean_bands
        As of `OwnWindows`; `bands` are images.

    Raises
    ------
    TrainingError
        No scene has clean bands enough.
    """

    def __init__(
        self, scenes: Sequence[OwnScene], *, bands: int, edge: int, seed: int, clean_bands: bool = False
    ) -> None:
        self.bands, self.seed, self.clean_bands = bands, seed, clean_bands
        self.edge = min(edge, *(s.training[0].noisy.shape[1] for s in scenes))
        self.choices = []
        for scene in scenes:
            clean = scene.sigma < CLEAN * scene.scale
            if not clean_bands or clean.sum() >= FEWEST:
                self.choices.append((scene, np.flatnonzero(clean) if clean_bands else np.arange(len(clean))))
        if not self.choices:
            raise TrainingError("too few bands are clean enough to add noise to; leave out --clean-bands")

    def batch(self, step: int, size: int) -> Batch:
        """The batch of this step."""
        return drawn(self.patch, self.seed, step, size)

    def patch(self, rng: np.random.Generator) -> tuple[NDArray[np.float32], ...]:
        """One patch, in the order of `Batch`."""
        scene, chosen = self.choices[rng.integers(len(self.choices))]
        count = PIXELS // scene.training[0].noisy[0].size
        some = [scene.training[i] for i in rng.permutation(len(scene.training))[: max(count, 1)]]
        parts = augment(np.concatenate([self._both(scene, square, chosen) for square in some], axis=2), rng)
        noisy, sigma = parts[: len(chosen)], scene.sigma[chosen]
        if self.clean_bands:
            truth, sigma = noisy, scene.scale[chosen] * rng.permutation(scene.sigma / scene.scale)[: len(chosen)]
            noise = rng.standard_normal(truth.shape, dtype=np.float32) * sigma.astype(np.float32)[:, None, None]
            noisy = truth + noise
        elif some[0].clean is not None:
            truth = parts[len(chosen) :]
        else:
            noisy, truth = recorrupt(noisy, parts[len(chosen) :], rng)
            sigma = sigma * np.sqrt(INPUT_NOISE)
        return cut(noisy, truth, sigma, LEFT * sigma**2, bands=self.bands, edge=self.edge, rng=rng)

    def _both(self, scene: OwnScene, square: Part, chosen: NDArray[np.intp]) -> NDArray[np.float32]:
        """The chosen bands of a square, and what they are learned with: a cleaner one, or how strong their noise is."""
        both = [square.noisy[chosen]]
        if square.clean is not None:
            both.append(square.clean[chosen])
        elif not self.clean_bands:
            both.append(scene.strength.at(square.noisy)[chosen])
        return np.concatenate(both)
