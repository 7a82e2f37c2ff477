"""GeoTIFF, COG, VRT and JP2 in; GeoTIFF and COG out: everything but the pixels is as it was."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import tifffile
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from scenes import copy, everything, facts, pixels, quiet, write_envi, write_tiff

from hsidenoise.cube import Window
from hsidenoise.errors import ReadError, SceneTooLargeError, UnsupportedError, UsageError
from hsidenoise.io import gdal_env, open_cube

DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64", "int64", "uint64"]


@pytest.mark.parametrize("driver", ["GTiff", "COG"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_is_kept(tmp_path: Path, dtype: str, driver: str) -> None:
    cube = pixels((3, 20, 30), dtype)
    source = write_tiff(tmp_path / "a.tif", cube)
    copy(source, tmp_path / "b.tif", of=driver)
    with rasterio.open(tmp_path / "b.tif") as found:
        assert set(found.dtypes) == {dtype}
        assert np.array_equal(found.read(), cube)
        assert found.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == ("COG" if driver == "COG" else None)


@pytest.mark.parametrize(
    "layout",
    [
        {"interleave": "pixel"},
        {"interleave": "band"},
        {"interleave": "band", "compress": "deflate", "predictor": 2},
        {"interleave": "pixel", "compress": "zstd"},
        {"interleave": "band", "compress": "lzw", "tiled": True, "blockxsize": 16, "blockysize": 32},
        {"BIGTIFF": "YES", "ENDIANNESS": "BIG"},
        {"nbits": 12, "interleave": "band"},
    ],
    ids=str,
)
def test_layout_and_windows(tmp_path: Path, layout: dict) -> None:
    cube = pixels((6, 70, 50), "uint16") & 0xFFF
    source = write_tiff(tmp_path / "a.tif", cube, **layout)
    with open_cube(source) as opened:
        assert np.array_equal(opened.raw(Window(33, 65, 7, 50), [5, 0, 2]), cube[[5, 0, 2], 33:65, 7:50])
    copy(source, tmp_path / "b.tif", step=13)
    with rasterio.open(source) as before, rasterio.open(tmp_path / "b.tif") as after:
        assert np.array_equal(after.read(), cube)
        for key in ("INTERLEAVE", "COMPRESSION", "PREDICTOR"):
            assert after.tags(ns="IMAGE_STRUCTURE").get(key) == before.tags(ns="IMAGE_STRUCTURE").get(key)
        assert after.tags(1, ns="IMAGE_STRUCTURE") == before.tags(1, ns="IMAGE_STRUCTURE")
        if layout.get("tiled"):
            assert after.block_shapes == before.block_shapes


def test_compressed_strips_are_stored_once(tmp_path: Path) -> None:
    cube = np.zeros((40, 200, 100), "uint16")
    cube += pixels((1, 200, 100), "uint16")
    source = write_tiff(tmp_path / "a.tif", cube, compress="deflate", interleave="band")
    copy(source, tmp_path / "b.tif", step=1)
    assert (tmp_path / "b.tif").stat().st_size < 1.1 * source.stat().st_size


def test_many_pixel_interleaved_bands_become_planes_and_a_lossy_codec_a_lossless_one(tmp_path: Path) -> None:
    source = write_tiff(tmp_path / "a.tif", pixels((40, 8, 8)), interleave="pixel")
    copy(source, tmp_path / "b.tif")
    with rasterio.open(tmp_path / "b.tif") as found:
        assert found.profile["interleave"] == "band"
    source = write_tiff(tmp_path / "c.tif", pixels((3, 32, 32), "uint8"), compress="jpeg")
    copy(source, tmp_path / "d.tif")
    with open_cube(source) as before, rasterio.open(tmp_path / "d.tif") as after:
        assert after.profile["compress"] == "deflate"
        assert np.array_equal(after.read(), before.raw())


def rich_tiff(path: Path) -> Path:
    """A GeoTIFF with something in every corner."""
    write_tiff(path, pixels((4, 40, 50)), nodata=-9999, interleave="band", tags={
        "": {"campaign": "x=1", "TIFFTAG_SOFTWARE": "theirs", "TIFFTAG_DATETIME": "2020:01:02 03:04:05",
             "AREA_OR_POINT": "Point", "empty": ""},
        "ENVI": {"acquisition_time": "2024", "odd_key": "{a, b}"}, "MY_NS": {"k": "v"},
    })  # fmt: skip
    with rasterio.open(path, "r+") as target:
        for i in target.indexes:
            target.update_tags(i, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=str(0.41234567 + i / 10), FWHM_UM="0.0101")
            target.update_tags(i, wavelength=str(412.34567 + i * 100), wavelength_units="nm", bbl=str(int(i != 2)))
            target.update_tags(i, ns="MINE", number=str(i))
        target.descriptions = ["one", "two", "three (512.3 nm)", None]
        target.scales = [0.1, 0.2, 0.3, 0.4]
        target.offsets = [1, 2, 3, 4]
        target.units = ["W", "W", "", "W"]
    return path


@pytest.mark.parametrize("driver", ["GTiff", "COG"])
def test_metadata_in_every_namespace(tmp_path: Path, driver: str) -> None:
    source = rich_tiff(tmp_path / "a.tif")
    copy(source, tmp_path / "b.tif", of=driver, provenance={"model": "m", "options": "a=b"})
    assert everything(tmp_path / "b.tif") == everything(source)
    with rasterio.open(tmp_path / "b.tif") as found:
        assert found.tags(ns="HSIDENOISE") == {"model": "m", "options": "a=b"}
    copy(tmp_path / "b.tif", tmp_path / "c.tif", of=driver)
    with open_cube(tmp_path / "b.tif") as b, open_cube(tmp_path / "c.tif") as c:
        assert facts(b) == facts(c)
        assert b.bands.good == (True, False, True, True)
        assert b.bands.wavelength[0] == pytest.approx(512.34567)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tif", "b.tif", "c.tif"]


@pytest.mark.parametrize("driver", ["GTiff", "COG"])
@pytest.mark.parametrize("point", ["Area", "Point"])
def test_control_points_and_rpcs(tmp_path: Path, driver: str, point: str) -> None:
    source = tmp_path / "a.tif"
    with quiet(), rasterio.open(source, "w", driver="GTiff", count=1, height=9, width=9, dtype="uint8") as target:
        target.write(pixels((1, 9, 9), "uint8"))
        target.update_tags(AREA_OR_POINT=point)
        points = [GroundControlPoint(r, c, 5 + c, 40 - r, 1.5) for r in (1, 8) for c in (0, 3, 7)]
        target.gcps = points, rasterio.crs.CRS.from_epsg(4326)
        target.update_tags(ns="RPC", **rpc_tags())
    copy(source, tmp_path / "b.tif", of=driver)
    assert everything(tmp_path / "b.tif") == everything(source)


def rpc_tags() -> dict[str, str]:
    keys = ("LINE_OFF", "SAMP_OFF", "LAT_OFF", "LONG_OFF", "HEIGHT_OFF")
    tags = {k: str(i + 0.5) for i, k in enumerate((*keys, *(k.replace("OFF", "SCALE") for k in keys)))}
    return tags | {f"{a}_{b}_COEFF": " ".join(["0.25"] * 20) for a in ("LINE", "SAMP") for b in ("NUM", "DEN")}


@pytest.mark.parametrize("transform", [(20, 5, 4e5, 5, -20, 5e6), (30, 7, 5e5, -2, -29, 4e6), (1, 0, 0, 0, 2, 0)])
def test_rotated_sheared_and_south_up_grids(tmp_path: Path, transform: tuple) -> None:
    source = write_tiff(tmp_path / "a.tif", pixels(), transform=rasterio.Affine(*transform))
    copy(source, tmp_path / "b.tif")
    with open_cube(tmp_path / "b.tif") as opened:
        assert opened.geo.transform == transform


# Other containers, names, pages.


def test_vrt_and_jp2_become_tiff(tmp_path: Path) -> None:
    cube = pixels((3, 40, 50), "uint8")
    source = write_tiff(tmp_path / "a.tif", cube)
    rasterio.shutil.copy(source, tmp_path / "a.vrt", driver="VRT")
    rasterio.shutil.copy(source, tmp_path / "a.jp2", driver="JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES")
    for name in ("a.vrt", "a.jp2"):
        copy(tmp_path / name, tmp_path / f"out_{name}"[:-4])  # no suffix: neither can be written
        with rasterio.open(tmp_path / f"out_{name}"[:-4]) as found:
            assert found.driver == "GTiff"
            assert np.array_equal(found.read(), cube)
            assert found.crs.to_epsg() == 32633
        (tmp_path / f"out_{name}"[:-4]).unlink()


def test_gdal_names_are_not_mangled(tmp_path: Path) -> None:
    import zipfile

    cube = pixels()
    write_tiff(tmp_path / "a.tif", cube)
    write_envi(tmp_path / "b.img", cube, keys={"band names": "{A, B, C, D, E}", "wavelength units": "nm",
                                               "wavelength": "{450.1, 500, 600, 700, 800}"})  # fmt: skip
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for name in ("a.tif", "b.img", "b.hdr"):
            archive.write(tmp_path / name, name)
    for name in (f"/vsizip/{tmp_path}/z.zip/a.tif", f"zip://{tmp_path}/z.zip!b.img", f"GTIFF_DIR:1:{tmp_path}/a.tif"):
        with open_cube(name) as opened:
            assert opened.name == name
            assert np.array_equal(opened.raw(), cube)
            if "b.img" in name:
                assert opened.bands.names[0] == "A"
                assert opened.bands.wavelength[0] == 450.1
    with pytest.raises(ReadError, match="zip archive"):
        open_cube(tmp_path / "z.zip")
    with pytest.raises(ReadError, match="cannot be opened"):
        open_cube(f"/vsizip/{tmp_path}/z.zip/none.tif")


def test_sidecar_header_beside_a_tiff_gives_wavelengths_not_pixels(tmp_path: Path) -> None:
    cube = pixels()
    source = write_tiff(tmp_path / "a.tif", cube)
    keys = {"wavelength": "{400.25, 500, 600, 700, 800}", "wavelength units": "nm", "fwhm": "{3.5,3.5,3.5,3.5,3.5}"}
    write_envi(tmp_path / "a.raw", cube, keys=keys, header_path=tmp_path / "a.hdr").unlink()
    for name in ("a.tif", "a.hdr"):
        with open_cube(tmp_path / name) as opened:
            assert opened.format == "GTiff"
            assert np.array_equal(opened.raw(), cube)
            assert opened.bands.wavelength == (400.25, 500, 600, 700, 800)
    copy(source, tmp_path / "b.tif")
    with rasterio.open(tmp_path / "b.tif") as found:
        assert found.tags(1, ns="IMAGERY") == {"CENTRAL_WAVELENGTH_UM": "0.400250", "FWHM_UM": "0.003500"}


def test_trap_13_pages_are_bands_not_page_one_the_scene(tmp_path: Path) -> None:
    cube = pixels((7, 20, 30))
    tifffile.imwrite(tmp_path / "a.tif", cube, photometric="minisblack")
    with open_cube(tmp_path / "a.tif") as found:
        assert found.raw().tobytes() == cube.tobytes()
    with open_cube(f"GTIFF_DIR:2:{tmp_path / 'a.tif'}") as page:
        assert page.raw().tobytes() == cube[1].tobytes()
    source = write_tiff(tmp_path / "b.tif", pixels((2, 64, 64)))
    with rasterio.open(source, "r+") as target, rasterio.Env(GDAL_TIFF_INTERNAL_MASK="YES"):
        target.build_overviews([2, 4])
        target.write_mask(True)
    with open_cube(source) as opened:  # overviews and a mask are no pages
        assert opened.shape == (2, 64, 64)


def test_paletted_pixels_are_refused(tmp_path: Path) -> None:
    write_tiff(tmp_path / "p.tif", pixels((1, 4, 4), "uint8"))
    with rasterio.open(tmp_path / "p.tif", "r+") as target:
        target.write_colormap(1, {0: (0, 0, 0, 255), 1: (255, 0, 0, 255)})
    with pytest.raises(UnsupportedError, match="class numbers"):
        open_cube(tmp_path / "p.tif")


def test_one_bit_pixels_are_read(tmp_path: Path) -> None:
    cube = pixels((1, 9, 9), "uint8") & 1
    source = write_tiff(tmp_path / "a.tif", cube, nbits=1)
    copy(source, tmp_path / "b.tif")
    with rasterio.open(tmp_path / "b.tif") as found:
        assert np.array_equal(found.read(), cube)
        assert found.tags(1, ns="IMAGE_STRUCTURE")["NBITS"] == "1"


# Damage.


@pytest.mark.parametrize("compress", ["deflate", None])
def test_truncated_tiff_is_found_before_anything_is_written(tmp_path: Path, compress: str | None) -> None:
    source = write_tiff(tmp_path / "a.tif", pixels((3, 100, 100)), compress=compress, copy_src_overviews=True)
    content = source.read_bytes()
    source.write_bytes(content[: len(content) * 95 // 100])
    with pytest.raises(ReadError) as caught:
        open_cube(source)
    assert "\n" not in str(caught.value)


def test_rotten_block_is_a_read_error(tmp_path: Path) -> None:
    source = write_tiff(tmp_path / "a.tif", pixels((3, 100, 100)), compress="deflate", interleave="band")
    content = bytearray(source.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 500] = bytes(500)
    source.write_bytes(content)
    with open_cube(source) as opened, pytest.raises(ReadError, match=r"a\.tif: damaged"):
        opened.raw()


def test_size_bombs_are_refused_but_sparse_scenes_are_not(tmp_path: Path) -> None:
    profile = {"driver": "GTiff", "dtype": "uint8", "SPARSE_OK": "TRUE"}
    with quiet(), rasterio.open(tmp_path / "s.tif", "w", count=2, width=20_000, height=20_000, tiled=True, **profile):
        pass
    with open_cube(tmp_path / "s.tif") as opened:
        assert opened.raw(Window(0, 5, 0, 5)).max() == 0
    content = bytearray((tmp_path / "s.tif").read_bytes()[:1000])
    tiny = tmp_path / "t.tif"
    tifffile.imwrite(tiny, np.zeros((16, 16), "uint8"), rowsperstrip=16)
    content = bytearray(tiny.read_bytes())
    with tifffile.TiffFile(tiny) as found:
        for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            tag = found.pages[0].tags[name]
            content[tag.valueoffset : tag.valueoffset + 4] = (65000).to_bytes(4, "little")
            content[tag.offset + 2 : tag.offset + 4] = (4).to_bytes(2, "little")
    tiny.write_bytes(content)
    with pytest.raises(SceneTooLargeError, match="not credible"):
        open_cube(tiny)


# Manners.


def test_trap_8_nothing_is_written_beside_an_input(tmp_path: Path) -> None:
    source = rich_tiff(tmp_path / "in" / "a.tif") if (tmp_path / "in").mkdir() is None else None
    before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in (tmp_path / "in").iterdir()}
    copy(source, tmp_path / "b.tif")
    copy(source, tmp_path / "c.tif", of="COG")
    assert {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in (tmp_path / "in").iterdir()} == before


def test_statistics_of_the_noisy_pixels_are_not_carried(tmp_path: Path) -> None:
    source = write_tiff(tmp_path / "a.tif", pixels((1, 9, 9)))
    with rasterio.open(source, "r+") as target:
        target.update_tags(1, STATISTICS_MEAN="12", other="kept")
    copy(source, tmp_path / "b.tif")
    with rasterio.open(tmp_path / "b.tif") as found:
        assert found.tags(1) == {"other": "kept"}


def test_creation_options_override_and_unknown_ones_are_errors(tmp_path: Path) -> None:
    source = write_tiff(tmp_path / "a.tif", pixels((3, 64, 64)))
    copy(source, tmp_path / "b.tif", co=["COMPRESS=LZW", "tiled=YES", "BLOCKXSIZE=16", "BLOCKYSIZE=16"])
    with rasterio.open(tmp_path / "b.tif") as found:
        assert found.profile["compress"] == "lzw"
        assert found.block_shapes[0] == (16, 16)
    for bad, driver in (("COMRESS=LZW", "GTiff"), ("COMRESS=LZW", "COG"), ("COMPRESS", "GTiff")):
        with pytest.raises(UsageError, match="COM"):
            copy(source, tmp_path / "c.tif", co=[bad], of=driver)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tif", "b.tif"]


STREAM = """
import resource, sys
import numpy as np
from hsidenoise.cube import Window
from hsidenoise.io import create_cube, gdal_env, open_cube

peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
with gdal_env(["GDAL_CACHEMAX=16"]):
    with open_cube(sys.argv[1]) as cube:
        cube.raw(Window(0, 1, 0, 8))
        before = peak()
        with create_cube(sys.argv[2], cube, of=sys.argv[3], co=["BLOCKSIZE=128", "OVERVIEWS=NONE", "COMPRESS=NONE"]
                         if sys.argv[3] == "COG" else []) as writer:
            for row in range(0, cube.shape[1], 32):
                writer.write(row, cube.raw(Window(row, min(row + 32, cube.shape[1]), 0, cube.shape[2])))
    print(peak() - before)
"""


@pytest.mark.parametrize(("name", "driver"), [("b.tif", "GTiff"), ("b.tif", "COG"), ("b.img", "ENVI")])
def test_traps_6_and_15_memory_does_not_grow_with_the_scene(tmp_path: Path, name: str, driver: str) -> None:
    shape = (20, 2000, 2500)  # 200 MB
    source = tmp_path / "a.img"
    source.write_bytes(b"")
    os.truncate(source, int(np.prod(shape)) * 2)
    (tmp_path / "a.hdr").write_text("ENVI\nsamples = 2500\nlines = 2000\nbands = 20\ndata type = 2\n"
                                    "interleave = bil\nbyte order = 0\n")  # fmt: skip
    run = subprocess.run(
        [sys.executable, "-c", STREAM, source, tmp_path / name, driver], capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    assert run.stderr == ""
    assert int(run.stdout) < 100


def test_trap_15_cache_is_small_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    from rasterio._env import get_gdal_config

    monkeypatch.delenv("GDAL_CACHEMAX", raising=False)
    with gdal_env():
        assert get_gdal_config("GDAL_CACHEMAX") == 128 * 2**20
    with gdal_env(["GDAL_CACHEMAX=64", "GTIFF_POINT_GEO_IGNORE=TRUE"]):
        assert get_gdal_config("GDAL_CACHEMAX") == 64 * 2**20
        assert get_gdal_config("GTIFF_POINT_GEO_IGNORE")
        with gdal_env():  # what the functions of the package do inside
            assert get_gdal_config("GDAL_CACHEMAX") == 64 * 2**20
    with pytest.raises(UsageError, match="--config"), gdal_env(["GDAL_CACHEMAX"]):
        pass
    with gdal_env():
        assert get_gdal_config("GDAL_CACHEMAX") == 128 * 2**20


def test_colours_of_more_than_three_bands(tmp_path: Path) -> None:
    source = write_tiff(tmp_path / "a.tif", pixels((5, 9, 9), "uint16"))
    with rasterio.open(source) as found:
        assert ColorInterp.red not in found.colorinterp
    copy(source, tmp_path / "b.tif")
    assert everything(tmp_path / "b.tif") == everything(source)
    three = write_tiff(tmp_path / "c.tif", pixels((3, 9, 9), "uint8"), photometric="MINISBLACK")
    copy(three, tmp_path / "d.tif")
    assert everything(tmp_path / "d.tif") == everything(three)
