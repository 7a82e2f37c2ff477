"""Recorruption: from one noisy scene two copies whose noise is independent.

With z drawn anew from the scene's own noise, y + a z and y - z / a have independent noise (Pang et al.,
"Recorrupted-to-recorrupted", CVPR 2021); what learns to turn the one into the other learns the clean scene, and its
error on parts it never saw can be told without knowing the truth.

That holds where z is as strong as the noise is, at each pixel. Photon noise grows with the signal: drawn with one sigma
for a whole band, z would be too strong in the dark and too weak where it is bright.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .eigen import Eigen, Moments, fit

#: Weight a of the noise that is added; the target gets 1 / a of it.
RECORRUPTION = 0.5
#: Noise energy in the recorrupted input and target, in units of the scene's.
INPUT_NOISE = 1 + RECORRUPTION**2
TARGET_NOISE = 1 + 1 / RECORRUPTION**2
#: Classes of brightness in which noise is compared.
CLASSES = 12
#: Least share of a band's mean noise energy at any pixel, and in what is left of a band when its signal is taken out.
FAINTEST, LEFT = 0.02, 0.1


@dataclass(frozen=True)
class Strength:
    """How strong the noise is at each pixel: its variance is a straight line over the signal.

    Parameters
    ----------
    eigen
        The signal is what these images hold.
    base, slope
        Variance of each band without signal, and its growth with it, (bands,); raw units.
    """

    eigen: Eigen
    base: NDArray[np.float64]
    slope: NDArray[np.float64]

    @classmethod
    def of(cls, noisy: NDArray[np.float32], sigma: NDArray[np.float64]) -> Strength:
        """Learned from (bands, rows, cols), whose bands have noise of `sigma` on average, above zero.

        Where noise does not grow with the signal, or too few bands leave nothing to tell it by, it is even.
        """
        moments = Moments(len(noisy))
        moments.add(noisy, np.ones(noisy.shape[1:], bool))
        eigen = fit(moments.mean(), moments.covariance(), sigma, moments.pixels)
        signal = eigen.restore(eigen.project(noisy)).reshape(len(noisy), -1)
        left = np.square(noisy.reshape(len(noisy), -1) - signal)
        base, slope = sigma**2, np.zeros(len(sigma))
        for b, level in enumerate(sigma**2):
            if left[b].mean() < LEFT * level:
                continue
            line = _line(signal[b].astype(np.float64), left[b].astype(np.float64))
            if line[1] > 0:
                mean = np.maximum(line[0] + line[1] * signal[b], FAINTEST * level).mean()
                base[b], slope[b] = np.array(line) * level / mean
        return cls(eigen, base, slope)

    def at(self, noisy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Standard deviation of the noise of a part of the scene, (bands, rows, cols)."""
        signal = self.eigen.restore(self.eigen.project(noisy))
        variance = self.base[:, None, None] + self.slope[:, None, None] * signal
        least = FAINTEST * self.eigen.sigma[:, None, None] ** 2
        return np.asarray(np.sqrt(np.maximum(variance, least)), np.float32)


def _line(signal: NDArray[np.float64], energy: NDArray[np.float64]) -> tuple[float, float]:
    """Offset and slope of the mean energy over the signal, from classes of equal size."""
    edges = np.quantile(signal, np.linspace(0, 1, CLASSES + 1)[1:-1])
    place = np.searchsorted(edges, signal)
    count = np.bincount(place, minlength=CLASSES)
    used = count > 0
    count = count[used]
    x, y = (np.bincount(place, values, CLASSES)[used] / count for values in (signal, energy))
    # The scatter of a mean energy is proportional to it.
    weight = np.sqrt(count) / np.maximum(y, 1e-3 * y.mean() + 1e-300)
    if len(x) < 3 or np.ptp(x) == 0:
        return float(energy.mean()), 0.0
    slope, offset = np.polyfit(x, y, 1, w=weight)
    return float(offset), float(slope)


def recorrupt(
    noisy: NDArray[np.float32], strength: NDArray[np.float32], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Input and target with independent noise, from (bands, rows, cols) and the noise at each of its pixels."""
    z = rng.standard_normal(noisy.shape, dtype=np.float32) * strength
    return noisy + np.float32(RECORRUPTION) * z, noisy - np.float32(1 / RECORRUPTION) * z
