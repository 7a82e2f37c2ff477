"""ENVI in and out: layouts, tolerant headers, honest refusals, and headers that keep what they said."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import spectral
import spectral.io.envi as spy
from scenes import copy, envi_header, facts, header_keys, pixels, quiet, write_envi, write_tiff

from hsidenoise.cube import Window
from hsidenoise.errors import GuessedUnitsWarning, MetadataWarning, ReadError, UnsupportedError, UsageError
from hsidenoise.io import open_cube

spectral.settings.envi_support_nonlowercase_params = True

UTM = "{UTM, 1, 1, 500000, 4000000, 30, 30, 33, North, WGS-84, units=Meters}"
FULL = {
    "description": "{\n  radiance, first try}",
    "wavelength units": "Micrometers",
    "wavelength": "{0.450100, 0.4600,\n 0.47, 0.48000001, 0.49}",
    "fwhm": "{0.0105, 0.0105, 0.0105, 0.0105, 0.0105}",
    "bbl": "{1, 1, 0, 1, 1}",
    "band names": "{blue (450), B 2, B 3, B 4, B 5}",
    "default bands": "{3, 2, 1}",
    "data ignore value": "-9999",
    "data gain values": "{0.5, 0.5, 0.5, 0.5, 0.5}",
    "data offset values": "{1, 2, 3, 4, 5}",
    "reflectance scale factor": "10000.000",
    "acquisition time": "2024-07-01T10:20:30Z",
    "map info": UTM,
    "sensor type": "Unknown",
    "fps_qpf": "29.84",
    "History Of Mine": "{one,\n two}",
}


@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip"])
@pytest.mark.parametrize("byte_order", [0, 1])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64", "int64"])
def test_layouts_read_and_copy_exactly(tmp_path: Path, interleave: str, byte_order: int, dtype: str) -> None:
    cube = pixels(dtype=dtype)
    data = write_envi(tmp_path / "a.img", cube, interleave=interleave, byte_order=byte_order, offset=13)
    with open_cube(data) as opened:
        assert opened.dtype == dtype
        assert np.array_equal(opened.raw(), cube)
        window = Window(2, 7, 3, 9)
        part = opened.raw(window, [4, 1])
        assert part.dtype.isnative
        assert np.array_equal(part, cube[[4, 1], 2:7, 3:9])
    copy(data, tmp_path / "b.img")
    assert (tmp_path / "b.img").read_bytes() == data.read_bytes()
    assert (tmp_path / "b.hdr").read_bytes() == (tmp_path / "a.hdr").read_bytes()
    with quiet(), rasterio.open(tmp_path / "b.img") as source:
        assert np.array_equal(source.read(), cube)
    assert np.array_equal(np.moveaxis(spy.open(str(tmp_path / "b.hdr")).open_memmap(), -1, 0), cube)


@pytest.mark.parametrize(
    ("data", "header", "name"),
    [
        ("a.img", "a.hdr", "a.hdr"), ("a.img", "a.hdr", "a.img"), ("a", "a.hdr", "a"), ("a", "a.hdr", "a.hdr"),
        ("a.img", "a.img.hdr", "a.img"), ("a.img", "a.img.hdr", "a.img.hdr"), ("A.IMG", "A.HDR", "A.HDR"),
        ("A.IMG", "A.HDR", "A.IMG"), ("a.odd", "a.hdr", "a.hdr"), ("x.1_img", "x.1_img.hdr", "x.1_img"),
    ],
)  # fmt: skip
def test_trap_3_header_or_data_file_may_be_named(tmp_path: Path, data: str, header: str, name: str) -> None:
    cube = pixels()
    write_envi(tmp_path / data, cube, header_path=tmp_path / header)
    with open_cube(tmp_path / name) as opened:
        assert np.array_equal(opened.raw(), cube)


def test_two_data_files_for_one_header(tmp_path: Path) -> None:
    cube = pixels()
    write_envi(tmp_path / "a.img", cube)
    (tmp_path / "a.dat").write_bytes(b"short")
    with open_cube(tmp_path / "a.hdr") as opened:  # only one fits
        assert np.array_equal(opened.raw(), cube)
    write_envi(tmp_path / "a.dat", cube)
    with pytest.raises(ReadError, match=r"a\.img, a\.dat.*give the data file itself"):
        open_cube(tmp_path / "a.hdr")


def text(cube: np.ndarray, **changes: str) -> str:
    """A plain header with some lines replaced (or, where empty, left out)."""
    lines = envi_header(cube).splitlines()
    for key, value in changes.items():
        key = key.replace("_", " ")
        lines = [line for line in lines if not line.startswith(key + " =")] + ([f"{key} = {value}"] if value else [])
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    "mangle",
    [
        lambda t: t.replace("\n", "\r\n"),
        lambda t: t.replace("\n", "\r"),
        lambda t: "\ufeff" + t,
        lambda t: "\n\n" + t,
        lambda t: t + "\0" * 200,
        lambda t: t.replace(" = ", "\t=\t"),
        lambda t: t.replace(" = ", "="),
        lambda t: t.upper(),
        lambda t: t.replace("bands", "; a = comment\n\nbands"),
        lambda t: t.replace("lines = 8", "lines = 8.0"),
        lambda t: t.replace("bands = 5", "bands = 4\nbands = 5"),
        lambda t: t + "description = {Größe 5µm}\n",
    ],
    ids=["crlf", "cr", "bom", "blank", "nul", "tabs", "tight", "upper", "comment", "float", "duplicate", "utf8"],
)
def test_tolerated_headers(tmp_path: Path, mangle) -> None:  # type: ignore[no-untyped-def]
    cube = pixels()
    data = write_envi(tmp_path / "a.img", cube, header=mangle(text(cube)).encode())
    with open_cube(data) as opened:
        assert np.array_equal(opened.raw(), cube)


@pytest.mark.parametrize(("encoding", "name"), [("latin-1", "Größe 5µm"), ("gb2312", "波段一"), ("utf-8", "波段一 é")])
def test_text_in_other_encodings_comes_back_byte_for_byte(tmp_path: Path, encoding: str, name: str) -> None:
    cube = pixels((1, 3, 4))
    header = (text(cube) + f"band names = {{{name}}}\n").encode(encoding)
    data = write_envi(tmp_path / "a.img", cube, header=header)
    with open_cube(data) as opened:
        assert opened.bands.names == (name,)
    copy(data, tmp_path / "b.img")
    assert (tmp_path / "b.hdr").read_bytes() == header


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_type": ""}, "lacks 'data type'"),
        ({"data_type": "7"}, "data type 7"),
        ({"samples": ""}, "lacks 'samples'"),
        ({"bands": "0"}, "bands = 0"),
        ({"bands": "-5"}, "bands = -5"),
        ({"lines": "8.5"}, r"lines = 8\.5"),
        ({"lines": "many"}, "lines = many"),
        ({"interleave": "xyz"}, "interleave = xyz"),
        ({"byte_order": "2"}, "byte order = 2"),
        ({"samples": "2000000000", "lines": "2000000000"}, "truncated: 800 bytes"),
        ({"header_offset": "99999"}, "beyond the file's 800 bytes"),
        ({"header_offset": "1"}, "truncated: 800 bytes where the header announces 801"),
        ({"wavelength": "{400, 500"}, "never closed"),
        ({"file_type": "ENVI Classification"}, "class numbers"),
        ({"file_type": "ENVI Spectral Library"}, "spectral library"),
    ],
)
def test_refused_headers_name_the_fault_in_one_line(tmp_path: Path, changes: dict, message: str) -> None:
    cube = pixels()
    data = write_envi(tmp_path / "a.img", cube, header=text(cube, **changes))
    with pytest.raises(ReadError, match=message) as caught:
        open_cube(data)
    assert "\n" not in str(caught.value)
    assert "a." in str(caught.value)


@pytest.mark.parametrize("missing", [1, 400])
def test_truncated_data_give_both_numbers(tmp_path: Path, missing: int) -> None:
    data = write_envi(tmp_path / "a.img", pixels())
    data.write_bytes(data.read_bytes()[:-missing])
    with pytest.raises(ReadError, match=f"{800 - missing} bytes where the header announces 800"):
        open_cube(tmp_path / "a.hdr")


def test_data_cut_while_open_is_an_error_not_a_crash(tmp_path: Path) -> None:
    data = write_envi(tmp_path / "a.img", pixels())
    with open_cube(data) as opened:
        data.write_bytes(data.read_bytes()[:500])
        with pytest.raises(ReadError, match="shrank"):
            opened.raw()


def test_longer_data_are_read_with_a_warning(tmp_path: Path) -> None:
    cube = pixels()
    data = write_envi(tmp_path / "a.img", cube)
    data.write_bytes(data.read_bytes() + b"x" * 100)
    with pytest.warns(MetadataWarning, match="100 bytes more"), open_cube(data) as opened:
        assert np.array_equal(opened.raw(), cube)


@pytest.mark.parametrize(("key", "guess"), [("interleave", "bsq"), ("byte_order", sys.byteorder)])
def test_missing_layout_keys_are_guessed_aloud_and_then_written(tmp_path: Path, key: str, guess: str) -> None:
    cube = pixels()
    data = write_envi(tmp_path / "a.img", cube, header=text(cube, **{key: ""}))
    with pytest.warns(MetadataWarning, match=f"lacks '{key.replace('_', ' ')}'; taken as {guess}"):
        copy(data, tmp_path / "b.img")
    with open_cube(tmp_path / "b.img") as opened:
        assert np.array_equal(opened.raw(), cube)


def test_gzip_data(tmp_path: Path) -> None:
    cube = pixels() % 16
    data = write_envi(tmp_path / "a.img", cube, keys={"file compression": "1"})
    plain = data.read_bytes()
    data.write_bytes(gzip.compress(plain))
    with open_cube(data) as opened:
        assert np.array_equal(opened.raw(), cube)
    copy(data, tmp_path / "b.img")
    assert (tmp_path / "b.img").read_bytes() == plain
    with open_cube(tmp_path / "b.hdr") as opened:
        assert np.array_equal(opened.raw(), cube)
    data.write_bytes(gzip.compress(plain)[:-20])
    with pytest.raises(ReadError, match="gzip data are damaged"):
        open_cube(data)
    write_envi(data, cube)
    data.write_bytes(gzip.compress(plain))
    with pytest.raises(ReadError, match="does not say 'file compression = 1'"):
        open_cube(data)


@pytest.mark.parametrize(("value", "expected"), [("-9999", -9999), ("nan", None), ("none", None), ("99999", None)])
def test_data_ignore_value(tmp_path: Path, value: str, expected: float | None) -> None:
    cube = pixels()
    cube[2, 3, 4] = -9999
    cube[0, 0, 0] = 0
    data = write_envi(tmp_path / "a.img", cube, keys={"data ignore value": value})
    if expected is None:
        with pytest.warns(MetadataWarning, match="data ignore value"):
            opened = open_cube(data)
    else:
        opened = open_cube(data)
    with opened:
        assert opened.nodata == (expected,) * 5
        assert np.array_equal(~opened.read()[1], (cube == expected) if expected else np.zeros(cube.shape, bool))


def test_trap_1_band_names_do_not_grow(tmp_path: Path) -> None:
    spectral_keys = ("band names", "wavelength", "wavelength units")
    write_envi(tmp_path / "0.img", pixels(), keys={k: FULL[k] for k in spectral_keys})
    with rasterio.Env(GDAL_PAM_ENABLED="NO"), quiet(), rasterio.open(tmp_path / "0.img") as source:
        assert source.descriptions[1] == "B 2 (0.4600 Micrometers)"  # what a plain copy would carry on
    for i in range(3):
        copy(tmp_path / f"{i}.img", tmp_path / f"{i + 1}.img")
    assert header_keys(tmp_path / "3.hdr")["band names"] == FULL["band names"]
    copy(tmp_path / "3.img", tmp_path / "4.tif")
    with quiet(), rasterio.open(tmp_path / "4.tif") as source:
        assert source.descriptions[:2] == ("blue (450)", "B 2")
    copy(tmp_path / "4.tif", tmp_path / "5.img")
    with open_cube(tmp_path / "5.img") as opened:
        assert opened.bands.names == ("blue (450)", "B 2", "B 3", "B 4", "B 5")


def test_trap_2_wavelengths_keep_every_digit(tmp_path: Path) -> None:
    write_envi(tmp_path / "a.img", pixels(), keys=FULL)
    with open_cube(tmp_path / "a.img") as opened:
        assert opened.bands.wavelength == (450.1, 460.0, 470.0, 480.00001, 490.0)
        assert opened.bands.fwhm[0] == 10.5
    copy(tmp_path / "a.img", tmp_path / "a.tif")
    with rasterio.open(tmp_path / "a.tif") as source:
        assert source.tags(1, ns="IMAGERY") == {"CENTRAL_WAVELENGTH_UM": "0.450100", "FWHM_UM": "0.010500"}
        assert source.tags(4, ns="IMAGERY")["CENTRAL_WAVELENGTH_UM"] == "0.48000001"


def test_trap_4_gains_are_scale_and_the_reflectance_factor_is_only_carried(tmp_path: Path) -> None:
    data = write_envi(tmp_path / "a.img", pixels(), keys=FULL)
    with open_cube(data) as opened:
        assert opened.scale == (0.5,) * 5
        assert opened.offset == (1, 2, 3, 4, 5)
        assert opened.tags["ENVI"]["reflectance_scale_factor"] == "10000.000"
    copy(data, tmp_path / "b.tif")
    copy(tmp_path / "b.tif", tmp_path / "c.img")
    assert header_keys(tmp_path / "c.hdr")["reflectance scale factor"] == "10000.000"
    with rasterio.open(tmp_path / "c.img") as source:
        assert source.scales == (0.5,) * 5
        assert source.offsets == (1, 2, 3, 4, 5)


def test_trap_5_wavelengths_without_unit_are_not_lost(tmp_path: Path) -> None:
    data = write_envi(tmp_path / "a.img", pixels(), keys={"wavelength": "{400, 500, 600, 700, 800}"})
    with pytest.warns(GuessedUnitsWarning):
        copy(data, tmp_path / "b.tif")
    with quiet(), rasterio.open(tmp_path / "b.tif") as source:
        assert source.tags(5, ns="IMAGERY")["CENTRAL_WAVELENGTH_UM"] == "0.800000"
        assert source.tags(5)["wavelength_units"] == "Nanometers"


def test_trap_7_no_sidecar_beside_envi_output(tmp_path: Path) -> None:
    copy(write_envi(tmp_path / "a.img", pixels(), keys=FULL), tmp_path / "b.img")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.hdr", "a.img", "b.hdr", "b.img"]


def test_a_stale_sidecar_does_not_beat_the_header(tmp_path: Path) -> None:
    data = write_envi(tmp_path / "a.img", pixels(), keys=FULL)
    (tmp_path / "a.img.aux.xml").write_text(
        '<PAMDataset><Metadata domain="ENVI"><MDI key="wavelength_units">Nanometers</MDI></Metadata>'
        "<SRS>EPSG:4326</SRS><GeoTransform>0, 1, 0, 0, 0, -1</GeoTransform></PAMDataset>"
    )
    with open_cube(data) as opened:
        assert opened.bands.wavelength[0] == 450.1
        assert opened.geo.transform == (30, 0, 500000, 0, -30, 4000000)
        assert "UTM" in (opened.geo.crs or "")


def test_trap_9_envi_to_tiff_and_back_keeps_every_key(tmp_path: Path) -> None:
    data = write_envi(tmp_path / "a.img", pixels(), keys=FULL)
    copy(data, tmp_path / "b.tif")
    with rasterio.open(tmp_path / "b.tif") as source:
        assert [source.tags(i)["bbl"] for i in source.indexes] == ["1", "1", "0", "1", "1"]
        assert source.tags(ns="ENVI")["acquisition_time"] == FULL["acquisition time"]
        assert source.nodata == -9999
    copy(tmp_path / "b.tif", tmp_path / "c.img")
    found = header_keys(tmp_path / "c.hdr")
    for key in ("wavelength units", "wavelength", "fwhm", "bbl", "band names", "default bands", "data ignore value",
                "acquisition time", "sensor type"):  # fmt: skip
        assert found[key] == FULL[key], key
    assert found["history of mine"] == FULL["History Of Mine"]


def test_headers_come_back_line_by_line(tmp_path: Path) -> None:
    cube = pixels()
    data = write_envi(tmp_path / "a.img", cube, interleave="bip", byte_order=1, keys=FULL)
    header = (tmp_path / "a.hdr").read_text()
    header = header.replace("default bands", "; by hand\ndefault   bands").replace("bands = 5", "bands   = 5")
    (tmp_path / "a.hdr").write_text(header)
    copy(data, tmp_path / "b.img", provenance={"version": "1", "model": "a {b}"})
    assert (tmp_path / "b.hdr").read_text() == header + "hsidenoise = {version: 1, model: a (b)}\n"
    assert (tmp_path / "b.img").read_bytes() == data.read_bytes()
    found = spy.open(str(tmp_path / "b.hdr"))
    assert found.metadata["hsidenoise"] == ["version: 1", "model: a (b)"]
    assert found.metadata["fps_qpf"] == "29.84"
    copy(tmp_path / "b.img", tmp_path / "c.img")  # twice: nothing is added
    assert (tmp_path / "c.hdr").read_text() == (tmp_path / "b.hdr").read_text()


def test_lists_of_the_wrong_length_are_carried_as_text(tmp_path: Path) -> None:
    data = write_envi(tmp_path / "a.img", pixels(), keys={"wavelength": "{1, 2}", "wavelength units": "nm"})
    with pytest.warns(MetadataWarning, match="2 wavelengths for 5 bands"):
        copy(data, tmp_path / "b.img")
    assert header_keys(tmp_path / "b.hdr")["wavelength"] == "{1, 2}"


def test_some_bands_only(tmp_path: Path) -> None:
    cube = pixels()
    data = write_envi(tmp_path / "a.img", cube, keys=FULL)
    copy(data, tmp_path / "b.bil", bands=[3, 0])
    found = spy.open(str(tmp_path / "b.hdr"))
    assert found.shape == (8, 10, 2)
    assert found.metadata["wavelength"] == ["0.48000001", "0.450100"]
    assert found.metadata["band names"] == ["B 4", "blue (450)"]
    assert found.metadata["interleave"] == "bil"  # what the suffix promises
    assert np.array_equal(np.moveaxis(found.open_memmap(), -1, 0), cube[[3, 0]])


def test_int8_is_refused_by_envi_and_kept_by_tiff(tmp_path: Path) -> None:
    cube = pixels(dtype="int8")
    source = write_tiff(tmp_path / "a.tif", cube)
    with pytest.raises(UsageError, match="no int8"):
        copy(source, tmp_path / "b.img")
    copy(source, tmp_path / "b.img", dtype="int16")
    with rasterio.open(tmp_path / "b.img") as found:
        assert np.array_equal(found.read(), cube)
    copy(source, tmp_path / "c.tif")
    with rasterio.open(tmp_path / "c.tif") as found:
        assert found.dtypes[0] == "int8"
        assert np.array_equal(found.read(), cube)


def test_names_with_commas_are_replaced_aloud(tmp_path: Path) -> None:
    source = write_tiff(tmp_path / "a.tif", pixels((2, 4, 4)))
    with rasterio.open(source, "r+") as target:
        target.descriptions = ["red, far", "b}c"]
    with pytest.warns(MetadataWarning, match="commas"):
        copy(source, tmp_path / "b.img")
    with open_cube(tmp_path / "b.img") as opened:
        assert opened.bands.names == ("red; far", "b)c")


def test_what_envi_cannot_hold_is_warned_of(tmp_path: Path) -> None:
    source = write_tiff(tmp_path / "a.tif", pixels(), tags={"": {"campaign": "x"}})
    with pytest.warns(MetadataWarning, match="campaign"):
        copy(source, tmp_path / "b.img")
    assert str(tmp_path) not in (tmp_path / "b.hdr").read_text()


@pytest.mark.parametrize("option", ["COMPRESS=ZSTD", "INTERLEAVE=XYZ"])
def test_creation_options_envi_does_not_have(tmp_path: Path, option: str) -> None:
    data = write_envi(tmp_path / "a.img", pixels())
    with pytest.raises(UsageError, match="INTERLEAVE=BSQ, BIL or BIP"):
        copy(data, tmp_path / "b.img", co=[option])


def test_nodata_override_reaches_the_header(tmp_path: Path) -> None:
    data = write_envi(tmp_path / "a.img", pixels(), keys=FULL)
    copy(data, tmp_path / "b.img", nodata="0")
    assert header_keys(tmp_path / "b.hdr")["data ignore value"] == "0"
    copy(data, tmp_path / "c.img", nodata="null")
    assert "data ignore value" not in header_keys(tmp_path / "c.hdr")
    with open_cube(data, nodata="7") as opened:
        assert opened.nodata == (7,) * 5


def test_copy_of_a_copy_is_the_copy(tmp_path: Path) -> None:
    write_envi(tmp_path / "a.img", pixels(), keys=FULL)
    copy(tmp_path / "a.img", tmp_path / "b.img")
    copy(tmp_path / "b.img", tmp_path / "c.img")
    with open_cube(tmp_path / "a.img") as a, open_cube(tmp_path / "b.img") as b, open_cube(tmp_path / "c.img") as c:
        assert facts(a) == facts(b) == facts(c)


def test_frame_offsets_are_refused(tmp_path: Path) -> None:
    keys = {"major frame offsets": "{0, 0}", "minor frame offsets": "{0, 16}"}
    data = write_envi(tmp_path / "a.img", pixels(), keys=keys)
    with pytest.raises(UnsupportedError, match="minor frame offsets"):
        open_cube(data)
