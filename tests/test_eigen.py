"""Eigen-images: few, of unit noise, and back again."""

from __future__ import annotations

import numpy as np
import tiny

from hsidenoise.eigen import Moments, fit, refit


def learned(values: np.ndarray, sigma: np.ndarray):
    moments = Moments(len(values))
    for start in range(0, values.shape[1], 17):
        block = values[:, start : start + 17]
        moments.add(block, np.ones(block.shape[1:], bool))
    return fit(moments.mean(), moments.covariance(), sigma, moments.pixels)


def test_moments_are_those_of_the_valid_pixels_whatever_the_offset():
    rng = np.random.default_rng(0)
    values = (rng.standard_normal((5, 40, 50)) * 0.5 + 1e6).astype(np.float32)
    valid = rng.random((40, 50)) < 0.7
    moments = Moments(5)
    for start in range(0, 40, 7):
        moments.add(values[:, start : start + 7], valid[start : start + 7])
    spectra = values[:, valid].astype(np.float64)
    np.testing.assert_allclose(moments.mean(), spectra.mean(1), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance(), np.cov(spectra, bias=True), rtol=1e-9, atol=1e-9)
    assert moments.pixels == valid.sum()


def test_noise_of_the_images_is_white_and_one_and_the_rank_is_that_of_the_scene():
    sigma = np.geomspace(0.005, 0.1, 40)
    clean = tiny.clean(40, 120, 130)
    noise = np.random.default_rng(1).standard_normal(clean.shape) * sigma[:, None, None]
    eigen = learned((clean + noise).astype(np.float32), sigma)
    assert eigen.rank == 2  # three materials that sum to one
    rotated = eigen.vectors.T @ (noise / sigma[:, None, None]).reshape(40, -1)
    np.testing.assert_allclose(np.cov(rotated), np.eye(2), atol=0.05)


def test_the_images_hold_the_signal_and_little_of_the_noise():
    sigma = np.full(12, 0.03)
    clean = tiny.clean(12, 60, 70).astype(np.float32)
    noisy = tiny.cube(12, 60, 70, sigma=0.03).astype(np.float32)
    eigen = learned(noisy, sigma)
    assert eigen.rank == len(eigen.values) == 2
    error = eigen.restore(eigen.project(noisy)) - clean
    assert np.sqrt(np.square(error).mean()) < 0.03 * np.sqrt(2 / 12) * 1.2


def test_large_offsets_keep_their_digits():
    noisy = tiny.cube(8, 50, 60, sigma=0.03)
    sigma = np.full(8, 0.03)
    moved = (noisy * 1000 + 2**20).astype(np.float32)
    plain, far = learned(noisy.astype(np.float32), sigma), learned(moved, sigma * 1000)
    np.testing.assert_allclose(far.values, plain.values, rtol=0.02)
    expected = plain.restore(plain.project(noisy.astype(np.float32))) * 1000.0 + 2**20
    np.testing.assert_allclose(far.restore(far.project(moved)), expected, atol=1.5)


def test_denoised_images_show_the_way_better_than_few_pixels_do():
    """Angles between the true space of three images, one of them weak, and what is found of it."""
    rng = np.random.default_rng(2)
    bands, pixels = 60, 900
    true, _ = np.linalg.qr(rng.standard_normal((bands, 3)))
    images = rng.standard_normal((3, pixels)) * np.array([20, 5, 0.7])[:, None]
    values = (true @ images + rng.standard_normal((bands, pixels))).reshape(bands, 30, 30).astype(np.float32)
    first = learned(values, np.ones(bands))
    assert first.rank == 3
    clean = first.vectors.T @ true @ images + 0.2 * first.project(values).reshape(3, -1)  # as if denoised, not quite
    again = refit(first, first.whiten(values) @ clean.T, clean @ clean.T, pixels)
    np.testing.assert_allclose(again.vectors.T @ again.vectors, np.eye(3), atol=1e-6)
    angle = [np.linalg.svd(true.T @ e.vectors)[1].min() for e in (first, again)]
    assert angle[1] > angle[0] + 0.05
    assert list(again.values) == sorted(again.values, reverse=True)


def test_images_that_are_nothing_are_left_out():
    rng = np.random.default_rng(3)
    values = rng.standard_normal((6, 20, 20)).astype(np.float32)
    first = fit(np.zeros(6), np.diag([9.0, 8, 7, 1, 1, 1]), np.ones(6), 400)
    clean = first.project(values).reshape(3, -1) * np.array([1, 1, 0])[:, None]
    assert refit(first, first.whiten(values) @ clean.T, clean @ clean.T, 400).rank == 2
