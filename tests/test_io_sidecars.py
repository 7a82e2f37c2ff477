"""Files beside an image: metadata XML of EnMAP, headers of DESIS; and ``--wavelengths-from``."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from scenes import copy, envi_header, everything, header_keys, pixels, quiet, write_envi, write_tiff

from hsidenoise.errors import GuessedUnitsWarning, MetadataWarning, ReadError, UsageError
from hsidenoise.io import create_cube, open_cube

STEM = "ENMAP01-____L2A-DT0000001053_20220611T072305Z_002_V010400_20231221T134421Z"
# VNIR and SWIR take turns where they overlap, as in the wavelength-sorted products.
CENTRES = ("890.1", "902.25", "903.5", "914.0", "911.2", "926.0", "919.3", "938.0")
DETECTOR = "VSVSVSVS"


def metadata(centres=CENTRES, gains=None, prolog="", extra=""):
    gains = gains or ["0.0001"] * len(centres)
    bands = "".join(
        f'<bandID number="{i}"><wavelengthCenterOfBand>{c}</wavelengthCenterOfBand>'
        f"<FWHMOfBand>{7 + i / 10}</FWHMOfBand><GainOfBand>{g}</GainOfBand><OffsetOfBand>0.5</OffsetOfBand></bandID>\n"
        for i, (c, g) in enumerate(zip(centres, gains, strict=True), 1)
    )
    lists = "".join(
        f"<{d}ProductQuality><expectedChannelsList>"
        + ",".join(str(i) for i, x in enumerate(DETECTOR, 1) if x == d[0].upper())
        + f"</expectedChannelsList></{d}ProductQuality>\n"
        for d in ("vnir", "swir")
    )
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n{prolog}<hsi:level_X xmlns:hsi="x"><specific><bandCharacterisation>\n'
        f"{bands}</bandCharacterisation>{lists}</specific>{extra}</hsi:level_X>"
    )


def product(folder, kind="-SPECTRAL_IMAGE.TIF", bands=8, xml=None):
    (folder / f"{STEM}-METADATA.XML").write_text(metadata() if xml is None else xml)
    return write_tiff(folder / f"{STEM}{kind}", pixels((bands, 6, 7)), nodata=-32768)


def test_enmap_wavelengths_widths_and_gains_come_from_the_xml(tmp_path):
    with open_cube(product(tmp_path)) as cube:
        assert cube.bands.wavelength == tuple(map(float, CENTRES))
        assert cube.bands.fwhm == tuple(float(f"{7 + i / 10}") for i in range(1, 9))
        assert set(cube.scale) == {0.0001}
        assert set(cube.offset) == {0.5}
        assert [f.rpartition("-")[2] for f in cube.layout["files"]] == ["SPECTRAL_IMAGE.TIF", "METADATA.XML"]


def test_the_two_detectors_of_an_overlap_are_two_groups(tmp_path):
    with open_cube(product(tmp_path)) as cube:
        assert sorted(map(sorted, cube.bands.groups())) == [[0, 2, 4, 6], [1, 3, 5, 7]]


@pytest.mark.parametrize(("detector", "first"), [("VNIR", 0), ("SWIR", 1)])
def test_an_image_of_one_detector_gets_its_bands_only(tmp_path, detector, first):
    with open_cube(product(tmp_path, f"-SPECTRAL_IMAGE_{detector}.TIF", 4)) as cube:
        assert cube.bands.wavelength == tuple(map(float, CENTRES[first::2]))


@pytest.mark.parametrize("kind", ["-SPECTRAL_IMAGE_COG.tiff", "-Y01460273_X05670694-SPECTRAL_IMAGE.TIF"])
def test_other_names_of_the_image_find_the_same_xml(tmp_path, kind):
    with open_cube(product(tmp_path, kind)) as cube:
        assert cube.bands.wavelength[0] == 890.1


def test_what_the_xml_says_is_in_the_output_and_stays_there(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    first = copy(product(tmp_path), folder / "a.tif")
    second = copy(first, folder / "b.tif")
    with quiet(), rasterio.open(first) as found:
        assert [found.tags(i)["wavelength"] for i in found.indexes] == [repr(float(c)) for c in CENTRES]
        assert found.tags(3, ns="IMAGERY")["CENTRAL_WAVELENGTH_UM"] == "0.903500"
        assert (found.scales[0], found.offsets[0]) == (0.0001, 0.5)
    assert everything(first) == everything(second)
    with open_cube(second) as cube:
        assert sorted(map(sorted, cube.bands.groups())) == [[0, 2, 4, 6], [1, 3, 5, 7]]
    copy(product(tmp_path), folder / "c.img")
    keys = header_keys(folder / "c.hdr")
    assert keys["wavelength"] == "{890.1, 902.25, 903.5, 914.0, 911.2, 926.0, 919.3, 938.0}"
    assert keys["data gain values"].count("0.0001") == 8


def test_an_xml_that_does_not_fit_is_named_and_left_out(tmp_path):
    image = product(tmp_path, bands=5)
    with pytest.warns(MetadataWarning, match="tells of 8 bands, the image has 5"):
        cube = open_cube(image)
    assert cube.bands.wavelength == ()
    assert set(cube.scale) == {1.0}
    cube.close()


@pytest.mark.parametrize(
    ("xml", "fault"),
    [
        (metadata()[:400], "no element found|unclosed"),
        (metadata(prolog='<!DOCTYPE x [<!ENTITY a "b"><!ENTITY c "&a;&a;">]>\n', extra="&c;"), "declares entities"),
        (metadata(prolog='<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>\n'), "declares entities"),
        ("", "no element found"),
    ],
)
def test_a_damaged_or_hostile_xml_is_named_and_left_out(tmp_path, xml, fault):
    image = product(tmp_path, xml=xml)
    with pytest.warns(MetadataWarning, match=fault):
        cube = open_cube(image)
    assert cube.bands.wavelength == ()
    cube.close()


def test_tags_of_the_image_itself_come_first(tmp_path):
    image = product(tmp_path)
    with quiet(), rasterio.open(image, "r+") as target:
        for i in target.indexes:
            target.update_tags(i, wavelength=str(400 + i), wavelength_units="nm")
    with open_cube(image) as cube:
        assert cube.bands.wavelength[0] == 401
        assert set(cube.scale) == {1.0}


def test_desis_takes_wavelengths_and_gains_from_the_header_beside_it(tmp_path):
    cube = pixels((3, 4, 5))
    image = write_tiff(tmp_path / "DESIS-HSI-L1C-SPECTRAL_IMAGE.tif", cube)
    text = envi_header(cube) + "wavelength = {401.275, 404.117, 406.901}\nwavelength units = nanometers\n"
    image.with_suffix(".hdr").write_text(text + "data gain values = {0.01, 0.02, 0.03}\n")
    with open_cube(image) as found:
        assert found.bands.wavelength == (401.275, 404.117, 406.901)
        assert found.scale == (0.01, 0.02, 0.03)
        assert found.offset == (0.0, 0.0, 0.0)


TABLES = {
    "one column": "450\n550.5\n650\n",
    "two columns": "450, 10\n550.5, 11\n650, 12\n",
    "numbered": "1 450 10\n2 550.5 11\n3 650 12\n",
    "numbered from 0": "0\t450\t10\n1\t550.5\t11\n2\t650\t12\n",
    "um": "# of the sensor\nBand,Wavelength (um),FWHM (um)\n1,0.45,0.010\n2,0.5505,0.011\n3,0.65,0.012\n",
    "named columns": "fwhm;name;centre_nm\n10;a;450\n11;b;550,5\n12;c;650\n",
    "byte-order mark": "\ufeffwl\n450\n550.5\n650\n",
}


def test_a_table_in_latin_1_with_a_micro_sign(tmp_path):
    (tmp_path / "t.csv").write_bytes("centre µm\n0.45\n0.5505\n0.65\n".encode("latin-1"))
    image = write_tiff(tmp_path / "a.tif", pixels((3, 4, 5)))
    with open_cube(image, wavelengths_from=tmp_path / "t.csv") as cube:
        assert cube.bands.wavelength == (450.0, 550.5, 650.0)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.filterwarnings("ignore::hsidenoise.errors.GuessedUnitsWarning")
def test_tables_of_wavelengths(tmp_path, table):
    (tmp_path / "t.csv").write_text(TABLES[table], encoding="utf-8")
    image = write_tiff(tmp_path / "a.tif", pixels((3, 4, 5)))
    with open_cube(image, wavelengths_from=tmp_path / "t.csv") as cube:
        assert cube.bands.wavelength == (450.0, 550.5, 650.0)
        assert cube.bands.fwhm == (() if table in ("one column", "byte-order mark") else (10.0, 11.0, 12.0))


def test_a_guessed_unit_is_said(tmp_path):
    (tmp_path / "t.csv").write_text("0.45\n0.55\n0.65\n")
    image = write_tiff(tmp_path / "a.tif", pixels((3, 4, 5)))
    with pytest.warns(GuessedUnitsWarning, match="taken as um"):
        open_cube(image, wavelengths_from=tmp_path / "t.csv").close()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("450\n550\n", "it has 2 wavelengths, the scene has 3 bands"),
        ("450\n550\nabc\n", "row 3"),
        ("wavelength\n", "no number"),
        ("-1\n-2\n-3\n", "no wavelengths"),
        ("ENVI\nsamples = 1\n", "no wavelengths"),
        ("ENVI\nwavelength = {1, 2, 3, 4}\n", "it has 4 wavelengths, the scene has 3 bands"),
    ],
)
@pytest.mark.filterwarnings("ignore::hsidenoise.errors.MetadataWarning")
def test_lists_that_do_not_fit_are_refused_in_a_line(tmp_path, text, fault):
    (tmp_path / "t.csv").write_text(text)
    image = write_tiff(tmp_path / "a.tif", pixels((3, 4, 5)))
    with pytest.raises(UsageError, match=fault) as caught:
        open_cube(image, wavelengths_from=tmp_path / "t.csv")
    assert "\n" not in str(caught.value)


def test_no_such_file(tmp_path):
    image = write_tiff(tmp_path / "a.tif", pixels((3, 4, 5)))
    with pytest.raises(ReadError, match="no such file"):
        open_cube(image, wavelengths_from=tmp_path / "t.csv")


def source(folder, kind):
    """The same three wavelengths in a scene of one kind or another."""
    cube = pixels((3, 2, 2))
    keys = {"wavelength": "{450, 550.5, 650}", "wavelength units": "nm", "fwhm": "{10, 11, 12}"}
    if kind == "header without data":
        path = folder / "s.hdr"
        path.write_text("ENVI\n" + "".join(f"{k} = {v}\n" for k, v in keys.items()))
        return path
    if kind == "ENVI":
        return write_envi(folder / "s.img", cube, keys=keys)
    path = write_tiff(folder / "s.tif", cube)
    with quiet(), rasterio.open(path, "r+") as target:
        for i, (w, f) in enumerate(zip((450, 550.5, 650), (10, 11, 12), strict=True), 1):
            target.update_tags(i, wavelength=w, fwhm=f, wavelength_units="nm")
    return path


@pytest.mark.parametrize("kind", ["header without data", "ENVI", "GeoTIFF"])
def test_scenes_and_headers_lend_their_wavelengths(tmp_path, kind):
    image = write_envi(tmp_path / "a.img", pixels((3, 4, 5)))
    with open_cube(image, wavelengths_from=source(tmp_path, kind)) as cube:
        assert cube.bands.wavelength == (450.0, 550.5, 650.0)
        assert cube.bands.fwhm == (10.0, 11.0, 12.0)


def wrong(folder, kind):
    """A scene whose own wavelengths, told in every way there is, are not to be believed."""
    cube = pixels((3, 4, 5))
    keys = {"band names": "{a, b, c}", "Wavelength": "{1450, 1550, 1650}", "my key": "7", "wavelength units": "nm",
            "fwhm": "{1, 1, 1}"}  # fmt: skip
    if kind == "img":
        return write_envi(folder / "w.img", cube, keys=keys)
    path = write_tiff(folder / "w.tif", cube, tags={"ENVI": {"wavelength": "{1450, 1550, 1650}", "my_key": "7"}})
    with quiet(), rasterio.open(path, "r+") as target:
        target.update_tags(wavelength="{1450, 1550, 1650}")
        for i in target.indexes:
            target.update_tags(i, wavelength="1450", fwhm="1", wavelength_units="nm", keep="me")
            target.update_tags(i, ns="IMAGERY", CENTRAL_WAVELENGTH_UM="1.450", FWHM_UM="0.001")
            target.update_tags(i, ns="ENVI", wavelength="1450")
    return path


@pytest.mark.parametrize("kind", ["tif", "img"])
@pytest.mark.parametrize("out", ["tif", "img"])
def test_the_new_wavelengths_win_in_the_output_and_in_a_second_run(tmp_path, kind, out):
    (tmp_path / "t.csv").write_text("wavelength_nm,fwhm\n450,10\n550.5,11\n650,12\n")
    target = tmp_path / f"o.{out}"
    given = tmp_path / "t.csv"
    with open_cube(wrong(tmp_path, kind), wavelengths_from=given) as cube, create_cube(target, cube) as writer:
        writer.write(0, cube.raw())
    with open_cube(target) as cube:
        assert cube.bands.wavelength == (450.0, 550.5, 650.0)
        assert cube.bands.fwhm == (10.0, 11.0, 12.0)
    if out == "tif":
        with quiet(), rasterio.open(target) as found:
            every = [found.tags(ns=ns) for ns in ["", *found.tag_namespaces()]]
            every += [found.tags(i, ns=ns) for i in found.indexes for ns in ["", *found.tag_namespaces(i)]]
            assert not [v for tags in every for v in tags.values() if "1450" in v or "1.45" in v]
            assert found.tags(ns="ENVI")["my_key"] == "7"
    else:
        keys = header_keys(tmp_path / "o.hdr")
        assert {k.lower(): v for k, v in keys.items()}["wavelength"] == "{450.0, 550.5, 650.0}"
        assert "1450" not in (tmp_path / "o.hdr").read_text()
        assert keys["my key"] == "7"
    again = copy(target, tmp_path / f"p.{out}")
    with open_cube(target) as one, open_cube(again) as two:
        assert one.bands == two.bands


def test_the_table_is_an_input_that_is_never_written_over(tmp_path):
    table = tmp_path / "t.dat"
    table.write_text("nm\n450\n550\n650\n")
    cube = open_cube(write_tiff(tmp_path / "a.tif", pixels((3, 4, 5))), wavelengths_from=table)
    with pytest.raises(UsageError, match="would replace the input"):
        create_cube(table, cube, overwrite=True)
    cube.close()


def test_detectors_are_picked_with_their_bands(tmp_path):
    with open_cube(product(tmp_path)) as cube:
        assert cube.bands.select([1, 2]).detectors == ("SWIR", "VNIR")


def test_enmap_look_alikes(shared):
    found = {}
    for path in sorted(shared.glob("files/synth/enmap_L*/*.TIF")):
        with open_cube(path) as cube:
            found[path.stem.rpartition("-")[2] + path.parent.name[-3:]] = cube.bands
    assert [b.count for b in found.values()] == [133, 91, 224]
    assert all(np.isfinite(b.wavelength).all() for b in found.values())
    assert [len(b.groups()) for b in found.values()] == [1, 1, 2]
