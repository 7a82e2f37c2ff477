"""One good sample file at a time: opened, copied, denoised, and the copy compared by readers that are not ours.

A process that has everything imported forks a child for each file, with a limit of memory and of time.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import h5py
import netCDF4
import numpy as np
import rasterio
import scipy.io
import spectral.io.envi
import tifffile
from corpus import FILES, OPTIONS
from scenes import quiet

LARGE = 4_000_000  # samples; larger scenes are opened and read in part, not copied
QUICK = 50_000  # samples; scenes up to this are denoised, too
SECONDS = 60


def work(name: str, scratch: Path) -> dict[str, str]:
    """What came of opening, copying and denoising a file."""
    from scenes import copy

    from hsidenoise.cube import Window
    from hsidenoise.errors import HSIDenoiseError
    from hsidenoise.io import open_cube
    from hsidenoise.run import run

    path, options = FILES / name, OPTIONS.get(name, {})
    try:
        with open_cube(path, **options) as cube:
            count, rows, cols = cube.shape
            cube.read(Window(rows // 2, min(rows, rows // 2 + 16), 0, min(cols, 512)))
            suffix = _suffix(path, cube.layout)
    except HSIDenoiseError as error:
        return {"refused": str(error)}
    if count * rows * cols > LARGE:
        return {"copied": "too large"}
    found: dict[str, Any] = {"copied": "same"}
    with open_cube(path, **options) as cube:
        copied = suffix in cube.layout.get("suffixes", ())
        once = copy_cube(cube, scratch / f"one{suffix}", max(1, rows // 3))
    again = options if copied else {}
    wrong = compare(path, once, options, again)
    if not copied:
        twice = Path(copy(once, scratch / f"two{suffix}", step=max(1, rows // 2)))
        wrong += [f"again: {text}" for text in compare(once, twice, {}, {})]
    found["copied"] = ", ".join(wrong) or "same"
    if count * rows * cols <= QUICK:
        out = scratch / f"clean{suffix}"
        try:
            run(path, out, model="dct", device="cpu", quiet=True, **options)
            with open_cube(out, **again) as clean, open_cube(path, **options) as before:
                same = (clean.shape, clean.dtype, repr(clean.bands)) == (before.shape, before.dtype, repr(before.bands))
            found["denoised"] = "done" if same else "another scene"
        except HSIDenoiseError as error:
            found["denoised"] = f"refused {error}"
            assert not out.exists()
    return found


def copy_cube(cube: Any, target: Path, step: int) -> Path:
    """Raw pixels through the writer, a few rows at a time."""
    from hsidenoise.cube import Window
    from hsidenoise.io import create_cube

    with create_cube(target, cube) as writer:
        for start in range(0, cube.shape[1], step):
            block = cube.raw(Window(start, min(start + step, cube.shape[1]), 0, cube.shape[2]))
            writer.write(start, block.astype(writer.dtype))
    return Path(writer.path)


def _suffix(path: Path, layout: Any) -> str:
    """The suffix by which an output has its input's format."""
    suffixes = layout.get("suffixes", ())
    if suffixes:
        return path.suffix.lower() if path.suffix.lower() in suffixes else str(suffixes[0])
    return ".img" if layout["driver"] == "ENVI" else ".tif"


def compare(before: Path, after: Path, options: dict[str, Any], again: dict[str, Any]) -> list[str]:
    """What differs: by this package, and by an independent reader of the format."""
    from hsidenoise.io import open_cube

    wrong = []
    with open_cube(before, **options) as a, open_cube(after, **again) as b:
        if a.raw().tobytes() != b.raw().tobytes():
            wrong.append("pixels")
        if not np.array_equal(a.read()[1], b.read()[1]):
            wrong.append("validity")
        for field in ("shape", "dtype", "bands", "nodata", "scale", "offset"):
            if repr(getattr(a, field)) != repr(getattr(b, field)):
                wrong.append(field)
        files, kind, pixels, driver = a.layout["files"], a.format, a.raw(), b.layout["driver"]
        wavelengths = a.bands.wavelength
    if h5py.is_hdf5(after):
        return wrong + _differ(hdf5(before), hdf5(after))
    if after.read_bytes()[:3] == b"CDF":
        return wrong + _differ(classic(before), classic(after))
    if kind.startswith("MATLAB"):
        return wrong + _differ(matlab(before), matlab(after))
    if kind.startswith("HDF4") and driver == "HDF4":
        return wrong + _differ(hdf4(before), hdf4(after))
    if driver == "ENVI":
        return wrong + (envi(files, after, pixels, wavelengths) if kind == "ENVI" else [])
    if kind.startswith("folder"):
        with quiet(), rasterio.open(after) as file:
            return wrong + (["pixels by rasterio"] if not np.array_equal(file.read(), pixels) else [])
    if kind == "ENVI" or before.suffix.lower() in (".hdr", ".l1r", ".mat", ".h5", ".nc"):
        with quiet(), rasterio.open(after) as file:
            return wrong + (["pixels by rasterio"] if not np.array_equal(file.read(), pixels) else [])
    if "pages" in _layout(before, options):
        return wrong + _differ(pages(before), pages(after))
    return wrong + raster(Path(files[0]) if before.suffix == ".hdr" else before, after)


def _layout(path: Path, options: dict[str, Any]) -> Any:
    from hsidenoise.io import open_cube

    with open_cube(path, **options) as cube:
        return cube.layout


def _differ(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    keys = [k for k in {**before, **after} if "hsidenoise" not in k.lower()]
    return [f"{k} by another reader" for k in keys if k not in before or k not in after or before[k] != after[k]]


def hdf5(path: Path) -> dict[str, Any]:
    """Everything in an HDF5 file as h5py sees it."""
    found: dict[str, Any] = {}

    def plain(file: h5py.File, value: Any) -> Any:
        if isinstance(value, h5py.Reference):
            return file[value].name if value else ""
        if isinstance(value, np.ndarray) and (value.dtype == object or value.dtype.names):
            return [plain(file, v) for v in value.ravel()]
        if isinstance(value, np.void) and value.dtype.names:
            return [plain(file, v) for v in value.item()]
        return str(getattr(value, "dtype", "")), repr(value.tolist() if hasattr(value, "tolist") else value)

    def attributes(file: h5py.File, name: str, item: Any) -> None:
        for key in item.attrs:
            try:
                found[f"{name}@{key}"] = plain(file, item.attrs[key])
            except (TypeError, OSError, ValueError) as error:
                found[f"{name}@{key}"] = str(error)

    with h5py.File(path, "r") as file:

        def visit(name: str, item: Any) -> None:
            attributes(file, name, item)
            if isinstance(item, h5py.Dataset):
                found[name] = item.dtype.str, item.shape, item.maxshape, item.chunks, item.compression, item.shuffle
                try:
                    values = item[()]
                    found[f"{name}="] = plain(file, values) if item.dtype == object else np.asarray(values).tobytes()
                except (TypeError, OSError, ValueError) as error:
                    found[f"{name}="] = str(error)

        attributes(file, "", file)
        file.visititems(visit)
    return found


def matlab(path: Path) -> dict[str, Any]:
    """Variables of a MATLAB file of version 4 or 5 as scipy sees them."""
    loaded = scipy.io.loadmat(path, struct_as_record=True)
    return {k: _plain(v) for k, v in loaded.items() if not k.startswith("__")}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":  # doubles may be stored as small integers
        return value.shape, value.astype(float).tobytes()
    return repr(value)


def classic(path: Path) -> dict[str, Any]:
    """Dimensions, variables and attributes of a classic netCDF file as the netCDF library sees them."""
    with netCDF4.Dataset(path) as file:
        file.set_auto_maskandscale(False)
        found: dict[str, Any] = {f"@{key}": repr(file.getncattr(key)) for key in file.ncattrs()}
        found["dimensions"] = {name: (len(d), d.isunlimited()) for name, d in file.dimensions.items()}
        for name, item in file.variables.items():
            told = {key: repr(item.getncattr(key)) for key in item.ncattrs()}
            found[name] = item.dtype, item.dimensions, told, np.asarray(item[...]).tobytes()
    return found


def hdf4(path: Path) -> dict[str, Any]:
    """Data sets and attributes of an HDF4 file as pyhdf sees them."""
    from pyhdf.SD import SD

    file = SD(str(path))
    found: dict[str, Any] = {f"@{k}": v for k, v in file.attributes(full=1).items()}
    for i in range(file.info()[0]):
        item = file.select(i)
        name = f"{i} {item.info()[0]}"
        found[name] = item.info()[1:], repr(item.attributes(full=1)), repr(item.dimensions(full=1))
        try:
            found[f"{name}="] = np.asarray(item[:]).tobytes() if all(np.ravel(item.info()[2])) else b""
        except Exception as error:
            found[f"{name}="] = type(error).__name__
        item.endaccess()
    file.end()
    for key in [k for k in found if "software" in k.lower()]:
        del found[key]
    return found


def pages(path: Path) -> dict[str, Any]:
    """Pages of a TIFF and their tags as tifffile sees them."""
    skip = {256, 257, 258, 259, 273, 277, 278, 279, 284, 305, 317, 322, 323, 324, 325, 330, 339, 42112}
    with tifffile.TiffFile(path) as file:
        found: dict[str, Any] = {}
        for i, page in enumerate(file.pages):
            whole = page.aspage() if page.is_frame else page
            found[f"{i}"] = whole.asarray().tobytes()
            for tag in whole.tags:
                if tag.code not in skip and tag.value not in (1, (1, 1)):  # a resolution of 1 says nothing
                    found[f"{i} {tag.name}"] = repr(tag.value)
    return found


def envi(files: Any, after: Path, pixels: Any, wavelengths: Any) -> list[str]:
    """The header line by line, and what Spectral Python makes of pixels and wavelengths."""
    wrong = []
    head = Path(files[1]).read_bytes().replace(b"\r\n", b"\n").rstrip(b"\n ")
    said = {line for line in head.split(b"\n") if line}
    lines = [line for line in after.with_suffix(".hdr").read_bytes().split(b"\n") if line]
    made = (b"byte order", b"interleave", b"hsidenoise")
    if [line for line in lines if line not in said and not line.startswith(made)]:
        wrong.append("header")
    if b"data type = 6" in lines or b"data type = 9" in lines:
        pixels = pixels[::2] + 1j * pixels[1::2]
    try:
        spectral.settings.envi_support_nonlowercase_params = True
        image = spectral.io.envi.open(str(after.with_suffix(".hdr")), str(after))
        seen = np.asarray(image.open_memmap(interleave="bsq"))
    except (spectral.io.spyfile.InvalidFileError, spectral.io.envi.EnviException, ValueError, EOFError):
        with quiet(), rasterio.open(after) as file:
            seen = file.read()
        same = np.array_equal(seen, pixels, equal_nan=pixels.dtype.kind in "fc")
        return wrong + ([] if same else ["pixels by rasterio"])
    if not np.array_equal(seen, pixels, equal_nan=pixels.dtype.kind in "fc"):
        wrong.append("pixels by spectral")
    centres = image.bands.centers
    if centres and len(centres) == len(wavelengths) and np.isfinite(wavelengths).all() and not (
        np.allclose(np.array(centres) / np.array(wavelengths), centres[0] / wavelengths[0], 1e-6) or 0 in wavelengths
    ):
        wrong.append("wavelengths by spectral")
    return wrong


def raster(before: Path, after: Path) -> list[str]:
    """What differs as rasterio sees it."""
    wrong = []
    with quiet(), rasterio.open(before) as a, rasterio.open(after) as b:
        pixels = a.read()
        if a.dtypes != b.dtypes or not np.array_equal(pixels, b.read(), equal_nan=pixels.dtype.kind in "fc"):
            wrong.append("pixels by rasterio")
        if not np.array_equal(a.dataset_mask() != 0, b.dataset_mask() != 0):
            wrong.append("mask")
        if a.crs != b.crs and not a.gcps[0]:
            wrong.append("crs")
        if a.transform != b.transform:
            wrong.append("transform")
        if repr(a.nodatavals) != repr(b.nodatavals):
            wrong.append("nodata")
        if [p.asdict() | {"id": 0} for p in a.gcps[0]] != [p.asdict() | {"id": 0} for p in b.gcps[0]]:
            wrong.append("gcps")
        if a.gcps[0] and a.gcps[1] != b.gcps[1]:
            wrong.append("gcps crs")
        if not _same_rpcs(a.tags(ns="RPC"), b.tags(ns="RPC")):
            wrong.append("rpcs")
        for field in ("descriptions", "units"):
            if getattr(a, field) != getattr(b, field):
                wrong.append(field)
        derived = {"IMAGE_STRUCTURE", "DERIVED_SUBDATASETS", "RPC", "SUBDATASETS", "LocationInfo", "HSIDENOISE"}
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


def in_a_child(name: str, scratch: Path) -> dict[str, Any]:
    """`work` in a process of its own, whatever becomes of it."""
    scratch.mkdir()
    start = time.monotonic()
    answer = scratch.with_suffix(".json")
    child = os.fork()
    if child == 0:
        signal.alarm(SECONDS)
        os.dup2(os.open(scratch.with_suffix(".txt"), os.O_CREAT | os.O_WRONLY), 2)
        try:
            resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, 6 * 2**30))
            answer.write_text(json.dumps(work(name, scratch)))
        except BaseException:
            answer.write_text(json.dumps({"failed": traceback.format_exc()}))
        finally:
            os._exit(0)
    _, status, usage = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(status)
    found: dict[str, Any] = json.loads(answer.read_text()) if answer.exists() else {"failed": f"exit code {code}"}
    said = scratch.with_suffix(".txt").read_text()
    shutil.rmtree(scratch)
    return found | {"said": said, "megabytes": usage.ru_maxrss // 1024, "seconds": round(time.monotonic() - start, 1)}


def main(scratch: Path) -> None:
    """Files named on stdin; what was found on stdout."""
    import hsidenoise.engine
    import hsidenoise.io.write_gtiff
    import hsidenoise.job
    import hsidenoise.run  # noqa: F401

    warnings.simplefilter("ignore")
    found = {name: in_a_child(name, scratch / str(i)) for i, name in enumerate(json.load(sys.stdin))}
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
