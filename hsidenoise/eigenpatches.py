"""Training patches of eigen-images: what a run makes of a noisy scene, its errors in learning the images included.

A square of a scene gets noise, its eigen-images are learned from the noisy bands (`hsidenoise.eigen.learn`), and a
patch of them is cut out. What is judged are the scene's bands: where the images are not quite the signal's own, a
network that knows only clean images would be off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from .crops import augment, crop
from .defects import find, noise_of
from .eigen import learn
from .errors import TrainingError
from .mixing import Mixer
from .model.dct import THRESHOLD, Dct, dct_threshold, refine
from .noise import GAUSSIAN_TOP, band_sigma, draw
from .patches import Batch, Scene, chances, drawn

#: Bands a patch' error is measured in, at most; they are drawn where there are more.
JUDGED = 32
#: Share of a band's noise variance, and variance, that no network is asked to get below.
LEFT, LEAST = 1e-3, 1e-9
#: Squares that eigen-images are learned from, in patches along an edge: small scenes are as common as large ones.
AREAS = (1.0, 1.5, 2.0, 2.0, 2.5)
#: Bands of the paper's cubes, and of many sensors.
PAPER = 31
#: Share of the patches whose noise is estimated, as a run has to; the others are told it, with this relative error.
#: What a sensor left in a scene counts as noise in the estimate and as truth in the loss: where it is most of the noise
#: that is found, a network must not be too sure.
ESTIMATED, TOLD = 0.5, 0.02
#: Bands from which on noise is estimated in training: fewer do not tell it from texture.
FEWEST = 8
#: Sigma below which no band's noise is drawn, or told.
FAINTEST = 2e-4
#: Pixels between patches of the filter that eigen-images are learned from again: a run's takes 20 times as long.
STEP = 4


class EigenSampler:
    """Draws batches of eigen-images.

    Parameters
    ----------
    scenes
        Where patches come from; the chance of a scene grows with the root of its size.
    bands, edge
        Shape of a patch: images, and pixels along an edge.
    patterns
        Noise patterns, drawn with equal chance. What a mixture adds to Gaussian noise is found and mended first, as a
        run does it.
    seed
        Of every draw.
    mixer, share
        Where synthesised patches come from, and how many of all they are.

    Raises
    ------
    TrainingError
        No scene has three clean bands.
    """

    def __init__(
        self, scenes: Sequence[Scene], *, bands: int, edge: int, patterns: Sequence[str], seed: int,
        mixer: Mixer | None = None, share: float = 0.0,
    ) -> None:  # fmt: skip
        self.bands, self.edge, self.seed = bands, edge, seed
        self.mixer, self.share = mixer, share
        self.patterns = tuple(patterns)
        self.choices = [s.cube for s in scenes if len(s.cube) >= 3]  # bands between gaps are as good as neighbours
        if not self.choices:
            raise TrainingError("no scene has three clean bands")
        self.chance = chances(cube.size for cube in self.choices)

    def batch(self, step: int, size: int) -> Batch:
        """The batch of this step."""
        return drawn(self.patch, self.seed, step, size)

    def patch(self, rng: np.random.Generator) -> tuple[NDArray[np.float32], ...]:
        """One patch, in the order of `Batch`."""
        scene = self._scene(round(self.edge * rng.choice(AREAS)), rng)
        pattern = self.patterns[rng.integers(len(self.patterns))]
        if len(scene) < FEWEST and pattern == "mixture":
            pattern = "g95"
        if pattern == "mixture":
            drawn_noise = draw(pattern, len(scene), scene.shape[2], rng)
            sigma = drawn_noise.sigma
            noisy, told = mended(drawn_noise.add(scene, rng))
        else:
            sigma = self._sigma(pattern, len(scene), rng)
            noise = rng.standard_normal(scene.shape, dtype=np.float32)
            noisy = scene + sigma[:, None, None].astype(np.float32) * noise
            told = self._told(noisy, sigma, rng)
        rest = LEFT * sigma**2 + LEAST
        return cut(noisy, scene, told, rest, bands=self.bands, edge=self.edge, rng=rng)

    def _scene(self, edge: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Some bands of a square, (bands, edge, edge)."""
        if self.mixer and rng.random() < self.share:
            mixture = self.mixer.draw(0, edge, rng)
            spectra = mixture.spectra[self._bands(len(mixture.spectra), rng)]
            return augment(replace(mixture, spectra=spectra).cube(), rng)
        cube = self.choices[rng.choice(len(self.choices), p=self.chance)]
        return augment(crop(cube[self._bands(len(cube), rng)], edge, rng), rng)

    def _bands(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Some of `count` bands: neighbours, as many as the paper's, all or some; or thinned as coarse sensors' are."""
        kind = rng.integers(3)
        if kind < 2:
            size = PAPER if kind == 0 and count >= PAPER else count
            return np.arange(size) + int(rng.integers(count - size + 1))
        size = round(np.exp(rng.uniform(0, np.log(count))))
        step = int(rng.integers(1, max((count - 1) // max(size - 1, 1), 1) + 1)) if rng.random() < 0.3 else 1
        first = int(rng.integers(count - (size - 1) * step))
        return np.arange(first, first + size * step, step)[:size]

    def _sigma(self, pattern: str, bands: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Gaussian noise of each band: the pattern's, or for one draw in three as weak as good sensors' is."""
        sigma = band_sigma(pattern, bands, rng)
        if rng.random() < 0.33:
            sigma = sigma * np.exp(rng.uniform(np.log(0.02), 0)) * GAUSSIAN_TOP["g15"] / max(255 * sigma.max(), 1e-9)
        return np.maximum(sigma, FAINTEST)

    def _told(
        self, noisy: NDArray[np.float32], sigma: NDArray[np.float64], rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """Noise of each band, as the way to eigen-images is told it."""
        if len(noisy) >= FEWEST and rng.random() < ESTIMATED:
            return _estimate(noisy)
        return sigma * np.exp(TOLD * rng.standard_normal(len(sigma)))


def mended(noisy: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """A square without its defects, and the noise that is found in each of its bands."""
    whole = np.ones(noisy.shape, bool)
    found = find(noisy, whole, whole)
    if found is None:
        return noisy, _estimate(noisy)
    return found.mend(noisy, whole, 0)[0], np.maximum(found.sigma, FAINTEST)


def _estimate(noisy: NDArray[np.float32]) -> NDArray[np.float64]:
    """Noise of each band of a square without defects."""
    return np.maximum(noise_of(noisy, np.ones(noisy.shape, bool)), FAINTEST)


def cut(
    noisy: NDArray[np.float32], truth: NDArray[np.float32], sigma: NDArray[np.float64], rest: NDArray[np.float64], *,
    bands: int, edge: int, rng: np.random.Generator,
) -> tuple[NDArray[np.float32], ...]:  # fmt: skip
    """A patch, in the order of `Batch`, of the eigen-images of a noisy square; images that it does not have are zero.

    Parameters
    ----------
    noisy, truth
        (bands, rows, cols).
    sigma, rest
        Of each band: the noise that is told, and the mean squared error that is no fault of the network.
    bands, edge
        Shape of the patch.
    rng
        Of every draw.
    """
    eigen = learn(noisy, sigma, denoised)
    top, left = (int(rng.integers(n - edge + 1)) for n in noisy.shape[1:])
    here = np.s_[:, top : top + edge, left : left + edge]
    images = eigen.project(np.ascontiguousarray(noisy[here]))
    # The first group of images matters most; a later one is drawn now and then.
    groups = -(-len(images) // bands)
    first = bands * int(rng.integers(groups)) if rng.random() < 0.3 else 0
    group = slice(first, min(first + bands, len(images)))
    judged = np.resize(rng.permutation(len(noisy))[:JUDGED], JUDGED)  # fewer bands count several times
    ways = (eigen.sigma[:, None] * eigen.vectors)[judged].astype(np.float32)
    clean = truth[here][judged] - eigen.mean[judged, None, None].astype(np.float32)
    for others in (slice(0, group.start), slice(group.stop, len(images))):
        if others.start < others.stop:
            clean -= np.tensordot(ways[:, others], denoised(images[others]), 1)
    shown = np.zeros((bands, edge, edge), np.float32)
    back = np.zeros((JUDGED, bands), np.float32)
    shown[: group.stop - group.start] = images[group]
    back[:, : group.stop - group.start] = ways[:, group]
    return clean, shown, np.ones(bands, np.float32), back, rest[judged].astype(np.float32)


@torch.no_grad()
def denoised(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the weight-free model makes of eigen-images (images, rows, cols), with patches further apart."""
    groups = []
    for first in range(0, len(images), Dct.bands):
        y = torch.from_numpy(images[first : first + Dct.bands])[None]
        groups.append(refine(y, dct_threshold(y, THRESHOLD, STEP), steps=(STEP, STEP))[0].numpy())
    return np.concatenate(groups)
