"""Peak memory of ``hsidenoise run`` on scenes of Hyperion's size, and four times as long.

    python benchmarks/memory.py [FOLDER] [--rows 3400 13600] [--model NAME] [--bidx BANDS]

Writes generated int16 scenes of 242 bands and 256 columns to FOLDER, denoises each in a process of its own, and
prints the peak resident memory the kernel counted for it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def make(path: Path, rows: int, bands: int = 242, cols: int = 256) -> None:
    """A smooth scene with noise, written in blocks of rows."""
    import rasterio
    from rasterio.transform import from_origin

    rng = np.random.default_rng(0)
    spectra = 2000 * (1.2 + np.sin(np.linspace(0, 9, bands))[:, None] * np.linspace(0.2, 1, 3))
    sigma = rng.uniform(20, 200, bands)
    profile = {"driver": "GTiff", "dtype": "int16", "count": bands, "height": rows, "width": cols,
               "interleave": "band", "BIGTIFF": "IF_SAFER", "crs": "EPSG:32633",
               "transform": from_origin(5e5, 5e6, 30, 30)}  # fmt: skip
    with rasterio.Env(GDAL_CACHEMAX=64), rasterio.open(path, "w", **profile) as out:
        for start in range(0, rows, 100):
            n = min(100, rows - start)
            y, x = np.mgrid[start : start + n, :cols]
            maps = np.stack([np.sin(y / 31) ** 2, np.cos(x / 17) ** 2, np.sin((x + y) / 53) ** 2])
            block = np.einsum("bk,kyx->byx", spectra, maps)
            block += sigma[:, None, None] * rng.standard_normal((bands, n, cols))
            out.write(block.astype(np.int16), window=((start, start + n), (0, cols)))


def main() -> None:
    """Parse, make, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=[3400, 13600])
    parser.add_argument("--model", default="auto")
    parser.add_argument("--bidx", default="", help="denoise these bands only: faster, all are read and written still")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for rows in given.rows:
            scene = folder / f"scene_{rows}.tif"
            if not scene.exists():
                make(scene, rows)
            command = [sys.executable, "-m", "hsidenoise", "run", str(scene), "-o", str(folder / f"clean_{rows}.tif"),
                       "--model", given.model, "--bidx", given.bidx, "--overwrite", "--json"]  # fmt: skip
            began = time.monotonic()
            with (folder / "record.json").open("w") as record:
                process = subprocess.Popen(command, stdout=record)
            _, status, usage = os.wait4(process.pid, 0)
            code, seconds = os.waitstatus_to_exitcode(status), time.monotonic() - began
            bands = len(json.loads((folder / "record.json").read_text())["bands_denoised"]) if code == 0 else 0
            print(f"242 bands x {rows} x 256, {bands} denoised: peak {usage.ru_maxrss / 2**20:.2f} GiB, "
                  f"{seconds:.0f} s, exit {code}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
