"""The pictures of docs/gallery.md: python docs/images/gallery.py REAL_NOISY.h5 FOLDER.

REAL_NOISY.h5 holds cubes (row, column, band) for which no truth exists.
"""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

from hsidenoise.engine import Engine
from hsidenoise.evaluate import denoise_array
from hsidenoise.model.weights import find, load

NODATA = -32768


def main(path: Path, folder: Path) -> None:
    """One picture for each cube: its noisiest live band before, after and removed, and row means."""
    engine = Engine(*load(find("auto")), torch.device("cpu"), 1)
    with h5py.File(path) as file:
        for name, data in file.items():
            noisy = np.ascontiguousarray(data[()].transpose(2, 0, 1), np.float32)
            after = denoise_array(noisy, engine, nodata=NODATA)
            valid = (noisy != NODATA) & np.isfinite(noisy)
            removed = np.where(valid, noisy - after, 0)
            change = np.sqrt(np.square(removed).mean((1, 2)))
            spread = np.array([a[v].std() if v.any() else 0 for a, v in zip(after, valid, strict=True)])
            ratio = np.where(spread > 0, change / np.maximum(spread, 1e-9), 0)
            # Noisy, but not so noisy that nothing of the scene is left.
            band = int(np.argmin(np.abs(ratio - min(0.7, ratio.max()))))
            draw(name, band, noisy[band], after[band], np.where(valid[band], removed[band], np.nan), valid[band],
                 folder / f"gallery_{name}.png")  # fmt: skip
            print(f"{name}: {noisy.shape}, band {band + 1}, removed over the spread of the band {ratio[band]:.2f}")


def draw(
    name: str, band: int, before: np.ndarray, after: np.ndarray, removed: np.ndarray, valid: np.ndarray, path: Path
) -> None:
    """Three pictures and the profile of row means."""
    figure, axes = plt.subplots(1, 4, figsize=(15, 3.7), layout="constrained", width_ratios=[1, 1, 1, 1.25])
    low, high = np.percentile(after[valid], [1, 99])
    reach = np.nanpercentile(np.abs(removed), 99)
    for axis, picture, title in zip(axes, (before, after), (f"{name}, band {band + 1}", "denoised"), strict=False):
        axis.imshow(np.where(valid, picture, np.nan), cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        axis.set_title(title, fontsize=10)
    axes[2].imshow(removed, cmap="gray", vmin=-reach, vmax=reach, interpolation="nearest")
    axes[2].set_title("removed", fontsize=10)
    for axis in axes[:3]:
        axis.set_axis_off()
    for picture, colour, label in ((before, "#d9a36a", "noisy"), (after, "#1f77b4", "denoised")):
        axes[3].plot(np.ma.masked_array(picture, ~valid).mean(1), color=colour, lw=1.1, label=label)
    axes[3].set_xlabel("row")
    axes[3].set_title("mean of each row", fontsize=10)
    axes[3].legend(frameon=False)
    axes[3].spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
