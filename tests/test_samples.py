"""Single samples: filled for the network, restored after it, put back into their type."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsidenoise.samples import compose, fill, inside, to_dtype

NAN = np.float32("nan")


def nearest_by_hand(band, valid):
    """The value of a nearest valid sample, distances compared one by one; several may be equally near."""
    rows, cols = np.nonzero(valid)
    allowed = {}
    for r, c in np.ndindex(band.shape):
        distance = (rows - r) ** 2 + (cols - c) ** 2
        nearest = distance == distance.min()
        allowed[r, c] = set(band[rows[nearest], cols[nearest]].tolist())
    return allowed


@pytest.mark.parametrize("seed", range(5))
def test_fill_takes_the_nearest_valid_sample_of_the_same_band(seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(3, 7, 9)).astype(np.float32)
    valid = rng.random((3, 7, 9)) < 0.4
    valid[1] = valid[0]
    before = values.copy()
    values[~valid] = NAN
    fill(values, valid, np.zeros(3))
    np.testing.assert_array_equal(values[valid], before[valid])
    for b in range(3):
        allowed = nearest_by_hand(before[b], valid[b])
        assert all(float(values[b][at]) in allowed[at] for at in np.ndindex(7, 9))


def test_fill_gives_a_band_without_any_valid_sample_the_value_it_is_told():
    values = np.full((2, 3, 4), NAN)
    values[1] = 7
    fill(values, np.stack([np.zeros((3, 4), bool), np.ones((3, 4), bool)]), np.array([0.25, 9.0]))
    assert (values[0] == 0.25).all()
    assert (values[1] == 7).all()
    fill(values, np.zeros((2, 3, 4), bool), np.array([np.nan, 1.0]))
    assert np.isfinite(values).all()


def test_inside_holds_the_limits_themselves_and_no_nan():
    values = np.array([[[0.1, 0.9, 0.0, 1.0, NAN, np.inf]]], np.float32)
    got = inside(values, np.array([[0.1], [0.9]]))
    np.testing.assert_array_equal(got[0, 0], [True, True, False, False, False, False])


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"])
def test_integers_are_rounded_and_clipped_never_wrapped(dtype):
    info = np.iinfo(dtype)
    values = np.array([-1e30, -0.4, 0.5, 1.5, 2.51, 100.49, 1e30], np.float32)
    got = to_dtype(values, np.dtype(dtype), None)
    assert got.dtype == dtype
    assert got[0] == info.min
    assert got[1:6].tolist() == [0, 0, 2, 3, 100]
    assert int(info.max) - int(got[-1]) <= np.spacing(float(info.max))  # 64 bits: the largest float64 below it


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["uint8", "int16", "int32", "float32", "float64"]),
    st.sampled_from([0, 1, 100, 127, -128, -9999, 255, 32767, -32768]),
    st.integers(-3, 3),
)
def test_a_measurement_never_becomes_nodata_and_moves_by_one_step_at_most(dtype, nodata, around):
    kind = np.dtype(dtype)
    if kind.kind in "iu" and not np.iinfo(kind).min <= nodata <= np.iinfo(kind).max:
        return
    values = np.array([nodata + around / 4], np.float32)
    got = to_dtype(values, kind, nodata)
    assert got[0] != nodata
    step = 1 if kind.kind in "iu" else abs(float(np.spacing(kind.type(nodata))))
    assert abs(float(got[0]) - float(to_dtype(values, kind, None)[0])) <= step


def test_compose_changes_only_usual_samples_of_denoised_bands():
    rng = np.random.default_rng(0)
    raw = rng.integers(-3000, 3000, (4, 5, 6)).astype(np.int16)
    valid = rng.random((4, 5, 6)) < 0.8
    usual = valid & (rng.random((4, 5, 6)) < 0.9)
    denoised = rng.normal(0, 1000, (2, 5, 6)).astype(np.float32)
    out = compose(raw, valid, usual, denoised, [1, 3], "int16", (None,) * 4)
    expected = raw.copy()
    for i, b in enumerate((1, 3)):
        expected[b][usual[b]] = np.rint(denoised[i])[usual[b]]
    np.testing.assert_array_equal(out, expected)


def test_compose_keeps_the_very_bits_of_what_it_passes_through():
    payload = np.array([0x7FC01234, 0xFFC00001, 0x7F800000], np.uint32).view(np.float32)  # NaNs with payload, inf
    raw = np.tile(payload, (2, 4, 1))
    none = np.zeros(raw.shape, bool)
    out = compose(raw, none, none, np.ones((1, 4, 3), np.float32), [0], "float32", (float("nan"),) * 2)
    np.testing.assert_array_equal(out.view(np.uint32), raw.view(np.uint32))


def test_compose_clips_what_it_passes_through_into_a_smaller_type():
    raw = np.array([[[-5.0, 0.4, 254.6, 300.0, 255.0, np.nan]]])
    valid = np.array([[[True, True, True, True, False, False]]])
    out = compose(raw, valid, valid, np.zeros((0, 1, 6), np.float32), [], "uint8", (255.0,))
    # 254.6 and 300 are measurements, so they stop short of the nodata value; what is no number becomes it.
    assert out.tolist() == [[[0, 0, 254, 254, 255, 255]]]
    wide = np.array([[[70_000, -1, 5]]], np.int32)
    everything = np.ones(wide.shape, bool)
    out = compose(wide, everything, everything, np.zeros((0, 1, 3), np.float32), [], "uint16", (None,))
    assert out.tolist() == [[[65535, 0, 5]]]
