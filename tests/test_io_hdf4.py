"""HDF4: EO-1 Hyperion and any other data set, read, and written back as a copy of the file; outputs read with pyhdf."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning

from hsidenoise.cube import Window
from hsidenoise.errors import MetadataWarning, ReadError, SceneTooLargeError, UnsupportedError, UsageError, WriteError
from hsidenoise.info import describe
from hsidenoise.io import create_cube, hdf4, hyperion, open_cube
from hsidenoise.run import run

pyhdf = pytest.importorskip("pyhdf")
from pyhdf import VS, V  # noqa: E402, F401 - tables are not there without them
from pyhdf.HDF import HC, HDF  # noqa: E402
from pyhdf.SD import SD, SDC  # noqa: E402

TYPES = {"int16": SDC.INT16, "uint16": SDC.UINT16, "float32": SDC.FLOAT32, "uint8": SDC.UINT8, "int32": SDC.INT32}
NAME = "EO1H0010012003001110KZ.L1R"


def write(path: Path, arrays: dict[str, NDArray[Any]], *, compress: bool = False, **attributes: Any) -> Path:
    """An HDF4 file of data sets; `attributes` go to the first one."""
    file = SD(str(path), SDC.WRITE | SDC.CREATE)
    for name, values in arrays.items():
        item = file.create(name, TYPES[values.dtype.name], values.shape)
        if compress:
            item.setcompress(SDC.COMP_DEFLATE, 6)
        for key, value in attributes.items():
            kind = SDC.CHAR8 if isinstance(value, str) else SDC.FLOAT64 if isinstance(value, float) else SDC.INT32
            item.attr(key).set(kind, value)
        attributes = {}
        item[:] = values
        item.endaccess()
    file.end()
    return path


def values(path: Path, name: str | int = 0) -> NDArray[Any]:
    """A data set, read by pyhdf."""
    file = SD(str(path))
    item = file.select(name)
    found = np.array(item[:])
    item.endaccess()
    file.end()
    return found


def radiance(lines: int = 48, samples: int = 40, dtype: str = "int16") -> NDArray[Any]:
    """A Hyperion look-alike (lines, 242, samples): smooth spectra, noise, zeros where uncalibrated."""
    rng = np.random.default_rng(1)
    y, x, b = np.arange(lines)[:, None, None], np.arange(samples)[None, None, :], np.arange(242)[None, :, None]
    scene = 1500 + 500 * np.sin(y / 9) * np.cos(x / 7) * np.exp(-(((b - 60) / 90) ** 2)) + 300 * np.cos(b / 40 + x / 15)
    cube = scene + rng.normal(0, 40, (lines, 242, samples))
    cube[:, [i for i in range(242) if not (7 <= i < 57 or 76 <= i < 224)]] = 0
    return cube.round().astype(dtype)


def test_hyperions_bands_are_those_of_the_published_table() -> None:
    bands = hyperion.bands(range(1, 243))
    assert [bands.wavelength[n - 1] for n in (1, 8, 40, 57, 70, 71, 77, 120, 224, 242)] == [
        355.59, 426.82, 752.43, 925.41, 1057.68, 851.92, 912.45, 1346.25, 2395.5, 2577.08
    ]  # fmt: skip
    assert [bands.fwhm[n - 1] for n in (1, 14, 31, 70, 71, 117, 156, 242)] == [
        11.3871, 11.3784, 10.2856, 11.2754, 11.0457, 10.6937, 11.5634, 10.4077
    ]  # fmt: skip
    steps = np.diff(bands.wavelength)
    assert ((steps[:69] > 10.16) & (steps[:69] < 10.19)).all()
    assert ((steps[70:] > 9.98) & (steps[70:] < 10.14)).all()
    assert [i + 1 for i, good in enumerate(bands.good) if good] == [*range(8, 58), *range(77, 225)]


def test_a_hyperion_scene_is_known_by_its_name_or_its_width(tmp_path: Path) -> None:
    cube = radiance(6, 10)
    path = write(tmp_path / NAME, {NAME: cube})
    with open_cube(path) as scene:
        assert (scene.format, scene.shape, scene.dtype) == ("HDF4", (242, 6, 10), "int16")
        assert scene.raw().dtype.isnative
        np.testing.assert_array_equal(scene.raw(), cube.transpose(1, 0, 2))
        window, some = Window(2, 5, 3, 9), [200, 3, 77]
        np.testing.assert_array_equal(scene.raw(window, some), cube.transpose(1, 0, 2)[some, 2:5, 3:9])
        assert scene.scale == (1 / 40,) * 70 + (1 / 80,) * 172
        assert scene.nodata == (None,) * 242
        assert scene.bands.groups() == [list(range(7, 57)), list(range(76, 224))]
    with open_cube(write(tmp_path / "old.hdf", {"EO12000147_01CD01CC_r1.L1": cube.astype("uint16")})) as old:
        assert old.scale == (1 / 100,) * 242  # the first products: unsigned, radiance x 100
    wide = np.zeros((2, 242, 256), "int16")
    wide[0] = 1
    with open_cube(write(tmp_path / "renamed.bin", {"data": wide})) as renamed:
        assert renamed.bands.wavelength[0] == 355.59
    with pytest.raises(UsageError, match=r"data \(6 x 242 x 10 int16\).*--axes"):
        open_cube(write(tmp_path / "any.hdf", {"data": cube}))


def test_hyperion_from_hdf4_to_geotiff_and_report(tmp_path: Path) -> None:
    cube = radiance().transpose(1, 0, 2)
    path = write(tmp_path / NAME, {NAME: cube.transpose(1, 0, 2)})
    before = path.read_bytes()
    record = run(path, tmp_path / "clean.tif", report=tmp_path / "r.html", quiet=True)
    assert record["bands_denoised"] == [*range(7, 57), *range(76, 224)]
    assert len(record["bands_passed"]) == 44
    report = json.loads((tmp_path / "r.json").read_text())
    assert [b["wavelength"] for b in report["bands"]] == list(hyperion.bands(range(1, 243)).wavelength)
    assert [b["band"] - 1 for b in report["bands"] if b["status"] != "passed"] == record["bands_denoised"]
    assert [c["name"] for c in report["checks"] if not c["ok"]] == []
    assert "925.4" in (tmp_path / "r.html").read_text()
    with pytest.warns(NotGeoreferencedWarning):
        clean = rasterio.open(tmp_path / "clean.tif")
    with clean:
        pixels = clean.read()
        assert (clean.count, clean.dtypes[0]) == (242, "int16")
        assert clean.scales == (1 / 40,) * 70 + (1 / 80,) * 172
        assert (clean.tags(8)["wavelength"], clean.tags(8)["fwhm"]) == ("426.82", "11.3871")
        assert clean.tags(242, ns="IMAGERY")["CENTRAL_WAVELENGTH_UM"] == "2.577080"
        assert [clean.tags(i)["bbl"] for i in (7, 8, 57, 58, 76, 77, 224, 225)] == list("01100110")
    # The same pixels in the product's own format.
    run(path, tmp_path / "clean.L1R", quiet=True)
    copied = values(tmp_path / "clean.L1R").transpose(1, 0, 2)
    np.testing.assert_array_equal(copied, pixels)
    for band in range(242):
        assert (copied[band] == cube[band]).all() == (band not in record["bands_denoised"])
    noise = np.std(cube[100].astype(float) - copied[100])
    assert 20 < noise < 60  # what was added is what was removed
    assert path.read_bytes() == before
    # Once more: what the first run wrote is the same kind of scene.
    first, again = describe(path), describe(tmp_path / "clean.L1R")
    differing = {k for k in first if first[k] != again[k]}
    assert differing == {"name", "files", "tags"}
    assert again["tags"] == {"HDF4": 1}


def test_a_copy_keeps_everything_but_the_values(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cube, other = rng.integers(0, 999, (5, 20, 30), "int16"), rng.normal(size=(7, 4)).astype("float32")
    path = write(tmp_path / "scene.hdf", {"cube": cube, "other": other}, units="W", _FillValue=-1)
    file = SD(str(path), SDC.WRITE)
    file.mission = "EO-1"
    item = file.select("cube")
    for i, label in enumerate(("band", "line", "sample")):
        item.dim(i).setname(label)
    item.dim(0).setscale(SDC.FLOAT32, [400.0, 410.0, 420.0, 430.0, 440.0])
    item.endaccess()
    file.end()
    hdf = HDF(str(path), HC.WRITE)
    tables = hdf.vstart()
    tables.create("gains", (("gain", HC.FLOAT32, 1),)).write([[1.5], [2.5]])
    tables.end()
    hdf.close()
    before = path.read_bytes()
    with open_cube(path) as scene:
        assert scene.nodata == (-1,) * 5
        assert scene.tags[""]["units"] == "W"
        assert scene.tags["HDF4"] == {"mission": "EO-1"}
        with create_cube(tmp_path / "out.HDF", scene, provenance={"software": "x"}) as out:
            for row in range(0, 20, 6):
                out.write(row, scene.raw(Window(row, min(row + 6, 20), 0, 30)) + np.int16(1))
    assert path.read_bytes() == before
    np.testing.assert_array_equal(values(tmp_path / "out.HDF", "cube"), cube + 1)
    np.testing.assert_array_equal(values(tmp_path / "out.HDF", "other"), other)
    found = []
    for name in (path, tmp_path / "out.HDF"):
        file = SD(str(name))
        facts = {"file": file.attributes(), "sets": file.datasets()}
        facts |= {n: file.select(n).attributes(full=1) for n in ("cube", "other")}
        facts["scale"] = file.select("cube").dim(0).getscale()
        hdf = HDF(str(name))
        table = hdf.vstart().attach("gains")
        facts["table"] = table[:]
        table.detach()
        found.append(facts)
    assert found[1]["file"].pop("hsidenoise") == "software: x"
    assert found[0] == found[1]


def test_compressed_values_are_written_too(tmp_path: Path) -> None:
    cube = np.arange(5 * 20 * 30, dtype="int16").reshape(5, 20, 30)
    path = write(tmp_path / "scene.hdf", {"cube": cube}, compress=True)
    with open_cube(path, axes="byx") as scene:
        with create_cube(tmp_path / "out.hdf", scene) as out:
            for row in range(20):
                out.write(row, scene.raw(Window(row, row + 1, 0, 30)) // 2)
        np.testing.assert_array_equal(values(tmp_path / "out.hdf"), cube // 2)
    four = np.arange(2 * 3 * 4 * 6, dtype="float32").reshape(2, 3, 4, 6)
    path = write(tmp_path / "four.hdf", {"v": four}, compress=True)
    with open_cube(path, axes="1byx") as scene, create_cube(tmp_path / "four_out.hdf", scene) as out:
        out.write(0, scene.raw() * 0)
    table = np.arange(4 * 30, dtype="int16").reshape(4, 30)
    path = write(tmp_path / "Größe.hdf", {"v": table}, compress=True)
    with open_cube(path, shape="5x6", axes="byx") as scene, create_cube(tmp_path / "table.hdf", scene) as out:
        for row in range(5):
            out.write(row, scene.raw(Window(row, row + 1, 0, 6)) * np.int16(2))
    np.testing.assert_array_equal(values(tmp_path / "table.hdf"), table * 2)
    expected = four.copy()
    expected[1] = 0  # only the place that --axes names
    np.testing.assert_array_equal(values(tmp_path / "four_out.hdf"), expected)


def test_nothing_is_left_of_a_copy_that_fails(tmp_path: Path) -> None:
    path = write(tmp_path / "a.hdf", {"v": np.ones((4, 5), "int16")})
    with open_cube(path) as scene:
        writer = create_cube(tmp_path / "b.hdf", scene)
        with pytest.raises(WriteError), writer:  # half of the rows are missing
            writer.write(0, np.zeros((1, 2, 5), "int16"))
    assert [p.name for p in tmp_path.iterdir()] == ["a.hdf"]


def test_a_file_the_library_only_reads_is_said_to_be_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_cube(write(tmp_path / "a.hdf", {"v": np.ones((4, 5), "int16")})) as scene:
        monkeypatch.setattr("hsidenoise.io.hdf4.shutil.copyfile", lambda _, to: Path(to).write_bytes(b"no HDF4"))
        with pytest.raises(WriteError, match=r"only for reading; write \.tif"), create_cube(tmp_path / "b.hdf", scene):
            pass


def test_data_sets_are_chosen_by_name_and_axes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 99, (4, 5, 6), "int16"), rng.integers(0, 99, (2, 4, 5, 6), "uint8")
    path = write(tmp_path / "two.hdf", {"first": a, "second": a + 1, "four": b, "flat": a.reshape(4, 30)})
    with pytest.raises(UsageError, match=r"first \(4 x 5 x 6 int16\), second .*--variable"):
        open_cube(path)
    with pytest.raises(UsageError, match=r"no such SDS; there are first"):
        open_cube(path, variable="third")
    with pytest.raises(UsageError, match="give --axes, such as byx"):
        open_cube(path, variable="first")
    for axes in ("byx", "ybx", "yxb", "xyb"):
        with open_cube(path, variable="second", axes=axes) as scene:
            np.testing.assert_array_equal(scene.raw(), (a + 1).transpose([axes.index(c) for c in "byx"]))
    with open_cube(path, variable="four", axes="1byx") as scene:
        np.testing.assert_array_equal(scene.raw(), b[1])
    with open_cube(path, variable="flat", shape="5x6", axes="byx") as scene:
        np.testing.assert_array_equal(scene.raw(), a)
    for axes in ("by", "bbx", "2byx", "zyx"):
        with pytest.raises(UsageError, match="--axes"):
            open_cube(path, variable="four", axes=axes)


def test_axes_are_told_by_the_dimensions_names_and_by_single_places(tmp_path: Path) -> None:
    a = np.arange(4 * 5 * 6, dtype="float32").reshape(4, 5, 6)
    path = write(tmp_path / "named.hdf", {"v": a})
    file = SD(str(path), SDC.WRITE)
    item = file.select("v")
    for i, label in enumerate(("YDim:MOD_Grid", "XDim:MOD_Grid", "Bands")):
        item.dim(i).setname(label)
    item.endaccess()
    file.end()
    with open_cube(path) as scene:
        np.testing.assert_array_equal(scene.raw(), a.transpose(2, 0, 1))
    with open_cube(write(tmp_path / "one.hdf", {"v": a[:, :, :1]})) as scene:
        np.testing.assert_array_equal(scene.raw(), a[:, :, :1].transpose(2, 0, 1))


def test_scale_factors_are_carried_as_text_and_fill_values_as_nodata(tmp_path: Path) -> None:
    pixels = np.array([[1, 2], [-28672, 4]], "int16")
    attributes = {"scale_factor": 10000.0, "_FillValue": -28672, "valid_range": [-100, 16000]}
    path = write(tmp_path / "m.hdf", {"refl": pixels}, **attributes)
    with open_cube(path) as scene:
        assert scene.nodata == (-28672,)
        assert scene.scale == (1.0,)  # MODIS divides by its scale factor
        assert scene.tags[""]["scale_factor"] == "10000.0"
        assert scene.tags[""]["valid_range"] == "-100 16000"
        assert not scene.read()[1][0, 1, 0]
    odd = write(tmp_path / "odd.hdf", {"v": pixels.astype("uint8")}, _FillValue=-1)
    with pytest.warns(MetadataWarning, match="_FillValue -1 is no uint8"), open_cube(odd) as scene:
        assert scene.nodata == (None,)


GRID = """GROUP=SwathStructure
END_GROUP=SwathStructure
GROUP=GridStructure
\tGROUP=GRID_1
\t\tGridName="MODIS_Grid_500m_2D"
\t\tXDim={cols}
\t\tYDim=6
\t\tUpperLeftPointMtrs=({left},{top})
\t\tLowerRightMtrs=({right},{bottom})
\t\tProjection={projection}
\t\tZoneCode=-33
\t\tProjParams=(6371007.181000,0,0,0,{meridian},0,0,0,0,0,0,0,0)
\t\tSphereCode={sphere}
\t\tGridOrigin=HDFE_GD_UL
\t\tGROUP=DataField
\t\t\tOBJECT=DataField_1
\t\t\t\tDataFieldName="refl"
\t\t\t\tDimList=("YDim","XDim")
\t\t\tEND_OBJECT=DataField_1
\t\tEND_GROUP=DataField
\tEND_GROUP=GRID_1
END_GROUP=GridStructure
END
"""


def gridded(path: Path, **keys: Any) -> Path:
    """A file with an HDF-EOS2 grid around its data set."""
    write(path, {"refl": np.arange(48, dtype="int16").reshape(6, 8)})
    usual = {"cols": 8, "left": -40, "top": 600, "right": 120, "bottom": 0, "meridian": 0, "sphere": -1}
    file = SD(str(path), SDC.WRITE)
    file.attr("StructMetadata.0").set(SDC.CHAR8, GRID.format(**usual | keys))
    file.end()
    return path


def test_grids_of_hdf_eos_become_georeferencing(tmp_path: Path) -> None:
    with open_cube(gridded(tmp_path / "s.hdf", projection="GCTP_SNSOID", meridian=-15030000)) as scene:
        assert scene.geo.transform == (20, 0, -40, 0, -100, 600)
        crs = CRS.from_wkt(scene.geo.crs or "").to_dict()
        assert (crs["proj"], crs["R"], crs["lon_0"]) == ("sinu", 6371007.181, -15.5)
        with create_cube(tmp_path / "s.tif", scene) as out:
            out.write(0, scene.raw())
    with rasterio.open(tmp_path / "s.tif") as tif:
        assert tuple(tif.transform)[:6] == (20, 0, -40, 0, -100, 600)
        assert tif.crs.to_dict() == crs
    degrees = {"left": -120030000, "top": 10000000, "right": -119000000, "bottom": 9015036}
    with open_cube(gridded(tmp_path / "g.hdf", projection="GCTP_GEO", **degrees)) as scene:
        assert CRS.from_wkt(scene.geo.crs or "").to_epsg() == 4326
        assert scene.geo.transform == pytest.approx((1.5 / 8, 0, -120.5, 0, -(1 - 0.26) / 6, 10))
    with open_cube(gridded(tmp_path / "u.hdf", projection="GCTP_UTM", sphere=12)) as scene:
        assert CRS.from_wkt(scene.geo.crs or "").to_epsg() == 32733
    wrong: list[dict[str, Any]] = [{"projection": "GCTP_HOM"}, {"projection": "GCTP_UTM", "sphere": 0}]
    wrong += [{"projection": "GCTP_GEO", "cols": 9}, {"projection": "GCTP_GEO", "left": "x"}]
    for keys in wrong:
        (tmp_path / "x.hdf").unlink(missing_ok=True)
        gridded(tmp_path / "x.hdf", **keys)
        with pytest.warns(MetadataWarning, match="grid is not understood"):
            scene = open_cube(tmp_path / "x.hdf")
        with scene:
            assert (scene.geo.crs, scene.geo.transform) == (None, None)


def test_without_pyhdf_the_message_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.hdf", {"v": np.ones((4, 5), "int16")})
    for module in ("pyhdf", "pyhdf.SD", "pyhdf.error"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UnsupportedError, match=r"pip install 'hsidenoise\[hdf4\]'") as caught:
        open_cube(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", [0.02, 0.3, 0.9, 0.999])
def test_truncated_files_are_refused_in_one_line(tmp_path: Path, part: float) -> None:
    whole = write(tmp_path / NAME, {NAME: radiance(6, 10)}).read_bytes()
    short = tmp_path / "short.L1R"
    short.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(ReadError, match=r"short.L1R: .*(damaged|truncated)") as caught:
        open_cube(short)
    assert "\n" not in str(caught.value)


def test_a_crash_of_the_library_is_an_error_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.hdf", {"v": np.ones((4, 5), "int16")})
    crashing = tmp_path / "python"
    crashing.write_text("#!/bin/sh\nkill -SEGV $$\n")
    crashing.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(crashing))
    with pytest.raises(ReadError, match=r"a.hdf: damaged, the HDF4 library crashes on it"):
        open_cube(path)
    crashing.write_text("#!/bin/sh\nexec sleep 5\n")
    monkeypatch.setattr("hsidenoise.io.hdf4_probe._SECONDS", 0.2)
    with pytest.raises(ReadError, match="does not come back"):
        open_cube(path)


def test_directories_that_announce_more_than_the_file_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = write(tmp_path / "packed.hdf", {"v": np.zeros((300, 300), "int32")}, compress=True)
    monkeypatch.setattr(hdf4, "_CREDIBLE", 1000)
    monkeypatch.setattr(hdf4, "_RATIO", 10)
    with pytest.raises(SceneTooLargeError, match="--allow-large"):
        open_cube(packed)
    with open_cube(packed, allow_large=True) as scene:
        assert scene.shape == (1, 300, 300)


def test_files_without_a_scene(tmp_path: Path) -> None:
    file = SD(str(tmp_path / "empty.hdf"), SDC.WRITE | SDC.CREATE)
    file.create("nothing", SDC.INT16, (SDC.UNLIMITED, 4)).endaccess()
    file.end()
    with pytest.raises(UnsupportedError, match="nothing holds no values"):
        open_cube(tmp_path / "empty.hdf")
    with pytest.raises(UnsupportedError, match="without a scientific data set"):
        open_cube(write(tmp_path / "line.hdf", {"v": np.ones(5, "int16")}))
    assert "HDF4" not in hdf4._listed([])


def test_real_files(shared: Path, tmp_path: Path) -> None:
    folder = shared / "files" / "good" / "hdf4"
    opened = 0
    for path in sorted(folder.iterdir()):
        try:
            with open_cube(path) as scene:
                np.testing.assert_array_equal(scene.raw()[0], values(path).reshape(scene.shape[1:]))
                opened += 1
        except (UsageError, UnsupportedError) as refused:
            assert "\n" not in str(refused)  # noqa: PT017 - which of them are refused is the table in docs/formats.md
    assert opened == 10
    modis = folder / "MOD09GA.A2008296.h14v17.006.2015181011753.hdf"
    with open_cube(modis, variable="sur_refl_b01_1") as scene:
        assert scene.geo.transform == pytest.approx((463.3127165, 0, -4447802.078667, 0, -463.3127166, -8895604.157333))
        pixels = scene.raw()
        with create_cube(tmp_path / "m.hdf", scene) as out:
            out.write(0, pixels // 2)
    np.testing.assert_array_equal(values(tmp_path / "m.hdf", "sur_refl_b01_1"), pixels[0] // 2)
    np.testing.assert_array_equal(values(tmp_path / "m.hdf", "sur_refl_b02_1"), values(modis, "sur_refl_b02_1"))
