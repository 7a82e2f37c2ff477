"""Training patches of eigen-images: what `hsidenoise.eigen` would make of a noisy scene, without making the scene.

The signal's covariance is known from the clean cube, the noise is drawn per band: eigenvectors follow, and projected
noise is white again whatever the bands were. So a patch of 200 bands costs no more than its images do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .crops import augment, crop
from .eigen import Moments, fit
from .errors import TrainingError
from .mixing import Mixer
from .noise import GAUSSIAN_TOP, band_sigma
from .patches import Batch, Scene, chances, drawn

#: Bands a patch' error is measured in, at most; they are drawn where there are more.
JUDGED = 32
#: Share of a band's noise variance that is left in it by the images a patch does not hold, per band.
LEFT = 0.2


class EigenSampler:
    """Draws batches of eigen-images.

    Parameters
    ----------
    scenes
        Where patches come from; the chance of a scene grows with the root of its size.
    bands, edge
        Shape of a patch: images, and pixels along an edge.
    patterns
        Noise patterns, drawn with equal chance. What a mixture adds to Gaussian noise is gone before the network is
        asked, so ``mixture`` is drawn as ``g95``.
    seed
        Of every draw.
    mixer, share
        Where synthesised patches come from, and how many of all they are.

    Raises
    ------
    TrainingError
        No scene has three neighbouring clean bands.
    """

    def __init__(
        self, scenes: Sequence[Scene], *, bands: int, edge: int, patterns: Sequence[str], seed: int,
        mixer: Mixer | None = None, share: float = 0.0,
    ) -> None:  # fmt: skip
        self.bands, self.edge, self.seed = bands, edge, seed
        self.mixer, self.share = mixer, share
        self.patterns = ["g95" if p == "mixture" else p for p in patterns]
        self.choices = [(s.cube[r], _moments(s.cube[r])) for s in scenes for r in s.runs if r.stop - r.start >= 3]
        if not self.choices:
            raise TrainingError("no scene has three neighbouring clean bands")
        self.chance = chances(cube.size for cube, _ in self.choices)

    def batch(self, step: int, size: int) -> Batch:
        """The batch of this step."""
        return drawn(self.patch, self.seed, step, size)

    def patch(self, rng: np.random.Generator) -> tuple[NDArray[np.float32], ...]:
        """Clean images, noisy ones, their noise, the way back to bands, and the error other images leave there."""
        pixels, mean, signal = self._scene(rng)
        sigma = self._sigma(len(pixels), rng)
        eigen = fit(mean, signal + np.diag(sigma**2), sigma, 40_000 * len(pixels))
        # The first group of images matters most; a later one is drawn now and then.
        groups = -(-len(eigen.values) // self.bands)
        first = self.bands * int(rng.integers(groups)) if rng.random() < 0.3 else 0
        vectors = eigen.vectors[:, first : first + self.bands]
        white = (pixels.reshape(len(pixels), -1) - eigen.mean[:, None]) / sigma[:, None]
        clean = np.zeros((self.bands, self.edge, self.edge), np.float32)
        clean[: vectors.shape[1]] = (vectors.T @ white).reshape(-1, self.edge, self.edge)
        # Sigmas are estimates: the noise of an image is not exactly one.
        level = np.exp(0.02 * rng.standard_normal((self.bands, 1, 1))).astype(np.float32)
        noisy = clean + level * rng.standard_normal(clean.shape, dtype=np.float32)
        noisy[vectors.shape[1] :] = 0
        judged = rng.permutation(len(pixels))[:JUDGED]
        judged = np.resize(judged, JUDGED)  # fewer bands count several times
        back = np.zeros((JUDGED, self.bands), np.float32)
        back[:, : vectors.shape[1]] = sigma[judged, None] * vectors[judged]
        rest = (LEFT / len(pixels) * sigma[judged] ** 2).astype(np.float32)
        return clean, noisy, np.ones(self.bands, np.float32), back, rest

    def _scene(self, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]:
        """Some bands of a patch, (bands, edge, edge), and their mean and covariance over its scene."""
        if self.mixer and rng.random() < self.share:
            mixture = self.mixer.draw(0, self.edge, rng)
            spectra = mixture.spectra[self._bands(len(mixture.spectra), rng)]
            mean, signal = spectra @ mixture.mean, spectra @ mixture.covariance @ spectra.T
            return augment(replace(mixture, spectra=spectra).cube(), rng), mean, signal
        cube, moments = self.choices[rng.choice(len(self.choices), p=self.chance)]
        chosen = self._bands(len(cube), rng)
        mean, signal = moments.mean()[chosen], moments.covariance()[np.ix_(chosen, chosen)]
        return augment(crop(cube[chosen], self.edge, rng), rng), mean, signal

    def _bands(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Some of `count` bands: neighbours, or thinned as a coarser sensor's are, or reversed."""
        size = round(np.exp(rng.uniform(np.log(min(6, count)), np.log(count))))
        step = int(rng.integers(1, max((count - 1) // max(size - 1, 1), 1) + 1)) if rng.random() < 0.3 else 1
        first = int(rng.integers(count - (size - 1) * step))
        return np.arange(first, first + size * step, step)[:size]

    def _sigma(self, bands: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Noise of each band: a pattern's, or for one draw in three as weak as good sensors' is."""
        pattern = self.patterns[rng.integers(len(self.patterns))]
        sigma = band_sigma(pattern, bands, rng)
        if rng.random() < 0.33:
            sigma = sigma * np.exp(rng.uniform(np.log(0.02), 0)) * GAUSSIAN_TOP["g15"] / max(255 * sigma.max(), 1e-9)
        return np.maximum(sigma, 2e-4)


def _moments(cube: NDArray[np.float32]) -> Moments:
    moments = Moments(len(cube))
    moments.add(cube, np.ones(cube.shape[1:], bool))
    return moments
