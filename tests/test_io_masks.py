"""Masks, alpha bands and nodata: which samples are measurements, and that copies agree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from scenes import copy, everything, pixels, write_tiff

from hsidenoise.errors import MetadataWarning, UsageError
from hsidenoise.io import create_cube, open_cube


def test_trap_10_masks_are_per_band(tmp_path: Path) -> None:
    cube = pixels((3, 6, 7), "float32")
    cube[1, 2, 3] = -1
    cube[2, 4, 5] = np.inf
    cube[0, 0, 0] = np.nan
    with open_cube(write_tiff(tmp_path / "a.tif", cube, nodata=-1)) as opened:
        valid = opened.read()[1]
    assert np.array_equal(np.argwhere(~valid), [[0, 0, 0], [1, 2, 3], [2, 4, 5]])


@pytest.mark.parametrize("internal", ["YES", "NO"])
@pytest.mark.parametrize("driver", ["GTiff", "COG"])
def test_dataset_mask_is_copied(tmp_path: Path, internal: str, driver: str) -> None:
    source = tmp_path / "a.tif"
    mask = np.random.default_rng(0).random((40, 30)) > 0.3
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal):
        write_tiff(source, pixels((3, 40, 30)))
        with rasterio.open(source, "r+") as target:
            target.write_mask(mask)
    copy(source, tmp_path / "b.tif", step=7, of=driver)
    with rasterio.open(tmp_path / "b.tif") as found:
        assert np.array_equal(found.dataset_mask() != 0, mask)
    assert not (tmp_path / "b.tif.msk").exists()
    with open_cube(tmp_path / "b.tif") as opened:
        assert np.array_equal(opened.read()[1], np.broadcast_to(mask, (3, 40, 30)))


def test_alpha_is_no_measurement_and_masks_the_others(tmp_path: Path) -> None:
    cube = pixels((4, 6, 7), "uint16")
    cube[3] = np.where(cube[3] > 30000, 65535, 0)
    source = write_tiff(tmp_path / "a.tif", cube, photometric="RGB", alpha="YES")
    with open_cube(source) as opened:
        assert opened.bands.roles == ("", "", "", "alpha")
        assert opened.bands.usable() == (True, True, True, False)
        valid = opened.read()[1]
    assert np.array_equal(valid[0], cube[3] != 0)
    assert valid[3].all()
    copy(source, tmp_path / "b.tif")
    assert everything(tmp_path / "b.tif") == everything(source)
    with pytest.warns(MetadataWarning, match="ENVI has no masks"):
        copy(source, tmp_path / "b.img")


@pytest.mark.parametrize("bands", [2, 3, 4, 5, 8])
def test_alpha_masks_the_others_however_many_they_are(tmp_path: Path, bands: int) -> None:
    cube = pixels((bands, 6, 7), "uint8")
    cube[-1] = np.where(cube[-1] > 100, 255, 0)
    colours = [ColorInterp.undefined] * (bands - 1) + [ColorInterp.alpha]
    source = write_tiff(tmp_path / "a.tif", cube, photometric="MINISBLACK")
    with rasterio.open(source, "r+") as file:
        file.colorinterp = colours
    with open_cube(source) as opened:
        valid = opened.read()[1]
    assert np.array_equal(valid[:-1], np.broadcast_to(cube[-1] != 0, valid[:-1].shape))
    assert valid[-1].all()


@pytest.mark.parametrize(("dtype", "nodata"), [("float32", float("nan")), ("float32", -3.4028234663852886e38),
                                               ("int64", -(2**53)), ("uint16", 65535), ("int8", -128)])  # fmt: skip
def test_nodata_is_compared_in_the_files_type(tmp_path: Path, dtype: str, nodata: float) -> None:
    cube = pixels((2, 5, 6), dtype)
    cube[1, 2, 3] = nodata
    source = write_tiff(tmp_path / "a.tif", cube, nodata=nodata)
    with open_cube(source) as opened:
        assert np.array_equal(~opened.read()[1], np.isnan(cube) if nodata != nodata else cube == nodata)
    copy(source, tmp_path / "b.tif")
    assert everything(tmp_path / "b.tif") == everything(source)


@pytest.mark.parametrize(("text", "expected"), [("7", 7), ("nan", None), ("null", None), ("none", None), ("1e3", 1000)])
def test_nodata_grammar(tmp_path: Path, text: str, expected: float | None) -> None:
    source = write_tiff(tmp_path / "a.tif", pixels(), nodata=5)
    if text == "nan":
        with pytest.raises(UsageError, match="int16 pixels cannot hold it"):
            open_cube(source, nodata=text)
        return
    with open_cube(source, nodata=text) as opened:
        assert opened.nodata == (expected,) * 5
    copy(source, tmp_path / "b.tif", nodata=text)
    with rasterio.open(tmp_path / "b.tif") as found:
        assert found.nodata == expected


@pytest.mark.parametrize("text", ["x", "1;2", "--5"])
def test_nodata_nonsense(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="give a number, nan, or null"):
        open_cube(write_tiff(tmp_path / "a.tif", pixels()), nodata=text)


def test_another_type_must_hold_the_nodata(tmp_path: Path) -> None:
    source = write_tiff(tmp_path / "a.tif", pixels(), nodata=-9999)
    with open_cube(source) as cube:
        with pytest.raises(UsageError, match="--nodata"):
            create_cube(tmp_path / "b.tif", cube, dtype="uint8")
        with pytest.raises(UsageError, match="--dtype"):
            create_cube(tmp_path / "b.tif", cube, dtype="complex64")
        with pytest.raises(UsageError, match="--dtype"):
            create_cube(tmp_path / "b.tif", cube, dtype="floaty")
        writer = create_cube(tmp_path / "b.tif", cube, dtype="float32")
    assert writer.dtype == "float32"
