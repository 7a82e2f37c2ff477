"""The README's picture, from the files of ``make demo``: python docs/images/demo.py build/demo docs/images/demo.png."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import rasterio

NAMES = {"scene": "noisy", "clean": "denoised", "truth": "truth"}


def main(folder: Path, picture: Path) -> None:
    """One noisy band and the spectra of a pixel, before and after."""
    cubes = {}
    for name in NAMES:
        with rasterio.open(folder / f"{name}.tif") as file:
            cubes[name] = file.read(masked=True).astype(float)
            wavelength = np.array([float(file.tags(b)["wavelength"]) for b in file.indexes])
            bad = np.array([file.tags(b).get("bbl", "1") == "0" for b in file.indexes])
    noise = np.ma.sqrt(np.square(cubes["scene"] - cubes["truth"]).mean((1, 2))) / cubes["truth"].std((1, 2))
    changed = np.array([not np.ma.allequal(a, b) for a, b in zip(cubes["scene"], cubes["clean"], strict=True)])
    band = int(np.argmax(np.where(bad | ~changed, 0, noise)))
    figure, axes = plt.subplots(1, 4, figsize=(15, 3.6), layout="constrained", width_ratios=[1, 1, 1, 1.15])
    low, high = np.percentile(cubes["truth"][band].compressed(), [1, 99])
    for axis, (name, title) in zip(axes, NAMES.items(), strict=False):
        axis.imshow(cubes[name][band].filled(np.nan), cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        axis.set_title(f"{title}, {wavelength[band]:.0f} nm")
        axis.set_axis_off()
    row, col = (n // 2 for n in cubes["scene"].shape[1:])
    for name, colour, width in (("scene", "#d9a36a", 0.8), ("truth", "#222222", 1.6), ("clean", "#1f77b4", 1.2)):
        spectrum = cubes[name][:, row, col].filled(np.nan).copy()
        spectrum[bad] = np.nan
        axes[3].plot(wavelength, spectrum, color=colour, lw=width, label=NAMES[name])
    axes[3].set(xlabel="wavelength (nm)", ylabel="reflectance x 10000", title=f"pixel {row}, {col}")
    axes[3].legend(frameon=False)
    axes[3].spines[["top", "right"]].set_visible(False)
    figure.savefig(picture, dpi=100)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
