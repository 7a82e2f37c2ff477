"""The demo scene: is it what it says, is its truth the truth, does it look like land?"""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS

from hsidenoise import scenery
from hsidenoise.demo import NODATA, demo
from hsidenoise.errors import OutputExistsError, UsageError, WriteError

SIZE, BANDS = (96, 112), 24


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    return demo(folder, size=SIZE, bands=BANDS, seed=5), folder


@pytest.fixture(scope="module")
def pixels(made):
    record, _ = made
    arrays = []
    for name in ("scene", "truth"):
        with rasterio.open(record[name]) as opened:
            arrays.append(opened.read())
    return arrays


def test_both_files_are_complete_rasters_and_nothing_else_is_left(made):
    record, folder = made
    assert sorted(p.name for p in folder.iterdir()) == ["scene.tif", "truth.tif"]
    with rasterio.open(record["scene"]) as scene, rasterio.open(record["truth"]) as truth:
        for opened in (scene, truth):
            assert (opened.count, opened.height, opened.width) == tuple(record["shape"]) == (BANDS, *SIZE)
            assert set(opened.dtypes) == {"int16"}
            assert opened.nodata == NODATA
            assert opened.crs == CRS.from_epsg(32632)
            assert opened.res == (4.0, 4.0)
            assert opened.scales[0] == 1e-4
        assert scene.transform == truth.transform
        for band in scene.indexes:
            assert scene.tags(band) == truth.tags(band)
            assert scene.tags(band, ns="IMAGERY") == truth.tags(band, ns="IMAGERY")


def test_wavelengths_are_there_in_both_conventions(made):
    record, _ = made
    with rasterio.open(record["scene"]) as scene:
        nm = np.array([float(scene.tags(b)["wavelength"]) for b in scene.indexes])
        um = np.array([float(scene.tags(b, ns="IMAGERY")["CENTRAL_WAVELENGTH_UM"]) for b in scene.indexes])
        width = np.array([float(scene.tags(b)["fwhm"]) for b in scene.indexes])
        good = np.array([scene.tags(b)["bbl"] for b in scene.indexes])
        assert scene.tags(1)["wavelength_units"] == "Nanometers"
        assert scene.descriptions[0] == "Band 1 (400.0 nm)"
    np.testing.assert_allclose(um * 1000, nm, atol=1e-3)
    assert (np.diff(nm) > 0).all()
    assert (nm[0], nm[-1]) == (400, 2450)
    assert (width > 0).all()
    assert [i + 1 for i in np.flatnonzero(good == "0")] == record["bad_bands"]
    assert len(record["bad_bands"]) == 2


def test_the_border_is_nodata_in_every_band_and_slanted(pixels):
    scene, truth = pixels
    outside = truth == NODATA
    assert (outside == outside[0]).all()
    assert ((scene == NODATA) == outside).all()
    assert 0.05 < outside[0].mean() < 0.3
    first = (~outside[0]).argmax(0)[8:-8]
    assert first[-1] > first[0]
    assert (np.diff(first) >= 0).all()


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(made, tmp_path):
    record, _ = made
    again = demo(tmp_path / "again", size=SIZE, bands=BANDS, seed=5)
    other = demo(tmp_path / "other", size=SIZE, bands=BANDS, seed=6)
    for name in ("scene", "truth"):
        with open(record[name], "rb") as a, open(again[name], "rb") as b, open(other[name], "rb") as c:
            first = a.read()
            assert first == b.read()
            assert first != c.read()
    assert json.loads(json.dumps(again))["sigma"] == record["sigma"]


def test_the_noise_is_what_the_record_says(made, pixels):
    record, _ = made
    scene, truth = (a.astype(float) / 1e4 for a in pixels)
    valid = truth[0] > -0.9
    special = set(record["bad_bands"]) | set(record["striped_bands"]) | {band for band, _ in record["dead_columns"]}
    for band in sorted(set(range(1, BANDS + 1)) - special):
        noise = (scene - truth)[band - 1][valid]
        spread = 1.4826 * np.median(np.abs(noise - np.median(noise)))  # blind to the few hits
        assert spread == pytest.approx(record["sigma"][band - 1], rel=0.2)
    for band in record["striped_bands"]:
        noise = np.where(valid, (scene - truth)[band - 1], np.nan)[:, 10:-10]
        assert np.nanmedian(noise, axis=0).std() > 0.5 * record["sigma"][band - 1]
    for band, column in record["dead_columns"]:
        assert (scene[band - 1][valid[:, column - 1], column - 1] == 0).all()


def test_bad_bands_hold_no_image(made, pixels):
    record, _ = made
    scene, truth = (a.astype(float) for a in pixels)
    valid = truth[0] > -9000
    for band in record["bad_bands"]:
        assert abs(np.corrcoef(scene[band - 1][valid], truth[band - 1][valid])[0, 1]) < 0.05


def test_no_two_bands_are_the_same_up_to_a_gain(pixels):
    _, truth = pixels
    valid = truth[0] != NODATA
    alike = np.corrcoef(truth[:, valid].astype(float))
    assert alike[~np.eye(BANDS, dtype=bool)].max() < 0.99999


def test_the_truth_looks_like_land(pixels):
    _, truth = pixels
    valid = truth[0] != NODATA
    inside = truth[:, valid] / 1e4
    assert inside.min() > 0
    assert inside.max() < 1
    red, infrared = inside[3], inside[6]  # 620 and 841 nm: on either side of the red edge
    assert (infrared > 1.5 * red).mean() > 0.3  # plants
    assert (inside[8] < 0.05).mean() > 0.01  # water and shade
    # neighbouring pixels are alike, and there are sharp edges all the same
    step = np.diff(np.where(valid, truth[8] / 1e4, np.nan), axis=1)
    assert np.nanmedian(np.abs(step)) < 0.5 * np.nanstd(inside[8])
    assert np.nanmax(np.abs(step)) > 2 * np.nanstd(inside[8])


def test_material_spectra_are_smooth_and_plausible():
    nm = np.arange(400.0, 2451.0)
    curves = dict(zip(scenery.MATERIALS, scenery.spectra(nm), strict=True))

    def at(name, wavelength):
        return curves[name][np.searchsorted(nm, wavelength)]

    for curve in curves.values():
        assert curve.min() > 0
        assert curve.max() < 1
        assert np.abs(np.diff(curve)).max() < 0.02  # per nm
    for plant in ("leaf", "grass", "conifer"):
        assert (at(plant, 800) - at(plant, 670)) / (at(plant, 800) + at(plant, 670)) > 0.6
        assert at(plant, 1450) < 0.7 * at(plant, 1650)
        assert at(plant, 550) > at(plant, 670)
    assert at("water", 860) < 0.02
    assert at("clay", 2205) < at("clay", 2130) - 0.02
    assert at("clay", 2205) < at("clay", 2270) - 0.02


def test_fractal_noise_is_standardised_and_steeper_slopes_are_smoother():
    rough, smooth = (scenery.fractal(np.random.default_rng(1), (64, 96), slope) for slope in (1.0, 3.0))
    for field in (rough, smooth):
        assert field.shape == (64, 96)
        assert abs(field.mean()) < 1e-5
        assert field.std() == pytest.approx(1, abs=1e-5)
    assert np.abs(np.diff(smooth)).mean() < 0.5 * np.abs(np.diff(rough)).mean()


def test_it_refuses_to_overwrite_and_says_how(made):
    _, folder = made
    with pytest.raises(OutputExistsError, match=r"scene\.tif: exists; pass --overwrite") as caught:
        demo(folder, size=SIZE, bands=BANDS)
    assert caught.value.exit_code == 2


def test_overwrite_replaces(tmp_path):
    (tmp_path / "scene.tif").write_bytes(b"old")
    demo(tmp_path, size=SIZE, bands=BANDS, overwrite=True)
    with rasterio.open(tmp_path / "scene.tif") as scene:
        assert scene.count == BANDS


@pytest.mark.parametrize(("size", "bands"), [((40, 300), 30), ((200, 200), 5)])
def test_too_small_is_a_usage_error(tmp_path, size, bands):
    with pytest.raises(UsageError, match="too small"):
        demo(tmp_path / "new", size=size, bands=bands)
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot write the demo scene") as caught:
        demo(tmp_path / "file" / "sub", size=SIZE, bands=BANDS)
    assert "\n" not in str(caught.value)


def test_odd_sizes_work(tmp_path):
    assert demo(tmp_path, size=(97, 101), bands=BANDS)["shape"] == [BANDS, 97, 101]
