"""hsidenoise and what a user would otherwise pick and can install with pip, on the same noisy windows, in one run.

    python benchmarks/rivals.py VAL_WINDOWS.py [-o table.md] [--windows NAME ...] [--patterns NAME ...]
                                [--methods NAME ...]

VAL_WINDOWS.py makes the windows, their seeded noise, and the scores (functions ``clean``, ``add_noise``, ``score`` and
the names ``WINDOWS``, ``PATTERNS``). Every method runs in a process of its own: MPSNR in dB, MSSIM and SAM in rad of
its result, seconds, and the most memory the process held beyond what it had before. Models of hsidenoise go from file
to file through the public function, writing included. ``mnf`` is spectral's, at the rank that is best for the scene,
which no user knows: its row is a bound. bm4d is free for non-commercial use only.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np

Method = Callable[[np.ndarray], np.ndarray]
METHODS = ("noisy", "auto", "dct", "mnf", "wavelet", "nlm", "tv", "bm4d")


def ours(noisy: np.ndarray, folder: Path, model: str) -> np.ndarray:
    """(rows, cols, bands) through files and `hsidenoise.run.run`."""
    import rasterio

    from hsidenoise.run import run

    scene, clean = folder / "noisy.tif", folder / "clean.tif"
    rows, cols, bands = noisy.shape
    profile = {"driver": "GTiff", "dtype": "float32", "count": bands, "height": rows, "width": cols}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(scene, "w", **profile) as out:
            out.write(noisy.transpose(2, 0, 1))
        run(scene, clean, quiet=True, overwrite=True, model=model)
        with rasterio.open(clean) as result:
            return result.read().transpose(1, 2, 0)


def per_band(name: str) -> Method:
    """A method of scikit-image on every band, with the settings its documentation suggests."""
    from skimage.restoration import denoise_nl_means, denoise_tv_chambolle, denoise_wavelet, estimate_sigma

    def band(x: np.ndarray) -> np.ndarray:
        sigma = float(estimate_sigma(x))
        if name == "nlm":
            return denoise_nl_means(x, h=0.8 * sigma, sigma=sigma, fast_mode=True)
        return denoise_tv_chambolle(x, weight=1.5 * sigma)

    if name == "wavelet":
        return lambda x: denoise_wavelet(x, channel_axis=-1, rescale_sigma=True)
    return lambda x: np.stack([band(x[..., b]) for b in range(x.shape[2])], 2)


def mnf(noisy: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Spectral's minimum noise fraction at the rank that fits the truth best."""
    import spectral

    transform = spectral.mnf(spectral.calc_stats(noisy), spectral.noise_from_diffs(noisy))
    results = (transform.denoise(noisy, num=k) for k in range(1, min(40, noisy.shape[2])))
    return min(results, key=lambda x: float(np.square(np.clip(x, 0, 1) - clean).mean()))


def bm4d(noisy: np.ndarray) -> np.ndarray:
    """bm4d on bands divided by their noise, as a careful user runs it."""
    from bm4d import bm4d as filter_
    from skimage.restoration import estimate_sigma

    sigma = np.maximum(estimate_sigma(noisy, channel_axis=-1), 1e-4)
    return filter_(noisy / sigma, 1.0) * sigma


def load(path: Path) -> ModuleType:
    """The module that makes and scores the windows."""
    spec = importlib.util.spec_from_file_location("val_windows", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def one(val: ModuleType, window: str, pattern: str, method: str) -> dict[str, float]:
    """Run one method in this process and measure it."""
    clean = val.clean(window)
    noisy = val.add_noise(clean, pattern)
    with tempfile.TemporaryDirectory() as folder:
        run: Method = {
            "noisy": lambda x: x, "mnf": lambda x: mnf(x, clean), "bm4d": bm4d,
        }.get(method) or (
            per_band(method) if method in ("wavelet", "nlm", "tv") else lambda x: ours(x, Path(folder), method)
        )  # fmt: skip
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.perf_counter()
        result = run(noisy)
        seconds = time.perf_counter() - began
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    psnr, ssim, sam = val.score(clean, result)
    return {"psnr": psnr, "ssim": ssim, "sam": sam, "seconds": seconds, "memory": memory}


def main() -> None:
    """Parse, measure, print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("val_windows", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--windows", nargs="+")
    parser.add_argument("--patterns", nargs="+")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--one", nargs=3, metavar=("WINDOW", "PATTERN", "METHOD"), help="in this process, as JSON")
    given = parser.parse_args()
    val = load(given.val_windows)
    if given.one:
        print(json.dumps(one(val, *given.one)))
        return
    patterns = given.patterns or val.PATTERNS
    lines = ["| window | method | " + " | ".join(patterns) + " | s | MiB |", "|---" * (len(patterns) + 4) + "|"]
    print(*lines, sep="\n", flush=True)
    for window in given.windows or val.WINDOWS:
        for method in given.methods:
            found = []
            for pattern in patterns:
                command = [sys.executable, __file__, str(given.val_windows), "--one", window, pattern, method]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    print(f"{method}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
                    break
                found.append(json.loads(done.stdout.splitlines()[-1]))
            else:
                cells = [f"{f['psnr']:.2f} / {f['ssim']:.4f} / {f['sam']:.4f}" for f in found]
                seconds = sum(f["seconds"] for f in found) / len(found)
                most = max(f["memory"] for f in found)
                lines.append(f"| {window} | {method} | {' | '.join(cells)} | {seconds:.1f} | {most:.0f} |")
                print(lines[-1], flush=True)
    if given.output:
        given.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
