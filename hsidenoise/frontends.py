"""What the network is shown of a scene, tile by tile: windows of its bands, or its eigen-images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from . import defects
from .cube import Cube, Window
from .defects import Defects
from .eigen import MOST, Eigen, Moments, fit, refit
from .engine import Engine
from .factors import LEAST
from .model.weights import BUILT_IN, load
from .noise import texture_bound
from .progress import Progress
from .samples import fill, inside
from .spectral import BandWindow, Normalisation, accumulate, gather
from .survey import Survey, row_blocks

Block = NDArray[np.float32]
Mask = NDArray[np.bool_]
Records = list[dict[str, Any]]
#: Steps of an integer type that rounding alone is worth in noise: 1 / sqrt(12).
ROUNDING = 12**-0.5
#: Edge of the squares that eigen-images are bettered in.
SQUARE = 256


class FrontEnd(Protocol):
    """The way from a scene's bands to what the network sees, and back."""

    @property
    def bands(self) -> list[int]:
        """The scene's bands it reads, zero-based, in the order of its blocks."""

    @property
    def runs(self) -> int:
        """Network runs for a tile."""

    def usual(self, values: Block, col: int) -> Mask:
        """Which samples of its bands are measurements that can be denoised; the others stay as they are.

        `col` is the scene's column the block starts at.
        """

    def denoise(
        self, engine: Engine, values: Block, valid: Mask, col: int, bar: Progress | None = None
    ) -> tuple[Block, Records]:
        """Clean (bands, rows, cols) in raw units and a convergence record of each run; `values` is filled in place."""

    def describe(self) -> dict[str, Any]:
        """For the record of a run."""


@dataclass(frozen=True)
class Windows:
    """Overlapping windows of neighbouring bands, as in the paper.

    Parameters
    ----------
    chosen
        The scene's bands it reads, zero-based: those of its windows, and others that help to find defects.
    windows, normalisations
        In terms of the scene's bands; one normalisation for each window.
    defects
        Of the chosen bands; None where there are none.
    sigma
        Noise of each of the scene's bands, raw units; NaN where it is not known.
    low
        What a band without any valid sample in a tile is filled with, (bands of the scene,).
    limits
        Least and greatest value of each of the scene's bands that is denoised, (2, bands).
    """

    chosen: tuple[int, ...]
    windows: Sequence[BandWindow]
    normalisations: Sequence[Normalisation]
    defects: Defects | None
    sigma: NDArray[np.float64] = field(repr=False)
    low: NDArray[np.float64] = field(repr=False)
    limits: NDArray[np.float64] = field(repr=False)

    @property
    def bands(self) -> list[int]:
        """The chosen ones."""
        return list(self.chosen)

    @property
    def runs(self) -> int:
        """One for each window."""
        return len(self.windows)

    def usual(self, values: Block, col: int) -> Mask:
        """Those within the limits, and defects."""
        return _usual(values, col, self.limits[:, self.bands], self.defects)

    def denoise(
        self, engine: Engine, values: Block, valid: Mask, col: int, bar: Progress | None = None
    ) -> tuple[Block, Records]:
        """See `FrontEnd`; zero in bands that no window keeps."""
        bands = self.bands
        values = self.mended(values, valid, col)
        place = {b: i for i, b in enumerate(bands)}
        total = np.zeros_like(values)
        records = []
        for window, normal in zip(self.windows, self.normalisations, strict=True):
            level = self.sigma[list(window.bands)] / normal.scale
            # A band of unknown noise is trusted as little as one that is all noise.
            told = np.nan_to_num(level, nan=1.0).clip(0, 1).astype(np.float32)
            here = replace(window, bands=tuple(place[b] for b in window.bands))
            clean, convergence = engine.patch(normal.apply(gather(values, here)), told)
            accumulate(total, here, normal.undo(clean))
            records.append(convergence)
            if bar is not None:
                bar.advance(1, residual=f"{convergence['residual']:.0e}")
        return total, records

    def mended(self, values: Block, valid: Mask, col: int) -> Block:
        """The block without its defects, filled in place where it is not valid."""
        return _mended(values, valid, col, self.low[self.bands], self.defects)

    def describe(self) -> dict[str, Any]:
        """First and last band, low and high of each window, and what was mended."""
        return {
            "frontend": "windows",
            "defects": _describe_defects(self.defects, self.chosen),
            "windows": [
                [w.kept[0], w.kept[-1], n.low, n.high] for w, n in zip(self.windows, self.normalisations, strict=True)
            ],
        }


@dataclass(frozen=True)
class EigenImages:
    """Whitened eigen-images of all bands together, after defects have been mended.

    Parameters
    ----------
    chosen
        The scene's bands it is made of, zero-based.
    eigen
        The transform.
    defects
        Of those bands; None where there are none.
    size
        Images that go through the network together.
    low
        What a band without any valid sample in a tile is filled with, (bands,).
    limits
        Least and greatest value of each band that is denoised, (2, bands), unless it is a defect.
    """

    chosen: tuple[int, ...]
    eigen: Eigen
    defects: Defects | None
    size: int
    low: NDArray[np.float64] = field(repr=False)
    limits: NDArray[np.float64] = field(repr=False)

    @property
    def bands(self) -> list[int]:
        """The bands it is made of."""
        return list(self.chosen)

    @property
    def runs(self) -> int:
        """One for each group of images."""
        return -(-self.eigen.rank // self.size)

    def usual(self, values: Block, col: int) -> Mask:
        """Those within the limits, and defects."""
        return _usual(values, col, self.limits, self.defects)

    def denoise(
        self, engine: Engine, values: Block, valid: Mask, col: int, bar: Progress | None = None
    ) -> tuple[Block, Records]:
        """See `FrontEnd`."""
        _, images, records = self.images(engine, values, valid, col, bar)
        return self.eigen.restore(images), records

    def images(
        self, engine: Engine, values: Block, valid: Mask, col: int, bar: Progress | None = None
    ) -> tuple[Block, Block, Records]:
        """The bands without their defects, clean images, and a convergence record of each run."""
        values = _mended(values, valid, col, self.low, self.defects)
        images = self.eigen.project(values)
        records = []
        for first in range(0, len(images), self.size):
            group = images[first : first + self.size]
            group[:], convergence = engine.patch(group, np.ones(len(group), np.float32))
            records.append(convergence)
            if bar is not None:
                bar.advance(1, residual=f"{convergence['residual']:.0e}")
        return values, images, records

    def describe(self) -> dict[str, Any]:
        """Rank, eigenvalues and what was mended."""
        return {
            "frontend": "eigen",
            "rank": self.eigen.rank,
            "eigenvalues": [float(v) for v in self.eigen.values],
            "defects": _describe_defects(self.defects, self.chosen),
        }


def examine(
    cube: Cube, bands: Sequence[int], survey: Survey, limits: NDArray[np.float64]
) -> tuple[Defects | None, NDArray[np.float64]]:
    """The defects of some of a scene's bands, and the noise that is left when they are mended, raw units.

    Parameters
    ----------
    cube, survey
        The scene, and its survey with a sample of rows.
    bands
        Those to look at, zero-based, none of them empty or constant.
    limits
        Beyond which samples are no measurements, (2, bands of the scene).
    """
    bands = list(bands)
    sample, valid = survey.sample[bands], survey.sample_valid[bands]
    usual = inside(sample, limits[:, bands])
    found = defects.find(sample, valid, usual)
    valid = valid & usual
    sample = np.where(valid, sample, np.float32(0))  # infinite and huge samples would only overflow
    sigma = defects.noise_of(sample, valid) if found is None else found.sigma
    if len(bands) < defects.FEWEST:  # too few to tell texture from noise
        sigma = np.fmin(sigma, np.maximum(texture_bound(sample, valid), LEAST * sigma))
    if np.dtype(cube.dtype).kind in "iu":
        sigma = np.maximum(sigma, ROUNDING)
    return found, sigma


def eigen_images(
    cube: Cube, bands: Sequence[int], survey: Survey, limits: NDArray[np.float64], size: int
) -> EigenImages:
    """Learn a scene's eigen-images: its defects and noise from the survey's sample, its covariance from a second pass.

    Parameters
    ----------
    cube, bands, survey, limits
        As of `examine`.
    size
        Images the network takes.
    """
    bands = list(bands)
    found, sigma = examine(cube, bands, survey, limits)
    limits = limits[:, bands]
    moments = Moments(len(bands))
    for window in row_blocks(cube):
        values, valid = cube.read(window, bands)
        valid &= _usual(values, 0, limits, found)
        values[~valid] = 0
        if found is not None:
            values, _ = found.mend(values, valid, 0)
        moments.add(values, np.asarray(valid.all(axis=0)))
    eigen = fit(moments.mean(), moments.covariance(), sigma, moments.pixels)
    return EigenImages(tuple(bands), eigen, found, size, survey.low[bands], limits)


def sharpened(front: EigenImages, cube: Cube, engine: Engine) -> EigenImages:
    """The front-end with eigen-images that were learned from denoised ones (`hsidenoise.eigen.refit`).

    It is denoised once for that by the weight-free model, in squares of its own whatever the tiles. A scene of more
    than `MOST` pixels for each band stays as it is: there the covariance says enough.
    """
    rows, cols = cube.shape[1:]
    bands = front.bands
    if rows * cols > MOST * len(bands):
        return front
    plain = Engine(*load(BUILT_IN), engine.device, 1)
    cross = np.zeros((len(bands), front.eigen.rank))
    gram = np.zeros((front.eigen.rank, front.eigen.rank))
    pixels = 0
    for top in range(0, rows, SQUARE):
        for left in range(0, cols, SQUARE):
            window = Window(top, min(top + SQUARE, rows), left, min(left + SQUARE, cols))
            values, valid = cube.read(window, bands)
            valid &= front.usual(values, left)
            known = valid.all(axis=0)
            if known.any():
                values, images, _ = front.images(plain, values, valid, left)
                clean = images[:, known].astype(np.float64)
                cross += front.eigen.whiten(values)[:, known.ravel()] @ clean.T
                gram += clean @ clean.T
                pixels += clean.shape[1]
    return replace(front, eigen=refit(front.eigen, cross, gram, pixels)) if cross.any() else front


def _usual(values: Block, col: int, limits: NDArray[np.float64], found: Defects | None) -> Mask:
    usual = inside(values, limits)
    return usual if found is None else usual | found.lost_in(values, col)


def _mended(values: Block, valid: Mask, col: int, low: NDArray[np.float64], found: Defects | None) -> Block:
    """The block filled where it is not valid, and without its defects."""
    fill(values, valid, low)
    return values if found is None else found.mend(values, np.ones(values.shape, bool), col)[0]


def _describe_defects(found: Defects | None, bands: Sequence[int]) -> dict[str, Any]:
    mended: dict[str, Any] = {"lost_share": 0.0, "striped_columns": 0, "dead_columns": 0, "bands": {}}
    if found is not None:
        mended["lost_share"] = float(found.lost.mean())
        mended["striped_columns"] = int((found.offset != 0).sum())
        mended["dead_columns"] = int(found.dead.sum())
        for i, b in enumerate(bands):
            stripes = int((found.offset[i] != 0).sum())
            if stripes or found.lost[i]:
                mended["bands"][str(b)] = {"lost_share": float(found.lost[i]), "striped_columns": stripes}
    return mended
