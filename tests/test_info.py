"""What ``info`` says of a scene and of the installation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from scenes import pixels, quiet, write_envi, write_tiff

from hsidenoise.errors import ReadError
from hsidenoise.info import describe, system


def test_envi_scene(tmp_path: Path) -> None:
    keys = {
        "wavelength": "{0.45, 0.46, 0.47, 0, 0.49}", "wavelength units": "Micrometers", "bbl": "{1, 0, 1, 1, 1}",
        "fwhm": "{0.01, 0.01, 0.01, 0.01, 0.012}", "data ignore value": "-9999",
        "map info": "{UTM, 1, 1, 500000, 4000000, 30, 30, 33, North, WGS-84}",
    }  # fmt: skip
    found = describe(write_envi(tmp_path / "a.img", pixels(), interleave="bip", byte_order=1, keys=keys))
    assert (found["format"], found["bands"], found["rows"], found["cols"]) == ("ENVI", 5, 8, 10)
    assert (found["dtype"], found["interleave"], found["byte_order"], found["bytes"]) == ("int16", "bip", "big", 800)
    assert found["nodata"] == -9999
    spectrum = found["spectrum"]
    assert (spectrum["wavelengths"], spectrum["first_nm"], spectrum["last_nm"]) == (4, 450, 490)
    assert spectrum["fwhm_nm"] == [10, 12]
    assert spectrum["bad_bands"] == [2]
    assert spectrum["groups"] == ["1,3,5", "4"]
    assert found["georeferencing"]["transform"] == [30, 0, 500000, 0, -30, 4000000]
    assert found["georeferencing"]["crs"] == "WGS 84 / UTM zone 33N"
    assert found["tags"]["ENVI"] > 10


def test_tiff_scene(tmp_path: Path) -> None:
    source = write_tiff(tmp_path / "a.tif", pixels((2, 6, 7), "float32"), nodata=float("nan"), compress="zstd")
    found = describe(source)
    assert found["nodata"] == "nan"
    assert found["compress"] == "ZSTD"
    assert found["georeferencing"]["crs"] == "WGS 84 / UTM zone 33N (EPSG:32633)"
    assert found["scale"] == 1
    json.dumps(found, allow_nan=False)
    with quiet():
        import rasterio

        with rasterio.open(tmp_path / "g.tif", "w", driver="GTiff", count=1, width=4, height=4, dtype="uint8") as out:
            out.gcps = [GroundControlPoint(i, i % 2, i, i, 0) for i in range(3)], CRS.from_epsg(4326)
    found = describe(tmp_path / "g.tif")["georeferencing"]
    assert (found["crs"], found["transform"], found["gcps"]) == (None, None, 3)
    assert found["gcps_crs"] == "WGS 84 (EPSG:4326)"


def test_noise_is_found_and_bad_samples_left_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    row, col = np.mgrid[:120, :100]
    image = np.stack([np.sin(row / 30 + b) + np.cos(col / 100) for b in range(6)])
    sigma = np.array([0.01, 0.02, 0.05, 0.1, 0.2, 0.02])
    cube = (image + rng.normal(size=image.shape) * sigma[:, None, None]).astype("float32")
    cube[:, :10] = -9999
    found = describe(write_tiff(tmp_path / "a.tif", cube, nodata=-9999), noise=True)["noise"]
    assert found["sigma"] == pytest.approx(sigma, rel=0.15)
    assert found["max"] == max(found["sigma"])


def test_unreadable(tmp_path: Path) -> None:
    with pytest.raises(ReadError):
        describe(tmp_path / "none.tif")


def test_system_names_versions_and_weights() -> None:
    found = system()
    assert {"hsidenoise", "python", "torch", "rasterio", "gdal", "numpy", "cuda", "weights"} <= set(found)
    assert found["gdal"].split(".")[0] == "3"
    json.dumps(found)
