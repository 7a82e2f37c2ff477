"""`run` on whole files: what must be the same afterwards, what may change, and that tiles leave no trace."""

from __future__ import annotations

import json
import logging
import warnings

import numpy as np
import pytest
import rasterio
import spectral
import tiny
import torch
from rasterio.errors import NotGeoreferencedWarning

from hsidenoise import metrics
from hsidenoise import run as verb
from hsidenoise.engine import Engine
from hsidenoise.errors import SceneTooLargeError, UsageError, WeightsError
from hsidenoise.model.weights import Card
from hsidenoise.settings import RunOptions

DTYPES = ["uint8", "int8", "uint16", "int16", "int32", "uint32", "float32", "float64"]


pytestmark = pytest.mark.usefixtures("trusting")


@pytest.fixture
def run(weights, tmp_path):
    """Run with the tiny network; gives the output's pixels and the record."""

    def go(scene, name="out.tif", **options):
        record = verb.run(scene, tmp_path / name, quiet=True, **({"model": weights} | options))
        return tiny.pixels(tmp_path / name), record

    return go


def digital(dtype, bands=12, rows=36, cols=44):
    """A scene in this type that uses a good part of it, and stays off its limits."""
    base = tiny.cube(bands, rows, cols)
    if np.dtype(dtype).kind == "f":
        return base.astype(dtype)
    top = {"uint8": 200, "int8": 100}.get(dtype, 10_000)
    return (base * top).round().astype(dtype)


def same_bits(a, b):
    return a.dtype == b.dtype and a.tobytes() == b.tobytes()


# ---- what survives


def test_a_geotiff_comes_back_with_everything_but_its_noise(run, tmp_path):
    pixels = digital("int16", 40)
    pixels[7] = 1234
    pixels[:, :5] = -9999
    scene = tiny.geotiff(tmp_path / "scene.tif", pixels, nodata=-9999, bad=(3, 20), compress="deflate")
    out, record = run(scene)
    with rasterio.open(scene) as a, rasterio.open(tmp_path / "out.tif") as b:
        for what in ("dtypes", "crs", "transform", "nodata", "descriptions", "shape", "count", "compression"):
            assert getattr(a, what) == getattr(b, what), what
        assert a.tags().items() <= b.tags().items()
        for i in a.indexes:
            assert a.tags(i).items() <= b.tags(i).items()
        provenance = b.tags(ns="HSIDENOISE")
    assert provenance["source"] == "scene.tif"
    assert provenance["bands"] == "37 of 40 denoised"
    denoised = record["bands_denoised"]
    assert set(range(40)) - set(denoised) == {3, 7, 20}
    assert record["bands_passed"] == {"3": "flagged bad", "20": "flagged bad", "7": "constant"}
    assert same_bits(out[[3, 7, 20]], pixels[[3, 7, 20]])
    assert (out[:, :5] == -9999).all()
    assert (out[:, 5:] != -9999).all()
    truth = tiny.clean(40)[denoised, 5:] * 10_000
    assert np.std(out[denoised, 5:] - truth) < 0.8 * np.std(pixels[denoised, 5:] - truth)


@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip"])
def test_an_envi_file_comes_back_as_it_was(run, tmp_path, interleave):
    pixels = digital("int16", 40)
    pixels[:, :, :4] = -50
    scene = tiny.envi(tmp_path / "scene.img", pixels, interleave, bad=(0, 39), nodata=-50)
    out, record = run(scene, "out.img")
    a, b = (spectral.envi.open(tmp_path / f"{name}.hdr") for name in ("scene", "out"))
    np.testing.assert_array_equal(np.moveaxis(np.asarray(b.open_memmap(interleave="bsq")), 0, 0), out)
    changed = {k for k in a.metadata.keys() | b.metadata.keys() if a.metadata.get(k) != b.metadata.get(k)}
    assert changed == {"hsidenoise"}
    with rasterio.open(scene) as x, rasterio.open(tmp_path / "out.img") as y:
        assert (x.crs, x.transform, x.nodata, x.dtypes) == (y.crs, y.transform, y.nodata, y.dtypes)
    assert same_bits(out[[0, 39]], pixels[[0, 39]])
    assert (out[:, :, :4] == -50).all()
    assert (out[1:39, :, 4:] != pixels[1:39, :, 4:]).mean() > 0.5
    assert sorted(record["bands_passed"]) == ["0", "39"]
    assert {p.name for p in tmp_path.iterdir()} == {"scene.img", "scene.hdr", "out.img", "out.hdr"}


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_data_type_stays_and_none_wraps(run, tmp_path, dtype):
    pixels = digital(dtype)
    if np.dtype(dtype).kind in "iu":  # a bright and a dark corner at the very limits of the type
        info = np.iinfo(dtype)
        low, high = (info.min, info.max) if info.bits == 8 else (0, 12_000)
        pixels[:, :12, :12], pixels[:, -12:, -12:] = high, low
    out, record = run(tiny.geotiff(tmp_path / "scene.tif", pixels))
    assert out.dtype == dtype
    assert len(record["bands_denoised"]) == 12
    assert (out != pixels).mean() > 0.3
    moved = np.abs(out.astype(np.float64) - pixels.astype(np.float64))
    assert moved.max() < 0.5 * np.ptp(pixels.astype(np.float64))


@pytest.mark.parametrize("bands", [1, 2, 4])
@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (1, 40), (40, 1), (2, 3), (33, 20)])
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_scenes_of_any_size(run, tmp_path, bands, rows, cols):
    pixels = tiny.cube(bands, 40, 40)[:, :rows, :cols].astype(np.float32)
    out, record = run(tiny.geotiff(tmp_path / "scene.tif", pixels))
    assert out.shape == pixels.shape
    assert np.isfinite(out).all()
    few = "too few pixels to estimate its noise"  # four differences of neighbours tell no sigma, a column none
    why = {(1, 1): "constant", (40, 1): few, (2, 3): few}.get((rows, cols))
    if why:
        assert set(record["bands_passed"].values()) == {why}
        assert same_bits(out, pixels)
    else:
        assert record["bands_denoised"] == list(range(bands))
        assert not same_bits(out, pixels)


def test_bands_not_selected_are_untouched(run, tmp_path):
    pixels = digital("uint16", 12)
    scene = tiny.geotiff(tmp_path / "scene.tif", pixels)
    out, record = run(scene, bidx="2,5..7")
    assert record["bands_denoised"] == [1, 4, 5, 6]
    assert set(record["bands_passed"].values()) == {"not selected"}
    rest = [0, 2, 3, 7, 8, 9, 10, 11]
    assert same_bits(out[rest], pixels[rest])
    everything, _ = run(scene, "all.tif")
    np.testing.assert_array_equal(out[[1, 4, 5, 6]], everything[[1, 4, 5, 6]])  # the others guide all the same


# ---- invalid samples


def hole(shape):
    """A scattering of lost pixels, a lost corner, and one band that lost more than the others."""
    rng = np.random.default_rng(5)
    invalid = np.broadcast_to(rng.random(shape[1:]) < 0.05, shape).copy()
    invalid[:, :10, :14] = True
    invalid[2, 20:30] = True
    return invalid


def test_what_invalid_pixels_hold_changes_no_valid_output(run, tmp_path):
    base = tiny.cube(12).astype(np.float32)
    invalid = hole(base.shape)
    payload = np.array([0x7FC01234], np.uint32).view(np.float32)[0]
    outputs = []
    for name, value, nodata in (("a", np.nan, None), ("b", -9999, -9999), ("c", 1e30, 1e30), ("d", payload, np.nan),
                                ("e", np.inf, None), ("f", 0.5, 0.5)):  # fmt: skip
        pixels = base.copy()
        pixels[invalid] = value
        scene = tiny.geotiff(tmp_path / f"{name}.tif", pixels, nodata=nodata)
        out, record = run(scene, f"{name}_out.tif")
        assert same_bits(out[invalid], pixels[invalid]), name
        assert record["samples_passed"] == 0
        outputs.append(out[~invalid])
    for other in outputs[1:]:
        assert same_bits(other, outputs[0])
    assert np.isfinite(outputs[0]).all()


def test_masked_pixels_do_not_bleed_either(run, tmp_path):
    base = digital("uint8", 3)
    invalid = hole(base.shape).all(0)
    outputs = []
    for name, value in (("a", 0), ("b", 255)):
        pixels = np.where(invalid, value, base).astype(np.uint8)
        scene = tiny.geotiff(tmp_path / f"{name}.tif", pixels)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(scene, "r+") as file:
            file.write_mask(~invalid)
        out, _ = run(scene, f"{name}_out.tif")
        assert (out[:, invalid] == value).all()
        with rasterio.open(tmp_path / f"{name}_out.tif") as file:
            np.testing.assert_array_equal(file.dataset_mask() > 0, ~invalid)
        outputs.append(out[:, ~invalid])
    assert same_bits(*outputs)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_no_measurement_becomes_nodata(run, tmp_path, dtype):
    pixels = digital(dtype, 6)
    # In the middle of the values, so that denoised samples would land on it by the dozen.
    nodata = np.sort(pixels, axis=None)[pixels.size // 2].item()
    out, _ = run(tiny.geotiff(tmp_path / "scene.tif", pixels, nodata=nodata))
    was = pixels == np.array(nodata, dtype)
    assert was.any()
    np.testing.assert_array_equal(out == np.array(nodata, dtype), was)


def test_an_edge_of_the_data_leaves_no_halo(run, tmp_path):
    """Beside lost pixels the output is about as good as elsewhere, whatever number stands for them."""
    truth = tiny.clean(12)
    pixels = tiny.cube(12).astype(np.float32)
    pixels[:, :, :20] = -9999
    out, _ = run(tiny.geotiff(tmp_path / "scene.tif", pixels, nodata=-9999))
    error = np.sqrt(((out - truth)[:, :, 20:] ** 2).mean((0, 1)))
    assert error[:4].max() < 2 * np.median(error)


@pytest.mark.parametrize("nodata", [-9999, None])
def test_a_scene_without_anything_to_denoise_is_copied(run, tmp_path, nodata):
    pixels = np.full((3, 20, 30), -9999, np.int16)
    out, record = run(tiny.geotiff(tmp_path / "scene.tif", pixels, nodata=nodata))
    assert same_bits(out, pixels)
    assert record["bands_denoised"] == []
    assert set(record["bands_passed"].values()) == {"no valid pixel" if nodata else "constant"}


def test_three_pixels_that_tell_nothing_of_each_other(tmp_path):
    """Their only eigen-image is nothing once it is denoised, so that none can be learned from it again."""
    pixels = np.array([[[0, 10**10], [10**10 + 1, 1]]], np.uint64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        scene = tiny.geotiff(tmp_path / "scene.tif", pixels, nodata=0)
    verb.run(scene, tmp_path / "out.tif", model="dct", quiet=True)
    out = tiny.pixels(tmp_path / "out.tif")
    assert out[0, 0, 0] == 0
    assert out.dtype == np.uint64


def test_a_band_of_scattered_pixels_passes_and_harms_no_other(run, tmp_path):
    pixels = tiny.cube(6).astype(np.float32)
    alone, _ = run(tiny.geotiff(tmp_path / "scene.tif", pixels), "whole.tif")
    pixels[3] = np.nan
    pixels[3, ::4, ::4] = 0.4 + 0.01 * np.arange(11)
    out, record = run(tiny.geotiff(tmp_path / "scene2.tif", pixels))
    assert record["bands_passed"] == {"3": "too few pixels to estimate its noise"}
    others = [0, 1, 2, 4, 5]
    assert np.std(out[others] - alone[others]) < 0.02


@pytest.mark.parametrize("value", [60.0, -1e6, 1e20, -3.4e38])
def test_a_broken_pixel_passes_through_and_spoils_nothing(run, tmp_path, value):
    pixels = tiny.cube(6).astype(np.float32)
    expected, _ = run(tiny.geotiff(tmp_path / "scene.tif", pixels), "expected.tif")
    pixels[2, 20, 20] = value
    out, record = run(tiny.geotiff(tmp_path / "broken.tif", pixels))
    assert out[2, 20, 20] == np.float32(value)
    assert record["samples_passed"] == 1
    out[2, 20, 20] = expected[2, 20, 20]
    assert np.abs(out - expected).max() < 0.02


def test_a_fill_value_nobody_declared_does_not_bleed(run, tmp_path):
    base = tiny.cube(6).astype(np.float32)
    outputs = []
    for name, nodata in (("declared", -9999), ("undeclared", None)):
        pixels = base.copy()
        pixels[:, :13] = -9999
        out, record = run(tiny.geotiff(tmp_path / f"{name}.tif", pixels, nodata=nodata), f"{name}_out.tif")
        outputs.append(out)
    assert record["samples_passed"] == 6 * 13 * 44
    np.testing.assert_allclose(*outputs, atol=1e-3)


@pytest.mark.parametrize("nodata", [-1.7976931348623157e308, -9999.0])
def test_float64_beyond_float32_is_no_trouble(run, tmp_path, nodata):
    pixels = tiny.cube(4)
    pixels[:, :6] = nodata
    out, _ = run(tiny.geotiff(tmp_path / "scene.tif", pixels, nodata=nodata))
    assert same_bits(out[:, :6], pixels[:, :6])
    assert np.abs(out[:, 6:]).max() < 2


# ---- bands with little noise


def test_a_band_below_the_floor_is_left_alone_and_still_guides(tmp_path):
    careful = tiny.weights(tmp_path / "careful.safetensors", floor=0.01)
    always = tiny.weights(tmp_path / "always.safetensors", floor=0.0)
    pixels = tiny.cube(31, sigma=0.05).astype(np.float32)
    quiet = [4, 5, 11]
    pixels[quiet] = (tiny.clean(31) + 0.002 * np.random.default_rng(9).standard_normal(pixels.shape))[quiet]
    scene = tiny.geotiff(tmp_path / "scene.tif", pixels)
    record = verb.run(scene, tmp_path / "out.tif", model=str(careful), quiet=True)
    out = tiny.pixels(tmp_path / "out.tif")
    assert sorted(map(int, record["bands_passed"])) == quiet
    assert all("below the model's floor of 0.01" in why for why in record["bands_passed"].values())
    assert same_bits(out[quiet], pixels[quiet])
    verb.run(scene, tmp_path / "all.tif", model=str(always), quiet=True)
    rest = [b for b in range(31) if b not in quiet]
    assert same_bits(out[rest], tiny.pixels(tmp_path / "all.tif")[rest])


def test_bands_the_network_would_harm_are_left_alone(run, tmp_path, monkeypatch):
    monkeypatch.setattr("hsidenoise.probe.HARMFUL", 1.5)
    harmful = tiny.weights(tmp_path / "harmful.safetensors", tiny.contracting())
    pixels = tiny.cube(8, 40, 44).astype(np.float32)
    scene = tiny.geotiff(tmp_path / "scene.tif", pixels)
    out, record = run(scene, model=str(harmful))
    assert record["bands_denoised"] == []
    assert all("times the energy of its noise" in why for why in record["bands_passed"].values())
    assert same_bits(out, pixels)


# ---- options


def test_the_residual_is_what_was_removed(run, tmp_path):
    pixels = digital("int16", 8)
    pixels[:, 30:34] = -9999
    pixels[5] = 7
    scene = tiny.geotiff(tmp_path / "scene.tif", pixels, nodata=-9999)
    out, _ = run(scene, residual=tmp_path / "removed.tif")
    with rasterio.open(tmp_path / "removed.tif") as file:
        removed = file.read()
        assert file.dtypes[0] == "float32"
        assert np.isnan(file.nodata)
        assert file.transform == tiny.TRANSFORM
        assert file.tags(1)["wavelength"] == "400"
    np.testing.assert_array_equal(np.isnan(removed), pixels == -9999)
    keep = pixels != -9999
    np.testing.assert_array_equal(removed[keep], pixels[keep].astype(np.float64) - out[keep])
    assert (removed[5][keep[5]] == 0).all()


def test_the_residual_of_large_integers_is_exact(run, tmp_path):
    pixels = (tiny.cube(4) * 1000 + 2**25).astype(np.int32)
    out, _ = run(tiny.geotiff(tmp_path / "scene.tif", pixels), residual=tmp_path / "removed.tif")
    np.testing.assert_array_equal(tiny.pixels(tmp_path / "removed.tif"), pixels - out)


@pytest.mark.parametrize(("dtype", "scale"), [("int16", 10_000), ("uint8", 250), ("float32", 1), ("float64", 1)])
def test_another_type_is_rounded_and_clipped(run, tmp_path, dtype, scale):
    pixels = (tiny.cube(6) * scale).astype(np.float32)
    pixels[2] *= 40_000  # does not fit into integers, and is flagged bad
    pixels[:, :3] = np.nan
    nodata = "nan" if dtype.startswith("f") else "0"
    scene = tiny.geotiff(tmp_path / "scene.tif", pixels, bad=(2,))
    kept, _ = run(scene, "kept.tif")
    out, _ = run(scene, dtype=dtype, nodata=nodata)
    assert out.dtype == dtype
    if dtype.startswith("f"):
        np.testing.assert_array_equal(out, kept)
        return
    top = np.iinfo(dtype).max
    assert (out[:, :3] == 0).all()
    assert (out[2, 3:][pixels[2, 3:] > top] == top).all()
    rest = [0, 1, 3, 4, 5]
    np.testing.assert_allclose(out[rest, 3:], kept[rest, 3:].clip(1, top), atol=0.51)


def test_integers_for_what_is_no_number_need_a_nodata_value(run, tmp_path):
    pixels = tiny.cube(3).astype(np.float32)
    pixels[0, 0, 0] = np.nan
    with pytest.raises(UsageError, match="--nodata"):
        run(tiny.geotiff(tmp_path / "scene.tif", pixels), dtype="int16")
    assert not (tmp_path / "out.tif").exists()


def test_nodata_can_be_given_and_taken_away(run, tmp_path):
    pixels = digital("int16", 5)
    pixels[:, :8] = 77
    scene = tiny.geotiff(tmp_path / "scene.tif", pixels)
    out, _ = run(scene, nodata="77")
    assert (out[:, :8] == 77).all()
    assert (out[:, 8:] != 77).all()
    with rasterio.open(tmp_path / "out.tif") as file:
        assert file.nodata == 77
    declared = tiny.geotiff(tmp_path / "declared.tif", pixels, nodata=77)
    out, _ = run(declared, "none.tif", nodata="null")
    with rasterio.open(tmp_path / "none.tif") as file:
        assert file.nodata is None
    assert (out[:, :8] != 77).any()


@pytest.mark.filterwarnings("ignore:.*ENVI headers hold no TIFF tags:hsidenoise.errors.MetadataWarning")
def test_format_and_creation_options(run, tmp_path):
    pixels = digital("uint16", 5)
    scene = tiny.geotiff(tmp_path / "scene.tif", pixels)
    expected, _ = run(scene)
    for name, options in (("a.tif", {"co": ("COMPRESS=LZW", "BLOCKYSIZE=16")}), ("b.tif", {"of": "COG"}),
                          ("c.bip", {}), ("d.anything", {"of": "ENVI", "co": ("INTERLEAVE=BSQ",)})):  # fmt: skip
        out, _ = run(scene, name, **options)
        np.testing.assert_array_equal(out, expected)
    with rasterio.open(tmp_path / "a.tif") as a, rasterio.open(tmp_path / "b.tif") as b:
        assert a.compression.name == "lzw"
        assert a.block_shapes[0][0] == 16
        assert b.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert b.tags(1)["wavelength"] == "400"
    c = spectral.envi.open(tmp_path / "c.hdr")
    assert c.metadata["interleave"] == "bip"
    assert [float(w) for w in c.metadata["wavelength"]] == tiny.wavelengths(5)


def test_a_dry_run_plans_and_touches_nothing(weights, tmp_path):
    scene = tiny.geotiff(tmp_path / "scene.tif", digital("int16", 40, 60, 110), bad=(1,))
    before = sorted(tmp_path.iterdir())
    record = verb.run(scene, tmp_path / "out.tif", model=weights, tile=80, dry_run=True, quiet=True)
    assert sorted(tmp_path.iterdir()) == before
    plan = record["plan"]
    assert plan["output"]["dtype"] == "int16"
    assert plan["tiles"] > 1
    assert plan["network_runs"] == plan["tiles"] * plan["band_windows"]
    real = verb.run(scene, tmp_path / "out.tif", model=weights, tile=80, quiet=True)
    assert len(real["tiles"]) == plan["tiles"]
    assert real["bands_denoised"] == record["bands_denoised"]


def test_bad_bands_do_not_enter_what_is_measured_against_a_reference(run, tmp_path):
    noisy, clean = digital("int16", 12), (tiny.clean(12) * 10_000).astype(np.int16)
    noisy[5] = np.random.default_rng(0).integers(0, 30_000, noisy[5].shape)  # no measurement, and told so
    truth = tiny.geotiff(tmp_path / "truth.tif", clean)
    _, record = run(tiny.geotiff(tmp_path / "scene.tif", noisy, bad=(5,)), reference=truth)
    good = np.arange(12) != 5
    x = clean[good].astype(float)
    quality = record["measured"]["quality"]["before"]
    span = quality_range(record)
    assert quality["sam"] == pytest.approx(metrics.sam(x, noisy[good].astype(float)), rel=1e-5)
    assert quality["ergas"] == pytest.approx(metrics.ergas(x, noisy[good].astype(float)), rel=1e-5)
    assert quality["psnr"] == pytest.approx(metrics.psnr(x, noisy[good].astype(float), span), rel=1e-5)
    assert quality["ssim"] > 0.2


def quality_range(record):
    quality = record["measured"]["quality"]
    return quality["white"] - quality["black"]


def test_reference_and_report(run, tmp_path):
    scene = tiny.geotiff(tmp_path / "scene.tif", digital("int16", 12))
    truth = tiny.geotiff(tmp_path / "truth.tif", (tiny.clean(12) * 10_000).astype(np.int16))
    _, record = run(scene, reference=truth, report=tmp_path / "report.html")
    quality = record["measured"]["quality"]
    assert quality["after"]["psnr"] > quality["before"]["psnr"] + 1
    assert (tmp_path / "report.html").read_text(encoding="utf-8").lower().startswith("<!doctype html>")
    numbers = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert numbers["quality"]["after"]["psnr"] == quality["after"]["psnr"]
    assert all(check["ok"] for check in numbers["checks"])


def test_a_reference_of_another_size_is_refused(run, tmp_path):
    scene = tiny.geotiff(tmp_path / "scene.tif", digital("int16", 5))
    other = tiny.geotiff(tmp_path / "other.tif", digital("int16", 4))
    with pytest.raises(UsageError, match="same grid"):
        run(scene, reference=other)


def test_shifts_average_and_cost(run, tmp_path):
    pixels = tiny.cube(8).astype(np.float32)
    scene = tiny.geotiff(tmp_path / "scene.tif", pixels)
    one, _ = run(scene)
    four, _ = run(scene, "four.tif", shifts=4)
    truth = tiny.clean(8)
    assert np.std(four - truth) < np.std(one - truth)


def test_options_come_as_a_dataclass_or_one_by_one(run, weights, tmp_path):
    scene = tiny.geotiff(tmp_path / "scene.tif", digital("int16", 5))
    a, _ = run(scene, bidx="1..2")
    record = verb.run(scene, tmp_path / "b.tif", RunOptions(model=weights, bidx="1..2"), quiet=True)
    np.testing.assert_array_equal(a, tiny.pixels(tmp_path / "b.tif"))
    assert record["options"]["bidx"] == "1..2"


def test_the_same_bytes_every_time(run, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    tif = tiny.geotiff(tmp_path / "scene.tif", digital("int16", 6, 90, 100), compress="deflate")
    envi = tiny.envi(tmp_path / "scene2.img", digital("float32", 8), "bil")
    for scene, names in ((tif, ("a.tif", "b.tif")), (envi, ("a.img", "b.img"))):
        for name in names:
            run(scene, name, tile=80)
        first, second = ((tmp_path / name).read_bytes() for name in names)
        assert first == second
    assert (tmp_path / "a.hdr").read_bytes() == (tmp_path / "b.hdr").read_bytes()
    with rasterio.open(tmp_path / "a.tif") as file:
        assert file.tags(ns="HSIDENOISE")["date"] == "2023-11-14T22:13:20Z"


# ---- tiles


@pytest.mark.parametrize("shape", [(3, 220, 60), (3, 60, 220)])
def test_a_network_that_sees_no_further_than_the_halo_leaves_no_trace_of_tiles(run, tmp_path, shape):
    """Two evaluations reach 16 code cells: with a halo of 64 pixels the tiles are the whole, to float32's last bits."""
    near = tiny.weights(tmp_path / "near.safetensors", evaluations=2, halo=64)
    pixels = tiny.cube(*shape).astype(np.float32)
    pixels[:, 20:40, 25:50] = np.nan
    scene = tiny.geotiff(tmp_path / "scene.tif", pixels)
    whole, record = run(scene, "whole.tif", model=str(near), tile=256)
    assert len(record["tiles"]) == 1
    tiled, record = run(scene, "tiled.tif", model=str(near), tile=176)
    assert len(record["tiles"]) >= 2
    np.testing.assert_allclose(tiled, whole, atol=1e-6, equal_nan=True)


def test_tiles_of_a_network_that_sees_everything_agree_to_its_tolerance(run, tmp_path):
    exact = tiny.weights(tmp_path / "exact.safetensors", tiny.contracting())
    pixels = tiny.cube(3, 80, 96).astype(np.float32)
    scene = tiny.geotiff(tmp_path / "scene.tif", pixels)
    whole, _ = run(scene, "whole.tif", model=str(exact), tile=128)
    tiled, record = run(scene, "tiled.tif", model=str(exact), tile=80)
    assert len(record["tiles"]) > 1
    difference = np.abs(tiled - whole)
    assert difference.max() < 1e-3 * np.abs(whole - pixels).max()
    # A seam would show as a jump between neighbouring rows or columns of the difference.
    jump = np.abs(np.diff(tiled - whole, axis=2)).max((0, 1))
    assert jump.max() < 5e-5


def test_every_tile_size_gives_the_same_scene(run, tmp_path):
    scene = tiny.geotiff(tmp_path / "scene.tif", tiny.cube(3, 110, 100).astype(np.float32))
    whole, _ = run(scene, "whole.tif", tile=200)
    for tile in (80, 96):
        tiled, record = run(scene, f"{tile}.tif", tile=tile)
        assert len(record["tiles"]) > 1
        assert np.abs(tiled - whole).max() < 0.003  # a tenth of the noise, after three evaluations of a solver


def test_windows_of_bands_leave_no_trace(run, tmp_path):
    """Where one window of bands ends and the next begins, the bands are as good as elsewhere."""
    pixels = tiny.cube(75, 40, 44).astype(np.float32)
    out, record = run(tiny.geotiff(tmp_path / "scene.tif", pixels))
    assert len(record["normalisation"]["windows"]) >= 3
    error = np.sqrt(((out - tiny.clean(75, 40, 44)) ** 2).mean((1, 2)))
    assert error[2:-2].max() < 2 * np.median(error)


class Starved:
    """A network that runs out of memory on anything longer than `most` pixels."""

    def __init__(self, model, most):
        self.model, self.most, self.failures = model, most, 0
        self.stride, self.period = model.stride, model.period

    def to(self, device):
        return self

    def __call__(self, y, *rest, **options):
        if max(y.shape[2:]) > self.most:
            self.failures += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return self.model(y, *rest, **options)


def test_out_of_memory_halves_the_tile_and_gives_the_same():
    model = tiny.network(evaluations=2).eval().requires_grad_(False)
    card = Card("near", "compact", {}, halo=64)
    values = tiny.cube(31, 360, 24).astype(np.float32)
    sigma = np.full(31, 0.03, np.float32)
    whole, _ = Engine(model, card, torch.device("cpu"), 1).patch(values, sigma)
    starved = Starved(model, 200)
    halved, record = Engine(starved, card, torch.device("cpu"), 1).patch(values, sigma)
    assert starved.failures == 1
    assert record["iterations"] == 2
    np.testing.assert_allclose(halved, whole, atol=1e-6)


def test_out_of_memory_with_the_smallest_tile_says_so():
    model = tiny.network()
    engine = Engine(Starved(model, 8), Card("tiny", "compact", {}, halo=16), torch.device("cpu"), 1)
    with pytest.raises(SceneTooLargeError, match="out of memory on cpu"):
        engine.patch(np.zeros((31, 60, 60), np.float32), np.ones(31, np.float32))


def test_weights_that_give_no_numbers_are_found_out(run, tmp_path):
    model = tiny.network()
    with torch.no_grad():
        model.local["synthesis"].fill_(float("nan"))
    damaged = tiny.weights(tmp_path / "nan.safetensors", model)
    scene = tiny.geotiff(tmp_path / "scene.tif", digital("int16", 3))
    with pytest.raises(WeightsError, match="no number"):
        run(scene, model=str(damaged))
    assert not (tmp_path / "out.tif").exists()


# ---- real files


@pytest.mark.parametrize(
    "name",
    [
        "envi/emit20250324t221005_jpl_unmix_ex", "envi/corn-kernel-hyperspectral.hdr",
        "envi/AV320250308t200738_rdn.img", "envi/fenix_Radiometric_8x2_1x1.dat",
        "geotiff/enmap_potsdam_tile_64_0.tif", "geotiff/Sentinel_2_sub_area1.tif", "geotiff/LC80420082013220LGN00.TIF",
        "geotiff/byte_gcp.tif", "geotiff/byte_rpc.tif", "geotiff/rio_rotated.tif", "geotiff/int8_rgb.tif",
        "geotiff/uint16.tif", "geotiff/float64.tif", "geotiff/test3_with_mask_8bit.tif", "geotiff/rio_all-nodata.tif",
        "geotiff/int64_full_range.tif", "jp2/int16_lossless.jp2",
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::hsidenoise.errors.MetadataWarning")
def test_real_files(shared, run, tmp_path, name, caplog):
    scene = shared / "files" / "good" / name
    caplog.set_level(logging.ERROR, "rasterio")
    data = scene.with_suffix(".raw") if scene.suffix == ".hdr" else scene
    is_envi = name.startswith("envi")
    out, record = run(scene, "out.img" if is_envi else "out.tif")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(data) as a, rasterio.open(tmp_path / ("out.img" if is_envi else "out.tif")) as b:
            pixels = a.read()
            masks = a.read_masks() > 0
            for what in ("dtypes", "crs", "transform", "nodata", "shape"):
                assert str(getattr(a, what)) == str(getattr(b, what)), what
            assert [p.asdict() for p in a.gcps[0]] == [p.asdict() for p in b.gcps[0]]
            assert (a.rpcs and a.rpcs.to_gdal()) == (b.rpcs and b.rpcs.to_gdal())
            np.testing.assert_array_equal(b.read_masks() > 0, masks)
    passed = [int(band) for band in record["bands_passed"]]
    assert same_bits(out[passed], pixels[passed])
    assert same_bits(out[~masks], pixels[~masks])
    if is_envi:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of upper-case keys, which stay as they were
            reader = spectral.envi.open(tmp_path / "out.hdr", tmp_path / "out.img")
        np.testing.assert_array_equal(np.asarray(reader.open_memmap(interleave="bsq")), out)


@pytest.mark.parametrize("name", ["shrinkage", "dct", "compact", "decsc"])
def test_two_tiles_cover_512_pixels(name):
    import torch

    from hsidenoise import engine as engines
    from hsidenoise.model.weights import find, load
    from hsidenoise.tiles import plan

    model, card = load(find(name))
    engine = engines.Engine(model, card, torch.device("cpu"), 1)

    class Shape:
        shape = (31, 512, 512)

    size = engines.automatic_tile(Shape, engine)
    assert len(plan(512, 512, size, halo=card.halo, feather=engines.FEATHER, align=engine.align)) == 4
    assert size < 360


def test_the_automatic_tile_wastes_little_and_fits_the_memory(tmp_path, monkeypatch):
    import torch

    from hsidenoise import engine as engines
    from hsidenoise.model.weights import Card

    network = tiny.network()
    card = Card("x", "compact", {}, halo=12)
    engine = engines.Engine(network, card, torch.device("cpu"), 1)

    class Shape:
        shape = (242, 3400, 256)

    assert engines.automatic_tile(Shape, engine) == 288  # the width in one go: no overlap across
    monkeypatch.setattr(engines, "free_memory", lambda device: 60 * 2**20)
    small = engines.automatic_tile(Shape, engine)
    assert engine.smallest <= small < 200
