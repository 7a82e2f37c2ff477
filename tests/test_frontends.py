"""Eigen-images through `run`: any band count, defects mended, tiles that agree, nothing else touched."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny

from hsidenoise.run import run


def denoised(scene, tmp_path, **options):
    record = run(scene, tmp_path / "clean.tif", quiet=True, overwrite=True, **({"model": "dct"} | options))
    return tiny.pixels(tmp_path / "clean.tif"), record


def rms(values, clean, where=np.s_[:]):
    return float(np.sqrt(np.square(values.astype(np.float64) - clean)[where].mean()))


@pytest.mark.parametrize("bands", [1, 2, 5, 8, 31, 120])
def test_any_number_of_bands(bands, tmp_path):
    noisy = tiny.cube(bands, 70, 90).astype(np.float32)
    result, record = denoised(tiny.geotiff(tmp_path / "scene.tif", noisy), tmp_path)
    clean = tiny.clean(bands, 70, 90)
    assert rms(result, clean) < 0.7 * rms(noisy, clean)
    assert record["normalisation"]["rank"] <= max(bands // 2, 2)
    assert len(record["sigma_before"]) == bands


@pytest.mark.parametrize("tile", [64, 72])
def test_tiles_give_the_same_as_the_whole(tile, tmp_path):
    scene = tiny.geotiff(tmp_path / "scene.tif", tiny.cube(20, 100, 120).astype(np.float32))
    whole, _ = denoised(scene, tmp_path, tile=4096)
    tiled, record = denoised(scene, tmp_path, tile=tile)
    assert len(record["tiles"]) > 3
    np.testing.assert_allclose(tiled, whole, atol=1e-5)  # a coefficient may fall on the threshold's other side


def test_scenes_of_few_pixels_are_learned_from_twice(tmp_path, monkeypatch):
    rng = np.random.default_rng(2)
    maps = rng.random((5, 6, 6)).repeat(8, 1).repeat(8, 2) * np.array([1, 0.5, 0.2, 0.1, 0.05])[:, None, None]
    clean = np.tensordot(rng.random((90, 5)), maps, 1)
    sigma = rng.uniform(0.02, 0.5, (90, 1, 1))
    scene = tiny.geotiff(tmp_path / "scene.tif", (clean + sigma * rng.standard_normal(clean.shape)).astype(np.float32))
    twice, _ = denoised(scene, tmp_path)
    monkeypatch.setattr("hsidenoise.frontends.MOST", 0)
    once, _ = denoised(scene, tmp_path)
    error = [np.log(np.square(x - clean).mean((1, 2))).mean() for x in (once, twice)]
    assert error[1] < error[0] - 0.08  # 0.35 dB


def test_a_sample_beyond_all_measure_harms_nothing(tmp_path):
    """Small scenes are denoised to learn from them, too: what is no measurement must not come in there."""
    pixels = tiny.cube(40, 72, 84, sigma=0.02).astype(np.float32)
    plain, _ = denoised(tiny.geotiff(tmp_path / "plain.tif", pixels), tmp_path)
    pixels[9, 20, 20] = 1e30
    result, _ = denoised(tiny.geotiff(tmp_path / "scene.tif", pixels), tmp_path)
    assert result[9, 20, 20] == np.float32(1e30)
    result[9, 20, 20] = plain[9, 20, 20]
    assert rms(result, plain) < 0.002


def test_defects_are_mended_and_what_is_no_measurement_stays(tmp_path):
    rng = np.random.default_rng(0)
    clean = tiny.clean(24, 80, 90)
    noisy = tiny.cube(24, 80, 90, sigma=0.02)
    noisy[5][rng.random((80, 90)) < 0.3] = 1.5
    noisy[9][:, [20, 60]] = 0
    noisy[12][:, 33] += 0.2
    pixels = np.rint(noisy * 10_000).astype(np.int16)
    pixels[:, :, :4] = -9999
    pixels[7, 40, 50] = -9999
    scene = tiny.geotiff(tmp_path / "scene.tif", pixels, nodata=-9999, bad=(2,))
    result, record = denoised(scene, tmp_path, report=tmp_path / "report.html")
    inside = np.s_[:, 4:]
    for band in (5, 9, 12, 15):
        assert rms(result[band] / 10_000, clean[band], inside) < 0.01
    np.testing.assert_array_equal(result[:, :, :4], -9999)
    assert result[7, 40, 50] == -9999
    np.testing.assert_array_equal(result[2], pixels[2])
    found = record["normalisation"]["defects"]["bands"]
    assert found["5"]["lost_share"] == pytest.approx(0.3, abs=0.03)
    assert found["9"]["lost_share"] == pytest.approx(2 / 86, abs=0.01)
    assert found["12"]["striped_columns"] == 1
    assert set(found) == {"5", "9", "12"}
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["bands"][5]["lost_share"] == pytest.approx(0.3, abs=0.03)
    assert report["bands"][5]["structure_share"] is None
    assert "Defects that were mended" in (tmp_path / "report.html").read_text()


def test_bands_not_selected_guide_the_others_and_stay(tmp_path):
    noisy = tiny.cube(20, 80, 90).astype(np.float32)
    scene = tiny.geotiff(tmp_path / "scene.tif", noisy)
    every, _ = denoised(scene, tmp_path)
    some, record = denoised(scene, tmp_path, bidx="3,5..7")
    assert record["bands_denoised"] == [2, 4, 5, 6]
    np.testing.assert_array_equal(some[[2, 4, 5, 6]], every[[2, 4, 5, 6]])
    np.testing.assert_array_equal(some[7:], noisy[7:])


def test_a_clean_scene_is_hardly_changed(tmp_path):
    clean = tiny.clean(24, 80, 90).astype(np.float32)
    result, _ = denoised(tiny.geotiff(tmp_path / "scene.tif", clean), tmp_path)
    assert -20 * np.log10(rms(result, clean)) > 50


def test_a_network_of_eigen_images_runs_group_by_group(tmp_path):
    small = {"bands": 4, "local": 36, "kernel": 6, "stride": 3, "frontend": "eigen", "shrink": 0.7, "wiener": True}
    weights = tiny.weights(tmp_path / "eigen.safetensors", **small)
    rng = np.random.default_rng(1)
    maps = rng.random((6, 10, 12)).repeat(8, 1).repeat(8, 2)
    clean = np.tensordot(rng.random((30, 6)), maps, 1) / 3
    noisy = (clean + 0.01 * rng.standard_normal(clean.shape)).astype(np.float32)
    result, record = denoised(tiny.geotiff(tmp_path / "scene.tif", noisy), tmp_path, model=str(weights))
    assert record["normalisation"]["rank"] == 6  # two groups, the second not full
    assert rms(result, clean) < 0.6 * rms(noisy, clean)
