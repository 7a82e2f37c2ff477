"""Real and damaged files from outside the project: copies keep everything, damage is one clear line.

Each folder is one subprocess with a memory limit and a time limit, so that a crash or a memory bomb is a failed test.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
FILES = ROOT.parent / "shared" / "files"
pytestmark = pytest.mark.skipif(not FILES.is_dir(), reason="the folder of sample files is not beside the project")

GOOD = ["envi", "envi/snap_merge1", "envi/snap_meris", "geotiff", "jp2", "vrt", "ehdr"]
BAD = [
    "tiff", "jp2", "ehdr", "envi_lfs", "envi_hdr_without_data", "hdf4", "mat", "netcdf", "derived/envi", "derived/mat",
    "derived/tif",
]  # fmt: skip
LARGE = 4_000_000  # pixels; larger scenes are opened and read in part, not copied
# No rasters: sidecars and archives.
NOT_SCENES = (".aux.xml", ".csv", ".prj", ".tfw", ".tab", ".txt", ".xml", ".rpb", ".rpc", ".j2w", ".tar")


def run(mode: str, folder: Path, scratch: Path) -> dict[str, Any]:
    """Work through a folder in a subprocess; what it found by file name."""
    before = sorted((p.name, p.stat().st_mtime_ns) for p in folder.iterdir())
    done = subprocess.run(
        [sys.executable, __file__, mode, folder, scratch], capture_output=True, text=True, timeout=120, check=False,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-500:]}\n{done.stderr[-2000:]}"
    assert done.stderr == ""
    assert sorted((p.name, p.stat().st_mtime_ns) for p in folder.iterdir()) == before
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("folder", GOOD)
def test_good_files_are_copied_with_everything(folder: str, tmp_path: Path) -> None:
    if not (FILES / "good" / folder).is_dir():
        pytest.skip("not among the sample files")
    found = run("copy", FILES / "good" / folder, tmp_path)
    assert found.pop("peak_mb") < 600
    refused = {name: text for name, text in found.items() if text.startswith("refused")}
    wrong = {name: text for name, text in found.items() if text not in ("same", "opened") and name not in refused}
    assert not wrong
    for name, text in refused.items():
        assert text.startswith(("refused UnsupportedError", "refused ReadError")), (name, text)
    assert len(refused) < len(found) / 2 or not found


@pytest.mark.parametrize("folder", BAD)
def test_bad_files_are_one_clear_line_or_read_correctly(folder: str, tmp_path: Path) -> None:
    if not (FILES / "bad" / folder).is_dir():
        pytest.skip("not among the sample files")
    found = run("read", FILES / "bad" / folder, tmp_path)
    assert found.pop("peak_mb") < 500
    for name, text in found.items():
        assert text.startswith(("refused", "read")), (name, text)
        assert "\n" not in text


# What follows runs in the subprocess.


def _read(path: Path) -> str:
    from hsidenoise.cube import Window
    from hsidenoise.io import open_cube

    with open_cube(path) as cube:
        bands, rows, cols = cube.shape
        step = max(1, 2**24 // (bands * cols * 8))
        for row in range(0, rows, step):
            cube.read(Window(row, min(rows, row + step), 0, cols))
    return "read"


def _copy(path: Path, scratch: Path) -> str:
    from scenes import copy

    from hsidenoise.cube import Window
    from hsidenoise.io import open_cube

    with open_cube(path) as cube:
        kind, rows, cols = cube.format, *cube.shape[1:]
        if rows * cols * cube.shape[0] > LARGE:
            cube.read(Window(rows // 2, rows // 2 + 16, 0, min(cols, 512)))
            return "opened"
    suffix = ".img" if kind == "ENVI" else ".tif"
    for name in ("one", "two"):
        (scratch / name).mkdir(exist_ok=True)
    one = copy(path, scratch / "one" / f"x{suffix}", step=max(1, rows // 3), overwrite=True)
    two = copy(one, scratch / "two" / f"x{suffix}", step=max(1, rows // 2), overwrite=True)
    kept = _compare(path, Path(one), suffix == ".img")
    again = _compare(Path(one), Path(two), suffix == ".img")
    return "same" if not kept + again else f"{kept} then {again}"


def _compare(before: Path, after: Path, envi: bool) -> list[str]:
    """What differs, read with rasterio; header text and pixels of ENVI files are compared as bytes."""
    import rasterio

    from hsidenoise.io import open_cube

    wrong = []
    with open_cube(before) as a, open_cube(after) as b:
        if a.raw().tobytes() != b.raw().tobytes():
            wrong.append("pixels")
        if not np.array_equal(a.read()[1], b.read()[1]):
            wrong.append("validity")
        for field in ("shape", "dtype", "bands", "nodata", "scale", "offset"):
            if repr(getattr(a, field)) != repr(getattr(b, field)):
                wrong.append(field)
        files = a.layout["files"] if envi else ()
    if envi:
        head = Path(files[1]).read_bytes().replace(b"\r\n", b"\n").rstrip(b"\n ")
        lines = [line for line in after.with_suffix(".hdr").read_bytes().split(b"\n") if line]
        said = {line for line in head.split(b"\n") if line}
        if [line for line in lines if line not in said and not line.startswith((b"byte order", b"interleave"))]:
            wrong.append("header")
        return wrong
    with rasterio.open(before if before.suffix != ".hdr" else a.layout["files"][0]) as a, rasterio.open(after) as b:
        if not np.array_equal(a.dataset_mask() != 0, b.dataset_mask() != 0):
            wrong.append("mask")
        if a.crs != b.crs and not a.gcps[0]:
            wrong.append("crs")
        if a.transform != b.transform:
            wrong.append("transform")
        if [p.asdict() | {"id": 0} for p in a.gcps[0]] != [p.asdict() | {"id": 0} for p in b.gcps[0]]:
            wrong.append("gcps")
        if a.gcps[0] and a.gcps[1] != b.gcps[1]:
            wrong.append("gcps crs")
        if not _same_rpcs(a.tags(ns="RPC"), b.tags(ns="RPC")):
            wrong.append("rpcs")
        for field in ("descriptions", "units"):
            if getattr(a, field) != getattr(b, field):
                wrong.append(field)
        derived = {"IMAGE_STRUCTURE", "DERIVED_SUBDATASETS", "RPC", "SUBDATASETS", "LocationInfo"}
        for i in range(a.count + 1):
            for ns in {"", *a.tag_namespaces(i)} - derived:
                kept = {k: v for k, v in a.tags(i, ns=ns).items() if not k.startswith("STATISTICS_")}
                if a.driver != "GTiff" and ns.startswith("xml:"):
                    continue
                kept.pop("AREA_OR_POINT", None)  # GDAL says Area of any TIFF that has a grid, and of no other
                if kept.items() - b.tags(i, ns=ns).items():
                    wrong.append(f"tags {i} {ns} {dict(kept.items() - b.tags(i, ns=ns).items())}")
    return wrong


def _same_rpcs(a: dict[str, str], b: dict[str, str]) -> bool:
    def numbers(tags: dict[str, str]) -> dict[str, Any]:
        lists = {k: np.array(v.split(), float) for k, v in tags.items() if "COEFF" in k}
        return lists | {k: np.array([v.split()[0]], float) for k, v in tags.items() if k.endswith(("OFF", "SCALE"))}

    left, right = numbers(a), numbers(b)
    return left.keys() == right.keys() and all(np.allclose(left[k], right[k], 1e-12, 0) for k in left)


def _main(mode: str, folder: Path, scratch: Path) -> None:
    from hsidenoise.errors import HSIDenoiseError

    resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))
    warnings.simplefilter("ignore")
    found: dict[str, Any] = {}
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        if path.name.lower().endswith(NOT_SCENES) or (mode == "copy" and path.suffix == ".hdr"):
            continue
        try:
            found[path.name] = _copy(path, scratch) if mode == "copy" else _read(path)
        except HSIDenoiseError as error:
            found[path.name] = f"refused {type(error).__name__}: {error}"
    # Not ru_maxrss: that also counts the parent's memory at the fork, and pytest's own grows with the suite.
    status = Path("/proc/self/status").read_text()
    found["peak_mb"] = int(status.split("VmHWM:")[1].split()[0]) // 1024
    print(json.dumps(found))


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
