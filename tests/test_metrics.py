"""Metrics against independent implementations, against the benchmark's script, and against synthetic truth."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from hsidenoise import metrics, structure

SHARED = Path(__file__).parents[1].parent / "shared"


@pytest.fixture(scope="module")
def pair():
    """A smooth scene with edges, and a noisy copy; bands of different noise."""
    rng = np.random.default_rng(1)
    clean = scene(rng, 12, 60, 70)
    noisy = clean + rng.uniform(0.01, 0.1, 12)[:, None, None] * rng.standard_normal(clean.shape)
    return clean.astype(np.float32), noisy.astype(np.float32)


def scene(rng, bands, rows, cols, materials=4):
    """Abundances with sharp borders times random smooth spectra: image detail is shared by the bands."""
    fields = gaussian_filter(rng.standard_normal((materials, rows, cols)), (0, 3, 3))
    abundance = (fields == fields.max(axis=0)) * 0.8 + 0.2 * gaussian_filter(rng.random(fields.shape), (0, 1, 1))
    spectra = gaussian_filter(rng.random((materials, bands)), (0, 2)) + 0.3 * rng.random((materials, 1))
    return np.einsum("mb,mrc->brc", spectra, abundance)


# -------------------------------------------------------------------------------------------- oracles


def test_psnr_and_ssim_agree_with_scikit_image(pair):
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    x, y = (a.astype(np.float64) for a in pair)
    for data_range in (1.0, 0.7):
        psnr = [peak_signal_noise_ratio(p, q, data_range=data_range) for p, q in zip(x, y, strict=True)]
        np.testing.assert_allclose(metrics.psnr_bands(x, y, data_range), psnr, atol=1e-9)
        assert metrics.psnr(x, y, data_range) == pytest.approx(np.mean(psnr), abs=1e-9)
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": data_range}
        ssim = [structural_similarity(p, q, **options) for p, q in zip(x, y, strict=True)]
        np.testing.assert_allclose(metrics.ssim_bands(x, y, data_range), ssim, atol=1e-9)
        assert metrics.ssim(x, y, data_range) == pytest.approx(np.mean(ssim), abs=1e-9)


def test_sam_and_ergas_agree_with_their_definitions(pair):
    x, y = (a.astype(np.float64) for a in pair)
    angles = [
        np.arccos(p @ q / np.sqrt(p @ p) / np.sqrt(q @ q))
        for p, q in zip(x.reshape(12, -1).T, y.reshape(12, -1).T, strict=True)
    ]
    assert metrics.sam(x, y) == pytest.approx(np.mean(angles), abs=1e-9)
    relative = [np.mean((p - q) ** 2) / p.mean() ** 2 for p, q in zip(x, y, strict=True)]
    assert metrics.ergas(x, y, ratio=0.25) == pytest.approx(25 * np.sqrt(np.mean(relative)), rel=1e-9)


@pytest.mark.skipif(not (SHARED / "tools" / "val_windows.py").exists(), reason="the benchmark's script is not here")
def test_scores_equal_those_of_the_benchmark(pair):
    spec = importlib.util.spec_from_file_location("val_windows", SHARED / "tools" / "val_windows.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    x, y = pair
    psnr, ssim, sam = script.score(np.moveaxis(x, 0, 2), np.moveaxis(y, 0, 2))
    clipped = np.clip(y, 0, 1)
    assert metrics.psnr(x, clipped) == pytest.approx(psnr, abs=1e-6)
    assert metrics.ssim(x, clipped) == pytest.approx(ssim, abs=1e-6)
    assert metrics.sam(x, clipped) == pytest.approx(sam, abs=1e-6)


@pytest.mark.skipif(not (SHARED / "data" / "val.h5").exists(), reason="the benchmark's scenes are not here")
def test_a_real_window_scores_as_the_benchmark_says():
    spec = importlib.util.spec_from_file_location("val_windows", SHARED / "tools" / "val_windows.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    clean = script.clean("bay_champagne_b100")
    noisy = script.add_noise(clean, "mixture")
    x, y = np.moveaxis(clean, 2, 0), np.clip(np.moveaxis(noisy, 2, 0), 0, 1)
    got = metrics.psnr(x, y), metrics.ssim(x, y), metrics.sam(x, y)
    assert got == pytest.approx(script.score(clean, noisy), abs=1e-6)


# ------------------------------------------------------------------------------------------ behaviour


def test_identical_scenes_score_perfectly(pair):
    x = pair[0]
    assert metrics.psnr(x, x) == 200
    assert metrics.ssim(x, x) == pytest.approx(1)
    assert metrics.sam(x, x) == pytest.approx(0, abs=1e-6)
    assert metrics.ergas(x, x) == 0


def test_only_valid_samples_count(pair):
    x, y = pair
    spoiled = y.copy()
    spoiled[:, :20, :30] = 1e6
    spoiled[3, 50, 60] = np.nan
    valid = np.ones(x.shape, bool)
    valid[:, :20, :30] = False
    valid[3, 50, 60] = False
    rest = np.s_[:, 20:, :]
    assert metrics.psnr_bands(x, spoiled, valid=valid)[0] == pytest.approx(
        -10 * np.log10(np.mean((x[0] - y[0]).astype(float)[valid[0]] ** 2))
    )
    assert np.isfinite(metrics.ssim_bands(x, spoiled, valid=valid)).all()
    assert np.isfinite(metrics.sam(x, spoiled, valid=valid))
    mask = valid[0]  # one mask for all bands broadcasts
    assert metrics.sam(x, y, valid=mask) == pytest.approx(metrics.sam(x, y, valid=np.broadcast_to(mask, x.shape)))
    assert metrics.sam(x[rest], y[rest]) == pytest.approx(metrics.sam(x[rest], spoiled[rest], valid[rest]), abs=1e-3)


def test_ssim_of_the_whole_part_is_that_of_the_part(pair):
    x, y = pair
    valid = np.ones(x.shape[1:], bool)
    valid[:20] = False
    np.testing.assert_allclose(
        metrics.ssim_bands(x, y, valid=valid), metrics.ssim_bands(x[:, 20:], y[:, 20:]), atol=1e-12
    )


def test_nothing_to_compare_is_not_a_number(pair):
    x, y = pair
    none = np.zeros(x.shape, bool)
    for measure in (metrics.psnr, metrics.ssim):
        assert np.isnan(measure(x, y, valid=none))
    assert np.isnan(metrics.sam(x, y, none))
    assert np.isnan(metrics.ssim(x[:, :10], y[:, :10]))  # narrower than the window


def test_shapes_must_agree(pair):
    with pytest.raises(ValueError, match="one shape"):
        metrics.psnr(pair[0], pair[1][:, :-1])


@pytest.mark.parametrize("height", [7, 16, 60])
def test_streaming_gives_the_number_of_the_whole(pair, height):
    x, y = pair
    rng = np.random.default_rng(2)
    valid = rng.random(x.shape) > 0.002
    pairs, similar = metrics.PairAccumulator(12), metrics.SSIMAccumulator(12, 0.9, -0.1)
    rows = x.shape[1]
    for start in range(0, rows, height):
        stop = min(start + height, rows)
        core = np.s_[:, start:stop]
        more = np.s_[:, max(0, start - metrics.SSIM_RADIUS) : stop + metrics.SSIM_RADIUS]
        pairs.add(x[core], y[core], valid[core])
        similar.add(x[more], y[more], valid[more])
    np.testing.assert_allclose(pairs.psnr_bands(0.9), metrics.psnr_bands(x, y, 0.9, valid), atol=1e-9)
    assert pairs.sam() == pytest.approx(metrics.sam(x, y, valid), abs=1e-12)
    assert pairs.ergas() == pytest.approx(metrics.ergas(x, y, valid=valid), rel=1e-12)
    np.testing.assert_allclose(similar.bands(), metrics.ssim_bands(x + 0.1, y + 0.1, 0.9, valid), atol=1e-6)


# --------------------------------------------------------------------------------------- no reference


@pytest.mark.parametrize("bands", [1, 2, 4, 30])
@pytest.mark.parametrize("sigma", [0.02, 0.2])
def test_removing_white_noise_shows_no_structure(bands, sigma):
    rng = np.random.default_rng(bands)
    clean = scene(rng, bands, 96, 96)
    noisy = clean + sigma * rng.standard_normal(clean.shape)
    total = structure.StructureAccumulator(bands)
    total.add(noisy, clean)
    assert total.share_bands().max() < 0.003
    assert not total.found_bands().any()
    assert np.abs(total.autocorrelation_bands()).max() < 0.05


@pytest.mark.parametrize(("bands", "sigma"), [(1, 0.01), (2, 0.01), (4, 0.02), (30, 0.02), (30, 0.05)])
def test_removing_edges_shows(bands, sigma):
    rng = np.random.default_rng(bands)
    clean = scene(rng, bands, 96, 96)
    noisy = clean + sigma * rng.standard_normal(clean.shape)
    blurred = gaussian_filter(noisy, (0, 1, 1))
    total = structure.StructureAccumulator(bands)
    total.add(noisy, blurred)
    assert np.median(total.share_bands()) > 0.03
    assert total.found_bands().mean() > 0.9


def test_noise_that_follows_the_signal_is_not_structure():
    rng = np.random.default_rng(5)
    clean = scene(rng, 20, 96, 96)
    noisy = clean + 0.1 * np.sqrt(np.maximum(clean, 0)) * rng.standard_normal(clean.shape)
    assert structure.residual_structure(noisy, clean).max() < 0.004


def test_removed_stripes_are_not_structure_and_are_stripes():
    rng = np.random.default_rng(6)
    clean = scene(rng, 20, 96, 96)
    noise = 0.02 * rng.standard_normal(clean.shape)
    striped = clean + noise + (rng.random((20, 1, 96)) < 0.1) * rng.uniform(-0.2, 0.2, (20, 1, 96))
    assert structure.residual_structure(striped, clean).max() < 0.004
    counts = np.full((20, 96), 96)
    sigma = np.full(20, 0.02)
    assert metrics.stripes((striped - clean).mean(axis=1), counts, sigma).min() > 3
    np.testing.assert_allclose(metrics.stripes(noise.mean(axis=1), counts, sigma), 1, atol=0.3)


def test_flat_noise_smoothed_is_not_structure():
    rng = np.random.default_rng(7)
    noisy = 0.5 + 0.05 * rng.standard_normal((8, 96, 96))
    assert structure.residual_structure(noisy, gaussian_filter(noisy, (0, 1, 1))).max() < 0.003


def test_the_loss_measures_what_was_lost():
    rng = np.random.default_rng(8)
    clean = scene(rng, 20, 128, 128)
    detail = clean - np.stack([gaussian_filter(band, 3) for band in clean])
    noisy = clean + 0.03 * rng.standard_normal(clean.shape)
    total = structure.StructureAccumulator(20)
    total.add(noisy, clean - 0.3 * detail)  # 0.3 of the contrast: 0.09 against 0.49 of the energy
    np.testing.assert_allclose(np.median(total.loss_bands()), 0.09 / (0.09 + 0.49), atol=0.04)


def test_structure_streams_and_ignores_invalid_samples():
    rng = np.random.default_rng(9)
    clean = scene(rng, 12, 120, 80)
    noisy = clean + 0.02 * rng.standard_normal(clean.shape)
    blurred = gaussian_filter(noisy, (0, 1, 1))
    valid = np.ones(clean.shape, bool)
    valid[:, :30, :30] = False
    for a in (noisy, blurred):
        a[~valid] = 0
    whole, blocks = structure.StructureAccumulator(12), structure.StructureAccumulator(12)
    whole.add(noisy, blurred, valid)
    for start in range(0, 120, 40):
        rows = np.s_[:, start : start + 40]
        blocks.add(noisy[rows], blurred[rows], valid[rows])
    np.testing.assert_allclose(blocks.share_bands(), whole.share_bands(), rtol=0.25, atol=0.01)
    assert whole.found_bands().all()
    assert blocks.found_bands().all()
    spotless = structure.StructureAccumulator(12)
    spotless.add(np.where(valid, noisy, 0), np.where(valid, clean, 0), valid)
    assert not spotless.found_bands().any()


def test_bands_passed_through_are_left_out():
    rng = np.random.default_rng(10)
    clean = scene(rng, 6, 64, 64)
    noisy = clean + 0.05 * rng.standard_normal(clean.shape)
    total = structure.StructureAccumulator(6, [0, 1, 2, 4])
    total.add(noisy, clean)
    assert list(np.isnan(total.share_bands())) == [False, False, False, True, False, True]
    assert not total.found_bands()[[3, 5]].any()


def test_the_fine_scale_deviation_is_sigma_for_white_noise_and_streams():
    rng = np.random.default_rng(11)
    sigma = np.array([0.5, 3.0])
    block = (100 + sigma[:, None, None] * rng.standard_normal((2, 150, 150))).astype(np.float32)
    valid = np.ones(block.shape, bool)
    valid[:, :50, :50] = False
    block[~valid] = 1e6
    total = metrics.FineScaleAccumulator(2)
    for start in range(0, 150, 50):
        total.add(block[:, start : start + 50], valid[:, start : start + 50])
    np.testing.assert_allclose(total.sigma(), sigma, rtol=0.03)
    assert np.isnan(metrics.FineScaleAccumulator(2).sigma()).all()
