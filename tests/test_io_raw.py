"""Raw files without a header beside them: ``--header``, and classic AVIRIS."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import spectral
from scenes import copy, envi_header, facts, header_keys, pixels, write_envi, write_tiff

from hsidenoise.errors import GuessedUnitsWarning, MetadataWarning, ReadError, UsageError
from hsidenoise.io import create_cube, open_cube
from hsidenoise.settings import ReadOptions

CUBE = pixels((5, 8, 10))


def raw(path, cube=CUBE, order="<", axes=(0, 1, 2)):
    path.write_bytes(np.ascontiguousarray(cube.transpose(axes), cube.dtype.newbyteorder(order)).tobytes())
    return path


def test_a_header_from_anywhere(tmp_path):
    (tmp_path / "h").mkdir()
    head = tmp_path / "h" / "other.hdr"
    head.write_text(envi_header(CUBE) + "wavelength = {500, 510, 520, 530, 540}\nwavelength units = nm\n")
    with open_cube(raw(tmp_path / "scene"), header=head) as cube:
        np.testing.assert_array_equal(cube.raw(), CUBE)
        assert cube.bands.wavelength == (500, 510, 520, 530, 540)
        assert cube.layout["files"] == (str(tmp_path / "scene"), str(head))
        with create_cube(tmp_path / "out.img", cube) as writer:
            writer.write(0, cube.raw())
        with pytest.raises(UsageError, match="would replace the input"):
            create_cube(head, cube, overwrite=True)
    np.testing.assert_array_equal(spectral.open_image(tmp_path / "out.hdr").open_memmap(), CUBE.transpose(1, 2, 0))


def test_a_wrong_header_beside_the_file_is_overridden(tmp_path):
    write_envi(tmp_path / "a.img", CUBE, header=envi_header(CUBE.transpose(0, 2, 1)))
    (tmp_path / "right.hdr").write_text(envi_header(CUBE))
    with open_cube(tmp_path / "a.img", ReadOptions(header=tmp_path / "right.hdr")) as cube:
        np.testing.assert_array_equal(cube.raw(), CUBE)


@pytest.mark.parametrize(
    ("scene", "head", "error", "text"),
    [
        ("a.tif", "a.hdr", UsageError, "is a TIFF, no raw file"),
        ("a.hdr", "a.hdr", UsageError, "is a header itself"),
        ("a.bin", "a.bin", UsageError, "is no ENVI header"),
        ("a.bin", "no.hdr", ReadError, "no such file"),
        ("no.bin", "a.hdr", ReadError, "no such file"),
        ("short.bin", "a.hdr", ReadError, "truncated: 100 bytes where the header announces 800"),
        ("/vsigzip/a.bin", "a.hdr", UsageError, "--header"),
    ],
)
def test_what_a_header_cannot_be_given_for(tmp_path, scene, head, error, text):
    write_tiff(tmp_path / "a.tif", CUBE)
    (tmp_path / "a.hdr").write_text(envi_header(CUBE))
    raw(tmp_path / "a.bin")
    (tmp_path / "short.bin").write_bytes(b"\1" * 100)
    name = scene if scene.startswith("/vsi") else tmp_path / scene
    with pytest.raises(error, match=text) as caught:
        open_cube(name, header=tmp_path / head)
    assert "\n" not in str(caught.value)


def test_a_raw_file_without_a_header_is_told_of_the_option(tmp_path):
    path = raw(tmp_path / "f970619t01p02_r02_sc04_noheader.img", pixels((7, 9, 11)))
    with pytest.raises(ReadError, match="--header"):
        open_cube(path)


LINES = 3


@pytest.fixture(scope="module")
def aviris():
    """Pixels (bands, rows, cols) of three lines."""
    return pixels((224, LINES, 614), "int16")


def spc(path, rows=224):
    text = "".join(f"  {369.85 + 9.5828 * i:9.4f} {9.52 + i / 1000:7.4f}  0.20  0.05 {i + 1}\n" for i in range(rows))
    path.write_text(text)
    return path


@pytest.mark.parametrize("table", ["f970619t01p02_r02.a.spc", "f970619t01p02_r02.SPC", "f970619t01p02_r02_sc03.a.spc"])
def test_classic_aviris_opens_by_its_layout(tmp_path, aviris, table):
    spc(tmp_path / table)
    path = raw(tmp_path / "f970619t01p02_r02_sc03.a.img", aviris, ">", (1, 2, 0))
    with open_cube(path) as cube:
        assert cube.format == "ENVI"
        np.testing.assert_array_equal(cube.raw(), aviris)
        assert cube.bands.wavelength[:2] == (369.85, 379.4328)
        assert cube.bands.fwhm[:2] == (9.52, 9.521)
        assert cube.layout["files"] == (str(path), str(tmp_path / table))


def test_classic_aviris_comes_back_with_a_header(tmp_path, aviris):
    spc(tmp_path / "f970619t01p02_r02.a.spc")
    (tmp_path / "f970619t01p02_r02.a.gain").write_text("".join(f"{300 if i < 110 else 600} {i}\n" for i in range(224)))
    path = raw(tmp_path / "f970619t01p02_r02_sc03.a.img", aviris, ">", (1, 2, 0))
    copy(path, tmp_path / "b.img")
    assert (tmp_path / "b.img").read_bytes() == path.read_bytes()
    keys = header_keys(tmp_path / "b.hdr")
    assert (keys["interleave"], keys["byte order"], keys["wavelength units"]) == ("bip", "1", "Nanometers")
    found = spectral.open_image(tmp_path / "b.hdr")
    assert found.bands.centers[1] == 379.4328
    np.testing.assert_array_equal(found.open_memmap(), aviris.transpose(1, 2, 0))
    with open_cube(path) as one, open_cube(tmp_path / "b.img") as two:
        assert facts(one) == facts(two)
        assert one.scale[0] == 1 / 300
    copy(path, tmp_path / "c")
    assert (tmp_path / "c.hdr").exists()


def test_the_flight_name_alone_is_enough_but_says_no_wavelengths(tmp_path, aviris):
    path = raw(tmp_path / "f970619t01p02_r02_sc03.a.rfl", aviris, ">", (1, 2, 0))
    with pytest.warns(MetadataWarning, match="--wavelengths-from"):
        cube = open_cube(path)
    assert cube.shape == (224, LINES, 614)
    cube.close()
    with pytest.warns(GuessedUnitsWarning):
        cube = open_cube(path, wavelengths_from=spc(tmp_path / "w.dat"))
    assert cube.bands.wavelength[0] == 369.85
    cube.close()


def test_a_table_of_another_sensor_is_not_used(tmp_path, aviris):
    spc(tmp_path / "f970619t01p02_r02_sc03.spc", 200)
    path = raw(tmp_path / "f970619t01p02_r02_sc03.img", aviris, ">", (1, 2, 0))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with open_cube(path) as cube:
            assert cube.bands.wavelength == ()
    assert "no table of 224 bands" in str(seen[0].message)


def test_size_alone_makes_no_aviris_scene(tmp_path, aviris):
    with pytest.raises(ReadError, match="--header"):
        open_cube(raw(tmp_path / "something.img", aviris, ">", (1, 2, 0)))


@pytest.mark.filterwarnings("ignore::hsidenoise.errors.GuessedUnitsWarning")
def test_the_look_alike_without_a_header(shared):
    folder = shared / "files/synth/aviris_classic"
    with open_cube(folder / "f970619t01p02_r02_sc04_noheader.img", header=next(folder.glob("*.hdr"))) as cube:
        assert cube.shape == (224, 20, 64)
        assert cube.bands.wavelength[0] == 369.85
