"""Faults that the sample files and the fuzz tests found, one test each."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import tiny
from scenes import envi_header, write_envi

from hsidenoise.errors import ReadError
from hsidenoise.io import create_cube, open_cube
from hsidenoise.run import run

CUBE = np.arange(3 * 20 * 24, dtype=np.uint16).reshape(3, 20, 24)


def pages(path: Path, **options: object) -> bytearray:
    tifffile.imwrite(path, CUBE, photometric="minisblack", **options)
    return bytearray(path.read_bytes())


def entry(path: Path, page: int, code: int) -> int:
    """Where a tag of a page lies in the file."""
    with tifffile.TiffFile(path) as file:
        return int(file.pages[page].tags[code].offset)


def link(path: Path, page: int) -> int:
    """Where the link to the next directory lies."""
    with tifffile.TiffFile(path) as file:
        return int(file.pages[page].offset) + 2 + 12 * len(file.pages[page].tags)


def copied(path: Path, target: Path) -> None:
    with open_cube(path) as cube:
        before = cube.raw()
        with create_cube(target, cube) as writer:
            writer.write(0, before)
    with open_cube(target) as cube:
        assert np.array_equal(cube.raw(), before)


def test_directories_that_run_in_a_circle(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    data = pages(path, metadata=None)
    struct.pack_into("<I", data, link(path, 1), 8)
    path.write_bytes(data)
    start = time.monotonic()
    with pytest.raises(ReadError):
        open_cube(path)
    assert time.monotonic() - start < 5


def test_a_page_packed_unlike_the_first_is_read_by_its_own_directory(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    data = pages(path)
    struct.pack_into("<H", data, entry(path, 1, 259) + 8, 8)  # says deflate, and the stack's layout says nothing
    path.write_bytes(data)
    with open_cube(path) as cube, pytest.raises(ReadError, match="damaged, page 2"):
        cube.raw()


def test_a_stack_whose_pages_have_other_strips_is_copied_as_a_stack(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    data = pages(path, imagej=True, metadata={"axes": "ZYX"})
    struct.pack_into("<I", data, entry(path, 1, 278) + 8, 1)
    path.write_bytes(data)
    copied(path, tmp_path / "b.tif")


def test_a_layout_that_is_not_followed_is_not_carried_over(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        for i, plane in enumerate(CUBE):  # the first pages are previews of the last
            more = {"description": '{"shape": [3, 20, 24]}'} if not i else {}
            file.write(plane, subfiletype=int(i < 2), photometric="minisblack", metadata=None, contiguous=False, **more)
    copied(path, tmp_path / "b.tif")


def test_raw_pixels_that_begin_as_a_tiff_does(tmp_path: Path) -> None:
    cube = CUBE.copy()
    cube.reshape(-1)[:2] = np.frombuffer(b"II*\0", "<u2")
    path = write_envi(tmp_path / "a.img", cube)
    with open_cube(path) as scene:
        assert scene.format == "ENVI"
        assert np.array_equal(scene.raw(), cube)


def test_control_characters_of_a_header_do_not_reach_the_terminal(tmp_path: Path) -> None:
    header = envi_header(CUBE).replace("samples = 24", "samples = \x1b[31mred\x07" + "9" * 5000)
    path = write_envi(tmp_path / "a.img", CUBE, header=header)
    with pytest.raises(ReadError) as caught:
        open_cube(path)
    said = str(caught.value)
    assert said.isprintable()
    assert len(said) < 1000
    assert said.endswith("set it to a whole number from 1 up")


def test_a_brace_that_is_never_closed_takes_no_time(tmp_path: Path) -> None:
    header = envi_header(CUBE) + "band names = {\n" + "a\n" * 500_000
    path = write_envi(tmp_path / "a.img", CUBE, header=header)
    start = time.monotonic()
    with pytest.raises(ReadError, match="never closed"):
        open_cube(path)
    assert time.monotonic() - start < 5


def test_a_scene_without_any_noise(tmp_path: Path) -> None:
    ramp = np.arange(20 * 30 * 40, dtype=np.float32).reshape(20, 30, 40)
    path = write_envi(tmp_path / "a.img", ramp)
    run(path, tmp_path / "b.img", model="dct", device="cpu", quiet=True)
    with open_cube(tmp_path / "b.img") as scene:
        assert np.allclose(scene.raw(), ramp, atol=0.1)


def test_an_esri_header_of_a_short_file_says_that_it_is_short(tmp_path: Path) -> None:
    (tmp_path / "a.hdr").write_text("NROWS 20\nNCOLS 20\nNBANDS 1\nNBITS 8\nLAYOUT BIL\n")
    (tmp_path / "a.bil").write_bytes(bytes(100))
    with pytest.raises(ReadError, match=r"truncated|too small"):
        open_cube(tmp_path / "a.hdr")


def test_a_tar_archive_is_called_one(tmp_path: Path) -> None:
    import tarfile

    path = tiny.envi(tmp_path / "a.img", CUBE, "bsq")
    with tarfile.open(tmp_path / "b.tar", "w") as archive:
        archive.add(path, "a.img")
    with pytest.raises(ReadError, match="is a tar archive; unpack it"):
        open_cube(tmp_path / "b.tar")
