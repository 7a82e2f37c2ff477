"""Training patches of eigen-images: what `hsidenoise.eigen` would make of a noisy scene, without making the scene.

The signal's covariance is known from the clean cube, the noise is drawn per band: eigenvectors follow, and projected
noise is white again whatever the bands were. So a patch of 200 bands costs no more than its images do.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .eigen import Moments, fit
from .errors import TrainingError
from .noise import GAUSSIAN_TOP, band_sigma
from .patches import Batch, Scene, augment, chances, crop, drawn

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

    Raises
    ------
    TrainingError
        No scene has three neighbouring clean bands.
    """

    def __init__(
        self, scenes: Sequence[Scene], *, bands: int, edge: int, patterns: Sequence[str], seed: int
    ) -> None:
        self.bands, self.edge, self.seed = bands, edge, seed
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
        cube, moments = self.choices[rng.choice(len(self.choices), p=self.chance)]
        chosen = self._bands(len(cube), rng)
        sigma = self._sigma(len(chosen), rng)
        signal = moments.covariance()[np.ix_(chosen, chosen)]
        eigen = fit(moments.mean()[chosen], signal + np.diag(sigma**2), sigma, 40_000 * len(chosen))
        # The first group of images matters most; a later one is drawn now and then.
        groups = -(-len(eigen.values) // self.bands)
        first = self.bands * int(rng.integers(groups)) if rng.random() < 0.3 else 0
        vectors = eigen.vectors[:, first : first + self.bands]
        pixels = augment(crop(cube[chosen], self.edge, rng), rng)
        white = (pixels.reshape(len(chosen), -1) - eigen.mean[:, None]) / sigma[:, None]
        clean = np.zeros((self.bands, self.edge, self.edge), np.float32)
        clean[: vectors.shape[1]] = (vectors.T @ white).reshape(-1, self.edge, self.edge)
        # Sigmas are estimates: the noise of an image is not exactly one.
        level = np.exp(0.02 * rng.standard_normal((self.bands, 1, 1))).astype(np.float32)
        noisy = clean + level * rng.standard_normal(clean.shape, dtype=np.float32)
        noisy[vectors.shape[1] :] = 0
        judged = rng.permutation(len(chosen))[:JUDGED]
        judged = np.resize(judged, JUDGED)  # fewer bands count several times
        back = np.zeros((JUDGED, self.bands), np.float32)
        back[:, : vectors.shape[1]] = sigma[judged, None] * vectors[judged]
        rest = (LEFT / len(chosen) * sigma[judged] ** 2).astype(np.float32)
        return clean, noisy, np.ones(self.bands, np.float32), back, rest

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
