"""Denoising from Python: arrays, labelled arrays and files give what the command line gives."""

from __future__ import annotations

import base64
import doctest
import io
import re
import types
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import rasterio
import tiny
from scenes import quiet, write_tiff

import hsidenoise
from hsidenoise import api
from hsidenoise.errors import UsageError
from hsidenoise.run import run


def cube(dtype: str = "float32") -> np.ndarray:
    return (tiny.cube(16, 40, 48, sigma=0.05) * 1000).astype(dtype)


def test_the_examples_run() -> None:
    found = doctest.testmod(api)
    assert found.attempted > 5
    assert found.failed == 0


@pytest.mark.parametrize("dtype", ["float32", "int16", "float64"])
def test_an_array_comes_out_as_a_file_does(tmp_path: Path, dtype: str) -> None:
    noisy = cube(dtype)
    run(write_tiff(tmp_path / "a.tif", noisy), tmp_path / "b.tif", quiet=True)
    with quiet(), rasterio.open(tmp_path / "b.tif") as written:
        expected = written.read()
    found = hsidenoise.denoise(noisy)
    assert found.dtype == noisy.dtype
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(hsidenoise.denoise(tmp_path / "a.tif"), expected)
    truth = tiny.clean(16, 40, 48) * 1000
    assert np.square(found - truth).mean() < 0.3 * np.square(noisy - truth).mean()


@pytest.mark.parametrize("axes", ["yxb", "ybx", "xby"])
def test_axes_may_be_in_any_order(axes: str) -> None:
    noisy = cube()
    order = ["byx".index(letter) for letter in axes]
    found = hsidenoise.denoise(noisy.transpose(order), axes=axes)
    np.testing.assert_array_equal(found, hsidenoise.denoise(noisy).transpose(order))


def test_what_is_no_measurement_comes_back() -> None:
    noisy = cube()
    noisy[:, :5, :5] = np.nan
    noisy[:, 20:25, 9] = -99
    found = hsidenoise.denoise(noisy, nodata=-99)
    assert np.isnan(found[:, :5, :5]).all()
    assert (found[:, 20:25, 9] == -99).all()
    assert np.isfinite(found[:, 5:]).all()


@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_a_masked_array_comes_back_masked(dtype: str) -> None:
    noisy = cube(dtype)
    mask = np.zeros(noisy.shape, bool)
    mask[:, 20:25, 9] = True
    noisy[mask] = 30000
    found = hsidenoise.denoise(np.ma.array(noisy, mask=mask).transpose(1, 2, 0), axes="yxb").transpose(2, 0, 1)
    np.testing.assert_array_equal(found.mask, mask)
    np.testing.assert_array_equal(found.data[mask], noisy[mask])
    noisy[mask] = -32000  # whatever is below the mask
    np.testing.assert_array_equal(found.data[~mask], hsidenoise.denoise(np.ma.array(noisy, mask=mask)).data[~mask])


def test_bands_may_be_chosen() -> None:
    noisy = cube()
    found = hsidenoise.denoise(noisy, bidx="2..5")
    changed = [b for b in range(16) if not np.array_equal(found[b], noisy[b])]
    assert changed == [1, 2, 3, 4]


def test_a_labelled_array_keeps_its_labels() -> None:
    xarray = pytest.importorskip("xarray")
    noisy = cube()
    made = xarray.DataArray(
        noisy.transpose(1, 2, 0), dims=("y", "x", "wavelength"), name="reflectance",
        coords={
            "y": np.arange(40) * 30.0, "x": np.arange(48) * 30.0, "spatial_ref": 0,
            "wavelength": ("wavelength", np.linspace(0.4, 0.7, 16), {"units": "um"}),
        },
        attrs={"units": "1", "_FillValue": -9999.0},
    )  # fmt: skip
    found = hsidenoise.denoise(made)
    assert found.dims == made.dims
    assert found.name == "reflectance"
    assert found.attrs == made.attrs
    assert set(found.coords) == set(made.coords)
    for name in made.coords:
        assert found[name].equals(made[name])
    np.testing.assert_array_equal(found.values.transpose(2, 0, 1), hsidenoise.denoise(noisy))
    np.testing.assert_array_equal(made.values.transpose(2, 0, 1), noisy)  # the input is as it was


@pytest.mark.parametrize(
    ("scene", "options", "said"),
    [
        (np.zeros((3, 4)), {}, "three axes"),
        (np.zeros((3, 4, 5), complex), {}, "give numbers"),
        (np.zeros((3, 4, 0)), {}, "give numbers"),
        (np.zeros((3, 4, 5)), {"axes": "bxx"}, "axes"),
        ([1, 2], {}, "list"),
        (types.SimpleNamespace(data_vars=["reflectance"]), {}, "reflectance"),
        (np.zeros((3, 4, 5)), {"bidx": "9"}, "--bidx"),
    ],
)
def test_what_cannot_be_denoised_is_said(scene: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        hsidenoise.denoise(scene, **options)


def test_cubes_are_opened_from_the_package(tmp_path: Path) -> None:
    with hsidenoise.open_cube(write_tiff(tmp_path / "a.tif", cube())) as opened:
        assert opened.shape == (16, 40, 48)
        shown = opened._repr_html_()
        assert "16 bands, 40 x 48 pixels" in shown
        png = base64.b64decode(re.search(r"data:image/png;base64,([^\"]+)", shown)[1])
        assert matplotlib.image.imread(io.BytesIO(png)).shape[:2] == (40, 48)
    with pytest.raises(AttributeError):
        hsidenoise.nothing  # noqa: B018
