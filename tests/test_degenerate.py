"""Scenes at the edge of what a scene can be: a sensible result, or bands left as they were with a reason in one line.

What can be judged is judged by the truth: a denoised band is nearer to it than before. Warnings are errors here.
"""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
import tiny
from degenerate import SCENES, SIGMA, Scene
from numpy.typing import NDArray
from typer.testing import CliRunner

from hsidenoise import defects
from hsidenoise.cli import app
from hsidenoise.cube import Cube
from hsidenoise.device import pick
from hsidenoise.engine import Engine
from hsidenoise.job import Job, prepare
from hsidenoise.model.weights import find, load
from hsidenoise.rows import output_rows

CONSTANT, FEW, EMPTY = "constant", "too few pixels to estimate its noise", "no valid pixel"
#: Why all bands of a scene are left alone, where they are.
LEFT = {
    "constant": CONSTANT,
    "zero": CONSTANT,
    "all_nodata": EMPTY,
    "all_nan": EMPTY,
    "all_inf": EMPTY,
    "one_pixel": CONSTANT,
    "one_band_one_pixel": CONSTANT,
    "one_valid": CONSTANT,
    "one_column": FEW,
    "two_by_two": FEW,
    "three_by_three": FEW,
    "checkerboard": FEW,
    "float64_1e300": EMPTY,  # beyond float32
}
#: Bands that differ from the others, by scene: without noise, or with noise that nothing can tell from image.
SPECIAL = {
    "half_dead": [12],
    "half_zero": [12],
    "half_saturated": [12],
    "everything": [12],
    "nearly_constant": [4, 9, 14, 19, 24],
    "copy": [20, 21],
    "streaks": [17],
}
#: What is left of the noise where that is more than a third: few pixels, few bands, or stripes.
HARD = {"one_row": 0.6, "two_rows": 0.5, "below_a_patch": 0.7, "striped": 0.6, "1000_bands": 0.5}


@pytest.fixture(scope="module")
def engines(weights: str) -> dict[str, Engine]:
    return {name: Engine(*load(find(file)), pick("cpu"), 1) for name, file in (("dct", "dct"), ("windows", weights))}


def denoised(scene: Scene, engine: Engine) -> tuple[NDArray[Any], NDArray[np.bool_], Job]:
    """The output, which samples are measurements, and what was decided."""
    cube = Cube.of(scene.pixels, scene.nodata)
    job = prepare(cube, set(range(len(scene.pixels))), engine, 0)
    parts = list(output_rows(cube, job, engine, cube.dtype, []))
    return np.concatenate([p.block for p in parts], 1), np.concatenate([p.valid for p in parts], 1), job


def errors(pixels: NDArray[Any], scene: Scene) -> NDArray[np.float64]:
    """Root mean square distance of each band to the truth, of what can be judged and in units of the largest value."""
    scale = float(np.abs(scene.truth).max()) or 1.0
    measured = np.where(scene.judged, pixels, 0).astype(np.float64) / scale
    off = measured - np.where(scene.judged, scene.truth, 0) / scale
    return np.sqrt(np.square(off).sum((1, 2)) / np.maximum(scene.judged.sum((1, 2)), 1))


@pytest.mark.parametrize("model", ["dct", "windows"])
@pytest.mark.parametrize("name", SCENES)
def test_result_is_sensible(name, model, engines, trusting):
    scene = SCENES[name]()
    before = scene.pixels.copy()
    out, valid, job = denoised(scene, engines[model])
    assert scene.pixels.tobytes() == before.tobytes()
    assert (out.dtype, out.shape) == (before.dtype, before.shape)
    assert out[~valid].tobytes() == before[~valid].tobytes()
    assert out[list(job.passed)].tobytes() == before[list(job.passed)].tobytes()
    assert np.isfinite(out[valid]).all()
    if name in LEFT:
        assert set(job.passed.values()) == {LEFT[name]}
        return
    assert set(job.passed.values()) <= {CONSTANT}
    if model == "windows":  # untrained: it is no denoiser
        return
    usual = [b for b in job.denoised if b not in SPECIAL.get(name, ())]
    left, was = errors(out, scene)[usual], errors(before, scene)[usual]
    if name == "noise_free":
        assert left.max() < 1e-6
    else:
        assert (left / was).max() < HARD.get(name, 0.35)


@pytest.mark.parametrize("name", ["half_dead", "half_zero", "half_saturated"])
def test_dead_half_stays_flat_and_the_other_is_denoised(name, engines):
    scene = SCENES[name]()
    out, _, _ = denoised(scene, engines["dct"])
    off = np.abs(out[12] - scene.truth[12])
    assert off[:, :14].max() < 0.1 * SIGMA  # a patch and more away from the edge
    assert off[:, :22].max() < SIGMA
    assert np.sqrt(np.square(off[:, 22:]).mean()) < 0.4 * SIGMA


@pytest.mark.parametrize("rows", [slice(None), slice(0, 50)])
def test_half_dead_band_is_not_striped(rows):
    """The dead half differs from what other bands predict, in the upper and in the lower half of the scene alike."""
    rng = np.random.default_rng(3)
    spectra, maps = rng.random((30, 8)), rng.standard_normal((8, 60, 80)).cumsum(2) / 9
    pixels = (np.tensordot(spectra, maps, 1) + SIGMA * rng.standard_normal((30, 60, 80))).astype(np.float32)
    pixels[3, rows, :40] = 1e-30
    everywhere = np.ones(pixels.shape, bool)
    found = defects.find(pixels, everywhere, everywhere)
    assert found is None or not found.offset[3].any()


def test_bands_without_noise_keep_their_values(engines):
    scene = SCENES["nearly_constant"]()
    out, _, _ = denoised(scene, engines["dct"])
    same = np.abs(out.astype(np.float64) - scene.pixels)
    assert same[[4, 9, 24]].max() == 0  # what a few samples of another value are, nobody can say: they stay too
    assert same[14].max() < 1e-5
    assert same[19].max() < 1e-4


def test_streaks_are_no_stripes(engines):
    scene = SCENES["streaks"]()
    out, _, _ = denoised(scene, engines["dct"])
    np.testing.assert_allclose(out[17], scene.pixels[17], atol=1e-4)


def test_samples_beyond_a_bands_range_stay(engines):
    for name, value in (("one_1e30", 1e30), ("one_3e38", 3e38)):
        out, _, _ = denoised(SCENES[name](), engines["dct"])
        assert out[7, 11, 13] == np.float32(value)
    scene = SCENES["two_nodata"]()
    out, _, _ = denoised(scene, engines["dct"])
    assert (out[:, -8:, -8:] == -32768).all()


def test_ramp_without_noise_and_a_range_beyond_what_float32_rotates(engines):
    pixels = np.arange(20 * 30 * 40, dtype=np.float32).reshape(20, 30, 40)
    out, _, job = denoised(Scene(pixels, pixels, np.ones(pixels.shape, bool)), engines["dct"])
    assert job.denoised == list(range(20))
    assert np.abs(out - pixels).max() < 0.01


def command(*arguments: Any) -> Any:
    """Run the command line; only what it means to raise may leave it."""
    result = CliRunner().invoke(app, ["run", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.mark.parametrize("name", ["everything", "one_row", "two_by_two", "all_nan"])
def test_command_line_and_report(tmp_path, name):
    scene = SCENES[name]()
    file = tiny.geotiff(tmp_path / "scene.tif", scene.pixels)
    done = command(file, "-o", tmp_path / "out.tif", "--report", tmp_path / "report.html")
    assert done.exit_code == 0
    lines = [line for line in re.split(r"[\r\n]+", done.stderr) if line]
    assert all(line.startswith(("hsidenoise: ", "denoise: ")) for line in lines), lines
    out = tiny.pixels(tmp_path / "out.tif")
    fine = np.abs(scene.pixels) <= np.finfo(np.float32).max
    assert np.isfinite(out[fine]).all()
    assert out[~fine].tobytes() == scene.pixels[~fine].tobytes()
    numbers = json.loads((tmp_path / "report.json").read_text())
    assert numbers["summary"]["denoised"] + numbers["summary"]["passed"] == len(out)


def test_one_huge_sample_does_not_fill_the_report(tmp_path):
    plain, spoilt = SCENES["below_a_halo"](), SCENES["below_a_halo"]()
    spoilt.pixels[7, 3, 13] = 1e30
    found = {}
    for name, scene in (("plain", plain), ("spoilt", spoilt)):
        file = tiny.geotiff(tmp_path / f"{name}.tif", scene.pixels)
        report = tmp_path / f"{name}.html"
        assert command(file, "-o", tmp_path / "out.tif", "--overwrite", "--report", report).exit_code == 0
        found[name] = json.loads((tmp_path / f"{name}.json").read_text())
    a, b = (found[name]["summary"] for name in ("plain", "spoilt"))
    for key in ("median_sigma_before", "median_sigma_after", "median_snr_after", "median_removed_over_noise"):
        assert b[key] == pytest.approx(a[key], rel=0.1), key
    huge = r"(?<![0-9a-f])\d(\.\d+)?e\+?[23]\d\b"  # a number, not the digits of a checksum
    assert re.search(huge, "[1.5e+30, 2]")
    assert not re.search(huge, json.dumps(found["spoilt"]))
    assert not re.search(rf"10\^\{{?2\d|{huge}", re.sub(r"base64,[^\"]*", "", (tmp_path / "spoilt.html").read_text()))
