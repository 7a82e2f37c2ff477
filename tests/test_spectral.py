"""Band windows: complete, exact, never across a gap; normalisation there and back."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsidenoise.spectral import BandWindow, Normalisation, accumulate, gather, windows


@st.composite
def grouped(draw):
    """Groups of bands of an imaginary sensor: shuffled file order, some bands left out."""
    lengths = draw(st.lists(st.integers(1, 80), min_size=1, max_size=4))
    order = draw(st.randoms(use_true_random=False))
    bands = list(range(sum(lengths) + draw(st.integers(0, 20))))
    order.shuffle(bands)
    groups, at = [], 0
    for length in lengths:
        groups.append(bands[at : at + length])
        at += length
    return groups, len(bands)


@settings(max_examples=200, deadline=None)
@given(grouped(), st.integers(1, 40))
def test_every_usable_band_has_weight_exactly_one(sensor, size):
    groups, count = sensor
    total = np.zeros(count, np.float32)
    for window in windows(groups, size):
        assert len(window.bands) == size
        assert len(window.kept) == len(set(window.kept)) == window.weights.size
        total[list(window.kept)] += window.weights
    expected = np.zeros(count)
    expected[[band for group in groups for band in group]] = 1
    assert np.array_equal(total, expected)


@settings(max_examples=200, deadline=None)
@given(grouped(), st.integers(1, 40))
def test_windows_stay_in_their_group_and_in_its_order(sensor, size):
    groups, _ = sensor
    for window in windows(groups, size):
        (group,) = (group for group in groups if window.bands[0] in group)
        positions = [group.index(band) for band in window.bands]
        if len(group) >= size:
            assert positions == list(range(positions[0], positions[0] + size))
        else:  # reflection: neighbours stay neighbours
            assert np.abs(np.diff(positions)).max(initial=0) <= 1
            assert window.kept == tuple(group)


@settings(max_examples=100, deadline=None)
@given(grouped(), st.integers(1, 40))
def test_split_and_blend_is_the_identity(sensor, size):
    groups, count = sensor
    block = np.random.default_rng(count).random((count, 2, 3), np.float32)
    total = np.zeros_like(block)
    for window in windows(groups, size):
        seen = gather(block, window)
        assert seen.shape == (size, 2, 3)
        accumulate(total, window, seen)
    used = [band for group in groups for band in group]
    np.testing.assert_allclose(total[used], block[used], rtol=3e-7)
    assert not np.delete(total, used, axis=0).any()


def test_neighbouring_windows_share_a_quarter_and_discard_their_edges():
    result = windows([list(range(224))], 31)
    for before, after in pairwise(result):
        assert len(set(before.bands) & set(after.bands)) >= 8
        assert before.keep.stop <= 31 - 2
        assert after.keep.start >= 2
    assert len(result) == 10


def test_exactly_one_window():
    (window,) = windows([list(range(31))], 31)
    assert window.bands == tuple(range(31))
    assert window.keep == slice(0, 31)
    assert (window.weights == 1).all()


@pytest.mark.parametrize(
    ("group", "size", "bands"),
    [
        ([7], 5, (7, 7, 7, 7, 7)),
        ([4, 9], 8, (9, 9, 4, 4, 9, 9, 4, 4)),
        ([0, 1, 2], 7, (1, 0, 0, 1, 2, 2, 1)),
        ([0, 1, 2, 3], 5, (0, 1, 2, 3, 3)),
    ],
)
def test_short_groups_are_reflected_about_the_middle(group, size, bands):
    (window,) = windows([group], size)
    assert window.bands == bands
    assert window.kept == tuple(group)


def test_reflected_spectra_are_as_smooth_as_the_original():
    spectrum = np.sin(np.linspace(0, 2, 10)).astype(np.float32)[:, None, None]
    (window,) = windows([list(range(10))], 31)
    assert np.abs(np.diff(gather(spectrum, window), axis=0)).max() <= np.abs(np.diff(spectrum, axis=0)).max()


def test_gather_is_a_copy():
    block = np.zeros((5, 2, 2), np.float32)
    gather(block, windows([list(range(5))], 5)[0])[:] = 1
    assert not block.any()


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="no window"):
        windows([[0, 1]], 0)
    with pytest.raises(ValueError, match="twice"):
        windows([[0, 1], [1, 2]], 31)
    assert windows([], 31) == windows([[]], 31) == []


def test_normalisation_takes_the_widest_range_of_its_bands():
    low, high = [0.0, 5.0, -2.0, -100.0], [10.0, 20.0, 3.0, 100.0]
    (window,) = windows([[0, 1, 2]], 3)
    norm = Normalisation.of(window, low, high)
    assert (norm.low, norm.high, norm.scale) == (-2.0, 20.0, 22.0)


def test_normalisation_ignores_bands_without_statistics():
    window = BandWindow((0, 1, 2), slice(0, 3), np.ones(3, np.float32))
    assert Normalisation.of(window, [np.nan, 1, np.inf], [2, 3, 4]) == Normalisation(1.0, 3.0)
    nothing = Normalisation.of(window, [np.nan] * 3, [np.nan] * 3)
    block = np.array([1.5, -3.0], np.float32)
    assert np.array_equal(nothing.apply(block), block)


@settings(max_examples=300, deadline=None)
@given(
    st.floats(-1e6, 1e6, width=32),
    st.floats(0, 1e6, width=32),
    st.lists(st.floats(-0.5, 1.5, width=32), min_size=1, max_size=20),
)
def test_normalisation_there_and_back(low, extent, where):
    norm = Normalisation(low, low + extent)
    block = (low + extent * np.array(where)).astype(np.float32)
    seen = norm.apply(block)
    assert seen.dtype == norm.undo(seen).dtype == np.float32
    assert np.isfinite(seen).all()
    unit = np.spacing(np.float32(max(abs(low), abs(low + extent), 1e-30)))
    np.testing.assert_allclose(norm.undo(seen), block, rtol=2e-7, atol=float(unit) + 2e-7 * extent)


def test_normalisation_maps_range_to_unit_without_clipping():
    block = np.array([100.0, 200.0, 300.0, 0.0], np.float32)
    np.testing.assert_allclose(Normalisation(100, 200).apply(block), [0, 1, 2, -1])


@pytest.mark.parametrize("value", [0.0, 7.5, -3000.0, 1e-30, 3e38])
def test_constant_band_survives(value):
    norm = Normalisation(value, value)
    block = np.full((2, 2), value, np.float32)
    seen = norm.apply(block)
    assert np.abs(seen).max() <= 1e-7 * max(1, abs(value))
    np.testing.assert_allclose(norm.undo(seen), block, rtol=1e-7)


def test_small_range_on_a_large_offset_keeps_its_digits():
    block = np.arange(30000, 30016, dtype=np.float32)
    norm = Normalisation(30000.0, 30015.0)
    np.testing.assert_allclose(norm.apply(block), np.arange(16) / 15, atol=1e-7)
    assert np.array_equal(norm.undo(norm.apply(block)), block)
