"""The first pass over a scene: ranges, noise, what is constant or empty."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import tiny

from hsidenoise import survey as survey_
from hsidenoise.bands import Bands
from hsidenoise.cube import Cube, Geo, Window
from hsidenoise.noise import FEWEST
from hsidenoise.survey import block_medians, row_blocks, survey


def scene(pixels, nodata=None) -> Cube:
    """A cube of an array, its pixels handed out window by window."""
    count = len(pixels)

    def read(window, bands):
        return pixels[list(bands), window.row_start : window.row_stop, window.col_start : window.col_stop]

    return Cube("array", "MEM", pixels.shape, pixels.dtype.name, Bands(count), Geo(), (nodata,) * count, (1.0,) * count,
                (0.0,) * count, read)  # fmt: skip


def test_noise_does_not_widen_the_range():
    clean = tiny.clean(6, 200, 240)
    quiet = survey(scene(clean.astype(np.float32)))
    noisy = survey(scene(tiny.cube(6, 200, 240, sigma=0.1).astype(np.float32)))
    width = quiet.high - quiet.low
    # Single samples would widen it by six sigmas in all, 0.6.
    assert (noisy.high - noisy.low - width < 0.25).all()
    np.testing.assert_allclose(quiet.low, clean.min((1, 2)), atol=0.02)
    np.testing.assert_allclose(quiet.high, clean.max((1, 2)), atol=0.02)


def test_sigma_is_within_ten_percent_where_bands_are_correlated():
    true = np.linspace(0.005, 0.05, 24)
    noise = np.random.default_rng(3).standard_normal((24, 160, 170)) * true[:, None, None]
    found = survey(scene((tiny.clean(24, 160, 170) + noise).astype(np.float32)))
    np.testing.assert_allclose(found.sigma, true, rtol=0.1)


def test_raw_units_and_offsets_carry_through():
    base = tiny.cube(5, 60, 70)
    one, other = survey(scene(base.astype(np.float32))), survey(scene((base * 10_000 - 500).astype(np.float32)))
    np.testing.assert_allclose(other.low, one.low * 10_000 - 500, rtol=1e-4)
    np.testing.assert_allclose(other.sigma, one.sigma * 10_000, rtol=1e-3)


def test_constant_and_empty_bands_are_told_apart():
    pixels = (tiny.cube(4, 20, 24) * 1000).astype(np.int16)
    pixels[1] = 7
    pixels[2] = -9999
    pixels[3, :, :12] = -9999
    found = survey(scene(pixels, nodata=-9999))
    assert found.constant.tolist() == [False, True, True, False]
    np.testing.assert_allclose(found.valid, [1, 1, 0, 0.5])
    assert np.isnan([found.low[2], found.high[2], found.sigma[2]]).all()
    assert found.sigma[1] == 0
    assert found.low[3] > -1000


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 1), (2, 1, 50), (2, 50, 1), (3, 2, 3), (3, 3, 5)])
def test_any_size_has_a_range(shape):
    pixels = np.random.default_rng(0).random(shape).astype(np.float32)
    found = survey(scene(pixels))
    assert np.isfinite(found.low).all()
    assert (found.low <= found.high).all()
    assert np.isnan(found.sigma).all() == (shape[1] * (shape[2] - 1) < FEWEST)


def test_isolated_valid_pixels_still_give_a_range():
    pixels = np.full((1, 16, 16), np.nan, np.float32)
    pixels[0, 3, 3], pixels[0, 9, 12] = 2, 5
    found = survey(scene(pixels))
    assert (found.low[0], found.high[0]) == (2, 5)


@pytest.mark.parametrize("broken", [1e20, -1e20, 3e38, 50.0])
def test_one_broken_pixel_spoils_neither_range_nor_noise(broken):
    pixels = tiny.cube(6, 60, 70).astype(np.float32)
    before = survey(scene(pixels))
    pixels[2, 30, 31] = broken
    after = survey(scene(pixels))
    np.testing.assert_allclose(after.low, before.low, atol=0.02)
    np.testing.assert_allclose(after.high, before.high, atol=0.02)
    np.testing.assert_allclose(after.sigma, before.sigma, rtol=0.02)


@pytest.mark.parametrize("value", [-9999.0, 1e36])
def test_a_fill_value_nobody_declared_is_no_part_of_the_range(value):
    pixels = tiny.cube(6, 60, 70).astype(np.float32)
    pixels[:, :, :26] = value
    found = survey(scene(pixels))
    assert (found.low > -0.5).all()
    assert (found.high < 1.5).all()
    np.testing.assert_allclose(found.sigma, 0.03, rtol=0.15)


def test_saturated_pixels_stay_in_the_range():
    pixels = (tiny.cube(3, 60, 70) * 255).clip(0, 200).astype(np.uint8)
    pixels[:, 20:40, 20:50] = 255
    found = survey(scene(pixels))
    assert (found.high == 255).all()


def test_the_same_in_blocks_of_any_height(monkeypatch):
    pixels = tiny.cube(5, 61, 33).astype(np.float32)
    whole = survey(scene(pixels))
    monkeypatch.setattr(survey_, "BLOCK_SAMPLES", 5 * 33 * 8)
    blocks = list(row_blocks(scene(pixels), 4))
    assert [(w.row_start, w.row_stop) for w in blocks] == [*((i, i + 8) for i in range(0, 56, 8)), (56, 61)]
    parts = survey(scene(pixels))
    np.testing.assert_allclose(parts.low, whole.low, atol=0.03)
    np.testing.assert_allclose(parts.sigma, whole.sigma, rtol=0.02)


def test_memory_is_that_of_a_block(monkeypatch):
    monkeypatch.setattr(survey_, "BLOCK_SAMPLES", 100_000)
    monkeypatch.setattr(survey_, "SAMPLE", 100_000)
    rng = np.random.default_rng(0)
    largest = []

    def read(window: Window, bands):
        largest.append((window.row_stop - window.row_start) * 50 * len(bands))
        return rng.random((len(bands), *window.shape), np.float32)

    cube = replace(scene(np.zeros((20, 1, 50), np.float32)), shape=(20, 5_000, 50), read_raw=read)
    tracemalloc.start()
    survey(cube)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert max(largest) <= 100_000
    assert peak < 80 * 100_000  # bytes; the scene has 20 MB


def test_block_medians_are_medians_of_what_is_valid():
    rng = np.random.default_rng(1)
    block = rng.random((2, 8, 12)).astype(np.float32)
    valid = rng.random((2, 8, 12)) < 0.6
    block[~valid] = np.nan
    got = block_medians(block, valid)
    expected = []
    for b, r, c in np.ndindex(2, 2, 3):
        cell = np.s_[b, 4 * r : 4 * r + 4, 4 * c : 4 * c + 4]
        values = np.sort(block[cell][valid[cell]])
        expected.append(values[(len(values) - 1) // 2] if len(values) >= 8 else np.nan)
    np.testing.assert_array_equal(got.ravel(), np.array(expected, np.float32))
