"""Files are what their bytes say; what cannot be opened is called by its name, in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scenes import pixels, write_envi, write_tiff

from hsidenoise.errors import ReadError
from hsidenoise.io import open_cube

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git-LFS pointer.*git lfs pull"),
        (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", "HTML page.*download failed"),
        (b"\n  <html lang='en'>", "HTML page"),
        (b"\x1f\x8b\x08\x00rest", "gzip"),
        (b"PK\x03\x04rest", "zip archive"),
        (b"some notes\nabout a scene\n", "text file"),
        (bytes(range(7, 250)) * 20, "neither a format GDAL knows nor raw data with an ENVI header"),
        (b"II*\0\x08\0\0\0", "cannot be opened"),
        (b"\x0e\x03\x13\x01" + bytes(100), "HDF4"),
    ],
    ids=["empty", "lfs", "html", "html2", "gzip", "zip", "text", "noise", "tiff", "hdf4"],
)
@pytest.mark.parametrize("name", ["scene.tif", "scene.img", "scene"])
def test_called_by_its_name(tmp_path: Path, content: bytes, message: str, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ReadError, match=message) as caught:
        open_cube(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="no such file"):
        open_cube(tmp_path / "none.tif")
    with pytest.raises(ReadError, match="No such file"):
        open_cube("none:such")
    with pytest.raises(ReadError, match="is a directory"):
        open_cube(tmp_path)


def test_header_without_data_and_data_without_header(tmp_path: Path) -> None:
    data = write_envi(tmp_path / "a.img", pixels())
    (tmp_path / "a.hdr").rename(tmp_path / "b.hdr")
    with pytest.raises(ReadError, match="no data file beside this header"):
        open_cube(tmp_path / "b.hdr")
    with pytest.raises(ReadError, match=r"ENVI header \(a\.img\.hdr\)"):
        open_cube(data)
    (tmp_path / "c.hdr").write_text("samples = 3\nlines = 3\n")
    with pytest.raises(ReadError, match="first line is not ENVI"):
        open_cube(tmp_path / "c.hdr")


def test_lfs_pointer_behind_a_good_header(tmp_path: Path) -> None:
    data = write_envi(tmp_path / "a.bsq", pixels())
    data.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 800\n")
    for name in ("a.bsq", "a.hdr"):
        with pytest.raises(ReadError, match=r"a\.bsq: is a git-LFS pointer"):
            open_cube(tmp_path / name)


def test_esri_header(tmp_path: Path) -> None:
    cube = pixels((1, 6, 5), "uint8")
    (tmp_path / "a.bil").write_bytes(cube.tobytes())
    (tmp_path / "a.hdr").write_text("BYTEORDER I\nLAYOUT BIL\nNROWS 6\nNCOLS 5\nNBANDS 1\nNBITS 8\n")
    for name in ("a.bil", "a.hdr"):
        with open_cube(tmp_path / name) as opened:
            assert opened.format == "EHdr"
            assert np.array_equal(opened.raw(), cube)
    (tmp_path / "a.bil").write_bytes(cube.tobytes()[:-1])
    with pytest.raises(ReadError, match="truncated"):
        open_cube(tmp_path / "a.bil")


def test_raw_pixels_that_look_like_something_else(tmp_path: Path) -> None:
    for start in (b"\x1f\x8b", b"PK\x03\x04", b"hello"):
        cube = pixels((2, 4, 10), "uint8")
        data = write_envi(tmp_path / "a.img", cube)
        data.write_bytes(start + data.read_bytes()[len(start) :])
        with open_cube(data) as opened:
            assert opened.raw().tobytes().startswith(start)


def test_gdal_says_nothing_by_itself(tmp_path: Path) -> None:
    source = write_tiff(tmp_path / "a.tif", pixels((3, 50, 50)), compress="deflate")
    content = bytearray(source.read_bytes())
    content[-3000:-2000] = bytes(1000)
    source.write_bytes(content)
    code = (
        "import sys\nfrom hsidenoise.io import open_cube\nfrom hsidenoise.errors import ReadError\n"
        "try:\n    open_cube(sys.argv[1]).raw()\nexcept ReadError as error:\n    print(type(error).__name__)\n"
    )
    run = subprocess.run([sys.executable, "-c", code, source], capture_output=True, text=True, cwd=ROOT, check=True)
    assert (run.stdout, run.stderr) == ("ReadError\n", "")
