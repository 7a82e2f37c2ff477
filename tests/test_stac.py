"""STAC Items: valid by the core schemas, true to the output, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pystac
import pytest
import rasterio
import tiny
from pystac.validation import JsonSchemaSTACValidator
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.transform import Affine
from scenes import quiet, write_envi, write_tiff

from hsidenoise.errors import MetadataWarning, OutputExistsError, UsageError, WriteError
from hsidenoise.io import open_cube, stac
from hsidenoise.run import run

EXTENSIONS = {
    f"https://stac-extensions.github.io/{name}/schema.json"
    for name in ("eo/v2.0.0", "processing/v1.2.0", "projection/v2.0.0", "raster/v2.0.0")
}
TYPES = {
    "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
}  # fmt: skip


def valid(path: Path) -> dict[str, Any]:
    """The Item, after the core schemas that pystac brings along and what the extensions' specifications ask for."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    core(found)
    properties = found["properties"]
    assert found["stac_version"] == "1.1.0"
    assert set(found["stac_extensions"]) <= EXTENSIONS
    assert (found["geometry"] is None) == ("bbox" not in found)
    # projection 2.0: code or null, rows and columns, six numbers
    assert properties["proj:code"] is None or properties["proj:code"].count(":") == 1
    assert all(isinstance(n, int) for n in properties["proj:shape"])
    assert len(properties["proj:shape"]) == 2
    assert len(properties.get("proj:transform", [0] * 6)) == 6
    assert len(properties.get("proj:bbox", [0] * 4)) == 4
    # processing 1.2
    assert properties["processing:software"]["hsidenoise"]
    assert isinstance(properties["processing:lineage"], str)
    datetime.fromisoformat(properties["processing:datetime"])
    used = set()
    for band in found["assets"]["data"]["bands"]:
        assert band["name"]
        assert band["data_type"] in TYPES
        assert isinstance(band.get("nodata", 0), int | float) or band["nodata"] in ("nan", "inf", "-inf")
        for key, value in band.items():
            prefix, _, field = key.rpartition(":")
            used.add(prefix)
            if prefix == "eo":  # µm
                assert field in ("center_wavelength", "full_width_half_max")
                assert 0 < value < 100
            if prefix == "raster":
                assert field in ("scale", "offset")
                assert isinstance(value, float)
    assert ("eo" in used) == any("/eo/" in name for name in found["stac_extensions"])
    return found


def core(item: Mapping[str, Any]) -> None:
    """By pystac's own copies of the schemas, without the network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("socket.socket.connect", lambda *_: pytest.fail("asks the network"))
        assert JsonSchemaSTACValidator().validate_core(dict(item), pystac.STACObjectType.ITEM, "1.1.0")
    assert pystac.Item.from_dict(dict(item)).to_dict(include_self_link=False)["assets"]


def scene(path: Path, **profile: Any) -> Path:
    """A GeoTIFF with noise."""
    return tiny.geotiff(path, (tiny.cube(6, 20, 24) * 1000).round().astype(np.int16), nodata=-9999, **profile)


def denoised(source: Path, output: Path, **options: Any) -> dict[str, Any]:
    """Run, and read the Item."""
    item = output.parent / "item.json"
    run(source, output, model="dct", stac=item, quiet=True, **options)
    return valid(item)


def test_the_item_of_a_geotiff(tmp_path: Path) -> None:
    source = scene(tmp_path / "a.tif")
    with rasterio.open(source, "r+") as file:
        file.update_tags(ACQUISITION_DATETIME="2024-06-01T10:20:30.5+02:00", processing_level="L2A")
        file.scales, file.offsets = [0.001] * 6, [0.25] * 6
    found = denoised(source, tmp_path / "out.tif")
    properties = found["properties"]
    assert found["id"] == "out"
    assert set(found["stac_extensions"]) == EXTENSIONS
    assert properties["datetime"] == "2024-06-01T08:20:30.500000Z"
    assert "description" not in properties
    assert properties["processing:level"] == "L2A"
    assert properties["processing:lineage"].startswith("Denoised from a.tif (6 of 6 denoised, dct")
    assert properties["proj:code"] == "EPSG:32632"
    assert properties["proj:shape"] == [20, 24]
    assert properties["proj:transform"] == list(tiny.TRANSFORM)[:6]
    assert properties["proj:bbox"] == [600_000, 5_000_000 - 600, 600_000 + 720, 5_000_000]
    asset = found["assets"]["data"]
    assert asset["href"] == "./out.tif"
    assert asset["type"] == "image/tiff; application=geotiff"
    assert asset["roles"] == ["data"]
    first = asset["bands"][1]
    assert first == {
        "name": "B2", "data_type": "int16", "eo:center_wavelength": 0.41, "eo:full_width_half_max": 0.0125,
        "nodata": -9999, "raster:scale": 0.001, "raster:offset": 0.25,
    }  # fmt: skip


def test_the_outline_is_where_the_pixels_are(tmp_path: Path) -> None:
    found = denoised(scene(tmp_path / "a.tif"), tmp_path / "out.tif")
    ring = np.array(found["geometry"]["coordinates"][0])
    with rasterio.open(tmp_path / "out.tif") as file:
        west, south, east, north = rasterio.warp.transform_bounds(file.crs, "EPSG:4326", *file.bounds)
    assert np.allclose(found["bbox"], [west, south, east, north], atol=1e-5)
    assert np.allclose([ring[:, 0].min(), ring[:, 1].min(), *ring.max(0)], found["bbox"])
    assert np.array_equal(ring[0], ring[-1])
    x, y = ring[:-1].T
    assert (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() > 0  # counterclockwise


@pytest.mark.parametrize("name", ["out.img", "out.nc", "copy.nc", "out"])
def test_items_of_other_formats(tmp_path: Path, name: str) -> None:
    source = scene(tmp_path / "a.tif")
    if name == "copy.nc":
        run(source, tmp_path / "a.nc", model="dct", quiet=True)
        source = tmp_path / "a.nc"
    with pytest.warns(MetadataWarning, match="TIFF tags") if name == "out.img" else nullcontext():
        found = denoised(source, tmp_path / name)
    asset = found["assets"]["data"]
    kind = {".nc": "application/netcdf", "": "image/tiff; application=geotiff"}.get(Path(name).suffix)
    assert asset.get("type") == kind
    assert asset["href"] == f"./{name}"
    assert [band["eo:center_wavelength"] for band in asset["bands"]] == [0.4, 0.41, 0.42, 0.43, 0.44, 0.45]
    assert found["properties"]["proj:code"] == "EPSG:32632"
    assert found["bbox"] == pytest.approx(denoised(source, tmp_path / "b.tif", overwrite=True)["bbox"], abs=1e-9)
    if name == "out.img":
        assert found["assets"]["header"] == {"href": "./out.hdr", "type": "text/plain", "roles": ["metadata"]}


def test_a_scene_without_georeferencing_has_no_geometry(tmp_path: Path) -> None:
    values = (tiny.cube(6, 20, 24) * 1000).astype(np.float32)
    found = denoised(write_envi(tmp_path / "a.img", values), tmp_path / "out.img")
    assert found["geometry"] is None
    assert "bbox" not in found
    assert found["properties"]["proj:code"] is None
    assert "proj:transform" not in found["properties"]
    assert [band["name"] for band in found["assets"]["data"]["bands"]][:2] == ["B1", "B2"]
    assert not any("/eo/" in name for name in found["stac_extensions"])
    seconds = datetime.fromisoformat(found["properties"]["datetime"]).timestamp()
    assert seconds == int((tmp_path / "a.img").stat().st_mtime)
    assert "time of its file" in found["properties"]["description"]


def test_control_points_give_an_outline_too(tmp_path: Path) -> None:
    source = write_tiff(tmp_path / "a.tif", (tiny.cube(4, 20, 24) * 1000).astype(np.int16), crs=None, transform=None)
    points = [GroundControlPoint(r, c, 10 + c / 100, 50 - r / 100) for r in (0, 20) for c in (0, 24)]
    with quiet(), rasterio.open(source, "r+") as file:
        file.gcps = points, CRS.from_epsg(4326)
    found = denoised(source, tmp_path / "out.tif")
    assert found["bbox"] == pytest.approx([10, 49.8, 10.24, 50])


@pytest.mark.parametrize("left", [179.0, -181.0])
def test_across_the_antimeridian(tmp_path: Path, left: float) -> None:
    grid = Affine(0.1, 0, left, 0, -0.1, 10)
    found = denoised(scene(tmp_path / "a.tif", crs="EPSG:4326", transform=grid), tmp_path / "out.tif")
    assert found["geometry"]["type"] == "MultiPolygon"
    assert found["bbox"] == pytest.approx([179, 8, -178.6, 10])
    longitudes = [sorted({p[0] for p in polygon[0]}) for polygon in found["geometry"]["coordinates"]]
    assert sorted((x[0], x[-1]) for x in longitudes) == pytest.approx(np.array([(-180, -178.6), (179, 180)]))


def test_across_the_antimeridian_in_metres(tmp_path: Path) -> None:
    found = denoised(
        scene(tmp_path / "a.tif", crs="EPSG:32601", transform=Affine(5000, 0, 130_000, 0, -5000, 1_000_000)),
        tmp_path / "out.tif",
    )
    assert found["geometry"]["type"] == "MultiPolygon"
    west, _, east, _ = found["bbox"]
    assert 179 < west < 180
    assert -180 < east < -178


def test_longitudes_beyond_180_are_turned(tmp_path: Path) -> None:
    grid = Affine(0.1, 0, 200, 0, -0.1, 10)
    found = denoised(scene(tmp_path / "a.tif", crs="EPSG:4326", transform=grid), tmp_path / "out.tif")
    assert found["geometry"]["type"] == "Polygon"
    assert found["bbox"] == pytest.approx([-160, 8, -157.6, 10])


def test_a_system_without_a_code_is_written_as_wkt(tmp_path: Path) -> None:
    crs = CRS.from_proj4("+proj=laea +lat_0=51.3 +lon_0=10.7 +ellps=GRS80 +units=m")
    found = denoised(scene(tmp_path / "a.tif", crs=crs, transform=Affine(30, 0, 0, 0, -30, 0)), tmp_path / "out.tif")
    assert found["properties"]["proj:code"] is None
    assert "Lambert Azimuthal Equal Area" in found["properties"]["proj:wkt2"]
    assert found["bbox"][0] == pytest.approx(10.7, abs=1e-6)


@pytest.mark.parametrize(("nodata", "said"), [(np.nan, "nan"), (-np.inf, "-inf"), (-9999.0, -9999.0)])
def test_nodata_that_json_lacks(tmp_path: Path, nodata: float, said: Any) -> None:
    values = tiny.cube(4, 20, 24).astype(np.float32)
    found = denoised(tiny.geotiff(tmp_path / "a.tif", values, nodata=nodata), tmp_path / "out.tif")
    assert {band["nodata"] for band in found["assets"]["data"]["bands"]} == {said}


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"TIFFTAG_DATETIME": "2024:06:01 10:20:30"}, None),  # when the file was made
        ({"acquisition time": "{2024-06-01T10:20:30Z}"}, {"datetime": "2024-06-01T10:20:30Z"}),
        ({"AcquisitionDate": "2024-06-01"}, {"datetime": "2024-06-01T00:00:00Z"}),
        ({"time_coverage_start": "2024-06-01T10:00:00Z", "time_coverage_end": "2024-06-01T10:00:05Z"},
         {"datetime": "2024-06-01T10:00:00Z", "start_datetime": "2024-06-01T10:00:00Z",
          "end_datetime": "2024-06-01T10:00:05Z"}),
        ({"acquisition_time": "last summer"}, None),
    ],
)  # fmt: skip
def test_when_it_was_taken(tmp_path: Path, tags: dict[str, str], expected: dict[str, str] | None) -> None:
    source = scene(tmp_path / "a.tif")
    with rasterio.open(source, "r+") as file:
        file.update_tags(**tags)
    properties = denoised(source, tmp_path / "out.tif")["properties"]
    if expected is None:
        assert "time of its file" in properties["description"]
    else:
        assert {k: v for k, v in properties.items() if k.endswith("datetime") and ":" not in k} == expected


def test_an_item_elsewhere_points_to_its_file(tmp_path: Path) -> None:
    (tmp_path / "catalog").mkdir()
    source = scene(tmp_path / "a.tif")
    run(source, tmp_path / "out.tif", model="dct", stac=tmp_path / "catalog" / "x.json", quiet=True)
    assert valid(tmp_path / "catalog" / "x.json")["assets"]["data"]["href"] == "../out.tif"


def test_it_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    source = scene(tmp_path / "a.tif")
    item = tmp_path / "item.json"
    item.write_text("mine")
    for path, options, error, said in (
        (item, {}, OutputExistsError, "exists"),
        (tmp_path / "item.txt", {}, UsageError, "name it .json"),
        (tmp_path / "no" / "item.json", {}, UsageError, "does not exist"),
        (tmp_path / "r.json", {"report": tmp_path / "r.html"}, UsageError, "r.json"),
    ):
        with pytest.raises(error, match=said):
            run(source, tmp_path / "out.tif", model="dct", stac=path, quiet=True, **options)
    assert item.read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tif", "item.json"]
    run(source, tmp_path / "out.tif", model="dct", stac=item, overwrite=True, quiet=True)
    assert valid(item)["id"] == "out"


def test_a_dry_run_writes_none(tmp_path: Path) -> None:
    run(
        scene(tmp_path / "a.tif"), tmp_path / "out.tif", model="dct", stac=tmp_path / "i.json", dry_run=True, quiet=True
    )
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


def test_a_failure_leaves_no_half_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hsidenoise.io.stac.os.fsync", full)
    with (
        open_cube(scene(tmp_path / "a.tif")) as cube,
        pytest.raises(WriteError, match=r"item\.json: cannot be"),
    ):
        stac.write(tmp_path / "item.json", cube, "GTiff", tags={}, scene="a.tif", provenance={})
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


def test_groups_of_a_netcdf_product(tmp_path: Path) -> None:
    """The copy is opened with the options that found the cube in the input."""
    with netCDF4.Dataset(tmp_path / "a.nc", "w") as file:
        for name, size in (("band", 4), ("y", 20), ("x", 24)):
            file.createDimension(name, size)
        for name in ("one", "two"):
            file.createVariable(name, "f4", ("band", "y", "x"))[:] = tiny.cube(4, 20, 24)
        file.time_coverage_start = "2024-06-01T10:00:00Z"
    found = denoised(tmp_path / "a.nc", tmp_path / "b.nc", variable="two")
    assert found["properties"]["datetime"] == "2024-06-01T10:00:00Z"
    assert len(found["assets"]["data"]["bands"]) == 4
