"""Dead pixels, impulses, dead columns and stripes are found and mended; what is none of them is not touched."""

from __future__ import annotations

import numpy as np
import pytest
import tiny

from hsidenoise import defects

BANDS, ROWS, COLS = 30, 90, 100


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def noisy(sigma: float = 0.02) -> np.ndarray:
    return tiny.cube(BANDS, ROWS, COLS, sigma=sigma).astype(np.float32)


def find(values, usual=None):
    every = np.ones(values.shape, bool)
    return defects.find(values, every, every if usual is None else usual)


def test_plain_noise_has_no_defects():
    for sigma in (0.0, 0.001, 0.02, 0.3):
        assert find(noisy(sigma)) is None


def test_impulses_are_found_and_predicted(rng):
    clean = tiny.clean(BANDS, ROWS, COLS)
    values = noisy()
    hit = rng.random((ROWS, COLS)) < 0.3
    values[4][hit] = rng.integers(0, 2, hit.sum())
    found = find(values)
    mended, good = found.mend(values, np.ones(values.shape, bool), 0)
    assert found.stuck[4].tolist() == [0, 1]
    assert [b for b in range(BANDS) if found.stuck[b].size] == [4]
    np.testing.assert_array_equal(good[4], ~hit)
    assert np.sqrt(np.square(mended - clean)[4][hit].mean()) < 0.02  # better than a measurement
    others = [b for b in range(BANDS) if b != 4]
    np.testing.assert_array_equal(mended[others], values[others])
    np.testing.assert_array_equal(mended[4][~hit], values[4][~hit])
    assert found.sigma[4] == pytest.approx(0.02, rel=0.1)


def test_impulses_of_any_value_are_found(rng):
    values = noisy()
    hit = rng.random((ROWS, COLS)) < 0.1
    values[7][hit] = rng.uniform(-1, 2, hit.sum())
    found = find(values)
    assert found.spiky.tolist() == [b == 7 for b in range(BANDS)]
    mended, good = found.mend(values, np.ones(values.shape, bool), 0)
    clean = tiny.clean(BANDS, ROWS, COLS)
    assert (~good[7][hit]).mean() > 0.8  # the others are within the noise of what they replaced
    assert np.sqrt(np.square(mended - clean)[7].mean()) < 0.03
    assert good[7][~hit].mean() > 0.999


def test_stripes_are_moved_back_and_dead_columns_predicted(rng):
    clean = tiny.clean(BANDS, ROWS, COLS)
    values = noisy()
    columns = rng.permutation(COLS)[:8]
    offsets = rng.choice([-1, 1], 8) * rng.uniform(0.05, 0.25, 8)
    values[11][:, columns] += offsets.astype(np.float32)
    values[20][:, [3, 4, 50]] = 0
    found = find(values)
    assert sorted(np.flatnonzero(found.offset[11])) == sorted(columns)
    np.testing.assert_allclose(found.offset[11, columns], offsets, atol=0.01)
    assert np.flatnonzero(found.offset.any(1)).tolist() == [11]
    assert np.flatnonzero(found.dead[20]).tolist() == [3, 4, 50]
    assert found.dead.sum() == 3
    part = slice(40, 60)
    mended, good = found.mend(values[:, :, part], np.ones((BANDS, ROWS, 20), bool), 40)
    assert np.sqrt(np.square(mended - clean[:, :, part]).mean((1, 2))).max() < 0.025
    assert not good[20][:, 10].any()


def test_a_band_with_stripes_on_every_column_is_evened(rng):
    clean = tiny.clean(BANDS, ROWS, COLS)
    values = noisy()
    offsets = 0.1 * rng.standard_normal(COLS)
    values[2] += offsets.astype(np.float32)
    found = find(values)
    mended, _ = found.mend(values, np.ones(values.shape, bool), 0)
    assert np.flatnonzero(found.offset.any(1)).tolist() == [2]
    left = (mended - clean)[2].mean(0)
    assert left.std() < 0.2 * offsets.std()


def test_clamped_shadows_and_saturated_roofs_stay(rng):
    values = noisy(0.005)
    values[3, 20:50, 30:70] = 0  # a patch of one value is an object, not a defect
    values[3, 60:75, 10:25] = 1
    found = find(values)
    assert found is None or not found.stuck[3].size


def test_pixels_without_most_of_their_bands_are_left_as_they_are(rng):
    values = noisy()
    values[:, rng.random((ROWS, COLS)) < 0.1] = 0  # in all bands at once: a mask that nobody declared
    found = find(values)
    assert found is None or not found.lost_in(values, 0).any()


def test_integers_of_few_values_have_no_stuck_ones(rng):
    classes = rng.integers(0, 9, (BANDS, ROWS, COLS)).astype(np.float32)
    stuck, dead, _ = defects.recurring(classes, np.ones(classes.shape, bool))
    assert not dead.any()
    assert all(s.size == 0 for s in stuck)
    counts = np.rint(noisy() * 200)  # many equal values, as integers have: but no more than their neighbours
    assert all(s.size == 0 for s in defects.recurring(counts, np.ones(counts.shape, bool))[0])


def test_samples_far_outside_do_not_count(rng):
    values = noisy()
    usual = np.ones(values.shape, bool)
    usual[9, 5, 5] = False
    values[9, 5, 5] = 1e20
    assert find(values, usual) is None
