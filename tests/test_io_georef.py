"""Georeferencing of ENVI files, against GDAL's own reading."""

from __future__ import annotations

from pathlib import Path

import pytest
import rasterio
from scenes import copy, header_keys, pixels, quiet, write_envi, write_tiff

from hsidenoise.errors import MetadataWarning, UsageError
from hsidenoise.io import open_cube

UTM = "{UTM, 1, 1, 500000, 4000000, 30, 30, 33, North, WGS-84, units=Meters}"


@pytest.mark.parametrize(
    "info",
    [
        UTM,
        "{UTM, 6, 5, 500000, 4000000, 30, 20, 33, South, WGS-84, units=Meters}",
        "{UTM, 1.5, 1.5, 500000.25, 4000000.125, 2.7, 2.7, 12, North, WGS-84, units=Meters}",
        "{UTM, 1, 1, 736600.089, 4078126.75, 2.7, 2.7, 12, North, WGS-84, units=Meters, rotation=-66}",
        "{Geographic Lat/Lon, 1, 1, -44.84, -22.93, 0.0034, 0.0034, WGS-84, units=Degrees}",
        "{UTM, 1, 1, 440720, 3751320, 60, 60, 11, North, North America 1927}",
    ],
)
def test_grid_agrees_with_gdal(tmp_path: Path, info: str) -> None:
    data = write_envi(tmp_path / "a.img", pixels(), keys={"map info": info})
    with open_cube(data) as opened, rasterio.open(data) as source:
        assert opened.geo.transform == pytest.approx(tuple(source.transform)[:6], rel=1e-15)
        assert opened.geo.crs == source.crs.to_wkt(version="WKT2_2019")


def test_rotation_turns_around_the_reference_pixel(tmp_path: Path) -> None:
    info = UTM.replace("UTM, 1, 1", "UTM, 6, 5").replace("}", ", rotation=30}")
    data = write_envi(tmp_path / "a.img", pixels(), keys={"map info": info})
    with open_cube(data) as opened:
        assert opened.geo.transform is not None
        a, b, c, d, e, f = opened.geo.transform
        assert (a * 5 + b * 4 + c, d * 5 + e * 4 + f) == pytest.approx((500000, 4000000), abs=1e-6)
    copy(data, tmp_path / "b.tif")
    copy(tmp_path / "b.tif", tmp_path / "c.img")
    with open_cube(tmp_path / "c.img") as again:
        assert again.geo.transform == pytest.approx(opened.geo.transform, rel=1e-9)


@pytest.mark.parametrize("info", ["{UTM, 1, 1}", "{UTM, 1, 1, abc, def, 30, 30, 33, North, WGS-84}"])
def test_unreadable_map_info_is_warned_of_and_carried(tmp_path: Path, info: str) -> None:
    data = write_envi(tmp_path / "a.img", pixels(), keys={"map info": info})
    with pytest.warns(MetadataWarning, match="map info"):
        copy(data, tmp_path / "b.img")
    assert header_keys(tmp_path / "b.hdr")["map info"] == info


@pytest.mark.parametrize("grid", [rasterio.Affine(30, 7, 5e5, -2, -29, 4e6), rasterio.Affine(20, 5, 0, 10, -10, 0)])
def test_grids_no_header_can_say_are_refused_before_anything_is_written(tmp_path: Path, grid: rasterio.Affine) -> None:
    source = write_tiff(tmp_path / "a.tif", pixels(), transform=grid)
    with pytest.raises(UsageError, match=r"sheared.*oblong.*GTiff"):
        copy(source, tmp_path / "b.img")
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


def test_control_points_and_rpcs_survive_in_envi(tmp_path: Path) -> None:
    from rasterio.control import GroundControlPoint

    keys = ("LINE_OFF", "SAMP_OFF", "LAT_OFF", "LONG_OFF", "HEIGHT_OFF")
    rpc = {k: str(i + 0.5) for i, k in enumerate((*keys, *(k.replace("OFF", "SCALE") for k in keys)))}
    rpc |= {"LAT_OFF": "30.5", "HEIGHT_SCALE": "5 meters"}
    for key in ("LINE_NUM_COEFF", "LINE_DEN_COEFF", "SAMP_NUM_COEFF", "SAMP_DEN_COEFF"):
        rpc[key] = " ".join(str(i / 7) for i in range(20))
    profile = {"driver": "GTiff", "count": 1, "height": 4, "width": 4, "dtype": "uint8"}
    with quiet(), rasterio.open(tmp_path / "a.tif", "w", **profile) as out:
        out.write(pixels((1, 4, 4), "uint8"))
        points = [GroundControlPoint(r, c, 5 + c / 10, 40 - r / 10, 7) for r in (0, 2, 4) for c in (0, 3)]
        out.gcps = points, rasterio.crs.CRS.from_epsg(4326)
        out.update_tags(ns="RPC", **rpc)
    copy(tmp_path / "a.tif", tmp_path / "b.img")
    copy(tmp_path / "b.img", tmp_path / "c.img")
    for name in ("b.img", "c.img"):
        with open_cube(tmp_path / name) as opened, quiet(), rasterio.open(tmp_path / name) as source:
            assert [p[:5] for p in opened.geo.gcps] == [(p.row, p.col, p.x, p.y, p.z) for p in points]
            assert "4326" in (opened.geo.gcps_crs or "")
            assert source.gcps[1].to_epsg() == 4326
            assert opened.geo.rpcs is not None
            assert opened.geo.rpcs["HEIGHT_SCALE"] == "5.0"
            assert [float(v) for v in opened.geo.rpcs["SAMP_DEN_COEFF"].split()] == pytest.approx(
                [i / 7 for i in range(20)], rel=1e-14
            )
            assert float(source.tags(ns="RPC")["LAT_OFF"]) == 30.5
