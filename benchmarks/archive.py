"""A thousand small scenes of five formats, twenty of them broken, in one batch; and batches against a plain loop.

    python benchmarks/archive.py FOLDER [--scenes 1000] [--broken 20] [--jobs 2] [--loop 12]

Prints, for a tenth of the scenes and for all: outcomes, seconds, the client's peak memory; then what repeating the
command takes. With --loop N also N scenes of 128 x 128 x 64 by `hsidenoise run` one after the other, and by a batch.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import h5py
import netCDF4
import numpy as np
import rasterio
import scipy.io
import spectral.io.envi

FORMATS = ("tif", "img", "mat", "h5", "nc")


def cube(seed: int, bands: int, edge: int) -> np.ndarray:
    """Three mixed materials and white noise, float32 (bands, rows, cols)."""
    rng = np.random.default_rng(seed)
    row, col = np.mgrid[:edge, :edge] / edge
    maps = np.stack([np.sin(3 + seed % 7 * row) ** 2, np.cos(5 * col) ** 2, row * col])
    clean = np.einsum("bm,mij->bij", rng.random((3, bands)).cumsum(1).T / bands, maps)
    return (clean + 0.03 * rng.standard_normal(clean.shape)).astype(np.float32)


def write(path: Path, pixels: np.ndarray) -> None:
    """One scene in the format of its suffix, by a library of that format."""
    bands, rows, cols = pixels.shape
    wavelengths = np.linspace(400, 1000, bands)
    kind = path.suffix[1:]
    if kind == "tif":
        profile = {"driver": "GTiff", "count": bands, "height": rows, "width": cols, "dtype": "float32"}
        grid = {"crs": "EPSG:32633", "transform": rasterio.Affine(30, 0, 5e5, 0, -30, 4e6)}
        with rasterio.open(path, "w", **profile, **grid) as out:
            out.write(pixels)
    elif kind == "img":
        metadata = {"wavelength": list(wavelengths), "wavelength units": "Nanometers"}
        header = str(path.with_suffix(".hdr"))
        spectral.io.envi.save_image(header, pixels.transpose(1, 2, 0), metadata=metadata, force=True, interleave="bil")
    elif kind == "mat":
        scipy.io.savemat(path, {"cube": pixels.transpose(1, 2, 0), "wavelength": wavelengths})
    elif kind == "h5":
        with h5py.File(path, "w") as file:
            group = file.create_group("SITE/Reflectance")
            group["Reflectance_Data"] = pixels.transpose(1, 2, 0)
            group["Metadata/Spectral_Data/Wavelength"] = wavelengths
    else:
        with netCDF4.Dataset(path, "w") as file:
            for name, count in (("wavelength", bands), ("y", rows), ("x", cols)):
                file.createDimension(name, count)
            axis = file.createVariable("wavelength", "f8", ("wavelength",))
            axis.standard_name, axis.units = "radiation_wavelength", "nm"
            axis[:] = wavelengths
            file.createVariable("reflectance", "f4", ("wavelength", "y", "x"))[:] = pixels


def breakage(path: Path, how: int) -> None:
    """Damage a scene in one of five ways."""
    data = path.read_bytes()
    if how == 0:
        path.write_bytes(b"")
    elif how == 1:
        path.write_bytes(data[: len(data) // 3])
    elif how == 2:
        path.write_text("<!DOCTYPE html><html><body>404</body></html>")
    elif how == 3:
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    else:
        path.write_bytes(b"\x1f\x8b" + data[:100])


def archive(folder: Path, count: int, broken: int) -> None:
    """Scenes of 32 x 32 x 16 in folders of a hundred."""
    for i in range(count):
        path = folder / f"{i // 100:02}" / f"scene_{i:04}.{FORMATS[i % len(FORMATS)]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, cube(i, 16, 32))
    for k in range(broken):
        i = k * count // broken + k % len(FORMATS)
        breakage(folder / f"{i // 100:02}" / f"scene_{i:04}.{FORMATS[i % len(FORMATS)]}", k // len(FORMATS) % 5)


def batch(scenes: Path, out: Path, jobs: int) -> tuple[int, dict[str, object], float, float]:
    """Exit code, answer, seconds, and the client's peak memory in MiB."""
    script = (
        "import json, re, sys; from pathlib import Path; from hsidenoise.batch import batch;"
        "found = batch([sys.argv[1]], sys.argv[2], jobs=int(sys.argv[3]), quick=True, quiet=True);"
        # Not getrusage, whose peak is inherited from the process that started this one.
        "peak = int(re.search(r'VmHWM:\\s*(\\d+)', Path('/proc/self/status').read_text())[1]) / 1024;"
        "print(json.dumps(found | {'peak': peak}))"
    )
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script, str(scenes), str(out), str(jobs)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr)
    found = json.loads(done.stdout)
    return int(bool(found["failures"])), found, time.monotonic() - began, found["peak"]


def show(what: str, found: dict[str, object], seconds: float, peak: float) -> None:
    """One line."""
    counts = ", ".join(f"{found[key]} {key}" for key in ("done", "skipped", "failed"))
    print(f"{what}: {counts}; {seconds:.1f} s, client {peak:.0f} MiB", flush=True)


def loop(folder: Path, count: int, jobs: int) -> None:
    """The same scenes by a plain loop and by a batch."""
    scenes = folder / "loop"
    scenes.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        write(scenes / f"{i}.tif", cube(i, 64, 128))
    shutil.rmtree(folder / "one", ignore_errors=True)
    (folder / "one").mkdir()
    began = time.monotonic()
    for path in sorted(scenes.iterdir()):
        command = [sys.executable, "-m", "hsidenoise", "run", str(path), "-o", str(folder / "one" / path.name), "-q"]
        subprocess.run(command, check=True)
    naive = time.monotonic() - began
    shutil.rmtree(folder / "many", ignore_errors=True)
    _, found, seconds, _ = batch(scenes, folder / "many", jobs)
    print(f"{count} scenes of 128 x 128 x 64: loop {naive:.1f} s, batch of {jobs} jobs {seconds:.1f} s, "
          f"{naive / seconds:.1f} times the throughput; {found['done']} done")  # fmt: skip


def main() -> None:
    """Parse, make, measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--broken", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--loop", type=int, default=0)
    given = parser.parse_args()
    warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
    for count in (given.scenes // 10, given.scenes):
        scenes, out = given.folder / f"in{count}", given.folder / f"out{count}"
        shutil.rmtree(scenes, ignore_errors=True)
        shutil.rmtree(out, ignore_errors=True)
        archive(scenes, count, given.broken * count // given.scenes)
        code, found, seconds, peak = batch(scenes, out, given.jobs)
        show(f"{count} scenes, exit code {code}", found, seconds, peak)
    for failure in found["failures"]:
        print("   ", failure["error"])
    _, found, again, peak = batch(scenes, out, given.jobs)
    show(f"again, {100 * again / seconds:.1f} % of the time", found, again, peak)
    if given.loop:
        loop(given.folder, given.loop, given.jobs)


if __name__ == "__main__":
    main()
