"""Complex pixels: two real bands for each, and complex again in the output."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import spectral.io.envi
import tifffile
from scenes import copy, pixels, quiet, write_envi, write_tiff

from hsidenoise.errors import NoiseKindWarning, UnsupportedError, UsageError
from hsidenoise.info import describe
from hsidenoise.io import create_cube, open_cube
from hsidenoise.run import run


def scene(dtype: str = "complex64", shape: tuple[int, int, int] = (3, 8, 10)) -> np.ndarray:
    """Whole numbers, so that every complex type can hold them."""
    return (pixels(shape, "int16", 1) + 1j * pixels(shape, "int16", 2)).astype(dtype)


@pytest.mark.parametrize("stored", ["complex_int16", "complex64", "complex128"])
@pytest.mark.parametrize("compress", [None, "deflate"])
def test_geotiff_comes_back_complex(tmp_path: Path, stored: str, compress: str | None) -> None:
    cube = scene("complex128" if stored == "complex128" else "complex64")
    tags = {"": {"SENSOR": "made up"}}
    options = {"dtype": stored, "nodata": 0, "tags": tags} | ({"compress": compress} if compress else {})
    source = write_tiff(tmp_path / "a.tif", cube, **options)
    part = {"complex_int16": "int16", "complex64": "float32", "complex128": "float64"}[stored]
    with open_cube(source) as opened:
        assert (opened.shape, opened.dtype) == ((6, 8, 10), part)
        assert opened.bands.names[:3] == ("band 1 real", "band 1 imaginary", "band 2 real")
        assert np.array_equal(opened.raw()[::2], cube.real)
        assert np.array_equal(opened.raw(bands=[5, 0]), [cube[2].imag, cube[0].real])
    copy(source, tmp_path / "b.tif")
    copy(tmp_path / "b.tif", tmp_path / "c.tif", of="COG")
    for name in ("b.tif", "c.tif"):
        with rasterio.open(tmp_path / name) as found, rasterio.open(source) as before:
            assert set(found.dtypes) == {stored}
            assert np.array_equal(found.read(), cube)
            assert (found.crs, found.transform, found.nodata) == (before.crs, before.transform, 0)
            assert found.tags()["SENSOR"] == "made up"
            assert found.descriptions == before.descriptions


@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip"])
@pytest.mark.parametrize(("dtype", "byte_order"), [("complex64", 0), ("complex128", 1)])
def test_envi_comes_back_complex(tmp_path: Path, interleave: str, dtype: str, byte_order: int) -> None:
    cube = scene(dtype)
    source = write_envi(tmp_path / "a.img", cube, interleave=interleave, byte_order=byte_order)
    copy(source, tmp_path / "b.img")
    found = spectral.io.envi.open(str(tmp_path / "b.hdr"))
    assert np.array_equal(found.open_memmap(interleave="bsq"), cube)
    assert (tmp_path / "b.img").read_bytes() == source.read_bytes()


def test_other_outputs_take_the_parts_as_bands(tmp_path: Path) -> None:
    cube = scene()
    source = write_tiff(tmp_path / "a.tif", cube)
    copy(source, tmp_path / "b.tif", dtype="float64")
    with rasterio.open(tmp_path / "b.tif") as found:
        assert set(found.dtypes) == {"float64"}
        assert np.array_equal(found.read([1, 2]), [cube[0].real, cube[0].imag])
        assert found.descriptions[:2] == ("band 1 real", "band 1 imaginary")
    with open_cube(source) as opened, create_cube(tmp_path / "c.tif", opened, bands=[2, 3]) as writer:
        writer.write(0, opened.raw(bands=[2, 3]))
    with rasterio.open(tmp_path / "c.tif") as found:
        assert found.dtypes == ("complex64",)
        assert np.array_equal(found.read(1), cube[1])
    with open_cube(source) as opened, create_cube(tmp_path / "d.tif", opened, bands=[1, 2]) as writer:
        writer.write(0, opened.raw(bands=[1, 2]))
    with rasterio.open(tmp_path / "d.tif") as found:
        assert found.dtypes == ("float32", "float32")


@pytest.mark.parametrize("nodata", [0, float("nan")])
def test_both_parts_of_a_pixel_are_without_data(tmp_path: Path, nodata: float) -> None:
    cube = scene()
    cube[0, 0, 0] = nodata
    cube[0, 1, 1] = complex(0, 5)  # a measurement: only its real part is like the nodata value
    cube[1, 2, 2] = complex(3, np.inf)
    with open_cube(write_tiff(tmp_path / "a.tif", cube, nodata=nodata)) as opened:
        _, valid = opened.read()
    lost = np.argwhere(~valid).tolist()
    assert lost == [[0, 0, 0], [1, 0, 0], [2, 2, 2], [3, 2, 2]]


def test_noise_is_removed_from_both_parts(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    row, col = np.mgrid[:48, :48] / 48
    clean = 100 * np.stack([np.exp(1j * k * (row + col)) * (1 + row * col) for k in range(1, 6)])
    noise = 5 * (generator.standard_normal(clean.shape) + 1j * generator.standard_normal(clean.shape))
    source = write_tiff(tmp_path / "a.tif", (clean + noise).astype("complex64"))
    out, numbers = tmp_path / "b.tif", tmp_path / "report.json"
    files = {"residual": tmp_path / "r.tif", "report": tmp_path / "report.html", "stac": tmp_path / "item.json"}
    with pytest.warns(NoiseKindWarning, match="speckle"):
        run(source, out, quiet=True, device="cpu", **files)
    with rasterio.open(out) as found, rasterio.open(tmp_path / "r.tif") as residual:
        assert set(found.dtypes) == {"complex64"}
        left = found.read() - clean
        assert residual.count == 10
        removed = residual.read()
    for part, was in ((left.real, noise.real), (left.imag, noise.imag)):
        assert np.std(part) < 0.5 * np.std(was)
    np.testing.assert_allclose(removed[1::2], (noise - left).imag, atol=1e-3)
    assert len(json.loads(numbers.read_text())["bands"]) == 10
    item = json.loads((tmp_path / "item.json").read_text())
    assert [band["data_type"] for band in item["assets"]["data"]["bands"]] == ["cfloat32"] * 5


def test_bands_are_chosen_by_their_number_in_the_file(tmp_path: Path) -> None:
    cube = scene("complex64", (3, 32, 32))
    source = write_tiff(tmp_path / "a.tif", cube)
    with pytest.warns(NoiseKindWarning):
        record = run(source, tmp_path / "b.tif", quiet=True, device="cpu", bidx="2..3", dry_run=True)
    assert record["bands_denoised"] == [2, 3, 4, 5]
    with pytest.raises(UsageError, match="bands 1 to 3"), pytest.warns(NoiseKindWarning):
        run(source, tmp_path / "b.tif", quiet=True, device="cpu", bidx="4")
    assert (describe(source)["bands"], describe(source)["dtype"]) == (3, "complex64")


@pytest.mark.parametrize("stored", ["complex_int16", "complex64"])
def test_measurements_do_not_become_nodata(tmp_path: Path, stored: str) -> None:
    cube = scene("complex64")
    cube[:, :2] = 0
    source = write_tiff(tmp_path / "a.tif", cube, dtype=stored, nodata=0)
    with open_cube(source) as opened, create_cube(tmp_path / "b.tif", opened) as writer:
        for row in (0, 4):
            writer.write(row, np.zeros((6, 4, 10), opened.dtype))
    with rasterio.open(tmp_path / "b.tif") as found:
        assert np.array_equal(found.read() == 0, cube == 0)
        assert np.abs(found.read()).max() <= 1


def test_headers_of_parts_describe_parts(tmp_path: Path) -> None:
    keys = {"wavelength": "{500, 510, 520}", "wavelength units": "Nanometers", "band names": "{a, b, c}"}
    source = write_envi(tmp_path / "a.img", scene(), keys=keys)
    copy(source, tmp_path / "b.img", dtype="float32")
    metadata = spectral.io.envi.open(str(tmp_path / "b.hdr")).metadata
    assert metadata["band names"] == ["a real", "a imaginary", "b real", "b imaginary", "c real", "c imaginary"]
    assert list(map(float, metadata["wavelength"])) == [500, 500, 510, 510, 520, 520]


def test_tiff_of_pages_comes_back_complex(tmp_path: Path) -> None:
    cube = scene()
    tifffile.imwrite(tmp_path / "a.tif", cube, photometric="minisblack", metadata=None)
    copy(tmp_path / "a.tif", tmp_path / "b.tif")
    assert np.array_equal(tifffile.imread(tmp_path / "b.tif"), cube)
    copy(tmp_path / "a.tif", tmp_path / "c.tif", dtype="float32")
    assert np.array_equal(tifffile.imread(tmp_path / "c.tif")[:2], [cube[0].real, cube[0].imag])


def test_a_folder_of_complex_bands_is_refused_by_name(tmp_path: Path) -> None:
    for band in "12":
        write_tiff(tmp_path / f"B{band}.tif", scene(shape=(1, 8, 10)))
    with pytest.raises(UnsupportedError, match=r"B1\.tif in it is complex.*gdalbuildvrt"):
        open_cube(tmp_path)


def test_complex_integers_of_32_bits_are_refused(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a.tif", scene(shape=(1, 8, 10)), dtype="complex_int16")
    band = '<VRTRasterBand dataType="CInt32" band="1"><SimpleSource><SourceFilename relativeToVRT="1">a.tif'
    end = "</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    (tmp_path / "a.vrt").write_text(f'<VRTDataset rasterXSize="10" rasterYSize="8">{band}{end}')
    with pytest.raises(UnsupportedError, match=r"complex integers of 32 bits.*gdal_translate"), quiet():
        open_cube(tmp_path / "a.vrt")

