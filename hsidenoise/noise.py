"""Noise: the five patterns networks are trained and judged on, and a blind estimate of what a scene has.

Sigmas are given on the /255 scale of the literature; scenes are scaled to [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .factors import uniqueness

#: Top of the uniform draw of each band's Gaussian sigma, /255.
GAUSSIAN_TOP = {"g15": 15.0, "g55": 55.0, "g95": 95.0, "mixture": 95.0}

PATTERNS = ("g15", "g55", "g95", "mixture", "corr")
#: Differences of neighbours it takes to tell a sigma from, within a fifth.
FEWEST = 20


def add_noise(clean: NDArray[np.float32], pattern: str, rng: np.random.Generator) -> NDArray[np.float32]:
    """A noisy copy of a clean patch.

    Parameters
    ----------
    clean
        (bands, rows, cols), values about [0, 1].
    pattern
        ``g15``, ``g55``, ``g95``: Gaussian, sigma of each band uniform in [0, top]. ``mixture``: ``g95`` plus, each on
        a third of the bands drawn on its own, impulses (10, 30, 50 or 70 % of the pixels), stripes (an offset in
        [-0.25, 0.25] on 5 to 15 % of the columns) and dead columns (0 on 5 to 15 %). ``corr``: Gaussian whose
        sigma is a bell over the bands, 23.08/255 at its top.
    rng
        Source of the draw.

    Raises
    ------
    ValueError
        Unknown pattern.
    """
    bands, _, cols = clean.shape
    return draw(pattern, bands, cols, rng).add(clean, rng)


@dataclass(frozen=True)
class Noise:
    """One draw of a pattern for a scene; it can be added block by block.

    Parameters
    ----------
    sigma
        Gaussian, of each band, (bands,).
    impulses
        Share of each band's samples that are 0 or 1 instead, (bands,).
    offset
        Of each column, (bands, cols); zero where there is no stripe.
    dead
        Columns that are 0, (bands, cols).
    """

    sigma: NDArray[np.float64]
    impulses: NDArray[np.float64]
    offset: NDArray[np.float32]
    dead: NDArray[np.bool_]

    def add(self, clean: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """A noisy copy of (bands, rows, cols): Gaussian noise, then impulses, stripes and dead columns."""
        noisy = rng.standard_normal(clean.shape, dtype=np.float32)
        noisy *= self.sigma.astype(np.float32)[:, None, None]
        noisy += clean
        for b in np.flatnonzero(self.impulses):
            chance = rng.random(clean.shape[1:], dtype=np.float32)
            noisy[b][chance < self.impulses[b]] = 0
            noisy[b][chance < self.impulses[b] / 2] = 1
        noisy += self.offset[:, None]
        np.copyto(noisy, 0, where=self.dead[:, None])
        return noisy


def draw(pattern: str, bands: int, cols: int, rng: np.random.Generator) -> Noise:
    """Draw what a pattern leaves to chance, for a scene of this many bands and columns.

    Raises
    ------
    ValueError
        Unknown pattern.
    """
    sigma = band_sigma(pattern, bands, rng)
    impulses = np.zeros(bands)
    offset = np.zeros((bands, cols), np.float32)
    dead = np.zeros((bands, cols), bool)
    if pattern == "mixture":
        third = max(bands // 3, 1)
        impulses[rng.permutation(bands)[:third]] = rng.choice([0.1, 0.3, 0.5, 0.7], third)
        for b in rng.permutation(bands)[:third]:
            hit = _columns(cols, rng)
            offset[b, hit] = rng.uniform(-0.25, 0.25, len(hit))
        for b in rng.permutation(bands)[:third]:
            dead[b, _columns(cols, rng)] = True
    return Noise(sigma, impulses, offset, dead)


def band_sigma(pattern: str, bands: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """The Gaussian noise of each band that `add_noise` draws first; on the scale of [0, 1].

    Raises
    ------
    ValueError
        Unknown pattern.
    """
    if pattern == "corr":
        position = np.arange(bands) / bands - 0.5
        sigma = 23.08 * np.exp(-(position**2) / (4 * 0.157**2))
    elif pattern in GAUSSIAN_TOP:
        sigma = rng.uniform(0, GAUSSIAN_TOP[pattern], bands)
    else:
        raise ValueError(f"noise pattern {pattern!r} is not one of {', '.join(PATTERNS)}")
    return np.asarray(sigma / 255)


def _columns(cols: int, rng: np.random.Generator) -> NDArray[np.int64]:
    count = int(rng.integers(int(np.ceil(0.05 * cols)), max(int(0.15 * cols), 1) + 1))
    return rng.permutation(cols)[:count]


class NoiseAccumulator:
    """Standard deviation of the noise in each band, from one pass over a scene.

    Differences of horizontal neighbours, over sqrt(2), hold all of the noise and little of the image (Green et al.,
    TGRS 1988); what several bands' differences share is image too. The rest is noise, as `factors.uniqueness` has it.
    Stripes count as noise; noise common to several bands does not. Memory is bands^2, whatever the scene.

    Parameters
    ----------
    bands
        Number of bands.
    most
        Differences used at most per call of `add`; more are thinned evenly.
    """

    def __init__(self, bands: int, most: int = 20_000) -> None:
        self.most = most
        self._sum = np.zeros((bands, bands))
        self._count = np.zeros((bands, bands))

    def add(self, block: NDArray[np.float32], valid: NDArray[np.bool_]) -> None:
        """Take in a block (bands, rows, cols); samples that are not `valid` are left out."""
        if block.shape[2] < 2:
            return
        difference = (block[:, :, 1:] - block[:, :, :-1]).reshape(len(block), -1)
        both = (valid[:, :, 1:] & valid[:, :, :-1]).reshape(len(block), -1)
        step = -(-difference.shape[1] // self.most)
        difference = difference[:, ::step].astype(np.float64) / np.sqrt(2)
        both = both[:, ::step]
        difference[~both] = 0
        self._sum += difference @ difference.T
        if both.all():
            self._count += both.shape[1]
        else:
            weight = both.astype(np.float32)
            self._count += weight @ weight.T

    def sigma(self) -> NDArray[np.float64]:
        """Noise standard deviation of each band, in the blocks' units; NaN where a band had too little to compare."""
        count = np.diagonal(self._count)
        sigma = np.full(len(count), np.nan)
        variance = np.diagonal(self._sum) / np.maximum(count, 1)
        sigma[(count >= FEWEST) & (variance == 0)] = 0
        live = np.flatnonzero((count >= FEWEST) & (variance > 0))
        if live.size == 0:
            return sigma
        scale = np.sqrt(variance[live])
        together = self._count[np.ix_(live, live)]
        covariance = self._sum[np.ix_(live, live)] / np.maximum(together, 1)
        sigma[live] = np.minimum(uniqueness(covariance, float(np.median(count[live]))), scale)
        return sigma


def texture_bound(rows: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """An upper bound of each band's noise that needs no other band, (bands,); NaN where nothing can be compared.

    The median magnitude of second differences along the rows (bands, rows, cols): texture raises it, edges hardly do
    (Donoho and Johnstone, Biometrika 1994, with differences in place of wavelets).
    """
    second = (rows[:, :, 2:] - 2 * rows[:, :, 1:-1] + rows[:, :, :-2]) / np.float32(np.sqrt(6))
    whole = valid[:, :, 2:] & valid[:, :, 1:-1] & valid[:, :, :-2]
    bound = [np.median(np.abs(s[w])) / 0.6745 if w.any() else np.nan for s, w in zip(second, whole, strict=True)]
    return np.array(bound, np.float64)
