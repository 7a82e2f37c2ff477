"""The noise patterns have the statistics they claim; the blind estimate finds them again."""

from __future__ import annotations

import numpy as np
import pytest

from hsidenoise.noise import PATTERNS, NoiseAccumulator, add_noise, texture_bound


def textured(bands: int = 31, edge: int = 96, seed: int = 0) -> np.ndarray:
    """Four smooth endmembers mixed by maps with edges and texture, in [0, 1]."""
    rng = np.random.default_rng(seed)
    spectra = np.stack([np.sin(np.linspace(0, 2 + k, bands)) ** 2 + 0.1 for k in range(4)])
    maps = rng.random((4, edge // 8, edge // 8)).repeat(8, 1).repeat(8, 2)
    maps += 0.2 * rng.random((4, edge, edge))
    cube = np.einsum("kb,kij->bij", spectra, maps / maps.sum(0))
    return (cube / cube.max()).astype(np.float32)


@pytest.mark.parametrize(("pattern", "top"), [("g15", 15), ("g55", 55), ("g95", 95)])
def test_gaussian_sigmas_are_uniform_up_to_the_top(pattern, top):
    clean = np.zeros((200, 40, 40), np.float32)
    sigma = (add_noise(clean, pattern, np.random.default_rng(1))).std((1, 2)) * 255
    assert 0.95 * top < sigma.max() < 1.1 * top
    assert sigma.mean() == pytest.approx(top / 2, rel=0.15)


def test_correlated_noise_is_a_bell_over_the_bands():
    sigma = add_noise(np.zeros((31, 64, 64), np.float32), "corr", np.random.default_rng(1)).std((1, 2)) * 255
    assert sigma.argmax() in range(13, 19)
    assert sigma.max() == pytest.approx(23.08, rel=0.05)
    assert sigma[0] == pytest.approx(23.08 * np.exp(-0.25 / (4 * 0.157**2)), rel=0.1)


def test_mixture_has_impulses_stripes_and_dead_columns_on_a_third_of_the_bands_each():
    clean = np.full((60, 80, 80), 0.5, np.float32)
    noisy = add_noise(clean, "mixture", np.random.default_rng(2))
    ones, zeros = (noisy == 1).mean((1, 2)), (noisy == 0).mean((1, 2))
    assert (ones > 0.02).sum() == 20
    dead = (noisy == 0).all(1)
    assert (dead.any(1)).sum() == 20
    assert 4 <= dead.sum(1)[dead.any(1)].min() <= dead.sum(1).max() <= 12
    assert zeros.max() > 0.2


def test_noise_is_seeded_and_unknown_patterns_are_refused():
    clean = textured(8, 16)
    for pattern in PATTERNS:
        a, b = (add_noise(clean, pattern, np.random.default_rng(3)) for _ in range(2))
        assert np.array_equal(a, b)
        assert a.dtype == np.float32
    with pytest.raises(ValueError, match="g70"):
        add_noise(clean, "g70", np.random.default_rng(0))


@pytest.mark.parametrize("pattern", ["g15", "g55", "corr"])
def test_the_estimate_finds_the_sigmas(pattern):
    clean = textured()
    noisy = add_noise(clean, pattern, np.random.default_rng(4))
    accumulator = NoiseAccumulator(31)
    for start in range(0, 96, 32):
        accumulator.add(noisy[:, start : start + 32], np.ones((31, 32, 96), bool))
    truth = (noisy - clean).std((1, 2))
    ratio = (accumulator.sigma() / truth)[truth > 0.01]
    assert abs(np.median(ratio) - 1) < 0.06
    # What is unpredictable in the image itself counts as noise: never far below the truth, somewhat above at most.
    assert ratio.min() > 0.95
    assert ratio.max() < 1.4


def test_the_estimate_is_small_on_a_clean_scene():
    accumulator = NoiseAccumulator(31)
    accumulator.add(textured(), np.ones((31, 96, 96), bool))
    assert accumulator.sigma().max() < 1e-3


def test_a_single_band_s_noise_is_bounded_by_what_edges_and_shading_leave():
    clean = textured(1)
    noisy = clean + 0.02 * np.random.default_rng(7).standard_normal(clean.shape).astype(np.float32)
    valid = np.ones(clean.shape, bool)
    smooth = np.linspace(0, 1, 96 * 96, dtype=np.float32).reshape(clean.shape)
    noise = 0.02 * np.random.default_rng(8).standard_normal(clean.shape).astype(np.float32)
    assert texture_bound(smooth + noise, valid)[0] == pytest.approx(0.02, rel=0.05)
    assert 0.019 < texture_bound(noisy, valid)[0] < 0.06  # blocks with some texture within
    assert np.isnan(texture_bound(noisy, ~valid)[0])


def test_invalid_samples_are_left_out_of_the_estimate():
    clean = textured()
    noisy = add_noise(clean, "g55", np.random.default_rng(5))
    valid = np.ones(noisy.shape, bool)
    valid[:, :, 60:] = False
    valid[3, :20] = False
    whole, part = NoiseAccumulator(31), NoiseAccumulator(31)
    spoiled = np.where(valid, noisy, np.nan).astype(np.float32)
    whole.add(noisy[:, :, :60], valid[:, :, :60])
    part.add(spoiled, valid)
    assert np.allclose(whole.sigma(), part.sigma(), rtol=0.02)


def test_constant_empty_copied_and_single_bands():
    rng = np.random.default_rng(6)
    block = rng.standard_normal((4, 50, 50)).astype(np.float32)
    block[1] = 7
    block[3] = block[0]
    valid = np.ones(block.shape, bool)
    valid[2] = False
    accumulator = NoiseAccumulator(4)
    accumulator.add(block, valid)
    sigma = accumulator.sigma()
    assert sigma[1] == 0
    assert np.isnan(sigma[2])
    assert np.isfinite(sigma[[0, 3]]).all()

    single = NoiseAccumulator(1)
    single.add(block[:1], valid[:1])
    assert single.sigma()[0] == pytest.approx(1, rel=0.05)
    narrow = NoiseAccumulator(1)
    narrow.add(block[:1, :, :1], valid[:1, :, :1])
    assert np.isnan(narrow.sigma()).all()
