"""Tile geometry: exact weights, honoured halos, tiled equal to whole, bounded memory."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from hsidenoise.errors import UsageError
from hsidenoise.tiles import StripBuffer, Tile, plan, smallest_size, spans, strip_bytes, strips


@st.composite
def axes(draw, longest=400):
    """Arguments of `spans`: any length, and a size from the smallest possible upwards."""
    halo, feather, align = draw(st.integers(0, 40)), draw(st.integers(0, 40)), draw(st.integers(1, 32))
    smallest = smallest_size(halo, feather, align)
    size = draw(st.integers(smallest, smallest + 10) | st.integers(smallest, smallest + 200))
    return draw(st.integers(1, longest)), size, halo, feather, align


def run(function, tiles, scene):
    """Apply `function` tile by tile; returns the blocks as the buffer hands them out."""
    buffer = StripBuffer(tiles, scene.shape[0])
    blocks = []
    for tile in tiles:
        r0, r1, c0, c1 = tile.source
        done = buffer.add(tile, tile.crop(function(scene[:, r0:r1, c0:c1])))
        if done is not None:
            blocks.append(done)
    return blocks


def join(blocks):
    """One scene from blocks, which must be ascending and gapless."""
    row = 0
    for row_start, block in blocks:
        assert row_start == row
        row += block.shape[1]
    return np.concatenate([block for _, block in blocks], axis=1)


@settings(max_examples=800, deadline=None)
@given(axes())
def test_weights_of_an_axis_sum_to_exactly_one(args):
    length, size, halo, feather, align = args
    for dtype in (np.float32, np.float64):
        total = np.zeros(length, dtype)
        for span in spans(length, size, halo=halo, feather=feather, align=align):
            assert span.weights.dtype == np.float32
            assert span.weights.min() >= 0
            total[span.core_start : span.core_stop] += span.weights
        assert (total == 1).all()


def test_weights_sum_to_exactly_one_for_every_length():
    for length in range(1, 3000):
        total = np.zeros(length)
        for span in spans(length, 160, halo=20, feather=16, align=8):
            total[span.core_start : span.core_stop] += span.weights
        assert (total == 1).all()


@settings(max_examples=300, deadline=None)
@given(axes())
def test_spans_are_equal_aligned_and_even(args):
    length, size, halo, feather, align = args
    result = spans(length, size, halo=halo, feather=feather, align=align)
    starts = [span.start for span in result]
    assert {span.stop - span.start for span in result} == {min(length, result[0].stop)}
    assert result[0].stop <= size
    assert result[0].stop > min(size - align, length - 1)
    assert (starts[0], result[-1].stop) == (0, length)
    assert all(start % align == 0 for start in starts)
    steps = np.diff(starts)
    if steps.size:
        assert steps.min() > 0
        assert steps.max() - steps.min() in (0, align)


@settings(max_examples=300, deadline=None)
@given(axes())
def test_halo_is_discarded_at_seams_and_borders_keep_weight_one(args):
    length, size, halo, feather, align = args
    result = spans(length, size, halo=halo, feather=feather, align=align)
    assert (result[0].core_start, result[-1].core_stop) == (0, length)
    assert result[0].weights[0] == result[-1].weights[-1] == 1
    for before, after in pairwise(result):
        assert before.core_stop <= before.stop - halo
        assert after.core_start >= after.start + halo
        assert before.core_stop - after.core_start == feather
        left, right = after.core_start - after.start, before.stop - before.core_stop
        assert right - left in (0, 1)  # the seam is in the middle of the overlap


def test_only_the_feather_is_blended():
    for span in spans(1000, 128, halo=16, feather=8):
        blended = (span.weights > 0) & (span.weights < 1)
        assert blended.sum() <= 16
        assert (span.weights[8:-8] == 1).all()
    first = spans(1000, 128, halo=16, feather=8)[0]
    assert (first.weights[:-8] == 1).all()
    fall = first.weights[-8:].astype(float)
    np.testing.assert_allclose(fall, 0.5 + 0.5 * np.cos(np.pi * (np.arange(8) + 0.5) / 8), atol=1.3e-4)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 200), st.integers(1, 200), st.integers(0, 6), st.integers(0, 9), st.integers(1, 5), st.data())
def test_weights_of_the_plane_sum_to_exactly_one(rows, cols, halo, feather, align, data):
    smallest = smallest_size(halo, feather, align)
    size = data.draw(st.integers(smallest, smallest + 80))
    total = np.zeros((rows, cols), np.float32)
    tiles = plan(rows, cols, size, halo=halo, feather=feather, align=align)
    for tile in tiles:
        r0, r1, c0, c1 = tile.core
        total[r0:r1, c0:c1] += tile.row_weights[:, None] * tile.col_weights
    assert (total == 1).all()
    assert len({tile.shape for tile in tiles}) == 1


@settings(max_examples=120, deadline=None)
@given(st.integers(1, 150), st.integers(1, 150), st.integers(0, 5), st.integers(0, 12), st.data())
def test_local_filter_tiled_equals_whole(rows, cols, radius, feather, data):
    halo = data.draw(st.integers(radius, radius + 4))
    align = data.draw(st.integers(1, 6))
    smallest = smallest_size(halo, feather, align)
    tiles = plan(rows, cols, data.draw(st.integers(smallest, smallest + 60)), halo=halo, feather=feather, align=align)
    scene = np.random.default_rng(rows * 1000 + cols).random((2, rows, cols), np.float32)

    def blur(x):
        return ndimage.uniform_filter(x.astype(np.float64), (0, 2 * radius + 1, 2 * radius + 1)).astype(np.float32)

    rounded = np.full((rows, cols), 2)  # times, by half a step: in the filter, in a product with a weight, in each sum
    for tile in tiles:
        r0, r1, c0, c1 = tile.core
        rounded[r0:r1, c0:c1] += 1
    assert (np.abs(join(run(blur, tiles, scene)) - blur(scene)) <= rounded * 2.0**-24).all()


def test_halo_shorter_than_the_filter_shows():
    scene = np.random.default_rng(0).random((1, 90, 90), np.float32)

    def blur(x):
        return ndimage.uniform_filter(x, (0, 15, 15))

    tiles = plan(90, 90, 40, halo=2, feather=4)
    assert np.abs(join(run(blur, tiles, scene)) - blur(scene)).max() > 1e-3


@pytest.mark.parametrize(("rows", "cols"), [(100, 100), (101, 77), (67, 230), (64, 64), (65, 1)])
def test_aligned_tiles_share_the_code_grid_of_the_scene(rows, cols):
    stride, scene = 4, np.random.default_rng(1).random((1, rows, cols), np.float32)

    def strided(x):  # sample a grid of that stride, smooth it, and hold each sample
        codes = ndimage.uniform_filter(x[:, ::stride, ::stride], (0, 3, 3), mode="nearest")
        return codes.repeat(stride, 1).repeat(stride, 2)[:, : x.shape[1], : x.shape[2]]

    aligned = plan(rows, cols, 35, halo=8, feather=5, align=stride)
    np.testing.assert_allclose(join(run(strided, aligned, scene)), strided(scene), rtol=0, atol=1e-6)


def test_a_scene_that_fits_is_one_tile_whatever_the_halo():
    (tile,) = plan(30, 20, 30, halo=50, feather=16, align=8)
    assert tile.source == tile.core == (0, 30, 0, 20)
    assert (tile.row_weights == 1).all()
    assert (tile.col_weights == 1).all()


@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (1, 500), (500, 1), (2, 3)])
def test_thin_scenes(rows, cols):
    scene = np.random.default_rng(2).random((3, rows, cols), np.float32)
    tiles = plan(rows, cols, 32, halo=6, feather=4, align=2)
    np.testing.assert_allclose(join(run(lambda x: x, tiles, scene)), scene, rtol=3e-7)


def test_pixels_of_a_single_tile_pass_bit_for_bit():
    scene = np.random.default_rng(3).normal(1e4, 1e3, (2, 200, 90)).astype(np.float32)
    tiles = plan(200, 90, 48, halo=6, feather=4)
    result = join(run(lambda x: x, tiles, scene))
    single = np.zeros((200, 90), int)
    for tile in tiles:
        single[tile.core[0] : tile.core[1], tile.core[2] : tile.core[3]] += 1
    assert (single == 1).mean() > 0.5
    assert np.array_equal(result[:, single == 1], scene[:, single == 1])
    np.testing.assert_allclose(result, scene, rtol=3e-7)


def test_tiles_are_ordered_by_rows_of_tiles():
    tiles = plan(300, 200, 64, halo=8, feather=8)
    assert [tile.source for tile in tiles] == sorted(tile.source for tile in tiles)


def test_tiles_compare_and_hash_by_geometry():
    tiles, again = (plan(300, 200, 64, halo=8, feather=8) for _ in range(2))
    assert tiles == again
    assert len(set(tiles) | set(again)) == len(tiles)
    with pytest.raises(ValueError, match="read-only"):
        tiles[0].row_weights[0] = 0


def test_strips_tell_which_rows_are_complete():
    tiles = plan(300, 200, 64, halo=8, feather=8)
    groups = strips(tiles)
    assert [tile for strip in groups for tile in strip.tiles] == tiles
    assert groups[0].row_start == 0
    assert groups[-1].row_stop == 300
    for i, strip in enumerate(groups):
        later = [tile for group in groups[i + 1 :] for tile in group.tiles]
        assert all(tile.core[0] >= strip.row_stop for tile in later)
        assert any(tile.core[0] == strip.row_stop for tile in later) or strip.row_stop == 300


def peak_memory(rows):
    """Peak bytes while a scene of `rows` x 64 x 4 bands passes through, and the buffer's own count."""
    tiles = plan(rows, 64, 40, halo=4, feather=8)
    held = 0
    tracemalloc.start()
    try:
        buffer = StripBuffer(tiles, 4)
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for tile in tiles:
            r0, r1, c0, c1 = tile.core
            done = buffer.add(tile, np.ones((4, r1 - r0, c1 - c0), np.float32))
            held = max(held, buffer.nbytes)
            if done is not None:
                assert (done[1] == 1).all()
            del done
        return tracemalloc.get_traced_memory()[1] - before, held, strip_bytes(tiles, 4)
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_height():
    low, _, _ = peak_memory(400)
    high, held, strip = peak_memory(6400)
    assert high < low * 1.2
    assert held <= strip * 1.5
    assert strip <= 4 * 4 * 40 * 64
    assert high < 4 * strip < 4 * 6400 * 64 * 4


def test_blocks_belong_to_the_caller():
    scene = np.random.default_rng(4).random((1, 200, 50), np.float32)
    buffer = StripBuffer(tiles := plan(200, 50, 40, halo=4, feather=4), 1)
    row_seen = 0
    for tile in tiles:
        done = buffer.add(tile, tile.crop(scene[:, tile.source[0] : tile.source[1], tile.source[2] : tile.source[3]]))
        if done is not None:
            done[1][:] = np.nan  # must not reach rows that follow
            row_seen = done[0] + done[1].shape[1]
            assert np.isfinite(buffer._pending).all()
    assert row_seen == 200


def test_buffer_refuses_what_is_not_due():
    tiles = plan(100, 100, 40, halo=4, feather=4)
    buffer = StripBuffer(tiles, 2)

    def core(tile: Tile, bands=2):
        return np.zeros((bands, tile.core[1] - tile.core[0], tile.core[3] - tile.core[2]), np.float32)

    with pytest.raises(ValueError, match="is due"):
        buffer.add(tiles[1], core(tiles[1]))
    with pytest.raises(ValueError, match="core of shape"):
        buffer.add(tiles[0], core(tiles[0], 3))
    for tile in tiles:
        buffer.add(tile, core(tile))
    with pytest.raises(ValueError, match="none is due"):
        buffer.add(tiles[0], core(tiles[0]))


@pytest.mark.parametrize("size", [-3, 0, 1, 32, 40])
def test_impossible_tile_names_the_option_and_the_minimum(size):
    with pytest.raises(UsageError, match=r"--tile .* use --tile 41 or more") as caught:
        plan(500, 10, size, halo=16, feather=8)
    assert "\n" not in str(caught.value)
    assert len(plan(500, 10, 41, halo=16, feather=8)) > 1


def test_empty_scene_and_nonsense():
    with pytest.raises(UsageError, match="no pixels"):
        plan(0, 10, 64, halo=4, feather=4)
    for bad in ({"halo": -1}, {"feather": -1}, {"align": 0}):
        with pytest.raises(ValueError, match="no geometry"):
            spans(100, 64, **{"halo": 4, "feather": 4, **bad})
    with pytest.raises(ValueError, match="below the minimum"):
        spans(100, 12, halo=4, feather=4)
