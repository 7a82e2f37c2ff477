"""Factor analysis: noise that bands have to themselves is told from what they share, also where samples are missing."""

from __future__ import annotations

import numpy as np
import pytest
import tiny

from hsidenoise.factors import (
    difference_edge,
    factor_scores,
    loadings,
    most_factors,
    noise_edge,
    uniqueness,
    with_holes,
)

SIGMA = np.geomspace(0.01, 0.3, 24)


def mixed(pixels: int = 20_000, seed: int = 0):
    """Three factors of different strength in 24 bands, and noise of `SIGMA`."""
    rng = np.random.default_rng(seed)
    spectra = np.stack([np.sin(np.linspace(0, k, 24)) for k in (2, 5, 9)]).T * [1, 0.4, 0.2]
    signal = spectra @ rng.standard_normal((3, pixels))
    return signal, signal + SIGMA[:, None] * rng.standard_normal(signal.shape)


def test_uniqueness_is_the_noise():
    _, data = mixed()
    found = uniqueness(data @ data.T / data.shape[1], data.shape[1])
    np.testing.assert_allclose(found, SIGMA, rtol=0.05)


def test_scale_does_not_matter():
    _, data = mixed()
    scale = np.geomspace(1e-6, 1e6, 24)
    covariance = data @ data.T / data.shape[1]
    plain, scaled = uniqueness(covariance, 20_000), uniqueness(covariance * np.outer(scale, scale), 20_000)
    np.testing.assert_allclose(scaled / scale, plain, rtol=1e-6)


def test_bands_that_share_nothing_are_all_noise():
    data = np.random.default_rng(1).standard_normal((12, 5_000)) * np.arange(1, 13)[:, None]
    np.testing.assert_allclose(uniqueness(data @ data.T / 5_000, 5_000), np.arange(1, 13), rtol=0.05)
    assert uniqueness(np.array([[4.0]]), 100) == pytest.approx([2.0])  # one band shares with none


def test_white_noise_has_no_factors_and_few_bands_allow_few():
    rng = np.random.default_rng(2)
    for bands, pixels in ((10, 500), (60, 3_000), (200, 4_000)):
        data = rng.standard_normal((bands, pixels))
        assert np.linalg.eigvalsh(data @ data.T / pixels).max() < noise_edge(bands, pixels)
        assert loadings(data @ data.T / pixels, np.ones(bands), noise_edge(bands, pixels)).shape == (bands, 0)
    assert [most_factors(n) for n in (1, 2, 3, 4, 6, 31)] == [0, 0, 1, 1, 3, 23]


@pytest.mark.parametrize(("bands", "rows", "cols"), [(20, 60, 60), (100, 20, 21), (300, 15, 15), (600, 10, 11)])
def test_differences_of_noise_stay_below_their_edge(bands, rows, cols):
    noise = np.random.default_rng(6).standard_normal((bands, rows, cols))
    data = (np.diff(noise) / np.sqrt(2)).reshape(bands, -1)
    found = np.linalg.eigvalsh(data @ data.T / data.shape[1]).max()
    edge = difference_edge(bands, data.shape[1])
    assert noise_edge(bands, data.shape[1]) < edge  # as many samples that share no pixel would say more
    assert 0.8 * edge < found < edge


@pytest.mark.parametrize(("bands", "edge", "off"), [(60, 40, 0.02), (150, 13, 0.06), (150, 8, 0.06), (600, 14, 0.08)])
def test_noise_of_few_pixels_is_not_taken_for_signal(bands, edge, off):
    truth = np.linspace(0.01, 0.05, bands)
    noise = truth[:, None, None] * np.random.default_rng(7).standard_normal((bands, edge, edge))
    data = (np.diff(tiny.clean(bands, edge, edge) + noise) / np.sqrt(2)).reshape(bands, -1)
    found = uniqueness(data @ data.T / data.shape[1], data.shape[1])
    assert np.median(found / truth) == pytest.approx(1, abs=off)


def test_scores_follow_the_textbook_pixel_by_pixel():
    rng = np.random.default_rng(3)
    factors = rng.standard_normal((6, 2))
    white = rng.standard_normal((6, 40)).astype(np.float32)
    good = rng.random((6, 40)) < 0.6
    good[:, :5] = True
    good[:, 5] = False
    scores, unknown = factor_scores(white, good, factors)
    total = np.zeros((2, 2))
    for i in range(40):
        part = factors[good[:, i]]
        inverse = np.linalg.inv(np.eye(2) + part.T @ part)
        np.testing.assert_allclose(scores[:, i], inverse @ part.T @ white[good[:, i], i], atol=1e-5)
        total += inverse / 40
    np.testing.assert_allclose(unknown, total, atol=1e-6)


def test_scores_are_numbers_where_there_is_hardly_any_noise_and_hardly_a_sample():
    rng = np.random.default_rng(5)
    factors = 1e9 * rng.standard_normal((12, 5))
    good = np.zeros((12, 30), bool)
    good[:2] = True
    scores, unknown = factor_scores(factors @ rng.standard_normal((5, 30)).astype(np.float32), good, factors)
    assert np.isfinite(scores).all()
    assert np.isfinite(unknown).all()


@pytest.mark.parametrize("missing", [0.05, 0.4])
def test_noise_and_covariance_are_found_where_samples_are_missing(missing):
    signal, data = mixed()
    rng = np.random.default_rng(4)
    good = rng.random(data.shape) >= missing * (np.arange(24) % 2)[:, None]  # every other band has holes
    spoiled = np.where(good, data, 1e3)
    sigma, covariance = with_holes(spoiled, good, 40)
    np.testing.assert_allclose(sigma, SIGMA, rtol=0.1)
    truth = signal @ signal.T / signal.shape[1] + np.diag(SIGMA**2)
    assert np.abs(covariance - truth).max() < 0.03 * truth.max()
    np.linalg.cholesky(covariance)  # possible: no negative variance in any direction
