"""Synthesised training cubes: the places of a photograph are given spectra.

A photograph is soft-clustered by colour; each cluster is a material with a spectrum of its own, taken from a real cube
or smooth and random. Memberships are the abundances of linear mixing; the photograph's shading stays as
brightness, its colour within a cluster makes the spectra vary. So spatial detail is real and shared by the bands as
in a real scene, and materials, sensors and band spacings are other ones each time.

Memberships follow means of 3 x 3 pixels, and hue more than lightness: else an edge between two materials, whose
colours pass through those of others, would be lined with pixels of a third.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .crops import halve, square

#: Bands of the sensors that are made up; more where a patch takes more.
LEAST_BANDS, MOST_BANDS = 31, 200
#: Fewest and most materials of a photograph.
MATERIALS = (3, 8)
#: Pixels of a photograph that its clusters and statistics are learned from, at least.
LEARNED = 600
#: Rounds of k-means.
ROUNDS = 4
#: Share of the scenes with a real cube's spectra, of those at half scale, and of dark ones.
REAL, HALF, DARK = 0.6, 0.5, 0.15
#: Greatest change of a spectrum with one deviation of colour; three must leave it positive.
VARIATION = 0.3

_SRGB = np.arange(256) / 255
#: Light of an sRGB value (IEC 61966-2-1).
LIGHT = np.where(_SRGB <= 0.04045, _SRGB / 12.92, ((_SRGB + 0.055) / 1.055) ** 2.4).astype(np.float32)
#: Luminance of linear red, green and blue (ITU-R BT.709).
LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)
#: From square roots of light to what clusters are told apart by: two axes of hue, and lightness for less.
HUE = np.array([[1, -1, 0], [0.5, 0.5, -1], [0.15, 0.25, 0.1]], np.float32).T


@dataclass(frozen=True)
class Mixture:
    """A patch of a synthesised scene before its bands are made: `spectra` @ `features`.

    Parameters
    ----------
    features
        (F, edge, edge), float32: abundances times brightness, and those times deviations of colour.
    spectra
        (bands, F), float32.
    """

    features: NDArray[np.float32]
    spectra: NDArray[np.float32]

    def cube(self, bands: slice = np.s_[:]) -> NDArray[np.float32]:
        """(bands, edge, edge), values in [0, 1]; a little above where it is brighter than all the scale is from."""
        edge = self.features.shape[1:]
        mixed: NDArray[np.float32] = self.spectra[bands] @ self.features.reshape(len(self.features), -1)
        return mixed.reshape(-1, *edge)


class Mixer:
    """Draws mixtures.

    Parameters
    ----------
    photos
        (3, rows, cols) uint8, sRGB.
    cubes
        Clean cubes (bands, rows, cols) in [0, 1] whose spectra are borrowed.
    """

    def __init__(self, photos: Sequence[NDArray[np.uint8]], cubes: Sequence[NDArray[np.float32]]) -> None:
        self.photos, self.cubes = photos, cubes

    def draw(self, bands: int, edge: int, rng: np.random.Generator) -> Mixture:
        """A patch of a new scene, of a sensor with at least that many bands."""
        photo = self.photos[int(rng.integers(len(self.photos)))]
        size = edge + 2
        halved = bool(rng.random() < HALF) and min(photo.shape[1:]) >= 2 * size
        place = LIGHT[square(photo, 2 * size if halved else size, rng)]
        place = around(halve(place) if halved else place)
        whole = around(photo, max(int(np.sqrt(photo[0].size / LEARNED)), 1))
        # One contrast for all: photographs are flatter, or steeper, than what a sensor sees.
        contrast = np.float32(np.exp(rng.uniform(np.log(0.6), np.log(1.6))))
        materials = Materials.of(whole[1], int(rng.integers(MATERIALS[0], MATERIALS[1] + 1)), contrast, rng)
        features = [materials.features(*light) for light in (whole, place)]
        spectra = self.spectra(materials, max(bands, int(rng.integers(LEAST_BANDS, MOST_BANDS + 1))), rng)
        gain = np.exp(rng.uniform(np.log(0.05), np.log(0.4))) if rng.random() < DARK else 1.0
        spectra *= np.float32(gain / max(float((spectra @ features[0]).max()), 1e-6))
        return Mixture(features[1].reshape(-1, edge, edge), spectra)

    def spectra(self, materials: Materials, bands: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Of each feature, (bands, F)."""
        axis = spacing(bands, rng)
        count = len(materials.brightness)
        drawn = self._real(count, axis, rng) if rng.random() < REAL else smooth(count, axis, rng)
        # Bright clusters stay bright, more or less: spectra have an albedo of their own.
        albedo = materials.brightness / np.maximum(drawn.mean(0), 1e-3)
        drawn *= np.power(albedo, np.float32(rng.uniform(0.5, 1)), dtype=np.float32)
        varied = [drawn] + [drawn * p[:, None] for p in variation(axis, rng).T]
        return np.concatenate(varied, axis=1).astype(np.float32)

    def _real(self, count: int, axis: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float32]:
        """Spectra of one real cube, (bands, count), each of 3 x 3 pixels, between its bands where need be."""
        cube = self.cubes[int(rng.integers(len(self.cubes)))]
        own = np.linspace(0, 1, len(cube))
        found = np.empty((len(axis), count), np.float32)
        for i in range(count):
            row, col = (int(rng.integers(max(n - 2, 1))) for n in cube.shape[1:])
            found[:, i] = np.interp(axis, own, cube[:, row : row + 3, col : col + 3].mean((1, 2)))
        return found + np.float32(0.002)  # no material is quite black


@dataclass(frozen=True)
class Materials:
    """Clusters of a photograph.

    Parameters
    ----------
    centres
        Square roots of light, (K, 3).
    spread
        Distance of hues at which membership fades.
    brightness
        Of each cluster, (K,).
    contrast
        Power on light.
    """

    centres: NDArray[np.float32]
    spread: float
    brightness: NDArray[np.float32]
    contrast: np.float32

    @classmethod
    def of(cls, light: NDArray[np.float32], count: int, contrast: np.float32, rng: np.random.Generator) -> Materials:
        """By k-means of some pixels (3, n)."""
        colour = np.sqrt(light).T
        centres = colour[rng.choice(len(colour), count, replace=False)]
        for _ in range(ROUNDS):
            nearest = distance(colour, centres).argmin(1)
            member = (nearest[:, None] == np.arange(count)).astype(np.float32)
            size = member.sum(0)[:, None]
            centres = np.where(size > 0, member.T @ colour / np.maximum(size, 1), centres)
        spread = float(np.sqrt(distance(colour, centres).min(1).mean())) * rng.uniform(0.5, 1.5)
        brightness = np.maximum(LUMA @ (centres.T**2), 0.004) ** contrast
        return cls(centres, max(spread, 0.01), brightness, contrast)

    def features(self, light: NDArray[np.float32], mean: NDArray[np.float32]) -> NDArray[np.float32]:
        """Abundances times shading, and those times the deviation of each colour, of pixels (3, n): (4 K, n)."""
        member = distance(np.sqrt(mean).T, self.centres) / np.float32(-2 * self.spread**2)
        member = np.exp(member - member.max(1, keepdims=True))
        member /= member.sum(1, keepdims=True)
        deviation = np.sqrt(light).T - member @ self.centres
        deviation = np.tanh(deviation / np.float32(0.15)).T  # bounded: no spectrum turns negative
        shading = (LUMA @ light) ** self.contrast / (member @ self.brightness)
        member = member.T * np.minimum(shading, np.float32(4))
        return np.concatenate([member, *(member * d for d in deviation)])


def around(photo: NDArray[Any], step: int = 1) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Light of every step-th inner pixel of (3, rows, cols), and its mean over 3 x 3 pixels: two of (3, n)."""
    rows, cols = photo.shape[1:]
    near = [photo[:, i : rows - 2 + i : step, j : cols - 2 + j : step] for i in range(3) for j in range(3)]
    light = [(LIGHT[part] if part.dtype == np.uint8 else part).reshape(3, -1) for part in near]
    mean: NDArray[np.float32] = np.mean(light, axis=0, dtype=np.float32)
    return light[4], mean


def distance(colour: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.float32]:
    """Squared, of hues, (n, K)."""
    colour, centres = colour @ HUE, centres @ HUE
    cross = colour @ centres.T
    squares: NDArray[np.float32] = np.square(colour).sum(1)[:, None] - 2 * cross + np.square(centres).sum(1)
    return np.maximum(squares, 0)


def spacing(bands: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Places of a sensor's bands on the spectral axis [0, 1]: at random distances, over the whole of it or a part."""
    steps = rng.gamma(rng.uniform(2, 50), size=bands)
    place = np.cumsum(steps) - steps[0]
    width = rng.uniform(0.25, 1)
    axis: NDArray[np.float64] = rng.uniform(0, 1 - width) + width * place / max(place[-1], 1e-9)
    return axis


def bumps(count: int, narrow: float, axis: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Smooth random curves (bands, count): sums of bells of many widths, the narrowest of `narrow`."""
    each = 8
    centre = rng.uniform(-0.1, 1.1, (each, count))
    width = np.exp(rng.uniform(np.log(narrow), np.log(0.5), (each, count)))
    height = rng.standard_normal((each, count)) * (width / 0.5) ** 0.25  # broad ones are the stronger
    curves: NDArray[np.float64] = (height * np.exp(-np.square((axis[:, None, None] - centre) / width) / 2)).sum(1)
    return curves


def smooth(count: int, axis: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float32]:
    """Random reflectances under one random light with absorption lines, (bands, count), within (0, 1)."""
    level = rng.normal(-0.5, 1, count)
    reflectance = 1 / (1 + np.exp(-level - bumps(count, 0.02, axis, rng)))
    light = np.exp(rng.uniform(0, 1.2) * bumps(1, 0.05, axis, rng))
    lines = int(rng.integers(6))
    depth, centre = rng.uniform(0, 0.9, lines), rng.uniform(0, 1, lines)
    width = np.exp(rng.uniform(np.log(0.003), np.log(0.03), lines))
    light *= np.prod(1 - depth * np.exp(-np.square((axis[:, None] - centre) / width) / 2), axis=1, keepdims=True)
    spectra: NDArray[np.float32] = (reflectance * light / light.max()).astype(np.float32)
    return spectra


def variation(axis: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """How much a spectrum changes with each of three deviations of colour, (bands, 3)."""
    curves = bumps(3, 0.015, axis, rng)
    changes: NDArray[np.float64] = rng.uniform(0, VARIATION) * curves / np.maximum(np.abs(curves).max(0), 1e-9)
    return changes
