"""Quality of ``hsidenoise run`` and of what a user would otherwise pick, on the same noisy validation windows.

    python benchmarks/quality.py VAL_WINDOWS.py [-o table.md] [--windows NAME ...] [--patterns NAME ...]
                                 [--rivals] [--model NAME]

VAL_WINDOWS.py makes the windows, their seeded noise, and the scores (functions ``clean``, ``add_noise``, ``score`` and
the names ``WINDOWS``, ``PATTERNS``). Each noisy window is written as a float32 GeoTIFF and denoised by the public
function, file to file: survey, normalisation and noise estimate are those of every user. Rivals are per band, from
scikit-image (which needs PyWavelets for one of them), with the settings their documentation suggests.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import rasterio


def ours(noisy: np.ndarray, folder: Path, model: str) -> np.ndarray:
    """(rows, cols, bands) through files and `hsidenoise.denoise.run`."""
    from hsidenoise.denoise import run

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


def rivals() -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Per-band methods of scikit-image."""
    from skimage.restoration import denoise_nl_means, denoise_tv_chambolle, denoise_wavelet, estimate_sigma

    def each(function: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
        return lambda x: np.stack([function(x[..., b]) for b in range(x.shape[2])], 2)

    def nlm(band: np.ndarray) -> np.ndarray:
        sigma = float(estimate_sigma(band))
        return denoise_nl_means(band, h=0.8 * sigma, sigma=sigma, fast_mode=True)

    return {
        "wavelet": lambda x: denoise_wavelet(x, channel_axis=-1, rescale_sigma=True),
        "NLM": each(nlm),
        "TV": each(lambda band: denoise_tv_chambolle(band, weight=1.5 * float(estimate_sigma(band)))),
    }


def load(path: Path) -> ModuleType:
    """The module that makes and scores the windows."""
    spec = importlib.util.spec_from_file_location("val_windows", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Parse, measure, print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("val_windows", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--windows", nargs="+")
    parser.add_argument("--patterns", nargs="+")
    parser.add_argument("--rivals", action="store_true")
    parser.add_argument("--model", default="auto")
    given = parser.parse_args()
    val = load(given.val_windows)
    patterns = given.patterns or val.PATTERNS
    lines = ["| window | method | " + " | ".join(patterns) + " | seconds |", "|---" * (len(patterns) + 3) + "|"]
    print(*lines, sep="\n", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        for window in given.windows or val.WINDOWS:
            clean = val.clean(window)
            methods: dict[str, Callable[[np.ndarray], np.ndarray]] = {"noisy": lambda x: x}
            methods["hsidenoise"] = lambda x: ours(x, Path(temporary), given.model)
            for name, method in (methods | (rivals() if given.rivals else {})).items():
                cells, began = [], time.perf_counter()
                for pattern in patterns:
                    psnr, ssim, sam = val.score(clean, method(val.add_noise(clean, pattern)))
                    cells.append(f"{psnr:.2f} / {ssim:.4f} / {sam:.4f}")
                seconds = (time.perf_counter() - began) / len(patterns)
                lines.append(f"| {window} | {name} | " + " | ".join(cells) + f" | {seconds:.1f} |")
                print(lines[-1], flush=True)
    if given.output:
        given.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
