"""HDF5: each sensor product goes in and out with everything but its noise; other files are read where that is safe."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import types
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import netCDF4
import numpy as np
import products
import pytest
import rasterio
import spectral
import tiny
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning

from hsidenoise.cube import Cube, Window
from hsidenoise.errors import (
    GuessedUnitsWarning,
    MetadataWarning,
    OutputExistsError,
    ReadError,
    SceneTooLargeError,
    UnsupportedError,
    UsageError,
)  # fmt: skip
from hsidenoise.io import create_cube, open_cube
from hsidenoise.run import run

PRODUCTS = products.lookalikes()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, Any]]]:
    """A look-alike of each product and what is in it; do not write to them."""
    folder = tmp_path_factory.mktemp("products")
    found = {}
    for name, (suffix, write) in PRODUCTS.items():
        path = folder / f"{name}{suffix}"
        found[name] = path, write(path)
    return found


@pytest.fixture(scope="module")
def outputs(
    files: dict[str, tuple[Path, dict[str, Any]]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, Path]]:
    """Each look-alike denoised, and that denoised again."""
    folder = tmp_path_factory.mktemp("outputs")
    found = {}
    for name, (path, _) in files.items():
        once, twice = folder / f"once_{path.name}", folder / f"twice_{path.name}"
        run(path, once, model="dct", quiet=True)
        run(once, twice, model="dct", quiet=True)
        found[name] = once, twice
    return found


def write(path: Path, data: NDArray[Any], name: str = "cube", **attributes: Any) -> Path:
    """A file with one array."""
    with h5py.File(path, "w") as file:
        file[name] = data
        file[name].attrs.update(attributes)
    return path


def contents(path: Path) -> dict[str, Any]:
    """All of a file but its pixels as h5py sees it: types, shapes, chunks, filters, attributes, values."""
    found: dict[str, Any] = {}

    def plain(file: h5py.File, value: Any) -> Any:
        if isinstance(value, h5py.Reference):
            return file[value].name
        if isinstance(value, np.ndarray) and value.dtype == object:
            return [plain(file, v) for v in value]
        if isinstance(value, np.ndarray) and value.dtype.names:
            return [plain(file, v) for row in value for v in row]
        return (str(getattr(value, "dtype", type(value))), np.asarray(value).tolist())

    with h5py.File(path, "r") as file:

        def visit(name: str, item: Any) -> None:
            found[name] = {k: plain(file, v) for k, v in item.attrs.items()}
            if isinstance(item, h5py.Dataset):
                plan = item.id.get_create_plist()
                filters = [plan.get_filter(i) for i in range(plan.get_nfilters())]
                found[f"{name}?"] = (
                    item.dtype.str,
                    item.shape,
                    item.maxshape,
                    item.chunks,
                    filters,
                    str(item.fillvalue),
                )
                found[f"{name}="] = np.asarray(item[()]).tobytes()

        found[""] = {k: plain(file, v) for k, v in file.attrs.items()}
        file.visititems(visit)
    return found


def stored(path: Path, known: dict[str, Any]) -> NDArray[Any]:
    """The cube of a product, read with h5py alone, as (bands, rows, cols)."""
    order = [known["axes"].index(letter) for letter in "byx"]
    with h5py.File(path, "r") as file:
        return np.concatenate([file[name][()].transpose(order) for name in known["cubes"]])


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_is_understood(files: dict[str, tuple[Path, dict[str, Any]]], name: str) -> None:
    path, known = files[name]
    with open_cube(path) as cube:
        assert cube.shape == known["pixels"].shape
        assert np.array_equal(cube.raw(), known["pixels"])
        assert cube.dtype == known["pixels"].dtype.name
        assert set(cube.nodata) == {known["nodata"]}
        shortest = [float(str(w)) for w in known["nm"]]  # the digits of its own type
        assert np.array_equal(cube.bands.wavelength, shortest, equal_nan=True)
        if known["fwhm"] is None:
            assert not cube.bands.fwhm
        else:
            assert {w for w in cube.bands.fwhm if w == w} == {known["fwhm"]}
        assert list(cube.bands.usable()) == known["good"].tolist()
        assert cube.geo.transform == known["transform"]
        assert (CRS.from_wkt(cube.geo.crs) if cube.geo.crs else None) == known["crs"]
        assert not cube.geo.gcps
        part = cube.raw(Window(5, 9, 3, 8), [3, 0])
        assert np.array_equal(part, known["pixels"][[3, 0], 5:9, 3:8])


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_comes_back_as_it_was(
    files: dict[str, tuple[Path, dict[str, Any]]], outputs: dict[str, tuple[Path, Path]], name: str
) -> None:
    path, known = files[name]
    once, twice = outputs[name]
    before, after, again = contents(path), contents(once), contents(twice)
    assert "model: dct" in after[""].pop("hsidenoise")[1]
    again[""].pop("hsidenoise")
    pixels = {f"{cube}=" for cube in known["cubes"]}
    assert {k: v for k, v in after.items() if k not in pixels} == {k: v for k, v in before.items() if k not in pixels}
    assert {k: v for k, v in again.items() if k not in pixels} == {k: v for k, v in after.items() if k not in pixels}
    clean, noisy = stored(once, known), known["pixels"]
    assert np.array_equal(noisy, stored(path, known))
    blank = noisy == known["nodata"] if known["nodata"] is not None else np.zeros_like(noisy, bool)
    assert np.array_equal(clean[blank], noisy[blank])
    assert np.array_equal(clean[~known["good"]], noisy[~known["good"]])
    changed = (clean != noisy)[known["good"]][~blank[known["good"]]]
    assert changed.mean() > 0.5  # and it was denoised


@pytest.mark.parametrize("name", ["emit_l2a", "prisma_l2d", "neon", "aviris_l1b", "pace_l2"])
def test_a_product_becomes_a_geotiff(
    files: dict[str, tuple[Path, dict[str, Any]]], outputs: dict[str, tuple[Path, Path]], name: str, tmp_path: Path
) -> None:
    path, known = files[name]
    run(path, tmp_path / "a.tif", model="dct", quiet=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(tmp_path / "a.tif") as tiff:
            assert np.array_equal(tiff.read(), stored(outputs[name][0], known))
            assert tiff.crs == known["crs"]
            assert tiff.transform[:6] == (known["transform"] or (1, 0, 0, 0, 1, 0))
            assert tiff.nodata == known["nodata"]
            assert name != "emit_l2a" or tiff.tags()["flight_line"] == "emit20220830t065605"
            for i, (nm, good) in enumerate(zip(known["nm"], known["good"], strict=True), 1):
                assert tiff.tags(i).get("wavelength", "nan") == repr(float(str(nm)))
                assert tiff.tags(i).get("bbl", "1") == str(int(good))
            assert tiff.scales[0] == known.get("scale", {"prisma_l2d": 1 / 65535, "neon": 1e-4}.get(name, 1.0))
            assert tiff.offsets[0] == known.get("offset", 0.0)


@pytest.mark.parametrize("name", ["prisma_l2d", "tanager_ortho", "pace_l1b"])
@pytest.mark.filterwarnings("ignore:.*ENVI headers hold no TIFF tags")
def test_a_product_becomes_envi(
    files: dict[str, tuple[Path, dict[str, Any]]], outputs: dict[str, tuple[Path, Path]], name: str, tmp_path: Path
) -> None:
    path, known = files[name]
    run(path, tmp_path / "a.img", model="dct", quiet=True)
    image = spectral.open_image(str(tmp_path / "a.hdr"))
    pixels = np.asarray(image.open_memmap(interleave="bsq"))
    assert np.array_equal(pixels, stored(outputs[name][0], known))
    nm = [0.0 if np.isnan(w) else float(str(w)) for w in known["nm"]]
    assert image.bands.centers == nm
    assert [float(b) for b in image.metadata.get("bbl", [1] * len(nm))] == known["good"].astype(float).tolist()
    assert ("map info" in image.metadata) == (known["transform"] is not None)


def test_netcdf_still_opens_what_was_a_netcdf_file(
    files: dict[str, tuple[Path, dict[str, Any]]], outputs: dict[str, tuple[Path, Path]]
) -> None:
    for name in ("emit_l2a", "aviris_l1b", "pace_l2"):
        known = files[name][1]
        with netCDF4.Dataset(outputs[name][0]) as file:
            file.set_auto_maskandscale(False)
            order = [known["axes"].index(letter) for letter in "byx"]
            variable = file[known["cubes"][0]]
            assert np.array_equal(variable[:].transpose(order), stored(outputs[name][0], known))
            assert file.hsidenoise.startswith("software: hsidenoise")
            assert len(variable.dimensions) == 3


def test_detectors_are_groups_of_their_own(files: dict[str, tuple[Path, dict[str, Any]]]) -> None:
    with open_cube(files["prisma_l2d"][0]) as cube:
        vnir, swir = range(16), range(16, 42)
        assert sorted(map(sorted, cube.bands.groups())) == [list(vnir)[2:], list(swir)[:-1]]
        few = cube.bands.select([2, 3, *range(16, 30)])  # too few of one detector for the wavelengths to tell
        assert sorted(map(sorted, few.groups())) == [[0, 1], list(range(2, 16))]
    with open_cube(files["pace_l1b"][0]) as cube:  # of the last detector wavelengths turn back twice
        assert [set(group) for group in cube.bands.groups()] == [set(range(20)), set(range(20, 34)), set(range(34, 38))]


def test_one_detector_alone(files: dict[str, tuple[Path, dict[str, Any]]], tmp_path: Path) -> None:
    path, known = files["prisma_l2d"]
    run(path, tmp_path / "a.he5", variable="SWIR_Cube", model="dct", quiet=True)
    before, after = contents(path), contents(tmp_path / "a.he5")
    assert after[known["cubes"][0] + "="] == before[known["cubes"][0] + "="]
    assert after[known["cubes"][1] + "="] != before[known["cubes"][1] + "="]
    with open_cube(path, variable="SWIR_Cube") as cube:
        assert np.array_equal(cube.raw(), known["pixels"][16:])
        assert cube.bands.wavelength[0] == 2497.1
        assert CRS.from_wkt(cube.geo.crs or "") == products.UTM


def test_other_arrays_of_a_product_can_be_named(files: dict[str, tuple[Path, dict[str, Any]]]) -> None:
    path, known = files["prisma_l2d"]
    with open_cube(path, variable="VNIR_PIXEL_L2_ERR_MATRIX", axes="ybx") as cube:
        assert (cube.shape, cube.dtype) == ((16, products.ROWS, products.COLS), "uint8")
        assert not cube.bands.wavelength
    with pytest.warns(MetadataWarning, match="do not fit 24 x 20 pixels"):  # told otherwise, the corners contradict
        cube = open_cube(path, variable="VNIR_Cube", axes="xby")
    with cube:
        assert np.array_equal(cube.raw(), known["pixels"][:16].transpose(0, 2, 1))
        assert len(cube.bands.wavelength) == 16


def test_a_version_with_its_bands_elsewhere(tmp_path: Path) -> None:
    data = np.ones((20, 24, 34), "float32")
    path = write(tmp_path / "a.h5", data, "reflectance/reflectance")
    with h5py.File(path, "r+") as file:
        file["reflectance/wavelength"] = np.linspace(400, 2500, 34)
    with open_cube(path) as cube:
        assert cube.shape == (34, 20, 24)
        assert cube.bands.wavelength[-1] == 2500


def test_corners_of_prisma_may_be_outer_corners(files: dict[str, tuple[Path, dict[str, Any]]], tmp_path: Path) -> None:
    path = tmp_path / "a.he5"
    path.write_bytes(files["prisma_l2d"][0].read_bytes())
    for across, expected in (
        (30 * products.COLS, (30.0, 0.0, 600_015.0, 0.0, -30.0, 4_999_985.0)),
        (30 * products.COLS + 7, None),
    ):
        with h5py.File(path, "r+") as file:
            file.attrs["Product_LRcorner_easting"] = 600_015.0 + across
            file.attrs["Product_LRcorner_northing"] = 4_999_985.0 - 30 * products.ROWS
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with open_cube(path) as cube:
                assert cube.geo.transform == expected
        assert len(caught) == (expected is None)


# ----------------------------------------------------------------------------- files that are no product


def test_axes_are_guessed_only_where_the_file_says_them(tmp_path: Path) -> None:
    data = np.arange(4 * 5 * 6, dtype="float32").reshape(4, 5, 6)
    path = write(tmp_path / "a.h5", data)
    with pytest.raises(UsageError, match=r"cube \(4 x 5 x 6\) float32 is which.*--axes"):
        open_cube(path)
    for axes in ("byx", "bxy", "ybx", "yxb", "xby", "xyb"):
        with open_cube(path, axes=axes) as cube:
            assert np.array_equal(cube.raw(), data.transpose([axes.index(c) for c in "byx"]))
    for attribute, axes in (
        ({"Interleave": "BIL"}, "ybx"), ({"axes": "row, column, band"}, "yxb"), ({"wavelengths": range(1, 6)}, "ybx"),
        ({"clean_bands": np.ones(6, bool)}, "yxb"), ({"DIMENSION_LABELS": ["lines", "bands", ""]}, "ybx"),
        ({"interleave": "bip", "axes": "row, column, band"}, "yxb"),
    ):  # fmt: skip
        write(path, data, **attribute)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MetadataWarning)
            with open_cube(path) as cube:
                assert np.array_equal(cube.raw(), data.transpose([axes.index(c) for c in "byx"])), attribute
    write(path, data, interleave="bsq", axes="row, column, band")  # they contradict each other
    with pytest.raises(UsageError, match="--axes"):
        open_cube(path)


def test_dimension_scales_name_axes(tmp_path: Path) -> None:
    data = np.arange(4 * 5 * 6, dtype="float32").reshape(4, 5, 6)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["cube"] = data
        for i, (name, values) in enumerate((("lat", np.arange(4.0)), ("lon", np.arange(5.0)), ("wl", np.arange(6.0)))):
            file[name] = values
            file[name].make_scale()
            file["cube"].dims[i].attach_scale(file[name])
    with pytest.warns(MetadataWarning), open_cube(tmp_path / "a.h5") as cube:
        assert cube.shape == (6, 4, 5)


def test_wavelengths_beside_a_cube(tmp_path: Path) -> None:
    data = np.ones((7, 8, 9), "uint16")
    path = write(tmp_path / "a.h5", data, "data/cube")
    with h5py.File(path, "r+") as file:
        file["other/wavelength"] = np.arange(9) + 500.0
        file["data/Wavelength"] = np.linspace(0.4, 0.8, 9).round(3)
        file["data/Wavelength"].attrs["units"] = "um"
        file["data/fwhm"] = np.full(9, 0.01)
    with open_cube(path) as cube:
        assert cube.shape == (9, 7, 8)
        assert cube.bands.wavelength == (400.0, 450.0, 500.0, 550.0, 600.0, 650.0, 700.0, 750.0, 800.0)
        assert set(cube.bands.fwhm) == {10.0}
    write(path, np.ones((9, 9, 9)), "data/cube")
    with h5py.File(path, "r+") as file:
        file["data/wavelength"] = np.arange(9) + 500.0
    with pytest.raises(UsageError, match="--axes"):  # which of three equal axes?
        open_cube(path)


def test_several_arrays_are_listed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", np.ones((3, 4, 5), "int16"), "a/noisy")
    with h5py.File(path, "r+") as file:
        file["b/noisy"] = np.zeros((3, 4, 5))
        file["b/flags"] = np.zeros((4, 5), "uint8")
    with pytest.raises(UsageError, match=r"a/noisy \(3 x 4 x 5\) int16, b/noisy \(3 x 4 x 5\) float64; .*--variable"):
        open_cube(path)
    with pytest.raises(UsageError, match=r"could be any of a/noisy .*, b/noisy"):
        open_cube(path, variable="noisy")
    with pytest.raises(UsageError, match=r"no such array; there are a/noisy"):
        open_cube(path, variable="isy")
    for variable in ("b/noisy", "/b/noisy"):
        with open_cube(path, variable=variable, axes="byx") as cube:
            assert cube.dtype == "float64"
    with open_cube(path, variable="flags") as cube:
        assert cube.shape == (1, 4, 5)
    for axes, message in (("byxx", "3 axes"), ("bxx", "y and x once"), ("by?", "y and x once")):
        with pytest.raises(UsageError, match=message):
            open_cube(path, variable="a/noisy", axes=axes)


def test_further_axes_are_fixed_by_a_digit(tmp_path: Path) -> None:
    data = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    path = write(tmp_path / "a.h5", data)
    with pytest.raises(UsageError, match="a digit for each further axis"):
        open_cube(path)
    with open_cube(path, axes="1byx") as cube:
        assert np.array_equal(cube.raw(), data[1])
    with open_cube(path, axes="01yx") as cube:
        assert np.array_equal(cube.raw(), data[0, 1][None])
    with open_cube(path, axes="0xyb") as cube:
        assert np.array_equal(cube.raw(), data[0].transpose(2, 1, 0))
    with open_cube(path, axes="0yxb") as cube:
        assert cube.layout["interleave"] == "bip"
    with open_cube(path, axes="y1x0") as cube:
        assert np.array_equal(cube.raw(), data[:, 1, :, 0][None])
    with pytest.raises(UsageError, match="axis 1 of cube has 2 places"):
        open_cube(path, axes="2byx")


@pytest.mark.parametrize(("axes", "order"), [("", "byx"), ("bxy", "bxy"), ("yxb", "yxb"), ("xyb", "xyb")])
def test_pixels_along_one_axis(tmp_path: Path, axes: str, order: str) -> None:
    cube = (tiny.cube(12, 20, 24) * 1000).astype("float32")
    table = cube.transpose(["byx".index(c) for c in order])
    table = table.reshape(12, -1) if order[0] == "b" else table.reshape(-1, 12)
    path = write(tmp_path / "a.h5", table)
    with open_cube(path, shape="20x24", axes=axes) as opened:
        assert np.array_equal(opened.raw(), cube)
        assert np.array_equal(opened.raw(Window(3, 9, 4, 20), [5, 2]), cube[[5, 2], 3:9, 4:20])
    run(path, tmp_path / "b.h5", shape="20x24", axes=axes, model="dct", quiet=True)
    run(path, tmp_path / "b.tif", shape="20x24", axes=axes, model="dct", quiet=True)
    with open_cube(tmp_path / "b.h5", shape="20x24", axes=axes) as opened:
        assert np.array_equal(opened.raw(), tiny.pixels(tmp_path / "b.tif"))
    with h5py.File(tmp_path / "b.h5") as file:
        assert file["cube"].shape == table.shape


def test_shapes_that_cannot_be(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", np.ones((4, 30)))
    for shape, axes, message in (
        ("5x7", "", "no table with 35 pixels"), ("5", "", "as in 100x200"), ("0x30", "", "as in 100x200"),
        ("5x6", "yxb", "choose byx"), ("5x6", "yx", "choose byx"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            open_cube(path, shape=shape, axes=axes)


def test_cubes_for_training_are_scenes(tmp_path: Path) -> None:
    cube = (tiny.cube(14, 20, 24) * 1000).astype("int16")
    nm = np.linspace(400, 700, 14)
    write(tmp_path / "a.h5", cube.transpose(1, 2, 0), clean_bands=np.arange(14) != 3, wavelength_nm=nm)
    with open_cube(tmp_path / "a.h5") as opened:
        assert np.array_equal(opened.raw(), cube)
        assert np.array_equal(opened.bands.wavelength, nm)
        assert all(opened.bands.usable())  # a noisy band is what there is to denoise


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", ">i2", ">f4", "float16", "int64", "uint64", "float64"])
def test_types_survive(tmp_path: Path, dtype: str) -> None:
    data = (np.arange(3 * 4 * 5) % 100).reshape(3, 4, 5).astype(dtype)
    path = write(tmp_path / "a.h5", data)
    with open_cube(path, axes="byx") as cube:
        assert cube.dtype == np.dtype(dtype).name
        assert np.array_equal(cube.raw(), data)
        assert cube.raw().dtype.isnative
        with create_cube(tmp_path / "b.h5", cube) as writer:
            writer.write(0, cube.raw())
    with h5py.File(tmp_path / "b.h5") as file:
        assert file["cube"].dtype == np.dtype(dtype)
        assert np.array_equal(file["cube"][()], data)


def test_half_floats_become_what_the_output_can_hold(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", tiny.cube(12).astype("float16"), interleave="bsq")
    run(path, tmp_path / "a.tif", model="dct", dtype="float32", quiet=True)
    assert tiny.pixels(tmp_path / "a.tif").dtype == "float32"
    if "float16" in rasterio.dtypes.dtype_rev:
        run(path, tmp_path / "b.tif", model="dct", quiet=True)
        assert tiny.pixels(tmp_path / "b.tif").dtype == "float16"
    else:
        with pytest.raises(UsageError, match="--dtype float32"):
            run(path, tmp_path / "b.tif", model="dct", quiet=True)


def test_nodata_that_does_not_fit_is_not_used(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", np.ones((3, 4, 5), "uint8"), interleave="bsq", _FillValue=-9999.0)
    with pytest.warns(MetadataWarning, match=r"nodata -9999\.0 is no uint8"), open_cube(path) as cube:
        assert set(cube.nodata) == {None}
    with open_cube(write(path, np.ones((3, 4, 5)), interleave="bsq", _FillValue=np.nan)) as cube:
        assert np.isnan(cube.nodata[0] or 0)


def test_a_user_block_stays(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w", userblock_size=8192) as file:
        file["cube"] = np.arange(60.0).reshape(3, 4, 5)
    with (tmp_path / "a.h5").open("r+b") as raw:
        raw.write(b"a header of its own")
    with open_cube(tmp_path / "a.h5", axes="byx") as cube, create_cube(tmp_path / "b.h5", cube) as writer:
        writer.write(0, cube.raw() + 1)
    assert (tmp_path / "b.h5").read_bytes().startswith(b"a header of its own")
    with h5py.File(tmp_path / "b.h5") as file:
        assert file["cube"][0, 0, 0] == 1


# ----------------------------------------------------------------------------------- what is refused, in one line


def refused(path: Path, error: type[Exception], message: str, **options: Any) -> None:
    with pytest.raises(error, match=message) as caught:
        open_cube(path, **options).raw()
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_truncated_and_damaged_files(files: dict[str, tuple[Path, dict[str, Any]]], tmp_path: Path) -> None:
    path = tmp_path / "a.he5"
    whole = files["prisma_l2d"][0].read_bytes()
    for share in (0.999, 0.5, 0.01):
        path.write_bytes(whole[: int(len(whole) * share)])
        refused(path, ReadError, r"truncated: \d+ bytes where the file itself says \d+")
    path.write_bytes(whole[:60])
    refused(path, ReadError, "HDF5 file that cannot be opened|truncated")
    lines = []
    rng = np.random.default_rng(0)
    for _ in range(60):  # whatever was hit: the pixels, a line, or no harm done
        rotten = bytearray(whole)
        for at in rng.integers(8, len(whole), 30):
            rotten[at] = rng.integers(256)
        path.write_bytes(rotten)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MetadataWarning)
            try:
                with open_cube(path) as cube:
                    cube.raw()
            except (ReadError, UsageError, SceneTooLargeError) as error:
                lines.append(str(error))
    assert lines
    assert not [line for line in lines if "\n" in line]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((3, 4, 5), [("r", "f2"), ("i", "f2")]), "compound"),
        (np.zeros((3, 4, 5), "complex64"), "complex.*magnitudes"),
        (np.zeros((3, 4, 5), "S3"), "text"),
        (np.zeros((3, 4, 5), bool), "class numbers"),
        (np.zeros((3, 4, 5), "V4"), "opaque"),
        (np.zeros((3, 4, 5), "longdouble"), "longer than 64 bits"),
        (np.zeros((0, 4, 5)), "could be a scene|empty"),
        (np.zeros(5), "could be a scene"),
        (np.float64(3), "could be a scene"),
    ],
    ids=["compound", "complex", "text", "bool", "opaque", "longdouble", "empty", "line", "scalar"],
)  # fmt: skip
def test_arrays_without_measurements(tmp_path: Path, data: NDArray[Any], message: str) -> None:
    path = write(tmp_path / "a.h5", data)
    refused(path, UnsupportedError, message)
    if np.ndim(data) == 3:
        refused(path, UnsupportedError, message.replace("could be a scene|", ""), variable="cube", axes="byx")


def test_objects_and_enumerations(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("words", (3, 4, 5), h5py.string_dtype())
        file.create_dataset("lists", (3, 4, 5), h5py.vlen_dtype("int32"))
        file.create_dataset("classes", (3, 4, 5), h5py.enum_dtype({"LAND": 0, "SEA": 1}))
        file.create_dataset("links", (3, 4, 5), h5py.ref_dtype)
        file["nothing"] = h5py.Empty("f4")
        file["a type"] = np.dtype("f4")
    refused(tmp_path / "a.h5", UnsupportedError, "classes holds class numbers")
    for name, message in (
        ("words", "text"),
        ("lists", "text, references"),
        ("classes", "class"),
        ("links", "references"),
    ):
        refused(tmp_path / "a.h5", UnsupportedError, message, variable=name)
    refused(tmp_path / "a.h5", UsageError, "no such array", variable="a type")


def test_values_in_other_files_are_not_touched(tmp_path: Path) -> None:
    data = np.arange(60.0).reshape(3, 4, 5)
    other = write(tmp_path / "other.h5", data)
    before = other.read_bytes()
    layout = h5py.VirtualLayout((3, 4, 5), "f8")
    layout[:] = h5py.VirtualSource(str(other), "cube", (3, 4, 5))
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        file.create_virtual_dataset("cube", layout)
    with h5py.File(tmp_path / "external.h5", "w") as file:
        file.create_dataset("cube", (3, 4, 5), "f8", external=[(str(tmp_path / "raw.bin"), 0, 480)])[...] = data
    for name in ("virtual", "external"):
        refused(tmp_path / f"{name}.h5", UnsupportedError, "lie in other files", axes="byx")
    swath = "HDFEOS/SWATHS/PRS_L1_HCO/Data Fields"
    with h5py.File(tmp_path / "linked.h5", "w") as file:
        file[f"{swath}/VNIR_Cube"] = h5py.ExternalLink(str(other), "cube")
        file["cube"] = h5py.ExternalLink(str(tmp_path / "none.h5"), "cube")
    refused(tmp_path / "linked.h5", UnsupportedError, "could be a scene")
    assert other.read_bytes() == before


def test_groups_that_hold_themselves_and_soft_links(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", np.ones((3, 4, 5)), "a/cube", interleave="bsq")
    with h5py.File(path, "r+") as file:
        file["a/loop"] = file["a"]
        file["same"] = file["a/cube"]  # a second name of the same array
        file["soft"] = h5py.SoftLink("/a/cube")
        file["dangling"] = h5py.SoftLink("/none")
    with open_cube(path) as cube:
        assert cube.shape == (3, 4, 5)


def test_a_filter_that_is_not_installed(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_chunk((3, 4, 5))
        plan.set_filter(31_999, h5py.h5z.FLAG_OPTIONAL, (3,))
        space = h5py.h5s.create_simple((3, 4, 5))
        h5py.h5d.create(file.id, b"cube", h5py.h5t.NATIVE_FLOAT, space, plan)
    refused(path, UnsupportedError, "filter 31999.*not installed; unpack it first", axes="byx")


def test_sizes_beyond_belief(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("cube", (100, 60_000, 60_000), "float32", chunks=(1, 256, 256)).attrs["interleave"] = "bsq"
    with pytest.raises(SceneTooLargeError, match=r"1341\.1 GiB.*--allow-large"):
        open_cube(path)
    with open_cube(path, allow_large=True) as cube:
        assert not cube.raw(Window(0, 3, 0, 4), [7]).any()


def test_netcdf_files_that_are_no_product_have_their_own_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with netCDF4.Dataset(tmp_path / "a.h5", "w") as file:
        file.createDimension("y", 4)
        file.createVariable("v", "f4", ("y", "y", "y"))
    reader = types.ModuleType("hsidenoise.io.netcdf")
    blank = Cube.of(np.zeros((1, 2, 2)))
    reader.open_netcdf = lambda name, options: replace(blank, name=name, format=options.axes)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "hsidenoise.io.netcdf", reader)
    opened = open_cube(tmp_path / "a.h5", axes="byx")
    assert (opened.name, opened.format) == (str(tmp_path / "a.h5"), "byx")
    assert open_cube(tmp_path / "a.h5", variable="none")  # whether that is there, it knows best


# ------------------------------------------------------------------------------------------------- outputs


def test_what_a_copy_cannot_be(files: dict[str, tuple[Path, dict[str, Any]]], tmp_path: Path) -> None:
    path, _ = files["neon"]
    for options, message in (
        ({"dtype": "float32"}, "keeps its int16"), ({"co": ("A=B",)}, "takes no --co")
    ):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            run(path, tmp_path / "a.h5", model="dct", quiet=True, **options)
    with pytest.raises(OutputExistsError):
        run(path, path, model="dct", quiet=True, overwrite=True)
    tiny.geotiff(tmp_path / "a.tif", tiny.cube(12).astype("float32"))
    with pytest.raises(UsageError, match="only an input of that format"):
        run(tmp_path / "a.tif", tmp_path / "b.h5", model="dct", quiet=True)
    assert sorted(os.listdir(tmp_path)) == ["a.tif"]


def test_an_interrupted_copy_leaves_nothing(files: dict[str, tuple[Path, dict[str, Any]]], tmp_path: Path) -> None:
    path, _ = files["prisma_l2d"]

    def interrupted() -> None:
        with open_cube(path) as cube, create_cube(tmp_path / "a.he5", cube) as writer:
            writer.write(0, cube.raw(Window(0, 9, 0, products.COLS)))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not os.listdir(tmp_path)


FULL = """
import os, resource, signal, sys
import numpy as np
from hsidenoise.errors import WriteError
from hsidenoise.io import create_cube, open_cube
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
source, folder = sys.argv[1:]
size = os.path.getsize(source)
rng = np.random.default_rng(0)
for limit in (size // 2, size + 10, size + 500, size + 3_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        with open_cube(source) as cube, create_cube(os.path.join(folder, "a.he5"), cube) as writer:
            for row in range(0, cube.shape[1], 4):  # does not pack, so that the copy must grow
                writer.write(row, rng.integers(0, 65_000, (cube.shape[0], 4, cube.shape[2]), "uint16"))
        print("written")
    except WriteError as error:
        print("refused", os.listdir(folder), error)
"""


def test_a_full_disk_is_an_error_and_no_crash(files: dict[str, tuple[Path, dict[str, Any]]], tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL, str(files["prisma_l1"][0]), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    assert all(re.match(r"refused \[\] .*a\.he5: cannot be written \(.*too large", line) for line in lines)


def test_inputs_may_be_read_only(files: dict[str, tuple[Path, dict[str, Any]]], tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    path = folder / "a.he5"
    path.write_bytes(files["prisma_l2d"][0].read_bytes())
    path.chmod(0o444)
    folder.chmod(0o555)
    try:
        with open_cube(path) as cube, create_cube(tmp_path / "b.he5", cube, provenance={"model": "none"}) as writer:
            for row in range(products.ROWS):  # rows by themselves; chunks hold eight
                writer.write(row, cube.raw(Window(row, row + 1, 0, products.COLS)))
    finally:
        folder.chmod(0o755)
    before, after = contents(path), contents(tmp_path / "b.he5")
    assert after[""].pop("hsidenoise")[1] == "model: none"
    assert after == before


def test_a_chunk_is_unpacked_once(tmp_path: Path) -> None:
    """Reading one row after another takes about as long as reading them all, though chunks are 100 rows high."""
    data = np.random.default_rng(0).integers(0, 4000, (200, 66, 400), "uint16")
    with h5py.File(tmp_path / "a.h5", "w") as file:  # the chunks of 100 rows are 5 MB, h5py's own cache 1 MB
        file.create_dataset("cube", data=data, chunks=(100, 6, 100), compression="gzip", compression_opts=1)
    with open_cube(tmp_path / "a.h5", axes="ybx") as cube:
        started = time.process_time()
        whole = cube.raw()
        middle = time.process_time()
        for row in range(0, 200, 4):
            assert np.array_equal(cube.raw(Window(row, row + 4, 0, 400)), whole[:, row : row + 4])
        assert time.process_time() - middle < 5 * (middle - started) + 0.2
    assert np.array_equal(whole, data.transpose(1, 0, 2))


def test_units_of_attributes(tmp_path: Path) -> None:
    data = np.ones((2, 3, 4), "uint8")
    units = {"center_wavelengths_units": "Micrometers", "fwhm_units": "Micrometers"}
    path = write(tmp_path / "a.h5", data, center_wavelengths=[0.3, 0.4], fwhm=[0.01, 0.02], **units)
    with open_cube(path) as cube:
        assert (cube.bands.wavelength, cube.bands.fwhm) == ((300.0, 400.0), (10.0, 20.0))
    write(path, data, center_wavelengths=[300, 400])
    with pytest.warns(GuessedUnitsWarning), open_cube(path) as cube:
        assert cube.bands.wavelength == (300.0, 400.0)


def test_real_files(shared: Path) -> None:
    good = shared / "files" / "good"
    with open_cube(good / "netcdf" / "fake_EMIT_L2A_with_good_wavelengths.nc") as cube:
        assert cube.raw()[0].tolist() == [[10, 20], [30, 40]]  # GDAL turns it upside down
        assert cube.geo.transform is None
    path = good / "hdf5" / "dummy_HDFEOS_with_utm_projection.h5"
    with rasterio.open(path) as known, open_cube(path) as cube:
        assert np.array_equal(cube.raw(), known.read())
        assert cube.geo.transform == known.transform[:6]
        assert CRS.from_wkt(cube.geo.crs or "") == known.crs
    lines = []
    for path in sorted(
        [*(good / "hdf5").glob("*.h5"), *(shared / "files" / "bad" / "derived" / "hdf").glob("prisma*")]
    ):
        if b"_NCProperties" in path.read_bytes() or path.name == "single_char_varname.h5":
            continue  # netCDF
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MetadataWarning)
            try:
                with open_cube(path) as cube:
                    cube.raw()
            except (ReadError, UsageError) as error:
                lines.append(str(error))
    assert not [line for line in lines if "\n" in line]
    assert sum(bool(re.search("truncated|damaged", line)) for line in lines) == 3


def test_a_heap_without_end_is_told_before_the_library_goes_round_in_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", np.zeros((2, 3, 4), "float32"))
    with h5py.File(path, "a") as file:
        file.attrs["words"] = np.array(["one", "two"], h5py.string_dtype())  # of variable length: they lie in a heap
    with open_cube(path, axes="byx") as cube:
        assert cube.shape == (2, 3, 4)
    content = bytearray(path.read_bytes())
    heap = content.index(b"GCOL")
    for size in (2**64 - 16, 2**63):
        content[heap + 24 : heap + 32] = size.to_bytes(8, "little")
        path.write_bytes(content)
        refused(path, ReadError, r"a heap at byte \d+ has no end", axes="byx")
