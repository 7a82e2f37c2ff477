"""`simulate`: known noise on any scene; everything else stays."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
import tiny
from typer.testing import CliRunner

from hsidenoise import simulate as module
from hsidenoise.cli import app
from hsidenoise.errors import MetadataWarning, OutputExistsError, UsageError
from hsidenoise.simulate import simulate


@pytest.fixture
def scene(tmp_path):
    pixels = np.rint(tiny.clean(24, 60, 70) * 8000 + 200).astype(np.int16)
    pixels[:, :3] = -1
    return tiny.geotiff(tmp_path / "scene.tif", pixels, nodata=-1)


def test_the_noise_is_what_the_record_says_and_nodata_stays(scene, tmp_path):
    record = simulate(scene, tmp_path / "noisy.tif", pattern="corr", quiet=True)
    clean, noisy = tiny.pixels(scene), tiny.pixels(tmp_path / "noisy.tif")
    assert noisy.dtype == np.int16
    np.testing.assert_array_equal(noisy[:, :3], -1)
    sigma = (noisy.astype(float) - clean)[:, 3:].std((1, 2))
    np.testing.assert_allclose(sigma, record["sigma"], rtol=0.05)
    assert record["sigma"][12] == pytest.approx(23.08 / 255 * (record["high"] - record["low"]), rel=1e-3)
    with rasterio.open(scene) as one, rasterio.open(tmp_path / "noisy.tif") as other:
        assert (one.crs, one.transform, one.nodata) == (other.crs, other.transform, other.nodata)
        assert other.tags(ns="HSIDENOISE")["noise"] == "corr, seed 0"
        assert one.tags(3)["wavelength"] == other.tags(3)["wavelength"]


def test_a_seed_gives_the_same_noise_in_blocks_of_any_height(scene, tmp_path, monkeypatch):
    simulate(scene, tmp_path / "a.tif", pattern="mixture", seed=5, quiet=True)
    monkeypatch.setattr(module, "row_blocks", lambda cube: whole(cube, 7))
    simulate(scene, tmp_path / "b.tif", pattern="mixture", seed=5, quiet=True)
    simulate(scene, tmp_path / "c.tif", pattern="mixture", seed=6, quiet=True)
    a, b, c = (tiny.pixels(tmp_path / f"{n}.tif") for n in "abc")
    np.testing.assert_array_equal(a, b)
    assert (a != c).mean() > 0.5


def whole(cube, height):
    from hsidenoise.cube import Window

    for start in range(0, cube.shape[1], height):
        yield Window(start, min(start + height, cube.shape[1]), 0, cube.shape[2])


def test_another_format_and_type(scene, tmp_path):
    with pytest.warns(MetadataWarning, match="TIFF tags"):
        simulate(scene, tmp_path / "noisy.img", pattern="g15", dtype="float32", quiet=True)
    with rasterio.open(tmp_path / "noisy.img") as file:
        assert file.driver == "ENVI"
        assert file.dtypes[0] == "float32"


def test_refusals(scene, tmp_path):
    with pytest.raises(UsageError, match="--pattern g70"):
        simulate(scene, tmp_path / "x.tif", pattern="g70")
    (tmp_path / "there.tif").write_bytes(b"mine")
    with pytest.raises(OutputExistsError):
        simulate(scene, tmp_path / "there.tif")
    flat = tiny.geotiff(tmp_path / "flat.tif", np.ones((3, 8, 8), np.int16))
    with pytest.raises(UsageError, match="no two values"):
        simulate(flat, tmp_path / "x.tif")
    assert not (tmp_path / "x.tif").exists()


def test_the_command(scene, tmp_path):
    done = CliRunner().invoke(app, ["simulate", str(scene), "-o", str(tmp_path / "n.tif"), "-p", "g15", "-q", "--json"])
    assert done.exit_code == 0
    assert '"pattern": "g15"' in done.stdout
