"""`evaluate`: noise on, noise off, scores."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny
from PIL import Image
from typer.testing import CliRunner

from hsidenoise import evaluate as module
from hsidenoise import metrics
from hsidenoise.cli import app
from hsidenoise.errors import OutputExistsError, UsageError, WeightsError
from hsidenoise.evaluate import evaluate


@pytest.fixture
def cubes(tmp_path):
    names = []
    for seed in (1, 2):
        pixels = np.rint(tiny.clean(20, 64, 72, seed=seed) * 9000).astype(np.int16)
        names.append(tiny.geotiff(tmp_path / f"cube{seed}.tif", pixels))
    return names


def test_scores_and_means(cubes):
    found = evaluate(cubes, models="dct", patterns="g55,corr")
    assert len(found["rows"]) == 2 * 2 * 2
    by = {(r["cube"], r["pattern"], r["model"]): r for r in found["rows"]}
    for cube in ("cube1.tif", "cube2.tif"):
        for pattern in ("g55", "corr"):
            noisy, clean = by[cube, pattern, "noisy"], by[cube, pattern, "dct"]
            assert clean["psnr"] > noisy["psnr"] + 8
            assert clean["sam"] < noisy["sam"] / 2
            assert clean["ssim"] > noisy["ssim"]
            assert clean["ergas"] < noisy["ergas"] / 2
            assert clean["seconds"] > 0
    mean = next(m for m in found["means"] if (m["pattern"], m["model"]) == ("g55", "dct"))
    assert mean["psnr"] == pytest.approx(np.mean([by[c, "g55", "dct"]["psnr"] for c in ("cube1.tif", "cube2.tif")]))


def test_noisy_scores_are_those_of_the_noise(cubes):
    found = evaluate(cubes[:1], models="dct", patterns="corr", seed=9)
    sigma = 23.08 / 255 * np.exp(-((np.arange(20) / 20 - 0.5) ** 2) / (4 * 0.157**2))
    assert found["rows"][0]["psnr"] == pytest.approx(np.mean(-20 * np.log10(sigma)), abs=0.1)


def test_an_array_through_the_engine_is_what_run_writes(tmp_path):
    import torch

    from hsidenoise.engine import Engine
    from hsidenoise.model.weights import find, load
    from hsidenoise.run import run

    noisy = tiny.cube(20, 64, 72).astype(np.float32)
    scene = tiny.geotiff(tmp_path / "scene.tif", noisy)
    run(scene, tmp_path / "clean.tif", model="dct", tile=64, quiet=True)
    result = module.denoise_array(noisy, Engine(*load(find("dct")), torch.device("cpu"), 1), tile=64)
    np.testing.assert_allclose(result, tiny.pixels(tmp_path / "clean.tif"), atol=1e-6)
    assert metrics.psnr(tiny.clean(20, 64, 72), result) > metrics.psnr(tiny.clean(20, 64, 72), noisy) + 8


def test_the_figure_and_the_table(cubes, tmp_path):
    figure = tmp_path / "profiles.png"
    arguments = ["evaluate", *map(str, cubes), "--models", "dct", "--patterns", "g55", "--profiles", str(figure)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines()[0].split()[:3] == ["cube", "noise", "model"]
    assert "mean of 2" in done.stdout
    with Image.open(figure) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(pixels, axis=0)) > 50  # something is drawn
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr
    assert json.loads(CliRunner().invoke(app, [*arguments[:-2], "--json"]).stdout)["means"]


def test_refusals(cubes, tmp_path):
    with pytest.raises(UsageError, match="g70"):
        evaluate(cubes, patterns="g70")
    with pytest.raises(WeightsError, match="enormous"):
        evaluate(cubes, models="enormous")
    (tmp_path / "there.png").write_bytes(b"mine")
    with pytest.raises(OutputExistsError):
        evaluate(cubes, profiles=tmp_path / "there.png")
    holes = np.rint(tiny.clean(8, 30, 30) * 900).astype(np.int16)
    holes[:, 4, 4] = -1
    with pytest.raises(UsageError, match="without data"):
        evaluate([tiny.geotiff(tmp_path / "holes.tif", holes, nodata=-1)])
