"""TIFF files whose pages are bands: read as one cube, written back page by page."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import rasterio
import tifffile
from PIL import Image
from scenes import copy, pixels, quiet, write_tiff

from hsidenoise.cube import Window
from hsidenoise.errors import MetadataWarning, ReadError, UnsupportedError, UsageError
from hsidenoise.io import create_cube, open_cube

CUBE = pixels((7, 33, 50), "uint16")


def stack(path, cube=CUBE, **options):
    tifffile.imwrite(path, cube, **{"photometric": "minisblack", **options})
    return path


def by_gdal(path, count):
    """Every page by GDAL, as an independent reader sees it."""
    with quiet():
        out = []
        for i in range(1, count + 1):
            with rasterio.open(f"GTIFF_DIR:{i}:{path}") as page:
                out.append(page.read(1))
    return np.array(out)


def by_pillow(path):
    with Image.open(path) as image:
        out = []
        for i in range(image.n_frames):
            image.seek(i)
            out.append(np.array(image))
        return np.array(out)


FORMS = {
    "plain": {"metadata": None},
    "shaped": {},
    "ImageJ": {"imagej": True},
    "OME": {"ome": True, "metadata": {"axes": "CYX"}},
    "big endian": {"byteorder": ">"},
    "BigTIFF": {"bigtiff": True},
    "deflate": {"compression": "zlib", "predictor": True},
    "LZW strips": {"compression": "lzw", "rowsperstrip": 5, "byteorder": ">"},
    "tiles": {"tile": (16, 32), "compression": "zlib"},
    "plain tiles": {"tile": (16, 32)},
    "one directory": {"truncate": True},
}


@pytest.mark.parametrize("form", FORMS)
def test_pages_are_bands_and_come_back_as_pages(tmp_path, form):
    source = stack(tmp_path / "a.tif", **FORMS[form])
    with open_cube(source) as cube:
        assert cube.shape == CUBE.shape
        assert cube.dtype == "uint16"
        np.testing.assert_array_equal(cube.raw(), CUBE)
        np.testing.assert_array_equal(cube.raw(Window(3, 20, 7, 31), [5, 0, 2]), CUBE[[5, 0, 2], 3:20, 7:31])
        with create_cube(tmp_path / "b.tif", cube, provenance={"software": "hsidenoise <1>"}) as writer:
            for row in range(0, 33, 8):
                block = cube.raw(Window(row, min(row + 8, 33), 0, 50))
                writer.write(row, block + 1)
    np.testing.assert_array_equal(by_gdal(tmp_path / "b.tif", 7), CUBE + 1)
    with tifffile.TiffFile(source) as old, tifffile.TiffFile(tmp_path / "b.tif") as new:
        assert len(new.pages) == 7
        assert (new.byteorder, new.is_bigtiff) == (old.byteorder, old.is_bigtiff)
        before, after = old.pages[0], new.pages[0]
        for key in ("compression", "predictor", "is_tiled", "rowsperstrip", "photometric", "software", "resolution"):
            assert getattr(after, key) == getattr(before, key), key
        if form != "one directory":
            assert after.description == before.description
            assert (new.series[0].kind, new.series[0].axes) == (old.series[0].kind, old.series[0].axes)
        np.testing.assert_array_equal(new.asarray(), CUBE + 1)
    with quiet(), rasterio.open(tmp_path / "b.tif") as found:
        assert found.tags(ns="HSIDENOISE") == {"software": "hsidenoise <1>"}
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_pillow_sees_the_same_pages(tmp_path):
    copy(stack(tmp_path / "a.tif"), tmp_path / "b.tif")
    np.testing.assert_array_equal(by_pillow(tmp_path / "b.tif"), CUBE)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint32", "int32", "float32", "float64"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_every_type_comes_back(tmp_path, dtype, compression):
    cube = pixels((3, 25, 26), dtype)
    source = stack(tmp_path / "a.tif", cube, compression=compression, predictor=bool(compression))
    copy(source, tmp_path / "b.tif")
    found = tifffile.imread(tmp_path / "b.tif")
    assert found.dtype == cube.dtype
    np.testing.assert_array_equal(found, cube)


@pytest.mark.parametrize("shape", [(2, 1, 1), (3, 1, 9), (3, 9, 1), (300, 4, 5)])
def test_small_and_many_pages(tmp_path, shape):
    cube = pixels(shape, "uint16")
    source = stack(tmp_path / "a.tif", cube, metadata=None)
    copy(source, tmp_path / "b.tif")
    np.testing.assert_array_equal(by_gdal(tmp_path / "b.tif", shape[0]), cube)


def test_tags_of_each_page_are_kept(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as target:
        for i, page in enumerate(CUBE):
            tags = [(285, 2, 0, f"band {i}", False), (65000, 12, 2, (i + 0.1, 2.5), False), (42113, 2, 0, "7", False)]
            target.write(page, metadata=None, description=f"page {i}", software="camera 3", extratags=tags,
                         resolution=((300, 7), (1, 3)), resolutionunit=3, datetime="2025:01:02 03:04:05")  # fmt: skip
    with open_cube(tmp_path / "a.tif") as cube:
        assert cube.bands.names == tuple(f"band {i}" for i in range(7))
        assert cube.nodata == (7,) * 7
    copy(tmp_path / "a.tif", tmp_path / "b.tif")
    own = {"StripOffsets", "StripByteCounts", "RowsPerStrip"}
    with tifffile.TiffFile(tmp_path / "a.tif") as old, tifffile.TiffFile(tmp_path / "b.tif") as new:
        for before, after in zip(old.pages, new.pages, strict=True):
            one, two = ({t.name: t.value for t in p.tags if t.name not in own} for p in (before, after))
            assert one == two


def test_a_second_run_changes_nothing_but_pixels(tmp_path):
    source = stack(tmp_path / "a.tif", compression="zlib")
    given = {"software": "hsidenoise 1", "model": "dct"}
    copy(source, tmp_path / "b.tif", provenance=given)
    copy(tmp_path / "b.tif", tmp_path / "c.tif", provenance=given)
    assert (tmp_path / "b.tif").read_bytes() == (tmp_path / "c.tif").read_bytes()


def test_of_gtiff_makes_a_raster_with_a_band_for_each_page(tmp_path):
    source = stack(tmp_path / "a.tif", metadata={"axes": "CYX"}, compression="zlib", software=False)
    copy(source, tmp_path / "b.tif", of="GTiff")
    copy(source, tmp_path / "c.img")
    for name in ("b.tif", "c.img"):
        with quiet(), rasterio.open(tmp_path / name) as found:
            assert found.count == 7
            np.testing.assert_array_equal(found.read(), CUBE)
            assert "TIFFTAG_IMAGEDESCRIPTION" not in found.tags()
    with open_cube(tmp_path / "b.tif") as cube:
        assert cube.shape == CUBE.shape


@pytest.mark.parametrize("options", [{"dtype": "float32"}, {"co": ("COMPRESS=LZW",)}, {"bands": [0, 3]}])
def test_what_pages_cannot_be_asked_for_makes_a_raster(tmp_path, options):
    source = stack(tmp_path / "a.tif", software=False)
    copy(source, tmp_path / "b.tif", **options)
    with quiet(), rasterio.open(tmp_path / "b.tif") as found:
        assert found.count == len(options.get("bands", CUBE))
        np.testing.assert_array_equal(found.read(2), CUBE[options.get("bands", [0, 1])[1]])
    with pytest.raises(UsageError, match="copy of the input"):
        copy(source, tmp_path / "c.tif", of="copy", **options)


def test_a_residual_of_integer_pages_is_a_raster(tmp_path):
    from hsidenoise.run import run

    rng = np.random.default_rng(1)
    ramp = np.linspace(100, 900, 20)[:, None, None] * np.linspace(0.5, 1, 24)[:, None] * np.ones(26)
    source = stack(tmp_path / "a.tif", (ramp + rng.normal(0, 20, ramp.shape)).astype("uint16"))
    run(source, tmp_path / "b.tif", model="dct", residual=tmp_path / "r.tif")
    with quiet(), rasterio.open(tmp_path / "r.tif") as removed:
        assert (removed.count, removed.dtypes[0]) == (20, "float32")
        out = by_gdal(tmp_path / "b.tif", 20)
        np.testing.assert_allclose(removed.read(), tifffile.imread(source).astype("f4") - out)
    assert np.abs(out - ramp).mean() < 10


def test_georeferencing_nodata_and_wavelengths_of_pages_gdal_wrote(tmp_path):
    path = tmp_path / "a.tif"
    for i, page in enumerate(CUBE[:3]):
        write_tiff(tmp_path / "one.tif", page[None], nodata=9, compress="deflate")
        with quiet(), rasterio.open(tmp_path / "one.tif", "r+") as one:
            one.update_tags(1, wavelength=str(450.5 + i), wavelength_units="nm")
            one.scales = [0.5 * (i + 1)]
        more = {"append_subdataset": "YES"} if i else {}
        with quiet():
            rasterio.shutil.copy(tmp_path / "one.tif", path, driver="GTiff", compress="lzw", **more)
    with open_cube(path) as cube:
        assert cube.bands.wavelength == (450.5, 451.5, 452.5)
        assert cube.scale == (0.5, 1.0, 1.5)
        assert cube.geo.transform == (30, 0, 500000, 0, -30, 4000000)
        assert "UTM zone 33N" in (cube.geo.crs or "")
        assert cube.nodata == (9, 9, 9)
    copy(path, tmp_path / "b.tif", provenance={"software": "s"})
    copy(path, tmp_path / "c.tif", of="GTiff")
    with quiet(), rasterio.open(f"GTIFF_DIR:1:{tmp_path / 'b.tif'}") as one, rasterio.open(tmp_path / "c.tif") as all_:
        for found in (one, all_):
            assert found.crs.to_epsg() == 32633
            assert found.transform[2] == 500000
            assert found.nodata == 9
        assert [all_.tags(i)["wavelength"] for i in (1, 2, 3)] == ["450.5", "451.5", "452.5"]
        assert all_.scales == (0.5, 1.0, 1.5)
    with open_cube(tmp_path / "b.tif") as cube:
        assert cube.bands.wavelength == (450.5, 451.5, 452.5)
        assert cube.scale == (0.5, 1.0, 1.5)


def test_overviews_masks_and_thumbnails_are_no_bands(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as target:
        for page in CUBE[:3]:
            target.write(page, metadata=None)
            target.write(page[::2, ::2], metadata=None, subfiletype=1)
        target.write(np.zeros((20, 20), "uint8"), metadata=None)
    with pytest.warns(MetadataWarning, match="left out .*20 x 20 uint8"):
        cube = open_cube(tmp_path / "a.tif")
    with cube:
        np.testing.assert_array_equal(cube.raw(), CUBE[:3])
    with quiet(), rasterio.open(write_tiff(tmp_path / "o.tif", CUBE, interleave="pixel"), "r+") as target:
        target.build_overviews([2])
    with open_cube(tmp_path / "o.tif") as cube:
        assert cube.shape == CUBE.shape


def test_a_subset_of_a_hyperstack_is_told_by_axes(tmp_path):
    cube = pixels((2, 5, 12, 11), "uint16")
    source = stack(tmp_path / "a.tif", cube, imagej=True, metadata={"axes": "TCYX"}, photometric=None)
    with pytest.raises(UsageError, match=r"axes TCYX .2 x 5 x 12 x 11.*--axes.*0byx"):
        open_cube(source)
    with open_cube(source, axes="1byx") as found, create_cube(tmp_path / "b.tif", found) as writer:
        np.testing.assert_array_equal(found.raw(), cube[1])
        writer.write(0, found.raw() // 2)
    expected = cube.copy()
    expected[1] //= 2
    with tifffile.TiffFile(tmp_path / "b.tif") as new:
        assert new.series[0].axes == "TCYX"
        np.testing.assert_array_equal(new.asarray(), expected)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_an_array_saved_rows_first_is_understood_with_axes(tmp_path, compression):
    source = stack(tmp_path / "a.tif", CUBE.transpose(1, 2, 0), compression=compression)
    with open_cube(source, axes="yxb") as cube:
        assert cube.shape == CUBE.shape
        np.testing.assert_array_equal(cube.raw(Window(2, 9, 1, 40)), CUBE[:, 2:9, 1:40])
    with open_cube(source, axes="yxb") as cube, create_cube(tmp_path / "b.tif", cube) as writer:
        for row in range(33):
            writer.write(row, cube.raw(Window(row, row + 1, 0, 50)))
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "b.tif"), CUBE.transpose(1, 2, 0))


@pytest.mark.parametrize("axes", ["bxx", "by", "9byx", "zyx", "byxb"])
def test_axes_that_do_not_fit(tmp_path, axes):
    with pytest.raises(UsageError, match="--axes"):
        open_cube(stack(tmp_path / "a.tif"), axes=axes)


def test_a_stack_among_several_is_chosen_by_variable(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as target:
        for page in [*CUBE[:3], *CUBE[3:, :20, :20]]:
            target.write(page, metadata=None)
    with pytest.raises(UsageError, match=r"--variable: 1: 3 x 33 x 50 uint16, 2: 4 x 20 x 20 uint16"):
        open_cube(tmp_path / "a.tif")
    with open_cube(tmp_path / "a.tif", variable="2") as cube:
        np.testing.assert_array_equal(cube.raw(), CUBE[3:, :20, :20])
    with pytest.raises(UsageError, match="--variable 5: choose one of 1: 3 x 33"):
        open_cube(tmp_path / "a.tif", variable="5")


def test_pages_of_different_sizes_are_listed_and_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as target:
        target.write(CUBE[0], metadata=None)
        target.write(CUBE[1, :9, :8], metadata=None)
    with pytest.raises(UnsupportedError, match=r"1: 33 x 50 uint16, 2: 9 x 8 uint16.*GTIFF_DIR:1:") as caught:
        open_cube(tmp_path / "a.tif")
    assert "\n" not in str(caught.value)
    with open_cube(f"GTIFF_DIR:2:{tmp_path / 'a.tif'}") as cube:
        assert cube.shape == (1, 9, 8)


def test_rgb_pages_are_pictures(tmp_path):
    stack(tmp_path / "a.tif", pixels((4, 8, 9, 3), "uint8"), photometric="rgb")
    with pytest.raises(UnsupportedError, match="pictures rather than bands"):
        open_cube(tmp_path / "a.tif")


def test_a_plain_tiff_takes_no_options_of_stacks(tmp_path):
    path = write_tiff(tmp_path / "a.tif", CUBE)
    for option in ("variable", "axes", "shape"):
        with pytest.raises(UsageError, match=f"--{option}"):
            open_cube(path, **{option: "1"})


@pytest.mark.parametrize("form", ["plain", "deflate", "one directory", "ImageJ"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
def test_a_truncated_stack_is_one_error(tmp_path, form, part):
    source = stack(tmp_path / "a.tif", **FORMS[form])
    os.truncate(source, int(source.stat().st_size * part))
    with pytest.raises(ReadError) as caught:
        open_cube(source).raw()
    assert "\n" not in str(caught.value)


def test_rot_inside_a_compressed_page_is_one_error(tmp_path):
    source = stack(tmp_path / "a.tif", compression="zlib")
    with tifffile.TiffFile(source) as tif:
        at = tif.pages[3].dataoffsets[0]
    with open(source, "r+b") as file:
        file.seek(at + 20)
        file.write(b"\xff" * 300)
    with open_cube(source) as cube:
        np.testing.assert_array_equal(cube.raw(bands=[0, 1]), CUBE[:2])
        with pytest.raises(ReadError, match="page 4"):
            cube.raw()


def test_each_compressed_page_is_unpacked_once(tmp_path, monkeypatch):
    from hsidenoise.io import planes

    source = stack(tmp_path / "a.tif", compression="zlib")
    seen = []
    unpack = planes.Planes._unpack
    monkeypatch.setattr(planes.Planes, "_unpack", lambda self, n, file: (seen.append(n), unpack(self, n, file)))
    with open_cube(source) as cube:
        assert seen == []
        for row in range(0, 33, 3):
            for col in (0, 25):
                cube.raw(Window(row, row + 3, col, col + 25), [1, 2])
    assert sorted(seen) == [1, 2]


def test_an_interrupted_copy_leaves_nothing(tmp_path):
    source = stack(tmp_path / "a.tif")
    with open_cube(source) as cube:
        writer = create_cube(tmp_path / "b.tif", cube)
        writer.__enter__()
        writer.write(0, cube.raw(Window(0, 8, 0, 50)))
        writer.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


def test_a_description_that_only_looks_like_a_stack(tmp_path):
    path = write_tiff(tmp_path / "a.tif", CUBE[:1], tags={"": {"TIFFTAG_IMAGEDESCRIPTION": 'ImageJ=1.5\nimages=1'}})
    with open_cube(path) as cube:
        assert cube.shape == (1, 33, 50)
    path = write_tiff(tmp_path / "b.tif", CUBE[:1], tags={"": {"TIFFTAG_IMAGEDESCRIPTION": json.dumps({"shape": [9]})}})
    with open_cube(path) as cube:
        assert cube.shape == (1, 33, 50)


def test_a_real_stack_with_pyramids_in_each_page(shared, tmp_path):
    source = shared / "files/good/geotiff/tiff_with_subifds.tif"
    with open_cube(source) as cube:
        assert cube.shape == (2, 512, 1024)
        expected = cube.raw()
    copy(source, tmp_path / "b.tif", step=100)
    np.testing.assert_array_equal(by_gdal(tmp_path / "b.tif", 2), expected)
    np.testing.assert_array_equal(by_gdal(source, 2), expected)
