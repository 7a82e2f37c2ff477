"""Outputs: which driver, refused before anything is read, whole or not there at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from scenes import copy, pixels, quiet, write_envi, write_tiff

from hsidenoise.cube import Cube
from hsidenoise.errors import OutputExistsError, UsageError, WriteError
from hsidenoise.io import CubeWriter, check_output, create_cube, describe_output, open_cube, output_driver

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("name", "of", "expected"),
    [
        ("a.tif", "", "GTiff"), ("a.TIFF", "", "GTiff"), ("a.img", "", "ENVI"), ("a.hdr", "", "ENVI"),
        ("a.bip", "", "ENVI"), ("a.raw", "", "ENVI"), ("a", "", "ENVI"), ("a.tif", "cog", "COG"),
        ("a.x", "envi", "ENVI"), ("a.img", "gtiff", "GTiff"), ("v1.2/a", "", "ENVI"),
    ],
)  # fmt: skip
def test_driver_by_request_then_suffix_then_input(tmp_path: Path, name: str, of: str, expected: str) -> None:
    with open_cube(write_envi(tmp_path / "in.img", pixels())) as cube:
        assert output_driver(name, of, cube) == expected


def test_driver_of_a_nameless_output_for_other_inputs(tmp_path: Path) -> None:
    source = write_tiff(tmp_path / "a.tif", pixels())
    with open_cube(source) as cube:
        assert output_driver("out", "", cube) == "GTiff"
        for name, of in (("a.png", ""), ("a.tif", "PNG")):
            with pytest.raises(UsageError, match="GTiff, COG"):
                output_driver(name, of, cube)


def test_existing_outputs_are_refused(tmp_path: Path) -> None:
    source = write_tiff(tmp_path / "a.tif", pixels())
    for taken, name in (("b.tif", "b.tif"), ("c.hdr", "c.img"), ("d.img", "d.hdr"), ("e.img.aux.xml", "e.img"),
                        ("f.tif.msk", "f.tif")):  # fmt: skip
        (tmp_path / taken).write_text("mine")
        with pytest.raises(OutputExistsError, match=f"{taken}: exists.*--overwrite"):
            check_output(tmp_path / name, inputs=[source], overwrite=False)
        check_output(tmp_path / name, inputs=[source], overwrite=True)
        with pytest.raises(OutputExistsError), open_cube(source) as cube:
            create_cube(tmp_path / name, cube)
        assert (tmp_path / taken).read_text() == "mine"


@pytest.mark.parametrize("link", ["same", "symlink", "hardlink", "dots"])
def test_the_input_is_never_the_output(tmp_path: Path, link: str) -> None:
    source = write_tiff(tmp_path / "a.tif", pixels())
    target = tmp_path / "b.tif"
    if link == "same":
        target = source
    elif link == "dots":
        (tmp_path / "sub").mkdir()
        target = tmp_path / "sub" / ".." / "a.tif"
    elif link == "symlink":
        target.symlink_to(source)
    else:
        target.hardlink_to(source)
    with pytest.raises(OutputExistsError, match="would replace the input"):
        check_output(target, inputs=[source], overwrite=True)
    with pytest.raises(OutputExistsError), open_cube(source) as cube:
        create_cube(target, cube, overwrite=True)


@pytest.mark.parametrize(("named", "target"), [("a.img", "a.img"), ("a.hdr", "a.img"), ("a.img", "a.dat"),
                                               ("a.hdr", "a.hdr"), ("a.img", "a.hdr")])  # fmt: skip
def test_an_input_header_is_never_replaced(tmp_path: Path, named: str, target: str) -> None:
    write_envi(tmp_path / "a.img", pixels())
    with pytest.raises(OutputExistsError, match="would replace the input"):
        check_output(tmp_path / target, inputs=[tmp_path / named], overwrite=True)


def test_impossible_folders(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        check_output(tmp_path / "none" / "a.tif", inputs=[], overwrite=False)
    with pytest.raises(UsageError, match="is a directory"):
        check_output(tmp_path, inputs=[], overwrite=True)
    with pytest.raises(UsageError, match="local files"):
        check_output("/vsimem/a.tif", inputs=[], overwrite=True)
    (tmp_path / "locked").mkdir(mode=0o500)
    if os.geteuid():
        with pytest.raises(UsageError, match="cannot be written"):
            check_output(tmp_path / "locked" / "a.tif", inputs=[], overwrite=False)


def test_overwriting_removes_stale_sidecars(tmp_path: Path) -> None:
    source = write_tiff(tmp_path / "a.tif", pixels())
    copy(source, tmp_path / "b.tif")
    for suffix in (".aux.xml", ".ovr", ".msk"):
        (tmp_path / f"b.tif{suffix}").write_text("stale")
    copy(source, tmp_path / "b.tif", overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tif", "b.tif"]
    neighbour = write_envi(tmp_path / "n.img", pixels())
    copy(source, tmp_path / "n.v2", of="ENVI", overwrite=True)
    assert neighbour.with_suffix(".hdr").exists()
    assert (tmp_path / "n.v2.hdr").exists()


def _interrupted(writer: CubeWriter, cube: Cube, path: Path | None) -> None:
    writer.write(0, cube.raw()[:, :3])
    assert path is None or not path.exists()
    raise KeyboardInterrupt


@pytest.mark.parametrize(("name", "of"), [("b.tif", ""), ("b.tif", "COG"), ("b.img", "")])
def test_nothing_is_left_after_a_failure(tmp_path: Path, name: str, of: str) -> None:
    source = write_tiff(tmp_path / "a.tif", pixels())
    with open_cube(source) as cube:
        with pytest.raises(KeyboardInterrupt), create_cube(tmp_path / name, cube, of=of) as writer:
            _interrupted(writer, cube, tmp_path / name)
        with pytest.raises(WriteError, match="only 3 of 8 rows"), create_cube(tmp_path / name, cube, of=of) as writer:
            writer.write(0, cube.raw()[:, :3])
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


def test_an_earlier_output_survives_a_failure(tmp_path: Path) -> None:
    source = write_tiff(tmp_path / "a.tif", pixels())
    copy(source, tmp_path / "b.tif")
    before = (tmp_path / "b.tif").read_bytes()
    with open_cube(source) as cube:
        writer = create_cube(tmp_path / "b.tif", cube, overwrite=True)
        with pytest.raises(KeyboardInterrupt), writer:
            _interrupted(writer, cube, None)
    assert (tmp_path / "b.tif").read_bytes() == before


def test_program_mistakes_are_value_errors(tmp_path: Path) -> None:
    with open_cube(write_tiff(tmp_path / "a.tif", pixels())) as cube:
        raw = cube.raw()
        for row, block in ((1, raw), (0, raw[:3]), (0, raw[:, :, :4]), (0, raw.astype("float32"))):
            with pytest.raises(ValueError, match=r"rows|block"), create_cube(tmp_path / "b.tif", cube) as writer:
                writer.write(row, block)


KILLED = """
import os, sys
from hsidenoise.io import create_cube, open_cube
with open_cube(sys.argv[1]) as cube, create_cube(sys.argv[2], cube, of=sys.argv[3]) as writer:
    writer.write(0, cube.raw()[:, :5])
    print("writing", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize(("name", "of"), [("b.tif", "GTiff"), ("b.img", "ENVI")])
def test_after_sigkill_nothing_has_the_outputs_name(tmp_path: Path, name: str, of: str) -> None:
    source = write_tiff(tmp_path / "a.tif", pixels())
    command = [sys.executable, "-c", KILLED, source, tmp_path / name, of]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    names = [p.name for p in tmp_path.iterdir() if p.name != "a.tif"]
    assert names
    assert all(n.startswith(f".{name}.") and n.endswith(".part") for n in names)


FULL_DISK = """
import resource, sys
from hsidenoise.errors import WriteError
from hsidenoise.io import create_cube, open_cube
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    with open_cube(sys.argv[1]) as cube, create_cube(sys.argv[2], cube, of=sys.argv[3]) as writer:
        for row in range(0, 100, 10):
            writer.write(row, cube.raw()[:, row : row + 10])
except WriteError as error:
    print(error)
"""


@pytest.mark.parametrize(("name", "of"), [("b.tif", "GTiff"), ("b.tif", "COG"), ("b.img", "ENVI")])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, name: str, of: str) -> None:
    source = write_tiff(tmp_path / "a.tif", pixels((10, 100, 300)))
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, source, tmp_path / name, of], capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    # libtiff itself says why, past every handler GDAL has.
    assert set(run.stderr.splitlines()) <= {"_tiffWriteProc: File too large."}
    assert run.stdout.count("\n") == 1
    assert f"{name}: cannot be written" in run.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


CUT_OFF = """
import resource, sys
from pathlib import Path
from hsidenoise.errors import WriteError
from hsidenoise.io import create_cube, open_cube
path, of, co = Path(sys.argv[2]), sys.argv[3], sys.argv[4:]
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
with open_cube(sys.argv[1]) as cube:
    for percent in (100, 99.9, 99, 97, 95, 90, 80, 60, 30):
        if percent < 100:
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(size * percent / 100), hard))
        try:
            with create_cube(path, cube, of=of, co=co) as writer:
                for row in range(0, 300, 100):
                    writer.write(row, cube.raw()[:, row : row + 100])
        except WriteError:
            print(percent, "refused", path.exists())
        else:
            size = path.stat().st_size
            print(percent, "written")
            path.unlink()
"""


@pytest.mark.parametrize("co", [(), ("COMPRESS=DEFLATE",)])
@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("of", ["GTiff", "COG"])
def test_whatever_does_not_reach_the_disk_is_noticed(tmp_path: Path, of: str, mask: bool, co: tuple[str, ...]) -> None:
    # Few values, so that a truncated intermediate file may well fit when it is compressed.
    source = write_tiff(tmp_path / "a.tif", pixels((4, 300, 800), "uint8") // 32, interleave="band")
    if mask:
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK="YES"), rasterio.open(source, "r+") as target:
            target.write_mask(pixels((1, 300, 800), "uint8")[0] > 99)
    run = subprocess.run(
        [sys.executable, "-c", CUT_OFF, source, tmp_path / "b.tif", of, *co], capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    refused = [f"{percent} refused False" for percent in (99.9, 99, 97, 95, 90, 80, 60, 30)]
    assert run.stdout.splitlines() == ["100 written", *refused]
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


@pytest.mark.parametrize("co", [(), ("COMPRESS=DEFLATE",), ("BLOCKYSIZE=2100",), ("SPARSE_OK=YES",), ("TILED=YES",)])
def test_what_looks_missing_but_is_not(tmp_path: Path, co: tuple[str, ...]) -> None:
    # A single strip of many rows, and blocks that hold nothing but zeros.
    cube = np.zeros((2, 2100, 9), np.uint8)
    cube[:, 1000] = 1
    copy(write_tiff(tmp_path / "a.tif", cube), tmp_path / "b.tif", step=300, co=co)
    with rasterio.open(tmp_path / "b.tif") as made:
        assert np.array_equal(made.read(), cube)


def test_too_little_room_is_known_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with open_cube(write_tiff(tmp_path / "a.tif", pixels())) as cube:
        for name in ("b.tif", "b.img"):
            with pytest.raises(WriteError, match="MiB left"):
                create_cube(tmp_path / name, cube)


def test_a_disk_that_fills_up_is_said_to_be_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    from hsidenoise.io.write_gtiff import GTiffSink

    def fail(*_: object) -> None:
        raise OSError("Write error at scanline 0")

    with open_cube(write_tiff(tmp_path / "a.tif", pixels())) as cube, monkeypatch.context() as patch:
        writer = create_cube(tmp_path / "b.tif", cube)
        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
        patch.setattr(GTiffSink, "write", fail)
        with pytest.raises(WriteError, match=r"b\.tif: cannot be written \(the disk is full\)"), writer:
            writer.write(0, cube.raw())


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    source = write_tiff(tmp_path / "a.tif", pixels())
    before = os.umask(0o027)
    try:
        for name in ("b.tif", "b.img"):
            copy(source, tmp_path / name)
            assert (tmp_path / name).stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(before)


def test_describe_output_is_what_is_made(tmp_path: Path) -> None:
    source = write_tiff(tmp_path / "a.tif", pixels((3, 20, 30)), nodata=5, compress="deflate", interleave="pixel")
    with open_cube(source) as cube:
        told = describe_output(tmp_path / "b.tif", cube, dtype="float32", bands=[0, 2])
        image = describe_output(tmp_path / "b.hdr", cube)
        assert not (tmp_path / "b.tif").exists()
    copy(source, tmp_path / "b.tif", dtype="float32", bands=[0, 2])
    with rasterio.open(tmp_path / "b.tif") as made:
        assert told["driver"] == made.driver
        assert told["shape"] == (made.count, *made.shape)
        assert told["dtype"] == made.dtypes[0]
        assert told["nodata"] == made.nodata
        assert told["interleave"] == made.profile["interleave"]
        assert told["compress"] == made.profile["compress"]
        assert told["bytes"] == 2 * 20 * 30 * 4
    assert image["path"] == str(tmp_path / "b.img")
    assert image["interleave"] == "bil"
    assert image["bytes"] == 3 * 20 * 30 * 2


def test_an_output_named_by_its_header(tmp_path: Path) -> None:
    cube = pixels()
    source = write_envi(tmp_path / "a.img", cube)
    assert copy(source, tmp_path / "b.hdr") == str(tmp_path / "b.img")
    with quiet(), rasterio.open(tmp_path / "b.img") as made:
        assert np.array_equal(made.read(), cube)


def test_relative_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_envi(Path("a.img"), pixels())
    for name in ("b.tif", "c.img"):
        copy("a.img", name)
        assert Path(name).exists()


def test_opening_does_not_load_torch() -> None:
    code = "import sys, hsidenoise.io; hsidenoise.io.create_cube; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout == "False\n"
    run = subprocess.run(
        [sys.executable, "-c", "import sys, hsidenoise.io; print('rasterio' in sys.modules)"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    assert run.stdout == "False\n"
