"""Damaged, truncated and misnamed files from outside the project, given to the command line.

A file is refused in one line that names it, or read rightly; nothing is left behind and nothing takes long. Each runs
in a process of its own, forked from one that has imported everything, and its stderr is that of the process: what C
libraries print past Python counts.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from scenes import quiet

ROOT = Path(__file__).parents[1]
BAD = ROOT.parent / "shared" / "files" / "bad"
pytestmark = [
    pytest.mark.skipif(not BAD.is_dir(), reason="the folder of sample files is not beside the project"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
]
FOLDERS = [
    "tiff", "envi_hdr_without_data", "envi_lfs", "ehdr", "hdf4", "hdf5", "jp2", "mat", "netcdf", "derived/envi",
    "derived/hdf", "derived/mat", "derived/tif",
]  # fmt: skip
SECONDS, MEGABYTES = 10, 500

# Files that can be read after all: what is odd about each, and the warning that says so.
READABLE = {
    # GDAL reads these without a doubt about their pixels.
    "tiff/byte_bigtiff_invalid_slong8_for_stripoffsets.tif": ("offsets of an unusual type", ""),
    "tiff/crash-0da013a13571cc8eb457a39fee8db18f8a3c7127.tif": ("only its tags are damaged", ""),
    "tiff/dstsize_larger_than_source.tif": ("valid LERC blocks", ""),
    "tiff/huge-implied-number-strips.tif": ("rows per strip of 1 are taken for what they mean", ""),
    "tiff/inconsistent_invflattening.tif": ("only the ellipsoid's flattening contradicts itself", ""),
    "tiff/invalid_GeogAngularUnitSizeGeoKey.tif": ("only the angular unit is wrong", ""),
    "tiff/minimum_tiff_tags_with_warning.tif": ("the fewest tags that can do", ""),
    "tiff/missing_extrasamples.tif": ("does not say what its fourth band is", ""),
    "tiff/non_standard_tiled_blockysize_one.tif": ("tiles of one row", ""),
    "tiff/one_strip_nobytecount.tif": ("the length of its only strip follows from its size", ""),
    "tiff/second_image_width_above_32bit.tif": ("only its second page is damaged", ""),
    "tiff/size_of_stripbytecount_at_1_and_lower_than_stripcount.tif": ("two strips are left out, so they hold 0", ""),
    "tiff/stripbytecounts_count_not_same_as_stripoffsets_count.tif": ("a strip is left out, so it holds 0", ""),
    # ENVI: sloppy or unusual, but the header and the size of the data leave one meaning.
    "derived/envi/UPPER.HDR": ("upper-case suffixes", ""),
    "derived/envi/bbl_float.hdr": ("bad bands flagged as 0.0", ""),
    "derived/envi/bbl_short.hdr": ("too few flags", "2 bbl flags for 5 bands; not used, but carried over"),
    "derived/envi/bilext_is_bip.hdr": ("the header, not the suffix, says how pixels are ordered", ""),
    "derived/envi/bom.hdr": ("a byte-order mark comes first", ""),
    "derived/envi/bsqext.hdr": ("named after its interleave", ""),
    "derived/envi/comment.hdr": ("comments", ""),
    "derived/envi/compressed.hdr": ("gzip, as the header says", ""),
    "derived/envi/compressed_lie.hdr": ("not gzip, though the header says so", "not compressed, as the header says"),
    "derived/envi/cr_only.hdr": ("line ends of old Macs", ""),
    "derived/envi/crlf.hdr": ("line ends of Windows", ""),
    "derived/envi/double.img.hdr": ("the header keeps the data's suffix", ""),
    "derived/envi/dup_keys.hdr": ("keys twice; the last one counts", "160 bytes more.*|unit 'Nanometers' does not fit"),
    "derived/envi/ignore_bad.hdr": ("a nodata value that is no number", "'data ignore value = none' is no int16"),
    "derived/envi/ignore_outofrange.hdr": ("one no pixel can have", "'data ignore value = 99999' is no int16"),
    "derived/envi/latin1.hdr": ("an umlaut in Latin-1", ""),
    "derived/envi/leading_blank.hdr": ("blank lines come first", ""),
    "derived/envi/long_by_100.hdr": ("data go on behind the image", "100 bytes more than the header announces"),
    "derived/envi/mapinfo_half.hdr": ("the reference is a pixel's centre", ""),
    "derived/envi/mapinfo_ref.hdr": ("the reference is not the corner", ""),
    "derived/envi/mapinfo_short.hdr": ("only the grid is lost", "'map info' is not understood"),
    "derived/envi/mapinfo_text.hdr": ("only the grid is lost", "'map info' is not understood"),
    "derived/envi/no_byte_order.hdr": ("nearly always little endian", "lacks 'byte order'; taken as little"),
    "derived/envi/no_interleave.hdr": ("taken for the most usual", "lacks 'interleave'; taken as bsq"),
    "derived/envi/noext.hdr": ("data without a suffix", ""),
    "derived/envi/nul.hdr": ("padded with NUL", ""),
    "derived/envi/ok_reference.hdr": ("nothing is wrong with it", ""),
    "derived/envi/tabs.hdr": ("tabs around the equals sign", ""),
    "derived/envi/wl_long.hdr": ("too many wavelengths", "6 wavelengths for 5 bands; not used, but carried over"),
    "derived/envi/wl_nan.hdr": ("one wavelength is not known", ""),
    "derived/envi/wl_short.hdr": ("too few wavelengths", "4 wavelengths for 5 bands; not used, but carried over"),
    "derived/envi/wl_text.hdr": ("one wavelength is a word", "some wavelengths are no numbers; left out"),
    "derived/envi/wl_units_contradict.hdr": ("0.6 nm cannot be meant", "'Nanometers' does not fit.*taken as um"),
    "derived/envi/wl_units_missing_um.hdr": ("0.6 nm cannot be meant", "without a unit.*taken as um"),
    "derived/envi/wl_units_wavenumber.hdr": ("wavenumbers", ""),
    "derived/envi/wl_unsorted.hdr": ("bands out of order", ""),
    "derived/envi/wrong_byte_order.hdr": ("nobody can know that it lies", ""),
    "derived/envi/xystart.hdr": ("cut out of a larger image", ""),
    # The name says one format, the bytes another.
    "derived/hdf/hdf4_named.h5": ("HDF4", ""),
    "derived/hdf/hdf5_named.hdf": ("HDF5", ""),
    "derived/hdf/renamed_tif.nc": ("TIFF", ""),
    # Two data files fit one header; given the data file, there is no doubt.
    "derived/envi/two.img": ("", ""),
    "derived/envi/two.dat": ("", ""),
}
# What the line says of the others, where the fault is not simply that it is cut short or damaged.
SAYS = {
    "tiff/huge4GB.tif": "not credible; the header is damaged, or give --allow-large",
    "tiff/uint33.tif": "Unsupported TIFF configuration",
    "tiff/unknown_compression.tif": "missing codec of code 65535",
    "derived/envi/two.hdr": "several data files could belong to this header.*give the data file itself",
    "derived/envi/classification.hdr": "class numbers, not measurements",
    "derived/envi/bad_interleave.hdr": "'interleave = xyz' in the ENVI header is none of bsq, bil, bip",
    "derived/envi/short_by_1.hdr": "truncated: 799 bytes where the header announces 800",
    "derived/envi/no_data.hdr": "there is no data file beside this header",
    "derived/envi/no_hdr.img": "nor raw data with an ENVI header",
    "derived/hdf/prisma_bitrot.he5": "damaged, its pixels cannot be read",
    "derived/hdf/prisma_trunc.he5": "truncated: 787070 bytes where the file itself says 1180606; fetch it again",
    "derived/mat/hdr128.mat": "without variables",
    "derived/mat/v5_trunc.mat": "truncated.*fetch it again",
    "derived/mat/v73_no_userblock.mat": "give --axes",
    "ehdr/truncated.hdr": "too small|truncated",
    "hdf5/no_band.h5": "choose one with --variable",
    "mat/PaviaU.mat": "is a text file",
    "mat/bad_miuint32.mat": "damaged: a variable of size",
    "mat/debigged_m4.mat": "truncated",
    "mat/malformed1.mat": "truncated",
    "mat/test_skip_variable.mat": "--axes yx",
    "mat/wdc_cropped.mat": "run 'git lfs pull'",
    "netcdf/byte_truncated.nc": "truncated",
    "derived/tif/html_login_page.tif": "HTML page.*the download failed, fetch it again",
    "derived/tif/lfs_pointer.tif": "run 'git lfs pull'",
    "derived/tif/trunc50.tif": "fetch it again",
    "derived/tif/trunc95.tif": "truncated.*fetch it again",
    "derived/tif/bitrot.tif": "damaged, its pixels cannot be read.*fetch it again",
    "derived/tif/zero_byte.tif": "the file is empty; fetch it again",
}


def files(folder: str) -> list[str]:
    """Names below `BAD`; of ENVI pairs the header, and the data file where it alone is there or asked for."""
    if not (BAD / folder).is_dir():
        return []
    names = sorted(p.name for p in (BAD / folder).iterdir() if p.is_file())
    stems = {n[: -len(".hdr")] for n in names if n.lower().endswith(".hdr")}
    return [
        f"{folder}/{n}" for n in names
        if n.lower().endswith(".hdr") or f"{folder}/{n}" in READABLE or not {n, n.rpartition(".")[0]} & stems
    ]  # fmt: skip


ALL = [name for folder in FOLDERS for name in files(folder)]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Every file through the command line; what came of it by name."""
    scratch = tmp_path_factory.mktemp("bad")
    before = listing()
    done = subprocess.run(
        [sys.executable, __file__, scratch], input=json.dumps(ALL), capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert listing() == before
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found


def listing() -> list[tuple[str, int, int]]:
    paths = [p for folder in FOLDERS if (BAD / folder).is_dir() for p in (BAD / folder).iterdir()]
    return sorted((str(p), p.lstat().st_size, p.lstat().st_mtime_ns) for p in paths)


@pytest.mark.parametrize("name", ALL)
def test_refused_in_one_line_or_read_rightly(name: str, ran: dict[str, dict[str, Any]]) -> None:
    found = ran[name]
    assert found["seconds"] < SECONDS
    assert found["megabytes"] < MEGABYTES
    assert found["stdout"] == ""
    lines = found["stderr"].splitlines()
    if name in READABLE:
        assert found["code"] == 0, lines
        assert all(line.startswith(("hsidenoise: ", "denoise: ")) for line in lines)
        said = [line for line in lines if line.startswith("hsidenoise: warning: ")]
        expected = READABLE[name][1]
        assert all(re.search(expected, line) for line in said) if expected else not said, said
        assert bool(said) == bool(expected)
        assert sorted(found["left"]) == ["clean.tif", "removed.tif"]
        assert found["right"]
    else:
        assert found["code"] in (1, 2)
        assert len(lines) == 1, lines
        assert lines[0].startswith("hsidenoise: error: ")
        assert name.rpartition(".")[0] in lines[0]
        assert re.search(SAYS.get(name, ""), lines[0]), lines[0]
        assert len(lines[0]) < 400
        assert found["left"] == []


def test_every_name_in_the_lists_is_there() -> None:
    assert set(READABLE) | set(SAYS) <= set(ALL)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("tiff/byte_zstd_corrupted.tif", 1), ("tiff/many_blocks_truncated.tif", 1), ("tiff/crash-2020-10-test.tif", 1),
        ("derived/tif/trunc50.tif", 1), ("derived/envi/short_half.hdr", 1), ("derived/envi/wl_text.hdr", 0),
    ],
)  # fmt: skip
def test_a_user_sees_the_same(name: str, code: int, tmp_path: Path) -> None:
    """No fork, no test around it: the shipped weights, and stderr straight from the process."""
    command = [sys.executable, "-m", "hsidenoise", "run", BAD / name, "-o", tmp_path / "clean.tif", "--device", "cpu"]
    done = subprocess.run(
        [*command, *(["--dry-run"] if code == 0 else [])], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("hsidenoise: warning: " if code == 0 else "hsidenoise: error: ")
    assert name.rpartition(".")[0] in lines[0]
    assert list(tmp_path.iterdir()) == []


# What follows runs in the subprocess.


def expected(name: str) -> NDArray[Any]:
    """What the file holds: as GDAL reads a TIFF; ENVI files of the set hold 0, 1, 2 ... in file order."""
    if name.endswith("hdf4_named.h5"):
        from pyhdf.SD import SD

        return SD(str(BAD / name)).select(0).get().transpose(1, 0, 2)
    if name.endswith("hdf5_named.hdf"):
        with h5py.File(BAD / name) as file:
            fields = file["HDFEOS/SWATHS/PRS_L2D_HCO/Data Fields"]
            return np.concatenate([fields[f"{part}_Cube"][:].transpose(1, 0, 2) for part in ("VNIR", "SWIR")])
    if name.startswith("tiff/") or name.endswith("renamed_tif.nc"):
        with quiet(), rasterio.open(BAD / name) as file:
            return file.read()
    stem = Path(name).name.split(".")[0]
    bands = 4 if stem == "dup_keys" else 5
    order = np.arange(80 * bands, dtype=np.int16)
    if stem == "wrong_byte_order":
        order = order.byteswap()
    if name.endswith("two.img"):
        order = np.frombuffer((BAD / name).read_bytes(), np.int16)
    if stem in ("bsqext", "no_interleave"):
        return order.reshape(bands, 8, 10)
    if stem == "bilext_is_bip":
        return order.reshape(8, 10, bands).transpose(2, 0, 1)
    return order.reshape(8, bands, 10).transpose(1, 0, 2)


def is_right(name: str, folder: Path) -> bool:
    """The output and what was removed add up to the input, and the output says that it is one."""
    with quiet(), rasterio.open(folder / "clean.tif") as clean, rasterio.open(folder / "removed.tif") as removed:
        before, after, difference = expected(name), clean.read(), removed.read()
        noted = "software" in clean.tags(ns="HSIDENOISE")
    untouched = np.isnan(difference)
    return bool(
        noted
        and before.dtype == after.dtype
        and np.array_equal(before[untouched], after[untouched])
        and np.array_equal(before[~untouched], after[~untouched] + difference[~untouched])
    )


def command(name: str, folder: Path, model: Path) -> int:
    """The command line in this process; its exit code."""
    from hsidenoise import cli

    sys.argv = ["hsidenoise", "run", str(BAD / name), "-o", str(folder / "clean.tif"), "--device", "cpu"]
    sys.argv += ["--residual", str(folder / "removed.tif"), "--model", str(model)]
    try:
        cli.main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def resident() -> int:
    """Megabytes of memory this process holds now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 2**20


def in_a_child(name: str, folder: Path, model: Path) -> dict[str, Any]:
    folder.mkdir()
    started = time.monotonic()
    before = resident() if sys.platform == "linux" else 0
    child = os.fork()
    if child == 0:
        signal.alarm(SECONDS)
        for number in (1, 2):
            os.dup2(os.open(folder.parent / f"{number}.txt", os.O_CREAT | os.O_TRUNC | os.O_WRONLY), number)
        code = 99
        try:
            code = command(name, folder, model)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status, usage = os.wait4(child, 0)
    left = [p.name for p in folder.iterdir()]
    return {
        "code": os.waitstatus_to_exitcode(status),
        "seconds": time.monotonic() - started,
        "megabytes": usage.ru_maxrss // 1024 - before if before else 0,
        "stdout": (folder.parent / "1.txt").read_text(),
        "stderr": (folder.parent / "2.txt").read_text(),
        "left": left,
        "right": "clean.tif" in left and is_right(name, folder),
    }


def main(scratch: Path) -> None:
    import tiny

    from hsidenoise import probe

    probe.HARMFUL = np.inf
    model = tiny.weights(scratch / "w.safetensors", bands=5, shared=8, local=4, evaluations=2)
    (scratch / "warm").mkdir()
    # Everything is imported here, so that a child pays for its own file only.
    assert command("derived/envi/ok_reference.hdr", scratch / "warm", model) == 0
    found = {}
    for number, name in enumerate(json.load(sys.stdin)):
        found[name] = in_a_child(name, scratch / str(number), model)
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
