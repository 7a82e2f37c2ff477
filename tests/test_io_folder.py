"""Folders of one image for each band open as one scene; what is in the way of others is said."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine
from scenes import write_envi

from hsidenoise.cube import Cube, Window
from hsidenoise.errors import MetadataWarning, OutputExistsError, ReadError, UnsupportedError, UsageError
from hsidenoise.io import check_output, folder, hyperion, open_cube
from hsidenoise.run import run

EO1 = "EO1H1930232005001110KF"
L5, L8 = "LT52240631988227CUB02", "LC08_L2SP_224063_20200101_20200823_02_T1"
TILE = "T32TQM_20200101T101421"


def write(path: Path, band: NDArray[Any], *, size: float = 30, driver: str = "GTiff", **options: Any) -> Path:
    """One image; (rows, cols) or (bands, rows, cols)."""
    bands = band if band.ndim == 3 else band[None]
    grid = {"crs": "EPSG:32632", "transform": Affine(size, 0, 600000, 0, -size, 5100000)} if size else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver=driver, width=bands.shape[2], height=bands.shape[1], count=len(bands),
            dtype=bands.dtype, **grid, **options,
        ) as target:  # fmt: skip
            target.write(bands)
    return path


def numbered(count: int, shape: tuple[int, int] = (6, 7), dtype: str = "uint16") -> NDArray[Any]:
    """Bands that tell themselves apart."""
    pixels = np.arange(np.prod(shape)).reshape(shape)
    return np.stack([(pixels + 100 * i) % 250 for i in range(count)]).astype(dtype)


def incomplete(path: Path, match: str = "left out", **options: Any) -> Cube:
    """A folder whose opening warns of files that are no bands."""
    with pytest.warns(MetadataWarning, match=match):
        return open_cube(path, **options)


@pytest.fixture
def landsat(tmp_path: Path) -> Path:
    """Landsat 8: seven optical bands, cirrus, and files of other kinds."""
    where = tmp_path / "landsat"
    where.mkdir()
    bands = numbered(7)
    for i in range(7):
        write(where / f"{L8}_SR_B{i + 1}.TIF", bands[i])
    write(where / f"{L8}_ST_B10.TIF", bands[0])
    write(where / f"{L8}_QA_PIXEL.TIF", bands[0])
    write(where / f"{L8}_B8.TIF", numbered(1, (12, 14))[0], size=15)
    (where / f"{L8}_MTL.txt").write_text("GROUP = LANDSAT_METADATA_FILE\nEND_GROUP = LANDSAT_METADATA_FILE\nEND\n")
    return where


@pytest.fixture
def sentinel(tmp_path: Path) -> Path:
    """Sentinel-2 L2A as delivered: R10m and R20m under GRANULE/.../IMG_DATA."""
    data = tmp_path / "S2B.SAFE" / "GRANULE" / "L2A_T32TQM_A014" / "IMG_DATA"
    for size, names in ((10, ("B02", "B03", "B04", "B08")), (20, ("B05", "B8A", "B11", "B12"))):
        where = data / f"R{size}m"
        where.mkdir(parents=True)
        for i, name in enumerate(names):
            pixels = numbered(4, (480 // size, 640 // size))[i]
            write(where / f"{TILE}_{name}_{size}m.jp2", pixels, size=size, driver="JP2OpenJPEG", QUALITY=100,
                  REVERSIBLE="YES")  # fmt: skip
        write(where / f"{TILE}_TCI_{size}m.jp2", np.zeros((3, 48, 48), "uint8"), size=size, driver="JP2OpenJPEG")
    return data


@pytest.mark.parametrize("kept", [200, 2])
def test_hyperion_l1t(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    monkeypatch.setattr(folder, "_KEPT", kept)  # files beyond that are opened when they are read
    numbers = [5, 8, 9, 57, 70, 77, 100, 224]
    bands = numbered(8, dtype="int16")
    for i, n in reversed(list(enumerate(numbers))):
        write(tmp_path / f"{EO1}_B{n:03}_L1T.TIF", bands[i])
    metadata = tmp_path / f"{EO1}_MTL_L1T.TXT"
    metadata.write_text("GROUP = L1_METADATA_FILE\nEND_GROUP = L1_METADATA_FILE\nEND\n")
    for name in (tmp_path, metadata):
        with open_cube(name) as scene:
            np.testing.assert_array_equal(scene.raw(), bands)
            np.testing.assert_array_equal(scene.raw(Window(1, 4, 2, 6), [6, 0, 3]), bands[[6, 0, 3], 1:4, 2:6])
            assert scene.bands == hyperion.bands(numbers, [f"B{n:03}" for n in numbers])
            assert scene.bands.good == (False, True, True, True, False, True, True, True)
            assert scene.scale == (1 / 40,) * 5 + (1 / 80,) * 3
            assert scene.nodata == (0,) * 8
            assert scene.geo.transform == (30, 0, 600000, 0, -30, 5100000)
            assert scene.geo.crs is not None
            assert "32632" in scene.geo.crs


def test_hyperion_l1t_denoised_to_one_geotiff(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    numbers = [1, *range(20, 32), 60]
    y, x = np.mgrid[:48, :40]
    clean = np.stack([2000 + 400 * np.sin(y / 8 + n / 9) * np.cos(x / 9) for n in numbers])
    bands = (clean + rng.normal(0, 30, clean.shape)).astype("int16")
    bands[[0, -1]] = 0
    bands[:, :5, :5] = 0  # outside of the swath
    where = tmp_path / "scene"
    where.mkdir()
    for n, band in zip(numbers, bands, strict=True):
        write(where / f"{EO1}_B{n:03}_L1GST.TIF", band)
    before = sorted((p.name, p.stat().st_mtime_ns) for p in where.iterdir())
    record = run(where, tmp_path / "clean", quiet=True)
    assert record["bands_denoised"] == list(range(1, 13))
    with rasterio.open(tmp_path / "clean") as out:
        assert (out.driver, out.count, out.dtypes[0], out.nodata) == ("GTiff", 14, "int16", 0)
        assert out.crs.to_epsg() == 32632
        assert out.transform == Affine(30, 0, 600000, 0, -30, 5100000)
        assert out.descriptions == tuple(f"B{n:03}" for n in numbers)
        assert [float(out.tags(i)["wavelength"]) for i in out.indexes] == list(hyperion.bands(numbers).wavelength)
        assert out.scales == (1 / 40,) * 14
        pixels = out.read()
    assert (pixels[:, :5, :5] == 0).all()
    inside = np.s_[1:13, 8:, 8:]
    assert np.std(pixels[inside] - clean[inside]) < 0.6 * np.std(bands[inside] - clean[inside])
    assert sorted((p.name, p.stat().st_mtime_ns) for p in where.iterdir()) == before


def test_only_the_bands_asked_for_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "_KEPT", 0)
    bands = numbered(4)
    paths = [write(tmp_path / f"b{i}.tif", bands[i]) for i in range(4)]
    with open_cube(tmp_path) as scene:
        for i in (0, 1, 3):
            paths[i].unlink()
        np.testing.assert_array_equal(scene.raw(bands=[2]), bands[[2]])
        with pytest.raises(ReadError, match=r"b1.tif: no such file"):
            scene.raw(bands=[1])
        write(tmp_path / "b2.tif", numbered(1, (3, 3))[0])
        with pytest.raises(ReadError, match=r"b2.tif: changed while"):
            scene.raw(bands=[2])


def test_landsat_8(landsat: Path) -> None:
    for name in (landsat, landsat / f"{L8}_MTL.txt"):
        with incomplete(name, r"not among its 7 bands, left out: .*B8.TIF.*QA_PIXEL.*ST_B10") as scene:
            np.testing.assert_array_equal(scene.raw(), numbered(7))
            assert scene.bands.names == ("B1", "B2", "B3", "B4", "B5", "B6", "B7")
            assert scene.bands.wavelength == (440, 480, 560, 655, 865, 1610, 2200)
            assert scene.bands.fwhm == (20, 60, 60, 30, 30, 80, 180)
            assert scene.nodata == (0,) * 7
            assert str(landsat / f"{L8}_MTL.txt") in scene.layout["files"]


@pytest.mark.parametrize(
    ("scene", "wavelengths"),
    [
        (L5, (485, 560, 660, 830, 1650, 2215)),
        ("LE07_L1TP_224063_20200101_20200823_01_T1", (485, 560, 660, 835, 1650, 2220)),
        ("LM02_L1TP_240063_19780101_20200823_01_T2", ()),
    ],
)
def test_older_landsats(tmp_path: Path, scene: str, wavelengths: tuple[float, ...]) -> None:
    for i, n in enumerate((1, 2, 3, 4, 5, 7)):
        write(tmp_path / f"{scene}_B{n}.TIF", numbered(6, dtype="uint8")[i], nodata=255)
    with open_cube(tmp_path) as cube:
        assert cube.bands.wavelength == wavelengths
        assert cube.nodata == (255,) * 6  # what the files say themselves counts
        np.testing.assert_array_equal(cube.raw(), numbered(6, dtype="uint8"))


def test_two_scenes_in_one_folder(landsat: Path) -> None:
    other = L8.replace("224063", "224064")
    write(landsat / f"{other}_SR_B1.TIF", numbered(1)[0])
    (landsat / f"{other}_MTL.txt").write_text("GROUP = X\n")
    with pytest.raises(UsageError, match=rf"several scenes \({L8}, {other}\); name the MTL file"):
        open_cube(landsat)
    with incomplete(landsat / f"{L8}_MTL.txt") as cube:
        assert cube.shape[0] == 7


def test_two_files_for_one_band(tmp_path: Path) -> None:
    for level in ("L1T", "L1GST"):
        write(tmp_path / f"{EO1}_B020_{level}.TIF", numbered(1, dtype="int16")[0])
    with pytest.raises(UsageError, match="has several files for one band"):
        open_cube(tmp_path)


def test_sentinel_2_as_delivered(sentinel: Path) -> None:
    with incomplete(sentinel / "R10m", "left out: T32TQM.*TCI_10m") as cube:
        assert cube.bands.names == ("B02", "B03", "B04", "B08")
        assert cube.bands.wavelength == (490, 560, 665, 842)
        assert cube.shape == (4, 48, 64)
        assert cube.nodata == (0,) * 4
        np.testing.assert_array_equal(cube.raw(), numbered(4, (48, 64)))
    with incomplete(sentinel / "R20m") as cube:
        assert cube.bands.names == ("B05", "B8A", "B11", "B12")
        assert cube.bands.wavelength == (705, 865, 1610, 2190)
    for above in (sentinel, sentinel.parents[2]):
        with pytest.raises(UnsupportedError, match=r"is a directory without image .* in .*R10m, .*R20m: name that"):
            open_cube(above)


def test_sentinel_2_bands_of_several_grids_are_listed(sentinel: Path) -> None:
    mixed = sentinel.parents[2]
    for path in sentinel.glob("R*/*_B*.jp2"):
        path.rename(mixed / path.name.replace("_10m", "").replace("_20m", ""))  # as L1C names them
    listed = r"of 2 grids .*48x64-uint16: .*B02.*24x32-uint16: .*B05.*--variable"
    with pytest.raises(UsageError, match=listed) as caught:
        open_cube(mixed)
    assert "\n" not in str(caught.value)
    with incomplete(mixed, "left out: .*B02.*B08", variable="24x32") as cube:
        assert cube.bands.names == ("B05", "B8A", "B11", "B12")
    with pytest.raises(UsageError, match=r"--variable 10m: choose one grid of 48x64-uint16, 24x32-uint16"):
        open_cube(mixed, variable="10m")


def test_cave_and_other_png_folders(tmp_path: Path) -> None:
    cave = tmp_path / "balloons_ms"
    cave.mkdir()
    bands = numbered(31)
    for i in range(31):
        write(cave / f"balloons_ms_{i + 1:02}.png", bands[i], size=0, driver="PNG")
    write(cave / "balloons_RGB.bmp", np.zeros((3, 6, 7), "uint8"), size=0, driver="BMP")
    with incomplete(cave, "left out: balloons_RGB.bmp") as cube:
        np.testing.assert_array_equal(cube.raw(), bands)
        assert cube.bands.wavelength == tuple(400.0 + 10 * i for i in range(31))
        assert cube.nodata == (None,) * 31
        assert cube.dtype == "uint16"
    other = tmp_path / "lab"
    other.mkdir()
    for i in (0, 1, 9, 10):
        write(other / f"band{i + 1}.png", bands[i], size=0, driver="PNG")
    (other / "notes.txt").write_text("no image")
    (other / "._band1.png").write_bytes(b"of another system")
    with open_cube(other) as cube:
        assert cube.bands.names == ("band1", "band2", "band10", "band11")  # by number, not by letter
        np.testing.assert_array_equal(cube.raw(), bands[[0, 1, 9, 10]])
        assert cube.bands.wavelength == ()
    (cave / "balloons_ms_07.png").unlink()
    (cave / "balloons_RGB.bmp").unlink()
    with open_cube(cave) as cube:  # no longer 31
        assert cube.bands.wavelength == ()


def test_envi_parts_bring_their_own_wavelengths(tmp_path: Path) -> None:
    bands = numbered(3, dtype="float32")
    for i, name in enumerate(("radiance_2", "radiance_10", "radiance_1")):
        keys = {"wavelength": f"{{{450 + 10 * i}}}", "wavelength units": "nm", "data gain values": f"{{{i + 1}.5}}"}
        write_envi(tmp_path / f"{name}.img", bands[[i]], byte_order=1, keys=keys)
    with open_cube(tmp_path) as cube:
        np.testing.assert_array_equal(cube.raw(), bands[[2, 0, 1]])
        assert cube.bands.wavelength == (470, 450, 460)
        assert cube.bands.names == ("radiance_1", "radiance_2", "radiance_10")
        assert cube.scale == (3.5, 1.5, 2.5)


def test_masks_of_single_files_are_kept(tmp_path: Path) -> None:
    bands = numbered(3)
    for i in range(3):
        write(tmp_path / f"{i}.tif", bands[i])
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(tmp_path / "1.tif", "r+") as target:
        mask = np.ones((6, 7), bool)
        mask[2, 3] = False
        target.write_mask(mask)
    with open_cube(tmp_path) as cube:
        valid = cube.read()[1]
    assert not valid[1, 2, 3]
    assert valid.sum() == valid.size - 1


def test_what_is_in_the_way_is_said(tmp_path: Path) -> None:
    def refused(error: type[Exception], match: str, **options: Any) -> None:
        with pytest.raises(error, match=match) as caught:
            open_cube(tmp_path, **options)
        assert "\n" not in str(caught.value)

    refused(UnsupportedError, "is a directory without image files")
    write(tmp_path / "a1.tif", numbered(1)[0])
    refused(UsageError, "--axes", axes="byx")
    write(tmp_path / "a2.tif", numbered(1)[0], size=15)  # as many pixels, another grid
    refused(UsageError, r"images of 2 grids or types \(6x7-uint16: a1.tif; 6x7-uint16: a2.tif\); resample them")
    write(tmp_path / "a2.tif", numbered(1, dtype="int16")[0])
    refused(UsageError, r"6x7-uint16: a1.tif; 6x7-int16: a2.tif\); choose one with --variable, such as 6x7-int16")
    write(tmp_path / "a2.tif", numbered(3))
    refused(UnsupportedError, r"a2.tif in it has 3 bands; .*name the image file")
    (tmp_path / "a2.tif").write_text("version https://git-lfs.github.com/spec/v1\n")
    refused(ReadError, r"a2.tif: is a git-LFS pointer")
    whole = write(tmp_path / "a2.tif", numbered(1)[0]).read_bytes()
    (tmp_path / "a2.tif").write_bytes(whole[:-40])
    refused(ReadError, r"a2.tif: .*truncated")


def test_metadata_without_bands(tmp_path: Path) -> None:
    (tmp_path / f"{L8}_MTL.txt").write_text("GROUP = LANDSAT_METADATA_FILE\n")
    with pytest.raises(UnsupportedError, match=r"MTL.txt: no bands of this scene lie beside it"):
        open_cube(tmp_path / f"{L8}_MTL.txt")


def test_outputs_stay_out_of_an_input_folder(landsat: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(landsat)
    for name in (landsat / "clean.tif", link / "clean.img"):
        with pytest.raises(UsageError, match="lies in the input folder"):
            check_output(name, inputs=[landsat], overwrite=True)
    band = landsat / f"{L8}_SR_B3.TIF"
    (tmp_path / "hard.tif").hardlink_to(band)
    with pytest.raises(OutputExistsError, match="would replace the input"):
        check_output(tmp_path / "hard.tif", inputs=[landsat], overwrite=True)
    check_output(tmp_path / "clean.tif", inputs=[landsat], overwrite=False)
    inside = landsat / "out"
    inside.mkdir()
    check_output(inside / "clean.tif", inputs=[landsat], overwrite=False)  # folders in a folder are no bands
    # By its metadata file a scene's folder is not looked through, but its bands are still safe.
    before = band.read_bytes()
    with pytest.warns(MetadataWarning), pytest.raises(OutputExistsError, match="would replace the input"):
        run(landsat / f"{L8}_MTL.txt", band, overwrite=True, quiet=True)
    assert band.read_bytes() == before


def test_real_folders(shared: Path) -> None:
    files = shared / "files"
    with incomplete(files / "good" / "geotiff" / "landsat5_bands", f"left out: {L5}_B6.TIF") as scene:
        assert scene.shape == (6, 310, 287)
        with rasterio.open(files / "good" / "geotiff" / "landsat5_bands" / f"{L5}_B7.TIF") as last:
            np.testing.assert_array_equal(scene.raw(bands=[5])[0], last.read(1))
            assert scene.geo.transform == tuple(last.transform)[:6]
    with open_cube(files / "synth" / "hyperion_L1T") as scene:
        assert scene.shape == (207, 40, 36)
        assert scene.raw().any(axis=(1, 2)).sum() > 190
