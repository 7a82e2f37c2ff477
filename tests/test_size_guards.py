"""Headers that announce more than there is or than fits: refused before a pixel is read, with size and way out."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from scenes import envi_header, write_envi, write_tiff

from hsidenoise.cube import Cube, Window
from hsidenoise.errors import ReadError, SceneTooLargeError
from hsidenoise.io import open_cube
from hsidenoise.run import run

TERABYTE = 2**40


@pytest.fixture(autouse=True)
def soon() -> Any:
    """No refusal takes long."""
    start = time.monotonic()
    yield
    assert time.monotonic() - start < 10


def sparse_tiff(path: Path, size: int = 65_535, bands: int = 1) -> Path:
    """A few hundred bytes that announce a square of `size`, no block of it stored."""
    import rasterio

    profile: dict[str, Any] = {"driver": "GTiff", "width": size, "height": size, "count": bands, "dtype": "uint8"}
    more = {"tiled": True, "blockxsize": 16_384, "blockysize": 16_384, "SPARSE_OK": "YES", "crs": "EPSG:32633"}
    with rasterio.open(path, "w", transform=tiny.TRANSFORM, **profile, **more):
        pass
    assert path.stat().st_size < 10_000
    return path


def sparse_envi(path: Path, shape: tuple[int, int, int], dtype: str = "int16") -> Path:
    """As long as its header says, but never written: a disk that has such files gives zeros."""
    like = np.lib.stride_tricks.as_strided(np.zeros(1, dtype), shape, (0, 0, 0))
    path.with_suffix(".hdr").write_text(envi_header(like))
    path.touch()
    try:
        os.truncate(path, like.size * like.itemsize)
    except OSError:
        pytest.skip("this disk has no files that large")
    if path.stat().st_blocks > 1000:
        pytest.skip("this disk has no sparse files")
    return path


def vrt(path: Path, source: Path, size: int) -> Path:
    path.write_text(
        f'<VRTDataset rasterXSize="{size}" rasterYSize="{size}"><VRTRasterBand dataType="Int16" band="1">'
        f'<SimpleSource><SourceFilename relativeToVRT="1">{source.name}</SourceFilename><SourceBand>1</SourceBand>'
        f'<SrcRect xOff="0" yOff="0" xSize="10" ySize="8"/><DstRect xOff="0" yOff="0" xSize="{size}" ySize="{size}"/>'
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    return path


def test_a_tiff_bomb_names_its_size_and_the_option(tmp_path: Path) -> None:
    path = sparse_tiff(tmp_path / "a.tif")
    said = r"a\.tif: announces 1 bands of 65535 x 65535 pixels, 4\.0 GiB.*--allow-large"
    with pytest.raises(SceneTooLargeError, match=said):
        open_cube(path)
    with open_cube(path, allow_large=True) as cube:
        assert not cube.raw(Window(65_000, 65_004, 0, 8)).any()


def test_a_vrt_bomb_is_measured_by_its_sources(tmp_path: Path) -> None:
    source = write_tiff(tmp_path / "a.tif", np.ones((1, 8, 10), np.int16))
    bomb, small = vrt(tmp_path / "bomb.vrt", source, 2_000_000), vrt(tmp_path / "small.vrt", source, 100)
    with pytest.raises(SceneTooLargeError, match=r"7450\.6 GiB.*--allow-large"):
        open_cube(bomb)
    with open_cube(bomb, allow_large=True) as cube, open_cube(small) as plain:
        assert (cube.raw(Window(0, 4, 0, 8)) == 1).all()
        assert plain.shape == (1, 100, 100)


def test_a_bomb_in_pages_is_refused_as_well(tmp_path: Path) -> None:
    import tifffile

    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        for _ in range(3):
            file.write(np.zeros((16, 16), "uint8"), metadata=None)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        places = [page.tags[code].valueoffset for page in file.pages for code in (256, 257, 278)]
    for at in places:
        data[at : at + 4] = (60_000).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(SceneTooLargeError, match=r"a\.tif: announces 3 x 60000 x 60000 .*10\.1 GiB.*--allow-large"):
        open_cube(path)
    with pytest.raises(ReadError, match="truncated"):
        open_cube(path, allow_large=True)


@pytest.mark.parametrize("shape", [(200, 4000, 1_000_000), (1, 1_000_000, 1_000_000), (60_000, 4000, 3000)])
def test_a_sparse_scene_of_terabytes_is_refused_for_the_memory_it_needs(
    shape: tuple[int, int, int], tmp_path: Path, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sparse_envi(tmp_path / "a.img", shape)
    assert path.stat().st_size > TERABYTE
    before = sorted(os.listdir(tmp_path))
    monkeypatch.setattr("hsidenoise.engine.free_memory", lambda device: 16 * 2**30)
    monkeypatch.setattr(Cube, "raw", None)
    monkeypatch.setattr(Cube, "read", None)
    for model in ("dct", weights):
        with pytest.raises(SceneTooLargeError, match=r"a\.img: .* GiB of memory even .* 16\.0 GiB are free;"):
            run(path, tmp_path / "out.img", model=model, device="cpu", quiet=True)
    assert sorted(os.listdir(tmp_path)) == before


def test_memory_is_what_this_machine_has_free(
    tmp_path: Path, weights: str, monkeypatch: pytest.MonkeyPatch, trusting: None
) -> None:
    path = tiny.envi(tmp_path / "a.img", tiny.cube(40, 36, 44).astype("float32"), "bil")
    monkeypatch.setattr("hsidenoise.engine.free_memory", lambda device: 2**20)
    with pytest.raises(SceneTooLargeError, match="cut the scene into smaller parts"):
        run(path, tmp_path / "out.img", model=weights, device="cpu", quiet=True)
    monkeypatch.undo()
    assert run(path, tmp_path / "out.img", model=weights, device="cpu", quiet=True)["tiles"]


def test_more_bands_than_there_can_be(tmp_path: Path) -> None:
    path = sparse_envi(tmp_path / "a.img", (10**9, 1, 1), "uint8")
    with pytest.raises(SceneTooLargeError, match="announces 1000000000 bands"):
        open_cube(path)


def test_a_header_of_terabytes_over_a_small_file_is_a_truncated_one(tmp_path: Path) -> None:
    small = np.zeros((5, 8, 10), np.int16)
    path = write_envi(tmp_path / "a.img", small, header=envi_header(small).replace("= 10", "= 2000000000"))
    with pytest.raises(ReadError, match="truncated: 800 bytes where the header announces 160000000000"):
        open_cube(path)


def test_the_bomb_from_outside(shared: Path) -> None:
    path = shared / "files" / "bad" / "tiff" / "huge4GB.tif"
    if not path.is_file():
        pytest.skip("not among the sample files")
    with pytest.raises(SceneTooLargeError, match=r"4\.0 GiB, in \d+ bytes; .*--allow-large"):
        open_cube(path)
    with pytest.raises(ReadError, match="truncated"):
        open_cube(path, allow_large=True)
