"""Eigen-images: a scene's bands, whitened by their noise and rotated so that few images hold all of the signal.

Every band is divided by its noise sigma; the eigenvectors of the covariance of that, in falling order, turn pixels into
eigen-images whose noise is white, independent and of unit variance whatever the sensor (minimum noise fraction: Green
et al., TGRS 1988). Signal is where an eigenvalue exceeds what noise alone gives: many bands become a few images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from .factors import noise_edge

#: Strength of an image, relative to the strongest, below which it is rounding.
LEAST = 1e-6
#: Pixels for each band beyond which eigen-images are good as they are.
MOST = 1500


class Moments:
    """Mean and covariance of the bands from one pass, in float64; memory is bands^2 whatever the scene.

    Parameters
    ----------
    bands
        Number of bands.
    """

    def __init__(self, bands: int) -> None:
        self.pixels = 0
        self._origin: NDArray[np.float64] | None = None
        self._sum = np.zeros(bands)
        self._products = np.zeros((bands, bands))

    def add(self, block: NDArray[np.float32], valid: NDArray[np.bool_]) -> None:
        """Take in a block (bands, rows, cols); pixels that are not valid (rows, cols) are left out."""
        spectra = block[:, valid].astype(np.float64)
        if not spectra.size:
            return
        if self._origin is None:  # about a point near the mean, sums of squares keep their digits
            self._origin = spectra.mean(1)
        spectra -= self._origin[:, None]
        self.pixels += spectra.shape[1]
        self._sum += spectra.sum(1)
        self._products += spectra @ spectra.T

    def mean(self) -> NDArray[np.float64]:
        """Of each band; zero without any pixel."""
        if self._origin is None:
            return np.zeros_like(self._sum)
        mean: NDArray[np.float64] = self._origin + self._sum / self.pixels
        return mean

    def covariance(self) -> NDArray[np.float64]:
        """(bands, bands); zero without any pixel."""
        n = max(self.pixels, 1)
        covariance: NDArray[np.float64] = self._products / n - np.outer(self._sum, self._sum) / n**2
        return covariance


@dataclass(frozen=True)
class Eigen:
    """The way from bands to eigen-images and back.

    Parameters
    ----------
    mean, sigma
        Of each band, raw units, shape (bands,); sigma is the noise.
    vectors
        Eigenvectors of the whitened covariance, one a column, (bands, images), most signal first.
    values
        Their eigenvalues: variance of each image, noise (1) included.
    """

    mean: NDArray[np.float64]
    sigma: NDArray[np.float64]
    vectors: NDArray[np.float64] = field(repr=False)
    values: NDArray[np.float64] = field(repr=False)

    @property
    def rank(self) -> int:
        """Images: as many as have more variance than noise alone gives."""
        return len(self.values)

    def whiten(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bands (bands, rows, cols) in raw units to multiples of their noise about their mean, (bands, pixels)."""
        white = np.empty((len(block), block[0].size), np.float32)
        for b, band in enumerate(block):  # in float64, so that a large offset keeps its digits
            white[b] = ((band.astype(np.float64) - self.mean[b]) / self.sigma[b]).ravel()
        return white

    def project(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bands (bands, rows, cols) in raw units to eigen-images (images, rows, cols), noise of unit variance."""
        return (self.vectors.T.astype(np.float32) @ self.whiten(block)).reshape(-1, *block.shape[1:])

    def restore(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """The inverse of `project`, but for what lies outside of the images kept."""
        bands: NDArray[np.float32] = self.vectors.astype(np.float32) @ images.reshape(len(images), -1)
        for b, band in enumerate(bands):
            band[:] = band * self.sigma[b] + self.mean[b]
        return bands.reshape(-1, *images.shape[1:])


def fit(
    mean: NDArray[np.float64], covariance: NDArray[np.float64], sigma: NDArray[np.float64], pixels: int
) -> Eigen:
    """The eigen-images of bands with this mean, covariance and noise.

    Parameters
    ----------
    mean, covariance, sigma
        (bands,), (bands, bands), (bands,); sigma above zero.
    pixels
        The covariance was taken over.
    """
    values, vectors = np.linalg.eigh(covariance / np.outer(sigma, sigma))
    values, vectors = values[::-1], vectors[:, ::-1]
    rank = max(int((values > noise_edge(len(sigma), pixels)).sum()), 1)
    return Eigen(mean, sigma, vectors[:, :rank], values[:rank])


def refit(
    eigen: Eigen, cross: NDArray[np.float64], gram: NDArray[np.float64], pixels: int
) -> Eigen:
    """Eigen-images again, from what denoising made of the first ones.

    An eigenvector of a noisy covariance is noise itself where its image is weak or pixels are few. The regression of
    the bands on *denoised* images is not: it spans the space of images anew, and the noise in it falls with the pixels.

    Parameters
    ----------
    eigen
        The first ones.
    cross, gram
        Sums over pixels of products of whitened bands with denoised images, (bands, images), and of the images with
        each other, (images, images).
    pixels
        Summed over.
    """
    gram = gram / pixels
    root = np.linalg.cholesky(gram + 1e-9 * np.trace(gram) / len(gram) * np.eye(len(gram)))
    found, strength, _ = np.linalg.svd(np.linalg.solve(root, cross.T / pixels).T, full_matrices=False)
    kept = strength > LEAST * strength[0]
    return replace(eigen, vectors=found[:, kept], values=strength[kept] ** 2 + 1)


def learn(
    noisy: NDArray[np.float32],
    sigma: NDArray[np.float64],
    denoise: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> Eigen:
    """The eigen-images of an array in memory, as a run learns them of a scene.

    Parameters
    ----------
    noisy
        (bands, rows, cols).
    sigma
        Noise of each band, above zero.
    denoise
        Clean eigen-images from noisy ones: they are learned from these a second time where pixels are few.
    """
    moments = Moments(len(noisy))
    moments.add(noisy, np.ones(noisy.shape[1:], bool))
    eigen = fit(moments.mean(), moments.covariance(), sigma, moments.pixels)
    if moments.pixels > MOST * len(noisy):
        return eigen
    clean = denoise(eigen.project(noisy)).reshape(eigen.rank, -1).astype(np.float64)
    cross = eigen.whiten(noisy) @ clean.T
    return refit(eigen, cross, clean @ clean.T, moments.pixels) if cross.any() else eigen
