"""Factor analysis: spectra as a few common factors plus noise that every band has to itself (Lawley, 1940).

x = mean + sigma (L s + e), with s and e white and of unit variance. What several bands share is signal, what a band has
alone is noise: its variance is the band's uniqueness. Samples may be missing, and are predicted from the others.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Added to the largest eigenvalue that white noise gives: sigmas are known to a few percent.
MARGIN = 0.05
#: Least sigma of a band, over its standard deviation: bands that are copies of each other have no noise of their own.
LEAST = 1e-4
#: Most factors that are looked for, and in data with holes: there each pixel has its own matrix.
MOST, MOST_WITH_HOLES = 32, 12


def noise_edge(bands: int, samples: float) -> float:
    """The eigenvalue that whitened noise alone does not exceed (Marchenko and Pastur, 1967), and a margin."""
    return float((1 + np.sqrt(bands / max(samples, 1))) ** 2 + MARGIN)


def difference_edge(bands: int, differences: float) -> float:
    """The same for differences of neighbours, which say less than as many samples: two side by side share a pixel.

    Their power spectrum, 1 - cos, takes the place of white noise in the equation of Silverstein and Choi (Journal of
    Multivariate Analysis 1995); the edge is the least of what it gives.
    """
    s = np.geomspace(1e-4, 0.4999, 500)
    return float(((bands / max(differences, 1) + 1 / np.sqrt(1 - 2 * s) - 1) / s).min() + MARGIN)


def most_factors(bands: int) -> int:
    """As many as can be told from noise at all (Ledermann, 1937)."""
    return min(int((2 * bands + 1 - np.sqrt(8 * bands + 1)) / 2), MOST)


def loadings(covariance: Array, sigma: Array, edge: float) -> Array:
    """L (bands, factors) of data with this covariance and noise: what stands above the edge of noise."""
    values, vectors = np.linalg.eigh(covariance / np.outer(sigma, sigma))
    values, vectors = values[::-1], vectors[:, ::-1]
    count = min(int((values > edge).sum()), most_factors(len(sigma)))
    scaled: Array = vectors[:, :count] * np.sqrt(values[:count] - 1)
    return scaled


def uniqueness(covariance: Array, differences: float, rounds: int = 40) -> Array:
    """Noise sigma of each band from the covariance of all bands' differences of neighbours; (bands,).

    Each round takes the noise as known, explains what it can by factors, and compares what is left of a band with what
    its noise would leave: a share of 1 - leverage.

    Parameters
    ----------
    covariance
        (bands, bands).
    differences
        It was taken over.
    """
    scale = np.sqrt(np.maximum(np.diagonal(covariance), 1e-150))
    correlation = covariance / np.outer(scale, scale)
    sigma = np.ones(len(scale))
    edge = difference_edge(len(scale), differences)
    for _ in range(rounds):
        factors = loadings(correlation, sigma, edge)
        gain = np.linalg.solve(np.eye(factors.shape[1]) + factors.T @ factors, factors.T)
        rest = np.eye(len(sigma)) - factors @ gain
        left = (rest @ (correlation / np.outer(sigma, sigma)) * rest).sum(1)
        before, sigma = sigma, updated(sigma, left, np.einsum("ik,ki->i", factors, gain))
        if np.abs(sigma / before - 1).max() < 1e-3:
            break
    return sigma * scale


def updated(sigma: Array, left: Array, leverage: Array) -> Array:
    """Sigmas after a round, from the variance left in whitened bands; within 0.2 to 5 of what they were."""
    ratio = np.clip(left / np.maximum(1 - leverage, 0.02), 0.04, 25)
    return np.asarray(np.clip(sigma * np.sqrt(ratio), LEAST, None))


def factor_scores(white: NDArray[np.float32], good: NDArray[np.bool_], factors: Array) -> tuple[Array, Array]:
    """Mean of the factors of each pixel given its good samples, and their mean covariance.

    Parameters
    ----------
    white
        (bands, pixels): mean removed, noise of unit variance.
    good
        Samples that count, the same shape.
    factors
        L, (bands, factors).

    Returns
    -------
    scores, covariance
        (factors, pixels) and (factors, factors): what is not known of the factors.
    """
    count = factors.shape[1]
    scores = np.zeros((count, white.shape[1]))
    total = np.zeros((count, count))
    if not count or not white.shape[1]:
        return scores, total
    # A full pixel's matrix is the same for all of them; only pixels with holes need their own.
    whole = np.eye(count) + factors.T @ factors
    full = good.all(0)
    scores[:, full] = np.linalg.solve(whole, factors.T @ white[:, full])
    total += full.sum() * np.linalg.inv(whole)
    products = (factors[:, :, None] * factors[:, None, :]).reshape(len(factors), -1)
    holes = np.flatnonzero(~full)
    step = max(4_000_000 // count**2, 1)
    for start in range(0, holes.size, step):
        at = holes[start : start + step]
        here = good[:, at]
        matrices = (here.T.astype(np.float64) @ products).reshape(-1, count, count)
        # Beside the squares of large factors a plain one is lost, and a pixel with few samples would be singular.
        one = 1 + 1e-12 * np.trace(matrices, axis1=1, axis2=2)
        matrices += one[:, None, None] * np.eye(count)
        right = factors.T @ np.where(here, white[:, at], 0)
        inverse = np.linalg.inv(matrices)
        scores[:, at] = np.einsum("nij,jn->in", inverse, right)
        total += inverse.sum(0)
    return scores, total / white.shape[1]


def with_holes(
    data: Array, good: NDArray[np.bool_], rounds: int, *, sigma: Array | None = None, known: bool = False
) -> tuple[Array, Array]:  # fmt: skip
    """Noise sigma and covariance of centred data with missing samples, by expectation maximisation.

    Parameters
    ----------
    data
        (bands, pixels), mean about zero; differences of neighbours where the noise is not known.
    good
        Samples that are there.
    rounds
        Of the iteration.
    sigma, known
        Noise to start from; where it is known, only the covariance is found.

    Returns
    -------
    sigma, covariance
        (bands,) and (bands, bands).
    """
    present = good.mean(1)
    edge = (noise_edge if known else difference_edge)(len(data), float(np.median(good.sum(1))))
    data = np.where(good, data, 0)
    scale = np.sqrt(np.maximum(np.square(data).mean(1) / np.maximum(present, 1e-9), 1e-30))
    data = data / scale[:, None]
    noise = np.ones(len(data)) if sigma is None else sigma / scale
    # Pairs of samples that are both there give the first covariance; it need not be a possible one.
    together = good.astype(np.float32) @ good.T.astype(np.float32)
    covariance = data @ data.T / np.maximum(together, 1)
    for _ in range(rounds):
        factors = loadings(covariance, noise, edge)[:, :MOST_WITH_HOLES]
        white = data / noise[:, None]
        scores, unknown = factor_scores(white, good, factors)
        predicted = factors @ scores
        gone = np.outer(1 - present, 1 - present) * (factors @ unknown @ factors.T) + np.diag(1 - present)
        filled = np.where(good, white, predicted)
        covariance = (filled @ filled.T / data.shape[1] + gone) * np.outer(noise, noise)
        if not known:
            left = np.square(np.where(good, white - predicted, 0)).mean(1) / np.maximum(present, 1e-9)
            noise = updated(noise, left, np.einsum("ik,kl,il->i", factors, unknown, factors))
    return noise * scale, covariance * np.outer(scale, scale)


def leverage(factors: Array, present: Array) -> Array:
    """How much a band's own sample decides its prediction, for the usual pixel; (bands,), from 0 to 1."""
    inner = np.eye(factors.shape[1]) + factors.T @ (factors * present[:, None])
    share: Array = np.einsum("ik,ki->i", factors, np.linalg.solve(inner, factors.T))
    return share
