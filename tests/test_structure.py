"""What was removed, noise or image: smooth scenes are not accused, and those that lost detail are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scenes import write_tiff
from scipy.ndimage import gaussian_filter
from test_metrics import scene

from hsidenoise.run import run
from hsidenoise.structure import StructureAccumulator

SHAPE = (96, 112)


def smooth(seed: int, bands: int, snr: float = 30) -> tuple[np.ndarray, np.ndarray]:
    """Gradients and soft blobs, as digital numbers, and the noise of each band, whose median ratio is `snr` dB."""
    rng = np.random.default_rng(seed)
    row, col = np.mgrid[: SHAPE[0], : SHAPE[1]]
    blobs = [f / np.abs(f).max() for f in gaussian_filter(rng.standard_normal((3, *SHAPE)), (0, 12, 12))]
    fields = np.stack([np.ones(SHAPE), 0.3 * row / SHAPE[0], 0.2 * col / SHAPE[1], *(0.3 * f for f in blobs)])
    spectra = gaussian_filter(rng.random((len(fields), bands)), (0, 3), mode="nearest")
    clean = 1000 * np.einsum("fb,frc->brc", spectra / spectra.mean(axis=1, keepdims=True), fields)
    sigma = clean.mean(axis=(1, 2)) / 10 ** (snr / 20) * rng.uniform(0.6, 1.6, bands)
    return clean, sigma[:, None, None] * rng.standard_normal(clean.shape)


def targets(noise: np.ndarray, strength: float) -> np.ndarray:
    """Five spots of 2 x 2 pixels in all bands, in standard deviations of the noise."""
    spots = np.zeros(noise.shape[1:])
    for row, col in np.random.default_rng(5).integers(5, 90, (5, 2)):
        spots[row : row + 2, col : col + 2] = 1
    return strength * noise.std() * spots * np.random.default_rng(6).uniform(0.7, 1.3, len(noise))[:, None, None]


def found(before: np.ndarray, after: np.ndarray) -> StructureAccumulator:
    total = StructureAccumulator(len(before))
    total.add(before, after)
    return total


@pytest.mark.parametrize("seed", range(10))
def test_a_smooth_scene_is_not_said_to_lose_its_image(tmp_path: Path, seed: int) -> None:
    bands = (24, 12, 22, 5, 2)[seed % 5]
    clean, noise = smooth(seed, bands, snr=40 if seed < 3 else 30)
    source = write_tiff(tmp_path / "a.tif", np.rint(clean + noise).astype(np.int16))
    measured = run(source, tmp_path / "b.tif", quiet=True, device="cpu", measure=True)["measured"]
    assert measured["summary"]["structure_found"] == 0
    assert "no image structure was found" in measured["verdict"]["text"]


@pytest.mark.parametrize("seed", range(10))
def test_a_single_smooth_band_neither(tmp_path: Path, seed: int) -> None:
    clean, noise = smooth(seed, 1)
    source = write_tiff(tmp_path / "a.tif", np.rint(clean + noise).astype(np.int16))
    measured = run(source, tmp_path / "b.tif", quiet=True, device="cpu", measure=True)["measured"]
    assert measured["summary"]["structure_found"] == 0


@pytest.mark.parametrize(("bands", "sigma"), [(2, 0.1), (4, 0.2), (12, 0.1), (30, 0.1), (100, 0.1)])
@pytest.mark.parametrize("width", [0.6, 1, 2])
def test_the_blurred_truth_is_said_to_lack_image(bands: int, sigma: float, width: float) -> None:
    rng = np.random.default_rng(bands)
    clean = scene(rng, bands, 96, 96)
    noisy = clean + sigma * rng.standard_normal(clean.shape)
    total = found(noisy, gaussian_filter(clean, (0, width, width)))
    assert total.found_bands().mean() > 0.8
    assert not found(noisy, clean).found_bands().any()


@pytest.mark.parametrize("strength", [5, 10, 30])
@pytest.mark.parametrize("lost", [0.5, 0.7])
def test_targets_that_fade_in_a_smooth_scene_are_missed(strength: float, lost: float) -> None:
    clean, noise = smooth(1, 24)
    spots = targets(noise, strength)
    total = found(clean + spots + noise, clean + (1 - lost) * spots)
    assert total.found_bands().mean() > 0.8
    assert not found(clean + spots + noise, clean + spots).found_bands().any()


def test_a_target_that_one_band_loses_is_found_there() -> None:
    clean, noise = smooth(2, 24)
    spots = targets(noise, 10)
    after = clean + spots
    after[7] -= spots[7]
    assert np.flatnonzero(found(clean + spots + noise, after).found_bands()).tolist() == [7]


def test_too_smooth_a_filter_of_all_bands_together_is_found() -> None:
    rng = np.random.default_rng(30)
    clean = scene(rng, 30, 96, 96)
    noisy = clean + 0.05 * rng.standard_normal(clean.shape)
    flat = (noisy - noisy.mean(axis=(1, 2), keepdims=True)).reshape(30, -1)
    axes = np.linalg.eigh(flat @ flat.T)[1][:, -4:]
    after = (axes @ (axes.T @ flat)).reshape(clean.shape) + noisy.mean(axis=(1, 2), keepdims=True)
    assert found(noisy, gaussian_filter(after, (0, 1, 1))).found_bands().mean() > 0.9
